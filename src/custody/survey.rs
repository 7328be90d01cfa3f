//! Reading a whole segment, and keeping aside what in it is no record. Nothing is lost silently:
//! whatever is found amiss is put into words.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::log::{At, OpenError, Place, segment_name};
use super::segment::{Found, LogKind, Reader, Record, SEGMENT_HEADER, SegmentHeader};

/// What was found amiss while a log was opened. Nothing of it is lost silently.
#[derive(Debug, Default, Clone)]
pub(super) struct Findings {
    /// Records after the last proven sync that were whole and now stand, synced, in a new segment.
    pub recovered: u64,
    /// In words: what was damaged, where it is kept.
    pub damage: Vec<String>,
    /// In words: what a kill left half written. It was never answered with success.
    pub torn: Vec<String>,
    /// The segment whose tail was not proven, and where its whole records ended.
    pub unproven: Option<Place>,
}

pub(super) const fn kind_word(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Cargo => "cargo",
        LogKind::Facts => "facts",
    }
}

/// What one pass over a segment tells.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Its records with their heads.
    pub records: Vec<(Record, Vec<u8>)>,
    /// Where the last whole record ends.
    pub end: u64,
    /// All before this offset was synced.
    pub proven: u64,
    /// Ranges that hold no record.
    pub damage: Vec<(u64, u64)>,
    /// The record that the end of the file cuts. A file that was synced with it would be longer.
    pub torn: Option<(u64, u64)>,
}

/// Reads all records of a segment, whatever lies between them.
pub(super) fn survey(file: &File, header: SegmentHeader) -> io::Result<Survey> {
    let mut reader = Reader::new(file, header, SEGMENT_HEADER)?;
    let mut survey = Survey { end: SEGMENT_HEADER, proven: SEGMENT_HEADER, ..Survey::default() };
    let len = file.metadata()?.len();
    loop {
        match reader.advance()? {
            Found::Record(record, head) => {
                survey.proven = survey.proven.max(record.proven);
                survey.end = record.end(header.kind);
                survey.records.push((record, head));
            }
            Found::Damage { from, to } => survey.damage.push((from, to)),
            Found::Torn { from } => {
                survey.torn = Some((from, len));
                return Ok(survey);
            }
            Found::End { .. } => return Ok(survey),
        }
    }
}

/// Writes a damaged header again as the first record tells it; `None` when that is damaged too.
pub(super) fn restore_header(
    file: &File,
    kind: LogKind,
    number: u64,
    findings: &mut Findings,
) -> io::Result<Option<SegmentHeader>> {
    let header = SegmentHeader::from_first_record(file, kind, number)?;
    if let Some(header) = header {
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        let name = segment_name(number);
        findings.damage.push(format!("{} {name}: damaged header restored", kind_word(kind)));
    }
    Ok(header)
}

/// Copies a range that is no record to a file of its own; `None` when it is empty.
pub(super) fn keep_aside(
    file: &File,
    header: SegmentHeader,
    from: u64,
    to: u64,
    aside: &Path,
) -> io::Result<Option<String>> {
    let to = to.min(file.metadata()?.len());
    if to <= from {
        return Ok(None);
    }
    fs::create_dir_all(aside)?;
    let name = format!("{}-{:016x}-{from:x}.torn", kind_word(header.kind), header.number);
    let out = File::create(aside.join(&name))?;
    let mut buf = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let n = usize::try_from(to - at).unwrap_or(buf.len()).min(buf.len());
        file.read_exact_at(&mut buf[..n], at)?;
        out.write_all_at(&buf[..n], at - from)?;
        at += n as u64;
    }
    out.sync_all()?;
    Ok(Some(name))
}

/// Moves a file that is no segment out of the log. One shorter than a header was never written to.
pub(super) fn set_aside(
    path: &Path,
    aside: &Path,
    findings: &mut Findings,
) -> Result<(), OpenError> {
    fs::create_dir_all(aside).at(aside)?;
    let name = path.file_name().unwrap_or_default();
    fs::rename(path, aside.join(name)).at(path)?;
    findings
        .damage
        .push(format!("{} has no readable header; kept under aside/", name.to_string_lossy()));
    Ok(())
}
