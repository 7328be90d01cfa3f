use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use proptest::prelude::*;

use super::*;
use crate::dicom::IMPLICIT_VR_LE;
use crate::dicom::commitment::Reference;

fn evidence(n: u8) -> Evidence {
    Evidence {
        study: "1.2.3".into(),
        series: format!("1.2.3.{}", n % 2),
        reference: Reference { class: BASIC_TEXT_SR.into(), instance: format!("1.2.3.4.{n}") },
    }
}

fn patient() -> PatientFacts {
    PatientFacts {
        id: "本1".into(),
        issuer: "病院".into(),
        issuer_universal: "1.2.392.1".into(),
        name: "YAMADA^HONE=山田^骨=ﾔﾏﾀﾞ^ﾎﾈ".into(),
        birth_date: "19500101".into(),
        sex: "F".into(),
    }
}

fn request() -> RequestFacts {
    RequestFacts {
        study: "1.2.3".into(),
        accession: "A1".into(),
        accession_issuer: ("RIS".into(), "1.2.9".into()),
        placer: "P1".into(),
        filler: "F1".into(),
        requested_procedure: "RP".into(),
    }
}

/// With a patient, lists and stage of the caller's.
fn document<'a>(
    patient: &'a PatientFacts,
    stage: Stage,
    predecessors: &'a [Evidence],
    requests: &'a [RequestFacts],
    evidence: &'a [Evidence],
) -> NewDocument<'a> {
    NewDocument {
        uid: "2.25.7",
        series: "2.25.8",
        study: "1.2.3",
        number: 2,
        patient,
        accession: "A1",
        accession_issuer: ("RIS", "1.2.9"),
        title: Code::new("18748-4", "LN", "Diagnostic Imaging Report"),
        name: "",
        institution: "",
        manufacturer: "hikyaku",
        referrer: "",
        language: "ja",
        stage,
        written_at: ("20261122", "101500"),
        zone: "+0900",
        verifiers: ["DOKUEI^I=読影^医", "KAKUNIN^I=確認^医"]
            .map(|name| Observer { name: name.into(), ..Observer::default() })
            .into(),
        author: "KAKU^HITO=書^人",
        predecessors,
        requests,
        evidence,
    }
}

fn sections(text: &str) -> Vec<Section> {
    vec![
        Section { heading: Heading::Findings, text: text.into() },
        Section { heading: Heading::Impressions, text: "異常なし".into() },
        Section { heading: Heading::Addendum, text: " ".into() },
    ]
}

#[test]
fn a_structured_report_of_ours_is_read_back_as_it_was_meant() {
    let (patient, requests) = (patient(), [request()]);
    let (before, basis) = ([evidence(9)], [evidence(1), evidence(2), evidence(3)]);
    let new = document(&patient, Stage::Corrected, &before, &requests, &basis);
    let text = "骨 像 本 表 ソ\n\nｶﾅ・second line";
    for wanted in [Repertoire::UTF8, Repertoire::JAPANESE] {
        let bytes = new.write_structured(&sections(text), wanted).unwrap();
        let read = read(&bytes, EXPLICIT_VR_LE).unwrap();
        let facts = &read.facts;
        assert_eq!(read.text, format!("Findings\n{text}\n\nImpressions\n異常なし"));
        assert_eq!((&facts.patient, facts.stage()), (&patient, Stage::Corrected));
        assert_eq!((&*facts.language, &*facts.written_at), ("ja", "20261122101500"));
        assert!(facts.title.is("18748-4", "LN"));
        let signed: Vec<_> = facts.verifiers.iter().map(|v| (&*v.name, &*v.at)).collect();
        let at = "20261122101500+0900";
        assert_eq!(signed, [("DOKUEI^I=読影^医", at), ("KAKUNIN^I=確認^医", at)], "double reading");
        assert_eq!(facts.authors[0].name, "KAKU^HITO=書^人");
        assert_eq!(facts.requests, requests);
        assert_eq!((&facts.predecessors[..], facts.evidence.len()), (&before[..], 3));
        assert_eq!((&*facts.accession, &*facts.accession_issuer.1), ("A1", "1.2.9"));
        assert_eq!(
            (&*facts.sop_instance, &*facts.series, &*facts.study),
            ("2.25.7", "2.25.8", "1.2.3")
        );
        assert!(!read.is_cut && read.encapsulated.is_none());
    }
}

#[test]
fn every_stage_is_written_in_flags_that_say_it_and_nothing_is_signed_by_nobody() {
    let patient = patient();
    for stage in [Stage::Preliminary, Stage::Unverified, Stage::Final, Stage::Corrected] {
        let before = if stage == Stage::Corrected { vec![evidence(1)] } else { vec![] };
        let mut new = document(&patient, stage, &before, &[], &[]);
        for signed in [true, false] {
            if !signed {
                new.verifiers.clear();
            }
            let bytes = new.write_structured(&sections("x"), Repertoire::UTF8).unwrap();
            let facts = read(&bytes, EXPLICIT_VR_LE).unwrap().facts;
            let expected = match (stage, signed) {
                (Stage::Final | Stage::Corrected, false) => Stage::Unverified,
                (stage, _) => stage,
            };
            assert_eq!(facts.stage(), expected, "{stage:?}, signed {signed}");
            let verified = facts.verification == "VERIFIED";
            assert_eq!(verified, !facts.verifiers.is_empty(), "a flag and a name, or neither");
        }
    }
}

#[test]
fn an_encapsulated_document_comes_out_byte_for_byte() {
    let patient = patient();
    let (before, basis) = ([evidence(9)], [evidence(1)]);
    let new = document(&patient, Stage::Final, &before, &[], &basis);
    for (kind, document) in [
        (EncapsulatedKind::Pdf, &b"%PDF-1.7\nodd\0"[..]),
        (EncapsulatedKind::Pdf, b"%PDF-1.7\neven"),
        (EncapsulatedKind::Cda, b"<ClinicalDocument/>"),
    ] {
        let bytes = new.write_encapsulated(kind, document, Repertoire::JAPANESE).unwrap();
        let read = read(&bytes, EXPLICIT_VR_LE).unwrap();
        let within = read.encapsulated.unwrap();
        assert_eq!((within.kind, &*within.bytes), (kind, document));
        assert_eq!(read.facts.title.meaning, "Diagnostic Imaging Report");
        assert_eq!((read.facts.patient, read.facts.predecessors.len()), (patient.clone(), 1));
        assert_eq!(read.facts.evidence[0].reference, basis[0].reference);
    }
    let nothing = new.write_encapsulated(EncapsulatedKind::Pdf, b"", Repertoire::UTF8).unwrap();
    assert_eq!(read(&nothing, EXPLICIT_VR_LE), Err(ReportError::NoDocument));
}

fn set(pairs: &[(Tag, VR, &str)]) -> InMemDicomObject {
    InMemDicomObject::from_element_iter(
        pairs.iter().map(|(t, vr, v)| DataElement::new(*t, *vr, *v)),
    )
}

fn with(mut set: InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) -> InMemDicomObject {
    set.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
    set
}

fn item(relation: &str, kind: &str, name: &str) -> InMemDicomObject {
    let code = set(&[(tags::CODE_MEANING, VR::LO, name)]);
    let item =
        set(&[(tags::RELATIONSHIP_TYPE, VR::CS, relation), (tags::VALUE_TYPE, VR::CS, kind)]);
    with(item, tags::CONCEPT_NAME_CODE_SEQUENCE, vec![code])
}

fn put(mut set: InMemDicomObject, tag: Tag, vr: VR, value: &str) -> InMemDicomObject {
    set.put(DataElement::new(tag, vr, value));
    set
}

#[test]
fn every_kind_of_content_item_is_told_in_a_line_that_a_person_can_read() {
    let coded = |relation, name, value: &str| {
        let code = set(&[(tags::CODE_MEANING, VR::LO, value)]);
        with(item(relation, "CODE", name), tags::CONCEPT_CODE_SEQUENCE, vec![code])
    };
    let unit = set(&[(tags::CODE_VALUE, VR::SH, "mm")]);
    let measured = with(
        set(&[(tags::NUMERIC_VALUE, VR::DS, "12.5")]),
        tags::MEASUREMENT_UNITS_CODE_SEQUENCE,
        vec![unit],
    );
    let number =
        with(item("CONTAINS", "NUM", "Length"), tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
    let below = vec![
        coded("HAS CONCEPT MOD", "Side", "left"),
        put(item("INFERRED FROM", "TEXT", "Basis"), tags::TEXT_VALUE, VR::UT, "axial"),
        item("INFERRED FROM", "SCOORD", "Region"),
    ];
    let why = set(&[(tags::CODE_MEANING, VR::LO, "Not a number")]);
    let failed = with(
        item("CONTAINS", "NUM", "Volume"),
        tags::NUMERIC_VALUE_QUALIFIER_CODE_SEQUENCE,
        vec![why],
    );
    let referenced = set(&[(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3")]);
    let children = vec![
        put(item("HAS OBS CONTEXT", "PNAME", "Observer"), tags::PERSON_NAME, VR::PN, "A^B"),
        put(item("CONTAINS", "TEXT", "Note"), tags::TEXT_VALUE, VR::UT, "one\r\ntwo\r"),
        with(
            item("CONTAINS", "CONTAINER", "Findings"),
            tags::CONTENT_SEQUENCE,
            vec![
                put(item("CONTAINS", "TEXT", "Finding"), tags::TEXT_VALUE, VR::UT, "a mass"),
                coded("CONTAINS", "Finding", "mass"),
                with(number, tags::CONTENT_SEQUENCE, below),
                failed,
            ],
        ),
        put(item("CONTAINS", "DATE", "On"), tags::DATE, VR::DA, "20261122"),
        put(item("CONTAINS", "TIME", "At"), tags::TIME, VR::TM, "1200"),
        put(item("CONTAINS", "DATETIME", "When"), tags::DATE_TIME, VR::DT, "2026"),
        put(item("CONTAINS", "UIDREF", "Tracking"), tags::UID, VR::UI, "1.2.9"),
        put(item("CONTAINS", "PNAME", "Told"), tags::PERSON_NAME, VR::PN, "C^D"),
        with(item("CONTAINS", "IMAGE", "Key"), tags::REFERENCED_SOP_SEQUENCE, vec![referenced]),
        item("CONTAINS", "SCOORD", "Region"),
        item("CONTAINS", "UNHEARD-OF", "Thing"),
    ];
    let root = set(&[
        (tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.88.33"),
        (tags::COMPLETION_FLAG, VR::CS, "COMPLETE"),
        (tags::VERIFICATION_FLAG, VR::CS, "VERIFIED"),
    ]);
    let read = DicomReport::of(with(root, tags::CONTENT_SEQUENCE, children)).unwrap();
    assert_eq!(
        read.text,
        "Note:\none\ntwo\n\nFindings\na mass\nFinding: mass\nLength: 12.5 mm [Side: left]\n  \
         Basis: axial\nVolume: Not a number\nOn: 20261122\nAt: 1200\nWhen: 2026\nTracking: 1.2.9\n\
         Told: C^D\nKey: (image 1.2.3)"
    );
    assert_eq!(read.facts.evidence[0].reference.instance, "1.2.3");
    assert_eq!((&*read.facts.authors[0].name, read.facts.stage()), ("A^B", Stage::Final));
}

#[test]
fn what_is_no_report_is_not_read_and_a_deep_tree_overflows_nothing() {
    for (class, kind) in [
        (BASIC_TEXT_SR, Some(ReportClass::Structured)),
        ("1.2.840.10008.5.1.4.1.1.88.35", Some(ReportClass::Structured)),
        (ENCAPSULATED_CDA, Some(ReportClass::Encapsulated)),
        ("1.2.840.10008.5.1.4.1.1.88.67", None),
        ("1.2.840.10008.5.1.4.1.1.88.59", None),
        ("1.2.840.10008.5.1.4.1.1.2", None),
    ] {
        assert_eq!(ReportClass::of(class), kind, "{class}");
    }
    let ct = set(&[(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.2")]);
    assert!(matches!(DicomReport::of(ct), Err(ReportError::Class(_))));
    let mut deep = item("CONTAINS", "TEXT", "x");
    for _ in 0..200 {
        deep = with(item("CONTAINS", "CONTAINER", "c"), tags::CONTENT_SEQUENCE, vec![deep]);
    }
    let root = set(&[(tags::SOP_CLASS_UID, VR::UI, BASIC_TEXT_SR)]);
    let read = DicomReport::of(with(root, tags::CONTENT_SEQUENCE, vec![deep])).unwrap();
    assert!(read.is_cut && read.text.len() < 2000);
    let head =
        [[0x40, 0, 0x30, 0xA7, 255, 255, 255, 255], [0xfe, 255, 0, 0xe0, 255, 255, 255, 255]];
    let nested = head.concat().repeat(5000);
    let error = super::read(&nested, IMPLICIT_VR_LE);
    assert_eq!(error, Err(ReportError::DataSet(DataSetError::TooDeep)));
}

#[test]
fn pages_hold_all_of_a_text_and_say_what_they_cannot_show() {
    let pages = Pages::of("head", "");
    assert_eq!((pages.count, pages.unshown.len()), (1, 0));
    let long = "あ".repeat(44 * 100);
    assert_eq!(Pages::of("head", &long).count, 3);
    let pages = Pages::of("head", "骨 像 本 表 ソ ｱ é ± 髙 \u{E000} 김");
    assert_eq!(pages.unshown, ['\u{E000}', '김']);
    let endless = Pages::of("head", &"\n".repeat(100_000));
    assert!(endless.is_cut && endless.count == PDF_PAGES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_text_survives_a_structured_report_exactly(
        text in "[ -~骨像本表ソｱﾞ移所¥−〜\\\\~é김]{1,40}(\n[ -~骨像本表ソｶﾟ]{0,40}){0,4}",
        japanese: bool,
    ) {
        let text = text.trim_end();
        prop_assume!(!text.is_empty());
        let patient = PatientFacts::default();
        let new = document(&patient, Stage::Final, &[], &[], &[]);
        let one = [Section { heading: Heading::Findings, text: text.into() }];
        let bytes = new.write_structured(&one, repertoire(japanese)).unwrap();
        let lines = |t: &str| -> Vec<String> { t.lines().map(|l| l.to_owned()).collect() };
        let read = read(&bytes, EXPLICIT_VR_LE).unwrap().text;
        // Padding is all that a data set may take.
        prop_assert_eq!(lines(&read), lines(&format!("Findings\n{text}")));
    }

    #[test]
    fn pages_of_any_text_end(text in "\\PC{0,300}", head in "\\PC{0,100}") {
        let pages = Pages::of(&head, &text);
        prop_assert!(pages.count >= 1 && pages.bytes.starts_with(b"%PDF-1.7"));
    }
}
