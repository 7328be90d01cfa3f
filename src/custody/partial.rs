//! Files under `partial/`: bodies on their way in that are too long for memory.
//!
//! ```text
//! 0..32768 header, then the body
//!   0  8  "HKYKPART"
//!   8  4  CRC-32 of the CBOR
//!  12  4  length of the CBOR
//!  16     CBOR: peer, identity, length, created at, mark (all before it is synced)
//! ```
//!
//! Only a keyed body has a header before custody adopts its file; a file without one belongs to
//! nobody after a restart and is deleted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minicbor::{Decode, Encode};
use tokio::task::JoinHandle;

use super::assembly::AssembleError;
use super::log::LARGE_BODY_OFFSET;
use super::stop::StopSwitch;
use crate::cargo::{Hasher, Identity, NodeName};
use crate::clock::{self, Timestamp};

/// Bytes gathered before one write.
pub(super) const CHUNK: usize = 1 << 20;
/// Bytes written between two syncs.
pub(super) const SYNC_EVERY: u64 = 32 << 20;
/// Bytes of a long body that are kept for header reading.
const HEAD_BYTES: usize = 256 << 10;

/// What a keyed body is kept under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub(super) struct PartialKey {
    /// Who sends it.
    #[n(0)]
    pub(super) peer: NodeName,
    /// Which piece.
    #[n(1)]
    pub(super) identity: Identity,
    /// Its whole length.
    #[n(2)]
    pub(super) length: u64,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct PartialHeader {
    #[n(0)]
    pub(super) key: PartialKey,
    #[n(1)]
    pub(super) created_at: Timestamp,
    #[n(2)]
    pub(super) mark: u64,
}

/// A file under `partial/` that is being written.
#[derive(Debug)]
pub(super) struct PartFile {
    pub(super) path: PathBuf,
    file: Arc<File>,
    /// Gathered, not yet handed to a write.
    gathered: Vec<u8>,
    /// Handed to writes.
    written: u64,
    synced: u64,
    pub(super) created_at: Timestamp,
    pending: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

/// A finished file under `partial/`.
#[derive(Debug)]
pub(super) struct FinishedFile {
    pub(super) path: PathBuf,
    part: Option<PartFile>,
    adopted: bool,
}

impl From<PartFile> for FinishedFile {
    fn from(part: PartFile) -> Self {
        Self { path: part.path.clone(), part: Some(part), adopted: false }
    }
}

pub(super) fn full_or_io(e: io::Error) -> AssembleError {
    use io::ErrorKind as K;
    match e.kind() {
        K::StorageFull | K::QuotaExceeded => AssembleError::Full(e.to_string()),
        _ => AssembleError::Io(e),
    }
}

fn write_header(file: &File, key: &PartialKey, at: Timestamp, mark: u64) -> io::Result<()> {
    let header = PartialHeader { key: key.clone(), created_at: at, mark };
    let cbor = super::fact::encode(&header);
    let mut b = b"HKYKPART".to_vec();
    b.extend_from_slice(&crc32fast::hash(&cbor).to_be_bytes());
    b.extend_from_slice(&u32::try_from(cbor.len()).map_err(io::Error::other)?.to_be_bytes());
    b.extend_from_slice(&cbor);
    file.write_all_at(&b, 0)
}

pub(super) fn read_header(path: &Path) -> Option<PartialHeader> {
    let file = File::open(path).ok()?;
    let mut b = [0; 16];
    file.read_exact_at(&mut b, 0).ok()?;
    let len = u32::from_be_bytes(b[12..16].try_into().ok()?) as usize;
    if &b[..8] != b"HKYKPART" || len as u64 > LARGE_BODY_OFFSET - 16 {
        return None;
    }
    let mut cbor = vec![0; len];
    file.read_exact_at(&mut cbor, 16).ok()?;
    let whole = crc32fast::hash(&cbor).to_be_bytes() == b[8..12];
    whole.then(|| minicbor::decode(&cbor).ok()).flatten()
}

/// Goes on with a file of an earlier process: what is before the mark is hashed again.
pub(super) async fn reopen(
    path: PathBuf,
    mark: u64,
) -> Result<(Hasher, u64, Vec<u8>, PartFile), AssembleError> {
    let work = move || -> io::Result<_> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut hasher = Hasher::new();
        let mut head = Vec::new();
        let mut buf = vec![0; CHUNK];
        let mut at = 0;
        while at < mark {
            let n = usize::try_from(mark - at).unwrap_or(CHUNK).min(CHUNK);
            file.read_exact_at(&mut buf[..n], LARGE_BODY_OFFSET + at)?;
            hasher.update(&buf[..n]);
            keep_head(&mut head, &buf[..n]);
            at += n as u64;
        }
        let part = PartFile::new(path, file, clock::wall(), mark);
        Ok((hasher, mark, head, part))
    };
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
}

pub(super) fn keep_head(head: &mut Vec<u8>, bytes: &[u8]) {
    let room = HEAD_BYTES.saturating_sub(head.len());
    head.extend_from_slice(&bytes[..room.min(bytes.len())]);
}

impl PartFile {
    /// Makes a new file at `path`, with a header when the body is keyed.
    pub(super) fn create(path: PathBuf, key: Option<&PartialKey>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let created_at = clock::wall();
        if let Some(key) = key {
            write_header(&file, key, created_at, 0)?;
        }
        Ok(Self::new(path, file, created_at, 0))
    }

    fn new(path: PathBuf, file: File, created_at: Timestamp, written: u64) -> Self {
        Self {
            path,
            file: Arc::new(file),
            gathered: Vec::with_capacity(CHUNK),
            written,
            synced: written,
            created_at,
            pending: None,
        }
    }

    /// Takes as much of `bytes` as one chunk has room for and returns the rest; `true` when the
    /// chunk is full and must be flushed before more is taken.
    pub(super) fn gather<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], bool) {
        let (now, rest) = bytes.split_at((CHUNK - self.gathered.len()).min(bytes.len()));
        self.gathered.extend_from_slice(now);
        (rest, self.gathered.len() == CHUNK)
    }

    /// True when the next flush begins another stretch between two syncs.
    pub(super) const fn begins_stretch(&self) -> bool {
        self.written.is_multiple_of(SYNC_EVERY)
    }

    pub(super) async fn idle(&mut self, stop: &StopSwitch) -> io::Result<()> {
        if let Some(pending) = self.pending.take() {
            match pending.await.map_err(io::Error::other)? {
                Ok(buffer) => self.gathered = reuse(buffer, std::mem::take(&mut self.gathered)),
                Err(e) => {
                    if is_sync_failure(&e) {
                        stop.stop(format!("a sync of a partial file failed: {e}"));
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Hands what is gathered to a write in the background.
    pub(super) async fn flush(
        &mut self,
        key: Option<&PartialKey>,
        stop: &StopSwitch,
    ) -> io::Result<()> {
        self.idle(stop).await?;
        let bytes = std::mem::take(&mut self.gathered);
        let file = self.file.clone();
        let offset = LARGE_BODY_OFFSET + self.written;
        self.written += bytes.len() as u64;
        let sync = (self.written - self.synced >= SYNC_EVERY).then_some(self.written);
        if sync.is_some() {
            self.synced = self.written;
        }
        let mark = sync.and_then(|mark| key.map(|k| (k.clone(), self.created_at, mark)));
        self.pending = Some(tokio::task::spawn_blocking(move || {
            file.write_all_at(&bytes, offset)?;
            if sync.is_some() {
                file.sync_data().map_err(sync_failure)?;
            }
            if let Some((key, created_at, mark)) = mark {
                write_header(&file, &key, created_at, mark)?;
            }
            Ok(bytes)
        }));
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("sync: {0}")]
struct SyncFailure(io::Error);

fn sync_failure(e: io::Error) -> io::Error {
    io::Error::other(SyncFailure(e))
}

fn is_sync_failure(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<SyncFailure>())
}

/// Keeps the larger buffer, with the content of `content`.
fn reuse(mut spare: Vec<u8>, content: Vec<u8>) -> Vec<u8> {
    if content.capacity() >= spare.capacity() {
        return content;
    }
    spare.clear();
    spare.extend_from_slice(&content);
    spare
}

impl FinishedFile {
    /// Writes and syncs what is left, so that custody has only a header to add.
    pub(super) async fn settle(&mut self, stop: &StopSwitch) -> Result<(), AssembleError> {
        let Some(mut part) = self.part.take() else { return Ok(()) };
        part.flush(None, stop).await.map_err(full_or_io)?;
        part.idle(stop).await.map_err(full_or_io)?;
        let file = part.file.clone();
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        if let Err(e) = synced.map_err(io::Error::other)? {
            stop.stop(format!("a sync of a partial file failed: {e}"));
            return Err(AssembleError::Stopped);
        }
        Ok(())
    }

    /// Custody has renamed it: there is nothing to delete.
    pub(super) fn adopted(&mut self) {
        self.adopted = true;
    }
}

impl Drop for FinishedFile {
    fn drop(&mut self) {
        if !self.adopted {
            let _ = fs::remove_file(&self.path);
        }
    }
}
