//! Other systems at the API. The client is curl, over TLS, as a stranger would write it; and
//! schemathesis, which calls whatever the description names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::ending::Program;
use crate::evidence::{ask as say_step, begun, create, ended, set};
use crate::foreign::python_module;
use crate::rogue::Authority;
use crate::sender::{Object, new_study, send_study};
use crate::site::{
    HOSPITAL, Node, PATIENCE, Plan, Port, READING, Site, hikyaku, run, run_ok, text, until,
};
use crate::{ending, foreign, ports};

const ALL: &str = "\"read-orders\", \"write-orders\", \"read-missing\", \"read-studies\", \
                   \"link-studies\", \"read-reports\", \"write-reports\", \"acknowledge\", \
                   \"read-notes\", \"write-notes\"";

/// What a caller of one node's API knows.
pub(crate) struct Caller {
    node: String,
    port: u16,
    dir: PathBuf,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Answer {
    /// The value of a header; empty when it is not there.
    fn header(&self, name: &str) -> &str {
        let of = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        let line = self.head.lines().find(of).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value.trim())
    }
}

impl Caller {
    /// Adds the API with TLS to a plan, and one client with all rights: `ris`, by token.
    pub(crate) fn at(plan: Plan, site: &Site, node: &str) -> (Plan, Self) {
        let caller = Self { node: node.into(), port: ports::free(), dir: site.path().to_owned() };
        let tls = format!(
            "certificate = \"pki/{node}.crt\"\nkey = \"pki/{node}.key\"\ntrust = \"pki/ca.crt\""
        );
        caller.token("ris");
        let plan = plan
            .set("api", &format!("listen = \"127.0.0.1:{}\"", caller.port))
            .set("api.tls", &tls)
            .table("api.client", &client("ris", ALL))
            // Someone has a certificate, in every test.
            .table(
                "api.client",
                "name = \"portal\"\ncertificate = \"portal\"\nmay = [\"read-missing\"]",
            );
        (plan, caller)
    }

    /// Makes the token of a client, where there is none.
    pub(crate) fn token(&self, client: &str) -> PathBuf {
        let path = self.dir.join(format!("{client}.token"));
        if !path.exists() {
            run_ok(hikyaku().args(["api", "token"]).arg(&path));
        }
        path
    }

    /// curl with these words, on this path.
    pub(crate) fn curl(&self, words: &[&str], path: &str) -> Result<Answer, String> {
        let base = format!("https://{}:{}{path}", self.node, self.port);
        let to = format!("{}:{}:127.0.0.1:{}", self.node, self.port, self.port);
        let mut command = Command::new("curl");
        command.args(["-sS", "--http1.1", "--max-time", "90", "-D", "/dev/stderr", "--connect-to"]);
        command.arg(to).arg("--cacert").arg(self.dir.join("pki/ca.crt")).args(words).arg(base);
        let output = run(&mut command);
        let (body, head) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            return Err(head);
        }
        // An interim answer (100 Continue) stands before the last one.
        let last = head.rfind("HTTP/1.1 ").map_or("", |at| &head[at..]).to_owned();
        let code = last.split(' ').nth(1).and_then(|c| c.parse().ok()).expect("a status");
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        Ok(Answer { code, head: last, body })
    }

    pub(crate) fn call(&self, client: &str, words: &[&str], path: &str) -> Answer {
        let token = fs::read_to_string(self.token(client)).expect("a token");
        let token = token.lines().last().expect("a line").to_owned();
        let header = format!("Authorization: Bearer {token}");
        self.curl(&[&["-H", &header], words].concat(), path).expect("an answer")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("ris", &[], path)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_as("ris", path, body)
    }

    pub(crate) fn post_as(&self, client: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let words = ["-H", "Content-Type: application/json", "--data-binary", &body];
        self.call(client, &words, path)
    }
}

pub(crate) fn client(name: &str, may: &str) -> String {
    format!("name = {name:?}\ntoken = \"{name}.token\"\nmay = [{may}]")
}

fn lone(site: &Site) -> Plan {
    site.lone().orders().folder_destination("folder").route_all("folder")
}

fn start(site: &Site) -> (Node, Caller) {
    let (plan, caller) = Caller::at(lone(site), site, "lone");
    (plan.start(), caller)
}

#[test]
fn an_order_that_is_posted_meets_its_images_and_both_nodes_list_what_lacks() {
    let site = Site::new();
    let (plan, centre) = Caller::at(site.reading().orders(), &site, READING);
    let plan = plan.set("orders", "expected = false").folder_destination("pacs").route_all("pacs");
    let reading = plan.start();
    let plan = site.hospital(reading.port(Port::Tunnel)).orders();
    let (plan, portal) = Caller::at(plan, &site, HOSPITAL);
    let hospital = plan.set("orders", "settle = \"1s\"\nquiet = \"1h\"").start();

    let study = new_study();
    let order = json!({ "number": "P 1/a", "study": study, "patient_id": "ORACLE",
                        "modality": "CT", "reason": "頭部打撲" });
    let posted = portal.post("/orders", &order);
    assert_eq!(posted.code, 201, "{posted:?}");
    assert_eq!(posted.header("location"), "/orders/P%201%2Fa");
    let step = format!("{study}.99");
    assert_eq!(say_step(&hospital, &[create(&step, &begun(&study))]), ["0000"]);
    send_study(&hospital, &study, 1..5);
    let ended = ended(&study, "COMPLETED", 1..6);
    assert_eq!(say_step(&hospital, &[set(&step, &ended)]), ["0000"]);

    let lacks = Object::new(&study, 5, 8).sop;
    for caller in [&portal, &centre] {
        until("the gap is listed", || {
            let missing = caller.get("/missing?attention=short");
            assert_eq!(missing.code, 200, "{missing:?}");
            let row = &missing.body[0];
            row["study"] == study.as_str() && row["lacking"] == json!([lacks])
        });
        let row = caller.get("/missing").body[0].clone();
        assert_eq!((&row["order"], &row["origin"]), (&"P 1/a".into(), &HOSPITAL.into()));
        assert_eq!(row["headline"], "short");
        for language in ["en", "ja"] {
            assert!(row["reason"][language].is_string() && row["action"][language].is_string());
        }
        assert_eq!(caller.get("/missing?attention=overdue").body, json!([]));
        let shown = caller.get("/orders/P%201%2Fa");
        assert_eq!(shown.body[0]["content"]["clinical"]["reason"], "頭部打撲", "{shown:?}");
        let shown = caller.get(&format!("/studies/{study}"));
        assert_eq!(shown.body["cargo"].as_array().map(Vec::len), Some(4), "{shown:?}");
        assert_eq!(shown.body["cases"][0]["missing"][0]["sop"], lacks.as_str());
    }
    // The documents are those of the command line.
    let listed: Value =
        serde_json::from_slice(&hospital.cli(&["missing", "--json"]).stdout).unwrap();
    assert_eq!(portal.get("/missing").body, listed);
    assert_eq!(portal.get("/orders").body, hospital.ask(&["orders"]));
    // Only the node that took an order changes it.
    let there = centre.post("/orders/P%201%2Fa/cancel", &json!({ "reason": "no" }));
    assert_eq!(there.code, 404, "{there:?}");
    send_study(&hospital, &study, 5..6);
    for caller in [&portal, &centre] {
        until("nothing lacks", || caller.get("/missing").body == json!([]));
    }
}

#[test]
fn an_order_that_was_answered_with_201_is_there_after_a_kill() {
    let site = Site::new();
    let (node, portal) = start(&site);
    for n in 0..3 {
        let number = format!("P{n}");
        let posted = portal.post("/orders", &json!({ "number": number, "accession": "A1" }));
        node.kill();
        assert_eq!(posted.code, 201, "{posted:?}");
        node.start();
        let shown = portal.get(posted.header("location"));
        assert_eq!(shown.body[0]["content"]["accession"]["id"], "A1", "{shown:?}");
        assert_eq!(shown.body[0]["key"]["number"], number);
    }
}

#[test]
fn the_same_order_twice_is_one_order_and_no_second_message() {
    let site = Site::new();
    let (node, portal) = start(&site);
    let order = json!({ "number": "P1", "patient_id": "4711", "modality": "CT" });
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..6).map(|_| scope.spawn(|| portal.post("/orders", &order).code)).collect();
        all.into_iter().map(|t| t.join().expect("an answer")).collect()
    });
    assert_eq!(codes.iter().filter(|c| **c == 201).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|c| **c == 200).count(), 5, "{codes:?}");
    let before = portal.get("/orders/P1").body[0].clone();
    assert_eq!(
        (&before["version"], before["story"].as_array().map(Vec::len)),
        (&json!(1), Some(1))
    );
    assert_eq!(before["source"], "api/ris");
    node.restart();
    let again = portal.post("/orders", &order);
    assert_eq!((again.code, &again.body["how"]), (200, &"same".into()), "{again:?}");
    assert_eq!(again.body["order"], portal.get("/orders/P1").body[0]);
    assert_eq!(portal.get("/orders/P1").body[0]["version"], 1);
    // Other content changes it, and what is left out stays.
    let more = portal.post("/orders", &json!({ "number": "P1", "contact": "内線 4321" }));
    assert_eq!((more.code, &more.body["how"]), (200, &"changed".into()), "{more:?}");
    assert_eq!(more.body["order"]["content"]["modality"], "CT");
    // What was cancelled does not come back because it is sent once more.
    let why = json!({ "reason": "患者帰宅" });
    for _ in 0..2 {
        assert_eq!(portal.post("/orders/P1/cancel", &why).code, 200);
    }
    let late = portal.post("/orders", &order);
    assert_eq!((late.code, &late.body["type"]), (409, &"/problems/order-ended".into()), "{late:?}");
    let shown = portal.get("/orders/P1").body[0].clone();
    assert_eq!(
        (&shown["state"], &shown["ended_because"]),
        (&"cancelled".into(), &"患者帰宅".into())
    );
    assert_eq!(shown["story"].as_array().map(Vec::len), Some(3), "{shown}");
    let wanted = portal.post("/orders", &json!({ "number": "P1", "again": true }));
    assert_eq!((wanted.code, &wanted.body["order"]["state"]), (201, &"requested".into()));
    assert_eq!(portal.post("/orders/NONE/cancel", &json!({})).code, 404);
    // A person at the node may enter it again without more ado.
    assert_eq!(portal.post("/orders/P1/cancel", &json!({})).code, 200);
    assert!(node.cli(&["order", "add", "P1"]).status.success());
    assert_eq!(portal.get("/orders/P1").body[0]["state"], "requested");
}

#[test]
fn every_fault_of_an_order_is_named_at_once_and_japanese_text_comes_back_exactly() {
    let site = Site::new();
    let (node, portal) = start(&site);
    let wrong = json!({ "study": "x", "birth_date": "1.1.1950", "sex": "male",
                        "scheduled": "tomorrow", "history": "SECRET\u{7}" });
    let faults = |answer: &Answer| -> Vec<String> {
        let all = answer.body["faults"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<String> =
            all.iter().map(|f| f["field"].as_str().expect("a field").to_owned()).collect();
        all.sort();
        all
    };
    let answer = portal.post("/orders", &wrong);
    assert_eq!(answer.code, 422, "{answer:?}");
    let all = ["birth_date", "history", "number", "scheduled", "sex", "study"];
    assert_eq!(faults(&answer), all, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.body["next"].as_str().is_some_and(|n| !n.is_empty()));
    let answer = portal.post("/orders", &json!({ "number": 1, "colour": "red" }));
    assert_eq!((answer.code, faults(&answer)), (422, vec!["colour".into(), "number".into()]));
    for odd in ["[]", "", "{", "\"x\"", "{\"number\":\"1\",\"number\":\"2\"}"] {
        let words = ["-H", "Content-Type: application/json", "--data-binary", odd];
        let answer = portal.call("ris", &words, "/orders");
        assert_eq!(answer.code, 400, "{odd}: {answer:?}");
    }
    let words = ["--data-binary", "number=P1"];
    assert_eq!(portal.call("ris", &words, "/orders").code, 415);
    for query in ["limit=0", "limit=x", "state=odd", "cursor=odd", "colour=red", "attention=short"]
    {
        let answer = portal.get(&format!("/orders?{query}"));
        assert!([400, 422].contains(&answer.code), "{query}: {answer:?}");
    }
    assert_eq!(portal.get("/missing?attention=due").code, 422, "that needs no attention");
    let (name, history) =
        ("Takahashi^Ichiro=髙橋^一郎=たかはし^いちろう", "𠮷野家\n①㈱ ｱﾚﾙｷﾞｰ～－\t“é”");
    let order = json!({ "number": "受付-1", "patient_name": name, "history": history });
    let posted = portal.post("/orders", &order);
    assert_eq!(posted.code, 201, "{posted:?}");
    let shown = portal.get(posted.header("location")).body[0].clone();
    assert_eq!(shown["content"]["patient"]["names"], json!([name]));
    assert_eq!(shown["content"]["clinical"]["history"], history);
    assert_eq!(node.ask(&["order", "show", "受付-1"])[0], shown);
    let log = node.log();
    assert!(!log.contains("髙橋") && !log.contains("𠮷野") && !log.contains("SECRET"), "{log}");
}

#[test]
fn pages_of_a_listing_hold_every_row_once() {
    let site = Site::new();
    let (node, portal) = start(&site);
    for n in 0..7 {
        assert!(node.cli(&["order", "add", &format!("P/{n}")]).status.success());
    }
    let mut numbers = Vec::new();
    let mut path = "/orders?limit=3&state=due".to_owned();
    loop {
        let page = portal.get(&path);
        assert_eq!(page.code, 200, "{page:?}");
        let rows = page.body.as_array().expect("rows");
        numbers.extend(rows.iter().map(|r| r["order"].as_str().expect("a number").to_owned()));
        match page.header("link").strip_prefix('<').and_then(|l| l.split_once(">; rel=\"next\"")) {
            Some((next, "")) => path = next.to_owned(),
            _ => break,
        }
    }
    assert_eq!(numbers, (0..7).map(|n| format!("P/{n}")).collect::<Vec<_>>());
    assert_eq!(portal.get("/orders?state=short").body, json!([]));
}

#[test]
fn each_call_needs_its_right_no_other_gives_it_and_the_audit_names_the_client() {
    let site = Site::new();
    let (mut plan, caller) = Caller::at(lone(&site), &site, "lone");
    let rights: Vec<&str> = ALL.split(", ").collect();
    for right in &rights {
        let (own, rest) = (right.trim_matches('"'), rights.iter().filter(|r| *r != right));
        let others = rest.copied().collect::<Vec<_>>().join(", ");
        caller.token(&format!("only-{own}"));
        caller.token(&format!("not-{own}"));
        plan = plan.table("api.client", &client(&format!("only-{own}"), right));
        plan = plan.table("api.client", &client(&format!("not-{own}"), &others));
    }
    let node = plan.start();
    let study = new_study();
    send_study(&node, &study, 1..2);
    until("it is judged", || node.standing(&study)["headline"] == "no-order");
    let order = json!({ "number": "P1", "patient_id": "SECRET" });
    assert_eq!(caller.post("/orders", &order).code, 201);
    let (show, link) = (format!("/studies/{study}"), format!("/studies/{study}/link"));
    let calls = [
        ("read-orders", "/orders", None),
        ("read-orders", "/orders/P1", None),
        ("write-orders", "/orders", Some(order)),
        ("write-orders", "/orders/P1/cancel", Some(json!({}))),
        ("read-missing", "/missing", None),
        ("read-studies", &show, None),
        ("link-studies", &link, Some(json!({ "order": "P1" }))),
    ];
    for (right, path, body) in &calls {
        let ask = |client: String| match body {
            Some(body) => caller.post_as(&client, path, body),
            None => caller.call(&client, &[], path),
        };
        let with = ask(format!("only-{right}"));
        assert_eq!(with.code, 200, "{right} {path}: {with:?}");
        if path == &"/orders" && body.is_some() {
            assert_eq!(with.body["order"], Value::Null, "who may not read learns nothing");
        }
        let without = ask(format!("not-{right}"));
        assert_eq!(without.code, 403, "{right} {path}: {without:?}");
        assert_eq!(without.body["type"], "/problems/missing-right");
        assert!(without.body["detail"].as_str().is_some_and(|d| d.contains(right)), "{without:?}");
    }
    assert_eq!(caller.call("only-read-missing", &[], "/status").body["node"], "lone");
    assert!(!caller.get("/status").body.to_string().contains("SECRET"));
    assert_eq!(caller.get("/nothing").code, 404);
    let odd = caller.call("ris", &["-X", "DELETE"], "/orders");
    assert_eq!((odd.code, odd.header("cache-control")), (405, "no-store"), "{odd:?}");
    assert!(odd.header("allow").contains("POST"), "{odd:?}");
    let log = node.log();
    let line = |client: &str, what: &str| {
        log.lines().any(|l| l.contains("audit") && l.contains(client) && l.contains(what))
    };
    assert!(line("api/only-read-orders", "concerns=\"order P1\""), "{log}");
    assert!(line("api/only-link-studies", &study), "{log}");
    assert!(line("api/not-write-orders", "without the right"), "{log}");
    assert!(!log.contains("SECRET"));
    let labels = ["client=\"only-read-missing\"", "call=\"GET /missing\"", "status=\"200\""];
    node.reaches("hikyaku_api_requests_total", &labels, 0.5);
}

#[test]
fn a_token_is_changed_and_withdrawn_by_a_reload_and_a_wrong_one_is_slowed_down() {
    let site = Site::new();
    let (node, portal) = start(&site);
    let path = portal.token("ris");
    let old = fs::read_to_string(&path).expect("a token");
    let with = |token: &str| {
        let header = format!("Authorization: Bearer {}", token.trim());
        portal.curl(&["-H", &header], "/orders").expect("an answer")
    };
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    // Made once, shown never.
    let again = run(hikyaku().args(["api", "token"]).arg(&path));
    assert_eq!(again.status.code(), Some(1));
    let said = run_ok(hikyaku().args(["api", "token", "--add"]).arg(&path));
    let both = fs::read_to_string(&path).expect("tokens");
    let new = both.lines().nth(1).expect("a second token").to_owned();
    assert!(both.starts_with(&old) && new.len() == 64 && !said.contains(&new), "{said}");
    assert_eq!(with(&new).code, 401, "not before the reload");
    node.ask(&["reload"]);
    assert_eq!((with(&old).code, with(&new).code), (200, 200));
    fs::write(&path, &new).expect("a file");
    node.ask(&["reload"]);
    assert_eq!((with(&old).code, with(&new).code), (401, 200));
    // What is wrong with a file changes nothing.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a file");
    let refused = node.cli(&["reload"]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("every user"), "{}", text(&refused.stderr));
    assert_eq!(with(&new).code, 200);

    let nobody = portal.curl(&[], "/orders").expect("an answer");
    assert_eq!(nobody.code, 401);
    assert_eq!(nobody.header("www-authenticate"), "Bearer realm=\"hikyaku\"");
    let mut codes = Vec::new();
    while !codes.contains(&429) {
        codes.push(with("wrong-wrong-wrong-wrong-wrong-wrong").code);
        assert!(codes.len() < 15, "{codes:?}");
    }
    let many = with("wrong");
    assert!(many.header("retry-after").parse::<u64>().is_ok_and(|s| s <= 60), "{many:?}");
    assert_eq!(with(&new).code, 200, "a right one is answered all the same");
    node.reaches("hikyaku_api_logins_failed_total", &["reason=\"token\""], 10.5);
    let log = node.log();
    assert!(log.contains("login failed") && log.contains("too often"), "{log}");
    assert!(![old.trim(), &new, "wrong-wrong"].iter().any(|t| log.contains(t)), "a token is told");
}

#[test]
fn a_certificate_names_its_client_a_foreign_one_none_and_a_revoked_one_ends_its_connection() {
    let site = Site::new();
    let (node, caller) = start(&site);
    let (own, elsewhere) = (Authority::of(&site), Authority::foreign());
    let write = |name: &str, pair: &hikyaku::tunnel::pki::Pair| {
        let paths = ["crt", "key"].map(|end| site.path().join(format!("{name}.{end}")));
        fs::write(&paths[0], &pair.certificate).expect("a file");
        fs::write(&paths[1], &pair.key).expect("a file");
        paths.map(|path| path.display().to_string())
    };
    let portal = own.issue("portal", 0, 30);
    let with = |[certificate, key]: &[String; 2], path: &str| {
        caller.curl(&["--cert", certificate, "--key", key], path)
    };
    let good = write("portal", &portal);
    assert_eq!(with(&good, "/missing").expect("an answer").code, 200);
    assert_eq!(with(&good, "/orders").expect("an answer").code, 403);
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let words = [&version[..], &["--cert", &good[0], "--key", &good[1]]].concat();
        assert_eq!(caller.curl(&words, "/missing").expect("an answer").code, 200);
    }
    let old = ["--tls-max", "1.1", "--cert", &good[0], "--key", &good[1]];
    assert!(caller.curl(&old, "/missing").is_err());
    let other = write("other", &own.issue("other", 0, 30));
    let nobody = with(&other, "/missing").expect("an answer");
    assert_eq!((nobody.code, &nobody.body["title"]), (401, &"Who calls?".into()));
    let foreign = write("foreign", &elsewhere.issue("portal", 0, 30));
    assert!(with(&foreign, "/missing").is_err(), "the handshake fails");
    let expired = write("expired", &own.issue("portal", 60, 30));
    assert!(with(&expired, "/missing").is_err());
    until("that is counted", || {
        node.metric("hikyaku_api_refused_total", &["reason=\"tls\""]) > 1.5
    });

    // A connection that stands when its certificate is revoked.
    let mut open = foreign::python("api_client.py");
    open.arg(site.pki().join("ca.crt")).args(&good).arg(caller.port.to_string());
    open.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut open = Program::start(&mut open);
    assert_eq!(open.line(PATIENCE), "200");
    own.revoke(&site, &portal);
    node.edit(|plan| plan.set("api.tls", "crl = [\"pki/revoked.crl\"]"));
    node.ask(&["reload"]);
    let input = open.child.stdin.take();
    std::io::Write::write_all(&mut input.expect("its input"), b"again\n").expect("a client");
    assert_eq!(open.line(PATIENCE), "closed");
    ending::status("the client", &mut open.child, PATIENCE);
    assert!(with(&good, "/missing").is_err(), "and none is opened any more");
    assert_eq!(caller.get("/missing").code, 200, "tokens are no concern of the list");
}

#[test]
fn the_description_is_true_by_what_another_program_makes_of_it() {
    let site = Site::new();
    let (plan, caller) = Caller::at(lone(&site).set("reports", ""), &site, "lone");
    let node = plan.start();
    let study = new_study();
    send_study(&node, &study, 1..2);
    assert_eq!(caller.post("/orders", &json!({ "number": "P1", "study": study })).code, 201);
    // A report that waits for a person: nobody knows its study.
    let report = json!({ "study": new_study(), "text": "a", "pdf": "JVBERi0xLjQKJSVFT0YK" });
    assert_eq!(caller.post("/reports", &report).code, 201);
    until("it is held", || caller.get("/held").body[0]["document"].is_string());
    // Over plain HTTP on loopback: what is tried is the calls, not TLS.
    let plain = ports::free();
    assert!(node.stop().success());
    node.edit(|plan| plan.set("api", &format!("listen = \"127.0.0.1:{plain}\"")).unset("api.tls"));
    node.edit(|plan| plan.without("api.client", "portal"));
    node.start();
    let token = fs::read_to_string(caller.token("ris")).expect("a token");
    let mut command = python_module("schemathesis.cli");
    command.args(["run", "--header"]).arg(format!("Authorization: Bearer {}", token.trim()));
    command.args(["--checks", "all", "--max-examples", "20", "--seed", "7"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--no-color"]);
    command.args(["--max-response-time", "20"]).current_dir(site.path());
    // An order is refused also for what no schema says: a date that is none, an order that was
    // ended. And who fails to log in too often gets 429, which it takes for neither yes nor no.
    command.args(["--exclude-checks", "positive_data_acceptance,ignored_auth"]);
    command.arg(format!("http://127.0.0.1:{plain}/openapi.json"));
    let output = run(&mut command);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("passed") || said.contains("generated"), "{said}");
    assert_eq!(node.page("/health").0, 200);
}
