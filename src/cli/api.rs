//! `hikyaku api`: tokens for other systems.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use clap::{Args, Subcommand};

use super::table::say;
use super::{Failure, Outcome};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// `hikyaku api …`
#[derive(Debug, Subcommand)]
pub(super) enum Api {
    /// Make a token for a client of the API, in FILE, which only its owner may read
    ///
    /// The token is 256 random bits and is not shown: bring the file to the client on a way that
    /// you trust, and name it as `token` of its [[api.client]]. An existing file is not changed.
    /// With --add the new token stands below the one in use, and both are right until the old line
    /// is removed and the node reloaded.
    Token(Token),
}

/// `hikyaku api token`
#[derive(Debug, Args)]
pub(super) struct Token {
    /// The file
    file: PathBuf,
    /// Add it to the file, below the token in use
    #[arg(long)]
    add: bool,
}

impl Api {
    pub(super) fn run(self) -> Outcome {
        let Self::Token(Token { file, add }) = self;
        let shown = file.display();
        write(&file, add).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Failure::Failed(format!(
                "{shown} is there already; --add adds a second token to it"
            )),
            _ => Failure::Failed(format!("{shown}: {e}")),
        })?;
        match add {
            true => say(&format!("{shown}: a second token was added; reload the node")),
            false => say(&format!("{shown}: a token; let the node's user read it, and no other")),
        }
    }
}

fn write(path: &Path, add: bool) -> io::Result<()> {
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let mut options = OpenOptions::new();
    match add {
        true => options.append(true),
        false => options.write(true).create_new(true).mode(0o600),
    };
    let line = match add && !fs::read(path)?.ends_with(b"\n") {
        true => format!("\n{token}\n"),
        false => format!("{token}\n"),
    };
    let mut file = options.open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
