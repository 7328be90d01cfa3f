//! One request for storage commitment, from the yes to the last report. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::cargo::DestinationName;
use crate::clock::Timestamp;
use crate::custody::holding::Holding;
use crate::custody::state::StateName;
use crate::dicom::command::status::{
    CLASS_INSTANCE_CONFLICT, DUPLICATE_TRANSACTION, NO_SUCH_SOP_INSTANCE, PROCESSING_FAILURE,
};
use crate::dicom::commitment::{Outcome, Reference};

/// When an instance counts as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// When every node that it goes to has signed for it.
    Receipted,
    /// When it is in custody here, which keeps it until its duties are done.
    Here,
}

/// How commitment is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// When an instance counts as committed.
    pub when: When,
    /// The destinations that are nodes.
    pub nodes: BTreeSet<DestinationName>,
    /// An instance that is not here so long after the request was never sent.
    pub grace: Duration,
    /// An instance that no node has signed for so long after the request has failed.
    pub wait: Duration,
    /// How long a report is tried.
    pub report_for: Duration,
}

/// An instance that is not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Failed {
    /// Its place in the request.
    #[n(0)]
    pub(super) index: u32,
    /// Failure Reason (0008,1197).
    #[n(1)]
    pub(super) reason: u16,
}

/// How a request came out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Decision {
    #[n(0)]
    pub(super) at: Timestamp,
    #[n(1)]
    pub(super) failed: Vec<Failed>,
}

/// A request, as the book has it. Its references stand beside it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Transaction {
    /// Ascending in order of acceptance.
    #[n(0)]
    pub(super) number: u64,
    /// Transaction UID.
    #[n(1)]
    pub(super) uid: String,
    /// AE title that asked.
    #[n(2)]
    pub(super) calling: String,
    /// AE title of ours that it asked.
    #[n(3)]
    pub(super) called: String,
    #[n(4)]
    pub(super) asked_at: Timestamp,
    /// Its Transaction UID was in use.
    #[n(5)]
    pub(super) duplicate: bool,
    /// Entries that hold its references.
    #[n(6)]
    pub(super) parts: u32,
    #[n(7)]
    pub(super) decided: Option<Decision>,
    /// When the peer took the report, or when it was given up.
    #[n(8)]
    pub(super) ended_at: Option<Timestamp>,
}

impl Transaction {
    /// What is to be reported; `None` while it is not decided.
    pub(super) fn outcome(&self, references: &[Reference]) -> Option<Outcome> {
        let decision = self.decided.as_ref()?;
        let reason = |index: usize| {
            let failed = decision.failed.iter().find(|f| f.index as usize == index);
            failed.map(|f| f.reason)
        };
        let mut outcome = Outcome {
            transaction: self.uid.clone(),
            committed: Vec::new(),
            failed: Vec::new(),
            retrieve_ae: None,
        };
        for (index, reference) in references.iter().enumerate() {
            match reason(index) {
                Some(reason) => outcome.failed.push((reference.clone(), reason)),
                None => outcome.committed.push(reference.clone()),
            }
        }
        Some(outcome)
    }
}

/// How one instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Committed,
    Waits,
    Fails(u16),
}

fn stands(asked: &Reference, held: Option<&Holding>, rules: &Rules, age: Duration) -> Stands {
    let late = |limit: Duration, reason| match age >= limit {
        true => Stands::Fails(reason),
        false => Stands::Waits,
    };
    let Some(held) = held else { return late(rules.grace, NO_SUCH_SOP_INSTANCE) };
    if !held.sop_class.is_empty() && held.sop_class != asked.class {
        return Stands::Fails(CLASS_INSTANCE_CONFLICT);
    }
    if rules.when == When::Here {
        return Stands::Committed;
    }
    let to_nodes = held.duties.iter().filter(|(name, _)| rules.nodes.contains(name));
    let states: Vec<StateName> = to_nodes.map(|(_, state)| *state).collect();
    if states.contains(&StateName::Dismissed) {
        return Stands::Fails(PROCESSING_FAILURE);
    }
    match !held.unrouted && states.iter().all(|state| *state == StateName::Receipted) {
        true => Stands::Committed,
        false => late(rules.wait, PROCESSING_FAILURE),
    }
}

/// Which of the instances fail, once it is certain of all; `None`: some are waited for. `held` says
/// of each what custody has.
pub(super) fn judge(
    asked: &[Reference],
    held: &[Option<Holding>],
    rules: &Rules,
    age: Duration,
) -> Option<Vec<Failed>> {
    let mut failed = Vec::new();
    for (index, (reference, held)) in (0..).zip(asked.iter().zip(held)) {
        match stands(reference, held.as_ref(), rules, age) {
            Stands::Committed => {}
            Stands::Waits => return None,
            Stands::Fails(reason) => failed.push(Failed { index, reason }),
        }
    }
    Some(failed)
}

/// All of them, because the Transaction UID is in use.
pub(super) fn all_duplicate(asked: &[Reference]) -> Vec<Failed> {
    let indices = (0..).zip(asked);
    indices.map(|(index, _)| Failed { index, reason: DUPLICATE_TRANSACTION }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

    fn rules(when: When) -> Rules {
        Rules {
            when,
            nodes: [node("reading")].into(),
            grace: Duration::from_secs(10),
            wait: Duration::from_secs(100),
            report_for: Duration::from_secs(1000),
        }
    }

    fn node(name: &str) -> DestinationName {
        name.parse().unwrap()
    }

    fn asked(n: usize) -> Vec<Reference> {
        (0..n).map(|n| Reference { class: CT.into(), instance: format!("1.{n}") }).collect()
    }

    fn held(duties: &[(&str, StateName)]) -> Option<Holding> {
        Some(Holding {
            sop_class: CT.into(),
            study: "1.2".into(),
            unrouted: duties.is_empty(),
            duties: duties.iter().map(|(name, state)| (node(name), *state)).collect(),
        })
    }

    fn reasons(held: &[Option<Holding>], when: When, seconds: u64) -> Option<Vec<u16>> {
        let age = Duration::from_secs(seconds);
        let failed = judge(&asked(held.len()), held, &rules(when), age)?;
        Some(failed.iter().map(|f| f.reason).collect())
    }

    #[test]
    fn all_are_committed_only_when_every_node_has_signed() {
        use StateName::{Held, Owed, Quarantined, Receipted};
        let there = held(&[("reading", Receipted), ("pacs", Owed)]);
        assert_eq!(reasons(std::slice::from_ref(&there), When::Receipted, 0), Some(vec![]));
        for state in [Owed, Held, Quarantined] {
            let waits = [there.clone(), held(&[("reading", state)])];
            assert_eq!(reasons(&waits, When::Receipted, 99), None);
            assert_eq!(reasons(&waits, When::Receipted, 100), Some(vec![0x0110]));
            assert_eq!(reasons(&waits, When::Here, 0), Some(vec![]));
        }
    }

    #[test]
    fn what_no_rule_has_sent_anywhere_is_waited_for() {
        assert_eq!(reasons(&[held(&[])], When::Receipted, 99), None);
        assert_eq!(reasons(&[held(&[])], When::Here, 0), Some(vec![]));
    }

    #[test]
    fn what_a_person_gave_up_for_a_node_is_not_committed() {
        let given_up = held(&[("reading", StateName::Dismissed)]);
        assert_eq!(reasons(&[given_up], When::Receipted, 0), Some(vec![0x0110]));
    }

    #[test]
    fn what_never_came_fails_after_the_grace_and_another_class_at_once() {
        assert_eq!(reasons(&[None], When::Here, 9), None);
        assert_eq!(reasons(&[None], When::Here, 10), Some(vec![0x0112]));
        let mut other = held(&[]);
        other.as_mut().unwrap().sop_class = "1.2.840.10008.5.1.4.1.1.4".into();
        assert_eq!(reasons(&[other], When::Receipted, 0), Some(vec![0x0119]));
    }

    #[test]
    fn an_outcome_names_every_reference_once() {
        let asked = asked(3);
        let failed = vec![Failed { index: 1, reason: 0x0112 }];
        let transaction = Transaction {
            number: 1,
            uid: "1.5".into(),
            calling: "CT1".into(),
            called: "HIKYAKU".into(),
            asked_at: Timestamp(0),
            duplicate: false,
            parts: 1,
            decided: Some(Decision { at: Timestamp(0), failed }),
            ended_at: None,
        };
        let outcome = transaction.outcome(&asked).unwrap();
        assert_eq!(outcome.committed, [asked[0].clone(), asked[2].clone()]);
        assert_eq!(outcome.failed, [(asked[1].clone(), 0x0112)]);
    }
}
