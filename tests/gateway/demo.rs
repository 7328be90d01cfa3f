//! What a new user sees first: `hikyaku demo`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ending;
use crate::foreign::storescu;
use crate::part10::{data, digest, files};
use crate::site::{PATIENCE, hikyaku, run, signal, text, until};

/// Digests of the data sets of a folder's files, in no order.
fn digests(files: &[PathBuf]) -> Vec<String> {
    let mut digests: Vec<String> = files.iter().map(|f| digest(f)).collect();
    digests.sort();
    digests
}

fn delivered(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![dir.join("delivered")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { all.push(path) }
        }
    }
    all
}

#[test]
fn the_demo_carries_real_images_from_a_scanner_to_a_folder_and_shows_each_receipt() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = run(hikyaku().args(["demo", "--dir"]).arg(dir.path()));
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert_eq!(digests(&delivered(dir.path())), digests(&files(&data("study"))));
    for (what, times) in [("answer 0000H", 10), ("SHA-256", 10), (", identical", 10)] {
        assert_eq!(said.matches(what).count(), times, "{what}: {said}");
    }
    // dcmtk reads what it has written.
    for file in delivered(dir.path()) {
        assert!(run(Command::new("dcmftest").arg(&file)).status.success(), "{}", file.display());
    }
}

/// A demo that stays, and the lines that it says.
struct Staying {
    child: Child,
    lines: Receiver<String>,
}

impl Staying {
    fn start(dir: &Path) -> Self {
        let mut command = hikyaku();
        command.args(["demo", "--stay", "--dir"]).arg(dir).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the demo starts");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        Self { child, lines }
    }

    /// The next line with this text in it.
    fn line(&self, text: &str) -> String {
        let next = || self.lines.recv_timeout(Duration::from_secs(60)).expect("it says more");
        std::iter::repeat_with(next).find(|line| line.contains(text)).expect("endless")
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_demo_that_stays_takes_images_from_the_users_own_storescu_and_ends_when_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut demo = Staying::start(dir.path());
    // "    storescu -aec HIKYAKU 127.0.0.1 PORT FILE.dcm"
    let invitation = demo.line("storescu");
    let port = invitation.split_whitespace().nth(4).and_then(|p| p.parse().ok()).expect("a port");
    demo.line("Ctrl-C");
    let mine = data("samples").join("ct_image.dcm");
    let (statuses, said) = storescu(port, &[], &[&mine]);
    assert_eq!(statuses, [0], "{said}");
    // storescu encodes anew what it reads: the bytes are those of its own making.
    until("it is delivered", || delivered(dir.path()).len() == 11);
    let config = dir.path().join("hospital.toml");
    let mut counts = BTreeMap::new();
    until("its commands can be asked", || {
        let asked = run(hikyaku().args(["status", "--json", "--config"]).arg(&config));
        counts.insert("status", asked.status.code());
        asked.status.success()
    });
    signal(&demo.child, Signal::SIGTERM);
    let ended = ending::status("the demo", &mut demo.child, PATIENCE);
    assert!(ended.success(), "{ended}; {counts:?}");
}
