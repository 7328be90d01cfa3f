//! Entries within their limits, and what belongs together.

use super::*;
use crate::orders::identifier::Identifier;
use crate::reports::critical::Reason;
use crate::reports::report::tests::report;
use crate::reports::report::{FormKind, LIST_MAX, Reader};
use crate::reports::versions::Arrival;

const LONG: usize = crate::cargo::TEXT_LENGTH_MAX;

fn empty() -> ReportRecord {
    ReportRecord {
        id: "0".repeat(32),
        hospital: "h".parse().unwrap(),
        from: "reading".parse().unwrap(),
        targets: vec![],
        by: By::Study,
        line: String::new(),
        chain: Chain::default(),
        alarm: None,
        sendings: vec![],
        events: vec![],
        is_open: true,
        handed: vec![],
        is_acknowledged: false,
    }
}

fn hostile(n: usize) -> Report {
    let mut report = report(Status::Final, Form::new(FormKind::Text, n.to_string().into()));
    let long = |m: usize| format!("{n}.{m}.{}", "9".repeat(LONG - 12));
    let ids = &mut report.ids;
    for list in [&mut ids.studies, &mut ids.instances, &mut ids.predecessors] {
        *list = (0..LIST_MAX).map(long).collect();
    }
    ids.accessions = (0..LIST_MAX).map(|n| Identifier::of(&long(n), "E")).collect();
    ids.document = long(0);
    report.critical = (0..LIST_MAX).map(|n| Reason::Said(long(n).repeat(20))).collect();
    report
}

#[test]
fn no_document_of_a_peer_is_remembered_at_greater_length_than_a_turn_can_write() {
    let whole = remembered(&report(Status::Final, Form::new(FormKind::Text, "a".into())));
    assert!(whole.is_some_and(|said| said.forms[0].bytes.is_empty()));
    let mut many = hostile(0);
    many.critical.clear();
    let said = remembered(&many).expect("its first numbers are enough to find its study");
    assert_eq!(said.ids.studies.len(), NUMBERS_MAX);
    assert!(minicbor::to_vec(&said).unwrap().len() <= SAID_BYTES_MAX);
    let signer = Reader { name: "S".repeat(LONG), ..Reader::default() };
    many.verifiers = vec![signer; LIST_MAX];
    assert_eq!(remembered(&many), None, "no signer is passed over");
}

#[test]
fn a_report_with_all_that_peers_may_send_of_it_is_one_entry_of_a_turn() {
    let origin: NodeName = "h".parse().unwrap();
    let target = |n: usize| Target {
        origin: origin.clone(),
        study: format!("{n}{}", "1".repeat(LONG - 4)),
        order: None,
    };
    let mut record = empty();
    record.is_about(&(0..999).map(target).collect::<Vec<_>>());
    let mut alarm = Alarm::new("", vec![], Timestamp(0));
    for n in 0..400 {
        let said = hostile(n);
        record.chain.apply(Arrival::of(&said, &"c".repeat(64), Timestamp(n as i64)));
        alarm.flag("", said.critical, Timestamp(n as i64));
        record.happened(Timestamp(0), "handed", "語".repeat(9_999), &"x".repeat(9_999));
    }
    record.alarm = Some(alarm);
    let entry = record.entry();
    assert!(entry.body.len() < 512 << 10, "{}", entry.body.len());
    assert!(entry.terms.iter().any(|term| term[..] == *OPEN));
}

#[test]
fn two_studies_of_one_order_have_a_report_each_and_what_names_the_order_alone_is_of_any() {
    let origin: NodeName = "h".parse().unwrap();
    let target = |study: &str, number: &str| Target {
        origin: origin.clone(),
        study: study.into(),
        order: (!number.is_empty()).then(|| crate::orders::order::OrderKey {
            origin: origin.clone(),
            number: number.into(),
        }),
    };
    let mut record = empty();
    record.is_about(&[target("1.1", "O")]);
    assert!(record.shares(&[target("1.1", "")]));
    assert!(record.shares(&[target("", "O")]));
    assert!(!record.shares(&[target("1.2", "O")]));
    assert!(!record.shares(&[target("", "P")]));
}

#[test]
fn a_preliminary_report_that_all_have_is_not_the_end() {
    let mut record = empty();
    let said = |status| report(status, Form::new(FormKind::Text, "a".into()));
    record.is_acknowledged = true;
    assert!(!record.is_over());
    record.chain.apply(Arrival::of(&said(Status::Preliminary), "c", Timestamp(1)));
    assert!(!record.is_over());
    record.chain.apply(Arrival::of(&said(Status::Final), "d", Timestamp(2)));
    assert!(record.is_over());
}
