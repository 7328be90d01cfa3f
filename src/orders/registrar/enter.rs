//! Orders and patients in: HL7 messages, people, other systems.
//!
//! The same message (sender, control ID, content) gives the same answer, byte for byte, as long as
//! it is one of the last [`ANSWERS_MAX`] that were said yes to. A control ID that comes again with
//! other content is another message: senders that begin to count anew lose no order. Refused
//! messages are looked at anew each time, since the reason may be gone.
//!
//! A merge of patients (A40) changes at most [`PATIENT_ORDERS_MAX`] orders and as many studies at
//! once; what comes later is settled when it comes.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::keys::{Number, answer_key, answer_term, entry, merge_key, order_key};
use super::message::{self, Asking, askings};
use super::new_order::{Entered, Entry, NewOrder};
use super::record::{ANSWERS_MAX, Answered, CaseId, Dossier, MergeRecord, OrderRecord, StudyRef};
use super::{DeskError, ORDER_BYTES_MAX, Owed, Registrar, hl7_time};
use crate::cargo::Sha256;
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::hl7::ack::{Condition, Refusal};
use crate::hl7::header::Header;
use crate::hl7::inbound::{Content as Said, Inbound};
use crate::hl7::path::Location;
use crate::hl7::patient::{PatientChange, PatientMessage};
use crate::orders::history::{Applied, Message, Stamp};
use crate::orders::identifier::{Agreement, Identifier, Patient};
use crate::orders::matching::Link;
use crate::orders::order::{Action, Content, Order, OrderKey, OrderState};
use crate::orders::part::Part;

/// Orders, and studies, of one patient that a message changes at once.
const PATIENT_ORDERS_MAX: usize = 256;
/// Orders that bear one number.
const NUMBERED_MAX: usize = 16;

impl Registrar {
    /// Takes one HL7 message.
    pub(super) async fn message(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        reply: oneshot::Sender<Vec<Bytes>>,
    ) -> Result<Owed, Stopped> {
        let inbound = Inbound::read(bytes, &self.config.hl7);
        let header = inbound.header().unwrap_or_default();
        let digest = content_digest(bytes);
        let term =
            answer_term(&header.sending_application, &header.sending_facility, &header.control_id);
        let known: Vec<Answered> = self.store.with(&term, b'a', ANSWERS_MAX as usize).await?;
        if let Some(known) = known.iter().rev().find(|a| a.digest == digest) {
            let again = known.answers.iter().map(|a| Bytes::copy_from_slice(a)).collect();
            self.metrics.hl7_messages.with_label_values(&["again"]).inc();
            return Ok(Box::new(move |_| drop(reply.send(again))));
        }
        let refusals = match inbound.content() {
            Ok(said) => self.hear(said, &header, !known.is_empty(), digest, now).await?,
            Err(own) => {
                tracing::warn!(reason = %own[0], "an HL7 message is refused");
                Vec::new()
            }
        };
        if !inbound.faults().is_empty() {
            tracing::warn!(
                places = inbound.faults().len(),
                "an HL7 message has bytes that its character set lacks"
            );
        }
        let refused = inbound.content().is_err() || !refusals.is_empty();
        let answers = self.answers(&inbound, &refusals, now);
        let failed = self.answers(&inbound, &[Refusal::not_kept()], now);
        if !refused && !header.control_id.is_empty() {
            let kept = answers.iter().map(|a| a.to_vec().into()).collect();
            let answered = Answered { digest, answers: kept };
            self.store.put(entry(answer_key(self.cursor.slot), &answered, vec![term]));
            self.cursor.slot = (self.cursor.slot + 1) % ANSWERS_MAX;
            self.remember_cursor();
        }
        let metrics = self.metrics.hl7_messages.clone();
        Ok(Box::new(move |durable| {
            let (word, answers) = match durable {
                _ if refused => ("refused", answers),
                Ok(()) => ("taken", answers),
                Err(_) => ("not-kept", failed),
            };
            metrics.with_label_values(&[word]).inc();
            let _ = reply.send(answers);
        }))
    }

    fn answers(&mut self, inbound: &Inbound, more: &[Refusal], now: Timestamp) -> Vec<Bytes> {
        let at = hl7_time(now, &self.config.zone);
        let control_id = || {
            self.answered += 1;
            format!("H{:X}{:03X}", now.0, self.answered % 0x1000)
        };
        inbound.answers(more, &at, control_id).into_iter().map(Bytes::from).collect()
    }

    /// Lays what a message says over the book; what it cannot be taken for.
    async fn hear(
        &mut self,
        said: &Said,
        header: &Header,
        reused: bool,
        digest: [u8; 32],
        now: Timestamp,
    ) -> Result<Vec<Refusal>, Stopped> {
        let mut id = header.control_id.clone();
        if reused {
            id.push_str(&format!("#{:016x}", Sha256(digest).short()));
        }
        let heard = self.hear_at(now);
        let sent = message::time(&header.sent_at, &self.config.zone, false).unwrap_or(heard);
        // A clock ahead of ours would overrule what a person says here later.
        let sent = sent.min(heard);
        let stamp = Stamp { sent, heard, id };
        let source = format!("{}^{}", header.sending_application, header.sending_facility);
        match said {
            Said::Orders(orders) => {
                let issuer = self.config.patient_issuer.clone();
                let all = askings(orders, &issuer, &self.config.zone);
                let nameless = all.iter().position(|a| a.content.number().is_none());
                if let Some(n) = nameless {
                    return Ok(vec![Refusal::missing(Location::field("ORC", n + 1, 2))]);
                }
                for (n, asking) in all.iter().enumerate() {
                    self.ask(asking, &stamp, n, &source, now).await?;
                }
            }
            Said::Patients(patients) => self.patients(patients, &stamp, &source, now).await?,
            // Not asked for: `Accepts::reports` is off where this room listens.
            Said::Reports(_) => {
                let condition = Condition::UnsupportedMessageType;
                let words = "reports are not taken here";
                return Ok(vec![Refusal::reject(Location::field("MSH", 1, 9), condition, words)]);
            }
        }
        Ok(Vec::new())
    }

    async fn ask(
        &mut self,
        asking: &Asking,
        stamp: &Stamp,
        n: usize,
        source: &str,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let mut asking = asking.clone();
        if let Some(merges) = self.merges.get(&self.config.node) {
            asking.content.patient = merges.settle(&asking.content.patient);
        }
        let (mut record, known) = self.order_for(&asking.content, now).await?;
        let before = record.history.order();
        if is_part_of(&asking.content, &before) {
            asking = asking.as_part_of(&before.content);
        }
        self.absorb(&asking.content.parts, &record, stamp, source, now).await?;
        for (m, action) in asking.actions(known).into_iter().enumerate() {
            let stamp = Stamp { id: format!("{}/{n}.{m}", stamp.id), ..stamp.clone() };
            record.history.apply(Message { stamp, source: source.to_owned(), action });
        }
        self.enter_order(record, &before, now).await
    }

    /// Orders that turn out to be parts of another one end: what they were waiting for, the other
    /// one waits for.
    async fn absorb(
        &mut self,
        parts: &[Part],
        of: &OrderRecord,
        stamp: &Stamp,
        source: &str,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        for part in parts {
            let key = OrderKey { origin: of.key().origin.clone(), number: part.number.clone() };
            let known = self.store.get::<OrderRecord>(order_key(&key)).await?;
            let Some(mut record) = known.filter(|_| key != *of.key()) else { continue };
            let before = record.history.order();
            if !before.state.is_open() {
                continue;
            }
            let why = format!("it is part of order {}", of.key().number);
            let stamp = Stamp { id: format!("{}/part", stamp.id), ..stamp.clone() };
            let action = Action::Cancel(why);
            record.history.apply(Message { stamp, source: source.to_owned(), action });
            self.enter_order(record, &before, now).await?;
        }
        Ok(())
    }

    /// The order that a message means: by its placer's number, its filler's, or, when it has
    /// neither, its accession number. A new one when none is known; `true`: it was known.
    pub(super) async fn order_for(
        &mut self,
        content: &Content,
        now: Timestamp,
    ) -> Result<(OrderRecord, bool), Stopped> {
        let origin = self.config.node.clone();
        let number = content.number().unwrap_or_default().to_owned();
        let key = OrderKey { origin: origin.clone(), number };
        if let Some(record) = self.store.get::<OrderRecord>(order_key(&key)).await? {
            return Ok((record, true));
        }
        let same = |own: &Option<Identifier>, other: &Option<Identifier>| match (own, other) {
            (Some(a), Some(b)) => a.id == b.id && a.agrees(b) != Agreement::Different,
            _ => false,
        };
        for kind in [Number::Placer, Number::Filler, Number::Accession] {
            let id = match kind {
                Number::Placer => &content.placer,
                Number::Filler => &content.filler,
                _ if content.placer.is_some() || content.filler.is_some() => continue,
                _ => &content.accession,
            };
            let Some(id) = id else { continue };
            let term = kind.of_order(&origin, &id.id);
            let found: Vec<OrderRecord> = self.store.with(&term, b'o', NUMBERED_MAX).await?;
            let mut meant = found.into_iter().filter(|record| {
                let order = record.history.order();
                let other = &order.content;
                // Two placers' numbers are two orders, whatever else they share.
                let apart = content.placer.is_some() && other.placer.is_some();
                match kind {
                    Number::Placer => {
                        same(&content.placer, &other.placer) || is_part_of(content, &order)
                    }
                    Number::Filler => {
                        !apart && same(&content.filler, &other.filler)
                            || is_part_of(content, &order)
                    }
                    _ => !apart && same(&content.accession, &other.accession),
                }
            });
            if let (Some(record), None) = (meant.next(), meant.next()) {
                return Ok((record, true));
            }
        }
        Ok((OrderRecord::new(key, now), false))
    }

    /// Lays a changed order over the book and judges all that it touches.
    pub(super) async fn enter_order(
        &mut self,
        mut record: OrderRecord,
        before: &Order,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let order = record.history.order();
        if order != *before || record.revision == 0 {
            record.revise(now);
        }
        record.history.fit(ORDER_BYTES_MAX / 2);
        self.enter_order_as_is(record, before, now).await
    }

    /// The same for an order that another node has told.
    pub(super) async fn enter_order_as_is(
        &mut self,
        record: OrderRecord,
        before: &Order,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let order = record.history.order();
        self.stand_order(record, now);
        self.note_priors(&order, now).await?;
        let mut touched = self.studies_of(before).await?;
        touched.extend(self.studies_of(&order).await?);
        touched.sort();
        touched.dedup();
        for study in &touched {
            self.judge_study(study, now).await?;
        }
        Ok(())
    }

    async fn patients(
        &mut self,
        message: &PatientMessage,
        stamp: &Stamp,
        source: &str,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let issuer = self.config.patient_issuer.clone();
        for (n, change) in message.changes.iter().enumerate() {
            let (ids, action) = match change {
                PatientChange::Update { patient, .. } => {
                    let patient = message::patient(patient, &issuer);
                    (patient.ids.clone(), Action::Update(patient))
                }
                PatientChange::Merge { patient, prior, .. } => {
                    let survivor = message::patient(patient, &issuer);
                    let retired = message::retired(prior, &issuer);
                    self.merge(&survivor, &retired, stamp);
                    (retired.clone(), Action::Merge(survivor, retired))
                }
            };
            let stamp = Stamp { id: format!("{}/{n}", stamp.id), ..stamp.clone() };
            let message = Message { stamp, source: source.to_owned(), action };
            for id in &ids {
                self.change_patient(&id.id, &message, now).await?;
            }
        }
        Ok(())
    }

    /// Remembers a merge for what comes after it.
    fn merge(&mut self, survivor: &Patient, retired: &[Identifier], stamp: &Stamp) {
        let Some(survivor) = survivor.ids.first() else { return };
        let origin = self.config.node.clone();
        for retired in retired {
            let known = self.merges.entry(origin.clone()).or_default();
            if known.apply(stamp, survivor, retired) {
                let (stamp, survivor, retired) = (stamp.clone(), survivor.clone(), retired.clone());
                let key = merge_key(&origin, &retired);
                let merge = MergeRecord { origin: origin.clone(), stamp, survivor, retired };
                self.store.put(entry(key, &merge, Vec::new()));
            }
        }
    }

    /// Tells every order and study of a patient number of a change.
    async fn change_patient(
        &mut self,
        id: &str,
        message: &Message,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let origin = self.config.node.clone();
        let term = Number::Patient.of_order(&origin, id);
        let orders: Vec<OrderRecord> = self.store.with(&term, b'o', PATIENT_ORDERS_MAX).await?;
        if orders.len() == PATIENT_ORDERS_MAX {
            tracing::warn!("a patient has more orders than one message changes");
        }
        for mut record in orders {
            let before = record.history.order();
            if record.history.apply(message.clone()) == Applied::Changed {
                self.enter_order(record, &before, now).await?;
            }
        }
        let term = Number::Patient.of_study(&origin, id);
        let studies: Vec<Dossier> = self.store.with(&term, b's', PATIENT_ORDERS_MAX).await?;
        for study in studies.iter().map(Dossier::study) {
            self.settle_patient(&study).await?;
            self.judge_study(&study, now).await?;
        }
        Ok(())
    }

    async fn settle_patient(&mut self, id: &StudyRef) -> Result<(), Stopped> {
        let merges = self.merges.get(&id.origin).cloned();
        if let (Some(study), Some(merges)) = (self.study(id, None).await?, merges) {
            let patient = &mut study.dossier.facts.patient;
            let former = std::mem::take(&mut patient.former);
            *patient = merges.settle(patient);
            for id in former {
                if !patient.former.contains(&id) && !patient.ids.contains(&id) {
                    patient.former.push(id);
                }
            }
            self.changed(id);
        }
        Ok(())
    }

    /// An order from a person or another system. Sent again, it changes nothing: not what others
    /// have said since of how far it is, and not that it was ended.
    pub(super) async fn add(
        &mut self,
        order: NewOrder,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<Entered, DeskError>, Stopped> {
        let again = order.again;
        let mut content = match order.content(&self.config.patient_issuer) {
            Ok(content) => content,
            Err(flaws) => return Ok(Err(DeskError::Flaws(flaws))),
        };
        if let Some(merges) = self.merges.get(&self.config.node) {
            content.patient = merges.settle(&content.patient);
        }
        let (mut record, known) = self.order_for(&content, now).await?;
        let (before, number) = (record.history.order(), record.key().number.clone());
        let mut open = before.state.is_open();
        let part = part_of(&content, &before).map(Part::is_open);
        if let Some(is_open) = part {
            open &= is_open;
            let state = (!is_open && again).then_some(OrderState::Requested);
            content = message::of_part(content, &before.content, state);
        }
        let how = match known {
            true if !open && !again => return Ok(Err(DeskError::Ended(number))),
            true if open && before.content.says_all_of(&content) => Entry::Same,
            true if open => Entry::Changed,
            _ => Entry::New,
        };
        let action = match how {
            Entry::Same => return Ok(Ok(Entered { number, how })),
            Entry::Changed => Action::Change(content),
            // The order goes on, and a part of it is wanted again.
            Entry::New if part.is_some() && before.state.is_open() => Action::Change(content),
            Entry::New => Action::New(content),
        };
        let heard = self.hear_at(now);
        record.history.apply(by_person(action, by, heard));
        self.enter_order(record, &before, now).await?;
        Ok(Ok(Entered { number, how }))
    }

    /// A person cancels an order of this node.
    pub(super) async fn cancel(
        &mut self,
        number: &str,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let key = OrderKey { origin: self.config.node.clone(), number: number.to_owned() };
        let whole = Action::Cancel(reason.to_owned());
        let (mut record, action) = match self.store.get::<OrderRecord>(order_key(&key)).await? {
            Some(record) => (record, whole),
            None => {
                let placer = Some(Identifier::bare(number));
                let content = Content { placer, ..Content::default() };
                let (record, known) = self.order_for(&content, now).await?;
                if !known || !is_part_of(&content, &record.history.order()) {
                    return Ok(Err(DeskError::Unknown(format!("this node has no order {number}"))));
                }
                let state = Some(OrderState::Cancelled);
                let part = Part { number: number.to_owned(), state, ..Part::default() };
                (record, Action::Change(Content { parts: vec![part], ..Content::default() }))
            }
        };
        let before = record.history.order();
        if before.state == OrderState::Cancelled && before.ended_because == reason {
            return Ok(Ok(number.to_owned()));
        }
        let heard = self.hear_at(now);
        record.history.apply(by_person(action, by, heard));
        self.enter_order(record, &before, now).await?;
        Ok(Ok(number.to_owned()))
    }

    /// A person says where a study belongs.
    pub(super) async fn link(
        &mut self,
        study: &str,
        order: Option<&str>,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let term_of = |origin| Number::Study.of_study(origin, study);
        let own = self.config.node.clone();
        let found: Vec<Dossier> = self.store.with(&term_of(&own), b's', 1).await?;
        let Some(dossier) = found.first() else {
            let words = format!("no image of study {study} came to this node first");
            return Ok(Err(DeskError::Unknown(words)));
        };
        let id = dossier.study();
        let mut key = None;
        if let Some(number) = order {
            let wanted = OrderKey { origin: own, number: number.to_owned() };
            if self.store.get::<OrderRecord>(order_key(&wanted)).await?.is_none() {
                return Ok(Err(DeskError::Refused(format!("this node has no order {number}"))));
            }
            key = Some(wanted);
        }
        let link = Link { at: now, order: key, by: by.to_owned() };
        if let Some(study) = self.study(&id, None).await? {
            study.dossier.link = Some(match study.dossier.link.take() {
                Some(known) => known.later(link),
                None => link,
            });
        }
        self.changed(&id);
        self.judge_study(&id, now).await?;
        let words = self.roll_words(&CaseId::Study(id));
        Ok(Ok(words))
    }
}

/// The part of this order that a message names by the part's own number.
fn part_of<'a>(content: &Content, order: &'a Order) -> Option<&'a Part> {
    let numbers = [&content.placer, &content.filler].into_iter().flatten();
    let id = numbers.into_iter().find(|id| id.is_named()).filter(|id| id.id != order.key.number)?;
    order.content.parts.iter().find(|p| p.number == id.id)
}

/// Whether it names one.
pub(super) fn is_part_of(content: &Content, order: &Order) -> bool {
    part_of(content, order).is_some()
}

fn by_person(action: Action, by: &str, now: Timestamp) -> Message {
    let stamp = Stamp { sent: now, heard: now, id: format!("{by}-{}", now.0) };
    Message { stamp, source: by.to_owned(), action }
}

/// Of a message without its MSH, which a sender may write anew when it sends again.
fn content_digest(bytes: &[u8]) -> [u8; 32] {
    let end = bytes.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
    Sha256::of(&bytes[end..]).0
}
