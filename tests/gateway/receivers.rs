//! Receivers of notices that are not ours: `tests/foreign/receivers.py`, by Python's http.server and
//! aiosmtpd. And foreign images: `tests/foreign/make_images.py`, by pydicom.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::ending::Program;
use crate::foreign::{python, scu_ok};
use crate::site::{Node, Port, Site, run_ok, until};
use crate::{ports, site};

/// A web or mail server.
pub(crate) struct Receiver {
    kind: &'static str,
    pub(crate) port: u16,
    options: Vec<String>,
    answers: PathBuf,
    got: Arc<Mutex<Vec<Value>>>,
    program: Mutex<Option<Program>>,
}

impl Receiver {
    pub(crate) fn start(site: &Site, kind: &'static str, options: &[&str]) -> Self {
        let receiver = Self::down(site, kind, options);
        receiver.up();
        receiver
    }

    /// One that has its port but does not listen yet.
    pub(crate) fn down(site: &Site, kind: &'static str, options: &[&str]) -> Self {
        let port = ports::free();
        Self {
            kind,
            port,
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            answers: site.path().join(format!("answers-{port}")),
            got: Arc::default(),
            program: Mutex::new(None),
        }
    }

    pub(crate) fn up(&self) {
        let mut command = python("receivers.py");
        command.args([self.kind, &self.port.to_string(), "--answers"]).arg(&self.answers);
        let (mut program, _) = Program::listening(command.args(&self.options).stdin(Stdio::null()));
        let got = self.got.clone();
        program.each(move |line| {
            let one = serde_json::from_str(&line).expect("JSON");
            got.lock().expect("no panic").push(one);
        });
        *self.program.lock().expect("no panic") = Some(program);
    }

    /// What it answers from now on.
    pub(crate) fn answer(&self, with: &str) {
        std::fs::write(&self.answers, with).expect("a file");
    }

    /// All that it was sent, in order, refused ones too.
    pub(crate) fn got(&self) -> Vec<Value> {
        self.got.lock().expect("no panic").clone()
    }

    /// The documents that a web server has accepted.
    pub(crate) fn documents(&self) -> Vec<Value> {
        let got = self.got();
        let taken = got.iter().filter(|g| g["status"].as_u64().is_some_and(|s| s < 300));
        let body = |g: &Value| g["body"].as_str().map(serde_json::from_str::<Value>);
        taken.map(|g| body(g).expect("a body").expect("JSON")).collect()
    }

    /// Waits until a web server has accepted `n` documents.
    pub(crate) fn wait(&self, n: usize) -> Vec<Value> {
        until(&format!("{n} notices arrive"), || self.documents().len() >= n);
        self.documents()
    }

    /// Waits until a mail server was sent `n` mails.
    pub(crate) fn wait_mails(&self, n: usize) -> Vec<Value> {
        until(&format!("{n} mails arrive"), || self.got().len() >= n);
        self.got()
    }
}

/// Certificate and key of `localhost`, signed by the site's authority.
pub(crate) fn identity(site: &Site) -> (String, String) {
    let path = |end: &str| site.pki().join(format!("localhost.{end}")).display().to_string();
    let (certificate, key) = (path("crt"), path("key"));
    if !PathBuf::from(&key).exists() {
        let issue = ["pki", "issue", "--name", "localhost", "--dir"];
        run_ok(site::hikyaku().args(issue).arg(site.pki()));
    }
    (certificate, key)
}

/// Makes files with these options and sends them under an AE title.
pub(crate) fn send_foreign(site: &Site, node: &Node, aet: &str, options: &[&str]) {
    let out = site.path().join(format!("made-{}", ports::free()));
    run_ok(python("make_images.py").arg(&out).args(options));
    scu_ok(node.port(Port::Dicom), &["--aet", aet], &[&out]);
}
