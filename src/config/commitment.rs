//! `[orders.commitment]`: what storage commitment promises, and where its answers go.

use std::time::Duration;

use super::Config;
use super::reader::Section;
use super::sections::DestinationKind;
use super::source::Source;
use super::value::*;
use crate::dicom::AeTitle;
use crate::orders::commitment::{self, Peer, Rules, When};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[orders.commitment]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitmentSection {
    /// When an instance counts as committed.
    pub when: When,
    /// An instance that is not here so long after the request was never sent.
    pub grace: Duration,
    /// An instance that no node has signed for so long after the request has failed.
    pub wait: Duration,
    /// How long a report is tried.
    pub report_for: Duration,
    /// Where AE titles take reports when their association has ended.
    pub report_to: Vec<(AeTitle, HostPort)>,
}

pub(super) fn section(s: &mut Section<'_, '_>) -> CommitmentSection {
    const WHEN: &[(&str, When)] = &[("receipted", When::Receipted), ("here", When::Here)];
    let report_to = s.tables("report_to", |s| {
        let (title, address) = (s.need("ae_title", ae_title), s.need("address", host_port));
        Some((title?, address?))
    });
    CommitmentSection {
        when: s.or("when", "\"receipted\"", word(WHEN)),
        grace: s.or("grace", "\"30s\"", duration),
        wait: s.or("wait", "\"1d\"", duration),
        report_for: s.or("report_for", "\"7d\"", duration),
        report_to: report_to.into_iter().map(|(_, peer)| peer).collect(),
    }
}

pub(super) fn check(section: &CommitmentSection, source: &mut Source<'_>) {
    if section.grace > section.wait {
        source.problem(
            "orders.commitment.grace",
            "is longer than orders.commitment.wait",
            "what never came is told first: make it shorter",
        );
    }
    if section.wait > 30 * DAY || section.report_for > 30 * DAY {
        source.problem("orders.commitment", "waits too long", "wait, report_for: 30 days at most");
    }
    let mut titles: Vec<_> = section.report_to.iter().map(|(title, _)| title.as_str()).collect();
    titles.sort_unstable();
    if let Some(twice) = titles.windows(2).find(|pair| pair[0] == pair[1]) {
        source.problem(
            "orders.commitment.report_to",
            format!("names {} twice", twice[0]),
            "an AE title takes its reports at one address",
        );
    }
}

impl Config {
    /// What the committer is started with.
    pub fn committer(&self) -> Option<commitment::Config> {
        let section = &self.orders.as_ref()?.commitment;
        let nodes = self.destinations.iter();
        let nodes = nodes.filter(|d| matches!(d.kind, DestinationKind::Node { .. }));
        let peer = |(title, address): &(AeTitle, HostPort)| {
            (title.clone(), Peer { host: address.host.clone(), port: address.port })
        };
        Some(commitment::Config {
            node: self.node.name.clone(),
            rules: Rules {
                when: section.when,
                nodes: nodes.map(|d| d.name.clone()).collect(),
                grace: section.grace,
                wait: section.wait,
                report_for: section.report_for,
            },
            peers: section.report_to.iter().map(peer).collect(),
        })
    }
}
