//! What anybody may read: metrics, health, readiness, status, and the log. Nothing of a patient.

use std::collections::BTreeSet;
use std::process::Command;

use dicom_dictionary_std::tags;

use crate::ending::run_with;
use crate::foreign::{Scp, scu, scu_ok};
use crate::part10::{data, files};
use crate::site::{Node, Port, Site, text, until};

/// Names, numbers and birth dates of the patients in the samples and in the study.
fn patients() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files(&data("samples")).into_iter().chain(files(&data("study"))) {
        let object =
            dicom_object::OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(file);
        let Ok(object) = object else { continue };
        for tag in [tags::PATIENT_NAME, tags::PATIENT_ID, tags::ACCESSION_NUMBER] {
            let value = object.element(tag).ok().and_then(|e| e.to_str().ok().map(String::from));
            found.extend(value.map(|v| v.trim().to_owned()).filter(|v| v.len() > 4));
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

fn pages(node: &Node) -> String {
    ["/metrics", "/status", "/health", "/ready", "/"].map(|path| node.page(path).1).concat()
}

#[test]
fn no_page_no_listing_of_status_and_no_log_line_says_anything_of_a_patient() {
    let site = Site::new();
    let sop = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322";
    let pacs = Scp::start(&site, &["--status", &format!("{sop}=0122"), "--every", "9=A700"]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let port = hospital.port(Port::Dicom);
    scu_ok(port, &[], &[&data("samples"), &data("study")]);
    scu(port, &["--wrong-uid", "1.2.3"], &[&data("samples").join("dx_image.dcm")]);
    scu(port, &["--aec", "NOBODY"], &[&data("samples").join("dx_image.dcm")]);
    until("most are delivered", || reading.count("pacs", "receipted") > 60);
    hospital.ask(&["queue", "retry", "--state", "receipted"]);
    hospital.ask(&["reload"]);
    let status = text(&hospital.cli(&["status"]).stdout) + &text(&reading.cli(&["status"]).stdout);
    let open = pages(&hospital) + &pages(&reading) + &status + &hospital.log() + &reading.log();
    let told: Vec<_> = patients().into_iter().filter(|value| open.contains(value)).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn prometheus_finds_nothing_to_complain_of_in_the_metrics() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    scu_ok(hospital.port(Port::Dicom), &[], &[&data("study")]);
    reading.wait_count("pacs", "receipted", 10);
    for node in [&hospital, &reading] {
        let (code, page) = node.page("/metrics");
        assert_eq!(code, 200);
        let mut promtool = Command::new("promtool");
        let output = run_with(promtool.args(["check", "metrics"]), page);
        let said = text(&output.stdout) + &text(&output.stderr);
        // People count the days of a certificate, whatever the base unit.
        let days = "hikyaku_certificate_days_left use base unit";
        let faults: Vec<&str> = said.lines().filter(|line| !line.starts_with(days)).collect();
        assert!(faults.is_empty(), "{faults:?}");
    }
    // What operators count on.
    assert_eq!(hospital.metric("hikyaku_received_total", &["way=\"dicom\""]), 10.0);
    assert_eq!(hospital.metric("hikyaku_tunnel_up", &["node=\"reading-centre\""]), 1.0);
    assert_eq!(reading.metric("hikyaku_receipted_total", &["destination=\"pacs\""]), 10.0);
    assert!(
        hospital.metric("hikyaku_certificate_days_left", &["certificate=\"hospital\""]) > 300.0
    );
    hospital.reaches("hikyaku_sync_seconds_count", &[], 1.0);
}

#[test]
fn health_and_readiness_answer_who_asks_and_nothing_can_be_changed_there() {
    let site = Site::new();
    let node = site.lone().start();
    assert_eq!(node.page("/health"), (200, "ok\n".into()));
    until("it is ready", || node.page("/ready") == (200, "ready\n".into()));
    for path in ["/decide", "/reload", "/list", "/studies", "/explain"] {
        assert_eq!(node.page(path).0, 404, "{path}");
        let posted = crate::http::post(node.port(Port::Ops), path, b"{}").expect("an answer");
        assert_eq!(posted.0, 404, "{path}");
    }
    let posted = crate::http::post(node.port(Port::Ops), "/status", b"{}").expect("an answer");
    assert_eq!(posted.0, 405);
}
