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
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::problem::Problem;
use crate::orders::registrar::Desk;
use crate::reports::secretary;

/// Longest body of a request, in bytes.
pub const BODY_MAX: usize = 64 << 10;
/// Longest time in which a body must come.
pub const BODY_TIME: Duration = Duration::from_secs(20);

/// Longest body that brings a report, in bytes: a PDF of 96 MiB in base64, and what stands around it.
pub const LONG_MAX: usize = 132 << 20;
/// Longest time in which such a body must come; it leaves a call time to answer.
pub const LONG_TIME: Duration = Duration::from_secs(60);
/// Room for all such bodies together, in MiB. What is made of one needs up to thrice its length more.
pub const ROOM_MIB: usize = 160;
/// Longest wait for that room.
const ROOM_TIME: Duration = Duration::from_secs(10);

/// Most characters of a number that an audit repeats.
const CONCERNS_MAX: usize = 128;

/// The body of a request: JSON, or nothing.
pub(super) struct Said(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Said {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read(request, BODY_MAX, BODY_TIME).await.map(Self)
    }
}

/// The body of a request that may be long: JSON. It holds its room until it is dropped.
pub(super) struct Long {
    body: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

impl Long {
    /// The body, and its room.
    pub(super) fn into_parts(self) -> (Bytes, Option<OwnedSemaphorePermit>) {
        (self.body, self.room)
    }
}

impl FromRequest<Arc<Api>> for Long {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let hint = request.body().size_hint();
        // What does not say how long it is may be as long as any.
        let most = hint.upper().unwrap_or(LONG_MAX as u64).max(hint.lower());
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most > LONG_MAX {
            return Err(too_long(LONG_MAX));
        }
        // A short one waits for none: a text must not stand in line behind a film.
        if most <= BODY_MAX {
            return Ok(Self { body: read(request, BODY_MAX, BODY_TIME).await?, room: None });
        }
        let room = u32::try_from((most >> 20) + 1).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(ROOM_TIME, api.room.clone().acquire_many_owned(room)).await;
        let Ok(Ok(room)) = room else {
            return Err(Problem::unavailable("other long reports are being taken"));
        };
        let body = read(request, LONG_MAX, LONG_TIME).await?;
        Ok(Self { body, room: Some(room) })
    }
}

/// Reads a body of at most `max` bytes.
async fn read(request: Request, max: usize, time: Duration) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or(kind).trim().to_owned());
    // One that is said to be too long is not waited for.
    if body.size_hint().lower() > max as u64 {
        return Err(too_long(max));
    }
    let body = match tokio::time::timeout(time, to_bytes(body, max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if is_too_long(&error) => return Err(too_long(max)),
        Ok(Err(_)) => return Err(Problem::malformed("the body broke off")),
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "too-slow",
                "Too slow",
                format!("a body must come within {} s", time.as_secs()),
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
    Ok(body)
}

fn too_long(max: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-long",
        "Too long",
        format!("a body of this call has at most {max} bytes"),
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

/// The secretary of a node that keeps reports.
pub(super) struct Secretary(pub(super) secretary::Desk);

impl FromRequestParts<Arc<Api>> for Secretary {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        api.view.reports.clone().map(Self).ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no-reports",
                "No reports here",
                "this node keeps no reports",
                "have its configuration given a [reports] section, or call another node",
            )
        })
    }
}

/// Which order, study or report a call was about, for the audit.
#[derive(Debug, Clone)]
pub(super) struct Concerns(pub(super) String);

/// A document, and what it is about.
pub(super) fn told<T: Serialize>(status: StatusCode, document: &T, concerns: &str) -> Response {
    let mut response = (status, Json(document)).into_response();
    response.extensions_mut().insert(Concerns(bounded(concerns)));
    response
}

/// As much of a number as an audit repeats.
pub(super) fn bounded(concerns: &str) -> String {
    concerns.chars().take(CONCERNS_MAX).collect()
}
