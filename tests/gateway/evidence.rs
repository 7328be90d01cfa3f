//! What modalities say of their studies, and what lacks by it. The modality is pynetdicom.

use serde_json::{Value, json};

use crate::foreign::{Scp, modality};
use crate::sender::{Object, new_study, send_study};
use crate::site::{Node, Plan, Port, Site, text, until};

const MPPS: &str = "1.2.840.10008.3.1.2.3.3";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn plan(site: &Site) -> Plan {
    site.lone()
        .orders()
        .set("orders", "settle = \"1s\"\nquiet = \"1h\"\nexpected = false")
        .folder_destination("folder")
        .route_all("folder")
}

pub(crate) fn begun(study: &str) -> Value {
    json!({
        "PatientID": "ORACLE",
        "PerformedProcedureStepID": "PPS1",
        "PerformedStationAETitle": "CT1",
        "PerformedProcedureStepStartDate": "20261122",
        "PerformedProcedureStepStartTime": "101500",
        "PerformedProcedureStepStatus": "IN PROGRESS",
        "Modality": "CT",
        "ScheduledStepAttributesSequence": [{ "StudyInstanceUID": study }],
        "PerformedSeriesSequence": [],
    })
}

pub(crate) fn ended(study: &str, status: &str, images: std::ops::Range<u64>) -> Value {
    let image = |n| {
        let sop = Object::new(study, n, 8).sop;
        json!({ "ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": sop })
    };
    let images: Vec<Value> = images.map(image).collect();
    json!({
        "PerformedProcedureStepStatus": status,
        "PerformedProcedureStepEndDate": "20261122",
        "PerformedProcedureStepEndTime": "102000",
        "PerformedSeriesSequence": [{
            "SeriesInstanceUID": format!("{study}.1"),
            "ReferencedImageSequence": images,
        }],
    })
}

pub(crate) fn create(step: &str, data: &Value) -> Value {
    json!({ "do": "create", "class": MPPS, "instance": step, "data": data })
}

pub(crate) fn set(step: &str, data: &Value) -> Value {
    json!({ "do": "set", "class": MPPS, "instance": step, "data": data })
}

/// Statuses of the answers to these requests on one association.
pub(crate) fn ask(node: &Node, steps: &[Value]) -> Vec<String> {
    let lines = modality(node.port(Port::Dicom), &json!(steps));
    lines.iter().filter_map(|l| l["status"].as_str().map(str::to_owned)).collect()
}

fn wait(node: &Node, study: &str, progress: &str) -> Value {
    until(&format!("{study} is {progress}"), || node.standing(study)["progress"] == progress);
    node.standing(study)
}

#[test]
fn an_image_that_the_step_lists_and_that_never_came_is_named_until_it_comes() {
    let site = Site::new();
    let node = plan(&site).start();
    let study = new_study();
    let step = format!("{study}.99");
    assert_eq!(ask(&node, &[create(&step, &begun(&study))]), ["0000"]);
    send_study(&node, &study, 1..20);
    assert_eq!(ask(&node, &[set(&step, &ended(&study, "COMPLETED", 1..21))]), ["0000"]);
    let counted = |what: &str| node.metric("hikyaku_steps_total", &[what]);
    assert!(counted("\"begun\"") > 0.5 && counted("\"completed\"") > 0.5);
    let short = wait(&node, &study, "short");
    let lacks = Object::new(&study, 20, 8).sop;
    assert_eq!((&short["missing"], &short["lacking"]), (&json!(1), &json!([lacks])), "{short}");
    assert_eq!(short["grade"], "mpps");
    let missing = node.cli(&["missing", "--language", "en"]);
    assert_eq!(missing.status.code(), Some(4));
    let told = text(&missing.stdout);
    assert!(told.contains("short: Ask the source for the missing images"), "{told}");
    let told = text(&node.cli(&["study", &study, "--language", "ja"]).stdout);
    assert!(told.contains("-> 送信元に不足画像を照会してください"), "{told}");
    until("the metrics say so", || {
        ["hikyaku_missing_instances", "hikyaku_short_studies"]
            .iter()
            .all(|name| node.metric(name, &[]) > 0.5)
    });
    send_study(&node, &study, 20..21);
    wait(&node, &study, "complete");
    assert_eq!(node.cli(&["missing"]).status.code(), Some(0));
    // One more that nobody has listed makes it no less than it was, but not surely all.
    send_study(&node, &study, 21..22);
    until("it is not sure any more", || node.standing(&study)["progress"] != "complete");
}

#[test]
fn a_step_that_was_answered_is_there_after_a_kill_and_never_changes_after_its_end() {
    let site = Site::new();
    let node = plan(&site).start();
    let study = new_study();
    let step = format!("{study}.99");
    assert_eq!(ask(&node, &[create(&step, &begun(&study))]), ["0000"]);
    node.kill();
    node.start();
    assert_eq!(ask(&node, &[create(&step, &begun(&study))]), ["0111"]);
    let ended = ended(&study, "COMPLETED", 1..3);
    assert_eq!(ask(&node, &[set(&step, &ended)]), ["0000"]);
    node.kill();
    node.start();
    assert_eq!(ask(&node, &[set(&step, &ended)]), ["0110"]);
    assert_eq!(ask(&node, &[set("1.2.3.4.5", &ended)]), ["0112"]);
    let short = wait(&node, &study, "short");
    assert_eq!((&short["arrived"], &short["expected"]), (&json!(0), &json!(2)), "{short}");
    // Delete the ledger at any moment: what was said is in the logs.
    assert!(node.stop().success());
    std::fs::remove_dir_all(node.data().join("ledger")).expect("a ledger");
    node.start();
    assert_eq!(wait(&node, &study, "short")["expected"], 2);
    send_study(&node, &study, 1..3);
    wait(&node, &study, "complete");
}

#[test]
fn two_steps_of_one_study_one_of_them_discontinued_are_united() {
    let site = Site::new();
    let node = plan(&site).start();
    let study = new_study();
    let steps = [format!("{study}.98"), format!("{study}.99")];
    send_study(&node, &study, 1..3);
    let statuses = ask(
        &node,
        &[
            create(&steps[0], &begun(&study)),
            create(&steps[1], &begun(&study)),
            set(&steps[0], &ended(&study, "COMPLETED", 1..3)),
            set(&steps[1], &ended(&study, "DISCONTINUED", 3..5)),
        ],
    );
    assert_eq!(statuses, ["0000"; 4]);
    let short = wait(&node, &study, "short");
    assert_eq!((&short["arrived"], &short["expected"]), (&json!(2), &json!(4)), "{short}");
}

#[test]
fn the_images_of_a_wrong_worklist_entry_are_held_and_not_forwarded_until_a_person_says_so() {
    let site = Site::new();
    // The PACS is down: nothing leaves before the modality notices its mistake.
    let pacs = Scp::down(&site, &[]);
    let node =
        site.lone().orders().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let (wrong, right) = (new_study(), new_study());
    let step = format!("{wrong}.99");
    send_study(&node, &wrong, 1..4);
    let mut data = ended(&wrong, "DISCONTINUED", 1..4);
    data["PerformedProcedureStepDiscontinuationReasonCodeSequence"] =
        json!([{ "CodeValue": "110514", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Wrong" }]);
    assert_eq!(ask(&node, &[create(&step, &begun(&wrong)), set(&step, &data)]), ["0000"; 2]);
    until("it is told", || node.standing(&wrong)["headline"] == "wrong-worklist-entry");
    node.wait_count("pacs", "held", 3);
    pacs.up();
    // What comes later waits from the first moment, and nobody else's images do.
    send_study(&node, &wrong, 4..5);
    node.wait_count("pacs", "held", 4);
    send_study(&node, &right, 1..3);
    node.wait_count("pacs", "receipted", 2);
    let study_of = |sop: &str| sop.starts_with(&format!("{wrong}."));
    assert!(!pacs.arrived().iter().any(|a| study_of(&a.sop)), "{:?}", pacs.arrived());
    assert!(node.cli(&["queue", "release", "--study", &wrong]).status.success());
    node.wait_count("pacs", "receipted", 6);
}

#[test]
fn a_long_list_is_kept_whole_and_the_verdict_on_a_large_study_does_not_keep_anybody_waiting() {
    let site = Site::new();
    let node = plan(&site).start();
    let study = new_study();
    let step = format!("{study}.99");
    let set = set(&step, &ended(&study, "COMPLETED", 1..10_001));
    assert_eq!(ask(&node, &[create(&step, &begun(&study)), set]), ["0000"; 2]);
    assert_eq!(wait(&node, &study, "short")["expected"], 10_000);
    node.restart();
    assert_eq!(node.standing(&study)["missing"], 10_000);
}
