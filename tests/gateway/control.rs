//! What operators ask a node and decide about its duties, by the commands that they type.

use std::fs;

use serde_json::Value;

use crate::foreign::{Scp, Sent, scu_ok};
use crate::part10::data;
use crate::site::{Node, Port, Site, hikyaku, run, text, until};

fn send_study(node: &Node) -> Vec<Sent> {
    scu_ok(node.port(Port::Dicom), &[], &[&data("study")])
}

fn list(node: &Node, words: &[&str]) -> Vec<Value> {
    node.ask(&[&["queue", "list"], words].concat()).as_array().expect("a list").clone()
}

/// The Study Instance UID of `tests/data/study`.
fn study(node: &Node) -> String {
    node.ask(&["studies"])[0]["study"].as_str().expect("a study").to_owned()
}

/// Every field that docs/operating.md names stands in the document.
fn has_fields(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "{field} in {value}");
    }
}

#[test]
fn what_no_rule_matches_is_kept_and_shown_until_a_rule_picks_it_up() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = site
        .lone()
        .dicom_destination("pacs", pacs.port())
        .table("route", "name = \"ct\"\nwhen = { modality = \"CT\" }\nto = [\"pacs\"]")
        .start();
    send_study(&node);
    scu_ok(node.port(Port::Dicom), &[], &[&data("samples").join("ct_image.dcm")]);
    node.wait_count("pacs", "receipted", 1);
    until("ten are unrouted", || node.status()["spool"]["unrouted"] == 10);
    until("the metric says so", || node.metric("hikyaku_unrouted", &[]) > 9.5);
    let studies = node.ask(&["studies"]);
    assert!(studies.as_array().unwrap().iter().any(|s| s["unrouted"] == 10), "{studies}");
    let of_study = node.ask(&["studies"]);
    let of_study = of_study.as_array().unwrap().iter().find(|s| s["modality"] == "MR");
    let uid = of_study.expect("the study")["study"].as_str().expect("a UID");
    let shown = text(&node.cli(&["study", uid]).stdout);
    assert_eq!(shown.matches("unrouted").count(), 10, "{shown}");
    // They are still there, and still nobody's, after a crash.
    node.kill();
    node.start();
    until("ten are unrouted", || node.status()["spool"]["unrouted"] == 10);

    node.edit(|plan| {
        plan.table("route", "name = \"mr\"\nwhen = { modality = \"MR\" }\nto = \"pacs\"")
    });
    node.signal(nix::sys::signal::Signal::SIGHUP);
    node.wait_count("pacs", "receipted", 11);
    until("none is unrouted", || node.status()["spool"]["unrouted"] == 0);
    assert_eq!(pacs.arrived().len(), 11);
}

#[test]
fn explain_says_for_a_study_and_for_a_file_which_rule_applies_and_why_others_do_not() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let rules = [
        "name = \"emergency\"\nwhen = { called_ae = \"TELE_STAT\" }\nto = \"pacs\"\nurgency = \"stat\"",
        "name = \"ct\"\nwhen = { modality = \"CT\" }\nto = \"pacs\"",
        "name = \"fruit\"\nto = \"pacs\"\nwhen.attributes.PatientName = \"FRUIT*\"",
        "name = \"mr\"\nwhen = { modality = \"MR\" }\nto = \"pacs\"\nlast = true",
        "name = \"rest\"\nto = \"pacs\"",
    ];
    let plan = site.lone().dicom_destination("pacs", pacs.port());
    let node = rules.iter().fold(plan, |plan, rule| plan.table("route", rule)).start();
    send_study(&node);
    node.wait_count("pacs", "receipted", 10);

    let file = data("study").join("slice_060.dcm");
    let file = file.to_str().expect("a path");
    let by_file = node.ask(&["explain", file]);
    let by_study = node.ask(&["explain", &study(&node)]);
    assert_eq!(by_study[0]["images"], 10);
    for explained in [&by_file, &by_study[0]["explanation"]] {
        let verdict = |n: usize| {
            let rule = &explained["rules"][n];
            format!("{}: {}", rule["rule"].as_str().unwrap(), rule["verdict"].as_str().unwrap())
        };
        let verdicts: Vec<String> = (0..rules.len()).map(verdict).collect();
        let expected = [
            "emergency: differs",
            "ct: differs",
            "fruit: applies",
            "mr: applies",
            "rest: not_reached",
        ];
        assert_eq!(verdicts, expected);
        assert_eq!(explained["rules"][1]["mismatches"][0]["value"], "MR", "{explained}");
        assert_eq!(explained["assignments"][0]["destination"], "pacs");
    }
    let called = ["explain", file, "--called", "TELE_STAT"];
    assert_eq!(node.ask(&called)["assignments"][0]["urgency"], "stat");

    // For people; a value that identifies the patient only when they ask for it.
    let other = data("samples").join("ct_image.dcm");
    let other = other.to_str().expect("a path");
    let words = text(&node.cli(&["explain", other]).stdout);
    assert!(words.contains("fruit") && !words.contains("CompressedSamples"), "{words}");
    let words = text(&node.cli(&["explain", other, "--patient"]).stdout);
    assert!(words.contains("CompressedSamples"), "{words}");
    assert_eq!(node.cli(&["explain", "1.2.3.4"]).status.code(), Some(1), "no such study");
}

#[test]
fn every_decision_is_carried_out_and_recorded_with_the_person() {
    let site = Site::new();
    let pacs = Scp::down(&site, &[]);
    let node = site.lone().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    send_study(&node);
    node.wait_count("pacs", "owed", 10);
    let decide = |words: &[&str]| node.ask(&[&["queue"], words].concat())["changed"].as_u64();
    let study = study(&node);
    let ours = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;

    assert_eq!(decide(&["hold", "--study", &study, "--reason", "wrong patient?"]), Some(10));
    let held = list(&node, &["--state", "held"]);
    assert_eq!(held.len(), 10);
    let duty = &held[0]["duties"][0];
    assert_eq!((&duty["by"], &duty["reason"]), (&ours.clone().into(), &"wrong patient?".into()));

    let cargo = |n: usize| held[n]["cargo"].to_string();
    let why = ["--reason", "test image"];
    assert_eq!(decide(&[&["dismiss", "--cargo", &cargo(0)], &why[..]].concat()), Some(1));
    assert_eq!(decide(&[&["dismiss", "--cargo", &cargo(1)], &why[..]].concat()), Some(1));
    let dismissed = list(&node, &["--state", "dismissed"]);
    assert_eq!(dismissed[0]["duties"][0]["by"], ours.as_str());
    assert_eq!(decide(&["release", "--destination", "pacs"]), Some(8));
    // Decisions survive a crash, and one of them is taken back.
    node.kill();
    node.start();
    node.wait_count("pacs", "dismissed", 2);
    assert_eq!(decide(&["retry", "--cargo", &cargo(0)]), Some(1));
    pacs.up();
    node.wait_count("pacs", "receipted", 9);
    assert_eq!(pacs.arrived().len(), 9);
    // What was delivered is sent again when a person says so.
    let receipted = list(&node, &["--state", "receipted"]);
    assert_eq!(decide(&["retry", "--cargo", &receipted[0]["cargo"].to_string()]), Some(1));
    pacs.wait(10);
    node.wait_count("pacs", "receipted", 9);

    let log = node.log();
    let audited = |what: &str| {
        log.lines().any(|l| l.contains("audit") && l.contains(what) && l.contains(&ours))
    };
    for action in ["Hold", "Dismiss", "Release", "Retry"] {
        assert!(audited(action), "{action} is in the audit");
    }
    assert!(audited("wrong patient?"));
}

#[test]
fn a_destination_that_is_owed_cargo_cannot_be_removed() {
    let site = Site::new();
    let pacs = Scp::down(&site, &[]);
    let node = site.lone().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    send_study(&node);
    node.wait_count("pacs", "owed", 10);
    node.edit(|plan| {
        plan.without("destination", "\"pacs\"")
            .without("route", "\"pacs\"")
            .folder_destination("folder")
            .route_all("folder")
    });
    let refused = node.cli(&["reload"]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("pacs"), "{}", text(&refused.stderr));
    node.stop();
    let end = node.try_start().expect_err("it does not start");
    assert!(!end.success());
    let said = node.log_of_this_life();
    assert!(said.contains("pacs") && said.contains("owed"), "{said}");

    // With the destination it starts; once it is owed nothing, it goes.
    node.edit(|plan| plan.dicom_destination("pacs", pacs.port()));
    node.start();
    pacs.up();
    node.wait_count("pacs", "receipted", 10);
    node.edit(|plan| plan.without("destination", "\"pacs\""));
    node.ask(&["reload"]);
}

#[test]
fn every_listing_gives_one_json_document_with_its_fields() {
    let site = Site::new();
    let pacs = Scp::start(&site, &["--every", "5=0122"]);
    let node = site.lone().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    send_study(&node);
    node.wait_count("pacs", "receipted", 8);
    node.wait_count("pacs", "quarantined", 2);
    let study = study(&node);

    let status = node.ask(&["status"]);
    let fields = ["node", "version", "uptime_seconds", "ready", "obstacles", "spool"];
    has_fields(&status, &fields);
    has_fields(&status, &["destinations", "peers", "associations"]);
    has_fields(&status["spool"], &["present", "present_bytes", "unrouted", "conflicts"]);
    has_fields(&status["spool"], &["occupied_bytes", "free_bytes", "watermark_bytes", "findings"]);
    let destination = &status["destinations"][0];
    has_fields(destination, &["destination", "kind", "up", "last_error", "owed", "in_flight"]);
    has_fields(destination, &["held", "receipted", "quarantined", "dismissed", "open_bytes"]);
    let studies = &node.ask(&["studies"])[0];
    has_fields(studies, &["origin", "study", "modality", "accession", "images", "bytes"]);
    has_fields(studies, &["owed", "held", "receipted", "quarantined", "dismissed", "unrouted"]);
    let of_study = &node.ask(&["study", &study])["cargo"];
    assert_eq!(of_study.as_array().expect("a list").len(), 10);
    for piece in [&of_study[0], &list(&node, &[])[0]] {
        has_fields(piece, &["cargo", "kind", "origin", "key", "study", "modality", "length"]);
        has_fields(piece, &["sha256", "kept_at", "present", "conflict", "flags", "duties"]);
        has_fields(&piece["duties"][0], &["destination", "urgency", "state", "in_flight"]);
        has_fields(&piece["duties"][0], &["attempt", "reason", "by", "at", "receipt", "beyond"]);
    }
    has_fields(&node.ask(&["explain", &study])[0], &["images", "example", "explanation", "words"]);
    has_fields(&node.ask(&["spool", "verify"]), &["whole", "bytes", "damage"]);
    assert!(node.ask(&["reload"]).is_array());
    let check = run(hikyaku().args(["check-config", "--json"]).arg(node.config()));
    let check: Value = serde_json::from_slice(&check.stdout).expect("JSON");
    has_fields(&check, &["problems", "warnings"]);
    // Without --json, tables for people say the same.
    for words in [&["status"][..], &["studies"], &["study", &study], &["queue", "list"]] {
        let table = text(&node.cli(words).stdout);
        let shown = ["pacs", &study, "0122"].iter().any(|word| table.contains(word));
        assert!(table.lines().count() > 1 && shown, "{words:?}: {table}");
    }
}

#[test]
fn exit_codes_are_what_the_help_says() {
    let site = Site::new();
    let node = site.lone().folder_destination("folder").route_all("folder").write();
    let code = |words: &[&str]| node.cli(words).status.code();
    let bare = |words: &[&str]| run(hikyaku().args(words)).status.code();
    assert_eq!(bare(&["--help"]), Some(0));
    assert_eq!(bare(&["--version"]), Some(0));
    assert_eq!(bare(&["nonsense"]), Some(2), "usage");
    assert_eq!(bare(&["status", "--config", "/nonexistent.toml"]), Some(2), "configuration");
    assert_eq!(code(&["status"]), Some(3), "nobody runs");
    node.start();
    assert_eq!(code(&["status"]), Some(0));
    assert_eq!(code(&["study", "1.2.3"]), Some(1), "no such study");
    assert_eq!(code(&["queue", "retry", "--cargo", "1"]), Some(1), "nothing to decide");
    assert_eq!(code(&["queue", "retry"]), Some(2), "it must be named");
    assert_eq!(code(&["spool", "verify"]), Some(0));
    assert_eq!(code(&["spool", "rebuild-ledger"]), Some(1), "the node runs");

    let config = node.config();
    let check = || run(hikyaku().arg("check-config").arg(&config)).status.code();
    assert_eq!(check(), Some(0));
    let good = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, good.replace("127.0.0.1\" }", "127.0.0.1\" }, {}")).expect("written");
    assert_eq!(check(), Some(4), "everybody may send: a warning");
    fs::write(&config, good.replace("ae_titles", "ae_title")).expect("written");
    assert_eq!(check(), Some(2));
    fs::write(&config, good).expect("written");

    // Damage is what `verify` warns about.
    scu_ok(node.port(Port::Dicom), &[], &[&data("study").join("slice_060.dcm")]);
    node.wait_count("folder", "receipted", 1);
    assert!(node.stop().success());
    damage(&node);
    assert_eq!(code(&["spool", "verify"]), Some(4));
}

/// Turns one byte in the middle of the largest file of the cargo log.
fn damage(node: &Node) {
    let segments = crate::part10::files(&node.data().join("cargo"));
    let length = |f: &std::path::PathBuf| f.metadata().map_or(0, |m| m.len());
    let segment = segments.into_iter().max_by_key(length).expect("a segment");
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[70_000] ^= 1;
    fs::write(segment, bytes).expect("a segment that can be written");
}
