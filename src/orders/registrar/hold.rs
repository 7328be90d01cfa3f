//! Images that wait: for a person, when they are another patient's than their order's, and for
//! their order, where a route says [`UNTIL_MATCHED`].
//!
//! A hold is put on what custody has when the verdict says so; custody lets no image leave before
//! that, unless it has waited for some seconds. Whoever routes images is told ([`HeldStudies`]), so
//! that those that come later wait from the first moment. What a person releases stays released.
//! What had left before the order was known cannot be held. A study that a person has linked to no
//! order waits for none.
//! That a study's duties are to be held or released is part of its entry, until it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::keys::HOLDS;
use super::record::{Dossier, StudyRef};
use super::roll::word;
use super::{DUE_MAX, Registrar};
use crate::cargo::StudyKey;
use crate::custody::CargoId;
use crate::custody::overlay::Stopped;
use crate::orders::matching::Match;

/// What a route says as its `hold` so that images wait for their order.
pub const UNTIL_MATCHED: &str = "until-matched";
/// The studies whose images wait, and why.
pub type HeldStudies = Arc<ArcSwap<BTreeMap<StudyKey, String>>>;

/// Holds of routes that a verdict ends.
pub(super) const ENDED: &[&str] =
    &[UNTIL_MATCHED, "patient-mismatch", "patient-mixed", "wrong-worklist-entry"];
/// Who holds, in listings of duties.
pub(super) const BY: &str = "orders";
/// Most studies that a start finds to be held or released.
const HOLDS_MAX: usize = 100_000;

/// What is to be done about the duties of a study.
pub(super) enum Todo {
    Nothing,
    Hold,
    Release,
}

impl Dossier {
    pub(super) fn todo(&self, own: bool, until_matched: bool) -> Todo {
        let hold = own && self.standing.as_ref().is_some_and(|s| s.hold.is_some());
        // That it has none is a person's word, too. What another node has not matched may still be.
        let unlinked = own && matches!(self.matched, Match::Unlinked);
        let matched = self.matched.order().is_some() || unlinked;
        match hold {
            true if self.held_to < self.last_cargo => Todo::Hold,
            true => Todo::Nothing,
            false if self.held_to > 0 => Todo::Release,
            false if until_matched && matched && self.freed_to < self.last_cargo => Todo::Release,
            false => Todo::Nothing,
        }
    }
}

impl Registrar {
    /// After a verdict: notes whether the study's duties are to be held or released.
    pub(super) fn note_hold(&mut self, id: &StudyRef, dossier: &mut Dossier) {
        let own = id.origin == self.config.node;
        let why = dossier.standing.as_ref().and_then(|s| s.hold).filter(|_| own);
        self.tell_held(id, why.map(word));
        // A reload may have brought such a route; what one has held is released though it has gone.
        self.config.until_matched |= self.ways.holds_until_matched();
        dossier.owes_hold = !matches!(dossier.todo(own, self.config.until_matched), Todo::Nothing);
        if dossier.owes_hold {
            self.holds.insert(id.clone());
        }
    }

    /// Finds what an earlier life left to be held or released.
    pub(super) async fn load_holds(&mut self) -> Result<(), Stopped> {
        let owed: Vec<Dossier> = self.store.with(HOLDS, b's', HOLDS_MAX).await?;
        self.holds = owed.iter().map(Dossier::study).collect();
        Ok(())
    }

    /// Tells whoever routes images which studies wait.
    pub(super) fn tell_held(&mut self, id: &StudyRef, why: Option<String>) {
        let key = StudyKey::of(&id.origin, &id.study);
        if self.held.load().get(&key) == why.as_ref() {
            return;
        }
        let mut held = BTreeMap::clone(&self.held.load());
        match why {
            Some(why) => drop(held.insert(key, why)),
            None => drop(held.remove(&key)),
        }
        self.held.store(Arc::new(held));
    }

    /// Lets custody send what was looked at, once all that is to be held is held; true when some of
    /// it is still to be held.
    pub(super) async fn let_leave(&mut self) -> bool {
        if !self.holds.is_empty() {
            return true;
        }
        if self.left < self.cursor.arrival {
            self.left = self.cursor.arrival;
            self.custody.may_leave(CargoId(self.left)).await;
        }
        false
    }

    /// Holds and releases, some studies at a time. What may have to be corrected first is released
    /// later (`correct_some`).
    pub(super) async fn hold_and_release(&mut self) -> Result<(), Stopped> {
        let due: BTreeSet<StudyRef> = self.holds.iter().take(DUE_MAX).cloned().collect();
        for id in due {
            self.holds.remove(&id);
            let (own, until_matched) = (id.origin == self.config.node, self.config.until_matched);
            let Some(study) = self.study(&id, None).await? else { continue };
            let dossier = study.dossier.clone();
            match dossier.todo(own, until_matched) {
                Todo::Nothing => self.settle_hold(&id, &dossier, 0).await?,
                Todo::Release if self.corrects_first(&id, &dossier) => {}
                Todo::Release => self.release(&id).await?,
                Todo::Hold => {
                    let key = StudyKey::of(&id.origin, &id.study);
                    let hold = dossier.standing.as_ref().and_then(|s| s.hold);
                    let reason = hold.map(word).unwrap_or_default();
                    let after = CargoId(dossier.held_to);
                    let held = self.custody.hold_study(key, after, reason, BY).await;
                    self.settle_hold(&id, &dossier, held.ok_or(Stopped)?).await?;
                }
            }
        }
        Ok(())
    }

    /// Releases what waits of a study.
    pub(super) async fn release(&mut self, id: &StudyRef) -> Result<(), Stopped> {
        let Some(study) = self.study(id, None).await? else { return Ok(()) };
        let dossier = study.dossier.clone();
        let key = StudyKey::of(&id.origin, &id.study);
        let released = self.custody.release_study(key, CargoId(0), ENDED, BY).await;
        self.settle_hold(id, &dossier, released.ok_or(Stopped)?).await
    }

    /// Notes what was done about the duties of a study.
    async fn settle_hold(
        &mut self,
        id: &StudyRef,
        dossier: &Dossier,
        changed: u64,
    ) -> Result<(), Stopped> {
        if changed > 0 {
            tracing::info!(target: "audit", by = BY, changed, "duties held or released");
        }
        let (own, until_matched) = (id.origin == self.config.node, self.config.until_matched);
        if let Some(study) = self.study(id, None).await? {
            let d = &mut study.dossier;
            match dossier.todo(own, until_matched) {
                Todo::Hold => d.held_to = dossier.last_cargo,
                _ => (d.held_to, d.freed_to) = (0, dossier.last_cargo),
            }
            d.owes_hold = false;
            self.changed(id);
        }
        Ok(())
    }
}
