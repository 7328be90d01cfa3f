//! Two secretaries, each over a custody and a registrar of its own, between which cargo is carried
//! by hand in any order, while each of them ends at any moment and begins again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::cargo::{Assignment, CargoKind, DestinationName, Envelope, Identity, Urgency};
use crate::custody::{Config as CustodyConfig, Draft, Outcome, Receipt, Want};
use crate::hl7::message::Message;
use crate::hl7::order::OrderFields;
use crate::hl7::report::ReportMessage;
use crate::orders::judge::Rules;
use crate::orders::passing::Door;
use crate::orders::registrar::{HeldStudies, PriorStudies, Receivers, Ways};
use crate::reports::arrive::ArriveRules;
use crate::reports::collect;
use crate::reports::home;
use crate::reports::report::Report;
use crate::reports::versions::{Arrival, Chain, Standing};

mod pairs;

const HOSPITAL: &str = "st-elsewhere";
const CENTRE: &str = "centre";
const HIS: &str = "his";
const STUDY: &str = "1.2.9.1";
/// Storms that run beside each other.
const STORMS: u64 = 4;
/// What happens in one of them.
const STEPS: usize = 60;
/// Minutes from one version to the next: more than two forms of one may be apart.
const APART: usize = 15;
/// Seeds that have failed.
const FAILED: [u64; 0] = [];
/// Longest until all is calm.
const CALM: Duration = Duration::from_secs(90);

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for n in (1..all.len()).rev() {
            all.swap(n, self.below(n + 1));
        }
    }
}

/// Images go to the reading centre.
struct ToCentre;

impl Ways for ToCentre {
    fn assign(&self, envelope: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Vec<Assignment> {
        to(CENTRE, envelope.urgency)
    }

    fn tell(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Vec<Assignment> {
        Vec::new()
    }

    fn route(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        Some("to-centre".into())
    }

    fn receivers(&self) -> Arc<Receivers> {
        Arc::default()
    }
}

fn to(destination: &str, urgency: Urgency) -> Vec<Assignment> {
    vec![Assignment { destination: destination.parse().unwrap(), urgency, hold: None }]
}

fn want(destination: &str, items_max: usize) -> Want {
    Want {
        destination: destination.parse().unwrap(),
        classes: [true; 4],
        length: 0..=u64::MAX,
        items_max,
        bytes_max: u64::MAX,
    }
}

/// A node: what is durable, its registrar, and its secretary.
struct Site {
    custody: Custody,
    orders: registrar::Desk,
    registrar: tokio::task::JoinHandle<()>,
    desk: Desk,
    secretary: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    config: Config,
}

impl Site {
    fn open(data: &Path, node: &str, peers: &[&str]) -> Self {
        let node: NodeName = node.parse().unwrap();
        let mut config = CustodyConfig::new(node.clone(), data.into());
        config.followed = [Follower::Orders, Follower::Reports].into();
        config.room.reserve = 1 << 20;
        config.room.capacity = Some(4 << 30);
        config.keep_reports = Duration::from_secs(3600);
        let metrics = Metrics::new();
        let custody = Custody::open(config, metrics.clone()).unwrap();
        let peers: Vec<NodeName> = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        let config = registrar::Config {
            node: node.clone(),
            peers: peers.clone(),
            rules: Rules::default(),
            until_matched: false,
            patient_issuer: "SITE".into(),
            hl7: Default::default(),
            zone: TimeZone::UTC,
            sources: Vec::new(),
            priors: Vec::new(),
            notices: Vec::new(),
            pass_on: Door::default(),
        };
        let ways: (Arc<dyn Ways>, HeldStudies) = (Arc::new(ToCentre), HeldStudies::default());
        let asks = (mpsc::channel(1).0, PriorStudies::default());
        let stop = CancellationToken::new();
        let (orders, registrar) =
            registrar::start(config, custody.clone(), ways, asks, metrics.clone(), stop.clone());
        let mut homes = BTreeMap::new();
        if node.as_str() == HOSPITAL {
            let wants = [home::Want::Message].into();
            let his = Home { wants, preliminary: true, ..Home::default() };
            homes.insert(HIS.parse().unwrap(), his);
        }
        let config = Config {
            node,
            peers,
            zone: TimeZone::UTC,
            homes,
            signing: Vec::new(),
            ladder: Ladder { rungs: Vec::new(), repeat: Duration::from_secs(600) },
            promises: Promises::default(),
            alarm: Duration::from_secs(3600),
            notices: Vec::new(),
        };
        let (desk, secretary) =
            start(config.clone(), custody.clone(), orders.clone(), metrics, stop.clone());
        Self { custody, orders, registrar, desk, secretary, stop, config }
    }

    /// The secretary ends wherever it is, and another one begins with what is durable.
    async fn crash(&mut self) {
        self.secretary.abort();
        let _ = (&mut self.secretary).await;
        let (custody, orders) = (self.custody.clone(), self.orders.clone());
        let stop = self.stop.clone();
        let begun = start(self.config.clone(), custody, orders, Metrics::new(), stop);
        (self.desk, self.secretary) = begun;
    }

    /// The same just after custody has been given something for the HIS, perhaps before the book
    /// says so; what comes meanwhile is there when the next one begins.
    async fn crash_at_hand_over(&mut self, centre: &Self) {
        let mut looks = 0;
        while looks < 2_000 && self.custody.lease(want(HIS, 1)).await.is_empty() {
            looks += 1;
        }
        self.secretary.abort();
        centre.carry(self, 100, None).await;
        self.crash().await;
    }

    async fn close(self) {
        self.stop.cancel();
        let _ = (self.registrar.await, self.secretary.await);
        self.custody.close().await;
    }

    async fn take(&self, envelope: Envelope, body: &[u8], to: Vec<Assignment>) {
        let mut assembly = self.custody.assemble();
        assembly.push(body).await.unwrap();
        let draft = Draft { envelope, body: assembly.finish(), assignments: to };
        self.custody.take(draft).await.unwrap();
    }

    /// An order and an image of it.
    async fn order(&self) {
        let order = format!(
            "MSH|^~\\&|RIS|EAST|H|X|20260101080000||ORM^O01|M1|P|2.3.1\rPID|||77^^^SITE\r\
             ORC|NW|P1|F1\rOBR|1|P1|F1|CT^CT||||||||||||||A1\r\
             ZDS|{STUDY}^RIS^Application^DICOM\r"
        );
        let answers = self.orders.message(order.into()).await;
        assert!(answers.iter().any(|a| a.windows(6).any(|w| w == b"MSA|AA")));
        let body = b"an image";
        let key = format!("{STUDY}.1.1");
        let sha256 = Sha256::of(body);
        let identity = Identity { origin: self.config.node.clone(), sha256, key };
        let length = body.len() as u64;
        let at = clock::wall();
        let mut envelope = Envelope::of_ours(CargoKind::Image, identity, length, at);
        envelope.sop_class = "1.2.840.10008.5.1.4.1.1.2".into();
        envelope.transfer_syntax = crate::dicom::EXPLICIT_VR_LE.into();
        envelope.study = STUDY.into();
        envelope.series = format!("{STUDY}.1");
        envelope.accession = "A1".into();
        envelope.patient_id = "77".into();
        self.take(envelope, body, to(CENTRE, Urgency::Routine)).await;
    }

    /// Carries up to `most` pieces to another node, in any order; of some the receipt is lost, some
    /// are not carried at all.
    async fn carry(&self, other: &Self, most: usize, luck: Option<&mut Chance>) {
        let mut leased = self.custody.lease(want(other.config.node.as_str(), most)).await;
        let mut all: Vec<usize> = vec![2; leased.len()];
        if let Some(chance) = luck {
            chance.shuffle(&mut leased);
            all.iter_mut().for_each(|fate| *fate = chance.below(4));
        }
        for (duty, fate) in leased.into_iter().zip(all) {
            if fate == 0 {
                continue;
            }
            let body = duty.body.read().await.unwrap();
            other.take(duty.envelope.clone(), &body, Vec::new()).await;
            if fate > 1 {
                let receipt = Receipt::Dicom { status: 0 };
                self.custody.settle(duty, Outcome::Receipted { receipt }).await;
            }
        }
    }

    /// The HIS takes its next message and says yes, not now, or nothing.
    async fn hand(&self, told: &mut Vec<(String, u8, usize)>, mut luck: Option<&mut Chance>) {
        for duty in self.custody.lease(want(HIS, 1)).await {
            let text = String::from_utf8(duty.body.read().await.unwrap().to_vec()).unwrap();
            told.push(version_of(&text));
            match luck.as_mut().map_or(2, |chance| chance.below(4)) {
                0 => {}
                1 => {
                    let (cause, after) = ("AE".into(), Duration::from_millis(20));
                    self.custody.settle(duty, Outcome::Retry { cause, after }).await;
                    return;
                }
                _ => {
                    let receipt = Receipt::Hl7 { code: "AA".into(), control_id: "1".into() };
                    self.custody.settle(duty, Outcome::Receipted { receipt }).await;
                    return;
                }
            }
        }
    }

    async fn story(&self) -> Option<Story> {
        let mut all = self.desk.story(STUDY.into()).await.ok()?;
        assert!(all.len() <= 1, "one report: {all:?}");
        all.pop()
    }
}

/// Control ID and rank of a message for the HIS, and which version it is, by OBR-22.
fn version_of(text: &str) -> (String, u8, usize) {
    let message = Message::parse(text).unwrap();
    let id = message.header().field(10).raw().to_owned();
    let said = ReportMessage::read(&message, &OrderFields::default()).unwrap();
    let report = ArriveRules::default().of_message(&said, 0, text.as_bytes(), "").unwrap();
    let minutes = report.written_at.unwrap().seconds_since(begun()) / 60;
    (id, rank(report.status.as_str()), minutes as usize / APART)
}

/// When the first version was written.
fn begun() -> Timestamp {
    let at: jiff::Timestamp = "2026-11-28T09:00:00Z".parse().unwrap();
    Timestamp(at.as_millisecond())
}

fn rank(status: &str) -> u8 {
    match status {
        "preliminary" | "P" => 0,
        "final" | "F" => 1,
        _ => 2,
    }
}

fn mark(place: usize) -> String {
    format!("version {place} of it")
}

/// What a reporting system says of the study.
struct Said<'a> {
    id: &'a str,
    status: &'a str,
    filler: &'a str,
    at: &'a str,
    signer: &'a str,
    /// The first OBX up to OBX-5, and flags behind it.
    said: &'a str,
}

impl Said<'_> {
    fn report(&self) -> Report {
        let Said { id, status, filler, at, signer, said } = self;
        let text = format!(
            "MSH|^~\\&|READER|RC|H|X|{at}||ORU^R01|{id}|P|2.5\rPID|||77^^^SITE\r\
             OBR|1|P1|{filler}|CT^Chest||||||||||||||||||{at}|||{status}|||||||{signer}\r\
             {said}\r\
             OBX|2|ST|113014^Study Instance UID^DCM||{STUDY}||||||{status}\r"
        );
        let message = Message::parse(&text).unwrap();
        let read = ReportMessage::read(&message, &OrderFields::default()).unwrap();
        ArriveRules::default().of_message(&read, 0, text.as_bytes(), "READER").unwrap()
    }
}

/// Some versions, each as a text, a PDF, or both; a quarter of an hour between them.
fn documents(chance: &mut Chance) -> Vec<(u8, usize, Report)> {
    use base64::Engine;
    let mut all = Vec::new();
    for place in 0..2 + chance.below(4) {
        let status = ["P", "P", "F", "F", "C", "X"][chance.below(6)];
        let forms = chance.below(3);
        for form in (0..2).filter(|form| forms == 2 || forms == *form) {
            let minutes = place * APART + form * 2;
            let at = format!("20261128{:02}{:02}00+0000", 9 + minutes / 60, minutes % 60);
            let said = match form {
                0 => format!("OBX|1|TX|F^Findings||{}", mark(place)),
                _ => {
                    let pdf = format!("%PDF-1.4\n% {}\n%%EOF\n", mark(place));
                    let code = base64::engine::general_purpose::STANDARD.encode(pdf);
                    format!("OBX|1|ED|PDF^Report||^application^pdf^Base64^{code}")
                }
            };
            let (id, signer) = (format!("{place}{form}"), "D1&DOKUEI&ICHIRO");
            let said = Said { id: &id, status, filler: "", at: &at, signer, said: &said };
            let report = said.report();
            all.push((rank(status), place, report));
        }
    }
    // Some come twice.
    for _ in 0..chance.below(3) {
        let again = all[chance.below(all.len())].clone();
        all.push(again);
    }
    chance.shuffle(&mut all);
    all
}

type Shown = Vec<(String, Standing, Timestamp, Timestamp, BTreeSet<String>)>;

fn of_chain(chain: &Chain) -> Shown {
    let versions = chain.versions().into_iter().map(|v| {
        let documents = v.documents.iter().map(|d| d.cargo[..32].to_owned()).collect();
        (v.status.as_str().into(), v.standing, v.written_at, v.arrived_at, documents)
    });
    versions.collect()
}

fn of_story(story: &Story) -> Shown {
    let versions = story.versions.iter().map(|v| {
        let documents = v.documents.iter().map(|(id, _)| id.clone()).collect();
        (v.status.as_str().into(), v.standing, v.written_at, v.arrived_at, documents)
    });
    versions.collect()
}

async fn begin(hospital: &Site, centre: &Site) {
    hospital.order().await;
    let wanted = || registrar::Wanted { placers: vec!["P1".into()], ..Default::default() };
    for _ in 0..400 {
        hospital.carry(centre, 10, None).await;
        let mut known = true;
        for site in [hospital, centre] {
            let found = site.orders.candidates(wanted()).await.unwrap_or_default();
            known &= found.len() == 1 && found[0].study == STUDY && found[0].order.is_some();
        }
        if known {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("order and study never come to both");
}

/// One storm; afterwards all must be as the chain says.
async fn storm(seed: u64) {
    let mut chance = Chance(seed | 1);
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open_hospital = || Site::open(east.path(), HOSPITAL, &[CENTRE]);
    let open_centre = || Site::open(west.path(), CENTRE, &[HOSPITAL]);
    let (mut hospital, mut centre) = (open_hospital(), open_centre());
    begin(&hospital, &centre).await;
    let mut left = documents(&mut chance);
    let all = left.clone();
    let (mut chain, mut told) = (Chain::default(), Vec::new());
    for step in 0.. {
        if step >= STEPS && left.is_empty() {
            break;
        }
        match chance.below(13) {
            0..3 => {
                let Some((_, _, report)) = left.pop() else { continue };
                let collected = collect::take(&centre.custody, &report).await.unwrap();
                let before = CargoId(collected.kept.cargo().0 - 1);
                let come = centre.custody.arrivals(before, 1).await.unwrap().remove(0);
                let cargo = come.envelope.identity.sha256.to_string();
                chain.apply(Arrival::of(&report, &cargo, come.kept_at));
            }
            3..5 => centre.carry(&hospital, 1 + chance.below(4), Some(&mut chance)).await,
            5 => hospital.carry(&centre, 1 + chance.below(4), Some(&mut chance)).await,
            6..8 => hospital.hand(&mut told, Some(&mut chance)).await,
            8 => hospital.crash().await,
            9 => centre.crash().await,
            12 => hospital.crash_at_hand_over(&centre).await,
            10 if chance.below(4) == 0 => {
                match chance.below(2) {
                    0 => {
                        hospital.close().await;
                        hospital = open_hospital();
                    }
                    _ => {
                        centre.close().await;
                        centre = open_centre();
                    }
                };
            }
            _ => tokio::time::sleep(Duration::from_millis(chance.below(40) as u64)).await,
        }
    }
    let give_up = tokio::time::Instant::now() + CALM;
    let yes = |story: &Option<Story>| {
        let said = |name: &DestinationName, word: &str| name.as_str() == HIS && word == "accepted";
        let row = story.as_ref().map(|s| &s.row.destinations);
        row.is_some_and(|all| all.iter().any(|(name, word)| said(name, word)))
    };
    loop {
        centre.carry(&hospital, 100, None).await;
        hospital.carry(&centre, 100, None).await;
        hospital.hand(&mut told, None).await;
        let (here, there) = (hospital.story().await, centre.story().await);
        let same = |s: &Option<Story>| s.as_ref().map(of_story) == Some(of_chain(&chain));
        if same(&here) && same(&there) && yes(&here) && yes(&there) {
            break;
        }
        let late = tokio::time::Instant::now() > give_up;
        assert!(!late, "seed {seed}: {here:#?}\n{there:#?}\nthe chain: {:#?}", of_chain(&chain));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    told.dedup();
    let sequence: Vec<(u8, usize)> = told.iter().map(|(_, rank, place)| (*rank, *place)).collect();
    assert!(sequence.is_sorted(), "seed {seed}: a step back: {sequence:?}");
    let latest = all.iter().map(|(rank, place, _)| (*rank, *place)).max();
    assert_eq!(sequence.last().copied(), latest, "seed {seed}");
    assert!(centre.desk.held(10).await.unwrap().is_empty());
    hospital.close().await;
    centre.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_of_slips_and_reports_and_any_crash_end_in_the_book_that_the_chain_says() {
    let given = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seed = given("HIKYAKU_SEED").unwrap_or_else(|| clock::wall().0.unsigned_abs());
    let storms = given("HIKYAKU_STORM_SECRETARY").unwrap_or(STORMS);
    eprintln!("secretary: HIKYAKU_SEED={seed}");
    let seeds = FAILED.into_iter().chain((0..storms).map(|n| seed.wrapping_add(n * 0x9E37_79B9)));
    let mut running = tokio::task::JoinSet::new();
    for seed in seeds {
        if running.len() >= STORMS as usize {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(storm(seed));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}
