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
    /// Every node needs ca.crt. Keep ca.key off the nodes, backed up and secret: who has it can
    /// make nodes. The authority is valid for ten years.
    Ca(Ca),
    /// Issue DIR/NODE.crt and DIR/NODE.key, signed by the authority in DIR
    ///
    /// The key belongs to that node alone; an existing key is never overwritten. With --renew only
    /// a new certificate is written, for the key that the node has: copy it to the node and have
    /// the node read it (`hikyaku reload`). DIR/NODE.crt must be the old certificate; the key need
    /// not be there. The old certificate is kept in DIR/replaced, for revocation.
    Issue(Issue),
}

/// `hikyaku pki ca`
#[derive(Debug, Args)]
pub(super) struct Ca {
    /// Folder of the authority; made when missing
    #[arg(long)]
    dir: PathBuf,
    /// Name in the authority's certificate, for people
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
    #[arg(long, default_value_t = pki::NODE_DAYS)]
    days: u32,
    /// Write a new certificate for the key of DIR/NODE.crt
    #[arg(long)]
    renew: bool,
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
            Self::Issue(Issue { dir, name, days, renew: true }) => {
                let kept = pki::renew_node(&dir, &name, days, clock::wall())
                    .map_err(|e| Failure::Failed(e.to_string()))?;
                say(&format!(
                    "{}/{name}.crt: valid for {days} days, for the key that the node has\n{}: the \
                    certificate before it",
                    dir.display(),
                    kept.display()
                ))
            }
            Self::Issue(Issue { dir, name, days, renew: false }) => {
                pki::write_node(&dir, &name, days, clock::wall())
                    .map_err(|e| Failure::Failed(e.to_string()))?;
                let dir = dir.display();
                say(&format!("{dir}/{name}.crt\n{dir}/{name}.key: only node {name} may read it"))
            }
        }
    }
}
