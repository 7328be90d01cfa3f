//! The rows of the ledger and their keys. See [`super::ledger`] for the table.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::ledger::Key;
use super::log::Place;
use super::state::{DutyState, StateName};
use crate::cargo::{
    CargoKind, DestinationName, Envelope, Hasher, Identity, NodeName, Sha256, StudyKey, Urgency,
};
use crate::clock::Timestamp;

/// This node's number for a piece of cargo: the number of the segment that it first entered, then
/// its place among the records of that segment. Never used twice, ascending in order of
/// acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct CargoId(pub u64);

impl std::fmt::Display for CargoId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for CargoId {
    type Err = std::num::ParseIntError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

/// A destination's number in this ledger.
pub(super) type DestinationNumber = u16;

/// One piece of cargo.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct CargoRow {
    /// Where its record is; for a tombstone, where it was.
    #[n(0)]
    pub place: Place,
    /// Length of the record's head.
    #[n(1)]
    pub head_len: u32,
    /// Length of the body.
    #[n(2)]
    pub body_len: u64,
    /// What it is.
    #[n(3)]
    pub kind: CargoKind,
    /// Its study.
    #[n(4)]
    pub study: StudyKey,
    /// [`origin_key`] of its origin.
    #[n(5)]
    pub origin: u32,
    /// [`identity_key`].
    #[cbor(n(6), with = "minicbor::bytes")]
    pub identity: [u8; 16],
    /// When this node took it into custody.
    #[n(7)]
    pub kept_at: Timestamp,
    /// The bytes are here; false: this is a tombstone.
    #[n(8)]
    pub present: bool,
    /// Another version of the same key came first.
    #[n(9)]
    pub conflict: bool,
    /// The origin is another node, which wants news.
    #[n(10)]
    pub foreign: bool,
    /// The tombstone's fact.
    #[n(11)]
    pub tombstone: Option<Place>,
    /// Where it goes.
    #[n(12)]
    pub duties: Vec<DutyRow>,
    /// It was corrected by its order before this node took it.
    #[cbor(n(13), default)]
    pub corrected: bool,
    /// It is read by whoever keeps reports: a report that was collected, here or at another node,
    /// or another node's note to people.
    #[cbor(n(14), default)]
    pub reports: bool,
}

impl CargoRow {
    /// The duty to `destination`.
    pub(super) fn duty(&self, destination: DestinationNumber) -> Option<&DutyRow> {
        self.duties.iter().find(|d| d.destination == destination)
    }

    /// True when nothing more will happen by itself and the bytes may go after retention.
    pub(super) fn is_settled(&self) -> bool {
        match self.kind {
            kind if kind.is_for_this_node(self.foreign) && self.duties.is_empty() => true,
            _ => !self.duties.is_empty() && self.duties.iter().all(|d| d.state.is_settled()),
        }
    }

    /// True when it has no destination and a later rule may give it one.
    pub(super) fn is_unrouted(&self) -> bool {
        self.present && self.duties.is_empty() && !self.kind.is_for_this_node(self.foreign)
    }

    /// When the last duty was settled; without duties, when it came.
    pub(super) fn settled_at(&self) -> Timestamp {
        let ends = self.duties.iter().filter_map(|duty| match duty.state {
            DutyState::Receipted { at, .. } | DutyState::Dismissed { at, .. } => Some(at),
            _ => None,
        });
        ends.max().unwrap_or(self.kept_at)
    }
}

/// One duty.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct DutyRow {
    /// To whom.
    #[n(0)]
    pub destination: DestinationNumber,
    /// How soon.
    #[n(1)]
    pub urgency: Urgency,
    /// In which state.
    #[n(2)]
    pub state: DutyState,
    /// The fact that says so; absent while the cargo record itself says it.
    #[n(3)]
    pub fact: Option<Place>,
    /// What became of it beyond that destination, as its node told.
    #[n(4)]
    pub beyond: Vec<BeyondRow>,
}

/// What a note told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct BeyondRow {
    /// The other node's destination.
    #[n(0)]
    pub destination: DestinationName,
    /// The duty's state there.
    #[n(1)]
    pub state: DutyState,
    /// The fact that says so.
    #[n(2)]
    pub fact: Place,
}

/// All versions of one key of one origin, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Versions(#[n(0)] pub Vec<Version>);

/// One version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Version {
    /// The first 16 bytes of its digest.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub digest: [u8; 16],
    /// Its number.
    #[n(1)]
    pub cargo: u64,
    /// The same of the bytes as received, where it was corrected.
    #[n(2)]
    pub received: Option<ByteArray<16>>,
}

impl Version {
    pub(super) fn new(identity: &Identity, cargo: CargoId, received: Option<&Sha256>) -> Self {
        let received = received.map(|r| ByteArray::from(digest_of(r)));
        Self { digest: digest_key(identity), cargo: cargo.0, received }
    }

    /// Whether it is a correction of the version with this digest.
    pub(super) fn corrects(&self, digest: &[u8]) -> bool {
        self.received.is_some_and(|own| own[..] == *digest)
    }
}

/// One study of one origin.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct StudyRow {
    /// Whose.
    #[n(0)]
    pub origin: NodeName,
    /// Study Instance UID.
    #[n(1)]
    pub uid: String,
    /// Modality of its first image.
    #[n(2)]
    pub modality: String,
    /// Accession number of its first image.
    #[n(3)]
    pub accession: String,
    /// Patient ID of its first image.
    #[n(4)]
    pub patient_id: String,
    /// When its first image was taken into custody.
    #[n(5)]
    pub first_at: Timestamp,
    /// When its last image was taken into custody.
    #[n(6)]
    pub last_at: Timestamp,
    /// Pieces of cargo, tombstones among them.
    #[n(7)]
    pub cargo: u64,
    /// Bytes of all of them.
    #[n(8)]
    pub bytes: u64,
    /// Duties by state, in the order of [`StateName::ALL`].
    #[n(9)]
    pub duties: [u64; 5],
    /// Pieces without a destination.
    #[n(10)]
    pub unrouted: u64,
    /// Pieces held as conflicts.
    #[n(11)]
    pub conflicts: u64,
}

/// One segment of the cargo log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct SegmentRow {
    /// Records whose bytes are here and needed.
    #[n(0)]
    pub live: u64,
    /// Part of it could not be read: it is never deleted.
    #[n(1)]
    pub damaged: bool,
}

/// Whether a piece that comes to `node` is [`CargoRow::reports`].
pub(super) fn is_for_reports(envelope: &Envelope, node: &NodeName) -> bool {
    let identity = &envelope.identity;
    let foreign = identity.origin != *node;
    match envelope.kind {
        CargoKind::Report => foreign || identity.key.starts_with(Identity::COLLECTED),
        CargoKind::Note => foreign && !identity.is_news(),
        _ => false,
    }
}

/// The first four bytes of a digest of the origin's name.
pub(super) fn origin_key(origin: &NodeName) -> u32 {
    (StudyKey::of(origin, "").0 >> 32) as u32
}

/// The first sixteen bytes of a digest of origin and key.
pub(super) fn identity_key(identity: &Identity) -> [u8; 16] {
    let mut h = Hasher::new();
    h.update(identity.origin.as_str().as_bytes());
    h.update(&[0]);
    h.update(identity.key.as_bytes());
    h.finish().0[..16].try_into().expect("32 bytes hold 16")
}

/// The first sixteen bytes of the identity's digest.
pub(super) fn digest_key(identity: &Identity) -> [u8; 16] {
    digest_of(&identity.sha256)
}

fn digest_of(sha256: &Sha256) -> [u8; 16] {
    sha256.0[..16].try_into().expect("32 bytes hold 16")
}

/// `c`
pub(super) fn cargo_key(id: CargoId) -> Vec<u8> {
    Key::of(b'c').u64(id.0).done()
}

/// `i`
pub(super) fn versions_key(identity: &[u8; 16]) -> Vec<u8> {
    Key::of(b'i').bytes(identity).done()
}

/// `s`
pub(super) fn study_key(study: StudyKey) -> Vec<u8> {
    Key::of(b's').u64(study.0).done()
}

/// `m`
pub(super) fn member_key(study: StudyKey, id: CargoId) -> Vec<u8> {
    Key::of(b'm').u64(study.0).u64(id.0).done()
}

/// Cargo longer than this queues apart: it is streamed, resumed, and has lanes of its own.
pub const LARGE_BYTES: u64 = 4 << 20;

/// Prefix of `q` for one destination, class and size.
pub(super) fn class_prefix(
    destination: DestinationNumber,
    urgency: Urgency,
    large: bool,
) -> Vec<u8> {
    Key::of(b'q').u16(destination).u8((urgency as u8) << 1 | u8::from(large)).done()
}

/// `q`
pub(super) fn ready_key(row: &CargoRow, duty: &DutyRow, id: CargoId) -> Vec<u8> {
    let prefix = class_prefix(duty.destination, duty.urgency, row.body_len > LARGE_BYTES);
    Key(prefix).u32(row.origin).u64(row.study.0).u64(id.0).done()
}

/// `d`
pub(super) fn deferred_key(destination: DestinationNumber, id: CargoId) -> Vec<u8> {
    Key::of(b'd').u16(destination).u64(id.0).done()
}

/// `a`
pub(super) fn attention_key(
    state: StateName,
    destination: DestinationNumber,
    id: CargoId,
) -> Vec<u8> {
    Key::of(b'a').u8(state as u8).u16(destination).u64(id.0).done()
}

/// `u`
pub(super) fn unrouted_key(id: CargoId) -> Vec<u8> {
    Key::of(b'u').u64(id.0).done()
}

/// `r`
pub(super) fn reclaim_key(settled_at: Timestamp, id: CargoId) -> Vec<u8> {
    Key::of(b'r').u64(settled_at.0.max(0) as u64).u64(id.0).done()
}

/// `f`
pub(super) fn forget_key(reclaimed_at: Timestamp, id: CargoId) -> Vec<u8> {
    Key::of(b'f').u64(reclaimed_at.0.max(0) as u64).u64(id.0).done()
}

/// `o`
pub(super) fn news_key(origin: u32, id: CargoId, destination: DestinationNumber) -> Vec<u8> {
    Key::of(b'o').u32(origin).u64(id.0).u16(destination).done()
}

/// `g`
pub(super) fn segment_key(segment: u64) -> Vec<u8> {
    Key::of(b'g').u64(segment).done()
}
