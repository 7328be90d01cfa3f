//! What two nodes make of a report that one of them collects.

use std::collections::BTreeSet;

use super::*;
use crate::reports::critical::State;
use crate::reports::report::FormKind;

/// Both nodes, with their order and study.
async fn pair(east: &Path, west: &Path) -> (Site, Site) {
    let hospital = Site::open(east, HOSPITAL, &[CENTRE]);
    let centre = Site::open(west, CENTRE, &[HOSPITAL]);
    begin(&hospital, &centre).await;
    (hospital, centre)
}

/// Carries everything both ways, and lets the HIS say yes, until something is so.
async fn until(
    hospital: &Site,
    centre: &Site,
    told: &mut Vec<(String, u8, usize)>,
    mut so: impl AsyncFnMut() -> bool,
) {
    let give_up = tokio::time::Instant::now() + CALM;
    while !so().await {
        assert!(tokio::time::Instant::now() < give_up, "never so");
        centre.carry(hospital, 100, None).await;
        hospital.carry(centre, 100, None).await;
        hospital.hand(told, None).await;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

const AT: &str = "20261128090000+0000";

fn said<'a>(id: &'a str, filler: &'a str, said: &'a str) -> Said<'a> {
    Said { id, status: "F", filler, at: AT, signer: "D1&DOKUEI&ICHIRO", said }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_readers_of_one_study_are_two_reports_that_both_go_home_and_are_there_after_a_restart()
{
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hospital, centre) = pair(east.path(), west.path()).await;
    let words = ["OBX|1|TX|F^F||the first reader", "OBX|1|TX|F^F||the second reader"];
    for (n, words) in words.into_iter().enumerate() {
        let (id, filler) = (format!("M{n}"), format!("READER{n}"));
        let report = said(&id, &filler, words).report();
        collect::take(&centre.custody, &report).await.unwrap();
    }
    let mut told = Vec::new();
    until(&hospital, &centre, &mut told, async || {
        let all = hospital.desk.story(STUDY.into()).await.unwrap_or_default();
        let yes = |s: &Story| s.row.destinations.iter().any(|(_, word)| word == "accepted");
        all.len() == 2 && all.iter().all(yes)
    })
    .await;
    assert_eq!(told.len(), 2, "neither replaces the other");
    hospital.close().await;
    let hospital = Site::open(east.path(), HOSPITAL, &[CENTRE]);
    let mut texts = BTreeSet::new();
    for story in hospital.desk.story(STUDY.into()).await.unwrap() {
        assert_eq!((story.versions.len(), story.versions[0].standing), (1, Standing::Latest));
        let document = story.versions[0].documents[0].0.clone();
        let form = hospital.desk.form(document, FormKind::Text).await.unwrap();
        texts.insert(String::from_utf8(form.bytes).unwrap());
    }
    let wanted = ["the first reader", "the second reader"].map(str::to_owned);
    assert_eq!(texts, wanted.into());
    hospital.close().await;
    centre.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_signed_goes_nowhere_until_a_person_answers_for_it() {
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hospital, centre) = pair(east.path(), west.path()).await;
    let report = Said { signer: "", ..said("M1", "", "OBX|1|TX|F^F||unsigned") }.report();
    collect::take(&centre.custody, &report).await.unwrap();
    let mut told = Vec::new();
    let held = async || centre.desk.held(10).await.unwrap();
    until(&hospital, &centre, &mut told, async || held().await.len() == 1).await;
    let row = held().await.remove(0);
    assert!(matches!(row.why, Why::Signer(_)), "{row:?}");
    assert!(centre.custody.lease(want(HOSPITAL, 10)).await.is_empty(), "nothing leaves");
    assert!(hospital.story().await.is_none() && told.is_empty());
    centre.desk.release(row.document, "Dr. Duty".into()).await.unwrap();
    until(&hospital, &centre, &mut told, async || {
        let story = centre.story().await;
        story.is_some_and(|s| s.row.destinations.iter().any(|(_, word)| word == "accepted"))
    })
    .await;
    assert_eq!(told.len(), 1);
    let events = centre.story().await.unwrap().events;
    assert!(events.iter().any(|e| e.kind == "person" && e.by == "Dr. Duty"), "{events:?}");
    hospital.close().await;
    centre.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_critical_report_leaves_before_all_that_waits() {
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hospital, centre) = pair(east.path(), west.path()).await;
    for n in 0..5 {
        let (id, filler) = (format!("M{n}"), format!("READER{n}"));
        let report = said(&id, &filler, "OBX|1|TX|F^F||nothing new").report();
        collect::take(&centre.custody, &report).await.unwrap();
    }
    let last = said("M9", "READER9", "OBX|1|TX|F^F||bleeding|||AA").report();
    let kept = collect::take(&centre.custody, &last).await.unwrap().kept;
    // The hospital cannot be reached; everything waits.
    for _ in 0..400 {
        let duty = centre.custody.duty(
            CENTRE.parse().unwrap(),
            format!("{}{}", collect::KEY, Sha256::of(&last.encode())),
            HOSPITAL.parse().unwrap(),
        );
        if duty.await.unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let mut first = centre.custody.lease(want(HOSPITAL, 2)).await;
    assert!(first.iter().all(|duty| duty.urgency == Urgency::Stat), "{first:?}");
    first.retain(|duty| duty.envelope.kind == CargoKind::Report);
    let cargo: Vec<CargoId> = first.iter().map(|duty| duty.cargo).collect();
    assert_eq!(cargo, [kept.cargo()], "the report itself; beside it there is its slip");
    drop(first);
    hospital.close().await;
    centre.close().await;
}

/// What would go to the reading node goes to another one, too.
async fn copy(hospital: &Site, other: &Site) {
    let wanted = || registrar::Wanted { placers: vec!["P1".into()], ..Default::default() };
    for _ in 0..400 {
        for duty in hospital.custody.lease(want(CENTRE, 100)).await {
            let body = duty.body.read().await.unwrap();
            other.take(duty.envelope.clone(), &body, Vec::new()).await;
        }
        let found = other.orders.candidates(wanted()).await.unwrap_or_default();
        if found.len() == 1 && found[0].study == STUDY && found[0].order.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("order and study never come to the other node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_a_study_was_not_sent_to_is_not_believed_about_it() {
    const STRANGER: &str = "stranger";
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hospital = Site::open(east.path(), HOSPITAL, &[CENTRE, STRANGER]);
    let stranger = Site::open(west.path(), STRANGER, &[HOSPITAL]);
    hospital.order().await;
    copy(&hospital, &stranger).await;
    let report = said("M1", "", "OBX|1|TX|F^F||nothing new").report();
    collect::take(&stranger.custody, &report).await.unwrap();
    let mut told = Vec::new();
    let mut row = None;
    until(&hospital, &stranger, &mut told, async || {
        row = hospital.desk.held(10).await.unwrap().pop();
        row.as_ref().is_some_and(|row| matches!(row.why, Why::NotSent(_)))
    })
    .await;
    let words = stranger.desk.say(STUDY.into(), "".into(), "Which side?".into(), "Dr. X".into());
    words.await.unwrap();
    let report = stranger.story().await.unwrap().row.report;
    stranger.desk.flag(report, "bleeding".into(), "Dr. X".into()).await.unwrap();
    let left = async || !stranger.custody.lease(want(HOSPITAL, 100)).await.is_empty();
    until(&hospital, &stranger, &mut told, async || !left().await).await;
    // What came before this one was looked at when this one is held.
    let report = said("M2", "READER2", "OBX|1|TX|F^F||nothing new").report();
    collect::take(&stranger.custody, &report).await.unwrap();
    let held = async || hospital.desk.held(10).await.unwrap().len();
    until(&hospital, &stranger, &mut told, async || held().await == 2).await;
    assert!(hospital.story().await.is_none() && told.is_empty());
    assert!(hospital.desk.criticals(true, 10).await.unwrap().is_empty());
    assert!(hospital.desk.words(STUDY.into(), 10).await.unwrap().is_empty());
    let loops = hospital.desk.loops(false, 10).await.unwrap();
    assert!(loops.iter().all(|row| row.moments.len() == 1), "sent, and no more: {loops:?}");

    let document = row.expect("it is held").document;
    hospital.desk.release(document, "Dr. Duty".into()).await.unwrap();
    until(&hospital, &stranger, &mut told, async || {
        let story = hospital.story().await;
        story.is_some_and(|s| s.row.destinations.iter().any(|(_, word)| word == "accepted"))
    })
    .await;
    assert_eq!(told.len(), 1, "a person has let it go");
    let report = stranger.story().await.unwrap().row.report;
    stranger.desk.flag(report, "bleeding after all".into(), "Dr. X".into()).await.unwrap();
    let criticals = async || hospital.desk.criticals(true, 10).await.unwrap().len();
    until(&hospital, &stranger, &mut told, async || criticals().await == 1).await;
    hospital.close().await;
    stranger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_reads_of_its_own_is_home_at_once() {
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hospital, centre) = pair(east.path(), west.path()).await;
    let report = said("M1", "", "OBX|1|TX|F^F||nothing new").report();
    collect::take(&hospital.custody, &report).await.unwrap();
    let mut told = Vec::new();
    until(&hospital, &centre, &mut told, async || {
        let story = hospital.story().await;
        story.is_some_and(|s| s.row.destinations.iter().any(|(_, word)| word == "accepted"))
    })
    .await;
    assert_eq!(told.len(), 1);
    assert!(centre.story().await.is_none(), "it is nobody else's");
    hospital.close().await;
    centre.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_one_side_calls_critical_is_critical_on_the_other() {
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hospital, centre) = pair(east.path(), west.path()).await;
    for n in 0..2 {
        let (id, filler) = (format!("M{n}"), format!("READER{n}"));
        let report = said(&id, &filler, "OBX|1|TX|F^F||nothing new").report();
        collect::take(&centre.custody, &report).await.unwrap();
    }
    let mut told = Vec::new();
    let rows = async || hospital.desk.rows(Page { limit: 10, ..Page::default() }).await.unwrap();
    until(&hospital, &centre, &mut told, async || rows().await.len() == 2).await;
    let of = rows().await;
    for (site, row) in [&hospital, &centre].into_iter().zip(&of) {
        let (report, why) = (row.report.clone(), "bleeding".into());
        site.desk.flag(report, why, "Dr. X".into()).await.unwrap();
    }
    for site in [&hospital, &centre] {
        until(&hospital, &centre, &mut told, async || {
            let all = site.desk.criticals(true, 10).await.unwrap();
            all.len() == 2 && all.iter().all(|row| row.state == State::Open)
        })
        .await;
    }
    hospital.close().await;
    centre.close().await;
}
