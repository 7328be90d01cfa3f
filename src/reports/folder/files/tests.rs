use std::os::unix::fs::symlink;
use std::time::Duration;

use tempfile::TempDir;

use super::super::watch::Watch;
use super::*;
use crate::clock::Monotonic;

fn folder(files: &[(&str, &[u8])]) -> (TempDir, Folder) {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let folder = Folder(dir.path().to_owned());
    folder.prepare().unwrap();
    (dir, folder)
}

fn groups(folder: &Folder) -> Vec<Group> {
    let mut watch = Watch::default();
    let at = |s| Monotonic(Duration::from_secs(s));
    watch.see(at(0), folder.list().unwrap());
    watch.ready(at(100), Duration::from_secs(1), Duration::from_secs(50))
}

fn config(folder: &Folder) -> FolderConfig {
    let short = Duration::from_secs(1);
    let (name, path) = ("editor".to_owned(), folder.0.clone());
    FolderConfig { name, path, settle: short, every: short, wait: short, status: None }
}

fn names(dir: &Path) -> Vec<String> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    let files = all.filter(|e| !e.file_type().unwrap().is_dir());
    let mut names: Vec<String> =
        files.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const SIDECAR: &[u8] = br#"{"accession": "A1", "status": "final"}"#;

#[test]
fn a_pair_with_its_sidecar_is_one_report_with_two_forms() {
    let text = "\u{feff}骨\r\n像".as_bytes();
    let (_dir, folder) = folder(&[("R.pdf", b"%PDF-1.7"), ("R.txt", text), ("R.json", SIDECAR)]);
    let all = groups(&folder);
    assert_eq!(all.len(), 1);
    let report = folder.report(&all[0], &config(&folder), &ArriveRules::default()).unwrap();
    assert_eq!(report.text(), Some("骨\n像"));
    assert!(report.form(FormKind::Pdf).is_some());
    assert_eq!((&*report.ids.accessions[0].id, &*report.source), ("A1", "editor"));
}

#[test]
fn a_crash_between_two_moves_makes_no_second_report_of_the_rest() {
    let (dir, folder) = folder(&[("R.pdf", b"%PDF-1.7"), ("R.txt", b"x"), ("R.json", SIDECAR)]);
    let all = groups(&folder);
    // What the crash leaves: the list, and the first file moved.
    let list: Vec<(&str, Mark)> =
        all[0].files.iter().map(|f| (f.name.to_str().unwrap(), f.mark)).collect();
    fs::write(dir.path().join(MOVING), serde_json::to_vec(&list).unwrap()).unwrap();
    fs::rename(dir.path().join("R.pdf"), dir.path().join("taken/R.pdf")).unwrap();
    // One that has come since under the same name is another.
    fs::write(dir.path().join("R.pdf"), b"%PDF-2.0 another").unwrap();
    folder.finish_moving().unwrap();
    assert_eq!(names(dir.path()), ["R.pdf"]);
    assert_eq!(names(&dir.path().join("taken")), ["R.json", "R.pdf", "R.txt"]);
    assert_eq!(fs::read(dir.path().join("taken/R.pdf")).unwrap(), b"%PDF-1.7");
}

#[test]
fn what_is_moved_never_takes_the_place_of_what_lies_there() {
    let (dir, folder) = folder(&[]);
    for n in 0..4 {
        fs::write(dir.path().join("A1_F.txt"), format!("report {n}")).unwrap();
        folder.move_taken(&groups(&folder)[0].files).unwrap();
        fs::write(dir.path().join("odd.docx"), format!("odd {n}")).unwrap();
        folder.hold(&groups(&folder)[0].files, "why").unwrap();
    }
    assert_eq!(names(dir.path()), [""; 0]);
    assert_eq!(names(&dir.path().join("taken")).len(), 4);
    assert_eq!(names(&dir.path().join("held")).len(), 8, "each with its reason");
}

#[test]
fn links_and_folders_are_not_followed_and_a_file_that_changed_is_not_read() {
    let (dir, folder) = folder(&[("A1_F.txt", b"first")]);
    symlink("/etc/passwd", dir.path().join("A2_F.txt")).unwrap();
    fs::create_dir(dir.path().join("A3_F.txt")).unwrap();
    let all = groups(&folder);
    assert_eq!(all.len(), 1);
    fs::remove_file(dir.path().join("A1_F.txt")).unwrap();
    symlink("/etc/passwd", dir.path().join("A1_F.txt")).unwrap();
    let read = folder.report(&all[0], &config(&folder), &ArriveRules::default());
    assert!(matches!(read, Err(Unread::Odd(_) | Unread::Changed)));
    fs::remove_file(dir.path().join("A1_F.txt")).unwrap();
    fs::write(dir.path().join("A1_F.txt"), b"longer than before").unwrap();
    let read = folder.report(&all[0], &config(&folder), &ArriveRules::default());
    assert!(matches!(read, Err(Unread::Changed)));
}

#[test]
fn what_is_no_report_says_why_without_what_it_says() {
    let sjis = b"\x8d\x9c\x91\x9c";
    for (files, words) in [
        (vec![("A1_F.txt", &sjis[..])], "not written in UTF-8"),
        (vec![("A1_F.pdf", b"MZ")], "is no PDF"),
        (vec![("A1_F.txt", b" \n")], "is empty"),
        (
            vec![("R.pdf", b"%PDF-1"), ("R.json", br#"{"patient": {"id": "4711"}}"#)],
            "what it is about",
        ),
        (vec![("R.json", SIDECAR)], "no document of this name"),
        (vec![("R.pdf", b"%PDF-1"), ("R.json", b"{")], "is no JSON"),
    ] {
        let (_dir, folder) = folder(&files);
        let all = groups(&folder);
        match folder.report(&all[0], &config(&folder), &ArriveRules::default()) {
            Err(Unread::Odd(why)) => assert!(why.contains(words), "{why}"),
            other => panic!("{words}: {other:?}"),
        }
    }
}
