//! Which destinations a piece of cargo has. Pure: a table and a subject in, assignments out.
//!
//! Every rule whose conditions all hold applies, and their destinations are united; the order of
//! the rules makes no difference unless one says `last`. Cargo that no rule matches gets no
//! assignment: custody keeps it and shows it as unrouted, and nothing here can drop it.
//!
//! Limits: at most [`RULES_MAX`] rules, [`PATTERNS_MAX`] patterns per condition, patterns of at
//! most [`PATTERN_LENGTH_MAX`] bytes. Matching takes at most (pattern length × value length)
//! steps and never recurses, whatever a peer puts into a header.

mod condition;
mod explain;
mod times;

use std::collections::{BTreeMap, BTreeSet};

use dicom_core::Tag;

use crate::cargo::{Assignment, CargoKind, DestinationName, Envelope, Urgency};

pub use condition::{Attribute, Condition, Field, FieldError, Pattern, PatternError};
pub use explain::{Explanation, Found, Mismatch, Patient, Verdict, Why};
pub use times::Times;

/// Most rules of a table.
pub const RULES_MAX: usize = 1000;

/// Most patterns of one condition.
pub const PATTERNS_MAX: usize = 256;

/// Longest pattern in bytes.
pub const PATTERN_LENGTH_MAX: usize = 256;

/// What a table is asked about: the envelope, and the header behind it.
///
/// `attribute` answers with the value of a top-level element by its keyword (PS3.6 6), decoded,
/// without padding, several values separated by a backslash; `None` when the element is absent.
/// It is asked only for the keywords that [`Table::attributes`] names.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What is known without the header.
    pub envelope: &'a Envelope,
    /// The header, by keyword.
    pub attribute: &'a dyn Fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("kind", &self.envelope.kind).finish_non_exhaustive()
    }
}

/// One `[[route]]`: where cargo goes for which all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rule {
    /// What the person who wrote it calls it; unique in a table.
    pub name: String,
    /// All must hold. None: the rule applies to everything.
    pub when: Vec<Condition>,
    /// At least one.
    pub to: Vec<DestinationName>,
    /// How soon; `None` keeps the urgency with which the cargo came.
    pub urgency: Option<Urgency>,
    /// Why what this rule sends must wait for a person first.
    pub hold: Option<String>,
    /// No rule after this one is looked at when this one applies.
    pub last: bool,
    /// What this rule sends is to be corrected as its order says.
    pub correct: bool,
    /// How long is waited for what it takes.
    #[serde(skip)]
    pub times: Times,
}

impl Rule {
    fn applies(&self, subject: &Subject<'_>) -> bool {
        self.when.iter().all(|condition| condition.holds(subject))
    }
}

/// All rules of a node, in the order of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Table {
    rules: Vec<Rule>,
    /// Destinations that take messages: images go elsewhere, whatever a rule says.
    #[serde(skip)]
    no_images: BTreeSet<DestinationName>,
}

impl Table {
    /// A table of checked rules. `config` sees to unique names and known destinations.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, no_images: BTreeSet::new() }
    }

    /// The same, with destinations to which no image goes although rules name them, so that one
    /// rule can lead images to an archive and their orders to its RIS.
    #[must_use]
    pub fn without_images_for(mut self, destinations: BTreeSet<DestinationName>) -> Self {
        self.no_images = destinations;
        self
    }

    fn takes(&self, assignment: &Assignment, kind: CargoKind) -> bool {
        kind != CargoKind::Image || !self.no_images.contains(&assignment.destination)
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Every destination that some rule names.
    pub fn destinations(&self) -> BTreeSet<&DestinationName> {
        self.rules.iter().flat_map(|rule| &rule.to).collect()
    }

    /// The header elements that the rules ask for: keyword and tag. What reads headers need keep
    /// no others.
    pub fn attributes(&self) -> BTreeMap<&'static str, Tag> {
        let conditions = self.rules.iter().flat_map(|rule| &rule.when);
        conditions
            .filter_map(|condition| match &condition.field {
                Field::Attribute(attribute) => Some((attribute.keyword(), attribute.tag())),
                _ => None,
            })
            .collect()
    }

    /// Where the subject goes, sorted by destination; empty: unrouted.
    pub fn assign(&self, subject: &Subject<'_>) -> Vec<Assignment> {
        let mut union = Union::default();
        for rule in &self.rules {
            if rule.applies(subject) {
                union.add(rule, subject.envelope.urgency);
                if rule.last {
                    break;
                }
            }
        }
        let mut to = union.assignments();
        to.retain(|assignment| self.takes(assignment, subject.envelope.kind));
        to
    }

    /// The first rule that applies to the subject and names one of these destinations.
    pub fn first_to(
        &self,
        subject: &Subject<'_>,
        destinations: &BTreeSet<DestinationName>,
    ) -> Option<&Rule> {
        for rule in self.rules.iter().filter(|rule| rule.applies(subject)) {
            if rule.to.iter().any(|to| destinations.contains(to)) {
                return Some(rule);
            }
            if rule.last {
                return None;
            }
        }
        None
    }

    /// Whether any rule wants images to be corrected as their orders say.
    pub fn corrects_any(&self) -> bool {
        self.rules.iter().any(|rule| rule.correct)
    }

    /// Whether a rule that applies wants the subject to be corrected as its order says.
    pub fn corrects(&self, subject: &Subject<'_>) -> bool {
        for rule in self.rules.iter().filter(|rule| rule.applies(subject)) {
            if rule.correct || rule.last {
                return rule.correct;
            }
        }
        false
    }

    /// How long is waited for the subject, by all rules that apply.
    pub fn times(&self, subject: &Subject<'_>) -> Times {
        let mut times = Times::default();
        for rule in self.rules.iter().filter(|rule| rule.applies(subject)) {
            times = times.longest(rule.times);
            if rule.last {
                break;
            }
        }
        times
    }

    /// As [`assign`](Self::assign), and says of every rule whether it applies and why not.
    pub fn explain(&self, subject: &Subject<'_>, patient: Patient) -> Explanation {
        let mut explanation = explain::explain(&self.rules, subject, patient);
        let kind = subject.envelope.kind;
        explanation.assignments.retain(|assignment| self.takes(assignment, kind));
        explanation
    }
}

/// What several rules say about each destination: the higher urgency wins, and what one rule
/// holds for a person no other rule lets go.
#[derive(Debug, Default)]
struct Union<'a>(BTreeMap<&'a DestinationName, (Urgency, BTreeSet<&'a str>)>);

impl<'a> Union<'a> {
    fn add(&mut self, rule: &'a Rule, came_with: Urgency) {
        let urgency = rule.urgency.unwrap_or(came_with);
        for destination in &rule.to {
            let (highest, holds) = self.0.entry(destination).or_insert((urgency, BTreeSet::new()));
            *highest = urgency.min(*highest);
            holds.extend(rule.hold.as_deref());
        }
    }

    fn assignments(self) -> Vec<Assignment> {
        let one = |(destination, (urgency, holds)): (&DestinationName, (_, BTreeSet<&str>))| {
            let hold = holds.into_iter().collect::<Vec<_>>().join("; ");
            Assignment {
                destination: destination.clone(),
                urgency,
                hold: (!hold.is_empty()).then_some(hold),
            }
        };
        self.0.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
