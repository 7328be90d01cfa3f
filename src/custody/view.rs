//! Applies records and facts to the ledger: the same code while running and while rebuilding, so
//! that a rebuilt ledger says what the lost one said.
//!
//! Applying is idempotent: a record or fact that is applied again (recovery may copy a tail that
//! the ledger knew) changes nothing.

use std::collections::HashMap;
use std::path::Path;

use super::fact::{CargoHead, Fact};
use super::ledger::{Checkpoint, Key, Ledger, LedgerError};
use super::log::Place;
use super::register;
use super::rows::{
    BeyondRow, CargoId, CargoRow, DestinationNumber, DutyRow, SegmentRow, StudyRow, Version,
    Versions, attention_key, cargo_key, deferred_key, digest_key, forget_key, identity_key,
    member_key, news_key, origin_key, ready_key, reclaim_key, segment_key, study_key, unrouted_key,
    versions_key,
};
use super::segment::Record;
use super::state::{DutyState, StateName};
use super::totals::Totals;
use crate::cargo::{Assignment, CargoKind, DestinationName, Identity, NodeName, StudyKey, Urgency};
use crate::clock::Timestamp;

/// The ledger with what is kept in memory beside it.
#[derive(Debug)]
pub(super) struct View {
    /// This node.
    node: NodeName,
    /// The rows.
    pub ledger: Ledger,
    /// The totals of all rows, this turn's changes included.
    pub totals: Totals,
    names: Vec<DestinationName>,
    numbers: HashMap<DestinationName, DestinationNumber>,
}

/// What custody knows of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    No,
    /// This very piece.
    Same(CargoId, CargoRow),
    /// The same key with other bytes; the first version.
    Other(CargoId),
}

/// What came of applying a cargo record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is new.
    New,
    /// The record was known and has perhaps moved.
    Again,
    /// It was accepted unchecked, and the same identity was in custody already.
    Duplicate {
        /// The piece that stays.
        of: CargoId,
    },
}

impl View {
    /// Over a ledger that was opened; reads the totals and the names of destinations.
    pub(super) fn open(node: NodeName, ledger: Ledger) -> Result<Self, LedgerError> {
        let totals = ledger.get::<Totals>(b"t")?.unwrap_or_default();
        let mut names = Vec::new();
        let mut numbers = HashMap::new();
        for row in ledger.rows::<DestinationName>(b"N", vec![b'N']) {
            let (_, name) = row?;
            numbers.insert(name.clone(), names.len() as DestinationNumber);
            names.push(name);
        }
        Ok(Self { node, ledger, totals, names, numbers })
    }

    /// Closes the ledger in `dir` and opens it again.
    pub(super) fn refresh(self, dir: &Path) -> Result<Self, LedgerError> {
        let Self { node, ledger, .. } = self;
        ledger.flush()?;
        drop(ledger);
        Self::open(node, Ledger::open(dir)?)
    }

    /// The destination's number; a new name gets one.
    pub(super) fn number(
        &mut self,
        name: &DestinationName,
    ) -> Result<DestinationNumber, LedgerError> {
        if let Some(&number) = self.numbers.get(name) {
            return Ok(number);
        }
        let number = DestinationNumber::try_from(self.names.len()).expect("few destinations");
        self.ledger.put(Key::of(b'N').u16(number).done(), name)?;
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), number);
        Ok(number)
    }

    /// The number of a destination that was ever named.
    pub(super) fn known_number(&self, name: &DestinationName) -> Option<DestinationNumber> {
        self.numbers.get(name).copied()
    }

    /// The name behind a number.
    pub(super) fn name(&self, number: DestinationNumber) -> &DestinationName {
        &self.names[usize::from(number)]
    }

    /// All destinations ever named.
    pub(super) fn destinations(&self) -> &[DestinationName] {
        &self.names
    }

    /// The row of a piece of cargo.
    pub(super) fn cargo(&self, id: CargoId) -> Result<Option<CargoRow>, LedgerError> {
        self.ledger.get(&cargo_key(id))
    }

    /// What is known of an identity.
    pub(super) fn known(&self, identity: &Identity) -> Result<Known, LedgerError> {
        let versions: Option<Versions> = self.ledger.get(&versions_key(&identity_key(identity)))?;
        let Some(versions) = versions else { return Ok(Known::No) };
        let digest = digest_key(identity);
        // What another node corrected is another version here: receipts are for exact bytes.
        let own = identity.origin == self.node;
        let same = |v: &&Version| v.digest == digest || (own && v.corrects(&digest));
        // The newest of the same digest: an older one may be a tombstone.
        for version in versions.0.iter().rev().filter(same) {
            let id = CargoId(version.cargo);
            if let Some(row) = self.cargo(id)? {
                return Ok(Known::Same(id, row));
            }
        }
        Ok(versions.0.first().map_or(Known::No, |v| Known::Other(CargoId(v.cargo))))
    }

    /// Applies a cargo record.
    pub(super) fn apply_cargo(
        &mut self,
        place: Place,
        record: &Record,
        head: &CargoHead,
    ) -> Result<Applied, LedgerError> {
        let id = CargoId(record.id);
        if let Some(mut row) = self.cargo(id)? {
            if row.present && row.place != place {
                self.count_live(row.place.segment, -1)?;
                self.count_live(place.segment, 1)?;
                row.place = place;
                row.head_len = record.head_len;
                self.ledger.put(cargo_key(id), &row)?;
            }
            return Ok(Applied::Again);
        }
        let mut conflict = head.conflict.clone();
        if head.unchecked {
            match self.known(&head.envelope.identity)? {
                Known::Same(of, row) if row.present => return Ok(Applied::Duplicate { of }),
                Known::Other(_) => conflict = Some("other bytes under the same key".into()),
                Known::Same(..) | Known::No => {}
            }
        }
        self.insert(id, place, record, head, conflict)?;
        Ok(Applied::New)
    }

    fn insert(
        &mut self,
        id: CargoId,
        place: Place,
        record: &Record,
        head: &CargoHead,
        conflict: Option<String>,
    ) -> Result<(), LedgerError> {
        let envelope = &head.envelope;
        let identity = identity_key(&envelope.identity);
        let mut row = CargoRow {
            place,
            head_len: record.head_len,
            body_len: record.body_len,
            kind: envelope.kind,
            study: envelope.study_key(),
            origin: origin_key(&envelope.identity.origin),
            identity,
            kept_at: head.kept_at,
            present: true,
            conflict: conflict.is_some(),
            foreign: envelope.identity.origin != self.node,
            tombstone: None,
            duties: Vec::new(),
            corrected: head.received.is_some(),
            reports: super::rows::is_for_reports(envelope, &self.node),
        };
        let mut versions: Versions = self.ledger.get(&versions_key(&identity))?.unwrap_or_default();
        versions.0.push(Version::new(&envelope.identity, id, head.received.as_ref()));
        self.ledger.put(versions_key(&identity), &versions)?;
        self.count_live(place.segment, 1)?;
        self.totals.present += 1;
        self.totals.present_bytes += row.body_len;
        *self.totals.origins.entry(row.origin).or_default() += row.body_len;
        self.totals.conflicts += u64::from(row.conflict);
        if row.kind == CargoKind::Image {
            self.ledger.mark(member_key(row.study, id))?;
            self.join_study(&row, head)?;
        }
        for assignment in &head.assignments {
            let state = first_state(assignment, conflict.as_deref());
            let number = self.number(&assignment.destination)?;
            if row.duty(number).is_none() {
                self.begin_duty(id, &mut row, number, assignment.urgency, state, None)?;
            }
        }
        if row.is_unrouted() {
            self.ledger.mark(unrouted_key(id))?;
            self.totals.unrouted += 1;
            self.change_study(&row, |s| s.unrouted += 1)?;
        }
        if row.is_settled() {
            self.ledger.mark(reclaim_key(row.kept_at, id))?;
        }
        self.ledger.put(cargo_key(id), &row)
    }

    fn join_study(&mut self, row: &CargoRow, head: &CargoHead) -> Result<(), LedgerError> {
        let key = study_key(row.study);
        let envelope = &head.envelope;
        let mut study = self.ledger.get(&key)?.unwrap_or_else(|| StudyRow {
            origin: envelope.identity.origin.clone(),
            uid: envelope.study.clone(),
            modality: envelope.modality.clone(),
            accession: envelope.accession.clone(),
            patient_id: envelope.patient_id.clone(),
            first_at: row.kept_at,
            last_at: row.kept_at,
            cargo: 0,
            bytes: 0,
            duties: [0; 5],
            unrouted: 0,
            conflicts: 0,
        });
        study.cargo += 1;
        study.bytes += row.body_len;
        study.last_at = study.last_at.max(row.kept_at);
        study.conflicts += u64::from(row.conflict);
        self.ledger.put(key, &study)
    }

    fn change_study(
        &mut self,
        row: &CargoRow,
        change: impl FnOnce(&mut StudyRow),
    ) -> Result<(), LedgerError> {
        if row.kind != CargoKind::Image {
            return Ok(());
        }
        let key = study_key(row.study);
        if let Some(mut study) = self.ledger.get::<StudyRow>(&key)? {
            change(&mut study);
            self.ledger.put(key, &study)?;
        }
        Ok(())
    }

    fn count_live(&mut self, segment: u64, by: i64) -> Result<(), LedgerError> {
        let key = segment_key(segment);
        let mut row: SegmentRow = self.ledger.get(&key)?.unwrap_or_default();
        row.live = row.live.saturating_add_signed(by);
        self.ledger.put(key, &row)
    }

    fn begin_duty(
        &mut self,
        id: CargoId,
        row: &mut CargoRow,
        destination: DestinationNumber,
        urgency: Urgency,
        state: DutyState,
        fact: Option<Place>,
    ) -> Result<(), LedgerError> {
        let duty = DutyRow { destination, urgency, state, fact, beyond: Vec::new() };
        self.enter(id, row, &duty)?;
        row.duties.push(duty);
        Ok(())
    }

    /// Counts and indexes a duty that is in its state from now on.
    fn enter(&mut self, id: CargoId, row: &CargoRow, duty: &DutyRow) -> Result<(), LedgerError> {
        let state = duty.state.name();
        self.totals.count(duty.destination, duty.urgency, state, row.body_len, 1);
        self.change_study(row, |s| s.duties[state as usize] += 1)?;
        match state {
            StateName::Owed => self.ledger.put(ready_key(row, duty, id), &row.body_len),
            StateName::Held | StateName::Quarantined => {
                self.ledger.mark(attention_key(state, duty.destination, id))
            }
            StateName::Receipted | StateName::Dismissed => Ok(()),
        }
    }

    /// Takes a duty out of the counts and indices of its state.
    fn leave(&mut self, id: CargoId, row: &CargoRow, duty: &DutyRow) -> Result<(), LedgerError> {
        let state = duty.state.name();
        self.totals.count(duty.destination, duty.urgency, state, row.body_len, -1);
        self.change_study(row, |s| {
            let n = &mut s.duties[state as usize];
            *n = n.saturating_sub(1);
        })?;
        match state {
            StateName::Owed => {
                self.ledger.remove(deferred_key(duty.destination, id))?;
                self.ledger.remove(ready_key(row, duty, id))
            }
            StateName::Held | StateName::Quarantined => {
                self.ledger.remove(attention_key(state, duty.destination, id))
            }
            StateName::Receipted | StateName::Dismissed => Ok(()),
        }
    }

    /// Takes an owed duty out of the ready queue until [`undefer`](Self::undefer).
    pub(super) fn defer(
        &mut self,
        id: CargoId,
        number: DestinationNumber,
    ) -> Result<(), LedgerError> {
        if let Some(row) = self.cargo(id)?
            && let Some(duty) = row.duty(number)
            && duty.state.name() == StateName::Owed
        {
            self.ledger.remove(ready_key(&row, duty, id))?;
            self.ledger.mark(deferred_key(number, id))?;
        }
        Ok(())
    }

    /// Puts an owed duty back into the ready queue.
    pub(super) fn undefer(
        &mut self,
        id: CargoId,
        number: DestinationNumber,
    ) -> Result<(), LedgerError> {
        self.ledger.remove(deferred_key(number, id))?;
        if let Some(row) = self.cargo(id)?
            && let Some(duty) = row.duty(number)
            && duty.state.name() == StateName::Owed
        {
            self.ledger.put(ready_key(&row, duty, id), &row.body_len)?;
        }
        Ok(())
    }

    /// Applies a fact that stands at `place`.
    pub(super) fn apply_fact(&mut self, place: Place, fact: &Fact) -> Result<(), LedgerError> {
        match fact {
            Fact::Duty { cargo, destination, urgency, state, .. } => {
                self.set_duty(CargoId(*cargo), destination, *urgency, state, place)
            }
            Fact::Reclaimed { cargo, identity, study, ends, kept_at, at, received } => {
                let id = CargoId(*cargo);
                match self.cargo(id)? {
                    Some(row) if row.present => self.bury(id, row, place, *at),
                    Some(mut row) => {
                        row.tombstone = Some(place);
                        self.ledger.put(cargo_key(id), &row)
                    }
                    None => {
                        let version = Version::new(identity, id, received.as_ref());
                        self.raise_tombstone(version, identity, *study, ends, *kept_at, *at, place)
                    }
                }
            }
            Fact::Forgotten { cargo } => self.forget(CargoId(*cargo)),
            Fact::Duplicate { cargo, .. } => self.forget(CargoId(*cargo)),
            Fact::Beyond { cargo, node, destination, state } => {
                self.set_beyond(CargoId(*cargo), node, destination, state, place)
            }
            Fact::Noted { duties } => {
                for (cargo, destination) in duties {
                    let id = CargoId(*cargo);
                    if let (Some(row), Some(number)) =
                        (self.cargo(id)?, self.known_number(destination))
                    {
                        self.ledger.remove(news_key(row.origin, id, number))?;
                    }
                }
                Ok(())
            }
            Fact::Entered { book, changes } => {
                register::apply(&mut self.ledger, &mut self.totals, place, *book, changes)
            }
            Fact::Chain { .. } | Fact::Clock { .. } => Ok(()),
        }
    }

    fn set_duty(
        &mut self,
        id: CargoId,
        destination: &DestinationName,
        urgency: Urgency,
        state: &DutyState,
        place: Place,
    ) -> Result<(), LedgerError> {
        let Some(mut row) = self.cargo(id)? else { return Ok(()) };
        if !row.present {
            return Ok(());
        }
        let number = self.number(destination)?;
        if row.is_unrouted() {
            self.ledger.remove(unrouted_key(id))?;
            self.totals.unrouted -= 1;
            self.change_study(&row, |s| s.unrouted = s.unrouted.saturating_sub(1))?;
        }
        match row.duties.iter().position(|d| d.destination == number) {
            None => self.begin_duty(id, &mut row, number, urgency, state.clone(), Some(place))?,
            Some(at) => {
                self.leave(id, &row, &row.duties[at].clone())?;
                let duty = &mut row.duties[at];
                duty.urgency = urgency;
                duty.state = state.clone();
                duty.fact = Some(place);
                self.enter(id, &row, &row.duties[at].clone())?;
            }
        }
        if row.foreign && row.kind != CargoKind::Note && state.name() != StateName::Owed {
            self.ledger.mark(news_key(row.origin, id, number))?;
        }
        // The time in the key is when the last duty was settled; a person who sends it again
        // leaves a stale key, which reclaiming recognises.
        if row.is_settled()
            && let DutyState::Receipted { at, .. } | DutyState::Dismissed { at, .. } = state
        {
            self.ledger.mark(reclaim_key(*at, id))?;
        }
        self.ledger.put(cargo_key(id), &row)
    }

    fn set_beyond(
        &mut self,
        id: CargoId,
        node: &NodeName,
        destination: &DestinationName,
        state: &DutyState,
        fact: Place,
    ) -> Result<(), LedgerError> {
        let Some(number) = self.known_number(&DestinationName::from(node)) else { return Ok(()) };
        let Some(mut row) = self.cargo(id)? else { return Ok(()) };
        let Some(duty) = row.duties.iter_mut().find(|d| d.destination == number) else {
            return Ok(());
        };
        let news = BeyondRow { destination: destination.clone(), state: state.clone(), fact };
        match duty.beyond.iter_mut().find(|b| b.destination == *destination) {
            Some(known) => *known = news,
            None => duty.beyond.push(news),
        }
        self.ledger.put(cargo_key(id), &row)
    }

    /// Turns a row into a tombstone: the bytes are given back.
    fn bury(
        &mut self,
        id: CargoId,
        mut row: CargoRow,
        place: Place,
        at: Timestamp,
    ) -> Result<(), LedgerError> {
        row.present = false;
        row.tombstone = Some(place);
        self.count_live(row.place.segment, -1)?;
        self.totals.present -= 1;
        self.totals.present_bytes = self.totals.present_bytes.saturating_sub(row.body_len);
        let of_origin = self.totals.origins.entry(row.origin).or_default();
        *of_origin = of_origin.saturating_sub(row.body_len);
        self.totals.tombstones += 1;
        self.ledger.mark(forget_key(at, id))?;
        self.ledger.put(cargo_key(id), &row)
    }

    /// A tombstone whose record is gone with its segment.
    #[expect(clippy::too_many_arguments, reason = "the fields of one fact")]
    fn raise_tombstone(
        &mut self,
        version: Version,
        identity: &Identity,
        study: StudyKey,
        ends: &[super::fact::End],
        kept_at: Timestamp,
        at: Timestamp,
        place: Place,
    ) -> Result<(), LedgerError> {
        let id = CargoId(version.cargo);
        let key = identity_key(identity);
        let mut row = CargoRow {
            place: Place::default(),
            head_len: 0,
            body_len: 0,
            kind: CargoKind::Image,
            study,
            origin: origin_key(&identity.origin),
            identity: key,
            kept_at,
            present: false,
            conflict: false,
            foreign: identity.origin != self.node,
            tombstone: Some(place),
            duties: Vec::new(),
            corrected: version.received.is_some(),
            reports: false,
        };
        for end in ends {
            let number = self.number(&end.destination)?;
            self.begin_duty(id, &mut row, number, end.urgency, end.state.clone(), None)?;
        }
        let mut versions: Versions = self.ledger.get(&versions_key(&key))?.unwrap_or_default();
        versions.0.push(version);
        versions.0.sort_by_key(|v| v.cargo);
        self.ledger.put(versions_key(&key), &versions)?;
        self.totals.tombstones += 1;
        self.ledger.mark(forget_key(at, id))?;
        self.ledger.put(cargo_key(id), &row)
    }

    /// Removes every trace of a piece of cargo but its facts.
    fn forget(&mut self, id: CargoId) -> Result<(), LedgerError> {
        let Some(row) = self.cargo(id)? else { return Ok(()) };
        for duty in &row.duties {
            self.leave(id, &row, duty)?;
            self.ledger.remove(news_key(row.origin, id, duty.destination))?;
        }
        if row.present {
            self.count_live(row.place.segment, -1)?;
            self.totals.present -= 1;
            self.totals.present_bytes = self.totals.present_bytes.saturating_sub(row.body_len);
        } else {
            self.totals.tombstones = self.totals.tombstones.saturating_sub(1);
        }
        let key = versions_key(&row.identity);
        if let Some(mut versions) = self.ledger.get::<Versions>(&key)? {
            versions.0.retain(|v| v.cargo != id.0);
            match versions.0.is_empty() {
                true => self.ledger.remove(key)?,
                false => self.ledger.put(key, &versions)?,
            }
        }
        // Without a head it never joined: a tombstone without a record.
        if row.kind == CargoKind::Image && row.head_len > 0 {
            self.leave_study(&row)?;
        }
        self.ledger.remove(member_key(row.study, id))?;
        self.ledger.remove(unrouted_key(id))?;
        self.ledger.remove(cargo_key(id))
    }

    fn leave_study(&mut self, row: &CargoRow) -> Result<(), LedgerError> {
        let key = study_key(row.study);
        if let Some(mut study) = self.ledger.get::<StudyRow>(&key)? {
            study.cargo = study.cargo.saturating_sub(1);
            study.bytes = study.bytes.saturating_sub(row.body_len);
            match study.cargo {
                0 => self.ledger.remove(key)?,
                _ => self.ledger.put(key, &study)?,
            }
        }
        Ok(())
    }

    /// Ends a turn: all its changes and the totals become one batch with the checkpoint.
    pub(super) fn commit(&mut self, checkpoint: Checkpoint) -> Result<(), LedgerError> {
        if self.ledger.is_pending() {
            let totals = self.totals.clone();
            self.ledger.put(b"t".to_vec(), &totals)?;
        }
        self.ledger.commit(checkpoint)
    }
}

/// The state in which a duty begins.
pub(super) fn first_state(assignment: &Assignment, conflict: Option<&str>) -> DutyState {
    match (conflict, &assignment.hold) {
        (Some(differs), _) => DutyState::Held {
            reason: format!("conflict: the same UID came before with other bytes: {differs}"),
            by: "custody".into(),
        },
        (None, Some(reason)) => DutyState::Held { reason: reason.clone(), by: "route".into() },
        (None, None) => DutyState::owed(),
    }
}
