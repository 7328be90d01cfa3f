//! What every sender of a destination does: waits for work and for the end of a back-off, leases,
//! settles, and notes how the destination fares.

use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::backoff::random;
use super::condition::Condition;
use super::status::OBJECT_BACKOFF;
use crate::cargo::DestinationName;
use crate::clock;
use crate::custody::{Custody, Leased, Outcome, Want};

/// Longest time between two looks at the queue. Custody signals new work; this is for a signal
/// that was missed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of cargo in one lease: bounds what one sender keeps from the others.
const BATCH_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One sender of one destination.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) destination: DestinationName,
    /// The first sender of a destination tries it while it is down; the others wait.
    pub(super) first: bool,
    pub(super) custody: Custody,
    pub(super) condition: watch::Sender<Condition>,
    pub(super) signal: watch::Receiver<u64>,
    pub(super) shutdown: CancellationToken,
    pub(super) up: IntGauge,
}

impl Sender {
    /// Waits until the destination may be tried; false at shutdown.
    pub(super) async fn may_try(&self) -> bool {
        let mut condition = self.condition.subscribe();
        loop {
            if self.shutdown.is_cancelled() {
                return false;
            }
            let (down, not_before) = {
                let c = condition.borrow_and_update();
                (c.up == Some(false), c.not_before)
            };
            let wait = not_before.since(clock::now());
            let waited = async {
                if down && !self.first {
                    let _ = condition.changed().await;
                } else {
                    tokio::time::sleep(wait).await;
                }
            };
            if wait.is_zero() && (!down || self.first) {
                return true;
            }
            tokio::select! {
                () = waited => {}
                () = self.shutdown.cancelled() => return false,
            }
        }
    }

    /// Duties that may be tried now; empty when there are none.
    pub(super) async fn lease(&mut self, items_max: usize) -> Vec<Leased> {
        // Before the look, so that what comes after it wakes us.
        self.signal.borrow_and_update();
        let want = Want {
            destination: self.destination.clone(),
            classes: [true; 4],
            length: 0..=u64::MAX,
            items_max,
            bytes_max: BATCH_BYTES_MAX,
        };
        self.custody.lease(want).await
    }

    /// Waits until there may be work.
    pub(super) async fn work(&mut self) {
        match tokio::time::timeout(LOOK_INTERVAL, self.signal.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // Custody is gone; the node is going down.
            Ok(Err(_)) => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }

    /// Waits for shutdown.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let shutdown = self.shutdown.clone();
        async move { shutdown.cancelled().await }
    }

    /// Says what became of a duty.
    pub(super) async fn settle(&self, leased: Leased, outcome: Outcome) {
        if let Outcome::Quarantine { .. } | Outcome::Damaged { .. } = outcome {
            warn!(destination = %self.destination, cargo = leased.cargo.0, "quarantined");
        }
        self.custody.settle(leased, outcome).await;
    }

    /// The try failed for the object's own sake; it is tried again after a growing wait.
    pub(super) async fn try_later(&self, leased: Leased, cause: String) {
        let after = OBJECT_BACKOFF.delay(leased.attempt.saturating_add(1), random());
        self.custody.settle(leased, Outcome::Retry { cause, after }).await;
    }

    /// The destination works.
    pub(super) fn answered(&self) {
        self.up.set(1);
        if self.condition.borrow().up == Some(true) && self.condition.borrow().failures == 0 {
            return;
        }
        let mut news = false;
        self.condition.send_modify(|c| news = c.answered(clock::wall()));
        if news {
            info!(destination = %self.destination, "destination is up");
        }
    }

    /// The destination does not work; says why without patient data.
    pub(super) fn failed(&self, why: String) {
        self.up.set(0);
        let (now, wall, random) = (clock::now(), clock::wall(), random());
        let mut news = false;
        self.condition.send_modify(|c| news = c.failed(why.clone(), now, wall, random));
        if news {
            warn!(destination = %self.destination, why, "destination is down");
        }
    }
}
