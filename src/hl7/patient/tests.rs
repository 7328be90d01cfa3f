use super::*;

fn message(trigger: &str, rest: &str) -> Message {
    let text = format!("MSH|^~\\&|A|B|C|D|2026||ADT^{trigger}|1|P|2.5\r{rest}");
    Message::parse(&text).unwrap()
}

fn identifier(id: &str, namespace: &str, type_code: &str) -> PatientIdentifier {
    let mut identifier = PatientIdentifier { id: id.into(), ..PatientIdentifier::default() };
    identifier.authority.namespace = namespace.into();
    identifier.type_code = type_code.into();
    identifier
}

fn refused(trigger: &str, rest: &str) -> String {
    let refusal = PatientMessage::read(&message(trigger, rest)).expect_err(rest);
    format!("{} {}", refusal.location.expect("a place"), refusal.condition.code())
}

#[test]
fn an_update_has_the_patient_as_it_is_now() {
    let rest = "EVN||2026\rPID|1||12^^^H&1.2&ISO^PI~34^^^K||患者^太郎^^^^^L^I~\
        カンジャ^タロウ^^^^^L^P||19480405|M\r\
        PV1|1|I|32^302^1^H||||220^医師^一郎^^^^^^^L^^^^^I|||01|||||B6~A1||||V1\r\
        AL1|1|DA^薬剤^HL70127|1^ペニシリン^99XYZ|SV|rash~shock\rAL1||\r";
    let read = PatientMessage::read(&message("A08", rest)).unwrap();
    let [PatientChange::Update { patient, visit }] = &read.changes[..] else { panic!("{read:?}") };
    assert_eq!(patient.identifiers.len(), 2);
    assert_eq!(patient.identifiers[0].authority.universal_id, "1.2");
    assert_eq!(patient.identifiers[1], identifier("34", "K", ""));
    assert_eq!(patient.name("I").unwrap().family, "患者");
    assert_eq!(patient.name("P").unwrap().given, "タロウ");
    assert_eq!(patient.name("A"), None);
    assert_eq!((patient.birth_date.as_str(), patient.sex.as_str()), ("19480405", "M"));
    let [allergy] = &patient.allergies[..] else { panic!("{:?}", patient.allergies) };
    assert_eq!((allergy.code.shown(), allergy.severity.shown()), ("ペニシリン", "SV"));
    assert_eq!(allergy.reactions, ["rash", "shock"]);
    assert_eq!((visit.class.as_str(), visit.service.as_str()), ("I", "01"));
    assert_eq!(
        (visit.location.point_of_care.as_str(), visit.location.room.as_str()),
        ("32", "302")
    );
    assert_eq!(visit.attending[0].name.given, "一郎");
    assert_eq!(visit.ambulatory_status, ["B6", "A1"]);
    assert_eq!(visit.number, identifier("V1", "", ""));
}

#[test]
fn a_merge_names_who_remains_and_which_identifiers_end() {
    let rest = "PID|||1^^^H||A^B\rMRG|2^^^H~3^^^H||||||C^D\rPID|||4\rMRG|5\r";
    let read = PatientMessage::read(&message("A40", rest)).unwrap();
    assert_eq!(read.changes.len(), 2);
    let PatientChange::Merge { patient, prior, prior_names } = &read.changes[0] else {
        panic!("{read:?}")
    };
    assert_eq!(patient.identifiers, [identifier("1", "H", "")]);
    assert_eq!(*prior, [identifier("2", "H", ""), identifier("3", "H", "")]);
    assert_eq!(prior_names[0].family, "C");
}

#[test]
fn a_change_without_patient_identifier_or_prior_one_is_refused_with_its_place() {
    assert_eq!(refused("A08", "PV1|1|I\r"), "PID^1 100");
    assert_eq!(refused("A08", "PID|1||^^^H||A^B\r"), "PID^1^3 101");
    assert_eq!(refused("A40", ""), "PID^1 100");
    assert_eq!(refused("A40", "MRG|2\r"), "PID^1 100");
    assert_eq!(refused("A40", "PID|||1\r"), "MRG^1 100");
    assert_eq!(refused("A40", "PID|||1\rPID|||2\rMRG|3\r"), "MRG^1 100");
    assert_eq!(refused("A40", "PID|||1\rMRG|^^^H\r"), "MRG^1^1 101");
    let many = "PID|||1\rMRG|2\r".repeat(MERGES_MAX + 1);
    assert_eq!(refused("A40", &many), format!("MRG^{}^1 207", MERGES_MAX + 1));
}

#[test]
fn an_old_sender_has_its_identifier_in_pid_2_and_its_visit_in_pid_18() {
    let read = PatientMessage::read(&message("A08", "PID|1|77|\"\"||||||||||||||||A9\r")).unwrap();
    let [PatientChange::Update { patient, visit }] = &read.changes[..] else { panic!("{read:?}") };
    assert_eq!(patient.identifiers, [identifier("77", "", "")]);
    assert_eq!(visit.number.id, "");
    let pid = "PID|1|77|\"\"|||||||||||||||A9\r";
    let read = PatientMessage::read(&message("A08", pid)).unwrap();
    let [PatientChange::Update { visit, .. }] = &read.changes[..] else { panic!("{read:?}") };
    assert_eq!(visit.number.id, "A9");
}
