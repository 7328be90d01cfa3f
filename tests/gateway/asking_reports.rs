//! What people and systems ask about reports, and send: the command line and the API.

use std::fs;

use serde_json::{Value, json};

use crate::api::{Caller, client};
use crate::site::{Node, Plan, Site, text};

fn lone(site: &Site) -> Plan {
    site.lone().orders().folder_destination("folder").route_all("folder")
}

/// A node that keeps reports, and a caller of its API.
fn start(site: &Site) -> (Node, Caller) {
    let (plan, caller) = Caller::at(lone(site).set("reports", "alarm = \"1h\""), site, "lone");
    (plan.start(), caller)
}

const READS: [&str; 11] = [
    "/reports",
    "/reports/00",
    "/held",
    "/overdue",
    "/loops",
    "/critical",
    "/notes",
    "/documents/00/text",
    "/documents/00/pdf",
    "/documents/00/cda",
    "/documents/00/structured",
];

fn writes() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("write-reports", "/reports", json!({ "accession": "A1", "text": "SECRET" })),
        ("write-reports", "/reports/00/again", json!({})),
        ("write-reports", "/reports/00/critical", json!({ "why": "mass" })),
        ("write-reports", "/documents/00/match", json!({ "to": "P1" })),
        ("write-reports", "/documents/00/release", json!({})),
        ("write-reports", "/documents/00/discard", json!({ "reason": "twice" })),
        ("write-reports", "/studies/1.2.3/dismiss", json!({})),
        ("acknowledge", "/critical/00/acknowledge", json!({ "by": "Dr" })),
        ("acknowledge", "/critical/00/close", json!({ "by": "Dr", "done": "called" })),
        ("write-notes", "/notes", json!({ "study": "1.2.3", "text": "which side?" })),
    ]
}

#[test]
fn a_node_that_keeps_no_reports_says_so_and_each_call_needs_its_right() {
    let site = Site::new();
    let (mut plan, caller) = Caller::at(lone(&site), &site, "lone");
    let all = ["read-reports", "write-reports", "acknowledge", "read-notes", "write-notes"];
    for own in all {
        let others: Vec<String> =
            all.iter().filter(|r| **r != own).map(|r| format!("{r:?}")).collect();
        caller.token(&format!("not-{own}"));
        plan = plan.table("api.client", &client(&format!("not-{own}"), &others.join(", ")));
    }
    let node = plan.start();
    for path in READS {
        let right = if path == "/notes" { "read-notes" } else { "read-reports" };
        let with = caller.get(path);
        assert_eq!(
            (with.code, &with.body["type"]),
            (404, &"/problems/no-reports".into()),
            "{path}"
        );
        let without = caller.call(&format!("not-{right}"), &[], path);
        assert_eq!(without.code, 403, "{path}: {without:?}");
        assert!(without.body["detail"].as_str().is_some_and(|d| d.contains(right)), "{without:?}");
    }
    for (right, path, body) in writes() {
        let with = caller.post(path, &body);
        assert_eq!(
            (with.code, &with.body["type"]),
            (404, &"/problems/no-reports".into()),
            "{path}"
        );
        let without = caller.post_as(&format!("not-{right}"), path, &body);
        assert_eq!(without.code, 403, "{path}: {without:?}");
        assert!(without.body["detail"].as_str().is_some_and(|d| d.contains(right)), "{without:?}");
    }
    for words in [&["reports"][..], &["reports", "--held"], &["overdue"], &["critical"], &["notes"]]
    {
        let output = node.cli(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(text(&output.stderr).contains("[reports]"), "{words:?}");
    }
    assert_eq!(node.status()["reports"], Value::Null);
    assert!(!node.log().contains("SECRET"));
}

#[test]
fn a_report_that_was_answered_with_201_is_there_after_a_kill_and_known_when_it_comes_again() {
    let site = Site::new();
    let (node, caller) = start(&site);
    // More than the 64 KiB that other calls take.
    let pdf = [b"%PDF-1.4\n%".to_vec(), vec![b'x'; 3 << 20], b"\n%%EOF\n".to_vec()].concat();
    let body = site.path().join("report.json");
    let report = json!({
        "accession": "A1", "patient": { "id": "SECRET", "name": "髙橋^一郎" }, "status": "final",
        "signed_by": "Dokuei^Ichiro", "text": "骨 像 本 表 ソ", "pdf": base64(&pdf),
    });
    fs::write(&body, report.to_string()).expect("a file");
    let words = format!("@{}", body.display());
    let words = ["-H", "Content-Type: application/json", "--data-binary", &words];
    let posted = caller.call("ris", &words, "/reports");
    node.kill();
    assert_eq!((posted.code, &posted.body["new"]), (201, &true.into()), "{posted:?}");
    let document = posted.body["document"].as_str().expect("an id").to_owned();
    node.start();
    assert_eq!(node.status()["spool"]["unrouted"], 1, "it waits for its match");
    let again = caller.call("ris", &words, "/reports");
    assert_eq!((again.code, &again.body["new"]), (200, &false.into()), "{again:?}");
    assert_eq!(again.body["document"], document.as_str());
    assert_eq!(node.status()["spool"]["unrouted"], 1, "it is one document");
    let log = node.log();
    let line = |l: &str| l.contains("audit") && l.contains("api/ris") && l.contains(&document);
    assert!(log.lines().any(line), "{log}");
    assert!(!log.contains("SECRET") && !log.contains("髙橋") && !log.contains("骨"), "{log}");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn every_fault_of_a_report_is_named_at_once_and_one_that_is_too_long_is_not_read() {
    let site = Site::new();
    let (node, caller) = start(&site);
    let wrong = json!({ "study": "SECRET", "status": "odd", "pdf": "SECRET!", "text": "" });
    let answer = caller.post("/reports", &wrong);
    assert_eq!(answer.code, 422, "{answer:?}");
    let faults = answer.body["faults"].as_array().expect("faults");
    let named = |field: &str| faults.iter().any(|f| f["field"] == field);
    assert!(named("study") && named("status") && named("pdf"), "{answer:?}");
    for odd in ["[]", "", "{", "{\"colour\": \"SECRET\"}", "{\"text\": 1}"] {
        let words = ["-H", "Content-Type: application/json", "--data-binary", odd];
        let answer = caller.call("ris", &words, "/reports");
        assert_eq!(answer.code, 400, "{odd}: {answer:?}");
    }
    let words = ["--data-binary", "text=x"];
    assert_eq!(caller.call("ris", &words, "/reports").code, 415);
    // A file of holes: what is said to be too long is refused before it comes.
    let long = site.path().join("long.json");
    fs::File::create(&long).expect("a file").set_len(133 << 20).expect("a length");
    let long = long.display().to_string();
    let words = ["-H", "Content-Type: application/json", "-X", "POST", "-T", &long];
    assert_eq!(caller.call("ris", &words, "/reports").code, 413);
    assert_eq!(node.status()["spool"]["unrouted"], 0, "nothing was kept");
    assert!(!node.log().contains("SECRET"));
}

#[test]
fn a_node_without_any_report_lists_none_and_knows_none() {
    let site = Site::new();
    let (node, caller) = start(&site);
    for path in ["/reports", "/reports?of=1.2.3", "/held", "/overdue", "/loops", "/critical"] {
        assert_eq!(caller.get(path).body, json!([]), "{path}");
    }
    assert_eq!(caller.get("/notes?study=1.2.3").body, json!([]));
    for path in ["/reports?limit=0", "/notes?study=x", "/critical?all=maybe", "/held?of=x"] {
        assert!([400, 422].contains(&caller.get(path).code), "{path}");
    }
    assert_eq!(caller.get("/reports/00").code, 404);
    assert_eq!(caller.get("/documents/00/text").code, 404);
    for (_, path, body) in writes().into_iter().skip(1) {
        let answer = caller.post(path, &body);
        assert!([404, 422].contains(&answer.code), "{path}: {answer:?}");
    }
    let nameless = caller.post("/critical/00/acknowledge", &json!({ "by": " " }));
    assert_eq!((nameless.code, &nameless.body["faults"][0]["field"]), (422, &"by".into()));
    for words in [&["reports"][..], &["reports", "--held"], &["overdue"], &["critical", "--all"]] {
        assert_eq!(node.ask(words), json!([]), "{words:?}");
    }
    assert_eq!(node.cli(&["report", "show", "00"]).status.code(), Some(1));
    assert_eq!(node.status()["reports"], json!({ "held": 0, "overdue": 0, "critical": 0 }));
}
