//! Custody to custody over an emulated line, next to storescu and Orthanc's C-STORE.
//!
//! ```text
//! cargo bench --bench tunnel [-- --profiles LAN,METRO,RURAL,FAR,OUTAGE --rounds 3 --only hikyaku]
//! ```
//!
//! Needs root (network namespaces, TUN). The images are in the hospital's custody before the
//! tunnel comes up; measured is from the tunnel's start to the last receipt. Peers' TCP uses the
//! kernel's congestion control unless `--tcp cubic` says otherwise. See docs/benchmarks.md.

#[allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]
mod harness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::data::{self, Set};
use harness::netns::{self, Line, inside, prefix};
use harness::node::{BINARY, Node, sum};
use harness::peers::{orthanc_config, spawn, storescu};
use harness::table::{Samples, Table};
use harness::{Options, http, load, machine, store, wait_until};

/// A kind of line.
struct Profile {
    name: &'static str,
    delay_ms: f64,
    rate_mbit: f64,
    loss: f64,
    queue: Option<u64>,
    /// Images that are sent.
    images: usize,
    /// Blackout: from when, to when, in seconds after the start.
    blackout: Option<(f64, f64)>,
}

const PROFILES: [Profile; 5] = [
    // Delays are of one direction: half of the round trip that the name stands for.
    Profile {
        name: "LAN",
        delay_ms: 0.1,
        rate_mbit: 1000.0,
        loss: 0.0,
        queue: Some(250_000),
        images: 250,
        blackout: None,
    },
    Profile {
        name: "METRO",
        delay_ms: 5.0,
        rate_mbit: 100.0,
        loss: 0.01,
        queue: None,
        images: 125,
        blackout: None,
    },
    Profile {
        name: "RURAL",
        delay_ms: 25.0,
        rate_mbit: 20.0,
        loss: 0.5,
        queue: None,
        images: 40,
        blackout: None,
    },
    Profile {
        name: "FAR",
        delay_ms: 75.0,
        rate_mbit: 100.0,
        loss: 0.5,
        queue: None,
        images: 24,
        blackout: None,
    },
    Profile {
        name: "OUTAGE",
        delay_ms: 5.0,
        rate_mbit: 100.0,
        loss: 0.01,
        queue: None,
        images: 250,
        blackout: Some((6.0, 26.0)),
    },
];

impl Profile {
    fn arguments(&self, seed: usize, tcp: Option<&str>) -> Vec<String> {
        let mut all = vec![
            format!("--delay-ms={}", self.delay_ms),
            format!("--rate-mbit={}", self.rate_mbit),
            format!("--loss={}", self.loss),
            format!("--seed={}", 100 + seed),
        ];
        all.extend(self.queue.map(|q| format!("--queue={q}")));
        all.extend(tcp.map(|t| format!("--tcp={t}")));
        all
    }

    /// What full TCP segments carry, in MB/s.
    fn payload_rate(&self) -> f64 {
        self.rate_mbit / 8.0 * 1448.0 / 1500.0
    }
}

/// Who carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Hikyaku,
    Storescu(usize),
    Orthanc,
}

impl Carrier {
    const ALL: [Self; 4] = [Self::Hikyaku, Self::Storescu(1), Self::Storescu(4), Self::Orthanc];

    const fn name(self) -> &'static str {
        match self {
            Self::Hikyaku => "hikyaku",
            Self::Storescu(1) => "storescu x1",
            Self::Storescu(_) => "storescu x4",
            Self::Orthanc => "Orthanc C-STORE",
        }
    }
}

/// What came of one run.
#[derive(Debug, Default)]
struct Run {
    seconds: f64,
    arrived: usize,
    note: String,
}

#[derive(Default)]
struct Figures {
    seconds: Samples,
    arrived: Vec<usize>,
    notes: Vec<String>,
}

fn main() {
    let options = Options::read();
    println!("{}", machine());
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root for network namespaces and TUN");
        return;
    }
    let program = netns::build();
    let (rounds, tcp) = (options.number("rounds", 3), options.value("tcp"));
    let only = options.list("only", "");
    let carriers: Vec<Carrier> =
        Carrier::ALL.into_iter().filter(|c| only == [""] || only.contains(&c.name())).collect();
    let ct = data::set("ct");
    for name in options.list("profiles", "LAN,METRO,RURAL,FAR,OUTAGE") {
        let profile = PROFILES.iter().find(|p| p.name == name).expect("a profile");
        let set = ct.first(options.number("images", profile.images));
        let mut all: BTreeMap<usize, Figures> = BTreeMap::new();
        let mut loads = Samples::default();
        for round in 0..rounds {
            for (n, carrier) in carriers.iter().enumerate() {
                let run = carry(&program, profile, *carrier, &set, round, tcp);
                eprintln!("{name} round {round} {}: {run:?}", carrier.name());
                loads.0.push(load());
                let figures = all.entry(n).or_default();
                figures.seconds.0.push(run.seconds);
                figures.arrived.push(run.arrived);
                figures.notes.push(run.note);
            }
        }
        show(profile, &set, &carriers, &all, &loads);
    }
}

fn show(
    profile: &Profile,
    set: &Set,
    carriers: &[Carrier],
    all: &BTreeMap<usize, Figures>,
    loads: &Samples,
) {
    let mut table = Table::new(["carrier", "MB/s", "of the line", "seconds", "arrived", "notes"]);
    for (n, carrier) in carriers.iter().enumerate() {
        let f = &all[&n];
        // Only what arrived counts.
        let rates = f.seconds.0.iter().zip(&f.arrived).map(|(seconds, arrived)| {
            set.bytes as f64 / 1e6 * *arrived as f64 / set.files.len() as f64 / seconds
        });
        let rate = Samples(rates.collect());
        let arrived = |least: bool| {
            let all = f.arrived.iter().copied();
            if least { all.min() } else { all.max() }.unwrap_or(0)
        };
        table.row([
            carrier.name().into(),
            rate.show(2),
            format!("{:.0} %", rate.median() / profile.payload_rate() * 100.0),
            f.seconds.show(1),
            format!("{}-{} of {}", arrived(true), arrived(false), set.files.len()),
            f.notes.last().cloned().unwrap_or_default(),
        ]);
    }
    table.print(&format!(
        "{}: round trip {} ms, {} Mbit/s, loss {} % each way{}; {} CT images, {:.1} MB; payload \
         {:.2} MB/s; load {}",
        profile.name,
        2.0 * profile.delay_ms,
        profile.rate_mbit,
        profile.loss,
        profile.blackout.map_or(String::new(), |(a, b)| format!(", nothing from {a} s to {b} s")),
        set.files.len(),
        set.bytes as f64 / 1e6,
        profile.payload_rate(),
        loads.show(1)
    ));
}

fn carry(
    program: &PathBuf,
    profile: &Profile,
    carrier: Carrier,
    set: &Set,
    round: usize,
    tcp: Option<&str>,
) -> Run {
    std::fs::create_dir_all(store()).expect("a folder");
    let work = tempfile::tempdir_in(store()).expect("a folder");
    let line = Line::start(program, &profile.arguments(round, tcp));
    let clock = Clock { line: &line, blackout: profile.blackout };
    match carrier {
        Carrier::Hikyaku => hikyaku(work.path(), set, &clock),
        Carrier::Storescu(n) => storescus(work.path(), set, n, &clock),
        Carrier::Orthanc => orthanc(work.path(), set, &clock),
    }
}

/// Time since the start, with the blackout at its hour.
struct Clock<'a> {
    line: &'a Line,
    blackout: Option<(f64, f64)>,
}

impl Clock<'_> {
    /// Waits until `done`, from now on; gives up after ten minutes.
    fn run(&self, mut done: impl FnMut() -> bool) -> f64 {
        let started = Instant::now();
        let mut ahead: Vec<f64> = self.blackout.map_or(vec![], |(from, to)| vec![to, from]);
        wait_until(Duration::from_secs(600), Duration::from_millis(10), || {
            if ahead.last().is_some_and(|at| started.elapsed().as_secs_f64() >= *at) {
                ahead.pop();
                self.line.toggle_blackout();
            }
            done()
        });
        let seconds = started.elapsed().as_secs_f64();
        // A carrier that gave up must not leave the line dark.
        if ahead.len() == 1 {
            self.line.toggle_blackout();
        }
        seconds
    }
}

const NEAR_OPS: SocketAddr = SocketAddr::new(LOCAL, 9480);
const NEAR_DICOM: SocketAddr = SocketAddr::new(LOCAL, 11112);
const LOCAL: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const FAR_DICOM: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2)), 11112);

fn pki(dir: &Path) {
    let run = |words: &[&str]| {
        let done = Command::new(BINARY).args(words).arg("--dir").arg(dir).output();
        let done = done.expect("the binary");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(&["pki", "ca", "--name", "Benchmark"]);
    run(&["pki", "issue", "--name", "hospital"]);
    run(&["pki", "issue", "--name", "reading"]);
}

fn node_config(name: &str, tunnel: &str, destination: &str) -> String {
    format!(
        r#"[node]
name = "{name}"
data = "{name}"
[dicom]
listen = "127.0.0.1:11112"
ae_titles = ["HIKYAKU"]
allow = [{{ address = "127.0.0.1" }}]
[tunnel]
certificate = "{name}.crt"
key = "{name}.key"
trust = "ca.crt"
{tunnel}
[[destination]]
{destination}
[[route]]
name = "all"
to = ["next"]
[ops]
listen = "127.0.0.1:9480"
"#
    )
}

fn hikyaku(dir: &Path, set: &Set, clock: &Clock) -> Run {
    pki(dir);
    let (near, far) = (prefix(Line::NEAR), prefix(Line::FAR));
    let hospital = node_config(
        "hospital",
        "",
        "name = \"reading\"\nkind = \"node\"\naddress = \"10.77.0.2:4433\"",
    )
    .replace("to = [\"next\"]", "to = [\"reading\"]");
    let reading = node_config(
        "reading",
        "listen = \"10.77.0.2:4433\"\npeers = [{ name = \"hospital\" }]",
        "name = \"next\"\nkind = \"dicom\"\naddress = \"127.0.0.1:1\"\nae_title = \"DOWN\"",
    );
    let patience = Duration::from_secs(30);
    let mut sender = Node::start(&near, dir, "hospital-node", &hospital, NEAR_OPS);
    // Not "ready" without its tunnel, but it takes images.
    inside(Line::NEAR, || answers(NEAR_DICOM));
    let parts = set.deal(&dir.join("parts"), 1);
    assert!(storescu(&near, "HIKYAKU", NEAR_DICOM, &parts[0], true).wait().success());
    sender.process.stop(patience);
    let receiver = Node::start(&far, dir, "reading-node", &reading, NEAR_OPS);
    inside(Line::FAR, || answers(NEAR_DICOM));
    let sender = Node::again(&near, sender.config(), NEAR_OPS);
    let seconds = inside(Line::NEAR, || {
        let up = || sender.sum("hikyaku_tunnel_up", "reading") > 0.0;
        assert!(wait_until(patience, Duration::from_millis(2), up), "no tunnel");
        let wanted = set.files.len() as f64;
        clock.run(|| sender.sum("hikyaku_receipted_total", "reading") >= wanted)
    });
    let (page, lost) = (
        inside(Line::FAR, || receiver.metrics()).unwrap_or_default(),
        inside(Line::NEAR, || sender.sum("hikyaku_tunnel_lost_packets_total", "reading")),
    );
    let bodies = sum(&page, "hikyaku_received_total", "tunnel");
    let again = sum(&page, "hikyaku_kept_already_total", "");
    Run {
        seconds,
        arrived: sum(&page, "hikyaku_kept_total", "") as usize,
        note: format!("{bodies} bodies came whole, {again} of them again; {lost} packets lost"),
    }
}

fn storescus(dir: &Path, set: &Set, senders: usize, clock: &Clock) -> Run {
    let (near, far) = (prefix(Line::NEAR), prefix(Line::FAR));
    let inbox = dir.join("in");
    std::fs::create_dir_all(&inbox).expect("a folder");
    let path = inbox.to_str().expect("a path");
    let _scp = spawn(&far, &["storescp", "--fork", "-od", path, "11112"], dir, true);
    listening();
    let parts = set.deal(&dir.join("parts"), senders);
    let mut sending: Vec<_> =
        parts.iter().map(|part| storescu(&near, "ANY-SCP", FAR_DICOM, part, true)).collect();
    let seconds = clock.run(|| !sending.iter_mut().any(harness::process::Process::is_running));
    let ok = sending.iter_mut().all(|s| s.wait().success());
    let arrived = std::fs::read_dir(&inbox).map_or(0, Iterator::count);
    Run { seconds, arrived, note: if ok { String::new() } else { "a sender gave up".into() } }
}

fn answers(address: SocketAddr) {
    let up = || std::net::TcpStream::connect(address).is_ok();
    assert!(wait_until(Duration::from_secs(60), Duration::from_millis(20), up), "no listener");
}

/// Waits until the far end listens; asked there, so that the line is not used.
fn listening() {
    inside(Line::FAR, || answers(FAR_DICOM));
}

fn orthanc(dir: &Path, set: &Set, clock: &Clock) -> Run {
    let (near, far) = (prefix(Line::NEAR), prefix(Line::FAR));
    let start = |prefix: &[&str], name: &str, more: &str| {
        let home = dir.join(name);
        std::fs::create_dir_all(&home).expect("a folder");
        let config = orthanc_config(&home, name, 11112, 9480, more);
        spawn(prefix, &["Orthanc", config.to_str().expect("a path")], &home, true)
    };
    let _receiver = start(&far, "FAR", "");
    let modality = ", \"DicomModalities\": {\"far\": [\"FAR\", \"10.77.0.2\", 11112]}";
    let _sender = start(&near, "NEAR", modality);
    listening();
    let wanted = set.files.len() as u64;
    let count = |ns: &str| {
        inside(ns, || http::get(NEAR_OPS, "/statistics"))
            .and_then(|page| http::number(&page, "CountInstances"))
            .unwrap_or(0)
    };
    inside(Line::NEAR, || answers(NEAR_DICOM));
    let parts = set.deal(&dir.join("parts"), 1);
    storescu(&near, "NEAR", NEAR_DICOM, &parts[0], true).wait();
    assert_eq!(count(Line::NEAR), wanted, "Orthanc has what is to be sent");
    let job = inside(Line::NEAR, || {
        let studies = http::get(NEAR_OPS, "/studies").unwrap_or_default();
        let study = studies.split('"').nth(1).expect("a study").to_owned();
        let body = format!("{{\"Resources\": [\"{study}\"], \"Asynchronous\": true}}");
        let answer = http::request(NEAR_OPS, "POST", "/modalities/far/store", body.as_bytes());
        http::text(&answer.expect("a job"), "ID").expect("its number")
    });
    let mut state = String::new();
    let seconds = inside(Line::NEAR, || {
        clock.run(|| {
            let page = http::get(NEAR_OPS, &format!("/jobs/{job}")).unwrap_or_default();
            state = http::text(&page, "State").unwrap_or_default();
            state == "Success" || state == "Failure"
        })
    });
    let note = if state == "Success" { String::new() } else { format!("job: {state}") };
    Run { seconds, arrived: count(Line::FAR) as usize, note }
}
