//! Images that are to be as their order says, where a route says `correct`.
//!
//! Those that come are corrected before custody takes them: the intake asks ([`Desk::correction`]),
//! and goes on without an answer after [`CORRECTION_PATIENCE`]. Those that are here and wait are
//! corrected when a person has linked their study, before they are released: each gets a version that
//! takes its place (`custody/correction.rs`). That a study's duties are to be released is part of its
//! entry until it is done, so a crash anywhere is taken up again from there. What cannot be corrected
//! and shows another patient goes on waiting, for a person.
//!
//! [`SLICE`] images are corrected in one turn, so that nobody waits long for the registrar.

use std::time::Duration;

use minicbor::{Decode, Encode};

use super::answers::Event;
use super::cases::read_head;
use super::desk::Call;
use super::header;
use super::hold::{BY, ENDED, Todo};
use super::keys::{corrected_key, entry};
use super::record::{Dossier, StudyRef};
use super::{Desk, Registrar, hl7_time};
use crate::cargo::{CargoKind, Envelope, StudyKey};
use crate::clock::Timestamp;
use crate::custody::correction::{HeldBy, Waiting, corrected};
use crate::custody::overlay::Stopped;
use crate::custody::{Arrival, CargoId, Draft};
use crate::dicom::correct::{CORRECTED, Correction, HEADER_LENGTH_MAX, NOT_CORRECTED, Stamp};
use crate::dicom::header::{Header, Reading, read, tag_of};
use crate::orders::correction::{Decision, decide};
use crate::orders::identifier::Patient;

/// Longest wait of an image on its way in for what its order says of it.
pub const CORRECTION_PATIENCE: Duration = Duration::from_secs(2);
/// Images that are corrected in one turn.
const SLICE: usize = 16;
/// Who holds what cannot be corrected.
const CANNOT: &str = "correct";
/// Which duties are to be released.
const HELD: HeldBy = HeldBy { by: BY, reasons: ENDED };

/// What was corrected of a study.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct Corrections {
    /// Images that were corrected.
    #[n(0)]
    corrected: u32,
    /// Images that could not be.
    #[n(1)]
    refused: u32,
    /// Why the last of these could not.
    #[n(2)]
    why: String,
    /// Images that had left as they were received when the first was corrected.
    #[n(3)]
    left: u64,
    /// When the last of all these was.
    #[n(4)]
    at: Timestamp,
}

/// What became of one image that waits.
enum Done {
    /// It needs nothing more.
    Yes,
    /// Custody does not take it now.
    Later,
}

impl Desk {
    /// What the order of an image that is coming wants of it; `None`: nothing, or nobody can tell now.
    pub async fn correction(&self, envelope: &Envelope, header: &Header) -> Option<Correction> {
        let image = Box::new((envelope.clone(), header.clone()));
        let call = |reply| Call::Correction { image, reply };
        self.calls.ask_within(CORRECTION_PATIENCE, call).await.flatten()
    }
}

/// Whether an image came as its order says, because it was corrected.
fn was_corrected(envelope: &Envelope) -> bool {
    envelope.flags.iter().any(|flag| flag.starts_with(CORRECTED))
}

impl Registrar {
    /// What the order of an image wants of it.
    pub(super) async fn correction(
        &mut self,
        envelope: &Envelope,
        header: &Header,
        now: Timestamp,
    ) -> Result<Option<Correction>, Stopped> {
        let id =
            StudyRef { origin: envelope.identity.origin.clone(), study: envelope.study.clone() };
        if id.origin != self.config.node || id.study.is_empty() {
            return Ok(None);
        }
        let issuer = self.issuer_of(&id);
        let mut dossier = Dossier::new(&id, now);
        if let Some(known) = self.study(&id, None).await? {
            dossier.link.clone_from(&known.dossier.link);
            dossier.facts = known.dossier.facts.clone();
        }
        // What counts is what this image says, not what its study is known for.
        (dossier.facts.patient, dossier.facts.accession) = (Patient::default(), None);
        header::learn(&mut dossier.facts, envelope, Some(header), &issuer);
        let image = dossier.facts.patient.clone();
        if let Some(merges) = self.merges.get(&id.origin) {
            dossier.facts.patient = merges.settle(&image);
        }
        let (matched, candidates) = self.match_study(&dossier).await?;
        let Some(key) = matched.order() else { return Ok(None) };
        let Some(record) = candidates.iter().find(|o| o.key() == key) else { return Ok(None) };
        let order = record.history.order();
        let decision = decide(&image, &dossier.facts, &matched, &order);
        Ok(decision.map(|Decision { wanted, reason, moves }| {
            let stamp = Stamp {
                at: hl7_time(now, &self.config.zone),
                system: self.config.node.to_string(),
                source: envelope.calling_ae.clone(),
                reason,
            };
            Correction { wanted, stamp, moves }
        }))
    }

    /// Corrects some of what waits of one study, and releases it when nothing more is to be corrected;
    /// true when there is more to do.
    pub(super) async fn correct_some(&mut self, now: Timestamp) -> Result<bool, Stopped> {
        let Some((id, after)) = self.correcting.first_key_value() else { return Ok(false) };
        let (id, after) = (id.clone(), *after);
        let until_matched = self.config.until_matched;
        let todo = self.study(&id, None).await?.map(|s| s.dossier.todo(true, until_matched));
        if !matches!(todo, Some(Todo::Release)) {
            self.correcting.remove(&id);
            return Ok(true);
        }
        let key = StudyKey::of(&id.origin, &id.study);
        let waiting = self.custody.waiting(key, after, HELD, SLICE).await.ok_or(Stopped)?;
        if waiting.is_empty() {
            self.correcting.remove(&id);
            self.release(&id).await?;
            return Ok(true);
        }
        for image in waiting {
            let cargo = image.cargo;
            match self.correct_one(&id, image, now).await? {
                Done::Yes => drop(self.correcting.insert(id.clone(), cargo)),
                Done::Later => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn correct_one(
        &mut self,
        id: &StudyRef,
        image: Waiting,
        now: Timestamp,
    ) -> Result<Done, Stopped> {
        let Waiting { cargo, envelope, body, to, successor } = image;
        if let Some(new) = successor {
            // An earlier life has begun it.
            self.custody.supersede(cargo, new, HELD).await.ok_or(Stopped)?;
            return Ok(Done::Yes);
        }
        let syntax = &envelope.transfer_syntax;
        let Some(head) = read_head(&body, HEADER_LENGTH_MAX).await else { return Ok(Done::Yes) };
        let complete = head.len() as u64 == body.len();
        let Reading::Header(header) = read(&head, syntax, complete) else { return Ok(Done::Yes) };
        let attribute = |keyword: &str| header.attribute(tag_of(keyword)?).map(str::to_owned);
        if !self.ways.corrects(&envelope, &attribute) {
            return Ok(Done::Yes);
        }
        let Some(correction) = self.correction(&envelope, &header, now).await? else {
            return Ok(Done::Yes);
        };
        let patch = match correction.patch(&head, syntax, complete) {
            Ok(Some(patch)) => patch,
            Ok(None) => return Ok(Done::Yes),
            Err(why) => {
                let why = why.to_string();
                if correction.moves {
                    let reason = format!("{NOT_CORRECTED}{why}");
                    let held = self.custody.hold_otherwise(cargo, HELD, reason, CANNOT).await;
                    held.ok_or(Stopped)?;
                }
                tracing::warn!(%cargo, why, "an image cannot be corrected as its order says");
                self.note(id, |all| (all.refused, all.why) = (all.refused + 1, why), now).await?;
                return Ok(Done::Yes);
            }
        };
        let later = |error: &dyn std::fmt::Display| {
            tracing::warn!(%cargo, %error, "a correction waits for custody");
            Ok(Done::Later)
        };
        let body = match body.spliced(&self.custody, patch.splices()).await {
            Ok(body) => body,
            Err(error) => return later(&error),
        };
        let received = envelope.identity.sha256;
        let draft = Draft { envelope: corrected(&envelope, &body, &patch), body, assignments: to };
        let new = match self.custody.take_corrected(draft, received).await {
            Ok(kept) => kept.cargo(),
            Err(error) => return later(&error),
        };
        self.custody.supersede(cargo, new, HELD).await.ok_or(Stopped)?;
        let changed = patch.keywords().join(", ");
        tracing::info!(target: "audit", by = BY, %cargo, %new, changed, "image corrected");
        Ok(Done::Yes)
    }

    /// Before an image is looked at: counts its correction, and forgets what its study was known for,
    /// unless images have left that still say so.
    pub(super) async fn note_correction(&mut self, arrival: &Arrival) -> Result<(), Stopped> {
        let envelope = &arrival.envelope;
        let own = envelope.identity.origin == self.config.node;
        if envelope.kind != CargoKind::Image || !own || envelope.study.is_empty() {
            return Ok(());
        }
        let id =
            StudyRef { origin: envelope.identity.origin.clone(), study: envelope.study.clone() };
        let at = arrival.kept_at;
        if let Some(why) = envelope.flags.iter().find_map(|f| f.strip_prefix(NOT_CORRECTED)) {
            let why = why.to_owned();
            self.note(&id, |all| (all.refused, all.why) = (all.refused + 1, why), at).await?;
        }
        if !was_corrected(envelope) {
            return Ok(());
        }
        let before: Option<Corrections> = self.store.get(corrected_key(&id)).await?;
        let left = match before.filter(|all| all.corrected > 0) {
            Some(all) => all.left,
            None => {
                let key = StudyKey::of(&id.origin, &id.study);
                self.custody.left_as_received(key).await.ok_or(Stopped)?
            }
        };
        self.note(&id, |all| (all.corrected, all.left) = (all.corrected + 1, left), at).await?;
        if left == 0
            && let Some(study) = self.study(&id, None).await?
        {
            (study.dossier.facts.patient, study.dossier.facts.accession) =
                (Patient::default(), None);
        }
        Ok(())
    }

    async fn note(
        &mut self,
        id: &StudyRef,
        change: impl FnOnce(&mut Corrections),
        at: Timestamp,
    ) -> Result<(), Stopped> {
        let key = corrected_key(id);
        let before: Corrections = self.store.get(key.clone()).await?.unwrap_or_default();
        let mut all = before.clone();
        change(&mut all);
        all.at = at;
        for (word, n) in [
            ("corrected", all.corrected - before.corrected),
            ("refused", all.refused - before.refused),
        ] {
            self.metrics.corrections.with_label_values(&[word]).inc_by(u64::from(n));
        }
        self.store.put(entry(key, &all, Vec::new()));
        Ok(())
    }

    /// What was corrected of a study, as an event of its story.
    pub(super) async fn corrections(&self, id: &StudyRef) -> Result<Option<Event>, Stopped> {
        let all: Option<Corrections> = self.store.get(corrected_key(id)).await?;
        Ok(all.map(|all| {
            let mut what = format!("{} images corrected as their order says", all.corrected);
            if all.refused > 0 {
                what += &format!("; {} could not be: {}", all.refused, all.why);
            }
            if all.left > 0 {
                what += &format!("; {} had left before as they were received", all.left);
            }
            Event { at: all.at, kind: "correction", what, by: String::new() }
        }))
    }

    /// Before a study is released: whether some of it may have to be corrected first.
    pub(super) fn corrects_first(&mut self, id: &StudyRef, dossier: &Dossier) -> bool {
        let own = id.origin == self.config.node;
        if !own || dossier.matched.order().is_none() || !self.ways.corrects_any() {
            return false;
        }
        self.correcting.entry(id.clone()).or_insert(CargoId(0));
        true
    }
}
