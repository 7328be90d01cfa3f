//! Cargo in: what a peer brings on its lanes, into custody.
//!
//! The sending node is the name in the certificate, never what a frame says. Each body is hashed
//! as it comes and refused when its digest is not the offered one; a receipt is signed only with
//! the [`Kept`] of custody in hand. Memory of a lane: one frame being read, at most
//! [`OPEN_MAX`](super::exchange::OPEN_MAX) bodies under custody's budget, and [`TAKES_MAX`] whole
//! bodies waiting for the group commit.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntCounter;
use quinn::SendStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::exchange::{Incoming, SMALL_MAX, Step, check_envelope};
use super::frame::{Frame, Offer, Purpose, RECEIPTS_MAX, Refusal, Refuse, Resume, SignedReceipt};
use super::lane::{FrameReader, LaneError, PRIORITY_ANSWERS, greet};
use super::receipt;
use super::trust::Credentials;
use super::{PeerConfig, Router};
use crate::cargo::{CargoKind, Envelope};
use crate::custody::{AssembleError, Assembly, Custody, Draft, Kept, TakeError};

/// Whole bodies of one lane that wait for custody's commit.
const TAKES_MAX: usize = 32;
/// Answers that wait to be written.
const ANSWERS_MAX: usize = 2 * TAKES_MAX;
/// Bytes of a body that routing looks at.
const HEAD_BYTES: usize = 256 << 10;
/// Seconds after which a sender may try again when there was no room.
const RETRY_AFTER_FULL: u32 = 30;
/// Seconds after which a sender may try again when this node was stopping or could not write.
const RETRY_AFTER_BUSY: u32 = 10;

/// All lanes into one connection.
pub(crate) struct Receiver {
    pub(crate) custody: Custody,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) peer: PeerConfig,
    /// Cargo and bytes received whole.
    pub(crate) received: IntCounter,
    pub(crate) received_bytes: IntCounter,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receiver from {}", self.peer.name)
    }
}

/// What is to be written back.
enum Reply {
    Frame(Frame),
    Receipt { exchange: u64, already: bool, kept: Kept, envelope: Box<Envelope> },
}

struct Receiving {
    envelope: Envelope,
    assembly: Assembly,
}

impl Receiver {
    /// Runs one lane that the peer has opened, whose first frame has been read, until the peer
    /// finishes it.
    pub(crate) async fn lane(
        self: Arc<Self>,
        first: Frame,
        send: SendStream,
        reader: FrameReader,
    ) -> Result<(), LaneError> {
        let (replies, to_write) = mpsc::channel(ANSWERS_MAX);
        let lane = Inbound {
            receiver: self.clone(),
            incoming: Incoming::default(),
            bodies: HashMap::new(),
            takes: JoinSet::new(),
            replies,
        };
        tokio::try_join!(lane.read(first, reader), self.write(send, to_write)).map(|_| ())
    }

    /// Writes replies; receipts in groups of those that are ready.
    async fn write(
        &self,
        mut send: SendStream,
        mut replies: mpsc::Receiver<Reply>,
    ) -> Result<(), LaneError> {
        let _ = send.set_priority(PRIORITY_ANSWERS);
        greet(&mut send, self.custody.node(), Purpose::Cargo).await?;
        let mut ready = Vec::with_capacity(RECEIPTS_MAX);
        while replies.recv_many(&mut ready, RECEIPTS_MAX).await > 0 {
            let mut receipts = vec![];
            for reply in ready.drain(..) {
                match reply {
                    Reply::Frame(frame) => send.write_all(&frame.encode()).await?,
                    Reply::Receipt { exchange, already, kept, envelope } => {
                        let (statement, signature) = self.sign(&kept, &envelope)?;
                        receipts.push(SignedReceipt { exchange, already, statement, signature });
                    }
                }
            }
            if !receipts.is_empty() {
                send.write_all(&Frame::Receipts(receipts).encode()).await?;
            }
        }
        let _ = send.finish();
        Ok(())
    }

    fn sign(&self, kept: &Kept, envelope: &Envelope) -> Result<(Vec<u8>, Vec<u8>), LaneError> {
        let (node, key) = (self.custody.node(), self.credentials.key());
        receipt::issue(kept, envelope, node, key).map_err(LaneError::Sign)
    }

    /// Why an offer is refused before any of its body is looked at.
    fn objection(&self, offer: &Offer) -> Option<(Refusal, String)> {
        let origin = &offer.envelope.identity.origin;
        if offer.coding != 0 {
            return Some((Refusal::Coding, format!("coding {} is not known here", offer.coding)));
        }
        if *origin != self.peer.name && !self.peer.relay.contains(origin) {
            let words = format!("{} may not bring cargo of {origin}", self.peer.name);
            return Some((Refusal::Relay, words));
        }
        if let Err(words) = check_envelope(&offer.envelope) {
            return Some((Refusal::Envelope, words.into()));
        }
        if !offer.ask && offer.envelope.length > SMALL_MAX {
            let words = format!("a body above {SMALL_MAX} bytes must be asked about first");
            return Some((Refusal::Envelope, words));
        }
        None
    }

    /// Hands a whole body to custody.
    async fn keep(&self, exchange: u64, receiving: Receiving) -> Reply {
        let Receiving { envelope, assembly } = receiving;
        let body = assembly.finish();
        if body.sha256() != envelope.identity.sha256 || body.len() != envelope.length {
            let words = "the bytes that came do not have the offered digest".into();
            return refuse(exchange, Refusal::Digest, words);
        }
        self.received.inc();
        self.received_bytes.inc_by(envelope.length);
        let complete = body.head().len() as u64 == body.len();
        let assignments = match envelope.kind {
            // News for this node itself.
            CargoKind::Note => vec![],
            _ => self.router.assign(&envelope, body.head(), complete),
        };
        let draft = Draft { envelope: envelope.clone(), body, assignments };
        match self.custody.take(draft).await {
            Ok(kept) => {
                let already = !kept.is_new();
                Reply::Receipt { exchange, already, kept, envelope: Box::new(envelope) }
            }
            Err(e) => refuse(exchange, refusal_to_take(&e), e.to_string()),
        }
    }

    /// Routes cargo that is here already by what its new offer says: it may have become urgent, or
    /// the rules may have changed. Durable when this returns.
    async fn route_again(&self, kept: &Kept, envelope: &Envelope) -> Result<(), TakeError> {
        if envelope.kind == CargoKind::Note {
            return Ok(());
        }
        // A tombstone has no bytes and goes nowhere any more.
        let Some((_, body)) = self.custody.read(kept.cargo()).await else { return Ok(()) };
        let Ok(head) = body.reader(0).next(HEAD_BYTES).await else { return Ok(()) };
        let head = head.unwrap_or_default();
        let complete = head.len() as u64 == body.len();
        let assignments = self.router.assign(envelope, &head, complete);
        self.custody.route_again(kept, assignments).await
    }
}

fn refusal_to_take(error: &TakeError) -> Refusal {
    match error {
        TakeError::Full(_) => Refusal::Full,
        TakeError::Io(_) => Refusal::Io,
        TakeError::Stopped => Refusal::Busy,
    }
}

fn refuse(exchange: u64, refusal: Refusal, words: String) -> Reply {
    let retry_after = match refusal {
        Refusal::Full => RETRY_AFTER_FULL,
        Refusal::Busy | Refusal::Io => RETRY_AFTER_BUSY,
        _ => 0,
    };
    Reply::Frame(Frame::Refuse(Refuse { exchange, reason: refusal.code(), words, retry_after }))
}

fn refusal_of(error: &AssembleError) -> Refusal {
    match error {
        AssembleError::Full(_) => Refusal::Full,
        AssembleError::TooLarge(_) => Refusal::TooLarge,
        AssembleError::Io(_) => Refusal::Io,
        AssembleError::Stopped => Refusal::Busy,
    }
}

/// One lane: the pure machine, and the bodies that it is about.
struct Inbound {
    receiver: Arc<Receiver>,
    incoming: Incoming,
    bodies: HashMap<u64, Receiving>,
    takes: JoinSet<()>,
    replies: mpsc::Sender<Reply>,
}

impl Inbound {
    async fn read(mut self, first: Frame, mut reader: FrameReader) -> Result<(), LaneError> {
        let mut next = Some(first);
        while let Some(frame) = next {
            match self.incoming.on_frame(frame)? {
                Step::Nothing => {}
                Step::Offered(offer) => self.offered(*offer).await,
                Step::Body { exchange, bytes, last } => self.body(exchange, &bytes, last).await,
                Step::Withdrawn { exchange } => {
                    self.bodies.remove(&exchange);
                }
            }
            next = reader.next().await?;
        }
        while self.takes.join_next().await.is_some() {}
        Ok(())
    }

    /// Sends a reply; when nobody writes any more, the lane is ending anyway.
    async fn reply(&self, reply: Reply) {
        let _ = self.replies.send(reply).await;
    }

    async fn refuse(&mut self, exchange: u64, refusal: Refusal, words: String) {
        self.incoming.answered(exchange);
        self.bodies.remove(&exchange);
        self.reply(refuse(exchange, refusal, words)).await;
    }

    async fn offered(&mut self, offer: Offer) {
        let exchange = offer.exchange;
        if let Some((refusal, words)) = self.receiver.objection(&offer) {
            return self.refuse(exchange, refusal, words).await;
        }
        let envelope = offer.envelope;
        let custody = &self.receiver.custody;
        if let Some(kept) = custody.find(&envelope.identity).await {
            if let Err(e) = self.receiver.route_again(&kept, &envelope).await {
                return self.refuse(exchange, refusal_to_take(&e), e.to_string()).await;
            }
            self.incoming.answered(exchange);
            let envelope = Box::new(envelope);
            return self.reply(Reply::Receipt { exchange, already: true, kept, envelope }).await;
        }
        if !offer.ask {
            let assembly = custody.assemble();
            self.bodies.insert(exchange, Receiving { envelope, assembly });
            return;
        }
        let peer = &self.receiver.peer.name;
        match custody.resume(peer, &envelope.identity, envelope.length).await {
            Ok(assembly) if assembly.len() <= envelope.length => {
                let from = assembly.len();
                self.incoming.resume(exchange, from);
                self.bodies.insert(exchange, Receiving { envelope, assembly });
                self.reply(Reply::Frame(Frame::Resume(Resume { exchange, from }))).await;
            }
            Ok(_) => {
                let words = "the part that is here is longer than what is offered".into();
                self.refuse(exchange, Refusal::Envelope, words).await;
            }
            Err(e) => self.refuse(exchange, refusal_of(&e), e.to_string()).await,
        }
    }

    async fn body(&mut self, exchange: u64, bytes: &Bytes, last: bool) {
        let Some(receiving) = self.bodies.get_mut(&exchange) else { return };
        if let Err(e) = receiving.assembly.push(bytes).await {
            return self.refuse(exchange, refusal_of(&e), e.to_string()).await;
        }
        if !last {
            return;
        }
        let Some(receiving) = self.bodies.remove(&exchange) else { return };
        if self.takes.len() >= TAKES_MAX {
            self.takes.join_next().await;
        }
        while self.takes.try_join_next().is_some() {}
        let (receiver, replies) = (self.receiver.clone(), self.replies.clone());
        self.takes.spawn(async move {
            let reply = receiver.keep(exchange, receiving).await;
            let _ = replies.send(reply).await;
        });
    }
}
