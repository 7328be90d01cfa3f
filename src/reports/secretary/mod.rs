//! The secretary: the one owner of reports, their versions and the loop of each study. It drives the
//! pure parts of this room: what custody has taken in, entries of the book of reports out.
//!
//! - At the reading node it follows what was collected (`collect`), finds out where each document
//!   belongs, and sends it with a note to the hospital, or holds it for a person.
//! - At the hospital it follows what comes, keeps the versions apart, and hands the latest on to the
//!   hospital's systems; what these answer goes back as a note.

mod desk;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use desk::{
    CriticalRow, Desk, DeskError, Event, HeldRow, LoopRow, Page, Row, Story, VersionStory, Why,
    WordsRow,
};

use super::critical::Ladder;
use super::make::Home;
use super::signers::SignerRules;
use super::turnaround::Promises;
use crate::cargo::{DestinationName, NodeName};
use crate::custody::Custody;
use crate::metrics::Metrics;
use crate::orders::registrar;

/// Calls that may wait.
pub const CALLS_MAX: usize = 256;

/// Who may sign reports for some hospitals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// Which hospitals; empty: all.
    pub hospitals: Vec<NodeName>,
    /// Who.
    pub rules: SignerRules,
}

/// How a secretary works; already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Nodes that reports may come from or go to.
    pub peers: Vec<NodeName>,
    /// Local time of this site.
    pub zone: TimeZone,
    /// The systems of this site that take reports.
    pub homes: BTreeMap<DestinationName, Home>,
    /// Who may sign; of several that fit a hospital the first counts.
    pub signing: Vec<Signing>,
    /// Who is told of a critical result, and when.
    pub ladder: Ladder,
    /// By when what is promised.
    pub promises: Promises,
    /// How long a system may go without a yes before people are told.
    pub alarm: Duration,
}

/// Starts the secretary of a node. It works until `shutdown`.
pub fn start(
    config: Config,
    custody: Custody,
    orders: registrar::Desk,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Desk, tokio::task::JoinHandle<()>) {
    let (calls, inbox) = mpsc::channel(CALLS_MAX);
    let task = tokio::spawn(async move {
        let _kept = (config, custody, orders, metrics, inbox);
        shutdown.cancelled().await;
    });
    (Desk { calls }, task)
}
