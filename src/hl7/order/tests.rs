use proptest::prelude::*;

use super::*;
use crate::hl7::charset::Charset;
use crate::hl7::datatype::{Authority, Name, PatientIdentifier};
use crate::hl7::message::Message;
use crate::hl7::patient::{Allergy, PointOfCare};

const HEAD: &str = "MSH|^~\\&|A|B|C|D|2026||OMI^O23|1|P|2.5\rPID|||12\r";

fn read(rest: &str) -> Result<OrderMessage, Vec<String>> {
    let message = Message::parse(&format!("{HEAD}{rest}")).unwrap();
    OrderMessage::read(&message, &OrderFields::default()).map_err(|refusals| {
        let shown = |r: &crate::hl7::ack::Refusal| {
            format!("{} {}", r.location.as_ref().expect("a place"), r.condition.code())
        };
        refusals.iter().map(shown).collect()
    })
}

fn one(rest: &str) -> Order {
    let mut read = read(rest).unwrap();
    assert_eq!(read.orders.len(), 1, "{read:?}");
    read.orders.remove(0)
}

#[test]
fn an_imaging_order_is_read_field_by_field() {
    let order =
        one("ORC|NW|P1^HIS^1.2^ISO|F1^RIS|G1|SC||^^^201107010900^^S|P0&HIS^F0&RIS|20110630||\
        |D1^医師^一郎^^^^^^A&1.3&ISO^L^^^^^I||^^^^^^^^^^^054-284~(03)123|||01^内科^99XY1\r\
        TQ1|1||||||20110701||A^^HL70485\r\
        OBR|1|P2|F2|1000^胸部CT^JJ1017||201106300800||||||I^感染^L|咳|||X|||RP9|S9|||||||||||\
        R1^咳嗽^L~R2|||||||||||||PC\r\
        NTE|1||one\\.br\\two\r\
        OBX|1|NM|01-02^体重^JSHR001||62|kg^kg^ISO+|||||F\r\
        OBX|2|CWE|5H^血液型^JC10||A^A^JSHR002~B^\r\
        OBX|3|TX|H^History||fell ^ from\\T\\ a horse\r\
        IPC|ACC1^RIS|RP1|1.2.3|S1|CT^^DCM|PR1^Chest^L~PR2|ST1|L1^Room|CT1~CT2\r");
    assert_eq!((order.control.as_str(), order.action), ("NW", Action::New));
    assert_eq!((order.placer.id.as_str(), order.placer.issuer.namespace.as_str()), ("P1", "HIS"));
    assert_eq!(order.placer.issuer.universal_id_type, "ISO");
    assert_eq!((order.filler.id.as_str(), order.group.id.as_str()), ("F1", "G1"));
    assert_eq!((order.parent.id.as_str(), order.parent_filler.id.as_str()), ("P0", "F0"));
    assert_eq!((order.status.as_str(), order.priority), ("SC", Priority::High));
    assert_eq!(order.scheduled_at.as_str(), "20110701");
    assert_eq!(order.ordered_at.as_str(), "20110630");
    assert_eq!((order.procedure.shown(), order.procedure_code.shown()), ("胸部CT", "PC"));
    assert_eq!((order.accession.as_str(), order.study_uid.as_str()), ("ACC1", "1.2.3"));
    assert_eq!((order.danger.shown(), order.clinical_information.as_str()), ("感染", "咳"));
    assert_eq!(order.reasons.iter().map(Coded::shown).collect::<Vec<_>>(), ["咳嗽", "R2"]);
    assert_eq!(order.notes, ["one\ntwo"]);
    let values: Vec<_> = order.observations.iter().map(|o| o.values.clone()).collect();
    assert_eq!(values[0], [["62"]]);
    assert_eq!(values[1], [vec!["A", "A", "JSHR002"], vec!["B"]]);
    assert_eq!(values[2], [["fell ^ from& a horse"]]);
    assert_eq!(order.requesters[0].name.family, "医師");
    assert_eq!(order.requesters[0].authority.universal_id, "1.3");
    assert_eq!(order.contacts, ["054-284", "(03)123"]);
    assert_eq!((order.department.id.as_str(), order.department.shown()), ("01", "内科"));
    let [step] = &order.steps[..] else { panic!("{:?}", order.steps) };
    assert_eq!((step.requested_procedure_id.as_str(), step.id.as_str()), ("RP1", "S1"));
    assert_eq!((step.modality.as_str(), step.station_name.as_str()), ("CT", "ST1"));
    assert_eq!((step.protocols.len(), step.location.shown()), (2, "Room"));
    assert_eq!(step.ae_titles, ["CT1", "CT2"]);
}

#[test]
fn an_old_order_has_its_step_in_obr_and_its_study_in_zds() {
    let order = one("ORC|NW|AC-VS-001\rOBR|1|AC-VS-001||ct^CT^L|H|201107010900|||||||||||\
        |AC1|RP1|SP1||||CT|||1^^^20110702^^R\rZDS|1.2.3^100^Application^DICOM\r");
    assert_eq!((order.accession.as_str(), order.study_uid.as_str()), ("AC1", "1.2.3"));
    assert_eq!((order.priority_code.as_str(), order.priority), ("R", Priority::Routine));
    assert_eq!(order.scheduled_at.as_str(), "20110702");
    let step = &order.steps[0];
    assert_eq!((step.id.as_str(), step.modality.as_str()), ("SP1", "CT"));
    assert_eq!((step.accession.as_str(), step.study_uid.as_str()), ("AC1", "1.2.3"));
}

#[test]
fn the_accession_number_is_looked_for_along_the_configured_paths() {
    let rest = "ORC|NW|P1|F1\rOBR|1|P1|F1|X|||||||||||||||\r";
    assert_eq!(one(rest).accession, "F1");
    let message = Message::parse(&format!("{HEAD}{rest}ZAC||^Z9\r")).unwrap();
    let accession = vec!["ZAC-2.2".parse().unwrap(), "OBR-2".parse().unwrap()];
    let fields = OrderFields { accession, ..OrderFields::default() };
    assert_eq!(OrderMessage::read(&message, &fields).unwrap().orders[0].accession, "Z9");
    let fields = OrderFields { accession: vec!["PID-3".parse().unwrap()], ..fields };
    assert_eq!(OrderMessage::read(&message, &fields).unwrap().orders[0].accession, "12");
}

#[test]
fn each_orc_and_each_further_obr_is_an_order() {
    let rest =
        "ORC|NW|1\rOBR|1|1||X\rNTE|||a\rOBR|2|2||Y\rNTE|||b\rORC|CA|3\rORC|PR|9\rOBR|||9|Z\r";
    let orders = read(rest).unwrap().orders;
    let seen: Vec<_> = orders
        .iter()
        .map(|o| (o.placer.id.as_str(), o.action, o.procedure.shown(), o.notes.concat()))
        .collect();
    assert_eq!(
        seen,
        [
            ("1", Action::New, "X", "a".to_owned()),
            ("2", Action::New, "Y", "b".to_owned()),
            ("3", Action::Cancel, "", String::new()),
        ]
    );
}

#[test]
fn parents_and_children_mean_what_the_order_before_them_means() {
    let rest = "ORC|CA|1\rORC|PA|1\rORC|CH|2||||||1\rORC|SC|3|||CA\rORC|CH|4||||||3^F3\r";
    let orders = read(rest).unwrap().orders;
    assert!(orders.iter().all(|o| o.action == Action::Cancel), "{orders:?}");
    assert!(orders[1].is_parent() && orders[2].is_child() && !orders[0].is_child());
    assert_eq!((orders[2].parent.id.as_str(), orders[4].parent_filler.id.as_str()), ("1", "F3"));
    assert_eq!(one("ORC|PA|1\rOBR||||X\r").action, Action::New);
}

#[test]
fn control_codes_mean_what_table_0119_says() {
    for (codes, action) in [
        ("NW SN RO", Action::New),
        ("XO XX", Action::Change),
        ("CA OC RP RU", Action::Cancel),
        ("DC OD", Action::Discontinue),
        ("HD OH", Action::Hold),
        ("RL OE", Action::Release),
        ("SC SR OK UA", Action::Status),
    ] {
        for code in codes.split(' ') {
            assert_eq!(Action::of_control(code), Some(action), "{code}");
        }
    }
    assert_eq!((Action::of_control("PA"), Action::of_control("ZZ")), (None, None));
}

#[test]
fn what_is_missing_or_not_in_the_table_is_named_by_place_and_code() {
    for (rest, expected) in [
        ("", vec!["ORC^1 100"]),
        ("ORC|PR|1\r", vec!["ORC^1 100"]),
        ("OBR|1|1||X\r", vec!["ORC^1 100"]),
        ("ORC||1\rOBR|1|1||X\r", vec!["ORC^1^1 101"]),
        ("ORC|ZZ|1\rOBR|1|1||X\r", vec!["ORC^1^1 103"]),
        ("ORC|NW|\rOBR|1|^X||X\r", vec!["ORC^1^2 101"]),
        ("ORC|NW|1\r", vec!["OBR^1 100"]),
        ("ORC|CA|1\rORC|NW|2\rOBR|1|2\rORC|NW|3\r", vec!["OBR^1^4 101", "OBR^3 100"]),
    ] {
        assert_eq!(read(rest), Err(expected.iter().map(|s| (*s).to_owned()).collect()), "{rest}");
    }
    let without = Message::parse("MSH|^~\\&|A\rORC|CA|1\r").unwrap();
    let refusals = OrderMessage::read(&without, &OrderFields::default()).unwrap_err();
    assert_eq!(refusals[0].to_string(), "PID^1: PID is missing");
    let many = "ORC|CA|1\r".repeat(ORDERS_MAX + 1);
    assert_eq!(read(&many), Err(vec![format!("ORC^{} 207", ORDERS_MAX + 1)]));
    let many = "ORC||1\r".repeat(ORDERS_MAX);
    assert_eq!(read(&many).unwrap_err().len(), crate::hl7::ack::REFUSALS_MAX);
}

#[test]
fn the_department_is_the_entering_one_the_service_or_the_clinic() {
    let department = |pv1: &str, orc: &str| {
        one(&format!("PV1||O|{pv1}\rORC|CA|1|||||||||||||||{orc}\r")).department.id
    };
    assert_eq!(department("03^^^^^C|||||||02", "01^A"), "01");
    assert_eq!(department("03^^^^^C|||||||02", ""), "02");
    assert_eq!(department("03^^^^^C", ""), "03");
    assert_eq!(department("03^302^^^^N", ""), "");
}

/// A text as a component has it: no padding, not the null value.
fn text() -> impl Strategy<Value = String> {
    let signs: Vec<char> = "|^~\\&\r\n像骨本移美所十ソ山田ｱﾞ aB09.".chars().collect();
    let text = proptest::collection::vec(proptest::sample::select(signs), 0..8);
    text.prop_map(|c| c.into_iter().collect::<String>().trim_matches(' ').to_owned())
}

fn some() -> impl Strategy<Value = String> {
    text().prop_map(|text| if text.is_empty() { "骨|".to_owned() } else { text })
}

fn authority() -> impl Strategy<Value = Authority> {
    (text(), text(), text()).prop_map(|(namespace, universal_id, universal_id_type)| Authority {
        namespace,
        universal_id,
        universal_id_type,
    })
}

fn identifier() -> impl Strategy<Value = Identifier> {
    (some(), authority()).prop_map(|(id, issuer)| Identifier { id, issuer })
}

fn patient_identifier() -> impl Strategy<Value = PatientIdentifier> {
    let parts = (some(), authority(), text());
    parts.prop_map(|(id, authority, type_code)| PatientIdentifier { id, authority, type_code })
}

fn name() -> impl Strategy<Value = Name> {
    let parts = (some(), text(), text(), text(), text(), text(), text());
    parts.prop_map(|(family, given, middle, suffix, prefix, type_code, representation)| Name {
        family,
        given,
        middle,
        suffix,
        prefix,
        type_code,
        representation,
    })
}

fn person() -> impl Strategy<Value = Person> {
    (text(), authority(), name()).prop_map(|(id, authority, name)| Person { id, authority, name })
}

fn coded() -> impl Strategy<Value = Coded> {
    (some(), text(), text(), text(), text(), text()).prop_map(
        |(id, text, system, alternate_id, alternate_text, alternate_system)| Coded {
            id,
            text,
            system,
            alternate_id,
            alternate_text,
            alternate_system,
        },
    )
}

fn few<T: std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(one, 0..3)
}

fn time() -> impl Strategy<Value = TimeStamp> {
    prop_oneof![Just("".to_owned()), Just("20110701".into()), text()]
        .prop_map(|t| TimeStamp::new(&t))
}

fn patient() -> impl Strategy<Value = Patient> {
    let allergy = (coded(), coded(), coded(), few(some()))
        .prop_map(|(kind, code, severity, reactions)| Allergy { kind, code, severity, reactions });
    let identifiers = proptest::collection::vec(patient_identifier(), 1..3);
    (identifiers, few(name()), time(), text(), few(allergy), few(some())).prop_map(
        |(identifiers, names, birth_date, sex, allergies, notes)| Patient {
            identifiers,
            names,
            birth_date,
            sex,
            allergies,
            notes,
        },
    )
}

fn visit() -> impl Strategy<Value = Visit> {
    let place =
        (text(), text(), text(), text()).prop_map(|(point_of_care, room, bed, facility)| {
            PointOfCare { point_of_care, room, bed, facility }
        });
    (text(), place, few(person()), few(person()), text(), few(some()), patient_identifier())
        .prop_map(|(class, location, attending, referring, service, ambulatory_status, number)| {
            Visit { class, location, attending, referring, service, ambulatory_status, number }
        })
}

fn step() -> impl Strategy<Value = Step> {
    let ids = (some(), text(), text(), text(), text());
    (ids, few(coded()), text(), coded(), few(some())).prop_map(
        |(ids, protocols, station_name, location, ae_titles)| Step {
            requested_procedure_id: ids.0,
            id: ids.1,
            modality: ids.2,
            accession: ids.3,
            study_uid: ids.4,
            protocols,
            station_name,
            location,
            ae_titles,
        },
    )
}

fn order() -> impl Strategy<Value = Order> {
    let observation =
        (few(some()), coded(), coded(), any::<bool>()).prop_map(|(texts, code, units, is_text)| {
            let values = if is_text {
                texts.into_iter().map(|text| vec![text]).collect()
            } else {
                vec![texts].into_iter().filter(|parts| !parts.is_empty()).collect()
            };
            let kind = if is_text { "TX" } else { "CWE" };
            Observation { kind: kind.into(), code, values, units }
        });
    let control = proptest::sample::select(vec!["NW", "XO", "CA", "DC", "SC", "HD"]);
    let numbers = (control, identifier(), identifier(), identifier(), identifier(), identifier());
    let when = (time(), time(), proptest::sample::select(vec!["", "S", "A", "R", "移"]));
    let what = (coded(), coded(), coded(), few(coded()), text());
    let which = (some(), some(), few(step()), any::<bool>());
    let from = (coded(), coded(), text());
    let more = (few(some()), few(observation), few(person()), from, few(some()));
    (numbers, when, what, which, more).prop_map(|(numbers, when, what, which, more)| {
        let mut order = Order {
            control: numbers.0.into(),
            action: Action::of_control(numbers.0).unwrap(),
            placer: numbers.1,
            filler: numbers.2,
            group: numbers.3,
            parent: numbers.4,
            parent_filler: numbers.5,
            priority: Priority::of_code(when.2),
            priority_code: when.2.into(),
            ordered_at: when.0,
            scheduled_at: when.1,
            procedure: what.0,
            procedure_code: what.1,
            danger: what.2,
            reasons: what.3,
            clinical_information: what.4,
            accession: which.0,
            study_uid: which.1,
            steps: which.2,
            notes: more.0,
            observations: more.1,
            requesters: more.2,
            department: more.3.0,
            control_reason: more.3.1,
            facility: more.3.2,
            contacts: more.4,
            ..Order::default()
        };
        let identity = Step::of_order(&order);
        for step in &mut order.steps {
            // As a reader has them: each with the order's identity where it has none of its own.
            if which.3 || step.accession.is_empty() {
                step.accession.clone_from(&identity.accession);
            }
            if which.3 || step.study_uid.is_empty() {
                step.study_uid.clone_from(&identity.study_uid);
            }
        }
        // The first IPC is where a reader looks for the order's own identity.
        if let Some(first) = order.steps.first() {
            order.accession.clone_from(&first.accession);
            order.study_uid.clone_from(&first.study_uid);
        }
        order
    })
}

fn sending(order_type: OrderType) -> Sending<'static> {
    Sending {
        order_type,
        from: ("GW", "病院"),
        to: ("RIS", "読影"),
        at: "20261122",
        control_id: "7",
        processing_id: "P",
        charset: "~ISO IR13~ISO IR87".parse().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn orders_come_back_as_they_were_written_in_either_message_and_each_character_set(
        patient in patient(),
        visit in visit(),
        orders in proptest::collection::vec(order(), 1..3),
    ) {
        let said = OrderMessage { patient, visit, orders };
        for order_type in [OrderType::General, OrderType::Imaging] {
            for charset in ["~ISO IR13~ISO IR87", "ISO IR13~ISO IR87", "Shift_JIS", "UTF-8"] {
                let charset: Charset = charset.parse().unwrap();
                let message = said.write(&Sending { charset, ..sending(order_type) });
                let bytes = charset.encode(&message.write()).unwrap();
                let decoded = charset.decode(&bytes);
                let again = Message::parse(&decoded.text).unwrap();
                prop_assert_eq!(&again, &message);
                let read = OrderMessage::read(&again, &OrderFields::default()).unwrap();
                prop_assert_eq!(&read, &said);
            }
        }
    }
}

#[test]
fn an_order_of_2_5_for_a_receiving_ris_looks_as_the_standard_has_it() {
    let said = read(
        "PV1||O\rORC|NW|P1|F1\rTQ1|1||||||20110701||S\rOBR|1|||X^胸部^L|||||||||||||\
        |A1|RP|SP||||CT\rNTE|1||a|\rZDS|1.2.3\r",
    )
    .unwrap();
    let orc = "ORC|NW|P1|F1\rTQ1|1||||||20110701||S\r\
        OBR|1|P1|F1|X^胸部^L||||||||||||||A1|RP|SP||||CT\rNTE|1||a\r";
    let general = said.write(&sending(OrderType::General)).write();
    let msh = "MSH|^~\\&|GW|病院|RIS|読影|20261122||OMG^O19^OMG_O19|7|P|2.5||||||\
        ~ISO IR13~ISO IR87||ISO 2022-1994\rPID|1||12\rPV1|1|O\r";
    assert_eq!(general, format!("{msh}{orc}ZDS|1.2.3^^Application^DICOM\r"));
    let imaging = said.write(&sending(OrderType::Imaging)).write();
    let msh = msh.replace("OMG^O19^OMG_O19", "OMI^O23^OMI_O23");
    assert_eq!(imaging, format!("{msh}{orc}IPC|A1|RP|1.2.3|SP|CT\r"));
}
