//! What the registrar keeps in the book of orders, by kind of key. Pure.
//!
//! | key | entry | found by |
//! |---|---|---|
//! | `o` order | [`OrderRecord`]: its messages, and how it stands while it has no study | its numbers, its study UIDs, its patient; while it is on the worklist, its days |
//! | `s` study | [`Dossier`]: what its headers say, its order, how it stands | the same |
//! | `i` study, page | at most [`PAGE_INSTANCES`] instances | |
//! | `e` study, kind, id, part | a statement, or a part of a long one | |
//! | `f` study | the [`Manifest`](crate::orders::manifest::Manifest) that another node sent | |
//! | `r` study | what its source was asked ([`RecallRecord`](super::recall_record::RecallRecord)) | being due; its order, of a prior |
//! | `v` order | what was asked of earlier studies ([`PriorsRecord`](super::priors_in::PriorsRecord)) | being due |
//! | `m` step | a performed procedure step ([`StepRecord`]) | |
//! | `p` patient number | a merge of two patients | |
//! | `w` worklist, number | all that a polled worklist has said of an order ([`Said`](super::listed::Said)) | |
//! | `v` | that all orders bear the terms of the worklist | |
//! | `a` slot | an answer given to a message ([`Answered`]) | sender and control ID |
//! | `n` time, id | a [`Letter`](crate::orders::letter::Letter): a notice that is not delivered yet | |
//! | `k` study | which withdrawn images a person has acknowledged ([`Seen`](super::withdrawn::Seen)) | |
//! | `C` study | how many of its images were corrected as their order says (`correct`) | |
//! | `x` | requests about steps that are passed on, see `passing/record.rs` | |
//! | `c` | how far arrivals were looked at, and which slot comes next | |
//!
//! Names and numbers that peers choose stand in keys and terms as digests: bounded, whatever their
//! length. Open cases bear a term of their own, so that a start reads those and no others.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::keys::{
    HOLDS, Number, OPEN, TO_CARRY, TO_TELL, entry, order_key, order_of_prior, order_of_study,
    order_terms, study_key, study_terms,
};
use super::recall_record::Asked;
use super::telling::Telling;
use super::times::KeptTimes;
use super::travel::Way;
use super::worklist;
use crate::cargo::NodeName;
use crate::clock::Timestamp;
use crate::custody::register::Entry;
use crate::orders::evidence::{Grade, StepStatus};
use crate::orders::history::{History, Stamp};
use crate::orders::identifier::{Identifier, Patient};
use crate::orders::matching::{Link, Match, StudyFacts};
use crate::orders::notice;
use crate::orders::order::{Order, OrderKey};
use crate::orders::verdict::{Settled, Verdict, What};
use crate::orders::words::{Sentence, Word};

/// Most instances of one page.
pub(super) const PAGE_INSTANCES: usize = 32;
/// Most missing instances that a standing names; the verdict of the study names all.
pub const LACKING_SHOWN_MAX: usize = 32;
/// Most changes of its standing that a study remembers.
pub(super) const TURNS_MAX: usize = 100;
/// Most AE titles that a study remembers as its senders.
pub(super) const SENDERS_MAX: usize = 8;
/// Most other patients that a study remembers.
pub(super) const PATIENTS_MAX: usize = 4;
/// Answers that are remembered, the oldest go first.
pub(super) const ANSWERS_MAX: u32 = 65_536;

/// A study of one origin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize)]
#[cbor(map)]
pub struct StudyRef {
    /// The node that first took it.
    #[n(0)]
    pub origin: NodeName,
    /// Study Instance UID (0020,000D).
    #[n(1)]
    pub study: String,
}

/// What is judged: a study, or an order that has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum CaseId {
    Order(OrderKey),
    Study(StudyRef),
}

/// A verdict as listings and metrics need it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Standing {
    /// The gravest finding.
    #[n(0)]
    pub headline: What,
    /// How far the images are.
    #[n(1)]
    pub progress: What,
    /// All that needs attention, gravest first.
    #[n(2)]
    pub attention: Vec<What>,
    /// By which grade of evidence.
    #[n(3)]
    pub grade: Option<Grade>,
    /// Why, in words.
    #[n(4)]
    pub reason: Sentence,
    /// What to do, in words.
    #[n(5)]
    pub action: Word,
    /// Instances here.
    #[n(6)]
    pub held: u32,
    /// Of those that are expected, how many are here.
    #[n(7)]
    pub arrived: u32,
    /// Instances expected, where anything says how many.
    #[n(8)]
    pub expected: Option<u32>,
    /// Instances that lack, the unnamed included.
    #[n(9)]
    pub missing: u32,
    /// The first of them, at most [`LACKING_SHOWN_MAX`].
    #[n(10)]
    pub lacking: Vec<String>,
    /// Why the images wait, when they do.
    #[n(11)]
    pub hold: Option<What>,
    /// Since when the headline is so.
    #[n(12)]
    pub since: Timestamp,
    /// When it could become another by itself.
    #[n(13)]
    pub again_at: Option<Timestamp>,
    /// How its source was asked for what lacks.
    #[n(14)]
    pub source: Option<Asked>,
}

impl Standing {
    /// Of a verdict; `before` is the one that it follows.
    pub(super) fn of(verdict: &Verdict, before: Option<&Self>, now: Timestamp) -> Self {
        let (headline, progress) = (verdict.headline(), verdict.progress());
        let since = before.filter(|b| b.headline == headline.what).map_or(now, |b| b.since);
        let findings = verdict.findings.iter().map(|f| f.what);
        let named = u32::try_from(verdict.missing.len()).unwrap_or(u32::MAX);
        let lacking = verdict.missing.iter().take(LACKING_SHOWN_MAX);
        Self {
            headline: headline.what,
            progress: progress.what,
            attention: findings.filter(|what| what.needs_attention()).collect(),
            grade: progress.grade,
            reason: headline.reason.clone(),
            action: headline.action,
            held: verdict.held,
            arrived: verdict.arrived,
            expected: verdict.expected,
            missing: named.saturating_add(verdict.unnamed),
            lacking: lacking.map(|m| m.sop.clone()).collect(),
            hold: verdict.hold,
            since,
            again_at: verdict.again_at,
            source: None,
        }
    }

    /// Whether anything is still to come, by itself or by a person.
    pub(super) fn is_open(&self) -> bool {
        let ended = matches!(
            self.progress,
            What::Complete | What::PresumedComplete | What::Cancelled | What::Discontinued
        );
        !ended || self.again_at.is_some() || !self.attention.is_empty()
    }
}

/// That a case stood otherwise from then on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Turn {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// The gravest finding.
    #[n(1)]
    pub headline: What,
    /// How far the images were.
    #[n(2)]
    pub progress: What,
    /// Why.
    #[n(3)]
    pub reason: Sentence,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct OrderRecord {
    #[n(0)]
    pub(super) history: History,
    /// Higher is later, also after this node has lost its data.
    #[n(1)]
    pub(super) revision: u64,
    /// The revision that was handed to custody for other nodes.
    #[n(2)]
    pub(super) carried: u64,
    #[n(3)]
    pub(super) entered_at: Timestamp,
    /// Studies that belong to it.
    #[n(4)]
    pub(super) studies: u32,
    /// How it stands while it has none.
    #[n(5)]
    pub(super) standing: Option<Standing>,
    /// Nodes to which images of its studies go.
    #[n(6)]
    pub(super) ways: Vec<Way>,
    /// What receivers of HL7 were told of it, as it was told.
    #[cbor(n(7), default)]
    pub(super) told: Vec<Telling>,
    /// It says something that they may have to be told.
    #[cbor(n(8), default)]
    pub(super) to_tell: bool,
    /// What was told of it, by rule, while it has no study.
    #[cbor(n(40), default)]
    pub(super) notices: BTreeMap<String, notice::Told>,
}

impl OrderRecord {
    pub(super) fn new(key: OrderKey, at: Timestamp) -> Self {
        let history = History::new(key);
        Self {
            history,
            revision: 0,
            carried: 0,
            entered_at: at,
            studies: 0,
            standing: None,
            ways: Vec::new(),
            told: Vec::new(),
            to_tell: false,
            notices: BTreeMap::new(),
        }
    }

    /// It says something new, which other nodes, and receivers of HL7, are to be told.
    pub(super) fn revise(&mut self, now: Timestamp) {
        let wall = u64::try_from(now.0).unwrap_or(0);
        self.revision = wall.max(self.revision + 1);
        self.to_tell = true;
    }

    pub(super) fn key(&self) -> &OrderKey {
        self.history.key()
    }

    /// How it stands, when it is a case of its own.
    pub(super) fn own_standing(&self) -> Option<&Standing> {
        self.standing.as_ref().filter(|_| self.studies == 0)
    }

    /// Whether other nodes are to be told of it.
    pub(super) const fn is_owed(&self) -> bool {
        self.revision > self.carried
    }

    pub(super) fn entry(&self, order: &Order) -> Entry {
        let mut terms = order_terms(order);
        terms.extend(worklist::terms(order, self.entered_at));
        if self.own_standing().is_some_and(Standing::is_open) {
            terms.push(OPEN.to_vec());
        }
        if self.is_owed() {
            terms.push(TO_CARRY.to_vec());
        }
        if self.to_tell {
            terms.push(TO_TELL.to_vec());
        }
        entry(order_key(self.key()), self, terms)
    }
}

/// A study.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Dossier {
    #[n(0)]
    pub(super) facts: StudyFacts,
    #[n(1)]
    pub(super) link: Option<Link>,
    #[n(2)]
    pub(super) matched: Match,
    /// Instances written into pages.
    #[n(3)]
    pub(super) instances: u32,
    /// Statements, parts counted one by one.
    #[n(4)]
    pub(super) statements: u32,
    #[n(5)]
    pub(super) settled: Option<Settled>,
    #[n(6)]
    pub(super) standing: Option<Standing>,
    #[n(7)]
    pub(super) turns: Vec<Turn>,
    /// AE titles that sent it.
    #[n(8)]
    pub(super) senders: Vec<String>,
    #[n(9)]
    pub(super) modality: String,
    #[n(10)]
    pub(super) first_at: Timestamp,
    /// Number of the last manifest that was handed to custody, and what it said.
    #[n(11)]
    pub(super) told: Option<Told>,
    /// Number of the manifest that another node sent; it has a key of its own.
    #[n(12)]
    pub(super) manifest: Option<u64>,
    /// Nodes to which its images go.
    #[n(13)]
    pub(super) ways: Vec<Way>,
    /// A manifest is to be handed to custody for them.
    #[n(14)]
    pub(super) owes_manifest: bool,
    /// The last of its images.
    #[n(15)]
    pub(super) last_cargo: u64,
    /// Duties of its images up to this one are held for its verdict; 0: none.
    #[n(16)]
    pub(super) held_to: u64,
    /// Images up to this one were released for their order.
    #[n(17)]
    pub(super) freed_to: u64,
    /// Duties are to be held or released.
    #[n(18)]
    pub(super) owes_hold: bool,
    /// How long the routes of its images say to wait.
    #[cbor(n(42), default)]
    pub(super) times: KeptTimes,
    /// Other patients than that of its first image, at most [`PATIENTS_MAX`].
    #[cbor(n(43), default)]
    pub(super) others: Vec<Patient>,
    /// The order of which it is a prior.
    #[n(19)]
    pub(super) prior_of: Option<OrderKey>,
    /// Body Part Examined (0018,0015); empty when not known.
    #[cbor(n(20), default)]
    pub(super) body_part: String,
    /// What was told of it, by rule.
    #[cbor(n(40), default)]
    pub(super) notices: BTreeMap<String, notice::Told>,
    /// That a person has acknowledged withdrawn images; which ones has a key of its own.
    #[n(41)]
    pub(super) seen: Option<Acknowledged>,
    /// Name of the route by which its first image left to a node; empty: by none.
    #[cbor(n(44), default)]
    pub(super) route: String,
}

/// That a person knows of images that were withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Acknowledged {
    #[n(0)]
    pub(super) at: Timestamp,
    #[n(1)]
    pub(super) by: String,
    /// How many images.
    #[n(2)]
    pub(super) count: u32,
}

/// What the last manifest said, as far as another one follows when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Told {
    #[n(0)]
    pub(super) number: u64,
    #[n(1)]
    pub(super) progress: What,
    #[n(2)]
    pub(super) attention: Vec<What>,
    #[n(3)]
    pub(super) grade: Option<Grade>,
    #[n(4)]
    pub(super) missing: u32,
    #[n(5)]
    pub(super) order: Option<OrderKey>,
    #[n(6)]
    pub(super) withdrawn: u32,
    #[n(7)]
    pub(super) held: u32,
}

impl Dossier {
    pub(super) fn new(study: &StudyRef, at: Timestamp) -> Self {
        let StudyRef { origin, study } = study.clone();
        Self {
            facts: StudyFacts {
                origin,
                study,
                accession: None,
                filler: None,
                placer: None,
                procedures: Vec::new(),
                patient: Patient::default(),
            },
            link: None,
            matched: Match::None,
            instances: 0,
            statements: 0,
            settled: None,
            standing: None,
            turns: Vec::new(),
            senders: Vec::new(),
            modality: String::new(),
            first_at: at,
            told: None,
            manifest: None,
            ways: Vec::new(),
            owes_manifest: false,
            last_cargo: 0,
            held_to: 0,
            freed_to: 0,
            owes_hold: false,
            prior_of: None,
            body_part: String::new(),
            notices: BTreeMap::new(),
            seen: None,
            times: KeptTimes::default(),
            others: Vec::new(),
            route: String::new(),
        }
    }

    pub(super) fn study(&self) -> StudyRef {
        StudyRef { origin: self.facts.origin.clone(), study: self.facts.study.clone() }
    }

    /// Whether it is a prior and nothing else: nobody has ordered it.
    pub(super) fn is_only_prior(&self) -> bool {
        self.prior_of.is_some() && self.matched.order().is_none()
    }

    pub(super) fn entry(&self) -> Entry {
        let mut terms = study_terms(&self.facts);
        let others = self.others.iter().filter_map(|p| p.ids.first());
        terms.extend(others.map(|id| Number::Patient.of_study(&self.facts.origin, &id.id)));
        if let Some(order) = self.matched.order() {
            terms.push(order_of_study(order));
        }
        if self.standing.as_ref().is_some_and(Standing::is_open) {
            terms.push(OPEN.to_vec());
        }
        if let Some(order) = &self.prior_of {
            terms.push(order_of_prior(order));
        }
        if self.owes_hold {
            terms.push(HOLDS.to_vec());
        }
        if self.owes_manifest {
            terms.push(TO_CARRY.to_vec());
        }
        entry(study_key(&self.study()), self, terms)
    }
}

/// An answer that was given to a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Answered {
    /// Of the message without its MSH, which a sender may write anew when it sends again.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) digest: [u8; 32],
    #[n(1)]
    pub(super) answers: Vec<minicbor::bytes::ByteVec>,
}

/// A performed procedure step, without the images that it lists.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct StepRecord {
    #[n(0)]
    pub(super) status: StepStatus,
    /// All that was said of it, Explicit VR Little Endian, UTF-8.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) attributes: Vec<u8>,
}

/// How far the registrar has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct Cursor {
    /// The last piece of cargo that was looked at.
    #[n(0)]
    pub(super) arrival: u64,
    /// Where the next answer is remembered.
    #[n(1)]
    pub(super) slot: u32,
    /// Number of the last request that is passed on.
    #[cbor(n(2), default)]
    pub(super) requests: u64,
}

/// A merge of two patient numbers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct MergeRecord {
    #[n(0)]
    pub(super) origin: NodeName,
    #[n(1)]
    pub(super) stamp: Stamp,
    #[n(2)]
    pub(super) survivor: Identifier,
    #[n(3)]
    pub(super) retired: Identifier,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::identifier::Agreement;
    use crate::orders::matching::{By, Doubts};

    #[test]
    fn a_prior_that_has_an_order_of_its_own_is_missed_like_any_study() {
        let origin: NodeName = "h".parse().unwrap();
        let order = |number: &str| OrderKey { origin: origin.clone(), number: number.into() };
        let study = StudyRef { origin: origin.clone(), study: "1.2".into() };
        let mut dossier = Dossier::new(&study, Timestamp(0));
        assert!(!dossier.is_only_prior());
        dossier.prior_of = Some(order("NEW"));
        assert!(dossier.is_only_prior());
        let doubts = Doubts { patient: Agreement::Same, accession: Agreement::Unsure };
        dossier.matched = Match::Order { order: order("OWN"), by: By::Study, doubts };
        assert!(!dossier.is_only_prior());
    }
}
