//! The versions of a report: preliminary, final, corrected, in that order and never back.
//!
//! A [`Chain`] is a set of documents ([`Arrival`]), each kept once, and nothing else: which
//! version each belongs to, which version is the latest and which came too late all follow from
//! the set. So the state does not depend on the order in which documents arrive, nor on how often.
//!
//! **One version in several forms.** Documents that have the same status and bring different forms
//! (a text by HL7 and its PDF by C-STORE) are one version when they have one id, or were written
//! within [`WINDOW`] of the first of them. Two texts are always two versions.
//!
//! **Which is the latest.** Preliminary before final before corrected and cancelled; among those of
//! one rank the one written later, but never before what it says that it replaces. A preliminary
//! one never replaces a final one, and a final one never a corrected one: it is [`Standing::Late`]
//! if it came after, and superseded if it came before. Every version is kept.
//!
//! Limits: [`ARRIVALS_MAX`] documents of one report, more are refused, and a person must look;
//! [`PREDECESSORS_MAX`] documents that each of them replaces.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::report::{FormKind, Report, Status};
use crate::cargo::Sha256;
use crate::clock::Timestamp;

/// Longest time between two forms of one version.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Most documents of one report.
pub const ARRIVALS_MAX: usize = 128;
/// Most documents that one is remembered to replace: the first ones.
pub const PREDECESSORS_MAX: usize = 4;

/// A document as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Arrival {
    /// [`Report::digest`].
    #[n(0)]
    pub digest: Sha256,
    /// Key of the cargo that holds it.
    #[n(1)]
    pub cargo: String,
    /// What its sender calls it; empty when it has no id.
    #[n(2)]
    pub document: String,
    /// How far.
    #[n(3)]
    pub status: Status,
    /// Whether somebody has signed.
    #[n(4)]
    pub is_signed: bool,
    /// In which forms it came, those made here left out.
    #[n(5)]
    pub forms: BTreeSet<FormKind>,
    /// Ids of documents that it replaces.
    #[n(6)]
    pub predecessors: Vec<String>,
    /// When it was written, as its sender says.
    #[n(7)]
    pub written_at: Option<Timestamp>,
    /// When it arrived first.
    #[n(8)]
    pub arrived_at: Timestamp,
}

impl Arrival {
    /// Of a report that custody keeps under `cargo`.
    pub fn of(report: &Report, cargo: &str, at: Timestamp) -> Self {
        let own = report.forms.iter().filter(|f| !f.is_derived && f.kind.is_content());
        Self {
            digest: report.digest(),
            cargo: cargo.to_owned(),
            document: report.ids.document.clone(),
            status: report.status,
            is_signed: report.is_signed,
            forms: own.map(|form| form.kind).collect(),
            predecessors: report
                .ids
                .predecessors
                .iter()
                .filter(|id| !id.is_empty())
                .take(PREDECESSORS_MAX)
                .cloned()
                .collect(),
            written_at: report.written_at,
            arrived_at: at,
        }
    }

    fn written(&self) -> Timestamp {
        self.written_at.unwrap_or(self.arrived_at)
    }
}

/// What came of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applied {
    /// It is the latest version, or another form of it.
    Latest,
    /// It is kept, and something later is there already: nothing is delivered, and it is logged.
    Late,
    /// The same document was here before.
    Duplicate,
    /// More than [`ARRIVALS_MAX`]: not kept here; a person must look.
    Full,
}

/// Where a version stands among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It counts.
    Latest,
    /// It counted, until a later one came.
    Superseded,
    /// A later one was there when it came: it never counted.
    Late,
}

/// One version of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version<'a> {
    /// How far.
    pub status: Status,
    /// When it was written, or else arrived.
    pub written_at: Timestamp,
    /// When its first form arrived.
    pub arrived_at: Timestamp,
    /// Where it stands.
    pub standing: Standing,
    /// Its documents, in the order in which they were written.
    pub documents: Vec<&'a Arrival>,
}

impl Version<'_> {
    /// The forms in which it came.
    pub fn forms(&self) -> BTreeSet<FormKind> {
        self.documents.iter().flat_map(|d| d.forms.iter().copied()).collect()
    }

    /// Whether somebody has signed.
    pub fn is_signed(&self) -> bool {
        self.documents.iter().any(|d| d.is_signed)
    }
}

/// All documents of one report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Chain {
    #[n(0)]
    arrivals: BTreeMap<Sha256, Arrival>,
}

impl Chain {
    /// Takes a document in.
    pub fn apply(&mut self, arrival: Arrival) -> Applied {
        let digest = arrival.digest;
        if let Some(known) = self.arrivals.get_mut(&digest) {
            // Which of two it is that was first does not depend on which is heard first; the cargo
            // that holds it stays with it.
            let earlier = |a: &Arrival| (a.arrived_at, a.cargo.clone());
            if earlier(&arrival) < earlier(known) {
                *known = arrival;
            }
            return Applied::Duplicate;
        }
        if self.arrivals.len() == ARRIVALS_MAX {
            return Applied::Full;
        }
        self.arrivals.insert(digest, arrival);
        let latest = self.latest().is_some_and(|v| v.documents.iter().any(|d| d.digest == digest));
        if latest { Applied::Latest } else { Applied::Late }
    }

    /// The documents, in no order that means anything.
    pub fn arrivals(&self) -> impl Iterator<Item = &Arrival> {
        self.arrivals.values()
    }

    /// The version that counts.
    pub fn latest(&self) -> Option<Version<'_>> {
        self.versions().pop()
    }

    /// Final reports that were written after the corrected one that counts: perhaps a sender
    /// corrects by sending a final report again. They do not count; a person should be told.
    pub fn doubtful(&self) -> Vec<Version<'_>> {
        let mut versions = self.versions();
        let Some(latest) = versions.pop() else { return versions };
        let is_after =
            |v: &Version<'_>| v.status == Status::Final && v.written_at > latest.written_at;
        versions.retain(|v| latest.status != Status::Final && is_after(v));
        versions
    }

    /// All versions, the latest last.
    pub fn versions(&self) -> Vec<Version<'_>> {
        let mut groups = self.groups();
        let order = order(&groups);
        let mut sorted: Vec<usize> = (0..groups.len()).collect();
        sorted.sort_by_key(|n| order[*n]);
        let count = sorted.len();
        let arrived = |group: &Vec<&Arrival>| group.iter().map(|a| a.arrived_at).min();
        let first: Vec<Timestamp> = groups.iter().map(|g| arrived(g).unwrap_or_default()).collect();
        let versions = sorted.iter().enumerate().map(|(place, n)| {
            let later = &sorted[place + 1..];
            let standing = if place + 1 == count {
                Standing::Latest
            } else if later.iter().any(|l| first[*l] < first[*n]) {
                Standing::Late
            } else {
                Standing::Superseded
            };
            let documents = std::mem::take(&mut groups[*n]);
            Version {
                status: documents[0].status,
                written_at: documents[0].written(),
                arrived_at: first[*n],
                standing,
                documents,
            }
        });
        versions.collect()
    }

    /// Documents by version; the rules stand in the module. Never an empty group.
    fn groups(&self) -> Vec<Vec<&Arrival>> {
        let mut sorted: Vec<&Arrival> = self.arrivals.values().collect();
        sorted.sort_by_key(|a| (a.status, a.written(), a.digest));
        let mut groups: Vec<Vec<&Arrival>> = Vec::new();
        let forms = |group: &[&Arrival]| -> BTreeSet<FormKind> {
            group.iter().flat_map(|a| a.forms.iter().copied()).collect()
        };
        // One id first: with the last group of that id and status.
        let mut by_id: BTreeMap<(&str, Status), usize> = BTreeMap::new();
        for arrival in sorted {
            let key = (arrival.document.as_str(), arrival.status);
            let named = by_id.get(&key).copied().filter(|_| !arrival.document.is_empty());
            match named.filter(|n| forms(&groups[*n]).is_disjoint(&arrival.forms)) {
                Some(n) => groups[n].push(arrival),
                None => {
                    by_id.insert(key, groups.len());
                    groups.push(vec![arrival]);
                }
            }
        }
        let mut out: Vec<Vec<&Arrival>> = Vec::new();
        for group in groups {
            let (status, at) = (group[0].status, group[0].written());
            let brought = forms(&group);
            let same = |other: &&mut Vec<&Arrival>| {
                other[0].status == status
                    && at <= other[0].written() + WINDOW
                    && forms(other).is_disjoint(&brought)
            };
            // Sorted by time: the last one that fits is the nearest before it.
            match out.iter_mut().rev().find(same) {
                Some(other) => other.extend(group),
                None => out.push(group),
            }
        }
        out
    }
}

/// The place of each group: rank, then time, moved behind what it replaces, then digest.
fn order(groups: &[Vec<&Arrival>]) -> Vec<(u8, Timestamp, Sha256)> {
    let rank = |status| match status {
        Status::Preliminary => 0,
        Status::Final => 1,
        // What was withdrawn can be reported again: the later of the two counts.
        Status::Corrected | Status::Cancelled => 2,
    };
    let mut times: Vec<Timestamp> = groups.iter().map(|g| g[0].written()).collect();
    let holder =
        |id: &str| groups.iter().position(|g| g.iter().any(|a| !id.is_empty() && a.document == id));
    let replaces: Vec<Vec<usize>> = groups
        .iter()
        .map(|g| g.iter().flat_map(|a| &a.predecessors).filter_map(|id| holder(id)).collect())
        .collect();
    // A circle of replacements ends after as many rounds as there are versions.
    for _ in 0..groups.len() {
        let mut moved = false;
        for n in 0..groups.len() {
            let before = replaces[n].iter().filter(|p| **p != n).map(|p| times[*p]).max();
            if let Some(before) = before.filter(|before| *before >= times[n]) {
                times[n] = before + Duration::from_millis(1);
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let digest = |g: &Vec<&Arrival>| g.iter().map(|a| a.digest).min().unwrap_or(Sha256([0; 32]));
    groups.iter().enumerate().map(|(n, g)| (rank(g[0].status), times[n], digest(g))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrival(n: u8, status: Status, form: FormKind, written: i64, arrived: i64) -> Arrival {
        Arrival {
            digest: Sha256([n; 32]),
            cargo: format!("c{n}"),
            document: String::new(),
            status,
            is_signed: true,
            forms: [form].into(),
            predecessors: vec![],
            written_at: Some(Timestamp(written * 1000)),
            arrived_at: Timestamp(arrived * 1000),
        }
    }

    fn text(n: u8, status: Status, written: i64) -> Arrival {
        arrival(n, status, FormKind::Text, written, written)
    }

    fn shown(chain: &Chain) -> Vec<(Status, Standing, Vec<u8>)> {
        let numbers = |v: &Version<'_>| v.documents.iter().map(|d| d.digest.0[0]).collect();
        chain.versions().iter().map(|v| (v.status, v.standing, numbers(v))).collect()
    }

    #[test]
    fn preliminary_final_and_corrected_follow_each_other_and_never_go_back() {
        let mut chain = Chain::default();
        assert_eq!(chain.apply(text(1, Status::Preliminary, 100)), Applied::Latest);
        assert_eq!(chain.apply(text(2, Status::Final, 5_000)), Applied::Latest);
        assert_eq!(chain.apply(text(3, Status::Preliminary, 9_000)), Applied::Late);
        assert_eq!(chain.apply(text(4, Status::Corrected, 4_000)), Applied::Latest, "by its rank");
        let doubtful = |chain: &Chain| chain.doubtful().len();
        assert_eq!(doubtful(&chain), 1, "the final one was written after the correction");
        assert_eq!(chain.apply(text(5, Status::Final, 20_000)), Applied::Late);
        assert_eq!(doubtful(&chain), 2);
        assert_eq!(chain.apply(text(2, Status::Final, 5_000)), Applied::Duplicate);
        use Standing::{Late, Latest, Superseded};
        assert_eq!(
            shown(&chain),
            [
                (Status::Preliminary, Superseded, vec![1]),
                (Status::Preliminary, Late, vec![3]),
                (Status::Final, Late, vec![2]),
                (Status::Final, Late, vec![5]),
                (Status::Corrected, Latest, vec![4]),
            ]
        );
    }

    #[test]
    fn what_was_withdrawn_can_be_reported_again() {
        let mut chain = Chain::default();
        chain.apply(text(1, Status::Final, 0));
        assert_eq!(chain.apply(text(2, Status::Cancelled, 1_000)), Applied::Latest);
        assert_eq!(
            chain.apply(text(3, Status::Final, 2_000)),
            Applied::Late,
            "not by a mere final"
        );
        assert_eq!(chain.apply(text(4, Status::Corrected, 3_000)), Applied::Latest);
    }

    #[test]
    fn a_text_and_its_pdf_are_one_version_and_two_texts_are_two() {
        let mut chain = Chain::default();
        chain.apply(text(1, Status::Final, 1_000));
        let pdf = arrival(2, Status::Final, FormKind::Pdf, 1_300, 1_300);
        assert_eq!(chain.apply(pdf), Applied::Latest);
        chain.apply(text(3, Status::Final, 1_400));
        let late = arrival(4, Status::Final, FormKind::Pdf, 9_000, 9_000);
        chain.apply(late);
        let documents: Vec<Vec<u8>> = shown(&chain).into_iter().map(|(_, _, d)| d).collect();
        assert_eq!(documents, [vec![1, 2], vec![3], vec![4]]);
        let same_id = |n, form, written| {
            let document = "1.2.9".into();
            Arrival { document, ..arrival(n, Status::Corrected, form, written, written) }
        };
        chain.apply(same_id(5, FormKind::Structured, 10_000));
        chain.apply(same_id(6, FormKind::Text, 99_000));
        assert_eq!(shown(&chain).pop().unwrap().2, [5, 6], "whenever it was written");
        assert_eq!(chain.latest().unwrap().forms().len(), 2);
    }

    #[test]
    fn what_a_document_says_that_it_replaces_is_never_after_it() {
        let mut chain = Chain::default();
        let named = |n: u8, document: &str, before: &[&str], written| Arrival {
            document: document.into(),
            predecessors: before.iter().map(|p| (*p).to_owned()).collect(),
            ..text(n, Status::Corrected, written)
        };
        chain.apply(named(1, "c", &["b"], 100));
        chain.apply(named(2, "b", &["a"], 5_000));
        chain.apply(named(3, "a", &[], 90_000));
        let order: Vec<u8> = shown(&chain).iter().map(|(_, _, d)| d[0]).collect();
        assert_eq!(order, [3, 2, 1]);
        chain.apply(named(4, "x", &["y"], 1));
        chain.apply(named(5, "y", &["x", "y"], 1));
        assert_eq!(chain.versions().len(), 5, "a circle ends");
    }

    #[test]
    fn more_documents_than_are_kept_are_refused_and_all_that_is_kept_survives() {
        let mut chain = Chain::default();
        for n in 0..ARRIVALS_MAX {
            let mut arrival = text(0, Status::Final, n as i64 * 1_000);
            arrival.digest = Sha256::of(&n.to_be_bytes());
            assert_eq!(chain.apply(arrival), Applied::Latest);
        }
        assert_eq!(chain.apply(text(1, Status::Final, 9)), Applied::Full);
        let bytes = minicbor::to_vec(&chain).unwrap();
        assert_eq!(minicbor::decode::<Chain>(&bytes).unwrap(), chain);
    }

    fn some() -> impl Strategy<Value = Arrival> {
        use FormKind::{Cda, Pdf, Structured, Text};
        let status = proptest::sample::select(vec![
            Status::Preliminary,
            Status::Final,
            Status::Corrected,
            Status::Cancelled,
        ]);
        let form = proptest::sample::select(vec![Text, Pdf, Structured, Cda]);
        let id = proptest::sample::select(vec!["", "", "a", "b", "c"]);
        let before = proptest::sample::subsequence(vec!["a", "b", "c"], 0..3);
        let times = (proptest::option::of(0..3_000_i64), 0..3_000_i64);
        (any::<u8>(), status, form, id, before, times).prop_map(
            |(n, status, form, id, before, (written, arrived))| Arrival {
                document: id.into(),
                predecessors: before.iter().map(|b| (*b).to_owned()).collect(),
                written_at: written.map(|w| Timestamp(w * 1000)),
                ..arrival(n, status, form, 0, arrived)
            },
        )
    }

    proptest! {
        #[test]
        fn the_state_does_not_depend_on_the_order_of_arrival_nor_on_how_often(
            all in proptest::collection::vec(some(), 1..12),
            seed in any::<u64>(),
            again in 0..12_usize,
        ) {
            // One digest, one document: what differs is when and in which cargo it came.
            let mut documents: BTreeMap<Sha256, Arrival> = BTreeMap::new();
            let all: Vec<Arrival> = all
                .into_iter()
                .map(|a| {
                    let first = documents.entry(a.digest).or_insert_with(|| a.clone()).clone();
                    Arrival { arrived_at: a.arrived_at, cargo: a.cargo, ..first }
                })
                .collect();
            let (mut straight, mut mixed) = (Chain::default(), Chain::default());
            for a in &all {
                straight.apply(a.clone());
            }
            let mut shuffled = all.clone();
            shuffled.sort_by_key(|a| seed.rotate_left(u32::from(a.digest.0[0])) ^ a.arrived_at.0 as u64);
            for a in shuffled.iter().chain(&all[..again.min(all.len())]) {
                mixed.apply(a.clone());
            }
            prop_assert_eq!(&straight, &mixed);
            let versions = straight.versions();
            let kept: usize = versions.iter().map(|v| v.documents.len()).sum();
            prop_assert_eq!(kept, documents.len(), "every document is in one version");
            let latest = versions.last().unwrap();
            let order = |s: Status| if s == Status::Cancelled { Status::Corrected } else { s };
            for version in &versions {
                prop_assert!(order(version.status) <= order(latest.status));
                prop_assert_eq!(version.standing == Standing::Latest, version == latest);
            }
        }
    }
}
