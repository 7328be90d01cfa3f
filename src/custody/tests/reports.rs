//! Reports and what nodes say about them: whose they are, who reads them, how long they stay.

use std::path::Path;
use std::time::Duration;

use super::{name, ready, receipt_all, to};
use crate::cargo::{Assignment, CargoKind, Envelope, Identity, NodeName, Sha256};
use crate::clock::Timestamp;
use crate::custody::state::StateName;
use crate::custody::{CargoId, Config, Custody, Draft, Filter, Follower, Kept};
use crate::metrics::Metrics;

const HOURS: Duration = Duration::from_secs(9999);

/// General retention: none. What nobody has looked at stays.
fn open(dir: &Path, followed: &[Follower], keep_reports: Duration) -> Custody {
    let config = Config {
        followed: followed.iter().copied().collect(),
        keep_reports,
        retention: Duration::ZERO,
        told: [name("reading")].into(),
        ..super::config(dir)
    };
    Custody::open(config, Metrics::new()).unwrap()
}

async fn give(
    custody: &Custody,
    kind: CargoKind,
    origin: &str,
    key: &str,
    to: Vec<Assignment>,
) -> Kept {
    let body = format!("the body of {key}").into_bytes();
    let identity = identity(origin, key);
    let envelope = Envelope::of_ours(kind, identity, body.len() as u64, Timestamp(0));
    let mut assembly = custody.assemble();
    assembly.push(&body).await.unwrap();
    custody.take(Draft { envelope, body: assembly.finish(), assignments: to }).await.unwrap()
}

fn identity(origin: &str, key: &str) -> Identity {
    let sha256 = Sha256::of(format!("the body of {key}").as_bytes());
    Identity { origin: name::<NodeName>(origin), key: key.into(), sha256 }
}

async fn is_here(custody: &Custody, kept: &Kept) -> bool {
    custody.read(kept.cargo()).await.is_some()
}

async fn goes(custody: &Custody, kept: &Kept) {
    for _ in 0..200 {
        if !is_here(custody, kept).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{kept:?} stays");
}

/// Several looks of the custodian.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(2500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_another_kind_than_custodys_own_is_for_whoever_follows_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path(), &[Follower::Reports], HOURS);
    ready(&custody).await;
    let sent = give(&custody, CargoKind::Report, "st-elsewhere", "report-1", to("reading")).await;
    // The same bytes under both keys: news of custody are acted on, what is said is not.
    let news = crate::custody::Note {
        news: vec![crate::custody::News {
            identity: identity("st-elsewhere", "report-1"),
            destination: name("ris"),
            state: crate::custody::state::DutyState::owed(),
        }],
    };
    let body = minicbor::to_vec(&news).unwrap();
    let told = async |key: &str| {
        let sha256 = Sha256::of(&body);
        let identity = Identity { origin: name("reading"), key: key.into(), sha256 };
        let length = body.len() as u64;
        let envelope = Envelope::of_ours(CargoKind::Note, identity, length, Timestamp(0));
        let mut assembly = custody.assemble();
        assembly.push(&body).await.unwrap();
        let draft = Draft { envelope, body: assembly.finish(), assignments: Vec::new() };
        let note = custody.take(draft).await.unwrap();
        let filter = Filter { cargo: Some(sent.cargo().0), ..Filter::default() };
        let listed = custody.list(filter).await.unwrap();
        (note, listed[0].duties[0].beyond.len())
    };
    let (said, beyond) = told("said-1").await;
    assert_eq!(beyond, 0);
    assert_eq!(told("note-1").await.1, 1);
    let arrivals = custody.arrivals(CargoId(0), 9).await.unwrap();
    assert!(
        arrivals.iter().any(|a| a.cargo == said.cargo() && a.envelope.identity.key == "said-1")
    );
    assert_eq!(custody.summary_now().await.unwrap().unrouted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_back_that_one_of_two_followers_has_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path(), &[Follower::Orders, Follower::Reports], Duration::ZERO);
    ready(&custody).await;
    let order = give(&custody, CargoKind::Order, "reading", "order-1", vec![]).await;
    let report = give(&custody, CargoKind::Report, "reading", "report-1", vec![]).await;
    custody.looked_at(Follower::Orders, CargoId(u64::MAX));
    a_while().await;
    assert!(is_here(&custody, &order).await && is_here(&custody, &report).await);
    custody.looked_at(Follower::Reports, order.cargo());
    goes(&custody, &order).await;
    assert!(is_here(&custody, &report).await);
    custody.looked_at(Follower::Reports, report.cargo());
    goes(&custody, &report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_or_word_from_another_node_stays_where_nobody_keeps_reports_until_somebody_does() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path(), &[], Duration::ZERO);
    ready(&custody).await;
    let report = give(&custody, CargoKind::Report, "reading", "report-1", vec![]).await;
    let said = give(&custody, CargoKind::Note, "reading", "said-1", vec![]).await;
    let news = give(&custody, CargoKind::Note, "reading", "note-1", vec![]).await;
    goes(&custody, &news).await;
    a_while().await;
    assert!(is_here(&custody, &report).await && is_here(&custody, &said).await);
    assert_eq!(custody.summary_now().await.unwrap().unrouted, 0, "it has come home");
    custody.close().await;
    std::fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    let custody = open(dir.path(), &[Follower::Reports], Duration::ZERO);
    ready(&custody).await;
    custody.looked_at(Follower::Reports, CargoId(u64::MAX));
    goes(&custody, &report).await;
    goes(&custody, &said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collected_report_waits_unrouted_and_leaves_by_a_duty_that_it_is_given_later() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path(), &[Follower::Reports], Duration::ZERO);
    ready(&custody).await;
    let report = give(&custody, CargoKind::Report, "st-elsewhere", "report-1", vec![]).await;
    let other = give(&custody, CargoKind::Report, "st-elsewhere", "report-2", vec![]).await;
    custody.looked_at(Follower::Reports, CargoId(u64::MAX));
    a_while().await;
    assert!(is_here(&custody, &report).await);
    assert_eq!(custody.summary_now().await.unwrap().unrouted, 2);
    let found = custody.find(&identity("st-elsewhere", "report-1")).await.unwrap();
    assert_eq!(found.cargo(), report.cargo());
    let duty = async |key: &str| {
        let asked = custody.duty(name("st-elsewhere"), key.into(), name("reading"));
        asked.await.unwrap().map(|(id, duty)| (id, duty.state))
    };
    assert_eq!(duty("report-1").await, None);
    assert!(custody.assign(report.cargo(), to("reading")).await);
    assert!(custody.assign(other.cargo(), to("reading")).await);
    assert_eq!(duty("report-1").await, Some((report.cargo(), StateName::Owed)));
    assert_eq!(custody.summary_now().await.unwrap().unrouted, 0);
    let given_up = custody.give_up(other.cargo(), name("reading"), "us", "a newer one".into());
    assert_eq!(given_up.await, Some(true));
    assert_eq!(duty("report-2").await, Some((other.cargo(), StateName::Dismissed)));
    assert_eq!(receipt_all(&custody, "reading").await, 1);
    goes(&custody, &report).await;
    goes(&custody, &other).await;
    // The tombstone still says how it ended.
    assert_eq!(duty("report-1").await, Some((report.cargo(), StateName::Receipted)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collected_report_can_be_read_for_as_long_as_reports_are_kept_and_no_longer() {
    const KEEP: Duration = Duration::from_secs(4);
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path(), &[Follower::Reports], KEEP);
    ready(&custody).await;
    let own = give(&custody, CargoKind::Report, "st-elsewhere", "report-1", to("reading")).await;
    let foreign = give(&custody, CargoKind::Report, "reading", "report-2", vec![]).await;
    let made = give(&custody, CargoKind::Report, "st-elsewhere", "message-1", to("ris")).await;
    custody.looked_at(Follower::Reports, CargoId(u64::MAX));
    assert_eq!(receipt_all(&custody, "reading").await, 1);
    assert_eq!(receipt_all(&custody, "ris").await, 1);
    goes(&custody, &made).await;
    assert!(is_here(&custody, &own).await && is_here(&custody, &foreign).await);
    // A ledger that is built anew keeps them as long.
    custody.close().await;
    std::fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    let custody = open(dir.path(), &[Follower::Reports], HOURS);
    ready(&custody).await;
    custody.looked_at(Follower::Reports, CargoId(u64::MAX));
    tokio::time::sleep(KEEP).await;
    assert!(is_here(&custody, &own).await && is_here(&custody, &foreign).await);
    // And another configuration counts for what was put in later already.
    custody.close().await;
    let custody = open(dir.path(), &[Follower::Reports], KEEP);
    ready(&custody).await;
    a_while().await;
    assert!(is_here(&custody, &own).await, "nobody has looked in this life");
}
