//! Storage commitment: asked for by a foreign modality, and reported back to it.

use std::time::Duration;

use hikyaku::inquiry::{self, InquiryError, OpenError};
use hikyaku::intake::Limits;
use hikyaku::intake::services::ReportError;
use serde_json::{Value, json};

use crate::foreign::{Foreign, modality, statuses};
use crate::ports;
use crate::recorder::{Recorder, Reporting};
use crate::site::{Site, target};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn request(transaction: &str, instances: &[&str]) -> Value {
    let reference =
        |uid: &&str| json!({ "ReferencedSOPClassUID": CT, "ReferencedSOPInstanceUID": uid });
    let instances: Vec<_> = instances.iter().map(reference).collect();
    json!({ "do": "action",
            "data": { "TransactionUID": transaction, "ReferencedSOPSequence": instances } })
}

fn events(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|l| l.get("event").is_some()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_reported_on_the_same_association_and_never_before_the_yes() {
    let mut recorder = Recorder::new();
    recorder.reporting = Reporting::AtOnce;
    let site = Site::start(recorder).await;
    let steps = json!([request("1.5", &["1.1", "1.2"]), { "do": "events", "n": 1 },
                       { "do": "received" }]);
    let lines = modality(site.port, &[], steps).await;
    assert_eq!(statuses(&lines), ["0000"], "{lines:?}");
    let [event] = &events(&lines)[..] else { panic!("{lines:?}") };
    assert_eq!((&event["event"], &event["own_association"]), (&json!(1), &json!(true)));
    assert_eq!(event["data"]["TransactionUID"], "1.5");
    assert_eq!(event["data"]["ReferencedSOPSequence"].as_array().unwrap().len(), 2);
    let received = &lines.last().unwrap()["received"];
    assert_eq!(*received, json!(["N_ACTION_RSP", "N_EVENT_REPORT_RQ"]));
    site.until("the report is told", |seen| seen.reports == [Ok(())]).await;
    assert_eq!(site.seen().asked[0].1.instances.len(), 2);
    assert_eq!(site.seen().asked[0].0.calling.as_str(), "CT1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_here_makes_it_event_two_with_the_reason() {
    let mut recorder = Recorder::new();
    recorder.reporting = Reporting::AtOnce;
    recorder.lacking = vec!["1.2".into()];
    let site = Site::start(recorder).await;
    let steps = json!([request("1.5", &["1.1", "1.2"]), { "do": "events", "n": 1 }]);
    let lines = modality(site.port, &[], steps).await;
    let [event] = &events(&lines)[..] else { panic!("{lines:?}") };
    assert_eq!(event["event"], 2);
    let failed = &event["data"]["FailedSOPSequence"][0];
    assert_eq!(failed["ReferencedSOPInstanceUID"], "1.2");
    assert_eq!(failed["FailureReason"], (0x0112).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_meant_are_refused_with_the_status_that_says_why() {
    let site = Site::start(Recorder::new()).await;
    let with = |key: &str, value: Value| {
        let mut step = request("1.5", &["1.1"]);
        step[key] = value;
        step
    };
    let lines = modality(
        site.port,
        &[],
        json!([
            with("type", json!(2)),
            with("instance", json!("1.2.3")),
            with("data", json!({ "TransactionUID": "1.5" })),
            request("1.5", &["1.1"]),
        ]),
    )
    .await;
    assert_eq!(statuses(&lines), ["0123", "0112", "0115", "0000"], "{lines:?}");
    assert_eq!(site.seen().asked.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reporter_learns_of_a_refusal_of_silence_and_of_the_end_of_the_association() {
    let refused = ["--event-status", "0110"];
    let silent = ["--event-delay", "3"];
    let cases = [
        (&refused[..], json!({ "do": "events", "n": 1 }), ReportError::Refused(0x0110)),
        (&silent[..], json!({ "do": "events", "n": 1 }), ReportError::Unanswered),
        (&[][..], json!({ "do": "release" }), ReportError::Gone),
        (&[][..], json!({ "do": "abort" }), ReportError::Gone),
    ];
    for (options, last, expected) in cases {
        let mut recorder = Recorder::new();
        recorder.reporting = match expected {
            ReportError::Gone => Reporting::After(Duration::from_secs(1)),
            _ => Reporting::AtOnce,
        };
        let limits = Limits { dimse: Duration::from_secs(1), ..Limits::default() };
        let site = Site::with(recorder, limits).await;
        let lines = modality(site.port, options, json!([request("1.5", &["1.1"]), last])).await;
        assert_eq!(statuses(&lines), ["0000"]);
        site.until("the reporter is told", |seen| !seen.reports.is_empty()).await;
        assert_eq!(site.seen().reports, [Err(expected)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_release_the_outcome_comes_on_an_association_of_ours_with_the_roles_reversed() {
    let site = Site::start(Recorder::new()).await;
    let port = ports::free();
    let listen = port.to_string();
    let options = ["--listen", &listen, "--strict"];
    let steps = json!([request("1.5", &["1.1"]), { "do": "release" }, { "do": "events", "n": 1 }]);
    let asking = tokio::spawn({
        let (own, options) = (site.port, options.map(str::to_owned));
        async move { modality(own, &options.each_ref().map(String::as_str), steps).await }
    });
    site.until("commitment is asked for", |seen| !seen.asked.is_empty()).await;
    let outcome = Recorder::outcome(&site.seen().asked[0].1, &[]);
    let answer = inquiry::event_report(&target(port, "CT1"), &outcome).await.unwrap();
    assert_eq!(answer.status, 0);
    let lines = asking.await.unwrap();
    let [event] = &events(&lines)[..] else { panic!("{lines:?}") };
    assert_eq!((&event["event"], &event["own_association"]), (&json!(1), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_peer_takes_the_event_only_in_the_role_of_an_scp_and_may_refuse_it() {
    let asked = hikyaku::dicom::commitment::Asked {
        transaction: "1.5".into(),
        instances: vec![],
        retrieve_ae: None,
    };
    let outcome = Recorder::outcome(&asked, &[]);
    let strict = Foreign::start(&["--strict"]);
    let answer = inquiry::event_report(&target(strict.port, "FOREIGN"), &outcome).await.unwrap();
    assert_eq!((answer.status, answer.is_done()), (0, true));
    let heard = strict.heard(1);
    assert_eq!((&heard[0]["do"], &heard[0]["type"]), (&json!("event"), &json!(1)));
    // The same peer rejects whoever comes without the role.
    let (class, set) = (hikyaku::dicom::STORAGE_COMMITMENT, outcome.data_set());
    let utf8 = hikyaku::dicom::text::Repertoire::UTF8;
    let as_scu = target(strict.port, "FOREIGN");
    let rejected = inquiry::n_create(&as_scu, class, "", &set, utf8).await;
    assert!(matches!(rejected, Err(InquiryError::Open(OpenError::Ended(_)))), "{rejected:?}");
    let refusing = Foreign::start(&["--refuse-role"]);
    let refused = inquiry::event_report(&target(refusing.port, "FOREIGN"), &outcome).await;
    assert!(matches!(refused, Err(InquiryError::NotTaken(_))), "{refused:?}");
    let failing = Foreign::start(&["--status", "0110"]);
    let answer = inquiry::event_report(&target(failing.port, "FOREIGN"), &outcome).await.unwrap();
    assert_eq!((answer.status, answer.is_done()), (0x0110, false));
}
