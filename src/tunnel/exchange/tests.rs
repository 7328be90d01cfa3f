//! Both ends of a lane against every order of frames.

use super::super::frame::{Decoder, Withdraw, tests::envelope};
use super::*;
use proptest::prelude::*;

fn hello() -> Frame {
    Frame::Hello(Hello::of(&"a".parse().unwrap(), Purpose::Cargo))
}

fn greeted() -> Incoming {
    let mut incoming = Incoming::default();
    incoming.on_frame(hello()).unwrap();
    incoming
}

fn sender() -> Outgoing {
    let mut outgoing = Outgoing::default();
    outgoing.on_frame(hello()).unwrap();
    outgoing
}

fn offer(exchange: u64, length: u64, ask: bool) -> Frame {
    let envelope = Envelope { length, ..envelope(b"") };
    Frame::Offer(Box::new(Offer { exchange, envelope, coding: 0, ask }))
}

fn chunk(exchange: u64, n: usize) -> Frame {
    Frame::Chunk { exchange, bytes: vec![7; n].into() }
}

fn receipt(exchange: u64, already: bool) -> SignedReceipt {
    SignedReceipt { exchange, already, statement: vec![], signature: vec![] }
}

#[test]
fn a_lane_that_does_not_begin_with_hello_is_a_breach() {
    assert_eq!(Incoming::default().on_frame(offer(1, 1, false)), Err(Breach::Hello));
    let receipts = Frame::Receipts(vec![receipt(1, true)]);
    assert_eq!(Outgoing::default().on_frame(receipts), Err(Breach::Hello));
    assert_eq!(greeted().on_frame(hello()), Err(Breach::Hello));
}

#[test]
fn a_small_body_is_whole_with_its_last_byte() {
    let mut x = greeted();
    x.on_frame(offer(1, 10, false)).unwrap();
    assert!(matches!(x.on_frame(chunk(1, 6)), Ok(Step::Body { last: false, .. })));
    assert!(matches!(x.on_frame(chunk(1, 4)), Ok(Step::Body { last: true, .. })));
    assert_eq!(x.on_frame(chunk(1, 1)), Err(Breach::OutOfTurn(1)));
}

#[test]
fn bytes_beyond_the_offered_length_are_a_breach() {
    let mut x = greeted();
    x.on_frame(offer(1, 10, false)).unwrap();
    assert_eq!(x.on_frame(chunk(1, 11)), Err(Breach::TooLong(1)));
}

#[test]
fn an_empty_chunk_ends_a_body_that_has_no_bytes_left_and_no_other() {
    let mut x = greeted();
    x.on_frame(offer(1, 0, false)).unwrap();
    assert!(matches!(x.on_frame(chunk(1, 0)), Ok(Step::Body { last: true, .. })));
    x.on_frame(offer(2, 9 << 20, true)).unwrap();
    x.resume(2, 9 << 20);
    assert!(matches!(x.on_frame(chunk(2, 0)), Ok(Step::Body { last: true, .. })));
    x.on_frame(offer(3, 5, false)).unwrap();
    assert_eq!(x.on_frame(chunk(3, 0)), Err(Breach::Empty(3)));
}

#[test]
fn a_body_that_was_asked_about_must_not_come_before_the_answer() {
    let mut x = greeted();
    x.on_frame(offer(1, 10, true)).unwrap();
    assert_eq!(x.on_frame(chunk(1, 1)), Err(Breach::OutOfTurn(1)));
}

#[test]
fn exchange_numbers_that_leap_or_repeat_are_a_breach() {
    let mut x = greeted();
    assert_eq!(x.on_frame(offer(2, 1, false)), Err(Breach::Number(2, 0)));
    x.on_frame(offer(1, 1, false)).unwrap();
    assert_eq!(x.on_frame(offer(1, 1, false)), Err(Breach::Number(1, 1)));
}

#[test]
fn the_rest_of_a_refused_body_is_discarded_and_the_lane_goes_on() {
    let mut x = greeted();
    x.on_frame(offer(1, 10, false)).unwrap();
    x.on_frame(chunk(1, 3)).unwrap();
    x.answered(1);
    assert_eq!(x.on_frame(chunk(1, 3)), Ok(Step::Nothing));
    assert_eq!(x.on_frame(chunk(1, 4)), Ok(Step::Nothing));
    assert_eq!(x.open(), 0);
    assert!(matches!(x.on_frame(offer(2, 1, false)), Ok(Step::Offered(_))));
}

#[test]
fn a_withdrawn_body_is_forgotten_even_when_the_answer_crossed_it() {
    let mut x = greeted();
    x.on_frame(offer(1, 10, false)).unwrap();
    let withdraw = Frame::Withdraw(Withdraw { exchange: 1 });
    assert_eq!(x.on_frame(withdraw.clone()), Ok(Step::Withdrawn { exchange: 1 }));
    assert_eq!(x.on_frame(withdraw), Ok(Step::Nothing));
    let early = Frame::Withdraw(Withdraw { exchange: 2 });
    assert_eq!(x.on_frame(early), Err(Breach::OutOfTurn(2)));
}

#[test]
fn a_stat_body_goes_through_while_another_of_the_same_lane_is_suspended() {
    let mut x = greeted();
    x.on_frame(offer(1, 1000, false)).unwrap();
    x.on_frame(chunk(1, 10)).unwrap();
    x.on_frame(offer(2, 5, false)).unwrap();
    assert!(matches!(x.on_frame(chunk(2, 5)), Ok(Step::Body { exchange: 2, last: true, .. })));
    assert!(matches!(x.on_frame(chunk(1, 990)), Ok(Step::Body { exchange: 1, last: true, .. })));
}

#[test]
fn a_lane_has_a_bounded_number_of_unfinished_bodies() {
    let mut x = greeted();
    for n in 1..=OPEN_MAX as u64 {
        x.on_frame(offer(n, 5, false)).unwrap();
    }
    let next = OPEN_MAX as u64 + 1;
    assert_eq!(x.on_frame(offer(next, 5, false)), Err(Breach::TooManyOpen));
}

#[test]
fn a_receipt_for_a_body_that_was_not_sent_is_a_breach_unless_it_says_already() {
    let mut x = sender();
    x.offer(Envelope { length: 4, ..envelope(b"") });
    x.offer(Envelope { length: 4, ..envelope(b"") });
    let early = Frame::Receipts(vec![receipt(1, false)]);
    assert_eq!(x.on_frame(early), Err(Breach::EarlyReceipt(1)));
    let have = Frame::Receipts(vec![receipt(2, true)]);
    assert_eq!(x.on_frame(have), Ok(Answer::Receipts(vec![receipt(2, true)])));
    assert!(!x.wants_body(2) && x.wants_body(1));
}

#[test]
fn a_resume_beyond_the_length_or_out_of_turn_is_a_breach() {
    let mut x = sender();
    let length = SMALL_MAX + 1;
    assert!(x.offer(Envelope { length, ..envelope(b"") }).ask);
    let beyond = Frame::Resume(Resume { exchange: 1, from: length + 1 });
    assert_eq!(x.on_frame(beyond), Err(Breach::ResumeBeyond(1, length + 1, length)));
    let fine = Frame::Resume(Resume { exchange: 1, from: length });
    assert_eq!(x.on_frame(fine.clone()), Ok(Answer::Resume { exchange: 1, from: length }));
    assert_eq!(x.on_frame(fine), Err(Breach::OutOfTurn(1)));
}

#[test]
fn what_is_in_flight_is_bounded_in_items_and_in_bytes() {
    let mut x = sender();
    while x.room().is_some() {
        x.offer(Envelope { length: 1, ..envelope(b"") });
    }
    assert_eq!(x.last, IN_FLIGHT_ITEMS_MAX as u64);
    let mut x = sender();
    while x.room().is_some() {
        x.offer(Envelope { length: SMALL_MAX, ..envelope(b"") });
    }
    assert!(x.bytes <= IN_FLIGHT_BYTES_MAX);
}

#[test]
fn envelopes_with_long_or_controlling_text_are_not_fit_for_custody() {
    let fine = envelope(b"");
    assert_eq!(check_envelope(&fine), Ok(()));
    for bad in [
        Envelope { study: "1".repeat(TEXT_LENGTH_MAX + 1), ..fine.clone() },
        Envelope { calling_ae: "A\u{1b}[2J".into(), ..fine.clone() },
        Envelope { flags: vec![String::new(); FLAGS_MAX + 1], ..fine },
    ] {
        assert!(check_envelope(&bad).is_err());
    }
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let id = 0_u64..6;
    prop_oneof![
        (id.clone(), 0_u64..40, any::<bool>()).prop_map(|(e, l, a)| offer(e, l, a)),
        (id.clone(), 0_usize..20).prop_map(|(e, n)| chunk(e, n)),
        id.clone().prop_map(|exchange| Frame::Withdraw(Withdraw { exchange })),
        (id.clone(), 0_u64..50)
            .prop_map(|(exchange, from)| Frame::Resume(Resume { exchange, from })),
        (id.clone(), any::<bool>()).prop_map(|(e, a)| Frame::Receipts(vec![receipt(e, a)])),
        (id, any::<u16>()).prop_map(|(exchange, reason)| Frame::Refuse(Refuse {
            exchange,
            reason,
            words: String::new(),
            retry_after: 0,
        })),
        Just(hello()),
    ]
}

proptest! {
    #[test]
    fn no_order_of_frames_panics_either_end(frames in prop::collection::vec(any_frame(), 0..60)) {
        let (mut incoming, mut outgoing) = (greeted(), sender());
        outgoing.offer(Envelope { length: 20, ..envelope(b"") });
        outgoing.offer(Envelope { length: SMALL_MAX + 9, ..envelope(b"") });
        for frame in frames {
            if let Ok(Step::Offered(o)) = incoming.on_frame(frame.clone())
                && o.ask
            {
                if o.exchange % 2 == 0 { incoming.answered(o.exchange) } else {
                    incoming.resume(o.exchange, o.envelope.length / 2);
                }
            }
            prop_assert!(incoming.open() <= OPEN_MAX);
            let _ = outgoing.on_frame(frame);
        }
    }

    #[test]
    fn every_body_arrives_whole_however_the_line_splits_it(
        lengths in prop::collection::vec(0_usize..5000, 1..12),
        chunk_size in 1_usize..700,
        split in 1_usize..900,
    ) {
        let mut line = hello().encode().to_vec();
        let mut outgoing = sender();
        for &length in &lengths {
            let body = vec![length as u8; length];
            let o = outgoing.offer(envelope(&body));
            let exchange = o.exchange;
            line.extend(Frame::Offer(Box::new(o)).encode());
            let mut chunks: Vec<&[u8]> = body.chunks(chunk_size).collect();
            if chunks.is_empty() { chunks.push(&[]); }
            for c in chunks {
                outgoing.sent(exchange, c.len());
                line.extend(Frame::Chunk { exchange, bytes: c.to_vec().into() }.encode());
            }
        }
        let (mut incoming, mut decoder) = (Incoming::default(), Decoder::default());
        let (mut bodies, mut body) = (vec![], vec![]);
        for piece in line.chunks(split) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                if let Step::Body { bytes, last, .. } = incoming.on_frame(frame).unwrap() {
                    body.extend_from_slice(&bytes);
                    if last { bodies.push(std::mem::take(&mut body)); }
                }
            }
        }
        let sent: Vec<_> = lengths.iter().map(|&n| vec![n as u8; n]).collect();
        prop_assert_eq!(bodies, sent);
        let receipts = (1..=lengths.len() as u64).map(|n| receipt(n, false)).collect();
        outgoing.on_frame(Frame::Receipts(receipts)).unwrap();
        prop_assert!(outgoing.is_idle());
    }
}
