//! Studies: how they stand, which images are here and where they went; and to which order one
//! belongs.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

use super::access::Right;
use super::gate::Caller;
use super::problem::Problem;
use super::said::{self, Keeper, Named, Said, told};
use super::{Api, Call};
use crate::custody::Filter;
use crate::dicom::is_uid;
use crate::reports::secretary::DeskError;

pub(super) fn calls() -> Vec<Call> {
    vec![
        Call {
            method: "GET",
            path: "/studies/{uid}",
            right: Some(Right::ReadStudies),
            handler: get(show),
        },
        Call {
            method: "POST",
            path: "/studies/{uid}/link",
            right: Some(Right::LinkStudies),
            handler: post(link),
        },
    ]
}

async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Named(uid): Named,
) -> Result<Response, Problem> {
    let unknown = || Problem::unknown("nothing is known here of a study with this UID");
    if !is_uid(&uid) {
        return Err(unknown());
    }
    let filter = Filter { study: Some(uid.clone()), ..Filter::default() };
    let Some(cargo) = api.view.custody.list(filter).await else {
        return Err(Problem::unavailable("custody has stopped"));
    };
    let cases = match &api.view.orders {
        Some(desk) => desk.study(uid.clone()).await?,
        None => Vec::new(),
    };
    if cargo.is_empty() && cases.is_empty() {
        return Err(unknown());
    }
    let mut document = json!({ "cases": cases, "cargo": cargo });
    // What its reports have come to is for who may read reports.
    if let Some(desk) = api.view.reports.as_ref().filter(|_| caller.may(Right::ReadReports)) {
        document["reports"] = match desk.story(uid.clone()).await {
            Err(DeskError::Unknown(_)) => json!([]),
            stories => json!(stories?),
        };
    }
    Ok(told(StatusCode::OK, &document, &format!("study {uid}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    /// `null`: it belongs to no order. It must be said: to leave it out is no decision.
    #[serde(deserialize_with = "Option::deserialize")]
    order: Option<String>,
}

async fn link(
    Keeper(desk): Keeper,
    Extension(caller): Extension<Caller>,
    Named(uid): Named,
    Said(body): Said,
) -> Result<Response, Problem> {
    let Link { order } = said::json(&body)?;
    let now = desk.link(uid.clone(), order.clone(), caller.by()).await?;
    let to = order.map_or("no order".to_owned(), |order| format!("order {order}"));
    Ok(told(StatusCode::OK, &json!({ "now": now }), &format!("study {uid}, {to}")))
}
