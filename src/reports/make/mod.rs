//! Making what a destination takes out of a version of a report: a message, a DICOM document, a
//! file. Pure: the same version gives the same bytes, the same UIDs and the same control ID, however
//! often it is made.
//!
//! ```text
//! documents of a version ─▶ merged ─▶ part ─┬▶ message   (ORU^R01 in a dialect)
//!                                           ├▶ document  (SR, encapsulated PDF or CDA)
//!                                           └▶ file      (PDF, text, CDA)
//! said: its text and sections; facts: what is known of it; template: lines that a site writes
//! ```
//!
//! What was received goes on to the byte, unless that would put it under another study or patient,
//! or leave a withdrawn report looking as if it counted: then the same is said in a new document
//! (docs/decisions/0025). Numbers, names and codes are those of the hospital's order, where there is
//! one: its systems must find their own.

mod added;
mod document;
mod facts;
mod merged;
mod message;
mod said;
mod template;

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::home::{Part, Source, Want};
use super::matching::Target;
use super::report::{FormKind, Report};
use crate::cargo::Sha256;
use crate::clock::Timestamp;
use crate::dicom::dataset::DataSetError;
use crate::dicom::report::Code;
use crate::hl7::datatype::Coded;
use crate::hl7::path::Path;
use crate::hl7::report::{ReportDialect, ResultStatus};
use crate::orders::order::Order;
use crate::orders::words::Language;

pub use added::added;
pub use merged::merged;
pub use template::{Template, TemplateError};

/// How a destination takes reports; already checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Home {
    /// In which forms.
    pub wants: BTreeSet<Want>,
    /// Whether a PDF may be made of a text.
    pub makes_pages: bool,
    /// Whether it gets preliminary reports, too.
    pub preliminary: bool,
    /// Languages of the few words that are ours, in this order; none: English.
    pub languages: Vec<Language>,
    /// Of messages.
    pub message: MessageStyle,
    /// Of documents for an archive.
    pub document: DocumentStyle,
}

/// How a destination has its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageStyle {
    /// Version, names, character set, layout.
    pub dialect: ReportDialect,
    /// What OBR-4 says.
    pub service: Service,
    /// Whether numbers name their issuers.
    pub issuers: bool,
    /// Which representation of a reader's name goes first where there is room for one: `I`, `A`
    /// or `P` of table 0465. One that the character set lacks never does.
    pub representation: &'static str,
    /// What a corrected report is called in OBR-25.
    pub corrected: ResultStatus,
    /// Lines before the text.
    pub header: Vec<Template>,
    /// Lines after it.
    pub footer: Vec<Template>,
    /// What further fields carry, of the first segment of their name.
    pub fields: Vec<(Path, Template)>,
}

/// What OBR-4 says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Service {
    /// The procedure of the order; without an order that of the report.
    #[default]
    Ordered,
    /// What the report says.
    Reported,
    /// Always this.
    Always(Coded),
}

/// How a destination has the documents that are made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentStyle {
    /// Whether text is ISO 2022 IR 87 (and IR 13) where that has all of it; else UTF-8.
    pub japanese: bool,
    /// Title: a code of CID 7000.
    pub title: Code,
    /// Institution Name (0008,0080); empty: left out.
    pub institution: String,
    /// Manufacturer (0008,0070).
    pub manufacturer: String,
}

impl Default for MessageStyle {
    fn default() -> Self {
        Self {
            dialect: ReportDialect::default(),
            service: Service::default(),
            issuers: true,
            representation: "I",
            corrected: ResultStatus::Corrected,
            header: vec![],
            footer: vec![],
            fields: vec![],
        }
    }
}

impl Default for DocumentStyle {
    fn default() -> Self {
        Self {
            japanese: false,
            title: Code::new("18748-4", "LN", "Diagnostic imaging study"),
            institution: String::new(),
            manufacturer: "hikyaku".to_owned(),
        }
    }
}

/// A document that was handed on before, which a new one replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// SOP Instance UID.
    pub uid: String,
    /// SOP Class UID.
    pub class: String,
    /// Series Instance UID; empty: that of the documents that are made here.
    pub series: String,
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
        /// Series Instance UID, for [`Before`].
        series: String,
        /// Transfer Syntax UID.
        syntax: String,
        /// The data set.
        bytes: Vec<u8>,
        /// Why one that was received was not sent as it is, if so.
        anew: Option<Anew>,
    },
    /// A file.
    File {
        /// How its name ends: `pdf`, `txt`, `xml`.
        extension: &'static str,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// Why a document that was received is said again in a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Anew {
    /// It names another study: the archive would file it there.
    #[error("it names another study")]
    Study,
    /// It names another patient.
    #[error("it names another patient")]
    Patient,
    /// It is withdrawn, and does not say so.
    #[error("it is withdrawn, and does not say so itself")]
    Withdrawn,
}

/// Why nothing was made. It will not be made by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// The form that it is to be made of is not there, or cannot be read.
    #[error("the {0} that it is made of cannot be read")]
    Form(&'static str),
    /// Longer than can be told whole, and a part of a report is not sent.
    #[error("its text is too long for {0}")]
    TooLong(&'static str),
    /// A document cannot be filed without a study.
    #[error("its study is not known, and an archive files by study")]
    NoStudy,
    /// What was received cannot go on, and there is nothing that could be said in its place.
    #[error("the document cannot be sent as it is: {0}; and nothing in it can be said anew")]
    Alone(Anew),
    /// It cannot be written.
    #[error(transparent)]
    DataSet(#[from] DataSetError),
}

impl FormKind {
    /// For people.
    fn shown(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Pdf => "PDF",
            Self::Cda => "CDA document",
            Self::Structured => "structured report",
            Self::Encapsulated => "encapsulated document",
            Self::Message => "message",
        }
    }
}

impl Task<'_> {
    /// A digest over the version, where it belongs, and `what` is made of it.
    fn digest(&self, version: bool, what: &str) -> Sha256 {
        let mut hasher = crate::cargo::Hasher::new();
        let order = self.target.order.as_ref().map(ToString::to_string).unwrap_or_default();
        let origin = self.target.origin.as_str();
        for part in ["hikyaku report", self.id, origin, &self.target.study, &order, what] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        if version {
            hasher.update(&self.version.0);
        }
        hasher.finish()
    }

    /// The bytes of a form.
    fn form(&self, kind: FormKind) -> Result<&[u8], MakeError> {
        let form = self.report.form(kind).ok_or(MakeError::Form(kind.shown()))?;
        Ok(&form.bytes)
    }
}

/// Makes one part for a destination.
///
/// # Errors
///
/// [`MakeError`]: nothing can be made of this version; a person must look.
pub fn part(task: &Task<'_>, part: &Part, home: &Home) -> Result<Made, MakeError> {
    match *part {
        Part::Message { text, pdf } => message::make(task, (text, pdf), home),
        Part::Instance { structured, from } => document::make(task, structured, from, home),
        Part::File { kind, from } => file(task, kind, from, home),
    }
}

fn file(task: &Task<'_>, kind: FormKind, from: Source, home: &Home) -> Result<Made, MakeError> {
    let (extension, bytes) = match kind {
        FormKind::Pdf if from == Source::PagesOfText => ("pdf", said::pages(task, home)?),
        FormKind::Pdf => ("pdf", task.form(kind)?.to_vec()),
        FormKind::Cda => ("xml", task.form(kind)?.to_vec()),
        _ => ("txt", said::told(task, from, home)?.into_bytes()),
    };
    Ok(Made::File { extension, bytes })
}

#[cfg(test)]
mod tests;
