//! What a destination says of one object, and what that costs the others: nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::foreign::{Arrived, Scp, scu_ok};
use crate::part10::data;
use crate::sender::{Load, Shape};
use crate::site::{Node, Port, Site, text, until};

/// Keeps an association open between objects, so that one answer can be compared with the next.
const LONG_IDLE: &str = "[destination.timeouts]\nidle = \"5m\"";

/// SOP Instance UIDs of the study, which [`send_study`] sends.
fn study_uids(sent: &[crate::foreign::Sent]) -> Vec<String> {
    sent.iter().map(|s| s.sop.clone()).collect()
}

fn send_study(node: &Node) -> Vec<crate::foreign::Sent> {
    scu_ok(node.port(Port::Dicom), &[], &[&data("study")])
}

/// UIDs as the files have them, before anything is sent.
fn uids_of_study() -> Vec<String> {
    let files = crate::part10::files(&data("study"));
    let uid = |file: &std::path::PathBuf| {
        let file = dicom_object::OpenFileOptions::new()
            .read_until(dicom_dictionary_std::tags::PIXEL_DATA)
            .open_file(file);
        let meta = file.expect("a sample").meta().clone();
        meta.media_storage_sop_instance_uid.trim_end_matches('\0').to_owned()
    };
    files.iter().map(uid).collect()
}

/// How often each object was sent, and with which answers.
fn tries(arrived: &[Arrived]) -> BTreeMap<String, Vec<String>> {
    let mut tries = BTreeMap::<String, Vec<String>>::new();
    for one in arrived {
        tries.entry(one.sop.clone()).or_default().push(one.status.clone());
    }
    tries
}

/// Cargo that `queue list` shows in this state.
fn in_state(node: &Node, state: &str) -> Vec<Value> {
    node.ask(&["queue", "list", "--state", state]).as_array().expect("a list").clone()
}

#[test]
fn a_destination_that_refuses_one_is_down_or_hangs_keeps_no_other_waiting() {
    let site = Site::new();
    let bad = uids_of_study().remove(3);
    let refuser = Scp::start(&site, &["--status", &format!("{bad}=0122")]);
    let mut slow = Scp::start(&site, &["--hang-after", "2"]);
    let down = Scp::down(&site, &[]);
    let node = site
        .lone()
        .dicom_destination("refuser", refuser.port())
        .dicom_destination("slow", slow.port())
        .dicom_destination("down", down.port())
        .table("route", "name = \"all\"\nto = [\"refuser\", \"slow\", \"down\"]")
        .start();
    let all = study_uids(&send_study(&node));

    // One destination finishes while the second does not answer and the third does not listen.
    node.wait_count("refuser", "receipted", 9);
    node.wait_count("refuser", "quarantined", 1);
    assert_eq!(tries(&refuser.arrived())[&bad], ["0122"], "refused for good: one try");
    let reason = &in_state(&node, "quarantined")[0]["duties"];
    assert!(reason.to_string().contains("0122"), "{reason}");
    until("it is down", || node.destination("down")["up"] == false);
    assert_eq!((node.count("down", "owed"), node.count("slow", "receipted")), (10, 2));

    // They come back, and get everything.
    slow.change(&[]);
    down.up();
    node.wait_count("down", "receipted", 10);
    node.wait_count("slow", "receipted", 10);
    let down = tries(&down.arrived());
    assert!(all.iter().all(|uid| down[uid] == ["0000"]), "{down:?}");
}

#[test]
fn suspect_objects_get_three_tries_then_wait_for_a_person_who_sends_them_again() {
    let site = Site::new();
    let all = uids_of_study();
    let suspects = [(&all[1], "A900"), (&all[4], "C000"), (&all[7], "0110")];
    let options = suspects.map(|(uid, status)| format!("--status={uid}={status}"));
    let mut pacs = Scp::start(&site, &[&options[0], &options[1], &options[2]]);
    let node = site
        .lone()
        .dicom_destination_with("pacs", pacs.port(), LONG_IDLE)
        .route_all("pacs")
        .start();
    // Others go on succeeding, which is what makes these suspect.
    let shape = Shape { associations: 1, length: 1000, pause: Duration::from_millis(500) };
    let load = Load::start(node.port(Port::Dicom), shape);
    send_study(&node);
    node.wait_count("pacs", "quarantined", 3);
    let others = load.finish().len() as u64;
    node.wait_count("pacs", "receipted", others + 7);
    let seen = tries(&pacs.arrived());
    for (uid, status) in suspects {
        assert_eq!(seen[uid], [status; 3], "three tries");
        let shown = in_state(&node, "quarantined").into_iter().find(|c| c["key"] == *uid);
        let reason = shown.expect("it is shown")["duties"][0]["reason"].to_string();
        assert!(reason.contains(status), "{reason}");
    }

    pacs.change(&[]);
    let changed = node.ask(&["queue", "retry", "--state", "quarantined", "--reason", "repaired"]);
    assert_eq!(changed["changed"], 3);
    node.wait_count("pacs", "receipted", others + 10);
    assert_eq!(node.count("pacs", "quarantined"), 0);
    let seen = tries(&pacs.arrived());
    assert!(suspects.iter().all(|(uid, _)| seen[*uid].last().unwrap() == "0000"), "{seen:?}");
}

#[test]
fn out_of_resources_is_tried_again_until_it_succeeds_and_a_warning_is_a_success() {
    let site = Site::new();
    let full = Scp::start(&site, &["--first", "1=A700"]);
    let warns = Scp::start(&site, &["--every", "1=B000"]);
    let node = site
        .lone()
        .dicom_destination("full", full.port())
        .dicom_destination("warns", warns.port())
        .table("route", "name = \"all\"\nto = [\"full\", \"warns\"]")
        .start();
    let two = uids_of_study();
    scu_ok(
        node.port(Port::Dicom),
        &[],
        &[&data("study").join("slice_060.dcm"), &data("study").join("slice_070.dcm")],
    );
    node.wait_count("warns", "receipted", 2);
    node.wait_count("full", "receipted", 2);
    let (full, warns) = (tries(&full.arrived()), tries(&warns.arrived()));
    for uid in &two[..2] {
        assert_eq!(full[uid], ["A700", "0000"]);
        assert_eq!(warns[uid], ["B000"], "no retry");
    }
    let receipts = in_state(&node, "receipted");
    let warned = receipts.iter().flat_map(|c| c["duties"].as_array().expect("duties"));
    let warned = warned.filter(|d| d["destination"] == "warns");
    assert!(warned.clone().count() == 2, "{receipts:?}");
    for duty in warned {
        assert!(duty.to_string().contains("B000"), "the warning is shown: {duty}");
    }
}

#[test]
fn a_transfer_syntax_that_is_refused_ends_in_quarantine_or_is_re_encoded_where_allowed() {
    let site = Site::new();
    const IMPLICIT: &str = "1.2.840.10008.1.2";
    let strict = Scp::start(&site, &["--syntax", IMPLICIT]);
    let lenient = Scp::start(&site, &["--syntax", IMPLICIT]);
    let node = site
        .lone()
        .dicom_destination("never", strict.port())
        .dicom_destination_with("native", lenient.port(), "reencode = \"native\"")
        .table("route", "name = \"all\"\nto = [\"never\", \"native\"]")
        .start();
    let sent = scu_ok(
        node.port(Port::Dicom),
        &[],
        &[
            &data("samples").join("ct_image.dcm"),
            &data("samples").join("IMG0001.dcm"),
            &data("samples").join("SC_rgb_rle.dcm"),
        ],
    );
    let [explicit, implicit, compressed] = &sent[..] else { panic!("three") };

    node.wait_count("never", "quarantined", 2);
    node.wait_count("never", "receipted", 1);
    node.wait_count("native", "receipted", 2);
    node.wait_count("native", "quarantined", 1);
    let arrived = |scp: &Scp| -> BTreeMap<String, Arrived> {
        scp.arrived().into_iter().map(|a| (a.sop.clone(), a)).collect()
    };
    assert!(arrived(&strict).keys().eq([&implicit.sop]));
    let there = arrived(&lenient);
    assert_eq!(there[&explicit.sop].ts, IMPLICIT);
    assert_eq!(Some(&there[&implicit.sop].sha256), implicit.sha256.as_ref(), "as it is");
    // What was re-encoded has the same pixels.
    let now = std::fs::read(lenient.folder().join(&there[&explicit.sop].file)).expect("bytes");
    let was = std::fs::read(data("samples").join("ct_image.dcm")).expect("a sample");
    let element = b"\xe0\x7f\x10\x00OW\0\0\x00\x80\0\0"; // 128 x 128 x 2 bytes
    let start = was.windows(12).position(|w| w == element).expect("pixel data") + 12;
    let pixels = &was[start..start + 128 * 128 * 2];
    assert!(now.windows(pixels.len()).any(|w| w == pixels), "the same pixels");
    let reasons = text(node.cli(&["queue", "list", "--state", "quarantined"]).stdout.as_slice());
    assert!(reasons.contains(&compressed.sop) && reasons.contains("transfer syntax"), "{reasons}");
}
