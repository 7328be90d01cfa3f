//! What a running node takes over from changed files, and what it says about the rest.

use std::fs;
use std::process::Command;

use crate::foreign::storescu;
use crate::part10::{data, files};
use crate::site::{HOSPITAL, Node, Port, READING, Site, hikyaku, run, run_ok, text, until};

/// Sends one image to a node, which must take it.
fn send(node: &Node) {
    let image = &files(&data("study"))[0];
    let (answers, said) = storescu(node.port(Port::Dicom), &[], &[image]);
    assert_eq!(answers, [0], "{said}");
}

/// What `hikyaku reload` says.
fn reload(node: &Node) -> Vec<String> {
    let said = node.ask(&["reload"]);
    let lines = said.as_array().expect("lines").iter();
    lines.map(|line| line.as_str().expect("text").to_owned()).collect()
}

#[test]
fn what_waits_for_a_restart_is_named_until_the_restart() {
    let site = Site::new();
    let node = site.lone().start();
    let elsewhere = crate::ports::free();
    node.edit(|plan| plan.set("dicom", &format!("listen = \"127.0.0.1:{elsewhere}\"")));
    let waits = |said: &[String]| said.iter().any(|s| s.starts_with("dicom.listen: stays"));
    for _ in 0..2 {
        let said = reload(&node);
        assert!(waits(&said), "{said:?}");
    }
    let port = node.port(Port::Dicom);
    node.edit(|plan| plan.set("dicom", &format!("listen = \"127.0.0.1:{port}\"")));
    let said = reload(&node);
    assert!(!waits(&said), "{said:?}");
}

#[test]
fn a_faulty_file_changes_nothing_and_every_fault_is_said() {
    let site = Site::new();
    let node = site.lone().start();
    node.edit(|plan| plan.set("dicom", "ae_titles = [\"OTHER\"]").set("spool", "reserve = \"1\""));
    let refused = node.cli(&["reload"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("spool.reserve"), "{}", text(&refused.stderr));
    send(&node);
}

#[test]
fn a_renewed_certificate_under_another_name_is_taken_over_without_dropping_the_tunnel() {
    let site = Site::new();
    let reading = site.reading().start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let peer = |node: &Node| node.status()["peers"][0].clone();
    until("the tunnel", || peer(&hospital)["up"] == true && peer(&reading)["up"] == true);
    let since = peer(&hospital)["since"].clone();

    let pki = site.pki();
    let issue = ["pki", "issue", "--renew", "--name", HOSPITAL, "--days", "10", "--dir"];
    run_ok(hikyaku().args(issue).arg(&pki));
    fs::rename(pki.join("hospital.crt"), pki.join("renewed.crt")).expect("a renewed certificate");
    hospital.edit(|plan| plan.set("tunnel", "certificate = \"pki/renewed.crt\""));
    let said = reload(&hospital);
    assert!(said.contains(&"tunnel.certificate: applied".to_owned()), "{said:?}");

    let of_hospital = format!("certificate={HOSPITAL:?}");
    let days = hospital.metric("hikyaku_certificate_days_left", &[&of_hospital]);
    assert!((9.0..=10.0).contains(&days), "{days}");
    assert_eq!(peer(&hospital)["since"], since, "the tunnel to {READING} was not dropped");
}

/// The certificate that a TLS listener shows, as PEM.
fn shown(port: u16) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]);
    let said = text(&run(&mut command).stdout);
    let (_, rest) = said.split_once("-----BEGIN CERTIFICATE-----").unwrap_or_default();
    rest.split("-----END").next().unwrap_or_default().to_owned()
}

#[test]
fn a_renewed_certificate_of_the_hl7_listener_is_shown_after_a_reload() {
    let site = Site::new();
    let plan = site.lone().orders();
    let (plain, port) = (plan.port(Port::Hl7), plan.port(Port::DicomTls));
    let node = plan
        .set("orders.hl7", &format!("tls_listen = \"127.0.0.1:{port}\""))
        .set("orders.hl7.tls", "certificate = \"pki/lone.crt\"\nkey = \"pki/lone.key\"")
        .start();
    let before = shown(port);
    assert!(before.len() > 100, "{before}");
    let issue = ["pki", "issue", "--renew", "--name", "lone", "--days", "10", "--dir"];
    run_ok(hikyaku().args(issue).arg(site.pki()));
    assert_eq!(shown(port), before);
    reload(&node);
    assert_ne!(shown(port), before);
    assert!(std::net::TcpStream::connect(("127.0.0.1", plain)).is_ok());
}

/// Two nodes on one machine: the second has a DICOM listener that wants certificates.
#[test]
fn certificates_of_a_destination_are_read_again_when_only_the_files_have_changed() {
    let site = Site::new();
    let other = Site::new();
    let pki = site.pki();
    let issue = ["pki", "issue", "--name", "localhost", "--dir"];
    run_ok(hikyaku().args(issue).arg(&pki));
    let receiver = site.node("receiver").dicom();
    let port = receiver.port(Port::DicomTls);
    let tls = "certificate = \"pki/localhost.crt\"\nkey = \"pki/localhost.key\"\n\
               trust = \"pki/ca.crt\"";
    let receiver =
        receiver.set("dicom", &format!("tls_listen = \"127.0.0.1:{port}\"")).set("dicom.tls", tls);
    let receiver = receiver.start();

    // The sender trusts the wrong authority.
    fs::copy(other.pki().join("ca.crt"), pki.join("theirs.crt")).expect("an authority");
    let sender = site.node("sender").dicom();
    let body = format!(
        "name = \"pacs\"\nkind = \"dicom\"\naddress = \"localhost:{port}\"\n\
         ae_title = \"HIKYAKU\"\nbackoff = \"1s\"\nbackoff_max = \"2s\"\n\
         tls = {{ trust = \"pki/theirs.crt\", certificate = \"pki/sender.crt\", \
         key = \"pki/sender.key\" }}"
    );
    let sender = sender.table("destination", &body).route_all("pacs").start();
    send(&sender);
    until("the certificate is refused", || {
        sender.destination("pacs")["last_error"].as_str().is_some_and(|e| e.contains("TLS"))
    });

    fs::copy(pki.join("ca.crt"), pki.join("theirs.crt")).expect("the right authority");
    reload(&sender);
    sender.wait_count("pacs", "receipted", 1);
    assert_eq!(receiver.status()["spool"]["present"], 1);
}
