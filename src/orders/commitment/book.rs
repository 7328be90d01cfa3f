//! The book of commitments: requests, and beside them what they name, in parts that custody takes
//! in one change each.
//!
//! | key | entry |
//! |---|---|
//! | `t` number | [`Transaction`]; terms: who asked with which Transaction UID, and `open` |
//! | `r` number, part | at most [`PART_REFERENCES`] references |
//!
//! A request counts from its `t` on, which is written last. Parts without it are removed.

use std::time::Duration;

use minicbor::{Decode, Encode};

use super::transaction::Transaction;
use crate::cargo::Hasher;
use crate::clock::Timestamp;
use crate::custody::Custody;
use crate::custody::overlay::Stopped;
use crate::custody::register::{self, Change, EnterError, Entry};
use crate::dicom::commitment::Reference;

/// References of one entry: far below what custody takes, however long their UIDs are.
const PART_REFERENCES: usize = 2000;
/// Entries of one question.
const PAGE: usize = 256;
const OPEN: &[u8] = b"open";

/// A reference as it is kept.
#[derive(Debug, Encode, Decode)]
struct Named {
    #[n(0)]
    class: String,
    #[n(1)]
    instance: String,
}

#[derive(Debug)]
pub(super) struct Book {
    custody: Custody,
}

fn transaction_key(number: u64) -> Vec<u8> {
    [b"t", &number.to_be_bytes()[..]].concat()
}

fn part_key(number: u64, part: u32) -> Vec<u8> {
    [b"r", &number.to_be_bytes()[..], &part.to_be_bytes()].concat()
}

/// Finds the requests of an AE title with a Transaction UID.
fn term(transaction: &Transaction) -> Vec<u8> {
    let mut hasher = Hasher::new();
    for part in [&transaction.calling, &transaction.uid] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish().0[..16].to_vec()
}

fn put(key: Vec<u8>, body: &impl Encode<()>, terms: Vec<Vec<u8>>) -> Change {
    let body = minicbor::to_vec(body).expect("encoding into memory cannot fail");
    Change::Put(Entry { key, body, terms: terms.into_iter().map(Into::into).collect() })
}

fn put_transaction(transaction: &Transaction) -> Change {
    let mut terms = vec![term(transaction)];
    if transaction.ended_at.is_none() {
        terms.push(OPEN.to_vec());
    }
    put(transaction_key(transaction.number), transaction, terms)
}

fn read<T: for<'b> Decode<'b, ()>>(entry: &Entry) -> Option<T> {
    let read = minicbor::decode(&entry.body);
    read.inspect_err(|error| tracing::error!(%error, "a commitment cannot be read")).ok()
}

impl Book {
    pub(super) const fn new(custody: Custody) -> Self {
        Self { custody }
    }

    async fn enter(&self, changes: Vec<Change>) -> Result<(), EnterError> {
        self.custody.enter(register::Book::Commitments, changes).await
    }

    /// Whether a request of this AE title with this Transaction UID is remembered.
    pub(super) async fn knows(&self, transaction: &Transaction) -> Result<bool, Stopped> {
        let book = register::Book::Commitments;
        let found = self.custody.entries_with(book, term(transaction), None, 1).await;
        Ok(!found.ok_or(Stopped)?.is_empty())
    }

    /// Writes a request down with what it names. Durable when this returns.
    pub(super) async fn begin(
        &self,
        transaction: &mut Transaction,
        references: &[Reference],
    ) -> Result<(), EnterError> {
        let number = transaction.number;
        let mut changes = Vec::new();
        for (part, some) in (0..).zip(references.chunks(PART_REFERENCES)) {
            let named =
                |r: &Reference| Named { class: r.class.clone(), instance: r.instance.clone() };
            let some: Vec<Named> = some.iter().map(named).collect();
            if let Some(before) = changes.pop() {
                self.enter(vec![before]).await?;
            }
            changes.push(put(part_key(number, part), &some, Vec::new()));
            transaction.parts = part + 1;
        }
        changes.push(put_transaction(transaction));
        self.enter(changes).await
    }

    /// Writes down how a request stands.
    pub(super) async fn put(&self, transaction: &Transaction) -> Result<(), EnterError> {
        self.enter(vec![put_transaction(transaction)]).await
    }

    /// Writes down that a request has ended; what it named is not kept longer.
    pub(super) async fn end(&self, transaction: &Transaction) -> Result<(), EnterError> {
        let parts = (0..transaction.parts).map(|part| part_key(transaction.number, part));
        let mut changes: Vec<Change> = parts.map(|key| Change::Remove { key }).collect();
        changes.push(put_transaction(transaction));
        self.enter(changes).await
    }

    /// The requests that have not ended, with what they name.
    pub(super) async fn open(&self) -> Result<Vec<(Transaction, Vec<Reference>)>, Stopped> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let book = register::Book::Commitments;
            let page = self.custody.entries_with(book, OPEN.to_vec(), after, PAGE).await;
            let page = page.ok_or(Stopped)?;
            for transaction in page.iter().filter_map(read::<Transaction>) {
                let references = self.references(&transaction).await?;
                all.push((transaction, references));
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.key.clone()),
                _ => return Ok(all),
            }
        }
    }

    async fn references(&self, transaction: &Transaction) -> Result<Vec<Reference>, Stopped> {
        let mut all = Vec::new();
        for part in 0..transaction.parts {
            let key = part_key(transaction.number, part);
            let entry = self.custody.entry(register::Book::Commitments, key).await;
            let named = entry.ok_or(Stopped)?.as_ref().and_then(read::<Vec<Named>>);
            let references = named.unwrap_or_default().into_iter();
            all.extend(references.map(|n| Reference { class: n.class, instance: n.instance }));
        }
        Ok(all)
    }

    /// Removes what ended longer ago than `kept`, and parts whose request was never taken.
    pub(super) async fn forget(&self, now: Timestamp, kept: Duration) -> Result<(), Stopped> {
        let mut after = None;
        loop {
            let book = register::Book::Commitments;
            let page = self.custody.entries(book, after, PAGE).await.ok_or(Stopped)?;
            let mut old = Vec::new();
            for entry in &page {
                if self.is_over(entry, now, kept).await? {
                    old.push(Change::Remove { key: entry.key.clone() });
                }
            }
            if !old.is_empty() && self.enter(old).await.is_err() {
                return Ok(());
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.key.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn is_over(
        &self,
        entry: &Entry,
        now: Timestamp,
        kept: Duration,
    ) -> Result<bool, Stopped> {
        if entry.key.first() == Some(&b't') {
            let ended = read::<Transaction>(entry).and_then(|t| t.ended_at);
            return Ok(ended.is_some_and(|at| now.seconds_since(at) > kept.as_secs()));
        }
        let Some(number) = entry.key.get(1..9) else { return Ok(false) };
        let key = [b"t", number].concat();
        let request = self.custody.entry(register::Book::Commitments, key).await;
        Ok(request.ok_or(Stopped)?.is_none())
    }
}
