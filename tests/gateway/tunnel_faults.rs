//! A tunnel under bad lines, bad clocks and changing certificates, with a load that goes on. What
//! was accepted arrives, each piece once, and nothing that has its receipt is sent again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::line::{Line, Quality};
use crate::part10;
use crate::rogue::{Authority, install};
use crate::sender::{Acked, Association, Load, Object, Shape, new_study, objects, send_ok};
use crate::site::{HOSPITAL, Node, Plan, Port, READING, Site, is_up, tunnel, until};

/// A hospital that dials through a line, the reading centre, and a folder behind it.
struct Pair {
    hospital: Node,
    reading: Node,
    line: Line,
    site: Site,
}

/// A line that is found dead within seconds.
pub(crate) fn impatient(plan: Plan) -> Plan {
    plan.set("tunnel.limits", "idle = \"4s\"\nkeep_alive = \"1s\"")
}

impl Pair {
    fn new(quality: Quality, change: impl Fn(Plan) -> Plan) -> Self {
        let site = Site::new();
        let reading = site.reading().folder_destination("out").route_all("out");
        let reading = change(reading).start();
        let line = Line::to(reading.port(Port::Tunnel), quality);
        let hospital = change(site.hospital(line.port())).start();
        let pair = Self { hospital, reading, line, site };
        pair.wait_up();
        pair
    }

    fn wait_up(&self) {
        until("the tunnel stands", || is_up(&self.hospital) && is_up(&self.reading));
    }

    fn load(&self, shape: Shape) -> Load {
        Load::start(self.hospital.port(Port::Dicom), shape)
    }

    /// Since when the tunnel stands, on both sides.
    fn since(&self) -> [String; 2] {
        [&self.hospital, &self.reading].map(|node| tunnel(node, "since"))
    }

    fn delivered(&self) -> u64 {
        self.reading.count("out", "receipted")
    }

    /// Bodies that the reading centre was sent whole.
    fn sent_whole(&self) -> u64 {
        self.reading.metric("hikyaku_received_total", &["tunnel"]) as u64
    }

    /// All of it has its receipts and stands in the folder, each once, byte for byte.
    fn all_arrived(&self, acked: &[Acked]) {
        let all = acked.len() as u64;
        for (node, destination) in [(&self.hospital, READING), (&self.reading, "out")] {
            let mut before = (0, Instant::now());
            // However many there are: only standing still is a failure.
            while node.count(destination, "receipted") < all {
                let now = node.count(destination, "receipted");
                if now > before.0 {
                    before = (now, Instant::now());
                }
                let still = before.1.elapsed();
                assert!(still < Duration::from_secs(120), "{now} of {all} at {destination}");
                thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(node.count(destination, "receipted"), all, "at {destination}");
            assert_eq!(node.count(destination, "quarantined"), 0, "at {destination}");
        }
        let mut arrived = BTreeMap::new();
        for file in images(&self.site.path().join("out")) {
            *arrived.entry(part10::digest(&file)).or_insert(0) += 1;
        }
        assert_eq!(arrived.len() as u64, all);
        for one in acked {
            assert_eq!(arrived.get(&one.sha256), Some(&1), "{}", one.sop);
        }
    }
}

fn images(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with(".partial") {
            found.extend(images(&path));
        } else if path.extension().is_some_and(|e| e == "dcm") {
            found.push(path);
        }
    }
    found
}

fn light() -> Shape {
    Shape { associations: 1, length: 30_000, pause: Duration::from_millis(20) }
}

/// `HIKYAKU_CUT_SECONDS=3600` cuts it for an hour.
#[test]
fn a_cut_under_load_stops_no_intake_and_sends_nothing_again_that_has_its_receipt() {
    let seconds = std::env::var("HIKYAKU_CUT_SECONDS").map_or(15, |n| n.parse().expect("seconds"));
    let pair = Pair::new(Quality::default(), impatient);
    // About 20,000 images at most, however long it takes.
    let pause = Duration::from_millis((seconds * 100 / 1000).max(10));
    let load = pair.load(Shape { pause, ..Shape::default() });
    until("fifty images are delivered", || pair.delivered() >= 50);
    pair.line.cut(true);
    let cut = Instant::now();
    let accepted = load.acked_count() as u64;
    until("both sides notice", || !is_up(&pair.hospital) && !is_up(&pair.reading));
    let receipted = pair.hospital.count(READING, "receipted");
    for node in [&pair.hospital, &pair.reading] {
        assert!(!tunnel(node, "reason").is_empty());
    }
    let while_down = load.acked_count() as u64;
    thread::sleep(Duration::from_secs(seconds).saturating_sub(cut.elapsed()));
    assert!(load.acked_count() as u64 > while_down, "intake has stopped");
    assert_eq!(load.refusals(), BTreeMap::new());
    pair.line.cut(false);
    pair.wait_up();
    let acked = load.finish();
    pair.all_arrived(&acked);
    // What was under way when the line was cut may come twice; nothing else may.
    let again = pair.sent_whole() - acked.len() as u64;
    let under_way = (accepted + 2).saturating_sub(receipted);
    assert!(again <= under_way, "{again} sent again, {under_way} were under way");
}

#[test]
fn a_large_image_goes_on_where_the_line_was_cut() {
    let pair = Pair::new(Quality { rate: Some(8 << 20), ..Quality::default() }, impatient);
    let big = Object::new(&new_study(), 1, 48 << 20);
    let mut association =
        Association::open(pair.hospital.port(Port::Dicom)).expect("an association");
    assert_eq!(association.store(&big), Ok(0));
    association.release();
    until("half of it is over", || pair.line.carried().0 > 26 << 20);
    pair.line.cut(true);
    until("both sides notice", || !is_up(&pair.hospital) && !is_up(&pair.reading));
    pair.line.cut(false);
    pair.reading.wait_count("out", "receipted", 1);
    let carried = pair.line.carried().0;
    assert!(carried < 66 << 20, "{carried} bytes went over the line for 48 MiB");
    pair.all_arrived(&[Acked { sop: big.sop.clone(), sha256: big.sha256() }]);
}

/// Row 40, first half.
#[test]
fn a_nat_that_forgets_its_mapping_does_not_interrupt_the_tunnel() {
    let pair = Pair::new(Quality { rate: Some(4 << 20), ..Quality::default() }, |p| p);
    let (since, address) = (pair.since(), tunnel(&pair.reading, "address"));
    let load = pair.load(Shape { length: 100_000, ..Shape::default() });
    for n in 1..=4 {
        until("more is delivered", || pair.delivered() >= n * 20);
        pair.line.rebind();
    }
    let all = pair.delivered() + 20;
    until("more is delivered", || pair.delivered() >= all);
    pair.all_arrived(&load.finish());
    assert_eq!(pair.since(), since, "it is the same connection");
    assert_ne!(tunnel(&pair.reading, "address"), address);
}

/// Row 40, second half. QUIC needs 1200 bytes of every path (RFC 9000 14), so not less.
#[test]
fn a_path_that_becomes_narrow_is_found_and_used() {
    let pair = Pair::new(Quality { rate: Some(8 << 20), ..Quality::default() }, |p| p);
    let since = pair.since();
    pair.line.listen_in();
    let load = pair.load(Shape { length: 100_000, ..Shape::default() });
    // The wide path is in use first.
    until("long packets are sent", || pair.line.overheard().iter().any(|p| p.len() > 1300));
    pair.line.set(Quality { mtu: Some(1220), rate: Some(8 << 20), ..Quality::default() });
    let all = pair.delivered() + 60;
    until("more is delivered", || pair.delivered() >= all);
    pair.all_arrived(&load.finish());
    assert_eq!(pair.since(), since, "it is the same connection");
}

/// Row 37.
#[test]
fn a_line_that_loses_thirty_packets_of_a_hundred_still_carries() {
    let quality = Quality { loss: 300, delay: Duration::from_millis(5), ..Quality::default() };
    let pair = Pair::new(quality, |p| p);
    let load = pair.load(light());
    until("some are accepted", || load.acked_count() >= 15);
    pair.all_arrived(&load.finish());
}

/// Row 38.
#[test]
fn packets_out_of_order_and_gaps_cost_no_more_memory_than_the_windows() {
    let quality = Quality { loss: 30, late: 150, rate: Some(16 << 20), ..Quality::default() };
    let pair = Pair::new(quality, |p| p);
    let resident = memory(&pair.reading, "VmRSS:");
    let mut acked = Vec::new();
    let mut association =
        Association::open(pair.hospital.port(Port::Dicom)).expect("an association");
    for (number, length) in [(1, 12 << 20), (2, 6 << 20), (3, 100_000), (4, 3 << 20)] {
        let object = Object::new(&new_study(), number, length);
        assert_eq!(association.store(&object), Ok(0));
        acked.push(Acked { sop: object.sop.clone(), sha256: object.sha256() });
    }
    association.release();
    pair.all_arrived(&acked);
    let grown = memory(&pair.reading, "VmHWM:").saturating_sub(resident);
    // The receive window, and what bodies of 4 MiB on their way through custody take.
    assert!(grown < (16 + 64) << 10, "the reading centre has grown by {grown} KiB");
}

/// A line of /proc/PID/status, in KiB.
fn memory(node: &Node, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a process");
    let line = status.lines().find_map(|l| l.strip_prefix(line)).expect("a line");
    line.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).expect("KiB")
}

/// Row 41.
#[test]
fn certificates_rotate_under_load_and_nothing_is_dropped() {
    let pair = Pair::new(Quality::default(), impatient);
    let since = pair.since();
    let load = pair.load(light());
    until("some are delivered", || pair.delivered() >= 10);
    let authority = Authority::of(&pair.site);
    for (node, days) in [(&pair.hospital, 71), (&pair.reading, 72)] {
        install(&pair.site, &node.name(), &authority.issue(&node.name(), 0, days));
        node.signal(Signal::SIGHUP);
        let own = format!("certificate=\"{}\"", node.name());
        until("the new certificate is in force", || {
            let left = node.metric("hikyaku_certificate_days_left", &[&own]);
            (f64::from(days) - left).abs() < 1.0
        });
        let all = pair.delivered() + 10;
        until("more is delivered", || pair.delivered() >= all);
    }
    assert_eq!(pair.since(), since, "the tunnel was not dropped");
    // New handshakes use the new ones.
    pair.line.cut(true);
    until("both sides notice", || !is_up(&pair.hospital) && !is_up(&pair.reading));
    pair.line.cut(false);
    pair.wait_up();
    let shown = format!("certificate=\"{HOSPITAL}\"");
    let left = || pair.reading.metric("hikyaku_certificate_days_left", &[&shown]);
    until("the new certificate is shown", || (left() - 71.0).abs() < 1.0);
    pair.all_arrived(&load.finish());
}

#[test]
fn a_node_whose_certificate_has_expired_keeps_queueing_and_says_why() {
    let site = Site::new();
    let reading = site.reading().folder_destination("out").route_all("out").start();
    let line = Line::to(reading.port(Port::Tunnel), Quality::default());
    let plan = site.hospital(line.port());
    let authority = Authority::of(&site);
    install(&site, HOSPITAL, &authority.issue(HOSPITAL, 20, 10));
    let pair = Pair { hospital: plan.start(), reading, line, site };
    let load = pair.load(light());
    until("images are accepted", || load.acked_count() >= 20);
    let why = || tunnel(&pair.hospital, "reason");
    until("status says why", || why().contains("our certificate has expired"));
    assert!(pair.hospital.log().contains("our certificate has expired"));
    let own = format!("certificate=\"{HOSPITAL}\"");
    assert!(pair.hospital.metric("hikyaku_certificate_days_left", &[&own]) < 0.0);
    assert_eq!(load.refusals(), BTreeMap::new());
    install(&pair.site, HOSPITAL, &authority.issue(HOSPITAL, 0, 30));
    pair.hospital.signal(Signal::SIGHUP);
    pair.wait_up();
    pair.all_arrived(&load.finish());
}

/// Where Debian puts libfaketime.
fn libfaketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|e| e.path());
    let mut found = folders.map(|f| f.join("faketime/libfaketimeMT.so.1"));
    found.find(|f| f.exists())
}

/// Row 50. Only the wall clock leaps; that is what an operator or a bad time server does.
#[test]
fn leaps_of_the_wall_clock_stall_nothing_and_expire_nothing() {
    let Some(library) = libfaketime() else {
        eprintln!("skipped: needs libfaketime");
        return;
    };
    let site = Site::new();
    let clock = |name: &str| site.path().join(format!("{name}.clock"));
    let leap = |name: &str, by: &str| fs::write(clock(name), by).expect("a file");
    let faked = |plan: Plan, name: &str| {
        leap(name, "+0");
        plan.environment("LD_PRELOAD", &library.to_string_lossy())
            .environment("FAKETIME_TIMESTAMP_FILE", &clock(name).to_string_lossy())
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .environment("DONT_FAKE_MONOTONIC", "1")
    };
    let reading = site.reading().folder_destination("out").route_all("out");
    let reading = faked(reading, READING).start();
    let line = Line::to(reading.port(Port::Tunnel), Quality::default());
    let hospital = faked(site.hospital(line.port()), HOSPITAL).start();
    let pair = Pair { hospital, reading, line, site: Site::new() };
    pair.wait_up();
    let since = pair.since();
    let load = pair.load(light());
    let more = || {
        let all = pair.delivered() + 15;
        until("more is delivered", || pair.delivered() >= all);
    };
    more();
    for (name, by) in [
        (HOSPITAL, "+86400"),
        (READING, "-86400"),
        (HOSPITAL, "-86400"),
        (READING, "+864000"),
        (READING, "+0"),
        (HOSPITAL, "+0"),
    ] {
        leap(name, by);
        more();
    }
    let acked = load.finish();
    let all = acked.len() as u64;
    pair.hospital.wait_count(READING, "receipted", all);
    pair.reading.wait_count("out", "receipted", all);
    for node in [&pair.hospital, &pair.reading] {
        let spool = &node.status()["spool"];
        assert_eq!(spool["tombstones"], 0, "{}: something was reclaimed", node.name());
        assert!(spool["present"].as_u64() >= Some(all), "{}: {spool}", node.name());
        assert!(spool["clock_leap"].is_string(), "{}: the leap is not shown", node.name());
    }
    assert_eq!(pair.since(), since, "the tunnel was not dropped");
    drop(site);
}

#[test]
fn a_peer_that_was_killed_and_started_again_is_dialled_as_soon_as_it_answers() {
    let site = Site::new();
    let reading = site.reading().folder_destination("out").route_all("out").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let up = || hospital.metric("hikyaku_tunnel_up", &[READING]) > 0.5;
    until("the tunnel is up", up);
    reading.kill();
    reading.start();
    // Without a stateless reset it would learn of it by the idle timeout, and say that.
    until("it hears of the restart", || hospital.log().contains("the peer has restarted"));
    assert!(!hospital.log().contains("idle timeout"), "{}", hospital.log());
    until("the tunnel is up again", up);
    let sent = objects(3, 10_000);
    send_ok(hospital.port(Port::Dicom), &sent);
    hospital.wait_count(READING, "receipted", 3);
}
