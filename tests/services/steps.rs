//! Performed procedure steps and availability notices from a foreign modality.

use hikyaku::dicom::dataset::text;
use hikyaku::dicom::performed::{self, StepStatus};
use serde_json::{Value, json};

use crate::foreign::{modality, statuses};
use crate::recorder::Recorder;
use crate::site::Site;

const MPPS: &str = "1.2.840.10008.3.1.2.3.3";
const IAN: &str = "1.2.840.10008.5.1.4.33";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn begun() -> Value {
    json!({
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎",
        "PatientID": "P1",
        "PerformedProcedureStepID": "PPS1",
        "PerformedStationAETitle": "CT1",
        "PerformedProcedureStepStartDate": "20261122",
        "PerformedProcedureStepStartTime": "101500",
        "PerformedProcedureStepStatus": "IN PROGRESS",
        "Modality": "CT",
        "ScheduledStepAttributesSequence": [{ "StudyInstanceUID": "1.2.3", "AccessionNumber": "A1" }],
        "PerformedSeriesSequence": [],
    })
}

fn without(keyword: &str) -> Value {
    let mut data = begun();
    data.as_object_mut().unwrap().remove(keyword);
    data
}

fn with(keyword: &str, value: &str) -> Value {
    let mut data = begun();
    data[keyword] = json!(value);
    data
}

fn create(instance: &str, data: &Value) -> Value {
    json!({ "do": "create", "class": MPPS, "instance": instance, "data": data })
}

fn set(instance: &str, data: &Value) -> Value {
    json!({ "do": "set", "class": MPPS, "instance": instance, "data": data })
}

fn completed() -> Value {
    json!({
        "PerformedProcedureStepStatus": "COMPLETED",
        "PerformedProcedureStepEndDate": "20261122",
        "PerformedProcedureStepEndTime": "102000",
        "PerformedSeriesSequence": [{
            "SeriesInstanceUID": "1.2.3.4",
            "ReferencedImageSequence": [
                { "ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": "1.2.3.4.1" },
                { "ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": "1.2.3.4.2" },
            ],
        }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_begins_changes_and_ends_and_its_images_are_known_by_uid() {
    for syntax in ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"] {
        let site = Site::start(Recorder::new()).await;
        let lines = modality(
            site.port,
            &["--syntax", syntax],
            json!([create("1.9", &begun()), set("1.9", &completed())]),
        )
        .await;
        assert_eq!(statuses(&lines), ["0000", "0000"], "{lines:?}");
        let seen = site.seen();
        let (step, status) = &seen.steps["1.9"];
        assert_eq!(*status, Some(StepStatus::Completed));
        let name = text(step, dicom_dictionary_std::tags::PATIENT_NAME);
        assert_eq!(name, "Yamada^Tarou=山田^太郎");
        let series = performed::performed_series(&seen.changes[0].attributes);
        let uids: Vec<_> = series[0].instances.iter().map(|i| i.instance.as_str()).collect();
        assert_eq!((series.len(), uids), (1, vec!["1.2.3.4.1", "1.2.3.4.2"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_of_a_step_has_its_own_status() {
    let site = Site::start(Recorder::new()).await;
    let long = "x".repeat(60);
    let cases = [
        (create("1.1", &without("Modality")), "0120"),
        (create("1.1", &with("Modality", "")), "0121"),
        (create("1.1", &with("PerformedProcedureStepStatus", "COMPLETED")), "0106"),
        (create("1.1", &without("ScheduledStepAttributesSequence")), "0120"),
        (create("1.1", &with("PatientComments", &long)), "0000"),
        (create("1.1", &begun()), "0111"),
        (set("1.7", &completed()), "0112"),
        (set("1.1", &json!({ "PerformedProcedureStepStatus": "FINISHED" })), "0106"),
        (
            set(
                "1.1",
                &json!({ "PerformedProcedureStepStatus": "COMPLETED",
                         "PerformedSeriesSequence": [] }),
            ),
            "0121",
        ),
        // What is mandatory at the end may have been said before, but must have been said.
        (set("1.1", &json!({ "PerformedProcedureStepStatus": "COMPLETED" })), "0120"),
        (set("1.1", &json!({ "PerformedProcedureStepEndDate": "20261122" })), "0000"),
        (set("1.1", &json!({ "PerformedProcedureStepStatus": "COMPLETED" })), "0120"),
        (set("../1", &completed()), "0117"),
        (set("1.1", &json!({ "PerformedProcedureStepStatus": "DISCONTINUED" })), "0000"),
        (set("1.1", &json!({ "PerformedProcedureStepStatus": "IN PROGRESS" })), "0110"),
        (set("1.1", &completed()), "0110"),
    ];
    let steps: Vec<_> = cases.iter().map(|(step, _)| step.clone()).collect();
    let lines = modality(site.port, &[], json!(steps)).await;
    let expected: Vec<_> = cases.iter().map(|(_, status)| *status).collect();
    assert_eq!(statuses(&lines), expected, "{lines:#?}");
    // pynetdicom shows the Attribute Identifier List of N-SET, not that of N-CREATE.
    assert_eq!(lines[8]["attributes"], json!(["(0040,0340)"]));
    // PS3.4 Table F.7.2-2, word for word.
    for line in &lines[lines.len() - 2..] {
        assert_eq!(line["error_id"], json!(0xA710), "{line}");
        assert_eq!(line["comment"], "Performed Procedure Step Object may no longer be updated");
    }
    assert_eq!(site.seen().steps["1.1"].1, Some(StepStatus::Discontinued));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_data_set_and_with_too_large_a_one_are_refused_and_the_next_is_served() {
    let site = Site::start(Recorder::new()).await;
    let huge = with("TextValue", &"x".repeat(5 << 20));
    let lines = modality(
        site.port,
        &[],
        json!([
            { "do": "bare", "field": 0x140, "class": MPPS },
            { "do": "bare", "field": 0x120, "class": MPPS, "instance": "1.5" },
            { "do": "bare", "field": 0x130, "class": "1.2.840.10008.1.20.1",
              "instance": "1.2.840.10008.1.20.1.1" },
            create("1.1", &huge),
            create("1.1", &begun()),
        ]),
    )
    .await;
    assert_eq!(statuses(&lines), ["0120", "0112", "0115", "0213", "0000"], "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_of_availability_is_taken_with_every_instance() {
    let site = Site::start(Recorder::new()).await;
    let instance = |uid: &str, availability: &str| {
        json!({ "ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": uid,
                "InstanceAvailability": availability, "RetrieveAETitle": "PACS" })
    };
    let notice = |availability: &str| {
        let instances = [instance("1.2.1", "ONLINE"), instance("1.2.2", availability)];
        let series = json!([{ "SeriesInstanceUID": "1.3", "ReferencedSOPSequence": instances }]);
        let data = json!({ "StudyInstanceUID": "1.2", "ReferencedSeriesSequence": series,
                           "ReferencedPerformedProcedureStepSequence": [] });
        json!({ "do": "create", "class": IAN, "instance": "1.8", "data": data })
    };
    let lines = modality(site.port, &[], json!([notice("UNAVAILABLE"), notice("SOMEWHERE")])).await;
    assert_eq!(statuses(&lines), ["0000", "0106"], "{lines:?}");
    let seen = site.seen();
    assert_eq!(seen.notices.len(), 1);
    let uids: Vec<_> =
        seen.notices[0].instances.iter().map(|i| i.reference.instance.as_str()).collect();
    assert_eq!((seen.notices[0].study.as_str(), uids), ("1.2", vec!["1.2.1", "1.2.2"]));
}
