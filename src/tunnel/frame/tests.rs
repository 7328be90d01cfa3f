//! The codec against any bytes and any split of them.

use super::*;
use crate::cargo::{CargoKind, Identity, Sha256, Urgency};
use crate::clock::Timestamp;
use proptest::prelude::*;

pub(crate) fn envelope(body: &[u8]) -> Envelope {
    Envelope {
        kind: CargoKind::Image,
        identity: Identity {
            origin: "st-elsewhere".parse().unwrap(),
            key: "1.2.826.0.1.3680043.2.1125.1".into(),
            sha256: Sha256::of(body),
        },
        length: body.len() as u64,
        urgency: Urgency::Routine,
        received_at: Timestamp(1_795_000_000_000),
        calling_ae: "CT1".into(),
        called_ae: "HIKYAKU".into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study: "1.2.3".into(),
        series: "1.2.3.4".into(),
        modality: "CT".into(),
        accession: "A1".into(),
        patient_id: "P1".into(),
        flags: vec![],
    }
}

fn frames() -> Vec<Frame> {
    let signed = SignedReceipt {
        exchange: 1,
        already: false,
        statement: vec![1, 2, 3],
        signature: vec![4; 72],
    };
    let words = "the spool is full".to_owned();
    vec![
        Frame::Hello(Hello::of(&"st-elsewhere".parse().unwrap(), Purpose::Cargo)),
        Frame::Offer(Box::new(Offer {
            exchange: 1,
            envelope: envelope(b"body"),
            coding: 0,
            ask: false,
        })),
        Frame::Chunk { exchange: 1, bytes: Bytes::from_static(b"body") },
        Frame::Receipts(vec![signed.clone(), SignedReceipt { already: true, ..signed }]),
        Frame::Resume(Resume { exchange: 2, from: 1 << 40 }),
        Frame::Refuse(Refuse { exchange: 2, reason: 1, words, retry_after: 30 }),
        Frame::Withdraw(Withdraw { exchange: 2 }),
    ]
}

fn all(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
    std::iter::from_fn(|| decoder.next_frame().transpose()).collect()
}

proptest! {
    #[test]
    fn frames_survive_any_split_of_the_byte_stream(sizes in prop::collection::vec(1..97_usize, 1..40)) {
        let line: Vec<u8> = frames().iter().flat_map(|f| f.encode().to_vec()).collect();
        let (mut decoder, mut got, mut rest) = (Decoder::default(), vec![], &line[..]);
        for size in sizes.iter().cycle() {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            decoder.push(now);
            got.extend(all(&mut decoder).unwrap());
            rest = later;
            if rest.is_empty() { break; }
        }
        prop_assert_eq!(got, frames());
        prop_assert!(decoder.is_between_frames());
    }

    #[test]
    fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let _ = all(&mut decoder);
    }

    #[test]
    fn no_payload_panics_the_decoder(kind in 0_u8..10, payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(kind, payload.into());
    }

    #[test]
    fn a_flipped_bit_never_panics_the_decoder(frame in 0_usize..7, bit in any::<prop::sample::Index>()) {
        let mut bytes = frames()[frame].encode().to_vec();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let _ = all(&mut decoder);
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_any_of_it_has_come() {
    for (kind, max) in [(OFFER, PAYLOAD_MAX), (CHUNK, CHUNK_MAX + 8), (0x90, PAYLOAD_MAX)] {
        let mut decoder = Decoder::default();
        decoder.push(&[kind]);
        decoder.push(&u32::MAX.to_be_bytes());
        let length = u64::from(u32::MAX);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong { kind, length, max }));
    }
}

#[test]
fn an_unknown_frame_is_skipped_only_when_its_type_allows_it() {
    let mut decoder = Decoder::default();
    decoder.push(&[0x81, 0, 0, 0, 3, 1, 2, 3]);
    decoder.push(&frames()[4].encode());
    assert_eq!(decoder.next_frame().unwrap(), Some(frames()[4].clone()));
    decoder.push(&[0x08, 0, 0, 0, 0]);
    assert_eq!(decoder.next_frame(), Err(FrameError::UnknownType(8)));
}

#[test]
fn a_key_of_a_later_release_is_skipped() {
    // {0: 7, 1: 9, 99: [1, {"a": null}]}
    let payload = [0xa3, 0, 7, 1, 9, 0x18, 99, 0x82, 1, 0xa1, 0x61, 0x61, 0xf6];
    let frame = parse(RESUME, Bytes::copy_from_slice(&payload)).unwrap();
    assert_eq!(frame, Frame::Resume(Resume { exchange: 7, from: 9 }));
}

#[test]
fn bytes_after_the_end_of_a_payload_are_refused() {
    let error = parse(WITHDRAW, Bytes::from_static(&[0xa1, 0, 1, 0])).unwrap_err();
    assert_eq!(error, FrameError::Malformed { kind: WITHDRAW, why: "bytes after its end" });
}

#[test]
fn two_releases_agree_on_the_newest_version_that_both_know() {
    let ours = Hello::of(&"a".parse().unwrap(), Purpose::Control);
    assert_eq!(ours.agree(), Some(VERSION));
    assert_eq!(Hello { newest: 9, ..ours.clone() }.agree(), Some(VERSION));
    assert_eq!(Hello { oldest: VERSION + 1, newest: 9, ..ours }.agree(), None);
}

#[test]
fn refusal_numbers_are_stable_and_unknown_ones_mean_wait() {
    for (i, r) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!((r.code(), Refusal::of(r.code())), (i as u16 + 1, r));
    }
    assert_eq!(Refusal::of(0), Refusal::Busy);
    assert_eq!(Refusal::of(999), Refusal::Busy);
}

#[test]
fn the_example_in_the_wire_protocol_is_what_we_send() {
    let hex: String = frames()[..3]
        .iter()
        .flat_map(|f| f.encode().to_vec())
        .map(|b| format!("{b:02x}"))
        .collect();
    let page = include_str!("../../../docs/wire-protocol.md");
    let block = page.split("<!-- example -->").nth(1).expect("the page has an example");
    let dump: String = block
        .lines()
        .filter(|l| l.starts_with("    "))
        .flat_map(|l| l.split('|').next().unwrap_or("").split_whitespace())
        .collect();
    assert_eq!(dump, hex, "docs/wire-protocol.md is out of date");
}
