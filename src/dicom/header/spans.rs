//! Where the top-level elements of a data set stand in its bytes: for changing some of them and no
//! other byte. Unlike reading a header, this is strict: what is not clear is a fault.

use std::ops::Range;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::{Coding, Stop, UNDEFINED, Walk};
use crate::dicom::{EXPLICIT_VR_BE, IMPLICIT_VR_LE};

/// One top-level element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dicom) struct Span {
    pub(in crate::dicom) tag: Tag,
    /// Its VR as it stands there; in Implicit VR, what the dictionary says.
    pub(in crate::dicom) vr: dicom_core::VR,
    /// Where its tag begins.
    pub(in crate::dicom) start: usize,
    /// Its value; for an undefined length, with the delimiter that ends it.
    pub(in crate::dicom) value: Range<usize>,
    /// Whether its length is undefined.
    pub(in crate::dicom) undefined: bool,
}

/// All top-level elements before the pixel data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dicom) struct Spans {
    /// How they are written.
    pub(in crate::dicom) coding: Coding,
    /// In order; tags ascend.
    pub(in crate::dicom) elements: Vec<Span>,
    /// Where the pixel data begins, or the data set ends.
    pub(in crate::dicom) end: usize,
}

/// Why the elements are not all found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dicom) enum Unclear {
    /// The bytes, which are only the beginning of a data set, end before its pixel data.
    Longer,
    /// A fault, in words without patient data.
    Fault(String),
}

/// The coding of a transfer syntax; `None` when it is deflated or no standard one with a data set
/// that can be changed where it stands.
fn coding_of(transfer_syntax: &str) -> Option<Coding> {
    match transfer_syntax {
        IMPLICIT_VR_LE | super::GE_PRIVATE_IMPLICIT | super::PAPYRUS_IMPLICIT => {
            Some(Coding::ImplicitLittle)
        }
        EXPLICIT_VR_BE => Some(Coding::ExplicitBig),
        crate::dicom::DEFLATED_EXPLICIT_VR_LE
        | super::JPIP_REFERENCED_DEFLATE
        | super::JPIP_HTJ2K_REFERENCED_DEFLATE => None,
        _ => Some(Coding::ExplicitLittle),
    }
}

/// Finds the elements. `complete`: `bytes` is all of the data set.
pub(in crate::dicom) fn spans(
    bytes: &[u8],
    transfer_syntax: &str,
    complete: bool,
) -> Result<Spans, Unclear> {
    let fault = |what: &str| Unclear::Fault(what.into());
    let coding = coding_of(transfer_syntax).ok_or_else(|| fault("the data set is deflated"))?;
    let mut walk = Walk::new(bytes, coding, complete);
    if !walk.first_is_readable() {
        return Err(fault("its first element cannot be read"));
    }
    let mut elements: Vec<Span> = Vec::new();
    loop {
        match walk.span() {
            Ok(span) => {
                if elements.last().is_some_and(|last| last.tag >= span.tag) {
                    return Err(fault("its elements do not stand in the order of their tags"));
                }
                elements.push(span);
            }
            Err(Stop::PixelData) => return Ok(Spans { coding, elements, end: walk.at }),
            Err(Stop::End) if complete => return Ok(Spans { coding, elements, end: bytes.len() }),
            Err(Stop::End | Stop::Short(_)) if !complete => return Err(Unclear::Longer),
            Err(Stop::End | Stop::Short(_)) => return Err(fault("it ends within an element")),
            Err(Stop::Fault(what)) => return Err(Unclear::Fault(what)),
        }
    }
}

impl Walk<'_> {
    /// The next top-level element; at the pixel data it stays where that begins.
    fn span(&mut self) -> Result<Span, Stop> {
        if self.at == self.bytes.len() {
            return Err(Stop::End);
        }
        let start = self.at;
        let head = self.next_head(self.coding)?;
        let group = head.tag.group();
        if group >= tags::PIXEL_DATA.group() && group != 0xFFFE {
            self.at = start;
            return Err(Stop::PixelData);
        }
        if group == 0xFFFE {
            return Err(Stop::Fault(format!("{} outside a sequence at byte {start}", head.tag)));
        }
        let (from, undefined) = (self.at, head.length == UNDEFINED);
        match undefined {
            true => self.step_over_undefined(&head)?,
            false => drop(self.take(head.length, head.tag)?),
        }
        Ok(Span { tag: head.tag, vr: head.vr, start, value: from..self.at, undefined })
    }
}
