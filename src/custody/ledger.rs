//! The ledger: sled holding small rows over the spool. A view; nothing durable rests on it.
//!
//! All rows live in one tree and change in one atomic batch per turn of the custodian, together
//! with a checkpoint that says how far both logs are applied and the sum of all rows. The sum is a
//! number that every put and removal updates; recomputing it over the rows that sled gives back
//! proves that none is missing, stale or torn. Without a clean stop the ledger is trusted only
//! with that proof; without the proof it is rebuilt from the logs.
//!
//! Keys start with one letter. Numbers in keys are big-endian, so that they sort. Rows that are
//! neighbours share a stored row: see [`super::shelf`].
//!
//! | key | row |
//! |---|---|
//! | `c` cargo | [`CargoRow`](super::rows::CargoRow) |
//! | `i` identity key (16) | [`Versions`](super::rows::Versions): which cargo has it |
//! | `s` study | [`StudyRow`](super::rows::StudyRow) |
//! | `m` study, cargo | nothing: member of a study |
//! | `q` destination, urgency and size, origin, study, cargo | its length: ready |
//! | `d` destination, cargo | nothing: waits for its next try |
//! | `a` state, destination, cargo | nothing: held or quarantined, needs a person |
//! | `u` cargo | nothing: unrouted |
//! | `r` settled at, cargo | nothing: may be reclaimed after retention |
//! | `f` reclaimed at, cargo | nothing: tombstone, to be forgotten |
//! | `o` origin, cargo, destination | nothing: news for the origin, not yet in a note |
//! | `g` segment | [`SegmentRow`](super::rows::SegmentRow): what lives in it |
//! | `e` book, key | [`EntryRow`](super::register::EntryRow): where an entry of the register is |
//! | `x` book, term, key | nothing: an entry that bears the term |
//! | `D` name / `N` number | destinations by name and number |
//! | `t` | [`super::totals::Totals`] |
//! | `P` | [`Checkpoint`] |

use std::collections::BTreeMap;
use std::path::Path;

use minicbor::{Decode, Encode};

use super::log::Place;
use super::shelf::{Row, Spread, Torn};
use crate::cargo::Hasher;

/// sled's page cache, as sled counts: in memory it takes three to four times as much.
const CACHE_BYTES: u64 = 8 << 20;

/// Length from which on a ledger is opened anew at a clean stop. A disk reads this in a moment.
const LONG_BYTES: u64 = 64 << 20;

/// sled failed or holds what it cannot hold: the caller rebuilds or stops.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database.
    #[error("ledger: {0}")]
    Sled(#[from] sled::Error),
    /// A row that does not decode.
    #[error("ledger: a row under '{0}' is unreadable")]
    Row(char),
    /// It panicked while opening.
    #[error("ledger: the database is damaged beyond opening")]
    Unopenable,
    /// Another release wrote it.
    #[error("ledger: its rows have a form that this release does not read")]
    OtherForm,
}

/// How far the logs are applied, and the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Checkpoint {
    /// End of the cargo log's active segment when applied.
    #[n(0)]
    pub cargo: Place,
    /// The highest segment number of the cargo log that existed then.
    #[n(1)]
    pub cargo_highest: u64,
    /// End of the fact log when applied.
    #[n(2)]
    pub facts: Place,
    /// Sum of all rows but this one, low and high half.
    #[n(3)]
    pub sum: (u64, u64),
    /// Set by a clean stop, cleared by the next start.
    #[n(4)]
    pub clean: bool,
    /// The form of the rows: [`FORM`].
    #[cbor(n(5), default)]
    pub form: u32,
}

/// The form of the rows that this release writes and reads. A ledger of another is rebuilt.
const FORM: u32 = 2;

impl Default for Checkpoint {
    /// Nothing applied, no rows.
    fn default() -> Self {
        Self {
            cargo: Place::default(),
            cargo_highest: 0,
            facts: Place::default(),
            sum: (0, 0),
            clean: false,
            form: FORM,
        }
    }
}

/// The open database with the changes of the present turn over it.
#[derive(Debug)]
pub(super) struct Ledger {
    db: sled::Db,
    /// Stored rows changed in this turn: `None` is removed.
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    sum: u128,
    checkpoint: Checkpoint,
}

const CHECKPOINT_KEY: &[u8] = b"P";

fn row_sum(key: &[u8], value: &[u8]) -> u128 {
    let mut h = Hasher::new();
    h.update(&(key.len() as u32).to_be_bytes());
    h.update(key);
    h.update(value);
    let digest = h.finish();
    u128::from_be_bytes(digest.0[..16].try_into().expect("32 bytes hold 16"))
}

const fn split(sum: u128) -> (u64, u64) {
    (sum as u64, (sum >> 64) as u64)
}

impl Ledger {
    /// Opens or makes the database in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, LedgerError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(Some(1000));
        // sled panics on some damage; a damaged ledger must never block the start.
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()));
        let db = opened.map_err(|_| LedgerError::Unopenable)??;
        let checkpoint: Checkpoint = match db.get(CHECKPOINT_KEY)? {
            Some(bytes) => minicbor::decode(&bytes).map_err(|_| LedgerError::Row('P'))?,
            None => Checkpoint::default(),
        };
        if checkpoint.form != FORM {
            return Err(LedgerError::OtherForm);
        }
        let sum = u128::from(checkpoint.sum.0) | u128::from(checkpoint.sum.1) << 64;
        Ok(Self { db, pending: BTreeMap::new(), sum, checkpoint })
    }

    /// True when opening it takes a while. sled notes where its pages are only when it is opened,
    /// and then has read all that was written since it was opened last.
    pub(super) fn is_long(&self) -> bool {
        self.db.size_on_disk().is_ok_and(|bytes| bytes > LONG_BYTES)
    }

    /// The checkpoint of the last committed turn.
    pub(super) const fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Recomputes the sum over all rows and compares: true when no row is missing, stale or torn.
    pub(super) fn proves(&self) -> Result<bool, LedgerError> {
        let mut sum = 0u128;
        for row in self.db.iter() {
            let (key, value) = row?;
            if key != CHECKPOINT_KEY {
                sum = sum.wrapping_add(row_sum(&key, &value));
            }
        }
        Ok(split(sum) == self.checkpoint.sum)
    }

    /// The row under `key`, with this turn's changes.
    pub(super) fn get<T: for<'b> Decode<'b, ()>>(
        &self,
        key: &[u8],
    ) -> Result<Option<T>, LedgerError> {
        let parse = |b: &[u8]| minicbor::decode(b).map_err(|_| unreadable(key));
        let Some(spread) = Spread::of(key[0]) else {
            return self.stored(key)?.map(|row| parse(&row)).transpose();
        };
        let (shelf, place) = spread.split(key);
        let Some(shelf) = self.stored(&shelf)? else { return Ok(None) };
        let row = spread.find(&shelf, &place).map_err(|Torn| unreadable(key))?;
        row.map(parse).transpose()
    }

    fn stored(&self, key: &[u8]) -> Result<Option<sled::IVec>, LedgerError> {
        match self.pending.get(key) {
            Some(change) => Ok(change.as_deref().map(sled::IVec::from)),
            None => Ok(self.db.get(key)?),
        }
    }

    fn change(&mut self, key: Vec<u8>, value: Option<&[u8]>) -> Result<(), LedgerError> {
        let Some(spread) = Spread::of(key[0]) else {
            let old = self.stored(&key)?;
            self.store(key, old.as_deref(), value.map(<[u8]>::to_vec));
            return Ok(());
        };
        let (at, place) = spread.split(&key);
        let old = self.stored(&at)?;
        let shelf = old.as_deref().unwrap_or_default();
        let new = spread.with(shelf, &place, value).map_err(|Torn| unreadable(&key))?;
        if new != shelf {
            self.store(at, old.as_deref(), Some(new).filter(|shelf| !shelf.is_empty()));
        }
        Ok(())
    }

    fn store(&mut self, key: Vec<u8>, old: Option<&[u8]>, new: Option<Vec<u8>>) {
        if let Some(old) = old {
            self.sum = self.sum.wrapping_sub(row_sum(&key, old));
        }
        if let Some(new) = &new {
            self.sum = self.sum.wrapping_add(row_sum(&key, new));
        }
        self.pending.insert(key, new);
    }

    /// Puts a row.
    pub(super) fn put<T: Encode<()>>(&mut self, key: Vec<u8>, row: &T) -> Result<(), LedgerError> {
        self.change(key, Some(&super::fact::encode(row)))
    }

    /// Puts a key whose presence says all.
    pub(super) fn mark(&mut self, key: Vec<u8>) -> Result<(), LedgerError> {
        self.change(key, Some(&[]))
    }

    /// Removes a row, if it is there.
    pub(super) fn remove(&mut self, key: Vec<u8>) -> Result<(), LedgerError> {
        self.change(key, None)
    }

    /// Makes this turn's changes visible to scans and later turns, all or none of them.
    pub(super) fn commit(&mut self, mut checkpoint: Checkpoint) -> Result<(), LedgerError> {
        checkpoint.sum = split(self.sum);
        if self.pending.is_empty() && checkpoint == self.checkpoint {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for (key, value) in std::mem::take(&mut self.pending) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(CHECKPOINT_KEY, super::fact::encode(&checkpoint));
        self.db.apply_batch(batch)?;
        self.checkpoint = checkpoint;
        Ok(())
    }

    /// True when changes wait for [`commit`](Self::commit).
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes everything out. Together with a sync of sled's files this ends a clean stop.
    pub(super) fn flush(&self) -> Result<(), LedgerError> {
        self.db.flush()?;
        Ok(())
    }

    /// Keys that start with `prefix`, from `from` on. Committed rows only.
    pub(super) fn keys<'a>(
        &'a self,
        prefix: &'a [u8],
        from: Vec<u8>,
    ) -> impl Iterator<Item = Result<Vec<u8>, LedgerError>> + 'a {
        self.scan(prefix, from).map(|row| row.map(|(key, _)| key))
    }

    /// Rows that start with `prefix`, from `from` on. Committed rows only. Among rows that share a
    /// shelf and among shelves they come in order of their keys.
    pub(super) fn rows<'a, T: for<'b> Decode<'b, ()> + 'a>(
        &'a self,
        prefix: &'a [u8],
        from: Vec<u8>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, T), LedgerError>> + 'a {
        self.scan(prefix, from).map(|row| {
            let (key, value) = row?;
            let parsed = minicbor::decode(&value).map_err(|_| unreadable(&key))?;
            Ok((key, parsed))
        })
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: Vec<u8>,
    ) -> impl Iterator<Item = Result<Row, LedgerError>> + 'a {
        debug_assert!(self.pending.is_empty(), "scans see committed rows only");
        let spread = Spread::of(prefix[0]);
        let first = spread.map_or_else(|| from.clone(), |spread| spread.split(&from).0);
        self.db
            .range(first..)
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key[0] == prefix[0]))
            .flat_map(move |row| match row {
                Err(e) => vec![Err(e.into())],
                Ok((key, value)) => match spread.map(|spread| spread.rows(&key, &value)) {
                    None => vec![Ok((key.to_vec(), value.to_vec()))],
                    Some(Ok(rows)) => rows.into_iter().map(Ok).collect(),
                    Some(Err(Torn)) => vec![Err(unreadable(&key))],
                },
            })
            .skip_while(move |row| row.as_ref().is_ok_and(|(key, _)| *key < from))
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
    }
}

const fn unreadable(key: &[u8]) -> LedgerError {
    LedgerError::Row(key[0] as char)
}

/// Builds keys.
#[derive(Debug)]
pub(super) struct Key(pub Vec<u8>);

impl Key {
    /// Of the kind `letter`.
    pub(super) fn of(letter: u8) -> Self {
        Self(vec![letter])
    }
    /// Followed by one byte.
    pub(super) fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }
    /// Followed by two bytes.
    pub(super) fn u16(mut self, n: u16) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }
    /// Followed by four bytes.
    pub(super) fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }
    /// Followed by eight bytes.
    pub(super) fn u64(mut self, n: u64) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }
    /// Followed by bytes.
    pub(super) fn bytes(mut self, b: &[u8]) -> Self {
        self.0.extend_from_slice(b);
        self
    }
    /// The key.
    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// The number that ends a key of eight bytes or more.
pub(super) fn tail_u64(key: &[u8]) -> u64 {
    let tail = key.len().checked_sub(8).and_then(|at| key[at..].try_into().ok());
    u64::from_be_bytes(tail.expect("keys of this kind end in a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_proves_a_whole_ledger_and_disproves_one_with_a_row_missing() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        for n in 0..100u64 {
            ledger.put(Key::of(b'c').u64(n).done(), &n).unwrap();
        }
        for n in 0..50u64 {
            ledger.put(Key::of(b'c').u64(n).done(), &(n + 1)).unwrap();
        }
        ledger.remove(Key::of(b'c').u64(7).done()).unwrap();
        ledger.commit(Checkpoint::default()).unwrap();
        assert!(ledger.proves().unwrap());
        ledger.db.remove(Key::of(b'c').u64(8).done()).unwrap();
        assert!(!ledger.proves().unwrap());
    }

    #[test]
    fn rows_of_this_turn_are_seen_before_they_are_committed() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let key = Key::of(b'c').u64(1).done();
        ledger.put(key.clone(), &1u64).unwrap();
        assert_eq!(ledger.get::<u64>(&key).unwrap(), Some(1));
        ledger.remove(key.clone()).unwrap();
        assert_eq!(ledger.get::<u64>(&key).unwrap(), None);
    }
}
