//! Asks the rules in force where cargo goes.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::cargo::{Assignment, CargoKind, DestinationName, Envelope};
use crate::config::{Config, DestinationKind};
use crate::custody::CargoId;
use crate::dicom::header::{self, Header, Reading};
use crate::intake::report::Reports;
use crate::orders::registrar::{Desk, HeldStudies, PriorStudies, Receivers, UNTIL_MATCHED, Ways};
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
    /// Studies that are priors: they are in no hurry, and wait for no order.
    priors: PriorStudies,
    /// Destinations that are nodes: what nodes tell each other goes nowhere else.
    nodes: BTreeSet<DestinationName>,
    /// Destinations that take orders by HL7, as they stand at each question.
    receivers: Arc<ArcSwap<Receivers>>,
    /// Who knows what orders say, where somebody does.
    desk: OnceLock<Desk>,
    /// Who collects reports, where somebody does.
    reports: OnceLock<Arc<dyn Reports>>,
}

impl TableRouter {
    pub(super) fn new(routes: Arc<ArcSwap<Table>>, config: &Config) -> Self {
        let nodes = config.destinations.iter().filter_map(|destination| match destination.kind {
            DestinationKind::Node { .. } => Some(destination.name.clone()),
            _ => None,
        });
        let receivers = Arc::new(ArcSwap::from_pointee(config.receivers()));
        Self {
            routes,
            held: HeldStudies::default(),
            priors: PriorStudies::default(),
            nodes: nodes.collect(),
            receivers,
            desk: OnceLock::new(),
            reports: OnceLock::new(),
        }
    }

    /// Where a reload tells how receivers of HL7 take orders.
    pub(super) fn receivers(&self) -> Arc<ArcSwap<Receivers>> {
        self.receivers.clone()
    }

    /// Whom to ask what orders say of images that come.
    pub(super) fn ask(&self, desk: &Desk) {
        let _ = self.desk.set(desk.clone());
    }

    /// Who collects what comes as a report.
    pub(super) fn collect(&self, reports: Arc<dyn Reports>) {
        let _ = self.reports.set(reports);
    }

    /// Where the studies are told whose images wait for a person.
    pub(super) fn held(&self) -> HeldStudies {
        self.held.clone()
    }

    /// Where the studies are told that are priors.
    pub(super) fn priors(&self) -> PriorStudies {
        self.priors.clone()
    }

    fn defer_prior(&self, envelope: &Envelope, to: &mut [Assignment]) {
        let Some(urgency) = self.priors.load().get(&envelope.study_key()).copied() else { return };
        for assignment in to {
            assignment.urgency = urgency.max(assignment.urgency);
            assignment.hold.take_if(|hold| hold == UNTIL_MATCHED);
        }
    }

    fn among_nodes(
        &self,
        envelope: &Envelope,
        attribute: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Assignment> {
        let mut to = self.routes.load().assign(&Subject { envelope, attribute });
        to.retain(|a| self.nodes.contains(&a.destination));
        self.defer_prior(envelope, &mut to);
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

    fn tell(
        &self,
        envelope: &Envelope,
        attribute: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Assignment> {
        let mut to = self.routes.load().assign(&Subject { envelope, attribute });
        let receivers = self.receivers.load();
        to.retain(|a| receivers.contains_key(&a.destination));
        to
    }

    fn route(
        &self,
        envelope: &Envelope,
        attribute: &dyn Fn(&str) -> Option<String>,
    ) -> Option<String> {
        let routes = self.routes.load();
        let rule = routes.first_to(&Subject { envelope, attribute }, &self.nodes)?;
        Some(rule.name.clone())
    }

    fn receivers(&self) -> Arc<Receivers> {
        self.receivers.load_full()
    }

    fn corrects_any(&self) -> bool {
        self.routes.load().corrects_any()
    }

    fn corrects(&self, envelope: &Envelope, attribute: &dyn Fn(&str) -> Option<String>) -> bool {
        self.routes.load().corrects(&Subject { envelope, attribute })
    }

    fn holds_until_matched(&self) -> bool {
        let routes = self.routes.load();
        routes.rules().iter().any(|rule| rule.hold.as_deref() == Some(UNTIL_MATCHED))
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
        self.defer_prior(envelope, &mut to);
        if let Some(why) = self.held.load().get(&envelope.study_key()) {
            to.iter_mut().filter(|a| a.hold.is_none()).for_each(|a| a.hold = Some(why.clone()));
        }
        to
    }

    fn correct<'a>(
        &'a self,
        envelope: &'a Envelope,
        header: &'a Header,
    ) -> intake::correct::Answer<'a> {
        let attribute = |keyword: &str| {
            let tag = header::tag_of(keyword)?;
            header.attribute(tag).map(str::to_owned)
        };
        let wanted = Ways::corrects(self, envelope, &attribute);
        let desk = self.desk.get().filter(|_| wanted);
        Box::pin(async move { desk?.correction(envelope, header).await })
    }

    fn reports(&self) -> Option<&dyn Reports> {
        self.reports.get().map(|reports| &**reports)
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

/// Gives cargo that no rule matched the destinations that the rules in force give it. Orders hear
/// of it before: theirs are to travel, too.
pub(super) async fn route_unrouted(view: Arc<ops::View>) {
    view.custody.until_ready().await;
    let mut after = CargoId(0);
    let mut routed = 0u64;
    while let Some(page) = view.custody.unrouted(after, PAGE).await {
        let Some((last, _, _)) = page.last() else { break };
        after = *last;
        let mut found = Vec::new();
        for (cargo, envelope, body) in page {
            let head = match body.reader(0).next(HEAD_BYTES).await {
                Ok(head) => head.unwrap_or_default(),
                Err(_) => continue,
            };
            let whole = head.len() as u64 == body.len();
            let assignments = assign_body(&view.routes.load(), &envelope, &head, whole);
            if !assignments.is_empty() {
                found.push((cargo, assignments));
            }
        }
        let images: Vec<CargoId> = found.iter().map(|(cargo, _)| *cargo).collect();
        if let Some(orders) = view.orders.as_ref().filter(|_| !images.is_empty())
            && let Err(error) = orders.routed(images).await
        {
            // The images matter more than what is said of them.
            tracing::warn!(%error, "orders do not know that images go to nodes that they did not");
        }
        for (cargo, assignments) in found {
            routed += u64::from(view.custody.assign(cargo, assignments).await);
        }
    }
    if routed > 0 {
        tracing::info!(routed, "cargo that was unrouted has destinations now");
    }
}
