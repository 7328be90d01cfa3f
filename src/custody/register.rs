//! The register: small entries that other rooms keep in custody, such as orders, evidence and open
//! transactions.
//!
//! - Each room has a book. An entry has a key there, a body, and terms under which it is found. The last entry under
//!   a key counts.
//! - Changes that are made together are one fact: after a crash all of them hold, or none.
//! - Nothing is forgotten by itself; the room that entered it removes it.
//! - Bodies stay in the fact log; the ledger only knows where. So an entry costs memory and rows as
//!   a duty does, whatever its length.

use minicbor::{Decode, Encode};

use super::Custody;
use super::custodian::{Custodian, LedgerState};
use super::fact::Fact;
use super::ledger::{Key, Ledger, LedgerError};
use super::log::Place;
use super::segment::HEAD_LENGTH_MAX;
use super::totals::Totals;

/// Longest key, in bytes.
pub const KEY_MAX: usize = 128;
/// Longest term, in bytes.
pub const TERM_MAX: usize = 128;
/// Most terms of one entry.
pub const TERMS_MAX: usize = 256;
/// Longest sum of keys, terms and bodies of changes that are made together, in bytes.
pub const CHANGES_BYTES_MAX: usize = HEAD_LENGTH_MAX as usize - (64 << 10);
/// Most entries that one question gives.
pub const ENTRIES_MAX: usize = 10_000;

/// The book of one room. A number, once used, is never given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Book {
    /// Orders, evidence and gaps.
    #[n(0)]
    Orders,
    /// Reports and their versions.
    #[n(1)]
    Reports,
    /// Storage commitment: what was asked, and what was answered.
    #[n(2)]
    Commitments,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// Unique in its book; at most [`KEY_MAX`] bytes. Entries are listed in the order of their keys.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// What the room wants to keep.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// What it is found by, besides its key: at most [`TERMS_MAX`] of [`TERM_MAX`] bytes.
    #[n(2)]
    pub terms: Vec<minicbor::bytes::ByteVec>,
}

/// A change to the register.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// A new entry, or one in the place of that with the same key.
    #[n(0)]
    Put(#[n(0)] Entry),
    /// The entry under this key is no more.
    #[n(1)]
    #[cbor(map)]
    Remove {
        /// Whose.
        #[cbor(n(0), with = "minicbor::bytes")]
        key: Vec<u8>,
    },
}

/// Why entries were not made. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    /// A limit of this module; the text names which. A bug of the room's, or a peer's excess.
    #[error("too much for the register: {0}")]
    TooMuch(&'static str),
    /// The spool cannot be written to just now.
    #[error("cannot write to the spool: {0}")]
    Io(String),
    /// Custody has stopped, or its ledger is still being built.
    #[error("custody is stopped or not ready")]
    Stopped,
}

/// Where an entry is: a row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct EntryRow {
    /// The fact that holds it.
    #[n(0)]
    pub place: Place,
    /// Which of the fact's changes it is.
    #[n(1)]
    pub index: u32,
    /// Bytes of key, body and terms.
    #[n(2)]
    pub bytes: u64,
    /// Its terms, so that they can be taken back.
    #[n(3)]
    pub terms: Vec<minicbor::bytes::ByteVec>,
}

/// `e`
fn entry_key(book: Book, key: &[u8]) -> Vec<u8> {
    Key::of(b'e').u8(book as u8).bytes(key).done()
}

/// `x`: a term's length stands before it, so that no term is another's beginning.
fn term_prefix(book: Book, term: &[u8]) -> Vec<u8> {
    let length = u8::try_from(term.len()).unwrap_or(u8::MAX);
    Key::of(b'x').u8(book as u8).u8(length).bytes(term).done()
}

fn bytes_of(entry: &Entry) -> usize {
    let terms: usize = entry.terms.iter().map(|term| term.len()).sum();
    entry.key.len() + entry.body.len() + terms
}

/// Applies the changes of a fact that stands at `place`.
pub(super) fn apply(
    ledger: &mut Ledger,
    totals: &mut Totals,
    place: Place,
    book: Book,
    changes: &[Change],
) -> Result<(), LedgerError> {
    for (index, change) in (0..).zip(changes) {
        let key = match change {
            Change::Put(entry) => &entry.key,
            Change::Remove { key } => key,
        };
        let at = entry_key(book, key);
        if let Some(old) = ledger.get::<EntryRow>(&at)? {
            for term in &old.terms {
                ledger.remove([term_prefix(book, term), key.clone()].concat())?;
            }
            totals.entries -= 1;
            totals.entry_bytes -= old.bytes;
            ledger.remove(at.clone())?;
        }
        if let Change::Put(entry) = change {
            for term in &entry.terms {
                ledger.mark([term_prefix(book, term), key.clone()].concat())?;
            }
            let bytes = bytes_of(entry) as u64;
            totals.entries += 1;
            totals.entry_bytes += bytes;
            ledger.put(at, &EntryRow { place, index, bytes, terms: entry.terms.clone() })?;
        }
    }
    Ok(())
}

/// The changes of a fact at `place` that a rebuilt ledger would still need.
pub(super) fn live(
    ledger: &Ledger,
    place: Place,
    book: Book,
    changes: &[Change],
) -> Result<Vec<Change>, LedgerError> {
    let mut live = Vec::new();
    for (index, change) in (0u32..).zip(changes) {
        if let Change::Put(entry) = change {
            let row = ledger.get::<EntryRow>(&entry_key(book, &entry.key))?;
            if row.is_some_and(|row| row.place == place && row.index == index) {
                live.push(change.clone());
            }
        }
    }
    Ok(live)
}

fn check(changes: &[Change]) -> Result<(), EnterError> {
    let mut bytes = 0;
    for change in changes {
        let key = match change {
            Change::Put(entry) => {
                if entry.terms.len() > TERMS_MAX || entry.terms.iter().any(|t| t.len() > TERM_MAX) {
                    return Err(EnterError::TooMuch("too many or too long terms"));
                }
                bytes += bytes_of(entry);
                &entry.key
            }
            Change::Remove { key } => key,
        };
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(EnterError::TooMuch("a key of no or too many bytes"));
        }
        bytes += key.len();
    }
    if bytes > CHANGES_BYTES_MAX {
        return Err(EnterError::TooMuch("too many bytes in one change"));
    }
    Ok(())
}

impl Custodian {
    fn enter(&mut self, book: Book, changes: Vec<Change>) -> Result<(), EnterError> {
        check(&changes)?;
        if matches!(self.ledger, LedgerState::Building(_)) {
            return Err(EnterError::Stopped);
        }
        let fact = Fact::Entered { book, changes };
        self.state(&fact).map(drop).map_err(|e| EnterError::Io(e.to_string()))
    }

    /// `None`: there is no such entry, or its fact cannot be read.
    fn entry(&mut self, book: Book, key: &[u8]) -> Result<Option<Entry>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
        let Some(row) = view.ledger.get::<EntryRow>(&entry_key(book, key))? else {
            return Ok(None);
        };
        // A turn of a room is one fact of many changes, of which one is wanted.
        let Some(change) = self.change_at(row.place, row.index) else {
            self.find_fault(format!("an entry of the register ({book:?}) cannot be read"));
            return Ok(None);
        };
        Ok(match change {
            Change::Put(entry) if entry.key == key => Some(entry),
            _ => None,
        })
    }

    fn keys_from(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Vec<u8>>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        // The first key behind `after` is `after` with a zero byte more.
        let from = match after {
            Some(after) => [prefix, after, &[0]].concat(),
            None => prefix.to_vec(),
        };
        let keys = view.ledger.keys(prefix, from).take(max.min(ENTRIES_MAX));
        keys.map(|key| key.map(|key| key[prefix.len()..].to_vec())).collect()
    }

    fn entries(
        &mut self,
        prefix: &[u8],
        book: Book,
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Entry>, LedgerError> {
        let mut found = Vec::new();
        for key in self.keys_from(prefix, after, max)? {
            found.extend(self.entry(book, &key)?);
        }
        Ok(found)
    }
}

impl Custody {
    /// Makes all of these changes, or none. Durable when this returns.
    ///
    /// # Errors
    ///
    /// [`EnterError`]: nothing was changed.
    pub async fn enter(&self, book: Book, changes: Vec<Change>) -> Result<(), EnterError> {
        self.change(move |c| c.enter(book, changes)).await.unwrap_or(Err(EnterError::Stopped))
    }

    /// The entry under `key`; the outer `None` when custody has stopped.
    pub async fn entry(&self, book: Book, key: Vec<u8>) -> Option<Option<Entry>> {
        self.look(move |c| c.entry(book, &key)).await
    }

    /// Entries of a book behind the key `after`, in the order of their keys, at most `max`; `None`
    /// when custody has stopped.
    pub async fn entries(
        &self,
        book: Book,
        after: Option<Vec<u8>>,
        max: usize,
    ) -> Option<Vec<Entry>> {
        self.look(move |c| c.entries(&entry_key(book, b""), book, after.as_deref(), max)).await
    }

    /// Keys of the entries that bear a term, behind the key `after`, in their order, at most `max`;
    /// `None` when custody has stopped.
    pub async fn keys_with(
        &self,
        book: Book,
        term: Vec<u8>,
        after: Option<Vec<u8>>,
        max: usize,
    ) -> Option<Vec<Vec<u8>>> {
        self.look(move |c| c.keys_from(&term_prefix(book, &term), after.as_deref(), max)).await
    }

    /// Entries that bear a term, behind the key `after`, in the order of their keys, at most `max`;
    /// `None` when custody has stopped.
    pub async fn entries_with(
        &self,
        book: Book,
        term: Vec<u8>,
        after: Option<Vec<u8>>,
        max: usize,
    ) -> Option<Vec<Entry>> {
        self.look(move |c| c.entries(&term_prefix(book, &term), book, after.as_deref(), max)).await
    }
}
