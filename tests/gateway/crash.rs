//! Nodes that are killed at any moment, and what must be true afterwards.
//!
//! `HIKYAKU_STORM_KILLS=300` makes the storm long. SIGKILL keeps the page cache: what a power cut
//! does on top of it is in `power.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use crate::chance::{Chance, scale};
use crate::foreign::{Arrived, Scp};
use crate::sender::{Acked, Load, Shape, objects, send_ok};
use crate::site::{Node, Port, READING, Site, until};
use crate::trace::Strace;

/// Kills of both nodes together in the short storm.
const KILLS: u64 = 10;

#[test]
fn everything_acknowledged_arrives_once_though_both_nodes_are_killed_at_random() {
    let mut chance = Chance::new("kills");
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let load = Load::start(hospital.port(Port::Dicom), Shape::default());

    // How many objects had arrived whenever the reading node was dead.
    let mut deaths = Vec::new();
    for _ in 0..scale("HIKYAKU_STORM_KILLS", KILLS) {
        thread::sleep(chance.time(100, 1500));
        if chance.below(2) == 0 {
            kill_and_start(&hospital, &mut chance);
        } else {
            reading.kill();
            // What the receiver has printed may still be on its way to us.
            thread::sleep(Duration::from_millis(200));
            deaths.push(pacs.arrived().len());
            thread::sleep(chance.time(0, 300));
            reading.start();
        }
    }
    let acked = load.finish();
    assert!(acked.len() > 20, "{} objects are a load", acked.len());
    settled(&hospital, READING);
    settled(&reading, "pacs");
    let arrived = pacs.arrived();
    all_arrived(&acked, &arrived);
    twice_only_around(&arrived, &deaths);
    let distinct: BTreeSet<&str> = arrived.iter().map(|a| a.sop.as_str()).collect();
    reconciled(&hospital, READING, distinct.len() as u64);
    reconciled(&reading, "pacs", distinct.len() as u64);
    let verified = hospital.ask(&["spool", "verify"]);
    assert_eq!(verified["damage"].as_array().map(Vec::len), Some(0), "{verified}");
}

fn kill_and_start(node: &Node, chance: &mut Chance) {
    node.kill();
    thread::sleep(chance.time(0, 300));
    node.start();
}

/// Waits until nothing is owed to the destination.
pub(crate) fn settled(node: &Node, destination: &str) {
    // The pages show what custody saw at its last look, up to a second ago.
    thread::sleep(Duration::from_millis(2500));
    until(&format!("{} owes {destination} nothing", node.name()), || {
        let d = node.destination(destination);
        d["owed"] == 0 && d["in_flight"] == 0
    });
}

/// All that was acknowledged arrived, and every arrival has the bytes that were sent.
pub(crate) fn all_arrived(acked: &[Acked], arrived: &[Arrived]) {
    let mut there = BTreeMap::<&str, &str>::new();
    for one in arrived {
        let other = there.insert(&one.sop, &one.sha256);
        assert!(other.is_none_or(|o| o == one.sha256), "{} arrived with other bytes", one.sop);
    }
    for one in acked {
        let sha256 = there.get(one.sop.as_str());
        assert_eq!(sha256, Some(&one.sha256.as_str()), "{} was acknowledged", one.sop);
    }
}

/// An object may arrive again only when its sender died between the two: the answer may have died
/// with it (C-STORE has no exactly-once).
fn twice_only_around(arrived: &[Arrived], deaths: &[usize]) {
    let mut first = BTreeMap::<&str, usize>::new();
    for (at, one) in arrived.iter().enumerate() {
        if let Some(before) = first.insert(&one.sop, at) {
            let death = deaths.iter().any(|&death| before < death && death <= at);
            assert!(death, "{} arrived at {before} and {at}; deaths {deaths:?}", one.sop);
        }
    }
}

/// Each piece is in exactly one state, and every page says the same.
pub(crate) fn reconciled(node: &Node, destination: &str, pieces: u64) {
    let states = ["owed", "held", "receipted", "quarantined", "dismissed"];
    let sum: u64 = states.iter().map(|s| node.count(destination, s)).sum();
    assert_eq!(sum, pieces, "{}: {}", node.name(), node.destination(destination));
    let label = format!("destination={destination:?}");
    let gauge = node.metric("hikyaku_duties", &[&label]);
    assert_eq!(gauge as u64, pieces, "{}: /metrics and /status", node.name());
    for state in states {
        let of_state = format!("state={state:?}");
        let gauge = node.metric("hikyaku_duties", &[&label, &of_state]) as u64;
        assert_eq!(gauge, node.count(destination, state), "{}: {state}", node.name());
    }
}

#[test]
fn a_node_killed_between_storing_and_its_receipt_is_asked_again_and_stores_once() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let before = objects(3, 30_000);
    send_ok(hospital.port(Port::Dicom), &before);
    pacs.wait(3);
    settled(&hospital, READING);

    // Each sync has happened long before its caller hears of it: the receipt cannot go out yet.
    let Some(slow) = Strace::attach(&reading, "fdatasync:delay_exit=3000000") else { return };
    let cargo = || crate::spool::bytes_of_log(&reading, "cargo");
    let empty = cargo();
    let one = objects(1, 30_000);
    send_ok(hospital.port(Port::Dicom), &one);
    until("the reading node writes it", || cargo() > empty + 30_000);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(hospital.count(READING, "receipted"), 3, "no receipt came");
    reading.kill();
    drop(slow);
    reading.start();
    settled(&hospital, READING);
    settled(&reading, "pacs");
    assert_eq!(pacs.arrived().iter().filter(|a| a.sop == one[0].sop).count(), 1);
    reconciled(&reading, "pacs", 4);
    assert_eq!(hospital.count(READING, "receipted"), 4);
}

#[test]
fn counters_tell_what_was_kept_and_receipted_since_the_start() {
    let site = Site::new();
    let reading = site.reading().folder_destination("out").route_all("out").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let sent = objects(12, 20_000);
    send_ok(hospital.port(Port::Dicom), &sent);
    // The same again: success, and no second copy.
    send_ok(hospital.port(Port::Dicom), &sent[..5]);
    settled(&hospital, READING);
    settled(&reading, "out");
    reconciled(&hospital, READING, 12);
    let counted = |node: &Node, name: &str| node.metric(name, &[]) as u64;
    assert_eq!(counted(&hospital, "hikyaku_store_answers_total"), 17);
    assert_eq!(counted(&hospital, "hikyaku_kept_already_total"), 5);
    // Notes from the reading node are cargo too: what came in is kept, or was here already.
    let received = counted(&hospital, "hikyaku_received_total");
    assert_eq!(hospital.metric("hikyaku_received_total", &["way=\"dicom\""]) as u64, 17);
    assert_eq!(counted(&hospital, "hikyaku_kept_total") + 5, received);
    let label = format!("destination={READING:?}");
    assert_eq!(hospital.metric("hikyaku_receipted_total", &[&label]) as u64, 12);
}
