//! Damaged files: the ledger may go at any moment; in the spool, what is damaged is never taken for
//! cargo, is said plainly, and hides nothing behind it.
//!
//! `HIKYAKU_STORM_LEDGERS=100` and `HIKYAKU_STORM_FLIPS=200` make the random ones long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::chance::{Chance, scale};
use crate::crash::{all_arrived, reconciled, settled};
use crate::foreign::{Arrived, Scp};
use crate::sender::{Load, Object, Shape, objects, send_ok};
use crate::site::{Node, Port, READING, Site, text, until};
use crate::spool;

/// Damages to the ledger in the short storm.
const LEDGERS: u64 = 6;
/// Damages to the spool in the short storm.
const FLIPS: u64 = 5;

#[test]
fn a_ledger_deleted_or_damaged_at_any_moment_loses_nothing_and_sends_nothing_again() {
    let mut chance = Chance::new("ledgers");
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let mut acked = Vec::new();
    for round in 0..scale("HIKYAKU_STORM_LEDGERS", LEDGERS) {
        let shape = Shape { length: 5_000, ..Shape::default() };
        let load = Load::start(hospital.port(Port::Dicom), shape);
        thread::sleep(chance.time(200, 1500));
        let node = if round % 2 == 0 { &hospital } else { &reading };
        // While it runs, so that it goes on over the damage until it is killed or stopped.
        let how = spoil(&node.data().join("ledger"), &mut chance);
        thread::sleep(chance.time(0, 1200));
        acked.extend(load.finish());
        let distinct: BTreeSet<String> = acked.iter().map(|a| a.sop.clone()).collect();
        assert_eq!(distinct.len(), acked.len());
        end(node, &mut chance);
        if chance.below(3) == 0 {
            spoil(&node.data().join("ledger"), &mut chance);
        }
        start_again(node);
        if hospital.ended().is_some() || reading.ended().is_some() {
            panic!("a node ended after {how}");
        }
        arrive(&pacs, acked.len());
        settled(&hospital, READING);
        settled(&reading, "pacs");
    }
    all_arrived(&acked, &pacs.arrived());
    let after = objects(3, 5_000);
    send_ok(hospital.port(Port::Dicom), &after);
    arrive(&pacs, acked.len() + 3);
    settled(&hospital, READING);
    let arrived = pacs.arrived();
    let distinct: BTreeSet<&str> = arrived.iter().map(|a| a.sop.as_str()).collect();
    reconciled(&hospital, READING, distinct.len() as u64);
    reconciled(&reading, "pacs", distinct.len() as u64);
}

/// Waits until so many different objects have arrived.
fn arrive(pacs: &Scp, n: usize) {
    until(&format!("{n} objects arrive"), || {
        let sops: BTreeSet<String> = pacs.arrived().into_iter().map(|a| a.sop).collect();
        sops.len() >= n
    });
}

/// By SIGTERM, or SIGKILL, or by itself if it met the damage first.
fn end(node: &Node, chance: &mut Chance) {
    if node.ended().is_some() {
        node.wait_ended();
    } else if chance.below(2) == 0 {
        node.stop();
    } else {
        node.kill();
    }
}

/// A node that finds its ledger damaged after it came up may end once; the next start rebuilds.
fn start_again(node: &Node) {
    for _ in 0..3 {
        if node.try_start().is_ok() {
            thread::sleep(Duration::from_secs(2));
            match node.ended() {
                None => return,
                Some(_) => drop(node.wait_ended()),
            }
        }
    }
    panic!("{} does not come up again with a damaged ledger", node.name());
}

/// Deletes, flips, truncates, or fills the ledger's files; says which.
fn spoil(ledger: &Path, chance: &mut Chance) -> &'static str {
    let mut files = Vec::new();
    for dir in [ledger.to_path_buf(), ledger.join("blobs")] {
        if dir.is_dir() {
            files.extend(crate::part10::files(&dir));
        }
    }
    if files.is_empty() || chance.below(4) == 0 {
        let _ = fs::remove_dir_all(ledger);
        return "deleting it";
    }
    let file = &files[chance.below(files.len() as u64) as usize];
    let len = fs::metadata(file).map_or(0, |m| m.len());
    match chance.below(3) {
        0 => {
            for _ in 0..20 {
                if len > 0 {
                    spool::flip(file, chance.below(len));
                }
            }
            "flipping 20 bits"
        }
        1 => {
            spool::shorten(file, chance.below(len + 1));
            "cutting it short"
        }
        _ => {
            let out = fs::OpenOptions::new().write(true).open(file).expect("a file to damage");
            let at = chance.below(len + 1);
            out.write_all_at(&vec![0xa5; 8192], at).expect("a file to damage");
            "overwriting 8 KiB"
        }
    }
}

/// A hospital whose reading node is down, with `n` objects in custody, and where both ends are.
struct Queue {
    pacs: Scp,
    hospital: Node,
    reading: Node,
    sent: Vec<Object>,
    /// Last, so that the nodes can still show their logs when they are dropped.
    site: Site,
}

impl Queue {
    fn new(n: u64, length: usize) -> Self {
        let site = Site::new();
        let pacs = Scp::start(&site, &[]);
        let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs");
        let hospital = site.hospital(reading.port(Port::Tunnel)).start();
        let reading = reading.write();
        let sent = objects(n, length);
        send_ok(hospital.port(Port::Dicom), &sent);
        Self { pacs, hospital, reading, sent, site }
    }

    /// Starts what does not run and waits until nothing is owed any more.
    fn deliver(&self) -> Vec<Arrived> {
        if self.hospital.ended().is_some() {
            self.hospital.wait_ended();
        }
        self.reading.start();
        settled(&self.hospital, READING);
        settled(&self.reading, "pacs");
        self.pacs.arrived()
    }

    /// Every object but the damaged ones arrived, whole, and the damaged ones did not.
    fn check(&self, arrived: &[Arrived], damaged: &[&Object]) {
        let there: BTreeMap<&str, &str> =
            arrived.iter().map(|a| (a.sop.as_str(), a.sha256.as_str())).collect();
        for object in &self.sent {
            let is_damaged = damaged.iter().any(|d| d.sop == object.sop);
            let sha256 = object.sha256();
            let wanted = (!is_damaged).then_some(sha256.as_str());
            assert_eq!(there.get(object.sop.as_str()).copied(), wanted, "{}", object.sop);
        }
    }

    /// What `/status` says was found damaged, or cut short by a kill.
    fn said(&self) -> Vec<String> {
        let status = self.hospital.status();
        let torn: Vec<String> =
            serde_json::from_value(status["spool"]["torn"].clone()).expect("torn");
        [self.findings(), torn].concat()
    }

    /// What `/status` says was found damaged.
    fn findings(&self) -> Vec<String> {
        let status = self.hospital.status();
        serde_json::from_value(status["spool"]["findings"].clone()).expect("findings")
    }

    /// `spool verify` ends with 4 and says something of damage.
    fn verify_warns(&self) {
        let verified = self.hospital.cli(&["spool", "verify"]);
        let said = text(&verified.stdout) + &text(&verified.stderr);
        assert_eq!(verified.status.code(), Some(4), "{said}");
    }
}

#[test]
fn a_flipped_bit_in_a_body_is_quarantined_and_never_delivered() {
    let queue = Queue::new(12, 30_000);
    let bad = &queue.sent[5];
    // While the node runs: nothing tells it but the digest.
    let (file, at) = spool::find(&queue.hospital, "cargo", bad.middle());
    spool::flip(&file, at);
    queue.verify_warns();
    let arrived = queue.deliver();
    queue.check(&arrived, &[bad]);
    assert_eq!(queue.hospital.count(READING, "quarantined"), 1);
    assert_eq!(queue.hospital.count(READING, "receipted"), 11);
    let list = queue.hospital.ask(&["queue", "list"]).to_string();
    assert!(list.contains("SHA-256"), "the reason is said: {list}");
    queue.hospital.reaches("hikyaku_damaged_total", &[], 1.0);
    // It stays so over a restart and a new ledger.
    queue.hospital.kill();
    fs::remove_dir_all(queue.hospital.data().join("ledger")).expect("a ledger");
    queue.hospital.start();
    settled(&queue.hospital, READING);
    assert_eq!(queue.hospital.count(READING, "quarantined"), 1);
    assert_eq!(queue.pacs.arrived().len(), 11);
    // Sent again it is whole again, and stays so.
    send_ok(queue.hospital.port(Port::Dicom), std::slice::from_ref(bad));
    let arrived = queue.pacs.wait(12);
    queue.check(&arrived, &[]);
    settled(&queue.hospital, READING);
    queue.hospital.kill();
    fs::remove_dir_all(queue.hospital.data().join("ledger")).expect("a ledger");
    queue.hospital.start();
    settled(&queue.hospital, READING);
    assert_eq!(queue.hospital.count(READING, "receipted"), 12);
    assert_eq!(queue.pacs.arrived().len(), 12, "nothing is sent twice");
}

#[test]
fn a_flipped_bit_in_a_large_body_is_quarantined_and_never_delivered() {
    let queue = Queue::new(3, 9_000_000);
    let bad = &queue.sent[1];
    let (file, at) = spool::find(&queue.hospital, "cargo", bad.middle());
    spool::flip(&file, at);
    let arrived = queue.deliver();
    queue.check(&arrived, &[bad]);
    assert_eq!(queue.hospital.count(READING, "quarantined"), 1);
    send_ok(queue.hospital.port(Port::Dicom), std::slice::from_ref(bad));
    let arrived = queue.pacs.wait(3);
    queue.check(&arrived, &[]);
}

#[test]
fn damage_in_the_middle_of_the_cargo_log_hides_nothing_behind_it() {
    for ending in ["killed", "stopped"] {
        let queue = Queue::new(12, 30_000);
        let bad = [&queue.sent[3], &queue.sent[4], &queue.sent[8]];
        let places: Vec<_> =
            bad.iter().map(|b| spool::find(&queue.hospital, "cargo", &b.data_set[..200])).collect();
        match ending {
            "killed" => queue.hospital.kill(),
            _ => drop(queue.hospital.stop()),
        }
        // Two whole records and their heads, and one bit in the head of another.
        let file = fs::OpenOptions::new().write(true).open(&places[0].0).expect("a segment");
        file.write_all_at(&vec![0x5a; 50_000], places[0].1 - 300).expect("a segment");
        spool::flip(&places[2].0, places[2].1 - 60);
        if ending == "killed" {
            fs::remove_dir_all(queue.hospital.data().join("ledger")).expect("a ledger");
        }
        let verified = queue.hospital.cli(&["spool", "verify"]);
        assert_eq!(verified.status.code(), Some(4), "{ending}: {}", text(&verified.stdout));
        queue.hospital.start();
        let arrived = queue.deliver();
        let whole: BTreeSet<String> = queue.sent.iter().map(Object::sha256).collect();
        assert!(arrived.iter().all(|a| whole.contains(&a.sha256)), "{ending}: damage delivered");
        let sops: BTreeSet<&str> = arrived.iter().map(|a| a.sop.as_str()).collect();
        for object in &queue.sent {
            let is_bad = bad.iter().any(|b| b.sop == object.sop);
            assert!(is_bad || sops.contains(object.sop.as_str()), "{ending}: {}", object.sop);
        }
        // What did not arrive is said: quarantined, or found damaged at the start.
        let missing = queue.sent.len() - sops.len();
        let quarantined = queue.hospital.count(READING, "quarantined") as usize;
        let said = quarantined + queue.findings().len();
        assert!(missing == 0 || said > 0, "{ending}: {missing} missing, nothing said");
        if missing > 0 {
            queue.verify_warns();
        }
    }
}

#[test]
fn a_cargo_log_cut_short_gives_back_all_that_still_stands() {
    for (ending, cut) in
        [("killed", 10_000), ("killed", 100_000), ("stopped", 100), ("stopped", 100_000)]
    {
        let queue = Queue::new(12, 30_000);
        match ending {
            "killed" => queue.hospital.kill(),
            _ => drop(queue.hospital.stop()),
        }
        let last = spool::segments(&queue.hospital, "cargo").pop().expect("a segment");
        spool::shorten(&last, cut);
        let left = fs::metadata(&last).expect("a segment").len();
        let whole: Vec<&Object> = queue
            .sent
            .iter()
            .filter(|o| {
                let at = spool::find_all(&queue.hospital, "cargo", &o.data_set[..200]);
                at.first().is_some_and(|(_, at)| at + o.data_set.len() as u64 + 32 <= left)
            })
            .collect();
        queue.hospital.start();
        let arrived = queue.deliver();
        let sops: BTreeSet<&str> = arrived.iter().map(|a| a.sop.as_str()).collect();
        for object in &whole {
            assert!(sops.contains(object.sop.as_str()), "{ending} {cut}: {}", object.sop);
        }
        let missing = queue.sent.len() - sops.len();
        let quarantined = queue.hospital.count(READING, "quarantined") as usize;
        let said = queue.said();
        assert!(
            missing == 0 || quarantined + said.len() > 0,
            "{ending} {cut}: {missing} missing and nothing said"
        );
    }
}

#[test]
fn a_damaged_segment_header_does_not_take_the_segment_with_it() {
    for ending in ["killed", "stopped"] {
        let queue = Queue::new(8, 30_000);
        match ending {
            "killed" => queue.hospital.kill(),
            _ => drop(queue.hospital.stop()),
        }
        let (file, _) = spool::find(&queue.hospital, "cargo", queue.sent[0].middle());
        spool::flip(&file, 30);
        queue.hospital.start();
        let arrived = queue.deliver();
        queue.check(&arrived, &[]);
        assert!(!queue.findings().is_empty(), "{ending}: it is said");
    }
}

#[test]
fn a_damaged_fact_log_loses_no_cargo() {
    for how in ["flipped", "cut", "header", "gone"] {
        let queue = Queue::new(8, 10_000);
        queue.deliver();
        assert_eq!(queue.pacs.arrived().len(), 8);
        let more = objects(4, 10_000);
        queue.reading.stop();
        send_ok(queue.hospital.port(Port::Dicom), &more);
        queue.hospital.kill();
        let facts = spool::segments(&queue.hospital, "facts");
        for file in &facts {
            let len = fs::metadata(file).expect("a segment").len();
            match how {
                "flipped" if len > 200 => (1..8).for_each(|n| spool::flip(file, len * n / 8)),
                "cut" => spool::shorten(file, (len - 64) / 2),
                "header" => spool::flip(file, 20),
                "gone" => fs::remove_file(file).expect("a segment"),
                _ => {}
            }
        }
        queue.hospital.start();
        queue.reading.start();
        settled(&queue.hospital, READING);
        settled(&queue.reading, "pacs");
        let arrived = queue.pacs.arrived();
        // The reading node knows what it has: a receipt that is lost is asked for again.
        assert_eq!(arrived.len(), 12, "{how}: each once");
        assert_eq!(queue.hospital.count(READING, "receipted"), 12, "{how}");
        if how == "flipped" {
            assert!(!queue.findings().is_empty(), "{how}: it is said");
        }
    }
}

#[test]
fn random_damage_to_the_spool_is_never_delivered_and_never_stops_the_node() {
    let mut chance = Chance::new("flips");
    for _ in 0..scale("HIKYAKU_STORM_FLIPS", FLIPS) {
        let queue = Queue::new(10, 3_000);
        let stopped = chance.below(2) == 0;
        if stopped {
            queue.hospital.stop();
        } else {
            queue.hospital.kill();
        }
        let mut most = 3;
        for log in ["cargo", "facts"] {
            let files = spool::segments(&queue.hospital, log);
            let file = &files[chance.below(files.len() as u64) as usize];
            let len = fs::metadata(file).expect("a segment").len();
            // Not the format version: see the test of its own.
            for _ in 0..3 {
                spool::flip(file, 16 + chance.below(len - 16));
            }
            if chance.below(4) == 0 {
                spool::shorten(file, chance.below(len / 4));
                most = 7;
            }
        }
        if chance.below(3) == 0 {
            fs::remove_dir_all(queue.hospital.data().join("ledger")).expect("a ledger");
        }
        queue.hospital.start();
        let arrived = queue.deliver();
        let sent: BTreeMap<String, String> =
            queue.sent.iter().map(|o| (o.sop.clone(), o.sha256())).collect();
        for one in &arrived {
            assert_eq!(sent.get(&one.sop), Some(&one.sha256), "damage was delivered");
        }
        let sops: BTreeSet<&str> = arrived.iter().map(|a| a.sop.as_str()).collect();
        let missing = queue.sent.len() - sops.len();
        let quarantined = queue.hospital.count(READING, "quarantined") as usize;
        let findings = queue.findings();
        assert!(
            missing == 0 || quarantined + findings.len() > 0,
            "{missing} missing and nothing said"
        );
        assert!(missing <= most, "{missing} of 10 are missing: {findings:?}");
    }
}

#[test]
fn a_spool_of_a_later_release_refuses_to_start_and_says_so() {
    let queue = Queue::new(3, 3_000);
    queue.hospital.stop();
    for log in ["cargo", "facts"] {
        let file = spool::segments(&queue.hospital, log).remove(0);
        let before = fs::read(&file).expect("a segment");
        let mut after = before.clone();
        after[8..10].copy_from_slice(&7u16.to_be_bytes());
        let crc = crc32fast::hash(&after[..60]);
        after[60..64].copy_from_slice(&crc.to_be_bytes());
        fs::write(&file, &after).expect("a segment");
        let status = queue.hospital.try_start().expect_err("must refuse to start");
        assert_eq!(status.code(), Some(1));
        let log = queue.hospital.log_of_this_life();
        assert!(log.contains("format version 7 is not known"), "{log}");
        assert!(log.contains("newer release"), "it says what to do: {log}");
        assert_eq!(fs::read(&file).expect("a segment"), after, "nothing was touched");
        fs::write(&file, &before).expect("a segment");
    }
    queue.hospital.start();
    let arrived = queue.deliver();
    queue.check(&arrived, &[]);
    assert!(queue.site.path().exists());
}
