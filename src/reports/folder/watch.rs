//! Which files of a folder belong together, and when it is their turn. Pure: what lies there and
//! the time come as arguments.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use super::super::arrive::ArriveRules;
use super::super::said::SaidReport;
use crate::clock::Monotonic;

/// Endings of files that somebody still writes.
const UNFINISHED: [&str; 6] = ["tmp", "part", "partial", "crdownload", "filepart", "swp"];

/// What tells whether a file is still as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Mark {
    /// Bytes.
    pub(super) length: u64,
    /// Time of the last change: seconds, nanoseconds.
    pub(super) changed: (i64, i64),
    /// Number of the file in its file system.
    pub(super) inode: u64,
}

/// What a file is by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Pdf,
    Text,
    /// Says what the others are; moved last.
    Sidecar,
    Other,
}

/// A file that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: OsString,
    pub(super) part: Part,
    pub(super) mark: Mark,
}

/// Files of one name, sidecar last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// The name without its ending.
    pub(super) stem: OsString,
    pub(super) files: Vec<Found>,
    /// Whether they have stood so long that nothing more is waited for.
    pub(super) is_overdue: bool,
}

impl Group {
    pub(super) fn has(&self, part: Part) -> bool {
        self.files.iter().any(|file| file.part == part)
    }
}

/// The name without its ending, and what it is; `None`: it is none of our business.
pub(super) fn part_of(name: &OsStr) -> Option<(OsString, Part)> {
    let path = Path::new(name);
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let is_hidden = name.as_encoded_bytes().starts_with(b".");
    if is_hidden || UNFINISHED.contains(&ending.as_str()) {
        return None;
    }
    let part = match ending.as_str() {
        // Names are read, and written down while files are moved.
        _ if name.to_str().is_none() => Part::Other,
        "pdf" => Part::Pdf,
        "txt" => Part::Text,
        "json" => Part::Sidecar,
        _ => Part::Other,
    };
    let stem = match part {
        Part::Other => name,
        _ => path.file_stem().unwrap_or(name),
    };
    Some((stem.to_owned(), part))
}

/// What has been seen, and since when it has not changed.
#[derive(Debug, Default)]
pub(super) struct Watch(BTreeMap<OsString, (Mark, Monotonic)>);

impl Watch {
    /// Takes note of what lies there now.
    pub(super) fn see(&mut self, now: Monotonic, seen: Vec<(OsString, Mark)>) {
        let before = std::mem::take(&mut self.0);
        for (name, mark) in seen {
            let since = match before.get(&name) {
                Some((known, since)) if *known == mark => *since,
                _ => now,
            };
            self.0.insert(name, (mark, since));
        }
    }

    /// The groups of which every file has stood for `settle`.
    pub(super) fn ready(&self, now: Monotonic, settle: Duration, wait: Duration) -> Vec<Group> {
        let mut groups: BTreeMap<(OsString, bool), (Group, Duration)> = BTreeMap::new();
        for (name, (mark, since)) in &self.0 {
            let Some((stem, part)) = part_of(name) else { continue };
            let stood = now.since(*since);
            let new = || {
                let group = Group { stem: stem.clone(), files: vec![], is_overdue: false };
                (group, Duration::MAX)
            };
            let (group, shortest) =
                groups.entry((stem.clone(), part == Part::Other)).or_insert_with(new);
            group.files.push(Found { name: name.clone(), part, mark: *mark });
            *shortest = stood.min(*shortest);
        }
        let ready = groups.into_values().filter(|(_, stood)| *stood >= settle);
        let finished = ready.map(|(mut group, stood)| {
            group.files.sort_by_key(|file| file.part);
            group.is_overdue = stood >= wait;
            group
        });
        finished.collect()
    }
}

/// What is to be done with a group that has stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is read, and may be a report.
    Read,
    /// Something that belongs to it may still come.
    Wait,
    /// It is none: why.
    Hold(String),
}

/// Decides by names alone.
pub(super) fn decide(group: &Group, rules: &ArriveRules) -> Decision {
    if group.has(Part::Other) {
        let why = "its name ends neither in .pdf, .txt nor .json, or is not written in UTF-8";
        return Decision::Hold(why.into());
    }
    if group.files.iter().filter(|file| file.part == Part::Sidecar).count() > 1 {
        return Decision::Hold("there are several sidecars of this name".into());
    }
    let named = group.stem.to_str().is_some_and(|s| SaidReport::of_name(s, rules).is_some());
    match group.has(Part::Sidecar) || named {
        true => Decision::Read,
        false if group.is_overdue => Decision::Hold(
            "it has no sidecar (the same name with .json), and its name is not ACCESSION_STATUS \
             or STUDYUID_STATUS, where STATUS is P, R, F, C or X, or such a word"
                .into(),
        ),
        false => Decision::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(10);
    const WAIT: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn seen(files: &[(&str, u64)]) -> Vec<(OsString, Mark)> {
        let mark = |length| Mark { length, changed: (1, 0), inode: 7 };
        files.iter().map(|(name, length)| ((*name).into(), mark(*length))).collect()
    }

    fn names(groups: &[Group]) -> Vec<Vec<&str>> {
        groups.iter().map(|g| g.files.iter().map(|f| f.name.to_str().unwrap()).collect()).collect()
    }

    #[test]
    fn a_file_that_grows_is_left_and_so_is_what_belongs_to_it() {
        let mut watch = Watch::default();
        for second in 0..30 {
            watch.see(at(second), seen(&[("A.json", 5), ("A.pdf", second), ("B_F.pdf", 9)]));
            let ready = watch.ready(at(second), SETTLE, WAIT);
            let expected: &[&[&str]] = if second < 10 { &[] } else { &[&["B_F.pdf"]] };
            assert_eq!(names(&ready), expected, "{second}");
        }
        watch.see(at(39), seen(&[("A.json", 5), ("A.pdf", 29)]));
        let ready = watch.ready(at(39), SETTLE, WAIT);
        assert_eq!(names(&ready), [["A.pdf", "A.json"]], "the sidecar is last");
    }

    #[test]
    fn what_another_program_has_not_finished_or_hides_is_none_of_our_business() {
        for name in [".A.pdf", ".hikyaku-moving", "A.pdf.tmp", "A.pdf.filepart", "A.part"] {
            assert_eq!(part_of(OsStr::new(name)), None, "{name}");
        }
        let part = |name: &str| part_of(OsStr::new(name)).map(|(_, part)| part);
        assert_eq!(part("A.PDF"), Some(Part::Pdf));
        assert_eq!((part("A.docx"), part("A")), (Some(Part::Other), Some(Part::Other)));
    }

    #[test]
    fn a_document_without_name_and_sidecar_waits_for_one_and_is_then_held() {
        let rules = ArriveRules::default();
        let decided = |files: &[(&str, u64)], second| {
            let mut watch = Watch::default();
            watch.see(at(0), seen(files));
            let ready = watch.ready(at(second), SETTLE, WAIT);
            decide(&ready[0], &rules)
        };
        assert_eq!(decided(&[("report.pdf", 1)], 11), Decision::Wait);
        assert!(matches!(decided(&[("report.pdf", 1)], 61), Decision::Hold(_)));
        assert_eq!(decided(&[("report.pdf", 1), ("report.json", 1)], 11), Decision::Read);
        assert_eq!(decided(&[("A1_F.txt", 1)], 11), Decision::Read);
        assert!(matches!(decided(&[("a.docx", 1)], 11), Decision::Hold(_)));
        assert!(matches!(decided(&[("a.json", 1), ("a.JSON", 1)], 11), Decision::Hold(_)));
    }
}
