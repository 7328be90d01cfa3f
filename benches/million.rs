//! One million small instances in the queue: what each costs on the way in and out, memory over
//! time, and how soon the node is back after a clean stop and after SIGKILL.
//!
//! ```text
//! cargo bench --bench million [-- --count 1000000 --senders 8 --window 100000 --deliver 200000]
//! ```
//!
//! The short version has `--count 50000 --window 10000`. Real C-STOREs of 1.3 kB, by a sender that
//! costs little; the destination is down until all are queued. See docs/benchmarks.md.

#[allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]
mod harness;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::node::{Node, disk_bytes};
use harness::process::{cpu_seconds, rss_mib};
use harness::table::Table;
use harness::{Options, free_port, load, machine, scu, store, wait_until};
use nix::sys::signal::Signal;

fn config(dicom: u16, ops: u16, destination: u16) -> String {
    format!(
        r#"[node]
name = "bench"
data = "data"
[node.log]
level = "info"
[dicom]
listen = "127.0.0.1:{dicom}"
ae_titles = ["HIKYAKU"]
allow = [{{ address = "127.0.0.1" }}]
[spool]
high_watermark = "94 %"
[[destination]]
name = "next"
kind = "dicom"
address = "127.0.0.1:{destination}"
ae_title = "SINK"
associations = 4
[[route]]
name = "all"
to = ["next"]
[ops]
listen = "127.0.0.1:{ops}"
"#
    )
}

/// What is measured, and on what.
struct Bench {
    count: u64,
    window: u64,
    senders: usize,
    dicom: SocketAddr,
    data: std::path::PathBuf,
}

fn main() {
    let options = Options::read();
    let work = tempfile::tempdir_in(store_dir()).expect("a folder");
    let (dicom, ops, sink) = (free_port(), free_port(), free_port());
    let bench = Bench {
        count: options.number("count", 1_000_000) as u64,
        window: options.number("window", 100_000) as u64,
        senders: options.number("senders", 8),
        dicom: ([127, 0, 0, 1], dicom).into(),
        data: work.path().join("data"),
    };
    println!("{}", machine());
    let toml = config(dicom, ops, sink);
    let ops = ([127, 0, 0, 1], ops).into();
    let mut node = Node::start(&[], work.path(), "million", &toml, ops);
    node.await_ready(Duration::from_secs(20));
    bench.enqueue(&node);
    let starts = bench.restarts(&mut node);
    starts.print("Starting again with the queue full");
    let listener = TcpListener::bind(("127.0.0.1", sink)).expect("the sink's port");
    let deliver = options.number("deliver", bench.count as usize) as u64;
    bench.deliver(&node, &scu::sink(listener), deliver.min(bench.count));
    node.process.stop(Duration::from_secs(60));
}

fn store_dir() -> std::path::PathBuf {
    std::fs::create_dir_all(store()).expect("a folder");
    store()
}

fn mib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / f64::from(1 << 20))
}

impl Bench {
    fn sizes(&self, pid: u32) -> [String; 4] {
        let dir = |name: &str| mib(disk_bytes(&self.data.join(name)));
        [format!("{:.0}", rss_mib(pid)), dir("cargo"), dir("facts"), dir("ledger")]
    }

    /// What one window of `n` objects that ends at `end` took, in seconds of time and processor.
    fn window_row(&self, word: &str, end: u64, n: u64, spent: (f64, f64), pid: u32) -> [String; 9] {
        let (n, (seconds, cpu)) = (n as f64, spent);
        let [rss, cargo, facts, ledger] = self.sizes(pid);
        eprintln!("{end} {word}: {:.0} inst/s, {rss} MiB", n / seconds);
        [
            end.to_string(),
            format!("{:.0}", n / seconds),
            format!("{:.0}", seconds / n * 1e6),
            format!("{:.0}", cpu / n * 1e6),
            rss,
            cargo,
            facts,
            ledger,
            format!("{:.1}", load()),
        ]
    }

    fn enqueue(&self, node: &Node) {
        let pid = node.process.pid();
        let mut table = Table::new([
            "queued",
            "inst/s",
            "us each",
            "CPU us each",
            "RSS MiB",
            "cargo MiB",
            "facts MiB",
            "ledger MiB",
            "load",
        ]);
        let next = AtomicU64::new(0);
        let mut begun = 0;
        while begun < self.count {
            let end = (begun + self.window).min(self.count);
            let (started, cpu) = (Instant::now(), cpu_seconds(pid));
            next.store(begun, Ordering::Relaxed);
            std::thread::scope(|scope| {
                for _ in 0..self.senders {
                    scope.spawn(|| scu::send(self.dicom, &next, end).expect("success answers"));
                }
            });
            let spent = (started.elapsed().as_secs_f64(), cpu_seconds(pid) - cpu);
            table.row(self.window_row("queued", end, end - begun, spent, pid));
            begun = end;
        }
        table.print(&format!("Queueing {} objects, {} senders", self.count, self.senders));
    }

    /// Starts the node again after each kind of end.
    fn restarts(&self, node: &mut Node) -> Table {
        let mut table = Table::new([
            "after",
            "stop s",
            "ready s",
            "C-STORE answered s",
            "queue known",
            "RSS MiB",
        ]);
        for (n, how) in ["a clean stop", "SIGKILL", "a clean stop", "SIGKILL"].iter().enumerate() {
            let stopped = match *how {
                "SIGKILL" => {
                    node.process.signal(Signal::SIGKILL);
                    node.process.wait();
                    0.0
                }
                _ => node.process.stop(Duration::from_secs(120)).as_secs_f64(),
            };
            let config = node.config().to_owned();
            let started = Instant::now();
            *node = Node::again(&[], &config, node.ops);
            let answered = scu::until_answered(self.dicom, 900_000_000 + n as u64, started);
            node.await_ready(Duration::from_secs(600));
            let ready = started.elapsed().as_secs_f64();
            eprintln!("after {how}: ready in {ready:.2} s, answered in {answered:.2} s");
            let known = wait_until(Duration::from_secs(10), Duration::from_millis(100), || {
                node.sum("hikyaku_duties", "state=\"owed\"") >= self.count as f64
            });
            table.row([
                (*how).into(),
                format!("{stopped:.2}"),
                format!("{ready:.2}"),
                format!("{answered:.2}"),
                known.to_string(),
                format!("{:.0}", rss_mib(node.process.pid())),
            ]);
        }
        table
    }

    fn deliver(&self, node: &Node, delivered: &AtomicU64, wanted: u64) {
        let pid = node.process.pid();
        let mut table = Table::new([
            "delivered",
            "inst/s",
            "us each",
            "CPU us each",
            "RSS MiB",
            "cargo MiB",
            "facts MiB",
            "ledger MiB",
            "load",
        ]);
        let limit = Duration::from_secs(3600);
        let step = Duration::from_millis(2);
        // The first does not count: the sender may be waiting to try the destination again.
        assert!(wait_until(limit, step, || delivered.load(Ordering::Relaxed) > 0), "a delivery");
        let mut done = delivered.load(Ordering::Relaxed);
        while done < wanted {
            let end = (done + self.window).min(wanted);
            let (started, cpu) = (Instant::now(), cpu_seconds(pid));
            assert!(wait_until(limit, step, || delivered.load(Ordering::Relaxed) >= end));
            let spent = (started.elapsed().as_secs_f64(), cpu_seconds(pid) - cpu);
            table.row(self.window_row("delivered", end, end - done, spent, pid));
            done = end;
        }
        table.print("Delivering them, 4 associations, to a sink that keeps nothing");
    }
}
