//! Examples: how completeness is judged.

use std::collections::BTreeSet;
use std::time::Duration;

use super::evidence::{
    Evidence, Grade, Reference, Rejection, Said, SeriesList, Statement, StepStatus,
};
use super::identifier::Agreement;
use super::instance::{Instance, Role};
use super::judge::{Case, Rules, judge};
use super::matching::{By, Doubts, Match};
use super::order::{Content, Order, OrderKey};
use super::tally::Tally;
use super::verdict::{Settled, Verdict, What};
use super::words::{Sentence, Word};
use crate::clock::Timestamp;

pub(super) fn lists(series: &str, sops: impl IntoIterator<Item = u8>) -> Vec<SeriesList> {
    let reference = |n: u8| Reference { sop: format!("1.{n}"), class: String::new() };
    let instances = sops.into_iter().map(reference).collect();
    vec![SeriesList { series: series.into(), instances }]
}

pub(super) fn image(n: u8, arrived: i64) -> Instance {
    Instance {
        sop: format!("1.{n}"),
        series: "9".into(),
        number: Some(i32::from(n)),
        acquisition: Some(1),
        arrived: Timestamp(arrived),
        ..Instance::default()
    }
}

#[derive(Debug, Clone)]
pub(super) enum Event {
    Image(Instance),
    Said(Statement),
}

pub(super) fn account(events: &[Event]) -> (Evidence, Tally) {
    let (mut evidence, mut tally) = (Evidence::default(), Tally::default());
    for event in events {
        match event {
            Event::Image(i) => tally.arrive(i),
            Event::Said(s) => {
                if let Some(joined) = evidence.hear(s.clone()) {
                    tally.hear(joined);
                }
            }
        }
    }
    (evidence, tally)
}

pub(super) fn verdict(tally: &Tally, now: i64) -> Verdict {
    let rules =
        Rules { settle: Duration::from_secs(1), quiet: Duration::from_secs(3), ..Rules::default() };
    let case = Case { order: None, matched: None, tally, settled: None };
    judge(&case, &rules, Timestamp(now))
}

#[test]
fn mpps_completed_with_twenty_and_nineteen_here_names_the_missing_one_within_five_minutes() {
    let (_, mut tally) = account(&[]);
    let said = Said::Performed {
        status: StepStatus::Completed,
        reason: String::new(),
        lists: lists("9", 0..20),
    };
    let mut evidence = Evidence::default();
    (0..19).for_each(|n| tally.arrive(&image(n, 60_000)));
    let step = Statement::new("mpps:1", "CT1", Timestamp(90_000), said);
    tally.hear(evidence.hear(step).unwrap());
    let case = Case { order: None, matched: None, tally: &tally, settled: None };
    let rules = Rules::default();
    let early = judge(&case, &rules, Timestamp(100_000));
    assert_eq!(early.progress().what, What::Arriving);
    assert_eq!(early.missing.len(), 1, "the list is there from the first moment");
    let at = early.again_at.unwrap();
    assert!(at < Timestamp(90_000) + Duration::from_secs(180));
    let v = judge(&case, &rules, at);
    let short = v.progress();
    assert_eq!((short.what, short.grade), (What::Short, Some(Grade::Mpps)));
    assert_eq!(short.by[0].id, "mpps:1");
    assert_eq!((v.missing[0].sop.as_str(), v.missing[0].series.as_str()), ("1.19", "9"));
    assert_eq!(v.count_of(), "19/20");
    tally.arrive(&image(19, 400_000));
    let case = Case { order: None, matched: None, tally: &tally, settled: None };
    assert_eq!(judge(&case, &rules, Timestamp(400_001)).progress().what, What::Complete);
}

fn said(id: &str, at: i64, said: Said) -> Event {
    Event::Said(Statement::new(id, "CT1", Timestamp(at), said))
}

fn step(id: &str, status: StepStatus, reason: &str, sops: std::ops::Range<u8>) -> Event {
    said(id, 1, Said::Performed { status, reason: reason.into(), lists: lists("9", sops) })
}

fn judged(events: &[Event]) -> Verdict {
    verdict(&account(events).1, 1_000_000)
}

#[test]
fn two_steps_of_one_study_one_discontinued_are_united() {
    let v = judged(&[
        step("1", StepStatus::Completed, "", 0..3),
        step("2", StepStatus::Discontinued, "110513", 3..5),
        Event::Image(image(0, 0)),
        Event::Image(image(3, 0)),
    ]);
    assert_eq!((v.expected, v.arrived, v.missing.len()), (Some(5), 2, 3));
    assert_eq!(v.hold, None);
}

#[test]
fn a_step_discontinued_for_a_wrong_worklist_entry_holds_the_study_until_a_person_links_it() {
    let v =
        judged(&[step("1", StepStatus::Discontinued, "110514", 0..1), Event::Image(image(0, 0))]);
    assert_eq!(v.headline().what, What::WrongWorklistEntry);
    assert_eq!(v.hold, Some(What::WrongWorklistEntry));
    assert_eq!(v.progress().what, What::Complete);
    let (_, tally) =
        account(&[step("1", StepStatus::Discontinued, "110514", 0..1), Event::Image(image(0, 0))]);
    let order = order(0);
    let doubts = Doubts { patient: Agreement::Same, accession: Agreement::Same };
    let matched = Match::Order { order: order.key.clone(), by: By::Person, doubts };
    let case = Case { order: Some(&order), matched: Some(&matched), tally: &tally, settled: None };
    let linked = judge(&case, &Rules::default(), Timestamp(1_000_000));
    assert_eq!((linked.headline().what, linked.hold), (What::Complete, None));
    let nothing = judged(&[step("1", StepStatus::Discontinued, "110513", 0..0)]);
    assert_eq!(nothing.progress().what, What::Discontinued);
}

#[test]
fn a_source_that_counts_more_than_it_names_leaves_a_gap_without_names() {
    let found = Said::Found { count: Some(4), lists: lists("9", 0..2) };
    let v = judged(&[said("q", 1, found), Event::Image(image(0, 0)), Event::Image(image(1, 0))]);
    assert_eq!((v.progress().what, v.unnamed, v.expected), (What::Short, 2, Some(4)));
    let missing_is_not_none = Said::Found { count: None, lists: lists("9", 0..2) };
    let v = judged(&[
        said("q", 1, missing_is_not_none),
        Event::Image(image(0, 0)),
        Event::Image(image(1, 0)),
    ]);
    assert_eq!((v.progress().what, v.progress().grade), (What::Complete, Some(Grade::SourceQuery)));
}

#[test]
fn a_snapshot_is_not_complete_before_it_is_quiet() {
    let found = Said::Found { count: None, lists: lists("9", 0..1) };
    let (_, tally) = account(&[said("q", 1, found), Event::Image(image(0, 1_000))]);
    assert_eq!(verdict(&tally, 2_000).progress().what, What::Arriving);
    assert_eq!(verdict(&tally, 4_000).progress().what, What::Complete);
}

#[test]
fn images_that_a_commitment_does_not_name_leave_it_presumed() {
    let one = Said::Commitment { lists: lists("", 0..1) };
    let events = [said("c", 1, one), Event::Image(image(0, 0)), Event::Image(image(1, 0))];
    let v = judged(&events);
    assert_eq!(v.progress().what, What::PresumedComplete);
    let report = Instance { role: Role::DoseReport, ..image(1, 0) };
    let v = judged(&[events[0].clone(), events[1].clone(), Event::Image(report)]);
    assert_eq!((v.progress().what, v.held), (What::Complete, 2), "a dose report is no image");
}

#[test]
fn header_gaps_make_a_quiet_study_short_and_stay_a_warning_beside_stronger_evidence() {
    let mut events: Vec<Event> =
        (1..=9).filter(|n| *n != 5).map(|n| Event::Image(image(n, 0))).collect();
    let (_, tally) = account(&events);
    assert_eq!(verdict(&tally, 2_999).progress().what, What::Arriving);
    let v = judged(&events);
    assert_eq!((v.progress().what, v.progress().grade), (What::Short, Some(Grade::Heuristic)));
    assert_eq!(v.gaps.len(), 1);
    let named = lists("9", [1, 2, 3, 4, 6, 7, 8, 9]);
    events.push(said("c", 1, Said::Commitment { lists: named }));
    let v = judged(&events);
    assert_eq!(v.headline().what, What::Complete);
    assert_eq!(v.finding(What::Warning).unwrap().grade, Some(Grade::Heuristic));
}

#[test]
fn withdrawn_and_sent_again_stays_withdrawn_until_a_person_reinstates_it() {
    let mut events = vec![
        step("1", StepStatus::Completed, "", 0..2),
        Event::Image(image(0, 0)),
        Event::Image(image(1, 0)),
        said("k", 500, Said::Rejected { why: Rejection::Safety, lists: lists("9", 1..2) }),
    ];
    let v = judged(&events);
    assert_eq!((v.progress().what, v.expected, v.withdrawn), (What::Complete, Some(1), 1));
    events.push(Event::Image(image(1, 800)));
    events.push(said("c", 900, Said::Commitment { lists: lists("", 0..2) }));
    let v = judged(&events);
    assert_eq!((v.expected, v.withdrawn, v.held), (Some(1), 1, 1));
    assert!(v.finding(What::CameAgain).is_some());
    let lists = lists("9", 1..2);
    let reason = "read after all".into();
    events.push(said("d", 950, Said::Decided { expect: true, reason, lists }));
    let v = judged(&events);
    assert_eq!((v.headline().what, v.expected, v.withdrawn), (What::Complete, Some(2), 0));
}

#[test]
fn after_retention_expired_what_is_stored_again_counts_again() {
    let mut events = vec![
        said("c", 1, Said::Commitment { lists: lists("", 0..1) }),
        Event::Image(image(0, 0)),
        said("k", 500, Said::Rejected { why: Rejection::Retention, lists: lists("9", 0..1) }),
    ];
    assert_eq!(judged(&events).expected, Some(0));
    events.push(Event::Image(image(0, 800)));
    let v = judged(&events);
    assert_eq!((v.expected, v.arrived, v.withdrawn), (Some(1), 1, 0));
}

#[test]
fn what_a_person_says_will_not_come_is_no_gap_and_counts_when_it_comes() {
    let mut events = vec![
        said("c", 1, Said::Commitment { lists: lists("", 0..2) }),
        Event::Image(image(0, 0)),
        said(
            "d",
            9,
            Said::Decided {
                expect: false,
                reason: "deleted at the console".into(),
                lists: lists("9", 1..2),
            },
        ),
    ];
    assert_eq!(judged(&events).progress().what, What::Complete);
    events.push(Event::Image(image(1, 50)));
    assert_eq!(judged(&events).arrived, 2);
}

fn order(scheduled: i64) -> Order {
    let key = OrderKey { origin: "h".parse().unwrap(), number: "P1".into() };
    let content = Content { scheduled: Some(Timestamp(scheduled)), ..Content::default() };
    Order { content, ..Order::empty(key) }
}

#[test]
fn an_order_without_images_is_due_then_overdue_and_a_cancellation_silences_it() {
    let tally = Tally::default();
    let mut order = order(1_000);
    let rules = Rules::default();
    let at = |order: &Order, now| {
        let case = Case { order: Some(order), matched: None, tally: &tally, settled: None };
        judge(&case, &rules, Timestamp(now))
    };
    let due = at(&order, 0);
    assert_eq!((due.headline().what, due.again_at), (What::Due, Some(Timestamp(3_601_000))));
    assert_eq!(at(&order, 3_601_000).headline().what, What::Overdue);
    order.state = super::order::OrderState::Cancelled;
    assert_eq!(at(&order, 9_999_999).headline().what, What::Cancelled);
    let mut came = Tally::default();
    came.arrive(&image(1, 0));
    let case = Case { order: Some(&order), matched: None, tally: &came, settled: None };
    let v = judge(&case, &rules, Timestamp(9_999_999));
    assert_eq!(v.headline().what, What::CancelledWithImages);
}

#[test]
fn stronger_evidence_reopens_what_was_presumed_complete() {
    let mut events = vec![Event::Image(image(1, 0))];
    let presumed = judged(&events);
    assert_eq!(presumed.progress().what, What::PresumedComplete);
    let settled = presumed.settled(Timestamp(5_000));
    assert_eq!(settled, Some(Settled { at: Timestamp(5_000), grade: Grade::Quiet }));
    events.push(said("c", 6_000, Said::Commitment { lists: lists("", 1..3) }));
    let tally = account(&events).1;
    let case = Case { order: None, matched: None, tally: &tally, settled };
    let v = judge(&case, &Rules::default(), Timestamp(1_000_000));
    assert_eq!(v.headline().what, What::Short);
    assert!(v.finding(What::Reopened).is_some());
}

#[test]
fn a_study_of_ten_thousand_instances_names_each_one_that_lacks() {
    let many = 10_000;
    let instance = |n: i32| Instance {
        sop: format!("1.3.46.670589.33.1.60024327917508.{n}"),
        series: format!("1.3.46.{}", n % 8),
        number: Some(n / 8),
        acquisition: Some(1),
        ..Instance::default()
    };
    let reference = |n| Reference { sop: instance(n).sop, class: String::new() };
    let instances = (0..many).map(reference).collect();
    let lists = vec![SeriesList { series: String::new(), instances }];
    let mut evidence = Evidence::default();
    evidence.hear(Statement::new("c", "CT1", Timestamp(0), Said::Commitment { lists }));
    let held: Vec<_> = (0..many).filter(|n| n % 10 != 3).map(instance).collect();
    let tally = Tally::of(&evidence, &held);
    // What a verdict costs as a study grows is measured by `benches/orders.rs`.
    let v = verdict(&tally, 1_000_000);
    assert_eq!((v.missing.len(), v.progress().what), (1_000, What::Short));
    let lacking = (0..many).filter(|n| n % 10 == 3).map(|n| instance(n).sop);
    assert!(v.missing.iter().map(|m| m.sop.clone()).eq(lacking.collect::<BTreeSet<_>>()));
}

#[test]
fn header_gaps_among_images_that_no_evidence_names_make_the_study_short() {
    let mut events = vec![step("1", StepStatus::Completed, "", 0..1), Event::Image(image(0, 0))];
    let other = |n: u8| Instance { series: "8".into(), ..image(n, 0) };
    events.extend((20..30).filter(|n| *n != 25).map(|n| Event::Image(other(n))));
    let v = judged(&events);
    assert_eq!((v.progress().what, v.progress().grade), (What::Short, Some(Grade::Heuristic)));
    assert_eq!(v.finding(What::Warning), None);
}

#[test]
fn a_patient_mismatch_is_held_until_a_person_links_study_and_order() {
    let mut tally = Tally::default();
    tally.arrive(&image(1, 0));
    let order = order(0);
    let hold = |by, rules: &Rules| {
        let doubts = Doubts { patient: Agreement::Different, accession: Agreement::Different };
        let matched = Match::Order { order: order.key.clone(), by, doubts };
        let case =
            Case { order: Some(&order), matched: Some(&matched), tally: &tally, settled: None };
        let v = judge(&case, rules, Timestamp(1));
        assert_eq!(v.headline().what, What::PatientMismatch);
        assert!(v.finding(What::AccessionMismatch).is_some());
        v.hold
    };
    assert_eq!(hold(By::Accession, &Rules::default()), Some(What::PatientMismatch));
    assert_eq!(hold(By::Person, &Rules::default()), None);
    let lenient = Rules { hold_patient_mismatch: false, ..Rules::default() };
    assert_eq!(hold(By::Accession, &lenient), None);
}

#[test]
fn images_without_an_order_are_told_and_held_only_where_the_route_says_so() {
    let mut tally = Tally::default();
    tally.arrive(&image(1, 0));
    let judged = |rules: &Rules| {
        let matched = Match::None;
        let case = Case { order: None, matched: Some(&matched), tally: &tally, settled: None };
        judge(&case, rules, Timestamp(1))
    };
    let v = judged(&Rules::default());
    assert_eq!((v.headline().what, v.hold), (What::NoOrder, None));
    let until_matched = Rules { hold_until_matched: true, ..Rules::default() };
    assert_eq!(judged(&until_matched).hold, Some(What::NoOrder));
    let without = Rules { orders_expected: false, ..Rules::default() };
    assert_eq!(judged(&without).headline().what, What::Arriving);
}

#[test]
fn a_study_that_a_person_has_linked_to_no_order_lacks_none() {
    let mut tally = Tally::default();
    tally.arrive(&image(1, 0));
    let matched = Match::Unlinked;
    let case = Case { order: None, matched: Some(&matched), tally: &tally, settled: None };
    assert_eq!(judge(&case, &Rules::default(), Timestamp(1)).headline().what, What::Arriving);
}

#[test]
fn images_of_two_patients_are_the_gravest_but_one_finding_and_held_by_the_same_choice() {
    let mut tally = Tally::default();
    tally.arrive(&image(1, 0));
    tally.name_patients(2);
    let case = Case { order: None, matched: None, tally: &tally, settled: None };
    let v = judge(&case, &Rules::default(), Timestamp(1));
    assert_eq!((v.headline().what, v.hold), (What::PatientMixed, Some(What::PatientMixed)));
    assert!(What::PatientMismatch < What::PatientMixed && What::PatientMixed.needs_attention());
    assert_eq!(What::named("patient-mixed"), Some(What::PatientMixed));
    let lenient = Rules { hold_patient_mismatch: false, ..Rules::default() };
    assert_eq!(judge(&case, &lenient, Timestamp(1)).hold, None);
}

#[test]
fn what_a_person_says_will_not_come_is_decided_until_it_comes_or_more_is_named() {
    let decided = |id: &str, at, expect, sops| {
        said(id, at, Said::Decided { expect, reason: String::new(), lists: lists("", sops) })
    };
    let mut events = vec![step("1", StepStatus::Completed, "", 0..3), Event::Image(image(0, 0))];
    events.push(decided("d1", 5, false, 1..3));
    let v = judged(&events);
    assert_eq!((v.progress().what, v.progress().grade), (What::Complete, Some(Grade::Decision)));
    assert_eq!(v.progress().reason, Sentence::new(Word::CompleteDecided, &[&1, &2]));
    assert_eq!(v.progress().by[0].id, "d1");
    events.push(step("2", StepStatus::Completed, "", 0..4));
    let v = judged(&events);
    assert_eq!((v.progress().what, v.missing.len()), (What::Short, 1), "only what is new");
    events.push(Event::Image(image(2, 9)));
    events.push(Event::Image(image(3, 9)));
    let v = judged(&events);
    assert_eq!(v.progress().reason, Sentence::new(Word::CompleteDecided, &[&3, &1]));
    events.push(decided("d2", 6, true, 1..2));
    assert_eq!(judged(&events).missing[0].sop, "1.1", "expected again");
}

#[test]
fn a_verdict_reads_well_as_json() {
    let v = judged(&[step("1", StepStatus::Completed, "", 0..2), Event::Image(image(0, 0))]);
    let json = serde_json::to_value(&v).unwrap();
    assert_eq!(json["findings"][0]["what"], "short");
    assert_eq!(json["findings"][0]["grade"], "mpps");
    assert_eq!(json["findings"][0]["reason"]["word"], "short-of");
    assert_eq!(json["missing"][0]["sop"], "1.1");
}
