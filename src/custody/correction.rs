//! Versions of an image that were corrected by its order, and their way into the place of the version
//! as received.
//!
//! A corrected version is a piece of cargo of its own under the same UID; its record says the digest
//! of the bytes as received, so that a sender that sends those again gets the same yes, and no second
//! copy. No conflict: the two are known to be one image.
//!
//! Where the version as received is here and waits, the corrected one takes its place in this order,
//! each step durable before the next: the corrected one is taken, held at the same destinations;
//! the former is dismissed and the corrected one released, as facts of one turn in this order. A crash
//! leaves both held, or the first dismissed and the second held, and the steps are done again
//! ([`Custody::waiting`] finds what is left of them). So never are both sent, and never is none.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::assembly::{Assembled, AssembledStore, Assembly};
use super::custodian::{Custodian, LedgerState, Request};
use super::ledger::LedgerError;
use super::log::LARGE_BODY_OFFSET;
use super::rows::{CargoId, CargoRow, DestinationNumber, Versions, identity_key, versions_key};
use super::state::{DutyEvent, DutyState};
use super::{AssembleError, Body, Custody, Draft, Kept, TakeError};
use crate::cargo::{Assignment, DestinationName, Envelope, Identity, Sha256, StudyKey, peer_text};
use crate::clock;
use crate::dicom::correct::{CORRECTED, Patch, Splice};
use crate::dicom::header::{Reading, read};

/// Why the duties of a corrected version are held until the former version is dismissed.
pub const SUPERSEDES: &str = "waits until the version as received is dismissed";
/// Bytes of a body that are copied at a time.
const CHUNK: usize = 1 << 20;

/// An image of a study that waits, and may be corrected before it leaves.
#[derive(Debug)]
pub struct Waiting {
    /// Its number.
    pub cargo: CargoId,
    /// Its envelope.
    pub envelope: Envelope,
    /// Its bytes.
    pub body: Body,
    /// The duties that wait.
    pub to: Vec<Assignment>,
    /// The version that is to take its place, where that was begun.
    pub successor: Option<CargoId>,
}

/// Which duties of images wait for another room's word.
#[derive(Debug, Clone, Copy)]
pub struct HeldBy {
    /// Who holds them.
    pub by: &'static str,
    /// Reasons for which routes hold them for its sake.
    pub reasons: &'static [&'static str],
}

impl HeldBy {
    pub(super) fn holds(&self, state: &DutyState) -> bool {
        match state {
            DutyState::Held { reason, by } => {
                by == self.by || (by == "route" && self.reasons.contains(&reason.as_str()))
            }
            _ => false,
        }
    }
}

fn dismissal(new: CargoId) -> String {
    format!("corrected as cargo {new}")
}

/// The envelope of a corrected version, from that of the version as received.
pub fn corrected(envelope: &Envelope, body: &Assembled, patch: &Patch) -> Envelope {
    let complete = body.head().len() as u64 == body.len();
    let mut new = envelope.clone();
    if let Reading::Header(header) = read(body.head(), &envelope.transfer_syntax, complete) {
        new.accession = peer_text(header.accession());
        new.patient_id = peer_text(header.patient_id());
    }
    let (changed, received) = (patch.keywords().join(", "), envelope.identity.sha256);
    new.flags.push(format!("{CORRECTED}{changed}"));
    new.flags.push(format!("SHA-256 as received: {received}"));
    new.identity.sha256 = body.sha256();
    new.length = body.len();
    new
}

impl Custodian {
    fn waiting_of(
        &mut self,
        study: StudyKey,
        after: CargoId,
        held: HeldBy,
        max: usize,
    ) -> Result<Vec<Waiting>, LedgerError> {
        let mut all = Vec::new();
        for id in self.members(study, after)? {
            if all.len() == max {
                break;
            }
            let LedgerState::Ready(view) = &self.ledger else { break };
            let Some(row) = view.cargo(id)?.filter(|row| row.present && !row.corrected) else {
                continue;
            };
            let successor = self.successor(id, &row)?;
            // Of steps that a crash cut, what waits is the version that has come.
            let unfinished = match successor {
                Some(new) => self.supersedes(new)?,
                None => false,
            };
            let LedgerState::Ready(view) = &self.ledger else { break };
            let of = row.duties.iter().filter(|d| held.holds(&d.state));
            let to: Vec<Assignment> = of
                .map(|d| Assignment {
                    destination: view.name(d.destination).clone(),
                    urgency: d.urgency,
                    hold: Some(SUPERSEDES.into()),
                })
                .collect();
            if to.is_empty() && !unfinished {
                continue;
            }
            if let Some((cargo, envelope, body)) = self.read_for_routing(id) {
                all.push(Waiting { cargo, envelope, body, to, successor });
            }
        }
        Ok(all)
    }

    /// The corrected version of a piece that is here as received.
    fn successor(&self, id: CargoId, row: &CargoRow) -> Result<Option<CargoId>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
        let versions: Option<Versions> = view.ledger.get(&versions_key(&row.identity))?;
        let versions = versions.unwrap_or_default().0;
        let Some(own) = versions.iter().find(|v| v.cargo == id.0) else { return Ok(None) };
        let new = versions.iter().rev().find(|v| v.corrects(&own.digest));
        Ok(new.map(|v| CargoId(v.cargo)))
    }

    /// Whether duties of a corrected version still wait for the former one's dismissal.
    fn supersedes(&self, new: CargoId) -> Result<bool, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(false) };
        let row = view.cargo(new)?;
        Ok(row.is_some_and(|row| row.duties.iter().any(|d| waits_for_dismissal(&d.state))))
    }

    /// Puts the corrected version in the place of the former one; how many duties changed hands.
    fn supersede(&mut self, old: CargoId, new: CargoId, held: HeldBy) -> Result<u64, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(0) };
        let (Some(former), Some(later)) = (view.cargo(old)?, view.cargo(new)?) else {
            return Ok(0);
        };
        let waits = later.duties.iter().filter(|d| waits_for_dismissal(&d.state));
        let waits: Vec<(DestinationNumber, DestinationName)> =
            waits.map(|d| (d.destination, view.name(d.destination).clone())).collect();
        let mut changed = 0;
        for (number, destination) in waits {
            let by = String::from(held.by);
            let dismiss = |reason| DutyEvent::Dismiss { by: by.clone(), reason, at: clock::wall() };
            let goes = match former.duty(number).map(|d| &d.state) {
                Some(state) if held.holds(state) => {
                    self.change_duty(old, &destination, dismiss(dismissal(new)), None)
                }
                Some(DutyState::Dismissed { reason, .. }) => *reason == dismissal(new),
                // A person has decided meanwhile, or it has left as it was.
                _ => false,
            };
            let event = match goes {
                true => DutyEvent::Release,
                false => dismiss("the version as received does not wait any more".into()),
            };
            changed += u64::from(self.change_duty(new, &destination, event, None) && goes);
        }
        Ok(changed)
    }

    /// Has another hold in the place of one; how many duties.
    fn hold_otherwise(
        &mut self,
        id: CargoId,
        held: HeldBy,
        reason: &str,
        by: &str,
    ) -> Result<u64, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(0) };
        let Some(row) = view.cargo(id)? else { return Ok(0) };
        let of = row.duties.iter().filter(|d| held.holds(&d.state));
        let names: Vec<DestinationName> = of.map(|d| view.name(d.destination).clone()).collect();
        let mut changed = 0;
        for name in names {
            // Both in one turn, between which nothing is leased.
            let hold = DutyEvent::Hold { reason: reason.into(), by: by.into() };
            changed += u64::from(
                self.change_duty(id, &name, DutyEvent::Release, None)
                    && self.change_duty(id, &name, hold, None),
            );
        }
        Ok(changed)
    }

    /// The version of which a corrected one has come: that very one, or an earlier correction of it.
    pub(super) fn corrected_before(
        &mut self,
        identity: &Identity,
        received: Sha256,
    ) -> Result<Before, LedgerError> {
        let Some(view) = self.view() else { return Ok(Before::Nothing) };
        let versions: Option<Versions> = view.ledger.get(&versions_key(&identity_key(identity)))?;
        let versions = versions.unwrap_or_default().0;
        let digest = &received.0[..16];
        if let Some(version) = versions.iter().rev().find(|v| v.corrects(digest)) {
            let id = CargoId(version.cargo);
            if let Some(row) = view.cargo(id)?.filter(|row| row.present) {
                return Ok(Before::Corrected(id, row));
            }
        }
        let known = versions.iter().any(|v| v.digest[..] == *digest);
        Ok(if known { Before::Received } else { Before::Nothing })
    }

    fn left_as_received(&self, study: StudyKey) -> Result<u64, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(0) };
        let mut left = 0;
        for id in self.members(study, CargoId(0))? {
            let row = view.cargo(id)?.filter(|row| !row.corrected);
            let went = |row: CargoRow| {
                row.duties.iter().any(|d| matches!(d.state, DutyState::Receipted { .. }))
            };
            left += u64::from(row.is_some_and(went));
        }
        Ok(left)
    }
}

/// What is here of the image that a corrected version is of.
#[derive(Debug)]
pub(super) enum Before {
    /// Nothing.
    Nothing,
    /// The bytes as received.
    Received,
    /// Another correction of the same bytes: it stays.
    Corrected(CargoId, CargoRow),
}

fn waits_for_dismissal(state: &DutyState) -> bool {
    matches!(state, DutyState::Held { reason, by } if reason == SUPERSEDES && by == "route")
}

impl Custody {
    /// Takes a corrected version, of bytes with the digest `received`, into custody, like
    /// [`take`](Self::take). A version that was corrected before stays the only one.
    ///
    /// # Errors
    ///
    /// [`TakeError`]: nothing was kept.
    pub async fn take_corrected(&self, draft: Draft, received: Sha256) -> Result<Kept, TakeError> {
        self.take_as(draft, Some(received)).await
    }

    /// Images of a study after number `after` whose duties wait so, at most `max`; with those of which
    /// a crash has cut the replacement. `None`: custody has stopped.
    pub async fn waiting(
        &self,
        study: StudyKey,
        after: CargoId,
        held: HeldBy,
        max: usize,
    ) -> Option<Vec<Waiting>> {
        self.look(move |c| c.waiting_of(study, after, held, max)).await
    }

    /// Dismisses what waits so of `old` and releases `new` in its place; how many duties. Durable when
    /// this returns.
    pub async fn supersede(&self, old: CargoId, new: CargoId, held: HeldBy) -> Option<u64> {
        self.change(move |c| c.supersede(old, new, held)).await?.ok()
    }

    /// Has what waits so of a piece wait for another reason, of which only a person lets it go; how
    /// many duties. Durable when this returns.
    pub async fn hold_otherwise(
        &self,
        cargo: CargoId,
        held: HeldBy,
        reason: String,
        by: &'static str,
    ) -> Option<u64> {
        self.change(move |c| c.hold_otherwise(cargo, held, &reason, by)).await?.ok()
    }

    /// Images of a study that have left as they were received.
    pub async fn left_as_received(&self, study: StudyKey) -> Option<u64> {
        self.look(move |c| c.left_as_received(study)).await
    }

    pub(super) async fn take_as(
        &self,
        mut draft: Draft,
        received: Option<Sha256>,
    ) -> Result<Kept, TakeError> {
        draft.body.settle(self).await.map_err(|e| match e {
            AssembleError::Full(why) => TakeError::Full(why),
            AssembleError::Stopped => TakeError::Stopped,
            other => TakeError::Io(other.to_string()),
        })?;
        self.requests
            .ask(|reply| Request::Take { draft: Box::new(draft), received, reply })
            .await
            .unwrap_or(Err(TakeError::Stopped))
    }
}

/// Copies a body with changes, piece by piece.
struct Splicing<'a> {
    splices: &'a [Splice],
    /// How far the original was read.
    at: usize,
    /// Bytes of the original that are still to be passed over.
    gone: usize,
    out: Assembly,
}

impl Splicing<'_> {
    /// The next bytes of the original.
    async fn push(&mut self, mut bytes: &[u8]) -> Result<(), AssembleError> {
        loop {
            let over = self.gone.min(bytes.len());
            (self.gone, self.at) = (self.gone - over, self.at + over);
            bytes = &bytes[over..];
            if self.gone > 0 {
                return Ok(());
            }
            let next = self.splices.first().filter(|s| s.at - self.at <= bytes.len());
            let Some(splice) = next else {
                self.at += bytes.len();
                return self.out.push(bytes).await;
            };
            let (before, rest) = bytes.split_at(splice.at - self.at);
            self.out.push(before).await?;
            self.out.push(&splice.new).await?;
            (self.at, self.gone, bytes) = (splice.at, splice.gone, rest);
            self.splices = &self.splices[1..];
        }
    }
}

impl Assembled {
    async fn settle(&mut self, custody: &Custody) -> Result<(), AssembleError> {
        match &mut self.store {
            AssembledStore::File(file) => file.settle(&custody.shared.stop).await,
            AssembledStore::Memory(..) => Ok(()),
        }
    }

    /// All its bytes, for what must be read as a whole. The caller bounds its length.
    ///
    /// # Errors
    ///
    /// [`AssembleError::Io`], or custody has stopped.
    pub async fn bytes(&mut self, custody: &Custody) -> Result<Vec<u8>, AssembleError> {
        self.settle(custody).await?;
        let length = usize::try_from(self.len()).map_err(std::io::Error::other)?;
        let path = match &self.store {
            AssembledStore::Memory(bytes, _) => return Ok(bytes.clone()),
            AssembledStore::File(file) => file.path.clone(),
        };
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            File::open(path)?.read_exact_at(&mut bytes, LARGE_BODY_OFFSET).map(|()| bytes)
        });
        Ok(read.await.map_err(std::io::Error::other)??)
    }

    /// The same body with changes. A body that is in a file is written a second time.
    ///
    /// # Errors
    ///
    /// [`AssembleError`], as for any body on its way in.
    pub async fn spliced(
        &mut self,
        custody: &Custody,
        splices: &[Splice],
    ) -> Result<Self, AssembleError> {
        self.settle(custody).await?;
        let mut copy = Splicing { splices, at: 0, gone: 0, out: custody.assemble() };
        let length = self.len();
        match &self.store {
            AssembledStore::Memory(bytes, _) => copy.push(bytes).await?,
            AssembledStore::File(file) => {
                let file = std::sync::Arc::new(File::open(&file.path)?);
                let mut at = 0;
                while at < length {
                    let n = usize::try_from(length - at).unwrap_or(CHUNK).min(CHUNK);
                    let (file, offset) = (file.clone(), LARGE_BODY_OFFSET + at);
                    let read = tokio::task::spawn_blocking(move || {
                        let mut chunk = vec![0; n];
                        file.read_exact_at(&mut chunk, offset).map(|()| chunk)
                    });
                    copy.push(&read.await.map_err(std::io::Error::other)??).await?;
                    at += n as u64;
                }
            }
        }
        Ok(copy.out.finish())
    }
}

impl Body {
    /// A body that is in custody, with changes; its digest is verified on the way.
    ///
    /// # Errors
    ///
    /// [`AssembleError`]; damaged bytes are an [`AssembleError::Io`].
    pub async fn spliced(
        &self,
        custody: &Custody,
        splices: &[Splice],
    ) -> Result<Assembled, AssembleError> {
        let mut copy = Splicing { splices, at: 0, gone: 0, out: custody.assemble() };
        let mut reader = self.reader(0);
        while let Some(chunk) = reader.next(CHUNK).await.map_err(std::io::Error::other)? {
            copy.push(&chunk).await?;
        }
        Ok(copy.out.finish())
    }
}
