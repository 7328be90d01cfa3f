//! What custody shows of itself: the documents that listings, pages and metrics are made of.

use super::rows::CargoId;
use super::state::{DutyEvent, StateName};
use crate::cargo::{CargoKind, DestinationName, NodeName, Urgency};
use crate::clock::Timestamp;

/// The state of custody at a glance.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Summary {
    /// True when leases and listings work; false while the ledger is proven or rebuilt.
    pub ready: bool,
    /// Pieces whose bytes are here.
    pub present: u64,
    /// Bytes of them.
    pub present_bytes: u64,
    /// Pieces without a destination.
    pub unrouted: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Pieces that were held as conflicts.
    pub conflicts: u64,
    /// Bytes that the spool occupies.
    pub spool_bytes: u64,
    /// Bytes free on its file system.
    pub free_bytes: u64,
    /// Bytes above which routine cargo is refused.
    pub watermark_bytes: u64,
    /// Routine cargo is refused now.
    pub full: bool,
    /// Why the spool cannot be written to, in words.
    pub unwritable: Option<String>,
    /// The leap of the wall clock that a person must confirm.
    pub clock_leap: Option<String>,
    /// What was found damaged, in words.
    pub findings: Vec<String>,
    /// What a kill left half written, in words: never answered with success.
    pub torn: Vec<String>,
    /// Each destination.
    pub destinations: Vec<DestinationStatus>,
}

/// One destination at a glance.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DestinationStatus {
    /// Its name.
    pub destination: DestinationName,
    /// Duties by urgency (stat, urgent, routine, bulk) and state (owed, held, receipted,
    /// quarantined, dismissed).
    pub duties: [[u64; 5]; 4],
    /// Duties being tried now, by urgency.
    pub in_flight: [u64; 4],
    /// Bytes of duties that are owed, held or quarantined.
    pub open_bytes: u64,
    /// Age of the oldest owed duty; 0 when there is none.
    pub oldest_owed_seconds: u64,
}

impl DestinationStatus {
    /// True when duties are owed, held or quarantined.
    pub fn has_open(&self) -> bool {
        [StateName::Owed, StateName::Held, StateName::Quarantined]
            .iter()
            .any(|s| self.in_state(*s) > 0)
    }

    /// Duties in `state`.
    pub fn in_state(&self, state: StateName) -> u64 {
        self.duties.iter().map(|by_state| by_state[state as usize]).sum()
    }
}

/// One study in a listing.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StudyStatus {
    /// The node that took it first.
    pub origin: NodeName,
    /// Study Instance UID.
    pub study: String,
    /// Modality of its first image.
    pub modality: String,
    /// Accession number of its first image.
    pub accession: String,
    /// Patient ID of its first image.
    pub patient_id: String,
    /// When its first image came.
    pub first_at: Timestamp,
    /// When its last image came.
    pub last_at: Timestamp,
    /// Images.
    pub images: u64,
    /// Bytes.
    pub bytes: u64,
    /// Duties owed.
    pub owed: u64,
    /// Duties held.
    pub held: u64,
    /// Duties receipted.
    pub receipted: u64,
    /// Duties quarantined.
    pub quarantined: u64,
    /// Duties dismissed.
    pub dismissed: u64,
    /// Images without a destination.
    pub unrouted: u64,
    /// Images held as conflicts.
    pub conflicts: u64,
}

/// One piece of cargo in a listing.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CargoStatus {
    /// Its number here.
    pub cargo: CargoId,
    /// What it is.
    pub kind: CargoKind,
    /// The node that took it first.
    pub origin: NodeName,
    /// SOP Instance UID of an image.
    pub key: String,
    /// Study Instance UID.
    pub study: String,
    /// Modality.
    pub modality: String,
    /// Bytes.
    pub length: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// When this node took it into custody.
    pub kept_at: Timestamp,
    /// False: only the tombstone is left.
    pub present: bool,
    /// Another version of the same key came first.
    pub conflict: bool,
    /// What was odd about it.
    pub flags: Vec<String>,
    /// Where it goes.
    pub duties: Vec<DutyStatus>,
}

/// One duty in a listing.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DutyStatus {
    /// To whom.
    pub destination: DestinationName,
    /// How soon.
    pub urgency: Urgency,
    /// In which state.
    pub state: StateName,
    /// Being tried now.
    pub in_flight: bool,
    /// Failed tries for its own sake.
    pub attempt: u32,
    /// Why: the last cause, the reason of a hold, quarantine or dismissal, a warning.
    pub reason: Option<String>,
    /// Who holds or dismissed it.
    pub by: Option<String>,
    /// When it was receipted, quarantined or dismissed.
    pub at: Option<Timestamp>,
    /// The receipt, in words.
    pub receipt: Option<String>,
    /// What became of it beyond.
    pub beyond: Vec<BeyondStatus>,
}

/// What another node told of a duty of its own.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct BeyondStatus {
    /// That node's destination.
    pub destination: DestinationName,
    /// The state there.
    pub state: StateName,
    /// When, by that node's clock.
    pub at: Option<Timestamp>,
    /// Why, when it says.
    pub reason: Option<String>,
}

/// Which duties a listing or a decision is about. Absent fields match all.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Filter {
    /// To whom.
    pub destination: Option<DestinationName>,
    /// In which state; absent in a listing: owed, held and quarantined.
    pub state: Option<StateName>,
    /// Of which study (Study Instance UID).
    pub study: Option<String>,
    /// Of which piece of cargo.
    pub cargo: Option<u64>,
    /// At most this many.
    pub limit: Option<usize>,
}

/// What a person decides about duties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Send it, again if need be.
    Retry,
    /// Do not send it for now.
    Hold,
    /// Let it go.
    Release,
    /// It will not be sent.
    Dismiss,
}

impl Action {
    pub(super) fn event(self, by: &str, reason: &str, at: Timestamp) -> DutyEvent {
        let (by, reason) = (by.to_owned(), reason.to_owned());
        match self {
            Self::Retry => DutyEvent::Retry,
            Self::Hold => DutyEvent::Hold { reason, by },
            Self::Release => DutyEvent::Release,
            Self::Dismiss => DutyEvent::Dismiss { by, reason, at },
        }
    }
}
