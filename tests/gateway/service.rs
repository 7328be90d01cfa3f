//! The node as a service: what systemd is told, and what the files in `systemd/` allow.
//!
//! The notify socket is the test's own, so that no service manager is needed; `systemd-analyze` and
//! its kin only read files.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ending;
use crate::site::{Node, PATIENCE, Plan, Site, is_root, run, terminate, text, until};

/// What a hanging custodian makes the node say.
const NOT_FED: &str = "the custodian takes no turns; the watchdog is not fed";

/// A socket that a node tells its state to.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(site: &Site) -> Self {
        let path = site.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a notify socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        Self { socket, path }
    }

    /// As systemd starts it, with a watchdog of three seconds.
    fn watched(&self, plan: Plan) -> Plan {
        plan.environment("NOTIFY_SOCKET", self.path.to_str().expect("a path of text"))
            .environment("WATCHDOG_USEC", "3000000")
    }

    /// The next message, if there is one already or within a moment.
    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.recv(&mut buffer).ok().map(|n| text(&buffer[..n]))
    }

    /// Waits for a message with this line; gives it whole.
    fn wait(&self, line: &str) -> String {
        let mut found = None;
        until(&format!("{line} is told"), || {
            found = self.next().filter(|m| m.lines().any(|l| l == line));
            found.is_some()
        });
        found.expect("found")
    }

    /// Everything that has been told so far.
    fn told(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

#[test]
fn the_manager_hears_of_start_life_reload_and_stop() {
    let site = Site::new();
    let manager = Manager::new(&site);
    let node = manager.watched(site.lone()).start();
    manager.wait("READY=1");
    manager.wait("WATCHDOG=1");
    manager.wait("WATCHDOG=1");
    node.signal(Signal::SIGHUP);
    let reloading = manager.wait("RELOADING=1");
    let at = reloading.lines().find_map(|l| l.strip_prefix("MONOTONIC_USEC="));
    assert!(at.is_some_and(|at| at.parse::<u64>().is_ok()), "one message has both: {reloading}");
    manager.wait("READY=1");
    node.signal(Signal::SIGTERM);
    manager.wait("STOPPING=1");
    assert!(node.wait_ended().success());
}

#[test]
fn a_reload_that_is_refused_leaves_the_node_ready() {
    let site = Site::new();
    let manager = Manager::new(&site);
    let node = manager.watched(site.lone()).start();
    manager.wait("READY=1");
    node.edit(|plan| plan.set("dicom", "listen = \"nonsense\""));
    node.signal(Signal::SIGHUP);
    manager.wait("RELOADING=1");
    manager.wait("READY=1");
    assert!(node.log_of_this_life().contains("reload refused"), "{}", node.log_of_this_life());
    assert_eq!(node.page("/ready").0, 200);
}

#[test]
fn the_watchdog_is_not_fed_while_the_custodian_hangs_in_a_sync() {
    if !is_root() {
        eprintln!("skipped: needs root, to slow the syncs of a running process with strace");
        return;
    }
    let site = Site::new();
    let manager = Manager::new(&site);
    let node = manager.watched(site.lone()).start();
    manager.wait("WATCHDOG=1");
    let mut slow = slow_syncs(&node);
    let mut asking = ask_for_a_sync(&node);
    let said = || node.log_of_this_life().matches(NOT_FED).count();
    until("the node says that it does not feed", || said() >= 1);
    manager.told();
    until("the node says so again", || said() >= 3);
    let told = manager.told();
    assert!(!told.iter().any(|m| m.contains("WATCHDOG=1")), "{told:?}");
    terminate(&mut slow);
    manager.wait("WATCHDOG=1");
    assert!(ending::status("the asker", &mut asking, PATIENCE).success());
}

/// Makes every sync of a running node take ten minutes.
fn slow_syncs(node: &Node) -> Child {
    let traced = format!("/proc/{}/status", node.pid());
    let strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"])
        .args(["-e", "inject=fsync,fdatasync:delay_enter=600000000", "-p"])
        .arg(node.pid().to_string())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace");
    until("strace is attached to every thread", || {
        let tasks = fs::read_dir(Path::new(&traced).with_file_name("task")).expect("threads");
        tasks.flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"))
        })
    });
    strace
}

fn ask_for_a_sync(node: &Node) -> Child {
    Command::new(env!("CARGO_BIN_EXE_hikyaku"))
        .args(["spool", "confirm-clock", "--config"])
        .arg(node.config())
        .stdout(Stdio::null())
        .spawn()
        .expect("hikyaku")
}

fn project(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Output of a tool of systemd; `None` where there is none, which is said.
fn systemd(command: &mut Command, file: Option<&Path>) -> Option<Output> {
    let program = command.get_program().to_os_string();
    if run(Command::new("sh").args(["-c", "command -v \"$0\""]).arg(&program)).status.success() {
        let input = file.map_or(Stdio::null(), |f| fs::File::open(f).expect("a file").into());
        let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        return Some(ending::output("the tool", child.expect("a tool that runs"), PATIENCE));
    }
    eprintln!("skipped: needs {}", program.display());
    None
}

fn assert_good(output: Option<Output>) {
    if let Some(output) = output {
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{}\n{out}{err}", output.status);
    }
}

#[test]
fn the_unit_is_exposed_less_than_twenty_of_a_hundred() {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--threshold=20", "--no-pager"]);
    assert_good(systemd(analyze.arg(project("systemd/hikyaku.service")), None));
}

#[test]
fn the_unit_has_no_word_that_systemd_does_not_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = fs::read_to_string(project("systemd/hikyaku.service")).expect("the unit");
    let here = unit.replace("/usr/local/bin/hikyaku", env!("CARGO_BIN_EXE_hikyaku"));
    assert_ne!(unit, here, "the unit names the program");
    let file = folder.path().join("hikyaku.service");
    fs::write(&file, here).expect("a unit that can be written");
    let mut verify = Command::new("systemd-analyze");
    let output = systemd(verify.args(["verify", "--man=no"]).arg(&file), None);
    if let Some(output) = output {
        let said = text(&output.stderr);
        let of_ours: Vec<_> = said.lines().filter(|l| l.contains("hikyaku")).collect();
        assert_eq!(of_ours, [""; 0], "{said}");
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn the_user_and_the_folders_are_made_as_the_files_say() {
    let users = project("systemd/hikyaku.sysusers");
    let dry = systemd(Command::new("systemd-sysusers").args(["--dry-run", "-"]), Some(&users));
    assert_good(dry);
    if !is_root() {
        eprintln!("skipped: needs root, to give folders to a user");
        return;
    }
    let root = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(root.path().join("etc/hikyaku")).expect("a folder");
    let key = root.path().join("etc/hikyaku/node.key");
    fs::File::create(&key).and_then(|mut f| f.write_all(b"key")).expect("a key");
    let below = format!("--root={}", root.path().display());
    let mut sysusers = Command::new("systemd-sysusers");
    assert_good(systemd(sysusers.args([&below, "-"]), Some(&users)));
    let folders = project("systemd/hikyaku.tmpfiles");
    let mut tmpfiles = Command::new("systemd-tmpfiles");
    let made = systemd(tmpfiles.args(["--create", &below, "-"]), Some(&folders));
    if made.is_none() {
        return;
    }
    assert_good(made);
    let mode = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(root.path().join(path)).expect("made");
        (meta.mode() & 0o777, meta.uid() == 0, meta.gid() == 0)
    };
    assert_eq!(mode("etc/hikyaku"), (0o750, true, false));
    assert_eq!(mode("etc/hikyaku/node.key"), (0o640, true, false));
    assert_eq!(mode("var/lib/hikyaku"), (0o750, false, false));
}
