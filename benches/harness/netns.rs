//! The line emulator of `benches/wanlink`, and acting inside its network namespaces.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::repository;

/// Builds the emulator and says where it is.
pub fn build() -> PathBuf {
    let folder = repository().join("benches/wanlink");
    let target = repository().join("target/wanlink");
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.args(["build", "--release", "--quiet"]).arg("--target-dir").arg(&target);
    let built = cargo.arg("--manifest-path").arg(folder.join("Cargo.toml")).status();
    assert!(built.expect("cargo").success(), "wanlink does not build");
    target.join("release/wanlink")
}

/// A line between the namespaces [`Line::NEAR`] and [`Line::FAR`]; gone when dropped.
pub struct Line(Child);

impl Line {
    /// The sender's end, 10.77.0.1.
    pub const NEAR: &str = "hikyaku-near";
    /// The receiver's end, 10.77.0.2.
    pub const FAR: &str = "hikyaku-far";

    /// Starts the emulator with further arguments; returns when packets can flow.
    pub fn start(program: &PathBuf, arguments: &[String]) -> Self {
        // Before others, as a router would be: a busy machine must not look like a bad line.
        let mut command = Command::new("nice");
        command.args(["-n", "-15"]).arg(program);
        command.args(["--a", Self::NEAR, "--b", Self::FAR]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("wanlink starts");
        let mut ready = String::new();
        let out = child.stdout.take().expect("a pipe");
        let _ = BufReader::new(out).read_line(&mut ready);
        assert_eq!(ready.trim(), "ready", "wanlink needs root and /dev/net/tun");
        Self(child)
    }

    /// Begins a blackout, or ends it.
    pub fn toggle_blackout(&self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGUSR1);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Runs `f` on a thread that lives in the namespace.
pub fn inside<T: Send>(namespace: &str, f: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    std::thread::scope(|scope| {
        let act = || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("root");
            f()
        };
        scope.spawn(act).join().expect("no panic")
    })
}

/// The words that run a command in the namespace.
pub fn prefix(namespace: &str) -> [&str; 4] {
    ["ip", "netns", "exec", namespace]
}
