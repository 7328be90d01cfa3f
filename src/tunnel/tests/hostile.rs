//! A peer with a good certificate and bad manners: raw frames against a real node.

use bytes::Bytes;
use proptest::prelude::*;
use quinn::{Connection, ConnectionError, SendStream};

use super::super::frame::{Frame, Hello, Offer, Purpose, Refusal, SignedReceipt, Withdraw};
use super::super::lane::FrameReader;
use super::super::reason::{close, explain_handshake};
use super::super::receipt::tests::sign_as;
use super::*;

struct RawLane {
    send: SendStream,
    reader: FrameReader,
}

impl RawLane {
    async fn open(connection: &Connection, purpose: Purpose) -> Self {
        let (send, recv) = connection.open_bi().await.unwrap();
        let mut lane = Self { send, reader: FrameReader::new(recv) };
        lane.say(Frame::Hello(Hello::of(&"hospital".parse().unwrap(), purpose))).await;
        lane
    }

    async fn say(&mut self, frame: Frame) {
        let _ = self.send.write_all(&frame.encode()).await;
    }

    async fn hear(&mut self) -> Frame {
        self.reader.next().await.unwrap().unwrap()
    }
}

/// A reading centre, and a raw connection of its peer `hospital` that has greeted.
async fn reading() -> (Site, Connection, (Authority, RawLane)) {
    let ca = Authority::new("ca");
    let reading =
        Site::new(ca.files("reading", 0, 30), "reading", true, vec![peer("hospital", None)]);
    let address = reading.tunnel().local_address().unwrap();
    let config = transport::client_config(&ca.node("hospital"), &Limits::default());
    let dialling = transport::dialling().unwrap();
    let connection = dialling.connect_with(config, address, "reading").unwrap().await.unwrap();
    let mut control = RawLane::open(&connection, Purpose::Control).await;
    assert!(matches!(control.hear().await, Frame::Hello(_)));
    (reading, connection, (ca, control))
}

fn offer(exchange: u64, body: &[u8]) -> Offer {
    let mut envelope = envelope(body);
    envelope.identity.origin = "hospital".parse().unwrap();
    Offer { exchange, envelope, coding: 0, ask: false }
}

fn chunk(exchange: u64, bytes: &[u8]) -> Frame {
    Frame::Chunk { exchange, bytes: Bytes::copy_from_slice(bytes) }
}

async fn closed_for_protocol(connection: &Connection) -> String {
    let error = connection.closed().await;
    let ConnectionError::ApplicationClosed(closed) = &error else {
        panic!("closed otherwise: {error}");
    };
    assert_eq!(closed.error_code, close::PROTOCOL.into());
    explain_handshake(&error).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_longer_than_offered_closes_the_connection_and_nothing_is_kept() {
    let (reading, connection, _kept) = reading().await;
    let mut lane = RawLane::open(&connection, Purpose::Cargo).await;
    lane.say(Frame::Offer(Box::new(offer(1, b"body")))).await;
    lane.say(chunk(1, b"bodies")).await;
    let words = closed_for_protocol(&connection).await;
    assert!(words.contains("more bytes than offered"), "{words}");
    assert_eq!(reading.custody.summary().present, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frames_close_the_connection() {
    let (_reading, connection, _kept) = reading().await;
    let mut lane = RawLane::open(&connection, Purpose::Cargo).await;
    lane.send.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let words = closed_for_protocol(&connection).await;
    assert!(words.contains("frame type 0x47"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_refuses_it_refuses_by_reason_and_the_lane_goes_on() {
    let (reading, connection, _kept) = reading().await;
    let mut lane = RawLane::open(&connection, Purpose::Cargo).await;
    assert!(matches!(lane.hear().await, Frame::Hello(_)));
    let good = offer(0, b"body");
    let mut foreign = good.clone();
    foreign.envelope.identity.origin = "elsewhere".parse().unwrap();
    let mut rude = good.clone();
    rude.envelope.study = "1.2\n3".into();
    let unasked = Envelope { length: SMALL_MAX + 1, ..good.envelope.clone() };
    let other_bytes =
        Envelope { identity: offer(0, b"hood").envelope.identity, ..good.envelope.clone() };
    let tries = [
        (Offer { coding: 7, ..good.clone() }, Refusal::Coding),
        (foreign, Refusal::Relay),
        (rude, Refusal::Envelope),
        (Offer { envelope: other_bytes, ..good.clone() }, Refusal::Digest),
        (Offer { envelope: unasked, ..good.clone() }, Refusal::Envelope),
    ];
    for (exchange, (offer, refusal)) in (1..).zip(tries) {
        let large = offer.envelope.length > SMALL_MAX;
        lane.say(Frame::Offer(Box::new(Offer { exchange, ..offer }))).await;
        if large {
            lane.say(Frame::Withdraw(Withdraw { exchange })).await;
        } else {
            lane.say(chunk(exchange, b"body")).await;
        }
        let Frame::Refuse(refuse) = lane.hear().await else { panic!("no refusal of {exchange}") };
        assert_eq!((refuse.exchange, Refusal::of(refuse.reason)), (exchange, refusal));
    }
    assert_eq!(reading.custody.summary().present, 0);
    lane.say(Frame::Offer(Box::new(Offer { exchange: 6, ..good }))).await;
    lane.say(chunk(6, b"body")).await;
    let Frame::Receipts(receipts) = lane.hear().await else { panic!("no receipt") };
    assert_eq!((receipts[0].exchange, receipts[0].already), (6, false));
}

/// A hospital that owes one image, and what it does when its peer answers with this receipt:
/// `already`, signed by `signer`, over the envelope that `twist` makes of the offered one.
async fn answered_with(signer: &str, already: bool, twist: fn(&mut Envelope)) -> (Site, String) {
    let ca = Authority::new("ca");
    let fake = ca.node("reading");
    let config = transport::server_config(&fake, &Limits::default());
    let any = "127.0.0.1:0".parse().unwrap();
    let endpoint = transport::listening(any, config, fake.reset_seed()).unwrap();
    let address = Some(endpoint.local_addr().unwrap().to_string());
    let hospital =
        Site::new(ca.files("hospital", 0, 30), "hospital", false, vec![peer("reading", address)]);
    hospital.owe("reading", "hospital", Urgency::Routine, b"body").await;
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let signer = if signer == "reading" { fake } else { ca.node(signer) };
    let mut lanes = vec![];
    loop {
        let (send, recv) = match connection.accept_bi().await {
            Ok(lane) => lane,
            Err(e) => panic!("closed before any offer: {e}"),
        };
        let mut lane = RawLane { send, reader: FrameReader::new(recv) };
        let Frame::Hello(hello) = lane.hear().await else { panic!("no Hello") };
        lane.say(Frame::Hello(Hello { node: "reading".parse().unwrap(), ..hello.clone() })).await;
        if hello.purpose == Purpose::Cargo {
            let offered = tokio::time::timeout(Duration::from_millis(100), lane.hear()).await;
            if let Ok(Frame::Offer(mut offer)) = offered {
                twist(&mut offer.envelope);
                let exchange = offer.exchange;
                let (statement, signature) =
                    sign_as(&offer.envelope, &"reading".parse().unwrap(), signer.key());
                assert!(matches!(lane.hear().await, Frame::Chunk { .. }));
                let receipt = SignedReceipt { exchange, already, statement, signature };
                lane.say(Frame::Receipts(vec![receipt])).await;
                lanes.push(lane);
                break;
            }
        }
        lanes.push(lane);
    }
    let settled = async {
        until("it is settled", || hospital.duties("reading", StateName::Receipted, None) == 1)
            .await;
        "receipted".to_owned()
    };
    let words = tokio::select! {
        words = closed_for_protocol(&connection) => words,
        words = settled => words,
    };
    (hospital, words)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_true_receipt_settles_the_duty() {
    let (_, words) = answered_with("reading", false, |_| {}).await;
    assert_eq!(words, "receipted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_receipt_settles_nothing() {
    for already in [false, true] {
        let (hospital, words) = answered_with("somebody-else", already, |_| {}).await;
        assert!(words.contains("signature is wrong"), "{words}");
        assert_eq!(hospital.duties("reading", StateName::Receipted, None), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_other_bytes_settles_nothing() {
    let other = |e: &mut Envelope| e.identity.sha256 = Sha256::of(b"other");
    let (hospital, words) = answered_with("reading", false, other).await;
    assert!(words.contains("something else"), "{words}");
    assert_eq!(hospital.duties("reading", StateName::Receipted, None), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn no_bytes_on_a_lane_bring_the_node_down(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                Just(Frame::Offer(Box::new(offer(1, b"body"))).encode().to_vec()),
                Just(chunk(1, b"bo").encode().to_vec()),
                Just(chunk(2, b"").encode().to_vec()),
            ],
            0..6,
        ),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (reading, connection, (ca, _control)) = reading().await;
            let mut lane = RawLane::open(&connection, Purpose::Cargo).await;
            for piece in pieces {
                let _ = lane.send.write_all(&piece).await;
            }
            let _ = lane.send.finish();
            // It still serves its peer, on a new connection.
            drop((lane, connection));
            let address = Some(reading.tunnel().local_address().unwrap().to_string());
            let hospital = Site::new(
                ca.files("hospital", 0, 30),
                "hospital",
                false,
                vec![peer("reading", address)],
            );
            hospital.owe("reading", "hospital", Urgency::Routine, b"well").await;
            until("a receipt", || {
                hospital.duties("reading", StateName::Receipted, None) == 1
            })
            .await;
        });
    }
}
