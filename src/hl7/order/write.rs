//! Orders to messages for a receiving RIS: OMG^O19 and OMI^O23 in version 2.5.
//!
//! Everything an [`OrderMessage`] says is written where its reader finds it again. An OMG says of
//! a step what OBR and ZDS have room for; where that is not enough, IPC follows there too: a
//! receiver ignores segments that it does not expect (HL7 2.5 2.7.1), and otherwise would be told
//! less than we know.

use super::{Observation, Order, OrderMessage, Priority, Step};
use crate::hl7::charset::Charset;
use crate::hl7::datatype::{components, escaped, repetitions, write_telecommunication};
use crate::hl7::message::{Delimiters, Message, Segment};
use crate::hl7::patient::write_note;

/// Which message to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderType {
    /// OMG^O19, general clinical order.
    General,
    /// OMI^O23, imaging order.
    Imaging,
}

/// What MSH says of one sending.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// Which message.
    pub order_type: OrderType,
    /// MSH-3 and MSH-4: application and facility.
    pub from: (&'a str, &'a str),
    /// MSH-5 and MSH-6: application and facility.
    pub to: (&'a str, &'a str),
    /// MSH-7: the time, as HL7 writes it.
    pub at: &'a str,
    /// MSH-10: unique at the sender.
    pub control_id: &'a str,
    /// MSH-11: `P`.
    pub processing_id: &'a str,
    /// MSH-18 and MSH-20; the caller encodes with it.
    pub charset: Charset,
}

impl OrderMessage {
    /// The message; see [`Message::write`] and [`Charset::encode`] for its bytes.
    pub fn write(&self, sending: &Sending<'_>) -> Message {
        let mut message = Message::new();
        let d = *message.delimiters();
        let kind = match sending.order_type {
            OrderType::General => "OMG^O19^OMG_O19",
            OrderType::Imaging => "OMI^O23^OMI_O23",
        };
        let texts = [
            (3, sending.from.0),
            (4, sending.from.1),
            (5, sending.to.0),
            (6, sending.to.1),
            (7, sending.at),
            (10, sending.control_id),
            (11, sending.processing_id),
        ];
        let msh = message.header_mut();
        texts.iter().for_each(|(field, text)| msh.put(*field, escaped(text, &d)));
        msh.put(9, kind.to_owned());
        msh.put(12, "2.5".to_owned());
        msh.put(18, sending.charset.msh_18().to_owned());
        msh.put(20, sending.charset.msh_20().to_owned());
        let head = self.patient.write_pid(&self.visit, &d);
        let pv1 = self.visit.write(&d);
        let allergies = self.patient.write_allergies(&d);
        head.into_iter().chain([pv1]).chain(allergies).for_each(|s| message.push(s));
        for (n, order) in self.orders.iter().enumerate() {
            order.write(n + 1, sending.order_type, &d).into_iter().for_each(|s| message.push(s));
        }
        message
    }
}

impl Order {
    fn write(&self, n: usize, order_type: OrderType, d: &Delimiters) -> Vec<Segment> {
        let mut segments = vec![self.write_orc(d)];
        segments.extend(self.write_tq1(d));
        segments.push(self.write_obr(n, d));
        segments.extend(self.notes.iter().enumerate().map(|(n, text)| write_note(n + 1, text, d)));
        segments.extend(self.observations.iter().enumerate().map(|(n, o)| o.write(n + 1, d)));
        let told = self.steps.len() <= 1 && self.steps.iter().all(|s| s.fits_obr(self));
        if order_type == OrderType::Imaging || !told {
            // An imaging order has an IPC, even one that only names the study.
            let none = [Step::of_order(self)];
            let steps = if self.steps.is_empty() { &none[..] } else { &self.steps };
            segments.extend(steps.iter().map(|step| step.write(d)));
        } else if !self.study_uid.is_empty() {
            let mut zds = Segment::new("ZDS");
            let uid = escaped(&self.study_uid, d);
            let parts = [uid, String::new(), "Application".to_owned(), "DICOM".to_owned()];
            zds.put(1, components(&parts, d));
            segments.push(zds);
        }
        segments
    }

    fn write_orc(&self, d: &Delimiters) -> Segment {
        let mut orc = Segment::new("ORC");
        orc.put(1, escaped(&self.control, d));
        orc.put(2, self.placer.write(d));
        orc.put(3, self.filler.write(d));
        orc.put(4, self.group.write(d));
        orc.put(5, escaped(&self.status, d));
        let parent = [self.parent.as_component(d), self.parent_filler.as_component(d)];
        orc.put(8, components(&parent, d));
        orc.put(9, escaped(self.ordered_at.as_str(), d));
        orc.put(12, repetitions(&self.requesters, d, |person| person.write(d)));
        orc.put(14, repetitions(&self.contacts, d, |text| write_telecommunication(text, d)));
        orc.put(16, self.control_reason.write(d));
        orc.put(17, self.department.write(d));
        orc.put(21, escaped(&self.facility, d));
        orc
    }

    fn write_tq1(&self, d: &Delimiters) -> Option<Segment> {
        let code = match (self.priority_code.as_str(), self.priority) {
            ("", Priority::Routine) => "",
            ("", priority) => priority.code(),
            (code, _) => code,
        };
        if code.is_empty() && self.scheduled_at.is_empty() {
            return None;
        }
        let mut tq1 = Segment::new("TQ1");
        tq1.put(1, "1".to_owned());
        tq1.put(7, escaped(self.scheduled_at.as_str(), d));
        tq1.put(9, escaped(code, d));
        Some(tq1)
    }

    fn write_obr(&self, n: usize, d: &Delimiters) -> Segment {
        let mut obr = Segment::new("OBR");
        obr.put(1, n.to_string());
        obr.put(2, self.placer.write(d));
        obr.put(3, self.filler.write(d));
        obr.put(4, self.procedure.write(d));
        obr.put(12, self.danger.write(d));
        obr.put(13, escaped(&self.clinical_information, d));
        obr.put(16, repetitions(&self.requesters, d, |person| person.write(d)));
        obr.put(18, escaped(&self.accession, d));
        if let Some(step) = self.steps.first() {
            obr.put(19, escaped(&step.requested_procedure_id, d));
            obr.put(20, escaped(&step.id, d));
            obr.put(24, escaped(&step.modality, d));
        }
        obr.put(31, repetitions(&self.reasons, d, |reason| reason.write(d)));
        obr.put(44, self.procedure_code.write(d));
        obr
    }
}

impl Step {
    /// Whether OBR and ZDS can say all of it.
    fn fits_obr(&self, order: &Order) -> bool {
        let said = Self {
            requested_procedure_id: self.requested_procedure_id.clone(),
            id: self.id.clone(),
            modality: self.modality.clone(),
            ..Self::of_order(order)
        };
        *self == said
    }

    fn write(&self, d: &Delimiters) -> Segment {
        let mut ipc = Segment::new("IPC");
        let texts = [
            (1, &self.accession),
            (2, &self.requested_procedure_id),
            (3, &self.study_uid),
            (4, &self.id),
            (5, &self.modality),
            (7, &self.station_name),
        ];
        texts.iter().for_each(|(field, text)| ipc.put(*field, escaped(text, d)));
        ipc.put(6, repetitions(&self.protocols, d, |code| code.write(d)));
        ipc.put(8, self.location.write(d));
        ipc.put(9, repetitions(&self.ae_titles, d, |title| escaped(title, d)));
        ipc
    }
}

impl Observation {
    fn write(&self, n: usize, d: &Delimiters) -> Segment {
        let mut obx = Segment::new("OBX");
        obx.put(1, n.to_string());
        obx.put(2, escaped(&self.kind, d));
        obx.put(3, self.code.write(d));
        let value = |parts: &Vec<String>| {
            components(&parts.iter().map(|part| escaped(part, d)).collect::<Vec<_>>(), d)
        };
        obx.put(5, repetitions(&self.values, d, value));
        obx.put(6, self.units.write(d));
        obx.put(11, "F".to_owned());
        obx
    }
}
