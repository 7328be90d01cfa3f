//! The secretary: the one owner of reports, their versions and the loop of each study. It drives the
//! pure parts of this room: what custody has taken in, entries of the book of reports out.
//!
//! - At the reading node it follows what was collected (`collect`), finds out where each document
//!   belongs, and sends it with a note to the hospital, or holds it for a person.
//! - At the hospital it follows what comes, keeps the versions apart, and hands the latest on to the
//!   hospital's systems; what these answer goes back as a note.
//! - Entries that are made together are one change. What others are to have, a note, a duty, a
//!   message, is part of an entry before custody is asked, and is asked for again after a crash;
//!   custody keeps it once.
//! - No document is reclaimed before it was looked at, nor while what belongs to it has not come.
//!
//! Limits: [`CALLS_MAX`] calls wait; a turn takes [`TURN_CALLS_MAX`] of them, [`ARRIVALS_MAX`]
//! arrivals and [`DUE_MAX`] timers. Memory: open loops and timers, at most [`OPEN_MAX`] of each; of
//! reports nothing beyond the turn.
//!
//! A turn that custody cannot write is answered with no, leaves no trace, and is taken up again
//! from what is durable.

mod alarms;
mod answers;
mod desk;
mod documents;
mod filing;
mod hand_on;
mod handing;
mod letters;
mod loops;
mod notes;
mod outcomes;
mod people;
mod record;
mod talk;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use desk::{
    CriticalRow, Desk, DeskError, Event, HeldRow, LoopRow, Page, Row, Story, VersionStory, Why,
    WordsRow,
};

use super::critical::Ladder;
use super::make::Home;
use super::signers::SignerRules;
use super::turnaround::Promises;
use crate::calls::{self, at_once, later};
use crate::cargo::{DestinationName, NodeName, Sha256};
use crate::clock::{self, Timestamp};
use crate::custody::overlay::{Overlay, Stopped};
use crate::custody::register::{Book, EnterError};
use crate::custody::{CargoId, Custody, Follower};
use crate::metrics::Metrics;
use crate::orders::letter::Letter;
use crate::orders::notice::Rule;
use crate::orders::registrar;
use desk::Call;
use loops::Loops;
use record::{CURSOR, Cursor, NoteRecord, entry};
use timers::Timers;

/// Calls that may wait.
pub const CALLS_MAX: usize = 256;
/// Calls of one turn.
pub const TURN_CALLS_MAX: usize = 64;
/// Arrivals of one turn.
pub const ARRIVALS_MAX: usize = 128;
/// Timers of one turn.
pub const DUE_MAX: usize = 64;
/// Most open loops, and most timers, that a start reads.
pub const OPEN_MAX: usize = 1_000_000;
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How far the clock may go back before all timers are looked at.
const BACK: Duration = Duration::from_secs(60);
/// Pause after a turn that could not be written.
const PAUSE: Duration = Duration::from_secs(1);

/// Who may sign reports for some hospitals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// Which hospitals; empty: all.
    pub hospitals: Vec<NodeName>,
    /// Who.
    pub rules: SignerRules,
}

/// How a secretary works; already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Nodes that reports may come from or go to.
    pub peers: Vec<NodeName>,
    /// Local time of this site.
    pub zone: TimeZone,
    /// The systems of this site that take reports.
    pub homes: BTreeMap<DestinationName, Home>,
    /// Who may sign; of several that fit a hospital the first counts.
    pub signing: Vec<Signing>,
    /// Who is told of a critical result, and when.
    pub ladder: Ladder,
    /// By when what is promised.
    pub promises: Promises,
    /// How long a system may go without a yes before people are told.
    pub alarm: Duration,
    /// Who is told of what.
    pub notices: Vec<Rule>,
}

type Owed = calls::Owed<DeskError>;

/// The state, and its one owner.
struct Secretary {
    config: Config,
    custody: Custody,
    orders: registrar::Desk,
    /// Orders were asked in vain in this turn.
    in_vain: AtomicBool,
    metrics: Metrics,
    store: Overlay,
    timers: Timers,
    loops: Loops,
    /// Notes that custody is to have, by key.
    notes: BTreeMap<String, NoteRecord>,
    /// Documents that are to be sent to their hospital.
    carry: BTreeSet<Sha256>,
    /// Reports of which parts are remembered, and now to be given to custody.
    prepared: BTreeSet<String>,
    /// Documents whose slips have not come, by the number of their cargo.
    waiting: BTreeSet<u64>,
    cursor: Cursor,
    /// Rings when there are new letters.
    letters: Arc<Notify>,
    /// Letters of this turn.
    outgoing: Vec<Letter>,
    /// When metrics were looked at last, and when they were brought up to date.
    shown: Timestamp,
    counted: Timestamp,
}

/// Starts the secretary of a node. It works until `shutdown`, which must come after everything that
/// asks it has ended.
pub fn start(
    config: Config,
    custody: Custody,
    orders: registrar::Desk,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Desk, tokio::task::JoinHandle<()>) {
    let (calls, inbox) = mpsc::channel(CALLS_MAX);
    let secretary = Secretary {
        store: Overlay::new(custody.clone(), Book::Reports),
        timers: Timers::default(),
        loops: Loops::default(),
        notes: BTreeMap::new(),
        carry: BTreeSet::new(),
        prepared: BTreeSet::new(),
        waiting: BTreeSet::new(),
        cursor: Cursor::default(),
        letters: orders.letters(),
        in_vain: AtomicBool::new(false),
        outgoing: Vec::new(),
        shown: Timestamp::default(),
        counted: Timestamp::default(),
        config,
        custody,
        orders,
        metrics,
    };
    let task = tokio::spawn(async move {
        // It ends by itself only when custody has stopped, and the node with it.
        shutdown.run_until_cancelled(secretary.work(inbox)).await;
    });
    (Desk { calls: calls.into() }, task)
}

impl Secretary {
    async fn work(mut self, mut inbox: mpsc::Receiver<Call>) -> Result<(), Stopped> {
        let mut arrived = self.custody.arrived();
        self.custody.until_ready().await;
        self.load().await?;
        let mut wholes = self.orders.wholes();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more = true;
        loop {
            let mut calls = Vec::new();
            tokio::select! {
                biased;
                n = inbox.recv_many(&mut calls, TURN_CALLS_MAX) => if n == 0 { return Err(Stopped) },
                changed = arrived.changed() => if changed.is_err() { return Err(Stopped) },
                hint = next_of(&mut wholes) => self.loops.hint(hint),
                _ = tick.tick() => {}
                () = std::future::ready(()), if more => {}
            }
            more = self.turn(calls).await?;
        }
    }

    /// One turn: what was asked, what has come, whose time has come; then all of it durable, then
    /// the answers; then what custody is to have.
    async fn turn(&mut self, calls: Vec<Call>) -> Result<bool, Stopped> {
        let now = clock::wall();
        if now + BACK < self.shown {
            // The clock went back: what was to be looked at at a time may be far off by now.
            self.timers.all_now(now);
        }
        self.in_vain.store(false, Ordering::Relaxed);
        let mut owed: Vec<Owed> = Vec::new();
        for call in calls {
            owed.push(self.call(call, now).await?);
            if self.store.is_full() {
                self.end(&mut owed).await?;
            }
        }
        let mut more = self.take_arrivals(now).await?;
        more |= self.look_at_wholes(now).await?;
        let due = self.timers.due(now, DUE_MAX);
        more |= due.len() == DUE_MAX;
        for what in due {
            if self.store.is_full() {
                // Its turn is the next one.
                self.timers.set(what, Some(now));
                more = true;
                continue;
            }
            self.look(what, now).await?;
        }
        let mut written = self.end(&mut owed).await?;
        if written {
            self.send_notes(now).await?;
            self.carry_some(now).await?;
            self.hand_prepared(now).await?;
            written = self.end(&mut owed).await?;
        }
        if !written {
            tokio::time::sleep(PAUSE).await;
        }
        if now.seconds_since(self.shown) > 0 || now < self.shown {
            self.shown = now;
            self.show(now).await?;
        }
        Ok(more || !written)
    }

    /// Makes the turn durable and says the answers; false when it could not be written.
    async fn end(&mut self, owed: &mut Vec<Owed>) -> Result<bool, Stopped> {
        let posted = self.post().await?;
        let committed = match posted {
            Ok(()) => self.store.commit().await,
            Err(error) => Err(error),
        };
        let committed = match committed {
            Ok(()) => Ok(()),
            Err(EnterError::Stopped) => return Err(Stopped),
            Err(error) => {
                tracing::warn!(%error, "reports cannot be written down just now");
                self.load().await?;
                Err(DeskError::NotKept(error.to_string()))
            }
        };
        for answer in owed.drain(..) {
            answer(committed.clone());
        }
        if committed.is_ok() {
            // What waits for its slip is not given back to the disk.
            let first = self.waiting.first().map_or(u64::MAX, |n| n.saturating_sub(1));
            let upto = CargoId(self.cursor.arrival.min(first));
            self.custody.looked_at(Follower::Reports, upto);
        }
        Ok(committed.is_ok())
    }

    /// Something's time has come.
    async fn look(&mut self, what: timers::What, now: Timestamp) -> Result<(), Stopped> {
        match what {
            timers::What::Document(sha256) => self.look_at_document(&sha256, now).await,
            timers::What::Report(id) => self.look_at_report(&id, now).await,
            timers::What::Loop(key) => self.look_at_loop(&key, now).await,
        }
    }

    /// Reads what is durable, as at the start.
    async fn load(&mut self) -> Result<(), Stopped> {
        self.store.forget();
        self.outgoing.clear();
        self.prepared.clear();
        let begun = Cursor { arrival: 0, since: clock::wall() };
        self.cursor = self.store.get(CURSOR.to_vec()).await?.unwrap_or(begun);
        self.timers = Timers::default();
        let notes: Vec<NoteRecord> = self.store.below(b"n", OPEN_MAX).await?;
        self.notes = notes.into_iter().map(|note| (note.key.clone(), note)).collect();
        self.load_documents().await?;
        self.load_reports().await?;
        self.load_loops().await
    }

    fn remember_cursor(&mut self, arrival: u64) {
        self.cursor.arrival = arrival;
        self.store.put(entry(CURSOR.to_vec(), &self.cursor, Vec::new()));
    }

    /// Answers a call, or lays its changes over the book; the answer is said when the turn ends.
    async fn call(&mut self, call: Call, now: Timestamp) -> Result<Owed, Stopped> {
        Ok(match call {
            Call::Rows { page, reply } => at_once(reply, self.rows(&page).await?),
            Call::Held { limit, reply } => at_once(reply, self.held(limit).await?),
            Call::Story { of, reply } => at_once(reply, self.stories(&of).await?),
            Call::Form { document, kind, reply } => {
                at_once(reply, self.form(&document, kind).await?)
            }
            Call::Loops { overdue, limit, reply } => {
                at_once(reply, Ok(self.loop_rows(overdue, limit, now)))
            }
            Call::Criticals { all, limit, reply } => {
                at_once(reply, self.criticals(all, limit).await?)
            }
            Call::Words { study, limit, reply } => {
                at_once(reply, self.words_of(&study, limit).await?)
            }
            Call::Match { document, to, by, reply } => {
                later(reply, self.match_by_hand(&document, &to, &by, now).await?)
            }
            Call::Release { document, by, reply } => {
                later(reply, self.release(&document, &by, now).await?)
            }
            Call::Discard { document, reason, by, reply } => {
                later(reply, self.discard(&document, &reason, &by).await?)
            }
            Call::Dismiss { study, by, reply } => {
                later(reply, self.dismiss_loop(&study, &by).await?)
            }
            Call::Flag { report, why, by, reply } => {
                later(reply, self.flag_by_hand(&report, &why, &by, now).await?)
            }
            Call::Acknowledge { report, by, reply } => {
                later(reply, self.acknowledge(&report, &by, now).await?)
            }
            Call::Close { report, done, by, reply } => {
                later(reply, self.close(&report, &by, &done, now).await?)
            }
            Call::Say { study, answers, text, by, reply } => {
                later(reply, self.say(&study, &answers, &text, &by, now).await?)
            }
            Call::SendAgain { report, by, reply } => {
                later(reply, self.send_again(&report, &by, now).await?)
            }
            Call::Rules { config, reply } => {
                self.config = *config;
                self.timers.all_now(now);
                // A result for which there was no rung waits for no time.
                self.load_reports().await?;
                at_once(reply, Ok(()))
            }
        })
    }
}

async fn next_of(wholes: &mut Option<registrar::Wholes>) -> registrar::Hint {
    match wholes {
        Some(wholes) => wholes.next().await,
        None => std::future::pending().await,
    }
}
