//! What is known of a version, of order and report together: the order's word counts, because the
//! hospital's systems know it.

use super::{Home, Task};
use crate::cargo::Sha256;
use crate::clock::Timestamp;
use crate::dicom::report::PatientFacts;
use crate::hl7::report::ResultStatus;
use crate::orders::identifier::{Identifier, Patient, representation};
use crate::orders::order::Procedure;
use crate::orders::part::Part;
use crate::orders::stand_in;
use crate::orders::words::Language;
use crate::reports::report::{Reader, Status};

/// Words of ours that a report gets: in English, in Japanese.
pub(super) type Words = (&'static str, &'static str);

/// In front of a withdrawn report.
pub(super) const WITHDRAWN: Words =
    ("This report has been withdrawn.", "この報告書は取り消されました。");
/// In place of a text.
pub(super) const ATTACHED: Words = ("See the attached document.", "添付の文書をご覧ください。");

/// Words in the languages of a destination.
pub(super) fn words(words: Words, home: &Home) -> String {
    let one = |language: &Language| match language {
        Language::English => words.0,
        Language::Japanese => words.1,
    };
    match home.languages.as_slice() {
        [] => words.0.to_owned(),
        all => all.iter().map(one).collect::<Vec<_>>().join(" / "),
    }
}

/// How far, in words.
pub(super) fn status(status: Status) -> Words {
    match status {
        Status::Preliminary => ("preliminary", "暫定"),
        Status::Final => ("final", "確定"),
        Status::Corrected => ("corrected", "訂正"),
        Status::Cancelled => ("withdrawn", "取消"),
    }
}

/// Whom it is about.
pub(super) fn patient<'a>(task: &Task<'a>) -> &'a Patient {
    let ordered = task.order.map(|order| &order.content.patient);
    ordered.filter(|patient| !patient.ids.is_empty()).unwrap_or(&task.report.patient)
}

/// The part of the order that the study belongs to, where it has parts with numbers of their own.
fn part<'a>(task: &Task<'a>) -> Option<&'a Part> {
    let study = &task.target.study;
    let here = |part: &&Part| {
        let of_step = part.procedures.iter().any(|procedure| procedure.study == *study);
        !study.is_empty() && (part.studies.contains(study) || of_step)
    };
    task.order?.content.parts.iter().find(here)
}

/// Accession number.
pub(super) fn accession(task: &Task<'_>) -> Option<Identifier> {
    let of_part = part(task).and_then(|part| part.accession.clone());
    let ordered =
        of_part.or_else(|| task.order.and_then(|o| o.content.accessions().next().cloned()));
    ordered.or_else(|| task.report.ids.accessions.first().cloned())
}

/// Placer's and filler's number. An order that has neither is known by its key.
pub(super) fn numbers(task: &Task<'_>) -> (Option<Identifier>, Option<Identifier>) {
    let Some(order) = task.order else {
        return (task.report.ids.placer.clone(), task.report.ids.filler.clone());
    };
    let (placer, filler) = (order.content.placer.clone(), order.content.filler.clone());
    if let Some(part) = part(task) {
        let own = part.filler.clone().or(filler);
        if own.as_ref().is_some_and(|filler| filler.id == part.number) {
            return (placer, own);
        }
        let authority = placer.map(|placer| placer.authority).unwrap_or_default();
        return (Some(Identifier { id: part.number.clone(), authority }), own);
    }
    let neither = placer.is_none() && filler.is_none();
    (if neither { Some(Identifier::bare(&order.key.number)) } else { placer }, filler)
}

/// What was to be done, if an order says so: the step of this study before others.
pub(super) fn procedure<'a>(task: &Task<'a>) -> Option<&'a Procedure> {
    let order = task.order?;
    let here = |p: &&Procedure| !p.study.is_empty() && p.study == task.target.study;
    order.content.all_procedures().find(here).or_else(|| order.content.all_procedures().next())
}

/// Studies, the one that it belongs to first.
pub(super) fn studies(task: &Task<'_>) -> Vec<String> {
    let mut all = vec![task.target.study.clone()];
    if task.target.study.is_empty()
        && let Some(order) = task.order
    {
        all.extend(order.content.all_studies().cloned());
        if all.iter().all(String::is_empty) {
            // What the worklist of this node says in its place.
            all.push(stand_in::study_uid(&order.key));
        }
    }
    all.retain(|study| !study.is_empty());
    all
}

/// Who reads and signs: those who have signed, else those who have written.
pub(super) fn readers<'a>(task: &Task<'a>) -> &'a [Reader] {
    let report = task.report;
    if report.verifiers.is_empty() { &report.authors } else { &report.verifiers }
}

/// When it was written, or else came.
pub(super) fn written_at(task: &Task<'_>) -> Timestamp {
    task.report.written_at.unwrap_or(task.at)
}

/// OBR-25.
pub(super) fn result(task: &Task<'_>, home: &Home) -> ResultStatus {
    match task.report.status {
        Status::Preliminary => ResultStatus::Preliminary,
        Status::Final => ResultStatus::Final,
        Status::Corrected => home.message.corrected,
        Status::Cancelled => ResultStatus::Cancelled,
    }
}

/// A point in time in the hospital's zone, by a pattern of `strftime`.
pub(super) fn time(task: &Task<'_>, at: Timestamp, pattern: &str) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    at.to_zoned(task.zone.clone()).strftime(pattern).to_string()
}

/// A name as people read it.
fn plain(name: &str) -> String {
    let parts = name.split('^').map(str::trim).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// The representation of a name that goes first, if it passes; else another that does.
pub(super) fn representation_of<'a>(
    name: &'a str,
    first: &str,
    passes: impl Fn(&str) -> bool,
) -> &'a str {
    let all: Vec<&str> =
        name.split('=').filter(|n| !n.trim_matches(['^', ' ']).is_empty()).collect();
    let good = || all.iter().filter(|n| passes(n));
    let wanted = good().find(|n| representation(n) == first);
    wanted.or_else(|| good().next()).or_else(|| all.first()).copied().unwrap_or_default()
}

/// What stands in a place of a template.
pub(super) fn fact(task: &Task<'_>, home: &Home, place: &str) -> String {
    let report = task.report;
    let number = |id: Option<Identifier>| id.map(|id| id.id).unwrap_or_default();
    let one = |name: &str| {
        plain(representation_of(name, home.message.representation, |name| {
            home.message.dialect.charset.encode(name).is_ok()
        }))
    };
    match place {
        "accession" => number(accession(task)),
        "code" => result(task, home).code().to_owned(),
        "filler" => number(numbers(task).1),
        "modality" => task.order.map(|o| o.content.any_modality().to_owned()).unwrap_or_default(),
        "number" => task.number.to_string(),
        "patient" => number(patient(task).ids.first().cloned()),
        "placer" => number(numbers(task).0),
        "procedure" => procedure(task).map(|p| p.code.meaning.clone()).unwrap_or_default(),
        "reader" => readers(task).iter().map(|r| one(&r.name)).collect::<Vec<_>>().join(", "),
        "requester" => task.order.map(|o| one(&o.content.requester)).unwrap_or_default(),
        "signed" => {
            let at = report.verifiers.first().and_then(|reader| reader.at);
            at.map(|at| time(task, at, "%Y-%m-%d %H:%M")).unwrap_or_default()
        }
        "source" => report.source.clone(),
        "status" => words(status(report.status), home),
        "study" => studies(task).into_iter().next().unwrap_or_default(),
        "title" => report.title.clone(),
        "written" => time(task, written_at(task), "%Y-%m-%d %H:%M"),
        _ => String::new(),
    }
}

/// A name as DICOM writes it: alphabetic, ideographic and phonetic one after the other.
pub(super) fn person_name<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut groups = [""; 3];
    for name in names.into_iter().flat_map(|name| name.split('=')) {
        let group = match representation(name) {
            "A" => &mut groups[0],
            "I" => &mut groups[1],
            _ => &mut groups[2],
        };
        if group.is_empty() {
            *group = name.trim_matches([' ', '^']);
        }
    }
    groups.join("=").trim_end_matches('=').to_owned()
}

/// The patient as a document has him or her.
pub(super) fn patient_of_document(task: &Task<'_>) -> PatientFacts {
    let patient = patient(task);
    let id = patient.ids.first().cloned().unwrap_or_default();
    let known = |all: &[&str], value: &str| all.contains(&value).then(|| value.to_owned());
    let is_date = patient.birth_date.len() == 8;
    PatientFacts {
        id: id.id,
        issuer: id.authority.namespace,
        issuer_universal: id.authority.universal,
        name: person_name(patient.names.iter().map(String::as_str)),
        birth_date: if is_date { patient.birth_date.clone() } else { String::new() },
        sex: known(&["M", "F", "O"], &patient.sex).unwrap_or_default(),
    }
}

/// A UID under 2.25, from a UUID of version 8 (PS3.5 B.2, RFC 9562 5.8).
pub(super) fn uid(Sha256(digest): Sha256) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0F | 0x80;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}
