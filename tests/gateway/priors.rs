//! Earlier studies of a patient, fetched from Orthanc for a new order.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::archive::{part10, source};
use crate::circle::moments;
use crate::foreign::AE_TITLE;
use crate::hl7::{Order, Ris};
use crate::orthanc::Orthanc;
use crate::sender::{Object, new_study, send_ok};
use crate::site::{Node, Plan, Port, Site, text, until};

/// An image of a study of a patient, at a day of a body part.
fn image(study: &str, number: u64, patient: &str, day: &str, body_part: &str) -> Object {
    let sop = format!("{study}.1.{number}");
    let mut data_set = Vec::new();
    for (group, element, vr, value) in [
        (0x0008_u16, 0x0016_u16, "UI", "1.2.840.10008.5.1.4.1.1.2"),
        (0x0008, 0x0018, "UI", &sop),
        (0x0008, 0x0020, "DA", day),
        (0x0008, 0x0030, "TM", "101500"),
        (0x0008, 0x0060, "CS", "CT"),
        (0x0010, 0x0010, "PN", "Prior^Patient"),
        (0x0010, 0x0020, "LO", patient),
        (0x0018, 0x0015, "CS", body_part),
        (0x0020, 0x000D, "UI", study),
        (0x0020, 0x000E, "UI", &format!("{study}.1")),
        (0x0020, 0x0013, "IS", &number.to_string()),
    ] {
        let mut value = value.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == "UI" { 0 } else { b' ' });
        }
        data_set.extend_from_slice(&group.to_le_bytes());
        data_set.extend_from_slice(&element.to_le_bytes());
        data_set.extend_from_slice(vr.as_bytes());
        data_set.extend_from_slice(&u16::try_from(value.len()).expect("short").to_le_bytes());
        data_set.extend_from_slice(&value);
    }
    Object { sop, data_set }
}

struct Earlier {
    head: String,
    chest: String,
    old: String,
    other: String,
}

/// Three earlier studies of the patient, and one of somebody else.
fn fill(orthanc: &Orthanc) -> Earlier {
    let [head, chest, old, other] = [(); 4].map(|()| new_study());
    for (study, patient, day, body_part, images) in [
        (&head, "ORACLE", "20260101", "HEAD", 3),
        (&chest, "ORACLE", "20260601", "CHEST", 2),
        (&old, "ORACLE", "20100101", "HEAD", 2),
        (&other, "ORACLES", "20260701", "HEAD", 2),
    ] {
        for number in 1..=images {
            let object = image(study, number, patient, day, body_part);
            orthanc.upload(&part10(&object.sop, &object.data_set));
        }
    }
    Earlier { head, chest, old, other }
}

fn pair(site: &Site) -> (Node, Plan) {
    let reading = site
        .reading()
        .orders()
        .set("orders", "expected = false")
        .set("reports", "")
        .folder_destination("pacs")
        .route_all("pacs")
        .start();
    let hospital = site
        .hospital(reading.port(Port::Tunnel))
        .orders()
        .set("orders", "settle = \"1s\"\nquiet = \"2s\"")
        .set("reports", "");
    (reading, hospital)
}

fn rule(more: &str) -> String {
    format!(
        "name = \"heads\"\nsource = \"pacs\"\nwhen = {{ procedure = \"*HEAD*\" }}\n\
         body_part = \"same\"\n{more}"
    )
}

fn order(node: &Node, number: &str) -> Value {
    node.ask(&["order", "show", number])[0].clone()
}

/// Study UIDs of the priors of an order.
fn priors(node: &Node, number: &str) -> BTreeSet<String> {
    let shown = order(node, number);
    let rows = shown["priors"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|r| r["study"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_prior_that_the_rule_wants_follows_the_new_study_in_no_hurry_marked_and_once() {
    let site = Site::new();
    let (reading, plan) = pair(&site);
    let orthanc = Orthanc::sending_to(&site, &[("node", plan.port(Port::Dicom))]);
    let earlier = fill(&orthanc);
    let hospital = plan
        .table("orders.source", &source(AE_TITLE, orthanc.port(), "survey = false"))
        .table("orders.priors", &rule(""))
        .start();
    let study = new_study();
    let ordered = Order { study: &study, ..Order::default() };
    let mut ris = Ris::connect(&hospital);
    assert_eq!(ris.ask(&ordered.write()), "AA");
    let new: Vec<Object> = (1..4).map(|n| image(&study, n, "ORACLE", "20261122", "HEAD")).collect();
    send_ok(hospital.port(Port::Dicom), &new);
    reading.wait_count("pacs", "receipted", 6);
    assert_eq!(priors(&hospital, "P1"), BTreeSet::from([earlier.head.clone()]));
    // After the new study, and at the lowest urgency.
    let first = |study: &str| {
        let cargo = reading.ask(&["queue", "list", "--study", study]);
        let cargo = cargo.as_array().expect("a list").clone();
        let urgency = |c: &Value| c["duties"][0]["urgency"].as_str().unwrap_or("").to_owned();
        let urgencies: BTreeSet<String> = cargo.iter().map(urgency).collect();
        let numbers = cargo.iter().filter_map(|c| c["cargo"].as_u64());
        (urgencies, numbers.min(), cargo.len())
    };
    let (new, prior) = (first(&study), first(&earlier.head));
    assert_eq!((new.2, prior.2), (3, 3));
    assert_eq!(new.0, BTreeSet::from(["routine".to_owned()]));
    assert_eq!(prior.0, BTreeSet::from(["bulk".to_owned()]));
    assert!(prior.1 > new.1, "{prior:?} {new:?}");
    // Both nodes say what it is, and neither misses an order for it.
    for node in [&hospital, &reading] {
        until("it is complete", || node.standing(&earlier.head)["progress"] == "complete");
        let told = text(&node.cli(&["study", &earlier.head]).stdout);
        assert!(told.contains("prior of order P1"), "{}: {told}", node.name());
        assert_eq!(node.cli(&["missing"]).status.code(), Some(0), "{}", node.name());
        // Nobody owes a report of it.
        until("the new study has a loop, and no prior", || {
            moments(node, &earlier.head).is_empty() && !moments(node, &study).is_empty()
        });
    }
    // Once: though the order comes again, and the node is killed.
    assert_eq!(ris.ask(&Order { id: "2", control: "XO", ..ordered }.write()), "AA");
    drop(ris);
    hospital.kill();
    hospital.start();
    let again = Order { id: "3", number: "P2", ..Order::default() };
    assert_eq!(Ris::connect(&hospital).ask(&again.write()), "AA");
    until("a second order is known", || order(&hospital, "P2")["state"] == "requested");
    assert_eq!(priors(&hospital, "P1").len(), 1);
    assert!(hospital.metric("hikyaku_priors_total", &[]) < 0.5, "in this life none was chosen");
    assert_eq!(reading.count("pacs", "receipted"), 6);
    for study in [&earlier.chest, &earlier.old, &earlier.other] {
        assert_eq!(hospital.standing(study), Value::Null);
    }
}

#[test]
fn an_order_that_waits_long_gets_its_priors_without_its_study_and_another_order_not_again() {
    let site = Site::new();
    let (reading, plan) = pair(&site);
    let orthanc = Orthanc::sending_to(&site, &[("node", plan.port(Port::Dicom))]);
    let earlier = fill(&orthanc);
    let rule = rule("").replace("body_part = \"same\"", "modality = \"CT\"\nwait = \"1s\"");
    let node = plan
        .table("orders.source", &source(AE_TITLE, orthanc.port(), "by = \"get\""))
        .table("orders.priors", &rule)
        .start();
    assert_eq!(Ris::connect(&node).ask(&Order::default().write()), "AA");
    // It is killed while they are being asked for.
    until("it was asked", || node.metric("hikyaku_priors_total", &[]) > 1.5);
    node.kill();
    node.start();
    reading.wait_count("pacs", "receipted", 5);
    let both = BTreeSet::from([earlier.head.clone(), earlier.chest.clone()]);
    assert_eq!(priors(&node, "P1"), both);
    let again = Order { id: "2", number: "P2", ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&again.write()), "AA");
    let told = || order(&node, "P2")["story"].to_string().contains("no earlier study");
    until("the second order was asked for", told);
    assert!(priors(&node, "P2").is_empty());
    assert_eq!(reading.count("pacs", "receipted"), 5);
}
