//! An entry as the answer to a query (PS3.4 Table K.6-1). Pure.
//!
//! All attributes of type 1 and 2 are in every answer, empty where nobody said them: a name that is
//! not known is no name. Others are there where they were asked for. Numbers are never cut; what is
//! only read is, at what its VR holds.

use dicom_core::value::{C, DataSetSequence, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::entry::Entry;
use super::query::Query;
use crate::cargo::Urgency;
use crate::orders::order::{Code, OrderState};

/// Attributes of type 2 of which this node never knows anything.
const EMPTY: [(Tag, VR); 12] = [
    (tags::REFERENCED_STUDY_SEQUENCE, VR::SQ),
    (tags::REFERENCED_PATIENT_SEQUENCE, VR::SQ),
    (tags::MEDICAL_ALERTS, VR::LO),
    (tags::PREGNANCY_STATUS, VR::US),
    (tags::REQUESTED_CONTRAST_AGENT, VR::LO),
    (tags::ADMISSION_ID, VR::LO),
    (tags::SPECIAL_NEEDS, VR::LO),
    (tags::CURRENT_PATIENT_LOCATION, VR::LO),
    (tags::PATIENT_STATE, VR::LO),
    (tags::PRE_MEDICATION, VR::LO),
    (tags::PATIENT_TRANSPORT_ARRANGEMENTS, VR::LO),
    (tags::CONFIDENTIALITY_CONSTRAINT_ON_PATIENT_DATA_DESCRIPTION, VR::LO),
];
/// Those of them that belong to the step.
const EMPTY_OF_STEP: [Tag; 2] = [tags::REQUESTED_CONTRAST_AGENT, tags::PRE_MEDICATION];

/// Characters that a VR holds, of a value or of a group of a name (PS3.5 6.2).
const fn room(vr: VR) -> usize {
    match vr {
        VR::SH | VR::CS | VR::DS => 16,
        VR::LT => 10_240,
        _ => 64,
    }
}

/// A text that has no character of its own meaning; lines stay only where the VR has them.
fn clean(text: &str, vr: VR) -> String {
    let lines = matches!(vr, VR::LT | VR::ST | VR::UT);
    let character = |c: char| match c {
        '\n' | '\r' if lines => c,
        '\\' if !lines => '/',
        c if c.is_control() => ' ',
        c => c,
    };
    text.trim().chars().map(character).collect()
}

struct Set(InMemDicomObject);

impl Set {
    fn put(&mut self, tag: Tag, vr: VR, value: PrimitiveValue) {
        self.0.put(DataElement::new(tag, vr, value));
    }

    /// A number or a code: as it is.
    fn number(&mut self, tag: Tag, vr: VR, text: &str) {
        let text = clean(text, vr);
        let value = if text.is_empty() { PrimitiveValue::Empty } else { text.into() };
        self.put(tag, vr, value);
    }

    /// What is only read: cut at what its VR holds.
    fn words(&mut self, tag: Tag, vr: VR, text: &str) {
        let cut = |text: &str| text.chars().take(room(vr)).collect::<String>();
        let text = match vr {
            VR::PN => text.split('=').map(cut).collect::<Vec<_>>().join("="),
            _ => cut(&clean(text, vr)),
        };
        self.number(tag, vr, &text);
    }

    /// One value for each line.
    fn lines(&mut self, tag: Tag, vr: VR, text: &str) {
        let line = |l: &str| clean(l, vr).chars().take(room(vr)).collect::<String>();
        let lines: C<String> = text.lines().map(line).filter(|l| !l.is_empty()).collect();
        let value = match lines.is_empty() {
            true => PrimitiveValue::Empty,
            false => PrimitiveValue::Strs(lines),
        };
        self.put(tag, vr, value);
    }

    fn items(&mut self, tag: Tag, items: Vec<InMemDicomObject>) {
        self.0.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
    }

    /// Codes; those that lack their value or their meaning cannot be said.
    fn codes<'a>(&mut self, tag: Tag, codes: impl Iterator<Item = &'a Code>) {
        let items: Vec<_> = codes.filter_map(code).collect();
        if !items.is_empty() {
            self.items(tag, items);
        }
    }
}

fn code(code: &Code) -> Option<InMemDicomObject> {
    if code.value.is_empty() || code.meaning.is_empty() {
        return None;
    }
    let mut item = Set(InMemDicomObject::new_empty());
    let (tag, vr) = match code.value.chars().count() <= room(VR::SH) {
        true => (tags::CODE_VALUE, VR::SH),
        false => (tags::LONG_CODE_VALUE, VR::UC),
    };
    item.number(tag, vr, &code.value);
    // HL7 calls local codes L; a designator that begins so is nobody else's (PS3.3 8.2).
    let scheme = if code.scheme.is_empty() { "L" } else { &code.scheme };
    item.number(tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme);
    item.words(tags::CODE_MEANING, VR::LO, &code.meaning);
    Some(item.0)
}

fn priority(urgency: Urgency) -> &'static str {
    match urgency {
        Urgency::Stat => "STAT",
        Urgency::Urgent => "HIGH",
        Urgency::Routine => "ROUTINE",
        Urgency::Bulk => "LOW",
    }
}

/// The answer; `caller` is the AE title that asks.
pub fn answer(entry: &Entry<'_>, query: &Query, caller: &str) -> InMemDicomObject {
    let mut set = Set(InMemDicomObject::new_empty());
    for (tag, vr) in EMPTY.iter().filter(|(tag, _)| !EMPTY_OF_STEP.contains(tag)) {
        match vr {
            VR::SQ => set.items(*tag, Vec::new()),
            vr => set.put(*tag, *vr, PrimitiveValue::Empty),
        }
    }
    let (order, c) = (entry.order, &entry.order.content);
    set.number(tags::ACCESSION_NUMBER, VR::SH, entry.accession());
    set.words(tags::REFERRING_PHYSICIAN_NAME, VR::PN, &c.referrer);
    set.words(tags::PATIENT_NAME, VR::PN, &entry.patient_name());
    let (id, issuer) = entry.patient_id();
    set.number(tags::PATIENT_ID, VR::LO, id);
    if !issuer.is_empty() {
        set.number(tags::ISSUER_OF_PATIENT_ID, VR::LO, issuer);
    }
    set.number(tags::PATIENT_BIRTH_DATE, VR::DA, date(&c.patient.birth_date));
    set.number(tags::PATIENT_SEX, VR::CS, sex(&c.patient.sex));
    set.words(tags::PATIENT_WEIGHT, VR::DS, &c.weight);
    set.lines(tags::ALLERGIES, VR::LO, &c.clinical.allergies);
    set.number(tags::STUDY_INSTANCE_UID, VR::UI, &entry.step.study);
    set.words(tags::REQUESTING_PHYSICIAN, VR::PN, &c.requester);
    set.words(tags::REQUESTED_PROCEDURE_DESCRIPTION, VR::LO, entry.requested());
    set.codes(tags::REQUESTED_PROCEDURE_CODE_SEQUENCE, std::iter::once(&entry.step.code));
    set.items(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, vec![step(entry, query, caller)]);
    set.number(tags::REQUESTED_PROCEDURE_ID, VR::SH, &entry.step.requested);
    set.number(tags::REQUESTED_PROCEDURE_PRIORITY, VR::CS, priority(order.urgency()));
    let number = |id: &Option<crate::orders::identifier::Identifier>| {
        id.as_ref().map_or(String::new(), |id| id.id.clone())
    };
    if query.asks(tags::INSTITUTION_NAME) {
        set.number(tags::INSTITUTION_NAME, VR::LO, order.key.origin.as_str());
    }
    if query.asks(tags::ADDITIONAL_PATIENT_HISTORY) {
        set.words(tags::ADDITIONAL_PATIENT_HISTORY, VR::LT, &c.clinical.history);
    }
    if query.asks(tags::REQUESTING_SERVICE) {
        set.words(tags::REQUESTING_SERVICE, VR::LO, &c.clinical.department);
    }
    if query.asks(tags::REASON_FOR_THE_REQUESTED_PROCEDURE) {
        let reason = c.clinical.reason.replace('\n', ", ");
        set.words(tags::REASON_FOR_THE_REQUESTED_PROCEDURE, VR::LO, &reason);
    }
    for (tag, id) in [
        (tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, &c.placer),
        (tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, &c.filler),
    ] {
        if query.asks(tag) {
            set.number(tag, VR::LO, &number(id));
        }
    }
    set.0
}

fn step(entry: &Entry<'_>, query: &Query, caller: &str) -> InMemDicomObject {
    let mut set = Set(InMemDicomObject::new_empty());
    for (tag, vr) in EMPTY.iter().filter(|(tag, _)| EMPTY_OF_STEP.contains(tag)) {
        set.put(*tag, *vr, PrimitiveValue::Empty);
    }
    let step = &entry.step;
    let stations = match step.stations.is_empty() {
        // A step that is nobody's is the one's who asks for it.
        true => query.station().unwrap_or_else(|| caller.to_owned()),
        false => step.stations.join("\n"),
    };
    set.number(tags::MODALITY, VR::CS, &step.modality);
    set.lines(tags::SCHEDULED_STATION_AE_TITLE, VR::AE, &stations);
    let at = entry.at;
    let day = at.strftime("%Y%m%d").to_string();
    set.number(tags::SCHEDULED_PROCEDURE_STEP_START_DATE, VR::DA, &day);
    let time = at.strftime("%H%M%S").to_string();
    set.number(tags::SCHEDULED_PROCEDURE_STEP_START_TIME, VR::TM, &time);
    set.words(tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME, VR::PN, &step.performer);
    set.words(tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION, VR::LO, entry.described());
    set.codes(tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE, step.protocols.iter());
    set.number(tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, &step.step);
    set.words(tags::SCHEDULED_STATION_NAME, VR::SH, &step.station_name);
    set.words(tags::SCHEDULED_PROCEDURE_STEP_LOCATION, VR::SH, &step.location);
    if query.asks(tags::SCHEDULED_PROCEDURE_STEP_STATUS) {
        let begun = entry.order.state == OrderState::InProgress;
        let status = if begun { "STARTED" } else { "SCHEDULED" };
        set.number(tags::SCHEDULED_PROCEDURE_STEP_STATUS, VR::CS, status);
    }
    set.0
}

/// A date as DICOM writes it; empty when it is none.
fn date(text: &str) -> &str {
    let is_date = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
    if is_date { text } else { "" }
}

/// HL7 has more than DICOM.
fn sex(text: &str) -> &str {
    match text {
        "M" | "m" => "M",
        "F" | "f" => "F",
        "" | "U" | "u" | "N" => "",
        _ => "O",
    }
}
