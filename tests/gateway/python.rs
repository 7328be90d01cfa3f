//! The programs of `tests/foreign`, in the Python that has what they need.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Python with pynetdicom: `HIKYAKU_TEST_PYTHON`, or the one that `tests/run` makes.
pub(crate) fn interpreter() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("HIKYAKU_TEST_PYTHON")
        .map_or_else(|| root.join("target/test-venv/bin/python"), PathBuf::from);
    assert!(python.exists(), "no {}: run tests/run once, which makes it", python.display());
    Command::new(python)
}

/// One of the programs.
pub(crate) fn python(script: &str) -> Command {
    let mut command = interpreter();
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(script));
    command
}
