//! To which study an instance belongs, by what custody has taken of it. Its bytes may have left,
//! but its tombstone is not forgotten yet.

use super::Custody;
use super::custodian::{Custodian, LedgerState};
use super::ledger::LedgerError;
use super::rows::{CargoId, StudyRow, Versions, identity_key, study_key, versions_key};
use crate::cargo::{CargoKind, Identity, NodeName, Sha256};

/// Most instances of one question; of more the first count.
pub const INSTANCES_ASKED_MAX: usize = 32;

impl Custodian {
    fn studies_of(
        &self,
        origin: &NodeName,
        instances: Vec<String>,
    ) -> Result<Vec<(String, String)>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for key in instances.into_iter().take(INSTANCES_ASKED_MAX) {
            // The digest is no part of the key.
            let identity = Identity { origin: origin.clone(), key, sha256: Sha256([0; 32]) };
            let versions: Option<Versions> =
                view.ledger.get(&versions_key(&identity_key(&identity)))?;
            for version in versions.unwrap_or_default().0 {
                let row = view.cargo(CargoId(version.cargo))?;
                let Some(row) = row.filter(|row| row.kind == CargoKind::Image) else { continue };
                let study: Option<StudyRow> = view.ledger.get(&study_key(row.study))?;
                found.extend(study.map(|study| (identity.key.clone(), study.uid)));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

impl Custody {
    /// Instances of a node by their SOP Instance UIDs, each with its Study Instance UID; what is not
    /// known is passed over, and one that came in several versions may have several studies. `None`
    /// when custody has stopped. A look-up each: at most [`INSTANCES_ASKED_MAX`].
    pub async fn studies_of(
        &self,
        origin: NodeName,
        instances: Vec<String>,
    ) -> Option<Vec<(String, String)>> {
        self.look(move |c| c.studies_of(&origin, instances)).await
    }
}
