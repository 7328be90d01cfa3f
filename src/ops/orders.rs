//! Orders and missing images on the control socket. Orders name patients, so none of this is ever
//! on the ops listener; what changes something is recorded with the caller's system user.

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::View;
use super::control::Caller;
use crate::orders::registrar::{Decision, Desk, DeskError, NewOrder, Page};
use crate::orders::verdict::What;

/// Rows of a listing unless the question says how many.
const ROWS: usize = 1000;
/// Most rows of a listing.
const ROWS_MAX: usize = 100_000;

/// The calls about orders.
pub(super) fn routes() -> Router<Arc<View>> {
    Router::new()
        .route("/orders", get(orders))
        .route("/missing", get(missing))
        .route("/order", post(order))
        .route("/case", post(case))
        .route("/order/add", post(add))
        .route("/order/cancel", post(cancel))
        .route("/link", post(link))
        .route("/recall", post(recall))
        .route("/seen", post(seen))
        .route("/waive", post(waive))
        .route("/reinstate", post(reinstate))
}

/// Which rows.
#[derive(Debug, Clone, Default, serde::Deserialize)]
struct Wanted {
    state: Option<String>,
    limit: Option<usize>,
}

#[derive(serde::Deserialize)]
struct ByNumber {
    number: String,
}

#[derive(serde::Deserialize)]
struct ByStudy {
    study: String,
}

#[derive(serde::Deserialize)]
struct Cancel {
    number: String,
    #[serde(default)]
    reason: String,
}

#[derive(serde::Deserialize)]
struct Link {
    study: String,
    order: Option<String>,
}

#[derive(serde::Deserialize)]
struct Images {
    study: String,
    #[serde(default)]
    images: Vec<String>,
    #[serde(default)]
    reason: String,
}

impl IntoResponse for DeskError {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::Refused(_) | Self::Unknown(_) | Self::Ended(_) | Self::Flaws(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::NotKept(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, format!("{self}\n")).into_response()
    }
}

/// The registrar of a node that keeps orders.
struct Keeper(Desk);

impl FromRequestParts<Arc<View>> for Keeper {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(_: &mut Parts, view: &Arc<View>) -> Result<Self, Self::Rejection> {
        let none = "this node keeps no orders: its configuration has no [orders] section\n";
        view.orders.clone().map(Self).ok_or((StatusCode::NOT_FOUND, none))
    }
}

fn answer<T: serde::Serialize>(found: Result<T, DeskError>) -> Response {
    found.map(Json).into_response()
}

fn page(what: Option<What>, wanted: &Wanted) -> Page {
    Page { what, after: None, max: wanted.limit.unwrap_or(ROWS).min(ROWS_MAX) }
}

async fn orders(Keeper(desk): Keeper, Query(wanted): Query<Wanted>) -> Response {
    let what = match wanted.state.as_deref().map(What::named) {
        Some(None) => {
            let words = "there is no such state\n";
            return (StatusCode::UNPROCESSABLE_ENTITY, words).into_response();
        }
        what => what.flatten(),
    };
    answer(desk.orders(page(what, &wanted)).await)
}

async fn missing(Keeper(desk): Keeper, Query(wanted): Query<Wanted>) -> Response {
    answer(desk.missing(page(None, &wanted)).await)
}

async fn order(Keeper(desk): Keeper, Json(wanted): Json<ByNumber>) -> Response {
    answer(desk.order(wanted.number).await)
}

async fn case(Keeper(desk): Keeper, Json(wanted): Json<ByStudy>) -> Response {
    answer(desk.study(wanted.study).await)
}

async fn add(
    Keeper(desk): Keeper,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(order): Json<NewOrder>,
) -> Response {
    let added = desk.add(order, by.clone()).await;
    tracing::info!(target: "audit", by, done = added.is_ok(), "order added");
    answer(added.map(|entered| serde_json::json!({ "number": entered.number })))
}

async fn cancel(
    Keeper(desk): Keeper,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(Cancel { number, reason }): Json<Cancel>,
) -> Response {
    let cancelled = desk.cancel(number.clone(), reason, by.clone()).await;
    let done = cancelled.is_ok();
    tracing::info!(target: "audit", by, order = number, done, "order cancelled");
    answer(cancelled.map(|number| serde_json::json!({ "number": number })))
}

async fn recall(
    Keeper(desk): Keeper,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(ByStudy { study }): Json<ByStudy>,
) -> Response {
    let asked = desk.recall(study.clone()).await;
    tracing::info!(target: "audit", by, study, done = asked.is_ok(), "source asked");
    answer(asked.map(|now| serde_json::json!({ "now": now })))
}

async fn seen(
    Keeper(desk): Keeper,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(wanted): Json<ByStudy>,
) -> Response {
    let seen = desk.acknowledge(wanted.study.clone(), by.clone()).await;
    let (study, images) = (wanted.study, seen.as_ref().copied().unwrap_or(0));
    tracing::info!(target: "audit", by, study, images, "withdrawn images acknowledged");
    answer(seen.map(|images| serde_json::json!({ "images": images })))
}

async fn link(
    Keeper(desk): Keeper,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(Link { study, order }): Json<Link>,
) -> Response {
    let linked = desk.link(study.clone(), order.clone(), by.clone()).await;
    tracing::info!(target: "audit", by, study, order, done = linked.is_ok(), "study linked");
    answer(linked.map(|now| serde_json::json!({ "now": now })))
}

async fn waive(
    Keeper(desk): Keeper,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(images): Json<Images>,
) -> Response {
    decide(&desk, images, false, by).await
}

async fn reinstate(
    Keeper(desk): Keeper,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(images): Json<Images>,
) -> Response {
    decide(&desk, images, true, by).await
}

async fn decide(desk: &Desk, images: Images, expect: bool, by: String) -> Response {
    let Images { study, images, reason } = images;
    let named = images.len();
    let decision = Decision { study: study.clone(), images, expect, reason, by: by.clone() };
    let decided = desk.decide(decision).await;
    let done = decided.is_ok();
    tracing::info!(target: "audit", by, study, named, expect, done, "decided about images");
    answer(decided.map(|now| serde_json::json!({ "now": now })))
}
