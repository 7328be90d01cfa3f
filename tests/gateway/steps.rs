//! Performed procedure steps passed on to a RIS. Modality and RIS are pynetdicom.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::ending::Program;
use crate::evidence::{ask, begun, create, ended, set};
use crate::foreign::{modality, python};
use crate::ports;
use crate::sender::{Object, new_study};
use crate::site::{Node, Plan, Port, Site, text, until};

/// The MPPS SCP of a RIS: what it was asked is known after its end.
struct Ris {
    port: u16,
    said: Arc<Mutex<Vec<Value>>>,
    program: Mutex<Option<Program>>,
}

impl Ris {
    /// One that has its port and does not listen yet.
    fn down() -> Self {
        Self { port: ports::free(), said: Arc::default(), program: Mutex::new(None) }
    }

    fn start(options: &[&str]) -> Self {
        let ris = Self::down();
        ris.up(options);
        ris
    }

    fn up(&self, options: &[&str]) {
        let mut command = python("services.py");
        command.args(["--steps", "--port", &self.port.to_string()]).args(options);
        let (mut program, _) = Program::listening(command.stdin(Stdio::piped()));
        let said = self.said.clone();
        program.each(move |line| {
            let line = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            said.lock().expect("no panic").push(line);
        });
        *self.program.lock().expect("no panic") = Some(program);
    }

    fn kill(&self) {
        drop(self.program.lock().expect("no panic").take());
    }

    /// What it was asked, in order: what, of which step, and its answer.
    fn asked(&self) -> Vec<(String, String, String)> {
        let said = self.said.lock().expect("no panic");
        let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        said.iter().map(|l| (word(l, "do"), word(l, "instance"), word(l, "status"))).collect()
    }

    /// The same of one step, without its UID.
    fn asked_of(&self, step: &str) -> Vec<(String, String)> {
        let own = self.asked().into_iter().filter(|(_, instance, _)| instance == step);
        own.map(|(what, _, status)| (what, status)).collect()
    }

    fn line(&self, n: usize) -> Value {
        self.said.lock().expect("no panic")[n].clone()
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(what, status)| ((*what).into(), (*status).into())).collect()
}

fn plan(site: &Site, receivers: &[(&str, u16)]) -> Plan {
    let plan = site
        .lone()
        .orders()
        .set("orders", "settle = \"1s\"\nquiet = \"1h\"\nexpected = false")
        .folder_destination("folder")
        .route_all("folder");
    receivers.iter().fold(plan, |plan, (name, port)| {
        let body = format!(
            "name = {name:?}\naddress = \"127.0.0.1:{port}\"\nae_title = \"FOREIGN\"\n\
             calling_ae = \"CT1\""
        );
        plan.table("orders.steps.pass_on_to", &body)
    })
}

/// A receiver of `/status`.
fn standing(node: &Node, name: &str) -> Value {
    let status = node.status();
    let all = status["steps"].as_array().expect("receivers of steps").clone();
    all.into_iter().find(|s| s["receiver"] == name).unwrap_or_default()
}

fn wait_told(node: &Node, name: &str) {
    until("every request is told", || {
        let s = standing(node, name);
        s["open"] == 0 && s["up"] == true
    });
}

#[test]
fn a_step_goes_on_to_the_ris_in_order_and_complete_with_three_thousand_images() {
    let site = Site::new();
    let ris = Ris::start(&[]);
    let node = plan(&site, &[("ris", ris.port)]).start();
    let study = new_study();
    let step = format!("{study}.99");
    let mut first = begun(&study);
    first["SpecificCharacterSet"] = json!(["", "ISO 2022 IR 87"]);
    first["PatientName"] = json!("Yamada^Tarou=山田^太郎");
    let images = ended(&study, "COMPLETED", 1..3001);
    let between = json!({ "PerformedProcedureStepDescription": "HEAD" });
    let requests = [create(&step, &first), set(&step, &between), set(&step, &images)];
    assert_eq!(ask(&node, &requests), ["0000"; 3]);
    // The modality is answered as before, and what came to nothing is not passed on.
    assert_eq!(ask(&node, &requests[..1]), ["0111"]);
    wait_told(&node, "ris");
    let told = pairs(&[("create", "0000"), ("set", "0000"), ("set", "0000")]);
    assert_eq!(ris.asked_of(&step), told);
    assert_eq!(ris.line(0)["data"]["PatientName"], "Yamada^Tarou=山田^太郎");
    assert_eq!(ris.line(0)["data"]["SpecificCharacterSet"], "['', 'ISO 2022 IR 87']");
    assert_eq!((&ris.line(0)["calling"], &ris.line(1)["data"]), (&json!("CT1"), &between));
    let series = &ris.line(2)["data"]["PerformedSeriesSequence"][0];
    let named = series["ReferencedImageSequence"].as_array().expect("images");
    let uids: Vec<&str> =
        named.iter().filter_map(|i| i["ReferencedSOPInstanceUID"].as_str()).collect();
    let sent: Vec<String> = (1..3001).map(|n| Object::new(&study, n, 8).sop).collect();
    assert_eq!(uids, sent, "all of them, in order");
    node.reaches("hikyaku_steps_passed_total", &["taken"], 2.5);
    let words = text(&node.cli(&["status"]).stdout);
    assert!(words.contains("STEPS TO") && words.contains("ris"), "{words}");
    assert!(!node.log().contains("Yamada"), "no name in the log");
}

#[test]
fn steps_that_were_answered_reach_a_ris_that_was_down_once_each_though_the_node_was_killed() {
    let site = Site::new();
    let (ris, other) = (Ris::down(), Ris::start(&[]));
    let node = plan(&site, &[("ris", ris.port), ("other", other.port)]).start();
    let studies: Vec<String> = (0..4).map(|_| new_study()).collect();
    let step = |study: &String| format!("{study}.99");
    for study in &studies {
        let requests = [
            create(&step(study), &begun(study)),
            set(&step(study), &ended(study, "COMPLETED", 1..2500)),
        ];
        assert_eq!(ask(&node, &requests), ["0000"; 2]);
        node.kill();
        node.start();
    }
    // The one that is down keeps nobody waiting.
    wait_told(&node, "other");
    until("it is told that the RIS is down", || {
        let s = standing(&node, "ris");
        s["open"] == 8 && s["up"] == false && s["last_error"].is_string()
    });
    node.kill();
    // Delete the ledger at any moment: what is owed is in the logs.
    std::fs::remove_dir_all(node.data().join("ledger")).expect("a ledger");
    node.start();
    ris.up(&[]);
    wait_told(&node, "ris");
    for study in &studies {
        assert_eq!(ris.asked_of(&step(study)), pairs(&[("create", "0000"), ("set", "0000")]));
        let mut taken = other.asked_of(&step(study));
        taken.retain(|(_, status)| status == "0000");
        assert_eq!(taken, pairs(&[("create", "0000"), ("set", "0000")]), "known is tolerated");
    }
    // Nothing is left to be told by a later life.
    node.restart();
    until("it has looked", || standing(&node, "ris")["open"] == 0);
    assert_eq!(ris.asked().len(), 8);
}

#[test]
fn answers_that_are_lost_make_no_step_twice_and_a_ris_that_lost_a_step_is_told_all_of_it_again() {
    let site = Site::new();
    let ris = Ris::start(&["--abort-first", "2"]);
    let node = plan(&site, &[("ris", ris.port)]).start();
    let study = new_study();
    let step = format!("{study}.99");
    assert_eq!(ask(&node, &[create(&step, &begun(&study))]), ["0000"]);
    until("it is asked again", || ris.asked().len() >= 2);
    assert_eq!(ask(&node, &[set(&step, &ended(&study, "COMPLETED", 1..3))]), ["0000"]);
    wait_told(&node, "ris");
    let asked = ris.asked_of(&step);
    assert_eq!(asked[0], ("create".into(), "0000".into()));
    assert!(asked[1..].iter().all(|(_, status)| ["0111", "0000"].contains(&status.as_str())));
    assert_eq!(asked.last(), Some(&("set".into(), "0000".into())), "{asked:?}");

    ris.kill();
    ris.up(&["--forget"]);
    let study = new_study();
    let step = format!("{study}.99");
    let requests = [create(&step, &begun(&study)), set(&step, &ended(&study, "COMPLETED", 1..3))];
    assert_eq!(ask(&node, &requests), ["0000"; 2]);
    until("all of it is told again", || ris.asked_of(&step).len() >= 4);
    wait_told(&node, "ris");
    let told = [("create", "0000"), ("set", "0112"), ("create", "0000"), ("set", "0000")];
    assert_eq!(ris.asked_of(&step), pairs(&told));
}

#[test]
fn a_ris_that_refuses_a_step_for_good_is_told_of_and_holds_up_no_other_step_until_it_is_given_up() {
    let site = Site::new();
    let ris = Ris::start(&["--status", "0106"]);
    let node = plan(&site, &[("ris", ris.port)]).set("orders.steps", "give_up = \"4s\"").start();
    let (bad, good) = (new_study(), new_study());
    let step = |study: &String| format!("{study}.99");
    assert_eq!(ask(&node, &[create(&step(&bad), &begun(&bad))]), ["0000"]);
    until("it is told", || standing(&node, "ris")["refused"] == 1);
    assert_eq!(standing(&node, "ris")["last_error"], "it answers 0106");
    assert!(node.log().contains("a step is refused"), "{}", node.tail());
    node.reaches("hikyaku_steps_refused", &["ris"], 0.5);
    ris.kill();
    ris.up(&[]);
    // The refused one is in its pause; the other one goes.
    let requests = [
        create(&step(&good), &begun(&good)),
        set(&step(&good), &ended(&good, "DISCONTINUED", 0..0)),
    ];
    assert_eq!(modality(node.port(Port::Dicom), &json!(requests)).len(), 2);
    until("the other one is told", || ris.asked_of(&step(&good)).len() == 2);
    // What was refused is tried again, and is taken once the RIS has mended itself.
    until("the first is taken", || ris.asked_of(&step(&bad)).last().is_some_and(|a| a.1 == "0000"));
    until("it is settled", || standing(&node, "ris")["refused"] == 0);

    ris.kill();
    ris.up(&["--status", "0124"]);
    let lost = new_study();
    assert_eq!(ask(&node, &[create(&step(&lost), &begun(&lost))]), ["0000"]);
    until("it is given up", || standing(&node, "ris")["given_up"] == 1);
    assert!(node.log().contains("a step is given up"), "{}", node.tail());
    node.restart();
    until("that is remembered", || standing(&node, "ris")["given_up"] == 1);
    assert_eq!(standing(&node, "ris")["open"], 0);
}
