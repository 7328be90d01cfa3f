use proptest::prelude::*;

use super::*;

fn echo() -> Command {
    Command::EchoRequest { message_id: 7, sop_class: crate::dicom::VERIFICATION.into() }
}

#[test]
fn an_echo_request_is_written_as_dcmtk_writes_it() {
    let bytes = echo().encode();
    let mut expected = vec![0, 0, 0, 0, 4, 0, 0, 0, 56, 0, 0, 0];
    expected.extend_from_slice(b"\0\0\x02\0\x12\0\0\x001.2.840.10008.1.1\0");
    expected.extend_from_slice(&[0, 0, 0, 1, 2, 0, 0, 0, 0x30, 0]);
    expected.extend_from_slice(&[0, 0, 0x10, 1, 2, 0, 0, 0, 7, 0]);
    expected.extend_from_slice(&[0, 0, 0, 8, 2, 0, 0, 0, 1, 1]);
    assert_eq!(bytes, expected);
}

#[test]
fn a_command_set_that_ends_early_or_lies_about_lengths_is_an_error() {
    let bytes = echo().encode();
    // At 58 only the type of the data set is missing, which may be.
    for cut in (1..bytes.len()).filter(|cut| *cut != 58) {
        assert!(Command::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let lie = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1, 0];
    assert_eq!(Command::decode(&lie), Err(CommandError::Truncated));
    let foreign = [8, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(Command::decode(&foreign), Err(CommandError::ForeignGroup(8)));
    let long = vec![0; COMMAND_LENGTH_MAX + 1];
    assert_eq!(Command::decode(&long), Err(CommandError::TooLong));
    let wide = [0, 0, 0, 1, 4, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(Command::decode(&wide), Err(CommandError::WrongLength(0x0100)));
}

#[test]
fn an_unknown_request_keeps_its_message_id_so_that_it_can_be_answered() {
    let rq = Command::Other {
        // N-GET.
        field: 0x0110,
        message_id: Some(9),
        sop_class: "1.2".into(),
        sop_instance: String::new(),
        has_data_set: true,
    };
    assert_eq!(Command::decode(&rq.encode()), Ok(rq));
}

fn uid() -> impl Strategy<Value = String> {
    "[0-9]([0-9.]{0,62}[0-9])?"
}

fn commands() -> impl Strategy<Value = Command> {
    let priority = prop_oneof![Just(Priority::Low), Just(Priority::Medium), Just(Priority::High)];
    let origin = proptest::option::of(("[A-Z0-9]{1,16}", any::<u16>()));
    let store = (any::<u16>(), uid(), uid(), priority, origin, any::<bool>()).prop_map(
        |(message_id, sop_class, sop_instance, priority, move_originator, has_data_set)| {
            Command::StoreRequest(StoreRequest {
                message_id,
                sop_class,
                sop_instance,
                priority,
                move_originator,
                has_data_set,
            })
        },
    );
    let tags = proptest::collection::vec(any::<(u16, u16)>(), 0..4);
    let response = (
        any::<u16>(),
        any::<u16>(),
        proptest::option::of(uid()),
        any::<u16>(),
        tags,
        "([!-~]{1,30}( [!-~]{1,30})?)?",
    )
        .prop_map(|(field, responded_to, uid, status, offending, comment)| {
            Command::Response(Response {
                field: field | field::RESPONSE,
                responded_to,
                sop_class: uid.clone().unwrap_or_default(),
                sop_instance: uid.unwrap_or_default(),
                status,
                offending,
                comment,
                error_id: (status & 2 == 2).then_some(responded_to),
                type_id: None,
                attributes: if status & 4 == 4 { vec![(0x40, 0x252)] } else { vec![] },
                sub_operations: (status & 8 == 8).then_some(SubOperations {
                    remaining: (status & 16 == 16).then_some(field),
                    completed: status,
                    failed: 0,
                    warning: 1,
                }),
                has_data_set: status & 1 == 1,
            })
        });
    let cancel = any::<u16>().prop_map(|responded_to| Command::Cancel { responded_to });
    prop_oneof![store, response, requests().prop_map(Command::Request), cancel]
}

fn requests() -> impl Strategy<Value = Request> {
    let priority = || prop_oneof![Just(Priority::Low), Just(Priority::High)];
    let operation = prop_oneof![
        priority().prop_map(Operation::Find),
        priority().prop_map(Operation::Get),
        (priority(), "([A-Z0-9]{1,16})?").prop_map(|(p, ae)| Operation::Move(p, ae)),
        any::<u16>().prop_map(Operation::EventReport),
        any::<u16>().prop_map(Operation::Action),
        Just(Operation::Set),
        Just(Operation::Create),
    ];
    (operation, any::<u16>(), uid(), proptest::option::of(uid()), any::<bool>()).prop_map(
        |(operation, message_id, sop_class, instance, has_data_set)| Request {
            operation,
            message_id,
            sop_class,
            sop_instance: instance.unwrap_or_default(),
            has_data_set,
        },
    )
}

#[test]
fn set_and_action_name_the_requested_instance_and_the_others_the_affected() {
    let request = |operation| Request {
        operation,
        message_id: 1,
        sop_class: "1.2".into(),
        sop_instance: "1.3".into(),
        has_data_set: true,
    };
    for (operation, tags) in [
        (Operation::Set, [[3, 0], [1, 0x10]]),
        (Operation::Action(1), [[3, 0], [1, 0x10]]),
        (Operation::Create, [[2, 0], [0, 0x10]]),
        (Operation::EventReport(2), [[2, 0], [0, 0x10]]),
    ] {
        let bytes = Command::Request(request(operation.clone())).encode();
        for tag in tags {
            let head = [0, 0, tag[0], tag[1], 4, 0, 0, 0, b'1', b'.'];
            assert!(bytes.windows(10).any(|w| w == head), "{operation:?}");
        }
    }
}

#[test]
fn a_response_repeats_what_was_asked_and_says_failure_until_told_otherwise() {
    let request = Request {
        operation: Operation::Action(1),
        message_id: 5,
        sop_class: "1.2".into(),
        sop_instance: "1.3".into(),
        has_data_set: true,
    };
    let response = request.response();
    assert_eq!((response.field, response.responded_to), (0x8130, 5));
    assert_eq!((response.status, response.type_id), (status::PROCESSING_FAILURE, Some(1)));
    let bytes = Command::Response(response.clone()).encode();
    assert_eq!(Command::decode(&bytes), Ok(Command::Response(response)));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(command in commands()) {
        let bytes = command.encode();
        prop_assert_eq!(bytes.len() % 2, 0);
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Command::decode(&bytes);
    }

    #[test]
    fn no_flipped_byte_panics(command in commands(), at in any::<usize>(), to in any::<u8>()) {
        let mut bytes = command.encode();
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = Command::decode(&bytes);
    }
}
