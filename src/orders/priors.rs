//! Priors: which earlier studies of a patient a reader of the new one wants. Pure.
//!
//! On an order a rule ([`PriorRule`]) says which studies of the source are of interest, and
//! [`choose`] picks among what the source has:
//!
//! 1. left out: the order's own studies, later ones, too old ones, another patient's, other
//!    modalities or body parts, more images than the rule allows;
//! 2. ranked: the same body part, then the same modality, then the newest;
//! 3. taken from the top until [`PriorRule::studies_max`] or [`PriorRule::images_max`] is reached.
//!    What the reading node has already counts, and is not fetched.
//!
//! The source is asked by patient number alone, so what it answers is compared: a candidate that
//! names another number, issuer or birth date is another patient's, and left out.
//!
//! The choice does not depend on the order in which candidates are told.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::identifier::{Agreement, Identifier};
use super::order::Content;
use crate::cargo::Urgency;
use crate::clock::Timestamp;
use crate::routing::Pattern;

/// Candidates that the source may name; the newest are looked at.
pub const CANDIDATES_MAX: usize = 200;
/// Modalities of reports and what goes with them: no images.
pub const REPORT_MODALITIES: &[&str] = &["SR", "DOC", "KO", "PR"];

/// What a prior must have in common with the new study.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Likeness {
    /// Nothing.
    Any,
    /// The same as the new study, as far as that is known.
    #[default]
    Same,
    /// One of these.
    OneOf(Vec<String>),
}

impl Likeness {
    fn fits(&self, own: &str, other: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Same => own.is_empty() || other(own),
            Self::OneOf(words) => words.iter().any(|word| other(word)),
        }
    }
}

/// Which earlier studies are wanted for which orders; already checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriorRule {
    /// What the person who wrote it calls it.
    pub name: String,
    /// Name of the source to ask.
    pub source: String,
    /// Modalities of the new order, as patterns; empty: any.
    pub when_modality: Vec<Pattern>,
    /// Procedure codes or their meanings, as patterns; empty: any.
    pub when_procedure: Vec<Pattern>,
    /// Modality of a prior; default: the same.
    pub modality: Likeness,
    /// Body part of a prior; default: any.
    pub body_part: Likeness,
    /// Longest time before the new study; default three years.
    pub age_max: Duration,
    /// Most studies; default 2.
    pub studies_max: usize,
    /// Most instances of all of them together; default 5000.
    pub images_max: u32,
    /// How soon they are to be there; default bulk.
    pub urgency: Urgency,
    /// Whether reports of the prior studies come along; default true.
    pub reports: bool,
    /// Longest wait for the new study before they are asked for; default one hour.
    pub wait: Duration,
}

/// The new study, as far as its order and its first images tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// Patient ID (0010,0020) with its issuer.
    pub patient: Identifier,
    /// `YYYYMMDD`; empty when not known.
    pub birth_date: String,
    /// Modality; empty when not known.
    pub modality: String,
    /// Body Part Examined (0018,0015); empty when not known.
    pub body_part: String,
    /// Study Instance UIDs of the order itself.
    pub studies: BTreeSet<String>,
}

/// A study that the source has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Candidate {
    /// Study Instance UID.
    pub study: String,
    /// Study Date and Time (0008,0020), (0008,0030), digits only; date first.
    pub at: String,
    /// Patient ID with its issuer.
    pub patient: Identifier,
    /// `YYYYMMDD`; empty when not told.
    pub birth_date: String,
    /// Modalities of its series.
    pub modalities: BTreeSet<String>,
    /// Body parts of its series, as far as they are told.
    pub body_parts: BTreeSet<String>,
    /// Number of instances; `None`: not told.
    pub images: Option<u32>,
    /// It is in custody here, or was fetched before: it counts, and is not fetched.
    pub known: bool,
}

/// What to ask the source for, for one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// For what.
    pub subject: Subject,
    /// Earliest Study Date, `YYYYMMDD`.
    pub from: String,
    /// Latest Study Date.
    pub to: String,
    /// The one modality that fits, where there is only one.
    pub modality: Option<String>,
}

fn like(a: &str, b: &str) -> bool {
    a.trim().eq_ignore_ascii_case(b.trim())
}

impl PriorRule {
    /// Whether it is for such an order.
    pub fn applies(&self, content: &Content) -> bool {
        fn any<'a>(patterns: &[Pattern], mut values: impl Iterator<Item = &'a str>) -> bool {
            patterns.is_empty() || values.any(|v| patterns.iter().any(|p| p.matches(v)))
        }
        let modalities = content.procedures.iter().map(|p| p.modality.as_str());
        let codes = content.procedures.iter().map(|p| &p.code);
        let codes = codes.flat_map(|code| [code.value.as_str(), &code.meaning]);
        any(&self.when_modality, modalities.chain([content.modality.as_str()]))
            && any(&self.when_procedure, codes)
    }

    /// What to ask the source for. `None`: there is no patient number that can be asked for, since
    /// wildcards would find others.
    pub fn search(&self, subject: Subject, now: Timestamp) -> Option<Search> {
        let id = &subject.patient.id;
        if id.is_empty() || id.contains(['*', '?', '\\']) {
            return None;
        }
        let day = |at: Timestamp| {
            let at = jiff::Timestamp::from_millisecond(at.0).ok()?;
            Some(at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d").to_string())
        };
        let age = i64::try_from(self.age_max.as_millis()).unwrap_or(i64::MAX);
        let from = day(Timestamp(now.0.saturating_sub(age)))?;
        // The source's day may have begun already.
        let to = day(now + Duration::from_secs(24 * 3600))?;
        let modality = match &self.modality {
            Likeness::Same if !subject.modality.is_empty() => Some(subject.modality.clone()),
            Likeness::OneOf(one) if one.len() == 1 => one.first().cloned(),
            _ => None,
        };
        Some(Search { subject, from, to, modality })
    }

    fn wants(&self, subject: &Subject, search: &Search, c: &Candidate) -> bool {
        let day = c.at.get(..8).unwrap_or_default();
        let birth = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
        let has = |of: &BTreeSet<String>, word: &str| of.iter().any(|m| like(m, word));
        !subject.studies.contains(&c.study)
            && c.patient.id == subject.patient.id
            && c.patient.agrees(&subject.patient) != Agreement::Different
            && birth(&c.birth_date, &subject.birth_date)
            && (search.from.as_str()..=search.to.as_str()).contains(&day)
            && self.modality.fits(&subject.modality, |m| has(&c.modalities, m))
            && self.body_part.fits(&subject.body_part, |b| has(&c.body_parts, b))
    }
}

/// The studies to fetch, best first.
pub fn choose(rule: &PriorRule, search: &Search, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let subject = &search.subject;
    candidates.retain(|c| rule.wants(subject, search, c));
    let has = |of: &BTreeSet<String>, word: &str| {
        !word.is_empty() && of.iter().any(|own| like(own, word))
    };
    candidates.sort_by_key(|c| {
        let body_part = has(&c.body_parts, &subject.body_part);
        let modality = has(&c.modalities, &subject.modality);
        // The UID last, so that no two are equal.
        (Reverse(body_part), Reverse(modality), Reverse(c.at.clone()), c.study.clone())
    });
    candidates.dedup_by(|b, a| a.study == b.study);
    let mut chosen = Vec::new();
    let (mut studies, mut images) = (0, 0u32);
    for candidate in candidates {
        // One of which nobody says how large it is counts as small: its images are counted later.
        let more = images.saturating_add(candidate.images.unwrap_or(1));
        if studies == rule.studies_max || more > rule.images_max {
            continue;
        }
        (studies, images) = (studies + 1, more);
        if !candidate.known {
            chosen.push(candidate);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::orders::order::Procedure;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn rule() -> PriorRule {
        PriorRule {
            name: "ct".into(),
            source: "PACS".into(),
            when_modality: vec![],
            when_procedure: vec![],
            modality: Likeness::Same,
            body_part: Likeness::Any,
            age_max: Duration::from_secs(3 * 365 * 86_400),
            studies_max: 2,
            images_max: 1000,
            urgency: Urgency::Bulk,
            reports: true,
            wait: Duration::from_secs(3600),
        }
    }

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn subject() -> Subject {
        Subject {
            patient: Identifier::of("4711", "SITE"),
            birth_date: "19700101".into(),
            modality: "CT".into(),
            body_part: "HEAD".into(),
            studies: set(&["1.9"]),
        }
    }

    fn candidate(study: &str, at: &str, modality: &str, body_part: &str) -> Candidate {
        Candidate {
            study: study.into(),
            at: at.into(),
            patient: Identifier::bare("4711"),
            birth_date: String::new(),
            modalities: set(&[modality, "SR"]),
            body_parts: set(&[body_part]),
            images: Some(100),
            known: false,
        }
    }

    fn chosen(rule: &PriorRule, candidates: Vec<Candidate>) -> Vec<String> {
        let search = rule.search(subject(), NOW).unwrap();
        choose(rule, &search, candidates).into_iter().map(|c| c.study).collect()
    }

    #[test]
    fn the_same_body_part_goes_before_the_newest_and_other_modalities_are_left_out() {
        let all = vec![
            candidate("1.1", "20260101", "CT", "CHEST"),
            candidate("1.2", "20250101", "CT", "head"),
            candidate("1.3", "20260601", "MR", "HEAD"),
            candidate("1.4", "20251231", "CT", "CHEST"),
            candidate("1.9", "20261118", "CT", "HEAD"),
        ];
        assert_eq!(chosen(&rule(), all.clone()), ["1.2", "1.1"]);
        let heads = PriorRule { body_part: Likeness::Same, ..rule() };
        assert_eq!(chosen(&heads, all.clone()), ["1.2"]);
        let any = PriorRule { modality: Likeness::Any, studies_max: 9, ..rule() };
        assert_eq!(chosen(&any, all.clone()), ["1.2", "1.3", "1.1", "1.4"]);
        let mr = PriorRule { modality: Likeness::OneOf(vec!["MR".into()]), ..rule() };
        assert_eq!(chosen(&mr, all), ["1.3"]);
    }

    #[test]
    fn too_old_too_large_and_another_patients_studies_are_left_out() {
        let good = candidate("1.1", "20260101101500", "CT", "HEAD");
        let of = |study: &str| Candidate { study: study.into(), ..good.clone() };
        let patient = |study, id: Identifier| Candidate { patient: id, ..of(study) };
        let all = vec![
            Candidate { at: "20200101".into(), ..of("1.2") },
            Candidate { at: String::new(), ..of("1.3") },
            Candidate { at: "20400101".into(), ..of("1.4") },
            Candidate { images: Some(5000), ..of("1.5") },
            Candidate { birth_date: "19800101".into(), ..of("1.6") },
            patient("1.7", Identifier::of("4711", "OTHER")),
            patient("1.8", Identifier::bare("47110")),
            good.clone(),
        ];
        assert_eq!(chosen(&rule(), all), ["1.1"]);
    }

    #[test]
    fn what_is_there_already_counts_and_is_not_fetched() {
        let known = Candidate { known: true, ..candidate("1.1", "20260601", "CT", "HEAD") };
        let all = vec![
            known,
            candidate("1.2", "20260501", "CT", "HEAD"),
            candidate("1.3", "20260401", "CT", "HEAD"),
        ];
        assert_eq!(chosen(&rule(), all), ["1.2"]);
    }

    #[test]
    fn a_rule_is_for_the_orders_that_it_names_and_never_asks_with_wildcards() {
        let pattern = |text| vec![Pattern::new(text).unwrap()];
        let heads =
            PriorRule { when_modality: pattern("CT"), when_procedure: pattern("*head*"), ..rule() };
        let mut content = Content { modality: "CT".into(), ..Content::default() };
        assert!(rule().applies(&content));
        assert!(!heads.applies(&content));
        let mut procedure = Procedure::default();
        procedure.code.meaning = "CT head plain".into();
        content.procedures.push(procedure);
        assert!(heads.applies(&content));
        content.modality = "MR".into();
        assert!(!heads.applies(&content));
        for id in ["", "*", "4?", "a\\b"] {
            let subject = Subject { patient: Identifier::bare(id), ..subject() };
            assert_eq!(rule().search(subject, NOW), None, "{id}");
        }
        let search = rule().search(subject(), NOW).unwrap();
        assert_eq!((&*search.to, search.modality.as_deref()), ("20261119", Some("CT")));
    }

    proptest! {
        #[test]
        fn the_choice_keeps_its_limits_and_does_not_depend_on_the_order_of_what_is_told(
            told in proptest::collection::vec((0u8..9, 0u8..4, 0u8..3, 0u32..600, any::<bool>()), 0..20),
            studies_max in 0usize..4,
        ) {
            let rule = PriorRule { studies_max, modality: Likeness::Any, ..rule() };
            let mut all: Vec<Candidate> = told
                .into_iter()
                .map(|(uid, year, part, images, known)| Candidate {
                    images: Some(images),
                    known,
                    ..candidate(
                        &format!("1.{uid}"),
                        &format!("202{}0101", year + 3),
                        ["CT", "MR"][usize::from(year % 2)],
                        ["HEAD", "CHEST", ""][usize::from(part)],
                    )
                })
                .collect();
            // One study is told once.
            all.sort_by(|a, b| a.study.cmp(&b.study));
            all.dedup_by(|b, a| a.study == b.study);
            let first = chosen(&rule, all.clone());
            prop_assert!(first.len() <= studies_max);
            prop_assert!(!first.contains(&"1.9".to_owned()));
            let of = |study: &String| all.iter().find(|c| c.study == *study).unwrap();
            let images: u32 = first.iter().filter_map(|s| of(s).images).sum();
            prop_assert!(images <= rule.images_max);
            prop_assert!(first.iter().all(|s| !of(s).known));
            all.reverse();
            prop_assert_eq!(chosen(&rule, all), first);
        }
    }
}
