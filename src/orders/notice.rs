//! Whom to tell, and when: the station that sent the study, while the patient is still there.
//!
//! A notice is due within [`NoticeRules::within`] after something needs attention: half of that
//! time is left for the gap to heal by itself, the other half for the notice to travel. Another
//! follows when something else turns out to be wrong, and one when all is settled; between two
//! notices of the same matter there is silence. A notice holds no patient data: sentences with
//! counts, and what the driver makes a link from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::verdict::{Finding, Verdict, What};
use super::words::{Sentence, Word};
use crate::clock::Timestamp;
use crate::routing::Pattern;

/// When and of what a rule notifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeRules {
    /// Longest time from knowing to telling; default two minutes.
    pub within: Duration,
    /// What is told; default: what a person at the modality can mend.
    pub about: BTreeSet<What>,
}

impl Default for NoticeRules {
    fn default() -> Self {
        let about = [
            What::PatientMismatch,
            What::PatientMixed,
            What::WrongWorklistEntry,
            What::Withdrawn,
            What::AccessionMismatch,
            What::CancelledWithImages,
            What::Short,
            What::Overdue,
        ];
        Self { within: Duration::from_secs(120), about: about.into() }
    }
}

impl NoticeRules {
    /// The same for a prior: what it lacks, and that nobody has ordered it, is told to nobody.
    pub fn of_prior(&self) -> Self {
        let quiet = |what: &What| what.is_quiet_in_priors();
        Self {
            about: self.about.iter().copied().filter(|what| !quiet(what)).collect(),
            ..self.clone()
        }
    }
}

/// Who is told of which studies and orders; every rule that fits applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name; what was told is remembered under it.
    pub name: String,
    /// AE titles that sent the study; empty: all.
    pub stations: Vec<Pattern>,
    /// Modality of the study or order; empty: all.
    pub modalities: Vec<Pattern>,
    /// When and of what.
    pub rules: NoticeRules,
}

impl Rule {
    /// To whom a study with these senders is told by this rule; `None`: to nobody.
    pub fn station(&self, senders: &[String], modality: &str) -> Option<String> {
        if !self.takes(modality) {
            return None;
        }
        if self.stations.is_empty() {
            return Some(senders.first().cloned().unwrap_or_default());
        }
        let fits = |sender: &&String| self.stations.iter().any(|p| p.matches(sender));
        senders.iter().find(fits).cloned()
    }

    /// Whether an order without images, which has no sender, is told by this rule.
    pub fn tells_orders(&self, modality: &str) -> bool {
        match self.modalities.is_empty() {
            true => self.stations.is_empty(),
            false => self.takes(modality),
        }
    }

    fn takes(&self, modality: &str) -> bool {
        self.modalities.is_empty() || self.modalities.iter().any(|p| p.matches(modality))
    }
}

/// What was seen and told of one study, durable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Told {
    /// What needs attention, and since when that is known.
    #[n(0)]
    since: BTreeMap<What, Timestamp>,
    /// What of it was told.
    #[n(1)]
    told: BTreeSet<What>,
    /// Whether news that all is settled are owed.
    #[n(2)]
    open: bool,
    /// How many withdrawn images were told, so that more of them are told again.
    #[cbor(n(3), default)]
    withdrawn: u32,
}

/// What kind of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum News {
    /// Something needs attention.
    #[n(0)]
    Opened,
    /// Nothing does any more.
    #[n(1)]
    Settled,
    /// A person tries whether notices arrive.
    #[n(2)]
    Test,
    /// Something is so that somebody waited for; there is nothing to do.
    #[n(3)]
    Told,
}

/// How many instances are how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Counts {
    /// Here, not withdrawn.
    #[n(0)]
    pub held: u32,
    /// Of those that are expected, here.
    #[n(1)]
    pub arrived: u32,
    /// Expected, where anything says how many.
    #[n(2)]
    pub expected: Option<u32>,
    /// Those that lack, the unnamed included.
    #[n(3)]
    pub missing: u32,
    /// Withdrawn; at a reading node those here that nobody has acknowledged.
    #[n(4)]
    pub withdrawn: u32,
}

impl Counts {
    fn of(verdict: &Verdict) -> Self {
        let named = u32::try_from(verdict.missing.len()).unwrap_or(u32::MAX);
        Self {
            held: verdict.held,
            arrived: verdict.arrived,
            expected: verdict.expected,
            missing: named.saturating_add(verdict.unnamed),
            withdrawn: verdict.withdrawn,
        }
    }
}

/// A notice to a station.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Notice {
    /// To whom: the AE title that sent the study, or the order's requesting application.
    #[n(0)]
    pub to: String,
    /// What kind.
    #[n(1)]
    pub news: News,
    /// What needs attention.
    #[n(2)]
    pub about: Vec<What>,
    /// The headline.
    #[n(3)]
    pub subject: Sentence,
    /// Each reason, gravest first.
    #[n(4)]
    pub reasons: Vec<Sentence>,
    /// What to do about it.
    #[n(5)]
    pub actions: Vec<Word>,
    /// When it must be there.
    #[n(6)]
    pub deadline: Timestamp,
    /// How far the images are.
    #[n(7)]
    pub state: What,
    /// How many.
    #[n(8)]
    pub counts: Counts,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the verdict changes.
    Nothing,
    /// Look again then.
    Wait {
        /// When.
        until: Timestamp,
    },
    /// Send this, and tell [`Told::sent`] when it is durable.
    Send(Notice),
}

impl Told {
    /// Takes in a verdict: from when on something is known. True when it must be stored.
    pub fn see(&mut self, verdict: &Verdict, rules: &NoticeRules, now: Timestamp) -> bool {
        let before = self.clone();
        let now_open: BTreeSet<What> = open(verdict, rules).collect();
        // While images are coming, a gap that was told is neither there nor mended.
        let unclear = verdict.progress().what == What::Arriving;
        let told = &self.told;
        self.since.retain(|what, _| now_open.contains(what) || (unclear && told.contains(what)));
        // More withdrawn images than were told are news.
        if verdict.withdrawn > self.withdrawn && self.told.remove(&What::Withdrawn) {
            self.since.remove(&What::Withdrawn);
        }
        self.told.retain(|what| self.since.contains_key(what));
        for what in now_open {
            self.since.entry(what).or_insert(now);
        }
        if !self.since.contains_key(&What::Withdrawn) {
            self.withdrawn = 0;
        }
        *self != before
    }

    /// What to do for a study that is judged so, after [`Told::see`].
    pub fn next(&self, verdict: &Verdict, to: &str, rules: &NoticeRules, now: Timestamp) -> Step {
        let news = |news, about: Vec<What>, since: Timestamp| {
            let shown = |f: &&Finding| match news {
                News::Opened => about.contains(&f.what),
                _ => f.what.is_progress(),
            };
            let findings: Vec<Finding> = verdict.findings.iter().filter(shown).cloned().collect();
            let deadline = since + rules.within;
            Step::Send(Notice { about, deadline, ..Notice::of(news, to, verdict, &findings) })
        };
        if self.since.is_empty() {
            let settled = verdict.progress().what != What::Arriving;
            let send = settled && self.open;
            return if send { news(News::Settled, Vec::new(), now) } else { Step::Nothing };
        }
        let Some(first) = self.untold() else { return Step::Nothing };
        let until = first + rules.within / 2;
        if now < until {
            return Step::Wait { until };
        }
        let open: Vec<What> = self.since.keys().copied().collect();
        news(News::Opened, open, first)
    }

    /// Since when something is known that was not told.
    pub fn untold(&self) -> Option<Timestamp> {
        let untold = self.since.iter().filter(|(what, _)| !self.told.contains(what));
        untold.map(|(_, since)| *since).min()
    }

    /// Whether nothing was seen and nothing is owed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this knows of something that needs attention.
    pub fn knows(&self, what: What) -> bool {
        self.since.contains_key(&what)
    }

    /// The images of an order have come: what was told of it is settled, for this `reason`.
    pub fn settle(&self, verdict: &Verdict, to: &str, reason: Word, now: Timestamp) -> Step {
        if !self.open {
            return Step::Nothing;
        }
        let finding = Finding::new(What::Arriving, reason.into(), Word::Wait);
        let notice = Notice::of(News::Settled, to, verdict, &[finding]);
        Step::Send(Notice { state: What::Arriving, deadline: now, ..notice })
    }

    /// The notice is on its way for good.
    pub fn sent(&mut self, notice: &Notice) {
        match notice.news {
            News::Opened => {
                self.told.extend(&notice.about);
                self.open = true;
                if notice.about.contains(&What::Withdrawn) {
                    self.withdrawn = notice.counts.withdrawn;
                }
            }
            News::Settled => *self = Self::default(),
            News::Test | News::Told => {}
        }
    }
}

impl Notice {
    /// Of these findings of a verdict; about nothing yet, and due at once.
    fn of(news: News, to: &str, verdict: &Verdict, findings: &[Finding]) -> Self {
        let word = match news {
            News::Opened => Word::NoticeOpened,
            News::Settled => Word::NoticeSettled,
            News::Test => Word::NoticeTest,
            News::Told => Word::TellStudyReceived,
        };
        let mut actions: Vec<Word> = findings.iter().map(|f| f.action).collect();
        actions.dedup();
        Self {
            to: to.to_owned(),
            news,
            about: Vec::new(),
            subject: Sentence { word, values: vec![verdict.count_of()] },
            reasons: findings.iter().map(|f| f.reason.clone()).collect(),
            actions,
            deadline: Timestamp::default(),
            state: verdict.progress().what,
            counts: Counts::of(verdict),
        }
    }

    /// One of a report, about one of [`What::OF_REPORTS`]: `detail` says why.
    /// Anything else is told as a report that waits for a person.
    pub fn of_report(what: What, detail: Sentence, now: Timestamp) -> Self {
        let (news, word, action) = match what {
            What::CriticalResult => {
                (News::Opened, Word::TellCriticalResult, Word::AcknowledgeCritical)
            }
            What::CriticalKnown => (News::Settled, Word::TellCriticalKnown, Word::Wait),
            What::ReportOverdue => (News::Opened, Word::TellReportOverdue, Word::SeeOverdue),
            What::ReportUnacknowledged => {
                (News::Opened, Word::TellReportUnacknowledged, Word::SeeSystem)
            }
            What::FollowUpDue => (News::Opened, Word::TellFollowUpDue, Word::FollowUp),
            What::QuestionAsked => (News::Opened, Word::TellQuestionAsked, Word::AnswerQuestion),
            What::StudyReceived => (News::Told, Word::TellStudyReceived, Word::Wait),
            _ => (News::Opened, Word::TellReportHeld, Word::SeeHeld),
        };
        Self {
            to: String::new(),
            news,
            about: vec![what],
            subject: word.into(),
            reasons: vec![detail],
            actions: vec![action],
            deadline: now,
            state: what,
            counts: Counts::default(),
        }
    }

    /// One with which a person tries whether notices arrive.
    pub fn test(now: Timestamp) -> Self {
        Self {
            to: String::new(),
            news: News::Test,
            about: Vec::new(),
            subject: Word::NoticeTest.into(),
            reasons: vec![Word::NoticeTestOnly.into()],
            actions: vec![Word::Wait],
            deadline: now,
            state: What::Due,
            counts: Counts::default(),
        }
    }
}

fn open<'a>(verdict: &'a Verdict, rules: &'a NoticeRules) -> impl Iterator<Item = What> + 'a {
    verdict.findings.iter().map(|f| f.what).filter(|what| rules.about.contains(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::evidence::{Reference, Said, SeriesList, Statement};
    use crate::orders::instance::Instance;
    use crate::orders::judge::{Case, Rules, judge};
    use crate::orders::tally::Tally;

    fn tally(held: u32) -> Tally {
        let mut tally = Tally::default();
        let reference = |n| Reference { sop: format!("1.{n}"), class: String::new() };
        let instances = (0..3).map(reference).collect();
        let lists = vec![SeriesList { series: String::new(), instances }];
        tally.hear(&Statement::new("c", "CT1", Timestamp(0), Said::Commitment { lists }));
        (0..held).for_each(|n| {
            tally.arrive(&Instance { sop: format!("1.{n}"), ..Instance::default() });
        });
        tally
    }

    fn verdict(tally: &Tally, now: Timestamp) -> Verdict {
        let case = Case { order: None, matched: None, tally, settled: None };
        judge(&case, &Rules::default(), now)
    }

    fn look(told: &mut Told, tally: &Tally, seconds: i64) -> Step {
        let (rules, now) = (NoticeRules::default(), Timestamp(seconds * 1000));
        let v = verdict(tally, now);
        told.see(&v, &rules, now);
        let step = told.next(&v, "CT1", &rules, now);
        if let Step::Send(notice) = &step {
            told.sent(notice);
        }
        step
    }

    #[test]
    fn a_short_study_is_told_within_two_minutes_once_and_again_when_settled() {
        let (mut told, short) = (Told::default(), tally(2));
        assert_eq!(look(&mut told, &short, 30), Step::Nothing, "still arriving");
        let until = Timestamp(160_000);
        assert_eq!(look(&mut told, &short, 100), Step::Wait { until });
        let Step::Send(notice) = look(&mut told, &short, 160) else { panic!() };
        assert_eq!((notice.to.as_str(), notice.news), ("CT1", News::Opened));
        assert_eq!((notice.about, notice.deadline), (vec![What::Short], Timestamp(220_000)));
        assert_eq!(notice.subject.values, ["2/3"]);
        assert_eq!(look(&mut told, &short, 5_000), Step::Nothing, "silence");
        let Step::Send(notice) = look(&mut told, &tally(3), 6_000) else { panic!() };
        assert_eq!((notice.news, notice.actions), (News::Settled, vec![Word::Wait]));
        assert_eq!(look(&mut told, &tally(3), 7_000), Step::Nothing);
        look(&mut told, &tally(2), 8_000);
        let Step::Send(notice) = look(&mut told, &tally(2), 8_060) else { panic!() };
        assert_eq!(notice.news, News::Opened, "short again");
    }

    #[test]
    fn a_gap_that_heals_by_itself_in_time_is_never_told() {
        let mut told = Told::default();
        assert!(matches!(look(&mut told, &tally(2), 100), Step::Wait { .. }));
        assert_eq!(look(&mut told, &tally(3), 150), Step::Nothing);
        assert_eq!(told, Told::default());
    }

    #[test]
    fn what_a_prior_lacks_is_told_to_nobody_and_another_patient_in_it_is() {
        let (tally, now) = (tally(2), Timestamp(1_000_000));
        let rules = NoticeRules::default().of_prior();
        let (mut told, mut v) = (Told::default(), verdict(&tally, now));
        assert!(v.finding(What::Short).is_some());
        told.see(&v, &rules, now);
        assert_eq!(told.next(&v, "CT1", &rules, now), Step::Nothing);
        let mixed = Finding::new(What::PatientMixed, Word::PatientDiffers.into(), Word::CheckMixed);
        v.findings.insert(0, mixed);
        told.see(&v, &rules, now);
        assert!(matches!(told.next(&v, "CT1", &rules, now), Step::Wait { .. }));
    }

    #[test]
    fn more_withdrawn_images_are_told_again_and_the_same_ones_are_not() {
        let (mut told, rules) = (Told::default(), NoticeRules::default());
        let mut look = |withdrawn: u32, seconds: i64| {
            let now = Timestamp(seconds * 1000);
            let mut v = verdict(&tally(3), now);
            v.withdrawn = withdrawn;
            if withdrawn > 0 {
                let reason = Sentence::new(Word::WithdrawnSafety, &[&withdrawn]);
                v.findings.push(Finding::new(What::Withdrawn, reason, Word::DoNotReport));
            }
            told.see(&v, &rules, now);
            let step = told.next(&v, "CT1", &rules, now);
            if let Step::Send(notice) = &step {
                told.sent(notice);
            }
            step
        };
        assert!(matches!(look(2, 100), Step::Wait { .. }));
        let Step::Send(first) = look(2, 200) else { panic!() };
        assert_eq!((first.about, first.counts.withdrawn), (vec![What::Withdrawn], 2));
        assert_eq!(look(2, 300), Step::Nothing);
        assert!(matches!(look(3, 400), Step::Wait { .. }), "one more");
        let Step::Send(second) = look(3, 500) else { panic!() };
        assert_eq!(second.counts.withdrawn, 3);
        let Step::Send(settled) = look(0, 600) else { panic!() };
        assert_eq!(settled.news, News::Settled, "acknowledged");
        assert!(matches!(look(1, 700), Step::Wait { .. }), "it begins anew");
    }

    #[test]
    fn a_rule_is_for_stations_and_an_order_without_images_for_its_modality() {
        let rule = |stations: &[&str], modalities: &[&str]| Rule {
            name: "r".into(),
            stations: stations.iter().map(|p| Pattern::new(p).unwrap()).collect(),
            modalities: modalities.iter().map(|p| Pattern::new(p).unwrap()).collect(),
            rules: NoticeRules::default(),
        };
        let senders = ["PACS".to_owned(), "CT1".to_owned()];
        assert_eq!(rule(&["CT*"], &[]).station(&senders, "CT").as_deref(), Some("CT1"));
        assert_eq!(rule(&["MR*"], &[]).station(&senders, "CT"), None);
        assert_eq!(rule(&["CT*"], &["MR"]).station(&senders, "CT"), None);
        assert_eq!(rule(&[], &[]).station(&senders, "CT").as_deref(), Some("PACS"));
        assert!(rule(&[], &[]).tells_orders("CT") && rule(&["CT1"], &["CT"]).tells_orders("CT"));
        assert!(!rule(&["CT1"], &[]).tells_orders("CT") && !rule(&[], &["MR"]).tells_orders("CT"));
    }

    #[test]
    fn what_was_told_survives_being_written_down() {
        let mut told = Told::default();
        look(&mut told, &tally(2), 100);
        look(&mut told, &tally(2), 200);
        let bytes = minicbor::to_vec(&told).unwrap();
        assert_eq!(minicbor::decode::<Told>(&bytes).unwrap(), told);
    }
}
