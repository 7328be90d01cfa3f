//! Programs that are not ours, started and ended.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::PATIENCE;

fn python(script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("HIKYAKU_TEST_PYTHON")
        .map_or_else(|| root.join("target/test-venv/bin/python"), PathBuf::from);
    let mut command = Command::new(python);
    command.arg(root.join("tests/foreign").join(script));
    command
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

/// What a modality does on one association, and the lines that it prints.
pub(crate) async fn modality(port: u16, options: &[&str], steps: Value) -> Vec<Value> {
    let mut command = python("modality.py");
    command.arg(port.to_string()).args(options);
    tokio::task::spawn_blocking(move || {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts; see tests/foreign/README.md");
        let steps = steps.to_string();
        child.stdin.take().unwrap().write_all(steps.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "the modality fails after {said}");
        said.lines().map(parse).collect()
    })
    .await
    .unwrap()
}

/// The statuses among the lines.
pub(crate) fn statuses(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|l| l["status"].as_str()).collect()
}

/// `tests/foreign/services.py`, ended when dropped.
pub(crate) struct Foreign {
    child: Child,
    pub(crate) port: u16,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Foreign {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut child = python("services.py")
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts; see tests/foreign/README.md");
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = out.next().expect("services.py needs pynetdicom").unwrap();
        let port = first.strip_prefix("listening ").unwrap().parse().unwrap();
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let gathered = lines.clone();
        std::thread::spawn(move || {
            for line in out.map_while(Result::ok) {
                gathered.lock().unwrap().push(parse(&line));
            }
        });
        Self { child, port, lines }
    }

    /// What it was asked, once `n` requests have come.
    pub(crate) fn heard(&self, n: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines.lock().unwrap().clone();
            if lines.len() >= n {
                return lines;
            }
            assert!(Instant::now() < deadline, "only {lines:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of dcmtk, or Orthanc, ended when dropped.
pub(crate) struct Server(Child);

impl Server {
    /// Starts it and waits until it listens at `port`.
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdout(Stdio::null()).spawn().expect("dcmtk and Orthanc are installed");
        let server = Self(child);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program of dcmtk to its end without stopping this runtime.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output().expect("dcmtk is installed"))
        .await
        .unwrap()
}
