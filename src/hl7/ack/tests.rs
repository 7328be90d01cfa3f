use super::*;
use crate::hl7::header::Accepts;

const STAMP: Stamp<'static> = Stamp { control_id: "77", at: "20261122" };

fn received(version: &str, rest: &str) -> Message {
    let text = format!(
        "MSH|^~\\&|RIS^1.2^ISO|病院|GW|READ|2026||OMI^O23^OMI_O23|M\\T\\1|P^T|{version}{rest}\r"
    );
    Message::parse_header(&text).unwrap()
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::missing(Location::field("PID", 1, 3)),
        Refusal::missing(Location::segment("OBR", 2)),
    ]
}

#[test]
fn a_yes_goes_back_to_the_sender_in_its_version_and_character_set() {
    let asked = received("2.5^JPN", "||||||~ISO IR87||ISO 2022-1994");
    let answer = acknowledge(&asked, Stage::Application, &[], STAMP).write();
    let expected = "MSH|^~\\&|GW|READ|RIS^1.2^ISO|病院|20261122||ACK^O23^ACK|77|P^T|2.5^JPN\
        ||||||~ISO IR87||ISO 2022-1994\rMSA|AA|M\\T\\1\r";
    assert_eq!(answer, expected);
}

#[test]
fn from_2_5_each_refusal_has_an_err_with_place_code_severity_and_words() {
    let answer = acknowledge(&received("2.5.1", ""), Stage::Application, &refusals(), STAMP);
    let text = answer.write();
    let lines: Vec<&str> = text.split('\r').collect();
    assert_eq!(lines[1], "MSA|AE|M\\T\\1|PID-3 is missing");
    assert_eq!(lines[2], "ERR||PID^1^3|101^Required field missing^HL70357|E||||PID-3 is missing");
    assert_eq!(lines[3], "ERR||OBR^2|100^Segment sequence error^HL70357|E||||OBR is missing");
}

#[test]
fn before_2_5_one_err_repeats_place_and_code() {
    for version in ["2.3", "2.3.1", "2.4", ""] {
        let answer = acknowledge(&received(version, ""), Stage::Application, &refusals(), STAMP);
        let text = answer.write();
        let lines: Vec<&str> = text.split('\r').collect();
        let expected = "ERR|PID^1^3^101&Required field missing&HL70357\
            ~OBR^2^^100&Segment sequence error&HL70357";
        assert_eq!((lines[2], lines.len()), (expected, 4), "{version}");
    }
}

#[test]
fn a_component_is_named_by_the_repetition_and_its_number() {
    let mut refusal =
        Refusal::reject(Location::field("MSH", 1, 9), Condition::UnsupportedEventCode, "no");
    refusal.location.as_mut().unwrap().component = Some(2);
    let answer = acknowledge(&received("2.5", ""), Stage::Application, &[refusal], STAMP).write();
    assert!(answer.contains("MSA|AR|") && answer.contains("ERR||MSH^1^9^1^2|201^"), "{answer}");
}

#[test]
fn the_code_is_that_of_the_worst_refusal_and_of_the_stage() {
    let error = Refusal::missing(Location::field("PID", 1, 3));
    let reject = Refusal { verdict: Verdict::Reject, ..error.clone() };
    for (refusals, application, accept) in
        [(vec![], "AA", "CA"), (vec![error.clone()], "AE", "CE"), (vec![error, reject], "AR", "CR")]
    {
        assert_eq!(code(Stage::Application, &refusals), application);
        assert_eq!(code(Stage::Accept, &refusals), accept);
    }
}

#[test]
fn the_enhanced_mode_is_answered_as_it_asks_and_the_original_one_once() {
    for (rest, taken, refused) in [
        ("", vec![Stage::Application], vec![Stage::Application]),
        ("|||AL|NE", vec![Stage::Accept], vec![Stage::Accept]),
        (
            "|||AL|AL",
            vec![Stage::Accept, Stage::Application],
            vec![Stage::Accept, Stage::Application],
        ),
        ("|||ER|SU", vec![Stage::Application], vec![Stage::Accept]),
        ("|||NE|", vec![], vec![]),
    ] {
        let header = Header::of(&received("2.4", rest));
        assert_eq!((wanted(&header, false), wanted(&header, true)), (taken, refused), "{rest}");
    }
}

#[test]
fn bytes_without_a_readable_header_are_rejected_without_names() {
    let refusal = Refusal::from(MessageError::NoHeader);
    let text = unreadable(&refusal, STAMP).write();
    let expected = "MSH|^~\\&|||||20261122||ACK|77|P|2.3\rMSA|AR||a message begins with MSH\r\
        ERR|^^^100&Segment sequence error&HL70357\r";
    assert_eq!(text, expected);
}

#[test]
fn a_sender_with_other_delimiters_can_read_its_answer() {
    let asked = Message::parse("MSH!:;?*!A!!B!!2026!!ORM:O01!1!P!2.6\r").unwrap();
    let refusal = Header::of(&asked).check(&Accepts::default()).unwrap_err();
    let text = acknowledge(&asked, Stage::Application, &[refusal], STAMP).write();
    assert!(text.starts_with("MSH!:;?*!B!!A!!20261122!!ACK:O01!77!P!2.6\rMSA!AR!1!"), "{text}");
    assert!(text.contains("ERR!!MSH:1:12!203:Unsupported version id:HL70357!E"), "{text}");
}

#[test]
fn an_answer_lists_no_more_refusals_than_it_may() {
    let many = vec![Refusal::missing(Location::field("PID", 1, 3)); REFUSALS_MAX + 5];
    let answer = acknowledge(&received("2.5", ""), Stage::Application, &many, STAMP);
    assert_eq!(answer.segments().count(), 2 + REFUSALS_MAX);
}
