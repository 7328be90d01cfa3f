//! What a study and an order are judged by: the times of `[orders]`, and what the routes of their
//! images say instead.
//!
//! A study remembers the longest of each that the routes of its images have said as they came; one
//! of which no image has come is judged like its order, and an order by the routes that match what
//! is like it now.

use std::collections::VecDeque;
use std::time::Duration;

use minicbor::{Decode, Encode};

use super::record::{CaseId, Dossier};
use super::{DUE_MAX, Registrar};
use crate::cargo::Envelope;
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::dicom::header::{Header, tag_of};
use crate::orders::judge::Rules;
use crate::orders::order::Order;
use crate::routing::Times;

/// [`Times`] as they are kept, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct KeptTimes {
    #[n(0)]
    settle: Option<u64>,
    #[n(1)]
    quiet: Option<u64>,
    #[n(2)]
    overdue: Option<u64>,
    #[n(3)]
    expected: Option<bool>,
}

impl From<KeptTimes> for Times {
    fn from(kept: KeptTimes) -> Self {
        let time = |ms: Option<u64>| ms.map(Duration::from_millis);
        Self {
            settle: time(kept.settle),
            quiet: time(kept.quiet),
            overdue: time(kept.overdue),
            expected: kept.expected,
        }
    }
}

impl From<Times> for KeptTimes {
    fn from(times: Times) -> Self {
        let ms = |time: Option<Duration>| {
            time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        Self {
            settle: ms(times.settle),
            quiet: ms(times.quiet),
            overdue: ms(times.overdue),
            expected: times.expected,
        }
    }
}

/// The rules with what routes say instead.
fn with(rules: &Rules, times: Times) -> Rules {
    let mut rules = rules.clone();
    rules.settle = times.settle.unwrap_or(rules.settle);
    // One route may say the one, another the other: nothing is presumed before gaps are told.
    rules.quiet = times.quiet.unwrap_or(rules.quiet).max(rules.settle);
    rules.overdue = times.overdue.unwrap_or(rules.overdue);
    rules.orders_expected = times.expected.unwrap_or(rules.orders_expected);
    rules
}

impl Dossier {
    /// Remembers what the routes of another image say.
    pub(super) fn take_times(&mut self, times: Times) {
        self.times = Times::from(self.times).longest(times).into();
    }
}

impl Registrar {
    /// What the routes of an image say.
    pub(super) fn times_of_image(&self, envelope: &Envelope, header: Option<&Header>) -> Times {
        if envelope.identity.origin != self.config.node {
            return Times::default();
        }
        let attribute = |keyword: &str| {
            let tag = tag_of(keyword)?;
            header?.attribute(tag).map(str::to_owned)
        };
        self.ways.times(envelope, &attribute)
    }

    /// What a study is judged by: only its own site is expected to have told us of an order.
    pub(super) fn rules_for(&self, dossier: &Dossier, order: Option<&Order>) -> Rules {
        let times = match (dossier.instances, order) {
            (0, Some(order)) => self.times_of_order(order),
            _ => dossier.times.into(),
        };
        let mut rules = with(&self.config.rules, times);
        rules.orders_expected &= dossier.facts.origin == self.config.node;
        // Nobody orders what was fetched as a prior.
        if dossier.prior_of.is_some() {
            (rules.orders_expected, rules.hold_until_matched) = (false, false);
        }
        rules
    }

    /// What an order without a study is judged by.
    pub(super) fn rules_for_order(&self, order: &Order) -> Rules {
        with(&self.config.rules, self.times_of_order(order))
    }

    fn times_of_order(&self, order: &Order) -> Times {
        if order.key.origin != self.config.node {
            return Times::default();
        }
        let asked = super::travel::like_order(order, &self.config.node);
        self.ways.times(&asked, &|keyword| super::travel::attribute_of(order, &asked, keyword))
    }

    /// Other times and choices may be in force, those of `routes` too: then what is open is judged anew,
    /// some cases in each turn.
    pub(super) fn take_rules(&mut self, rules: Rules, routes: bool) {
        if self.config.rules == rules && !routes {
            return;
        }
        self.config.rules = rules;
        self.anew = Anew { waiting: self.roll.cases().collect(), judged: 0 };
    }

    /// Judges some of the cases that other rules are in force for; true when there are more.
    pub(super) async fn judge_anew(&mut self, now: Timestamp) -> Result<bool, Stopped> {
        while self.anew.judged < DUE_MAX && !self.store.is_full() {
            let Some(case) = self.anew.waiting.get(self.anew.judged).cloned() else { break };
            self.judge(&case, now).await?;
            self.anew.judged += 1;
        }
        Ok(self.anew.judged < self.anew.waiting.len())
    }
}

/// Cases that are to be judged anew.
#[derive(Debug, Default)]
pub(super) struct Anew {
    waiting: VecDeque<CaseId>,
    /// How many of the first were judged in this turn, which is not durable yet.
    judged: usize,
}

impl Anew {
    /// The turn is durable, or nothing of it is.
    pub(super) fn end(&mut self, durable: bool) {
        let judged = std::mem::take(&mut self.judged);
        if durable {
            self.waiting.drain(..judged.min(self.waiting.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_case_is_judged_anew_until_what_came_of_it_is_durable() {
        let case = |n: u32| {
            let (origin, number) = ("h".parse().unwrap(), n.to_string());
            CaseId::Order(crate::orders::order::OrderKey { origin, number })
        };
        let mut anew = Anew { waiting: (0..3).map(case).collect(), judged: 2 };
        anew.end(false);
        assert_eq!((anew.waiting.len(), anew.judged), (3, 0));
        anew.judged = 2;
        anew.end(true);
        assert_eq!((anew.waiting.front(), anew.judged), (Some(&case(2)), 0));
    }

    #[test]
    fn the_longest_of_what_the_routes_say_counts_and_the_rest_is_as_for_all() {
        let said = |settle: Option<Duration>, quiet: Option<Duration>, expected| Times {
            settle,
            quiet,
            expected,
            overdue: None,
        };
        let slow = said(None, Some(30 * MINUTE), Some(false));
        let both = slow.longest(said(Some(2 * MINUTE), Some(5 * MINUTE), None));
        let rules = with(&Rules::default(), both);
        assert_eq!((rules.settle, rules.quiet), (2 * MINUTE, 30 * MINUTE));
        assert_eq!((rules.overdue, rules.orders_expected), (60 * MINUTE, false));
        assert!(
            with(&Rules::default(), both.longest(said(None, None, Some(true)))).orders_expected
        );
        // Never presumed complete before a gap would be told.
        let odd = said(Some(9 * MINUTE), Some(MINUTE), None);
        assert_eq!(with(&Rules::default(), odd).quiet, 9 * MINUTE);
    }

    #[test]
    fn times_come_back_from_the_book_as_they_were() {
        let times = Times { quiet: Some(MINUTE), expected: Some(true), ..Times::default() };
        let bytes = minicbor::to_vec(KeptTimes::from(times)).unwrap();
        assert_eq!(Times::from(minicbor::decode::<KeptTimes>(&bytes).unwrap()), times);
    }
}
