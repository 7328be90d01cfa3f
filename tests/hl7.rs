//! HL7 messages of other people's making, byte for byte through the whole of `hl7`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hikyaku::hl7::ack::{Stage, Stamp};
use hikyaku::hl7::charset::Charset;
use hikyaku::hl7::inbound::{Content, Inbound, Rules};
use hikyaku::hl7::message::Message;
use hikyaku::hl7::mllp::{Deframer, frame};
use hikyaku::hl7::order::{Action, OrderFields, OrderMessage, OrderType, Priority, Sending};
use hikyaku::hl7::patient::PatientChange;

const STAMP: Stamp<'static> = Stamp { control_id: "ANSWER", at: "20261122120000" };

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hl7")
}

/// Every sample by folder and name.
fn samples() -> BTreeMap<String, Vec<u8>> {
    let index = fs::read_to_string(folder().join("INDEX.tsv")).expect("the index");
    let paths = index.lines().skip(1).filter_map(|line| line.split('\t').next());
    let samples: BTreeMap<_, _> = paths
        .map(|path| (path.to_owned(), fs::read(folder().join(path)).expect("a sample")))
        .collect();
    assert!(samples.len() > 70, "the samples are found");
    samples
}

fn sample(path: &str) -> Vec<u8> {
    fs::read(folder().join(path)).expect("a sample")
}

fn japanese() -> impl Iterator<Item = (String, Vec<u8>)> {
    samples().into_iter().filter(|(path, _)| path.starts_with("japanese")).map(
        |(path, mut bytes)| {
            // These files keep the first byte of the end of their frame.
            assert_eq!(bytes.pop(), Some(0x1C));
            (path, bytes)
        },
    )
}

/// Rules for test messages, which are of many versions and say that they are tests.
fn lenient() -> Rules {
    let mut rules = Rules::default();
    rules.accepts.processing_ids.push("T".into());
    rules
}

fn orders(path: &str) -> OrderMessage {
    match Inbound::read(&sample(path), &lenient()).content() {
        Ok(Content::Orders(orders)) => (**orders).clone(),
        other => panic!("{path}: {other:?}"),
    }
}

/// Files that hold no single message.
const NO_MESSAGES: [(&str, &str); 10] = [
    ("cosyte/batch_count-mismatch.hl7", "batches"),
    ("cosyte/batch_malformed-mid-batch.hl7", "batches"),
    ("cosyte/batch_multi-batch-file.hl7", "batches"),
    ("cosyte/batch_single-batch.hl7", "batches"),
    ("cosyte/stream_large-batch.ndhl7.hl7", "batches"),
    ("cosyte/stream_malformed-mid-stream.hl7", "second message"),
    ("cosyte/stream_mixed-terminators.hl7", "second message"),
    ("cosyte/stream_split-across-chunks.hl7", "second message"),
    ("cosyte/vendor-quirks_duplicate-required-segment.hl7", "second message"),
    ("cosyte/vendor-quirks_mllp-framing-stripped.hl7", "begins with MSH"),
];

#[test]
fn every_well_formed_message_is_split_and_written_back_as_it_was() {
    for (path, bytes) in samples() {
        let decoded = Rules::default().charset.decode(&bytes).expect("a known character set");
        let parsed = Message::parse(&decoded.text);
        if let Some((_, words)) = NO_MESSAGES.iter().find(|(name, _)| *name == path) {
            let error = parsed.expect_err(&path).to_string();
            assert!(error.contains(words), "{path}: {error}");
            continue;
        }
        let message = parsed.unwrap_or_else(|error| panic!("{path}: {error}"));
        // Segments end in CR, once; nothing else changes.
        let mut ends = decoded.text.replace("\r\n", "\r").replace('\n', "\r");
        while ends.contains("\r\r") {
            ends = ends.replace("\r\r", "\r");
        }
        let ends = ends.trim_end_matches(['\r', '\x1c']);
        assert_eq!(message.write(), format!("{ends}\r"), "{path}");
    }
}

#[test]
fn japanese_messages_come_back_byte_for_byte() {
    let mut seen = 0;
    for (path, bytes) in japanese() {
        let decoded = Rules::default().charset.decode(&bytes).expect("a known character set");
        assert!(decoded.faults.is_empty(), "{path}");
        assert!(decoded.text.contains("患者"), "{path}");
        let message = Message::parse(&decoded.text).unwrap_or_else(|e| panic!("{path}: {e}"));
        let again = decoded.charset.encode(&message.write()).expect("its own characters");
        assert_eq!(again.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{path}");
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn each_message_gets_the_answer_that_it_deserves() {
    let rules = Rules::default();
    let mut yes = Vec::new();
    for (path, bytes) in samples() {
        let inbound = Inbound::read(&bytes, &rules);
        let answer = inbound.answer(Stage::Application, &[], STAMP);
        let answer = inbound.charset().decode(&answer).text;
        let answer = Message::parse(&answer).unwrap_or_else(|e| panic!("{path}: {answer}: {e}"));
        let text = |at: &str| answer.text(&at.parse().expect("a path")).into_owned();
        assert_eq!(text("MSH-9"), "ACK", "{path}");
        let asked = inbound.message().map(|m| m.text(&"MSH-10".parse().unwrap()).into_owned());
        assert_eq!(text("MSA-2"), asked.unwrap_or_default(), "{path}");
        let refusals = inbound.content().err().unwrap_or_default();
        let seen: Vec<String> = refusals
            .iter()
            .map(|r| {
                let place = r.location.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("{} {place} {}", text("MSA-1"), r.condition.code())
            })
            .collect();
        if refusals.is_empty() {
            assert_eq!(text("MSA-1"), "AA", "{path}");
            yes.push(path);
        } else {
            assert_eq!(seen, [deserved(&path)], "{path}");
        }
    }
    assert_eq!(yes, TAKEN);
}

/// What this program is for, among the samples.
const TAKEN: [&str; 8] = [
    "cosyte/canonical_adt-a08.hl7",
    "cosyte/canonical_adt-a40-merge.hl7",
    "cosyte/canonical_orm-o01.hl7",
    "cosyte/philips_adt-a08.hl7",
    "cosyte/philips_orm-o01.hl7",
    "cosyte/visage_orm-o01.hl7",
    "japanese-ssmix2/9999013_-_ADT-00_999999999999999_20111220224447339_-_1.hl7",
    "japanese-ssmix2/9999013_20111220_OMG-01_000201101200100_20111220224447339_-_1.hl7",
];

/// Code, place and condition of the answer to a sample that is not taken.
fn deserved(path: &str) -> &'static str {
    match path {
        // A test message, which production does not take.
        "cosyte/nte_obr-order-notes.hl7" => "AR MSH^1^11 202",
        // Its MSH-9 is empty.
        "cosyte/vendor-quirks_missing-required-field.hl7" => "AR MSH^1^9 101",
        _ if NO_MESSAGES.iter().any(|(name, words)| *name == path && *words == "batches") => {
            "AR  200"
        }
        _ if NO_MESSAGES.iter().any(|(name, _)| *name == path) => "AR  100",
        _ if is_of(path, &["ADT", "OMI", "OMG", "ORM"]) => "AR MSH^1^9 201",
        _ => "AR MSH^1^9 200",
    }
}

/// Whether a sample's message code is one of these.
fn is_of(path: &str, codes: &[&str]) -> bool {
    let text = String::from_utf8_lossy(&sample(path)).into_owned();
    let code = text.split('|').nth(8).unwrap_or_default();
    codes.contains(&code.split('^').next().unwrap_or_default())
}

#[test]
fn a_real_order_that_is_broken_is_refused_at_the_place_where_it_is() {
    let path = "japanese-ssmix2/9999013_20111220_OMG-01_000201101200100_20111220224447339_-_1.hl7";
    for (sound, broken, expected) in [
        (
            "|12345678^^^^PI|",
            "|^^^^PI|",
            "MSA|AE|20111220000001|PID-3 is missing\rERR||PID^1^3|101^",
        ),
        ("PID|", "ZID|", "MSA|AE|20111220000001|PID is missing\rERR||PID^1|100^"),
        ("ORC|CH|", "ORC||", "MSA|AE|20111220000001|ORC-1 is missing\rERR||ORC^3^1|101^"),
        ("ORC|PA|", "ORC|??|", "ERR||ORC^2^1|103^Table value not found^HL70357|E||||ORC-1 is"),
        ("OBR||000201101200101|", "OBX||", "ERR||OBR^3|100^Segment sequence error"),
        (
            "|2.5|",
            "|2.9|",
            "MSA|AR|20111220000001|version \"2.9\" is not taken here\rERR||MSH^1^12|203^",
        ),
        ("|P|2.5|", "|D|2.5|", "MSA|AR|20111220000001|processing ID \"D\" is not"),
        ("OMG^O19^OMG_O19", "OMG^O20^OMG_O20", "ERR||MSH^1^9|201^"),
        ("|20111220000001|", "||", "MSA|AR||MSH-10 is missing\rERR||MSH^1^10|101^"),
        ("\rPV1|", "\rfree text|", "MSA|AR|20111220000001|line 3 does not begin with"),
        ("|~ISO IR87|", "|ISO IR 999|", "ERR||MSH^1^18|103^"),
    ] {
        let (bytes, sound) = (sample(path), sound.as_bytes());
        let at = bytes.windows(sound.len()).position(|w| w == sound).expect("it is there");
        let broken = [&bytes[..at], broken.as_bytes(), &bytes[at + sound.len()..]].concat();
        let inbound = Inbound::read(&broken, &Rules::default());
        let answer = inbound.answer(Stage::Application, &[], STAMP);
        let answer = String::from_utf8(answer).expect("ASCII");
        assert!(answer.contains(expected), "{expected}\n{answer}");
    }
}

#[test]
fn an_order_of_jahis_has_its_parent_and_its_children() {
    let path = "japanese-ssmix2/9999013_20111220_OMG-01_000201101200100_20111220224447339_-_1.hl7";
    let said = orders(path);
    let patient = &said.patient;
    assert_eq!(patient.identifiers[0].id, "12345678");
    assert_eq!(
        patient.name("I").map(|n| (n.family.as_str(), n.given.as_str())),
        Some(("患者", "太郎"))
    );
    assert_eq!(patient.name("P").map(|n| n.family.as_str()), Some("カンジャ"));
    assert_eq!((said.visit.class.as_str(), said.orders.len()), ("O", 6));
    let controls: Vec<&str> = said.orders.iter().map(|o| o.control.as_str()).collect();
    assert_eq!(controls, ["NW", "PA", "CH", "CH", "CH", "CH"]);
    for order in &said.orders {
        assert_eq!((order.action, order.priority), (Action::New, Priority::Routine));
        assert_eq!(order.procedure.system, "JJ1017");
        assert_eq!(order.requesters[0].name.given, "太郎");
        assert_eq!(order.department.id, "01");
        assert_eq!(order.parent.id, if order.is_child() { "000201101200100" } else { "" });
    }
    assert_eq!(said.orders[0].placer, said.orders[1].placer);
    assert_eq!(said.orders[2].procedure.text, "胸部.Ｘ線単純撮影.立位正面(A→P)");
    assert_eq!(said.orders[1].observations[0].values, [["62"]]);
}

#[test]
fn a_notice_of_performed_work_is_not_taken_for_an_order_though_it_reads_like_one() {
    // SS-MIX2 tells performed imaging as OMI^Z23: an event of its own that orders nothing.
    let path = "japanese-ssmix2/9999013_20111220_OMG-11_2011122000300_20111220224447339_24_1.hl7";
    let inbound = Inbound::read(&sample(path), &Rules::default());
    assert!(inbound.content().is_err());
    let read =
        OrderMessage::read(inbound.message().expect("it is well-formed"), &OrderFields::default());
    let order = &read.expect("it has the form of an order").orders[2];
    assert_eq!(
        (order.accession.as_str(), order.steps[0].modality.as_str()),
        ("A201112200030001", "US")
    );
    assert_eq!(order.study_uid, "1.2.392.1114.20045.43233.5.300001");
    assert_eq!((order.department.text.as_str(), order.scheduled_at.as_str()), ("産科", "20111220"));
}

#[test]
fn orders_of_three_vendors_have_their_accession_number_and_study() {
    let visage = &orders("cosyte/visage_orm-o01.hl7").orders[0];
    assert_eq!((visage.accession.as_str(), visage.priority), ("AC-VS-001", Priority::High));
    assert_eq!(visage.study_uid, "1.2.826.0.1.3680043.10.99999.20250326.1");
    assert_eq!(visage.steps[0].requested_procedure_id, "RPID-VS-001");
    let philips = &orders("cosyte/philips_orm-o01.hl7").orders[0];
    assert_eq!((philips.accession.as_str(), philips.procedure.shown()), ("AC-PH-001", "CT HEAD"));
    assert_eq!(philips.scheduled_at.as_str(), "20250326100000");
    let cpoe = &orders("cosyte/nte_obr-order-notes.hl7").orders[0];
    assert_eq!(cpoe.notes.len(), 3);
    assert_eq!((cpoe.accession.as_str(), cpoe.placer.id.as_str()), ("FLR-002", "ORD-002"));
}

#[test]
fn patients_are_updated_and_merged() {
    let change = |path| match Inbound::read(&sample(path), &Rules::default()).content() {
        Ok(Content::Patients(said)) => said.changes[0].clone(),
        other => panic!("{path}: {other:?}"),
    };
    let PatientChange::Merge { patient, prior, .. } = change("cosyte/canonical_adt-a40-merge.hl7")
    else {
        panic!("no merge")
    };
    assert_eq!(
        (patient.identifiers[0].id.as_str(), prior[0].id.as_str()),
        ("MRN99001", "MRN99002")
    );
    assert_eq!(prior[0].authority.namespace, "HOSP");
    assert!(matches!(change("cosyte/philips_adt-a08.hl7"), PatientChange::Update { .. }));
}

#[test]
fn a_japanese_patient_is_updated_with_the_allergy() {
    let path = "japanese-ssmix2/9999013_-_ADT-00_999999999999999_20111220224447339_-_1.hl7";
    let inbound = Inbound::read(&sample(path), &Rules::default());
    let Ok(Content::Patients(said)) = inbound.content() else { panic!("{:?}", inbound.content()) };
    let PatientChange::Update { patient, visit } = &said.changes[0] else { panic!("{said:?}") };
    assert_eq!(patient.allergies[0].code.shown(), "ペニシリン");
    assert_eq!((visit.location.point_of_care.as_str(), visit.class.as_str()), ("32", "I"));
}

#[test]
fn an_order_of_kanji_made_of_delimiters_survives_the_line_the_reader_and_the_next_ris() {
    let text = "MSH|^~\\&|RIS|病院|GW|READ|20261122||OMI^O23^OMI_O23|1|P|2.5||||||~ISO IR87||\
        ISO 2022-1994\rPID|||12^^^H||山本^十美^^^^^L^I\rORC|NW|P1\r\
        OBR|1|P1||X^骨画像 移所^L|||||||||本\rIPC|A1||1.2.3||CR\r";
    let charset: Charset = "~ISO IR87".parse().unwrap();
    let bytes = charset.encode(text).unwrap();
    for sign in b"|\\~=" {
        assert!(
            bytes.iter().filter(|b| *b == sign).count() > text.matches(char::from(*sign)).count()
        );
    }
    let mut deframer = Deframer::new(10_000);
    for byte in frame(&bytes).unwrap() {
        deframer.push(&[byte]);
    }
    let received = deframer.next_message().unwrap().expect("a whole message");
    let inbound = Inbound::read(&received, &Rules::default());
    let Ok(Content::Orders(said)) = inbound.content() else { panic!("{:?}", inbound.content()) };
    assert_eq!(said.patient.names[0].family, "山本");
    assert_eq!(said.orders[0].procedure.text, "骨画像 移所");
    let sending = Sending {
        order_type: OrderType::Imaging,
        from: ("GW", "病院"),
        to: ("RIS", "READ"),
        at: "20261122",
        control_id: "2",
        processing_id: "P",
        charset,
    };
    let sent = charset.encode(&said.write(&sending).write()).unwrap();
    let next = Inbound::read(&sent, &Rules::default());
    assert_eq!(next.content(), inbound.content());
    let answer = next.answer(Stage::Application, &[], STAMP);
    assert!(charset.decode(&answer).text.contains("|RIS|READ|GW|病院|"), "{answer:?}");
}

#[test]
fn orders_that_were_read_are_written_so_that_they_read_the_same() {
    for (path, bytes) in samples() {
        let Ok(Content::Orders(said)) = Inbound::read(&bytes, &lenient()).content().cloned() else {
            continue;
        };
        for order_type in [OrderType::General, OrderType::Imaging] {
            let charset = Charset::UTF_8;
            let sending = Sending {
                order_type,
                from: ("A", "B"),
                to: ("C", "D"),
                at: "20261122",
                control_id: "1",
                processing_id: "P",
                charset,
            };
            let sent = charset.encode(&said.write(&sending).write()).unwrap();
            let again = Inbound::read(&sent, &Rules::default());
            assert_eq!(again.content(), Ok(&Content::Orders(said.clone())), "{path}");
        }
    }
}

#[test]
fn a_caller_that_cannot_keep_a_message_says_so_in_the_answer() {
    use hikyaku::hl7::ack::{Condition, Refusal, Verdict};
    let full = Refusal {
        verdict: Verdict::Error,
        location: None,
        condition: Condition::ApplicationInternalError,
        words: "the spool is full".into(),
    };
    let inbound = Inbound::read(&sample("cosyte/visage_orm-o01.hl7"), &Rules::default());
    let answer = inbound.answer(Stage::Application, &[full], STAMP);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("MSA|AE|MSGVS001|the spool is full\rERR|||207^"), "{answer}");
}
