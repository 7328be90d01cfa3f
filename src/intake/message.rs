//! Fragments into DIMSE messages (PS3.7 6.3, PS3.8 E). Pure.
//!
//! One message at a time: asynchronous operations are not negotiated, so a command set is
//! followed by its data set, if it has one, in the same presentation context. A command set is
//! gathered, at most [`COMMAND_LENGTH_MAX`] bytes; a data set is passed on piece by piece.
//! C-CANCEL, and the responses to events that this node reports, may come between them.

use bytes::Bytes;

use super::negotiation::{Context, Contexts, serves};
use crate::dicom::command::{
    COMMAND_LENGTH_MAX, Command, CommandError, Request, Response, StoreRequest,
};
use crate::dicom::pdata::Fragment;

/// What a fragment means for the service user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet, or nothing that needs an answer.
    Nothing,
    /// A C-ECHO-RQ.
    Echo {
        /// Presentation context to answer in.
        context: u8,
        /// Message ID.
        message_id: u16,
        /// Affected SOP class.
        sop_class: String,
    },
    /// A C-STORE-RQ. [`Data`](Self::Data) follows, unless the request has no data set.
    Store {
        /// Presentation context, with the transfer syntax of the data set.
        context: Context,
        /// The request.
        request: StoreRequest,
    },
    /// A request of another service, in a context of that service. [`Data`](Self::Data) follows,
    /// unless the request has no data set.
    Service {
        /// Presentation context, with the transfer syntax of the data set.
        context: Context,
        /// The request.
        request: Request,
    },
    /// C-CANCEL of the request of this message ID.
    Cancel {
        /// Message ID of the request.
        message_id: u16,
    },
    /// A response, its data set passed over if it had one.
    Answered(Response),
    /// A piece of the data set of the last [`Store`](Self::Store) or [`Service`](Self::Service).
    Data {
        /// Its bytes; may be empty at the end.
        data: Bytes,
        /// Whether the data set ends here.
        last: bool,
    },
    /// A whole request that this program does not serve, its data set passed over.
    Unrecognized {
        /// Presentation context to answer in.
        context: u8,
        /// Command field of the request.
        field: u16,
        /// Message ID.
        message_id: u16,
        /// SOP class, empty when it names none.
        sop_class: String,
        /// SOP instance, empty when it names none.
        sop_instance: String,
    },
}

/// Why fragments make no message. All of them end the association (PS3.8 AA-8): there is nothing
/// that could be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A presentation context that was not accepted.
    #[error("presentation context {0} was not accepted")]
    Context(u8),
    /// A fragment of another context within a message.
    #[error("presentation context {1} within a message in context {0}")]
    ContextChanged(u8, u8),
    /// A data set without a command set before it.
    #[error("data set without a command set")]
    UnexpectedData,
    /// A command set where a data set must follow.
    #[error("command set where a data set must follow")]
    UnexpectedCommand,
    /// The command set cannot be read.
    #[error(transparent)]
    Command(#[from] CommandError),
}

#[derive(Debug)]
enum State {
    /// Before or within a command set; `context` is set by its first fragment.
    Command { context: Option<u8>, bytes: Vec<u8> },
    /// Within a data set that is passed on.
    Data { context: u8 },
    /// Within a data set that is passed over; `then` is due at its end.
    PassOver { context: u8, then: Step },
}

/// Gathers messages from the fragments of one association.
#[derive(Debug)]
pub struct Messages {
    state: State,
}

impl Default for Messages {
    fn default() -> Self {
        Self::new()
    }
}

impl Messages {
    /// Before the first message.
    pub fn new() -> Self {
        Self { state: State::Command { context: None, bytes: vec![] } }
    }

    /// Whether a message has begun and not ended.
    pub fn under_way(&self) -> bool {
        !matches!(self.state, State::Command { context: None, .. })
    }

    /// Takes the next fragment. After an error nothing more can be taken.
    pub fn take(&mut self, f: Fragment, contexts: &Contexts) -> Result<Step, MessageError> {
        let accepted = contexts.get(&f.context).ok_or(MessageError::Context(f.context))?;
        let expected = match &self.state {
            State::Command { context, .. } => *context,
            State::Data { context } | State::PassOver { context, .. } => Some(*context),
        };
        if let Some(expected) = expected.filter(|expected| *expected != f.context) {
            return Err(MessageError::ContextChanged(expected, f.context));
        }
        match &mut self.state {
            State::Command { .. } if !f.command => Err(MessageError::UnexpectedData),
            State::Data { .. } | State::PassOver { .. } if f.command => {
                Err(MessageError::UnexpectedCommand)
            }
            State::Command { context, bytes } => {
                *context = Some(f.context);
                if bytes.len() + f.data.len() > COMMAND_LENGTH_MAX {
                    return Err(CommandError::TooLong.into());
                }
                bytes.extend_from_slice(&f.data);
                if !f.last {
                    return Ok(Step::Nothing);
                }
                let command = Command::decode(bytes)?;
                Ok(self.begin(command, accepted))
            }
            State::Data { .. } => {
                if f.last {
                    *self = Self::new();
                }
                Ok(Step::Data { data: f.data, last: f.last })
            }
            State::PassOver { then, .. } => {
                if !f.last {
                    return Ok(Step::Nothing);
                }
                let then = std::mem::replace(then, Step::Nothing);
                *self = Self::new();
                Ok(then)
            }
        }
    }

    fn begin(&mut self, command: Command, context: &Context) -> Step {
        *self = Self::new();
        let id = context.id;
        let has_data_set = command.has_data_set();
        let step = match command {
            Command::EchoRequest { message_id, sop_class } => {
                return Step::Echo { context: id, message_id, sop_class };
            }
            Command::StoreRequest(request) => {
                if has_data_set {
                    self.state = State::Data { context: id };
                }
                return Step::Store { context: context.clone(), request };
            }
            Command::Request(request) if serves(&context.abstract_syntax, &request.operation) => {
                if has_data_set {
                    self.state = State::Data { context: id };
                }
                return Step::Service { context: context.clone(), request };
            }
            Command::Request(request) => Step::Unrecognized {
                context: id,
                field: request.operation.field(),
                message_id: request.message_id,
                sop_class: request.sop_class,
                sop_instance: request.sop_instance,
            },
            Command::Cancel { responded_to } => return Step::Cancel { message_id: responded_to },
            Command::Response(response) => Step::Answered(response),
            Command::Other { message_id: None, .. } => Step::Nothing,
            Command::Other {
                field, message_id: Some(message_id), sop_class, sop_instance, ..
            } => Step::Unrecognized { context: id, field, message_id, sop_class, sop_instance },
        };
        if !has_data_set {
            return step;
        }
        self.state = State::PassOver { context: id, then: step };
        Step::Nothing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dicom::command::{Operation, Priority};
    use crate::dicom::{EXPLICIT_VR_LE, MODALITY_WORKLIST, VERIFICATION};

    fn context(id: u8) -> Context {
        Context { id, abstract_syntax: "1.2.3".into(), transfer_syntax: EXPLICIT_VR_LE.to_owned() }
    }

    fn contexts() -> Contexts {
        [(1, context(1)), (3, context(3))].into()
    }

    fn fragment(context: u8, command: bool, last: bool, data: &[u8]) -> Fragment {
        Fragment { context, command, last, data: Bytes::copy_from_slice(data) }
    }

    fn store(has_data_set: bool) -> Command {
        Command::StoreRequest(StoreRequest {
            message_id: 5,
            sop_class: "1.2.3".into(),
            sop_instance: "1.2.3.4".into(),
            has_data_set,
            ..StoreRequest::default()
        })
    }

    #[test]
    fn a_command_set_in_pieces_and_its_data_set_make_one_message() {
        let mut m = Messages::new();
        let bytes = store(true).encode();
        assert!(!m.under_way());
        let piece = fragment(1, true, false, &bytes[..50]);
        assert_eq!(m.take(piece, &contexts()), Ok(Step::Nothing));
        assert!(m.under_way());
        let rest = m.take(fragment(1, true, true, &bytes[50..]), &contexts());
        assert!(matches!(rest, Ok(Step::Store { context, .. }) if context.id == 1));
        let data = Step::Data { data: Bytes::from_static(b"ab"), last: false };
        assert_eq!(m.take(fragment(1, false, false, b"ab"), &contexts()), Ok(data));
        let end = Step::Data { data: Bytes::new(), last: true };
        assert_eq!(m.take(fragment(1, false, true, b""), &contexts()), Ok(end));
        assert!(!m.under_way());
    }

    #[test]
    fn a_store_without_a_data_set_does_not_wait_for_one() {
        let mut m = Messages::new();
        let step = m.take(fragment(1, true, true, &store(false).encode()), &contexts());
        assert!(matches!(step, Ok(Step::Store { request, .. }) if !request.has_data_set));
        assert!(!m.under_way());
    }

    #[test]
    fn an_unknown_request_is_answerable_once_its_data_set_is_passed_over() {
        let mut m = Messages::new();
        let find = Command::Other {
            field: 0x0110,
            message_id: Some(8),
            sop_class: "1.2".into(),
            sop_instance: String::new(),
            has_data_set: true,
        };
        let begin = m.take(fragment(3, true, true, &find.encode()), &contexts());
        assert_eq!(begin, Ok(Step::Nothing));
        assert_eq!(m.take(fragment(3, false, false, b"x"), &contexts()), Ok(Step::Nothing));
        let end = m.take(fragment(3, false, true, b"y"), &contexts());
        assert!(matches!(
            end,
            Ok(Step::Unrecognized { context: 3, field: 0x0110, message_id: 8, .. })
        ));
    }

    #[test]
    fn a_response_and_a_cancel_are_messages_without_an_answer() {
        let mut m = Messages::new();
        let rsp = Response { field: 0x8100, ..Response::default() };
        let bytes = Command::Response(rsp.clone()).encode();
        let step = m.take(fragment(1, true, true, &bytes), &contexts());
        assert_eq!((step, m.under_way()), (Ok(Step::Answered(rsp.clone())), false));
        let with_data = Response { has_data_set: true, ..rsp };
        let bytes = Command::Response(with_data.clone()).encode();
        assert_eq!(m.take(fragment(1, true, true, &bytes), &contexts()), Ok(Step::Nothing));
        let step = m.take(fragment(1, false, true, b"x"), &contexts());
        assert_eq!(step, Ok(Step::Answered(with_data)));
        let cancel = Command::Cancel { responded_to: 4 }.encode();
        let step = m.take(fragment(1, true, true, &cancel), &contexts());
        assert_eq!(step, Ok(Step::Cancel { message_id: 4 }));
    }

    #[test]
    fn a_service_is_served_in_its_own_context_alone() {
        let find = |has_data_set| {
            Command::Request(Request {
                operation: Operation::Find(Priority::Medium),
                message_id: 6,
                sop_class: MODALITY_WORKLIST.into(),
                sop_instance: String::new(),
                has_data_set,
            })
        };
        let mut contexts = contexts();
        contexts.get_mut(&3).unwrap().abstract_syntax = MODALITY_WORKLIST.into();
        let mut m = Messages::new();
        let step = m.take(fragment(3, true, true, &find(true).encode()), &contexts);
        assert!(matches!(step, Ok(Step::Service { .. })) && m.under_way());
        let step = m.take(fragment(3, false, true, b"x"), &contexts);
        assert!(matches!(step, Ok(Step::Data { last: true, .. })) && !m.under_way());
        let step = m.take(fragment(1, true, true, &find(false).encode()), &contexts);
        assert!(matches!(step, Ok(Step::Unrecognized { field: 0x0020, .. })), "{step:?}");
    }

    #[test]
    fn what_makes_no_message_is_an_error() {
        let take = |fragments: Vec<Fragment>| {
            let mut m = Messages::new();
            fragments.into_iter().find_map(|f| m.take(f, &contexts()).err())
        };
        let rq = store(true).encode();
        let echo = Command::EchoRequest { message_id: 1, sop_class: VERIFICATION.into() }.encode();
        let cases = [
            (vec![fragment(5, true, true, &echo)], MessageError::Context(5)),
            (vec![fragment(1, false, true, b"x")], MessageError::UnexpectedData),
            (
                vec![fragment(1, true, true, &rq), fragment(1, true, true, &echo)],
                MessageError::UnexpectedCommand,
            ),
            (
                vec![fragment(1, true, true, &rq), fragment(3, false, true, b"x")],
                MessageError::ContextChanged(1, 3),
            ),
            (
                vec![fragment(1, true, false, &rq), fragment(3, true, true, b"x")],
                MessageError::ContextChanged(1, 3),
            ),
            (
                vec![fragment(1, true, false, &[0; COMMAND_LENGTH_MAX]); 2],
                MessageError::Command(CommandError::TooLong),
            ),
            (
                vec![fragment(1, true, true, b"")],
                MessageError::Command(CommandError::Missing(0x0100)),
            ),
        ];
        for (fragments, error) in cases {
            assert_eq!(take(fragments), Some(error));
        }
    }

    proptest! {
        #[test]
        fn no_fragments_panic(
            fragments in proptest::collection::vec(
                (
                    any::<bool>(),
                    any::<bool>(),
                    any::<bool>(),
                    proptest::collection::vec(any::<u8>(), 0..60),
                ),
                0..20,
            ),
        ) {
            let mut m = Messages::new();
            for (one, command, last, data) in fragments {
                let id = if one { 1 } else { 3 };
                let _ = m.take(fragment(id, command, last, &data), &contexts());
            }
        }
    }
}
