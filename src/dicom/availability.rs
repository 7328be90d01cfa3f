//! Instance Availability Notification (PS3.4 R.3): which instances of a study are to be had, and
//! where. Pure.

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::command::status;
use super::commitment::Reference;
use super::dataset::{items, text};
use super::fault::Fault;
use super::is_uid;

/// Instance Availability (0008,0056).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// ONLINE: at once.
    Online,
    /// NEARLINE: after a while.
    Nearline,
    /// OFFLINE: when a person fetches it.
    Offline,
    /// UNAVAILABLE: not at all.
    Unavailable,
}

/// One instance of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// Series Instance UID.
    pub series: String,
    /// The instance.
    pub reference: Reference,
    /// Whether it is to be had.
    pub availability: Availability,
    /// From where: Retrieve AE Title (0008,0054), several joined by `\`.
    pub retrieve_ae: String,
}

/// What a peer announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Study Instance UID.
    pub study: String,
    /// Its instances, of which there may be more than this notice has.
    pub instances: Vec<Available>,
}

/// What the Attribute List of an N-CREATE announces.
pub fn notice(set: &InMemDicomObject) -> Result<Notice, Fault> {
    let lacks = |tag| match set.get(tag) {
        None => Fault::of(status::MISSING_ATTRIBUTE, tag, "a mandatory attribute is missing"),
        Some(_) => {
            let comment = "a mandatory attribute has no value";
            Fault::of(status::MISSING_ATTRIBUTE_VALUE, tag, comment)
        }
    };
    let invalid = |tag, comment| Fault::of(status::INVALID_ATTRIBUTE_VALUE, tag, comment);
    let study = text(set, tags::STUDY_INSTANCE_UID);
    if study.is_empty() {
        return Err(lacks(tags::STUDY_INSTANCE_UID));
    }
    if !is_uid(&study) {
        return Err(invalid(tags::STUDY_INSTANCE_UID, "not a UID"));
    }
    let all_series = items(set, tags::REFERENCED_SERIES_SEQUENCE);
    if all_series.is_empty() {
        return Err(lacks(tags::REFERENCED_SERIES_SEQUENCE));
    }
    let mut instances = vec![];
    for item in all_series {
        let series = text(item, tags::SERIES_INSTANCE_UID);
        if !is_uid(&series) {
            return Err(invalid(tags::SERIES_INSTANCE_UID, "a series without a valid UID"));
        }
        for item in items(item, tags::REFERENCED_SOP_SEQUENCE) {
            let reference = Reference::of(item);
            if !is_uid(&reference.instance) {
                let comment = "an instance without a valid UID";
                return Err(invalid(tags::REFERENCED_SOP_INSTANCE_UID, comment));
            }
            let availability = match &*text(item, tags::INSTANCE_AVAILABILITY) {
                "ONLINE" => Availability::Online,
                "NEARLINE" => Availability::Nearline,
                "OFFLINE" => Availability::Offline,
                "UNAVAILABLE" => Availability::Unavailable,
                _ => return Err(invalid(tags::INSTANCE_AVAILABILITY, "no such availability")),
            };
            let retrieve_ae = text(item, tags::RETRIEVE_AE_TITLE);
            let series = series.clone();
            instances.push(Available { series, reference, availability, retrieve_ae });
        }
    }
    Ok(Notice { study, instances })
}

#[cfg(test)]
mod tests {
    use dicom_core::value::DataSetSequence;
    use dicom_core::{DataElement, Tag, VR};

    use super::*;

    fn set(pairs: &[(Tag, &str)]) -> InMemDicomObject {
        let element = |(tag, value): &(Tag, &str)| DataElement::new(*tag, VR::LO, *value);
        InMemDicomObject::from_element_iter(pairs.iter().map(element))
    }

    fn with(mut set: InMemDicomObject, tag: Tag, item: InMemDicomObject) -> InMemDicomObject {
        set.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(vec![item])));
        set
    }

    fn whole(availability: &str) -> InMemDicomObject {
        let instance = set(&[
            (tags::REFERENCED_SOP_CLASS_UID, "1.2"),
            (tags::REFERENCED_SOP_INSTANCE_UID, "1.3"),
            (tags::INSTANCE_AVAILABILITY, availability),
            (tags::RETRIEVE_AE_TITLE, "PACS"),
        ]);
        let series = set(&[(tags::SERIES_INSTANCE_UID, "1.4")]);
        let series = with(series, tags::REFERENCED_SOP_SEQUENCE, instance);
        with(set(&[(tags::STUDY_INSTANCE_UID, "1.5")]), tags::REFERENCED_SERIES_SEQUENCE, series)
    }

    #[test]
    fn a_notice_says_what_is_to_be_had_and_where() {
        let notice = notice(&whole("ONLINE")).unwrap();
        assert_eq!(notice.study, "1.5");
        let [one] = &notice.instances[..] else { panic!() };
        assert_eq!((one.series.as_str(), one.reference.instance.as_str()), ("1.4", "1.3"));
        assert_eq!((one.availability, one.retrieve_ae.as_str()), (Availability::Online, "PACS"));
    }

    #[test]
    fn a_notice_without_what_is_mandatory_is_refused() {
        let status = |set: InMemDicomObject| notice(&set).unwrap_err().status;
        assert_eq!(status(whole("SOMEWHERE")), 0x0106);
        let mut lacking = whole("ONLINE");
        lacking.remove_element(tags::STUDY_INSTANCE_UID);
        assert_eq!(status(lacking), 0x0120);
        let mut lacking = whole("ONLINE");
        lacking.put(DataElement::new(
            tags::REFERENCED_SERIES_SEQUENCE,
            VR::SQ,
            DataSetSequence::from(Vec::<InMemDicomObject>::new()),
        ));
        assert_eq!(status(lacking), 0x0121);
    }
}
