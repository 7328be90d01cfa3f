//! How the node stands, without patient data, and what this API is: for every client.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Api, Call};
use crate::ops::status::Status;

/// The description of all calls (OpenAPI 3.1).
pub(super) const OPENAPI: &str = include_str!("openapi.json");

pub(super) fn calls() -> Vec<Call> {
    vec![
        Call { method: "GET", path: "/status", right: None, handler: get(status) },
        Call { method: "GET", path: "/openapi.json", right: None, handler: get(openapi) },
    ]
}

async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    Json(Status::of(&api.view).await)
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
