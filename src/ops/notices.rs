//! Notices on the control socket: those that are not delivered, and tests.

use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::View;
use super::control::Caller;

/// The calls about notices.
pub(super) fn routes() -> Router<Arc<View>> {
    Router::new().route("/notices", get(notices)).route("/notice/test", post(test))
}

#[derive(serde::Deserialize)]
struct ByRule {
    rule: String,
}

fn none() -> Response {
    let words = "this node tells nobody: its configuration has no [[orders.notice]]\n";
    (StatusCode::NOT_FOUND, words).into_response()
}

async fn notices(State(view): State<Arc<View>>) -> Response {
    match &view.notifier {
        Some(notifier) => Json(notifier.list().await).into_response(),
        None => none(),
    }
}

async fn test(
    State(view): State<Arc<View>>,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(ByRule { rule }): Json<ByRule>,
) -> Response {
    let Some(notifier) = &view.notifier else { return none() };
    let tried = notifier.test(rule.clone()).await;
    tracing::info!(target: "audit", by, rule, done = tried.is_some(), "test of notices");
    match tried {
        Some(tried) => Json(tried).into_response(),
        None => {
            let words = format!("there is no [[orders.notice]] with the name {rule}\n");
            (StatusCode::UNPROCESSABLE_ENTITY, words).into_response()
        }
    }
}
