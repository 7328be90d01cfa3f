//! One append-only log: a folder of segments, one of them active.
//!
//! The log appends, syncs, seals and reads; it decides nothing. It has one owner (the custodian)
//! for writing; readers hold open files. Names on disk are segment numbers in hexadecimal.
//!
//! A failed append leaves the tail where it was: the next append writes over it, and what a crash
//! finds there is torn and never taken for a record. A failed sync is final and the caller's to
//! act on: this log does not retry it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minicbor::{Decode, Encode};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{Resource, getrlimit};

use super::segment::{
    Index, LogKind, RECORD_HEADER, Record, SEGMENT_HEADER, SegmentError, SegmentHeader, head_length,
};
use super::survey::{Findings, Survey, keep_aside, kind_word, restore_header, set_aside, survey};
use crate::cargo::Sha256;
use crate::clock::Timestamp;

/// A segment is sealed when its index has grown to this: it bounds memory and the time to read it.
const INDEX_LENGTH_MAX: usize = 4 << 20;
/// Open files kept for reading, beside the active segment: at most this many, and at most an
/// eighth of the descriptors that the process may have.
const OPEN_FILES_MAX: usize = 64;
/// Head length of a segment that holds one large body: the rest is zeros, so that the body's place
/// is known before the head is.
pub(super) const LARGE_HEAD: u32 = 32 * 1024 - (SEGMENT_HEADER + RECORD_HEADER) as u32;
/// Where the body of such a segment starts.
pub(super) const LARGE_BODY_OFFSET: u64 = 32 * 1024;
/// The proven mark of a large segment: it enters the log by a rename after its sync.
const ALL_PROVEN: u64 = u64::MAX;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub(super) struct Place {
    /// Segment number.
    #[n(0)]
    pub segment: u64,
    /// Offset of the record.
    #[n(1)]
    pub offset: u64,
}

#[derive(Debug)]
struct Active {
    file: Arc<File>,
    header: SegmentHeader,
    tail: u64,
    synced: u64,
    index: Index,
}

/// A segment that is no longer written to.
#[derive(Debug, Clone, Copy)]
struct Sealed {
    /// Where its last record ends.
    end: u64,
}

/// One log of the spool.
#[derive(Debug)]
pub(super) struct Log {
    kind: LogKind,
    dir: PathBuf,
    dir_file: File,
    segment_size: u64,
    active: Active,
    sealed: BTreeMap<u64, Sealed>,
    open: Vec<(u64, Arc<File>, SegmentHeader)>,
    open_max: usize,
}

/// Why something could not be appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// A write failed; the log is as it was, and the next try may succeed.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// A sync failed: what the disk holds is unknown, and this process must not say yes again.
    #[error("cannot sync: {0}")]
    Sync(io::Error),
}

impl AppendError {
    /// True when the file system has no room left.
    pub(super) fn is_full(&self) -> bool {
        use io::ErrorKind as K;
        matches!(self, Self::Write(e)
            if matches!(e.kind(), K::StorageFull | K::QuotaExceeded | K::FileTooLarge))
    }
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A segment that this release must not touch.
    #[error("{path}: {source}")]
    Segment {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: SegmentError,
    },
    /// The folder or a file in it cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, OpenError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io { path: path.into(), source })
    }
}

fn salt() -> [u8; 16] {
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).expect("the system has a random number generator");
    salt
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Active {
    fn create(dir: &Path, kind: LogKind, number: u64, at: Timestamp) -> io::Result<Self> {
        let path = dir.join(segment_name(number));
        let header = SegmentHeader { kind, number, salt: salt(), created_at: at };
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        // Nothing rests on this file yet, so even a failed sync of it is only a failed write.
        let written = file.write_all_at(&header.encode(), 0).and_then(|()| file.sync_all());
        if let Err(e) = written.and_then(|()| sync_dir(dir)) {
            let _ = fs::remove_file(&path);
            return Err(e);
        }
        Ok(Self {
            file: Arc::new(file),
            header,
            tail: SEGMENT_HEADER,
            synced: SEGMENT_HEADER,
            index: Index::default(),
        })
    }

    fn append(
        &mut self,
        id: u64,
        head: &[u8],
        body: &[u8],
        sha256: Option<Sha256>,
    ) -> io::Result<Record> {
        let record = Record {
            offset: self.tail,
            id,
            head_len: head_length(head)?,
            body_len: body.len() as u64,
            proven: self.synced,
        };
        if let Err(e) = self.write(&record, head, body, sha256) {
            // Best effort: what stays behind the tail would be reported as torn after a crash.
            let _ = self.file.set_len(self.tail);
            return Err(e);
        }
        if self.header.kind == LogKind::Cargo {
            self.index.add(&self.header, &record, head);
        }
        self.tail = record.end(self.header.kind);
        Ok(record)
    }

    fn write(
        &self,
        record: &Record,
        head: &[u8],
        body: &[u8],
        sha256: Option<Sha256>,
    ) -> io::Result<()> {
        let mut front = Vec::with_capacity(RECORD_HEADER as usize + head.len());
        front.extend_from_slice(&record.encode(&self.header, head));
        front.extend_from_slice(head);
        self.file.write_all_at(&front, record.offset)?;
        if let Some(sha256) = sha256 {
            self.file.write_all_at(body, record.body_offset())?;
            let mut trailer = [0; 40];
            trailer[..32].copy_from_slice(&sha256.0);
            let end = record.body_offset() + record.body_len;
            let pad =
                usize::try_from(record.end(LogKind::Cargo) - end).map_err(io::Error::other)?;
            self.file.write_all_at(&trailer[..pad], end)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.tail;
        Ok(())
    }

    /// Writes the index behind the last record and makes all of it durable.
    fn seal(&mut self) -> Result<Sealed, AppendError> {
        let index = self.index.encode(self.tail);
        let written = self.file.write_all_at(&index, self.tail);
        if let Err(e) = written.and_then(|()| self.file.set_len(self.tail + index.len() as u64)) {
            let _ = self.file.set_len(self.tail);
            return Err(AppendError::Write(e));
        }
        self.file.sync_all().map_err(AppendError::Sync)?;
        self.synced = self.tail;
        Ok(Sealed { end: self.tail })
    }
}

impl Log {
    /// Opens the log in `dir`, making it if need be. Whatever stands after the last proven sync of
    /// a segment that was not sealed is copied into a new segment and synced before this returns:
    /// it may have been written by a process that was killed, or whose sync failed, and the page
    /// cache alone is no proof.
    pub(super) fn open(
        dir: &Path,
        aside: &Path,
        kind: LogKind,
        segment_size: u64,
        at: Timestamp,
    ) -> Result<(Self, Findings), OpenError> {
        fs::create_dir_all(dir).at(dir)?;
        let mut findings = Findings::default();
        let mut sealed = BTreeMap::new();
        let mut unsealed = Vec::new();
        for number in segment_numbers(dir)? {
            let path = dir.join(segment_name(number));
            let file = OpenOptions::new().read(true).write(true).open(&path).at(&path)?;
            let header = match SegmentHeader::read(&file, kind) {
                Ok(header) if header.number == number => Some(header),
                Ok(_) | Err(SegmentError::NotASegment) => {
                    restore_header(&file, kind, number, &mut findings).at(&path)?
                }
                Err(source) => return Err(OpenError::Segment { path, source }),
            };
            let Some(header) = header else {
                set_aside(&path, aside, &mut findings)?;
                continue;
            };
            match sealed_end(&file, &header).at(&path)? {
                Some(end) => drop(sealed.insert(number, Sealed { end })),
                None => unsealed.push((path, file, header)),
            }
        }
        let last = sealed.keys().next_back().copied();
        let last = last.max(unsealed.iter().map(|(_, _, h)| h.number).max()).unwrap_or(0);
        let active = Active::create(dir, kind, last + 1, at).at(dir)?;
        let dir_file = File::open(dir).at(dir)?;
        let mut log = Self {
            kind,
            dir: dir.into(),
            dir_file,
            segment_size,
            active,
            sealed,
            open: Vec::new(),
            open_max: open_files_max(),
        };
        for (path, file, header) in unsealed {
            log.recover(&file, header, aside, &mut findings).at(&path)?;
        }
        Ok((log, findings))
    }

    /// Brings one unsealed segment to rest: proven records stay, whole unproven ones move to the
    /// active segment, the rest is kept aside.
    fn recover(
        &mut self,
        file: &File,
        header: SegmentHeader,
        aside: &Path,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let Survey { records, end, proven, damage, torn } = survey(file, header)?;
        let mut index = Index::default();
        for (record, head) in records {
            if record.offset < proven {
                if header.kind == LogKind::Cargo {
                    index.add(&header, &record, &head);
                }
            } else {
                self.copy_unproven(file, header, &record, &head, aside, findings)?;
            }
        }
        if self.dirty() {
            self.sync()?;
        }
        let log = kind_word(header.kind);
        let segment = segment_name(header.number);
        for (from, to) in damage {
            let kept =
                if from >= proven { keep_aside(file, header, from, to, aside)? } else { None };
            findings.damage.push(match kept {
                Some(name) => format!(
                    "{log} {segment}: bytes {from} to {to} are no whole record; kept as aside/{name}"
                ),
                None => {
                    format!("{log} {segment}: bytes {from} to {to} are damaged; left in place")
                }
            });
        }
        if let Some((from, to)) = torn
            && let Some(name) = keep_aside(file, header, from, to, aside)?
        {
            findings.torn.push(format!(
                "{log} {segment}: its last record, from byte {from}, was being written when the \
                 node ended, and was never answered with success; what there was of it is kept as \
                 aside/{name}"
            ));
        }
        findings.unproven = Some(Place { segment: header.number, offset: end });
        let proven = proven.min(end);
        file.set_len(proven)?;
        file.write_all_at(&index.encode(proven), proven)?;
        file.sync_all()?;
        self.sealed.insert(header.number, Sealed { end: proven });
        Ok(())
    }

    fn copy_unproven(
        &mut self,
        file: &File,
        header: SegmentHeader,
        record: &Record,
        head: &[u8],
        aside: &Path,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let mut body = vec![0; usize::try_from(record.body_len).map_err(io::Error::other)?];
        file.read_exact_at(&mut body, record.body_offset())?;
        let sha256 = match self.kind {
            LogKind::Facts => None,
            LogKind::Cargo => {
                let mut stored = [0; 32];
                file.read_exact_at(&mut stored, record.body_offset() + record.body_len)?;
                let sha256 = Sha256::of(&body);
                if sha256 != Sha256(stored) {
                    let end = record.end(self.kind);
                    let name = keep_aside(file, header, record.offset, end, aside)?;
                    findings.damage.push(format!(
                        "cargo {} offset {}: written after the last proven sync, and its bytes do \
                         not have their digest; kept as aside/{}",
                        segment_name(header.number),
                        record.offset,
                        name.unwrap_or_default()
                    ));
                    return Ok(());
                }
                Some(sha256)
            }
        };
        self.active.append(record.id, head, &body, sha256)?;
        findings.recovered += 1;
        Ok(())
    }

    /// Appends a record; not durable before [`sync`](Self::sync). `id` is
    /// the cargo's number, 0 in the fact log.
    pub(super) fn append(
        &mut self,
        at: Timestamp,
        id: u64,
        head: &[u8],
        body: &[u8],
        sha256: Option<Sha256>,
    ) -> Result<(Place, Record), AppendError> {
        let size = RECORD_HEADER + head.len() as u64 + body.len() as u64 + 40;
        let full = self.active.tail > SEGMENT_HEADER
            && (self.active.tail + size > self.segment_size
                || self.active.index.bytes() > INDEX_LENGTH_MAX);
        if full {
            self.rotate(at)?;
        }
        let record = self.active.append(id, head, body, sha256).map_err(AppendError::Write)?;
        Ok((Place { segment: self.active.header.number, offset: record.offset }, record))
    }

    /// Seals the active segment and begins another.
    pub(super) fn rotate(&mut self, at: Timestamp) -> Result<(), AppendError> {
        let number = self.next_number();
        let next = Active::create(&self.dir, self.kind, number, at).map_err(AppendError::Write)?;
        let sealed = match self.active.seal() {
            Ok(sealed) => sealed,
            Err(e) => {
                let _ = fs::remove_file(self.dir.join(segment_name(number)));
                return Err(e);
            }
        };
        let old = std::mem::replace(&mut self.active, next);
        self.sealed.insert(old.header.number, sealed);
        self.remember(old.header.number, old.file, old.header);
        Ok(())
    }

    fn next_number(&self) -> u64 {
        let last = self.sealed.keys().next_back().copied().unwrap_or(0);
        last.max(self.active.header.number) + 1
    }

    /// Takes a file that holds a large body from [`LARGE_BODY_OFFSET`] on, all of it synced, into
    /// the log as a segment of its own. Durable when this returns.
    pub(super) fn adopt(
        &mut self,
        at: Timestamp,
        part: &Path,
        id: u64,
        head: &[u8],
        body_len: u64,
        sha256: Sha256,
    ) -> Result<(Place, Record), AppendError> {
        let number = self.next_number();
        let header = SegmentHeader { kind: self.kind, number, salt: salt(), created_at: at };
        let mut padded = head.to_vec();
        padded.resize(LARGE_HEAD as usize, 0);
        let record = Record {
            offset: SEGMENT_HEADER,
            id,
            head_len: LARGE_HEAD,
            body_len,
            proven: ALL_PROVEN,
        };
        let file = OpenOptions::new().read(true).write(true).open(part);
        let file = file.map_err(AppendError::Write)?;
        let mut front = header.encode().to_vec();
        front.extend_from_slice(&record.encode(&header, &padded));
        front.extend_from_slice(&padded);
        file.write_all_at(&sha256.0, record.body_offset() + body_len)
            .and_then(|()| file.write_all_at(&front, 0))
            .map_err(AppendError::Write)?;
        file.sync_all().map_err(AppendError::Sync)?;
        fs::rename(part, self.dir.join(segment_name(number))).map_err(AppendError::Write)?;
        self.dir_file.sync_all().map_err(AppendError::Sync)?;
        self.sealed.insert(number, Sealed { end: record.end(self.kind) });
        self.remember(number, Arc::new(file), header);
        Ok((Place { segment: number, offset: record.offset }, record))
    }

    /// True when something was appended since the last sync.
    pub(super) const fn dirty(&self) -> bool {
        self.active.tail > self.active.synced
    }

    /// Makes all that was appended durable. An error is final: see the module's head.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.active.sync()
    }

    /// Writes the active segment's index, so that the next start need not survey it. The log is
    /// not to be appended to afterwards.
    pub(super) fn seal(&mut self) -> Result<(), AppendError> {
        self.active.seal().map(drop)
    }

    /// The number of the segment that a record appended now would likely enter.
    pub(super) const fn active_number(&self) -> u64 {
        self.active.header.number
    }

    /// Where the next record will stand.
    pub(super) const fn end(&self) -> Place {
        Place { segment: self.active.header.number, offset: self.active.tail }
    }

    /// Where the records of `segment` end; `None` when there is no such segment.
    pub(super) fn end_of(&self, segment: u64) -> Option<u64> {
        if segment == self.active.header.number {
            return Some(self.active.tail);
        }
        self.sealed.get(&segment).map(|s| s.end)
    }

    /// All segment numbers in ascending order, the active one among them.
    pub(super) fn segments(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.sealed.keys().copied().collect();
        all.push(self.active.header.number);
        all.sort_unstable();
        all
    }

    /// The open file of a segment and its header.
    pub(super) fn file(&mut self, segment: u64) -> io::Result<(Arc<File>, SegmentHeader)> {
        if segment == self.active.header.number {
            return Ok((self.active.file.clone(), self.active.header));
        }
        if let Some(at) = self.open.iter().position(|(n, _, _)| *n == segment) {
            let found = self.open.remove(at);
            self.open.push(found.clone());
            return Ok((found.1, found.2));
        }
        let path = self.dir.join(segment_name(segment));
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let header = SegmentHeader::read(&file, self.kind).map_err(io::Error::other)?;
        let file = Arc::new(file);
        self.remember(segment, file.clone(), header);
        Ok((file, header))
    }

    fn remember(&mut self, segment: u64, file: Arc<File>, header: SegmentHeader) {
        if self.open.len() >= self.open_max {
            self.open.remove(0);
        }
        self.open.push((segment, file, header));
    }

    /// The record at `place` with its head, checked.
    pub(super) fn read(&mut self, place: Place) -> io::Result<Option<(Record, Vec<u8>)>> {
        let (file, header) = self.file(place.segment)?;
        super::segment::read_record(&file, &header, place.offset)
    }

    /// Gives the space of a record's body back to the file system. The head stays.
    pub(super) fn punch(&mut self, place: Place, record: &Record) -> io::Result<()> {
        const BLOCK: u64 = 4096;
        let from = record.body_offset().next_multiple_of(BLOCK);
        let to = (record.body_offset() + record.body_len) / BLOCK * BLOCK;
        if to <= from {
            return Ok(());
        }
        let (file, _) = self.file(place.segment)?;
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&*file, mode, offset(from)?, offset(to - from)?).map_err(io::Error::from)
    }

    /// Deletes a sealed segment. The active one is never deleted.
    pub(super) fn drop_segment(&mut self, segment: u64) -> io::Result<()> {
        if self.sealed.contains_key(&segment) {
            fs::remove_file(self.dir.join(segment_name(segment)))?;
            self.dir_file.sync_all()?;
            self.sealed.remove(&segment);
            self.open.retain(|(n, _, _)| *n != segment);
        }
        Ok(())
    }

    /// Bytes that the log occupies on the disk, holes not counted.
    pub(super) fn occupied(&self) -> u64 {
        let blocks = |path: PathBuf| fs::metadata(path).map_or(0, |m| m.blocks() * 512);
        self.segments().into_iter().map(|n| blocks(self.dir.join(segment_name(n)))).sum()
    }
}

fn open_files_max() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(limit / 8).unwrap_or(OPEN_FILES_MAX).clamp(1, OPEN_FILES_MAX)
}

fn offset(n: u64) -> io::Result<i64> {
    i64::try_from(n).map_err(io::Error::other)
}

/// The segment numbers in `dir`, ascending.
pub(super) fn segment_numbers(dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).at(dir)? {
        let name = entry.at(dir)?.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".seg"));
        numbers.extend(number.and_then(|n| u64::from_str_radix(n, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where the records end, when the segment needs no recovery: it has an index, or it holds one
/// large body that entered the log by a rename.
fn sealed_end(file: &File, header: &SegmentHeader) -> io::Result<Option<u64>> {
    if let Some(end) = Index::end(file)? {
        return Ok(Some(end));
    }
    match super::segment::read_record(file, header, SEGMENT_HEADER)? {
        Some((record, _)) if record.proven == ALL_PROVEN => Ok(Some(record.end(header.kind))),
        _ => Ok(None),
    }
}
