//! Nodes of our own: the real binary with a configuration file.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::{http, wait_until};

/// The binary under measurement.
pub const BINARY: &str = env!("CARGO_BIN_EXE_hikyaku");

/// A running node.
pub struct Node {
    /// The process.
    pub process: Process,
    /// Where it shows its metrics.
    pub ops: SocketAddr,
    config: PathBuf,
}

impl Node {
    /// Writes `toml` to `dir/NAME.toml` and starts the node; `prefix` is a command to run it
    /// under (`ip netns exec NAME`, `strace ...`), or nothing.
    pub fn start(prefix: &[&str], dir: &Path, name: &str, toml: &str, ops: SocketAddr) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        let config = dir.join(format!("{name}.toml"));
        fs::write(&config, toml).expect("a configuration");
        Self::again(prefix, &config, ops)
    }

    /// Starts a node whose configuration is there already.
    pub fn again(prefix: &[&str], config: &Path, ops: SocketAddr) -> Self {
        let mut words = prefix.to_vec();
        words.push(BINARY);
        let mut command = Command::new(words[0]);
        // As the unit file has it.
        command.env("MALLOC_ARENA_MAX", "2");
        command.args(&words[1..]).args(["run", "--config"]).arg(config);
        let process = Process::start(&mut command, &config.with_extension("log"));
        Self { process, ops, config: config.to_owned() }
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The page of metrics.
    pub fn metrics(&self) -> Option<String> {
        http::get(self.ops, "/metrics")
    }

    /// True when `/ready` says so.
    pub fn is_ready(&self) -> bool {
        http::get(self.ops, "/ready").is_some()
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it is not within `limit`: the end of its log is shown.
    pub fn await_ready(&self, limit: Duration) {
        if !wait_until(limit, Duration::from_millis(10), || self.is_ready()) {
            let log = fs::read_to_string(self.config.with_extension("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            panic!("{} is not ready:\n{}", self.config.display(), tail.join("\n"));
        }
    }

    /// Sums the samples of a metric whose labels contain `with`.
    pub fn sum(&self, name: &str, with: &str) -> f64 {
        let page = self.metrics().unwrap_or_default();
        sum(&page, name, with)
    }
}

/// Sums the samples of a metric on a page, those whose labels contain `with`.
pub fn sum(page: &str, name: &str, with: &str) -> f64 {
    page.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|r| r.starts_with(['{', ' '])))
        .filter(|line| line.contains(with))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Bytes of the folder's files on the disk.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let one = |e: fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => disk_bytes(&e.path()),
        Ok(m) => m.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(one).sum()
}
