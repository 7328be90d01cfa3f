//! Cargo out: the lanes on which this node offers what it owes to one peer.
//!
//! Each lane leases from custody, sends, and settles each duty when its receipt verifies. A lease
//! that is dropped (the connection is lost, the node stops) goes back to the queue by itself; what
//! the peer then has already, it answers with *Have*.
//!
//! Limits: the lanes of [`LANES`]; a lane holds at most
//! [`IN_FLIGHT_ITEMS_MAX`](super::exchange::IN_FLIGHT_ITEMS_MAX) leases, and the bytes of one
//! small body, or one chunk of a large one, in memory.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::exchange::{Answer, Outgoing, SMALL_MAX};
use super::frame::{Frame, Purpose, Refusal, Refuse, SignedReceipt, Withdraw, chunk_header};
use super::gate::Gate;
use super::lane::{FrameReader, LaneError, greet, priority};
use super::receipt::Verifier;
use crate::cargo::{DestinationName, Envelope, Urgency, peer_text};
use crate::clock::{self, Monotonic};
use crate::custody::{Body, BodyError, CargoId, Custody, Leased, Outcome, Receipt, Want};

/// One kind of lane: class, how many of them, and whether for large cargo.
pub(crate) const LANES: [(Urgency, usize, bool); 8] = [
    (Urgency::Stat, 2, false),
    (Urgency::Urgent, 2, false),
    (Urgency::Routine, 4, false),
    (Urgency::Bulk, 2, false),
    (Urgency::Stat, 1, true),
    (Urgency::Urgent, 1, true),
    (Urgency::Routine, 2, true),
    (Urgency::Bulk, 1, true),
];

/// Most duties leased at once by one lane, so that lanes share a queue fairly.
const LEASE_ITEMS_MAX: usize = 16;
/// A signal from custody is a hint; after this time a lane looks without one.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Wrong digests of one piece of cargo before it is quarantined.
const DIGEST_STRIKES_MAX: u8 = 3;
/// Pieces of cargo whose strikes are remembered; beyond it all are forgotten.
const STRIKES_REMEMBERED_MAX: usize = 1024;
/// Refusals for want of room in a row after which a lane pauses.
const REFUSALS_BEFORE_PAUSE: u8 = 3;
/// Bounds of what a peer may ask us to wait.
const RETRY_AFTER: RangeInclusive<u64> = 1..=300;
/// Wait after a wrong digest.
const RETRY_AFTER_FAULT: Duration = Duration::from_secs(5);

/// All lanes out of one connection.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) custody: Custody,
    pub(crate) connection: Connection,
    pub(crate) destination: DestinationName,
    pub(crate) gate: Arc<Gate>,
    pub(crate) verifier: Verifier,
    /// Cancelled: lease nothing more, wait for what is in flight.
    pub(crate) stop: CancellationToken,
    pub(crate) strikes: Mutex<HashMap<CargoId, u8>>,
}

#[derive(Debug)]
struct Lane {
    class: Urgency,
    large: bool,
    state: Mutex<State>,
    /// An answer has come.
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    outgoing: Outgoing,
    leases: HashMap<u64, Leased>,
    /// Where to go on with the body that was asked about.
    resume: Option<u64>,
    refusals: u8,
    pause_until: Option<Monotonic>,
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Runs one lane until the connection ends, or until all is receipted after a stop.
    pub(crate) async fn lane(
        self: Arc<Self>,
        class: Urgency,
        large: bool,
    ) -> Result<(), LaneError> {
        let (mut send, recv) = self.connection.open_bi().await.map_err(quinn::WriteError::from)?;
        let _ = send.set_priority(priority(class));
        greet(&mut send, self.custody.node(), Purpose::Cargo).await?;
        let lane = Lane { class, large, state: Mutex::default(), answered: Notify::new() };
        let write = async {
            self.write(&lane, &mut send).await?;
            let _ = send.finish();
            Ok(())
        };
        tokio::try_join!(write, self.read(&lane, recv)).map(|_| ())
    }

    async fn write(&self, lane: &Lane, send: &mut SendStream) -> Result<(), LaneError> {
        let mut signal = self.custody.signal(&self.destination);
        loop {
            if self.stop.is_cancelled() {
                while !lane.state().outgoing.is_idle() {
                    lane.answered.notified().await;
                }
                return Ok(());
            }
            let Some(want) = self.want(lane) else {
                self.rest(lane).await;
                continue;
            };
            signal.borrow_and_update();
            let leased = self.custody.lease(want).await;
            if leased.is_empty() {
                tokio::select! {
                    changed = signal.changed() => if changed.is_err() {
                        self.stop.cancelled().await;
                    },
                    () = self.stop.cancelled() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
                continue;
            }
            for leased in leased {
                if lane.large {
                    self.send_large(lane, send, leased).await?;
                } else {
                    self.send_small(lane, send, leased).await?;
                }
            }
        }
    }

    /// What this lane may lease now; `None` while it pauses or has too much in flight.
    fn want(&self, lane: &Lane) -> Option<Want> {
        let mut state = lane.state();
        if state.pause_until.is_some_and(|until| clock::now() < until) {
            return None;
        }
        state.pause_until = None;
        let mut classes = [false; 4];
        classes[lane.class.index()] = true;
        let destination = self.destination.clone();
        if lane.large {
            let length = SMALL_MAX + 1..=u64::MAX;
            let idle = state.outgoing.is_idle();
            return idle.then_some(Want {
                destination,
                classes,
                length,
                items_max: 1,
                bytes_max: u64::MAX,
            });
        }
        let (items, bytes_max) = state.outgoing.room()?;
        let items_max = items.min(LEASE_ITEMS_MAX);
        Some(Want { destination, classes, length: 0..=SMALL_MAX, items_max, bytes_max })
    }

    async fn rest(&self, lane: &Lane) {
        let pause = lane.state().pause_until.map(|until| until.since(clock::now()));
        tokio::select! {
            () = lane.answered.notified() => {}
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause.unwrap_or(LOOK_AGAIN)) => {}
        }
    }

    /// Sends a body that fits in memory, without waiting for any answer.
    async fn send_small(
        &self,
        lane: &Lane,
        send: &mut SendStream,
        leased: Leased,
    ) -> Result<(), LaneError> {
        let _presence = self.gate.enter(lane.class);
        let body = match leased.body.read().await {
            Ok(body) if body.len() as u64 == leased.envelope.length => body,
            Ok(_) => {
                self.custody.settle(leased, unreadable(&short())).await;
                return Ok(());
            }
            Err(e) => {
                self.custody.settle(leased, unreadable(&e)).await;
                return Ok(());
            }
        };
        let exchange = offer(lane, send, leased).await?;
        let mut rest = body;
        loop {
            let chunk = rest.split_to(self.gate.chunk().min(rest.len()));
            if !self.send_chunk(lane, send, exchange, chunk).await? || rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Asks where to go on, then streams.
    async fn send_large(
        &self,
        lane: &Lane,
        send: &mut SendStream,
        leased: Leased,
    ) -> Result<(), LaneError> {
        let body = leased.body.clone();
        if body.len() != leased.envelope.length {
            self.custody.settle(leased, unreadable(&short())).await;
            return Ok(());
        }
        let exchange = offer(lane, send, leased).await?;
        let from = loop {
            {
                let mut state = lane.state();
                if !state.leases.contains_key(&exchange) {
                    return Ok(());
                }
                if let Some(from) = state.resume.take() {
                    break from;
                }
            }
            lane.answered.notified().await;
        };
        let _presence = self.gate.enter(lane.class);
        match self.stream(lane, send, exchange, &body, from).await? {
            Ok(()) => Ok(()),
            Err(e) => {
                let leased = {
                    let mut state = lane.state();
                    state.outgoing.withdraw(exchange);
                    state.leases.remove(&exchange)
                };
                send.write_all(&Frame::Withdraw(Withdraw { exchange }).encode()).await?;
                if let Some(leased) = leased {
                    self.custody.settle(leased, unreadable(&e)).await;
                }
                Ok(())
            }
        }
    }

    async fn stream(
        &self,
        lane: &Lane,
        send: &mut SendStream,
        exchange: u64,
        body: &Body,
        from: u64,
    ) -> Result<Result<(), BodyError>, LaneError> {
        if from == body.len() {
            self.send_chunk(lane, send, exchange, Bytes::new()).await?;
            return Ok(Ok(()));
        }
        let mut reader = body.reader(from);
        loop {
            match reader.next(self.gate.chunk()).await {
                Err(e) => return Ok(Err(e)),
                Ok(None) if lane.state().outgoing.wants_body(exchange) => return Ok(Err(short())),
                Ok(None) => return Ok(Ok(())),
                Ok(Some(chunk)) => {
                    if !self.send_chunk(lane, send, exchange, chunk).await? {
                        return Ok(Ok(()));
                    }
                }
            }
        }
    }

    /// Sends a chunk when it is this class's turn. False when the exchange has its answer already
    /// and no more of the body is wanted.
    async fn send_chunk(
        &self,
        lane: &Lane,
        send: &mut SendStream,
        exchange: u64,
        chunk: Bytes,
    ) -> Result<bool, LaneError> {
        self.gate.turn(lane.class, chunk.len()).await;
        let wanted = {
            let mut state = lane.state();
            let wanted = state.outgoing.wants_body(exchange);
            if wanted {
                // Before the bytes leave: the receipt may come as soon as they have.
                state.outgoing.sent(exchange, chunk.len());
            }
            wanted
        };
        if !wanted {
            send.write_all(&Frame::Withdraw(Withdraw { exchange }).encode()).await?;
            return Ok(false);
        }
        let header = Bytes::copy_from_slice(&chunk_header(exchange, chunk.len()));
        send.write_all_chunks(&mut [header, chunk]).await?;
        Ok(true)
    }

    async fn read(&self, lane: &Lane, recv: RecvStream) -> Result<(), LaneError> {
        let mut reader = FrameReader::new(recv);
        loop {
            let Some(frame) = reader.next().await? else {
                let done = self.stop.is_cancelled() && lane.state().outgoing.is_idle();
                return if done { Ok(()) } else { Err(LaneError::Ended) };
            };
            let answer = lane.state().outgoing.on_frame(frame)?;
            match answer {
                Answer::Nothing => {}
                Answer::Resume { from, .. } => lane.state().resume = Some(from),
                Answer::Receipts(receipts) => {
                    for receipt in receipts {
                        self.receipted(lane, receipt).await?;
                    }
                }
                Answer::Refused(refuse) => self.refused(lane, refuse).await,
            }
            lane.answered.notify_one();
        }
    }

    async fn receipted(&self, lane: &Lane, receipt: SignedReceipt) -> Result<(), LaneError> {
        let leased = {
            let mut state = lane.state();
            state.refusals = 0;
            state.leases.remove(&receipt.exchange)
        };
        let Some(leased) = leased else { return Ok(()) };
        let SignedReceipt { statement, signature, .. } = receipt;
        self.verifier.check(&leased.envelope, &statement, &signature)?;
        let chain = self.verifier.chain();
        let receipt = Receipt::Node { statement, signature, chain };
        self.custody.settle(leased, Outcome::Receipted { receipt }).await;
        Ok(())
    }

    async fn refused(&self, lane: &Lane, refuse: Refuse) {
        let after = u64::from(refuse.retry_after).clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end());
        let after = Duration::from_secs(after);
        let refusal = Refusal::of(refuse.reason);
        let no_room = matches!(refusal, Refusal::Full | Refusal::Busy | Refusal::Io);
        let leased = {
            let mut state = lane.state();
            state.refusals = if no_room { state.refusals.saturating_add(1) } else { 0 };
            if state.refusals >= REFUSALS_BEFORE_PAUSE {
                state.pause_until = Some(clock::now() + after);
            }
            state.leases.remove(&refuse.exchange)
        };
        let Some(leased) = leased else { return };
        let words = format!("{} refused it: {}", self.destination, peer_text(&refuse.words));
        let outcome = match refusal {
            Refusal::Full | Refusal::Busy | Refusal::Io => Outcome::Retry { cause: words, after },
            Refusal::Digest if !self.strike_out(leased.cargo) => {
                Outcome::Retry { cause: words, after: RETRY_AFTER_FAULT }
            }
            Refusal::Digest
            | Refusal::Relay
            | Refusal::TooLarge
            | Refusal::Envelope
            | Refusal::Coding => Outcome::Quarantine { reason: words },
        };
        self.custody.settle(leased, outcome).await;
    }

    /// Counts a wrong digest; true at the third.
    fn strike_out(&self, cargo: CargoId) -> bool {
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        if strikes.len() >= STRIKES_REMEMBERED_MAX {
            strikes.clear();
        }
        let count = strikes.entry(cargo).or_default();
        *count += 1;
        let out = *count >= DIGEST_STRIKES_MAX;
        if out {
            strikes.remove(&cargo);
        }
        out
    }
}

async fn offer(lane: &Lane, send: &mut SendStream, leased: Leased) -> Result<u64, LaneError> {
    let offer = {
        let mut state = lane.state();
        let urgency = leased.urgency;
        let offer = state.outgoing.offer(Envelope { urgency, ..leased.envelope.clone() });
        state.resume = None;
        state.leases.insert(offer.exchange, leased);
        offer
    };
    let exchange = offer.exchange;
    send.write_all(&Frame::Offer(Box::new(offer)).encode()).await?;
    Ok(exchange)
}

fn short() -> BodyError {
    BodyError::Damaged("they are fewer or more than the envelope says".into())
}

fn unreadable(error: &BodyError) -> Outcome {
    Outcome::Damaged { reason: error.to_string() }
}
