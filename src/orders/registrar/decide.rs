//! A person decides about images: those that will not come, and withdrawn ones that are expected all
//! the same.
//!
//! A decision names each image, so that what evidence names later and nobody has decided about is a
//! gap. It stays in force whoever names its images again; an image that comes after all counts.

use super::keys::{Number, entry, evidence_key};
use super::record::{CaseId, Dossier, StudyRef};
use super::{DeskError, Registrar};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::orders::evidence::{Reference, Said, SeriesList, Statement};
use crate::orders::tally::Tally;

/// Most images of one decision: it is one entry.
pub const DECIDED_MAX: usize = 5000;
/// Longest reason, in bytes.
const REASON_MAX: usize = 1024;

/// What a person decides about images of a study.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Study Instance UID.
    pub study: String,
    /// SOP Instance UIDs; none: all that can be meant.
    pub images: Vec<String>,
    /// True: they are expected, whatever withdrew them. False: they will not come.
    pub expect: bool,
    /// Why.
    pub reason: String,
    /// The system user.
    pub by: String,
}

/// The images that a decision is about.
fn meant(decision: &Decision, tally: &Tally) -> Result<Vec<String>, String> {
    let all: Vec<String> = match decision.expect {
        true => tally.withdrawn().map(str::to_owned).collect(),
        false => tally.missing().map(|m| m.sop.to_owned()).collect(),
    };
    let state = if decision.expect { "withdrawn" } else { "missing" };
    let named = match decision.images.is_empty() {
        true => all,
        false => {
            let not = |sop: &&String| all.binary_search(sop).is_err();
            if let Some(other) = decision.images.iter().find(not) {
                return Err(format!("{other} is not among the images that are {state}"));
            }
            decision.images.clone()
        }
    };
    match named.len() {
        0 => Err(format!("no image of this study is {state} by name")),
        n if n > DECIDED_MAX => Err(format!("{n} images: name at most {DECIDED_MAX} at a time")),
        _ => Ok(named),
    }
}

impl Registrar {
    /// Takes a decision; how the study stands then, in words.
    pub(super) async fn decide(
        &mut self,
        decision: Decision,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let refused = |words: String| Ok(Err(DeskError::Refused(words)));
        if decision.reason.len() > REASON_MAX {
            return refused(format!("a reason has at most {REASON_MAX} bytes"));
        }
        let term = Number::Study.of_study(&self.config.node, &decision.study);
        let found: Vec<Dossier> = self.store.with(&term, b's', 1).await?;
        let Some(id) = found.first().map(Dossier::study) else {
            let study = &decision.study;
            return refused(format!("nothing of study {study} came to this node first"));
        };
        let heard = self.hear_at(now);
        let open = self.study(&id, None).await?.expect("just found");
        let images = match meant(&decision, &open.tally) {
            Ok(images) => images,
            Err(words) => return refused(words),
        };
        self.enter_decision(&id, &decision, &images, heard);
        self.judge_study(&id, now).await?;
        let words = self.roll_words(&CaseId::Study(id));
        Ok(Ok(format!("{} images; {words}", images.len())))
    }

    fn enter_decision(
        &mut self,
        id: &StudyRef,
        decision: &Decision,
        images: &[String],
        at: Timestamp,
    ) {
        let reference = |sop: &String| Reference { sop: sop.clone(), class: String::new() };
        let instances = images.iter().map(reference).collect();
        let lists = vec![SeriesList { series: String::new(), instances }];
        let Decision { expect, reason, by, .. } = decision.clone();
        let said = Said::Decided { expect, reason, lists };
        let statement = Statement::new(&format!("decision:{by}-{}", at.0), &by, at, said);
        let open = self.cases.open.get_mut(id).expect("just read");
        open.evidence.hear(statement.clone());
        open.tally.hear(&statement);
        let key = evidence_key(id, &statement, open.dossier.statements);
        open.dossier.statements += 1;
        self.store.put(entry(key, &statement, Vec::new()));
        self.changed(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::evidence::Evidence;

    fn tally() -> Tally {
        let instances = ["1.1", "1.2"].map(|sop| Reference { sop: sop.into(), class: "".into() });
        let lists = vec![SeriesList { series: "1".into(), instances: instances.to_vec() }];
        let mut evidence = Evidence::default();
        evidence.hear(Statement::new("c", "CT1", Timestamp(1), Said::Commitment { lists }));
        Tally::of(&evidence, [])
    }

    fn decision(images: &[&str], expect: bool) -> Decision {
        Decision {
            study: "1".into(),
            images: images.iter().map(|i| (*i).to_owned()).collect(),
            expect,
            reason: String::new(),
            by: "op".into(),
        }
    }

    #[test]
    fn a_decision_names_each_image_and_none_that_is_not_missing() {
        let tally = tally();
        assert_eq!(meant(&decision(&[], false), &tally).unwrap(), ["1.1", "1.2"]);
        assert_eq!(meant(&decision(&["1.2"], false), &tally).unwrap(), ["1.2"]);
        let typo = meant(&decision(&["1.2", "1.3"], false), &tally).unwrap_err();
        assert!(typo.starts_with("1.3 is not"), "{typo}");
        assert!(meant(&decision(&[], true), &tally).is_err(), "none is withdrawn");
    }
}
