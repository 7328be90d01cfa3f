//! Orders and verdicts at both ends: what the hospital knows, the reading centre knows too, and
//! says nothing that its own custody does not bear out.

use serde_json::Value;

use crate::hl7::{Order, Ris};
use crate::sender::{new_study, send_study};
use crate::site::{HOSPITAL, Node, Port, READING, Site, until};

struct Pair {
    hospital: Node,
    reading: Node,
}

impl Pair {
    fn start(site: &Site) -> Self {
        let reading = site
            .reading()
            .orders()
            .set("orders", "expected = false")
            .folder_destination("pacs")
            .route_all("pacs")
            .start();
        let hospital = site
            .hospital(reading.port(Port::Tunnel))
            .orders()
            .set("orders", "settle = \"1s\"\nquiet = \"3s\"")
            .start();
        Self { hospital, reading }
    }
}

fn orders(node: &Node, number: &str) -> Value {
    let output = node.cli(&["order", "show", number, "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[test]
fn an_order_is_at_the_reading_centre_before_its_images_and_so_is_its_cancellation() {
    let site = Site::new();
    let Pair { hospital, reading } = Pair::start(&site);
    let mut ris = Ris::connect(&hospital);
    let due = Order { accession: "A1", scheduled: "203501010900", ..Order::default() };
    assert_eq!(ris.ask(&due.write()), "AA");
    until("the order is there", || orders(&reading, "P1")[0]["state"] == "requested");
    let order = orders(&reading, "P1")[0].clone();
    assert_eq!(order["key"]["origin"], HOSPITAL);
    assert_eq!(order["content"]["accession"]["id"], "A1");
    assert_eq!(reading.ask(&["orders"])[0]["headline"], "due");
    // Told while nobody listens, it arrives when somebody does, though the hospital was killed.
    reading.stop();
    assert_eq!(ris.ask(&Order { id: "2", control: "CA", ..due }.write()), "AA");
    drop(ris);
    hospital.kill();
    hospital.start();
    reading.start();
    until("it is cancelled there", || orders(&reading, "P1")[0]["state"] == "cancelled");
    // Orders and manifests are no images: nobody owes them to a PACS, and none is unrouted.
    assert_eq!(reading.status()["spool"]["unrouted"], 0);
    assert_eq!(reading.count("pacs", "owed"), 0);
}

#[test]
fn the_reading_centre_does_not_say_complete_before_its_own_custody_has_all() {
    let site = Site::new();
    let Pair { hospital, reading } = Pair::start(&site);
    let study = new_study();
    let order = Order { study: &study, ..Order::default() };
    assert_eq!(Ris::connect(&hospital).ask(&order.write()), "AA");
    reading.stop();
    send_study(&hospital, &study, 1..4);
    let owed = hospital.ask(&["queue", "list", "--study", &study]);
    let cargo = owed[1]["cargo"].to_string();
    assert!(hospital.cli(&["queue", "hold", "--cargo", &cargo]).status.success());
    until("the hospital presumes it complete", || {
        hospital.standing(&study)["progress"] == "presumed-complete"
    });
    reading.start();
    until("two of three are there", || {
        let s = reading.standing(&study);
        s["arrived"] == 2 && s["expected"] == 3
    });
    let there = reading.standing(&study);
    assert_eq!(there["progress"], "arriving", "{there}");
    assert_eq!(there["lacking"].as_array().map(Vec::len), Some(1), "{there}");
    // It is so after a restart, too.
    reading.restart();
    assert_eq!(reading.standing(&study)["progress"], "arriving");
    assert!(hospital.cli(&["queue", "release", "--cargo", &cargo]).status.success());
    until("now it says so itself", || reading.standing(&study)["progress"] == "presumed-complete");
    let found = reading.ask(&["study", &study]);
    assert_eq!(found["cases"][0]["matched"]["order"]["number"], "P1", "{found}");
    hospital.wait_count(READING, "owed", 0);
}

#[test]
fn what_the_hospital_finds_wrong_stands_in_the_reading_centres_list_and_goes_when_it_is_mended() {
    let site = Site::new();
    let Pair { hospital, reading } = Pair::start(&site);
    let study = new_study();
    let order = Order { study: &study, patient: "4711", ..Order::default() };
    assert_eq!(Ris::connect(&hospital).ask(&order.write()), "AA");
    send_study(&hospital, &study, 1..3);
    until("both list the mismatch", || {
        [&hospital, &reading]
            .iter()
            .all(|node| node.standing(&study)["headline"] == "patient-mismatch")
    });
    assert_eq!(reading.cli(&["missing"]).status.code(), Some(4));
    let merge = "MSH|^~\\&|RIS|EAST|HIKYAKU|X|||ADT^A40^ADT_A39|9|P|2.5\rPID|||ORACLE\rMRG|4711\r";
    assert_eq!(Ris::connect(&hospital).ask(merge), "AA");
    until("neither lists it", || {
        [&hospital, &reading].iter().all(|node| node.cli(&["missing"]).status.code() == Some(0))
    });
}
