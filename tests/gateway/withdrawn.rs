//! Images that a rejection note withdraws (IHE IOCM): the reading node expects fewer, and tells its
//! reader until a person has acknowledged it. The notes are pydicom's.

use serde_json::{Value, json};

use crate::foreign::Scp;
use crate::receivers::{Receiver, send_foreign};
use crate::sender::new_study;
use crate::site::{Node, Port, READING, Site, is_up, text, until};

fn send(site: &Site, node: &Node, study: &str, numbers: &str) {
    let options = ["image", "--study", study, "--numbers", numbers, "--name", "SATO^JIRO"];
    send_foreign(site, node, "CT1", &options);
}

fn reject(site: &Site, node: &Node, study: &str, number: &str, code: &str, rejects: &str) {
    let note = ["note", "--study", study, "--number", number, "--code", code];
    send_foreign(site, node, "QA", &[&note[..], &["--rejects", rejects]].concat());
}

fn attention(node: &Node, study: &str) -> Value {
    node.standing(study)["attention"].clone()
}

#[test]
fn images_that_are_rejected_for_safety_are_withdrawn_at_the_reader_who_is_told_until_he_knows() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let web = Receiver::start(&site, "web", &[]);
    let url = format!("http://127.0.0.1:{}/", web.port);
    let rule = format!("name = \"readers\"\nwithin = \"2s\"\nwebhook = {{ url = {url:?} }}");
    let orders = "settle = \"1s\"\nquiet = \"2s\"\nexpected = false";
    let reading = site.reading().set("orders", orders).dicom_destination("pacs", pacs.port());
    let reading = reading.route_all("pacs").table("orders.notice", &rule).start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).set("orders", orders).start();
    until("the tunnel stands", || is_up(&hospital));
    let study = new_study();
    send(&site, &hospital, &study, "1,2,3");
    until("all is read", || reading.standing(&study)["progress"] == "presumed-complete");
    assert_eq!(reading.standing(&study)["expected"], 3);
    assert_eq!(attention(&reading, &study), json!([]));

    reject(&site, &hospital, &study, "1", "113037", "1,2");
    until("the reader is told", || attention(&reading, &study) == json!(["withdrawn"]));
    // One image and the note itself are left.
    until("fewer are expected", || reading.standing(&study)["expected"] == 2);
    let told = web.wait(1).remove(0);
    assert_eq!((&told["about"], &told["counts"]["withdrawn"]), (&json!(["withdrawn"]), &2.into()));
    let words = "2 images of this study were withdrawn: rejected for patient safety (113037). \
                 Do not report from them.";
    assert_eq!(told["reasons"][0]["en"], words);
    assert!(told["reasons"][0]["ja"].as_str().is_some_and(|t| t.contains("患者安全上の理由")));
    assert!(!told.to_string().contains("SATO"));
    let missing = reading.cli(&["missing", "--language", "en"]);
    assert_eq!(missing.status.code(), Some(4));
    assert!(text(&missing.stdout).contains(words), "{}", text(&missing.stdout));
    assert!(text(&reading.cli(&["study", &study, "--language", "en"]).stdout).contains(words));
    until("the metric says so", || reading.metric("hikyaku_withdrawn_studies", &[]) > 0.5);
    // The note goes to the PACS like any image, and nothing is deleted.
    pacs.wait(4);
    // The hospital's own people have withdrawn them: nothing for them to look at.
    assert_eq!(attention(&hospital, &study), json!([]));

    // A third one, for another reason, after a crash.
    reading.kill();
    reading.start();
    assert_eq!(attention(&reading, &study), json!(["withdrawn"]));
    reject(&site, &hospital, &study, "2", "113001", "3");
    let more = web.wait(2).remove(1);
    assert_eq!(more["counts"]["withdrawn"], 3, "{more}");
    let codes: String =
        more["reasons"].as_array().expect("reasons").iter().map(Value::to_string).collect();
    assert!(codes.contains("113001") && codes.contains("113037"), "{codes}");

    let output = reading.cli(&["study", &study, "--seen"]);
    assert_eq!(text(&output.stdout), "3 withdrawn images acknowledged\n");
    let log = reading.log();
    assert!(log.contains("images are withdrawn") && log.contains("withdrawn images acknowledged"));
    assert_eq!(attention(&reading, &study), json!([]));
    assert_eq!(reading.cli(&["missing"]).status.code(), Some(0));
    assert_eq!(web.wait(3)[2]["kind"], "settled");
    reading.kill();
    reading.start();
    assert_eq!(attention(&reading, &study), json!([]), "it stays acknowledged");
    let story = text(&reading.cli(&["study", &study]).stdout);
    assert!(story.contains("acknowledged that 3 images are withdrawn"), "{story}");
    assert_eq!(reading.cli(&["study", &study, "--seen"]).status.code(), Some(1));
    assert_eq!(web.documents().len(), 3);
    assert_eq!(hospital.count(READING, "quarantined"), 0);
}

#[test]
fn a_note_that_overtakes_its_images_withdraws_them_when_they_come() {
    let site = Site::new();
    let reading = site.reading().set("orders", "settle = \"1s\"").folder_destination("folder");
    let reading = reading.route_all("folder").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let study = new_study();
    // This hospital keeps no orders and sends no manifest: the note alone says so.
    reject(&site, &hospital, &study, "1", "113038", "1");
    until("the note is there", || !reading.standing(&study).is_null());
    assert_eq!(attention(&reading, &study), json!([]), "nothing is here that it withdraws");
    send(&site, &hospital, &study, "1,2");
    until("it is told", || attention(&reading, &study)[0] == "withdrawn");
    let words = text(&reading.cli(&["study", &study, "--language", "ja"]).stdout);
    assert!(words.contains("ワークリストの選択誤り (113038)"), "{words}");
}
