//! The byte layout of both logs of the spool, and reading it back. No policy.
//!
//! A log is a folder of segments. All numbers are big-endian.
//!
//! ```text
//! segment header, 64 bytes
//!    0  8  "HKYKCRGO" (cargo) or "HKYKFACT" (facts)
//!    8  2  format version (1); another version refuses to start
//!   10  2  zero
//!   12  4  key id; 0 = not encrypted
//!   16  8  segment number, never used twice in a log
//!   24 16  salt, random: no peer can guess it
//!   40  8  created at, milliseconds since 1970
//!   48 12  zero
//!   60  4  CRC-32 of bytes 0..60
//!
//! record, starting at a multiple of 8
//!    0  4  "HKRC"
//!    4  4  CRC-32 of bytes 8.. to the end of the head
//!    8  8  salt[0..8] xor offset of this record: binds it to its place
//!   16  8  cargo id (0 in the fact log)
//!   24  8  body length
//!   32  4  head length
//!   36  4  zero
//!   40  8  proven: all before this offset was synced when this record was written
//!   48     head: CBOR, perhaps followed by zeros
//!          body: the bytes exactly as received
//!          SHA-256 of the body, 32 bytes (cargo log only)
//!          zeros up to a multiple of 8
//!
//! index, at the end of a sealed segment (without entries in the fact log)
//!    0  4  "HKIX"
//!    4  4  CRC-32 of the entries
//!    8  8  length of the entries
//!   16     entries: offset (8), then the record's first 48 bytes and its head
//!   end-24  "HKFT", CRC-32 of the 16 bytes after it, offset of the index (8), length of entries (8)
//! ```
//!
//! A record whose check fails is damage: reading goes on at the next place where a whole record
//! header stands, which the salt keeps a peer from forging inside a body. A damaged segment header
//! is restored from the first record, whose place no body can have.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::cargo::{Hasher, Sha256};
use crate::clock::Timestamp;

/// Length of the segment header.
pub const SEGMENT_HEADER: u64 = 64;
/// Length of a record before its head.
pub const RECORD_HEADER: u64 = 48;
/// Longest head that is believed.
pub const HEAD_LENGTH_MAX: u32 = 1 << 20;
/// The format that this release reads and writes.
pub const FORMAT_VERSION: u16 = 1;

const RECORD_MARK: [u8; 4] = *b"HKRC";
const INDEX_MARK: [u8; 4] = *b"HKIX";
const FOOTER_MARK: [u8; 4] = *b"HKFT";
const FOOTER: u64 = 24;

/// Which of the two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// Accepted bytes.
    Cargo,
    /// Durable statements.
    Facts,
}

impl LogKind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Self::Cargo => *b"HKYKCRGO",
            Self::Facts => *b"HKYKFACT",
        }
    }

    const fn trailer(self) -> u64 {
        match self {
            Self::Cargo => 32,
            Self::Facts => 0,
        }
    }
}

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Written by a release that this one does not understand: refuse to start.
    #[error("format version {0} is not known to this release; start the newer release again")]
    UnknownVersion(u16),
    /// Encrypted with a key that this release cannot have.
    #[error("encrypted with key {0}, which this release does not support")]
    Encrypted(u32),
    /// Not a segment of this log, or its header is damaged.
    #[error("not a readable segment header")]
    NotASegment,
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the first 64 bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which log.
    pub kind: LogKind,
    /// The segment's number.
    pub number: u64,
    /// Binds records to this segment.
    pub salt: [u8; 16],
    /// When it was begun.
    pub created_at: Timestamp,
}

impl SegmentHeader {
    /// The 64 bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut b = [0; SEGMENT_HEADER as usize];
        b[..8].copy_from_slice(&self.kind.magic());
        b[8..10].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        b[16..24].copy_from_slice(&self.number.to_be_bytes());
        b[24..40].copy_from_slice(&self.salt);
        b[40..48].copy_from_slice(&self.created_at.0.to_be_bytes());
        let crc = crc32fast::hash(&b[..60]);
        b[60..].copy_from_slice(&crc.to_be_bytes());
        b
    }

    /// Reads and checks the header of `file`.
    pub fn read(file: &File, kind: LogKind) -> Result<Self, SegmentError> {
        let mut b = [0; SEGMENT_HEADER as usize];
        match file.read_exact_at(&mut b, 0) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(SegmentError::NotASegment);
            }
            other => other?,
        }
        if b[..8] != kind.magic() || crc32fast::hash(&b[..60]).to_be_bytes() != b[60..] {
            return Err(SegmentError::NotASegment);
        }
        let version = u16::from_be_bytes([b[8], b[9]]);
        if version != FORMAT_VERSION {
            return Err(SegmentError::UnknownVersion(version));
        }
        let key = u32::from_be_bytes(array(&b[12..16]));
        if key != 0 {
            return Err(SegmentError::Encrypted(key));
        }
        Ok(Self {
            kind,
            number: u64::from_be_bytes(array(&b[16..24])),
            salt: array(&b[24..40]),
            created_at: Timestamp(i64::from_be_bytes(array(&b[40..48]))),
        })
    }

    /// What the damaged header of segment `number` must have said, as its first record tells. Only
    /// the record at this place is believed: no peer's bytes ever stand there, while inside a body
    /// a peer could place a record of its own making.
    pub fn from_first_record(file: &File, kind: LogKind, number: u64) -> io::Result<Option<Self>> {
        let mut b = [0; RECORD_HEADER as usize];
        match file.read_exact_at(&mut b, SEGMENT_HEADER) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let bound = u64::from_be_bytes(array(&b[8..16]));
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&(bound ^ SEGMENT_HEADER).to_be_bytes());
        let header = Self { kind, number, salt, created_at: Timestamp(0) };
        Ok(read_record(file, &header, SEGMENT_HEADER)?.map(|_| header))
    }

    fn bind(&self, offset: u64) -> [u8; 8] {
        let salt = u64::from_be_bytes(array(&self.salt[..8]));
        (salt ^ offset).to_be_bytes()
    }
}

fn array<const N: usize>(b: &[u8]) -> [u8; N] {
    b.try_into().expect("the caller slices exactly N bytes")
}

/// The length of a head that is to be written. What reading would not take for a record must not
/// be promised.
pub(super) fn head_length(head: &[u8]) -> io::Result<u32> {
    let length = u32::try_from(head.len()).ok().filter(|length| *length <= HEAD_LENGTH_MAX);
    length.ok_or_else(|| io::Error::other("the head of the record is too long"))
}

/// A record's place and shape; its head is beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Where it starts in its segment.
    pub offset: u64,
    /// The cargo's number; 0 in the fact log.
    pub id: u64,
    /// Length of the head.
    pub head_len: u32,
    /// Length of the body.
    pub body_len: u64,
    /// All before this offset was synced when the record was written.
    pub proven: u64,
}

impl Record {
    /// Where the body starts.
    pub const fn body_offset(&self) -> u64 {
        self.offset + RECORD_HEADER + self.head_len as u64
    }

    /// Where the next record starts.
    pub const fn end(&self, kind: LogKind) -> u64 {
        (self.body_offset() + self.body_len + kind.trailer()).next_multiple_of(8)
    }

    /// The first 48 bytes, for `head` in the segment of `header`.
    pub fn encode(&self, header: &SegmentHeader, head: &[u8]) -> [u8; RECORD_HEADER as usize] {
        let mut b = [0; RECORD_HEADER as usize];
        b[..4].copy_from_slice(&RECORD_MARK);
        b[8..16].copy_from_slice(&header.bind(self.offset));
        b[16..24].copy_from_slice(&self.id.to_be_bytes());
        b[24..32].copy_from_slice(&self.body_len.to_be_bytes());
        b[32..36].copy_from_slice(&self.head_len.to_be_bytes());
        b[40..48].copy_from_slice(&self.proven.to_be_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&b[8..]);
        crc.update(head);
        b[4..8].copy_from_slice(&crc.finalize().to_be_bytes());
        b
    }

    /// The shape that 48 bytes claim, checked against the place but not yet against the head.
    fn decode(header: &SegmentHeader, offset: u64, b: &[u8]) -> Option<Self> {
        if b[..4] != RECORD_MARK || b[8..16] != header.bind(offset) {
            return None;
        }
        let head_len = u32::from_be_bytes(array(&b[32..36]));
        let body_len = u64::from_be_bytes(array(&b[24..32]));
        if head_len > HEAD_LENGTH_MAX || body_len > 1 << 48 {
            return None;
        }
        Some(Self {
            offset,
            id: u64::from_be_bytes(array(&b[16..24])),
            head_len,
            body_len,
            proven: u64::from_be_bytes(array(&b[40..48])),
        })
    }

    fn checks(b: &[u8], head: &[u8]) -> bool {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&b[8..RECORD_HEADER as usize]);
        crc.update(head);
        crc.finalize().to_be_bytes() == b[4..8]
    }
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A record and its head. Its body is whole in length but not yet verified.
    Record(Record, Vec<u8>),
    /// Bytes that are no record, up to (not including) `to`; reading can go on there.
    Damage {
        /// Where the damage starts.
        from: u64,
        /// Where it ends.
        to: u64,
    },
    /// A record that runs past the end of the file: the process was killed while it wrote it.
    Torn {
        /// Where the torn record starts.
        from: u64,
    },
    /// No more records: the end of the file, its index, or zeros to the end.
    End {
        /// Where the last record ends.
        at: u64,
    },
}

/// Reads the records of one segment in order.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a File,
    header: SegmentHeader,
    /// Where reading goes on.
    at: u64,
    len: u64,
}

impl<'a> Reader<'a> {
    /// From `at`, a record boundary, up to the file's length now.
    pub fn new(file: &'a File, header: SegmentHeader, at: u64) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self::up_to(file, header, at, len))
    }

    /// From `at` up to `len`, beyond which the file is not looked at.
    pub fn up_to(file: &'a File, header: SegmentHeader, at: u64, len: u64) -> Self {
        Self { file, header, at: at.max(SEGMENT_HEADER), len }
    }

    /// What stands at the present place; moves on behind it.
    pub fn advance(&mut self) -> io::Result<Found> {
        let at = self.at;
        if at + RECORD_HEADER > self.len {
            return Ok(Found::End { at });
        }
        if let Some((record, head)) = self.record_at(at)? {
            if record.body_offset() + record.body_len + self.header.kind.trailer() > self.len {
                self.at = self.len;
                return Ok(Found::Torn { from: at });
            }
            self.at = record.end(self.header.kind);
            return Ok(Found::Record(record, head));
        }
        let mut mark = [0; 4];
        self.file.read_exact_at(&mut mark, at)?;
        if mark == INDEX_MARK {
            self.at = self.len;
            return Ok(Found::End { at });
        }
        match self.resume_after(at)? {
            Found::Damage { from, to } if to == self.len && self.is_cut_head(from)? => {
                Ok(Found::Torn { from })
            }
            found => Ok(found),
        }
    }

    fn record_at(&self, at: u64) -> io::Result<Option<(Record, Vec<u8>)>> {
        let mut b = [0; RECORD_HEADER as usize];
        self.file.read_exact_at(&mut b, at)?;
        let Some(record) = Record::decode(&self.header, at, &b) else { return Ok(None) };
        if record.body_offset() > self.len {
            return Ok(None);
        }
        let mut head = vec![0; record.head_len as usize];
        self.file.read_exact_at(&mut head, at + RECORD_HEADER)?;
        Ok(Record::checks(&b, &head).then_some((record, head)))
    }

    /// True when a record began here whose head runs past the end of the file. Its length stands
    /// unproven; but a kill cuts a write where a page ends, and damage does not.
    fn is_cut_head(&self, at: u64) -> io::Result<bool> {
        const PAGE: u64 = 4096;
        if !self.len.is_multiple_of(PAGE) {
            return Ok(false);
        }
        let mut b = [0; RECORD_HEADER as usize];
        self.file.read_exact_at(&mut b, at)?;
        let record = Record::decode(&self.header, at, &b);
        Ok(record.is_some_and(|record| record.body_offset() > self.len))
    }

    /// Looks for the next whole record after a place where none stands.
    fn resume_after(&mut self, from: u64) -> io::Result<Found> {
        const CHUNK: usize = 1 << 20;
        let mut buf = vec![0; CHUNK];
        let mut place = from;
        let mut only_zeros = true;
        while place < self.len {
            let n = usize::try_from(self.len - place).unwrap_or(CHUNK).min(CHUNK);
            self.file.read_exact_at(&mut buf[..n], place)?;
            only_zeros &= buf[..n].iter().all(|&b| b == 0);
            for step in (0..n).step_by(8) {
                let candidate = place + step as u64;
                if candidate > from
                    && buf[step..n].starts_with(&RECORD_MARK)
                    && candidate + RECORD_HEADER <= self.len
                    && self.record_at(candidate)?.is_some()
                {
                    self.at = candidate;
                    return Ok(Found::Damage { from, to: candidate });
                }
            }
            place += n as u64;
        }
        self.at = self.len;
        if only_zeros {
            return Ok(Found::End { at: from });
        }
        Ok(Found::Damage { from, to: self.len })
    }
}

/// Reads one record whose place is known, checking that it is the one expected there.
pub fn read_record(
    file: &File,
    header: &SegmentHeader,
    offset: u64,
) -> io::Result<Option<(Record, Vec<u8>)>> {
    let len = file.metadata()?.len();
    if offset + RECORD_HEADER > len {
        return Ok(None);
    }
    Reader::up_to(file, *header, offset, len).record_at(offset)
}

/// True when the body of `record` has the digest that follows it.
pub fn body_is_whole(file: &File, record: &Record) -> io::Result<bool> {
    let mut hasher = Hasher::new();
    let mut buf = vec![0; 1 << 20];
    let (mut at, end) = (record.body_offset(), record.body_offset() + record.body_len);
    while at < end {
        let n = usize::try_from(end - at).unwrap_or(buf.len()).min(buf.len());
        file.read_exact_at(&mut buf[..n], at)?;
        hasher.update(&buf[..n]);
        at += n as u64;
    }
    let mut stored = [0; 32];
    file.read_exact_at(&mut stored, end)?;
    Ok(hasher.finish() == Sha256(stored))
}

/// Records with their heads.
pub type Entries = Vec<(Record, Vec<u8>)>;

/// The index of a sealed segment, gathered while its records are written.
#[derive(Debug, Default)]
pub struct Index {
    entries: Vec<u8>,
}

impl Index {
    /// Adds a record that was written with `head`.
    pub fn add(&mut self, header: &SegmentHeader, record: &Record, head: &[u8]) {
        self.entries.extend_from_slice(&record.offset.to_be_bytes());
        self.entries.extend_from_slice(&record.encode(header, head));
        self.entries.extend_from_slice(head);
    }

    /// Bytes gathered.
    pub const fn bytes(&self) -> usize {
        self.entries.len()
    }

    /// Index and footer, to be written at `offset`.
    pub fn encode(&self, offset: u64) -> Vec<u8> {
        let len = self.entries.len() as u64;
        let mut out = Vec::with_capacity(self.entries.len() + 48);
        out.extend_from_slice(&INDEX_MARK);
        out.extend_from_slice(&crc32fast::hash(&self.entries).to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&self.entries);
        let mut place = [0; 16];
        place[..8].copy_from_slice(&offset.to_be_bytes());
        place[8..].copy_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&FOOTER_MARK);
        out.extend_from_slice(&crc32fast::hash(&place).to_be_bytes());
        out.extend_from_slice(&place);
        out
    }

    /// Where the records of a sealed segment end; `None` when it is not sealed. Reads the footer
    /// only.
    pub fn end(file: &File) -> io::Result<Option<u64>> {
        Ok(Self::footer(file)?.map(|(offset, _)| offset))
    }

    /// Offset of the index and length of its entries.
    fn footer(file: &File) -> io::Result<Option<(u64, u64)>> {
        let len = file.metadata()?.len();
        if len < SEGMENT_HEADER + FOOTER + 16 {
            return Ok(None);
        }
        let mut footer = [0; FOOTER as usize];
        file.read_exact_at(&mut footer, len - FOOTER)?;
        if footer[..4] != FOOTER_MARK || crc32fast::hash(&footer[8..]).to_be_bytes() != footer[4..8]
        {
            return Ok(None);
        }
        let offset = u64::from_be_bytes(array(&footer[8..16]));
        let entries = u64::from_be_bytes(array(&footer[16..24]));
        let fits = entries
            .checked_add(16 + FOOTER)
            .and_then(|index| offset.checked_add(index))
            .is_some_and(|end| end == len);
        Ok(fits.then_some((offset, entries)))
    }

    /// The records of a sealed segment with their heads; `None` when it has no whole index, and
    /// the segment must be read record by record.
    pub fn read(file: &File, header: &SegmentHeader) -> io::Result<Option<Entries>> {
        let Some((offset, entries_len)) = Self::footer(file)? else { return Ok(None) };
        let mut b = vec![0; usize::try_from(16 + entries_len).map_err(io::Error::other)?];
        file.read_exact_at(&mut b, offset)?;
        if b[..4] != INDEX_MARK || crc32fast::hash(&b[16..]).to_be_bytes() != b[4..8] {
            return Ok(None);
        }
        Ok(Self::entries(header, &b[16..]))
    }

    fn entries(header: &SegmentHeader, mut b: &[u8]) -> Option<Entries> {
        let mut out = Vec::new();
        while !b.is_empty() {
            let (place, rest) = b.split_at_checked(8)?;
            let (fixed, rest) = rest.split_at_checked(RECORD_HEADER as usize)?;
            let record = Record::decode(header, u64::from_be_bytes(array(place)), fixed)?;
            let (head, rest) = rest.split_at_checked(record.head_len as usize)?;
            if !Record::checks(fixed, head) {
                return None;
            }
            out.push((record, head.to_vec()));
            b = rest;
        }
        Some(out)
    }
}
