//! A report as it arrives: one document, in one or several forms.
//!
//! This is the body of cargo of kind `Report`: a CBOR map with integer keys (docs/decisions/0003),
//! in which the forms stand as they were received, so that nothing is lost by carrying it. What is
//! remembered of a report beside its cargo is an [`Arrival`](super::versions::Arrival).
//!
//! Limits: [`FORMS_MAX`] forms, [`BYTES_MAX`] bytes of all of them, [`LIST_MAX`] entries of each
//! list, [`TEXT_MAX`] bytes of each name; [`Report::decode`] takes no more.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::cargo::{Sha256, peer_text};
use crate::clock::Timestamp;
use crate::orders::identifier::{Identifier, Patient};

/// Most forms of one document.
pub const FORMS_MAX: usize = 8;
/// Most bytes of all forms of one document.
pub const BYTES_MAX: usize = 96 << 20;
/// Most entries of each list.
pub const LIST_MAX: usize = 1_000;
/// Longest name, number or title in bytes.
pub const TEXT_MAX: usize = crate::cargo::TEXT_LENGTH_MAX;

/// How far a report is. What HL7 and DICOM call these stands in docs/decisions/0022.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Status {
    /// An early result.
    #[n(0)]
    Preliminary,
    /// The result.
    #[n(1)]
    Final,
    /// In place of a final one, or added to it.
    #[n(2)]
    Corrected,
    /// Withdrawn.
    #[n(3)]
    Cancelled,
}

impl Status {
    /// The word that documents and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preliminary => "preliminary",
            Self::Final => "final",
            Self::Corrected => "corrected",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a form is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum FormKind {
    /// UTF-8, lines separated by LF.
    #[n(0)]
    Text,
    /// A PDF.
    #[n(1)]
    Pdf,
    /// A CDA document.
    #[n(2)]
    Cda,
    /// The data set of a structured report.
    #[n(3)]
    Structured,
    /// The data set of an encapsulated PDF or CDA; that document stands beside it as a form.
    #[n(4)]
    Encapsulated,
    /// An ORU^R01 message as it came; what it says stands beside it.
    #[n(5)]
    Message,
}

impl FormKind {
    /// Whether it is what the sender wrote, rather than the envelope that it came in.
    pub fn is_content(self) -> bool {
        !matches!(self, Self::Encapsulated | Self::Message)
    }
}

/// A report in one form.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Form {
    /// What it is.
    #[n(0)]
    pub kind: FormKind,
    /// Digest of its bytes.
    #[n(1)]
    pub digest: Sha256,
    /// Of a data set its transfer syntax, else empty.
    #[n(2)]
    pub syntax: String,
    /// Of a data set its SOP class, else empty.
    #[n(3)]
    pub sop_class: String,
    /// Its bytes, as received.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// Whether this node has made it out of another form.
    #[n(5)]
    pub is_derived: bool,
}

/// Without its bytes: they are a patient's.
impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {} bytes, {}", self.kind, self.bytes.len(), self.digest)
    }
}

impl Form {
    /// A form that has no syntax and no class.
    pub fn new(kind: FormKind, bytes: Vec<u8>) -> Self {
        let digest = Sha256::of(&bytes);
        let (syntax, sop_class) = (String::new(), String::new());
        Self { kind, digest, syntax, sop_class, bytes, is_derived: false }
    }

    /// A data set.
    pub fn data_set(kind: FormKind, bytes: Vec<u8>, sop_class: &str, syntax: &str) -> Self {
        let (sop_class, syntax) = (sop_class.to_owned(), syntax.to_owned());
        Self { sop_class, syntax, ..Self::new(kind, bytes) }
    }

    /// What this node has made out of another form.
    #[must_use]
    pub fn derived(self) -> Self {
        Self { is_derived: true, ..self }
    }
}

/// Who has read or signed.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize,
)]
#[cbor(map)]
pub struct Reader {
    /// A number, with who gave it.
    #[n(0)]
    pub id: Identifier,
    /// Name, components separated by `^`, representations by `=`.
    #[n(1)]
    pub name: String,
    /// Organization.
    #[n(2)]
    pub organization: String,
    /// When he or she signed.
    #[n(3)]
    pub at: Option<Timestamp>,
}

/// What identifies the document, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Identifiers {
    /// The document: SOP Instance UID, or what the sender calls it. The same for all forms of one
    /// version.
    #[n(0)]
    pub document: String,
    /// Placer order number.
    #[n(1)]
    pub placer: Option<Identifier>,
    /// Filler order number.
    #[n(2)]
    pub filler: Option<Identifier>,
    /// Accession numbers with their issuers.
    #[n(3)]
    pub accessions: Vec<Identifier>,
    /// Study Instance UIDs.
    #[n(4)]
    pub studies: Vec<String>,
    /// SOP Instance UIDs that it rests on.
    #[n(5)]
    pub instances: Vec<String>,
    /// Documents that it replaces.
    #[n(6)]
    pub predecessors: Vec<String>,
}

/// A report as it arrives.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Report {
    /// Which, and of what.
    #[n(0)]
    pub ids: Identifiers,
    /// How far.
    #[n(1)]
    pub status: Status,
    /// Whether a person is named who signs for it.
    #[n(2)]
    pub is_signed: bool,
    /// Of whom.
    #[n(3)]
    pub patient: Patient,
    /// Title.
    #[n(4)]
    pub title: String,
    /// Language, RFC 5646.
    #[n(5)]
    pub language: String,
    /// Who has read it.
    #[n(6)]
    pub authors: Vec<Reader>,
    /// Who has signed it.
    #[n(7)]
    pub verifiers: Vec<Reader>,
    /// When it was written, as its sender says.
    #[n(8)]
    pub written_at: Option<Timestamp>,
    /// Why it is critical; empty when it is not.
    #[n(9)]
    pub critical: Vec<super::critical::Reason>,
    /// The forms.
    #[n(10)]
    pub forms: Vec<Form>,
    /// The AE title, HL7 application or system that sent it.
    #[n(11)]
    pub source: String,
    /// Whether it brings only what it adds to a final report, and not that again.
    #[n(12)]
    #[cbor(default)]
    pub is_addendum: bool,
}

/// Why bytes are no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no such CBOR map.
    #[error("it cannot be read as a report")]
    Unreadable,
    /// More than the limits of this module.
    #[error("the report has more forms, bytes or entries than are taken")]
    TooLarge,
    /// The bytes of a form are not those that its digest names.
    #[error("a form of the report is not what its digest says")]
    Digest,
}

impl Report {
    /// The bytes that are carried.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory does not fail")
    }

    /// Reads what was carried, within the limits, every form checked against its digest.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        // Names and lists beside the forms.
        if bytes.len() > BYTES_MAX + (8 << 20) {
            return Err(DecodeError::TooLarge);
        }
        let report: Self = minicbor::decode(bytes).map_err(|_| DecodeError::Unreadable)?;
        if !report.is_within_limits() {
            return Err(DecodeError::TooLarge);
        }
        let whole = report.forms.iter().all(|form| Sha256::of(&form.bytes) == form.digest);
        if whole { Ok(report) } else { Err(DecodeError::Digest) }
    }

    fn is_within_limits(&self) -> bool {
        let ids = &self.ids;
        let lists = [
            ids.accessions.len(),
            ids.studies.len(),
            ids.instances.len(),
            ids.predecessors.len(),
            self.authors.len(),
            self.verifiers.len(),
            self.critical.len(),
            self.patient.ids.len(),
            self.patient.names.len(),
        ];
        let bytes: usize = self.forms.iter().map(|form| form.bytes.len()).sum();
        let short = [&ids.document, &self.title, &self.language, &self.source];
        self.forms.len() <= FORMS_MAX
            && bytes <= BYTES_MAX
            && lists.iter().all(|n| *n <= LIST_MAX)
            && short.iter().all(|text| text.len() <= TEXT_MAX)
    }

    /// Cuts what a peer sent to the limits of lists and names. Forms are the caller's to refuse.
    pub fn bound(&mut self) {
        let ids = &mut self.ids;
        for list in [&mut ids.studies, &mut ids.instances, &mut ids.predecessors] {
            list.truncate(LIST_MAX);
            list.iter_mut().for_each(|text| *text = peer_text(text));
        }
        ids.accessions.truncate(LIST_MAX);
        for text in [&mut ids.document, &mut self.title, &mut self.language, &mut self.source] {
            *text = peer_text(text);
        }
        for readers in [&mut self.authors, &mut self.verifiers] {
            readers.truncate(LIST_MAX);
            readers.iter_mut().for_each(|reader| reader.name = peer_text(&reader.name));
        }
        self.critical.truncate(LIST_MAX);
        self.patient.ids.truncate(LIST_MAX);
        self.patient.names.truncate(LIST_MAX);
    }

    /// The first form of a kind.
    pub fn form(&self, kind: FormKind) -> Option<&Form> {
        self.forms.iter().find(|form| form.kind == kind)
    }

    /// The report as text, whichever form it came in; `None` when only a document says it.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.form(FormKind::Text)?.bytes).ok()
    }

    /// What identifies this document: a digest over what its sender sent, and nothing that this
    /// node made or that differs between two sendings of the same (the message around it).
    pub fn digest(&self) -> Sha256 {
        let mut hasher = crate::cargo::Hasher::new();
        hasher.update(&[self.status as u8]);
        hasher.update(self.ids.document.as_bytes());
        if self.ids.document.is_empty() {
            // Without an id only the time tells a correction that takes another one back from the
            // first report sent again.
            let written = self.written_at.map_or(0, |at| at.0);
            hasher.update(&written.to_be_bytes());
        }
        let own = self.forms.iter().filter(|form| !form.is_derived && form.kind.is_content());
        let mut digests: Vec<Sha256> = own.map(|form| form.digest).collect();
        // Sent within an envelope alone: then the envelope is what there is.
        if digests.is_empty() {
            digests.extend(self.forms.iter().map(|form| form.digest));
        }
        digests.sort_unstable();
        digests.iter().for_each(|digest| hasher.update(&digest.0));
        hasher.finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report of a study, in one form.
    pub(crate) fn report(status: Status, form: Form) -> Report {
        Report {
            ids: Identifiers { studies: vec!["1.2.3".into()], ..Identifiers::default() },
            status,
            is_signed: true,
            patient: Patient { ids: vec![Identifier::of("4711", "EAST")], ..Patient::default() },
            title: "CT".into(),
            language: "ja".into(),
            authors: vec![],
            verifiers: vec![Reader { name: "DOKUEI^I".into(), ..Reader::default() }],
            written_at: Some(Timestamp(1_000)),
            critical: vec![],
            forms: vec![form],
            source: "RIS".into(),
            is_addendum: false,
        }
    }

    #[test]
    fn a_report_is_carried_as_it_is_and_a_changed_form_is_noticed() {
        let mut carried = report(Status::Final, Form::new(FormKind::Text, "骨 像 ソ".into()));
        carried.forms.push(Form::new(FormKind::Pdf, b"%PDF-1.7".to_vec()).derived());
        let bytes = carried.encode();
        assert_eq!(Report::decode(&bytes), Ok(carried.clone()));
        assert_eq!(carried.text(), Some("骨 像 ソ"));
        let at = bytes.windows(4).position(|w| w == b"%PDF").unwrap();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert_eq!(Report::decode(&flipped), Err(DecodeError::Digest));
        assert_eq!(Report::decode(&bytes[..40]), Err(DecodeError::Unreadable));
        let mut many = carried.clone();
        many.forms = vec![Form::new(FormKind::Text, vec![]); FORMS_MAX + 1];
        assert_eq!(Report::decode(&many.encode()), Err(DecodeError::TooLarge));
    }

    #[test]
    fn the_same_document_sent_twice_is_the_same_whatever_it_is_wrapped_in() {
        let text = || Form::new(FormKind::Text, b"a".to_vec());
        let mut one = report(Status::Final, text());
        one.forms.push(Form::new(FormKind::Message, b"MSH 1".to_vec()));
        let mut two = report(Status::Final, text());
        two.forms.insert(0, Form::new(FormKind::Message, b"MSH 2".to_vec()));
        two.forms.push(Form::new(FormKind::Pdf, b"made here".to_vec()).derived());
        assert_eq!(one.digest(), two.digest());
        assert_ne!(one.digest(), report(Status::Corrected, text()).digest());
        two.written_at = Some(Timestamp(2_000));
        assert_ne!(one.digest(), two.digest(), "what is written again is said again");
        (one.ids.document, two.ids.document) = ("1.2".into(), "1.2".into());
        assert_eq!(one.digest(), two.digest());
        let only = |m: &[u8]| report(Status::Final, Form::new(FormKind::Message, m.to_vec()));
        assert_ne!(only(b"MSH 1").digest(), only(b"MSH 2").digest());
    }
}
