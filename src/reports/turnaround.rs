//! How long each step of the loop took, and what is overdue: for each order or study, when its
//! images were sent, received, read, and its report delivered and acknowledged.
//!
//! Of each moment the first one counts, whichever is heard first: taking them in is commutative and
//! idempotent.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::cargo::Urgency;
use crate::clock::Timestamp;

/// A moment of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Moment {
    /// The hospital has taken the first image.
    #[n(0)]
    Sent,
    /// The reading node has the study complete.
    #[n(1)]
    Received,
    /// A preliminary report has come in.
    #[n(2)]
    Preliminary,
    /// A final report has come in.
    #[n(3)]
    Final,
    /// It has reached the hospital's systems.
    #[n(4)]
    Delivered,
    /// They, or for a critical result a person, have said so.
    #[n(5)]
    Acknowledged,
}

impl Moment {
    /// All of them, in the order of the loop.
    pub const ALL: [Self; 6] = [
        Self::Sent,
        Self::Received,
        Self::Preliminary,
        Self::Final,
        Self::Delivered,
        Self::Acknowledged,
    ];
}

impl Moment {
    /// The word that documents and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Preliminary => "preliminary",
            Self::Final => "final",
            Self::Delivered => "delivered",
            Self::Acknowledged => "acknowledged",
        }
    }
}

/// By when a route promises what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promises {
    /// From sent to the receipt notice; none: 48 h.
    pub receipt: Option<Duration>,
    /// From received (or sent, where that is not known) to the final report, by urgency; an absent
    /// one promises nothing.
    pub report: BTreeMap<Urgency, Duration>,
    /// From the final report to its acknowledgement.
    pub acknowledgement: Option<Duration>,
    /// From the final report to the question what became of the patient; none: it is not asked.
    pub follow_up: Option<Duration>,
}

/// Longest time until a receipt notice where nothing else is configured.
pub const RECEIPT: Duration = Duration::from_secs(48 * 3600);

/// Something that is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Owed {
    /// That the reading node says that it has the study.
    #[n(0)]
    Receipt,
    /// A final report.
    #[n(1)]
    Report,
    /// That the hospital's systems say that they have it.
    #[n(2)]
    Acknowledgement,
    /// That somebody asks what became of it, long after the final report.
    #[n(3)]
    FollowUp,
}

impl Owed {
    /// The word that documents and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Report => "report",
            Self::Acknowledgement => "acknowledgement",
            Self::FollowUp => "follow-up",
        }
    }
}

/// The loop of one order or study, durable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Loop {
    /// When each moment was.
    #[n(0)]
    moments: BTreeMap<Moment, Timestamp>,
    /// How soon the report is wanted; a higher urgency counts.
    #[n(1)]
    urgency: Urgency,
    /// Whether nobody waits any more: cancelled, or dismissed by a person.
    #[n(2)]
    ended: bool,
}

impl Loop {
    /// Nothing has happened yet.
    pub fn new(urgency: Urgency) -> Self {
        Self { moments: BTreeMap::new(), urgency, ended: false }
    }

    /// A moment was; true when that is news.
    pub fn see(&mut self, moment: Moment, at: Timestamp) -> bool {
        let known = self.moments.get(&moment).copied();
        if known.is_some_and(|known| known <= at) {
            return false;
        }
        self.moments.insert(moment, at);
        true
    }

    /// It is wanted sooner; true when that is news.
    pub fn hasten(&mut self, urgency: Urgency) -> bool {
        let sooner = urgency < self.urgency;
        self.urgency = self.urgency.min(urgency);
        sooner
    }

    /// Nobody waits any more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether that was said.
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// When a moment was.
    pub fn at(&self, moment: Moment) -> Option<Timestamp> {
        self.moments.get(&moment).copied()
    }

    /// How soon it is wanted.
    pub fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// Seconds from one moment to another, for a histogram; `None` until both were. Clocks of two
    /// nodes may disagree: never below zero.
    pub fn seconds(&self, from: Moment, to: Moment) -> Option<u64> {
        Some(self.at(to)?.seconds_since(self.at(from)?))
    }

    /// What is owed, by when, the most pressing first.
    pub fn owed(&self, promises: &Promises) -> Vec<(Timestamp, Owed)> {
        if self.ended {
            return vec![];
        }
        let is = |moment| self.moments.contains_key(&moment);
        let after = |moment, by: Option<Duration>| Some(self.at(moment)? + by?);
        let mut owed = Vec::new();
        // Whoever has read it has received it.
        if !is(Moment::Received) && !is(Moment::Preliminary) && !is(Moment::Final) {
            let by = promises.receipt.unwrap_or(RECEIPT);
            owed.extend(after(Moment::Sent, Some(by)).map(|due| (due, Owed::Receipt)));
        }
        if !is(Moment::Final) {
            let by = promises.report.get(&self.urgency).copied();
            let due = after(Moment::Received, by).or_else(|| after(Moment::Sent, by));
            owed.extend(due.map(|due| (due, Owed::Report)));
        }
        if !is(Moment::Acknowledged) {
            let due = after(Moment::Final, promises.acknowledgement);
            owed.extend(due.map(|due| (due, Owed::Acknowledgement)));
        }
        let due = after(Moment::Final, promises.follow_up);
        owed.extend(due.map(|due| (due, Owed::FollowUp)));
        owed.sort_unstable();
        owed
    }

    /// What is overdue, and since when.
    pub fn overdue(&self, promises: &Promises, now: Timestamp) -> Vec<(Timestamp, Owed)> {
        let mut owed = self.owed(promises);
        owed.retain(|(due, _)| *due <= now);
        owed
    }

    /// When to look again: the next time at which something becomes overdue.
    pub fn next(&self, promises: &Promises, now: Timestamp) -> Option<Timestamp> {
        self.owed(promises).into_iter().map(|(due, _)| due).find(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn promises() -> Promises {
        let hour = Duration::from_secs(3600);
        Promises {
            receipt: None,
            report: [(Urgency::Stat, hour), (Urgency::Routine, hour * 72)].into(),
            acknowledgement: Some(hour),
            follow_up: None,
        }
    }

    #[test]
    fn a_follow_up_is_due_half_a_year_after_the_final_report_until_a_person_ends_it() {
        let days = |n: i64| Timestamp(n * 24 * HOUR);
        let half_a_year = Some(Duration::from_secs(182 * 24 * 3600));
        let promises = Promises { follow_up: half_a_year, ..promises() };
        let mut l = Loop::new(Urgency::Routine);
        for (moment, day) in [
            (Moment::Sent, 0),
            (Moment::Received, 0),
            (Moment::Final, 1),
            (Moment::Acknowledged, 1),
        ] {
            l.see(moment, days(day));
        }
        assert_eq!(l.owed(&promises), [(days(183), Owed::FollowUp)]);
        assert_eq!(l.next(&promises, days(2)), Some(days(183)));
        assert_eq!(l.overdue(&promises, days(182)), []);
        assert_eq!(l.overdue(&promises, days(183)), [(days(183), Owed::FollowUp)]);
        // A correction changes nothing, and who has no such rule owes nothing.
        l.see(Moment::Final, days(100));
        assert_eq!(l.owed(&promises), [(days(183), Owed::FollowUp)]);
        assert_eq!(l.owed(&self::promises()), []);
        l.end();
        assert_eq!(l.owed(&promises), []);
    }

    #[test]
    fn a_missing_receipt_is_overdue_after_two_days_and_the_report_after_its_class() {
        let mut l = Loop::new(Urgency::Routine);
        l.see(Moment::Sent, Timestamp(0));
        assert_eq!(l.overdue(&promises(), Timestamp(47 * HOUR)), []);
        assert_eq!(l.next(&promises(), Timestamp(0)), Some(Timestamp(48 * HOUR)));
        let overdue = l.overdue(&promises(), Timestamp(48 * HOUR));
        assert_eq!(overdue, [(Timestamp(48 * HOUR), Owed::Receipt)]);
        l.see(Moment::Received, Timestamp(50 * HOUR));
        assert_eq!(l.owed(&promises()), [(Timestamp(122 * HOUR), Owed::Report)]);
        assert!(l.hasten(Urgency::Stat) && !l.hasten(Urgency::Bulk));
        assert_eq!(l.owed(&promises()), [(Timestamp(51 * HOUR), Owed::Report)]);
        l.see(Moment::Final, Timestamp(52 * HOUR));
        assert_eq!(l.owed(&promises()), [(Timestamp(53 * HOUR), Owed::Acknowledgement)]);
        assert_eq!(l.seconds(Moment::Sent, Moment::Final), Some(52 * 3600));
        l.see(Moment::Acknowledged, Timestamp(60 * HOUR));
        assert_eq!(l.owed(&promises()), []);
    }

    #[test]
    fn nothing_is_owed_where_nothing_is_promised_or_nobody_waits() {
        let mut l = Loop::new(Urgency::Bulk);
        l.see(Moment::Received, Timestamp(0));
        assert_eq!(l.owed(&promises()), []);
        let mut l = Loop::new(Urgency::Stat);
        l.see(Moment::Received, Timestamp(0));
        l.end();
        assert_eq!(l.owed(&promises()), []);
    }

    proptest! {
        #[test]
        fn moments_are_the_first_of_their_kind_in_whatever_order_they_are_heard(
            seen in proptest::collection::vec((0..6_usize, 0..100_i64), 0..20),
        ) {
            let (mut a, mut b) = (Loop::new(Urgency::Stat), Loop::new(Urgency::Stat));
            for (moment, at) in &seen {
                a.see(Moment::ALL[*moment], Timestamp(*at));
            }
            for (moment, at) in seen.iter().rev().chain(&seen) {
                b.see(Moment::ALL[*moment], Timestamp(*at));
            }
            prop_assert_eq!(&a, &b);
            let bytes = minicbor::to_vec(&a).unwrap();
            prop_assert_eq!(minicbor::decode::<Loop>(&bytes).unwrap(), a);
        }
    }
}
