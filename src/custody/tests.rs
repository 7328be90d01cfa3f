//! Custody from the outside: take, lease, settle, restart.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::cargo::{CargoKind, Sha256};

mod arrivals;
mod correction;
mod cut;
mod fresh;
mod holding;
mod instances;
mod register;
mod reports;

fn name<T: std::str::FromStr>(s: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    s.parse().unwrap()
}

fn config(data: &Path) -> Config {
    let mut config = Config::new(name("st-elsewhere"), data.into());
    config.room.reserve = 1 << 20;
    config.room.capacity = Some(4 << 30);
    config
}

fn open(data: &Path) -> Custody {
    Custody::open(config(data), Metrics::new()).unwrap()
}

fn envelope(origin: &str, study: &str, key: &str, body: &[u8]) -> Envelope {
    Envelope {
        kind: CargoKind::Image,
        identity: Identity { origin: name(origin), key: key.into(), sha256: Sha256::of(body) },
        length: body.len() as u64,
        urgency: Urgency::Routine,
        received_at: Timestamp(0),
        calling_ae: "CT1".into(),
        called_ae: "HIKYAKU".into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study: study.into(),
        series: format!("{study}.1"),
        modality: "CT".into(),
        accession: "A1".into(),
        patient_id: "P1".into(),
        flags: Vec::new(),
    }
}

fn to(destination: &str) -> Vec<Assignment> {
    vec![Assignment { destination: name(destination), urgency: Urgency::Routine, hold: None }]
}

async fn give(custody: &Custody, key: &str, body: &[u8], to: Vec<Assignment>) -> Kept {
    let mut assembly = custody.assemble();
    for chunk in body.chunks(100_000) {
        assembly.push(chunk).await.unwrap();
    }
    let draft = Draft {
        envelope: envelope("st-elsewhere", "1.2.3", key, body),
        body: assembly.finish(),
        assignments: to,
    };
    custody.take(draft).await.unwrap()
}

fn want(destination: &str, items: usize) -> Want {
    Want {
        destination: name(destination),
        classes: [true; 4],
        length: 0..=u64::MAX,
        items_max: items,
        bytes_max: u64::MAX,
    }
}

async fn ready(custody: &Custody) {
    for _ in 0..400 {
        if custody.summary().ready {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the ledger never became ready: {:?}", custody.stop_switch().reason());
}

async fn receipt_all(custody: &Custody, destination: &str) -> usize {
    let mut n = 0;
    loop {
        let leased = custody.lease(want(destination, 100)).await;
        if leased.is_empty() {
            return n;
        }
        for duty in leased {
            n += 1;
            let receipt = Receipt::Dicom { status: 0 };
            custody.settle(duty, Outcome::Receipted { receipt }).await;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_leased_with_its_bytes_and_receipted_once() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    let body = vec![7; 300_000];
    let kept = give(&custody, "1.2.3.4", &body, to("pacs")).await;
    assert!(kept.is_new());
    let mut leased = custody.lease(want("pacs", 10)).await;
    assert_eq!(leased.len(), 1);
    assert!(custody.lease(want("pacs", 10)).await.is_empty(), "it is leased");
    let duty = leased.pop().unwrap();
    assert_eq!(duty.body.read().await.unwrap(), body);
    let receipt = Receipt::Dicom { status: 0 };
    custody.settle(duty, Outcome::Receipted { receipt }).await;
    assert!(custody.lease(want("pacs", 10)).await.is_empty());
    let listed = custody.list(Filter { cargo: Some(kept.cargo().0), ..Filter::default() }).await;
    assert_eq!(listed.unwrap()[0].duties[0].state, state::StateName::Receipted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_identity_again_is_success_without_a_second_copy_and_routes_again() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    let first = give(&custody, "1.2.3.4", b"abc", to("pacs")).await;
    let again = give(&custody, "1.2.3.4", b"abc", to("pacs")).await;
    assert_eq!((again.is_new(), again.cargo()), (false, first.cargo()));
    let stat = Assignment { urgency: Urgency::Stat, ..to("pacs")[0].clone() };
    let also = [vec![stat], to("archive")].concat();
    give(&custody, "1.2.3.4", b"abc", also).await;
    let listed = custody.list(Filter { cargo: Some(first.cargo().0), ..Filter::default() }).await;
    let duties = listed.unwrap().remove(0).duties;
    let words: Vec<_> = duties.iter().map(|d| (d.destination.as_str(), d.urgency)).collect();
    assert_eq!(words, [("pacs", Urgency::Stat), ("archive", Urgency::Routine)]);
    assert_eq!(receipt_all(&custody, "pacs").await, 1);
    give(&custody, "1.2.3.4", b"abc", to("pacs")).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 0, "what is receipted is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_under_the_same_uid_are_kept_and_held_for_a_person() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    give(&custody, "1.2.3.4", b"abcd", to("pacs")).await;
    let second = give(&custody, "1.2.3.4", b"abXd", to("pacs")).await;
    assert!(second.is_conflict() && second.is_new());
    assert_eq!(receipt_all(&custody, "pacs").await, 1, "the first version goes on");
    let held = Filter { state: Some(state::StateName::Held), ..Filter::default() };
    let listed = custody.list(held.clone()).await.unwrap();
    let reason = listed[0].duties[0].reason.clone().unwrap();
    assert!(reason.contains("first different byte at 2"), "{reason}");
    let released = custody.decide(held, Action::Release, "anna".into(), "checked".into()).await;
    assert_eq!(released, Some(1));
    assert_eq!(receipt_all(&custody, "pacs").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_stop_all_duties_are_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    for n in 0..20 {
        give(&custody, &format!("1.2.3.{n}"), &vec![n; 1000], to("pacs")).await;
    }
    let leased = custody.lease(want("pacs", 5)).await;
    for duty in leased {
        custody.settle(duty, Outcome::Receipted { receipt: Receipt::Dicom { status: 0 } }).await;
    }
    custody.close().await;
    drop(custody);
    let custody = open(dir.path());
    assert_eq!(receipt_all(&custody, "pacs").await, 15, "the ledger is used as it is, at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_may_be_deleted_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    for n in 0..50 {
        give(&custody, &format!("1.2.3.{n}"), &vec![n; 1000], to("pacs")).await;
    }
    for duty in custody.lease(want("pacs", 20)).await {
        custody.settle(duty, Outcome::Receipted { receipt: Receipt::Dicom { status: 0 } }).await;
    }
    let retried = custody.lease(want("pacs", 1)).await.remove(0);
    let again = Outcome::Retry { cause: "status A900H".into(), after: Duration::from_secs(3600) };
    custody.settle(retried, again).await;
    // The files as a kill would leave them, copied while the process runs.
    let crashed = tempfile::tempdir().unwrap();
    custody.list(Filter::default()).await.unwrap();
    copy(dir.path(), crashed.path());
    fs::remove_dir_all(crashed.path().join("ledger")).unwrap();
    let custody = open(crashed.path());
    // Intake does not wait for the rebuild; what comes meanwhile is checked afterwards.
    let kept = give(&custody, "1.2.3.0", &vec![0; 1000], to("pacs")).await;
    let fresh = give(&custody, "9.9.9", b"fresh", to("pacs")).await;
    ready(&custody).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 31);
    let first = custody.list(Filter { cargo: Some(kept.cargo().0), ..Filter::default() }).await;
    let fresh = custody.list(Filter { cargo: Some(fresh.cargo().0), ..Filter::default() }).await;
    assert!(fresh.unwrap()[0].present);
    assert!(first.unwrap().iter().all(|c| !c.duties.is_empty()) || !kept.is_new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_lost_rows_is_found_out_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    for n in 0..30 {
        give(&custody, &format!("1.2.3.{n}"), &vec![n; 1000], to("pacs")).await;
    }
    custody.list(Filter::default()).await.unwrap();
    let crashed = tempfile::tempdir().unwrap();
    custody.close().await;
    drop(custody);
    copy(dir.path(), crashed.path());
    {
        let db = sled::open(crashed.path().join("ledger")).unwrap();
        let ready: Vec<_> = db.scan_prefix("q").keys().filter_map(Result::ok).collect();
        db.remove(&ready[0]).unwrap();
        let mut cp: ledger::Checkpoint = minicbor::decode(&db.get("P").unwrap().unwrap()).unwrap();
        cp.clean = false;
        db.insert("P", fact::encode(&cp)).unwrap();
        db.flush().unwrap();
    }
    let custody = open(crashed.path());
    ready(&custody).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 30);
    assert!(crashed.path().join("aside/ledger").exists(), "kept for whoever wants to look");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_body_is_never_delivered() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    let body = vec![0x5a; 200_000];
    give(&custody, "1.2.3.1", &body, to("pacs")).await;
    let segment = fs::read_dir(dir.path().join("cargo")).unwrap().next().unwrap().unwrap();
    let file = fs::OpenOptions::new().write(true).open(segment.path()).unwrap();
    file.write_all_at(&[0x5b], 100_000).unwrap();
    let duty = custody.lease(want("pacs", 1)).await.remove(0);
    assert!(matches!(duty.body.read().await, Err(BodyError::Damaged(_))));
    let mut reader = duty.body.reader(0);
    let mut given = 0;
    let end = loop {
        match reader.next(64 << 10).await {
            Ok(Some(chunk)) => given += chunk.len(),
            end => break end,
        }
    };
    assert!(matches!(end, Err(BodyError::Damaged(_))));
    assert!(given < body.len(), "the last chunk is held back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_middle_does_not_hide_the_records_after_it() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    for n in 0..10 {
        give(&custody, &format!("1.2.3.{n}"), &vec![n; 5000], to("pacs")).await;
    }
    custody.close().await;
    drop(custody);
    let mut segments: Vec<_> =
        fs::read_dir(dir.path().join("cargo")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    let file = fs::OpenOptions::new().read(true).write(true).open(&segments[0]).unwrap();
    // The header of a record in the middle, and the index that would still name it.
    let at = 64 + 3 * 5600;
    file.write_all_at(&[0xff; 9000], at).unwrap();
    file.set_len(file.metadata().unwrap().len() - 10).unwrap();
    fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    let delivered = receipt_all(&custody, "pacs").await;
    assert!((6..10).contains(&delivered), "{delivered}");
    let summary = custody.summary();
    assert!(summary.findings.iter().any(|f| f.contains("damaged")), "{:?}", summary.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_fakes_a_record_is_never_taken_for_cargo() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    give(&custody, "1.2.3.1", &vec![1; 5000], to("pacs")).await;
    let segment = fs::read_dir(dir.path().join("cargo")).unwrap().next().unwrap().unwrap();
    let evil = fs::read(segment.path()).unwrap();
    give(&custody, "1.2.3.2", &evil, to("pacs")).await;
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    fs::remove_dir_all(crashed.path().join("ledger")).unwrap();
    let custody = open(crashed.path());
    ready(&custody).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_streams_to_a_segment_of_its_own_and_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    let body: Vec<u8> = (0..20_000_000u32).map(|n| (n >> 3) as u8).collect();
    give(&custody, "1.2.3.1", &body, to("pacs")).await;
    let large = Want { length: (LARGE_BYTES + 1)..=u64::MAX, ..want("pacs", 1) };
    let small = Want { length: 0..=LARGE_BYTES, ..want("pacs", 1) };
    assert!(custody.lease(small).await.is_empty());
    let duty = custody.lease(large).await.remove(0);
    assert!(duty.body.read().await.unwrap() == body);
    drop(duty);
    custody.close().await;
    drop(custody);
    fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 1);
    assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_body_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    let body: Vec<u8> = (0..80_000_000u32).map(|n| (n >> 5) as u8).collect();
    let envelope = envelope("st-elsewhere", "1.2.3", "1.2.3.9", &body);
    let (peer, identity) = (name("st-elsewhere"), envelope.identity.clone());
    let mut assembly = custody.resume(&peer, &identity, envelope.length).await.unwrap();
    assert_eq!(assembly.len(), 0);
    assembly.push(&body[..50_000_000]).await.unwrap();
    drop(assembly);
    let assembly = custody.resume(&peer, &identity, envelope.length).await.unwrap();
    assert_eq!(assembly.len(), 50_000_000, "in the same process, at the byte");
    drop(assembly);
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    let custody = open(crashed.path());
    let mut assembly = custody.resume(&peer, &identity, envelope.length).await.unwrap();
    let from = assembly.len() as usize;
    assert_eq!(from, 32 << 20, "after a crash, at the last synced mark");
    assembly.push(&body[from..]).await.unwrap();
    let draft = Draft { envelope, body: assembly.finish(), assignments: to("pacs") };
    assert_eq!(draft.body.sha256(), identity.sha256);
    custody.take(draft).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn space_is_given_back_after_retention_and_a_tombstone_remains() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.retention = Duration::ZERO;
    let custody = Custody::open(config.clone(), Metrics::new()).unwrap();
    let kept = give(&custody, "1.2.3.1", &vec![3; 3_000_000], to("pacs")).await;
    give(&custody, "1.2.3.2", &vec![4; 3_000_000], to("elsewhere")).await;
    receipt_all(&custody, "pacs").await;
    for _ in 0..200 {
        if custody.summary().tombstones == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let summary = custody.summary();
    assert_eq!((summary.tombstones, summary.present), (1, 1), "what is owed stays");
    let again = give(&custody, "1.2.3.1", &vec![3; 3_000_000], to("pacs")).await;
    assert!(!again.is_new(), "the tombstone remembers it");
    let listed = custody.list(Filter { cargo: Some(kept.cargo().0), ..Filter::default() }).await;
    let tombstone = listed.unwrap().remove(0);
    assert_eq!((tombstone.present, tombstone.key.as_str()), (false, "1.2.3.1"));
    custody.close().await;
    drop(custody);
    fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    let custody = Custody::open(config, Metrics::new()).unwrap();
    ready(&custody).await;
    assert_eq!(custody.summary().tombstones, 1);
    assert_eq!(receipt_all(&custody, "pacs").await, 0, "nothing receipted is sent again");
    assert_eq!(receipt_all(&custody, "elsewhere").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_route_matches_is_kept_and_a_later_rule_picks_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    let kept = give(&custody, "1.2.3.1", b"abc", Vec::new()).await;
    let unrouted = custody.unrouted(CargoId(0), 10).await.unwrap();
    assert_eq!(unrouted.len(), 1);
    assert_eq!(unrouted[0].2.read().await.unwrap(), b"abc"[..]);
    assert!(custody.assign(kept.cargo(), to("pacs")).await);
    assert!(custody.unrouted(CargoId(0), 10).await.unwrap().is_empty());
    assert_eq!(receipt_all(&custody, "pacs").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_and_accepts_again_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.room.capacity = Some(2_000_000);
    config.retention = Duration::ZERO;
    let custody = Custody::open(config, Metrics::new()).unwrap();
    let mut taken = 0;
    let refused = loop {
        let body = vec![taken; 500_000];
        let mut assembly = custody.assemble();
        assembly.push(&body).await.unwrap();
        let key = format!("1.2.{taken}");
        let envelope = envelope("st-elsewhere", "1.2", &key, &body);
        let draft = Draft { envelope, body: assembly.finish(), assignments: to("pacs") };
        match custody.take(draft).await {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, TakeError::Full(_)), "{refused}");
    assert_eq!(taken, 3);
    receipt_all(&custody, "pacs").await;
    for n in 0.. {
        let body = vec![99; 400_000];
        let mut assembly = custody.assemble();
        assembly.push(&body).await.unwrap();
        let envelope = envelope("st-elsewhere", "1.2", "1.2.99", &body);
        let draft = Draft { envelope, body: assembly.finish(), assignments: to("pacs") };
        if custody.take(draft).await.is_ok() {
            break;
        }
        assert!(n < 200, "space was not given back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let _custody = open(dir.path());
    let second = Custody::open(config(dir.path()), Metrics::new());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_foreign_cargo_go_to_its_origin_as_a_note_and_are_kept_there() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hospital = open(here.path());
    let mut config = Config::new(name("reading"), there.path().into());
    config.room.reserve = 1 << 20;
    config.room.capacity = Some(4 << 30);
    config.told = [name("st-elsewhere")].into();
    let reading = Custody::open(config, Metrics::new()).unwrap();
    let mine = give(&hospital, "1.2.3.4", b"abc", to("reading")).await;
    give(&reading, "1.2.3.4", b"abc", to("pacs")).await;
    assert_eq!(receipt_all(&hospital, "reading").await, 1);
    assert_eq!(receipt_all(&reading, "pacs").await, 1);
    let note = loop {
        let mut leased = reading.lease(want("st-elsewhere", 1)).await;
        match leased.pop() {
            Some(note) => break note,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(note.envelope.kind, CargoKind::Note);
    let body = note.body.read().await.unwrap();
    let mut assembly = hospital.assemble();
    assembly.push(&body).await.unwrap();
    let envelope = note.envelope.clone();
    let draft = Draft { envelope, body: assembly.finish(), assignments: Vec::new() };
    hospital.take(draft).await.unwrap();
    let of = Filter { cargo: Some(mine.cargo().0), ..Filter::default() };
    let listed = hospital.list(of).await.unwrap();
    let beyond = &listed[0].duties[0].beyond;
    assert_eq!(beyond.len(), 1);
    assert_eq!(beyond[0].destination.as_str(), "pacs");
    assert_eq!(beyond[0].state, state::StateName::Receipted);
    let receipt = Receipt::Dicom { status: 0 };
    reading.settle(note, Outcome::Receipted { receipt }).await;
    assert_eq!(receipt_all(&reading, "st-elsewhere").await, 0, "it is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_note_tells_only_of_what_its_writer_was_given_in_words_that_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let hospital = open(dir.path());
    let theirs = give(&hospital, "1.2.3.4", b"abc", to("reading")).await;
    let others = give(&hospital, "1.2.3.5", b"abc", to("elsewhere")).await;
    let reason = format!("\u{1b}[2J{}", "x".repeat(100_000));
    let mut note = Note::default();
    for key in ["1.2.3.5", "1.2.3.4"] {
        for n in 0..60 {
            let identity = envelope("st-elsewhere", "1.2.3", key, b"abc").identity;
            let destination = format!("pacs-{n}").parse().unwrap();
            let state = match n {
                0 => state::DutyState::Quarantined {
                    reason: reason.clone(),
                    at: Timestamp(1),
                    damaged: false,
                },
                _ => state::DutyState::owed(),
            };
            note.news.push(News { identity, destination, state });
        }
    }
    let body = fact::encode(&note);
    let mut assembly = hospital.assemble();
    assembly.push(&body).await.unwrap();
    let envelope = Envelope { kind: CargoKind::Note, ..envelope("reading", "", "note-1", &body) };
    let draft = Draft { envelope, body: assembly.finish(), assignments: Vec::new() };
    hospital.take(draft).await.unwrap();
    let of = |cargo| Filter { cargo: Some(cargo), ..Filter::default() };
    let listed = hospital.list(of(others.cargo().0)).await.unwrap();
    assert!(listed[0].duties[0].beyond.is_empty());
    let listed = hospital.list(of(theirs.cargo().0)).await.unwrap();
    let beyond = &listed[0].duties[0].beyond;
    assert_eq!(beyond.len(), 32);
    let words = beyond.iter().find_map(|b| b.reason.clone()).unwrap();
    assert!(words.len() <= 256 && !words.contains('\u{1b}'), "{words:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_quarantined_and_the_others_go_on() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    for n in 0..5 {
        give(&custody, &format!("1.2.3.{n}"), &vec![n; 5000], to("pacs")).await;
    }
    let segment = fs::read_dir(dir.path().join("cargo")).unwrap().next().unwrap().unwrap();
    let file = fs::OpenOptions::new().write(true).open(segment.path()).unwrap();
    // The header of the third record.
    let records: Vec<usize> = fs::read(segment.path())
        .unwrap()
        .windows(4)
        .enumerate()
        .filter(|(_, w)| *w == b"HKRC")
        .map(|(at, _)| at)
        .collect();
    file.write_all_at(&[0; 48], records[2] as u64).unwrap();
    let mut delivered = 0;
    for _ in 0..5 {
        delivered += receipt_all(&custody, "pacs").await;
    }
    assert_eq!(delivered, 4);
    let filter = Filter { state: Some(state::StateName::Quarantined), ..Filter::default() };
    assert_eq!(custody.list(filter).await.unwrap().len(), 1);
}
