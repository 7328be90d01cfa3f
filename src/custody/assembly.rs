//! Bodies on their way in: hashed as they come, in memory while small and while the memory budget
//! lasts, else in a file of ours under `partial/`.
//!
//! Limits: a body in memory has at most [`LARGE_BYTES`]; all bodies in memory share one budget,
//! and when it is used up, small bodies go to files too instead of waiting; a body in a file holds
//! at most two chunks of 1 MiB in memory, and is synced every 32 MiB ([`super::partial`]).
//!
//! A *keyed* body (from a tunnel) survives its connection: dropped unfinished, it is parked and
//! goes on at the same byte; after a restart it goes on at its last synced mark. Parked bodies are
//! capped in number and expire.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::partial::{
    CHUNK, FinishedFile, PartFile, PartialKey, full_or_io, keep_head, read_header, reopen,
};
use super::rows::LARGE_BYTES;
use super::stop::StopSwitch;
use crate::cargo::{Hasher, Sha256};
use crate::clock::Timestamp;

/// Memory is budgeted in units of this many bytes.
const UNIT: u64 = 64 << 10;

/// Limits of what is on its way in.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of all bodies in memory together.
    pub memory: u64,
    /// Longest body.
    pub object: u64,
    /// Bodies parked at once; the oldest gives way.
    pub parked: usize,
    /// Seconds after which a parked body that nobody resumes is deleted.
    pub parked_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 64 << 20, object: 8 << 30, parked: 256, parked_seconds: 7 * 24 * 3600 }
    }
}

/// Why a body cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// No room for more: 0xA700, or Refuse with a time to come back.
    #[error("no room: {0}")]
    Full(String),
    /// Longer than the limit.
    #[error("longer than the limit of {0} bytes")]
    TooLarge(u64),
    /// A read or write failed.
    #[error("cannot write to the spool: {0}")]
    Io(#[from] io::Error),
    /// Custody has stopped.
    #[error("custody is stopped")]
    Stopped,
}

/// Where assemblies are made; shared by all of them.
#[derive(Debug)]
pub(super) struct Yard {
    dir: PathBuf,
    limits: Limits,
    memory: Arc<Semaphore>,
    /// Bytes that a streamed body may still write before it must be refused: told by custody.
    pub(super) free: AtomicU64,
    next_name: AtomicU64,
    parked: Mutex<HashMap<PartialKey, Parked>>,
    stop: StopSwitch,
}

#[derive(Debug)]
struct Parked {
    since: Timestamp,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In this process: as it was left.
    Here(Box<(Hasher, u64, Vec<u8>, PartFile)>),
    /// From an earlier process: the file and its mark.
    File(PathBuf, u64),
}

#[derive(Debug)]
enum Store {
    Memory(Vec<u8>, Vec<OwnedSemaphorePermit>),
    File(PartFile),
}

/// A body on its way in.
#[derive(Debug)]
pub struct Assembly {
    yard: Arc<Yard>,
    key: Option<PartialKey>,
    hasher: Hasher,
    len: u64,
    head: Vec<u8>,
    store: Option<Store>,
}

/// A whole body, hashed, not yet durable.
#[derive(Debug)]
pub struct Assembled {
    len: u64,
    sha256: Sha256,
    head: Vec<u8>,
    pub(super) store: AssembledStore,
}

#[derive(Debug)]
pub(super) enum AssembledStore {
    /// The bytes; the permits give the memory budget back when dropped.
    Memory(Vec<u8>, Vec<OwnedSemaphorePermit>),
    /// A file under `partial/`, removed on drop unless custody adopts it.
    File(FinishedFile),
}

impl Yard {
    /// Opens `dir`: keyed bodies of an earlier process are parked, all else is deleted.
    pub(super) fn open(dir: &Path, limits: Limits, stop: StopSwitch) -> io::Result<Arc<Self>> {
        fs::create_dir_all(dir)?;
        let mut parked = HashMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match read_header(&path) {
                Some(header) => {
                    let place = Place::File(path, header.mark);
                    parked.insert(header.key, Parked { since: header.created_at, place });
                }
                None => fs::remove_file(&path)?,
            }
        }
        let permits = usize::try_from(limits.memory / UNIT).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Arc::new(Self {
            dir: dir.into(),
            memory: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            limits,
            free: AtomicU64::new(u64::MAX),
            next_name: AtomicU64::new(0),
            parked: Mutex::new(parked),
            stop,
        }))
    }

    pub(super) fn begin(self: &Arc<Self>) -> Assembly {
        Assembly {
            yard: self.clone(),
            key: None,
            hasher: Hasher::new(),
            len: 0,
            head: Vec::new(),
            store: Some(Store::Memory(Vec::new(), Vec::new())),
        }
    }

    /// Begins a keyed body or goes on with a parked one.
    pub(super) async fn resume(
        self: &Arc<Self>,
        key: PartialKey,
    ) -> Result<Assembly, AssembleError> {
        if key.length > self.limits.object {
            return Err(AssembleError::TooLarge(self.limits.object));
        }
        let parked = self.parked.lock().expect("no panic while parked").remove(&key);
        let (hasher, len, head, part) = match parked.map(|p| p.place) {
            Some(Place::Here(left)) => *left,
            Some(Place::File(path, mark)) => reopen(path, mark).await?,
            None => {
                self.check_free(key.length)?;
                (Hasher::new(), 0, Vec::new(), self.create(Some(&key))?)
            }
        };
        let store = Some(Store::File(part));
        Ok(Assembly { yard: self.clone(), key: Some(key), hasher, len, head, store })
    }

    fn check_free(&self, more: u64) -> Result<(), AssembleError> {
        if self.stop.is_stopped() {
            return Err(AssembleError::Stopped);
        }
        if more > self.free.load(Ordering::Relaxed) {
            return Err(AssembleError::Full("the spool is above its watermark".into()));
        }
        Ok(())
    }

    fn create(&self, key: Option<&PartialKey>) -> Result<PartFile, AssembleError> {
        loop {
            let n = self.next_name.fetch_add(1, Ordering::Relaxed);
            match PartFile::create(self.dir.join(format!("{n:08x}.part")), key) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map_err(full_or_io),
            }
        }
    }

    /// Deletes parked bodies that have expired. Called now and then.
    pub(super) fn expire(&self, wall: Timestamp) {
        let mut parked = self.parked.lock().expect("no panic while parked");
        let limit = self.limits.parked_seconds;
        parked.retain(|_, p| {
            let keep = wall.seconds_since(p.since) < limit;
            if !keep {
                p.remove();
            }
            keep
        });
        while parked.len() > self.limits.parked {
            let oldest = parked.iter().min_by_key(|(_, p)| p.since).map(|(k, _)| k.clone());
            if let Some(gone) = oldest.and_then(|k| parked.remove(&k)) {
                gone.remove();
            }
        }
    }
}

impl Parked {
    fn remove(&self) {
        let path = match &self.place {
            Place::Here(left) => &left.3.path,
            Place::File(path, _) => path,
        };
        let _ = fs::remove_file(path);
    }
}

impl Assembly {
    /// Bytes so far.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// True before the first byte.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first bytes of the body: all of it while it is in memory, else at least the first
    /// 256 KiB (or all, when shorter).
    pub fn head(&self) -> &[u8] {
        match &self.store {
            Some(Store::Memory(bytes, _)) => bytes,
            _ => &self.head,
        }
    }

    /// Adds bytes in order. After an error the body cannot go on. Not to be cancelled half-way.
    ///
    /// # Errors
    ///
    /// [`AssembleError`]: no room, too long, or the disk failed.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), AssembleError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let after = self.len + bytes.len() as u64;
        if after > self.yard.limits.object {
            return Err(AssembleError::TooLarge(self.yard.limits.object));
        }
        self.hasher.update(bytes);
        if let Some(Store::Memory(held, permits)) = &mut self.store {
            if after <= LARGE_BYTES && reserve(&self.yard.memory, permits, after) {
                held.extend_from_slice(bytes);
                self.len = after;
                return Ok(());
            }
            self.spill().await?;
        }
        self.len = after;
        keep_head(&mut self.head, bytes);
        let Some(Store::File(part)) = &mut self.store else {
            return Err(AssembleError::Stopped);
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let full;
            (rest, full) = part.gather(rest);
            if full {
                if part.begins_stretch() {
                    self.yard.check_free(CHUNK as u64)?;
                }
                part.flush(self.key.as_ref(), &self.yard.stop).await.map_err(full_or_io)?;
            }
        }
        Ok(())
    }

    /// Moves what is in memory to a file.
    async fn spill(&mut self) -> Result<(), AssembleError> {
        self.yard.check_free(self.len)?;
        let mut part = self.yard.create(self.key.as_ref())?;
        if let Some(Store::Memory(held, _permits)) = self.store.take() {
            keep_head(&mut self.head, &held);
            let mut rest = held.as_slice();
            while !rest.is_empty() {
                let full;
                (rest, full) = part.gather(rest);
                if full {
                    part.flush(self.key.as_ref(), &self.yard.stop).await.map_err(full_or_io)?;
                }
            }
        }
        self.store = Some(Store::File(part));
        Ok(())
    }

    /// No more bytes will come.
    pub fn finish(mut self) -> Assembled {
        let sha256 = std::mem::take(&mut self.hasher).finish();
        let store = match self.store.take() {
            Some(Store::File(part)) => AssembledStore::File(part.into()),
            Some(Store::Memory(bytes, permits)) => AssembledStore::Memory(bytes, permits),
            None => AssembledStore::Memory(Vec::new(), Vec::new()),
        };
        Assembled { len: self.len, sha256, head: std::mem::take(&mut self.head), store }
    }
}

/// Grows the permits to cover `bytes`; false when the budget does not allow it.
fn reserve(memory: &Arc<Semaphore>, permits: &mut Vec<OwnedSemaphorePermit>, bytes: u64) -> bool {
    let have: u64 = permits.iter().map(|p| p.num_permits() as u64).sum();
    let need = bytes.div_ceil(UNIT);
    if need <= have {
        return true;
    }
    // In steps that double, so that a long body takes few permits.
    let step = u32::try_from((need - have).max(have)).unwrap_or(u32::MAX);
    for want in [step, u32::try_from(need - have).unwrap_or(u32::MAX)] {
        if let Ok(permit) = memory.clone().try_acquire_many_owned(want) {
            permits.push(permit);
            return true;
        }
    }
    false
}

impl Drop for Assembly {
    fn drop(&mut self) {
        let Some(Store::File(part)) = self.store.take() else { return };
        let Some(key) = self.key.take() else {
            let _ = fs::remove_file(&part.path);
            return;
        };
        let since = part.created_at;
        let left = (self.hasher.clone(), self.len, std::mem::take(&mut self.head), part);
        let place = Place::Here(Box::new(left));
        if let Ok(mut parked) = self.yard.parked.lock() {
            parked.insert(key, Parked { since, place });
        }
    }
}

impl Assembled {
    /// Of bytes of our own making.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self {
            len: bytes.len() as u64,
            sha256: Sha256::of(&bytes),
            head: Vec::new(),
            store: AssembledStore::Memory(bytes, Vec::new()),
        }
    }

    /// Length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// True for a body without bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Digest of all bytes.
    pub const fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// As [`Assembly::head`].
    pub fn head(&self) -> &[u8] {
        match &self.store {
            AssembledStore::Memory(bytes, _) => bytes,
            AssembledStore::File(_) => &self.head,
        }
    }
}
