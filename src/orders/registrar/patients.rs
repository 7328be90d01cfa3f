//! Different patients among the images of one study: a wrong patient chosen at the modality half-way,
//! or studies that a device has thrown together. The first image's patient is the study's; the
//! others are remembered, so that a merge of their numbers (ADT^A40) ends the finding.

use super::Registrar;
use super::record::{Dossier, PATIENTS_MAX};
use crate::orders::identifier::{Agreement, Patient};

impl Dossier {
    /// Remembers the patient of another image, when it is another patient.
    pub(super) fn take_patient(&mut self, patient: Patient) {
        let differs = |known: &Patient| known.agrees(&patient) == Agreement::Different;
        let new = differs(&self.facts.patient) && self.others.iter().all(differs);
        if new && self.others.len() < PATIENTS_MAX {
            self.others.push(patient);
        }
    }
}

impl Registrar {
    /// How many different patients the images of a study name, as far as is remembered.
    pub(super) fn patients_of(&self, dossier: &Dossier) -> u32 {
        let merges = self.merges.get(&dossier.facts.origin);
        let settled = |p: &Patient| merges.map_or_else(|| p.clone(), |merges| merges.settle(p));
        let mut known = vec![settled(&dossier.facts.patient)];
        for other in dossier.others.iter().map(settled) {
            if known.iter().all(|k| k.agrees(&other) == Agreement::Different) {
                known.push(other);
            }
        }
        u32::try_from(known.len()).unwrap_or(u32::MAX)
    }
}
