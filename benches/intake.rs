//! Intake on loopback: how fast, with how much CPU and memory, images are taken, and made durable,
//! next to dcmtk's storescp (which syncs nothing) and Orthanc (which syncs each file).
//!
//! ```text
//! cargo bench --bench intake [-- --sets ct,mr --rounds 5 --only hikyaku,Orthanc --cases tuned,default,syncs]
//! ```
//!
//! Sender and receiver share the machine. Rounds are interleaved. See docs/benchmarks.md.

#[allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]
mod harness;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::data::{self, Set};
use harness::peers::{Receiver, storescu};
use harness::process::{Watch, cpu_seconds};
use harness::table::{Samples, Table};
use harness::{Options, load, machine};

/// What one receiver did.
#[derive(Default)]
struct Figures {
    seconds: Samples,
    cpu: Samples,
    peak: Samples,
    failed: usize,
}

fn main() {
    let options = Options::read();
    println!("{}", machine());
    let cases = options.list("cases", "tuned,default,syncs");
    for name in options.list("sets", "ct,mr") {
        let set = data::set(name);
        if cases.contains(&"tuned") {
            tuned(&set, &options);
        }
        if cases.contains(&"default") && name == "ct" {
            stock(&set.first(125), &options);
        }
        if cases.contains(&"syncs") && name == "ct" {
            syncs(&set.first(100), &options);
        }
    }
}

fn chosen(options: &Options) -> Vec<Receiver> {
    let only = options.list("only", "");
    Receiver::ALL.into_iter().filter(|r| only == [""] || only.contains(&r.name())).collect()
}

/// One receiver, `senders` at a time; adds to `figures`.
fn run(dir: &Path, receiver: Receiver, set: &Set, senders: usize, tuned: bool, f: &mut Figures) {
    let parts = set.deal(&dir.join("parts"), senders);
    let mut running = receiver.start(&[], &dir.join("receiver"), tuned);
    nix::unistd::sync();
    let pid = running.process.pid();
    let watch = Watch::begin(pid);
    let cpu = cpu_seconds(pid);
    let started = Instant::now();
    let mut sending: Vec<_> = parts
        .iter()
        .map(|part| storescu(&[], running.title(), running.address, part, tuned))
        .collect();
    let ok = sending.iter_mut().map(|s| s.wait().success()).filter(|ok| *ok).count() == senders;
    let seconds = started.elapsed().as_secs_f64();
    f.cpu.0.push((cpu_seconds(pid) - cpu) / (set.bytes as f64 / 1e9));
    f.peak.0.push(watch.peak_mib());
    f.seconds.0.push(seconds);
    let count = running.count();
    if !ok || count != set.files.len() {
        f.failed += 1;
        eprintln!("{} has {count} of {}, senders ok: {ok}", receiver.name(), set.files.len());
    }
    running.process.stop(Duration::from_secs(30));
}

/// Seconds per object that the disk takes: one log, a record written and synced at a time.
fn disk(dir: &Path, set: &Set) -> (f64, f64) {
    let path = dir.join("disk");
    let record = fs::read(&set.files[0]).expect("an image");
    let mut file = File::create(&path).expect("a file");
    let mut syncing = Duration::ZERO;
    let started = Instant::now();
    const RECORDS: usize = 200;
    for _ in 0..RECORDS {
        file.write_all(&record).expect("room on the disk");
        let at = Instant::now();
        file.sync_data().expect("a sync");
        syncing += at.elapsed();
    }
    let total = started.elapsed().as_secs_f64() / RECORDS as f64;
    let _ = fs::remove_file(path);
    (total, syncing.as_secs_f64() / RECORDS as f64)
}

fn tuned(set: &Set, options: &Options) {
    let rounds = options.number("rounds", 5);
    let work = tempfile::tempdir_in(data_dir()).expect("a folder");
    let mut all: BTreeMap<(usize, usize), Figures> = BTreeMap::new();
    let (mut write_sync, mut sync, mut loads) =
        (Samples::default(), Samples::default(), Samples::default());
    for round in 0..rounds {
        loads.0.push(load());
        for senders in [1, 4] {
            let (total, syncing) = disk(work.path(), set);
            write_sync.0.push(total * 1e3);
            sync.0.push(syncing * 1e3);
            for (n, receiver) in chosen(options).into_iter().enumerate() {
                let figures = all.entry((senders, n)).or_default();
                run(work.path(), receiver, set, senders, true, figures);
                eprintln!("round {round}, {senders} senders, {}", receiver.name());
            }
        }
    }
    println!(
        "\n{} set: {} files, {:.1} MB; {rounds} rounds; load {}; the disk: write and fdatasync of \
         one file of the set {} ms, the sync alone {} ms",
        set.name,
        set.files.len(),
        set.bytes as f64 / 1e6,
        loads.show(1),
        write_sync.show(2),
        sync.show(2)
    );
    let receivers = chosen(options);
    for senders in [1, 4] {
        show(set, senders, &receivers, &all, sync.median() / 1e3);
    }
}

fn show(
    set: &Set,
    senders: usize,
    receivers: &[Receiver],
    all: &BTreeMap<(usize, usize), Figures>,
    sync: f64,
) {
    let mut table = Table::new([
        "receiver",
        "MB/s",
        "inst/s",
        "CPU s/GB",
        "peak MiB",
        "x Orthanc",
        "x storescp",
        "failed",
    ]);
    let median = |which: Receiver| {
        let n = receivers.iter().position(|r| *r == which)?;
        all.get(&(senders, n)).map(|f| f.seconds.median())
    };
    let (orthanc, storescp) = (median(Receiver::Orthanc), median(Receiver::Storescp));
    let ratio =
        |of: Option<f64>, seconds: f64| of.map_or("-".into(), |s| format!("{:.2}", s / seconds));
    for (n, receiver) in receivers.iter().enumerate() {
        let Some(f) = all.get(&(senders, n)) else { continue };
        let rate = |total: f64| Samples(f.seconds.0.iter().map(|s| total / s).collect());
        table.row([
            receiver.name().into(),
            rate(set.bytes as f64 / 1e6).show(0),
            rate(set.files.len() as f64).show(0),
            f.cpu.show(1),
            format!("{:.0}", f.peak.max()),
            ratio(orthanc, f.seconds.median()),
            ratio(storescp, f.seconds.median()),
            f.failed.to_string(),
        ]);
    }
    if let Some(storescp) = storescp {
        // One sender waits for each sync; several share them, so that this is the worst case.
        let seconds = storescp + sync * set.files.len() as f64;
        table.row([
            "storescp + a sync each (computed)".into(),
            format!("{:.0}", set.bytes as f64 / 1e6 / seconds),
            format!("{:.0}", set.files.len() as f64 / seconds),
            "-".into(),
            "-".into(),
            ratio(orthanc, seconds),
            ratio(Some(storescp), seconds),
            "-".into(),
        ]);
    }
    let plural = if senders == 1 { "sender" } else { "senders" };
    table.print(&format!("Intake of {}, {senders} {plural}, tuned", set.name));
}

/// Senders and receivers as they come: Nagle's algorithm on, TCP_NODELAY not set.
fn stock(set: &Set, options: &Options) {
    let work = tempfile::tempdir_in(data_dir()).expect("a folder");
    let rounds = options.number("rounds", 5).min(3);
    let receivers = chosen(options);
    let mut all: BTreeMap<usize, Figures> = BTreeMap::new();
    for _ in 0..rounds {
        for (n, receiver) in receivers.iter().enumerate() {
            run(work.path(), *receiver, set, 1, false, all.entry(n).or_default());
        }
    }
    let mut table = Table::new(["receiver", "MB/s", "inst/s"]);
    for (n, receiver) in receivers.iter().enumerate() {
        let rate = |total: f64| Samples(all[&n].seconds.0.iter().map(|s| total / s).collect());
        table.row([
            receiver.name().into(),
            rate(set.bytes as f64 / 1e6).show(0),
            rate(set.files.len() as f64).show(0),
        ]);
    }
    let title = "Intake of CT, 1 sender, default socket settings at both ends";
    table.print(&format!("{title} ({} files, {rounds} rounds)", set.files.len()));
}

/// Counts syncs under strace; timing means nothing here.
fn syncs(set: &Set, options: &Options) {
    let work = tempfile::tempdir_in(data_dir()).expect("a folder");
    let mut table = Table::new(["receiver", "fdatasync per object", "fsync per object"]);
    for receiver in chosen(options) {
        let trace = work.path().join("trace");
        let path = trace.to_str().expect("a path").to_owned();
        let strace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", &path];
        let parts = set.deal(&work.path().join("parts"), 1);
        let mut running = receiver.start(&strace, &work.path().join("receiver"), true);
        let before = fs::read_to_string(&trace).unwrap_or_default().len();
        storescu(&[], running.title(), running.address, &parts[0], true).wait();
        let text = fs::read_to_string(&trace).unwrap_or_default();
        let count = |call: &str| {
            let calls = text[before..].lines().filter(|l| l.contains(call)).count();
            format!("{:.2}", calls as f64 / set.files.len() as f64)
        };
        table.row([receiver.name().into(), count("fdatasync("), count(" fsync(")]);
        running.process.stop(Duration::from_secs(30));
    }
    table.print("Syncs while receiving, 1 sender (strace)");
}

fn data_dir() -> std::path::PathBuf {
    let dir = harness::store();
    fs::create_dir_all(&dir).expect("a folder");
    dir
}
