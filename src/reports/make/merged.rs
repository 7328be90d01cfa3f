//! The documents of one version as one.

use crate::orders::identifier::Patient;
use crate::reports::report::{BYTES_MAX, FORMS_MAX, Form, FormKind, Report};

/// One report of all documents of one version, given in the order in which they were written: the
/// last one's facts count, what it does not say is filled from those before it, the latest first.
/// Of each form there is one, the latest; a form that was made here gives way to one that was
/// received. Lists are united, the latest one's entries first. What is beyond the limits of
/// [`Report`] is left out, envelopes first.
///
/// # Panics
///
/// Without any document: a version has one.
pub fn merged(reports: &[Report]) -> Report {
    let (last, earlier) = reports.split_last().expect("a version has a document");
    let mut all = Report { forms: vec![], ..last.clone() };
    for report in earlier.iter().rev() {
        fill(&mut all, report);
    }
    all.forms = forms(reports);
    all.bound();
    all
}

fn fill(all: &mut Report, earlier: &Report) {
    for (own, other) in [
        (&mut all.ids.document, &earlier.ids.document),
        (&mut all.title, &earlier.title),
        (&mut all.language, &earlier.language),
        (&mut all.source, &earlier.source),
    ] {
        if own.is_empty() {
            own.clone_from(other);
        }
    }
    let ids = &mut all.ids;
    ids.placer = ids.placer.take().or_else(|| earlier.ids.placer.clone());
    ids.filler = ids.filler.take().or_else(|| earlier.ids.filler.clone());
    unite(&mut ids.accessions, &earlier.ids.accessions);
    unite(&mut ids.studies, &earlier.ids.studies);
    unite(&mut ids.instances, &earlier.ids.instances);
    unite(&mut ids.predecessors, &earlier.ids.predecessors);
    unite(&mut all.authors, &earlier.authors);
    unite(&mut all.verifiers, &earlier.verifiers);
    unite(&mut all.critical, &earlier.critical);
    all.written_at = all.written_at.or(earlier.written_at);
    // One form of a version may name the signer where another has no room for it.
    all.is_signed |= earlier.is_signed;
    all.is_addendum |= earlier.is_addendum;
    fill_patient(&mut all.patient, &earlier.patient);
}

fn fill_patient(own: &mut Patient, earlier: &Patient) {
    unite(&mut own.ids, &earlier.ids);
    unite(&mut own.former, &earlier.former);
    unite(&mut own.names, &earlier.names);
    for (own, other) in [(&mut own.birth_date, &earlier.birth_date), (&mut own.sex, &earlier.sex)] {
        if own.is_empty() {
            own.clone_from(other);
        }
    }
}

fn unite<T: Clone + PartialEq>(own: &mut Vec<T>, other: &[T]) {
    let new: Vec<T> = other.iter().filter(|item| !own.contains(item)).cloned().collect();
    own.extend(new);
}

/// One of each kind, content before envelopes.
fn forms(reports: &[Report]) -> Vec<Form> {
    let latest = || reports.iter().rev().flat_map(|report| &report.forms);
    let mut chosen: Vec<&Form> = Vec::new();
    let mut seen: Vec<FormKind> = Vec::new();
    for form in latest() {
        if !seen.contains(&form.kind) {
            seen.push(form.kind);
            let received = latest().find(|f| f.kind == form.kind && !f.is_derived);
            chosen.push(received.unwrap_or(form));
        }
    }
    chosen.sort_by_key(|form| !form.kind.is_content());
    let mut bytes = 0;
    chosen.retain(|form| {
        let fits = bytes + form.bytes.len() <= BYTES_MAX;
        bytes += if fits { form.bytes.len() } else { 0 };
        fits
    });
    chosen.into_iter().take(FORMS_MAX).cloned().collect()
}
