//! The registrar: the one owner of orders, evidence and verdicts. It drives the pure parts of this
//! room: events in, entries of the book of orders out, and a verdict whenever one could be another.
//!
//! - A yes to a message or a person is given only after its entries are durable. Entries that are
//!   made together, and the verdicts that follow from them, are one change.
//! - Images are never waited for or held up: it follows what custody has taken, and remembers how
//!   far it has come in the same change as what it has seen. After a crash it goes on there.
//! - Nothing of custody is given back to the disk before the registrar has looked at it.
//! - Work for an image is proportional to the logarithm of its study, and for a verdict to what
//!   lacks; a study that is not in memory is read once, with all of its instances.
//!
//! Limits: [`CALLS_MAX`] calls wait; a turn takes [`TURN_CALLS_MAX`] of them, [`ARRIVALS_MAX`]
//! arrivals and [`DUE_MAX`] cases that are due. Memory: the open cases (`roll`), and the studies
//! last looked at (`cases`).
//!
//! A turn that custody cannot write is answered with no, leaves no trace, and is taken up again
//! from what is durable.

mod answers;
mod cases;
mod enter;
mod evidence_in;
mod header;
mod hold;
mod message;
mod record;
mod roll;
mod store;
mod travel;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use answers::{CaseStory, Event, OrderStory};
pub use enter::NewOrder;
pub use evidence_in::Step;
pub use hold::{HeldStudies, UNTIL_MATCHED};
pub use record::{LACKING_SHOWN_MAX, Standing, StudyRef, Turn};
pub use roll::{Counts, Row};
pub use travel::{MANIFEST_PAUSE, ORDER_BYTES_MAX, Ways};

use crate::cargo::{NodeName, StudyKey};
use crate::clock::{self, Timestamp};
use crate::custody::register::EnterError;
use crate::custody::{CargoId, Custody};
use crate::dicom::availability::Notice;
use crate::dicom::fault::Fault;
use crate::hl7::inbound::Rules as Hl7Rules;
use crate::metrics::Metrics;
use crate::orders::judge::Rules;
use crate::orders::merges::Merges;
use crate::orders::verdict::What;
use cases::Cases;
use record::{CURSOR, CaseId, Cursor, Dossier, MergeRecord, OPEN, OrderRecord};
use roll::Roll;
use store::{Stopped, Store};
use travel::Outbox;

/// Calls that may wait.
pub const CALLS_MAX: usize = 256;
/// Calls of one turn.
pub const TURN_CALLS_MAX: usize = 64;
/// Arrivals of one turn.
pub const ARRIVALS_MAX: usize = 128;
/// Cases of one turn that are judged because their time has come.
pub const DUE_MAX: usize = 64;
/// Most open cases that a start reads.
const OPEN_MAX: usize = 1_000_000;
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often it is asked whether the ledger is ready.
const LOOK: Duration = Duration::from_millis(20);
/// Pause after a turn that could not be written.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for an answer of the registrar, such as while the ledger is being rebuilt.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a registrar works; already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Nodes whose orders and studies may come here.
    pub peers: Vec<NodeName>,
    /// Times and choices.
    pub rules: Rules,
    /// Whether a route holds images [`UNTIL_MATCHED`].
    pub until_matched: bool,
    /// Who gives this site's patient numbers, where a message or an image does not say; empty: not
    /// known.
    pub patient_issuer: String,
    /// How HL7 messages are read.
    pub hl7: Hl7Rules,
    /// Where the times of a message are local that states no offset.
    pub zone: TimeZone,
}

/// Why the registrar does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// What was asked makes no sense here; the text says why.
    #[error("{0}")]
    Refused(String),
    /// It could not be made durable: nothing has changed.
    #[error("nothing has changed: {0}")]
    NotKept(String),
    /// The registrar has stopped, or is not ready yet.
    #[error("orders are not available: the node is starting or stopping")]
    Stopped,
}

type Answer<T> = oneshot::Sender<Result<T, DeskError>>;

/// What the registrar is asked. Public only so that [`Desk`] can carry it.
pub(in crate::orders) enum Call {
    Message { message: Bytes, reply: oneshot::Sender<Vec<Bytes>> },
    Add { order: Box<NewOrder>, by: String, reply: Answer<String> },
    Cancel { number: String, reason: String, by: String, reply: Answer<String> },
    Link { study: String, order: Option<String>, by: String, reply: Answer<String> },
    Rows { with_order: bool, what: Option<What>, max: usize, reply: Answer<Vec<Row>> },
    Missing { max: usize, reply: Answer<Vec<Row>> },
    Order { number: String, reply: Answer<Vec<OrderStory>> },
    Study { study: String, reply: Answer<Vec<CaseStory>> },
    Counts { reply: Answer<Counts> },
    Step { step: Box<Step>, reply: oneshot::Sender<Result<(), Fault>> },
    Announce { notice: Notice, caller: String, reply: oneshot::Sender<Result<(), Fault>> },
}

/// Where others ask the registrar. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    calls: mpsc::Sender<Call>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Desk {
    async fn ask<T>(&self, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, DeskError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.calls.send(call(reply)).await.map_err(|_| DeskError::Stopped)?;
            answer.await.map_err(|_| DeskError::Stopped)?
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(DeskError::Stopped))
    }

    /// Takes one HL7 message and says what to answer. A yes among the answers is durable; no
    /// answer at all means that the node stops, and the sender keeps the message.
    pub async fn message(&self, message: Bytes) -> Vec<Bytes> {
        let (reply, answers) = oneshot::channel();
        if self.calls.send(Call::Message { message, reply }).await.is_err() {
            return Vec::new();
        }
        answers.await.unwrap_or_default()
    }

    /// Takes an order from a person or another system; its number.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed.
    pub async fn add(&self, order: NewOrder, by: String) -> Result<String, DeskError> {
        self.ask(|reply| Call::Add { order: Box::new(order), by, reply }).await
    }

    /// Cancels an order of this node; its number.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed.
    pub async fn cancel(
        &self,
        number: String,
        reason: String,
        by: String,
    ) -> Result<String, DeskError> {
        self.ask(|reply| Call::Cancel { number, reason, by, reply }).await
    }

    /// A person says to which order a study belongs (`None`: to none); how it stands then, in
    /// words.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed.
    pub async fn link(
        &self,
        study: String,
        order: Option<String>,
        by: String,
    ) -> Result<String, DeskError> {
        self.ask(|reply| Call::Link { study, order, by, reply }).await
    }

    /// Open cases that have an order, at most `max`, of one kind or all.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn orders(&self, what: Option<What>, max: usize) -> Result<Vec<Row>, DeskError> {
        self.ask(|reply| Call::Rows { with_order: true, what, max, reply }).await
    }

    /// Cases that need attention, gravest first, at most `max`.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn missing(&self, max: usize) -> Result<Vec<Row>, DeskError> {
        self.ask(|reply| Call::Missing { max, reply }).await
    }

    /// All that is known of the orders with this number: one for each origin that has one.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn order(&self, number: String) -> Result<Vec<OrderStory>, DeskError> {
        self.ask(|reply| Call::Order { number, reply }).await
    }

    /// All that is known of the studies with this UID: one for each origin that has one.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn study(&self, study: String) -> Result<Vec<CaseStory>, DeskError> {
        self.ask(|reply| Call::Study { study, reply }).await
    }

    async fn tell(
        &self,
        call: impl FnOnce(oneshot::Sender<Result<(), Fault>>) -> Call,
    ) -> Result<(), Fault> {
        let (reply, answer) = oneshot::channel();
        let gone = || Fault::failed("the node is starting or stopping");
        self.calls.send(call(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// A modality begins or changes a performed procedure step.
    ///
    /// # Errors
    ///
    /// The response to give; nothing has changed.
    pub async fn step(&self, step: Step) -> Result<(), Fault> {
        self.tell(|reply| Call::Step { step: Box::new(step), reply }).await
    }

    /// An archive says what it has.
    ///
    /// # Errors
    ///
    /// The response to give; nothing has changed.
    pub async fn announce(&self, notice: Notice, caller: String) -> Result<(), Fault> {
        self.tell(|reply| Call::Announce { notice, caller, reply }).await
    }

    /// How many cases are how; without patient data.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn counts(&self) -> Result<Counts, DeskError> {
        self.ask(|reply| Call::Counts { reply }).await
    }
}

/// Says its answer once the turn is durable, or why it is not.
type Owed = Box<dyn FnOnce(Result<(), DeskError>) + Send>;

/// The state, and its one owner.
struct Registrar {
    config: Config,
    custody: Custody,
    metrics: Metrics,
    store: Store,
    cases: Cases,
    roll: Roll,
    outbox: Outbox,
    holds: BTreeSet<StudyRef>,
    held: HeldStudies,
    ways: Arc<dyn Ways>,
    merges: BTreeMap<NodeName, Merges>,
    cursor: Cursor,
    /// Makes control IDs of answers differ.
    answered: u64,
    /// When metrics were brought up to date.
    shown: Timestamp,
    /// When the last message was heard.
    heard: Timestamp,
    /// What this turn has laid over the book is lost, though the turn goes on.
    lost: bool,
}

/// Starts the registrar of a node. It works until `shutdown`, which must come after everything that
/// asks it has ended.
pub fn start(
    config: Config,
    custody: Custody,
    (ways, held): (Arc<dyn Ways>, HeldStudies),
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Desk, tokio::task::JoinHandle<()>) {
    let (calls, inbox) = mpsc::channel(CALLS_MAX);
    let registrar = Registrar {
        store: Store::new(custody.clone()),
        cases: Cases::default(),
        roll: Roll::default(),
        outbox: Outbox::default(),
        holds: BTreeSet::new(),
        held,
        ways,
        merges: BTreeMap::new(),
        cursor: Cursor::default(),
        answered: 0,
        shown: Timestamp::default(),
        heard: Timestamp::default(),
        lost: false,
        config,
        custody,
        metrics,
    };
    let task = tokio::spawn(async move {
        let work = registrar.work(inbox);
        tokio::select! {
            () = shutdown.cancelled() => {}
            // Custody has stopped, and the node with it.
            Err(Stopped) = work => shutdown.cancelled().await,
        }
    });
    (Desk { calls }, task)
}

impl Registrar {
    async fn work(mut self, mut inbox: mpsc::Receiver<Call>) -> Result<(), Stopped> {
        let mut arrived = self.custody.arrived();
        while !self.custody.summary().ready {
            tokio::time::sleep(LOOK).await;
        }
        self.load().await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more = true;
        loop {
            let mut calls = Vec::new();
            tokio::select! {
                biased;
                n = inbox.recv_many(&mut calls, TURN_CALLS_MAX) => if n == 0 { return Err(Stopped) },
                changed = arrived.changed() => if changed.is_err() { return Err(Stopped) },
                _ = tick.tick() => {}
                () = std::future::ready(()), if more => {}
            }
            more = self.turn(calls).await?;
        }
    }

    /// One turn: what was asked, what has come, whose time has come; then all of it durable, then
    /// the answers. True when there is more to do at once.
    async fn turn(&mut self, calls: Vec<Call>) -> Result<bool, Stopped> {
        let now = clock::wall();
        let mut owed: Vec<Owed> = Vec::new();
        let mut calls = calls.into_iter();
        // Each call is small beside what a turn may hold, but all together may not be.
        for call in calls.by_ref() {
            owed.push(self.call(call, now).await?);
            if self.store.is_full() {
                self.end(&mut owed).await?;
            }
        }
        let more = self.take_arrivals(now).await?;
        let due = self.roll.due(now, DUE_MAX);
        for case in &due {
            if self.store.is_full() {
                break;
            }
            self.judge(case, now).await?;
        }
        let more = more || due.len() == DUE_MAX;
        let written = self.end(&mut owed).await?;
        // Only what is durable here is told to others.
        self.hold_and_release().await?;
        self.carry(now).await?;
        let written = self.end(&mut owed).await? && written;
        if !written {
            tokio::time::sleep(PAUSE).await;
        }
        self.cases.forget_some();
        if now.seconds_since(self.shown) > 0 || now < self.shown {
            self.shown = now;
            self.show(now);
        }
        Ok(more || !written)
    }

    /// Makes the turn durable and says the answers; false when it could not be written.
    async fn end(&mut self, owed: &mut Vec<Owed>) -> Result<bool, Stopped> {
        let committed = self.write_down().await?;
        self.lost = false;
        for answer in owed.drain(..) {
            answer(committed.clone());
        }
        if committed.is_ok() {
            self.custody.looked_at(CargoId(self.cursor.arrival));
        }
        Ok(committed.is_ok())
    }

    /// Writes down what a long call has so far, in the middle of a turn; false when it could not be,
    /// and the whole turn is answered with no.
    async fn write_some(&mut self) -> Result<bool, Stopped> {
        Ok(self.write_down().await?.is_ok())
    }

    async fn write_down(&mut self) -> Result<Result<(), DeskError>, Stopped> {
        self.cases.write(&mut self.store);
        let committed = match self.lost {
            true => Err(EnterError::Io("an earlier part of the same turn was not kept".into())),
            false => self.store.commit().await,
        };
        let Err(error) = committed else { return Ok(Ok(())) };
        if error == EnterError::Stopped {
            return Err(Stopped);
        }
        tracing::warn!(%error, "orders and evidence cannot be written down just now");
        self.lost = true;
        self.load().await?;
        Ok(Err(DeskError::NotKept(error.to_string())))
    }

    /// Reads what is durable, as at the start.
    async fn load(&mut self) -> Result<(), Stopped> {
        self.store.forget();
        self.cases = Cases::default();
        self.roll = Roll::default();
        self.merges.clear();
        self.cursor = self.store.get(CURSOR.to_vec()).await?.unwrap_or_default();
        self.custody.looked_at(CargoId(self.cursor.arrival));
        let merges: Vec<MergeRecord> = self.store.below(b"p", usize::MAX).await?;
        for m in merges {
            let known = self.merges.entry(m.origin).or_default();
            known.apply(&m.stamp, &m.survivor, &m.retired);
        }
        let orders: Vec<OrderRecord> = self.store.with(OPEN, b'o', OPEN_MAX).await?;
        orders.iter().filter_map(Row::of_order).for_each(|row| self.roll.set(row));
        let studies: Vec<Dossier> = self.store.with(OPEN, b's', OPEN_MAX).await?;
        let own = |s: &&Dossier| s.facts.origin == self.config.node;
        let held = studies.iter().filter(own).filter_map(|s| {
            let StudyRef { origin, study } = s.study();
            Some((StudyKey::of(&origin, &study), roll::word(s.standing.as_ref()?.hold?)))
        });
        self.held.store(Arc::new(held.collect()));
        studies.iter().filter_map(Row::of_study).for_each(|row| self.roll.set(row));
        self.load_holds().await?;
        self.load_outbox().await
    }

    /// Answers a call, or lays its changes over the book; the answer is said when the turn ends.
    async fn call(&mut self, call: Call, now: Timestamp) -> Result<Owed, Stopped> {
        fn later<T: Send + 'static>(reply: Answer<T>, found: Result<T, DeskError>) -> Owed {
            Box::new(move |durable| drop(reply.send(durable.and(found))))
        }
        fn at_once<T: Send + 'static>(reply: Answer<T>, found: Result<T, DeskError>) -> Owed {
            let _ = reply.send(found);
            Box::new(|_| {})
        }
        Ok(match call {
            Call::Message { message, reply } => self.message(&message, now, reply).await?,
            Call::Add { order, by, reply } => later(reply, self.add(*order, &by, now).await?),
            Call::Cancel { number, reason, by, reply } => {
                later(reply, self.cancel(&number, &reason, &by, now).await?)
            }
            Call::Link { study, order, by, reply } => {
                later(reply, self.link(&study, order.as_deref(), &by, now).await?)
            }
            Call::Rows { with_order, what, max, reply } => {
                at_once(reply, Ok(self.roll.rows(with_order, what, max)))
            }
            Call::Missing { max, reply } => at_once(reply, Ok(self.roll.attention(max))),
            Call::Order { number, reply } => at_once(reply, Ok(self.order_story(&number).await?)),
            Call::Study { study, reply } => {
                at_once(reply, Ok(self.study_story(&study, now).await?))
            }
            Call::Counts { reply } => at_once(reply, Ok(self.roll.counts(now))),
            Call::Step { step, reply } => evidence_in::later(reply, self.step(*step, now).await?),
            Call::Announce { notice, caller, reply } => {
                evidence_in::later(reply, self.announced(notice, &caller, now).await?)
            }
        })
    }

    /// The nodes whose cargo may be here: this one, and those that may send to it.
    fn origins(&self) -> Vec<NodeName> {
        let own = [self.config.node.clone()];
        own.into_iter().chain(self.config.peers.iter().cloned()).collect()
    }

    /// Judges a case anew.
    async fn judge(&mut self, case: &CaseId, now: Timestamp) -> Result<(), Stopped> {
        match case {
            CaseId::Study(study) => self.judge_study(study, now).await,
            CaseId::Order(order) => self.judge_order(order, now).await,
        }
    }

    /// When a message is heard: later than the one before it, though the clock may stand still, since
    /// what was sent at the same time is told apart by it.
    fn hear_at(&mut self, now: Timestamp) -> Timestamp {
        self.heard = now.max(self.heard + Duration::from_millis(1));
        self.heard
    }

    fn show(&self, now: Timestamp) {
        let counts = self.roll.counts(now);
        let m = &self.metrics;
        m.orders.reset();
        for (state, n) in &counts.orders {
            let n = i64::try_from(*n).unwrap_or(i64::MAX);
            m.orders.with_label_values(&[state.as_str()]).set(n);
        }
        let set = |gauge: &prometheus::IntGauge, n: u64| {
            gauge.set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        set(&m.missing_instances, counts.missing_instances);
        set(&m.short_studies, counts.short);
        set(&m.unmatched_studies, counts.unmatched);
        m.oldest_short.set(counts.oldest_short_seconds as f64);
    }
}

/// How HL7 writes a point in time.
fn hl7_time(at: Timestamp, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    at.to_zoned(zone.clone()).strftime("%Y%m%d%H%M%S%z").to_string()
}
