//! What operators see and do.
//!
//! - The ops listener (TCP) only reads: `/metrics`, `/health`, `/ready`, `/status`. No patient
//!   data, no change of anything, whoever asks.
//! - The API (TCP, TLS) is for other systems that the configuration names, each with its rights.
//! - The control socket (Unix, below `data`) does everything. Only who may open the file may
//!   ask; what changes something is recorded with the caller's system user.

pub mod api;
pub mod control;
mod notices;
mod orders;
pub mod pages;
mod reports;
pub mod status;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::calls::Calls;
use crate::cargo::NodeName;
use crate::clock::{self, Timestamp};
use crate::custody::Custody;
use crate::delivery::Delivery;
use crate::metrics::Metrics;
use crate::orders::notifier::Notifier;
use crate::orders::passing;
use crate::orders::registrar::Desk;
use crate::orders::worklist::poll::Conditions;
use crate::reports::secretary;
use crate::routing::Table;
use crate::tunnel::Tunnel;

/// What a running node shows to its operators.
#[derive(Debug)]
pub struct View {
    /// Its custody.
    pub custody: Custody,
    /// Its counters.
    pub metrics: Metrics,
    /// The rules in force.
    pub routes: Arc<ArcSwap<Table>>,
    /// Its tunnel, where it has one.
    pub tunnel: Option<Arc<Tunnel>>,
    /// Its senders.
    pub delivery: ArcSwap<Delivery>,
    /// Where orders are kept, if they are.
    pub orders: Option<Desk>,
    /// Where reports are kept, if they are.
    pub reports: Option<secretary::Desk>,
    /// How the worklists fare that are asked for orders.
    pub worklists: Conditions,
    /// Who brings notices to their receivers, where there are some.
    pub notifier: Option<Notifier>,
    /// How those fare to whom steps are passed on.
    pub steps: Option<passing::Watch>,
    /// Asks the node to read its configuration again; the answer comes in words.
    pub reload: Calls<ReloadRequest>,
    /// When it started.
    pub started_at: Timestamp,
    /// Why the node is not ready, in words; empty when it is.
    pub not_ready: Mutex<BTreeSet<String>>,
}

/// Answered with what was applied, or with what is wrong.
pub type ReloadRequest = tokio::sync::oneshot::Sender<Result<Vec<String>, Vec<String>>>;

impl View {
    /// This node.
    pub const fn node(&self) -> &NodeName {
        self.custody.node()
    }

    /// Seconds since the node started, by the monotonic clock.
    pub fn uptime_seconds(&self) -> u64 {
        clock::now().0.as_secs()
    }

    /// Why the node is not ready, in words.
    pub fn obstacles(&self) -> Vec<String> {
        let stated = self.not_ready.lock().map(|n| n.iter().cloned().collect());
        let mut obstacles: Vec<String> = stated.unwrap_or_default();
        let summary = self.custody.summary();
        if !summary.ready {
            obstacles.push("the ledger is being proven or rebuilt".into());
        }
        if summary.full {
            obstacles.push("the spool is above its watermark: routine cargo is refused".into());
        }
        if let Some(why) = &summary.unwritable {
            obstacles.push(format!("the spool cannot be written to: {why}"));
        }
        obstacles.extend(self.custody.stop_switch().reason());
        obstacles
    }
}
