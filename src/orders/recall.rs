//! Repair: what to ask the source for, when, and when to give up.
//!
//! When evidence names images that custody lacks, the source is asked what it has (Study Root
//! C-FIND, PS3.4 C.4.1, of every series at IMAGE level), and then for just those that lack
//! (C-MOVE or C-GET of named instances, PS3.4 C.4.2 and C.4.3):
//!
//! ```text
//!             ┌────────────── back-off ◀──────────────┐
//!             ▼                                       │
//!   short ─▶ Find ─▶ has some ─▶ Retrieve, in batches ┤ still short
//!             │ has none of them ─────────────────────┘
//!             └─▶ patience, tries or hope are over ─▶ GiveUp, with the source's last answer
//! ```
//!
//! - 0xA801 (move destination unknown) lasts until a person corrects the source: C-GET is tried
//!   where the route allows it, else the recall gives up at once. So does 0xA900.
//! - 0xA701 (out of resources) halves the batch; 0xA702, Cxxx and an unreachable source wait.
//! - What IAN calls unavailable is not asked for.
//! - Images that lack newly after giving up are asked for again, with all patience.
//! - A round in which images were sent counts as none, and the pause begins anew: a large gap is
//!   fetched in as many rounds as it takes.
//!
//! Limits: [`RecallRules`]; a batch is of one series, because IMAGE level wants exactly one; a round
//! asks for [`OFFERED_MAX`] instances.

use std::collections::BTreeSet;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::verdict::{Missing, Verdict, What};
use super::words::{Sentence, Word};
use crate::clock::Timestamp;

/// How a route repairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecallRules {
    /// The ways in which the source may be asked, the preferred first; empty: never.
    pub by: Vec<Retrieve>,
    /// Rounds of asking before giving up; default 12.
    pub rounds_max: u32,
    /// Time after the first question before giving up; default one day.
    pub patience: Duration,
    /// Pause after the first round; doubles with every round; default 30 seconds.
    pub pause: Duration,
    /// Longest pause; default one hour.
    pub pause_max: Duration,
    /// Most instances of one question; default 100.
    pub batch: u32,
    /// Asks for what lacks before its study is judged short: nobody else sends it. Default false.
    pub eager: bool,
}

impl Default for RecallRules {
    fn default() -> Self {
        Self {
            by: vec![Retrieve::Move, Retrieve::Get],
            rounds_max: 12,
            patience: Duration::from_secs(24 * 3600),
            pause: Duration::from_secs(30),
            pause_max: Duration::from_secs(3600),
            batch: 100,
            eager: false,
        }
    }
}

/// How instances are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Retrieve {
    /// C-MOVE to this node.
    #[n(0)]
    Move,
    /// C-GET.
    #[n(1)]
    Get,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing lacks, or nothing may be asked.
    Nothing,
    /// Ask what the source has of the study.
    Find,
    /// Ask for these.
    Retrieve {
        /// How.
        by: Retrieve,
        /// Series Instance UID; empty when nobody said it, and the source must be asked first.
        series: String,
        /// SOP Instance UIDs.
        sops: Vec<String>,
    },
    /// Not before this.
    Wait {
        /// When.
        until: Timestamp,
    },
    /// No more; the last answer says why.
    GiveUp {
        /// What the source answered.
        answer: Sentence,
    },
}

/// An instance that the source has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// Series Instance UID.
    pub series: String,
    /// SOP Instance UID.
    pub sop: String,
    /// SOP Class UID; empty when the source does not say it.
    pub class: String,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// C-FIND ended well: all that the source has of the study.
    Found(Vec<Offer>),
    /// C-MOVE or C-GET ended, with this many failed sub-operations (0000 and B000).
    Done {
        /// Number of Failed Suboperations (0000,1022).
        failed: u32,
    },
    /// A failure status.
    Status(u16),
    /// No association, or it broke.
    Unreachable,
    /// The association or the service was rejected.
    Refused,
}

/// What was tried for one study, durable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Recall {
    /// When the first question went out.
    #[n(0)]
    began: Option<Timestamp>,
    /// Rounds that have ended.
    #[n(1)]
    rounds: u32,
    /// Nothing is asked before this.
    #[n(2)]
    not_before: Timestamp,
    /// What the source says that it has and this node lacks, by series.
    #[n(3)]
    offered: BTreeSet<(String, String)>,
    /// Whether the current round has asked what there is.
    #[n(4)]
    found: bool,
    /// Halvings of the batch.
    #[n(5)]
    halved: u32,
    /// Ways that the source has no ear for.
    #[n(6)]
    closed: BTreeSet<Retrieve>,
    /// The last answer, in words.
    #[n(7)]
    answer: Option<Sentence>,
    /// When it came.
    #[n(8)]
    answered_at: Option<Timestamp>,
    /// That it lasts: no waiting helps.
    #[n(9)]
    hopeless: bool,
    /// What lacked at the last question.
    #[n(10)]
    about: BTreeSet<String>,
    /// SOP classes of what is offered: those that a C-GET proposes.
    #[cbor(n(11), default)]
    classes: BTreeSet<String>,
    /// How many lacked at the last question; more than `about` names, when that is full.
    #[cbor(n(12), default)]
    lacked: u32,
    /// Images were sent in the current round.
    #[cbor(n(13), default)]
    progress: bool,
}

/// Instances of one round; the rest is asked for in the next one.
pub const OFFERED_MAX: usize = 2000;
/// Most SOP classes that are remembered; a C-GET has room for no more.
const CLASSES_MAX: usize = 64;
/// Missing instances that are remembered by name.
const ABOUT_MAX: usize = 2000;

impl Recall {
    /// What the source answered last, and when.
    pub fn answer(&self) -> Option<(&Sentence, Timestamp)> {
        self.answer.as_ref().zip(self.answered_at)
    }

    /// Rounds that have ended since the first question.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Nothing is asked before this.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Whether a question has gone out.
    pub fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// SOP classes of what the source offers.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().map(String::as_str)
    }

    /// What to do for a study that is judged so.
    pub fn next(&self, verdict: &Verdict, rules: &RecallRules, now: Timestamp) -> Step {
        let lacks = !verdict.missing.is_empty() || verdict.unnamed > 0;
        let short = verdict.finding(What::Short).is_some() || (rules.eager && lacks);
        if !short || rules.by.is_empty() {
            return Step::Nothing;
        }
        let lacking: Vec<&Missing> = verdict.missing.iter().filter(|m| !m.unavailable).collect();
        if lacking.is_empty() && !verdict.missing.is_empty() && verdict.unnamed == 0 {
            return Step::GiveUp { answer: Word::SourceUnavailable.into() };
        }
        if self.is_over(rules, now) && self.is_new(lacking.iter().map(|m| m.sop.as_str())) {
            return Step::Find;
        }
        if self.is_over(rules, now) || (lacking.is_empty() && self.rounds > 0) {
            let answer = self.answer.clone().unwrap_or_else(|| Word::SourceNotFound.into());
            return Step::GiveUp { answer };
        }
        if now < self.not_before {
            return Step::Wait { until: self.not_before };
        }
        if !self.found {
            return Step::Find;
        }
        self.retrieve(&lacking, rules).unwrap_or(Step::Find)
    }

    fn is_over(&self, rules: &RecallRules, now: Timestamp) -> bool {
        let patience = rules.patience.as_secs();
        self.hopeless
            || self.rounds >= rules.rounds_max
            || self.began.is_some_and(|at| now.seconds_since(at) >= patience)
    }

    /// Whether something lacks that did not at the last question.
    fn is_new<'a>(&self, lacking: impl Iterator<Item = &'a str> + Clone) -> bool {
        let n = u32::try_from(lacking.clone().count()).unwrap_or(u32::MAX);
        let most = ABOUT_MAX as u32;
        match n > most || self.lacked > most {
            true => n > self.lacked,
            false => lacking.into_iter().any(|sop| !self.about.contains(sop)),
        }
    }

    fn way(&self, rules: &RecallRules) -> Option<Retrieve> {
        rules.by.iter().find(|by| !self.closed.contains(by)).copied()
    }

    fn retrieve(&self, lacking: &[&Missing], rules: &RecallRules) -> Option<Step> {
        let by = self.way(rules)?;
        let wanted: BTreeSet<&str> = lacking.iter().map(|m| m.sop.as_str()).collect();
        let mut open = self.offered.iter().filter(|(_, sop)| wanted.contains(sop.as_str()));
        let (series, first) = open.next()?;
        let same = open.take_while(|(s, _)| s == series).map(|(_, sop)| sop);
        let batch = (rules.batch >> self.halved.min(31)).max(1) as usize;
        let sops = std::iter::once(first).chain(same).take(batch).cloned().collect();
        Some(Step::Retrieve { by, series: series.clone(), sops })
    }

    /// Takes in what came of `step`, a [`Step::Find`] or [`Step::Retrieve`] for a study that was
    /// judged so.
    pub fn answered(
        &mut self,
        step: &Step,
        answer: &Answer,
        verdict: &Verdict,
        rules: &RecallRules,
        now: Timestamp,
    ) {
        let lacking: BTreeSet<String> = verdict.missing.iter().map(|m| m.sop.clone()).collect();
        if self.is_over(rules, now) && self.is_new(lacking.iter().map(String::as_str)) {
            *self = Self::default();
        }
        self.began.get_or_insert(now);
        self.answered_at = Some(now);
        if let Step::Retrieve { sops, .. } = step {
            // Each is asked for once a round, so that one bad image does not hold up the others.
            self.offered.retain(|(_, sop)| !sops.contains(sop));
        }
        match answer {
            Answer::Found(all) => {
                let named = || all.iter().filter(|offer| lacking.contains(&offer.sop));
                let offered = named().map(|o| (o.series.clone(), o.sop.clone()));
                self.offered = offered.take(OFFERED_MAX).collect();
                let classes = named().map(|o| o.class.clone()).filter(|class| !class.is_empty());
                self.classes = classes.collect();
                while self.classes.len() > CLASSES_MAX {
                    self.classes.pop_last();
                }
                self.found = true;
                let none = self.offered.is_empty();
                self.answer = none.then(|| Word::SourceNotFound.into());
            }
            Answer::Done { failed: 0 } => {
                self.progress = true;
                self.answer = None;
            }
            Answer::Done { failed } => {
                let asked = match step {
                    Step::Retrieve { sops, .. } => u32::try_from(sops.len()).unwrap_or(u32::MAX),
                    _ => 0,
                };
                self.progress |= *failed < asked;
                self.answer = Some(Sentence::new(Word::SourceSome, &[failed]));
            }
            Answer::Status(status) => self.failed(step, *status, rules),
            Answer::Unreachable => self.fail(Word::SourceUnreachable),
            Answer::Refused => self.fail(Word::SourceRefused),
        }
        self.lacked = u32::try_from(lacking.len()).unwrap_or(u32::MAX);
        self.about = lacking.into_iter().take(ABOUT_MAX).collect();
        if !self.found || self.offered.is_empty() {
            self.end_round(rules, now);
        }
    }

    fn fail(&mut self, word: Word) {
        self.answer = Some(word.into());
        self.offered.clear();
    }

    fn failed(&mut self, step: &Step, status: u16, rules: &RecallRules) {
        match (status, step) {
            (0xA801, Step::Retrieve { by, .. }) => {
                self.closed.insert(*by);
                self.hopeless = self.way(rules).is_none();
                self.fail(Word::SourceUnknownDestination);
            }
            (0xA900, _) => {
                self.hopeless = true;
                self.fail(Word::SourceMismatch);
            }
            (0xA701 | 0xA700, _) => {
                self.halved = (self.halved + 1).min(16);
                self.fail(Word::SourceTooMany);
            }
            (0xA702, _) => self.fail(Word::SourceCannotSend),
            (0x0122 | 0x0112, Step::Retrieve { by, .. }) => {
                self.closed.insert(*by);
                self.hopeless = self.way(rules).is_none();
                self.fail(Word::SourceRefused);
            }
            _ => {
                self.fail(Word::SourceFailed);
                let status = format!("0x{status:04X}");
                self.answer = Some(Sentence::new(Word::SourceFailed, &[&status]));
            }
        }
    }

    fn end_round(&mut self, rules: &RecallRules, now: Timestamp) {
        if std::mem::take(&mut self.progress) {
            self.rounds = 0;
        }
        let pause = rules.pause.saturating_mul(1 << self.rounds.min(20)).min(rules.pause_max);
        self.rounds += 1;
        self.found = false;
        self.not_before = now + pause;
    }

    /// A person has set something right: everything is tried again, at once.
    pub fn start_again(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::evidence::{Reference, Said, SeriesList, Statement};
    use crate::orders::judge::{Case, Rules, judge};
    use crate::orders::tally::Tally;

    fn short(named: u32, unavailable: bool) -> Verdict {
        let mut tally = Tally::default();
        let list = |class: &str| {
            let reference = |n| Reference { sop: format!("1.{n}"), class: class.into() };
            vec![SeriesList { series: "9".into(), instances: (0..named).map(reference).collect() }]
        };
        let said = Said::Commitment { lists: list("") };
        tally.hear(&Statement::new("commitment:1", "CT1", Timestamp(0), said));
        if unavailable {
            let said = Said::Available { lists: vec![], unavailable: list("") };
            tally.hear(&Statement::new("availability:1", "PACS", Timestamp(0), said));
        }
        let case = Case { order: None, matched: None, tally: &tally, settled: None };
        judge(&case, &Rules::default(), Timestamp(1_000_000))
    }

    fn found(sops: impl IntoIterator<Item = u32>) -> Answer {
        let offer = |n| Offer { series: "9".into(), sop: format!("1.{n}"), class: "1.2.3".into() };
        Answer::Found(sops.into_iter().map(offer).collect())
    }

    /// A recall under way, and the clock that its answers move.
    struct Bench {
        recall: Recall,
        rules: RecallRules,
        verdict: Verdict,
        now: Timestamp,
    }

    impl Bench {
        fn new(named: u32) -> Self {
            Self {
                recall: Recall::default(),
                rules: RecallRules::default(),
                verdict: short(named, false),
                now: Timestamp(1_000_000),
            }
        }

        fn next(&self) -> Step {
            self.recall.next(&self.verdict, &self.rules, self.now)
        }

        fn answer(&mut self, answer: &Answer) {
            let step = self.next();
            assert!(matches!(step, Step::Find | Step::Retrieve { .. }), "{step:?}");
            self.recall.answered(&step, answer, &self.verdict, &self.rules, self.now);
        }

        /// Sleeps when told to.
        fn wait(&mut self) {
            if let Step::Wait { until } = self.next() {
                self.now = until;
            }
        }
    }

    fn word(recall: &Recall) -> Option<Word> {
        recall.answer().map(|(sentence, _)| sentence.word)
    }

    #[test]
    fn the_source_is_asked_what_it_has_and_then_for_just_what_lacks() {
        let mut b = Bench::new(3);
        b.rules.batch = 2;
        assert_eq!(b.next(), Step::Find);
        b.answer(&found([0, 1, 2, 77]));
        let retrieve = |sops: &[&str]| Step::Retrieve {
            by: Retrieve::Move,
            series: "9".into(),
            sops: sops.iter().map(|s| (*s).to_owned()).collect(),
        };
        assert_eq!(b.next(), retrieve(&["1.0", "1.1"]));
        b.answer(&Answer::Done { failed: 0 });
        assert_eq!(b.next(), retrieve(&["1.2"]));
        b.answer(&Answer::Done { failed: 1 });
        assert_eq!(word(&b.recall), Some(Word::SourceSome));
        let until = b.now + b.rules.pause;
        assert_eq!(b.next(), Step::Wait { until });
        b.wait();
        assert_eq!(b.next(), Step::Find, "still short: another round");
    }

    #[test]
    fn an_unknown_destination_is_told_at_once_and_get_is_tried_where_allowed() {
        let mut b = Bench::new(1);
        b.answer(&found([0]));
        b.answer(&Answer::Status(0xA801));
        b.wait();
        b.answer(&found([0]));
        assert!(matches!(b.next(), Step::Retrieve { by: Retrieve::Get, .. }));
        let mut b = Bench::new(1);
        b.rules.by = vec![Retrieve::Move];
        b.answer(&found([0]));
        b.answer(&Answer::Status(0xA801));
        let answer = Word::SourceUnknownDestination.into();
        assert_eq!(b.next(), Step::GiveUp { answer });
        b.recall.start_again();
        assert_eq!(b.next(), Step::Find, "a person has set it right");
    }

    #[test]
    fn pauses_double_and_end_in_giving_up_with_what_the_source_answered_last() {
        let mut b = Bench::new(2);
        b.rules.rounds_max = 4;
        let mut pauses = vec![];
        for answer in [found([]), Answer::Unreachable, found([]), Answer::Status(0xC001)] {
            let before = b.now;
            b.answer(&answer);
            b.wait();
            pauses.push(b.now.seconds_since(before));
        }
        assert_eq!(pauses, [30, 60, 120, 0]);
        let answer = Sentence::new(Word::SourceFailed, &[&"0xC001"]);
        assert_eq!(b.next(), Step::GiveUp { answer });
        b.verdict = short(3, false);
        assert_eq!(b.next(), Step::Find, "something else lacks now");
        b.answer(&found([]));
        assert!(matches!(b.next(), Step::Wait { .. }));
    }

    #[test]
    fn a_large_gap_is_fetched_in_as_many_rounds_as_it_takes_and_little_is_remembered_of_it() {
        let mut b = Bench::new(10_000);
        b.rules.rounds_max = 2;
        b.rules.batch = 500;
        let mut left = 10_000;
        while left > 0 {
            assert_eq!(b.next(), Step::Find);
            b.answer(&found(0..10_000));
            assert!(minicbor::to_vec(&b.recall).unwrap().len() < 200_000);
            while let Step::Retrieve { sops, .. } = b.next() {
                b.answer(&Answer::Done { failed: 0 });
                left -= sops.len();
            }
            b.verdict.missing.truncate(left);
            b.wait();
        }
        // What does not come is given up all the same.
        let mut b = Bench::new(10_000);
        b.rules.by = vec![Retrieve::Move];
        b.answer(&found(0..10_000));
        b.answer(&Answer::Status(0xA801));
        assert!(matches!(b.next(), Step::GiveUp { .. }));
    }

    #[test]
    fn what_nobody_else_sends_is_asked_for_before_it_is_short() {
        let mut b = Bench::new(1);
        b.verdict.findings.retain(|f| f.what != What::Short);
        assert_eq!(b.next(), Step::Nothing);
        b.rules.eager = true;
        assert_eq!(b.next(), Step::Find);
        b.answer(&found([0]));
        assert_eq!(b.recall.classes().collect::<Vec<_>>(), ["1.2.3"]);
    }

    #[test]
    fn a_source_short_of_resources_is_asked_for_less_at_a_time() {
        let mut b = Bench::new(10);
        b.rules.batch = 8;
        b.answer(&found(0..10));
        b.answer(&Answer::Status(0xA701));
        b.wait();
        b.answer(&found(0..10));
        let Step::Retrieve { sops, .. } = b.next() else { panic!() };
        assert_eq!(sops.len(), 4);
    }

    #[test]
    fn nothing_is_asked_for_that_is_unavailable_or_when_nothing_lacks_or_nobody_may_be_asked() {
        let mut b = Bench::new(1);
        b.verdict = short(1, true);
        assert_eq!(b.next(), Step::GiveUp { answer: Word::SourceUnavailable.into() });
        b.verdict = short(0, false);
        assert_eq!(b.next(), Step::Nothing);
        b.verdict = short(1, false);
        b.rules.by.clear();
        assert_eq!(b.next(), Step::Nothing);
    }

    #[test]
    fn patience_ends_and_what_was_tried_survives_being_written_down() {
        let mut b = Bench::new(1);
        b.answer(&Answer::Unreachable);
        let bytes = minicbor::to_vec(&b.recall).unwrap();
        assert_eq!(minicbor::decode::<Recall>(&bytes).unwrap(), b.recall);
        b.now = b.now + b.rules.patience;
        assert_eq!(b.next(), Step::GiveUp { answer: Word::SourceUnreachable.into() });
    }
}
