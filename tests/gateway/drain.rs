//! SIGTERM: what is under way ends, the rest waits, and the node is gone in the time it states.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::foreign::{Scp, scu_ok};
use crate::part10::data;
use crate::sender::{Load, Shape};
use crate::site::{Port, Site, until};

/// What custody may take to close, beyond `drain.timeout`, with room for a busy machine.
const CLOSE_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_node_that_is_told_to_stop_under_load_ends_well_and_everything_arrives() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let load = Load::start(hospital.port(Port::Dicom), Shape::default());
    until("the load runs", || load.acked_count() > 50 && pacs.arrived().len() > 20);
    for node in [&hospital, &reading] {
        let before = load.acked_count();
        let begun = Instant::now();
        let status = node.stop();
        assert!(status.success(), "{status}");
        assert!(begun.elapsed() < Duration::from_secs(30) + CLOSE_MAX, "{:?}", begun.elapsed());
        assert!(node.log_of_this_life().contains("draining"));
        node.start();
        until("the load goes on", || load.acked_count() > before + 20);
    }
    let acked: BTreeSet<_> = load.finish().into_iter().map(|a| (a.sop, a.sha256)).collect();
    let arrived =
        || -> BTreeSet<_> { pacs.arrived().into_iter().map(|a| (a.sop, a.sha256)).collect() };
    until("everything acknowledged arrives", || acked.is_subset(&arrived()));
}

#[test]
fn peers_that_never_end_do_not_keep_a_node_from_stopping_in_time() {
    let site = Site::new();
    let pacs = Scp::start(&site, &["--hang-after", "3"]);
    let node = site
        .lone()
        .set("drain", "timeout = \"3s\"")
        .dicom_destination("pacs", pacs.port())
        .route_all("pacs")
        .start();
    scu_ok(node.port(Port::Dicom), &[], &[&data("study")]);
    until("the receiver hangs", || node.count("pacs", "receipted") == 3);
    // An association that says nothing, and a connection that is none.
    let silent = crate::sender::Association::open(node.port(Port::Dicom)).expect("an association");
    let _nobody = TcpStream::connect(("127.0.0.1", node.port(Port::Dicom))).expect("a connection");

    let begun = Instant::now();
    let status = node.stop();
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(3) + CLOSE_MAX, "{:?}", begun.elapsed());
    drop(silent);
    pacs.kill();
    pacs.up();
    node.start();
    // The receiver hangs again after three; its answers are what counts.
    node.wait_count("pacs", "receipted", 6);
    assert_eq!(node.count("pacs", "owed"), 4);
}
