//! Power cuts: both nodes' disks as they were at a random moment under load.
//!
//! Each node's data folder is an ext4 file system on a loop device whose backing file lies on an
//! XFS volume with reflinks. `cp --reflink` of the backing file takes milliseconds and freezes
//! what the disk holds at that moment: what was synced is in it, what only the page cache has is
//! not. Later each pair of copies is mounted and the real nodes start from it.
//!
//! `HIKYAKU_STORM_CUTS=200` makes the storm long. Needs root and loop devices.
//!
//! What such cuts do not model: a drive that reorders or loses what its volatile cache was told to
//! flush, sectors torn in the middle of a write, and controllers that lie. They keep the order in
//! which the kernel gave blocks to the device.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::chance::{Chance, scale};
use crate::crash::{all_arrived, settled};
use crate::foreign::Scp;
use crate::mount::{Mounted, Volume};
use crate::sender::{Acked, Load, Shape};
use crate::site::{HOSPITAL, Node, Port, READING, Site, is_root, text, until};
use crate::spool;

/// Cuts in the short storm.
const CUTS: u64 = 6;

/// One moment of the storm.
struct Cut {
    hospital: PathBuf,
    reading: PathBuf,
    acked: Vec<Acked>,
}

#[test]
fn a_power_cut_of_both_nodes_loses_nothing_that_was_acknowledged() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mut chance = Chance::new("power cuts");
    let site = Site::new();
    let Some(volume) = Volume::new(site.path()) else { return };
    let places = [HOSPITAL, READING].map(|name| site.path().join(name));
    let disks = [HOSPITAL, READING].map(|name| volume.disk(&format!("{name}.img")));
    let pacs = Scp::down(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs");
    // The hospital frees what the reading node has signed for at once: nothing but the reading
    // node's own disk stands for it then.
    let hospital = site.hospital(reading.port(Port::Tunnel)).set("spool", "retention = \"0s\"");
    let (reading, hospital) = (reading.write(), hospital.write());

    let cuts = {
        let _mounted = [0, 1].map(|i| Mounted::image(&disks[i], &places[i]));
        let cuts = storm(&volume, &disks, &hospital, &reading, &mut chance);
        hospital.kill();
        reading.kill();
        cuts
    };
    let mut seen = 0;
    for (number, cut) in cuts.iter().enumerate() {
        let images = [&cut.hospital, &cut.reading];
        let _mounted = [0, 1].map(|i| Mounted::image(images[i], &places[i]));
        seen += cut.acked.len();
        survived(&site, cut, &hospital, &reading).unwrap_or_else(|lost| {
            panic!("cut {number} of {} acknowledged: {lost}", cut.acked.len())
        });
        deliver(&site, cut, &hospital, &reading);
        hospital.kill();
        reading.kill();
    }
    eprintln!("{} cuts, {seen} acknowledged objects found again", cuts.len());
    assert!(seen > 0, "nothing was acknowledged before any cut");
}

/// Load on both nodes; snapshots of their disks at random moments, some of them just after a node
/// was killed and started again, so that what the page cache alone had is what counts.
fn storm(
    volume: &Volume,
    disks: &[PathBuf; 2],
    hospital: &Node,
    reading: &Node,
    chance: &mut Chance,
) -> Vec<Cut> {
    reading.start();
    hospital.start();
    let shape = Shape { length: 20_000, pause: Duration::from_millis(25), ..Shape::default() };
    let load = Load::start(hospital.port(Port::Dicom), shape);
    let mut cuts = Vec::new();
    for number in 0..scale("HIKYAKU_STORM_CUTS", CUTS) {
        let killed = number % 2 == 1;
        if killed {
            let victim = if chance.below(2) == 0 { hospital } else { reading };
            victim.kill();
            let before = load.acked_count();
            victim.start();
            until("objects are sent again", || load.acked_count() > before);
        }
        thread::sleep(chance.time(1, if killed { 200 } else { 1200 }));
        // In this order: what the hospital has freed by then the reading node must have by then.
        let acked = load.acked();
        let of = |node: &str| format!("{node}-{number}.img");
        let hospital = volume.snapshot(&disks[0], &of(HOSPITAL));
        let reading = volume.snapshot(&disks[1], &of(READING));
        cuts.push(Cut { hospital, reading, acked });
    }
    load.finish();
    cuts
}

/// What the two disks give back without any node running: all that was acknowledged.
fn survived(site: &Site, cut: &Cut, hospital: &Node, reading: &Node) -> Result<(), String> {
    let (mut there, _) = spool::export(hospital, &site.path().join("export"));
    there.extend(spool::export(reading, &site.path().join("export")).0);
    let lost: Vec<&Acked> = cut.acked.iter().filter(|a| !there.contains(&a.sha256)).collect();
    match lost.is_empty() {
        true => Ok(()),
        false => Err(format!("{} are lost: {lost:?}", lost.len())),
    }
}

/// The nodes start from the two disks, and everything arrives at a receiver that is new.
fn deliver(site: &Site, cut: &Cut, hospital: &Node, reading: &Node) {
    let pacs = Scp::start(site, &[]);
    let port = pacs.port();
    reading.edit(|plan| plan.without("destination", "pacs").dicom_destination("pacs", port));
    reading.start();
    hospital.start();
    let wanted: HashSet<&str> = cut.acked.iter().map(|a| a.sop.as_str()).collect();
    until("all that was acknowledged arrives", || {
        let there: BTreeSet<String> = pacs.arrived().into_iter().map(|a| a.sop).collect();
        wanted.iter().all(|sop| there.contains(*sop))
    });
    settled(hospital, READING);
    settled(reading, "pacs");
    let arrived = pacs.arrived();
    all_arrived(&cut.acked, &arrived);
    let distinct: BTreeSet<&str> = arrived.iter().map(|a| a.sop.as_str()).collect();
    assert_eq!(distinct.len(), arrived.len(), "nothing arrives twice");
    for node in [hospital, reading] {
        let verified = node.cli(&["spool", "verify"]);
        let said = text(&verified.stdout);
        // A tail that the cut tore was never answered with success; anything else is damage. A
        // file that is longer than what reached the disk ends in zeros, which is no whole record.
        let torn = ["never answered with success", "no whole record"];
        let other = said.lines().skip(1).filter(|l| !torn.iter().any(|t| l.contains(t)));
        assert_eq!(other.count(), 0, "{}: {said}", node.name());
    }
}
