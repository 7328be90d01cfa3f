//! Storage commitment: a modality asks whether its images are safe, and deletes what is. The
//! modality is pynetdicom.

use std::ops::Range;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::foreign::{modality, modality_with};
use crate::ports;
use crate::sender::{Object, new_study, send_study};
use crate::site::{Node, Port, Site, until};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn sops(study: &str, images: Range<u64>) -> Vec<String> {
    images.map(|n| Object::new(study, n, 8).sop).collect()
}

fn request(transaction: &str, sops: &[String]) -> Value {
    let reference = |uid| json!({ "ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": uid });
    let references: Vec<Value> = sops.iter().map(reference).collect();
    json!({ "do": "action",
            "data": { "TransactionUID": transaction, "ReferencedSOPSequence": references } })
}

fn events(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line.get("event").is_some()).collect()
}

/// The instances of a sequence of an event.
fn named(event: &Value, sequence: &str) -> Vec<String> {
    let items = event["data"][sequence].as_array().cloned().unwrap_or_default();
    let uid = |item: &Value| item["ReferencedSOPInstanceUID"].as_str().map(str::to_owned);
    items.iter().filter_map(uid).collect()
}

/// A modality that asks in a thread of its own.
fn asking(node: &Node, options: &[&str], steps: Value) -> JoinHandle<Vec<Value>> {
    let port = node.port(Port::Dicom);
    let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
    thread::spawn(move || {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        modality_with(port, &options, &steps)
    })
}

fn open(node: &Node) -> f64 {
    node.metric("hikyaku_commitments_open", &[])
}

#[test]
fn success_comes_on_the_same_association_and_not_before_the_reading_centre_has_signed() {
    let site = Site::new();
    let reading = site.reading().folder_destination("pacs").route_all("pacs").write();
    let hospital = site.hospital(reading.port(Port::Tunnel)).orders().start();
    let study = new_study();
    send_study(&hospital, &study, 1..6);
    let wanted = sops(&study, 1..6);
    let steps = json!([request("1.5.1", &wanted), { "do": "events", "n": 1 }]);
    let modality = asking(&hospital, &[], steps);
    until("the request is open", || open(&hospital) > 0.5);
    thread::sleep(Duration::from_secs(3));
    assert!(open(&hospital) > 0.5, "nobody has signed for anything");
    reading.start();
    let lines = modality.join().expect("its answers");
    assert_eq!(lines[0]["status"], "0000", "{lines:?}");
    let [event] = &events(&lines)[..] else { panic!("{lines:?}") };
    assert_eq!((&event["event"], &event["own_association"]), (&json!(1), &json!(true)));
    assert_eq!(named(event, "ReferencedSOPSequence"), wanted);
    until("it has ended", || open(&hospital) < 0.5);
    let done = hospital.metric("hikyaku_commitments_total", &["outcome=\"committed\""]);
    assert!(done > 0.5, "{done}");
}

#[test]
fn a_request_outlives_kills_and_its_answer_comes_with_the_roles_reversed_until_it_is_taken() {
    let site = Site::new();
    let reading = site.reading().folder_destination("pacs").route_all("pacs").write();
    let port = ports::free();
    let report_to = format!("ae_title = \"CT1\"\naddress = \"127.0.0.1:{port}\"");
    let hospital = site
        .hospital(reading.port(Port::Tunnel))
        .orders()
        .table("orders.commitment.report_to", &report_to)
        .start();
    let study = new_study();
    send_study(&hospital, &study, 1..4);
    let wanted = sops(&study, 1..4);
    let lines = modality(hospital.port(Port::Dicom), &json!([request("1.5.2", &wanted)]));
    assert_eq!(lines[0]["status"], "0000");
    hospital.kill();
    hospital.start();
    until("it is known after the kill", || open(&hospital) > 0.5);
    reading.start();
    let tried = "a commitment is reported again";
    until("nobody takes the answer", || hospital.log().contains(tried));
    hospital.kill();
    hospital.start();
    let listen = port.to_string();
    let steps = json!([{ "do": "events", "n": 1 }]);
    let lines = asking(&hospital, &["--listen", &listen, "--strict"], steps);
    let lines = lines.join().expect("its answers");
    let [event] = &events(&lines)[..] else { panic!("{lines:?}") };
    assert_eq!((&event["event"], &event["own_association"]), (&json!(1), &json!(false)));
    assert_eq!(named(event, "ReferencedSOPSequence"), wanted);
    until("it has ended", || open(&hospital) < 0.5);
}

#[test]
fn what_was_never_sent_fails_by_name_and_is_missing_from_its_study_until_it_comes() {
    let site = Site::new();
    let node = site
        .lone()
        .orders()
        .set("orders", "settle = \"1s\"\nquiet = \"1h\"\nexpected = false")
        .set("orders.commitment", "grace = \"1s\"")
        .folder_destination("folder")
        .route_all("folder")
        .start();
    let study = new_study();
    send_study(&node, &study, 1..4);
    let wanted = sops(&study, 1..5);
    let steps = json!([request("1.5.3", &wanted), { "do": "events", "n": 1 }]);
    let lines = modality(node.port(Port::Dicom), &steps);
    let [event] = &events(&lines)[..] else { panic!("{lines:?}") };
    assert_eq!(event["event"], 2);
    assert_eq!(named(event, "ReferencedSOPSequence"), wanted[..3]);
    assert_eq!(named(event, "FailedSOPSequence"), wanted[3..]);
    let reason = &event["data"]["FailedSOPSequence"][0]["FailureReason"];
    assert_eq!(*reason, 0x0112.to_string());
    let standing = || node.standing(&study);
    until("the study is short", || standing()["progress"] == "short");
    assert_eq!(standing()["lacking"], json!([wanted[3]]), "{}", standing());
    assert_eq!(standing()["grade"], "commitment");
    send_study(&node, &study, 4..5);
    until("the study is complete", || standing()["progress"] == "complete");
}

#[test]
fn a_transaction_uid_that_was_used_before_commits_nothing() {
    let site = Site::new();
    let node = site.lone().orders().folder_destination("folder").route_all("folder").start();
    let study = new_study();
    send_study(&node, &study, 1..3);
    let wanted = sops(&study, 1..3);
    let ask = || {
        let steps = json!([request("1.5.4", &wanted), { "do": "events", "n": 1 }]);
        modality(node.port(Port::Dicom), &steps)
    };
    assert_eq!(events(&ask())[0]["event"], 1);
    node.restart();
    let lines = ask();
    let [event] = &events(&lines)[..] else { panic!("{lines:?}") };
    assert_eq!((&event["event"], named(event, "FailedSOPSequence")), (&json!(2), wanted.clone()));
    let reason = &event["data"]["FailedSOPSequence"][1]["FailureReason"];
    assert_eq!(*reason, 0x0131.to_string());
}

#[test]
fn where_the_promise_is_custody_here_it_is_given_at_once() {
    let site = Site::new();
    let reading = site.reading().folder_destination("pacs").route_all("pacs").write();
    let hospital = site
        .hospital(reading.port(Port::Tunnel))
        .orders()
        .set("orders.commitment", "when = \"here\"")
        .start();
    let study = new_study();
    send_study(&hospital, &study, 1..3);
    let steps = json!([request("1.5.5", &sops(&study, 1..3)), { "do": "events", "n": 1 }]);
    let lines = modality(hospital.port(Port::Dicom), &steps);
    assert_eq!(events(&lines)[0]["event"], 1, "{lines:?}");
    // Another class than the one that was sent is no such image.
    let mut other = request("1.5.6", &sops(&study, 1..2));
    other["data"]["ReferencedSOPSequence"][0]["ReferencedSOPClassUID"] =
        json!("1.2.840.10008.5.1.4.1.1.4");
    let lines = modality(hospital.port(Port::Dicom), &json!([other, { "do": "events", "n": 1 }]));
    let failed = &events(&lines)[0]["data"]["FailedSOPSequence"][0];
    assert_eq!(failed["FailureReason"], 0x0119.to_string(), "{lines:?}");
}
