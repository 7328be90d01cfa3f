//! Notices about reports, by the rules of `[[orders.notice]]`: letters in the book of orders, which
//! the notifier brings to their receivers.
//!
//! A letter is entered before the memory that it was told: after a crash in between the same letter
//! is entered again, under the same id. No letter says anything of a patient or of what a report
//! says.

use super::Secretary;
use super::Why;
use super::record::{DocumentRecord, LoopRecord, ReportRecord};
use crate::cargo::{NodeName, Sha256};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::register::{Book, Change, EnterError};
use crate::orders::letter::{Letter, Subject};
use crate::orders::verdict::What;
use crate::orders::words::{Sentence, Word};

impl Secretary {
    /// Tells one rule about a report.
    pub(super) fn tell_rule(
        &mut self,
        rule: &str,
        (what, detail): (What, Sentence),
        record: &ReportRecord,
        seed: &[u8],
        at: Timestamp,
    ) {
        let about = (subject_of(record), detail);
        self.outgoing.push(Letter::of_report(rule, what, about, seed, at));
    }

    /// Tells every rule that is about this.
    pub(super) fn tell_rules(
        &mut self,
        told: (What, Sentence),
        record: &ReportRecord,
        seed: &[u8],
        at: Timestamp,
    ) {
        self.tell_all(told, subject_of(record), seed, at);
    }

    /// The same of a study.
    pub(super) fn tell_rules_of(
        &mut self,
        told: (What, Sentence),
        (origin, study, order): (NodeName, String, Option<String>),
        seed: &[u8],
        at: Timestamp,
    ) {
        let study = Some(study).filter(|study| !study.is_empty());
        self.tell_all(told, Subject { origin, study, order }, seed, at);
    }

    fn tell_all(
        &mut self,
        (what, detail): (What, Sentence),
        subject: Subject,
        seed: &[u8],
        at: Timestamp,
    ) {
        let about = self.config.notices.iter().filter(|rule| rule.rules.about.contains(&what));
        let letters: Vec<Letter> = about
            .map(|rule| {
                Letter::of_report(&rule.name, what, (subject.clone(), detail.clone()), seed, at)
            })
            .collect();
        self.outgoing.extend(letters);
    }

    /// A document waits for a person.
    pub(super) fn tell_held(&mut self, doc: &DocumentRecord, now: Timestamp) {
        let target = doc.slip.as_ref().and_then(|slip| slip.targets.first());
        let origin = target.map_or_else(|| self.config.node.clone(), |t| t.origin.clone());
        let said = doc.said.as_ref().and_then(|said| said.ids.studies.first().cloned());
        let study = target.map(|t| t.study.clone()).or(said).filter(|s| !s.is_empty());
        let order = target.and_then(|t| t.order.as_ref()).map(|o| o.number.clone());
        let seed = format!("held {} {}", doc.id(), doc.tries);
        let why = match &doc.place {
            super::record::Place::Held(Why::Match(_) | Why::Unknown(_)) => Word::HeldForMatch,
            super::record::Place::Held(Why::Signer(_)) => Word::HeldForSigner,
            _ => Word::HeldOtherwise,
        };
        let told = (What::ReportHeld, Sentence::new(why, &[]));
        self.tell_all(told, Subject { origin, study, order }, seed.as_bytes(), now);
    }

    /// The reading node has a study whole.
    pub(super) fn tell_received(
        &mut self,
        record: &LoopRecord,
        (at, images): (Timestamp, u64),
        now: Timestamp,
    ) {
        let order = Some(record.order.clone()).filter(|o| !o.is_empty());
        let of = (record.hospital.clone(), record.study.clone(), order);
        let seed = format!("received {} {}", record.hospital, record.study);
        let told = (What::StudyReceived, Sentence::new(Word::ReceivedWhole, &[&at, &images]));
        self.tell_rules_of(told, of, seed.as_bytes(), now);
    }

    /// A system does not say yes.
    pub(super) fn tell_unanswered(&mut self, record: &ReportRecord, part: &Sha256, now: Timestamp) {
        let Some(sending) = record.sendings.iter().find(|s| s.part == *part) else { return };
        let seed = format!("unanswered {} {part}", record.id);
        let detail = Sentence::new(Word::NoYesFrom, &[&sending.destination, &sending.at]);
        self.tell_rules((What::ReportUnacknowledged, detail), record, seed.as_bytes(), now);
    }

    /// Enters letters, before what tells that they were written is durable.
    pub(super) async fn post(&mut self) -> Result<Result<(), EnterError>, Stopped> {
        let letters = std::mem::take(&mut self.outgoing);
        if letters.is_empty() {
            return Ok(Ok(()));
        }
        let changes = letters.iter().map(|letter| Change::Put(letter.entry())).collect();
        match self.custody.enter(Book::Orders, changes).await {
            Ok(()) => self.letters.notify_one(),
            Err(EnterError::Stopped) => return Err(Stopped),
            Err(error) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }
}

fn subject_of(record: &ReportRecord) -> Subject {
    let target = record.targets.first();
    let study = target.map(|t| t.study.clone()).filter(|study| !study.is_empty());
    let order = target.and_then(|t| t.order.as_ref()).map(|order| order.number.clone());
    Subject { origin: record.hospital.clone(), study, order }
}
