//! Giving duties out to senders and taking back what became of them.

use std::io;
use std::time::Duration;

use super::body::Body;
use super::custodian::{Custodian, LedgerState};
use super::fact::{Fact, StoredReceipt};
use super::fresh::Woken;
use super::ledger::{Key, Ledger, LedgerError, tail_u64};
use super::rows::{
    CargoId, DestinationNumber, LARGE_BYTES, attention_key, class_prefix, deferred_key,
};
use super::schedule::{Class, Pick, Ready, Size, Spot};
use super::state::{DutyEvent, DutyState, StateName};
use super::{Lease, Leased, Outcome, Receipt, Want};
use crate::cargo::{DestinationName, Sha256};
use crate::clock::{self, Monotonic};

/// Most duties that one request gets.
const LEASE_ITEMS_MAX: usize = 256;
/// Deferred duties that come back in one tick.
const DUE_MAX: usize = 1000;
/// After a start, deferred duties come back within this time, spread evenly.
const RESTART_SPREAD: Duration = Duration::from_secs(10);

/// The ready queue as the ledger has it.
struct ReadyRows<'a>(&'a Ledger);

impl Ready for ReadyRows<'_> {
    type Error = LedgerError;

    fn first_from(&self, class: Class, from: Spot) -> Result<Option<(Spot, u64)>, LedgerError> {
        let prefix = class_prefix(class.destination, class.urgency, class.large);
        let first = self.0.rows::<u64>(&prefix, queue_key(prefix.clone(), from)).next();
        let first = first.transpose()?;
        Ok(first.map(|(key, length)| (spot_of(&key[prefix.len()..]), length)))
    }
}

/// `q`, for a spot of the class.
fn queue_key(class: Vec<u8>, spot: Spot) -> Vec<u8> {
    Key(class).u32(spot.origin).u64(spot.study).u64(spot.cargo).done()
}

/// The spot that follows the class in a key of the ready queue.
fn spot_of(key: &[u8]) -> Spot {
    let take =
        |from: usize, to: usize| key[from..to].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    Spot { origin: take(0, 4) as u32, study: take(4, 12), cargo: take(12, 20) }
}

fn size_wanted(want: &Want) -> Size {
    if *want.length.end() <= LARGE_BYTES {
        Size::Small
    } else if *want.length.start() > LARGE_BYTES {
        Size::Large
    } else {
        Size::Any
    }
}

/// What came of leasing one duty.
enum Try {
    Leased(Box<Leased>),
    /// It is not owed any more, and rows say so now.
    Changed,
    /// Its bytes cannot be read just now.
    Later,
}

impl Custodian {
    pub(super) fn lease(&mut self, want: &Want) -> Vec<Leased> {
        let mut leased = Vec::new();
        if self.unwritable.is_some() {
            return leased;
        }
        let LedgerState::Ready(view) = &self.ledger else { return leased };
        let Some(number) = view.known_number(&want.destination) else { return leased };
        let mut bytes = 0u64;
        while leased.len() < want.items_max.min(LEASE_ITEMS_MAX) {
            let LedgerState::Ready(view) = &self.ledger else { break };
            let ready = ReadyRows(&view.ledger);
            let size = size_wanted(want);
            let pick = match self.schedule.pick(&ready, number, want.classes, size) {
                Ok(Some(pick)) => pick,
                Ok(None) => break,
                Err(e) => {
                    self.ledger_failed(&e);
                    break;
                }
            };
            if !leased.is_empty() && bytes.saturating_add(pick.length) > want.bytes_max {
                self.schedule.end(number, pick.cargo);
                break;
            }
            bytes = bytes.saturating_add(pick.length);
            match self.lease_one(&pick, &want.destination) {
                Try::Leased(duty) => leased.push(*duty),
                Try::Changed => {
                    // The next request sees the changed rows committed.
                    self.schedule.end(number, pick.cargo);
                    self.wake(number);
                    break;
                }
                Try::Later => {
                    self.schedule.end(number, pick.cargo);
                    self.housekeeping.wake_later.insert(want.destination.clone());
                    break;
                }
            }
        }
        leased
    }

    fn lease_one(&mut self, pick: &Pick, destination: &DestinationName) -> Try {
        let id = pick.cargo;
        let attempt = match self.attempt_of(pick) {
            Ok(Some(attempt)) => attempt,
            Ok(None) => {
                self.drop_stale(pick);
                return Try::Changed;
            }
            Err(e) => {
                self.ledger_failed(&e);
                return Try::Later;
            }
        };
        let found = self.fetch(id).and_then(|found| {
            let Some((head, record, place)) = found else { return Ok(None) };
            let (file, _) = self.cargo_log.file(place.segment)?;
            Ok(Some((head, record, file)))
        });
        let (head, record, file) = match found {
            Ok(Some(found)) => found,
            Err(e) if is_passing(&e) => {
                tracing::warn!(cargo = %id, error = %e, "the spool cannot be read just now");
                return Try::Later;
            }
            Ok(None) | Err(_) => {
                self.quarantine_unreadable(id, destination);
                return Try::Changed;
            }
        };
        let sha256 = super::take::claimed(&head.envelope);
        let body = Body::new(file, record.body_offset(), record.body_len, sha256);
        let mut envelope = head.envelope;
        envelope.urgency = pick.class.urgency;
        Try::Leased(Box::new(Leased {
            cargo: id,
            destination: destination.clone(),
            urgency: pick.class.urgency,
            attempt,
            envelope,
            body,
            lease: Some(Lease {
                shared: self.shared.clone(),
                destination: destination.clone(),
                cargo: id,
            }),
        }))
    }

    /// Failed tries of an owed duty; `None` when the duty is not owed.
    fn attempt_of(&self, pick: &Pick) -> Result<Option<u32>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
        let row = view.cargo(pick.cargo)?;
        let state = row.and_then(|r| r.duty(pick.class.destination).map(|d| d.state.clone()));
        Ok(match state {
            Some(DutyState::Owed { attempt, .. }) => Some(attempt),
            _ => None,
        })
    }

    /// Removes a queue row that no owed duty stands behind.
    fn drop_stale(&mut self, pick: &Pick) {
        tracing::error!(cargo = %pick.cargo, "a stale row in the ready queue; removed");
        let Class { destination, urgency, large } = pick.class;
        let key = queue_key(class_prefix(destination, urgency, large), pick.spot);
        if let Some(Err(e)) = self.view().map(|view| view.ledger.remove(key)) {
            self.ledger_failed(&e);
        }
    }

    fn quarantine_unreadable(&mut self, id: CargoId, destination: &DestinationName) {
        self.quarantine_damaged(id, destination, "its record in the spool cannot be read".into());
    }

    /// What the disk has spoilt is never delivered, and is told to people.
    fn quarantine_damaged(&mut self, id: CargoId, destination: &DestinationName, reason: String) {
        self.metrics.damaged.inc();
        tracing::error!(cargo = %id, %destination, "{reason}; quarantined");
        self.find_fault(format!("cargo {id}: {reason}"));
        let event = DutyEvent::GaveUp { reason, at: clock::wall(), damaged: true };
        self.change_duty(id, destination, event, None);
    }

    pub(super) fn settle(&mut self, id: CargoId, destination: &DestinationName, outcome: Outcome) {
        let Some(view) = self.view() else { return };
        let Some(number) = view.known_number(destination) else { return };
        self.schedule.end(number, id);
        let at = clock::wall();
        match outcome {
            Outcome::Receipted { receipt } => {
                let warning = warning_of(&receipt);
                let receipt = self.stored(receipt);
                let event = DutyEvent::Receipt { at, warning };
                self.change_duty(id, destination, event, Some(receipt));
            }
            Outcome::Retry { cause, after } => {
                self.metrics.retried.with_label_values(&[destination.as_str()]).inc();
                if self.change_duty(id, destination, DutyEvent::TryFailed { cause }, None) {
                    if let Some(Err(e)) = self.view().map(|v| v.defer(id, number)) {
                        self.ledger_failed(&e);
                    }
                    self.schedule.defer(clock::now(), after, number, id);
                }
            }
            Outcome::Quarantine { reason } => {
                let event = DutyEvent::GaveUp { reason, at, damaged: false };
                self.change_duty(id, destination, event, None);
            }
            Outcome::Damaged { reason } => self.quarantine_damaged(id, destination, reason),
        }
    }

    /// Steps one duty and states it as a fact. False when it is not in a state for that: a person
    /// was faster, and the sender's news come too late.
    pub(super) fn change_duty(
        &mut self,
        id: CargoId,
        destination: &DestinationName,
        event: DutyEvent,
        receipt: Option<StoredReceipt>,
    ) -> bool {
        let Some(view) = self.view() else { return false };
        let Some(number) = view.known_number(destination) else { return false };
        let Ok(Some(row)) = view.cargo(id) else { return false };
        let Some(duty) = row.duty(number) else { return false };
        let Some(state) = duty.state.try_step(event) else { return false };
        let urgency = duty.urgency;
        let fact = Fact::Duty {
            cargo: id.0,
            destination: destination.clone(),
            urgency,
            state: state.clone(),
            receipt,
        };
        if self.state(&fact).is_err() {
            return false;
        }
        let labels = [destination.as_str(), urgency.as_str()];
        match state.name() {
            StateName::Receipted => {
                self.metrics.receipted.with_label_values(&labels).inc();
                let bytes = self.metrics.receipted_bytes.with_label_values(&labels[..1]);
                bytes.inc_by(row.body_len);
            }
            StateName::Quarantined => {
                self.metrics.quarantined.with_label_values(&labels).inc();
            }
            StateName::Owed => {
                self.schedule.rewind(number);
                self.wake(number);
            }
            StateName::Held | StateName::Dismissed => {}
        }
        true
    }

    fn stored(&mut self, receipt: Receipt) -> StoredReceipt {
        match receipt {
            Receipt::Dicom { status } => StoredReceipt::Dicom { status },
            Receipt::File { name } => StoredReceipt::File { name },
            Receipt::Hl7 { code, control_id } => StoredReceipt::Hl7 { code, control_id },
            Receipt::Node { statement, signature, chain } => {
                let leaf = chain.first().map_or([0; 32], |leaf| Sha256::of(leaf).0);
                if self.chains.insert(leaf) {
                    let certificates = chain.into_iter().map(Into::into).collect();
                    let _ = self.state(&Fact::Chain { leaf, certificates });
                }
                StoredReceipt::Node { statement, signature, leaf }
            }
        }
    }

    /// Leases that were dropped go back to the queue.
    pub(super) fn take_back(&mut self) {
        let returned = std::mem::take(
            &mut *self.shared.returned.lock().expect("no panic while returning a lease"),
        );
        for (destination, cargo) in returned {
            let number = match &self.ledger {
                LedgerState::Ready(view) => view.known_number(&destination),
                LedgerState::Building(_) => None,
            };
            if let Some(number) = number
                && self.schedule.end(number, cargo)
            {
                self.woken.insert(destination);
            }
        }
    }

    /// Says that images may leave now that had to wait.
    pub(super) fn wake_fresh(&mut self, woken: Woken) {
        if woken.in_vain > 0 {
            self.metrics.unjudged.inc_by(woken.in_vain);
            tracing::warn!(images = woken.in_vain, "images leave without having been looked at");
        }
        self.woken.extend(woken.some);
        if woken.all {
            self.wake_all();
        }
    }

    pub(super) fn wake_deferred(&mut self, now: Monotonic) {
        for (number, id) in self.schedule.due(now, DUE_MAX) {
            let Some(view) = self.view() else { return };
            if let Err(e) = view.undefer(id, number) {
                self.ledger_failed(&e);
                return;
            }
            self.schedule.rewind(number);
            self.wake(number);
        }
    }

    /// After a start: what waited for its next try comes back soon, not all at once.
    pub(super) fn recall_deferred(&mut self) -> Result<(), LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(()) };
        let now = clock::now();
        let mut spread = Duration::ZERO;
        for key in view.ledger.keys(b"d", vec![b'd']) {
            let key = key?;
            let number = DestinationNumber::from_be_bytes([key[1], key[2]]);
            let id = CargoId(tail_u64(&key));
            self.schedule.defer(now, spread, number, id);
            spread = (spread + Duration::from_millis(7)).min(RESTART_SPREAD);
        }
        Ok(())
    }

    /// Duties in `state` that need a person, in order of acceptance, at most `max`.
    pub(super) fn attention(
        &self,
        state: StateName,
        destination: DestinationNumber,
        max: usize,
    ) -> Result<Vec<CargoId>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        let from = attention_key(state, destination, CargoId(0));
        let prefix = from[..4].to_vec();
        let keys = view.ledger.keys(&prefix, from.clone()).take(max);
        keys.map(|key| key.map(|k| CargoId(tail_u64(&k)))).collect()
    }

    /// Deferred duties, at most `max`.
    pub(super) fn deferred(
        &self,
        destination: DestinationNumber,
        max: usize,
    ) -> Result<Vec<CargoId>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(Vec::new()) };
        let from = deferred_key(destination, CargoId(0));
        let prefix = from[..3].to_vec();
        let keys = view.ledger.keys(&prefix, from.clone()).take(max);
        keys.map(|key| key.map(|k| CargoId(tail_u64(&k)))).collect()
    }
}

/// Errors that say nothing of the bytes: no descriptors, no memory.
fn is_passing(e: &io::Error) -> bool {
    use nix::errno::Errno;
    let passing = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EINTR, Errno::EAGAIN];
    e.raw_os_error().is_some_and(|n| passing.contains(&Errno::from_raw(n)))
}

fn warning_of(receipt: &Receipt) -> Option<String> {
    match receipt {
        Receipt::Dicom { status } if *status != 0 => Some(format!("C-STORE status {status:04X}H")),
        _ => None,
    }
}
