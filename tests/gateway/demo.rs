//! What a new user sees first: `hikyaku demo`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::circle::Said;
use crate::ending::{self, Program};
use crate::foreign::python;
use crate::part10::{data, digest, files};
use crate::site::{PATIENCE, hikyaku, run, run_ok, signal, text, until};

/// What the demo's reader writes.
const TEXT: [&str; 2] = [
    "所見：断面10枚。種子は均等に分布し、果肉の中心に空洞を認める。",
    "診断：完熟。至急ご連絡を要する。",
];

/// Digests of the data sets of a folder's files, in no order.
fn digests(files: &[PathBuf]) -> Vec<String> {
    let mut digests: Vec<String> = files.iter().map(|f| digest(f)).collect();
    digests.sort();
    digests
}

fn delivered(dir: &Path) -> Vec<PathBuf> {
    below(&dir.join("delivered"))
}

/// All files in a folder and those below it.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { all.push(path) }
        }
    }
    all
}

/// Without white space: where a line ends on a page is the page's affair.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn the_demo_shows_an_order_its_images_and_a_report_that_comes_home_each_with_its_receipt() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = run(hikyaku().args(["demo", "--dir"]).arg(dir.path()));
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert_eq!(digests(&delivered(dir.path())), digests(&files(&data("study"))));
    let times = [
        ("answer 0000H", 11),
        ("SHA-256", 13),
        (", identical", 10),
        ("answer AA", 2),
        ("10 images of order P4711: complete", 1),
        ("(identical)", 2),
        ("his accepted, report-files accepted", 2),
        ("I know", 1),
        ("\n15. The circle is closed at both ends:", 1),
    ];
    for (what, times) in times {
        assert_eq!(said.matches(what).count(), times, "{what}: {said}");
    }
    for moment in ["sent", "received", "final", "delivered", "acknowledged"] {
        let of =
            |line: &&str| line.trim_start().strip_prefix(moment).is_some_and(|l| l.contains("Z"));
        assert_eq!(said.lines().filter(of).count(), 1, "{moment}: {said}");
    }
    // dcmtk reads what it has written, python-hl7 what the HIS got, poppler the pages.
    for file in delivered(dir.path()) {
        assert!(run(Command::new("dcmftest").arg(&file)).status.success(), "{}", file.display());
    }
    let read = run_ok(python("parse_hl7.py").arg(dir.path().join("his.hl7")));
    let read: Value = serde_json::from_str(&read).expect("JSON");
    assert_eq!((&read["kind"], &read["placer"]), (&"ORU^R01^ORU_R01".into(), &"P4711".into()));
    assert_eq!(
        (&read["status"], &read["text"]),
        (&"F".into(), &Value::from(TEXT.to_vec())),
        "{read}"
    );
    let home = below(&dir.path().join("home/reports"));
    let of = |ending: &str| -> &PathBuf {
        let named = |f: &&PathBuf| f.extension().is_some_and(|e| e == ending);
        home.iter().find(named).unwrap_or_else(|| panic!("no {ending} among {home:?}"))
    };
    assert_eq!(home.len(), 3, "{home:?}");
    let index = std::fs::read_to_string(of("jsonl")).expect("an index");
    assert_eq!(index.lines().count(), 2, "{index}");
    let pages = run_ok(Command::new("pdftotext").args(["-enc", "UTF-8"]).arg(of("pdf")).arg("-"));
    let file = std::fs::read_to_string(of("txt")).expect("text");
    for line in TEXT {
        assert!(plain(&pages).contains(line), "{line}: {pages}");
        assert!(file.lines().any(|l| l == line), "{line}: {file}");
    }
}

#[test]
fn a_demo_does_not_begin_in_a_folder_that_has_one_in_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("hospital.toml"), "").expect("a file");
    let output = run(hikyaku().args(["demo", "--dir"]).arg(dir.path()));
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.contains("another folder")), (Some(2), true), "{said}");
}

/// A demo that stays.
struct Staying(Program);

impl Staying {
    fn start(dir: &Path) -> Self {
        let mut command = hikyaku();
        command.args(["demo", "--stay", "--dir"]).arg(dir).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        Self(Program::start(&mut command))
    }

    /// The next line with this text in it.
    fn line(&self, text: &str) -> String {
        let next = || self.0.line(PATIENCE);
        std::iter::repeat_with(next).find(|line| line.contains(text)).expect("endless")
    }
}

#[test]
fn a_demo_that_stays_takes_an_order_images_and_reports_of_the_users_own_and_ends_when_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut demo = Staying::start(dir.path());
    // "or by HL7 over MLLP: orders to ADDRESS, reports to ADDRESS. Then …"
    demo.line("Both nodes keep running.");
    let mut invited = Vec::new();
    let mut reports = String::new();
    loop {
        let line = demo.line("");
        match line.strip_prefix("    ") {
            Some(command) => invited.push(command.to_owned()),
            None if line.contains("MLLP") => {
                let (_, port) = line.split_once("reports to 127.0.0.1:").expect("an address");
                reports = port.chars().take_while(char::is_ascii_digit).collect();
            }
            None if line.contains("Ctrl-C") => break,
            None => {}
        }
    }
    // What it invites to is done as it stands there.
    let study = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322";
    let mine = data("samples").join("ct_image.dcm").display().to_string();
    let program = Path::new(env!("CARGO_BIN_EXE_hikyaku")).parent().expect("a folder").display();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let follow = |with: &str| {
        let found = invited.iter().find(|c| c.starts_with(with)).expect(with);
        let words = [("STUDY", study), ("PATIENT", "1CT1"), ("FILE.dcm", &mine)];
        let line = words.iter().fold(found.clone(), |line, (from, to)| line.replace(from, to));
        run_ok(Command::new("sh").args(["-c", &line]).env("PATH", &path))
    };
    assert_eq!(invited.len(), 8, "{invited:?}");
    follow("hikyaku order add");
    follow("storescu");
    // storescu encodes anew what it reads: the bytes are those of its own making.
    until("it is delivered", || delivered(dir.path()).len() == 11);
    follow("echo");
    assert!(demo.line("The HIS has got a report").ends_with("order MINE."));
    let message = dir.path().join("another.hl7");
    let said =
        Said { order: "MINE", status: "C", text: "所見を訂正する", ..Said::of(study) };
    let said = text(&said.write()).replace("ORACLE^^^SITE", "1CT1^^^DEMO");
    std::fs::write(&message, said).expect("a file");
    let answer = run_ok(python("reporter.py").arg(reports).arg(&message));
    assert!(answer.contains("\"code\": \"AA\""), "{answer}");
    demo.line("The HIS has got a report");
    for (command, shows) in [
        ("hikyaku status", "his"),
        ("hikyaku studies", study),
        ("hikyaku order show", "MINE"),
        ("hikyaku reports", study),
        ("ls", ".txt"),
    ] {
        let shown = follow(command);
        assert!(shown.contains(shows), "{command}: {shown}");
    }
    signal(&demo.0.child, Signal::SIGTERM);
    let ended = ending::status("the demo", &mut demo.0.child, PATIENCE);
    assert!(ended.success(), "{ended}");
}
