//! What HL7 messages say, in the words of this room. Pure.
//!
//! Orders of one message that have the same number are one order. JAHIS sends a parent and its
//! children under one placer number, or the children under numbers of their own: those are parts of
//! the parent's order ([`Part`]), which they name (ORC-8). The times of a message are local to its sender; where it
//! states no offset they are read in the zone that the caller gives.

use jiff::tz::TimeZone;

use crate::cargo::{Urgency, peer_text};
use crate::clock::Timestamp;
use crate::hl7::datatype::{
    Authority as Hl7Authority, Coded, Identifier as Hl7Identifier, Name, Person,
};
use crate::hl7::order::{Action as Asked, Observation, Order as Hl7Order, OrderMessage, Priority};
use crate::hl7::patient::Patient as Hl7Patient;
use crate::hl7::time::{Precision, TimeStamp};
use crate::orders::identifier::{Authority, Identifier, Patient};
use crate::orders::order::{Action, Clinical, Code, Content, OrderState, PARTS_MAX, Procedure};
use crate::orders::part::Part;

/// Longest text for the reader that is taken, in bytes.
const CLINICAL_MAX: usize = 8 << 10;
/// LOINC codes of body weight.
const WEIGHT_CODES: [&str; 3] = ["29463-7", "3141-9", "3142-7"];

/// What one message asks of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asking {
    /// Which order, for whom, what.
    pub(super) content: Content,
    /// What is asked.
    pub(super) asked: Asked,
    /// Order status (ORC-5).
    status: String,
    /// Why, where something ends.
    why: String,
}

impl Asking {
    /// What it does to an order that is known (`true`) or not.
    pub(super) fn actions(&self, known: bool) -> Vec<Action> {
        let content = self.content.clone();
        let first = |last: Action| match known {
            true => vec![last],
            false => vec![Action::Change(content.clone()), last],
        };
        match self.asked {
            Asked::New => vec![Action::New(content)],
            Asked::Cancel => first(Action::Cancel(self.why.clone())),
            Asked::Discontinue => first(Action::Discontinue(self.why.clone())),
            // Whether it is done now or later changes nothing of what it is.
            Asked::Change | Asked::Hold | Asked::Release => vec![Action::Change(content)],
            Asked::Status => match self.state() {
                Some(state) => vec![Action::Change(content), Action::Status(state)],
                None => vec![Action::Change(content)],
            },
        }
    }

    /// The part that a message means which names the part by its own number, below its order.
    pub(super) fn as_part_of(&self, order: &Content) -> Self {
        let Content { patient, .. } = self.content.clone();
        let Content { placer, filler, .. } = order.clone();
        let part = self.part();
        Self {
            content: Content { placer, filler, patient, parts: vec![part], ..Content::default() },
            asked: Asked::Change,
            status: String::new(),
            why: self.why.clone(),
        }
    }

    fn part(&self) -> Part {
        let state = match self.asked {
            Asked::New => Some(OrderState::Requested),
            Asked::Cancel => Some(OrderState::Cancelled),
            Asked::Discontinue => Some(OrderState::Discontinued),
            Asked::Status => self.state().filter(|state| *state != OrderState::Requested),
            Asked::Change | Asked::Hold | Asked::Release => None,
        };
        part(&self.content, state)
    }

    fn state(&self) -> Option<OrderState> {
        Some(match self.status.as_str() {
            "SC" | "A" => OrderState::Requested,
            "IP" => OrderState::InProgress,
            "CM" => OrderState::Performed,
            _ => return None,
        })
    }

    /// Takes in what the same message says of the same order further on.
    fn unite(&mut self, other: Self) {
        if self.content.modality.is_empty() {
            self.content.modality = other.content.modality;
        }
        for study in other.content.studies {
            if !self.content.studies.contains(&study) && self.content.studies.len() < PARTS_MAX {
                self.content.studies.push(study);
            }
        }
        for procedure in other.content.procedures {
            let same = |p: &Procedure| {
                (&p.requested, &p.step, &p.code, &p.modality)
                    == (&procedure.requested, &procedure.step, &procedure.code, &procedure.modality)
            };
            let known = self.content.procedures.iter().any(same);
            if !known && self.content.procedures.len() < PARTS_MAX {
                self.content.procedures.push(procedure);
            }
        }
        let (own, new) = (&mut self.content, other.content.scheduled);
        own.scheduled = match (own.scheduled, new) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        own.urgency = match (own.urgency, other.content.urgency) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.content.parts.extend(other.content.parts);
        self.asked = other.asked;
        self.status = other.status;
    }
}

fn part(c: &Content, state: Option<OrderState>) -> Part {
    let number = [&c.placer, &c.filler].into_iter().flatten().find(|id| id.is_named());
    Part {
        number: number.map(|id| id.id.clone()).unwrap_or_default(),
        filler: c.filler.clone(),
        accession: c.accession.clone(),
        studies: c.studies.clone(),
        procedures: c.procedures.clone(),
        scheduled: c.scheduled,
        urgency: c.urgency,
        state,
    }
}

/// What a person or a worklist says of a part by the part's own number, as said of its order: what is
/// the part's stays with the part, the rest is the order's.
pub(super) fn of_part(said: Content, order: &Content, state: Option<OrderState>) -> Content {
    let mut part = part(&said, state);
    for step in part.procedures.iter_mut().filter(|step| step.modality.is_empty()) {
        step.modality.clone_from(&said.modality);
    }
    let Content { patient, clinical, requester, referrer, weight, .. } = said;
    let (placer, filler) = (order.placer.clone(), order.filler.clone());
    let parts = vec![part];
    Content {
        placer,
        filler,
        patient,
        clinical,
        requester,
        referrer,
        weight,
        parts,
        ..Content::default()
    }
}

/// What a message asks, one entry for each order.
pub(super) fn askings(message: &OrderMessage, issuer: &str, zone: &TimeZone) -> Vec<Asking> {
    let patient = patient(&message.patient, issuer);
    let mut all: Vec<Asking> = Vec::new();
    for order in &message.orders {
        let mut asking = asking(order, message, &patient, zone);
        let parent = Content {
            placer: identifier(&order.parent),
            filler: identifier(&order.parent_filler),
            ..Content::default()
        };
        let is_part = order.is_child() && parent.number().is_some();
        if is_part && parent.number() != asking.content.number() {
            if asking.content.procedures.is_empty() {
                let code = code(&order.procedure);
                asking.content.procedures.push(Procedure { code, ..Procedure::default() });
            }
            asking = asking.as_part_of(&parent);
            let number = parent.number().map(str::to_owned);
            if let Some(own) = all.iter_mut().find(|a| a.content.number() == number.as_deref()) {
                own.content.parts.extend(asking.content.parts);
                continue;
            }
        }
        let number = asking.content.number().map(str::to_owned);
        match all.iter_mut().find(|a| number.is_some() && a.content.number() == number.as_deref()) {
            Some(same) => same.unite(asking),
            None => all.push(asking),
        }
    }
    all
}

fn asking(order: &Hl7Order, message: &OrderMessage, patient: &Patient, zone: &TimeZone) -> Asking {
    let mut studies: Vec<String> = Vec::new();
    let named = order.steps.iter().map(|s| &s.study_uid).chain([&order.study_uid]);
    for uid in named.filter(|uid| !uid.is_empty()) {
        if !studies.contains(uid) && studies.len() < PARTS_MAX {
            studies.push(uid.clone());
        }
    }
    let code = match order.procedure_code.is_empty() {
        true => &order.procedure,
        false => &order.procedure_code,
    };
    let scheduled = time(&order.scheduled_at, zone, true);
    // A step that only names a study is no procedure.
    let named = order.steps.iter().filter(|step| {
        let texts = [&step.requested_procedure_id, &step.id, &step.modality];
        texts.iter().any(|text| !text.is_empty())
    });
    let procedures = named.take(PARTS_MAX).map(|step| Procedure {
        requested: step.requested_procedure_id.clone(),
        step: step.id.clone(),
        code: self::code(code),
        modality: step.modality.clone(),
        study: step.study_uid.clone(),
        stations: step.ae_titles.iter().take(PARTS_MAX).cloned().collect(),
        station_name: step.station_name.clone(),
        location: step.location.shown().to_owned(),
        protocols: step.protocols.iter().take(PARTS_MAX).map(self::code).collect(),
        scheduled,
        ..Procedure::default()
    });
    let mut procedures: Vec<Procedure> = procedures.collect();
    if procedures.is_empty() && !code.is_empty() {
        procedures.push(Procedure { code: self::code(code), scheduled, ..Procedure::default() });
    }
    let person = |all: &[Person]| all.first().map(person).unwrap_or_default();
    let modality = order.steps.iter().map(|s| s.modality.clone()).find(|m| !m.is_empty());
    let content = Content {
        placer: identifier(&order.placer),
        filler: identifier(&order.filler),
        group: identifier(&order.group),
        accession: some(&order.accession).map(Identifier::bare),
        studies,
        procedures,
        patient: patient.clone(),
        modality: modality.unwrap_or_default(),
        scheduled,
        urgency: some(&order.priority_code).map(|_| urgency(order.priority)),
        clinical: clinical(order, message),
        requester: person(&order.requesters),
        referrer: person(&message.visit.referring),
        weight: weight(&order.observations),
        parts: Vec::new(),
    };
    Asking {
        content,
        asked: order.action,
        status: order.status.clone(),
        why: peer_text(&match order.control_reason.shown() {
            "" => order.notes.join(" "),
            reason => reason.to_owned(),
        }),
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.trim().is_empty()).then_some(text)
}

fn urgency(priority: Priority) -> Urgency {
    match priority {
        Priority::Stat => Urgency::Stat,
        Priority::High => Urgency::Urgent,
        Priority::Routine => Urgency::Routine,
    }
}

fn authority(authority: &Hl7Authority) -> Authority {
    let Hl7Authority { namespace, universal_id, .. } = authority.clone();
    Authority { namespace, universal: universal_id }
}

fn identifier(id: &Hl7Identifier) -> Option<Identifier> {
    let own = || Identifier { id: id.id.trim().to_owned(), authority: authority(&id.issuer) };
    some(&id.id).map(|_| own())
}

fn code(code: &Coded) -> Code {
    let Coded { id, text, system, .. } = code.clone();
    Code { value: id, scheme: system, meaning: text }
}

/// A patient; numbers without an issuer are the site's own.
pub(super) fn patient(patient: &Hl7Patient, issuer: &str) -> Patient {
    let ids = patient.identifiers.iter().filter(|i| some(&i.id).is_some()).take(PARTS_MAX);
    Patient {
        ids: ids.map(|i| issued(&i.id, authority(&i.authority), issuer)).collect(),
        former: Vec::new(),
        names: patient.names.iter().take(PARTS_MAX).map(name).filter(|n| !n.is_empty()).collect(),
        birth_date: patient.birth_date.as_str().chars().take(8).collect(),
        sex: patient.sex.clone(),
    }
}

/// A patient number; without an issuer of its own it is the site's.
pub(super) fn issued(id: &str, authority: Authority, issuer: &str) -> Identifier {
    let bare = authority == Authority::default();
    match bare && !issuer.is_empty() {
        true => Identifier::of(id, issuer),
        false => Identifier { id: id.trim().to_owned(), authority },
    }
}

/// Identifiers that a merge ends.
pub(super) fn retired(
    prior: &[crate::hl7::datatype::PatientIdentifier],
    issuer: &str,
) -> Vec<Identifier> {
    let named = prior.iter().filter(|i| some(&i.id).is_some()).take(PARTS_MAX);
    named.map(|i| issued(&i.id, authority(&i.authority), issuer)).collect()
}

/// As DICOM writes names: components by `^`, without those that are empty at the end.
fn name(name: &Name) -> String {
    let parts = [&name.family, &name.given, &name.middle, &name.prefix, &name.suffix];
    parts.map(String::as_str).join("^").trim_end_matches('^').to_owned()
}

/// A physician as DICOM writes names; one without a name is known by his number.
fn person(person: &Person) -> String {
    match name(&person.name) {
        name if name.is_empty() => person.id.clone(),
        name => name,
    }
}

/// Body weight in kg, where an observation has it in kg or g.
fn weight(observations: &[Observation]) -> String {
    let of_weight = |o: &&Observation| {
        WEIGHT_CODES.contains(&o.code.id.as_str()) || o.code.shown().contains("体重")
    };
    let kilograms = |o: &Observation| {
        let number: f64 = o.values.first()?.first()?.trim().parse().ok()?;
        let kilograms = match o.units.shown().to_ascii_lowercase().as_str() {
            "kg" | "" => number,
            "g" => number / 1000.0,
            _ => return None,
        };
        (0.1..1000.0).contains(&kilograms).then(|| kilograms.to_string())
    };
    observations.iter().filter(of_weight).find_map(kilograms).unwrap_or_default()
}

fn clinical(order: &Hl7Order, message: &OrderMessage) -> Clinical {
    let shown = |codes: &[Coded]| codes.iter().map(|c| c.shown().to_owned()).collect::<Vec<_>>();
    let observed = order.observations.iter().map(|o| {
        let values: Vec<String> = o.values.iter().map(|v| v.join(" ")).collect();
        format!("{}: {} {}", o.code.shown(), values.join(", "), o.units.shown()).trim().to_owned()
    });
    let history = std::iter::once(order.clinical_information.clone())
        .chain(some(order.danger.shown()).map(str::to_owned))
        .chain(order.notes.iter().cloned())
        .chain(message.patient.notes.iter().cloned())
        .chain(observed);
    let allergies = message.patient.allergies.iter().map(|a| {
        let reactions = a.reactions.join(", ");
        format!("{} {reactions}", a.code.shown()).trim().to_owned()
    });
    Clinical {
        reason: text(shown(&order.reasons)),
        history: text(history),
        allergies: text(allergies),
        department: text([order.department.shown().to_owned()]),
        contact: text(order.contacts.iter().cloned()),
    }
}

/// Lines that say something, up to the limit.
fn text(lines: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<String> = lines.into_iter().filter(|l| !l.trim().is_empty()).collect();
    let mut text = lines.join("\n");
    let mut end = text.len().min(CLINICAL_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// When; a time of which only the day is known is the day's end where something is due.
pub(super) fn time(time: &TimeStamp, zone: &TimeZone, due: bool) -> Option<Timestamp> {
    let when = time.when()?;
    if when.precision < Precision::Day {
        return None;
    }
    let local = match due && when.precision == Precision::Day {
        true => when.local.date().at(23, 59, 59, 0),
        false => when.local,
    };
    let zone = when.offset.map_or_else(|| zone.clone(), TimeZone::fixed);
    let at = zone.to_ambiguous_timestamp(local).compatible().ok()?;
    Some(Timestamp(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hl7::inbound::{Content as Said, Inbound, Rules};
    use crate::orders::history::{History, Message, Stamp};
    use crate::orders::order::OrderKey;

    #[test]
    fn what_a_person_says_of_a_part_by_its_number_stays_with_the_part() {
        let bare = |id: &str| Some(Identifier::bare(id));
        let known =
            Part { number: "P-1".into(), state: Some(OrderState::Cancelled), ..Part::default() };
        let order = Content { placer: bare("P"), parts: vec![known], ..Content::default() };
        let mut said = Content { placer: bare("P-1"), accession: bare("A1"), ..Content::default() };
        said.modality = "CT".into();
        said.procedures = vec![Procedure::default()];
        said.clinical.history = "asthma".into();
        let new = of_part(said.clone(), &order, None);
        assert_eq!((&new.placer, &new.accession), (&bare("P"), &None));
        assert_eq!(new.clinical.history, "asthma");
        assert_eq!((&new.parts[0].number[..], &new.parts[0].accession), ("P-1", &bare("A1")));
        assert_eq!(new.any_modality(), "CT");
        let mut history =
            History::new(OrderKey { origin: "h".parse().unwrap(), number: "P".into() });
        let mut hear = |n, action| {
            let stamp = Stamp { sent: Timestamp(n), heard: Timestamp(n), id: n.to_string() };
            history.apply(Message { stamp, source: String::new(), action });
            history.order()
        };
        hear(1, Action::New(order.clone()));
        let after = hear(2, Action::Change(new));
        assert_eq!((after.content.placer, after.state), (bare("P"), OrderState::Cancelled));
        let again = of_part(said, &order, Some(OrderState::Requested));
        assert_eq!(hear(3, Action::Change(again)).state, OrderState::Requested, "wanted again");
    }

    fn read(message: &str) -> Vec<Asking> {
        let rules = Rules::default();
        let inbound = Inbound::read(message.as_bytes(), &rules);
        match inbound.content() {
            Ok(Said::Orders(orders)) => askings(orders, "H", &TimeZone::UTC),
            other => panic!("{other:?}"),
        }
    }

    const HEAD: &str = "MSH|^~\\&|RIS|EAST|HIKYAKU|X|20261122120000||ORM^O01|1|P|2.3.1\r\
                        PID|||4711||YAMADA^TARO||19500101|M\r";

    #[test]
    fn an_order_keeps_its_numbers_its_time_and_its_urgency_and_the_sites_issuer() {
        let order = "ORC|NW|P1|F1|||||||||||||||\r\
                     OBR|1|P1|F1|CT^CT HEAD||||||||||||||A1|RP1|SP1||||CT|||1^^^202611221300^^S\r\
                     ZDS|1.2.3^RIS^Application^DICOM\r";
        let all = read(&format!("{HEAD}{order}"));
        let c = &all[0].content;
        assert_eq!(c.number(), Some("P1"));
        assert_eq!(c.studies, ["1.2.3"]);
        assert_eq!(c.patient.ids, [Identifier::of("4711", "H")]);
        assert_eq!(c.patient.names, ["YAMADA^TARO"]);
        assert_eq!(c.urgency, Some(Urgency::Stat));
        assert_eq!(c.scheduled.map(|t| t.to_string()), Some("2026-11-22T13:00:00.000Z".into()));
        assert_eq!(c.procedures[0].requested, "RP1");
    }

    #[test]
    fn a_day_without_a_time_is_due_when_it_ends() {
        let at = time(&TimeStamp::new("20261122"), &TimeZone::UTC, true).unwrap();
        assert_eq!(at.to_string(), "2026-11-22T23:59:59.000Z");
        let at = time(&TimeStamp::new("202611220900+0900"), &TimeZone::UTC, true).unwrap();
        assert_eq!(at.to_string(), "2026-11-22T00:00:00.000Z");
        assert_eq!(time(&TimeStamp::new("2026"), &TimeZone::UTC, true), None);
    }

    #[test]
    fn parent_and_children_of_one_number_are_one_order() {
        let orders = "ORC|NW|P1\rOBR|1|P1||A^A\rORC|PA|P1\rOBR|2|P1||A^A\r\
                      ORC|CH|P1|||||P1\rOBR|3|P1||B^B\r";
        let all = read(&format!("{HEAD}{orders}"));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].asked, Asked::New);
    }

    #[test]
    fn children_with_numbers_of_their_own_are_parts_of_the_order_that_they_name() {
        let orders = "ORC|NW|P1\rOBR|1|P1||A^A\rORC|PA|P1\rOBR|2|P1||A^A\r\
                      ORC|CH|P2||||||P1\rOBR|3|P2||B^B||||||||||||||A2\r\
                      ORC|CH|P3\rOBR|4|P3||C^C|||||||||||||||||||||||||P1\r";
        let all = read(&format!("{HEAD}{orders}"));
        assert_eq!((all.len(), all[0].asked), (1, Asked::New));
        let parts = &all[0].content.parts;
        let numbers: Vec<&str> = parts.iter().map(|p| p.number.as_str()).collect();
        assert_eq!(numbers, ["P2", "P3"]);
        assert_eq!(parts[0].accession, Some(Identifier::bare("A2")));
        assert!(parts.iter().all(|p| p.state == Some(OrderState::Requested)));
        // A child that comes without its parent names it all the same.
        let alone = read(&format!("{HEAD}ORC|CA|P9\rORC|CH|P2||||||P1\r"));
        assert_eq!(alone[1].content.number(), Some("P1"));
        assert!(matches!(alone[1].actions(true)[..], [Action::Change(_)]), "only the part ends");
        assert_eq!(alone[1].content.parts[0].state, Some(OrderState::Cancelled));
    }

    #[test]
    fn the_cancellation_of_an_order_that_nobody_has_seen_says_whose_it_was() {
        let all = read(&format!("{HEAD}ORC|CA|P1|F1\rOBR|1|P1|F1|A^A\r"));
        assert!(matches!(all[0].actions(false)[..], [Action::Change(_), Action::Cancel(_)]));
        assert!(matches!(all[0].actions(true)[..], [Action::Cancel(_)]));
    }
}
