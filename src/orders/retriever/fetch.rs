//! C-MOVE and C-GET of named instances (PS3.4 C.4.2, C.4.3), at IMAGE level of one series.

use std::collections::BTreeSet;

use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::search::identifier;
use super::{Archive, Door, Retriever, unanswered};
use crate::dicom::command::status;
use crate::dicom::{EXPLICIT_VR_LE, IMPLICIT_VR_LE, STUDY_ROOT_GET, STUDY_ROOT_MOVE};
use crate::inquiry::{self, InquiryError};
use crate::orders::recall::{Answer, Retrieve};

/// Presentation contexts of storage beside the one of C-GET.
const CONTEXTS_MAX: usize = 126;
/// Compressed transfer syntaxes, each proposed in a context of its own, so that an image is sent in
/// the one that it is stored in: lossless ones first, since not all may have room.
const COMPRESSED: &[&str] = &[
    "1.2.840.10008.1.2.4.70",  // JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.90",  // JPEG 2000 lossless
    "1.2.840.10008.1.2.4.80",  // JPEG-LS lossless
    "1.2.840.10008.1.2.5",     // RLE
    "1.2.840.10008.1.2.4.50",  // JPEG baseline
    "1.2.840.10008.1.2.4.91",  // JPEG 2000
    "1.2.840.10008.1.2.4.57",  // JPEG lossless
    "1.2.840.10008.1.2.4.51",  // JPEG extended
    "1.2.840.10008.1.2.4.81",  // JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.201", // HTJ2K lossless
    "1.2.840.10008.1.2.4.203", // HTJ2K
    "1.2.840.10008.1.2.4.102", // MPEG-4
    "1.2.840.10008.1.2.4.100", // MPEG-2
];
/// Proposed where the source does not say of which SOP class an image is.
const USUAL_CLASSES: &[&str] = &[
    "1.2.840.10008.5.1.4.1.1.2",     // CT
    "1.2.840.10008.5.1.4.1.1.2.1",   // enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",     // MR
    "1.2.840.10008.5.1.4.1.1.4.1",   // enhanced MR
    "1.2.840.10008.5.1.4.1.1.1",     // CR
    "1.2.840.10008.5.1.4.1.1.1.1",   // DX for presentation
    "1.2.840.10008.5.1.4.1.1.1.2",   // mammography for presentation
    "1.2.840.10008.5.1.4.1.1.6.1",   // US
    "1.2.840.10008.5.1.4.1.1.3.1",   // US multi-frame
    "1.2.840.10008.5.1.4.1.1.7",     // secondary capture
    "1.2.840.10008.5.1.4.1.1.12.1",  // XA
    "1.2.840.10008.5.1.4.1.1.12.2",  // RF
    "1.2.840.10008.5.1.4.1.1.20",    // NM
    "1.2.840.10008.5.1.4.1.1.128",   // PET
    "1.2.840.10008.5.1.4.1.1.88.22", // enhanced SR
    "1.2.840.10008.5.1.4.1.1.104.1", // encapsulated PDF
    "1.2.840.10008.5.1.4.1.1.11.1",  // presentation state
    "1.2.840.10008.5.1.4.1.1.481.1", // RT image
];

/// What is to be sent.
pub(super) struct Wanted<'a> {
    pub(super) study: &'a str,
    pub(super) series: &'a str,
    pub(super) sops: &'a [String],
    pub(super) classes: &'a BTreeSet<String>,
}

/// Asks for the instances, and waits until the source has sent them or says that it does not.
pub(super) async fn retrieve<D: Door>(
    retriever: &Retriever<D>,
    archive: &Archive,
    source: &str,
    by: Retrieve,
    wanted: &Wanted<'_>,
) -> Answer {
    let sops = wanted.sops.join("\\");
    let keys = [
        (tags::STUDY_INSTANCE_UID, VR::UI, wanted.study),
        (tags::SERIES_INSTANCE_UID, VR::UI, wanted.series),
        (tags::SOP_INSTANCE_UID, VR::UI, sops.as_str()),
    ];
    let identifier = identifier("IMAGE", &keys);
    let (target, cancel) = (&archive.target, &retriever.shutdown);
    let ended = match by {
        Retrieve::Move => {
            let to = &archive.move_to;
            inquiry::move_to(target, STUDY_ROOT_MOVE, to, &identifier, cancel, |_| {}).await
        }
        Retrieve::Get => {
            let mut taking = retriever.door.open(&target.called, &archive.move_to);
            let classes = contexts(wanted.classes);
            inquiry::get(target, STUDY_ROOT_GET, classes, &identifier, cancel, &mut taking).await
        }
    };
    let retrieved = match ended {
        Ok(retrieved) => retrieved,
        // It does not do this: another way may be open.
        Err(InquiryError::NotTaken(error)) => {
            tracing::warn!(source, %error, "a source has no ear for this");
            return Answer::Status(status::SOP_CLASS_NOT_SUPPORTED);
        }
        Err(error) => return unanswered(&target.called, &error),
    };
    let completed = u64::from(retrieved.counts.completed) + u64::from(retrieved.counts.warning);
    retriever.metrics.recovered.with_label_values(&[source]).inc_by(completed);
    match retrieved.answer.status {
        status::SUCCESS | 0xB000 => Answer::Done { failed: u32::from(retrieved.counts.failed) },
        status => Answer::Status(status),
    }
}

/// The storage contexts to propose: of each class one for native images, and one for each compressed
/// syntax as far as there is room.
fn contexts(classes: &BTreeSet<String>) -> Vec<(String, Vec<String>)> {
    let classes: Vec<&str> = match classes.is_empty() {
        true => USUAL_CLASSES.to_vec(),
        false => classes.iter().map(String::as_str).take(CONTEXTS_MAX).collect(),
    };
    let room = (CONTEXTS_MAX / classes.len()).saturating_sub(1).min(COMPRESSED.len());
    let native = [EXPLICIT_VR_LE, IMPLICIT_VR_LE].map(str::to_owned).to_vec();
    let of_class = |class: &&str| {
        let class = (*class).to_owned();
        let compressed = COMPRESSED[..room].iter().map(|syntax| vec![(*syntax).to_owned()]);
        let all = compressed.chain([native.clone()]).collect::<Vec<_>>();
        all.into_iter().map(move |syntaxes| (class.clone(), syntaxes)).collect::<Vec<_>>()
    };
    classes.iter().flat_map(of_class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_never_proposes_more_contexts_than_an_association_has() {
        for n in 0..200 {
            let classes: BTreeSet<String> = (0..n).map(|n| format!("1.2.{n}")).collect();
            let contexts = contexts(&classes);
            assert!((1..=CONTEXTS_MAX).contains(&contexts.len()), "{n}");
            // Each class can be sent uncompressed.
            let native = contexts.iter().filter(|(_, s)| s[0] == EXPLICIT_VR_LE).count();
            assert_eq!(native, if n == 0 { USUAL_CLASSES.len() } else { n.min(CONTEXTS_MAX) });
        }
        assert_eq!(contexts(&BTreeSet::from(["1.2".into()])).len(), 1 + COMPRESSED.len());
    }
}
