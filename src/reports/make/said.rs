//! What a version says: as one text, in the parts of a structured report, as pages.

use super::facts::{self, ATTACHED, WITHDRAWN, fact, words};
use super::{Home, MakeError, Task};
use crate::dicom::report::{self as documents, Heading, PDF_PAGES_MAX, Pages, Section};
use crate::hl7::charset::CharsetRule;
use crate::hl7::message::Message;
use crate::hl7::order::OrderFields;
use crate::hl7::report::{Observation, Report as Hl7Report, ReportMessage};
use crate::orders::identifier::Identifier;
use crate::reports::home::Source;
use crate::reports::report::{FormKind, Report, Status};

/// What messages are tried in that do not say truly what they are in.
const CHARSETS: [&str; 5] = ["UTF-8", "~ISO IR87", "SHIFT_JIS", "EUC-JP", "8859/1"];

/// Lines end in LF, here and everywhere.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// The text that a source says, nothing added.
pub(super) fn text(task: &Task<'_>, from: Source) -> Result<String, MakeError> {
    let report = task.report;
    let of_text = || {
        let text = std::str::from_utf8(task.form(FormKind::Text)?);
        text.map(lines).map_err(|_| MakeError::Form(FormKind::Text.shown()))
    };
    match from {
        Source::SeeAttached => Ok(String::new()),
        Source::TextOf(FormKind::Structured) | Source::Received(FormKind::Structured) => {
            of_structured(report)
        }
        Source::TextOf(_) | Source::Received(_) => of_text(),
        // Whichever form there is; a withdrawal needs none.
        _ if report.form(FormKind::Text).is_some() => of_text(),
        _ if report.form(FormKind::Structured).is_some() => of_structured(report),
        _ if report.status == Status::Cancelled => Ok(String::new()),
        _ => Err(MakeError::Form(FormKind::Text.shown())),
    }
}

/// The text of a report, in whichever form it has one.
pub(super) fn text_of(report: &Report) -> Option<String> {
    let text = report.text().map(lines).or_else(|| of_structured(report).ok())?;
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

fn of_structured(report: &Report) -> Result<String, MakeError> {
    let kind = FormKind::Structured;
    let form = report.form(kind).ok_or(MakeError::Form(kind.shown()))?;
    let read =
        documents::read(&form.bytes, &form.syntax).map_err(|_| MakeError::Form(kind.shown()))?;
    if read.is_cut { Err(MakeError::TooLong("a text")) } else { Ok(read.text) }
}

/// What a person is told: the text, and before it that it is withdrawn, or in its place that
/// there is a document.
pub(super) fn told(task: &Task<'_>, from: Source, home: &Home) -> Result<String, MakeError> {
    let text = text(task, from)?;
    Ok(match (task.report.status == Status::Cancelled, text.is_empty()) {
        (true, true) => words(WITHDRAWN, home),
        (true, false) => format!("{}\n{text}", words(WITHDRAWN, home)),
        (false, true) => words(ATTACHED, home),
        (false, false) => text,
    })
}

/// The report as the reading system laid it out in its message, where that says just the text that
/// goes on: its parts and codes are kept then.
pub(super) fn as_sent(report: &Report) -> Option<Hl7Report> {
    let form = report.form(FormKind::Message)?;
    let text = report.text()?;
    let number = |id: &Option<Identifier>| id.as_ref().map_or("", |id| &id.id).to_owned();
    let (placer, filler) = (number(&report.ids.placer), number(&report.ids.filler));
    let same = |r: &Hl7Report| r.placer.id == placer && r.filler.id == filler && r.text() == text;
    let read = |rule: CharsetRule| {
        let message = Message::parse(&rule.decode(&form.bytes).ok()?.text).ok()?;
        let said = ReportMessage::read(&message, &OrderFields::default()).ok()?;
        said.reports.into_iter().find(same)
    };
    // Which set its route was read in is not known here; the right one gives the same text.
    let named = CHARSETS.iter().filter_map(|name| name.parse().ok());
    let rules = named.map(|set| CharsetRule { always: Some(set), ..CharsetRule::default() });
    std::iter::once(CharsetRule::default()).chain(rules).find_map(read)
}

/// The sections of a structured report: those of the message, else one.
pub(super) fn sections(task: &Task<'_>, home: &Home) -> Result<Vec<Section>, MakeError> {
    let mut sections = Vec::new();
    if task.report.status == Status::Cancelled {
        sections.push(Section { heading: Heading::Addendum, text: words(WITHDRAWN, home) });
    }
    let laid_out = as_sent(task.report);
    let parts = match &laid_out {
        Some(sent) => {
            let mut last = Heading::default();
            let heading = |(of, text): (Option<&Observation>, String)| {
                last = of.map_or(last, heading_of);
                Section { heading: last, text }
            };
            sent.paragraphs().into_iter().map(heading).collect()
        }
        None => {
            let text = text(task, Source::StructuredOfText)?;
            vec![Section { heading: Heading::Findings, text }]
        }
    };
    for part in parts.into_iter().filter(|part| !part.text.trim().is_empty()) {
        match sections.last_mut() {
            Some(last) if last.heading == part.heading => {
                last.text.push('\n');
                last.text.push_str(&part.text);
            }
            _ => sections.push(part),
        }
    }
    Ok(sections)
}

/// Which section an observation belongs to: by its suffix (HL7 2.5 7.2.4), its code (LOINC, DCM),
/// or a word of its name. What nobody can tell is a finding.
fn heading_of(observation: &Observation) -> Heading {
    let code = &observation.code;
    match observation.suffix.as_str() {
        "ADT" => return Heading::Addendum,
        "IMP" => return Heading::Impressions,
        "REC" => return Heading::Recommendations,
        "GDT" => return Heading::Findings,
        _ => {}
    }
    match (code.system.as_str(), code.id.as_str()) {
        ("LN", "19005-8") | ("DCM", "121072" | "121073") => return Heading::Impressions,
        ("LN", "55110-1") | ("DCM", "121076" | "121077") => return Heading::Conclusions,
        ("LN", "18783-1") | ("DCM", "121074" | "121075") => return Heading::Recommendations,
        ("LN", "18785-6") | ("DCM", "121109") => return Heading::Indications,
        ("LN", "11329-0") | ("DCM", "121060") => return Heading::History,
        ("LN", "18782-3") | ("DCM", "121070" | "121071") => return Heading::Findings,
        _ => {}
    }
    let name = format!("{} {}", code.id, code.shown()).to_lowercase();
    let words: [(Heading, &[&str]); 6] = [
        (Heading::Addendum, &["addendum", "追記"]),
        (Heading::Recommendations, &["recommend", "推奨"]),
        (Heading::Conclusions, &["conclusion", "結論"]),
        (Heading::Impressions, &["impression", "診断", "インプレッション"]),
        (Heading::Indications, &["indication", "検査目的", "依頼"]),
        (Heading::History, &["history", "既往", "現病歴"]),
    ];
    let found = words.iter().find(|(_, words)| words.iter().any(|word| name.contains(word)));
    found.map_or(Heading::Findings, |(heading, _)| *heading)
}

/// The text as pages: who, what and how far above it, the patient on each of them.
pub(super) fn pages(task: &Task<'_>, home: &Home) -> Result<Vec<u8>, MakeError> {
    let text = told(task, Source::PagesOfText, home)?;
    let patient = facts::patient(task);
    let names = patient.names.iter().flat_map(|name| name.split('='));
    let names: Vec<String> =
        names.map(|n| n.replace('^', " ").trim().to_owned()).filter(|n| !n.is_empty()).collect();
    let of = |place| fact(task, home, place);
    let head: Vec<String> = [names.join(" "), of("patient"), of("accession")]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    let title = [of("title"), of("status"), of("written"), of("reader")];
    let title: Vec<String> = title.into_iter().filter(|part| !part.is_empty()).collect();
    let pages = Pages::of(&head.join(" / "), &format!("{}\n\n{text}", title.join("  ")));
    if pages.is_cut || pages.count > PDF_PAGES_MAX {
        return Err(MakeError::TooLong("pages"));
    }
    Ok(pages.bytes)
}
