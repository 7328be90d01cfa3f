//! How a destination fares: up or down, why, and when it is tried again. Pure; one value per
//! destination, shared by its senders through a `watch` channel.

use serde::Serialize;

use super::backoff::Backoff;
use crate::cargo::DestinationName;
use crate::clock::{Monotonic, Timestamp};

/// What is known of a destination's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    /// Whether it answered at its last try; `None` before the first.
    pub(super) up: Option<bool>,
    /// Since when, by our wall clock.
    pub(super) since: Timestamp,
    /// What went wrong last, in words without patient data, and when.
    pub(super) last_error: Option<(String, Timestamp)>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// No try before this.
    pub(super) not_before: Monotonic,
    /// The same as a label.
    pub(super) not_before_wall: Timestamp,
    backoff: Backoff,
}

impl Condition {
    /// Of a destination that was never tried.
    pub(super) fn new(backoff: Backoff, wall: Timestamp) -> Self {
        Self {
            up: None,
            since: wall,
            last_error: None,
            failures: 0,
            not_before: Monotonic::default(),
            not_before_wall: wall,
            backoff,
        }
    }

    /// It answered as it should. Returns whether that is news.
    pub(super) fn answered(&mut self, wall: Timestamp) -> bool {
        let news = self.up != Some(true);
        if news {
            self.up = Some(true);
            self.since = wall;
        }
        self.failures = 0;
        self.not_before = Monotonic::default();
        news
    }

    /// It could not be reached, or turned us away. Returns whether that it is down is news.
    /// Several senders that fail together count once.
    pub(super) fn failed(
        &mut self,
        why: String,
        now: Monotonic,
        wall: Timestamp,
        random: f64,
    ) -> bool {
        let news = self.up != Some(false);
        if news {
            self.up = Some(false);
            self.since = wall;
        }
        self.last_error = Some((why, wall));
        if now >= self.not_before {
            self.failures = self.failures.saturating_add(1);
            let delay = self.backoff.delay(self.failures, random);
            self.not_before = now + delay;
            let millis = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
            self.not_before_wall = Timestamp(wall.0.saturating_add(millis));
        }
        news
    }

    /// For listings.
    pub(super) fn status(
        &self,
        destination: &DestinationName,
        kind: &'static str,
    ) -> DestinationStatus {
        DestinationStatus {
            destination: destination.clone(),
            kind,
            up: self.up,
            since: self.since,
            last_error: self.last_error.as_ref().map(|(why, _)| why.clone()),
            last_error_at: self.last_error.as_ref().map(|(_, at)| *at),
            backoff_until: (self.up == Some(false)).then_some(self.not_before_wall),
        }
    }
}

/// One destination, for `hikyaku status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DestinationStatus {
    /// Its name.
    pub destination: DestinationName,
    /// `dicom`, `hl7` or `folder`.
    pub kind: &'static str,
    /// Whether it answered at its last try; absent before the first.
    pub up: Option<bool>,
    /// Since when it is up or down.
    pub since: Timestamp,
    /// What went wrong last, kept after it has recovered.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<Timestamp>,
    /// While it is down: when it is tried again.
    pub backoff_until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn condition() -> Condition {
        let backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(60) };
        Condition::new(backoff, Timestamp(0))
    }

    #[test]
    fn senders_that_fail_together_count_as_one_failure() {
        let mut c = condition();
        assert!(c.failed("refused".into(), at(1), Timestamp(1), 1.0));
        assert!(!c.failed("refused".into(), at(1), Timestamp(1), 1.0));
        assert_eq!((c.failures, c.not_before), (1, at(2)));
        c.failed("refused".into(), at(2), Timestamp(2), 1.0);
        assert_eq!((c.failures, c.not_before), (2, at(4)));
    }

    #[test]
    fn an_answer_ends_the_back_off_and_keeps_the_last_error_for_the_operator() {
        let mut c = condition();
        c.failed("refused".into(), at(1), Timestamp(1000), 1.0);
        assert!(c.answered(Timestamp(5000)));
        assert!(!c.answered(Timestamp(6000)));
        let s = c.status(&"pacs".parse().unwrap(), "dicom");
        assert_eq!((s.up, s.since, s.backoff_until), (Some(true), Timestamp(5000), None));
        assert_eq!(s.last_error.as_deref(), Some("refused"));
    }
}
