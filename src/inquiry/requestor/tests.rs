use dicom_ul::pdu::{AbortRQSource, PresentationContextResult};
use proptest::prelude::*;

use super::*;
use crate::dicom::command::{Priority, SubOperations};
use crate::dicom::pdata::Decoder;
use crate::dicom::{STORAGE_COMMITMENT, STUDY_ROOT_FIND, STUDY_ROOT_GET, VERIFICATION};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

fn asking(wanted: Vec<Wanted>) -> Requestor {
    Requestor::new(&"US".parse().unwrap(), &"THEM".parse().unwrap(), wanted).0
}

fn accepted(syntaxes: &[&str], roles: Vec<UserVariableItem>) -> Event {
    let result = |(n, syntax): (usize, &&str)| PresentationContextResult {
        id: context_id(n),
        reason: PresentationContextResultReason::Acceptance,
        transfer_syntax: (*syntax).to_owned(),
    };
    Event::Pdu(Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        calling_ae_title: "US".into(),
        called_ae_title: "THEM".into(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: syntaxes.iter().enumerate().map(result).collect(),
        user_variables: roles,
    }))
}

fn open(classes: &[&str]) -> Requestor {
    let mut r = asking(classes.iter().map(|c| Wanted::scu(c)).collect());
    let syntaxes = vec![EXPLICIT_VR_LE; classes.len()];
    assert_eq!(r.on_event(accepted(&syntaxes, vec![])), Ok(Meaning::Accepted));
    r
}

fn command(context: u8, command: &Command) -> Event {
    let data = Bytes::from(command.encode());
    Event::Fragment(Fragment { context, command: true, last: true, data })
}

fn data(context: u8, bytes: &'static [u8], last: bool) -> Event {
    let data = Bytes::from_static(bytes);
    Event::Fragment(Fragment { context, command: false, last, data })
}

fn response(field: u16, responded_to: u16, status: u16, has_data_set: bool) -> Response {
    Response { field, responded_to, status, has_data_set, ..Response::default() }
}

fn find(r: &mut Requestor) -> Vec<u8> {
    r.begin(1, Operation::Find(Priority::Medium), STUDY_ROOT_FIND, "")
}

#[test]
fn a_query_is_answered_match_by_match_until_the_final_answer() {
    let mut r = open(&[STUDY_ROOT_FIND]);
    let bytes = find(&mut r);
    assert!(matches!(Command::decode(&bytes), Ok(Command::Request(rq)) if rq.message_id == 1));
    let pending = response(0x8020, 1, 0xFF00, true);
    for _ in 0..3 {
        let event = command(1, &Command::Response(pending.clone()));
        assert_eq!(r.on_event(event), Ok(Meaning::Nothing));
        assert_eq!(r.on_event(data(1, b"ab", false)), Ok(Meaning::Nothing));
        let expected = Meaning::Answer(Box::new(pending.clone()), Some(Bytes::from("abcd")));
        assert_eq!(r.on_event(data(1, b"cd", true)), Ok(expected));
    }
    assert!(r.cancel().is_some());
    let end = response(0x8020, 1, 0, false);
    let expected = Meaning::Answer(Box::new(end.clone()), None);
    assert_eq!(r.on_event(command(1, &Command::Response(end))), Ok(expected));
    assert!(r.cancel().is_none(), "nothing is under way any more");
    find(&mut r);
}

#[test]
fn an_answer_to_another_message_in_another_context_or_to_nothing_ends_the_association() {
    let cases = [(1, 0x8020, 2), (1, 0x8021, 1), (3, 0x8020, 1)];
    for (context, field, message_id) in cases {
        let mut r = open(&[STUDY_ROOT_FIND, VERIFICATION]);
        find(&mut r);
        let rsp = Command::Response(response(field, message_id, 0, false));
        assert!(matches!(r.on_event(command(context, &rsp)), Err(Ending::Broken(_))));
    }
    let rsp = Command::Response(response(0x8020, 1, 0, false));
    let ended = open(&[STUDY_ROOT_FIND]).on_event(command(1, &rsp));
    assert!(matches!(ended, Err(Ending::Broken(_))));
}

#[test]
fn an_answer_without_end_is_cut() {
    static PIECE: [u8; 1 << 20] = [0; 1 << 20];
    let mut r = open(&[STUDY_ROOT_FIND]);
    find(&mut r);
    let pending = Command::Response(response(0x8020, 1, 0xFF00, true));
    r.on_event(command(1, &pending)).unwrap();
    let ended = (0..5).any(|_| r.on_event(data(1, &PIECE, false)).is_err());
    assert!(ended);
}

#[test]
fn the_role_of_an_scp_is_asked_for_and_only_a_no_is_a_no() {
    let (_, request) = Requestor::new(
        &"US".parse().unwrap(),
        &"THEM".parse().unwrap(),
        vec![Wanted::scp(STORAGE_COMMITMENT)],
    );
    let Pdu::AssociationRQ(rq) = request else { panic!() };
    let role = |scu, scp| {
        let roles = RequestorRoles { scu, scp };
        UserVariableItem::ScuScpRoleSelectionSubItem(STORAGE_COMMITMENT.into(), roles)
    };
    assert!(rq.user_variables.contains(&role(false, true)));
    for (answer, good) in
        [(vec![role(false, true)], true), (vec![], true), (vec![role(true, false)], false)]
    {
        let mut r = asking(vec![Wanted::scp(STORAGE_COMMITMENT)]);
        r.on_event(accepted(&[IMPLICIT_VR_LE], answer)).unwrap();
        let context = r.context(STORAGE_COMMITMENT);
        assert_eq!(context.is_ok(), good);
        if let Err(e) = context {
            assert_eq!(e, NotTaken::Role(STORAGE_COMMITMENT.into()));
        }
    }
}

#[test]
fn a_class_that_is_wanted_in_several_contexts_has_one_role_and_any_of_them_may_be_taken() {
    let wanted = |syntax: &str| Wanted { syntaxes: vec![syntax.into()], ..Wanted::scp(CT) };
    let (mut r, request) = Requestor::new(
        &"US".parse().unwrap(),
        &"THEM".parse().unwrap(),
        vec![Wanted::scu(STUDY_ROOT_GET), wanted("1.2.840.10008.1.2.4.70"), wanted(IMPLICIT_VR_LE)],
    );
    let Pdu::AssociationRQ(rq) = request else { panic!() };
    let role =
        |v: &&UserVariableItem| matches!(v, UserVariableItem::ScuScpRoleSelectionSubItem(..));
    assert_eq!(rq.user_variables.iter().filter(role).count(), 1);
    let syntaxes = [EXPLICIT_VR_LE, "1.2.840.10008.1.2.4.70", IMPLICIT_VR_LE];
    r.on_event(accepted(&syntaxes, vec![])).unwrap();
    let syntax = |id| r.context_of(id).map(|c| c.syntax.as_str());
    assert_eq!([syntax(3), syntax(5)], [Some("1.2.840.10008.1.2.4.70"), Some(IMPLICIT_VR_LE)]);
}

#[test]
fn a_context_that_is_refused_or_answered_with_a_foreign_syntax_is_not_used() {
    let mut r = asking(vec![Wanted::scu(STUDY_ROOT_FIND), Wanted::scu(CT)]);
    r.on_event(accepted(&["1.2.840.10008.1.2.2"], vec![])).unwrap();
    assert!(matches!(r.context(STUDY_ROOT_FIND), Err(NotTaken::Context(..))));
    assert!(matches!(r.context(CT), Err(NotTaken::Context(_, "no answer"))));
    assert!(matches!(r.context("1.2"), Err(NotTaken::Context(_, "it was not asked"))));
}

#[test]
fn the_images_of_a_get_come_between_its_answers_and_those_of_a_find_end_it() {
    let store = Command::StoreRequest(StoreRequest {
        message_id: 9,
        sop_class: CT.into(),
        sop_instance: "1.2".into(),
        has_data_set: true,
        ..StoreRequest::default()
    });
    let mut r = open(&[STUDY_ROOT_GET, CT]);
    r.begin(1, Operation::Get(Priority::Medium), STUDY_ROOT_GET, "");
    assert!(matches!(r.on_event(command(3, &store)), Ok(Meaning::Store(3, _))));
    let piece = Meaning::Data(Bytes::from("ab"), false);
    assert_eq!(r.on_event(data(3, b"ab", false)), Ok(piece));
    assert_eq!(r.on_event(data(3, b"", true)), Ok(Meaning::Data(Bytes::new(), true)));
    let counts = SubOperations { completed: 1, ..SubOperations::default() };
    let end = Response { sub_operations: Some(counts), ..response(0x8010, 1, 0, false) };
    let meaning = r.on_event(command(1, &Command::Response(end)));
    assert!(
        matches!(meaning, Ok(Meaning::Answer(rsp, None)) if rsp.sub_operations == Some(counts))
    );
    let mut r = open(&[STUDY_ROOT_FIND, CT]);
    find(&mut r);
    assert!(matches!(r.on_event(command(3, &store)), Err(Ending::Broken(_))));
}

#[test]
fn an_abort_ends_the_association_and_so_does_a_release_in_the_middle() {
    let abort = Event::Pdu(Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
    let mut r = open(&[STUDY_ROOT_FIND]);
    find(&mut r);
    assert_eq!(r.on_event(abort), Err(Ending::Aborted));
    let mut r = open(&[STUDY_ROOT_FIND]);
    find(&mut r);
    assert!(matches!(r.on_event(Event::Pdu(Pdu::ReleaseRQ)), Err(Ending::Broken(_))));
    let mut r = open(&[STUDY_ROOT_FIND]);
    assert_eq!(r.release(), Pdu::ReleaseRQ);
    assert_eq!(r.on_event(Event::Pdu(Pdu::ReleaseRP)), Ok(Meaning::Released));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 1u8..8) {
        let mut stream = vec![kind, 0];
        stream.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        stream.extend_from_slice(&bytes);
        let mut buffer = BytesMut::from(&stream[..]);
        let mut decoder = Decoder::new();
        let mut r = open(&[STUDY_ROOT_FIND]);
        find(&mut r);
        while let Ok(Some(event)) = decoder.poll(&mut buffer) {
            if r.on_event(event).is_err() {
                break;
            }
        }
    }
}
