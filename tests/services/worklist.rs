//! The modality worklist, asked by dcmtk's `findscu -W` and by pynetdicom.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use hikyaku::dicom::dataset::text;
use hikyaku::intake::Limits;
use serde_json::json;

use crate::foreign::{modality, run, run_command, statuses};
use crate::recorder::{Recorder, Worklist};
use crate::site::Site;

const WORKLIST: &str = "1.2.840.10008.5.1.4.31";

fn entry(accession: &str) -> InMemDicomObject {
    let step = InMemDicomObject::from_element_iter([
        DataElement::new(tags::MODALITY, VR::CS, "CT"),
        DataElement::new(tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION, VR::LO, "頭部単純"),
    ]);
    InMemDicomObject::from_element_iter([
        DataElement::new(tags::ACCESSION_NUMBER, VR::SH, accession),
        DataElement::new(tags::PATIENT_NAME, VR::PN, "Yamada^Tarou=山田^太郎"),
        DataElement::new(tags::PATIENT_ID, VR::LO, "P1"),
        DataElement::new(
            tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE,
            VR::SQ,
            DataSetSequence::from(vec![step]),
        ),
    ])
}

async fn site(worklist: Worklist) -> Site {
    let mut recorder = Recorder::new();
    recorder.worklist = worklist;
    let limits = Limits { matches: 50, ..Limits::default() };
    Site::with(recorder, limits).await
}

#[tokio::test(flavor = "multi_thread")]
async fn findscu_gets_every_entry_of_the_worklist() {
    let site = site(Worklist::These(vec![entry("A1"), entry("A2"), entry("A3")])).await;
    let port = site.port.to_string();
    let keys = ["-k", "PatientName", "-k", "AccessionNumber", "-k", "PatientID=P*"];
    let arguments = [&["-v", "-W", "-aec", "HIKYAKU", "127.0.0.1", &port][..], &keys].concat();
    let output = run("findscu", &arguments).await;
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for accession in ["A1", "A2", "A3"] {
        assert!(said.contains(accession), "{said}");
    }
    assert!(said.contains("Final Find Response (Success)"), "{said}");
    let seen = site.seen();
    assert_eq!(text(&seen.queries[0], tags::PATIENT_ID), "P*");
}

/// `findscu` asks with these keys, and writes each answer to a file of this folder.
async fn findscu(port: u16, folder: &Path, keys: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut command = Command::new("findscu");
    command.args(["-W", "-X", "-aec", "HIKYAKU", "127.0.0.1", &port.to_string()]);
    command.current_dir(folder);
    for key in keys {
        command.arg("-k").arg(OsStr::from_bytes(key));
    }
    let output = run_command(command).await;
    assert!(output.status.success(), "{output:?}");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn findscu_asks_in_kanji_and_finds_kanji_in_iso_2022_and_in_unicode() {
    // 山田 and 太郎 as PS3.5 H.3.1 has them.
    let escaped = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B";
    let cases: [(&[u8], &[u8], &[u8]); 2] = [
        (b"SpecificCharacterSet=\\ISO 2022 IR 87", b"PatientName=*\x1b$B;3ED\x1b(B*", escaped),
        (
            b"SpecificCharacterSet=ISO_IR 192",
            "PatientName=*山田*".as_bytes(),
            "Yamada^Tarou=山田^太郎".as_bytes(),
        ),
    ];
    for (charset, name, expected) in cases {
        let site = site(Worklist::These(vec![entry("A1"), entry("A2")])).await;
        let folder = tempfile::tempdir().unwrap();
        let keys =
            [charset, name, b"AccessionNumber", b"ScheduledProcedureStepSequence[0].Modality"];
        let answers = findscu(site.port, folder.path(), &keys).await;
        assert_eq!(text(&site.seen().queries[0], tags::PATIENT_NAME), "*山田*");
        assert_eq!(answers.len(), 2);
        let term = charset.split(|b| *b == b'=').next_back().unwrap();
        for answer in &answers {
            assert!(has(answer, term) && has(answer, expected), "{charset:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_japanese_device_is_answered_in_its_own_character_set_and_others_in_unicode() {
    let site = site(Worklist::These(vec![entry("A1")])).await;
    for (asked, answered) in [
        (json!(["", "ISO 2022 IR 87"]), "['', 'ISO 2022 IR 87']"),
        (json!("ISO_IR 192"), "ISO_IR 192"),
        (json!("ISO_IR 100"), "ISO_IR 192"),
    ] {
        let find = json!([{ "do": "find", "data": {
            "SpecificCharacterSet": asked, "PatientName": "" } }]);
        let lines = modality(site.port, &[], find).await;
        assert_eq!(statuses(&lines), ["FF00", "0000"], "{lines:?}");
        assert_eq!(lines[0]["data"]["SpecificCharacterSet"], answered);
        assert_eq!(lines[0]["data"]["PatientName"], "Yamada^Tarou=山田^太郎");
        let step = &lines[0]["data"]["ScheduledProcedureStepSequence"][0];
        assert_eq!(step["ScheduledProcedureStepDescription"], "頭部単純");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_cancels_gets_its_last_answer_and_the_finder_is_told() {
    let site = site(Worklist::Endless(entry("A1"), Duration::from_millis(100))).await;
    let find = json!([
        { "do": "find", "data": { "PatientName": "" }, "cancel_after": 2 },
        // The association goes on.
        { "do": "create", "class": "1.2.840.10008.5.1.4.33", "instance": "1.2",
          "data": { "RetrieveAETitle": "PACS" } },
    ]);
    let lines = modality(site.port, &[], find).await;
    let answers = statuses(&lines);
    assert_eq!(answers[answers.len() - 2..], ["FE00", "0120"], "{answers:?}");
    assert!(answers.len() < 20, "{answers:?}");
    site.until("the finder is told", |seen| seen.unwanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_without_end_stops_at_the_limit_and_one_cut_short_is_a_failure() {
    let endless = site(Worklist::Endless(entry("A1"), Duration::ZERO)).await;
    let find = || json!([{ "do": "find", "data": { "PatientName": "" } }]);
    let lines = modality(endless.port, &[], find()).await;
    let answers = statuses(&lines);
    assert_eq!((answers.len(), *answers.last().unwrap()), (51, "B001"));
    endless.until("the finder is told", |seen| seen.unwanted).await;
    let broken = site(Worklist::Broken(entry("A1"))).await;
    let lines = modality(broken.port, &[], find()).await;
    assert_eq!(statuses(&lines), ["FF00", "C000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_goes_away_in_the_middle_of_its_query_is_let_go() {
    let site = site(Worklist::Endless(entry("A1"), Duration::from_millis(50))).await;
    let find = json!([{ "do": "find", "data": { "PatientName": "" }, "abort_after": 1 }]);
    let lines = modality(site.port, &[], find).await;
    assert_eq!(statuses(&lines), ["FF00"]);
    site.until("the finder is told", |seen| seen.unwanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_heeded_as_dcmtk_says_it() {
    let site = site(Worklist::Endless(entry("A1"), Duration::from_millis(50))).await;
    let port = site.port.to_string();
    let arguments = ["-v", "-W", "--cancel", "1", "-aec", "HIKYAKU", "127.0.0.1", &port];
    let output = run("findscu", &[&arguments[..], &["-k", "PatientName"]].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // Not the fifty of the limit.
    assert!(said.matches("(Pending)").count() < 20, "{said}");
    assert!(said.contains("Final Find Response (Cancel"), "{said}");
    site.until("the finder is told", |seen| seen.unwanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_performs_services_their_classes_are_not_accepted() {
    let site = Site::storage_only().await;
    let port = site.port.to_string();
    let arguments = ["-v", "-W", "-aec", "HIKYAKU", "127.0.0.1", &port, "-k", "PatientName"];
    let output = run("findscu", &arguments).await;
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("No Acceptable Presentation Contexts"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identifier_is_needed_and_a_huge_one_is_refused() {
    let site = site(Worklist::Nothing).await;
    let huge = "x".repeat(5 << 20);
    let steps = json!([
        { "do": "find", "data": { "TextValue": huge } },
        { "do": "bare", "field": 0x20, "class": WORKLIST },
    ]);
    let lines = modality(site.port, &[], steps).await;
    assert_eq!(statuses(&lines), ["A700", "A900"], "{lines:?}");
}
