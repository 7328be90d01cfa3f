//! A book of the register as one turn of its room sees it: what is durable, with the turn's own
//! changes laid over it until they are made durable together.
//!
//! Nothing reads past the overlay, so a message sees what the message before it did. A turn whose
//! changes cannot be written leaves no trace here; what was derived from them in memory is then
//! read anew.

use std::collections::BTreeMap;

use minicbor::Decode;

use super::Custody;
use super::register::{Book, Change, EnterError, Entry};

/// Bytes of changes after which a turn takes nothing more in; far below what custody takes in one
/// fact, so that what one message or image still adds fits.
const TURN_BYTES: usize = 256 << 10;
/// Entries of one question.
const PAGE: usize = 256;
/// Keys of one question.
const KEYS_PAGE: usize = 4096;

/// Custody has stopped, or an entry is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("custody has stopped")]
pub struct Stopped;

/// The book, and what this turn has changed.
#[derive(Debug)]
pub struct Overlay {
    custody: Custody,
    book: Book,
    changed: BTreeMap<Vec<u8>, Option<Entry>>,
    bytes: usize,
}

fn read<T: for<'b> Decode<'b, ()>>(entry: &Entry) -> Option<T> {
    match minicbor::decode(&entry.body) {
        Ok(read) => Some(read),
        Err(error) => {
            tracing::error!(%error, "an entry of the register cannot be read; passed over");
            None
        }
    }
}

impl Overlay {
    /// Of a book, without changes.
    pub const fn new(custody: Custody, book: Book) -> Self {
        Self { custody, book, changed: BTreeMap::new(), bytes: 0 }
    }

    /// The entry under a key.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn get<T: for<'b> Decode<'b, ()>>(&self, key: Vec<u8>) -> Result<Option<T>, Stopped> {
        if let Some(changed) = self.changed.get(&key) {
            return Ok(changed.as_ref().and_then(read));
        }
        let found = self.custody.entry(self.book, key).await.ok_or(Stopped)?;
        Ok(found.as_ref().and_then(read))
    }

    /// The entries whose keys begin so, in the order of their keys, at most `max`.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn below<T: for<'b> Decode<'b, ()>>(
        &self,
        prefix: &[u8],
        max: usize,
    ) -> Result<Vec<T>, Stopped> {
        let mut found: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        let mut after = prefix.to_vec();
        while found.len() < max {
            let page = self.custody.entries(self.book, Some(after), PAGE.min(max)).await;
            let page = page.ok_or(Stopped)?;
            let whole = page.len() == PAGE.min(max);
            let Some(last) = page.last().map(|e| e.key.clone()) else { break };
            let before = found.len();
            let own = page.into_iter().filter(|e| e.key.starts_with(prefix));
            found.extend(own.map(|e| (e.key.clone(), e)));
            if !whole || found.len() == before || !last.starts_with(prefix) {
                break;
            }
            after = last;
        }
        for (key, changed) in self.changed.iter().filter(|(key, _)| key.starts_with(prefix)) {
            match changed {
                Some(entry) => drop(found.insert(key.clone(), entry.clone())),
                None => drop(found.remove(key)),
            }
        }
        Ok(found.values().take(max).filter_map(read).collect())
    }

    /// The entries that bear a term and whose keys begin with `kind`, at most `max`.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn with<T: for<'b> Decode<'b, ()>>(
        &self,
        term: &[u8],
        kind: u8,
        max: usize,
    ) -> Result<Vec<T>, Stopped> {
        let mut found: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        let mut after = Some(vec![kind]);
        while found.len() < max {
            let page = self.custody.entries_with(self.book, term.to_vec(), after, PAGE).await;
            let page = page.ok_or(Stopped)?;
            let whole = page.len() == PAGE;
            after = page.last().map(|e| e.key.clone());
            let before = found.len();
            let own = page.into_iter().filter(|e| e.key.first() == Some(&kind));
            found.extend(own.map(|e| (e.key.clone(), e)));
            if !whole || found.len() == before {
                break;
            }
        }
        for (key, changed) in &self.changed {
            found.remove(key);
            let bears = |e: &&Entry| e.terms.iter().any(|t| t[..] == *term);
            if let Some(entry) = changed.as_ref().filter(bears)
                && key.first() == Some(&kind)
            {
                found.insert(key.clone(), entry.clone());
            }
        }
        Ok(found.values().take(max).filter_map(read).collect())
    }

    /// How many entries that would find, counted by their keys alone, at most `max`.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn count(&self, term: &[u8], kind: u8, max: usize) -> Result<usize, Stopped> {
        let mut count = 0;
        let mut after = Some(vec![kind]);
        while count < max {
            let page = self.custody.keys_with(self.book, term.to_vec(), after, KEYS_PAGE).await;
            let page = page.ok_or(Stopped)?;
            let own = page.iter().filter(|key| key.first() == Some(&kind)).count();
            count += own;
            if own < KEYS_PAGE {
                break;
            }
            after = page.into_iter().next_back();
        }
        for (key, changed) in self.changed.iter().filter(|(key, _)| key.first() == Some(&kind)) {
            let bears = |e: &Entry| e.terms.iter().any(|t| t[..] == *term);
            let before = self.custody.entry(self.book, key.clone()).await.ok_or(Stopped)?;
            count += usize::from(changed.as_ref().is_some_and(bears));
            count -= usize::from(before.as_ref().is_some_and(bears)).min(count);
        }
        Ok(count.min(max))
    }

    /// Lays an entry over what is there.
    pub fn put(&mut self, entry: Entry) {
        let terms: usize = entry.terms.iter().map(|t| t.len()).sum();
        self.bytes += 2 * entry.key.len() + entry.body.len() + terms;
        self.changed.insert(entry.key.clone(), Some(entry));
    }

    /// Whether the turn should end.
    pub const fn is_full(&self) -> bool {
        self.bytes > TURN_BYTES
    }

    /// Takes an entry away.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.changed.insert(key, None);
    }

    /// Makes all changes durable, or none.
    ///
    /// # Errors
    ///
    /// [`EnterError`]: nothing has changed, and the overlay is empty.
    pub async fn commit(&mut self) -> Result<(), EnterError> {
        self.bytes = 0;
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return Ok(());
        }
        let change = |(key, entry): (Vec<u8>, Option<Entry>)| match entry {
            Some(entry) => Change::Put(entry),
            None => Change::Remove { key },
        };
        self.custody.enter(self.book, changed.into_iter().map(change).collect()).await
    }

    /// Forgets the turn's changes.
    pub fn forget(&mut self) {
        self.changed.clear();
        self.bytes = 0;
    }
}
