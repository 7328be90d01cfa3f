//! Files that end in the middle of a record: what a kill leaves, and what a disk has lost.

use std::fs;
use std::path::Path;

use super::{copy, give, open, ready, receipt_all, to};
use crate::custody::verify;

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_kept_aside_and_what_was_synced_before_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    for n in 0..10 {
        give(&custody, &format!("1.2.3.{n}"), &vec![n; 5000], to("pacs")).await;
    }
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    let segment = fs::read_dir(crashed.path().join("cargo")).unwrap().next().unwrap().unwrap();
    let len = segment.metadata().unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(segment.path()).unwrap();
    file.set_len(len - 3000).unwrap();
    let custody = open(crashed.path());
    ready(&custody).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 9);
    assert!(kept_aside(crashed.path()), "for whoever wants to look");
}

fn kept_aside(data: &Path) -> bool {
    let aside = fs::read_dir(data.join("aside")).unwrap();
    aside.flatten().any(|e| e.path().extension().is_some_and(|e| e == "torn"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_kill_cut_is_no_damage_and_one_that_was_synced_is() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    give(&custody, "1.2.3.1", &[1; 5000], to("pacs")).await;
    let segment = fs::read_dir(dir.path().join("cargo")).unwrap().next().unwrap().unwrap();
    // The second record begins a little before the end of a page.
    let first = segment.metadata().unwrap().len();
    let overhead = first - 64 - 5000;
    let filler = (first + overhead).next_multiple_of(4096) + 4096 - 104 - first - overhead;
    give(&custody, "1.2.3.2", &vec![2; filler as usize], to("pacs")).await;
    let before = segment.metadata().unwrap().len();
    assert_eq!(before % 4096, 4096 - 104);
    let early = tempfile::tempdir().unwrap();
    copy(&dir.path().join("ledger"), &early.path().join("ledger"));
    give(&custody, "1.2.3.3", &[3; 5000], to("pacs")).await;
    let after = segment.metadata().unwrap().len();
    for cut in [8, 39, 40, 41, 3000, after - before - 104, after - before - 1] {
        let crashed = tempfile::tempdir().unwrap();
        copy(dir.path(), crashed.path());
        fs::remove_dir_all(crashed.path().join("ledger")).unwrap();
        copy(&early.path().join("ledger"), &crashed.path().join("ledger"));
        let file = crashed.path().join("cargo").join(segment.file_name());
        fs::OpenOptions::new().write(true).open(file).unwrap().set_len(after - cut).unwrap();
        let seen = verify(crashed.path()).unwrap();
        assert_eq!((seen.whole, seen.damage), (2, vec![]), "{cut}");
        let custody = open(crashed.path());
        ready(&custody).await;
        assert_eq!(custody.summary().findings, Vec::<String>::new(), "{cut}");
        assert_eq!(receipt_all(&custody, "pacs").await, 2, "{cut}");
    }
    // The ledger knows of both.
    custody.close().await;
    let file = fs::OpenOptions::new().write(true).open(segment.path()).unwrap();
    file.set_len(after - 3000).unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    let findings = custody.summary().findings.clone();
    assert!(findings.iter().any(|f| f.contains("were synced and are gone")), "{findings:?}");
}
