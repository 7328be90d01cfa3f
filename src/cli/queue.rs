//! `hikyaku queue`: duties, and people's decisions about them.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::ask::{ask, cell};
use super::table::{bytes, say, table};
use super::{Failure, Outcome, Target, print_json};
use crate::cargo::DestinationName;
use crate::custody::Action;
use crate::dicom::correct::{CORRECTED, NOT_CORRECTED};

/// `hikyaku queue …`
#[derive(Debug, Subcommand)]
pub(super) enum Queue {
    /// List duties: owed, held and quarantined ones unless a state is named
    ///
    /// Example: hikyaku queue list --destination reading-pacs --state quarantined
    List(List),
    /// Send again: what is quarantined, held, dismissed or even receipted becomes owed
    ///
    /// Bytes must still be here: after retention only the tombstone is left.
    ///
    /// Example: hikyaku queue retry --destination reading-pacs --state quarantined
    Retry(Decide),
    /// Keep owed duties back until they are released
    ///
    /// Example: hikyaku queue hold --study 1.2.840.1 --reason "wrong patient?"
    Hold(Decide),
    /// Let held duties go
    ///
    /// Those that a rule holds, those that a person held, and later versions of a known image.
    Release(Decide),
    /// Decide that held or quarantined duties will not be sent; the bytes go after retention
    ///
    /// What is owed must be held first. `retry` takes a dismissal back while the bytes are here.
    Dismiss(Decide),
}

#[derive(Debug, Clone, Args)]
struct Which {
    /// Only duties to this destination
    #[arg(long, value_name = "NAME", value_parser = destination)]
    destination: Option<DestinationName>,
    /// Only duties in this state
    #[arg(long, value_parser = ["owed", "held", "receipted", "quarantined", "dismissed"])]
    state: Option<String>,
    /// Only duties of this study (Study Instance UID)
    #[arg(long, value_name = "UID")]
    study: Option<String>,
    /// Only duties of this piece of cargo, by its number
    #[arg(long, value_name = "NUMBER")]
    cargo: Option<u64>,
}

fn destination(s: &str) -> Result<DestinationName, String> {
    s.parse().map_err(|e: crate::cargo::NameError| e.to_string())
}

impl Which {
    fn filter(&self, limit: Option<usize>) -> Value {
        json!({
            "destination": self.destination,
            "state": self.state,
            "study": self.study,
            "cargo": self.cargo,
            "limit": limit,
        })
    }

    const fn names_nothing(&self) -> bool {
        self.destination.is_none()
            && self.state.is_none()
            && self.study.is_none()
            && self.cargo.is_none()
    }
}

/// `hikyaku queue list`
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    which: Which,
    /// At most this many pieces of cargo
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    target: Target,
}

/// A decision.
#[derive(Debug, Args)]
pub(super) struct Decide {
    #[command(flatten)]
    which: Which,
    /// All duties to which it can apply
    #[arg(long)]
    all: bool,
    /// Why; recorded with the system user
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    target: Target,
}

impl Queue {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::List(list) => list.run(),
            Self::Retry(decide) => decide.run(Action::Retry),
            Self::Hold(decide) => decide.run(Action::Hold),
            Self::Release(decide) => decide.run(Action::Release),
            Self::Dismiss(decide) => decide.run(Action::Dismiss),
        }
    }
}

impl List {
    fn run(self) -> Outcome {
        let filter = self.which.filter(Some(self.limit));
        let cargo: Vec<Value> = ask(&self.target, Method::POST, "/list", Some(&filter))?;
        if self.target.json {
            return print_json(&cargo);
        }
        if cargo.is_empty() {
            return say("nothing");
        }
        say(&words(&cargo))
    }
}

/// One line for each duty, with what became of it beyond.
pub(super) fn words(cargo: &[Value]) -> String {
    let mut rows = Vec::new();
    for piece in cargo {
        let duties = piece["duties"].as_array().map_or(&[][..], Vec::as_slice);
        let front = |row: &mut Vec<String>| {
            row.push(cell(&piece["cargo"]));
            row.push(bytes(piece["length"].as_u64().unwrap_or(0)));
        };
        if duties.is_empty() {
            let mut row = Vec::new();
            front(&mut row);
            let conflict = piece["conflict"] == true;
            let word = if conflict { "conflict" } else { "unrouted" };
            row.extend(["-".into(), "-".into(), word.into(), String::new()]);
            row.push(key(piece));
            rows.push(row);
        }
        for duty in duties {
            let mut row = Vec::new();
            front(&mut row);
            let state = match duty["in_flight"] == true {
                true => "in flight".into(),
                false => cell(&duty["state"]),
            };
            row.extend([cell(&duty["destination"]), cell(&duty["urgency"]), state]);
            row.push(Some(why(duty)).filter(|w| !w.is_empty()).unwrap_or_else(|| corrected(piece)));
            row.push(key(piece));
            rows.push(row);
        }
    }
    table(&["CARGO", "SIZE", "DESTINATION", "URGENCY", "STATE", "WHY", "SOP INSTANCE"], &rows)
}

/// The SOP Instance UID of an image; of all else what it is, too.
fn key(piece: &Value) -> String {
    match piece["kind"].as_str() {
        Some("image") | None => cell(&piece["key"]),
        Some(kind) => format!("{kind} {}", cell(&piece["key"])),
    }
}

/// That it was corrected as its order says, or could not be.
fn corrected(piece: &Value) -> String {
    let flags = piece["flags"].as_array().map_or(&[][..], Vec::as_slice);
    let says = |f: &&str| f.starts_with(CORRECTED) || f.starts_with(NOT_CORRECTED);
    flags.iter().filter_map(Value::as_str).find(says).unwrap_or_default().to_owned()
}

fn why(duty: &Value) -> String {
    let mut parts = Vec::new();
    if duty["attempt"].as_u64().unwrap_or(0) > 0 {
        parts.push(format!("tries {}", duty["attempt"]));
    }
    parts.extend(duty["reason"].as_str().map(str::to_owned));
    parts.extend(duty["by"].as_str().map(|by| format!("by {by}")));
    for beyond in duty["beyond"].as_array().map_or(&[][..], Vec::as_slice) {
        let to = cell(&beyond["destination"]);
        parts.push(format!("beyond: {} at {to}", cell(&beyond["state"])));
    }
    parts.join("; ")
}

impl Decide {
    fn run(self, action: Action) -> Outcome {
        if self.which.names_nothing() && !self.all {
            return Err(Failure::Usage(
                "name the duties with --cargo, --study, --destination or --state, or say --all"
                    .into(),
            ));
        }
        let decision = json!({
            "filter": self.which.filter(None),
            "action": action,
            "reason": self.reason,
        });
        let answer: Value = ask(&self.target, Method::POST, "/decide", Some(&decision))?;
        if self.target.json {
            return print_json(&answer);
        }
        match answer["changed"].as_u64() {
            Some(0) | None => Err(Failure::Failed("no duty is in a state for that".into())),
            Some(n) => say(&format!("{n} duties changed")),
        }
    }
}
