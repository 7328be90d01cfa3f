//! Looking at custody, and people's decisions. Everything here goes through the custodian, between
//! turns; nothing else opens the ledger.

use std::sync::atomic::Ordering;

use tokio::sync::{oneshot, watch};

use super::custodian::{Answer, Custodian, LedgerState, Request};
use super::fact::{Fact, StoredReceipt};
use super::ledger::{LedgerError, tail_u64};
use super::log::Place;
use super::rows::{CargoId, CargoRow, StudyRow, class_prefix, member_key};
use super::state::{DutyState, StateName};
use super::status::{
    Action, BeyondStatus, CargoStatus, DestinationStatus, DutyStatus, Filter, StudyStatus, Summary,
};
use super::{Arrival, Body, Custody, Follower};
use crate::cargo::{Assignment, DestinationName, Envelope, StudyKey, Urgency};
use crate::clock::{self, Timestamp};

/// Rows that one listing gives at most.
pub(super) const LIST_MAX: usize = 10_000;

impl Custodian {
    pub(super) fn summarise(&self, wall: Timestamp) -> Result<Summary, LedgerError> {
        let limits = self.shared.room.load();
        let usage = self.usage();
        let mut summary = Summary {
            spool_bytes: usage.spool,
            free_bytes: usage.free,
            watermark_bytes: limits.watermark(usage, Urgency::Routine),
            full: self.is_full(),
            unwritable: self.unwritable.clone(),
            clock_leap: self.leap.leap().map(str::to_owned),
            findings: self.findings.clone(),
            torn: self.torn.clone(),
            ..Summary::default()
        };
        let LedgerState::Ready(view) = &self.ledger else { return Ok(summary) };
        summary.ready = true;
        summary.present = view.totals.present;
        summary.present_bytes = view.totals.present_bytes;
        summary.unrouted = view.totals.unrouted;
        summary.tombstones = view.totals.tombstones;
        summary.conflicts = view.totals.conflicts;
        let in_flight = self.schedule.in_flight();
        for (number, name) in (0u16..).zip(view.destinations()) {
            let totals = view.totals.destinations.get(&number).copied().unwrap_or_default();
            let flight = |u: &Urgency| in_flight.get(&(number, *u)).copied().unwrap_or(0);
            let oldest = match totals.in_state(StateName::Owed) {
                0 => None,
                _ => self.oldest_owed(number)?,
            };
            summary.destinations.push(DestinationStatus {
                destination: name.clone(),
                duties: totals.duties,
                in_flight: Urgency::ALL.each_ref().map(flight),
                open_bytes: totals.open_bytes,
                oldest_owed_seconds: oldest.map_or(0, |at| wall.seconds_since(at)),
            });
        }
        Ok(summary)
    }

    /// When the oldest owed duty of a destination was accepted. Looks at the first duty of each
    /// study that waits, and at no more than [`LIST_MAX`] studies.
    fn oldest_owed(&self, number: u16) -> Result<Option<Timestamp>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
        let mut oldest: Option<CargoId> = None;
        let mut consider = |id: CargoId| oldest = Some(oldest.map_or(id, |o| o.min(id)));
        for urgency in Urgency::ALL {
            for large in [false, true] {
                let prefix = class_prefix(number, urgency, large);
                let mut from = prefix.clone();
                for _ in 0..LIST_MAX {
                    let first = view.ledger.keys(&prefix, from.clone()).next();
                    let Some(key) = first.transpose()? else { break };
                    consider(CargoId(tail_u64(&key)));
                    from = key[..key.len() - 8].to_vec();
                    from.extend_from_slice(&[0xff; 8]);
                }
            }
        }
        if let Some(id) = self.deferred(number, 1)?.first() {
            consider(*id);
        }
        match oldest {
            Some(id) => Ok(view.cargo(id)?.map(|row| row.kept_at)),
            None => Ok(None),
        }
    }

    fn studies(&self, limit: usize) -> Result<Vec<StudyStatus>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for row in view.ledger.rows::<StudyRow>(b"s", vec![b's']) {
            all.push(study_status(row?.1));
        }
        all.sort_by(|a, b| b.last_at.cmp(&a.last_at).then_with(|| a.study.cmp(&b.study)));
        all.truncate(limit);
        Ok(all)
    }

    /// The cargo that a filter may be about, in order of acceptance.
    fn candidates(&self, filter: &Filter) -> Result<Vec<CargoId>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        let limit = filter.limit.unwrap_or(LIST_MAX).min(LIST_MAX);
        if let Some(cargo) = filter.cargo {
            return Ok(vec![CargoId(cargo)]);
        }
        let mut ids = Vec::new();
        if let Some(uid) = &filter.study {
            let of_uid = view.ledger.rows::<StudyRow>(b"s", vec![b's']).filter_map(Result::ok);
            for (key, _) in of_uid.filter(|(_, row)| row.uid == *uid) {
                let from = member_key(StudyKey(tail_u64(&key)), CargoId(0));
                let prefix = from[..9].to_vec();
                for key in view.ledger.keys(&prefix, from) {
                    ids.push(CargoId(tail_u64(&key?)));
                }
            }
            return Ok(ids);
        }
        let states = match filter.state {
            Some(state) => vec![state],
            None => vec![StateName::Owed, StateName::Held, StateName::Quarantined],
        };
        for (number, name) in (0u16..).zip(view.destinations()) {
            if filter.destination.as_ref().is_some_and(|d| d != name) {
                continue;
            }
            for &state in &states {
                ids.extend(self.in_state(state, number, limit)?);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(limit);
        Ok(ids)
    }

    fn in_state(
        &self,
        state: StateName,
        number: u16,
        max: usize,
    ) -> Result<Vec<CargoId>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        match state {
            StateName::Held | StateName::Quarantined => self.attention(state, number, max),
            StateName::Owed => {
                let mut ids = self.deferred(number, max)?;
                for urgency in Urgency::ALL {
                    for large in [false, true] {
                        let prefix = class_prefix(number, urgency, large);
                        for key in view.ledger.keys(&prefix, prefix.clone()).take(max) {
                            ids.push(CargoId(tail_u64(&key?)));
                        }
                    }
                }
                Ok(ids)
            }
            // Settled duties have no index of their own: all cargo is looked at, newest last.
            StateName::Receipted | StateName::Dismissed => {
                let rows = view.ledger.rows::<CargoRow>(b"c", vec![b'c']);
                let of_state = rows
                    .filter_map(Result::ok)
                    .filter(|(_, row)| row.duty(number).is_some_and(|d| d.state.name() == state));
                Ok(of_state.take(max).map(|(key, _)| CargoId(tail_u64(&key))).collect())
            }
        }
    }

    fn list(&mut self, filter: &Filter) -> Result<Vec<CargoStatus>, LedgerError> {
        let mut listed = Vec::new();
        for id in self.candidates(filter)? {
            let Some(mut status) = self.status_of(id)? else { continue };
            if filter.state.is_some() || filter.destination.is_some() {
                let of = |d: &DutyStatus| {
                    filter.state.is_none_or(|s| s == d.state)
                        && filter.destination.as_ref().is_none_or(|n| *n == d.destination)
                };
                status.duties.retain(of);
                if status.duties.is_empty() {
                    continue;
                }
            }
            listed.push(status);
        }
        Ok(listed)
    }

    fn unrouted(&self, after: u64, max: usize) -> Result<Vec<CargoId>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        let from = super::rows::unrouted_key(CargoId(after));
        let keys = view.ledger.keys(b"u", from).take(max);
        keys.map(|key| key.map(|k| CargoId(tail_u64(&k)))).collect()
    }

    pub(super) fn status_of(&mut self, id: CargoId) -> Result<Option<CargoStatus>, LedgerError> {
        let row = match &self.ledger {
            LedgerState::Ready(view) => view.cargo(id)?,
            LedgerState::Building(_) => None,
        };
        let Some(row) = row else { return Ok(None) };
        let mut status = match self.head_of(id) {
            Some((head, _, _)) => cargo_status(id, &row, &head.envelope),
            None => self.tombstone_status(id, &row),
        };
        for duty in &row.duties {
            let receipt = duty.fact.and_then(|place| self.receipt_at(place, id));
            let LedgerState::Ready(view) = &self.ledger else { break };
            let destination = view.name(duty.destination).clone();
            let in_flight = self.schedule.is_leased(duty.destination, id);
            let (attempt, reason, by, at) = words_of(&duty.state);
            status.duties.push(DutyStatus {
                destination,
                urgency: duty.urgency,
                state: duty.state.name(),
                in_flight,
                attempt,
                reason,
                by,
                at,
                receipt,
                beyond: duty.beyond.iter().map(beyond_status).collect(),
            });
        }
        Ok(Some(status))
    }

    fn tombstone_status(&mut self, id: CargoId, row: &CargoRow) -> CargoStatus {
        let (origin, key, sha256) = match row.tombstone.and_then(|place| self.fact_at(place)) {
            Some(Fact::Reclaimed { identity, .. }) => {
                (identity.origin, identity.key, identity.sha256.to_string())
            }
            _ => (self.config.node.clone(), String::new(), String::new()),
        };
        CargoStatus {
            cargo: id,
            kind: row.kind,
            origin,
            key,
            study: String::new(),
            modality: String::new(),
            length: row.body_len,
            sha256,
            kept_at: row.kept_at,
            present: false,
            conflict: row.conflict,
            flags: Vec::new(),
            duties: Vec::new(),
        }
    }

    fn receipt_at(&mut self, place: Place, id: CargoId) -> Option<String> {
        match self.fact_at(place)? {
            Fact::Duty { cargo, receipt: Some(receipt), .. } if cargo == id.0 => {
                Some(receipt_words(&receipt))
            }
            _ => None,
        }
    }

    /// Applies a person's decision to every duty that the filter names and that has such an edge.
    fn decide(&mut self, filter: &Filter, action: Action, by: &str, reason: &str) -> u64 {
        let at = clock::wall();
        let Ok(ids) = self.candidates(filter) else { return 0 };
        let mut changed = 0;
        for id in ids {
            let names: Vec<DestinationName> = match &self.ledger {
                LedgerState::Ready(view) => match view.cargo(id) {
                    Ok(Some(row)) if row.present => {
                        let of = |d: &&super::rows::DutyRow| {
                            filter.state.is_none_or(|s| s == d.state.name())
                        };
                        row.duties
                            .iter()
                            .filter(of)
                            .map(|d| view.name(d.destination).clone())
                            .filter(|n| filter.destination.as_ref().is_none_or(|d| d == n))
                            .collect()
                    }
                    _ => Vec::new(),
                },
                LedgerState::Building(_) => Vec::new(),
            };
            for name in names {
                changed +=
                    u64::from(self.change_duty(id, &name, action.event(by, reason, at), None));
            }
        }
        if changed > 0 {
            self.needs_facts_sync();
        }
        changed
    }
}

fn study_status(row: StudyRow) -> StudyStatus {
    let [owed, held, receipted, quarantined, dismissed] = row.duties;
    StudyStatus {
        origin: row.origin,
        study: row.uid,
        modality: row.modality,
        accession: row.accession,
        patient_id: row.patient_id,
        first_at: row.first_at,
        last_at: row.last_at,
        images: row.cargo,
        bytes: row.bytes,
        owed,
        held,
        receipted,
        quarantined,
        dismissed,
        unrouted: row.unrouted,
        conflicts: row.conflicts,
    }
}

fn cargo_status(id: CargoId, row: &CargoRow, envelope: &Envelope) -> CargoStatus {
    CargoStatus {
        cargo: id,
        kind: row.kind,
        origin: envelope.identity.origin.clone(),
        key: envelope.identity.key.clone(),
        study: envelope.study.clone(),
        modality: envelope.modality.clone(),
        length: row.body_len,
        sha256: envelope.identity.sha256.to_string(),
        kept_at: row.kept_at,
        present: true,
        conflict: row.conflict,
        flags: envelope.flags.clone(),
        duties: Vec::new(),
    }
}

fn beyond_status(row: &super::rows::BeyondRow) -> BeyondStatus {
    let (_, reason, _, at) = words_of(&row.state);
    BeyondStatus { destination: row.destination.clone(), state: row.state.name(), at, reason }
}

type Words = (u32, Option<String>, Option<String>, Option<Timestamp>);

fn words_of(state: &DutyState) -> Words {
    match state.clone() {
        DutyState::Owed { attempt, cause } => (attempt, cause, None, None),
        DutyState::Held { reason, by } => (0, Some(reason), Some(by), None),
        DutyState::Receipted { at, warning } => (0, warning, None, Some(at)),
        DutyState::Quarantined { reason, at, .. } => (0, Some(reason), None, Some(at)),
        DutyState::Dismissed { by, reason, at } => (0, Some(reason), Some(by), Some(at)),
    }
}

fn receipt_words(receipt: &StoredReceipt) -> String {
    match receipt {
        StoredReceipt::Dicom { status } => format!("C-STORE status {status:04X}H"),
        StoredReceipt::File { name } => format!("file {name}"),
        StoredReceipt::Hl7 { code, control_id } => format!("HL7 {code} to message {control_id}"),
        StoredReceipt::Node { leaf, .. } => {
            format!("signed by certificate {}", crate::cargo::Sha256(*leaf))
        }
    }
}

impl Custody {
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Custodian) -> Result<T, LedgerError> + Send + 'static,
    ) -> Option<T> {
        let request = |reply: oneshot::Sender<T>| {
            Request::Look(Box::new(move |custodian| match look(custodian) {
                Ok(found) => drop(reply.send(found)),
                Err(e) => custodian.ledger_failed(&e),
            }))
        };
        self.requests.ask(request).await
    }

    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Custodian) -> T + Send + 'static,
    ) -> Option<T> {
        // A look, because it scans; its facts are synced before the answer.
        let request = |reply: oneshot::Sender<T>| {
            Request::Look(Box::new(move |custodian| {
                let done = change(custodian);
                custodian.needs_facts_sync();
                let answer: Answer = Box::new(move |durable| {
                    if durable {
                        let _ = reply.send(done);
                    }
                });
                custodian.answer(answer);
            }))
        };
        self.requests.ask(request).await
    }

    /// Studies, the most recent first; `None` when custody has stopped.
    pub async fn studies(&self, limit: usize) -> Option<Vec<StudyStatus>> {
        self.look(move |c| c.studies(limit.min(LIST_MAX))).await
    }

    /// The cargo that the filter names, with its duties.
    pub async fn list(&self, filter: Filter) -> Option<Vec<CargoStatus>> {
        self.look(move |c| c.list(&filter)).await
    }

    /// A person's decision: the number of duties that changed. Durable when this returns.
    pub async fn decide(
        &self,
        filter: Filter,
        action: Action,
        by: String,
        reason: String,
    ) -> Option<u64> {
        self.change(move |c| c.decide(&filter, action, &by, &reason)).await
    }

    /// Unrouted cargo after number `after`, at most `max`: its envelope and its body, so that its
    /// header can be read and routed again.
    pub async fn unrouted(
        &self,
        after: CargoId,
        max: usize,
    ) -> Option<Vec<(CargoId, Envelope, Body)>> {
        self.look(move |c| {
            let ids = c.unrouted(after.0.saturating_add(1), max.min(LIST_MAX))?;
            Ok(ids.into_iter().filter_map(|id| c.read_for_routing(id)).collect())
        })
        .await
    }

    /// Cargo that came after number `after`, in order of acceptance, at most `max`; what has left
    /// since is passed over. Numbers ascend, so the last one is where to go on, across restarts, too.
    /// Empty while the ledger is being built; [`arrived`](Self::arrived) says when to look.
    pub async fn arrivals(&self, after: CargoId, max: usize) -> Option<Vec<Arrival>> {
        self.look(move |c| {
            let ids = c.present_from(after.0.saturating_add(1), max)?;
            Ok(ids.into_iter().filter_map(|id| c.arrival(id)).collect())
        })
        .await
    }

    /// `who` has looked at all up to this number, and will not ask for them again: they may be
    /// reclaimed when nothing and nobody else keeps them.
    pub fn looked_at(&self, who: Follower, upto: CargoId) {
        self.shared.looked_at[who as usize].store(upto.0, Ordering::Relaxed);
    }

    /// Whoever follows arrivals has put its holds on all images up to this number: the others among
    /// them may leave now. Does not wait for the custodian.
    pub async fn may_leave(&self, upto: CargoId) {
        let look = Box::new(move |custodian: &mut Custodian| {
            let woken = custodian.schedule.fresh.clear(upto);
            custodian.wake_fresh(woken);
        });
        let _ = self.requests.tell(Request::Look(look)).await;
    }

    /// Changes whenever cargo has come, or the ledger is ready. A hint to look.
    pub fn arrived(&self) -> watch::Receiver<u64> {
        self.shared.arrived.subscribe()
    }

    /// Cargo whose bytes are here, after number `after`, at most `max`.
    pub async fn present(&self, after: CargoId, max: usize) -> Option<Vec<(CargoId, Body)>> {
        self.look(move |c| {
            let ids = c.present_from(after.0.saturating_add(1), max)?;
            let read = ids.into_iter().filter_map(|id| c.read_for_routing(id));
            Ok(read.map(|(id, _, body)| (id, body)).collect())
        })
        .await
    }

    /// The state of custody as of now, not of the last second.
    pub async fn summary_now(&self) -> Option<Summary> {
        self.look(|c| c.summarise(clock::wall())).await
    }

    /// Waits for one turn of the custodian. False when custody has stopped.
    pub async fn turn(&self) -> bool {
        self.look(|_| Ok(())).await.is_some()
    }

    /// The envelope and body of one piece of cargo; `None` when its bytes are not here.
    pub async fn read(&self, id: CargoId) -> Option<(Envelope, Body)> {
        self.look(move |c| Ok(c.read_for_routing(id))).await?.map(|(_, e, b)| (e, b))
    }

    /// Gives cargo duties that it did not have. Durable when this returns.
    pub async fn assign(&self, id: CargoId, assignments: Vec<Assignment>) -> bool {
        self.change(move |c| c.route_again(id, &assignments).is_ok()).await.unwrap_or(false)
    }

    /// A person says that the wall clock is right.
    pub async fn confirm_clock(&self, by: String) -> bool {
        let confirm = move |c: &mut Custodian| {
            c.leap.confirm();
            let fact = Fact::Clock { wall: clock::wall(), confirmed_by: Some(by), leap: None };
            c.state(&fact).is_ok()
        };
        self.change(confirm).await.unwrap_or(false)
    }
}

impl Custodian {
    fn present_from(&self, from: u64, max: usize) -> Result<Vec<CargoId>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        let rows = view.ledger.rows::<CargoRow>(b"c", super::rows::cargo_key(CargoId(from)));
        let rows = rows.filter(|row| row.as_ref().map_or(true, |(_, row)| row.present));
        let rows = rows.take(max.min(LIST_MAX));
        rows.map(|row| row.map(|(key, _)| CargoId(tail_u64(&key)))).collect()
    }

    fn arrival(&mut self, id: CargoId) -> Option<Arrival> {
        let kept_at = self.view()?.cargo(id).ok()??.kept_at;
        let (cargo, envelope, body) = self.read_for_routing(id)?;
        Some(Arrival { cargo, kept_at, envelope, body })
    }

    pub(super) fn read_for_routing(&mut self, id: CargoId) -> Option<(CargoId, Envelope, Body)> {
        let (head, record, place) = self.head_of(id)?;
        let (file, _) = self.cargo_log.file(place.segment).ok()?;
        let sha256 = super::take::claimed(&head.envelope);
        let body = Body::new(file, record.body_offset(), record.body_len, sha256);
        Some((id, head.envelope, body))
    }
}
