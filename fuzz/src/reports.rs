//! Reports: messages, documents, and what one node carries to another.

use hikyaku::clock::Timestamp;
use hikyaku::dicom::commitment::Reference;
use hikyaku::dicom::report::{
    self as documents, BASIC_TEXT_SR, Code, EncapsulatedKind, Evidence, Heading, NewDocument,
    Observer, Pages, PatientFacts, RequestFacts, Section, Stage,
};
use hikyaku::dicom::text::Repertoire;
use hikyaku::hl7::inbound::{Content, Inbound, Rules};
use hikyaku::hl7::message::Message;
use hikyaku::hl7::order::OrderFields;
use hikyaku::hl7::report::{ReportDialect, ReportMessage, ReportSending, TextAs};
use hikyaku::reports::arrive::ArriveRules;
use hikyaku::reports::matching::{Wanted, target_of};
use hikyaku::reports::narrative::{self, Narrative};
use hikyaku::reports::report::{Form, FormKind, Report};
use hikyaku::reports::said::SaidReport;
use hikyaku::reports::versions::{Arrival, Chain};

use super::dicom::{part10, project};

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const SYNTAXES: [&str; 3] = ["1.2.840.10008.1.2", EXPLICIT, "1.2.840.10008.1.2.1.99"];

/// All that becomes of a report, whatever it says.
fn handled(report: &Report) {
    let bytes = report.encode();
    assert_eq!(Report::decode(&bytes).as_ref(), Ok(report));
    let mut chain = Chain::default();
    chain.apply(Arrival::of(report, "cargo", Timestamp(0)));
    assert_eq!(chain.versions().len(), 1);
    let _ = (Wanted::of(&report.ids), target_of(report, &[]));
}

pub(crate) fn oru(data: &[u8]) {
    let mut rules = Rules::default();
    rules.accepts.versions = (0, 99);
    rules.accepts.reports = true;
    let inbound = Inbound::read(data, &rules);
    let Ok(Content::Reports(said)) = inbound.content() else { return };
    for n in 0..said.reports.len().min(4) {
        if let Ok(report) = ArriveRules::default().of_message(said, n, data, "RIS") {
            handled(&report);
        }
    }
    let dialect = ReportDialect { text: TextAs::One, ..ReportDialect::default() };
    let sending = ReportSending { at: "2026", control_id: "1" };
    // What is written has more segments than what was read, and may be too long to be read.
    if let Ok(message) = Message::parse(&said.write(&dialect, sending).write())
        && let Ok(again) = ReportMessage::read(&message, &OrderFields::default())
    {
        assert_eq!(again.reports.len(), said.reports.len());
        let same = |(a, b): (&hikyaku::hl7::report::Report, &hikyaku::hl7::report::Report)| {
            a.result() == b.result()
        };
        assert!(again.reports.iter().zip(&said.reports).all(same));
    }
}

pub(crate) fn document(data: &[u8]) {
    let [how, data @ ..] = data else { return };
    let syntax = SYNTAXES[usize::from(*how) % SYNTAXES.len()];
    let Ok(read) = documents::read(data, syntax) else { return };
    let _ = read.facts.stage();
    let few: String = read.text.chars().take(2_000).collect();
    assert!(Pages::of(&read.facts.title.meaning, &few).bytes.starts_with(b"%PDF-"));
    if let Ok(report) = ArriveRules::default().of_document(&read, data, syntax, "PACS") {
        handled(&report);
    }
}

pub(crate) fn report(data: &[u8]) {
    if let Ok(report) = Report::decode(data) {
        handled(&report);
    }
}

/// A sidecar or a call of the API; its first line as the name of a file.
pub(crate) fn said(data: &[u8]) {
    let rules = ArriveRules::default();
    if let Ok(Ok(report)) = SaidReport::read(data).map(|said| said.report(&rules, "editor")) {
        handled(&report);
    }
    let name = data.split(|b| *b == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    let named = name.and_then(|name| SaidReport::of_name(name, &rules));
    let forms = vec![Form::new(FormKind::Text, b"a".to_vec())];
    if let Some(Ok(report)) = named.map(|said| said.with_forms(&rules, "editor", forms)) {
        handled(&report);
    }
}

/// A CDA document.
pub(crate) fn narrative(data: &[u8]) {
    if let Some(Narrative::Text(text)) = narrative::read(data) {
        assert!(!text.trim().is_empty() && text.len() <= documents::TEXT_LENGTH_MAX);
    }
}

pub(crate) fn narratives() -> Vec<Vec<u8>> {
    let document = |body: &str| {
        let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ClinicalDocument>";
        format!("{head}<component>{body}</component></ClinicalDocument>").into_bytes()
    };
    let sections = "<structuredBody><component><section><title>\u{6240}\u{898b}</title><text>\
        <paragraph>a <content revised=\"delete\">b</content>\nc<br/>d</paragraph>\
        <list listType=\"ordered\"><caption>e</caption><item>f</item></list><table><tr><th>g</th>\
        <td>h</td></tr></table></text><component><section><text>i</text></section></component>\
        </section></component></structuredBody>";
    let plain = "<nonXMLBody><text representation=\"B64\" mediaType=\"text/plain\">eA==</text>\
        </nonXMLBody>";
    vec![document(sections), document(plain)]
}

pub(crate) fn saidings() -> Vec<Vec<u8>> {
    let whole = r#"{"accession": "A1", "study": "1.2.3", "placer": "P1", "filler": "F1",
        "patient": {"id": "4711", "issuer": "E", "name": "A^B=\u5c71", "birth_date": "1950-01-01"},
        "status": "addendum", "document": "7.2", "replaces": ["7.1"], "title": "CT", "critical": true,
        "author": "A^B", "signed_by": [{"name": "C^D", "id": "R1", "at": "20261128"}, "E"],
        "written_at": "2026-11-28T10:15:00+09:00", "text": "x", "pdf": "JVBERi0xLjc="}"#;
    let small = r#"{"study": "1.2", "status": "X"}"#;
    [whole, small, "A1_F\n", "1.2.3.4_final\n"].map(|s| s.as_bytes().to_vec()).to_vec()
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let head = "MSH|^~\\&|RIS|R|HIS|H|2026||ORU^R01|1|P|2.5\rPID|||4711^^^E||Y^H\rORC|RE|P1|F1\r\
                OBR|1|P1|F1|CT^CT||||||||||||||A1||||2026|||F|||||||R1&A&B\r";
    let obx = "OBX|1|ST|113014^DICOM Study^DCM||1.2.3||||||F\rOBX|2|FT|F^Findings||a\\.br\\b\\H\\c\\N\\\
               \\.sp3\\||||||F\rNTE|1||n\rOBX|3|TX|F&ADT^Findings||x~y|||AA|||C||R^x^RadLex\r\
               OBX|4|ED|D||^Application^PDF^Base64^JVBERi0xLjc=||||||F\rOBX|5|RP|P||a^b^c\r\
               OBX|6|ED|D||^Text^text/xml^A^<ClinicalDocument/>\rOBX|7|NM|N||1|mm\r";
    let two = format!("{head}{obx}OBR|2||F2|CT|||||||||||||||||||||P\r{obx}");
    vec![format!("{head}{obx}").into_bytes(), two.into_bytes()]
}

pub(crate) fn documents() -> Vec<Vec<u8>> {
    let patient =
        PatientFacts { id: "1".into(), name: "A^B=\u{5c71}".into(), ..Default::default() };
    let evidence = [Evidence {
        study: "1.2".into(),
        series: "1.3".into(),
        reference: Reference { class: BASIC_TEXT_SR.into(), instance: "1.4".into() },
    }];
    let requests = [RequestFacts { accession: "A".into(), ..RequestFacts::default() }];
    let new = NewDocument {
        uid: "2.25.1",
        series: "2.25.2",
        study: "1.2",
        number: 1,
        patient: &patient,
        accession: "A",
        accession_issuer: ("R", "1.2.9"),
        title: Code::new("18748-4", "LN", "Report"),
        name: "",
        institution: "",
        manufacturer: "",
        referrer: "",
        language: "ja",
        stage: Stage::Corrected,
        written_at: ("20261122", "101500"),
        zone: "+0900",
        verifiers: vec![Observer { name: "C^D".into(), ..Observer::default() }],
        author: "E^F",
        predecessors: &evidence,
        requests: &requests,
        evidence: &evidence,
    };
    let sections = [Section { heading: Heading::Findings, text: "\u{9aa8}\nx".into() }];
    let structured = new.write_structured(&sections, Repertoire::JAPANESE).expect("a report");
    let pdf = new.write_encapsulated(EncapsulatedKind::Pdf, b"%PDF-1.7", Repertoire::UTF8);
    let mut seeds: Vec<Vec<u8>> = [structured, pdf.expect("a document")]
        .iter()
        .map(|set| [&[1], &set[..]].concat())
        .collect();
    for name in ["reportsi", "test-SR", "sr_document", "encapsulated_pdf"] {
        let file = std::fs::read(project().join(format!("tests/data/samples/{name}.dcm")));
        let file = file.expect("a sample");
        seeds.push([&[1], part10(&file).1].concat());
    }
    seeds
}

pub(crate) fn carried() -> Vec<Vec<u8>> {
    let all = documents();
    let set = &all[0][1..];
    let read = documents::read(set, EXPLICIT).expect("our own");
    let rules = ArriveRules::default();
    let mut report = rules.of_document(&read, set, EXPLICIT, "PACS").expect("a report");
    let whole = report.encode();
    report.forms = vec![Form::new(FormKind::Text, b"a".to_vec())];
    vec![whole, report.encode()]
}
