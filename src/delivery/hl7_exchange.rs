//! One HL7 message after the other on one connection: which bytes are the answer to which message.
//! Pure; time limits are the driver's.
//!
//! An answer belongs to the message whose MSH-10 its MSA-2 repeats, and to no other. A second answer
//! to the message before (an AA after a CA) is passed over, up to [`STRAYS_MAX`] times; any other
//! answer means that both sides have lost each other, and the connection ends. So an answer that
//! comes too late never counts for another message: its connection is gone.

use crate::hl7::answer::Answer;
use crate::hl7::charset::{Charset, CharsetRule};
use crate::hl7::header::Header;
use crate::hl7::message::Message;
use crate::hl7::mllp::{Deframer, FrameError};

/// Longest answer, in bytes.
pub const ANSWER_LENGTH_MAX: usize = 256 << 10;
/// Further answers to earlier messages while one answer is awaited.
pub const STRAYS_MAX: u32 = 8;

/// Why a connection cannot be gone on with. What was sent on it without an answer may have arrived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The bytes are no MLLP, or too many.
    #[error("the answer is no MLLP: {0}")]
    Frame(#[from] FrameError),
    /// It cannot be split, or has no MSA-1 of table 0008.
    #[error("the answer is no HL7 acknowledgement")]
    NoAnswer,
    /// MSA-2 names another message.
    #[error("the answer is to another message (MSA-2 is not MSH-10)")]
    OtherMessage,
    /// Nothing was asked.
    #[error("an answer came although nothing was sent")]
    Unasked,
    /// More than [`STRAYS_MAX`] answers to a message that was answered already.
    #[error("more than {STRAYS_MAX} further answers to a message that was answered already")]
    Strays,
}

/// The exchange of one connection.
#[derive(Debug)]
pub struct Exchange {
    deframer: Deframer,
    charset: CharsetRule,
    awaited: Option<String>,
    answered: Option<String>,
    strays: u32,
}

impl Exchange {
    /// Of a new connection; answers whose MSH-18 is empty are in `charset`.
    pub fn new(charset: Charset) -> Self {
        Self {
            deframer: Deframer::new(ANSWER_LENGTH_MAX),
            charset: CharsetRule { default: charset, always: None },
            awaited: None,
            answered: None,
            strays: 0,
        }
    }

    /// A message with this MSH-10 goes out; the one before it has been answered.
    pub fn send(&mut self, control_id: String) {
        self.strays = 0;
        self.awaited = Some(control_id);
    }

    /// Takes bytes from the receiver. Call [`answer`](Self::answer) until it has no more before
    /// pushing again.
    pub fn push(&mut self, bytes: &[u8]) {
        self.deframer.push(bytes);
    }

    /// The answer to the message that was sent last, when it is there.
    ///
    /// # Errors
    ///
    /// [`Lost`]: the connection is of no use any more.
    pub fn answer(&mut self) -> Result<Option<Answer>, Lost> {
        while let Some(bytes) = self.deframer.next_message()? {
            let answer = self.read(&bytes).ok_or(Lost::NoAnswer)?;
            let of = Some(&answer.control_id);
            if of == self.awaited.as_ref() {
                self.answered = self.awaited.take();
                return Ok(Some(answer));
            }
            if of != self.answered.as_ref() {
                let asked = self.awaited.is_some();
                return Err(if asked { Lost::OtherMessage } else { Lost::Unasked });
            }
            self.strays += 1;
            if self.strays > STRAYS_MAX {
                return Err(Lost::Strays);
            }
        }
        Ok(None)
    }

    fn read(&self, bytes: &[u8]) -> Option<Answer> {
        let charset = self.charset.charset(bytes).unwrap_or_default();
        Answer::read(&Message::parse(&charset.decode(bytes).text).ok()?)
    }
}

/// MSH-10 of a message whose MSH-18 may be empty, and then means `charset`; `None`: it is no message,
/// or has none.
pub fn control_id(message: &[u8], charset: Charset) -> Option<String> {
    let end = message.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(message.len());
    let rule = CharsetRule { default: charset, always: None };
    let decoded = rule.charset(message).unwrap_or_default().decode(&message[..end]);
    let header = Header::of(&Message::parse_header(&decoded.text).ok()?);
    Some(header.control_id).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hl7::mllp::frame;

    fn ack(code: &str, id: &str) -> Vec<u8> {
        let text = format!("MSH|^~\\&|RIS|||||||7|P|2.5\rMSA|{code}|{id}\r");
        frame(text.as_bytes()).unwrap().to_vec()
    }

    fn exchange(id: &str) -> Exchange {
        let mut exchange = Exchange::new(Charset::UTF_8);
        exchange.send(id.into());
        exchange
    }

    fn hear(exchange: &mut Exchange, bytes: &[u8]) -> Result<Option<&'static str>, Lost> {
        exchange.push(bytes);
        exchange.answer().map(|answer| answer.map(|a| a.code()))
    }

    #[test]
    fn only_the_answer_that_names_the_message_is_its_answer() {
        let mut e = exchange("M2");
        assert_eq!(hear(&mut e, &ack("AA", "M1")), Err(Lost::OtherMessage));
        let mut e = exchange("M1");
        assert_eq!(hear(&mut e, &ack("AE", "M1")), Ok(Some("AE")));
        for (bytes, lost) in [
            (ack("AA", ""), Lost::OtherMessage),
            (ack("XX", "M1"), Lost::NoAnswer),
            (b"\x0bhello\x1c\r".to_vec(), Lost::NoAnswer),
            (b"HTTP/1.1 400".to_vec(), Lost::Frame(FrameError::OutsideFrame(b'H'))),
        ] {
            assert_eq!(hear(&mut exchange("M1"), &bytes), Err(lost));
        }
    }

    #[test]
    fn a_second_answer_to_the_message_before_is_passed_over_and_never_taken_for_the_next() {
        let mut e = exchange("M1");
        assert_eq!(hear(&mut e, &ack("CA", "M1")), Ok(Some("CA")));
        assert_eq!(hear(&mut e, &ack("AA", "M1")), Ok(None), "while nothing is asked");
        e.send("M2".into());
        assert_eq!(hear(&mut e, &ack("AE", "M1")), Ok(None));
        assert_eq!(hear(&mut e, &ack("AA", "M2")), Ok(Some("AA")));
        assert_eq!(hear(&mut e, &ack("AA", "M9")), Err(Lost::Unasked));
        let mut e = exchange("M1");
        assert_eq!(hear(&mut e, &ack("AA", "M1")), Ok(Some("AA")));
        let many = ack("AA", "M1").repeat(STRAYS_MAX as usize + 1);
        assert_eq!(hear(&mut e, &many), Err(Lost::Strays));
    }

    #[test]
    fn an_answer_may_come_byte_by_byte_and_has_a_longest_length() {
        let mut e = exchange("M1");
        let bytes = ack("AA", "M1");
        let (last, rest) = bytes.split_last().unwrap();
        for byte in rest {
            assert_eq!(hear(&mut e, &[*byte]), Ok(None));
        }
        assert_eq!(hear(&mut e, &[*last]), Ok(Some("AA")));
        let long = [&[0x0b][..], &vec![b'x'; ANSWER_LENGTH_MAX + 1]].concat();
        assert!(matches!(hear(&mut exchange("M1"), &long), Err(Lost::Frame(_))));
    }

    #[test]
    fn a_message_names_itself_in_any_character_set() {
        let id = |bytes: &[u8], charset: &str| control_id(bytes, charset.parse().unwrap());
        assert_eq!(id(b"MSH|^~\\&|A||||||ORU^R01|M1|P|2.5\rPID|x", "UTF-8").as_deref(), Some("M1"));
        // 0x7C, the field separator, is the second byte of this kanji.
        let text = "MSH|^~\\&|\u{8868}\u{92F3}|\u{5EB5}\u{6CBC}|||||ORU^R01|M1|P|2.5\r";
        let sjis: Charset = "Shift_JIS".parse().unwrap();
        assert_eq!(id(&sjis.encode(text).unwrap(), "Shift_JIS").as_deref(), Some("M1"));
        let none = [&b"MSH|^~\\&|A||||||ORU^R01||P|2.5\r"[..], b"\xa2\x00\x01", b""];
        none.iter().for_each(|bytes| assert_eq!(id(bytes, "UTF-8"), None));
    }
}
