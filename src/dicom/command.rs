//! DIMSE command sets (PS3.7 6.3, 9.3, 10.3, E): Implicit VR Little Endian, group 0000, flat.
//!
//! A command set is read whole; it is at most [`COMMAND_LENGTH_MAX`] bytes long (real ones have
//! 100 to 300). Elements that a message does not need are skipped, an element that appears twice
//! counts the first time, and order does not matter: devices differ, and nothing hangs on it.

mod codes;
mod elements;

pub use self::codes::{field, status};
use self::elements::{Elements, NO_DATA_SET, Writer, element, missing};

/// Longest command set that is read, in bytes.
pub const COMMAND_LENGTH_MAX: usize = 64 * 1024;

/// Longest Error Comment (0000,0902) in characters (VR LO).
pub const ERROR_COMMENT_LENGTH_MAX: usize = 64;

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

/// What a [`Request`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// C-FIND (PS3.7 9.3.2.1).
    Find(Priority),
    /// C-GET (PS3.7 9.3.3.1).
    Get(Priority),
    /// C-MOVE (PS3.7 9.3.4.1) to an AE title; a peer's text of any content.
    Move(Priority, String),
    /// N-EVENT-REPORT (PS3.7 10.3.1.1), with the Event Type ID.
    EventReport(u16),
    /// N-SET (PS3.7 10.3.3.1).
    Set,
    /// N-ACTION (PS3.7 10.3.4.1), with the Action Type ID.
    Action(u16),
    /// N-CREATE (PS3.7 10.3.5.1).
    Create,
}

impl Operation {
    /// The command field.
    pub const fn field(&self) -> u16 {
        match self {
            Self::Find(_) => field::C_FIND_RQ,
            Self::Get(_) => field::C_GET_RQ,
            Self::Move(..) => field::C_MOVE_RQ,
            Self::EventReport(_) => field::N_EVENT_REPORT_RQ,
            Self::Set => field::N_SET_RQ,
            Self::Action(_) => field::N_ACTION_RQ,
            Self::Create => field::N_CREATE_RQ,
        }
    }

    /// Whether its identifiers are the *requested* ones rather than the *affected*: the SOP
    /// instance exists already.
    const fn names_requested(&self) -> bool {
        matches!(self, Self::Set | Self::Action(_))
    }
}

/// A request of the query, retrieve and notification services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    /// Message ID.
    pub message_id: u16,
    /// Affected or Requested SOP Class UID, without padding; a peer's text of any content.
    pub sop_class: String,
    /// Affected or Requested SOP Instance UID, likewise; empty when absent, as in every C-
    /// service, and in an N-CREATE that leaves it to the performer.
    pub sop_instance: String,
    /// Whether a data set follows.
    pub has_data_set: bool,
}

impl Request {
    /// The response to this request, without a status worth having: whoever forgets to set one
    /// says that processing failed.
    pub fn response(&self) -> Response {
        let (action, event) = match self.operation {
            Operation::Action(id) => (Some(id), None),
            Operation::EventReport(id) => (None, Some(id)),
            _ => (None, None),
        };
        Response {
            field: self.operation.field() | field::RESPONSE,
            responded_to: self.message_id,
            sop_class: self.sop_class.clone(),
            sop_instance: self.sop_instance.clone(),
            status: status::PROCESSING_FAILURE,
            type_id: action.or(event),
            ..Response::default()
        }
    }
}

/// Sub-operations of C-GET and C-MOVE (PS3.7 C.4.2, C.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubOperations {
    /// Still to be done; a final answer may leave it out.
    pub remaining: Option<u16>,
    /// Done.
    pub completed: u16,
    /// Failed.
    pub failed: u16,
    /// Done with a warning.
    pub warning: u16,
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
    /// Error ID (0000,0903), which says more about a status.
    pub error_id: Option<u16>,
    /// Event or Action Type ID, in the responses to N-EVENT-REPORT and N-ACTION.
    pub type_id: Option<u16>,
    /// Attribute Identifier List (0000,1005), as (group, element).
    pub attributes: Vec<(u16, u16)>,
    /// Sub-operations; absent when the peer names none of their numbers.
    pub sub_operations: Option<SubOperations>,
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
    /// A request of the query, retrieve and notification services.
    Request(Request),
    /// C-CANCEL-RQ (PS3.7 9.3.2.3): the request of this message ID need not be finished.
    Cancel {
        /// Message ID of that request.
        responded_to: u16,
    },
    /// Any response.
    Response(Response),
    /// A request that this program does not serve.
    Other {
        /// Command field.
        field: u16,
        /// Message ID; without it there is nothing to answer.
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
            Self::EchoRequest { .. } | Self::Cancel { .. } => false,
            Self::StoreRequest(rq) => rq.has_data_set,
            Self::Request(rq) => rq.has_data_set,
            Self::Response(rsp) => rsp.has_data_set,
            Self::Other { has_data_set, .. } => *has_data_set,
        }
    }

    /// Reads a whole command set.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let e = Elements::read(bytes)?;
        let field = e.us(element::COMMAND_FIELD)?.ok_or(missing(element::COMMAND_FIELD))?;
        let operation = e.operation(field)?;
        // Where the type is missing, the services that need a data set mean one.
        let needs = field == field::C_STORE_RQ || operation.is_some();
        let has_data_set = e.us(element::DATA_SET_TYPE)?.map_or(needs, |kind| kind != NO_DATA_SET);
        let message_id = e.us(element::MESSAGE_ID)?;
        if let Some(operation) = operation {
            return e.request(operation, message_id, has_data_set).map(Self::Request);
        }
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
            field::C_CANCEL_RQ => Self::Cancel {
                responded_to: e
                    .us(element::MESSAGE_ID_RESPONDED)?
                    .ok_or(missing(element::MESSAGE_ID_RESPONDED))?,
            },
            field if field & field::RESPONSE != 0 => {
                Self::Response(e.response(field, has_data_set)?)
            }
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
            Self::Request(rq) => rq.encode(&mut w),
            Self::Cancel { responded_to } => {
                w.us(element::COMMAND_FIELD, field::C_CANCEL_RQ);
                w.us(element::MESSAGE_ID_RESPONDED, *responded_to);
                w.data_set(false);
            }
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

impl Elements<'_> {
    fn operation(&self, field: u16) -> Result<Option<Operation>, CommandError> {
        let priority = || Ok(Priority::from_wire(self.us(element::PRIORITY)?.unwrap_or_default()));
        // Without a type it is of none that anybody knows, which can be answered.
        let type_id = |element| Ok(self.us(element)?.unwrap_or_default());
        Ok(Some(match field {
            field::C_FIND_RQ => Operation::Find(priority()?),
            field::C_GET_RQ => Operation::Get(priority()?),
            field::C_MOVE_RQ => Operation::Move(priority()?, self.text(element::MOVE_DESTINATION)),
            field::N_EVENT_REPORT_RQ => Operation::EventReport(type_id(element::EVENT_TYPE)?),
            field::N_SET_RQ => Operation::Set,
            field::N_ACTION_RQ => Operation::Action(type_id(element::ACTION_TYPE)?),
            field::N_CREATE_RQ => Operation::Create,
            _ => return Ok(None),
        }))
    }

    fn request(
        &self,
        operation: Operation,
        message_id: Option<u16>,
        has_data_set: bool,
    ) -> Result<Request, CommandError> {
        let by_name = |affected, requested| match operation.names_requested() {
            true => self.either(requested, affected),
            false => self.either(affected, requested),
        };
        Ok(Request {
            message_id: message_id.ok_or(missing(element::MESSAGE_ID))?,
            sop_class: by_name(element::AFFECTED_SOP_CLASS, element::REQUESTED_SOP_CLASS),
            sop_instance: by_name(element::AFFECTED_SOP_INSTANCE, element::REQUESTED_SOP_INSTANCE),
            operation,
            has_data_set,
        })
    }

    fn response(&self, field: u16, has_data_set: bool) -> Result<Response, CommandError> {
        Ok(Response {
            field,
            responded_to: self
                .us(element::MESSAGE_ID_RESPONDED)?
                .ok_or(missing(element::MESSAGE_ID_RESPONDED))?,
            sop_class: self.text(element::AFFECTED_SOP_CLASS),
            sop_instance: self.text(element::AFFECTED_SOP_INSTANCE),
            status: self.us(element::STATUS)?.ok_or(missing(element::STATUS))?,
            offending: self.tags(element::OFFENDING_ELEMENT),
            comment: self.text(element::ERROR_COMMENT),
            error_id: self.us(element::ERROR_ID)?,
            type_id: match type_element(field) {
                Some(element) => self.us(element)?,
                None => None,
            },
            attributes: self.tags(element::ATTRIBUTE_LIST),
            sub_operations: self.sub_operations()?,
            has_data_set,
        })
    }

    fn sub_operations(&self) -> Result<Option<SubOperations>, CommandError> {
        let remaining = self.us(element::REMAINING)?;
        let done = [element::COMPLETED, element::FAILED, element::WARNING];
        let [completed, failed, warning] = done.map(|element| self.us(element));
        let (completed, failed, warning) = (completed?, failed?, warning?);
        if remaining.or(completed).or(failed).or(warning).is_none() {
            return Ok(None);
        }
        Ok(Some(SubOperations {
            remaining,
            completed: completed.unwrap_or_default(),
            failed: failed.unwrap_or_default(),
            warning: warning.unwrap_or_default(),
        }))
    }
}

/// Where a response of this command field names its event or action type.
const fn type_element(field: u16) -> Option<u16> {
    match field & !field::RESPONSE {
        field::N_EVENT_REPORT_RQ => Some(element::EVENT_TYPE),
        field::N_ACTION_RQ => Some(element::ACTION_TYPE),
        _ => None,
    }
}

impl Request {
    fn encode(&self, w: &mut Writer) {
        let requested = self.operation.names_requested();
        let class = [element::AFFECTED_SOP_CLASS, element::REQUESTED_SOP_CLASS];
        let instance = [element::AFFECTED_SOP_INSTANCE, element::REQUESTED_SOP_INSTANCE];
        w.uid(class[usize::from(requested)], &self.sop_class);
        w.us(element::COMMAND_FIELD, self.operation.field());
        w.us(element::MESSAGE_ID, self.message_id);
        if let Operation::Move(_, destination) = &self.operation {
            w.text(element::MOVE_DESTINATION, destination, b' ');
        }
        match &self.operation {
            Operation::Find(p) | Operation::Get(p) | Operation::Move(p, _) => {
                w.us(element::PRIORITY, p.to_wire());
            }
            _ => {}
        }
        w.data_set(self.has_data_set);
        w.uid(instance[usize::from(requested)], &self.sop_instance);
        match self.operation {
            Operation::EventReport(id) => w.us(element::EVENT_TYPE, id),
            Operation::Action(id) => w.us(element::ACTION_TYPE, id),
            _ => {}
        }
    }
}

impl Response {
    fn encode(&self, w: &mut Writer) {
        let optional = |w: &mut Writer, element, value: Option<u16>| {
            if let Some(value) = value {
                w.us(element, value);
            }
        };
        w.uid(element::AFFECTED_SOP_CLASS, &self.sop_class);
        w.us(element::COMMAND_FIELD, self.field);
        w.us(element::MESSAGE_ID_RESPONDED, self.responded_to);
        w.data_set(self.has_data_set);
        w.us(element::STATUS, self.status);
        w.tags(element::OFFENDING_ELEMENT, &self.offending);
        w.text(element::ERROR_COMMENT, &self.comment, b' ');
        optional(w, element::ERROR_ID, self.error_id);
        w.uid(element::AFFECTED_SOP_INSTANCE, &self.sop_instance);
        let type_id = |wanted| self.type_id.filter(|_| type_element(self.field) == Some(wanted));
        optional(w, element::EVENT_TYPE, type_id(element::EVENT_TYPE));
        w.tags(element::ATTRIBUTE_LIST, &self.attributes);
        optional(w, element::ACTION_TYPE, type_id(element::ACTION_TYPE));
        if let Some(sub) = self.sub_operations {
            optional(w, element::REMAINING, sub.remaining);
            w.us(element::COMPLETED, sub.completed);
            w.us(element::FAILED, sub.failed);
            w.us(element::WARNING, sub.warning);
        }
    }
}

#[cfg(test)]
mod tests;
