use super::super::matching::Wanted;
use super::super::versions::Arrival;
use super::*;
use crate::dicom::EXPLICIT_VR_LE;
use crate::dicom::report::{self, Code, Heading, NewDocument, Section};
use crate::dicom::text::Repertoire;
use crate::hl7::message::Message;
use crate::hl7::order::OrderFields;

fn message(status: &str, obx: &str) -> (ReportMessage, Vec<u8>) {
    let text = format!(
        "MSH|^~\\&|RIS|R|HIS|H|2026||ORU^R01|1|P|2.5\rPID|||4711^^^EAST||YAMADA^HONE~山田^骨||\
         19500101|F\rOBR|1|P1|F1|CT^CT 胸部||||||||||||||A1||||202611221015+0900|||{status}|\
         ||||||R1&読影&医\rOBX|1|ST|113014^DICOM Study^DCM||1.2.3||||||F\r\
         OBX|2|TX|F^Findings||骨 像||||||F\r{obx}"
    );
    let said = ReportMessage::read(&Message::parse(&text).unwrap(), &OrderFields::default());
    (said.unwrap(), text.into_bytes())
}

fn of_message(status: &str, obx: &str) -> Result<Report, NotAReport> {
    let (said, bytes) = message(status, obx);
    ArriveRules::default().of_message(&said, 0, &bytes, "RIS^R")
}

#[test]
fn a_message_becomes_a_report_with_all_that_identifies_it() {
    let obx = "OBX|3|ED|D^Doc||^Application^PDF^Base64^JVBERi0=||||||F\r";
    let report = of_message("F", obx).unwrap();
    assert_eq!((report.status, report.is_signed), (Status::Final, true));
    assert_eq!(report.ids.studies, ["1.2.3"]);
    assert_eq!(report.ids.accessions, [Identifier::bare("A1")]);
    assert_eq!(report.ids.filler, Some(Identifier::bare("F1")));
    assert_eq!(report.patient.ids, [Identifier::of("4711", "EAST")]);
    assert_eq!(report.patient.names, ["YAMADA^HONE", "山田^骨"]);
    assert_eq!((report.text(), &*report.title), (Some("骨 像"), "CT 胸部"));
    assert_eq!((&*report.verifiers[0].name, &*report.verifiers[0].id.id), ("読影^医", "R1"));
    assert_eq!(report.written_at.unwrap().to_string(), "2026-11-22T01:15:00.000Z");
    let kinds: Vec<FormKind> = report.forms.iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [FormKind::Text, FormKind::Pdf, FormKind::Message]);
    assert_eq!(Report::decode(&report.encode()), Ok(report.clone()));
    assert_eq!(Wanted::of(&report.ids).placers, ["P1"]);
    let arrival = Arrival::of(&report, "cargo", Timestamp(0));
    assert!(arrival.forms.iter().eq([FormKind::Text, FormKind::Pdf].iter()));
}

#[test]
fn every_status_of_a_message_becomes_what_the_decision_says() {
    for (code, status) in [
        ("P", Ok(Status::Preliminary)),
        ("A", Ok(Status::Preliminary)),
        ("R", Ok(Status::Preliminary)),
        ("F", Ok(Status::Final)),
        ("C", Ok(Status::Corrected)),
        ("X", Ok(Status::Cancelled)),
        ("", Ok(Status::Final)),
        ("I", Err(NotAReport::Awaited)),
        ("Y", Err(NotAReport::NoRecord)),
    ] {
        assert_eq!(of_message(code, "").map(|r| r.status), status, "{code}");
    }
    assert!(!of_message("R", "").unwrap().is_signed);
    let addendum = of_message("F", "OBX|3|TX|F&ADT^Findings||later||||||F\r").unwrap();
    assert_eq!((addendum.status, addendum.is_addendum), (Status::Corrected, false));
    let (mut said, bytes) = message("F", "OBX|3|TX|F&ADT^Findings||later||||||F\r");
    said.reports[0].observations.retain(|o| o.is_addendum());
    let alone = ArriveRules::default().of_message(&said, 0, &bytes, "").unwrap();
    assert_eq!((alone.status, alone.is_addendum), (Status::Corrected, true));
}

#[test]
fn critical_is_what_a_flag_a_category_or_a_word_of_the_title_says() {
    let reasons = |obx: &str| of_message("F", obx).unwrap().critical.len();
    assert_eq!(reasons(""), 0);
    assert_eq!(reasons("OBX|3|TX|M^Mass||3 cm|||AA|||F\r"), 1);
    assert_eq!(reasons("OBX|3|TX|M^Mass||3 cm|||AA|||W\r"), 0, "sent by mistake");
    assert_eq!(reasons("OBX|3|TX|M^Mass||x||||||F||RID49480^Category 1^RadLex\r"), 1);
    assert_eq!(reasons("OBX|3|CE|M^Mass||RID49480^Category 1^RadLex||||||F\r"), 1);
    let (said, bytes) = message("F", "");
    let mut rules = ArriveRules::default();
    rules.flagging.title_words = vec!["胸部".into()];
    assert_eq!(rules.of_message(&said, 0, &bytes, "").unwrap().critical.len(), 1);
}

#[test]
fn a_document_becomes_the_same_kind_of_report_and_groups_with_its_message() {
    let patient = PatientFacts {
        id: "4711".into(),
        name: "YAMADA^HONE=山田^骨".into(),
        ..PatientFacts::default()
    };
    let mut new = NewDocument {
        uid: "2.25.7",
        series: "2.25.8",
        study: "1.2.3",
        number: 1,
        patient: &patient,
        accession: "A1",
        accession_issuer: ("", ""),
        title: Code::new("18748-4", "LN", "Report"),
        name: "",
        institution: "",
        manufacturer: "hikyaku",
        referrer: "",
        language: "ja",
        stage: Stage::Final,
        written_at: ("20261122", "101700"),
        zone: "+0900",
        verifiers: vec![Observer { name: "DOKUEI^I=読影^医".into(), ..Observer::default() }],
        author: "",
        predecessors: &[],
        requests: &[],
        evidence: &[],
    };
    let sections = [Section { heading: Heading::Findings, text: "骨 像".into() }];
    let bytes = new.write_structured(&sections, Repertoire::JAPANESE).unwrap();
    let rules = ArriveRules { issuer: "EAST".into(), ..ArriveRules::default() };
    let read = report::read(&bytes, EXPLICIT_VR_LE).unwrap();
    let structured = rules.of_document(&read, &bytes, EXPLICIT_VR_LE, "PACS").unwrap();
    assert_eq!((structured.status, structured.is_signed), (Status::Final, true));
    assert_eq!(structured.patient.ids, [Identifier::of("4711", "EAST")]);
    assert_eq!(structured.ids.accessions, [Identifier::of("A1", "EAST")]);
    assert_eq!((&*structured.ids.document, structured.text()), ("2.25.7", Some("Findings\n骨 像")));
    assert_eq!(structured.form(FormKind::Structured).unwrap().bytes, bytes);
    let mut chain = super::super::versions::Chain::default();
    for (n, report) in [of_message("F", "").unwrap(), structured].iter().enumerate() {
        chain.apply(Arrival::of(report, &n.to_string(), Timestamp(n as i64)));
    }
    assert_eq!(chain.versions().len(), 1, "a text by HL7 and an SR, two minutes apart");
    new.verifiers.clear();
    let pdf =
        new.write_encapsulated(EncapsulatedKind::Pdf, b"%PDF-1.7 ", Repertoire::UTF8).unwrap();
    let read = report::read(&pdf, EXPLICIT_VR_LE).unwrap();
    let pdf = rules.of_document(&read, &pdf, EXPLICIT_VR_LE, "PACS").unwrap();
    assert_eq!((pdf.status, pdf.is_signed), (Status::Preliminary, false), "nobody has signed");
    assert_eq!(pdf.form(FormKind::Pdf).unwrap().bytes, b"%PDF-1.7 ");
}

#[test]
fn a_file_is_what_its_sidecar_says_and_nothing_at_all_is_no_report() {
    let facts = Report { forms: vec![], ..of_message("F", "").unwrap() };
    let rules = ArriveRules::default();
    assert_eq!(rules.of_file(facts.clone(), vec![]), Err(NotAReport::Empty));
    let many = vec![Form::new(FormKind::Pdf, vec![]); FORMS_MAX + 1];
    assert_eq!(rules.of_file(facts.clone(), many), Err(NotAReport::TooLarge));
    let pdf = Form::new(FormKind::Pdf, b"%PDF-".to_vec());
    let said = Report { critical: vec![Reason::Said("api".into())], ..facts };
    assert_eq!(rules.of_file(said, vec![pdf]).unwrap().critical.len(), 1);
}
