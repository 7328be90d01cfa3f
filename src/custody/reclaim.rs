//! Housekeeping: space given back, tombstones, compaction, what metrics show.
//!
//! Order, so that no crash loses anything: the tombstone is a durable fact before a byte of the
//! body is freed, and the ledger says so before the space does. While the wall clock is in doubt
//! nothing is deleted.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

use super::Follower;
use super::custodian::{Custodian, LedgerState, Which};
use super::fact::{self, End, Fact};
use super::ledger::{LedgerError, tail_u64};
use super::log::Place;
use super::register;
use super::room::Usage;
use super::rows::{CargoId, CargoRow, SegmentRow, reclaim_key, segment_key};
use super::segment::Record;
use super::state::StateName;
use super::status::Summary;
use crate::cargo::{CargoKind, DestinationName, Urgency};
use crate::clock::{self, Monotonic, Timestamp};

/// How often the disk is looked at and metrics are brought up to date.
const LOOK: Duration = Duration::from_secs(1);
/// How long the spool counts as full after a piece of cargo was refused for want of room.
const FULL_SHOWN: Duration = Duration::from_secs(10);
/// Below this many free bytes the reserve file is given up, so that what is in custody can drain.
const FREE_MIN: u64 = 2 << 20;
/// How often segments are swept, the wall clock is written down, and the logs are compacted.
const SWEEP: Duration = Duration::from_secs(30);
/// Pieces whose space is given back in one tick.
const RECLAIM_MAX: usize = 200;
/// Bytes of the file that is given up when the fact log finds the disk full.
const RESERVE_FILE: u64 = 8 << 20;
/// The fact log is compacted when it is longer than this and than twice what is live.
const FACTS_MIN_BYTES: u64 = 64 << 20;
/// How often it is seen whether somebody takes in what nobody took in.
const ASK_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// A live fact's length, roughly, for that estimate.
const FACT_BYTES: u64 = 400;

/// When what was last done.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    looked: Option<Monotonic>,
    /// More is ripe than one turn gives back.
    behind: bool,
    swept: Option<Monotonic>,
    /// Destinations whose next piece could not be read just now.
    pub(super) wake_later: BTreeSet<DestinationName>,
}

fn is_due(last: &mut Option<Monotonic>, now: Monotonic, every: Duration) -> bool {
    let due = last.is_none_or(|at| now.since(at) >= every);
    if due {
        *last = Some(now);
    }
    due
}

impl Custodian {
    pub(super) fn keep_house(&mut self, now: Monotonic, wall: Timestamp) {
        if self.leap.look(now, wall) {
            tracing::error!(
                leap = self.leap.leap(),
                "the wall clock leapt: nothing is deleted until `hikyaku spool confirm-clock`"
            );
            self.tell_clock(wall);
        }
        let look = is_due(&mut self.housekeeping.looked, now, LOOK);
        if look {
            self.look_at_disk();
            self.woken.append(&mut self.housekeeping.wake_later);
            if self.unwritable.is_some() {
                self.tell_clock(wall);
            }
            // Scans see whole turns: each step ends the turn before the next one looks.
            if !self.end_turn() {
                return;
            }
        }
        if look || self.housekeeping.behind {
            if let Err(e) = self.reclaim(wall) {
                self.ledger_failed(&e);
            }
            if !self.end_turn() {
                return;
            }
        }
        if look {
            if let Err(e) = self.write_notes() {
                self.ledger_failed(&e);
            }
            if !self.end_turn() {
                return;
            }
            self.show(wall);
        }
        if is_due(&mut self.housekeeping.swept, now, SWEEP) {
            self.yard.expire(wall);
            self.tell_clock(wall);
            self.keep_reserve();
            if let Err(e) = self.sweep(wall) {
                self.ledger_failed(&e);
            }
        }
    }

    /// Writes the wall clock down, so that a leap is seen across a restart.
    fn tell_clock(&mut self, wall: Timestamp) {
        let leap = self.leap.leap().map(str::to_owned);
        let _ = self.state(&Fact::Clock { wall, confirmed_by: None, leap });
    }

    /// True when there is no room, or not enough for what has come of late.
    pub(super) fn is_full(&self) -> bool {
        let limits = self.shared.room.load();
        let refused = self.full_at.is_some_and(|at| clock::now().since(at) < FULL_SHOWN);
        refused || limits.admit(self.usage, Urgency::Routine, 1).is_err()
    }

    pub(super) fn look_at_disk(&mut self) {
        if let Ok(fs) = statvfs(&self.config.data) {
            let unit = fs.fragment_size();
            self.usage.free = fs.blocks_available() * unit;
            // As df counts: what only root may use, or nobody, is no room.
            let used = fs.blocks().saturating_sub(fs.blocks_free());
            self.usage.total = (used + fs.blocks_available()) * unit;
            if self.usage.free < FREE_MIN {
                self.give_up_reserve();
            }
        }
        let limits = self.shared.room.load();
        let room = limits
            .watermark(self.usage, Urgency::Routine)
            .saturating_sub(limits.occupied(self.usage))
            .min(self.usage.free.saturating_sub(limits.reserve));
        self.yard.free.store(room, Ordering::Relaxed);
    }

    /// Gives back the space of cargo whose retention has passed.
    fn reclaim(&mut self, wall: Timestamp) -> Result<(), LedgerError> {
        if self.leap.leap().is_some() {
            return Ok(());
        }
        let retention = i64::try_from(self.config.retention.as_millis()).unwrap_or(i64::MAX);
        let until = u64::try_from(wall.0.saturating_sub(retention)).unwrap_or(0);
        let ripe = match &self.ledger {
            LedgerState::Ready(view) => {
                let looked_at = self.shared.looked_at();
                ripe(view.ledger.keys(b"r", vec![b'r']), until, looked_at)?
            }
            LedgerState::Building(_) => return Ok(()),
        };
        self.housekeeping.behind = ripe.len() == RECLAIM_MAX;
        let mut freed: Vec<(Place, Record)> = Vec::new();
        for key in ripe {
            let id = CargoId(tail_u64(&key));
            let Some(view) = self.view() else { return Ok(()) };
            view.ledger.remove(key)?;
            let Some(row) = view.cargo(id)? else { continue };
            if !row.present || !row.is_settled() {
                continue;
            }
            match self.stays_until(&row, wall) {
                Some(until) => {
                    let Some(view) = self.view() else { return Ok(()) };
                    view.ledger
                        .mark(reclaim_key(Timestamp(until.0.saturating_sub(retention)), id))?;
                }
                None => freed.extend(self.bury(id, &row, wall)),
            }
        }
        if freed.is_empty() || !self.sync(Which::Facts) || !self.end_turn() {
            return Ok(());
        }
        self.free(&freed)
    }

    /// Until when settled cargo stays beyond the general retention; `None`: no longer.
    fn stays_until(&self, row: &CargoRow, wall: Timestamp) -> Option<Timestamp> {
        let reader = match row.kind {
            CargoKind::Order => Some(Follower::Orders),
            _ => row.reports.then_some(Follower::Reports),
        };
        // What nobody here takes in stays, until somebody does.
        if reader.is_some_and(|reader| !self.config.followed.contains(&reader)) {
            return Some(wall + ASK_AGAIN);
        }
        let kept = row.reports && row.kind == CargoKind::Report;
        let until = kept.then(|| row.settled_at() + self.config.keep_reports);
        until.filter(|until| *until > wall)
    }

    /// States the tombstone. The place is returned for freeing once that is durable.
    fn bury(&mut self, id: CargoId, row: &CargoRow, at: Timestamp) -> Option<(Place, Record)> {
        let (head, record, place) = self.head_of(id)?;
        let ends = row
            .duties
            .iter()
            .map(|duty| {
                let receipt = duty.fact.and_then(|place| match self.fact_at(place) {
                    Some(Fact::Duty { receipt, .. }) => receipt,
                    _ => None,
                });
                let LedgerState::Ready(view) = &self.ledger else {
                    unreachable!("head_of asked it")
                };
                End {
                    destination: view.name(duty.destination).clone(),
                    urgency: duty.urgency,
                    state: duty.state.clone(),
                    receipt,
                }
            })
            .collect();
        let fact = Fact::Reclaimed {
            cargo: id.0,
            identity: head.envelope.identity,
            study: row.study,
            ends,
            kept_at: row.kept_at,
            at,
            received: head.received,
        };
        self.state(&fact).ok()?;
        Some((place, record))
    }

    pub(super) fn fact_at(&mut self, place: Place) -> Option<Fact> {
        let (_, head) = self.fact_log.read(place).ok()??;
        fact::decode_fact(&head)
    }

    /// One change of a fact of the register.
    pub(super) fn change_at(&mut self, place: Place, index: u32) -> Option<register::Change> {
        let (_, head) = self.fact_log.read(place).ok()??;
        fact::decode_change(&head, index)
    }

    fn free(&mut self, freed: &[(Place, Record)]) -> Result<(), LedgerError> {
        let mut touched = BTreeSet::new();
        for (place, record) in freed {
            touched.insert(place.segment);
            if let Err(e) = self.cargo_log.punch(*place, record) {
                tracing::debug!(error = %e, "no hole punched; the segment goes as a whole later");
            } else {
                self.usage.spool = self.usage.spool.saturating_sub(record.body_len);
            }
        }
        for segment in touched {
            self.drop_if_dead(segment)?;
        }
        Ok(())
    }

    /// Deletes a sealed segment in which nothing lives.
    fn drop_if_dead(&mut self, segment: u64) -> Result<(), LedgerError> {
        if segment == self.cargo_log.active_number() {
            return Ok(());
        }
        let Some(view) = self.view() else { return Ok(()) };
        let row: SegmentRow = view.ledger.get(&segment_key(segment))?.unwrap_or_default();
        if row.live > 0 || row.damaged {
            return Ok(());
        }
        match self.cargo_log.drop_segment(segment) {
            Ok(()) => {
                let Some(view) = self.view() else { return Ok(()) };
                view.ledger.remove(segment_key(segment))
            }
            Err(e) => {
                tracing::warn!(segment, error = %e, "a dead segment could not be deleted");
                Ok(())
            }
        }
    }

    fn sweep(&mut self, wall: Timestamp) -> Result<(), LedgerError> {
        let occupied = self.cargo_log.occupied() + self.fact_log.occupied();
        self.usage.spool = occupied;
        if self.leap.leap().is_some() || matches!(self.ledger, LedgerState::Building(_)) {
            return Ok(());
        }
        for segment in self.cargo_log.segments() {
            self.drop_if_dead(segment)?;
        }
        if !self.end_turn() {
            return Ok(());
        }
        self.forget(wall)?;
        if !self.end_turn() {
            return Ok(());
        }
        self.compact()
    }

    /// Forgets tombstones whose time is over. One whose record still stands in a segment stays, or
    /// a rebuilt ledger would take the record for new cargo.
    fn forget(&mut self, wall: Timestamp) -> Result<(), LedgerError> {
        let keep = i64::try_from(self.config.tombstones.as_millis()).unwrap_or(i64::MAX);
        let until = u64::try_from(wall.0.saturating_sub(keep)).unwrap_or(0);
        let LedgerState::Ready(view) = &self.ledger else { return Ok(()) };
        let old = ripe(view.ledger.keys(b"f", vec![b'f']), until, u64::MAX)?;
        for key in old {
            let id = CargoId(tail_u64(&key));
            let Some(view) = self.view() else { return Ok(()) };
            let row = view.cargo(id)?;
            let stands =
                row.is_some_and(|r| !r.present && self.cargo_log.end_of(r.place.segment).is_some());
            if stands {
                continue;
            }
            let Some(view) = self.view() else { return Ok(()) };
            view.ledger.remove(key)?;
            let _ = self.state(&Fact::Forgotten { cargo: id.0 });
        }
        Ok(())
    }

    /// Rewrites what is live in the oldest segment of the fact log, then deletes that segment.
    fn compact(&mut self) -> Result<(), LedgerError> {
        let live = match &self.ledger {
            LedgerState::Ready(view) => {
                let settled: u64 = view.totals.destinations.values().map(settled).sum();
                let facts = settled + view.totals.tombstones + view.totals.entries;
                facts * FACT_BYTES + view.totals.entry_bytes
            }
            LedgerState::Building(_) => return Ok(()),
        };
        let occupied = self.fact_log.occupied();
        let oldest = self.fact_log.segments().first().copied();
        let Some(oldest) = oldest.filter(|&n| n != self.fact_log.active_number()) else {
            return Ok(());
        };
        if occupied < FACTS_MIN_BYTES.max(live.saturating_mul(2)) {
            return Ok(());
        }
        let Ok((file, header)) = self.fact_log.file(oldest) else { return Ok(()) };
        let Ok(survey) = super::survey::survey(&file, header) else { return Ok(()) };
        if !survey.damage.is_empty() {
            return Ok(());
        }
        for (record, head) in survey.records {
            let place = Place { segment: oldest, offset: record.offset };
            let Some(fact) = fact::decode_fact(&head) else { return Ok(()) };
            if let Some(fact) = self.what_lives(place, fact)?
                && self.state(&fact).is_err()
            {
                return Ok(());
            }
        }
        if self.sync(Which::Facts) && self.end_turn() {
            let _ = self.fact_log.drop_segment(oldest);
        }
        Ok(())
    }

    /// What a rebuilt ledger would need of the fact that stands at `place`.
    fn what_lives(&self, place: Place, fact: Fact) -> Result<Option<Fact>, LedgerError> {
        if let (Fact::Entered { book, changes }, LedgerState::Ready(view)) = (&fact, &self.ledger) {
            let changes = register::live(&view.ledger, place, *book, changes)?;
            let book = *book;
            return Ok((!changes.is_empty()).then_some(Fact::Entered { book, changes }));
        }
        Ok(self.is_live(place, &fact)?.then_some(fact))
    }

    /// True when a rebuilt ledger would need the fact that stands at `place`.
    fn is_live(&self, place: Place, fact: &Fact) -> Result<bool, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(true) };
        Ok(match fact {
            Fact::Duty { cargo, destination, .. } => {
                let row = view.cargo(CargoId(*cargo))?;
                let number = view.known_number(destination);
                row.zip(number).is_some_and(|(row, number)| {
                    row.present && row.duty(number).is_some_and(|d| d.fact == Some(place))
                })
            }
            Fact::Reclaimed { cargo, .. } => {
                view.cargo(CargoId(*cargo))?.is_some_and(|row| row.tombstone == Some(place))
            }
            Fact::Beyond { cargo, .. } => view.cargo(CargoId(*cargo))?.is_some_and(|row| {
                row.duties.iter().flat_map(|d| &d.beyond).any(|b| b.fact == place)
            }),
            Fact::Noted { duties } => {
                let mut any = false;
                for (cargo, _) in duties {
                    any |= view.cargo(CargoId(*cargo))?.is_some_and(|row| row.present);
                }
                any
            }
            Fact::Duplicate { cargo, .. } => self.cargo_log.end_of(cargo >> 32).is_some(),
            Fact::Chain { .. } | Fact::Entered { .. } => true,
            Fact::Forgotten { .. } | Fact::Clock { .. } => false,
        })
    }

    /// Keeps a file that can be given up, so that the fact log can be written when the disk is
    /// full.
    pub(super) fn keep_reserve(&self) {
        let path = self.config.data.join("reserve");
        if path.exists() || self.usage.free < RESERVE_FILE * 4 {
            return;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let kept =
            file.map(|file| fallocate(&file, FallocateFlags::empty(), 0, RESERVE_FILE as i64));
        if !matches!(kept, Ok(Ok(()))) {
            let _ = fs::remove_file(path);
        }
    }

    pub(super) fn give_up_reserve(&self) {
        give_up_reserve(&self.config.data);
    }

    pub(super) fn give_up_reserve_if_full(&self) {
        make_room_to_start(&self.config.data);
    }

    /// Brings metrics and the summary up to date.
    fn show(&mut self, wall: Timestamp) {
        let summary = match self.summarise(wall) {
            Ok(summary) => summary,
            Err(e) => return self.ledger_failed(&e),
        };
        self.show_metrics(&summary);
        self.shared.summary.store(Arc::new(summary));
    }

    fn show_metrics(&self, summary: &Summary) {
        let m = &self.metrics;
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        m.spool_bytes.set(signed(summary.spool_bytes));
        m.spool_free_bytes.set(signed(summary.free_bytes));
        m.spool_watermark_bytes.set(signed(summary.watermark_bytes));
        m.spool_full.set(i64::from(summary.full));
        m.spool_unwritable.set(i64::from(summary.unwritable.is_some()));
        m.unrouted.set(signed(summary.unrouted));
        m.clock_leap.set(i64::from(summary.clock_leap.is_some()));
        for d in &summary.destinations {
            let name = d.destination.as_str();
            m.owed_bytes.with_label_values(&[name]).set(signed(d.open_bytes));
            m.oldest_owed.with_label_values(&[name]).set(d.oldest_owed_seconds as f64);
            for (urgency, by_state) in Urgency::ALL.iter().zip(d.duties) {
                for (state, n) in StateName::ALL.iter().zip(by_state) {
                    m.duties
                        .with_label_values(&[name, urgency.as_str(), state.as_str()])
                        .set(signed(n));
                }
                let in_flight = d.in_flight[urgency.index()];
                m.in_flight.with_label_values(&[name, urgency.as_str()]).set(signed(in_flight));
            }
        }
    }

    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }
}

fn give_up_reserve(data: &Path) {
    if fs::remove_file(data.join("reserve")).is_ok() {
        tracing::error!("the disk is full: the reserve is given up, so that cargo can leave");
    }
}

/// Makes room on a full disk before the logs are opened, which begins new segments: a node that
/// does not start can never empty its disk.
pub(super) fn make_room_to_start(data: &Path) {
    let free = statvfs(data).map(|fs| fs.blocks_available() * fs.fragment_size());
    if free.is_ok_and(|free| free < FREE_MIN) {
        give_up_reserve(data);
    }
}

fn settled(totals: &super::totals::DestinationTotals) -> u64 {
    StateName::ALL.iter().map(|s| totals.in_state(*s)).sum()
}

/// Keys of `r` or `f` rows whose time is at most `until`.
fn ripe(
    keys: impl Iterator<Item = Result<Vec<u8>, LedgerError>>,
    until: u64,
    looked_at: u64,
) -> Result<Vec<Vec<u8>>, LedgerError> {
    // Keys of about the same time stand in the order of their cargo.
    const ABOUT_THE_SAME_MS: u64 = 0xfff;
    let at = |key: &Vec<u8>| u64::from_be_bytes(key[1..9].try_into().expect("a time"));
    let near = until | ABOUT_THE_SAME_MS;
    // What is not looked at yet stays: the end of a key is the number of its piece.
    let is_ripe = |key: &Vec<u8>| at(key) <= until && tail_u64(key) <= looked_at;
    keys.take_while(|key| key.as_ref().map_or(true, |key| at(key) <= near))
        .filter(|key| key.as_ref().map_or(true, is_ripe))
        .take(RECLAIM_MAX)
        .collect()
}
