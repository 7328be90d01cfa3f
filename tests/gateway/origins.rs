//! Two hospitals at one reading centre: what bears the same UIDs is never mixed.

use crate::foreign::Scp;
use crate::sender::{Object, new_study, send_ok};
use crate::site::{Port, READING, Site};

#[test]
fn two_hospitals_that_use_the_same_uids_are_never_merged() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().awaits("clinic").dicom_destination("pacs", pacs.port());
    let reading = reading.route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let clinic = site.node("clinic").dicom().dials(READING, reading.port(Port::Tunnel));
    let clinic = clinic.route_all(READING).start();

    let study = new_study();
    let ours = Object::new(&study, 1, 20_000);
    let mut theirs = ours.clone();
    *theirs.data_set.last_mut().expect("pixels") ^= 1;
    assert_ne!(theirs.sha256(), ours.sha256());
    send_ok(hospital.port(Port::Dicom), std::slice::from_ref(&ours));
    send_ok(clinic.port(Port::Dicom), std::slice::from_ref(&theirs));
    let arrived = pacs.wait(2);
    let mut digests: Vec<&str> = arrived.iter().map(|a| a.sha256.as_str()).collect();
    digests.sort_unstable();
    let mut wanted = [ours.sha256(), theirs.sha256()];
    wanted.sort();
    assert_eq!(digests, wanted, "both, each with its own bytes, none held as a conflict");

    let studies = reading.ask(&["studies"]);
    let studies = studies.as_array().expect("a list");
    assert_eq!(studies.len(), 2, "{studies:?}");
    for origin in ["hospital", "clinic"] {
        let its: Vec<_> = studies.iter().filter(|s| s["origin"] == origin).collect();
        assert_eq!((its.len(), &its[0]["study"]), (1, &study.as_str().into()), "{studies:?}");
    }
}
