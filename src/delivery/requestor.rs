//! The requestor's side of an association (PS3.8 9.2, states Sta5 to Sta7) with C-STORE on it
//! (PS3.7 9.3.1): events in, what they mean out. Pure.
//!
//! One operation at a time. An answer counts only when it is a C-STORE-RSP to the message that
//! was sent last, and a success only once the whole data set was sent.
//!
//! ```text
//!  Asking --AC--> Open --begin_store--> Sending --data_sent--> Waiting --RSP--> Open
//!    |             |                       |                      |
//!    RJ            +---- release ----> Releasing --RP--> Closed   |
//!    +--------------------- RJ, A-ABORT, anything wrong ----------+--> Closed
//! ```

use bytes::BytesMut;
use dicom_ul::pdu::{AssociationRQ, Pdu, PresentationContextResult, UserVariableItem};

use super::contexts::{Proposal, Terms};
use crate::cargo::peer_text;
use crate::dicom::command::{COMMAND_LENGTH_MAX, Command, Priority, StoreRequest, field};
use crate::dicom::pdata::{self, Event};
use crate::dicom::{
    APPLICATION_CONTEXT, AeTitle, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME,
};
pub use crate::inquiry::requestor::Ending;
use crate::inquiry::requestor::{pdu_name, rejection};

/// Longest P-DATA-TF that we ask for, in bytes: only responses come.
const ANNOUNCED_LENGTH: u32 = 16 * 1024;

/// Most offending elements that are told of.
pub const OFFENDING_MAX: usize = 8;

/// What an event means.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing yet: more fragments follow.
    Nothing,
    /// The association stands.
    Accepted,
    /// The answer to the C-STORE.
    Answer(Answer),
    /// The peer wants to end the association: write A-RELEASE-RP and close.
    PeerReleases,
    /// Our release is confirmed: close.
    Released,
}

/// A C-STORE-RSP to the operation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status (0000,0900).
    pub status: u16,
    /// Offending Element (0000,0901), at most [`OFFENDING_MAX`] tags.
    pub offending: Vec<(u16, u16)>,
    /// Error Comment (0000,0902), bounded and free of control characters; the peer's words, which
    /// may name a patient.
    pub comment: String,
}

#[derive(Debug)]
enum State {
    Asking(Proposal),
    Open,
    Sending { message_id: u16, early: Option<Answer> },
    Waiting { message_id: u16 },
    Releasing,
    Closed,
}

/// One association, from its request on.
#[derive(Debug)]
pub struct Requestor {
    state: State,
    terms: Terms,
    write_length: u32,
    next_message_id: u16,
    /// The command set that is arriving, its context.
    command: BytesMut,
    context: u8,
}

impl Requestor {
    /// Begins; the PDU is the A-ASSOCIATE-RQ to write.
    pub fn new(calling: &AeTitle, called: &AeTitle, proposal: Proposal) -> (Self, Pdu) {
        let request = Pdu::AssociationRQ(AssociationRQ {
            protocol_version: 1,
            calling_ae_title: calling.as_str().to_owned(),
            called_ae_title: called.as_str().to_owned(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: proposal.items(),
            user_variables: vec![
                UserVariableItem::MaxLength(ANNOUNCED_LENGTH),
                UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
                UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
            ],
        });
        let requestor = Self {
            state: State::Asking(proposal),
            terms: Terms::new(Proposal::default(), vec![]),
            write_length: pdata::write_length(None),
            next_message_id: 1,
            command: BytesMut::new(),
            context: 0,
        };
        (requestor, request)
    }

    /// What was negotiated; nothing before [`Meaning::Accepted`].
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Longest P-DATA-TF to write, in bytes.
    pub fn write_length(&self) -> u32 {
        self.write_length
    }

    /// Begins a C-STORE; the bytes are its command set. The data set follows in the same context,
    /// then [`data_sent`](Self::data_sent).
    ///
    /// # Panics
    ///
    /// When the association is not open: a bug of ours.
    pub fn begin_store(&mut self, sop_class: &str, sop_instance: &str) -> Vec<u8> {
        assert!(matches!(self.state, State::Open), "store on {:?}", self.state);
        let message_id = self.next_message_id;
        self.next_message_id = message_id.checked_add(1).unwrap_or(1);
        self.state = State::Sending { message_id, early: None };
        let request = StoreRequest {
            message_id,
            sop_class: sop_class.to_owned(),
            sop_instance: sop_instance.to_owned(),
            priority: Priority::Medium,
            move_originator: None,
            has_data_set: true,
        };
        Command::StoreRequest(request).encode()
    }

    /// The last fragment of the data set is written. An answer that came before it is given now:
    /// a refusal counts, a success cannot be true.
    pub fn data_sent(&mut self) -> Result<Option<Answer>, Ending> {
        let State::Sending { message_id, early } = &mut self.state else {
            panic!("data sent on {:?}", self.state)
        };
        match early.take() {
            None => {
                self.state = State::Waiting { message_id: *message_id };
                Ok(None)
            }
            Some(answer) if stored(answer.status) => {
                Err(self.broken("success before the data set was sent"))
            }
            Some(answer) => {
                self.state = State::Open;
                Ok(Some(answer))
            }
        }
    }

    /// Begins to end the association; the PDU is to be written.
    pub fn release(&mut self) -> Pdu {
        self.state = State::Releasing;
        Pdu::ReleaseRQ
    }

    /// What an event from the peer means.
    pub fn on_event(&mut self, event: Event) -> Result<Meaning, Ending> {
        match event {
            Event::Pdu(pdu) => self.on_pdu(pdu),
            Event::Fragment(f) if !f.command => Err(self.broken("a data set, unasked for")),
            Event::Fragment(f) => {
                if self.command.len() + f.data.len() > COMMAND_LENGTH_MAX {
                    return Err(self.broken("endless command set"));
                }
                if !self.command.is_empty() && f.context != self.context {
                    return Err(self.broken("command set in two contexts"));
                }
                self.context = f.context;
                self.command.extend_from_slice(&f.data);
                if !f.last {
                    return Ok(Meaning::Nothing);
                }
                let bytes = self.command.split();
                let command = Command::decode(&bytes).map_err(|e| self.broken(&e.to_string()))?;
                self.on_command(command)
            }
        }
    }

    fn on_pdu(&mut self, pdu: Pdu) -> Result<Meaning, Ending> {
        match (&mut self.state, pdu) {
            (_, Pdu::AbortRQ { .. }) => {
                self.state = State::Closed;
                Err(Ending::Aborted)
            }
            (State::Asking(proposal), Pdu::AssociationAC(ac)) => {
                let proposal = std::mem::take(proposal);
                self.accept(proposal, ac.presentation_contexts, &ac.user_variables);
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

    fn accept(
        &mut self,
        proposal: Proposal,
        results: Vec<PresentationContextResult>,
        variables: &[UserVariableItem],
    ) {
        let named = variables.iter().find_map(|v| match v {
            UserVariableItem::MaxLength(length) => Some(*length),
            _ => None,
        });
        self.write_length = pdata::write_length(named);
        self.terms = Terms::new(proposal, results);
        self.state = State::Open;
    }

    fn on_command(&mut self, command: Command) -> Result<Meaning, Ending> {
        let Command::Response(rsp) = command else {
            return Err(self.broken("a request, although we are no SCP here"));
        };
        let expected = match self.state {
            State::Sending { message_id, early: None } | State::Waiting { message_id } => {
                message_id
            }
            _ => return Err(self.broken("a response, unasked for")),
        };
        if rsp.field != field::C_STORE_RSP || rsp.has_data_set {
            return Err(self.broken("a response that is none to C-STORE"));
        }
        if rsp.responded_to != expected {
            return Err(self.broken("a response to another message"));
        }
        let mut offending = rsp.offending;
        offending.truncate(OFFENDING_MAX);
        let comment = peer_text(&rsp.comment);
        let answer = Answer { status: rsp.status, offending, comment };
        if let State::Sending { early, .. } = &mut self.state {
            *early = Some(answer);
            return Ok(Meaning::Nothing);
        }
        self.state = State::Open;
        Ok(Meaning::Answer(answer))
    }

    fn broken(&mut self, what: &str) -> Ending {
        self.state = State::Closed;
        Ending::Broken(what.to_owned())
    }
}

fn stored(status: u16) -> bool {
    use super::status::{Verdict, verdict};
    matches!(verdict(status), Verdict::Success | Verdict::Warning)
}

/// Cuts a data set into P-DATA-TF PDUs. Every fragment but the last is as long as the peer
/// allows, however the bytes come.
#[derive(Debug)]
pub struct Framer {
    context: u8,
    write_length: u32,
    /// Bytes that do not fill a fragment yet.
    carry: Vec<u8>,
}

impl Framer {
    /// For one data set.
    pub fn new(context: u8, write_length: u32) -> Self {
        Self { context, write_length, carry: vec![] }
    }

    /// How many bytes at a time keep copies few: about `about`, in whole fragments.
    pub fn chunk_length(&self, about: usize) -> usize {
        let room = pdata::value_length(self.write_length);
        room * (about / room).max(1)
    }

    /// Appends what `bytes` make to `out`; with `last` the data set ends here.
    pub fn put(&mut self, out: &mut Vec<u8>, mut bytes: &[u8], last: bool) {
        let (context, length) = (self.context, self.write_length);
        let room = pdata::value_length(length);
        if !self.carry.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(room - self.carry.len()));
            self.carry.extend_from_slice(now);
            bytes = rest;
            let ends = last && bytes.is_empty();
            if ends || self.carry.len() == room {
                pdata::put_data(out, context, &self.carry, ends, length);
                self.carry.clear();
            }
            if ends {
                return;
            }
        }
        let whole = if last { bytes.len() } else { bytes.len() / room * room };
        if whole > 0 || last {
            pdata::put_data(out, context, &bytes[..whole], last, length);
        }
        self.carry.extend_from_slice(&bytes[whole..]);
    }
}

#[cfg(test)]
mod tests;
