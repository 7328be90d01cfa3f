//! How studies and orders are judged where people, routes and Japanese orders have their say.

use serde_json::{Value, json};

use crate::evidence::{ask, begun, create, ended, set};
use crate::hl7::{Ris, code};
use crate::sender::{Object, element, new_study, send_ok, send_study};
use crate::site::{Node, Plan, Port, Site, text, until};

const NOTHING: [Value; 0] = [];
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn plan(site: &Site, orders: &str) -> Plan {
    site.lone().orders().set("orders", orders).folder_destination("folder").route_all("folder")
}

/// An image of a patient, with an accession number, and pixels as `pixels` writes them.
fn image(study: &str, n: u64, patient: &str, accession: &str, pixels: &[u8]) -> Object {
    let sop = format!("{study}.1.{n}");
    let mut data_set = Vec::new();
    element(&mut data_set, 0x0008_0016, *b"UI", CT);
    element(&mut data_set, 0x0008_0018, *b"UI", &sop);
    element(&mut data_set, 0x0008_0050, *b"SH", accession);
    element(&mut data_set, 0x0008_0060, *b"CS", "CT");
    element(&mut data_set, 0x0010_0020, *b"LO", patient);
    element(&mut data_set, 0x0020_000D, *b"UI", study);
    element(&mut data_set, 0x0020_000E, *b"UI", &format!("{study}.1"));
    data_set.extend_from_slice(pixels);
    Object { sop, data_set }
}

/// The one case of a study.
fn case(node: &Node, study: &str) -> Value {
    node.ask(&["study", study])["cases"][0].clone()
}

fn order(node: &Node, number: &str) -> Value {
    node.ask(&["order", "show", number])[0].clone()
}

/// What needs attention, by study.
fn attention(node: &Node, study: &str) -> Vec<Value> {
    let rows: Value =
        serde_json::from_slice(&node.cli(&["missing", "--json"]).stdout).expect("JSON");
    let rows = rows.as_array().expect("a list").iter();
    rows.filter(|r| r["study"] == study)
        .flat_map(|r| r["attention"].as_array().cloned())
        .flatten()
        .collect()
}

/// An order with children as JAHIS has them: NW, then PA, and CH with numbers of their own. Each is
/// ORC-1, ORC-2, and the accession number (OBR-18).
fn family(id: &str, parent: &str, children: &[(&str, &str, &str)]) -> String {
    let own = |control: &str| {
        format!("ORC|{control}|{parent}\rTQ1|1||||||209901010900\rOBR||{parent}||100^XR^JJ1017\r")
    };
    let child = |(control, number, accession): &(&str, &str, &str)| {
        format!(
            "ORC|{control}|{number}||||||{parent}\r\
             OBR||{number}||1{number}^XR^JJ1017||||||||||||||{accession}\r"
        )
    };
    let children: String = children.iter().map(child).collect();
    format!(
        "MSH|^~\\&|HIS|EAST|HIKYAKU|X|||OMI^O23|{id}|P|2.5\rPID|||ORACLE\r{}{}{children}",
        own("NW"),
        own("PA")
    )
}

#[test]
fn children_of_a_japanese_order_are_parts_of_it_and_an_image_that_names_a_child_finds_the_order() {
    let site = Site::new();
    let node = plan(&site, "settle = \"1s\"\nquiet = \"2s\"").start();
    let mut ris = Ris::connect(&node);
    let all = [("CH", "P2", "A2"), ("CH", "P3", "A3"), ("CH", "P4", "A4")];
    let first = family("1", "P1", &all);
    assert_eq!(ris.ask(&first), "AA");
    // Told again, as JAHIS senders do, it is still one order.
    assert_eq!(ris.ask(&family("2", "P1", &all)), "AA");
    let orders = node.ask(&["orders"]);
    assert_eq!(orders.as_array().map(Vec::len), Some(1), "{orders}");
    let parts = order(&node, "P1")["content"]["parts"].clone();
    let numbers: Vec<&Value> =
        parts.as_array().expect("parts").iter().map(|p| &p["number"]).collect();
    assert_eq!(numbers, ["P2", "P3", "P4"]);

    let study = new_study();
    send_ok(node.port(Port::Dicom), &[image(&study, 1, "ORACLE", "A3", &[])]);
    until("it is with the parent", || case(&node, &study)["matched"]["order"]["number"] == "P1");
    assert_eq!(attention(&node, &study), NOTHING, "and nothing is to be doubted");

    // One child is cancelled: only that part ends. Then by its number alone, and by a person.
    assert_eq!(ris.ask(&family("3", "P1", &all[..1]).replace("|CH|P2", "|CA|P2")), "AA");
    let alone = "MSH|^~\\&|HIS|EAST|HIKYAKU|X|||OMI^O23|4|P|2.5\rPID|||ORACLE\rORC|CA|P4\r";
    assert_eq!(ris.ask(alone), "AA");
    let states = |order: &Value| -> Vec<String> {
        let parts = order["content"]["parts"].as_array().expect("parts").iter();
        parts.map(|p| p["state"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let shown = order(&node, "P1");
    assert_eq!(states(&shown), ["cancelled", "requested", "cancelled"], "{shown}");
    assert_eq!(shown["state"], "requested");
    let words = text(&node.cli(&["order", "show", "P1"]).stdout);
    assert!(words.contains("part P2  A2  cancelled"), "{words}");
    assert!(node.cli(&["order", "cancel", "P3"]).status.success());
    assert_eq!(order(&node, "P1")["state"], "cancelled", "no part is left");

    // Cancelling the parent ends all.
    assert_eq!(ris.ask(&family("5", "Q1", &[("CH", "Q2", "B2"), ("CH", "Q3", "B3")])), "AA");
    let parent = "MSH|^~\\&|HIS|EAST|HIKYAKU|X|||OMI^O23|6|P|2.5\rPID|||ORACLE\rORC|CA|Q1\r";
    assert_eq!(ris.ask(parent), "AA");
    assert_eq!(order(&node, "Q1")["state"], "cancelled");
    assert_eq!(node.cli(&["order", "show", "Q2"]).status.code(), Some(1), "no order of its own");
    node.restart();
    let late = new_study();
    send_ok(node.port(Port::Dicom), &[image(&late, 1, "ORACLE", "B3", &[])]);
    until("it is told", || attention(&node, &late).contains(&json!("cancelled-with-images")));
}

#[test]
fn a_real_japanese_message_with_children_is_one_order() {
    let site = Site::new();
    let node = plan(&site, "settle = \"1s\"").start();
    let path = "japanese-ssmix2/9999013_20111220_OMG-01_000201101200100_20111220224447339_-_1.hl7";
    let mut message = crate::hl7::sample(path);
    message.pop();
    assert_eq!(code(&Ris::connect(&node).send(&message)), "AA");
    assert_eq!(node.ask(&["orders"]).as_array().map(Vec::len), Some(1));
    let shown = order(&node, "000201101200100");
    let parts = shown["content"]["parts"].as_array().expect("parts");
    assert_eq!((parts.len(), &parts[3]["number"]), (4, &json!("000201101200104")), "{shown}");
    let meaning = &parts[0]["procedures"][0]["code"]["meaning"];
    assert_eq!(meaning, "胸部.Ｘ線単純撮影.立位正面(A→P)");
}

#[test]
fn a_study_that_a_person_has_linked_to_no_order_needs_no_attention_any_more() {
    let site = Site::new();
    let node = plan(&site, "settle = \"1s\"\nquiet = \"2s\"").start();
    let study = new_study();
    send_study(&node, &study, 1..3);
    until("it has no order", || attention(&node, &study) == ["no-order"]);
    assert!(node.cli(&["link", &study, "none"]).status.success());
    until("it is settled", || attention(&node, &study).is_empty());
    assert_eq!(node.cli(&["missing"]).status.code(), Some(0));
    node.restart();
    send_study(&node, &study, 3..4);
    until("presumed", || node.standing(&study)["progress"] == "presumed-complete");
    assert_eq!(attention(&node, &study), NOTHING);
    let story = case(&node, &study)["story"].to_string();
    assert!(story.contains("linked to no order") && story.contains("decision"), "{story}");
}

#[test]
fn images_that_will_not_come_as_a_person_decides_lack_no_more_and_what_is_named_later_does() {
    let site = Site::new();
    let node = plan(&site, "settle = \"1s\"\nquiet = \"1h\"\nexpected = false").start();
    let study = new_study();
    let steps = [format!("{study}.98"), format!("{study}.99")];
    let sop = |n| Object::new(&study, n, 8).sop;
    let step = |step: &str, images| {
        [create(step, &begun(&study)), set(step, &ended(&study, "COMPLETED", images))]
    };
    send_study(&node, &study, 1..4);
    assert_eq!(ask(&node, &step(&steps[0], 1..6)), ["0000"; 2]);
    until("two lack", || node.standing(&study)["headline"] == "short");
    let typo = node.cli(&["waive", &study, &sop(1)]);
    assert_eq!(typo.status.code(), Some(1), "it is here");
    let waive = node.cli(&["waive", &study, "--reason", "deleted at the console"]);
    assert!(text(&waive.stdout).contains("will not come: 2 images"), "{}", text(&waive.stderr));
    let standing = node.standing(&study);
    assert_eq!(
        (&standing["progress"], &standing["grade"]),
        (&json!("complete"), &json!("decision"))
    );
    assert_eq!(standing["reason"]["word"], "complete-decided");
    let found = case(&node, &study);
    let ground = &found["findings"][0]["by"][0];
    let user = found["story"].as_array().expect("a story").iter().find(|e| e["kind"] == "decision");
    let user = user.expect("the decision is told")["by"].clone();
    assert_eq!(ground["source"], user, "{found}");
    assert!(found["story"].to_string().contains("deleted at the console"), "{found}");
    assert!(node.log().contains("decided about images"), "{}", node.tail());

    // Named again it stays decided, and what nobody has decided about lacks; across a kill.
    node.kill();
    node.start();
    assert_eq!(ask(&node, &step(&steps[1], 1..8)), ["0000"; 2]);
    until("the new ones lack", || node.standing(&study)["headline"] == "short");
    assert_eq!(node.standing(&study)["lacking"], json!([sop(6), sop(7)]));
    // One comes after all, and the rest is expected again.
    send_study(&node, &study, 4..5);
    assert!(node.cli(&["reinstate", &study, &sop(5)]).status.success());
    until("it lacks again", || {
        let standing = node.standing(&study);
        standing["lacking"] == json!([sop(5), sop(6), sop(7)]) && standing["arrived"] == 4
    });
    send_study(&node, &study, 5..8);
    until("all is here", || node.standing(&study)["reason"]["word"] == "complete-all");
}

#[test]
fn images_of_two_patients_in_one_study_are_told_and_held_until_a_person_has_looked() {
    let site = Site::new();
    let node = plan(&site, "settle = \"1s\"\nquiet = \"1h\"\nexpected = false").start();
    let study = new_study();
    let port = node.port(Port::Dicom);
    send_ok(port, &[image(&study, 1, "ORACLE", "", &[]), image(&study, 2, "ORACLE", "", &[])]);
    until("it is known", || node.standing(&study)["progress"] == "arriving");
    assert_eq!(attention(&node, &study), NOTHING);
    send_ok(port, &[image(&study, 3, "4711", "", &[])]);
    until("it is told", || attention(&node, &study) == ["patient-mixed"]);
    let standing = node.standing(&study);
    assert_eq!(
        (&standing["headline"], &standing["hold"]),
        (&json!("patient-mixed"), &json!("patient-mixed"))
    );
    let ja = text(&node.cli(&["missing", "--language", "ja"]).stdout);
    assert!(ja.contains("異なる患者が 2 名"), "{ja}");
    // What comes from now on waits.
    node.restart();
    send_ok(port, &[image(&study, 4, "ORACLE", "", &[])]);
    until("it waits", || node.count("folder", "held") > 0);
    // The two numbers turn out to be one patient.
    let merge = "MSH|^~\\&|ADT|EAST|HIKYAKU|X|||ADT^A40|9|P|2.5\rPID|||ORACLE\rMRG|4711\r";
    assert_eq!(Ris::connect(&node).ask(merge), "AA");
    until("it is settled", || attention(&node, &study).is_empty());
    until("nothing waits", || node.count("folder", "held") == 0);
}

#[test]
fn a_route_says_how_long_its_images_are_waited_for_and_a_reload_says_it_for_all_others() {
    let site = Site::new();
    let route = |title: &str, more: &str| {
        format!("name = {title:?}\nto = [\"folder\"]\nwhen = {{ modality = {title:?} }}\n{more}")
    };
    let node = site
        .lone()
        .orders()
        .set("orders", "settle = \"1s\"\nquiet = \"1h\"\nexpected = false")
        .folder_destination("folder")
        .table("route", &route("CT", "quiet = \"2s\""))
        .table("route", &route("C*", "quiet = \"2s\"\nsettle = \"2s\""))
        .table("route", &route("MR", "quiet = \"30m\"\nexpected = true"))
        .table("route", &route("US", ""))
        .start();
    let of_modality = |study: &str, modality: &str| {
        let mut object = image(study, 1, "ORACLE", "", &[]);
        let at = object.data_set.windows(2).position(|w| w == b"CT").expect("its modality");
        object.data_set[at..at + 2].copy_from_slice(modality.as_bytes());
        send_ok(node.port(Port::Dicom), &[object]);
    };
    let [ct, mr, us] = ["CT", "MR", "US"].map(|modality| {
        let study = new_study();
        of_modality(&study, modality);
        study
    });
    until("the quick one is presumed", || node.standing(&ct)["progress"] == "presumed-complete");
    assert_eq!(node.standing(&ct)["reason"]["en"].as_str().map(|s| s.contains("2 s")), Some(true));
    let progress = |study: &str| node.standing(study)["progress"].clone();
    assert_eq!((progress(&mr), progress(&us)), (json!("arriving"), json!("arriving")));
    assert_eq!(attention(&node, &mr), ["no-order"]);
    assert_eq!(attention(&node, &us), NOTHING);
    // It is remembered with the study, whatever the routes say later.
    node.restart();
    node.edit(|plan| plan.set("orders", "quiet = \"3s\""));
    let said = node.ask(&["reload"]).to_string();
    assert!(said.contains("orders.quiet: applied"), "{said}");
    until("the others are presumed", || progress(&us) == "presumed-complete");
    assert_eq!(progress(&mr), "arriving", "its route says half an hour");
}

#[test]
fn an_image_with_less_pixels_than_its_header_says_is_told_and_never_refused() {
    let site = Site::new();
    let node = plan(&site, "settle = \"1s\"\nquiet = \"1s\"\nexpected = false").start();
    let pixels = |frames: &str, bytes: usize| {
        let mut set = Vec::new();
        element(&mut set, 0x0028_0002, *b"US", "\x01\0");
        element(&mut set, 0x0028_0008, *b"IS", frames);
        element(&mut set, 0x0028_0010, *b"US", "\x10\0");
        element(&mut set, 0x0028_0011, *b"US", "\x10\0");
        element(&mut set, 0x0028_0100, *b"US", "\x10\0");
        set.extend_from_slice(b"\xe0\x7f\x10\x00OW\0\0");
        set.extend_from_slice(&u32::try_from(bytes).expect("few").to_le_bytes());
        set.resize(set.len() + bytes, 7);
        set
    };
    let (whole, cut) = (new_study(), new_study());
    let port = node.port(Port::Dicom);
    send_ok(port, &[image(&whole, 1, "ORACLE", "", &pixels("4 ", 4 * 512))]);
    send_ok(port, &[image(&cut, 1, "ORACLE", "", &pixels("4 ", 3 * 512 + 8))]);
    until("the whole one is presumed", || node.standing(&whole)["progress"] == "presumed-complete");
    until("the cut one is told", || node.standing(&cut)["headline"] == "short");
    assert_eq!(node.standing(&cut)["grade"], "heuristic");
    node.wait_count("folder", "receipted", 2);
}
