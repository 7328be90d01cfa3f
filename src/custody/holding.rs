//! What custody has of a piece of cargo that somebody names by its key: of an instance by its UID, of
//! a message by its control ID.

use super::Custody;
use super::custodian::{Custodian, LedgerState};
use super::ledger::LedgerError;
use super::rows::{CargoId, DutyRow, Versions, identity_key, versions_key};
use super::state::{DutyEvent, StateName};
use super::status::DutyStatus;
use crate::cargo::{DestinationName, Identity, NodeName, Sha256};
use crate::clock;

/// Instances of one look, so that a long list does not keep others waiting.
const LOOK_MAX: usize = 128;

/// An instance in custody. Where other bytes came under its UID, the duties of all versions: which
/// of them a peer means, it does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// SOP Class UID; empty when its bytes have been given back.
    pub sop_class: String,
    /// Study Instance UID; empty likewise.
    pub study: String,
    /// No rule has given it, or a version of it, a destination yet.
    pub unrouted: bool,
    /// How each duty stands.
    pub duties: Vec<(DestinationName, StateName)>,
}

impl Custodian {
    fn holding(&mut self, origin: &NodeName, key: &str) -> Result<Option<Holding>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
        let of_any_bytes =
            Identity { origin: origin.clone(), key: key.to_owned(), sha256: Sha256([0; 32]) };
        let versions = versions_key(&identity_key(&of_any_bytes));
        let Some(versions) = view.ledger.get::<Versions>(&versions)? else { return Ok(None) };
        let mut found: Option<Holding> = None;
        for version in &versions.0 {
            let id = CargoId(version.cargo);
            let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
            let Some(row) = view.cargo(id)? else { continue };
            let duty = |d: &DutyRow| (view.name(d.destination).clone(), d.state.name());
            // Where a corrected version has taken the place of it, that one is signed for.
            let replaced = versions.0.iter().any(|v| v.corrects(&version.digest));
            let counts = |d: &&DutyRow| !(replaced && d.state.name() == StateName::Dismissed);
            let duties: Vec<_> = row.duties.iter().filter(counts).map(duty).collect();
            match &mut found {
                Some(first) => {
                    first.unrouted |= row.is_unrouted();
                    first.duties.extend(duties);
                }
                None => {
                    let head = self.head_of(id).map(|(head, ..)| head.envelope);
                    let (sop_class, study) =
                        head.map(|e| (e.sop_class, e.study)).unwrap_or_default();
                    found = Some(Holding { sop_class, study, unrouted: row.is_unrouted(), duties });
                }
            }
        }
        Ok(found)
    }

    fn duty(
        &mut self,
        origin: NodeName,
        key: String,
        destination: &DestinationName,
    ) -> Result<Option<(CargoId, DutyStatus)>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
        let of_any_bytes = Identity { origin, key, sha256: Sha256([0; 32]) };
        let versions = versions_key(&identity_key(&of_any_bytes));
        let Some(versions) = view.ledger.get::<Versions>(&versions)? else { return Ok(None) };
        for version in &versions.0 {
            let id = CargoId(version.cargo);
            let Some(status) = self.status_of(id)? else { continue };
            let duty = status.duties.into_iter().find(|duty| duty.destination == *destination);
            if let Some(duty) = duty {
                return Ok(Some((id, duty)));
            }
        }
        Ok(None)
    }

    fn give_up(
        &mut self,
        id: CargoId,
        destination: &DestinationName,
        by: &str,
        reason: String,
    ) -> bool {
        let number = self.view().and_then(|view| view.known_number(destination));
        if number.is_none_or(|number| self.schedule.is_leased(number, id)) {
            return false;
        }
        let hold = DutyEvent::Hold { reason: reason.clone(), by: by.to_owned() };
        let dismiss = DutyEvent::Dismiss { by: by.to_owned(), reason, at: clock::wall() };
        // What is held or quarantined is dismissed as it stands, what is owed by way of a hold.
        self.change_duty(id, destination, hold, None);
        self.change_duty(id, destination, dismiss, None) || self.is_dismissed(id, destination)
    }

    fn is_dismissed(&self, id: CargoId, destination: &DestinationName) -> bool {
        let LedgerState::Ready(view) = &self.ledger else { return false };
        let Some(number) = view.known_number(destination) else { return false };
        let Ok(Some(row)) = view.cargo(id) else { return false };
        row.duty(number).is_some_and(|duty| duty.state.name() == StateName::Dismissed)
    }
}

impl Custody {
    /// The duty to a destination of the cargo with this key; `Some(None)`: there is none, or not even
    /// its tombstone is left. `None`: custody has stopped. Not to be asked before the ledger is ready.
    pub async fn duty(
        &self,
        origin: NodeName,
        key: String,
        destination: DestinationName,
    ) -> Option<Option<(CargoId, DutyStatus)>> {
        self.look(move |c| c.duty(origin, key, &destination)).await
    }

    /// Dismisses a duty that is not being tried now, because whoever handed its cargo over has
    /// something to say in its place; false when it is being tried, or has its receipt. Durable when
    /// this returns; `None`: custody has stopped.
    pub async fn give_up(
        &self,
        id: CargoId,
        destination: DestinationName,
        by: &'static str,
        reason: String,
    ) -> Option<bool> {
        self.change(move |c| c.give_up(id, &destination, by, reason)).await
    }

    /// What custody has of each of these instances (SOP Instance UIDs) of an origin, in their
    /// order; `None`: custody has stopped.
    pub async fn holdings(
        &self,
        origin: &NodeName,
        instances: &[&str],
    ) -> Option<Vec<Option<Holding>>> {
        let mut all = Vec::with_capacity(instances.len());
        for some in instances.chunks(LOOK_MAX) {
            let origin = origin.clone();
            let keys: Vec<String> = some.iter().map(|key| (*key).to_owned()).collect();
            let found = self.look(move |c| keys.iter().map(|k| c.holding(&origin, k)).collect());
            let found: Vec<Option<Holding>> = found.await?;
            all.extend(found);
        }
        Some(all)
    }
}
