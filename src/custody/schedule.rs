//! Whose turn it is. Pure: the ready queue is asked through [`Ready`], time is an argument.
//!
//! - STAT before urgent before routine before bulk; but for every byte that goes to a more urgent
//!   class, each waiting lower class earns a [`SHARE_PERCENT`] credit and goes first when its
//!   credit covers its next piece, so that everything arrives.
//! - Within a class, origins take turns, and within an origin, studies: one study of 5,000 slices
//!   or one busy hospital does not starve the rest.
//! - Within a study, in order of acceptance.
//!
//! An image that was not looked at yet ([`Fresh`]) ends its study for this time.
//!
//! Leases live here, in memory. A leased duty stays in the ready queue; a cursor per study makes
//! skipping the leased ones cheap.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::fresh::Fresh;
use super::rows::{CargoId, DestinationNumber};
use crate::cargo::Urgency;
use crate::clock::Monotonic;

/// What each waiting lower class earns of the bytes of a higher one, in percent.
pub(super) const SHARE_PERCENT: u64 = 5;
/// Most credit that a class can save, so that an idle day does not become a burst.
const CREDIT_MAX: u64 = 64 << 20;
/// Studies looked at for one pick before it gives up for this time.
const STUDIES_PER_PICK: usize = 256;

/// A place in the ready queue of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Spot {
    /// Key of the origin.
    pub origin: u32,
    /// Key of the study.
    pub study: u64,
    /// The cargo.
    pub cargo: u64,
}

/// One class of the queue of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// Whose.
    pub destination: DestinationNumber,
    /// How urgent.
    pub urgency: Urgency,
    /// Longer than [`super::rows::LARGE_BYTES`].
    pub large: bool,
}

/// The ready queue.
pub(super) trait Ready {
    /// What the queue says when it cannot be read.
    type Error;
    /// The first entry of `class` at or after `from`, with its length in bytes.
    fn first_from(&self, class: Class, from: Spot) -> Result<Option<(Spot, u64)>, Self::Error>;
}

/// Which sizes a sender wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// All.
    Any,
    /// At most [`super::rows::LARGE_BYTES`].
    Small,
    /// Longer.
    Large,
}

/// A duty that may be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pick {
    /// Which cargo.
    pub cargo: CargoId,
    /// Its class.
    pub class: Class,
    /// Where in the queue.
    pub spot: Spot,
    /// Its length.
    pub length: u64,
}

#[derive(Debug, Default)]
struct Turns {
    /// The origin that was served last.
    origin: Option<u32>,
    /// By origin: the study that was served last.
    study: HashMap<u32, u64>,
    /// By study: where to look on, while some of it is leased.
    cursors: HashMap<(u32, u64), Cursor>,
}

#[derive(Debug, Default)]
struct Cursor {
    next: u64,
    leased: usize,
}

/// Leases, turns and credits.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    turns: HashMap<Class, Turns>,
    credits: HashMap<DestinationNumber, [u64; 4]>,
    leased: HashMap<(DestinationNumber, CargoId), Pick>,
    /// What may not leave yet.
    pub(super) fresh: Fresh,
    deferred: BTreeMap<(Monotonic, DestinationNumber, CargoId), ()>,
}

impl Schedule {
    /// Leases the next duty of `destination` among the wanted classes and sizes.
    pub(super) fn pick<R: Ready>(
        &mut self,
        ready: &R,
        destination: DestinationNumber,
        classes: [bool; 4],
        size: Size,
    ) -> Result<Option<Pick>, R::Error> {
        let mut chosen: Option<Pick> = None;
        for urgency in Urgency::ALL.into_iter().filter(|u| classes[u.index()]) {
            let Some(found) = self.find(ready, destination, urgency, size)? else { continue };
            let credit = self.credits.entry(destination).or_default();
            match &chosen {
                None => chosen = Some(found),
                Some(higher) => {
                    let saved = &mut credit[urgency.index()];
                    if *saved >= found.length {
                        *saved -= found.length;
                        chosen = Some(found);
                        break;
                    }
                    let earned = higher.length.saturating_mul(SHARE_PERCENT) / 100;
                    *saved = (*saved + earned.max(1)).min(CREDIT_MAX);
                }
            }
        }
        if let Some(pick) = chosen {
            self.lease(pick);
        }
        Ok(chosen)
    }

    fn find<R: Ready>(
        &mut self,
        ready: &R,
        destination: DestinationNumber,
        urgency: Urgency,
        size: Size,
    ) -> Result<Option<Pick>, R::Error> {
        let mut best: Option<Pick> = None;
        for large in [false, true] {
            if size == Size::Small && large || size == Size::Large && !large {
                continue;
            }
            let class = Class { destination, urgency, large };
            if let Some(pick) = self.next_in(ready, class)?
                && best.is_none_or(|b| pick.cargo < b.cargo)
            {
                best = Some(pick);
            }
        }
        Ok(best)
    }

    /// The next duty of one class that is not leased.
    fn next_in<R: Ready>(&mut self, ready: &R, class: Class) -> Result<Option<Pick>, R::Error> {
        let turns = self.turns.entry(class).or_default();
        let mut last_origin = turns.origin;
        let mut last_study: HashMap<u32, u64> = HashMap::new();
        let mut first_study: HashMap<u32, u64> = HashMap::new();
        // Origins of which every study was looked at, and how many of them in a row.
        let (mut over, mut in_a_row) = (HashSet::new(), 0);
        for _ in 0..STUDIES_PER_PICK {
            let Some(origin) = after_origin(ready, class, last_origin)? else { return Ok(None) };
            last_origin = Some(origin);
            let seen = last_study.get(&origin).or_else(|| turns.study.get(&origin)).copied();
            let Some(study) = after_study(ready, class, origin, seen)? else { return Ok(None) };
            let known = first_study.get(&origin) == Some(&study);
            if over.contains(&origin) || known {
                over.insert(origin);
                in_a_row += 1;
                if in_a_row > over.len() {
                    return Ok(None);
                }
                continue;
            }
            in_a_row = 0;
            first_study.entry(origin).or_insert(study);
            let cursor = turns.cursors.get(&(origin, study)).map_or(0, |c| c.next);
            let mut from = Spot { origin, study, cargo: cursor };
            while let Some((spot, length)) = ready.first_from(class, from)? {
                if (spot.origin, spot.study) != (origin, study) || self.fresh.holds(spot) {
                    break;
                }
                let cargo = CargoId(spot.cargo);
                if !self.leased.contains_key(&(class.destination, cargo)) {
                    return Ok(Some(Pick { cargo, class, spot, length }));
                }
                from.cargo = spot.cargo + 1;
            }
            last_study.insert(origin, study);
        }
        Ok(None)
    }

    fn lease(&mut self, pick: Pick) {
        let Pick { class, spot, cargo, .. } = pick;
        let turns = self.turns.entry(class).or_default();
        turns.origin = Some(spot.origin);
        turns.study.insert(spot.origin, spot.study);
        let cursor = turns.cursors.entry((spot.origin, spot.study)).or_default();
        cursor.next = spot.cargo + 1;
        cursor.leased += 1;
        self.leased.insert((class.destination, cargo), pick);
    }

    /// Ends a lease, whatever came of it. False when there was none.
    pub(super) fn end(&mut self, destination: DestinationNumber, cargo: CargoId) -> bool {
        let Some(pick) = self.leased.remove(&(destination, cargo)) else { return false };
        if let Some(turns) = self.turns.get_mut(&pick.class) {
            let group = (pick.spot.origin, pick.spot.study);
            if let Some(cursor) = turns.cursors.get_mut(&group) {
                cursor.leased -= 1;
                cursor.next = cursor.next.min(pick.spot.cargo);
                if cursor.leased == 0 {
                    turns.cursors.remove(&group);
                }
            }
        }
        true
    }

    /// Duties entered the queue of `destination` out of order: cursors may have passed them.
    pub(super) fn rewind(&mut self, destination: DestinationNumber) {
        let turns = self.turns.iter_mut().filter(|(class, _)| class.destination == destination);
        for cursor in turns.flat_map(|(_, turns)| turns.cursors.values_mut()) {
            cursor.next = 0;
        }
    }

    /// True while the duty is leased.
    pub(super) fn is_leased(&self, destination: DestinationNumber, cargo: CargoId) -> bool {
        self.leased.contains_key(&(destination, cargo))
    }

    /// Leases now, by destination and urgency.
    pub(super) fn in_flight(&self) -> BTreeMap<(DestinationNumber, Urgency), u64> {
        let mut counts = BTreeMap::new();
        for pick in self.leased.values() {
            *counts.entry((pick.class.destination, pick.class.urgency)).or_default() += 1;
        }
        counts
    }

    /// Remembers a duty that is not to be tried before `now + after`.
    pub(super) fn defer(
        &mut self,
        now: Monotonic,
        after: Duration,
        destination: DestinationNumber,
        cargo: CargoId,
    ) {
        self.deferred.insert((now + after, destination, cargo), ());
    }

    /// The deferred duties whose time has come, at most `max`.
    pub(super) fn due(&mut self, now: Monotonic, max: usize) -> Vec<(DestinationNumber, CargoId)> {
        let mut due = Vec::new();
        while due.len() < max
            && let Some(entry) = self.deferred.first_entry()
            && entry.key().0 <= now
        {
            let ((_, destination, cargo), ()) = entry.remove_entry();
            due.push((destination, cargo));
        }
        due
    }
}

/// The origin that is next after `last`, going round.
fn after_origin<R: Ready>(
    ready: &R,
    class: Class,
    last: Option<u32>,
) -> Result<Option<u32>, R::Error> {
    if let Some(next) = last.and_then(|o| o.checked_add(1)) {
        let from = Spot { origin: next, ..Spot::default() };
        if let Some((spot, _)) = ready.first_from(class, from)? {
            return Ok(Some(spot.origin));
        }
    }
    Ok(ready.first_from(class, Spot::default())?.map(|(spot, _)| spot.origin))
}

/// The study of `origin` that is next after `last`, going round.
fn after_study<R: Ready>(
    ready: &R,
    class: Class,
    origin: u32,
    last: Option<u64>,
) -> Result<Option<u64>, R::Error> {
    if let Some(next) = last.and_then(|s| s.checked_add(1)) {
        let from = Spot { origin, study: next, cargo: 0 };
        if let Some((spot, _)) = ready.first_from(class, from)?
            && spot.origin == origin
        {
            return Ok(Some(spot.study));
        }
    }
    let from = Spot { origin, ..Spot::default() };
    let first = ready.first_from(class, from)?;
    Ok(first.filter(|(spot, _)| spot.origin == origin).map(|(spot, _)| spot.study))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[derive(Default)]
    struct Queue(BTreeMap<(u8, Spot), u64>);

    impl Queue {
        fn add(&mut self, urgency: Urgency, origin: u32, study: u64, cargo: u64, length: u64) {
            self.0.insert((urgency as u8, Spot { origin, study, cargo }), length);
        }
        fn done(&mut self, schedule: &mut Schedule, pick: Pick) {
            self.0.remove(&(pick.class.urgency as u8, pick.spot));
            assert!(schedule.end(0, pick.cargo));
        }
    }

    impl Ready for Queue {
        type Error = Infallible;
        fn first_from(&self, c: Class, from: Spot) -> Result<Option<(Spot, u64)>, Infallible> {
            if c.large {
                return Ok(None);
            }
            let key = (c.urgency as u8, from);
            let found = self.0.range(key..).next().filter(|((u, _), _)| *u == key.0);
            Ok(found.map(|((_, spot), length)| (*spot, *length)))
        }
    }

    fn drain(queue: &mut Queue, schedule: &mut Schedule, n: usize) -> Vec<Pick> {
        let mut out = Vec::new();
        while out.len() < n {
            let Ok(Some(pick)) = schedule.pick(queue, 0, [true; 4], Size::Any) else { break };
            queue.done(schedule, pick);
            out.push(pick);
        }
        out
    }

    #[test]
    fn stat_overtakes_ten_thousand_routine_pieces() {
        let (mut q, mut s) = (Queue::default(), Schedule::default());
        (0..10_000).for_each(|n| q.add(Urgency::Routine, 1, 1, n, 500));
        drain(&mut q, &mut s, 10);
        (0..20).for_each(|n| q.add(Urgency::Stat, 1, 2, 10_000 + n, 500));
        let next = drain(&mut q, &mut s, 21);
        let stat = next.iter().filter(|p| p.class.urgency == Urgency::Stat).count();
        assert_eq!(stat, 20, "all but the share of the lower class");
    }

    #[test]
    fn a_lower_class_keeps_about_five_percent_while_a_higher_one_has_work() {
        let (mut q, mut s) = (Queue::default(), Schedule::default());
        (0..4000).for_each(|n| q.add(Urgency::Stat, 1, 1, n, 500));
        (0..4000).for_each(|n| q.add(Urgency::Bulk, 1, 1, 10_000 + n, 500));
        let bulk =
            drain(&mut q, &mut s, 2000).iter().filter(|p| p.class.urgency == Urgency::Bulk).count();
        assert!((80..=110).contains(&bulk), "{bulk} of 2000");
    }

    #[test]
    fn a_busy_hospital_takes_every_second_turn_however_many_studies_it_has() {
        let (mut q, mut s) = (Queue::default(), Schedule::default());
        for study in 0..100 {
            (0..50).for_each(|n| q.add(Urgency::Routine, 1, study, study * 100 + n, 500));
        }
        (0..50).for_each(|n| q.add(Urgency::Routine, 2, 7, 100_000 + n, 500));
        let first = drain(&mut q, &mut s, 100);
        assert_eq!(first.iter().filter(|p| p.spot.origin == 2).count(), 50);
    }

    #[test]
    fn what_is_leased_is_not_leased_again_until_it_comes_back() {
        let (mut q, mut s) = (Queue::default(), Schedule::default());
        (0..5).for_each(|n| q.add(Urgency::Routine, 1, 1, n, 500));
        let mut taken: Vec<u64> = Vec::new();
        while let Ok(Some(pick)) = s.pick(&q, 0, [true; 4], Size::Any) {
            taken.push(pick.cargo.0);
        }
        assert_eq!(taken, [0, 1, 2, 3, 4]);
        s.end(0, CargoId(2));
        let again = s.pick(&q, 0, [true; 4], Size::Any).unwrap().unwrap();
        assert_eq!(again.cargo, CargoId(2));
        assert_eq!(s.pick(&q, 0, [true; 4], Size::Any), Ok(None));
    }

    #[test]
    fn what_enters_behind_the_cursor_is_found_after_a_rewind() {
        let (mut q, mut s) = (Queue::default(), Schedule::default());
        (5..9).for_each(|n| q.add(Urgency::Routine, 1, 1, n, 500));
        assert_eq!(s.pick(&q, 0, [true; 4], Size::Any).unwrap().unwrap().cargo, CargoId(5));
        q.add(Urgency::Routine, 1, 1, 2, 500);
        s.rewind(0);
        assert_eq!(s.pick(&q, 0, [true; 4], Size::Any).unwrap().unwrap().cargo, CargoId(2));
    }

    #[test]
    fn an_image_that_was_not_looked_at_is_passed_over_and_other_origins_are_not() {
        let (mut q, mut s) = (Queue::default(), Schedule::default());
        s.fresh = Fresh::followed(1);
        (0..3).for_each(|n| q.add(Urgency::Stat, 1, n, n, 500));
        q.add(Urgency::Stat, 2, 9, 10, 500);
        let now = Monotonic(Duration::from_secs(10));
        (0..3).for_each(|n| assert!(s.fresh.take(now, CargoId(n + 100), Vec::new())));
        (0..3).for_each(|n| q.add(Urgency::Stat, 1, n, n + 100, 500));
        let taken: Vec<u64> = drain(&mut q, &mut s, 9).iter().map(|p| p.cargo.0).collect();
        assert_eq!(taken.len(), 4, "{taken:?}");
        assert!(taken.iter().all(|n| *n < 100), "{taken:?}");
        s.fresh.clear(CargoId(101));
        let taken: Vec<u64> = drain(&mut q, &mut s, 9).iter().map(|p| p.cargo.0).collect();
        assert_eq!(taken, [100, 101]);
    }

    #[test]
    fn a_pick_that_finds_nothing_asks_about_each_study_once() {
        struct Counted(Queue, std::cell::Cell<u32>);
        impl Ready for Counted {
            type Error = Infallible;
            fn first_from(&self, c: Class, from: Spot) -> Result<Option<(Spot, u64)>, Infallible> {
                self.1.set(self.1.get() + 1);
                self.0.first_from(c, from)
            }
        }
        let mut s = Schedule::default();
        let mut q = Queue::default();
        (0..4).for_each(|n| q.add(Urgency::Stat, n as u32 % 2, n, n, 500));
        let q = Counted(q, std::cell::Cell::new(0));
        (0..4).for_each(|_| assert!(s.pick(&q, 0, [true; 4], Size::Any).unwrap().is_some()));
        q.1.set(0);
        assert_eq!(s.pick(&q, 0, [true; 4], Size::Any), Ok(None));
        assert!(q.1.get() < 60, "{} questions", q.1.get());
    }

    #[test]
    fn deferred_duties_come_back_in_the_order_of_their_times() {
        let mut s = Schedule::default();
        let t = Monotonic(Duration::from_secs(10));
        s.defer(t, Duration::from_secs(5), 0, CargoId(1));
        s.defer(t, Duration::from_secs(1), 0, CargoId(2));
        assert_eq!(s.due(t, 9), []);
        assert_eq!(s.due(t + Duration::from_secs(2), 9), [(0, CargoId(2))]);
        assert_eq!(s.due(t + Duration::from_secs(9), 9), [(0, CargoId(1))]);
    }
}
