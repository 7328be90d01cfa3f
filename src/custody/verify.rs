//! Reading a spool without its node: `hikyaku spool verify` and `hikyaku spool export`. Needs no
//! ledger and changes nothing; takes the lock, so that no node writes meanwhile.

use std::fs::File;
use std::io;
use std::path::Path;

use super::fact::{self, CargoHead};
use super::log::segment_numbers;
use super::recovery::{OpenError, lock};
use super::segment::{Index, LogKind, Record, SegmentError, SegmentHeader, body_is_whole};
use super::survey::{Survey, survey};

/// What a pass over a spool found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Cargo records whose bytes have their digest.
    pub whole: u64,
    /// Cargo records whose bytes were given back.
    pub reclaimed: u64,
    /// Bytes of the whole ones.
    pub bytes: u64,
    /// Facts.
    pub facts: u64,
    /// What is damaged, in words.
    pub damage: Vec<String>,
    /// What a kill left half written, in words. It was never answered with success; the next start
    /// keeps it aside.
    pub torn: Vec<String>,
}

/// Reads every byte of the spool in `data` and checks it.
///
/// # Errors
///
/// [`OpenError`]: the folder is in use or cannot be read.
pub fn verify(data: &Path) -> Result<Verdict, OpenError> {
    let _lock = lock(data)?;
    let mut verdict = Verdict::default();
    let gone = reclaimed(data, &mut verdict)?;
    let mut found = Amiss::default();
    each_cargo(data, &mut found, |file, record, head| {
        if gone.contains(&record.id) {
            verdict.reclaimed += 1;
        } else if body_is_whole(file, record)? {
            verdict.whole += 1;
            verdict.bytes += record.body_len;
        } else {
            verdict.damage.push(format!(
                "cargo {} ({}): the bytes do not have the digest they were accepted with",
                record.id, head.envelope.identity.key
            ));
        }
        Ok(())
    })?;
    verdict.damage.append(&mut found.damage);
    verdict.torn.append(&mut found.torn);
    Ok(verdict)
}

/// What in a log is no record, in words.
#[derive(Debug, Default)]
struct Amiss {
    damage: Vec<String>,
    torn: Vec<String>,
}

impl Amiss {
    fn note(&mut self, log: &str, header: &SegmentHeader, seen: &Survey) {
        for (from, to) in &seen.damage {
            self.damage.push(format!("{log} {:016x}: bytes {from} to {to}", header.number));
        }
        if let Some((from, _)) = seen.torn {
            let number = header.number;
            self.torn.push(format!(
                "{log} {number:016x}: the record at byte {from} was being written when the node \
                 ended, and was never answered with success"
            ));
        }
    }
}

/// Gives every whole piece of cargo that `wanted` chooses to `write`: its head and its bytes, read
/// from `file` at the record's body. Returns how many were written; damaged ones are named in
/// `damage`.
///
/// # Errors
///
/// [`OpenError`]: the folder is in use or cannot be read, or `write` failed.
pub fn export(
    data: &Path,
    mut wanted: impl FnMut(&CargoEntry) -> bool,
    mut write: impl FnMut(&CargoEntry, &File) -> io::Result<()>,
    damage: &mut Vec<String>,
) -> Result<u64, OpenError> {
    let _lock = lock(data)?;
    let mut verdict = Verdict::default();
    let gone = reclaimed(data, &mut verdict)?;
    damage.append(&mut verdict.damage);
    let mut written = 0;
    let mut broken = Vec::new();
    let mut found = Amiss::default();
    each_cargo(data, &mut found, |file, record, head| {
        let entry = CargoEntry { head: head.clone(), record: *record };
        if gone.contains(&record.id) || !wanted(&entry) {
            return Ok(());
        }
        if body_is_whole(file, record)? {
            write(&entry, file)?;
            written += 1;
        } else {
            broken.push(format!("cargo {}: damaged, not exported", record.id));
        }
        Ok(())
    })?;
    damage.append(&mut found.damage);
    damage.append(&mut broken);
    Ok(written)
}

/// A piece of cargo in a spool.
#[derive(Debug, Clone)]
pub struct CargoEntry {
    head: CargoHead,
    record: Record,
}

impl CargoEntry {
    /// Its envelope.
    pub const fn envelope(&self) -> &crate::cargo::Envelope {
        &self.head.envelope
    }

    /// Its number.
    pub const fn cargo(&self) -> u64 {
        self.record.id
    }

    /// Where its bytes stand in the file.
    pub const fn body(&self) -> std::ops::Range<u64> {
        let start = self.record.body_offset();
        start..start + self.record.body_len
    }
}

fn reclaimed(
    data: &Path,
    verdict: &mut Verdict,
) -> Result<std::collections::HashSet<u64>, OpenError> {
    let dir = data.join("facts");
    let mut gone = std::collections::HashSet::new();
    if !dir.exists() {
        return Ok(gone);
    }
    let mut found = Amiss::default();
    for (path, file, header) in segments(&dir, LogKind::Facts, &mut found.damage)? {
        let seen = survey(&file, header).map_err(|source| OpenError::Io { path, source })?;
        found.note("facts", &header, &seen);
        for (_, head) in seen.records {
            verdict.facts += 1;
            if let Some(
                fact::Fact::Reclaimed { cargo, .. }
                | fact::Fact::Forgotten { cargo }
                | fact::Fact::Duplicate { cargo, .. },
            ) = fact::decode_fact(&head)
            {
                gone.insert(cargo);
            }
        }
    }
    verdict.damage.append(&mut found.damage);
    verdict.torn.append(&mut found.torn);
    Ok(gone)
}

fn each_cargo(
    data: &Path,
    found: &mut Amiss,
    mut each: impl FnMut(&File, &Record, &CargoHead) -> io::Result<()>,
) -> Result<(), OpenError> {
    let dir = data.join("cargo");
    if !dir.exists() {
        return Ok(());
    }
    for (path, file, header) in segments(&dir, LogKind::Cargo, &mut found.damage)? {
        let at = |source| OpenError::Io { path: path.clone(), source };
        let seen = survey(&file, header).map_err(at)?;
        found.note("cargo", &header, &seen);
        let indexed = Index::read(&file, &header).map_err(at)?;
        if let Some(indexed) = indexed
            && indexed.len() != seen.records.len()
        {
            found.damage.push(format!(
                "cargo {:016x}: {} records are readable, its index names {}",
                header.number,
                seen.records.len(),
                indexed.len()
            ));
        }
        for (record, head) in &seen.records {
            match fact::decode_head(head) {
                Some(head) => each(&file, record, &head).map_err(at)?,
                None => found.damage.push(format!("cargo {}: its head is unreadable", record.id)),
            }
        }
    }
    Ok(())
}

type Segment = (std::path::PathBuf, File, SegmentHeader);

fn segments(
    dir: &Path,
    kind: LogKind,
    damage: &mut Vec<String>,
) -> Result<Vec<Segment>, OpenError> {
    let mut all = Vec::new();
    for number in segment_numbers(dir)? {
        let path = dir.join(format!("{number:016x}.seg"));
        let io_error = |source| OpenError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io_error)?;
        match SegmentHeader::read(&file, kind) {
            Ok(header) => all.push((path, file, header)),
            Err(e) => {
                damage.push(format!("{}: {e}", path.display()));
                let restored = SegmentHeader::from_first_record(&file, kind, number);
                if let (SegmentError::NotASegment, Ok(Some(header))) = (e, restored) {
                    all.push((path, file, header));
                }
            }
        }
    }
    Ok(all)
}
