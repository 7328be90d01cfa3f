//! Who goes first on a thin line.

use std::collections::BTreeSet;
use std::thread;

use crate::foreign::{Scp, scu_ok};
use crate::line::{Line, Quality};
use crate::part10::data;
use crate::sender::{objects, send_ok};
use crate::site::{Port, READING, Site, until};

/// Routine objects that wait: `HIKYAKU_ROUTINE`, 10 000 unless told.
fn routine() -> u64 {
    std::env::var("HIKYAKU_ROUTINE").map_or(10_000, |n| n.parse().expect("a number"))
}

/// Bytes of a routine object, small so that many are made soon.
const LENGTH: usize = 1000;
/// Bytes per second: ten thousand routine objects need minutes, the STAT study some seconds.
const THIN: u64 = 250_000;

#[test]
fn a_stat_study_overtakes_ten_thousand_queued_routine_instances_on_a_thin_line() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let line = Line::to(reading.port(Port::Tunnel), Quality { cut: true, ..Quality::default() });
    let hospital = site.hospital(line.port()).start();

    let n = routine();
    let senders = [0; 4].map(|_| {
        let port = hospital.port(Port::Dicom);
        thread::spawn(move || send_ok(port, &objects(n / 4, LENGTH)))
    });
    senders.into_iter().for_each(|sender| sender.join().expect("everything is taken"));
    hospital.wait_count(READING, "owed", n);

    line.set(Quality { rate: Some(THIN), ..Quality::default() });
    // They are on their way when the emergency comes.
    pacs.wait(20);
    let stat = scu_ok(hospital.port(Port::Dicom), &["--aec", "TELE_STAT"], &[&data("study")]);
    let stat: BTreeSet<_> = stat.into_iter().map(|s| s.sop).collect();
    let missing = || {
        let arrived: BTreeSet<_> = pacs.arrived().into_iter().map(|a| a.sop).collect();
        stat.difference(&arrived).count()
    };
    until("the STAT study is there", || missing() == 0);
    let before = pacs.arrived().len() - stat.len();
    let owed = hospital.count(READING, "owed");
    assert!(owed > n / 2, "{owed} routine objects are still owed");
    assert!((before as u64) < n / 2, "{before} routine objects arrived first");

    // None of the others is lost for it.
    line.set(Quality::default());
    hospital.wait_count(READING, "receipted", n + stat.len() as u64);
}
