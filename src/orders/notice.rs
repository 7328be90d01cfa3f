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

/// When and of what a route notifies.
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
            What::AccessionMismatch,
            What::CancelledWithImages,
            What::Short,
            What::Overdue,
        ];
        Self { within: Duration::from_secs(120), about: about.into() }
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
        self.told.retain(|what| self.since.contains_key(what));
        for what in now_open {
            self.since.entry(what).or_insert(now);
        }
        *self != before
    }

    /// What to do for a study that is judged so, after [`Told::see`].
    pub fn next(&self, verdict: &Verdict, to: &str, rules: &NoticeRules, now: Timestamp) -> Step {
        let news = |news, about: Vec<What>, since: Timestamp| {
            let word = match news {
                News::Opened => Word::NoticeOpened,
                News::Settled => Word::NoticeSettled,
            };
            let shown = |f: &&Finding| match news {
                News::Opened => about.contains(&f.what),
                News::Settled => f.what.is_progress(),
            };
            let findings: Vec<_> = verdict.findings.iter().filter(shown).collect();
            Step::Send(Notice {
                to: to.to_owned(),
                news,
                subject: Sentence { word, values: vec![verdict.count_of()] },
                reasons: findings.iter().map(|f| f.reason.clone()).collect(),
                actions: findings.iter().map(|f| f.action).collect(),
                deadline: since + rules.within,
                about,
            })
        };
        if self.since.is_empty() {
            let settled = verdict.progress().what != What::Arriving;
            let send = settled && self.open;
            return if send { news(News::Settled, Vec::new(), now) } else { Step::Nothing };
        }
        let untold = self.since.iter().filter(|(what, _)| !self.told.contains(what));
        let Some(first) = untold.map(|(_, since)| *since).min() else { return Step::Nothing };
        let until = first + rules.within / 2;
        if now < until {
            return Step::Wait { until };
        }
        let open: Vec<What> = self.since.keys().copied().collect();
        news(News::Opened, open, first)
    }

    /// The notice is on its way for good.
    pub fn sent(&mut self, notice: &Notice) {
        match notice.news {
            News::Opened => {
                self.told.extend(&notice.about);
                self.open = true;
            }
            News::Settled => self.open = false,
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
    fn what_was_told_survives_being_written_down() {
        let mut told = Told::default();
        look(&mut told, &tally(2), 100);
        look(&mut told, &tally(2), 200);
        let bytes = minicbor::to_vec(&told).unwrap();
        assert_eq!(minicbor::decode::<Told>(&bytes).unwrap(), told);
    }
}
