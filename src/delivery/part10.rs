//! The front of a DICOM file (PS3.10 7.1): preamble, magic and file meta group, before a data set
//! exactly as it was received. The preamble is ours, so nothing that a sender put there survives.

use dicom_object::meta::FileMetaTableBuilder;

use crate::cargo::Envelope;
use crate::dicom::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

/// The bytes that stand before the data set of `envelope`.
pub fn front(envelope: &Envelope) -> Vec<u8> {
    front_of(&envelope.sop_class, &envelope.identity.key, &envelope.transfer_syntax)
}

/// The bytes that stand before a data set of this SOP class, SOP Instance UID and transfer syntax.
pub fn front_of(sop_class: &str, sop_instance: &str, transfer_syntax: &str) -> Vec<u8> {
    let mut out = vec![0; 128];
    out.extend_from_slice(b"DICM");
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(sop_class)
        .media_storage_sop_instance_uid(sop_instance)
        .transfer_syntax(transfer_syntax)
        .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
        .implementation_version_name(IMPLEMENTATION_VERSION_NAME)
        .build()
        .expect("all that a file meta group needs is given");
    meta.write(&mut out).expect("writing to memory does not fail");
    out
}
