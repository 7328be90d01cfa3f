//! One condition of a rule: a field and the patterns of which one must match.
//!
//! Matching ignores case everywhere: AE titles and code strings are upper case by convention and
//! typed in either, and no attribute that a rule can name means another thing in lower case. `*`
//! stands for any characters or none, `?` for exactly one (PS3.4 C.2.2.2.4). An absent value is
//! the empty text, so `""` asks for "absent or empty" and `"?*"` for "has a value".

use std::fmt;
use std::sync::LazyLock;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, TagRange, UidDictionary};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, StandardSopClassDictionary};

use super::{PATTERN_LENGTH_MAX, Subject};

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The AE title that the cargo was sent to at its origin.
    CalledAe,
    /// The AE title that sent it to its origin.
    CallingAe,
    /// Modality (0008,0060), from the envelope.
    Modality,
    /// The node that first took it into custody.
    Origin,
    /// SOP Class UID.
    SopClass,
    /// An element of the header.
    Attribute(Attribute),
}

/// A header element that a rule may name: top-level, of a single tag, with a value that is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    keyword: &'static str,
    tag: Tag,
    vr: VR,
}

/// Why no rule can ask for an attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The data dictionary (PS3.6) has no such keyword.
    #[error("no DICOM attribute has the keyword '{keyword}'")]
    Unknown {
        /// What was asked for.
        keyword: String,
        /// The keyword that looks most like it.
        nearest: Option<&'static str>,
    },
    /// File meta information, command elements and pixel data are not in the header that is read.
    #[error("'{0}' is not in the header of an image")]
    NotInHeader(&'static str),
    /// A sequence, binary data, or a repeating group.
    #[error("'{0}' has no single value of text that could be compared")]
    NotText(&'static str),
}

impl Attribute {
    /// The attribute with this keyword, such as `BodyPartExamined` (PS3.6 6).
    pub fn new(keyword: &str) -> Result<Self, FieldError> {
        let Some(entry) = StandardDataDictionary.by_name(keyword) else {
            let nearest = nearest_keyword(keyword);
            return Err(FieldError::Unknown { keyword: keyword.into(), nearest });
        };
        let keyword = entry.alias;
        let TagRange::Single(tag) = entry.tag_range() else {
            return Err(FieldError::NotText(keyword));
        };
        if !(0x0008..0x7FE0).contains(&tag.group()) {
            return Err(FieldError::NotInHeader(keyword));
        }
        let vr = entry.vr().relaxed();
        let binary = matches!(
            vr,
            VR::SQ | VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN | VR::AT
        );
        if binary {
            return Err(FieldError::NotText(keyword));
        }
        Ok(Self { keyword, tag, vr })
    }

    /// Its keyword.
    pub fn keyword(&self) -> &'static str {
        self.keyword
    }

    /// Its tag.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// Whether its value may say who the patient is. What is not known to be harmless counts as
    /// identifying: free text, dates and names are; codes, numbers, UIDs and what describes the
    /// equipment are not, outside the patient and visit groups.
    pub fn is_identifying(&self) -> bool {
        const HARMLESS: [&str; 9] = [
            "InstitutionName",
            "InstitutionalDepartmentName",
            "Manufacturer",
            "ManufacturerModelName",
            "ProtocolName",
            "SeriesDescription",
            "SoftwareVersions",
            "StationName",
            "StudyDescription",
        ];
        let coded = matches!(
            self.vr,
            VR::AE | VR::CS | VR::DS | VR::FD | VR::FL | VR::IS | VR::SL | VR::SS | VR::UI
        ) || matches!(self.vr, VR::UL | VR::US | VR::SV | VR::UV);
        let of_patient = matches!(self.tag.group(), 0x0010 | 0x0038);
        of_patient || !(coded || HARMLESS.contains(&self.keyword))
    }
}

/// Groups in which headers keep the attributes that rules ask for.
const HEADER_GROUPS: [u16; 12] = [
    0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0032, 0x0038, 0x0040, 0x0054, 0x3006, 0x300A,
];

/// The keywords of [`HEADER_GROUPS`]. The dictionary cannot be iterated: it is asked for every tag,
/// once, and only when a message about a mistake needs it.
static HEADER_KEYWORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let tags = HEADER_GROUPS
        .into_iter()
        .flat_map(|group| (1..=u16::MAX).map(move |element| Tag(group, element)));
    tags.filter_map(|tag| StandardDataDictionary.by_tag(tag)).map(|entry| entry.alias).collect()
});

/// The keyword that looks most like a wrong one; `None` when none is near.
fn nearest_keyword(wrong: &str) -> Option<&'static str> {
    const LIKENESS_MIN: f64 = 0.85;
    HEADER_KEYWORDS
        .iter()
        .map(|keyword| (strsim::jaro_winkler(keyword, wrong), *keyword))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, alias)| alias)
}

impl Field {
    /// Its name in configuration and explanations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CalledAe => "called_ae",
            Self::CallingAe => "calling_ae",
            Self::Modality => "modality",
            Self::Origin => "origin",
            Self::SopClass => "sop_class",
            Self::Attribute(attribute) => attribute.keyword,
        }
    }

    /// Whether its value may say who the patient is.
    pub fn is_identifying(&self) -> bool {
        matches!(self, Self::Attribute(attribute) if attribute.is_identifying())
    }

    /// Its value; `None` when the subject has none.
    pub(super) fn value(&self, subject: &Subject<'_>) -> Option<String> {
        let envelope = subject.envelope;
        match self {
            Self::CalledAe => Some(envelope.called_ae.clone()),
            Self::CallingAe => Some(envelope.calling_ae.clone()),
            Self::Modality => Some(envelope.modality.clone()),
            Self::Origin => Some(envelope.identity.origin.as_str().into()),
            Self::SopClass => Some(envelope.sop_class.clone()),
            Self::Attribute(attribute) => (subject.attribute)(attribute.keyword),
        }
    }
}

/// A text with wildcards.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    written: String,
    folded: Vec<char>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`PATTERN_LENGTH_MAX`].
    #[error("a pattern has at most {PATTERN_LENGTH_MAX} bytes")]
    Length,
    /// Control characters stand in no value that could match.
    #[error("a pattern has no control characters")]
    Character,
    /// Neither a UID nor the keyword of a SOP class.
    #[error("'{0}' is neither a UID nor the keyword of a SOP class of the standard")]
    SopClass(String),
}

impl Pattern {
    /// The pattern as written.
    pub fn new(written: &str) -> Result<Self, PatternError> {
        if written.len() > PATTERN_LENGTH_MAX {
            return Err(PatternError::Length);
        }
        if written.chars().any(char::is_control) {
            return Err(PatternError::Character);
        }
        Ok(Self { written: written.into(), folded: fold(written.trim()) })
    }

    /// A pattern for SOP classes: a UID, which may have wildcards, or a keyword such as
    /// `CTImageStorage` (PS3.6 A), which stands for its UID.
    pub fn sop_class(written: &str) -> Result<Self, PatternError> {
        let pattern = Self::new(written)?;
        if written.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '*' | '?')) {
            return Ok(pattern);
        }
        let entry = StandardSopClassDictionary
            .by_keyword(written)
            .ok_or_else(|| PatternError::SopClass(written.into()))?;
        Ok(Self { written: written.into(), folded: fold(entry.uid) })
    }

    /// Whether the whole value matches.
    pub fn matches(&self, value: &str) -> bool {
        glob(&self.folded, &fold(value.trim_matches([' ', '\0'])))
    }

    /// The pattern as the configuration has it.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.written)
    }
}

impl serde::Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

fn fold(s: &str) -> Vec<char> {
    s.chars().flat_map(char::to_lowercase).collect()
}

/// Greedy matching that goes back to the latest `*` only: every earlier one has already done all
/// that it could.
fn glob(pattern: &[char], value: &[char]) -> bool {
    let (mut p, mut v) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while v < value.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, v));
                p += 1;
            }
            Some(&c) if c == '?' || c == value[v] => {
                p += 1;
                v += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    v = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// A field and the patterns of which one must match.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Condition {
    /// What is looked at.
    #[serde(serialize_with = "field_name")]
    pub field: Field,
    /// One of these must match. A value of several (separated by a backslash) matches when the
    /// whole or any one of them does.
    pub patterns: Vec<Pattern>,
}

fn field_name<S: serde::Serializer>(field: &Field, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(field.name())
}

impl Condition {
    /// Whether the subject meets the condition.
    pub fn holds(&self, subject: &Subject<'_>) -> bool {
        self.holds_for(self.field.value(subject).as_deref())
    }

    pub(super) fn holds_for(&self, value: Option<&str>) -> bool {
        let whole = value.unwrap_or_default();
        let several = whole.contains('\\');
        self.patterns.iter().any(|pattern| {
            pattern.matches(whole)
                || several && whole.split('\\').any(|single| pattern.matches(single))
        })
    }
}
