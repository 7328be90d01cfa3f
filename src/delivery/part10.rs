//! The front of a DICOM file (PS3.10 7.1): preamble, magic and file meta group, before a data set
//! exactly as it was received. The preamble is ours, so nothing that a sender put there survives.

use dicom_object::meta::FileMetaTableBuilder;

use crate::cargo::Envelope;
use crate::dicom::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

/// The bytes that stand before the data set of `envelope`.
pub fn front(envelope: &Envelope) -> Vec<u8> {
    let mut out = vec![0; 128];
    out.extend_from_slice(b"DICM");
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(&envelope.sop_class)
        .media_storage_sop_instance_uid(&envelope.identity.key)
        .transfer_syntax(&envelope.transfer_syntax)
        .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
        .implementation_version_name(IMPLEMENTATION_VERSION_NAME)
        .build()
        .expect("all that a file meta group needs is given");
    meta.write(&mut out).expect("writing to memory does not fail");
    out
}
