//! What custody has of an instance that somebody names by its UID.

use super::Custody;
use super::custodian::{Custodian, LedgerState};
use super::ledger::LedgerError;
use super::rows::{Versions, identity_key, versions_key};
use super::state::StateName;
use crate::cargo::{DestinationName, Identity, NodeName, Sha256};

/// Instances of one look, so that a long list does not keep others waiting.
const LOOK_MAX: usize = 128;

/// An instance in custody: the version of it that came first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// SOP Class UID; empty when its bytes have been given back.
    pub sop_class: String,
    /// Study Instance UID; empty likewise.
    pub study: String,
    /// Its bytes are here.
    pub present: bool,
    /// No rule has given it a destination yet.
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
        for version in &versions.0 {
            let id = super::rows::CargoId(version.cargo);
            let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
            let Some(row) = view.cargo(id)? else { continue };
            let duty =
                |d: &super::rows::DutyRow| (view.name(d.destination).clone(), d.state.name());
            let mut holding = Holding {
                sop_class: String::new(),
                study: String::new(),
                present: row.present,
                unrouted: row.is_unrouted(),
                duties: row.duties.iter().map(duty).collect(),
            };
            if let Some((head, ..)) = self.head_of(id) {
                holding.sop_class = head.envelope.sop_class;
                holding.study = head.envelope.study;
            }
            return Ok(Some(holding));
        }
        Ok(None)
    }
}

impl Custody {
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
