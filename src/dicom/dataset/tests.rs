use dicom_core::dicom_value;

use super::*;

fn object() -> InMemDicomObject {
    let item = InMemDicomObject::from_element_iter([
        DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, dicom_value!(Str, "1.2.3")),
        DataElement::new(tags::REQUESTED_PROCEDURE_DESCRIPTION, VR::LO, "頭部\\CT"),
    ]);
    InMemDicomObject::from_element_iter([
        DataElement::new(tags::PATIENT_NAME, VR::PN, "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        DataElement::new(tags::PATIENT_ID, VR::LO, ""),
        DataElement::new(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, "12"),
        DataElement::new(tags::SLICE_THICKNESS, VR::DS, "1.5\\-2"),
        DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(512_u16)),
        DataElement::new(
            tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE,
            VR::SQ,
            Value::from(DataSetSequence::from(vec![item])),
        ),
    ])
}

#[test]
fn what_is_written_is_read_back_in_every_repertoire_and_both_syntaxes() {
    for wanted in [Repertoire::UTF8, Repertoire::JAPANESE, Repertoire::default()] {
        for syntax in [EXPLICIT_VR_LE, IMPLICIT_VR_LE] {
            let bytes = write(&object(), syntax, wanted).unwrap();
            let read = read(&bytes, syntax).unwrap();
            let name = text(&read, tags::PATIENT_NAME);
            assert_eq!(name, "Yamada^Tarou=山田^太郎=やまだ^たろう", "{wanted:?} {syntax}");
            let [item] = items(&read, tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE) else { panic!() };
            let description = text(item, tags::REQUESTED_PROCEDURE_DESCRIPTION);
            assert_eq!(description, "頭部\\CT");
            assert_eq!(text(item, tags::STUDY_INSTANCE_UID), "1.2.3");
            assert_eq!(text(&read, tags::ROWS), "512");
            assert_eq!(text(&read, tags::NUMBER_OF_STUDY_RELATED_INSTANCES), "12");
            assert_eq!(text(&read, tags::SLICE_THICKNESS), "1.5\\-2");
            assert_eq!(text(&read, tags::PATIENT_ID), "");
            assert!(read.get(tags::PATIENT_ID).is_some(), "an empty attribute is there");
        }
    }
}

#[test]
fn ascii_names_no_character_set_and_kanji_for_a_japanese_device_are_escaped() {
    let mut set = object();
    set.put(DataElement::new(tags::PATIENT_NAME, VR::PN, "A^B"));
    set.remove_element(tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE);
    let bytes = write(&set, EXPLICIT_VR_LE, Repertoire::UTF8).unwrap();
    assert_eq!(&bytes[..6], b"\x10\0\x10\0PN");
    let bytes = write(&object(), EXPLICIT_VR_LE, Repertoire::JAPANESE).unwrap();
    assert!(bytes.windows(16).any(|w| w == b"\\ISO 2022 IR 87 "));
    assert!(bytes.windows(13).any(|w| w == b"=\x1b$B;3ED\x1b(B^\x1b"));
}

#[test]
fn a_character_that_the_wanted_repertoire_lacks_makes_it_unicode() {
    let set =
        InMemDicomObject::from_element_iter([DataElement::new(tags::PATIENT_NAME, VR::PN, "김")]);
    let bytes = write(&set, EXPLICIT_VR_LE, Repertoire::JAPANESE).unwrap();
    assert!(bytes.windows(10).any(|w| w == b"ISO_IR 192"));
    assert_eq!(text(&read(&bytes, EXPLICIT_VR_LE).unwrap(), tags::PATIENT_NAME), "김");
}

#[test]
fn what_a_device_wrote_against_the_letter_is_passed_on_as_it_was_read() {
    let long = "x".repeat(70_001);
    let set = InMemDicomObject::from_element_iter([
        DataElement::new(tags::RETRIEVE_AE_TITLE, VR::AE, "画像"),
        DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.345"),
        DataElement::new(tags::INSTANCE_NUMBER, VR::IS, "１"),
        DataElement::new(tags::REQUESTED_PROCEDURE_DESCRIPTION, VR::LO, &*long),
    ]);
    for syntax in [EXPLICIT_VR_LE, IMPLICIT_VR_LE] {
        let bytes = write(&set, syntax, Repertoire::JAPANESE).unwrap();
        let read = read(&bytes, syntax).unwrap();
        assert_eq!(text(&read, tags::RETRIEVE_AE_TITLE), "画像");
        assert_eq!(text(&read, tags::STUDY_INSTANCE_UID), "1.2.345");
        let element = read.get(tags::REQUESTED_PROCEDURE_DESCRIPTION).unwrap();
        if syntax == EXPLICIT_VR_LE {
            let value = element.value().to_bytes().unwrap();
            assert_eq!((element.vr(), value.trim_ascii_end()), (VR::UN, long.as_bytes()));
        } else {
            assert_eq!(text(&read, tags::REQUESTED_PROCEDURE_DESCRIPTION), long);
        }
    }
}

fn nested(depth: usize) -> Vec<u8> {
    let head = [[0x40, 0, 0x70, 2, 255, 255, 255, 255], [0xfe, 255, 0, 0xe0, 255, 255, 255, 255]];
    head.concat().repeat(depth)
}

#[test]
fn deep_cut_long_and_lying_data_sets_are_refused() {
    assert_eq!(read(&nested(5000), IMPLICIT_VR_LE), Err(DataSetError::TooDeep));
    assert!(matches!(read(&nested(3), IMPLICIT_VR_LE), Err(DataSetError::Unreadable(_))));
    let long = vec![0; DATA_SET_LENGTH_MAX + 1];
    assert_eq!(read(&long, IMPLICIT_VR_LE), Err(DataSetError::TooLarge));
    let many = [8, 0, 0x16, 0, 0, 0, 0, 0].repeat(ELEMENTS_MAX + 1);
    assert!(read(&many, IMPLICIT_VR_LE).is_err());
    let lie = [8, 0, 0x16, 0, 0xff, 0xff, 0xff, 0x7f, 1, 2];
    assert!(matches!(read(&lie, IMPLICIT_VR_LE), Err(DataSetError::Unreadable(_))));
    let syntax = "1.2.840.10008.1.2.4.50";
    assert_eq!(read(&[], syntax), Err(DataSetError::Syntax(syntax.into())));
    assert_eq!(read(&[], IMPLICIT_VR_LE).unwrap().into_iter().count(), 0);
}

/// Every byte to every other: what can be read can be written, and read again.
#[test]
fn no_flipped_byte_panics_and_what_is_read_is_written_so_that_it_is_read_again() {
    let mut failed = vec![];
    for syntax in [EXPLICIT_VR_LE, IMPLICIT_VR_LE] {
        let whole = write(&object(), syntax, Repertoire::JAPANESE).unwrap();
        for (at, to) in (0..whole.len()).flat_map(|at| (0..=u8::MAX).map(move |to| (at, to))) {
            let mut bytes = whole.clone();
            bytes[at] = to;
            let Ok(set) = read(&bytes, syntax) else { continue };
            let again = write(&set, syntax, Repertoire::UTF8).unwrap();
            if let Err(e) = read(&again, syntax) {
                failed.push(format!("{syntax}: {to} at {at}: {e}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}
