use proptest::prelude::*;

use super::*;
use crate::hl7::ack::{Stage, Stamp};
use crate::hl7::charset::Charset;
use crate::hl7::datatype::{Authority, Name, PatientIdentifier};
use crate::hl7::header::Accepts;
use crate::hl7::inbound::{Content, Inbound, Rules};
use crate::hl7::message::Message;
use crate::hl7::order::OrderFields;

const HEAD: &str = "MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5.1\rPID|||12^^^H&1.2&ISO^PI\r";

fn read(rest: &str) -> Result<ReportMessage, Vec<String>> {
    let message = Message::parse(&format!("{HEAD}{rest}")).unwrap();
    ReportMessage::read(&message, &OrderFields::default()).map_err(|refusals| {
        let place = |r: &crate::hl7::ack::Refusal| r.location.as_ref().unwrap().to_string();
        refusals.iter().map(|r| format!("{} {}", place(r), r.condition.code())).collect()
    })
}

fn one(rest: &str) -> Report {
    let mut read = read(rest).unwrap();
    assert_eq!(read.reports.len(), 1, "{read:?}");
    read.reports.remove(0)
}

#[test]
fn a_report_is_read_field_by_field() {
    let report = one("ORC|RE|P1^HIS|F1^RIS\r\
        OBR|1|P1^HIS|F2^RIS|CT1^胸部CT^JJ1017|||20261122|||||||||D1^主治||ACC1|RP|SP||\
        202611221200|||F|||||||R9&読影&医&&&Dr.|A1&助手&一\r\
        NTE|1||note of the report\r\
        OBX|1|ST|113014^DICOM Study^DCM||1.2.3||||||F\r\
        OBX|2|HD|^SR Instance UID||1.2.4^^ISO||||||F\r\
        OBX|3|HD|^SOP Instance UID||1.2.5||||||F\r\
        OBX|4|TX|18782-3^Findings^LN|1|line one||||||F|||20261122\r\
        OBX|5|TX|18782-3^Findings^LN|2|||||||F\r\
        OBX|6|TX|18782-3^Findings^LN|3|line \\T\\ three~four||||||F\r\
        OBX|7|FT|19005-8&IMP^Impression^LN||a\\.br\\\\H\\b\\N\\||||||F\r\
        OBX|8|NM|X^Diameter^L||3|cm||AA^Critical^HL70078~H||||F\r\
        NTE|1||measured twice\r\
        OBX|9|CE|Y^Finding^L||C65^腎腫瘍^ICD-10||||||F\r\
        OBX|10|RP|Z^Images^L||http://x/1^PACS^Application^dicom||||||F\r\
        OBX|11|TX|18782-3&ADT^Findings^LN||later||||||C\r\
        OBX|12|TX|18782-3^Findings^LN||of somebody else||||||W\r");
    assert_eq!((report.placer.id.as_str(), report.filler.id.as_str()), ("P1", "F2"));
    assert_eq!(
        (report.accession.as_str(), report.studies.as_slice()),
        ("ACC1", &["1.2.3".into()][..])
    );
    assert_eq!((report.document_uid.as_str(), &*report.instances[0]), ("1.2.4", "1.2.5"));
    assert_eq!(report.service.shown(), "胸部CT");
    assert_eq!((report.status, report.result()), (ResultStatus::Final, ResultStatus::Final));
    assert_eq!(report.reported_at.as_str(), "202611221200");
    let reader = &report.interpreters[0];
    assert_eq!((&*reader.id, &*reader.name.family, &*reader.name.prefix), ("R9", "読影", "Dr."));
    assert_eq!(
        (&*report.assistants[0].name.given, &*report.requesters[0].name.family),
        ("一", "主治")
    );
    assert_eq!(report.procedure, ("RP".to_owned(), "SP".to_owned()));
    let text = "Findings\nline one\n\nline & three\nfour\nImpression\na\nb\nDiameter: 3 cm\n\
                measured twice\nFinding: 腎腫瘍\nImages: http://x/1 PACS Application dicom\n\
                Findings (addendum)\nlater\nnote of the report";
    assert_eq!(report.text(), text);
    assert!(report.has_addendum());
    let flags: Vec<_> = report.flags().map(|(flag, code)| (flag, code.shown())).collect();
    assert_eq!(flags, [("AA", "Diameter"), ("H", "Diameter")]);
}

#[test]
fn several_reports_of_one_message_keep_what_is_theirs() {
    let said = read(
        "ORC|RE|P1\rOBR|1|||A||||||||||||||A1|||||||P\rOBX|1|TX|T||one\r\
         ORC|RE|P2\rOBR|2||F2|B||||||||||||||A2|||||||F\rZDS|1.2.9\rOBX|1|TX|T||two\r\
         OBR|3||F3|C\r",
    )
    .unwrap();
    let seen: Vec<_> = said
        .reports
        .iter()
        .map(|r| (&*r.placer.id, &*r.filler.id, &*r.accession, r.result(), r.text()))
        .collect();
    assert_eq!(
        seen,
        [
            ("P1", "", "A1", ResultStatus::Preliminary, "one".to_owned()),
            ("P2", "F2", "A2", ResultStatus::Final, "two".to_owned()),
            ("", "F3", "F3", ResultStatus::Unstated, String::new()),
        ]
    );
    assert_eq!(said.reports[1].studies, ["1.2.9"]);
}

#[test]
fn the_observations_say_how_far_a_report_is_when_it_does_not_say_so_itself() {
    let result = |statuses: &[&str]| {
        let obx = statuses.iter().map(|s| format!("OBX||TX|T||x||||||{s}\r"));
        one(&format!("OBR|1||F|A\r{}", obx.collect::<String>())).result()
    };
    assert_eq!(result(&["F", "F"]), ResultStatus::Final);
    assert_eq!(result(&["F", "C"]), ResultStatus::Corrected);
    assert_eq!(result(&["F", "P"]), ResultStatus::Preliminary);
    assert_eq!(result(&["C", "R"]), ResultStatus::Unverified);
    assert_eq!(result(&["X", "W"]), ResultStatus::Cancelled);
    assert_eq!(result(&["U"]), ResultStatus::Final);
    assert_eq!(result(&["", "?"]), ResultStatus::Unstated);
    for code in ["O", "I", "S", "A", "R", "P", "F", "C", "X", "Y", "Z"] {
        let status = ResultStatus::of_code(code).unwrap();
        assert_eq!(ResultStatus::of_code(status.code()), Some(status), "{code}");
    }
}

#[test]
fn documents_are_decoded_and_told_apart_by_their_bytes() {
    let read = |value: &str| {
        let report = one(&format!("OBR|1||F|A\rOBX|1|ED|D||{value}||||||F\r"));
        let all: Vec<Document> = report.documents().cloned().collect();
        assert_eq!(report.text(), "", "documents are no text");
        all
    };
    let pdf = read("^Application^PDF^Base64^JVBERi0x\\.br\\LjcK JSUK");
    assert_eq!((&pdf[0].kind, &*pdf[0].bytes), (&DocumentKind::Pdf, &b"%PDF-1.7\n%%\n"[..]));
    let cda = read("^Text^text/xml^A^<?xml?>\\T\\ <ClinicalDocument a=\"x^y~z\"/>");
    assert_eq!(cda[0].kind, DocumentKind::Cda);
    assert_eq!(cda[0].bytes, b"<?xml?>& <ClinicalDocument a=\"x^y~z\"/>");
    let hex = read("^TEXT^plain^Hex^E9AAA8");
    assert_eq!(
        (&hex[0].kind, &*hex[0].bytes),
        (&DocumentKind::Other("text/plain".into()), "骨".as_bytes())
    );
    let liar = read("^Application^PDF^Base64^PGh0bWw+");
    assert_eq!(liar[0].kind, DocumentKind::Other("application/pdf".into()), "called one, and none");
}

#[test]
fn a_report_that_cannot_be_taken_is_refused_at_its_place() {
    for (rest, places) in [
        ("PV1||O\r", &["OBR^1 100"][..]),
        ("OBR|1||F|A|||||||||||||||||||||Q\r", &["OBR^1^25 103"]),
        ("OBR|1||F|A\rOBX|1|ED|D||^Application^PDF^Base64^J***\r", &["OBX^1^5 102"]),
        ("OBR|1||F|A\rOBR|2||G|A\rOBX|1|ED|D||^A^PDF^Hex^ABC\r", &["OBX^1^5 102"]),
    ] {
        assert_eq!(read(rest), Err(places.iter().map(|p| (*p).to_owned()).collect()), "{rest}");
    }
    let message =
        Message::parse("MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5\rPID|||\rOBR|1\r").unwrap();
    let refusal = ReportMessage::read(&message, &OrderFields::default()).unwrap_err().remove(0);
    assert_eq!(refusal.location.unwrap().to_string(), "PID^1^3");
}

#[test]
fn an_oru_goes_all_the_way_from_bytes_to_its_answer_where_reports_are_taken() {
    let text = "MSH|^~\\&|RIS|読影|HIS|H|2026||ORU^R01|7|P|2.5||||||~ISO IR87\rPID|||12\r\
                OBR|1||F1|A|||||||||||||||||||||F\rOBX|1|TX|T||骨 像 本 表 ソ ｱ||||||F\r";
    let charset: Charset = "~ISO IR13~ISO IR87".parse().unwrap();
    let bytes = charset.encode(text).unwrap();
    let mut rules = Rules::default();
    let stamp = Stamp { control_id: "9", at: "2026" };
    let answer = |rules: &Rules| {
        let inbound = Inbound::read(&bytes, rules);
        let answer = inbound.charset().decode(&inbound.answer(Stage::Application, &[], stamp)).text;
        (inbound.content().ok().cloned(), answer)
    };
    assert!(answer(&rules).1.contains("MSA|AR|7|messages ORU are not taken here"));
    rules.accepts = Accepts { reports: true, ..Accepts::default() };
    let (content, answer) = answer(&rules);
    assert!(answer.contains("MSA|AA|7\r"), "{answer}");
    let Some(Content::Reports(said)) = content else { panic!() };
    assert_eq!(said.reports[0].text(), "骨 像 本 表 ソ ｱ");
}

#[test]
fn a_report_for_a_his_looks_as_its_dialect_has_it() {
    let said = read(
        "PV1||O\rOBR|1|P1|F1|A^B||||||||||||||A1||||20261122|||F|||||||R1&医\r\
         OBX|1|ST|113014^DICOM Study^DCM||1.2.3||||||F\r\
         OBX|2|FT|||a\\.br\\b||||||F\rOBX|3|ED|||^Application^PDF^Base64^JVBERi0=||||||F\r",
    )
    .unwrap();
    let mut dialect = ReportDialect {
        from: ("HIKYAKU".into(), "R".into()),
        to: ("HIS".into(), "H".into()),
        charset: "~ISO IR13~ISO IR87".parse().unwrap(),
        text_code: Coded { id: "T".into(), ..Coded::default() },
        document_code: Coded { id: "D".into(), ..Coded::default() },
        accession: "OBR-20.2".parse().unwrap(),
        ..ReportDialect::default()
    };
    let sending = ReportSending { at: "20261122", control_id: "8" };
    let head = "PID|1||12^^^H&1.2&ISO^PI\rPV1|1|O\rORC|RE|P1|F1\r";
    assert_eq!(
        said.write(&dialect, sending).write(),
        format!(
            "MSH|^~\\&|HIKYAKU|R|HIS|H|20261122||ORU^R01^ORU_R01|8|P|2.5.1||||||\
             ~ISO IR13~ISO IR87||ISO 2022-1994\r{head}\
             OBR|1|P1|F1|A^B||||||||||||||||^A1||20261122|||F|||||||R1&医\r\
             OBX|1|ST|113014^DICOM Study^DCM||1.2.3||||||F\r\
             OBX|2|TX|T||a||||||F\rOBX|3|TX|T||b||||||F\r\
             OBX|4|ED|D||^Application^PDF^Base64^JVBERi0=||||||F\r"
        )
    );
    dialect = ReportDialect {
        version: "2.3".into(),
        documents: false,
        text: TextAs::One,
        study: StudyAs::Zds,
        charset: Charset::default(),
        accession: "OBR-18".parse().unwrap(),
        ..dialect
    };
    assert_eq!(
        said.write(&dialect, sending).write(),
        format!(
            "MSH|^~\\&|HIKYAKU|R|HIS|H|20261122||ORU^R01|8|P|2.3\r{head}\
             OBR|1|P1|F1|A^B||||||||||||||A1||||20261122|||F|||||||R1&医\r\
             OBX|1|FT|T||a\\.br\\b||||||F\rZDS|1.2.3^^Application^DICOM\r"
        )
    );
    assert_eq!(dialect.check(), Ok(()));
    dialect.version = "2.6".into();
    assert!(matches!(dialect.check(), Err(DialectError::Version(_))));
    dialect = ReportDialect { accession: "PID-3".parse().unwrap(), ..ReportDialect::default() };
    assert!(matches!(dialect.check(), Err(DialectError::Accession(_))));
}

/// Text without blanks at its ends, of characters that every Japanese set has.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), some()]
}

fn some() -> impl Strategy<Value = String> {
    "[骨像本表ソｱﾞ移所A-Z0-9|^~\\\\&]([骨像本表ソｶ A-Z|^~\\\\&]{0,5}[骨像本表ソA-Z|^~\\\\&])?"
}

fn coded() -> impl Strategy<Value = Coded> {
    (some(), text(), text()).prop_map(|(id, text, system)| Coded {
        id,
        text,
        system,
        ..Coded::default()
    })
}

fn person() -> impl Strategy<Value = Person> {
    (some(), some(), text()).prop_map(|(id, family, given)| {
        let name = Name { family, given, ..Name::default() };
        Person { id, name, ..Person::default() }
    })
}

fn number() -> impl Strategy<Value = Identifier> {
    (some(), text()).prop_map(|(id, namespace)| {
        let issuer = Authority { namespace, ..Authority::default() };
        Identifier { id, issuer }
    })
}

fn observation() -> impl Strategy<Value = Observation> {
    let lines = proptest::collection::vec(text(), 1..4).prop_map(|l| Value::Text(l.join("\n")));
    let text_value = lines.prop_filter("says something", |v| *v != Value::Text(String::new()));
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    let document = bytes
        .prop_map(|bytes| Value::Document(Document::new([&b"%PDF-1.7"[..], &bytes].concat(), "")));
    let parts = || proptest::collection::vec(some(), 1..4);
    let value = prop_oneof![
        3 => text_value.prop_map(|v| ("FT", v)),
        1 => document.prop_map(|v| ("ED", v)),
        1 => parts().prop_map(|p| ("CE", Value::Parts(vec![p]))),
        1 => parts().prop_map(|p| ("RP", Value::Pointer(p))),
    ];
    let suffix = proptest::sample::select(vec!["", "ADT", "IMP"]);
    let flags = proptest::sample::subsequence(vec!["AA", "HH", "N"], 0..3);
    let status = proptest::sample::select(vec!["P", "F", "C", "D"]);
    let notes = proptest::collection::vec(some(), 0..2);
    (value, coded(), suffix, flags, status, notes).prop_map(
        |((kind, value), code, suffix, flags, status, notes)| Observation {
            kind: kind.into(),
            suffix: suffix.into(),
            value,
            flags: flags.into_iter().map(str::to_owned).collect(),
            status: status.into(),
            actionable: if suffix.is_empty() { Coded::default() } else { code.clone() },
            code,
            notes,
            ..Observation::default()
        },
    )
}

fn report() -> impl Strategy<Value = Report> {
    let status = proptest::sample::select(vec!["", "I", "A", "R", "P", "F", "C", "X", "Y"]);
    let people = || proptest::collection::vec(person(), 0..3);
    let uids = proptest::sample::subsequence(vec!["1.2.3", "1.2.4", "2.25.1"], 0..3);
    (
        (number(), number(), some(), status, uids),
        (coded(), people(), people(), people()),
        proptest::collection::vec(observation(), 0..4),
        proptest::collection::vec(some(), 0..2),
    )
        .prop_map(|(keys, who, observations, notes)| Report {
            placer: keys.0,
            filler: keys.1,
            accession: keys.2,
            status: ResultStatus::of_code(keys.3).unwrap(),
            studies: keys.4.iter().map(|u| (*u).to_owned()).collect(),
            series: keys.4.iter().map(|u| format!("{u}.1")).collect(),
            instances: keys.4.iter().map(|u| format!("{u}.2")).collect(),
            document_uid: keys.4.first().map(|u| format!("{u}.9")).unwrap_or_default(),
            service: who.0,
            interpreters: who.1,
            assistants: who.2,
            requesters: who.3,
            reported_at: TimeStamp::new("20261122"),
            observations,
            notes,
            ..Report::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reports_come_back_as_they_were_written_in_each_version_and_character_set(
        reports in proptest::collection::vec(report(), 1..3),
        version in proptest::sample::select(vec!["2.3", "2.3.1", "2.4", "2.5", "2.5.1"]),
    ) {
        let patient = Patient {
            identifiers: vec![PatientIdentifier { id: "本|1".into(), ..Default::default() }],
            ..Patient::default()
        };
        let said = ReportMessage { patient, visit: Visit::default(), reports };
        for charset in ["~ISO IR13~ISO IR87", "ISO IR13~ISO IR87", "Shift_JIS", "UTF-8"] {
            let charset: Charset = charset.parse().unwrap();
            for text in [TextAs::One, TextAs::Lines] {
                let dialect = ReportDialect {
                    version: version.into(), charset, text, ..ReportDialect::default()
                };
                let message = said.write(&dialect, ReportSending { at: "2026", control_id: "1" });
                let bytes = charset.encode(&message.write()).unwrap();
                let again = Message::parse(&charset.decode(&bytes).text).unwrap();
                let read = ReportMessage::read(&again, &OrderFields::default()).unwrap();
                for (read, said) in read.reports.iter().zip(&said.reports) {
                    prop_assert_eq!(read.text(), said.text());
                    prop_assert_eq!(read.result(), said.result());
                    prop_assert!(read.documents().eq(said.documents()));
                }
                if text == TextAs::One {
                    prop_assert_eq!(&read, &said);
                }
            }
        }
    }

    #[test]
    fn no_text_in_an_observation_panics(text in "[|^~\\\\&.A-Zbrspk0-9骨]{0,60}", kind in "(TX|FT|ED|RP|CE|HD)") {
        let rest = format!("OBR|1||F|A\rOBX|1|{kind}|^SR Instance UID^{text}||{text}|{text}\r");
        let message = Message::parse(&format!("{HEAD}{rest}")).unwrap();
        if let Ok(read) = ReportMessage::read(&message, &OrderFields::default()) {
            read.reports.iter().for_each(|r| drop(r.text()));
        }
    }
}
