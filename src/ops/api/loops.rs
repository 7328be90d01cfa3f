//! What is owed and overdue, critical results until a person has dealt with them, and what both
//! sides ask each other about a study.

use axum::Extension;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::Call;
use super::access::Right;
use super::gate::Caller;
use super::problem::Problem;
use super::reports::{Few, fault, limit, text};
use super::said::{Asked, Named, Said, Secretary, json, told};
use crate::dicom::is_uid;
use crate::ops::reports::person;
use crate::reports::note::WORDS_MAX;
use crate::reports::words;

/// Longest name of a person, and longest remark, in bytes.
const REMARK_MAX: usize = 1024;

pub(super) fn calls() -> Vec<Call> {
    let call = |method, path, right, handler| Call { method, path, right: Some(right), handler };
    let read = Right::ReadReports;
    vec![
        call("GET", "/overdue", read, get(async |s, w| list(s, w, true).await)),
        call("GET", "/loops", read, get(async |s, w| list(s, w, false).await)),
        call("POST", "/studies/{uid}/dismiss", Right::WriteReports, post(dismiss)),
        call("GET", "/critical", read, get(criticals)),
        call("POST", "/critical/{id}/acknowledge", Right::Acknowledge, post(acknowledge)),
        call("POST", "/critical/{id}/close", Right::Acknowledge, post(close)),
        call("POST", "/reports/{id}/critical", Right::WriteReports, post(flag)),
        call("GET", "/notes", Right::ReadNotes, get(notes)),
        call("POST", "/notes", Right::WriteNotes, post(note)),
    ]
}

async fn list(
    Secretary(desk): Secretary,
    Asked(wanted): Asked<Few>,
    overdue: bool,
) -> Result<Response, Problem> {
    let rows = words::told(desk.loops(overdue, limit(wanted.limit)?).await?);
    Ok(told(StatusCode::OK, &rows, &format!("{} studies", rows.len())))
}

async fn dismiss(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Named(uid): Named,
    Said(_): Said,
) -> Result<Response, Problem> {
    let now = desk.dismiss(uid.clone(), caller.by()).await?;
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("study {uid}")))
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichCritical {
    all: Option<bool>,
    limit: Option<usize>,
}

async fn criticals(
    Secretary(desk): Secretary,
    Asked(wanted): Asked<WhichCritical>,
) -> Result<Response, Problem> {
    let all = wanted.all.unwrap_or(false);
    let rows = words::told(desk.criticals(all, limit(wanted.limit)?).await?);
    Ok(told(StatusCode::OK, &rows, &format!("{} critical results", rows.len())))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Knows {
    /// The person: a system cannot know of a result in his or her place.
    by: String,
}

/// A name on one line.
fn name(by: String) -> Result<String, Problem> {
    match by.contains(['\n', '\t']) {
        true => Err(fault("by", "has control characters")),
        false => text("by", by, REMARK_MAX),
    }
}

async fn acknowledge(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    Said(body): Said,
) -> Result<Response, Problem> {
    let Knows { by } = json(&body)?;
    let by = person(&name(by)?, caller.by());
    let now = desk.acknowledge(id.clone(), by).await?;
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("report {id}")))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    by: String,
    done: String,
}

async fn close(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    Said(body): Said,
) -> Result<Response, Problem> {
    let Done { by, done } = json(&body)?;
    let by = person(&name(by)?, caller.by());
    let now = desk.close(id.clone(), text("done", done, REMARK_MAX)?, by).await?;
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("report {id}")))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Flagged {
    why: String,
}

async fn flag(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    Said(body): Said,
) -> Result<Response, Problem> {
    let Flagged { why } = json(&body)?;
    let now = desk.flag(id.clone(), text("why", why, REMARK_MAX)?, caller.by()).await?;
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("report {id}")))
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichNotes {
    study: Option<String>,
    limit: Option<usize>,
}

async fn notes(
    Secretary(desk): Secretary,
    Asked(wanted): Asked<WhichNotes>,
) -> Result<Response, Problem> {
    let limit = limit(wanted.limit)?;
    let study = wanted.study.unwrap_or_default();
    if !study.is_empty() && !is_uid(&study) {
        return Err(fault("study", "is no UID"));
    }
    let rows = desk.words(study, limit).await?;
    Ok(told(StatusCode::OK, &rows, &format!("{} notes", rows.len())))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    study: String,
    text: String,
    /// Id of the question that it answers.
    #[serde(default)]
    answers: String,
    /// The person; empty: the system itself.
    #[serde(default)]
    by: String,
}

async fn note(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Said(body): Said,
) -> Result<Response, Problem> {
    let note: Note = json(&body)?;
    if !is_uid(&note.study) {
        return Err(fault("study", "is no UID"));
    }
    let by = if note.by.is_empty() { String::new() } else { name(note.by)? };
    let words = text("text", note.text, WORDS_MAX)?;
    let concerns = format!("study {}", note.study);
    let id = desk.say(note.study, note.answers, words, person(&by, caller.by())).await?;
    Ok(told(StatusCode::CREATED, &json!({ "id": id }), &concerns))
}
