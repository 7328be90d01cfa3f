//! Orders in the words of HL7: what `message` reads, written. Pure.
//!
//! Whoever reads the message learns of the order what this room knows: an order that is written and
//! read again is the same one, but for issuers, which are added where nobody named one. Two
//! hospitals give the same number to different orders and patients, and a receiver sees the orders
//! of both: a number without an issuer is issued by the node that took the order first.
//!
//! Procedures of one code share an OBR with a step (IPC) for each. Further codes are further orders
//! of the same message and the same number, as JAHIS writes parents and children. Identifiers that
//! a merge has retired are not written: an order is about the patient as he or she is known now.

use jiff::tz::TimeZone;

use super::hl7_time;
use crate::cargo::{NodeName, Sha256, Urgency};
use crate::clock::Timestamp;
use crate::hl7::charset::Charset;
use crate::hl7::datatype::{Authority as Hl7Authority, Coded, Identifier as Hl7Identifier};
use crate::hl7::message::REPETITIONS_MAX;
use crate::hl7::order::{Order as Hl7Order, OrderMessage, OrderType, Priority, Sending, Step};
use crate::hl7::patient::{Allergy, Visit};
use crate::hl7::time::TimeStamp;
use crate::orders::identifier::{Authority, Identifier};
use crate::orders::in_hl7::{authority, patient, person};
use crate::orders::order::{Code, Content, Order, OrderState, Procedure};

/// What OBR-4, which must say something, says of an order of which nobody said what is to be done.
const UNNAMED: &str = "imaging";

/// The message of an order. `control` is ORC-1; times are written in `zone`.
pub(super) fn message(order: &Order, control: &str, zone: &TimeZone) -> OrderMessage {
    let order = &order.with_parts();
    let c = &order.content;
    let mut patient = patient(&c.patient, |id| issuer(id, &order.key.origin));
    let allergy = |line| Allergy { code: text(line), ..Allergy::default() };
    patient.allergies = lines(&c.clinical.allergies).map(allergy).collect();
    // Whether in or out of the hospital is not known here, and the field must say something.
    let referring = person(&c.referrer).into_iter().collect();
    let visit = Visit { class: "U".into(), referring, ..Visit::default() };
    let common = common(order, control, zone);
    let one = |(code, steps)| Hl7Order { procedure: code, steps, ..common.clone() };
    OrderMessage { patient, visit, orders: parts(c).into_iter().map(one).collect() }
}

/// What a message says, and the same without how far the order is: two messages that agree in it
/// differ at most in MSH, ORC-1 and ORC-9.
pub(super) fn said(message: &OrderMessage) -> (Sha256, Sha256) {
    let digest = |without: fn(&mut Hl7Order)| {
        let mut message = message.clone();
        message.orders.iter_mut().for_each(|order| {
            order.control.clear();
            order.ordered_at = TimeStamp::default();
            without(order);
        });
        let sending = Sending {
            order_type: OrderType::Imaging,
            from: ("", ""),
            to: ("", ""),
            at: "",
            control_id: "",
            processing_id: "",
            charset: Charset::UTF_8,
        };
        Sha256::of(message.write(&sending).write().as_bytes())
    };
    let state = |order: &mut Hl7Order| {
        order.status.clear();
        order.control_reason = Coded::default();
    };
    (digest(|_| {}), digest(state))
}

/// All but what is to be done.
fn common(order: &Order, control: &str, zone: &TimeZone) -> Hl7Order {
    let c = &order.content;
    let number = |id: &Option<Identifier>| {
        id.as_ref().map(|id| identifier(id, &order.key.origin)).unwrap_or_default()
    };
    let mut placer = number(&c.placer);
    let filler = number(&c.filler);
    if placer.is_empty() && filler.is_empty() {
        // Known by its accession number alone; one of the two must be there.
        placer = identifier(&Identifier::bare(&order.key.number), &order.key.origin);
    }
    let (priority, priority_code) = priority(c.urgency);
    let time = |at: Timestamp| TimeStamp::new(&hl7_time(at, zone));
    let mut history = lines(&c.clinical.history);
    Hl7Order {
        control: control.to_owned(),
        placer,
        filler,
        group: number(&c.group),
        status: status(order.state).to_owned(),
        priority,
        priority_code: priority_code.to_owned(),
        ordered_at: time(order.changed_at),
        scheduled_at: c.scheduled.map(time).unwrap_or_default(),
        accession: c.accession.as_ref().map(|a| a.id.clone()).unwrap_or_default(),
        study_uid: c.studies.first().cloned().unwrap_or_default(),
        reasons: repetitions(&c.clinical.reason).iter().map(|line| text(line)).collect(),
        clinical_information: history.next().unwrap_or_default().to_owned(),
        notes: history.map(str::to_owned).collect(),
        requesters: person(&c.requester).into_iter().collect(),
        department: text(&c.clinical.department),
        contacts: repetitions(&c.clinical.contact),
        control_reason: text(&order.ended_because),
        facility: order.key.origin.to_string(),
        ..Hl7Order::default()
    }
}

/// Order status (ORC-5, table 0038).
const fn status(state: OrderState) -> &'static str {
    match state {
        OrderState::Requested => "SC",
        OrderState::InProgress => "IP",
        OrderState::Performed => "CM",
        OrderState::Cancelled => "CA",
        OrderState::Discontinued => "DC",
    }
}

const fn priority(urgency: Option<Urgency>) -> (Priority, &'static str) {
    match urgency {
        Some(Urgency::Stat) => (Priority::Stat, "S"),
        Some(Urgency::Urgent) => (Priority::High, "A"),
        Some(Urgency::Routine | Urgency::Bulk) => (Priority::Routine, "R"),
        None => (Priority::Routine, ""),
    }
}

/// What is to be done: each code with its steps. Steps that name no study get the order's in their
/// turn, and the last when there are more steps; each further study gets a step that only names it.
fn parts(c: &Content) -> Vec<(Coded, Vec<Step>)> {
    let accession = c.accession.as_ref().map(|a| a.id.clone()).unwrap_or_default();
    let study = |n: usize| c.studies.get(n).or(c.studies.last()).cloned().unwrap_or_default();
    let mut n = 0;
    let mut step = |procedure: &Procedure| {
        n += 1;
        Step {
            accession: accession.clone(),
            study_uid: match procedure.study.is_empty() {
                true => study(n - 1),
                false => procedure.study.clone(),
            },
            requested_procedure_id: procedure.requested.clone(),
            id: procedure.step.clone(),
            modality: procedure.modality.clone(),
            protocols: procedure.protocols.iter().map(|code| coded(code, "")).collect(),
            station_name: procedure.station_name.clone(),
            location: text(&procedure.location),
            ae_titles: procedure.stations.clone(),
        }
    };
    let none = [Procedure::default()];
    let procedures = if c.procedures.is_empty() { &none[..] } else { &c.procedures };
    let of_code = procedures.chunk_by(|a, b| a.code == b.code);
    let part = |some: &[Procedure]| {
        (coded(&some[0].code, &c.modality), some.iter().map(&mut step).collect())
    };
    let mut parts: Vec<(Coded, Vec<Step>)> = of_code.map(part).collect();
    let further = (procedures.len()..c.studies.len()).map(|n| Step {
        accession: accession.clone(),
        study_uid: study(n),
        ..Step::default()
    });
    let last = parts.last_mut().expect("one procedure at least");
    last.1.extend(further);
    if c.procedures.iter().all(|p| p.modality.is_empty()) {
        parts[0].1[0].modality.clone_from(&c.modality);
    }
    parts
}

fn coded(code: &Code, modality: &str) -> Coded {
    let Code { value, scheme, meaning } = code.clone();
    let coded = Coded { id: value, text: meaning, system: scheme, ..Coded::default() };
    match (coded.is_empty(), modality) {
        (false, _) => coded,
        (true, "") => text(UNNAMED),
        (true, modality) => text(modality),
    }
}

/// Who gave a number: who is named, else the node that took the order first.
fn issuer(id: &Identifier, origin: &NodeName) -> Hl7Authority {
    match id.authority == Authority::default() {
        true => Hl7Authority { namespace: origin.to_string(), ..Hl7Authority::default() },
        false => authority(&id.authority),
    }
}

fn identifier(id: &Identifier, origin: &NodeName) -> Hl7Identifier {
    Hl7Identifier { id: id.id.clone(), issuer: issuer(id, origin) }
}

fn text(text: &str) -> Coded {
    Coded { text: text.to_owned(), ..Coded::default() }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty())
}

/// Lines as repetitions of a field; a reader need not take more than so many of them.
fn repetitions(text: &str) -> Vec<String> {
    let all: Vec<&str> = lines(text).collect();
    let (each, rest) = all.split_at(all.len().min(REPETITIONS_MAX - 1));
    let mut each: Vec<String> = each.iter().map(|line| (*line).to_owned()).collect();
    if !rest.is_empty() {
        each.push(rest.join("\n"));
    }
    each
}

#[cfg(test)]
mod tests;
