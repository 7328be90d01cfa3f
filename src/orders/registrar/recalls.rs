//! Repair as the registrar drives it: which study asks its source next, and what came of it.
//!
//! [`Recall`](crate::orders::recall::Recall) decides, the retriever asks, and here both meet. What was tried for a study is an
//! entry of its own ([`RecallRecord`]), written with the verdict that follows from it. A task that is
//! under way when the node is killed is given again: a study that is short, owes a survey or is a
//! prior on its way is found at the start.
//!
//! - *Gaps*: while a study is short, [`Recall::next`](crate::orders::recall::Recall::next) says what to ask for.
//! - *Surveys*: a study that has become quiet is asked for once, and again when more images came
//!   since: what the source has and this node lacks is evidence of grade 5.
//!
//! One inquiry for each study at a time, and for each source as many as it says. Nothing here is
//! done for an image but a look at its study's verdict.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;

use super::cases::OpenStudy;
use super::keys::{RECALL, recall_key};
use super::recall_record::{Asked, RecallRecord, said_by};
use super::record::{Dossier, StudyRef};
use super::{DeskError, Registrar};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::orders::evidence::{Reference, Said, SeriesList};
use crate::orders::recall::{Answer, Offer, RecallRules, Step};
use crate::orders::retriever::{Ask, Task};
use crate::orders::verdict::{Verdict, What};
use crate::routing::Pattern;

/// Studies of one turn that are looked at because their source is to be asked.
const LOOKS_MAX: usize = 16;
/// Studies that a start finds to be asked for.
pub(super) const RECALLS_MAX: usize = 100_000;

/// A source archive, and whose studies it has; already checked.
#[derive(Debug, Clone)]
pub struct RecallSource {
    /// Its name.
    pub name: String,
    /// Its AE title.
    pub ae_title: String,
    /// AE titles of those whose studies it has, as patterns; empty: of all.
    pub of: Vec<Pattern>,
    /// How it is asked.
    pub rules: RecallRules,
    /// Whether it is asked what it has of a study that has become quiet.
    pub survey: bool,
    /// Most inquiries at a time.
    pub inquiries: usize,
}

/// What is to be asked, and what is being asked, seen from memory.
#[derive(Debug)]
pub(super) struct Recalls {
    tasks: mpsc::Sender<Task>,
    due: BTreeSet<(Timestamp, StudyRef)>,
    waiting: BTreeMap<StudyRef, Timestamp>,
    /// By study: the source, and the step; none: a survey.
    busy: BTreeMap<StudyRef, (String, Option<Step>)>,
    /// Inquiries under way, by source.
    under_way: BTreeMap<String, usize>,
    /// Sources that have as many as they may.
    full: BTreeSet<String>,
    /// Which source a study waits for, where it was found full.
    hints: BTreeMap<StudyRef, String>,
}

impl Recalls {
    pub(super) fn new(tasks: mpsc::Sender<Task>) -> Self {
        Self {
            tasks,
            due: BTreeSet::new(),
            waiting: BTreeMap::new(),
            busy: BTreeMap::new(),
            under_way: BTreeMap::new(),
            full: BTreeSet::new(),
            hints: BTreeMap::new(),
        }
    }

    /// Forgets everything; answers that still come are then not waited for.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.tasks.clone());
    }

    pub(super) fn schedule(&mut self, id: &StudyRef, at: Timestamp) {
        self.drop(id);
        self.due.insert((at, id.clone()));
        self.waiting.insert(id.clone(), at);
    }

    fn drop(&mut self, id: &StudyRef) {
        self.hints.remove(id);
        if let Some(at) = self.waiting.remove(id) {
            self.due.remove(&(at, id.clone()));
        }
    }

    fn due(&self, now: Timestamp) -> Vec<StudyRef> {
        let free = |id: &StudyRef| self.hints.get(id).is_none_or(|name| !self.full.contains(name));
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, id)| id).filter(|id| free(id)).take(LOOKS_MAX).cloned().collect()
    }

    /// Hands a task over; false when its source, or the retriever, has enough to do.
    pub(super) fn give(&mut self, source: &RecallSource, task: Task) -> bool {
        let under_way = self.under_way.entry(source.name.clone()).or_default();
        let given = *under_way < source.inquiries && self.tasks.try_send(task).is_ok();
        *under_way += usize::from(given);
        if *under_way >= source.inquiries {
            self.full.insert(source.name.clone());
        }
        given
    }

    /// An inquiry has ended.
    pub(super) fn ended(&mut self, source: &str) {
        if let Some(n) = self.under_way.get_mut(source) {
            *n = n.saturating_sub(1);
            self.full.remove(source);
        }
    }

    pub(super) fn is_full(&self, source: &RecallSource) -> bool {
        self.full.contains(&source.name)
    }
}

/// Whether the source is to be asked, or would be if it had been before.
pub(super) fn lacks(dossier: &Dossier) -> bool {
    let Some(standing) = &dossier.standing else { return false };
    standing.attention.contains(&What::Short)
        || dossier.prior_of.is_some() && (standing.missing > 0 || dossier.instances == 0)
}

impl Registrar {
    pub(super) fn source_named(&self, name: &str) -> Option<&RecallSource> {
        self.config.sources.iter().find(|source| source.name == name)
    }

    /// The first source that has the studies of those who sent it or speak of it.
    fn source_of(&self, study: &OpenStudy) -> Option<&RecallSource> {
        let speakers = study.tally.spoken().map(|s| s.statement.source.as_str());
        let titles: Vec<&str> =
            study.dossier.senders.iter().map(String::as_str).chain(speakers).collect();
        self.config.sources.iter().find(|source| {
            source.of.is_empty()
                || titles.iter().any(|title| source.of.iter().any(|p| p.matches(title)))
        })
    }

    /// How the source was asked, for a study that lacks something.
    pub(super) async fn asked(&self, dossier: &Dossier) -> Result<Option<Asked>, Stopped> {
        let own = dossier.facts.origin == self.config.node;
        if !own || self.config.sources.is_empty() || !lacks(dossier) {
            return Ok(None);
        }
        let record: Option<RecallRecord> = self.store.get(recall_key(&dossier.study())).await?;
        let asked = record.filter(|record| record.recall.has_begun() || record.given_up);
        Ok(asked.map(|record| record.asked()))
    }

    /// After a verdict: notes whether the source is to be asked.
    pub(super) async fn note_recall(
        &mut self,
        id: &StudyRef,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        if self.config.sources.is_empty() || id.origin != self.config.node {
            return Ok(());
        }
        let Some(study) = self.cases.open(id) else { return Ok(()) };
        let d = &study.dossier;
        let progress = d.standing.as_ref().map(|s| s.progress);
        let quiet =
            d.instances > 0 && matches!(progress, Some(What::Complete | What::PresumedComplete));
        if self.recalls.busy.contains_key(id) {
            return Ok(());
        }
        let (lacks, waiting) = (lacks(d), self.recalls.waiting.contains_key(id));
        if waiting && !lacks {
            self.recalls.schedule(id, now);
        }
        if waiting || !(lacks || quiet) {
            return Ok(());
        }
        let (last_cargo, prior) = (d.last_cargo, d.prior_of.is_some());
        let quiet_at =
            study.tally.last_arrival().unwrap_or(now) + self.rules_for(&study.dossier, None).quiet;
        let known: Option<RecallRecord> = self.store.get(recall_key(id)).await?;
        let named = known.as_ref().and_then(|record| self.source_named(&record.source));
        let source = match (named, self.cases.open(id)) {
            (None, Some(study)) => self.source_of(study),
            (named, _) => named,
        };
        let Some(source) = source else { return Ok(()) };
        let (name, survey) = (source.name.clone(), source.survey);
        let mut record = match known {
            Some(record) => record,
            None if prior => return Ok(()),
            None => RecallRecord::new(id, &name),
        };
        if quiet && survey && !prior && record.surveyed_to < last_cargo && !record.owes_survey {
            record.owes_survey = true;
            (record.survey_tries, record.survey_at) = (0, quiet_at);
            self.store.put(record.entry());
        }
        if lacks || record.owes_survey {
            self.recalls.schedule(id, now);
        }
        Ok(())
    }

    /// Finds what an earlier life left to be asked.
    pub(super) async fn load_recalls(&mut self, short: &[StudyRef]) -> Result<(), Stopped> {
        if self.config.sources.is_empty() {
            return Ok(());
        }
        let now = Timestamp::default();
        let owed: Vec<RecallRecord> = self.store.with(RECALL, b'r', RECALLS_MAX).await?;
        for id in owed.iter().map(|record| &record.study).chain(short) {
            self.recalls.schedule(id, now);
        }
        Ok(())
    }

    /// Asks sources, for some studies at a time.
    pub(super) async fn ask_sources(&mut self, now: Timestamp) -> Result<(), Stopped> {
        for id in self.recalls.due(now) {
            if self.store.is_full() {
                break;
            }
            self.look_at_recall(&id, now).await?;
        }
        Ok(())
    }

    async fn look_at_recall(&mut self, id: &StudyRef, now: Timestamp) -> Result<(), Stopped> {
        let found = self.verdict(id, now).await?;
        let Some((_, verdict)) = found else {
            self.recalls.drop(id);
            return Ok(());
        };
        let known: Option<RecallRecord> = self.store.get(recall_key(id)).await?;
        let study = self.cases.open(id).expect("just judged");
        let source = known.as_ref().and_then(|record| self.source_named(&record.source));
        let Some(source) = source.or_else(|| self.source_of(study)).cloned() else {
            self.recalls.drop(id);
            return Ok(());
        };
        let mut record = known.unwrap_or_else(|| RecallRecord::new(id, &source.name));
        record.source.clone_from(&source.name);
        if self.recalls.is_full(&source) {
            self.recalls.hints.insert(id.clone(), source.name);
            return Ok(());
        }
        let rules = record.rules(&source);
        match record.recall.next(&verdict, &rules, now) {
            Step::GiveUp { answer } => {
                self.recalls.drop(id);
                if !record.given_up {
                    tracing::warn!(source = source.name, study = id.study, "a recall is given up");
                    self.metrics.recalls.with_label_values(&[&source.name, "given-up"]).inc();
                    record.given_up = true;
                    record.tell(now, answer);
                    self.store.put(record.entry());
                    self.judge_study(id, now).await?;
                }
            }
            Step::Wait { until } => self.recalls.schedule(id, until),
            Step::Nothing if record.is_healed(&verdict) => {
                self.metrics.recalls.with_label_values(&[&source.name, "healed"]).inc();
                record.recall.start_again();
                record.given_up = false;
                self.store.put(record.entry());
                self.recalls.schedule(id, now);
            }
            Step::Nothing if record.owes_survey && now < record.survey_at => {
                self.recalls.schedule(id, record.survey_at);
            }
            Step::Nothing if record.owes_survey => self.dispatch(&record, &source, None, &verdict),
            Step::Nothing => self.recalls.drop(id),
            step => self.dispatch(&record, &source, Some(step), &verdict),
        }
        Ok(())
    }

    /// Has the source asked.
    fn dispatch(
        &mut self,
        record: &RecallRecord,
        source: &RecallSource,
        step: Option<Step>,
        verdict: &Verdict,
    ) {
        let id = &record.study;
        let ask = match &step {
            Some(Step::Retrieve { by, series, sops }) => {
                let wanted = verdict.missing.iter().filter(|m| sops.contains(&m.sop));
                let named = wanted.map(|m| m.class.as_str()).filter(|class| !class.is_empty());
                Ask::Retrieve {
                    by: *by,
                    series: series.clone(),
                    sops: sops.clone(),
                    classes: named.chain(record.recall.classes()).map(str::to_owned).collect(),
                }
            }
            _ => Ask::Find { reports: record.prior.as_ref().is_none_or(|prior| prior.reports) },
        };
        let task = Task::Study { source: source.name.clone(), study: id.clone(), ask };
        if self.recalls.give(source, task) {
            self.recalls.drop(id);
            self.recalls.busy.insert(id.clone(), (source.name.clone(), step));
        }
    }

    /// Takes in what a source has answered about a study.
    pub(super) async fn recalled(
        &mut self,
        id: &StudyRef,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<Result<(), DeskError>, Stopped> {
        let Some((name, step)) = self.recalls.busy.remove(id) else { return Ok(Ok(())) };
        self.recalls.ended(&name);
        let Some(source) = self.source_named(&name).cloned() else { return Ok(Ok(())) };
        let prior = self.study(id, None).await?.is_some_and(|s| s.dossier.prior_of.is_some());
        let counts = source.survey || prior;
        if let Answer::Found(offers) = answer
            && counts
            && !offers.is_empty()
        {
            let lists = by_series(offers);
            let said = |lists| Said::Found { count: None, lists };
            let ids = (format!("query:{}", source.ae_title), source.ae_title.clone());
            let heard = self.hear_of(id, (&ids.0, &ids.1), lists, said, now).await?;
            if let Err(error) = heard {
                tracing::warn!(source = name, %error, "what a source has cannot be kept");
            }
        }
        self.judge_study(id, now).await?;
        let Some((dossier, verdict)) = self.verdict(id, now).await? else { return Ok(Ok(())) };
        let known: Option<RecallRecord> = self.store.get(recall_key(id)).await?;
        let mut record = known.unwrap_or_else(|| RecallRecord::new(id, &name));
        let lacks = !verdict.missing.is_empty() || verdict.unnamed > 0;
        let rules = record.rules(&source);
        if let Answer::Found(offers) = answer {
            (record.owes_survey, record.survey_tries) = (false, 0);
            record.surveyed_to = dossier.last_cargo;
            record.given_up = prior && offers.is_empty();
        }
        match (&step, answer) {
            (Some(step), answer) => {
                record.recall.answered(step, answer, &verdict, &rules, now);
            }
            (None, Answer::Found(_)) if lacks => {
                record.recall.answered(&Step::Find, answer, &verdict, &rules, now);
            }
            (None, Answer::Found(_)) => {}
            (None, _) => record.survey_failed(&rules, now),
        }
        if let Some(said) = said_by(answer, step.as_ref()) {
            record.tell(now, said);
        }
        self.store.put(record.entry());
        self.recalls.schedule(id, now);
        // Once more, so that what the source has answered is told with how the study stands.
        self.judge_study(id, now).await?;
        Ok(Ok(()))
    }

    /// A person has the source of a study asked, at once and with all patience.
    pub(super) async fn recall_again(
        &mut self,
        study: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let id = StudyRef { origin: self.config.node.clone(), study: study.to_owned() };
        let refused = |why: &str| Ok(Err(DeskError::Refused(why.to_owned())));
        let Some(study) = self.study(&id, None).await? else {
            return refused("no study of this node has that UID");
        };
        let last_cargo = study.dossier.last_cargo;
        let known: Option<RecallRecord> = self.store.get(recall_key(&id)).await?;
        let study = self.cases.open(&id).expect("just read");
        let source = known.as_ref().and_then(|record| self.source_named(&record.source));
        let Some(source) = source.or_else(|| self.source_of(study)) else {
            return refused("no [[orders.source]] is for the studies of those who sent it");
        };
        let name = source.name.clone();
        let mut record = known.unwrap_or_else(|| RecallRecord::new(&id, &name));
        record.source.clone_from(&name);
        record.recall.start_again();
        (record.given_up, record.owes_survey) = (false, true);
        (record.survey_tries, record.survey_at) = (0, now);
        record.surveyed_to = record.surveyed_to.min(last_cargo.saturating_sub(1));
        self.store.put(record.entry());
        if !self.recalls.busy.contains_key(&id) {
            self.recalls.schedule(&id, now);
        }
        self.judge_study(&id, now).await?;
        Ok(Ok(format!("{name} is being asked")))
    }
}

fn by_series(offers: &[Offer]) -> Vec<SeriesList> {
    let mut lists: BTreeMap<&str, Vec<Reference>> = BTreeMap::new();
    for offer in offers {
        let reference = Reference { sop: offer.sop.clone(), class: offer.class.clone() };
        lists.entry(&offer.series).or_default().push(reference);
    }
    let list = |(series, instances): (&str, _)| SeriesList { series: series.into(), instances };
    lists.into_iter().map(list).collect()
}
