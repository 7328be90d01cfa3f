//! Which order a study belongs to.
//!
//! Keys are tried from the surest to the weakest; the first that finds anything decides:
//!
//! | key | why |
//! |---|---|
//! | a person's link | a person has looked |
//! | Study Instance UID | the modality took it from the worklist |
//! | accession number, with its issuer | unique per issuer, but typed by hand at some sites |
//! | filler's, then placer's order number | unique per authority |
//! | requested procedure and step | unique within a site at best: only with the same patient |
//!
//! Only orders of the study's own origin are looked at: two hospitals never merge. Where a key
//! finds several orders, the patient and then being open decides between them; if that leaves not
//! exactly one, the study belongs to none, and the candidates are named. Whatever is found, the
//! patient and the accession number are checked across, and what disagrees is told ([`Doubts`]),
//! never repaired here. Nothing is moved or dropped by matching: a study is with one order or
//! with none, and a person's link can be made and taken back at will.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::identifier::{Agreement, Identifier, Patient};
use super::order::{Order, OrderKey};
use super::stand_in;
use crate::cargo::{NodeName, StudyKey};
use crate::clock::Timestamp;

/// Most orders that an ambiguous match names.
pub const CANDIDATES_MAX: usize = 16;

/// What a study says of itself: from the headers of its images, and from performed procedure
/// steps.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct StudyFacts {
    /// The node that first took it.
    #[n(0)]
    pub origin: NodeName,
    /// Study Instance UID (0020,000D).
    #[n(1)]
    pub study: String,
    /// Accession Number (0008,0050) with its issuer (0008,0051).
    #[n(2)]
    pub accession: Option<Identifier>,
    /// Filler order number (0040,2017).
    #[n(3)]
    pub filler: Option<Identifier>,
    /// Placer order number (0040,2016).
    #[n(4)]
    pub placer: Option<Identifier>,
    /// Requested Procedure IDs (0040,1001) and Scheduled Procedure Step IDs (0040,0009).
    #[n(5)]
    pub procedures: Vec<(String, String)>,
    /// Whom it shows.
    #[n(6)]
    pub patient: Patient,
}

/// A person's word on where a study belongs. The later one counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Link {
    /// When it was said.
    #[n(0)]
    pub at: Timestamp,
    /// To which order; absent: to none, whatever the keys say.
    #[n(1)]
    pub order: Option<OrderKey>,
    /// Who said it.
    #[n(2)]
    pub by: String,
}

impl Link {
    /// The one of two that counts.
    pub fn later(self, other: Self) -> Self {
        self.max(other)
    }
}

/// What a study and its order have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum By {
    /// A person's link.
    #[n(0)]
    Person,
    /// The Study Instance UID.
    #[n(1)]
    Study,
    /// The accession number.
    #[n(2)]
    Accession,
    /// The filler's number.
    #[n(3)]
    Filler,
    /// The placer's number.
    #[n(4)]
    Placer,
    /// Requested procedure and scheduled step.
    #[n(5)]
    Procedure,
}

/// What disagrees between a study and its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Doubts {
    /// Whether both name the same patient.
    #[n(0)]
    pub patient: Agreement,
    /// Whether both have the same accession number; `Unsure` when one has none.
    #[n(1)]
    pub accession: Agreement,
}

/// Where a study belongs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case", tag = "match")]
pub enum Match {
    /// To this order.
    #[n(0)]
    #[cbor(map)]
    Order {
        /// Which.
        #[n(0)]
        order: OrderKey,
        /// By what.
        #[n(1)]
        by: By,
        /// What disagrees.
        #[n(2)]
        doubts: Doubts,
    },
    /// To none: no order has anything in common with it.
    #[n(1)]
    None,
    /// To none, because a person said so.
    #[n(2)]
    Unlinked,
    /// To none, because several orders could be meant.
    #[n(3)]
    #[cbor(map)]
    Ambiguous {
        /// By what.
        #[n(0)]
        by: By,
        /// Which, at most [`CANDIDATES_MAX`].
        #[n(1)]
        orders: Vec<OrderKey>,
    },
}

impl Match {
    /// The order, when there is one.
    pub fn order(&self) -> Option<&OrderKey> {
        match self {
            Self::Order { order, .. } => Some(order),
            _ => None,
        }
    }
}

/// The order of `study` among `candidates`; those that have nothing in common with it do no harm.
pub fn order_of<'a>(
    study: &StudyFacts,
    link: Option<&Link>,
    candidates: impl IntoIterator<Item = &'a Order>,
) -> Match {
    let orders: BTreeMap<&OrderKey, &Order> = candidates
        .into_iter()
        .filter(|o| o.key.origin == study.origin)
        .map(|o| (&o.key, o))
        .collect();
    match link {
        Some(Link { order: None, .. }) => return Match::Unlinked,
        Some(Link { order: Some(key), .. }) if orders.contains_key(key) => {
            return found(study, orders[key], By::Person);
        }
        // The order of a link that is not known (yet) cannot be judged against: the keys stand in.
        _ => {}
    }
    for by in [By::Study, By::Accession, By::Filler, By::Placer, By::Procedure] {
        let named: Vec<&Order> = orders.values().copied().filter(|o| names(study, o, by)).collect();
        if !named.is_empty() {
            return choose(study, &named, by);
        }
    }
    Match::None
}

fn found(study: &StudyFacts, order: &Order, by: By) -> Match {
    Match::Order { order: order.key.clone(), by, doubts: doubts(study, order) }
}

/// What disagrees between a study and an order, however they came together.
pub fn doubts(study: &StudyFacts, order: &Order) -> Doubts {
    let named = study.accession.as_ref().filter(|a| a.is_named());
    let of_part = named.is_some_and(|a| {
        let parts = order.content.parts.iter().filter_map(|p| p.accession.as_ref());
        parts.into_iter().any(|b| a.id == b.id && a.agrees(b) != Agreement::Different)
    });
    let accession = match (&study.accession, &order.content.accession) {
        _ if of_part => Agreement::Same,
        (Some(a), Some(b)) if a.is_named() && b.is_named() => match a.agrees(b) {
            // Accession numbers of one origin: other digits are another number.
            Agreement::Unsure if a.id != b.id => Agreement::Different,
            Agreement::Unsure => Agreement::Same,
            sure => sure,
        },
        _ => Agreement::Unsure,
    };
    Doubts { patient: study.patient.agrees(&order.content.patient), accession }
}

fn names(study: &StudyFacts, order: &Order, by: By) -> bool {
    let content = &order.content;
    let same = |a: &Identifier, b: &Identifier| {
        a.is_named() && a.id == b.id && a.agrees(b) != Agreement::Different
    };
    let placers = || {
        let parts = content.parts.iter().map(|p| Identifier::bare(&p.number));
        content.placer.iter().cloned().chain(parts)
    };
    match by {
        By::Person => false,
        By::Study => {
            !study.study.is_empty()
                && (content.all_studies().any(|s| *s == study.study)
                    || stand_in::is_study_of(&order.key, &study.study))
        }
        By::Accession => {
            study.accession.as_ref().is_some_and(|a| content.accessions().any(|b| same(a, b)))
        }
        By::Filler => study.filler.as_ref().is_some_and(|a| content.fillers().any(|b| same(a, b))),
        By::Placer => study.placer.as_ref().is_some_and(|a| placers().any(|b| same(a, &b))),
        By::Procedure => {
            // Where both name the step it must agree too.
            let agrees = |requested: &str, step: &str| {
                content.all_procedures().any(|p| {
                    let steps = p.step.is_empty() || step.is_empty() || p.step == step;
                    !requested.is_empty() && p.requested == requested && steps
                })
            };
            study.procedures.iter().any(|(requested, step)| agrees(requested, step))
                && study.patient.agrees(&content.patient) == Agreement::Same
        }
    }
}

/// The one of several: with the same patient before with a doubtful one, open before ended.
fn choose(study: &StudyFacts, named: &[&Order], by: By) -> Match {
    let rank = |o: &Order| (study.patient.agrees(&o.content.patient), !o.state.is_open());
    let best = named.iter().map(|o| rank(o)).min().expect("never called without candidates");
    let left: Vec<&&Order> = named.iter().filter(|o| rank(o) == best).collect();
    match left[..] {
        [order] => found(study, order, by),
        _ => {
            let orders = left.iter().take(CANDIDATES_MAX).map(|o| o.key.clone()).collect();
            Match::Ambiguous { by, orders }
        }
    }
}

/// Finds the orders that could be meant, among many, by what they are named with.
#[derive(Debug, Clone, Default)]
pub struct Index {
    by: BTreeMap<(By, NodeName, String), BTreeSet<OrderKey>>,
}

impl Index {
    /// Enters an order as it stands.
    pub fn insert(&mut self, order: &Order) {
        for key in keys(order) {
            self.by.entry(key).or_default().insert(order.key.clone());
        }
    }

    /// Takes an order out; `order` as it was entered.
    pub fn remove(&mut self, order: &Order) {
        for key in keys(order) {
            if let Some(orders) = self.by.get_mut(&key) {
                orders.remove(&order.key);
                if orders.is_empty() {
                    self.by.remove(&key);
                }
            }
        }
    }

    /// The orders that have something in common with a study: what [`order_of`] must be given.
    pub fn candidates(&self, study: &StudyFacts) -> BTreeSet<OrderKey> {
        let number = |by, id: &Option<Identifier>| (by, id.as_ref().map(|id| id.id.clone()));
        let mut asked = vec![
            (By::Study, Some(study.study.clone())),
            number(By::Accession, &study.accession),
            number(By::Filler, &study.filler),
            number(By::Placer, &study.placer),
        ];
        asked.extend(study.procedures.iter().map(|(p, _)| (By::Procedure, Some(p.clone()))));
        let mut found = BTreeSet::new();
        for (by, id) in asked {
            let key = (by, study.origin.clone(), id.unwrap_or_default());
            found.extend(self.by.get(&key).into_iter().flatten().cloned());
        }
        found
    }

    /// The orders that bear this number, whichever kind: for messages that name an order by only
    /// one of its numbers.
    pub fn numbered(&self, origin: &NodeName, by: By, id: &str) -> BTreeSet<OrderKey> {
        self.by.get(&(by, origin.clone(), id.to_owned())).cloned().unwrap_or_default()
    }
}

fn keys(order: &Order) -> Vec<(By, NodeName, String)> {
    let c = &order.content;
    let own = stand_in::study_uid(&order.key);
    let mut named: Vec<(By, &str)> = c.all_studies().map(|s| (By::Study, s.as_str())).collect();
    named.push((By::Study, &own));
    named.extend(c.accessions().map(|id| (By::Accession, id.id.as_str())));
    named.extend(c.fillers().map(|id| (By::Filler, id.id.as_str())));
    named.extend(c.placer.iter().map(|id| (By::Placer, id.id.as_str())));
    named.extend(c.parts.iter().map(|p| (By::Placer, p.number.as_str())));
    named.extend(c.all_procedures().map(|p| (By::Procedure, p.requested.as_str())));
    named.retain(|(_, id)| !id.is_empty());
    named.into_iter().map(|(by, id)| (by, order.key.origin.clone(), id.to_owned())).collect()
}

/// Every study with the order that it belongs to, and the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    /// Where each study belongs.
    pub studies: BTreeMap<StudyKey, Match>,
    /// Which studies each order has, an order without studies included.
    pub orders: BTreeMap<OrderKey, BTreeSet<StudyKey>>,
}

/// Assigns all studies at once: for listings of a few, and for proving. A driver that holds many
/// uses [`Index`] and [`order_of`].
pub fn assign(
    studies: &[StudyFacts],
    orders: &[Order],
    links: &BTreeMap<StudyKey, Link>,
) -> Assignment {
    let mut out = Assignment::default();
    out.orders.extend(orders.iter().map(|o| (o.key.clone(), BTreeSet::new())));
    for study in studies {
        let key = StudyKey::of(&study.origin, &study.study);
        let found = order_of(study, links.get(&key), orders);
        if let Some(order) = found.order() {
            out.orders.entry(order.clone()).or_default().insert(key);
        }
        out.studies.insert(key, found);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::order::{Content, OrderState, Procedure};

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn order(number: &str, accession: &str, patient: &str) -> Order {
        let key = OrderKey { origin: node("h"), number: number.into() };
        let content = Content {
            placer: Some(Identifier::bare(number)),
            accession: Some(Identifier::bare(accession)),
            patient: Patient { ids: vec![Identifier::of(patient, "H")], ..Patient::default() },
            ..Content::default()
        };
        Order { content, ..Order::empty(key) }
    }

    fn study(uid: &str, accession: &str, patient: &str) -> StudyFacts {
        StudyFacts {
            origin: node("h"),
            study: uid.into(),
            accession: (!accession.is_empty()).then(|| Identifier::bare(accession)),
            filler: None,
            placer: None,
            procedures: vec![],
            patient: Patient { ids: vec![Identifier::of(patient, "H")], ..Patient::default() },
        }
    }

    fn number(m: &Match) -> Option<&str> {
        m.order().map(|key| key.number.as_str())
    }

    #[test]
    fn the_study_uid_goes_before_the_accession_number_and_the_mismatch_is_told() {
        let mut a = order("P1", "A1", "1");
        a.content.studies = vec!["1.2".into()];
        let b = order("P2", "A2", "1");
        let found = order_of(&study("1.2", "A2", "1"), None, [&a, &b]);
        assert_eq!(number(&found), Some("P1"));
        let Match::Order { by, doubts, .. } = found else { panic!() };
        assert_eq!((by, doubts.accession), (By::Study, Agreement::Different));
        assert_eq!(doubts.patient, Agreement::Same);
    }

    #[test]
    fn an_accession_number_of_another_patient_matches_and_is_a_patient_mismatch() {
        let a = order("P1", "A1", "1");
        let Match::Order { doubts, .. } = order_of(&study("1.2", "A1", "2"), None, [&a]) else {
            panic!()
        };
        assert_eq!(doubts.patient, Agreement::Different);
    }

    #[test]
    fn two_orders_with_one_accession_number_are_told_apart_by_patient_and_by_being_open() {
        let (mut a, b) = (order("P1", "A1", "1"), order("P2", "A1", "2"));
        assert_eq!(number(&order_of(&study("1.2", "A1", "2"), None, [&a, &b])), Some("P2"));
        let c = order("P3", "A1", "1");
        let found = order_of(&study("1.2", "A1", "1"), None, [&a, &b, &c]);
        let Match::Ambiguous { by: By::Accession, orders } = found else { panic!("{found:?}") };
        assert_eq!(orders, [a.key.clone(), c.key.clone()]);
        a.state = OrderState::Cancelled;
        assert_eq!(number(&order_of(&study("1.2", "A1", "1"), None, [&a, &b, &c])), Some("P3"));
    }

    #[test]
    fn a_persons_link_wins_and_can_be_taken_back() {
        let (a, b) = (order("P1", "A1", "1"), order("P2", "A2", "1"));
        let link = |at, order: Option<&Order>| Link {
            at: Timestamp(at),
            order: order.map(|o| o.key.clone()),
            by: "sato".into(),
        };
        let s = study("1.2", "A1", "1");
        assert_eq!(number(&order_of(&s, Some(&link(1, Some(&b))), [&a, &b])), Some("P2"));
        assert_eq!(order_of(&s, Some(&link(2, None)), [&a, &b]), Match::Unlinked);
        assert_eq!(link(1, Some(&b)).later(link(2, None)).order, None);
        assert_eq!(number(&order_of(&s, Some(&link(1, Some(&b))), [&a])), Some("P1"));
    }

    #[test]
    fn a_procedure_number_alone_is_not_enough_without_the_same_patient() {
        let mut a = order("P1", "", "1");
        let procedure = Procedure { requested: "RP1".into(), ..Procedure::default() };
        a.content.procedures = vec![procedure];
        let mut s = study("1.2", "", "1");
        s.procedures = vec![("RP1".into(), "S1".into())];
        assert_eq!(number(&order_of(&s, None, [&a])), Some("P1"));
        s.patient.ids = vec![Identifier::of("2", "H")];
        assert_eq!(order_of(&s, None, [&a]), Match::None);
    }

    #[test]
    fn another_hospitals_order_with_the_same_numbers_is_never_meant() {
        let mut a = order("P1", "A1", "1");
        a.key.origin = node("other");
        assert_eq!(order_of(&study("1.2", "A1", "1"), None, [&a]), Match::None);
    }

    #[test]
    fn the_index_finds_exactly_what_matching_can_use() {
        let (mut a, b) = (order("P1", "A1", "1"), order("P2", "A2", "1"));
        a.content.studies = vec!["1.2".into()];
        let mut index = Index::default();
        index.insert(&a);
        index.insert(&b);
        let both = BTreeSet::from([a.key.clone(), b.key.clone()]);
        assert_eq!(index.candidates(&study("1.2", "A2", "1")), both);
        assert_eq!(index.candidates(&study("1.3", "", "1")), BTreeSet::new());
        assert_eq!(index.numbered(&node("h"), By::Placer, "P2").len(), 1);
        index.remove(&a);
        assert_eq!(index.candidates(&study("1.2", "A1", "1")), BTreeSet::new());
    }
}
