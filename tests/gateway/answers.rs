//! Whom a node lets in by DICOM, and what it answers to what it is sent.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::foreign::{Scp, Sent, echoscu, scu, scu_ok, storescu};
use crate::part10::{data, data_set};
use crate::site::{Node, Plan, Port, Site, run, text};

/// What `echoscu` is told: `None`, or why it is turned away.
fn echo(node: &Node, called: &str, calling: &str) -> Option<String> {
    let output = echoscu(node.port(Port::Dicom), &["-aec", called, "-aet", calling]);
    let said = text(&output.stdout) + &text(&output.stderr);
    let rejected = |line: &str| line.contains("Result:") || line.contains("Reason:");
    let why: Vec<&str> = said.lines().filter(|l| rejected(l)).collect();
    assert_eq!(output.status.success(), why.is_empty(), "{said}");
    (!why.is_empty()).then(|| why.join(" "))
}

#[test]
fn only_known_titles_and_addresses_are_answered_and_the_others_are_told_why() {
    let site = Site::new();
    let allow = "allow = [{ ae_title = \"CT1\", address = \"127.0.0.1\" }, \
                 { ae_title = \"CT2\", address = \"10.1.0.0/16\" }]";
    let node = site.lone().set("dicom", allow).start();
    assert_eq!(echo(&node, "HIKYAKU", "CT1"), None);
    assert_eq!(echo(&node, "TELE_STAT", "CT1"), None);
    let permanent = "Rejected Permanent, Source: Service User";
    let called = echo(&node, "OTHER", "CT1").expect("it is turned away");
    assert!(called.contains(permanent) && called.contains("Called AE Title"), "{called}");
    for stranger in ["STRANGER", "CT2", "ct1"] {
        let calling = echo(&node, "HIKYAKU", stranger).expect("it is turned away");
        assert!(calling.contains(permanent) && calling.contains("Calling AE Title"), "{calling}");
    }
    assert_eq!(node.metric("hikyaku_associations_refused_total", &["reason=\"called-ae\""]), 1.0);
    assert_eq!(node.metric("hikyaku_associations_refused_total", &["reason=\"calling-ae\""]), 3.0);
    assert_eq!(node.metric("hikyaku_echo_answers_total", &[]), 2.0);
}

/// A file with the meta information of a sample and another data set.
fn file_with(site: &Site, name: &str, change: impl FnOnce(&[u8]) -> Vec<u8>) -> PathBuf {
    let sample = fs::read(data("samples").join("ct_image.dcm")).expect("a sample");
    let old = data_set(&sample);
    let mut file = sample[..sample.len() - old.len()].to_vec();
    file.extend_from_slice(&change(old));
    let path = site.path().join(name);
    fs::write(&path, file).expect("a file that can be written");
    path
}

fn status(sent: &[Sent]) -> &str {
    assert_eq!(sent.len(), 1);
    &sent[0].status
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_status_that_says_why() {
    let site = Site::new();
    let node = site
        .lone()
        .set("dicom", "refuse_sop_classes = [\"1.2.840.10008.5.1.4.1.1.4\"]")
        .folder_destination("folder")
        .route_all("folder")
        .start();
    let port = node.port(Port::Dicom);
    let ct = data("samples").join("ct_image.dcm");
    assert_eq!(status(&scu(port, &["--wrong-uid", "1.2.3.4"], &[&ct])), "A900");
    let empty = file_with(&site, "empty.dcm", |_| Vec::new());
    assert_eq!(status(&scu(port, &[], &[&empty])), "C000");
    let noise = file_with(&site, "noise.dcm", |_| vec![0xff; 4000]);
    assert_eq!(status(&scu(port, &[], &[&noise])), "C000");
    let mr = data("study").join("slice_060.dcm");
    assert_eq!(status(&scu(port, &[], &[&mr])), "0124");
    // By a client that reads the answers in another way.
    assert_eq!(storescu(port, &[], &[&mr]).0, [0x0124]);
    for answer in ["A900", "C000", "0124"] {
        let label = format!("status=\"{answer}\"");
        node.reaches("hikyaku_store_answers_total", &[&label], 1.0);
    }
    assert_eq!(node.status()["spool"]["present"], 0, "nothing of it is kept");
    assert_eq!(status(&scu(port, &[], &[&ct])), "0000");
    node.wait_count("folder", "receipted", 1);
}

#[test]
fn the_same_object_a_hundred_times_is_a_hundred_successes_and_one_delivery() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = site.lone().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let two = ["slice_060.dcm", "slice_070.dcm"].map(|name| data("study").join(name));
    let options = ["--repeat", "100", "--associations", "3"];
    let sent = scu_ok(node.port(Port::Dicom), &options, &[&two[0], &two[1]]);
    assert_eq!(sent.len(), 200);
    node.wait_count("pacs", "receipted", 2);
    assert_eq!(node.metric("hikyaku_kept_already_total", &[]), 198.0);
    // After a restart it is still the same.
    node.kill();
    node.start();
    scu_ok(node.port(Port::Dicom), &["--repeat", "5"], &[&two[0], &two[1]]);
    node.wait_count("pacs", "receipted", 2);
    assert_eq!(pacs.arrived().len(), 2);
}

#[test]
fn another_version_of_a_known_object_is_kept_and_held_until_a_person_decides() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = site.lone().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let first = data("samples").join("ct_image.dcm");
    let changed = file_with(&site, "changed.dcm", |old| {
        let mut new = old.to_vec();
        new[20_000] ^= 0x10;
        new
    });
    let first = scu_ok(node.port(Port::Dicom), &[], &[&first]);
    let second = scu_ok(node.port(Port::Dicom), &[], &[&changed]);
    assert_eq!(first[0].sop, second[0].sop);
    node.wait_count("pacs", "receipted", 1);
    assert_eq!(node.count("pacs", "held"), 1);
    let held = node.ask(&["queue", "list", "--state", "held"]);
    assert_eq!(held[0]["conflict"], true);
    let reason = held[0]["duties"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("conflict"), "{reason}");
    assert_eq!(node.metric("hikyaku_conflicts_total", &[]), 1.0);
    assert_eq!(node.ask(&["spool", "verify"])["whole"], 2, "both are kept");
    // The later version once more is no third one.
    scu_ok(node.port(Port::Dicom), &[], &[&changed]);
    assert_eq!(node.count("pacs", "held"), 1);

    node.ask(&["queue", "release", "--cargo", &held[0]["cargo"].to_string()]);
    node.wait_count("pacs", "receipted", 2);
    let digests: Vec<_> = pacs.arrived().into_iter().map(|a| Some(a.sha256)).collect();
    assert_eq!(digests, [first[0].sha256.clone(), second[0].sha256.clone()]);
}

/// Listens for DICOM over TLS too, with the node's own certificate.
fn with_tls(plan: Plan, trust: &str) -> Plan {
    let listen = format!("tls_listen = \"127.0.0.1:{}\"", plan.port(Port::DicomTls));
    let keys = format!("certificate = \"pki/lone.crt\"\nkey = \"pki/lone.key\"{trust}");
    plan.set("dicom", &listen).set("dicom.tls", &keys)
}

/// What `openssl s_client` says of a handshake in one version of TLS.
fn handshake(port: u16, version: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-brief", "-cipher", "DEFAULT@SECLEVEL=0", version, "-connect"]);
    let output = run(command.arg(format!("127.0.0.1:{port}")));
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn dicom_over_tls_is_spoken_in_versions_1_2_and_1_3_and_in_no_older_one() {
    let site = Site::new();
    let node = with_tls(site.lone(), "").folder_destination("folder").route_all("folder").start();
    let port = node.port(Port::DicomTls);
    let authority = site.pki().join("ca.crt");
    let authority = authority.to_str().expect("a path");
    // +pz offers 1.2 only; the other profiles offer both.
    for (n, profile) in ["+pz", "+px", "+py"].into_iter().enumerate() {
        let options = ["+tla", "+cf", authority, profile];
        let image = format!("slice_{}.dcm", ["060", "070", "080"][n]);
        let (answers, said) = storescu(port, &options, &[&data("study").join(image)]);
        assert_eq!(answers, [0], "{profile}: {said}");
    }
    node.wait_count("folder", "receipted", 3);
    assert!(handshake(port, "-tls1_3").contains("TLSv1.3"));
    assert!(handshake(port, "-tls1_2").contains("TLSv1.2"));
    let old = handshake(port, "-tls1_1");
    assert!(!old.contains("CONNECTION ESTABLISHED"), "{old}");
    // A plain sender on this port is not answered, and does no harm.
    assert!(!echoscu(port, &["-aec", "HIKYAKU", "-ta", "5"]).status.success());
    assert!(echoscu(port, &["-aec", "HIKYAKU", "+tla", "+cf", authority]).status.success());
}

#[test]
fn with_a_trust_only_senders_with_its_certificates_come_in_by_tls() {
    let site = Site::new();
    let node = with_tls(site.lone(), "\ntrust = \"pki/ca.crt\"").start();
    site.node("scanner"); // issues its certificate
    let port = node.port(Port::DicomTls);
    let pki = |name: &str| site.pki().join(name).to_str().expect("a path").to_owned();
    let (ca, certificate, key) = (pki("ca.crt"), pki("scanner.crt"), pki("scanner.key"));
    let known = ["-aec", "HIKYAKU", "+tls", &key, &certificate, "+cf", &ca];
    let output = echoscu(port, &known);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let anonymous = ["-aec", "HIKYAKU", "+tla", "+cf", &ca, "-ta", "5"];
    assert!(!echoscu(port, &anonymous).status.success());
    assert_eq!(node.metric("hikyaku_associations_refused_total", &["reason=\"tls\""]), 1.0);
}
