//! Programs that are not ours, started and ended.

use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ending::{self, Program, run_with};
use crate::python::python;
use crate::site::PATIENCE;

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

/// What a modality does on one association, and the lines that it prints.
pub(crate) async fn modality(port: u16, options: &[&str], steps: Value) -> Vec<Value> {
    let mut command = python("modality.py");
    command.arg(port.to_string()).args(options);
    tokio::task::spawn_blocking(move || {
        let output = run_with(&mut command, steps.to_string());
        let said = String::from_utf8(output.stdout).unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the modality fails after {said}: {why}");
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
    _program: Program,
    pub(crate) port: u16,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Foreign {
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut command = python("services.py");
        let (mut program, port) = Program::listening(command.args(options).stdin(Stdio::piped()));
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let gathered = lines.clone();
        program.each(move |line| gathered.lock().unwrap().push(parse(&line)));
        Self { _program: program, port, lines }
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

/// A server of dcmtk, or Orthanc, ended when dropped.
pub(crate) struct Server {
    _program: Program,
}

impl Server {
    /// Starts it and waits until it listens at `port`.
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        let server = Self { _program: Program::start(command.stdout(Stdio::null())) };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

/// Runs a program of dcmtk to its end without stopping this runtime.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command).await
}

/// The same of a command that is more than its arguments.
pub(crate) async fn run_command(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || ending::run(&mut command)).await.unwrap()
}
