//! Which studies of other nodes are here whole, and whether anybody still waits for a study.
//!
//! Whoever waits for studies to become whole, or to leave after all, gets hints, and asks then; a hint is no promise. At
//! most [`HINTS_MAX`] wait: when there are more, and at the start, the taker hears that some are
//! lost, and asks for all that it waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;

use super::Registrar;
use super::candidates::parts;
use super::keys::{order_key, study_key};
use super::record::{Dossier, OrderRecord, StudyRef};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::orders::part::Part;
use crate::orders::verdict::What;

/// Hints that may wait.
pub const HINTS_MAX: usize = 1_024;

/// That a study is here whole: complete, or presumed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Whole {
    /// Since when.
    pub at: Timestamp,
    /// How many images, without those that were withdrawn.
    pub images: u64,
}

/// What the taker of hints hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// This study of another node may be whole now; one of this node goes to a node that it did not
    /// go to.
    Study(StudyRef),
    /// Any study may be.
    SomeLost,
}

#[derive(Debug, Default)]
struct Waiting {
    studies: VecDeque<StudyRef>,
    lost: bool,
    taken: bool,
}

/// Where the registrar leaves hints. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    waiting: Arc<Mutex<Waiting>>,
    bell: Arc<Notify>,
}

impl Hints {
    /// Leaves one, where somebody takes them.
    pub(super) fn leave(&self, study: &StudyRef) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.taken || waiting.studies.contains(study) {
            return;
        }
        match waiting.studies.len() < HINTS_MAX {
            true => waiting.studies.push_back(study.clone()),
            false => waiting.lost = true,
        }
        self.bell.notify_one();
    }

    /// For the one taker; `None`: somebody has it.
    pub(super) fn take(&self) -> Option<Wholes> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut waiting.taken, true) {
            return None;
        }
        waiting.lost = true;
        Some(Wholes(self.clone()))
    }
}

/// Hints of studies of other nodes that are here whole.
#[derive(Debug)]
pub struct Wholes(Hints);

impl Wholes {
    /// The next one. Nothing is lost when this is dropped before it is ready.
    pub async fn next(&mut self) -> Hint {
        loop {
            let bell = self.0.bell.notified();
            if let Some(hint) = self.waiting() {
                return hint;
            }
            bell.await;
        }
    }

    fn waiting(&self) -> Option<Hint> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut waiting.lost) {
            waiting.studies.clear();
            return Some(Hint::SomeLost);
        }
        waiting.studies.pop_front().map(Hint::Study)
    }
}

const fn is_whole(progress: What) -> bool {
    matches!(progress, What::Complete | What::PresumedComplete)
}

impl Dossier {
    fn whole(&self) -> Option<Whole> {
        let standing = self.standing.as_ref().filter(|s| is_whole(s.progress))?;
        let turns = self.turns.iter().rev().take_while(|turn| is_whole(turn.progress));
        let at = turns.last().map_or(standing.since, |turn| turn.at);
        Some(Whole { at, images: u64::from(standing.held) })
    }
}

impl Registrar {
    /// A study was judged: leaves a hint where one of another node has become whole.
    pub(super) fn hint_whole(&self, study: &StudyRef, before: Option<What>, now: What) {
        let news = is_whole(now) && !before.is_some_and(is_whole);
        if news && study.origin != self.config.node {
            self.hints.leave(study);
        }
    }

    /// Whether a study is here whole.
    pub(super) async fn whole(&mut self, study: &StudyRef) -> Result<Option<Whole>, Stopped> {
        self.cases.write(&mut self.store);
        let dossier: Option<Dossier> = self.store.get(study_key(study)).await?;
        Ok(dossier.and_then(|dossier| dossier.whole()))
    }

    /// Whether a report of a study is still wanted: not, when its order, or all parts of it that
    /// the study is of, are cancelled or discontinued.
    pub(super) async fn is_wanted(&mut self, study: &StudyRef) -> Result<bool, Stopped> {
        self.cases.write(&mut self.store);
        let Some(dossier) = self.store.get::<Dossier>(study_key(study)).await? else {
            return Ok(true);
        };
        let Some(key) = dossier.matched.order() else { return Ok(true) };
        let Some(record) = self.store.get::<OrderRecord>(order_key(key)).await? else {
            return Ok(true);
        };
        let order = record.history.order();
        let parts = parts(Some(&dossier.facts), &order);
        Ok(order.state.is_open() && (parts.is_empty() || parts.into_iter().any(Part::is_open)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(n: usize) -> StudyRef {
        StudyRef { origin: "h".parse().unwrap(), study: n.to_string() }
    }

    #[tokio::test]
    async fn hints_have_one_taker_and_who_misses_some_is_told() {
        let hints = Hints::default();
        hints.leave(&study(0));
        let mut wholes = hints.take().expect("nobody has it");
        assert!(hints.take().is_none());
        assert_eq!(wholes.next().await, Hint::SomeLost, "what was before is not known");
        hints.leave(&study(1));
        hints.leave(&study(1));
        hints.leave(&study(2));
        assert_eq!(wholes.next().await, Hint::Study(study(1)));
        assert_eq!(wholes.next().await, Hint::Study(study(2)));
        assert_eq!(wholes.waiting(), None, "the same study twice is one hint");
        (0..=HINTS_MAX).for_each(|n| hints.leave(&study(n)));
        assert_eq!(wholes.next().await, Hint::SomeLost);
        assert_eq!(wholes.waiting(), None, "all are asked for then");
        let waits = tokio::spawn(async move { wholes.next().await });
        hints.leave(&study(3));
        assert_eq!(waits.await.unwrap(), Hint::Study(study(3)));
    }
}
