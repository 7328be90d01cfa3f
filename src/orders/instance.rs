//! One SOP instance in custody, as the verdict needs it: identity, numbers, role, position.
//!
//! Whoever reads the header fills an [`Instance`]; the functions here read what a header says into
//! roles, planes and frame counts. They are lenient: what cannot be read is absent, and absent
//! values warn of nothing.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::clock::Timestamp;

/// What an instance is for. Only images make runs of numbers in which a gap means something.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize,
)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Role {
    /// An original image, or one that is not known to be anything else.
    #[default]
    #[n(0)]
    Image,
    /// A scout, localizer or topogram.
    #[n(1)]
    Localizer,
    /// A derived or secondary image: projections, reformats, maps, screenshots.
    #[n(2)]
    Derived,
    /// A radiation dose report.
    #[n(3)]
    DoseReport,
    /// A key object selection, rejection notes among them.
    #[n(4)]
    KeyObject,
    /// A presentation state.
    #[n(5)]
    PresentationState,
    /// Any other document: structured report, encapsulated PDF.
    #[n(6)]
    Document,
    /// What goes with images without being one: raw data, registrations, segmentations, plans.
    #[n(7)]
    Companion,
}

impl Role {
    /// Of an SOP class and Image Type (0008,0008), values separated by `\`.
    pub fn of(class: &str, image_type: &str) -> Self {
        const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";
        let Some(kind) = class.strip_prefix(STORAGE) else { return Self::of_type(image_type) };
        match kind {
            "88.67" | "88.68" | "88.73" | "88.76" => Self::DoseReport,
            "88.59" => Self::KeyObject,
            "66" => Self::Companion,
            // Secondary capture, single and multi-frame.
            "7" => Self::Derived,
            _ if kind.starts_with("7.") => Self::Derived,
            _ if kind.starts_with("11.") => Self::PresentationState,
            _ if kind.starts_with("88.") || kind.starts_with("104.") => Self::Document,
            // 66: raw data, registrations, segmentations; 67: real-world value mappings; 68: surface
            // scans; 9: waveforms; 481.2 and on: RT objects but the RT image.
            _ if ["66.", "67", "68.", "9."].iter().any(|p| kind.starts_with(p)) => Self::Companion,
            "481.1" => Self::of_type(image_type),
            _ if kind.starts_with("481.") => Self::Companion,
            _ => Self::of_type(image_type),
        }
    }

    fn of_type(image_type: &str) -> Self {
        let values: Vec<_> = image_type.split('\\').map(str::trim).collect();
        if values.iter().skip(2).any(|v| matches!(*v, "LOCALIZER" | "SCOUT" | "TOPOGRAM")) {
            Self::Localizer
        } else if values.contains(&"DERIVED") || values.get(1) == Some(&"SECONDARY") {
            Self::Derived
        } else {
            Self::Image
        }
    }
}

/// Where a slice lies: its normal in thousandths, and its distance from the origin along it, in
/// micrometres (PS3.3 C.7.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Plane {
    /// The direction in which slices follow each other.
    #[n(0)]
    pub normal: [i16; 3],
    /// How far along it.
    #[n(1)]
    pub distance_um: i64,
}

impl Plane {
    /// From Image Position (0020,0032) and Image Orientation (0020,0037), as they stand.
    pub fn of(position: &str, orientation: &str) -> Option<Self> {
        let p = numbers::<3>(position)?;
        let o = numbers::<6>(orientation)?;
        let cross =
            [o[1] * o[5] - o[2] * o[4], o[2] * o[3] - o[0] * o[5], o[0] * o[4] - o[1] * o[3]];
        let length = cross.iter().map(|c| c * c).sum::<f64>().sqrt();
        if !(0.5..2.0).contains(&length) {
            return None;
        }
        // Opposite normals are one direction: the largest component is made positive.
        let largest =
            cross.iter().copied().fold(0.0, |m: f64, c| if c.abs() > m.abs() { c } else { m });
        let unit = cross.map(|c| c / length * largest.signum());
        let distance: f64 = unit.iter().zip(p).map(|(n, p)| n * p).sum();
        let fits = distance.is_finite() && distance.abs() < 1e9;
        fits.then(|| Self {
            normal: unit.map(|c| (c * 1000.0).round() as i16),
            distance_um: (distance * 1000.0).round() as i64,
        })
    }
}

fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let values: Vec<f64> =
        text.split('\\').map(|v| v.trim().parse().ok()).collect::<Option<_>>()?;
    values.try_into().ok()
}

/// Frames that a native pixel element really holds, when it is too short for the frames that the
/// header claims; `None` when it is long enough, or when that cannot be told.
pub fn frames_present(
    claimed: u32,
    rows: u32,
    columns: u32,
    samples: u32,
    bits_allocated: u32,
    pixel_bytes: u64,
) -> Option<u32> {
    let frame_bits = [rows, columns, samples, bits_allocated]
        .iter()
        .try_fold(1_u64, |product, n| product.checked_mul(u64::from(*n)))?;
    let needed = frame_bits.checked_mul(u64::from(claimed))?.div_ceil(8);
    (frame_bits > 0 && pixel_bytes < needed)
        .then(|| u32::try_from(pixel_bytes.saturating_mul(8) / frame_bits).unwrap_or(u32::MAX))
}

/// One SOP instance in custody.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Instance {
    /// SOP Instance UID (0008,0018).
    #[n(0)]
    pub sop: String,
    /// SOP Class UID (0008,0016).
    #[n(1)]
    pub class: String,
    /// Series Instance UID (0020,000E).
    #[n(2)]
    pub series: String,
    /// What it is for.
    #[n(3)]
    pub role: Role,
    /// Instance Number (0020,0013).
    #[n(4)]
    pub number: Option<i32>,
    /// Acquisition Number (0020,0012).
    #[n(5)]
    pub acquisition: Option<i32>,
    /// Images in Acquisition (0020,1002).
    #[n(6)]
    pub in_acquisition: Option<u32>,
    /// Number of Frames (0028,0008); absent: one image is one frame.
    #[n(7)]
    pub frames: Option<u32>,
    /// Frames that are really there, when fewer ([`frames_present`]).
    #[n(8)]
    pub frames_present: Option<u32>,
    /// Where it lies.
    #[n(9)]
    pub plane: Option<Plane>,
    /// When this node took it into custody.
    #[n(10)]
    pub arrived: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scouts_dose_reports_key_images_and_presentation_states_are_told_from_images() {
        let role = |kind: &str, image_type| {
            Role::of(&format!("1.2.840.10008.5.1.4.1.1.{kind}"), image_type)
        };
        assert_eq!(role("2", r"ORIGINAL\PRIMARY\AXIAL"), Role::Image);
        assert_eq!(role("2", r"ORIGINAL\PRIMARY\LOCALIZER"), Role::Localizer);
        assert_eq!(role("4", r"DERIVED\SECONDARY\PROJECTION IMAGE"), Role::Derived);
        assert_eq!(role("4", r"ORIGINAL\PRIMARY\M\TE1\ND\MOSAIC"), Role::Image);
        assert_eq!(role("88.67", ""), Role::DoseReport);
        assert_eq!(role("88.59", ""), Role::KeyObject);
        assert_eq!(role("11.1", ""), Role::PresentationState);
        assert_eq!(role("104.1", ""), Role::Document);
        assert_eq!(role("7", ""), Role::Derived);
        assert_eq!(role("77.1.6", r"ORIGINAL\PRIMARY\VOLUME"), Role::Image);
        assert_eq!(Role::of("1.2.392.200036.9116.7.8.1.1.1", ""), Role::Image, "private");
    }

    #[test]
    fn a_plane_is_the_same_from_either_side() {
        let a = Plane::of(r"-115.5\-1.85\696.21", r"1\0\0\0\1\0").unwrap();
        assert_eq!(a, Plane { normal: [0, 0, 1000], distance_um: 696_210 });
        let b = Plane::of(r"-115.5\-1.85\696.21", r"-1\0\0\0\1\0").unwrap();
        assert_eq!(a, b);
        assert_eq!(Plane::of(r"1\2", r"1\0\0\0\1\0"), None);
        assert_eq!(Plane::of(r"1\2\3", r"1\0\0\1\0\0"), None, "no plane");
        assert_eq!(Plane::of(r"nan\2\3", r"1\0\0\0\1\0"), None);
    }

    #[test]
    fn a_cut_multi_frame_image_says_how_many_frames_are_there() {
        assert_eq!(frames_present(10, 512, 512, 1, 16, 10 * 512 * 512 * 2), None);
        assert_eq!(frames_present(10, 512, 512, 1, 16, 9 * 512 * 512 * 2 + 7), Some(9));
        assert_eq!(frames_present(8, 8, 8, 1, 1, 64), None, "one bit per pixel");
        assert_eq!(frames_present(10, 0, 512, 1, 16, 0), None);
        assert_eq!(frames_present(u32::MAX, u32::MAX, u32::MAX, 9, 64, 1), None);
    }
}
