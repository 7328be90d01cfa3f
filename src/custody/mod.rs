//! The promise: whoever hands something over gets a *yes* only once it would survive a power cut,
//! and nothing accepted is dropped, overwritten, or deleted before it is delivered.
//!
//! ```text
//!  assembly ----> custodian (one thread) ----> spool: cargo log, fact log   <- the truth
//!  (bytes come)     |   group commit:               |
//!                   |   append, one sync, yes       | applied, in order
//!                   v                               v
//!                 leases, turns, deferrals       ledger (sled)              <- a view
//! ```
//!
//! - A record in the cargo log holds the envelope, the duties decided at acceptance, the bytes as
//!   received and their SHA-256: one record, one sync, one yes (docs/decisions/0001).
//! - Everything that happens later is a fact in the fact log.
//! - The ledger is a view of both logs, trusted after a clean stop or when proven equal, and
//!   rebuilt otherwise. Delete it at any moment: nothing accepted is lost and nothing receipted is
//!   sent again.
//! - A failed sync is final: the [`StopSwitch`] is thrown and the process ends.
//!
//! Files below `data`: `cargo/`, `facts/` (segments), `partial/` (bodies on their way in),
//! `ledger/`, `aside/` (what could not be read), `lock`.

mod assembly;
mod body;
pub mod correction;
mod custodian;
mod deliver;
mod fact;
mod fresh;
pub mod holding;
mod holds;
mod instances;
mod leap;
mod ledger;
mod log;
mod notes;
pub mod overlay;
mod partial;
mod query;
mod reclaim;
mod recovery;
pub mod register;
mod room;
mod rows;
mod schedule;
pub mod segment;
mod shelf;
pub mod state;
mod status;
mod stop;
mod survey;
mod take;
#[cfg(test)]
mod tests;
mod totals;
mod verify;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

pub use assembly::{AssembleError, Assembled, Assembly, Limits as AssemblyLimits};
pub use body::{Body, BodyError, BodyReader};
pub use instances::INSTANCES_ASKED_MAX;
pub use log::OpenError as LogOpenError;
pub use notes::{News, Note};
pub use recovery::{OpenError, try_lock};
pub use room::{Limits as RoomLimits, Usage};
pub use rows::{CargoId, LARGE_BYTES};
pub use status::{
    Action, BeyondStatus, CargoStatus, DestinationStatus, DutyStatus, Filter, StudyStatus, Summary,
};
pub use stop::{Stop, StopSwitch};
pub use verify::{CargoEntry, Verdict, export, verify};

use crate::calls::Calls;
use crate::cargo::{Assignment, DestinationName, Envelope, Identity, NodeName, Urgency};
use crate::clock::Timestamp;
use crate::metrics::Metrics;
use assembly::Yard;
use custodian::{Custodian, Request};
use partial::PartialKey;

/// Requests that may wait for the custodian at once.
const REQUESTS_MAX: usize = 1024;
/// How often whoever waits for the ledger looks whether it is ready.
const LOOK: Duration = Duration::from_millis(20);

/// How custody is kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// The folder of the spool and the ledger.
    pub data: PathBuf,
    /// Watermarks and quotas.
    pub room: RoomLimits,
    /// Limits of bodies on their way in.
    pub assembly: AssemblyLimits,
    /// Size at which a segment of the cargo log is sealed, in bytes.
    pub segment_size: u64,
    /// How long bytes stay after their last duty is settled.
    pub retention: Duration,
    /// How long a tombstone stays after its bytes are gone.
    pub tombstones: Duration,
    /// Nodes that are told what becomes of their cargo here: those that a tunnel reaches.
    pub told: BTreeSet<NodeName>,
    /// How long the bytes of a collected report stay after its last duty is settled, or, at the node
    /// that it has come home to, after it has come; at least [`retention`](Self::retention).
    pub keep_reports: Duration,
    /// Who follows [`Custody::arrivals`] and says how far ([`Custody::looked_at`]): nothing is
    /// reclaimed that one of them has not looked at. What is theirs and nobody takes in stays.
    pub followed: BTreeSet<Follower>,
}

/// Who follows what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Follower {
    /// The registrar of orders. Images of this node leave only after its holds are put
    /// ([`Custody::may_leave`]), or 5 s after they have come.
    Orders,
    /// The secretary of reports.
    Reports,
}

impl Follower {
    const ALL: [Self; 2] = [Self::Orders, Self::Reports];
}

impl Config {
    /// Defaults for a node that keeps its spool in `data`.
    pub fn new(node: NodeName, data: PathBuf) -> Self {
        Self {
            node,
            data,
            room: RoomLimits::default(),
            assembly: AssemblyLimits::default(),
            segment_size: 256 << 20,
            retention: Duration::from_secs(24 * 3600),
            tombstones: Duration::from_secs(400 * 24 * 3600),
            told: BTreeSet::new(),
            keep_reports: Duration::from_secs(90 * 24 * 3600),
            followed: BTreeSet::new(),
        }
    }
}

/// A handle on this node's custody. Cheap to clone; the state has one owner behind it.
#[derive(Debug, Clone)]
pub struct Custody {
    node: NodeName,
    requests: Calls<Request>,
    yard: Arc<Yard>,
    shared: Arc<Shared>,
}

/// What the custodian shows to the outside.
#[derive(Debug)]
struct Shared {
    stop: StopSwitch,
    signals: Mutex<HashMap<DestinationName, watch::Sender<u64>>>,
    returned: Mutex<Vec<(DestinationName, CargoId)>>,
    summary: ArcSwap<Summary>,
    room: ArcSwap<RoomLimits>,
    arrived: watch::Sender<u64>,
    /// Cargo up to this number was looked at, by [`Follower`].
    looked_at: [AtomicU64; Follower::ALL.len()],
}

impl Shared {
    /// Cargo up to this number was looked at by all who follow.
    fn looked_at(&self) -> u64 {
        let each = self.looked_at.iter().map(|upto| upto.load(Ordering::Relaxed));
        each.min().unwrap_or(u64::MAX)
    }
}

/// Proof that a piece of cargo would survive a power cut. Only custody can make one, and the
/// functions that answer success take `&Kept`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    cargo: CargoId,
    new: bool,
    conflict: bool,
    corrected: bool,
    at: Timestamp,
}

impl Kept {
    /// Its number here.
    pub const fn cargo(&self) -> CargoId {
        self.cargo
    }

    /// False when the same identity was in custody already.
    pub const fn is_new(&self) -> bool {
        self.new
    }

    /// True when the same key came before with other bytes: this version is held for a person.
    pub const fn is_conflict(&self) -> bool {
        self.conflict
    }

    /// True when what is in custody was corrected by its order, and differs from what was received.
    pub const fn is_corrected(&self) -> bool {
        self.corrected
    }

    /// When it was first taken into custody.
    pub const fn at(&self) -> Timestamp {
        self.at
    }
}

/// What is offered to custody.
#[derive(Debug)]
pub struct Draft {
    /// Its envelope; identity and length must be those of the body.
    pub envelope: Envelope,
    /// Its bytes.
    pub body: Assembled,
    /// What routing decided; empty: kept and shown as unrouted.
    pub assignments: Vec<Assignment>,
}

/// A piece of cargo that has come, for rooms that look at what comes.
#[derive(Debug)]
pub struct Arrival {
    /// Its number here.
    pub cargo: CargoId,
    /// When it was taken into custody.
    pub kept_at: Timestamp,
    /// Its envelope.
    pub envelope: Envelope,
    /// Its bytes.
    pub body: Body,
}

/// Why custody did not take a piece of cargo. Whoever hands it over keeps it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// Above a watermark or quota; the text names which. C-STORE 0xA700, tunnel Refuse and retry.
    #[error("no room: {0}")]
    Full(String),
    /// A write failed and nothing was kept; a later try may succeed (read-only, no inodes).
    #[error("cannot write to the spool: {0}")]
    Io(String),
    /// Custody has stopped: a sync failed, or the node is draining.
    #[error("custody is stopped")]
    Stopped,
}

/// Which duties a sender wants.
#[derive(Debug, Clone)]
pub struct Want {
    /// For whom.
    pub destination: DestinationName,
    /// Only classes for which this is true, by [`Urgency::index`].
    pub classes: [bool; 4],
    /// Only bodies of these lengths. Only the side of [`LARGE_BYTES`] counts: a range that ends at
    /// or below it wants small cargo, one that starts above it wants large cargo, any other both.
    pub length: RangeInclusive<u64>,
    /// Most pieces.
    pub items_max: usize,
    /// Most bytes; one piece is given whatever its length.
    pub bytes_max: u64,
}

/// A duty that this caller may try now. Dropped without [`Custody::settle`], it goes back to the
/// queue as if it had not been leased.
#[derive(Debug)]
pub struct Leased {
    /// Which cargo.
    pub cargo: CargoId,
    /// For whom.
    pub destination: DestinationName,
    /// How soon.
    pub urgency: Urgency,
    /// Failed tries so far, for this object's own sake.
    pub attempt: u32,
    /// Its envelope.
    pub envelope: Envelope,
    /// Its bytes.
    pub body: Body,
    lease: Option<Lease>,
}

/// Gives the duty back when dropped.
#[derive(Debug)]
struct Lease {
    shared: Arc<Shared>,
    destination: DestinationName,
    cargo: CargoId,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Ok(mut returned) = self.shared.returned.lock() {
            returned.push((self.destination.clone(), self.cargo));
        }
    }
}

/// What became of a try.
#[derive(Debug)]
pub enum Outcome {
    /// The destination has given its receipt.
    Receipted {
        /// Its yes.
        receipt: Receipt,
    },
    /// Failed for this object's own sake; try again after `after`.
    Retry {
        /// In words without patient data.
        cause: String,
        /// Not before this has passed.
        after: Duration,
    },
    /// Never by itself again.
    Quarantine {
        /// In words without patient data.
        reason: String,
    },
    /// The stored bytes are not those that were accepted: never by itself again, and an operator
    /// is told.
    Damaged {
        /// In words without patient data.
        reason: String,
    },
}

/// The destination's yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// A C-STORE status in the success or warning class.
    Dicom {
        /// (0000,0900).
        status: u16,
    },
    /// A file, synced.
    File {
        /// Its name below the destination's folder, ours.
        name: String,
    },
    /// An HL7 acknowledgement that says yes.
    Hl7 {
        /// Acknowledgment code (table 0008): `AA`, `CA`.
        code: String,
        /// MSA-2: MSH-10 of the message that it is about.
        control_id: String,
    },
    /// A node's signed receipt.
    Node {
        /// The statement that was signed.
        statement: Vec<u8>,
        /// The signature over it.
        signature: Vec<u8>,
        /// The signer's certificate chain, DER, leaf first.
        chain: Vec<Vec<u8>>,
    },
}

impl Custody {
    /// Opens the spool in `config.data` and starts the custodian. Intake may begin at once; if the
    /// ledger must be proven or rebuilt, leases and listings wait for it.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the folder is in use or unusable, or a segment is of a later release.
    pub fn open(config: Config, metrics: Metrics) -> Result<Self, OpenError> {
        let stop = StopSwitch::new();
        let lock = recovery::lock(&config.data)?;
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let yard = Yard::open(&config.data.join("partial"), config.assembly.clone(), stop.clone())
            .map_err(|source| OpenError::Io { path: config.data.join("partial"), source })?;
        let shared = Arc::new(Shared {
            stop,
            signals: Mutex::default(),
            returned: Mutex::default(),
            summary: ArcSwap::default(),
            room: ArcSwap::from_pointee(config.room.clone()),
            arrived: watch::Sender::new(0),
            looked_at: Follower::ALL.map(|who| {
                AtomicU64::new(if config.followed.contains(&who) { 0 } else { u64::MAX })
            }),
        });
        let node = config.node.clone();
        let custodian = Custodian::open(config, lock, yard.clone(), shared.clone(), metrics)?;
        custodian.start(inbox, requests.clone());
        Ok(Self { node, requests: requests.into(), yard, shared })
    }

    /// This node's name.
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// The switch that a failed sync throws.
    pub fn stop_switch(&self) -> StopSwitch {
        self.shared.stop.clone()
    }

    /// Begins a body that is lost if the sender goes away.
    pub fn assemble(&self) -> Assembly {
        self.yard.begin()
    }

    /// Begins or goes on with a body that survives its connection: [`Assembly::len`] says where to
    /// go on.
    ///
    /// # Errors
    ///
    /// [`AssembleError`]: no room, too long, or the disk failed.
    pub async fn resume(
        &self,
        peer: &NodeName,
        identity: &Identity,
        length: u64,
    ) -> Result<Assembly, AssembleError> {
        let key = PartialKey { peer: peer.clone(), identity: identity.clone(), length };
        self.yard.resume(key).await
    }

    /// Takes cargo into custody. Returns once it would survive a power cut.
    ///
    /// # Errors
    ///
    /// [`TakeError`]: nothing was kept, and whoever hands it over still has it.
    pub async fn take(&self, draft: Draft) -> Result<Kept, TakeError> {
        self.take_as(draft, None).await
    }

    /// The yes to cargo that is in custody already, or was and has a tombstone.
    pub async fn find(&self, identity: &Identity) -> Option<Kept> {
        let identity = identity.clone();
        self.requests.ask(|reply| Request::Find { identity, reply }).await.flatten()
    }

    /// Routes cargo again that is in custody already: new destinations get duties, open duties
    /// take the higher urgency. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`TakeError`]: nothing was changed.
    pub async fn route_again(
        &self,
        kept: &Kept,
        assignments: Vec<Assignment>,
    ) -> Result<(), TakeError> {
        let cargo = kept.cargo;
        self.requests
            .ask(|reply| Request::RouteAgain { cargo, assignments, reply })
            .await
            .unwrap_or(Err(TakeError::Stopped))
    }

    /// Changes whenever there may be new work for the destination. A hint to look.
    pub fn signal(&self, destination: &DestinationName) -> watch::Receiver<u64> {
        let mut signals = self.shared.signals.lock().expect("no panic while signalling");
        signals.entry(destination.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Duties that may be tried now, most urgent and fairest first; empty when there are none.
    pub async fn lease(&self, want: Want) -> Vec<Leased> {
        self.requests.ask(|reply| Request::Lease { want, reply }).await.unwrap_or_default()
    }

    /// Says what became of a leased duty. Does not wait for the disk; bytes are never freed before
    /// the receipt is durable.
    pub async fn settle(&self, mut leased: Leased, outcome: Outcome) {
        let (cargo, destination) = (leased.cargo, leased.destination.clone());
        let request = Request::Settle { cargo, destination, outcome };
        if self.requests.tell(request).await
            && let Some(mut lease) = leased.lease.take()
        {
            // The custodian ends the lease with the settlement; the drop must not end it again.
            lease.cargo = CargoId(u64::MAX);
        }
    }

    /// What metrics, health and the status page show, as of the last turn.
    pub fn summary(&self) -> Arc<Summary> {
        self.shared.summary.load_full()
    }

    /// Waits until the ledger is proven or rebuilt: leases, listings and books are served.
    pub async fn until_ready(&self) {
        while !self.summary().ready {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// New watermarks and quotas, from now on.
    pub fn set_room(&self, limits: RoomLimits) {
        self.shared.room.store(Arc::new(limits));
    }

    /// Stops accepting and leasing, makes everything durable, seals the logs and marks the ledger
    /// clean. Returns when the custodian has ended.
    pub async fn close(&self) {
        let _ = self.requests.ask(|reply| Request::Close { reply }).await;
    }
}
