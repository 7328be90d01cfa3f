//! Keys and terms of the book of orders. Pure.
//!
//! Names and numbers that peers choose stand in them as digests: bounded, whatever their length.

use std::borrow::Cow;

use minicbor::Encode;

use super::record::StudyRef;
use crate::cargo::{Hasher, NodeName};
use crate::custody::register::Entry;
use crate::orders::evidence::Statement;
use crate::orders::identifier::{Identifier, Patient};
use crate::orders::instance::Instance;
use crate::orders::matching::StudyFacts;
use crate::orders::order::{Order, OrderKey};
use crate::orders::part::Part;
use crate::orders::stand_in;

/// Study UIDs, procedures and patient numbers by which an order is found.
const FOUND_BY_MAX: usize = 8;
/// Numbers of its parts by which an order is found; with all others they fit into one entry.
const FOUND_BY_PARTS_MAX: usize = 200;

/// Whether a case is open.
pub(super) const OPEN: &[u8] = b"open";
/// Whether an order, or a study's manifest, is to be handed to custody for other nodes.
pub(super) const TO_CARRY: &[u8] = b"carry";
/// Whether receivers of HL7 may have to be told of an order.
pub(super) const TO_TELL: &[u8] = b"tell";
/// Whether duties of a study are to be held or released.
pub(super) const HOLDS: &[u8] = b"holds";
/// Whether the source of a study is to be asked.
pub(super) const RECALL: &[u8] = b"recall";
/// Whether a study is a prior.
pub(super) const PRIOR: &[u8] = b"prior";
/// Whether the priors of an order are to be asked for.
pub(super) const PRIORS: &[u8] = b"priors";
/// Where `Cursor` stands.
pub(super) const CURSOR: &[u8] = b"c";

/// Says that all orders bear the terms of the worklist.
pub(super) const INDEXED: &[u8] = b"v-worklist";

/// What stands in keys and terms for names of any length.
fn digest(kind: u8, parts: &[&str]) -> Vec<u8> {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let mut out = vec![kind];
    out.extend_from_slice(&hasher.finish().0[..16]);
    out
}

pub(super) fn order_key(order: &OrderKey) -> Vec<u8> {
    digest(b'o', &[order.origin.as_str(), &order.number])
}

pub(super) fn study_key(study: &StudyRef) -> Vec<u8> {
    digest(b's', &[study.origin.as_str(), &study.study])
}

/// What all pages of a study begin with.
pub(super) fn pages(study: &StudyRef) -> Vec<u8> {
    digest(b'i', &[study.origin.as_str(), &study.study])
}

pub(super) fn page_key(study: &StudyRef, page: u32) -> Vec<u8> {
    [&pages(study)[..], &page.to_be_bytes()].concat()
}

/// What all evidence of a study begins with.
pub(super) fn evidence(study: &StudyRef) -> Vec<u8> {
    digest(b'e', &[study.origin.as_str(), &study.study])
}

/// `part` makes it differ from what was said under the same id before.
pub(super) fn evidence_key(study: &StudyRef, statement: &Statement, part: u32) -> Vec<u8> {
    let id = digest(statement.said.kind(), &[&statement.id]);
    [&evidence(study)[..], &id, &part.to_be_bytes()].concat()
}

pub(super) fn step_key(instance: &str) -> Vec<u8> {
    digest(b'm', &[instance])
}

/// Where the manifest of another node stands.
pub(super) fn manifest_key(study: &StudyRef) -> Vec<u8> {
    digest(b'f', &[study.origin.as_str(), &study.study])
}

/// Where it stands what was tried for a study.
pub(super) fn recall_key(study: &StudyRef) -> Vec<u8> {
    digest(b'r', &[study.origin.as_str(), &study.study])
}

/// Where it stands what was asked for an order.
pub(super) fn priors_key(order: &OrderKey) -> Vec<u8> {
    digest(b'v', &[order.origin.as_str(), &order.number])
}

/// Where it stands which withdrawn images of a study a person has acknowledged.
pub(super) fn seen_key(study: &StudyRef) -> Vec<u8> {
    digest(b'k', &[study.origin.as_str(), &study.study])
}

/// Where it stands what was corrected of a study.
pub(super) fn corrected_key(study: &StudyRef) -> Vec<u8> {
    digest(b'C', &[study.origin.as_str(), &study.study])
}

pub(super) fn merge_key(origin: &NodeName, retired: &Identifier) -> Vec<u8> {
    let authority = &retired.authority;
    let parts = [origin.as_str(), &retired.id, &authority.namespace, &authority.universal];
    digest(b'p', &parts)
}

pub(super) fn answer_key(slot: u32) -> Vec<u8> {
    [b"a", &slot.to_be_bytes()[..]].concat()
}

/// Where stands what a worklist has said of the order with this number.
pub(super) fn said_key(worklist: &str, number: &str) -> Vec<u8> {
    digest(b'w', &[worklist, number])
}

/// Finds the answer to a message.
pub(super) fn answer_term(application: &str, facility: &str, control_id: &str) -> Vec<u8> {
    digest(b'm', &[application, facility, control_id])
}

/// Finds the studies of an order.
pub(super) fn order_of_study(order: &OrderKey) -> Vec<u8> {
    digest(b'O', &[order.origin.as_str(), &order.number])
}

/// Finds the priors of an order.
pub(super) fn order_of_prior(order: &OrderKey) -> Vec<u8> {
    digest(b'V', &[order.origin.as_str(), &order.number])
}

/// A kind of number by which orders and studies find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Study,
    Accession,
    Filler,
    Placer,
    Procedure,
    Patient,
}

impl Number {
    /// Finds orders that bear it.
    pub(super) fn of_order(self, origin: &NodeName, id: &str) -> Vec<u8> {
        digest(b"SAFPRI"[self as usize], &[origin.as_str(), id])
    }

    /// Finds studies that bear it.
    pub(super) fn of_study(self, origin: &NodeName, id: &str) -> Vec<u8> {
        digest(b"safpri"[self as usize], &[origin.as_str(), id])
    }
}

/// The numbers of an order, and those that stand in for what it has none of.
pub(super) fn order_numbers<'a>(order: &'a Order) -> Vec<(Number, Cow<'a, str>)> {
    let c = &order.content;
    let mut all: Vec<(Number, &str)> = Vec::new();
    all.extend(c.studies.iter().take(FOUND_BY_MAX).map(|s| (Number::Study, s.as_str())));
    for (kind, id) in [
        (Number::Accession, &c.accession),
        (Number::Filler, &c.filler),
        (Number::Placer, &c.placer),
    ] {
        all.extend(id.as_ref().map(|id| (kind, id.id.as_str())));
    }
    let procedures = c.procedures.iter().take(FOUND_BY_MAX);
    all.extend(procedures.map(|p| (Number::Procedure, p.requested.as_str())));
    all.extend(patient_numbers(&c.patient));
    let part = |p: &'a Part| {
        let bare = |id: &'a Option<Identifier>| id.as_ref().map(|id| id.id.as_str());
        let numbers = [(Number::Accession, bare(&p.accession)), (Number::Filler, bare(&p.filler))];
        let numbers = numbers.into_iter().filter_map(|(kind, id)| Some((kind, id?)));
        let studies = p.studies.iter().map(|s| (Number::Study, s.as_str()));
        let procedures = p.procedures.iter().map(|p| (Number::Procedure, p.requested.as_str()));
        [(Number::Placer, p.number.as_str())]
            .into_iter()
            .chain(numbers)
            .chain(studies)
            .chain(procedures)
    };
    let mut parts: Vec<(Number, &str)> = c.parts.iter().flat_map(part).collect();
    parts.retain(|number| !all.contains(number));
    // What children share with each other, such as their study, is one number; those that are
    // their own come first.
    parts.sort_by_key(|(kind, _)| match kind {
        Number::Procedure => 2,
        Number::Study => 1,
        _ => 0,
    });
    let mut known = std::collections::HashSet::new();
    parts.retain(|(kind, id)| known.insert((*kind as u8, *id)));
    all.extend(parts.into_iter().take(FOUND_BY_PARTS_MAX));
    all.retain(|(_, id)| !id.is_empty());
    let mut all: Vec<_> = all.into_iter().map(|(kind, id)| (kind, Cow::Borrowed(id))).collect();
    all.push((Number::Study, stand_in::study_uid(&order.key).into()));
    let requested = stand_in::requested_ids(&order.with_parts(), FOUND_BY_MAX).into_iter();
    all.extend(requested.map(|id| (Number::Procedure, id.into())));
    all
}

fn patient_numbers(patient: &Patient) -> impl Iterator<Item = (Number, &str)> {
    let ids = patient.ids.iter().chain(&patient.former).take(FOUND_BY_MAX);
    ids.map(|id| (Number::Patient, id.id.as_str()))
}

pub(super) fn order_terms(order: &Order) -> Vec<Vec<u8>> {
    let origin = &order.key.origin;
    order_numbers(order).into_iter().map(|(kind, id)| kind.of_order(origin, &id)).collect()
}

/// The numbers of a study.
pub(super) fn study_numbers(facts: &StudyFacts) -> Vec<(Number, &str)> {
    let mut all = vec![(Number::Study, facts.study.as_str())];
    for (kind, id) in [
        (Number::Accession, &facts.accession),
        (Number::Filler, &facts.filler),
        (Number::Placer, &facts.placer),
    ] {
        all.extend(id.as_ref().map(|id| (kind, id.id.as_str())));
    }
    let procedures = facts.procedures.iter().take(FOUND_BY_MAX);
    all.extend(procedures.map(|(requested, _)| (Number::Procedure, requested.as_str())));
    all.extend(patient_numbers(&facts.patient));
    all.retain(|(_, id)| !id.is_empty());
    all
}

pub(super) fn study_terms(facts: &StudyFacts) -> Vec<Vec<u8>> {
    let numbers = study_numbers(facts);
    numbers.into_iter().map(|(kind, id)| kind.of_study(&facts.origin, id)).collect()
}

/// An entry; equal terms once.
pub(super) fn entry(key: Vec<u8>, body: &impl Encode<()>, mut terms: Vec<Vec<u8>>) -> Entry {
    terms.sort();
    terms.dedup();
    let body = minicbor::to_vec(body).expect("encoding into memory cannot fail");
    Entry { key, body, terms: terms.into_iter().map(Into::into).collect() }
}

/// The instances of one page.
pub(super) fn page_entry(study: &StudyRef, page: u32, instances: &[Instance]) -> Entry {
    entry(page_key(study, page), &instances, Vec::new())
}
