use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::dicom::report::{self as documents, BASIC_TEXT_SR, ENCAPSULATED_PDF, Stage};
use crate::hl7::charset::CharsetRule;
use crate::hl7::message::Message;
use crate::hl7::order::OrderFields;
use crate::hl7::report::{ReportMessage, TextAs};
use crate::orders::identifier::{Identifier, Patient};
use crate::orders::order::{Code as OrderCode, OrderKey, Procedure};
use crate::reports::arrive::ArriveRules;
use crate::reports::report::tests::report as some_report;
use crate::reports::report::{Form, Reader, Status};

const JAPANESE: &str = "骨 像 本 表 ソ 移所\n\n右下葉に 4 mm の結節を認める。 ﾎﾝﾔｸ|^~\\& ok";

fn text(text: &str) -> Report {
    let mut report = some_report(Status::Final, Form::new(FormKind::Text, text.into()));
    report.verifiers = vec![Reader {
        id: Identifier::of("77", "RC"),
        name: "DOKUEI^I=読影^医".into(),
        ..Reader::default()
    }];
    report
}

fn order() -> Order {
    let key = OrderKey { origin: "hospital".parse().unwrap(), number: "P1".into() };
    let mut order = Order::empty(key);
    let c = &mut order.content;
    c.placer = Some(Identifier::of("P1", "HIS"));
    c.filler = Some(Identifier::bare("F1"));
    c.accession = Some(Identifier::of("A1", "RIS"));
    c.studies = vec!["1.2.3".into()];
    c.requester = "IRAI^I".into();
    c.modality = "CT".into();
    c.patient = Patient {
        ids: vec![Identifier::of("4711", "EAST")],
        names: vec!["山田^骨".into(), "ヤマダ^ホネ".into(), "YAMADA^HONE".into()],
        birth_date: "19500101".into(),
        sex: "F".into(),
        ..Patient::default()
    };
    let code = OrderCode { value: "CT1".into(), scheme: "99H".into(), meaning: "頭部CT".into() };
    c.procedures = vec![Procedure {
        requested: "RP1".into(),
        step: "S1".into(),
        code,
        ..Procedure::default()
    }];
    order
}

fn target() -> Target {
    let order = Some(OrderKey { origin: "hospital".parse().unwrap(), number: "P1".into() });
    Target { origin: "hospital".parse().unwrap(), study: "1.2.3".into(), order }
}

/// Makes one part of a version of the report "r", which arrived long ago.
fn make(report: &Report, wanted: Part, home: &Home, before: Option<&Before>) -> Made {
    try_make(report, wanted, home, before, &target()).unwrap()
}

fn try_make(
    report: &Report,
    wanted: Part,
    home: &Home,
    before: Option<&Before>,
    target: &Target,
) -> Result<Made, MakeError> {
    let zone = TimeZone::fixed(jiff::tz::offset(9));
    let order = order();
    let task = Task {
        report,
        id: "r",
        version: report.digest(),
        number: 2,
        target,
        order: target.order.is_some().then_some(&order),
        before,
        at: Timestamp(1_764_000_000_000),
        zone: &zone,
    };
    part(&task, &wanted, home)
}

const MESSAGE: Part = Part::Message { text: Source::Received(FormKind::Text), pdf: None };
const STRUCTURED: Part = Part::Instance { structured: true, from: Source::StructuredOfText };

fn home(charset: &str) -> Home {
    let mut home = Home::default();
    home.message.dialect.charset = charset.parse().unwrap();
    home.document.japanese = true;
    home
}

/// The message as its receiver reads it, and MSH-10.
fn read(made: &Made) -> (ReportMessage, Message) {
    let Made::Message { bytes, control_id, lost } = made else { panic!("{made:?}") };
    assert_eq!(*lost, 0);
    // Table 0211 has no name for Shift_JIS: its receivers know.
    let default = "SHIFT_JIS".parse().unwrap();
    let decoded = CharsetRule { default, always: None }.decode(bytes).unwrap();
    assert!(decoded.faults.is_empty());
    let message = Message::parse(&decoded.text).unwrap();
    assert_eq!(message.header().field(10).raw(), control_id);
    (ReportMessage::read(&message, &OrderFields::default()).unwrap(), message)
}

fn instance(made: &Made) -> (documents::DicomReport, &str, Option<Anew>) {
    let Made::Instance { bytes, uid, class, syntax, anew, series } = made else {
        panic!("{made:?}")
    };
    let read = documents::read(bytes, syntax).unwrap();
    let facts = &read.facts;
    let said = (&facts.sop_instance, &facts.sop_class, &facts.series);
    assert_eq!(said, (uid, class, series));
    (read, uid, *anew)
}

fn arrived(read: &documents::DicomReport, made: &Made) -> Report {
    let Made::Instance { bytes, syntax, .. } = made else { panic!() };
    ArriveRules::default().of_document(read, bytes, syntax, "PACS").unwrap()
}

#[test]
fn a_message_has_the_numbers_names_and_codes_of_the_order_and_the_text_to_the_character() {
    for charset in ["UNICODE UTF-8", "~ISO IR87", "ISO IR13~ISO IR87", "SHIFT_JIS"] {
        for layout in [TextAs::Lines, TextAs::One] {
            // Its romaji have no backslash and no tilde; plain IR 87 has no half-width kana.
            let said = match charset {
                "UNICODE UTF-8" => JAPANESE.to_owned(),
                _ => JAPANESE.replace("ﾎﾝﾔｸ", "翻訳").replace(['\\', '~'], ""),
            };
            let mut home = home(charset);
            home.message.dialect.text = layout;
            let (said_back, message) = read(&make(&text(&said), MESSAGE, &home, None));
            let report = &said_back.reports[0];
            assert_eq!(report.text(), said, "{charset} {layout:?}");
            assert_eq!((&*report.placer.id, &*report.filler.id), ("P1", "F1"));
            assert_eq!((&*report.accession, &*report.studies[0]), ("A1", "1.2.3"));
            assert_eq!((&*report.service.id, &*report.service.text), ("CT1", "頭部CT"));
            assert_eq!(report.procedure, ("RP1".into(), "S1".into()));
            assert_eq!(report.result(), ResultStatus::Final);
            assert_eq!(report.interpreters[0].name.family, "読影");
            assert_eq!(report.reported_at.as_str(), "19700101090001+0900");
            let patient = &said_back.patient;
            assert_eq!(patient.identifiers[0].authority.namespace, "EAST");
            let names = ["I", "P", "A"].map(|kind| patient.name(kind).unwrap().family.as_str());
            assert_eq!(names, ["山田", "ヤマダ", "YAMADA"]);
            assert_eq!(message.text(&"MSH-7".parse().unwrap()), "20251125010000+0900");
        }
    }
}

#[test]
fn half_width_kana_reach_a_his_whose_character_set_has_them() {
    let home = home("ISO IR13~ISO IR87");
    let (said, _) = read(&make(&text("ﾎﾝﾔｸ 骨 ソ"), MESSAGE, &home, None));
    assert_eq!(said.reports[0].text(), "ﾎﾝﾔｸ 骨 ソ");
}

#[test]
fn each_state_has_its_code_in_messages_and_its_flags_in_documents() {
    use ResultStatus::{Cancelled, Corrected, Final, Preliminary};
    for (status, code, stage) in [
        (Status::Preliminary, Preliminary, Stage::Preliminary),
        (Status::Final, Final, Stage::Final),
        (Status::Corrected, Corrected, Stage::Corrected),
        (Status::Cancelled, Cancelled, Stage::Corrected),
    ] {
        let mut report = text("a");
        report.status = status;
        let (said, message) = read(&make(&report, MESSAGE, &Home::default(), None));
        let sent = &said.reports[0];
        assert!(sent.result() == code && sent.observations.iter().all(|o| o.status == code.code()));
        let before = Before { uid: "1.9".into(), class: BASIC_TEXT_SR.into(), series: "".into() };
        let before = Some(&before).filter(|_| stage == Stage::Corrected);
        let made = make(&report, STRUCTURED, &Home::default(), before);
        let (read, ..) = instance(&made);
        assert_eq!(read.facts.stage(), stage);
        let withdrawn = status == Status::Cancelled;
        assert_eq!(message.write().contains("has been withdrawn"), withdrawn);
        assert_eq!(read.text.contains("has been withdrawn"), withdrawn, "{}", read.text);
        if before.is_some() {
            assert_eq!(read.facts.predecessors[0].reference.instance, "1.9");
            assert_eq!(read.facts.predecessors[0].series, read.facts.series);
        }
    }
    let mut home = Home::default();
    home.message.corrected = Final;
    let mut report = text("a");
    report.status = Status::Corrected;
    assert_eq!(read(&make(&report, MESSAGE, &home, None)).0.reports[0].result(), Final);
}

#[test]
fn text_goes_through_document_and_message_and_back_to_the_character() {
    let (home, said) = (home("ISO IR13~ISO IR87"), JAPANESE.replace(['\\', '~'], ""));
    let made = make(&text(&said), STRUCTURED, &home, None);
    let (document, ..) = instance(&made);
    assert_eq!(document.text, format!("Findings\n{said}"));
    // From the archive to the HIS.
    let arrived = arrived(&document, &made);
    let from = Source::TextOf(FormKind::Structured);
    let (message, _) = read(&make(&arrived, Part::Message { text: from, pdf: None }, &home, None));
    assert_eq!(message.reports[0].text(), document.text);
    // And from there to a file.
    let bytes = message.reports[0].text();
    let part = Part::File { kind: FormKind::Text, from: Source::Received(FormKind::Text) };
    let file = make(&text(&bytes), part, &home, None);
    let Made::File { extension: "txt", bytes } = file else { panic!() };
    assert_eq!(bytes, document.text.as_bytes());
}

#[test]
fn the_parts_of_a_message_stay_parts_in_the_message_and_in_the_document() {
    let oru = "MSH|^~\\&|RIS|RC|||20261122||ORU^R01|9|P|2.5||||||UNICODE UTF-8\r\
        PID|1||4711^^^EAST\rOBR|1|X|Y|CT^Head^L||||||||||||||||||||F\r\
        OBX|1|TX|18782-3^所見^LN||骨に異常なし||||||F\rOBX|2|TX|18782-3^所見^LN||二行目||||||F\r\
        OBX|3|NM|9^Size^L||4|mm|||||F\r\
        OBX|4|TX|19005-8&IMP^診断^LN||脳出血の疑い|||AA|||F\r";
    let message = Message::parse(oru).unwrap();
    let said = ReportMessage::read(&message, &OrderFields::default()).unwrap();
    let arrived = ArriveRules::default().of_message(&said, 0, oru.as_bytes(), "RIS").unwrap();
    let home = Home::default();
    let (again, _) = read(&make(&arrived, MESSAGE, &home, None));
    let (was, is) = (&said.reports[0], &again.reports[0]);
    assert_eq!(is.text(), was.text());
    let shape = |r: &crate::hl7::report::Report| {
        let of = |o: &crate::hl7::report::Observation| {
            (o.kind.clone(), o.code.clone(), o.suffix.clone(), o.flags.clone())
        };
        r.observations.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(shape(is), shape(was));
    assert_eq!(is.placer.id, "P1", "the hospital's own number");
    let made = make(&arrived, STRUCTURED, &home, None);
    let (document, ..) = instance(&made);
    assert_eq!(document.headings, ["Findings", "Impressions"]);
    assert!(document.text.ends_with("Impressions\n診断\n脳出血の疑い"), "{}", document.text);
}

#[test]
fn the_parts_are_found_whether_or_not_the_message_names_its_character_set() {
    for named in ["UNICODE UTF-8", ""] {
        let oru = format!(
            "MSH|^~\\&|RIS|RC|||20261122||ORU^R01|9|P|2.5||||||{named}\rPID|1||1\r\
             OBR|1|X|Y|CT^Head^L\rOBX|1|TX|1&IMP^診断^L||骨折||||||F\r"
        );
        let form = Form::new(FormKind::Message, oru.into_bytes());
        let mut report = text("骨折");
        report.forms.push(form);
        (report.ids.placer, report.ids.filler) =
            (Some(Identifier::bare("X")), Some(Identifier::bare("Y")));
        let (said, _) = read(&make(&report, MESSAGE, &Home::default(), None));
        assert_eq!(said.reports[0].observations[0].suffix, "IMP", "{named}");
    }
}

#[test]
fn lines_and_fields_that_a_site_writes_are_in_the_message() {
    let languages = vec![Language::Japanese, Language::English];
    let mut home = Home { languages, ..Home::default() };
    home.message.header = vec!["{title} {status} v{number}".parse().unwrap(), "".parse().unwrap()];
    home.message.footer = vec!["{reader} {written} {accession}".parse().unwrap()];
    let field = |path: &str, text: &str| (path.parse().unwrap(), text.parse().unwrap());
    home.message.fields = vec![field("OBR-24", "{modality}"), field("ZRP-2", "{code}")];
    home.message.fields.push(field("NTE-3", "no such segment"));
    home.message.service = Service::Always(Coded { id: "R".into(), ..Coded::default() });
    home.message.issuers = false;
    let (said, message) = read(&make(&text("a\nb"), MESSAGE, &home, None));
    let report = &said.reports[0];
    let lines = "CT 確定 / final v2\n\na\nb\n読影 医 1970-01-01 09:00 A1";
    assert_eq!((report.text(), &*report.service.id), (lines.to_owned(), "R"));
    assert_eq!(said.patient.identifiers[0].authority, Default::default());
    let of = |path: &str| message.text(&path.parse().unwrap()).into_owned();
    assert_eq!((of("OBR-24"), of("ZRP-2")), ("CT".into(), "F".into()));
    assert!(message.segments().all(|segment| !segment.is("NTE")));
}

#[test]
fn what_the_character_set_lacks_is_counted_and_shown_and_another_spelling_of_the_name_is_taken() {
    let mut report = text("a\u{20BB7}b");
    let made = make(&report, MESSAGE, &home("~ISO IR87"), None);
    let Made::Message { bytes, lost: 1, .. } = made else { panic!("{made:?}") };
    assert!(CharsetRule::default().decode(&bytes).unwrap().text.contains("a〓b"));
    // Romaji for a HIS that has ASCII alone.
    report.forms = vec![Form::new(FormKind::Text, "plain".into())];
    let made = make(&report, MESSAGE, &home("8859/1"), None);
    let Made::Message { bytes, .. } = made else { panic!() };
    assert!(String::from_utf8_lossy(&bytes).contains("|77&DOKUEI&I"));
}

#[test]
fn a_pdf_goes_to_the_byte_into_the_message_the_archive_and_the_folder() {
    let pdf = documents::Pages::of("head", JAPANESE).bytes;
    let report = some_report(Status::Final, Form::new(FormKind::Pdf, pdf.clone()));
    let received = Source::Received(FormKind::Pdf);
    let part = Part::Message { text: Source::SeeAttached, pdf: Some(received) };
    let (said, _) = read(&make(&report, part, &Home::default(), None));
    assert_eq!(said.reports[0].documents().next().unwrap().bytes, pdf);
    assert_eq!(said.reports[0].text(), "See the attached document.");
    let around = Part::Instance { structured: false, from: Source::Around(FormKind::Pdf) };
    let made = make(&report, around, &Home::default(), None);
    let (document, ..) = instance(&made);
    assert_eq!(document.encapsulated.as_ref().unwrap().bytes, pdf);
    assert_eq!((&*document.facts.sop_class, &*document.facts.study), (ENCAPSULATED_PDF, "1.2.3"));
    assert_eq!(document.facts.title.meaning, "CT");
    let part = Part::File { kind: FormKind::Pdf, from: received };
    assert_eq!(
        make(&report, part, &Home::default(), None),
        Made::File { extension: "pdf", bytes: pdf.clone() }
    );
    // And from the archive on, as it is.
    let again = arrived(&document, &made);
    let received = Source::Received(FormKind::Encapsulated);
    let passed =
        make(&again, Part::Instance { structured: false, from: received }, &Home::default(), None);
    assert_eq!(passed, made);
}

#[test]
fn a_document_of_another_study_or_patient_is_not_changed_but_said_anew_in_the_right_one() {
    let (home, target) = (Home::default(), target());
    let made = make(&text(JAPANESE), STRUCTURED, &home, None);
    let (document, uid, _) = instance(&made);
    let came = arrived(&document, &made);
    let part = Part::Instance { structured: true, from: Source::Received(FormKind::Structured) };
    assert_eq!(try_make(&came, part.clone(), &home, None, &target), Ok(made.clone()));
    let elsewhere = Target { study: "1.2.4".into(), ..target.clone() };
    let anew = try_make(&came, part.clone(), &home, None, &elsewhere).unwrap();
    let (read, other, why) = instance(&anew);
    assert_eq!((why, &*read.facts.study), (Some(Anew::Study), "1.2.4"));
    assert!(other != uid && read.text.contains(JAPANESE));
    // Nothing to say: a person must look.
    let mut wordless = came.clone();
    let empty = documents::Pages::of("", "").bytes;
    wordless.forms = vec![Form::new(FormKind::Pdf, empty)];
    wordless.forms.extend(came.form(FormKind::Structured).cloned());
    wordless.forms[1].bytes.truncate(9);
    let failed = try_make(&wordless, part.clone(), &home, None, &elsewhere);
    assert_eq!(failed, Err(MakeError::Form("structured report")));
    // Withdrawn: what says otherwise of itself is replaced.
    let mut withdrawn = came.clone();
    withdrawn.status = Status::Cancelled;
    let (read, _, why) = {
        let made = try_make(&withdrawn, part, &home, None, &target).unwrap();
        let (read, uid, why) = instance(&made);
        (read, uid.to_owned(), why)
    };
    assert_eq!(why, Some(Anew::Withdrawn));
    assert!(read.text.contains("has been withdrawn") && read.text.contains(JAPANESE));
}

#[test]
fn an_archive_gets_nothing_without_a_study_and_nothing_of_a_form_that_is_not_there() {
    let homeless = Target { study: String::new(), order: None, ..target() };
    let made = try_make(&text("a"), STRUCTURED, &Home::default(), None, &homeless);
    assert_eq!(made, Err(MakeError::NoStudy));
    let part = Part::Instance { structured: false, from: Source::Around(FormKind::Pdf) };
    let made = try_make(&text("a"), part, &Home::default(), None, &target());
    assert_eq!(made, Err(MakeError::Form("PDF")));
    // An order whose study nobody has named: that of its worklist entry.
    let ordered = Target { study: String::new(), ..target() };
    let made = try_make(&text("a"), STRUCTURED, &Home::default(), None, &ordered).unwrap();
    assert_eq!(instance(&made).0.facts.study, "1.2.3");
}

#[test]
fn the_documents_of_a_version_are_one_with_the_last_ones_facts_and_all_forms() {
    let mut oru = text("text");
    (oru.title, oru.language) = ("CT Head".into(), String::new());
    oru.ids.accessions = vec![Identifier::bare("A1")];
    let mut sr = text("derived");
    sr.forms[0] = sr.forms[0].clone().derived();
    sr.forms.push(Form::data_set(FormKind::Structured, b"sr".to_vec(), BASIC_TEXT_SR, "1.2"));
    (sr.title, sr.is_signed) = (String::new(), false);
    sr.verifiers.clear();
    sr.ids.accessions = vec![Identifier::bare("A2")];
    let all = merged(&[oru.clone(), sr.clone()]);
    assert_eq!((&*all.title, &*all.language, all.is_signed), ("CT Head", "ja", true));
    let numbers: Vec<&str> = all.ids.accessions.iter().map(|a| a.id.as_str()).collect();
    assert_eq!((numbers, all.verifiers.len()), (vec!["A2", "A1"], 1));
    assert_eq!(all.text(), Some("text"), "what was sent goes before what was made here");
    let kinds: Vec<FormKind> = all.forms.iter().map(|form| form.kind).collect();
    assert_eq!(kinds, [FormKind::Text, FormKind::Structured]);
    assert_eq!(merged(&[oru.clone()]), oru);
    assert_eq!(merged(&[oru.clone(), oru.clone()]), oru);
    let other = merged(&[sr, oru.clone()]);
    let sorted = |report: &Report| -> BTreeMap<FormKind, Sha256> {
        report.forms.iter().map(|form| (form.kind, form.digest)).collect()
    };
    assert_eq!(sorted(&other), sorted(&all));
}

proptest! {
    #[test]
    fn made_twice_it_is_the_same_and_of_another_version_it_has_other_ids(
        said in "[a-z骨像本表ソｱ |^~\\\\&\n]{1,60}[a-z]",
        other in "[A-Z]{1,9}",
        status in 0..4_usize,
    ) {
        let states = [Status::Preliminary, Status::Final, Status::Corrected, Status::Cancelled];
        let home = home("UNICODE UTF-8");
        let mut report = text(&said);
        report.status = states[status];
        let pages = Part::Instance { structured: false, from: Source::PagesOfText };
        let mut ids = BTreeSet::new();
        for wanted in [MESSAGE, STRUCTURED, pages] {
            for report in [&report, &text(&other)] {
                let made = make(report, wanted.clone(), &home, None);
                prop_assert_eq!(&make(report, wanted.clone(), &home, None), &made);
                ids.insert(match made {
                    Made::Message { control_id, .. } => {
                        prop_assert_eq!(control_id.len(), 20);
                        control_id
                    }
                    Made::Instance { uid, .. } => {
                        prop_assert!(crate::dicom::is_uid(&uid));
                        uid
                    }
                    Made::File { .. } => String::new(),
                });
            }
        }
        prop_assert_eq!(ids.len(), 6);
        let (back, _) = read(&make(&report, MESSAGE, &home, None));
        let whole = back.reports[0].text();
        prop_assert!(report.status == Status::Cancelled || whole == said, "{whole:?}");
    }
}
