//! To which report a document belongs, and what becomes of that.
//!
//! A document is of the report that it names, by its own id or by what it replaces; else of that with
//! the same filler's number; else of the only one of its study. Of several it is none: a report is
//! never put in another one's place by a guess.

use super::record::{DocumentRecord, Place, ReportRecord, order_term, report_id, study_term};
use super::{OPEN_MAX, Secretary};
use crate::cargo::NodeName;
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::reports::matching::{By, Target};
use crate::reports::report::Report;
use crate::reports::versions::{Applied, Arrival};

impl Secretary {
    /// The report that a document is a version or form of: one that is about the same study or
    /// order, and of the same line, or a new one.
    pub(super) async fn report_of(
        &self,
        targets: &[Target],
        said: &Report,
        from: &NodeName,
        by: By,
    ) -> Result<ReportRecord, Stopped> {
        let line = said.ids.filler.as_ref().map(|f| f.id.clone()).unwrap_or_default();
        let mut records: Vec<ReportRecord> = Vec::new();
        for target in targets {
            let mut terms = Vec::new();
            terms.extend(Some(&target.study).filter(|s| !s.is_empty()).map(|s| study_term(s)));
            terms.extend(target.order.as_ref().map(|order| order_term(&order.number)));
            for term in terms {
                let found: Vec<ReportRecord> = self.store.with(&term, b'r', OPEN_MAX).await?;
                records.extend(found.into_iter().filter(|r| r.shares(targets)));
            }
        }
        records.sort_by(|a, b| a.id.cmp(&b.id));
        records.dedup_by(|a, b| a.id == b.id);
        let found = records.iter().position(|r| names(r, said)).or_else(|| {
            records.iter().position(|r| r.line == line).or_else(|| match records.len() {
                1 if line.is_empty() || records[0].line.is_empty() => Some(0),
                // Of which of several it is nobody knows: it is one of its own.
                _ => None,
            })
        });
        if let Some(found) = found {
            let mut record = records.swap_remove(found);
            if record.line.is_empty() {
                record.line = line;
            }
            record.is_about(targets);
            return Ok(record);
        }
        let mut id = report_id(from, &targets[0], &line);
        if self.report(&id).await?.is_some() {
            // One of another number, or of another part of the order, began under this id.
            id = report_id(from, &targets[0], &format!("{line} {}", said.digest()));
        }
        Ok(ReportRecord { line, ..ReportRecord::new(id, from.clone(), targets.to_vec(), by) })
    }

    /// Makes a document one of a report's; false when the report has too many.
    pub(super) async fn file(
        &mut self,
        doc: &mut DocumentRecord,
        said: &Report,
        mut record: ReportRecord,
        now: Timestamp,
    ) -> Result<bool, Stopped> {
        let arrival = Arrival {
            digest: doc.digest,
            ..Arrival::of(said, &doc.sha256.to_string(), doc.arrived_at)
        };
        let applied = record.chain.apply(arrival);
        if applied == Applied::Full {
            return Ok(false);
        }
        let (id, report) = (doc.id(), record.id.clone());
        doc.place = Place::Filed(record.id.clone());
        let status = said.status.as_str();
        let by = said.source.clone();
        match applied {
            Applied::Latest => {
                record.happened(now, "arrived", format!("document {id}, {status}"), &by);
            }
            Applied::Late => {
                self.metrics.reports.late.inc();
                tracing::warn!(document = id, report, status, "a report came too late and is kept");
                let what = format!("document {id}, {status}: too late, a later version is there");
                record.happened(now, "arrived", what, &by);
            }
            Applied::Duplicate | Applied::Full => {}
        }
        for doubtful in record.chain.doubtful() {
            let digests = doubtful.documents.iter().map(|d| d.digest.to_string());
            let documents = digests.map(|d| d[..32].to_owned()).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                report,
                documents,
                "a final report was written after the correction that counts; a person should look"
            );
        }
        if !said.critical.is_empty() {
            self.flag(&mut record, &doc.id(), said.critical.clone(), now);
        }
        self.see_report(&record.targets.clone(), said.status, doc.arrived_at, now).await?;
        if record.hospital == self.config.node && applied == Applied::Latest {
            record.is_open = true;
            record.is_acknowledged = false;
        }
        self.timers.report_now(&record.id, now);
        self.store.put(record.entry());
        Ok(true)
    }
}

/// Whether a document says that it is of this report.
fn names(record: &ReportRecord, said: &Report) -> bool {
    let ids = &said.ids;
    record.chain.arrivals().any(|known| {
        let same = !ids.document.is_empty() && known.document == ids.document;
        same || (!known.document.is_empty() && ids.predecessors.contains(&known.document))
            || (!ids.document.is_empty() && known.predecessors.contains(&ids.document))
    })
}
