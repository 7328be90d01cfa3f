//! Values of observations (OBX-5): text, components, documents, pointers.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::DOCUMENT_LENGTH_MAX;
use super::formatted::plain;
use crate::hl7::datatype::{Coded, components, escaped, repetitions, value};
use crate::hl7::escape::unescape;
use crate::hl7::message::{Delimiters, Piece};

/// Beginning of a document in which its kind is looked for, in bytes.
const SNIFF_LENGTH: usize = 4096;

/// What stands between the two numbers of an SN.
const SEPARATORS: [&str; 6] = ["-", "+", "/", ".", ":", "*"];

/// Base64 as senders write it: with and without padding at the end.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The value of an observation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Value {
    /// None.
    #[default]
    Nothing,
    /// TX, FT, ST: text, its lines separated by LF.
    Text(String),
    /// Anything with components (CE, CWE, NM, SN, HD, ...): repetitions of them.
    Parts(Vec<Vec<String>>),
    /// ED: a document.
    Document(Document),
    /// RP: where something is to be found, its components as they stand. Never followed.
    Pointer(Vec<String>),
}

/// What a document is, by its bytes before its label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    /// A PDF.
    Pdf,
    /// A CDA document.
    Cda,
    /// Anything else, as its label has it: `text/plain`.
    Other(String),
}

/// A document: ED (HL7 2.5 2.A.24).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub kind: DocumentKind,
    /// Its bytes, decoded.
    pub bytes: Vec<u8>,
}

/// Why a document cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("the document is not encoded as ED.4 says")]
    Encoding,
    #[error("the document is longer than {DOCUMENT_LENGTH_MAX} bytes")]
    TooLarge,
}

impl DocumentKind {
    /// Looks into the bytes; `label` (`application/pdf`) counts where they tell nothing. Bytes
    /// that are labelled as PDF or CDA and are not are neither.
    pub fn of(bytes: &[u8], label: &str) -> Self {
        let head = &bytes[..bytes.len().min(SNIFF_LENGTH)];
        let has = |what: &[u8]| head.windows(what.len()).any(|w| w == what);
        // ISO 32000-1 7.5.2 note: readers accept the header within the first 1024 bytes.
        if head.windows(5).take(1024).any(|w| w == b"%PDF-") {
            return Self::Pdf;
        }
        if has(b"<ClinicalDocument") || has(b":ClinicalDocument") {
            return Self::Cda;
        }
        Self::Other(label.chars().filter(|c| !c.is_control()).take(64).collect())
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Cda => "text/xml",
            Self::Other(label) => label,
        }
    }
}

impl Value {
    /// Reads OBX-5 of a value type.
    pub(super) fn read(
        kind: &str,
        field: Piece<'_>,
        d: &Delimiters,
    ) -> Result<Self, DocumentError> {
        if matches!(field.raw(), "" | "\"\"") {
            return Ok(Self::Nothing);
        }
        Ok(match kind {
            "TX" | "FT" | "ST" | "" => {
                Self::Text(plain(field.raw(), d, |s| unescape(s, d).into_owned()))
            }
            "ED" => Self::Document(Document::read(field, d)?),
            "RP" => Self::Pointer(parts(field.repetition(1))),
            _ => {
                let parts: Vec<_> =
                    field.repetitions().map(parts).filter(|p| !p.is_empty()).collect();
                if parts.is_empty() { Self::Nothing } else { Self::Parts(parts) }
            }
        })
    }

    /// OBX-5 of it, text in one piece with `\.br\` for its lines.
    pub(super) fn write(&self, d: &Delimiters) -> String {
        let join = |parts: &Vec<String>| {
            components(&parts.iter().map(|part| escaped(part, d)).collect::<Vec<_>>(), d)
        };
        match self {
            Self::Nothing => String::new(),
            Self::Text(text) => escaped(text, d),
            Self::Parts(all) => repetitions(all, d, join),
            Self::Document(document) => document.write(d),
            Self::Pointer(parts) => join(parts),
        }
    }

    /// As people read it; documents are not text.
    pub(super) fn shown(&self, units: &Coded) -> String {
        let words = |parts: &Vec<String>| {
            let all: Vec<&str> =
                parts.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
            all.join(" ")
        };
        match self {
            Self::Nothing | Self::Document(_) => String::new(),
            Self::Text(text) => with_units(text.clone(), units),
            Self::Pointer(parts) => words(parts),
            // Of a code (id, text, system) the text; of all else what stands there.
            Self::Parts(all) => {
                let one = |parts: &Vec<String>| match &parts[..] {
                    // SN: 100-200, 1:128 (HL7 2.5 2.A.70). No coding system is called so.
                    [_, _, separator, ..] if SEPARATORS.contains(&separator.as_str()) => {
                        parts.concat()
                    }
                    [_, text, _system, ..] if !text.is_empty() => text.clone(),
                    _ => words(parts),
                };
                with_units(all.iter().map(one).collect::<Vec<_>>().join(", "), units)
            }
        }
    }
}

fn with_units(text: String, units: &Coded) -> String {
    let unit = if units.id.is_empty() { &units.text } else { &units.id };
    if unit.is_empty() { text } else { format!("{text} {unit}") }
}

/// Components, empty ones at the end left out.
fn parts(piece: Piece<'_>) -> Vec<String> {
    let mut parts: Vec<String> = piece.components().map(value).collect();
    let used = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
    parts.truncate(used);
    parts
}

impl Document {
    /// A document of ours.
    pub fn new(bytes: Vec<u8>, label: &str) -> Self {
        Self { kind: DocumentKind::of(&bytes, label), bytes }
    }

    fn read(field: Piece<'_>, d: &Delimiters) -> Result<Self, DocumentError> {
        let [kind, subtype, encoding] = [2, 3, 4].map(|n| value(field.component(n)));
        // Unencoded data has been seen with delimiters in it: all that follows is data.
        let data = field.raw().splitn(5, d.component).nth(4).unwrap_or_default();
        let bytes = match encoding.to_ascii_uppercase().as_str() {
            "BASE64" => base64(data, d)?,
            "HEX" => hex(data).ok_or(DocumentError::Encoding)?,
            _ => unescape(data, d).into_owned().into_bytes(),
        };
        if bytes.len() > DOCUMENT_LENGTH_MAX {
            return Err(DocumentError::TooLarge);
        }
        let label = if subtype.contains('/') {
            subtype
        } else {
            [kind, subtype].join("/").to_ascii_lowercase()
        };
        Ok(Self::new(bytes, label.trim_matches('/')))
    }

    fn write(&self, d: &Delimiters) -> String {
        let (kind, subtype) = match &self.kind {
            DocumentKind::Pdf => ("Application", "PDF"),
            DocumentKind::Cda => ("Text", "text/xml"),
            DocumentKind::Other(label) => ("", label.as_str()),
        };
        let data = STANDARD.encode(&self.bytes);
        let parts =
            [String::new(), kind.to_owned(), escaped(subtype, d), "Base64".to_owned(), data];
        components(&parts, d)
    }
}

/// Base64 in lines, whichever way the sender broke them.
fn base64(data: &str, d: &Delimiters) -> Result<Vec<u8>, DocumentError> {
    // Four characters are three bytes: what cannot fit is not decoded first.
    if data.len() / 4 * 3 > DOCUMENT_LENGTH_MAX + DOCUMENT_LENGTH_MAX / 8 {
        return Err(DocumentError::TooLarge);
    }
    let plain = unescape(data, d);
    let digits: Vec<u8> = plain.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    LENIENT.decode(&digits).map_err(|_| DocumentError::Encoding)
}

fn hex(data: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = data
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structured_number_is_shown_with_both_its_numbers_and_a_code_by_its_text() {
        let shown = |parts: &[&str]| {
            let parts = parts.iter().map(|part| (*part).to_owned()).collect();
            Value::Parts(vec![parts]).shown(&Coded::default())
        };
        assert_eq!(shown(&["", "100", "-", "200"]), "100-200");
        assert_eq!(shown(&["", "1", ":", "128"]), "1:128");
        assert_eq!(shown(&["", "2", "+"]), "2+");
        assert_eq!(shown(&[">", "90"]), "> 90");
        assert_eq!(shown(&["LA9", "Mass", "LN"]), "Mass");
    }
}
