//! Documents: looked at when they come, placed where they belong, or held.
//!
//! At the reading node a document is matched by what it names, among all studies and orders of all
//! hospitals; what cannot be placed is tried again when time has passed, since its order or images
//! may come after it, and shown until a person decides. At the hospital a document is placed where
//! its slip says, if the study or the order is known there and was sent to the node that the document
//! comes from: whichever of document and slip comes first waits for the other. What this node reads of
//! its own is at home when it is placed.
//!
//! Bodies are read once, when they come, and again when a version is made for a destination.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::record::{
    DocumentRecord, HELD, Place, ReportRecord, TO_CARRY, WAITING, document_key, id_of, remembered,
};
use super::timers::What;
use super::{ARRIVALS_MAX, OPEN_MAX, Secretary, Why};
use crate::cargo::{Assignment, CargoKind, DestinationName, NodeName, Sha256, Urgency};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::{Arrival as Come, CargoId};
use crate::orders::registrar;
use crate::reports::collect;
use crate::reports::matching::{By, Candidate, Outcome, Target, Wanted, target_of};
use crate::reports::note::{self, Note, Says, Slip};
use crate::reports::report::{BYTES_MAX, Report};
use crate::reports::signers::SignerRules;

/// First and longest pause before a document that is held is matched again by itself.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// How long a document waits for its slip before people are told: nothing that came after it is given
/// back to the disk meanwhile.
const SLIP_TIME: Duration = Duration::from_secs(3600);
/// How long orders have for an answer.
const ORDERS_TIME: Duration = Duration::from_secs(5);
/// Tries after which people are told of what may change by itself.
const TRIES_UNTOLD: u32 = 4;
/// Tries of which each is written down; after so many the pause is the longest.
const TRIES_WRITTEN: u32 = 10;
/// Longest body that is read: names and lists beside the forms.
const BODY_MAX: u64 = (BYTES_MAX + (8 << 20)) as u64;

/// A candidate, and what else orders know of it.
pub(super) struct Known {
    pub(super) candidate: Candidate,
    pub(super) facts: registrar::Candidate,
}

impl Secretary {
    /// Finds what an earlier life left to be done.
    pub(super) async fn load_documents(&mut self) -> Result<(), Stopped> {
        let carry: Vec<DocumentRecord> = self.store.with(TO_CARRY, b'd', OPEN_MAX).await?;
        self.carry = carry.iter().map(|doc| doc.sha256).collect();
        let waiting: Vec<DocumentRecord> = self.store.with(WAITING, b'd', OPEN_MAX).await?;
        self.waiting = waiting.iter().filter_map(|doc| doc.cargo).collect();
        for doc in waiting {
            self.timers.set(What::Document(doc.sha256), Some(doc.arrived_at + SLIP_TIME));
        }
        let held: Vec<DocumentRecord> = self.store.with(HELD, b'd', OPEN_MAX).await?;
        for doc in held {
            self.retry(&doc, Timestamp::default());
        }
        Ok(())
    }

    /// Looks at what custody has taken since; true when there is more.
    pub(super) async fn take_arrivals(&mut self, now: Timestamp) -> Result<bool, Stopped> {
        let after = CargoId(self.cursor.arrival);
        let come = self.custody.arrivals(after, ARRIVALS_MAX).await.ok_or(Stopped)?;
        let (mut more, mut last) = (come.len() == ARRIVALS_MAX, None);
        for arrival in come {
            if self.store.is_full() {
                more = true;
                break;
            }
            let envelope = &arrival.envelope;
            let own = envelope.identity.origin == self.config.node;
            match envelope.kind {
                CargoKind::Image if !envelope.study.is_empty() => self.see_image(&arrival).await?,
                // What this node has made for its systems has other keys.
                CargoKind::Report if !own || envelope.identity.key.starts_with(collect::KEY) => {
                    self.take_document(&arrival, now).await?;
                }
                CargoKind::Note if !own && envelope.identity.key.starts_with(note::KEY) => {
                    let is_taken = self.take_note(&arrival, now).await?;
                    if !is_taken {
                        // It is looked at again in a later turn, before what came after it.
                        more = false;
                        break;
                    }
                }
                _ => {}
            }
            last = Some(arrival.cargo.0);
        }
        let Some(last) = last else { return Ok(false) };
        self.remember_cursor(last);
        Ok(more)
    }

    async fn take_document(&mut self, come: &Come, now: Timestamp) -> Result<(), Stopped> {
        let identity = &come.envelope.identity;
        let known = self.document(&identity.sha256).await?;
        if known.as_ref().is_some_and(|doc| doc.cargo.is_some()) {
            return Ok(());
        }
        let mut doc = known.unwrap_or_else(|| {
            DocumentRecord::new(identity.sha256, &identity.origin, come.kept_at)
        });
        doc.cargo = Some(come.cargo.0);
        let report = read(&come.body).await;
        let said = report.as_ref().and_then(remembered);
        let (Some(report), Some(said)) = (report, said) else {
            tracing::error!(document = doc.id(), "a report cannot be read; a person must look");
            self.hold(doc, Why::Unreadable, now);
            return Ok(());
        };
        let status = report.status;
        tracing::info!(document = doc.id(), from = %doc.from, ?status, "a report has come");
        self.metrics.reports.taken.with_label_values(&[status.as_str()]).inc();
        doc.digest = report.digest();
        doc.is_garbled =
            report.text().is_some_and(|text| text.contains(char::REPLACEMENT_CHARACTER));
        doc.said = Some(Box::new(said));
        self.place(doc, now).await
    }

    /// Places a document of which everything has come; holds it, or lets it wait.
    pub(super) async fn place(
        &mut self,
        mut doc: DocumentRecord,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(said) = doc.said.clone() else {
            self.wait(doc, now);
            return Ok(());
        };
        if doc.from != self.config.node {
            return self.place_by_slip(doc, &said, now).await;
        }
        let Some(found) = self.find(&doc, &said).await? else {
            // Orders cannot be asked just now.
            doc.place = Place::Held(Why::Match(Outcome::None));
            self.timers.set(What::Document(doc.sha256), Some(now + RETRY));
            self.store.put(doc.entry());
            return Ok(());
        };
        let (targets, by, urgency) = match found {
            (Outcome::Found { targets, by }, urgency) => (targets, by, urgency),
            (outcome, _) => {
                self.hold(doc, Why::Match(outcome), now);
                return Ok(());
            }
        };
        let hospital = targets[0].origin.clone();
        let is_home = hospital == self.config.node;
        if !is_home && !self.config.peers.contains(&hospital) {
            self.hold(doc, Why::Unknown(targets), now);
            return Ok(());
        }
        if doc.is_garbled && doc.released_by.is_none() {
            self.hold(doc, Why::Garbled, now);
            return Ok(());
        }
        if let Some(doubt) = self.doubt(&doc, &said, &hospital) {
            self.hold(doc, Why::Signer(doubt), now);
            return Ok(());
        }
        let record = self.report_of(&targets, &said, &doc.from, by).await?;
        let slip = Slip {
            cargo: doc.sha256,
            report: record.id.clone(),
            targets,
            by,
            arrived_at: doc.arrived_at,
        };
        doc.slip = Some(slip.clone());
        // So is what corrects a critical result.
        let is_critical = !said.critical.is_empty() || record.alarm.is_some();
        let urgency = if is_critical { Urgency::Stat } else { urgency.min(Urgency::Routine) };
        let filed = self.file(&mut doc, &said, record, now).await?;
        if !filed {
            self.hold(doc, Why::Full, now);
            return Ok(());
        }
        if !is_home {
            doc.carry = Some(urgency);
            self.carry.insert(doc.sha256);
            let study = slip.targets[0].study.clone();
            let says = Says::Belongs(slip);
            self.tell(Note { hospital: hospital.clone(), study, at: now, says }, hospital, urgency);
        }
        self.timers.set(What::Document(doc.sha256), None);
        self.store.put(doc.entry());
        Ok(())
    }

    /// Where a document belongs, and how soon it is wanted there; `None`: orders cannot be asked.
    async fn find(
        &self,
        doc: &DocumentRecord,
        said: &Report,
    ) -> Result<Option<(Outcome, Urgency)>, Stopped> {
        if let Some((_, target)) = &doc.matched {
            let targets = vec![target.clone()];
            return Ok(Some((Outcome::Found { targets, by: By::Person }, Urgency::Routine)));
        }
        let Some(known) = self.known(&Wanted::of(&said.ids)).await else { return Ok(None) };
        let candidates: Vec<Candidate> = known.iter().map(|k| k.candidate.clone()).collect();
        let outcome = target_of(said, &candidates);
        let urgency = match &outcome {
            Outcome::Found { targets, .. } => known
                .iter()
                .filter(|k| targets.contains(&k.candidate.target))
                .map(|k| k.facts.urgency)
                .min(),
            _ => None,
        };
        Ok(Some((outcome, urgency.unwrap_or_default())))
    }

    /// What orders know under these names; `None`: they cannot be asked now.
    pub(super) async fn known(&self, wanted: &Wanted<'_>) -> Option<Vec<Known>> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let wanted = registrar::Wanted {
            studies: owned(&wanted.studies),
            accessions: owned(&wanted.accessions),
            fillers: owned(&wanted.fillers),
            placers: owned(&wanted.placers),
            instances: owned(&wanted.instances),
        };
        let found = self.of_orders(self.orders.candidates(wanted)).await?;
        Some(found.into_iter().map(known).collect())
    }

    /// What orders answer; `None`: they cannot be asked now. Once a turn is waited for that in vain,
    /// and no longer: people are waiting for this desk meanwhile.
    pub(super) async fn of_orders<T>(
        &self,
        asked: impl Future<Output = Result<T, registrar::DeskError>>,
    ) -> Option<T> {
        if self.in_vain.load(Ordering::Relaxed) {
            return None;
        }
        let found = tokio::time::timeout(ORDERS_TIME, asked).await.ok().and_then(Result::ok);
        self.in_vain.store(found.is_none(), Ordering::Relaxed);
        found
    }

    /// At the hospital: where the slip says, if that is known here.
    async fn place_by_slip(
        &mut self,
        mut doc: DocumentRecord,
        said: &Report,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(slip) = doc.slip.clone() else {
            self.wait(doc, now);
            return Ok(());
        };
        let Some((here, sent)) = self.those_here(&slip.targets, &doc.from).await else {
            doc.place = Place::Held(Why::Unknown(slip.targets));
            self.timers.set(What::Document(doc.sha256), Some(now + RETRY));
            self.store.put(doc.entry());
            return Ok(());
        };
        if here.is_empty() {
            self.hold(doc, Why::Unknown(slip.targets), now);
            return Ok(());
        }
        if sent.is_empty() && doc.released_by.is_none() {
            self.hold(doc, Why::NotSent(here), now);
            return Ok(());
        }
        let targets = if sent.is_empty() { here } else { sent };
        let own = self.config.node.clone();
        if let Some(doubt) = self.doubt(&doc, said, &own) {
            self.hold(doc, Why::Signer(doubt), now);
            return Ok(());
        }
        let known = self.report(&slip.report).await?;
        if known.as_ref().is_some_and(|record| record.from != doc.from) {
            tracing::warn!(from = %doc.from, report = slip.report, "it is another node's report");
            self.hold(doc, Why::Unknown(slip.targets), now);
            return Ok(());
        }
        let mut record = known.unwrap_or_else(|| {
            let id = slip.report.clone();
            ReportRecord::new(id, doc.from.clone(), targets.clone(), slip.by)
        });
        doc.arrived_at = slip.arrived_at;
        if record.chain.latest().is_none() {
            // It was called critical before it came: the slip knows better what it is about.
            (record.targets, record.by) = (Vec::new(), slip.by);
        }
        record.is_about(&targets);
        if !self.file(&mut doc, said, record, now).await? {
            self.hold(doc, Why::Full, now);
            return Ok(());
        }
        self.waiting.remove(&doc.cargo.unwrap_or_default());
        self.timers.set(What::Document(doc.sha256), None);
        self.store.put(doc.entry());
        Ok(())
    }

    /// Those of these studies and orders that this hospital has, and those of them of which it has
    /// sent something to a node; `None`: orders cannot be asked now.
    async fn those_here(
        &self,
        targets: &[Target],
        node: &NodeName,
    ) -> Option<(Vec<Target>, Vec<Target>)> {
        let numbers = || targets.iter().filter_map(|t| t.order.as_ref());
        let wanted = Wanted {
            studies: targets.iter().map(|t| t.study.as_str()).filter(|s| !s.is_empty()).collect(),
            accessions: numbers().map(|o| o.number.as_str()).collect(),
            fillers: numbers().map(|o| o.number.as_str()).collect(),
            placers: numbers().map(|o| o.number.as_str()).collect(),
            instances: Vec::new(),
        };
        let known = self.known(&wanted).await?;
        let is = |t: &&Target, own: &Target| {
            own.origin == self.config.node
                && ((!t.study.is_empty() && t.study == own.study)
                    || (t.order.is_some() && t.order == own.order))
        };
        let node = DestinationName::from(node);
        let has = |t: &&Target| known.iter().any(|k| is(t, &k.candidate.target));
        let was_sent = |t: &&Target| {
            let sent = known.iter().filter(|k| k.facts.sent_to.contains(&node));
            sent.into_iter().any(|k| is(t, &k.candidate.target))
        };
        let here = targets.iter().filter(has).cloned().collect();
        Some((here, targets.iter().filter(was_sent).cloned().collect()))
    }

    /// Whether something of a study of this hospital was sent to a node; `None`: orders cannot be
    /// asked now.
    pub(super) async fn was_sent(&self, study: &str, node: &NodeName) -> Option<bool> {
        let target = Target { origin: self.config.node.clone(), study: study.into(), order: None };
        let (_, sent) = self.those_here(&[target], node).await?;
        Some(!sent.is_empty())
    }

    fn doubt(
        &self,
        doc: &DocumentRecord,
        said: &Report,
        hospital: &NodeName,
    ) -> Option<crate::reports::signers::Doubt> {
        if doc.released_by.is_some() {
            return None;
        }
        let fits = |s: &&super::Signing| s.hospitals.is_empty() || s.hospitals.contains(hospital);
        let by_default = SignerRules::default();
        let rules = match self.config.signing.iter().find(fits) {
            Some(signing) => &signing.rules,
            // The reading node has looked already, and perhaps a person there.
            None if *hospital == self.config.node => return None,
            None => &by_default,
        };
        rules.doubt(said.status, said.is_signed, &said.verifiers)
    }

    /// Holds a document for a person; what may change by itself is tried again.
    pub(super) fn hold(&mut self, mut doc: DocumentRecord, why: Why, now: Timestamp) {
        doc.tries = doc.tries.saturating_add(1);
        self.waiting.remove(&doc.cargo.unwrap_or_default());
        // What may change by itself within a moment is told to nobody before that.
        let last = if by_itself(&why) { TRIES_UNTOLD } else { 0 };
        let is_told = matches!(&doc.place, Place::Held(before) if *before == why);
        // Nothing is news: it is not written down again.
        if is_told && doc.tries > TRIES_WRITTEN {
            return self.retry(&doc, now);
        }
        doc.place = Place::Held(why);
        if !is_told && last == 0 || doc.tries == last {
            tracing::warn!(
                document = doc.id(),
                "a report is held; `hikyaku reports --held` says why"
            );
            self.tell_held(&doc, now);
        }
        self.retry(&doc, now);
        self.store.put(doc.entry());
    }

    fn retry(&mut self, doc: &DocumentRecord, now: Timestamp) {
        let Place::Held(why) = &doc.place else { return };
        let pause = RETRY.saturating_mul(1 << doc.tries.min(10)).min(RETRY_MAX);
        self.timers.set(What::Document(doc.sha256), by_itself(why).then(|| now + pause));
    }

    fn wait(&mut self, mut doc: DocumentRecord, now: Timestamp) {
        doc.place = Place::Waits;
        self.waiting.extend(doc.cargo);
        self.timers.set(What::Document(doc.sha256), Some(now + SLIP_TIME));
        self.store.put(doc.entry());
    }

    /// A slip has come.
    pub(super) async fn take_slip(
        &mut self,
        slip: Slip,
        from: &NodeName,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let known = self.document(&slip.cargo).await?;
        let mut doc =
            known.unwrap_or_else(|| DocumentRecord::new(slip.cargo, from, slip.arrived_at));
        if doc.from != *from || matches!(doc.place, Place::Filed(_) | Place::Discarded(..)) {
            return Ok(());
        }
        doc.slip = Some(slip);
        self.place(doc, now).await
    }

    pub(super) async fn document(
        &self,
        sha256: &Sha256,
    ) -> Result<Option<DocumentRecord>, Stopped> {
        self.store.get(document_key(sha256)).await
    }

    /// A document that is held is looked at again; one that has waited too long is held.
    pub(super) async fn look_at_document(
        &mut self,
        sha256: &Sha256,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(doc) = self.document(sha256).await? else { return Ok(()) };
        match (&doc.place, &doc.slip) {
            (Place::Waits, None) => self.hold(doc, Why::Unknown(Vec::new()), now),
            // The slip is looked at when it comes.
            (Place::Held(Why::Unknown(_)), None) if doc.from != self.config.node => {}
            (Place::Held(_), _) => self.place(doc, now).await?,
            _ => {}
        }
        Ok(())
    }

    /// Gives documents their duty to their hospital, some at a time.
    pub(super) async fn carry_some(&mut self, now: Timestamp) -> Result<(), Stopped> {
        let some: Vec<Sha256> = self.carry.iter().take(super::DUE_MAX).copied().collect();
        for sha256 in some {
            let Some(mut doc) = self.document(&sha256).await? else {
                self.carry.remove(&sha256);
                continue;
            };
            let (Some(urgency), Some(cargo)) = (doc.carry, doc.cargo) else {
                self.carry.remove(&sha256);
                continue;
            };
            let Some(slip) = &doc.slip else { continue };
            let destination = DestinationName::from(&slip.targets[0].origin);
            let to = vec![Assignment { destination, urgency, hold: None }];
            if !self.custody.assign(CargoId(cargo), to).await {
                // Its bytes are gone, or custody cannot write just now.
                let gone = self.custody.read(CargoId(cargo)).await.is_none();
                if gone {
                    tracing::error!(document = id_of(&sha256), "a report's bytes are gone");
                    doc.carry = None;
                    self.carry.remove(&sha256);
                    self.hold(doc, Why::Unreadable, now);
                }
                continue;
            }
            doc.carry = None;
            self.carry.remove(&sha256);
            self.store.put(doc.entry());
        }
        Ok(())
    }

    /// The report that a document holds; `None`: its bytes are gone, or are none.
    pub(super) async fn body(&self, doc: &DocumentRecord) -> Option<Report> {
        let (_, body) = self.custody.read(CargoId(doc.cargo?)).await?;
        read(&body).await
    }
}

/// Whether why a document waits may change without a person.
const fn by_itself(why: &Why) -> bool {
    match why {
        Why::Match(_) | Why::Unknown(_) | Why::NotSent(_) => true,
        Why::Signer(_) | Why::Garbled | Why::Full | Why::Unreadable => false,
    }
}

async fn read(body: &crate::custody::Body) -> Option<Report> {
    if body.len() > BODY_MAX {
        return None;
    }
    Report::decode(&body.read().await.ok()?).ok()
}

pub(super) fn known(facts: registrar::Candidate) -> Known {
    let target = Target {
        origin: facts.origin.clone(),
        study: facts.study.clone(),
        order: facts.order.as_ref().map(|order| order.key.clone()),
    };
    let candidate = Candidate {
        target,
        accessions: facts.accessions.clone(),
        placers: facts.placers.clone(),
        fillers: facts.fillers.clone(),
        instances: facts.instances.clone(),
        patient: facts.patient.clone(),
    };
    Known { candidate, facts }
}
