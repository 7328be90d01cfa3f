//! What people decide about documents that wait.

use super::record::{DocumentRecord, Place, id_of};
use super::timers::What;
use super::{DeskError, Secretary, Why};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::reports::matching::{Target, Wanted};

impl Secretary {
    /// The document with this id; its digest or the first 32 digits of it.
    pub(super) async fn document_with(
        &self,
        id: &str,
    ) -> Result<Result<DocumentRecord, DeskError>, Stopped> {
        let unknown = || DeskError::Unknown(format!("there is no document {id}"));
        let half = |at: usize| u8::from_str_radix(id.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..16).map(|n| half(2 * n)).collect();
        let Some(bytes) = bytes.filter(|_| id.len() == 32 || id.len() == 64) else {
            return Ok(Err(unknown()));
        };
        let found: Vec<DocumentRecord> = self.store.below(&[b"d", &bytes[..]].concat(), 1).await?;
        let same = |doc: &DocumentRecord| doc.sha256.to_string().starts_with(id);
        Ok(found.into_iter().find(same).ok_or_else(unknown))
    }

    async fn held_with(
        &self,
        id: &str,
    ) -> Result<Result<(DocumentRecord, Why), DeskError>, Stopped> {
        let doc = match self.document_with(id).await? {
            Ok(doc) => doc,
            Err(error) => return Ok(Err(error)),
        };
        Ok(match doc.place.clone() {
            Place::Held(why) => Ok((doc, why)),
            Place::Waits => {
                let what = "the rest of it is still on its way from the other node";
                Err(DeskError::Refused(what.into()))
            }
            Place::Filed(report) => {
                Err(DeskError::Refused(format!("it does not wait: it is of report {report}")))
            }
            Place::Discarded(by, _) => {
                Err(DeskError::Refused(format!("{by} has decided that it goes nowhere")))
            }
        })
    }

    /// A person says where a document belongs.
    pub(super) async fn match_by_hand(
        &mut self,
        id: &str,
        to: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let (mut doc, why) = match self.held_with(id).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if doc.from != self.config.node {
            let what = format!("it is matched where it was collected: at {}", doc.from);
            return Ok(Err(DeskError::Refused(what)));
        }
        if why == Why::Unreadable {
            return Ok(Err(DeskError::Refused("its bytes cannot be read".into())));
        }
        let target = match self.target_named(to).await {
            Ok(target) => target,
            Err(error) => return Ok(Err(error)),
        };
        tracing::info!(document = id, by, "a person says where a report belongs");
        let place = place_of(&target);
        doc.matched = Some((by.to_owned(), target));
        let sha256 = doc.sha256;
        self.place(doc, now).await?;
        self.said_by_hand(&sha256, &format!("belongs to {place}"), by, now).await?;
        Ok(Ok(match self.document(&sha256).await?.map(|doc| doc.place) {
            Some(Place::Held(why)) => {
                format!("it belongs to {place} now, and still waits: {}", words(&why))
            }
            _ => format!("it belongs to {place} and is on its way"),
        }))
    }

    /// The one study or order that a person names.
    async fn target_named(&self, to: &str) -> Result<Target, DeskError> {
        let (hospital, name) = match to.split_once('/') {
            Some((hospital, name)) if self.is_hospital(hospital) => (Some(hospital), name),
            _ => (None, to),
        };
        let wanted = Wanted {
            studies: vec![name],
            accessions: vec![name],
            fillers: vec![name],
            placers: vec![name],
            instances: Vec::new(),
        };
        let known = self.known(&wanted).await.ok_or(DeskError::Stopped)?;
        let mut targets: Vec<Target> = known.into_iter().map(|k| k.candidate.target).collect();
        targets.retain(|t| hospital.is_none_or(|h| t.origin.as_str() == h));
        targets.sort();
        targets.dedup();
        // A study by its UID is meant with whatever order it has.
        if let Some(study) = targets.iter().find(|t| t.study == name)
            && targets.iter().all(|t| t.study == name && t.origin == study.origin)
        {
            return Ok(study.clone());
        }
        match targets.len() {
            1 => Ok(targets.remove(0)),
            0 => Err(DeskError::Unknown(format!("no hospital has sent a study or order {to}"))),
            _ => {
                let places: Vec<String> = targets.iter().map(place_of).collect();
                let what = format!("{to} may be several: {}", places.join(", "));
                Err(DeskError::Refused(format!("{what}; name one by HOSPITAL/STUDY")))
            }
        }
    }

    fn is_hospital(&self, name: &str) -> bool {
        self.config.peers.iter().chain([&self.config.node]).any(|node| node.as_str() == name)
    }

    async fn said_by_hand(
        &mut self,
        sha256: &crate::cargo::Sha256,
        what: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(DocumentRecord { place: Place::Filed(report), .. }) =
            self.document(sha256).await?
        else {
            return Ok(());
        };
        if let Some(mut record) = self.report(&report).await? {
            record.happened(now, "person", format!("document {} {what}", id_of(sha256)), by);
            self.store.put(record.entry());
        }
        Ok(())
    }

    /// A person answers for a document whose signer is not on the list, that has lost characters, or
    /// that comes from a node that nothing was sent to.
    pub(super) async fn release(
        &mut self,
        id: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let (mut doc, why) = match self.held_with(id).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if !matches!(why, Why::Signer(_) | Why::Garbled | Why::NotSent(_)) {
            let what = format!("it does not wait for that: {}", words(&why));
            return Ok(Err(DeskError::Refused(what)));
        }
        tracing::info!(document = id, by, "a person answers for a report");
        doc.released_by = Some(by.to_owned());
        let sha256 = doc.sha256;
        self.place(doc, now).await?;
        self.said_by_hand(&sha256, "goes on all the same", by, now).await?;
        Ok(Ok("it goes on".into()))
    }

    /// A person decides that a document goes nowhere. It is kept.
    pub(super) async fn discard(
        &mut self,
        id: &str,
        reason: &str,
        by: &str,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let (mut doc, _) = match self.held_with(id).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if reason.trim().is_empty() {
            return Ok(Err(DeskError::Refused("say why".into())));
        }
        tracing::info!(document = id, by, "a person decides that a report goes nowhere");
        doc.place = Place::Discarded(by.to_owned(), reason.to_owned());
        self.timers.set(What::Document(doc.sha256), None);
        self.store.put(doc.entry());
        Ok(Ok("it goes nowhere, and is kept".into()))
    }
}

/// A target, for people.
pub(super) fn place_of(target: &Target) -> String {
    match &target.order {
        Some(order) => format!("{}/{}", target.origin, order.number),
        None => format!("{}/{}", target.origin, target.study),
    }
}

/// Why a document waits, and what to do; without patient data.
pub(super) fn words(why: &Why) -> String {
    use crate::orders::identifier::Agreement;
    use crate::reports::matching::Outcome;
    use crate::reports::signers::Doubt;
    let match_it = "match it with `hikyaku report match`, or discard it";
    match why {
        Why::Match(Outcome::Found { .. }) => "it is about to be placed".into(),
        Why::Match(Outcome::None) => {
            format!("nothing that it names is known here; it is tried again by itself, or {match_it}")
        }
        Why::Match(Outcome::Several { targets, .. }) => {
            let places: Vec<String> = targets.iter().map(place_of).collect();
            format!("it could belong to {}; {match_it}", places.join(", "))
        }
        Why::Match(Outcome::PatientDiffers { target, agreement, .. }) => {
            let how = match agreement {
                Agreement::Different => "its patient is another than that",
                _ => "it cannot be told whether its patient is that",
            };
            format!("{how} of {}; compare them, then {match_it}", place_of(target))
        }
        Why::Match(Outcome::NumberDiffers { target, .. }) => {
            let place = place_of(target);
            format!("its accession number is another than that of {place}; compare, then {match_it}")
        }
        Why::Signer(Doubt::Unsigned) => {
            "nobody has signed it; have it signed, or let it go with `hikyaku report release`".into()
        }
        Why::Signer(Doubt::Unknown) => {
            "who has signed it is not on the list; complete the list, or let it go with `hikyaku report release`".into()
        }
        Why::Full => "its report has more versions than are kept; ask its sender".into(),
        Why::Garbled => {
            "characters of its text could not be read: see to the character set that its message names (MSH-18) and have it sent again, or let it go with `hikyaku report release`".into()
        }
        Why::Unreadable => "its bytes cannot be read; have it sent again".into(),
        Why::Unknown(targets) if targets.is_empty() => {
            "the node that sent it has not said where it belongs; ask there".into()
        }
        Why::Unknown(targets) => {
            let places: Vec<String> = targets.iter().map(place_of).collect();
            format!("nothing is known here of {}; it is tried again by itself", places.join(", "))
        }
        Why::NotSent(targets) => {
            let places: Vec<String> = targets.iter().map(place_of).collect();
            let places = places.join(", ");
            format!("it is about {places}, which was never sent to the node that it comes from; find out why, then let it go with `hikyaku report release`, or discard it")
        }
    }
}
