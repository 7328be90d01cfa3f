//! Reports as DICOM documents: structured reports (PS3.3 A.35) and encapsulated documents (A.45),
//! read and written. Pure.
//!
//! ```text
//! data set -> document (who, what, how far, of which study) -> structured: content as text
//!                                                           -> encapsulated: its bytes
//! text, facts -> write (Basic Text SR, TID 2000), encapsulated, pdf (text as pages)
//! ```
//!
//! Reading is lenient: every structured report is read, whatever its class; what is missing is
//! empty. A data set is read from a flat stream of tokens, nested at most
//! [`dataset::DEPTH_MAX`] deep; text is at most [`TEXT_LENGTH_MAX`] bytes, documents at most
//! [`DOCUMENT_LENGTH_MAX`], lists at most [`LIST_MAX`] entries.
//!
//! How far a document is, and which flags say so when one is written, is one table
//! (docs/decisions/0022):
//!
//! | completion | verification | preliminary flag | predecessors | read as |
//! |---|---|---|---|---|
//! | any | any | PRELIMINARY | any | preliminary |
//! | PARTIAL | any | any | any | preliminary |
//! | COMPLETE | UNVERIFIED | any | any | unverified |
//! | COMPLETE | VERIFIED | not PRELIMINARY | none | final |
//! | COMPLETE | VERIFIED | not PRELIMINARY | some | corrected |
//!
//! Encapsulated documents have only the verification flag, and nothing says more: VERIFIED is
//! final, all else unverified.

mod document;
mod encapsulated;
mod pdf;
mod tree;
mod write;

use std::io::Read as _;

use dicom_object::InMemDicomObject;

pub use document::{DicomReport, DocumentFacts, Evidence, Observer, PatientFacts, RequestFacts};
pub use encapsulated::{Encapsulated, EncapsulatedKind};
pub use pdf::{PDF_PAGES_MAX, Pages};
pub use write::{Heading, NewDocument, Section};

use super::dataset::{self, DataSetError};
use super::text::Repertoire;
use super::{DEFLATED_EXPLICIT_VR_LE, EXPLICIT_VR_LE};

/// Basic Text SR Storage.
pub const BASIC_TEXT_SR: &str = "1.2.840.10008.5.1.4.1.1.88.11";

/// Encapsulated PDF Storage.
pub const ENCAPSULATED_PDF: &str = "1.2.840.10008.5.1.4.1.1.104.1";

/// Encapsulated CDA Storage.
pub const ENCAPSULATED_CDA: &str = "1.2.840.10008.5.1.4.1.1.104.2";

/// What SOP classes of structured reports begin with (PS3.6 A): .11 Basic Text, .22 Enhanced, .33
/// Comprehensive, .34 Comprehensive 3D, .35 Extensible, and more.
const STRUCTURED: &str = "1.2.840.10008.5.1.4.1.1.88.";

/// Those of them that are no reports to be read by people: logs, key objects, dose reports, plans.
const NO_REPORTS: [&str; 9] = ["40", "59", "67", "68", "70", "71", "73", "74", "76"];

/// Longest document in an encapsulated one, in bytes.
pub const DOCUMENT_LENGTH_MAX: usize = 64 << 20;

/// Longest text that is read of a structured report, in bytes.
pub const TEXT_LENGTH_MAX: usize = 4 << 20;

/// Most references, requests, observers or identifiers of a document.
pub const LIST_MAX: usize = 1_000;

/// A code of a coding scheme (PS3.3 8.8).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Code {
    /// Code Value (0008,0100), or its long or URN form.
    pub value: String,
    /// Coding Scheme Designator (0008,0102).
    pub scheme: String,
    /// Code Meaning (0008,0104).
    pub meaning: String,
}

impl Code {
    /// A code.
    pub fn new(value: &str, scheme: &str, meaning: &str) -> Self {
        let [value, scheme, meaning] = [value, scheme, meaning].map(str::to_owned);
        Self { value, scheme, meaning }
    }

    /// Whether it is this code, whatever it is called.
    pub fn is(&self, value: &str, scheme: &str) -> bool {
        self.value == value && self.scheme == scheme
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How far a document is (docs/decisions/0022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Not all of it, or not for good: HL7 P.
    Preliminary,
    /// All of it, and nobody has signed it: HL7 R.
    Unverified,
    /// All of it, and signed: HL7 F.
    Final,
    /// Signed, and in place of an earlier document: HL7 C.
    Corrected,
}

/// What kind of report a SOP class is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReportClass {
    /// A structured report.
    Structured,
    /// An encapsulated PDF or CDA document.
    Encapsulated,
}

impl ReportClass {
    /// Of an SOP class; `None` when its instances are no reports for people.
    pub fn of(sop_class: &str) -> Option<Self> {
        if [ENCAPSULATED_PDF, ENCAPSULATED_CDA].contains(&sop_class) {
            return Some(Self::Encapsulated);
        }
        let kind = sop_class.strip_prefix(STRUCTURED)?;
        (!NO_REPORTS.contains(&kind)).then_some(Self::Structured)
    }
}

/// Why a data set is no report that can be read. The bytes are kept all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It cannot be read as a data set.
    #[error(transparent)]
    DataSet(#[from] DataSetError),
    /// Its SOP class is none of reports; the class.
    #[error("SOP class {0:?} is none of reports")]
    Class(String),
    /// An encapsulated document without a document.
    #[error("it encapsulates no document")]
    NoDocument,
    /// Its document is longer than [`DOCUMENT_LENGTH_MAX`].
    #[error("its document is longer than {DOCUMENT_LENGTH_MAX} bytes")]
    TooLarge,
}

/// Reads a report from the data set `bytes` in `syntax`: Implicit, Explicit or deflated Explicit VR
/// Little Endian.
pub fn read(bytes: &[u8], syntax: &str) -> Result<DicomReport, ReportError> {
    // Room for the header beside the document.
    let most = DOCUMENT_LENGTH_MAX + dataset::DATA_SET_LENGTH_MAX;
    let set = if syntax == DEFLATED_EXPLICIT_VR_LE {
        let mut plain = Vec::new();
        let mut inflater = flate2::read::DeflateDecoder::new(bytes).take(most as u64 + 1);
        let failed = |e: std::io::Error| DataSetError::Unreadable(e.kind().to_string());
        inflater.read_to_end(&mut plain).map_err(failed)?;
        dataset::read_within(&plain, EXPLICIT_VR_LE, most)?
    } else {
        dataset::read_within(bytes, syntax, most)?
    };
    DicomReport::of(set)
}

/// The first value of a code sequence.
fn code_of(items: &[InMemDicomObject]) -> Code {
    use dicom_dictionary_std::tags;
    let Some(item) = items.first() else { return Code::default() };
    let text = |tag| dataset::text(item, tag);
    let values = [tags::CODE_VALUE, tags::LONG_CODE_VALUE, tags::URN_CODE_VALUE];
    let value = values.into_iter().map(text).find(|v| !v.is_empty()).unwrap_or_default();
    let [scheme, meaning] = [tags::CODING_SCHEME_DESIGNATOR, tags::CODE_MEANING].map(text);
    Code { value, scheme, meaning }
}

/// The repertoire that a site's PACS is written to in.
pub fn repertoire(japanese: bool) -> Repertoire {
    if japanese { Repertoire::JIS } else { Repertoire::UTF8 }
}

#[cfg(test)]
mod tests;
