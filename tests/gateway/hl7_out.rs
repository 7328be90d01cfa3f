//! Orders that reach a reading centre are handed to its RIS by HL7. The RIS is python-hl7.

use serde_json::Value;

use crate::hl7::{Order, Ris, code};
use crate::receiver::{Receiver, Told};
use crate::sender::{new_study, send_study};
use crate::site::{HOSPITAL, Node, Plan, Port, READING, Site, text, until};

/// 「骨画像　山本」 in ISO-2022-JP: its bytes contain `|` and `\`.
const KANJI: &[u8] = b"\x1b$B9|2hA|!!;3K\\\x1b(B";

fn ris(plan: Plan, name: &str, port: u16, more: &str) -> Plan {
    let body = format!(
        "name = {name:?}\nkind = \"hl7\"\naddress = \"127.0.0.1:{port}\"\nbackoff = \"1s\"\n\
         backoff_max = \"2s\"\nreceiving_application = \"READER\"\n{more}"
    );
    plan.table("destination", &body)
}

fn short() -> &'static str {
    "timeouts = { response = \"2s\" }"
}

/// A reading centre whose one rule names PACS and RIS.
fn reading(site: &Site) -> Plan {
    site.reading()
        .orders()
        .set("orders", "expected = false")
        .folder_destination("pacs")
        .table("route", "name = \"all\"\nto = [\"pacs\", \"ris\"]")
}

fn hospital(site: &Site, reading: &Node) -> Node {
    site.hospital(reading.port(Port::Tunnel)).orders().start()
}

/// A node that takes orders itself, and tells them to a RIS.
fn lone(site: &Site, port: u16, more: &str) -> Node {
    ris(site.lone().orders(), "ris", port, more).route_all("ris").start()
}

fn order(id: &str, control: &'static str, number: &'static str, accession: &'static str) -> String {
    Order { id, control, number, accession, ..Order::default() }.write()
}

fn ask(node: &Node, message: &str) {
    assert_eq!(Ris::connect(node).ask(message), "AA");
}

/// What `hikyaku order show` tells was said to receivers.
fn tellings(node: &Node, number: &str) -> Vec<String> {
    let shown = node.ask(&["order", "show", number]);
    let story = shown[0]["story"].as_array().cloned().unwrap_or_default();
    let of = |e: &Value| e["what"].as_str().unwrap_or_default().to_owned();
    story.iter().filter(|e| e["kind"] == "told").map(of).collect()
}

#[test]
fn an_order_reaches_the_ris_of_the_reading_centre_with_all_that_a_reader_must_know() {
    let site = Site::new();
    let (utf8, jis) = (Receiver::start(&[]), Receiver::start(&[]));
    let plan = ris(reading(&site), "ris", utf8.port(), "");
    let more = "charset = \"~ISO IR87\"\nmessage = \"OMG\"\nsending_facility = \"CENTRE\"";
    let plan = ris(plan, "ris-jis", jis.port(), more).route_all("ris-jis");
    let reading = plan.start();
    let hospital = hospital(&site, &reading);
    let study = new_study();
    let message = [
        &b"MSH|^~\\&|RIS|EAST|HIKYAKU|X|20261122120000||OMI^O23|1|P|2.5||||||~ISO IR87\r\
           PID|||ORACLE||YAMAMOTO^TARO^^^^^L^A~"[..],
        b"\x1b$B;3K\\\x1b(B^\x1b$BB@O:\x1b(B^^^^^L^I~\x1b$B$d$^$b$H\x1b(B^\x1b$B$?$m$&\x1b(B^^^^^L^P||19500101|M\r\
          AL1|1|DA|^Iodine|SV|rash\r\
          ORC|NW|P1|F1|||||||||||03-1234|||01^",
        KANJI,
        b"\rTQ1|1||||||202611221300+0900||S\r\
          OBR|1|P1|F1|B1^BONE^JJ1017|||||||||fell|||||A1||||||CT|||||||^",
        KANJI,
        format!("\rNTE|1||pacemaker\rIPC|A1|RP1|{study}|SP1|CT\r").as_bytes(),
    ]
    .concat();
    assert_eq!(code(&Ris::connect(&hospital).send(&message)), "AA");
    let (utf8_told, jis_told) = (utf8.wait(1)[0].clone(), jis.wait(1)[0].clone());
    for told in [&utf8_told, &jis_told] {
        let says = |name: &str| told.field(name).to_owned();
        assert_eq!(says("ORC-1"), "NW", "{told:?}");
        assert_eq!((says("ORC-2"), says("ORC-3")), ("P1^hospital".into(), "F1^hospital".into()));
        assert_eq!(says("PID-3"), "ORACLE^^^SITE");
        let names = "YAMAMOTO^TARO^^^^^L^A~山本^太郎^^^^^L^I~やまもと^たろう^^^^^L^P";
        assert_eq!((says("PID-5").as_str(), says("PID-7").as_str()), (names, "19500101"));
        assert_eq!(
            (says("OBR-31"), says("ORC-17")),
            ("^骨画像　山本".into(), "^骨画像　山本".into())
        );
        assert_eq!((says("OBR-13"), says("NTE-3")), ("fell".into(), "pacemaker".into()));
        assert_eq!(
            (says("AL1-3"), says("ORC-14")),
            ("^Iodine rash".into(), "^^^^^^^^^^^03-1234".into())
        );
        assert_eq!((says("OBR-4"), says("OBR-18")), ("B1^BONE^JJ1017".into(), "A1".into()));
        assert_eq!((says("TQ1-7"), says("TQ1-9")), ("20261122130000+0900".into(), "S".into()));
        assert_eq!((says("MSH-5"), says("ORC-21")), ("READER".into(), HOSPITAL.into()));
    }
    assert_eq!(utf8_told.field("MSH-9"), "OMI^O23^OMI_O23");
    assert_eq!(utf8_told.field("MSH-4"), READING);
    assert_eq!((utf8_told.field("IPC-3"), utf8_told.field("IPC-2")), (study.as_str(), "RP1"));
    assert_eq!((jis_told.field("MSH-9"), jis_told.field("MSH-4")), ("OMG^O19^OMG_O19", "CENTRE"));
    assert_eq!(
        (jis_told.field("MSH-18"), jis_told.field("ZDS-1")),
        ("~ISO IR87", format!("{study}^^Application^DICOM").as_str())
    );
    let exact: String = KANJI.iter().map(|b| format!("{b:02x}")).collect();
    assert!(jis_told.hex.contains(&exact), "{}", jis_told.hex);
    // Images go to the PACS, and to it alone; the RIS hears nothing twice.
    send_study(&hospital, &study, 1..4);
    reading.wait_count("pacs", "receipted", 3);
    reading.wait_count("ris", "receipted", 1);
    assert_eq!((utf8.told().len(), reading.count("ris", "owed")), (1, 0));
    assert_eq!(reading.destination("ris")["kind"], "hl7");
    // The node tells what it told, and what was answered.
    let said = tellings(&reading, "P1");
    let id = &utf8_told.id;
    assert!(said.contains(&format!("NW to ris, message {id}")), "{said:?}");
    assert!(said.contains(&format!("{id} acknowledged: HL7 AA to message {id}")), "{said:?}");
    let listed = reading.cli(&["queue", "list", "--destination", "ris", "--state", "receipted"]);
    assert!(text(&listed.stdout).contains("stat"), "the order's urgency: {}", text(&listed.stdout));
    let log = reading.log();
    assert!(!log.contains("ORACLE") && !log.contains("山本"), "{log}");
}

#[test]
fn changes_of_one_order_never_overtake_and_what_happens_while_the_ris_is_down_is_told_once() {
    let site = Site::new();
    let receiver = Receiver::down();
    let reading = ris(reading(&site), "ris", receiver.port(), "").start();
    let hospital = hospital(&site, &reading);
    ask(&hospital, &order("1", "NW", "P1", "A1"));
    reading.wait_count("ris", "owed", 1);
    for (id, accession) in [("2", "A2"), ("3", "A3")] {
        ask(&hospital, &order(id, "XO", "P1", accession));
    }
    until("the last change is there", || {
        reading.ask(&["order", "show", "P1"])[0]["content"]["accession"]["id"] == "A3"
    });
    reading.kill();
    reading.start();
    assert_eq!(reading.count("ris", "owed"), 1, "the changes wait for the order");
    receiver.up(&[]);
    let told = receiver.wait(2);
    let says = |m: &Told| (m.field("ORC-1").to_owned(), m.field("OBR-18").to_owned());
    let (new, change) = (("NW".to_owned(), "A1".to_owned()), ("XO".to_owned(), "A3".to_owned()));
    assert_eq!((says(&told[0]), says(&told[1])), (new, change));
    // A message that changes nothing that the RIS is shown is not told.
    ask(&hospital, &order("4", "XO", "P1", "A3"));
    ask(&hospital, &order("5", "CA", "P1", "A3"));
    receiver.wait(3);
    ask(&hospital, &order("6", "NW", "P1", "A3"));
    receiver.wait(4);
    let status = order("7", "SC", "P1", "A3").replace("FP1||||", "FP1||CM||");
    ask(&hospital, &status);
    receiver.wait(5);
    assert_eq!(receiver.controls("P1"), ["NW", "XO", "CA", "NW", "SC"]);
    assert_eq!(receiver.told()[4].field("ORC-5"), "CM");
    // Cancelled before the RIS ever had it: there is nothing to tell.
    receiver.kill();
    ask(&hospital, &order("8", "CA", "P2", ""));
    ask(&hospital, &order("9", "NW", "P3", ""));
    reading.wait_count("ris", "owed", 1);
    receiver.up(&[]);
    receiver.wait(6);
    assert_eq!((receiver.controls("P2").len(), receiver.controls("P3").len()), (0, 1));
    assert_eq!(receiver.told().len(), 6, "nothing came twice");
}

#[test]
fn what_the_ris_has_in_error_is_tried_again_and_gives_way_to_its_correction() {
    let site = Site::new();
    let options = ["--text", "TANAKA is not known", "--error", "PID^1^3|204^TANAKA"];
    let receiver = Receiver::start(&[&["--answers", "AE,AA"], &options[..]].concat());
    let node = lone(&site, receiver.port(), "");
    ask(&node, &order("1", "NW", "P1", "A1"));
    let told = receiver.wait(2);
    assert_eq!((&told[0].id, &told[0].hex), (&told[1].id, &told[1].hex), "the same message");
    assert_eq!(told[1].connection, 1, "on the same connection");
    node.wait_count("ris", "receipted", 1);
    receiver.change(&[&["--answers", "AE"], &options[..]].concat());
    ask(&node, &order("2", "NW", "P2", "A2"));
    until("the error is shown", || {
        let owed = node.ask(&["queue", "list", "--destination", "ris"]);
        owed[0]["duties"][0]["reason"] == "AE 204 (unknown key identifier) at PID-3"
    });
    // The correction does not wait for what it corrects.
    ask(&node, &order("3", "XO", "P2", "A3"));
    until("the correction has come", || receiver.told().iter().any(|m| m.field("OBR-18") == "A3"));
    receiver.change(&[]);
    node.wait_count("ris", "receipted", 2);
    node.wait_count("ris", "dismissed", 1);
    let last = receiver.told().last().cloned().expect("a message");
    assert_eq!((last.field("ORC-1"), last.field("OBR-18")), ("NW", "A3"), "it never had the other");
    assert!(!node.log().contains("TANAKA"), "{}", node.log());
}

#[test]
fn what_the_ris_rejects_is_quarantined_with_its_reason_and_stops_nothing_else() {
    let site = Site::new();
    let receiver = Receiver::start(&["--answers", "AR,AA", "--error", "MSH^1^9|200"]);
    let node = lone(&site, receiver.port(), "");
    ask(&node, &order("1", "NW", "P1", "A1"));
    node.wait_count("ris", "quarantined", 1);
    let listed = node.cli(&["queue", "list", "--state", "quarantined"]);
    let listed = text(&listed.stdout);
    let id = receiver.told()[0].id.clone();
    let reason = format!("AR 200 (unsupported message type) at MSH-9 to message {id}");
    assert!(listed.contains(&reason), "{listed}");
    ask(&node, &order("2", "NW", "P2", "A2"));
    node.wait_count("ris", "receipted", 1);
    // What it has not, is new to it when it changes.
    ask(&node, &order("3", "XO", "P1", "A3"));
    node.wait_count("ris", "receipted", 2);
    assert_eq!(receiver.controls("P1"), ["NW", "NW"]);
    assert_eq!(node.count("ris", "quarantined"), 1);
}

#[test]
fn a_message_without_its_acknowledgement_comes_again_as_it_was_and_nothing_else_does() {
    let site = Site::new();
    let receiver = Receiver::start(&["--answers", "AA,silent"]);
    let node = lone(&site, receiver.port(), "");
    ask(&node, &order("1", "NW", "P1", "A1"));
    node.wait_count("ris", "receipted", 1);
    ask(&node, &order("2", "NW", "P2", "A2"));
    receiver.wait(2);
    // Between sending and acknowledgement.
    node.kill();
    receiver.change(&[]);
    node.start();
    node.wait_count("ris", "receipted", 2);
    let told = receiver.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!((&told[1].id, &told[1].hex), (&told[2].id, &told[2].hex));
    // And so when the RIS is silent, hangs up, answers another message, or is none.
    let site = Site::new();
    let node_b = lone(&site, receiver.port(), short());
    for (n, word) in ["silent", "close", "other", "garbage"].into_iter().enumerate() {
        let before = receiver.told().len();
        receiver.change(&["--answers", &format!("{word},twice")]);
        let message = order("3", "NW", "P3", "A3").replace("P3", &format!("Q{n}"));
        ask(&node_b, &message);
        node_b.wait_count("ris", "receipted", n as u64 + 1);
        let told = receiver.told()[before..].to_vec();
        let words: Vec<&str> = told.iter().map(|m| m.answer.as_str()).collect();
        assert_eq!(words, [word, "twice"]);
        assert_eq!((&told[0].id, &told[0].hex), (&told[1].id, &told[1].hex), "{word}");
    }
    let error = node_b.destination("ris")["last_error"].to_string();
    assert!(error.contains("no MLLP"), "{error}");
    node_b.reaches("hikyaku_destination_up", &["destination=\"ris\""], 0.5);
}

#[test]
fn a_ris_over_tls_is_told_when_both_sides_know_each_other_and_learns_a_new_way_at_a_reload() {
    let site = Site::new();
    let [ris_key, wrong] = ["ris.example", "elsewhere"];
    drop((site.node(ris_key), site.node(wrong)));
    let pki = site.pki();
    let file = |name: &str| pki.join(name).display().to_string();
    let tls = [file("ris.example.crt"), file("ris.example.key"), file("ca.crt")];
    let receiver = Receiver::start(&["--tls", &tls[0], &tls[1], &tls[2]]);
    let way = |name: &str| {
        format!(
            "tls = {{ trust = \"pki/ca.crt\", certificate = \"pki/lone.crt\", \
             key = \"pki/lone.key\", server_name = {name:?} }}"
        )
    };
    let node = lone(&site, receiver.port(), &way(wrong));
    ask(&node, &order("1", "NW", "P1", "A1"));
    until("it is told why not", || {
        node.destination("ris")["last_error"].to_string().contains("TLS")
    });
    node.edit(|plan| {
        ris(plan.without("destination", "hl7"), "ris", receiver.port(), &way(ris_key))
    });
    assert!(node.cli(&["reload"]).status.success());
    node.wait_count("ris", "receipted", 1);
    assert_eq!(receiver.told().len(), 1);
}

#[test]
fn kills_at_any_moment_lose_no_message_and_make_no_second_one_of_the_same() {
    let site = Site::new();
    let receiver = Receiver::start(&[]);
    let node = lone(&site, receiver.port(), "");
    let numbers = ["P0", "P1", "P2", "P3", "P4", "P5"];
    for (n, number) in numbers.into_iter().enumerate() {
        ask(&node, &order(&format!("{n}a"), "NW", number, "A1"));
        if n % 2 == 1 {
            receiver.wait(receiver.told().len().max(1));
        }
        ask(&node, &order(&format!("{n}b"), "XO", number, "A2"));
        node.kill();
        node.start();
    }
    let last = |number: &str| {
        let told = receiver.told();
        let of = told.iter().rfind(|m| m.field("ORC-2").starts_with(number));
        of.is_some_and(|m| m.field("OBR-18") == "A2")
    };
    until("every change has come", || numbers.iter().all(|number| last(number)));
    until("all of it is acknowledged", || node.count("ris", "owed") == 0);
    for number in numbers {
        let controls = receiver.controls(number);
        // A kill before the order was handed over leaves one message that says it as it is now.
        assert!(controls == ["NW", "XO"] || controls == ["NW"], "{number}: {controls:?}");
    }
    let mut all: Vec<(String, String)> =
        receiver.told().into_iter().map(|m| (m.id, m.hex)).collect();
    all.sort();
    all.dedup();
    let ids: std::collections::BTreeSet<&String> = all.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), all.len(), "the same MSH-10 is the same message");
}
