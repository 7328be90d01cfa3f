//! DICOM documents of a version: as they came, or new ones.

use super::facts::{self, WITHDRAWN, words};
use super::{Anew, Home, Made, MakeError, Task, said};
use crate::dicom::EXPLICIT_VR_LE;
use crate::dicom::commitment::Reference;
use crate::dicom::report::{
    self as documents, BASIC_TEXT_SR, Code, DocumentFacts, ENCAPSULATED_CDA, ENCAPSULATED_PDF,
    EncapsulatedKind, Evidence, NewDocument, Observer, RequestFacts, Stage, repertoire,
};
use crate::orders::identifier::{Agreement, Authority, Identifier};
use crate::reports::home::Source;
use crate::reports::report::{Form, FormKind, Reader, Status};

/// What a new document is around.
enum Content {
    Sections,
    Around(EncapsulatedKind, Vec<u8>),
}

/// The instance.
pub(super) fn make(
    task: &Task<'_>,
    structured: bool,
    from: Source,
    home: &Home,
) -> Result<Made, MakeError> {
    let (content, anew) = match from {
        Source::Received(kind @ (FormKind::Structured | FormKind::Encapsulated)) => {
            let form = task.report.form(kind).ok_or(MakeError::Form(kind.shown()))?;
            let read = documents::read(&form.bytes, &form.syntax)
                .map_err(|_| MakeError::Form(kind.shown()))?;
            let Some(anew) = doubt(task, &read.facts) else {
                return Ok(as_received(form, read.facts));
            };
            (instead(task, structured).ok_or(MakeError::Alone(anew))?, Some(anew))
        }
        Source::Around(FormKind::Cda) => (around(task, FormKind::Cda)?, None),
        Source::PagesOfText => {
            (Content::Around(EncapsulatedKind::Pdf, said::pages(task, home)?), None)
        }
        _ if structured => (Content::Sections, None),
        _ => (around(task, FormKind::Pdf)?, None),
    };
    new(task, &content, anew, home)
}

fn around(task: &Task<'_>, kind: FormKind) -> Result<Content, MakeError> {
    let encapsulated =
        if kind == FormKind::Cda { EncapsulatedKind::Cda } else { EncapsulatedKind::Pdf };
    Ok(Content::Around(encapsulated, task.form(kind)?.to_vec()))
}

/// What is said in place of a document that cannot go on as it is.
fn instead(task: &Task<'_>, structured: bool) -> Option<Content> {
    if structured {
        let told = said::text(task, Source::StructuredOfText).ok()?;
        let withdrawn = task.report.status == Status::Cancelled;
        return (withdrawn || !told.trim().is_empty()).then_some(Content::Sections);
    }
    around(task, FormKind::Pdf).or_else(|_| around(task, FormKind::Cda)).ok()
}

/// Why a document that was received cannot go on as it is, if it cannot.
fn doubt(task: &Task<'_>, facts: &DocumentFacts) -> Option<Anew> {
    if task.report.status == Status::Cancelled {
        return Some(Anew::Withdrawn);
    }
    let studies = facts::studies(task);
    if !studies.is_empty() && !studies.contains(&facts.study) {
        return Some(Anew::Study);
    }
    let own = &facts::patient(task).ids;
    let authority = Authority {
        namespace: facts.patient.issuer.clone(),
        universal: facts.patient.issuer_universal.clone(),
    };
    let named = Identifier { id: facts.patient.id.trim().to_owned(), authority };
    let differs = !own.is_empty()
        && named.is_named()
        && own.iter().all(|id| id.agrees(&named) == Agreement::Different);
    differs.then_some(Anew::Patient)
}

fn as_received(form: &Form, facts: DocumentFacts) -> Made {
    Made::Instance {
        uid: facts.sop_instance,
        class: facts.sop_class,
        series: facts.series,
        syntax: form.syntax.clone(),
        bytes: form.bytes.clone(),
        anew: None,
    }
}

fn new(
    task: &Task<'_>,
    content: &Content,
    anew: Option<Anew>,
    home: &Home,
) -> Result<Made, MakeError> {
    let class = match content {
        Content::Sections => BASIC_TEXT_SR,
        Content::Around(EncapsulatedKind::Pdf, _) => ENCAPSULATED_PDF,
        Content::Around(EncapsulatedKind::Cda, _) => ENCAPSULATED_CDA,
    };
    let study = facts::studies(task).into_iter().next().ok_or(MakeError::NoStudy)?;
    let uid = facts::uid(task.digest(true, class));
    // All versions of one kind stand in one series.
    let series = facts::uid(task.digest(false, class));
    let (report, style) = (task.report, &home.document);
    let patient = facts::patient_of_document(task);
    let accession = facts::accession(task).unwrap_or_default();
    let written = facts::written_at(task);
    let [date, time, zone] =
        ["%Y%m%d", "%H%M%S", "%z"].map(|pattern| facts::time(task, written, pattern));
    let readers = facts::readers(task);
    let author = report.authors.first().or(readers.first());
    let author = author.map(name_of).unwrap_or_default();
    let verifiers = report.verifiers.iter().filter(|_| report.is_signed);
    let predecessors: Vec<Evidence> = predecessor(task, &study, &series).into_iter().collect();
    let requests = [request(task, &study)];
    let referrer = task.order.map(|o| facts::person_name([&*o.content.referrer]));
    let document = NewDocument {
        uid: &uid,
        series: &series,
        study: &study,
        number: task.number,
        patient: &patient,
        accession: &accession.id,
        accession_issuer: (&accession.authority.namespace, &accession.authority.universal),
        title: style.title.clone(),
        name: &title(task, home),
        institution: &style.institution,
        manufacturer: &style.manufacturer,
        referrer: &referrer.unwrap_or_default(),
        language: &report.language,
        stage: stage(report.status),
        written_at: (&date, &time),
        zone: &zone,
        verifiers: verifiers.map(|reader| observer(task, reader)).collect(),
        author: &author,
        predecessors: &predecessors,
        requests: &requests,
        evidence: &[],
    };
    let repertoire = repertoire(style.japanese);
    let bytes = match content {
        Content::Sections => document.write_structured(&said::sections(task, home)?, repertoire)?,
        Content::Around(kind, bytes) => document.write_encapsulated(*kind, bytes, repertoire)?,
    };
    let (class, syntax) = (class.to_owned(), EXPLICIT_VR_LE.to_owned());
    Ok(Made::Instance { uid, class, series, syntax, bytes, anew })
}

/// docs/decisions/0022: a withdrawn one is a correction that says so.
fn stage(status: Status) -> Stage {
    match status {
        Status::Preliminary => Stage::Preliminary,
        Status::Final => Stage::Final,
        Status::Corrected | Status::Cancelled => Stage::Corrected,
    }
}

/// Document Title: the report's own, and that it is withdrawn.
fn title(task: &Task<'_>, home: &Home) -> String {
    match (task.report.status, task.report.title.as_str()) {
        (Status::Cancelled, "") => words(WITHDRAWN, home),
        (Status::Cancelled, title) => format!("{} {title}", words(WITHDRAWN, home)),
        (_, title) => title.to_owned(),
    }
}

fn name_of(reader: &Reader) -> String {
    match facts::person_name([&*reader.name]) {
        name if name.is_empty() => reader.id.id.clone(),
        name => name,
    }
}

fn observer(task: &Task<'_>, reader: &Reader) -> Observer {
    let name = name_of(reader);
    let (value, scheme) = (&reader.id.id, &reader.id.authority.namespace);
    let fits = |text: &str| (1..=16).contains(&text.chars().count());
    // A code has a scheme (PS3.3 8.8); a bare number says nothing.
    let code = match fits(value) && fits(scheme) && !name.is_empty() {
        true => Code::new(value, scheme, &name.chars().take(64).collect::<String>()),
        false => Code::default(),
    };
    let at = reader.at.map(|at| facts::time(task, at, "%Y%m%d%H%M%S%z")).unwrap_or_default();
    Observer { name, organization: reader.organization.clone(), at, code }
}

/// What the destination has, which the new document replaces.
fn predecessor(task: &Task<'_>, study: &str, own: &str) -> Option<Evidence> {
    let before = task.before?;
    let series = if before.series.is_empty() { own } else { &before.series };
    let reference = Reference { class: before.class.clone(), instance: before.uid.clone() };
    Some(Evidence { study: study.to_owned(), series: series.to_owned(), reference })
}

fn request(task: &Task<'_>, study: &str) -> RequestFacts {
    let number = |id: Option<Identifier>| id.map(|id| id.id).unwrap_or_default();
    let (placer, filler) = facts::numbers(task);
    let accession = facts::accession(task).unwrap_or_default();
    RequestFacts {
        study: study.to_owned(),
        accession: accession.id,
        accession_issuer: (accession.authority.namespace, accession.authority.universal),
        placer: number(placer),
        filler: number(filler),
        requested_procedure: facts::procedure(task)
            .map(|p| p.requested.clone())
            .unwrap_or_default(),
    }
}
