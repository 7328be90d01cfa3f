//! What the registrar shows: everything that is known of an order or a study, in the order of
//! time.

use serde::Serialize;

use super::cases::CANDIDATES_MAX;
use super::keys::{evidence, order_of_study, recall_key};
use super::recall_record::{self, RecallRecord};
use super::record::{CaseId, Dossier, OrderRecord, Standing, StudyRef, Turn};
use super::roll::word;
use super::{Registrar, Row};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::orders::evidence::{Said, Statement};
use crate::orders::history::Message;
use crate::orders::matching::{Link, Match, StudyFacts};
use crate::orders::order::{Action, Order, OrderKey};
use crate::orders::verdict::{Finding, Missing};
use crate::orders::words::Language;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What kind: `order`, `image`, `evidence`, `verdict`, `decision`, `correction`, `recall`, `told` (to
    /// a RIS).
    pub kind: &'static str,
    /// What, in words.
    pub what: String,
    /// Who said it or did it; empty: this node.
    pub by: String,
}

/// An order and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderStory {
    /// As it stands.
    #[serde(flatten)]
    pub order: Order,
    /// When this node heard of it first.
    pub entered_at: Timestamp,
    /// How it stands without a study.
    pub standing: Option<Standing>,
    /// Its studies.
    pub studies: Vec<Row>,
    /// Earlier studies of the patient that are fetched for it.
    pub priors: Vec<Row>,
    /// What was said of it.
    pub story: Vec<Event>,
}

/// A study and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseStory {
    /// What its headers say.
    #[serde(flatten)]
    pub facts: StudyFacts,
    /// Where it belongs.
    pub matched: Match,
    /// The person who said so.
    pub link: Option<Link>,
    /// The order of which it is a prior.
    pub prior_of: Option<OrderKey>,
    /// How it stands.
    pub standing: Option<Standing>,
    /// Everything that was found, gravest first.
    pub findings: Vec<Finding>,
    /// Every instance that lacks.
    pub missing: Vec<Missing>,
    /// What happened, in the order of time.
    pub story: Vec<Event>,
}

impl Registrar {
    /// How a case stands, in words.
    pub(super) fn roll_words(&self, case: &CaseId) -> String {
        match self.roll.standing(case) {
            Some(s) => s.reason.text(Language::English),
            None => "nothing is open any more".into(),
        }
    }

    pub(super) async fn order_story(&self, number: &str) -> Result<Vec<OrderStory>, Stopped> {
        let mut all = Vec::new();
        for origin in self.origins() {
            let key = OrderKey { origin, number: number.to_owned() };
            let record = self.store.get::<OrderRecord>(super::keys::order_key(&key)).await?;
            let Some(record) = record else { continue };
            let term = order_of_study(&key);
            let studies: Vec<Dossier> = self.store.with(&term, b's', CANDIDATES_MAX).await?;
            let (said, priors) = self.priors_of(&key).await?;
            let mut story = told(&record);
            story.extend(self.tellings(&record).await?);
            story.extend(recall_record::story("", said.as_slice()));
            // What came of a message stands below it, though it was of the same moment.
            story.sort_by_key(|event| event.at);
            all.push(OrderStory {
                order: record.history.order(),
                entered_at: record.entered_at,
                standing: record.own_standing().cloned(),
                studies: studies.iter().filter_map(Row::of_study).collect(),
                priors,
                story,
            });
        }
        Ok(all)
    }

    pub(super) async fn study_story(
        &mut self,
        uid: &str,
        now: Timestamp,
    ) -> Result<Vec<CaseStory>, Stopped> {
        let mut all = Vec::new();
        for origin in self.origins() {
            let id = StudyRef { origin, study: uid.to_owned() };
            let Some((dossier, verdict)) = self.verdict(&id, now).await? else { continue };
            let mut story = self.happened(&id, &dossier).await?;
            if let Some(key) = dossier.matched.order()
                && let Some(record) = self.store.get(super::keys::order_key(key)).await?
            {
                story.extend(told(&record));
                story.extend(self.tellings(&record).await?);
            }
            story.sort();
            all.push(CaseStory {
                facts: dossier.facts,
                matched: dossier.matched,
                link: dossier.link,
                prior_of: dossier.prior_of,
                standing: dossier.standing,
                findings: verdict.findings,
                missing: verdict.missing,
                story,
            });
        }
        Ok(all)
    }

    async fn happened(&self, id: &StudyRef, dossier: &Dossier) -> Result<Vec<Event>, Stopped> {
        let mut events = Vec::new();
        let own = String::new;
        if dossier.instances > 0 {
            let by = dossier.senders.join(", ");
            let what = "the first image came".into();
            events.push(Event { at: dossier.first_at, kind: "image", what, by });
        }
        let said: Vec<Statement> =
            self.store.below(&evidence(id), dossier.statements as usize).await?;
        for s in said {
            let n: usize = s.lists().iter().map(|l| l.instances.len()).sum();
            let (kind, what) = match &s.said {
                Said::Decided { expect: true, reason, .. } => {
                    ("decision", format!("{n} instances are expected again: {reason}"))
                }
                Said::Decided { expect: false, reason, .. } => {
                    ("decision", format!("{n} instances will not come: {reason}"))
                }
                _ => ("evidence", format!("{} names {n} instances", s.id)),
            };
            let what = what.trim_end_matches([':', ' ']).to_owned();
            events.push(Event { at: s.last_at, kind, what, by: s.source });
        }
        events.extend(dossier.turns.iter().map(|Turn { at, headline, reason, .. }| {
            let what = format!("{}: {}", word(*headline), reason.text(Language::English));
            Event { at: *at, kind: "verdict", what, by: own() }
        }));
        let record: Option<RecallRecord> = self.store.get(recall_key(id)).await?;
        if let Some(record) = &record {
            events.extend(recall_record::story(&record.source, &record.said));
        }
        events.extend(self.corrections(id).await?);
        events.extend(dossier.link.iter().map(|link| {
            let what = match &link.order {
                Some(order) => format!("linked to order {}", order.number),
                None => "linked to no order".into(),
            };
            Event { at: link.at, kind: "decision", what, by: link.by.clone() }
        }));
        events.extend(dossier.seen.iter().map(|seen| {
            let what = format!("acknowledged that {} images are withdrawn", seen.count);
            Event { at: seen.at, kind: "decision", what, by: seen.by.clone() }
        }));
        Ok(events)
    }
}

/// What was said of an order.
fn told(record: &OrderRecord) -> Vec<Event> {
    let event = |m: &Message| {
        let what = match &m.action {
            Action::New(_) => "ordered",
            Action::Change(_) => "changed",
            Action::Cancel(_) => "cancelled",
            Action::Discontinue(_) => "discontinued",
            Action::Status(_) => "status told",
            Action::Update(_) => "patient updated",
            Action::Merge(..) => "patient merged",
        };
        let what = format!("order {} {what}", record.key().number);
        Event { at: m.stamp.heard, kind: "order", what, by: m.source.clone() }
    };
    record.history.messages().iter().map(event).collect()
}
