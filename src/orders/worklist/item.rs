//! What an item of a RIS's worklist says of an order, and what to ask a RIS for. Pure; items are
//! peers' bytes.
//!
//! Several items may be of one order: one for each scheduled step. They are united by their number:
//! placer's, else filler's order number, else accession number, else Requested Procedure ID. An item
//! with the same number for another patient is not taken.

use std::collections::BTreeMap;

use dicom_core::value::{DataSetSequence, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::period;
use crate::cargo::Urgency;
use crate::clock::Timestamp;
use crate::dicom::dataset::{items, text};
use crate::dicom::is_uid;
use crate::orders::identifier::{Authority, Identifier, Patient};
use crate::orders::order::{Clinical, Code, Content, PARTS_MAX, Procedure};

/// Longest number, name or short text that is taken, in bytes.
const TEXT_MAX: usize = 1024;
/// Longest text for the reader, in bytes.
const CLINICAL_MAX: usize = 8 << 10;

/// An order as a worklist shows it: all of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What they say.
    pub content: Content,
}

/// Why an item is not taken. Without values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Nothing that could tell it from others.
    #[error("it has no order number, no accession number and no requested procedure ID")]
    Nameless,
    /// A number is longer than is kept.
    #[error("a number in it is longer than {TEXT_MAX} bytes")]
    TooLong,
    /// The same number as another item, and another patient.
    #[error("another item has the same number and another patient")]
    OtherPatient,
}

/// What one item says. Patient numbers without an issuer are those of `issuer`.
///
/// # Errors
///
/// It cannot be kept apart from others.
pub fn read(item: &InMemDicomObject, issuer: &str, zone: &TimeZone) -> Result<Content, ItemError> {
    let number = |tag| match text(item, tag) {
        id if id.len() > TEXT_MAX => Err(ItemError::TooLong),
        id if id.is_empty() => Ok(None),
        id => Ok(Some(Identifier::bare(&id))),
    };
    let none = InMemDicomObject::new_empty();
    let step = items(item, tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE).first().unwrap_or(&none);
    let study = text(item, tags::STUDY_INSTANCE_UID);
    let study = if is_uid(&study) { study } else { String::new() };
    let scheduled = scheduled(step, zone);
    let modality = short(step, tags::MODALITY);
    let titles = text(step, tags::SCHEDULED_STATION_AE_TITLE);
    let titles = titles.split('\\').map(str::trim).filter(|t| !t.is_empty() && t.len() <= 64);
    let procedure = Procedure {
        requested: number(tags::REQUESTED_PROCEDURE_ID)?.map(|id| id.id).unwrap_or_default(),
        step: short(step, tags::SCHEDULED_PROCEDURE_STEP_ID),
        code: requested(item),
        modality: modality.clone(),
        study: study.clone(),
        stations: titles.take(PARTS_MAX).map(str::to_owned).collect(),
        station_name: short(step, tags::SCHEDULED_STATION_NAME),
        location: short(step, tags::SCHEDULED_PROCEDURE_STEP_LOCATION),
        protocols: codes(step, tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE),
        description: short(step, tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION),
        performer: short(step, tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME),
        scheduled,
    };
    let content = Content {
        placer: number(tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST)?,
        filler: number(tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST)?,
        accession: number(tags::ACCESSION_NUMBER)?,
        studies: Some(study).filter(|uid| !uid.is_empty()).into_iter().collect(),
        procedures: vec![procedure],
        patient: patient(item, issuer)?,
        modality,
        scheduled,
        urgency: urgency(&text(item, tags::REQUESTED_PROCEDURE_PRIORITY)),
        clinical: clinical(item, step),
        requester: short(item, tags::REQUESTING_PHYSICIAN),
        referrer: short(item, tags::REFERRING_PHYSICIAN_NAME),
        weight: short(item, tags::PATIENT_WEIGHT),
        group: None,
        parts: Vec::new(),
    };
    content.number().ok_or(ItemError::Nameless)?;
    Ok(content)
}

/// Items of the same order as one, in the order of their numbers; and what was not taken.
pub fn unite(all: impl IntoIterator<Item = Content>) -> (Vec<Item>, Vec<ItemError>) {
    let mut orders: BTreeMap<String, Content> = BTreeMap::new();
    let mut refused = Vec::new();
    for content in all {
        let Some(number) = content.number().map(str::to_owned) else { continue };
        let Some(known) = orders.get_mut(&number) else {
            orders.insert(number, content);
            continue;
        };
        if known.patient.ids != content.patient.ids {
            refused.push(ItemError::OtherPatient);
            continue;
        }
        for study in content.studies {
            if !known.studies.contains(&study) && known.studies.len() < PARTS_MAX {
                known.studies.push(study);
            }
        }
        for step in content.procedures {
            if !known.procedures.contains(&step) && known.procedures.len() < PARTS_MAX {
                known.procedures.push(step);
            }
        }
        known.scheduled = [known.scheduled, content.scheduled].into_iter().flatten().min();
        known.urgency = [known.urgency, content.urgency].into_iter().flatten().min();
    }
    // A RIS may give the steps in another order each time, which says nothing new.
    let in_order = |mut content: Content| {
        content.procedures.sort_by(|a, b| (&a.requested, &a.step).cmp(&(&b.requested, &b.step)));
        content.studies.sort();
        Item { content }
    };
    (orders.into_values().map(in_order).collect(), refused)
}

/// A short text: what is longer is cut.
fn short(set: &InMemDicomObject, tag: Tag) -> String {
    cut(text(set, tag), TEXT_MAX)
}

fn cut(mut text: String, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn code(item: &InMemDicomObject) -> Code {
    let value = [tags::CODE_VALUE, tags::LONG_CODE_VALUE].map(|tag| short(item, tag));
    Code {
        value: value.into_iter().find(|v| !v.is_empty()).unwrap_or_default(),
        scheme: short(item, tags::CODING_SCHEME_DESIGNATOR),
        meaning: short(item, tags::CODE_MEANING),
    }
}

fn codes(set: &InMemDicomObject, tag: Tag) -> Vec<Code> {
    let all = items(set, tag).iter().take(PARTS_MAX).map(code);
    all.filter(|code| *code != Code::default()).collect()
}

/// What is requested: the first code, in the words of the description where that has some.
fn requested(item: &InMemDicomObject) -> Code {
    let all = codes(item, tags::REQUESTED_PROCEDURE_CODE_SEQUENCE);
    let mut code = all.into_iter().next().unwrap_or_default();
    let words = short(item, tags::REQUESTED_PROCEDURE_DESCRIPTION);
    if !words.is_empty() {
        code.meaning = words;
    }
    code
}

fn scheduled(step: &InMemDicomObject, zone: &TimeZone) -> Option<Timestamp> {
    let day = period::date(&text(step, tags::SCHEDULED_PROCEDURE_STEP_START_DATE))?;
    let time = period::time(&text(step, tags::SCHEDULED_PROCEDURE_STEP_START_TIME));
    // A day without a time is due when it ends.
    let time = time.map_or(jiff::civil::time(23, 59, 59, 0), |(first, _)| first);
    let at = zone.to_ambiguous_timestamp(day.to_datetime(time)).compatible().ok()?;
    Some(Timestamp(at.as_millisecond()))
}

fn urgency(priority: &str) -> Option<Urgency> {
    Some(match priority {
        "" => return None,
        "STAT" => Urgency::Stat,
        "HIGH" => Urgency::Urgent,
        _ => Urgency::Routine,
    })
}

fn patient(item: &InMemDicomObject, issuer: &str) -> Result<Patient, ItemError> {
    let mut ids = Vec::new();
    for set in std::iter::once(item).chain(items(item, tags::OTHER_PATIENT_I_DS_SEQUENCE)) {
        let id = text(set, tags::PATIENT_ID);
        if id.len() > TEXT_MAX {
            return Err(ItemError::TooLong);
        }
        if id.is_empty() || ids.len() == PARTS_MAX {
            continue;
        }
        let qualifiers = items(set, tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE).first();
        let universal = qualifiers.map(|q| short(q, tags::UNIVERSAL_ENTITY_ID));
        let mut authority = Authority {
            namespace: short(set, tags::ISSUER_OF_PATIENT_ID),
            universal: universal.unwrap_or_default(),
        };
        if authority == Authority::default() {
            issuer.clone_into(&mut authority.namespace);
        }
        ids.push(Identifier { id, authority });
    }
    let name = short(item, tags::PATIENT_NAME);
    let groups = name.split('=').map(|g| g.trim_end_matches('^').to_owned());
    Ok(Patient {
        ids,
        former: Vec::new(),
        names: groups.filter(|g| !g.is_empty()).take(3).collect(),
        birth_date: text(item, tags::PATIENT_BIRTH_DATE).chars().take(8).collect(),
        sex: text(item, tags::PATIENT_SEX).chars().take(1).collect(),
    })
}

fn clinical(item: &InMemDicomObject, step: &InMemDicomObject) -> Clinical {
    let lines = |sets: &[(&InMemDicomObject, Tag)]| {
        let texts = sets.iter().map(|(set, tag)| text(set, *tag).replace('\\', "\n"));
        let texts: Vec<String> = texts.filter(|t| !t.is_empty()).collect();
        cut(texts.join("\n"), CLINICAL_MAX)
    };
    Clinical {
        reason: lines(&[(item, tags::REASON_FOR_THE_REQUESTED_PROCEDURE)]),
        history: lines(&[
            (item, tags::ADDITIONAL_PATIENT_HISTORY),
            (item, tags::MEDICAL_ALERTS),
            (item, tags::REQUESTED_PROCEDURE_COMMENTS),
            (step, tags::COMMENTS_ON_THE_SCHEDULED_PROCEDURE_STEP),
        ]),
        allergies: lines(&[(item, tags::ALLERGIES)]),
        department: short(item, tags::REQUESTING_SERVICE),
        contact: String::new(),
    }
}

/// What a RIS is asked for: all that is read, and which steps.
pub fn identifier(
    days: (Date, Date),
    modality: Option<&str>,
    station: Option<&str>,
) -> InMemDicomObject {
    let empty = |set: &mut InMemDicomObject, all: &[(Tag, VR)]| {
        for (tag, vr) in all {
            match vr {
                VR::SQ => set.put(DataElement::new(*tag, VR::SQ, DataSetSequence::empty())),
                vr => set.put(DataElement::new(*tag, *vr, PrimitiveValue::Empty)),
            };
        }
    };
    let mut step = InMemDicomObject::new_empty();
    empty(&mut step, &OF_STEP);
    let days = format!("{}-{}", days.0.strftime("%Y%m%d"), days.1.strftime("%Y%m%d"));
    step.put(DataElement::new(tags::SCHEDULED_PROCEDURE_STEP_START_DATE, VR::DA, days));
    for (tag, vr, value) in
        [(tags::MODALITY, VR::CS, modality), (tags::SCHEDULED_STATION_AE_TITLE, VR::AE, station)]
    {
        step.put(DataElement::new(tag, vr, PrimitiveValue::from(value.unwrap_or_default())));
    }
    let mut set = InMemDicomObject::new_empty();
    empty(&mut set, &OF_ORDER);
    let steps = DataSetSequence::from(vec![step]);
    set.put(DataElement::new(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, VR::SQ, steps));
    set
}

/// What is asked of a step.
const OF_STEP: [(Tag, VR); 8] = [
    (tags::SCHEDULED_PROCEDURE_STEP_START_TIME, VR::TM),
    (tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME, VR::PN),
    (tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION, VR::LO),
    (tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE, VR::SQ),
    (tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH),
    (tags::SCHEDULED_STATION_NAME, VR::SH),
    (tags::SCHEDULED_PROCEDURE_STEP_LOCATION, VR::SH),
    (tags::COMMENTS_ON_THE_SCHEDULED_PROCEDURE_STEP, VR::LT),
];

/// What is asked of an order.
const OF_ORDER: [(Tag, VR); 24] = [
    (tags::ACCESSION_NUMBER, VR::SH),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
    (tags::PATIENT_NAME, VR::PN),
    (tags::PATIENT_ID, VR::LO),
    (tags::ISSUER_OF_PATIENT_ID, VR::LO),
    (tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE, VR::SQ),
    (tags::OTHER_PATIENT_I_DS_SEQUENCE, VR::SQ),
    (tags::PATIENT_BIRTH_DATE, VR::DA),
    (tags::PATIENT_SEX, VR::CS),
    (tags::PATIENT_WEIGHT, VR::DS),
    (tags::MEDICAL_ALERTS, VR::LO),
    (tags::ALLERGIES, VR::LO),
    (tags::ADDITIONAL_PATIENT_HISTORY, VR::LT),
    (tags::STUDY_INSTANCE_UID, VR::UI),
    (tags::REQUESTING_PHYSICIAN, VR::PN),
    (tags::REQUESTING_SERVICE, VR::LO),
    (tags::REQUESTED_PROCEDURE_DESCRIPTION, VR::LO),
    (tags::REQUESTED_PROCEDURE_CODE_SEQUENCE, VR::SQ),
    (tags::REQUESTED_PROCEDURE_ID, VR::SH),
    (tags::REASON_FOR_THE_REQUESTED_PROCEDURE, VR::LO),
    (tags::REQUESTED_PROCEDURE_PRIORITY, VR::CS),
    (tags::REQUESTED_PROCEDURE_COMMENTS, VR::LT),
    (tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, VR::LO),
    (tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, VR::LO),
];
