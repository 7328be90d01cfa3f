//! The open cases at a glance: what listings, metrics and timers are made of, without a look at
//! the book. Pure.
//!
//! A case is open while anything of it is still to come, by itself or by a person. About 300 bytes
//! for an open case that needs no attention.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::Serialize;

use super::place::Place;
use super::record::{CaseId, Dossier, OrderRecord, Standing, StudyRef};
use crate::cargo::NodeName;
use crate::clock::Timestamp;
use crate::orders::order::OrderKey;
use crate::orders::verdict::What;

/// One case as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The node that first took it.
    pub origin: NodeName,
    /// Number of its order, where it has one.
    pub order: Option<String>,
    /// Study Instance UID, where there is a study.
    pub study: Option<String>,
    /// Accession number; empty when not known.
    pub accession: String,
    /// Modality; empty when not known.
    pub modality: String,
    /// Patient ID; empty when not known.
    pub patient_id: String,
    /// Number of the order of which it is a prior.
    pub prior_of: Option<String>,
    /// AE titles that sent it.
    pub senders: Vec<String>,
    /// When the order or the first image came.
    pub first_at: Timestamp,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

impl Row {
    pub(super) fn of_order(record: &OrderRecord) -> Option<Self> {
        let standing = record.own_standing()?.clone();
        let order = record.history.order();
        let content = &order.content;
        Some(Self {
            origin: order.key.origin.clone(),
            order: Some(order.key.number.clone()),
            study: None,
            accession: content.accessions().next().map(|a| a.id.clone()).unwrap_or_default(),
            modality: content.any_modality().to_owned(),
            patient_id: content.patient.ids.first().map(|i| i.id.clone()).unwrap_or_default(),
            prior_of: None,
            senders: vec![order.source.clone()],
            first_at: record.entered_at,
            standing,
        })
    }

    pub(super) fn of_study(dossier: &Dossier) -> Option<Self> {
        let facts = &dossier.facts;
        Some(Self {
            origin: facts.origin.clone(),
            order: dossier.matched.order().map(|order| order.number.clone()),
            study: Some(facts.study.clone()),
            accession: facts.accession.as_ref().map(|a| a.id.clone()).unwrap_or_default(),
            modality: dossier.modality.clone(),
            patient_id: facts.patient.ids.first().map(|i| i.id.clone()).unwrap_or_default(),
            prior_of: dossier.prior_of.as_ref().map(|order| order.number.clone()),
            senders: dossier.senders.clone(),
            first_at: dossier.first_at,
            standing: dossier.standing.clone()?,
        })
    }

    /// Where it stands in a listing: the next page begins after it.
    pub fn place(&self) -> Place {
        let Standing { headline, since, .. } = &self.standing;
        Place { headline: *headline, since: *since, id: self.id() }
    }

    fn id(&self) -> CaseId {
        let origin = self.origin.clone();
        match (&self.study, &self.order) {
            (Some(study), _) => CaseId::Study(StudyRef { origin, study: study.clone() }),
            (None, number) => {
                let number = number.clone().unwrap_or_default();
                CaseId::Order(OrderKey { origin, number })
            }
        }
    }
}

/// Which rows of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Only these; `None`: all.
    pub what: Option<What>,
    /// Those that stand after this one; `None`: from the first.
    pub after: Option<Place>,
    /// At most this many.
    pub max: usize,
}

/// How many open cases are how; without patient data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Counts {
    /// Open orders by how far their images are.
    pub orders: BTreeMap<String, u64>,
    /// Studies or orders of which something lacks.
    pub short: u64,
    /// Instances that lack.
    pub missing_instances: u64,
    /// Since when the oldest short one is short, in seconds.
    pub oldest_short_seconds: u64,
    /// Studies without an order that should have one.
    pub unmatched: u64,
    /// Orders whose images are overdue.
    pub overdue: u64,
    /// Studies with withdrawn images that nobody has acknowledged.
    #[serde(default)]
    pub withdrawn: u64,
    /// Cases that a person should look at.
    pub attention: u64,
}

/// All open cases.
#[derive(Debug, Default)]
pub(super) struct Roll {
    rows: BTreeMap<CaseId, Row>,
    attention: BTreeSet<(What, Timestamp, CaseId)>,
    timers: BTreeSet<(Timestamp, CaseId)>,
    /// Open cases with an order, by how far the images are.
    orders: BTreeMap<What, u64>,
    missing: u64,
}

impl Roll {
    /// Takes in how a case stands; one that is not open is left out.
    pub(super) fn set(&mut self, row: Row) {
        let id = row.id();
        self.remove(&id);
        if !row.standing.is_open() {
            return;
        }
        let s = &row.standing;
        if !s.attention.is_empty() {
            self.attention.insert((s.headline, s.since, id.clone()));
        }
        if let Some(at) = s.again_at {
            self.timers.insert((at, id.clone()));
        }
        if row.order.is_some() {
            *self.orders.entry(s.progress).or_default() += 1;
        }
        self.missing += u64::from(s.missing);
        self.rows.insert(id, row);
    }

    /// Leaves a case out: it is part of another, or no more.
    pub(super) fn remove(&mut self, id: &CaseId) {
        let Some(row) = self.rows.remove(id) else { return };
        let s = &row.standing;
        self.attention.remove(&(s.headline, s.since, id.clone()));
        if let Some(at) = s.again_at {
            self.timers.remove(&(at, id.clone()));
        }
        if row.order.is_some()
            && let Some(n) = self.orders.get_mut(&s.progress)
        {
            *n -= 1;
        }
        self.missing -= u64::from(s.missing);
    }

    /// All open cases.
    pub(super) fn cases(&self) -> impl Iterator<Item = CaseId> {
        self.rows.keys().cloned()
    }

    /// How an open case stands.
    pub(super) fn standing(&self, id: &CaseId) -> Option<&Standing> {
        self.rows.get(id).map(|row| &row.standing)
    }

    /// Cases that could stand otherwise by now, the earliest first, at most `max`.
    pub(super) fn due(&self, now: Timestamp, max: usize) -> Vec<CaseId> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.take(max).map(|(_, id)| id.clone()).collect()
    }

    /// What needs attention, gravest first, the oldest of a kind first: the part after a place, of
    /// one kind or all.
    pub(super) fn attention(&self, page: &Page) -> Vec<Row> {
        let from = match &page.after {
            None => Bound::Unbounded,
            Some(Place { headline, since, id }) => Bound::Excluded((*headline, *since, id.clone())),
        };
        let rows = self.attention.range((from, Bound::Unbounded)).map(|(.., id)| &self.rows[id]);
        let wanted = rows.filter(|r| page.what.is_none_or(|w| r.standing.attention.contains(&w)));
        wanted.take(page.max).cloned().collect()
    }

    /// Open cases: the part after a place, with `headline` or `progress` as given, or all.
    pub(super) fn rows(&self, with_order: bool, page: &Page) -> Vec<Row> {
        let from = match &page.after {
            None => Bound::Unbounded,
            Some(place) => Bound::Excluded(place.id.clone()),
        };
        let fits = |row: &&Row| {
            let s = &row.standing;
            (!with_order || row.order.is_some() || row.prior_of.is_some())
                && page.what.is_none_or(|w| s.headline == w || s.progress == w)
        };
        let rows = self.rows.range((from, Bound::Unbounded)).map(|(_, row)| row);
        rows.filter(fits).take(page.max).cloned().collect()
    }

    pub(super) fn counts(&self, now: Timestamp) -> Counts {
        let mut counts = Counts {
            missing_instances: self.missing,
            attention: self.attention.len() as u64,
            ..Counts::default()
        };
        for (what, n) in self.orders.iter().filter(|(_, n)| **n > 0) {
            counts.orders.insert(word(*what), *n);
        }
        for (_, since, id) in &self.attention {
            for what in &self.rows[id].standing.attention {
                match what {
                    What::Short => {
                        counts.short += 1;
                        let age = now.seconds_since(*since);
                        counts.oldest_short_seconds = counts.oldest_short_seconds.max(age);
                    }
                    What::NoOrder => counts.unmatched += 1,
                    What::Overdue => counts.overdue += 1,
                    What::Withdrawn => counts.withdrawn += 1,
                    _ => {}
                }
            }
        }
        counts
    }
}

/// The word that documents and metrics use.
pub(super) fn word(what: What) -> String {
    match serde_json::to_value(what) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
