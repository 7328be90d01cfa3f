//! What holds of evidence, tally, verdict, matching and merges, whatever comes in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::evidence::{Rejection, Said, Statement, StepStatus};
use super::history::Stamp;
use super::identifier::{Identifier, Patient};
use super::instance::Instance;
use super::matching::{Link, StudyFacts, assign};
use super::merges::Merges;
use super::order::{Content, Order, OrderKey};
use super::tally::Tally;
use super::tests::{Event, account, image, lists, verdict};
use super::verdict::{Verdict, What};
use crate::cargo::{NodeName, StudyKey};
use crate::clock::Timestamp;

/// A statement's content follows from its id and time, as with real sources, but for what is told
/// in parts.
fn statement() -> impl Strategy<Value = Statement> {
    let some = || subsequence((0..12u8).collect::<Vec<_>>(), 0..8);
    let status = prop_oneof![
        Just(StepStatus::InProgress),
        Just(StepStatus::Completed),
        Just(StepStatus::Discontinued)
    ];
    let said = prop_oneof![
        some().prop_map(|s| Said::Commitment { lists: lists("", s) }),
        (some(), status).prop_map(|(s, status)| {
            Said::Performed { status, reason: String::new(), lists: lists("9", s) }
        }),
        (some(), some()).prop_map(|(s, u)| Said::Available {
            lists: lists("9", s),
            unavailable: lists("9", u),
        }),
        some().prop_map(|s| Said::KeyObject { lists: lists("9", s) }),
        (some(), proptest::option::of(0..15u32))
            .prop_map(|(s, count)| Said::Found { count, lists: lists("9", s) }),
    ];
    (0..4u8, 0..5_000i64, said)
        .prop_map(|(id, at, said)| Statement::new(&id.to_string(), "CT1", Timestamp(at), said))
}

fn taking_away() -> impl Strategy<Value = Statement> {
    let some = || subsequence((0..12u8).collect::<Vec<_>>(), 0..5);
    let why = prop_oneof![
        Just(Rejection::Quality),
        Just(Rejection::Safety),
        Just(Rejection::Worklist),
        Just(Rejection::Retention)
    ];
    let said = prop_oneof![
        (some(), why).prop_map(|(s, why)| Said::Rejected { why, lists: lists("9", s) }),
        (some(), any::<bool>()).prop_map(|(s, expect)| {
            Said::Decided { expect, reason: String::new(), lists: lists("9", s) }
        }),
    ];
    (0..4u8, 0..5_000i64, said)
        .prop_map(|(id, at, said)| Statement::new(&id.to_string(), "PACS", Timestamp(at), said))
}

fn images() -> impl Strategy<Value = Vec<Event>> {
    let one = (0..12u8, 0..5_000i64).prop_map(|(n, at)| Event::Image(image(n, at)));
    proptest::collection::vec(one, 0..15)
}

fn gap(v: &Verdict) -> (BTreeSet<String>, u32) {
    let missing: BTreeSet<_> = v.missing.iter().map(|m| m.sop.clone()).collect();
    let lack = u32::try_from(missing.len()).unwrap() + v.unnamed;
    (missing, lack)
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_order_in_which_evidence_and_images_arrive(
        (events, shuffled, now) in (
            images(),
            proptest::collection::vec(prop_oneof![3 => statement(), 1 => taking_away()], 0..8),
            0..12_000i64,
        ).prop_flat_map(|(mut events, said, now)| {
            events.extend(said.into_iter().map(Event::Said));
            (Just(events.clone()), Just(events).prop_shuffle(), Just(now))
        }),
    ) {
        let (evidence, tally) = account(&events);
        let straight = verdict(&tally, now);
        let (other_evidence, mut other) = account(&shuffled);
        prop_assert_eq!(&evidence, &other_evidence);
        prop_assert_eq!(&straight, &verdict(&other, now));
        // Hearing and receiving everything once more changes nothing.
        for event in &events {
            match event {
                Event::Image(i) => other.arrive(i),
                Event::Said(s) => {
                    prop_assert!(evidence.clone().hear(s.clone()).is_none());
                }
            }
        }
        evidence.statements().for_each(|s| other.hear(s));
        prop_assert_eq!(&straight, &verdict(&other, now));
        // And a tally that is built anew from what is stored says the same.
        let held: BTreeMap<String, Vec<&Instance>> = events.iter().fold(
            BTreeMap::new(),
            |mut held, event| {
                if let Event::Image(i) = event {
                    held.entry(i.sop.clone()).or_insert_with(Vec::new).push(i);
                }
                held
            },
        );
        let rebuilt = Tally::of(&evidence, held.into_values().flatten());
        prop_assert_eq!(&straight, &verdict(&rebuilt, now));
    }

    #[test]
    fn later_and_stronger_evidence_never_loses_a_gap(
        mut events in images(),
        before in proptest::collection::vec(statement(), 0..6),
        takes in proptest::collection::vec(taking_away(), 0..3),
        more in statement(),
        now in 0..12_000i64,
    ) {
        events.extend(before.into_iter().chain(takes).map(Event::Said));
        let old = verdict(&account(&events).1, now);
        events.push(Event::Said(more));
        let new = verdict(&account(&events).1, now);
        let ((old_missing, old_lack), (new_missing, new_lack)) = (gap(&old), gap(&new));
        prop_assert!(old_missing.is_subset(&new_missing));
        prop_assert!(old_lack <= new_lack);
        prop_assert_eq!(&old.gaps, &new.gaps);
        if new_lack > 0 {
            prop_assert!(matches!(new.progress().what, What::Short | What::Arriving));
        }
        if !new.gaps.is_empty() && new.finding(What::Short).is_none() {
            let told = new.finding(What::Warning).or(new.finding(What::Arriving));
            prop_assert!(told.is_some(), "the gap of the headers is still told");
        }
    }

    #[test]
    fn an_image_changes_the_gap_only_by_filling_it(
        mut events in images(),
        said in proptest::collection::vec(statement(), 0..6),
        n in 0..12u8,
    ) {
        events.extend(said.into_iter().map(Event::Said));
        let (_, mut tally) = account(&events);
        let (before, _) = gap(&verdict(&tally, 9_000));
        tally.arrive(&image(n, 8_000));
        let (after, _) = gap(&verdict(&tally, 9_000));
        let sop = format!("1.{n}");
        prop_assert_eq!(after, before.into_iter().filter(|s| *s != sop).collect());
    }

    #[test]
    fn again_at_is_the_next_time_at_which_the_verdict_changes_by_itself(
        mut events in images(),
        said in proptest::collection::vec(statement(), 0..5),
        now in 0..12_000i64,
        later in 1..6_000i64,
    ) {
        events.extend(said.into_iter().map(Event::Said));
        let (_, tally) = account(&events);
        let here = verdict(&tally, now);
        let until = here.again_at.map_or(i64::MAX, |at| at.0);
        prop_assert!(until > now);
        if now + later < until {
            prop_assert_eq!(here, verdict(&tally, now + later));
        }
    }

    #[test]
    fn merging_and_relinking_keep_every_image(
        patients in proptest::collection::vec(0..4u8, 1..6),
        accessions in proptest::collection::vec(0..4u8, 1..6),
        orders in proptest::collection::vec((0..4u8, 0..4u8), 0..5),
        merged in proptest::collection::vec((0..4u8, 0..4u8), 0..4),
        relinked in proptest::collection::vec((0..6usize, proptest::option::of(0..5usize)), 0..4),
    ) {
        let origin: NodeName = "h".parse().unwrap();
        let id = |n: u8| Identifier::of(&n.to_string(), "H");
        let patient = |n: u8| Patient { ids: vec![id(n)], ..Patient::default() };
        let mut studies: Vec<StudyFacts> = patients.iter().zip(&accessions).enumerate().map(
            |(n, (p, a))| StudyFacts {
                origin: origin.clone(),
                study: format!("1.2.{n}"),
                accession: Some(Identifier::bare(&a.to_string())),
                filler: None,
                placer: None,
                procedures: vec![],
                patient: patient(*p),
            },
        ).collect();
        let orders: Vec<Order> = orders.iter().enumerate().map(|(n, (p, a))| {
            let key = OrderKey { origin: origin.clone(), number: n.to_string() };
            let accession = Some(Identifier::bare(&a.to_string()));
            let content = Content { accession, patient: patient(*p), ..Content::default() };
            Order { content, ..Order::empty(key) }
        }).collect();
        let all: BTreeSet<StudyKey> =
            studies.iter().map(|s| StudyKey::of(&s.origin, &s.study)).collect();
        let mut merges = Merges::default();
        let mut links = BTreeMap::new();
        for (n, (to, from)) in merged.iter().enumerate() {
            let sent = Timestamp(n as i64);
            let stamp = Stamp { sent, ..Default::default() };
            merges.apply(&stamp, &id(*to), &id(*from));
            studies.iter_mut().for_each(|s| s.patient = merges.settle(&s.patient));
        }
        for (n, (study, order)) in relinked.iter().enumerate() {
            let Some(s) = studies.get(*study) else { continue };
            let order = order.and_then(|o| orders.get(o)).map(|o| o.key.clone());
            let link = Link { at: Timestamp(n as i64), order, by: "sato".into() };
            links.insert(StudyKey::of(&origin, &s.study), link);
        }
        let assignment = assign(&studies, &orders, &links);
        let placed: Vec<StudyKey> = assignment.orders.values().flatten().copied().collect();
        let alone = assignment.studies.iter().filter(|(_, m)| m.order().is_none());
        let together: BTreeSet<StudyKey> =
            placed.iter().copied().chain(alone.clone().map(|(key, _)| *key)).collect();
        prop_assert_eq!(&together, &all, "every study is somewhere");
        prop_assert_eq!(placed.len() + alone.count(), all.len(), "and only once");
    }
}
