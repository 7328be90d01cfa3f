//! Gives the registrar the evidence that modalities and archives bring: performed procedure steps
//! and availability notices.
//!
//! Storage commitment and worklist queries are accepted by the intake and refused here, with words,
//! until this node can keep that promise.

use crate::dicom::availability::Notice;
use crate::dicom::commitment::Asked;
use crate::dicom::fault::Fault;
use crate::intake::Services;
use crate::intake::services::{Caller, Matches, NewStep, Reply, Reporter, StepChange};
use crate::orders::registrar::{Desk, Step};

use dicom_object::InMemDicomObject;

/// Hands evidence to the registrar.
pub(super) struct Evidence(pub(super) Desk);

impl Services for Evidence {
    fn create_step(&self, caller: Caller, step: NewStep) -> Reply<'_, ()> {
        let step = Step {
            instance: step.instance,
            begins: true,
            status: None,
            attributes: step.attributes,
            caller: caller.calling.to_string(),
        };
        Box::pin(self.0.step(step))
    }

    fn set_step(&self, caller: Caller, change: StepChange) -> Reply<'_, ()> {
        let step = Step {
            instance: change.instance,
            begins: false,
            status: change.status,
            attributes: change.attributes,
            caller: caller.calling.to_string(),
        };
        Box::pin(self.0.step(step))
    }

    fn commit(&self, _: Caller, _: Asked, _: Reporter) -> Reply<'_, ()> {
        Box::pin(async { Err(Fault::failed("storage commitment is not offered here yet")) })
    }

    fn announce(&self, caller: Caller, notice: Notice) -> Reply<'_, ()> {
        Box::pin(self.0.announce(notice, caller.calling.to_string()))
    }

    fn worklist(&self, _: Caller, _: InMemDicomObject) -> Reply<'_, Matches> {
        Box::pin(async { Err(Fault::failed("no worklist is offered here yet")) })
    }
}
