//! What a verdict says of a study or an order: findings, counts, what lacks, and when to judge
//! again. [`judge`](super::judge::judge) makes it.
//!
//! A [`Verdict`] is a list of [`Finding`]s, gravest first; exactly one of them tells how far the
//! images are ([`What::is_progress`]). Each names the statements that set it, their grade, the
//! reason in words and the next action. Nothing in a verdict names a patient.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::evidence::{Grade, Said};
use super::numbering::Gap;
use super::tally::{Lacking, Spoken};
use super::words::{Sentence, Word};
use crate::clock::Timestamp;

/// Most statements that one finding names as its grounds.
pub const GROUNDS_MAX: usize = 32;

/// What is found; gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum What {
    /// Images and order name different patients.
    #[n(0)]
    PatientMismatch,
    /// The images of one study name different patients.
    #[n(17)]
    PatientMixed,
    /// A step was discontinued with 110514.
    #[n(1)]
    WrongWorklistEntry,
    /// Images that are here were withdrawn, and nobody has acknowledged it. Only where they are
    /// read: a node that others send studies to.
    #[n(16)]
    Withdrawn,
    /// Images and order have different accession numbers.
    #[n(2)]
    AccessionMismatch,
    /// Images came for an order that is cancelled or discontinued.
    #[n(3)]
    CancelledWithImages,
    /// Something lacks.
    #[n(4)]
    Short,
    /// No image, and the time is over.
    #[n(5)]
    Overdue,
    /// It was told to be complete, and is not.
    #[n(6)]
    Reopened,
    /// Images that were withdrawn came again.
    #[n(7)]
    CameAgain,
    /// Images without an order.
    #[n(8)]
    NoOrder,
    /// Images are coming.
    #[n(9)]
    Arriving,
    /// No image yet, and none is late.
    #[n(10)]
    Due,
    /// Nothing more comes, and nothing says how many there should be.
    #[n(11)]
    PresumedComplete,
    /// All that is named is here.
    #[n(12)]
    Complete,
    /// The order is cancelled, and nothing came.
    #[n(13)]
    Cancelled,
    /// The order or every step is discontinued, and nothing came.
    #[n(14)]
    Discontinued,
    /// The headers betray gaps that the evidence does not speak of.
    #[n(15)]
    Warning,
    // What follows is told of reports ([`What::OF_REPORTS`]); no verdict ever finds it.
    /// A critical result waits for a person.
    #[n(18)]
    CriticalResult,
    /// A question of the other side waits for an answer.
    #[n(24)]
    QuestionAsked,
    /// A report waits for a person.
    #[n(22)]
    ReportHeld,
    /// What was promised of a report is overdue.
    #[n(20)]
    ReportOverdue,
    /// A system has not said for too long that it has a report.
    #[n(21)]
    ReportUnacknowledged,
    /// It is time to ask what became of a patient.
    #[n(25)]
    FollowUpDue,
    /// A person knows of a critical result.
    #[n(19)]
    CriticalKnown,
    /// The reading node has a study whole.
    #[n(23)]
    StudyReceived,
}

impl What {
    /// What is told of reports, gravest first. No verdict finds it.
    pub const OF_REPORTS: [Self; 8] = [
        Self::CriticalResult,
        Self::QuestionAsked,
        Self::ReportHeld,
        Self::ReportOverdue,
        Self::ReportUnacknowledged,
        Self::FollowUpDue,
        Self::CriticalKnown,
        Self::StudyReceived,
    ];

    /// Whether a person should look: what the list of missing images shows.
    pub fn needs_attention(self) -> bool {
        self <= Self::NoOrder
    }

    /// Whether it is nothing to look at in a prior: nobody has ordered it, and nobody waits for it.
    pub fn is_quiet_in_priors(self) -> bool {
        matches!(self, Self::Short | Self::NoOrder | Self::Reopened | Self::Overdue)
    }

    /// All that a verdict finds, gravest first.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> =
            (0..=17).filter_map(|n: u8| minicbor::decode::<Self>(&[n]).ok()).collect();
        all.sort_unstable();
        all
    }

    /// The one of a verdict that documents call so.
    pub fn named(word: &str) -> Option<Self> {
        Self::all().into_iter().find(|what| what.is_called(word))
    }

    /// The one of reports that documents call so.
    pub fn of_report(word: &str) -> Option<Self> {
        Self::OF_REPORTS.into_iter().find(|what| what.is_called(word))
    }

    fn is_called(self, word: &str) -> bool {
        serde_json::to_value(self).is_ok_and(|own| own.as_str() == Some(word))
    }

    /// Whether it tells how far the images are.
    pub fn is_progress(self) -> bool {
        matches!(
            self,
            Self::Short
                | Self::Overdue
                | Self::Arriving
                | Self::Due
                | Self::PresumedComplete
                | Self::Complete
                | Self::Cancelled
                | Self::Discontinued
        )
    }
}

/// A statement on which a finding rests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Ground {
    /// How far it can be trusted.
    #[n(0)]
    pub grade: Grade,
    /// Which statement.
    #[n(1)]
    pub id: String,
    /// Who said it.
    #[n(2)]
    pub source: String,
    /// When this node heard the last of it.
    #[n(3)]
    pub at: Timestamp,
}

impl Ground {
    pub(super) fn of(spoken: &Spoken) -> Option<Self> {
        let s = &spoken.statement;
        let decided = matches!(s.said, Said::Decided { .. }).then_some(Grade::Decision);
        let (id, source, at) = (s.id.clone(), s.source.clone(), s.last_at);
        Some(Self { grade: s.grade().or(decided)?, id, source, at })
    }
}

/// One thing that is so.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Finding {
    /// What.
    #[n(0)]
    pub what: What,
    /// The grade of the evidence that set it; absent where no evidence is needed to see it.
    #[n(1)]
    pub grade: Option<Grade>,
    /// The statements that set it, strongest first, at most [`GROUNDS_MAX`].
    #[n(2)]
    pub by: Vec<Ground>,
    /// Why, in words.
    #[n(3)]
    pub reason: Sentence,
    /// The next action, in words.
    #[n(4)]
    pub action: Word,
}

impl Finding {
    pub(super) fn new(what: What, reason: Sentence, action: Word) -> Self {
        Self { what, grade: None, by: Vec::new(), reason, action }
    }

    pub(super) fn on(mut self, mut by: Vec<Ground>) -> Self {
        by.sort();
        by.truncate(GROUNDS_MAX);
        self.grade = by.first().map(|g| g.grade);
        self.by = by;
        self
    }

    pub(super) fn graded(mut self, grade: Grade) -> Self {
        self.grade = Some(grade);
        self
    }
}

/// An instance that lacks, and who says that it should be here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Missing {
    /// SOP Instance UID.
    #[n(0)]
    pub sop: String,
    /// SOP Class UID, where said.
    #[n(1)]
    pub class: String,
    /// Series Instance UID, where said.
    #[n(2)]
    pub series: String,
    /// The strongest grade that names it.
    #[n(3)]
    pub grade: Grade,
    /// The statement of that grade.
    #[n(4)]
    pub by: String,
    /// The source has said that it cannot be had.
    #[n(5)]
    pub unavailable: bool,
}

/// That a study was told to be complete, kept by the driver since the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Settled {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// By which grade; 7 is presumed only.
    #[n(1)]
    pub grade: Grade,
}

/// What is so of a study at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Gravest first; never empty.
    pub findings: Vec<Finding>,
    /// Instances here, not withdrawn.
    pub held: u32,
    /// Of those that are expected, how many are here.
    pub arrived: u32,
    /// Instances expected, where anything says how many.
    pub expected: Option<u32>,
    /// Frames here: a multi-frame image is as many as it has.
    pub frames: u64,
    /// Instances withdrawn, here or not.
    pub withdrawn: u32,
    /// What lacks by name.
    pub missing: Vec<Missing>,
    /// How many more lack than can be named.
    pub unnamed: u32,
    /// What the headers betray; only for quiet studies.
    pub gaps: Vec<Gap>,
    /// Why the images wait for a rule or a person, when they do.
    pub hold: Option<What>,
    /// When the verdict could become another by itself.
    pub again_at: Option<Timestamp>,
}

impl Verdict {
    /// The gravest finding.
    pub fn headline(&self) -> &Finding {
        &self.findings[0]
    }

    /// How far the images are.
    pub fn progress(&self) -> &Finding {
        let mut progress = self.findings.iter().filter(|f| f.what.is_progress());
        progress.next().expect("every verdict tells it")
    }

    /// The finding of this kind, when there is one.
    pub fn finding(&self, what: What) -> Option<&Finding> {
        self.findings.iter().find(|f| f.what == what)
    }

    /// *n* of *m*, in any language.
    pub fn count_of(&self) -> String {
        match self.expected {
            Some(expected) => format!("{}/{expected}", self.arrived),
            None => format!("{}/?", self.held),
        }
    }

    /// What a driver keeps so that a later verdict can tell that the study was re-opened.
    pub fn settled(&self, now: Timestamp) -> Option<Settled> {
        let progress = self.progress();
        let grade = progress.grade.unwrap_or(Grade::Quiet);
        matches!(progress.what, What::Complete | What::PresumedComplete)
            .then_some(Settled { at: now, grade })
    }
}

impl From<Lacking<'_>> for Missing {
    fn from(l: Lacking<'_>) -> Self {
        Self {
            sop: l.sop.to_owned(),
            class: l.class.to_owned(),
            series: l.series.to_owned(),
            grade: l.grade,
            by: l.by.to_owned(),
            unavailable: l.unavailable,
        }
    }
}
