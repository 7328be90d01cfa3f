//! What callers say, read within limits, and how they are answered.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Bytes, HttpBody, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::Problem;
use crate::orders::registrar::Desk;

/// Longest body of a request, in bytes.
pub const BODY_MAX: usize = 64 << 10;
/// Longest time in which a body must come.
pub const BODY_TIME: Duration = Duration::from_secs(20);

/// Most characters of a number that an audit repeats.
const CONCERNS_MAX: usize = 128;

/// The body of a request: JSON, or nothing.
pub(super) struct Said(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Said {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_owned());
        // One that is said to be too long is not waited for.
        if body.size_hint().lower() > BODY_MAX as u64 {
            return Err(too_long());
        }
        let read = tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_MAX)).await;
        let body = match read {
            Ok(Ok(body)) => body,
            Ok(Err(error)) if is_too_long(&error) => return Err(too_long()),
            Ok(Err(_)) => return Err(Problem::malformed("the body broke off")),
            Err(_) => {
                return Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "too-slow",
                    "Too slow",
                    format!("a body must come within {} s", BODY_TIME.as_secs()),
                    "send it again; nothing has changed",
                ));
            }
        };
        let json = kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
        if !body.is_empty() && !json {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not-json",
                "Not JSON",
                "the body is not said to be JSON",
                "send it with Content-Type: application/json",
            ));
        }
        Ok(Self(body))
    }
}

fn too_long() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-long",
        "Too long",
        format!("a body has at most {BODY_MAX} bytes"),
        "send less; nothing has changed",
    )
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Reads a body. The fault is told by its place, not by the value, which may be a patient's.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // A list would be read as the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::malformed("the body is no JSON object"));
    }
    serde_json::from_slice(body).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        let words = format!("the body is not what this call takes (line {line}, column {column})");
        Problem::malformed(words)
    })
}

/// The query of a request.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(e) => {
                Err(Problem::malformed(format!("the query cannot be read: {}", e.body_text())))
            }
        }
    }
}

/// The number or UID in the path of a request.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| Problem::malformed("the path is not UTF-8"))
    }
}

/// The registrar of a node that keeps orders.
pub(super) struct Keeper(pub(super) Desk);

impl FromRequestParts<Arc<Api>> for Keeper {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        api.view.orders.clone().map(Self).ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no-orders",
                "No orders here",
                "this node keeps no orders",
                "have its configuration given an [orders] section, or call another node",
            )
        })
    }
}

/// Which order or study a call was about, for the audit.
#[derive(Debug, Clone)]
pub(super) struct Concerns(pub(super) String);

/// A document, and what it is about.
pub(super) fn told<T: Serialize>(status: StatusCode, document: &T, concerns: &str) -> Response {
    let mut response = (status, Json(document)).into_response();
    let concerns = concerns.chars().take(CONCERNS_MAX).collect();
    response.extensions_mut().insert(Concerns(concerns));
    response
}
