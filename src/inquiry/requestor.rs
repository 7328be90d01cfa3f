//! The requestor's side of an association (PS3.8 9.2, states Sta5 to Sta7) with the query and
//! notification services on it (PS3.7 9.1, 10.1): events in, what they mean out. Pure.
//!
//! One operation at a time. An answer counts only when it answers the message that was sent last,
//! in its context; its data set is gathered, at most [`DATA_SET_LENGTH_MAX`] bytes. The images of
//! a C-GET come as requests of the peer's between the answers, and are passed on piece by piece.
//!
//! ```text
//!  Asking --AC--> Open --begin--> Waiting --RSP--> Open
//!    |             |                 |  ^--RSP pending, C-STORE-RQ--+
//!    RJ            +--- release ---> | ---> Releasing --RP--> Closed
//!    +------------ RJ, A-ABORT, anything wrong -------------> Closed
//! ```

use bytes::{Bytes, BytesMut};
use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult, AssociationRQ, Pdu,
    PresentationContextProposed, PresentationContextResultReason, RequestorRoles, UserVariableItem,
};

use crate::cargo::peer_text;
use crate::dicom::command::{
    COMMAND_LENGTH_MAX, Command, Operation, Request, Response, StoreRequest, field, status,
};
use crate::dicom::dataset::DATA_SET_LENGTH_MAX;
use crate::dicom::pdata::{self, Event, Fragment};
use crate::dicom::{
    APPLICATION_CONTEXT, AeTitle, EXPLICIT_VR_LE, IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME, IMPLICIT_VR_LE, is_uid, trim_uid,
};

/// Longest P-DATA-TF that is asked for, in bytes.
const ANNOUNCED_LENGTH: u32 = 64 * 1024;

/// Most presentation contexts of an association: odd numbers of one byte.
pub const CONTEXTS_MAX: usize = 128;

/// Why an association ends before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// A-ASSOCIATE-RJ.
    #[error("association rejected ({}): {reason}", if *.permanent { "permanent" } else { "transient" })]
    Rejected {
        /// Result 1: the peer will say the same again unless someone changes something.
        permanent: bool,
        /// Source and reason in words.
        reason: String,
    },
    /// A-ABORT.
    #[error("association aborted by the destination")]
    Aborted,
    /// The peer does not keep to the protocol: write A-ABORT and close.
    #[error("the destination breaks the protocol: {0}")]
    Broken(String),
}

/// A-ASSOCIATE-RJ in words.
pub fn rejection(rj: &AssociationRJ) -> Ending {
    Ending::Rejected {
        permanent: rj.result == AssociationRJResult::Permanent,
        reason: rj.source.to_string(),
    }
}

/// The name of a PDU (PS3.8 9.3).
pub fn pdu_name(pdu: &Pdu) -> &'static str {
    match pdu {
        Pdu::AssociationRQ(_) => "A-ASSOCIATE-RQ",
        Pdu::AssociationAC(_) => "A-ASSOCIATE-AC",
        Pdu::AssociationRJ(_) => "A-ASSOCIATE-RJ",
        Pdu::PData { .. } => "P-DATA-TF",
        Pdu::ReleaseRQ => "A-RELEASE-RQ",
        Pdu::ReleaseRP => "A-RELEASE-RP",
        Pdu::AbortRQ { .. } => "A-ABORT",
        Pdu::Unknown { .. } => "PDU of unknown type",
    }
}

/// A SOP class that an association is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// SOP Class UID.
    pub sop_class: String,
    /// Transfer syntaxes, best first.
    pub syntaxes: Vec<String>,
    /// Our roles; absent: SCU, which needs no negotiation (PS3.7 D.3.3.4).
    pub roles: Option<RequestorRoles>,
}

impl Wanted {
    /// As SCU, uncompressed.
    pub fn scu(sop_class: &str) -> Self {
        let syntaxes = [EXPLICIT_VR_LE, IMPLICIT_VR_LE].map(str::to_owned).to_vec();
        Self { sop_class: sop_class.to_owned(), syntaxes, roles: None }
    }

    /// As SCP: the peer is asked to take what it would otherwise ask for.
    pub fn scp(sop_class: &str) -> Self {
        let roles = Some(RequestorRoles { scu: false, scp: true });
        Self { roles, ..Self::scu(sop_class) }
    }
}

/// A presentation context that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Presentation context ID.
    pub id: u8,
    /// SOP Class UID.
    pub sop_class: String,
    /// Transfer syntax UID.
    pub syntax: String,
}

/// Why a SOP class cannot be used on an association that stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Its presentation context was not accepted; in words.
    #[error("the destination does not take SOP class {0}: {1}")]
    Context(String, &'static str),
    /// The role that we need was refused.
    #[error("the destination does not let us be SCP of SOP class {0}")]
    Role(String),
}

/// What an event means.
#[derive(Debug, PartialEq)]
pub enum Meaning {
    /// Nothing yet: more fragments follow.
    Nothing,
    /// The association stands.
    Accepted,
    /// An answer to the operation under way, with its data set if it has one.
    Answer(Box<Response>, Option<Bytes>),
    /// The peer sends an image of the C-GET under way, in this context; [`Data`](Self::Data)
    /// follows, then the driver answers.
    Store(u8, Box<StoreRequest>),
    /// A piece of that image.
    Data(Bytes, bool),
    /// The peer wants to end the association: write A-RELEASE-RP and close.
    PeerReleases,
    /// Our release is confirmed: close.
    Released,
}

#[derive(Debug)]
enum State {
    Asking(Vec<Wanted>),
    Open,
    Waiting { request: Box<Request>, context: u8 },
    Releasing,
    Closed,
}

/// What the fragments in hand belong to.
#[derive(Debug)]
enum Arriving {
    /// A command set, its context once it has begun.
    Command(Option<u8>, BytesMut),
    /// The data set of an answer.
    Answer(u8, Box<Response>, BytesMut),
    /// The data set of a C-STORE.
    Image(u8),
}

/// One association, from its request on.
#[derive(Debug)]
pub struct Requestor {
    state: State,
    contexts: Vec<Result<Context, NotTaken>>,
    write_length: u32,
    message_id: u16,
    arriving: Arriving,
}

impl Requestor {
    /// Begins; the PDU is the A-ASSOCIATE-RQ to write.
    ///
    /// # Panics
    ///
    /// When more than [`CONTEXTS_MAX`] SOP classes are wanted: a bug of ours.
    pub fn new(calling: &AeTitle, called: &AeTitle, wanted: Vec<Wanted>) -> (Self, Pdu) {
        assert!(wanted.len() <= CONTEXTS_MAX, "{} contexts", wanted.len());
        let context = |(n, w): (usize, &Wanted)| PresentationContextProposed {
            id: context_id(n),
            abstract_syntax: w.sop_class.clone(),
            transfer_syntaxes: w.syntaxes.clone(),
        };
        let mut user_variables = vec![
            UserVariableItem::MaxLength(ANNOUNCED_LENGTH),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
            UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
        ];
        // A class that is wanted in several contexts has one role in all of them.
        let mut said = std::collections::BTreeSet::new();
        let role = |w: &Wanted| {
            let roles = w.roles.filter(|_| said.insert(w.sop_class.clone()))?;
            Some(UserVariableItem::ScuScpRoleSelectionSubItem(w.sop_class.clone(), roles))
        };
        user_variables.extend(wanted.iter().filter_map(role));
        let request = Pdu::AssociationRQ(AssociationRQ {
            protocol_version: 1,
            calling_ae_title: calling.as_str().to_owned(),
            called_ae_title: called.as_str().to_owned(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: wanted.iter().enumerate().map(context).collect(),
            user_variables,
        });
        let requestor = Self {
            state: State::Asking(wanted),
            contexts: vec![],
            write_length: pdata::write_length(None),
            message_id: 0,
            arriving: Arriving::Command(None, BytesMut::new()),
        };
        (requestor, request)
    }

    /// The context of a wanted SOP class, once the association stands.
    pub fn context(&self, sop_class: &str) -> Result<&Context, NotTaken> {
        let found = self.contexts.iter().find(|c| match c {
            Ok(context) => context.sop_class == sop_class,
            Err(NotTaken::Context(class, _) | NotTaken::Role(class)) => class == sop_class,
        });
        match found {
            Some(Ok(context)) => Ok(context),
            Some(Err(e)) => Err(e.clone()),
            None => Err(NotTaken::Context(sop_class.to_owned(), "it was not asked")),
        }
    }

    /// The context of this number.
    pub fn context_of(&self, id: u8) -> Option<&Context> {
        self.contexts.iter().flatten().find(|c| c.id == id)
    }

    /// Longest P-DATA-TF to write, in bytes.
    pub fn write_length(&self) -> u32 {
        self.write_length
    }

    /// Begins an operation in this context; the bytes are its command set, which a data set
    /// follows.
    ///
    /// # Panics
    ///
    /// When the association is not open: a bug of ours.
    pub fn begin(
        &mut self,
        context: u8,
        operation: Operation,
        sop_class: &str,
        sop_instance: &str,
    ) -> Vec<u8> {
        assert!(matches!(self.state, State::Open), "{operation:?} on {:?}", self.state);
        self.message_id = self.message_id.checked_add(1).unwrap_or(1);
        let request = Request {
            operation,
            message_id: self.message_id,
            sop_class: sop_class.to_owned(),
            sop_instance: sop_instance.to_owned(),
            has_data_set: true,
        };
        let bytes = Command::Request(request.clone()).encode();
        self.state = State::Waiting { request: Box::new(request), context };
        bytes
    }

    /// C-CANCEL of the operation under way, and the context to write it in; its last answer still
    /// comes. `None` when there is none.
    pub fn cancel(&self) -> Option<(u8, Vec<u8>)> {
        let State::Waiting { request, context } = &self.state else { return None };
        Some((*context, Command::Cancel { responded_to: request.message_id }.encode()))
    }

    /// Begins to end the association; the PDU is to be written.
    pub fn release(&mut self) -> Pdu {
        self.state = State::Releasing;
        Pdu::ReleaseRQ
    }

    /// What an event from the peer means. After an error nothing more can be taken.
    pub fn on_event(&mut self, event: Event) -> Result<Meaning, Ending> {
        match event {
            Event::Pdu(pdu) => self.on_pdu(pdu),
            Event::Fragment(fragment) => self.on_fragment(fragment),
        }
    }

    fn on_pdu(&mut self, pdu: Pdu) -> Result<Meaning, Ending> {
        match (&mut self.state, pdu) {
            (_, Pdu::AbortRQ { .. }) => {
                self.state = State::Closed;
                Err(Ending::Aborted)
            }
            (State::Asking(wanted), Pdu::AssociationAC(ac)) => {
                let wanted = std::mem::take(wanted);
                self.accept(wanted, &ac);
                Ok(Meaning::Accepted)
            }
            (State::Asking(_), Pdu::AssociationRJ(rj)) => {
                self.state = State::Closed;
                Err(rejection(&rj))
            }
            // Both sides may ask at once (PS3.8 7.2.2.6); the requestor answers the collision.
            (State::Open | State::Releasing, Pdu::ReleaseRQ) => {
                self.state = State::Closed;
                Ok(Meaning::PeerReleases)
            }
            (State::Releasing, Pdu::ReleaseRP) => {
                self.state = State::Closed;
                Ok(Meaning::Released)
            }
            (_, pdu) => Err(self.broken(&format!("unexpected {}", pdu_name(&pdu)))),
        }
    }

    fn accept(&mut self, wanted: Vec<Wanted>, ac: &AssociationAC) {
        let named = ac.user_variables.iter().find_map(|v| match v {
            UserVariableItem::MaxLength(length) => Some(*length),
            _ => None,
        });
        self.write_length = pdata::write_length(named);
        let judge = |(n, w): (usize, Wanted)| judge(context_id(n), w, ac);
        self.contexts = wanted.into_iter().enumerate().map(judge).collect();
        self.state = State::Open;
    }

    fn on_fragment(&mut self, f: Fragment) -> Result<Meaning, Ending> {
        match &mut self.arriving {
            Arriving::Command(context, bytes) => {
                if !f.command {
                    return Err(self.broken("a data set, unasked for"));
                }
                if bytes.len() + f.data.len() > COMMAND_LENGTH_MAX {
                    return Err(self.broken("endless command set"));
                }
                if context.is_some_and(|begun| begun != f.context) {
                    return Err(self.broken("command set in two contexts"));
                }
                *context = Some(f.context);
                bytes.extend_from_slice(&f.data);
                if !f.last {
                    return Ok(Meaning::Nothing);
                }
                let bytes = bytes.split();
                *context = None;
                let command = Command::decode(&bytes).map_err(|e| self.broken(&e.to_string()))?;
                self.on_command(f.context, command)
            }
            Arriving::Answer(context, response, bytes) => {
                if f.command || f.context != *context {
                    return Err(self.broken("a data set with a command set in it"));
                }
                if bytes.len() + f.data.len() > DATA_SET_LENGTH_MAX {
                    return Err(self.broken("an answer that is too large"));
                }
                bytes.extend_from_slice(&f.data);
                if !f.last {
                    return Ok(Meaning::Nothing);
                }
                let (response, data) = (std::mem::take(response), bytes.split().freeze());
                self.arriving = Arriving::Command(None, BytesMut::new());
                Ok(self.answer(response, Some(data)))
            }
            Arriving::Image(context) => {
                if f.command || f.context != *context {
                    return Err(self.broken("an image with a command set in it"));
                }
                if f.last {
                    self.arriving = Arriving::Command(None, BytesMut::new());
                }
                Ok(Meaning::Data(f.data, f.last))
            }
        }
    }

    fn on_command(&mut self, context: u8, command: Command) -> Result<Meaning, Ending> {
        let State::Waiting { request, context: asked_in } = &self.state else {
            return Err(self.broken("a message, unasked for"));
        };
        match command {
            Command::Response(response) => {
                let expected = request.operation.field() | field::RESPONSE;
                if response.field != expected || response.responded_to != request.message_id {
                    return Err(self.broken("a response to another message"));
                }
                if context != *asked_in {
                    return Err(self.broken("a response in another context"));
                }
                let response = Box::new(response);
                if response.has_data_set {
                    self.arriving = Arriving::Answer(context, response, BytesMut::new());
                    return Ok(Meaning::Nothing);
                }
                Ok(self.answer(response, None))
            }
            Command::StoreRequest(store) if matches!(request.operation, Operation::Get(_)) => {
                if self.context_of(context).is_none() || !store.has_data_set {
                    return Err(self.broken("a C-STORE that cannot be one of this C-GET"));
                }
                self.arriving = Arriving::Image(context);
                Ok(Meaning::Store(context, Box::new(store)))
            }
            _ => Err(self.broken("a request that was not asked for")),
        }
    }

    fn answer(&mut self, mut response: Box<Response>, data: Option<Bytes>) -> Meaning {
        response.comment = peer_text(&response.comment);
        if !status::is_pending(response.status) {
            self.state = State::Open;
        }
        Meaning::Answer(response, data)
    }

    fn broken(&mut self, what: &str) -> Ending {
        self.state = State::Closed;
        Ending::Broken(what.to_owned())
    }
}

fn context_id(position: usize) -> u8 {
    u8::try_from(2 * position + 1).expect("at most 128 contexts")
}

/// What the acceptor says to one wanted SOP class.
fn judge(id: u8, wanted: Wanted, ac: &AssociationAC) -> Result<Context, NotTaken> {
    use PresentationContextResultReason as R;
    let Wanted { sop_class, syntaxes, roles } = wanted;
    let result = ac.presentation_contexts.iter().find(|r| r.id == id);
    let why = match result.map(|r| &r.reason) {
        Some(R::Acceptance) => None,
        Some(R::UserRejection) => Some("rejected by the user"),
        Some(R::NoReason) => Some("no reason"),
        Some(R::AbstractSyntaxNotSupported) => Some("SOP class not supported"),
        Some(R::TransferSyntaxesNotSupported) => Some("transfer syntaxes not supported"),
        None => Some("no answer"),
    };
    if let Some(why) = why {
        return Err(NotTaken::Context(sop_class, why));
    }
    let syntax = result.map(|r| trim_uid(&r.transfer_syntax)).unwrap_or_default().to_owned();
    if !is_uid(&syntax) || !syntaxes.contains(&syntax) {
        return Err(NotTaken::Context(sop_class, "answered with another transfer syntax"));
    }
    // Who does not answer the role falls back to the default roles, by the letter; in the field
    // it does not know role selection, and takes the event nevertheless. Only a no is a no.
    let refused = ac.user_variables.iter().any(|v| match v {
        UserVariableItem::ScuScpRoleSelectionSubItem(uid, given) => {
            trim_uid(uid) == sop_class && !given.scp
        }
        _ => false,
    });
    if refused && roles.is_some_and(|asked| asked.scp) {
        return Err(NotTaken::Role(sop_class));
    }
    Ok(Context { id, sop_class, syntax })
}

#[cfg(test)]
mod tests;
