//! System calls that fail or are slow: strace's fault injection on a running node.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ending;
use crate::site::{Node, PATIENCE, signal, text, until};

/// An strace that is attached to a node.
pub(crate) struct Strace {
    child: Child,
}

impl Strace {
    /// Attaches with `-e inject=EXPRESSION`; `None`, with a word why, where that is not allowed.
    pub(crate) fn attach(node: &Node, expression: &str) -> Option<Self> {
        Self::attach_with(node, expression, &[])
    }

    /// The same for calls on one file.
    pub(crate) fn attach_to_file(node: &Node, expression: &str, path: &Path) -> Option<Self> {
        Self::attach_with(node, expression, &["-P", path.to_str().expect("UTF-8")])
    }

    fn attach_with(node: &Node, expression: &str, options: &[&str]) -> Option<Self> {
        let (calls, _) = expression.split_once(':').expect("CALLS:FAULT");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        command.args(options);
        command.args(["-e", &format!("inject={expression}"), "-p", &node.pid().to_string()]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: needs strace");
            return None;
        };
        let status = format!("/proc/{}/status", node.pid());
        let attached = || {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            status.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"))
        };
        let mut ended = false;
        until("strace is attached", || {
            ended = matches!(child.try_wait(), Ok(Some(_)));
            ended || attached()
        });
        // It ends with the node, too, when the fault strikes at once.
        if ended && node.ended().is_none() {
            let said = text(&ending::output("strace", child, PATIENCE).stderr);
            eprintln!("skipped: needs ptrace: {said}");
            return None;
        }
        // It attaches to the other threads after the first.
        thread::sleep(Duration::from_millis(500));
        Some(Self { child })
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        signal(&self.child, Signal::SIGTERM);
        thread::sleep(Duration::from_millis(100));
        ending::kill(&mut self.child);
    }
}
