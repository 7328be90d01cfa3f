//! Taking cargo: room, identity, record, duties.

use std::io;
use std::os::unix::fs::FileExt;

use tokio::sync::oneshot;

use super::assembly::{Assembled, AssembledStore};
use super::correction::Before;
use super::custodian::{Custodian, LedgerState};
use super::fact::{self, CargoHead, Fact};
use super::log::{AppendError, Place};
use super::notes::NOTE_LENGTH_MAX;
use super::rows::{CargoId, CargoRow, origin_key};
use super::segment::Record;
use super::state::{DutyEvent, DutyState, StateName};
use super::view::{Applied, Known, first_state};
use super::{Draft, Kept, TakeError};
use crate::cargo::{Assignment, CargoKind, Envelope, Identity, Sha256, Urgency};
use crate::clock;

/// A record's own overhead on the disk, generously.
const OVERHEAD_BYTES: u64 = 2048;

impl Custodian {
    pub(super) fn take(
        &mut self,
        draft: Draft,
        received: Option<Sha256>,
        reply: oneshot::Sender<Result<Kept, TakeError>>,
    ) {
        let result = self.keep(draft, received);
        match &result {
            Ok(kept) if !kept.is_new() => self.metrics.kept_already.inc(),
            Ok(_) => {}
            Err(e) => self.metrics.refused.with_label_values(&[refusal_word(e)]).inc(),
        }
        self.answer(Box::new(move |durable| {
            let stopped = Err(TakeError::Stopped);
            let _ = reply.send(if durable || result.is_err() { result } else { stopped });
        }));
    }

    fn keep(&mut self, draft: Draft, received: Option<Sha256>) -> Result<Kept, TakeError> {
        let Draft { envelope, body, mut assignments } = draft;
        debug_assert_eq!(envelope.identity.sha256, body.sha256(), "the identity is the body's");
        let known = match self.view() {
            Some(view) => view.known(&envelope.identity),
            None => Ok(Known::No),
        };
        let known = known.map_err(|e| {
            self.ledger_failed(&e);
            TakeError::Stopped
        })?;
        let before = received.map(|received| self.corrected_before(&envelope.identity, received));
        let before = before.transpose().map_err(|e| {
            self.ledger_failed(&e);
            TakeError::Stopped
        })?;
        let mut conflict = None;
        match known {
            _ if let Some(Before::Corrected(id, row)) = &before => {
                let (id, row) = (*id, row.clone());
                if is_damaged(&row) {
                    return self.replace(id, &row, envelope, body, assignments, received);
                }
                self.needs_cargo_sync();
                return Ok(kept(id, &row, false));
            }
            // The bytes as received cannot stand for those that were corrected.
            Known::Same(id, row) if row.present && row.corrected && is_damaged(&row) => {
                conflict = Some(self.difference(id, &envelope, &body));
                self.metrics.conflicts.inc();
            }
            Known::Same(id, row) if row.present && is_damaged(&row) => {
                return self.replace(id, &row, envelope, body, assignments, None);
            }
            Known::Same(id, row) if row.present => {
                self.route_again(id, &assignments)?;
                self.needs_facts_sync();
                // A duplicate of a record of this very turn waits for its sync.
                self.needs_cargo_sync();
                return Ok(kept(id, &row, false));
            }
            Known::Same(id, row) => {
                assignments.retain(|a| !self.was_sent(&row, a));
                if assignments.is_empty() {
                    return Ok(kept(id, &row, false));
                }
            }
            Known::Other(_) if matches!(before, Some(Before::Received)) => {}
            Known::Other(first) => {
                conflict = Some(self.difference(first, &envelope, &body));
                self.metrics.conflicts.inc();
            }
            Known::No => {}
        }
        self.admit(&envelope, &assignments)?;
        self.record(envelope, body, assignments, (conflict, received))
    }

    /// True when a tombstone's duty to that destination has ended.
    fn was_sent(&self, row: &CargoRow, assignment: &Assignment) -> bool {
        let LedgerState::Ready(view) = &self.ledger else { return false };
        view.known_number(&assignment.destination).is_some_and(|n| row.duty(n).is_some())
    }

    fn admit(&mut self, envelope: &Envelope, assignments: &[Assignment]) -> Result<(), TakeError> {
        let limits = self.shared.room.load();
        let length = envelope.length + OVERHEAD_BYTES;
        let urgency = match envelope.kind {
            // News about cargo that is gone already must not be held up by a full disk.
            CargoKind::Note => Urgency::Stat,
            _ => assignments.iter().map(|a| a.urgency).min().unwrap_or(envelope.urgency),
        };
        limits.admit(self.usage, urgency, length).map_err(|why| {
            self.full_at = Some(clock::now());
            TakeError::Full(why)
        })?;
        let LedgerState::Ready(view) = &self.ledger else { return Ok(()) };
        for assignment in assignments {
            let number = view.known_number(&assignment.destination);
            let open = number.and_then(|n| view.totals.destinations.get(&n));
            let open = open.map_or(0, |t| t.open_bytes);
            limits.admit_for(&assignment.destination, open, length).map_err(TakeError::Full)?;
        }
        let origin = &envelope.identity.origin;
        let here = view.totals.origins.get(&origin_key(origin)).copied().unwrap_or(0);
        limits.admit_from(origin, here, length).map_err(TakeError::Full)
    }

    pub(super) fn record(
        &mut self,
        envelope: Envelope,
        body: Assembled,
        assignments: Vec<Assignment>,
        (conflict, received): (Option<String>, Option<Sha256>),
    ) -> Result<Kept, TakeError> {
        let at = clock::wall();
        let id = self.next_id();
        let length = envelope.length;
        let head = CargoHead {
            envelope,
            kept_at: at,
            assignments,
            conflict,
            unchecked: matches!(self.ledger, LedgerState::Building(_)),
            received,
        };
        let note = self.note_in(&head.envelope, &body);
        let (place, record) = self.write_record(id, &head, body)?;
        let urgency = head.envelope.urgency.as_str();
        self.metrics.kept.with_label_values(&[urgency]).inc();
        self.metrics.kept_bytes.with_label_values(&[urgency]).inc_by(length);
        let waits = self.waits(id, &head);
        self.apply_new(place, &record, &head, !waits);
        if let Some(note) = note {
            self.read_note(&head.envelope.identity.origin, &note);
        }
        let (conflict, corrected) = (head.conflict.is_some(), head.received.is_some());
        Ok(Kept { cargo: id, new: true, conflict, corrected, at })
    }

    /// Puts another copy in the place of one that the disk has spoilt, under the same number. What
    /// was quarantined for that is owed again.
    fn replace(
        &mut self,
        id: CargoId,
        row: &CargoRow,
        envelope: Envelope,
        body: Assembled,
        assignments: Vec<Assignment>,
        received: Option<Sha256>,
    ) -> Result<Kept, TakeError> {
        self.admit(&envelope, &assignments)?;
        let former = self.head_of(id).map(|(head, ..)| head);
        let conflict = row.conflict.then(|| match &former {
            Some(head) => head.conflict.clone().unwrap_or_default(),
            None => "the record that said how it differs is damaged".into(),
        });
        let kept_at = row.kept_at;
        let head =
            CargoHead { envelope, kept_at, assignments, conflict, unchecked: false, received };
        let (place, record) = self.write_record(id, &head, body)?;
        self.apply_new(place, &record, &head, true);
        tracing::warn!(cargo = %id, "a damaged piece was sent again: the new copy takes its place");
        let damaged = row.duties.iter().filter(|d| is_damage(&d.state)).map(|d| d.destination);
        for number in damaged {
            let Some(view) = self.view() else { return Err(TakeError::Stopped) };
            let destination = view.name(number).clone();
            self.change_duty(id, &destination, DutyEvent::Retry, None);
        }
        self.route_again(id, &head.assignments)?;
        self.needs_facts_sync();
        Ok(kept(id, row, false))
    }

    /// Appends a record of cargo; the turn's end syncs it.
    fn write_record(
        &mut self,
        id: CargoId,
        head: &CargoHead,
        body: Assembled,
    ) -> Result<(Place, Record), TakeError> {
        let length = body.len();
        let written = self.append_cargo(id, &fact::encode(head), body).map_err(|e| match e {
            AppendError::Sync(e) => {
                self.shared.stop.stop(format!("a sync of the cargo log failed: {e}"));
                TakeError::Stopped
            }
            e if e.is_full() => {
                // Somebody else has filled the disk since it was looked at.
                self.look_at_disk();
                TakeError::Full(e.to_string())
            }
            e => {
                self.write_failed(&e);
                TakeError::Io(e.to_string())
            }
        })?;
        self.needs_cargo_sync();
        self.usage.spool += length + OVERHEAD_BYTES;
        self.usage.free = self.usage.free.saturating_sub(length + OVERHEAD_BYTES);
        self.appended += length;
        Ok(written)
    }

    /// The bytes of a note from another node that can be acted on now.
    fn note_in(&self, envelope: &Envelope, body: &Assembled) -> Option<Vec<u8>> {
        let identity = &envelope.identity;
        let news = envelope.kind == CargoKind::Note && identity.is_news();
        let foreign = news && identity.origin != self.config.node;
        let ready = matches!(self.ledger, LedgerState::Ready(_));
        (foreign && ready).then(|| body.head().to_vec())
    }

    fn append_cargo(
        &mut self,
        id: CargoId,
        head: &[u8],
        body: Assembled,
    ) -> Result<(Place, Record), AppendError> {
        let at = clock::wall();
        let (len, sha256) = (body.len(), body.sha256());
        match body.store {
            AssembledStore::Memory(bytes, _permits) => {
                self.cargo_log.append(at, id.0, head, &bytes, Some(sha256))
            }
            AssembledStore::File(mut file) => {
                let adopted = self.cargo_log.adopt(at, &file.path, id.0, head, len, sha256)?;
                file.adopted();
                Ok(adopted)
            }
        }
    }

    /// Whether an image of this node is to be looked at before it may leave.
    fn waits(&mut self, id: CargoId, head: &CargoHead) -> bool {
        let envelope = &head.envelope;
        if envelope.kind != CargoKind::Image || envelope.identity.origin != self.config.node {
            return false;
        }
        let to = head.assignments.iter().map(|a| a.destination.clone()).collect();
        self.schedule.fresh.take(clock::now(), id, to)
    }

    fn apply_new(&mut self, place: Place, record: &Record, head: &CargoHead, wake: bool) {
        let Some(view) = self.view() else { return };
        match view.apply_cargo(place, record, head) {
            Ok(_) => {
                self.has_arrivals = true;
                for assignment in head.assignments.iter().filter(|_| wake) {
                    self.woken.insert(assignment.destination.clone());
                }
            }
            Err(e) => self.ledger_failed(&e),
        }
    }

    /// Applies a record that was accepted while the ledger was being rebuilt, or that the ledger
    /// has not seen.
    pub(super) fn apply_late(
        &mut self,
        place: Place,
        record: &Record,
        head: &CargoHead,
    ) -> Result<(), TakeError> {
        let Some(view) = self.view() else { return Ok(()) };
        match view.apply_cargo(place, record, head) {
            Ok(Applied::Duplicate { of }) => {
                let _ = self.state(&Fact::Duplicate { cargo: record.id, of: of.0 });
                self.route_again(of, &head.assignments)
            }
            Ok(Applied::New) if head.envelope.kind == CargoKind::Note => {
                let origin = &head.envelope.identity.origin;
                if *origin != self.config.node
                    && head.envelope.identity.is_news()
                    && record.body_len <= NOTE_LENGTH_MAX
                    && let Ok((file, _)) = self.cargo_log.file(place.segment)
                {
                    let mut note = vec![0; usize::try_from(record.body_len).unwrap_or(0)];
                    if file.read_exact_at(&mut note, record.body_offset()).is_ok() {
                        self.read_note(origin, &note);
                    }
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(e) => {
                self.ledger_failed(&e);
                Err(TakeError::Stopped)
            }
        }
    }

    pub(super) fn find(&mut self, identity: &Identity) -> Option<Kept> {
        match self.view()?.known(identity) {
            // Of a damaged piece another copy is wanted.
            Ok(Known::Same(_, row)) if row.present && is_damaged(&row) => None,
            Ok(Known::Same(id, row)) => Some(kept(id, &row, false)),
            Ok(_) => None,
            Err(e) => {
                self.ledger_failed(&e);
                None
            }
        }
    }

    /// New destinations get duties, open duties take the higher urgency.
    pub(super) fn route_again(
        &mut self,
        id: CargoId,
        assignments: &[Assignment],
    ) -> Result<(), TakeError> {
        for assignment in assignments {
            let Some(view) = self.view() else { return Err(TakeError::Stopped) };
            let Ok(number) = view.number(&assignment.destination) else { continue };
            let Ok(Some(row)) = view.cargo(id) else { return Ok(()) };
            if !row.present {
                return Ok(());
            }
            let (urgency, state) = match row.duty(number) {
                None => {
                    let conflict = row.conflict.then_some("it still waits for a person");
                    (assignment.urgency, first_state(assignment, conflict))
                }
                Some(duty) if is_open(&duty.state) && assignment.urgency < duty.urgency => {
                    (assignment.urgency, duty.state.clone())
                }
                Some(_) => continue,
            };
            let fact = Fact::Duty {
                cargo: id.0,
                destination: assignment.destination.clone(),
                urgency,
                state,
                receipt: None,
            };
            self.state(&fact).map_err(|e| TakeError::Io(e.to_string()))?;
            self.needs_facts_sync();
            self.schedule.rewind(number);
            self.woken.insert(assignment.destination.clone());
        }
        Ok(())
    }

    /// In words, without patient data: how this body differs from the first version.
    fn difference(&mut self, first: CargoId, envelope: &Envelope, body: &Assembled) -> String {
        let Some((head, record, place)) = self.head_of(first) else {
            return "the first version cannot be read".into();
        };
        if head.envelope.transfer_syntax != envelope.transfer_syntax {
            return format!(
                "transfer syntax {} instead of {}",
                envelope.transfer_syntax, head.envelope.transfer_syntax
            );
        }
        if head.envelope.length != envelope.length {
            return format!("{} bytes instead of {}", envelope.length, head.envelope.length);
        }
        let Ok((file, _)) = self.cargo_log.file(place.segment) else {
            return "the first version cannot be read".into();
        };
        let mut old = vec![0; body.head().len()];
        let read = file.read_exact_at(&mut old, record.body_offset());
        match read {
            Ok(()) => match old.iter().zip(body.head()).position(|(a, b)| a != b) {
                Some(at) => format!("same length, first different byte at {at}"),
                None => format!("same length, different after byte {}", old.len()),
            },
            Err(_) => "the first version cannot be read".into(),
        }
    }

    /// The stored head of cargo whose bytes are here; `None` when it cannot be read.
    pub(super) fn head_of(&mut self, id: CargoId) -> Option<(CargoHead, Record, Place)> {
        self.fetch(id).ok().flatten()
    }

    /// The stored head of cargo; `None` when the bytes are not here or what stands in their place
    /// is no such record.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or read, which may pass.
    pub(super) fn fetch(&mut self, id: CargoId) -> io::Result<Option<(CargoHead, Record, Place)>> {
        let row = match self.view().map(|view| view.cargo(id)) {
            Some(Ok(Some(row))) if row.present => row,
            _ => return Ok(None),
        };
        let Some((record, head)) = self.cargo_log.read(row.place)? else { return Ok(None) };
        let head = fact::decode_head(&head).filter(|_| record.id == id.0);
        Ok(head.map(|head| (head, record, row.place)))
    }
}

const fn refusal_word(e: &TakeError) -> &'static str {
    match e {
        TakeError::Full(_) => "full",
        TakeError::Io(_) => "io",
        TakeError::Stopped => "stopped",
    }
}

const fn is_damage(state: &DutyState) -> bool {
    matches!(state, DutyState::Quarantined { damaged: true, .. })
}

fn is_damaged(row: &CargoRow) -> bool {
    row.duties.iter().any(|duty| is_damage(&duty.state))
}

fn is_open(state: &DutyState) -> bool {
    matches!(state.name(), StateName::Owed | StateName::Held)
}

const fn kept(id: CargoId, row: &CargoRow, new: bool) -> Kept {
    let CargoRow { conflict, corrected, kept_at, .. } = *row;
    Kept { cargo: id, new, conflict, corrected, at: kept_at }
}

/// The digest that an envelope claims.
pub(super) const fn claimed(envelope: &Envelope) -> Sha256 {
    envelope.identity.sha256
}
