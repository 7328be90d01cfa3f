//! Acknowledgements (HL7 2.5 2.9, 2.15): MSA says yes or no, ERR what is wrong and where.
//!
//! The answer has the delimiters, version, processing ID and character set of the question, and
//! its sender and receiver exchanged, so that whoever asked can read it. It is always the general
//! acknowledgement (`ACK`): receivers of orders take it in place of ORR, ORG and ORI.
//!
//! A *reject* (AR, CR) is about the message as such, an *error* (AE, CE) about what it says.
//! Neither is worth sending the same bytes again. What others answer to us: [`answer`](super::answer).

use super::charset::UnknownCharset;
use super::datatype::{components, escaped, repetitions};
use super::header::{Header, Mode};
use super::message::{Delimiters, Message, MessageError, Segment};
use super::path::Location;

/// Most refusals that an answer lists; a broken sender gets the first ones.
pub const REFUSALS_MAX: usize = 20;

/// What is wrong (table 0357).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the table's texts")]
pub enum Condition {
    SegmentSequenceError,
    RequiredFieldMissing,
    DataTypeError,
    TableValueNotFound,
    UnsupportedMessageType,
    UnsupportedEventCode,
    UnsupportedProcessingId,
    UnsupportedVersionId,
    UnknownKeyIdentifier,
    DuplicateKeyIdentifier,
    ApplicationRecordLocked,
    ApplicationInternalError,
}

impl Condition {
    /// All of the table.
    pub(super) const ALL: [Self; 12] = [
        Self::SegmentSequenceError,
        Self::RequiredFieldMissing,
        Self::DataTypeError,
        Self::TableValueNotFound,
        Self::UnsupportedMessageType,
        Self::UnsupportedEventCode,
        Self::UnsupportedProcessingId,
        Self::UnsupportedVersionId,
        Self::UnknownKeyIdentifier,
        Self::DuplicateKeyIdentifier,
        Self::ApplicationRecordLocked,
        Self::ApplicationInternalError,
    ];

    /// The code.
    pub fn code(self) -> &'static str {
        self.entry().0
    }

    /// Its text.
    pub fn text(self) -> &'static str {
        self.entry().1
    }

    fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::SegmentSequenceError => ("100", "Segment sequence error"),
            Self::RequiredFieldMissing => ("101", "Required field missing"),
            Self::DataTypeError => ("102", "Data type error"),
            Self::TableValueNotFound => ("103", "Table value not found"),
            Self::UnsupportedMessageType => ("200", "Unsupported message type"),
            Self::UnsupportedEventCode => ("201", "Unsupported event code"),
            Self::UnsupportedProcessingId => ("202", "Unsupported processing id"),
            Self::UnsupportedVersionId => ("203", "Unsupported version id"),
            Self::UnknownKeyIdentifier => ("204", "Unknown key identifier"),
            Self::DuplicateKeyIdentifier => ("205", "Duplicate key identifier"),
            Self::ApplicationRecordLocked => ("206", "Application record locked"),
            Self::ApplicationInternalError => ("207", "Application internal error"),
        }
    }
}

/// Whether a message is refused as such or for what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// AE, CE.
    Error,
    /// AR, CR.
    Reject,
}

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}{words}", location.as_ref().map(|l| format!("{l}: ")).unwrap_or_default())]
pub struct Refusal {
    /// As such, or for what it says.
    pub verdict: Verdict,
    /// Where in the message.
    pub location: Option<Location>,
    /// What is wrong there.
    pub condition: Condition,
    /// The same for a person, without patient data.
    pub words: String,
}

impl Refusal {
    /// A message refused for what it says.
    pub fn error(location: Location, condition: Condition, words: impl Into<String>) -> Self {
        let location = Some(location);
        Self { verdict: Verdict::Error, location, condition, words: words.into() }
    }

    /// A message refused as such.
    pub fn reject(location: Location, condition: Condition, words: impl Into<String>) -> Self {
        Self { verdict: Verdict::Reject, ..Self::error(location, condition, words) }
    }

    /// A message that nobody can keep just now: its sender is to try again.
    pub fn not_kept() -> Self {
        let words = "it cannot be kept just now; send it again";
        Self::reject(Location::segment("MSH", 1), Condition::ApplicationInternalError, words)
    }

    /// Something missing that must be there.
    pub fn missing(location: Location) -> Self {
        let words = format!("{} is missing", named(&location));
        let condition = match location.field {
            Some(_) => Condition::RequiredFieldMissing,
            None => Condition::SegmentSequenceError,
        };
        Self::error(location, condition, words)
    }
}

/// `PID-3`, as people name a field.
pub(super) fn named(location: &Location) -> String {
    match location.field {
        Some(field) => format!("{}-{field}", location.segment),
        None => location.segment.clone(),
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        let condition = match error {
            MessageError::Batch => Condition::UnsupportedMessageType,
            MessageError::TooLarge => Condition::ApplicationInternalError,
            _ => Condition::SegmentSequenceError,
        };
        Self { verdict: Verdict::Reject, location: None, condition, words: error.to_string() }
    }
}

impl From<UnknownCharset> for Refusal {
    fn from(error: UnknownCharset) -> Self {
        let location = Location::field("MSH", 1, 18);
        Self::reject(location, Condition::TableValueNotFound, error.to_string())
    }
}

/// Which of the two acknowledgements of the enhanced mode (HL7 2.9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// That the message is in safe custody: CA, CE, CR.
    Accept,
    /// What the application makes of it: AA, AE, AR. The only one in the original mode.
    Application,
}

/// Acknowledgment code (table 0008).
pub fn code(stage: Stage, refusals: &[Refusal]) -> &'static str {
    acknowledgement_code(stage, refusals.iter().map(|r| r.verdict).max())
}

pub(super) const fn acknowledgement_code(stage: Stage, refused: Option<Verdict>) -> &'static str {
    match (stage, refused) {
        (Stage::Application, None) => "AA",
        (Stage::Application, Some(Verdict::Error)) => "AE",
        (Stage::Application, Some(Verdict::Reject)) => "AR",
        (Stage::Accept, None) => "CA",
        (Stage::Accept, Some(Verdict::Error)) => "CE",
        (Stage::Accept, Some(Verdict::Reject)) => "CR",
    }
}

/// The acknowledgements that a message asks for (MSH-15, MSH-16), in the order in which they are
/// given: one application acknowledgement in the original mode, what it says in the enhanced one.
pub fn wanted(header: &Header, refused: bool) -> Vec<Stage> {
    match header.mode() {
        Mode::Original => vec![Stage::Application],
        Mode::Enhanced { accept, application } => {
            let stages = [(accept, Stage::Accept), (application, Stage::Application)];
            stages.into_iter().filter(|(when, _)| when.wants(refused)).map(|(_, s)| s).collect()
        }
    }
}

/// What is new in an answer.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// MSH-10: its own control ID, unique here.
    pub control_id: &'a str,
    /// MSH-7: the time, as HL7 writes it.
    pub at: &'a str,
}

/// The answer to `received`, which may be no more than its MSH ([`Message::parse_header`]): yes
/// without refusals, no with some.
pub fn acknowledge(
    received: &Message,
    stage: Stage,
    refusals: &[Refusal],
    stamp: Stamp<'_>,
) -> Message {
    let d = *received.delimiters();
    let asked = received.header();
    let header = Header::of(received);
    let mut msh = Segment::new("MSH");
    // As written: they go back to where they came from, in the same delimiters.
    for (to, from) in
        [(1, 1), (2, 2), (3, 5), (4, 6), (5, 3), (6, 4), (11, 11), (12, 12), (18, 18), (20, 20)]
    {
        msh.put(to, asked.field(from).raw().to_owned());
    }
    msh.put(7, escaped(stamp.at, &d));
    msh.put(9, message_type(&header, &d));
    msh.put(10, escaped(stamp.control_id, &d));
    let mut msa = Segment::new("MSA");
    msa.put(1, code(stage, refusals).to_owned());
    msa.put(2, asked.field(10).raw().to_owned());
    if let Some(refusal) = refusals.first() {
        msa.put(3, escaped(&refusal.words, &d));
    }
    let mut answer = Message::of(d, msh);
    answer.push(msa);
    errors(&header, refusals, &d).into_iter().for_each(|err| answer.push(err));
    answer
}

/// The answer to bytes without a readable MSH: nobody is named, and no control ID.
pub fn unreadable(refusal: &Refusal, stamp: Stamp<'_>) -> Message {
    let mut asked = Message::new();
    for (path, text) in [("MSH-11", "P"), ("MSH-12", "2.3")] {
        asked.set(&path.parse().expect("a path"), text);
    }
    acknowledge(&asked, Stage::Application, std::slice::from_ref(refusal), stamp)
}

/// MSH-9: the trigger is that of the question; the structure came with 2.3.1.
fn message_type(header: &Header, delimiters: &Delimiters) -> String {
    let trigger = escaped(&header.trigger, delimiters);
    let mut parts = vec!["ACK".to_owned(), trigger];
    if !header.structure.is_empty() {
        parts.push("ACK".to_owned());
    }
    components(&parts, delimiters)
}

/// From 2.5 an ERR for each (2.15.5), before it one whose ERR-1 repeats (2.4: 2.16.5).
fn errors(header: &Header, refusals: &[Refusal], d: &Delimiters) -> Vec<Segment> {
    let refusals = &refusals[..refusals.len().min(REFUSALS_MAX)];
    if header.is_since_2_5() {
        return refusals.iter().map(|refusal| error(refusal, d)).collect();
    }
    let repeated = repetitions(refusals, d, |refusal| {
        let sub = d.subcomponent.to_string();
        let condition = [refusal.condition.code(), refusal.condition.text(), "HL70357"].join(&sub);
        let mut parts = place(refusal.location.as_ref(), d);
        parts.resize(3, String::new());
        parts.push(condition);
        components(&parts, d)
    });
    let mut err = Segment::new("ERR");
    err.put(1, repeated);
    if refusals.is_empty() { vec![] } else { vec![err] }
}

fn error(refusal: &Refusal, d: &Delimiters) -> Segment {
    let mut err = Segment::new("ERR");
    let mut parts = place(refusal.location.as_ref(), d);
    if let Some(component) = refusal.location.as_ref().and_then(|l| l.component) {
        parts.extend(["1".to_owned(), component.to_string()]);
    }
    err.put(2, components(&parts, d));
    let condition = [refusal.condition.code(), refusal.condition.text(), "HL70357"];
    err.put(3, components(&condition.map(str::to_owned), d));
    err.put(4, "E".to_owned());
    err.put(8, escaped(&refusal.words, d));
    err
}

/// Segment, sequence, field.
fn place(location: Option<&Location>, d: &Delimiters) -> Vec<String> {
    let Some(location) = location else { return vec![] };
    let mut parts = vec![escaped(&location.segment, d), location.sequence.to_string()];
    parts.extend(location.field.map(|field| field.to_string()));
    parts
}

#[cfg(test)]
mod tests;
