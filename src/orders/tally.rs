//! The running account of one study: what is expected, what is held, what lacks.
//!
//! A [`Tally`] is a view of the evidence and of custody, kept so that a verdict never has to go
//! through the whole list: taking in an image costs O(log n), a statement O(k log n) for the k
//! instances that it names. The same images and statements in any order, however often, give the
//! same tally.
//!
//! | an instance is | when |
//! |---|---|
//! | missing | named by a statement, not held, not withdrawn |
//! | arrived | named and held, not withdrawn |
//! | extra | held and not named, not withdrawn |
//! | withdrawn | a rejection note or a person took it out of the expectation |
//!
//! Withdrawn, and sent again:
//! - After *data retention expired* (113039), an image that is stored again later counts again.
//! - After the other rejections it stays withdrawn, however often it comes and whoever names it;
//!   that it came again is counted, and a person may reinstate it.
//! - Of a person's decisions and the rejections, the latest counts. *It will not come* settles a
//!   gap, and is undone when the image comes after all.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Evidence, Grade, Rejection, Said, Statement};
use super::instance::{Instance, Role};
use super::numbering::{Gap, Numbering};
use crate::clock::Timestamp;

/// How many instances of a study are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Named, not held.
    pub missing: u32,
    /// Named and held.
    pub arrived: u32,
    /// Held, images, not named.
    pub extra_images: u32,
    /// Held, no images (or derived ones), not named.
    pub extra_others: u32,
    /// Withdrawn, held or not.
    pub withdrawn: u32,
    /// Withdrawn and held.
    pub withdrawn_held: u32,
    /// Withdrawn for a reason that lasts, and stored again after that.
    pub came_again: u32,
    /// Of those withdrawn, how many will not come, as a person has decided.
    pub waived: u32,
    /// Frames of what is held and not withdrawn; an image that is no multi-frame image is one.
    pub frames: u64,
}

impl Counts {
    /// Held and not withdrawn.
    pub fn held(&self) -> u32 {
        self.arrived + self.extra_images + self.extra_others
    }

    /// Named and not withdrawn.
    pub fn named(&self) -> u32 {
        self.arrived + self.missing
    }

    fn add(&mut self, o: &Self, sign: i64) {
        let part = |own: &mut u32, by: u32| {
            *own = u32::try_from(i64::from(*own) + sign * i64::from(by)).expect("counted before");
        };
        part(&mut self.missing, o.missing);
        part(&mut self.arrived, o.arrived);
        part(&mut self.extra_images, o.extra_images);
        part(&mut self.extra_others, o.extra_others);
        part(&mut self.withdrawn, o.withdrawn);
        part(&mut self.withdrawn_held, o.withdrawn_held);
        part(&mut self.came_again, o.came_again);
        part(&mut self.waived, o.waived);
        self.frames = if sign > 0 { self.frames + o.frames } else { self.frames - o.frames };
    }
}

/// What is held of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    first: Timestamp,
    last: Timestamp,
    role: Role,
    frames: u32,
}

/// What a statement that names nothing does to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// For quality, safety or a wrong worklist entry.
    Rejected,
    /// Retention is over.
    Expired,
    /// A person expects it.
    Reinstated,
    /// It will not come, says a person.
    Waived,
}

/// All that is known of one SOP Instance UID.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Entry {
    /// The strongest grade that names it, and of that grade the smallest id.
    named: Option<(Grade, String)>,
    series: String,
    class: String,
    /// What took it out of the expectation, or back in, by kind and id of the statement; mostly empty.
    taken: BTreeMap<(u8, String), (Timestamp, Taken)>,
    /// The source's last word on whether it can be had.
    available: Option<(Timestamp, bool)>,
    held: Option<Held>,
}

impl Entry {
    /// When it was last taken out, or back in, for this kind of reason.
    fn last(&self, kind: impl Fn(Taken) -> bool) -> Option<Timestamp> {
        self.taken.values().filter(|(_, t)| kind(*t)).map(|(at, _)| *at).max()
    }

    fn is_withdrawn(&self) -> bool {
        if self.taken.is_empty() {
            return false;
        }
        let rejected = self.last(|t| t == Taken::Rejected);
        let expired = self.last(|t| t == Taken::Expired);
        let in_force =
            rejected.is_some() || expired.is_some_and(|at| self.held.is_none_or(|h| h.last <= at));
        let back = self.last(|t| t == Taken::Reinstated);
        let off = self.last(|t| t == Taken::Waived);
        // A person's word counts from its time on; of two of one time the one that expects.
        let decided = back.max(off);
        if decided.is_none() || decided < rejected.max(expired) {
            in_force
        } else if back == decided {
            false
        } else {
            // What will not come, said a person, counts when it comes after all.
            in_force || self.held.is_none()
        }
    }

    /// Why the last rejection note withdrew it.
    fn rejection(&self) -> Option<Rejection> {
        let notes = self
            .taken
            .iter()
            .filter_map(|((kind, _), (at, _))| Some((*at, Rejection::of_kind(*kind)?)));
        notes.max().map(|(_, why)| why)
    }

    fn counts(&self) -> Counts {
        let mut c = Counts::default();
        if self.is_withdrawn() {
            c.withdrawn = 1;
            c.withdrawn_held = u32::from(self.held.is_some());
            let rejected = self.last(|t| t == Taken::Rejected);
            let expired = self.last(|t| t == Taken::Expired);
            let waived = self.last(|t| t == Taken::Waived);
            c.waived = u32::from(self.held.is_none() && waived > rejected.max(expired));
            let again = self.held.zip(rejected).is_some_and(|(h, at)| h.last > at);
            c.came_again = u32::from(again);
            return c;
        }
        match (&self.named, &self.held) {
            (Some(_), None) => c.missing = 1,
            (Some(_), Some(_)) => c.arrived = 1,
            (None, Some(h)) if h.role == Role::Image => c.extra_images = 1,
            (None, Some(_)) => c.extra_others = 1,
            (None, None) => {}
        }
        c.frames = self.held.map_or(0, |h| u64::from(h.frames));
        c
    }
}

/// A statement without its lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The statement; its lists are empty.
    pub statement: Statement,
    /// Instances that it names.
    pub names: u32,
    /// How many the study has at least, when it says so without naming them.
    pub count: Option<u32>,
}

/// An instance that lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking<'a> {
    /// SOP Instance UID.
    pub sop: &'a str,
    /// SOP Class UID; empty when nobody said it.
    pub class: &'a str,
    /// Series Instance UID; empty when nobody said it.
    pub series: &'a str,
    /// The strongest grade that names it.
    pub grade: Grade,
    /// The statement of that grade that names it.
    pub by: &'a str,
    /// The source has said that it cannot be had.
    pub unavailable: bool,
}

/// The account of one study.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    entries: BTreeMap<String, Entry>,
    missing: BTreeSet<String>,
    spoken: BTreeMap<(u8, String), Spoken>,
    counts: Counts,
    numbering: Numbering,
    first_arrival: Option<Timestamp>,
    last_arrival: Option<Timestamp>,
    patients: u32,
}

impl Tally {
    /// Says how many different patients the images name; what compares patients knows.
    pub fn name_patients(&mut self, patients: u32) {
        self.patients = patients;
    }

    /// How many different patients the images name, as was last said.
    pub fn patients(&self) -> u32 {
        self.patients
    }

    /// Of all evidence and of all that custody holds.
    pub fn of<'a>(evidence: &Evidence, held: impl IntoIterator<Item = &'a Instance>) -> Self {
        let mut tally = Self::default();
        held.into_iter().for_each(|i| tally.arrive(i));
        evidence.statements().for_each(|s| tally.hear(s));
        tally
    }

    /// Takes in an instance that is in custody. The first header of a SOP Instance UID counts;
    /// later copies only say that it came again.
    pub fn arrive(&mut self, i: &Instance) {
        let new = self.change(&i.sop, |entry| {
            let new = entry.held.is_none();
            let held = entry.held.get_or_insert(Held {
                first: i.arrived,
                last: i.arrived,
                role: i.role,
                frames: i.frames_present.or(i.frames).unwrap_or(1),
            });
            held.first = held.first.min(i.arrived);
            held.last = held.last.max(i.arrived);
            fill(&mut entry.series, &i.series);
            fill(&mut entry.class, &i.class);
            new
        });
        if new {
            self.numbering.add(i);
        }
        self.first_arrival = Some(self.first_arrival.map_or(i.arrived, |t| t.min(i.arrived)));
        self.last_arrival = self.last_arrival.max(Some(i.arrived));
    }

    /// Takes in a statement, as joined by [`Evidence::hear`].
    pub fn hear(&mut self, statement: &Statement) {
        let mut bare = statement.clone();
        bare.said.lists_mut().for_each(Vec::clear);
        let names: usize = statement.lists().iter().map(|l| l.instances.len()).sum();
        let names = u32::try_from(names).unwrap_or(u32::MAX);
        let new = Spoken { count: statement.count(), statement: bare, names };
        let key = (statement.said.kind(), statement.id.clone());
        let spoken = self.spoken.entry(key).or_insert_with(|| new.clone());
        spoken.statement.join(&new.statement);
        spoken.names = spoken.names.max(new.names);
        spoken.count = spoken.count.max(new.count);
        for list in statement.lists() {
            for r in &list.instances {
                self.change(&r.sop, |entry| {
                    fill(&mut entry.series, &list.series);
                    fill(&mut entry.class, &r.class);
                    entry.told(statement);
                });
            }
        }
        if let Said::Available { unavailable, .. } = &statement.said {
            for r in unavailable.iter().flat_map(|list| &list.instances) {
                let said = Some((statement.last_at, false));
                self.change(&r.sop, |entry| entry.available = entry.available.max(said));
            }
        }
    }

    fn change<T>(&mut self, sop: &str, with: impl FnOnce(&mut Entry) -> T) -> T {
        if !self.entries.contains_key(sop) {
            self.entries.insert(sop.to_owned(), Entry::default());
        }
        let entry = self.entries.get_mut(sop).expect("just made sure");
        let before = entry.counts();
        let out = with(entry);
        let after = entry.counts();
        if before != after {
            self.counts.add(&after, 1);
            self.counts.add(&before, -1);
            match (before.missing, after.missing) {
                (0, 1) => drop(self.missing.insert(sop.to_owned())),
                (1, 0) => drop(self.missing.remove(sop)),
                _ => {}
            }
        }
        out
    }

    /// How many are in which state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What lacks by name, in the order of the UIDs.
    pub fn missing(&self) -> impl Iterator<Item = Lacking<'_>> {
        self.missing.iter().map(|sop| {
            let entry = &self.entries[sop];
            let (grade, by) = entry.named.as_ref().expect("only what is named lacks");
            Lacking {
                sop,
                class: &entry.class,
                series: &entry.series,
                grade: *grade,
                by,
                unavailable: entry.available.is_some_and(|(_, can)| !can),
            }
        })
    }

    /// Whether an instance is here, withdrawn or not.
    pub fn holds(&self, sop: &str) -> bool {
        self.entries.get(sop).is_some_and(|entry| entry.held.is_some())
    }

    /// Instances that lack without a name: a source counts more than are named or held.
    pub fn unnamed(&self) -> u32 {
        let most = self.spoken.values().filter_map(|s| s.count).max().unwrap_or(0);
        let known = self.counts.held() + self.counts.missing + self.counts.withdrawn;
        most.saturating_sub(known)
    }

    /// SOP Instance UIDs that are expected or held, without those that are withdrawn; sorted.
    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        let wanted = |e: &Entry| (e.named.is_some() || e.held.is_some()) && !e.is_withdrawn();
        self.entries.iter().filter(move |(_, e)| wanted(e)).map(|(sop, _)| sop.as_str())
    }

    /// SOP Instance UIDs that are withdrawn, sorted.
    pub fn withdrawn(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, e)| e.is_withdrawn()).map(|(sop, _)| sop.as_str())
    }

    /// SOP Instance UIDs that a rejection note has withdrawn, sorted, with the last note's reason.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, Rejection)> {
        self.entries.iter().filter_map(move |(sop, e)| {
            let why = e.rejection().filter(|_| e.is_withdrawn())?;
            Some((sop.as_str(), why))
        })
    }

    /// The statements, without their lists, strongest kinds first.
    pub fn spoken(&self) -> impl Iterator<Item = &Spoken> {
        self.spoken.values()
    }

    /// Gaps that the headers betray (grade 6); costs O(n).
    pub fn gaps(&self) -> Vec<Gap> {
        self.numbering.gaps()
    }

    /// When the first instance was taken into custody.
    pub fn first_arrival(&self) -> Option<Timestamp> {
        self.first_arrival
    }

    /// When the last instance was taken into custody.
    pub fn last_arrival(&self) -> Option<Timestamp> {
        self.last_arrival
    }
}

/// Of two texts the smaller that is not empty, so that the order of telling makes no difference.
fn fill(own: &mut String, new: &str) {
    if !new.is_empty() && (own.is_empty() || new < own.as_str()) {
        new.clone_into(own);
    }
}

impl Entry {
    fn told(&mut self, statement: &Statement) {
        let taken = match &statement.said {
            Said::Rejected { why: Rejection::Retention, .. } => Taken::Expired,
            Said::Rejected { .. } => Taken::Rejected,
            Said::Decided { expect: true, .. } => Taken::Reinstated,
            Said::Decided { expect: false, .. } => Taken::Waived,
            _ => {
                self.named_by(statement);
                return;
            }
        };
        let key = (statement.said.kind(), statement.id.clone());
        let known = self.taken.entry(key).or_insert((statement.at, taken));
        // The first copy of a note counts: sent again, it takes nothing out again.
        known.0 = known.0.min(statement.at);
    }

    fn named_by(&mut self, statement: &Statement) {
        if let Said::Available { .. } = statement.said {
            self.available = self.available.max(Some((statement.last_at, true)));
        }
        let grade = statement.grade().expect("all that does not take away names");
        let named = self.named.as_ref().map(|(grade, by)| (*grade, by.as_str()));
        if named.is_none_or(|known| (grade, statement.id.as_str()) < known) {
            self.named = Some((grade, statement.id.clone()));
        }
    }
}
