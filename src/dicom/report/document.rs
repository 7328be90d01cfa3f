//! What a document says of itself: whose it is, of which study and order, how far, by whom, and
//! what it replaces.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::encapsulated::Encapsulated;
use super::tree::Content;
use super::{Code, LIST_MAX, ReportClass, ReportError, Stage, code_of};
use crate::dicom::commitment::Reference;
use crate::dicom::dataset::{items, text};

/// The patient of a document (PS3.3 C.7.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatientFacts {
    /// Patient ID (0010,0020).
    pub id: String,
    /// Issuer of Patient ID (0010,0021).
    pub issuer: String,
    /// Universal Entity ID of the issuer (0010,0024) > (0040,0032).
    pub issuer_universal: String,
    /// Patient's Name (0010,0010): up to three representations separated by `=`.
    pub name: String,
    /// Patient's Birth Date (0010,0030).
    pub birth_date: String,
    /// Patient's Sex (0010,0040).
    pub sex: String,
}

/// A requested procedure that a document answers (0040,A370).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestFacts {
    /// Study Instance UID (0020,000D).
    pub study: String,
    /// Accession Number (0008,0050).
    pub accession: String,
    /// Issuer of Accession Number (0008,0051): local name, universal ID.
    pub accession_issuer: (String, String),
    /// Placer order number (0040,2016).
    pub placer: String,
    /// Filler order number (0040,2017).
    pub filler: String,
    /// Requested Procedure ID (0040,1001).
    pub requested_procedure: String,
}

/// Who has read, written or signed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observer {
    /// Name, as PN has it.
    pub name: String,
    /// Organization.
    pub organization: String,
    /// When it was signed (0040,A030); empty for authors.
    pub at: String,
    /// His or her code, where one is given.
    pub code: Code,
}

/// An instance that it rests on or replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Study Instance UID.
    pub study: String,
    /// Series Instance UID.
    pub series: String,
    /// The instance.
    pub reference: Reference,
}

/// Everything about a document but what it says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentFacts {
    /// SOP Class UID.
    pub sop_class: String,
    /// SOP Instance UID.
    pub sop_instance: String,
    /// Study Instance UID.
    pub study: String,
    /// Series Instance UID.
    pub series: String,
    /// Accession Number (0008,0050), and its issuer's names.
    pub accession: String,
    /// Issuer of Accession Number (0008,0051): local name, universal ID.
    pub accession_issuer: (String, String),
    /// Whose it is.
    pub patient: PatientFacts,
    /// Content Date and Time (0008,0023), (0008,0033), as they stand, one after the other.
    pub written_at: String,
    /// Timezone Offset From UTC (0008,0201).
    pub zone: String,
    /// Its title: of a structured report the root's concept name, else Document Title (0042,0010).
    pub title: Code,
    /// Language (DCM 121049), RFC 5646.
    pub language: String,
    /// Completion Flag (0040,A491).
    pub completion: String,
    /// Verification Flag (0040,A493).
    pub verification: String,
    /// Preliminary Flag (0040,A496).
    pub preliminary: String,
    /// Who has signed (0040,A073).
    pub verifiers: Vec<Observer>,
    /// Who has read or written it: (0040,A078), and person observers of the content.
    pub authors: Vec<Observer>,
    /// Documents that it replaces (0040,A360).
    pub predecessors: Vec<Evidence>,
    /// Requested procedures that it answers (0040,A370).
    pub requests: Vec<RequestFacts>,
    /// What it rests on (0040,A375), (0042,0013) and what its content refers to.
    pub evidence: Vec<Evidence>,
}

/// A document that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DicomReport {
    /// About it.
    pub facts: DocumentFacts,
    /// Its content as text; empty for an encapsulated document.
    pub text: String,
    /// What its content says in codes.
    pub codes: Vec<Code>,
    /// Names of its containers.
    pub headings: Vec<String>,
    /// Whether the text goes on beyond [`TEXT_LENGTH_MAX`](super::TEXT_LENGTH_MAX).
    pub is_cut: bool,
    /// The document within.
    pub encapsulated: Option<Encapsulated>,
}

impl DocumentFacts {
    /// How far it is; the table stands in the module.
    pub fn stage(&self) -> Stage {
        let is = |flag: &str, word: &str| flag.eq_ignore_ascii_case(word);
        let structured = ReportClass::of(&self.sop_class) == Some(ReportClass::Structured);
        let complete = is(&self.completion, "COMPLETE") || !structured;
        if is(&self.preliminary, "PRELIMINARY") || !complete {
            Stage::Preliminary
        } else if !is(&self.verification, "VERIFIED") {
            Stage::Unverified
        } else if self.predecessors.is_empty() {
            Stage::Final
        } else {
            Stage::Corrected
        }
    }
}

impl DicomReport {
    pub(super) fn of(mut set: InMemDicomObject) -> Result<Self, ReportError> {
        let sop_class = text(&set, tags::SOP_CLASS_UID);
        let class = ReportClass::of(&sop_class)
            .ok_or_else(|| ReportError::Class(sop_class.chars().take(64).collect()))?;
        let mut facts = facts(&set, sop_class);
        match class {
            ReportClass::Structured => {
                let content = Content::of(&set);
                facts.title = code_of(items(&set, tags::CONCEPT_NAME_CODE_SEQUENCE));
                facts.language = content.language;
                let authors = content.observers.into_iter();
                facts.authors.extend(authors.map(|name| Observer { name, ..Observer::default() }));
                for reference in content.references {
                    let known = facts.evidence.iter().any(|e| e.reference == reference);
                    if !known && facts.evidence.len() < LIST_MAX {
                        let (study, series) = (String::new(), String::new());
                        facts.evidence.push(Evidence { study, series, reference });
                    }
                }
                facts.authors.truncate(LIST_MAX);
                Ok(Self {
                    facts,
                    text: content.text,
                    codes: content.codes,
                    headings: content.headings,
                    is_cut: content.is_cut,
                    encapsulated: None,
                })
            }
            ReportClass::Encapsulated => {
                let encapsulated = Encapsulated::take(&mut set)?;
                let concept = code_of(items(&set, tags::CONCEPT_NAME_CODE_SEQUENCE));
                let title = text(&set, tags::DOCUMENT_TITLE);
                facts.title =
                    if title.is_empty() { concept } else { Code { meaning: title, ..concept } };
                Ok(Self {
                    facts,
                    text: String::new(),
                    codes: vec![],
                    headings: vec![],
                    is_cut: false,
                    encapsulated: Some(encapsulated),
                })
            }
        }
    }
}

/// Of all documents.
fn facts(set: &InMemDicomObject, sop_class: String) -> DocumentFacts {
    let of = |tag| text(set, tag);
    let mut evidence = evidence(set, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE);
    let sources = items(set, tags::SOURCE_INSTANCE_SEQUENCE).iter().map(Reference::of);
    let source = |reference| Evidence { study: String::new(), series: String::new(), reference };
    evidence.extend(sources.map(source));
    evidence.truncate(LIST_MAX);
    DocumentFacts {
        sop_class,
        sop_instance: of(tags::SOP_INSTANCE_UID),
        study: of(tags::STUDY_INSTANCE_UID),
        series: of(tags::SERIES_INSTANCE_UID),
        accession: of(tags::ACCESSION_NUMBER),
        accession_issuer: issuer(set, tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE),
        patient: PatientFacts {
            id: of(tags::PATIENT_ID),
            issuer: of(tags::ISSUER_OF_PATIENT_ID),
            issuer_universal: issuer(set, tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE).1,
            name: of(tags::PATIENT_NAME),
            birth_date: of(tags::PATIENT_BIRTH_DATE),
            sex: of(tags::PATIENT_SEX),
        },
        written_at: of(tags::CONTENT_DATE) + &of(tags::CONTENT_TIME),
        zone: of(tags::TIMEZONE_OFFSET_FROM_UTC),
        completion: of(tags::COMPLETION_FLAG),
        verification: of(tags::VERIFICATION_FLAG),
        preliminary: of(tags::PRELIMINARY_FLAG),
        verifiers: some(set, tags::VERIFYING_OBSERVER_SEQUENCE, verifier),
        authors: some(set, tags::AUTHOR_OBSERVER_SEQUENCE, author),
        predecessors: self::evidence(set, tags::PREDECESSOR_DOCUMENTS_SEQUENCE),
        requests: some(set, tags::REFERENCED_REQUEST_SEQUENCE, request),
        evidence,
        ..DocumentFacts::default()
    }
}

fn some<T>(set: &InMemDicomObject, tag: Tag, read: impl Fn(&InMemDicomObject) -> T) -> Vec<T> {
    items(set, tag).iter().take(LIST_MAX).map(read).collect()
}

/// Local name and universal ID of an issuer (PS3.3 10.14).
fn issuer(set: &InMemDicomObject, tag: Tag) -> (String, String) {
    let item = items(set, tag).first();
    let of = |tag| item.map(|item| text(item, tag)).unwrap_or_default();
    (of(tags::LOCAL_NAMESPACE_ENTITY_ID), of(tags::UNIVERSAL_ENTITY_ID))
}

fn verifier(item: &InMemDicomObject) -> Observer {
    Observer {
        name: text(item, tags::VERIFYING_OBSERVER_NAME),
        organization: text(item, tags::VERIFYING_ORGANIZATION),
        at: text(item, tags::VERIFICATION_DATE_TIME),
        code: code_of(items(item, tags::VERIFYING_OBSERVER_IDENTIFICATION_CODE_SEQUENCE)),
    }
}

fn author(item: &InMemDicomObject) -> Observer {
    Observer {
        name: text(item, tags::PERSON_NAME),
        organization: text(item, tags::INSTITUTION_NAME),
        at: String::new(),
        code: code_of(items(item, tags::PERSON_IDENTIFICATION_CODE_SEQUENCE)),
    }
}

fn request(item: &InMemDicomObject) -> RequestFacts {
    RequestFacts {
        study: text(item, tags::STUDY_INSTANCE_UID),
        accession: text(item, tags::ACCESSION_NUMBER),
        accession_issuer: issuer(item, tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE),
        placer: text(item, tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST),
        filler: text(item, tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST),
        requested_procedure: text(item, tags::REQUESTED_PROCEDURE_ID),
    }
}

/// Instances of a hierarchical reference (PS3.3 C.17.2.1).
fn evidence(set: &InMemDicomObject, tag: Tag) -> Vec<Evidence> {
    let mut found = Vec::new();
    for study in items(set, tag) {
        for series in items(study, tags::REFERENCED_SERIES_SEQUENCE) {
            for item in items(series, tags::REFERENCED_SOP_SEQUENCE) {
                if found.len() == LIST_MAX {
                    return found;
                }
                found.push(Evidence {
                    study: text(study, tags::STUDY_INSTANCE_UID),
                    series: text(series, tags::SERIES_INSTANCE_UID),
                    reference: Reference::of(item),
                });
            }
        }
    }
    found
}
