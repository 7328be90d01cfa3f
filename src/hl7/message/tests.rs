use proptest::prelude::*;

use super::*;

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

const MSH: &str = r"MSH|^~\&|A|B|C|D|2026||ORM^O01|1|P|2.5";

#[test]
fn fields_repetitions_components_and_subcomponents_are_read_by_their_paths() {
    let text = format!("{MSH}\rPID|1||12^^^H&1.2&ISO^PI~34^^^K||山田^太郎^^^^^L^I~ﾔﾏﾀﾞ\rPV1||I\r");
    let message = Message::parse(&text).unwrap();
    for (at, expected) in [
        ("MSH-1", "|"),
        ("MSH-2.1", ""),
        ("MSH-9.2", "O01"),
        ("PID-3", "12"),
        ("PID-3.4", "H&1.2&ISO"),
        ("PID-3.4.2", "1.2"),
        ("PID-3[2].4", "K"),
        ("PID-3[3].4", ""),
        ("PID-5.2", "太郎"),
        ("PID-5[2]", "ﾔﾏﾀﾞ"),
        ("PID-99", ""),
        ("ZZZ-1", ""),
        ("pv1-2", "I"),
    ] {
        assert_eq!(message.text(&path(at)), expected, "{at}");
    }
    assert_eq!(message.write(), text);
}

#[test]
fn what_is_set_is_read_and_the_rest_stays_as_it_was() {
    let mut message = Message::parse(&format!("{MSH}\rPID|1||12^^^H~34\r")).unwrap();
    for (at, text) in [
        ("PID-3[2].4.2", "1.2"),
        ("PID-5", "A|B^C"),
        ("ZDS-2", "\\"),
        ("MSH-1", "!"),
        ("MSH-2", "!"),
    ] {
        message.set(&path(at), text);
    }
    let expected = format!("{MSH}\rPID|1||12^^^H~34^^^&1.2||A\\F\\B\\S\\C\rZDS||\\E\\\r");
    assert_eq!(message.write(), expected);
    assert_eq!(message.text(&path("PID-5")), "A|B^C");
    assert_eq!(Message::parse(&message.write()), Ok(message));
}

#[test]
fn other_delimiters_are_those_that_msh_names() {
    let text = "MSH!:;?*!A!!!!!!ORM:O01\rPID!!!12:::H*1.2;34?F?\r";
    let message = Message::parse(text).unwrap();
    assert_eq!(message.text(&path("PID-3.4.2")), "1.2");
    assert_eq!(message.text(&path("PID-3[2]")), "34!");
    assert_eq!(message.write(), text);
}

#[test]
fn segments_end_in_cr_lf_or_crlf_and_a_line_break_within_a_text_ends_none() {
    let parts = [MSH, "PID|1", "NTE|1||a\nb\nc", "OBX|1", "AL1"];
    let expected = Message::parse(&parts.join("\r")).unwrap();
    assert_eq!(expected.segments().count(), 5);
    for end in ["\n", "\r\n", "\r\r", "\n\n", "\r\n\r\n"] {
        for last in ["", end, "\r\x1c"] {
            let text = format!("{}{last}", parts.join(end));
            assert_eq!(Message::parse(&text).as_ref(), Ok(&expected), "{text:?}");
        }
    }
    assert_eq!(expected.text(&path("NTE-3")), "a\nb\nc");
}

#[test]
fn a_text_that_is_no_message_says_what_it_is() {
    use MessageError::*;
    for (text, error) in [
        ("", NoHeader),
        ("PID|1", NoHeader),
        ("\x0bMSH|^~\\&|", NoHeader),
        ("BHS|^~\\&|A", Batch),
        ("FHS|^~\\&|A", Batch),
        ("MSH", Delimiters),
        ("MSH|", Delimiters),
        ("MSH|^~", Delimiters),
        ("MSH|^~\\|A", Delimiters),
        ("MSH|^^\\&|A", Delimiters),
        ("MSH|^~\\&#+|A", Delimiters),
        ("MSHA^~\\&A", Delimiters),
        ("MSH|^~\\&|\r\r\rfree text", NotASegment { line: 2 }),
        ("MSH|^~\\&|\rPIDX|1", NotASegment { line: 2 }),
        ("MSH|^~\\&|\rPID|1\rPI|", NotASegment { line: 3 }),
        ("MSH|^~\\&|\rPID|1\r骨", NotASegment { line: 3 }),
        ("MSH|^~\\&|\rPID|1\rMSH|^~\\&|", SecondHeader { line: 3 }),
    ] {
        assert_eq!(Message::parse(text), Err(error), "{text:?}");
    }
    assert!(Message::parse("MSH|^~\\&#|A\rMSH\r").is_ok());
    let header = Message::parse_header("MSH|^~\\&|A\rfree text").unwrap();
    assert_eq!(header.text(&path("MSH-3")), "A");
}

#[test]
fn more_segments_or_fields_than_a_message_may_have_are_refused() {
    let text = format!("{MSH}\r{}", "PID\r".repeat(SEGMENTS_MAX));
    assert_eq!(Message::parse(&text), Err(MessageError::TooLarge));
    assert!(Message::parse(&text[..text.len() - 4]).is_ok());
    let text = format!("{MSH}\rPID{}", "|".repeat(FIELDS_MAX));
    assert_eq!(Message::parse(&text), Err(MessageError::TooLarge));
    assert_eq!(Message::parse(&"|".repeat(FIELDS_MAX * 2)), Err(MessageError::NoHeader));
    let text = format!("MSH|^~\\&{}", "|".repeat(FIELDS_MAX + 9));
    assert_eq!(Message::parse(&text), Err(MessageError::TooLarge));
}

#[test]
fn the_null_value_reads_as_nothing_is_written_back_and_never_made_of_a_text() {
    let text = format!("{MSH}\rPID|\"\"|a\"\"\r");
    let message = Message::parse(&text).unwrap();
    let pid = message.segments().nth(1).unwrap();
    assert!(pid.field(1).is_empty() && !pid.field(2).is_empty());
    assert_eq!(message.write(), text);
    let mut message = message.clone();
    message.set(&path("PID-2"), "\"\"");
    assert_eq!(message.text(&path("PID-2")), "\"\"");
}

#[test]
fn segments_are_numbered_by_their_name_and_undecoded_text_is_located() {
    let text = format!("{MSH}\rPID|\u{FFFD}\rOBX|1\rpid|1|2|\u{FFFD}^a\r");
    let message = Message::parse(&text).unwrap();
    let numbers: Vec<usize> = message.segments().map(|s| s.sequence()).collect();
    assert_eq!(numbers, [1, 1, 1, 2]);
    let places: Vec<String> = message.undecoded().map(|place| place.to_string()).collect();
    assert_eq!(places, ["PID^1^1", "pid^2^3"]);
}

fn text() -> impl Strategy<Value = String> {
    let signs: Vec<char> =
        "|^~\\&#\r\n\x0b\x1c\x1b像骨本移美所十ソｱﾞ \"FSTREX.br09".chars().collect();
    let one = prop_oneof![3 => proptest::sample::select(signs), 1 => any::<char>()];
    proptest::collection::vec(one, 0..30).prop_map(|c| c.into_iter().collect())
}

proptest! {
    #[test]
    fn a_message_comes_back_with_every_text_that_was_put_into_it(
        texts in proptest::collection::vec(
            (0usize..4, 3u16..9, 1u16..4, 1u16..4, proptest::option::of(1u16..4), text()), 0..12),
    ) {
        let mut message = Message::new();
        let mut expected = Vec::new();
        for (segment, field, repetition, component, subcomponent, text) in texts {
            let name = ["MSH", "PID", "OBR", "ZDS"][segment];
            let at = match subcomponent {
                Some(n) => format!("{name}-{field}[{repetition}].{component}.{n}"),
                None => format!("{name}-{field}[{repetition}].{component}"),
            };
            // What is put into a component replaces its subcomponents, and the other way round.
            let whole = format!("{name}-{field}[{repetition}].{component}");
            expected.retain(|(other, _): &(String, String)| {
                let within = subcomponent.is_none() && other.starts_with(&whole);
                *other != at && *other != whole && !within
            });
            message.set(&path(&at), &text);
            expected.push((at, text));
        }
        let written = message.write();
        let again = Message::parse(&written).unwrap();
        prop_assert_eq!(&again, &message);
        prop_assert_eq!(again.write(), written);
        for (at, text) in expected {
            prop_assert_eq!(again.text(&path(&at)), text, "{}", at);
        }
    }

    #[test]
    fn any_text_is_split_into_no_more_than_it_has_and_comes_back(
        rest in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(vec!["PID", "|", "^", "~", "\\", "&", "\r", "\n", "\x1c",
                    "OBX|", "MSH|", "\rPV1|", "骨", "a", "\u{FFFD}", "1"]).prop_map(str::to_owned),
                any::<String>(),
            ], 0..40),
    ) {
        let text = format!("{MSH}|{}", rest.concat());
        if let Ok(message) = Message::parse(&text) {
            let fields: usize =
                message.segments.iter().flat_map(|s| &s.fields).map(String::len).sum();
            prop_assert!(fields <= text.len() + 1);
            let written = message.write();
            prop_assert!(written.len() <= text.len() + 1);
            prop_assert_eq!(Message::parse(&written), Ok(message));
        }
    }
}
