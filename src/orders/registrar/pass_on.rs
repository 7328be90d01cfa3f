//! Requests about steps that are passed on: what the registrar enters of them. Whoever passes them
//! on finds them there ([`passing`](crate::orders::passing)).

use std::sync::atomic::Ordering;

use dicom_dictionary_std::tags;

use super::evidence_in::Step;
use super::{Registrar, clock};
use crate::custody::overlay::Stopped;
use crate::dicom::EXPLICIT_VR_LE;
use crate::dicom::dataset::{self, DATA_SET_LENGTH_MAX, text};
use crate::dicom::fault::Fault;
use crate::dicom::text::Repertoire;
use crate::orders::passing::REQUESTS_MAX;
use crate::orders::passing::record::{Request, part_entries, request_entry};

/// A request to be passed on, before it is entered.
pub(super) struct Outgoing {
    request: Request,
    set: Vec<u8>,
}

impl Registrar {
    /// What is to be passed on of a step, all that its modality said; `None` when nobody is told.
    pub(super) fn outgoing(&self, step: &Step) -> Result<Option<Outgoing>, Fault> {
        let door = &self.config.pass_on;
        if door.receivers.is_empty() {
            return Ok(None);
        }
        if door.open.load(Ordering::Relaxed) >= REQUESTS_MAX {
            tracing::error!("a step is refused: too many wait to be passed on");
            return Err(Fault::no_room("too many steps wait to be passed on"));
        }
        let set = dataset::write(&step.attributes, EXPLICIT_VR_LE, Repertoire::UTF8);
        let set = set.map_err(|_| Fault::failed("the step cannot be written down"))?;
        if set.len() > DATA_SET_LENGTH_MAX {
            return Err(Fault::no_room("the step is longer than can be passed on"));
        }
        let request = Request {
            number: 0,
            instance: step.instance.clone(),
            begins: step.begins,
            ends: step.status.is_some_and(crate::dicom::performed::StepStatus::is_final),
            charset: text(&step.attributes, tags::SPECIFIC_CHARACTER_SET),
            parts: 0,
            to: door.receivers.clone(),
            at: clock::wall(),
        };
        Ok(Some(Outgoing { request, set }))
    }

    /// Lays the parts of a request over the book; false when what a turn may hold was exceeded and
    /// could not be written. [`pass_on`](Self::pass_on) must follow in the same change.
    pub(super) async fn number(&mut self, out: &mut Outgoing) -> Result<bool, Stopped> {
        self.cursor.requests += 1;
        self.remember_cursor();
        out.request.number = self.cursor.requests;
        let parts = part_entries(out.request.number, &out.set);
        out.request.parts = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        for part in parts {
            self.store.put(part);
            if self.store.is_full() && !self.write_some().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lays the request itself over the book, beside the step that it is about.
    pub(super) fn pass_on(&mut self, out: &Outgoing) {
        self.store.put(request_entry(&out.request));
        self.config.pass_on.open.fetch_add(1, Ordering::Relaxed);
    }
}
