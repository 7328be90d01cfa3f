//! Imaging orders: ORM^O01, OMG^O19 and OMI^O23 (HL7 2.3 to 2.5.1, chapter 4; in Japan JAHIS
//! 放射線データ交換規約) to plain values and back.
//!
//! A message has one patient, one visit and any number of orders. Each ORC begins an order, and so
//! does each further OBR under the same ORC. What the standard offers several fields for, and
//! sites fill differently (accession number, Study Instance UID, scheduled time), is looked for
//! along a list of paths ([`OrderFields`]); the first that says something counts.
//!
//! JAHIS sends the order as NW and then once more as PA with its CH: those have the same placer
//! number, and whoever keeps orders sees by it that they are one. PA and CH mean what the last ORC
//! before them meant. Prior results that come with an order (ORC-1 PR) are not orders.
//!
//! An order is taken or refused with its whole message. Absent and deleted (`""`) fields are both
//! empty here.

mod read;
mod write;

pub use read::OrderFields;
pub use write::{OrderType, Sending};

use super::datatype::{Coded, Identifier, Person};
use super::patient::{Patient, Visit};
use super::time::TimeStamp;

/// Most orders of one message.
pub const ORDERS_MAX: usize = 1_000;

/// What a message of orders says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrderMessage {
    /// Whom they are for.
    pub patient: Patient,
    /// During which visit.
    pub visit: Visit,
    /// The orders, in their order; never empty when read.
    pub orders: Vec<Order>,
}

/// What is to be done with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Action {
    /// To be done.
    #[default]
    New,
    /// To be done otherwise than it was ordered.
    Change,
    /// Not to be done.
    Cancel,
    /// Begun, and not to be gone on with.
    Discontinue,
    /// Not to be done for now.
    Hold,
    /// To be done after all.
    Release,
    /// Nothing is asked; [`Order::status`] says how far it is.
    Status,
}

impl Action {
    /// What an order control code (ORC-1, table 0119) means; none for those that mean nothing by
    /// themselves (PA, CH) and for codes that are not in the table.
    pub fn of_control(code: &str) -> Option<Self> {
        Some(match code {
            "NW" | "RO" | "SN" => Self::New,
            "XO" | "XX" | "XR" => Self::Change,
            // RP and RU name the order that another one replaces.
            "CA" | "OC" | "CR" | "RP" | "RQ" | "RU" => Self::Cancel,
            "DC" | "OD" | "DR" => Self::Discontinue,
            "HD" | "OH" | "HR" => Self::Hold,
            "RL" | "OE" | "OR" => Self::Release,
            "SC" | "SR" | "SS" | "OK" | "NA" | "RE" | "RR" | "CN" | "DE" | "LI" | "AF" | "DF"
            | "FU" | "OF" | "OP" | "PY" | "RF" | "UA" | "UC" | "UD" | "UF" | "UH" | "UM" | "UN"
            | "UR" | "UX" => Self::Status,
            _ => return None,
        })
    }

    /// What an order status (ORC-5, table 0038) means beside a control code that only tells it.
    fn of_status(self, status: &str) -> Self {
        match (self, status) {
            (Self::Status, "CA") => Self::Cancel,
            (Self::Status, "DC") => Self::Discontinue,
            (Self::Status, "HD") => Self::Hold,
            _ => self,
        }
    }
}

/// How urgent an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// R and everything that is not known.
    #[default]
    Routine,
    /// A (as soon as possible), P (before an operation), C (call back).
    High,
    /// S.
    Stat,
}

impl Priority {
    /// Of a code of table 0485, or what people write in its place.
    pub fn of_code(code: &str) -> Self {
        match code.to_ascii_uppercase().as_str() {
            "S" | "STAT" | "E" | "EMERGENCY" => Self::Stat,
            "A" | "ASAP" | "P" | "C" | "H" | "HIGH" | "U" | "URGENT" => Self::High,
            _ => Self::Routine,
        }
    }

    /// The code of table 0485.
    pub fn code(self) -> &'static str {
        match self {
            Self::Stat => "S",
            Self::High => "A",
            Self::Routine => "R",
        }
    }
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Order {
    /// Order control (ORC-1) as sent: `NW`, `CA`, `PA`, `CH`, ...
    pub control: String,
    /// What is to be done.
    pub action: Action,
    /// Placer order number (ORC-2, OBR-2).
    pub placer: Identifier,
    /// Filler order number (ORC-3, OBR-3).
    pub filler: Identifier,
    /// Placer group number (ORC-4).
    pub group: Identifier,
    /// Placer number of the parent (ORC-8.1, OBR-29.1).
    pub parent: Identifier,
    /// Filler number of the parent (ORC-8.2, OBR-29.2).
    pub parent_filler: Identifier,
    /// Order status (ORC-5, table 0038): `SC` scheduled, `IP` in process, `CM` completed, ...
    pub status: String,
    /// How urgent.
    pub priority: Priority,
    /// The same as sent (TQ1-9, ORC-7.6, OBR-27.6, OBR-5).
    pub priority_code: String,
    /// Date and time of the transaction (ORC-9).
    pub ordered_at: TimeStamp,
    /// When it is to be done.
    pub scheduled_at: TimeStamp,
    /// What is to be done: universal service (OBR-4).
    pub procedure: Coded,
    /// Procedure code (OBR-44).
    pub procedure_code: Coded,
    /// Accession number.
    pub accession: String,
    /// Study Instance UID.
    pub study_uid: String,
    /// Scheduled procedure steps: IPC, or what OBR says of one.
    pub steps: Vec<Step>,
    /// Reason for study (OBR-31).
    pub reasons: Vec<Coded>,
    /// Relevant clinical information (OBR-13).
    pub clinical_information: String,
    /// Danger code (OBR-12): infection, ...
    pub danger: Coded,
    /// Remarks (NTE).
    pub notes: Vec<String>,
    /// What is known of the patient: history, weight, pregnancy, ... (OBX).
    pub observations: Vec<Observation>,
    /// Ordering physicians (ORC-12, OBR-16).
    pub requesters: Vec<Person>,
    /// The department that asks: entering organization (ORC-17), hospital service (PV1-10), or the
    /// clinic where the patient is (PV1-3).
    pub department: Coded,
    /// Whom to call (ORC-14, OBR-17).
    pub contacts: Vec<String>,
    /// Why it is to be done otherwise, or not at all (ORC-16).
    pub control_reason: Coded,
    /// The site that asks (ORC-21).
    pub facility: String,
}

impl Order {
    /// Whether it stands for all of its children (JAHIS).
    pub fn is_parent(&self) -> bool {
        self.control == "PA"
    }

    /// Whether it is part of [`parent`](Self::parent) (JAHIS).
    pub fn is_child(&self) -> bool {
        self.control == "CH"
    }
}

/// A scheduled procedure step: IPC (4.5.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Accession number (IPC-1), or that of the order.
    pub accession: String,
    /// Study Instance UID (IPC-3), or that of the order.
    pub study_uid: String,
    /// Requested Procedure ID (IPC-2, OBR-19).
    pub requested_procedure_id: String,
    /// Scheduled Procedure Step ID (IPC-4, OBR-20).
    pub id: String,
    /// Modality (IPC-5, OBR-24): `CT`, ...
    pub modality: String,
    /// Protocol codes (IPC-6).
    pub protocols: Vec<Coded>,
    /// Scheduled Station Name (IPC-7).
    pub station_name: String,
    /// Scheduled Procedure Step Location (IPC-8).
    pub location: Coded,
    /// Scheduled Station AE Titles (IPC-9).
    pub ae_titles: Vec<String>,
}

impl Step {
    /// A step that says nothing but which study it belongs to.
    fn of_order(order: &Order) -> Self {
        Self {
            accession: order.accession.clone(),
            study_uid: order.study_uid.clone(),
            ..Self::default()
        }
    }
}

/// An observation: OBX (7.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// Value type (OBX-2): `TX`, `NM`, `CWE`, ...
    pub kind: String,
    /// What is observed (OBX-3).
    pub code: Coded,
    /// The values (OBX-5), each with its components; texts have one.
    pub values: Vec<Vec<String>>,
    /// Units (OBX-6).
    pub units: Coded,
}

#[cfg(test)]
mod tests;
