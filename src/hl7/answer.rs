//! What a receiver answers to a message of ours: MSA and ERR of an ACK, ORR, ORG or ORI (HL7 2.5
//! 2.9.2, 2.15).
//!
//! A receiver writes what it likes into the texts of its answer, the patient's name too. So what is
//! shown and logged is codes alone ([`Answer::told`]): table 0008, error numbers, and places in the
//! message.

use std::fmt;

use super::ack::{Condition, Stage, Verdict, acknowledgement_code, named};
use super::datatype::value;
use super::message::{Message, Piece, SegmentRef};
use super::path::{Location, is_segment_name};

/// Most errors of an answer that are read as codes.
const ERRORS_MAX: usize = 3;
/// Longest number that is believed to be an error code; those of table 0357 have three digits.
const CODE_LENGTH_MAX: usize = 3;
/// Highest number of a segment or field that is believed.
const PLACE_MAX: u16 = 999;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which acknowledgement it is.
    pub stage: Stage,
    /// No, and of which kind; none when it is a yes.
    pub refused: Option<Verdict>,
    /// MSA-2: MSH-10 of the message that is answered.
    pub control_id: String,
    /// What the receiver says of it: MSA-3, or else ERR-8, ERR-3 or ERR-1 of the first ERR. It may
    /// name a patient.
    pub words: String,
    /// The same in codes.
    pub errors: Vec<ErrorCode>,
}

/// What one ERR says in codes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorCode {
    /// Error code (ERR-3.1, ERR-1.4, MSA-6.1) where it is a number; else empty.
    pub code: String,
    /// Where in the message (ERR-2, ERR-1).
    pub location: Option<Location>,
}

impl Answer {
    /// Reads MSA and ERR of any message that has them; none when there is no MSA with a code of
    /// table 0008.
    pub fn read(message: &Message) -> Option<Self> {
        let msa = message.segments().find(|segment| segment.is("MSA"))?;
        let (stage, refused) = match value(msa.field(1)).as_str() {
            "AA" => (Stage::Application, None),
            "AE" => (Stage::Application, Some(Verdict::Error)),
            "AR" => (Stage::Application, Some(Verdict::Reject)),
            "CA" => (Stage::Accept, None),
            "CE" => (Stage::Accept, Some(Verdict::Error)),
            "CR" => (Stage::Accept, Some(Verdict::Reject)),
            _ => return None,
        };
        let errs = || message.segments().filter(|segment| segment.is("ERR"));
        let texts = errs().take(1).flat_map(|err| [err.field(8), err.field(3), err.field(1)]);
        let mut texts = std::iter::once(msa.field(3)).chain(texts).map(value);
        let words = texts.find(|text| !text.is_empty()).unwrap_or_default();
        let mut errors: Vec<_> = errs().filter_map(ErrorCode::read).take(ERRORS_MAX).collect();
        if errors.is_empty() {
            errors.extend(ErrorCode::new(&value(msa.field(6).component(1)), None));
        }
        Some(Self { stage, refused, control_id: value(msa.field(2)), words, errors })
    }

    /// Its code of table 0008.
    pub fn code(&self) -> &'static str {
        acknowledgement_code(self.stage, self.refused)
    }

    /// What it says without a patient: `AE 101 (required field missing) at PID-3`.
    pub fn told(&self) -> String {
        let errors: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        format!("{} {}", self.code(), errors.join(", ")).trim_end().to_owned()
    }

    /// Whether words that [`told`](Self::told) gave tell of an error (AE, CE): the receiver has not
    /// taken the message, and may yet.
    pub fn tells_error(words: &str) -> bool {
        matches!(words.get(..2), Some("AE" | "CE"))
            && words.get(2..3).is_none_or(|next| !next.as_bytes()[0].is_ascii_alphanumeric())
    }
}

impl ErrorCode {
    fn new(code: &str, location: Option<Location>) -> Option<Self> {
        let is_code = (1..=CODE_LENGTH_MAX).contains(&code.len())
            && code.bytes().all(|digit| digit.is_ascii_digit());
        let code = if is_code { code.to_owned() } else { String::new() };
        (is_code || location.is_some()).then_some(Self { code, location })
    }

    /// From 2.5 on ERR-2 and ERR-3, before it ERR-1.
    fn read(err: SegmentRef<'_>) -> Option<Self> {
        let newer = Self::new(&value(err.field(3).component(1)), place(err.field(2).repetition(1)));
        let old = err.field(1).repetition(1);
        newer.or_else(|| Self::new(&value(old.component(4).subcomponent(1)), place(old)))
    }
}

/// Segment, sequence and field of ERL (2.A.28) or ELD (2.A.25).
fn place(piece: Piece<'_>) -> Option<Location> {
    let number = |n| {
        let number = value(piece.component(n)).parse::<u16>().ok();
        number.filter(|number| (1..=PLACE_MAX).contains(number))
    };
    let segment = value(piece.component(1)).to_ascii_uppercase();
    is_segment_name(&segment).then(|| Location {
        segment,
        sequence: number(2).unwrap_or(1).into(),
        field: number(3),
        component: None,
    })
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if let Some(known) = Condition::ALL.iter().find(|c| c.code() == self.code) {
            write!(f, " ({})", known.text().to_ascii_lowercase())?;
        }
        match &self.location {
            Some(location) if self.code.is_empty() => write!(f, "at {}", named(location)),
            Some(location) => write!(f, " at {}", named(location)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hl7::ack::{Refusal, Stamp, acknowledge};

    fn read(rest: &str) -> Option<Answer> {
        let text = format!("MSH|^~\\&|A||||||ORG^O20|1|P|2.5\r{rest}");
        Answer::read(&Message::parse(&text).unwrap())
    }

    #[test]
    fn what_we_answer_ourselves_is_read_back_in_words_and_in_codes() {
        for version in ["2.3", "2.5"] {
            let asked = format!("MSH|^~\\&|RIS||GW||2026||OMI^O23|M1|P|{version}\r");
            let asked = Message::parse(&asked).unwrap();
            let stamp = Stamp { control_id: "77", at: "20261122" };
            for stage in [Stage::Application, Stage::Accept] {
                let yes = Answer::read(&acknowledge(&asked, stage, &[], stamp)).unwrap();
                assert_eq!((yes.stage, yes.refused, yes.control_id.as_str()), (stage, None, "M1"));
                assert_eq!(yes.told(), yes.code());
                let refusal = Refusal::missing(Location::field("PID", 1, 3));
                let no = Answer::read(&acknowledge(&asked, stage, &[refusal], stamp)).unwrap();
                assert_eq!(no.words, "PID-3 is missing");
                let told = format!("{} 101 (required field missing) at PID-3", no.code());
                assert_eq!(no.told(), told, "{version}");
                assert!(Answer::tells_error(&told));
            }
        }
    }

    #[test]
    fn what_names_a_patient_is_never_told() {
        let no = read(
            "MSA|AE|7|YAMADA TARO is not known||YAMADA|YAMADA^x\r\
             ERR||YAMADA^1^TARO|1234567^YAMADA^L|E|YAMADA|TARO||YAMADA\r",
        )
        .unwrap();
        assert_eq!((no.told().as_str(), no.words.as_str()), ("AE", "YAMADA TARO is not known"));
        let no = read("MSA|AR|7\rERR||OBR^2^4|YAMADA\rERR||ZDS|204^Unknown key\r").unwrap();
        assert_eq!(no.told(), "AR at OBR-4, 204 (unknown key identifier) at ZDS");
        assert_eq!(
            read("MSA|CE|7||||207\r").unwrap().told(),
            "CE 207 (application internal error)"
        );
    }

    #[test]
    fn an_answer_without_a_code_of_the_table_is_none() {
        assert_eq!((read("MSA|XX|7\r"), read("PID|||1\r")), (None, None));
        assert!(!Answer::tells_error("AR at OBR-4") && !Answer::tells_error("no answer"));
        assert!(!Answer::tells_error("AES") && Answer::tells_error("AE"));
    }
}
