use bytes::Bytes;
use dicom_ul::pdu::{
    AbortRQSource, AssociationAC, AssociationRJ, AssociationRJResult,
    AssociationRJServiceUserReason, AssociationRJSource, PresentationContextResultReason,
};
use proptest::prelude::*;

use super::*;
use crate::delivery::contexts::{Pair, Recent, Way};
use crate::dicom::EXPLICIT_VR_LE;
use crate::dicom::command::Response;
use crate::dicom::pdata::{Decoder, Fragment};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn pair() -> Pair {
    Pair { sop_class: CT.into(), syntax: EXPLICIT_VR_LE.into() }
}

fn asking() -> Requestor {
    let proposal = Proposal::plan([&pair()], &Recent::default(), false);
    Requestor::new(&"US".parse().unwrap(), &"THEM".parse().unwrap(), proposal).0
}

fn accepted() -> Event {
    Event::Pdu(Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        calling_ae_title: "US".into(),
        called_ae_title: "THEM".into(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: vec![PresentationContextResult {
            id: 1,
            reason: PresentationContextResultReason::Acceptance,
            transfer_syntax: EXPLICIT_VR_LE.into(),
        }],
        user_variables: vec![UserVariableItem::MaxLength(4096)],
    }))
}

fn open() -> Requestor {
    let mut r = asking();
    assert_eq!(r.on_event(accepted()), Ok(Meaning::Accepted));
    r
}

fn answer(status: u16) -> Answer {
    Answer { status, offending: vec![], comment: String::new() }
}

fn response(responded_to: u16, status: u16) -> Event {
    let rsp = Response {
        field: field::C_STORE_RSP,
        responded_to,
        sop_class: CT.into(),
        sop_instance: "1.2".into(),
        status,
        ..Response::default()
    };
    let data = Bytes::from(Command::Response(rsp).encode());
    Event::Fragment(Fragment { context: 1, command: true, last: true, data })
}

#[test]
fn a_store_is_answered_by_the_response_to_its_own_message() {
    let mut r = open();
    assert_eq!(r.terms().way(&pair()), Way::AsIs(1));
    assert_eq!(r.write_length(), 4096);
    for message_id in 1..4 {
        let bytes = r.begin_store(CT, "1.2");
        let Ok(Command::StoreRequest(rq)) = Command::decode(&bytes) else { panic!() };
        assert_eq!((rq.message_id, rq.has_data_set), (message_id, true));
        assert_eq!(r.data_sent(), Ok(None));
        let meaning = Meaning::Answer(answer(0xB000));
        assert_eq!(r.on_event(response(message_id, 0xB000)), Ok(meaning));
    }
}

#[test]
fn a_response_to_another_message_is_no_answer() {
    let mut r = open();
    r.begin_store(CT, "1.2");
    r.data_sent().unwrap();
    assert!(matches!(r.on_event(response(2, 0)), Err(Ending::Broken(_))));
}

#[test]
fn a_response_that_was_not_asked_for_ends_the_association() {
    assert!(matches!(open().on_event(response(1, 0)), Err(Ending::Broken(_))));
    assert!(matches!(asking().on_event(response(1, 0)), Err(Ending::Broken(_))));
}

#[test]
fn a_success_before_the_data_set_was_sent_is_not_believed() {
    let mut r = open();
    r.begin_store(CT, "1.2");
    assert_eq!(r.on_event(response(1, 0)), Ok(Meaning::Nothing));
    assert!(matches!(r.data_sent(), Err(Ending::Broken(_))));
}

#[test]
fn a_refusal_before_the_data_set_was_sent_counts_once_it_was() {
    let mut r = open();
    r.begin_store(CT, "1.2");
    assert_eq!(r.on_event(response(1, 0xA700)), Ok(Meaning::Nothing));
    assert_eq!(r.data_sent(), Ok(Some(answer(0xA700))));
    r.begin_store(CT, "1.3");
}

#[test]
fn a_rejection_says_why_and_whether_for_good() {
    for (result, permanent) in
        [(AssociationRJResult::Permanent, true), (AssociationRJResult::Transient, false)]
    {
        let source = AssociationRJSource::ServiceUser(
            AssociationRJServiceUserReason::CalledAETitleNotRecognized,
        );
        let rj = Event::Pdu(Pdu::AssociationRJ(AssociationRJ { result, source }));
        let Err(e) = asking().on_event(rj) else { panic!() };
        let reason = "called AE title not recognized".to_owned();
        assert_eq!(e, Ending::Rejected { permanent, reason });
    }
}

#[test]
fn an_abort_ends_the_association_in_every_state() {
    let abort = || Event::Pdu(Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
    let mut sending = open();
    sending.begin_store(CT, "1.2");
    let mut waiting = open();
    waiting.begin_store(CT, "1.2");
    waiting.data_sent().unwrap();
    let mut releasing = open();
    releasing.release();
    for mut r in [asking(), open(), sending, waiting, releasing] {
        assert_eq!(r.on_event(abort()), Err(Ending::Aborted));
    }
}

#[test]
fn a_release_in_either_direction_ends_the_association_in_order() {
    let mut ours = open();
    assert_eq!(ours.release(), Pdu::ReleaseRQ);
    assert_eq!(ours.on_event(Event::Pdu(Pdu::ReleaseRP)), Ok(Meaning::Released));
    assert_eq!(open().on_event(Event::Pdu(Pdu::ReleaseRQ)), Ok(Meaning::PeerReleases));
    let mut busy = open();
    busy.begin_store(CT, "1.2");
    assert!(matches!(busy.on_event(Event::Pdu(Pdu::ReleaseRQ)), Err(Ending::Broken(_))));
}

#[test]
fn a_command_set_without_end_is_cut() {
    let mut r = open();
    let piece = || {
        let data = Bytes::from(vec![0; 16 * 1024]);
        Event::Fragment(Fragment { context: 1, command: true, last: false, data })
    };
    let ended = (0..10).any(|_| r.on_event(piece()).is_err());
    assert!(ended);
}

#[test]
fn message_ids_wrap_without_zero() {
    let mut r = open();
    for n in 0..=u16::MAX {
        let Ok(Command::StoreRequest(rq)) = Command::decode(&r.begin_store(CT, "1.2")) else {
            panic!()
        };
        assert_ne!(rq.message_id, 0, "after {n}");
        r.data_sent().unwrap();
        r.on_event(response(rq.message_id, 0)).unwrap();
    }
}

proptest! {
    #[test]
    fn a_data_set_arrives_whole_however_it_is_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..5000),
        cuts in proptest::collection::vec(0usize..700, 1..20),
        write_length in 8u32..600,
    ) {
        let mut framer = Framer::new(3, write_length);
        let (mut out, mut rest, mut cuts) = (vec![], &bytes[..], cuts.iter().cycle());
        loop {
            let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            framer.put(&mut out, now, later.is_empty());
            if later.is_empty() {
                break;
            }
            rest = later;
        }
        let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::from(&out[..]));
        let (mut seen, mut ended) = (vec![], 0);
        while let Some(event) = decoder.poll(&mut buffer).unwrap() {
            let Event::Fragment(f) = event else { panic!() };
            prop_assert!(!f.command && f.context == 3 && ended == 0);
            // PS3.8 F: fragments are even but for what ends the message.
            prop_assert!(f.last || f.data.len() % 2 == 0);
            seen.extend_from_slice(&f.data);
            ended += usize::from(f.last);
        }
        prop_assert_eq!((seen, ended), (bytes, 1));
    }
}
