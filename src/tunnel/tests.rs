//! Two real custodies, two real tunnels, one line between them that the tests can cut.

mod hostile;
mod line;

use std::collections::BTreeMap;
use std::time::Duration;

use line::Line;
use tempfile::TempDir;

use super::exchange::SMALL_MAX;
use super::frame::tests::envelope;
use super::trust::tests::Authority;
use super::*;
use crate::cargo::{CargoKind, DestinationName, Identity, Sha256, Urgency};
use crate::custody::state::StateName;
use crate::custody::{self, CargoId, Draft, LARGE_BYTES};

/// Keeps what comes, and sends nothing on.
struct NoRoutes;

impl Router for NoRoutes {
    fn assign(&self, _: &Envelope, _: &[u8], _: bool) -> Vec<Assignment> {
        vec![]
    }
}

struct Site {
    custody: Custody,
    config: Config,
    router: Arc<dyn Router>,
    tunnel: Option<Tunnel>,
    shutdown: CancellationToken,
    _data: TempDir,
}

impl Site {
    fn new(files: Files, name: &str, listen: bool, peers: Vec<PeerConfig>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let node: NodeName = name.parse().unwrap();
        let mut config = custody::Config::new(node, data.path().join("data"));
        config.room.capacity = Some(4 << 30);
        config.room.reserve = 1 << 20;
        let custody = Custody::open(config, Metrics::new()).unwrap();
        let limits = Limits {
            idle: Duration::from_millis(1500),
            keep_alive: Duration::from_millis(300),
            drain: Duration::from_millis(500),
            ..Limits::default()
        };
        let listen = listen.then(|| "127.0.0.1:0".parse().unwrap());
        let config = Config { listen, files, peers, limits };
        let shutdown = CancellationToken::new();
        let router = Arc::new(NoRoutes);
        let mut site = Self { custody, config, router, tunnel: None, shutdown, _data: data };
        site.start();
        site
    }

    fn start(&mut self) {
        self.shutdown = CancellationToken::new();
        let (config, custody) = (self.config.clone(), self.custody.clone());
        let router = self.router.clone();
        let started = start(config, custody, router, Metrics::new(), self.shutdown.clone());
        self.tunnel = Some(started.unwrap());
    }

    fn tunnel(&self) -> &Tunnel {
        self.tunnel.as_ref().unwrap()
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        self.tunnel.take().unwrap().drained().await;
    }

    /// Takes cargo that this node has made into custody, owed to nobody yet.
    async fn keep(&self, kind: CargoKind, key: &str, body: &[u8]) -> (CargoId, Identity) {
        let mut assembly = self.custody.assemble();
        for piece in body.chunks(100_000) {
            assembly.push(piece).await.unwrap();
        }
        let origin = self.custody.node().clone();
        let identity = Identity { origin, key: key.into(), sha256: Sha256::of(body) };
        let length = body.len() as u64;
        let envelope = Envelope::of_ours(kind, identity.clone(), length, clock::wall());
        let draft = Draft { envelope, body: assembly.finish(), assignments: vec![] };
        (self.custody.take(draft).await.unwrap().cargo(), identity)
    }

    async fn assign(&self, cargo: CargoId, to: &str) {
        let (destination, urgency) = (to.parse().unwrap(), Urgency::Routine);
        let to = vec![Assignment { destination, urgency, hold: None }];
        assert!(self.custody.assign(cargo, to).await);
    }

    /// Takes an image of these bytes into custody, owed to `to`.
    async fn owe(&self, to: &str, origin: &str, urgency: Urgency, body: &[u8]) -> Identity {
        let mut assembly = self.custody.assemble();
        for piece in body.chunks(100_000) {
            assembly.push(piece).await.unwrap();
        }
        let key = format!("1.2.{}", Sha256::of(body).short());
        let origin = origin.parse().unwrap();
        let identity = Identity { origin, key, sha256: Sha256::of(body) };
        let kind = CargoKind::Image;
        let envelope = Envelope { kind, identity: identity.clone(), urgency, ..envelope(body) };
        let destination: DestinationName = to.parse().unwrap();
        let assignments = vec![Assignment { destination, urgency, hold: None }];
        self.custody.take(Draft { envelope, body: assembly.finish(), assignments }).await.unwrap();
        identity
    }

    fn duties(&self, to: &str, state: StateName, urgency: Option<Urgency>) -> u64 {
        let summary = self.custody.summary();
        let there = summary.destinations.iter().find(|d| d.destination.as_str() == to);
        there.map_or(0, |d| match urgency {
            None => d.in_state(state),
            Some(urgency) => d.duties[urgency.index()][state as usize],
        })
    }

    fn up(&self) -> bool {
        self.tunnel().peers().iter().all(|p| p.up)
    }
}

/// Waits until it is so; a test that waits in vain fails here.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain: {what}");
}

fn peer(name: &str, address: Option<String>) -> PeerConfig {
    PeerConfig { name: name.parse().unwrap(), address, relay: vec![] }
}

fn body(seed: u8, length: usize) -> Vec<u8> {
    let mut x = (u32::from(seed) + 1).wrapping_mul(0x9e37_79b1);
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x as u8
    };
    (0..length).map(next).collect()
}

/// A hospital that dials through a line, and the reading centre behind it.
async fn pair() -> (Site, Site, Line, Authority) {
    let ca = Authority::new("ca");
    let reading =
        Site::new(ca.files("reading", 0, 30), "reading", true, vec![peer("hospital", None)]);
    let line = Line::to(reading.tunnel().local_address().unwrap()).await;
    let address = Some(line.address().to_string());
    let hospital =
        Site::new(ca.files("hospital", 0, 30), "hospital", false, vec![peer("reading", address)]);
    (hospital, reading, line, ca)
}

async fn assert_has(site: &Site, identity: &Identity, body: &[u8]) {
    let kept = site.custody.find(identity).await.expect("it is in custody there");
    let (_, stored) = site.custody.read(kept.cargo()).await.expect("its bytes are there");
    let mut reader = stored.reader(0);
    let mut all = vec![];
    while let Some(bytes) = reader.next(1 << 20).await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(Sha256::of(&all), Sha256::of(body));
}

#[test]
fn large_cargo_means_the_same_to_custody_and_to_the_tunnel() {
    assert_eq!(SMALL_MAX, LARGE_BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn cargo_arrives_bit_for_bit_and_every_duty_is_receipted() {
    let (hospital, reading, _line, _ca) = pair().await;
    let mut sent = vec![];
    for seed in 0..60 {
        let body = body(seed, 1 + 3571 * usize::from(seed));
        let urgency = Urgency::ALL[usize::from(seed % 4)];
        sent.push((hospital.owe("reading", "hospital", urgency, &body).await, body));
    }
    for length in [SMALL_MAX as usize, SMALL_MAX as usize + 1, 9_000_001] {
        let body = body(99, length);
        sent.push((hospital.owe("reading", "hospital", Urgency::Routine, &body).await, body));
    }
    let all = sent.len() as u64;
    until("all receipts", || hospital.duties("reading", StateName::Receipted, None) == all).await;
    for (identity, body) in &sent {
        assert_has(&reading, identity, body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_side_that_was_dialled_sends_on_the_same_connection() {
    let (hospital, reading, _line, _ca) = pair().await;
    let body = body(1, 5000);
    let identity = reading.owe("hospital", "reading", Urgency::Routine, &body).await;
    until("a receipt", || reading.duties("hospital", StateName::Receipted, None) == 1).await;
    assert_has(&hospital, &identity, &body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cut_a_large_object_goes_on_where_it_stopped() {
    let (hospital, reading, line, _ca) = pair().await;
    let big = body(7, 40 << 20);
    line.set_rate(20_000_000);
    let identity = hospital.owe("reading", "hospital", Urgency::Routine, &big).await;
    until("half of it on the line", || line.forwarded() > 24 << 20).await;
    line.cut(true);
    until("both sides notice", || !hospital.up() && !reading.up()).await;
    line.cut(false);
    until("a receipt", || hospital.duties("reading", StateName::Receipted, None) == 1).await;
    assert_has(&reading, &identity, &big).await;
    let spare = (52 << 20) - line.forwarded() as i64;
    assert!(spare > 0, "{} bytes for a body of {}", line.forwarded(), big.len());
}

/// The reading centre was dialled: a report goes home on the connection that the hospital made.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_60_mb_that_is_sent_once_matched_goes_home_and_on_after_a_cut() {
    let (hospital, reading, line, _ca) = pair().await;
    let big = body(8, 60 << 20);
    let (cargo, identity) = reading.keep(CargoKind::Report, "report-1", &big).await;
    assert_eq!(reading.custody.summary_now().await.unwrap().unrouted, 1);
    reading.assign(cargo, "hospital").await;
    until("half of it on the line", || line.returned() > 30 << 20).await;
    line.cut(true);
    assert_eq!(hospital.custody.find(&identity).await, None, "it was cut in time");
    until("both sides notice", || !hospital.up() && !reading.up()).await;
    line.cut(false);
    until("a receipt", || reading.duties("hospital", StateName::Receipted, None) == 1).await;
    assert_has(&hospital, &identity, &big).await;
    let spare = (74 << 20) - line.returned() as i64;
    assert!(spare > 0, "{} bytes for a body of {}", line.returned(), big.len());
    // It has come home, and waits for no route.
    assert_eq!(hospital.custody.summary_now().await.unwrap().unrouted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_say_of_reports_goes_both_ways() {
    let (hospital, reading, _line, _ca) = pair().await;
    for (from, to, name) in [(&hospital, &reading, "reading"), (&reading, &hospital, "hospital")] {
        let (cargo, identity) = from.keep(CargoKind::Note, "said-1", b"a question").await;
        from.assign(cargo, name).await;
        until("a receipt", || from.duties(name, StateName::Receipted, None) == 1).await;
        assert_has(to, &identity, b"a question").await;
        let come = to.custody.arrivals(CargoId(0), 9).await.unwrap();
        assert!(come.iter().any(|a| a.envelope.identity == identity && a.body.len() == 10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stat_image_overtakes_bulk_that_is_on_the_line_already() {
    let (hospital, reading, line, _ca) = pair().await;
    line.set_rate(2_500_000);
    for seed in 0..8 {
        hospital.owe("reading", "hospital", Urgency::Bulk, &body(seed, 3 << 20)).await;
    }
    hospital.owe("reading", "hospital", Urgency::Bulk, &body(50, 30 << 20)).await;
    until("bulk on the line", || line.forwarded() > 2 << 20).await;
    let stat = hospital.owe("reading", "hospital", Urgency::Stat, &body(90, 300_000)).await;
    let before = line.forwarded();
    while reading.custody.find(&stat).await.is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let carried = line.forwarded() - before;
    // On an idle machine 0.6 to 1 MB: the router's queue, the image, and a little bulk. A busy one
    // is seconds late to look; the bulk in front of the image is 54 MiB, the last piece 30 of them.
    assert!(carried < 24 << 20, "{carried} bytes went over the line for an image of 300000");
    let bulk = hospital.duties("reading", StateName::Owed, Some(Urgency::Bulk));
    assert!(bulk >= 1, "no piece of bulk is still owed");
}

#[tokio::test(flavor = "multi_thread")]
async fn cargo_of_a_foreign_origin_is_quarantined_unless_the_peer_may_relay_it() {
    let (hospital, reading, _line, _ca) = pair().await;
    let body = body(3, 5000);
    let identity = hospital.owe("reading", "elsewhere", Urgency::Routine, &body).await;
    until("a refusal", || hospital.duties("reading", StateName::Quarantined, None) == 1).await;
    assert_eq!(reading.custody.find(&identity).await, None);
    let filter = custody::Filter { limit: Some(10), ..custody::Filter::default() };
    let listed = hospital.custody.list(filter).await.unwrap();
    let reason = listed[0].duties[0].reason.clone().unwrap();
    assert!(reason.contains("may not bring cargo of elsewhere"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_peer_has_already_is_not_kept_twice() {
    let (hospital, reading, _line, _ca) = pair().await;
    let (small, large) = (body(1, 5000), body(2, 6 << 20));
    for body in [&small, &large] {
        reading.owe("nobody", "hospital", Urgency::Routine, body).await;
        hospital.owe("reading", "hospital", Urgency::Routine, body).await;
    }
    until("two receipts", || hospital.duties("reading", StateName::Receipted, None) == 2).await;
    assert_eq!(reading.custody.summary_now().await.expect("custody").present, 2);
}

/// Sends everything on to the PACS, as urgently as it was offered.
struct ToThePacs;

impl Router for ToThePacs {
    fn assign(&self, envelope: &Envelope, _: &[u8], _: bool) -> Vec<Assignment> {
        let destination = "pacs".parse().unwrap();
        vec![Assignment { destination, urgency: envelope.urgency, hold: None }]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_again_is_routed_again_and_takes_the_higher_urgency() {
    let (hospital, mut reading, _line, _ca) = pair().await;
    // The port that the line leads to.
    reading.config.listen = reading.tunnel().local_address();
    reading.stop().await;
    let body = body(4, 9000);
    reading.owe("pacs", "hospital", Urgency::Bulk, &body).await;
    reading.router = Arc::new(ToThePacs);
    reading.start();
    hospital.owe("reading", "hospital", Urgency::Stat, &body).await;
    until("a receipt", || hospital.duties("reading", StateName::Receipted, None) == 1).await;
    // The summary is of the last second.
    let urgent = || reading.duties("pacs", StateName::Owed, Some(Urgency::Stat)) == 1;
    until("the higher urgency", urgent).await;
    assert_eq!(reading.duties("pacs", StateName::Owed, Some(Urgency::Bulk)), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_configured_is_told_so() {
    let ca = Authority::new("ca");
    let reading = Site::new(ca.files("reading", 0, 30), "reading", true, vec![]);
    let address = Some(reading.tunnel().local_address().unwrap().to_string());
    let hospital =
        Site::new(ca.files("hospital", 0, 30), "hospital", false, vec![peer("reading", address)]);
    let says = |words: &str| hospital.tunnel().peers()[0].reason.contains(words);
    until("the reason", || says("no destination here has the name \"hospital\"")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_rotate_without_dropping_the_tunnel() {
    let (hospital, reading, line, ca) = pair().await;
    until("the tunnel", || hospital.up() && reading.up()).await;
    let since = BTreeMap::from([
        ("hospital", hospital.tunnel().peers()[0].since),
        ("reading", reading.tunnel().peers()[0].since),
    ]);
    // The same names with new keys, written over the old files.
    hospital.tunnel().reload(&ca.files("hospital", 0, 60)).unwrap();
    reading.tunnel().reload(&ca.files("reading", 0, 60)).unwrap();
    hospital.owe("reading", "hospital", Urgency::Routine, &body(1, 70_000)).await;
    until("a receipt", || hospital.duties("reading", StateName::Receipted, None) == 1).await;
    assert_eq!(hospital.tunnel().peers()[0].since, since["hospital"]);
    assert_eq!(reading.tunnel().peers()[0].since, since["reading"]);
    // And a new handshake uses the new ones.
    line.cut(true);
    until("both sides notice", || !hospital.up() && !reading.up()).await;
    line.cut(false);
    hospital.owe("reading", "hospital", Urgency::Routine, &body(2, 70_000)).await;
    until("two receipts", || hospital.duties("reading", StateName::Receipted, None) == 2).await;
    let expires = reading.tunnel().peers()[0].certificate_expires.unwrap();
    assert!(days_left(expires, clock::wall()) > 50.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_survives_a_change_of_its_own_address() {
    let ca = Authority::new("ca");
    let reading =
        Site::new(ca.files("reading", 0, 30), "reading", true, vec![peer("hospital", None)]);
    let address = Some(reading.tunnel().local_address().unwrap().to_string());
    let hospital =
        Site::new(ca.files("hospital", 0, 30), "hospital", false, vec![peer("reading", address)]);
    until("the tunnel", || hospital.up() && reading.up()).await;
    let before = reading.tunnel().peers()[0].clone();
    let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
    hospital.tunnel().dialling.rebind(socket).unwrap();
    hospital.owe("reading", "hospital", Urgency::Routine, &body(1, 700_000)).await;
    until("a receipt", || hospital.duties("reading", StateName::Receipted, None) == 1).await;
    let after = reading.tunnel().peers()[0].clone();
    assert_eq!(after.since, before.since, "it is still the same connection");
    assert_ne!(after.address, before.address);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_under_load_lets_in_who_proves_its_address() {
    let ca = Authority::new("ca");
    let mut reading =
        Site::new(ca.files("reading", 0, 30), "reading", true, vec![peer("hospital", None)]);
    reading.stop().await;
    // As if always under load: whoever has not proven its address gets a Retry.
    reading.config.limits.retry_above = 0;
    reading.start();
    let address = Some(reading.tunnel().local_address().unwrap().to_string());
    let hospital =
        Site::new(ca.files("hospital", 0, 30), "hospital", false, vec![peer("reading", address)]);
    until("the tunnel", || hospital.up() && reading.up()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_and_starts_again_loses_nothing() {
    let (mut hospital, reading, _line, _ca) = pair().await;
    let mut sent = vec![];
    for seed in 0..40 {
        let body = body(seed, 200_000);
        sent.push((hospital.owe("reading", "hospital", Urgency::Routine, &body).await, body));
        if seed % 13 == 7 {
            hospital.stop().await;
            hospital.start();
        }
    }
    until("all receipts", || hospital.duties("reading", StateName::Receipted, None) == 40).await;
    for (identity, body) in &sent {
        assert_has(&reading, identity, body).await;
    }
}
