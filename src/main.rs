//! The hikyaku binary: see [`hikyaku::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku::cli::main()
}
