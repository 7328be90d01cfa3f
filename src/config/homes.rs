//! `reports` of a `[[destination]]`: a system of the hospital that gets reports, in which forms, and
//! how it has them.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeValue;

use super::Config;
use super::read::Document;
use super::reader::Section;
use super::sections::{Destination, DestinationKind};
use super::source::Source;
use super::value::*;
use crate::cargo::DestinationName;
use crate::dicom::report::Code;
use crate::hl7::datatype::Coded;
use crate::hl7::path::Path as FieldPath;
use crate::hl7::report::{ReportDialect, ResultStatus, StudyAs, TextAs};
use crate::orders::words::Language;
use crate::reports::home::Want;
use crate::reports::make::{DocumentStyle, Home, MessageStyle, Service, Template};

/// Most lines before or after a text.
const LINES_MAX: usize = 64;

const LANGUAGES: &[(&str, &[Language])] = &[
    ("en", &[Language::English]),
    ("ja", &[Language::Japanese]),
    ("both", &[Language::Japanese, Language::English]),
];

/// What a destination of any kind is asked.
fn home(
    s: &mut Section<'_, '_>,
    words: &'static [(&'static str, Want)],
    style: impl FnOnce(&mut Section<'_, '_>, &mut Home),
) -> Option<Home> {
    let wants = s.one_or_list("reports", word(words));
    let makes_pages = s.maybe("report_pages", boolean).unwrap_or_default();
    let preliminary = s.maybe("report_preliminary", boolean).unwrap_or_default();
    let wants: Option<BTreeSet<Want>> = wants.map(|wants| wants.into_iter().collect());
    let mut home = Home { makes_pages, preliminary, ..Home::default() };
    let styled = s.maybe_table("report", |s| {
        home.languages = s.or("language", "\"en\"", word(LANGUAGES)).to_vec();
        style(s, &mut home);
        Some(())
    });
    if wants.is_none() && (makes_pages || preliminary || styled.is_some()) {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let advice = format!("write reports = [{}], or less of it", all.join(", "));
        s.problem("reports", "is missing: this destination would get no report", advice);
    }
    wants.map(|wants| Home { wants, ..home })
}

/// Of kind hl7.
pub(super) fn hl7(s: &mut Section<'_, '_>) -> Option<Home> {
    let words = &[("message", Want::Message), ("message-text", Want::MessageText)];
    home(s, words, |s, home| home.message = message(s))
}

/// Of kind dicom.
pub(super) fn dicom(s: &mut Section<'_, '_>) -> Option<Home> {
    let words = &[("structured", Want::Structured), ("pdf", Want::Pdf)];
    home(s, words, |s, home| home.document = document(s))
}

/// Of kind folder.
pub(super) fn folder(s: &mut Section<'_, '_>) -> Option<Home> {
    home(s, &[("files", Want::Files)], |_, _| {})
}

/// Every key there is, where the kind is not known.
pub(super) fn every(s: &mut Section<'_, '_>) {
    let words = &[
        ("message", Want::Message),
        ("message-text", Want::MessageText),
        ("structured", Want::Structured),
        ("pdf", Want::Pdf),
        ("files", Want::Files),
    ];
    home(s, words, |s, _| drop((message(s), document(s))));
}

fn message(s: &mut Section<'_, '_>) -> MessageStyle {
    const VERSIONS: &[(&str, &str)] =
        &[("2.3", "2.3"), ("2.3.1", "2.3.1"), ("2.4", "2.4"), ("2.5", "2.5"), ("2.5.1", "2.5.1")];
    const CODE: &str = "\"18748-4^Diagnostic imaging study^LN\"";
    let version = s.or("version", "\"2.5.1\"", word(VERSIONS)).to_owned();
    let text = s.or("text", "\"lines\"", word(&[("lines", TextAs::Lines), ("one", TextAs::One)]));
    let study = s.or(
        "study",
        "\"observation\"",
        word(&[
            ("observation", StudyAs::Observation),
            ("zds", StudyAs::Zds),
            ("none", StudyAs::Nowhere),
        ]),
    );
    let accession = s.or("accession", "\"OBR-18\"", accession);
    let dialect = ReportDialect {
        version,
        text,
        study,
        accession,
        text_code: s.or("text_code", CODE, coded),
        document_code: s.or("document_code", CODE, coded),
        ..ReportDialect::default()
    };
    MessageStyle {
        dialect,
        service: s.or("service", "\"order\"", service),
        issuers: s.or("issuers", "true", boolean),
        representation: s.or(
            "name",
            "\"ideographic\"",
            word(&[("ideographic", "I"), ("alphabetic", "A"), ("phonetic", "P")]),
        ),
        corrected: s.or(
            "corrected",
            "\"C\"",
            word(&[("C", ResultStatus::Corrected), ("F", ResultStatus::Final)]),
        ),
        header: lines(s, "header"),
        footer: lines(s, "footer"),
        fields: fields(s),
    }
}

fn document(s: &mut Section<'_, '_>) -> DocumentStyle {
    DocumentStyle {
        japanese: s.or(
            "charset",
            "\"ISO_IR 192\"",
            word(&[("ISO_IR 192", false), ("ISO 2022 IR 87", true)]),
        ),
        title: s.or("title", "\"18748-4^Diagnostic imaging study^LN\"", title),
        institution: s.maybe("institution", within_64).unwrap_or_default(),
        manufacturer: s.or("manufacturer", "\"hikyaku\"", within_64),
    }
}

/// What LO has room for.
fn within_64(value: &DeValue<'_>) -> Result<String, Wrong> {
    let written = text(value)?;
    match written.chars().count() <= 64 && !written.contains('\\') {
        true => Ok(written),
        false => Err(wrong("is too long, or has a \\", "write at most 64 characters")),
    }
}

fn lines(s: &mut Section<'_, '_>, key: &'static str) -> Vec<Template> {
    let lines = s.list(key, template).unwrap_or_default();
    if lines.len() > LINES_MAX {
        s.problem(key, format!("has {} lines", lines.len()), format!("write {LINES_MAX} at most"));
    }
    lines
}

fn template(value: &DeValue<'_>) -> Result<Template, Wrong> {
    // An empty line is a line.
    let DeValue::String(written) = value else { return Err(mismatch(value, "text in quotes")) };
    written.parse().map_err(|e| wrong(format!("\"{written}\" cannot be taken"), format!("{e}")))
}

/// `[destination.report.fields]`.
fn fields(s: &mut Section<'_, '_>) -> Vec<(FieldPath, Template)> {
    let all = s.table("fields", |s| s.entries(field, template));
    let one = |(path, templates): (FieldPath, Vec<Template>)| {
        templates.into_iter().next().map(|template| (path, template))
    };
    all.into_iter().filter_map(one).collect()
}

/// A field that a site may fill: none that makes a message what it is.
fn field(written: &str) -> Result<FieldPath, Wrong> {
    let advice = "a place in a message looks like OBR-24 or ORC-7.4";
    let path: FieldPath = written.parse().map_err(|e| wrong(format!("{e}"), advice.to_owned()))?;
    let ours = match path.segment() {
        "MSH" => ![3, 4, 5, 6, 8].contains(&path.field()),
        "OBX" => true,
        segment => path.field() == 1 && segment.len() == 3 && !segment.starts_with('Z'),
    };
    let what = "is written by this node itself";
    if ours { Err(wrong(what, "choose another field, or leave it out")) } else { Ok(path) }
}

fn accession(value: &DeValue<'_>) -> Result<FieldPath, Wrong> {
    let path: FieldPath = parsed(value)?;
    let dialect = ReportDialect { accession: path.clone(), ..ReportDialect::default() };
    let advice = "OBR-18 is usual; OBR-3, OBR-20 and ORC-3 have been seen";
    dialect.check().map_err(|e| wrong(e.to_string(), advice))?;
    Ok(path)
}

/// `id^text^system`.
fn coded(value: &DeValue<'_>) -> Result<Coded, Wrong> {
    let written = text(value)?;
    let parts: Vec<&str> = written.split('^').map(str::trim).collect();
    match parts[..] {
        [id, meaning, system] if !id.is_empty() => Ok(Coded {
            id: id.to_owned(),
            text: meaning.to_owned(),
            system: system.to_owned(),
            ..Coded::default()
        }),
        _ => Err(wrong(
            format!("\"{written}\" is no code"),
            "write code, meaning and coding system, such as 18748-4^Diagnostic imaging study^LN",
        )),
    }
}

/// A code as DICOM has room for it: SH, SH, LO.
fn title(value: &DeValue<'_>) -> Result<Code, Wrong> {
    let Coded { id, text, system, .. } = coded(value)?;
    let fits = |part: &str, most: usize| (1..=most).contains(&part.chars().count());
    match fits(&id, 16) && fits(&system, 16) && fits(&text, 64) {
        true => Ok(Code::new(&id, &system, &text)),
        false => Err(wrong(
            "has an empty or too long part",
            "code and coding system have 16 characters at most, the meaning 64",
        )),
    }
}

fn service(value: &DeValue<'_>) -> Result<Service, Wrong> {
    match text(value)?.as_str() {
        "order" => Ok(Service::Ordered),
        "report" => Ok(Service::Reported),
        written if !written.contains('^') => Err(wrong(
            format!("\"{written}\" cannot be read"),
            "write \"order\", \"report\", or a code such as \"R-9^Report^L\"",
        )),
        _ => coded(value).map(Service::Always),
    }
}

/// Reports what does not fit together.
pub(super) fn check(
    source: &mut Source<'_>,
    key: &str,
    destination: &Destination,
    document: &Document,
) {
    if destination.home.is_none() {
        return;
    }
    let key = format!("{key}.reports");
    if document.reports.is_none() && !source.has_key("reports") {
        let what = "are taken, but this node keeps none";
        source.problem(&key, what, "add a [reports] section, or remove the key");
    }
    if document.orders.is_none() && !source.has_key("orders") {
        let what = "are taken, but reports find their studies by [orders], which is missing";
        source.problem(&key, what, "add an [orders] section, even an empty one");
    }
}

/// In plain words, for `check-config`.
pub(super) fn describe(home: &Home) -> String {
    let one = |want: &Want| match want {
        Want::Message => format!("ORU^R01 ({}) with PDF", home.message.dialect.version),
        Want::MessageText => format!("ORU^R01 ({}) without PDF", home.message.dialect.version),
        Want::Structured => "structured reports".to_owned(),
        Want::Pdf => "encapsulated PDF".to_owned(),
        Want::Files => "files".to_owned(),
    };
    let wants: Vec<String> = home.wants.iter().map(one).collect();
    let pages = if home.makes_pages { ", a PDF made where there is none" } else { "" };
    let early = if home.preliminary { ", preliminary ones too" } else { "" };
    format!("reports as {}{pages}{early}", wants.join(" and "))
}

impl Config {
    /// The systems of this site that take reports, and how.
    pub fn homes(&self) -> BTreeMap<DestinationName, Home> {
        let homes = self.destinations.iter().filter_map(|destination| {
            let mut home = destination.home.clone()?;
            if let DestinationKind::Hl7(hl7) = &destination.kind {
                hl7.address(self.node.name.as_str(), &mut home.message.dialect);
            }
            Some((destination.name.clone(), home))
        });
        homes.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BASE: &str = "
        node = { name = 'st-elsewhere' }
        orders = {}
        reports = {}
        tunnel = { certificate = 'a', key = 'b', trust = 'c', listen = '0.0.0.0:4433' }
        route = [{ name = 'r', to = ['reading'] }]
        [[destination]]
        name = 'reading'
        kind = 'node'
    ";

    fn read(more: &str) -> super::super::Read {
        Config::parse(&format!("{BASE}\n{more}"), Path::new("h.toml"))
    }

    fn problems(more: &str) -> String {
        let problems = read(more).expect_err("nothing is wrong");
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    const HIS: &str = "
        [[destination]]
        name = 'his'
        kind = 'hl7'
        address = 'his:2575'
        receiving_application = 'HIS'
        charset = '~ISO IR87'
        reports = ['message']
        report_preliminary = true
        [destination.report]
        version = '2.3'
        service = 'R-9^Report^L'
        header = ['{title}', '']
        fields = { 'OBR-24' = '{modality}' }
    ";

    #[test]
    fn a_system_that_only_takes_reports_needs_no_route_and_has_the_names_of_its_connection() {
        let (config, warnings) = read(HIS).unwrap_or_else(|all| panic!("{all:?}"));
        assert!(warnings.iter().all(|w| !w.to_string().contains("no route")), "{warnings:?}");
        let homes = config.homes();
        let home = homes.values().next().unwrap();
        assert!(homes.len() == 1 && home.preliminary && !home.makes_pages);
        assert_eq!(home.wants, [Want::Message].into());
        let style = &home.message;
        let dialect = &style.dialect;
        assert_eq!((&*dialect.from.0, &*dialect.from.1), ("HIKYAKU", "st-elsewhere"));
        assert_eq!((&*dialect.to.0, &*dialect.version), ("HIS", "2.3"));
        assert_eq!(dialect.charset, "~ISO IR87".parse().unwrap());
        assert_eq!((style.header.len(), style.fields.len()), (2, 1));
        assert!(matches!(&style.service, Service::Always(code) if code.id == "R-9"));
        let told = super::super::describe(&config);
        assert!(told.contains("reports as ORU^R01 (2.3) with PDF, preliminary ones too"), "{told}");
    }

    #[test]
    fn what_a_kind_cannot_take_and_what_is_no_place_or_field_is_told() {
        let node = problems("reports = ['message']");
        assert!(node.contains("belongs to a destination of kind hl7, dicom or folder"), "{node}");
        for (from, to, told) in [
            ("['message']", "['structured']", "\"message\" or \"message-text\""),
            ("'{title}'", "'{titel}'", "there is no {titel}"),
            ("OBR-24", "MSH-10", "is written by this node itself"),
            ("'2.3'", "'2.8'", "\"2.5.1\""),
            ("R-9^Report^L", "R-9", "\"order\", \"report\""),
            ("reports = ['message']", "", "this destination would get no report"),
        ] {
            let said = problems(&HIS.replace(from, to));
            assert!(said.contains(told), "{to}: {said}");
        }
        let without = format!("{BASE}\n{HIS}").replace("reports = {}", "");
        let said = Config::parse(&without, Path::new("h.toml")).expect_err("no [reports]");
        assert!(said.iter().any(|p| p.to_string().contains("add a [reports] section")), "{said:?}");
    }

    #[test]
    fn how_reports_are_taken_counts_after_a_restart() {
        use super::super::{Change, changes};
        let (old, _) = read(HIS).unwrap();
        let (new, _) =
            read(&HIS.replace("'2.3'", "'2.4'").replace("his:2575", "his:2576")).unwrap();
        let waits = |key: &str| {
            let same = |c: &Change| matches!(c, Change::NeedsRestart { key: k, .. } if k == key);
            changes(&old, &new).iter().any(same)
        };
        assert!(waits("destination.his.report.version") && !waits("destination.his.address"));
    }
}
