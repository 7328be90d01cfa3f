//! What a node has said yes to beside images, orders, procedure steps and requests for commitment,
//! is there after kills and power cuts at random moments.
//!
//! A RIS and a modality say everything again until it is answered, and note each yes. Afterwards
//! every order that was acknowledged is shown, and its message gets the same answer; every step is
//! known as it was told last; every request for commitment is known, and open, since its images
//! never came.
//!
//! `HIKYAKU_STORM_PROMISES=100` makes both storms long. The power cuts need root and loop devices
//! (`power.rs` says what they model).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::chance::{Chance, scale};
use crate::ending::{self, Program};
use crate::foreign::{modality, python};
use crate::hl7::{Order, Ris, code};
use crate::mount::{Mounted, Volume};
use crate::sender::new_study;
use crate::site::{Node, PATIENCE, Plan, Port, Site, is_root, text, until};

const MPPS: &str = "1.2.840.10008.3.1.2.3.3";
/// Kills, or cuts, of the short storm.
const STRIKES: u64 = 6;

/// Promises of each kind that are asked for again after a storm: all of a short one.
const ASKED_AGAIN: usize = 300;
/// Studies of which a person looks at the story.
const STUDIES_SHOWN: usize = 20;
/// Between two orders: a busy RIS, not a flood.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// What was said yes to.
#[derive(Debug, Clone, Default)]
struct Promised {
    /// By order number: the message, and its answer.
    orders: BTreeMap<String, (String, Vec<u8>)>,
    /// By SOP Instance UID: its study, and whether its end was answered.
    steps: BTreeMap<String, (String, bool)>,
    /// Transaction UIDs, and the study of each.
    commitments: BTreeMap<String, String>,
}

impl Promised {
    fn len(&self) -> usize {
        self.orders.len() + self.steps.len() + self.commitments.len()
    }
}

type Notes = Arc<Mutex<Promised>>;

/// A RIS and a modality at work.
struct Talk {
    notes: Notes,
    over: Arc<AtomicBool>,
    ris: JoinHandle<()>,
    modality: Program,
    listener: JoinHandle<()>,
}

impl Talk {
    fn start(node: &Node) -> Self {
        let (notes, over) = (Notes::default(), Arc::new(AtomicBool::new(false)));
        let mut command = python("diligent.py");
        command.arg(node.port(Port::Dicom).to_string()).arg(new_study());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut modality = Program::start(&mut command);
        let listener = modality.each({
            let notes = notes.clone();
            move |line| note(&notes, &line)
        });
        let (port, study) = (node.port(Port::Hl7), new_study());
        let ris = thread::spawn({
            let (notes, over) = (notes.clone(), over.clone());
            move || order_on(port, &study, &notes, &over)
        });
        Self { notes, over, ris, modality, listener }
    }

    fn promised(&self) -> Promised {
        self.notes.lock().expect("no panic while noting").clone()
    }

    fn finish(mut self) -> Promised {
        self.over.store(true, Ordering::Relaxed);
        self.ris.join().expect("a RIS that ends well");
        drop(self.modality.child.stdin.take());
        let ended = ending::status("the modality", &mut self.modality.child, PATIENCE);
        self.listener.join().expect("a listener that ends");
        assert!(ended.success(), "the modality got an answer that it cannot have: {ended}");
        self.notes.lock().expect("no panic while noting").clone()
    }
}

fn note(notes: &Notes, line: &str) {
    let said: Value = serde_json::from_str(line).expect("JSON");
    let word = |key: &str| said[key].as_str().expect("a text").to_owned();
    let mut notes = notes.lock().expect("no panic while noting");
    match said["said"].as_str() {
        Some("action") => drop(notes.commitments.insert(word("uid"), word("study"))),
        what => drop(notes.steps.insert(word("uid"), (word("study"), what == Some("set")))),
    }
}

/// Orders one study after the other; what is not answered is sent again.
fn order_on(port: u16, study: &str, notes: &Notes, over: &AtomicBool) {
    let mut line: Option<TcpStream> = None;
    let mut n = 0;
    while !over.load(Ordering::Relaxed) {
        let (id, number, study) = (format!("M{n}"), format!("P{n}"), format!("{study}.{n}"));
        let order = Order { id: &id, number: &number, study: &study, ..Order::default() };
        let message = order.write();
        line = line.or_else(|| TcpStream::connect(("127.0.0.1", port)).ok());
        let Some(answer) = line.as_mut().and_then(|line| tell(line, &message)) else {
            line = None;
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        assert_eq!(code(&answer), "AA", "{}", text(&answer));
        notes.lock().expect("no panic while noting").orders.insert(number, (message, answer));
        n += 1;
        thread::sleep(PAUSE);
    }
}

/// The answer to a message; nothing when the line broke before it was whole.
fn tell(line: &mut TcpStream, message: &str) -> Option<Vec<u8>> {
    line.set_read_timeout(Some(ANSWER_TIME)).ok()?;
    line.set_write_timeout(Some(ANSWER_TIME)).ok()?;
    line.write_all(&[b"\x0B", message.as_bytes(), b"\x1C\r"].concat()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x1C\r") {
        let mut byte = [0];
        line.read_exact(&mut byte).ok()?;
        answer.push(byte[0]);
    }
    Some(answer[1..answer.len() - 2].to_vec())
}

fn plan(site: &Site) -> Plan {
    site.lone()
        .orders()
        .set("orders.commitment", "grace = \"1d\"")
        .folder_destination("folder")
        .route_all("folder")
}

/// Of all of them at most so many, from the first on.
fn some<T>(all: impl ExactSizeIterator<Item = T>, most: usize) -> impl Iterator<Item = T> {
    let step = all.len().div_ceil(most).max(1);
    all.step_by(step)
}

/// Holds the node to everything that it has said yes to.
fn hold_to(node: &Node, promised: &Promised) {
    let orders = node.ask(&["orders", "--limit", "100000"]);
    let rows = orders.as_array().expect("a list");
    let shown: BTreeSet<&str> = rows.iter().filter_map(|row| row["order"].as_str()).collect();
    let lost: Vec<_> = promised.orders.keys().filter(|n| !shown.contains(n.as_str())).collect();
    assert!(lost.is_empty(), "orders that were acknowledged are lost: {lost:?}");
    let mut ris = Ris::connect(node);
    for (message, answer) in some(promised.orders.values(), ASKED_AGAIN) {
        assert_eq!(text(&ris.send(message.as_bytes())), text(answer), "the same answer again");
    }
    let mut asked = Vec::new();
    let steps: Vec<_> = some(promised.steps.iter(), ASKED_AGAIN).collect();
    for (step, (study, _)) in &steps {
        asked.push(json!({ "do": "create", "class": MPPS, "instance": step, "data": {
            "PerformedProcedureStepID": "PPS1", "PerformedStationAETitle": "CT1",
            "PerformedProcedureStepStartDate": "20261122",
            "PerformedProcedureStepStartTime": "101500", "Modality": "CT",
            "PerformedProcedureStepStatus": "IN PROGRESS", "PerformedSeriesSequence": [],
            "ScheduledStepAttributesSequence": [{ "StudyInstanceUID": study }],
        }}));
    }
    let ended: Vec<_> = steps.iter().filter(|(_, (_, ended))| *ended).collect();
    for (step, _) in &ended {
        asked.push(json!({ "do": "set", "class": MPPS, "instance": step, "data": {
            "PerformedProcedureStepStatus": "DISCONTINUED",
        }}));
    }
    let answers = modality(node.port(Port::Dicom), &json!(asked));
    assert_eq!(answers.len(), asked.len());
    for (n, answer) in answers.iter().enumerate() {
        let wanted = if n < steps.len() { "0111" } else { "0110" };
        assert_eq!(answer["status"], wanted, "{} was answered before: {answer}", asked[n]);
    }
    // Each of these asks the program, which takes its time: of all of them, some.
    for (_, (study, _)) in some(ended.iter(), STUDIES_SHOWN) {
        let known = || node.standing(study)["expected"] == 3;
        until(&format!("the three images of {study} are expected"), known);
    }
    known_commitments(node, promised);
}

/// Asked again under the same Transaction UIDs, nothing is committed: they are in use.
fn known_commitments(node: &Node, promised: &Promised) {
    let open = node.metric("hikyaku_commitments_open", &[]);
    let taken = promised.commitments.len();
    assert!(open + 0.5 > taken as f64, "{open} requests are open, {taken} were taken");
    let ask = |(transaction, study): (&String, &String)| {
        let sop = format!("{study}.1.1");
        let image = json!({ "ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
                            "ReferencedSOPInstanceUID": sop });
        json!({ "do": "action", "data": {
            "TransactionUID": transaction, "ReferencedSOPSequence": [image] } })
    };
    let mut steps: Vec<Value> = some(promised.commitments.iter(), ASKED_AGAIN).map(ask).collect();
    let wanted = steps.len();
    steps.push(json!({ "do": "events", "n": wanted }));
    let lines = modality(node.port(Port::Dicom), &json!(steps));
    let events: Vec<_> = lines.iter().filter(|line| line.get("event").is_some()).collect();
    assert_eq!(events.len(), wanted);
    for event in events {
        let reason = &event["data"]["FailedSOPSequence"][0]["FailureReason"];
        assert_eq!(*reason, 0x0131.to_string(), "{event}");
    }
}

#[test]
fn an_order_a_step_and_a_request_for_commitment_that_were_answered_outlive_kills_at_random() {
    let mut chance = Chance::new("promises, kills");
    let site = Site::new();
    let node = plan(&site).start();
    let talk = Talk::start(&node);
    for strike in 0..scale("HIKYAKU_STORM_PROMISES", STRIKES) {
        let before = talk.promised();
        until("orders and steps are answered", || {
            let now = talk.promised();
            now.orders.len() > before.orders.len() && now.steps.len() > before.steps.len()
        });
        thread::sleep(chance.time(0, 800));
        node.kill();
        if strike % 3 == 2 {
            std::fs::remove_dir_all(node.data().join("ledger")).expect("a ledger");
        }
        thread::sleep(chance.time(0, 200));
        node.start();
    }
    let promised = talk.finish();
    eprintln!("{} promises", promised.len());
    assert!(!promised.commitments.is_empty(), "commitment was asked for");
    hold_to(&node, &promised);
}

#[test]
fn an_order_a_step_and_a_request_for_commitment_that_were_answered_outlive_a_power_cut() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mut chance = Chance::new("promises, power cuts");
    let site = Site::new();
    let Some(volume) = Volume::new(site.path()) else { return };
    let disk = volume.disk("lone.img");
    let node = plan(&site).write();
    let cuts = {
        let _mounted = Mounted::image(&disk, &node.data());
        let cuts = storm(&volume, &disk, &node, &mut chance);
        node.kill();
        cuts
    };
    let mut seen = 0;
    for (image, promised) in &cuts {
        let _mounted = Mounted::image(image, &node.data());
        seen += promised.len();
        node.start();
        hold_to(&node, promised);
        node.kill();
    }
    eprintln!("{} cuts, {seen} promises found again", cuts.len());
    assert!(seen > 0, "nothing was answered before any cut");
}

/// Copies of the disk at random moments, every second one just after a kill and a restart, with what
/// had been said yes to by then.
fn storm(
    volume: &Volume,
    disk: &std::path::Path,
    node: &Node,
    chance: &mut Chance,
) -> Vec<(PathBuf, Promised)> {
    node.start();
    let talk = Talk::start(node);
    let mut cuts = Vec::new();
    for number in 0..scale("HIKYAKU_STORM_PROMISES", STRIKES) {
        let before = talk.promised();
        if number % 2 == 1 {
            node.kill();
            node.start();
        }
        until("orders and steps are answered", || {
            let now = talk.promised();
            now.orders.len() > before.orders.len() && now.steps.len() > before.steps.len()
        });
        thread::sleep(chance.time(0, 600));
        let promised = talk.promised();
        cuts.push((volume.snapshot(disk, &format!("lone-{number}.img")), promised));
    }
    talk.finish();
    cuts
}
