//! Images leave only after whoever follows arrivals has said so, or after a stated time.

use std::time::Duration;

use super::{config, give, ready, receipt_all, to, want};
use crate::clock;
use crate::custody::fresh::WAIT;
use crate::custody::{CargoId, Custody, Follower};
use crate::metrics::Metrics;

fn open(dir: &std::path::Path) -> (Custody, Metrics) {
    let metrics = Metrics::new();
    let config = crate::custody::Config { followed: [Follower::Orders].into(), ..config(dir) };
    (Custody::open(config, metrics.clone()).unwrap(), metrics)
}

async fn leave_in(custody: &Custody, n: usize) -> Duration {
    let began = clock::now();
    let mut sent = 0;
    while sent < n {
        assert!(clock::now().since(began) < 4 * WAIT, "{sent} of {n} have left");
        sent += receipt_all(custody, "pacs").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    clock::now().since(began)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_leaves_when_it_may_and_its_sender_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (custody, _) = open(dir.path());
    ready(&custody).await;
    let mut signal = custody.signal(&"pacs".parse().unwrap());
    signal.mark_unchanged();
    let first = give(&custody, "1.1", b"body", to("pacs")).await;
    give(&custody, "1.2", b"body", to("pacs")).await;
    assert!(custody.lease(want("pacs", 9)).await.is_empty(), "nobody has looked");
    custody.may_leave(first.cargo()).await;
    tokio::time::timeout(WAIT / 2, signal.changed()).await.expect("told").unwrap();
    let leased = custody.lease(want("pacs", 9)).await;
    assert_eq!(leased.iter().map(|l| l.cargo).collect::<Vec<_>>(), [first.cargo()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_looks_images_leave_after_the_stated_time_and_that_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (custody, metrics) = open(dir.path());
    ready(&custody).await;
    for n in 0..5 {
        give(&custody, &format!("1.{n}"), b"body", to("pacs")).await;
    }
    let took = leave_in(&custody, 5).await;
    assert!(took >= WAIT / 2 && took < 2 * WAIT, "{took:?}");
    assert_eq!(metrics.unjudged.get(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_before_a_crash_waits_for_the_next_life_to_look_or_the_stated_time() {
    let dir = tempfile::tempdir().unwrap();
    let (custody, _) = open(dir.path());
    ready(&custody).await;
    let first = give(&custody, "1.1", b"body", to("pacs")).await;
    give(&custody, "1.2", b"body", to("pacs")).await;
    custody.close().await;
    // The ledger is built anew: what comes meanwhile waits, too.
    std::fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    let (custody, _) = open(dir.path());
    give(&custody, "1.3", b"body", to("pacs")).await;
    ready(&custody).await;
    assert!(custody.lease(want("pacs", 9)).await.is_empty());
    custody.may_leave(first.cargo()).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 1);
    leave_in(&custody, 2).await;
    custody.may_leave(CargoId(u64::MAX)).await;
}
