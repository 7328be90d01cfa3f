//! `hikyaku pki`: a private authority and node certificates, one step each.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::table::say;
use super::{Failure, Outcome, node_name};
use crate::cargo::NodeName;
use crate::clock;
use crate::tunnel::pki;

/// `hikyaku pki …`
#[derive(Debug, Subcommand)]
pub(super) enum Pki {
    /// Make one private authority: DIR/ca.crt and DIR/ca.key
    ///
    /// Keep ca.key off the nodes; every node needs ca.crt.
    Ca(Ca),
    /// Issue DIR/NODE.crt and DIR/NODE.key, signed by the authority in DIR
    Issue(Issue),
}

/// `hikyaku pki ca`
#[derive(Debug, Args)]
pub(super) struct Ca {
    /// Folder of the authority; made when missing
    #[arg(long)]
    dir: PathBuf,
    /// Name in the authority's certificate
    #[arg(long)]
    name: String,
}

/// `hikyaku pki issue`
#[derive(Debug, Args)]
pub(super) struct Issue {
    /// Folder of the authority
    #[arg(long)]
    dir: PathBuf,
    /// Name of the node, as in its `[node] name`
    #[arg(long, value_parser = node_name)]
    name: NodeName,
    /// Days until the certificate expires
    #[arg(long, default_value_t = 397)]
    days: u32,
}

impl Pki {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Ca(Ca { dir, name }) => {
                pki::write_ca(&dir, &name, clock::wall())
                    .map_err(|e| Failure::Failed(e.to_string()))?;
                say(&format!(
                    "{0}/ca.crt: give it to every node\n{0}/ca.key: keep it secret, and \
                    off the nodes",
                    dir.display()
                ))
            }
            Self::Issue(Issue { dir, name, days }) => {
                pki::write_node(&dir, &name, days, clock::wall())
                    .map_err(|e| Failure::Failed(e.to_string()))?;
                let dir = dir.display();
                say(&format!("{dir}/{name}.crt\n{dir}/{name}.key: only node {name} may read it"))
            }
        }
    }
}
