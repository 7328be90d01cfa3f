//! Images from foreign senders through two nodes to foreign receivers, and what arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::foreign::{Arrived, Scp, Storescp, dcmsend, scu, scu_ok, storescu};
use crate::orthanc::Orthanc;
use crate::part10::{data, data_set, digest, files};
use crate::site::{Node, Port, Site, until};

/// A hospital that sends everything to a reading centre, which sends everything to `pacs`.
fn two_nodes(site: &Site, pacs: u16) -> (Node, Node) {
    let reading = site.reading().dicom_destination("pacs", pacs).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    (hospital, reading)
}

fn by_uid(arrived: Vec<Arrived>) -> BTreeMap<String, Arrived> {
    let n = arrived.len();
    let by_uid: BTreeMap<_, _> = arrived.into_iter().map(|a| (a.sop.clone(), a)).collect();
    assert_eq!(by_uid.len(), n, "each object once");
    by_uid
}

#[test]
fn every_sample_arrives_at_a_foreign_scp_with_an_identical_data_set() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let (hospital, reading) = two_nodes(&site, pacs.port());

    let sent = scu_ok(hospital.port(Port::Dicom), &[], &[&data("samples")]);
    assert_eq!(sent.len(), files(&data("samples")).len());
    reading.wait_count("pacs", "receipted", sent.len() as u64);

    let arrived = by_uid(pacs.arrived());
    for one in &sent {
        let there = &arrived[&one.sop];
        assert_eq!((&there.class, &there.ts), (&one.class, &one.ts), "{}", one.sop);
        assert_eq!(Some(&there.sha256), one.sha256.as_ref(), "{} in {}", one.sop, one.ts);
        assert_eq!(Some(there.length), one.length, "{}", one.sop);
    }
    let syntaxes: BTreeSet<_> = sent.iter().map(|s| &s.ts).collect();
    let classes: BTreeSet<_> = sent.iter().map(|s| &s.class).collect();
    assert!(syntaxes.len() >= 19 && classes.len() >= 30, "{} {}", syntaxes.len(), classes.len());
}

/// What a dcmtk sender puts on the wire depends on what the receiver accepts; so it is compared
/// with what the same sender gives the same receiver without us. Of the encodings of one object
/// that it sends in turn, the first goes on, and later ones are held as conflicts.
#[test]
fn what_storescu_sends_arrives_as_if_it_had_been_sent_directly() {
    let site = Site::new();
    let (pacs, direct) = (Scp::start(&site, &[]), Scp::start(&site, &[]));
    let (hospital, reading) = two_nodes(&site, pacs.port());
    let mut sent = 0;
    for proposal in ["-x=", "-xs", "-xy", "-xv", "-xw", "-xt", "-xu", "-xr", "-xd", "-xi"] {
        let options = [proposal, "+sd", "+sp", "*.dcm"];
        let folder = data("samples");
        let (there, _) = storescu(direct.port(), &options, &[&folder]);
        let (here, said) = storescu(hospital.port(Port::Dicom), &options, &[&folder]);
        let succeeded = |statuses: &[u16]| statuses.iter().filter(|s| **s == 0).count();
        assert_eq!(succeeded(&here), succeeded(&there), "{proposal}\n{said}");
        sent += succeeded(&there);
    }
    let version = |a: &Arrived| (a.sop.clone(), a.ts.clone(), a.sha256.clone());
    let there: BTreeSet<_> = direct.wait(sent).iter().map(version).collect();
    let objects: BTreeSet<_> = there.iter().map(|(sop, _, _)| sop.clone()).collect();
    assert!(objects.len() >= 30, "storescu sends {} objects", objects.len());
    reading.wait_count("pacs", "receipted", objects.len() as u64);
    let here = by_uid(pacs.arrived());
    assert!(here.keys().eq(&objects), "the same objects");
    let here: BTreeSet<_> = here.values().map(version).collect();
    let others: Vec<_> = here.difference(&there).collect();
    assert!(others.is_empty(), "not what arrives directly: {others:#?}");
}

#[test]
fn what_dcmsend_sends_arrives_bit_for_bit_at_storescp() {
    let site = Site::new();
    let (pacs, direct) = (Storescp::start(&site, &[]), Storescp::start(&site, &[]));
    let (hospital, reading) = two_nodes(&site, pacs.port());
    let study = files(&data("study"));
    let options = ["-dn", "-nuc", "-aec", "HIKYAKU"];
    for port in [direct.port(), hospital.port(Port::Dicom)] {
        let (sent, report) = dcmsend(&site, port, &options, &refs(&study));
        assert_eq!(sent, 10, "{report}");
    }
    reading.wait_count("pacs", "receipted", 10);
    let digests = |files: &[PathBuf]| files.iter().map(|f| digest(f)).collect::<BTreeSet<_>>();
    assert_eq!(digests(&pacs.files()), digests(&direct.files()));
}

fn refs(files: &[PathBuf]) -> Vec<&Path> {
    files.iter().map(PathBuf::as_path).collect()
}

/// Digest of each instance's data set as Orthanc gives it back, by its SOP Instance UID.
fn kept_by(orthanc: &Orthanc) -> BTreeSet<String> {
    let instances = orthanc.instances();
    instances.iter().map(|i| sha256(data_set(&orthanc.file(i)))).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hikyaku::cargo::Sha256::of(bytes).to_string()
}

#[test]
fn orthanc_receives_through_us_what_it_receives_directly() {
    let site = Site::new();
    let (pacs, direct) = (Orthanc::receiving(&site), Orthanc::receiving(&site));
    let (hospital, reading) = two_nodes(&site, pacs.port());
    // dcmtk, of which Orthanc is made, receives no data set of odd length and breaks off.
    let is_even =
        |file: &PathBuf| data_set(&fs::read(file).expect("a sample")).len().is_multiple_of(2);
    let samples: Vec<_> = files(&data("samples")).into_iter().filter(is_even).collect();
    scu(direct.port(), &["--aec", "FOREIGN"], &refs(&samples));
    let expected = kept_by(&direct);
    assert!(expected.len() > 50, "Orthanc takes {} samples", expected.len());

    scu_ok(hospital.port(Port::Dicom), &[], &refs(&samples));
    until("what Orthanc takes is there", || pacs.instances().len() >= expected.len());
    assert_eq!(kept_by(&pacs), expected);
    // What it refuses keeps nothing waiting: SOP classes and syntaxes that it does not know are
    // shown with the reason, and what it answers with A700 is tried again.
    until("the rest is settled", || reading.count("pacs", "quarantined") >= 6);
}

#[test]
fn what_orthanc_sends_arrives_as_if_it_had_been_sent_directly() {
    let site = Site::new();
    let (pacs, direct) = (Orthanc::receiving(&site), Orthanc::receiving(&site));
    let (hospital, reading) = two_nodes(&site, pacs.port());
    let receivers = [("node", hospital.port(Port::Dicom)), ("direct", direct.port())];
    let source = Orthanc::sending_to(&site, &receivers);
    for file in files(&data("study")) {
        source.upload(&fs::read(file).expect("a sample"));
    }
    for name in ["SC_rgb_rle.dcm", "ExplVR_BigEnd.dcm", "MR1_J2KI.dcm", "rtplan.dcm"] {
        source.upload(&fs::read(data("samples").join(name)).expect("a sample"));
    }
    let instances = source.instances();
    for receiver in ["node", "direct"] {
        let (code, answer) = source.send(receiver, &instances);
        assert_eq!((code, &answer["FailedInstancesCount"]), (200, &0.into()), "{answer}");
    }
    reading.wait_count("pacs", "receipted", instances.len() as u64);
    assert_eq!(kept_by(&pacs), kept_by(&direct));
}

/// What `tests/data/README.md` calls odd: how each is answered, and a word of what it is flagged
/// with. Faults behind the start of the pixel data are not looked for.
const ODD: [(&str, &str, &str); 13] = [
    ("CTImageStorage_bad_meta.dcm", "0000", ""),
    ("CT_small_no_UID.dcm", "0000", "conflict"),
    ("ExplVR_BigEndNoMeta.dcm", "0000", ""),
    ("MR_truncated.dcm", "0000", ""),
    ("SC_rgb_small_odd.dcm", "0000", ""),
    ("UN_sequence.dcm", "0000", "no SOP Instance UID"),
    ("badVR.dcm", "0000", ""),
    ("empty_charset_LEI.dcm", "0000", "no SOP Class UID"),
    ("meta_missing_tsyntax.dcm", "0000", "no Study Instance UID"),
    ("nested_priv_SQ.dcm", "0000", "no SOP Instance UID"),
    // It is sent in a syntax in which no element can be read.
    ("no_meta.dcm", "C000", ""),
    ("priv_SQ.dcm", "0000", "no Study Instance UID"),
    ("rtplan_truncated.dcm", "0000", "ends within"),
];

#[test]
fn odd_objects_are_kept_bit_for_bit_and_flagged_or_refused() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let (hospital, reading) = two_nodes(&site, pacs.port());
    let mut delivered = BTreeMap::new();
    for (name, status, flag) in ODD {
        let sent = scu(hospital.port(Port::Dicom), &[], &[&data("odd").join(name)]).remove(0);
        assert_eq!(sent.status, status, "{name}");
        let shown = shown(&hospital, sent.sha256.as_ref().expect("a digest"));
        match (status, flag) {
            ("0000", "conflict") => assert_eq!(shown["conflict"], true, "{name}: {shown}"),
            ("0000", _) => {
                let flags = shown["flags"].to_string();
                let as_it_should =
                    if flag.is_empty() { flags == "[]" } else { flags.contains(flag) };
                assert!(as_it_should, "{name}: {flags}");
                delivered.insert(sent.sop, sent.sha256.expect("a digest"));
            }
            _ => assert_eq!(shown, serde_json::Value::Null, "{name} is not kept"),
        }
    }
    reading.wait_count("pacs", "receipted", delivered.len() as u64);
    let arrived = pacs.arrived().into_iter().map(|a| (a.sop, a.sha256)).collect::<BTreeMap<_, _>>();
    assert_eq!(arrived, delivered);
}

/// What a node shows of a piece of cargo, whatever its state; null when it has none with this
/// digest.
fn shown(node: &Node, sha256: &str) -> serde_json::Value {
    for state in ["owed", "held", "receipted", "quarantined"] {
        let list = node.ask(&["queue", "list", "--state", state]);
        let mut all = list.as_array().expect("a list").iter();
        if let Some(piece) = all.find(|piece| piece["sha256"] == sha256) {
            return piece.clone();
        }
    }
    serde_json::Value::Null
}
