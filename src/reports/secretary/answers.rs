//! What people are told of reports, and what metrics show.

use super::hand_on::documents_of;
use super::people::words;
use super::record::{
    DocumentRecord, EVENTS_MAX, Fate, HELD, LATE, Place, ReportRecord, order_term, report_key,
    study_term,
};
use super::{DeskError, Event, HeldRow, OPEN_MAX, Page, Row, Secretary, Story, VersionStory};
use crate::clock::{self, Timestamp};
use crate::custody::overlay::Stopped;
use crate::custody::register::Book;
use crate::reports::critical::State;
use crate::reports::matching::Wanted;
use crate::reports::note::Handed;
use crate::reports::report::{Form, FormKind};
use crate::reports::versions::Arrival;

/// Most rows of one answer.
const ROWS_MAX: usize = 10_000;
/// Loops are counted this often.
const COUNT_SECONDS: u64 = 10;

const KINDS: [&str; 7] = ["arrived", "sent", "handed", "critical", "told", "held", "person"];

impl Secretary {
    pub(super) async fn rows(&self, page: &Page) -> Result<Result<Vec<Row>, DeskError>, Stopped> {
        let limit = page.limit.clamp(1, ROWS_MAX);
        if !page.of.is_empty() {
            let records = self.reports_of(&page.of).await?;
            let after = records.into_iter().filter(|r| r.id > page.after);
            return Ok(Ok(after.take(limit).map(|r| row(&r)).collect()));
        }
        let mut after = match page.after.is_empty() {
            true => b"r".to_vec(),
            false => report_key(&page.after),
        };
        let mut rows = Vec::new();
        while rows.len() < limit {
            let want = (limit - rows.len()).min(256);
            let found = self.custody.entries(Book::Reports, Some(after.clone()), want).await;
            let found = found.ok_or(Stopped)?;
            let whole = found.len() == want;
            let own = found.iter().filter(|entry| entry.key.first() == Some(&b'r'));
            let read = own.filter_map(|e| minicbor::decode::<ReportRecord>(&e.body).ok());
            rows.extend(read.map(|record| row(&record)));
            match found.last() {
                Some(last) if whole && last.key.first() == Some(&b'r') => {
                    after.clone_from(&last.key);
                }
                _ => break,
            }
        }
        Ok(Ok(rows))
    }

    /// Reports of a study, an order, an accession number, or with this id.
    async fn reports_of(&self, of: &str) -> Result<Vec<ReportRecord>, Stopped> {
        if let Some(record) = self.report(of).await? {
            return Ok(vec![record]);
        }
        let mut found: Vec<ReportRecord> = Vec::new();
        for term in [study_term(of), order_term(of)] {
            found.extend(self.store.with::<ReportRecord>(&term, b'r', ROWS_MAX).await?);
        }
        if found.is_empty() {
            let wanted = Wanted { accessions: vec![of], fillers: vec![of], ..Wanted::default() };
            for known in self.known(&wanted).await.unwrap_or_default() {
                let study = &known.candidate.target.study;
                let order = known.candidate.target.order.as_ref();
                let terms = [
                    Some(study).filter(|s| !s.is_empty()).map(|s| study_term(s)),
                    order.map(|order| order_term(&order.number)),
                ];
                for term in terms.into_iter().flatten() {
                    let more: Vec<ReportRecord> = self.store.with(&term, b'r', ROWS_MAX).await?;
                    let target = std::slice::from_ref(&known.candidate.target);
                    found.extend(more.into_iter().filter(|record| record.shares(target)));
                }
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }

    pub(super) async fn held(
        &self,
        limit: usize,
    ) -> Result<Result<Vec<HeldRow>, DeskError>, Stopped> {
        let held: Vec<DocumentRecord> = self.store.with(HELD, b'd', OPEN_MAX).await?;
        let row = |doc: &DocumentRecord| {
            let Place::Held(why) = &doc.place else { return None };
            let said = doc.said.as_ref();
            Some(HeldRow {
                document: doc.id(),
                arrived_at: doc.arrived_at,
                source: said.map(|s| s.source.clone()).unwrap_or_default(),
                status: said.map_or(crate::reports::report::Status::Preliminary, |s| s.status),
                words: words(why),
                why: why.clone(),
                is_critical: said.is_some_and(|s| !s.critical.is_empty()),
            })
        };
        let mut rows: Vec<HeldRow> = held.iter().filter_map(row).collect();
        rows.sort_by(|a, b| (a.arrived_at, &a.document).cmp(&(b.arrived_at, &b.document)));
        rows.truncate(limit);
        Ok(Ok(rows))
    }

    pub(super) async fn stories(&self, of: &str) -> Result<Result<Vec<Story>, DeskError>, Stopped> {
        let records = self.reports_of(of).await?;
        if records.is_empty() {
            return Ok(Err(DeskError::Unknown(format!("there is no report of {of}"))));
        }
        let mut stories = Vec::new();
        for record in &records {
            let mut story = story(record);
            story.events.extend(self.waits(record).await?);
            stories.push(story);
        }
        Ok(Ok(stories))
    }

    /// Why systems have not taken what was handed to them, as custody knows it now.
    async fn waits(&self, record: &ReportRecord) -> Result<Vec<Event>, Stopped> {
        let mut waits = Vec::new();
        for sending in record.sendings.iter().filter(|s| s.fate == Fate::Open) {
            let (own, to) = (self.config.node.clone(), sending.destination.clone());
            let duty = self.custody.duty(own, sending.key.clone(), to.clone()).await;
            let Some((_, duty)) = duty.ok_or(Stopped)? else { continue };
            if let Some(why) = duty.reason.filter(|_| duty.attempt > 0) {
                let what =
                    format!("{to} has not taken it yet, tried {} times: {why}", duty.attempt);
                waits.push(Event { at: clock::wall(), kind: "handed", what, by: String::new() });
            }
        }
        Ok(waits)
    }

    /// The bytes of a document in one form.
    pub(super) async fn form(
        &self,
        id: &str,
        kind: FormKind,
    ) -> Result<Result<Form, DeskError>, Stopped> {
        let doc = match self.document_with(id).await? {
            Ok(doc) => doc,
            Err(error) => return Ok(Err(error)),
        };
        let Some(report) = self.body(&doc).await else {
            let what = format!("the bytes of document {id} are not here any more");
            return Ok(Err(DeskError::Unknown(what)));
        };
        let form = report.form(kind).cloned();
        Ok(form.ok_or_else(|| DeskError::Unknown(format!("document {id} has not come as that"))))
    }

    /// Brings metrics up to date.
    pub(super) async fn show(&mut self, now: Timestamp) -> Result<(), Stopped> {
        if now >= self.counted && now.seconds_since(self.counted) < COUNT_SECONDS {
            return Ok(());
        }
        self.counted = now;
        let held = self.store.count(HELD, b'd', OPEN_MAX).await?;
        let criticals = self.criticals(false, ROWS_MAX).await?.unwrap_or_default();
        let open = criticals.iter().filter(|row| row.state == State::Open);
        let oldest = open.clone().map(|row| now.seconds_since(row.since)).max().unwrap_or(0);
        let questions = self.open_questions().await?;
        let late = self.store.count(LATE, b'r', OPEN_MAX).await?;
        let m = &self.metrics.reports;
        let set = |gauge: &prometheus::IntGauge, n: usize| {
            gauge.set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        set(&m.held, held);
        set(&m.unacknowledged, late);
        set(&m.critical_open, open.count());
        set(&m.questions, questions);
        m.critical_oldest.set(i64::try_from(oldest).unwrap_or(i64::MAX));
        m.overdue.reset();
        for (owed, n) in self.overdue_counts(now) {
            m.overdue.with_label_values(&[owed.as_str()]).set(n);
        }
        Ok(())
    }
}

fn row(record: &ReportRecord) -> Row {
    let versions = record.chain.versions();
    let latest = versions.last();
    let mut destinations: Vec<(crate::cargo::DestinationName, String)> = Vec::new();
    let documents = latest.map(documents_of).unwrap_or_default();
    for sending in record.sendings.iter().filter(|s| s.is_of(&documents)) {
        let state = match &sending.fate {
            Fate::Open => "sent",
            Fate::Yes(..) => "accepted",
            Fate::No(_) => "refused",
            Fate::Replaced => "replaced",
            Fate::Unmade(_) => "cannot be made",
        };
        destinations.push((sending.destination.clone(), state.to_owned()));
    }
    // At the reading node: of the latest version, and of systems rather than of the node before them.
    let of_latest = |handed: &&Handed| handed.documents.iter().all(|d| documents.contains(d));
    let is_node = |handed: &Handed| handed.destination == record.hospital;
    let has_systems = !record.handed.iter().all(is_node);
    let of_system = |handed: &&Handed| !(has_systems && is_node(handed));
    for handed in record.handed.iter().filter(of_latest).filter(of_system) {
        let state = if handed.no.is_empty() { "accepted" } else { "refused" };
        destinations.push((handed.destination.clone(), state.to_owned()));
    }
    destinations.sort();
    destinations.dedup();
    Row {
        report: record.id.clone(),
        target: record.targets.first().cloned().unwrap_or_else(|| {
            let (study, order) = (String::new(), None);
            crate::reports::matching::Target { origin: record.hospital.clone(), study, order }
        }),
        status: latest.map_or(crate::reports::report::Status::Preliminary, |v| v.status),
        versions: versions.len(),
        arrived_at: latest.map(|v| v.arrived_at).unwrap_or_default(),
        is_signed: latest.is_some_and(crate::reports::versions::Version::is_signed),
        critical: record.alarm.as_ref().map(|alarm| alarm.state()),
        destinations,
    }
}

fn story(record: &ReportRecord) -> Story {
    let document = |arrival: &&Arrival| {
        (
            arrival.cargo[..32.min(arrival.cargo.len())].to_owned(),
            arrival.forms.iter().copied().collect(),
        )
    };
    let versions = record.chain.versions();
    let version = |v: &crate::reports::versions::Version<'_>| VersionStory {
        status: v.status,
        arrived_at: v.arrived_at,
        written_at: v.written_at,
        standing: v.standing,
        is_signed: v.is_signed(),
        documents: v.documents.iter().map(document).collect(),
    };
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
    for happened in &record.events {
        let kind = KINDS.into_iter().find(|kind| *kind == happened.kind).unwrap_or("person");
        let (what, by) = (happened.what.clone(), happened.by.clone());
        events.push(Event { at: happened.at, kind, what, by });
    }
    events.sort_by_key(|event| event.at);
    Story {
        row: row(record),
        targets: record.targets.clone(),
        by: record.by,
        versions: versions.iter().map(version).collect(),
        events,
    }
}
