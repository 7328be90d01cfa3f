//! Another patient's images are held before the first of them leaves, and nothing waits for long.

use std::fs;

use crate::foreign::Scp;
use crate::hl7::{Order, Ris};
use crate::sender::{new_study, send_study};
use crate::site::{Site, until};

/// Studies that are sent one after the other, each with so many images.
const ROUNDS: u64 = 6;
const IMAGES: u64 = 50;

#[test]
fn not_one_image_of_another_patient_reaches_the_pacs_when_the_order_was_known_before() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node =
        site.lone().orders().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let mut ris = Ris::connect(&node);
    for round in 1..=ROUNDS {
        let (wrong, right) = (new_study(), new_study());
        let (id, number) = (format!("W{round}"), format!("W{round}"));
        let order =
            Order { id: &id, number: &number, study: &wrong, patient: "4711", ..Order::default() };
        assert_eq!(ris.ask(&order.write()), "AA");
        send_study(&node, &wrong, 1..IMAGES + 1);
        node.wait_count("pacs", "held", round * IMAGES);
        // The PACS takes what is not held.
        send_study(&node, &right, 1..3);
        node.wait_count("pacs", "receipted", round * 2);
    }
    assert_eq!(pacs.arrived().len() as u64, ROUNDS * 2);
    assert!(node.metric("hikyaku_unjudged_images_total", &[]) < 0.5, "none left by its time alone");
}

#[test]
fn images_leave_although_the_registrar_begins_behind_a_ledger_that_is_rebuilt() {
    let site = Site::new();
    let pacs = Scp::down(&site, &[]);
    let node =
        site.lone().orders().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let study = new_study();
    send_study(&node, &study, 1..21);
    node.kill();
    fs::remove_dir_all(node.data().join("ledger")).expect("a ledger");
    pacs.up();
    node.start();
    send_study(&node, &study, 21..31);
    node.wait_count("pacs", "receipted", 30);
    until("every image is at the PACS", || pacs.arrived().len() >= 30);
}
