//! The one owner of custody: a thread that takes requests in turns.
//!
//! A turn gathers what is waiting, appends it, syncs each log that a *yes* waits for once, applies
//! it to the ledger as one batch, and only then answers. Scans (leases, listings) come after the
//! batch, so that they see whole turns.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::fcntl::Flock;
use tokio::sync::{mpsc, oneshot};

use super::assembly::Yard;
use super::fact::{self, Fact};
use super::fresh::Fresh;
use super::leap::LeapWatch;
use super::ledger::{Checkpoint, LedgerError};
use super::log::{AppendError, Log, Place};
use super::recovery::{Building, Built};
use super::room::Usage;
use super::rows::{CargoId, DestinationNumber, origin_key};
use super::schedule::Schedule;
use super::view::View;
use super::{Config, Draft, Follower, Kept, Leased, Outcome, Shared, TakeError, Want};
use crate::cargo::{Assignment, DestinationName, Identity, Sha256};
use crate::clock::{self, Monotonic, Timestamp};
use crate::metrics::Metrics;

/// Requests in one turn.
const TURN_REQUESTS: usize = 256;
/// Bytes appended in one turn.
const TURN_BYTES: u64 = 32 << 20;
/// How often time passes for the custodian.
const TICK: Duration = Duration::from_millis(50);

/// A look at the state, run between turns.
pub(super) type Look = Box<dyn FnOnce(&mut Custodian) + Send>;
/// An answer that waits for the end of the turn; told whether the turn was made durable.
pub(super) type Answer = Box<dyn FnOnce(bool) + Send>;

/// What the custodian is asked.
pub(super) enum Request {
    Take {
        draft: Box<Draft>,
        /// Digest of the bytes as received, where it was corrected.
        received: Option<Sha256>,
        reply: oneshot::Sender<Result<Kept, TakeError>>,
    },
    Find {
        identity: Identity,
        reply: oneshot::Sender<Option<Kept>>,
    },
    RouteAgain {
        cargo: CargoId,
        assignments: Vec<Assignment>,
        reply: oneshot::Sender<Result<(), TakeError>>,
    },
    Lease {
        want: Want,
        reply: oneshot::Sender<Vec<Leased>>,
    },
    Settle {
        cargo: CargoId,
        destination: DestinationName,
        outcome: Outcome,
    },
    Look(Look),
    Tick,
    Close {
        reply: oneshot::Sender<()>,
    },
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Take { .. } => "Take",
            Self::Find { .. } => "Find",
            Self::RouteAgain { .. } => "RouteAgain",
            Self::Lease { .. } => "Lease",
            Self::Settle { .. } => "Settle",
            Self::Look(_) => "Look",
            Self::Tick => "Tick",
            Self::Close { .. } => "Close",
        })
    }
}

/// Whether the ledger can be asked.
#[derive(Debug)]
pub(super) enum LedgerState {
    /// It says what the logs say.
    Ready(Box<View>),
    /// It is being proven or rebuilt by another thread; cargo is taken unchecked meanwhile.
    Building(Building),
}

/// The state and its only owner.
pub(super) struct Custodian {
    pub(super) config: Config,
    pub(super) cargo_log: Log,
    pub(super) fact_log: Log,
    pub(super) ledger: LedgerState,
    pub(super) schedule: Schedule,
    pub(super) yard: Arc<Yard>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Metrics,
    pub(super) usage: Usage,
    pub(super) leap: LeapWatch,
    /// Chains that are facts already, by leaf.
    pub(super) chains: HashSet<[u8; 32]>,
    /// Destinations that may have new work since the last turn.
    pub(super) woken: BTreeSet<DestinationName>,
    /// Cargo has come since the last turn.
    pub(super) has_arrivals: bool,
    pub(super) housekeeping: super::reclaim::Housekeeping,
    /// When cargo was last refused because the spool or its disk is full.
    pub(super) full_at: Option<Monotonic>,
    /// Why the last write to the spool failed, in words; cleared by the next that succeeds.
    pub(super) unwritable: Option<String>,
    /// In words, for people: what was found amiss at the start and since.
    pub(super) findings: Vec<String>,
    /// What a kill left half written, in words.
    pub(super) torn: Vec<String>,
    pub(super) counter: u32,
    pub(super) epoch: u64,
    /// Bytes that this turn appended to the cargo log.
    pub(super) appended: u64,
    answers: Vec<Answer>,
    sync_cargo: bool,
    sync_facts: bool,
    _lock: Flock<File>,
}

impl Custodian {
    /// Starts the thread. It ends at [`Request::Close`], when the stop switch is thrown, or when
    /// all handles are gone.
    pub(super) fn start(mut self, inbox: mpsc::Receiver<Request>, ticks: mpsc::Sender<Request>) {
        let ticker = ticks.downgrade();
        drop(ticks);
        let _ = thread::Builder::new().name("custody-tick".into()).spawn(move || {
            while let Some(ticks) = ticker.upgrade() {
                if matches!(
                    ticks.try_send(Request::Tick),
                    Err(mpsc::error::TrySendError::Closed(_))
                ) {
                    return;
                }
                drop(ticks);
                thread::sleep(TICK);
            }
        });
        let shared = self.shared.clone();
        let spawned = thread::Builder::new().name("custodian".into()).spawn(move || {
            let guard = PanicGuard(self.shared.clone());
            let closing = self.run(inbox);
            // The lock on the folder goes with the state, before anybody hears of the end.
            drop(self);
            std::mem::forget(guard);
            if let Some(reply) = closing {
                let _ = reply.send(());
            }
        });
        if let Err(e) = spawned {
            shared.stop.stop(format!("the custodian's thread does not start: {e}"));
        }
    }

    /// Turns until the end. Returns who waits for it.
    fn run(&mut self, mut inbox: mpsc::Receiver<Request>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        while closing.is_none() {
            let Some(first) = inbox.blocking_recv() else { break };
            if self.shared.stop.is_stopped() {
                return closing;
            }
            closing = self.turn(first, &mut inbox);
        }
        self.close();
        closing
    }

    /// One turn. Returns who waits for the end when it was the last.
    fn turn(
        &mut self,
        first: Request,
        inbox: &mut mpsc::Receiver<Request>,
    ) -> Option<oneshot::Sender<()>> {
        let mut later = Vec::new();
        let mut next = Some(first);
        let mut requests = 0;
        let mut closing = None;
        self.appended = 0;
        while let Some(request) = next {
            match request {
                Request::Close { reply } => closing = Some(reply),
                Request::Lease { .. } | Request::Look(_) | Request::Tick => later.push(request),
                change => self.change(change),
            }
            requests += 1;
            let full = requests >= TURN_REQUESTS || self.appended >= TURN_BYTES;
            next = if full || closing.is_some() { None } else { inbox.try_recv().ok() };
        }
        self.take_back();
        if !self.end_turn() {
            return closing;
        }
        for request in later {
            match request {
                Request::Lease { want, reply } => {
                    let _ = reply.send(self.lease(&want));
                }
                Request::Look(look) => look(self),
                _ => self.tick(clock::now(), clock::wall()),
            }
            // A look or a tick may have changed rows; scans must see whole turns.
            if !self.end_turn() {
                return closing;
            }
        }
        self.signal();
        closing
    }

    fn change(&mut self, request: Request) {
        match request {
            Request::Take { draft, received, reply } => self.take(*draft, received, reply),
            Request::Find { identity, reply } => {
                // It may have been appended in this very turn: the yes waits for the sync.
                let found = self.find(&identity);
                self.needs_cargo_sync();
                self.answer(Box::new(move |durable| {
                    let _ = reply.send(found.filter(|_| durable));
                }));
            }
            Request::RouteAgain { cargo, assignments, reply } => {
                let result = self.route_again(cargo, &assignments);
                self.answer(Box::new(move |durable| {
                    let stopped = Err(TakeError::Stopped);
                    let _ = reply.send(if durable { result } else { stopped });
                }));
            }
            Request::Settle { cargo, destination, outcome } => {
                self.settle(cargo, &destination, outcome);
            }
            _ => {}
        }
    }

    /// Has `answer` given at the end of the turn.
    pub(super) fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    /// A yes of this turn rests on the cargo log.
    pub(super) const fn needs_cargo_sync(&mut self) {
        self.sync_cargo = true;
    }

    /// An answer of this turn rests on the fact log.
    pub(super) const fn needs_facts_sync(&mut self) {
        self.sync_facts = true;
    }

    /// Syncs what answers wait for, applies the turn to the ledger, answers. False when custody
    /// has stopped.
    pub(super) fn end_turn(&mut self) -> bool {
        let durable = self.sync_turn();
        if durable {
            self.commit();
        }
        let durable = durable && !self.shared.stop.is_stopped();
        for answer in std::mem::take(&mut self.answers) {
            answer(durable);
        }
        durable
    }

    fn sync_turn(&mut self) -> bool {
        if self.shared.stop.is_stopped() {
            return false;
        }
        if std::mem::take(&mut self.sync_cargo) && !self.sync(Which::Cargo) {
            return false;
        }
        if std::mem::take(&mut self.sync_facts) && !self.sync(Which::Facts) {
            return false;
        }
        true
    }

    /// Makes a log durable; throws the stop switch when that fails.
    pub(super) fn sync(&mut self, which: Which) -> bool {
        let (log, word) = match which {
            Which::Cargo => (&mut self.cargo_log, "cargo"),
            Which::Facts => (&mut self.fact_log, "fact"),
        };
        if !log.dirty() {
            return true;
        }
        let started = clock::now();
        let result = log.sync();
        self.metrics.sync_seconds.observe(clock::now().since(started).as_secs_f64());
        match result {
            Ok(()) => true,
            Err(e) => {
                self.shared.stop.stop(format!("a sync of the {word} log failed: {e}"));
                false
            }
        }
    }

    fn commit(&mut self) {
        let checkpoint = self.checkpoint(false);
        if let LedgerState::Ready(view) = &mut self.ledger
            && let Err(e) = view.commit(checkpoint)
        {
            self.ledger_failed(&e);
        }
    }

    /// The ledger cannot be trusted any more: stop; the next start rebuilds it.
    pub(super) fn ledger_failed(&self, e: &LedgerError) {
        // The reserve may be what the next start needs.
        self.give_up_reserve_if_full();
        self.shared.stop.stop_for_ledger(format!("{e}; the next start rebuilds the ledger"));
    }

    /// How far the logs reach now.
    pub(super) fn checkpoint(&self, clean: bool) -> Checkpoint {
        let highest = self.cargo_log.segments().last().copied().unwrap_or(0);
        Checkpoint {
            cargo: self.cargo_log.end(),
            cargo_highest: highest,
            facts: self.fact_log.end(),
            clean,
            ..Checkpoint::default()
        }
    }

    /// Appends a fact and applies it. Durable with the next sync of the fact log.
    pub(super) fn state(&mut self, fact: &Fact) -> Result<Place, AppendError> {
        let bytes = fact::encode(fact);
        let at = clock::wall();
        let mut result = self.fact_log.append(at, 0, &bytes, &[], None);
        if result.as_ref().is_err_and(AppendError::is_full) {
            // The reserve belongs to the fact log: what is in custody must be able to drain.
            self.give_up_reserve();
            result = self.fact_log.append(at, 0, &bytes, &[], None);
        }
        match result {
            Ok((place, _)) => {
                if let LedgerState::Ready(view) = &mut self.ledger
                    && let Err(e) = view.apply_fact(place, fact)
                {
                    self.ledger_failed(&e);
                }
                self.write_succeeded();
                Ok(place)
            }
            Err(e) => {
                if let AppendError::Sync(e) = &e {
                    self.shared.stop.stop(format!("a sync of the fact log failed: {e}"));
                } else {
                    self.write_failed(&e);
                }
                Err(e)
            }
        }
    }

    /// Says that the spool cannot be written to. Until it can, nothing is leased: receipts could
    /// not be written down, and the same cargo would be sent again and again.
    pub(super) fn write_failed(&mut self, e: &AppendError) {
        if self.unwritable.is_none() {
            tracing::error!(error = %e, "the spool cannot be written to; it is tried every second");
        }
        self.unwritable = Some(e.to_string());
    }

    fn write_succeeded(&mut self) {
        if self.unwritable.take().is_some() {
            tracing::info!("the spool can be written to again");
            self.wake_all();
        }
    }

    /// Remembers a finding for people, up to a number that people read.
    pub(super) fn find_fault(&mut self, what: String) {
        const FINDINGS_MAX: usize = 100;
        match self.findings.len().cmp(&FINDINGS_MAX) {
            std::cmp::Ordering::Less => self.findings.push(what),
            std::cmp::Ordering::Equal => self.findings.push("and more: see the log".into()),
            std::cmp::Ordering::Greater => {}
        }
    }

    /// The view, when the ledger can be asked.
    pub(super) fn view(&mut self) -> Option<&mut View> {
        match &mut self.ledger {
            LedgerState::Ready(view) => Some(view),
            LedgerState::Building(_) => None,
        }
    }

    /// A number for new cargo.
    pub(super) fn next_id(&mut self) -> CargoId {
        let id = self.epoch << 32 | u64::from(self.counter);
        self.counter = self.counter.checked_add(1).expect("a restart before four billion images");
        CargoId(id)
    }

    /// The number that [`next_id`](Self::next_id) gives next.
    pub(super) fn peek_id(&self) -> CargoId {
        CargoId(self.epoch << 32 | u64::from(self.counter))
    }

    /// Says that the destination may have new work.
    pub(super) fn wake(&mut self, number: DestinationNumber) {
        if let LedgerState::Ready(view) = &self.ledger {
            self.woken.insert(view.name(number).clone());
        }
    }

    fn signal(&mut self) {
        if std::mem::take(&mut self.has_arrivals) {
            self.shared.arrived.send_modify(|n| *n = n.wrapping_add(1));
        }
        if self.woken.is_empty() {
            return;
        }
        let signals = self.shared.signals.lock().expect("no panic while signalling");
        for name in std::mem::take(&mut self.woken) {
            if let Some(signal) = signals.get(&name) {
                signal.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
    }

    fn tick(&mut self, now: Monotonic, wall: Timestamp) {
        self.adopt_built_ledger();
        self.wake_deferred(now);
        let passed = self.schedule.fresh.pass(now);
        self.wake_fresh(passed);
        if self.fact_log.dirty() && !self.sync(Which::Facts) {
            return;
        }
        self.keep_house(now, wall);
    }

    /// Switches to the ledger that another thread has built, once it is ready.
    fn adopt_built_ledger(&mut self) {
        let LedgerState::Building(building) = &mut self.ledger else { return };
        let Some(built) = building.poll() else { return };
        match built {
            Built::View(view, done) => {
                self.ledger = LedgerState::Ready(view);
                if let Err(e) = self.catch_up(&done) {
                    self.shared.stop.stop(format!("catching up with the logs failed: {e}"));
                }
                self.has_arrivals = true;
                let before = self.peek_id();
                self.schedule.fresh.begin(clock::now(), before);
                self.wake_all();
            }
            Built::Failed(why) => {
                self.shared.stop.stop(format!("rebuilding the ledger failed: {why}"));
            }
        }
    }

    /// Wakes every destination, after a start.
    pub(super) fn wake_all(&mut self) {
        if let LedgerState::Ready(view) = &self.ledger {
            self.woken.extend(view.destinations().iter().cloned());
        }
    }

    fn close(&mut self) {
        if self.shared.stop.is_stopped() || !self.end_turn() {
            return;
        }
        if !self.sync(Which::Cargo) || !self.sync(Which::Facts) {
            return;
        }
        self.refresh_ledger();
        let checkpoint = self.checkpoint(true);
        let sealed = self.cargo_log.seal().and_then(|()| self.fact_log.seal());
        if let Err(e) = sealed {
            tracing::warn!(error = %e, "the logs could not be sealed; the next start surveys them");
            return;
        }
        if let LedgerState::Ready(view) = &mut self.ledger {
            let closed = view.commit(checkpoint).and_then(|()| view.ledger.flush());
            let synced = closed.map(|()| super::recovery::sync_ledger(&self.config.data));
            if !matches!(synced, Ok(Ok(()))) {
                tracing::warn!("the ledger could not be closed cleanly; the next start proves it");
            }
        }
        self.shared.stop.close();
    }

    /// Opens a large ledger anew, before it is called clean: the next start is short.
    fn refresh_ledger(&mut self) {
        let away = LedgerState::Building(Building::nothing());
        match std::mem::replace(&mut self.ledger, away) {
            LedgerState::Ready(view) if view.ledger.is_long() => {
                match view.refresh(&self.config.data.join("ledger")) {
                    Ok(view) => self.ledger = LedgerState::Ready(Box::new(view)),
                    Err(e) => tracing::warn!(error = %e, "the next start proves the ledger"),
                }
            }
            other => self.ledger = other,
        }
    }
}

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Cargo,
    Facts,
}

/// Throws the stop switch when the custodian panics: no handle may wait for a dead owner.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        self.0.stop.stop("the custodian ended by a panic".into());
    }
}

impl Custodian {
    #[expect(clippy::too_many_arguments, reason = "called once, by recovery")]
    pub(super) fn assemble(
        config: Config,
        cargo_log: Log,
        fact_log: Log,
        ledger: LedgerState,
        yard: Arc<Yard>,
        shared: Arc<Shared>,
        metrics: Metrics,
        leap: LeapWatch,
        findings: Vec<String>,
        lock: Flock<File>,
    ) -> Self {
        let epoch = cargo_log.active_number();
        let mut schedule = Schedule::default();
        if config.followed.contains(&Follower::Orders) {
            schedule.fresh = Fresh::followed(origin_key(&config.node));
            schedule.fresh.begin(clock::now(), CargoId(epoch << 32));
        }
        Self {
            config,
            cargo_log,
            fact_log,
            ledger,
            schedule,
            yard,
            shared,
            metrics,
            usage: Usage::default(),
            leap,
            chains: HashSet::new(),
            woken: BTreeSet::new(),
            has_arrivals: true,
            housekeeping: super::reclaim::Housekeeping::default(),
            full_at: None,
            unwritable: None,
            findings,
            torn: Vec::new(),
            counter: 0,
            epoch,
            appended: 0,
            answers: Vec::new(),
            sync_cargo: false,
            sync_facts: false,
            _lock: lock,
        }
    }
}
