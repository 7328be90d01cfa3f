//! The durable states of a duty and every edge there is. Pure.
//!
//! ```text
//!              +--- next try ---+
//!              v                |
//!  accepted -> Owed ------------+--> Receipted ----+
//!    |          ^ | \                              |
//!    |          | |  +--> Quarantined --+          |  a person sends
//!    v          | v                     |          |  it again
//!   Held -------+-+-> Held              |          |
//!    |          |                       |          |
//!    v          +----- a person --------+----------+
//!  Dismissed ---+
//! ```
//!
//! In flight is not a durable state: leases live in memory, so a crash needs no clean-up. An edge
//! that is not drawn here is a bug of ours and panics ([`DutyState::step`]); peer bytes never
//! choose an edge.

use minicbor::{CborLen, Decode, Encode};

use crate::clock::Timestamp;

/// One durable state of a duty.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum DutyState {
    /// To be sent when due.
    #[n(0)]
    #[cbor(map)]
    Owed {
        /// How many tries have failed for this object's own sake.
        #[n(0)]
        attempt: u32,
        /// Why the last try failed; absent before the first.
        #[n(1)]
        cause: Option<String>,
    },
    /// Waits for a rule or a person.
    #[n(1)]
    #[cbor(map)]
    Held {
        /// What it waits for.
        #[n(0)]
        reason: String,
        /// The rule or the system user that holds it.
        #[n(1)]
        by: String,
    },
    /// The destination has given its receipt.
    #[n(2)]
    #[cbor(map)]
    Receipted {
        /// When, by our wall clock.
        #[n(0)]
        at: Timestamp,
        /// What the destination said beyond a plain yes (a warning status), else absent.
        #[n(1)]
        warning: Option<String>,
    },
    /// Refused for good, unreadable, or out of tries.
    #[n(3)]
    #[cbor(map)]
    Quarantined {
        /// What the destination or the spool said.
        #[n(0)]
        reason: String,
        /// When, by our wall clock.
        #[n(1)]
        at: Timestamp,
        /// The bytes in the spool are at fault: another copy of them heals it.
        #[cbor(n(2), default, skip_if = "is_false")]
        damaged: bool,
    },
    /// A person has decided that it will not be sent.
    #[n(4)]
    #[cbor(map)]
    Dismissed {
        /// The system user who decided.
        #[n(0)]
        by: String,
        /// Why.
        #[n(1)]
        reason: String,
        /// When, by our wall clock.
        #[n(2)]
        at: Timestamp,
    },
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The name of a state without its data: for listings, metrics and counting.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum StateName {
    /// [`DutyState::Owed`].
    Owed,
    /// [`DutyState::Held`].
    Held,
    /// [`DutyState::Receipted`].
    Receipted,
    /// [`DutyState::Quarantined`].
    Quarantined,
    /// [`DutyState::Dismissed`].
    Dismissed,
}

impl StateName {
    /// All, in the order of the listing.
    pub const ALL: [Self; 5] =
        [Self::Owed, Self::Held, Self::Receipted, Self::Quarantined, Self::Dismissed];

    /// The word used in listings and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Held => "held",
            Self::Receipted => "receipted",
            Self::Quarantined => "quarantined",
            Self::Dismissed => "dismissed",
        }
    }
}

impl std::fmt::Display for StateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a duty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DutyEvent {
    /// A try failed and there will be another.
    TryFailed {
        /// In words without patient data.
        cause: String,
    },
    /// The destination said yes.
    Receipt {
        /// When.
        at: Timestamp,
        /// A warning that came with the yes.
        warning: Option<String>,
    },
    /// It will not be tried again by itself.
    GaveUp {
        /// In words without patient data.
        reason: String,
        /// When.
        at: Timestamp,
        /// The bytes in the spool are at fault.
        damaged: bool,
    },
    /// A rule or a person holds it.
    Hold {
        /// What it waits for.
        reason: String,
        /// Who.
        by: String,
    },
    /// A rule is satisfied or a person lets it go.
    Release,
    /// A person wants it sent, again if need be.
    Retry,
    /// A person decides that it will not be sent.
    Dismiss {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
}

impl DutyState {
    /// Owed, never tried.
    pub const fn owed() -> Self {
        Self::Owed { attempt: 0, cause: None }
    }

    /// The state's name.
    pub const fn name(&self) -> StateName {
        match self {
            Self::Owed { .. } => StateName::Owed,
            Self::Held { .. } => StateName::Held,
            Self::Receipted { .. } => StateName::Receipted,
            Self::Quarantined { .. } => StateName::Quarantined,
            Self::Dismissed { .. } => StateName::Dismissed,
        }
    }

    /// True when nothing more will happen by itself and the bytes may go after retention.
    pub const fn is_settled(&self) -> bool {
        matches!(self, Self::Receipted { .. } | Self::Dismissed { .. })
    }

    /// The state after `event`, or `None` where the state table has no such edge. For people's
    /// wishes, which may come at any time; [`step`](Self::step) is for our own transitions.
    pub fn try_step(&self, event: DutyEvent) -> Option<Self> {
        use DutyEvent as E;
        Some(match (self, event) {
            (Self::Owed { attempt, .. }, E::TryFailed { cause }) => {
                Self::Owed { attempt: attempt.saturating_add(1), cause: Some(cause) }
            }
            (Self::Owed { .. }, E::Receipt { at, warning }) => Self::Receipted { at, warning },
            (Self::Owed { .. }, E::GaveUp { reason, at, damaged }) => {
                Self::Quarantined { reason, at, damaged }
            }
            (Self::Owed { .. }, E::Hold { reason, by }) => Self::Held { reason, by },
            (Self::Held { .. }, E::Release | E::Retry) => Self::owed(),
            (Self::Held { .. } | Self::Quarantined { .. }, E::Dismiss { by, reason, at }) => {
                Self::Dismissed { by, reason, at }
            }
            (
                Self::Quarantined { .. } | Self::Receipted { .. } | Self::Dismissed { .. },
                E::Retry,
            ) => Self::owed(),
            _ => return None,
        })
    }

    /// The state after `event`.
    ///
    /// # Panics
    ///
    /// When the state table has no such edge: a bug of ours, and going on would break the promise.
    #[must_use]
    pub fn step(&self, event: DutyEvent) -> Self {
        let label = format!("{event:?}");
        self.try_step(event).unwrap_or_else(|| panic!("no edge from {self:?} by {label}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> Vec<DutyState> {
        let at = Timestamp(1);
        vec![
            DutyState::owed(),
            DutyState::Held { reason: "r".into(), by: "b".into() },
            DutyState::Receipted { at, warning: None },
            DutyState::Quarantined { reason: "r".into(), at, damaged: false },
            DutyState::Dismissed { by: "b".into(), reason: "r".into(), at },
        ]
    }

    fn events() -> Vec<DutyEvent> {
        let at = Timestamp(2);
        vec![
            DutyEvent::TryFailed { cause: "c".into() },
            DutyEvent::Receipt { at, warning: None },
            DutyEvent::GaveUp { reason: "r".into(), at, damaged: false },
            DutyEvent::Hold { reason: "r".into(), by: "b".into() },
            DutyEvent::Release,
            DutyEvent::Retry,
            DutyEvent::Dismiss { by: "b".into(), reason: "r".into(), at },
        ]
    }

    #[test]
    fn the_edges_are_those_of_the_design_and_no_others() {
        use StateName::*;
        let mut edges = std::collections::BTreeSet::new();
        for s in states() {
            for e in events() {
                if let Some(t) = s.try_step(e) {
                    edges.insert((s.name(), t.name()));
                }
            }
        }
        let drawn = [
            (Owed, Owed),
            (Owed, Held),
            (Owed, Receipted),
            (Owed, Quarantined),
            (Held, Owed),
            (Held, Dismissed),
            (Receipted, Owed),
            (Quarantined, Owed),
            (Quarantined, Dismissed),
            (Dismissed, Owed),
        ];
        assert_eq!(edges, drawn.into_iter().collect());
    }

    #[test]
    #[should_panic(expected = "no edge")]
    fn a_receipt_for_a_dismissed_duty_is_a_bug_and_panics() {
        let _ = states()[4].step(DutyEvent::Receipt { at: Timestamp(0), warning: None });
    }
}
