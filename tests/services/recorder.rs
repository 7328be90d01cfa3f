//! An implementation of the services that remembers, as small as a test allows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dicom_object::InMemDicomObject;
use hikyaku::dicom::availability::Notice;
use hikyaku::dicom::commitment::{Asked, Outcome};
use hikyaku::dicom::fault::Fault;
use hikyaku::dicom::performed::{StepStatus, judge_end};
use hikyaku::intake::Services;
use hikyaku::intake::services::{
    Caller, Matches, NewStep, Reply, ReportError, Reporter, StepChange, Unwanted,
};

/// What a query finds.
#[derive(Clone, Default)]
pub(crate) enum Worklist {
    /// These.
    #[default]
    Nothing,
    These(Vec<InMemDicomObject>),
    /// One after the other without end, each after a pause.
    Endless(InMemDicomObject, Duration),
    /// One, and then whoever finds them is gone.
    Broken(InMemDicomObject),
}

/// When the outcome of a commitment is reported on the association it was asked on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reporting {
    Never,
    /// Before the call returns its *yes*: it must not overtake that.
    AtOnce,
    After(Duration),
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) steps: BTreeMap<String, (InMemDicomObject, Option<StepStatus>)>,
    pub(crate) changes: Vec<StepChange>,
    pub(crate) asked: Vec<(Caller, Asked)>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) queries: Vec<InMemDicomObject>,
    pub(crate) reports: Vec<Result<(), ReportError>>,
    pub(crate) unwanted: bool,
}

pub(crate) struct Recorder {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) worklist: Worklist,
    pub(crate) reporting: Reporting,
    /// What is not to be had.
    pub(crate) lacking: Vec<String>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            seen: Arc::default(),
            worklist: Worklist::default(),
            reporting: Reporting::Never,
            lacking: vec![],
        }
    }

    /// The outcome for what was asked.
    pub(crate) fn outcome(asked: &Asked, lacking: &[String]) -> Outcome {
        let here = |i: &hikyaku::dicom::commitment::Reference| !lacking.contains(&i.instance);
        let (committed, failed): (Vec<_>, Vec<_>) = asked.instances.iter().cloned().partition(here);
        Outcome {
            transaction: asked.transaction.clone(),
            committed,
            failed: failed.into_iter().map(|r| (r, 0x0112)).collect(),
            retrieve_ae: "HIKYAKU".parse().ok(),
        }
    }
}

impl Services for Recorder {
    fn create_step(&self, _: Caller, step: NewStep) -> Reply<'_, ()> {
        Box::pin(async move {
            let mut seen = self.seen.lock().unwrap();
            if seen.steps.contains_key(&step.instance) {
                return Err(Fault::duplicate());
            }
            seen.steps.insert(step.instance, (step.attributes, None));
            Ok(())
        })
    }

    fn set_step(&self, _: Caller, change: StepChange) -> Reply<'_, ()> {
        Box::pin(async move {
            let mut seen = self.seen.lock().unwrap();
            let Some((step, status)) = seen.steps.get_mut(&change.instance) else {
                return Err(Fault::no_such_instance());
            };
            if status.is_some_and(StepStatus::is_final) {
                return Err(Fault::step_is_final());
            }
            let mut whole = step.clone();
            for attribute in change.attributes.clone() {
                whole.put(attribute);
            }
            if let Some(end) = change.status {
                judge_end(&whole, end)?;
            }
            (*step, *status) = (whole, change.status.or(*status));
            seen.changes.push(change);
            Ok(())
        })
    }

    fn commit(&self, caller: Caller, asked: Asked, reporter: Reporter) -> Reply<'_, ()> {
        let outcome = Self::outcome(&asked, &self.lacking);
        let (seen, reporting) = (self.seen.clone(), self.reporting);
        Box::pin(async move {
            seen.lock().unwrap().asked.push((caller, asked));
            let report = async move {
                if let Reporting::After(wait) = reporting {
                    tokio::time::sleep(wait).await;
                }
                let told = reporter.report(outcome).await;
                seen.lock().unwrap().reports.push(told);
            };
            if reporting != Reporting::Never {
                tokio::spawn(report);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        })
    }

    fn announce(&self, _: Caller, notice: Notice) -> Reply<'_, ()> {
        Box::pin(async move {
            self.seen.lock().unwrap().notices.push(notice);
            Ok(())
        })
    }

    fn worklist(&self, _: Caller, query: InMemDicomObject) -> Reply<'_, Matches> {
        self.seen.lock().unwrap().queries.push(query);
        let (seen, worklist) = (self.seen.clone(), self.worklist.clone());
        Box::pin(async move {
            let (finder, matches) = Matches::channel(4);
            match worklist {
                Worklist::Nothing => return Ok(Matches::all(vec![])),
                Worklist::These(these) => return Ok(Matches::all(these)),
                Worklist::Endless(one, pace) => {
                    tokio::spawn(async move {
                        while finder.give(one.clone()).await != Err(Unwanted) {
                            tokio::time::sleep(pace).await;
                        }
                        seen.lock().unwrap().unwanted = true;
                    });
                }
                Worklist::Broken(one) => {
                    tokio::spawn(async move { finder.give(one).await });
                }
            }
            Ok(matches)
        })
    }
}
