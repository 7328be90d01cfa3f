//! What is to be looked at again, and when. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::record::LoopKey;
use crate::cargo::Sha256;
use crate::clock::Timestamp;

/// First and longest pause before something that waits is looked at again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause is longer where many reports wait: by so much for each of them, so that no more
/// than 33 are looked at in a second.
const PAUSE_EACH: Duration = Duration::from_millis(30);

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A document that is held.
    Document(Sha256),
    /// A report of which something is to be handed on, or whose critical result is open.
    Report(String),
    /// A loop in which something will be overdue.
    Loop(LoopKey),
}

/// At most one timer for each thing.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<What, Timestamp>,
    due: BTreeSet<(Timestamp, What)>,
    /// How often reports were looked at in vain since something happened.
    vain: BTreeMap<String, u32>,
}

impl Timers {
    /// When to look again; `None`: not by itself.
    pub(super) fn set(&mut self, what: What, at: Option<Timestamp>) {
        if let Some(old) = self.at.remove(&what) {
            self.due.remove(&(old, what.clone()));
        }
        if let Some(at) = at {
            self.due.insert((at, what.clone()));
            self.at.insert(what, at);
        }
    }

    /// Something has happened to a report: look at once, and often at first.
    pub(super) fn report_now(&mut self, id: &str, now: Timestamp) {
        self.vain.remove(id);
        self.set(What::Report(id.to_owned()), Some(now));
    }

    /// Nothing has happened to a report that waits for an answer: when to look again.
    pub(super) fn pause(&mut self, id: &str) -> Duration {
        let tries = self.vain.entry(id.to_owned()).or_default();
        *tries = tries.saturating_add(1);
        let (tries, many) = (*tries, u32::try_from(self.vain.len()).unwrap_or(u32::MAX));
        let longest = PAUSE_MAX.max(PAUSE_EACH.saturating_mul(many));
        PAUSE.saturating_mul(1 << (tries - 1).min(20)).min(longest)
    }

    /// A report waits for nothing any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.vain.remove(id);
        self.set(What::Report(id.to_owned()), None);
    }

    /// What to look at now, the earliest first, at most `max`. Their timers are over.
    pub(super) fn due(&mut self, now: Timestamp, max: usize) -> Vec<What> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now).take(max);
        let due: Vec<What> = due.map(|(_, what)| what.clone()).collect();
        due.iter().for_each(|what| self.set(what.clone(), None));
        due
    }

    /// Everything is to be looked at now, since other rules are in force, or the clock went back.
    pub(super) fn all_now(&mut self, now: Timestamp) {
        let all: Vec<What> = self.at.keys().cloned().collect();
        all.into_iter().for_each(|what| self.set(what, Some(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_one_timer_and_pauses_grow_until_something_happens() {
        let report = |n: &str| What::Report(n.into());
        let mut timers = Timers::default();
        for (n, at) in [("a", 7), ("b", 5), ("a", 3)] {
            timers.set(report(n), Some(Timestamp(at)));
        }
        assert_eq!(timers.due(Timestamp(4), 10), [report("a")]);
        assert_eq!(timers.due(Timestamp(9), 10), [report("b")]);
        assert_eq!(timers.due(Timestamp(9), 10), []);
        let pauses: Vec<u64> = (0..7).map(|_| timers.pause("a").as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        timers.report_now("a", Timestamp(9));
        assert_eq!(timers.pause("a"), PAUSE);
        for n in 0..10_000 {
            timers.pause(&n.to_string());
        }
        let longest = (0..20).map(|_| timers.pause("a")).max();
        assert_eq!(longest, Some(PAUSE_EACH * 10_001), "many that wait are looked at less often");
        timers.forget("a");
        assert_eq!(timers.due(Timestamp(99), 10), []);
    }
}
