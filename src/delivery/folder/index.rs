//! The index of the reports in a folder: one line of JSON for each that was delivered, appended and
//! synced before its receipt, and once for each in spite of crashes.
//!
//! What a line is about is its file, its report and its version; of all lines that stand in the file
//! that much is kept in memory, 16 bytes each. A last line that a crash has torn is removed: its
//! report has no receipt, and comes again. When somebody takes the file away, a new one is begun.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cargo::{Envelope, ReportFacts, Sha256};
use crate::clock::Timestamp;

/// Its name below the folder of reports.
pub(super) const NAME: &str = "index.jsonl";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// When it was written, RFC 3339 in UTC.
    pub delivered_at: String,
    /// Study Instance UID.
    pub study: String,
    /// Accession Number.
    pub accession: String,
    /// How far the report is.
    pub status: String,
    /// Id of the report.
    pub report: String,
    /// Which version of it, from one.
    pub version: u32,
    /// The file, below the destination's folder.
    pub file: String,
    /// Digest of what was delivered: of the file itself, or of the data set in a DICOM file.
    pub sha256: String,
    /// The file that it replaces; empty: none.
    pub replaces: String,
}

impl Line {
    pub(super) fn new(envelope: &Envelope, file: &str, now: Timestamp) -> Self {
        let ReportFacts { status, report, version, replaces } = ReportFacts::of(envelope);
        Self {
            delivered_at: now.to_string(),
            study: envelope.study.clone(),
            accession: envelope.accession.clone(),
            status,
            report,
            version,
            file: file.to_owned(),
            sha256: envelope.identity.sha256.to_string(),
            replaces,
        }
    }

    /// What it is about.
    fn about(&self) -> [u8; 16] {
        let text = format!("{}\n{}\n{}", self.file, self.report, self.version);
        Sha256::of(text.as_bytes()).0[..16].try_into().expect("32 bytes hold 16")
    }
}

/// The index of one folder.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// Inode and length as we left them.
    left: Option<(u64, u64)>,
    written: HashSet<[u8; 16]>,
}

impl Index {
    /// The index in `reports`; nothing is read yet.
    pub(super) fn new(reports: &Path) -> Self {
        Self { path: reports.join(NAME), left: None, written: HashSet::new() }
    }

    /// The same index, of which nothing is read yet.
    pub(super) fn anew(&self) -> Self {
        Self { path: self.path.clone(), left: None, written: HashSet::new() }
    }

    /// Appends those lines that do not stand there yet. All of them are durable when this returns;
    /// after an error the file is read anew. Blocks.
    pub(super) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let left = self.left.take();
        let options = OpenOptions::new().read(true).append(true).create(true).open(&self.path);
        let mut file = options?;
        let meta = file.metadata()?;
        if left != Some((meta.ino(), meta.len())) {
            self.read(&file)?;
        }
        let mut bytes = Vec::new();
        let mut new = Vec::new();
        for line in lines {
            let about = line.about();
            if !self.written.contains(&about) && !new.contains(&about) {
                serde_json::to_writer(&mut bytes, line)?;
                bytes.push(b'\n');
                new.push(about);
            }
        }
        file.write_all(&bytes)?;
        // Also for lines that an earlier life has written and not synced.
        file.sync_all()?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.written.extend(new);
        let meta = file.metadata()?;
        self.left = Some((meta.ino(), meta.len()));
        Ok(())
    }

    /// Reads what stands there, and mends the end.
    fn read(&mut self, file: &File) -> io::Result<()> {
        self.written.clear();
        let mut reader = BufReader::new(File::open(&self.path)?);
        let (mut whole, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)? as u64;
            if length == 0 {
                return Ok(());
            }
            // What others may have written there is left alone.
            let read = serde_json::from_slice::<Line>(&line).ok();
            if line.last() != Some(&b'\n') {
                match read {
                    Some(_) => (&*file).write_all(b"\n")?,
                    None => return file.set_len(whole),
                }
            }
            self.written.extend(read.map(|line| line.about()));
            whole += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u32) -> Line {
        Line {
            delivered_at: "2026-11-28T01:00:00.000Z".into(),
            study: "1.2.3".into(),
            accession: "A1".into(),
            status: "final".into(),
            report: "r".into(),
            version: n,
            file: format!("reports/0/{n}.pdf"),
            sha256: "00".into(),
            replaces: String::new(),
        }
    }

    fn lines(folder: &Path) -> Vec<Line> {
        let text = std::fs::read_to_string(folder.join(NAME)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn a_crash_at_any_byte_leaves_each_line_there_once_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let all = [line(1), line(2), line(3)];
        Index::new(dir.path()).append(&all).unwrap();
        let whole = std::fs::read(dir.path().join(NAME)).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(dir.path().join(NAME), &whole[..cut]).unwrap();
            let mut index = Index::new(dir.path());
            index.append(&all).unwrap();
            assert_eq!(lines(dir.path()), all, "cut at {cut}");
            index.append(&all).unwrap();
            assert_eq!(lines(dir.path()), all);
        }
    }

    #[test]
    fn another_version_in_the_same_file_has_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::new(dir.path());
        let second = Line { version: 2, ..line(1) };
        index.append(&[line(1), second.clone(), second.clone()]).unwrap();
        assert_eq!(lines(dir.path()), [line(1), second]);
    }

    #[test]
    fn an_index_that_was_taken_away_is_begun_anew_and_foreign_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::new(dir.path());
        index.append(&[line(1)]).unwrap();
        std::fs::rename(dir.path().join(NAME), dir.path().join("taken")).unwrap();
        index.append(&[line(1), line(2)]).unwrap();
        assert_eq!(lines(dir.path()), [line(1), line(2)]);
        std::fs::write(dir.path().join(NAME), "# by hand\n").unwrap();
        index.append(&[line(3)]).unwrap();
        let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert!(text.starts_with("# by hand\n{") && text.lines().count() == 2, "{text}");
    }
}
