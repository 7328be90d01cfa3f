//! Notices to the stations that sent a study: once when something needs attention, once when it is
//! settled, by webhook and mail, whatever dies in between. Web and mail server are Python's.

use serde_json::{Value, json};

use crate::foreign::modality_with;
use crate::hl7::{Order, Ris};
use crate::receivers::{Receiver, identity, send_foreign};
use crate::sender::new_study;
use crate::site::{Node, Plan, Port, Site, text, until};

const MPPS: &str = "1.2.840.10008.3.1.2.3.3";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const NAME: &str = "YAMADA^HANAKO";
const ID: &str = "PAT4711X";
const BIRTH: &str = "19610203";

fn plan(site: &Site) -> Plan {
    site.lone()
        .set("orders", "settle = \"1s\"\nquiet = \"1h\"\nexpected = false\noverdue = \"1s\"")
        .folder_destination("folder")
        .route_all("folder")
}

/// A rule that posts to a receiver on this machine.
fn posts(plan: Plan, name: &str, receiver: &Receiver, more: &str) -> Plan {
    let url = format!("http://127.0.0.1:{}/notices", receiver.port);
    let body = format!("name = {name:?}\nwithin = \"2s\"\nwebhook = {{ url = {url:?} }}\n{more}");
    plan.table("orders.notice", &body)
}

/// Images of a patient with a name, sent by a station.
fn send(site: &Site, node: &Node, station: &str, study: &str, numbers: &str) {
    let patient = ["--patient", ID, "--name", NAME, "--birth", BIRTH];
    let images = ["image", "--study", study, "--numbers", numbers];
    send_foreign(site, node, station, &[&images[..], &patient].concat());
}

/// A station says that its step has ended with these images.
fn perform(node: &Node, station: &str, study: &str, images: std::ops::Range<u64>) {
    let image = |n| {
        let sop = format!("{study}.1.{n}");
        json!({ "ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": sop })
    };
    let images: Vec<Value> = images.map(image).collect();
    let step = format!("{study}.99");
    let begun = json!({
        "PatientID": ID, "PatientName": NAME, "PatientBirthDate": BIRTH,
        "PerformedProcedureStepID": "PPS1",
        "PerformedStationAETitle": station,
        "PerformedProcedureStepStartDate": "20261122",
        "PerformedProcedureStepStartTime": "101500",
        "PerformedProcedureStepStatus": "IN PROGRESS",
        "Modality": "CT",
        "ScheduledStepAttributesSequence": [{ "StudyInstanceUID": study }],
        "PerformedSeriesSequence": [],
    });
    let ended = json!({
        "PerformedProcedureStepStatus": "COMPLETED",
        "PerformedProcedureStepEndDate": "20261122",
        "PerformedProcedureStepEndTime": "102000",
        "PerformedSeriesSequence": [{
            "SeriesInstanceUID": format!("{study}.1"),
            "ReferencedImageSequence": images,
        }],
    });
    let steps = json!([
        { "do": "create", "class": MPPS, "instance": step, "data": begun },
        { "do": "set", "class": MPPS, "instance": step, "data": ended },
    ]);
    let lines = modality_with(node.port(Port::Dicom), &["--ae", station], &steps);
    let statuses: Vec<_> = lines.iter().filter_map(|l| l["status"].as_str()).collect();
    assert_eq!(statuses, ["0000", "0000"], "{lines:?}");
}

fn assert_no_patient(of: &str) {
    for word in [NAME, "YAMADA", "HANAKO", ID, BIRTH, "1961"] {
        assert!(!of.contains(word), "{word} stands in {of}");
    }
}

fn undelivered(node: &Node) -> Vec<Value> {
    let output = node.cli(&["notice", "list", "--json"]);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    all.as_array().cloned().unwrap_or_default()
}

#[test]
fn a_missing_image_is_told_to_its_station_once_and_again_when_it_comes_without_patient_data() {
    let site = Site::new();
    let web = Receiver::start(&site, "web", &[]);
    let link = "link = \"https://console.example/study/{study}\"\nfor = \"CT1\"";
    let node = posts(plan(&site), "ct", &web, link).start();
    let study = new_study();
    send(&site, &node, "CT1", &study, "1,2");
    perform(&node, "CT1", &study, 1..4);
    let opened = web.wait(1).remove(0);
    assert_eq!(
        (&opened["kind"], &opened["station"]),
        (&json!("opened"), &json!("CT1")),
        "{opened}"
    );
    assert_eq!(opened["study"], study.as_str());
    assert_eq!(opened["link"], format!("https://console.example/study/{study}"));
    assert_eq!((&opened["state"], &opened["about"]), (&json!("short"), &json!(["short"])));
    let counts = &opened["counts"];
    assert_eq!(
        (&counts["held"], &counts["expected"], &counts["missing"]),
        (&2.into(), &3.into(), &1.into())
    );
    assert_eq!(opened["reasons"][0]["ja"], "報告された 3 件のうち 1 件が未到着です。");
    assert_eq!(opened["actions"][0]["word"], "ask-source");
    assert!(opened["at"].as_str() < opened["deadline"].as_str(), "within the time: {opened}");
    let request = &web.got()[0];
    assert_eq!(request["headers"]["idempotency-key"], opened["id"]);
    assert_eq!((&request["method"], &request["path"]), (&json!("POST"), &json!("/notices")));
    send(&site, &node, "CT1", &study, "3");
    let settled = web.wait(2).remove(1);
    assert_eq!((&settled["kind"], &settled["state"]), (&json!("settled"), &json!("complete")));
    assert_ne!(settled["id"], opened["id"]);
    until("nothing waits", || undelivered(&node).is_empty());
    node.restart();
    assert_eq!(node.cli(&["notice", "list"]).status.code(), Some(0));
    assert_eq!(web.got().len(), 2, "silence");
    web.got().iter().for_each(|got| assert_no_patient(&got.to_string()));
    assert_no_patient(&node.log());
    assert!(node.metric("hikyaku_notices_undelivered", &[]) < 0.5);
}

#[test]
fn killed_at_any_point_a_node_tells_exactly_the_same_notices_under_the_same_ids() {
    let site = Site::new();
    let web = Receiver::down(&site, "web", &[]);
    let node = posts(plan(&site), "ct", &web, "").start();
    let studies = [new_study(), new_study()];
    for study in &studies {
        perform(&node, "CT1", study, 1..3);
        send(&site, &node, "CT1", study, "1");
    }
    // Before the notice is due; the timer is not of memory alone.
    node.kill();
    node.start();
    until("both are made", || undelivered(&node).len() == 2);
    let made: Vec<Value> = undelivered(&node).iter().map(|n| n["id"].clone()).collect();
    until("it was tried", || node.metric("hikyaku_notices_total", &["failed"]) > 0.5);
    node.kill();
    node.start();
    until("it is tried again", || node.metric("hikyaku_notices_total", &["failed"]) > 0.5);
    web.answer("500");
    web.up();
    until("the receiver refuses", || !web.got().is_empty());
    node.kill();
    web.answer("204");
    node.start();
    let told: Vec<Value> = web.wait(2).iter().map(|d| d["id"].clone()).collect();
    assert_eq!(told, made, "in the order in which they were made");
    until("nothing waits", || undelivered(&node).is_empty());
    node.kill();
    // The ledger is a view: what was told is in the logs.
    std::fs::remove_dir_all(node.data().join("ledger")).expect("a ledger");
    node.start();
    studies.iter().for_each(|study| send(&site, &node, "CT1", study, "2"));
    let all = web.wait(4);
    let kinds: Vec<&str> = all.iter().filter_map(|d| d["kind"].as_str()).collect();
    assert_eq!(kinds, ["opened", "opened", "settled", "settled"]);
    assert_eq!(node.cli(&["notice", "list"]).status.code(), Some(0));
    node.restart();
    assert_eq!(web.documents().len(), 4, "and no more");
}

#[test]
fn a_mail_in_japanese_is_read_by_others_as_it_was_meant_over_starttls_with_a_login() {
    let site = Site::new();
    let (certificate, key) = identity(&site);
    let login = ["--user", "node", "--password", "s3cret"];
    let tls =
        ["--cert", &certificate, "--key", &key, "--starttls", "--refuse", "gone@site.example"];
    let server = Receiver::start(&site, "mail", &[&tls[..], &login].concat());
    std::fs::write(site.path().join("password"), "s3cret\n").expect("a file");
    let mail = format!(
        "server = \"localhost:{}\"\nfrom = \"hikyaku <hikyaku@site.example>\"\nuser = \"node\"\n\
         password = \"password\"\ntrust = \"pki/ca.crt\"",
        server.port
    );
    let rule = "name = \"ct\"\nwithin = \"2s\"\nlanguage = \"ja\"\n\
                link = \"https://console.example/{study}\"\n\
                mail = { to = [\"gone@site.example\", \"CT 室 <ct@site.example>\"] }";
    let node = plan(&site).set("orders.mail", &mail).table("orders.notice", rule).start();
    let study = new_study();
    send(&site, &node, "CT1", &study, "1,2");
    perform(&node, "CT1", &study, 1..4);
    let mail = server.wait_mails(1).remove(0);
    assert_eq!((&mail["tls"], &mail["user"]), (&json!(true), &json!("node")));
    assert_eq!(mail["peer"], json!(["ct@site.example"]));
    let headers = &mail["headers"];
    assert_eq!(headers["subject"], "[hikyaku] 検査に対応が必要です：2/3");
    assert_eq!(headers["to"], "gone@site.example, CT 室 <ct@site.example>");
    assert_eq!(headers["auto-submitted"], "auto-generated");
    assert!(headers["content-type"].as_str().is_some_and(|t| t.contains("utf-8")), "{headers}");
    let id = headers["message-id"].as_str().expect("an id");
    let said = mail["text"].as_str().expect("text").replace("\r\n", "\n");
    let (front, last) = said.trim_end().rsplit_once('\n').expect("lines");
    let wanted = format!(
        "検査に対応が必要です：2/3\n\n報告された 3 件のうち 1 件が未到着です。\n\
         -> 送信元に不足画像を照会してください。なければ装置から再送してください。\n\n\
         送信元：CT1\n検査：{study}\n詳細：https://console.example/{study}"
    );
    assert_eq!(front, wanted);
    assert!(last.ends_with("に自動送信しました。このメールに返信しないでください。"), "{last}");
    assert_no_patient(&mail.to_string());
    assert!(!node.log().contains("s3cret"));
    // What the server cannot take now comes later, as the same mail.
    server.answer("451 not now");
    send(&site, &node, "CT1", &study, "3");
    server.wait_mails(2);
    node.kill();
    std::fs::remove_file(site.path().join(format!("answers-{}", server.port))).expect("a file");
    node.start();
    until("it is taken", || server.got().last().is_some_and(|m| m["status"] == "250"));
    let mails = server.got();
    let settled = &mails[1]["headers"];
    assert_eq!(settled["subject"], "[hikyaku] 対応が必要だった検査は解決しました：3/3");
    let again = &mails.last().expect("a mail")["headers"];
    assert_eq!((&again["message-id"], &again["date"]), (&settled["message-id"], &settled["date"]));
    assert_ne!(settled["message-id"], id);
}

#[test]
fn two_stations_are_told_of_their_own_studies_and_a_receiver_that_is_down_delays_no_other() {
    let site = Site::new();
    let (ct, mr) = (Receiver::start(&site, "web", &[]), Receiver::down(&site, "web", &[]));
    let node = posts(plan(&site), "ct", &ct, "for = \"CT*\"");
    let node = posts(node, "mr", &mr, "for = [\"MR1\"]\nabout = \"short\"").start();
    let (one, two) = (new_study(), new_study());
    send(&site, &node, "MR1", &two, "1");
    perform(&node, "MR1", &two, 1..3);
    send(&site, &node, "CT7", &one, "1");
    perform(&node, "CT7", &one, 1..3);
    let told = ct.wait(1).remove(0);
    assert_eq!((&told["study"], &told["station"]), (&json!(one), &json!("CT7")));
    // One of which nothing came is known by its step alone.
    let none = new_study();
    perform(&node, "CT8", &none, 1..3);
    let told = ct.wait(2).remove(1);
    assert_eq!((&told["study"], &told["station"]), (&json!(none), &json!("CT8")));
    until("the other waits", || undelivered(&node).iter().any(|n| n["study"] == two.as_str()));
    until("status says so", || {
        let notices = &node.status()["notices"];
        notices["waiting"] == 1
            && notices["errors"].to_string().contains("notices of mr by webhook")
    });
    let shown = text(&node.cli(&["status"]).stdout);
    assert!(shown.contains("notices: 1 undelivered"), "{shown}");
    mr.up();
    let told = mr.wait(1).remove(0);
    assert_eq!((&told["study"], &told["station"]), (&json!(two), &json!("MR1")));
    until("nothing waits", || node.status()["notices"]["waiting"] == 0);
    assert_eq!((ct.documents().len(), mr.documents().len()), (2, 1));
}

#[test]
fn an_overdue_order_is_told_by_the_rule_of_its_modality_and_settled_when_its_images_come() {
    let site = Site::new();
    let (ct, mr) = (Receiver::start(&site, "web", &[]), Receiver::start(&site, "web", &[]));
    let node = plan(&site).orders().set("orders", "expected = true");
    let node = posts(node, "ct", &ct, "modality = \"CT\"");
    let node = posts(node, "mr", &mr, "modality = \"MR\"\nfor = \"MR1\"").start();
    let study = new_study();
    let due = Order { scheduled: "202001010900", study: &study, patient: ID, ..Order::default() };
    let add = ["order", "add", "P1", "--modality", "CT"];
    assert_eq!(Ris::connect(&node).ask(&due.write()), "AA");
    assert!(node.cli(&add).status.success());
    let told = ct.wait(1).remove(0);
    assert_eq!((&told["about"], &told["order"]), (&json!(["overdue"]), &json!("P1")), "{told}");
    assert_eq!(
        (&told["study"], &told["actions"][0]["word"]),
        (&Value::Null, &json!("check-performed"))
    );
    node.kill();
    node.start();
    send(&site, &node, "CT1", &study, "1");
    let settled = ct.wait(2).remove(1);
    assert_eq!(settled["kind"], "settled");
    assert_eq!(settled["reasons"][0]["en"], "Images of this order have come.");
    assert!(mr.got().is_empty());
    ct.got().iter().for_each(|got| assert_no_patient(&got.to_string()));
}

#[test]
fn a_gap_that_heals_in_time_is_told_to_nobody() {
    let site = Site::new();
    let web = Receiver::start(&site, "web", &[]);
    let slow = "name = \"slow\"\nwithin = \"1h\"\nwebhook = { url = \"http://127.0.0.1:1/x\" }";
    let node = posts(plan(&site), "ct", &web, "").table("orders.notice", slow).start();
    let (healed, short) = (new_study(), new_study());
    send(&site, &node, "CT1", &healed, "1");
    send(&site, &node, "CT1", &healed, "2");
    perform(&node, "CT1", &healed, 1..3);
    send(&site, &node, "CT1", &short, "1");
    perform(&node, "CT1", &short, 1..3);
    let told = web.wait(1).remove(0);
    assert_eq!(told["study"], short.as_str(), "the first thing that is told");
    assert_eq!(undelivered(&node).len(), 0, "the slow rule has told nothing yet");
}

#[test]
fn an_engineer_tries_a_rule_and_is_told_what_fails() {
    let site = Site::new();
    let (certificate, key) = identity(&site);
    let tls = ["--cert", certificate.as_str(), "--key", key.as_str()];
    let (web, mail) = (Receiver::start(&site, "web", &tls), Receiver::start(&site, "mail", &tls));
    std::fs::write(site.path().join("token"), "abc123\n").expect("a file");
    let server = format!(
        "server = \"localhost:{}\"\ntls = \"tls\"\ntrust = \"pki/ca.crt\"\nfrom = \"h@site.example\"",
        mail.port
    );
    let rule = |name: &str, trust: &str| {
        let url = format!("https://localhost:{}/hook?a=b", web.port);
        format!(
            "name = {name:?}\nlanguage = \"both\"\nmail = {{ to = \"ct@site.example\" }}\n\
             webhook = {{ url = {url:?}, token = \"token\"{trust} }}"
        )
    };
    let node = plan(&site).set("orders.mail", &server);
    let node = node.table("orders.notice", &rule("good", ", trust = \"pki/ca.crt\""));
    let node = node.table("orders.notice", &rule("strange", "")).start();
    let output = node.cli(&["notice", "test", "good"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert_eq!(said, "webhook: taken\nmail: taken\n");
    let request = web.got().remove(0);
    assert_eq!(
        (&request["path"], &request["headers"]["authorization"]),
        (&json!("/hook?a=b"), &json!("Bearer abc123"))
    );
    assert_eq!(web.documents()[0]["kind"], "test");
    let got = mail.got().remove(0);
    assert_eq!(got["headers"]["subject"], "[hikyaku] 通知の試験です / This is a test of notices");
    assert_eq!(got["tls"], true);
    // A server whose certificate nobody here has signed for gets nothing.
    let output = node.cli(&["notice", "test", "strange"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("webhook: NOT taken: TLS handshake failed"));
    assert_eq!(web.got().len(), 1);
    // A token is read at every try.
    std::fs::write(site.path().join("token"), "new\n").expect("a file");
    web.answer("401");
    let output = node.cli(&["notice", "test", "good"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("the receiver answers 401"), "{}", text(&output.stdout));
    assert_eq!(web.got()[1]["headers"]["authorization"], "Bearer new");
    let unknown = node.cli(&["notice", "test", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("no [[orders.notice]]"));
    assert!(!node.log().contains("abc123"));
}

#[test]
fn a_notice_that_nobody_takes_is_given_up_and_told_to_the_operator() {
    let site = Site::new();
    let web = Receiver::start(&site, "web", &[]);
    web.answer("503");
    let node = posts(plan(&site), "ct", &web, "give_up = \"3s\"").start();
    let study = new_study();
    send(&site, &node, "CT1", &study, "1");
    perform(&node, "CT1", &study, 1..3);
    until("it is given up", || node.status()["notices"]["given_up"] == 1);
    assert!(node.log().contains("a notice is given up"), "{}", node.log());
    node.reaches("hikyaku_notices_total", &["given-up"], 0.5);
    let ids: std::collections::BTreeSet<String> =
        web.got().iter().map(|g| g["headers"]["idempotency-key"].to_string()).collect();
    assert_eq!(ids.len(), 1, "one notice, under one id");
    node.restart();
    until("it is remembered", || node.status()["notices"]["given_up"] == 1);
    let listed = text(&node.cli(&["notice", "list"]).stdout);
    assert!(listed.contains("GIVEN UP"), "{listed}");
}
