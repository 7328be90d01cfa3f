//! Real nodes in a temporary folder: keys made by `hikyaku pki`, configurations written, the real
//! binary started, asked, stopped, killed and started again.
//!
//! ```ignore
//! let site = Site::new();
//! let pacs = Scp::start(&site, &[]);
//! let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
//! let hospital = site.hospital(reading.port(Port::Tunnel)).start();
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use crate::ending::run;
use crate::{ending, http, ports};

/// How long anything may take before a test says that it does not happen. No test measures time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes of a log that a failed test shows.
const TAIL: usize = 12_000;
/// What a node writes once everything stands.
const RUNNING: &str = "is running";

pub(crate) const HOSPITAL: &str = "hospital";
pub(crate) const READING: &str = "reading-centre";

/// The program under test.
pub(crate) fn hikyaku() -> Command {
    Command::new(env!("CARGO_BIN_EXE_hikyaku"))
}

/// Standard output of a command that must succeed.
pub(crate) fn run_ok(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks until `met` holds; false when it never does.
pub(crate) fn met(mut met: impl FnMut() -> bool) -> bool {
    let give_up = Instant::now() + PATIENCE;
    while !met() {
        if Instant::now() > give_up {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

/// Looks until `met` holds; a test whose condition is never met fails with `what`.
pub(crate) fn until(what: &str, mut met: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < give_up, "did not happen within {PATIENCE:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Root, which mounts, network namespaces and control groups need.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Ends a process politely, and one that does not heed it by force.
pub(crate) fn terminate(child: &mut Child) {
    signal(child, Signal::SIGTERM);
    if ending::within(child, PATIENCE).is_none() {
        ending::kill(child);
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().expect("a pid"));
    // It may have ended by itself, which its exit status then tells.
    let _ = kill(pid, signal);
}

/// A folder of its own, with an authority, for the nodes of one test.
pub(crate) struct Site {
    dir: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// In a folder of the test's choice, such as a mounted file system.
    pub(crate) fn below(dir: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("hikyaku-test-").tempdir_in(dir);
        let site = Self { dir: dir.expect("a temporary folder") };
        let pki = site.pki();
        run_ok(hikyaku().args(["pki", "ca", "--name", "Test authority", "--dir"]).arg(pki));
        site
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where `ca.crt`, `NODE.crt` and `NODE.key` are.
    pub(crate) fn pki(&self) -> PathBuf {
        self.path().join("pki")
    }

    /// A plan without any section but its own name; `key = "value"` lines are set by tests.
    pub(crate) fn node(&self, name: &str) -> Plan {
        let pki = self.pki();
        let key = pki.join(format!("{name}.key"));
        if !key.exists() {
            run_ok(hikyaku().args(["pki", "issue", "--name", name, "--dir"]).arg(&pki));
        }
        let port = |_| ports::free();
        Plan {
            name: name.into(),
            dir: self.path().into(),
            sections: BTreeMap::new(),
            tables: Vec::new(),
            ports: [0; 5].map(port),
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
        .set("node", &format!("name = {name:?}\ndata = {name:?}"))
        .set("spool", "reserve = \"16 MiB\"\ncapacity = \"4 GiB\"")
    }

    /// Takes images by DICOM and sends everything to the reading centre; what is called as
    /// TELE_STAT is urgent.
    pub(crate) fn hospital(&self, tunnel: u16) -> Plan {
        let route = format!("name = \"everything\"\nto = [{READING:?}]");
        let emergency = format!(
            "name = \"emergency\"\nwhen = {{ called_ae = \"TELE_STAT\" }}\nto = [{READING:?}]\n\
             urgency = \"stat\""
        );
        self.node(HOSPITAL)
            .dicom()
            .dials(READING, tunnel)
            .table("route", &emergency)
            .table("route", &route)
    }

    /// Waits for the hospital's tunnel; has no destinations and no routes yet.
    pub(crate) fn reading(&self) -> Plan {
        self.node(READING).awaits(HOSPITAL)
    }

    /// Takes images by DICOM, without a tunnel; has no destinations and no routes yet.
    pub(crate) fn lone(&self) -> Plan {
        self.node("lone").dicom()
    }
}

/// A listener of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Port {
    Dicom,
    DicomTls,
    Tunnel,
    Ops,
    Hl7,
}

/// A node's configuration before it is written.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    name: String,
    dir: PathBuf,
    sections: BTreeMap<String, String>,
    tables: Vec<(String, String)>,
    ports: [u16; 5],
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
}

impl Plan {
    pub(crate) const fn port(&self, port: Port) -> u16 {
        self.ports[port as usize]
    }

    /// Adds lines to `[section]`; a key that stands there already gets the new value.
    pub(crate) fn set(mut self, section: &str, lines: &str) -> Self {
        let body = self.sections.entry(section.into()).or_default();
        for line in lines.lines() {
            let key = line.split('=').next().expect("a key").trim();
            let same = |old: &&str| old.split('=').next().map(str::trim) != Some(key);
            *body = body.lines().filter(same).map(|l| format!("{l}\n")).collect();
            let _ = writeln!(body, "{line}");
        }
        self
    }

    /// Adds one entry to `[[name]]`, with sub-tables written by hand.
    pub(crate) fn table(mut self, name: &str, body: &str) -> Self {
        self.tables.push((name.into(), body.into()));
        self
    }

    /// Takes away a whole section.
    pub(crate) fn unset(mut self, section: &str) -> Self {
        self.sections.remove(section);
        self
    }

    /// Takes away the entries of `[[name]]` that contain `text`.
    pub(crate) fn without(mut self, name: &str, text: &str) -> Self {
        self.tables.retain(|(table, body)| table != name || !body.contains(text));
        self
    }

    /// Listens for DICOM from this machine.
    pub(crate) fn dicom(self) -> Self {
        let listen = format!(
            "listen = \"127.0.0.1:{}\"\nae_titles = [\"HIKYAKU\", \"TELE_STAT\"]\n\
             allow = [{{ address = \"127.0.0.1\" }}]",
            self.port(Port::Dicom)
        );
        self.set("dicom", &listen)
    }

    /// Keeps orders, and takes them by HL7 from this machine.
    pub(crate) fn orders(self) -> Self {
        let listen = format!(
            "listen = \"127.0.0.1:{}\"\nallow = [\"127.0.0.1\"]\nprocessing_ids = [\"P\", \"T\"]",
            self.port(Port::Hl7)
        );
        self.set("orders", "patient_issuer = \"SITE\"\ntime_zone = \"Asia/Tokyo\"")
            .set("orders.hl7", &listen)
    }

    fn keys(self) -> Self {
        let name = self.name.clone();
        let lines = format!(
            "certificate = \"pki/{name}.crt\"\nkey = \"pki/{name}.key\"\ntrust = \"pki/ca.crt\""
        );
        self.set("tunnel", &lines)
    }

    /// Has `peer` as a destination and dials it.
    pub(crate) fn dials(self, peer: &str, port: u16) -> Self {
        let body = format!("name = {peer:?}\nkind = \"node\"\naddress = \"127.0.0.1:{port}\"");
        self.keys().table("destination", &body)
    }

    /// Lets `peer` dial us.
    pub(crate) fn awaits(self, peer: &str) -> Self {
        let listen = format!("listen = \"127.0.0.1:{}\"", self.port(Port::Tunnel));
        let body = format!("name = {peer:?}");
        self.keys().set("tunnel", &listen).table("tunnel.peers", &body)
    }

    /// Delivers to a receiver on this machine, with short pauses after failures.
    pub(crate) fn dicom_destination(self, name: &str, port: u16) -> Self {
        self.dicom_destination_with(name, port, "")
    }

    /// The same with further lines, sub-tables last.
    pub(crate) fn dicom_destination_with(self, name: &str, port: u16, more: &str) -> Self {
        let body = format!(
            "name = {name:?}\nkind = \"dicom\"\naddress = \"127.0.0.1:{port}\"\n\
             ae_title = \"FOREIGN\"\nbackoff = \"1s\"\nbackoff_max = \"2s\"\n{more}"
        );
        self.table("destination", &body)
    }

    /// Delivers files to a folder of this name below the site.
    pub(crate) fn folder_destination(self, name: &str) -> Self {
        let body = format!("name = {name:?}\nkind = \"folder\"\npath = {name:?}");
        self.table("destination", &body)
    }

    /// Sends everything to one destination.
    pub(crate) fn route_all(self, to: &str) -> Self {
        let body = format!("name = \"everything-to-{to}\"\nto = [{to:?}]");
        self.table("route", &body)
    }

    /// A variable of the node's environment.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs the node below another program, such as strace or faketime.
    pub(crate) fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    fn toml(&self) -> String {
        let mut toml = String::new();
        let ops = format!("listen = \"127.0.0.1:{}\"", self.port(Port::Ops));
        let plan = self.clone().set("ops", &ops);
        for (section, body) in &plan.sections {
            let _ = writeln!(toml, "[{section}]\n{body}");
        }
        for (table, body) in &plan.tables {
            let _ = writeln!(toml, "[[{table}]]\n{body}\n");
        }
        toml
    }

    /// Writes the configuration; nothing runs yet.
    pub(crate) fn write(self) -> Node {
        let node = Node { plan: Mutex::new(self), life: Mutex::default() };
        node.write_plan();
        node
    }

    /// Writes the configuration and starts the node.
    pub(crate) fn start(self) -> Node {
        let node = self.write();
        node.start();
        node
    }
}

/// A node, running or not. It ends with its test, and shows its log when the test fails.
pub(crate) struct Node {
    plan: Mutex<Plan>,
    life: Mutex<Life>,
}

/// From one start to the end that follows.
#[derive(Default)]
struct Life {
    child: Option<Child>,
    /// Bytes of the log that are older.
    log_from: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A failed test must still be able to end its nodes.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Node {
    fn plan(&self) -> Plan {
        lock(&self.plan).clone()
    }

    fn write_plan(&self) {
        fs::write(self.config(), self.plan().toml()).expect("a configuration that can be written");
    }

    pub(crate) fn name(&self) -> String {
        self.plan().name
    }

    pub(crate) fn port(&self, port: Port) -> u16 {
        self.plan().port(port)
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        let plan = self.plan();
        plan.dir.join(format!("{}.toml", plan.name))
    }

    /// The folder of spool, ledger and socket.
    pub(crate) fn data(&self) -> PathBuf {
        let plan = self.plan();
        plan.dir.join(plan.name)
    }

    fn log_path(&self) -> PathBuf {
        let plan = self.plan();
        plan.dir.join(format!("{}.log", plan.name))
    }

    /// Everything that the node has written, all its lives together.
    pub(crate) fn log(&self) -> String {
        text(&fs::read(self.log_path()).unwrap_or_default())
    }

    /// Changes the configuration file, which the node reads at its next start or reload.
    pub(crate) fn edit(&self, change: impl FnOnce(Plan) -> Plan) {
        let changed = change(self.plan());
        *lock(&self.plan) = changed;
        self.write_plan();
    }

    /// Starts it and waits until everything stands.
    pub(crate) fn start(&self) {
        self.spawn();
        if let Err(status) = self.wait_running() {
            panic!("{} does not start: {status}", self.name());
        }
    }

    /// Starts it; the status with which it ended if it does not come up.
    pub(crate) fn try_start(&self) -> Result<(), ExitStatus> {
        self.spawn();
        self.wait_running()
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn(&self) {
        let mut life = lock(&self.life);
        assert!(life.child.is_none(), "{} runs already", self.name());
        let plan = self.plan();
        life.log_from = fs::metadata(self.log_path()).map_or(0, |m| m.len());
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.expect("a log that can be written");
        let err = log.try_clone().expect("a second handle");
        let mut command = match plan.wrapper.split_first() {
            None => hikyaku(),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(env!("CARGO_BIN_EXE_hikyaku"));
                command
            }
        };
        command.arg("run").arg("--config").arg(self.config()).current_dir(&plan.dir);
        command.envs(plan.environment).stdin(Stdio::null()).stdout(log).stderr(err);
        life.child = Some(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
    }

    /// What the node has written since it was started last.
    pub(crate) fn log_of_this_life(&self) -> String {
        let from = lock(&self.life).log_from;
        let mut log = Vec::new();
        if let Ok(mut file) = File::open(self.log_path()) {
            let _ = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut log));
        }
        text(&log)
    }

    /// Waits until it runs; the status with which it ended if it does not.
    pub(crate) fn wait_running(&self) -> Result<(), ExitStatus> {
        let mut ended = None;
        until("the node runs", || {
            ended = self.ended();
            ended.is_some() || self.log_of_this_life().contains(RUNNING)
        });
        match ended {
            Some(status) => {
                lock(&self.life).child = None;
                Err(status)
            }
            None => Ok(()),
        }
    }

    /// The status with which it ended, if it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        let mut life = lock(&self.life);
        life.child.as_mut().and_then(|c| c.try_wait().expect("a child that can be waited for"))
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait_ended(&self) -> ExitStatus {
        until("the node ends", || self.ended().is_some());
        lock(&self.life).child.take().expect("a child").wait().expect("an ended child")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        lock(&self.life).child.as_ref().expect("a running node").id()
    }

    pub(crate) fn signal(&self, what: Signal) {
        signal(lock(&self.life).child.as_ref().expect("a running node"), what);
    }

    /// SIGTERM; the status with which it ends. Panics when it does not end.
    pub(crate) fn stop(&self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_ended()
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.wait_ended();
    }

    /// Stops it cleanly and starts it again.
    pub(crate) fn restart(&self) {
        let status = self.stop();
        assert!(status.success(), "{} stops with {status}", self.name());
        self.start();
    }

    /// `hikyaku WORDS --config FILE`.
    pub(crate) fn cli(&self, words: &[&str]) -> Output {
        run(hikyaku().args(words).arg("--config").arg(self.config()))
    }

    /// `hikyaku WORDS --config FILE --json`, which must succeed.
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        let output = self.cli(&[words, &["--json"]].concat());
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words:?}: {}\n{out}{err}", output.status);
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{words:?}: {e}\n{out}"))
    }

    /// Status and text of a page of the ops listener; 0 when nobody listens.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        match http::get(self.port(Port::Ops), path) {
            Ok((code, body)) => (code, text(&body)),
            Err(e) => (0, e.to_string()),
        }
    }

    /// How it says that a study stands; null when it knows nothing of it.
    pub(crate) fn standing(&self, study: &str) -> Value {
        let output = self.cli(&["study", study, "--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        found["cases"][0]["standing"].clone()
    }

    /// `/status`.
    pub(crate) fn status(&self) -> Value {
        let (code, page) = self.page("/status");
        assert_eq!(code, 200, "{page}");
        serde_json::from_str(&page).expect("/status is JSON")
    }

    /// One destination of `/status`; null when it does not stand there.
    pub(crate) fn destination(&self, name: &str) -> Value {
        let status = self.status();
        let all = status["destinations"].as_array().expect("destinations");
        all.iter().find(|d| d["destination"] == name).cloned().unwrap_or_default()
    }

    /// A count of a destination in `/status`, such as `receipted`.
    pub(crate) fn count(&self, destination: &str, field: &str) -> u64 {
        self.destination(destination)[field].as_u64().unwrap_or(0)
    }

    /// Waits until so many duties of a destination are in a state, such as `receipted`.
    pub(crate) fn wait_count(&self, destination: &str, field: &str, n: u64) {
        let what = || format!("{}: {n} {field} at {destination}", self.name());
        until(&what(), || self.count(destination, field) == n);
    }

    /// The sum of all samples of a metric that carry these labels (`destination="pacs"`).
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (code, page) = self.page("/metrics");
        assert_eq!(code, 200, "{page}");
        let of_name = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok());
        page.lines().filter(of_name).filter_map(value).sum()
    }

    /// Waits until a metric is at least so high: some count a moment after what they count is seen.
    pub(crate) fn reaches(&self, name: &str, labels: &[&str], least: f64) {
        let what = format!("{name} of {labels:?} is at least {least}");
        until(&what, || self.metric(name, labels) >= least);
    }

    /// The end of its log and its configuration, for people.
    pub(crate) fn tail(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(TAIL);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        let toml = fs::read_to_string(self.config()).unwrap_or_default();
        format!("--- {} ---\n{toml}--- its log ---\n{}", self.name(), &log[from..])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = lock(&self.life).child.take() {
            ending::kill(&mut child);
        }
        if thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// What `/status` says of the tunnel to a node's only peer.
pub(crate) fn tunnel(node: &Node, field: &str) -> String {
    let status = node.status();
    let peer = &status["peers"][0][field];
    peer.as_str().map_or_else(|| peer.to_string(), str::to_owned)
}

/// Whether that tunnel stands.
pub(crate) fn is_up(node: &Node) -> bool {
    tunnel(node, "up") == "true"
}
