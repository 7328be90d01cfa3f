//! A RIS that takes orders and is not ours: `tests/foreign/ris.py`.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use crate::ending::Program;
use crate::foreign::python;
use crate::ports;
use crate::site::until;

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Told {
    /// MSH-10.
    pub(crate) id: String,
    /// By names such as `ORC-1`, as written, one for each segment.
    pub(crate) fields: BTreeMap<String, Vec<String>>,
    /// All bytes between the frame's.
    pub(crate) hex: String,
    /// How it was answered.
    pub(crate) answer: String,
    /// Which connection it came on, counted from one at each start.
    pub(crate) connection: u32,
}

impl Told {
    /// A field of the first segment that has it; empty when none has.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).and_then(|all| all.first()).map_or("", String::as_str)
    }
}

/// The RIS.
pub(crate) struct Receiver {
    port: u16,
    told: Arc<Mutex<Vec<Told>>>,
    program: Mutex<Option<Program>>,
}

impl Receiver {
    /// One that runs, with options of `tests/foreign/ris.py`.
    pub(crate) fn start(options: &[&str]) -> Self {
        let receiver = Self::down();
        receiver.up(options);
        receiver
    }

    /// One that has its port but does not listen yet.
    pub(crate) fn down() -> Self {
        Self { port: ports::free(), told: Arc::default(), program: Mutex::new(None) }
    }

    /// Makes it listen.
    pub(crate) fn up(&self, options: &[&str]) {
        let mut command = python("ris.py");
        command.args(["--port", &self.port.to_string()]).args(options);
        let (mut program, _) = Program::listening(command.stdin(Stdio::null()));
        let told = self.told.clone();
        program.each(move |line| match serde_json::from_str(&line) {
            Ok(one) => told.lock().expect("no panic").push(one),
            Err(e) => eprintln!("the receiver says {line:?}: {e}"),
        });
        *self.program.lock().expect("no panic") = Some(program);
    }

    /// Ends it; what it was told is still known.
    pub(crate) fn kill(&self) {
        drop(self.program.lock().expect("no panic").take());
    }

    /// Ends it and starts it with other options.
    pub(crate) fn change(&self, options: &[&str]) {
        self.kill();
        self.up(options);
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Every message that came, in order.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().expect("no panic").clone()
    }

    /// Waits until at least `n` messages have come.
    pub(crate) fn wait(&self, n: usize) -> Vec<Told> {
        until(&format!("{n} messages come to {}", self.port), || self.told().len() >= n);
        self.told()
    }

    /// ORC-1 of every message that came for an order, repeated ones once.
    pub(crate) fn controls(&self, number: &str) -> Vec<String> {
        let mut told = self.told();
        told.retain(|m| m.field("ORC-2").split('^').next() == Some(number));
        told.dedup_by(|a, b| a.id == b.id);
        told.iter().map(|m| m.field("ORC-1").to_owned()).collect()
    }
}
