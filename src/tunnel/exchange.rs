//! The two ends of a cargo lane: offer, resume, body, receipt. Pure.
//!
//! ```text
//!   sender                                    receiver
//!
//!   Offer{ask: false} --.
//!     Chunk ... Chunk    `---> [body] -- whole --> [deciding] --> Receipts | Refuse
//!
//!   Offer{ask: true}  ------> [asked] --> Resume{from} | Receipts(already) | Refuse
//!     Chunk ... Chunk  <----- (only after Resume)
//! ```
//!
//! Small cargo (at most [`SMALL_MAX`]) is sent without waiting; large cargo asks where to go on.
//! A body ends with the chunk that reaches its length; a sender that has no bytes left to send
//! (an empty body, or a resume at the end) sends one empty chunk. An answer that comes before the
//! end of a body (*Have*, *Refuse*) makes the receiver discard the rest of it; the sender may cut
//! it short with *Withdraw*. Chunks of several exchanges may be mixed, so that a lane can suspend
//! one body for a more urgent one.
//!
//! Whatever the peer sends, the machines answer with a step or a [`Breach`]; they never panic.
//! Limits: [`OPEN_MAX`] unfinished bodies on a lane; [`IN_FLIGHT_ITEMS_MAX`] exchanges and
//! [`IN_FLIGHT_BYTES_MAX`] bytes without an answer.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::frame::{Frame, Hello, Offer, Purpose, Refuse, Resume, SignedReceipt};
use crate::cargo::{Envelope, TEXT_LENGTH_MAX};

/// Largest body that is sent without asking first, in bytes.
pub const SMALL_MAX: u64 = 4 << 20;
/// Most unfinished bodies on one lane.
pub const OPEN_MAX: usize = 4;
/// Most exchanges of one lane without an answer.
pub const IN_FLIGHT_ITEMS_MAX: usize = 128;
/// Most body bytes of one lane without an answer, except that one exchange is always allowed.
pub const IN_FLIGHT_BYTES_MAX: u64 = 12 << 20;
/// Most flags in an envelope.
pub const FLAGS_MAX: usize = 32;

/// How a peer has broken the protocol. The connection is closed with these words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// The lane did not begin with Hello, or a second one came.
    #[error("a lane begins with one Hello")]
    Hello,
    /// No version in common.
    #[error("no frame version in common: the peer speaks {0} to {1}")]
    Version(u16, u16),
    /// A frame that this side of a lane does not send.
    #[error("a frame from the wrong side of the lane")]
    Direction,
    /// Exchange numbers do not go 1, 2, 3, ...
    #[error("exchange {0} does not follow exchange {1}")]
    Number(u64, u64),
    /// More unfinished bodies than allowed.
    #[error("more than {OPEN_MAX} unfinished bodies on a lane")]
    TooManyOpen,
    /// A frame about an exchange that is not open, or not in the state for it.
    #[error("exchange {0} does not expect that frame now")]
    OutOfTurn(u64),
    /// Chunks go beyond the offered length.
    #[error("exchange {0}: more bytes than offered")]
    TooLong(u64),
    /// An empty chunk before the end.
    #[error("exchange {0}: an empty chunk inside the body")]
    Empty(u64),
    /// A resume beyond the offered length.
    #[error("exchange {0}: resume at byte {1} of {2}")]
    ResumeBeyond(u64, u64, u64),
    /// A receipt before the body was sent, that does not say *already*.
    #[error("exchange {0}: a receipt before the body was sent")]
    EarlyReceipt(u64),
}

fn check_hello(hello: &Hello, purpose: Purpose) -> Result<(), Breach> {
    if hello.purpose != purpose {
        return Err(Breach::Hello);
    }
    hello.agree().map(|_| ()).ok_or(Breach::Version(hello.oldest, hello.newest))
}

/// Why an envelope from a peer is not fit for custody; the words go back to the sender.
pub fn check_envelope(envelope: &Envelope) -> Result<(), &'static str> {
    let e = envelope;
    let texts = [
        &e.identity.key,
        &e.calling_ae,
        &e.called_ae,
        &e.sop_class,
        &e.transfer_syntax,
        &e.study,
        &e.series,
        &e.modality,
        &e.accession,
        &e.patient_id,
    ];
    if e.identity.key.is_empty() {
        return Err("the envelope has no key");
    }
    if e.flags.len() > FLAGS_MAX {
        return Err("the envelope has too many flags");
    }
    for text in texts.into_iter().chain(&e.flags) {
        if text.len() > TEXT_LENGTH_MAX {
            return Err("a text in the envelope is too long");
        }
        if text.chars().any(char::is_control) {
            return Err("a text in the envelope has control characters");
        }
    }
    Ok(())
}

/// What the receiver's driver has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Cargo is offered. With `ask`, answer before any body comes.
    Offered(Box<Offer>),
    /// Bytes of a body; `last`: it is whole.
    Body {
        /// Which exchange.
        exchange: u64,
        /// The bytes, in order.
        bytes: Bytes,
        /// True when the body is whole: commit and answer.
        last: bool,
    },
    /// The sender has given up this body: forget it (what is durable for a resume stays).
    Withdrawn {
        /// Which exchange.
        exchange: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for our answer.
    Asked,
    /// Bytes up to here have come.
    Body { at: u64 },
    /// Answered before its end; the rest is discarded.
    Draining { at: u64 },
}

#[derive(Debug)]
struct OpenBody {
    length: u64,
    phase: Phase,
}

/// The receiver's end of a lane.
#[derive(Debug, Default)]
pub struct Incoming {
    greeted: bool,
    last: u64,
    open: BTreeMap<u64, OpenBody>,
}

impl Incoming {
    /// Exchanges whose body is not whole.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes the next frame from the sender.
    pub fn on_frame(&mut self, frame: Frame) -> Result<Step, Breach> {
        if !self.greeted {
            let Frame::Hello(hello) = frame else { return Err(Breach::Hello) };
            check_hello(&hello, Purpose::Cargo)?;
            self.greeted = true;
            return Ok(Step::Nothing);
        }
        match frame {
            Frame::Hello(_) => Err(Breach::Hello),
            Frame::Offer(offer) => self.on_offer(offer),
            Frame::Chunk { exchange, bytes } => self.on_chunk(exchange, bytes),
            Frame::Withdraw(w) => match self.open.remove(&w.exchange) {
                Some(OpenBody { phase: Phase::Draining { .. }, .. }) => Ok(Step::Nothing),
                Some(_) => Ok(Step::Withdrawn { exchange: w.exchange }),
                // Its last chunk and our early answer crossed on the line.
                None if w.exchange <= self.last => Ok(Step::Nothing),
                None => Err(Breach::OutOfTurn(w.exchange)),
            },
            Frame::Receipts(_) | Frame::Resume(_) | Frame::Refuse(_) => Err(Breach::Direction),
        }
    }

    fn on_offer(&mut self, offer: Box<Offer>) -> Result<Step, Breach> {
        if offer.exchange != self.last.wrapping_add(1) {
            return Err(Breach::Number(offer.exchange, self.last));
        }
        if self.open.len() >= OPEN_MAX {
            return Err(Breach::TooManyOpen);
        }
        self.last = offer.exchange;
        let phase = if offer.ask { Phase::Asked } else { Phase::Body { at: 0 } };
        self.open.insert(offer.exchange, OpenBody { length: offer.envelope.length, phase });
        Ok(Step::Offered(offer))
    }

    fn on_chunk(&mut self, exchange: u64, bytes: Bytes) -> Result<Step, Breach> {
        let body = self.open.get_mut(&exchange).ok_or(Breach::OutOfTurn(exchange))?;
        let (Phase::Body { at } | Phase::Draining { at }) = &mut body.phase else {
            return Err(Breach::OutOfTurn(exchange));
        };
        let left = body.length - *at;
        if bytes.len() as u64 > left {
            return Err(Breach::TooLong(exchange));
        }
        if bytes.is_empty() && left != 0 {
            return Err(Breach::Empty(exchange));
        }
        *at += bytes.len() as u64;
        let last = *at == body.length;
        let draining = matches!(body.phase, Phase::Draining { .. });
        if last {
            self.open.remove(&exchange);
        }
        Ok(if draining { Step::Nothing } else { Step::Body { exchange, bytes, last } })
    }

    /// The driver answers an asking offer with [`Resume`]: the body follows from `from` on.
    ///
    /// # Panics
    ///
    /// When the exchange has not asked, or `from` exceeds its length: a bug of ours.
    pub fn resume(&mut self, exchange: u64, from: u64) {
        let body = self.open.get_mut(&exchange).expect("an open exchange");
        assert!(body.phase == Phase::Asked && from <= body.length, "resume out of turn");
        body.phase = Phase::Body { at: from };
    }

    /// The driver has given the final answer of an exchange: what still comes of its body is
    /// discarded.
    pub fn answered(&mut self, exchange: u64) {
        let Some(body) = self.open.get_mut(&exchange) else { return };
        match body.phase {
            Phase::Asked => {
                self.open.remove(&exchange);
            }
            Phase::Body { at } => body.phase = Phase::Draining { at },
            Phase::Draining { .. } => {}
        }
    }
}

/// What an answer of the receiver means for the sender's driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Nothing,
    /// Send the body from this byte on.
    Resume {
        /// Which exchange.
        exchange: u64,
        /// First byte to send.
        from: u64,
    },
    /// These exchanges are over, if their receipts verify.
    Receipts(Vec<SignedReceipt>),
    /// This exchange is over.
    Refused(Refuse),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Asked,
    Body,
    Sent,
}

#[derive(Debug)]
struct InFlight {
    length: u64,
    at: u64,
    state: Sending,
}

/// The sender's end of a lane.
#[derive(Debug, Default)]
pub struct Outgoing {
    greeted: bool,
    last: u64,
    bytes: u64,
    in_flight: BTreeMap<u64, InFlight>,
}

impl Outgoing {
    /// How many more exchanges and bytes may be offered now; bytes are never fewer than
    /// [`SMALL_MAX`] when there is room at all.
    pub fn room(&self) -> Option<(usize, u64)> {
        let items = IN_FLIGHT_ITEMS_MAX.saturating_sub(self.in_flight.len());
        let bytes = IN_FLIGHT_BYTES_MAX.saturating_sub(self.bytes);
        (items > 0 && bytes >= SMALL_MAX).then_some((items, bytes))
    }

    /// True when every exchange has its answer.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Opens an exchange. Bodies above [`SMALL_MAX`] ask first.
    pub fn offer(&mut self, envelope: Envelope) -> Offer {
        self.last += 1;
        let ask = envelope.length > SMALL_MAX;
        let state = if ask { Sending::Asked } else { Sending::Body };
        self.bytes += envelope.length;
        let length = envelope.length;
        self.in_flight.insert(self.last, InFlight { length, at: 0, state });
        Offer { exchange: self.last, envelope, coding: 0, ask }
    }

    /// True while body bytes of the exchange are wanted: it is neither answered nor sent.
    pub fn wants_body(&self, exchange: u64) -> bool {
        self.in_flight.get(&exchange).is_some_and(|x| x.state == Sending::Body)
    }

    /// Notes that a chunk of `n` bytes is on its way.
    ///
    /// # Panics
    ///
    /// When the body is not being sent or ends before: a bug of ours.
    pub fn sent(&mut self, exchange: u64, n: usize) {
        let x = self.in_flight.get_mut(&exchange).expect("an exchange in flight");
        x.at += n as u64;
        assert!(x.state == Sending::Body && x.at <= x.length, "body out of turn");
        if x.at == x.length {
            x.state = Sending::Sent;
        }
    }

    /// Forgets an exchange that we withdraw ourselves.
    pub fn withdraw(&mut self, exchange: u64) {
        self.close(exchange);
    }

    fn close(&mut self, exchange: u64) -> Option<InFlight> {
        let x = self.in_flight.remove(&exchange)?;
        self.bytes -= x.length;
        Some(x)
    }

    /// Takes the next frame from the receiver.
    pub fn on_frame(&mut self, frame: Frame) -> Result<Answer, Breach> {
        if !self.greeted {
            let Frame::Hello(hello) = frame else { return Err(Breach::Hello) };
            check_hello(&hello, Purpose::Cargo)?;
            self.greeted = true;
            return Ok(Answer::Nothing);
        }
        match frame {
            Frame::Hello(_) => Err(Breach::Hello),
            Frame::Resume(resume) => self.on_resume(resume),
            Frame::Receipts(receipts) => {
                let mut wanted = Vec::with_capacity(receipts.len());
                for receipt in receipts {
                    if self.on_receipt(&receipt)? {
                        wanted.push(receipt);
                    }
                }
                Ok(Answer::Receipts(wanted))
            }
            Frame::Refuse(refuse) => match self.close(refuse.exchange) {
                Some(_) => Ok(Answer::Refused(refuse)),
                None if refuse.exchange <= self.last => Ok(Answer::Nothing),
                None => Err(Breach::OutOfTurn(refuse.exchange)),
            },
            Frame::Offer(_) | Frame::Chunk { .. } | Frame::Withdraw(_) => Err(Breach::Direction),
        }
    }

    fn on_resume(&mut self, Resume { exchange, from }: Resume) -> Result<Answer, Breach> {
        let Some(x) = self.in_flight.get_mut(&exchange) else {
            // We have withdrawn it before this answer came.
            let known = exchange <= self.last;
            return if known { Ok(Answer::Nothing) } else { Err(Breach::OutOfTurn(exchange)) };
        };
        if x.state != Sending::Asked {
            return Err(Breach::OutOfTurn(exchange));
        }
        if from > x.length {
            return Err(Breach::ResumeBeyond(exchange, from, x.length));
        }
        (x.at, x.state) = (from, Sending::Body);
        Ok(Answer::Resume { exchange, from })
    }

    /// True when the receipt ends an exchange that is open here.
    fn on_receipt(&mut self, receipt: &SignedReceipt) -> Result<bool, Breach> {
        let exchange = receipt.exchange;
        match self.in_flight.get(&exchange) {
            Some(x) if x.state != Sending::Sent && !receipt.already => {
                Err(Breach::EarlyReceipt(exchange))
            }
            Some(_) => {
                self.close(exchange);
                Ok(true)
            }
            None if exchange <= self.last => Ok(false),
            None => Err(Breach::OutOfTurn(exchange)),
        }
    }
}

#[cfg(test)]
mod tests;
