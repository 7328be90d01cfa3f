//! Which study and order a report is of. Never a guess: what is not sure goes to a person.
//!
//! Keys are tried from the surest to the weakest; the first that finds anything decides:
//!
//! | key | why |
//! |---|---|
//! | Study Instance UID | the images bear it |
//! | accession number, with its issuer | unique per issuer |
//! | filler's, then placer's order number | unique per authority |
//! | SOP Instance UIDs that it rests on | the images themselves, but of priors as well |
//!
//! Origins are part of what is found: a report belongs to the hospital that sent the study, and to
//! no other. Where a key finds studies of several origins, only patient identifiers whose issuers
//! are known tell them apart; if they do not, there are several, and a person decides. Within one
//! origin weaker keys may tell apart what a stronger one leaves open.
//!
//! A patient who differs, or who cannot be told to be the same, holds the report; so does an
//! accession number that contradicts what was found. A report that names no patient is taken by
//! Study Instance UID alone.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::report::{Identifiers, Report};
use crate::cargo::NodeName;
use crate::orders::identifier::{Agreement, Identifier, Patient};
use crate::orders::order::OrderKey;

/// Most candidates that an outcome names.
pub const CANDIDATES_MAX: usize = 16;

/// A study, with the order that it belongs to; or an order whose study is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The study and the order.
    pub target: Target,
    /// Accession numbers of images and order.
    pub accessions: Vec<Identifier>,
    /// Placer's numbers.
    pub placers: Vec<Identifier>,
    /// Filler's numbers.
    pub fillers: Vec<Identifier>,
    /// Those of its SOP Instance UIDs that the report names: whoever looks the candidate up asks
    /// for these alone.
    pub instances: BTreeSet<String>,
    /// Whom order and images name.
    pub patient: Patient,
}

/// Where a report belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Target {
    /// The hospital that sent the study.
    #[n(0)]
    pub origin: NodeName,
    /// Study Instance UID; empty where only the order is known.
    #[n(1)]
    pub study: String,
    /// The order, where there is one.
    #[n(2)]
    pub order: Option<OrderKey>,
}

/// What report and study have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum By {
    /// A person has said so.
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
    /// Instances that the report rests on.
    #[n(5)]
    Instances,
}

/// Where a report belongs, or why that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// To this study or order; to several of them, when a report is of several studies of one
    /// patient.
    #[n(0)]
    #[cbor(map)]
    Found {
        /// Which; never empty, all of one origin.
        #[n(0)]
        targets: Vec<Target>,
        /// By what.
        #[n(1)]
        by: By,
    },
    /// No study has anything in common with it.
    #[n(1)]
    None,
    /// Several could be meant.
    #[n(2)]
    #[cbor(map)]
    Several {
        /// By what.
        #[n(0)]
        by: By,
        /// Which, at most [`CANDIDATES_MAX`].
        #[n(1)]
        targets: Vec<Target>,
    },
    /// One is meant, but the patient is another, or cannot be told to be the same.
    #[n(3)]
    #[cbor(map)]
    PatientDiffers {
        /// By what.
        #[n(0)]
        by: By,
        /// Which.
        #[n(1)]
        target: Target,
        /// Whether he or she surely differs.
        #[n(2)]
        agreement: Agreement,
    },
    /// One is meant, but its accession number is another.
    #[n(4)]
    #[cbor(map)]
    NumberDiffers {
        /// By what.
        #[n(0)]
        by: By,
        /// Which.
        #[n(1)]
        target: Target,
    },
}

/// What to look candidates up by: UIDs and numbers, as they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted<'a> {
    /// Study Instance UIDs.
    pub studies: Vec<&'a str>,
    /// Accession numbers.
    pub accessions: Vec<&'a str>,
    /// Filler's numbers.
    pub fillers: Vec<&'a str>,
    /// Placer's numbers.
    pub placers: Vec<&'a str>,
    /// SOP Instance UIDs.
    pub instances: Vec<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Of a report. Everything that has any of these, at any origin, is a candidate.
    pub fn of(ids: &'a Identifiers) -> Self {
        let number = |id: &'a Option<Identifier>| -> Vec<&'a str> {
            id.iter().filter(|id| id.is_named()).map(|id| id.id.as_str()).collect()
        };
        Self {
            studies: ids.studies.iter().map(String::as_str).collect(),
            accessions: ids.accessions.iter().map(|id| id.id.as_str()).collect(),
            fillers: number(&ids.filler),
            placers: number(&ids.placer),
            instances: ids.instances.iter().map(String::as_str).collect(),
        }
    }
}

fn same(a: &Identifier, b: &Identifier) -> bool {
    a.is_named() && a.id == b.id && a.agrees(b) != Agreement::Different
}

fn any_same<'a>(a: impl IntoIterator<Item = &'a Identifier>, b: &[Identifier]) -> bool {
    a.into_iter().any(|a| b.iter().any(|b| same(a, b)))
}

fn names(ids: &Identifiers, candidate: &Candidate, by: By) -> bool {
    match by {
        By::Person => false,
        By::Study => ids.studies.iter().any(|s| !s.is_empty() && *s == candidate.target.study),
        By::Accession => any_same(&ids.accessions, &candidate.accessions),
        By::Filler => any_same(&ids.filler, &candidate.fillers),
        By::Placer => any_same(&ids.placer, &candidate.placers),
        By::Instances => ids.instances.iter().any(|i| candidate.instances.contains(i)),
    }
}

const KEYS: [By; 5] = [By::Study, By::Accession, By::Filler, By::Placer, By::Instances];

/// Where `report` belongs, among `candidates`; those that have nothing in common with it do no
/// harm, and their order makes no difference.
pub fn target_of(report: &Report, candidates: &[Candidate]) -> Outcome {
    let ids = &report.ids;
    let mut all: Vec<&Candidate> = candidates.iter().collect();
    all.sort_by(|a, b| a.target.cmp(&b.target));
    all.dedup_by(|a, b| a == b);
    for (place, by) in KEYS.into_iter().enumerate() {
        let named: Vec<&Candidate> = all.iter().copied().filter(|c| names(ids, c, by)).collect();
        if !named.is_empty() {
            return choose(report, named, by, &KEYS[place + 1..]);
        }
    }
    Outcome::None
}

fn choose(report: &Report, named: Vec<&Candidate>, by: By, weaker: &[By]) -> Outcome {
    let patient = |c: &Candidate| agreement(&report.patient, &c.patient, by);
    // Who surely is another patient is not meant, if somebody else is.
    let others = named
        .iter()
        .filter(|c| patient(c) != Agreement::Different && !are_apart(&report.patient, &c.patient));
    let mut left: Vec<&Candidate> = others.copied().collect();
    if left.is_empty() {
        left = named;
    }
    let several = |left: &[&Candidate]| Outcome::Several {
        by,
        targets: left.iter().take(CANDIDATES_MAX).map(|c| c.target.clone()).collect(),
    };
    if left.iter().any(|c| c.target.origin != left[0].target.origin) {
        return several(&left);
    }
    // Of one origin: what a weaker key names among them.
    if !one_for_each_study(report, &left, by) {
        for key in weaker {
            let fewer: Vec<&Candidate> =
                left.iter().copied().filter(|c| names(&report.ids, c, *key)).collect();
            if !fewer.is_empty() {
                left = fewer;
            }
        }
    }
    if left.len() > 1 && !one_for_each_study(report, &left, by) {
        return several(&left);
    }
    for candidate in &left {
        let target = candidate.target.clone();
        match patient(candidate) {
            Agreement::Same => {}
            agreement => return Outcome::PatientDiffers { by, target, agreement },
        }
        if contradicts(&report.ids, candidate) && left.len() == 1 {
            return Outcome::NumberDiffers { by, target };
        }
    }
    Outcome::Found { targets: left.iter().map(|c| c.target.clone()).collect(), by }
}

/// Whether these are the several studies that the report is of: one candidate for each.
fn one_for_each_study(report: &Report, left: &[&Candidate], by: By) -> bool {
    let studies: BTreeSet<&str> = left.iter().map(|c| c.target.study.as_str()).collect();
    by == By::Study && studies.len() == left.len() && report.ids.studies.len() >= left.len()
}

/// Whether both name the same patient. A report without a patient has only the study's UID, which
/// nobody types.
fn agreement(report: &Patient, of_study: &Patient, by: By) -> Agreement {
    let nobody = report.ids.is_empty() && report.names.is_empty() && report.birth_date.is_empty();
    match (nobody, by) {
        (true, By::Study) => Agreement::Same,
        (true, _) => Agreement::Unsure,
        (false, _) => report.agrees(of_study),
    }
}

/// Whether identifiers of known issuers tell two patients apart: 4711 of one hospital is not 4711
/// of another.
fn are_apart(a: &Patient, b: &Patient) -> bool {
    let pairs = || a.ids.iter().flat_map(|a| b.ids.iter().map(move |b| a.agrees(b)));
    pairs().any(|p| p == Agreement::Different) && pairs().all(|p| p == Agreement::Different)
}

/// Whether the report has an accession number, and it is another one. A number that is the order's
/// in another role contradicts nothing: senders without accession numbers repeat the filler's.
fn contradicts(ids: &Identifiers, candidate: &Candidate) -> bool {
    let known = [&candidate.accessions, &candidate.fillers, &candidate.placers];
    let stated = || ids.accessions.iter().filter(|a| a.is_named());
    let repeats = stated().any(|a| ids.filler.as_ref().is_some_and(|f| f.id == a.id));
    let other = stated().next().is_some()
        && candidate.accessions.iter().any(Identifier::is_named)
        && !stated().any(|a| known.iter().any(|list| list.iter().any(|b| same(a, b))));
    other && !repeats
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::report::tests::report;
    use super::super::report::{Form, FormKind, Status};
    use super::*;

    fn patient(id: &str, issuer: &str) -> Patient {
        Patient { ids: vec![Identifier::of(id, issuer)], ..Patient::default() }
    }

    fn candidate(origin: &str, study: &str, accession: &str, of: Patient) -> Candidate {
        let origin: NodeName = origin.parse().unwrap();
        Candidate {
            target: Target { origin, study: study.into(), order: None },
            accessions: vec![Identifier::bare(accession)],
            placers: vec![Identifier::bare(&format!("P{accession}"))],
            fillers: vec![Identifier::bare(&format!("F{accession}"))],
            instances: [format!("{study}.1")].into(),
            patient: of,
        }
    }

    fn asks(studies: &[&str], accession: &str, of: Patient) -> Report {
        let mut report = report(Status::Final, Form::new(FormKind::Text, vec![]));
        report.ids.studies = studies.iter().map(|s| (*s).to_owned()).collect();
        report.ids.accessions = vec![Identifier::bare(accession)];
        report.ids.accessions.retain(Identifier::is_named);
        report.patient = of;
        report
    }

    fn found(outcome: &Outcome) -> Option<(By, Vec<String>)> {
        match outcome {
            Outcome::Found { targets, by } => {
                let name = |t: &Target| format!("{}/{}", t.origin, t.study);
                Some((*by, targets.iter().map(name).collect()))
            }
            _ => None,
        }
    }

    #[test]
    fn the_surest_key_finds_the_study_of_its_hospital() {
        let all = [
            candidate("east", "1.1", "A1", patient("4711", "E")),
            candidate("east", "1.2", "A2", patient("4711", "E")),
        ];
        let by = |report: &Report| found(&target_of(report, &all));
        let mut report = asks(&["1.1"], "", patient("4711", "E"));
        assert_eq!(by(&report), Some((By::Study, vec!["east/1.1".into()])));
        report = asks(&[], "A2", patient("4711", "E"));
        assert_eq!(by(&report), Some((By::Accession, vec!["east/1.2".into()])));
        report.ids.accessions.clear();
        report.ids.filler = Some(Identifier::bare("FA1"));
        assert_eq!(by(&report), Some((By::Filler, vec!["east/1.1".into()])));
        report.ids.filler = None;
        report.ids.placer = Some(Identifier::bare("PA2"));
        assert_eq!(by(&report), Some((By::Placer, vec!["east/1.2".into()])));
        report.ids.placer = None;
        report.ids.instances = vec!["1.2.1".into()];
        assert_eq!(by(&report), Some((By::Instances, vec!["east/1.2".into()])));
        report.ids.instances.clear();
        assert_eq!(target_of(&report, &all), Outcome::None);
        let both = asks(&["1.1", "1.2"], "A1", patient("4711", "E"));
        let all_of_them = vec!["east/1.1".to_owned(), "east/1.2".to_owned()];
        assert_eq!(by(&both), Some((By::Study, all_of_them)));
    }

    #[test]
    fn two_hospitals_with_the_same_patient_number_and_accession_stay_apart() {
        let all = [
            candidate("east", "1.1", "A1", patient("4711", "E")),
            candidate("west", "2.1", "A1", patient("4711", "W")),
        ];
        let with_issuer = asks(&[], "A1", patient("4711", "W"));
        assert_eq!(
            found(&target_of(&with_issuer, &all)),
            Some((By::Accession, vec!["west/2.1".into()]))
        );
        let without = asks(&[], "A1", patient("4711", ""));
        let Outcome::Several { by, targets } = target_of(&without, &all) else { panic!() };
        assert_eq!((by, targets.len()), (By::Accession, 2));
        let study = asks(&["2.1"], "A1", patient("4711", ""));
        assert_eq!(found(&target_of(&study, &all)), Some((By::Study, vec!["west/2.1".into()])));
        let copied = [all[0].clone(), candidate("west", "1.1", "B", patient("4711", ""))];
        let outcome = target_of(&asks(&["1.1"], "A1", patient("4711", "")), &copied);
        assert!(matches!(outcome, Outcome::Several { .. }), "weaker keys choose no hospital");
    }

    #[test]
    fn another_patient_or_another_number_holds_the_report() {
        let all = [candidate("east", "1.1", "A1", patient("4711", "E"))];
        let outcome = |report: &Report| target_of(report, &all);
        let other = outcome(&asks(&["1.1"], "A1", patient("4712", "E")));
        let different = |o: &Outcome| match o {
            Outcome::PatientDiffers { agreement, .. } => Some(*agreement),
            _ => None,
        };
        assert_eq!(different(&other), Some(Agreement::Different));
        let unsure = outcome(&asks(&[], "A1", patient("9", "OTHER")));
        assert_eq!(different(&unsure), Some(Agreement::Unsure));
        let number = outcome(&asks(&["1.1"], "A9", patient("4711", "E")));
        assert!(matches!(number, Outcome::NumberDiffers { .. }), "{number:?}");
        let mut repeated = asks(&["1.1"], "F9", patient("4711", "E"));
        repeated.ids.filler = Some(Identifier::bare("F9"));
        assert!(found(&outcome(&repeated)).is_some(), "the filler's number in its place");
        assert!(found(&outcome(&asks(&["1.1"], "", Patient::default()))).is_some());
        let nobody = outcome(&asks(&[], "A1", Patient::default()));
        assert_eq!(different(&nobody), Some(Agreement::Unsure));
    }

    #[test]
    fn of_two_orders_of_one_study_the_numbers_decide_and_otherwise_nobody_does() {
        let order = |n: &str| {
            let mut c = candidate("east", "1.1", n, patient("4711", "E"));
            c.target.order = Some(OrderKey { origin: "east".parse().unwrap(), number: n.into() });
            c
        };
        let all = [order("A1"), order("A2")];
        let one = target_of(&asks(&["1.1"], "A2", patient("4711", "E")), &all);
        let Outcome::Found { targets, .. } = one else { panic!("{one:?}") };
        assert_eq!(targets[0].order.as_ref().unwrap().number, "A2");
        let none = target_of(&asks(&["1.1"], "", patient("4711", "E")), &all);
        assert!(matches!(none, Outcome::Several { .. }), "{none:?}");
    }

    proptest! {
        #[test]
        fn what_is_found_is_of_one_hospital_of_the_patient_and_independent_of_order(
            all in proptest::collection::vec((0..3_u8, 0..3_u8, 0..3_u8, 0..3_u8, 0..3_u8), 0..8),
            study in 0..4_u8, accession in 0..4_u8, id in 0..3_u8, issuer in 0..3_u8,
        ) {
            let origins = ["east", "west", "north"];
            let issuers = ["E", "W", ""];
            let candidates: Vec<Candidate> = all
                .iter()
                .map(|(o, s, a, p, i)| candidate(
                    origins[usize::from(*o)],
                    &format!("1.{s}"),
                    &format!("A{a}"),
                    patient(&format!("p{p}"), issuers[usize::from(*i)]),
                ))
                .collect();
            let studies = if study < 3 { vec![format!("1.{study}")] } else { vec![] };
            let studies: Vec<&str> = studies.iter().map(String::as_str).collect();
            let number = if accession < 3 { format!("A{accession}") } else { String::new() };
            let report = asks(&studies, &number, patient(&format!("p{id}"), issuers[usize::from(issuer)]));
            let outcome = target_of(&report, &candidates);
            let mut reversed = candidates.clone();
            reversed.reverse();
            prop_assert_eq!(&outcome, &target_of(&report, &reversed));
            if let Outcome::Found { targets, by } = &outcome {
                prop_assert_eq!(targets.len(), 1);
                let meant: Vec<&Candidate> =
                    candidates.iter().filter(|c| names(&report.ids, c, *by)).collect();
                // No other hospital has one that could be this patient's.
                for c in meant {
                    let other = c.target.origin != targets[0].origin;
                    let differs = report.patient.agrees(&c.patient) == Agreement::Different
                        || are_apart(&report.patient, &c.patient);
                    prop_assert!(!other || differs);
                }
            }
            let bytes = minicbor::to_vec(&outcome).unwrap();
            prop_assert_eq!(minicbor::decode::<Outcome>(&bytes).unwrap(), outcome);
        }
    }
}
