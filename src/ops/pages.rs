//! The ops listener: read-only pages over HTTP/1.1, without patient data.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::View;
use super::status::Status;

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, view: Arc<View>, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .with_state(view);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await });
    if let Err(e) = served.await {
        tracing::error!(error = %e, "the ops listener has ended");
    }
}

async fn metrics(State(view): State<Arc<View>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, view.metrics.page()).into_response()
}

/// 200 while the process can keep its promise, 503 once custody has stopped.
async fn health(State(view): State<Arc<View>>) -> Response {
    match view.custody.stop_switch().reason() {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// 200 when nothing stands in the way of taking and sending, else 503 with the reasons.
async fn ready(State(view): State<Arc<View>>) -> Response {
    let obstacles = view.obstacles();
    match obstacles.is_empty() {
        true => "ready\n".into_response(),
        false => {
            let words = obstacles.join("\n") + "\n";
            (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
    }
}

async fn status(State(view): State<Arc<View>>) -> Json<Status> {
    Json(Status::of(&view).await)
}
