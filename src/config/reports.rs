//! `[reports]`: reports that come home, who may sign them, and who must have seen them.

use std::time::Duration;

use super::Config;
use super::collect::{self, CollectSection};
use super::reader::Section;
use super::value::*;
use crate::reports::critical::{Flagging, Ladder};
use crate::reports::secretary::{self, Signing};
use crate::reports::turnaround::Promises;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[reports]`: present: this node keeps reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportsSection {
    /// How long the bytes of a report are kept after it is delivered.
    pub keep: Duration,
    /// What is critical.
    pub flagging: Flagging,
    /// Who is told of a critical result, and when.
    pub ladder: Ladder,
    /// By when what is promised.
    pub promises: Promises,
    /// Who may sign.
    pub signing: Vec<Signing>,
    /// How long a system may go without a yes before people are told.
    pub alarm: Duration,
    /// The ways in.
    pub collect: CollectSection,
}

pub(super) fn section(s: &mut Section<'_, '_>) -> Option<ReportsSection> {
    Some(ReportsSection {
        keep: s.or("keep", "\"90d\"", duration).max(DAY),
        flagging: Flagging::default(),
        ladder: Ladder { rungs: Vec::new(), repeat: DAY },
        promises: Promises::default(),
        signing: Vec::new(),
        alarm: s.or("alarm", "\"1h\"", duration),
        collect: collect::section(s),
    })
}

impl Config {
    /// How the secretary works; `None`: this node keeps no reports.
    pub fn secretary(&self) -> Option<secretary::Config> {
        let (reports, orders) = (self.reports.as_ref()?, self.orders.as_ref()?);
        Some(secretary::Config {
            node: self.node.name.clone(),
            peers: self.peers().into_keys().collect(),
            zone: orders.zone.clone(),
            homes: Default::default(),
            signing: reports.signing.clone(),
            ladder: reports.ladder.clone(),
            promises: reports.promises.clone(),
            alarm: reports.alarm,
        })
    }
}
