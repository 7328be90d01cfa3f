//! Whether there is room: watermarks, quotas, the share for STAT, the reserve. Pure.
//!
//! Refusal comes *before* the disk is full, so that what is in custody can always be sent on,
//! receipted and given back. Above the high watermark only STAT is taken, up to the STAT
//! watermark; the reserve below that belongs to the fact log and to draining.

use std::collections::HashMap;

use crate::cargo::{DestinationName, NodeName, Urgency};

/// The limits of the spool. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes that the spool may occupy; `None`: the file system's size.
    pub capacity: Option<u64>,
    /// Percent of the capacity above which only STAT is taken.
    pub high_watermark: u8,
    /// Percent of the capacity above which nothing is taken.
    pub stat_watermark: u8,
    /// Bytes of the file system that stay free whatever comes.
    pub reserve: u64,
    /// Most bytes that may be open (owed, held, quarantined) for a destination.
    pub destination_quota: HashMap<DestinationName, u64>,
    /// Most bytes that an origin may have here.
    pub origin_quota: HashMap<NodeName, u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            capacity: None,
            high_watermark: 85,
            stat_watermark: 95,
            reserve: 256 << 20,
            destination_quota: HashMap::new(),
            origin_quota: HashMap::new(),
        }
    }
}

/// What is occupied now. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// By the spool.
    pub spool: u64,
    /// Free for us on the file system.
    pub free: u64,
    /// Size of the file system.
    pub total: u64,
}

impl Limits {
    fn capacity(&self, usage: Usage) -> u64 {
        self.capacity.unwrap_or(usage.total)
    }

    /// Bytes above which routine cargo is refused.
    pub fn watermark(&self, usage: Usage, urgency: Urgency) -> u64 {
        let percent = match urgency {
            Urgency::Stat => self.stat_watermark,
            _ => self.high_watermark,
        };
        self.capacity(usage) / 100 * u64::from(percent)
    }

    /// What counts against the watermark: the spool where it has a capacity of its own, else all
    /// that fills the file system.
    pub const fn occupied(&self, usage: Usage) -> u64 {
        match self.capacity {
            Some(_) => usage.spool,
            None => usage.total.saturating_sub(usage.free),
        }
    }

    /// Refuses `length` more bytes, in words, when they would cross a watermark or the reserve.
    pub fn admit(&self, usage: Usage, urgency: Urgency, length: u64) -> Result<(), String> {
        let watermark = self.watermark(usage, urgency);
        if self.occupied(usage).saturating_add(length) > watermark {
            return Err(format!(
                "the spool is above its watermark ({} of {} MB used)",
                self.occupied(usage) / 1_000_000,
                watermark / 1_000_000
            ));
        }
        if usage.free < self.reserve.saturating_add(length) {
            return Err(format!(
                "the disk is nearly full ({} MB free, {} MB reserved)",
                usage.free / 1_000_000,
                self.reserve / 1_000_000
            ));
        }
        Ok(())
    }

    /// Refuses when a destination's open bytes would exceed its quota.
    pub fn admit_for(
        &self,
        destination: &DestinationName,
        open: u64,
        length: u64,
    ) -> Result<(), String> {
        match self.destination_quota.get(destination) {
            Some(&quota) if open.saturating_add(length) > quota => Err(format!(
                "destination {destination} has used its quota ({} of {} MB wait for it)",
                open / 1_000_000,
                quota / 1_000_000
            )),
            _ => Ok(()),
        }
    }

    /// Refuses when an origin's bytes here would exceed its quota.
    pub fn admit_from(&self, origin: &NodeName, here: u64, length: u64) -> Result<(), String> {
        match self.origin_quota.get(origin) {
            Some(&quota) if here.saturating_add(length) > quota => Err(format!(
                "origin {origin} has used its quota ({} of {} MB are here)",
                here / 1_000_000,
                quota / 1_000_000
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn usage(spool: u64, free: u64) -> Usage {
        Usage { spool: spool * MB, free: free * MB, total: 1000 * MB }
    }

    #[test]
    fn routine_is_refused_above_the_high_watermark_and_stat_is_still_taken() {
        let limits = Limits { capacity: Some(100 * MB), reserve: MB, ..Limits::default() };
        assert!(limits.admit(usage(84, 500), Urgency::Routine, MB).is_ok());
        assert!(limits.admit(usage(85, 500), Urgency::Routine, MB).is_err());
        assert!(limits.admit(usage(85, 500), Urgency::Stat, MB).is_ok());
        assert!(limits.admit(usage(95, 500), Urgency::Stat, MB).is_err());
    }

    #[test]
    fn the_reserve_is_never_given_away_not_even_to_stat() {
        let limits = Limits { capacity: Some(900 * MB), reserve: 50 * MB, ..Limits::default() };
        assert!(limits.admit(usage(0, 51), Urgency::Stat, MB).is_ok());
        assert!(limits.admit(usage(0, 51), Urgency::Stat, 2 * MB).is_err());
    }

    #[test]
    fn without_a_capacity_of_its_own_the_spool_counts_all_that_fills_the_disk() {
        let limits = Limits { reserve: MB, ..Limits::default() };
        assert!(limits.admit(usage(0, 200), Urgency::Routine, MB).is_ok());
        assert!(limits.admit(usage(0, 100), Urgency::Routine, MB).is_err());
    }

    #[test]
    fn a_dead_destination_refuses_only_what_is_routed_there() {
        let dead: DestinationName = "dead".parse().unwrap();
        let alive: DestinationName = "alive".parse().unwrap();
        let quota = HashMap::from([(dead.clone(), 10 * MB)]);
        let limits = Limits { destination_quota: quota, ..Limits::default() };
        assert!(limits.admit_for(&dead, 10 * MB, 1).is_err());
        assert!(limits.admit_for(&alive, 10 * MB, 1).is_ok());
    }
}
