//! Asks the rules in force where cargo goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cargo::{Assignment, CargoKind, DestinationName, Envelope};
use crate::config::{Config, DestinationKind};
use crate::custody::CargoId;
use crate::dicom::header::{self, Header, Reading};
use crate::orders::registrar::{HeldStudies, Ways};
use crate::routing::{Subject, Table, Times};
use crate::{intake, ops, tunnel};

/// Bytes of a body that are read to route it again.
const HEAD_BYTES: usize = 256 << 10;
/// Pieces of unrouted cargo looked at together.
const PAGE: usize = 100;

/// The rules, as they stand at each question.
pub(super) struct TableRouter {
    routes: Arc<ArcSwap<Table>>,
    /// Studies whose images wait for a person.
    held: HeldStudies,
    /// Destinations that are nodes: what is no image goes nowhere else.
    nodes: BTreeSet<DestinationName>,
}

impl TableRouter {
    pub(super) fn new(routes: Arc<ArcSwap<Table>>, config: &Config) -> Self {
        let nodes = config.destinations.iter().filter_map(|destination| match destination.kind {
            DestinationKind::Node { .. } => Some(destination.name.clone()),
            _ => None,
        });
        Self { routes, held: HeldStudies::default(), nodes: nodes.collect() }
    }

    /// Where the studies are told whose images wait for a person.
    pub(super) fn held(&self) -> HeldStudies {
        self.held.clone()
    }

    fn among_nodes(
        &self,
        envelope: &Envelope,
        attribute: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Assignment> {
        let mut to = self.routes.load().assign(&Subject { envelope, attribute });
        to.retain(|a| self.nodes.contains(&a.destination));
        to
    }
}

impl Ways for TableRouter {
    fn assign(
        &self,
        envelope: &Envelope,
        attribute: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Assignment> {
        self.among_nodes(envelope, attribute)
    }

    fn times(&self, envelope: &Envelope, attribute: &dyn Fn(&str) -> Option<String>) -> Times {
        self.routes.load().times(&Subject { envelope, attribute })
    }
}

fn assign(table: &Table, envelope: &Envelope, header: Option<&Header>) -> Vec<Assignment> {
    let attribute = |keyword: &str| {
        let tag = header::tag_of(keyword)?;
        header?.attribute(tag).map(str::to_owned)
    };
    table.assign(&Subject { envelope, attribute: &attribute })
}

fn assign_body(table: &Table, envelope: &Envelope, head: &[u8], whole: bool) -> Vec<Assignment> {
    if envelope.kind != CargoKind::Image {
        return Vec::new();
    }
    if table.attributes().is_empty() {
        return assign(table, envelope, None);
    }
    match header::read(head, &envelope.transfer_syntax, whole) {
        Reading::Header(header) => assign(table, envelope, Some(&header)),
        Reading::Empty | Reading::Unreadable => assign(table, envelope, None),
    }
}

impl intake::Router for TableRouter {
    fn assign(&self, envelope: &Envelope, header: &Header) -> Vec<Assignment> {
        let mut to = assign(&self.routes.load(), envelope, Some(header));
        if let Some(why) = self.held.load().get(&envelope.study_key()) {
            to.iter_mut().filter(|a| a.hold.is_none()).for_each(|a| a.hold = Some(why.clone()));
        }
        to
    }
}

impl tunnel::Router for TableRouter {
    fn assign(&self, envelope: &Envelope, head: &[u8], complete: bool) -> Vec<Assignment> {
        if matches!(envelope.kind, CargoKind::Order | CargoKind::Manifest) {
            // What comes from a node is not for the same node.
            let mut on = self.among_nodes(envelope, &|_| None);
            on.retain(|a| a.destination != envelope.identity.origin);
            on.iter_mut().for_each(|a| a.hold = None);
            return on;
        }
        assign_body(&self.routes.load(), envelope, head, complete)
    }
}

/// Gives cargo that no rule matched the destinations that the rules in force give it.
pub(super) async fn route_unrouted(view: Arc<ops::View>) {
    while !view.custody.summary().ready {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut after = CargoId(0);
    let mut routed = 0u64;
    while let Some(page) = view.custody.unrouted(after, PAGE).await {
        let Some((last, _, _)) = page.last() else { break };
        after = *last;
        for (cargo, envelope, body) in page {
            let head = match body.reader(0).next(HEAD_BYTES).await {
                Ok(head) => head.unwrap_or_default(),
                Err(_) => continue,
            };
            let whole = head.len() as u64 == body.len();
            let assignments = assign_body(&view.routes.load(), &envelope, &head, whole);
            if !assignments.is_empty() && view.custody.assign(cargo, assignments).await {
                routed += 1;
            }
        }
    }
    if routed > 0 {
        tracing::info!(routed, "cargo that was unrouted has destinations now");
    }
}
