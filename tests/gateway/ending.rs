//! The end of other programs. No test waits for one without end: a program that takes too long is
//! killed, and the test fails with what it has said.

use std::io::{self, Read};
use std::process::{Child, ExitStatus, Output};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::site::text;

/// Longest pause between two looks at a child.
const LOOK: Duration = Duration::from_millis(50);

/// How it ended within this time; nothing when it did not, and it runs on.
pub(crate) fn within(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let give_up = Instant::now() + time;
    let mut pause = Duration::from_millis(1);
    loop {
        let ended = child.try_wait().expect("a child that can be waited for");
        if ended.is_some() || Instant::now() > give_up {
            return ended;
        }
        thread::sleep(pause);
        pause = LOOK.min(pause * 2);
    }
}

/// How it ends; a test whose child does not end within this time kills it and fails with `what`.
pub(crate) fn status(what: &str, child: &mut Child, time: Duration) -> ExitStatus {
    within(child, time).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{what} does not end within {time:?}");
    })
}

/// The same with what it writes to those of its outputs that are pipes.
pub(crate) fn output(what: &str, mut child: Child, time: Duration) -> Output {
    let give_up = Instant::now() + time;
    drop(child.stdin.take());
    let (out, err) = (Heard::hear(child.stdout.take()), Heard::hear(child.stderr.take()));
    let closed = out.is_whole(give_up) && err.is_whole(give_up);
    let left = give_up.saturating_duration_since(Instant::now());
    let status = if closed { within(&mut child, left) } else { None };
    let (stdout, stderr) = (out.said(), err.said());
    let status = status.unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{what} does not end within {time:?}; it says:\n{}{}", text(&stdout), text(&stderr));
    });
    Output { status, stdout, stderr }
}

/// What comes out of a pipe, from a thread of its own.
struct Heard {
    said: Arc<Mutex<Vec<u8>>>,
    /// Disconnected at the end of the pipe.
    open: Receiver<()>,
}

impl Heard {
    fn hear(pipe: Option<impl Read + Send + 'static>) -> Self {
        let said: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (sender, open) = channel();
        if let Some(mut pipe) = pipe {
            let said = said.clone();
            thread::spawn(move || {
                let _open: std::sync::mpsc::Sender<()> = sender;
                let mut bytes = [0; 8192];
                loop {
                    match pipe.read(&mut bytes) {
                        Ok(n) if n > 0 => said.lock().expect("no panic").extend(&bytes[..n]),
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        _ => return,
                    }
                }
            });
        }
        Self { said, open }
    }

    /// Whether the pipe ends before this moment.
    fn is_whole(&self, give_up: Instant) -> bool {
        let left = give_up.saturating_duration_since(Instant::now());
        self.open.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }

    fn said(&self) -> Vec<u8> {
        self.said.lock().expect("no panic").clone()
    }
}

#[test]
#[should_panic(expected = "a sleeper does not end within 1s; it says:\none\ntwo\n")]
fn a_program_that_does_not_end_is_killed_and_the_test_says_what_it_said() {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "echo one; echo two >&2; exec sleep 600"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    output("a sleeper", command.spawn().expect("a shell"), Duration::from_secs(1));
}
