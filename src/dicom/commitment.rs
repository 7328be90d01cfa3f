//! Storage Commitment Push Model (PS3.4 J.3): what is asked for, and how it came out. Pure.

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::command::{Operation, Request, status};
use super::dataset::{items, text};
use super::fault::Fault;
use super::{AeTitle, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, is_uid};

/// Action Type ID of "request storage commitment" (PS3.4 J.3.2.1).
pub const REQUEST_COMMITMENT: u16 = 1;

/// Event Type ID of "all are committed" (PS3.4 J.3.3.1).
pub const SUCCESSFUL: u16 = 1;

/// Event Type ID of "some are not".
pub const FAILURES_EXIST: u16 = 2;

/// A SOP instance that a data set refers to (PS3.3 Table 10-11).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Referenced SOP Class UID; a peer's text.
    pub class: String,
    /// Referenced SOP Instance UID; a peer's text.
    pub instance: String,
}

impl Reference {
    /// What an item of a reference sequence says.
    pub fn of(item: &InMemDicomObject) -> Self {
        Self {
            class: text(item, tags::REFERENCED_SOP_CLASS_UID),
            instance: text(item, tags::REFERENCED_SOP_INSTANCE_UID),
        }
    }

    fn item(&self) -> InMemDicomObject {
        InMemDicomObject::from_element_iter([
            uid(tags::REFERENCED_SOP_CLASS_UID, &self.class),
            uid(tags::REFERENCED_SOP_INSTANCE_UID, &self.instance),
        ])
    }
}

/// What a peer asks to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Transaction UID.
    pub transaction: String,
    /// The instances, in the order of the request; one may stand in it twice.
    pub instances: Vec<Reference>,
    /// Retrieve AE Title (0008,0054), where the peer names one although it need not.
    pub retrieve_ae: Option<String>,
}

/// Whether a request is one for commitment at all, before its data set is read.
pub fn judge_request(request: &Request) -> Result<(), Fault> {
    if request.sop_class != STORAGE_COMMITMENT {
        let comment = "the SOP class is not Storage Commitment Push Model";
        return Err(Fault::new(status::NO_SUCH_SOP_CLASS, comment));
    }
    if request.sop_instance != STORAGE_COMMITMENT_INSTANCE {
        let comment = "not the well-known instance of storage commitment";
        return Err(Fault::new(status::NO_SUCH_SOP_INSTANCE, comment));
    }
    match request.operation {
        Operation::Action(REQUEST_COMMITMENT) => Ok(()),
        _ => Err(Fault::new(status::NO_SUCH_ACTION_TYPE, "the action type is not 1")),
    }
}

/// What the Action Information asks for.
pub fn asked(set: &InMemDicomObject) -> Result<Asked, Fault> {
    let invalid = |tag, comment| Fault::of(status::INVALID_ARGUMENT_VALUE, tag, comment);
    let transaction = text(set, tags::TRANSACTION_UID);
    if !is_uid(&transaction) {
        return Err(invalid(tags::TRANSACTION_UID, "no valid Transaction UID"));
    }
    let tag = tags::REFERENCED_SOP_SEQUENCE;
    let instances: Vec<_> = items(set, tag).iter().map(Reference::of).collect();
    if instances.is_empty() {
        return Err(invalid(tag, "no instances to commit"));
    }
    if instances.iter().any(|r| r.class.is_empty() || r.instance.is_empty()) {
        return Err(invalid(tag, "an instance without its class or its UID"));
    }
    let retrieve_ae = text(set, tags::RETRIEVE_AE_TITLE);
    let retrieve_ae = (!retrieve_ae.is_empty()).then_some(retrieve_ae);
    Ok(Asked { transaction, instances, retrieve_ae })
}

/// How a commitment came out: the Event Information of its N-EVENT-REPORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Transaction UID of the request.
    pub transaction: String,
    /// What is committed.
    pub committed: Vec<Reference>,
    /// What is not, each with its Failure Reason (0008,1197): 0110, 0112, 0119, 0122, 0131 or
    /// 0213.
    pub failed: Vec<(Reference, u16)>,
    /// From where all of it can be retrieved.
    pub retrieve_ae: Option<AeTitle>,
}

impl Outcome {
    /// Event Type ID.
    pub fn event_type(&self) -> u16 {
        if self.failed.is_empty() { SUCCESSFUL } else { FAILURES_EXIST }
    }

    /// The Event Information (PS3.4 Table J.3-2).
    pub fn data_set(&self) -> InMemDicomObject {
        let mut set =
            InMemDicomObject::from_element_iter([uid(tags::TRANSACTION_UID, &self.transaction)]);
        // At the top level or in every item, never both; here at the top.
        if let Some(ae) = &self.retrieve_ae {
            set.put(DataElement::new(tags::RETRIEVE_AE_TITLE, VR::AE, ae.as_str()));
        }
        // Of type 1C: absent rather than empty.
        if !self.committed.is_empty() {
            let items = self.committed.iter().map(Reference::item).collect();
            set.put(sequence(tags::REFERENCED_SOP_SEQUENCE, items));
        }
        if !self.failed.is_empty() {
            let item = |(reference, reason): &(Reference, u16)| {
                let mut item = reference.item();
                let reason = PrimitiveValue::from(*reason);
                item.put(DataElement::new(tags::FAILURE_REASON, VR::US, reason));
                item
            };
            let items = self.failed.iter().map(item).collect();
            set.put(sequence(tags::FAILED_SOP_SEQUENCE, items));
        }
        set
    }
}

fn uid(tag: Tag, value: &str) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::UI, value)
}

fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(instance: &str) -> Reference {
        Reference { class: "1.2.840.10008.5.1.4.1.1.2".into(), instance: instance.into() }
    }

    fn request() -> Request {
        Request {
            operation: Operation::Action(REQUEST_COMMITMENT),
            message_id: 1,
            sop_class: STORAGE_COMMITMENT.into(),
            sop_instance: STORAGE_COMMITMENT_INSTANCE.into(),
            has_data_set: true,
        }
    }

    #[test]
    fn only_action_one_on_the_well_known_instance_is_a_request_for_commitment() {
        assert_eq!(judge_request(&request()), Ok(()));
        let status = |change: fn(&mut Request)| {
            let mut rq = request();
            change(&mut rq);
            judge_request(&rq).unwrap_err().status
        };
        assert_eq!(status(|rq| rq.operation = Operation::Action(2)), 0x0123);
        assert_eq!(status(|rq| rq.sop_instance = "1.2".into()), 0x0112);
        assert_eq!(status(|rq| rq.sop_class = "1.2".into()), 0x0118);
    }

    #[test]
    fn a_request_names_its_transaction_and_its_instances() {
        let mut set = InMemDicomObject::from_element_iter([uid(tags::TRANSACTION_UID, "1.9")]);
        let fault = asked(&set).unwrap_err();
        assert_eq!((fault.status, &fault.attributes[..]), (0x0115, &[(0x8, 0x1199)][..]));
        let items = vec![reference("1.2").item(), reference("1.3").item()];
        set.put(sequence(tags::REFERENCED_SOP_SEQUENCE, items));
        let found = asked(&set).unwrap();
        assert_eq!(found.transaction, "1.9");
        assert_eq!(found.instances, [reference("1.2"), reference("1.3")]);
        set.put(uid(tags::TRANSACTION_UID, "../.."));
        assert_eq!(asked(&set).unwrap_err().status, 0x0115);
    }

    #[test]
    fn an_outcome_with_a_failure_is_event_two_and_says_why() {
        let mut outcome = Outcome {
            transaction: "1.9".into(),
            committed: vec![reference("1.2")],
            failed: vec![],
            retrieve_ae: "HIKYAKU".parse().ok(),
        };
        assert_eq!(outcome.event_type(), 1);
        assert!(outcome.data_set().get(tags::FAILED_SOP_SEQUENCE).is_none());
        outcome.failed.push((reference("1.3"), status::NO_SUCH_SOP_INSTANCE));
        assert_eq!(outcome.event_type(), 2);
        let set = outcome.data_set();
        let [failed] = items(&set, tags::FAILED_SOP_SEQUENCE) else { panic!() };
        assert_eq!(Reference::of(failed), reference("1.3"));
        assert_eq!(text(failed, tags::FAILURE_REASON), "274");
    }
}
