use proptest::prelude::*;
use proptest::sample::select;

use super::super::message::askings;
use super::*;
use crate::hl7::inbound::{Content as Said, Inbound, Rules};
use crate::orders::identifier::Patient;
use crate::orders::order::{Clinical, OrderKey};

fn zone() -> TimeZone {
    TimeZone::get("Asia/Tokyo").unwrap()
}

/// What a reader of the message makes of it, in this character set.
fn read(order: &Order, control: &str, order_type: OrderType, charset: &str) -> Content {
    let charset: Charset = charset.parse().unwrap();
    let sending = Sending {
        order_type,
        from: ("HIKYAKU", "読影"),
        to: ("RIS", ""),
        at: "20261122120000+0900",
        control_id: "1",
        processing_id: "P",
        charset,
    };
    let text = message(order, control, &zone()).write(&sending).write();
    let bytes = charset.encode(&text).unwrap();
    let inbound = Inbound::read(&bytes, &Rules::default());
    let Ok(Said::Orders(orders)) = inbound.content() else { panic!("{text}") };
    let mut all = askings(orders, "", &TimeZone::UTC);
    assert_eq!(all.len(), 1, "one order, whatever its procedures: {text}");
    all.remove(0).content
}

fn order_of(content: Content) -> Order {
    let key = OrderKey { origin: "hospital".parse().unwrap(), number: "P1".into() };
    Order { content, changed_at: Timestamp(1_790_000_000_000), ..Order::empty(key) }
}

fn word() -> impl Strategy<Value = String> {
    select(vec!["P-1", "骨画像　山本", "a^b|c\\d~e&f", "ﾔﾏﾓﾄ", "\"\"", "山本 太郎", "123"])
        .prop_map(str::to_owned)
}

fn words() -> impl Strategy<Value = String> {
    proptest::collection::vec(word(), 0..4).prop_map(|lines| lines.join("\n"))
}

/// With an issuer: one without gets the node's.
fn issued() -> impl Strategy<Value = Identifier> {
    let authority = select(vec![("HIS", ""), ("HIS", "1.2.392.1"), ("", "1.2.392.2")]);
    (word(), authority).prop_map(|(id, (namespace, universal))| Identifier {
        id,
        authority: Authority { namespace: namespace.into(), universal: universal.into() },
    })
}

fn some<T: std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(one, 1..4)
}

fn procedures() -> impl Strategy<Value = Vec<Procedure>> {
    let code = select(vec![("CT1", "JJ1017", "胸部CT"), ("MR1", "L", ""), ("", "", "X 線")]);
    let place = (select(vec![vec![], vec!["CT1"], vec!["CT1", "CT2"]]), word(), word());
    let one = (code.clone(), word(), word(), select(vec!["", "CT", "MR"]), (place, code));
    let coded = |(value, scheme, meaning): (&str, &str, &str)| Code {
        value: value.into(),
        scheme: scheme.into(),
        meaning: meaning.into(),
    };
    some(one).prop_map(move |all| {
        let mut named: Vec<Procedure> = Vec::new();
        for (code, requested, step, modality, ((stations, station_name, location), protocol)) in all
        {
            let procedure = Procedure {
                requested,
                step,
                code: coded(code),
                modality: modality.to_owned(),
                stations: stations.into_iter().map(str::to_owned).collect(),
                station_name,
                location,
                protocols: vec![coded(protocol)],
                ..Procedure::default()
            };
            // A reader takes steps of the same numbers for one.
            let key = |p: &Procedure| {
                (p.requested.clone(), p.step.clone(), p.code.clone(), p.modality.clone())
            };
            if named.iter().all(|known| key(known) != key(&procedure)) {
                named.push(procedure);
            }
        }
        named
    })
}

fn content() -> impl Strategy<Value = Content> {
    let name = select(vec![
        "YAMADA^TARO",
        "山田^太郎",
        "やまだ^たろう",
        "ﾔﾏﾀﾞ^ﾀﾛｳ",
        "SMITH^JANE^M^DR^JR",
        "山本",
    ]);
    let names = proptest::collection::vec(name.prop_map(str::to_owned), 0..3);
    let patient = (some(issued()), names, select(vec!["", "19500101"]), select(vec!["", "M", "O"]))
        .prop_map(|(ids, names, birth_date, sex)| Patient {
            ids,
            names,
            birth_date: birth_date.into(),
            sex: sex.into(),
            ..Patient::default()
        });
    let numbers =
        (issued(), proptest::option::of(issued()), proptest::option::of(issued()), word());
    let urgency = select(vec![Urgency::Stat, Urgency::Urgent, Urgency::Routine]);
    let when = proptest::option::of(1_500_000_000..2_000_000_000_i64);
    let clinical = [(); 4].map(|()| words());
    let studies = proptest::collection::btree_set(select(vec!["1.2.1", "1.2.2", "1.2.3"]), 0..3);
    let more = (studies, proptest::option::of(urgency), when, clinical, word());
    (numbers, patient, procedures(), more).prop_map(|(numbers, patient, procedures, more)| {
        let (studies, urgency, when, [reason, history, allergies, contact], department) = more;
        let modality = procedures.iter().map(|p| p.modality.clone()).find(|m| !m.is_empty());
        let studies: Vec<String> = studies.into_iter().map(str::to_owned).collect();
        let scheduled = when.map(|seconds| Timestamp(seconds * 1000));
        // A step without a study or a time of its own gets the order's from whoever reads it.
        let of_step = |(n, procedure): (usize, Procedure)| Procedure {
            study: studies.get(n).or(studies.last()).cloned().unwrap_or_default(),
            scheduled,
            ..procedure
        };
        let procedures = procedures.into_iter().enumerate().map(of_step).collect();
        Content {
            placer: Some(numbers.0),
            filler: numbers.1,
            group: numbers.2,
            accession: Some(Identifier::bare(&numbers.3)),
            studies,
            procedures,
            patient,
            modality: modality.unwrap_or_default(),
            scheduled,
            urgency,
            clinical: Clinical { reason, history, allergies, department, contact },
            requester: "SATO^HANAKO".into(),
            referrer: "山田^次郎".into(),
            weight: String::new(),
            parts: Vec::new(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_order_that_is_written_and_read_again_is_the_same_order(content in content()) {
        let order = order_of(content);
        for order_type in [OrderType::Imaging, OrderType::General] {
            for charset in ["UNICODE UTF-8", "ISO IR13~ISO IR87"] {
                let again = read(&order, "NW", order_type, charset);
                prop_assert_eq!(&again, &order.content);
            }
        }
    }
}

#[test]
fn a_number_without_an_issuer_is_issued_by_the_node_that_took_the_order_first() {
    let mut content = Content { accession: Some(Identifier::bare("A1")), ..Content::default() };
    content.patient.ids = vec![Identifier::bare("4711"), Identifier::of("4712", "HIS")];
    let written = message(&order_of(content.clone()), "NW", &zone());
    let order = &written.orders[0];
    // Known by its accession number alone: its number here is what a receiver gets.
    assert_eq!(
        (order.placer.id.as_str(), order.placer.issuer.namespace.as_str()),
        ("P1", "hospital")
    );
    assert_eq!((order.facility.as_str(), order.accession.as_str()), ("hospital", "A1"));
    let issuers = written.patient.identifiers.iter().map(|id| id.authority.namespace.as_str());
    assert_eq!(issuers.collect::<Vec<_>>(), ["hospital", "HIS"]);
    content.placer = Some(Identifier::bare("7"));
    let written = message(&order_of(content), "NW", &zone());
    assert_eq!(written.orders[0].placer.issuer.namespace, "hospital");
}

#[test]
fn an_order_without_a_procedure_says_what_is_known_and_is_taken() {
    let mut content = Content { placer: Some(Identifier::of("1", "H")), ..Content::default() };
    content.patient.ids = vec![Identifier::of("4711", "H")];
    let again = |content: &Content| {
        let order = order_of(content.clone());
        read(&order, "NW", OrderType::Imaging, "UNICODE UTF-8").procedures[0].clone()
    };
    assert_eq!(again(&content).code.meaning, "imaging");
    content.modality = "CT".into();
    content.studies = vec!["1.2".into(), "1.3".into()];
    let procedure = again(&content);
    assert_eq!((procedure.code.meaning.as_str(), procedure.modality.as_str()), ("CT", "CT"));
}

#[test]
fn names_bear_how_they_are_written_and_dicom_s_three_in_one_become_three() {
    let mut content = Content::default();
    content.patient.names = vec!["Yamada^Tarou=山田^太郎=ﾔﾏﾀﾞ^ﾀﾛｳ".into(), "DOE^JANE^^DR^II".into()];
    let written = message(&order_of(content), "NW", &zone()).patient.names;
    let representations: Vec<_> = written.iter().map(|n| n.representation.as_str()).collect();
    assert_eq!(representations, ["A", "I", "P", "A"]);
    let last = &written[3];
    assert_eq!((last.prefix.as_str(), last.suffix.as_str()), ("DR", "II"));
}

#[test]
fn what_is_compared_leaves_out_the_control_code_and_the_time_but_not_the_state() {
    let mut order = order_of(Content::default());
    let of = |order: &Order, control: &str| said(&message(order, control, &zone()));
    let first = of(&order, "NW");
    order.changed_at = Timestamp(1_800_000_000_000);
    order.version = 9;
    assert_eq!(of(&order, "XO"), first);
    order.state = OrderState::Performed;
    let performed = of(&order, "SC");
    assert_ne!(performed.0, first.0);
    assert_eq!(performed.1, first.1, "the content is the same");
    order.state = OrderState::Cancelled;
    order.ended_because = "patient left".into();
    let cancel = message(&order, "CA", &zone());
    assert_eq!(
        (cancel.orders[0].status.as_str(), cancel.orders[0].control_reason.shown()),
        ("CA", "patient left")
    );
    order.content.clinical.reason = "fall".into();
    assert_ne!(said(&message(&order, "CA", &zone())).1, first.1);
}
