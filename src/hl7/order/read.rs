//! Messages to orders.

use super::{Action, ORDERS_MAX, Observation, Order, OrderMessage, Priority, Step};
use crate::hl7::ack::{Condition, REFUSALS_MAX, Refusal};
use crate::hl7::datatype::{Coded, Identifier, Person, all, telecommunication, value};
use crate::hl7::message::{Message, Piece, SegmentRef};
use crate::hl7::path::{Location, Path};
use crate::hl7::patient::{note, patient_and_visit};
use crate::hl7::time::TimeStamp;

/// Value types whose `^` is text (OBX-2, table 0125).
const TEXTS: [&str; 4] = ["TX", "FT", "ST", ""];

/// Where sites put what the standard has several places for; the first path that says something
/// counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFields {
    /// Accession number.
    pub accession: Vec<Path>,
    /// Study Instance UID.
    pub study_uid: Vec<Path>,
    /// When the examination is scheduled.
    pub scheduled_at: Vec<Path>,
}

impl Default for OrderFields {
    /// Accession number: IPC-1, OBR-18, OBR-3, ORC-3. Study Instance UID: IPC-3, ZDS-1. Scheduled:
    /// TQ1-7, ORC-7.4, OBR-27.4, OBR-36, OBR-6, OBR-7.
    fn default() -> Self {
        let paths = |list: &[&str]| list.iter().map(|path| path.parse().expect("a path")).collect();
        Self {
            accession: paths(&["IPC-1", "OBR-18", "OBR-3", "ORC-3"]),
            study_uid: paths(&["IPC-3", "ZDS-1"]),
            scheduled_at: paths(&["TQ1-7", "ORC-7.4", "OBR-27.4", "OBR-36", "OBR-6", "OBR-7"]),
        }
    }
}

/// The segments of one order.
struct Group<'a> {
    orc: SegmentRef<'a>,
    obr: Option<SegmentRef<'a>>,
    /// Whether an order before it has the same ORC.
    shared: bool,
    /// All others that belong to it.
    others: Vec<SegmentRef<'a>>,
}

impl OrderMessage {
    /// Reads ORM^O01, OMG^O19 or OMI^O23. One order that cannot be taken refuses the message: its
    /// sender knows no other unit.
    pub fn read(message: &Message, fields: &OrderFields) -> Result<Self, Vec<Refusal>> {
        let head: Vec<_> =
            message.segments().take_while(|s| !s.is("ORC") && !s.is("OBR")).collect();
        let (patient, visit) =
            patient_and_visit(head.iter().copied()).map_err(|refusal| vec![refusal])?;
        let groups = groups(message, head.len()).map_err(|refusal| vec![refusal])?;
        let (mut orders, mut refusals) = (Vec::new(), Vec::new());
        let mut action = Action::default();
        for group in groups {
            match group.read(fields, &head, &mut action) {
                Ok(None) => {}
                Ok(Some(order)) => orders.push(order),
                Err(refusal) if refusals.len() < REFUSALS_MAX => refusals.push(refusal),
                Err(_) => {}
            }
        }
        if refusals.is_empty() && orders.is_empty() {
            refusals.push(Refusal::missing(Location::segment("ORC", 1)));
        }
        if refusals.is_empty() { Ok(Self { patient, visit, orders }) } else { Err(refusals) }
    }
}

/// Splits what follows the patient into orders.
fn groups(message: &Message, head: usize) -> Result<Vec<Group<'_>>, Refusal> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for segment in message.segments().skip(head) {
        let group = groups.last_mut();
        if segment.is("ORC") {
            groups.push(Group { orc: segment, obr: None, shared: false, others: Vec::new() });
        } else if segment.is("OBR") {
            let group = group.ok_or_else(|| Refusal::missing(Location::segment("ORC", 1)))?;
            if group.obr.is_none() {
                group.obr = Some(segment);
            } else {
                let orc = group.orc;
                groups.push(Group { orc, obr: Some(segment), shared: true, others: Vec::new() });
            }
        } else if let Some(group) = group {
            group.others.push(segment);
        }
        if groups.len() > ORDERS_MAX {
            let words = format!("more than {ORDERS_MAX} orders in one message");
            let location = Location::segment(segment.name(), segment.sequence());
            return Err(Refusal::error(location, Condition::ApplicationInternalError, words));
        }
    }
    Ok(groups)
}

impl<'a> Group<'a> {
    /// Reads an order; none when it is a prior result. `action` is what the last ORC that meant
    /// something by itself meant.
    fn read(
        &self,
        fields: &OrderFields,
        head: &[SegmentRef<'a>],
        action: &mut Action,
    ) -> Result<Option<Order>, Refusal> {
        let orc = self.orc;
        let control = value(orc.field(1).component(1)).to_ascii_uppercase();
        if control == "PR" {
            return Ok(None);
        }
        let status = value(orc.field(5).component(1));
        match (Action::of_control(&control), control.as_str()) {
            (Some(own), _) => *action = own.of_status(&status),
            (None, "PA" | "CH") => {}
            (None, "") => return Err(Refusal::missing(orc.location(1))),
            (None, _) => {
                let words = "ORC-1 is no order control code of table 0119".to_owned();
                let condition = Condition::TableValueNotFound;
                return Err(Refusal::error(orc.location(1), condition, words));
            }
        }
        let placer = self.number(2);
        let filler = self.number(3);
        if placer.is_empty() && filler.is_empty() {
            return Err(Refusal::missing(orc.location(2)));
        }
        let mut order =
            Order { control, action: *action, placer, filler, status, ..Order::default() };
        self.check(&order)?;
        self.read_orc(&mut order, head);
        self.read_obr(&mut order);
        self.read_priority(&mut order);
        let first = |paths| self.first(paths, head);
        order.accession = first(&fields.accession);
        order.study_uid = first(&fields.study_uid);
        order.scheduled_at = TimeStamp::new(&first(&fields.scheduled_at));
        order.steps = self.steps(&order);
        order.notes = self.all("NTE").filter_map(note).collect();
        order.observations = self.all("OBX").map(observation).collect();
        Ok(Some(order))
    }

    /// A new order must say what is to be done; any other may rest on what is known.
    fn check(&self, order: &Order) -> Result<(), Refusal> {
        if order.action != Action::New {
            return Ok(());
        }
        match self.obr {
            None => Err(Refusal::missing(Location::segment("OBR", self.orc.sequence()))),
            Some(obr) => {
                let says = !Coded::read(obr.field(4).repetition(1)).is_empty();
                says.then_some(()).ok_or_else(|| Refusal::missing(obr.location(4)))
            }
        }
    }

    fn read_orc(&self, order: &mut Order, head: &[SegmentRef<'a>]) {
        let orc = self.orc;
        order.group = Identifier::read(orc.field(4).repetition(1));
        let parents = [Some(orc.field(8)), self.obr.map(|obr| obr.field(29))];
        if let Some(parent) = parents.into_iter().flatten().find(|parent| !parent.is_empty()) {
            let parent = parent.repetition(1);
            order.parent = Identifier::of_component(parent.component(1));
            order.parent_filler = Identifier::of_component(parent.component(2));
        }
        order.ordered_at = TimeStamp::new(&value(orc.field(9).component(1)));
        order.requesters = all(orc.field(12), Person::read);
        order.contacts = all(orc.field(14), telecommunication);
        order.control_reason = Coded::read(orc.field(16).repetition(1));
        order.department = Coded::read(orc.field(17).repetition(1));
        order.facility = value(orc.field(21).repetition(1).component(1));
        let pv1 = head.iter().find(|segment| segment.is("PV1"));
        if let Some(pv1) = pv1.filter(|_| order.department.is_empty()) {
            let place = pv1.field(3).repetition(1);
            let is_clinic = value(place.component(6)) == "C";
            let service = value(pv1.field(10).component(1));
            let clinic = || if is_clinic { value(place.component(1)) } else { String::new() };
            let id = if service.is_empty() { clinic() } else { service };
            order.department.id = id;
        }
    }

    fn read_obr(&self, order: &mut Order) {
        let Some(obr) = self.obr else { return };
        order.procedure = Coded::read(obr.field(4).repetition(1));
        order.procedure_code = Coded::read(obr.field(44).repetition(1));
        order.danger = Coded::read(obr.field(12).repetition(1));
        order.clinical_information = obr.field(13).text().into_owned();
        order.reasons = all(obr.field(31), Coded::read);
        if order.requesters.is_empty() {
            order.requesters = all(obr.field(16), Person::read);
        }
        if order.contacts.is_empty() {
            order.contacts = all(obr.field(17), telecommunication);
        }
    }

    fn read_priority(&self, order: &mut Order) {
        let tq1 = self.all("TQ1").map(|tq1| tq1.field(9).repetition(1).component(1));
        let quantity = |segment: SegmentRef<'a>, field| {
            segment.field(field).repetition(1).component(6).subcomponent(1)
        };
        let obr = self.obr.map(|obr| [quantity(obr, 27), obr.field(5)]);
        let places = tq1.chain([quantity(self.orc, 7)]).chain(obr.into_iter().flatten());
        order.priority_code = places.map(value).find(|code| !code.is_empty()).unwrap_or_default();
        order.priority = Priority::of_code(&order.priority_code);
    }

    /// The order number of ORC, or of OBR.
    fn number(&self, field: u16) -> Identifier {
        let number = |segment: SegmentRef<'a>| Identifier::read(segment.field(field).repetition(1));
        let own = number(self.orc);
        // Further orders under one ORC have numbers of their own.
        let obr = self.obr.map(number).filter(|number| !number.is_empty());
        if own.is_empty() || self.shared { obr.unwrap_or(own) } else { own }
    }

    fn all(&self, name: &str) -> impl Iterator<Item = SegmentRef<'a>> {
        self.others.iter().copied().filter(move |segment| segment.is(name))
    }

    /// What the first path says that says something: in this order, or before all orders.
    fn first(&self, paths: &[Path], head: &[SegmentRef<'a>]) -> String {
        let own = [Some(self.orc), self.obr];
        let texts = paths.iter().flat_map(|path| {
            let own = own.into_iter().flatten();
            let segments = own.chain(self.others.iter().copied()).chain(head.iter().copied());
            segments.filter(|s| s.is(path.segment())).map(|s| s.text(path))
        });
        let mut texts = texts.map(|text| text.trim_matches(' ').to_owned());
        texts.find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// IPC, or the step that OBR describes (IHE, version 2.3.1).
    fn steps(&self, order: &Order) -> Vec<Step> {
        let mut steps: Vec<Step> = self.all("IPC").map(|ipc| step(ipc, order)).collect();
        if let (true, Some(obr)) = (steps.is_empty(), self.obr) {
            steps.push(Step {
                requested_procedure_id: value(obr.field(19).component(1)),
                id: value(obr.field(20).component(1)),
                modality: value(obr.field(24).component(1)),
                ..Step::of_order(order)
            });
        }
        // Steps that only repeat which study it is say nothing.
        let none = Step::of_order(order);
        if steps.iter().all(|step| *step == none) { vec![] } else { steps }
    }
}

fn step(ipc: SegmentRef<'_>, order: &Order) -> Step {
    let text = |field| value(ipc.field(field).repetition(1).component(1));
    let or = |own: String, of_order: &String| if own.is_empty() { of_order.clone() } else { own };
    Step {
        accession: or(text(1), &order.accession),
        study_uid: or(text(3), &order.study_uid),
        requested_procedure_id: text(2),
        id: text(4),
        modality: text(5),
        protocols: all(ipc.field(6), Coded::read),
        station_name: text(7),
        location: Coded::read(ipc.field(8).repetition(1)),
        ae_titles: all(ipc.field(9), value),
    }
}

fn observation(obx: SegmentRef<'_>) -> Observation {
    let kind = value(obx.field(2).component(1));
    let is_text = TEXTS.contains(&kind.as_str());
    let parts = |piece: Piece<'_>| {
        if is_text {
            let text = piece.text().into_owned();
            return if text.is_empty() { vec![] } else { vec![text] };
        }
        let mut parts: Vec<String> = piece.components().map(value).collect();
        let used = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
        parts.truncate(used);
        parts
    };
    Observation {
        kind,
        code: Coded::read(obx.field(3).repetition(1)),
        values: all(obx.field(5), parts),
        units: Coded::read(obx.field(6).repetition(1)),
    }
}
