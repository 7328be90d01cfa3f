//! Critical results: what makes a report one, and the loop that ends only when a person has said
//! that he or she knows.
//!
//! | state | event | next |
//! |---|---|---|
//! | (none) | a version is flagged | `Open`, the ladder begins |
//! | `Open` | time | notices, rung by rung; the last rung again and again |
//! | `Open` | a person acknowledges | `Acknowledged` |
//! | `Acknowledged` | a person closes it, saying what was done | `Closed` |
//! | `Acknowledged`, `Closed` | another version is flagged, for reasons that were not there | `Open`, from the first rung |
//! | any | the report is withdrawn, or is not critical any more | the same: people were told, and must be told otherwise by people |
//!
//! A notice that was due while the node was down is due at once, and only the highest rung that
//! time has reached is told: three notices in one second help nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::clock::Timestamp;

/// Most rungs of a ladder.
pub const RUNGS_MAX: usize = 16;
/// Most entries of a record; of more notices only the number is kept.
pub const ENTRIES_MAX: usize = 256;
/// Longest name or remark of a person, in bytes.
const WORDS_MAX: usize = 1_024;
/// Most reasons of one critical result, and of one the longest name of a code, in bytes: further
/// ones change nothing, since it is critical already.
pub const REASONS_MAX: usize = 32;
const REASON_MAX: usize = 256;

/// What makes a report critical.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// An abnormal flag (OBX-8), and the name of the observation's code.
    #[n(0)]
    Flag(#[n(0)] String, #[n(1)] String),
    /// A code of the route's list: value and scheme.
    #[n(1)]
    Code(#[n(0)] String, #[n(1)] String),
    /// A word of the route's list, in the title or a heading.
    #[n(2)]
    Title(#[n(0)] String),
    /// A person or program has said so: who.
    #[n(3)]
    Said(#[n(0)] String),
}

impl Reason {
    /// Within the limit of what is remembered.
    fn bounded(self) -> Self {
        let short = |mut text: String| {
            text.truncate(text.floor_char_boundary(REASON_MAX));
            text
        };
        match self {
            Self::Flag(flag, code) => Self::Flag(short(flag), short(code)),
            Self::Code(value, scheme) => Self::Code(short(value), short(scheme)),
            Self::Title(word) => Self::Title(short(word)),
            Self::Said(who) => Self::Said(short(who)),
        }
    }
}

/// What a route counts as critical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flagging {
    /// Abnormal flags (table 0078); default AA, HH, LL.
    pub flags: BTreeSet<String>,
    /// Codes, value and scheme; default RadLex RID49480, actionable finding of category 1.
    pub codes: BTreeSet<(String, String)>,
    /// Words that a title has, compared without regard to case; default none.
    pub title_words: Vec<String>,
}

impl Default for Flagging {
    fn default() -> Self {
        let flags = ["AA", "HH", "LL"].map(str::to_owned).into();
        // ACR "Actionable Reporting" category 1, as IHE RAD-128 has it.
        let codes = [("RID49480".to_owned(), "RadLex".to_owned())].into();
        Self { flags, codes, title_words: Vec::new() }
    }
}

impl Flagging {
    /// The reasons why a report with these flags, codes and titles is critical.
    pub fn reasons<'a>(
        &self,
        flags: impl IntoIterator<Item = (&'a str, &'a str)>,
        codes: impl IntoIterator<Item = (&'a str, &'a str)>,
        titles: impl IntoIterator<Item = &'a str>,
    ) -> Vec<Reason> {
        let mut found = BTreeSet::new();
        for (flag, of) in flags {
            if self.flags.contains(flag) {
                found.insert(Reason::Flag(flag.to_owned(), bounded(of)));
            }
        }
        for (value, scheme) in codes {
            if self.codes.contains(&(value.to_owned(), scheme.to_owned())) {
                found.insert(Reason::Code(value.to_owned(), scheme.to_owned()));
            }
        }
        for title in titles {
            let title = title.to_lowercase();
            let words = self.title_words.iter();
            let said = words.filter(|w| !w.is_empty() && title.contains(&w.to_lowercase()));
            found.extend(said.map(|word| Reason::Title(word.clone())));
        }
        found.into_iter().take(super::report::LIST_MAX).collect()
    }
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(WORDS_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim().to_owned()
}

/// One step of the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// How long after the flag.
    pub after: Duration,
    /// Whom to tell: names of the configuration.
    pub to: Vec<String>,
}

/// Whom to tell, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// The rungs, the earliest first; at most [`RUNGS_MAX`].
    pub rungs: Vec<Rung>,
    /// How often the last rung is told again.
    pub repeat: Duration,
}

impl Ladder {
    /// The rung that time has reached.
    fn reached(&self, since: Timestamp, now: Timestamp) -> Option<usize> {
        self.rungs.iter().take(RUNGS_MAX).rposition(|rung| since + rung.after <= now)
    }
}

/// What happened, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A version was flagged: its digest in hexadecimal, and why.
    #[n(0)]
    Flagged(#[n(0)] String, #[n(1)] Vec<Reason>),
    /// People were told: rung, from zero, and whom.
    #[n(1)]
    Told(#[n(0)] u32, #[n(1)] Vec<String>),
    /// A person knows.
    #[n(2)]
    Acknowledged(#[n(0)] String),
    /// A person has closed it: who, and what was done.
    #[n(3)]
    Closed(#[n(0)] String, #[n(1)] String),
}

/// Where a critical result stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum State {
    /// Nobody has said that he or she knows.
    #[n(0)]
    Open,
    /// A person knows.
    #[n(1)]
    Acknowledged,
    /// It was dealt with.
    #[n(2)]
    Closed,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something happens.
    Nothing,
    /// Look again then.
    Wait(Timestamp),
    /// Tell these, and call [`Alarm::told`] when that is durable.
    Tell {
        /// Which rung, from zero.
        rung: u32,
        /// Whom.
        to: Vec<String>,
    },
}

/// Why a person's word does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Nobody is named.
    #[error("an acknowledgement names the person who gives it")]
    Nameless,
    /// It is closed already, or was acknowledged before.
    #[error("this was acknowledged before")]
    Again,
    /// It is not acknowledged yet.
    #[error("it must be acknowledged before it can be closed")]
    NotAcknowledged,
    /// Nothing is said about what was done.
    #[error("say what was done")]
    Wordless,
}

/// A critical result of one report, durable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Alarm {
    #[n(0)]
    state: State,
    /// Since when the ladder is climbed.
    #[n(1)]
    since: Timestamp,
    /// Every reason that was ever given.
    #[n(2)]
    reasons: BTreeSet<Reason>,
    /// Last rung that was told since then, and when.
    #[n(3)]
    told: Option<(u32, Timestamp)>,
    /// Notices sent, all of them.
    #[n(4)]
    notices: u32,
    /// What happened, and when.
    #[n(5)]
    record: Vec<(Timestamp, Event)>,
}

impl Alarm {
    /// A version is flagged for the first time.
    pub fn new(version: &str, reasons: Vec<Reason>, now: Timestamp) -> Self {
        let mut alarm = Self {
            state: State::Open,
            since: now,
            reasons: BTreeSet::new(),
            told: None,
            notices: 0,
            record: Vec::new(),
        };
        let reasons = alarm.new_reasons(reasons);
        alarm.note(now, Event::Flagged(version.to_owned(), reasons));
        alarm
    }

    /// Another version is flagged. What was acknowledged opens again when there is a new reason.
    /// True when something changed.
    pub fn flag(&mut self, version: &str, reasons: Vec<Reason>, now: Timestamp) -> bool {
        let reasons = self.new_reasons(reasons);
        if reasons.is_empty() {
            return false;
        }
        if self.state != State::Open {
            self.state = State::Open;
            self.since = now;
            self.told = None;
        }
        self.note(now, Event::Flagged(version.to_owned(), reasons));
        true
    }

    /// Takes in what was not there, within the limits; that alone.
    fn new_reasons(&mut self, reasons: Vec<Reason>) -> Vec<Reason> {
        let mut new = Vec::new();
        for reason in reasons.into_iter().map(Reason::bounded) {
            if self.reasons.len() < REASONS_MAX && self.reasons.insert(reason.clone()) {
                new.push(reason);
            }
        }
        new
    }

    /// The clock went back: nobody waits until it is again what it was.
    pub fn rewind(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.told = self.told.map(|(rung, at)| (rung, at.min(now)));
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it is open, or was.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Why.
    pub fn reasons(&self) -> impl Iterator<Item = &Reason> {
        self.reasons.iter()
    }

    /// Notices sent.
    pub fn notices(&self) -> u32 {
        self.notices
    }

    /// What happened, and when.
    pub fn record(&self) -> &[(Timestamp, Event)] {
        &self.record
    }

    /// What to do now.
    pub fn step(&self, ladder: &Ladder, now: Timestamp) -> Step {
        if self.state != State::Open || ladder.rungs.is_empty() {
            return Step::Nothing;
        }
        let last = ladder.rungs.len().min(RUNGS_MAX) - 1;
        let tell = |rung: usize| Step::Tell {
            rung: u32::try_from(rung).unwrap_or(u32::MAX),
            to: ladder.rungs[rung].to.clone(),
        };
        // A ladder that became shorter is climbed to its end.
        let told = self.told.map(|(rung, at)| ((rung as usize).min(last), at));
        let reached = ladder.reached(self.since, now);
        match (told, reached) {
            (None, Some(reached)) => tell(reached),
            (Some((rung, _)), Some(reached)) if reached > rung => tell(reached),
            (Some((rung, at)), _) if rung == last => {
                // Never so fast that it is noise.
                let again = at + ladder.repeat.max(Duration::from_secs(1));
                if again <= now { tell(last) } else { Step::Wait(again) }
            }
            (told, _) => {
                let next = told.map_or(0, |(rung, _)| rung + 1);
                Step::Wait(self.since + ladder.rungs[next].after)
            }
        }
    }

    /// These were told, durably.
    pub fn told(&mut self, rung: u32, to: Vec<String>, now: Timestamp) {
        if self.state == State::Open {
            self.told = Some((rung, now));
        }
        self.notices = self.notices.saturating_add(1);
        self.note(now, Event::Told(rung, to));
    }

    /// A person knows.
    pub fn acknowledge(&mut self, by: &str, now: Timestamp) -> Result<(), NotTaken> {
        let by = bounded(by);
        if by.is_empty() {
            return Err(NotTaken::Nameless);
        }
        if self.state != State::Open {
            return Err(NotTaken::Again);
        }
        self.state = State::Acknowledged;
        self.note(now, Event::Acknowledged(by));
        Ok(())
    }

    /// It was dealt with, and how.
    pub fn close(&mut self, by: &str, done: &str, now: Timestamp) -> Result<(), NotTaken> {
        let (by, done) = (bounded(by), bounded(done));
        match self.state {
            State::Open => Err(NotTaken::NotAcknowledged),
            State::Closed => Err(NotTaken::Again),
            State::Acknowledged if by.is_empty() => Err(NotTaken::Nameless),
            State::Acknowledged if done.is_empty() => Err(NotTaken::Wordless),
            State::Acknowledged => {
                self.state = State::Closed;
                self.note(now, Event::Closed(by, done));
                Ok(())
            }
        }
    }

    fn note(&mut self, at: Timestamp, event: Event) {
        // Notices repeat for as long as nobody answers: the oldest of them make room, what people
        // said and what was flagged stays.
        if self.record.len() >= ENTRIES_MAX {
            let oldest = self.record.iter().position(|(_, e)| matches!(e, Event::Told(..)));
            self.record.remove(oldest.unwrap_or(0));
        }
        self.record.push((at, event));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ladder() -> Ladder {
        let rung = |minutes: u64, to: &str| Rung {
            after: Duration::from_secs(minutes * 60),
            to: vec![to.to_owned()],
        };
        let rungs = vec![rung(0, "ward"), rung(15, "department"), rung(30, "chief")];
        Ladder { rungs, repeat: Duration::from_secs(600) }
    }

    fn minutes(n: i64) -> Timestamp {
        Timestamp(n * 60_000)
    }

    #[test]
    fn a_clock_that_went_back_keeps_nobody_from_being_told() {
        let mut alarm = Alarm::new("v", vec![reason("AA")], minutes(500_000));
        assert_eq!(alarm.step(&ladder(), minutes(0)), Step::Wait(minutes(500_000)));
        alarm.rewind(minutes(0));
        let Step::Tell { rung: 0, to } = alarm.step(&ladder(), minutes(0)) else { panic!() };
        alarm.told(0, to, minutes(0));
        assert_eq!(alarm.step(&ladder(), minutes(0)), Step::Wait(minutes(15)));
    }

    #[test]
    fn reasons_without_end_are_not_remembered() {
        let many = |n: usize| (0..n).map(|n| reason(&format!("{n} {}", "x".repeat(9_999))));
        let mut alarm = Alarm::new("v", many(999).collect(), minutes(0));
        assert_eq!(alarm.reasons().count(), REASONS_MAX);
        assert!(alarm.reasons().all(|r| matches!(r, Reason::Said(who) if who.len() <= REASON_MAX)));
        assert!(!alarm.flag("w", many(9_999).collect(), minutes(1)));
        assert!(minicbor::to_vec(&alarm).unwrap().len() < 64 << 10);
    }

    fn reason(word: &str) -> Reason {
        Reason::Said(word.into())
    }

    fn tell(alarm: &mut Alarm, now: i64) -> Option<u32> {
        match alarm.step(&ladder(), minutes(now)) {
            Step::Tell { rung, to } => {
                alarm.told(rung, to, minutes(now));
                Some(rung)
            }
            _ => None,
        }
    }

    #[test]
    fn nobody_answers_and_the_ladder_is_climbed_until_somebody_does() {
        let mut alarm = Alarm::new("v", vec![reason("a")], minutes(0));
        let told: Vec<_> = (0..=60).filter_map(|n| Some((n, tell(&mut alarm, n)?))).collect();
        assert_eq!(told, [(0, 0), (15, 1), (30, 2), (40, 2), (50, 2), (60, 2)]);
        assert_eq!(alarm.acknowledge(" ", minutes(61)), Err(NotTaken::Nameless));
        assert_eq!(alarm.close("dr", "called", minutes(61)), Err(NotTaken::NotAcknowledged));
        alarm.acknowledge("dr", minutes(61)).unwrap();
        assert_eq!(alarm.step(&ladder(), minutes(500)), Step::Nothing);
        assert_eq!(alarm.acknowledge("dr", minutes(62)), Err(NotTaken::Again));
        assert_eq!(alarm.close("dr", "", minutes(62)), Err(NotTaken::Wordless));
        alarm.close("dr", "patient called in", minutes(70)).unwrap();
        assert_eq!((alarm.state(), alarm.notices()), (State::Closed, 6));
    }

    #[test]
    fn after_an_outage_only_the_rung_that_time_has_reached_is_told() {
        let mut alarm = Alarm::new("v", vec![reason("a")], minutes(0));
        assert_eq!(tell(&mut alarm, 20), Some(1));
        assert_eq!(alarm.step(&ladder(), minutes(21)), Step::Wait(minutes(30)));
    }

    #[test]
    fn a_correction_with_a_new_reason_opens_it_again_and_one_without_does_not() {
        let mut alarm = Alarm::new("v1", vec![reason("a")], minutes(0));
        alarm.acknowledge("dr", minutes(1)).unwrap();
        assert!(!alarm.flag("v2", vec![reason("a")], minutes(2)));
        assert_eq!(alarm.state(), State::Acknowledged);
        assert!(alarm.flag("v3", vec![reason("a"), reason("b")], minutes(3)));
        assert_eq!((alarm.state(), tell(&mut alarm, 3)), (State::Open, Some(0)));
    }

    #[test]
    fn flags_codes_and_words_of_the_title_make_a_report_critical_and_others_do_not() {
        let title_words = vec!["至急".into(), "Critical".into()];
        let flagging = Flagging { title_words, ..Flagging::default() };
        let reasons = flagging.reasons(
            [("AA", "Mass"), ("A", "Mass"), ("HH", "K")],
            [("RID49480", "RadLex"), ("RID49482", "RadLex")],
            ["CT CRITICAL finding", "【至急】", "routine"],
        );
        assert_eq!(reasons.len(), 5, "{reasons:?}");
        assert!(flagging.reasons([("N", "x")], [], ["CT"]).is_empty());
    }

    proptest! {
        #[test]
        fn an_open_result_is_told_again_until_a_person_has_acknowledged_it(
            steps in proptest::collection::vec((0..4_u8, 1..90_i64), 1..80),
        ) {
            let mut alarm = Alarm::new("v", vec![reason("0")], minutes(0));
            let (mut now, mut silent) = (0, 0);
            let mut by_a_person = false;
            for (n, (what, after)) in steps.into_iter().enumerate() {
                now += after;
                silent += after;
                match what {
                    0 => by_a_person |= alarm.acknowledge("dr", minutes(now)).is_ok(),
                    1 => drop(alarm.close("dr", "done", minutes(now))),
                    2 => {
                        if alarm.flag("v", vec![reason(&n.to_string())], minutes(now)) {
                            by_a_person = false;
                        }
                    }
                    _ => if tell(&mut alarm, now).is_some() { silent = 0 },
                }
                prop_assert_eq!(alarm.state() == State::Open, !by_a_person);
                // Whoever looks at the time that it names finds something to tell.
                match alarm.step(&ladder(), minutes(now)) {
                    Step::Wait(until) => {
                        prop_assert!(alarm.state() == State::Open && until > minutes(now));
                        let then = alarm.step(&ladder(), until);
                        let tells = matches!(then, Step::Tell { .. });
                        prop_assert!(tells);
                        prop_assert!(silent <= 90 + 15 || what != 3);
                    }
                    Step::Nothing => prop_assert_ne!(alarm.state(), State::Open),
                    Step::Tell { .. } => prop_assert_eq!(alarm.state(), State::Open),
                }
                let bytes = minicbor::to_vec(&alarm).unwrap();
                prop_assert_eq!(&minicbor::decode::<Alarm>(&bytes).unwrap(), &alarm);
                prop_assert!(alarm.record().len() <= ENTRIES_MAX);
            }
        }
    }
}
