use proptest::prelude::*;

use super::*;
use crate::cargo::{CargoKind, Identity, Sha256};
use crate::clock::Timestamp;

fn envelope() -> Envelope {
    Envelope {
        kind: CargoKind::Image,
        identity: Identity {
            origin: "st-elsewhere".parse().unwrap(),
            key: "1.2.3".into(),
            sha256: Sha256::of(b""),
        },
        length: 0,
        urgency: Urgency::Routine,
        received_at: Timestamp(0),
        calling_ae: "CT1".into(),
        called_ae: "HIKYAKU".into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study: "1.2".into(),
        series: "1.2.1".into(),
        modality: "CT".into(),
        accession: "A1".into(),
        patient_id: "P1".into(),
        flags: vec![],
    }
}

fn header(keyword: &str) -> Option<String> {
    match keyword {
        "BodyPartExamined" => Some("HEAD ".into()),
        "ImageType" => Some("ORIGINAL\\PRIMARY\\AXIAL".into()),
        "PatientName" => Some("Yamada^Tarou".into()),
        _ => None,
    }
}

fn condition(field: Field, patterns: &[&str]) -> Condition {
    let patterns = patterns.iter().map(|p| Pattern::new(p).unwrap()).collect();
    Condition { field, patterns }
}

fn attribute(keyword: &str, pattern: &str) -> Condition {
    condition(Field::Attribute(Attribute::new(keyword).unwrap()), &[pattern])
}

fn rule(name: &str, when: Vec<Condition>, to: &[&str]) -> Rule {
    let to = to.iter().map(|d| d.parse().unwrap()).collect();
    let times = Times::default();
    Rule {
        name: name.into(),
        when,
        to,
        urgency: None,
        hold: None,
        last: false,
        correct: false,
        times,
    }
}

fn ask(rules: Vec<Rule>) -> Vec<(String, Urgency, Option<String>)> {
    let envelope = envelope();
    let table = Table::new(rules);
    let subject = Subject { envelope: &envelope, attribute: &header };
    let assigned = table.assign(&subject);
    assert_eq!(table.explain(&subject, Patient::Masked).assignments, assigned);
    assigned.into_iter().map(|a| (a.destination.as_str().into(), a.urgency, a.hold)).collect()
}

fn holds(condition: Condition) -> bool {
    let envelope = envelope();
    condition.holds(&Subject { envelope: &envelope, attribute: &header })
}

#[test]
fn all_matching_rules_apply_and_the_higher_urgency_wins() {
    let urgent = Rule { urgency: Some(Urgency::Stat), ..rule("b", vec![], &["x"]) };
    let slow = Rule { urgency: Some(Urgency::Bulk), ..rule("c", vec![], &["x", "z"]) };
    let got = ask(vec![rule("a", vec![], &["x", "y"]), urgent, slow]);
    assert_eq!(
        got,
        [
            ("x".into(), Urgency::Stat, None),
            ("y".into(), Urgency::Routine, None),
            ("z".into(), Urgency::Bulk, None)
        ]
    );
}

#[test]
fn a_rule_that_says_last_ends_the_search_only_when_it_applies() {
    let last = |patterns: &[&str]| Rule {
        last: true,
        ..rule("a", vec![condition(Field::CalledAe, patterns)], &["x"])
    };
    assert_eq!(ask(vec![last(&["TELE_STAT"]), rule("b", vec![], &["y"])])[0].0, "y");
    assert_eq!(ask(vec![last(&["hikyaku"]), rule("b", vec![], &["y"])]).len(), 1);
}

#[test]
fn an_image_is_corrected_when_a_rule_that_applies_says_so_and_is_reached() {
    let of = |name: &str, modality: &str, last, correct| Rule {
        last,
        correct,
        ..rule(name, vec![condition(Field::Modality, &[modality])], &["x"])
    };
    let corrects = |rules| {
        let envelope = envelope();
        Table::new(rules).corrects(&Subject { envelope: &envelope, attribute: &header })
    };
    assert!(corrects(vec![of("a", "CT", false, false), of("b", "CT", false, true)]));
    assert!(!corrects(vec![of("a", "CT", false, false), of("b", "MR", false, true)]));
    assert!(!corrects(vec![of("a", "CT", true, false), of("b", "CT", false, true)]));
}

#[test]
fn what_one_rule_holds_no_other_rule_lets_go() {
    let hold = |why: &str| Rule { hold: Some(why.into()), ..rule(why, vec![], &["x"]) };
    let got = ask(vec![hold("second look"), rule("b", vec![], &["x"]), hold("consent")]);
    assert_eq!(got, [("x".into(), Urgency::Routine, Some("consent; second look".into()))]);
}

#[test]
fn cargo_that_no_rule_matches_has_no_assignment_and_the_explanation_says_so() {
    let table = Table::new(vec![rule("mr", vec![condition(Field::Modality, &["MR"])], &["x"])]);
    let envelope = envelope();
    let subject = Subject { envelope: &envelope, attribute: &header };
    assert!(table.assign(&subject).is_empty());
    let words = table.explain(&subject, Patient::Masked).to_string();
    assert_eq!(
        words,
        "rule 'mr' does not apply: modality is \"CT\", wanted \"MR\"\n\
         no rule matches: kept as unrouted\n"
    );
}

#[test]
fn all_conditions_of_a_rule_must_hold_and_each_that_does_not_is_named() {
    let when = vec![
        condition(Field::CallingAe, &["ct?"]),
        condition(Field::Modality, &["MR", "PT"]),
        attribute("StationName", "A*"),
    ];
    let table = Table::new(vec![rule("a", when, &["x"])]);
    let envelope = envelope();
    let subject = Subject { envelope: &envelope, attribute: &header };
    let explanation = table.explain(&subject, Patient::Masked);
    let Why::Differs { mismatches } = &explanation.rules[0].why else { panic!("applies") };
    let fields: Vec<_> = mismatches.iter().map(|m| m.field).collect();
    assert_eq!(fields, ["modality", "StationName"]);
    assert_eq!(mismatches[1].found, Found::Absent);
}

#[test]
fn values_that_identify_the_patient_are_masked_unless_asked_for() {
    let table = Table::new(vec![rule("vip", vec![attribute("PatientName", "Suzuki*")], &["x"])]);
    let envelope = envelope();
    let subject = Subject { envelope: &envelope, attribute: &header };
    let masked = table.explain(&subject, Patient::Masked);
    assert!(!masked.to_string().contains("Yamada"));
    assert!(!serde_json::to_string(&masked).unwrap().contains("Yamada"));
    assert!(table.explain(&subject, Patient::Shown).to_string().contains("Yamada"));
}

#[test]
fn names_dates_and_free_text_count_as_identifying_and_codes_do_not() {
    for identifying in ["PatientSex", "AccessionNumber", "StudyDate", "ImageComments", "StudyID"] {
        assert!(Attribute::new(identifying).unwrap().is_identifying(), "{identifying}");
    }
    for harmless in ["BodyPartExamined", "StudyDescription", "SliceThickness", "Rows"] {
        assert!(!Attribute::new(harmless).unwrap().is_identifying(), "{harmless}");
    }
}

#[test]
fn a_pattern_matches_the_whole_value_or_one_of_several_whatever_the_case() {
    assert!(holds(attribute("BodyPartExamined", "head")));
    assert!(!holds(attribute("BodyPartExamined", "hea")));
    assert!(holds(attribute("ImageType", "axial")));
    assert!(holds(attribute("ImageType", "ORIGINAL\\PRIMARY*")));
    assert!(holds(condition(Field::Origin, &["ST-*"])));
}

#[test]
fn an_absent_value_is_the_empty_text() {
    assert!(holds(attribute("StationName", "")));
    assert!(holds(attribute("StationName", "*")));
    assert!(!holds(attribute("StationName", "?*")));
    assert!(holds(attribute("BodyPartExamined", "?*")));
}

#[test]
fn a_sop_class_may_be_named_by_its_keyword() {
    let by = |written: &str| Condition {
        field: Field::SopClass,
        patterns: vec![Pattern::sop_class(written).unwrap()],
    };
    assert!(holds(by("CTImageStorage")));
    assert!(holds(by("1.2.840.10008.5.1.4.1.1.2*")));
    assert!(!holds(by("MRImageStorage")));
    assert!(Pattern::sop_class("CTImage").is_err());
}

#[test]
fn attributes_that_cannot_be_compared_are_refused_when_the_table_is_built() {
    let nearest = |keyword: &str| match Attribute::new(keyword) {
        Err(FieldError::Unknown { nearest, .. }) => nearest,
        other => panic!("{other:?}"),
    };
    assert_eq!(nearest("BodyPartExamin"), Some("BodyPartExamined"));
    assert_eq!(nearest("xyzzy"), None);
    assert!(matches!(Attribute::new("PixelData"), Err(FieldError::NotInHeader(_))));
    assert!(matches!(Attribute::new("TransferSyntaxUID"), Err(FieldError::NotInHeader(_))));
    assert!(matches!(Attribute::new("ReferencedStudySequence"), Err(FieldError::NotText(_))));
    assert!(matches!(Attribute::new("OverlayRows"), Err(FieldError::NotText(_))));
}

#[test]
fn a_table_names_the_header_elements_that_it_asks_for() {
    let when = vec![attribute("BodyPartExamined", "HEAD"), condition(Field::Modality, &["CT"])];
    let table = Table::new(vec![rule("a", when, &["x"])]);
    assert_eq!(
        table.attributes().into_iter().collect::<Vec<_>>(),
        [("BodyPartExamined", Tag(0x0018, 0x0015))]
    );
}

#[test]
fn many_wildcards_against_a_long_value_take_no_exponential_time() {
    let pattern = Pattern::new(&"*a".repeat(100)).unwrap();
    assert!(!pattern.matches(&"a".repeat(99)));
    assert!(pattern.matches(&"a".repeat(10_000)));
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let destinations = proptest::collection::vec("[a-d]", 1..4);
    let urgency = proptest::option::of(proptest::sample::select(Urgency::ALL.to_vec()));
    let hold = proptest::option::of("[h-j]");
    let one = (destinations, urgency, hold, any::<bool>()).prop_map(|(to, urgency, hold, ct)| {
        let when = vec![condition(Field::Modality, if ct { &["CT"] } else { &["MR"] })];
        let to = to.iter().map(|d| d.parse().unwrap()).collect();
        let times = Times::default();
        Rule { name: "r".into(), when, to, urgency, hold, last: false, correct: false, times }
    });
    proptest::collection::vec(one, 0..8)
}

proptest! {
    #[test]
    fn without_last_the_order_of_the_rules_makes_no_difference(
        (rules, shuffled) in rules().prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle()))
    ) {
        prop_assert_eq!(ask(rules), ask(shuffled));
    }

    #[test]
    fn a_destination_is_assigned_exactly_when_a_matching_rule_names_it(rules in rules()) {
        let named: BTreeSet<String> = rules
            .iter()
            .filter(|rule| holds(rule.when[0].clone()))
            .flat_map(|rule| rule.to.iter().map(|d| d.as_str().to_owned()))
            .collect();
        let assigned: BTreeSet<String> = ask(rules).into_iter().map(|a| a.0).collect();
        prop_assert_eq!(assigned, named);
    }

    #[test]
    fn matching_agrees_with_the_plain_recursive_definition(
        pattern in "[ab*?]{0,8}", value in "[ab]{0,8}"
    ) {
        fn plain(p: &[u8], v: &[u8]) -> bool {
            match p.first() {
                None => v.is_empty(),
                Some(b'*') => plain(&p[1..], v) || !v.is_empty() && plain(p, &v[1..]),
                Some(&c) => {
                    !v.is_empty() && (c == b'?' || c == v[0]) && plain(&p[1..], &v[1..])
                }
            }
        }
        let expected = plain(pattern.as_bytes(), value.as_bytes());
        prop_assert_eq!(Pattern::new(&pattern).unwrap().matches(&value), expected);
    }

    #[test]
    fn no_pattern_and_no_value_of_a_peer_panics(pattern in ".{0,64}", value in ".{0,300}") {
        if let Ok(pattern) = Pattern::new(&pattern) {
            let _ = pattern.matches(&value);
        }
    }
}
