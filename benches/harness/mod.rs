//! What the benchmarks share: data, receivers, measuring, tables.

pub mod data;
pub mod http;
pub mod netns;
pub mod node;
pub mod peers;
pub mod process;
pub mod scu;
pub mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where generated sets are kept between runs.
pub fn store() -> PathBuf {
    repository().join("target/bench-data")
}

/// A port of 127.0.0.1 that is free now, for TCP and UDP.
pub fn free_port() -> u16 {
    loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = tcp.local_addr().expect("a bound port").port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Polls `what` every `step` until it is true; false when `limit` has passed.
pub fn wait_until(limit: Duration, step: Duration, mut what: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !what() {
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(step);
    }
    true
}

/// The arguments behind `cargo bench --bench NAME --`, as `--key value` and single words.
pub struct Options(Vec<String>);

impl Options {
    /// Of this process; cargo's own `--bench` is left out.
    pub fn read() -> Self {
        Self(std::env::args().skip(1).filter(|a| a != "--bench").collect())
    }

    /// The value behind `--key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        let at = self.0.iter().position(|a| a.strip_prefix("--") == Some(key))?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// A number behind `--key`, or the default.
    pub fn number(&self, key: &str, default: usize) -> usize {
        self.value(key).map_or(default, |v| v.parse().expect("a number"))
    }

    /// A comma-separated list behind `--key`, or the default.
    pub fn list<'a>(&'a self, key: &str, default: &'a str) -> Vec<&'a str> {
        self.value(key).unwrap_or(default).split(',').collect()
    }
}

/// What the machine is doing besides: its load average over the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|w| w.parse().ok()).unwrap_or(0.0)
}

/// One line about the machine, for the head of a report.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name\t: ")).unwrap_or("?");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = hikyaku::clock::wall();
    format!("{cores} x {model}, Linux {}, {date}, load {:.1}", kernel.trim(), load())
}
