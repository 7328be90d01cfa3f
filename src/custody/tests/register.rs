//! The register from the outside: enter, find, crash.

use super::{copy, open, ready};
use crate::custody::Custody;
use crate::custody::register::{Book, Change, EnterError, Entry, TERMS_MAX};

fn entry(key: &str, body: &str, terms: &[&str]) -> Entry {
    let terms = terms.iter().map(|t| t.as_bytes().to_vec().into()).collect();
    Entry { key: key.into(), body: body.into(), terms }
}

/// Keys and bodies of the entries that bear a term.
async fn found(custody: &Custody, term: &str) -> Vec<(String, String)> {
    let found = custody.entries_with(Book::Orders, term.into(), None, 100).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    found.into_iter().map(|e| (text(e.key), text(e.body))).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(k, b)| ((*k).into(), (*b).into())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_entry_under_a_key_counts_and_is_found_by_its_own_terms_only() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    let put = |e| Change::Put(e);
    let first = vec![put(entry("a", "1", &["due", "p"])), put(entry("b", "2", &["due"]))];
    custody.enter(Book::Orders, first).await.unwrap();
    let again = vec![put(entry("a", "3", &["short", "p", "pp"]))];
    custody.enter(Book::Orders, again).await.unwrap();
    custody.enter(Book::Reports, vec![put(entry("a", "other", &["due"]))]).await.unwrap();
    for round in 0..3 {
        assert_eq!(found(&custody, "due").await, pairs(&[("b", "2")]), "round {round}");
        assert_eq!(found(&custody, "p").await, pairs(&[("a", "3")]));
        assert_eq!(found(&custody, "short").await, pairs(&[("a", "3")]));
    }
    let all = custody.entries(Book::Orders, Some(b"a".to_vec()), 10).await.unwrap();
    assert_eq!(all, [entry("b", "2", &["due"])]);
    custody.enter(Book::Orders, vec![Change::Remove { key: b"b".to_vec() }]).await.unwrap();
    assert_eq!(custody.entry(Book::Orders, b"b".to_vec()).await.unwrap(), None);
    assert!(found(&custody, "due").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_there_after_a_crash_and_with_a_new_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    for n in 0..200 {
        let changes = vec![
            Change::Put(entry(&format!("k{n:03}"), &format!("{n}"), &["all"])),
            Change::Put(entry("last", &format!("{n}"), &["last"])),
            Change::Remove { key: format!("k{:03}", n / 2).into() },
        ];
        custody.enter(Book::Orders, changes).await.unwrap();
    }
    let before = custody.entries(Book::Orders, None, 1000).await.unwrap();
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    custody.close().await;
    for ledger in ["as it was", "deleted"] {
        if ledger == "deleted" {
            std::fs::remove_dir_all(crashed.path().join("ledger")).unwrap();
        }
        let custody = open(crashed.path());
        ready(&custody).await;
        let after = custody.entries(Book::Orders, None, 1000).await.unwrap();
        assert_eq!(after, before, "{ledger}");
        assert_eq!(found(&custody, "last").await, pairs(&[("last", "199")]));
        custody.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_register_cannot_hold_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    let bad = [
        entry("", "b", &[]),
        entry(&"k".repeat(129), "b", &[]),
        entry("k", &"b".repeat(1 << 20), &[]),
        entry("k", "b", &[&"t".repeat(129)]),
        entry("k", "b", &["t"; TERMS_MAX + 1]),
    ];
    for bad in bad {
        let good = entry("good", "b", &[]);
        let changes = vec![Change::Put(good), Change::Put(bad)];
        let refused = custody.enter(Book::Orders, changes).await;
        assert!(matches!(refused, Err(EnterError::TooMuch(_))), "{refused:?}");
    }
    assert!(custody.entries(Book::Orders, None, 10).await.unwrap().is_empty());
    let large = entry("k", &"b".repeat(900 << 10), &["t"]);
    custody.enter(Book::Orders, vec![Change::Put(large.clone())]).await.unwrap();
    assert_eq!(custody.entry(Book::Orders, b"k".to_vec()).await.unwrap(), Some(large));
}
