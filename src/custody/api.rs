//! What the steps around custody call. SKELETON: bodies follow.
#![allow(missing_docs, dead_code, unused_variables, clippy::unused_async)]

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::cargo::{
    Assignment, CargoKind, DestinationName, Envelope, Identity, NodeName, Sha256, StudyKey, Urgency,
};
use crate::clock::Timestamp;

/// A handle on this node's custody. Cheap to clone; the state has one owner behind it.
#[derive(Debug, Clone)]
pub struct Custody {}

/// This node's number for a piece of cargo. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CargoId(pub u64);

/// Proof that a piece of cargo would survive a power cut. Only custody can make one, and the
/// functions that answer success take `&Kept`.
#[derive(Debug, Clone)]
pub struct Kept {
    cargo: CargoId,
    new: bool,
    conflict: bool,
    at: Timestamp,
}

impl Kept {
    pub fn cargo(&self) -> CargoId {
        self.cargo
    }
    /// False when the same identity was in custody already.
    pub fn is_new(&self) -> bool {
        self.new
    }
    /// True when the same key is here with other bytes: this version is held for a person.
    pub fn is_conflict(&self) -> bool {
        self.conflict
    }
    /// When it was taken into custody (the first time).
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

/// A body on its way in: hashed as it comes, in memory while small and while the memory budget
/// lasts, else in a file of ours. Dropped unfinished, it leaves nothing behind (or, when keyed by
/// [`Custody::resume`], what has arrived so far stays for the next resume).
#[derive(Debug)]
pub struct Assembly {}

#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// No space for more: answer 0xA700 / Refuse with retry.
    #[error("the spool is full: {0}")]
    Full(String),
    /// The object is larger than `[limits] object` allows.
    #[error("object larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// A read or write failed.
    #[error("cannot write to the spool: {0}")]
    Io(#[from] std::io::Error),
    /// Custody has stopped accepting (fail-stop or draining).
    #[error("custody is stopped")]
    Stopped,
}

impl Assembly {
    /// Bytes so far.
    pub fn len(&self) -> u64 {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Adds bytes in order. Cancel-safe only between calls.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), AssembleError> {
        unimplemented!()
    }
    /// The first bytes of the body, at least min(len, 256 KiB) and at most 4 MiB: for header reading.
    pub fn head(&self) -> &[u8] {
        unimplemented!()
    }
    /// No more bytes will come.
    pub fn finish(self) -> Assembled {
        unimplemented!()
    }
}

/// A whole body, hashed, not yet durable.
#[derive(Debug)]
pub struct Assembled {}

impl Assembled {
    pub fn len(&self) -> u64 {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn sha256(&self) -> Sha256 {
        unimplemented!()
    }
    /// As [`Assembly::head`].
    pub fn head(&self) -> &[u8] {
        unimplemented!()
    }
}

/// What is offered to custody.
#[derive(Debug)]
pub struct Draft {
    pub envelope: Envelope,
    pub body: Assembled,
    /// What routing decided; empty: kept and shown as unrouted.
    pub assignments: Vec<Assignment>,
}

/// Why custody did not take a piece of cargo. Whoever hands it over keeps it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TakeError {
    /// Above a watermark or quota; the text names which. C-STORE 0xA700, tunnel Refuse + retry.
    #[error("no room: {0}")]
    Full(String),
    /// A write failed and nothing was kept; the next try may succeed (read-only, no inodes).
    #[error("cannot write to the spool: {0}")]
    Io(String),
    /// Custody has stopped: a sync failed, or the node is draining.
    #[error("custody is stopped")]
    Stopped,
}

/// Which duties a sender wants.
#[derive(Debug, Clone)]
pub struct Want {
    pub destination: DestinationName,
    /// Only classes for which this is true (index = `Urgency::index`).
    pub classes: [bool; 4],
    /// Only cargo of length up to this / above this (both inclusive); lets large cargo have lanes of its own.
    pub length: std::ops::RangeInclusive<u64>,
    pub items_max: usize,
    pub bytes_max: u64,
}

/// A duty that this caller may try now. Dropped without [`Custody::settle`], it goes back to the
/// queue as if it had not been leased.
#[derive(Debug)]
pub struct Leased {
    pub cargo: CargoId,
    pub destination: DestinationName,
    pub urgency: Urgency,
    /// Failed tries so far, for this object's own sake.
    pub attempt: u32,
    pub envelope: Envelope,
    pub body: Body,
}

/// Where the bytes of a piece of cargo are. Reading verifies the digest.
#[derive(Debug, Clone)]
pub struct Body {}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The digest of the stored bytes is wrong, or they cannot be read: quarantine.
    #[error("the stored bytes are damaged: {0}")]
    Damaged(String),
    #[error("cannot read the spool: {0}")]
    Io(#[from] std::io::Error),
}

impl Body {
    pub fn len(&self) -> u64 {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// All bytes, verified; for bodies that fit in memory.
    pub async fn read(&self) -> Result<Bytes, BodyError> {
        unimplemented!()
    }
    /// Reads on from byte `from`. With `from == 0` the digest is verified before the last chunk
    /// is given out, so that a damaged body is never passed on whole.
    pub fn reader(&self, from: u64) -> BodyReader {
        unimplemented!()
    }
}

#[derive(Debug)]
pub struct BodyReader {}

impl BodyReader {
    /// The next at most `max` bytes; `None` at the end.
    pub async fn next(&mut self, max: usize) -> Result<Option<Bytes>, BodyError> {
        unimplemented!()
    }
}

/// What became of a try.
#[derive(Debug)]
pub enum Outcome {
    /// The destination has given its receipt.
    Receipted { receipt: Receipt },
    /// Failed for this object's own sake; try again after `after`.
    Retry { cause: String, after: Duration },
    /// Never by itself again.
    Quarantine { reason: String },
}

/// The destination's yes.
#[derive(Debug, Clone)]
pub enum Receipt {
    /// A C-STORE status in the success or warning class.
    Dicom { status: u16 },
    /// A file under this name (relative, ours), synced.
    File { name: String },
    /// A node's signed receipt: the signed statement (CBOR), the signature, and the signer's
    /// certificate chain (DER, leaf first).
    Node { statement: Vec<u8>, signature: Vec<u8>, chain: Vec<Vec<u8>> },
}

impl Custody {
    /// This node's name.
    pub fn node(&self) -> &NodeName {
        unimplemented!()
    }

    /// Begins a body that is lost if the sender goes away.
    pub fn assemble(&self) -> Assembly {
        unimplemented!()
    }

    /// Begins or goes on with a body that survives the connection: `assembly.len()` says where to
    /// go on. Partial bodies are durable, keyed by peer and identity, capped and expiring.
    pub async fn resume(
        &self,
        peer: &NodeName,
        identity: &Identity,
        length: u64,
    ) -> Result<Assembly, AssembleError> {
        unimplemented!()
    }

    /// The receipt of cargo that is in custody already, or was and has a tombstone.
    pub async fn find(&self, identity: &Identity) -> Option<Kept> {
        unimplemented!()
    }

    /// Takes cargo into custody. Returns once it would survive a power cut.
    pub async fn take(&self, draft: Draft) -> Result<Kept, TakeError> {
        unimplemented!()
    }

    /// Routes cargo again that is in custody already (found by [`find`](Self::find)): new
    /// destinations get duties, open duties take the higher urgency.
    pub async fn route_again(
        &self,
        kept: &Kept,
        assignments: Vec<Assignment>,
    ) -> Result<(), TakeError> {
        unimplemented!()
    }

    /// Changes whenever there may be new work for the destination.
    pub fn signal(&self, destination: &DestinationName) -> watch::Receiver<u64> {
        unimplemented!()
    }

    /// Duties that may be tried now, most urgent and fairest first; empty when there are none.
    pub async fn lease(&self, want: Want) -> Vec<Leased> {
        unimplemented!()
    }

    /// Says what became of a leased duty. Does not wait for the disk; bytes are never freed before
    /// the receipt is durable. Errors need no handling by the caller: custody fail-stops itself.
    pub async fn settle(&self, leased: Leased, outcome: Outcome) {
        unimplemented!()
    }
}
