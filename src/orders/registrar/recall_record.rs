//! What was tried for a study at its source, as it is kept and as it is told. Pure.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::keys::{PRIOR, RECALL, entry, order_of_prior, recall_key};
use super::recalls::RecallSource;
use super::record::{Standing, StudyRef};
use crate::cargo::Urgency;
use crate::clock::Timestamp;
use crate::custody::register::Entry;
use crate::orders::order::OrderKey;
use crate::orders::recall::{Answer, Recall, RecallRules, Step};
use crate::orders::verdict::{Verdict, What};
use crate::orders::words::{Language, Sentence, Word};

/// Answers of the source that a study remembers.
const TOLD_MAX: usize = 20;

/// How the source was asked for what lacks, for people.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Asked {
    /// Name of the source.
    #[n(0)]
    pub source: String,
    /// Its last answer, where it was not simply what was asked for.
    #[n(1)]
    pub answer: Option<Sentence>,
    /// When that came.
    #[n(2)]
    pub answered_at: Option<Timestamp>,
    /// Rounds of asking that have ended.
    #[n(3)]
    pub rounds: u32,
    /// When it is asked again; absent: it is being asked, or not any more.
    #[n(4)]
    pub next_at: Option<Timestamp>,
    /// It is not asked any more, until a person says so or something else lacks.
    #[n(5)]
    pub given_up: bool,
}

/// Something that the source said.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct SourceSaid {
    #[n(0)]
    pub(super) at: Timestamp,
    #[n(1)]
    pub(super) what: Sentence,
}

/// That a study is a prior of an order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct PriorOf {
    #[n(0)]
    pub(super) order: OrderKey,
    #[n(1)]
    pub(super) urgency: Urgency,
    #[n(2)]
    pub(super) reports: bool,
    #[n(3)]
    pub(super) chosen_at: Timestamp,
}

/// What was tried for a study.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct RecallRecord {
    #[n(0)]
    pub(super) study: StudyRef,
    #[n(1)]
    pub(super) source: String,
    #[n(2)]
    pub(super) recall: Recall,
    /// The source is to be asked what it has, gap or not.
    #[n(3)]
    pub(super) owes_survey: bool,
    /// The last image that was here when the source answered such a question.
    #[n(4)]
    pub(super) surveyed_to: u64,
    #[n(5)]
    pub(super) survey_tries: u32,
    #[n(6)]
    pub(super) survey_at: Timestamp,
    #[n(7)]
    pub(super) given_up: bool,
    #[n(8)]
    pub(super) said: Vec<SourceSaid>,
    #[n(9)]
    pub(super) prior: Option<PriorOf>,
}

impl RecallRecord {
    pub(super) fn new(study: &StudyRef, source: &str) -> Self {
        Self {
            study: study.clone(),
            source: source.to_owned(),
            recall: Recall::default(),
            owes_survey: false,
            surveyed_to: 0,
            survey_tries: 0,
            survey_at: Timestamp::default(),
            given_up: false,
            said: Vec::new(),
            prior: None,
        }
    }

    pub(super) fn entry(&self) -> Entry {
        let mut terms = Vec::new();
        if self.owes_survey {
            terms.push(RECALL.to_vec());
        }
        if let Some(prior) = &self.prior {
            terms.push(order_of_prior(&prior.order));
            terms.push(PRIOR.to_vec());
        }
        entry(recall_key(&self.study), self, terms)
    }

    pub(super) fn tell(&mut self, at: Timestamp, what: Sentence) {
        // The same again and again is told once, with the last time.
        if self.said.last().is_some_and(|last| last.what == what) {
            self.said.pop();
        }
        self.said.push(SourceSaid { at, what });
        let over = self.said.len().saturating_sub(TOLD_MAX);
        self.said.drain(..over);
    }

    pub(super) fn asked(&self) -> Asked {
        let answer = self.recall.answer();
        let waits = self.recall.rounds() > 0 && !self.given_up;
        Asked {
            source: self.source.clone(),
            answer: answer.map(|(sentence, _)| sentence.clone()),
            answered_at: answer.map(|(_, at)| at),
            rounds: self.recall.rounds(),
            next_at: waits.then(|| self.recall.not_before()),
            given_up: self.given_up,
        }
    }
}

impl Asked {
    /// What a person is to do about a gap of which the source was asked.
    fn action(&self) -> Word {
        match self.answer.as_ref().map(|answer| answer.word) {
            _ if !self.given_up => Word::WaitForSource,
            Some(Word::SourceUnknownDestination) => Word::RegisterNode,
            None | Some(Word::SourceNotFound | Word::SourceUnavailable | Word::SourceSome) => {
                Word::SendAgain
            }
            Some(_) => Word::MendSource,
        }
    }

    /// Tells it with how the study stands.
    pub(super) fn tell(self, standing: &mut Standing) {
        if standing.headline == What::Short {
            standing.action = self.action();
        }
        standing.source = Some(self);
    }
}

impl RecallRecord {
    pub(super) fn rules(&self, source: &RecallSource) -> RecallRules {
        RecallRules { eager: self.prior.is_some(), ..source.rules.clone() }
    }

    /// What was asked for has come, from the source or from somebody else.
    pub(super) fn is_healed(&self, verdict: &Verdict) -> bool {
        self.recall.has_begun() && verdict.missing.is_empty() && verdict.unnamed == 0
    }

    /// The source could not be asked what it has.
    pub(super) fn survey_failed(&mut self, rules: &RecallRules, now: Timestamp) {
        let pause = rules.pause.saturating_mul(1 << self.survey_tries.min(20));
        self.survey_tries += 1;
        self.survey_at = now + pause.min(rules.pause_max);
        if self.survey_tries >= rules.rounds_max {
            self.owes_survey = false;
            self.given_up |= self.prior.is_some();
        }
    }
}

/// An answer in words.
pub(super) fn said_by(answer: &Answer, step: Option<&Step>) -> Option<Sentence> {
    let asked = match step {
        Some(Step::Retrieve { sops, .. }) => u32::try_from(sops.len()).unwrap_or(u32::MAX),
        _ => 0,
    };
    Some(match answer {
        Answer::Found(offers) => Sentence::new(Word::SourceFound, &[&offers.len()]),
        Answer::Done { failed: 0 } => Sentence::new(Word::SourceSent, &[&asked]),
        Answer::Done { failed } => Sentence::new(Word::SourceSome, &[failed]),
        Answer::Unreachable => Word::SourceUnreachable.into(),
        Answer::Refused => Word::SourceRefused.into(),
        Answer::Status(0xA801) => Word::SourceUnknownDestination.into(),
        Answer::Status(0xA702) => Word::SourceCannotSend.into(),
        Answer::Status(0xA700 | 0xA701) => Word::SourceTooMany.into(),
        Answer::Status(0xA900) => Word::SourceMismatch.into(),
        Answer::Status(status) => Sentence::new(Word::SourceFailed, &[&format!("0x{status:04X}")]),
    })
}

/// What the source said, as a study's story tells it.
pub(super) fn story(name: &str, said: &[SourceSaid]) -> Vec<super::Event> {
    let event = |said: &SourceSaid| super::Event {
        at: said.at,
        kind: "recall",
        what: said.what.text(Language::English),
        by: name.to_owned(),
    };
    said.iter().map(event).collect()
}
