//! `hikyaku reports`, `report`, `overdue`, `note`, `notes`: reports, what is owed, and what both sides
//! ask each other.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::ask::{ask, cell, fetch};
use super::orders::Tongue;
use super::table::{say, table};
use super::{Failure, Outcome, Target, print_json};

/// A value in a query.
fn escaped(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// `hikyaku reports`
#[derive(Debug, Args)]
pub(super) struct Reports {
    /// Only of this study or order
    #[arg(long, value_name = "STUDY_OR_ORDER", default_value = "", hide_default_value = true)]
    of: String,
    /// Only documents that wait for a person
    #[arg(long, conflicts_with = "of")]
    held: bool,
    /// At most this many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    tongue: Tongue,
    #[command(flatten)]
    target: Target,
}

impl Reports {
    pub(super) fn run(self) -> Outcome {
        let path = match self.held {
            true => format!("/reports/held?limit={}", self.limit),
            false => format!("/reports?limit={}&of={}", self.limit, escaped(&self.of)),
        };
        let rows: Vec<Value> = ask(&self.target, Method::GET, &path, None)?;
        if self.target.json {
            return print_json(&rows);
        }
        match (rows.is_empty(), self.held) {
            (true, true) => say("no document waits for a person"),
            (true, false) => say("no reports"),
            (false, true) => say(&held_words(&rows, self.tongue.key())),
            (false, false) => say(&rows_words(&rows)),
        }
    }
}

fn rows_words(rows: &[Value]) -> String {
    let row = |r: &Value| {
        let destinations = r["destinations"].as_array().into_iter().flatten();
        let shown = destinations.map(|d| format!("{} {}", cell(&d[0]), cell(&d[1])));
        let target = &r["target"];
        vec![
            cell(&r["report"]),
            cell(&r["status"]),
            cell(&r["versions"]),
            if r["is_signed"] == true { "yes".into() } else { "NO".into() },
            cell(&r["critical"]),
            cell(&r["arrived_at"]),
            cell(&target["origin"]),
            cell(&target["order"]["number"]),
            cell(&target["study"]),
            shown.collect::<Vec<_>>().join(", "),
        ]
    };
    let head = ["REPORT", "STATUS", "VERSIONS", "SIGNED", "CRITICAL", "ARRIVED", "HOSPITAL"];
    let head = [&head[..], &["ORDER", "STUDY", "DESTINATIONS"]].concat();
    table(&head, &rows.iter().map(row).collect::<Vec<_>>())
}

fn held_words(rows: &[Value], tongue: &str) -> String {
    let row = |r: &Value| {
        vec![
            cell(&r["document"]),
            cell(&r["status"]),
            if r["is_critical"] == true { "CRITICAL".into() } else { String::new() },
            cell(&r["arrived_at"]),
            cell(&r["source"]),
            cell(&r["reason"][tongue]),
        ]
    };
    let head = ["DOCUMENT", "STATUS", "CRITICAL", "ARRIVED", "FROM", "WHY"];
    let out = table(&head, &rows.iter().map(row).collect::<Vec<_>>());
    out + &actions(rows, tongue)
}

/// What to do next, once for all that stand alike: below a table.
pub(super) fn actions(rows: &[Value], tongue: &str) -> String {
    let mut all: Vec<String> = rows.iter().map(|r| cell(&r["action"][tongue])).collect();
    all.sort();
    all.dedup();
    format!("\n\n{}", all.join("\n"))
}

/// `hikyaku report …`
#[derive(Debug, Subcommand)]
pub(super) enum Report {
    /// Show everything that is known of a report, or of the reports of a study or order
    Show(Show),
    /// Print a document as text, or write its PDF to a file
    ///
    /// Recorded with the system user: it shows a patient's data.
    Text(Text),
    /// Say to which study or order a document belongs
    ///
    /// STUDY_OR_ORDER is a Study Instance UID or an order number; where two hospitals have the same
    /// number, HOSPITAL/NUMBER. Recorded with the system user.
    Match(Match),
    /// Answer for a document whose signer is not on the list: it goes on
    Release(Document),
    /// Decide that a document goes nowhere; it is kept
    Discard(Discard),
    /// Hand the latest version on again, to every destination
    Again(Again),
    /// Say that nobody waits for a report of a study any more
    Dismiss(Dismiss),
}

/// `hikyaku report show`
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Report, Study Instance UID, or order number
    #[arg(value_name = "REPORT|STUDY|ORDER")]
    of: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku report text`
#[derive(Debug, Args)]
pub(super) struct Text {
    /// Document, as `hikyaku report show` and `hikyaku reports --held` list it
    document: String,
    /// Write the PDF to this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pdf: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku report match`
#[derive(Debug, Args)]
pub(super) struct Match {
    /// Document, as `hikyaku reports --held` lists it
    document: String,
    /// Study Instance UID or order number
    #[arg(value_name = "STUDY_OR_ORDER")]
    to: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku report release`
#[derive(Debug, Args)]
pub(super) struct Document {
    /// Document, as `hikyaku reports --held` lists it
    document: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku report discard`
#[derive(Debug, Args)]
pub(super) struct Discard {
    /// Document, as `hikyaku reports --held` lists it
    document: String,
    /// Why; recorded with the system user
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku report again`
#[derive(Debug, Args)]
pub(super) struct Again {
    /// Report, as `hikyaku reports` lists it
    report: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku report dismiss`
#[derive(Debug, Args)]
pub(super) struct Dismiss {
    /// Study Instance UID
    study: String,
    #[command(flatten)]
    target: Target,
}

impl Report {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Show(show) => show.run(),
            Self::Text(text) => text.run(),
            Self::Match(m) => {
                let body = json!({ "document": m.document, "to": m.to });
                decide(&m.target, "/report/match", &body)
            }
            Self::Release(r) => {
                decide(&r.target, "/report/release", &json!({ "document": r.document }))
            }
            Self::Discard(d) => {
                let body = json!({ "document": d.document, "reason": d.reason });
                decide(&d.target, "/report/discard", &body)
            }
            Self::Again(a) => decide(&a.target, "/report/again", &json!({ "report": a.report })),
            Self::Dismiss(d) => decide(&d.target, "/report/dismiss", &json!({ "study": d.study })),
        }
    }
}

/// Asks for a decision and says what it has come to.
pub(super) fn decide(target: &Target, path: &str, body: &Value) -> Outcome {
    let answer: Value = ask(target, Method::POST, path, Some(body))?;
    match target.json {
        true => print_json(&answer),
        false => say(&cell(&answer["now"])),
    }
}

/// The stories of the reports of a study, order or id.
pub(super) fn stories(target: &Target, of: &str) -> Result<Vec<Value>, Failure> {
    ask(target, Method::POST, "/report", Some(&json!({ "of": of })))
}

impl Show {
    fn run(self) -> Outcome {
        let stories = stories(&self.target, &self.of)?;
        if stories.is_empty() {
            return Err(Failure::Failed(format!("no report of {} is known here", self.of)));
        }
        if self.target.json {
            return print_json(&stories);
        }
        say(&stories.iter().map(story_words).collect::<Vec<_>>().join("\n\n"))
    }
}

/// All that is known of a report.
pub(super) fn story_words(story: &Value) -> String {
    let row = &story["row"];
    let mut out = format!("report {}: {}", cell(&row["report"]), cell(&row["status"]));
    if row["critical"].is_string() {
        out.push_str(&format!(", CRITICAL ({})", cell(&row["critical"])));
    }
    out.push('\n');
    for target in story["targets"].as_array().into_iter().flatten() {
        let order = match target["order"]["number"].as_str() {
            Some(number) => format!(", order {number}"),
            None => String::new(),
        };
        let (study, origin) = (cell(&target["study"]), cell(&target["origin"]));
        out.push_str(&format!("  of study {study}{order} of {origin}\n"));
    }
    out.push_str(&format!("  matched by {}\n", cell(&story["by"])));
    for version in story["versions"].as_array().into_iter().flatten() {
        let signed = if version["is_signed"] == true { "signed" } else { "not signed" };
        let (status, standing) = (cell(&version["status"]), cell(&version["standing"]));
        let (written, arrived) = (cell(&version["written_at"]), cell(&version["arrived_at"]));
        out.push_str(&format!(
            "  version: {status}, {signed}, {standing}; written {written}, arrived {arrived}\n"
        ));
        for document in version["documents"].as_array().into_iter().flatten() {
            let forms = document[1].as_array().into_iter().flatten().map(cell);
            let forms = forms.collect::<Vec<_>>().join(", ");
            out.push_str(&format!("    document {} ({forms})\n", cell(&document[0])));
        }
    }
    for destination in row["destinations"].as_array().into_iter().flatten() {
        out.push_str(&format!("  {}: {}\n", cell(&destination[0]), cell(&destination[1])));
    }
    out.push_str(&super::orders::events(&story["events"]));
    out.trim_end().to_owned()
}

/// What happened to a study or order and to its reports, in the order of time.
pub(super) fn joined<'a>(story: &Value, stories: impl Iterator<Item = &'a Value>) -> Value {
    let events = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let mut all = events(story);
    for story in stories {
        let report = cell(&story["row"]["report"]);
        let short = report.get(..8).unwrap_or(&report).to_owned();
        all.extend(events(&story["events"]).into_iter().map(|mut event| {
            event["what"] = format!("report {short}: {}", cell(&event["what"])).into();
            event
        }));
    }
    // A stable sort: what happened at the same time stays in its order.
    all.sort_by_key(|e| e["at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()));
    all.into()
}

impl Text {
    fn run(self) -> Outcome {
        let form = if self.pdf.is_some() { "pdf" } else { "text" };
        let body = json!({ "document": self.document, "form": form });
        let bytes = fetch(&self.target, Method::POST, "/report/form", Some(&body))?;
        let Some(path) = self.pdf else {
            let text = shown(&String::from_utf8_lossy(&bytes));
            return match self.target.json {
                true => print_json(&json!({ "document": self.document, "text": text })),
                false => say(&text),
            };
        };
        // A patient's data: nobody else may read it, and nothing is overwritten.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        let (path, length) = (path.display().to_string(), bytes.len());
        written.map_err(|e| Failure::Failed(format!("cannot write {path}: {e}")))?;
        match self.target.json {
            true => print_json(&json!({ "document": self.document, "pdf": path, "bytes": length })),
            false => say(&format!("{path}: {length} bytes")),
        }
    }
}

/// Text without what a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// `hikyaku overdue`
#[derive(Debug, Args)]
pub(super) struct Overdue {
    /// All studies in which something is still owed, also what is not due yet
    #[arg(long)]
    all: bool,
    /// At most this many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    tongue: Tongue,
    #[command(flatten)]
    target: Target,
}

impl Overdue {
    pub(super) fn run(self) -> Outcome {
        let path = format!("/loops?limit={}&overdue={}", self.limit, !self.all);
        let rows: Vec<Value> = ask(&self.target, Method::GET, &path, None)?;
        match (self.target.json, rows.is_empty()) {
            (true, _) => print_json(&rows)?,
            (false, true) if self.all => return say("nothing is owed"),
            (false, true) => return say("nothing is overdue"),
            (false, false) => say(&loops_words(&rows, self.tongue.key()))?,
        }
        let late = |r: &&Value| r["overdue"].as_array().is_some_and(|all| !all.is_empty());
        match rows.iter().filter(late).count() {
            0 => Ok(()),
            n => Err(Failure::Found(format!("something is overdue for {n} studies"))),
        }
    }
}

/// The last moment of a loop: how far the report of a study is.
pub(super) fn how_far(row: &Value) -> String {
    row["moments"].as_array().and_then(|all| all.last()).map_or("-".into(), |m| cell(&m[0]))
}

fn loops_words(rows: &[Value], tongue: &str) -> String {
    let row = |r: &Value| {
        let owed = |field: &str| cell(&r[field][0][1]);
        let state = match owed("overdue").as_str() {
            "-" => format!("{} owed", owed("owed")),
            late => format!("{late} OVERDUE"),
        };
        vec![
            state,
            cell(&r["urgency"]),
            how_far(r),
            cell(&r["hospital"]),
            if r["order"] == "" { "-".into() } else { cell(&r["order"]) },
            cell(&r["study"]),
            cell(&r["reason"][tongue]),
        ]
    };
    let head = ["STATE", "URGENCY", "SO FAR", "HOSPITAL", "ORDER", "STUDY", "WHY"];
    let out = table(&head, &rows.iter().map(row).collect::<Vec<_>>());
    out + &actions(rows, tongue)
}

/// `hikyaku note`
#[derive(Debug, Args)]
pub(super) struct Note {
    /// Study Instance UID
    study: String,
    /// What is asked or answered
    text: String,
    /// Id of the question that it answers, as `hikyaku notes` lists it
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    answers: String,
    /// Who asks; recorded beside the system user
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    by: String,
    #[command(flatten)]
    target: Target,
}

impl Note {
    pub(super) fn run(self) -> Outcome {
        let body = json!({
            "study": self.study, "text": self.text, "answers": self.answers, "name": self.by
        });
        let answer: Value = ask(&self.target, Method::POST, "/note", Some(&body))?;
        match self.target.json {
            true => print_json(&answer),
            false => say(&format!("note {} is written and will arrive", cell(&answer["id"]))),
        }
    }
}

/// `hikyaku notes`
#[derive(Debug, Args)]
pub(super) struct Notes {
    /// Study Instance UID; without it, all questions that are open
    #[arg(default_value = "", hide_default_value = true)]
    study: String,
    /// At most this many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    target: Target,
}

impl Notes {
    pub(super) fn run(self) -> Outcome {
        let path = format!("/notes?limit={}&study={}", self.limit, escaped(&self.study));
        let rows: Vec<Value> = ask(&self.target, Method::GET, &path, None)?;
        if self.target.json {
            return print_json(&rows);
        }
        match rows.is_empty() {
            true if self.study.is_empty() => say("no question is open"),
            true => say("nothing was asked about this study"),
            false => say(&notes_words(&rows)),
        }
    }
}

/// What was asked and answered about a study.
pub(super) fn notes(target: &Target, study: &str) -> Result<Vec<Value>, Failure> {
    ask(target, Method::GET, &format!("/notes?study={}", escaped(study)), None)
}

pub(super) fn notes_words(rows: &[Value]) -> String {
    rows.iter().map(note_words).collect::<Vec<_>>().join("\n")
}

fn note_words(row: &Value) -> String {
    let words = &row["words"];
    let kind = match words["answers"].as_str() {
        Some(question) if !question.is_empty() => format!("answers {question}"),
        _ if row["is_answered"] == true => "question, answered".into(),
        _ => "question, OPEN".into(),
    };
    let (id, at, by) = (cell(&words["id"]), cell(&row["at"]), cell(&words["by"]));
    let (from, study) = (cell(&row["from"]), cell(&row["study"]));
    let text = shown(&cell(&words["text"])).replace('\n', "\n  ");
    format!("{at}  {id}  {kind}\n  {by} at {from}, of study {study}:\n  {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_to_images_and_reports_is_told_in_the_order_of_time() {
        let event = |at: &str, what: &str| json!({ "at": at, "what": what, "by": "" });
        let study = json!([
            event("2026-11-28T01:00:00.000Z", "first image"),
            event("2026-11-28T03:00:00Z", "complete"),
        ]);
        let report = json!({
            "row": { "report": "0123456789abcdef0123456789abcdef" },
            "events": [event("2026-11-28T02:00:00.000Z", "arrived"),
                       event("2026-11-28T03:00:00.500Z", "sent")],
        });
        let joined = joined(&study, std::iter::once(&report));
        let told: Vec<String> =
            joined.as_array().expect("a list").iter().map(|e| cell(&e["what"])).collect();
        let expected =
            ["first image", "report 01234567: arrived", "complete", "report 01234567: sent"];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_terminal_obeys_no_report() {
        assert_eq!(shown("a\u{1b}[2Jb\tc\r\n骨\u{9b}x"), "a[2Jb\tc\n骨x");
    }

    #[test]
    fn how_far_a_report_is_is_its_last_moment() {
        let row = json!({ "moments": [["sent", "t"], ["preliminary", "t"]] });
        assert_eq!(how_far(&row), "preliminary");
        assert_eq!(how_far(&json!({ "moments": [] })), "-");
    }

    #[test]
    fn an_answer_names_its_question_and_an_open_question_stands_out() {
        let row = |answers: &str, is_answered: bool| {
            json!({ "at": "t", "from": "reading", "study": "1.2.3", "is_answered": is_answered,
                    "words": { "id": "i", "answers": answers, "by": "Dr", "text": "a\nb" } })
        };
        assert!(note_words(&row("q", false)).contains("answers q"));
        assert!(note_words(&row("", true)).contains("question, answered"));
        let open = note_words(&row("", false));
        assert!(open.contains("OPEN") && open.ends_with("  a\n  b"), "{open}");
    }
}
