//! The book of reports: its entries, and where they stand.
//!
//! | key | entry | found by |
//! |---|---|---|
//! | `c` | how far the arrivals were looked at | |
//! | `d` digest of the cargo | [`DocumentRecord`] | [`HELD`], [`TO_CARRY`], [`WAITING`] |
//! | `r` id | [`ReportRecord`] | its studies and orders, [`OPEN`], [`LATE`], [`CRITICAL`], [`ALARMING`] |
//! | `l` digest of hospital and study | [`LoopRecord`] | [`OPEN`] |
//! | `w` id | [`WordsRecord`] | its study, [`OPEN`] |
//! | `n` key of the note | [`NoteRecord`]: a note that custody is to have | |

use minicbor::{Decode, Encode};

use super::desk::Why;
use crate::cargo::{DestinationName, Hasher, NodeName, Sha256, Urgency};
use crate::clock::Timestamp;
use crate::custody::register::Entry;
use crate::reports::critical::Alarm;
use crate::reports::matching::{By, Target};
use crate::reports::note::{Handed, Slip, Words};
use crate::reports::report::{Form, Report, Status};
use crate::reports::turnaround::{Loop, Moment, Owed};
use crate::reports::versions::{Chain, Version};

/// Key of the cursor.
pub(super) const CURSOR: &[u8] = b"c";
/// Documents that wait for a person.
pub(super) const HELD: &[u8] = b"held";
/// Documents that custody is to send to their hospital.
pub(super) const TO_CARRY: &[u8] = b"carry";
/// Documents of which not everything has come.
pub(super) const WAITING: &[u8] = b"waiting";
/// Reports, loops and questions with which something is still to happen.
pub(super) const OPEN: &[u8] = b"open";
/// Reports that are or were critical.
pub(super) const CRITICAL: &[u8] = b"critical";

/// Reports of whose critical result nobody has said what was done.
pub(super) const ALARMING: &[u8] = b"alarming";

/// Reports of which a system has not said yes in time, or has said no.
pub(super) const LATE: &[u8] = b"late";

/// Events of one report that are remembered; the oldest go.
pub(super) const EVENTS_MAX: usize = 128;
/// Longest account of one event, in bytes.
const WHAT_MAX: usize = 512;
/// Parts that were handed on of one report; the oldest that are settled go.
pub(super) const SENDINGS_MAX: usize = 128;
/// Studies and orders that one report is about; more are not remembered.
pub(super) const TARGETS_MAX: usize = 32;
/// Documents of one version that a part remembers.
pub(super) const DOCUMENTS_MAX: usize = 16;
/// Longest memory of what a document says, in bytes: a turn's changes are one fact, which has an end.
const SAID_BYTES_MAX: usize = 64 << 10;
/// Numbers of one kind, and instances, that are remembered of a document: no more are looked up.
const NUMBERS_MAX: usize = 64;
const INSTANCES_MAX: usize = crate::custody::INSTANCES_ASKED_MAX;
/// Other entries of a list that are remembered.
const OTHERS_MAX: usize = 16;

/// How far the arrivals were looked at.
#[derive(Debug, Clone, Copy, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct Cursor {
    #[n(0)]
    pub(super) arrival: u64,
    /// Since when this book is kept: what came before is followed by nobody.
    #[n(1)]
    #[cbor(default)]
    pub(super) since: Timestamp,
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Place {
    /// At the hospital: its slip, or its cargo, has not come yet.
    #[n(0)]
    Waits,
    /// A person must look.
    #[n(1)]
    Held(#[n(0)] Why),
    /// It is one of a report's; the report's id.
    #[n(2)]
    Filed(#[n(0)] String),
    /// A person has decided that it goes nowhere: who, and why.
    #[n(3)]
    Discarded(#[n(0)] String, #[n(1)] String),
}

/// A document: one piece of cargo with a report.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct DocumentRecord {
    /// Digest of its cargo; its id.
    #[n(0)]
    pub(super) sha256: Sha256,
    /// Number of its cargo; absent: only its slip has come.
    #[n(1)]
    pub(super) cargo: Option<u64>,
    /// The node that has collected it.
    #[n(2)]
    pub(super) from: NodeName,
    /// When that node has taken it into custody, as far as it is known here.
    #[n(3)]
    pub(super) arrived_at: Timestamp,
    /// What it says, without the bytes of its forms; absent until its cargo has come.
    #[n(4)]
    pub(super) said: Option<Box<Report>>,
    /// Digest of what it says ([`Report::digest`]).
    #[n(5)]
    pub(super) digest: Sha256,
    /// Where it stands.
    #[n(6)]
    pub(super) place: Place,
    /// Where it belongs, once that is known.
    #[n(7)]
    pub(super) slip: Option<Slip>,
    /// Who answers for its signature in spite of the list.
    #[n(8)]
    pub(super) released_by: Option<String>,
    /// Where a person has said that it belongs.
    #[n(9)]
    pub(super) matched: Option<(String, Target)>,
    /// How often it was tried to find where it belongs.
    #[n(10)]
    pub(super) tries: u32,
    /// It is to be sent to its hospital, as urgently as this.
    #[n(11)]
    pub(super) carry: Option<Urgency>,
    /// Its text has characters that could not be read.
    #[cbor(n(12), default)]
    pub(super) is_garbled: bool,
}

/// A document's id, for people: 32 hexadecimal digits.
pub(super) fn id_of(sha256: &Sha256) -> String {
    sha256.to_string()[..32].to_owned()
}

/// What is remembered of a report: all that decides where it belongs and who has signed it, without
/// the bytes of its forms. `None`: its names and numbers alone are longer than any report's.
pub(super) fn remembered(report: &Report) -> Option<Report> {
    let bare = |form: &Form| Form { bytes: Vec::new(), ..form.clone() };
    let mut said = Report {
        forms: report.forms.iter().map(bare).collect(),
        ids: report.ids.clone(),
        ..report.clone()
    };
    said.ids.studies.truncate(NUMBERS_MAX);
    said.ids.accessions.truncate(NUMBERS_MAX);
    said.ids.instances.truncate(INSTANCES_MAX);
    said.ids.predecessors.truncate(OTHERS_MAX);
    said.authors.truncate(OTHERS_MAX);
    said.critical.truncate(OTHERS_MAX);
    // Who has signed is compared to the last one, and the patient to each of the names.
    (minicbor::to_vec(&said).map_or(0, |bytes| bytes.len()) <= SAID_BYTES_MAX).then_some(said)
}

impl DocumentRecord {
    /// Of which nothing is known yet but who has collected it, and when.
    pub(super) fn new(sha256: Sha256, from: &NodeName, arrived_at: Timestamp) -> Self {
        Self {
            sha256,
            cargo: None,
            from: from.clone(),
            arrived_at,
            said: None,
            digest: sha256,
            place: Place::Waits,
            slip: None,
            released_by: None,
            matched: None,
            tries: 0,
            carry: None,
            is_garbled: false,
        }
    }

    pub(super) fn id(&self) -> String {
        id_of(&self.sha256)
    }

    pub(super) fn key(&self) -> Vec<u8> {
        document_key(&self.sha256)
    }

    pub(super) fn entry(&self) -> Entry {
        let mut terms = Vec::new();
        match &self.place {
            Place::Held(_) => terms.push(HELD.to_vec()),
            Place::Waits => terms.push(WAITING.to_vec()),
            _ => {}
        }
        if self.carry.is_some() {
            terms.push(TO_CARRY.to_vec());
        }
        entry(self.key(), self, terms)
    }
}

/// What became of a part that was handed on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Fate {
    /// Custody has it, or is about to.
    #[n(0)]
    Open,
    /// The destination has said yes: when, and in which words.
    #[n(1)]
    Yes(#[n(0)] Timestamp, #[n(1)] String),
    /// It has said no for good, or a person has decided so.
    #[n(2)]
    No(#[n(0)] String),
    /// A later version was sent in its place.
    #[n(3)]
    Replaced,
    /// It cannot be made.
    #[n(4)]
    Unmade(#[n(0)] String),
}

/// A part of a version on its way to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Sending {
    #[n(0)]
    pub(super) destination: DestinationName,
    /// Made of what it is made of: the same part is not sent twice.
    #[n(1)]
    pub(super) part: Sha256,
    /// Key of its cargo; empty until it is made.
    #[n(2)]
    pub(super) key: String,
    /// Number of its cargo, once custody has it.
    #[n(3)]
    pub(super) cargo: Option<u64>,
    #[n(4)]
    pub(super) status: Status,
    /// When it was made.
    #[n(5)]
    pub(super) at: Timestamp,
    #[n(6)]
    pub(super) fate: Fate,
    /// People were told that no yes comes.
    #[n(7)]
    pub(super) alarmed: bool,
    /// Of a DICOM instance its UID and class.
    #[n(8)]
    pub(super) uid: String,
    #[n(9)]
    pub(super) class: String,
    /// Series Instance UID of a DICOM instance.
    #[n(12)]
    pub(super) series: String,
    /// Documents of the version.
    #[n(10)]
    pub(super) documents: Vec<Sha256>,
    /// Which version, from one.
    #[n(11)]
    pub(super) number: u32,
}

impl Sending {
    /// Whether it is a part of a version with these documents: it may have been made when not all
    /// of them were there.
    pub(super) fn is_of(&self, documents: &[Sha256]) -> bool {
        let is_current = self.fate != Fate::Replaced;
        is_current && self.documents.iter().all(|document| documents.contains(document))
    }
}

/// Something that happened to a report.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Happened {
    #[n(0)]
    pub(super) at: Timestamp,
    /// One of [`super::desk::Event::kind`].
    #[n(1)]
    pub(super) kind: String,
    #[n(2)]
    pub(super) what: String,
    #[n(3)]
    pub(super) by: String,
}

/// A report with all of its versions.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct ReportRecord {
    /// 32 hexadecimal digits.
    #[n(0)]
    pub(super) id: String,
    #[n(1)]
    pub(super) hospital: NodeName,
    /// The node that has collected it.
    #[n(2)]
    pub(super) from: NodeName,
    #[n(3)]
    pub(super) targets: Vec<Target>,
    #[n(4)]
    pub(super) by: By,
    /// The filler's number, where several reports are of one study.
    #[n(5)]
    pub(super) line: String,
    #[n(6)]
    pub(super) chain: Chain,
    #[n(7)]
    pub(super) alarm: Option<Alarm>,
    #[n(8)]
    pub(super) sendings: Vec<Sending>,
    #[n(9)]
    pub(super) events: Vec<Happened>,
    /// Something is to be handed on, or an answer to come.
    #[n(10)]
    pub(super) is_open: bool,
    /// At the reading node: what the hospital's systems have said of the last versions.
    #[n(11)]
    pub(super) handed: Vec<Handed>,
    /// At the hospital: destinations that have heard of the latest version, and lack nothing.
    #[n(12)]
    pub(super) is_acknowledged: bool,
}

impl ReportRecord {
    /// One of which nothing has come yet, of the hospital of its first target.
    pub(super) fn new(id: String, from: NodeName, targets: Vec<Target>, by: By) -> Self {
        Self {
            id,
            hospital: targets[0].origin.clone(),
            from,
            targets,
            by,
            line: String::new(),
            chain: Chain::default(),
            alarm: None,
            sendings: Vec::new(),
            events: Vec::new(),
            is_open: false,
            handed: Vec::new(),
            is_acknowledged: false,
        }
    }

    pub(super) fn entry(&self) -> Entry {
        let mut terms = Vec::new();
        for target in &self.targets {
            if !target.study.is_empty() {
                terms.push(study_term(&target.study));
            }
            if let Some(order) = &target.order {
                terms.push(order_term(&order.number));
            }
        }
        terms.sort();
        terms.dedup();
        if self.is_open {
            terms.push(OPEN.to_vec());
        }
        let is_late =
            |s: &Sending| s.alarmed && matches!(s.fate, Fate::Open | Fate::No(_) | Fate::Unmade(_));
        if self.sendings.iter().any(is_late) {
            terms.push(LATE.to_vec());
        }
        if let Some(alarm) = &self.alarm {
            terms.push(CRITICAL.to_vec());
            if alarm.state() != crate::reports::critical::State::Closed {
                terms.push(ALARMING.to_vec());
            }
        }
        entry(report_key(&self.id), self, terms)
    }

    pub(super) fn happened(&mut self, at: Timestamp, kind: &str, what: String, by: &str) {
        if self.events.len() >= EVENTS_MAX {
            self.events.remove(0);
        }
        let (kind, by) = (kind.to_owned(), crate::cargo::peer_text(by));
        let mut what = what;
        what.truncate(what.floor_char_boundary(WHAT_MAX));
        self.events.push(Happened { at, kind, what, by });
    }

    /// Whether all that wait for it have it, and nothing more is to come: a preliminary report is
    /// followed by another.
    pub(super) fn is_over(&self) -> bool {
        let is_early = |v: Version<'_>| v.status == Status::Preliminary;
        self.is_acknowledged && !self.chain.latest().is_none_or(is_early)
    }

    /// It is about these, too.
    pub(super) fn is_about(&mut self, targets: &[Target]) {
        for target in targets {
            if self.targets.len() < TARGETS_MAX && !self.targets.contains(target) {
                self.targets.push(target.clone());
            }
        }
    }

    /// Whether it and a document are about one study or order.
    pub(super) fn shares(&self, targets: &[Target]) -> bool {
        // Two studies of one order have a report each.
        let same = |a: &Target, b: &Target| {
            let are_studies = !a.study.is_empty() && !b.study.is_empty();
            a.origin == b.origin
                && match are_studies {
                    true => a.study == b.study,
                    false => a.order.is_some() && a.order == b.order,
                }
        };
        targets.iter().any(|t| self.targets.iter().any(|own| same(own, t)))
    }
}

/// The loop of one study.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct LoopRecord {
    #[n(0)]
    pub(super) hospital: NodeName,
    #[n(1)]
    pub(super) study: String,
    #[n(2)]
    pub(super) order: String,
    /// Route by which its images leave, for the histograms.
    #[n(3)]
    pub(super) route: String,
    #[n(4)]
    pub(super) moments: Loop,
    /// What is said of it in orders was looked at.
    #[n(5)]
    pub(super) is_known: bool,
    /// Steps that stand in the histograms.
    #[n(6)]
    pub(super) counted: Vec<(Moment, Moment)>,
    /// What people were told is overdue.
    #[n(7)]
    pub(super) told: Vec<Owed>,
    #[n(8)]
    pub(super) is_open: bool,
}

impl LoopRecord {
    pub(super) fn key(&self) -> LoopKey {
        loop_key(&self.hospital, &self.study)
    }

    pub(super) fn entry(&self) -> Entry {
        let terms = if self.is_open { vec![OPEN.to_vec()] } else { Vec::new() };
        entry([b"l", &self.key()[..]].concat(), self, terms)
    }
}

/// What a person has asked or answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct WordsRecord {
    #[n(0)]
    pub(super) hospital: NodeName,
    #[n(1)]
    pub(super) study: String,
    #[n(2)]
    pub(super) at: Timestamp,
    /// At which node it was said.
    #[n(3)]
    pub(super) from: NodeName,
    #[n(4)]
    pub(super) words: Words,
    #[n(5)]
    pub(super) is_answered: bool,
}

impl WordsRecord {
    pub(super) fn entry(&self) -> Entry {
        let mut terms = vec![study_term(&self.study)];
        if self.words.answers.is_empty() && !self.is_answered {
            terms.push(OPEN.to_vec());
        }
        entry(words_key(&self.words.id), self, terms)
    }
}

/// A note that custody is to have.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct NoteRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) bytes: Vec<u8>,
    #[n(1)]
    pub(super) key: String,
    #[n(2)]
    pub(super) to: Vec<NodeName>,
    #[n(3)]
    pub(super) urgency: Urgency,
}

impl NoteRecord {
    pub(super) fn entry(&self) -> Entry {
        entry([b"n", self.key.as_bytes()].concat(), self, Vec::new())
    }
}

/// What loops are found by in memory.
pub(super) type LoopKey = [u8; 16];

pub(super) fn loop_key(hospital: &NodeName, study: &str) -> LoopKey {
    first_half(&digest_of(&[hospital.as_str(), study]))
}

/// A new report's id: of what it is about, as far as that is known when its first document comes.
/// Two nodes that read the same study have a report each.
pub(super) fn report_id(from: &NodeName, target: &Target, line: &str) -> String {
    let about = match &target.order {
        Some(order) => format!("order {}", order.number),
        None => format!("study {}", target.study),
    };
    id_of(&digest_of(&[from.as_str(), target.origin.as_str(), &about, line]))
}

fn digest_of(parts: &[&str]) -> Sha256 {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish()
}

fn first_half(digest: &Sha256) -> [u8; 16] {
    digest.0[..16].try_into().expect("32 bytes hold 16")
}

pub(super) fn document_key(sha256: &Sha256) -> Vec<u8> {
    [b"d", &sha256.0[..]].concat()
}

pub(super) fn report_key(id: &str) -> Vec<u8> {
    [b"r", id.as_bytes()].concat()
}

pub(super) fn words_key(id: &str) -> Vec<u8> {
    [b"w", id.as_bytes()].concat()
}

pub(super) fn loop_entry_key(key: &LoopKey) -> Vec<u8> {
    [b"l", &key[..]].concat()
}

pub(super) fn study_term(study: &str) -> Vec<u8> {
    [b"s", &digest_of(&[study]).0[..]].concat()
}

pub(super) fn order_term(number: &str) -> Vec<u8> {
    [b"o", &digest_of(&[number]).0[..]].concat()
}

pub(super) fn entry(key: Vec<u8>, body: &impl Encode<()>, mut terms: Vec<Vec<u8>>) -> Entry {
    let body = minicbor::to_vec(body).expect("encoding into memory cannot fail");
    terms.truncate(crate::custody::register::TERMS_MAX);
    Entry { key, body, terms: terms.into_iter().map(Into::into).collect() }
}

#[cfg(test)]
mod tests;
