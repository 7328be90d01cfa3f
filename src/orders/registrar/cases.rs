//! Studies in memory, and verdicts.
//!
//! A study is read once and then kept while it is in use, with its tally and its last page, so that
//! an image costs what its study's tally costs. At most [`STUDIES_MAX`] studies and
//! [`INSTANCES_MAX`] instances stay; those not used for longest go first, and never one that this
//! turn has changed.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use dicom_dictionary_std::tags;

use super::keys::{
    CURSOR, Number, entry, manifest_key, order_key, order_numbers, order_of_study, page_entry,
    pages, study_key, study_numbers,
};
use super::record::{
    CaseId, Dossier, OrderRecord, PAGE_INSTANCES, SENDERS_MAX, Standing, StudyRef, TURNS_MAX, Told,
    Turn,
};
use super::roll::Row;
use super::travel::{self, Way, add_ways};
use super::withdrawn::{self, Seen};
use super::{ARRIVALS_MAX, Registrar, header, keys, priors_in};
use crate::cargo::{CargoKind, Envelope, peer_text};
use crate::clock::Timestamp;
use crate::custody::overlay::{Overlay, Stopped};
use crate::custody::{Arrival, Body, CargoId};
use crate::dicom::header::{Header, Reading, read, tag_of};
use crate::orders::evidence::{Evidence, Statement};
use crate::orders::instance::Instance;
use crate::orders::judge::{Case, judge};
use crate::orders::manifest::{Carried, Manifest};
use crate::orders::matching::{Match, order_of};
use crate::orders::order::{Order, OrderKey};
use crate::orders::tally::Tally;
use crate::orders::verdict::{Settled, Verdict};

/// Most studies in memory.
const STUDIES_MAX: usize = 256;
/// Most instances of them together.
const INSTANCES_MAX: usize = 200_000;
/// Bytes of an image that are looked at.
const HEAD_BYTES: usize = 64 << 10;
/// Bytes of an image whose header is longer.
const LONG_HEAD_BYTES: usize = 1 << 20;
/// Orders that one number of a study may find.
pub(super) const CANDIDATES_MAX: usize = 64;

/// A study in memory.
#[derive(Debug)]
pub(super) struct OpenStudy {
    pub(super) dossier: Dossier,
    pub(super) tally: Tally,
    /// All that was said of it.
    pub(super) evidence: Evidence,
    /// What the node that sent the study says of it, where this one is told.
    pub(super) carried: Option<Carried>,
    /// Which withdrawn images a person has acknowledged.
    pub(super) seen: Seen,
    last_page: Vec<Instance>,
    used: u64,
    changed: bool,
}

/// The studies in memory.
#[derive(Debug, Default)]
pub(super) struct Cases {
    pub(super) open: HashMap<StudyRef, OpenStudy>,
    turn: u64,
}

impl Cases {
    /// A study that is in memory.
    pub(super) fn open(&self, id: &StudyRef) -> Option<&OpenStudy> {
        self.open.get(id)
    }

    /// Lays what this turn has changed over the book.
    pub(super) fn write(&mut self, store: &mut Overlay) {
        for study in self.open.values_mut().filter(|s| s.changed) {
            study.changed = false;
            store.put(study.dossier.entry());
        }
    }

    /// Lets go of what was not used for longest.
    pub(super) fn forget_some(&mut self) {
        self.turn += 1;
        let size = |s: &OpenStudy| s.dossier.instances as usize;
        let mut instances: usize = self.open.values().map(size).sum();
        if self.open.len() <= STUDIES_MAX && instances <= INSTANCES_MAX {
            return;
        }
        let mut by_use: Vec<(u64, StudyRef)> =
            self.open.iter().map(|(id, s)| (s.used, id.clone())).collect();
        by_use.sort();
        for (_, id) in by_use {
            if self.open.len() <= STUDIES_MAX / 2 && instances <= INSTANCES_MAX / 2 {
                break;
            }
            instances -= self.open.remove(&id).as_ref().map_or(0, size);
        }
    }
}

impl OpenStudy {
    fn new(study: &StudyRef, at: Timestamp) -> Self {
        let dossier = Dossier::new(study, at);
        Self {
            dossier,
            tally: Tally::default(),
            evidence: Evidence::default(),
            carried: None,
            seen: Seen::default(),
            last_page: Vec::new(),
            used: 0,
            changed: true,
        }
    }

    async fn read(dossier: Dossier, store: &Overlay) -> Result<Self, Stopped> {
        let study = dossier.study();
        let mut tally = Tally::default();
        let count = (dossier.instances as usize).div_ceil(PAGE_INSTANCES);
        let all: Vec<Vec<Instance>> = store.below(&pages(&study), count).await?;
        all.iter().flatten().for_each(|i| tally.arrive(i));
        let full = (dossier.instances as usize).is_multiple_of(PAGE_INSTANCES);
        let last_page = all.into_iter().next_back().filter(|_| !full).unwrap_or_default();
        let statements = dossier.statements as usize;
        let said: Vec<Statement> = store.below(&keys::evidence(&study), statements).await?;
        let mut evidence = Evidence::default();
        for statement in said {
            tally.hear(&statement);
            evidence.hear(statement);
        }
        let carried = match dossier.manifest {
            Some(_) => store.get::<Manifest>(manifest_key(&study)).await?,
            None => None,
        };
        let carried = carried.map(|m| Carried::new(m, |sop| tally.holds(sop)));
        let seen = match dossier.seen {
            Some(_) => store.get::<Seen>(keys::seen_key(&study)).await?.unwrap_or_default(),
            None => Seen::default(),
        };
        Ok(Self { dossier, tally, evidence, carried, seen, last_page, used: 0, changed: false })
    }

    /// Takes in an instance, and lays its page over the book.
    fn arrive(&mut self, instance: Instance, store: &mut Overlay) {
        self.tally.arrive(&instance);
        if let Some(carried) = &mut self.carried {
            carried.arrive(&instance.sop);
        }
        self.last_page.push(instance);
        let page = self.dossier.instances / PAGE_INSTANCES as u32;
        store.put(page_entry(&self.dossier.study(), page, &self.last_page));
        self.dossier.instances += 1;
        if self.last_page.len() == PAGE_INSTANCES {
            self.last_page.clear();
        }
        self.changed = true;
    }
}

impl Registrar {
    /// The study, read if need be; a new one when `at` says since when it is known.
    pub(super) async fn study(
        &mut self,
        id: &StudyRef,
        at: Option<Timestamp>,
    ) -> Result<Option<&mut OpenStudy>, Stopped> {
        if !self.cases.open.contains_key(id) {
            let dossier: Option<Dossier> = self.store.get(study_key(id)).await?;
            let open = match (dossier, at) {
                (Some(dossier), _) => OpenStudy::read(dossier, &self.store).await?,
                (None, Some(at)) => OpenStudy::new(id, at),
                (None, None) => return Ok(None),
            };
            self.cases.open.insert(id.clone(), open);
        }
        let turn = self.cases.turn;
        let study = self.cases.open.get_mut(id).expect("just made sure");
        study.used = turn;
        Ok(Some(study))
    }

    /// Marks a study as changed, so that the turn writes it down.
    pub(super) fn changed(&mut self, id: &StudyRef) {
        if let Some(study) = self.cases.open.get_mut(id) {
            study.changed = true;
        }
    }

    /// Looks at what custody has taken since; true when there may be more.
    pub(super) async fn take_arrivals(&mut self, now: Timestamp) -> Result<bool, Stopped> {
        let after = CargoId(self.cursor.arrival);
        let arrivals = self.custody.arrivals(after, ARRIVALS_MAX).await.ok_or(Stopped)?;
        let whole = arrivals.len() == ARRIVALS_MAX;
        let mut touched = std::collections::BTreeSet::new();
        let mut last = None;
        let mut more = whole;
        for arrival in arrivals {
            if self.store.is_full() {
                more = true;
                break;
            }
            last = Some(arrival.cargo.0);
            match arrival.envelope.kind {
                CargoKind::Image if !arrival.envelope.study.is_empty() => {
                    self.note_correction(&arrival).await?;
                    let study = self.take_image(&arrival).await?;
                    self.take_key_object(&arrival, &study).await?;
                    touched.insert(study);
                }
                CargoKind::Order => self.take_order(&arrival, now).await?,
                CargoKind::Manifest => touched.extend(self.take_manifest(&arrival).await?),
                _ => {}
            }
        }
        let Some(last) = last else { return Ok(false) };
        for study in &touched {
            self.judge_study(study, now).await?;
        }
        self.cursor.arrival = last;
        self.remember_cursor();
        Ok(more)
    }

    pub(super) fn remember_cursor(&mut self) {
        self.store.put(entry(CURSOR.to_vec(), &self.cursor, Vec::new()));
    }

    async fn take_image(&mut self, arrival: &Arrival) -> Result<StudyRef, Stopped> {
        let envelope = &arrival.envelope;
        let origin = envelope.identity.origin.clone();
        let id = StudyRef { origin, study: envelope.study.clone() };
        let header = read_header(arrival).await;
        let issuer = self.issuer_of(&id);
        let instance = header::instance(envelope, header.as_ref(), arrival.kept_at);
        let (ways, route) = self.ways_of_image(envelope, header.as_ref());
        let times = self.times_of_image(envelope, header.as_ref());
        let patient = header::patient(envelope, header.as_ref(), &issuer);
        self.study(&id, Some(arrival.kept_at)).await?;
        let study = self.cases.open.get_mut(&id).expect("just read or made");
        let dossier = &mut study.dossier;
        if dossier.instances == 0 {
            dossier.first_at = dossier.first_at.min(arrival.kept_at);
        }
        header::learn(&mut dossier.facts, envelope, header.as_ref(), &issuer);
        if let Some(merges) = self.merges.get(&id.origin) {
            dossier.facts.patient = merges.settle(&dossier.facts.patient);
        }
        dossier.take_times(times);
        dossier.take_patient(patient);
        if dossier.modality.is_empty() || dossier.modality == "SR" {
            dossier.modality.clone_from(&envelope.modality);
        }
        if dossier.body_part.is_empty() {
            let said = header.as_ref().and_then(|h| h.attribute(tags::BODY_PART_EXAMINED));
            dossier.body_part = said.map(peer_text).unwrap_or_default();
        }
        let sender = &envelope.calling_ae;
        if dossier.senders.len() < SENDERS_MAX && !dossier.senders.contains(sender) {
            dossier.senders.push(sender.clone());
        }
        if dossier.route.is_empty() {
            dossier.route = route;
        }
        add_ways(&mut dossier.ways, ways);
        dossier.last_cargo = arrival.cargo.0;
        study.arrive(instance, &mut self.store);
        Ok(id)
    }

    /// The nodes to which an image of this site goes, and by which route it leaves; empty: by none.
    pub(super) fn ways_of_image(
        &self,
        envelope: &Envelope,
        header: Option<&Header>,
    ) -> (Vec<Way>, String) {
        if envelope.identity.origin != self.config.node {
            return Default::default();
        }
        let attribute = |keyword: &str| {
            let tag = tag_of(keyword)?;
            header?.attribute(tag).map(str::to_owned)
        };
        let to = self.ways.assign(envelope, &attribute).into_iter();
        let to = to.map(|a| Way { destination: a.destination, urgency: a.urgency }).collect();
        (to, self.ways.route(envelope, &attribute).unwrap_or_default())
    }

    /// Who gives the patient numbers of a study's site, where nobody says.
    pub(super) fn issuer_of(&self, study: &StudyRef) -> String {
        match study.origin == self.config.node {
            true => self.config.patient_issuer.clone(),
            false => String::new(),
        }
    }

    /// The orders that could be a study's, and where the study belongs.
    pub(super) async fn match_study(
        &self,
        dossier: &Dossier,
    ) -> Result<(Match, Vec<OrderRecord>), Stopped> {
        let mut found: BTreeMap<OrderKey, OrderRecord> = BTreeMap::new();
        let facts = &dossier.facts;
        for (kind, id) in study_numbers(facts) {
            if kind == Number::Patient {
                continue;
            }
            let term = kind.of_order(&facts.origin, id);
            let orders: Vec<OrderRecord> = self.store.with(&term, b'o', CANDIDATES_MAX).await?;
            found.extend(orders.into_iter().map(|o| (o.key().clone(), o)));
        }
        if let Some(linked) = dossier.link.as_ref().and_then(|l| l.order.clone())
            && !found.contains_key(&linked)
        {
            let order: Option<OrderRecord> = self.store.get(order_key(&linked)).await?;
            found.extend(order.map(|o| (linked, o)));
        }
        let orders: Vec<Order> = found.values().map(|o| o.history.order()).collect();
        let matched = order_of(facts, dossier.link.as_ref(), &orders);
        Ok((matched, found.into_values().collect()))
    }

    /// Judges a study anew and lays what is new over the book.
    pub(super) async fn judge_study(
        &mut self,
        id: &StudyRef,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        if self.study(id, None).await?.is_none() {
            self.roll.remove(&CaseId::Study(id.clone()));
            self.tells.forget(&CaseId::Study(id.clone()));
            return Ok(());
        }
        let dossier = self.cases.open[id].dossier.clone();
        let (matched, candidates) = self.match_study(&dossier).await?;
        if dossier.matched.order() != matched.order() {
            if let Some(old) = dossier.matched.order() {
                self.count_study(old, -1, now).await?;
            }
            if let Some(new) = matched.order() {
                self.count_study(new, 1, now).await?;
            }
        }
        let order = matched
            .order()
            .and_then(|key| candidates.iter().find(|o| o.key() == key).map(|o| o.history.order()));
        let rules = self.rules_for(&dossier, order.as_ref());
        let asked = self.asked(&dossier).await?;
        let patients = self.patients_of(&dossier);
        let study = self.cases.open.get_mut(id).expect("just read");
        study.tally.name_patients(patients);
        let settled = study.dossier.settled;
        let case =
            Case { order: order.as_ref(), matched: Some(&matched), tally: &study.tally, settled };
        let verdict = judge(&case, &rules, now);
        let settled = verdict.settled(now);
        let verdict = withdrawn::shown(study, id.origin == self.config.node, verdict);
        let before = study.dossier.standing.as_ref();
        let progress_before = before.map(|s| s.progress);
        let mut standing = match study.carried {
            Some(_) => travel::standing(study, before, now),
            None => Standing::of(&verdict, before, now),
        };
        if study.dossier.prior_of.is_some() && matched.order().is_none() {
            priors_in::standing_of_prior(&mut standing, &verdict);
        }
        if let Some(asked) = asked {
            asked.tell(&mut standing);
        }
        let standing = withdrawn::added(id, standing, &verdict, before, now);
        if study.dossier.settle(standing, settled, matched, now) {
            study.changed = true;
        }
        let own = !study.dossier.ways.is_empty() && id.origin == self.config.node;
        let news = Told::of(&study.dossier, &verdict, now);
        if own && study.dossier.told.as_ref().is_none_or(|told| !told.says(&news)) {
            study.changed |= !study.dossier.owes_manifest;
            study.dossier.owes_manifest = true;
            self.outbox.study(id, study.dossier.told.as_ref());
        }
        let mut dossier = study.dossier.clone();
        self.note_hold(id, &mut dossier);
        let study = self.cases.open.get_mut(id).expect("just judged");
        study.changed |= study.dossier.owes_hold != dossier.owes_hold;
        study.dossier.owes_hold = dossier.owes_hold;
        let dossier = &study.dossier;
        let (ways, order) = (dossier.ways.clone(), dossier.matched.order().cloned());
        let progress = dossier.standing.as_ref().expect("just judged").progress;
        self.roll.set(Row::of_study(dossier).expect("just judged"));
        self.hint_whole(id, progress_before, progress);
        if let Some(order) = &order {
            self.priors_may_follow(order, progress, now);
        }
        self.note_recall(id, now).await?;
        self.tell_study(id, &verdict, now);
        if let Some(order) = order.filter(|_| own) {
            self.send_along(&order, ways, now).await?;
        }
        Ok(())
    }

    /// An order goes where the images of its studies go.
    async fn send_along(
        &mut self,
        key: &OrderKey,
        ways: Vec<Way>,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(mut record) = self.store.get::<OrderRecord>(order_key(key)).await? else {
            return Ok(());
        };
        if add_ways(&mut record.ways, ways) {
            record.revise(now);
            self.stand_order(record, now);
        }
        Ok(())
    }

    /// The verdict on a study now, whole.
    pub(super) async fn verdict(
        &mut self,
        id: &StudyRef,
        now: Timestamp,
    ) -> Result<Option<(Dossier, Verdict)>, Stopped> {
        if self.study(id, None).await?.is_none() {
            return Ok(None);
        }
        let dossier = self.cases.open[id].dossier.clone();
        let (matched, candidates) = self.match_study(&dossier).await?;
        let order = matched
            .order()
            .and_then(|key| candidates.iter().find(|o| o.key() == key).map(|o| o.history.order()));
        let rules = self.rules_for(&dossier, order.as_ref());
        let patients = self.patients_of(&dossier);
        let study = self.cases.open.get_mut(id).expect("just read");
        study.tally.name_patients(patients);
        let settled = dossier.settled;
        let case =
            Case { order: order.as_ref(), matched: Some(&matched), tally: &study.tally, settled };
        let verdict = judge(&case, &rules, now);
        let verdict = withdrawn::shown(study, id.origin == self.config.node, verdict);
        Ok(Some((dossier, verdict)))
    }

    /// An order has gained or lost a study: it is a case of its own only without one.
    async fn count_study(
        &mut self,
        key: &OrderKey,
        by: i32,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(mut record) = self.store.get::<OrderRecord>(order_key(key)).await? else {
            return Ok(());
        };
        record.studies = record.studies.saturating_add_signed(by);
        self.stand_order(record, now);
        Ok(())
    }

    /// Judges an order that has no study, and its studies if it has some.
    pub(super) async fn judge_order(
        &mut self,
        key: &OrderKey,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        match self.store.get::<OrderRecord>(order_key(key)).await? {
            Some(record) => self.stand_order(record, now),
            None => {
                self.roll.remove(&CaseId::Order(key.clone()));
                self.tells.forget(&CaseId::Order(key.clone()));
            }
        }
        Ok(())
    }

    /// Judges an order by itself, and lays it over the book.
    pub(super) fn stand_order(&mut self, mut record: OrderRecord, now: Timestamp) {
        let order = record.history.order();
        let tally = Tally::default();
        let case = Case { order: Some(&order), matched: None, tally: &tally, settled: None };
        let verdict = judge(&case, &self.rules_for_order(&order), now);
        record.standing = Some(Standing::of(&verdict, record.standing.as_ref(), now));
        self.tell_order(&mut record, &verdict, now);
        if record.is_owed() {
            self.outbox.order(record.key());
        }
        if record.to_tell {
            self.outbox.tell(record.key(), now);
        }
        self.store.put(record.entry(&order));
        match Row::of_order(&record) {
            Some(row) => self.roll.set(row),
            None => self.roll.remove(&CaseId::Order(order.key)),
        }
    }

    /// Studies that have anything in common with an order, or belong to it now.
    pub(super) async fn studies_of(&self, order: &Order) -> Result<Vec<StudyRef>, Stopped> {
        let origin = &order.key.origin;
        let mut found = std::collections::BTreeSet::new();
        let own = order_of_study(&order.key);
        let studies: Vec<Dossier> = self.store.with(&own, b's', CANDIDATES_MAX).await?;
        found.extend(studies.iter().map(Dossier::study));
        for (kind, id) in order_numbers(order) {
            if kind == Number::Patient {
                continue;
            }
            let term = kind.of_study(origin, &id);
            let studies: Vec<Dossier> = self.store.with(&term, b's', CANDIDATES_MAX).await?;
            found.extend(studies.iter().map(Dossier::study));
        }
        Ok(found.into_iter().collect())
    }
}

impl Dossier {
    /// Takes in a verdict; true when it says something new.
    fn settle(
        &mut self,
        standing: Standing,
        settled: Option<Settled>,
        matched: Match,
        now: Timestamp,
    ) -> bool {
        let same = self.standing.as_ref() == Some(&standing) && self.matched == matched;
        let before = self.standing.as_ref().map(|s| (s.headline, s.progress));
        if before != Some((standing.headline, standing.progress)) {
            let Standing { headline, progress, reason, .. } = standing.clone();
            self.turns.push(Turn { at: now, headline, progress, reason });
            let over = self.turns.len().saturating_sub(TURNS_MAX);
            self.turns.drain(..over);
        }
        // The surest *complete* that was told counts.
        if let Some(settled) = settled
            && self.settled.is_none_or(|known| settled.grade < known.grade)
        {
            self.settled = Some(settled);
        }
        self.standing = Some(standing);
        self.matched = matched;
        !same
    }
}

/// The first bytes of an image; `None` when they cannot be read.
pub(super) async fn read_head(body: &Body, max: usize) -> Option<Bytes> {
    body.reader(0).next(max).await.ok()?
}

/// The header of an image; `None` when it cannot be read.
pub(super) async fn read_header(arrival: &Arrival) -> Option<Header> {
    let mut reading = None;
    for length in [HEAD_BYTES, LONG_HEAD_BYTES] {
        let head = read_head(&arrival.body, length).await?;
        let complete = head.len() as u64 == arrival.body.len();
        match read(&head, &arrival.envelope.transfer_syntax, complete) {
            Reading::Header(header) => {
                let whole = header.whole || complete;
                reading = Some(header);
                if whole {
                    break;
                }
            }
            Reading::Empty | Reading::Unreadable => break,
        }
    }
    reading
}
