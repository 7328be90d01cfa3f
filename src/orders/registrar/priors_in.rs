//! Priors as the registrar drives them: of a new order the source is asked which earlier studies the
//! patient has, [`choose`] picks, and those are fetched like any other gap, at lower urgency.
//!
//! - An order is asked for once: when its study is judged complete or presumed so, or when it has
//!   waited as long as the rule says. That it was asked is an entry of its own ([`PriorsRecord`]),
//!   written in the same change as the studies that were chosen.
//! - A study that was chosen is a prior: its dossier says of which order, nobody misses an order for
//!   it, what it lacks is nothing to look at unless it turns out to have an order of its own, and whoever routes images knows it before the first one comes ([`PriorStudies`]).
//! - What custody has or had is not fetched, nor what has an order of its own, and what was chosen for another order not within
//!   [`AGAIN_AFTER`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use minicbor::{Decode, Encode};

use super::keys::{
    Number, PRIOR, PRIORS, entry, order_key, order_of_prior, order_of_study, priors_key,
    recall_key, study_key,
};
use super::recall_record::{PriorOf, RecallRecord, SourceSaid, said_by};
use super::recalls::RECALLS_MAX;
use super::record::{Dossier, OrderRecord, Standing, StudyRef};
use super::{DeskError, Registrar, Row};
use crate::cargo::{StudyKey, Urgency};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::register::Entry;
use crate::orders::order::{Order, OrderKey};
use crate::orders::priors::{Candidate, PriorRule, Subject, choose};
use crate::orders::recall::Answer;
use crate::orders::retriever::Task;
use crate::orders::verdict::{Verdict, What};
use crate::orders::words::{Sentence, Word};

/// The studies that are priors, and how soon they are to be there.
pub type PriorStudies = Arc<ArcSwap<BTreeMap<StudyKey, Urgency>>>;

/// Priors that whoever routes images knows; the latest.
pub const PRIORS_MAX: usize = 50_000;
/// A prior that could not be fetched is tried for another order only after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(30 * 86_400);
/// Orders of one turn that are looked at.
const LOOKS_MAX: usize = 8;
/// Studies of an order that are looked at for what the new study is.
const STUDIES_MAX: usize = 16;

/// What was asked for an order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct PriorsRecord {
    #[n(0)]
    order: OrderKey,
    /// Nothing is asked before this.
    #[n(1)]
    not_before: Timestamp,
    #[n(2)]
    tries: u32,
    /// It was asked, or nothing will be.
    #[n(3)]
    done: bool,
    /// Study Instance UIDs.
    #[n(4)]
    chosen: Vec<String>,
    #[n(5)]
    said: Option<SourceSaid>,
}

impl PriorsRecord {
    fn entry(&self) -> Entry {
        let terms = if self.done { Vec::new() } else { vec![PRIORS.to_vec()] };
        entry(priors_key(&self.order), self, terms)
    }
}

/// Orders whose priors are still to be asked for, seen from memory.
#[derive(Debug, Default)]
pub(super) struct Searches {
    waiting: BTreeMap<OrderKey, Timestamp>,
    /// With the source that is being asked.
    busy: BTreeMap<OrderKey, String>,
}

impl Registrar {
    fn prior_rule(&self, order: &Order) -> Option<&PriorRule> {
        let own = order.key.origin == self.config.node && order.state.is_open();
        let named = order.content.patient.ids.first().is_some_and(|id| !id.id.is_empty());
        let content = &order.with_parts().content;
        let rules = self.config.priors.iter();
        rules.filter(|_| own && named).find(|rule| rule.applies(content))
    }

    /// An order has come or changed: notes that its priors are to be asked for, once.
    pub(super) async fn note_priors(
        &mut self,
        order: &Order,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(rule) = self.prior_rule(order) else { return Ok(()) };
        let not_before = now + rule.wait;
        let known: Option<PriorsRecord> = self.store.get(priors_key(&order.key)).await?;
        match known {
            None => {}
            // Cancelled meanwhile, and wanted again.
            Some(known) if !known.done && !self.searches.busy.contains_key(&order.key) => {
                let waiting = &mut self.searches.waiting;
                waiting.entry(order.key.clone()).or_insert(known.not_before);
                return Ok(());
            }
            Some(_) => return Ok(()),
        }
        let (order, tries, chosen) = (order.key.clone(), 0, Vec::new());
        self.searches.waiting.insert(order.clone(), not_before);
        let record = PriorsRecord { order, not_before, tries, done: false, chosen, said: None };
        self.store.put(record.entry());
        Ok(())
    }

    /// A study is here: the priors of its order may follow.
    pub(super) fn priors_may_follow(&mut self, order: &OrderKey, progress: What, now: Timestamp) {
        let here = matches!(progress, What::Complete | What::PresumedComplete);
        if let Some(at) = self.searches.waiting.get_mut(order)
            && here
        {
            *at = now.min(*at);
        }
    }

    /// Finds what an earlier life left to be asked, and which studies are priors.
    pub(super) async fn load_priors(&mut self) -> Result<(), Stopped> {
        self.searches = Searches::default();
        if self.config.priors.is_empty() {
            return Ok(());
        }
        let owed: Vec<PriorsRecord> = self.store.with(PRIORS, b'v', RECALLS_MAX).await?;
        self.searches.waiting = owed.into_iter().map(|r| (r.order, r.not_before)).collect();
        let mut priors: Vec<RecallRecord> = self.store.with(PRIOR, b'r', RECALLS_MAX).await?;
        let chosen = |record: &RecallRecord| record.prior.as_ref().map(|prior| prior.chosen_at);
        priors.sort_by_key(|record| std::cmp::Reverse(chosen(record)));
        let key = |record: &RecallRecord| {
            let StudyRef { origin, study } = &record.study;
            Some((StudyKey::of(origin, study), record.prior.as_ref()?.urgency))
        };
        self.priors.store(Arc::new(priors.iter().filter_map(key).take(PRIORS_MAX).collect()));
        // A study may have become whole just before the end.
        for key in self.searches.waiting.keys().cloned().collect::<Vec<_>>() {
            let studies = self.dossiers_of(&key).await?;
            for standing in studies.iter().filter_map(|d| d.standing.as_ref()) {
                self.priors_may_follow(&key, standing.progress, Timestamp::default());
            }
        }
        Ok(())
    }

    async fn dossiers_of(&self, order: &OrderKey) -> Result<Vec<Dossier>, Stopped> {
        self.store.with(&order_of_study(order), b's', STUDIES_MAX).await
    }

    /// Asks for the priors of some orders.
    pub(super) async fn ask_priors(&mut self, now: Timestamp) -> Result<(), Stopped> {
        let due = self.searches.waiting.iter().filter(|(_, at)| **at <= now);
        for key in due.map(|(key, _)| key.clone()).take(LOOKS_MAX).collect::<Vec<_>>() {
            self.look_at_priors(&key, now).await?;
        }
        Ok(())
    }

    async fn look_at_priors(&mut self, key: &OrderKey, now: Timestamp) -> Result<(), Stopped> {
        let record: Option<OrderRecord> = self.store.get(order_key(key)).await?;
        let order = record.map(|record| record.history.order());
        if order.as_ref().is_some_and(|order| !order.state.is_open()) {
            self.searches.waiting.remove(key);
            return Ok(());
        }
        let rule = order.as_ref().and_then(|order| self.prior_rule(order)).cloned();
        let source = rule.as_ref().and_then(|rule| self.source_named(&rule.source)).cloned();
        let (Some(order), Some(rule), Some(source)) = (order, rule, source) else {
            return self.end_search(key, None, Vec::new()).await;
        };
        if self.recalls.is_full(&source) {
            return Ok(());
        }
        let subject = self.subject_of(&order).await?;
        let Some(search) = rule.search(subject, now) else {
            return self.end_search(key, None, Vec::new()).await;
        };
        let task = Task::Priors { source: source.name.clone(), order: key.clone(), search };
        if self.recalls.give(&source, task) {
            self.searches.waiting.remove(key);
            self.searches.busy.insert(key.clone(), source.name);
        }
        Ok(())
    }

    /// The new study, as far as its order and its images tell.
    async fn subject_of(&self, order: &Order) -> Result<Subject, Stopped> {
        let content = &order.with_parts().content;
        let studies = self.dossiers_of(&order.key).await?;
        let uids = studies.iter().map(|d| &d.facts.study).chain(&content.studies);
        let of_order = content.procedures.iter().map(|p| p.modality.clone());
        let of_study = studies.iter().map(|d| d.modality.clone());
        let modalities = of_study.chain([content.modality.clone()]).chain(of_order);
        let body_parts = studies.iter().map(|d| d.body_part.clone());
        Ok(Subject {
            patient: content.patient.ids.first().cloned().unwrap_or_default(),
            birth_date: content.patient.birth_date.clone(),
            modality: first(modalities),
            body_part: first(body_parts),
            studies: uids.cloned().collect(),
        })
    }

    async fn end_search(
        &mut self,
        key: &OrderKey,
        said: Option<SourceSaid>,
        chosen: Vec<String>,
    ) -> Result<(), Stopped> {
        self.searches.waiting.remove(key);
        let Some(mut record) = self.store.get::<PriorsRecord>(priors_key(key)).await? else {
            return Ok(());
        };
        record.said = said.or(record.said);
        (record.done, record.chosen) = (true, chosen);
        self.store.put(record.entry());
        Ok(())
    }

    /// Takes in which studies a source has of an order's patient.
    pub(super) async fn priors_found(
        &mut self,
        key: &OrderKey,
        found: Result<Vec<Candidate>, Answer>,
        now: Timestamp,
    ) -> Result<Result<(), DeskError>, Stopped> {
        let Some(name) = self.searches.busy.remove(key) else { return Ok(Ok(())) };
        self.recalls.ended(&name);
        let record: Option<OrderRecord> = self.store.get(order_key(key)).await?;
        let order = record.map(|record| record.history.order());
        let rule = order.as_ref().and_then(|order| self.prior_rule(order)).cloned();
        let (Some(order), Some(rule)) = (order, rule) else {
            self.end_search(key, None, Vec::new()).await?;
            return Ok(Ok(()));
        };
        let mut candidates = match found {
            Ok(candidates) => candidates,
            Err(answer) => {
                self.search_failed(key, &name, &answer, now).await?;
                return Ok(Ok(()));
            }
        };
        for candidate in &mut candidates {
            candidate.known = self.is_known(&candidate.study, now).await?;
        }
        let subject = self.subject_of(&order).await?;
        let chosen = match rule.search(subject, now) {
            Some(search) => choose(&rule, &search, candidates),
            None => Vec::new(),
        };
        for candidate in &chosen {
            self.take_prior(candidate, &order, &rule, now).await?;
        }
        let what = match chosen.len() {
            0 => Word::PriorsNone.into(),
            n => Sentence::new(Word::PriorsChosen, &[&n]),
        };
        self.metrics.priors.with_label_values(&[&name]).inc_by(chosen.len() as u64);
        let chosen = chosen.into_iter().map(|c| c.study).collect();
        self.end_search(key, Some(SourceSaid { at: now, what }), chosen).await?;
        Ok(Ok(()))
    }

    async fn search_failed(
        &mut self,
        key: &OrderKey,
        source: &str,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let Some(rules) = self.source_named(source).map(|source| source.rules.clone()) else {
            return self.end_search(key, None, Vec::new()).await;
        };
        let Some(mut record) = self.store.get::<PriorsRecord>(priors_key(key)).await? else {
            return Ok(());
        };
        let pause = rules.pause.saturating_mul(1 << record.tries.min(20)).min(rules.pause_max);
        record.tries += 1;
        record.not_before = now + pause;
        let what = said_by(answer, None);
        record.said = what.map(|what| SourceSaid { at: now, what });
        record.done = record.tries >= rules.rounds_max;
        if record.done {
            tracing::warn!(source, "the priors of an order are given up");
            self.metrics.recalls.with_label_values(&[source, "given-up"]).inc();
        } else {
            self.searches.waiting.insert(key.clone(), record.not_before);
        }
        self.store.put(record.entry());
        Ok(())
    }

    /// Whether a study is or was in custody here, has an order of its own, or was tried as a prior not
    /// long ago.
    async fn is_known(&self, study: &str, now: Timestamp) -> Result<bool, Stopped> {
        let id = StudyRef { origin: self.config.node.clone(), study: study.to_owned() };
        let here = |d: Dossier| d.instances > 0 || d.matched.order().is_some();
        if self.store.get::<Dossier>(study_key(&id)).await?.is_some_and(here) {
            return Ok(true);
        }
        // Ordered by itself, as when two are made of one patient on one day: it comes as its order
        // says, and is missed when it does not.
        let term = Number::Study.of_order(&id.origin, study);
        let orders: Vec<OrderRecord> = self.store.with(&term, b'o', 1).await?;
        if !orders.is_empty() {
            return Ok(true);
        }
        let tried: Option<RecallRecord> = self.store.get(recall_key(&id)).await?;
        let tried = tried.and_then(|record| record.prior);
        Ok(tried.is_some_and(|prior| now.seconds_since(prior.chosen_at) < AGAIN_AFTER.as_secs()))
    }

    /// A study that was chosen is on its way.
    async fn take_prior(
        &mut self,
        candidate: &Candidate,
        order: &Order,
        rule: &PriorRule,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let id = StudyRef { origin: self.config.node.clone(), study: candidate.study.clone() };
        let mut record = RecallRecord::new(&id, &rule.source);
        record.owes_survey = true;
        let (urgency, reports) = (rule.urgency, rule.reports);
        record.prior = Some(PriorOf { order: order.key.clone(), urgency, reports, chosen_at: now });
        self.store.put(record.entry());
        self.study(&id, Some(now)).await?;
        let study = self.study(&id, None).await?.expect("just read or made");
        study.dossier.prior_of = Some(order.key.clone());
        if study.dossier.modality.is_empty() {
            let own = candidate.modalities.iter().find(|m| m.as_str() != "SR");
            study.dossier.modality = own.cloned().unwrap_or_default();
        }
        self.changed(&id);
        let mut priors = BTreeMap::clone(&self.priors.load());
        if priors.len() >= PRIORS_MAX {
            priors.pop_first();
        }
        priors.insert(StudyKey::of(&id.origin, &id.study), urgency);
        self.priors.store(Arc::new(priors));
        self.recalls.schedule(&id, now);
        self.judge_study(&id, now).await
    }

    /// What was asked for an order, and the priors of it.
    pub(super) async fn priors_of(
        &self,
        key: &OrderKey,
    ) -> Result<(Option<SourceSaid>, Vec<Row>), Stopped> {
        let record: Option<PriorsRecord> = self.store.get(priors_key(key)).await?;
        let term = order_of_prior(key);
        let priors: Vec<Dossier> = self.store.with(&term, b's', STUDIES_MAX).await?;
        let rows = priors.iter().filter_map(Row::of_study).collect();
        Ok((record.and_then(|record| record.said), rows))
    }
}

/// The first word that says something.
fn first(mut words: impl Iterator<Item = String>) -> String {
    words.find(|word| !word.is_empty()).unwrap_or_default()
}

/// How a prior stands: what it lacks and that it has no order of its own is nothing to look at.
pub(super) fn standing_of_prior(standing: &mut Standing, verdict: &Verdict) {
    let quiet = |what: &What| what.is_quiet_in_priors();
    standing.attention.retain(|what| !quiet(what));
    if quiet(&standing.headline) && !standing.headline.is_progress() {
        standing.headline = standing.progress;
        standing.reason = verdict.progress().reason.clone();
        standing.action = Word::Wait;
    }
}
