//! The passer's look into the book of orders, and its own entries there.

use minicbor::Decode;

use super::record::{PARTS, PASS, PASSING, Progress, Request, part_key, removal};
use crate::custody::Custody;
use crate::custody::overlay::Stopped;
use crate::custody::register::{Book as Register, Change, EnterError, Entry};

/// Entries of one question.
const PAGE: usize = 256;
/// Parts of one question, which are longer.
const PARTS_PAGE: usize = 16;
/// Changes that are made together.
const CHANGES: usize = 1000;

#[derive(Debug, Clone)]
pub(super) struct Book {
    custody: Custody,
}

fn read<T: for<'b> Decode<'b, ()>>(entry: &Entry) -> Option<T> {
    let read = minicbor::decode(&entry.body);
    read.inspect_err(|error| tracing::error!(%error, "a step to pass on cannot be read")).ok()
}

impl Book {
    pub(super) const fn new(custody: Custody) -> Self {
        Self { custody }
    }

    async fn all<T: for<'b> Decode<'b, ()>>(
        &self,
        term: &[u8],
        mut after: Option<Vec<u8>>,
    ) -> Result<Vec<T>, Stopped> {
        let mut all = Vec::new();
        loop {
            let page = self.custody.entries_with(Register::Orders, term.to_vec(), after, PAGE);
            let page = page.await.ok_or(Stopped)?;
            all.extend(page.iter().filter_map(read::<T>));
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.key.clone()),
                _ => return Ok(all),
            }
        }
    }

    /// Requests with a higher number than `last`, in order.
    pub(super) async fn requests(&self, last: u64) -> Result<Vec<Request>, Stopped> {
        self.all(PASS, Some(super::record::request_key(last))).await
    }

    /// How far all steps have come.
    pub(super) async fn progress(&self) -> Result<Vec<Progress>, Stopped> {
        self.all(PASSING, None).await
    }

    /// The data set of a request; `None` when it cannot be read.
    pub(super) async fn data_set(&self, request: &Request) -> Option<Vec<u8>> {
        let mut set = Vec::new();
        for part in 0..request.parts {
            let key = part_key(request.number, part);
            set.extend(self.custody.entry(Register::Orders, key).await??.body);
        }
        Some(set)
    }

    pub(super) async fn put(&self, progress: &Progress) -> Result<(), EnterError> {
        self.custody.enter(Register::Orders, vec![Change::Put(progress.entry())]).await
    }

    /// Ends requests, and then what was kept of their progress.
    pub(super) async fn end(
        &self,
        requests: &[&Request],
        progress: &[&Progress],
    ) -> Result<(), EnterError> {
        let ended: Vec<Change> = requests.iter().flat_map(|request| removal(request)).collect();
        for some in ended.chunks(CHANGES) {
            self.custody.enter(Register::Orders, some.to_vec()).await?;
        }
        let over = progress.iter().map(|p| Change::Remove { key: p.entry().key });
        let over: Vec<Change> = over.collect();
        match over.is_empty() {
            true => Ok(()),
            false => self.custody.enter(Register::Orders, over).await,
        }
    }

    /// Removes parts of requests below `below` that were never made: a crash came between.
    pub(super) async fn tidy(
        &self,
        below: u64,
        is_known: impl Fn(u64) -> bool,
    ) -> Result<(), Stopped> {
        let mut after = PARTS.to_vec();
        loop {
            let page = self.custody.entries(Register::Orders, Some(after), PARTS_PAGE).await;
            let page = page.ok_or(Stopped)?;
            let number = |entry: &Entry| {
                let rest = entry.key.strip_prefix(PARTS)?.get(..8)?;
                Some(u64::from_be_bytes(rest.try_into().ok()?))
            };
            let lost = page.iter().filter(|e| number(e).is_some_and(|n| n < below && !is_known(n)));
            let lost: Vec<Change> = lost.map(|e| Change::Remove { key: e.key.clone() }).collect();
            if !lost.is_empty() && self.custody.enter(Register::Orders, lost).await.is_err() {
                return Ok(());
            }
            match page.last() {
                Some(last) if page.len() == PARTS_PAGE && number(last).is_some() => {
                    after = last.key.clone();
                }
                _ => return Ok(()),
            }
        }
    }
}
