//! Corrections in every coding, read by another parser.

use dicom_encoding::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use proptest::prelude::*;

use super::*;
use crate::dicom::{EXPLICIT_VR_BE, EXPLICIT_VR_LE, IMPLICIT_VR_LE};

const SYNTAXES: [&str; 3] = [IMPLICIT_VR_LE, EXPLICIT_VR_LE, EXPLICIT_VR_BE];
const OB: VR = VR::OB;

/// Writes elements by hand, so that what is odd can be written, too.
struct Bytes {
    syntax: &'static str,
    out: Vec<u8>,
}

impl Bytes {
    fn new(syntax: &'static str) -> Self {
        Self { syntax, out: Vec::new() }
    }

    fn short(&self, n: u16) -> [u8; 2] {
        if self.syntax == EXPLICIT_VR_BE { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn long(&self, n: u32) -> [u8; 4] {
        if self.syntax == EXPLICIT_VR_BE { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn tag(&mut self, tag: u32) {
        let [group, element] = [self.short((tag >> 16) as u16), self.short(tag as u16)];
        self.out.extend([group, element].concat());
    }

    fn head(&mut self, tag: u32, vr: VR, length: u32) {
        self.tag(tag);
        if self.syntax != IMPLICIT_VR_LE {
            self.out.extend(vr.to_string().as_bytes());
            if !matches!(vr, VR::SQ | VR::OB | VR::OW | VR::UN | VR::UT) {
                self.out.extend(self.short(length as u16));
                return;
            }
            self.out.extend([0, 0]);
        }
        self.out.extend(self.long(length));
    }

    fn put(mut self, tag: u32, vr: VR, value: &[u8]) -> Self {
        let value = padded(value);
        self.head(tag, vr, value.len() as u32);
        self.out.extend(value);
        self
    }

    fn number(mut self, tag: u32, n: u32) -> Self {
        self.head(tag, VR::UL, 4);
        self.out.extend(self.long(n));
        self
    }

    /// A sequence of undefined length with one item of undefined length.
    fn open_sequence(mut self, tag: u32, inner: &Self) -> Self {
        self.head(tag, VR::SQ, u32::MAX);
        self.item(u32::MAX);
        self.out.extend(&inner.out);
        for end in [0xFFFE_E00D, 0xFFFE_E0DD] {
            self.tag(end);
            self.out.extend([0; 4]);
        }
        self
    }

    /// The same of defined lengths.
    fn sequence(mut self, tag: u32, inner: &Self) -> Self {
        self.head(tag, VR::SQ, inner.out.len() as u32 + 8);
        self.item(inner.out.len() as u32);
        self.out.extend(&inner.out);
        self
    }

    fn item(&mut self, length: u32) {
        self.tag(0xFFFE_E000);
        self.out.extend(self.long(length));
    }
}

fn stamp() -> Stamp {
    Stamp {
        at: "20261127203500+0900".into(),
        system: "st-elsewhere".into(),
        source: "CT1".into(),
        reason: Reason::Correct,
    }
}

fn wanted() -> Wanted {
    Wanted {
        accession: Some("A2".into()),
        name: Some("YAMADA^TARO".into()),
        patient_id: Some("4711".into()),
        issuer: Some("SITE".into()),
        birth_date: Some("19500101".into()),
        sex: Some("M".into()),
    }
}

fn image(syntax: &'static str) -> Bytes {
    Bytes::new(syntax)
        .put(0x0008_0018, VR::UI, b"1.2.3\0")
        .put(0x0008_0050, VR::SH, b"A1")
        .put(0x0008_0060, VR::CS, b"CT")
        .put(0x0010_0010, VR::PN, b"SUZUKI^HANAKO")
        .put(0x0010_0020, VR::LO, b"99")
        .put(0x0010_0040, VR::CS, b"F")
        .put(0x0020_0013, VR::IS, b"7")
        .put(0x7FE0_0010, OB, b"pixels..")
}

fn read(bytes: &[u8], syntax: &str) -> InMemDicomObject {
    let syntax = TransferSyntaxRegistry.get(syntax).expect("a known syntax");
    InMemDicomObject::read_dataset_with_ts(bytes, syntax).expect("a data set")
}

fn text(set: &InMemDicomObject, tag: Tag) -> Option<String> {
    let value = set.get(tag)?.value().primitive()?;
    Some(value.to_str().trim_end_matches([' ', '\0']).to_owned())
}

fn corrected(bytes: &[u8], syntax: &str, wanted: &Wanted) -> (Vec<u8>, Patch) {
    let patch = correct(bytes, syntax, true, wanted, &stamp()).unwrap().expect("something differs");
    (patch.apply(bytes), patch)
}

fn original(set: &InMemDicomObject) -> &[InMemDicomObject] {
    set.get(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).and_then(|e| e.items()).unwrap_or_default()
}

fn former(item: &InMemDicomObject) -> &InMemDicomObject {
    &item.get(tags::MODIFIED_ATTRIBUTES_SEQUENCE).and_then(|e| e.items()).unwrap()[0]
}

#[test]
fn the_new_values_stand_in_the_data_set_and_the_former_ones_in_its_original_attributes() {
    for syntax in SYNTAXES {
        let (bytes, patch) = corrected(&image(syntax).out, syntax, &wanted());
        let set = read(&bytes, syntax);
        assert_eq!(text(&set, tags::ACCESSION_NUMBER).as_deref(), Some("A2"));
        assert_eq!(text(&set, tags::PATIENT_NAME).as_deref(), Some("YAMADA^TARO"));
        assert_eq!(text(&set, tags::PATIENT_ID).as_deref(), Some("4711"));
        assert_eq!(text(&set, tags::ISSUER_OF_PATIENT_ID).as_deref(), Some("SITE"));
        assert_eq!(text(&set, tags::PATIENT_BIRTH_DATE).as_deref(), Some("19500101"));
        assert_eq!(text(&set, tags::PATIENT_SEX).as_deref(), Some("M"));
        let at = text(&set, tags::INSTANCE_COERCION_DATE_TIME);
        assert_eq!(at.as_deref(), Some("20261127203500+0900"));
        let [item] = original(&set) else { panic!("one item") };
        assert_eq!(text(item, tags::MODIFYING_SYSTEM).as_deref(), Some("st-elsewhere"));
        assert_eq!(text(item, tags::SOURCE_OF_PREVIOUS_VALUES).as_deref(), Some("CT1"));
        let reason = text(item, tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION);
        assert_eq!(reason.as_deref(), Some("CORRECT"));
        assert_eq!(text(former(item), tags::ACCESSION_NUMBER).as_deref(), Some("A1"));
        assert_eq!(text(former(item), tags::PATIENT_NAME).as_deref(), Some("SUZUKI^HANAKO"));
        assert_eq!(text(former(item), tags::PATIENT_ID).as_deref(), Some("99"));
        assert_eq!(text(former(item), tags::PATIENT_SEX).as_deref(), Some("F"));
        // What was absent is there without a value.
        assert_eq!(text(former(item), tags::PATIENT_BIRTH_DATE).as_deref(), Some(""));
        assert_eq!(patch.keywords().len(), 6);
        assert!(bytes.windows(8).any(|w| w == b"pixels.."));
        // It is as wanted now.
        assert_eq!(correct(&bytes, syntax, true, &wanted(), &stamp()), Ok(None));
    }
}

#[test]
fn earlier_items_are_preserved_whether_their_lengths_are_defined_or_not() {
    for syntax in SYNTAXES {
        for open in [false, true] {
            let inner = Bytes::new(syntax).put(0x0400_0563, VR::LO, b"earlier system");
            let set = Bytes::new(syntax).put(0x0010_0020, VR::LO, b"99");
            let set = match open {
                true => set.open_sequence(0x0400_0561, &inner),
                false => set.sequence(0x0400_0561, &inner),
            };
            let set = set.put(0x7FE0_0010, OB, b"pixels");
            let (bytes, _) = corrected(&set.out, syntax, &wanted());
            let set = read(&bytes, syntax);
            let [first, second] = original(&set) else { panic!("two items") };
            assert_eq!(text(first, tags::MODIFYING_SYSTEM).as_deref(), Some("earlier system"));
            assert_eq!(text(second, tags::MODIFYING_SYSTEM).as_deref(), Some("st-elsewhere"));
            // And once more.
            let again = Wanted { patient_id: Some("5".into()), ..Wanted::default() };
            let (bytes, _) = corrected(&bytes, syntax, &again);
            let set = read(&bytes, syntax);
            assert_eq!(original(&set).len(), 3);
            let last = former(&original(&set)[2]);
            assert_eq!(text(last, tags::PATIENT_ID).as_deref(), Some("4711"));
            assert!(last.get(tags::INSTANCE_COERCION_DATE_TIME).is_some());
        }
    }
}

#[test]
fn group_lengths_are_right_afterwards_and_the_qualifiers_of_a_former_issuer_go() {
    for syntax in SYNTAXES {
        let body = |syntax| {
            Bytes::new(syntax)
                .put(0x0010_0020, VR::LO, b"99")
                .sequence(0x0010_0024, &Bytes::new(syntax).put(0x0040_0032, VR::UT, b"1.2.3.4"))
        };
        let (before, rest) = (body(syntax).out.len() as u32, body(syntax).out);
        let mut set =
            Bytes::new(syntax).put(0x0008_0060, VR::CS, b"CT").number(0x0010_0000, before);
        let from = set.out.len();
        set.out.extend(rest);
        let set = set.put(0x0020_0013, VR::IS, b"7").put(0x7FE0_0010, OB, b"pixels");
        let (bytes, _) = corrected(&set.out, syntax, &wanted());
        let set = read(&bytes, syntax);
        assert!(set.get(tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE).is_none());
        let item = former(&original(&set)[0]);
        assert!(item.get(tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE).is_some());
        let found = spans(&bytes, syntax, true).unwrap().elements;
        let next = found.iter().find(|s| s.tag.group() > 0x10).unwrap().start;
        let first = found.iter().find(|s| s.tag == Tag(0x10, 0)).unwrap().value.end;
        let length: u32 = set.get(Tag(0x10, 0)).unwrap().to_int().unwrap();
        assert_eq!(length as usize, next - first);
        assert!(first > from, "the group before it has grown by its coercion time");
    }
}

#[test]
fn japanese_names_are_written_as_the_image_writes_its_own_or_not_at_all() {
    let set = |terms: &[u8]| {
        Bytes::new(EXPLICIT_VR_LE)
            .put(0x0008_0005, VR::CS, terms)
            .put(0x0010_0010, VR::PN, b"SUZUKI")
            .put(0x7FE0_0010, OB, b"pixels")
            .out
    };
    let name = "HONDA^SO=本像^表骨=ソウ";
    let wanted = Wanted { name: Some(name.into()), ..Wanted::default() };
    let (bytes, _) = corrected(&set(b"\\ISO 2022 IR 87"), EXPLICIT_VR_LE, &wanted);
    let spans = spans(&bytes, EXPLICIT_VR_LE, true).unwrap().elements;
    let span = spans.iter().find(|s| s.tag == tags::PATIENT_NAME).unwrap();
    let written = Repertoire::JAPANESE.decode(&bytes[span.value.clone()]);
    assert_eq!(written.trim_end(), name);
    let refused = correct(&set(b"ISO_IR 100"), EXPLICIT_VR_LE, true, &wanted, &stamp());
    assert_eq!(refused, Err(CannotCorrect::Unwritable("PatientName")));
}

#[test]
fn what_is_not_clear_is_not_corrected() {
    let image = image(EXPLICIT_VR_LE).out;
    let deflated = "1.2.840.10008.1.2.1.99";
    let ask = |bytes: &[u8], syntax: &str, complete| {
        correct(bytes, syntax, complete, &wanted(), &stamp())
    };
    assert!(matches!(ask(&image, deflated, true), Err(CannotCorrect::Unclear(_))));
    assert_eq!(ask(&image[..60], EXPLICIT_VR_LE, false), Err(CannotCorrect::Longer));
    assert!(matches!(ask(&image[..60], EXPLICIT_VR_LE, true), Err(CannotCorrect::Unclear(_))));
    let disordered =
        Bytes::new(EXPLICIT_VR_LE).put(0x0010_0020, VR::LO, b"99").put(0x0008_0050, VR::SH, b"A1");
    assert!(matches!(ask(&disordered.out, EXPLICIT_VR_LE, true), Err(CannotCorrect::Unclear(_))));
    for wrong in [
        Wanted { accession: Some("1234567890-1234567".into()), ..Wanted::default() },
        Wanted { sex: Some("male".into()), ..Wanted::default() },
        Wanted { birth_date: Some("1950".into()), ..Wanted::default() },
        Wanted { patient_id: Some("a\\b".into()), ..Wanted::default() },
    ] {
        let refused = correct(&image, EXPLICIT_VR_LE, true, &wrong, &stamp());
        assert!(matches!(refused, Err(CannotCorrect::Unwritable(_))), "{wrong:?}");
    }
}

/// Elements around those that are corrected.
fn others() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    let tag = prop_oneof![
        Just(0x0008_0060u32),
        Just(0x0008_0070),
        Just(0x0009_1001),
        Just(0x0010_1010),
        Just(0x0011_1001),
        Just(0x0020_0013),
        Just(0x0400_0100),
        Just(0x0401_1001),
        Just(0x5400_0100)
    ];
    let one = (tag, proptest::collection::vec(b' '..=b'~', 0..20));
    proptest::collection::vec(one, 0..8)
}

proptest! {
    #[test]
    fn every_other_element_keeps_its_bytes(
        others in others(),
        syntax in prop_oneof![Just(SYNTAXES[0]), Just(SYNTAXES[1]), Just(SYNTAXES[2])],
        accession in proptest::option::of("[A-Z0-9]{1,16}"),
        patient_id in proptest::option::of("[A-Z0-9]{1,64}"),
        old in proptest::option::of("[A-Z0-9]{0,16}"),
        nested in any::<bool>(),
    ) {
        let mut elements: std::collections::BTreeMap<u32, Vec<u8>> = others.into_iter().collect();
        if let Some(old) = old {
            elements.insert(0x0010_0020, old.clone().into_bytes());
            elements.insert(0x0008_0050, old.into_bytes());
        }
        let mut set = Bytes::new(syntax);
        for (tag, value) in elements {
            set = set.put(tag, VR::LO, &value);
        }
        if nested {
            let inner = Bytes::new(syntax).put(0x0008_0050, VR::SH, b"inner");
            set = set.open_sequence(0x5401_1002, &inner);
        }
        let set = set.put(0x7FE0_0010, OB, b"some pixels");
        let wanted = Wanted { accession, patient_id, ..Wanted::default() };
        let Some(patch) = correct(&set.out, syntax, true, &wanted, &stamp()).unwrap() else {
            return Ok(());
        };
        let bytes = patch.apply(&set.out);
        let own = [tags::INSTANCE_COERCION_DATE_TIME, tags::ORIGINAL_ATTRIBUTES_SEQUENCE];
        let rest = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let spans = spans(bytes, syntax, true).unwrap();
            let other = |s: &&Span| !own.contains(&s.tag) && !patch.changed().contains(&s.tag);
            let elements = spans.elements.iter().filter(other);
            let bytes_of = |s: &Span| bytes[s.start..s.value.end].to_vec();
            elements.map(bytes_of).chain([bytes[spans.end..].to_vec()]).collect()
        };
        prop_assert_eq!(rest(&set.out), rest(&bytes));
        prop_assert_eq!(correct(&bytes, syntax, true, &wanted, &stamp()), Ok(None));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), n in 0usize..3) {
        let _ = correct(&bytes, SYNTAXES[n], true, &wanted(), &stamp());
        let _ = correct(&bytes, SYNTAXES[n], false, &wanted(), &stamp());
    }

    #[test]
    fn no_damage_panics(at in 0usize..120, with in any::<u8>(), n in 0usize..3) {
        let mut bytes = image(SYNTAXES[n]).out;
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(Some(patch)) = correct(&bytes, SYNTAXES[n], true, &wanted(), &stamp()) {
            let _ = patch.apply(&bytes);
        }
    }
}
