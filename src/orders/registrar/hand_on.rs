//! Orders to receivers of HL7: the RIS of a reading centre. The registrar writes the message, custody
//! keeps it, delivery sends it.
//!
//! - An order is told to every destination of kind `hl7` that a route names for it, or that was told
//!   of it before, whenever it says something new that the message shows: [`super::telling`] says
//!   what, [`super::written`] how.
//! - The messages of one order arrive in their order and never overtake: the next one is handed to
//!   custody only after the duty of the one before it is settled. What happens meanwhile is told in
//!   one message. A message that the receiver has answered with an error gives way to one that says
//!   something else: it may be the correction that the receiver waits for.
//! - What is told is part of the order's entry before custody has the message, and custody is asked
//!   by its key after a crash: a message is handed over once, with the same MSH-10.
//! - What a receiver's character set lacks is written as 〓 or `?`, and counted in the log.
//!
//! Limits: [`MESSAGE_BYTES_MAX`]; [`TOLD_MAX`] destinations of an order, of each the last
//! [`TELLINGS_MAX`] messages; [`DUE_MAX`] orders in one turn. An order that waits is looked at again
//! after one second, then later, up to [`PAUSE_MAX`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::order_key;
use super::record::OrderRecord;
use super::telling::{Control, Fate, TELLINGS_MAX, TOLD_MAX, Telling, control_id, next};
use super::travel::{attribute_of, like};
use super::written::{message, said};
use super::{DUE_MAX, Event, Registrar, hl7_time};
use crate::cargo::{Assignment, CargoKind, DestinationName, Envelope, Identity, Sha256};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::state::StateName;
use crate::custody::{CargoId, Draft, DutyStatus};
use crate::hl7::answer::Answer;
use crate::hl7::charset::Charset;
use crate::hl7::order::{OrderType, Sending};
use crate::orders::order::{Order, OrderKey};

/// Longest message that is written, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// First and longest pause before an order that waits is looked at again.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Who gives up a message for a later one.
const BY: &str = "hikyaku";

/// How a destination takes orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Which message it takes.
    pub order_type: OrderType,
    /// MSH-3 and MSH-4: what we are called.
    pub from: (String, String),
    /// MSH-5 and MSH-6: what it is called.
    pub to: (String, String),
    /// MSH-11.
    pub processing_id: String,
    /// MSH-18 and MSH-20.
    pub charset: Charset,
}

/// The destinations that take orders by HL7.
pub type Receivers = BTreeMap<DestinationName, Receiver>;

/// Orders to be told, and not before when: seen from memory.
#[derive(Debug, Default)]
pub(super) struct ToTell(BTreeMap<OrderKey, (Timestamp, Duration)>);

impl ToTell {
    /// It has something new to say.
    pub(super) fn add(&mut self, key: &OrderKey, now: Timestamp) {
        self.0.insert(key.clone(), (now, PAUSE));
    }

    /// It waits for an earlier message.
    fn wait(&mut self, key: &OrderKey, now: Timestamp) {
        if let Some((at, pause)) = self.0.get_mut(key) {
            *at = now + *pause;
            *pause = (*pause * 2).min(PAUSE_MAX);
        }
    }

    /// Those whose time has come, those that wait for longest first.
    fn due(&self, now: Timestamp) -> Vec<OrderKey> {
        let due = self.0.iter().filter(|(_, (at, _))| *at <= now);
        let mut due: Vec<(Timestamp, &OrderKey)> = due.map(|(key, (at, _))| (*at, key)).collect();
        due.sort();
        due.into_iter().take(DUE_MAX).map(|(_, key)| key.clone()).collect()
    }
}

/// A message that custody is to have.
#[derive(Debug)]
pub(super) struct Letter {
    order: OrderKey,
    id: String,
    key: String,
    to: Assignment,
    bytes: Vec<u8>,
}

/// What a look at one destination comes to.
enum Look {
    /// It has heard everything.
    Told,
    /// Its last message is not settled.
    Waits,
    /// It is to be told this.
    Tell(Box<Letter>),
}

impl OrderRecord {
    fn last_told(&self, destination: &DestinationName) -> Option<&Telling> {
        self.told.iter().rev().find(|telling| telling.destination == *destination)
    }

    /// Remembers a message, and forgets the oldest of too many.
    fn remember(&mut self, telling: Telling) {
        let same = |t: &Telling| t.destination == telling.destination;
        if self.told.iter().filter(|t| same(t)).count() >= TELLINGS_MAX
            && let Some(oldest) = self.told.iter().position(same)
        {
            self.told.remove(oldest);
        }
        self.told.push(telling);
    }
}

impl Registrar {
    /// Writes what receivers are to be told, some orders at a time, and lays over the book that it
    /// is on its way.
    pub(super) async fn write_letters(&mut self, now: Timestamp) -> Result<Vec<Letter>, Stopped> {
        let mut letters = Vec::new();
        for key in self.outbox.tell.due(now) {
            if self.store.is_full() {
                break;
            }
            let Some(mut record) = self.store.get::<OrderRecord>(order_key(&key)).await? else {
                self.outbox.tell.0.remove(&key);
                continue;
            };
            let before = record.clone();
            let order = record.history.order();
            let mut open = false;
            for to in self.told_to(&order, &record) {
                match self.look_at(&mut record, &order, to, now).await? {
                    Look::Told => {}
                    Look::Waits => open = true,
                    Look::Tell(letter) => {
                        open = true;
                        letters.push(*letter);
                    }
                }
            }
            record.to_tell = open;
            match open {
                true => self.outbox.tell.wait(&key, now),
                false => drop(self.outbox.tell.0.remove(&key)),
            }
            if record != before {
                self.store.put(record.entry(&order));
            }
        }
        Ok(letters)
    }

    /// Where an order is told: where the routes say, and where it was told before.
    fn told_to(&self, order: &Order, record: &OrderRecord) -> Vec<Assignment> {
        let urgency = order.urgency();
        let identity = Identity {
            origin: order.key.origin.clone(),
            key: String::new(),
            sha256: Sha256([0; 32]),
        };
        let envelope = Envelope::of_ours(CargoKind::Order, identity, 0, Timestamp::default());
        let asked = like(order, Envelope { urgency, ..envelope });
        let mut to = self.ways.tell(&asked, &|keyword| attribute_of(order, &asked, keyword));
        let receivers = self.ways.receivers();
        for Telling { destination, .. } in &record.told {
            if receivers.contains_key(destination)
                && !to.iter().any(|a| a.destination == *destination)
            {
                to.push(Assignment { destination: destination.clone(), urgency, hold: None });
            }
        }
        to.truncate(TOLD_MAX);
        // None of it waits for a person: images may.
        to.iter_mut().for_each(|a| {
            a.urgency = a.urgency.min(urgency);
            a.hold = None;
        });
        to
    }

    /// What a destination is to be told of an order, if anything, and now.
    async fn look_at(
        &mut self,
        record: &mut OrderRecord,
        order: &Order,
        to: Assignment,
        now: Timestamp,
    ) -> Result<Look, Stopped> {
        let Some(receiver) = self.ways.receivers().get(&to.destination).cloned() else {
            return Ok(Look::Told);
        };
        self.settle_intent(record, &to.destination).await?;
        // The control code is not part of what is compared.
        let says = said(&message(order, "", &self.config.zone));
        let last = record.last_told(&to.destination).cloned();
        if last.as_ref().is_some_and(|last| last.said == says.0) {
            return Ok(Look::Told);
        }
        let fate = match &last {
            Some(last) => self.fate(last).await?,
            None => Fate::Lost,
        };
        if fate == Fate::Open {
            return Ok(Look::Waits);
        }
        let before = last.as_ref().map(|last| (last, fate));
        let Some((control, had)) = next(before, order.state, says) else { return Ok(Look::Told) };
        let new = (record.revision, control, says.0);
        let id = control_id(record.key(), &to.destination, last.as_ref(), new);
        let bytes = self.encode(order, record.revision, (control, &id), &receiver);
        if bytes.len() > MESSAGE_BYTES_MAX {
            let (length, destination) = (bytes.len(), &to.destination);
            tracing::error!(%destination, length, "an order is too long to be told");
            return Ok(Look::Told);
        }
        let telling = Telling {
            destination: to.destination.clone(),
            id: id.clone(),
            revision: record.revision,
            control,
            said: says.0,
            content: says.1,
            had,
            at: now,
            cargo: None,
        };
        let key = telling.key();
        record.remember(telling);
        Ok(Look::Tell(Box::new(Letter { order: record.key().clone(), id, key, to, bytes })))
    }

    /// After a crash: whether custody has the message that was about to be handed over. What it
    /// does not have was never told.
    async fn settle_intent(
        &self,
        record: &mut OrderRecord,
        destination: &DestinationName,
    ) -> Result<(), Stopped> {
        let last = record.told.iter().rposition(|telling| telling.destination == *destination);
        let Some(last) = last.filter(|n| record.told[*n].cargo.is_none()) else { return Ok(()) };
        match self.duty(&record.told[last]).await? {
            Some((cargo, _)) => record.told[last].cargo = Some(cargo.0),
            None => drop(record.told.remove(last)),
        }
        Ok(())
    }

    async fn duty(&self, telling: &Telling) -> Result<Option<(CargoId, DutyStatus)>, Stopped> {
        let origin = self.config.node.clone();
        let destination = telling.destination.clone();
        self.custody.duty(origin, telling.key(), destination).await.ok_or(Stopped)
    }

    /// What became of a message that something else is to be told after.
    async fn fate(&self, last: &Telling) -> Result<Fate, Stopped> {
        // Even its tombstone is gone: it was settled long ago.
        let Some((cargo, duty)) = self.duty(last).await? else { return Ok(Fate::Taken) };
        let refused = duty.reason.as_deref().is_some_and(Answer::tells_error);
        Ok(match duty.state {
            StateName::Receipted => Fate::Taken,
            StateName::Quarantined | StateName::Dismissed => Fate::Lost,
            StateName::Held => Fate::Open,
            StateName::Owed if !refused => Fate::Open,
            StateName::Owed => {
                let reason = "the order says something else now".to_owned();
                let to = last.destination.clone();
                match self.custody.give_up(cargo, to, BY, reason).await.ok_or(Stopped)? {
                    true => Fate::Lost,
                    false => Fate::Open,
                }
            }
        })
    }

    /// The message as it is sent. Written again, it is the same.
    fn encode(
        &self,
        order: &Order,
        revision: u64,
        (control, id): (Control, &str),
        receiver: &Receiver,
    ) -> Vec<u8> {
        let revised = Timestamp(i64::try_from(revision).unwrap_or_default());
        let sending = Sending {
            order_type: receiver.order_type,
            from: (&receiver.from.0, &receiver.from.1),
            to: (&receiver.to.0, &receiver.to.1),
            at: &hl7_time(revised, &self.config.zone),
            control_id: id,
            processing_id: &receiver.processing_id,
            charset: receiver.charset,
        };
        let said = message(order, control.code(), &self.config.zone);
        let (bytes, lost) = receiver.charset.encode_lossy(&said.write(&sending).write());
        if !lost.is_empty() {
            let characters = lost.len();
            tracing::warn!(id, characters, "a receiver's character set lacks what an order says");
        }
        bytes
    }

    /// Hands messages to custody. What custody does not take now is written again later.
    pub(super) async fn hand_on(
        &mut self,
        letters: Vec<Letter>,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        for Letter { order: key, id, key: message, to, bytes } in letters {
            let sha256 = Sha256::of(&bytes);
            let identity = Identity { origin: self.config.node.clone(), key: message, sha256 };
            let length = bytes.len() as u64;
            let mut envelope = Envelope::of_ours(CargoKind::Order, identity, length, now);
            envelope.urgency = to.urgency;
            let mut assembly = self.custody.assemble();
            let taken = match assembly.push(&bytes).await {
                Ok(()) => {
                    let body = assembly.finish();
                    self.custody
                        .take(Draft { envelope, body, assignments: vec![to] })
                        .await
                        .map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            let kept = match taken {
                Ok(kept) => kept,
                Err(error) => {
                    tracing::warn!(error, "messages about orders wait for custody");
                    continue;
                }
            };
            let Some(mut record) = self.store.get::<OrderRecord>(order_key(&key)).await? else {
                continue;
            };
            if let Some(telling) = record.told.iter_mut().find(|telling| telling.id == id) {
                telling.cargo = Some(kept.cargo().0);
            }
            let order = record.history.order();
            self.store.put(record.entry(&order));
            self.outbox.tell(&key, now);
        }
        Ok(())
    }

    /// What receivers of HL7 were told of an order, and what they have answered.
    pub(super) async fn tellings(&self, record: &OrderRecord) -> Result<Vec<Event>, Stopped> {
        let mut events = Vec::new();
        for telling in &record.told {
            let Telling { destination, id, control, at, .. } = telling;
            let kind = "told";
            let what = format!("{} to {destination}, message {id}", control.code());
            events.push(Event { at: *at, kind, what, by: String::new() });
            let Some((_, duty)) = self.duty(telling).await? else { continue };
            let says = |words: &Option<String>| words.clone().unwrap_or_default();
            let what = match duty.state {
                StateName::Receipted => {
                    format!("{id} acknowledged: {}", says(&duty.receipt))
                }
                StateName::Owed if duty.attempt == 0 => format!("{id} is owed"),
                StateName::Owed => {
                    format!("{id} is owed, tries {}: {}", duty.attempt, says(&duty.reason))
                }
                state => format!("{id} is {state}: {}", says(&duty.reason)),
            };
            let by = destination.to_string();
            events.push(Event { at: duty.at.unwrap_or(*at), kind, what, by });
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_that_wait_take_turns_and_wait_longer_each_time() {
        let key = |n: usize| OrderKey { origin: "h".parse().unwrap(), number: n.to_string() };
        let mut waiting = ToTell::default();
        (0..DUE_MAX + 1).for_each(|n| waiting.add(&key(n), Timestamp(0)));
        let first = waiting.due(Timestamp(0));
        assert_eq!(first.len(), DUE_MAX);
        first.iter().for_each(|key| waiting.wait(key, Timestamp(0)));
        // The one that was left out has its turn before all that were looked at.
        let second = waiting.due(Timestamp(0));
        assert_eq!((second.len(), first.contains(&second[0])), (1, false));
        let mut alone = ToTell::default();
        alone.add(&key(0), Timestamp(0));
        for (looked, not_before) in [(0, 1000), (1000, 3000), (3000, 7000), (7000, 15_000)] {
            alone.wait(&key(0), Timestamp(looked));
            assert_eq!(alone.due(Timestamp(not_before - 1)), []);
            assert_eq!(alone.due(Timestamp(not_before)), [key(0)]);
        }
        (0..20).for_each(|_| alone.wait(&key(0), Timestamp(0)));
        assert_eq!(alone.due(Timestamp(0) + PAUSE_MAX), [key(0)]);
    }

    #[test]
    fn an_order_that_an_earlier_release_wrote_was_told_to_nobody() {
        let key = OrderKey { origin: "h".parse().unwrap(), number: "1".into() };
        let mut record = OrderRecord::new(key, Timestamp(1));
        let bytes = minicbor::to_vec(&record).unwrap();
        // Entries 7, 8 and 40 of the map are new.
        let new = [0x07, 0x80, 0x08, 0xf4, 0x18, 40, 0xa0];
        assert!(bytes.ends_with(&new), "{bytes:02x?}");
        let old = [&[bytes[0] - 3][..], &bytes[1..bytes.len() - new.len()]].concat();
        assert_eq!(minicbor::decode::<OrderRecord>(&old).unwrap(), record);
        // Only the last messages to each destination are remembered.
        let telling = |destination: &str, n: u64| Telling {
            destination: destination.parse().unwrap(),
            id: n.to_string(),
            revision: n,
            control: Control::Change,
            said: Sha256([1; 32]),
            content: Sha256([1; 32]),
            had: true,
            at: Timestamp(1),
            cargo: Some(n),
        };
        record.remember(telling("a", 0));
        (1..20).for_each(|n| record.remember(telling("b", n)));
        assert_eq!(record.told.len(), TELLINGS_MAX + 1);
        assert_eq!(record.last_told(&"b".parse().unwrap()).unwrap().revision, 19);
        assert_eq!(record.last_told(&"a".parse().unwrap()).unwrap().revision, 0);
    }
}
