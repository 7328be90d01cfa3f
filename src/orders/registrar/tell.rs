//! Notices: after each verdict, whom to tell what, and when to look again.
//!
//! What was told stands in the entry of its study or order, and the letter that tells it in the
//! same change. A case in which something is known and not told yet has a timer here, beside those
//! of its verdict; a case without one costs nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Registrar;
use super::record::{CaseId, Dossier, OrderRecord, Standing, StudyRef};
use crate::clock::Timestamp;
use crate::custody::overlay::Overlay;
use crate::orders::evidence::Grade;
use crate::orders::letter::{Letter, Subject};
use crate::orders::notice::{Rule, Step, Told};
use crate::orders::verdict::{Verdict, What};
use crate::orders::words::Word;

/// Cases that are to be told of later.
#[derive(Debug, Default)]
pub(super) struct Tells {
    at: BTreeMap<CaseId, Timestamp>,
    due: BTreeSet<(Timestamp, CaseId)>,
    /// Letters were made that the notifier does not know of.
    made: bool,
}

impl Tells {
    /// Whether letters were made since this was asked last.
    pub(super) fn take_made(&mut self) -> bool {
        std::mem::take(&mut self.made)
    }

    /// A case is no more.
    pub(super) fn forget(&mut self, case: &CaseId) {
        self.set(case.clone(), None);
    }

    /// When to look at a case again; `None`: not by itself.
    fn set(&mut self, case: CaseId, at: Option<Timestamp>) {
        if let Some(old) = self.at.remove(&case) {
            self.due.remove(&(old, case.clone()));
        }
        if let Some(at) = at {
            self.due.insert((at, case.clone()));
            self.at.insert(case, at);
        }
    }

    /// Cases to look at now, the earliest first, at most `max`.
    pub(super) fn due(&self, now: Timestamp, max: usize) -> Vec<CaseId> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.take(max).map(|(_, case)| case.clone()).collect()
    }
}

/// One case as all rules see it.
struct Telling<'a> {
    rules: &'a [Rule],
    verdict: &'a Verdict,
    subject: Subject,
    prior: bool,
    now: Timestamp,
}

impl Telling<'_> {
    /// Sees and tells by every rule that has somebody to tell; when to look again.
    fn tell(
        &self,
        told: &mut BTreeMap<String, Told>,
        station: impl Fn(&Rule) -> Option<String>,
        step: impl Fn(&mut Told, &Rule, &str) -> Step,
        (store, made): (&mut Overlay, &mut bool),
    ) -> Option<Timestamp> {
        told.retain(|name, _| self.rules.iter().any(|rule| rule.name == *name));
        let mut again = None;
        for rule in self.rules {
            let Some(to) = station(rule) else { continue };
            let mut known = told.remove(&rule.name).unwrap_or_default();
            match step(&mut known, rule, &to) {
                Step::Nothing => {}
                Step::Wait { until } => again = again.into_iter().chain([until]).min(),
                Step::Send(notice) => {
                    known.sent(&notice);
                    let letter = Letter::new(&rule.name, self.subject.clone(), notice, self.now);
                    store.put(letter.entry());
                    *made = true;
                }
            }
            if !known.is_empty() {
                told.insert(rule.name.clone(), known);
            }
        }
        again
    }

    fn see(&self, told: &mut Told, rule: &Rule, to: &str) -> Step {
        let rules = match self.prior {
            true => &rule.rules.of_prior(),
            false => &rule.rules,
        };
        told.see(self.verdict, rules, self.now);
        told.next(self.verdict, to, rules, self.now)
    }
}

impl Registrar {
    /// After a verdict on a study: tells, or sets the timer.
    pub(super) fn tell_study(&mut self, id: &StudyRef, verdict: &Verdict, now: Timestamp) {
        if self.config.notices.is_empty() {
            return;
        }
        let Some(study) = self.cases.open.get_mut(id) else { return };
        let dossier = &study.dossier;
        let subject = Subject {
            origin: id.origin.clone(),
            study: Some(id.study.clone()),
            order: dossier.matched.order().map(|order| order.number.clone()),
        };
        let (rules, prior) = (&self.config.notices, dossier.is_only_prior());
        let telling = Telling { rules, verdict, subject, prior, now };
        let mut told = dossier.notices.clone();
        // A study of which nothing has come yet is known by who spoke of it.
        let spoke = study.tally.spoken().map(|s| &s.statement);
        let spoke = spoke.filter(|s| matches!(s.grade(), Some(Grade::Commitment | Grade::Mpps)));
        let stations = dossier.senders.iter().chain(spoke.map(|s| &s.source));
        let stations: Vec<String> = stations.cloned().collect();
        let station = |rule: &Rule| rule.station(&stations, &dossier.modality);
        let see = |told: &mut Told, rule: &Rule, to: &str| telling.see(told, rule, to);
        let letters = (&mut self.store, &mut self.tells.made);
        let again = telling.tell(&mut told, station, see, letters);
        if study.dossier.notices != told {
            study.dossier.notices = told;
            self.changed(id);
        }
        self.tells.set(CaseId::Study(id.clone()), again);
    }

    /// After a verdict on an order, before its entry is written: tells, or sets the timer. One that
    /// has a study is told of with that; what was told of the order alone is settled.
    pub(super) fn tell_order(
        &mut self,
        record: &mut OrderRecord,
        verdict: &Verdict,
        now: Timestamp,
    ) {
        let key = record.key().clone();
        if self.config.notices.is_empty() || key.origin != self.config.node {
            return;
        }
        let order = record.history.order();
        let subject =
            Subject { origin: key.origin.clone(), study: None, order: Some(key.number.clone()) };
        let (rules, prior) = (&self.config.notices, false);
        let telling = Telling { rules, verdict, subject, prior, now };
        let modality = order.content.any_modality().to_owned();
        let source = order.source;
        let station = |rule: &Rule| rule.tells_orders(&modality).then(|| source.clone());
        let came = record.studies > 0;
        let see = |told: &mut Told, rule: &Rule, to: &str| match came {
            true => told.settle(verdict, to, Word::ImagesCame, now),
            false => telling.see(told, rule, to),
        };
        let letters = (&mut self.store, &mut self.tells.made);
        let again = telling.tell(&mut record.notices, station, see, letters);
        if came {
            record.notices.clear();
        }
        self.tells.set(CaseId::Order(key), again);
    }

    /// When to look first at a case that a start has read.
    pub(super) fn tell_later(&mut self, case: CaseId, told: &BTreeMap<String, Told>, s: &Standing) {
        let due = |rule: &Rule| {
            let known = told.get(&rule.name);
            let new = |what: &What| known.is_none_or(|told| !told.knows(*what));
            let news = s.attention.iter().any(|what| rule.rules.about.contains(what) && new(what));
            let untold = known.and_then(Told::untold).map(|since| since + rule.rules.within / 2);
            if news { Some(Timestamp::default()) } else { untold }
        };
        let at = self.config.notices.iter().filter_map(due).min();
        self.tells.set(case, at);
    }

    /// The same for all of these.
    pub(super) fn load_tells(&mut self, orders: &[OrderRecord], studies: &[Dossier]) {
        self.tells = Tells::default();
        let own = self.config.node.clone();
        for order in orders.iter().filter(|o| o.key().origin == own) {
            if let Some(standing) = order.own_standing() {
                self.tell_later(CaseId::Order(order.key().clone()), &order.notices, standing);
            }
        }
        for study in studies {
            if let Some(standing) = &study.standing {
                self.tell_later(CaseId::Study(study.study()), &study.notices, standing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::order::OrderKey;

    #[test]
    fn a_case_has_one_timer_and_those_that_are_due_come_in_their_order() {
        let case = |n: u32| {
            CaseId::Order(OrderKey { origin: "a".parse().unwrap(), number: n.to_string() })
        };
        let mut tells = Tells::default();
        (1..=3).for_each(|n| tells.set(case(n), Some(Timestamp(i64::from(10 - n)))));
        tells.set(case(3), Some(Timestamp(20)));
        assert_eq!(tells.due(Timestamp(9), 10), [case(2), case(1)]);
        assert_eq!(tells.due(Timestamp(30), 1), [case(2)]);
        tells.set(case(2), None);
        assert_eq!(tells.due(Timestamp(30), 10), [case(1), case(3)]);
    }
}
