//! Reports come in at a reading centre: by HL7 from python-hl7, by C-STORE from dcmtk, out of a
//! folder. What was answered with yes is in custody, whatever happens to the node.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::foreign::{python, storescu};
use crate::hl7::{Order, Ris, sample, samples};
use crate::ports;
use crate::site::{Node, Plan, Port, Site, run, run_ok, text, until};

/// 「骨画像　山本」 in ISO-2022-JP: its bytes contain `|` and `\`.
const KANJI: &[u8] = b"\x1b$B9|2hA|!!;3K\\\x1b(B";
/// A PDF of one byte more than its header, in base64.
const PDF: &str = "JVBERi0xLjcK";

/// A node that collects by every way; its port for reports by HL7.
fn collects(site: &Site) -> (Plan, u16) {
    let port = ports::free();
    let folder = site.path().join("reports");
    fs::create_dir_all(&folder).expect("a folder");
    let hl7 = format!(
        "listen = \"127.0.0.1:{port}\"\nallow = [\"127.0.0.1\"]\nprocessing_ids = [\"P\", \"T\", \"D\"]"
    );
    let folder = format!(
        "name = \"editor\"\npath = {:?}\nsettle = \"2s\"\nevery = \"1s\"\nwait = \"4s\"",
        folder.display().to_string()
    );
    let plan = site
        .lone()
        .orders()
        .set("reports", "issuer = \"RC\"")
        .set("reports.hl7", &hl7)
        .set("reports.dicom", "from = [\"DCMTK\"]")
        .table("reports.folder", &folder);
    (plan, port)
}

/// Sends messages by python-hl7: the answers.
fn report(port: u16, files: &[PathBuf]) -> Vec<Value> {
    let output = run(python("reporter.py").arg(port.to_string()).args(files));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let answers: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), files.len(), "{out}{err}");
    answers
}

fn written(site: &Site, name: &str, bytes: &[u8]) -> PathBuf {
    let path = site.path().join(name);
    fs::write(&path, bytes).expect("a file");
    path
}

fn message(id: &str, rest: &str) -> String {
    format!(
        "MSH|^~\\&|READER|RC|HIKYAKU|X|20261128101500+0900||ORU^R01|{id}|P|2.5\r\
         PID|||4711^^^EAST||YAMADA^HONE\rOBR|1|P1|F1|CT^CT||||||||||||||A1||||||{rest}"
    )
}

fn text_message(id: &str, words: &str) -> String {
    message(id, &format!("|F|||||||R1&B&C\rOBX|1|TX|F^Findings||{words}||||||F\r"))
}

/// The kinds of what is in custody: a number is that of the node's start, and counts from there.
fn kinds(node: &Node) -> Vec<String> {
    let piece = |n: u64| node.ask(&["queue", "list", "--cargo", &n.to_string()]);
    let mut kinds = Vec::new();
    for start in 0..6 {
        for n in 0..25 {
            match piece(start << 32 | n)[0]["kind"].as_str() {
                Some(kind) => kinds.push(kind.to_owned()),
                None if n > 2 => break,
                None => {}
            }
        }
    }
    kinds
}

fn count(node: &Node, way: &str, outcome: &str) -> u64 {
    let labels = [&*format!("way=\"{way}\""), &*format!("outcome=\"{outcome}\"")];
    node.metric("hikyaku_reports_in_total", &labels) as u64
}

/// Pieces in custody without a destination.
fn pieces(node: &Node) -> u64 {
    node.status()["spool"]["unrouted"].as_u64().expect("a number")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let all = fs::read_dir(folder).into_iter().flatten().map(|e| e.expect("an entry"));
    let files = all.filter(|e| e.file_type().expect("a type").is_file());
    files.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn reports_by_hl7_are_answered_with_yes_when_they_are_kept_and_orders_are_not_taken() {
    let site = Site::new();
    let (plan, port) = collects(&site);
    let node = plan.start();
    let mut japanese = message("J1", "|F|||||||R1&").into_bytes();
    let set = b"|P|2.5|||||JPN|ASCII~ISO IR87\rPID";
    let at = japanese.windows(10).position(|w| w == b"|P|2.5\rPID").expect("MSH-12");
    japanese.splice(at..at + 10, set.iter().copied());
    japanese.extend_from_slice(KANJI);
    japanese.extend_from_slice(b"\rOBX|1|TX|F^Findings||");
    japanese.extend_from_slice(KANJI);
    japanese.extend_from_slice(b"||||||F\r");
    let pdf = format!(
        "|F\rOBX|1|ED|D^Report||^Application^PDF^Base64^{PDF}||||||F\r\
         OBR|2|P2|F2|CT^CT||||||||||||||A2|||||||P\rOBX|1|TX|F||second||||||P\r"
    );
    let files = [
        written(&site, "japanese.hl7", &japanese),
        written(&site, "pdf.hl7", message("D1", &pdf).as_bytes()),
    ];
    let answers = report(port, &files);
    for (answer, id) in answers.iter().zip(["J1", "D1"]) {
        assert_eq!((&answer["code"], &answer["id"]), (&"AA".into(), &id.into()), "{answer}");
    }
    assert_eq!((count(&node, "hl7", "taken"), pieces(&node)), (3, 3));
    // The same again is the same yes, and no second piece.
    let again = report(port, &files);
    assert!(again.iter().all(|a| a["code"] == "AA"), "{again:?}");
    assert_eq!((count(&node, "hl7", "again"), pieces(&node)), (3, 3));
    let log = node.log();
    assert!(!log.contains("YAMADA") && !log.contains("4711"), "no patient in the log");
    // Each listener takes its own.
    let mut orders = Ris::connect(&node);
    assert_eq!(orders.ask(&text_message("O1", "x")), "AR");
    let order = written(&site, "order.hl7", Order::default().write().as_bytes());
    assert_eq!(report(port, &[order])[0]["code"], "AR");
    assert_eq!(pieces(&node), 3);
}

#[test]
fn a_message_that_is_no_report_is_refused_with_the_field_and_nothing_of_the_patient() {
    let site = Site::new();
    let (plan, port) = collects(&site);
    let node = plan.start();
    let text = "OBX|1|TX|F^Findings||SECRET||||||";
    let cases = [
        ("awaited", message("1", &format!("|I\r{text}I\r")), "AE", "OBR^1^25"),
        ("no-record", message("2", &format!("|Y\r{text}F\r")), "AE", "OBR^1^25"),
        ("empty", message("3", "|F\r"), "AE", "OBR^1"),
        ("status", message("4", &format!("|Q\r{text}F\r")), "AE", "OBR^1^25"),
        ("version", text_message("5", "x").replace("|P|2.5\r", "|P|2.9\r"), "AR", "MSH^1^12"),
        ("no-obr", "MSH|^~\\&|R|R|H|X|2026||ORU^R01|6|P|2.5\rPID|||4711\r".into(), "AE", "OBR^1"),
        ("other", text_message("7", "x").replace("ORU^R01", "MDM^T02"), "AR", "MSH^1^9"),
    ];
    for (name, message, code, place) in cases {
        let file = written(&site, &format!("{name}.hl7"), message.as_bytes());
        let answer = &report(port, &[file])[0];
        let errors = answer["errors"].to_string();
        assert_eq!(answer["code"], code, "{name}: {answer}");
        assert!(errors.contains(place), "{name}: {answer}");
        assert!(!answer.to_string().contains("SECRET"), "{answer}");
    }
    assert_eq!(pieces(&node), 0);
    assert_eq!(count(&node, "hl7", "refused"), 7);
}

#[test]
fn real_messages_of_reports_are_taken_or_refused_for_a_reason_that_is_known() {
    let site = Site::new();
    let (plan, port) = collects(&site);
    let node = plan.start();
    let is_report = |path: &String| text(&sample(path)).contains("ORU^R01");
    let all: Vec<String> = samples().into_iter().filter(is_report).collect();
    assert!(all.len() > 12);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hl7");
    let files: Vec<PathBuf> = all.iter().map(|path| root.join(path)).collect();
    let answers = report(port, &files);
    for (path, answer) in all.iter().zip(&answers) {
        let expected = match path.as_str() {
            // It asks for the accept acknowledgement alone (MSH-15).
            "monai/001.txt" | "monai/002.txt" => "CA",
            // Version 2.7; no OBR.
            "cosyte/edge-cases_truncation-char-msh2.hl7" => "AR",
            "cosyte/text_inject-on-encode.hl7" => "AE",
            _ => "AA",
        };
        assert_eq!(answer["code"], expected, "{path}: {answer}");
    }
    assert!(pieces(&node) >= 12);
}

#[test]
fn structured_reports_and_pdfs_by_dicom_are_collected_and_again_are_no_second_piece() {
    let site = Site::new();
    let (plan, _) = collects(&site);
    let node = plan.start();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/samples");
    let source = written(&site, "report.pdf", b"%PDF-1.7\n%%EOF\n");
    let pdf = site.path().join("pdf.dcm");
    run_ok(
        Command::new("pdf2dcm")
            .args(["+pi", "4711", "+pn", "YAMADA^HONE", "+t", "CT report"])
            .args([&source, &pdf]),
    );
    let documents = [data.join("reportsi.dcm"), data.join("test-SR.dcm"), pdf];
    let paths: Vec<&Path> = documents.iter().map(PathBuf::as_path).collect();
    let port = node.port(Port::Dicom);
    for time in 0..2 {
        let mut got = Vec::new();
        for path in &paths {
            let (statuses, said) = storescu(port, &[], &[path]);
            assert_eq!(statuses, [0], "{said}");
            got.extend(statuses);
        }
        let outcome = if time == 0 { "taken" } else { "again" };
        assert_eq!((got.len(), count(&node, "dicom", outcome)), (3, 3));
        assert_eq!(pieces(&node), 3);
    }
    assert_eq!(kinds(&node), ["report"; 3]);
    // Whoever is not named sends images.
    let (statuses, said) = storescu(port, &["-aet", "OTHER"], &paths[..1]);
    assert_eq!(statuses, [0], "{said}");
    assert_eq!((pieces(&node), count(&node, "dicom", "again")), (4, 3));
    assert_eq!(kinds(&node), ["report", "report", "report", "image"]);
}

#[test]
fn a_document_that_cannot_be_read_as_a_report_stays_an_image_and_says_so() {
    let site = Site::new();
    let (plan, _) = collects(&site);
    let node = plan.start();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/samples");
    let whole = data.join("encapsulated_pdf.dcm");
    let empty = site.path().join("empty.dcm");
    fs::copy(&whole, &empty).expect("a copy");
    run_ok(Command::new("dcmodify").args(["-nb", "-e", "(0042,0011)"]).arg(&empty));
    let (statuses, said) = storescu(node.port(Port::Dicom), &[], &[&empty]);
    assert_eq!(statuses, [0], "{said}");
    assert_eq!((pieces(&node), count(&node, "dicom", "refused")), (1, 1));
    assert_eq!(kinds(&node), ["image"]);
    assert!(node.log().contains("kept as an image"));
}

#[test]
fn a_folder_gives_its_reports_once_they_stand_still_and_the_rest_goes_aside_with_a_reason() {
    let site = Site::new();
    let (plan, _) = collects(&site);
    let node = plan.start();
    let folder = site.path().join("reports");
    let put = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a file");
    put("R1.pdf", b"%PDF-1.7");
    put("R1.txt", "骨 像".as_bytes());
    put(
        "R1.json",
        br#"{"study": "1.2.3.4", "status": "final", "signed_by": {"name": "B^C", "id": "R1"}}"#,
    );
    put("A77_F.pdf", b"%PDF-1.7 named");
    put("odd.docx", b"PK");
    put("A78_F.txt", b"\x8d\x9c");
    put("R2.json", br#"{"study": "1.2.3.4", "stauts": "final"}"#);
    put("lonely.pdf", b"%PDF-1.7 lonely");
    std::os::unix::fs::symlink("/etc/hostname", folder.join("A79_F.txt")).expect("a link");
    // One that grows is not taken while it does.
    let mut growing = fs::File::create(folder.join("A80_F.txt")).expect("a file");
    for n in 0..12 {
        writeln!(growing, "line {n}").expect("room");
        sleep(Duration::from_millis(400));
        assert!(!names(&folder.join("taken")).contains("A80_F.txt"), "taken while it grew");
    }
    let taken = folder.join("taken");
    until("the growing one is taken", || names(&taken).contains("A80_F.txt"));
    let expected = ["A77_F.pdf", "A80_F.txt", "R1.json", "R1.pdf", "R1.txt"].map(str::to_owned);
    until("all are taken", || names(&taken) == BTreeSet::from(expected.clone()));
    let held = folder.join("held");
    until("the others are held", || names(&held).len() == 8);
    let why = |name: &str| fs::read_to_string(held.join(format!("{name}.why.txt"))).expect(name);
    assert!(why("odd").contains("ends neither"), "{}", why("odd"));
    assert!(why("A78_F").contains("UTF-8"), "{}", why("A78_F"));
    assert!(why("R2").contains("stauts"), "{}", why("R2"));
    assert!(why("lonely").contains("no sidecar"), "{}", why("lonely"));
    assert_eq!(names(&folder), BTreeSet::new(), "a link stays, and nothing else");
    assert_eq!((count(&node, "folder", "taken"), count(&node, "folder", "refused")), (3, 4));
    assert_eq!(pieces(&node), 3);
    // A file that is put back is looked at again; the same report is no second piece.
    fs::rename(taken.join("A77_F.pdf"), folder.join("A77_F.pdf")).expect("back");
    until("it is taken again", || count(&node, "folder", "again") == 1);
    assert_eq!(pieces(&node), 3);
    assert!(!node.log().contains("lonely"), "names of files stay out of the log");
}

#[test]
fn what_was_answered_outlives_a_kill_and_the_same_again_makes_no_second_piece() {
    let site = Site::new();
    let (plan, port) = collects(&site);
    let node = plan.start();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/samples");
    let document = data.join("test-SR.dcm");
    let mut sent = Vec::new();
    for round in 0..3 {
        for n in 0..5 {
            let name = format!("{round}-{n}");
            let message = text_message(&name, &format!("words {name}"));
            sent.push(written(&site, &format!("{name}.hl7"), message.as_bytes()));
        }
        let answers = report(port, &sent[round * 5..]);
        assert!(answers.iter().all(|a| a["code"] == "AA"), "{answers:?}");
        let (statuses, said) = storescu(node.port(Port::Dicom), &[], &[&document]);
        assert_eq!(statuses, [0], "{said}");
        node.kill();
        node.start();
        assert_eq!(pieces(&node), (round as u64 + 1) * 5 + 1);
    }
    let answers = report(port, &sent);
    assert!(answers.iter().all(|a| a["code"] == "AA"), "{answers:?}");
    let (statuses, said) = storescu(node.port(Port::Dicom), &[], &[&document]);
    assert_eq!(statuses, [0], "{said}");
    assert_eq!((pieces(&node), count(&node, "hl7", "again")), (16, 15));
    assert_eq!(kinds(&node), ["report"; 16]);
}
