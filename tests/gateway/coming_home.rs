//! Reports come home in any order, through kills, cuts and refusals, and to nobody else.
//!
//! What must be at the hospital in the end is what the pure chain (`reports::versions`) says of the
//! set of documents, read from the very bytes that were sent.
//!
//! `HIKYAKU_STORM_REPORTS=100` makes the storm long.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use hikyaku::clock::Timestamp;
use hikyaku::hl7::message::Message;
use hikyaku::hl7::order::OrderFields;
use hikyaku::hl7::report::ReportMessage;
use hikyaku::reports::arrive::ArriveRules;
use hikyaku::reports::versions::{Arrival, Chain, Standing};

use crate::chance::{Chance, scale};
use crate::circle::{Circle, Said, his};
use crate::hl7::{Order, Ris, code};
use crate::line::{Line, Quality};
use crate::receiver::{Receiver, Told};
use crate::sender::{new_study, send_study};
use crate::site::{Node, PATIENCE, Plan, Port, READING, Site, text, until};
use crate::tunnel_faults::impatient;

/// Strikes of the short storm.
const STRIKES: u64 = 6;
/// Longest wait for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Pause before what was not answered is sent again.
const AGAIN: Duration = Duration::from_millis(50);
/// Minutes from one version to the next: more than two forms of one may be apart.
const APART: usize = 15;
/// When the first version was written.
const HOUR: usize = 9;

/// Sends a message to the MLLP listener at `port` until it is answered, as a reporting system does;
/// MSA-1.
fn send(port: u16, message: &[u8]) -> String {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = once(port, message) {
            return code(&answer);
        }
        assert!(Instant::now() < give_up, "nobody answers at {port}");
        thread::sleep(AGAIN);
    }
}

/// The answer; nothing when the line broke before it was whole.
fn once(port: u16, message: &[u8]) -> Option<Vec<u8>> {
    let mut line = TcpStream::connect(("127.0.0.1", port)).ok()?;
    line.set_read_timeout(Some(ANSWER_TIME)).ok()?;
    line.set_write_timeout(Some(ANSWER_TIME)).ok()?;
    line.write_all(&[b"\x0B", message, b"\x1C\r"].concat()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x1C\r") {
        let mut byte = [0];
        line.read_exact(&mut byte).ok()?;
        answer.push(byte[0]);
    }
    Some(answer[1..answer.len() - 2].to_vec())
}

/// The reports of a study or order, as a node tells them.
fn stories(node: &Node, of: &str) -> Vec<Value> {
    let output = node.cli(&["report", "show", of, "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    told.as_array().cloned().unwrap_or_default()
}

/// The state of the latest version of the one report of a study at a destination.
fn state(node: &Node, study: &str, destination: &str) -> String {
    let told = stories(node, study);
    let [story] = &told[..] else { return String::new() };
    let all = story["row"]["destinations"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|d| d[0] == destination);
    found.and_then(|d| d[1].as_str()).unwrap_or_default().to_owned()
}

/// A document of the storm: version `place` of its study, as text or as PDF.
#[derive(Debug, Clone)]
struct Document {
    study: usize,
    place: usize,
    status: &'static str,
    bytes: Vec<u8>,
}

/// What is in a version and in no other; it has no letter that HL7 or base64 writes otherwise.
fn mark(study: usize, place: usize) -> String {
    format!("mark s{study} v{place} end")
}

fn pdf(study: usize, place: usize) -> Vec<u8> {
    format!("%PDF-1.4\n% {}\n%%EOF\n", mark(study, place)).into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A random set of versions of one study: preliminary before final before corrected or withdrawn by
/// their times or not, in one form or two.
fn versions(chance: &mut Chance, study: usize, uid: &str, order: &str) -> Vec<Document> {
    let mut all = Vec::new();
    for place in 0..2 + chance.below(4) as usize {
        let status = ["P", "P", "F", "F", "C", "X"][chance.below(6) as usize];
        let forms = chance.below(3);
        let minutes = place * APART;
        let said = |form: &str, minutes: usize| {
            let id = format!("S{study}V{place}{form}");
            let at = format!("20261128{:02}{:02}00+0900", HOUR + minutes / 60, minutes % 60);
            let text = mark(study, place);
            Said { id: &id, status, order, study: uid, text: &text, at: &at, flag: "" }.write()
        };
        if forms != 1 {
            let bytes = said("T", minutes);
            all.push(Document { study, place, status, bytes });
        }
        if forms != 0 {
            let message = text(&said("D", minutes + 2));
            let line = format!("OBX|1|TX|F^Findings||{}|", mark(study, place));
            let document = format!(
                "OBX|1|ED|PDF^Report||^application^pdf^Base64^{}|",
                base64(&pdf(study, place))
            );
            let with = message.replace(&line, &document);
            assert_ne!(with, message);
            all.push(Document { study, place, status, bytes: with.into_bytes() });
        }
    }
    all
}

/// What the pure chain says of documents, given in the order in which they were answered.
fn chain<'a>(documents: impl Iterator<Item = &'a Document>) -> Chain {
    let mut chain = Chain::default();
    for (n, document) in documents.enumerate() {
        let message = Message::parse(&text(&document.bytes)).expect("HL7");
        let said = ReportMessage::read(&message, &OrderFields::default()).expect("an ORU");
        let report = ArriveRules::default().of_message(&said, 0, &document.bytes, "READER^RC");
        let report = report.expect("a report");
        chain.apply(Arrival::of(&report, "", Timestamp(n as i64)));
    }
    chain
}

const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Latest => "latest",
        Standing::Superseded => "superseded",
        Standing::Late => "late",
    }
}

/// Status, standing, time of writing and forms of each version.
fn expected(chain: &Chain) -> Vec<(String, &'static str, String, Vec<String>)> {
    let all = chain.versions().into_iter().map(|v| {
        let mut forms: Vec<String> = v
            .documents
            .iter()
            .flat_map(|d| &d.forms)
            .map(|f| format!("{f:?}").to_lowercase())
            .collect();
        forms.sort();
        (v.status.as_str().to_owned(), word(v.standing), v.written_at.to_string(), forms)
    });
    all.collect()
}

fn shown(story: &Value) -> Vec<(String, String, String, Vec<String>)> {
    let said = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let versions = story["versions"].as_array().cloned().unwrap_or_default();
    let all = versions.iter().map(|v| {
        let documents = v["documents"].as_array().into_iter().flatten();
        let forms = documents.flat_map(|d| d[1].as_array().cloned().unwrap_or_default());
        let mut forms: Vec<String> = forms.filter_map(|f| f.as_str().map(str::to_owned)).collect();
        forms.sort();
        (said(v, "status"), said(v, "standing"), said(v, "written_at"), forms)
    });
    all.collect()
}

fn is_same(story: &Value, chain: &Chain) -> bool {
    let wanted = expected(chain).into_iter().map(|(a, b, c, d)| (a, b.to_owned(), c, d));
    shown(story).into_iter().eq(wanted)
}

/// The place that a status has.
fn rank(status: &str) -> u8 {
    match status {
        "P" => 0,
        "F" => 1,
        _ => 2,
    }
}

/// Rank and number of the version that a message is, by its status and the time in OBR-22.
fn version_of(told: &Told) -> (u8, usize) {
    let at = told.field("OBR-22");
    let number = |from: usize| at[from..from + 2].parse::<usize>().expect("a time");
    (rank(told.field("OBR-25")), ((number(8) - HOUR) * 60 + number(10)) / APART)
}

/// Circle, line and HIS of a storm.
struct Weather<'a> {
    circle: &'a Circle,
    line: &'a Line,
    receiver: &'a Receiver,
}

impl Weather<'_> {
    fn strike(&self, chance: &mut Chance) {
        let nodes = [&self.circle.reading, &self.circle.hospital];
        match chance.below(8) {
            n @ 0..4 => {
                let node = nodes[(n % 2) as usize];
                node.kill();
                if chance.below(4) == 0 {
                    std::fs::remove_dir_all(node.data().join("ledger")).expect("a ledger");
                }
                thread::sleep(chance.time(0, 200));
                node.start();
            }
            4 => {
                nodes.iter().for_each(|node| node.kill());
                nodes.iter().for_each(|node| node.start());
            }
            5 => {
                self.line.cut(true);
                thread::sleep(chance.time(200, 5_000));
                self.line.cut(false);
            }
            6 => {
                self.receiver.kill();
                thread::sleep(chance.time(0, 1_500));
                self.receiver.up(&[]);
            }
            _ => {
                let refusals = ["AE,AE,AE,AA", "AE,close,AE,AA", "AE,AA"];
                let answers = refusals[chance.below(refusals.len() as u64) as usize];
                self.receiver.change(&["--answers", answers]);
            }
        }
    }
}

/// Circle with a line between its nodes.
fn through_a_line(site: &Site, receiver: &Receiver) -> (Circle, Line) {
    let line = RefCell::new(None);
    let circle = Circle::start_with(
        site,
        |plan| {
            *line.borrow_mut() = Some(Line::to(plan.port(Port::Tunnel), Quality::default()));
            impatient(plan)
        },
        |plan| {
            let port = line.borrow().as_ref().map_or(0, Line::port);
            let plan = plan.without("destination", "kind = \"node\"").dials(READING, port);
            impatient(his(plan, receiver.port(), "report_preliminary = true"))
        },
    );
    let line = line.into_inner().expect("a line");
    (circle, line)
}

/// Sends documents one after the other, some of them twice; in which order they were answered.
fn report_on(
    port: u16,
    documents: Vec<Document>,
    mut chance: Chance,
    answered: Arc<Mutex<Vec<Document>>>,
    count: Arc<AtomicUsize>,
) {
    for document in documents {
        assert_eq!(send(port, &document.bytes), "AA", "{}", text(&document.bytes));
        answered.lock().expect("no panic").push(document);
        count.fetch_add(1, Ordering::Relaxed);
        thread::sleep(chance.time(0, 150));
    }
}

#[test]
fn whatever_order_and_whatever_breaks_the_hospital_has_what_the_chain_says_and_never_steps_back() {
    let mut chance = Chance::new("reports come home");
    let strikes = scale("HIKYAKU_STORM_REPORTS", STRIKES);
    let site = Site::new();
    let receiver = Receiver::start(&[]);
    let (circle, line) = through_a_line(&site, &receiver);
    let studies: Vec<(String, String)> =
        (0..4 + strikes / 4).map(|n| (new_study(), format!("P{}", n + 1))).collect();
    let order = |n: usize| {
        let (study, number) = &studies[n];
        let id = format!("O{n}");
        let order = Order { id: &id, number, study, ..Order::default() };
        assert_eq!(Ris::connect(&circle.hospital).ask(&order.write()), "AA");
        send_study(&circle.hospital, study, 1..3);
    };
    let mut documents = Vec::new();
    for (n, (study, number)) in studies.iter().enumerate() {
        documents.extend(versions(&mut chance, n, study, number));
    }
    for _ in 0..documents.len() / 4 {
        let again = documents[chance.below(documents.len() as u64) as usize].clone();
        documents.push(again);
    }
    for n in (1..documents.len()).rev() {
        documents.swap(n, chance.below(n as u64 + 1) as usize);
    }
    // The last study comes when some of its reports are there.
    let last = studies.len() - 1;
    (0..last).for_each(order);
    let (answered, count) = (Arc::<Mutex<Vec<Document>>>::default(), Arc::new(AtomicUsize::new(0)));
    let (all, port) = (documents.len(), circle.reports);
    let reporter = thread::spawn({
        let (answered, count) = (answered.clone(), count.clone());
        move || report_on(port, documents, Chance::new("reporter"), answered, count)
    });
    let weather = Weather { circle: &circle, line: &line, receiver: &receiver };
    for strike in 0..strikes {
        let wanted = (all * strike as usize / strikes as usize).max(1);
        until("reports are answered", || count.load(Ordering::Relaxed) >= wanted);
        thread::sleep(chance.time(0, 600));
        weather.strike(&mut chance);
        if strike == strikes / 2 {
            order(last);
        }
    }
    reporter.join().expect("a reporting system that ends well");
    receiver.change(&[]);
    let answered = answered.lock().expect("no panic").clone();
    let mut by_study: BTreeMap<usize, Vec<&Document>> = BTreeMap::new();
    answered.iter().for_each(|d| by_study.entry(d.study).or_default().push(d));
    for (n, documents) in by_study {
        let (study, _) = &studies[n];
        let chain = chain(documents.iter().copied());
        let held_to = |node: &Node| {
            let told = stories(node, study);
            told.len() == 1 && is_same(&told[0], &chain)
        };
        for node in [&circle.hospital, &circle.reading] {
            if !crate::site::met(|| held_to(node)) {
                let wanted = expected(&chain);
                let told: Vec<_> = stories(node, study).iter().map(shown).collect();
                panic!("{} of study {n}: {told:#?}, the chain: {wanted:#?}", node.name());
            }
            let what = format!("{} knows that the HIS has report {n}", node.name());
            until(&what, || state(node, study, "his") == "accepted");
        }
        judge(&receiver.told(), study, (n, &chain, &documents));
    }
    assert!(circle.reading.ask(&["reports", "--held"]).as_array().is_some_and(Vec::is_empty));
}

/// What the HIS was told of a study: never a step back, the latest version last and whole.
fn judge(told: &[Told], uid: &str, (study, chain, documents): (usize, &Chain, &[&Document])) {
    let mut messages: Vec<&Told> =
        told.iter().filter(|t| t.hex.contains(&hex(uid.as_bytes()))).collect();
    // What was refused comes again as it was: its last answer counts.
    let last = *messages.last().expect("the HIS was told");
    messages.dedup_by(|a, b| a.id == b.id);
    let sequence: Vec<(u8, usize)> = messages.iter().map(|t| version_of(t)).collect();
    assert!(sequence.is_sorted(), "study {study}: a step back: {sequence:?}");
    let latest = chain.latest().expect("a version");
    let place = |d: &&&Document| (rank(d.status), d.place);
    let wanted = documents.iter().max_by_key(|d| place(d)).expect("a document");
    assert_eq!(sequence.last(), Some(&place(&wanted)), "study {study}: {last:?}");
    assert_eq!(last.answer, "AA", "study {study}: {last:?}");
    assert_eq!(last.field("OBR-25"), wanted.status, "study {study}");
    let said = &last.fields["OBX-5"];
    let forms: Vec<String> =
        latest.forms().iter().map(|f| format!("{f:?}").to_lowercase()).collect();
    let mark = mark(study, wanted.place);
    let pdf = base64(&pdf(study, wanted.place));
    assert_eq!(forms.contains(&"text".into()), said.iter().any(|s| s.contains(&mark)), "{last:?}");
    assert_eq!(forms.contains(&"pdf".into()), said.iter().any(|s| s.contains(&pdf)), "{last:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether these bytes stand in any file below a folder.
fn is_below(folder: &Path, bytes: &[u8]) -> bool {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => is_below(&path, bytes),
            Ok(kind) if kind.is_file() => std::fs::read(&path)
                .is_ok_and(|all| all.windows(bytes.len()).any(|window| window == bytes)),
            _ => false,
        }
    })
}

/// A hospital with a HIS.
fn hospital(plan: Plan, receiver: &Receiver) -> Node {
    let plan = plan.orders().set("orders", "settle = \"1s\"\nquiet = \"2s\"").set("reports", "");
    his(plan, receiver.port(), "").start()
}

/// A reading centre that takes ORU at the port.
fn reading(plan: Plan) -> (Node, u16) {
    let port = crate::ports::free();
    let hl7 = format!("listen = \"127.0.0.1:{port}\"\nallow = [\"127.0.0.1\"]");
    let plan = plan
        .orders()
        .set("orders", "expected = false\nsettle = \"1s\"\nquiet = \"2s\"")
        .set("reports", "")
        .set("reports.hl7", &hl7)
        .folder_destination("pacs")
        .route_all("pacs");
    (plan.start(), port)
}

#[test]
fn of_two_hospitals_with_the_same_numbers_and_uids_only_the_one_that_is_meant_gets_a_report() {
    let site = Site::new();
    let (here, there) = (Receiver::start(&[]), Receiver::start(&[]));
    let (reading, port) = reading(site.reading().awaits("clinic"));
    let general = hospital(site.hospital(reading.port(Port::Tunnel)), &here);
    let clinic = site.node("clinic").dicom().dials(READING, reading.port(Port::Tunnel));
    let clinic = hospital(clinic.route_all(READING), &there);
    // The same patient number, accession number and study of both; one study of the clinic alone.
    let (both, alone) = (new_study(), new_study());
    let shared = Order { study: &both, accession: "A1", ..Order::default() };
    let other = Order { id: "2", number: "P2", study: &alone, accession: "A2", ..Order::default() };
    for node in [&general, &clinic] {
        assert_eq!(Ris::connect(node).ask(&shared.write()), "AA");
        send_study(node, &both, 1..3);
    }
    assert_eq!(Ris::connect(&clinic).ask(&other.write()), "AA");
    send_study(&clinic, &alone, 1..3);
    until("the reading centre has all three studies", || {
        let studies = reading.ask(&["studies"]);
        let whole = |s: &&Value| s["arrived"] == 2 || s["images"] == 2;
        studies.as_array().is_some_and(|all| all.iter().filter(whole).count() == 3)
    });
    let one = Said { id: "1", order: "P2", text: "ONLY OF THE CLINIC", ..Said::of(&alone) };
    assert_eq!(send(port, &one.write()), "AA");
    until("the clinic's HIS has it", || state(&clinic, &alone, "his") == "accepted");
    let two = Said { id: "2", text: "WHOSE IS THIS", ..Said::of(&both) };
    assert_eq!(send(port, &two.write()), "AA");
    let held = || reading.ask(&["reports", "--held"]);
    until("what may be of either is held and shown", || {
        held().as_array().is_some_and(|all| all.len() == 1)
    });
    let row = held()[0].clone();
    assert!(row["words"].as_str().is_some_and(|w| !w.is_empty()), "{row}");
    assert!(stories(&reading, &both).is_empty());
    let document = row["document"].as_str().expect("an id");
    let unclear = reading.cli(&["report", "match", document, "P1"]);
    assert!(!unclear.status.success(), "P1 is of both: {}", text(&unclear.stdout));
    let said = reading.cli(&["report", "match", document, "clinic/P1"]);
    assert!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
    until("the clinic's HIS has that one too", || state(&clinic, &both, "his") == "accepted");
    until("nothing is held any more", || held().as_array().is_some_and(Vec::is_empty));
    until("the reading centre knows it", || state(&reading, &both, "his") == "accepted");
    assert_eq!(there.told().len(), 2);
    // The other one has heard, and keeps, nothing.
    assert!(here.told().is_empty(), "{:?}", here.told());
    let all = |node: &Node| node.ask(&["reports"]).as_array().map(Vec::len);
    assert_eq!((all(&clinic), all(&general)), (Some(2), Some(0)));
    assert!(general.ask(&["reports", "--held"]).as_array().is_some_and(Vec::is_empty));
    clinic.stop();
    general.stop();
    for words in ["ONLY OF THE CLINIC", "WHOSE IS THIS"] {
        assert!(is_below(&clinic.data(), words.as_bytes()), "the clinic keeps {words:?}");
        assert!(!is_below(&general.data(), words.as_bytes()), "{words:?} has crossed over");
    }
}

#[test]
fn a_report_before_its_order_is_held_and_goes_home_by_itself_when_the_order_comes() {
    let site = Site::new();
    let receiver = Receiver::start(&[]);
    let circle = Circle::start(&site, |plan| his(plan, receiver.port(), ""));
    let study = new_study();
    let said = Said { text: "sooner than its order", ..Said::of(&study) };
    assert_eq!(send(circle.reports, &said.write()), "AA");
    let held = || circle.reading.ask(&["reports", "--held"]);
    until("it is held", || held().as_array().is_some_and(|all| all.len() == 1));
    assert!(circle.reading.cli(&["reports", "--held"]).status.success());
    circle.reading.restart();
    assert_eq!(held().as_array().map(Vec::len), Some(1), "held over a restart");
    assert!(receiver.told().is_empty());
    circle.study(&Order { study: &study, ..Order::default() }, 2);
    let told = receiver.wait(1)[0].clone();
    assert!(told.fields["OBX-5"].iter().any(|t| t == "sooner than its order"), "{told:?}");
    until("nobody had to match it", || held().as_array().is_some_and(Vec::is_empty));
    until("both know", || {
        let nodes = [&circle.hospital, &circle.reading];
        nodes.iter().all(|node| state(node, &study, "his") == "accepted")
    });
}

#[test]
fn a_report_waits_for_a_hospital_that_cannot_be_reached_and_goes_home_when_it_can() {
    let site = Site::new();
    let receiver = Receiver::start(&[]);
    let (circle, line) = through_a_line(&site, &receiver);
    let study = new_study();
    circle.study(&Order { study: &study, ..Order::default() }, 2);
    line.cut(true);
    until("the line is found dead", || !crate::site::is_up(&circle.reading));
    let say = |id: &'static str, status: &'static str, at: &'static str, text: &'static str| {
        let said = Said { id, status, at, text, ..Said::of(&study) };
        assert_eq!(send(circle.reports, &said.write()), "AA");
    };
    say("1", "P", "20261128100000+0900", "first look");
    say("2", "F", "20261128110000+0900", "the report");
    until("the reading centre has both versions", || {
        let told = stories(&circle.reading, &study);
        told.len() == 1 && told[0]["row"]["versions"] == 2
    });
    // Whoever was off meanwhile has forgotten nothing.
    circle.reading.kill();
    circle.reading.start();
    circle.hospital.kill();
    circle.hospital.start();
    assert!(receiver.told().is_empty() && stories(&circle.hospital, &study).is_empty());
    assert!(circle.reading.count("hospital", "owed") > 0, "it is owed");
    line.cut(false);
    until("both know that the HIS has it", || {
        let nodes = [&circle.hospital, &circle.reading];
        nodes.iter().all(|node| state(node, &study, "his") == "accepted")
    });
    let told = receiver.told();
    let last = told.last().expect("a message");
    assert_eq!(last.field("OBR-25"), "F");
    assert!(last.fields["OBX-5"].iter().any(|t| t == "the report"), "{last:?}");
}
