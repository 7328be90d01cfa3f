//! The association acceptor of PS3.8 9.2, as far as an acceptor needs it. Pure.
//!
//! | state | meaning here |
//! |---|---|
//! | Sta1 | idle: no connection; [`State::Idle`] |
//! | Sta2 | connected, awaiting A-ASSOCIATE-RQ, ARTIM running; [`State::AwaitRequest`] |
//! | Sta3 | awaiting the local answer: passed through at once |
//! | Sta6 | established; [`State::Established`] |
//! | Sta8 | awaiting the local answer to A-RELEASE-RQ: passed through at once |
//! | Sta13 | awaiting the transport to close, ARTIM running; [`State::AwaitClose`] |
//!
//! Sta4, Sta5 and Sta7 are a requestor's, Sta9 to Sta12 are release collisions: this acceptor
//! never asks for release, it aborts when it must end. Every event gives exactly one action.

use std::net::IpAddr;
use std::sync::Arc;

use dicom_ul::pdu::{
    AbortRQServiceProviderReason as Reason, AbortRQSource, AssociationAC, AssociationRJ,
    AssociationRQ, Pdu,
};

use super::Config;
use super::access::{Admitted, Refusal, admit};
use super::message::{MessageError, Messages, Step};
use super::negotiation::{Contexts, Negotiated, negotiate};
use super::store::Endless;
use crate::cargo::peer_text;
use crate::dicom::pdata::{Event as Received, FramingError};

/// What happens to an association.
#[derive(Debug)]
pub enum Event {
    /// The peer has sent something.
    Received(Received),
    /// The peer has sent something that is not the upper-layer protocol.
    Malformed(FramingError),
    /// The time that the state allows has passed: ARTIM in Sta2 and Sta13, silence in Sta6.
    Expired,
    /// The transport has closed.
    Closed,
    /// A refused data set has no end.
    Endless(Endless),
    /// The node ends the association.
    Stop,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Send this; the association is established.
    Accept(AssociationAC),
    /// Send this, then wait for the transport to close.
    Reject(AssociationRJ, Refusal),
    /// A step of a message.
    Message(Step),
    /// Send A-RELEASE-RP, then wait for the transport to close.
    Release,
    /// Send A-ABORT with this source, then wait for the transport to close.
    Abort(AbortRQSource, Cause),
    /// Close the transport.
    Close(Cause),
}

/// Why an association ended otherwise than by release or rejection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The bytes are not the upper-layer protocol.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The fragments make no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A refused data set has no end.
    #[error(transparent)]
    Endless(#[from] Endless),
    /// A PDU that the state does not allow.
    #[error("PDU not expected in this state")]
    UnexpectedPdu,
    /// The peer has aborted.
    #[error("aborted by the peer")]
    PeerAborted,
    /// The peer closed the transport without release.
    #[error("connection closed by the peer without release")]
    PeerClosed,
    /// Nothing came for as long as the state allows.
    #[error("no A-ASSOCIATE-RQ in time")]
    NoRequest,
    /// Silence, or a message without end.
    #[error("timed out")]
    TimedOut,
    /// The transport was closed after the last word.
    #[error("closed")]
    Ended,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// The states of PS3.8 9.2.1 that this acceptor stays in.
#[derive(Debug)]
pub enum State {
    /// Sta2.
    AwaitRequest,
    /// Sta6.
    Established(Box<Established>),
    /// Sta13.
    AwaitClose,
    /// Sta1.
    Idle,
}

/// What both sides have agreed on, and the message under way.
#[derive(Debug)]
pub struct Established {
    /// The two AE titles.
    pub admitted: Admitted,
    /// Accepted presentation contexts.
    pub contexts: Contexts,
    /// Longest P-DATA-TF to write to this peer, in bytes.
    pub write_length: u32,
    messages: Messages,
}

/// Who is let in: what an answer to A-ASSOCIATE-RQ depends on besides the request.
#[derive(Debug, Clone)]
pub struct Door {
    /// The configuration when the connection came.
    pub config: Arc<Config>,
    /// The peer's address.
    pub address: IpAddr,
    /// A reason to refuse whatever is asked for.
    pub refuse: Option<Refusal>,
    /// Whether the node has somebody to perform the services beside storage.
    pub services: bool,
}

/// One association, from the accepted connection to its end.
#[derive(Debug)]
pub struct Association {
    state: State,
    door: Door,
    /// The calling and the called AE title that were asked for.
    asked: Option<(String, String)>,
}

impl Association {
    /// Sta2: the transport connection has been accepted (AE-5).
    pub fn new(door: Door) -> Self {
        Self { state: State::AwaitRequest, door, asked: None }
    }

    /// The calling and the called AE title that the peer claims, fit for a log; absent before it
    /// has asked for an association.
    pub fn asked(&self) -> Option<(&str, &str)> {
        self.asked.as_ref().map(|(calling, called)| (calling.as_str(), called.as_str()))
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a message has begun and not ended.
    pub fn message_under_way(&self) -> bool {
        matches!(&self.state, State::Established(e) if e.messages.under_way())
    }

    /// Takes one event.
    pub fn on_event(&mut self, event: Event) -> Action {
        match self.state {
            State::AwaitRequest => self.on_await_request(event),
            State::Established(_) => self.on_established(event),
            State::AwaitClose => self.on_await_close(event),
            State::Idle => Action::Nothing,
        }
    }

    fn on_await_request(&mut self, event: Event) -> Action {
        match event {
            Event::Received(Received::Pdu(Pdu::AssociationRQ(rq))) => self.answer(&rq),
            // AA-2
            Event::Received(Received::Pdu(Pdu::AbortRQ { .. })) => self.close(Cause::PeerAborted),
            Event::Expired => self.close(Cause::NoRequest),
            // AA-5
            Event::Closed => self.close(Cause::PeerClosed),
            // AA-1
            Event::Received(_) => self.abort(AbortRQSource::ServiceUser, Cause::UnexpectedPdu),
            Event::Malformed(e) => self.abort(AbortRQSource::ServiceUser, e.into()),
            Event::Endless(e) => self.abort(AbortRQSource::ServiceUser, e.into()),
            Event::Stop => self.abort(AbortRQSource::ServiceUser, Cause::Stopping),
        }
    }

    /// AE-6, then AE-7 or AE-8.
    fn answer(&mut self, rq: &AssociationRQ) -> Action {
        self.asked = Some((peer_text(&rq.calling_ae_title), peer_text(&rq.called_ae_title)));
        let admitted = match self.door.refuse {
            Some(refusal) => Err(refusal),
            None => admit(rq, self.door.address, &self.door.config),
        };
        match admitted {
            Ok(admitted) => {
                let Negotiated { accept, contexts, write_length } = negotiate(
                    rq,
                    &admitted,
                    self.door.config.limits.pdu_length,
                    self.door.services,
                );
                let messages = Messages::new();
                let established = Established { admitted, contexts, write_length, messages };
                self.state = State::Established(Box::new(established));
                Action::Accept(accept)
            }
            Err(refusal) => {
                self.state = State::AwaitClose;
                Action::Reject(refusal.reject(), refusal)
            }
        }
    }

    fn on_established(&mut self, event: Event) -> Action {
        let State::Established(established) = &mut self.state else { return Action::Nothing };
        let provider = AbortRQSource::ServiceProvider;
        match event {
            // DT-2
            Event::Received(Received::Fragment(fragment)) => {
                match established.messages.take(fragment, &established.contexts) {
                    Ok(Step::Nothing) => Action::Nothing,
                    Ok(step) => Action::Message(step),
                    Err(e) => self.abort(provider(Reason::InvalidPduParameter), e.into()),
                }
            }
            // AR-2, AR-4
            Event::Received(Received::Pdu(Pdu::ReleaseRQ)) => {
                self.state = State::AwaitClose;
                Action::Release
            }
            // AA-3
            Event::Received(Received::Pdu(Pdu::AbortRQ { .. })) => self.close(Cause::PeerAborted),
            // AA-4
            Event::Closed => self.close(Cause::PeerClosed),
            // AA-8
            Event::Received(Received::Pdu(_)) => {
                self.abort(provider(Reason::UnexpectedPdu), Cause::UnexpectedPdu)
            }
            Event::Malformed(e) => self.abort(provider(reason_of(&e)), e.into()),
            // AA-1
            Event::Expired => self.abort(AbortRQSource::ServiceUser, Cause::TimedOut),
            Event::Endless(e) => self.abort(AbortRQSource::ServiceUser, e.into()),
            Event::Stop => self.abort(AbortRQSource::ServiceUser, Cause::Stopping),
        }
    }

    /// What comes after the last word is not answered (AA-6): at most it hastens the end.
    fn on_await_close(&mut self, event: Event) -> Action {
        match event {
            Event::Received(Received::Pdu(Pdu::AbortRQ { .. }))
            | Event::Malformed(_)
            | Event::Expired
            | Event::Closed
            | Event::Endless(_)
            | Event::Stop => self.close(Cause::Ended),
            Event::Received(_) => Action::Nothing,
        }
    }

    fn abort(&mut self, source: AbortRQSource, cause: Cause) -> Action {
        self.state = State::AwaitClose;
        Action::Abort(source, cause)
    }

    fn close(&mut self, cause: Cause) -> Action {
        self.state = State::Idle;
        Action::Close(cause)
    }
}

fn reason_of(error: &FramingError) -> Reason {
    match error {
        FramingError::UnknownPdu(_) => Reason::UnrecognizedPdu,
        FramingError::PduTooLong { .. }
        | FramingError::EmptyPData
        | FramingError::PdvLength { .. }
        | FramingError::Malformed { .. } => Reason::InvalidPduParameter,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use dicom_ul::pdu::PresentationContextProposed;
    use proptest::prelude::*;

    use super::*;
    use crate::dicom::command::Command;
    use crate::dicom::pdata::{Decoder, put_command, put_pdu};
    use crate::dicom::{IMPLICIT_VR_LE, VERIFICATION};
    use crate::intake::access::tests::{config, request};

    fn association(refuse: Option<Refusal>) -> Association {
        let address = "10.1.2.3".parse().unwrap();
        Association::new(Door { config: Arc::new(config()), address, refuse, services: false })
    }

    fn pdu(pdu: impl Into<Pdu>) -> Event {
        Event::Received(Received::Pdu(pdu.into()))
    }

    fn echo_request() -> AssociationRQ {
        let context = PresentationContextProposed {
            id: 1,
            abstract_syntax: VERIFICATION.into(),
            transfer_syntaxes: vec![IMPLICIT_VR_LE.into()],
        };
        AssociationRQ { presentation_contexts: vec![context], ..request() }
    }

    fn established() -> Association {
        let mut a = association(None);
        assert!(matches!(a.on_event(pdu(echo_request())), Action::Accept(_)));
        assert!(matches!(a.state(), State::Established(_)));
        a
    }

    #[test]
    fn an_association_is_accepted_echoes_and_is_released() {
        let mut a = established();
        let mut bytes = vec![];
        let echo = Command::EchoRequest { message_id: 3, sop_class: VERIFICATION.into() };
        put_command(&mut bytes, 1, &echo.encode(), 16384);
        let mut buffer = BytesMut::from(&bytes[..]);
        let fragment = Decoder::new().poll(&mut buffer).unwrap().unwrap();
        let action = a.on_event(Event::Received(fragment));
        assert!(matches!(action, Action::Message(Step::Echo { context: 1, message_id: 3, .. })));
        assert!(matches!(a.on_event(pdu(Pdu::ReleaseRQ)), Action::Release));
        assert!(matches!(a.on_event(Event::Closed), Action::Close(Cause::Ended)));
        assert!(matches!(a.state(), State::Idle));
    }

    #[test]
    fn a_stranger_is_rejected_and_so_is_everyone_when_the_node_is_full() {
        let mut a = association(None);
        let rq = AssociationRQ { calling_ae_title: "EVIL".into(), ..echo_request() };
        assert!(matches!(a.on_event(pdu(rq)), Action::Reject(_, Refusal::CallingAe)));
        assert!(matches!(a.state(), State::AwaitClose));
        assert_eq!(a.asked(), Some(("EVIL", "TELE_STAT")), "the log can say who it was");
        let mut a = association(Some(Refusal::Full));
        assert!(matches!(a.on_event(pdu(echo_request())), Action::Reject(_, Refusal::Full)));
    }

    #[test]
    fn a_pdu_out_of_turn_is_aborted_as_the_state_table_says() {
        let user = AbortRQSource::ServiceUser;
        let unexpected = AbortRQSource::ServiceProvider(Reason::UnexpectedPdu);
        for wrong in [Pdu::ReleaseRQ, Pdu::ReleaseRP] {
            let action = association(None).on_event(pdu(wrong));
            assert!(matches!(action, Action::Abort(s, Cause::UnexpectedPdu) if s == user));
        }
        let wrong = [Pdu::ReleaseRP, echo_request().into(), Refusal::Full.reject().into()];
        for wrong in wrong {
            let mut a = established();
            let action = a.on_event(pdu(wrong));
            assert!(matches!(action, Action::Abort(s, Cause::UnexpectedPdu) if s == unexpected));
            assert!(matches!(a.state(), State::AwaitClose));
        }
    }

    #[test]
    fn garbage_is_aborted_with_the_reason_that_fits() {
        let unknown = || Event::Malformed(FramingError::UnknownPdu(9));
        let action = established().on_event(unknown());
        let expected = AbortRQSource::ServiceProvider(Reason::UnrecognizedPdu);
        assert!(matches!(action, Action::Abort(s, Cause::Framing(_)) if s == expected));
        let action = association(None).on_event(unknown());
        assert!(matches!(action, Action::Abort(AbortRQSource::ServiceUser, _)));
        let mut a = established();
        a.on_event(pdu(Pdu::ReleaseRQ));
        assert!(matches!(a.on_event(unknown()), Action::Close(Cause::Ended)));
    }

    #[test]
    fn silence_ends_an_association_in_every_state() {
        let action = association(None).on_event(Event::Expired);
        assert!(matches!(action, Action::Close(Cause::NoRequest)));
        let mut a = established();
        assert!(matches!(a.on_event(Event::Expired), Action::Abort(_, Cause::TimedOut)));
        assert!(matches!(a.on_event(Event::Expired), Action::Close(Cause::Ended)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_after_the_last_word_nothing_is_said(
            open in any::<bool>(),
            kind in 1u8..9,
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut stream = vec![];
            if open {
                put_pdu(&mut stream, &echo_request().into());
            }
            stream.extend_from_slice(&[kind, 0]);
            stream.extend_from_slice(&(body.len() as u32).to_be_bytes());
            stream.extend_from_slice(&body);
            let mut buffer = BytesMut::from(&stream[..]);
            let mut decoder = Decoder::new();
            let mut a = association(None);
            let mut ended = false;
            loop {
                let (event, stop) = match decoder.poll(&mut buffer) {
                    Ok(Some(event)) => (Event::Received(event), false),
                    Ok(None) => (Event::Closed, true),
                    Err(e) => (Event::Malformed(e), true),
                };
                let action = a.on_event(event);
                if ended {
                    prop_assert!(matches!(action, Action::Nothing | Action::Close(_)));
                }
                ended |= matches!(
                    action,
                    Action::Reject(..) | Action::Release | Action::Abort(..) | Action::Close(_)
                );
                if stop {
                    break;
                }
            }
        }
    }
}
