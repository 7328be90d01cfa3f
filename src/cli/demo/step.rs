//! The scanner's performed procedure step (MPPS): which images it has made, in its own words. The
//! slices of the study are numbered with gaps; that none is missing, nobody else can know.

use std::net::SocketAddr;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::failed;
use super::images::{Image, SCANNER};
use super::players::{ACCESSION, ORDER};
use crate::cli::table::say;
use crate::cli::{Failure, Outcome};
use crate::clock;
use crate::dicom::text::Repertoire;
use crate::dicom::{AeTitle, PERFORMED_STEP};
use crate::inquiry::{self, Target, Timeouts};

/// SOP Instance UID of the step (PS3.5 B.2).
const STEP: &str = "2.25.68241519216943391";

fn put(set: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    set.put(DataElement::new(tag, vr, value));
}

fn sequence(set: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    set.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

/// Date and time, as DICOM writes them.
fn now() -> (String, String) {
    let digits: String = clock::wall().to_string().chars().filter(char::is_ascii_digit).collect();
    (digits[..8].to_owned(), digits[8..14].to_owned())
}

fn scu(address: SocketAddr) -> Result<Target, Failure> {
    let title = |text: &str| -> Result<AeTitle, Failure> { text.parse().map_err(failed) };
    Ok(Target {
        host: address.ip().to_string(),
        port: address.port(),
        calling: title(SCANNER)?,
        called: title("HIKYAKU")?,
        tls: None,
        timeouts: Timeouts::default(),
    })
}

/// The examination begins (N-CREATE).
pub(super) async fn begin(address: SocketAddr, study: &str) -> Outcome {
    let mut scheduled = InMemDicomObject::new_empty();
    put(&mut scheduled, tags::STUDY_INSTANCE_UID, VR::UI, study);
    put(&mut scheduled, tags::ACCESSION_NUMBER, VR::SH, ACCESSION);
    put(&mut scheduled, tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, VR::LO, ORDER);
    let (date, time) = now();
    let mut set = InMemDicomObject::new_empty();
    put(&mut set, tags::MODALITY, VR::CS, "MR");
    put(&mut set, tags::PERFORMED_PROCEDURE_STEP_ID, VR::SH, "1");
    put(&mut set, tags::PERFORMED_STATION_AE_TITLE, VR::AE, SCANNER);
    put(&mut set, tags::PERFORMED_PROCEDURE_STEP_START_DATE, VR::DA, &date);
    put(&mut set, tags::PERFORMED_PROCEDURE_STEP_START_TIME, VR::TM, &time);
    put(&mut set, tags::PERFORMED_PROCEDURE_STEP_STATUS, VR::CS, "IN PROGRESS");
    sequence(&mut set, tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE, vec![scheduled]);
    let target = scu(address)?;
    let answer = inquiry::n_create(&target, PERFORMED_STEP, STEP, &set, Repertoire::UTF8);
    judge(answer.await.map_err(failed)?.status)
}

/// The examination is over, and these are its images (N-SET).
pub(super) async fn end(address: SocketAddr, images: &[Image]) -> Outcome {
    let reference = |image: &Image| {
        let mut item = InMemDicomObject::new_empty();
        put(&mut item, tags::REFERENCED_SOP_CLASS_UID, VR::UI, &image.sop_class);
        put(&mut item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &image.sop_instance);
        item
    };
    let first = images.first().ok_or_else(|| failed("there are no images"))?;
    let mut series = InMemDicomObject::new_empty();
    put(&mut series, tags::SERIES_INSTANCE_UID, VR::UI, &first.series);
    sequence(&mut series, tags::REFERENCED_IMAGE_SEQUENCE, images.iter().map(reference).collect());
    let (date, time) = now();
    let mut set = InMemDicomObject::new_empty();
    put(&mut set, tags::PERFORMED_PROCEDURE_STEP_END_DATE, VR::DA, &date);
    put(&mut set, tags::PERFORMED_PROCEDURE_STEP_END_TIME, VR::TM, &time);
    put(&mut set, tags::PERFORMED_PROCEDURE_STEP_STATUS, VR::CS, "COMPLETED");
    sequence(&mut set, tags::PERFORMED_SERIES_SEQUENCE, vec![series]);
    let target = scu(address)?;
    let answer = inquiry::n_set(&target, PERFORMED_STEP, STEP, &set, Repertoire::UTF8);
    judge(answer.await.map_err(failed)?.status)?;
    say(&format!("   the scanner says that these {} are all (MPPS), answer 0000H", images.len()))
}

fn judge(status: u16) -> Outcome {
    match status {
        0 => Ok(()),
        _ => Err(failed(format!("the hospital node answered {status:04X}H to the scanner's step"))),
    }
}
