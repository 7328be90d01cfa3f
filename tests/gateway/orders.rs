//! Orders into a node, studies that match them or do not, and what a node says of both.

use serde_json::Value;

use crate::foreign::Scp;
use crate::hl7::{Order, Ris, code, sample, samples};
use crate::sender::{new_study, send_study};
use crate::site::{Node, Plan, Site, text, until};

fn plan(site: &Site) -> Plan {
    site.lone().orders().folder_destination("folder").route_all("folder")
}

/// The one order of this number.
fn order(node: &Node, number: &str) -> Value {
    let orders = node.ask(&["order", "show", number]);
    assert_eq!(orders.as_array().map(Vec::len), Some(1), "{orders}");
    orders[0].clone()
}

/// The one case of a study.
fn case(node: &Node, study: &str) -> Value {
    let found = node.ask(&["study", study]);
    assert_eq!(found["cases"].as_array().map(Vec::len), Some(1), "{found}");
    found["cases"][0].clone()
}

/// What `hikyaku missing --json` lists, and its exit code.
fn missing(node: &Node) -> (Vec<Value>, Option<i32>) {
    let output = node.cli(&["missing", "--json"]);
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (rows.as_array().expect("a list").clone(), output.status.code())
}

/// Headlines and studies of the missing list.
fn headlines(node: &Node) -> Vec<(String, Value)> {
    let (rows, _) = missing(node);
    let headline = |r: &Value| r["headline"].as_str().unwrap_or_default().to_owned();
    rows.iter().map(|r| (headline(r), r["study"].clone())).collect()
}

fn wait_headline(node: &Node, study: &str, wanted: Option<&str>) {
    until(&format!("{study} is {wanted:?}"), || {
        let found = headlines(node).into_iter().find(|(_, s)| s == study).map(|(h, _)| h);
        found.as_deref() == wanted
    });
}

#[test]
fn an_order_that_was_acknowledged_is_there_after_a_kill_and_its_message_gets_the_same_answer() {
    let site = Site::new();
    let node = plan(&site).start();
    for n in 0..5 {
        let (id, number) = (format!("M{n}"), format!("P{n}"));
        let message = Order { id: &id, number: &number, accession: "A1", ..Order::default() };
        let answer = Ris::connect(&node).send(message.write().as_bytes());
        assert_eq!(code(&answer), "AA");
        node.kill();
        node.start();
        let shown = order(&node, &number);
        assert_eq!(shown["content"]["accession"]["id"], "A1", "{shown}");
        assert_eq!(shown["content"]["patient"]["ids"][0]["authority"]["namespace"], "SITE");
        let again = Ris::connect(&node).send(message.write().as_bytes());
        assert_eq!(text(&again), text(&answer), "byte for byte");
        assert_eq!(order(&node, &number)["version"], shown["version"]);
    }
    assert_eq!(node.ask(&["orders"]).as_array().map(Vec::len), Some(5));
}

#[test]
fn a_control_id_that_comes_again_with_another_order_loses_nothing() {
    let site = Site::new();
    let node = plan(&site).start();
    let mut ris = Ris::connect(&node);
    assert_eq!(ris.ask(&Order::default().write()), "AA");
    assert_eq!(ris.ask(&Order { number: "P2", ..Order::default() }.write()), "AA");
    let other = Order { number: "P2", accession: "A2", ..Order::default() };
    assert_eq!(ris.ask(&other.write()), "AA");
    assert_eq!(order(&node, "P1")["state"], "requested");
    assert_eq!(order(&node, "P2")["content"]["accession"]["id"], "A2");
}

#[test]
fn messages_of_other_people_are_taken_or_refused_and_japanese_text_survives() {
    let site = Site::new();
    let node = plan(&site).start();
    let mut ris = Ris::connect(&node);
    let mut codes = std::collections::BTreeMap::<String, u32>::new();
    for path in samples() {
        let mut message = sample(&path);
        if path.starts_with("japanese") {
            message.pop();
        }
        if message.iter().any(|b| matches!(b, 0x0B | 0x1C)) {
            continue;
        }
        let answer = code(&ris.send(&message));
        *codes.entry(answer).or_default() += 1;
    }
    assert!(codes["AA"] > 3, "{codes:?}");
    assert!(codes["AR"] > 10, "{codes:?}");
    let japanese = samples().into_iter().find(|p| p.contains("OMG-01")).expect("a sample");
    let orders = node.ask(&["orders"]);
    assert!(!orders.as_array().expect("a list").is_empty(), "{japanese}");
    let number = "000201101200100";
    if let Some(shown) = node
        .ask(&["orders"])
        .as_array()
        .and_then(|all| all.iter().find(|o| o["order"] == number).cloned())
    {
        let shown = order(&node, shown["order"].as_str().expect("a number"));
        let names = shown["content"]["patient"]["names"].to_string();
        assert!(names.chars().any(|c| ('\u{4e00}'..'\u{9fff}').contains(&c)), "{names}");
    }
    // Nothing of what came stands in a log or a metric.
    let log = node.log();
    assert!(!log.contains("PID|") && !log.contains("YAMADA"), "{log}");
}

#[test]
fn a_study_meets_its_order_whichever_comes_first_and_a_silence_presumes_it_complete() {
    let site = Site::new();
    let node = plan(&site).set("orders", "settle = \"1s\"\nquiet = \"2s\"").start();
    let (first, second) = (new_study(), new_study());
    let mut ris = Ris::connect(&node);
    assert_eq!(ris.ask(&Order { study: &first, ..Order::default() }.write()), "AA");
    send_study(&node, &first, 1..4);
    send_study(&node, &second, 1..4);
    // Nobody has ordered the second study, so far.
    wait_headline(&node, &second, Some("no-order"));
    until("the metric says so", || node.metric("hikyaku_unmatched_studies", &[]) > 0.5);
    assert_eq!(case(&node, &first)["matched"]["order"]["number"], "P1");
    let order2 = Order { id: "2", number: "P2", study: &second, ..Order::default() };
    assert_eq!(ris.ask(&order2.write()), "AA");
    wait_headline(&node, &second, None);
    until("both are presumed complete", || {
        [&first, &second]
            .iter()
            .all(|s| case(&node, s)["standing"]["progress"] == "presumed-complete")
    });
    assert_eq!(missing(&node), (vec![], Some(0)));
    // It is known after a restart, and told in the order of time.
    node.restart();
    let story = case(&node, &first)["story"].clone();
    let kinds: Vec<&str> =
        story.as_array().expect("a story").iter().filter_map(|e| e["kind"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&"order"), "{story}");
    assert!(kinds.contains(&"image") && kinds.contains(&"verdict"), "{story}");
}

#[test]
fn an_order_without_images_is_overdue_until_it_is_cancelled() {
    let site = Site::new();
    let node = plan(&site).set("orders", "overdue = \"1s\"").start();
    let mut ris = Ris::connect(&node);
    let due = Order { scheduled: "202001010900", ..Order::default() };
    assert_eq!(ris.ask(&due.write()), "AA");
    until("it is overdue", || missing(&node).0.len() == 1);
    let (rows, exit) = missing(&node);
    assert_eq!((&rows[0]["headline"], exit), (&"overdue".into(), Some(4)), "{rows:?}");
    assert_eq!(rows[0]["order"], "P1");
    until("the metric says so", || node.metric("hikyaku_orders", &["state=\"overdue\""]) > 0.5);
    assert_eq!(ris.ask(&Order { id: "2", control: "CA", ..Order::default() }.write()), "AA");
    assert_eq!(missing(&node), (vec![], Some(0)));
    assert_eq!(order(&node, "P1")["state"], "cancelled");
    // Images that come all the same are shown to a person.
    let study = new_study();
    let again = Order { id: "3", control: "XO", study: &study, ..Order::default() };
    assert_eq!(ris.ask(&again.write()), "AA");
    send_study(&node, &study, 1..2);
    wait_headline(&node, &study, Some("cancelled-with-images"));
}

#[test]
fn another_patient_under_an_order_is_a_mismatch_until_a_person_links_or_the_ris_mends_it() {
    let site = Site::new();
    let node = plan(&site).start();
    let (wrong, merged) = (new_study(), new_study());
    let mut ris = Ris::connect(&node);
    let of = |id, number, study, patient| {
        Order { id, number, study, patient, ..Order::default() }.write()
    };
    assert_eq!(ris.ask(&of("1", "P1", &wrong, "4711")), "AA");
    assert_eq!(ris.ask(&of("2", "P2", &merged, "4712")), "AA");
    send_study(&node, &wrong, 1..2);
    send_study(&node, &merged, 1..2);
    wait_headline(&node, &wrong, Some("patient-mismatch"));
    wait_headline(&node, &merged, Some("patient-mismatch"));
    // The RIS says that 4712 is ORACLE.
    let merge = "MSH|^~\\&|RIS|EAST|HIKYAKU|X|||ADT^A40^ADT_A39|9|P|2.5\rPID|||ORACLE\rMRG|4712\r";
    assert_eq!(ris.ask(merge), "AA");
    wait_headline(&node, &merged, None);
    // A person says that the other study belongs to no order.
    assert!(node.cli(&["link", &wrong, "P2"]).status.success());
    wait_headline(&node, &wrong, None);
    assert_eq!(node.cli(&["link", &wrong, "NOBODY"]).status.code(), Some(1));
    assert!(node.log().contains("study linked"), "it is audited");
    node.restart();
    assert_eq!(case(&node, &wrong)["matched"]["by"], "person");
}

#[test]
fn a_person_enters_and_cancels_an_order_by_hand() {
    let site = Site::new();
    let node = plan(&site).start();
    let study = new_study();
    let words = ["order", "add", "BY-HAND", "--study", &study, "--patient-id", "ORACLE"];
    assert!(node.cli(&words).status.success());
    send_study(&node, &study, 1..2);
    until("it is matched", || case(&node, &study)["matched"]["match"] == "order");
    assert_eq!(order(&node, "BY-HAND")["studies"][0]["study"], study.as_str());
    let shown = text(&node.cli(&["order", "show", "BY-HAND"]).stdout);
    assert!(shown.contains("requested") && shown.contains("ORACLE"), "{shown}");
    let time = ["order", "add", "X", "--scheduled", "tomorrow"];
    assert_eq!(node.cli(&time).status.code(), Some(1));
    assert!(node.cli(&["order", "cancel", "BY-HAND", "--reason", "by telephone"]).status.success());
    assert_eq!(order(&node, "BY-HAND")["state"], "cancelled");
    assert_eq!(node.cli(&["order", "cancel", "OTHER"]).status.code(), Some(1));
    // The pages for everybody count, and name nobody.
    let status = node.status();
    assert!(status["orders"]["attention"].as_u64().is_some(), "{status}");
    assert!(!status.to_string().contains("ORACLE"));
}

#[test]
fn a_node_without_orders_says_so() {
    let site = Site::new();
    let node = site.lone().folder_destination("folder").route_all("folder").start();
    let output = node.cli(&["missing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("[orders]"), "{}", text(&output.stderr));
}

#[test]
fn images_wait_for_their_order_where_the_route_says_so_and_go_by_themselves_when_it_comes() {
    let site = Site::new();
    let route = "name = \"wait\"\nto = [\"folder\"]\nhold = \"until-matched\"";
    std::fs::create_dir(site.path().join("folder")).expect("a folder");
    let node = site.lone().orders().folder_destination("folder").table("route", route).start();
    let study = new_study();
    send_study(&node, &study, 1..4);
    node.wait_count("folder", "held", 3);
    wait_headline(&node, &study, Some("no-order"));
    node.kill();
    node.start();
    node.wait_count("folder", "held", 3);
    let order = Order { study: &study, ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&order.write()), "AA");
    node.wait_count("folder", "receipted", 3);
    // What comes later goes at once, too.
    send_study(&node, &study, 4..6);
    node.wait_count("folder", "receipted", 5);
}

#[test]
fn a_route_that_a_reload_makes_wait_sends_what_is_matched_and_what_a_person_links_to_no_order() {
    let site = Site::new();
    let route = |more: &str| format!("name = \"wait\"\nto = [\"folder\"]\n{more}");
    std::fs::create_dir(site.path().join("folder")).expect("a folder");
    let plan = site.lone().orders().folder_destination("folder");
    let node = plan.clone().table("route", &route("")).start();
    node.edit(|_| plan.table("route", &route("hold = \"until-matched\"")));
    let said = node.ask(&["reload"]).to_string();
    assert!(said.contains("applied"), "{said}");
    let (matched, alone) = (new_study(), new_study());
    send_study(&node, &matched, 1..4);
    send_study(&node, &alone, 1..3);
    node.wait_count("folder", "held", 5);
    let order = Order { study: &matched, ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&order.write()), "AA");
    node.wait_count("folder", "receipted", 3);
    node.wait_count("folder", "held", 2);
    assert!(node.cli(&["link", &alone, "none"]).status.success());
    node.wait_count("folder", "receipted", 5);
    send_study(&node, &alone, 3..4);
    node.wait_count("folder", "receipted", 6);
}

#[test]
fn another_patients_images_are_held_until_a_person_releases_or_links_them() {
    let site = Site::new();
    // The PACS is down: nothing leaves before the verdict.
    let pacs = Scp::down(&site, &[]);
    let node =
        site.lone().orders().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let study = new_study();
    let order = Order { study: &study, patient: "4711", ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&order.write()), "AA");
    send_study(&node, &study, 1..4);
    node.wait_count("pacs", "held", 3);
    let duties = node.ask(&["queue", "list", "--state", "held"]);
    assert_eq!(duties[0]["duties"][0]["reason"], "patient-mismatch", "{duties}");
    pacs.up();
    // What a person releases is not held again.
    let cargo = duties[0]["cargo"].to_string();
    assert!(node.cli(&["queue", "release", "--cargo", &cargo]).status.success());
    node.wait_count("pacs", "receipted", 1);
    node.restart();
    send_study(&node, &study, 4..5);
    node.wait_count("pacs", "held", 3);
    assert_eq!(node.count("pacs", "receipted"), 1);
    assert!(node.cli(&["link", &study, "P1"]).status.success());
    node.wait_count("pacs", "receipted", 4);
}
