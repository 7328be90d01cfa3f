//! Looking into a node's spool from outside, as `hikyaku spool export` and a disk editor do.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::part10;
use crate::site::{Node, hikyaku, run, text};

/// The segment files of a log (`cargo` or `facts`), in order.
pub(crate) fn segments(node: &Node, log: &str) -> Vec<PathBuf> {
    let mut files = part10::files(&node.data().join(log));
    files.retain(|f| f.extension().is_some_and(|e| e == "seg"));
    files
}

/// Length of all segments of a log.
pub(crate) fn bytes_of_log(node: &Node, log: &str) -> u64 {
    segments(node, log).iter().filter_map(|f| fs::metadata(f).ok()).map(|m| m.len()).sum()
}

/// Digests of all data sets that the spool of a stopped node gives back, and its exit code (4 when
/// something is damaged).
pub(crate) fn export(node: &Node, to: &Path) -> (BTreeSet<String>, Option<i32>) {
    let _ = fs::remove_dir_all(to);
    let mut command = hikyaku();
    command.args(["spool", "export", "--to"]).arg(to).arg("--config").arg(node.config());
    let output = run(&mut command);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 4)), "{said}");
    let digests = part10::files(to).iter().map(|f| part10::digest(f)).collect();
    (digests, output.status.code())
}

/// The file and offset at which these bytes stand in a log, which must be one place.
pub(crate) fn find(node: &Node, log: &str, bytes: &[u8]) -> (PathBuf, u64) {
    let places = find_all(node, log, bytes);
    assert_eq!(places.len(), 1, "the bytes stand at {places:?}");
    places.into_iter().next().expect("one")
}

/// Every place of these bytes in a log.
pub(crate) fn find_all(node: &Node, log: &str, bytes: &[u8]) -> Vec<(PathBuf, u64)> {
    let mut places = Vec::new();
    for path in segments(node, log) {
        let content = fs::read(&path).expect("a segment");
        let mut from = 0;
        while let Some(at) = search(&content[from..], bytes) {
            places.push((path.clone(), (from + at) as u64));
            from += at + 1;
        }
    }
    places
}

fn search(content: &[u8], bytes: &[u8]) -> Option<usize> {
    content.windows(bytes.len()).position(|w| w == bytes)
}

/// Turns one bit at `offset`.
pub(crate) fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file to damage");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte to damage");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("a byte to damage");
}

/// Cuts `bytes` off the end of a file.
pub(crate) fn shorten(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("a file to damage");
    let len = file.metadata().expect("a length").len();
    file.set_len(len.saturating_sub(bytes)).expect("a file to damage");
}
