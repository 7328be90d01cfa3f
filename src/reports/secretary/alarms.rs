//! Critical results: flagged at either node, told and acknowledged at the hospital.
//!
//! The ladder is climbed at the hospital alone, where the patient is; the reading node shows how far
//! it is. Whatever a person says is in the record, with his or her name.

use super::loops::about;
use super::record::{ALARMING, CRITICAL, LoopRecord, ReportRecord};
use super::{CriticalRow, DeskError, OPEN_MAX, Secretary};
use crate::cargo::{NodeName, Urgency};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::orders::verdict::What as Told;
use crate::orders::words::{Sentence, Word};
use crate::reports::critical::{Alarm, Event, Reason, State, Step};
use crate::reports::matching::{By, Target};
use crate::reports::note::{Note, Says};
use crate::reports::turnaround::Owed;

impl Secretary {
    /// A report is critical.
    pub(super) fn flag(
        &mut self,
        record: &mut ReportRecord,
        document: &str,
        reasons: Vec<Reason>,
        now: Timestamp,
    ) {
        let changed = match &mut record.alarm {
            Some(alarm) => alarm.flag(document, reasons, now),
            None => {
                record.alarm = Some(Alarm::new(document, reasons, now));
                true
            }
        };
        if changed {
            tracing::warn!(report = record.id, "a critical result");
            record.happened(now, "critical", "called critical".into(), "");
            record.is_open = record.hospital == self.config.node || record.is_open;
            record.is_acknowledged = false;
        }
    }

    pub(super) fn is_alarming(&self, record: &ReportRecord) -> bool {
        record.hospital == self.config.node
            && record.alarm.as_ref().is_some_and(|alarm| alarm.state() == State::Open)
    }

    /// Tells whom the ladder names; when to look again.
    pub(super) fn climb(&mut self, record: &mut ReportRecord, now: Timestamp) -> Option<Timestamp> {
        if record.hospital != self.config.node {
            return None;
        }
        let mut alarm = record.alarm.clone()?;
        alarm.rewind(now);
        let mut step = alarm.step(&self.config.ladder, now);
        while let Step::Tell { rung, to } = step {
            // Without a time: what is told again after a crash has the same id.
            let seed = format!("{} {}", record.id, alarm.notices());
            let detail = match rung {
                0 => Sentence::new(Word::CriticalSince, &[&alarm.since()]),
                _ => Sentence::new(Word::CriticalStep, &[&alarm.since(), &(rung + 1)]),
            };
            for rule in &to {
                let told = (Told::CriticalResult, detail.clone());
                self.tell_rule(rule, told, record, seed.as_bytes(), now);
            }
            tracing::warn!(report = record.id, rung, ?to, "people are told of a critical result");
            record.happened(now, "told", format!("rung {rung}: {}", to.join(", ")), "");
            alarm.told(rung, to, now);
            step = alarm.step(&self.config.ladder, now);
        }
        record.alarm = Some(alarm);
        match step {
            Step::Wait(at) => Some(at),
            Step::Nothing | Step::Tell { .. } => None,
        }
    }

    /// When people knew of what is critical; the beginning of time where nothing is.
    pub(super) fn known_at(&self, record: &ReportRecord) -> Timestamp {
        let record = record.alarm.as_ref().map(Alarm::record).unwrap_or_default();
        let known = record.iter().rev().find(|(_, e)| matches!(e, Event::Acknowledged(_)));
        known.map(|(at, _)| *at).unwrap_or_default()
    }

    async fn critical_of(
        &self,
        id: &str,
    ) -> Result<Result<(ReportRecord, Alarm), DeskError>, Stopped> {
        let Some(record) = self.report(id).await? else {
            return Ok(Err(DeskError::Unknown(format!("there is no report {id}"))));
        };
        Ok(match record.alarm.clone() {
            None => Err(DeskError::Refused(format!("report {id} is not critical"))),
            Some(_) if record.hospital != self.config.node => Err(DeskError::Refused(format!(
                "a critical result is acknowledged at the hospital: at {}",
                record.hospital
            ))),
            Some(alarm) => Ok((record, alarm)),
        })
    }

    /// A person knows of a critical result.
    pub(super) async fn acknowledge(
        &mut self,
        id: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let (mut record, mut alarm) = match self.critical_of(id).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = alarm.acknowledge(by, now) {
            return Ok(Err(DeskError::Refused(error.to_string())));
        }
        tracing::info!(report = id, by, "a person knows of a critical result");
        record.happened(now, "person", "knows of the critical result".into(), by);
        record.alarm = Some(alarm);
        self.known_here(record, by, "", now);
        Ok(Ok(format!("the critical result of report {id} is acknowledged by {by}")))
    }

    /// A person has dealt with a critical result.
    pub(super) async fn close(
        &mut self,
        id: &str,
        by: &str,
        done: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let (mut record, mut alarm) = match self.critical_of(id).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = alarm.close(by, done, now) {
            return Ok(Err(DeskError::Refused(error.to_string())));
        }
        tracing::info!(report = id, by, "a critical result is closed");
        record.happened(now, "person", "has closed the critical result".into(), by);
        record.alarm = Some(alarm);
        self.known_here(record, by, done, now);
        Ok(Ok(format!("the critical result of report {id} is closed by {by}")))
    }

    fn known_here(&mut self, mut record: ReportRecord, by: &str, done: &str, now: Timestamp) {
        let says = Says::Known { report: record.id.clone(), by: by.into(), done: done.into() };
        let study = record.targets.first().map(|t| t.study.clone()).unwrap_or_default();
        let note = Note { hospital: record.hospital.clone(), study, at: now, says };
        self.tell(note, record.from.clone(), Urgency::Urgent);
        if done.is_empty() {
            self.tell_known(&record, now, now);
        }
        record.is_open = true;
        self.timers.report_now(&record.id, now);
        self.store.put(record.entry());
    }

    /// Tells who wants to hear it that a person knows.
    fn tell_known(&mut self, record: &ReportRecord, at: Timestamp, now: Timestamp) {
        let events = record.alarm.as_ref().map(Alarm::record).unwrap_or_default();
        let how_often = events.iter().filter(|(_, e)| matches!(e, Event::Acknowledged(_))).count();
        let seed = format!("known {} {how_often}", record.id);
        let told = (Told::CriticalKnown, Sentence::new(Word::CriticalKnownAt, &[&at]));
        self.tell_rules(told, record, seed.as_bytes(), now);
    }

    /// The reading node calls a report critical, perhaps before it has come: its words overtake it.
    pub(super) async fn flagged_there(
        &mut self,
        (id, study, from): (&str, String, &NodeName),
        reasons: Vec<Reason>,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let mut record = match self.report(id).await? {
            Some(record) if record.from != *from => return Ok(()),
            Some(record) => record,
            None => {
                let target = Target { origin: self.config.node.clone(), study, order: None };
                ReportRecord::new(id.to_owned(), from.clone(), vec![target], By::Study)
            }
        };
        self.flag(&mut record, "", reasons, now);
        self.timers.report_now(id, now);
        self.store.put(record.entry());
        Ok(())
    }

    /// At the reading node: the hospital says that a person knows, or has closed it.
    pub(super) async fn known_there(
        &mut self,
        mut record: ReportRecord,
        by: &str,
        done: &str,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        // It may have been called critical there.
        let mut alarm = record
            .alarm
            .take()
            .unwrap_or_else(|| Alarm::new("", vec![Reason::Said(by.to_owned())], at.min(now)));
        let taken = match done.is_empty() {
            true => alarm.acknowledge(by, at),
            false => alarm.acknowledge(by, at).or(Ok(())).and_then(|()| alarm.close(by, done, at)),
        };
        record.alarm = Some(alarm);
        if taken.is_ok() {
            let what = match done.is_empty() {
                true => "knows of the critical result",
                false => "has closed the critical result",
            };
            record.happened(at, "person", what.to_owned(), by);
            if done.is_empty() {
                self.tell_known(&record, at, now);
            }
        }
        self.store.put(record.entry());
        Ok(())
    }

    /// A person or program calls a report critical.
    pub(super) async fn flag_by_hand(
        &mut self,
        id: &str,
        why: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let Some(mut record) = self.report(id).await? else {
            return Ok(Err(DeskError::Unknown(format!("there is no report {id}"))));
        };
        if why.trim().is_empty() {
            return Ok(Err(DeskError::Refused("say why it is critical".into())));
        }
        let reasons = vec![Reason::Said(format!("{by}: {why}"))];
        self.flag(&mut record, "", reasons.clone(), now);
        let own = self.config.node == record.hospital;
        let to = if own { record.from.clone() } else { record.hospital.clone() };
        let says = Says::Critical { report: record.id.clone(), reasons };
        let study = record.targets.first().map(|t| t.study.clone()).unwrap_or_default();
        let note = Note { hospital: record.hospital.clone(), study, at: now, says };
        self.tell(note, to, Urgency::Stat);
        self.timers.report_now(id, now);
        self.store.put(record.entry());
        Ok(Ok(format!("report {id} is critical")))
    }

    pub(super) async fn criticals(
        &self,
        all: bool,
        limit: usize,
    ) -> Result<Result<Vec<CriticalRow>, DeskError>, Stopped> {
        let term = if all { CRITICAL } else { ALARMING };
        let records: Vec<ReportRecord> = self.store.with(term, b'r', OPEN_MAX).await?;
        let row = |record: ReportRecord| {
            let alarm = record.alarm?;
            Some(CriticalRow {
                report: record.id,
                target: record.targets.into_iter().next()?,
                state: alarm.state(),
                since: alarm.since(),
                reasons: alarm.reasons().cloned().collect(),
                notices: alarm.notices(),
                record: alarm.record().to_vec(),
            })
        };
        let mut rows: Vec<CriticalRow> = records.into_iter().filter_map(row).collect();
        rows.sort_by_key(|row| row.since);
        rows.truncate(limit);
        Ok(Ok(rows))
    }

    /// Tells people what is overdue, once.
    pub(super) fn tell_overdue(
        &mut self,
        record: &LoopRecord,
        (due, owed): (Timestamp, Owed),
        now: Timestamp,
    ) {
        tracing::warn!(study = record.study, ?owed, "overdue");
        let seed = format!("overdue {} {} {owed:?}", record.hospital, record.study);
        let about_order = Some(record.order.clone()).filter(|o| !o.is_empty());
        let of = (record.hospital.clone(), record.study.clone(), about_order);
        let (what, word) = about(owed);
        self.tell_rules_of((what, Sentence::new(word, &[&due])), of, seed.as_bytes(), now);
    }
}
