//! Messages to reports.

use super::value::{DocumentError, Value};
use super::{Observation, REPORTS_MAX, Report, ReportMessage, ResultStatus, UIDS_MAX};
use crate::hl7::ack::{Condition, REFUSALS_MAX, Refusal};
use crate::hl7::datatype::{Coded, Identifier, Name, Person, all, value};
use crate::hl7::message::{Delimiters, Message, Piece, SegmentRef};
use crate::hl7::order::OrderFields;
use crate::hl7::path::{Location, Path};
use crate::hl7::patient::{note, patient_and_visit};
use crate::hl7::time::TimeStamp;

/// The segments of one report.
struct Group<'a> {
    orc: Option<SegmentRef<'a>>,
    obr: SegmentRef<'a>,
    others: Vec<SegmentRef<'a>>,
}

/// What a UID that came as an observation names.
enum Names {
    Study,
    Series,
    Instance,
    Document,
}

impl ReportMessage {
    /// Reads ORU^R01. One report that cannot be taken refuses the message: its sender knows no
    /// other unit. Of `fields` accession number and Study Instance UID are used.
    pub fn read(message: &Message, fields: &OrderFields) -> Result<Self, Vec<Refusal>> {
        let head: Vec<_> =
            message.segments().take_while(|s| !s.is("ORC") && !s.is("OBR")).collect();
        let (patient, visit) =
            patient_and_visit(head.iter().copied()).map_err(|refusal| vec![refusal])?;
        let groups = groups(message, head.len()).map_err(|refusal| vec![refusal])?;
        let (mut reports, mut refusals) = (Vec::new(), Vec::new());
        for group in groups {
            match group.read(fields, &head, message.delimiters()) {
                Ok(report) => reports.push(report),
                Err(refusal) if refusals.len() < REFUSALS_MAX => refusals.push(refusal),
                Err(_) => {}
            }
        }
        if refusals.is_empty() && reports.is_empty() {
            refusals.push(Refusal::missing(Location::segment("OBR", 1)));
        }
        if refusals.is_empty() { Ok(Self { patient, visit, reports }) } else { Err(refusals) }
    }
}

/// Splits what follows the patient into reports. An ORC belongs to the OBR after it; ZDS and IPC
/// before the first OBR belong to it as well.
fn groups(message: &Message, head: usize) -> Result<Vec<Group<'_>>, Refusal> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut orc = None;
    for segment in message.segments().skip(head) {
        if segment.is("ORC") {
            orc = Some(segment);
        } else if segment.is("OBR") {
            if groups.len() == REPORTS_MAX {
                let words = format!("more than {REPORTS_MAX} reports in one message");
                let condition = Condition::ApplicationInternalError;
                let location = Location::segment("OBR", segment.sequence());
                return Err(Refusal::error(location, condition, words));
            }
            groups.push(Group { orc: orc.take(), obr: segment, others: Vec::new() });
        } else if let Some(group) = groups.last_mut() {
            group.others.push(segment);
        }
    }
    Ok(groups)
}

impl<'a> Group<'a> {
    fn read(
        &self,
        fields: &OrderFields,
        head: &[SegmentRef<'a>],
        d: &Delimiters,
    ) -> Result<Report, Refusal> {
        let obr = self.obr;
        let code = value(obr.field(25).component(1)).to_ascii_uppercase();
        let status = ResultStatus::of_code(&code).ok_or_else(|| {
            let words = "OBR-25 is no result status of table 0123";
            Refusal::error(obr.location(25), Condition::TableValueNotFound, words)
        })?;
        let requesters = all(obr.field(16), Person::read);
        let from_orc = || self.orc.map(|orc| all(orc.field(12), Person::read)).unwrap_or_default();
        let mut report = Report {
            placer: self.number(2),
            filler: self.number(3),
            accession: self.first(&fields.accession, head),
            service: Coded::read(obr.field(4).repetition(1)),
            observed_at: TimeStamp::new(&value(obr.field(7).component(1))),
            reported_at: TimeStamp::new(&value(obr.field(22).component(1))),
            status,
            interpreters: all(obr.field(32), named),
            assistants: all(obr.field(33), named),
            requesters: if requesters.is_empty() { from_orc() } else { requesters },
            procedure: (value(obr.field(19).component(1)), value(obr.field(20).component(1))),
            ..Report::default()
        };
        let study = self.first(&fields.study_uid, head);
        report.studies.extend(Some(study).filter(|uid| !uid.is_empty()));
        for segment in &self.others {
            if segment.is("NTE") {
                let notes = match report.observations.last_mut() {
                    Some(observation) => &mut observation.notes,
                    None => &mut report.notes,
                };
                notes.extend(note(*segment));
            } else if segment.is("OBX") {
                let observation = observation(*segment, d)?;
                if !report.take_uid(&observation) {
                    report.observations.push(observation);
                }
            }
        }
        Ok(report)
    }

    /// The order number of OBR, or of ORC.
    fn number(&self, field: u16) -> Identifier {
        let number = |segment: SegmentRef<'a>| Identifier::read(segment.field(field).repetition(1));
        let own = number(self.obr);
        if own.is_empty() { self.orc.map(number).unwrap_or(own) } else { own }
    }

    /// What the first path says that says something: in this report, or before all reports.
    fn first(&self, paths: &[Path], head: &[SegmentRef<'a>]) -> String {
        let own = [Some(self.obr), self.orc];
        let texts = paths.iter().flat_map(|path| {
            let own = own.into_iter().flatten();
            let segments = own.chain(self.others.iter().copied()).chain(head.iter().copied());
            segments.filter(|s| s.is(path.segment())).map(|s| s.text(path))
        });
        let mut texts = texts.map(|text| text.trim_matches(' ').to_owned());
        texts.find(|text| !text.is_empty()).unwrap_or_default()
    }
}

/// NDL (2.A.46): its name is CNN, the number and name of a person as subcomponents. Senders of
/// XCN in its place are understood too.
fn named(piece: Piece<'_>) -> Person {
    let name = piece.component(1);
    let [id, family, given, middle, suffix, prefix] =
        [1, 2, 3, 4, 5, 6].map(|n| value(name.subcomponent(n)));
    if family.is_empty() && !piece.component(2).is_empty() && given.is_empty() {
        let person = Person::read(piece);
        // NDL-2 is a time, and no name.
        let is_time = TimeStamp::new(&value(piece.component(2))).when().is_some();
        if !is_time {
            return person;
        }
    }
    let name = Name { family, given, middle, suffix, prefix, ..Name::default() };
    Person { id, name, ..Person::default() }
}

fn observation(obx: SegmentRef<'_>, d: &Delimiters) -> Result<Observation, Refusal> {
    let kind = value(obx.field(2).component(1)).to_ascii_uppercase();
    let read = Value::read(&kind, obx.field(5), d).map_err(|error| {
        let condition = match error {
            DocumentError::Encoding => Condition::DataTypeError,
            DocumentError::TooLarge => Condition::ApplicationInternalError,
        };
        Refusal::error(obx.location(5), condition, error.to_string())
    })?;
    let identifier = obx.field(3).repetition(1);
    let mut code = Coded::read(identifier);
    code.id = value(identifier.component(1).subcomponent(1));
    Ok(Observation {
        kind,
        code,
        suffix: value(identifier.component(1).subcomponent(2)).to_ascii_uppercase(),
        sub_id: value(obx.field(4)),
        value: read,
        units: Coded::read(obx.field(6).repetition(1)),
        flags: all(obx.field(8), |flag| value(flag.component(1)).to_ascii_uppercase()),
        status: value(obx.field(11).component(1)).to_ascii_uppercase(),
        actionable: Coded::read(obx.field(13).repetition(1)),
        observed_at: TimeStamp::new(&value(obx.field(14).component(1))),
        notes: Vec::new(),
    })
}

impl Report {
    /// Takes a UID that came as an observation; `false` when it is none.
    fn take_uid(&mut self, observation: &Observation) -> bool {
        let Some(names) = names(&observation.code) else { return false };
        let uid = match &observation.value {
            Value::Text(text) => text.trim(),
            Value::Parts(parts) => parts.first().and_then(|p| p.first()).map_or("", String::as_str),
            _ => return false,
        };
        let uid = uid.split(['^', '&']).next().unwrap_or_default().trim();
        if !is_uid(uid) {
            return false;
        }
        let list = match names {
            Names::Document if self.document_uid.is_empty() => {
                uid.clone_into(&mut self.document_uid);
                return true;
            }
            Names::Study => &mut self.studies,
            Names::Series => &mut self.series,
            Names::Instance | Names::Document => &mut self.instances,
        };
        if !list.iter().any(|known| known == uid) && list.len() < UIDS_MAX {
            list.push(uid.to_owned());
        }
        true
    }
}

/// A UID is digits and dots (PS3.5 9); `hl7` knows no more of DICOM.
fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.contains('.')
}

/// What IHE (RAD-28 table 4.28-4, RAD-128) and common senders call UIDs in OBX-3.
fn names(code: &Coded) -> Option<Names> {
    let text = code.text.to_ascii_lowercase();
    let by_code = match (code.id.as_str(), code.system.as_str()) {
        ("113014" | "110180", "DCM") => Some(Names::Study),
        ("112002", "DCM") => Some(Names::Series),
        _ => None,
    };
    by_code.or_else(|| {
        Some(match text.as_str() {
            "study instance uid" | "dicom study" => Names::Study,
            "series instance uid" => Names::Series,
            "sop instance uid" | "image instance uid" => Names::Instance,
            "sr instance uid" | "sr document uid" | "document instance uid" => Names::Document,
            _ => return None,
        })
    })
}
