//! Encapsulated documents (PS3.3 A.45): the document within, and a new one around a document.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::write::{NewDocument, code, reference, sequence};
use super::{Code, DOCUMENT_LENGTH_MAX, ENCAPSULATED_CDA, ENCAPSULATED_PDF, LIST_MAX, ReportError};
use crate::dicom::EXPLICIT_VR_LE;
use crate::dicom::dataset::{self, DataSetError, text};
use crate::dicom::text::Repertoire;

/// What is encapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EncapsulatedKind {
    /// A PDF.
    Pdf,
    /// A CDA document.
    Cda,
}

/// The document within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encapsulated {
    /// What it is, by its SOP class.
    pub kind: EncapsulatedKind,
    /// MIME Type of Encapsulated Document (0042,0012), as it says itself.
    pub media_type: String,
    /// Its bytes; without the padding where Encapsulated Document Length (0042,0015) or the kind
    /// of document tells it.
    pub bytes: Vec<u8>,
}

impl Encapsulated {
    /// Takes the document out of its data set.
    pub(super) fn take(set: &mut InMemDicomObject) -> Result<Self, ReportError> {
        let kind = match &*text(set, tags::SOP_CLASS_UID) {
            ENCAPSULATED_CDA => EncapsulatedKind::Cda,
            _ => EncapsulatedKind::Pdf,
        };
        let media_type = text(set, tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT);
        let length: Option<usize> = text(set, tags::ENCAPSULATED_DOCUMENT_LENGTH).parse().ok();
        let element =
            set.take_element(tags::ENCAPSULATED_DOCUMENT).map_err(|_| ReportError::NoDocument)?;
        let mut bytes = match element.into_value().into_primitive() {
            Some(PrimitiveValue::U8(bytes)) => bytes.into_vec(),
            Some(value) => value.to_bytes().into_owned(),
            None => return Err(ReportError::NoDocument),
        };
        match length.filter(|n| bytes.len() - bytes.len().min(*n) <= 1 && *n > 0) {
            Some(length) => bytes.truncate(length),
            // NUL ends neither a PDF nor a text; one is padding.
            None if bytes.last() == Some(&0) => drop(bytes.pop()),
            None => {}
        }
        if bytes.is_empty() {
            return Err(ReportError::NoDocument);
        }
        if bytes.len() > DOCUMENT_LENGTH_MAX {
            return Err(ReportError::TooLarge);
        }
        Ok(Self { kind, media_type, bytes })
    }
}

impl NewDocument<'_> {
    /// The data set, Explicit VR Little Endian, of an Encapsulated PDF or CDA (PS3.3 A.45.1,
    /// A.45.2). Titles and names are written in `repertoire` where that has all of them.
    pub fn write_encapsulated(
        &self,
        kind: EncapsulatedKind,
        document: &[u8],
        repertoire: Repertoire,
    ) -> Result<Vec<u8>, DataSetError> {
        let odd = document.len() % 2;
        let length = u32::try_from(document.len()).map_err(|_| DataSetError::TooLarge)?;
        if document.len() > DOCUMENT_LENGTH_MAX {
            return Err(DataSetError::TooLarge);
        }
        let (class, media_type) = match kind {
            EncapsulatedKind::Pdf => (ENCAPSULATED_PDF, "application/pdf"),
            EncapsulatedKind::Cda => (ENCAPSULATED_CDA, "text/XML"),
        };
        let mut head = self.head(class, "DOC");
        head.put(DataElement::new(tags::CONVERSION_TYPE, VR::CS, "WSD"));
        // It names the patient on its pages.
        head.put(DataElement::new(tags::BURNED_IN_ANNOTATION, VR::CS, "YES"));
        head.put(DataElement::new(tags::ACQUISITION_DATE_TIME, VR::DT, ""));
        let name = if self.name.is_empty() { &*self.title.meaning } else { self.name };
        head.put(DataElement::new(tags::DOCUMENT_TITLE, VR::ST, name));
        let concept = if self.title.value.is_empty() { &Code::default() } else { &self.title };
        let concept = if concept.is_empty() { vec![] } else { vec![code(concept)] };
        head.put(sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, concept));
        if kind == EncapsulatedKind::Cda {
            head.put(DataElement::new(tags::HL7_INSTANCE_IDENTIFIER, VR::ST, self.uid));
        }
        let mut tail = InMemDicomObject::new_empty();
        tail.put(DataElement::new(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, VR::LO, media_type));
        let length_value = PrimitiveValue::from(length);
        tail.put(DataElement::new(tags::ENCAPSULATED_DOCUMENT_LENGTH, VR::UL, length_value));
        if !self.evidence.is_empty() {
            let sources = self.evidence.iter().take(LIST_MAX).map(|e| reference(&e.reference));
            tail.put(sequence(tags::SOURCE_INSTANCE_SEQUENCE, sources.collect()));
        }
        // The document goes between what stands before and after it, and is copied once.
        let mut out = dataset::write(&head, EXPLICIT_VR_LE, repertoire)?;
        let tail = dataset::write(&tail, EXPLICIT_VR_LE, repertoire)?;
        out.reserve(document.len() + tail.len() + 16);
        out.extend_from_slice(&[0x42, 0, 0x11, 0, b'O', b'B', 0, 0]);
        out.extend_from_slice(&(length + u32::from(odd == 1)).to_le_bytes());
        out.extend_from_slice(document);
        out.extend(std::iter::repeat_n(0, odd));
        out.extend_from_slice(&tail);
        Ok(out)
    }
}
