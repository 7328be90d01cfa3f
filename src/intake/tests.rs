//! The whole intake over real sockets, with real custody.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use dicom_ul::pdu::{Pdu, PresentationContextProposed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::access::tests::{config, request};
use super::*;
use crate::cargo::{DestinationName, Urgency};
use crate::custody::{self, Custody, Want};
use crate::dicom::command::{Command, Response, StoreRequest};
use crate::dicom::pdata::{Decoder, Event, put_command, put_data, put_pdu};
use crate::dicom::{IMPLICIT_VR_LE, VERIFICATION};
use crate::metrics::Metrics;
use crate::routing::{Rule, Table};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const WAIT: Duration = Duration::from_secs(20);

struct Site {
    custody: Custody,
    metrics: Metrics,
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

async fn site(data: &Path, limits: Limits) -> Site {
    let metrics = Metrics::new();
    let mut c = custody::Config::new("st-elsewhere".parse().unwrap(), data.into());
    c.room.reserve = 1 << 20;
    c.room.capacity = Some(4 << 30);
    c.assembly.object = 4 << 20;
    let custody = Custody::open(c, metrics.clone()).unwrap();
    let rule = Rule {
        times: crate::routing::Times::default(),
        name: "all".into(),
        when: vec![],
        to: vec!["pacs".parse().unwrap()],
        urgency: Some(Urgency::Stat),
        hold: None,
        last: false,
        correct: false,
    };
    let allow = Allow { ae_title: None, network: "127.0.0.0/8".parse().unwrap() };
    let intake = Intake {
        config: Arc::new(ArcSwap::from_pointee(Config { allow: vec![allow], limits, ..config() })),
        custody: custody.clone(),
        router: Arc::new(ArcSwap::from_pointee(Table::new(vec![rule]))),
        services: None,
        metrics: metrics.clone(),
    };
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    let stop = CancellationToken::new();
    let listeners = Listeners { plain: Some(plain), tls: None };
    let serving = tokio::spawn(serve(listeners, Arc::new(intake), stop.clone()));
    Site { custody, metrics, address, stop, serving }
}

/// A sender that says what the test tells it to say.
struct Sender {
    stream: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Sender {
    async fn connect(site: &Site) -> Self {
        let stream = TcpStream::connect(site.address).await.unwrap();
        Self { stream, decoder: Decoder::new(), buffer: BytesMut::new() }
    }

    async fn associated(site: &Site) -> Self {
        let mut sender = Self::connect(site).await;
        let context = |id, uid: &str| PresentationContextProposed {
            id,
            abstract_syntax: uid.into(),
            transfer_syntaxes: vec![IMPLICIT_VR_LE.into()],
        };
        let mut rq = request();
        rq.presentation_contexts = vec![context(1, VERIFICATION), context(3, CT)];
        sender.say(&rq.into()).await;
        assert!(matches!(sender.hear().await, Some(Event::Pdu(Pdu::AssociationAC(_)))));
        sender
    }

    async fn say(&mut self, pdu: &Pdu) {
        let mut out = vec![];
        put_pdu(&mut out, pdu);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn say_command(&mut self, context: u8, command: Command) {
        let mut out = vec![];
        put_command(&mut out, context, &command.encode(), 1024);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn say_data(&mut self, data: &[u8], last: bool) {
        let mut out = vec![];
        put_data(&mut out, 3, data, last, 16_000);
        self.stream.write_all(&out).await.unwrap();
    }

    /// The next event, or `None` at the end of the connection.
    async fn hear(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.decoder.poll(&mut self.buffer).unwrap() {
                return Some(event);
            }
            let read = self.stream.read_buf(&mut self.buffer);
            if tokio::time::timeout(WAIT, read).await.expect("an answer in time").ok()? == 0 {
                return None;
            }
        }
    }

    async fn hear_response(&mut self) -> Response {
        let mut command = vec![];
        loop {
            match self.hear().await {
                Some(Event::Fragment(f)) if f.command => {
                    command.extend_from_slice(&f.data);
                    if f.last {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        match Command::decode(&command) {
            Ok(Command::Response(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    async fn store(&mut self, instance: &str, body: &[u8]) -> Response {
        self.say_command(3, store(instance)).await;
        self.say_data(body, true).await;
        self.hear_response().await
    }

    async fn is_aborted(&mut self) -> bool {
        matches!(self.hear().await, Some(Event::Pdu(Pdu::AbortRQ { .. })))
    }
}

fn store(instance: &str) -> Command {
    Command::StoreRequest(StoreRequest {
        message_id: 11,
        sop_class: CT.into(),
        sop_instance: instance.into(),
        has_data_set: true,
        ..StoreRequest::default()
    })
}

fn element(group: u16, element: u16, value: &[u8]) -> Vec<u8> {
    let tag = [group.to_le_bytes(), element.to_le_bytes()].concat();
    [&tag[..], &(value.len() as u32).to_le_bytes(), value].concat()
}

fn image(instance: &str, pixels: usize) -> Vec<u8> {
    let mut uid = instance.as_bytes().to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    [
        element(0x0008, 0x0016, b"1.2.840.10008.5.1.4.1.1.2\0"),
        element(0x0008, 0x0018, &uid),
        element(0x0020, 0x000d, b"1.2.4\0"),
        element(0x7fe0, 0x0010, &vec![7; pixels]),
    ]
    .concat()
}

fn want_all() -> Want {
    Want {
        destination: "pacs".parse::<DestinationName>().unwrap(),
        classes: [true; 4],
        length: 0..=u64::MAX,
        items_max: 100,
        bytes_max: u64::MAX,
    }
}

#[tokio::test]
async fn an_image_answered_with_success_is_in_custody_byte_for_byte_and_owed() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), Limits::default()).await;
    let mut sender = Sender::associated(&site).await;
    let body = image("1.2.3", 1_000_000);
    let response = sender.store("1.2.3", &body).await;
    assert_eq!((response.status, response.responded_to), (0x0000, 11));
    assert_eq!(response.sop_instance, "1.2.3");
    let leased = site.custody.lease(want_all()).await;
    assert_eq!(leased.len(), 1);
    let e = &leased[0].envelope;
    assert_eq!((e.calling_ae.as_str(), e.called_ae.as_str()), ("CT1", "TELE_STAT"));
    assert_eq!((e.transfer_syntax.as_str(), e.study.as_str()), (IMPLICIT_VR_LE, "1.2.4"));
    assert_eq!((e.urgency, leased[0].urgency), (Urgency::Stat, Urgency::Stat));
    assert_eq!(leased[0].body.read().await.unwrap(), body);
    sender.say(&Pdu::ReleaseRQ).await;
    assert_eq!(sender.hear().await, Some(Event::Pdu(Pdu::ReleaseRP)));
}

#[tokio::test]
async fn a_refused_image_leaves_the_association_fit_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), Limits::default()).await;
    let mut sender = Sender::associated(&site).await;
    let mismatch = sender.store("1.2.3", &image("1.2.9", 10)).await;
    assert_eq!((mismatch.status, mismatch.offending), (0xA900, vec![(0x0008, 0x0018)]));
    assert_eq!(sender.store("1.2.3", b"").await.status, 0xC000);
    assert_eq!(sender.store("../1", &image("../1", 10)).await.status, 0x0117);
    assert_eq!(sender.store("1.2.3", &image("1.2.3", 5 << 20)).await.status, 0xA700);
    assert_eq!(sender.store("1.2.3", &image("1.2.3", 10)).await.status, 0x0000);
    assert_eq!(site.custody.lease(want_all()).await.len(), 1);
    let page = site.metrics.page();
    assert!(page.contains("hikyaku_store_answers_total{status=\"A900\"} 1"), "{page}");
}

#[tokio::test]
async fn echo_is_answered_and_what_is_not_served_is_said_to_be_unrecognized() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), Limits::default()).await;
    let mut sender = Sender::associated(&site).await;
    let echo = Command::EchoRequest { message_id: 2, sop_class: VERIFICATION.into() };
    sender.say_command(1, echo).await;
    let response = sender.hear_response().await;
    assert_eq!((response.field, response.responded_to, response.status), (0x8030, 2, 0));
    let find = Command::Other {
        field: 0x0110,
        message_id: Some(3),
        sop_class: CT.into(),
        sop_instance: String::new(),
        has_data_set: true,
    };
    sender.say_command(3, find).await;
    sender.say_data(b"whatever", true).await;
    let response = sender.hear_response().await;
    assert_eq!((response.field, response.responded_to, response.status), (0x8110, 3, 0x0211));
}

#[tokio::test]
async fn an_image_cut_off_in_the_middle_is_not_in_custody() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), Limits::default()).await;
    let mut sender = Sender::associated(&site).await;
    sender.say_command(3, store("1.2.3")).await;
    sender.say_data(&image("1.2.3", 500_000)[..300_000], false).await;
    drop(sender);
    let mut second = Sender::associated(&site).await;
    assert_eq!(second.store("1.2.4", &image("1.2.4", 10)).await.status, 0);
    let leased = site.custody.lease(want_all()).await;
    let keys: Vec<_> = leased.iter().map(|l| l.envelope.identity.key.as_str()).collect();
    assert_eq!(keys, ["1.2.4"]);
}

#[tokio::test]
async fn a_node_that_stops_finishes_the_image_under_way_and_lets_idle_senders_go() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), Limits::default()).await;
    let mut idle = Sender::associated(&site).await;
    let mut busy = Sender::associated(&site).await;
    let body = image("1.2.3", 100_000);
    // In one segment, so that whoever has heard the answer to the echo knows that the C-STORE
    // has begun.
    let echo = Command::EchoRequest { message_id: 2, sop_class: VERIFICATION.into() };
    let mut out = vec![];
    put_command(&mut out, 1, &echo.encode(), 16_000);
    put_command(&mut out, 3, &store("1.2.3").encode(), 16_000);
    put_data(&mut out, 3, &body[..1000], false, 16_000);
    busy.stream.write_all(&out).await.unwrap();
    assert_eq!(busy.hear_response().await.status, 0);
    site.stop.cancel();
    assert!(idle.is_aborted().await);
    busy.say_data(&body[1000..], true).await;
    assert_eq!(busy.hear_response().await.status, 0x0000);
    assert!(busy.is_aborted().await);
    drop((idle, busy));
    tokio::time::timeout(WAIT, site.serving).await.expect("drained in time").unwrap();
    assert_eq!(site.metrics.associations.get(), 0);
}

#[tokio::test]
async fn silent_connections_do_not_keep_an_echo_out() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { associations: 8, associations_per_address: 4, ..Limits::default() };
    let site = site(dir.path(), limits).await;
    let mut silent = vec![];
    for _ in 0..100 {
        silent.push(Sender::connect(&site).await);
    }
    let mut sender = Sender::associated(&site).await;
    let echo = Command::EchoRequest { message_id: 2, sop_class: VERIFICATION.into() };
    sender.say_command(1, echo).await;
    assert_eq!(sender.hear_response().await.status, 0);
}

#[tokio::test]
async fn one_association_too_many_is_told_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { associations: 1, ..Limits::default() };
    let site = site(dir.path(), limits).await;
    let mut first = Sender::associated(&site).await;
    let mut second = Sender::connect(&site).await;
    second.say(&request().into()).await;
    let Some(Event::Pdu(Pdu::AssociationRJ(reject))) = second.hear().await else { panic!() };
    assert_eq!(reject, access::Refusal::Full.reject());
    assert_eq!(first.store("1.2.3", &image("1.2.3", 10)).await.status, 0);
}
