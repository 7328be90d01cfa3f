//! Images that no rule named a destination for when they came, and that the rules in force now send
//! to nodes: their orders and manifests go there as well, and their reports are waited for.
//!
//! Whoever gives such images their duties says so here before, so that a crash in between makes it
//! say so again. An image that is not looked at yet needs nothing: its way is asked for then.

use std::collections::BTreeSet;

use super::Registrar;
use super::cases::read_header;
use super::record::StudyRef;
use super::travel::add_ways;
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::{Arrival, CargoId};

impl Registrar {
    /// These images have a way now.
    pub(super) async fn routed(
        &mut self,
        images: &[CargoId],
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let mut studies = BTreeSet::new();
        for cargo in images {
            let Some((envelope, body)) = self.custody.read(*cargo).await else { continue };
            let image = Arrival { cargo: *cargo, envelope, body, kept_at: now };
            let header = read_header(&image).await;
            let (ways, route) = self.ways_of_image(&image.envelope, header.as_ref());
            let times = self.times_of_image(&image.envelope, header.as_ref());
            let origin = image.envelope.identity.origin.clone();
            let id = StudyRef { origin, study: image.envelope.study.clone() };
            if ways.is_empty() || self.study(&id, None).await?.is_none() {
                continue;
            }
            let dossier = &mut self.cases.open.get_mut(&id).expect("just read").dossier;
            dossier.take_times(times);
            if dossier.route.is_empty() {
                dossier.route = route;
            }
            if add_ways(&mut dossier.ways, ways) {
                studies.insert(id);
            }
        }
        for id in studies {
            self.changed(&id);
            self.judge_study(&id, now).await?;
            self.hints.leave(&id);
        }
        Ok(())
    }
}
