//! The verdict on one study or order at a time: what is so, who says it, why, and what next.
//!
//! How far the images are is one of these:
//!
//! ```text
//!            images or evidence             all named are here
//!   Due ───────────────────▶ Arriving ────────────────────────▶ Complete
//!    │ time is over             │ │ settled, and some lack         ▲
//!    ▼                          │ └────────▶ Short ────────────────┤ the rest comes, or is withdrawn
//!   Overdue                     │ quiet, nothing says how many     │
//!                               └────────▶ PresumedComplete ───────┘ evidence comes
//! ```
//!
//! (and `Cancelled` or `Discontinued` when nothing is expected any more). It is a function of what
//! is known, not a state machine: any edge back happens when stronger evidence comes, and a study
//! that was told to be complete before is then found [`What::Reopened`].
//!
//! - *Complete* needs evidence of grade 1 to 5, every named instance here, and no procedure step
//!   in progress. Where all of the evidence is a snapshot (grades 3 and 5) it also needs quiet.
//!   Original images that nobody names leave a quiet study presumed complete only: some part of
//!   it was performed of which nothing is told.
//! - *Short* needs the settling time after the last image and after the last word that names what
//!   lacks; until then images are arriving. The missing list is there from the first moment.
//! - Header heuristics (grade 6) make a quiet study short only where it has original images that
//!   nothing stronger names; otherwise they stay a warning beside it. They are computed for quiet studies only.
//!
//! Judging costs O(missing + statements), for quiet studies O(n).

use std::time::Duration;

use super::evidence::{Grade, Said, StepStatus, WRONG_WORKLIST_ENTRY};
use super::identifier::Agreement;
use super::matching::{By, Match};
use super::numbering::Gap;
use super::order::{Order, OrderState};
use super::tally::{Counts, Spoken, Tally};
use super::verdict::{Finding, Ground, Missing, Settled, Verdict, What};
use super::words::{Sentence, Word};
use crate::clock::Timestamp;

/// The times and choices of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// After the last image and the last word on it, what lacks is no longer *arriving*. It must
    /// leave room below five minutes for the notice; default one minute.
    pub settle: Duration,
    /// After the last image nothing more is expected unless evidence says so; default ten
    /// minutes.
    pub quiet: Duration,
    /// After its scheduled time an order without images is overdue; default one hour.
    pub overdue: Duration,
    /// Whether this site has orders, so that images without one are a finding; default true.
    pub orders_expected: bool,
    /// Whether images wait for an order (`hold = "until-matched"`); default false.
    pub hold_until_matched: bool,
    /// Whether a patient mismatch holds the images; default true.
    pub hold_patient_mismatch: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(60),
            quiet: Duration::from_secs(600),
            overdue: Duration::from_secs(3600),
            orders_expected: true,
            hold_until_matched: false,
            hold_patient_mismatch: true,
        }
    }
}

/// What there is to judge. A study without a tally has an empty one; an order without a study is
/// judged with an empty tally too.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The order, where one is known.
    pub order: Option<&'a Order>,
    /// How the study was matched; absent for an order without a study.
    pub matched: Option<&'a Match>,
    /// Evidence and custody.
    pub tally: &'a Tally,
    /// That it was told to be complete before.
    pub settled: Option<Settled>,
}

/// Judges a case.
pub fn judge(case: &Case<'_>, rules: &Rules, now: Timestamp) -> Verdict {
    let facts = Facts::new(case, rules, now);
    let (progress, again_at) = facts.progress();
    // Whatever else is so: when it is quiet the headers speak.
    let again_at = facts.next(&[again_at, facts.quiet_at]);
    let mut findings = vec![progress];
    findings.extend(facts.concerns(&findings[0]));
    findings.sort_by_key(|f| f.what);
    let linked = matches!(case.matched, Some(Match::Order { by: By::Person, .. }));
    let hold = findings.iter().map(|f| f.what).find(|what| match what {
        // A person who has linked the two has seen that they differ.
        What::PatientMismatch => rules.hold_patient_mismatch && !linked,
        What::PatientMixed => rules.hold_patient_mismatch && !linked,
        What::WrongWorklistEntry => true,
        What::NoOrder => rules.hold_until_matched,
        _ => false,
    });
    let counts = facts.counts;
    Verdict {
        findings,
        held: counts.held(),
        arrived: counts.arrived,
        expected: facts.expected(),
        frames: counts.frames,
        withdrawn: counts.withdrawn,
        missing: case.tally.missing().map(Missing::from).collect(),
        unnamed: facts.unnamed,
        gaps: facts.gaps,
        hold,
        again_at,
    }
}

/// What a verdict is made from.
struct Facts<'a> {
    case: &'a Case<'a>,
    rules: &'a Rules,
    now: Timestamp,
    counts: Counts,
    unnamed: u32,
    /// After this, the study is quiet; `None` while nothing came.
    quiet_at: Option<Timestamp>,
    gaps: Vec<Gap>,
    /// Statements of grade 1 to 5 that name something or count.
    naming: Vec<&'a Spoken>,
    /// Procedure steps.
    steps: Vec<(&'a Spoken, StepStatus, &'a str)>,
}

impl<'a> Facts<'a> {
    fn new(case: &'a Case<'a>, rules: &'a Rules, now: Timestamp) -> Self {
        let tally = case.tally;
        let quiet_at = tally.last_arrival().map(|at| at + rules.quiet);
        let quiet = quiet_at.is_some_and(|at| at <= now);
        let names =
            |s: &&Spoken| s.statement.grade().is_some() && (s.names > 0 || s.count.is_some());
        let step = |s: &'a Spoken| match &s.statement.said {
            Said::Performed { status, reason, .. } => Some((s, *status, reason.as_str())),
            _ => None,
        };
        Self {
            case,
            rules,
            now,
            counts: tally.counts(),
            unnamed: tally.unnamed(),
            quiet_at,
            gaps: if quiet { tally.gaps() } else { Vec::new() },
            naming: tally.spoken().filter(names).collect(),
            steps: tally.spoken().filter_map(step).collect(),
        }
    }

    fn expected(&self) -> Option<u32> {
        let named = self.counts.named();
        (!self.naming.is_empty()).then(|| named.saturating_add(self.unnamed))
    }

    fn is_quiet(&self) -> bool {
        self.quiet_at.is_some_and(|at| at <= self.now)
    }

    fn in_progress(&self) -> bool {
        self.steps.iter().any(|(_, status, _)| *status == StepStatus::InProgress)
    }

    /// When something next changes by itself, of these times.
    fn next(&self, times: &[Option<Timestamp>]) -> Option<Timestamp> {
        times.iter().flatten().copied().filter(|t| *t > self.now).min()
    }

    fn grounds(&self, which: impl Fn(&Spoken) -> bool) -> Vec<Ground> {
        self.naming.iter().filter(|s| which(s)).filter_map(|s| Ground::of(s)).collect()
    }

    /// The one finding that tells how far the images are, and when it could change by itself.
    fn progress(&self) -> (Finding, Option<Timestamp>) {
        if self.counts.missing + self.unnamed > 0 {
            self.lacking()
        } else if !self.naming.is_empty() {
            self.all_named_here()
        } else if self.counts.held() > 0 {
            self.only_images()
        } else {
            self.nothing()
        }
    }

    fn arriving(&self) -> Finding {
        let (held, arrived) = (self.counts.held(), self.counts.arrived);
        let reason = match self.expected() {
            Some(expected) => Sentence::new(Word::ArrivingOf, &[&arrived, &expected]),
            None if self.in_progress() => Sentence::new(Word::StepInProgress, &[&held]),
            None => Sentence::new(Word::ArrivingUnknown, &[&held]),
        };
        Finding::new(What::Arriving, reason, Word::Wait).on(self.grounds(|_| true))
    }

    fn lacking(&self) -> (Finding, Option<Timestamp>) {
        // A step in progress may name what its modality has not sent yet.
        let patience = if self.in_progress() { self.rules.quiet } else { self.rules.settle };
        // An archive lists what it already has, and is asked again and again.
        let heard = |s: &&Spoken| match s.statement.grade() {
            Some(Grade::SourceQuery) => s.statement.at,
            _ => s.statement.last_at,
        };
        let spoke = self.naming.iter().map(heard).max();
        let last = spoke.max(self.case.tally.last_arrival());
        let until = last.unwrap_or_default() + patience;
        if self.now < until {
            return (self.arriving(), Some(until));
        }
        let (missing, unnamed) = (self.counts.missing, self.unnamed);
        let reason = if missing > 0 {
            Sentence::new(Word::ShortOf, &[&missing, &self.counts.named()])
        } else {
            Sentence::new(Word::ShortCount, &[&unnamed])
        };
        let strongest: Vec<(Grade, &str)> = {
            let mut by: Vec<_> = self.case.tally.missing().map(|m| (m.grade, m.by)).collect();
            by.sort_unstable();
            by.dedup();
            by
        };
        let sets = |s: &Spoken| match s.statement.grade() {
            Some(grade) if missing > 0 => {
                strongest.binary_search(&(grade, s.statement.id.as_str())).is_ok()
            }
            _ => s.count.is_some(),
        };
        let short = Finding::new(What::Short, reason, Word::AskSource);
        (short.on(self.grounds(sets)), None)
    }

    fn all_named_here(&self) -> (Finding, Option<Timestamp>) {
        let quiet = self.is_quiet();
        let wait = |facts: &Self| (facts.arriving(), facts.quiet_at);
        let presume = |reason| {
            let f = Finding::new(What::PresumedComplete, reason, Word::Wait);
            (f.on(self.grounds(|_| true)).graded(Grade::Quiet), None)
        };
        let nothing_came = self.counts.held() + self.counts.withdrawn == 0;
        if self.in_progress() {
            return if quiet { presume(Word::PresumedStep.into()) } else { wait(self) };
        }
        let is_snapshot = |s: &&Spoken| {
            matches!(s.statement.grade(), Some(Grade::Availability | Grade::SourceQuery))
        };
        let snapshot = self.naming.iter().all(is_snapshot);
        let extra = self.counts.extra_images;
        if (snapshot || extra > 0) && !quiet && !nothing_came {
            return wait(self);
        }
        if extra > 0 && !self.gaps.is_empty() {
            return self.by_headers();
        }
        if extra > 0 {
            return presume(Sentence::new(Word::PresumedBeyond, &[&extra]));
        }
        let named = self.counts.named();
        if self.counts.waived > 0 {
            let reason = Sentence::new(Word::CompleteDecided, &[&named, &self.counts.waived]);
            let mut by = self.grounds(|_| true);
            let decided =
                |s: &&Spoken| matches!(s.statement.said, Said::Decided { expect: false, .. });
            by.extend(self.case.tally.spoken().filter(decided).filter_map(Ground::of));
            return (Finding::new(What::Complete, reason, Word::Wait).on(by), None);
        }
        let reason = Sentence::new(Word::CompleteAll, &[&named]);
        let complete = Finding::new(What::Complete, reason, Word::Wait);
        (complete.on(self.grounds(|_| true)), None)
    }

    fn only_images(&self) -> (Finding, Option<Timestamp>) {
        if !self.is_quiet() {
            return (self.arriving(), self.quiet_at);
        }
        if !self.gaps.is_empty() {
            return self.by_headers();
        }
        let reason = Sentence::new(Word::PresumedQuiet, &[&self.rules.quiet.as_secs()]);
        let presumed = Finding::new(What::PresumedComplete, reason, Word::Wait);
        (presumed.graded(Grade::Quiet), None)
    }

    fn by_headers(&self) -> (Finding, Option<Timestamp>) {
        let reason = Sentence::new(Word::ShortNumbers, &[&self.gaps.len()]);
        let short = Finding::new(What::Short, reason, Word::LookAtGaps);
        (short.graded(Grade::Heuristic), None)
    }

    /// No image, and no statement that names one.
    fn nothing(&self) -> (Finding, Option<Timestamp>) {
        let ended = |what, word: Word| (Finding::new(what, word.into(), Word::Wait), None);
        let order = self.case.order;
        match order.map(|o| o.state) {
            Some(OrderState::Cancelled) => return ended(What::Cancelled, Word::OrderCancelled),
            Some(OrderState::Discontinued) => {
                return ended(What::Discontinued, Word::OrderDiscontinued);
            }
            _ => {}
        }
        let broken_off = |(_, status, _): &(_, _, _)| *status == StepStatus::Discontinued;
        if !self.steps.is_empty() && self.steps.iter().all(broken_off) {
            let steps = self.steps.iter().filter_map(|(s, ..)| Ground::of(s)).collect();
            let (finding, again) = ended(What::Discontinued, Word::StepsDiscontinued);
            return (finding.on(steps), again);
        }
        if self.counts.withdrawn > 0 {
            let reason = Sentence::new(Word::CompleteAll, &[&0]);
            return (Finding::new(What::Complete, reason, Word::Wait), None);
        }
        if self.in_progress() {
            let began = self.steps.iter().map(|(s, ..)| s.statement.last_at).max();
            return self.until_overdue(began.unwrap_or_default(), self.arriving());
        }
        let performed = order.filter(|o| o.state == OrderState::Performed).map(|o| o.changed_at);
        let times = [order.and_then(|o| o.content.due()), performed];
        let Some(scheduled) = times.into_iter().flatten().min() else {
            return ended(What::Due, Word::DueSometime);
        };
        let due = Sentence::new(Word::DueAt, &[&scheduled]);
        self.until_overdue(scheduled, Finding::new(What::Due, due, Word::Wait))
    }

    /// `before`, until images that were due at `from` are overdue.
    fn until_overdue(&self, from: Timestamp, before: Finding) -> (Finding, Option<Timestamp>) {
        let steps = self.steps.iter().filter_map(|(s, ..)| Ground::of(s)).collect();
        let over = from + self.rules.overdue;
        if over > self.now {
            return (before.on(steps), Some(over));
        }
        let reason = Sentence::new(Word::OverdueSince, &[&from]);
        (Finding::new(What::Overdue, reason, Word::CheckPerformed).on(steps), None)
    }

    /// What is to be said beside how far the images are.
    fn concerns(&self, progress: &Finding) -> Vec<Finding> {
        let mut out = Vec::new();
        let mut tell = |what, reason: Sentence, action| {
            out.push(Finding::new(what, reason, action));
        };
        let anything = self.counts.held() + self.counts.withdrawn_held > 0;
        let patients = self.case.tally.patients();
        if patients > 1 {
            let reason = Sentence::new(Word::PatientsMixed, &[&patients]);
            tell(What::PatientMixed, reason, Word::CheckMixed);
        }
        match self.case.matched {
            Some(Match::Order { doubts, .. }) => {
                if doubts.patient == Agreement::Different {
                    tell(What::PatientMismatch, Word::PatientDiffers.into(), Word::CheckPatient);
                }
                if doubts.accession == Agreement::Different {
                    let word = Word::AccessionDiffers.into();
                    tell(What::AccessionMismatch, word, Word::CheckAccession);
                }
            }
            Some(Match::Ambiguous { orders, .. }) if anything => {
                let reason = Sentence::new(Word::OrderAmbiguous, &[&orders.len()]);
                tell(What::NoOrder, reason, Word::LinkOrder);
            }
            // A person has decided that it belongs to none.
            Some(Match::Unlinked) => {}
            Some(_)
                if anything && (self.rules.orders_expected || self.rules.hold_until_matched) =>
            {
                tell(What::NoOrder, Word::NoOrder.into(), Word::LinkOrder);
            }
            _ => {}
        }
        if anything && self.case.order.is_some_and(|o| !o.state.is_open()) {
            let reason = Sentence::new(Word::CancelledWithImages, &[&self.counts.held()]);
            tell(What::CancelledWithImages, reason, Word::CheckCancelled);
        }
        if self.counts.came_again > 0 {
            let reason = Sentence::new(Word::CameAgain, &[&self.counts.came_again]);
            tell(What::CameAgain, reason, Word::CheckWithdrawn);
        }
        // More images after a study was only presumed complete are nothing to look at.
        let lacks = self.counts.missing + self.unnamed > 0 || progress.what == What::Short;
        if let Some(settled) = self.case.settled
            && matches!(progress.what, What::Short | What::Arriving)
            && (lacks || settled.grade < Grade::Heuristic)
        {
            let reason = Sentence::new(Word::ReopenedSince, &[&settled.at]);
            tell(What::Reopened, reason, Word::Wait);
        }
        if !self.gaps.is_empty() && progress.grade != Some(Grade::Heuristic) {
            let reason = Sentence::new(Word::HeadersWarn, &[&self.gaps.len()]);
            let warning = Finding::new(What::Warning, reason, Word::LookAtGaps);
            out.push(warning.graded(Grade::Heuristic));
        }
        out.extend(self.wrong_worklist_entry());
        out
    }

    /// Told until a person has said where the study belongs.
    fn wrong_worklist_entry(&self) -> Option<Finding> {
        if matches!(self.case.matched, Some(Match::Order { by: By::Person, .. })) {
            return None;
        }
        let wrong = self.steps.iter().filter(|(_, status, reason)| {
            *status == StepStatus::Discontinued && *reason == WRONG_WORKLIST_ENTRY
        });
        let by: Vec<Ground> = wrong.filter_map(|(s, ..)| Ground::of(s)).collect();
        let found = || {
            let reason = Word::WrongWorklist.into();
            Finding::new(What::WrongWorklistEntry, reason, Word::CheckWorklist)
        };
        (!by.is_empty()).then(|| found().on(by))
    }
}
