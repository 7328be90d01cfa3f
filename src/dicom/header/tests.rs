use proptest::prelude::*;

use super::*;
use crate::dicom::EXPLICIT_VR_LE;

fn explicit(group: u16, element: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut out = [group.to_le_bytes(), element.to_le_bytes()].concat();
    out.extend_from_slice(vr.as_bytes());
    match vr {
        "SQ" | "UN" | "OB" | "OW" | "UT" => {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        }
        _ => out.extend_from_slice(&(value.len() as u16).to_le_bytes()),
    }
    out.extend_from_slice(value);
    out
}

fn implicit(group: u16, element: u16, value: &[u8]) -> Vec<u8> {
    let tag = [group.to_le_bytes(), element.to_le_bytes()].concat();
    [&tag[..], &(value.len() as u32).to_le_bytes(), value].concat()
}

/// The beginning of a sequence of undefined length.
fn open(group: u16, element: u16, vr: &str) -> Vec<u8> {
    let mut out = [group.to_le_bytes(), element.to_le_bytes()].concat();
    out.extend_from_slice(vr.as_bytes());
    out.extend_from_slice(&[0, 0, 0xff, 0xff, 0xff, 0xff]);
    out
}

const ITEM_OPEN: [u8; 8] = [0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff];
const ITEM_END: [u8; 8] = [0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0];
const SEQUENCE_END: [u8; 8] = [0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0];

fn image() -> Vec<u8> {
    [
        explicit(0x0008, 0x0005, "CS", b"ISO_IR 192"),
        explicit(0x0008, 0x0016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        explicit(0x0008, 0x0018, "UI", b"1.2.3\0"),
        explicit(0x0008, 0x0060, "CS", b"CT"),
        explicit(0x0008, 0x0080, "LO", "病院 ".as_bytes()),
        explicit(0x0010, 0x0020, "LO", b" 42 "),
        explicit(0x0020, 0x000d, "UI", b"1.2"),
        explicit(0x0028, 0x0010, "US", &[0, 2]),
        explicit(0x7fe0, 0x0010, "OW", &[1; 32]),
    ]
    .concat()
}

fn header(bytes: &[u8], syntax: &str) -> Header {
    match read(bytes, syntax, true) {
        Reading::Header(header) => header,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_elements_before_the_pixel_data_are_read_as_trimmed_text() {
    let h = header(&image(), EXPLICIT_VR_LE);
    assert_eq!((h.whole, &h.fault), (true, &None));
    assert_eq!(h.sop_class(), "1.2.840.10008.5.1.4.1.1.2");
    assert_eq!((h.sop_instance(), h.study(), h.modality()), ("1.2.3", "1.2", "CT"));
    assert_eq!(h.patient_id(), "42");
    assert_eq!(h.accession(), "");
    assert_eq!(h.attribute(tag_of("InstitutionName").unwrap()), Some("病院"));
    assert_eq!(h.attribute(tag_of("Rows").unwrap()), Some("512"));
}

#[test]
fn an_attribute_is_named_by_keyword_or_tag() {
    let modality = Some(tags::MODALITY);
    assert_eq!(tag_of("Modality"), modality);
    assert_eq!(tag_of("(0008,0060)"), modality);
    assert_eq!(tag_of("0008,0060"), modality);
    assert_eq!(tag_of("00080060"), modality);
    assert_eq!(tag_of("NoSuchThing"), None);
}

#[test]
fn an_unknown_transfer_syntax_is_read_as_explicit_little_endian() {
    assert_eq!(header(&image(), "1.2.3.4.5").modality(), "CT");
}

#[test]
fn implicit_and_big_endian_and_deflated_data_sets_are_read() {
    let bytes = [
        implicit(0x0008, 0x0018, b"1.2.3\0"),
        implicit(0x0008, 0x0060, b"MR"),
        implicit(0x0011, 0x1010, b"private "),
    ]
    .concat();
    let h = header(&bytes, IMPLICIT_VR_LE);
    assert_eq!((h.sop_instance(), h.modality()), ("1.2.3", "MR"));
    assert_eq!(h.attribute(Tag(0x0011, 0x1010)), Some("private"));

    let big = b"\x00\x08\x00\x60CS\x00\x02MR\x00\x28\x00\x10US\x00\x02\x02\x00";
    let h = header(big, EXPLICIT_VR_BE);
    assert_eq!((h.modality(), h.attribute(tags::ROWS)), ("MR", Some("512")));

    use std::io::Write;
    let mut w = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::fast());
    w.write_all(&image()).unwrap();
    let deflated = w.finish().unwrap();
    assert_eq!(header(&deflated, DEFLATED_EXPLICIT_VR_LE).modality(), "CT");
    let cut = &deflated[..deflated.len() - 20];
    assert!(matches!(read(cut, DEFLATED_EXPLICIT_VR_LE, false), Reading::Header(_)));
}

#[test]
fn nothing_is_empty_and_noise_is_unreadable() {
    assert_eq!(read(b"", EXPLICIT_VR_LE, true), Reading::Empty);
    let noise: [&[u8]; 4] = [b"PK", b"GIF89a, surely not DICOM", b"\x08\0\x18\0UI\xff\0", &[0; 64]];
    for bytes in noise {
        assert_eq!(read(bytes, EXPLICIT_VR_LE, true), Reading::Unreadable, "{bytes:?}");
    }
    assert_eq!(read(b"no DICOM here", IMPLICIT_VR_LE, true), Reading::Unreadable);
    assert_eq!(read(b"\xff\xff", DEFLATED_EXPLICIT_VR_LE, true), Reading::Unreadable);
}

#[test]
fn a_data_set_that_ends_early_is_a_fault_only_when_it_is_complete() {
    let bytes = &image()[..60];
    let Reading::Header(h) = read(bytes, EXPLICIT_VR_LE, true) else { panic!() };
    assert_eq!(h.sop_class(), "1.2.840.10008.5.1.4.1.1.2");
    assert_eq!(h.fault.as_deref(), Some("data set ends within (0008,0018)"));
    let Reading::Header(h) = read(bytes, EXPLICIT_VR_LE, false) else { panic!() };
    assert_eq!((h.whole, h.fault), (false, None));
    let to_pixels = &image()[..image().len() - 8];
    let Reading::Header(h) = read(to_pixels, EXPLICIT_VR_LE, false) else { panic!() };
    assert_eq!((h.whole, h.fault), (true, None));
}

#[test]
fn a_fault_in_the_middle_keeps_what_was_read_and_says_no_value() {
    let mut bytes = explicit(0x0008, 0x0060, "CS", b"CT");
    bytes.extend(explicit(0x0010, 0x0010, "??", b"Doe^John"));
    let h = header(&bytes, EXPLICIT_VR_LE);
    assert_eq!(h.modality(), "CT");
    let fault = h.fault.unwrap();
    assert!(fault.contains("(0010,0010)") && !fault.contains("Doe"), "{fault}");
}

#[test]
fn nested_pixel_data_and_undefined_lengths_are_stepped_over() {
    let bytes = [
        explicit(0x0008, 0x0018, "UI", b"1.2.3\0"),
        open(0x0088, 0x0200, "SQ"),
        ITEM_OPEN.to_vec(),
        explicit(0x0008, 0x0018, "UI", b"9.9.9\0"),
        open(0x7fe0, 0x0010, "OB"),
        vec![0xfe, 0xff, 0x00, 0xe0, 2, 0, 0, 0, 1, 2],
        SEQUENCE_END.to_vec(),
        ITEM_END.to_vec(),
        SEQUENCE_END.to_vec(),
        open(0x0099, 0x1000, "UN"),
        ITEM_OPEN.to_vec(),
        implicit(0x0008, 0x0060, b"XX"),
        ITEM_END.to_vec(),
        SEQUENCE_END.to_vec(),
        explicit(0x0100, 0x0410, "CS", b"AO"),
    ]
    .concat();
    let h = header(&bytes, EXPLICIT_VR_LE);
    assert_eq!((h.fault.as_deref(), h.sop_instance(), h.modality()), (None, "1.2.3", ""));
    assert_eq!(h.attribute(Tag(0x0100, 0x0410)), Some("AO"));
}

#[test]
fn a_hundred_thousand_nested_sequences_are_a_fault_and_not_a_crash() {
    let mut bytes = explicit(0x0008, 0x0018, "UI", b"1.2.3\0");
    for _ in 0..100_000 {
        bytes.extend(open(0x0040, 0xa730, "SQ"));
        bytes.extend(ITEM_OPEN);
    }
    let h = header(&bytes, EXPLICIT_VR_LE);
    assert_eq!(h.sop_instance(), "1.2.3");
    assert!(h.fault.unwrap().contains("nested deeper than 64"));
}

#[test]
fn a_deflate_bomb_is_inflated_no_further_than_the_limit() {
    use std::io::Write;
    let mut w = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::best());
    w.write_all(&explicit(0x0008, 0x0060, "CS", b"CT")).unwrap();
    let tail = explicit(0x0009, 0x1000, "UN", &vec![0; 64 << 20]);
    w.write_all(&tail).unwrap();
    let h = header(&w.finish().unwrap(), DEFLATED_EXPLICIT_VR_LE);
    assert_eq!((h.modality(), &h.fault), ("CT", &None));
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in any::<usize>(),
        at in any::<usize>(),
        complete in any::<bool>(),
    ) {
        let mut image = image();
        let at = at % image.len();
        image[at] ^= bytes.first().copied().unwrap_or(1);
        image.truncate(1 + cut % image.len());
        for syntax in [EXPLICIT_VR_LE, IMPLICIT_VR_LE, EXPLICIT_VR_BE, DEFLATED_EXPLICIT_VR_LE]
        {
            let _ = read(&bytes, syntax, complete);
            let _ = read(&image, syntax, complete);
        }
    }
}

#[test]
fn the_pixel_data_behind_the_header_is_known_by_place_and_length() {
    let set = image();
    let native = header(&set, EXPLICIT_VR_LE).pixel_data.unwrap();
    let length = set.len() as u64;
    assert_eq!(native, PixelData { at: length - 32, length: Some(32), offsets: vec![] });

    let before = &set[..set.len() - 44];
    let item = |value: &[u8]| {
        let length = (value.len() as u32).to_le_bytes();
        [&[0xfe, 0xff, 0x00, 0xe0][..], &length, value].concat()
    };
    let table = [0_u32, 20].map(u32::to_le_bytes).concat();
    let bytes = [before, &open(0x7fe0, 0x0010, "OB"), &item(&table), &item(&[1; 12])].concat();
    let coded = header(&bytes, "1.2.840.10008.1.2.4.70").pixel_data.unwrap();
    let at = (before.len() + 12 + 8 + 8) as u64;
    assert_eq!(coded, PixelData { at, length: None, offsets: vec![0, 20] });
}
