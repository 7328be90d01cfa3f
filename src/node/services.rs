//! Gives the registrar the evidence that modalities and archives bring, performed procedure steps
//! and availability notices, the committer what modalities ask for, and those who ask for a worklist
//! what the registrar finds.

use std::pin::Pin;

use crate::dicom::availability::Notice;
use crate::dicom::commitment::{Asked, Outcome};
use crate::intake::Services;
use crate::intake::services::{Caller, Matches, NewStep, Reply, Reporter, StepChange, Unwanted};
use crate::orders::commitment::{Asker, Committer, OnAssociation};
use crate::orders::registrar::{Desk, Step};
use crate::orders::worklist::Query;

use dicom_object::InMemDicomObject;

/// Matches that are found before the peer has taken those before them.
const AHEAD: usize = 8;

/// Hands evidence to the registrar, and requests to the committer.
pub(super) struct Evidence {
    pub(super) desk: Desk,
    pub(super) committer: Committer,
}

impl OnAssociation for Reporter {
    fn is_open(&self) -> bool {
        Self::is_open(self)
    }

    fn report(
        self: Box<Self>,
        outcome: Outcome,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        Box::pin(async move { Self::report(&self, outcome).await.map_err(|e| e.to_string()) })
    }
}

impl Services for Evidence {
    fn create_step(&self, caller: Caller, step: NewStep) -> Reply<'_, ()> {
        let step = Step {
            instance: step.instance,
            begins: true,
            status: None,
            attributes: step.attributes,
            caller: caller.calling.to_string(),
        };
        Box::pin(self.desk.step(step))
    }

    fn set_step(&self, caller: Caller, change: StepChange) -> Reply<'_, ()> {
        let step = Step {
            instance: change.instance,
            begins: false,
            status: change.status,
            attributes: change.attributes,
            caller: caller.calling.to_string(),
        };
        Box::pin(self.desk.step(step))
    }

    fn commit(&self, caller: Caller, asked: Asked, reporter: Reporter) -> Reply<'_, ()> {
        let asker = Asker { calling: caller.calling, called: caller.called };
        Box::pin(self.committer.commit(asker, asked, Box::new(reporter)))
    }

    fn announce(&self, caller: Caller, notice: Notice) -> Reply<'_, ()> {
        Box::pin(self.desk.announce(notice, caller.calling.to_string()))
    }

    fn worklist(&self, caller: Caller, query: InMemDicomObject) -> Reply<'_, Matches> {
        Box::pin(async move {
            let query = Query::read(&query)?;
            let mut finding = self.desk.worklist(query, caller.calling.to_string()).await?;
            let (finder, mut matches) = Matches::channel(AHEAD);
            matches.keys_unsupported = finding.keys_unsupported();
            // It ends with its association, which drops the other end, or with custody.
            tokio::spawn(async move {
                loop {
                    match finding.next().await {
                        Ok(Some(found)) => {
                            if finder.give(found).await == Err(Unwanted) {
                                return;
                            }
                        }
                        Ok(None) => {
                            let _ = finder.finish().await;
                            return;
                        }
                        Err(error) => {
                            return tracing::warn!(%error, "a worklist query is broken off");
                        }
                    }
                }
            });
            Ok(matches)
        })
    }
}
