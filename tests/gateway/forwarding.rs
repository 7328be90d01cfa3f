//! Images from foreign senders through two nodes to foreign receivers.

use std::collections::BTreeMap;

use crate::foreign::{Scp, scu_ok};
use crate::part10::data;
use crate::site::{Port, Site};

#[test]
fn every_sample_arrives_at_a_foreign_scp_with_an_identical_data_set() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();

    let sent = scu_ok(hospital.port(Port::Dicom), &[], &[&data("samples")]);
    assert!(sent.len() >= 60, "{} samples", sent.len());
    pacs.wait(sent.len());
    reading.wait_count("pacs", "receipted", sent.len() as u64);

    let arrived = pacs.arrived();
    assert_eq!(arrived.len(), sent.len(), "each once");
    let arrived: BTreeMap<_, _> = arrived.into_iter().map(|a| (a.sop.clone(), a)).collect();
    for one in sent {
        let there = &arrived[&one.sop];
        assert_eq!((&there.class, &there.ts), (&one.class, &one.ts), "{}", one.sop);
        assert_eq!(Some(&there.sha256), one.sha256.as_ref(), "{} in {}", one.sop, one.ts);
        assert_eq!(Some(there.length), one.length, "{}", one.sop);
    }
}
