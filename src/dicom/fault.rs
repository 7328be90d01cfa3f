//! Why a request is refused, as its response says it (PS3.7 C).

use dicom_core::Tag;

use super::command::{ERROR_COMMENT_LENGTH_MAX, Response, status};

/// A refusal: status, the attributes it is about, and words for the person at the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Status (0000,0900).
    pub status: u16,
    /// Error ID (0000,0903).
    pub error_id: Option<u16>,
    /// Attribute Identifier List (0000,1005), as (group, element).
    pub attributes: Vec<(u16, u16)>,
    /// Error Comment (0000,0902): at most 64 characters of ASCII (VR LO), nobody's data.
    pub comment: &'static str,
}

impl Fault {
    /// With a status and a comment alone.
    pub const fn new(status: u16, comment: &'static str) -> Self {
        debug_assert!(comment.len() <= ERROR_COMMENT_LENGTH_MAX && comment.is_ascii());
        Self { status, error_id: None, attributes: vec![], comment }
    }

    /// About one attribute.
    pub fn of(status: u16, tag: Tag, comment: &'static str) -> Self {
        Self { attributes: vec![(tag.group(), tag.element())], ..Self::new(status, comment) }
    }

    /// 0110: it failed here, and may work later.
    pub const fn failed(comment: &'static str) -> Self {
        Self::new(status::PROCESSING_FAILURE, comment)
    }

    /// 0111: the instance exists already.
    pub const fn duplicate() -> Self {
        Self::new(status::DUPLICATE_SOP_INSTANCE, "this SOP instance exists already")
    }

    /// 0112: there is no such instance.
    pub const fn no_such_instance() -> Self {
        Self::new(status::NO_SUCH_SOP_INSTANCE, "there is no such SOP instance here")
    }

    /// 0110 with Error ID A710: the performed procedure step has ended (PS3.4 Table F.7.2-2, whose
    /// words these are).
    pub const fn step_is_final() -> Self {
        let mut fault = Self::failed("Performed Procedure Step Object may no longer be updated");
        fault.error_id = Some(status::ERROR_ID_STEP_IS_FINAL);
        fault
    }

    /// 0124: this peer may not.
    pub const fn not_authorized() -> Self {
        Self::new(status::NOT_AUTHORIZED, "not allowed for this peer")
    }

    /// 0213: no room now, or more than is taken.
    pub const fn no_room(comment: &'static str) -> Self {
        Self::new(status::RESOURCE_LIMITATION, comment)
    }

    /// The same in the words of C-FIND (PS3.4 C.4.1.1.4), which knows few.
    #[must_use]
    pub fn of_query(self) -> Self {
        let status = match self.status {
            status::RESOURCE_LIMITATION | status::OUT_OF_RESOURCES => status::OUT_OF_RESOURCES,
            kept @ (status::NOT_AUTHORIZED
            | status::SOP_CLASS_NOT_SUPPORTED
            | status::DATA_SET_MISMATCH) => kept,
            status::NO_SUCH_ATTRIBUTE
            | status::INVALID_ATTRIBUTE_VALUE
            | status::MISSING_ATTRIBUTE
            | status::MISSING_ATTRIBUTE_VALUE => status::DATA_SET_MISMATCH,
            _ => status::CANNOT_UNDERSTAND,
        };
        Self { status, ..self }
    }

    /// `response` with this refusal. C-FIND names its attributes as offending elements.
    pub fn answer(self, mut response: Response) -> Response {
        response.status = self.status;
        response.error_id = self.error_id;
        response.comment = self.comment.to_owned();
        if self.status >= 0xA000 {
            response.offending = self.attributes;
        } else {
            response.attributes = self.attributes;
        }
        response
    }
}
