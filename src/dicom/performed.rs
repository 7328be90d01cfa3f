//! Modality Performed Procedure Step (PS3.4 F.7): what its data sets must say and what they say.
//! Pure.
//!
//! | refused with | when |
//! |---|---|
//! | 0120, 0121 | an attribute of type 1 is absent, or empty |
//! | 0106 | a status that does not exist, N-CREATE in another than IN PROGRESS, a bad study UID |
//!
//! Attributes of type 2 may be absent: devices leave them out, and a step that is refused for
//! that is evidence lost. A step may be DISCONTINUED without any series: nothing was acquired.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::command::status;
use super::commitment::Reference;
use super::dataset::{items, text};
use super::fault::Fault;
use super::is_uid;

/// Performed Procedure Step Status (0040,0252).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepStatus {
    /// IN PROGRESS.
    InProgress,
    /// COMPLETED.
    Completed,
    /// DISCONTINUED.
    Discontinued,
}

impl StepStatus {
    fn of(set: &InMemDicomObject) -> Result<Option<Self>, Fault> {
        let tag = tags::PERFORMED_PROCEDURE_STEP_STATUS;
        if set.get(tag).is_none() {
            return Ok(None);
        }
        match &*text(set, tag) {
            "IN PROGRESS" => Ok(Some(Self::InProgress)),
            "COMPLETED" => Ok(Some(Self::Completed)),
            "DISCONTINUED" => Ok(Some(Self::Discontinued)),
            "" => Err(Fault::of(status::MISSING_ATTRIBUTE_VALUE, tag, "the status is empty")),
            _ => Err(Fault::of(status::INVALID_ATTRIBUTE_VALUE, tag, "no such status of a step")),
        }
    }

    /// Whether nothing may change any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Discontinued)
    }
}

/// Attributes of type 1 at N-CREATE (PS3.4 Table F.7.2-1), but for sequences and status.
const AT_CREATE: [Tag; 5] = [
    tags::PERFORMED_PROCEDURE_STEP_ID,
    tags::PERFORMED_STATION_AE_TITLE,
    tags::PERFORMED_PROCEDURE_STEP_START_DATE,
    tags::PERFORMED_PROCEDURE_STEP_START_TIME,
    tags::MODALITY,
];

/// Whether a step may begin so.
pub fn judge_create(set: &InMemDicomObject) -> Result<(), Fault> {
    for tag in AT_CREATE {
        require(set, tag)?;
    }
    let tag = tags::PERFORMED_PROCEDURE_STEP_STATUS;
    match StepStatus::of(set)? {
        Some(StepStatus::InProgress) => {}
        Some(_) => {
            let comment = "a step is created IN PROGRESS";
            return Err(Fault::of(status::INVALID_ATTRIBUTE_VALUE, tag, comment));
        }
        None => return Err(missing(tag)),
    }
    let tag = tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE;
    if set.get(tag).is_none() {
        return Err(missing(tag));
    }
    if items(set, tag).is_empty() {
        return Err(empty(tag));
    }
    for item in items(set, tag) {
        require(item, tags::STUDY_INSTANCE_UID)?;
        uid(item, tags::STUDY_INSTANCE_UID)?;
    }
    Ok(())
}

/// Whether a step may change so, and the status that it gets, if it gets one.
pub fn judge_set(set: &InMemDicomObject) -> Result<Option<StepStatus>, Fault> {
    let status = StepStatus::of(set)?;
    let tag = tags::PERFORMED_SERIES_SEQUENCE;
    for item in items(set, tag) {
        require(item, tags::SERIES_INSTANCE_UID)?;
        uid(item, tags::SERIES_INSTANCE_UID)?;
    }
    let series_empty = set.get(tag).is_some() && items(set, tag).is_empty();
    if status == Some(StepStatus::Completed) && series_empty {
        return Err(empty(tag));
    }
    Ok(status)
}

/// What a step, all that was said of it taken together, still lacks to end in `status`
/// (PS3.4 Table F.7.2-1, "final state"): whoever keeps the step asks this before it ends it.
pub fn judge_end(whole: &InMemDicomObject, status: StepStatus) -> Result<(), Fault> {
    if status != StepStatus::Completed {
        return Ok(());
    }
    require(whole, tags::PERFORMED_PROCEDURE_STEP_END_DATE)?;
    require(whole, tags::PERFORMED_PROCEDURE_STEP_END_TIME)?;
    match items(whole, tags::PERFORMED_SERIES_SEQUENCE) {
        [] => Err(empty(tags::PERFORMED_SERIES_SEQUENCE)),
        _ => Ok(()),
    }
}

fn missing(tag: Tag) -> Fault {
    Fault::of(status::MISSING_ATTRIBUTE, tag, "a mandatory attribute is missing")
}

fn empty(tag: Tag) -> Fault {
    Fault::of(status::MISSING_ATTRIBUTE_VALUE, tag, "a mandatory attribute has no value")
}

fn require(set: &InMemDicomObject, tag: Tag) -> Result<(), Fault> {
    match set.get(tag) {
        None => Err(missing(tag)),
        Some(_) if text(set, tag).is_empty() => Err(empty(tag)),
        Some(_) => Ok(()),
    }
}

fn uid(set: &InMemDicomObject, tag: Tag) -> Result<(), Fault> {
    let bad = || Fault::of(status::INVALID_ATTRIBUTE_VALUE, tag, "not a UID");
    if is_uid(&text(set, tag)) { Ok(()) } else { Err(bad()) }
}

/// One item of Performed Series Sequence (0040,0340).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerformedSeries {
    /// Series Instance UID.
    pub series: String,
    /// Its images and its other objects; none when it has none.
    pub instances: Vec<Reference>,
}

/// The series that a step names, in its order.
pub fn performed_series(set: &InMemDicomObject) -> Vec<PerformedSeries> {
    let both = [
        tags::REFERENCED_IMAGE_SEQUENCE,
        tags::REFERENCED_NON_IMAGE_COMPOSITE_SOP_INSTANCE_SEQUENCE,
    ];
    let series = |item: &InMemDicomObject| PerformedSeries {
        series: text(item, tags::SERIES_INSTANCE_UID),
        instances: both.iter().flat_map(|tag| items(item, *tag)).map(Reference::of).collect(),
    };
    items(set, tags::PERFORMED_SERIES_SEQUENCE).iter().map(series).collect()
}

#[cfg(test)]
mod tests {
    use dicom_core::value::DataSetSequence;
    use dicom_core::{DataElement, VR};

    use super::*;

    fn put(set: &mut InMemDicomObject, tag: Tag, value: &str) {
        set.put(DataElement::new(tag, VR::LO, value));
    }

    fn sequence(set: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
        set.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
    }

    fn begun() -> InMemDicomObject {
        let mut set = InMemDicomObject::new_empty();
        AT_CREATE.iter().for_each(|tag| put(&mut set, *tag, "1"));
        put(&mut set, tags::PERFORMED_PROCEDURE_STEP_STATUS, "IN PROGRESS");
        let mut step = InMemDicomObject::new_empty();
        put(&mut step, tags::STUDY_INSTANCE_UID, "1.2.3");
        sequence(&mut set, tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE, vec![step]);
        set
    }

    #[test]
    fn a_step_begins_in_progress_with_all_that_is_mandatory() {
        assert_eq!(judge_create(&begun()), Ok(()));
        for tag in AT_CREATE {
            let mut set = begun();
            set.remove_element(tag);
            assert_eq!(judge_create(&set).unwrap_err().status, 0x0120, "{tag}");
            put(&mut set, tag, "");
            assert_eq!(judge_create(&set).unwrap_err().status, 0x0121, "{tag}");
        }
        for (value, status) in [("COMPLETED", 0x0106), ("STARTED", 0x0106), ("", 0x0121)] {
            let mut set = begun();
            put(&mut set, tags::PERFORMED_PROCEDURE_STEP_STATUS, value);
            let fault = judge_create(&set).unwrap_err();
            assert_eq!((fault.status, &fault.attributes[..]), (status, &[(0x40, 0x252)][..]));
        }
    }

    #[test]
    fn a_step_belongs_to_a_study() {
        let tag = tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE;
        let mut set = begun();
        sequence(&mut set, tag, vec![]);
        assert_eq!(judge_create(&set).unwrap_err().status, 0x0121);
        sequence(&mut set, tag, vec![InMemDicomObject::new_empty()]);
        assert_eq!(judge_create(&set).unwrap_err().status, 0x0120);
        set.remove_element(tag);
        assert_eq!(judge_create(&set).unwrap_err().status, 0x0120);
    }

    #[test]
    fn a_step_is_completed_with_series_and_discontinued_with_or_without() {
        let mut set = InMemDicomObject::new_empty();
        put(&mut set, tags::PERFORMED_PROCEDURE_STEP_STATUS, "COMPLETED");
        assert_eq!(judge_set(&set), Ok(Some(StepStatus::Completed)));
        assert!(judge_end(&set, StepStatus::Completed).is_err());
        sequence(&mut set, tags::PERFORMED_SERIES_SEQUENCE, vec![]);
        assert_eq!(judge_set(&set).unwrap_err().status, 0x0121);
        put(&mut set, tags::PERFORMED_PROCEDURE_STEP_STATUS, "DISCONTINUED");
        assert_eq!(judge_set(&set), Ok(Some(StepStatus::Discontinued)));
        assert_eq!(judge_end(&set, StepStatus::Discontinued), Ok(()));
        assert_eq!(judge_set(&InMemDicomObject::new_empty()), Ok(None));
    }

    #[test]
    fn the_series_of_a_step_are_read_with_images_and_other_objects() {
        let reference = |class: &str, instance: &str| {
            let mut item = InMemDicomObject::new_empty();
            put(&mut item, tags::REFERENCED_SOP_CLASS_UID, class);
            put(&mut item, tags::REFERENCED_SOP_INSTANCE_UID, instance);
            item
        };
        let mut series = InMemDicomObject::new_empty();
        put(&mut series, tags::SERIES_INSTANCE_UID, "1.5");
        sequence(&mut series, tags::REFERENCED_IMAGE_SEQUENCE, vec![reference("1.1", "1.6")]);
        let others = tags::REFERENCED_NON_IMAGE_COMPOSITE_SOP_INSTANCE_SEQUENCE;
        sequence(&mut series, others, vec![reference("1.2", "1.7")]);
        let mut set = InMemDicomObject::new_empty();
        sequence(&mut set, tags::PERFORMED_SERIES_SEQUENCE, vec![series]);
        let [PerformedSeries { series, instances }] = &performed_series(&set)[..] else { panic!() };
        assert_eq!(series, "1.5");
        let uids: Vec<_> = instances.iter().map(|r| r.instance.as_str()).collect();
        assert_eq!(uids, ["1.6", "1.7"]);
    }
}
