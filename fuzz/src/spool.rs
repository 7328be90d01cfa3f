//! What stands on the disk: segments, and whole spools that somebody has written into.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use hikyaku::cargo::{Assignment, Envelope, Urgency};
use hikyaku::custody::segment::{Found, Index, LogKind, Reader, Record, SegmentHeader};
use hikyaku::custody::{
    Config, Custody, Draft, Filter, Kept, OpenError, Outcome, Receipt, Want, verify,
};
use hikyaku::metrics::Metrics;
use tempfile::TempDir;

use super::tunnel::envelope;

/// Most records that one input may make a reader give.
const RECORDS_MAX: usize = 1 << 16;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

fn open(data: &Path) -> Result<Custody, OpenError> {
    let mut config = Config::new("hospital".parse().expect("a name"), data.into());
    config.segment_size = 1 << 16;
    config.room.capacity = Some(1 << 30);
    config.room.reserve = 1 << 20;
    Custody::open(config, Metrics::new())
}

async fn take(custody: &Custody, body: &[u8], envelope: Envelope) -> Kept {
    let mut assembly = custody.assemble();
    assembly.push(body).await.expect("room");
    let to = |name: &str| Assignment {
        destination: name.parse().expect("a name"),
        urgency: Urgency::Routine,
        hold: None,
    };
    let assignments = vec![to("pacs"), to("reading")];
    let draft = Draft { envelope, body: assembly.finish(), assignments };
    custody.take(draft).await.expect("custody")
}

/// Custody's yes to an image with these bytes.
pub(crate) fn kept(body: &[u8]) -> Kept {
    let dir = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let custody = open(dir.path()).expect("a new spool");
        let kept = take(&custody, body, envelope(body)).await;
        custody.close().await;
        kept
    })
}

/// A spool with a little of everything, as a kill leaves it and as a clean stop leaves it.
struct Base {
    dirs: [TempDir; 2],
    /// The log segments of the first, relative; those of the second have the same names.
    segments: Vec<PathBuf>,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if name != "reserve" {
            fs::copy(&path, to.join(name)).expect("a copy");
        }
    }
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let dirs = [0; 2].map(|_| tempfile::tempdir().expect("a folder"));
        let dir = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let custody = open(dir.path()).expect("a new spool");
            fill(&custody).await;
            copy(dir.path(), dirs[0].path());
            custody.close().await;
            copy(dir.path(), dirs[1].path());
        });
        let mut segments = Vec::new();
        for log in ["cargo", "facts"] {
            for entry in fs::read_dir(dirs[0].path().join(log)).expect("a log") {
                segments.push(Path::new(log).join(entry.expect("an entry").file_name()));
            }
        }
        segments.sort();
        Base { dirs, segments }
    })
}

async fn fill(custody: &Custody) {
    for n in 0..6u8 {
        let body = vec![n; 300 + usize::from(n)];
        let mut envelope = envelope(&body);
        envelope.identity.key = format!("1.2.3.{}", n / 2);
        take(custody, &body, envelope).await;
    }
    let want = Want {
        destination: "pacs".parse().expect("a name"),
        classes: [true; 4],
        length: 0..=u64::MAX,
        items_max: 9,
        bytes_max: u64::MAX,
    };
    let outcomes = [
        Outcome::Receipted { receipt: Receipt::Dicom { status: 0 } },
        Outcome::Quarantine { reason: "refused".into() },
        Outcome::Retry { cause: "later".into(), after: Duration::from_secs(60) },
    ];
    for (leased, outcome) in custody.lease(want).await.into_iter().zip(outcomes) {
        custody.settle(leased, outcome).await;
    }
    assert!(custody.turn().await, "custody runs");
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("room");
    file
}

/// A segment file: read from its start, by its index, and record by record.
pub(crate) fn segment(data: &[u8]) {
    let [how, bytes @ ..] = data else { return };
    let kind = if how & 1 == 0 { LogKind::Cargo } else { LogKind::Facts };
    let file = file(bytes);
    let mut header = SegmentHeader::read(&file, kind);
    if how & 2 != 0 && bytes.len() >= 64 {
        // As if the sums were right: what somebody writes who knows the format.
        header = repair(&file, kind, bytes);
    }
    let _ = Index::end(&file);
    let Ok(header) = header else { return };
    let _ = Index::read(&file, &header);
    let mut reader = Reader::new(&file, header, 0).expect("a file");
    let mut before = 0;
    for _ in 0..RECORDS_MAX {
        let at = match reader.advance().expect("a file that can be read") {
            Found::Record(record, _) => {
                if kind == LogKind::Cargo {
                    let _ = hikyaku::custody::segment::body_is_whole(&file, &record);
                }
                record.end(kind)
            }
            Found::Damage { from, to } => {
                assert!(from < to, "damage of no length");
                to
            }
            Found::Torn { .. } | Found::End { .. } => return,
        };
        assert!(at > before, "the reader stands still at {at}");
        before = at;
    }
}

/// Writes a good header, and good sums over the records that the bytes claim.
fn repair(
    file: &File,
    kind: LogKind,
    bytes: &[u8],
) -> Result<SegmentHeader, hikyaku::custody::segment::SegmentError> {
    let number = u64::from(bytes[23]);
    let created_at = hikyaku::clock::Timestamp(0);
    let header = SegmentHeader { kind, number, salt: [0; 16], created_at };
    file.write_all_at(&header.encode(), 0).expect("room");
    let mut offset = 64;
    while let Some(b) = bytes.get(offset..offset + 48) {
        let word = |at: usize| u64::from_be_bytes(b[at..at + 8].try_into().expect("8 bytes"));
        let head_len = u32::from_be_bytes(b[32..36].try_into().expect("4 bytes")) % 4096;
        let Some(head) = bytes.get(offset + 48..offset + 48 + head_len as usize) else { break };
        let record = Record {
            offset: offset as u64,
            id: word(16),
            head_len,
            body_len: word(24),
            proven: word(40),
        };
        file.write_all_at(&record.encode(&header, head), record.offset).expect("room");
        let Some(end) = record.body_len.checked_add(record.body_offset() + 40) else { break };
        let Ok(end) = usize::try_from(end.next_multiple_of(8).min(1 << 40)) else { break };
        offset = end;
    }
    SegmentHeader::read(file, kind)
}

/// A node's start with a spool of which one file is `data`.
pub(crate) fn recovery(data: &[u8]) {
    let [how, bytes @ ..] = data else { return };
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    copy(base.dirs[usize::from(how >> 7)].path(), dir.path());
    if how & 0x40 != 0 {
        fs::remove_dir_all(dir.path().join("ledger")).expect("a ledger");
    }
    let path = dir.path().join(&base.segments[usize::from(how & 0x1f) % base.segments.len()]);
    fs::write(&path, bytes).expect("room");
    if how & 0x20 != 0 && bytes.len() >= 64 {
        let kind = if path.components().any(|c| c.as_os_str() == "facts") {
            LogKind::Facts
        } else {
            LogKind::Cargo
        };
        let file = File::options().read(true).write(true).open(&path).expect("a segment");
        let _ = repair(&file, kind, bytes);
    }
    let _ = verify(dir.path());
    let custody = match open(dir.path()) {
        Ok(custody) => custody,
        // A segment of a later release is refused, and nothing else is.
        Err(OpenError::Log(_)) => return,
        Err(e) => panic!("a damaged segment stops the start: {e}"),
    };
    runtime().block_on(async {
        // Listings wait for a ledger that is being rebuilt; acceptance does not.
        let envelope = Envelope { length: 5, ..envelope(b"fresh") };
        take(&custody, b"fresh", envelope).await;
        for _ in 0..2000 {
            if custody.summary_now().await.is_none_or(|s| s.ready) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(custody.stop_switch().reason().is_none(), "custody has stopped");
        let summary = custody.summary_now().await.expect("a summary");
        assert!(summary.ready, "the ledger is never ready");
        let listed = custody.list(Filter::default()).await.expect("a listing");
        assert!(!listed.is_empty(), "what was just accepted is not there");
        custody.close().await;
    });
}

pub(crate) fn segments() -> Vec<Vec<u8>> {
    let base = base();
    let mut seeds = Vec::new();
    for (dir, segment) in base.dirs.iter().flat_map(|d| base.segments.iter().map(move |s| (d, s))) {
        let Ok(bytes) = fs::read(dir.path().join(segment)) else { continue };
        let kind = u8::from(segment.starts_with("facts"));
        seeds.push([&[kind], &bytes[..]].concat());
        seeds.push([&[kind | 2], &bytes[..]].concat());
    }
    seeds
}

pub(crate) fn spools() -> Vec<Vec<u8>> {
    let base = base();
    let mut seeds = Vec::new();
    for (which, dir) in base.dirs.iter().enumerate() {
        for (n, segment) in base.segments.iter().enumerate() {
            let Ok(bytes) = fs::read(dir.path().join(segment)) else { continue };
            for how in [0, 0x20, 0x40, 0x60] {
                let first = (which as u8) << 7 | how | n as u8;
                seeds.push([&[first], &bytes[..]].concat());
            }
        }
    }
    seeds
}
