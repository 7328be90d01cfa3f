//! What a C-STORE status means for a duty (PS3.4 B.2.3, PS3.7 C). Pure.
//!
//! Devices disagree about statuses: dcmqrscp answers C000 for a passing database error. So a
//! status that blames the object is believed only after several tries, and only while the
//! destination takes other objects: a destination that refuses everything is itself ill, and
//! objects are not quarantined for that.

use std::time::Duration;

use super::backoff::Backoff;

/// Tries after which a suspect object is quarantined while others succeed.
pub const SUSPECT_TRIES: u32 = 3;

/// Tries after which an object is quarantined that the destination blames although nothing else
/// is there to compare it with.
pub const SUSPECT_TRIES_ALONE: u32 = 6;

/// Tries after which an object is quarantined with which associations break while others succeed.
pub const BREAKING_TRIES: u32 = 5;

/// Tries after which such an object is quarantined although nothing else is there to compare it
/// with: more than an hour of back-off, each time with an association that was accepted.
pub const BREAKING_TRIES_ALONE: u32 = 12;

/// From so many different objects in a row on that fail, the destination is suspected and not they.
pub const STREAK_ILL: u32 = 3;

/// Wait before an object that failed for its own sake is tried again.
pub const OBJECT_BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(10), cap: Duration::from_secs(15 * 60) };

/// Wait between objects while the destination fails one after the other.
pub const STREAK_BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(1) };

/// What a status says of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Stored.
    Success,
    /// Stored, with a remark: coerced, discarded or mismatching elements.
    Warning,
    /// The destination cannot now: out of resources.
    Retry,
    /// The destination blames the object, and may be wrong.
    Suspect,
    /// The destination failed in processing: rarely the object's fault.
    Failing,
    /// Refused by policy or capability; trying again will not help.
    ForGood,
}

/// The verdict of a status (PS3.4 Table B.2-1, PS3.7 Annex C). A status that is unknown, or makes
/// no sense in a C-STORE response, is suspect.
pub fn verdict(status: u16) -> Verdict {
    match status {
        0x0000 => Verdict::Success,
        0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF => Verdict::Warning,
        0x0213 | 0xA700..=0xA7FF => Verdict::Retry,
        0x0110 => Verdict::Failing,
        // 0112 and 0214 stand for 0122 and 0124 in some conformance statements.
        0x0111 | 0x0112 | 0x0117..=0x0119 | 0x0122 | 0x0124 | 0x0214 => Verdict::ForGood,
        _ => Verdict::Suspect,
    }
}

/// The status in words, for the operator.
pub fn words(status: u16) -> &'static str {
    match status {
        0x0000 => "success",
        0x0001 => "stored, with a warning",
        0x0107 => "stored, attribute list error",
        0x0116 => "stored, attribute value out of range",
        0xB000 => "stored, with elements coerced",
        0xB006 => "stored, with elements discarded",
        0xB007 => "stored, although the data set does not match its SOP class",
        0xB001..=0xBFFF => "stored, with a warning",
        0x0105 => "no such attribute",
        0x0106 => "invalid attribute value",
        0x0110 => "processing failure",
        0x0111 => "duplicate SOP instance",
        0x0112 => "no such SOP instance, or SOP class not supported",
        0x0115 => "invalid argument value",
        0x0117 => "invalid SOP Instance UID",
        0x0118 => "no such SOP class",
        0x0119 => "SOP class and instance conflict",
        0x0120 => "missing attribute",
        0x0121 => "missing attribute value",
        0x0122 => "SOP class not supported",
        0x0124 | 0x0214 => "not authorised",
        0x0210 => "duplicate message ID",
        0x0211 => "unrecognised operation",
        0x0212 => "mistyped argument",
        0x0213 => "resource limitation",
        0xA700..=0xA7FF => "out of resources",
        0xA900..=0xA9FF => "data set does not match its SOP class",
        0xC000..=0xCFFF => "cannot understand the data set",
        0xFE00 => "cancelled",
        0xFF00 | 0xFF01 => "pending, which C-STORE does not know",
        _ => "unknown status",
    }
}

/// What happened to one try, as far as blame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// The destination answered with this status.
    Answered(u16),
    /// The association broke while the object was being sent or its answer awaited.
    Broke,
    /// The destination does not take the presentation context, and does not say for good.
    Declined,
}

/// What becomes of the duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The status is the receipt.
    Receipted,
    /// Try again; the longest wait follows from the attempt by [`OBJECT_BACKOFF`].
    Retry,
    /// Never by itself again.
    Quarantine,
}

/// What a sender has seen of a destination lately: the ground on which objects are blamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Experience {
    /// Different objects in a row that failed.
    streak: u32,
    /// The last that failed.
    last: Option<u64>,
    /// Whether any object has succeeded on this association.
    succeeded: bool,
}

impl Experience {
    /// A new association: what succeeded on an earlier one proves nothing any more. The streak
    /// goes on.
    pub fn associated(&mut self) {
        self.succeeded = false;
    }

    /// Whether the destination itself must be suspected.
    pub fn is_ill(&self) -> bool {
        self.streak >= STREAK_ILL
    }

    /// Longest wait before the next object.
    pub fn pause(&self) -> Duration {
        STREAK_BACKOFF.ceiling(self.streak.saturating_sub(STREAK_ILL - 1))
    }

    /// Decides about the object number `object` that has failed `attempt` times before.
    pub fn decide(&mut self, object: u64, attempt: u32, what: Try) -> Decision {
        let verdict = match what {
            Try::Answered(status) => verdict(status),
            Try::Broke => Verdict::Failing,
            Try::Declined => Verdict::Suspect,
        };
        match verdict {
            Verdict::Success | Verdict::Warning => {
                self.streak = 0;
                self.last = None;
                self.succeeded = true;
                return Decision::Receipted;
            }
            // Says nothing about the destination's health, for or against.
            Verdict::ForGood => return Decision::Quarantine,
            Verdict::Retry | Verdict::Suspect | Verdict::Failing => {
                if self.last != Some(object) {
                    self.streak = self.streak.saturating_add(1);
                }
                self.last = Some(object);
            }
        }
        let tries = attempt.saturating_add(1);
        let limit = match (verdict, self.succeeded) {
            _ if self.is_ill() => None,
            (Verdict::Failing, true) if what == Try::Broke => Some(BREAKING_TRIES),
            (Verdict::Suspect | Verdict::Failing, true) => Some(SUSPECT_TRIES),
            (Verdict::Failing, false) if what == Try::Broke => Some(BREAKING_TRIES_ALONE),
            (Verdict::Suspect, false) => Some(SUSPECT_TRIES_ALONE),
            _ => None,
        };
        if limit.is_some_and(|limit| tries >= limit) {
            Decision::Quarantine
        } else {
            Decision::Retry
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_standard_has_its_verdict() {
        use Verdict::*;
        for (status, expected) in [
            (0x0000, Success),
            (0x0001, Warning),
            (0xB000, Warning),
            (0xB006, Warning),
            (0xB007, Warning),
            (0xB0FF, Warning),
            (0xA700, Retry),
            (0xA7FF, Retry),
            (0x0213, Retry),
            (0xA900, Suspect),
            (0xA9FF, Suspect),
            (0xC000, Suspect),
            (0xCFFF, Suspect),
            (0x0110, Failing),
            (0x0112, ForGood),
            (0x0117, ForGood),
            (0x0122, ForGood),
            (0x0124, ForGood),
            (0x0214, ForGood),
            (0x0210, Suspect),
            (0xFF00, Suspect),
            (0x1234, Suspect),
        ] {
            assert_eq!(verdict(status), expected, "{status:04X}");
        }
    }

    #[test]
    fn only_success_and_warning_can_become_a_receipt() {
        for status in 0..=u16::MAX {
            let stored = matches!(verdict(status), Verdict::Success | Verdict::Warning);
            let decision = Experience::default().decide(0, 0, Try::Answered(status));
            assert_eq!(decision == Decision::Receipted, stored, "{status:04X}");
            assert_eq!(
                stored,
                words(status).starts_with("stored") || status == 0,
                "{status:04X} is called {}",
                words(status)
            );
        }
    }

    #[test]
    fn a_suspect_object_is_quarantined_at_its_third_try_while_others_succeed() {
        for status in [0xA900, 0xC000, 0x0110] {
            let mut e = Experience::default();
            for attempt in 0..SUSPECT_TRIES - 1 {
                e.decide(0, 0, Try::Answered(0));
                assert_eq!(e.decide(1, attempt, Try::Answered(status)), Decision::Retry);
            }
            e.decide(0, 0, Try::Answered(0));
            assert_eq!(e.decide(1, 2, Try::Answered(status)), Decision::Quarantine, "{status:04X}");
        }
    }

    #[test]
    fn a_destination_that_fails_everything_quarantines_nothing_but_the_first() {
        let mut e = Experience::default();
        e.decide(0, 0, Try::Answered(0));
        let decisions: Vec<_> = (1..20).map(|n| e.decide(n, 9, Try::Answered(0xC000))).collect();
        let quarantined = decisions.iter().filter(|d| **d == Decision::Quarantine).count();
        assert!(quarantined < STREAK_ILL as usize, "{quarantined}");
        assert!(e.is_ill());
        e.associated();
        assert_eq!(e.decide(30, 9, Try::Answered(0xC000)), Decision::Retry);
        assert!(e.pause() > Duration::ZERO && e.pause() <= STREAK_BACKOFF.cap);
    }

    #[test]
    fn out_of_resources_never_ends_in_quarantine() {
        for status in [0xA700, 0x0213] {
            let mut e = Experience::default();
            e.decide(0, 0, Try::Answered(0));
            assert_eq!(e.decide(1, u32::MAX, Try::Answered(status)), Decision::Retry);
        }
    }

    #[test]
    fn a_lone_object_that_is_blamed_ends_in_quarantine_and_a_lone_processing_failure_does_not() {
        let alone =
            |attempt, status| Experience::default().decide(1, attempt, Try::Answered(status));
        assert_eq!(alone(SUSPECT_TRIES_ALONE - 2, 0xC000), Decision::Retry);
        assert_eq!(alone(SUSPECT_TRIES_ALONE - 1, 0xC000), Decision::Quarantine);
        assert_eq!(alone(100, 0x0110), Decision::Retry);
    }

    #[test]
    fn an_object_that_breaks_associations_is_quarantined_only_while_others_succeed() {
        let mut e = Experience::default();
        assert_eq!(e.decide(1, BREAKING_TRIES_ALONE - 2, Try::Broke), Decision::Retry);
        e.associated();
        e.decide(0, 0, Try::Answered(0xB000));
        assert_eq!(e.decide(1, BREAKING_TRIES - 2, Try::Broke), Decision::Retry);
        e.decide(0, 0, Try::Answered(0));
        assert_eq!(e.decide(1, BREAKING_TRIES - 1, Try::Broke), Decision::Quarantine);
    }

    #[test]
    fn one_object_that_fails_again_and_again_does_not_make_its_destination_ill() {
        let mut e = Experience::default();
        let decisions: Vec<_> =
            (0..SUSPECT_TRIES_ALONE).map(|n| e.decide(1, n, Try::Answered(0xC000))).collect();
        assert!(!e.is_ill());
        assert_eq!(decisions.last(), Some(&Decision::Quarantine));
    }

    /// The statuses of one row: `0001, B000-BFFF`; what is no number is left out.
    fn statuses(cell: &str) -> Vec<std::ops::RangeInclusive<u16>> {
        let hex = |text: &str| u16::from_str_radix(text.trim(), 16).ok();
        let range = |part: &str| match part.split_once('-') {
            Some((from, to)) => Some(hex(from)?..=hex(to)?),
            None => hex(part).map(|status| status..=status),
        };
        cell.split(',').filter_map(range).collect()
    }

    #[test]
    fn the_conformance_statement_says_what_every_status_means() {
        let page = include_str!("../../docs/conformance-statement.md");
        let table = page.split("<!-- scu statuses -->").nth(1).unwrap();
        let mut stated = std::collections::BTreeMap::new();
        for row in table.trim().lines().skip(2) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if cells[1].starts_with("others") {
                assert_eq!(cells[2], "suspect");
                continue;
            }
            for status in statuses(cells[1]).into_iter().flatten() {
                stated.insert(status, cells[2]);
            }
        }
        for status in 0..=u16::MAX {
            let word = match verdict(status) {
                Verdict::Success => "success",
                Verdict::Warning => "warning",
                Verdict::Retry => "retry",
                Verdict::Suspect => "suspect",
                Verdict::Failing => "failing",
                Verdict::ForGood => "for good",
            };
            assert_eq!(stated.get(&status).copied().unwrap_or("suspect"), word, "{status:04X}");
        }
    }
}
