//! DICOM programs that are not ours: pynetdicom by `tests/foreign/*.py`, and dcmtk.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use crate::ending::{Program, run_with};
use crate::python::interpreter;
pub(crate) use crate::python::python;
use crate::site::{Site, run, terminate, text, until};
use crate::{part10, ports};

/// The AE title of every foreign receiver.
pub(crate) const AE_TITLE: &str = "FOREIGN";

/// The same Python with a module of its own.
pub(crate) fn python_module(module: &str) -> Command {
    let mut command = interpreter();
    command.args(["-m", module]);
    command
}

/// What the receiver says of one object. The digest is of the data set's bytes as received.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Arrived {
    pub(crate) sop: String,
    pub(crate) class: String,
    pub(crate) ts: String,
    pub(crate) sha256: String,
    pub(crate) length: u64,
    pub(crate) status: String,
    pub(crate) calling: String,
    /// Name of the file with the data set, in [`Scp::folder`].
    pub(crate) file: String,
}

/// A storage SCP by pynetdicom.
pub(crate) struct Scp {
    port: u16,
    folder: PathBuf,
    options: Vec<String>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    program: Mutex<Option<Program>>,
}

impl Scp {
    /// One that runs, with options of `tests/foreign/scp.py`.
    pub(crate) fn start(site: &Site, options: &[&str]) -> Self {
        let scp = Self::down(site, options);
        scp.up();
        scp
    }

    /// One that has its port but does not listen yet.
    pub(crate) fn down(site: &Site, options: &[&str]) -> Self {
        let port = ports::free();
        Self {
            port,
            folder: site.path().join(format!("received-{port}")),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            arrived: Arc::default(),
            program: Mutex::new(None),
        }
    }

    /// Makes it listen.
    pub(crate) fn up(&self) {
        let mut command = python("scp.py");
        command.args(["--port", &self.port.to_string(), "--ae", AE_TITLE, "--out"]);
        command.arg(&self.folder).args(&self.options);
        let (mut program, _) = Program::listening(command.stdin(Stdio::null()));
        let arrived = self.arrived.clone();
        program.each(move |line| match serde_json::from_str(&line) {
            Ok(one) => arrived.lock().expect("no panic").push(one),
            Err(e) => eprintln!("the receiver says {line:?}: {e}"),
        });
        *self.program.lock().expect("no panic") = Some(program);
    }

    /// Ends it; what has arrived is still known.
    pub(crate) fn kill(&self) {
        drop(self.program.lock().expect("no panic").take());
    }

    /// Ends it and starts it with other options.
    pub(crate) fn change(&mut self, options: &[&str]) {
        self.kill();
        self.options = options.iter().map(|o| (*o).to_owned()).collect();
        self.up();
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every object that it was sent, in order, refused ones too.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().expect("no panic").clone()
    }

    /// Waits until it was sent at least `n` objects.
    pub(crate) fn wait(&self, n: usize) -> Vec<Arrived> {
        until(&format!("{n} objects arrive at {}", self.port), || self.arrived().len() >= n);
        self.arrived()
    }
}

/// What the sender says of one object. The digest is of the data set's bytes as sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Sent {
    pub(crate) sop: String,
    pub(crate) class: String,
    pub(crate) ts: String,
    pub(crate) sha256: Option<String>,
    pub(crate) length: Option<u64>,
    /// Four hexadecimal digits, or a word; see `tests/foreign/scu.py`.
    pub(crate) status: String,
}

/// Sends files and folders by pynetdicom, each in its own transfer syntax, byte for byte.
pub(crate) fn scu(port: u16, options: &[&str], paths: &[&Path]) -> Vec<Sent> {
    let mut command = python("scu.py");
    command.args(["127.0.0.1", &port.to_string()]).args(paths).args(options);
    let output = run(&mut command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    let sent: Vec<Sent> = out.lines().map(parse).collect();
    assert!(!sent.is_empty(), "the sender sends nothing: {err}");
    sent
}

/// The same, where every object must be answered with success.
pub(crate) fn scu_ok(port: u16, options: &[&str], paths: &[&Path]) -> Vec<Sent> {
    let sent = scu(port, options, paths);
    let refused: Vec<&Sent> = sent.iter().filter(|s| s.status != "0000").collect();
    assert!(refused.is_empty(), "not answered with success: {refused:?}");
    sent
}

/// dcmtk's `storescu -d`: the statuses that it was given, in order, and everything it said. Its exit
/// code says little (it is 0 with `--no-halt` whatever happens).
pub(crate) fn storescu(port: u16, options: &[&str], paths: &[&Path]) -> (Vec<u16>, String) {
    let mut command = Command::new("storescu");
    command.args(["-d", "-nh", "-aet", "DCMTK", "-aec", "HIKYAKU"]).args(options);
    command.args(["127.0.0.1", &port.to_string()]).args(paths);
    let output = run(&mut command);
    let said = text(&output.stdout) + &text(&output.stderr);
    // "D: DIMSE Status                  : 0x0000: Success"
    let status = |line: &str| {
        let (_, rest) = line.split_once("DIMSE Status")?;
        let (_, hex) = rest.split_once("0x")?;
        u16::from_str_radix(hex.get(..4)?, 16).ok()
    };
    (said.lines().filter_map(status).collect(), said)
}

/// dcmtk's `dcmsend` with a report file: how many objects were sent with success, and the report.
pub(crate) fn dcmsend(site: &Site, port: u16, options: &[&str], paths: &[&Path]) -> (u64, String) {
    let report = site.path().join(format!("dcmsend-{port}-{}.txt", ports::free()));
    let mut command = Command::new("dcmsend");
    command.args(["-aet", "DCMTK", "-aec", "HIKYAKU", "+crf"]).arg(&report).args(options);
    command.args(["127.0.0.1", &port.to_string()]).args(paths);
    run(&mut command);
    let said = std::fs::read_to_string(&report).unwrap_or_default();
    // "  * with status SUCCESS    : 10"
    let count = said.lines().find(|line| line.contains("with status SUCCESS"));
    let count = count.and_then(|line| line.rsplit(':').next()?.trim().parse().ok());
    (count.unwrap_or(0), said)
}

/// dcmtk's `echoscu -v`.
pub(crate) fn echoscu(port: u16, options: &[&str]) -> Output {
    let mut command = Command::new("echoscu");
    command.arg("-v").args(options).args(["127.0.0.1", &port.to_string()]);
    run(&mut command)
}

/// dcmtk's `storescp`, which writes what it gets to a folder bit by bit.
pub(crate) struct Storescp {
    port: u16,
    folder: PathBuf,
    child: Child,
}

impl Storescp {
    pub(crate) fn start(site: &Site, options: &[&str]) -> Self {
        let port = ports::free();
        let folder = site.path().join(format!("storescp-{port}"));
        std::fs::create_dir(&folder).expect("a folder");
        let mut command = Command::new("storescp");
        command.args(["-aet", AE_TITLE, "+B", "-od"]).arg(&folder).args(options);
        command.arg(port.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().expect("storescp starts");
        let scp = Self { port, folder, child };
        until("storescp answers", || echoscu(port, &["-aec", AE_TITLE]).status.success());
        scp
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The files that it has written.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        part10::files(&self.folder)
    }
}

impl Drop for Storescp {
    fn drop(&mut self) {
        terminate(&mut self.child);
    }
}

/// A modality does these steps on one association (see `tests/foreign/modality.py`); its answers.
pub(crate) fn modality(port: u16, steps: &serde_json::Value) -> Vec<serde_json::Value> {
    modality_with(port, &[], steps)
}

/// The same with options.
pub(crate) fn modality_with(
    port: u16,
    options: &[&str],
    steps: &serde_json::Value,
) -> Vec<serde_json::Value> {
    let mut command = python("modality.py");
    command.arg(port.to_string()).args(options);
    let output = run_with(&mut command, steps.to_string());
    let (lines, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {lines}{said}", output.status);
    let line = |l: &str| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"));
    lines.lines().map(line).collect()
}
