//! Asks a RIS for its worklist at short intervals, and hands what it says to the registrar.
//!
//! One task for each worklist. An answer is taken as far as it came; one that is not whole is told,
//! never taken for the whole. Nothing rests on what a poll remembers: the registrar remembers what a
//! worklist has said, so that the same said again writes nothing, also after a kill.
//!
//! Limits: `limit` items of a question, [`QUESTIONS_MAX`] questions of a poll (one for each pair of
//! modality and station), 32 orders at once to the registrar.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::item::{self, Item};
use crate::clock::{self, Timestamp};
use crate::dicom::command::status;
use crate::dicom::text::Repertoire;
use crate::dicom::{AeTitle, MODALITY_WORKLIST};
use crate::inquiry::{Query, Target};
use crate::metrics::Metrics;
use crate::orders::order::Content;
use crate::orders::registrar::{Desk, Listed};

/// Most questions of one poll.
pub const QUESTIONS_MAX: usize = 64;
/// Orders that the registrar is given at once.
const BATCH: usize = 32;
/// Longest pause after failures, unless `every` is longer.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// A worklist to ask; already checked.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name here.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// Pause between two polls.
    pub every: Duration,
    /// How far ahead of now steps are asked for.
    pub ahead: Duration,
    /// How far back.
    pub behind: Duration,
    /// Modalities to ask for, one after the other; none: all at once.
    pub modalities: Vec<String>,
    /// Station AE titles to ask for, one after the other; none: all at once.
    pub stations: Vec<AeTitle>,
    /// Most items of one question.
    pub limit: usize,
    /// Who gives the patient numbers, where an item does not say.
    pub patient_issuer: String,
    /// Where its times are local.
    pub zone: TimeZone,
}

/// How a worklist fares. Without patient data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Its name.
    pub worklist: String,
    /// Whether it answered at its last poll; absent before the first.
    pub up: Option<bool>,
    /// When an answer was last taken whole, RFC 3339.
    pub last_success: Option<String>,
    /// Items of the last answer.
    pub items: u64,
    /// What was wrong with the last answer, or why there was none, in words.
    pub trouble: Option<String>,
    /// Polls in a row that failed.
    pub failures: u32,
}

/// What one poll came to.
#[derive(Debug, Default)]
struct Poll {
    items: Vec<Content>,
    count: u64,
    refused: u64,
    /// Not all of the answer is here, in words.
    truncated: Option<&'static str>,
    /// There was no whole answer, in words.
    failed: Option<String>,
}

/// How the worklists of a node fare. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Conditions(Arc<Vec<watch::Receiver<Condition>>>);

impl Conditions {
    /// Each of them now.
    pub fn now(&self) -> Vec<Condition> {
        self.0.iter().map(|condition| condition.borrow().clone()).collect()
    }
}

/// Starts a task for each worklist. They end with `shutdown`.
pub fn start(
    sources: Vec<Source>,
    desk: &Desk,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> (Conditions, Vec<JoinHandle<()>>) {
    let (mut conditions, mut tasks) = (Vec::new(), Vec::new());
    for source in sources {
        let worklist = source.name.clone();
        let (told, condition) = watch::channel(Condition { worklist, ..Condition::default() });
        let poller = Poller { source, desk: desk.clone(), metrics: metrics.clone(), told };
        let end = shutdown.clone();
        tasks.push(tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = poller.work() => {}
            }
        }));
        conditions.push(condition);
    }
    (Conditions(Arc::new(conditions)), tasks)
}

/// The pause after so many failures in a row: doubling, up to ten times `every` and [`PAUSE_MAX`].
fn pause(every: Duration, failures: u32) -> Duration {
    let most = every.max(PAUSE_MAX.min(every.saturating_mul(10)));
    every.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(most)
}

struct Poller {
    source: Source,
    desk: Desk,
    metrics: Metrics,
    told: watch::Sender<Condition>,
}

impl Poller {
    async fn work(self) {
        let mut failures = 0;
        loop {
            let mut poll = self.ask_all(clock::wall()).await;
            let listed = self.hand_in(&mut poll).await;
            failures = if poll.failed.is_some() { failures + 1 } else { 0 };
            self.tell(&poll, &listed, failures);
            tokio::time::sleep(pause(self.source.every, failures)).await;
        }
    }

    /// One question for each pair of modality and station.
    async fn ask_all(&self, now: Timestamp) -> Poll {
        let source = &self.source;
        let mut poll = Poll::default();
        let modalities: Vec<Option<&str>> = match source.modalities.is_empty() {
            true => vec![None],
            false => source.modalities.iter().map(|m| Some(m.as_str())).collect(),
        };
        let stations: Vec<Option<&str>> = match source.stations.is_empty() {
            true => vec![None],
            false => source.stations.iter().map(|s| Some(s.as_str())).collect(),
        };
        for modality in modalities {
            for station in &stations {
                if let Err(failed) = self.ask(&mut poll, now, modality, *station).await {
                    poll.failed = Some(failed);
                    return poll;
                }
            }
        }
        poll
    }

    async fn ask(
        &self,
        poll: &mut Poll,
        now: Timestamp,
        modality: Option<&str>,
        station: Option<&str>,
    ) -> Result<(), String> {
        let source = &self.source;
        let day = |at: Timestamp| {
            let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
            at.to_zoned(source.zone.clone()).date()
        };
        let behind = i64::try_from(source.behind.as_millis()).unwrap_or(i64::MAX);
        let days = (day(Timestamp(now.0.saturating_sub(behind))), day(now + source.ahead));
        let identifier = item::identifier(days, modality, station);
        let query = Query::begin(
            &source.target,
            MODALITY_WORKLIST,
            &identifier,
            Repertoire::default(),
            source.limit,
        );
        let mut query = query.await.map_err(|e| e.to_string())?;
        while let Some(found) = query.next().await.map_err(|e| e.to_string())? {
            poll.count += 1;
            match item::read(&found, &source.patient_issuer, &source.zone) {
                Ok(content) => poll.items.push(content),
                Err(reason) => {
                    poll.refused += 1;
                    let worklist = &source.name;
                    tracing::warn!(worklist, %reason, "an item of a worklist is not taken");
                }
            }
        }
        let Some(end) = query.end() else { return Err("the query ended without an answer".into()) };
        // The comment is the peer's, and may name a patient.
        match end.answer.status {
            _ if end.more && end.answer.status != status::LIMIT_REACHED => {
                poll.truncated =
                    Some("there are more items than `limit`: raise it, or ask for less");
            }
            status::LIMIT_REACHED => {
                poll.truncated = Some("the RIS gives no more items at a time (B001): ask for less");
            }
            status::SUCCESS => {}
            status::OUT_OF_RESOURCES => {
                return Err(
                    "the RIS is out of resources (A700): ask for less, or less often".into()
                );
            }
            code => return Err(format!("the RIS answers the query with {code:04X}")),
        }
        Ok(())
    }

    /// Hands what came to the registrar.
    async fn hand_in(&self, poll: &mut Poll) -> Listed {
        let (items, refused) = item::unite(std::mem::take(&mut poll.items));
        for reason in &refused {
            let worklist = &self.source.name;
            tracing::warn!(worklist, %reason, "an item of a worklist is not taken");
        }
        poll.refused += refused.len() as u64;
        let mut all = Listed::default();
        let mut items = items.into_iter();
        loop {
            let batch: Vec<Item> = items.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return all;
            }
            match self.desk.listed(self.source.name.clone(), batch).await {
                Ok(listed) => all.add(listed),
                Err(error) => {
                    poll.failed = Some(format!("its items could not be kept: {error}"));
                    return all;
                }
            }
        }
    }

    fn tell(&self, poll: &Poll, listed: &Listed, failures: u32) {
        let worklist = &self.source.name;
        let before = self.told.borrow().clone();
        let truncated = poll.truncated.map(str::to_owned);
        let outcome = match (&poll.failed, &truncated) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "truncated",
            (None, None) => "whole",
        };
        let m = &self.metrics;
        m.worklist_polls.with_label_values(&[worklist.as_str(), outcome]).inc();
        for (word, n) in [
            ("new", listed.new),
            ("changed", listed.changed),
            ("same", listed.same),
            ("refused", poll.refused),
        ] {
            m.worklist_items.with_label_values(&[worklist.as_str(), word]).inc_by(n);
        }
        let trouble = poll.failed.clone().or(truncated);
        if trouble != before.trouble {
            match &trouble {
                Some(reason) => tracing::warn!(worklist, reason, "a worklist is not known whole"),
                None => tracing::info!(worklist, items = poll.count, "a worklist is known whole"),
            }
        }
        let mut last_success = before.last_success;
        if poll.failed.is_none() && poll.truncated.is_none() {
            let now = clock::wall();
            let seconds = now.0 as f64 / 1000.0;
            m.worklist_last_success.with_label_values(&[worklist.as_str()]).set(seconds);
            last_success = Some(now.to_string());
        }
        self.told.send_replace(Condition {
            worklist: worklist.clone(),
            up: Some(poll.failed.is_none()),
            last_success,
            items: poll.count,
            trouble,
            failures,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_times_and_are_never_shorter_than_the_usual_one() {
        let minute = Duration::from_secs(60);
        let pauses: Vec<u64> = (0..7).map(|n| pause(minute, n).as_secs()).collect();
        assert_eq!(pauses, [60, 60, 120, 240, 480, 600, 600]);
        assert_eq!(pause(Duration::from_secs(3600), 9), Duration::from_secs(3600));
        assert_eq!(pause(Duration::from_secs(1), u32::MAX), Duration::from_secs(10));
    }
}
