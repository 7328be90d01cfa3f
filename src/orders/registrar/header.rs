//! What the header of an image says of its study and of itself. Pure.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::message::issued;
use crate::cargo::Envelope;
use crate::clock::Timestamp;
use crate::dicom::header::Header;
use crate::orders::identifier::{Authority, Identifier, Patient};
use crate::orders::instance::{Instance, Plane, Role};
use crate::orders::matching::StudyFacts;

/// The instance that a header describes. What cannot be read is absent.
pub(super) fn instance(envelope: &Envelope, header: Option<&Header>, at: Timestamp) -> Instance {
    let text = |tag: Tag| header.and_then(|h| h.attribute(tag)).unwrap_or_default();
    Instance {
        sop: envelope.identity.key.clone(),
        class: envelope.sop_class.clone(),
        series: envelope.series.clone(),
        role: Role::of(&envelope.sop_class, text(tags::IMAGE_TYPE)),
        number: text(tags::INSTANCE_NUMBER).parse().ok(),
        acquisition: text(tags::ACQUISITION_NUMBER).parse().ok(),
        in_acquisition: text(tags::IMAGES_IN_ACQUISITION).parse().ok(),
        frames: text(tags::NUMBER_OF_FRAMES).parse().ok(),
        frames_present: None,
        plane: Plane::of(text(tags::IMAGE_POSITION_PATIENT), text(tags::IMAGE_ORIENTATION_PATIENT)),
        arrived: at,
    }
}

/// Takes over what a header says of its study where nothing was known.
pub(super) fn learn(
    facts: &mut StudyFacts,
    envelope: &Envelope,
    header: Option<&Header>,
    issuer: &str,
) {
    let text = |tag: Tag| header.and_then(|h| h.attribute(tag)).unwrap_or_default();
    fill(&mut facts.accession, &envelope.accession);
    fill(&mut facts.placer, text(tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST));
    fill(&mut facts.filler, text(tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST));
    if facts.patient == Patient::default() {
        facts.patient = patient(envelope, header, issuer);
    }
}

fn fill(own: &mut Option<Identifier>, id: &str) {
    if own.is_none() && !id.trim().is_empty() {
        *own = Some(Identifier::bare(id));
    }
}

fn patient(envelope: &Envelope, header: Option<&Header>, issuer: &str) -> Patient {
    let text = |tag: Tag| header.and_then(|h| h.attribute(tag)).unwrap_or_default();
    let namespace = text(tags::ISSUER_OF_PATIENT_ID).to_owned();
    let authority = Authority { namespace, universal: String::new() };
    let id = envelope.patient_id.as_str();
    // Code extensions are not followed when headers are read: what stands behind one is no name.
    let name = text(tags::PATIENT_NAME);
    let name = match name.contains('\u{1b}') {
        true => name.split(['=', '\u{1b}']).next().unwrap_or_default(),
        false => name,
    };
    Patient {
        ids: (!id.is_empty()).then(|| issued(id, authority, issuer)).into_iter().collect(),
        former: Vec::new(),
        names: (!name.is_empty()).then(|| name.to_owned()).into_iter().collect(),
        birth_date: text(tags::PATIENT_BIRTH_DATE).to_owned(),
        sex: text(tags::PATIENT_SEX).to_owned(),
    }
}
