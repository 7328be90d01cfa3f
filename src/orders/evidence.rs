//! Evidence: which images a study should have, who says so, and how far that can be trusted.
//!
//! No order says how many images to expect. So completeness is graded by evidence, strongest
//! first ([`Grade`]), and what several statements name is united: a statement adds to the
//! expectation, and none takes away from it but a rejection note (IHE IOCM) and a person.
//!
//! Every statement has an id that its source has given it (a transaction UID, the UID of a
//! performed procedure step). Two statements with one id are one statement, told in parts or
//! twice: they are joined, and joining is commutative, associative and idempotent. So the order
//! of arrival makes no difference, and applying a statement twice changes nothing.
//!
//! An MPPS that leaves out in its final list what an earlier list named does not take it out of
//! the expectation: only who saw the image withdraws it. And IAN *unavailable* neither adds nor
//! removes: it tells that asking that source is in vain.
//!
//! Limit: a statement names at most [`REFERENCES_MAX`] instances; what exceeds it is counted
//! ([`Statement::count`]), so that it stays a gap, but not named.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::clock::Timestamp;

/// Most instances that one statement names.
pub const REFERENCES_MAX: usize = 100_000;

/// Key Object Selection Document Storage (PS3.4 B.5).
pub const KEY_OBJECT: &str = "1.2.840.10008.5.1.4.1.1.88.59";

/// How far evidence can be trusted; smaller is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Grade {
    /// 0: a person has decided.
    #[n(0)]
    Decision = 0,
    /// 1: the modality's storage-commitment request (PS3.4 J).
    #[n(1)]
    Commitment = 1,
    /// 2: performed-series lists of a modality performed procedure step (PS3.4 F.7).
    #[n(2)]
    Mpps = 2,
    /// 3: Instance Availability Notification (PS3.4 R).
    #[n(3)]
    Availability = 3,
    /// 4: a key object titled 113032 or 113034 (PS3.16 CID 7010).
    #[n(4)]
    KeyObject = 4,
    /// 5: what the source PACS answers to C-FIND at IMAGE level.
    #[n(5)]
    SourceQuery = 5,
    /// 6: numbers and positions in the headers; warns only.
    #[n(6)]
    Heuristic = 6,
    /// 7: nothing came for a while; presumes only.
    #[n(7)]
    Quiet = 7,
}

/// An instance that a statement names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Reference {
    /// Referenced SOP Instance UID (0008,1155).
    #[n(0)]
    pub sop: String,
    /// Referenced SOP Class UID (0008,1150); empty when not said.
    #[n(1)]
    pub class: String,
}

/// Instances of one series. A commitment request knows no series: its UID is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct SeriesList {
    /// Series Instance UID (0020,000E), or empty.
    #[n(0)]
    pub series: String,
    /// Its instances.
    #[n(1)]
    pub instances: Vec<Reference>,
}

/// Performed Procedure Step Status (0040,0252). A final state never changes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum StepStatus {
    /// IN PROGRESS.
    #[n(0)]
    InProgress,
    /// COMPLETED.
    #[n(1)]
    Completed,
    /// DISCONTINUED.
    #[n(2)]
    Discontinued,
}

/// Why instances are withdrawn: the title of a rejection note (IHE RAD TF-3 4.66; PS3.16 CID
/// 7011).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Rejection {
    /// 113001: rejected for quality reasons.
    #[n(0)]
    Quality,
    /// 113037: rejected for patient safety reasons.
    #[n(1)]
    Safety,
    /// 113038: incorrect modality worklist entry.
    #[n(2)]
    Worklist,
    /// 113039: data retention policy expired. What is stored again later counts again.
    #[n(3)]
    Retention,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Quality, Self::Safety, Self::Worklist, Self::Retention];

    /// Of a statement of this kind.
    pub(super) fn of_kind(kind: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|why| FIRST_REJECTION + *why as u8 == kind)
    }
}

/// [`Said::kind`] of the first kind of rejection.
const FIRST_REJECTION: u8 = 5;

/// What the title of a key object means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTitle {
    /// 113032 Complete Study Content, 113034 Complete Acquisition Content.
    Complete,
    /// A rejection note.
    Rejected(Rejection),
}

impl KeyTitle {
    /// Of a Concept Name Code Value (0040,A043) of scheme DCM; `None` for all other titles, which
    /// say nothing about completeness.
    pub fn of(code: &str) -> Option<Self> {
        Some(match code {
            "113032" | "113034" => Self::Complete,
            "113001" => Self::Rejected(Rejection::Quality),
            "113037" => Self::Rejected(Rejection::Safety),
            "113038" => Self::Rejected(Rejection::Worklist),
            "113039" => Self::Rejected(Rejection::Retention),
            _ => return None,
        })
    }
}

/// Code Value of *incorrect worklist entry selected* in (0040,0281), PS3.16 CID 9300.
pub const WRONG_WORKLIST_ENTRY: &str = "110514";

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Said {
    /// A storage-commitment request names these.
    #[n(0)]
    #[cbor(map)]
    Commitment {
        /// The instances.
        #[n(0)]
        lists: Vec<SeriesList>,
    },
    /// A performed procedure step.
    #[n(1)]
    #[cbor(map)]
    Performed {
        /// How far it is.
        #[n(0)]
        status: StepStatus,
        /// Code Value of the reason (0040,0281) for which it was discontinued, or empty.
        #[n(1)]
        reason: String,
        /// Performed Series Sequence (0040,0340): images and other instances together.
        #[n(2)]
        lists: Vec<SeriesList>,
    },
    /// An Instance Availability Notification.
    #[n(2)]
    #[cbor(map)]
    Available {
        /// ONLINE, NEARLINE, OFFLINE.
        #[n(0)]
        lists: Vec<SeriesList>,
        /// UNAVAILABLE.
        #[n(1)]
        unavailable: Vec<SeriesList>,
    },
    /// A key object that lists the whole content.
    #[n(3)]
    #[cbor(map)]
    KeyObject {
        /// The instances.
        #[n(0)]
        lists: Vec<SeriesList>,
    },
    /// What the source PACS has.
    #[n(4)]
    #[cbor(map)]
    Found {
        /// Number of Study Related Instances (0020,1208), when it was said: missing is not 0.
        #[n(0)]
        count: Option<u32>,
        /// The instances.
        #[n(1)]
        lists: Vec<SeriesList>,
    },
    /// A rejection note.
    #[n(5)]
    #[cbor(map)]
    Rejected {
        /// Its title.
        #[n(0)]
        why: Rejection,
        /// The instances.
        #[n(1)]
        lists: Vec<SeriesList>,
    },
    /// A person has decided.
    #[n(6)]
    #[cbor(map)]
    Decided {
        /// True: these are expected, whatever withdrew them. False: they will not come.
        #[n(0)]
        expect: bool,
        /// Why, in the person's words.
        #[n(1)]
        reason: String,
        /// The instances.
        #[n(2)]
        lists: Vec<SeriesList>,
    },
}

/// A statement about one study.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Statement {
    /// Unique in the study, from what the source has numbered: `commitment:` and the transaction
    /// UID; `mpps:`, `availability:`, `key-object:` and the SOP Instance UID; `query:` and the
    /// AE title asked.
    #[n(0)]
    pub id: String,
    /// Who says it: an AE title, a system user.
    #[n(1)]
    pub source: String,
    /// When this node heard it first.
    #[n(2)]
    pub at: Timestamp,
    /// When this node heard the last part of it.
    #[n(3)]
    pub last_at: Timestamp,
    /// What it says.
    #[n(4)]
    pub said: Said,
    /// Instances that it names beyond [`REFERENCES_MAX`].
    #[n(5)]
    pub beyond: u32,
}

impl Statement {
    /// A statement heard at `at`.
    pub fn new(id: &str, source: &str, at: Timestamp, said: Said) -> Self {
        let (id, source) = (id.to_owned(), source.to_owned());
        Self { id, source, at, last_at: at, said, beyond: 0 }
    }

    /// How far it can be trusted; `None` for what takes away instead of naming.
    pub fn grade(&self) -> Option<Grade> {
        match self.said {
            Said::Commitment { .. } => Some(Grade::Commitment),
            Said::Performed { .. } => Some(Grade::Mpps),
            Said::Available { .. } => Some(Grade::Availability),
            Said::KeyObject { .. } => Some(Grade::KeyObject),
            Said::Found { .. } => Some(Grade::SourceQuery),
            Said::Rejected { .. } | Said::Decided { .. } => None,
        }
    }

    /// The instances that it names or takes away, by series; those it calls unavailable not.
    pub fn lists(&self) -> &[SeriesList] {
        match &self.said {
            Said::Commitment { lists }
            | Said::Performed { lists, .. }
            | Said::Available { lists, .. }
            | Said::KeyObject { lists }
            | Said::Found { lists, .. }
            | Said::Rejected { lists, .. }
            | Said::Decided { lists, .. } => lists,
        }
    }

    /// How many instances the study has at least, where this is said without naming them all.
    pub fn count(&self) -> Option<u32> {
        let named: usize = self.lists().iter().map(|l| l.instances.len()).sum();
        let named = u32::try_from(named).unwrap_or(u32::MAX);
        match &self.said {
            Said::Found { count: Some(count), .. } => Some(*count),
            Said::Rejected { .. } | Said::Decided { .. } => None,
            _ => (self.beyond > 0).then(|| named.saturating_add(self.beyond)),
        }
    }

    /// Sorts the lists and keeps the limit.
    fn settle(&mut self) {
        let mut left = REFERENCES_MAX;
        for lists in self.said.lists_mut() {
            unite(lists, &[]);
            for list in lists.iter_mut() {
                let over = list.instances.len().saturating_sub(left);
                list.instances.truncate(left);
                left -= list.instances.len();
                self.beyond = self.beyond.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
            }
        }
    }

    /// Joins another part of the same statement.
    pub(super) fn join(&mut self, other: &Self) {
        self.at = self.at.min(other.at);
        self.last_at = self.last_at.max(other.last_at);
        if other.source < self.source {
            self.source.clone_from(&other.source);
        }
        self.beyond = self.beyond.max(other.beyond);
        self.said.join(&other.said);
        self.settle();
    }
}

impl Said {
    /// A number for the kind, and for what two statements of one id cannot both say.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Commitment { .. } => 0,
            Self::Performed { .. } => 1,
            Self::Available { .. } => 2,
            Self::KeyObject { .. } => 3,
            Self::Found { .. } => 4,
            Self::Rejected { why, .. } => FIRST_REJECTION + *why as u8,
            Self::Decided { expect: true, .. } => 9,
            Self::Decided { expect: false, .. } => 10,
        }
    }

    fn join(&mut self, other: &Self) {
        match (self, other) {
            (
                Self::Performed { status, reason, lists },
                Self::Performed { status: s, reason: r, lists: l },
            ) => {
                *status = (*status).max(*s);
                if *r > *reason {
                    reason.clone_from(r);
                }
                unite(lists, l);
            }
            (
                Self::Available { lists, unavailable },
                Self::Available { lists: l, unavailable: u },
            ) => {
                unite(lists, l);
                unite(unavailable, u);
            }
            (Self::Found { count, lists }, Self::Found { count: c, lists: l }) => {
                *count = (*count).max(*c);
                unite(lists, l);
            }
            (Self::Decided { reason, lists, .. }, Self::Decided { reason: r, lists: l, .. }) => {
                if *r > *reason {
                    reason.clone_from(r);
                }
                unite(lists, l);
            }
            (Self::Commitment { lists }, Self::Commitment { lists: l })
            | (Self::KeyObject { lists }, Self::KeyObject { lists: l })
            | (Self::Rejected { lists, .. }, Self::Rejected { lists: l, .. }) => unite(lists, l),
            _ => {}
        }
    }

    pub(super) fn lists_mut(&mut self) -> impl Iterator<Item = &mut Vec<SeriesList>> {
        let (lists, unavailable) = match self {
            Self::Available { lists, unavailable } => (lists, Some(unavailable)),
            Self::Commitment { lists }
            | Self::Performed { lists, .. }
            | Self::KeyObject { lists }
            | Self::Found { lists, .. }
            | Self::Rejected { lists, .. }
            | Self::Decided { lists, .. } => (lists, None),
        };
        std::iter::once(lists).chain(unavailable)
    }
}

/// Unites two sets of lists; the result is sorted and has no instance twice in a series.
fn unite(own: &mut Vec<SeriesList>, other: &[SeriesList]) {
    let mut by_series: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    let all = std::mem::take(own).into_iter().chain(other.iter().cloned());
    for list in all {
        by_series.entry(list.series).or_default().extend(list.instances);
    }
    own.extend(by_series.into_iter().map(|(series, mut instances)| {
        instances.sort();
        instances.dedup_by(|b, a| a.sop == b.sop);
        SeriesList { series, instances }
    }));
}

/// All that was said about one study; two kinds under one id are two statements.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Evidence {
    /// By kind and id.
    #[n(0)]
    #[serde(serialize_with = "in_a_row")]
    statements: BTreeMap<(u8, String), Statement>,
}

fn in_a_row<S: serde::Serializer>(
    statements: &BTreeMap<(u8, String), Statement>,
    s: S,
) -> Result<S::Ok, S::Error> {
    s.collect_seq(statements.values())
}

impl Evidence {
    /// Takes a statement in; the whole of it as known now, when it says something new. A series
    /// without instances is legal and names nothing.
    pub fn hear(&mut self, mut statement: Statement) -> Option<&Statement> {
        statement.settle();
        let key = (statement.said.kind(), statement.id.clone());
        match self.statements.entry(key) {
            Entry::Vacant(slot) => Some(slot.insert(statement)),
            Entry::Occupied(slot) => {
                let known = slot.into_mut();
                let before = known.clone();
                known.join(&statement);
                (*known != before).then_some(known)
            }
        }
    }

    /// The statements, strongest kinds first.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.statements.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(series: &str, sops: &[&str]) -> SeriesList {
        let instances = sops.iter().map(|s| Reference { sop: (*s).into(), class: String::new() });
        SeriesList { series: series.into(), instances: instances.collect() }
    }

    #[test]
    fn a_step_told_in_parts_in_any_order_is_one_statement_with_the_final_state() {
        let part = |status, at, sops: &[&str]| {
            let said =
                Said::Performed { status, reason: String::new(), lists: vec![list("1", sops)] };
            Statement::new("mpps:1.2", "CT1", Timestamp(at), said)
        };
        let parts = [
            part(StepStatus::InProgress, 1, &[]),
            part(StepStatus::InProgress, 2, &["1.1"]),
            part(StepStatus::Completed, 3, &["1.2", "1.1"]),
        ];
        let (mut a, mut b) = (Evidence::default(), Evidence::default());
        parts.iter().for_each(|p| assert!(a.hear(p.clone()).is_some()));
        parts.iter().rev().for_each(|p| {
            b.hear(p.clone());
        });
        assert_eq!(a, b);
        assert_eq!(a.hear(parts[1].clone()), None, "nothing new");
        let step = a.statements().next().unwrap();
        assert_eq!(step.lists(), [list("1", &["1.1", "1.2"])]);
        assert_eq!((step.at, step.last_at), (Timestamp(1), Timestamp(3)));
        assert!(matches!(step.said, Said::Performed { status: StepStatus::Completed, .. }));
    }

    #[test]
    fn titles_other_than_complete_and_rejected_say_nothing() {
        assert_eq!(KeyTitle::of("113032"), Some(KeyTitle::Complete));
        assert_eq!(KeyTitle::of("113037"), Some(KeyTitle::Rejected(Rejection::Safety)));
        assert_eq!(KeyTitle::of("113000"), None, "of interest");
    }

    #[test]
    fn evidence_survives_being_written_down() {
        let mut e = Evidence::default();
        let lists = vec![list("1", &["1.1", "1.1"])];
        e.hear(Statement::new(
            "query:PACS",
            "PACS",
            Timestamp(7),
            Said::Found { count: None, lists },
        ));
        let bytes = minicbor::to_vec(&e).unwrap();
        assert_eq!(minicbor::decode::<Evidence>(&bytes).unwrap(), e);
    }
}
