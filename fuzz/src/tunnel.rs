//! What a peer with a good certificate sends on a lane.

use std::sync::OnceLock;

use bytes::Bytes;
use hikyaku::cargo::{CargoKind, Envelope, Identity, NodeName, Sha256, Urgency};
use hikyaku::clock::{self, Timestamp};
use hikyaku::custody::state::DutyState;
use hikyaku::custody::{News, Note};
use hikyaku::tunnel::exchange::{Answer, Incoming, Outgoing, SMALL_MAX, Step, check_envelope};
use hikyaku::tunnel::frame::{
    CHUNK_MAX, Decoder, Frame, Hello, Offer, PAYLOAD_MAX, Purpose, Refuse, Resume, SignedReceipt,
    Withdraw,
};
use hikyaku::tunnel::receipt::{Statement, Verifier, issue};
use hikyaku::tunnel::trust::{Credentials, Role};
use hikyaku::tunnel::{Files, pki};
use rustls_pki_types::UnixTime;

use super::spool;

/// The frames in `data`, which come in pieces of the size that its first byte asks for.
fn decode(data: &[u8], mut each: impl FnMut(Frame) -> bool) {
    let Some((step, data)) = data.split_first() else { return };
    let mut decoder = Decoder::default();
    for piece in data.chunks(usize::from(*step).max(1) * 5) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) if each(frame.clone()) => {}
                Ok(None) => break,
                _ => return,
            }
        }
    }
}

pub(crate) fn frame(data: &[u8]) {
    decode(data, |frame| {
        if let Frame::Chunk { bytes, .. } = &frame {
            assert!(bytes.len() <= CHUNK_MAX, "a chunk beyond its limit");
        }
        // Lenient reading may lengthen what it writes (a short form of CBOR), never change it.
        let known = !matches!(&frame, Frame::Receipts(r) if r.len() > 32);
        if known && data.len() < PAYLOAD_MAX / 2 {
            let mut again = Decoder::default();
            again.push(&frame.encode());
            assert_eq!(again.next_frame().expect("our own frame"), Some(frame));
        }
        true
    });
}

/// Both ends of a lane, each with the same frames from the other.
pub(crate) fn exchange(data: &[u8]) {
    let ways = data.iter().fold(0u8, |a, b| a.rotate_left(3) ^ b);
    let (mut incoming, mut said) = (Incoming::default(), 0);
    decode(data, |frame| {
        said += 1;
        match incoming.on_frame(frame) {
            Err(_) => return false,
            Ok(Step::Offered(offer)) => {
                let _ = check_envelope(&offer.envelope);
                if offer.ask && ways & 1 == 0 {
                    incoming.resume(offer.exchange, offer.envelope.length / 2);
                } else if ways & 2 == 0 {
                    incoming.answered(offer.exchange);
                }
            }
            Ok(_) => {}
        }
        assert!(incoming.open() <= said, "more open bodies than frames");
        true
    });
    let mut outgoing = Outgoing::default();
    for length in [10, 0, SMALL_MAX + 1] {
        let offer = outgoing.offer(Envelope { length, ..envelope(b"body") });
        if outgoing.wants_body(offer.exchange) {
            outgoing.sent(offer.exchange, length as usize);
        }
    }
    decode(data, |frame| match outgoing.on_frame(frame) {
        Err(_) => false,
        Ok(Answer::Resume { exchange, .. }) => {
            outgoing.sent(exchange, 0);
            true
        }
        Ok(_) => true,
    });
}

struct Keys {
    credentials: Credentials,
    verifier: Verifier,
    _dir: tempfile::TempDir,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, node) = (dir.path(), node());
        pki::write_ca(path, "fuzz", clock::wall()).expect("an authority");
        pki::write_node(path, &node, 30, clock::wall()).expect("a certificate");
        let files = Files {
            certificate: path.join(format!("{node}.crt")),
            key: path.join(format!("{node}.key")),
            trust: path.join("ca.crt"),
            crl: vec![],
        };
        let credentials = Credentials::load(&files, &node).expect("credentials");
        let chain = credentials.chain().to_vec();
        let trust = credentials.trust();
        let verifier = Verifier::new(&node, chain, Role::Server, trust, UnixTime::now());
        Keys { credentials, verifier: verifier.expect("a chain"), _dir: dir }
    })
}

/// Two bytes of length, a statement, a signature.
pub(crate) fn receipt(data: &[u8]) {
    if let Ok(statement) = minicbor::decode::<Statement>(data) {
        let again = minicbor::to_vec(&statement).expect("memory");
        assert_eq!(minicbor::decode::<Statement>(&again).expect("our own"), statement);
    }
    let [a, b, rest @ ..] = data else { return };
    let length = usize::from(u16::from_be_bytes([*a, *b]));
    let Some((statement, signature)) = rest.split_at_checked(length) else { return };
    let checked = keys().verifier.check(&envelope(b"body"), statement, signature);
    if let Ok(said) = checked {
        assert_eq!(said.sha256, Sha256::of(b"body"), "a receipt for something else");
    }
}

/// What a note says, read as custody reads it.
pub(crate) fn note(data: &[u8]) {
    if let Ok(note) = minicbor::decode::<Note>(data) {
        let again = minicbor::to_vec(&note).expect("memory");
        assert_eq!(minicbor::decode::<Note>(&again).expect("our own note"), note);
    }
}

pub(crate) fn notes() -> Vec<Vec<u8>> {
    let news = |state| News {
        identity: envelope(b"body").identity,
        destination: "pacs".parse().expect("a name"),
        state,
    };
    let quarantined =
        DutyState::Quarantined { reason: "refused".into(), at: Timestamp(1), damaged: true };
    let note = Note { news: vec![news(DutyState::owed()), news(quarantined)] };
    vec![minicbor::to_vec(&note).expect("memory")]
}

fn node() -> NodeName {
    "reading".parse().expect("a node name")
}

/// Of an image with these bytes.
pub(crate) fn envelope(body: &[u8]) -> Envelope {
    let origin = "hospital".parse().expect("a node name");
    Envelope {
        kind: CargoKind::Image,
        identity: Identity { origin, key: "1.2.3.4".into(), sha256: Sha256::of(body) },
        length: body.len() as u64,
        urgency: Urgency::Routine,
        received_at: Timestamp(1_700_000_000_000_000),
        calling_ae: "CT1".into(),
        called_ae: "HIKYAKU".into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study: "1.2.3".into(),
        series: "1.2.3.1".into(),
        modality: "CT".into(),
        accession: "A1".into(),
        patient_id: "P1".into(),
        flags: vec!["odd".into()],
    }
}

pub(crate) fn receipts() -> Vec<Vec<u8>> {
    let kept = spool::kept(b"body");
    let key = keys().credentials.key();
    let (statement, signature) = issue(&kept, &envelope(b"body"), &node(), key).expect("a key");
    let length = u16::try_from(statement.len()).expect("a short statement").to_be_bytes();
    vec![[&length[..], &statement, &signature].concat(), statement]
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let hello = Frame::Hello(Hello::of(&node(), Purpose::Cargo));
    let chunk = |exchange, bytes: &'static [u8]| Frame::Chunk {
        exchange,
        bytes: Bytes::from_static(bytes),
    };
    let offer = |exchange, length, ask| {
        let envelope = Envelope { length, ..envelope(b"body") };
        Frame::Offer(Box::new(Offer { exchange, envelope, coding: 0, ask }))
    };
    let receipt = |exchange, already| SignedReceipt {
        exchange,
        already,
        statement: vec![1; 90],
        signature: vec![2; 70],
    };
    let refuse = Refuse { exchange: 2, reason: 1, words: "no room".into(), retry_after: 30 };
    let lanes = [
        vec![hello.clone(), offer(1, 4, false), chunk(1, b"body")],
        vec![hello.clone(), offer(1, 5 << 20, true), chunk(1, b"part")],
        vec![
            hello.clone(),
            offer(1, 8, false),
            offer(2, 4, false),
            chunk(1, b"body"),
            chunk(2, b"body"),
            Frame::Withdraw(Withdraw { exchange: 1 }),
        ],
        vec![hello.clone(), Frame::Receipts(vec![receipt(1, false), receipt(2, false)])],
        vec![
            hello.clone(),
            Frame::Resume(Resume { exchange: 3, from: 1 << 20 }),
            Frame::Refuse(refuse),
        ],
        vec![hello, Frame::Receipts(vec![receipt(3, true)])],
    ];
    let line = |frames: &Vec<Frame>| {
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.encode().to_vec()).collect();
        [&[30], &bytes[..]].concat()
    };
    let skipped = [&[30, 0x85, 0, 0, 0, 2, 9, 9][..], &line(&lanes[0])[1..]].concat();
    lanes.iter().map(line).chain([skipped]).collect()
}
