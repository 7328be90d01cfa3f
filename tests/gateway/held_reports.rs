//! Reports of which it is not sure whose they are, or who has signed them: held, shown, and decided
//! by people. And reports by the API, from the reading centre home.

use serde_json::{Value, json};

use crate::api::Caller;
use crate::circle::{Circle, Said};
use crate::critical::posts;
use crate::hl7::Order;
use crate::receivers::Receiver;
use crate::sender::new_study;
use crate::site::{HOSPITAL, Node, READING, Site, text, until};

fn held(node: &Node) -> Vec<Value> {
    node.ask(&["reports", "--held"]).as_array().cloned().unwrap_or_default()
}

fn ok(node: &Node, words: &[&str]) -> String {
    let output = node.cli(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// How many documents of a study's reports a node has.
fn documents(node: &Node, study: &str) -> usize {
    let output = node.cli(&["report", "show", study, "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let stories = told.as_array().cloned().unwrap_or_default();
    let versions =
        stories.iter().flat_map(|s| s["versions"].as_array().cloned().unwrap_or_default());
    versions.map(|v| v["documents"].as_array().map_or(0, Vec::len)).sum()
}

#[test]
fn every_doubt_holds_a_report_without_patient_data_until_a_person_decides() {
    let site = Site::new();
    let centre = Receiver::start(&site, "web", &[]);
    let mut caller = None;
    let circle = Circle::start_with(
        &site,
        |plan| {
            let (plan, api) = Caller::at(plan, &site, READING);
            caller = Some(api);
            let plan = posts(plan, "centre", &centre, &["report-held"]);
            plan.table("reports.signing", "allow = [{ id = \"D1\" }]")
        },
        |plan| plan,
    );
    let caller = caller.expect("a caller");
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let (one, two) = (new_study(), new_study());
    for (study, number) in [(&one, "P1"), (&two, "P2")] {
        circle.study(&Order { id: number, study, number, accession: "A1", ..Order::default() }, 1);
    }
    // Each names a doubt in OBX-5, so that it is told apart.
    let nobody = new_study();
    let said = |study: &str, order: &str, doubt: &str| {
        text(&Said { order, text: doubt, id: doubt, ..Said::of(study) }.write())
    };
    let with_accession = |message: String, accession: &str| {
        message.replace(
            "||CT^Chest||||||||||||||||||",
            &format!("||CT^Chest||||||||||||||{accession}||||"),
        )
    };
    let without_study = |message: String| {
        let lines = message.split_inclusive('\r').filter(|line| !line.contains("113014"));
        lines.collect::<String>()
    };
    let messages = [
        ("no-match", said(&nobody, "P9", "no-match")),
        ("several-match", with_accession(without_study(said(&one, "", "several-match")), "A1")),
        ("patient-differs", said(&one, "P1", "patient-differs").replace("ORACLE", "SOMEBODYELSE")),
        ("number-differs", with_accession(said(&one, "P1", "number-differs"), "A9")),
        ("unsigned", said(&one, "P1", "unsigned").replace("D1&DOKUEI&ICHIRO", "")),
        ("unknown-signer", said(&one, "P1", "unknown-signer").replace("D1&DOKUEI", "D9&YOSO")),
    ];
    let mut waits = Vec::new();
    for (n, (doubt, message)) in messages.iter().enumerate() {
        assert_eq!(circle.report(&[message.as_bytes()]), ["AA"], "{doubt}");
        until(&format!("{doubt} is held"), || held(reading).len() == n + 1);
        let known: Vec<&Value> =
            waits.iter().map(|(_, row): &(_, Value)| &row["document"]).collect();
        let new = held(reading).into_iter().find(|row| !known.contains(&&row["document"]));
        let new = new.expect("a new one");
        waits.push((*doubt, new));
    }
    let row = |doubt: &str| &waits.iter().find(|(d, _)| *d == doubt).expect("a row").1;
    let document = |doubt: &str| row(doubt)["document"].as_str().expect("an id").to_owned();
    for (doubt, row) in &waits {
        assert_eq!(row["document"].as_str().map(str::len), Some(32), "{doubt}: {row}");
        assert!(row["reason"]["en"].is_string() && row["reason"]["ja"].is_string(), "{row}");
    }
    let reason = |doubt: &str| row(doubt)["reason"]["en"].as_str().expect("words").to_owned();
    assert!(reason("no-match").contains("No study and no order"), "{}", reason("no-match"));
    assert!(reason("several-match").starts_with('2'), "{}", reason("several-match"));
    assert!(reason("patient-differs").contains("another patient"), "{}", reason("patient-differs"));
    assert!(reason("number-differs").contains("number"), "{}", reason("number-differs"));
    assert_ne!(reason("unsigned"), reason("unknown-signer"));
    let words = ok(reading, &["reports", "--held"]);
    let ja = ok(reading, &["reports", "--held", "--language", "ja"]);
    assert!(ja.contains("特定できません") && ja.contains("患者が一致しません"), "{ja}");
    until("they are counted", || reading.metric("hikyaku_reports_held", &[]) == 6.0);
    assert_eq!(reading.status()["reports"]["held"], 6);
    let told = centre.wait(6);
    assert!(told.iter().all(|d| d["about"] == json!(["report-held"])), "{told:?}");
    let shown = format!("{words}{ja}{told:?}{}{}", caller.get("/held").body, reading.log());
    for name in ["ORACLE", "SOMEBODYELSE", "DOKUEI", "YOSO"] {
        assert!(!shown.contains(name), "{name} stands in {shown}");
    }
    assert_eq!(documents(hospital, &one) + documents(hospital, &two), 0, "nothing went home");

    // What cannot be is refused; what is decided outlives a kill.
    let wrong = reading.cli(&["report", "release", &document("no-match")]);
    assert!(text(&wrong.stderr).contains("does not wait for that"), "{}", text(&wrong.stderr));
    let wrong = reading.cli(&["report", "match", &document("no-match"), "P99"]);
    assert!(text(&wrong.stderr).contains("no hospital"), "{}", text(&wrong.stderr));
    let wrong = reading.cli(&["report", "match", &document("no-match"), "A1"]);
    assert!(text(&wrong.stderr).contains("may be several"), "{}", text(&wrong.stderr));
    ok(reading, &["report", "release", &document("unsigned")]);
    ok(reading, &["report", "discard", &document("patient-differs"), "--reason", "another's"]);
    ok(reading, &["report", "match", &document("no-match"), "P1"]);
    reading.kill();
    reading.start();
    let post = |doubt: &str, what: &str, body: Value| {
        let answer = caller.post(&format!("/documents/{}/{what}", document(doubt)), &body);
        assert_eq!(answer.code, 200, "{doubt}: {answer:?}");
    };
    post("several-match", "match", json!({ "to": two }));
    post("unknown-signer", "release", json!({}));
    post("number-differs", "match", json!({ "to": format!("{HOSPITAL}/{one}") }));
    assert_eq!(held(reading), Vec::<Value>::new());
    until("what was matched and released is at home", || {
        documents(hospital, &one) == 4 && documents(hospital, &two) == 1
    });
    until("none is counted", || reading.metric("hikyaku_reports_held", &[]) == 0.0);
    let story = text(&reading.cli(&["report", "show", &two]).stdout);
    assert!(story.contains("matched by person") && story.contains("api/ris"), "{story}");
    // Twice decided is told so.
    let again = reading.cli(&["report", "release", &document("unsigned")]);
    assert!(text(&again.stderr).contains("does not wait"), "{}", text(&again.stderr));
    let again = reading.cli(&["report", "match", &document("patient-differs"), "P1"]);
    assert!(text(&again.stderr).contains("goes nowhere"), "{}", text(&again.stderr));
    assert_eq!(held(hospital), Vec::<Value>::new());
}

#[test]
fn a_report_that_is_posted_goes_home_and_both_nodes_show_it_under_the_id_that_was_answered() {
    let site = Site::new();
    let (mut centre, mut portal) = (None, None);
    let circle = Circle::start_with(
        &site,
        |plan| {
            let (plan, caller) = Caller::at(plan, &site, READING);
            centre = Some(caller);
            plan
        },
        |plan| {
            let (plan, caller) = Caller::at(plan, &site, HOSPITAL);
            portal = Some(caller);
            plan
        },
    );
    let (centre, portal) = (centre.expect("a caller"), portal.expect("a caller"));
    let (hospital, reading) = (&circle.hospital, &circle.reading);
    let study = new_study();
    circle.study(&Order { study: &study, accession: "A1", ..Order::default() }, 1);
    let pdf = "JVBERi0xLjQKJSVFT0YK";
    let words = "骨 像 本 表 ソ ﾊﾝｶｸ";
    let report = json!({
        "study": study, "accession": "A1", "patient": { "id": "ORACLE", "issuer": "SITE" },
        "status": "final", "signed_by": "Dokuei^Ichiro", "text": words, "pdf": pdf,
    });
    let posted = centre.post("/reports", &report);
    reading.kill();
    assert_eq!(posted.code, 201, "{posted:?}");
    let document = posted.body["document"].as_str().expect("an id").to_owned();
    assert_eq!(document.len(), 32);
    reading.start();
    for (node, caller) in [(reading, &centre), (hospital, &portal)] {
        until("it is there", || circle.story(node, &study) != Value::Null);
        let rows = caller.get(&format!("/reports?of={study}")).body;
        assert_eq!((&rows[0]["status"], rows.as_array().map(Vec::len)), (&json!("final"), Some(1)));
        let shown = caller.get(&format!("/reports/{}", rows[0]["report"].as_str().expect("an id")));
        assert_eq!(shown.body["versions"][0]["documents"][0][0], document.as_str(), "{shown:?}");
        let text_of = caller.get(&format!("/documents/{document}/text"));
        assert_eq!((text_of.code, text_of.body.as_str()), (200, Some(words)), "{text_of:?}");
        let pages = caller.get(&format!("/documents/{document}/pdf"));
        assert_eq!(pages.body.as_str(), Some("%PDF-1.4\n%%EOF\n"), "{pages:?}");
        assert_eq!(text(&node.cli(&["report", "text", &document]).stdout).trim_end(), words);
        let no = caller.post(&format!("/documents/{document}/release"), &json!({}));
        assert_eq!(no.code, 422, "{no:?}");
    }
    // One that names nothing that is known is held under the same id.
    let lost = json!({ "accession": "A7", "status": "preliminary", "text": "b" });
    let posted = centre.post("/reports", &lost);
    assert_eq!(posted.code, 201, "{posted:?}");
    let document = posted.body["document"].as_str().expect("an id").to_owned();
    until("it is held", || {
        held(reading).first().is_some_and(|row| row["document"] == document.as_str())
    });
    assert_eq!(centre.get("/held").body[0]["document"], document.as_str());
    let matched = centre.post(&format!("/documents/{document}/match"), &json!({ "to": "P1" }));
    assert_eq!(matched.code, 200, "{matched:?}");
    until("it goes home", || documents(hospital, &study) == 2);
    assert!(!reading.log().contains("ORACLE") && !reading.log().contains("骨"));
}
