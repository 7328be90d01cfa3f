//! What a destination's application has said to a version of a report: yes (AA), not now (AE), or
//! never like this (AR).
//!
//! | state | event | next |
//! |---|---|---|
//! | `Due` | sent | `Sent`, waiting for the answer |
//! | `Sent` | AA, CA alone where nothing more is asked | `Accepted` |
//! | `Sent` | AE | `Due` again, later each time, with the reason |
//! | `Sent` | AR, or AE too often | `Refused`: a person must look |
//! | `Sent` | no answer in time, or the line broke | `Due` again |
//! | `Refused` | a person says again | `Due` at once |
//!
//! A receiver that is down costs nothing but time: only answers are counted, not failed dials. A
//! version that is not accepted in time raises an alarm once, whatever the reason.

use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::clock::Timestamp;

/// Longest reason that is kept, in bytes.
const REASON_MAX: usize = 256;

/// What a receiver's answer means here: MSA-1 and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// AA, or CA where no application acknowledgement comes.
    Accepted,
    /// CA: kept, and an application acknowledgement will follow.
    Received,
    /// AE, CE: what it says of it.
    Error(String),
    /// AR, CR.
    Rejected(String),
    /// None came in time.
    Silence,
}

/// How often and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckRules {
    /// Wait after the first AE; doubled each time.
    pub retry: Duration,
    /// Longest wait between two tries.
    pub retry_max: Duration,
    /// How many AE make a refusal.
    pub errors_max: u32,
    /// How long an accepted message may go without its application acknowledgement (after CA).
    pub application: Duration,
    /// After which time without a yes people are told.
    pub alarm: Duration,
}

impl Default for AckRules {
    /// 30 s to 1 h, 20 errors, 10 min for the application, alarm after 1 h.
    fn default() -> Self {
        Self {
            retry: Duration::from_secs(30),
            retry_max: Duration::from_secs(3600),
            errors_max: 20,
            application: Duration::from_secs(600),
            alarm: Duration::from_secs(3600),
        }
    }
}

/// Where a version stands with one destination.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// To be sent when due.
    #[n(0)]
    #[cbor(map)]
    Due {
        /// When.
        #[n(0)]
        at: Timestamp,
    },
    /// Sent; its answer is awaited until then.
    #[n(1)]
    #[cbor(map)]
    Sent {
        /// Until when.
        #[n(0)]
        until: Timestamp,
    },
    /// The application has said yes.
    #[n(2)]
    #[cbor(map)]
    Accepted {
        /// When.
        #[n(0)]
        at: Timestamp,
    },
    /// It has said no for good.
    #[n(3)]
    #[cbor(map)]
    Refused {
        /// When.
        #[n(0)]
        at: Timestamp,
    },
}

/// One version at one destination, durable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Handover {
    /// Where it stands.
    #[n(0)]
    pub state: State,
    /// When it was first to be sent.
    #[n(1)]
    pub since: Timestamp,
    /// AE in a row.
    #[n(2)]
    pub errors: u32,
    /// What the receiver said last, bounded; never shown at default level, it may quote.
    #[n(3)]
    pub reason: String,
    /// Whether people were told that no yes came.
    #[n(4)]
    pub alarmed: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is accepted, or a person must act.
    Nothing,
    /// Look again then.
    Wait(Timestamp),
    /// Send it, and call [`Handover::sent`].
    Send,
    /// Tell people that no yes came, and call [`Handover::alarm`].
    Alarm,
}

impl Handover {
    /// To be sent at once.
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: State::Due { at: now },
            since: now,
            errors: 0,
            reason: String::new(),
            alarmed: false,
        }
    }

    /// What to do now. The alarm does not wait for the next try, and the next try not for the
    /// alarm: it comes first, once.
    pub fn step(&self, rules: &AckRules, now: Timestamp) -> Step {
        let alarm = (!self.alarmed).then(|| self.since + rules.alarm);
        let next = match self.state {
            State::Accepted { .. } => return Step::Nothing,
            State::Refused { .. } => None,
            State::Due { at } | State::Sent { until: at } => Some(at),
        };
        if alarm.is_some_and(|alarm| alarm <= now)
            || matches!(self.state, State::Refused { .. }) && !self.alarmed
        {
            return Step::Alarm;
        }
        match (next, alarm) {
            (None, _) => Step::Nothing,
            (Some(at), _) if at <= now => Step::Send,
            (Some(at), Some(alarm)) => Step::Wait(at.min(alarm)),
            (Some(at), None) => Step::Wait(at),
        }
    }

    /// It is on its way; an answer that has not come by `until` will not.
    pub fn sent(&mut self, until: Timestamp) {
        if matches!(self.state, State::Due { .. } | State::Sent { .. }) {
            self.state = State::Sent { until };
        }
    }

    /// The line broke, or the receiver is down: again at `at`, which the sender's back-off says.
    pub fn failed(&mut self, at: Timestamp) {
        if matches!(self.state, State::Due { .. } | State::Sent { .. }) {
            self.state = State::Due { at };
        }
    }

    /// The receiver has answered. A yes counts whenever it comes; nothing else changes a yes.
    pub fn answered(&mut self, answer: &Answer, rules: &AckRules, now: Timestamp) {
        if matches!(self.state, State::Accepted { .. }) {
            return;
        }
        match answer {
            Answer::Accepted => self.state = State::Accepted { at: now },
            _ if matches!(self.state, State::Refused { .. }) => {}
            Answer::Received => self.state = State::Sent { until: now + rules.application },
            Answer::Silence => self.state = State::Due { at: now + rules.retry },
            Answer::Error(words) => {
                self.errors = self.errors.saturating_add(1);
                self.reason = bounded(words);
                self.state = if self.errors >= rules.errors_max {
                    State::Refused { at: now }
                } else {
                    State::Due { at: now + self.pause(rules) }
                };
            }
            Answer::Rejected(words) => {
                self.reason = bounded(words);
                self.state = State::Refused { at: now };
            }
        }
    }

    fn pause(&self, rules: &AckRules) -> Duration {
        let doublings = self.errors.saturating_sub(1).min(20);
        rules.retry.saturating_mul(1 << doublings).min(rules.retry_max)
    }

    /// People were told.
    pub fn alarm(&mut self) {
        self.alarmed = true;
    }

    /// A person says: again.
    pub fn retry(&mut self, now: Timestamp) {
        if !matches!(self.state, State::Accepted { .. }) {
            *self = Self { reason: std::mem::take(&mut self.reason), ..Self::new(now) };
        }
    }
}

fn bounded(words: &str) -> String {
    let plain: String = words.chars().filter(|c| !c.is_control()).collect();
    let mut end = plain.len().min(REASON_MAX);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    plain[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    #[test]
    fn an_error_is_tried_again_later_each_time_and_a_reject_goes_to_a_person() {
        let rules = AckRules::default();
        let mut h = Handover::new(at(0));
        assert_eq!(h.step(&rules, at(0)), Step::Send);
        h.sent(at(60));
        assert_eq!(h.step(&rules, at(1)), Step::Wait(at(60)));
        h.answered(&Answer::Error("database down".into()), &rules, at(2));
        assert_eq!((h.step(&rules, at(2)), &*h.reason), (Step::Wait(at(32)), "database down"));
        h.answered(&Answer::Error("still".into()), &rules, at(32));
        assert_eq!(h.step(&rules, at(33)), Step::Wait(at(92)));
        h.answered(&Answer::Rejected("unknown patient".into()), &rules, at(92));
        assert_eq!(h.step(&rules, at(93)), Step::Alarm);
        h.alarm();
        assert_eq!(h.step(&rules, at(9_999)), Step::Nothing);
        h.retry(at(10_000));
        assert_eq!((h.step(&rules, at(10_000)), h.errors), (Step::Send, 0));
        h.sent(at(10_060));
        h.answered(&Answer::Accepted, &rules, at(10_001));
        h.answered(&Answer::Rejected("late".into()), &rules, at(10_002));
        assert_eq!(h.state, State::Accepted { at: at(10_001) });
        assert_eq!(h.step(&rules, at(99_999)), Step::Nothing);
    }

    #[test]
    fn a_receiver_that_is_down_is_tried_for_ever_and_people_are_told_once() {
        let rules = AckRules::default();
        let mut h = Handover::new(at(0));
        let mut alarms = 0;
        for n in 0..1_000 {
            let now = at(n * 60);
            if h.step(&rules, now) == Step::Alarm {
                alarms += 1;
                h.alarm();
            }
            assert_eq!(h.step(&rules, now), Step::Send);
            h.failed(at((n + 1) * 60));
        }
        assert_eq!((alarms, h.errors), (1, 0));
    }

    #[test]
    fn a_message_that_was_kept_but_never_answered_is_sent_again() {
        let rules = AckRules::default();
        let mut h = Handover::new(at(0));
        h.sent(at(60));
        h.answered(&Answer::Received, &rules, at(1));
        assert_eq!(h.step(&rules, at(2)), Step::Wait(at(601)));
        assert_eq!(h.step(&rules, at(601)), Step::Send);
    }

    proptest! {
        #[test]
        fn it_ends_accepted_or_with_a_person_who_was_told_and_never_waits_for_nothing(
            answers in proptest::collection::vec(0..6_u8, 1..60),
        ) {
            let rules = AckRules { errors_max: 5, ..AckRules::default() };
            let mut h = Handover::new(at(0));
            let mut now = at(0);
            for answer in answers {
                match h.step(&rules, now) {
                    Step::Wait(until) => { prop_assert!(until > now); now = until; }
                    Step::Alarm => { prop_assert!(!h.alarmed); h.alarm(); }
                    Step::Nothing => {
                        let told = matches!(h.state, State::Refused { .. }) && h.alarmed;
                        let accepted = matches!(h.state, State::Accepted { .. });
                        prop_assert!(told || accepted);
                    }
                    Step::Send => {
                        h.sent(now + Duration::from_secs(60));
                        match answer {
                            0 => h.answered(&Answer::Accepted, &rules, now),
                            1 => h.answered(&Answer::Rejected("x\u{7}".repeat(500)), &rules, now),
                            2 => h.answered(&Answer::Error("y".into()), &rules, now),
                            3 => h.answered(&Answer::Silence, &rules, now),
                            4 => h.answered(&Answer::Received, &rules, now),
                            _ => h.failed(now + Duration::from_secs(5)),
                        }
                    }
                }
                prop_assert!(h.reason.len() <= REASON_MAX);
                let bytes = minicbor::to_vec(&h).unwrap();
                prop_assert_eq!(&minicbor::decode::<Handover>(&bytes).unwrap(), &h);
            }
        }
    }
}
