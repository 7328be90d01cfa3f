//! All steps from the bytes of one frame to what they say and how they are answered.
//!
//! Whatever arrives can be answered: with the names and the control ID of the sender where MSH can
//! be read, without them where it cannot. What the answer says about custody is the caller's: it
//! asks for it when the message is kept, or adds a refusal of its own when it cannot be.

use super::ack::{self, Refusal, Stage, Stamp, acknowledge, unreadable};
use super::charset::{Charset, CharsetRule};
use super::header::{Accepts, Header, REPORT};
use super::message::{Message, MessageError};
use super::order::{OrderFields, OrderMessage};
use super::patient::PatientMessage;
use super::report::ReportMessage;

/// How messages of a sender are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Character sets.
    pub charset: CharsetRule,
    /// Which messages are taken.
    pub accepts: Accepts,
    /// Where orders and reports have what.
    pub fields: OrderFields,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// ORM^O01, OMG^O19, OMI^O23.
    Orders(Box<OrderMessage>),
    /// ADT^A08, ADT^A40.
    Patients(PatientMessage),
    /// ORU^R01, where [`Accepts::reports`] says so.
    Reports(Box<ReportMessage>),
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    message: Option<Message>,
    charset: Charset,
    faults: Vec<usize>,
    content: Result<Content, Vec<Refusal>>,
}

impl Inbound {
    /// Reads the content of one frame.
    pub fn read(bytes: &[u8], rules: &Rules) -> Self {
        let charset = rules.charset.charset(bytes);
        let decoded = charset.as_ref().copied().unwrap_or_default().decode(bytes);
        let whole = Message::parse(&decoded.text);
        let refused =
            charset.err().map(Refusal::from).or(whole.as_ref().err().copied().map(Refusal::from));
        let content = match (refused, &whole) {
            (None, Ok(message)) => content(message, rules),
            (refused, _) => Err(refused.into_iter().collect()),
        };
        // MSH alone is enough to say no.
        let message = whole.or_else(|_| Message::parse_header(&decoded.text)).ok();
        Self { message, charset: decoded.charset, faults: decoded.faults, content }
    }

    /// The message, or its MSH alone when the rest cannot be split.
    pub fn message(&self) -> Option<&Message> {
        self.message.as_ref()
    }

    /// MSH, where it can be read.
    pub fn header(&self) -> Option<Header> {
        self.message.as_ref().map(Header::of)
    }

    /// What it is written in.
    pub fn charset(&self) -> Charset {
        self.charset
    }

    /// Offsets of the first bytes that could not be decoded; [`Message::undecoded`] names their
    /// fields.
    pub fn faults(&self) -> &[usize] {
        &self.faults
    }

    /// What it says, or why it is not taken.
    pub fn content(&self) -> Result<&Content, &[Refusal]> {
        self.content.as_ref().map_err(Vec::as_slice)
    }

    /// The acknowledgements that it asks for, given these refusals of the caller's beside its own.
    pub fn wanted(&self, more: &[Refusal]) -> Vec<Stage> {
        let refused = self.content.is_err() || !more.is_empty();
        self.header().map_or_else(|| vec![Stage::Application], |h| ack::wanted(&h, refused))
    }

    /// All acknowledgements that it asks for, in their order: yes, unless it was refused here or is
    /// by the caller (`more`). `at` as HL7 writes it; each gets a control ID of its own.
    pub fn answers(
        &self,
        more: &[Refusal],
        at: &str,
        mut control_id: impl FnMut() -> String,
    ) -> Vec<Vec<u8>> {
        let answer = |stage| {
            let control_id = control_id();
            self.answer(stage, more, Stamp { control_id: &control_id, at })
        };
        self.wanted(more).into_iter().map(answer).collect()
    }

    /// The answer in the character set of the message: yes, unless it was refused here or is by
    /// the caller (`more`).
    pub fn answer(&self, stage: Stage, more: &[Refusal], stamp: Stamp<'_>) -> Vec<u8> {
        let own = self.content.as_ref().err().into_iter().flatten();
        let refusals: Vec<Refusal> = own.chain(more).cloned().collect();
        let answer = match &self.message {
            Some(message) => acknowledge(message, stage, &refusals, stamp),
            None => {
                let refusal = refusals.into_iter().next();
                unreadable(&refusal.unwrap_or(MessageError::NoHeader.into()), stamp)
            }
        };
        self.charset.encode_lossy(&answer.write()).0
    }
}

fn content(message: &Message, rules: &Rules) -> Result<Content, Vec<Refusal>> {
    let header = Header::of(message);
    header.check(&rules.accepts).map_err(|refusal| vec![refusal])?;
    if header.code == "ADT" {
        let patients = PatientMessage::read(message).map_err(|refusal| vec![refusal])?;
        return Ok(Content::Patients(patients));
    }
    if header.code == REPORT {
        let reports = ReportMessage::read(message, &rules.fields)?;
        return Ok(Content::Reports(Box::new(reports)));
    }
    let orders = OrderMessage::read(message, &rules.fields)?;
    Ok(Content::Orders(Box::new(orders)))
}
