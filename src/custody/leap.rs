//! Notices unexplained leaps of the wall clock. Pure.
//!
//! Retention is counted in wall time, so a leap forward could delete years too early. While a leap
//! is unexplained nothing is deleted; a person confirms the clock (`hikyaku spool confirm-clock`).
//! A restart does not: the spool remembers the leap.

use std::time::Duration;

use crate::clock::{Monotonic, Timestamp};

/// Wall and monotonic time may drift apart this far between two looks (slewing, a late thread).
const DRIFT_MAX_MS: i64 = 60_000;
/// A node may have been switched off this long; longer is for a person to confirm.
const OFF_MAX: Duration = Duration::from_secs(60 * 24 * 3600);

/// What the spool was last told of the wall clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastClock {
    /// What it said.
    pub wall: Timestamp,
    /// The leap that was unexplained then.
    pub leap: Option<String>,
}

/// Watches both clocks.
#[derive(Debug)]
pub(super) struct LeapWatch {
    seen: Option<(Monotonic, Timestamp)>,
    leap: Option<String>,
}

impl LeapWatch {
    /// After a start; `last` is what the spool was last told.
    pub(super) fn start(last: Option<LastClock>, wall: Timestamp) -> Self {
        let leap = last.and_then(|LastClock { wall: last, leap }| {
            if leap.is_some() {
                return leap;
            }
            let passed = wall.0.saturating_sub(last.0);
            if passed < -DRIFT_MAX_MS {
                Some(format!("the clock went back from {last} to {wall} while the node was off"))
            } else if passed > OFF_MAX.as_millis() as i64 {
                Some(format!("the clock went from {last} to {wall} while the node was off"))
            } else {
                None
            }
        });
        Self { seen: None, leap }
    }

    /// Looks at both clocks. True when a leap was noticed just now.
    pub(super) fn look(&mut self, now: Monotonic, wall: Timestamp) -> bool {
        let mut noticed = false;
        if let Some((then, said)) = self.seen {
            let passed = i64::try_from(now.since(then).as_millis()).unwrap_or(i64::MAX);
            let expected = said.0.saturating_add(passed);
            if wall.0.saturating_sub(expected).abs() > DRIFT_MAX_MS {
                let expected = Timestamp(expected);
                self.leap = Some(format!("the clock leapt from {expected} to {wall}"));
                noticed = true;
            }
        }
        self.seen = Some((now, wall));
        noticed
    }

    /// The unexplained leap, in words.
    pub(super) fn leap(&self) -> Option<&str> {
        self.leap.as_deref()
    }

    /// A person has looked at the clock and says that it is right.
    pub(super) fn confirm(&mut self) {
        self.leap = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3600 * 1000;

    #[test]
    fn a_day_forward_is_a_leap_until_it_is_confirmed() {
        let mut w = LeapWatch::start(None, Timestamp(0));
        assert!(!w.look(Monotonic(Duration::from_secs(1)), Timestamp(1000)));
        assert!(!w.look(Monotonic(Duration::from_secs(2)), Timestamp(2100)));
        assert!(w.look(Monotonic(Duration::from_secs(3)), Timestamp(3000 + DAY_MS)));
        assert!(w.leap().is_some());
        w.confirm();
        assert!(!w.look(Monotonic(Duration::from_secs(4)), Timestamp(4000 + DAY_MS)));
        assert_eq!(w.leap(), None);
    }

    #[test]
    fn a_weekend_switched_off_is_no_leap_but_ten_years_and_one_day_back_are() {
        let last = LastClock { wall: Timestamp(100 * DAY_MS), leap: None };
        assert_eq!(LeapWatch::start(Some(last.clone()), Timestamp(103 * DAY_MS)).leap(), None);
        assert!(LeapWatch::start(Some(last.clone()), Timestamp(3750 * DAY_MS)).leap().is_some());
        assert!(LeapWatch::start(Some(last), Timestamp(99 * DAY_MS)).leap().is_some());
    }

    #[test]
    fn a_restart_does_not_explain_a_leap() {
        let leap = Some("the clock leapt".to_owned());
        let last = LastClock { wall: Timestamp(100 * DAY_MS), leap: leap.clone() };
        let watch = LeapWatch::start(Some(last), Timestamp(100 * DAY_MS + 1000));
        assert_eq!(watch.leap(), leap.as_deref());
    }
}
