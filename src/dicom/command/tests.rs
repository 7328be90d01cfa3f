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
        field: 0x0020,
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
                has_data_set: status & 1 == 1,
            })
        });
    prop_oneof![store, response]
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
