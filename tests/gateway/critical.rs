//! Critical results: told up the ladder until a person at the hospital knows, whatever dies in
//! between. Web and mail server, HIS and reporting system are Python's.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::Caller;
use crate::circle::{Circle, Said, his, moments};
use crate::hl7::Order;
use crate::receiver::Receiver as His;
use crate::receivers::Receiver;
use crate::sender::new_study;
use crate::site::{HOSPITAL, Node, Plan, READING, Site, text, until};

/// A rule that posts to a receiver on this machine, about these words.
pub(crate) fn posts(plan: Plan, name: &str, receiver: &Receiver, about: &[&str]) -> Plan {
    let url = format!("http://127.0.0.1:{}/notices", receiver.port);
    let body = format!("name = {name:?}\nabout = {about:?}\nwebhook = {{ url = {url:?} }}");
    plan.table("orders.notice", &body)
}

fn rung(plan: Plan, after: &str, to: &str) -> Plan {
    plan.table("reports.critical.rung", &format!("after = {after:?}\nto = [{to:?}]"))
}

/// Critical results as a node lists them.
fn listed(node: &Node, all: bool) -> Vec<Value> {
    let words: &[&str] = if all { &["critical", "--all"] } else { &["critical"] };
    let output = node.cli(&[words, &["--json"]].concat());
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let rows = rows.as_array().cloned().unwrap_or_default();
    let waits = rows.iter().any(|row| row["state"] == "open");
    assert_eq!(output.status.code(), Some(if waits { 4 } else { 0 }), "{rows:?}");
    rows
}

fn id(row: &Value) -> String {
    row["report"].as_str().expect("an id").to_owned()
}

/// The state of the only critical result of a node; empty where there is none.
fn state(node: &Node) -> String {
    let rows = listed(node, true);
    rows.first().and_then(|row| row["state"].as_str()).unwrap_or_default().to_owned()
}

fn abouts(receiver: &Receiver) -> Vec<String> {
    let word = |d: &Value| d["about"][0].as_str().unwrap_or_default().to_owned();
    receiver.documents().iter().map(word).collect()
}

fn ids(receiver: &Receiver) -> BTreeSet<String> {
    receiver.documents().iter().map(|d| d["id"].to_string()).collect()
}

fn ok(node: &Node, words: &[&str]) {
    let output = node.cli(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
}

#[test]
fn a_critical_result_is_told_up_the_ladder_until_a_person_at_the_hospital_knows() {
    let site = Site::new();
    let (ward, centre) = (Receiver::start(&site, "web", &[]), Receiver::start(&site, "web", &[]));
    let (mail, receiver) = (Receiver::start(&site, "mail", &[]), His::start(&[]));
    let server =
        format!("server = \"127.0.0.1:{}\"\nfrom = \"h@site.example\"\ntls = \"none\"", mail.port);
    let chief = "name = \"chief\"\nabout = [\"question-asked\"]\nlanguage = \"both\"\n\
                 link = \"https://ris.example/{study}\"\nmail = { to = [\"chief@site.example\"] }";
    let circle = Circle::start_with(
        &site,
        |plan| posts(plan, "centre", &centre, &["critical-known"]),
        |plan| {
            let plan = posts(plan, "ward", &ward, &["critical-known"]);
            let plan = plan.set("orders.mail", &server).table("orders.notice", chief);
            let plan = plan.set("reports.critical", "repeat = \"1m\"");
            his(rung(rung(plan, "0s", "ward"), "3s", "chief"), receiver.port(), "")
        },
    );
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let study = new_study();
    circle.study(&Order { study: &study, ..Order::default() }, 2);
    let said = Said { flag: "AA", text: "SECRETFINDING", ..Said::of(&study) };
    assert_eq!(circle.report(&[&said.write()]), ["AA"]);
    let told = ward.wait(1).remove(0);
    assert_eq!((&told["kind"], &told["about"]), (&json!("opened"), &json!(["critical-result"])));
    assert_eq!((&told["study"], &told["order"]), (&json!(study), &Value::Null));
    // The next rung by mail, and the last one again and again.
    let mails = mail.wait_mails(2);
    let first = mails[0]["text"].as_str().expect("text");
    assert!(first.contains("critical since") && first.contains("https://ris.example/"), "{first}");
    assert!(first.chars().any(|c| ('\u{3040}'..'\u{30ff}').contains(&c)), "in Japanese: {first}");
    assert_ne!(mails[0]["headers"]["message-id"], mails[1]["headers"]["message-id"]);
    for told in [told.to_string(), mails[0].to_string(), mails[1].to_string()] {
        assert!(!told.contains("ORACLE") && !told.contains("SECRETFINDING"), "{told}");
    }
    until("it is counted", || hospital.metric("hikyaku_critical_open", &[]) == 1.0);
    // A system's yes is nobody's knowledge.
    receiver.wait(1);
    until("it is delivered", || moments(hospital, &study).contains(&"delivered".to_owned()));
    for node in [hospital, reading] {
        assert_eq!(listed(node, false).len(), 1);
        assert_eq!(state(node), "open");
        assert!(!moments(node, &study).contains(&"acknowledged".to_owned()));
    }
    let report = id(&listed(hospital, false)[0]);
    let refused = reading.cli(&["critical", "ack", &report]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("at the hospital"), "{}", text(&refused.stderr));
    let early = hospital.cli(&["critical", "close", &report, "--done", "x"]);
    assert!(text(&early.stderr).contains("must be acknowledged"), "{}", text(&early.stderr));

    ok(hospital, &["critical", "ack", &report, "--by", "鈴木"]);
    assert_eq!(listed(hospital, false)[0]["state"], "acknowledged", "until it is closed");
    let again = hospital.cli(&["critical", "ack", &report]);
    assert!(text(&again.stderr).contains("before"), "{}", text(&again.stderr));
    until("the reading centre hears of it", || state(reading) == "acknowledged");
    let record = listed(reading, true)[0]["record"].to_string();
    assert!(record.contains("鈴木"), "{record}");
    until("both sides are told", || {
        abouts(&ward) == ["critical-result", "critical-known"]
            && abouts(&centre) == ["critical-known"]
    });
    until("the loop is closed at both ends", || {
        [hospital, reading].iter().all(|node| moments(node, &study).is_empty())
    });
    until("none is open", || hospital.metric("hikyaku_critical_open", &[]) == 0.0);
    ok(hospital, &["critical", "close", &report, "--done", "operated"]);
    until("the reading centre hears of that", || state(reading) == "closed");
    assert!(listed(hospital, false).is_empty() && listed(reading, false).is_empty());

    // A correction for the same reason tells nobody, one for a new reason all of them.
    let at = "20261128111500+0900";
    let same = Said { id: "R2", status: "C", text: "b", at, flag: "AA", ..Said::of(&study) };
    assert_eq!(circle.report(&[&same.write()]), ["AA"]);
    receiver.wait(2);
    assert_eq!((state(hospital).as_str(), abouts(&ward).len()), ("closed", 2));
    let at = "20261128121500+0900";
    let other = Said { id: "R3", status: "C", text: "c", at, flag: "HH", ..Said::of(&study) };
    assert_eq!(circle.report(&[&other.write()]), ["AA"]);
    assert_eq!(ward.wait(3)[2]["about"], json!(["critical-result"]));
    assert_eq!((state(hospital), state(reading)), ("open".into(), "open".into()));
    ok(hospital, &["critical", "ack", &report]);
    until("the reading centre hears again", || state(reading) == "acknowledged");
    let ids: BTreeSet<String> = ids(&ward);
    assert!(ids.len() >= 3, "{ids:?}");
    let shown = text(&hospital.cli(&["report", "show", &report]).stdout);
    assert!(shown.contains("rung 1: chief") && shown.contains("鈴木"), "{shown}");
    for node in [hospital, reading] {
        assert!(!node.log().contains("SECRETFINDING"), "no word of the report in the log");
    }
}

#[test]
fn killed_at_any_point_a_critical_result_is_told_under_the_same_ids_and_stays_as_people_left_it() {
    let site = Site::new();
    let ward = Receiver::down(&site, "web", &[]);
    let circle = Circle::start(&site, |plan| {
        let plan = posts(plan, "ward", &ward, &["study-received"]);
        rung(rung(plan, "0s", "ward"), "4s", "ward")
    });
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let study = new_study();
    circle.study(&Order { study: &study, ..Order::default() }, 2);
    let said = Said { flag: "AA", text: "a", ..Said::of(&study) };
    assert_eq!(circle.report(&[&said.write()]), ["AA"]);
    // Right after the sender's yes, and again and again while it goes home and is told.
    reading.kill();
    reading.start();
    for _ in 0..3 {
        hospital.kill();
        hospital.start();
    }
    until("both rungs are told", || {
        listed(hospital, true).first().is_some_and(|row| row["notices"].as_u64() >= Some(2))
    });
    hospital.kill();
    ward.answer("500");
    ward.up();
    hospital.start();
    until("the receiver refuses", || !ward.got().is_empty());
    hospital.kill();
    ward.answer("204");
    // The ledger is a view: what was told and said is in the logs.
    std::fs::remove_dir_all(hospital.data().join("ledger")).expect("a ledger");
    hospital.start();
    let told = || abouts(&ward).iter().filter(|about| *about == "critical-result").count();
    until("the notices arrive", || told() >= 2);
    let report = id(&listed(hospital, false)[0]);
    ok(hospital, &["critical", "ack", &report, "--by", "鈴木"]);
    hospital.kill();
    reading.kill();
    hospital.start();
    reading.start();
    until("the reading centre hears of it", || state(reading) == "acknowledged");
    assert_eq!(state(hospital), "acknowledged");
    let row = listed(hospital, true).remove(0);
    let critical = |d: &&Value| d["about"][0] == "critical-result";
    let ids: BTreeSet<String> =
        ward.documents().iter().filter(critical).map(|d| d["id"].to_string()).collect();
    assert_eq!(Some(ids.len() as u64), row["notices"].as_u64(), "{ids:?} {row}");
    ok(hospital, &["critical", "close", &report, "--done", "seen"]);
    hospital.kill();
    hospital.start();
    until("the reading centre hears of the end", || state(reading) == "closed");
    until("the loop is closed at both ends", || {
        [hospital, reading].iter().all(|node| moments(node, &study).is_empty())
    });
}

#[test]
fn codes_titles_and_people_call_a_report_critical_and_it_overtakes_all_others() {
    let site = Site::new();
    let ward = Receiver::start(&site, "web", &[]);
    let (mut centre, mut portal) = (None, None);
    let circle = Circle::start_with(
        &site,
        |plan| {
            let (plan, caller) = Caller::at(plan, &site, READING);
            centre = Some(caller);
            plan.set("reports.critical", "titles = [\"至急\"]")
        },
        |plan| {
            let (plan, caller) = Caller::at(plan, &site, HOSPITAL);
            portal = Some(caller);
            rung(posts(plan, "ward", &ward, &["question-asked"]), "0s", "ward")
        },
    );
    let (centre, portal) = (centre.expect("a caller"), portal.expect("a caller"));
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let studies: Vec<String> = (0..4).map(|_| new_study()).collect();
    let routine_study = new_study();
    let orders = ["P1", "P2", "P3", "P4", "P5"];
    for (study, number) in studies.iter().chain([&routine_study]).zip(orders) {
        circle.study(&Order { study, number, ..Order::default() }, 1);
    }
    hospital.kill();
    // More than are on their way at once.
    let many = |n: usize| {
        let (at, line) = (format!("202611281015{n:02}+0900"), format!("{n} words ").repeat(20_000));
        let (id, order) = (format!("many-{n}"), "P5");
        Said { id: &id, status: "P", order, text: &line, at: &at, ..Said::of(&routine_study) }
            .write()
    };
    let many: Vec<Vec<u8>> = (0..50).map(many).collect();
    let all: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    assert_eq!(circle.report(&all), ["AA"; 50]);
    let routine = |n: usize| Said { order: orders[n], text: "c", ..Said::of(&studies[n]) }.write();
    let by_hand = [routine(2), routine(3)];
    assert_eq!(circle.report(&[&by_hand[0], &by_hand[1]]), ["AA", "AA"]);
    let title = Said { order: "P1", text: "a", ..Said::of(&studies[0]) }.write();
    let title = text(&title).replace("CT^Chest", "CT^Chest 至急");
    let code = Said { order: "P2", text: "b", ..Said::of(&studies[1]) }.write();
    let code = text(&code) + "OBX|3|CWE|X^Category||RID49480^Category 1^RadLex||||||F\r";
    assert_eq!(circle.report(&[title.as_bytes(), code.as_bytes()]), ["AA", "AA"]);
    until("all are matched", || {
        studies.iter().all(|study| circle.story(reading, study) != Value::Null)
    });
    assert_eq!(listed(reading, true).len(), 2);
    // By a person and by a program at the reading centre, while the hospital is away: before the
    // reports are there, too.
    let of = |n: usize| {
        circle.story(reading, &studies[n])["row"]["report"].as_str().expect("an id").to_owned()
    };
    ok(reading, &["critical", "flag", &of(2), "--why", "bleeding", "--by", "Dr A"]);
    let flagged = centre.post(&format!("/reports/{}/critical", of(3)), &json!({ "why": "mass" }));
    assert_eq!(flagged.code, 200, "{flagged:?}");
    reading.kill();
    reading.start();
    hospital.start();
    let told = ward.wait(4);
    let about: BTreeSet<&str> = told.iter().filter_map(|d| d["study"].as_str()).collect();
    assert_eq!(about, studies.iter().map(String::as_str).collect());
    let rows = portal.get("/critical").body;
    let reasons = rows.to_string();
    for reason in ["至急", "RID49480", "Dr A", "mass"] {
        assert!(reasons.contains(reason), "{reasons}");
    }
    until("all reports are there", || {
        let versions = |study| circle.story(hospital, study)["versions"].as_array().map(Vec::len);
        studies.iter().all(|study| versions(study) == Some(1))
    });
    // They came among the first of all.
    let log = hospital.log();
    for study in &studies[..2] {
        let version = circle.story(hospital, study)["versions"][0].clone();
        let document = version["documents"][0][0].as_str().expect("an id").to_owned();
        let at = log.find(&format!("a report has come document=\"{document}\"")).expect("a line");
        let before = log[..at].matches("status=Preliminary").count();
        assert!(before < 25, "{before} of 50 routine reports came first");
    }
    until("and none of the others is lost", || {
        let versions = circle.story(hospital, &routine_study)["versions"].as_array().map(Vec::len);
        versions == Some(50)
    });
    // A person, by name, and no other: at the hospital, and not at the reading centre.
    let report = of(3);
    let path = format!("/critical/{report}/acknowledge");
    let there = centre.post(&path, &json!({ "by": "鈴木" }));
    assert_eq!(
        (there.code, there.body.to_string().contains("at the hospital")),
        (422, true),
        "{there:?}"
    );
    assert_eq!(portal.post(&path, &json!({ "by": "" })).code, 422);
    assert_eq!(portal.post(&path, &json!({ "by": "鈴木" })).code, 200);
    let close = format!("/critical/{report}/close");
    let done = json!({ "by": "鈴木", "done": "手術" });
    assert_eq!(portal.post(&close, &done).code, 200);
    until("the reading centre hears of it", || {
        let rows = centre.get("/critical?all=true").body;
        let rows = rows.as_array().cloned().unwrap_or_default();
        let row = rows.iter().find(|row| row["report"] == report.as_str());
        row.is_some_and(|row| row["state"] == "closed" && row.to_string().contains("鈴木"))
    });
    assert_eq!(listed(hospital, false).len(), 3);
}

#[test]
fn rungs_signers_and_promises_that_are_read_again_count_for_what_is_open() {
    let site = Site::new();
    let ward = Receiver::start(&site, "web", &[]);
    let circle = Circle::start(&site, |plan| posts(plan, "ward", &ward, &["report-overdue"]));
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let study = new_study();
    circle.study(&Order { study: &study, ..Order::default() }, 1);
    let preliminary = Said { status: "P", flag: "AA", text: "a", ..Said::of(&study) }.write();
    assert_eq!(circle.report(&[&preliminary]), ["AA"]);
    until("it is open", || state(hospital) == "open");
    let reload = |node: &Node| {
        let said = node.ask(&["reload"]).to_string();
        assert!(!said.contains("stays"), "{said}");
    };
    hospital.edit(|plan| rung(plan, "0s", "ward"));
    reload(hospital);
    assert_eq!(ward.wait(1)[0]["about"], json!(["critical-result"]));
    hospital.edit(|plan| plan.set("reports.promises", "routine = \"1m\""));
    reload(hospital);
    until("it is overdue", || hospital.cli(&["overdue"]).status.code() == Some(4));
    until("that is told", || abouts(&ward).contains(&"report-overdue".to_owned()));
    // Final, and signed by nobody.
    let nobody = |text_of: &str, at| {
        let said = Said { text: text_of, at, id: at, ..Said::of(&study) }.write();
        text(&said).replace("|D1&DOKUEI&ICHIRO", "|").into_bytes()
    };
    let first = nobody("b", "20261128111500+0900");
    assert_eq!(circle.report(&[&first]), ["AA"]);
    until("it is held", || reading.ask(&["reports", "--held"]).as_array().map(Vec::len) == Some(1));
    reading.edit(|plan| plan.table("reports.signing", "unsigned = true"));
    reload(reading);
    let second = nobody("c", "20261128121500+0900");
    assert_eq!(circle.report(&[&second]), ["AA"]);
    until("the next one goes home", || circle.story(hospital, &study)["row"]["status"] == "final");
    assert_eq!(reading.ask(&["reports", "--held"]).as_array().map(Vec::len), Some(1));
    until("nothing is overdue", || hospital.cli(&["overdue"]).status.code() == Some(0));
}
