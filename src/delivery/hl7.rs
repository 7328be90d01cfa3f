//! A receiver of HL7 messages as a destination: MLLP (HL7 2.5 C.4.3), over TLS where configured.
//!
//! The messages are somebody else's, and go out byte for byte. One connection, kept open, and one
//! message on it at a time:
//!
//! | the receiver | then |
//! |---|---|
//! | answers AA, CA | receipted |
//! | answers AE, CE | it may take it later: tried again after a growing wait, the others go on |
//! | answers AR, CR | quarantined |
//! | cannot be reached, closes, is silent, answers anything else | it is down: the same message is sent again, byte for byte, on a new connection after a back-off |
//!
//! A message that is never answered must not stop all others for ever: after [`UNANSWERED_TRIES`] in
//! a row the next one has its turn. Where no message at all is answered it is not the message: then
//! no more than [`ASIDE_MAX`] wait for their turn so.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tracing::debug;

use super::hl7_exchange::{Exchange, control_id};
use super::sender::Sender;
use super::{HL7_LENGTH_MAX, Hl7Target};
use crate::cargo::CargoKind;
use crate::custody::{CargoId, Leased, Outcome, Receipt};
use crate::hl7::ack::Verdict;
use crate::hl7::answer::Answer;
use crate::hl7::charset::Charset;
use crate::hl7::mllp::frame;
use crate::inquiry::dial::{Stream, connect};

/// Tries without an answer after which another message has its turn.
const UNANSWERED_TRIES: u32 = 3;
/// Messages that have lost their turn since the last answer.
const ASIDE_MAX: u32 = 3;
/// Room for one read; only answers come.
const READ_LENGTH: usize = 16 * 1024;

/// Delivers to `target` until shutdown.
pub(super) async fn run(sender: Sender, target: Arc<Hl7Target>) {
    let mut line = Line { sender, target, connection: None, unanswered: None, aside: 0 };
    while line.sender.may_try().await {
        // One at a time: what is more urgent comes before all that waits.
        match line.sender.lease(1).await.pop() {
            Some(leased) => line.deliver(leased).await,
            None => line.rest().await,
        }
    }
    line.hang_up().await;
}

struct Line {
    sender: Sender,
    target: Arc<Hl7Target>,
    connection: Option<Connection>,
    /// The message that was not answered at the last try, and how many tries were not.
    unanswered: Option<(CargoId, u32)>,
    /// Messages put aside since the last answer.
    aside: u32,
}

struct Connection {
    stream: Box<dyn Stream>,
    exchange: Exchange,
    /// Nothing was answered since it lay idle: it may have died unnoticed.
    rested: bool,
}

impl Line {
    /// Waits until there may be work, and sees when the receiver hangs up meanwhile.
    async fn rest(&mut self) {
        let stopped = self.sender.stopped();
        let Some(connection) = &mut self.connection else {
            tokio::select! {
                () = self.sender.work() => {}
                () = stopped => {}
            }
            return;
        };
        connection.rested = true;
        tokio::select! {
            why = connection.until_of_no_use() => {
                debug!(destination = %self.sender.destination, why, "connection ended while idle");
                self.connection = None;
            }
            () = self.sender.work() => {}
            () = stopped => {}
        }
    }

    async fn hang_up(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _ = timeout(self.target.timeouts.connect, connection.stream.shutdown()).await;
        }
    }

    async fn deliver(&mut self, leased: Leased) {
        let (message, id) = match fit(&leased, self.target.charset).await {
            Ok(message) => message,
            Err(outcome) => return self.sender.settle(leased, outcome).await,
        };
        let answer = match self.send(&message, &id).await {
            Ok(answer) => answer,
            Err(Trouble::Down(why)) => return self.sender.failed(why),
            Err(Trouble::Unanswered(why)) => return self.not_answered(leased, why).await,
        };
        (self.unanswered, self.aside) = (None, 0);
        self.sender.answered();
        if answer.refused.is_some() {
            debug!(
                destination = %self.sender.destination,
                cargo = leased.cargo.0,
                words = answer.words,
                "HL7 message refused"
            );
        }
        match answer.refused {
            None => {
                let (code, control_id) = (answer.code().to_owned(), answer.control_id);
                let receipt = Receipt::Hl7 { code, control_id };
                self.sender.settle(leased, Outcome::Receipted { receipt }).await;
            }
            Some(Verdict::Error) => self.sender.try_later(leased, answer.told()).await,
            Some(Verdict::Reject) => {
                let reason = format!("{} to message {id}", answer.told());
                self.sender.settle(leased, Outcome::Quarantine { reason }).await;
            }
        }
    }

    /// Sends a message and waits for its answer. A connection that has died while it lay idle is
    /// made anew once.
    async fn send(&mut self, message: &Bytes, id: &str) -> Result<Answer, Trouble> {
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => Connection::open(&self.target).await.map_err(Trouble::Down)?,
            };
            let rested = connection.rested;
            match connection.ask(message, id, self.target.timeouts.response).await {
                Ok(answer) => {
                    connection.rested = false;
                    self.connection = Some(connection);
                    return Ok(answer);
                }
                Err(Broke::Closed(_)) if rested => {}
                Err(Broke::Closed(why) | Broke::Other(why)) => {
                    return Err(Trouble::Unanswered(why));
                }
            }
        }
    }

    async fn not_answered(&mut self, leased: Leased, why: String) {
        let tries = match self.unanswered {
            Some((cargo, tries)) if cargo == leased.cargo => tries + 1,
            _ => 1,
        };
        self.unanswered = Some((leased.cargo, tries));
        self.sender.failed(why.clone());
        if tries >= UNANSWERED_TRIES && self.aside < ASIDE_MAX {
            self.aside += 1;
            self.unanswered = None;
            self.sender.try_later(leased, format!("{why} ({tries} times)")).await;
        }
        // Else the lease goes back: the same message is the next one.
    }
}

/// The frame to send and its control ID, or what becomes of cargo that is no message.
async fn fit(leased: &Leased, charset: Charset) -> Result<(Bytes, String), Outcome> {
    let never = |reason: String| Outcome::Quarantine { reason };
    let kind = leased.envelope.kind;
    if !matches!(kind, CargoKind::Order | CargoKind::Report) {
        return Err(never(format!("a {kind} cannot go to an hl7 destination")));
    }
    let length = leased.body.len();
    if length > HL7_LENGTH_MAX {
        return Err(never(format!(
            "{length} bytes are more than the {HL7_LENGTH_MAX} that are sent"
        )));
    }
    let bytes = leased.body.read().await;
    let bytes = bytes.map_err(|e| Outcome::Damaged { reason: e.to_string() })?;
    let Some(id) = control_id(&bytes, charset) else {
        return Err(never(format!("a {kind} that is no HL7 message with an MSH-10")));
    };
    Ok((frame(&bytes).map_err(|e| never(e.to_string()))?, id))
}

/// Why a message has no answer, in words without patient data.
enum Trouble {
    /// It was not sent.
    Down(String),
    /// Whether the receiver has it is unknown.
    Unanswered(String),
}

/// Why a connection ended.
enum Broke {
    /// The receiver hung up, or the network did.
    Closed(String),
    Other(String),
}

impl Connection {
    async fn open(target: &Hl7Target) -> Result<Self, String> {
        let Hl7Target { host, port, tls, charset, timeouts } = target;
        let stream = connect(host, *port, tls.as_ref(), timeouts.connect).await;
        let stream = stream.map_err(|e| e.to_string())?;
        Ok(Self { stream, exchange: Exchange::new(*charset), rested: false })
    }

    async fn ask(&mut self, message: &Bytes, id: &str, limit: Duration) -> Result<Answer, Broke> {
        self.exchange.send(id.to_owned());
        let silent = |what| Broke::Other(format!("no {what} within {} s", limit.as_secs()));
        let written = async {
            self.stream.write_all(message).await?;
            self.stream.flush().await
        };
        match timeout(limit, written).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(Broke::Closed(format!("the connection broke: {e}"))),
            Err(_) => return Err(silent("taking of the message")),
        }
        match timeout(limit, self.answer()).await {
            Ok(answer) => answer,
            Err(_) => Err(silent("answer")),
        }
    }

    async fn answer(&mut self) -> Result<Answer, Broke> {
        loop {
            match self.exchange.answer() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => self.read().await?,
                Err(lost) => return Err(Broke::Other(lost.to_string())),
            }
        }
    }

    /// Returns with the reason when nothing can be sent any more.
    async fn until_of_no_use(&mut self) -> String {
        loop {
            // Nothing is awaited: an answer here is a second one, or none of ours.
            if let Err(lost) = self.exchange.answer() {
                return lost.to_string();
            }
            if let Err(Broke::Closed(why) | Broke::Other(why)) = self.read().await {
                return why;
            }
        }
    }

    async fn read(&mut self) -> Result<(), Broke> {
        let mut room = BytesMut::with_capacity(READ_LENGTH);
        match self.stream.read_buf(&mut room).await {
            Ok(0) => Err(Broke::Closed("the receiver closed the connection".into())),
            Ok(_) => {
                self.exchange.push(&room);
                Ok(())
            }
            Err(e) => Err(Broke::Closed(format!("the connection broke: {e}"))),
        }
    }
}
