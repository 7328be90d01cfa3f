//! Running totals: what metrics, quotas and the status page show without counting rows.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::rows::DestinationNumber;
use super::state::StateName;
use crate::cargo::Urgency;

/// Totals of one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct DestinationTotals {
    /// Duties by urgency and state ([`Urgency::ALL`] by [`StateName::ALL`]).
    #[n(0)]
    pub duties: [[u64; 5]; 4],
    /// Bytes of duties that are not settled: owed, held or quarantined.
    #[n(1)]
    pub open_bytes: u64,
}

impl DestinationTotals {
    /// Duties in `state`, over all classes.
    pub(super) fn in_state(&self, state: StateName) -> u64 {
        self.duties.iter().map(|by_state| by_state[state as usize]).sum()
    }
}

/// Totals of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Totals {
    /// By destination.
    #[n(0)]
    pub destinations: BTreeMap<DestinationNumber, DestinationTotals>,
    /// Bytes present, by origin.
    #[n(1)]
    pub origins: BTreeMap<u32, u64>,
    /// Pieces of cargo whose bytes are here.
    #[n(2)]
    pub present: u64,
    /// Bytes of them.
    #[n(3)]
    pub present_bytes: u64,
    /// Pieces without a destination.
    #[n(4)]
    pub unrouted: u64,
    /// Tombstones.
    #[n(5)]
    pub tombstones: u64,
    /// Pieces held as conflicts, ever.
    #[n(6)]
    pub conflicts: u64,
    /// Entries of the register.
    #[n(7)]
    pub entries: u64,
    /// Bytes of them.
    #[n(8)]
    pub entry_bytes: u64,
}

impl Totals {
    /// Counts a duty in or out of its state. `by` is +1 or -1.
    pub(super) fn count(
        &mut self,
        destination: DestinationNumber,
        urgency: Urgency,
        state: StateName,
        bytes: u64,
        by: i64,
    ) {
        let totals = self.destinations.entry(destination).or_default();
        let cell = &mut totals.duties[urgency.index()][state as usize];
        *cell = cell.checked_add_signed(by).expect("a duty leaves only a state it was in");
        if !matches!(state, StateName::Receipted | StateName::Dismissed) {
            totals.open_bytes = if by > 0 {
                totals.open_bytes.saturating_add(bytes)
            } else {
                totals.open_bytes.saturating_sub(bytes)
            };
        }
    }
}
