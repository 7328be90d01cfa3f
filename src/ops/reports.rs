//! Reports on the control socket. Their texts are a patient's, so none of this is ever on the ops
//! listener; what changes something, and every look at a document's bytes, is recorded with the
//! caller's system user.

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::View;
use super::control::Caller;
use crate::delivery::part10::front_of;
use crate::dicom::header::{Reading, read};
use crate::reports::report::{Form, FormKind};
use crate::reports::secretary::{Desk, DeskError, Page};
use crate::reports::words::told;

/// Rows of a listing unless the question says how many.
const ROWS: usize = 1000;
/// Most rows of a listing.
const ROWS_MAX: usize = 100_000;

/// The calls about reports.
pub(super) fn routes() -> Router<Arc<View>> {
    Router::new()
        .route("/reports", get(rows))
        .route("/reports/held", get(held))
        .route("/report", post(story))
        .route("/report/form", post(form))
        .route("/report/match", post(match_to))
        .route("/report/release", post(release))
        .route("/report/discard", post(discard))
        .route("/report/again", post(again))
        .route("/report/dismiss", post(dismiss))
        .route("/loops", get(loops))
        .route("/criticals", get(criticals))
        .route("/critical/flag", post(flag))
        .route("/critical/acknowledge", post(acknowledge))
        .route("/critical/close", post(close))
        .route("/note", post(note))
        .route("/notes", get(notes))
}

/// Which rows.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
struct Wanted {
    limit: Option<usize>,
    /// A study or order.
    of: String,
    after: String,
    study: String,
    overdue: bool,
    all: bool,
}

impl Wanted {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(ROWS).min(ROWS_MAX)
    }
}

/// What a person decides about a report, a document, a study or a critical result.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Decision {
    of: String,
    document: String,
    report: String,
    study: String,
    /// Where a document belongs.
    to: String,
    reason: String,
    done: String,
    text: String,
    answers: String,
    /// The person for whom the caller speaks; empty: the caller is that person.
    name: String,
}

#[derive(serde::Deserialize)]
struct Wish {
    document: String,
    form: String,
}

impl IntoResponse for DeskError {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::Refused(_) | Self::Unknown(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotKept(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, format!("{self}\n")).into_response()
    }
}

/// The secretary of a node that keeps reports.
struct Secretary(Desk);

impl FromRequestParts<Arc<View>> for Secretary {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(_: &mut Parts, view: &Arc<View>) -> Result<Self, Self::Rejection> {
        let none = "this node keeps no reports: its configuration has no [reports] section\n";
        view.reports.clone().map(Self).ok_or((StatusCode::NOT_FOUND, none))
    }
}

type By = ConnectInfo<Caller>;

fn answer<T: serde::Serialize>(found: Result<T, DeskError>) -> Response {
    found.map(Json).into_response()
}

/// What a decision has come to; recorded with who asked and about what, without free text.
fn decided(by: &str, what: &'static str, about: &str, now: Result<String, DeskError>) -> Response {
    tracing::info!(target: "audit", by, what, about, done = now.is_ok(), "report decision");
    answer(now.map(|now| serde_json::json!({ "now": now })))
}

/// The words for forms that can be asked for.
pub(super) const FORMS: [(&str, FormKind); 6] = [
    ("text", FormKind::Text),
    ("pdf", FormKind::Pdf),
    ("cda", FormKind::Cda),
    ("structured", FormKind::Structured),
    ("encapsulated", FormKind::Encapsulated),
    ("message", FormKind::Message),
];

/// The bytes of a form, as what they are; a data set as a DICOM file.
pub(super) fn bytes(form: Form) -> Response {
    let (kind, bytes) = match form.kind {
        FormKind::Text => ("text/plain; charset=utf-8", form.bytes),
        FormKind::Pdf => ("application/pdf", form.bytes),
        FormKind::Cda => ("application/xml", form.bytes),
        FormKind::Structured | FormKind::Encapsulated => file(form),
        FormKind::Message => (PLAIN, form.bytes),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, bytes).into_response()
}

/// Bytes of which no more is said.
const PLAIN: &str = "application/octet-stream";

/// A data set with a file's head (PS3.10); as it stands where its own UID cannot be read.
fn file(form: Form) -> (&'static str, Vec<u8>) {
    let uid = match read(&form.bytes, &form.syntax, true) {
        Reading::Header(header) => header.sop_instance().to_owned(),
        Reading::Empty | Reading::Unreadable => String::new(),
    };
    if uid.is_empty() || form.sop_class.is_empty() || form.syntax.is_empty() {
        return (PLAIN, form.bytes);
    }
    let mut out = front_of(&form.sop_class, &uid, &form.syntax);
    out.extend_from_slice(&form.bytes);
    ("application/dicom", out)
}

async fn rows(Secretary(desk): Secretary, Query(wanted): Query<Wanted>) -> Response {
    let limit = wanted.limit();
    answer(desk.rows(Page { limit, after: wanted.after, of: wanted.of }).await)
}

async fn held(Secretary(desk): Secretary, Query(wanted): Query<Wanted>) -> Response {
    answer(desk.held(wanted.limit()).await.map(told))
}

async fn story(Secretary(desk): Secretary, Json(wanted): Json<Decision>) -> Response {
    match desk.story(wanted.of).await {
        Err(DeskError::Unknown(_)) => answer(Ok([(); 0])),
        stories => answer(stories),
    }
}

async fn form(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(Wish { document, form }): Json<Wish>,
) -> Response {
    let Some((_, kind)) = FORMS.iter().find(|(word, _)| *word == form) else {
        return DeskError::Refused("there is no such form".into()).into_response();
    };
    let found = desk.form(document.clone(), *kind).await;
    tracing::info!(target: "audit", by, document, form, done = found.is_ok(), "document shown");
    match found {
        Ok(form) => bytes(form),
        Err(e) => e.into_response(),
    }
}

async fn match_to(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let now = desk.match_to(d.document.clone(), d.to, by.clone()).await;
    decided(&by, "match", &d.document, now)
}

async fn release(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let now = desk.release(d.document.clone(), by.clone()).await;
    decided(&by, "release", &d.document, now)
}

async fn discard(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let now = desk.discard(d.document.clone(), d.reason, by.clone()).await;
    decided(&by, "discard", &d.document, now)
}

async fn again(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let now = desk.send_again(d.report.clone(), by.clone()).await;
    decided(&by, "again", &d.report, now)
}

async fn dismiss(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let now = desk.dismiss(d.study.clone(), by.clone()).await;
    decided(&by, "dismiss", &d.study, now)
}

async fn loops(Secretary(desk): Secretary, Query(wanted): Query<Wanted>) -> Response {
    answer(desk.loops(wanted.overdue, wanted.limit()).await.map(told))
}

async fn criticals(Secretary(desk): Secretary, Query(wanted): Query<Wanted>) -> Response {
    answer(desk.criticals(wanted.all, wanted.limit()).await.map(told))
}

/// The person, and who says so.
pub(super) fn person(name: &str, by: String) -> String {
    match name.trim() {
        "" => by,
        name => format!("{name} ({by})"),
    }
}

async fn flag(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let now = desk.flag(d.report.clone(), d.reason, person(&d.name, by.clone())).await;
    decided(&by, "flag", &d.report, now)
}

async fn acknowledge(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let now = desk.acknowledge(d.report.clone(), person(&d.name, by.clone())).await;
    decided(&by, "acknowledge", &d.report, now)
}

async fn close(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let now = desk.close(d.report.clone(), d.done, person(&d.name, by.clone())).await;
    decided(&by, "close", &d.report, now)
}

async fn note(
    Secretary(desk): Secretary,
    ConnectInfo(Caller(by)): By,
    Json(d): Json<Decision>,
) -> Response {
    let by_whom = person(&d.name, by.clone());
    let said = desk.say(d.study.clone(), d.answers, d.text, by_whom).await;
    tracing::info!(target: "audit", by, study = d.study, done = said.is_ok(), "note written");
    answer(said.map(|id| serde_json::json!({ "id": id })))
}

async fn notes(Secretary(desk): Secretary, Query(wanted): Query<Wanted>) -> Response {
    let limit = wanted.limit();
    answer(desk.words(wanted.study, limit).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(response: &Response) -> &str {
        response.headers()[header::CONTENT_TYPE].to_str().expect("text")
    }

    #[test]
    fn a_form_is_answered_as_what_it_is_and_kept_by_no_cache() {
        let form = |kind| Form::new(kind, b"x".to_vec());
        for (form_kind, content_type) in [
            (FormKind::Text, "text/plain; charset=utf-8"),
            (FormKind::Pdf, "application/pdf"),
            (FormKind::Cda, "application/xml"),
            (FormKind::Message, PLAIN),
            // A data set that cannot be read is no file.
            (FormKind::Structured, PLAIN),
        ] {
            let response = bytes(form(form_kind));
            assert_eq!(kind(&response), content_type);
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        }
    }

    #[tokio::test]
    async fn a_structured_report_is_answered_as_a_dicom_file() {
        let class = "1.2.840.10008.5.1.4.1.1.88.11";
        let element = |element: u16, value: &str| {
            let mut value = value.as_bytes().to_vec();
            if value.len() % 2 == 1 {
                value.push(0);
            }
            let mut out = vec![8, 0];
            out.extend(element.to_le_bytes());
            out.extend(b"UI");
            out.extend(u16::try_from(value.len()).expect("short").to_le_bytes());
            out.extend(value);
            out
        };
        let data_set = [element(0x16, class), element(0x18, "1.2.3.4")].concat();
        let syntax = "1.2.840.10008.1.2.1";
        let form = Form::data_set(FormKind::Structured, data_set.clone(), class, syntax);
        let response = bytes(form);
        assert_eq!(kind(&response), "application/dicom");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        assert_eq!(&body[128..132], b"DICM");
        assert!(body.ends_with(&data_set));
        let read = dicom_object::from_reader(&body[128..]).expect("a DICOM file");
        assert_eq!(read.meta().media_storage_sop_instance_uid.trim_end_matches('\0'), "1.2.3.4");
    }

    #[test]
    fn who_speaks_for_a_person_is_named_beside_the_person() {
        assert_eq!(person(" 鈴木 ", "root".into()), "鈴木 (root)");
        assert_eq!(person(" ", "root".into()), "root");
    }
}
