//! Notes between nodes: written, given to custody, taken in.
//!
//! A hospital believes a reading node about documents that this has collected and studies of this
//! hospital that were sent to it; a reading node believes a hospital about its own studies. All else
//! is told in the log and passed over.

use super::Secretary;
use super::record::{DOCUMENTS_MAX, Fate, NoteRecord, ReportRecord, TARGETS_MAX, report_key};
use crate::cargo::{
    Assignment, CargoKind, DestinationName, Envelope, Identity, NodeName, Sha256, TEXT_LENGTH_MAX,
    Urgency, peer_text,
};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::{Arrival as Come, Draft};
use crate::reports::matching::Target;
use crate::reports::note::{Handed, Note, Says};
use crate::reports::report::Status;
use crate::reports::turnaround::Moment;

/// Systems of a hospital that are remembered of one report.
const HANDED_MAX: usize = 32;
/// Notes that are given to custody in one turn.
const NOTES_MAX: usize = 64;

impl Secretary {
    /// A note is to go to a node; this one knows already.
    pub(super) fn tell(&mut self, note: Note, to: NodeName, urgency: Urgency) {
        if to == self.config.node {
            return;
        }
        let record = NoteRecord { bytes: note.encode(), key: note.key(), to: vec![to], urgency };
        self.store.put(record.entry());
        self.notes.insert(record.key.clone(), record);
    }

    /// Gives notes to custody; only what is durable here.
    pub(super) async fn send_notes(&mut self, now: Timestamp) -> Result<(), Stopped> {
        let some: Vec<NoteRecord> = self.notes.values().take(NOTES_MAX).cloned().collect();
        for note in some {
            let sha256 = Sha256::of(&note.bytes);
            let key = note.key.clone();
            let identity = Identity { origin: self.config.node.clone(), key, sha256 };
            let length = note.bytes.len() as u64;
            let mut envelope = Envelope::of_ours(CargoKind::Note, identity, length, now);
            envelope.urgency = note.urgency;
            let to = note.to.iter().map(|node| Assignment {
                destination: DestinationName::from(node),
                urgency: note.urgency,
                hold: None,
            });
            if let Err(error) = self.give(envelope, &note.bytes, to.collect()).await {
                tracing::warn!(error, "notes about reports wait for custody");
                return Ok(());
            }
            self.notes.remove(&note.key);
            self.store.remove([b"n", note.key.as_bytes()].concat());
        }
        Ok(())
    }

    /// Gives something to custody; cargo that it has keeps its duties and gets these, too. The
    /// number of the cargo.
    pub(super) async fn give(
        &self,
        envelope: Envelope,
        body: &[u8],
        to: Vec<Assignment>,
    ) -> Result<u64, String> {
        let mut assembly = self.custody.assemble();
        assembly.push(body).await.map_err(|e| e.to_string())?;
        let draft = Draft { envelope, body: assembly.finish(), assignments: to.clone() };
        let kept = self.custody.take(draft).await.map_err(|e| e.to_string())?;
        if !kept.is_new() {
            self.custody.route_again(&kept, to).await.map_err(|e| e.to_string())?;
        }
        Ok(kept.cargo().0)
    }

    /// Looks at a note that has come; false: orders have to be asked about it, and cannot be now.
    pub(super) async fn take_note(&mut self, come: &Come, now: Timestamp) -> Result<bool, Stopped> {
        let writer = come.envelope.identity.origin.clone();
        let bytes = come.body.read().await.unwrap_or_default();
        let Some(note) = Note::decode(&bytes) else {
            tracing::warn!(%writer, "a note about a report is unreadable; kept, and passed over");
            return Ok(true);
        };
        let own = self.config.node.clone();
        let is_peer = self.config.peers.contains(&writer);
        let of_ours = is_peer && note.hospital == own;
        let of_theirs = is_peer && note.hospital == writer;
        // A report of its own that was taken, perhaps because a person let it go.
        let has_report = match &note.says {
            Says::Critical { report, .. } => {
                self.report(report).await?.is_some_and(|record| record.from == writer)
            }
            _ => false,
        };
        let believed = match &note.says {
            // Of its documents each study is looked at.
            Says::Belongs(_) => of_ours,
            // Of an order without a study nothing can be asked, and an alarm is better than none.
            Says::Critical { .. } if of_ours && (has_report || note.study.is_empty()) => true,
            Says::Received { .. } | Says::Words(_) | Says::Critical { .. } if of_ours => {
                match self.was_sent(&note.study, &writer).await {
                    Some(was_sent) => was_sent,
                    None => return Ok(false),
                }
            }
            Says::Received { .. } => false,
            Says::Handed(_) | Says::Known { .. } | Says::Critical { .. } | Says::Words(_) => {
                of_theirs
            }
        };
        if !believed {
            tracing::warn!(%writer, "a note is about what its writer has nothing to do with; passed over");
            return Ok(true);
        }
        self.believe(note, writer, now).await?;
        Ok(true)
    }

    async fn believe(
        &mut self,
        note: Note,
        writer: NodeName,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let own = self.config.node.clone();
        match note.says {
            Says::Belongs(slip) => {
                let of_hospital = !slip.targets.is_empty()
                    && slip.targets.len() <= TARGETS_MAX
                    && slip.targets.iter().all(|t| t.origin == own && is_short(t));
                if of_hospital && is_report_id(&slip.report) {
                    self.take_slip(slip, &writer, now).await?;
                }
            }
            Says::Received { images } => {
                self.received(&note.study, images, note.at, &writer, now).await?;
            }
            Says::Words(_) if note.study.len() > TEXT_LENGTH_MAX => {}
            Says::Words(words) => {
                let said = (note.hospital, note.study, note.at);
                self.take_words(said, words, writer, now).await?;
            }
            Says::Handed(handed) => self.take_handed(handed, &writer, note.at, now).await?,
            Says::Known { report, by, done } => {
                if let Some(record) = self.report_with(&report, &writer).await? {
                    self.known_there(record, &peer_text(&by), &peer_text(&done), note.at, now)
                        .await?;
                }
            }
            Says::Critical { report, reasons } if note.hospital == own => {
                if is_report_id(&report) {
                    let about = (report.as_str(), note.study, &writer);
                    self.flagged_there(about, reasons, now).await?;
                }
            }
            Says::Critical { report, reasons } => {
                if let Some(mut record) = self.report_with(&report, &writer).await? {
                    self.flag(&mut record, "", reasons, note.at.min(now));
                    self.store.put(record.entry());
                }
            }
        }
        Ok(())
    }

    /// A report of a hospital, as that calls it.
    async fn report_with(
        &self,
        id: &str,
        hospital: &NodeName,
    ) -> Result<Option<ReportRecord>, Stopped> {
        Ok(self.report(id).await?.filter(|record| record.hospital == *hospital))
    }

    pub(super) async fn report(&self, id: &str) -> Result<Option<ReportRecord>, Stopped> {
        if !is_report_id(id) {
            return Ok(None);
        }
        self.store.get(report_key(id)).await
    }

    /// A hospital has handed a version to one of its systems, or could not.
    async fn take_handed(
        &mut self,
        handed: Handed,
        writer: &NodeName,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(mut record) = self.report_with(&handed.report, writer).await? else {
            return Ok(());
        };
        let mut handed =
            Handed { yes: peer_text(&handed.yes), no: peer_text(&handed.no), ..handed };
        handed.documents.truncate(DOCUMENTS_MAX);
        if record.handed.contains(&handed) {
            return Ok(());
        }
        let what = match handed.no.is_empty() {
            true => format!("{} has it: {}", handed.destination, handed.yes),
            false => format!("{} does not take it: {}", handed.destination, handed.no),
        };
        record.happened(at, "handed", what, writer.as_str());
        let mut of = record.chain.arrivals().filter(|a| handed.documents.contains(&a.digest));
        let is_early = of.any(|a| a.status == Status::Preliminary);
        let moments = [
            (!handed.yes.is_empty() && !is_early, Moment::Delivered),
            (handed.all && !is_early, Moment::Acknowledged),
        ];
        record.handed.retain(|h| h.destination != handed.destination);
        record.handed.push(handed);
        let more = record.handed.len().saturating_sub(HANDED_MAX);
        record.handed.drain(..more);
        for (_, moment) in moments.into_iter().filter(|(is, _)| *is) {
            self.see_of(&record.targets.clone(), moment, at, now).await?;
        }
        self.store.put(record.entry());
        Ok(())
    }

    /// At the hospital: tells the reading node what became of a part.
    pub(super) fn tell_handed(&mut self, record: &ReportRecord, part: &Sha256, now: Timestamp) {
        let Some(sending) = record.sendings.iter().find(|s| s.part == *part) else { return };
        let (yes, no) = match &sending.fate {
            Fate::Yes(_, words) => (words.clone(), String::new()),
            Fate::No(why) | Fate::Unmade(why) => (String::new(), why.clone()),
            Fate::Open | Fate::Replaced => return,
        };
        let yes = if yes.is_empty() && no.is_empty() { "accepted".to_owned() } else { yes };
        let handed = Handed {
            report: record.id.clone(),
            documents: sending.documents.clone(),
            destination: sending.destination.clone(),
            yes,
            no,
            all: record.is_over(),
        };
        let study = record.targets.first().map(|t| t.study.clone()).unwrap_or_default();
        let note =
            Note { hospital: record.hospital.clone(), study, at: now, says: Says::Handed(handed) };
        self.tell(note, record.from.clone(), Urgency::Routine);
    }
}

/// Whether names are as long as names are.
fn is_short(target: &Target) -> bool {
    let number = target.order.as_ref().map_or(0, |order| order.number.len());
    target.study.len().max(number) <= TEXT_LENGTH_MAX
}

fn is_report_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|c| c.is_ascii_hexdigit())
}
