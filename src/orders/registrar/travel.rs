//! Orders and manifests between nodes: what this node tells, and what it is told.
//!
//! - An order goes to every node that the routes name for it, or for an image of its study, ahead
//!   of the images: never below [`Urgency::Urgent`]. A manifest goes where the images of its study
//!   go, whenever its study stands otherwise, and at most every [`MANIFEST_PAUSE`].
//! - That an order or a manifest is still to be handed over is part of its entry, so that a crash
//!   forgets neither. What is handed over twice has the same bytes,
//!   and custody keeps it once.
//! - Of an order the higher revision counts, of a manifest the higher number. Both count from the
//!   wall clock upwards, so that a node that has lost its data is believed again.
//! - A node is believed about its own orders and studies only. What cannot be read, or is longer
//!   than [`ORDER_BYTES_MAX`], is kept as cargo, told in the log, and otherwise passed over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use minicbor::{Decode, Encode};

use super::cases::OpenStudy;
use super::hand_on::{Receivers, ToTell};
use super::keys::{TO_CARRY, TO_TELL, entry, manifest_key, order_key};
use super::record::{Dossier, OrderRecord, Standing, StudyRef, Told};
use super::{DUE_MAX, Registrar};
use crate::cargo::{
    Assignment, CargoKind, DestinationName, Envelope, Identity, NodeName, Sha256, Urgency,
    peer_text,
};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::{Arrival, Draft};
use crate::orders::history::{History, MESSAGES_MAX};
use crate::orders::manifest::{Carried, Manifest, Reading, UidList};
use crate::orders::matching::Link;
use crate::orders::order::{Order, OrderKey};
use crate::orders::verdict::{Finding, Missing, Verdict, What};
use crate::orders::words::{Sentence, Word};
use crate::routing::Times;

/// Longest order that is handed over or taken in, in bytes.
pub const ORDER_BYTES_MAX: usize = 256 << 10;
/// Longest manifest that is kept for a study, in bytes; a longer one is kept without the rest of
/// its list, and its study is then never complete here.
const MANIFEST_BYTES_MAX: usize = 512 << 10;
/// Most orders, and most studies, that a start finds to be handed over.
const TO_CARRY_MAX: usize = 100_000;
/// Between two manifests of one study.
pub const MANIFEST_PAUSE: Duration = Duration::from_secs(1);
/// Destinations of one study or order that are remembered.
const WAYS_MAX: usize = 16;

/// Who knows where a piece of cargo is to go to. `attribute` answers as in
/// [`Subject`](crate::routing::Subject).
pub trait Ways: Send + Sync + 'static {
    /// The assignments among nodes: what goes elsewhere is left out.
    fn assign(
        &self,
        envelope: &Envelope,
        attribute: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Assignment>;

    /// The assignments among [`receivers`](Self::receivers).
    fn tell(
        &self,
        envelope: &Envelope,
        attribute: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Assignment>;

    /// The name of the first rule that applies to it and names a node.
    fn route(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        None
    }

    /// The destinations that take orders by HL7.
    fn receivers(&self) -> Arc<Receivers>;

    /// Whether any route wants images to be corrected as their orders say.
    fn corrects_any(&self) -> bool {
        false
    }

    /// Whether a route of this image wants that.
    fn corrects(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> bool {
        false
    }

    /// Whether any route holds images until their orders are known.
    fn holds_until_matched(&self) -> bool {
        false
    }

    /// How long the routes say that is waited for it.
    fn times(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Times {
        Times::default()
    }
}

/// An order on its way.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct CarriedOrder {
    #[n(0)]
    revision: u64,
    #[n(1)]
    history: History,
}

/// A destination of a study's images, and how soon they are to be there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Way {
    #[n(0)]
    pub(super) destination: DestinationName,
    #[n(1)]
    pub(super) urgency: Urgency,
}

/// Adds ways that are not known, or sooner; true when there was one.
pub(super) fn add_ways(own: &mut Vec<Way>, new: impl IntoIterator<Item = Way>) -> bool {
    let mut changed = false;
    for way in new {
        match own.iter().position(|w| w.destination == way.destination) {
            Some(at) if own[at].urgency <= way.urgency => continue,
            Some(at) => own[at].urgency = way.urgency,
            None if own.len() < WAYS_MAX => own.push(way),
            None => continue,
        }
        changed = true;
    }
    changed
}

/// What is to be handed to custody, seen from memory.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    orders: BTreeMap<OrderKey, ()>,
    studies: BTreeMap<StudyRef, Timestamp>,
    /// Orders that receivers of HL7 may have to be told of.
    pub(super) tell: ToTell,
}

impl Outbox {
    pub(super) fn order(&mut self, key: &OrderKey) {
        self.orders.insert(key.clone(), ());
    }

    /// An order is to be told.
    pub(super) fn tell(&mut self, key: &OrderKey, now: Timestamp) {
        self.tell.add(key, now);
    }

    /// A manifest of the study is to go, not before its last one is old enough.
    pub(super) fn study(&mut self, study: &StudyRef, last: Option<&Told>) {
        let last = last.map_or(0, |told| i64::try_from(told.number).unwrap_or(0));
        self.studies.insert(study.clone(), Timestamp(last) + MANIFEST_PAUSE);
    }

    fn due(&self, now: Timestamp) -> (Vec<OrderKey>, Vec<StudyRef>) {
        let studies = self.studies.iter().filter(|(_, at)| **at <= now);
        (
            self.orders.keys().take(DUE_MAX).cloned().collect(),
            studies.take(DUE_MAX).map(|(id, _)| id.clone()).collect(),
        )
    }
}

fn envelope(kind: CargoKind, origin: &NodeName, body: &[u8], now: Timestamp) -> Envelope {
    let sha256 = Sha256::of(body);
    // The same content is the same piece, however often it is handed over.
    let identity = Identity { origin: origin.clone(), key: format!("{kind}-{sha256}"), sha256 };
    Envelope::of_ours(kind, identity, body.len() as u64, now)
}

impl Registrar {
    /// Finds what an earlier life left to be handed over.
    pub(super) async fn load_outbox(&mut self) -> Result<(), Stopped> {
        self.outbox = Outbox::default();
        let orders: Vec<OrderRecord> = self.store.with(TO_CARRY, b'o', TO_CARRY_MAX).await?;
        orders.iter().for_each(|o| self.outbox.order(o.key()));
        let told: Vec<OrderRecord> = self.store.with(TO_TELL, b'o', TO_CARRY_MAX).await?;
        told.iter().for_each(|o| self.outbox.tell(o.key(), Timestamp::default()));
        let studies: Vec<Dossier> = self.store.with(TO_CARRY, b's', TO_CARRY_MAX).await?;
        studies.iter().for_each(|s| self.outbox.study(&s.study(), s.told.as_ref()));
        Ok(())
    }

    /// Hands orders and manifests to custody, some at a time.
    pub(super) async fn carry(&mut self, now: Timestamp) -> Result<(), Stopped> {
        let (orders, studies) = self.outbox.due(now);
        for key in orders {
            if !self.carry_order(&key, now).await? {
                return Ok(());
            }
        }
        for study in studies {
            if !self.carry_manifest(&study, now).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands a body to custody for these destinations; false when custody does not take it now.
    async fn hand_over(&mut self, envelope: Envelope, body: &[u8], to: Vec<Assignment>) -> bool {
        if to.is_empty() {
            return true;
        }
        let mut assembly = self.custody.assemble();
        if assembly.push(body).await.is_err() {
            return false;
        }
        let draft = Draft { envelope, body: assembly.finish(), assignments: to };
        match self.custody.take(draft).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "orders and manifests wait for custody");
                false
            }
        }
    }

    async fn carry_order(&mut self, key: &OrderKey, now: Timestamp) -> Result<bool, Stopped> {
        let Some(mut record) = self.store.get::<OrderRecord>(order_key(key)).await? else {
            self.outbox.orders.remove(key);
            return Ok(true);
        };
        let order = record.history.order();
        let carried = CarriedOrder { revision: record.revision, history: record.history.clone() };
        let body = minicbor::to_vec(&carried).expect("encoding into memory cannot fail");
        let mut envelope = envelope(CargoKind::Order, &key.origin, &body, now);
        envelope.urgency = order.urgency().min(Urgency::Urgent);
        let to = self.ways_of(&order, &record, &envelope);
        if !self.hand_over(envelope, &body, to).await {
            return Ok(false);
        }
        record.carried = record.revision;
        self.outbox.orders.remove(key);
        self.store.put(record.entry(&order));
        Ok(true)
    }

    /// Where an order goes: where the routes send what is like it, and where its images went.
    fn ways_of(&self, order: &Order, record: &OrderRecord, envelope: &Envelope) -> Vec<Assignment> {
        let asked = like(order, envelope.clone());
        let mut to = self.ways.assign(&asked, &|keyword| attribute_of(order, &asked, keyword));
        for way in &record.ways {
            if !to.iter().any(|a| a.destination == way.destination) {
                let (destination, urgency) = (way.destination.clone(), way.urgency);
                to.push(Assignment { destination, urgency, hold: None });
            }
        }
        // An order overtakes the images that it explains, and none of it waits for a person.
        to.iter_mut().for_each(|a| {
            a.urgency = a.urgency.min(envelope.urgency);
            a.hold = None;
        });
        to
    }

    async fn carry_manifest(&mut self, id: &StudyRef, now: Timestamp) -> Result<bool, Stopped> {
        let Some((dossier, verdict)) = self.verdict(id, now).await? else {
            self.outbox.studies.remove(id);
            return Ok(true);
        };
        let told = Told::of(&dossier, &verdict, now);
        let study = self.study(id, None).await?.expect("just judged");
        let order = dossier.matched.order();
        let origin = &id.origin;
        let judged = (&verdict, &study.tally);
        let mut manifest = Manifest::new((origin, &id.study), told.number, order, judged, now);
        manifest.prior_of.clone_from(&dossier.prior_of);
        let body = manifest.encode();
        let envelope = envelope(CargoKind::Manifest, origin, &body, now);
        let to = dossier.ways.iter().map(|way| Assignment {
            destination: way.destination.clone(),
            urgency: way.urgency,
            hold: None,
        });
        let to = to.collect();
        if !self.hand_over(envelope, &body, to).await {
            return Ok(false);
        }
        self.outbox.studies.remove(id);
        if let Some(study) = self.study(id, None).await? {
            study.dossier.told = Some(told);
            study.dossier.owes_manifest = false;
        }
        self.changed(id);
        Ok(true)
    }

    /// Takes in an order that another node has told.
    pub(super) async fn take_order(
        &mut self,
        arrival: &Arrival,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let origin = &arrival.envelope.identity.origin;
        if *origin == self.config.node {
            return Ok(());
        }
        let Some(told) = read_order(arrival).await else {
            tracing::warn!(cargo = %arrival.cargo, %origin, "an order cannot be read; passed over");
            return Ok(());
        };
        let key = told.history.key().clone();
        let known = self.store.get::<OrderRecord>(order_key(&key)).await?;
        let mut record = known.unwrap_or_else(|| OrderRecord::new(key, now));
        if told.revision <= record.revision {
            return Ok(());
        }
        let before = record.history.order();
        record.history = told.history;
        record.revision = told.revision;
        // It goes to no other node from here by itself; the routes may send the cargo on.
        record.carried = told.revision;
        record.to_tell = true;
        self.enter_order_as_is(record, &before, now).await
    }

    /// Takes in what another node says of a study of its own.
    pub(super) async fn take_manifest(
        &mut self,
        arrival: &Arrival,
    ) -> Result<Option<StudyRef>, Stopped> {
        let origin = arrival.envelope.identity.origin.clone();
        if origin == self.config.node {
            return Ok(None);
        }
        let read = match arrival.body.read().await {
            Ok(bytes) => Manifest::decode(&bytes).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let manifest = match read {
            Ok(manifest) if manifest.origin == origin => fitting(manifest),
            Ok(_) => return Ok(None),
            Err(error) => {
                tracing::warn!(cargo = %arrival.cargo, %origin, error, "a manifest is passed over");
                return Ok(None);
            }
        };
        let id = StudyRef { origin, study: manifest.study.clone() };
        self.study(&id, Some(arrival.kept_at)).await?;
        let study = self.study(&id, None).await?.expect("just read or made");
        if study.dossier.manifest.is_some_and(|number| number >= manifest.number) {
            return Ok(None);
        }
        study.dossier.manifest = Some(manifest.number);
        study.dossier.prior_of.clone_from(&manifest.prior_of);
        study.dossier.link = Some(Link {
            at: manifest.judged_at,
            order: manifest.order.clone(),
            by: id.origin.to_string(),
        });
        let carried = Carried::new(manifest, |sop| study.tally.holds(sop));
        study.carried = Some(carried);
        let kept = study.carried.as_ref().expect("just set").manifest().clone();
        self.store.put(entry(manifest_key(&id), &kept, Vec::new()));
        self.changed(&id);
        Ok(Some(id))
    }
}

/// The envelope with what rules may ask of an order.
pub(super) fn like(order: &Order, envelope: Envelope) -> Envelope {
    let c = &order.content;
    Envelope {
        modality: peer_text(c.any_modality()),
        accession: peer_text(c.accessions().next().map_or("", |a| &a.id)),
        patient_id: peer_text(c.patient.ids.first().map_or("", |i| &i.id)),
        ..envelope
    }
}

/// An attribute of an order, for rules that ask for it.
pub(super) fn attribute_of(order: &Order, asked: &Envelope, keyword: &str) -> Option<String> {
    Some(match keyword {
        "Modality" => asked.modality.clone(),
        "AccessionNumber" => asked.accession.clone(),
        "PatientID" => asked.patient_id.clone(),
        "RequestingService" => order.content.clinical.department.clone(),
        _ => return None,
    })
}

/// The same, for whoever only asks the routes.
pub(super) fn like_order(order: &Order, node: &NodeName) -> Envelope {
    like(order, envelope(CargoKind::Order, node, &[], Timestamp::default()))
}

async fn read_order(arrival: &Arrival) -> Option<CarriedOrder> {
    if arrival.body.len() > ORDER_BYTES_MAX as u64 {
        return None;
    }
    let bytes = arrival.body.read().await.ok()?;
    let told: CarriedOrder = minicbor::decode(&bytes).ok()?;
    let own = told.history.key().origin == arrival.envelope.identity.origin;
    (own && told.history.messages().len() <= MESSAGES_MAX).then_some(told)
}

/// A manifest that can be kept: one that is too long loses the end of its list, and counts it.
fn fitting(mut manifest: Manifest) -> Manifest {
    while manifest.encode().len() > MANIFEST_BYTES_MAX && !manifest.wanted.is_empty() {
        let keep = manifest.wanted.len() / 2;
        let beyond = u32::try_from(manifest.wanted.len() - keep).unwrap_or(u32::MAX);
        let cut = |list: &UidList| UidList::of(list.iter().take(keep));
        manifest.wanted = cut(&manifest.wanted);
        let wanted = manifest.wanted.clone();
        manifest.missing = UidList::of(manifest.missing.iter().filter(|uid| wanted.contains(uid)));
        manifest.withdrawn = cut(&manifest.withdrawn);
        manifest.because.iter_mut().for_each(|w| w.instances = cut(&w.instances));
        manifest.unnamed = manifest.unnamed.saturating_add(beyond);
    }
    manifest
}

impl Told {
    /// What a manifest of a study would say now.
    pub(super) fn of(dossier: &Dossier, verdict: &Verdict, now: Timestamp) -> Self {
        let last = dossier.told.as_ref().map_or(0, |told| told.number);
        let standing = Standing::of(verdict, None, now);
        // While images come, that they come is all that is told.
        let coming = standing.progress == What::Arriving;
        Self {
            number: u64::try_from(now.0).unwrap_or(0).max(last + 1),
            progress: standing.progress,
            attention: standing.attention,
            grade: standing.grade,
            missing: if coming { 0 } else { standing.missing },
            order: dossier.matched.order().cloned(),
            withdrawn: verdict.withdrawn,
            held: if coming { 0 } else { standing.held },
        }
    }

    /// Whether another manifest has nothing new to say.
    pub(super) fn says(&self, other: &Self) -> bool {
        *other == Self { number: other.number, ..self.clone() }
    }
}

/// How a study stands at a node that others told of it.
pub(super) fn standing(study: &OpenStudy, before: Option<&Standing>, now: Timestamp) -> Standing {
    let carried = study.carried.as_ref().expect("told of");
    let (manifest, reading) = (carried.manifest(), carried.reading());
    let concerns = manifest.attention.iter().copied().filter(|what| !what.is_progress());
    let mut attention: Vec<What> = concerns.collect();
    attention.extend(Some(reading.what).filter(|what| what.needs_attention()));
    attention.sort_unstable();
    attention.dedup();
    let headline = attention.first().copied().unwrap_or(reading.what).min(reading.what);
    let reason = match headline == reading.what {
        true => reading.reason.clone(),
        false => Word::OriginJudges.into(),
    };
    let since = before.filter(|b| b.headline == headline).map_or(now, |b| b.since);
    Standing {
        headline,
        progress: reading.what,
        attention,
        grade: reading.grade,
        reason,
        action: Word::Wait,
        held: reading.held,
        arrived: reading.held,
        expected: Some(reading.expected),
        missing: reading.expected.saturating_sub(reading.held),
        lacking: carried.awaited().take(super::LACKING_SHOWN_MAX).map(str::to_owned).collect(),
        hold: None,
        since,
        again_at: None,
        source: None,
    }
}

/// How a study is judged at a node that others told of it.
pub(super) fn verdict(carried: &Carried) -> Verdict {
    let (findings, missing) = findings(carried);
    let (manifest, reading) = (carried.manifest(), carried.reading());
    let lacks = reading.expected.saturating_sub(reading.held);
    let named = u32::try_from(missing.len()).unwrap_or(u32::MAX);
    Verdict {
        findings,
        held: reading.held,
        arrived: reading.held,
        expected: Some(reading.expected),
        frames: 0,
        withdrawn: u32::try_from(manifest.withdrawn.len()).unwrap_or(u32::MAX),
        unnamed: lacks.saturating_sub(named),
        missing,
        gaps: Vec::new(),
        hold: None,
        again_at: None,
    }
}

/// What is found of a study at a node that others told of it, and what it lacks.
fn findings(carried: &Carried) -> (Vec<Finding>, Vec<Missing>) {
    let (manifest, reading): (&Manifest, Reading) = (carried.manifest(), carried.reading());
    let own = Finding::new(reading.what, reading.reason, Word::Wait).on(manifest.by.clone());
    let concern = |what: &What| {
        let reason: Sentence = Word::OriginJudges.into();
        Finding::new(*what, reason, Word::Wait)
    };
    let concerns = manifest.attention.iter().filter(|what| !what.is_progress()).map(concern);
    let mut findings: Vec<Finding> = concerns.chain([own]).collect();
    findings.sort_by_key(|f| f.what);
    let awaited: std::collections::BTreeSet<&str> = carried.awaited().collect();
    let lacks = manifest.details.iter().filter(|m| awaited.contains(m.sop.as_str()));
    (findings, lacks.cloned().collect())
}
