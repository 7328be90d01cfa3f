//! Frames: what travels on a lane. Pure.
//!
//! A frame is one type byte, a 32-bit big-endian length, and that many bytes of payload. All
//! payloads but a chunk's are CBOR maps with integer keys (RFC 8949): a reader skips keys that it
//! does not know. A type with the high bit set may be skipped by a reader that does not know it;
//! any other unknown type ends the lane. So two releases understand each other.
//!
//! ```text
//!  0      1              5
//!  +------+--------------+-----------------------------+
//!  | type | length (BE)  | payload, `length` bytes     |
//!  +------+--------------+-----------------------------+
//! ```
//!
//! Limits: a chunk carries at most [`CHUNK_MAX`] bytes of a body, any other payload has at most
//! [`PAYLOAD_MAX`] bytes. The length is checked before anything is stored for it, and memory grows
//! only with bytes that have really come.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use minicbor::{CborLen, Decode, Encode};

use crate::cargo::{Envelope, NodeName};

/// The newest frame version that this release speaks.
pub const VERSION: u16 = 1;
/// The oldest frame version that this release understands.
pub const VERSION_OLDEST: u16 = 1;

/// Type byte and length.
pub const HEADER_LENGTH: usize = 5;
/// Bytes before the body bytes of a chunk: the exchange number.
pub const CHUNK_HEADER_LENGTH: usize = 8;
/// Most body bytes in one chunk.
pub const CHUNK_MAX: usize = 256 * 1024;
/// Longest payload of any frame but a chunk.
pub const PAYLOAD_MAX: usize = 64 * 1024;
/// Most receipts in one frame; 32 of the largest stay below [`PAYLOAD_MAX`].
pub const RECEIPTS_MAX: usize = 32;

const HELLO: u8 = 0x01;
const OFFER: u8 = 0x02;
const CHUNK: u8 = 0x03;
const RECEIPTS: u8 = 0x04;
const RESUME: u8 = 0x05;
const REFUSE: u8 = 0x06;
const WITHDRAW: u8 = 0x07;
/// Types with this bit may be skipped by who does not know them.
const MAY_SKIP: u8 = 0x80;

/// Why bytes on a lane are not frames. The lane cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length exceeds the limit of its type.
    #[error("frame type 0x{kind:02x} claims {length} bytes, more than the {max} allowed")]
    TooLong {
        /// Type byte.
        kind: u8,
        /// Claimed length in bytes.
        length: u64,
        /// Limit in bytes.
        max: usize,
    },
    /// A type that must be understood and is not.
    #[error("unknown frame type 0x{0:02x}")]
    UnknownType(u8),
    /// The payload is not what its type asks for.
    #[error("frame type 0x{kind:02x} is malformed: {why}")]
    Malformed {
        /// Type byte.
        kind: u8,
        /// What the decoder found; no peer text.
        why: &'static str,
    },
}

/// First frame in each direction of every lane.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Hello {
    /// Oldest frame version that the speaker understands.
    #[n(0)]
    pub oldest: u16,
    /// Newest frame version that the speaker understands.
    #[n(1)]
    pub newest: u16,
    /// The speaker, for messages only: who it is says the certificate.
    #[n(2)]
    pub node: NodeName,
    /// What the lane is for.
    #[n(3)]
    pub purpose: Purpose,
    /// What the speaker can do beyond this version, one bit each; none are defined.
    #[n(4)]
    pub features: u64,
}

impl Hello {
    /// Ours.
    pub fn of(node: &NodeName, purpose: Purpose) -> Self {
        Self { oldest: VERSION_OLDEST, newest: VERSION, node: node.clone(), purpose, features: 0 }
    }

    /// The newest version that both sides understand.
    pub fn agree(&self) -> Option<u16> {
        let newest = self.newest.min(VERSION);
        (newest >= self.oldest.max(VERSION_OLDEST)).then_some(newest)
    }
}

/// What a lane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum Purpose {
    /// Proves that both sides speak and accept each other; stays open.
    #[n(0)]
    Control,
    /// Carries cargo from its opener.
    #[n(1)]
    Cargo,
}

/// "I have this for you": opens an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Offer {
    /// The number of the exchange on this lane: 1, 2, 3, ...
    #[n(0)]
    pub exchange: u64,
    /// What is offered. The urgency is that of the sender's duty.
    #[n(1)]
    pub envelope: Envelope,
    /// How the body stands in the chunks; 0: as it is. No other coding is defined yet.
    #[n(2)]
    pub coding: u16,
    /// True: the sender waits for [`Resume`] before the body. False: the body follows at once.
    #[n(3)]
    pub ask: bool,
}

/// The receiver's durable yes, signed. See [`crate::tunnel::receipt`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct SignedReceipt {
    /// Which exchange it answers.
    #[n(0)]
    pub exchange: u64,
    /// True (*Have*): it was in custody before this offer, and the body is not needed.
    #[n(1)]
    pub already: bool,
    /// The signed statement.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// The signature over the statement.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
struct Receipts {
    #[n(0)]
    receipts: Vec<SignedReceipt>,
}

/// Answer to an offer that asks: the body is wanted from this byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Resume {
    /// Which exchange it answers.
    #[n(0)]
    pub exchange: u64,
    /// How many original bytes the receiver has.
    #[n(1)]
    pub from: u64,
}

/// The receiver does not take it. What follows of the body is discarded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Refuse {
    /// Which exchange it answers.
    #[n(0)]
    pub exchange: u64,
    /// Why, as a number of [`Refusal`]; unknown numbers count as [`Refusal::Busy`].
    #[n(1)]
    pub reason: u16,
    /// Why, for a person; no patient data.
    #[n(2)]
    pub words: String,
    /// After how many seconds a new try makes sense.
    #[n(3)]
    pub retry_after: u32,
}

/// Why a receiver does not take cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 1: no room. Try again later.
    Full,
    /// 2: stopping or overloaded. Try again later.
    Busy,
    /// 3: the receiver could not write. Try again later.
    Io,
    /// 4: this peer may not bring cargo of that origin. For good.
    Relay,
    /// 5: larger than the receiver takes. For good.
    TooLarge,
    /// 6: the bytes do not have the offered digest. Three tries.
    Digest,
    /// 7: the envelope breaks a rule of the protocol. For good.
    Envelope,
    /// 8: a coding that the receiver does not know. For good in this coding.
    Coding,
}

impl Refusal {
    const ALL: [Self; 8] = [
        Self::Full,
        Self::Busy,
        Self::Io,
        Self::Relay,
        Self::TooLarge,
        Self::Digest,
        Self::Envelope,
        Self::Coding,
    ];

    /// The number on the line.
    pub fn code(self) -> u16 {
        Self::ALL.iter().position(|r| *r == self).map_or(0, |i| i as u16 + 1)
    }

    /// The reason behind a number; one that a later release has invented counts as busy, so that
    /// the cargo waits and nothing is given up.
    pub fn of(code: u16) -> Self {
        let index = usize::from(code).wrapping_sub(1);
        Self::ALL.get(index).copied().unwrap_or(Self::Busy)
    }
}

/// The sender will not finish the body (it cannot read it, or was refused midway).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Withdraw {
    /// Which exchange ends.
    #[n(0)]
    pub exchange: u64,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// 0x01
    Hello(Hello),
    /// 0x02
    Offer(Box<Offer>),
    /// 0x03: the next bytes of a body, in order. Not CBOR: 8 bytes exchange number, then bytes.
    Chunk {
        /// Whose body.
        exchange: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// 0x04: one or more receipts.
    Receipts(Vec<SignedReceipt>),
    /// 0x05
    Resume(Resume),
    /// 0x06
    Refuse(Refuse),
    /// 0x07
    Withdraw(Withdraw),
}

impl Frame {
    /// The frame as it stands on the line.
    ///
    /// # Panics
    ///
    /// When the payload exceeds its limit: our own senders keep to it.
    pub fn encode(&self) -> Bytes {
        let (kind, payload) = match self {
            Self::Hello(x) => (HELLO, cbor(x)),
            Self::Offer(x) => (OFFER, cbor(x)),
            Self::Chunk { exchange, bytes } => {
                let mut out = BytesMut::from(&chunk_header(*exchange, bytes.len())[..]);
                out.extend_from_slice(bytes);
                return out.freeze();
            }
            Self::Receipts(x) => (RECEIPTS, cbor(&Receipts { receipts: x.clone() })),
            Self::Resume(x) => (RESUME, cbor(x)),
            Self::Refuse(x) => (REFUSE, cbor(x)),
            Self::Withdraw(x) => (WITHDRAW, cbor(x)),
        };
        assert!(payload.len() <= PAYLOAD_MAX, "frame 0x{kind:02x} exceeds its limit");
        let mut out = BytesMut::with_capacity(HEADER_LENGTH + payload.len());
        out.put_u8(kind);
        out.put_u32(payload.len() as u32);
        out.extend_from_slice(&payload);
        out.freeze()
    }
}

/// What stands before the body bytes of a chunk, so that they need not be copied.
///
/// # Panics
///
/// When `length` exceeds [`CHUNK_MAX`].
pub fn chunk_header(exchange: u64, length: usize) -> [u8; HEADER_LENGTH + CHUNK_HEADER_LENGTH] {
    assert!(length <= CHUNK_MAX, "a chunk of {length} bytes exceeds its limit");
    let mut out = [0; HEADER_LENGTH + CHUNK_HEADER_LENGTH];
    out[0] = CHUNK;
    out[1..5].copy_from_slice(&((length + CHUNK_HEADER_LENGTH) as u32).to_be_bytes());
    out[5..].copy_from_slice(&exchange.to_be_bytes());
    out
}

fn cbor<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

/// Takes bytes as they come and gives frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes from the line.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more bytes have come. Frames that may be skipped and
    /// are not known are skipped.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let Some(&[kind, a, b, c, d]) = self.buffer.first_chunk::<HEADER_LENGTH>() else {
                return Ok(None);
            };
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let max = if kind == CHUNK { CHUNK_HEADER_LENGTH + CHUNK_MAX } else { PAYLOAD_MAX };
            if length > max {
                return Err(FrameError::TooLong { kind, length: length as u64, max });
            }
            if !(HELLO..=WITHDRAW).contains(&kind) && kind & MAY_SKIP == 0 {
                return Err(FrameError::UnknownType(kind));
            }
            if self.buffer.len() < HEADER_LENGTH + length {
                return Ok(None);
            }
            self.buffer.advance(HEADER_LENGTH);
            let payload = self.buffer.split_to(length).freeze();
            if kind & MAY_SKIP == 0 {
                return parse(kind, payload).map(Some);
            }
        }
    }

    /// True when no part of a frame is left over: the peer may end the lane here.
    pub fn is_between_frames(&self) -> bool {
        self.buffer.is_empty()
    }
}

fn parse(kind: u8, mut payload: Bytes) -> Result<Frame, FrameError> {
    Ok(match kind {
        HELLO => Frame::Hello(whole(kind, &payload)?),
        OFFER => Frame::Offer(Box::new(whole(kind, &payload)?)),
        CHUNK => {
            if payload.len() < CHUNK_HEADER_LENGTH {
                return Err(FrameError::Malformed { kind, why: "no exchange number" });
            }
            Frame::Chunk { exchange: payload.get_u64(), bytes: payload }
        }
        RECEIPTS => Frame::Receipts(whole::<Receipts>(kind, &payload)?.receipts),
        RESUME => Frame::Resume(whole(kind, &payload)?),
        REFUSE => Frame::Refuse(whole(kind, &payload)?),
        WITHDRAW => Frame::Withdraw(whole(kind, &payload)?),
        _ => return Err(FrameError::UnknownType(kind)),
    })
}

fn whole<'b, T: Decode<'b, ()>>(kind: u8, payload: &'b [u8]) -> Result<T, FrameError> {
    let mut decoder = minicbor::Decoder::new(payload);
    let value = decoder.decode().map_err(|e| FrameError::Malformed {
        kind,
        why: if e.is_end_of_input() {
            "it ends early"
        } else if e.is_missing_value() {
            "a required key is absent"
        } else {
            "not the CBOR map of its type"
        },
    })?;
    if decoder.position() != payload.len() {
        return Err(FrameError::Malformed { kind, why: "bytes after its end" });
    }
    Ok(value)
}

#[cfg(test)]
pub(crate) mod tests;
