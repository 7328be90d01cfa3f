//! What this program asks of a foreign RIS and archive.

use std::time::{Duration, Instant};

use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use hikyaku::dicom::command::StoreRequest;
use hikyaku::dicom::dataset::text;
use hikyaku::dicom::text::Repertoire;
use hikyaku::dicom::{
    EXPLICIT_VR_LE, MODALITY_WORKLIST, PERFORMED_STEP, STUDY_ROOT_GET, STUDY_ROOT_MOVE,
};
use hikyaku::inquiry::{self, InquiryError, OpenError, Query, Receiver};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::foreign::Foreign;
use crate::ports;
use crate::site::target;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn identifier() -> InMemDicomObject {
    InMemDicomObject::from_element_iter([
        DataElement::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, "STUDY"),
        DataElement::new(tags::PATIENT_NAME, VR::PN, "山*"),
        DataElement::new(tags::PATIENT_ID, VR::LO, ""),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_passed_on_and_the_answer_is_the_peers() {
    let set = identifier();
    for (status, done) in [("0000", true), ("0111", false), ("B000", true)] {
        let ris = Foreign::start(&["--status", status]);
        let target = target(ris.port, "FOREIGN");
        let japanese = Repertoire::JAPANESE;
        let created = inquiry::n_create(&target, PERFORMED_STEP, "1.2", &set, japanese).await;
        let created = created.unwrap();
        assert_eq!((format!("{:04X}", created.status), created.is_done()), (status.into(), done));
        let changed = inquiry::n_set(&target, PERFORMED_STEP, "1.2", &set, japanese).await;
        assert_eq!(format!("{:04X}", changed.unwrap().status), status);
        let heard = ris.heard(2);
        assert_eq!((&heard[0]["do"], &heard[1]["do"]), (&json!("create"), &json!("set")));
        assert_eq!(heard[1]["instance"], "1.2");
        assert_eq!(heard[0]["data"]["PatientName"], "山*");
    }
    let ris = Foreign::start(&[]);
    let target = target(ris.port, "FOREIGN");
    let made = inquiry::n_create(&target, PERFORMED_STEP, "", &set, Repertoire::UTF8).await;
    assert_eq!(made.unwrap().sop_instance, "2.25.42");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_gives_match_after_match_in_unicode_and_says_how_it_ended() {
    for charset in ["ISO_IR 192", "\\ISO 2022 IR 87"] {
        let ris = Foreign::start(&["--matches", "4", "--charset", charset]);
        let target = target(ris.port, "FOREIGN");
        let (utf8, set) = (Repertoire::UTF8, identifier());
        let (found, end) =
            inquiry::find(&target, MODALITY_WORKLIST, &set, utf8, 100).await.unwrap();
        let ids: Vec<_> = found.iter().map(|m| text(m, tags::PATIENT_ID)).collect();
        assert_eq!(ids, ["0", "1", "2", "3"]);
        assert_eq!(text(&found[0], tags::PATIENT_NAME), "Yamada^Tarou=山田^太郎");
        assert_eq!((end.answer.status, end.more), (0, false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_cancelled_at_its_limit_and_when_the_caller_has_enough() {
    let ris = Foreign::start(&["--matches", "1000", "--pace", "0.05"]);
    let target = target(ris.port, "FOREIGN");
    let (utf8, set) = (Repertoire::UTF8, identifier());
    let (found, end) = inquiry::find(&target, MODALITY_WORKLIST, &set, utf8, 3).await.unwrap();
    assert_eq!((found.len(), end.more, end.answer.status), (3, true, 0xFE00));
    let mut query = Query::begin(&target, MODALITY_WORKLIST, &set, utf8, 500).await.unwrap();
    assert!(query.next().await.unwrap().is_some());
    let end = query.cancel().await.unwrap().unwrap();
    assert_eq!((end.more, end.answer.status), (true, 0xFE00));
    let heard = ris.heard(4);
    assert_eq!((&heard[1]["do"], &heard[3]["do"]), (&json!("cancelled"), &json!("cancelled")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_comes_to_an_end_is_left_when_its_time_is_up() {
    let deaf = Foreign::start(&["--matches", "100000", "--pace", "0.01", "--deaf"]);
    let mut target = target(deaf.port, "FOREIGN");
    let (utf8, set) = (Repertoire::UTF8, identifier());
    let second = Duration::from_secs(1);
    // Of a whole query, and from the C-CANCEL on.
    for (operation, response, limit) in [(second, 60 * second, 9999), (60 * second, second, 1)] {
        target.timeouts.operation = operation;
        target.timeouts.response = response;
        let began = Instant::now();
        let found = inquiry::find(&target, MODALITY_WORKLIST, &set, utf8, limit).await;
        assert!(matches!(found, Err(InquiryError::Broke(_))), "{found:?}");
        assert!((second..10 * second).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_silent_or_not_there_costs_no_more_than_its_time() {
    let silent = Foreign::start(&["--silent"]);
    let mut target = target(silent.port, "FOREIGN");
    target.timeouts.response = Duration::from_secs(1);
    let began = Instant::now();
    let (utf8, set) = (Repertoire::UTF8, identifier());
    let answer = inquiry::n_create(&target, PERFORMED_STEP, "1.2", &set, utf8).await;
    assert!(matches!(answer, Err(InquiryError::Broke(_))), "{answer:?}");
    let found = inquiry::find(&target, MODALITY_WORKLIST, &set, utf8, 3).await;
    assert!(matches!(found, Err(InquiryError::Broke(_))), "{found:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    target.port = ports::free();
    let answer = inquiry::n_create(&target, PERFORMED_STEP, "1.2", &set, utf8).await;
    assert!(matches!(answer, Err(InquiryError::Open(OpenError::Connect(_)))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_the_peer_does_not_take_is_told_apart_from_a_peer_that_is_down() {
    let ris = Foreign::start(&[]);
    let target = target(ris.port, "FOREIGN");
    let (utf8, set) = (Repertoire::UTF8, identifier());
    let answer = inquiry::n_create(&target, "1.2.840.10008.5.1.4.34.6.1", "1.2", &set, utf8).await;
    assert!(matches!(answer, Err(InquiryError::NotTaken(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_a_stranger_is_a801() {
    let archive = Foreign::start(&[]);
    let target = target(archive.port, "FOREIGN");
    let never = CancellationToken::new();
    let to = "NOBODY".parse().unwrap();
    let moved =
        inquiry::move_to(&target, STUDY_ROOT_MOVE, &to, &identifier(), &never, |_| {}).await;
    assert_eq!(moved.unwrap().answer.status, 0xA801);
    assert_eq!(archive.heard(1)[0]["to"], "NOBODY");
}

/// Counts, and refuses what it is told to.
#[derive(Default)]
struct Counting {
    images: Vec<(String, usize)>,
    refuse: Option<&'static str>,
    /// Cancelled when the first image is whole.
    enough: Option<CancellationToken>,
}

impl Receiver for Counting {
    async fn begin(&mut self, request: &StoreRequest, syntax: &str) {
        assert_eq!(syntax, EXPLICIT_VR_LE);
        self.images.push((request.sop_instance.clone(), 0));
    }

    async fn push(&mut self, bytes: &[u8]) {
        self.images.last_mut().unwrap().1 += bytes.len();
    }

    async fn finish(&mut self) -> u16 {
        if let Some(enough) = &self.enough {
            enough.cancel();
        }
        let refused = self.images.last().map(|(uid, _)| uid.as_str()) == self.refuse;
        if refused { 0xA700 } else { 0 }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_images_of_a_get_come_on_the_same_association_and_what_we_refuse_is_named() {
    let archive = Foreign::start(&["--images", "3"]);
    let target = target(archive.port, "FOREIGN");
    let never = CancellationToken::new();
    for (refuse, status, failed) in [(None, 0, vec![]), (Some("1.2.3.1"), 0xB000, vec!["1.2.3.1"])]
    {
        let classes = vec![(CT.to_owned(), vec![EXPLICIT_VR_LE.to_owned()])];
        let mut counting = Counting { refuse, ..Counting::default() };
        let got =
            inquiry::get(&target, STUDY_ROOT_GET, classes, &identifier(), &never, &mut counting)
                .await
                .unwrap();
        assert_eq!(
            (got.answer.status, got.failed),
            (status, failed.iter().map(|s| (*s).to_owned()).collect())
        );
        assert_eq!(usize::from(got.counts.completed), 3 - failed.len());
        assert!(counting.images.iter().all(|(_, length)| *length > 200_000));
        assert_eq!(counting.images.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_is_cancelled_ends_with_the_peers_last_word() {
    let archive = Foreign::start(&["--images", "300"]);
    let target = target(archive.port, "FOREIGN");
    let enough = CancellationToken::new();
    let classes = vec![(CT.to_owned(), vec![EXPLICIT_VR_LE.to_owned()])];
    let mut counting = Counting { enough: Some(enough.clone()), ..Counting::default() };
    let got =
        inquiry::get(&target, STUDY_ROOT_GET, classes, &identifier(), &enough, &mut counting).await;
    assert_eq!(got.unwrap().answer.status, 0xFE00);
    assert!((1..300).contains(&counting.images.len()), "{}", counting.images.len());
}
