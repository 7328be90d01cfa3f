//! The header of a data set: top-level elements before the pixel data, read leniently (PS3.5 7).
//!
//! For routing and for comparing identifiers, never for changing a data set. A fault in the
//! bytes ends the reading, not the object: what was read until then stays, and the fault is told
//! in words that hold tags and positions but no values.
//!
//! Nested data is stepped over without recursion: a sequence of defined length by its length, one
//! of undefined length by an explicit stack of at most [`DEPTH_MAX`] levels. Values are taken up
//! to [`VALUE_LENGTH_MAX`] bytes; the number of elements is at most [`ELEMENTS_MAX`].

pub(super) mod spans;

use std::collections::BTreeMap;
use std::io::Read;

use dicom_core::dictionary::DataDictionary;
use dicom_core::header::Header as _;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_encoding::decode::DecodeFrom;
use dicom_encoding::decode::explicit_be::ExplicitVRBigEndianDecoder;
use dicom_encoding::decode::explicit_le::ExplicitVRLittleEndianDecoder;
use dicom_encoding::decode::implicit_le::StandardImplicitVRLittleEndianDecoder;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

use super::{DEFLATED_EXPLICIT_VR_LE, EXPLICIT_VR_BE, IMPLICIT_VR_LE};

/// Deepest nesting of undefined lengths that is stepped over.
pub const DEPTH_MAX: usize = 64;

/// Most elements that are read, nested ones included.
pub const ELEMENTS_MAX: usize = 100_000;

/// Longest value that is taken, in bytes; longer ones are cut.
pub const VALUE_LENGTH_MAX: usize = 1024;

/// Most bytes that a deflated data set is inflated to.
pub const INFLATED_LENGTH_MAX: u64 = 1024 * 1024;

/// JPIP Referenced Deflate (PS3.5 A.7), deflated as a whole.
const JPIP_REFERENCED_DEFLATE: &str = "1.2.840.10008.1.2.4.95";
/// JPIP HTJ2K Referenced Deflate, deflated as a whole.
const JPIP_HTJ2K_REFERENCED_DEFLATE: &str = "1.2.840.10008.1.2.4.205";
/// GE private: Implicit VR Little Endian but for the pixels.
const GE_PRIVATE_IMPLICIT: &str = "1.2.840.113619.5.2";
/// Papyrus 3 Implicit VR Little Endian (retired).
const PAPYRUS_IMPLICIT: &str = "1.2.840.10008.1.20";

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITATION: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITATION: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = u32::MAX;

/// What came of reading a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// There are no bytes.
    Empty,
    /// Not even the first element can be read in its transfer syntax.
    Unreadable,
    /// The elements up to the pixel data, or up to a fault.
    Header(Header),
}

/// Where the pixel data (7FE0,0010) stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PixelData {
    /// The first byte of its value in the data set; of encapsulated ones that behind the Basic Offset
    /// Table.
    pub at: u64,
    /// Length of a native value, as its header says; `None`: encapsulated.
    pub length: Option<u32>,
    /// The Basic Offset Table of an encapsulated value, as far as it was there to be read.
    pub offsets: Vec<u32>,
}

/// The top-level elements of a data set that come before its pixel data, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    values: BTreeMap<(u16, u16), String>,
    /// Whether everything before the pixel data was read: what is absent then is not there.
    pub whole: bool,
    /// The pixel data behind it.
    pub pixel_data: Option<PixelData>,
    /// Why reading ended before the pixel data or the end, in words without patient data.
    pub fault: Option<String>,
}

impl Header {
    /// The value of a top-level attribute, named by tag, trimmed, several values joined by `\`.
    /// `None` when absent, empty, binary or nested.
    pub fn attribute(&self, tag: Tag) -> Option<&str> {
        self.values.get(&(tag.group(), tag.element())).map(String::as_str)
    }

    fn text(&self, tag: Tag) -> &str {
        self.attribute(tag).unwrap_or_default()
    }

    /// SOP Class UID (0008,0016); empty when absent, as all of these.
    pub fn sop_class(&self) -> &str {
        self.text(tags::SOP_CLASS_UID)
    }

    /// SOP Instance UID (0008,0018).
    pub fn sop_instance(&self) -> &str {
        self.text(tags::SOP_INSTANCE_UID)
    }

    /// Study Instance UID (0020,000D).
    pub fn study(&self) -> &str {
        self.text(tags::STUDY_INSTANCE_UID)
    }

    /// Series Instance UID (0020,000E).
    pub fn series(&self) -> &str {
        self.text(tags::SERIES_INSTANCE_UID)
    }

    /// Modality (0008,0060).
    pub fn modality(&self) -> &str {
        self.text(tags::MODALITY)
    }

    /// Accession Number (0008,0050).
    pub fn accession(&self) -> &str {
        self.text(tags::ACCESSION_NUMBER)
    }

    /// Patient ID (0010,0020).
    pub fn patient_id(&self) -> &str {
        self.text(tags::PATIENT_ID)
    }
}

/// The tag that `name` means: a keyword (`InstitutionName`), `(0008,0080)`, `0008,0080` or
/// `00080080`.
pub fn tag_of(name: &str) -> Option<Tag> {
    StandardDataDictionary.parse_tag(name)
}

/// Reads the header of a data set that stands in `transfer_syntax`; an unknown one is read as
/// Explicit VR Little Endian, which every encapsulated and private one in use is. With
/// `complete == false`, `bytes` is only the beginning of the data set, and to end within an
/// element is no fault.
pub fn read(bytes: &[u8], transfer_syntax: &str, complete: bool) -> Reading {
    if bytes.is_empty() {
        return Reading::Empty;
    }
    let coding = match transfer_syntax {
        IMPLICIT_VR_LE | GE_PRIVATE_IMPLICIT | PAPYRUS_IMPLICIT => Coding::ImplicitLittle,
        EXPLICIT_VR_BE => Coding::ExplicitBig,
        DEFLATED_EXPLICIT_VR_LE | JPIP_REFERENCED_DEFLATE | JPIP_HTJ2K_REFERENCED_DEFLATE => {
            return read_deflated(bytes, complete);
        }
        _ => Coding::ExplicitLittle,
    };
    Walk::new(bytes, coding, complete).run()
}

fn read_deflated(bytes: &[u8], complete: bool) -> Reading {
    let mut inflated = vec![];
    let inflater = flate2::read::DeflateDecoder::new(bytes);
    // An error keeps what was inflated before it.
    let whole = inflater.take(INFLATED_LENGTH_MAX).read_to_end(&mut inflated).is_ok();
    let cut = inflated.len() as u64 == INFLATED_LENGTH_MAX;
    if inflated.is_empty() {
        return Reading::Unreadable;
    }
    let mut reading = Walk::new(&inflated, Coding::ExplicitLittle, complete && whole && !cut).run();
    if let Reading::Header(header) = &mut reading {
        // It stands in what was inflated.
        header.pixel_data = None;
    }
    if let Reading::Header(header) = &mut reading
        && complete
        && !whole
    {
        header.fault.get_or_insert_with(|| "the deflated bytes are damaged".into());
    }
    reading
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

/// An element's header.
struct Head {
    tag: Tag,
    vr: VR,
    length: u32,
}

/// What the innermost open undefined length holds next.
#[derive(Debug, Clone, Copy)]
enum Frame {
    /// Items, in this coding, until a sequence delimitation.
    Sequence(Coding),
    /// Elements, in this coding, until an item delimitation.
    Item(Coding),
}

/// Why the walk ended.
enum Stop {
    /// At the pixel data.
    PixelData,
    /// At the end of the bytes, between two elements.
    End,
    /// The bytes end within this element, or within an element's header.
    Short(Option<Tag>),
    /// Something that cannot be read.
    Fault(String),
}

/// One pass over the elements.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    coding: Coding,
    complete: bool,
    elements: usize,
    charset: SpecificCharacterSet,
    header: Header,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], coding: Coding, complete: bool) -> Self {
        let charset = SpecificCharacterSet::default();
        Self { bytes, at: 0, coding, complete, elements: 0, charset, header: Header::default() }
    }

    fn run(mut self) -> Reading {
        if !self.first_is_readable() {
            return Reading::Unreadable;
        }
        self.header.fault = loop {
            match self.step() {
                Ok(()) => {}
                Err(Stop::PixelData) => {
                    self.header.whole = true;
                    break None;
                }
                Err(Stop::End) => {
                    self.header.whole = self.complete;
                    break None;
                }
                Err(Stop::Short(_)) if !self.complete => break None,
                Err(Stop::Short(Some(tag))) => break Some(format!("data set ends within {tag}")),
                Err(Stop::Short(None)) => break Some("data set ends within a tag".into()),
                Err(Stop::Fault(fault)) => break Some(fault),
            }
        };
        Reading::Header(self.header)
    }

    /// Whether the first element has a header, and a value that ends where the data set does or
    /// before.
    fn first_is_readable(&self) -> bool {
        let mut bytes = &self.bytes[self.at..];
        let Ok(head) = head(&mut bytes, self.coding) else { return false };
        let named = head.tag.group() != 0xFFFE && head.tag.group() != 0;
        let fits = head.length == UNDEFINED || head.length as usize <= bytes.len();
        named && (fits || !self.complete) && self.has_vr()
    }

    /// Whether a VR stands where an explicit element has one (two capitals, PS3.5 7.1.2).
    fn has_vr(&self) -> bool {
        let vr = self.bytes.get(self.at + 4..self.at + 6).unwrap_or_default();
        self.coding == Coding::ImplicitLittle
            || (vr.len() == 2 && vr.iter().all(u8::is_ascii_uppercase))
    }

    /// Reads one top-level element.
    fn step(&mut self) -> Result<(), Stop> {
        if self.at == self.bytes.len() {
            return Err(Stop::End);
        }
        let start = self.at;
        let head = self.next_head(self.coding)?;
        let group = head.tag.group();
        if head.tag == tags::PIXEL_DATA {
            self.header.pixel_data = Some(self.pixel_data(&head));
        }
        if group >= tags::PIXEL_DATA.group() && group != 0xFFFE {
            return Err(Stop::PixelData);
        }
        if group == 0xFFFE {
            return Err(Stop::Fault(format!("{} outside a sequence at byte {start}", head.tag)));
        }
        if head.length == UNDEFINED {
            return self.step_over_undefined(&head);
        }
        let value = self.take(head.length, head.tag)?;
        self.keep(&head, value);
        Ok(())
    }

    fn pixel_data(&self, head: &Head) -> PixelData {
        let at = |at: usize| u64::try_from(at).unwrap_or(u64::MAX);
        if head.length != UNDEFINED {
            let length = Some(head.length);
            return PixelData { at: at(self.at), length, offsets: Vec::new() };
        }
        let mut bytes = &self.bytes[self.at..];
        let before = bytes.len();
        let item = self::head(&mut bytes, self.coding).ok().filter(|h| h.tag == ITEM);
        let table = item.and_then(|item| bytes.get(..item.length as usize)).unwrap_or_default();
        let (offsets, _) = table.as_chunks::<4>();
        let offsets = offsets.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let behind = self.at + (before - bytes.len()) + table.len();
        PixelData { at: at(behind), length: None, offsets }
    }

    fn next_head(&mut self, coding: Coding) -> Result<Head, Stop> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(Stop::Fault(format!("more than {ELEMENTS_MAX} elements")));
        }
        let mut bytes = &self.bytes[self.at..];
        let before = bytes.len();
        // Too few bytes is the one reason for which a header cannot be read.
        let head = head(&mut bytes, coding).map_err(|()| Stop::Short(None))?;
        if coding != Coding::ImplicitLittle && head.tag.group() != 0xFFFE {
            let vr = self.bytes.get(self.at + 4..self.at + 6).unwrap_or_default();
            if !vr.iter().all(u8::is_ascii_uppercase) {
                return Err(Stop::Fault(format!("no value representation at {}", head.tag)));
            }
        }
        self.at += before - bytes.len();
        Ok(head)
    }

    fn take(&mut self, length: u32, tag: Tag) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let (value, _) = rest.split_at_checked(length as usize).ok_or(Stop::Short(Some(tag)))?;
        self.at += value.len();
        Ok(value)
    }

    /// Steps to the end of a value of undefined length: a sequence, an unknown value that holds
    /// one (always implicit inside, PS3.5 6.2.2), or encapsulated fragments.
    fn step_over_undefined(&mut self, outer: &Head) -> Result<(), Stop> {
        let mut stack = vec![Frame::Sequence(inner_coding(outer.vr, self.coding))];
        while let Some(frame) = stack.last().copied() {
            let (Frame::Sequence(coding) | Frame::Item(coding)) = frame;
            let head = self.next_head(coding)?;
            match (frame, head.tag, head.length) {
                (Frame::Sequence(_), SEQUENCE_DELIMITATION, _)
                | (Frame::Item(_), ITEM_DELIMITATION, _) => {
                    stack.pop();
                }
                (Frame::Sequence(_), ITEM, UNDEFINED) => stack.push(Frame::Item(coding)),
                (Frame::Sequence(_), ITEM, length) => {
                    self.take(length, outer.tag)?;
                }
                (Frame::Item(_), tag, UNDEFINED) if tag.group() != 0xFFFE => {
                    stack.push(Frame::Sequence(inner_coding(head.vr, coding)));
                }
                (Frame::Item(_), tag, length) if tag.group() != 0xFFFE => {
                    self.take(length, outer.tag)?;
                }
                _ => {
                    return Err(Stop::Fault(format!("sequence {} is damaged", outer.tag)));
                }
            }
            if stack.len() > 2 * DEPTH_MAX {
                return Err(Stop::Fault(format!(
                    "sequence {} is nested deeper than {DEPTH_MAX}",
                    outer.tag
                )));
            }
        }
        Ok(())
    }

    fn keep(&mut self, head: &Head, value: &[u8]) {
        if head.tag == tags::SPECIFIC_CHARACTER_SET {
            self.charset = charset(value);
        }
        let value = &value[..value.len().min(VALUE_LENGTH_MAX)];
        let big = self.coding == Coding::ExplicitBig;
        if let Some(text) = text_of(head.vr, value, big, &self.charset)
            && !text.is_empty()
        {
            // The first of two elements with one tag counts.
            self.header.values.entry((head.tag.group(), head.tag.element())).or_insert(text);
        }
    }
}

fn inner_coding(vr: VR, outer: Coding) -> Coding {
    if vr == VR::UN { Coding::ImplicitLittle } else { outer }
}

/// Reads the header of an element off the front of `bytes`.
fn head(bytes: &mut &[u8], coding: Coding) -> Result<Head, ()> {
    let decoded = match coding {
        Coding::ImplicitLittle => {
            StandardImplicitVRLittleEndianDecoder::default().decode_header(bytes)
        }
        Coding::ExplicitLittle => ExplicitVRLittleEndianDecoder::default().decode_header(bytes),
        Coding::ExplicitBig => ExplicitVRBigEndianDecoder::default().decode_header(bytes),
    };
    let (header, _) = decoded.map_err(|_| ())?;
    Ok(Head { tag: header.tag(), vr: header.vr(), length: header.len.0 })
}

/// The character set of the first value of (0008,0005); code extensions in further values are
/// not followed, their escape sequences stay in the text.
fn charset(value: &[u8]) -> SpecificCharacterSet {
    let text = String::from_utf8_lossy(value);
    let first = text.split('\\').find(|v| !v.trim().is_empty()).unwrap_or_default();
    SpecificCharacterSet::from_code(first.trim_matches([' ', '\0'])).unwrap_or_default()
}

/// The value as text, or `None` when it is binary.
fn text_of(vr: VR, value: &[u8], big: bool, charset: &SpecificCharacterSet) -> Option<String> {
    match vr {
        VR::PN | VR::LO | VR::SH | VR::ST | VR::LT | VR::UC | VR::UT => {
            let text = charset
                .decode(value)
                .unwrap_or_else(|_| String::from_utf8_lossy(value).into_owned());
            Some(trim_values(&text))
        }
        VR::AE | VR::AS | VR::CS | VR::DA | VR::DS | VR::DT | VR::IS | VR::TM | VR::UI | VR::UR => {
            Some(trim_values(&String::from_utf8_lossy(value)))
        }
        VR::US => Some(numbers::<2>(value, big, |b| u16::from_le_bytes(b).to_string())),
        VR::SS => Some(numbers::<2>(value, big, |b| i16::from_le_bytes(b).to_string())),
        VR::UL => Some(numbers::<4>(value, big, |b| u32::from_le_bytes(b).to_string())),
        VR::SL => Some(numbers::<4>(value, big, |b| i32::from_le_bytes(b).to_string())),
        VR::FL => Some(numbers::<4>(value, big, |b| f32::from_le_bytes(b).to_string())),
        VR::FD => Some(numbers::<8>(value, big, |b| f64::from_le_bytes(b).to_string())),
        // A private element whose VR is not known here is text when it looks like it.
        VR::UN => {
            let text = std::str::from_utf8(value).ok()?;
            let plain = |c: char| c == '\0' || (' '..='~').contains(&c);
            text.chars().all(plain).then(|| trim_values(text))
        }
        _ => None,
    }
}

fn trim_values(text: &str) -> String {
    let padding = ['\0', ' '];
    text.split('\\').map(|v| v.trim_matches(padding)).collect::<Vec<_>>().join("\\")
}

fn numbers<const N: usize>(value: &[u8], big: bool, show: fn([u8; N]) -> String) -> String {
    let (values, _) = value.as_chunks::<N>();
    let ordered = values.iter().map(|v| {
        let mut v = *v;
        if big {
            v.reverse();
        }
        show(v)
    });
    ordered.collect::<Vec<_>>().join("\\")
}

#[cfg(test)]
mod tests;
