//! The studies and orders that have a number or an instance in common with what somebody else has
//! to place, such as a report. Here they are only found; whose it is, is decided by who asks.
//!
//! Of every origin: this node's, and those of the nodes that send to it. One candidate for each
//! study with the order that it belongs to, and one for each order of which no study is known.
//!
//! - Of an order with parts (JAHIS) a study bears the numbers of its own part, where that is known,
//!   and of all parts otherwise.
//! - A study whose images surely name another patient than its order stands apart from it, unless a
//!   person has linked them: each is found by the patient that it names. Where it is not sure, what
//!   the images name counts. A study whose images name several patients names none here.
//!
//! Limits: [`CANDIDATES_MAX`] and one more, which says that there are others; of each kind of number
//! the first [`NUMBERS_MAX`], of instances [`INSTANCES_ASKED_MAX`].

use std::collections::{BTreeMap, BTreeSet};

use super::cases::CANDIDATES_MAX as FOUND_MAX;
use super::keys::{Number, order_key, order_of_study, study_key};
use super::record::{Dossier, OrderRecord, StudyRef};
use super::{Registrar, travel};
use crate::cargo::{DestinationName, NodeName, Urgency};
use crate::custody::INSTANCES_ASKED_MAX;
use crate::custody::overlay::Stopped;
use crate::orders::identifier::{Agreement, Identifier, Patient};
use crate::orders::matching::{By, Match, StudyFacts};
use crate::orders::merges::Merges;
use crate::orders::order::{Order, OrderKey};
use crate::orders::part::Part;

/// Most candidates that can be told apart; one more is given where there are others.
pub const CANDIDATES_MAX: usize = 16;
/// Numbers of one kind that are looked up.
const NUMBERS_MAX: usize = 64;

/// What to look up, as it stands; who gave a number is for the one who asks to compare.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Study Instance UIDs.
    pub studies: Vec<String>,
    /// Accession numbers.
    pub accessions: Vec<String>,
    /// Filler's numbers.
    pub fillers: Vec<String>,
    /// Placer's numbers.
    pub placers: Vec<String>,
    /// SOP Instance UIDs.
    pub instances: Vec<String>,
}

impl Wanted {
    /// The numbers, the surest first.
    fn numbers(&self) -> [(Number, &[String]); 4] {
        [
            (Number::Study, &self.studies),
            (Number::Accession, &self.accessions),
            (Number::Filler, &self.fillers),
            (Number::Placer, &self.placers),
        ]
    }
}

/// A study with the order that it belongs to, or an order whose study is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node that first took it.
    pub origin: NodeName,
    /// Study Instance UID; empty: only the order is known.
    pub study: String,
    /// The order, whole, where there is one.
    pub order: Option<Order>,
    /// Accession numbers of images and order.
    pub accessions: Vec<Identifier>,
    /// Placer's numbers.
    pub placers: Vec<Identifier>,
    /// Filler's numbers.
    pub fillers: Vec<Identifier>,
    /// Those of the instances asked for that are in the study.
    pub instances: BTreeSet<String>,
    /// Whom images and order name, by the numbers in force.
    pub patient: Patient,
    /// How soon it is wanted.
    pub urgency: Urgency,
    /// Name of the route by which its first image left to a node; empty: it came from another node,
    /// or left to none.
    pub route: String,
    /// Whether it was only sent, or fetched, for comparison: nobody reads it.
    pub is_prior: bool,
    /// Of what this node took first: the nodes to which images of it go, or the order.
    pub sent_to: BTreeSet<DestinationName>,
}

/// What is found so far.
#[derive(Default)]
struct Found {
    all: Vec<Candidate>,
    known: BTreeSet<(StudyRef, Option<OrderKey>)>,
    /// The instances asked for, by study.
    instances: BTreeMap<StudyRef, BTreeSet<String>>,
}

impl Found {
    const fn is_full(&self) -> bool {
        self.all.len() > CANDIDATES_MAX
    }

    fn add(&mut self, candidate: impl FnOnce() -> Candidate, id: (StudyRef, Option<OrderKey>)) {
        if !self.is_full() && self.known.insert(id) {
            self.all.push(candidate());
        }
    }
}

impl Registrar {
    /// What has any of these.
    pub(super) async fn candidates(&mut self, wanted: Wanted) -> Result<Vec<Candidate>, Stopped> {
        // What this turn has learnt counts.
        self.cases.write(&mut self.store);
        let origins = self.origins();
        let mut found = Found::default();
        let mut asked: Vec<String> = wanted.instances.clone();
        asked.truncate(INSTANCES_ASKED_MAX);
        if !asked.is_empty() {
            for origin in &origins {
                let studies = self.custody.studies_of(origin.clone(), asked.clone());
                for (instance, study) in studies.await.ok_or(Stopped)? {
                    let id = StudyRef { origin: origin.clone(), study };
                    found.instances.entry(id).or_default().insert(instance);
                }
            }
        }
        let mut by_study = 0;
        for (kind, ids) in wanted.numbers() {
            for id in ids.iter().take(NUMBERS_MAX) {
                for origin in &origins {
                    if !id.is_empty() && !found.is_full() {
                        self.with_number(kind, id, origin, &mut found).await?;
                    }
                }
            }
            if kind == Number::Study {
                by_study = found.all.len();
            }
        }
        for id in found.instances.keys().cloned().collect::<Vec<_>>() {
            if let Some(dossier) = self.store.get::<Dossier>(study_key(&id)).await? {
                self.with_study(&dossier, &mut found).await?;
            }
        }
        // Nothing decides before the study's own UID: what weaker numbers add says nothing then.
        let by_uid = |c: &Candidate| wanted.studies.contains(&c.study);
        if found.is_full() && by_study <= CANDIDATES_MAX && found.all.iter().any(by_uid) {
            found.all.truncate(by_study);
        }
        Ok(found.all)
    }

    async fn with_number(
        &self,
        kind: Number,
        id: &str,
        origin: &NodeName,
        found: &mut Found,
    ) -> Result<(), Stopped> {
        let term = kind.of_study(origin, id);
        let studies: Vec<Dossier> = self.store.with(&term, b's', FOUND_MAX).await?;
        for dossier in &studies {
            self.with_study(dossier, found).await?;
        }
        let term = kind.of_order(origin, id);
        let orders: Vec<OrderRecord> = self.store.with(&term, b'o', FOUND_MAX).await?;
        for record in &orders {
            let of_order = order_of_study(record.key());
            let studies: Vec<Dossier> = self.store.with(&of_order, b's', FOUND_MAX).await?;
            let mut has_study = false;
            for dossier in &studies {
                has_study |= self.with_study(dossier, found).await?;
            }
            if !has_study {
                self.with_order_alone(record, found);
            }
        }
        Ok(())
    }

    /// Adds a study with its order; false: it stands without its order.
    async fn with_study(&self, dossier: &Dossier, found: &mut Found) -> Result<bool, Stopped> {
        let id = dossier.study();
        let record = match dossier.matched.order() {
            Some(key) => self.store.get::<OrderRecord>(order_key(key)).await?,
            None => None,
        };
        let order = record.as_ref().map(|record| record.history.order());
        let apart = order.as_ref().is_some_and(|order| self.are_apart(dossier, order));
        if let Some(record) = record.as_ref().filter(|_| apart) {
            self.with_order_alone(record, found);
        }
        let order = order.filter(|_| !apart);
        let has_order = order.is_some();
        let key = order.as_ref().map(|order| order.key.clone());
        let instances = found.instances.get(&id).cloned().unwrap_or_default();
        found.add(|| self.study_with(dossier, order, instances), (id, key));
        Ok(has_order)
    }

    fn with_order_alone(&self, record: &OrderRecord, found: &mut Found) {
        let order = record.history.order();
        let key = order.key.clone();
        let none = StudyRef { origin: key.origin.clone(), study: String::new() };
        found.add(|| self.order_alone(order, &record.ways), (none, Some(key)));
    }

    /// The nodes to which the routes send what is like this order.
    fn nodes_of(&self, order: &Order) -> BTreeSet<DestinationName> {
        if order.key.origin != self.config.node {
            return BTreeSet::new();
        }
        let asked = travel::like_order(order, &self.config.node);
        let to = self.ways.assign(&asked, &|word| travel::attribute_of(order, &asked, word));
        to.into_iter().map(|a| a.destination).collect()
    }

    /// Whether images and order name surely different patients, and nobody has linked them.
    fn are_apart(&self, dossier: &Dossier, order: &Order) -> bool {
        !is_linked(dossier) && self.patients_agree(dossier, order) == Agreement::Different
    }

    fn patients_agree(&self, dossier: &Dossier, order: &Order) -> Agreement {
        let merges = self.merges.get(&dossier.facts.origin);
        let order = settled(merges, &order.content.patient);
        settled(merges, &dossier.facts.patient).agrees(&order)
    }

    fn order_alone(&self, order: Order, ways: &[travel::Way]) -> Candidate {
        let patient = settled(self.merges.get(&order.key.origin), &order.content.patient);
        let [accessions, placers, fillers] = numbers(None, Some(&order));
        let mut sent_to = self.nodes_of(&order);
        sent_to.extend(ways.iter().map(|way| way.destination.clone()));
        Candidate {
            origin: order.key.origin.clone(),
            study: String::new(),
            accessions,
            placers,
            fillers,
            instances: BTreeSet::new(),
            patient,
            urgency: order.urgency(),
            route: String::new(),
            is_prior: false,
            sent_to,
            order: Some(order),
        }
    }

    fn study_with(
        &self,
        dossier: &Dossier,
        order: Option<Order>,
        instances: BTreeSet<String>,
    ) -> Candidate {
        let facts = &dossier.facts;
        let merges = self.merges.get(&facts.origin);
        let mut patient = match self.patients_of(dossier) {
            0 | 1 => settled(merges, &facts.patient),
            _ => Patient::default(),
        };
        if let Some(order) = &order
            && self.patients_of(dossier) < 2
            && (is_linked(dossier) || self.patients_agree(dossier, order) == Agreement::Same)
        {
            add_patient(&mut patient, settled(merges, &order.content.patient));
        }
        let [accessions, placers, fillers] = numbers(Some(facts), order.as_ref());
        let mut sent_to = order.as_ref().map(|order| self.nodes_of(order)).unwrap_or_default();
        sent_to.extend(dossier.ways.iter().map(|way| way.destination.clone()));
        Candidate {
            origin: facts.origin.clone(),
            study: facts.study.clone(),
            accessions,
            placers,
            fillers,
            instances,
            patient,
            urgency: urgency(order.as_ref(), &dossier.ways),
            route: dossier.route.clone(),
            is_prior: dossier.is_only_prior(),
            sent_to,
            order,
        }
    }
}

fn is_linked(dossier: &Dossier) -> bool {
    matches!(dossier.matched, Match::Order { by: By::Person, .. })
}

fn settled(merges: Option<&Merges>, patient: &Patient) -> Patient {
    merges.map_or_else(|| patient.clone(), |merges| merges.settle(patient))
}

/// Adds what the order says of the same patient.
fn add_patient(patient: &mut Patient, order: Patient) {
    let add = |own: &mut Vec<Identifier>, new: Vec<Identifier>| {
        own.extend(new);
        own.sort();
        own.dedup();
    };
    add(&mut patient.ids, order.ids);
    add(&mut patient.former, order.former);
    let ids = &patient.ids;
    patient.former.retain(|id| !ids.contains(id));
    let new: Vec<String> =
        order.names.into_iter().filter(|name| !patient.names.contains(name)).collect();
    patient.names.extend(new);
    for (own, said) in [(&mut patient.birth_date, order.birth_date), (&mut patient.sex, order.sex)]
    {
        if own.is_empty() {
            *own = said;
        }
    }
}

/// What the order says, or else what the images left with.
fn urgency(order: Option<&Order>, ways: &[travel::Way]) -> Urgency {
    let said = order.filter(|order| {
        let parts = order.content.parts.iter().filter(|p| p.is_open());
        order.content.urgency.is_some() || parts.into_iter().any(|p| p.urgency.is_some())
    });
    let left = || ways.iter().map(|way| way.urgency).min();
    said.map(Order::urgency).or_else(left).unwrap_or_default()
}

/// Accession numbers, placer's numbers and filler's numbers of a study with its order.
fn numbers(facts: Option<&StudyFacts>, order: Option<&Order>) -> [Vec<Identifier>; 3] {
    let mut all: [Vec<Identifier>; 3] = Default::default();
    if let Some(facts) = facts {
        let own = [&facts.accession, &facts.placer, &facts.filler];
        all.iter_mut().zip(own).for_each(|(list, id)| list.extend(id.clone()));
    }
    if let Some(order) = order {
        let c = &order.content;
        let own = [&c.accession, &c.placer, &c.filler];
        all.iter_mut().zip(own).for_each(|(list, id)| list.extend(id.clone()));
        for part in parts(facts, order) {
            let own = [&part.accession, &Some(Identifier::bare(&part.number)), &part.filler];
            all.iter_mut().zip(own).for_each(|(list, id)| list.extend(id.clone()));
        }
    }
    for list in &mut all {
        list.retain(Identifier::is_named);
        list.sort();
        list.dedup();
    }
    all
}

/// The parts of an order that a study is of; all, where that is not known.
pub(super) fn parts<'a>(facts: Option<&StudyFacts>, order: &'a Order) -> Vec<&'a Part> {
    let same = |a: &Option<Identifier>, b: &Option<Identifier>| match (a, b) {
        (Some(a), Some(b)) => a.is_named() && a.id == b.id && a.agrees(b) != Agreement::Different,
        _ => false,
    };
    let is_of = |part: &&Part, facts: &StudyFacts| {
        part.studies.contains(&facts.study)
            || same(&part.accession, &facts.accession)
            || same(&part.filler, &facts.filler)
            || same(&Some(Identifier::bare(&part.number)), &facts.placer)
    };
    let all: Vec<&Part> = order.content.parts.iter().collect();
    let own: Vec<&Part> = match facts {
        Some(facts) => all.iter().copied().filter(|part| is_of(part, facts)).collect(),
        None => Vec::new(),
    };
    if own.is_empty() { all } else { own }
}
