//! Frames on one QUIC stream.

use quinn::{ReadError, RecvStream, SendStream, WriteError};

use super::exchange::Breach;
use super::frame::{Decoder, Frame, FrameError, Hello, Purpose};
use super::receipt::ReceiptError;
use crate::cargo::{NodeName, Urgency};

/// Bytes taken from the stream at once.
const READ_MAX: usize = 64 * 1024;

/// The priority of answers: they are small, and others wait for them.
pub(crate) const PRIORITY_ANSWERS: i32 = 50;

/// The priority of a lane's stream by class; the transport sends higher ones first.
pub(crate) fn priority(class: Urgency) -> i32 {
    40 - 10 * class.index() as i32
}

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    /// The peer's bytes are not frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer's frames break the protocol.
    #[error(transparent)]
    Breach(#[from] Breach),
    /// The peer gave a receipt that does not hold.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The peer ended the lane in the middle.
    #[error("the peer ended a lane in the middle")]
    Ended,
    /// The connection or the stream is gone.
    #[error("cannot read from the lane: {0}")]
    Read(#[from] ReadError),
    /// The connection or the stream is gone.
    #[error("cannot write to the lane: {0}")]
    Write(#[from] WriteError),
    /// Our own key cannot sign.
    #[error("cannot sign a receipt: {0}")]
    Sign(rustls::Error),
}

impl LaneError {
    /// True when the peer is at fault and the connection is to be closed with these words.
    pub(crate) fn is_breach(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Breach(_) | Self::Receipt(_) | Self::Ended)
    }
}

/// The reading half of a lane.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    decoder: Decoder,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// The next frame; `None` when the peer has finished the lane between frames. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, LaneError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_MAX, true).await? {
                Some(chunk) => self.decoder.push(&chunk.bytes),
                None if self.decoder.is_between_frames() => return Ok(None),
                None => return Err(LaneError::Ended),
            }
        }
    }
}

/// Sends our Hello.
pub(crate) async fn greet(
    stream: &mut SendStream,
    node: &NodeName,
    purpose: Purpose,
) -> Result<(), WriteError> {
    stream.write_all(&Frame::Hello(Hello::of(node, purpose)).encode()).await
}
