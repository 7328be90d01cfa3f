//! Patients and their visits: PID, PV1, AL1 (HL7 2.5 3.4), and the messages that change them,
//! ADT^A08 (3.3.8) and ADT^A40 (3.3.40).

use super::ack::{Condition, Refusal};
use super::datatype::{
    Coded, Name, PatientIdentifier, Person, all, components, escaped, repetitions, value,
};
use super::header::Header;
use super::message::{Delimiters, Message, Segment, SegmentRef};
use super::path::Location;
use super::time::TimeStamp;

/// Most patients that one message merges.
pub const MERGES_MAX: usize = 1_000;

/// A patient: PID, and the AL1 and NTE that belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patient {
    /// Identifiers (PID-3), each with who gave it out; PID-2 where PID-3 is empty (2.3).
    pub identifiers: Vec<PatientIdentifier>,
    /// Names (PID-5): in Japan one ideographic and one in kana.
    pub names: Vec<Name>,
    /// Birth date (PID-7).
    pub birth_date: TimeStamp,
    /// Administrative sex (PID-8, table 0001).
    pub sex: String,
    /// Allergies (AL1).
    pub allergies: Vec<Allergy>,
    /// Remarks (NTE before the first order).
    pub notes: Vec<String>,
}

impl Patient {
    /// The name in a representation of table 0465: `I`, `A`, `P`.
    pub fn name(&self, representation: &str) -> Option<&Name> {
        self.names.iter().find(|name| name.representation == representation)
    }
}

/// An allergy: AL1 (3.4.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allergy {
    /// AL1-2, table 0127: drug, food, ...
    pub kind: Coded,
    /// AL1-3: what it is.
    pub code: Coded,
    /// AL1-4, table 0128: severe, moderate, mild.
    pub severity: Coded,
    /// AL1-5: what happened.
    pub reactions: Vec<String>,
}

/// A visit: PV1 (3.4.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Visit {
    /// Patient class (PV1-2, table 0004): `I` inpatient, `O` outpatient, `E` emergency.
    pub class: String,
    /// Where the patient is (PV1-3).
    pub location: PointOfCare,
    /// Attending doctors (PV1-7).
    pub attending: Vec<Person>,
    /// Referring doctors (PV1-8).
    pub referring: Vec<Person>,
    /// Hospital service (PV1-10, table 0069): the department.
    pub service: String,
    /// Ambulatory status (PV1-15, table 0009): `B6` pregnant, ...
    pub ambulatory_status: Vec<String>,
    /// Visit number (PV1-19), or the account number (PID-18).
    pub number: PatientIdentifier,
}

/// Where a patient is: PL (2.A.53).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PointOfCare {
    /// Point of care: the ward or department.
    pub point_of_care: String,
    /// Room.
    pub room: String,
    /// Bed.
    pub bed: String,
    /// Facility.
    pub facility: String,
}

/// What an ADT message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatientMessage {
    /// One, or as many as A40 merges.
    pub changes: Vec<PatientChange>,
}

/// A change of a patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatientChange {
    /// A08: the patient is now as stated.
    Update {
        /// All that is known now.
        patient: Patient,
        /// The visit.
        visit: Box<Visit>,
    },
    /// A40: what was filed under `prior` belongs to `patient`.
    Merge {
        /// Who remains.
        patient: Patient,
        /// Identifiers that end (MRG-1).
        prior: Vec<PatientIdentifier>,
        /// Names they had (MRG-7).
        prior_names: Vec<Name>,
    },
}

impl PatientMessage {
    /// Reads ADT^A08 or ADT^A40.
    pub fn read(message: &Message) -> Result<Self, Refusal> {
        match Header::of(message).trigger.as_str() {
            "A40" => Self::merges(message),
            _ => {
                let (patient, visit) = patient_and_visit(message.segments())?;
                let visit = Box::new(visit);
                Ok(Self { changes: vec![PatientChange::Update { patient, visit }] })
            }
        }
    }

    /// Each PID with the MRG after it.
    fn merges(message: &Message) -> Result<Self, Refusal> {
        let mut changes = Vec::new();
        let mut patient: Option<(Patient, usize)> = None;
        for segment in message.segments() {
            if segment.is("PID") {
                unmerged(patient.as_ref())?;
                patient = Some((read_patient(segment)?, segment.sequence()));
            } else if segment.is("MRG") {
                let (patient, _) =
                    patient.take().ok_or_else(|| Refusal::missing(Location::segment("PID", 1)))?;
                let prior = all(segment.field(1), PatientIdentifier::read);
                if prior.iter().all(|identifier| identifier.id.is_empty()) {
                    return Err(Refusal::missing(segment.location(1)));
                }
                if changes.len() == MERGES_MAX {
                    let words = format!("more than {MERGES_MAX} merges in one message");
                    let internal = Condition::ApplicationInternalError;
                    return Err(Refusal::error(segment.location(1), internal, words));
                }
                let prior_names = all(segment.field(7), Name::read);
                changes.push(PatientChange::Merge { patient, prior, prior_names });
            }
        }
        unmerged(patient.as_ref())?;
        if changes.is_empty() {
            return Err(Refusal::missing(Location::segment("PID", 1)));
        }
        Ok(Self { changes })
    }
}

/// A PID that no MRG has followed is an error.
fn unmerged(patient: Option<&(Patient, usize)>) -> Result<(), Refusal> {
    patient.map_or(Ok(()), |(_, n)| Err(Refusal::missing(Location::segment("MRG", *n))))
}

/// Reads the segments about the patient; others may stand between them.
pub(super) fn patient_and_visit<'a>(
    segments: impl Iterator<Item = SegmentRef<'a>>,
) -> Result<(Patient, Visit), Refusal> {
    let mut patient: Option<Patient> = None;
    let mut visit = Visit::default();
    let mut account = PatientIdentifier::default();
    for segment in segments {
        if segment.is("PID") && patient.is_none() {
            account = PatientIdentifier::read(segment.field(18).repetition(1));
            patient = Some(read_patient(segment)?);
        } else if segment.is("PV1") {
            visit = Visit::read(segment);
        }
        if let Some(patient) = &mut patient {
            if segment.is("AL1") {
                patient.allergies.extend(Some(Allergy::read(segment)).filter(|a| !a.is_empty()));
            } else if segment.is("NTE") {
                patient.notes.extend(note(segment));
            }
        }
    }
    if visit.number.id.is_empty() {
        visit.number = account;
    }
    let patient = patient.ok_or_else(|| Refusal::missing(Location::segment("PID", 1)))?;
    Ok((patient, visit))
}

fn read_patient(pid: SegmentRef<'_>) -> Result<Patient, Refusal> {
    let mut identifiers = all(pid.field(3), PatientIdentifier::read);
    identifiers.retain(|identifier| !identifier.id.is_empty());
    if identifiers.is_empty() {
        identifiers = all(pid.field(2), PatientIdentifier::read);
        identifiers.retain(|identifier| !identifier.id.is_empty());
    }
    if identifiers.is_empty() {
        return Err(Refusal::missing(pid.location(3)));
    }
    Ok(Patient {
        identifiers,
        names: all(pid.field(5), Name::read),
        birth_date: TimeStamp::new(&value(pid.field(7).component(1))),
        sex: value(pid.field(8).component(1)),
        allergies: Vec::new(),
        notes: Vec::new(),
    })
}

/// The text of an NTE: all of NTE-3, its repetitions as lines.
pub(super) fn note(nte: SegmentRef<'_>) -> Option<String> {
    let lines: Vec<_> = nte.field(3).repetitions().map(|piece| piece.text()).collect();
    let text = lines.join("\n");
    (!text.is_empty()).then_some(text)
}

/// NTE with a number of its own.
pub(super) fn write_note(n: usize, text: &str, d: &Delimiters) -> Segment {
    let mut nte = Segment::new("NTE");
    nte.put(1, n.to_string());
    nte.put(3, escaped(text, d));
    nte
}

impl Patient {
    /// PID, its NTE, and further down AL1.
    pub(super) fn write_pid(&self, visit: &Visit, d: &Delimiters) -> Vec<Segment> {
        let mut pid = Segment::new("PID");
        pid.put(1, "1".to_owned());
        pid.put(3, repetitions(&self.identifiers, d, |i| i.write(d)));
        pid.put(5, repetitions(&self.names, d, |name| name.write(d)));
        pid.put(7, escaped(self.birth_date.as_str(), d));
        pid.put(8, escaped(&self.sex, d));
        pid.put(18, visit.number.write(d));
        let notes = self.notes.iter().enumerate().map(|(n, text)| write_note(n + 1, text, d));
        std::iter::once(pid).chain(notes).collect()
    }

    pub(super) fn write_allergies(&self, d: &Delimiters) -> Vec<Segment> {
        let write = |(n, allergy): (usize, &Allergy)| {
            let mut al1 = Segment::new("AL1");
            al1.put(1, (n + 1).to_string());
            al1.put(2, allergy.kind.write(d));
            al1.put(3, allergy.code.write(d));
            al1.put(4, allergy.severity.write(d));
            al1.put(5, repetitions(&allergy.reactions, d, |text| escaped(text, d)));
            al1
        };
        self.allergies.iter().enumerate().map(write).collect()
    }
}

impl Allergy {
    fn read(al1: SegmentRef<'_>) -> Self {
        Self {
            kind: Coded::read(al1.field(2).repetition(1)),
            code: Coded::read(al1.field(3).repetition(1)),
            severity: Coded::read(al1.field(4).repetition(1)),
            reactions: all(al1.field(5), value),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Visit {
    fn read(pv1: SegmentRef<'_>) -> Self {
        let place = pv1.field(3).repetition(1);
        let [point_of_care, room, bed, facility] = [1, 2, 3, 4].map(|n| value(place.component(n)));
        Self {
            class: value(pv1.field(2).component(1)),
            location: PointOfCare { point_of_care, room, bed, facility },
            attending: all(pv1.field(7), Person::read),
            referring: all(pv1.field(8), Person::read),
            service: value(pv1.field(10).component(1)),
            ambulatory_status: all(pv1.field(15), |piece| value(piece.component(1))),
            number: PatientIdentifier::read(pv1.field(19).repetition(1)),
        }
    }

    pub(super) fn write(&self, d: &Delimiters) -> Segment {
        let mut pv1 = Segment::new("PV1");
        pv1.put(1, "1".to_owned());
        pv1.put(2, escaped(&self.class, d));
        let place = &self.location;
        let place = [&place.point_of_care, &place.room, &place.bed, &place.facility];
        pv1.put(3, components(&place.map(|part| escaped(part, d)), d));
        pv1.put(7, repetitions(&self.attending, d, |person| person.write(d)));
        pv1.put(8, repetitions(&self.referring, d, |person| person.write(d)));
        pv1.put(10, escaped(&self.service, d));
        pv1.put(15, repetitions(&self.ambulatory_status, d, |text| escaped(text, d)));
        pv1.put(19, self.number.write(d));
        pv1
    }
}

#[cfg(test)]
mod tests;
