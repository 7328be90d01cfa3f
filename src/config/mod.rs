//! The configuration file: raw TOML in, checked sections out, or everything that is wrong with it
//! at once, each fault with its line, its key and what to do.
//!
//! Unknown keys are faults, and the nearest known key is named. Quantities carry units. Secrets
//! are paths of files, never values; a relative path counts from the folder of the configuration
//! file, and `$CREDENTIALS_DIRECTORY/…` names a systemd credential.
//!
//! Limits: a file of at most [`FILE_LENGTH_MAX`] bytes. Nothing here resolves names or connects.

mod api;
mod changes;
mod check;
mod collect;
mod commitment;
mod describe;
mod files;
mod hl7_destination;
mod homes;
mod notices;
mod orders;
mod problem;
mod read;
mod reader;
mod reports;
mod rooms;
mod sections;
mod source;
mod sources;
mod steps;
mod value;
mod worklist;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::cargo::{DestinationName, NodeName};
use crate::routing::Table;

pub use api::{ApiClient, ApiError, ApiSection, ApiTls};
pub use changes::{Change, changes, reloaded};
pub use collect::{CollectSection, FolderSection};
pub use describe::describe;
pub use hl7_destination::Hl7Destination;
pub use notices::{MailSection, NoticeSection, WebhookSection};
pub use orders::{Hl7Section, OrdersSection};
pub use problem::{Problem, Remark, Warning};
pub use reports::ReportsSection;
pub use rooms::TlsError;
pub use sections::*;
pub use sources::SourceSection;
pub use steps::{StepReceiver, StepsSection};
pub use value::{HostPort, Share};
pub use worklist::WorklistSection;

use reader::Section;
use source::Source;
use value::Places;

/// Largest configuration file in bytes.
pub const FILE_LENGTH_MAX: u64 = 4 << 20;

/// A configuration that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// `[node]`.
    pub node: NodeSection,
    /// `[dicom]`; `None`: this node takes no images over DICOM.
    pub dicom: Option<DicomSection>,
    /// `[spool]`.
    pub spool: SpoolSection,
    /// `[tunnel]`; `None`: this node speaks to no other.
    pub tunnel: Option<TunnelSection>,
    /// Every `[[destination]]`, in the order of the file.
    pub destinations: Vec<Destination>,
    /// Every `[[route]]`, in the order of the file.
    pub routes: Table,
    /// `[orders]`; `None`: this node keeps no orders.
    pub orders: Option<OrdersSection>,
    /// `[reports]`; `None`: this node keeps no reports.
    pub reports: Option<ReportsSection>,
    /// `[api]`; `None`: other systems are not served.
    pub api: Option<ApiSection>,
    /// `[ops]`.
    pub ops: OpsSection,
    /// `[drain]`.
    pub drain: DrainSection,
    settings: BTreeMap<String, String>,
}

/// What reading a configuration comes to: it, and what is odd about it; or all that is wrong.
pub type Read = Result<(Config, Vec<Warning>), Vec<Problem>>;

impl Config {
    /// Reads and checks `path` and every file that it names: what `run` and `check-config` do.
    pub fn load(path: &Path) -> Read {
        Self::from_disk(path, true)
    }

    /// Reads and checks `path` alone. For commands that only ask a running node: their user need
    /// not be able to read its keys.
    pub fn read(path: &Path) -> Read {
        Self::from_disk(path, false)
    }

    fn from_disk(path: &Path, with_files: bool) -> Read {
        let fault = |what: String, advice: &str| {
            let (file, advice) = (path.to_owned(), advice.to_owned());
            vec![Problem(Remark { file, line: 0, key: String::new(), what, advice })]
        };
        let found = std::fs::metadata(path)
            .map_err(|e| fault(format!("cannot be read: {e}"), "name the file with --config"))?;
        if found.len() > FILE_LENGTH_MAX {
            return Err(fault("is too large".into(), "a configuration has at most 4 MiB"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| {
            fault(format!("cannot be read: {e}"), "it must be a file of UTF-8 text")
        })?;
        let places = Places {
            base: path.parent().unwrap_or(Path::new("")).to_owned(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        };
        Self::from_text(&text, path, places, with_files.then(crate::clock::wall))
    }

    /// Checks `text` as if it stood in `file`, without looking at the disk.
    pub fn parse(text: &str, file: &Path) -> Read {
        let base = file.parent().unwrap_or(Path::new("")).to_owned();
        Self::from_text(text, file, Places { base, credentials: None }, None)
    }

    fn from_text(
        text: &str,
        file: &Path,
        places: Places,
        files_at: Option<crate::clock::Timestamp>,
    ) -> Read {
        let (table, errors) = DeTable::parse_recoverable(text);
        let table = table.into_inner();
        let mut source = Source::new(file, text, places);
        errors.iter().for_each(|error| source.syntax(error));
        let mut root = Section::root(&mut source, &table);
        let document = read::document(&mut root);
        root.finish();
        if !source.is_broken() {
            check::check(&mut source, &document);
            if let Some(now) = files_at {
                files::check(&mut source, &document, now);
            }
        }
        let (Some(node), true) = (document.node, source.problems.is_empty()) else {
            source.problems.sort_by(|a, b| a.0.cmp(&b.0));
            source.problems.dedup();
            return Err(source.problems);
        };
        source.warnings.sort();
        let destinations: Vec<_> = document.destinations.into_iter().map(|(_, d)| d).collect();
        let rules = document.routes.into_iter().map(|(_, rule)| rule).collect();
        let config = Self {
            file: file.to_owned(),
            node,
            dicom: document.dicom,
            spool: document.spool,
            tunnel: document.tunnel,
            routes: Table::new(rules).without_images_for(hl7_destination::names(&destinations)),
            destinations,
            orders: document.orders,
            reports: document.reports,
            api: document.api,
            ops: document.ops,
            drain: document.drain,
            settings: source.settings,
        };
        Ok((config, source.warnings))
    }

    /// The destination with this name.
    pub fn destination(&self, name: &DestinationName) -> Option<&Destination> {
        self.destinations.iter().find(|destination| destination.name == *name)
    }

    /// Every node that may connect to us or that we connect to, with the origins that it may
    /// bring besides its own.
    pub fn peers(&self) -> BTreeMap<NodeName, &[NodeName]> {
        let Some(tunnel) = &self.tunnel else { return BTreeMap::new() };
        let nodes = self.destinations.iter().filter_map(|destination| match destination.kind {
            DestinationKind::Node { .. } => destination.name.as_str().parse().ok(),
            _ => None,
        });
        let listed = tunnel.peers.iter().map(|peer| (peer.name.clone(), peer.relay.as_slice()));
        nodes.map(|name| (name, [].as_slice())).chain(listed).collect()
    }

    /// Every setting by key path, defaults included, as it would stand in the file; list
    /// positions are replaced by names where there are names.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Problems of this configuration for a node that owes cargo to `owed`: a duty's destination
    /// is decided once, so a destination cannot go while cargo is owed to it. Notes are owed to the
    /// node that sent us the cargo, which need not be a destination.
    pub fn check_against(&self, owed: &[DestinationName]) -> Vec<Problem> {
        let peers: BTreeSet<DestinationName> =
            self.peers().keys().map(DestinationName::from).collect();
        let is_here =
            |name: &DestinationName| self.destination(name).is_some() || peers.contains(name);
        let gone = owed.iter().filter(|name| !is_here(name));
        gone.map(|name| {
            Problem(Remark {
                file: self.file.clone(),
                line: 0,
                key: "destination".into(),
                what: format!("{name} is gone, but cargo is owed to it"),
                advice: format!(
                    "put it back until `hikyaku queue list --destination {name}` is empty, or \
                     dismiss that cargo"
                ),
            })
        })
        .collect()
    }
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;
