//! The loop of each study: when its images were sent and received, its report read, delivered and
//! acknowledged, and what is overdue.
//!
//! A loop begins with the first image that this node sees of a study, at both nodes. What orders
//! know of it, its order, its urgency, its route, is asked a moment later, since the registrar looks
//! at the same image. A study that goes to no other node has none until it does, and a prior never.
//!
//! Open loops are in memory; a loop is open until its report is acknowledged, its order is
//! cancelled, or a person says that nobody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desk::LoopRow;
use super::record::{LoopKey, LoopRecord, OPEN, loop_entry_key, loop_key};
use super::timers::What;
use super::{DeskError, OPEN_MAX, Secretary};
use crate::cargo::{NodeName, Urgency};
use crate::clock::Timestamp;
use crate::custody::Arrival as Come;
use crate::custody::overlay::Stopped;
use crate::orders::registrar::{Hint, StudyRef};
use crate::orders::verdict::What as Told;
use crate::orders::words::Word;
use crate::reports::matching::{Target, Wanted};
use crate::reports::note::{Note, Says};
use crate::reports::report::Status;
use crate::reports::turnaround::{Loop, Moment, Owed};

/// Studies without a loop that are remembered, so that each image costs no look at the book.
const SEEN_MAX: usize = 10_000;
/// How long the registrar has to look at a new study.
const SETTLE: Duration = Duration::from_secs(2);
/// How long it is asked what orders know of a study.
const ASKED: Duration = Duration::from_secs(3600);
/// A loop that nobody has ended by then is not open any more.
const OPEN_TIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Images that came this long before the book of reports was begun begin no loop: a node that is
/// given reports later does not ask for those of all studies that it ever had.
const BEFORE: Duration = Duration::from_secs(3600);
/// How often it is asked again of what is new or overdue: orders may come, change or be cancelled
/// after the images.
const AGAIN: Duration = Duration::from_secs(300);
/// Studies of which it is asked in one turn whether they are whole.
const WHOLES_MAX: usize = 32;
/// The steps whose times stand in the histograms.
const STEPS: [(Moment, Moment); 6] = [
    (Moment::Sent, Moment::Received),
    (Moment::Received, Moment::Preliminary),
    (Moment::Received, Moment::Final),
    (Moment::Final, Moment::Delivered),
    (Moment::Delivered, Moment::Acknowledged),
    (Moment::Sent, Moment::Acknowledged),
];

/// Loops in memory.
#[derive(Debug, Default)]
pub(super) struct Loops {
    open: BTreeMap<LoopKey, LoopRecord>,
    /// Studies that are known, open or not.
    seen: BTreeSet<LoopKey>,
    /// Studies that may be whole.
    hints: BTreeSet<StudyRef>,
    /// All open studies are to be asked for.
    all: bool,
}

impl Loops {
    /// The registrar says that a study may be whole.
    pub(super) fn hint(&mut self, hint: Hint) {
        match hint {
            Hint::Study(study) => drop(self.hints.insert(study)),
            Hint::SomeLost => self.all = true,
        }
    }
}

impl Secretary {
    pub(super) async fn load_loops(&mut self) -> Result<(), Stopped> {
        let open: Vec<LoopRecord> = self.store.with(OPEN, b'l', OPEN_MAX).await?;
        self.loops = Loops { all: true, ..Loops::default() };
        for record in open {
            // What became overdue meanwhile is found at once.
            self.timers.set(What::Loop(record.key()), Some(Timestamp::default()));
            self.loops.open.insert(record.key(), record);
        }
        Ok(())
    }

    async fn loop_of(&self, key: &LoopKey) -> Result<Option<LoopRecord>, Stopped> {
        match self.loops.open.get(key) {
            Some(record) => Ok(Some(record.clone())),
            None => self.store.get(loop_entry_key(key)).await,
        }
    }

    fn keep_loop(&mut self, mut record: LoopRecord) {
        let key = record.key();
        let is_owed = !record.moments.owed(&self.config.promises).is_empty();
        let is_acknowledged = record.moments.at(Moment::Acknowledged).is_some();
        // What is acknowledged is open for its follow-up alone, where there is to be one.
        record.is_open = record.is_open && (!is_acknowledged || is_owed);
        self.store.put(record.entry());
        match record.is_open {
            true => drop(self.loops.open.insert(key, record)),
            false => {
                self.timers.set(What::Loop(key), None);
                self.loops.open.remove(&key);
            }
        }
    }

    fn open_time(&self) -> Duration {
        OPEN_TIME + self.config.promises.follow_up.unwrap_or_default()
    }

    /// An image has come: the first one of its study begins a loop.
    pub(super) async fn see_image(&mut self, come: &Come) -> Result<(), Stopped> {
        let envelope = &come.envelope;
        let hospital = envelope.identity.origin.clone();
        if come.kept_at + BEFORE < self.cursor.since {
            return Ok(());
        }
        let key = loop_key(&hospital, &envelope.study);
        if self.loops.seen.contains(&key) || self.loops.open.contains_key(&key) {
            return Ok(());
        }
        if self.loops.seen.len() >= SEEN_MAX {
            self.loops.seen.clear();
        }
        self.loops.seen.insert(key);
        if self.loop_of(&key).await?.is_some() {
            return Ok(());
        }
        let own = hospital == self.config.node;
        let at = if own { come.kept_at } else { envelope.received_at.min(come.kept_at) };
        let mut moments = Loop::new(envelope.urgency);
        moments.see(Moment::Sent, at);
        let record = LoopRecord {
            hospital,
            study: envelope.study.clone(),
            order: String::new(),
            route: String::new(),
            moments,
            is_known: false,
            counted: Vec::new(),
            told: Vec::new(),
            is_open: true,
        };
        self.timers.set(What::Loop(key), Some(come.kept_at + SETTLE));
        self.keep_loop(record);
        Ok(())
    }

    /// A moment of these studies was.
    pub(super) async fn see_of(
        &mut self,
        targets: &[Target],
        moment: Moment,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        // No clock of another node makes a moment later than now.
        let at = at.min(now);
        for target in targets.iter().filter(|t| !t.study.is_empty()) {
            let key = loop_key(&target.origin, &target.study);
            let Some(mut record) = self.loop_of(&key).await? else { continue };
            if record.moments.see(moment, at) {
                self.count(&mut record);
                self.keep_loop(record);
                self.plan(&key, now);
            }
        }
        Ok(())
    }

    /// A report has come.
    pub(super) async fn see_report(
        &mut self,
        targets: &[Target],
        status: Status,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        match status {
            Status::Preliminary => self.see_of(targets, Moment::Preliminary, at, now).await,
            Status::Final | Status::Corrected => self.see_of(targets, Moment::Final, at, now).await,
            Status::Cancelled => Ok(()),
        }
    }

    /// The reading node holds a study of this hospital whole.
    pub(super) async fn received(
        &mut self,
        study: &str,
        images: u64,
        at: Timestamp,
        by: &NodeName,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let key = loop_key(&self.config.node, study);
        let Some(mut record) = self.loop_of(&key).await? else { return Ok(()) };
        let at = at.min(now);
        if record.moments.see(Moment::Received, at) {
            tracing::info!(study, images, %by, "the reading node has the study whole");
            self.count(&mut record);
            self.tell_received(&record, (at, images), now);
            self.keep_loop(record);
            self.plan(&key, now);
        }
        Ok(())
    }

    /// Asks the registrar about studies that may be whole; true when there are more.
    pub(super) async fn look_at_wholes(&mut self, now: Timestamp) -> Result<bool, Stopped> {
        if std::mem::take(&mut self.loops.all) {
            let foreign = self.loops.open.values().filter(|r| r.hospital != self.config.node);
            let open = foreign.filter(|r| r.moments.at(Moment::Received).is_none());
            let of =
                |r: &LoopRecord| StudyRef { origin: r.hospital.clone(), study: r.study.clone() };
            let open: Vec<StudyRef> = open.map(of).collect();
            self.loops.hints.extend(open);
        }
        let some: Vec<StudyRef> = self.loops.hints.iter().take(WHOLES_MAX).cloned().collect();
        for study in some {
            self.loops.hints.remove(&study);
            let key = loop_key(&study.origin, &study.study);
            let Some(mut record) = self.loop_of(&key).await? else { continue };
            if study.origin == self.config.node {
                self.leaves_after_all(record, now);
                continue;
            }
            if record.moments.at(Moment::Received).is_some() {
                continue;
            }
            let whole = self.of_orders(self.orders.whole(&study.origin, &study.study)).await;
            let whole = match whole {
                Some(Some(whole)) => whole,
                Some(None) => continue,
                None => {
                    // Orders cannot be asked now: at the next turn, and no sooner.
                    self.loops.hints.insert(study);
                    return Ok(false);
                }
            };
            record.moments.see(Moment::Received, whole.at);
            self.count(&mut record);
            self.keep_loop(record);
            let says = Says::Received { images: whole.images };
            let hospital = study.origin.clone();
            let note = Note { hospital: hospital.clone(), study: study.study, at: whole.at, says };
            self.tell(note, hospital, Urgency::Urgent);
            self.plan(&key, now);
        }
        Ok(!self.loops.hints.is_empty())
    }

    /// A study that stayed here goes to a node now: its report is waited for.
    fn leaves_after_all(&mut self, mut record: LoopRecord, now: Timestamp) {
        if record.is_open || !record.route.is_empty() || record.moments.is_ended() {
            return;
        }
        (record.is_open, record.is_known) = (true, false);
        let key = record.key();
        self.keep_loop(record);
        self.plan(&key, now);
    }

    fn count(&self, record: &mut LoopRecord) {
        for step in STEPS {
            if record.counted.contains(&step) {
                continue;
            }
            let Some(seconds) = record.moments.seconds(step.0, step.1) else { continue };
            let urgency = record.moments.urgency();
            let labels = [&record.route, urgency.as_str(), step.0.as_str(), step.1.as_str()];
            self.metrics.reports.turnaround.with_label_values(&labels).observe(seconds as f64);
            record.counted.push(step);
        }
    }

    /// When a loop is looked at next.
    fn plan(&mut self, key: &LoopKey, now: Timestamp) {
        let Some(record) = self.loops.open.get(key) else { return };
        let end = record.moments.at(Moment::Sent).unwrap_or(now) + self.open_time();
        let next = match record.is_known {
            true => {
                let promises = &self.config.promises;
                let late = !record.moments.overdue(promises, now).is_empty();
                let is_new = now < record.moments.at(Moment::Sent).unwrap_or(now) + ASKED;
                let again = (late || is_new).then(|| now + AGAIN);
                record
                    .moments
                    .next(promises, now)
                    .into_iter()
                    .chain(again)
                    .min()
                    .map(|at| at.min(end))
            }
            false => Some(now + SETTLE),
        };
        let next = next.or(Some(end));
        self.timers.set(What::Loop(*key), next);
    }

    /// A loop's time has come: what orders know of it, and what is overdue.
    pub(super) async fn look_at_loop(
        &mut self,
        key: &LoopKey,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(mut record) = self.loops.open.get(key).cloned() else { return Ok(()) };
        let sent = record.moments.at(Moment::Sent).unwrap_or(now);
        let (before, was_known) = (record.clone(), record.is_known);
        let is_told = self.know(&mut record).await;
        if !was_known && !is_told && now < sent + ASKED {
            // Less and less often.
            let waited = Duration::from_secs(now.seconds_since(sent));
            self.timers.set(What::Loop(*key), Some(now + SETTLE.max(waited / 2)));
            return Ok(());
        }
        if !was_known && record.hospital != self.config.node {
            // The registrar may have said that it is whole before this loop was.
            let (origin, study) = (record.hospital.clone(), record.study.clone());
            self.loops.hints.insert(StudyRef { origin, study });
        }
        record.is_known = true;
        record.is_open = record.is_open && now < sent + self.open_time();
        let overdue = record.moments.overdue(&self.config.promises, now);
        let new: Vec<Owed> =
            overdue.iter().map(|(_, owed)| *owed).filter(|o| !record.told.contains(o)).collect();
        if !overdue.is_empty() && self.is_ended(&record).await {
            record.is_open = false;
        } else {
            for (due, owed) in overdue.iter().filter(|(_, owed)| new.contains(owed)) {
                self.tell_overdue(&record, (*due, *owed), now);
                record.told.push(*owed);
            }
        }
        if record != before {
            self.keep_loop(record);
        }
        self.plan(key, now);
        Ok(())
    }

    /// Asks orders about a study; false when they cannot be asked.
    async fn know(&self, record: &mut LoopRecord) -> bool {
        let wanted = Wanted { studies: vec![&record.study], ..Wanted::default() };
        let Some(known) = self.known(&wanted).await else { return false };
        let own = known
            .iter()
            .filter(|k| k.facts.origin == record.hospital && k.facts.study == record.study);
        let facts: Vec<_> = own.collect();
        let Some(first) = facts.first() else { return false };
        record.is_known = true;
        record.route.clone_from(&first.facts.route);
        record.order =
            first.candidate.target.order.as_ref().map(|o| o.number.clone()).unwrap_or_default();
        for known in &facts {
            record.moments.hasten(known.facts.urgency);
        }
        // Nobody reads what stays here, nor what is sent for comparison.
        let stays = record.hospital == self.config.node && first.facts.route.is_empty();
        if stays || first.facts.is_prior {
            record.is_open = false;
        }
        true
    }

    async fn is_ended(&self, record: &LoopRecord) -> bool {
        let (origin, study) = (record.hospital.clone(), record.study.clone());
        let wanted = self.of_orders(self.orders.is_wanted(StudyRef { origin, study })).await;
        wanted == Some(false)
    }

    /// A person says that nobody waits for a report any more.
    pub(super) async fn dismiss_loop(
        &mut self,
        study: &str,
        by: &str,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let open = self.loops.open.values().filter(|r| r.study == study);
        let open: Vec<LoopRecord> = open.cloned().collect();
        if open.is_empty() {
            let what = format!("no report is waited for of study {study}");
            return Ok(Err(DeskError::Unknown(what)));
        }
        for mut record in open {
            tracing::info!(study, by, "nobody waits for a report any more");
            record.moments.end();
            record.is_open = false;
            self.keep_loop(record);
        }
        Ok(Ok("nobody waits for its report any more".into()))
    }

    pub(super) fn loop_rows(&self, overdue: bool, limit: usize, now: Timestamp) -> Vec<LoopRow> {
        let mut rows: Vec<LoopRow> = self.loops.open.values().map(|r| self.row(r, now)).collect();
        if overdue {
            rows.retain(|row| !row.overdue.is_empty());
        }
        let first = |row: &LoopRow| {
            let next = row.overdue.first().or(row.owed.first());
            (next.map_or(i64::MAX, |(at, _)| at.0), row.study.clone())
        };
        rows.sort_by_key(first);
        rows.truncate(limit);
        rows
    }

    fn row(&self, record: &LoopRecord, now: Timestamp) -> LoopRow {
        let at = |m: Moment| record.moments.at(m).map(|at| (m, at));
        LoopRow {
            hospital: record.hospital.clone(),
            study: record.study.clone(),
            order: record.order.clone(),
            urgency: record.moments.urgency(),
            moments: Moment::ALL.into_iter().filter_map(at).collect(),
            owed: record.moments.owed(&self.config.promises),
            overdue: record.moments.overdue(&self.config.promises, now),
        }
    }

    /// How many loops owe what that is overdue.
    pub(super) fn overdue_counts(&self, now: Timestamp) -> BTreeMap<Owed, i64> {
        let mut counts = BTreeMap::new();
        for record in self.loops.open.values() {
            for (_, owed) in record.moments.overdue(&self.config.promises, now) {
                *counts.entry(owed).or_default() += 1;
            }
        }
        counts
    }

    pub(super) fn is_read_here(&self, study: &str) -> Option<NodeName> {
        let found = self.loops.open.values().find(|r| r.study == study);
        found.map(|r| r.hospital.clone())
    }
}

/// What a notice says of something that is overdue.
pub(super) fn about(owed: Owed) -> (Told, Word) {
    match owed {
        Owed::Receipt => (Told::ReportOverdue, Word::ReceiptOverdue),
        Owed::Report => (Told::ReportOverdue, Word::FinalOverdue),
        Owed::FollowUp => (Told::FollowUpDue, Word::FollowUpSince),
        Owed::Acknowledgement => (Told::ReportUnacknowledged, Word::AcknowledgementOverdue),
    }
}
