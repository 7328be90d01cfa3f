//! Corrects patient and accession number of a data set where it stands, and says so in it
//! (Original Attributes Sequence, PS3.3 C.12.1.1.9). Pure.
//!
//! Only the elements that change are written anew, in the coding and the character set that the data
//! set has; their former bytes go, as they were, into a new item behind those that are there. Every
//! other byte stays as it was received. What cannot be written exactly is not written at all: then
//! nothing is corrected, and [`CannotCorrect`] says why.
//!
//! | attribute | written |
//! |---|---|
//! | Accession Number (0008,0050) | where wanted and different |
//! | Patient's Name, ID, Issuer, Birth Date, Sex (0010,0010) to (0010,0040) | likewise |
//! | Issuer of Patient ID Qualifiers Sequence (0010,0024) | taken out with a Patient ID that changes: it spoke of the former one |
//! | Instance Coercion DateTime (0008,0015) | always |
//! | Original Attributes Sequence (0400,0561) | one item more |
//! | group lengths (gggg,0000) | where there are some |

mod encode;

use std::borrow::Cow;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::header::Coding;
use super::header::spans::{Span, Spans, Unclear, spans};
use super::text::Repertoire;

/// Most bytes of a data set that are looked at for its elements before the pixel data.
pub const HEADER_LENGTH_MAX: usize = 4 << 20;

/// What the attributes are to be; `None`: as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Accession Number (0008,0050).
    pub accession: Option<String>,
    /// Patient's Name (0010,0010), its groups joined by `=`.
    pub name: Option<String>,
    /// Patient ID (0010,0020).
    pub patient_id: Option<String>,
    /// Issuer of Patient ID (0010,0021); written only together with a Patient ID that changes, or in
    /// the place of another.
    pub issuer: Option<String>,
    /// Patient's Birth Date (0010,0030).
    pub birth_date: Option<String>,
    /// Patient's Sex (0010,0040).
    pub sex: Option<String>,
}

/// Why attributes are replaced (0400,0565).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// What is known of the patient elsewhere takes the place of it.
    Coerce,
    /// It was wrong.
    Correct,
}

/// What the new item says beside the former values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Attribute Modification DateTime (0400,0562), with its offset from UTC.
    pub at: String,
    /// Modifying System (0400,0563).
    pub system: String,
    /// Source of Previous Values (0400,0564); empty when not known.
    pub source: String,
    /// Reason for the Attribute Modification (0400,0565).
    pub reason: Reason,
}

/// What an image's order wants of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// What the attributes are to be.
    pub wanted: Wanted,
    /// What the new item says.
    pub stamp: Stamp,
    /// Whether the image shows another patient than it says: uncorrected it must not leave.
    pub moves: bool,
}

/// What a flag of an image begins with that was corrected.
pub const CORRECTED: &str = "corrected as its order says: ";
/// What a flag of an image begins with that could not be.
pub const NOT_CORRECTED: &str = "not corrected as its order says: ";

impl Correction {
    /// As [`correct`].
    ///
    /// # Errors
    ///
    /// [`CannotCorrect`]: it stays as it is.
    pub fn patch(
        &self,
        bytes: &[u8],
        transfer_syntax: &str,
        complete: bool,
    ) -> Result<Option<Patch>, CannotCorrect> {
        correct(bytes, transfer_syntax, complete, &self.wanted, &self.stamp)
    }
}

/// Why nothing is corrected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotCorrect {
    /// The elements before the pixel data are more than was looked at.
    #[error("its header is longer than what is looked at")]
    Longer,
    /// The data set cannot be changed where it stands; the text says why.
    #[error("{0}")]
    Unclear(String),
    /// The value does not fit the attribute, or its character set does not have it.
    #[error("the order's {0} cannot be written in it")]
    Unwritable(&'static str),
}

/// A change of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// Where, in the bytes before the change.
    pub at: usize,
    /// So many bytes go.
    pub gone: usize,
    /// These come.
    pub new: Vec<u8>,
}

/// A data set's correction: splices in the order of their places, none over another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    splices: Vec<Splice>,
    changed: Vec<Tag>,
}

impl Patch {
    /// The splices.
    pub fn splices(&self) -> &[Splice] {
        &self.splices
    }

    /// The attributes that are corrected, in order.
    pub fn changed(&self) -> &[Tag] {
        &self.changed
    }

    /// Their keywords.
    pub fn keywords(&self) -> Vec<&'static str> {
        self.changed.iter().map(|tag| keyword(*tag)).collect()
    }

    /// The corrected bytes of a data set that is in memory.
    pub fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 1024);
        let mut at = 0;
        for splice in &self.splices {
            out.extend_from_slice(&bytes[at..splice.at]);
            out.extend_from_slice(&splice.new);
            at = splice.at + splice.gone;
        }
        out.extend_from_slice(&bytes[at..]);
        out
    }
}

const fn keyword(tag: Tag) -> &'static str {
    match tag {
        tags::ACCESSION_NUMBER => "AccessionNumber",
        tags::PATIENT_NAME => "PatientName",
        tags::PATIENT_ID => "PatientID",
        tags::ISSUER_OF_PATIENT_ID => "IssuerOfPatientID",
        tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE => "IssuerOfPatientIDQualifiersSequence",
        tags::PATIENT_BIRTH_DATE => "PatientBirthDate",
        _ => "PatientSex",
    }
}

/// Corrects a data set of which `bytes` is all (`complete`) or the beginning. `None`: it is as
/// wanted.
///
/// # Errors
///
/// [`CannotCorrect`]: it stays as it is.
pub fn correct(
    bytes: &[u8],
    transfer_syntax: &str,
    complete: bool,
    wanted: &Wanted,
    stamp: &Stamp,
) -> Result<Option<Patch>, CannotCorrect> {
    let spans = spans(bytes, transfer_syntax, complete).map_err(|e| match e {
        Unclear::Longer => CannotCorrect::Longer,
        Unclear::Fault(what) => CannotCorrect::Unclear(what),
    })?;
    let set = Set { bytes, spans };
    let edits = set.edits(wanted)?;
    if edits.is_empty() {
        return Ok(None);
    }
    let changed = edits.iter().map(|edit| edit.tag).collect();
    let mut splices = Vec::new();
    let at = [Edit::new(tags::INSTANCE_COERCION_DATE_TIME, VR::DT, padded(stamp.at.as_bytes()))];
    for edit in at.iter().chain(&edits) {
        splices.push((edit.tag.group(), set.replace(edit)));
    }
    let group = tags::ORIGINAL_ATTRIBUTES_SEQUENCE.group();
    splices.extend(set.original(&edits, stamp)?.into_iter().map(|splice| (group, splice)));
    set.mend_group_lengths(&mut splices)?;
    let mut splices: Vec<Splice> = splices.into_iter().map(|(_, splice)| splice).collect();
    // Stable: what comes in at one place stays in the order of the tags.
    splices.sort_by_key(|splice| splice.at);
    Ok(Some(Patch { splices, changed }))
}

/// One element that is to be another, or, without a value, none.
struct Edit {
    tag: Tag,
    vr: VR,
    value: Option<Vec<u8>>,
}

impl Edit {
    const fn new(tag: Tag, vr: VR, value: Vec<u8>) -> Self {
        Self { tag, vr, value: Some(value) }
    }
}

fn padded(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if value.len() % 2 == 1 {
        value.push(b' ');
    }
    value
}

/// A data set whose elements are found.
struct Set<'a> {
    bytes: &'a [u8],
    spans: Spans,
}

impl Set<'_> {
    fn find(&self, tag: Tag) -> Result<usize, usize> {
        self.spans.elements.binary_search_by_key(&tag, |span| span.tag)
    }

    fn span(&self, tag: Tag) -> Option<&Span> {
        self.find(tag).ok().map(|n| &self.spans.elements[n])
    }

    /// Where an element stands, or would.
    fn place(&self, tag: Tag) -> usize {
        let (Ok(n) | Err(n)) = self.find(tag);
        self.spans.elements.get(n).map_or(self.spans.end, |span| span.start)
    }

    fn value(&self, tag: Tag) -> &[u8] {
        self.span(tag).map(|span| &self.bytes[span.value.clone()]).unwrap_or_default()
    }

    /// What is to become another, in the order of the tags.
    fn edits(&self, wanted: &Wanted) -> Result<Vec<Edit>, CannotCorrect> {
        let terms = String::from_utf8_lossy(self.value(tags::SPECIFIC_CHARACTER_SET)).into_owned();
        let reads = Repertoire::of(&terms);
        let moves = wanted
            .patient_id
            .as_deref()
            .is_some_and(|new| !same(VR::LO, &reads.decode(self.value(tags::PATIENT_ID)), new));
        // Who gave a number is said where it was said before, or where the number is a new one.
        let issuer = wanted.issuer.as_ref();
        let issuer = issuer.filter(|_| moves || !self.value(tags::ISSUER_OF_PATIENT_ID).is_empty());
        let mut edits = Vec::new();
        for (tag, vr, new) in [
            (tags::ACCESSION_NUMBER, VR::SH, wanted.accession.as_ref()),
            (tags::PATIENT_NAME, VR::PN, wanted.name.as_ref()),
            (tags::PATIENT_ID, VR::LO, wanted.patient_id.as_ref()),
            (tags::ISSUER_OF_PATIENT_ID, VR::LO, issuer),
            (tags::PATIENT_BIRTH_DATE, VR::DA, wanted.birth_date.as_ref()),
            (tags::PATIENT_SEX, VR::CS, wanted.sex.as_ref()),
        ] {
            let Some(new) = new.filter(|new| !new.is_empty()) else { continue };
            if same(vr, &reads.decode(self.value(tag)), new) {
                continue;
            }
            let value = fits(vr, new).then(|| encode::encode(&terms, new)).flatten();
            let value = value.ok_or(CannotCorrect::Unwritable(keyword(tag)))?;
            edits.push(Edit::new(tag, vr, padded(&value)));
        }
        let qualifiers = tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE;
        if moves && self.span(qualifiers).is_some() {
            edits.push(Edit { tag: qualifiers, vr: VR::SQ, value: None });
            edits.sort_by_key(|edit| edit.tag);
        }
        Ok(edits)
    }

    fn replace(&self, edit: &Edit) -> Splice {
        let gone = self.span(edit.tag).map_or(0, |span| span.value.end - span.start);
        let value = edit.value.as_ref();
        let new = value.map(|value| self.element(edit.tag, edit.vr, value)).unwrap_or_default();
        Splice { at: self.place(edit.tag), gone, new }
    }

    /// One item more of the Original Attributes Sequence, and the sequence where there is none.
    fn original(&self, edits: &[Edit], stamp: &Stamp) -> Result<Vec<Splice>, CannotCorrect> {
        let unclear = || CannotCorrect::Unclear("its Original Attributes cannot be read".into());
        let tag = tags::ORIGINAL_ATTRIBUTES_SEQUENCE;
        let item = self.item(&self.former(edits, stamp)?);
        let Some(span) = self.span(tag) else {
            let new = self.element(tag, VR::SQ, &item);
            return Ok(vec![Splice { at: self.place(tag), gone: 0, new }]);
        };
        if span.vr != VR::SQ {
            return Err(unclear());
        }
        let length = span.value.len();
        if span.undefined {
            // Before the delimiter: a tag and a length.
            let at = span.value.end.checked_sub(8).ok_or_else(unclear)?;
            return Ok(vec![Splice { at, gone: 0, new: item }]);
        }
        let longer = u32::try_from(length + item.len()).map_err(|_| unclear())?;
        let new = self.number(longer).to_vec();
        Ok(vec![
            Splice { at: span.value.start - 4, gone: 4, new },
            Splice { at: span.value.end, gone: 0, new: item },
        ])
    }

    /// The elements of the new item.
    fn former(&self, edits: &[Edit], stamp: &Stamp) -> Result<Vec<u8>, CannotCorrect> {
        let mut values = Vec::new();
        let earlier = Edit { tag: tags::INSTANCE_COERCION_DATE_TIME, vr: VR::DT, value: None };
        let earlier = self.span(earlier.tag).is_some().then_some(&earlier);
        for edit in earlier.into_iter().chain(edits) {
            match self.span(edit.tag) {
                Some(span) => values.extend_from_slice(&self.bytes[span.start..span.value.end]),
                None => values.extend(self.element(edit.tag, edit.vr, &[])),
            }
        }
        let plain = |text: &str, max: usize| {
            let fits = text.is_ascii() && text.len() <= max && !text.contains('\\');
            if fits { padded(text.as_bytes()) } else { Vec::new() }
        };
        let reason: &[u8] = match stamp.reason {
            Reason::Coerce => b"COERCE",
            Reason::Correct => b"CORRECT ",
        };
        let mut out = self.element(tags::MODIFIED_ATTRIBUTES_SEQUENCE, VR::SQ, &self.item(&values));
        for (tag, vr, value) in [
            (tags::ATTRIBUTE_MODIFICATION_DATE_TIME, VR::DT, plain(&stamp.at, 26)),
            (tags::MODIFYING_SYSTEM, VR::LO, plain(&stamp.system, 64)),
            (tags::SOURCE_OF_PREVIOUS_VALUES, VR::LO, plain(&stamp.source, 64)),
            (tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION, VR::CS, reason.to_vec()),
        ] {
            out.extend(self.element(tag, vr, &value));
        }
        Ok(out)
    }

    /// Group lengths are retired, but where they stand they must be right.
    fn mend_group_lengths(&self, splices: &mut Vec<(u16, Splice)>) -> Result<(), CannotCorrect> {
        for span in self.spans.elements.iter().filter(|span| span.tag.element() == 0) {
            let own = splices.iter().filter(|(group, _)| *group == span.tag.group());
            let (mut more, mut less) = (0, 0);
            own.for_each(|(_, s)| (more, less) = (more + s.new.len(), less + s.gone));
            if more == less {
                continue;
            }
            let wrong = || CannotCorrect::Unclear(format!("{} is no group length", span.tag));
            let value: [u8; 4] = self.bytes[span.value.clone()].try_into().map_err(|_| wrong())?;
            let old = match self.spans.coding {
                Coding::ExplicitBig => u32::from_be_bytes(value),
                _ => u32::from_le_bytes(value),
            };
            let new = (old as usize + more).checked_sub(less).and_then(|n| u32::try_from(n).ok());
            let new = self.number(new.ok_or_else(wrong)?).to_vec();
            splices.push((span.tag.group(), Splice { at: span.value.start, gone: 4, new }));
        }
        Ok(())
    }

    fn number(&self, n: u32) -> [u8; 4] {
        match self.spans.coding {
            Coding::ExplicitBig => n.to_be_bytes(),
            _ => n.to_le_bytes(),
        }
    }

    fn short(&self, n: u16) -> [u8; 2] {
        match self.spans.coding {
            Coding::ExplicitBig => n.to_be_bytes(),
            _ => n.to_le_bytes(),
        }
    }

    fn tag(&self, out: &mut Vec<u8>, tag: Tag) {
        out.extend_from_slice(&self.short(tag.group()));
        out.extend_from_slice(&self.short(tag.element()));
    }

    /// An element of a short value, or a sequence.
    fn element(&self, tag: Tag, vr: VR, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + value.len());
        self.tag(&mut out, tag);
        let length = u32::try_from(value.len()).expect("values of ours are short");
        match (self.spans.coding, vr) {
            (Coding::ImplicitLittle, _) => out.extend_from_slice(&self.number(length)),
            (_, VR::SQ) => {
                out.extend_from_slice(b"SQ\0\0");
                out.extend_from_slice(&self.number(length));
            }
            (_, vr) => {
                out.extend_from_slice(vr.to_string().as_bytes());
                let length = u16::try_from(length).expect("values of ours are short");
                out.extend_from_slice(&self.short(length));
            }
        }
        out.extend_from_slice(value);
        out
    }

    /// An item of defined length.
    fn item(&self, elements: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + elements.len());
        self.tag(&mut out, Tag(0xFFFE, 0xE000));
        let length = u32::try_from(elements.len()).expect("what is in memory is shorter");
        out.extend_from_slice(&self.number(length));
        out.extend_from_slice(elements);
        out
    }
}

/// Whether a value says what is wanted: blanks around it, and empty parts of a name at its end, say
/// nothing.
fn same(vr: VR, old: &str, new: &str) -> bool {
    fn plain(vr: VR, text: &str) -> Cow<'_, str> {
        let text = text.trim_matches([' ', '\0']);
        match vr {
            VR::PN => {
                let groups = text.split('=').map(|g| g.trim_end_matches([' ', '^']));
                let joined = groups.collect::<Vec<_>>().join("=");
                Cow::Owned(joined.trim_end_matches('=').to_owned())
            }
            _ => Cow::Borrowed(text),
        }
    }
    plain(vr, old) == plain(vr, new)
}

/// Whether the value keeps the limits of its VR (PS3.5 6.2).
fn fits(vr: VR, value: &str) -> bool {
    let length = value.chars().count();
    match vr {
        VR::SH => length <= 16,
        VR::DA => length == 8 && value.bytes().all(|b| b.is_ascii_digit()),
        VR::CS => matches!(value, "M" | "F" | "O"),
        VR::PN => {
            let mut groups = value.split('=');
            groups.clone().count() <= 3 && groups.all(|group| group.chars().count() <= 64)
        }
        _ => length <= 64,
    }
}

#[cfg(test)]
mod tests;
