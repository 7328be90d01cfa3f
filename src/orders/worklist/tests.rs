use dicom_core::value::{DataSetSequence, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::cargo::Urgency;
use crate::clock::Timestamp;
use crate::dicom::dataset::{items, text};
use crate::orders::identifier::{Identifier, Patient};
use crate::orders::order::{Action, Code, Content, Order, OrderKey, OrderState, Procedure};
use crate::orders::stand_in;

fn zone() -> TimeZone {
    TimeZone::get("Asia/Tokyo").unwrap()
}

fn at(text: &str) -> Timestamp {
    let at = text.parse::<DateTime>().unwrap().to_zoned(zone()).unwrap();
    Timestamp(at.timestamp().as_millisecond())
}

fn order() -> Order {
    let key = OrderKey { origin: "east".parse().unwrap(), number: "P1".into() };
    let procedure = Procedure {
        requested: "RP1".into(),
        step: "SP1".into(),
        modality: "CT".into(),
        stations: vec!["CT1".into(), "CT2".into()],
        performer: "SATO^JIRO".into(),
        code: Code {
            value: "CTHEAD".into(), scheme: String::new(), meaning: "頭部単純CT".into()
        },
        ..Procedure::default()
    };
    let mut content = Content {
        placer: Some(Identifier::bare("P1")),
        accession: Some(Identifier::bare("A1")),
        studies: vec!["1.2.3".into()],
        procedures: vec![procedure],
        patient: Patient {
            ids: vec![Identifier::of("4711", "SITE")],
            names: vec!["YAMADA^TARO".into(), "山田^太郎".into(), "やまだ^たろう".into()],
            birth_date: "19500101".into(),
            sex: "M".into(),
            ..Patient::default()
        },
        scheduled: Some(at("2026-11-27T10:30:00")),
        urgency: Some(Urgency::Stat),
        requester: "KOCH".into(),
        weight: "61.5".into(),
        ..Content::default()
    };
    content.clinical.reason = "頭痛".into();
    content.clinical.history = "line one\nline two".into();
    content.clinical.allergies = "penicillin\niodine".into();
    content.clinical.department = "脳神経外科".into();
    Order { content, ..Order::empty(key) }
}

fn put(set: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    let values: Vec<&str> = value.split('\\').collect();
    let value = match values[..] {
        [one] => PrimitiveValue::from(one),
        _ => PrimitiveValue::Strs(values.into_iter().map(str::to_owned).collect()),
    };
    set.put(DataElement::new(tag, vr, value));
}

/// A query with these keys, and these of the step.
fn query(keys: &[(Tag, &str)], of_step: &[(Tag, &str)]) -> InMemDicomObject {
    let mut step = InMemDicomObject::new_empty();
    of_step.iter().for_each(|(tag, value)| put(&mut step, *tag, VR::LO, value));
    let mut set = InMemDicomObject::new_empty();
    keys.iter().for_each(|(tag, value)| put(&mut set, *tag, VR::LO, value));
    let steps = DataSetSequence::from(vec![step]);
    set.put(DataElement::new(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, VR::SQ, steps));
    set
}

fn matches(order: &Order, keys: &[(Tag, &str)], of_step: &[(Tag, &str)]) -> bool {
    let query = Query::read(&query(keys, of_step)).unwrap();
    entries(order, Timestamp(0), &zone()).iter().any(|entry| query.matches(entry))
}

#[test]
fn every_kind_of_matching_finds_what_it_should_and_nothing_else() {
    use tags::*;
    let order = order();
    let name = PATIENT_NAME;
    for (tag, yes, no) in [
        (
            PATIENT_ID,
            &["4711", "47*", "?711", "*", "", " 4711 "][..],
            &["4712", "471", "47??1"][..],
        ),
        (ACCESSION_NUMBER, &["A1"], &["a1", "A2"]),
        (REQUESTED_PROCEDURE_ID, &["RP1"], &["RP2"]),
        (ISSUER_OF_PATIENT_ID, &["SITE"], &["east"]),
        (INSTITUTION_NAME, &["east", "e*"], &["west"]),
        (PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, &["P1"], &["P2"]),
        (STUDY_INSTANCE_UID, &["1.2.3", "1.2.9\\1.2.3"], &["1.2.4"]),
        (
            name,
            &["yamada^taro", "YAMADA*", "*山田*", "山田^太郎", "ヤマダ*", "ﾔﾏﾀﾞ*"],
            &["YAMADA", "鈴木*"],
        ),
        (
            name,
            &["YAMADA*=山田*", "=山田^太郎", "YAMADA^TARO^^"],
            &["YAMADA*=鈴木*", "SATO*=山田*"],
        ),
    ] {
        for value in yes {
            assert!(matches(&order, &[(tag, value)], &[]), "{tag} {value}");
        }
        for value in no {
            assert!(!matches(&order, &[(tag, value)], &[]), "{tag} {value}");
        }
    }
    let (day, time) = (SCHEDULED_PROCEDURE_STEP_START_DATE, SCHEDULED_PROCEDURE_STEP_START_TIME);
    for (tag, yes, no) in [
        (SCHEDULED_STATION_AE_TITLE, &["CT1", "CT*", "MR1\\CT2"][..], &["CT3"][..]),
        (MODALITY, &["CT", "MR\\CT"], &["MR", "ct"]),
        (SCHEDULED_PERFORMING_PHYSICIAN_NAME, &["Sato*"], &["Suzuki*"]),
        (SCHEDULED_PROCEDURE_STEP_ID, &["SP1"], &["SP2"]),
        (
            day,
            &["20261127", "2026.11.27", "20261101-20261127", "20261127-", "-20261127"],
            &["20261126", "20261128-", "-20261126", "20261128-20261127"],
        ),
        (
            time,
            &["1030", "10", "103000", "10:30", "0900-1100", "1030-", "-1030", "103000.0"],
            &["1031", "1100-", "-1029"],
        ),
    ] {
        for value in yes {
            assert!(matches(&order, &[], &[(tag, value)]), "{tag} {value}");
        }
        for value in no {
            assert!(!matches(&order, &[], &[(tag, value)]), "{tag} {value}");
        }
    }
    // Ranges of date and time together are one: from 11 o'clock of one day to 10 of another.
    let both = |days, times| matches(&order, &[], &[(day, days), (time, times)]);
    assert!(both("20261126-20261128", "1100-1000") && both("20261127", "1000-1100"));
    assert!(both("20261127-20261128", "1030-0900") && !both("20261127-20261128", "1031-2300"));
    assert!(!both("20261126-20261128", "1100"));
}

#[test]
fn what_nobody_said_matches_only_a_key_that_matches_everything_but_a_station_is_whoever_asks() {
    let mut order = order();
    order.content.procedures[0].stations.clear();
    order.content.accession = None;
    assert!(matches(&order, &[], &[(tags::SCHEDULED_STATION_AE_TITLE, "MR9")]));
    assert!(!matches(&order, &[(tags::ACCESSION_NUMBER, "A1")], &[]));
    assert!(matches(&order, &[(tags::ACCESSION_NUMBER, "*")], &[]));
    // A day without a time is every time of that day.
    order.content.scheduled = Some(at("2026-11-27T23:59:59"));
    let keys = |day, time| {
        let (d, t) =
            (tags::SCHEDULED_PROCEDURE_STEP_START_DATE, tags::SCHEDULED_PROCEDURE_STEP_START_TIME);
        matches(&order, &[], &[(d, day), (t, time)])
    };
    assert!(keys("20261127", "0800-0900") && !keys("20261126", "0800-0900"));
    assert!(keys("20261127-20261128", "0800-0900"));
}

#[test]
fn orders_that_have_ended_are_not_shown() {
    let mut order = order();
    for (state, shown) in [
        (OrderState::Requested, true),
        (OrderState::InProgress, true),
        (OrderState::Performed, false),
        (OrderState::Cancelled, false),
        (OrderState::Discontinued, false),
    ] {
        order.state = state;
        assert_eq!(matches(&order, &[(tags::PATIENT_ID, "4711")], &[]), shown, "{state:?}");
    }
}

#[test]
fn a_key_that_is_none_is_refused_and_one_that_is_not_matched_is_said() {
    use tags::*;
    let read = |keys: &[(Tag, &str)], step: &[(Tag, &str)]| Query::read(&query(keys, step));
    for wrong in ["today", "20261332", "20261127-x", "-", "2026"] {
        let fault = read(&[], &[(SCHEDULED_PROCEDURE_STEP_START_DATE, wrong)]).unwrap_err();
        assert_eq!((fault.status, fault.attributes), (0xA900, vec![(0x40, 2)]), "{wrong}");
    }
    for wrong in ["25", "1", "10:70", "10.5", "noon"] {
        assert!(read(&[], &[(SCHEDULED_PROCEDURE_STEP_START_TIME, wrong)]).is_err(), "{wrong}");
    }
    assert!(read(&[(STUDY_INSTANCE_UID, "1.2.*")], &[]).is_err());
    assert!(read(&[(PATIENT_ID, &"x".repeat(2000))], &[]).is_err());
    let unsupported = |keys: &[(Tag, &str)]| read(keys, &[]).unwrap().keys_unsupported;
    assert!(unsupported(&[(ADMISSION_ID, "1")]) && unsupported(&[(PATIENT_SEX, "M")]));
    assert!(!unsupported(&[(ADMISSION_ID, ""), (SPECIFIC_CHARACTER_SET, "ISO_IR 192")]));
    let mut two = query(&[], &[]);
    let steps = vec![InMemDicomObject::new_empty(), InMemDicomObject::new_empty()];
    let steps = DataSetSequence::from(steps);
    two.put(DataElement::new(SCHEDULED_PROCEDURE_STEP_SEQUENCE, VR::SQ, steps));
    assert!(Query::read(&two).is_err());
}

#[test]
fn a_query_is_answered_by_its_surest_key_and_without_one_by_what_is_recent() {
    let found = |keys: &[(Tag, &str)], step: &[(Tag, &str)]| {
        Query::read(&query(keys, step)).unwrap().found(date(2026, 11, 27))
    };
    let one = vec!["1.2".to_owned()];
    let both = [(tags::PATIENT_ID, "4711"), (tags::STUDY_INSTANCE_UID, "1.2")];
    assert_eq!(found(&both, &[]), Found::Studies(one));
    assert_eq!(found(&[(tags::PATIENT_ID, "4711")], &[]), Found::Patients(vec!["4711".into()]));
    let all = Found::Days(Dates::default());
    assert_eq!(found(&[(tags::PATIENT_ID, "47*")], &[]), all);
    assert_eq!(found(&[(tags::PATIENT_NAME, "YAMADA*")], &[]), all);
    let recent = Found::Days(Dates { from: Some(date(2026, 10, 28)), to: None });
    assert_eq!(found(&[], &[(tags::MODALITY, "CT")]), recent);
    let today = Dates { from: Some(date(2026, 11, 27)), to: Some(date(2026, 11, 27)) };
    let day = (tags::SCHEDULED_PROCEDURE_STEP_START_DATE, "20261127");
    assert_eq!(found(&[], &[day]), Found::Days(today));
}

/// Of type 1 in an answer (PS3.4 Table K.6-1): top level, and in the step.
const TYPE_1: [Tag; 4] =
    [tags::PATIENT_NAME, tags::PATIENT_ID, tags::STUDY_INSTANCE_UID, tags::REQUESTED_PROCEDURE_ID];
const TYPE_1_OF_STEP: [Tag; 5] = [
    tags::SCHEDULED_STATION_AE_TITLE,
    tags::SCHEDULED_PROCEDURE_STEP_START_DATE,
    tags::SCHEDULED_PROCEDURE_STEP_START_TIME,
    tags::MODALITY,
    tags::SCHEDULED_PROCEDURE_STEP_ID,
];

fn answered(order: &Order, asked: &InMemDicomObject) -> InMemDicomObject {
    let query = Query::read(asked).unwrap();
    let entries = entries(order, at("2026-11-27T08:00:00"), &zone());
    answer(&entries[0], &query, "CT9")
}

#[test]
fn an_answer_has_what_is_mandatory_also_of_an_order_that_says_next_to_nothing() {
    let mut bare = Order::empty(order().key);
    bare.content.patient.ids = vec![Identifier::bare("4711")];
    bare.content.patient.names = vec!["A".into()];
    for order in [order(), bare.clone()] {
        let set = answered(&order, &query(&[], &[]));
        let step = &items(&set, tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE)[0];
        for tag in TYPE_1 {
            assert!(!text(&set, tag).is_empty(), "{tag}");
        }
        for tag in TYPE_1_OF_STEP {
            assert!(!text(step, tag).is_empty(), "{tag}");
        }
        for tag in [tags::REQUESTED_PROCEDURE_DESCRIPTION, tags::REQUESTED_PROCEDURE_PRIORITY] {
            assert!(!text(&set, tag).is_empty(), "{tag}");
        }
        assert!(set.get(tags::REFERENCED_STUDY_SEQUENCE).is_some());
        assert!(set.get(tags::INSTITUTION_NAME).is_none(), "nobody has asked for it");
    }
    let set = answered(&bare, &query(&[(tags::INSTITUTION_NAME, "")], &[]));
    assert_eq!(text(&set, tags::STUDY_INSTANCE_UID), stand_in::study_uid(&bare.key));
    assert_eq!(text(&set, tags::ISSUER_OF_PATIENT_ID), "east", "so that equal numbers stay apart");
    assert_eq!(text(&set, tags::INSTITUTION_NAME), "east");
    let step = &items(&set, tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE)[0];
    assert_eq!(text(step, tags::SCHEDULED_STATION_AE_TITLE), "CT9");
    assert_eq!(text(step, tags::SCHEDULED_PROCEDURE_STEP_START_DATE), "20261127");
    assert_eq!(text(step, tags::MODALITY), "OT");
}

#[test]
fn an_answer_says_what_was_ordered_and_reads_as_the_same_order() {
    use tags::*;
    let order = order();
    let asked = identifier((date(2026, 11, 27), date(2026, 11, 27)), Some("CT"), None);
    let set = answered(&order, &asked);
    assert_eq!(text(&set, PATIENT_NAME), "YAMADA^TARO=山田^太郎=やまだ^たろう");
    assert_eq!(text(&set, REQUESTED_PROCEDURE_PRIORITY), "STAT");
    assert_eq!(text(&set, ALLERGIES), "penicillin\\iodine");
    let step = &items(&set, SCHEDULED_PROCEDURE_STEP_SEQUENCE)[0];
    assert_eq!(text(step, SCHEDULED_PROCEDURE_STEP_START_TIME), "103000");
    assert_eq!(text(step, SCHEDULED_STATION_AE_TITLE), "CT1\\CT2");
    let read = read(&set, "SITE", &zone()).unwrap();
    let mut expected = order.content.clone();
    expected.modality = "CT".into();
    let step = &mut expected.procedures[0];
    step.scheduled = expected.scheduled;
    step.study = "1.2.3".into();
    step.description = "頭部単純CT".into();
    step.code.scheme = "L".into();
    assert_eq!(read, expected);
}

#[test]
fn items_of_one_order_are_one_and_of_another_patient_under_its_number_are_refused() {
    let item = |step: &str, patient: &str| {
        let mut c = order().content;
        c.procedures[0].step = step.into();
        c.patient.ids[0].id = patient.into();
        c
    };
    let mut nameless = item("SP1", "1");
    (nameless.placer, nameless.accession) = (None, None);
    let (orders, refused) =
        unite([item("SP2", "1"), item("SP1", "1"), item("SP3", "2"), nameless.clone()]);
    assert_eq!(orders.len(), 2, "the last one is known by its requested procedure");
    let steps: Vec<_> = orders[0].content.procedures.iter().map(|p| p.step.as_str()).collect();
    assert_eq!((steps, refused), (vec!["SP1", "SP2"], vec![ItemError::OtherPatient]));
    nameless.procedures[0].requested.clear();
    assert_eq!(nameless.number(), None);
    assert_eq!(read(&query(&[], &[]), "", &zone()), Err(ItemError::Nameless));
}

#[test]
fn a_worklist_fills_what_hl7_has_not_said_and_counts_only_what_it_says_otherwise_than_before() {
    let mut known = order();
    known.content.procedures[0].stations.clear();
    let mut item = order().content;
    item.clinical.reason = "as it was".into();
    // What it says first fills, and overrules nothing.
    let (said, new) = news(None, &item, Some(&known));
    let first = new.unwrap();
    assert_eq!(first.clinical.reason, "");
    assert_eq!(first.procedures[0].stations, ["CT1", "CT2"]);
    known.apply(&Action::Change(first), "worklist", Timestamp(1));
    assert_eq!(known.content.clinical.reason, "頭痛");
    // The same again says nothing, whatever HL7 has said since.
    known.content.clinical.reason = "fall".into();
    assert_eq!(news(Some(&said), &item, Some(&known)), (said.clone(), None));
    // Only what is other than before is told.
    item.procedures[0].stations = vec!["CT3".into()];
    let (said, new) = news(Some(&said), &item, Some(&known));
    known.apply(&Action::Change(new.unwrap()), "worklist", Timestamp(2));
    assert_eq!(known.content.procedures[0].stations, ["CT3"]);
    assert_eq!(known.content.clinical.reason, "fall");
    // A step that is gone changes nothing, and its coming back neither.
    let mut other = item.clone();
    other.procedures[0].step = "SP2".into();
    let (said, new) = news(Some(&said), &other, Some(&known));
    known.apply(&Action::Change(new.unwrap()), "worklist", Timestamp(3));
    assert_eq!(known.content.procedures.len(), 2);
    assert_eq!(news(Some(&said), &item, Some(&known)), (said.clone(), None));
    assert_eq!(news(Some(&said), &other, Some(&known)).1, None);
}

#[test]
fn what_a_later_message_leaves_empty_of_a_step_stays() {
    let mut known = order();
    let mut later = order().content;
    later.procedures[0].stations.clear();
    later.procedures[0].code.meaning = "CT of the head".into();
    known.apply(&Action::Change(later), "RIS", Timestamp(1));
    assert_eq!(known.content.procedures[0].stations, ["CT1", "CT2"]);
    assert_eq!(known.content.procedures[0].code.meaning, "CT of the head");
}

/// As slow as it is plain.
fn naive(pattern: &[char], value: &[char]) -> bool {
    match (pattern.split_first(), value.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=value.len()).any(|n| naive(rest, &value[n..])),
        (Some((p, rest)), Some((v, values))) => (*p == '?' || p == v) && naive(rest, values),
        _ => false,
    }
}

proptest! {
    #[test]
    fn wild_cards_match_as_a_plain_reference_does(
        pattern in "[ab山?*]{0,8}",
        value in "[ab山]{0,8}",
    ) {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        // An empty key matches everything (PS3.4 C.2.2.2.3).
        let expected = pattern.is_empty() || naive(&chars(&pattern), &chars(&value));
        prop_assert_eq!(Pattern::new(&pattern).matches(&value), expected);
    }

    #[test]
    fn a_value_matches_itself_and_its_beginning_with_a_star(value in "[A-Za-z0-9山]{1,20}") {
        prop_assert!(Pattern::new(&value).matches(&value));
        let cut: String = value.chars().take(3).collect();
        let starred = format!("{cut}*");
        prop_assert!(Pattern::new(&starred).matches(&value));
        let name = format!("X={value}");
        prop_assert!(NamePattern::new(&starred.to_lowercase()).matches(&name));
    }

    #[test]
    fn no_text_makes_a_key_panic(text in "\\PC{0,40}") {
        let _ = (Dates::read(&text), Times::read(&text), Pattern::new(&text).matches(&text));
        let _ = NamePattern::new(&text).matches(&text);
    }
}
