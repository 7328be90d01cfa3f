//! Which patient numbers were merged into which (ADT^A40), for what comes after the merge.
//!
//! A merge changes the orders that are known when it comes ([`Action::Merge`]); images and orders
//! that still bear the retired number come for days after it. [`Merges::settle`] gives a patient
//! the numbers in force and keeps the retired ones, so that whatever bears either is found.
//!
//! The later merge of a number counts, whichever comes first. Limits: chains are followed for
//! [`CHAIN_MAX`] steps, so that a circle that two messages make ends; at most [`MERGES_MAX`] are
//! kept, the oldest go first.
//!
//! [`Action::Merge`]: super::order::Action::Merge

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::history::Stamp;
use super::identifier::{Agreement, Identifier, Patient};

/// Longest chain of merges that is followed.
pub const CHAIN_MAX: usize = 16;
/// Most merges that are kept.
pub const MERGES_MAX: usize = 100_000;

/// Merged patient numbers of one origin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Merges {
    /// By retired number: when, and which identifier took its place.
    #[n(0)]
    into: BTreeMap<String, Vec<Merge>>,
    /// How many.
    #[n(1)]
    count: u32,
}

/// One merge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
struct Merge {
    #[n(0)]
    stamp: Stamp,
    #[n(1)]
    retired: Identifier,
    #[n(2)]
    survivor: Identifier,
}

impl Merges {
    /// Takes a merge in; true when it says something new.
    pub fn apply(&mut self, stamp: &Stamp, survivor: &Identifier, retired: &Identifier) -> bool {
        if !survivor.is_named() || !retired.is_named() || survivor == retired {
            return false;
        }
        let (stamp, survivor) = (stamp.clone(), survivor.clone());
        let new = Merge { stamp, retired: retired.clone(), survivor };
        let known = self.into.entry(retired.id.clone()).or_default();
        match known.iter_mut().find(|m| m.retired == *retired) {
            Some(m) if *m >= new => return false,
            Some(m) => *m = new,
            None => {
                known.push(new);
                known.sort();
                self.count += 1;
            }
        }
        while self.count as usize > MERGES_MAX {
            self.forget_oldest();
        }
        true
    }

    fn forget_oldest(&mut self) {
        let oldest = self.into.values().flatten().min().expect("counted").clone();
        if let Some(same) = self.into.get_mut(&oldest.retired.id) {
            same.retain(|m| *m != oldest);
            if same.is_empty() {
                self.into.remove(&oldest.retired.id);
            }
        }
        self.count -= 1;
    }

    /// The identifier in force for `id`.
    fn current(&self, id: &Identifier) -> Identifier {
        let mut now = id.clone();
        for _ in 0..CHAIN_MAX {
            let merges = self.into.get(&now.id).into_iter().flatten();
            let meant = merges.filter(|m| m.retired.agrees(&now) != Agreement::Different);
            match meant.max_by_key(|m| &m.stamp) {
                Some(m) => now = m.survivor.clone(),
                None => break,
            }
        }
        now
    }

    /// The patient with the numbers in force; retired ones are kept as former.
    pub fn settle(&self, patient: &Patient) -> Patient {
        let mut out = Patient { ids: Vec::new(), ..patient.clone() };
        for id in &patient.ids {
            let now = self.current(id);
            if now != *id && !out.former.contains(id) {
                out.former.push(id.clone());
            }
            if !out.ids.contains(&now) {
                out.ids.push(now);
            }
        }
        out.former.retain(|id| !out.ids.contains(id));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn stamp(sent: i64) -> Stamp {
        Stamp { sent: Timestamp(sent), ..Stamp::default() }
    }

    fn id(n: &str) -> Identifier {
        Identifier::of(n, "H")
    }

    fn patient(n: &str) -> Patient {
        Patient { ids: vec![id(n)], ..Patient::default() }
    }

    #[test]
    fn images_with_a_retired_number_are_of_the_surviving_patient() {
        let mut m = Merges::default();
        assert!(m.apply(&stamp(1), &id("2"), &id("1")));
        assert!(m.apply(&stamp(2), &id("3"), &id("2")));
        assert!(!m.apply(&stamp(1), &id("2"), &id("1")), "twice");
        let settled = m.settle(&patient("1"));
        assert_eq!(settled.ids, [id("3")]);
        assert_eq!(settled.former, [id("1")]);
        assert_eq!(m.settle(&patient("1")).agrees(&patient("3")), Agreement::Same);
        assert_eq!(m.settle(&patient("9")), patient("9"));
    }

    #[test]
    fn the_later_merge_counts_whichever_comes_first_and_a_circle_ends() {
        let (mut a, mut b) = (Merges::default(), Merges::default());
        a.apply(&stamp(1), &id("2"), &id("1"));
        a.apply(&stamp(5), &id("7"), &id("1"));
        b.apply(&stamp(5), &id("7"), &id("1"));
        b.apply(&stamp(1), &id("2"), &id("1"));
        assert_eq!(a, b);
        assert_eq!(a.settle(&patient("1")).ids, [id("7")]);
        a.apply(&stamp(6), &id("1"), &id("7"));
        let around = a.settle(&patient("1"));
        assert_eq!(around.ids.len(), 1);
    }
}
