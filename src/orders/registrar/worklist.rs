//! Finds what matches a worklist query, page by page, without the registrar's turns.
//!
//! Orders that are shown bear terms: their days (in UTC), their months, and one that all of them bear.
//! A query by number reads the orders that bear it; one by a few days these days; a longer time its
//! months. What is found is read from what is durable, [`PAGE`] orders at a time, while the peer takes
//! it: whatever a query finds, custody is asked for one page at a time, and the registrar not at all.
//!
//! Limits: [`QUERIES_MAX`] queries read at once, others wait; the intake ends an answer at its limit of
//! matches (B001). Of an order the first eight UIDs, procedures and patient numbers find it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use dicom_object::InMemDicomObject;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::desk::Desk;
use super::keys::{INDEXED, Number, entry};
use super::record::OrderRecord;
use super::{Config, Registrar};
use crate::cargo::NodeName;
use crate::clock::{self, Timestamp};
use crate::custody::Custody;
use crate::custody::overlay::Stopped;
use crate::custody::register::{Book, Entry as Kept};
use crate::dicom::fault::Fault;
use crate::metrics::Metrics;
use crate::orders::order::Order;
use crate::orders::worklist::{Dates, Found, Query, answer, entries, is_shown};

/// Orders that are read at once.
const PAGE: usize = 16;
/// Queries that read at once.
pub const QUERIES_MAX: usize = 16;
/// Days of one order that have a term each; an order with more bears another one.
const DAYS_OF_ORDER_MAX: usize = 3;
/// Longest time that is read day by day; what is longer, month by month.
const DAYS_MAX: i32 = 35;
/// Longest time that is read month by month; what is longer, all at once.
const MONTHS_MAX: i32 = 120;
/// Months ahead that an open end is read month by month; orders that were entered for later than
/// that bear a term of their own.
const MONTHS_AHEAD: i32 = 12;

/// What a finder needs of a registrar, and does not change.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    custody: Custody,
    origins: Arc<BTreeSet<NodeName>>,
    zone: TimeZone,
    metrics: Metrics,
    permits: Arc<Semaphore>,
}

impl Shelf {
    pub(super) fn new(config: &Config, custody: &Custody, metrics: &Metrics) -> Self {
        let own = std::iter::once(&config.node);
        Self {
            custody: custody.clone(),
            origins: Arc::new(own.chain(&config.peers).cloned().collect()),
            zone: config.zone.clone(),
            metrics: metrics.clone(),
            permits: Arc::new(Semaphore::new(QUERIES_MAX)),
        }
    }
}

/// Which orders a term finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    /// Scheduled on this day.
    Day(Date),
    /// Scheduled in this month, counted from the year 0.
    Month(i32),
    /// Scheduled more than [`MONTHS_AHEAD`] after they were entered.
    Far,
    /// Of more than [`DAYS_OF_ORDER_MAX`] days.
    ManyDays,
    /// All.
    All,
}

impl Term {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Day(day) => format!("list-d{day}").into_bytes(),
            Self::Month(month) => format!("list-m{month}").into_bytes(),
            Self::Far => b"list-far".to_vec(),
            Self::ManyDays => b"list-many".to_vec(),
            Self::All => b"list-all".to_vec(),
        }
    }
}

fn month(day: Date) -> i32 {
    i32::from(day.year()) * 12 + i32::from(day.month()) - 1
}

/// By what an order is found on the worklist; nothing when it is not shown.
pub(super) fn terms(order: &Order, entered: Timestamp) -> Vec<Vec<u8>> {
    if !is_shown(order) {
        return Vec::new();
    }
    let order = order.with_parts();
    let day = |at: Timestamp| {
        jiff::Timestamp::from_millisecond(at.0).unwrap_or_default().to_zoned(TimeZone::UTC).date()
    };
    let steps = order.content.procedures.iter().filter_map(|step| step.scheduled);
    let mut days: BTreeSet<Date> = steps.map(day).collect();
    if days.is_empty() || order.content.procedures.iter().any(|step| step.scheduled.is_none()) {
        days.insert(day(order.content.scheduled.unwrap_or(entered)));
    }
    let mut all = vec![Term::All];
    if days.len() > DAYS_OF_ORDER_MAX {
        all.push(Term::ManyDays);
    } else {
        let months: BTreeSet<i32> = days.iter().copied().map(month).collect();
        let far = months.iter().any(|m| *m > month(day(entered)) + MONTHS_AHEAD);
        all.extend(days.into_iter().map(Term::Day));
        all.extend(months.into_iter().map(Term::Month));
        all.extend(far.then_some(Term::Far));
    }
    all.into_iter().map(Term::bytes).collect()
}

/// The terms under which all orders of these days are, local to `zone`.
fn terms_of_days(dates: &Dates, today: Date) -> Vec<Term> {
    // Wherever the zone is, its day is one of three in UTC.
    let before = |day: Date| day.yesterday().unwrap_or(day);
    let after = |day: Date| day.tomorrow().unwrap_or(day);
    let (from, to) = (dates.from.map(before), dates.to.map(after));
    let Some(from) = from else { return vec![Term::All] };
    let days = to.and_then(|to| to.since(from).ok()).map(|span| span.get_days());
    match (to, days) {
        (Some(to), Some(..0)) if to < from => Vec::new(),
        (Some(to), Some(days)) if days <= DAYS_MAX => {
            let days = from.series(jiff::Span::new().days(1)).take_while(|day| *day <= to);
            days.map(Term::Day).chain([Term::ManyDays]).collect()
        }
        _ => {
            let last = to.map_or(month(today).max(month(from)) + MONTHS_AHEAD, month);
            if last - month(from) > MONTHS_MAX {
                return vec![Term::All];
            }
            let months = (month(from)..=last).map(Term::Month);
            let beyond = to.is_none().then_some(Term::Far);
            months.chain([Term::ManyDays]).chain(beyond).collect()
        }
    }
}

/// The matches of a query, as they are asked for.
#[derive(Debug)]
pub struct Finding {
    shelf: Shelf,
    query: Query,
    caller: String,
    /// What is read, one after the other.
    terms: Vec<Vec<u8>>,
    at: usize,
    after: Option<Vec<u8>>,
    ready: VecDeque<InMemDicomObject>,
    permit: Option<OwnedSemaphorePermit>,
    found: u64,
    ended: bool,
}

impl Desk {
    /// Begins to answer a worklist query. What custody has entered until now is found.
    ///
    /// # Errors
    ///
    /// The response to give.
    pub async fn worklist(&self, query: Query, caller: String) -> Result<Finding, Fault> {
        // Until the registrar has read its book, its terms may not all be there.
        let ready = self.counts().await;
        ready.map_err(|_| Fault::failed("the node is starting or stopping"))?;
        let shelf = self.shelf.clone();
        let today = shelf.today();
        let found = query.found(today);
        let terms = shelf.terms(&found, today);
        Ok(Finding {
            shelf,
            query,
            caller,
            terms,
            at: 0,
            after: None,
            ready: VecDeque::new(),
            permit: None,
            found: 0,
            ended: false,
        })
    }
}

impl Shelf {
    fn today(&self) -> Date {
        let now = jiff::Timestamp::from_millisecond(clock::wall().0).unwrap_or_default();
        now.to_zoned(self.zone.clone()).date()
    }

    fn terms(&self, found: &Found, today: Date) -> Vec<Vec<u8>> {
        let (kind, ids) = match found {
            Found::Days(dates) => {
                return terms_of_days(dates, today).into_iter().map(Term::bytes).collect();
            }
            Found::Studies(ids) => (Number::Study, ids),
            Found::Accessions(ids) => (Number::Accession, ids),
            Found::Procedures(ids) => (Number::Procedure, ids),
            Found::Placers(ids) => (Number::Placer, ids),
            Found::Fillers(ids) => (Number::Filler, ids),
            Found::Patients(ids) => (Number::Patient, ids),
        };
        let of_origin = |origin| ids.iter().map(move |id| kind.of_order(origin, id));
        self.origins.iter().flat_map(of_origin).collect()
    }
}

impl Finding {
    /// Whether the query has keys that are not matched here.
    pub const fn keys_unsupported(&self) -> bool {
        self.query.keys_unsupported
    }

    /// The next match; `None` when there is no more.
    ///
    /// # Errors
    ///
    /// Custody has stopped: there may be more.
    pub async fn next(&mut self) -> Result<Option<InMemDicomObject>, FindError> {
        if self.permit.is_none() {
            let permit = self.shelf.permits.clone().acquire_owned().await;
            self.permit = Some(permit.map_err(|_| FindError)?);
        }
        loop {
            if let Some(found) = self.ready.pop_front() {
                self.found += 1;
                return Ok(Some(found));
            }
            let Some(term) = self.terms.get(self.at).cloned() else {
                self.ended = true;
                return Ok(None);
            };
            let custody = &self.shelf.custody;
            let page = custody.entries_with(Book::Orders, term, self.after.take(), PAGE);
            let page = page.await.ok_or(FindError)?;
            match page.last() {
                // An entry that cannot be read makes a page shorter: only an empty one is the last.
                None => self.at += 1,
                Some(last) => self.after = Some(last.key.clone()),
            }
            for kept in &page {
                self.look_at(kept);
            }
        }
    }

    fn look_at(&mut self, kept: &Kept) {
        let earlier = &self.terms[..self.at];
        if kept.terms.iter().any(|term| earlier.iter().any(|e| e[..] == term[..])) {
            return;
        }
        let Ok(record) = minicbor::decode::<OrderRecord>(&kept.body) else {
            tracing::error!("an entry of the book of orders cannot be read; passed over");
            return;
        };
        let order = record.history.order().with_parts();
        if !self.shelf.origins.contains(&order.key.origin) {
            return;
        }
        for entry in entries(&order, record.entered_at, &self.shelf.zone) {
            if self.query.matches(&entry) {
                self.ready.push_back(answer(&entry, &self.query, &self.caller));
            }
        }
    }
}

impl Drop for Finding {
    fn drop(&mut self) {
        let end = if self.ended { "whole" } else { "broken-off" };
        self.shelf.metrics.worklist_queries.with_label_values(&[end]).inc();
        self.shelf.metrics.worklist_matches.inc_by(self.found);
    }
}

/// Custody has stopped in the middle of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct FindError;

impl Registrar {
    /// Gives the orders of an earlier release the terms by which the worklist finds them; once.
    pub(super) async fn index_worklist(&mut self) -> Result<(), Stopped> {
        if self.store.get::<bool>(INDEXED.to_vec()).await?.is_some() {
            return Ok(());
        }
        let mut after = Some(b"o".to_vec());
        loop {
            let page = self.custody.entries(Book::Orders, after, PAGE).await.ok_or(Stopped)?;
            after = page.last().map(|kept| kept.key.clone());
            let orders: Vec<_> =
                page.iter().filter(|kept| kept.key.first() == Some(&b'o')).collect();
            for kept in &orders {
                let Ok(record) = minicbor::decode::<OrderRecord>(&kept.body) else { continue };
                let order = record.history.order();
                let mut terms: Vec<Vec<u8>> = kept.terms.iter().map(|t| t.to_vec()).collect();
                terms.extend(super::keys::order_terms(&order));
                terms.extend(self::terms(&order, record.entered_at));
                self.store.put(entry(kept.key.clone(), &record, terms));
            }
            let ended = orders.len() < page.len() || page.is_empty();
            if ended {
                self.store.put(entry(INDEXED.to_vec(), &true, Vec::new()));
            }
            if self.store.commit().await.is_err() {
                // The worklist does not find all of them before the next start.
                tracing::warn!("orders of an earlier release are not on the worklist yet");
                return Ok(());
            }
            if ended {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::order::{Content, OrderKey, Procedure};

    fn order(scheduled: &[&str]) -> Order {
        let key = OrderKey { origin: "east".parse().unwrap(), number: "P1".into() };
        let at = |text: &&str| {
            let at: jiff::Timestamp = text.parse().unwrap();
            Timestamp(at.as_millisecond())
        };
        let step = |text| Procedure { scheduled: Some(at(text)), ..Procedure::default() };
        let procedures = scheduled.iter().map(step).collect();
        Order { content: Content { procedures, ..Content::default() }, ..Order::empty(key) }
    }

    fn found(order: &Order, dates: Dates, today: Date) -> bool {
        let own = terms(order, Timestamp(1_795_737_600_000));
        let read = terms_of_days(&dates, today);
        read.iter().any(|term| own.contains(&term.bytes()))
    }

    #[test]
    fn an_order_is_found_by_every_time_that_holds_one_of_its_days() {
        let day = |text: &str| text.parse::<Date>().unwrap();
        let today = day("2026-11-27");
        let orders = [
            order(&["2026-11-27T23:30:00Z"]),
            order(&["2026-11-27T01:00:00Z", "2027-02-01T00:00:00Z"]),
            order(&[
                "2026-11-27T01:00:00Z",
                "2026-11-28T01:00:00Z",
                "2026-11-29T01:00:00Z",
                "2026-12-30T01:00:00Z",
            ]),
            order(&["2031-01-01T00:00:00Z", "2026-11-27T01:00:00Z"]),
        ];
        let times = [
            (Some("2026-11-27"), Some("2026-11-27")),
            (Some("2026-11-20"), Some("2026-12-24")),
            (Some("2026-10-01"), Some("2027-11-27")),
            (Some("2026-10-28"), None),
            (None, Some("2026-11-27")),
            (None, None),
        ];
        for (from, to) in times {
            let dates = Dates { from: from.map(day), to: to.map(day) };
            assert!(orders.iter().all(|order| found(order, dates, today)), "{dates:?}");
        }
        let later = Dates { from: Some(day("2030-06-01")), to: None };
        assert!(found(&orders[3], later, today) && !found(&orders[0], later, today));
        let open = Dates { from: Some(day("2026-12-15")), to: None };
        assert!(found(&orders[3], open, today), "it was entered for much later");
        let none = Dates { from: Some(day("2026-11-27")), to: Some(day("2026-11-01")) };
        assert!(!found(&orders[0], none, today));
    }

    #[test]
    fn what_is_not_shown_has_no_terms_and_a_usual_order_few() {
        use crate::orders::order::OrderState;
        let mut one = order(&["2026-11-27T01:00:00Z"]);
        assert!(terms(&one, Timestamp(0)).len() <= 4);
        one.state = OrderState::Cancelled;
        assert_eq!(terms(&one, Timestamp(0)), [[0u8; 0]; 0]);
    }
}
