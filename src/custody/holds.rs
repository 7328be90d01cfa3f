//! Holds of whole studies: duties that wait for another room's word, and go on when it is given.
//!
//! Only what that room has held, or a route has held for its sake, is released again: what a person
//! holds, and what is a conflict, stays. Work is proportional to the study.

use super::Custody;
use super::custodian::{Custodian, LedgerState};
use super::ledger::{LedgerError, tail_u64};
use super::rows::{CargoId, member_key};
use super::state::{DutyEvent, DutyState, StateName};
use crate::cargo::{DestinationName, StudyKey};

impl Custodian {
    /// The images of a study after number `after`.
    pub(super) fn members(
        &self,
        study: StudyKey,
        after: CargoId,
    ) -> Result<Vec<CargoId>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        let from = member_key(study, CargoId(0));
        let prefix = from[..9].to_vec();
        let ids = view.ledger.keys(&prefix, from).map(|key| key.map(|k| CargoId(tail_u64(&k))));
        ids.filter(|id| id.as_ref().map_or(true, |id| id.0 > after.0)).collect()
    }

    /// Applies an event to every duty of a study's images for whose state `which` is true.
    fn change_study_duties(
        &mut self,
        study: StudyKey,
        after: CargoId,
        which: impl Fn(&DutyState) -> bool,
        event: &DutyEvent,
    ) -> Result<u64, LedgerError> {
        let mut changed = 0;
        for id in self.members(study, after)? {
            let LedgerState::Ready(view) = &self.ledger else { break };
            let Some(row) = view.cargo(id)?.filter(|row| row.present) else { continue };
            let of = row.duties.iter().filter(|d| which(&d.state));
            let names: Vec<DestinationName> =
                of.map(|d| view.name(d.destination).clone()).collect();
            for name in names {
                changed += u64::from(self.change_duty(id, &name, event.clone(), None));
            }
        }
        Ok(changed)
    }
}

impl Custody {
    /// Holds what is owed of a study's images after number `after`; how many duties. Durable when
    /// this returns; `None`: custody has stopped.
    pub async fn hold_study(
        &self,
        study: StudyKey,
        after: CargoId,
        reason: String,
        by: &'static str,
    ) -> Option<u64> {
        let owed = |state: &DutyState| state.name() == StateName::Owed;
        let event = DutyEvent::Hold { reason, by: by.into() };
        self.change(move |c| c.change_study_duties(study, after, owed, &event)).await?.ok()
    }

    /// Releases what `by` holds of a study's images after number `after`, or what a route holds for
    /// one of these reasons; how many duties. Durable when this returns; `None`: custody has stopped.
    pub async fn release_study(
        &self,
        study: StudyKey,
        after: CargoId,
        reasons: &'static [&'static str],
        by: &'static str,
    ) -> Option<u64> {
        let held = move |state: &DutyState| match state {
            DutyState::Held { reason: why, by: who } => {
                who == by || (who == "route" && reasons.contains(&why.as_str()))
            }
            _ => false,
        };
        self.change(move |c| c.change_study_duties(study, after, held, &DutyEvent::Release))
            .await?
            .ok()
    }
}
