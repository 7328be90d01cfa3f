use super::*;
use crate::cargo::Sha256;
use crate::dicom::command::{Command, ERROR_COMMENT_LENGTH_MAX};
use crate::dicom::{EXPLICIT_VR_LE, IMPLICIT_VR_LE, VERIFICATION};
use crate::intake::access::tests::config;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn request() -> StoreRequest {
    StoreRequest {
        message_id: 4,
        sop_class: CT.into(),
        sop_instance: "1.2.3".into(),
        has_data_set: true,
        ..StoreRequest::default()
    }
}

fn context() -> Context {
    Context { id: 1, abstract_syntax: CT.into(), transfer_syntax: IMPLICIT_VR_LE.to_owned() }
}

fn element(group: u16, element: u16, value: &str) -> Vec<u8> {
    let mut value = value.as_bytes().to_vec();
    value.resize(value.len().next_multiple_of(2), 0);
    let tag = [group.to_le_bytes(), element.to_le_bytes()].concat();
    [&tag[..], &(value.len() as u32).to_le_bytes(), &value].concat()
}

fn data_set(class: &str, instance: &str) -> Vec<u8> {
    [
        element(0x0008, 0x0016, class),
        element(0x0008, 0x0018, instance),
        element(0x0008, 0x0060, "CT"),
        element(0x0010, 0x0020, "4711"),
        element(0x0020, 0x000d, "1.2"),
    ]
    .concat()
}

fn verdict(bytes: &[u8]) -> Result<Vec<String>, u16> {
    examine(&request(), &context(), bytes, true).map(|(_, flags)| flags).map_err(|f| f.status)
}

#[test]
fn identifiers_that_differ_from_the_commands_are_answered_a900() {
    assert_eq!(verdict(&data_set(CT, "1.2.3")), Ok(vec![]));
    assert_eq!(verdict(&data_set(CT, "1.2.4")), Err(0xA900));
    assert_eq!(verdict(&data_set("1.2.840.10008.5.1.4.1.1.4", "1.2.3")), Err(0xA900));
}

#[test]
fn an_empty_or_unreadable_data_set_is_answered_c000_and_a_deeper_fault_is_kept() {
    assert_eq!(verdict(b""), Err(0xC000));
    assert_eq!(verdict(b"this is not DICOM"), Err(0xC000));
    let mut damaged = data_set(CT, "1.2.3");
    damaged.extend_from_slice(&[0x28, 0, 0x10, 0, 0xff, 0, 0, 0]);
    assert_eq!(verdict(&damaged), Ok(vec!["data set ends within (0028,0010)".into()]));
}

#[test]
fn an_object_that_does_not_name_itself_is_kept_and_flagged() {
    let flags = verdict(&element(0x0008, 0x0060, "CT")).unwrap();
    assert_eq!(flags.len(), 3, "{flags:?}");
    let head = data_set(CT, "1.2.3");
    let cut = examine(&request(), &context(), &head[..40], false).unwrap();
    assert_eq!(cut.1, Vec::<String>::new());
}

#[test]
fn commands_that_cannot_be_served_are_refused_for_the_right_reason() {
    let judge = |class: &str, instance: &str| {
        let mut config = config();
        config.refuse_sop_classes.insert("1.2.840.10008.5.1.4.1.1.104.1".into());
        let request =
            StoreRequest { sop_class: class.into(), sop_instance: instance.into(), ..request() };
        judge_request(&request, &config).map_err(|f| f.status)
    };
    assert_eq!(judge(CT, "1.2.3"), Ok(()));
    assert_eq!(judge("1.3.12.2.1107.5.9.1", "1.2.3"), Ok(()));
    assert_eq!(judge("1.2.840.10008.5.1.4.1.1.104.1", "1.2.3"), Err(0x0124));
    assert_eq!(judge(VERIFICATION, "1.2.3"), Err(0x0122));
    for hostile in ["", "../../etc/passwd", "1.2\x001.3", "1.2\x1b[2J", &"1".repeat(129)] {
        assert_eq!(judge(CT, hostile), Err(0x0117), "{hostile:?}");
    }
    let odd = examine(
        &StoreRequest { sop_instance: "3gb_native.0".into(), ..request() },
        &context(),
        &data_set(CT, "3gb_native.0"),
        true,
    );
    assert_eq!(odd.unwrap().1, ["SOP Instance UID breaks the rules for UIDs"]);
}

#[test]
fn no_patient_data_enters_an_envelope_unbounded_and_no_control_character_does() {
    let set = [
        data_set(CT, "1.2.3"),
        element(0x0020, 0x000e, &"9".repeat(900)),
        element(0x0028, 0x0010, "\u{1b}"),
    ]
    .concat();
    let (header, flags) = examine(&request(), &context(), &set, true).unwrap();
    let identity =
        Identity { origin: "a".parse().unwrap(), key: "1.2.3".into(), sha256: Sha256::of(&set) };
    let peer = Admitted { calling: "CT1".parse().unwrap(), called: "H".parse().unwrap() };
    let parts = Parts { identity, length: 1, received_at: Timestamp(0) };
    let e = envelope(parts, &peer, &request(), &context(), &header, flags);
    assert_eq!((e.modality.as_str(), e.study.as_str()), ("CT", "1.2"));
    assert_eq!(e.series.len(), crate::cargo::TEXT_LENGTH_MAX);
}

#[test]
fn every_failure_is_written_with_a_comment_that_fits() {
    use failures::*;
    let all = [
        FULL,
        TOO_LARGE,
        IO,
        STOPPED,
        EMPTY,
        UNREADABLE,
        CLASS_REFUSED,
        NOT_STORAGE,
        NO_INSTANCE,
        CLASS_DIFFERS,
        INSTANCE_DIFFERS,
    ];
    for f in all {
        assert!(f.comment.len() <= ERROR_COMMENT_LENGTH_MAX && f.comment.is_ascii(), "{f:?}");
        let response = Command::Response(refusal(&request(), f));
        assert_eq!(Command::decode(&response.encode()), Ok(response));
    }
}

#[test]
fn the_explicit_reading_of_an_implicit_data_set_is_unreadable() {
    let context = Context { transfer_syntax: EXPLICIT_VR_LE.to_owned(), ..context() };
    let result = examine(&request(), &context, &data_set(CT, "1.2.3"), true);
    assert_eq!(result.unwrap_err(), failures::UNREADABLE);
}

#[test]
fn the_conformance_statement_has_every_status_that_is_answered() {
    use failures::*;
    let all = [
        FULL,
        TOO_LARGE,
        IO,
        STOPPED,
        EMPTY,
        UNREADABLE,
        CLASS_REFUSED,
        NOT_STORAGE,
        NO_INSTANCE,
        CLASS_DIFFERS,
        INSTANCE_DIFFERS,
    ];
    let mut answered: Vec<String> = all.iter().map(|f| format!("{:04X}", f.status)).collect();
    answered.extend(["0000", "B000"].map(String::from));
    answered.sort();
    answered.dedup();
    let page = include_str!("../../../docs/conformance-statement.md");
    let table = page.split("<!-- scp statuses -->").nth(1).unwrap();
    let rows = table.trim().lines().skip(2);
    let mut stated: Vec<&str> = rows.map(|row| row.split('|').nth(1).unwrap().trim()).collect();
    stated.sort_unstable();
    assert_eq!(stated, answered);
}
