//! ORU^R01 of a version, in the dialect of its receiver.

use super::facts::{self, fact};
use super::{Home, Made, MakeError, Service, Task, said};
use crate::hl7::datatype::{Authority as Hl7Authority, Coded, Person};
use crate::hl7::message::Message;
use crate::hl7::patient::Visit;
use crate::hl7::report::{
    Document, Observation, Report as Hl7Report, ReportMessage, ReportSending, Value,
};
use crate::hl7::time::TimeStamp;
use crate::orders::identifier::Identifier;
use crate::orders::in_hl7;
use crate::reports::home::Source;
use crate::reports::report::{FormKind, Reader, Status};

/// What OBR-4, which must say something, says when nobody does.
const UNNAMED: &str = "imaging";
/// What a critical report is flagged as (table 0078).
const CRITICAL: &str = "AA";

/// The message with its text and, perhaps, its PDF.
pub(super) fn make(
    task: &Task<'_>,
    (text, pdf): (Source, Option<Source>),
    home: &Home,
) -> Result<Made, MakeError> {
    let style = &home.message;
    let digest = task.digest(true, &format!("message {text:?} {pdf:?}")).to_string();
    let control_id = digest[..20].to_ascii_uppercase();
    let at = in_hl7::time(task.at, task.zone);
    let sending = ReportSending { at: &at, control_id: &control_id };
    let said = message(task, (text, pdf), home)?;
    let mut written = said.write(&style.dialect, sending);
    for (path, template) in &style.fields {
        let value = template.fill(|place| fact(task, home, place));
        set(&mut written, path, &value);
    }
    let (bytes, lost) = style.dialect.charset.encode_lossy(&written.write());
    Ok(Made::Message { bytes, control_id, lost: lost.len() })
}

/// A field of a segment that the message does not have is not written: at its end it would belong
/// to nothing.
fn set(message: &mut Message, path: &crate::hl7::path::Path, value: &str) {
    let has = message.segments().any(|segment| segment.is(path.segment()));
    if (has || path.segment().starts_with('Z')) && !value.is_empty() {
        message.set(path, value);
    }
}

fn message(
    task: &Task<'_>,
    (text, pdf): (Source, Option<Source>),
    home: &Home,
) -> Result<ReportMessage, MakeError> {
    let issuer = |id: &Identifier| match home.message.issuers {
        true => in_hl7::authority(&id.authority),
        false => Hl7Authority::default(),
    };
    let patient = in_hl7::patient(facts::patient(task), issuer);
    let referrer = task.order.and_then(|order| in_hl7::person(&order.content.referrer));
    // Whether in or out of the hospital is not known here, and the field must say something.
    let referring = referrer.into_iter().collect();
    let visit = Visit { class: "U".into(), referring, ..Visit::default() };
    let sent = match text {
        Source::Received(FormKind::Text) => said::as_sent(task.report),
        _ => None,
    };
    let mut report = head(task, home, sent.as_ref());
    report.observations = observations(task, (text, pdf), home, sent)?;
    Ok(ReportMessage { patient, visit, reports: vec![report] })
}

/// OBR and ORC.
fn head(task: &Task<'_>, home: &Home, sent: Option<&Hl7Report>) -> Hl7Report {
    let number = |id: Option<Identifier>| {
        let mut number = id.map(|id| in_hl7::identifier(&id)).unwrap_or_default();
        if !home.message.issuers {
            number.issuer = Hl7Authority::default();
        }
        number
    };
    let (placer, filler) = facts::numbers(task);
    let procedure = facts::procedure(task);
    let scheduled = task.order.and_then(|order| order.content.scheduled);
    let scheduled = scheduled.map(|at| TimeStamp::new(&in_hl7::time(at, task.zone)));
    let observed = sent.map(|sent| sent.observed_at.clone()).filter(|at| !at.is_empty());
    let written = facts::written_at(task);
    let requester = task.order.and_then(|order| in_hl7::person(&order.content.requester));
    let readers = facts::readers(task);
    let others = task.report.authors.iter().filter(|author| !readers.contains(author));
    Hl7Report {
        placer: number(placer),
        filler: number(filler),
        accession: facts::accession(task).map(|id| id.id).unwrap_or_default(),
        studies: facts::studies(task),
        service: service(task, home, sent),
        observed_at: observed.or(scheduled).unwrap_or_default(),
        reported_at: TimeStamp::new(&in_hl7::time(written, task.zone)),
        status: facts::result(task, home),
        interpreters: readers.iter().filter_map(|r| person(r, home)).collect(),
        assistants: others.filter_map(|r| person(r, home)).collect(),
        requesters: requester.into_iter().collect(),
        procedure: procedure.map(|p| (p.requested.clone(), p.step.clone())).unwrap_or_default(),
        notes: sent.map(|sent| sent.notes.clone()).unwrap_or_default(),
        ..Hl7Report::default()
    }
}

fn service(task: &Task<'_>, home: &Home, sent: Option<&Hl7Report>) -> Coded {
    let text = |text: &str| Coded { text: text.to_owned(), ..Coded::default() };
    let ordered = || {
        let code = &facts::procedure(task)?.code;
        let (id, system) = (code.value.clone(), code.scheme.clone());
        let coded = Coded { id, text: code.meaning.clone(), system, ..Coded::default() };
        (!coded.is_empty()).then_some(coded)
    };
    let reported = || {
        let sent = sent.map(|sent| sent.service.clone()).filter(|code| !code.is_empty());
        sent.or_else(|| Some(text(&task.report.title)).filter(|code| !code.is_empty()))
    };
    let known = match &home.message.service {
        Service::Always(code) => Some(code.clone()),
        Service::Ordered => ordered().or_else(reported),
        Service::Reported => reported().or_else(ordered),
    };
    known.unwrap_or_else(|| text(UNNAMED))
}

/// A reader, by the representation of the name that the receiver can show.
fn person(reader: &Reader, home: &Home) -> Option<Person> {
    let style = &home.message;
    let shown = |name: &str| style.dialect.charset.encode(name).is_ok();
    let name = facts::representation_of(&reader.name, style.representation, shown);
    let name = in_hl7::name(name).unwrap_or_default();
    let person = Person { id: reader.id.id.clone(), name, ..Person::default() };
    (person != Person::default()).then_some(person)
}

/// OBX: lines of the site, the text, lines of the site, the document.
fn observations(
    task: &Task<'_>,
    (text, pdf): (Source, Option<Source>),
    home: &Home,
    sent: Option<Hl7Report>,
) -> Result<Vec<Observation>, MakeError> {
    let status = facts::result(task, home).code().to_owned();
    let lines = |text: String| Observation {
        kind: "TX".to_owned(),
        value: Value::Text(text),
        ..Observation::default()
    };
    let filled = |templates: &[super::Template]| {
        let all: Vec<String> =
            templates.iter().map(|t| t.fill(|place| fact(task, home, place))).collect();
        (!all.is_empty()).then(|| lines(all.join("\n")))
    };
    let mut all: Vec<Observation> = filled(&home.message.header).into_iter().collect();
    let first = all.len();
    match sent {
        Some(sent) => {
            if task.report.status == Status::Cancelled {
                all.push(lines(facts::words(facts::WITHDRAWN, home)));
            }
            let told = sent.observations.into_iter().filter(Observation::is_told);
            all.extend(told);
        }
        None => all.push(lines(said::told(task, text, home)?)),
    }
    let critical = !task.report.critical.is_empty();
    let unflagged = all.iter().all(|observation| observation.flags.is_empty());
    if let (true, true, Some(observation)) = (critical, unflagged, all.get_mut(first)) {
        observation.flags.push(CRITICAL.to_owned());
    }
    all.extend(filled(&home.message.footer));
    if pdf.is_some() {
        let document = Document::new(task.form(FormKind::Pdf)?.to_vec(), "application/pdf");
        let (kind, value) = ("ED".to_owned(), Value::Document(document));
        all.push(Observation { kind, value, ..Observation::default() });
    }
    all.iter_mut().for_each(|observation| observation.status.clone_from(&status));
    Ok(all)
}
