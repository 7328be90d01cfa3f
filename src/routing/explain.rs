//! Why cargo goes where it goes: the table's verdict on a subject, rule by rule, in words.
//!
//! Found values of attributes that may identify the patient are masked unless the caller asks
//! for them; wanted values come from the configuration and are always shown.

use std::fmt;

use serde::Serialize;

use crate::cargo::Assignment;

use super::{Condition, Rule, Subject, Union};

/// Whether an explanation may show values that identify the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patient {
    /// They are replaced by a word that says so.
    Masked,
    /// The caller has asked to see them.
    Shown,
}

/// What a table says of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Every rule, in order.
    pub rules: Vec<Verdict>,
    /// The outcome.
    #[serde(serialize_with = "assignments")]
    pub assignments: Vec<Assignment>,
}

/// What becomes of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its name.
    pub rule: String,
    /// Whether it applies, and if not, why.
    #[serde(flatten)]
    pub why: Why,
}

/// Why a rule does or does not apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Why {
    /// All its conditions hold.
    Applies,
    /// These conditions do not hold.
    Differs {
        /// All of them, not only the first.
        mismatches: Vec<Mismatch>,
    },
    /// An earlier rule applies and says `last`.
    NotReached {
        /// That rule.
        after: String,
    },
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// What was looked at.
    pub field: &'static str,
    /// The patterns, of which none matches.
    pub wanted: Vec<String>,
    /// What is there.
    #[serde(flatten)]
    pub found: Found,
}

/// What a subject has in a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", content = "value", rename_all = "snake_case")]
pub enum Found {
    /// A value.
    Value(String),
    /// A value that may identify the patient.
    Masked,
    /// Nothing, or an empty value.
    Absent,
}

fn assignments<S: serde::Serializer>(all: &[Assignment], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        destination: &'a str,
        urgency: &'static str,
        hold: Option<&'a str>,
    }
    serializer.collect_seq(all.iter().map(|one| Shown {
        destination: one.destination.as_str(),
        urgency: one.urgency.as_str(),
        hold: one.hold.as_deref(),
    }))
}

pub(super) fn explain(rules: &[Rule], subject: &Subject<'_>, patient: Patient) -> Explanation {
    let mut union = Union::default();
    let mut ended_by: Option<&str> = None;
    let mut verdicts = Vec::with_capacity(rules.len());
    for rule in rules {
        let why = match ended_by {
            Some(name) => Why::NotReached { after: name.into() },
            None => {
                let differs = |condition| mismatch(condition, subject, patient);
                let mismatches: Vec<_> = rule.when.iter().filter_map(differs).collect();
                if mismatches.is_empty() { Why::Applies } else { Why::Differs { mismatches } }
            }
        };
        if why == Why::Applies {
            union.add(rule, subject.envelope.urgency);
            ended_by = rule.last.then_some(&rule.name);
        }
        verdicts.push(Verdict { rule: rule.name.clone(), why });
    }
    Explanation { rules: verdicts, assignments: union.assignments() }
}

fn mismatch(condition: &Condition, subject: &Subject<'_>, patient: Patient) -> Option<Mismatch> {
    let value = condition.field.value(subject);
    if condition.holds_for(value.as_deref()) {
        return None;
    }
    let found = match value {
        None => Found::Absent,
        Some(value) if value.trim().is_empty() => Found::Absent,
        Some(_) if patient == Patient::Masked && condition.field.is_identifying() => Found::Masked,
        Some(value) => Found::Value(crate::cargo::peer_text(&value)),
    };
    let wanted = condition.patterns.iter().map(|pattern| pattern.as_str().into()).collect();
    Some(Mismatch { field: condition.field.name(), wanted, found })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for verdict in &self.rules {
            writeln!(f, "{verdict}")?;
        }
        if self.assignments.is_empty() {
            let applies = self.rules.iter().any(|verdict| verdict.why == Why::Applies);
            let why = if applies { "no destination takes images" } else { "no rule matches" };
            return writeln!(f, "{why}: kept as unrouted");
        }
        for one in &self.assignments {
            write!(f, "goes to {} as {}", one.destination, one.urgency)?;
            match &one.hold {
                Some(reason) => writeln!(f, ", held until a person releases it: {reason}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule '{}' ", self.rule)?;
        match &self.why {
            Why::Applies => f.write_str("applies"),
            Why::NotReached { after } => write!(f, "is not reached: '{after}' is the last"),
            Why::Differs { mismatches } => {
                f.write_str("does not apply: ")?;
                for (i, mismatch) in mismatches.iter().enumerate() {
                    write!(f, "{}{mismatch}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is ", self.field)?;
        match &self.found {
            Found::Value(value) => write!(f, "\"{value}\"")?,
            Found::Masked => f.write_str("another (not shown: it may identify the patient)")?,
            Found::Absent => f.write_str("absent")?,
        }
        let wanted: Vec<_> = self.wanted.iter().map(|w| format!("\"{w}\"")).collect();
        write!(f, ", wanted {}", wanted.join(" or "))
    }
}
