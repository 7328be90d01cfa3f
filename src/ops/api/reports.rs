//! Reports in, and what became of them: matched, released, read. What is owed, what is critical, and
//! what both sides ask each other stands in `loops`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use percent_encoding::utf8_percent_encode;
use serde_json::json;

use super::access::Right;
use super::gate::Caller;
use super::orders::{ESCAPED, ROWS, ROWS_MAX};
use super::problem::Problem;
use super::said::{Asked, Concerns, Long, Named, Said, Secretary, bounded, json, told};
use super::{Api, Call};
use crate::orders::registrar::Flaw;
use crate::reports::collect::{self, CollectError};
use crate::reports::report::FormKind;
use crate::reports::said::SaidReport;
use crate::reports::secretary::{DeskError, Page, Row};
use crate::reports::words;

pub(super) fn calls() -> Vec<Call> {
    let read =
        |path, handler| Call { method: "GET", path, right: Some(Right::ReadReports), handler };
    let write =
        |path, handler| Call { method: "POST", path, right: Some(Right::WriteReports), handler };
    vec![
        read("/reports", get(list)),
        write("/reports", post(enter)),
        read("/reports/{id}", get(show)),
        write("/reports/{id}/again", post(again)),
        read("/held", get(held)),
        read("/documents/{document}/text", get(async |s, n| form(s, n, FormKind::Text).await)),
        read("/documents/{document}/pdf", get(async |s, n| form(s, n, FormKind::Pdf).await)),
        read("/documents/{document}/cda", get(async |s, n| form(s, n, FormKind::Cda).await)),
        read(
            "/documents/{document}/structured",
            get(async |s, n| form(s, n, FormKind::Structured).await),
        ),
        write("/documents/{document}/match", post(match_to)),
        write("/documents/{document}/release", post(release)),
        write("/documents/{document}/discard", post(discard)),
    ]
}

/// Which rows of a listing.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    of: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// How many rows a page has; else the fault.
pub(super) fn limit(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(ROWS);
    match (1..=ROWS_MAX).contains(&limit) {
        true => Ok(limit),
        false => Err(fault("limit", format!("is not from 1 to {ROWS_MAX}"))),
    }
}

pub(super) fn fault(field: &str, what: impl Into<String>) -> Problem {
    Problem::faults(vec![Flaw { field: field.into(), what: what.into() }])
}

/// Longest id, UID or number in a query, in bytes.
const NAME_MAX: usize = 1024;

async fn list(
    Secretary(desk): Secretary,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Problem> {
    let limit = limit(wanted.limit)?;
    let (of, after) = (wanted.of.unwrap_or_default(), wanted.cursor.unwrap_or_default());
    for (field, value) in [("of", &of), ("cursor", &after)] {
        if value.len() > NAME_MAX {
            return Err(fault(field, format!("has more than {NAME_MAX} bytes")));
        }
    }
    let rows = desk.rows(Page { limit, after, of: of.clone() }).await?;
    let next = next_page(&rows, &of, limit);
    Ok((next, told(StatusCode::OK, &rows, &format!("{} reports", rows.len()))).into_response())
}

/// Where the next page is (RFC 8288), where there may be one.
fn next_page(rows: &[Row], of: &str, limit: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(last) = rows.last().filter(|_| rows.len() == limit) {
        let of = match of {
            "" => String::new(),
            of => format!("&of={}", utf8_percent_encode(of, ESCAPED)),
        };
        let cursor = utf8_percent_encode(&last.report, ESCAPED);
        let next = format!("</reports?limit={limit}{of}&cursor={cursor}>; rel=\"next\"");
        headers.extend(HeaderValue::from_str(&next).map(|next| (header::LINK, next)));
    }
    headers
}

async fn show(Secretary(desk): Secretary, Named(id): Named) -> Result<Response, Problem> {
    let found = desk.story(id.clone()).await?;
    match found.into_iter().find(|story| story.row.report == id) {
        Some(story) => Ok(told(StatusCode::OK, &story, &format!("report {id}"))),
        None => Err(Problem::unknown("no report of this id is known here")),
    }
}

/// A report into custody. Its bytes are read in a place where that disturbs nobody.
async fn enter(
    State(api): State<Arc<Api>>,
    Secretary(_): Secretary,
    Extension(caller): Extension<Caller>,
    long: Long,
) -> Result<Response, Problem> {
    let (rules, by) = (api.rules.load_full(), caller.by());
    let (body, room) = long.into_parts();
    let read = tokio::task::spawn_blocking(move || {
        // A list would be read as the fields in their order.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Problem::malformed("the body is no JSON object"));
        }
        let said = SaidReport::read(&body).map_err(|flaw| Problem::malformed(flaw.to_string()))?;
        drop(body);
        said.report(&rules, &by).map_err(|flaws| {
            let flaws = flaws.into_iter().map(|flaw| Flaw { field: flaw.field, what: flaw.what });
            Problem::faults(flaws.collect())
        })
    });
    let report = match read.await {
        Ok(report) => report?,
        Err(_) => return Err(Problem::malformed("the report cannot be read")),
    };
    let collect::Collected { kept, document } = collect::take(&api.view.custody, &report).await?;
    drop(room);
    let status = if kept.is_new() { StatusCode::CREATED } else { StatusCode::OK };
    let receipt = json!({ "document": document, "new": kept.is_new() });
    Ok(told(status, &receipt, &format!("document {document}")))
}

impl From<CollectError> for Problem {
    fn from(error: CollectError) -> Self {
        use crate::custody::{AssembleError, TakeError};
        match error {
            CollectError::Assemble(AssembleError::Stopped)
            | CollectError::Take(TakeError::Stopped) => Self::unavailable("custody is stopped"),
            // Of a report that is within the limits this does not happen.
            CollectError::Assemble(AssembleError::TooLarge(_)) => {
                fault("report", "is longer than is taken")
            }
            error => Self::not_kept(error.to_string()),
        }
    }
}

async fn again(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    Said(_): Said,
) -> Result<Response, Problem> {
    let now = desk.send_again(id.clone(), caller.by()).await?;
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("report {id}")))
}

/// A limit alone.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Few {
    pub(super) limit: Option<usize>,
}

async fn held(Secretary(desk): Secretary, Asked(wanted): Asked<Few>) -> Result<Response, Problem> {
    let rows = words::told(desk.held(limit(wanted.limit)?).await?);
    Ok(told(StatusCode::OK, &rows, &format!("{} documents", rows.len())))
}

async fn form(
    Secretary(desk): Secretary,
    Named(document): Named,
    kind: FormKind,
) -> Result<Response, Problem> {
    let form = match desk.form(document.clone(), kind).await {
        Err(DeskError::Refused(words)) => return Err(Problem::unknown(words)),
        form => form?,
    };
    let mut response = crate::ops::reports::bytes(form);
    // The audit names the document, and nothing of what it says.
    response.extensions_mut().insert(Concerns(bounded(&format!("document {document}"))));
    Ok(response)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    /// Study Instance UID or order number.
    to: String,
}

async fn match_to(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Named(document): Named,
    Said(body): Said,
) -> Result<Response, Problem> {
    let Match { to } = json(&body)?;
    if to.trim().is_empty() {
        return Err(fault("to", "is empty: give a Study Instance UID or an order number"));
    }
    let now = desk.match_to(document.clone(), to, caller.by()).await?;
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("document {document}")))
}

async fn release(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Named(document): Named,
    Said(_): Said,
) -> Result<Response, Problem> {
    let now = desk.release(document.clone(), caller.by()).await?;
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("document {document}")))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    reason: String,
}

async fn discard(
    Secretary(desk): Secretary,
    Extension(caller): Extension<Caller>,
    Named(document): Named,
    Said(body): Said,
) -> Result<Response, Problem> {
    let Discard { reason } = json(&body)?;
    let reason = text("reason", reason, super::orders::REASON_MAX)?;
    let now = desk.discard(document.clone(), reason, caller.by()).await?;
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("document {document}")))
}

/// What a person writes: not empty, not too long, lines and tabs its only control characters.
pub(super) fn text(field: &str, text: String, max: usize) -> Result<String, Problem> {
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.trim().is_empty() || text.len() > max || text.chars().any(odd) {
        let what = format!("is empty, has more than {max} bytes, or control characters");
        return Err(fault(field, what));
    }
    Ok(text)
}
