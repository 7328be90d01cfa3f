//! The socket of an association that we have asked for: events in, framed PDUs out, and its end.
//!
//! - Reading can be dropped half-way and called again. A write that is dropped or fails leaves the
//!   peer with half a PDU: after that only [`Wire::abort`] is of use.
//! - Only the end has a limit of its own ([`LAST_WORDS`]); whoever drives the association sets those
//!   of all other waits.
//!
//! Memory: one read, what a PDU under way needs, and what is framed.

use std::time::Duration;

use bytes::BytesMut;
use dicom_ul::pdu::{AbortRQSource, Pdu};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::dial::{OpenError, Stream};
use super::requestor::Ending;
use crate::dicom::pdata::{self, Decoder, Event};

/// How long the words of a peer that breaks off are waited for, and ours may take.
pub const LAST_WORDS: Duration = Duration::from_millis(200);

/// A socket, and what stands between it and the association.
pub struct Wire {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    buffer: BytesMut,
    /// Room for one read.
    read_length: usize,
    /// What is framed and not written.
    pub out: Vec<u8>,
}

impl Wire {
    /// Of a connection that stands; `read_length` is the room for one read.
    pub fn new(stream: Box<dyn Stream>, read_length: usize) -> Self {
        let (decoder, buffer) = (Decoder::new(), BytesMut::new());
        Self { stream, decoder, buffer, read_length, out: Vec::new() }
    }

    /// What comes next from the peer. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Trouble`]: nothing more comes.
    pub async fn event(&mut self) -> Result<Event, Trouble> {
        loop {
            let event = self
                .decoder
                .poll(&mut self.buffer)
                .map_err(|e| Trouble::Ended(Ending::Broken(e.to_string())))?;
            if let Some(event) = event {
                return Ok(event);
            }
            self.buffer.reserve(self.read_length);
            if self.stream.read_buf(&mut self.buffer).await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Closed);
            }
        }
    }

    /// Writes what is framed. Afterwards nothing is, whether all of it was written or not.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub async fn write(&mut self) -> std::io::Result<()> {
        let mut out = std::mem::take(&mut self.out);
        let written = self.stream.write_all(&out).await;
        out.clear();
        self.out = out;
        written
    }

    /// Breaks off (A-ABORT, source service-user). Nothing that was framed and not written goes
    /// out any more.
    pub async fn abort(&mut self) {
        self.out.clear();
        pdata::put_pdu(&mut self.out, &Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
        let goodbye = async {
            self.write().await?;
            self.stream.shutdown().await
        };
        let _ = timeout(LAST_WORDS, goodbye).await;
    }

    /// Says that nothing more is written.
    pub async fn hang_up(&mut self) {
        let _ = timeout(LAST_WORDS, self.stream.shutdown()).await;
    }
}

/// Why nothing more comes from the peer.
#[derive(Debug)]
pub enum Trouble {
    /// The association has ended.
    Ended(Ending),
    /// The peer hung up.
    Closed,
    /// The socket failed.
    Io(std::io::Error),
}

impl Trouble {
    /// For people.
    pub fn words(&self) -> String {
        match self {
            Self::Ended(e) => e.to_string(),
            Self::Closed => "the destination closed the connection instead of answering".into(),
            Self::Io(e) => format!("the connection broke: {e}"),
        }
    }
}

impl From<Ending> for Trouble {
    fn from(ending: Ending) -> Self {
        Self::Ended(ending)
    }
}

impl From<Trouble> for OpenError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Ended(ending) => ending.into(),
            Trouble::Closed => Self::Closed,
            Trouble::Io(e) => Self::Connect(e),
        }
    }
}
