//! DIMSE command sets (PS3.7 6.3, 9.3, 10.3, E): Implicit VR Little Endian, group 0000, flat.
//!
//! A command set is read whole; it is at most [`COMMAND_LENGTH_MAX`] bytes long (real ones have
//! 100 to 300). Elements that a message does not need are skipped, an element that appears twice
//! counts the first time, and order does not matter: devices differ, and nothing hangs on it.

use std::collections::BTreeMap;

/// Longest command set that is read, in bytes.
pub const COMMAND_LENGTH_MAX: usize = 64 * 1024;

/// Longest Error Comment (0000,0902) in characters (VR LO).
pub const ERROR_COMMENT_LENGTH_MAX: usize = 64;

/// Command Field values (PS3.7 E.1).
pub mod field {
    /// C-STORE-RQ.
    pub const C_STORE_RQ: u16 = 0x0001;
    /// C-STORE-RSP.
    pub const C_STORE_RSP: u16 = 0x8001;
    /// C-ECHO-RQ.
    pub const C_ECHO_RQ: u16 = 0x0030;
    /// C-ECHO-RSP.
    pub const C_ECHO_RSP: u16 = 0x8030;
    /// C-CANCEL-RQ, the one request that has no answer.
    pub const C_CANCEL_RQ: u16 = 0x0FFF;
    /// The bit that makes a response of a request.
    pub const RESPONSE: u16 = 0x8000;
}

/// Status values (PS3.7 C, PS3.4 B.2.3).
pub mod status {
    /// Success.
    pub const SUCCESS: u16 = 0x0000;
    /// Processing failure.
    pub const PROCESSING_FAILURE: u16 = 0x0110;
    /// Invalid SOP instance: the UID violates the construction rules.
    pub const INVALID_SOP_INSTANCE: u16 = 0x0117;
    /// SOP class not supported.
    pub const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
    /// Not authorized.
    pub const NOT_AUTHORIZED: u16 = 0x0124;
    /// Duplicate invocation: the message ID is in use.
    pub const DUPLICATE_INVOCATION: u16 = 0x0210;
    /// Unrecognized operation.
    pub const UNRECOGNIZED_OPERATION: u16 = 0x0211;
    /// Mistyped argument.
    pub const MISTYPED_ARGUMENT: u16 = 0x0212;
    /// C-STORE refused: out of resources.
    pub const OUT_OF_RESOURCES: u16 = 0xA700;
    /// C-STORE error: data set does not match SOP class (or the command's identifiers).
    pub const DATA_SET_MISMATCH: u16 = 0xA900;
    /// C-STORE error: cannot understand.
    pub const CANNOT_UNDERSTAND: u16 = 0xC000;
}

/// Command Data Set Type (0000,0800) that says that no data set follows.
const NO_DATA_SET: u16 = 0x0101;

/// Element numbers in group 0000 (PS3.7 E.1).
mod element {
    pub(super) const GROUP_LENGTH: u16 = 0x0000;
    pub(super) const AFFECTED_SOP_CLASS: u16 = 0x0002;
    pub(super) const REQUESTED_SOP_CLASS: u16 = 0x0003;
    pub(super) const COMMAND_FIELD: u16 = 0x0100;
    pub(super) const MESSAGE_ID: u16 = 0x0110;
    pub(super) const MESSAGE_ID_RESPONDED: u16 = 0x0120;
    pub(super) const PRIORITY: u16 = 0x0700;
    pub(super) const DATA_SET_TYPE: u16 = 0x0800;
    pub(super) const STATUS: u16 = 0x0900;
    pub(super) const OFFENDING_ELEMENT: u16 = 0x0901;
    pub(super) const ERROR_COMMENT: u16 = 0x0902;
    pub(super) const AFFECTED_SOP_INSTANCE: u16 = 0x1000;
    pub(super) const REQUESTED_SOP_INSTANCE: u16 = 0x1001;
    pub(super) const MOVE_ORIGINATOR_AE: u16 = 0x1030;
    pub(super) const MOVE_ORIGINATOR_ID: u16 = 0x1031;
}

/// Why bytes are no command set that can be acted on. All of them end the association: without
/// a readable command set there is no message ID to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Longer than [`COMMAND_LENGTH_MAX`].
    #[error("command set longer than {COMMAND_LENGTH_MAX} bytes")]
    TooLong,
    /// The bytes end within an element.
    #[error("command set ends within an element")]
    Truncated,
    /// An element of another group.
    #[error("element of group {0:04X} in a command set")]
    ForeignGroup(u16),
    /// An element without which the message means nothing.
    #[error("command set lacks (0000,{0:04X})")]
    Missing(u16),
    /// A number whose value field has the wrong length.
    #[error("value of (0000,{0:04X}) has the wrong length")]
    WrongLength(u16),
}

/// Priority (0000,0700). Unknown values count as medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// 0002H.
    Low,
    /// 0000H.
    #[default]
    Medium,
    /// 0001H.
    High,
}

impl Priority {
    fn from_wire(value: u16) -> Self {
        match value {
            1 => Self::High,
            2 => Self::Low,
            _ => Self::Medium,
        }
    }

    fn to_wire(self) -> u16 {
        match self {
            Self::Medium => 0,
            Self::High => 1,
            Self::Low => 2,
        }
    }
}

/// C-STORE-RQ (PS3.7 9.3.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreRequest {
    /// Message ID.
    pub message_id: u16,
    /// Affected SOP Class UID, without padding; a peer's text of any content.
    pub sop_class: String,
    /// Affected SOP Instance UID, without padding; a peer's text of any content.
    pub sop_instance: String,
    /// Priority.
    pub priority: Priority,
    /// Move Originator AE title and message ID, when a C-MOVE caused this.
    pub move_originator: Option<(String, u16)>,
    /// Whether a data set follows, as it must.
    pub has_data_set: bool,
}

/// Any response (PS3.7 9.3, 10.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// Command field, with the response bit.
    pub field: u16,
    /// Message ID of the request.
    pub responded_to: u16,
    /// Affected SOP Class UID, empty when absent.
    pub sop_class: String,
    /// Affected SOP Instance UID, empty when absent.
    pub sop_instance: String,
    /// Status.
    pub status: u16,
    /// Offending elements (0000,0901), as (group, element).
    pub offending: Vec<(u16, u16)>,
    /// Error Comment, empty when absent.
    pub comment: String,
    /// Whether a data set follows.
    pub has_data_set: bool,
}

/// A command set, as far as this program understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// C-ECHO-RQ (PS3.7 9.3.5.1).
    EchoRequest {
        /// Message ID.
        message_id: u16,
        /// Affected SOP Class UID; Verification.
        sop_class: String,
    },
    /// C-STORE-RQ.
    StoreRequest(StoreRequest),
    /// Any response.
    Response(Response),
    /// A request that this program does not serve.
    Other {
        /// Command field.
        field: u16,
        /// Message ID; absent in C-CANCEL-RQ.
        message_id: Option<u16>,
        /// Affected or Requested SOP Class UID, empty when absent.
        sop_class: String,
        /// Affected or Requested SOP Instance UID, empty when absent.
        sop_instance: String,
        /// Whether a data set follows.
        has_data_set: bool,
    },
}

impl Command {
    /// Whether the peer sends a data set after this command set.
    pub fn has_data_set(&self) -> bool {
        match self {
            Self::EchoRequest { .. } => false,
            Self::StoreRequest(rq) => rq.has_data_set,
            Self::Response(rsp) => rsp.has_data_set,
            Self::Other { has_data_set, .. } => *has_data_set,
        }
    }

    /// Reads a whole command set.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let e = Elements::read(bytes)?;
        let field = e.us(element::COMMAND_FIELD)?.ok_or(missing(element::COMMAND_FIELD))?;
        // Where the type is missing, C-STORE means a data set and everything else means none.
        let data_set_type = e.us(element::DATA_SET_TYPE)?;
        let has_data_set =
            data_set_type.map_or(field == field::C_STORE_RQ, |kind| kind != NO_DATA_SET);
        let message_id = e.us(element::MESSAGE_ID)?;
        Ok(match field {
            field::C_ECHO_RQ => Self::EchoRequest {
                message_id: message_id.ok_or(missing(element::MESSAGE_ID))?,
                sop_class: e.text(element::AFFECTED_SOP_CLASS),
            },
            field::C_STORE_RQ => Self::StoreRequest(StoreRequest {
                message_id: message_id.ok_or(missing(element::MESSAGE_ID))?,
                sop_class: e.text(element::AFFECTED_SOP_CLASS),
                sop_instance: e.text(element::AFFECTED_SOP_INSTANCE),
                priority: Priority::from_wire(e.us(element::PRIORITY)?.unwrap_or(0)),
                move_originator: e.move_originator()?,
                has_data_set,
            }),
            field if field & field::RESPONSE != 0 => Self::Response(Response {
                field,
                responded_to: e
                    .us(element::MESSAGE_ID_RESPONDED)?
                    .ok_or(missing(element::MESSAGE_ID_RESPONDED))?,
                sop_class: e.text(element::AFFECTED_SOP_CLASS),
                sop_instance: e.text(element::AFFECTED_SOP_INSTANCE),
                status: e.us(element::STATUS)?.ok_or(missing(element::STATUS))?,
                offending: e.tags(element::OFFENDING_ELEMENT),
                comment: e.text(element::ERROR_COMMENT),
                has_data_set,
            }),
            field => Self::Other {
                field,
                message_id,
                sop_class: e.either(element::AFFECTED_SOP_CLASS, element::REQUESTED_SOP_CLASS),
                sop_instance: e
                    .either(element::AFFECTED_SOP_INSTANCE, element::REQUESTED_SOP_INSTANCE),
                has_data_set,
            },
        })
    }

    /// The command set as it is sent, with its group length. An [`Other`](Self::Other) is
    /// written with the *affected* identifiers.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::EchoRequest { message_id, sop_class } => {
                w.uid(element::AFFECTED_SOP_CLASS, sop_class);
                w.us(element::COMMAND_FIELD, field::C_ECHO_RQ);
                w.us(element::MESSAGE_ID, *message_id);
                w.data_set(false);
            }
            Self::StoreRequest(rq) => rq.encode(&mut w),
            Self::Response(rsp) => rsp.encode(&mut w),
            Self::Other { field, message_id, sop_class, sop_instance, has_data_set } => {
                w.uid(element::AFFECTED_SOP_CLASS, sop_class);
                w.us(element::COMMAND_FIELD, *field);
                if let Some(id) = message_id {
                    w.us(element::MESSAGE_ID, *id);
                }
                w.data_set(*has_data_set);
                w.uid(element::AFFECTED_SOP_INSTANCE, sop_instance);
            }
        }
        w.finish()
    }
}

impl StoreRequest {
    fn encode(&self, w: &mut Writer) {
        w.uid(element::AFFECTED_SOP_CLASS, &self.sop_class);
        w.us(element::COMMAND_FIELD, field::C_STORE_RQ);
        w.us(element::MESSAGE_ID, self.message_id);
        w.us(element::PRIORITY, self.priority.to_wire());
        w.data_set(self.has_data_set);
        w.uid(element::AFFECTED_SOP_INSTANCE, &self.sop_instance);
        if let Some((ae, id)) = &self.move_originator {
            w.text(element::MOVE_ORIGINATOR_AE, ae, b' ');
            w.us(element::MOVE_ORIGINATOR_ID, *id);
        }
    }
}

impl Response {
    fn encode(&self, w: &mut Writer) {
        w.uid(element::AFFECTED_SOP_CLASS, &self.sop_class);
        w.us(element::COMMAND_FIELD, self.field);
        w.us(element::MESSAGE_ID_RESPONDED, self.responded_to);
        w.data_set(self.has_data_set);
        w.us(element::STATUS, self.status);
        w.tags(element::OFFENDING_ELEMENT, &self.offending);
        w.text(element::ERROR_COMMENT, &self.comment, b' ');
        w.uid(element::AFFECTED_SOP_INSTANCE, &self.sop_instance);
    }
}

fn missing(element: u16) -> CommandError {
    CommandError::Missing(element)
}

/// The elements of a command set, values as they stand.
struct Elements<'a>(BTreeMap<u16, &'a [u8]>);

impl<'a> Elements<'a> {
    fn read(mut bytes: &'a [u8]) -> Result<Self, CommandError> {
        if bytes.len() > COMMAND_LENGTH_MAX {
            return Err(CommandError::TooLong);
        }
        let mut elements = BTreeMap::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk::<8>().ok_or(CommandError::Truncated)?;
            let [g0, g1, e0, e1, l0, l1, l2, l3] = *head;
            let group = u16::from_le_bytes([g0, g1]);
            if group != 0 {
                return Err(CommandError::ForeignGroup(group));
            }
            let length = u32::from_le_bytes([l0, l1, l2, l3]);
            let length = usize::try_from(length).map_err(|_| CommandError::Truncated)?;
            let (value, rest) = rest.split_at_checked(length).ok_or(CommandError::Truncated)?;
            elements.entry(u16::from_le_bytes([e0, e1])).or_insert(value);
            bytes = rest;
        }
        Ok(Self(elements))
    }

    /// A number; an empty value counts as absent.
    fn us(&self, element: u16) -> Result<Option<u16>, CommandError> {
        match self.0.get(&element) {
            None | Some([]) => Ok(None),
            Some([low, high]) => Ok(Some(u16::from_le_bytes([*low, *high]))),
            Some(_) => Err(CommandError::WrongLength(element)),
        }
    }

    fn text(&self, element: u16) -> String {
        let value = self.0.get(&element).copied().unwrap_or_default();
        String::from_utf8_lossy(value).trim_matches(['\0', ' ']).to_owned()
    }

    fn either(&self, first: u16, second: u16) -> String {
        let text = self.text(first);
        if text.is_empty() { self.text(second) } else { text }
    }

    fn tags(&self, element: u16) -> Vec<(u16, u16)> {
        let value = self.0.get(&element).copied().unwrap_or_default();
        let (tags, _) = value.as_chunks::<4>();
        tags.iter()
            .map(|[a, b, c, d]| (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d])))
            .collect()
    }

    fn move_originator(&self) -> Result<Option<(String, u16)>, CommandError> {
        let ae = self.text(element::MOVE_ORIGINATOR_AE);
        let id = self.us(element::MOVE_ORIGINATOR_ID)?.unwrap_or(0);
        Ok((!ae.is_empty()).then_some((ae, id)))
    }
}

/// Writes elements in the order of the calls, which must ascend.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn element(&mut self, element: u16, value: &[u8], pad: u8) {
        let odd = value.len() % 2;
        let length = u32::try_from(value.len() + odd).expect("command values are short");
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&element.to_le_bytes());
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(value);
        self.0.extend(std::iter::repeat_n(pad, odd));
    }

    fn us(&mut self, element: u16, value: u16) {
        self.element(element, &value.to_le_bytes(), 0);
    }

    fn text(&mut self, element: u16, value: &str, pad: u8) {
        if !value.is_empty() {
            self.element(element, value.as_bytes(), pad);
        }
    }

    fn uid(&mut self, element: u16, value: &str) {
        self.text(element, value, 0);
    }

    fn tags(&mut self, element: u16, tags: &[(u16, u16)]) {
        let value: Vec<u8> =
            tags.iter().flat_map(|(g, e)| [g.to_le_bytes(), e.to_le_bytes()]).flatten().collect();
        if !value.is_empty() {
            self.element(element, &value, 0);
        }
    }

    fn data_set(&mut self, follows: bool) {
        self.us(element::DATA_SET_TYPE, if follows { 0 } else { NO_DATA_SET });
    }

    fn finish(self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("command sets are short");
        let mut whole = Self(Vec::with_capacity(self.0.len() + 12));
        whole.element(element::GROUP_LENGTH, &length.to_le_bytes(), 0);
        whole.0.extend_from_slice(&self.0);
        whole.0
    }
}

#[cfg(test)]
mod tests;
