//! Images that are corrected as their order says, and those that are not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};

use crate::chance::Chance;
use crate::ending::run_with;
use crate::foreign::{Arrived, Scp, python, scu, scu_ok, storescu};
use crate::hl7::{Order, Ris};
use crate::sender::new_study;
use crate::site::{Node, Plan, Port, Site, text, until};

const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const KANJI: &str = "\\ISO 2022 IR 87";
/// Kanji whose second byte is a delimiter in one encoding or another.
const NAME: &str = "HONDA^SO=本像^表骨=ソウ^ヒョウ";

fn plan(site: &Site, pacs: &Scp, route: &str) -> Plan {
    let route = format!("name = \"all\"\nto = [\"pacs\"]\n{route}");
    site.lone().orders().dicom_destination("pacs", pacs.port()).table("route", &route)
}

/// Files of these images, in a folder of their own.
fn make(site: &Site, images: &Value) -> PathBuf {
    let folder = site.path().join(format!("images-{}", new_study()));
    let mut command = python("correction.py");
    let output = run_with(command.arg("make").arg(&folder), images.to_string());
    assert!(output.status.success(), "{}", text(&output.stderr));
    folder
}

/// What pydicom reads in data sets of these transfer syntaxes.
fn read(data_sets: &[(PathBuf, &str)]) -> Vec<Value> {
    let mut command = python("correction.py");
    let input = serde_json::to_vec(data_sets).expect("JSON");
    let output = run_with(command.arg("read"), input);
    let lines = text(&output.stdout);
    let read: Vec<Value> = lines.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    assert_eq!(read.len(), data_sets.len(), "{lines}{}", text(&output.stderr));
    read
}

/// What arrived, and what was sent, in the order of arrival.
fn now_and_before(pacs: &Scp, arrived: &[Arrived], folder: &Path) -> Vec<(Value, Value)> {
    let now: Vec<_> = arrived.iter().map(|a| (pacs.folder().join(&a.file), &*a.ts)).collect();
    let sent = |a: &Arrived| {
        let number = a.sop.rsplit('.').next().expect("a number");
        let bytes = std::fs::read(folder.join(format!("{number}.dcm"))).expect("a file");
        // Beside the folder, which may be sent once more.
        let data_set = folder.with_extension(format!("{number}.dataset"));
        std::fs::write(&data_set, crate::part10::data_set(&bytes)).expect("a folder");
        data_set
    };
    let before: Vec<_> = arrived.iter().map(|a| (sent(a), &*a.ts)).collect();
    read(&now).into_iter().zip(read(&before)).collect()
}

fn of_patient(study: &str, number: &str, patient: &str, name: &str) -> String {
    format!(
        "MSH|^~\\&|RIS|EAST|HIKYAKU|X|||ORM^O01|{number}|P|2.3.1||||||UNICODE UTF-8\r\
         PID|||{patient}||{name}||19500101|M\r\
         ORC|NW|{number}|F{number}||||^^^^^R\r\
         OBR|1|{number}|F{number}|CT^CT HEAD||||||||||||||ACC-{number}\r\
         ZDS|{study}^RIS^Application^DICOM\r"
    )
}

const HL7_NAME: &str = "HONDA^SO^^^^^^A~本像^表骨^^^^^^I~ソウ^ヒョウ^^^^^^P";

fn held(node: &Node) -> Vec<Value> {
    node.ask(&["queue", "list", "--state", "held"]).as_array().expect("a list").clone()
}

#[test]
fn an_image_with_a_wrong_accession_number_is_answered_b000_and_arrives_as_its_order_says() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = plan(&site, &pacs, "correct = true").start();
    let study = new_study();
    let order = Order { study: &study, accession: "A-RIS", ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&order.write()), "AA");
    let sop = |n: u32| format!("{study}.1.{n}");
    // The second is longer than what stays in memory; the third is right already.
    let folder = make(
        &site,
        &json!([
            {"file": "1.dcm", "study": study, "sop": sop(1), "id": "ORACLE", "accession": "WRONG"},
            {"file": "2.dcm", "study": study, "sop": sop(2), "id": "ORACLE", "accession": "WRONG",
             "pixels": 5 << 20, "earlier": "undefined", "syntax": IMPLICIT},
            {"file": "3.dcm", "study": study, "sop": sop(3), "id": "ORACLE", "accession": "A-RIS"},
        ]),
    );
    let port = node.port(Port::Dicom);
    let file = |n: u32| folder.join(format!("{n}.dcm"));
    let (statuses, said) = storescu(port, &[], &[&file(1)]);
    assert_eq!(statuses, [0xB000], "{said}");
    assert_eq!(scu(port, &[], &[&file(2)])[0].status, "B000");
    let third = scu_ok(port, &[], &[&file(3)]);
    let arrived: BTreeMap<String, Arrived> =
        pacs.wait(3).into_iter().map(|a| (a.sop.clone(), a)).collect();
    assert_eq!(Some(&arrived[&sop(3)].sha256), third[0].sha256.as_ref(), "as it was sent");
    let corrected = [arrived[&sop(1)].clone(), arrived[&sop(2)].clone()];
    let read = now_and_before(&pacs, &corrected, &folder);
    for ((n, earlier), (now, before)) in [(1, 0), (2, 1)].into_iter().zip(read) {
        assert_eq!(now["AccessionNumber"], "A-RIS", "{now}");
        for same in ["PatientID", "PatientName", "PatientSex", "pixels", "private", "inner"] {
            assert_eq!(now[same], before[same], "{same}");
        }
        assert!(now["InstanceCoercionDateTime"].as_str().is_some_and(|at| at.len() > 14), "{now}");
        let original = now["original"].as_array().expect("a sequence");
        assert_eq!(original.len(), earlier + 1, "{now}");
        assert_eq!(original[earlier]["former"], json!({"AccessionNumber": "WRONG"}));
        assert_eq!(original[earlier]["reason"], "COERCE");
        assert_eq!(original[earlier]["system"], "lone");
        let source = ["DCMTK", "FOREIGN_SCU"][n as usize - 1];
        assert_eq!(original[earlier]["source"], source);
        if earlier == 1 {
            assert_eq!(original[0]["former"]["PatientID"], "EARLIER");
        }
    }
    // Sent again: the same answer, and no second copy.
    assert_eq!(storescu(port, &[], &[&file(1)]).0, [0xB000]);
    node.restart();
    assert_eq!(storescu(port, &[], &[&file(1)]).0, [0xB000]);
    assert_eq!(scu(port, &[], &[&file(2)])[0].status, "B000");
    node.wait_count("pacs", "receipted", 3);
    assert_eq!(pacs.arrived().len(), 3);
    assert!(held(&node).is_empty(), "no conflict");
    let shown = text(&node.cli(&["study", &study]).stdout);
    assert!(shown.contains("2 images corrected"), "{shown}");
    let listed = text(&node.cli(&["queue", "list", "--state", "receipted"]).stdout);
    assert!(listed.contains("corrected as its order says: AccessionNumber"), "{listed}");
    assert!(node.log().contains("image corrected"), "it is audited");
}

#[test]
fn without_the_word_no_byte_is_changed() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = plan(&site, &pacs, "").start();
    let study = new_study();
    let order = Order { study: &study, accession: "A-RIS", ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&order.write()), "AA");
    let folder = make(
        &site,
        &json!([{"file": "1.dcm", "study": study, "sop": format!("{study}.1.1"), "id": "ORACLE",
                 "accession": "WRONG"}]),
    );
    let sent = scu_ok(node.port(Port::Dicom), &[], &[&folder.join("1.dcm")]);
    assert_eq!(Some(pacs.wait(1)[0].sha256.clone()), sent[0].sha256);
    assert!(node.metric("hikyaku_corrections_total", &[]) < 0.5);
}

/// A study of another patient, in every coding that can be corrected.
fn another_patient(site: &Site, study: &str, from: u32, n: u32) -> PathBuf {
    let syntaxes = [EXPLICIT, IMPLICIT, BIG_ENDIAN];
    let image = |n: u32| {
        json!({"file": format!("{n}.dcm"), "study": study, "sop": format!("{study}.1.{n}"),
               "id": "99", "name": "SUZUKI^HANAKO=鈴木^花子", "charset": ["", "ISO 2022 IR 87"],
               "accession": "WRONG", "syntax": syntaxes[n as usize % 3],
               "earlier": if n.is_multiple_of(4) { "defined" } else { "" }})
    };
    let all: Vec<Value> = (from..from + n).map(image).collect();
    make(site, &Value::Array(all))
}

fn are_moved(pacs: &Scp, arrived: &[Arrived], folder: &Path) {
    now_and_before(pacs, arrived, folder).iter().for_each(|(now, before)| is_moved(now, before));
}

fn is_moved(now: &Value, before: &Value) {
    assert_eq!(now["PatientID"], "4711", "{now}");
    assert_eq!(now["PatientName"], NAME);
    assert_eq!(now["IssuerOfPatientID"], "SITE");
    assert_eq!(now["PatientBirthDate"], "19500101");
    assert_eq!(now["PatientSex"], "M");
    assert_eq!(now["AccessionNumber"], "ACC-P1");
    for same in ["pixels", "private", "inner"] {
        assert_eq!(now[same], before[same], "{same}");
    }
    let last = now["original"].as_array().and_then(|all| all.last()).expect("an item").clone();
    assert_eq!(last["reason"], "CORRECT");
    assert_eq!(last["former"]["PatientID"], "99");
    assert_eq!(last["former"]["PatientName"], "SUZUKI^HANAKO=鈴木^花子");
}

#[test]
fn a_study_that_a_person_links_is_corrected_before_it_is_released_and_so_is_what_comes_later() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = plan(&site, &pacs, "correct = true").start();
    let study = new_study();
    let order = of_patient(&study, "P1", "4711", HL7_NAME);
    assert_eq!(Ris::connect(&node).ask(&order), "AA");
    let folder = another_patient(&site, &study, 1, 40);
    // Nobody has linked it: it is taken as it is, and held.
    let first = scu_ok(node.port(Port::Dicom), &[], &[&folder]);
    assert_eq!(first.len(), 40);
    node.wait_count("pacs", "held", 40);
    assert_eq!(pacs.arrived().len(), 0);
    assert!(node.cli(&["link", &study, "P1"]).status.success());
    node.wait_count("pacs", "receipted", 40);
    node.wait_count("pacs", "dismissed", 40);
    let arrived = pacs.wait(40);
    assert_eq!(arrived.len(), 40);
    are_moved(&pacs, &arrived, &folder);
    let dismissed = node.ask(&["queue", "list", "--state", "dismissed"]);
    let reason = dismissed[0]["duties"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("corrected as cargo "), "{dismissed}");
    // What comes later is corrected on its way in, and what comes again is known.
    let later = another_patient(&site, &study, 41, 3);
    let sent = scu(node.port(Port::Dicom), &[], &[&later, &folder]);
    assert!(sent.iter().all(|s| s.status == "B000"), "{sent:?}");
    node.wait_count("pacs", "receipted", 43);
    let arrived = pacs.wait(43);
    are_moved(&pacs, &arrived[40..], &later);
    until("nobody need look at it any more", || {
        !node.cli(&["missing", "--json"]).stdout.windows(8).any(|w| w == b"mismatch")
    });
    let shown = text(&node.cli(&["study", &study]).stdout);
    assert!(shown.contains("43 images corrected"), "{shown}");
    node.reaches("hikyaku_corrections_total", &["outcome=\"corrected\""], 42.5);
    let log = node.log();
    assert!(!log.contains("SUZUKI") && !log.contains("HONDA") && !log.contains("4711"), "{log}");
}

#[test]
fn what_cannot_be_corrected_goes_on_waiting_and_says_why() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = plan(&site, &pacs, "correct = true").start();
    let study = new_study();
    assert_eq!(Ris::connect(&node).ask(&of_patient(&study, "P1", "4711", HL7_NAME)), "AA");
    let image = |n: u32, charset: &str, syntax: &str| {
        json!({"file": format!("{n}.dcm"), "study": study, "sop": format!("{study}.1.{n}"),
               "id": "99", "name": "SUZUKI", "charset": charset, "syntax": syntax})
    };
    let (western, deflated) = (image(1, "ISO_IR 100", EXPLICIT), image(2, KANJI, DEFLATED));
    let folder = make(&site, &json!([western, deflated, image(3, KANJI, EXPLICIT)]));
    let sent = scu_ok(node.port(Port::Dicom), &[], &[&folder]);
    node.wait_count("pacs", "held", 3);
    assert!(node.cli(&["link", &study, "P1"]).status.success());
    node.wait_count("pacs", "receipted", 1);
    node.wait_count("pacs", "held", 2);
    let reasons: BTreeSet<String> = held(&node)
        .iter()
        .map(|c| c["duties"][0]["reason"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(reasons.iter().any(|r| r.contains("PatientName cannot be written")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.contains("deflated")), "{reasons:?}");
    let shown = text(&node.cli(&["study", &study]).stdout);
    assert!(shown.contains("2 could not be"), "{shown}");
    // On its way in, too.
    let more = make(&site, &json!([image(4, "ISO_IR 100", EXPLICIT)]));
    scu_ok(node.port(Port::Dicom), &[], &[&more]);
    node.wait_count("pacs", "held", 3);
    node.restart();
    node.wait_count("pacs", "held", 3);
    // A person lets them go as they are.
    assert!(node.cli(&["queue", "release", "--study", &study]).status.success());
    node.wait_count("pacs", "receipted", 4);
    let first = pacs.arrived().into_iter().find(|a| a.sop == format!("{study}.1.1"));
    assert_eq!(Some(first.expect("it arrived").sha256), sent[0].sha256);
}

#[test]
fn a_patient_number_that_the_ris_has_merged_is_corrected_without_a_person() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = plan(&site, &pacs, "correct = true").start();
    let study = new_study();
    let mut ris = Ris::connect(&node);
    assert_eq!(ris.ask(&of_patient(&study, "P1", "4711", HL7_NAME)), "AA");
    let merge = "MSH|^~\\&|RIS|EAST|HIKYAKU|X|||ADT^A40^ADT_A39|9|P|2.5\rPID|||4711\rMRG|99\r";
    assert_eq!(ris.ask(merge), "AA");
    let folder = another_patient(&site, &study, 1, 3);
    let sent = scu(node.port(Port::Dicom), &[], &[&folder]);
    assert!(sent.iter().all(|s| s.status == "B000"), "{sent:?}");
    for (now, _) in now_and_before(&pacs, &pacs.wait(3), &folder) {
        assert_eq!(now["PatientID"], "4711");
        let last = now["original"].as_array().and_then(|all| all.last()).expect("an item").clone();
        assert_eq!(
            (&last["reason"], &last["former"]["PatientID"]),
            (&json!("COERCE"), &json!("99"))
        );
    }
}

#[test]
fn a_node_that_is_killed_while_it_corrects_loses_none_and_sends_none_as_it_was() {
    let mut chance = Chance::new("corrections");
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let node = plan(&site, &pacs, "correct = true").start();
    let mut ris = Ris::connect(&node);
    let study = new_study();
    assert_eq!(ris.ask(&of_patient(&study, "P1", "4711", HL7_NAME)), "AA");
    let n: u32 = 120;
    let folder = another_patient(&site, &study, 1, n);
    let sent = scu_ok(node.port(Port::Dicom), &[], &[&folder]);
    node.wait_count("pacs", "held", u64::from(n));
    assert!(node.cli(&["link", &study, "P1"]).status.success());
    for _ in 0..6 {
        thread::sleep(chance.time(5, 250));
        node.kill();
        node.start();
    }
    node.wait_count("pacs", "dismissed", u64::from(n));
    node.wait_count("pacs", "receipted", u64::from(n));
    let raw: BTreeSet<String> = sent.into_iter().filter_map(|s| s.sha256).collect();
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    for one in pacs.arrived() {
        assert!(!raw.contains(&one.sha256), "{} left as it was", one.sop);
        versions.entry(one.sop).or_default().insert(one.sha256);
    }
    assert_eq!(versions.len(), n as usize);
    assert!(versions.values().all(|v| v.len() == 1), "one correction each");
    assert!(held(&node).is_empty());
}
