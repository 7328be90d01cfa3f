//! Starting: the lock, both logs, and a ledger that says what they say.
//!
//! After a clean stop the ledger is used as it is. After any other end it is proven in a thread of
//! its own (the sum over its rows, and positions that the logs have) and what the logs say beyond
//! its checkpoint is applied; without the proof it is kept aside and rebuilt from the logs. Intake
//! does not wait for that thread.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;

use nix::fcntl::{Flock, FlockArg};

use super::assembly::Yard;
use super::custodian::{Custodian, LedgerState};
use super::fact::{self, Fact};
use super::leap::{LastClock, LeapWatch};
use super::ledger::{Checkpoint, Ledger, LedgerError};
use super::log::{Log, OpenError as LogOpenError, Place};
use super::rows::{SegmentRow, segment_key};
use super::segment::{Index, LogKind, Record, SEGMENT_HEADER, SegmentHeader};
use super::survey::{Findings, survey};
use super::view::View;
use super::{Config, Shared};
use crate::cargo::NodeName;
use crate::clock;
use crate::metrics::Metrics;

/// Segments of the fact log are small, so that compaction takes small steps.
const FACT_SEGMENT_SIZE: u64 = 4 << 20;
/// Records applied between two commits of a rebuild.
const REBUILD_BATCH: usize = 2000;

/// Why custody does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{path} is in use; is another hikyaku running?")]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// A folder or file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A log does not open.
    #[error(transparent)]
    Log(#[from] LogOpenError),
    /// Not even an empty ledger opens.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A ledger on its way.
#[derive(Debug)]
pub(super) struct Building {
    result: std_mpsc::Receiver<Built>,
}

impl Building {
    /// Stands in for a ledger that is away; nothing will come of it.
    pub(super) fn nothing() -> Self {
        Self { result: std_mpsc::sync_channel(1).1 }
    }

    /// The result, once it is there.
    pub(super) fn poll(&mut self) -> Option<Built> {
        match self.result.try_recv() {
            Ok(built) => Some(built),
            Err(std_mpsc::TryRecvError::Empty) => None,
            Err(std_mpsc::TryRecvError::Disconnected) => {
                Some(Built::Failed("the thread ended by a panic".into()))
            }
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Built {
    /// The view, and how far the logs are applied.
    View(Box<View>, Checkpoint),
    /// In words.
    Failed(String),
}

/// Takes the lock on a data folder.
pub(super) fn lock(data: &Path) -> Result<Flock<File>, OpenError> {
    let path = data.join("lock");
    let io_error = |source| OpenError::Io { path: path.clone(), source };
    // What lies below are patients' images: for this user alone.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(io_error)?;
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
    Flock::lock(file.map_err(io_error)?, FlockArg::LockExclusiveNonblock)
        .map_err(|_| OpenError::InUse { path: path.clone() })
}

/// Whether the folder is free: takes the lock and gives it back.
///
/// # Errors
///
/// [`OpenError::InUse`], or the folder cannot be used.
pub fn try_lock(data: &Path) -> Result<(), OpenError> {
    lock(data).map(drop)
}

impl Custodian {
    pub(super) fn open(
        config: Config,
        lock: Flock<File>,
        yard: Arc<Yard>,
        shared: Arc<Shared>,
        metrics: Metrics,
    ) -> Result<Self, OpenError> {
        let at = clock::wall();
        super::reclaim::make_room_to_start(&config.data);
        let aside = config.data.join("aside");
        let (cargo_dir, fact_dir) = (config.data.join("cargo"), config.data.join("facts"));
        let size = config.segment_size;
        let (cargo_log, found) = Log::open(&cargo_dir, &aside, LogKind::Cargo, size, at)?;
        let (mut fact_log, found_facts) =
            Log::open(&fact_dir, &aside, LogKind::Facts, FACT_SEGMENT_SIZE, at)?;
        let mut findings = report(&[&found, &found_facts], &metrics);
        let last_clock = last_clock(&mut fact_log);
        let leap = LeapWatch::start(last_clock, at);
        if let Some(leap) = leap.leap() {
            tracing::error!(leap, "nothing is deleted until `hikyaku spool confirm-clock`");
        }
        let opened = Ledger::open(&config.data.join("ledger"));
        if let Some(lost) = opened.as_ref().ok().and_then(|l| cut_short(l, &cargo_log, &found)) {
            metrics.damaged.inc();
            tracing::error!("{lost}");
            findings.push(lost);
        }
        let ledger = open_ledger(&config, &cargo_log, &fact_log, &found, &found_facts, opened);
        let ready = matches!(ledger, LedgerState::Ready(_));
        let mut custodian = Self::assemble(
            config, cargo_log, fact_log, ledger, yard, shared, metrics, leap, findings, lock,
        );
        custodian.torn = [found.torn, found_facts.torn].concat();
        custodian.usage.spool = custodian.cargo_log.occupied() + custodian.fact_log.occupied();
        custodian.look_at_disk();
        custodian.keep_reserve();
        if ready {
            let done = custodian.applied();
            custodian.catch_up(&done)?;
        }
        Ok(custodian)
    }

    fn applied(&self) -> Checkpoint {
        match &self.ledger {
            LedgerState::Ready(view) => view.ledger.checkpoint(),
            LedgerState::Building(_) => Checkpoint::default(),
        }
    }

    /// Applies what the logs say beyond `done`, then forgets that the ledger was ever behind.
    pub(super) fn catch_up(&mut self, done: &Checkpoint) -> Result<(), LedgerError> {
        for segment in self.cargo_log.segments() {
            let Some(from) = cargo_from(done, segment) else { continue };
            let end = self.cargo_log.end_of(segment).unwrap_or(SEGMENT_HEADER);
            let Ok((file, header)) = self.cargo_log.file(segment) else { continue };
            for (record, head) in cargo_records(&file, &header).0 {
                if record.offset < from || record.offset >= end {
                    continue;
                }
                if let Some(head) = fact::decode_head(&head) {
                    let place = Place { segment, offset: record.offset };
                    let _ = self.apply_late(place, &record, &head);
                }
            }
        }
        for segment in self.fact_log.segments() {
            let Some(from) = facts_from(done, segment) else { continue };
            let Ok((file, header)) = self.fact_log.file(segment) else { continue };
            for (record, head) in survey(&file, header).unwrap_or_default().records {
                if record.offset < from {
                    continue;
                }
                let place = Place { segment, offset: record.offset };
                if let (Some(fact), Some(view)) = (fact::decode_fact(&head), self.view()) {
                    view.apply_fact(place, &fact)?;
                }
            }
        }
        self.needs_facts_sync();
        self.end_turn();
        self.recall_deferred()?;
        self.wake_all();
        Ok(())
    }
}

fn report(all: &[&Findings], metrics: &Metrics) -> Vec<String> {
    let recovered: u64 = all.iter().map(|f| f.recovered).sum();
    if recovered > 0 {
        tracing::info!(recovered, "records written before the last stop were made durable again");
    }
    for torn in all.iter().flat_map(|f| &f.torn) {
        tracing::warn!("{torn}");
    }
    let mut words = Vec::new();
    for damage in all.iter().flat_map(|f| &f.damage) {
        metrics.damaged.inc();
        tracing::error!("{damage}");
        words.push(damage.clone());
    }
    words
}

/// What the wall clock said when the spool was last told.
fn last_clock(log: &mut Log) -> Option<LastClock> {
    for segment in log.segments().into_iter().rev() {
        let (file, header) = log.file(segment).ok()?;
        let records = survey(&file, header).unwrap_or_default().records;
        let clocks = records.iter().rev().filter_map(|(_, head)| fact::decode_fact(head));
        for fact in clocks {
            if let Fact::Clock { wall, leap, .. } = fact {
                return Some(LastClock { wall, leap });
            }
        }
    }
    None
}

/// Records of a cargo segment, and whether part of it could not be read.
fn cargo_records(file: &File, header: &SegmentHeader) -> (Vec<(Record, Vec<u8>)>, bool) {
    if let Ok(Some(entries)) = Index::read(file, header) {
        return (entries, false);
    }
    match survey(file, *header) {
        Ok(survey) => (survey.records, !survey.damage.is_empty()),
        Err(e) => {
            tracing::error!(segment = header.number, error = %e, "a segment cannot be read");
            (Vec::new(), true)
        }
    }
}

/// Where reading of a cargo segment goes on; `None` when all of it is applied.
const fn cargo_from(done: &Checkpoint, segment: u64) -> Option<u64> {
    if segment == done.cargo.segment {
        Some(done.cargo.offset)
    } else if segment > done.cargo_highest {
        Some(0)
    } else {
        None
    }
}

const fn facts_from(done: &Checkpoint, segment: u64) -> Option<u64> {
    if segment == done.facts.segment {
        Some(done.facts.offset)
    } else if segment > done.facts.segment {
        Some(0)
    } else {
        None
    }
}

/// True when the log has, or had before its unproven tail moved, a record boundary at `place`.
fn has(log: &Log, found: &Findings, place: Place) -> bool {
    if place.segment == 0 {
        return true;
    }
    let had = found.unproven.filter(|p| p.segment == place.segment).map(|p| p.offset);
    had.or_else(|| log.end_of(place.segment)).is_some_and(|end| place.offset <= end)
}

/// In words: cargo that was synced, for the ledger knows of it, and whose file ends before it.
fn cut_short(ledger: &Ledger, log: &Log, found: &Findings) -> Option<String> {
    let Place { segment, offset } = ledger.checkpoint().cargo;
    let had = found.unproven.filter(|p| p.segment == segment).map(|p| p.offset);
    let end = had.or_else(|| log.end_of(segment)).filter(|end| *end < offset)?;
    Some(format!(
        "cargo {}: bytes {end} to {offset} were synced and are gone; ask the senders of the last \
         images before the stop to send them again",
        super::log::segment_name(segment)
    ))
}

/// True when nothing stands in the log beyond `place`.
fn ends_at(log: &Log, place: Place, highest: u64) -> bool {
    let later = log.segments().into_iter().filter(|&n| n > highest);
    log.end_of(place.segment) == Some(place.offset)
        && later.into_iter().all(|n| log.end_of(n) == Some(SEGMENT_HEADER))
}

fn is_empty(log: &Log) -> bool {
    log.segments().into_iter().all(|n| log.end_of(n) == Some(SEGMENT_HEADER))
}

fn open_ledger(
    config: &Config,
    cargo_log: &Log,
    fact_log: &Log,
    found: &Findings,
    found_facts: &Findings,
    opened: Result<Ledger, LedgerError>,
) -> LedgerState {
    let clean = opened.as_ref().is_ok_and(|ledger| {
        let cp = ledger.checkpoint();
        let nothing_yet = cp == Checkpoint::default() && is_empty(cargo_log) && is_empty(fact_log);
        nothing_yet
            || cp.clean
                && found.unproven.is_none()
                && found_facts.unproven.is_none()
                && ends_at(cargo_log, cp.cargo, cp.cargo_highest)
                && ends_at(fact_log, cp.facts, cp.facts.segment)
    });
    let opened = match opened {
        Ok(ledger) if clean => match View::open(config.node.clone(), ledger) {
            Ok(view) => return LedgerState::Ready(Box::new(view)),
            Err(e) => Err(e),
        },
        other => other,
    };
    build(config, cargo_log, fact_log, found, found_facts, opened)
}

fn build(
    config: &Config,
    cargo_log: &Log,
    fact_log: &Log,
    found: &Findings,
    found_facts: &Findings,
    opened: Result<Ledger, LedgerError>,
) -> LedgerState {
    let placed = opened.as_ref().is_ok_and(|ledger| {
        let cp = ledger.checkpoint();
        has(cargo_log, found, cp.cargo) && has(fact_log, found_facts, cp.facts)
    });
    let job = Job {
        node: config.node.clone(),
        data: config.data.clone(),
        cargo: ends(cargo_log),
        facts: ends(fact_log),
        highest: cargo_log.segments().last().copied().unwrap_or(0),
        cargo_end: cargo_log.end(),
        facts_end: fact_log.end(),
    };
    let (tell, result) = std_mpsc::sync_channel(1);
    let spawned = thread::Builder::new().name("ledger-rebuild".into()).spawn(move || {
        let built = job.run(opened, placed).unwrap_or_else(|e| Built::Failed(e.to_string()));
        let _ = tell.send(built);
    });
    if let Err(e) = spawned {
        tracing::error!(error = %e, "no thread for the ledger");
    }
    LedgerState::Building(Building { result })
}

fn ends(log: &Log) -> Vec<(u64, u64)> {
    let end = |n| (n, log.end_of(n).unwrap_or(SEGMENT_HEADER));
    log.segments().into_iter().map(end).collect()
}

/// Proving or rebuilding, from what the logs held when the node started.
struct Job {
    node: NodeName,
    data: PathBuf,
    cargo: Vec<(u64, u64)>,
    facts: Vec<(u64, u64)>,
    highest: u64,
    cargo_end: Place,
    facts_end: Place,
}

impl Job {
    fn run(self, opened: Result<Ledger, LedgerError>, placed: bool) -> Result<Built, OpenError> {
        let started = clock::now();
        let dir = self.data.join("ledger");
        let (ledger, how) = match opened {
            Ok(ledger) if placed && ledger.proves()? => (ledger, "proven"),
            other => {
                let fresh = is_new(&dir, other.as_ref().ok());
                drop(other);
                if !fresh {
                    self.set_aside(&dir)?;
                }
                (Ledger::open(&dir)?, "rebuilt")
            }
        };
        let mut view = View::open(self.node.clone(), ledger)?;
        let from = view.ledger.checkpoint();
        self.replay_cargo(&mut view, &from)?;
        self.replay_facts(&mut view, &from)?;
        let done = Checkpoint {
            cargo: self.cargo_end,
            cargo_highest: self.highest,
            facts: self.facts_end,
            ..Checkpoint::default()
        };
        view.commit(done)?;
        let seconds = clock::now().since(started).as_secs_f32();
        tracing::info!(how, seconds, cargo = view.totals.present, "the ledger is ready");
        Ok(Built::View(Box::new(view), done))
    }

    /// One ledger is kept aside for whoever wants to look; an older one gives way.
    fn set_aside(&self, dir: &Path) -> Result<(), OpenError> {
        let aside = self.data.join("aside");
        let place = aside.join("ledger");
        let moved = fs::create_dir_all(&aside)
            .and_then(|()| match place.exists() {
                true => fs::remove_dir_all(&place),
                false => Ok(()),
            })
            .and_then(|()| fs::rename(dir, &place));
        tracing::warn!("the ledger is not proven equal to the logs; kept as aside/ledger, rebuilt");
        moved.map_err(|source| OpenError::Io { path: dir.into(), source })
    }

    fn replay_cargo(&self, view: &mut View, from: &Checkpoint) -> Result<(), OpenError> {
        let mut batched = 0;
        for &(segment, end) in &self.cargo {
            let Some(offset) = cargo_from(from, segment) else { continue };
            let path = self.data.join("cargo").join(format!("{segment:016x}.seg"));
            let Some((file, header)) = open_segment(&path, LogKind::Cargo) else { continue };
            let (records, damaged) = cargo_records(&file, &header);
            if damaged {
                let key = segment_key(segment);
                let mut row: SegmentRow = view.ledger.get(&key)?.unwrap_or_default();
                row.damaged = true;
                view.ledger.put(key, &row)?;
            }
            for (record, head) in records {
                if record.offset < offset || record.offset >= end {
                    continue;
                }
                let Some(head) = fact::decode_head(&head) else { continue };
                let place = Place { segment, offset: record.offset };
                view.apply_cargo(place, &record, &head)?;
                batched += 1;
                if batched >= REBUILD_BATCH {
                    batched = 0;
                    view.commit(*from)?;
                }
            }
        }
        Ok(view.commit(*from)?)
    }

    fn replay_facts(&self, view: &mut View, from: &Checkpoint) -> Result<(), OpenError> {
        for &(segment, end) in &self.facts {
            let Some(offset) = facts_from(from, segment) else { continue };
            let path = self.data.join("facts").join(format!("{segment:016x}.seg"));
            let Some((file, header)) = open_segment(&path, LogKind::Facts) else { continue };
            for (n, (record, head)) in
                survey(&file, header).unwrap_or_default().records.into_iter().enumerate()
            {
                if record.offset < offset || record.offset >= end {
                    continue;
                }
                if let Some(fact) = fact::decode_fact(&head) {
                    view.apply_fact(Place { segment, offset: record.offset }, &fact)?;
                }
                if n % REBUILD_BATCH == REBUILD_BATCH - 1 {
                    view.commit(*from)?;
                }
            }
        }
        Ok(view.commit(*from)?)
    }
}

fn open_segment(path: &Path, kind: LogKind) -> Option<(File, SegmentHeader)> {
    let file = File::open(path).ok()?;
    let header = SegmentHeader::read(&file, kind).ok()?;
    Some((file, header))
}

/// True for a ledger that was made just now: there is nothing to keep aside.
fn is_new(dir: &Path, ledger: Option<&Ledger>) -> bool {
    !dir.exists() || ledger.is_some_and(|l| l.checkpoint() == Checkpoint::default())
}

/// Makes sled's files durable: its own flush does not (docs/decisions/0002).
pub(super) fn sync_ledger(data: &Path) -> io::Result<()> {
    let dir = data.join("ledger");
    for name in ["db", "conf", "."] {
        match File::open(dir.join(name)) {
            Ok(file) => file.sync_all()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    super::log::sync_dir(data)
}
