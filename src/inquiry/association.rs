//! Drives a [`Requestor`] over TCP or TLS: connects, associates, asks, releases.
//!
//! Every wait has a limit, and so has an operation with all of its answers ([`Timeouts`]). Memory is bounded by one data set each way, or one piece
//! of an image.

use bytes::Bytes;
use dicom_object::InMemDicomObject;
use dicom_ul::pdu::Pdu;
use tokio::time::{Instant, timeout};

use super::dial::{OpenError, connect};
use super::requestor::{Meaning, Requestor, Wanted};
use super::wire::{LAST_WORDS, Trouble, Wire};
use super::{InquiryError, Target, Timeouts};
use crate::dicom::command::{Command, Operation, Response};
use crate::dicom::dataset;
use crate::dicom::pdata;
use crate::dicom::text::Repertoire;

/// Room for one read from the peer.
const READ_LENGTH: usize = 64 * 1024;

/// An association that stands.
pub(super) struct Association {
    wire: Wire,
    requestor: Requestor,
    timeouts: Timeouts,
    /// In which the data sets of the operation under way stand.
    syntax: String,
    /// Until when that must be over.
    due: Instant,
}

impl std::fmt::Debug for Association {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Association").field("requestor", &self.requestor).finish_non_exhaustive()
    }
}

/// What the peer says while an operation is under way.
#[derive(Debug)]
pub(super) enum Heard {
    /// An answer, with its data set.
    Answer(Box<Response>, Option<InMemDicomObject>),
    /// An image of a C-GET begins in this context, with this transfer syntax.
    Store(u8, String, Box<crate::dicom::command::StoreRequest>),
    /// A piece of it; true at its end.
    Data(Bytes, bool),
}

impl Association {
    /// Connects and associates.
    pub(super) async fn open(target: &Target, wanted: Vec<Wanted>) -> Result<Self, InquiryError> {
        let Target { host, port, calling, called, tls, timeouts } = target;
        let stream = connect(host, *port, tls.as_ref(), timeouts.connect).await?;
        let (requestor, request) = Requestor::new(calling, called, wanted);
        let (wire, timeouts) = (Wire::new(stream, READ_LENGTH), *timeouts);
        let (syntax, due) = (String::new(), Instant::now());
        let mut this = Self { wire, requestor, timeouts, syntax, due };
        let limit = timeouts.associate;
        let associated = match timeout(limit, this.associate(&request)).await {
            Ok(associated) => associated,
            Err(_) => Err(OpenError::Timeout { what: "answer to the association request", limit }),
        };
        match associated {
            Ok(()) => Ok(this),
            Err(e) => {
                this.abort().await;
                Err(e.into())
            }
        }
    }

    async fn associate(&mut self, request: &Pdu) -> Result<(), OpenError> {
        pdata::put_pdu(&mut self.wire.out, request);
        self.wire.write().await.map_err(OpenError::Connect)?;
        while !matches!(self.next().await?, Meaning::Accepted) {}
        Ok(())
    }

    /// Begins an operation with its data set. After an error the association is gone.
    pub(super) async fn ask(
        &mut self,
        sop_class: &str,
        operation: Operation,
        sop_instance: &str,
        set: &InMemDicomObject,
        repertoire: Repertoire,
    ) -> Result<(), InquiryError> {
        let context = self.requestor.context(sop_class)?.clone();
        let data = dataset::write(set, &context.syntax, repertoire)?;
        let length = self.requestor.write_length();
        let command = self.requestor.begin(context.id, operation, sop_class, sop_instance);
        self.syntax = context.syntax;
        self.due = Instant::now() + self.timeouts.operation;
        self.wire.out.clear();
        pdata::put_command(&mut self.wire.out, context.id, &command, length);
        pdata::put_data(&mut self.wire.out, context.id, &data, true, length);
        self.write_out().await
    }

    /// Asks that the operation under way be ended; its last answer must come within the time of
    /// one answer, whatever else comes before it.
    pub(super) async fn cancel(&mut self) -> Result<(), InquiryError> {
        let Some((context, command)) = self.requestor.cancel() else { return Ok(()) };
        self.due = self.due.min(Instant::now() + self.timeouts.response);
        self.wire.out.clear();
        pdata::put_command(&mut self.wire.out, context, &command, self.requestor.write_length());
        self.write_out().await
    }

    /// Answers an image of a C-GET.
    pub(super) async fn answer(
        &mut self,
        context: u8,
        response: Response,
    ) -> Result<(), InquiryError> {
        let command = Command::Response(response).encode();
        self.wire.out.clear();
        pdata::put_command(&mut self.wire.out, context, &command, self.requestor.write_length());
        self.write_out().await
    }

    /// What the peer says next of the operation under way. After an error the association is
    /// gone; dropped half-way, it can be called again.
    pub(super) async fn hear(&mut self) -> Result<Heard, InquiryError> {
        let limit = self.timeouts.response;
        let left = self.due.saturating_duration_since(Instant::now());
        // A peer that always has something to say would otherwise be heard before its time is up.
        let heard = match left.is_zero() {
            true => None,
            false => timeout(limit.min(left), self.next()).await.ok(),
        };
        let meaning = match heard {
            Some(Ok(meaning)) => meaning,
            Some(Err(trouble)) => return Err(self.broken(trouble.words()).await),
            None if left < limit => {
                return Err(self.broken("the operation does not come to its end".into()).await);
            }
            None => {
                let words = format!("no answer within {} s", limit.as_secs());
                return Err(self.broken(words).await);
            }
        };
        match meaning {
            Meaning::Answer(response, None) => Ok(Heard::Answer(response, None)),
            Meaning::Answer(response, Some(data)) => match dataset::read(&data, &self.syntax) {
                Ok(set) => Ok(Heard::Answer(response, Some(set))),
                Err(e) => Err(self.broken(format!("its answer: {e}")).await),
            },
            Meaning::Store(context, request) => {
                let syntax = self.requestor.context_of(context).map(|c| c.syntax.clone());
                Ok(Heard::Store(context, syntax.unwrap_or_default(), request))
            }
            Meaning::Data(data, last) => Ok(Heard::Data(data, last)),
            Meaning::PeerReleases => {
                pdata::put_pdu(&mut self.wire.out, &Pdu::ReleaseRP);
                let _ = self.write_out().await;
                Err(InquiryError::Broke("the destination released instead of answering".into()))
            }
            Meaning::Nothing | Meaning::Accepted | Meaning::Released => {
                Err(self.broken("an event out of turn".into()).await)
            }
        }
    }

    async fn broken(&mut self, words: String) -> InquiryError {
        self.abort().await;
        InquiryError::Broke(words)
    }

    async fn write_out(&mut self) -> Result<(), InquiryError> {
        let limit = self.timeouts.write;
        let written = timeout(limit, self.wire.write()).await;
        self.wire.out.shrink_to(READ_LENGTH);
        let words = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => match timeout(LAST_WORDS, self.next()).await {
                Ok(Err(Trouble::Ended(ending))) => ending.to_string(),
                _ => format!("the connection broke: {e}"),
            },
            Err(_) => format!("the destination took no bytes for {} s", limit.as_secs()),
        };
        Err(self.broken(words).await)
    }

    /// What the peer says next. Cancel-safe.
    async fn next(&mut self) -> Result<Meaning, Trouble> {
        loop {
            let event = self.wire.event().await?;
            match self.requestor.on_event(event)? {
                Meaning::Nothing => {}
                meaning => return Ok(meaning),
            }
        }
    }

    /// Ends the association in order, within the time of an association request.
    pub(super) async fn release(mut self) {
        let limit = self.timeouts.associate;
        let request = self.requestor.release();
        self.wire.out.clear();
        pdata::put_pdu(&mut self.wire.out, &request);
        let ended = async {
            if self.wire.write().await.is_err() {
                return;
            }
            while let Ok(meaning) = self.next().await {
                match meaning {
                    Meaning::Released => break,
                    // Release collision: as the requestor we answer first (PS3.8 AR-9).
                    Meaning::PeerReleases => {
                        pdata::put_pdu(&mut self.wire.out, &Pdu::ReleaseRP);
                        let _ = self.wire.write().await;
                        break;
                    }
                    _ => {}
                }
            }
        };
        let _ = timeout(limit, ended).await;
        self.wire.hang_up().await;
    }

    /// Breaks off.
    pub(super) async fn abort(&mut self) {
        self.wire.abort().await;
    }
}
