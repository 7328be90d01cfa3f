//! The status document: what `hikyaku status --json` and `/status` give. Without patient data.

use std::time::Duration;

use crate::cargo::{DestinationName, NodeName};
use crate::clock::Timestamp;
use crate::custody::Summary;
use crate::custody::state::StateName;

use super::View;
use crate::orders::notifier::{Notifier, Undelivered};
use crate::orders::passing;
use crate::orders::registrar::Counts;
use crate::orders::worklist::poll::Condition;
use crate::reports::secretary::Desk;

/// Longest wait for the counts of orders, such as while the ledger is being rebuilt.
const COUNTS_TIME: Duration = Duration::from_secs(1);

/// Most documents, studies and critical results that are counted.
pub const REPORTS_COUNTED_MAX: usize = 1000;

/// A node at a glance.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Its name.
    pub node: NodeName,
    /// Its release.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Nothing stands in the way of taking and sending.
    pub ready: bool,
    /// What does, in words.
    pub obstacles: Vec<String>,
    /// The spool.
    pub spool: Spool,
    /// Where cargo goes.
    pub destinations: Vec<Destination>,
    /// Nodes that a tunnel connects.
    pub peers: Vec<Peer>,
    /// DICOM associations open now.
    pub associations: u64,
    /// Orders and evidence; absent where none are kept.
    pub orders: Option<Counts>,
    /// Worklists that are asked for orders.
    #[serde(default)]
    pub worklists: Vec<Condition>,
    /// Notices that are not delivered; absent where there are none to deliver.
    #[serde(default)]
    pub notices: Option<Undelivered>,
    /// Those to whom steps are passed on.
    #[serde(default)]
    pub steps: Vec<passing::Standing>,
    /// Reports; absent where none are kept, or the secretary does not answer at once.
    #[serde(default)]
    pub reports: Option<Reports>,
}

/// Reports at a glance; of each at most [`REPORTS_COUNTED_MAX`] are counted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reports {
    /// Documents that wait for a person.
    pub held: usize,
    /// Studies in which something is overdue.
    pub overdue: usize,
    /// Critical results of which nobody has said that he or she knows, or that are not closed.
    pub critical: usize,
}

impl Reports {
    /// As the secretary sees it now.
    async fn of(desk: &Desk) -> Option<Self> {
        let counted = async {
            let held = desk.held(REPORTS_COUNTED_MAX).await.ok()?.len();
            let overdue = desk.loops(true, REPORTS_COUNTED_MAX).await.ok()?.len();
            let critical = desk.criticals(false, REPORTS_COUNTED_MAX).await.ok()?.len();
            Some(Self { held, overdue, critical })
        };
        tokio::time::timeout(COUNTS_TIME, counted).await.ok().flatten()
    }
}

/// The spool at a glance.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Spool {
    /// Pieces of cargo whose bytes are here.
    pub present: u64,
    /// Bytes of them.
    pub present_bytes: u64,
    /// Pieces without a destination.
    pub unrouted: u64,
    /// Pieces that came with other bytes under a known key.
    pub conflicts: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes occupied on the disk.
    pub occupied_bytes: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Bytes above which routine cargo is refused.
    pub watermark_bytes: u64,
    /// The leap of the wall clock that a person must confirm.
    pub clock_leap: Option<String>,
    /// What was found damaged.
    pub findings: Vec<String>,
    /// What a kill left half written: never answered with success.
    #[serde(default)]
    pub torn: Vec<String>,
}

/// A destination at a glance.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Destination {
    /// Its name.
    pub destination: DestinationName,
    /// `node`, `dicom`, `hl7` or `folder`; empty for one that is no longer configured.
    pub kind: String,
    /// It answered at its last try; absent before the first.
    pub up: Option<bool>,
    /// What went wrong last, in words.
    pub last_error: Option<String>,
    /// Duties owed.
    pub owed: u64,
    /// Duties being tried.
    pub in_flight: u64,
    /// Duties held.
    pub held: u64,
    /// Duties receipted.
    pub receipted: u64,
    /// Duties quarantined.
    pub quarantined: u64,
    /// Duties dismissed.
    pub dismissed: u64,
    /// Bytes of duties that are owed, held or quarantined.
    pub open_bytes: u64,
    /// Age of the oldest owed duty.
    pub oldest_owed_seconds: u64,
}

/// A node at the other end of a tunnel.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Peer {
    /// Its name.
    pub node: NodeName,
    /// A tunnel stands.
    pub up: bool,
    /// Since when it is up or down.
    pub since: String,
    /// Why it is down.
    pub reason: String,
    /// The address at the other end.
    pub address: Option<String>,
    /// Round-trip time in seconds.
    pub rtt_seconds: Option<f64>,
    /// Packets declared lost on this connection.
    pub lost_packets: u64,
    /// When the certificate it showed expires.
    pub certificate_expires: Option<String>,
}

impl Status {
    /// Of a running node, now.
    pub async fn of(view: &View) -> Self {
        let last = || view.custody.summary().as_ref().clone();
        let summary = view.custody.summary_now().await.unwrap_or_else(last);
        let obstacles = view.obstacles();
        Self {
            node: view.node().clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: view.uptime_seconds(),
            ready: obstacles.is_empty(),
            obstacles,
            spool: Spool {
                present: summary.present,
                present_bytes: summary.present_bytes,
                unrouted: summary.unrouted,
                conflicts: summary.conflicts,
                tombstones: summary.tombstones,
                occupied_bytes: summary.spool_bytes,
                free_bytes: summary.free_bytes,
                watermark_bytes: summary.watermark_bytes,
                clock_leap: summary.clock_leap.clone(),
                findings: summary.findings.clone(),
                torn: summary.torn.clone(),
            },
            destinations: destinations(view, &summary),
            peers: peers(view),
            orders: match &view.orders {
                Some(desk) => {
                    let counts = tokio::time::timeout(COUNTS_TIME, desk.counts()).await;
                    counts.ok().and_then(Result::ok)
                }
                None => None,
            },
            worklists: view.worklists.now(),
            notices: view.notifier.as_ref().map(Notifier::undelivered),
            steps: view.steps.as_ref().map(|s| s.borrow().clone()).unwrap_or_default(),
            reports: match &view.reports {
                Some(desk) => Reports::of(desk).await,
                None => None,
            },
            associations: u64::try_from(view.metrics.associations.get()).unwrap_or(0),
        }
    }
}

fn destinations(view: &View, summary: &Summary) -> Vec<Destination> {
    let mut all: Vec<Destination> = summary
        .destinations
        .iter()
        .map(|d| Destination {
            destination: d.destination.clone(),
            kind: String::new(),
            up: None,
            last_error: None,
            owed: d.in_state(StateName::Owed),
            in_flight: d.in_flight.iter().sum(),
            held: d.in_state(StateName::Held),
            receipted: d.in_state(StateName::Receipted),
            quarantined: d.in_state(StateName::Quarantined),
            dismissed: d.in_state(StateName::Dismissed),
            open_bytes: d.open_bytes,
            oldest_owed_seconds: d.oldest_owed_seconds,
        })
        .collect();
    for sender in view.delivery.load().status() {
        let entry = entry(&mut all, &sender.destination);
        entry.kind = sender.kind.into();
        entry.up = sender.up;
        entry.last_error = sender.last_error;
    }
    for peer in view.tunnel.iter().flat_map(|t| t.peers()) {
        let entry = entry(&mut all, &DestinationName::from(&peer.name));
        entry.kind = "node".into();
        entry.up = Some(peer.up);
        entry.last_error = (!peer.up && !peer.reason.is_empty()).then_some(peer.reason);
    }
    all.sort_by(|a, b| a.destination.cmp(&b.destination));
    all
}

fn entry<'a>(all: &'a mut Vec<Destination>, name: &DestinationName) -> &'a mut Destination {
    let at = all.iter().position(|d| d.destination == *name).unwrap_or_else(|| {
        all.push(Destination {
            destination: name.clone(),
            kind: String::new(),
            up: None,
            last_error: None,
            owed: 0,
            in_flight: 0,
            held: 0,
            receipted: 0,
            quarantined: 0,
            dismissed: 0,
            open_bytes: 0,
            oldest_owed_seconds: 0,
        });
        all.len() - 1
    });
    &mut all[at]
}

fn peers(view: &View) -> Vec<Peer> {
    let statuses = view.tunnel.iter().flat_map(|t| t.peers());
    let words = |at: Timestamp| at.to_string();
    statuses
        .map(|p| Peer {
            node: p.name,
            up: p.up,
            since: words(p.since),
            reason: p.reason,
            address: p.address,
            rtt_seconds: p.rtt_seconds,
            lost_packets: p.lost_packets,
            certificate_expires: p.certificate_expires.map(words),
        })
        .collect()
}
