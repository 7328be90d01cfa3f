//! What the header of an image says of its study and of itself. Pure.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::message::issued;
use crate::cargo::Envelope;
use crate::clock::Timestamp;
use crate::dicom::header::Header;
use crate::orders::identifier::{Authority, Identifier, Patient};
use crate::orders::instance::{Instance, Plane, Role, frames_present};
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
        frames_present: header.and_then(|h| frames_here(envelope, h)),
        plane: Plane::of(text(tags::IMAGE_POSITION_PATIENT), text(tags::IMAGE_ORIENTATION_PATIENT)),
        arrived: at,
    }
}

/// Frames in the pixel data, when fewer than the header claims; `None` where that cannot be told
/// from the header: in deflated data sets, and in encapsulated pixel data without an offset table.
fn frames_here(envelope: &Envelope, header: &Header) -> Option<u32> {
    let pixels = header.pixel_data.as_ref()?;
    let number = |tag: Tag| header.attribute(tag)?.parse::<u32>().ok();
    let claimed = number(tags::NUMBER_OF_FRAMES).unwrap_or(1);
    let here = envelope.length.saturating_sub(pixels.at);
    let Some(length) = pixels.length else {
        // The table has an entry for each frame, counted from behind itself (PS3.5 A.4).
        let begun = pixels.offsets.iter().filter(|offset| u64::from(**offset) < here).count();
        let begun = u32::try_from(begun).unwrap_or(u32::MAX);
        return (begun > 0 && begun < claimed).then_some(begun);
    };
    // Two bytes for a pixel where two share their colours (PS3.3 C.7.6.3.1.2).
    let samples = match header.attribute(tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default() {
        "YBR_FULL_422" | "YBR_PARTIAL_422" => 2,
        "YBR_PARTIAL_420" => return None,
        _ => number(tags::SAMPLES_PER_PIXEL).unwrap_or(1),
    };
    let bits = number(tags::BITS_ALLOCATED)?;
    let (rows, columns) = (number(tags::ROWS)?, number(tags::COLUMNS)?);
    let bytes = here.min(u64::from(length));
    frames_present(claimed, rows, columns, samples, bits, bytes)
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

pub(super) fn patient(envelope: &Envelope, header: Option<&Header>, issuer: &str) -> Patient {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::EXPLICIT_VR_LE;
    use crate::dicom::header::{Reading, read};

    /// Frames that are here of an image that claims `frames` of 4 x 4 pixels of 16 bits.
    fn here(frames: &str, photometric: &str, pixels: &[u8]) -> Option<u32> {
        let mut set = Vec::new();
        let mut put = |element: u16, vr: &str, value: &[u8]| {
            set.extend_from_slice(&[0x28, 0]);
            set.extend_from_slice(&element.to_le_bytes());
            set.extend_from_slice(vr.as_bytes());
            set.extend_from_slice(&(value.len() as u16).to_le_bytes());
            set.extend_from_slice(value);
        };
        put(0x0002, "US", if photometric.starts_with("YBR") { &[3, 0] } else { &[1, 0] });
        put(0x0004, "CS", photometric.as_bytes());
        put(0x0008, "IS", frames.as_bytes());
        put(0x0010, "US", &[4, 0]);
        put(0x0011, "US", &[4, 0]);
        put(0x0100, "US", &[16, 0]);
        set.extend_from_slice(pixels);
        let Reading::Header(header) = read(&set, EXPLICIT_VR_LE, false) else { panic!() };
        let identity = crate::cargo::Identity {
            origin: "h".parse().unwrap(),
            key: "1".into(),
            sha256: crate::cargo::Sha256::of(&set),
        };
        let kind = crate::cargo::CargoKind::Image;
        let length = set.len() as u64;
        let envelope = Envelope::of_ours(kind, identity, length, Timestamp(0));
        frames_here(&envelope, &header)
    }

    fn native(says: u32, bytes: usize) -> Vec<u8> {
        let head = [&b"\xe0\x7f\x10\x00OW\0\0"[..], &says.to_le_bytes()].concat();
        [head, vec![0; bytes]].concat()
    }

    #[test]
    fn native_pixels_that_end_before_the_last_frame_are_counted() {
        assert_eq!(here("3 ", "MONOCHROME2 ", &native(96, 96)), None);
        assert_eq!(here("3 ", "MONOCHROME2 ", &native(70, 70)), Some(2), "too short as it says");
        assert_eq!(here("3 ", "MONOCHROME2 ", &native(96, 40)), Some(1), "cut off");
        assert_eq!(here("", "MONOCHROME2 ", &native(20, 20)), Some(0), "one frame");
        assert_eq!(here("2 ", "YBR_FULL_422", &native(128, 128)), None, "colours are shared");
    }

    #[test]
    fn encapsulated_frames_are_counted_by_their_offset_table_where_there_is_one() {
        let coded = |offsets: &[u32], bytes: usize| {
            let table: Vec<u8> = offsets.iter().flat_map(|o| o.to_le_bytes()).collect();
            let length = (table.len() as u32).to_le_bytes();
            let open = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0";
            [&open[..], &length, &table, &vec![0; bytes]].concat()
        };
        assert_eq!(here("3 ", "MONOCHROME2 ", &coded(&[0, 40, 80], 120)), None);
        assert_eq!(here("3 ", "MONOCHROME2 ", &coded(&[0, 40], 120)), Some(2));
        assert_eq!(here("3 ", "MONOCHROME2 ", &coded(&[0, 40, 80], 60)), Some(2), "cut off");
        assert_eq!(here("3 ", "MONOCHROME2 ", &coded(&[], 60)), None, "nothing tells");
    }
}
