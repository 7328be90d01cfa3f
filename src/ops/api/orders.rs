//! Orders: entered, changed, cancelled, shown.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::access::Right;
use super::gate::Caller;
use super::problem::Problem;
use super::said::{Asked, Keeper, Named, Said, json, told};
use super::{Api, Call};
use crate::orders::registrar::{Entered, Entry, Flaw, NewOrder, OrderStory, Page, Row};
use crate::orders::verdict::What;

/// Rows of a page unless the question says how many.
pub(super) const ROWS: usize = 100;
/// Most rows of a page.
pub(super) const ROWS_MAX: usize = 1000;
/// Longest reason of a decision, in bytes.
pub(super) const REASON_MAX: usize = 1024;
/// What is escaped in a path or query: all but the unreserved (RFC 3986 2.3).
pub(super) const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn calls() -> Vec<Call> {
    let read = Some(Right::ReadOrders);
    let write = Some(Right::WriteOrders);
    vec![
        Call { method: "GET", path: "/orders", right: read, handler: get(list) },
        Call { method: "POST", path: "/orders", right: write, handler: post(enter) },
        Call { method: "GET", path: "/orders/{number}", right: read, handler: get(show) },
        Call {
            method: "POST",
            path: "/orders/{number}/cancel",
            right: write,
            handler: post(cancel),
        },
    ]
}

/// Which rows of a listing.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    state: Option<String>,
    attention: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// A listing of which a query chooses rows.
pub(super) struct Listing {
    /// Its path.
    pub(super) path: &'static str,
    /// The parameter that chooses a kind.
    pub(super) kind: &'static str,
    /// Whether rows can be of a kind.
    pub(super) has: fn(What) -> bool,
}

const ORDERS: Listing = Listing { path: "/orders", kind: "state", has: |_| true };

impl Listing {
    /// What a query asks for; every fault of it at once.
    pub(super) fn page(&self, wanted: &Wanted) -> Result<Page, Problem> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, what: String| {
            faults.push(Flaw { field: field.to_owned(), what });
        };
        let (word, other) = match self.kind {
            "state" => (&wanted.state, ("attention", &wanted.attention)),
            _ => (&wanted.attention, ("state", &wanted.state)),
        };
        if other.1.is_some() {
            fault(other.0, format!("is no parameter of this listing: use {}", self.kind));
        }
        let what = word.as_deref().map(|w| What::named(w).filter(|what| (self.has)(*what)));
        if what == Some(None) {
            fault(self.kind, "is none of the words that docs/api.md lists".into());
        }
        let max = wanted.limit.unwrap_or(ROWS);
        if !(1..=ROWS_MAX).contains(&max) {
            fault("limit", format!("is not from 1 to {ROWS_MAX}"));
        }
        let after = match wanted.cursor.as_deref().map(str::parse) {
            Some(Err(e)) => {
                fault("cursor", format!("cannot be read: {e}"));
                None
            }
            after => after.and_then(Result::ok),
        };
        match faults.is_empty() {
            true => Ok(Page { what: what.flatten(), after, max }),
            false => Err(Problem::faults(faults)),
        }
    }

    /// A page of rows; the header `Link` says where the next one is (RFC 8288).
    pub(super) fn answer(&self, page: &Page, rows: &[Row]) -> Response {
        let mut response = told(StatusCode::OK, &rows, &format!("{} rows", rows.len()));
        if let Some(last) = rows.last().filter(|_| rows.len() == page.max) {
            let cursor = last.place().to_string();
            let cursor = utf8_percent_encode(&cursor, ESCAPED);
            let kind = match page.what.map(serde_json::to_value) {
                Some(Ok(serde_json::Value::String(word))) => format!("&{}={word}", self.kind),
                _ => String::new(),
            };
            let next = format!("<{}?limit={}{kind}&cursor={cursor}>", self.path, page.max);
            if let Ok(link) = HeaderValue::from_str(&format!("{next}; rel=\"next\"")) {
                response.headers_mut().insert(header::LINK, link);
            }
        }
        response
    }
}

async fn list(Keeper(desk): Keeper, Asked(wanted): Asked<Wanted>) -> Result<Response, Problem> {
    let page = ORDERS.page(&wanted)?;
    let rows = desk.orders(page.clone()).await?;
    Ok(ORDERS.answer(&page, &rows))
}

async fn show(Keeper(desk): Keeper, Named(number): Named) -> Result<Response, Problem> {
    let found = desk.order(number.clone()).await?;
    match found.is_empty() {
        true => Err(Problem::unknown("no order of this number is known here")),
        false => Ok(told(StatusCode::OK, &found, &format!("order {number}"))),
    }
}

/// What came of an order that was sent.
#[derive(Serialize)]
struct Receipt {
    #[serde(flatten)]
    entered: Entered,
    /// As it stands now, for clients that may see orders.
    order: Option<OrderStory>,
}

async fn enter(
    State(api): State<Arc<Api>>,
    Keeper(desk): Keeper,
    Extension(caller): Extension<Caller>,
    Said(body): Said,
) -> Result<Response, Problem> {
    let order = NewOrder::read(&body).map_err(|flaws| match &flaws[..] {
        [whole] if whole.field.is_empty() => Problem::malformed(whole.what.clone()),
        _ => Problem::faults(flaws),
    })?;
    let entered = desk.add(order, caller.by()).await?;
    // It is durable: whatever becomes of the look at it, the answer is yes.
    let order = match caller.may(Right::ReadOrders) {
        true => desk.order(entered.number.clone()).await.unwrap_or_default(),
        false => Vec::new(),
    };
    let order = order.into_iter().find(|story| story.order.key.origin == *api.view.node());
    let (status, concerns) = (status_of(entered.how), format!("order {}", entered.number));
    let place = format!("/orders/{}", utf8_percent_encode(&entered.number, ESCAPED));
    let mut headers = HeaderMap::new();
    headers.extend(HeaderValue::from_str(&place).map(|place| (header::LOCATION, place)));
    let response = told(status, &Receipt { entered, order }, &concerns);
    Ok((headers, response).into_response())
}

fn status_of(how: Entry) -> StatusCode {
    match how {
        Entry::New => StatusCode::CREATED,
        Entry::Changed | Entry::Same => StatusCode::OK,
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cancel {
    reason: String,
}

async fn cancel(
    Keeper(desk): Keeper,
    Extension(caller): Extension<Caller>,
    Named(number): Named,
    Said(body): Said,
) -> Result<Response, Problem> {
    let Cancel { reason } = if body.is_empty() { Cancel::default() } else { json(&body)? };
    if reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
        let what = format!("has more than {REASON_MAX} bytes, or control characters");
        return Err(Problem::faults(vec![Flaw { field: "reason".into(), what }]));
    }
    let number = desk.cancel(number, reason, caller.by()).await?;
    let concerns = format!("order {number}");
    Ok(told(StatusCode::OK, &serde_json::json!({ "number": number }), &concerns))
}
