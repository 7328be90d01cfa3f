//! What both sides owe and ask each other: notes, receipts, promises, and what a HIS answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::Caller;
use crate::circle::{Circle, Said, his, moments};
use crate::critical::posts;
use crate::hl7::{Order, Ris};
use crate::receiver::Receiver as His;
use crate::receivers::Receiver;
use crate::sender::{new_study, send_study};
use crate::site::{HOSPITAL, Node, READING, Site, text, until};

/// What was told about a study, in one word each, repeated ones once.
fn abouts(receiver: &Receiver, study: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut all = receiver.documents();
    all.retain(|d| d["study"] == study && seen.insert(d["id"].to_string()));
    all.iter().map(|d| d["about"][0].as_str().unwrap_or_default().to_owned()).collect()
}

fn notes(node: &Node, words: &[&str]) -> Vec<Value> {
    node.ask(&[&["notes"], words].concat()).as_array().cloned().unwrap_or_default()
}

#[test]
fn a_question_and_its_answer_arrive_in_spite_of_outages_and_kills_and_stand_with_the_study() {
    let site = Site::new();
    let (ward, centre) = (Receiver::start(&site, "web", &[]), Receiver::start(&site, "web", &[]));
    let mut portal = None;
    let circle = Circle::start_with(
        &site,
        |plan| posts(plan, "centre", &centre, &["question-asked"]),
        |plan| {
            let (plan, caller) = Caller::at(plan, &site, HOSPITAL);
            portal = Some(caller);
            posts(plan, "ward", &ward, &["question-asked", "study-received"])
        },
    );
    let portal = portal.expect("a caller");
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let study = new_study();
    circle.study(&Order { study: &study, ..Order::default() }, 3);
    until("the receipt is told", || abouts(&ward, &study) == ["study-received"]);
    let receipt = ward.documents().remove(0);
    assert!(receipt["reasons"].to_string().contains("3 images"), "{receipt}");

    // Asked while the hospital is away; the reading node dies right after its yes.
    hospital.kill();
    let asked = reading.ask(&["note", &study, "SECRETWORD 側はどちら?", "--by", "Dr A"]);
    reading.kill();
    let question = asked["id"].as_str().expect("an id").to_owned();
    reading.start();
    hospital.start();
    until("the question is there", || notes(hospital, &[]).len() == 1);
    hospital.kill();
    hospital.start();
    let there = notes(hospital, &[&study]).remove(0);
    assert_eq!(
        (&there["words"]["id"], &there["words"]["text"], &there["from"]),
        (&json!(question), &json!("SECRETWORD 側はどちら?"), &json!(READING))
    );
    assert!(there["words"]["by"].as_str().is_some_and(|by| by.starts_with("Dr A")), "{there}");
    until("it is told", || abouts(&ward, &study) == ["study-received", "question-asked"]);
    assert!(!format!("{:?}", ward.got()).contains("SECRETWORD"), "without its words");
    assert!(portal.get("/notes").body.to_string().contains(&question));

    let answered = hospital.ask(&["note", &study, "左です", "--answers", &question]);
    hospital.kill();
    hospital.start();
    until("the answer is there", || notes(reading, &[&study]).len() == 2);
    for node in [hospital, reading] {
        assert_eq!(notes(node, &[]), Vec::<Value>::new(), "no question is open");
        let all = notes(node, &[&study]);
        assert_eq!(
            (&all[0]["is_answered"], all[1]["words"]["answers"].as_str()),
            (&json!(true), Some(&*question))
        );
        assert_eq!(all[1]["words"]["id"], answered["id"]);
        let shown = text(&node.cli(&["study", &study]).stdout);
        assert!(shown.contains("question, answered") && shown.contains("左です"), "{shown}");
        assert!(!node.log().contains("SECRETWORD") && !node.log().contains("左です"));
    }
    // The hospital asks, by the API; what answers nothing is refused.
    let ask = json!({ "study": study, "text": "いつですか", "by": "受付" });
    let asked = portal.post("/notes", &ask);
    assert_eq!(asked.code, 201, "{asked:?}");
    until("the reading centre is told", || abouts(&centre, &study) == ["question-asked"]);
    let wrong =
        json!({ "study": study, "text": "x", "answers": "00000000000000000000000000000000" });
    assert_eq!(portal.post("/notes", &wrong).code, 404);
    let elsewhere = reading.cli(&["note", &new_study(), "x"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    let listed = portal.get(&format!("/notes?study={study}")).body;
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    assert_eq!((abouts(&ward, &study).len(), abouts(&centre, &study).len()), (2, 1), "once each");
}

/// What of a study is overdue, as a node lists it.
fn overdue(node: &Node, study: &str) -> Vec<String> {
    let output = node.cli(&["overdue", "--json"]);
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let rows = rows.as_array().cloned().unwrap_or_default();
    assert_eq!(output.status.code(), Some(if rows.is_empty() { 0 } else { 4 }), "{rows:?}");
    let row = rows.into_iter().find(|row| row["study"] == study).unwrap_or_default();
    let all = row["overdue"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|o| o[1].as_str().map(str::to_owned)).collect()
}

#[test]
fn what_is_promised_is_told_once_when_it_is_overdue_and_settled_when_it_comes() {
    let site = Site::new();
    let (ward, receiver) = (Receiver::start(&site, "web", &[]), His::down());
    let mut portal = None;
    let circle = Circle::start(&site, |plan| {
        let (plan, caller) = Caller::at(plan, &site, HOSPITAL);
        portal = Some(caller);
        let promises = "receipt = \"1m\"\nroutine = \"1m\"\nacknowledgement = \"1m\"";
        let plan = plan.set("reports.promises", promises);
        let about = ["report-overdue", "report-unacknowledged"];
        his(posts(plan, "ward", &ward, &about), receiver.port(), "")
    });
    let portal = portal.expect("a caller");
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let [study, cancelled, dismissed, late] = [0; 4].map(|_| new_study());
    reading.kill();
    let numbers = ["P1", "P2", "P3", "P4"];
    let studies = [&study, &cancelled, &dismissed, &late];
    for (study, number) in studies.into_iter().zip(numbers) {
        let order = Order { id: number, study, number, ..Order::default() };
        assert_eq!(Ris::connect(hospital).ask(&order.write()), "AA");
        send_study(hospital, study, 1..3);
    }
    let cancel = |number: &str| {
        let output = hospital.cli(&["order", "cancel", number, "--reason", "no"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    until("they have loops", || studies.iter().all(|study| !moments(hospital, study).is_empty()));
    cancel("P2");
    let output = hospital.cli(&["report", "dismiss", &dismissed]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(moments(hospital, &dismissed).is_empty());
    let both = ["receipt", "report"];
    until("receipt and report are overdue", || overdue(hospital, &study) == both);
    until("they are told", || {
        abouts(&ward, &study) == ["report-overdue"; 2] && abouts(&ward, &late).len() == 2
    });
    let shown = text(&hospital.cli(&["overdue", "--language", "ja"]).stdout);
    assert!(shown.contains("OVERDUE") && !shown.contains("ORACLE"), "{shown}");
    let rows = portal.get("/overdue").body;
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    until("it is counted", || {
        hospital.metric("hikyaku_reports_overdue", &["owed=\"receipt\""]) == 2.0
    });
    assert!(abouts(&ward, &cancelled).is_empty() && abouts(&ward, &dismissed).is_empty());
    // What was told already ends with its order, too.
    cancel("P4");
    hospital.kill();
    hospital.start();
    until("a cancelled order ends it", || overdue(hospital, &late).is_empty());
    reading.start();
    until("it is received", || moments(hospital, &study).contains(&"received".to_owned()));
    assert_eq!(circle.report(&[&Said { text: "a", ..Said::of(&study) }.write()]), ["AA"]);
    until("it is read", || moments(hospital, &study).contains(&"final".to_owned()));
    assert_eq!(overdue(hospital, &study), Vec::<String>::new());
    until("the acknowledgement is overdue", || overdue(hospital, &study) == ["acknowledgement"]);
    let all = ["report-overdue", "report-overdue", "report-unacknowledged"];
    until("that is told", || abouts(&ward, &study) == all);
    receiver.up(&[]);
    receiver.wait(1);
    until("it is settled", || {
        [hospital, reading].iter().all(|node| moments(node, &study).is_empty())
    });
    assert_eq!(overdue(hospital, &study), Vec::<String>::new());
    let count = "hikyaku_report_turnaround_seconds_count";
    let labels =
        ["route=\"everything\"", "urgency=\"routine\"", "from=\"sent\"", "to=\"acknowledged\""];
    hospital.reaches(count, &labels, 0.5);
    assert_eq!(abouts(&ward, &study), all, "once each");
    assert_eq!(abouts(&ward, &late).len(), 2);
}

#[test]
fn what_a_his_cannot_take_now_is_tried_again_with_its_reason_and_what_it_refuses_waits_for_a_person()
 {
    let site = Site::new();
    let ward = Receiver::start(&site, "web", &[]);
    // Its own words may be a patient's, and are told nowhere.
    let error = ["--text", "SECRETWORD is not known", "--error", "PID^1^3|204"];
    let receiver = His::start(&[&["--answers", "AE"], &error[..]].concat());
    let circle = Circle::start(&site, |plan| {
        let plan = posts(plan, "ward", &ward, &["report-unacknowledged"]);
        his(plan.set("reports", "alarm = \"1m\""), receiver.port(), "")
    });
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let study = new_study();
    circle.study(&Order { study: &study, ..Order::default() }, 1);
    assert_eq!(circle.report(&[&Said { text: "a", ..Said::of(&study) }.write()]), ["AA"]);
    receiver.wait(2);
    let state = |node: &Node| {
        let row = circle.story(node, &study)["row"].clone();
        row["destinations"][0][1].as_str().unwrap_or_default().to_owned()
    };
    let report =
        circle.story(hospital, &study)["row"]["report"].as_str().expect("an id").to_owned();
    let shown = || text(&hospital.cli(&["report", "show", &report]).stdout);
    let reason = "AE 204 (unknown key identifier) at PID-3";
    until("its reason is shown", || shown().contains(reason));
    assert_eq!(state(hospital), "sent");
    let queue = text(&hospital.cli(&["queue", "list", "--destination", "his"]).stdout);
    assert!(queue.contains(reason), "{queue}");
    until("people are told that no yes comes", || {
        abouts(&ward, &study) == ["report-unacknowledged"]
    });
    until("it is counted", || hospital.metric("hikyaku_reports_unacknowledged", &[]) == 1.0);
    receiver.change(&[&["--answers", "AR"], &error[..]].concat());
    until("it is refused", || state(hospital) == "refused");
    assert!(shown().contains("AR 204"), "{}", shown());
    until("the reading centre hears of it", || state(reading) == "refused");
    assert_eq!(hospital.count("his", "quarantined"), 1);
    let tries = receiver.told().len();
    // Again by a person: refused again, and then taken.
    let again = hospital.cli(&["report", "again", &report]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    until("it is refused again", || {
        receiver.told().len() > tries && hospital.count("his", "quarantined") == 1
    });
    receiver.change(&[]);
    let release = ["queue", "retry", "--destination", "his", "--state", "quarantined"];
    let released = hospital.cli(&release);
    assert!(released.status.success(), "{}", text(&released.stderr));
    until("it is taken", || state(hospital) == "accepted");
    until("the reading centre hears of that", || state(reading) == "accepted");
    until("the loop is closed at both ends", || {
        [hospital, reading].iter().all(|node| moments(node, &study).is_empty())
    });
    let ids: BTreeSet<String> = receiver.told().into_iter().map(|told| told.id).collect();
    assert_eq!(ids.len(), 1, "one message, whatever was tried: {ids:?}");
    assert_eq!(abouts(&ward, &study).len(), 1, "once");
    assert!(![hospital, reading].iter().any(|node| node.log().contains("SECRETWORD")));
    assert!(!shown().contains("SECRETWORD"));
    until("none is counted", || hospital.metric("hikyaku_reports_unacknowledged", &[]) == 0.0);
}

#[test]
fn after_its_time_somebody_is_to_ask_what_became_of_a_patient_and_it_is_told_by_number_only() {
    let site = Site::new();
    let (office, receiver) = (Receiver::start(&site, "web", &[]), His::down());
    let circle = Circle::start_with(
        &site,
        |plan| {
            let plan = plan.set("reports.promises", "follow_up = \"1m\"");
            posts(plan, "office", &office, &["follow-up-due"])
        },
        |plan| his(plan, receiver.port(), ""),
    );
    receiver.up(&[]);
    let study = new_study();
    circle.study(&Order { study: &study, ..Order::default() }, 1);
    assert_eq!(circle.report(&[&Said { text: "a", ..Said::of(&study) }.write()]), ["AA"]);
    let reading = &circle.reading;
    until("all is acknowledged", || {
        moments(&circle.hospital, &study).is_empty()
            && moments(reading, &study).last().is_some_and(|m| m == "acknowledged")
    });
    reading.kill();
    reading.start();
    until("it is time", || overdue(reading, &study) == ["follow-up"]);
    until("it is told", || abouts(&office, &study) == ["follow-up-due"]);
    let told = office.got()[0]["body"].to_string();
    assert!(!told.contains("ORACLE") && !told.contains("DOKUEI"), "{told}");
    assert!(reading.cli(&["report", "dismiss", &study]).status.success());
    assert!(moments(reading, &study).is_empty());
    assert_eq!(reading.cli(&["overdue"]).status.code(), Some(0));
}
