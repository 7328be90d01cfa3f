//! The registrar: the one owner of orders, evidence and verdicts. It drives the pure parts of this
//! room: events in, entries of the book of orders out, and a verdict whenever one could be another.
//!
//! - A yes to a message or a person is given only after its entries are durable. Entries that are
//!   made together, and the verdicts that follow from them, are one change.
//! - It follows what custody has taken, and remembers how far it has come in the same change as what
//!   it has seen. After a crash it goes on there. Custody waits for it some seconds at most.
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
mod candidates;
mod cases;
mod correct;
mod decide;
mod desk;
mod enter;
mod evidence_in;
mod hand_on;
mod header;
mod hold;
mod keys;
mod listed;
mod message;
mod new_order;
mod pass_on;
mod patients;
mod place;
mod priors_in;
mod recall_record;
mod recalls;
mod record;
mod roll;
mod routed;
mod tell;
mod telling;
#[cfg(test)]
mod tests;
mod times;
mod travel;
mod wholes;
mod withdrawn;
mod worklist;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use answers::{CaseStory, Event, OrderStory};
pub use candidates::{CANDIDATES_MAX, Candidate, Wanted};
pub use correct::CORRECTION_PATIENCE;
pub use decide::{DECIDED_MAX, Decision};
pub use desk::{Desk, DeskError};
pub use evidence_in::{CommitmentList, Step};
pub use hand_on::{MESSAGE_BYTES_MAX, Receiver, Receivers};
pub use hold::{HeldStudies, UNTIL_MATCHED};
pub use listed::Listed;
pub use new_order::{Entered, Entry, Flaw, NewOrder};
pub use place::{NoPlace, Place};
pub use priors_in::{PRIORS_MAX, PriorStudies};
pub use recall_record::Asked;
pub use recalls::RecallSource;
pub use record::{LACKING_SHOWN_MAX, Standing, StudyRef, Turn};
pub use roll::{Counts, Page, Row};
pub use travel::{MANIFEST_PAUSE, ORDER_BYTES_MAX, Ways};
pub use wholes::{HINTS_MAX, Hint, Whole, Wholes};
pub use worklist::{FindError, Finding, QUERIES_MAX};

use crate::calls::{self, at_once, later};
use crate::cargo::{NodeName, StudyKey};
use crate::clock::{self, Timestamp};
use crate::custody::overlay::{Overlay, Stopped};
use crate::custody::register::{Book, EnterError};
use crate::custody::{CargoId, Custody, Follower};
use crate::hl7::inbound::Rules as Hl7Rules;
use crate::metrics::Metrics;
use crate::orders::in_hl7::time as hl7_time;
use crate::orders::judge::Rules;
use crate::orders::merges::Merges;
use crate::orders::notice::Rule;
use crate::orders::passing::Door;
use crate::orders::priors::PriorRule;
use crate::orders::retriever::Task;
use cases::Cases;
use desk::Call;
use keys::{CURSOR, OPEN};
use priors_in::Searches;
use recalls::Recalls;
use record::{CaseId, Cursor, Dossier, MergeRecord, OrderRecord};
use roll::Roll;
use tell::Tells;
use travel::Outbox;
use wholes::Hints;

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
/// Pause after a turn that could not be written.
const PAUSE: Duration = Duration::from_secs(1);

/// How a registrar works; already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Nodes whose orders and studies may come here.
    pub peers: Vec<NodeName>,
    /// Times and choices.
    pub rules: Rules,
    /// Whether a route holds images [`UNTIL_MATCHED`], or has done so since the start.
    pub until_matched: bool,
    /// Who gives this site's patient numbers, where a message or an image does not say; empty: not
    /// known.
    pub patient_issuer: String,
    /// How HL7 messages are read.
    pub hl7: Hl7Rules,
    /// Where the times of a message are local that states no offset.
    pub zone: TimeZone,
    /// Archives that are asked for what lacks; the first that has a study's images counts.
    pub sources: Vec<RecallSource>,
    /// Which earlier studies are wanted; the first rule that fits an order counts.
    pub priors: Vec<PriorRule>,
    /// Who is told of what, and when.
    pub notices: Vec<Rule>,
    /// To whom steps are passed on.
    pub pass_on: Door,
}

type Owed = calls::Owed<DeskError>;

/// The state, and its one owner.
struct Registrar {
    config: Config,
    custody: Custody,
    metrics: Metrics,
    store: Overlay,
    cases: Cases,
    roll: Roll,
    outbox: Outbox,
    tells: Tells,
    /// Says that there are new letters.
    letters: Arc<Notify>,
    /// Says which studies of other nodes have become whole.
    hints: Hints,
    holds: BTreeSet<StudyRef>,
    /// Images up to this one may leave.
    left: u64,
    /// Studies of which some is corrected before it is released, and the last image that was done.
    correcting: BTreeMap<StudyRef, CargoId>,
    held: HeldStudies,
    priors: PriorStudies,
    recalls: Recalls,
    searches: Searches,
    ways: Arc<dyn Ways>,
    merges: BTreeMap<NodeName, Merges>,
    cursor: Cursor,
    /// Makes control IDs of answers differ.
    answered: u64,
    /// When metrics were brought up to date.
    shown: Timestamp,
    /// Cases for which other rules are in force.
    anew: times::Anew,
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
    (tasks, priors): (mpsc::Sender<Task>, PriorStudies),
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Desk, tokio::task::JoinHandle<()>) {
    let (calls, inbox) = mpsc::channel(CALLS_MAX);
    let shelf = worklist::Shelf::new(&config, &custody, &metrics);
    let letters = Arc::new(Notify::new());
    let hints = Hints::default();
    let registrar = Registrar {
        store: Overlay::new(custody.clone(), Book::Orders),
        cases: Cases::default(),
        roll: Roll::default(),
        outbox: Outbox::default(),
        tells: Tells::default(),
        letters: letters.clone(),
        hints: hints.clone(),
        holds: BTreeSet::new(),
        left: 0,
        correcting: BTreeMap::new(),
        held,
        priors,
        recalls: Recalls::new(tasks),
        searches: Searches::default(),
        ways,
        merges: BTreeMap::new(),
        cursor: Cursor::default(),
        answered: 0,
        shown: Timestamp::default(),
        anew: times::Anew::default(),
        heard: Timestamp::default(),
        lost: false,
        config,
        custody,
        metrics,
    };
    let task = tokio::spawn(async move {
        // It ends by itself only when custody has stopped, and the node with it.
        shutdown.run_until_cancelled(registrar.work(inbox)).await;
    });
    (Desk { calls: calls.into(), shelf, letters, hints }, task)
}

impl Registrar {
    async fn work(mut self, mut inbox: mpsc::Receiver<Call>) -> Result<(), Stopped> {
        let mut arrived = self.custody.arrived();
        self.custody.until_ready().await;
        self.index_worklist().await?;
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
        let mut due = self.roll.due(now, DUE_MAX);
        let mut more = more || due.len() == DUE_MAX;
        let tells = self.tells.due(now, DUE_MAX);
        more |= tells.len() == DUE_MAX;
        due.extend(tells);
        for case in &due {
            if self.store.is_full() {
                break;
            }
            self.judge(case, now).await?;
        }
        more |= self.judge_anew(now).await?;
        let written = self.end(&mut owed).await?;
        // Only what is durable here is told to others.
        self.hold_and_release().await?;
        let more = self.let_leave().await || more;
        let more = self.correct_some(now).await? || more;
        self.carry(now).await?;
        self.ask_sources(now).await?;
        self.ask_priors(now).await?;
        let letters = self.write_letters(now).await?;
        let mut written = self.end(&mut owed).await? && written;
        // That a message is on its way is durable before custody has it.
        if written && !letters.is_empty() {
            self.hand_on(letters, now).await?;
            written = self.end(&mut owed).await?;
        }
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
        self.anew.end(committed.is_ok());
        for answer in owed.drain(..) {
            answer(committed.clone());
        }
        if committed.is_ok() {
            self.custody.looked_at(Follower::Orders, CargoId(self.cursor.arrival));
            if self.tells.take_made() {
                self.letters.notify_one();
            }
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
        self.correcting.clear();
        self.cursor = self.store.get(CURSOR.to_vec()).await?.unwrap_or_default();
        self.custody.looked_at(Follower::Orders, CargoId(self.cursor.arrival));
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
        let short: Vec<StudyRef> =
            studies.iter().filter(own).filter(|s| recalls::lacks(s)).map(Dossier::study).collect();
        self.recalls.clear();
        self.load_recalls(&short).await?;
        self.load_priors().await?;
        self.load_tells(&orders, &studies);
        self.load_holds().await?;
        self.load_outbox().await
    }

    /// Answers a call, or lays its changes over the book; the answer is said when the turn ends.
    async fn call(&mut self, call: Call, now: Timestamp) -> Result<Owed, Stopped> {
        Ok(match call {
            Call::Message { message, reply } => self.message(&message, now, reply).await?,
            Call::Add { order, by, reply } => later(reply, self.add(*order, &by, now).await?),
            Call::Cancel { number, reason, by, reply } => {
                later(reply, self.cancel(&number, &reason, &by, now).await?)
            }
            Call::Link { study, order, by, reply } => {
                later(reply, self.link(&study, order.as_deref(), &by, now).await?)
            }
            Call::Acknowledge { study, by, reply } => {
                later(reply, self.acknowledge(&study, &by, now).await?)
            }
            Call::Decide { decision, reply } => later(reply, self.decide(decision, now).await?),
            Call::Rules { rules, routes, reply } => {
                self.take_rules(*rules, routes);
                at_once(reply, Ok(()))
            }
            Call::Rows { with_order, page, reply } => {
                at_once(reply, Ok(self.roll.rows(with_order, &page)))
            }
            Call::Missing { page, reply } => at_once(reply, Ok(self.roll.attention(&page))),
            Call::Order { number, reply } => at_once(reply, Ok(self.order_story(&number).await?)),
            Call::Study { study, reply } => {
                at_once(reply, Ok(self.study_story(&study, now).await?))
            }
            Call::Candidates { wanted, reply } => later(reply, Ok(self.candidates(*wanted).await?)),
            Call::Whole { study, reply } => later(reply, Ok(self.whole(&study).await?)),
            Call::IsWanted { study, reply } => later(reply, Ok(self.is_wanted(&study).await?)),
            Call::Routed { images, reply } => later(reply, Ok(self.routed(&images, now).await?)),
            Call::Counts { reply } => at_once(reply, Ok(self.roll.counts(now))),
            Call::Correction { image, reply } => {
                at_once(reply, self.correction(&image.0, &image.1, now).await?)
            }
            Call::Step { step, reply } => {
                let counted = (self.metrics.steps.clone(), step.word());
                evidence_in::later_counted(reply, self.step(*step, now).await?, counted)
            }
            Call::Announce { notice, caller, reply } => {
                evidence_in::later(reply, self.announced(notice, &caller, now).await?)
            }
            Call::Recall { study, reply } => later(reply, self.recall_again(&study, now).await?),
            Call::Recalled { study, answer, reply } => {
                later(reply, self.recalled(&study, &answer, now).await?)
            }
            Call::Priors { order, found, reply } => {
                later(reply, self.priors_found(&order, found, now).await?)
            }
            Call::Listed { worklist, items, reply } => {
                later(reply, self.listed(&worklist, items, now).await?)
            }
            Call::Commitment { list, reply } => {
                evidence_in::later(reply, self.commitment_asked(list, now).await?)
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
        set(&m.withdrawn_studies, counts.withdrawn);
        m.oldest_short.set(counts.oldest_short_seconds as f64);
    }
}
