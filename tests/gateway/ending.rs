//! Other programs: their words and their end. No test waits for either without end: a program that
//! takes too long is killed, and the test fails with which it is and what it has said.
//!
//! A program that a killed one has started itself is left alone; nobody waits for it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longest that any program may run to whose end a test waits.
const PROGRAM_TIME: Duration = Duration::from_secs(300);
/// Longest that a program may take to say where it listens.
const LISTENING_TIME: Duration = Duration::from_secs(120);
/// Longest that a killed program may take to be gone.
const KILL_TIME: Duration = Duration::from_secs(60);
/// Longest pause between two looks at a child.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    let child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    output(&format!("{command:?}"), child, PROGRAM_TIME)
}

/// The same with this on its standard input, all of which it must read.
pub(crate) fn run_with(command: &mut Command, input: impl Into<Vec<u8>>) -> Output {
    let (what, input) = (format!("{command:?}"), input.into());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(command);
    let mut pipe = child.stdin.take().expect("its input");
    // It may say something before it has read everything.
    let writer = thread::spawn(move || pipe.write_all(&input));
    let output = output(&what, child, PROGRAM_TIME);
    if let Err(e) = writer.join().expect("no panic") {
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        panic!("{what} does not read its input: {e}; it says:\n{out}{err}");
    }
    output
}

fn start(command: &mut Command) -> Child {
    let install = "tests/run --prepare installs what the tests need";
    command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}; {install}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

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

/// Ends it by force. One that hangs in the kernel even then is left, which is said.
pub(crate) fn kill(child: &mut Child) {
    let _ = child.kill();
    if within(child, KILL_TIME).is_none() {
        eprintln!("process {} was killed and is not gone within {KILL_TIME:?}", child.id());
    }
}

/// How it ends; a test whose child does not end within this time kills it and fails with `what`.
pub(crate) fn status(what: &str, child: &mut Child, time: Duration) -> ExitStatus {
    within(child, time).unwrap_or_else(|| {
        kill(child);
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
        kill(&mut child);
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
        self.open.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }

    fn said(&self) -> Vec<u8> {
        self.said.lock().expect("no panic").clone()
    }
}

/// A program that runs beside a test, and is killed when dropped.
pub(crate) struct Program {
    what: String,
    pub(crate) child: Child,
    /// What it says on its standard output, where that is a pipe. It is read in any case, so that
    /// the program never waits for a reader.
    lines: Option<Receiver<String>>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = start(command);
        let lines = child.stdout.take().map(|out| {
            let (sender, lines) = channel();
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
            lines
        });
        Self { what: format!("{command:?}"), child, lines }
    }

    /// One of `tests/foreign` that says first where it listens: it and its port.
    pub(crate) fn listening(command: &mut Command) -> (Self, u16) {
        let program = Self::start(command.stdout(Stdio::piped()));
        let first = program.line(LISTENING_TIME);
        let port = first.strip_prefix("listening ").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{} says first {first:?}", program.what));
        (program, port)
    }

    /// Its next line. A test whose program says none within this time fails with which it is.
    pub(crate) fn line(&self, time: Duration) -> String {
        let lines = self.lines.as_ref().expect("an output that is a pipe and not gathered");
        lines.recv_timeout(time).unwrap_or_else(|e| match e {
            RecvTimeoutError::Timeout => panic!("{} says nothing within {time:?}", self.what),
            RecvTimeoutError::Disconnected => panic!("{} says nothing more", self.what),
        })
    }

    /// Gives each further line to `gather`, in a thread that ends with the program's output.
    pub(crate) fn each(&mut self, gather: impl FnMut(String) + Send + 'static) -> JoinHandle<()> {
        let lines = self.lines.take().expect("an output that is a pipe and not gathered");
        thread::spawn(move || lines.into_iter().for_each(gather))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

/// What a failing test says.
#[cfg(test)]
fn failure(test: impl FnOnce()) -> String {
    let test = std::panic::AssertUnwindSafe(test);
    let said = std::panic::catch_unwind(test).expect_err("it fails");
    said.downcast_ref::<String>().expect("words").clone()
}

#[cfg(test)]
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

#[test]
fn a_program_that_does_not_end_is_killed_and_the_test_says_what_it_said() {
    let sleeper = start(&mut shell("echo one; echo two >&2; exec sleep 600"));
    let said = failure(|| drop(output("a sleeper", sleeper, Duration::from_secs(3))));
    assert_eq!(said, "a sleeper does not end within 3s; it says:\none\ntwo\n");
    let mut sleeper = start(&mut shell("exec sleep 600"));
    let time = Duration::from_millis(100);
    let told = failure(|| assert!(status("a sleeper", &mut sleeper, time).success()));
    assert_eq!(told, "a sleeper does not end within 100ms");
    let ended = sleeper.try_wait().expect("a child").expect("it has ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9), "{ended}");
}

#[test]
fn a_program_that_says_nothing_is_killed_and_the_test_says_so() {
    let silent = Program::start(&mut shell("exec sleep 600"));
    let id = silent.child.id();
    let said = failure(move || drop(silent.line(Duration::from_millis(100))));
    let what = r#""sh" "-c" "exec sleep 600""#;
    assert_eq!(said, format!("{what} says nothing within 100ms"));
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists(), "it is gone");
    // One that ends without a word is not waited for until the limit.
    let said = failure(|| drop(Program::listening(&mut shell("exec true"))));
    assert_eq!(said, r#""sh" "-c" "exec true" says nothing more"#);
    let said = failure(|| drop(Program::listening(&mut shell("echo hello; exec sleep 600"))));
    assert!(said.ends_with(r#"says first "hello""#), "{said}");
}

#[test]
fn a_program_is_heard_line_by_line_and_may_speak_before_it_has_read_everything() {
    let (mut program, port) = Program::listening(&mut shell("echo listening 104; seq 3"));
    assert_eq!((port, program.line(LISTENING_TIME)), (104, "1".into()));
    let gathered: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = gathered.clone();
    let thread = program.each(move |line| into.lock().expect("no panic").push(line));
    thread.join().expect("no panic");
    assert_eq!(*gathered.lock().expect("no panic"), ["2", "3"]);
    // More than the pipes in either direction hold.
    let input = "line\n".repeat(100_000);
    let output = run_with(&mut Command::new("cat"), input.as_bytes());
    assert_eq!(output.stdout.len(), input.len());
    let said = failure(move || drop(run_with(&mut shell("echo no"), input)));
    assert!(said.contains("does not read its input") && said.ends_with("says:\nno\n"), "{said}");
    assert!(run(&mut shell("cat")).stdout.is_empty(), "there is no input");
}
