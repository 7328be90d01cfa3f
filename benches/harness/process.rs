//! Processes that a benchmark starts, and what they use.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process of ours; it is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command`, its output appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let name = format!("{command:?}");
        let file = fs::OpenOptions::new().create(true).append(true).open(log).expect("a log");
        let err = file.try_clone().expect("a log");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(err).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("{name}: {e}")), name }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// Asks it to end, and kills it when it does not.
    pub fn stop(&mut self, patience: Duration) -> Duration {
        let started = Instant::now();
        // strace and the like do not pass it on.
        for pid in family(self.child.id()).into_iter().rev() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
        }
        while self.is_running() && started.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = started.elapsed();
        let _ = self.child.kill();
        let _ = self.child.wait();
        took
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.stop(Duration::from_secs(10));
        }
    }
}

fn tree(pid: u32, out: &mut Vec<u32>) {
    out.push(pid);
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for task in tasks.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_whitespace().filter_map(|c| c.parse().ok()).for_each(|c| tree(c, out));
    }
}

fn family(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    tree(pid, &mut all);
    all
}

/// Seconds of CPU that the process, its children and its ended children have used.
pub fn cpu_seconds(pid: u32) -> f64 {
    let ticks = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let times = fields.split_whitespace().skip(11).take(4);
        times.filter_map(|t| t.parse::<u64>().ok()).sum::<u64>()
    };
    family(pid).into_iter().map(ticks).sum::<u64>() as f64 / 100.0
}

/// MiB of memory that the process and its children occupy now.
pub fn rss_mib(pid: u32) -> f64 {
    let kib = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    family(pid).into_iter().map(kib).sum::<u64>() as f64 / 1024.0
}

/// Looks at a process's memory every 20 ms until it is asked for the peak.
pub struct Watch {
    stop: Arc<AtomicBool>,
    peak_kib: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Begins to look.
    pub fn begin(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peak_kib = Arc::new(AtomicU64::new(0));
        let (ended, peak) = (stop.clone(), peak_kib.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                peak.fetch_max((rss_mib(pid) * 1024.0) as u64, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, peak_kib, thread }
    }

    /// The peak in MiB.
    pub fn peak_mib(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.peak_kib.load(Ordering::Relaxed) as f64 / 1024.0
    }
}
