//! DICOM as this node needs it: identifiers, command sets, upper-layer framing, and the header
//! elements that routing asks for. Pure: bytes in, values out; no sockets, no files, no clock.
//!
//! Everything here reads bytes of strangers. No function panics on any input, recurses into
//! nested data, or allocates from a length that the bytes merely claim.

pub mod availability;

pub mod command;

pub mod commitment;

pub mod correct;

pub mod dataset;

pub mod fault;

pub mod header;

pub mod pdata;

pub mod performed;

pub mod report;

pub mod text;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest AE title in characters (PS3.5 6.2, VR AE).
pub const AE_TITLE_LENGTH_MAX: usize = 16;

/// Longest UID in characters (PS3.5 9).
pub const UID_LENGTH_MAX: usize = 64;

/// Implementation Class UID that this program names in associations and files (PS3.7 D.3.3.2).
/// Under 2.25, from a random UUID, as PS3.5 B.2 allows.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.311338013030963988800045628478127152613";

/// Implementation Version Name (PS3.7 D.3.3.2), at most 16 characters.
pub const IMPLEMENTATION_VERSION_NAME: &str = "HIKYAKU_0_1";

/// The DICOM application context, the only one there is (PS3.7 A.2.1).
pub const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

/// Verification SOP class (PS3.4 A).
pub const VERIFICATION: &str = "1.2.840.10008.1.1";

/// Modality Performed Procedure Step SOP class (PS3.4 F.7).
pub const PERFORMED_STEP: &str = "1.2.840.10008.3.1.2.3.3";

/// Storage Commitment Push Model SOP class (PS3.4 J.3).
pub const STORAGE_COMMITMENT: &str = "1.2.840.10008.1.20.1";

/// The one instance of [`STORAGE_COMMITMENT`] (PS3.4 J.3.5).
pub const STORAGE_COMMITMENT_INSTANCE: &str = "1.2.840.10008.1.20.1.1";

/// Instance Availability Notification SOP class (PS3.4 R).
pub const INSTANCE_AVAILABILITY: &str = "1.2.840.10008.5.1.4.33";

/// Modality Worklist Information Model - FIND SOP class (PS3.4 K).
pub const MODALITY_WORKLIST: &str = "1.2.840.10008.5.1.4.31";

/// Study Root Query/Retrieve Information Model - FIND SOP class (PS3.4 C.6.2).
pub const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";

/// Study Root Query/Retrieve Information Model - MOVE SOP class.
pub const STUDY_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";

/// Study Root Query/Retrieve Information Model - GET SOP class.
pub const STUDY_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";

/// Transfer syntax Implicit VR Little Endian (PS3.5 A.1), the default that every AE supports.
pub const IMPLICIT_VR_LE: &str = "1.2.840.10008.1.2";

/// Transfer syntax Explicit VR Little Endian (PS3.5 A.2).
pub const EXPLICIT_VR_LE: &str = "1.2.840.10008.1.2.1";

/// Transfer syntax Deflated Explicit VR Little Endian (PS3.5 A.5).
pub const DEFLATED_EXPLICIT_VR_LE: &str = "1.2.840.10008.1.2.1.99";

/// Transfer syntax Explicit VR Big Endian (retired, PS3.5 2016b A.3).
pub const EXPLICIT_VR_BE: &str = "1.2.840.10008.1.2.2";

/// Whether `s` can be a UID: 1 to 64 characters, digits and dots (PS3.5 9). Component rules
/// (no leading zeros, root 0 to 2) are not tested: devices in the field break them.
pub fn is_uid(s: &str) -> bool {
    (1..=UID_LENGTH_MAX).contains(&s.len()) && s.bytes().all(|c| c.is_ascii_digit() || c == b'.')
}

/// Text of a UI value without its padding (PS3.5 9.1: NUL; seen in the field: blanks).
pub fn trim_uid(s: &str) -> &str {
    s.trim_matches(['\0', ' '])
}

/// Why a text is no AE title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AeTitleError {
    /// Nothing but blanks, or more than [`AE_TITLE_LENGTH_MAX`] characters.
    #[error("an AE title has 1 to {AE_TITLE_LENGTH_MAX} characters")]
    Length,
    /// A control character, a backslash, or a character outside ISO 646.
    #[error("an AE title is made of printable ASCII characters, without the backslash")]
    Character,
}

/// An application entity title (PS3.5 6.2, VR AE), without surrounding blanks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AeTitle(Arc<str>);

impl AeTitle {
    /// The title as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AeTitle {
    type Err = AeTitleError;

    fn from_str(s: &str) -> Result<Self, AeTitleError> {
        let s = s.trim_matches(' ');
        if s.is_empty() || s.chars().count() > AE_TITLE_LENGTH_MAX {
            return Err(AeTitleError::Length);
        }
        if !s.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'\\') {
            return Err(AeTitleError::Character);
        }
        Ok(Self(s.into()))
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for AeTitle {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for AeTitle {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ae_title_has_no_control_character_no_backslash_and_at_most_sixteen_characters() {
        assert_eq!(" CT1 ".parse::<AeTitle>().unwrap().as_str(), "CT1");
        assert_eq!("A B.c-1_x/2345678".parse::<AeTitle>(), Err(AeTitleError::Length));
        assert_eq!("   ".parse::<AeTitle>(), Err(AeTitleError::Length));
        for bad in ["A\\B", "A\nB", "A\0", "Ä", "\u{1b}[2J"] {
            assert_eq!(bad.parse::<AeTitle>(), Err(AeTitleError::Character), "{bad:?}");
        }
    }

    #[test]
    fn a_uid_is_digits_and_dots_and_at_most_64_of_them() {
        assert!(is_uid("1.2.840.10008.1.1"));
        assert!(is_uid(&"1".repeat(64)));
        for bad in ["", "1.2.a", "../1", "1.2 ", &"1".repeat(65)] {
            assert!(!is_uid(bad), "{bad:?}");
        }
        assert_eq!(trim_uid(" 1.2\0\0"), "1.2");
    }

    #[test]
    fn our_own_identifiers_keep_the_standards_limits() {
        assert!(is_uid(IMPLEMENTATION_CLASS_UID));
        let number = IMPLEMENTATION_CLASS_UID.strip_prefix("2.25.").unwrap();
        assert!(number.parse::<u128>().is_ok() && !number.starts_with('0'));
        assert!(IMPLEMENTATION_VERSION_NAME.len() <= 16);
    }
}
