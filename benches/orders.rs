//! Many open orders and many instances: what an order and an image cost the registrar as there are
//! more of them, and how long a verdict and the list of what is missing take.
//!
//! ```text
//! cargo bench --bench orders [-- --orders 100000 --instances 1000000]
//! ```
//!
//! In one process: orders as HL7 messages, images as tiny data sets straight into custody. Ten images
//! for a study; every hundredth order is overdue and stays so (`--overdue N`: every Nth).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use hikyaku::cargo::{Assignment, CargoKind, Envelope, Identity, Sha256, Urgency};
use hikyaku::clock::Timestamp;
use hikyaku::custody::{Config as CustodyConfig, Custody, Draft};
use hikyaku::metrics::Metrics;
use hikyaku::orders::evidence::{Evidence, Reference, Said, SeriesList, Statement};
use hikyaku::orders::instance::Instance;
use hikyaku::orders::judge::{Case, Rules, judge};
use hikyaku::orders::registrar::{
    self, Config, Desk, HeldStudies, Page, PriorStudies, Receivers, Ways,
};
use hikyaku::orders::tally::Tally;
use hikyaku::orders::worklist::Query;
use tokio_util::sync::CancellationToken;

/// Images of one study.
const IMAGES: u64 = 10;
/// Instances, or orders, of one line of the table.
const WINDOWS: u64 = 5;
/// Senders at a time.
const SENDERS: u64 = 64;

struct Nowhere;

impl Ways for Nowhere {
    fn assign(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Vec<Assignment> {
        Vec::new()
    }

    fn tell(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Vec<Assignment> {
        Vec::new()
    }

    fn receivers(&self) -> Arc<Receivers> {
        Arc::default()
    }
}

fn option(name: &str, default: u64) -> u64 {
    let mut words = std::env::args().skip_while(|word| word != &format!("--{name}"));
    words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(default)
}

/// Whether an order's time is over; no image of its study ever comes, so that the list is not empty.
fn is_overdue(order: u64) -> bool {
    order.is_multiple_of(option("overdue", 100))
}

fn order(n: u64) -> Bytes {
    let when = if is_overdue(n) { "202001010900" } else { "203501010900" };
    let text = format!(
        "MSH|^~\\&|RIS|EAST|H|X|||ORM^O01|M{n}|P|2.3.1\rPID|||{n}||A^B||19500101|M\r\
         ORC|NW|P{n}|F{n}||||^^^{when}^^R\rOBR|1|P{n}|F{n}|CT^CT||||||||||||||A{n}\r\
         ZDS|1.2.9.{n}^RIS^Application^DICOM\r"
    );
    text.into()
}

fn image(custody: &Custody, n: u64) -> Envelope {
    let (study, number) = (n / IMAGES, n % IMAGES);
    let key = format!("1.2.9.{study}.1.{number}");
    let sha256 = Sha256::of(key.as_bytes());
    Envelope {
        kind: CargoKind::Image,
        identity: Identity { origin: custody.node().clone(), key: key.clone(), sha256 },
        length: key.len() as u64,
        urgency: Urgency::Routine,
        received_at: Timestamp(0),
        calling_ae: "CT1".into(),
        called_ae: "HIKYAKU".into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study: format!("1.2.9.{study}"),
        series: format!("1.2.9.{study}.1"),
        modality: "CT".into(),
        accession: format!("A{study}"),
        patient_id: study.to_string(),
        flags: Vec::new(),
    }
}

async fn take(custody: &Custody, n: u64) {
    if is_overdue(n / IMAGES) {
        return;
    }
    let envelope = image(custody, n);
    let mut assembly = custody.assemble();
    assembly.push(envelope.identity.key.as_bytes()).await.expect("room");
    let draft = Draft { envelope, body: assembly.finish(), assignments: Vec::new() };
    custody.take(draft).await.expect("room");
}

/// Does `work` for all of a range, some at a time.
async fn each<F: Future<Output = ()> + Send>(
    range: std::ops::Range<u64>,
    work: impl Fn(u64) -> F + Clone + Send + 'static,
) {
    let senders = (0..SENDERS).map(|sender| {
        let (work, range) = (work.clone(), range.clone());
        tokio::spawn(async move {
            for n in range.filter(|n| n % SENDERS == sender) {
                work(n).await;
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.expect("a sender that ends");
    }
}

/// Waits until the registrar has seen all images of a study.
async fn seen(desk: &Desk, study: u64) {
    loop {
        let found = desk.study(format!("1.2.9.{study}")).await.expect("a registrar");
        let held = found.first().and_then(|s| s.standing.as_ref()).map_or(0, |s| s.held);
        if u64::from(held) == IMAGES {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// A worklist query that all orders must be looked at for, one for a number, and how long the registrar
/// lets others wait meanwhile.
async fn worklist(desk: &Desk, orders: u64) {
    let key = |tag, value: &str| {
        let element = DataElement::new(tag, VR::LO, PrimitiveValue::from(value));
        let set = InMemDicomObject::from_element_iter([element]);
        Query::read(&set).expect("a query")
    };
    let nobody = key(tags::PATIENT_NAME, "NOBODY*");
    let mut finding = desk.worklist(nobody, "CT1".into()).await.expect("a registrar");
    let clerk = desk.clone();
    let done = CancellationToken::new();
    let end = done.clone();
    let waits = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !end.is_cancelled() {
            let begun = Instant::now();
            clerk.counts().await.expect("a registrar");
            longest = longest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        longest
    });
    let begun = Instant::now();
    assert!(finding.next().await.expect("custody").is_none());
    let all = begun.elapsed();
    done.cancel();
    let longest = waits.await.expect("a clerk");
    let begun = Instant::now();
    let one = key(tags::ACCESSION_NUMBER, &format!("A{}", orders / 2));
    let mut finding = desk.worklist(one, "CT1".into()).await.expect("a registrar");
    assert!(finding.next().await.expect("custody").is_some());
    let one = begun.elapsed();
    println!("worklist: all in {all:?}, the registrar answers within {longest:?}; one in {one:?}");
}

/// What a verdict costs by itself, as a study of which a tenth lacks grows.
fn verdicts() {
    for instances in [1_000, 10_000, 100_000] {
        let sop = |n: u32| format!("1.3.46.670589.33.1.60024327917508.{n}");
        let reference = |n| Reference { sop: sop(n), class: String::new() };
        let named = (0..instances).map(reference).collect();
        let lists = vec![SeriesList { series: String::new(), instances: named }];
        let mut evidence = Evidence::default();
        let said = Said::Commitment { lists };
        evidence.hear(Statement::new("c", "CT1", Timestamp(0), said));
        let held = (0..instances).filter(|n| n % 10 != 3);
        let held: Vec<_> = held.map(|n| Instance { sop: sop(n), ..Instance::default() }).collect();
        let tally = Tally::of(&evidence, &held);
        let case = Case { order: None, matched: None, tally: &tally, settled: None };
        let once = |_| {
            let begun = Instant::now();
            let verdict = judge(&case, &Rules::default(), Timestamp(1_000_000));
            assert_eq!(verdict.missing.len() as u32, instances / 10);
            begun.elapsed()
        };
        println!(
            "judged alone: {instances} instances in {:?}",
            median((0..20).map(once).collect())
        );
    }
}

#[tokio::main]
async fn main() {
    verdicts();
    let (orders, instances) = (option("orders", 100_000), option("instances", 1_000_000));
    let dir = tempfile::tempdir().expect("a folder");
    let node: hikyaku::cargo::NodeName = "bench".parse().expect("a name");
    let metrics = Metrics::new();
    let mut config = CustodyConfig::new(node.clone(), dir.path().into());
    config.followed = [hikyaku::custody::Follower::Orders].into();
    let custody = Custody::open(config, metrics.clone()).expect("custody");
    let config = Config {
        node,
        peers: Vec::new(),
        rules: Rules::default(),
        until_matched: false,
        patient_issuer: "SITE".into(),
        hl7: Default::default(),
        zone: jiff::tz::TimeZone::UTC,
        sources: Vec::new(),
        priors: Vec::new(),
        notices: Vec::new(),
        pass_on: hikyaku::orders::passing::Door::default(),
    };
    let asks = (tokio::sync::mpsc::channel(1).0, PriorStudies::default());
    let ways: (Arc<dyn Ways>, HeldStudies) = (Arc::new(Nowhere), HeldStudies::default());
    let stop = CancellationToken::new();
    let (desk, _task) =
        registrar::start(config, custody.clone(), ways, asks, metrics, stop.clone());
    for window in 0..WINDOWS {
        let begun = Instant::now();
        let range = orders * window / WINDOWS..orders * (window + 1) / WINDOWS;
        let n = range.end - range.start;
        let clerk = desk.clone();
        each(range, move |n| {
            let desk = clerk.clone();
            async move { assert_eq!(desk.message(order(n)).await.len(), 1) }
        })
        .await;
        println!("orders: {:.0} a second", n as f64 / begun.elapsed().as_secs_f64());
    }
    for window in 0..WINDOWS {
        let begun = Instant::now();
        let range = instances * window / WINDOWS..instances * (window + 1) / WINDOWS;
        let (n, last) = (range.end - range.start, range.end / IMAGES - 1);
        let scanner = custody.clone();
        each(range, move |n| {
            let custody = scanner.clone();
            async move { take(&custody, n).await }
        })
        .await;
        seen(&desk, last).await;
        println!("images: {:.0} a second, judged", n as f64 / begun.elapsed().as_secs_f64());
    }
    worklist(&desk, orders).await;
    let (mut missing, mut verdict, mut rows) = (Vec::new(), Vec::new(), 0);
    for n in 0..20 {
        let begun = Instant::now();
        let page = Page { max: 1_000_000, ..Page::default() };
        rows = desk.missing(page).await.expect("a registrar").len();
        missing.push(begun.elapsed());
        let begun = Instant::now();
        let study = n * (instances / IMAGES) / 20 + 1;
        assert_eq!(desk.study(format!("1.2.9.{study}")).await.expect("a registrar").len(), 1);
        verdict.push(begun.elapsed());
    }
    println!("missing: {rows} rows in {:?}; a verdict: {:?}", median(missing), median(verdict));
    stop.cancel();
    custody.close().await;
}
