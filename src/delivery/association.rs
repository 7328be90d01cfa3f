//! Drives a [`Requestor`] over TCP or TLS: connects, associates, stores, releases.
//!
//! Every wait has a limit ([`Timeouts`]). Memory per association is bounded whatever the object's
//! size: one chunk of about 256 KiB in hand, one framed. A body that turns out damaged aborts the
//! association before its last fragment, so that a damaged object is never delivered whole.

use bytes::Bytes;
use dicom_ul::pdu::Pdu;
use tokio::time::timeout;

use super::contexts::{Proposal, Terms};
use super::requestor::{Answer, Ending, Framer, Meaning, Requestor};
use super::{DicomTarget, Timeouts};
use crate::custody::{Body, BodyError, BodyReader};
use crate::dicom::pdata;
use crate::inquiry::dial::{OpenError, connect};
use crate::inquiry::wire::{LAST_WORDS, Trouble, Wire};

/// How many bytes of a body are framed and written at a time, about.
const CHUNK_LENGTH: usize = 256 * 1024;

/// Room for one read from the peer; only responses come.
const READ_LENGTH: usize = 16 * 1024;

/// Why a C-STORE has no answer. The association is gone in every case.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Our own bytes: damaged, or not readable. The peer has not got the whole object.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The association broke; whether the peer has kept the object is unknown.
    #[error("{0}")]
    Broke(String),
}

/// The bytes to send.
#[derive(Debug)]
pub(super) enum DataSet {
    /// As custody keeps them.
    Kept(Body),
    /// Re-encoded.
    Changed(Bytes),
}

/// An association that stands.
pub(super) struct Association {
    wire: Wire,
    requestor: Requestor,
    timeouts: Timeouts,
}

impl std::fmt::Debug for Association {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Association").field("requestor", &self.requestor).finish_non_exhaustive()
    }
}

impl Association {
    /// Connects and associates.
    pub(super) async fn open(target: &DicomTarget, proposal: Proposal) -> Result<Self, OpenError> {
        let DicomTarget { host, port, tls, .. } = target;
        let limit = target.timeouts.connect;
        let stream = connect(host, *port, tls.as_ref(), limit).await?;
        let (requestor, request) = Requestor::new(&target.calling, &target.called, proposal);
        let wire = Wire::new(stream, READ_LENGTH);
        let mut this = Self { wire, requestor, timeouts: target.timeouts };
        let limit = target.timeouts.associate;
        match timeout(limit, this.associate(&request)).await {
            Ok(Ok(())) => Ok(this),
            Ok(Err(e)) => {
                this.wire.abort().await;
                Err(e)
            }
            Err(_) => {
                this.wire.abort().await;
                Err(OpenError::Timeout { what: "answer to the association request", limit })
            }
        }
    }

    async fn associate(&mut self, request: &Pdu) -> Result<(), OpenError> {
        pdata::put_pdu(&mut self.wire.out, request);
        self.wire.write().await.map_err(OpenError::Connect)?;
        while !matches!(self.next().await?, Meaning::Accepted) {}
        Ok(())
    }

    /// What was negotiated.
    pub(super) fn terms(&self) -> &Terms {
        self.requestor.terms()
    }

    /// Sends one object and waits for its answer. After an error the association is gone.
    pub(super) async fn store(
        &mut self,
        context: u8,
        sop_class: &str,
        sop_instance: &str,
        data: DataSet,
    ) -> Result<Answer, StoreError> {
        let result = self.store_or_break(context, sop_class, sop_instance, data).await;
        if result.is_err() {
            self.wire.abort().await;
        }
        result
    }

    async fn store_or_break(
        &mut self,
        context: u8,
        sop_class: &str,
        sop_instance: &str,
        data: DataSet,
    ) -> Result<Answer, StoreError> {
        let command = self.requestor.begin_store(sop_class, sop_instance);
        let write_length = self.requestor.write_length();
        self.wire.out.clear();
        pdata::put_command(&mut self.wire.out, context, &command, write_length);
        let mut framer = Framer::new(context, write_length);
        match data {
            DataSet::Changed(bytes) => self.send_bytes(&mut framer, &bytes).await?,
            DataSet::Kept(body) => {
                let length = body.len();
                self.send_body(&mut framer, body.reader(0), length).await?;
            }
        }
        if let Some(answer) = self.requestor.data_sent().map_err(broke)? {
            return Ok(answer);
        }
        let limit = self.timeouts.response;
        match timeout(limit, self.answer()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(trouble)) => Err(StoreError::Broke(trouble.words())),
            Err(_) => Err(StoreError::Broke(format!("no answer within {} s", limit.as_secs()))),
        }
    }

    async fn send_bytes(&mut self, framer: &mut Framer, bytes: &[u8]) -> Result<(), StoreError> {
        let mut pieces = bytes.chunks(framer.chunk_length(CHUNK_LENGTH)).peekable();
        if bytes.is_empty() {
            framer.put(&mut self.wire.out, &[], true);
        }
        while let Some(piece) = pieces.next() {
            framer.put(&mut self.wire.out, piece, pieces.peek().is_none());
            self.write_out().await?;
        }
        self.write_out().await
    }

    async fn send_body(
        &mut self,
        framer: &mut Framer,
        mut reader: BodyReader,
        length: u64,
    ) -> Result<(), StoreError> {
        let chunk_length = framer.chunk_length(CHUNK_LENGTH);
        let mut left = length;
        while left > 0 {
            let Some(chunk) = reader.next(chunk_length).await? else {
                return Err(short(left));
            };
            left = left.checked_sub(chunk.len() as u64).ok_or_else(|| long(length))?;
            framer.put(&mut self.wire.out, &chunk, left == 0);
            self.write_out().await?;
        }
        if length == 0 {
            framer.put(&mut self.wire.out, &[], true);
        }
        self.write_out().await
    }

    async fn write_out(&mut self) -> Result<(), StoreError> {
        if self.wire.out.is_empty() {
            return Ok(());
        }
        let limit = self.timeouts.write;
        match timeout(limit, self.wire.write()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(StoreError::Broke(self.last_words(e).await)),
            Err(_) => Err(StoreError::Broke(format!(
                "the destination took no bytes for {} s",
                limit.as_secs()
            ))),
        }
    }

    /// Why the peer broke off, in its own words if it left any, else ours.
    async fn last_words(&mut self, e: std::io::Error) -> String {
        match timeout(LAST_WORDS, self.answer()).await {
            Ok(Err(Trouble::Ended(ending))) => ending.to_string(),
            _ => format!("the connection broke: {e}"),
        }
    }

    async fn answer(&mut self) -> Result<Answer, Trouble> {
        loop {
            if let Meaning::Answer(answer) = self.next().await? {
                return Ok(answer);
            }
        }
    }

    /// What the peer says next. Cancel-safe.
    async fn next(&mut self) -> Result<Meaning, Trouble> {
        let event = self.wire.event().await?;
        Ok(self.requestor.on_event(event)?)
    }

    /// Waits, with nothing under way, until the peer ends the association. Cancel-safe until it
    /// does.
    pub(super) async fn until_ended(&mut self) {
        loop {
            match self.next().await {
                Ok(Meaning::PeerReleases) => {
                    pdata::put_pdu(&mut self.wire.out, &Pdu::ReleaseRP);
                    let _ = self.write_out().await;
                    return;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Ends the association in order, within the time of an association request.
    pub(super) async fn release(mut self) {
        let limit = self.timeouts.associate;
        let request = self.requestor.release();
        self.wire.out.clear();
        pdata::put_pdu(&mut self.wire.out, &request);
        if self.write_out().await.is_ok() {
            let ended = async {
                while let Ok(meaning) = self.next().await {
                    match meaning {
                        Meaning::Released => break,
                        // Release collision: as the requestor we answer first (PS3.8 AR-9).
                        Meaning::PeerReleases => {
                            pdata::put_pdu(&mut self.wire.out, &Pdu::ReleaseRP);
                            let _ = self.write_out().await;
                            break;
                        }
                        _ => {}
                    }
                }
            };
            let _ = timeout(limit, ended).await;
        }
        self.wire.hang_up().await;
    }
}

fn broke(e: Ending) -> StoreError {
    StoreError::Broke(e.to_string())
}

fn short(left: u64) -> StoreError {
    BodyError::Damaged(format!("{left} bytes are missing at its end")).into()
}

fn long(length: u64) -> StoreError {
    BodyError::Damaged(format!("it goes on after its {length} bytes")).into()
}
