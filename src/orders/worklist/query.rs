//! What a query wants: its keys, read from its identifier, and whether an entry matches them
//! (PS3.4 K.6.1.2.2). Pure; identifiers are peers' bytes.
//!
//! | key | matching |
//! |---|---|
//! | Scheduled Station AE Title, Modality | single value, wild card, several values |
//! | Scheduled Procedure Step Start Date, Time | single value, range; both together as one period |
//! | Scheduled Performing Physician's Name, Patient's Name | single value, wild card, each group |
//! | Scheduled Procedure Step ID, Requested Procedure ID, Accession Number, Patient ID and its Issuer, Placer and Filler Order Number, Institution Name | single value, wild card |
//! | Study Instance UID | single value, list |
//!
//! Any other key that has a value is not matched, which the answer says (FF01). A step without a
//! station is for whoever asks. Institution Name is the node that took the order.

use std::collections::BTreeSet;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

use super::entry::{Entry, is_shown};
use super::pattern::{NamePattern, Pattern};
use super::period::{self, Dates, Times};
use super::{KEY_BYTES_MAX, SHOWN_DAYS};
use crate::dicom::command::status;
use crate::dicom::fault::Fault;
use crate::dicom::is_uid;

/// Most values of one key.
const VALUES_MAX: usize = 256;

/// A query.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Attributes that are wanted in the answer, those of the step among them.
    asked: BTreeSet<Tag>,
    /// Whether it has keys that are not matched here.
    pub keys_unsupported: bool,
    texts: Vec<(Tag, Vec<Pattern>)>,
    of_step: Vec<(Tag, Vec<Pattern>)>,
    patient: Option<NamePattern>,
    performer: Option<NamePattern>,
    studies: Vec<String>,
    dates: Option<Dates>,
    times: Option<Times>,
}

/// By what the orders that may match are found without a look at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// By these Study Instance UIDs.
    Studies(Vec<String>),
    /// By these accession numbers.
    Accessions(Vec<String>),
    /// By these Requested Procedure IDs.
    Procedures(Vec<String>),
    /// By these placer order numbers.
    Placers(Vec<String>),
    /// By these filler order numbers.
    Fillers(Vec<String>),
    /// By these patient IDs.
    Patients(Vec<String>),
    /// By their days.
    Days(Dates),
}

/// Finds orders by these values of a key.
type Finder = fn(Vec<String>) -> Found;

/// Keys outside the step that are texts, and by what they find orders.
const TEXTS: [(Tag, Option<Finder>); 7] = [
    (tags::ACCESSION_NUMBER, Some(Found::Accessions)),
    (tags::REQUESTED_PROCEDURE_ID, Some(Found::Procedures)),
    (tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, Some(Found::Placers)),
    (tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, Some(Found::Fillers)),
    (tags::PATIENT_ID, Some(Found::Patients)),
    (tags::ISSUER_OF_PATIENT_ID, None),
    (tags::INSTITUTION_NAME, None),
];

/// Keys of the step that are texts.
const OF_STEP: [Tag; 3] =
    [tags::SCHEDULED_STATION_AE_TITLE, tags::MODALITY, tags::SCHEDULED_PROCEDURE_STEP_ID];

/// Elements that say how the identifier is written, and match nothing.
const NO_KEYS: [Tag; 3] =
    [tags::SPECIFIC_CHARACTER_SET, tags::TIMEZONE_OFFSET_FROM_UTC, tags::QUERY_RETRIEVE_LEVEL];

/// The values of a key, without those that are universal; none: it matches everything.
fn values(element: &InMemElement) -> Result<Vec<String>, Fault> {
    let tag = element.header().tag;
    let too_much = || Fault::of(status::DATA_SET_MISMATCH, tag, "the key is too long");
    let Some(value) = element.value().primitive() else { return Ok(Vec::new()) };
    if value.calculate_byte_len() > KEY_BYTES_MAX * VALUES_MAX {
        return Err(too_much());
    }
    let values: Vec<String> =
        value.to_multi_str().iter().map(|v| v.trim_matches([' ', '\0']).to_owned()).collect();
    if values.len() > VALUES_MAX || values.iter().any(|v| v.len() > KEY_BYTES_MAX) {
        return Err(too_much());
    }
    // One value that matches everything makes the key universal.
    let universal = values.iter().any(|v| v.chars().all(|c| c == '*'));
    Ok(if universal { Vec::new() } else { values })
}

fn patterns(element: &InMemElement) -> Result<Vec<Pattern>, Fault> {
    Ok(values(element)?.iter().map(|value| Pattern::new(value)).collect())
}

fn name(element: &InMemElement) -> Result<Option<NamePattern>, Fault> {
    let first = values(element)?.into_iter().next();
    Ok(first.map(|value| NamePattern::new(&value)).filter(|name| !name.is_universal()))
}

/// Whether any element of a sequence's items has a value.
fn has_keys(element: &InMemElement) -> bool {
    let items = element.items().unwrap_or_default();
    let says = |e: &InMemElement| match e.value().primitive() {
        Some(value) => !value.to_str().trim_matches([' ', '\0', '*']).is_empty(),
        // Deeper ones are not looked into: they are no keys of the worklist.
        None => e.items().is_some_and(|items| items.iter().any(|item| item.iter().count() > 0)),
    };
    items.iter().any(|item| item.iter().any(says))
}

impl Query {
    /// Reads an identifier.
    ///
    /// # Errors
    ///
    /// A key that is none: a date that is no date, more than one item for the step.
    pub fn read(identifier: &InMemDicomObject) -> Result<Self, Fault> {
        let mut query = Self::default();
        for element in identifier {
            let tag = element.header().tag;
            query.asked.insert(tag);
            match tag {
                tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE => match element.items() {
                    Some([step]) => query.read_step(step)?,
                    None | Some([]) => {}
                    Some(_) => {
                        let comment = "one item is asked for a step";
                        return Err(Fault::of(status::DATA_SET_MISMATCH, tag, comment));
                    }
                },
                tags::PATIENT_NAME => query.patient = name(element)?,
                tags::STUDY_INSTANCE_UID => {
                    query.studies = values(element)?;
                    if !query.studies.iter().all(|uid| is_uid(uid)) {
                        let comment = "this is no UID";
                        return Err(Fault::of(status::DATA_SET_MISMATCH, tag, comment));
                    }
                }
                _ if TEXTS.iter().any(|(text, _)| *text == tag) => {
                    let patterns = patterns(element)?;
                    if !patterns.is_empty() {
                        query.texts.push((tag, patterns));
                    }
                }
                _ => query.pass_over(element)?,
            }
        }
        Ok(query)
    }

    fn read_step(&mut self, step: &InMemDicomObject) -> Result<(), Fault> {
        for element in step {
            let tag = element.header().tag;
            self.asked.insert(tag);
            let bad = |comment| Fault::of(status::DATA_SET_MISMATCH, tag, comment);
            let first = || Ok::<_, Fault>(values(element)?.into_iter().next());
            match tag {
                tags::SCHEDULED_PROCEDURE_STEP_START_DATE => {
                    let dates = first()?.map(|text| Dates::read(&text));
                    self.dates = match dates {
                        Some(None) => return Err(bad("this is no date and no range of dates")),
                        dates => dates.flatten(),
                    };
                }
                tags::SCHEDULED_PROCEDURE_STEP_START_TIME => {
                    let times = first()?.map(|text| Times::read(&text));
                    self.times = match times {
                        Some(None) => return Err(bad("this is no time and no range of times")),
                        times => times.flatten(),
                    };
                }
                tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME => self.performer = name(element)?,
                _ if OF_STEP.contains(&tag) => {
                    let patterns = patterns(element)?;
                    if !patterns.is_empty() {
                        self.of_step.push((tag, patterns));
                    }
                }
                _ => self.pass_over(element)?,
            }
        }
        Ok(())
    }

    /// A key that is not matched here.
    fn pass_over(&mut self, element: &InMemElement) -> Result<(), Fault> {
        let tag = element.header().tag;
        if !NO_KEYS.contains(&tag) {
            self.keys_unsupported |= !values(element)?.is_empty() || has_keys(element);
        }
        Ok(())
    }

    /// By what the orders that may match are found. `today` is local to the worklist.
    pub fn found(&self, today: jiff::civil::Date) -> Found {
        if !self.studies.is_empty() {
            return Found::Studies(self.studies.clone());
        }
        for (tag, found) in TEXTS {
            let (Some(found), Some(patterns)) = (found, self.text(tag)) else { continue };
            let literals: Option<Vec<String>> = patterns.iter().map(Pattern::literal).collect();
            if let Some(literals) = literals {
                return found(literals);
            }
        }
        let named = self
            .texts
            .iter()
            .any(|(tag, _)| ![tags::ISSUER_OF_PATIENT_ID, tags::INSTITUTION_NAME].contains(tag));
        let since = today.checked_sub(jiff::Span::new().days(SHOWN_DAYS)).ok();
        let recent = Dates { from: since.filter(|_| !named && self.patient.is_none()), to: None };
        Found::Days(self.dates.unwrap_or(recent))
    }

    fn text(&self, tag: Tag) -> Option<&[Pattern]> {
        self.texts.iter().find(|(own, _)| *own == tag).map(|(_, patterns)| &patterns[..])
    }

    /// Whether an attribute is wanted in the answer.
    pub(super) fn asks(&self, tag: Tag) -> bool {
        self.asked.contains(&tag)
    }

    /// The one station that is asked for, where it is one.
    pub(super) fn station(&self) -> Option<String> {
        let tag = tags::SCHEDULED_STATION_AE_TITLE;
        match self.of_step.iter().find(|(own, _)| *own == tag) {
            Some((_, patterns)) => match &patterns[..] {
                [one] => one.literal(),
                _ => None,
            },
            None => None,
        }
    }

    /// Whether an entry matches all keys.
    pub fn matches(&self, entry: &Entry<'_>) -> bool {
        is_shown(entry.order)
            && period::holds(self.dates.as_ref(), self.times.as_ref(), entry.at, entry.whole_day)
            && (self.studies.is_empty() || self.studies.contains(&entry.step.study))
            && self.texts.iter().all(|(tag, keys)| {
                let value = text_of(entry, *tag);
                keys.iter().any(|key| key.matches(value))
            })
            && self.of_step.iter().all(|(tag, keys)| of_step(entry, *tag, keys))
            && self.patient.as_ref().is_none_or(|key| key.matches(&entry.patient_name()))
            && self.performer.as_ref().is_none_or(|key| key.matches(&entry.step.performer))
    }
}

fn text_of<'a>(entry: &'a Entry<'_>, tag: Tag) -> &'a str {
    let c = &entry.order.content;
    let number = |id: &'a Option<crate::orders::identifier::Identifier>| {
        id.as_ref().map_or("", |id| id.id.as_str())
    };
    match tag {
        tags::ACCESSION_NUMBER => entry.accession(),
        tags::REQUESTED_PROCEDURE_ID => &entry.step.requested,
        tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST => number(&c.placer),
        tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST => number(&c.filler),
        tags::PATIENT_ID => entry.patient_id().0,
        tags::ISSUER_OF_PATIENT_ID => entry.patient_id().1,
        tags::INSTITUTION_NAME => entry.order.key.origin.as_str(),
        _ => "",
    }
}

fn of_step(entry: &Entry<'_>, tag: Tag, keys: &[Pattern]) -> bool {
    let step = &entry.step;
    let any = |value: &str| keys.iter().any(|key| key.matches(value));
    match tag {
        tags::MODALITY => any(&step.modality),
        tags::SCHEDULED_PROCEDURE_STEP_ID => any(&step.step),
        _ => step.stations.is_empty() || step.stations.iter().any(|station| any(station)),
    }
}
