//! Asking a running node: `status`, `studies`, `study`, `reload`.

use std::path::Path;

use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::table::{age, bytes, say, table};
use super::{Failure, Outcome, Target, print_json};
use crate::config::Config;
use crate::ops::control::SOCKET_NAME;
use crate::ops::status::{REPORTS_COUNTED_MAX, Status as StatusDocument};
use crate::orders::worklist::poll::Condition;

/// Longest answer that is believed.
const ANSWER_MAX: usize = 256 << 20;

/// Sends one request to the node of `target` and reads the answer.
pub(super) fn ask<T: DeserializeOwned>(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<T, Failure> {
    let bytes = fetch(target, method, path, body)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::Failed(format!("the node's answer makes no sense: {e}")))
}

/// The same, for what is no JSON.
pub(super) fn fetch(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Bytes, Failure> {
    let config = Config::read(&target.config).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::Usage(words.join("\n"))
    })?;
    let socket = config.0.node.data.join(SOCKET_NAME);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Failed(e.to_string()))?;
    runtime.block_on(exchange(&socket, method, path, body))
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Bytes, Failure> {
    let unreachable = |e: &dyn std::fmt::Display| {
        Failure::Unreachable(format!(
            "the node does not answer on {}: {e}; is it running, and may this user open the socket?",
            socket.display()
        ))
    };
    let stream = UnixStream::connect(socket).await.map_err(|e| unreachable(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable(&e))?;
    tokio::spawn(connection);
    let body = body.map(ToString::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "node")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| Failure::Failed(e.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
    let status = answer.status();
    let limited = http_body_util::Limited::new(answer.into_body(), ANSWER_MAX);
    let collected = limited.collect().await.map_err(|e| Failure::Failed(e.to_string()))?;
    let bytes = collected.to_bytes();
    if status.is_success() {
        return Ok(bytes);
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let lines: Vec<String> = serde_json::from_str(&text).unwrap_or_else(|_| vec![text]);
    Err(Failure::Failed(lines.join("\n")))
}

/// `hikyaku status`
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    target: Target,
}

impl Status {
    pub(super) fn run(self) -> Outcome {
        let status: StatusDocument = ask(&self.target, Method::GET, "/status", None)?;
        if self.target.json {
            return print_json(&status);
        }
        say(&words(&status))
    }
}

fn words(s: &StatusDocument) -> String {
    let mut out = format!(
        "{} (hikyaku {}), up {}: {}\n",
        s.node,
        s.version,
        age(s.uptime_seconds),
        if s.ready { "ready" } else { "NOT READY" }
    );
    for obstacle in &s.obstacles {
        out.push_str(&format!("  ! {obstacle}\n"));
    }
    let spool = &s.spool;
    out.push_str(&format!(
        "spool: {} in {} pieces; {} on disk, watermark {}, {} free\n",
        bytes(spool.present_bytes),
        spool.present,
        bytes(spool.occupied_bytes),
        bytes(spool.watermark_bytes),
        bytes(spool.free_bytes)
    ));
    out.push_str(&format!(
        "unrouted {}, conflicts {}, associations {}\n",
        spool.unrouted, spool.conflicts, s.associations
    ));
    if let Some(orders) = &s.orders {
        out.push_str(&format!(
            "orders: {} open, {} overdue; {} studies short of {} images, {} without an order\n",
            orders.orders.values().sum::<u64>(),
            orders.overdue,
            orders.short,
            orders.missing_instances,
            orders.unmatched
        ));
    }
    if let Some(orders) = s.orders.as_ref().filter(|orders| orders.withdrawn > 0) {
        out.push_str(&format!(
            "  ! images of {} studies were withdrawn, and nobody has acknowledged it (`missing`)\n",
            orders.withdrawn
        ));
    }
    if let Some(reports) = &s.reports {
        out.push_str(&report_words(reports));
    }
    if let Some(notices) = &s.notices {
        out.push_str(&notice_words(notices));
    }
    if let Some(leap) = &spool.clock_leap {
        out.push_str(&format!("  ! {leap}: nothing is deleted until `spool confirm-clock`\n"));
    }
    for finding in &spool.findings {
        out.push_str(&format!("  ! {finding}\n"));
    }
    for torn in &spool.torn {
        out.push_str(&format!("  {torn}\n"));
    }
    let rows: Vec<Vec<String>> = s.destinations.iter().map(destination_row).collect();
    let head = ["DESTINATION", "KIND", "UP", "OWED", "IN FLIGHT", "HELD", "RECEIPTED"];
    let head = [&head[..], &["QUARANTINED", "OLDEST", "LAST ERROR"]].concat();
    out.push('\n');
    out.push_str(&table(&head, &rows));
    if !s.peers.is_empty() {
        let rows: Vec<Vec<String>> = s.peers.iter().map(peer_row).collect();
        out.push_str("\n\n");
        let head = ["TUNNEL TO", "UP", "SINCE", "ADDRESS", "RTT", "LOST", "CERTIFICATE", "REASON"];
        out.push_str(&table(&head, &rows));
    }
    if !s.worklists.is_empty() {
        let rows: Vec<Vec<String>> = s.worklists.iter().map(worklist_row).collect();
        let head = ["WORKLIST", "UP", "ITEMS", "LAST TAKEN WHOLE", "TROUBLE"];
        out.push_str("\n\n");
        out.push_str(&table(&head, &rows));
    }
    if !s.steps.is_empty() {
        let rows: Vec<Vec<String>> = s.steps.iter().map(steps_row).collect();
        out.push_str("\n\n");
        let head = ["STEPS TO", "UP", "OPEN", "OLDEST", "REFUSED", "GIVEN UP", "LAST ERROR"];
        out.push_str(&table(&head, &rows));
    }
    out
}

fn worklist_row(w: &Condition) -> Vec<String> {
    vec![
        w.worklist.clone(),
        yes(w.up),
        w.items.to_string(),
        w.last_success.clone().unwrap_or_else(|| "-".into()),
        w.trouble.clone().unwrap_or_default(),
    ]
}

fn notice_words(n: &crate::orders::notifier::Undelivered) -> String {
    let mut out = match n.waiting {
        0 => "notices: all delivered\n".to_owned(),
        waiting => {
            format!("notices: {waiting} undelivered, the oldest for {}\n", age(n.oldest_seconds))
        }
    };
    if n.given_up > 0 {
        let words = "notices were given up in the last week (`notice list`)";
        out.push_str(&format!("  ! {} {words}\n", n.given_up));
    }
    for error in &n.errors {
        out.push_str(&format!("  ! {error}\n"));
    }
    out
}

fn report_words(r: &crate::ops::status::Reports) -> String {
    let count = |n: usize| match n {
        REPORTS_COUNTED_MAX.. => format!("{n} or more"),
        n => n.to_string(),
    };
    let (held, overdue) = (count(r.held), count(r.overdue));
    let mut out = format!("reports: {held} held, {overdue} studies with something overdue\n");
    if r.critical > 0 {
        let open = count(r.critical);
        out.push_str(&format!("  ! {open} critical results wait for a person (`critical`)\n"));
    }
    out
}

fn steps_row(s: &crate::orders::passing::Standing) -> Vec<String> {
    vec![
        s.receiver.clone(),
        yes(s.up),
        s.open.to_string(),
        if s.open > 0 { age(s.oldest_seconds) } else { "-".into() },
        s.refused.to_string(),
        s.given_up.to_string(),
        s.last_error.clone().unwrap_or_default(),
    ]
}

fn yes(up: Option<bool>) -> String {
    match up {
        Some(true) => "yes".into(),
        Some(false) => "NO".into(),
        None => "-".into(),
    }
}

fn destination_row(d: &crate::ops::status::Destination) -> Vec<String> {
    vec![
        d.destination.to_string(),
        d.kind.clone(),
        yes(d.up),
        d.owed.to_string(),
        d.in_flight.to_string(),
        d.held.to_string(),
        d.receipted.to_string(),
        d.quarantined.to_string(),
        if d.owed > 0 { age(d.oldest_owed_seconds) } else { "-".into() },
        d.last_error.clone().unwrap_or_default(),
    ]
}

fn peer_row(p: &crate::ops::status::Peer) -> Vec<String> {
    vec![
        p.node.to_string(),
        yes(Some(p.up)),
        p.since.clone(),
        p.address.clone().unwrap_or_else(|| "-".into()),
        p.rtt_seconds.map_or("-".into(), |rtt| format!("{:.1} ms", rtt * 1e3)),
        p.lost_packets.to_string(),
        p.certificate_expires.as_ref().map_or("-".into(), |t| format!("until {}", day(t))),
        p.reason.clone(),
    ]
}

fn day(timestamp: &str) -> &str {
    timestamp.split('T').next().unwrap_or(timestamp)
}

/// `hikyaku studies`
#[derive(Debug, Args)]
pub(super) struct Studies {
    #[command(flatten)]
    target: Target,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

impl Studies {
    pub(super) fn run(self) -> Outcome {
        let path = format!("/studies?limit={}", self.limit);
        let studies: Vec<Value> = ask(&self.target, Method::GET, &path, None)?;
        if self.target.json {
            return print_json(&studies);
        }
        let columns = [
            ("last_at", "LAST IMAGE"),
            ("origin", "ORIGIN"),
            ("modality", "MOD"),
            ("accession", "ACCESSION"),
            ("images", "IMAGES"),
            ("owed", "OWED"),
            ("held", "HELD"),
            ("receipted", "RECEIPTED"),
            ("quarantined", "QUARANTINED"),
            ("unrouted", "UNROUTED"),
            ("study", "STUDY"),
        ];
        say(&of_columns(&studies, &columns))
    }
}

/// A table of the named fields.
pub(super) fn of_columns(rows: &[Value], columns: &[(&str, &str)]) -> String {
    let head: Vec<&str> = columns.iter().map(|(_, head)| *head).collect();
    let cells = |row: &Value| columns.iter().map(|(field, _)| cell(&row[*field])).collect();
    table(&head, &rows.iter().map(cells).collect::<Vec<Vec<String>>>())
}

/// A JSON value as a cell.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

/// Whether a node keeps orders, and reports.
#[derive(serde::Deserialize)]
pub(super) struct Keeps {
    orders: Option<Value>,
    #[serde(default)]
    reports: Option<Value>,
}

impl Keeps {
    /// What the node of `target` keeps.
    pub(super) fn of(target: &Target) -> Result<Self, Failure> {
        ask(target, Method::GET, "/status", None)
    }

    /// Whether it keeps reports, and can be asked for them now.
    pub(super) const fn reports(&self) -> bool {
        self.reports.is_some()
    }
}

/// `hikyaku study UID`
#[derive(Debug, Args)]
pub(super) struct Study {
    /// Study Instance UID
    study: String,
    /// Acknowledge that images of this study were withdrawn; recorded with the system user
    #[arg(long)]
    seen: bool,
    #[command(flatten)]
    tongue: super::orders::Tongue,
    #[command(flatten)]
    target: Target,
}

impl Study {
    pub(super) fn run(self) -> Outcome {
        let filter = serde_json::json!({ "study": self.study });
        if self.seen {
            let answer: Value = ask(&self.target, Method::POST, "/seen", Some(&filter))?;
            return match self.target.json {
                true => print_json(&answer),
                false => say(&format!("{} withdrawn images acknowledged", cell(&answer["images"]))),
            };
        }
        let cargo: Vec<Value> = ask(&self.target, Method::POST, "/list", Some(&filter))?;
        let keeps = Keeps::of(&self.target)?;
        let reports = match keeps.reports() {
            true => Some(super::reports::stories(&self.target, &self.study)?),
            false => None,
        };
        let cases: Vec<Value> = match keeps.orders {
            Some(_) => ask(&self.target, Method::POST, "/case", Some(&filter))?,
            None => Vec::new(),
        };
        let notes: Vec<Value> = match keeps.reports() {
            true => super::reports::notes(&self.target, &self.study)?,
            false => Vec::new(),
        };
        let stories = reports.as_deref().unwrap_or_default();
        if cargo.is_empty() && cases.is_empty() && stories.is_empty() {
            return Err(Failure::Failed(format!("no study {} in custody", self.study)));
        }
        if self.target.json {
            let mut document = serde_json::json!({ "cases": cases, "cargo": cargo });
            if let Some(reports) = reports {
                document["reports"] = reports.into();
                document["notes"] = notes.into();
            }
            return print_json(&document);
        }
        for case in &cases {
            let own = stories.iter().filter(|s| s["row"]["target"]["origin"] == case["origin"]);
            let mut case = case.clone();
            case["story"] = super::reports::joined(&case["story"], own);
            say(&format!("{}\n", super::orders::case_words(&case, self.tongue.key())))?;
        }
        let known = |story: &&Value| {
            cases.iter().any(|case| case["origin"] == story["row"]["target"]["origin"])
        };
        for story in stories.iter().filter(|story| !known(story)) {
            say(&format!("{}\n", super::reports::story_words(story)))?;
        }
        if !notes.is_empty() {
            say(&format!("{}\n", super::reports::notes_words(&notes)))?;
        }
        match cargo.is_empty() {
            true => Ok(()),
            false => say(&super::queue::words(&cargo)),
        }
    }
}

/// `hikyaku reload`
#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    target: Target,
}

impl Reload {
    pub(super) fn run(self) -> Outcome {
        let said: Vec<String> = ask(&self.target, Method::POST, "/reload", None)?;
        if self.target.json {
            return print_json(&said);
        }
        say(&said.join("\n"))
    }
}
