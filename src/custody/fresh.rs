//! Images that have just come, and may not leave before whoever follows arrivals has looked at them
//! and has put the holds that follow from it. Pure: time is an argument.
//!
//! Nobody is waited for longer than [`WAIT`]: what is not looked at by then may leave, since an image
//! that does not arrive is worse than one that a person must put right. What an earlier life of this
//! node took and nobody has looked at waits as long, from the moment when it could leave at all.
//!
//! Only images of this node wait, and only where somebody follows. They are kept in order of
//! acceptance, so that a look costs O(log n) and each image is put in and taken out once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::rows::CargoId;
use super::schedule::Spot;
use crate::cargo::DestinationName;
use crate::clock::Monotonic;

/// Longest wait of an image for being looked at.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// Who may have new work.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    /// These destinations.
    pub some: BTreeSet<DestinationName>,
    /// All of them.
    pub all: bool,
    /// Images for which the wait was in vain.
    pub in_vain: u64,
}

/// Images that may not leave yet.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// The key of this node as an origin; `None`: nobody follows, and nothing waits.
    own: Option<u32>,
    /// All up to this number were looked at.
    cleared: u64,
    /// Taken in this life: since when, and who is to be told.
    waiting: BTreeMap<u64, (Monotonic, Vec<DestinationName>)>,
    /// What is numbered below this was taken earlier, and waits until then.
    earlier: Option<(u64, Monotonic)>,
}

impl Fresh {
    /// Where images of the origin `own` are looked at.
    pub(super) fn followed(own: u32) -> Self {
        Self { own: Some(own), ..Self::default() }
    }

    /// Duties can be leased from now on: what is numbered below `before` waits from now.
    pub(super) fn begin(&mut self, now: Monotonic, before: CargoId) {
        if self.own.is_some() {
            self.earlier = Some((before.0, now + WAIT));
        }
    }

    /// An image of this node has come. True: it waits, and `to` are told when it may leave.
    pub(super) fn take(
        &mut self,
        now: Monotonic,
        cargo: CargoId,
        to: Vec<DestinationName>,
    ) -> bool {
        if self.own.is_none() {
            return false;
        }
        self.waiting.insert(cargo.0, (now, to));
        true
    }

    /// All up to `upto` were looked at.
    pub(super) fn clear(&mut self, upto: CargoId) -> Woken {
        let mut woken = Woken::default();
        if self.own.is_none() || upto.0 <= self.cleared {
            return woken;
        }
        self.cleared = upto.0;
        woken.all = self.earlier.is_some();
        if self.earlier.is_some_and(|(before, _)| upto.0 >= before) {
            self.earlier = None;
        }
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= upto.0
        {
            woken.some.extend(entry.remove().1);
        }
        woken
    }

    /// What has waited long enough may leave.
    pub(super) fn pass(&mut self, now: Monotonic) -> Woken {
        let mut woken = Woken::default();
        if self.earlier.is_some_and(|(_, until)| until <= now) {
            self.earlier = None;
            woken.all = true;
        }
        while let Some(entry) = self.waiting.first_entry()
            && entry.get().0 + WAIT <= now
        {
            woken.some.extend(entry.remove().1);
            woken.in_vain += 1;
        }
        woken
    }

    /// Whether what stands there may not leave yet. Then nothing behind it in its study may.
    pub(super) fn holds(&self, spot: Spot) -> bool {
        if self.own != Some(spot.origin) || spot.cargo <= self.cleared {
            return false;
        }
        let earlier = self.earlier.is_some_and(|(before, _)| spot.cargo < before);
        earlier || self.waiting.contains_key(&spot.cargo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 7;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn spot(cargo: u64) -> Spot {
        Spot { origin: OWN, study: 1, cargo }
    }

    fn pacs() -> Vec<DestinationName> {
        vec!["pacs".parse().unwrap()]
    }

    #[test]
    fn an_image_waits_until_it_was_looked_at_and_its_destinations_are_told() {
        let mut fresh = Fresh::followed(OWN);
        assert!(fresh.take(at(0), CargoId(11), pacs()));
        assert!(fresh.take(at(0), CargoId(12), vec!["node".parse().unwrap()]));
        assert!(fresh.holds(spot(11)) && fresh.holds(spot(12)));
        let woken = fresh.clear(CargoId(11));
        assert_eq!(woken.some, pacs().into_iter().collect());
        assert!(!woken.all && !fresh.holds(spot(11)) && fresh.holds(spot(12)));
        assert_eq!(fresh.clear(CargoId(5)), Woken::default(), "the horizon never goes back");
        assert!(!fresh.holds(spot(11)));
    }

    #[test]
    fn nobody_is_waited_for_longer_than_the_stated_time() {
        let mut fresh = Fresh::followed(OWN);
        fresh.take(at(1), CargoId(11), pacs());
        fresh.take(at(3), CargoId(12), pacs());
        assert_eq!(fresh.pass(at(5)), Woken::default());
        let woken = fresh.pass(at(6));
        assert_eq!((woken.in_vain, woken.some.len()), (1, 1));
        assert!(!fresh.holds(spot(11)) && fresh.holds(spot(12)));
        assert_eq!(fresh.pass(at(8)).in_vain, 1);
        assert!(!fresh.holds(spot(12)));
    }

    #[test]
    fn what_an_earlier_life_took_waits_as_long_and_no_longer() {
        let mut fresh = Fresh::followed(OWN);
        fresh.begin(at(100), CargoId(50));
        assert!(fresh.holds(spot(49)) && !fresh.holds(spot(50)));
        assert!(fresh.clear(CargoId(40)).all);
        assert!(!fresh.holds(spot(40)) && fresh.holds(spot(41)));
        assert!(fresh.pass(at(105)).all);
        assert!(!fresh.holds(spot(41)));
        fresh.begin(at(200), CargoId(60));
        assert!(fresh.clear(CargoId(60)).all);
        assert!(!fresh.pass(at(205)).all, "all of them were looked at");
    }

    #[test]
    fn what_comes_from_other_nodes_never_waits_and_nothing_does_where_nobody_follows() {
        let mut fresh = Fresh::followed(OWN);
        fresh.begin(at(0), CargoId(50));
        assert!(!fresh.holds(Spot { origin: OWN + 1, ..spot(1) }));
        let mut nobody = Fresh::default();
        nobody.begin(at(0), CargoId(50));
        assert!(!nobody.take(at(0), CargoId(51), pacs()));
        assert!(!nobody.holds(spot(1)) && !nobody.holds(spot(51)));
    }
}
