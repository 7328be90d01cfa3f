//! Changes a data set from one native transfer syntax to another (PS3.5 A.1 to A.3), for
//! destinations that are configured to get that. Pure.
//!
//! Values stay byte for byte what they were, but for byte order; the order of elements stays.
//! What changes: group lengths are left out, sequences get undefined length, odd values are
//! padded, and elements that implicit VR leaves open get the dictionary's VR. The result is read
//! again and compared with the source before it is given out. Works on a flat stream of tokens,
//! never on a tree: nesting is at most [`DEPTH_MAX`] deep.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::value::PrimitiveValue;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_encoding::TransferSyntax;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_parser::dataset::read::{DataSetReader, DataSetReaderOptions, ValueReadStrategy};
use dicom_parser::dataset::{DataSetWriter, DataToken};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use crate::cargo::{Hasher, Sha256};
use crate::dicom::EXPLICIT_VR_BE;

/// Deepest nesting of sequences that is followed.
pub const DEPTH_MAX: usize = 64;

/// Why a data set cannot be re-encoded. Never for this try only: the bytes will not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReencodeError {
    /// Not a native syntax.
    #[error("transfer syntax {0} is not native")]
    NotNative(String),
    /// The bytes cannot be read to their end in their syntax.
    #[error("the data set cannot be read to its end: {0}")]
    Unreadable(String),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("sequences are nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// Big endian with elements whose byte order is unknown.
    #[error("element {0} is of unknown representation, and its byte order cannot be changed")]
    UnknownOrder(Tag),
    /// Reading the result again gave something else.
    #[error("the re-encoded data set does not say the same as the original")]
    Differs,
}

/// The data set `bytes`, which stands in `from`, in the transfer syntax `to`.
pub fn reencode(bytes: &[u8], from: &str, to: &str) -> Result<Vec<u8>, ReencodeError> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    let mut writer = DataSetWriter::with_ts(&mut out, native(to)?).map_err(unreadable)?;
    let mut source = Digest::default();
    let (mut signed, mut number) = (false, false);
    each_token(bytes, from, |mut token| {
        if let DataToken::ElementHeader(header) = &mut token
            && signed
            && header.vr == VR::US
            && is_us_or_ss(header.tag)
        {
            header.vr = VR::SS;
        }
        source.add(&token, &mut signed);
        if let DataToken::ElementHeader(header) = &token {
            number = matches!(header.vr, VR::DS | VR::IS);
        }
        // The writer would print the bytes of a decimal string as numbers.
        if let DataToken::PrimitiveValue(value @ PrimitiveValue::U8(_)) = &mut token
            && number
        {
            let text = String::from_utf8(value.to_bytes().into_owned());
            let odd = |_| ReencodeError::Unreadable("a number that is no text".into());
            *value = PrimitiveValue::Str(text.map_err(odd)?);
        }
        writer.write(token).map_err(unreadable)
    })?;
    writer.flush().map_err(unreadable)?;
    drop(writer);
    let mut result = Digest::default();
    each_token(&out, to, |token| {
        result.add(&token, &mut signed);
        Ok(())
    })?;
    if source.finish() == result.finish() { Ok(out) } else { Err(ReencodeError::Differs) }
}

fn native(uid: &str) -> Result<&'static TransferSyntax, ReencodeError> {
    let not_native = || ReencodeError::NotNative(uid.to_owned());
    if !super::contexts::is_native(uid) {
        return Err(not_native());
    }
    TransferSyntaxRegistry.get(uid).ok_or_else(not_native)
}

fn unreadable(e: impl std::error::Error) -> ReencodeError {
    // Without its sources: those may quote values.
    ReencodeError::Unreadable(e.to_string())
}

/// Whether the dictionary leaves open if this element is signed (PS3.6, "US or SS").
fn is_us_or_ss(tag: Tag) -> bool {
    StandardDataDictionary.by_tag(tag).is_some_and(|e| e.vr() == VirtualVr::Xs)
}

/// Gives the tokens of a data set to `give`, values in little endian, group lengths left out.
fn each_token(
    bytes: &[u8],
    syntax: &str,
    mut give: impl FnMut(DataToken) -> Result<(), ReencodeError>,
) -> Result<(), ReencodeError> {
    let options = DataSetReaderOptions::default().value_read(ValueReadStrategy::Raw);
    let reader =
        DataSetReader::new_with_ts_options(bytes, native(syntax)?, options).map_err(unreadable)?;
    let (mut depth, mut current, mut skip) = (0usize, None, false);
    for token in reader {
        let mut token = token.map_err(unreadable)?;
        match &mut token {
            DataToken::ItemStart { .. } => depth += 1,
            DataToken::ItemEnd => depth = depth.saturating_sub(1),
            DataToken::ElementHeader(header) => {
                // Before the value is read: its length is a claim.
                if header.len.get().is_none_or(|len| len as usize > bytes.len()) {
                    let tag = header.tag;
                    return Err(ReencodeError::Unreadable(format!("{tag} reaches beyond it")));
                }
                skip = header.tag.element() == 0;
                current = Some((header.tag, header.vr()));
            }
            DataToken::PrimitiveValue(value) if syntax == EXPLICIT_VR_BE => {
                if let (Some((tag, vr)), PrimitiveValue::U8(raw)) = (current, value) {
                    swap(raw, tag, vr)?;
                }
            }
            DataToken::PixelSequenceStart => {
                return Err(ReencodeError::Unreadable("encapsulated pixel data".into()));
            }
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(ReencodeError::TooDeep);
        }
        let of_element =
            matches!(token, DataToken::ElementHeader(_) | DataToken::PrimitiveValue(_));
        if !(skip && of_element) {
            give(token)?;
        }
    }
    Ok(())
}

/// From big to little endian, in the units of the VR (PS3.5 7.3).
fn swap(raw: &mut [u8], tag: Tag, vr: VR) -> Result<(), ReencodeError> {
    let unit = match vr {
        VR::US | VR::SS | VR::OW | VR::AT => 2,
        VR::UL | VR::SL | VR::FL | VR::OL | VR::OF => 4,
        VR::FD | VR::OD | VR::SV | VR::UV | VR::OV => 8,
        VR::UN if !raw.is_empty() => return Err(ReencodeError::UnknownOrder(tag)),
        _ => return Ok(()),
    };
    raw.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
    Ok(())
}

/// What a data set says, without how it is encoded.
#[derive(Default)]
struct Digest {
    hasher: Hasher,
    last: Option<Tag>,
}

impl Digest {
    fn add(&mut self, token: &DataToken, signed: &mut bool) {
        let mut put = |kind: u8, tag: Tag, value: &[u8]| {
            self.hasher.update(&[kind]);
            self.hasher.update(&tag.group().to_le_bytes());
            self.hasher.update(&tag.element().to_le_bytes());
            self.hasher.update(&(value.len() as u64).to_le_bytes());
            self.hasher.update(value);
        };
        let none = Tag(0, 0);
        match token {
            DataToken::ElementHeader(header) => {
                self.last = Some(header.tag);
                put(1, header.tag, &[]);
            }
            DataToken::PrimitiveValue(value) => {
                let raw = value.to_bytes();
                if self.last == Some(tags::PIXEL_REPRESENTATION) {
                    *signed = raw.first() == Some(&1);
                }
                // An odd value gets padded, with what depends on its VR.
                let end = raw.iter().rposition(|b| ![0, b' '].contains(b)).map_or(0, |n| n + 1);
                put(2, none, &raw[..end]);
            }
            DataToken::SequenceStart { tag, .. } => put(3, *tag, &[]),
            DataToken::SequenceEnd => put(4, none, &[]),
            DataToken::ItemStart { .. } => put(5, none, &[]),
            DataToken::ItemEnd => put(6, none, &[]),
            _ => put(7, none, &[]),
        }
    }

    fn finish(self) -> Sha256 {
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::{EXPLICIT_VR_LE, IMPLICIT_VR_LE};

    /// (0028,0103) = 1, (0028,0120) = -2, a sequence with one item, pixels 1, 2.
    fn explicit() -> Vec<u8> {
        let mut b = vec![];
        b.extend_from_slice(b"\x08\0\x16\0UI\x02\x001\0");
        b.extend_from_slice(b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff");
        b.extend_from_slice(b"\xfe\xff\0\xe0\xff\xff\xff\xff\x08\0\x50\x11UI\x02\x001\0");
        b.extend_from_slice(b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0");
        b.extend_from_slice(b"\x28\0\x03\x01US\x02\0\x01\0\x28\0\x20\x01SS\x02\0\xfe\xff");
        b.extend_from_slice(b"\xe0\x7f\x10\0OW\0\0\x04\0\0\0\x01\0\x02\0");
        b
    }

    #[test]
    fn to_implicit_and_back_is_the_same_signed_values_included() {
        let implicit = reencode(&explicit(), EXPLICIT_VR_LE, IMPLICIT_VR_LE).unwrap();
        assert_ne!(implicit, explicit());
        assert_eq!(reencode(&implicit, IMPLICIT_VR_LE, EXPLICIT_VR_LE).unwrap(), explicit());
    }

    #[test]
    fn big_endian_numbers_and_pixels_change_their_order() {
        let mut b = vec![];
        b.extend_from_slice(b"\0\x28\x01\x03US\0\x02\0\x01\0\x28\x01\x20SS\0\x02\xff\xfe");
        b.extend_from_slice(b"\x7f\xe0\0\x10OW\0\0\0\0\0\x04\0\x01\0\x02");
        let little = reencode(&b, EXPLICIT_VR_BE, EXPLICIT_VR_LE).unwrap();
        assert!(explicit().ends_with(&little));
    }

    #[test]
    fn group_lengths_are_left_out_because_they_would_lie() {
        let mut b = b"\x08\0\0\0UL\x04\0\x0a\0\0\0".to_vec();
        b.extend_from_slice(&explicit());
        let implicit = reencode(&b, EXPLICIT_VR_LE, IMPLICIT_VR_LE).unwrap();
        assert_eq!(implicit, reencode(&explicit(), EXPLICIT_VR_LE, IMPLICIT_VR_LE).unwrap());
    }

    #[test]
    fn big_endian_elements_of_unknown_representation_are_not_guessed_at() {
        let b = b"\0\x09\x10\x01UN\0\0\0\0\0\x02\0\x01";
        let tag = Tag(0x0009, 0x1001);
        assert_eq!(
            reencode(b, EXPLICIT_VR_BE, EXPLICIT_VR_LE),
            Err(ReencodeError::UnknownOrder(tag))
        );
    }

    #[test]
    fn deep_nesting_and_lies_about_lengths_are_errors() {
        let deep: Vec<u8> = (0..3000)
            .flat_map(|_| *b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff")
            .collect();
        assert_eq!(reencode(&deep, EXPLICIT_VR_LE, IMPLICIT_VR_LE), Err(ReencodeError::TooDeep));
        let lie = b"\x10\0\x10\0OB\0\0\xfe\xff\xff\xff12";
        let result = reencode(lie, EXPLICIT_VR_LE, IMPLICIT_VR_LE);
        assert!(matches!(result, Err(ReencodeError::Unreadable(_))), "{result:?}");
        let short = &explicit()[..explicit().len() - 1];
        assert!(reencode(short, EXPLICIT_VR_LE, IMPLICIT_VR_LE).is_err());
    }

    #[test]
    fn every_native_sample_can_be_reencoded() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let index = std::fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
        let mut count = 0;
        for row in index.lines().filter(|l| l.starts_with("samples/")) {
            let f: Vec<_> = row.split('\t').collect();
            if !super::super::contexts::is_native(f[7]) {
                continue;
            }
            let file = std::fs::read(folder.join(f[0])).unwrap();
            let meta = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
            for to in [IMPLICIT_VR_LE, EXPLICIT_VR_LE] {
                let result = reencode(&file[144 + meta..], f[7], to);
                assert!(result.is_ok(), "{} to {to}: {result:?}", f[0]);
                count += 1;
            }
        }
        assert!(count > 50, "{count}");
    }
}
