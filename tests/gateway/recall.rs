//! Gaps that heal from the source archive, and what is said when they do not. The archives are
//! dcmtk's `dcmqrscp` and Orthanc, the modality is pynetdicom.

use dicom_dictionary_std::tags;
use hikyaku::cargo::Sha256;
use serde_json::{Value, json};

use crate::archive::{Archive, part10, source};
use crate::evidence::{ask, begun, create, ended, set};
use crate::foreign::AE_TITLE;
use crate::orthanc::Orthanc;
use crate::part10::{data, data_set};
use crate::sender::{Object, new_study, send_study};
use crate::site::{Node, Plan, Port, Site, text, until};

fn plan(site: &Site) -> Plan {
    site.lone()
        .orders()
        .set("orders", "settle = \"1s\"\nquiet = \"1h\"\nexpected = false")
        .folder_destination("folder")
        .route_all("folder")
}

/// The modality says that it has made these images.
fn performed(node: &Node, study: &str, images: std::ops::Range<u64>) {
    let step = format!("{study}.99");
    let requests = [create(&step, &begun(study)), set(&step, &ended(study, "COMPLETED", images))];
    assert_eq!(ask(node, &requests), ["0000"; 2]);
}

fn wait(node: &Node, study: &str, progress: &str) -> Value {
    until(&format!("{study} is {progress}"), || node.standing(study)["progress"] == progress);
    node.standing(study)
}

/// What people read of a study.
fn story(node: &Node, study: &str) -> String {
    text(&node.cli(&["study", study, "--language", "en"]).stdout)
}

fn recovered(node: &Node) -> u64 {
    node.metric("hikyaku_recovered_instances_total", &[]) as u64
}

#[test]
fn the_one_image_of_twenty_that_never_came_is_fetched_by_c_move_and_reaches_the_reading_node() {
    let site = Site::new();
    let reading = site
        .reading()
        .orders()
        .set("orders", "expected = false")
        .folder_destination("pacs")
        .route_all("pacs")
        .start();
    let plan = site
        .hospital(reading.port(Port::Tunnel))
        .orders()
        .set("orders", "settle = \"1s\"\nquiet = \"1h\"\nexpected = false");
    let study = new_study();
    let archive = Archive::with(&site, &study, 1..21, plan.port(Port::Dicom));
    let hospital = plan.table("orders.source", &archive.source("by = \"move\"")).start();
    send_study(&hospital, &study, 1..20);
    performed(&hospital, &study, 1..21);
    assert_eq!(wait(&hospital, &study, "complete")["arrived"], 20);
    reading.wait_count("pacs", "receipted", 20);
    until("complete there", || reading.standing(&study)["progress"] == "complete");
    // Just the one that lacked was asked for.
    until("they are counted", || recovered(&hospital) == 1);
    assert!(hospital.metric("hikyaku_kept_already_total", &[]) < 0.5);
    let told = story(&hospital, &study);
    assert!(told.contains("The source sent 1 of the missing images. (pacs)"), "{told}");
    until("it is counted", || {
        hospital.metric("hikyaku_recalls_total", &["outcome=\"healed\""]) > 0.5
    });
}

#[test]
fn orthanc_gives_what_lacks_by_c_get_and_it_goes_the_way_of_every_image() {
    let site = Site::new();
    let plan = plan(&site);
    let orthanc = Orthanc::sending_to(&site, &[("node", plan.port(Port::Dicom))]);
    let study = new_study();
    for number in 1..21 {
        let object = Object::new(&study, number, 600);
        orthanc.upload(&part10(&object.sop, &object.data_set));
    }
    let source = source(AE_TITLE, orthanc.port(), "by = \"get\"");
    let node = plan.table("orders.source", &source).start();
    send_study(&node, &study, 1..19);
    performed(&node, &study, 1..21);
    wait(&node, &study, "complete");
    node.wait_count("folder", "receipted", 20);
    until("they are counted", || recovered(&node) == 2);
    assert!((node.metric("hikyaku_received_total", &["way=\"c-get\""]) - 2.0).abs() < 0.5);
}

#[test]
fn a_compressed_image_comes_by_c_get_in_the_syntax_in_which_the_archive_has_it() {
    let site = Site::new();
    let plan = plan(&site);
    let orthanc = Orthanc::sending_to(&site, &[("node", plan.port(Port::Dicom))]);
    let source = source(AE_TITLE, orthanc.port(), "by = \"get\"");
    let node = plan.table("orders.source", &source).start();
    // Orthanc writes some headers anew, but no pixels.
    for (name, same_bytes) in [
        ("MR-JPEGLosslessSV1.dcm", true),
        ("MR_small_jp2klossless.dcm", false),
        ("liver_rle.dcm", false),
    ] {
        let file = data("samples").join(name);
        let bytes = std::fs::read(&file).expect("a sample");
        orthanc.upload(&bytes);
        let object = dicom_object::open_file(&file).expect("a DICOM file");
        let uid = |tag| {
            let text = object.element(tag).expect("a UID").to_str().expect("text");
            text.trim_end_matches(['\0', ' ']).to_owned()
        };
        let study = uid(tags::STUDY_INSTANCE_UID);
        let mut ended = ended(&study, "COMPLETED", 1..2);
        ended["PerformedSeriesSequence"] = json!([{
            "SeriesInstanceUID": uid(tags::SERIES_INSTANCE_UID),
            "ReferencedImageSequence": [{
                "ReferencedSOPClassUID": uid(tags::SOP_CLASS_UID),
                "ReferencedSOPInstanceUID": uid(tags::SOP_INSTANCE_UID),
            }],
        }]);
        let step = format!("2.25.{}", name.len());
        // Another patient than the image's would hold it.
        let mut begun = begun(&study);
        begun["PatientID"] = json!(uid(tags::PATIENT_ID));
        assert_eq!(ask(&node, &[create(&step, &begun), set(&step, &ended)]), ["0000"; 2]);
        wait(&node, &study, "complete");
        let cargo = node.ask(&["queue", "list", "--study", &study]);
        if same_bytes {
            let digest = Sha256::of(data_set(&bytes)).to_string();
            assert_eq!(cargo[0]["sha256"], digest.as_str(), "{name}: {cargo}");
        }
        let written = |cargo: &Value| {
            let receipt = cargo[0]["duties"][0]["receipt"].as_str().unwrap_or_default();
            let file = receipt.strip_prefix("file ")?;
            dicom_object::open_file(site.path().join("folder").join(file)).ok()
        };
        let mut delivered = None;
        until("it is delivered", || {
            delivered = written(&node.ask(&["queue", "list", "--study", &study]));
            delivered.is_some()
        });
        let delivered = delivered.expect("just met");
        let syntax =
            |object: &dicom_object::DefaultDicomObject| object.meta().transfer_syntax().to_owned();
        assert_eq!(syntax(&delivered), syntax(&object), "{name}");
    }
}

#[test]
fn orthanc_sends_what_lacks_by_c_move() {
    let site = Site::new();
    let plan = plan(&site);
    let orthanc = Orthanc::sending_to(&site, &[("node", plan.port(Port::Dicom))]);
    let study = new_study();
    for number in 1..6 {
        let object = Object::new(&study, number, 600);
        orthanc.upload(&part10(&object.sop, &object.data_set));
    }
    let source = source(AE_TITLE, orthanc.port(), "by = \"move\"");
    let node = plan.table("orders.source", &source).start();
    performed(&node, &study, 1..6);
    wait(&node, &study, "complete");
    until("they are counted", || recovered(&node) == 5);
}

#[test]
fn a_source_that_does_not_know_this_node_is_told_until_a_person_has_set_it_right() {
    let site = Site::new();
    let plan = plan(&site);
    let study = new_study();
    let archive = Archive::down(&site);
    archive.up(&[]);
    archive.fill(&study, 1..4);
    let node = plan.table("orders.source", &archive.source("by = \"move\"")).start();
    send_study(&node, &study, 1..3);
    performed(&node, &study, 1..4);
    until("it is given up", || node.standing(&study)["source"]["given_up"] == true);
    let standing = node.standing(&study);
    assert_eq!(standing["source"]["answer"]["word"], "source-unknown-destination", "{standing}");
    assert_eq!(standing["action"]["word"], "register-node");
    let told = story(&node, &study);
    assert!(told.contains("the source pacs answered at") && told.contains("0xA801"), "{told}");
    let missing = node.cli(&["missing", "--language", "en"]);
    assert_eq!(missing.status.code(), Some(4));
    let missing = text(&missing.stdout);
    assert!(missing.contains("0xA801") && missing.contains("given up"), "{missing}");
    assert!(missing.contains("short: Register this node at the source"), "{missing}");
    let told = text(&node.cli(&["study", &study, "--language", "ja"]).stdout);
    assert!(told.contains("送信元 pacs") && told.contains("打ち切り"), "{told}");
    // It is known after a restart, and nobody is asked in vain.
    node.restart();
    assert_eq!(node.standing(&study)["source"]["given_up"], true);
    archive.end();
    archive.up(&[node.port(Port::Dicom)]);
    let asked = node.cli(&["recall", &study]);
    assert!(asked.status.success(), "{}", text(&asked.stderr));
    wait(&node, &study, "complete");
    assert_eq!(node.cli(&["missing"]).status.code(), Some(0));
    assert_eq!(node.cli(&["recall", "1.2.3"]).status.code(), Some(1));
    assert!(node.log().contains("source asked"), "it is audited");
}

#[test]
fn where_c_move_has_no_destination_c_get_is_tried() {
    let site = Site::new();
    let study = new_study();
    let archive = Archive::down(&site);
    archive.up(&[]);
    archive.fill(&study, 1..4);
    let node = plan(&site).table("orders.source", &archive.source("")).start();
    send_study(&node, &study, 1..3);
    performed(&node, &study, 1..4);
    wait(&node, &study, "complete");
    let told = story(&node, &study);
    assert!(told.contains("0xA801") && told.contains("The source sent 1"), "{told}");
}

#[test]
fn a_source_that_is_down_is_asked_again_until_it_is_back_also_after_a_kill() {
    let site = Site::new();
    let plan = plan(&site);
    let study = new_study();
    let archive = Archive::with(&site, &study, 1..6, plan.port(Port::Dicom));
    archive.end();
    let node = plan.table("orders.source", &archive.source("rounds = 1000")).start();
    send_study(&node, &study, 1..4);
    performed(&node, &study, 1..6);
    let word = |node: &Node| node.standing(&study)["source"]["answer"]["word"].clone();
    until("it is told", || word(&node) == "source-unreachable");
    until("again", || node.standing(&study)["source"]["rounds"].as_u64() > Some(2));
    assert!(node.standing(&study)["source"]["next_at"].is_string());
    node.kill();
    node.start();
    archive.up(&[node.port(Port::Dicom)]);
    wait(&node, &study, "complete");
    until("they are counted", || recovered(&node) == 2);
}

#[test]
fn a_node_that_is_killed_in_the_middle_of_a_recall_goes_on_with_it() {
    let site = Site::new();
    let plan = plan(&site);
    let study = new_study();
    let archive = Archive::with(&site, &study, 1..121, plan.port(Port::Dicom));
    let source = archive.source("batch = 2\nrounds = 1000");
    let node = plan.table("orders.source", &source).start();
    performed(&node, &study, 1..121);
    for some in [4, 40] {
        until("some have come", || node.count("folder", "receipted") > some);
        node.kill();
        node.start();
    }
    assert_eq!(wait(&node, &study, "complete")["arrived"], 120);
    node.wait_count("folder", "receipted", 120);
}

#[test]
fn what_the_archive_has_beyond_what_anybody_named_is_found_when_the_study_is_quiet() {
    let site = Site::new();
    let plan = plan(&site).set("orders", "quiet = \"2s\"");
    let (study, whole) = (new_study(), new_study());
    let archive = Archive::with(&site, &study, 1..9, plan.port(Port::Dicom));
    archive.fill(&whole, 1..3);
    let node = plan.table("orders.source", &archive.source("")).start();
    send_study(&node, &study, 1..6);
    send_study(&node, &whole, 1..3);
    let complete = wait(&node, &study, "complete");
    assert_eq!((&complete["arrived"], &complete["grade"]), (&8.into(), &"source-query".into()));
    until("they are counted", || recovered(&node) == 3);
    // Of what is whole, the archive has said so.
    let complete = wait(&node, &whole, "complete");
    assert_eq!((&complete["arrived"], &complete["grade"]), (&2.into(), &"source-query".into()));
    // A later image makes it ask once more.
    archive.fill(&whole, 3..5);
    send_study(&node, &whole, 4..5);
    until("all four are here", || node.standing(&whole)["arrived"] == 4);
    wait(&node, &whole, "complete");
}

#[test]
fn a_study_of_which_no_source_is_to_be_asked_is_not_asked_for() {
    let site = Site::new();
    let plan = plan(&site);
    let study = new_study();
    let archive = Archive::with(&site, &study, 1..4, plan.port(Port::Dicom));
    let source = archive.source("for = [\"MR*\"]");
    let node = plan.table("orders.source", &source).start();
    send_study(&node, &study, 1..3);
    performed(&node, &study, 1..4);
    let short = wait(&node, &study, "short");
    assert_eq!((&short["source"], &short["action"]["word"]), (&Value::Null, &"ask-source".into()));
    let refused = node.cli(&["recall", &study]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("[[orders.source]]"), "{}", text(&refused.stderr));
}
