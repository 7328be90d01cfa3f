//! The whole circle: an order, its images, their completeness, a report, and its acknowledgement.
//! The RIS and HIS are python-hl7, the PACS of the hospital is Orthanc.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::foreign::python;
use crate::hl7::{Order, Ris};
use crate::orthanc::Orthanc;
use crate::ports;
use crate::receiver::Receiver;
use crate::sender::{new_study, send_study};
use crate::site::{Node, Plan, Port, READING, Site, run, run_ok, text, until};

/// A hospital with a HIS, and a reading centre with a reporting system.
pub(crate) struct Circle {
    pub(crate) hospital: Node,
    pub(crate) reading: Node,
    /// Where the reading centre takes ORU.
    pub(crate) reports: u16,
    dir: PathBuf,
}

/// A system of the hospital that takes reports by HL7.
pub(crate) fn his(plan: Plan, port: u16, more: &str) -> Plan {
    let body = format!(
        "name = \"his\"\nkind = \"hl7\"\naddress = \"127.0.0.1:{port}\"\nbackoff = \"1s\"\n\
         backoff_max = \"2s\"\nreports = [\"message\"]\n{more}"
    );
    plan.table("destination", &body)
}

impl Circle {
    /// Starts both nodes; `home` completes the hospital's configuration.
    pub(crate) fn start(site: &Site, home: impl FnOnce(Plan) -> Plan) -> Self {
        Self::start_with(site, |plan| plan, home)
    }

    pub(crate) fn start_with(
        site: &Site,
        away: impl FnOnce(Plan) -> Plan,
        home: impl FnOnce(Plan) -> Plan,
    ) -> Self {
        let reports = ports::free();
        let hl7 = format!("listen = \"127.0.0.1:{reports}\"\nallow = [\"127.0.0.1\"]");
        let plan = site
            .reading()
            .orders()
            .set("orders", "expected = false\nsettle = \"1s\"\nquiet = \"2s\"")
            .set("reports", "")
            .set("reports.hl7", &hl7)
            .folder_destination("pacs")
            .route_all("pacs");
        let reading = away(plan).start();
        let plan = site
            .hospital(reading.port(Port::Tunnel))
            .orders()
            .set("orders", "settle = \"1s\"\nquiet = \"2s\"")
            .set("reports", "");
        let hospital = home(plan).start();
        Self { hospital, reading, reports, dir: site.path().to_owned() }
    }

    /// An order, and its images, all at the reading centre.
    pub(crate) fn study(&self, order: &Order<'_>, images: u64) {
        assert_eq!(Ris::connect(&self.hospital).ask(&order.write()), "AA");
        send_study(&self.hospital, order.study, 1..images + 1);
        until("the study is whole at the reading centre", || {
            let s = self.reading.standing(order.study);
            s["arrived"] == images && s["progress"] == "presumed-complete"
        });
    }

    /// Sends messages to the reading centre as a reporting system does: the codes of the answers.
    pub(crate) fn report(&self, messages: &[&[u8]]) -> Vec<String> {
        let mut command = python("reporter.py");
        command.arg(self.reports.to_string());
        for (n, message) in messages.iter().enumerate() {
            let file = self.dir.join(format!("report-{}-{n}.hl7", new_study()));
            fs::write(&file, message).expect("a file");
            command.arg(file);
        }
        let lines = text(&run(&mut command).stdout);
        let line = |l: &str| serde_json::from_str::<Value>(l).expect("JSON");
        let code = |v: Value| v["code"].as_str().unwrap_or_default().to_owned();
        lines.lines().map(|l| code(line(l))).collect()
    }

    /// The one report of a study, as a node tells it; null where there is none.
    pub(crate) fn story(&self, node: &Node, study: &str) -> Value {
        let output = node.cli(&["report", "show", study, "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match told.as_array() {
            Some(one) if one.len() == 1 => one[0].clone(),
            _ => Value::Null,
        }
    }
}

/// A report of an order as a reporting system sends it, signed.
pub(crate) struct Said<'a> {
    pub(crate) id: &'a str,
    pub(crate) status: &'a str,
    pub(crate) order: &'a str,
    pub(crate) study: &'a str,
    pub(crate) text: &'a str,
    pub(crate) at: &'a str,
    pub(crate) flag: &'a str,
}

impl<'a> Said<'a> {
    /// A final report of order P1, without text.
    pub(crate) fn of(study: &'a str) -> Self {
        let at = "20261128101500+0900";
        Said { id: "R1", status: "F", order: "P1", study, text: "", at, flag: "" }
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let Said { id, status, order, study, text, at, flag } = self;
        format!(
            "MSH|^~\\&|READER|RC|HIKYAKU|X|{at}||ORU^R01|{id}|P|2.5||||||UNICODE UTF-8\r\
             PID|||ORACLE^^^SITE\rORC|RE|{order}\r\
             OBR|1|{order}||CT^Chest||||||||||||||||||{at}|||{status}|||||||D1&DOKUEI&ICHIRO\r\
             OBX|1|TX|F^Findings||{text}|||{flag}|||{status}\r\
             OBX|2|ST|113014^Study Instance UID^DCM||{study}||||||{status}\r"
        )
        .into_bytes()
    }
}

/// A folder of the hospital that takes reports.
pub(crate) fn files(plan: Plan) -> Plan {
    let body = "name = \"files\"\nkind = \"folder\"\npath = \"files\"\nreports = [\"files\"]\n\
                report_pages = true";
    plan.table("destination", body)
}

/// The moments of a study's loop, in their order; empty where there is none.
pub(crate) fn moments(node: &Node, study: &str) -> Vec<String> {
    // Whether something is overdue makes another exit code.
    let output = node.cli(&["overdue", "--all", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let rows = told.as_array().cloned().unwrap_or_default();
    let row = rows.into_iter().find(|row| row["study"] == study).unwrap_or_default();
    let moments = row["moments"].as_array().cloned().unwrap_or_default();
    moments.iter().filter_map(|m| m[0].as_str().map(str::to_owned)).collect()
}

#[test]
fn an_order_its_images_their_completeness_a_report_and_its_acknowledgement_make_the_circle() {
    let site = Site::new();
    let (his_down, pacs) = (Receiver::down(), Orthanc::receiving(&site));
    let to_pacs = "reports = [\"structured\", \"pdf\"]\nreport_pages = true";
    let circle = Circle::start(&site, |plan| {
        let plan = his(plan, his_down.port(), "charset = \"UNICODE UTF-8\"");
        files(plan.dicom_destination_with("home-pacs", pacs.port(), to_pacs))
    });
    let study = new_study();
    circle.study(&Order { study: &study, accession: "A1", ..Order::default() }, 3);
    until("the hospital hears that it was received", || {
        moments(&circle.hospital, &study) == ["sent", "received"]
    });
    let words = "骨 像 本 表 ソ ﾊﾝｶｸ";
    let said = Said { text: words, ..Said::of(&study) };
    assert_eq!(circle.report(&[&said.write()]), ["AA"]);
    // PACS and folder have it, the HIS is down.
    until("the PACS has both documents", || pacs.instances().len() == 2);
    let state = |node: &Node, name: &str| {
        let story = circle.story(node, &study);
        let all = story["row"]["destinations"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|d| d[0] == name).cloned().unwrap_or_default();
        found[1].as_str().unwrap_or_default().to_owned()
    };
    until("the folder has it", || state(&circle.hospital, "files") == "accepted");
    assert_eq!(state(&circle.hospital, "his"), "sent");
    assert_eq!(moments(&circle.hospital, &study), ["sent", "received", "final", "delivered"]);
    his_down.up(&[]);
    let told = his_down.wait(1)[0].clone();
    let says = |name: &str| told.field(name).to_owned();
    assert_eq!((says("MSH-9"), says("OBR-25")), ("ORU^R01^ORU_R01".into(), "F".into()));
    assert_eq!((says("OBR-2"), says("OBR-18")), ("P1".into(), "A1".into()), "{told:?}");
    assert!(told.fields["OBX-5"].iter().any(|text| text == words), "{told:?}");
    until("the reading centre hears of every yes", || {
        let named = ["files", "home-pacs", "his"];
        named.iter().all(|name| state(&circle.reading, name) == "accepted")
    });
    until("the loop is closed at both ends", || {
        [&circle.hospital, &circle.reading].iter().all(|node| moments(node, &study).is_empty())
    });
    // The files, and what foreign programs say of the documents.
    let index =
        fs::read_to_string(site.path().join("files/reports/index.jsonl")).expect("an index");
    assert_eq!(index.lines().count(), 2, "{index}");
    for (n, instance) in pacs.instances().iter().enumerate() {
        let file = site.path().join(format!("home-{n}.dcm"));
        fs::write(&file, pacs.file(instance)).expect("a file");
        run_ok(Command::new("dcmftest").arg(&file));
        let dump = run_ok(Command::new("dcmdump").arg("+U8").arg(&file));
        assert!(dump.contains(&study), "{dump}");
        if dump.contains("BasicTextSRStorage") {
            let read = run_ok(Command::new("dsrdump").arg("+Pl").arg("+U8").arg(&file));
            assert!(read.contains(words), "{read}");
        }
    }
    for node in [&circle.hospital, &circle.reading] {
        let log = node.log();
        let said = [words, "DOKUEI", "Chest", "^^^SITE"];
        assert!(said.iter().all(|word| !log.contains(word)), "nothing of a report in the log");
        assert_eq!(node.cli(&["overdue"]).status.code(), Some(0));
    }
}

#[test]
fn versions_go_home_in_whatever_order_they_come_and_a_late_one_is_kept_and_goes_nowhere() {
    let site = Site::new();
    let receiver = Receiver::start(&[]);
    let circle =
        Circle::start(&site, |plan| his(plan, receiver.port(), "report_preliminary = true"));
    let study = new_study();
    circle.study(&Order { study: &study, ..Order::default() }, 2);
    let say = |id: &'static str, status: &'static str, at: &'static str, text: &'static str| {
        Said { id, status, at, text, ..Said::of(&study) }.write()
    };
    let first = say("1", "P", "20261128100000+0900", "first look");
    let last = say("2", "F", "20261128110000+0900", "the report");
    let late = say("3", "P", "20261128103000+0900", "second look");
    let corrected = say("4", "C", "20261128120000+0900", "corrected");
    assert_eq!(circle.report(&[&first]), ["AA"]);
    receiver.wait(1);
    assert_eq!(circle.report(&[&last]), ["AA"]);
    receiver.wait(2);
    assert_eq!(circle.report(&[&late]), ["AA"]);
    assert_eq!(circle.report(&[&corrected]), ["AA"]);
    receiver.wait(3);
    until("all versions are at both ends", || {
        [&circle.hospital, &circle.reading]
            .iter()
            .all(|node| circle.story(node, &study)["versions"].as_array().map(Vec::len) == Some(4))
    });
    let told = receiver.told();
    let of =
        |name: &str| -> Vec<String> { told.iter().map(|t| t.field(name).to_owned()).collect() };
    assert_eq!(of("OBR-25"), ["P", "F", "C"]);
    let texts = ["first look", "the report", "corrected"];
    for (told, text) in told.iter().zip(texts) {
        assert!(told.fields["OBX-5"].iter().any(|said| said == text), "{text}: {told:?}");
    }
    let story = circle.story(&circle.hospital, &study);
    let standings: Vec<&str> = story["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v["standing"].as_str())
        .collect();
    assert_eq!(standings, ["superseded", "late", "superseded", "latest"], "{story}");
    assert_eq!(circle.hospital.metric("hikyaku_reports_late_total", &[]), 1.0);
}

#[test]
fn a_study_that_a_rule_picks_up_later_is_followed_by_its_order_and_its_report_is_waited_for() {
    let site = Site::new();
    let receiver = Receiver::start(&[]);
    let circle =
        Circle::start(&site, |plan| his(plan.without("route", "everything"), receiver.port(), ""));
    let Circle { hospital, reading, .. } = &circle;
    let study = new_study();
    let order = Order { study: &study, accession: "A1", ..Order::default() };
    assert_eq!(Ris::connect(hospital).ask(&order.write()), "AA");
    send_study(hospital, &study, 1..3);
    until("the hospital presumes it complete, and nobody is to read it", || {
        hospital.standing(&study)["progress"] == "presumed-complete"
            && hospital.status()["spool"]["unrouted"] == 2
    });
    let waits = |node: &Node| !moments(node, &study).is_empty();
    until("nothing is waited for", || !waits(hospital));
    hospital.edit(|plan| plan.route_all(READING));
    hospital.signal(nix::sys::signal::Signal::SIGHUP);
    until("the reading centre has it whole, with its order", || {
        let told = reading.cli(&["study", &study, "--json"]);
        let told: Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
        told["cases"][0]["matched"]["order"]["number"] == "P1"
            && reading.standing(&study)["progress"] == "presumed-complete"
    });
    until("the hospital hears that it was received, and waits", || {
        moments(hospital, &study) == ["sent", "received"]
    });
    let said = Said { text: "nothing new", ..Said::of(&study) };
    assert_eq!(circle.report(&[&said.write()]), ["AA"]);
    receiver.wait(1);
    until("the loop is closed at both ends", || !waits(hospital) && !waits(reading));
    let row = &circle.story(hospital, &study)["row"]["destinations"][0];
    assert_eq!(*row, serde_json::json!(["his", "accepted"]));
}
