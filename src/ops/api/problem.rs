//! What is wrong with a call: a problem document (RFC 9457) that says what to do next.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::orders::registrar::{DeskError, Flaw};
use crate::reports::secretary;

/// A problem document. Its type is a path that names the kind; `docs/api.md` lists them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type", serialize_with = "path")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    detail: String,
    /// What to do next.
    next: String,
    /// Every field that cannot be taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Flaw>,
    /// After how many seconds it may be tried again.
    #[serde(skip)]
    retry_after: Option<u32>,
}

fn path<S: serde::Serializer>(kind: &str, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format!("/problems/{kind}"))
}

fn number<S: serde::Serializer>(status: &StatusCode, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u16(status.as_u16())
}

/// Seconds after which a call may be tried again that could not be kept.
const AGAIN_SECONDS: u32 = 5;

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        let (detail, next) = (detail.into(), next.into());
        Self { kind, title, status, detail, next, faults: Vec::new(), retry_after: None }
    }

    pub(super) const fn again_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 404.
    pub(super) fn unknown(detail: impl Into<String>) -> Self {
        let next =
            "compare the path with GET /openapi.json, and the number or UID with its listing";
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail, next)
    }

    /// 405; who answers adds `Allow`.
    pub(super) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            "No such method",
            "this path is not called so",
            "use a method that the header Allow names",
        )
    }

    /// 400.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        let next = "correct the request; GET /openapi.json says what each call takes";
        Self::new(StatusCode::BAD_REQUEST, "malformed", "It cannot be read", detail, next)
    }

    /// 422 with every fault at once.
    pub(super) fn faults(faults: Vec<Flaw>) -> Self {
        let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let next = "correct the fields that `faults` names and send it again; nothing has changed";
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "It cannot be taken",
            words.join("; "),
            next,
        );
        Self { faults, ..problem }
    }

    /// 422 that no single field explains.
    fn refused(detail: impl Into<String>) -> Self {
        let next = "correct it and send it again; nothing has changed";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "invalid", "It cannot be taken", detail, next)
    }

    /// 507.
    pub(super) fn not_kept(detail: impl Into<String>) -> Self {
        let next = "send the same request again after Retry-After; if it goes on, tell whoever \
                    operates this node that its disk is full or fails";
        let status = StatusCode::INSUFFICIENT_STORAGE;
        Self::new(status, "not-kept", "It cannot be kept just now", detail, next)
            .again_after(AGAIN_SECONDS)
    }

    /// 503.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        let next = "send the same request again after Retry-After";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "unavailable", "Not available just now", detail, next)
            .again_after(AGAIN_SECONDS)
    }
}

impl From<secretary::DeskError> for Problem {
    fn from(error: secretary::DeskError) -> Self {
        let words = error.to_string();
        match error {
            secretary::DeskError::Unknown(_) => Self {
                next: "compare it with GET /reports, GET /held and GET /critical".into(),
                ..Self::unknown(words)
            },
            secretary::DeskError::Refused(_) => Self::refused(words),
            secretary::DeskError::NotKept(_) => Self::not_kept(words),
            secretary::DeskError::Stopped => Self::unavailable(words),
        }
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let words = error.to_string();
        match error {
            DeskError::Flaws(flaws) => Self::faults(flaws),
            DeskError::Unknown(_) => Self {
                next: "compare it with GET /orders and GET /studies/{uid}; what another node took \
                       is changed there"
                    .into(),
                ..Self::unknown(words)
            },
            DeskError::Refused(_) => Self::refused(words),
            DeskError::Ended(_) => Self::new(
                StatusCode::CONFLICT,
                "order-ended",
                "The order was ended",
                words,
                "if it is wanted again, send it with \"again\": true, or under a new number",
            ),
            DeskError::NotKept(_) => Self::not_kept(words),
            DeskError::Stopped => Self::unavailable(words),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
