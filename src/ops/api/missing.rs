//! The list of what is missing (未到着画像): studies and orders that a person should look at.

use axum::response::Response;
use axum::routing::get;

use super::Call;
use super::access::Right;
use super::orders::{Listing, Wanted};
use super::problem::Problem;
use super::said::{Asked, Keeper};
use crate::orders::verdict::What;

const MISSING: Listing =
    Listing { path: "/missing", kind: "attention", has: What::needs_attention };

pub(super) fn calls() -> Vec<Call> {
    let right = Some(Right::ReadMissing);
    vec![Call { method: "GET", path: "/missing", right, handler: get(list) }]
}

async fn list(Keeper(desk): Keeper, Asked(wanted): Asked<Wanted>) -> Result<Response, Problem> {
    let page = MISSING.page(&wanted)?;
    let rows = desk.missing(page.clone()).await?;
    Ok(MISSING.answer(&page, &rows))
}
