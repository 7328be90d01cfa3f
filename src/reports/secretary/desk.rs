//! Where others ask the secretary: one call each, answered once it is durable.

use serde::Serialize;
use tokio::sync::oneshot;

use crate::calls::{Calls, PATIENCE};
use crate::cargo::{DestinationName, NodeName, Urgency};
use crate::clock::Timestamp;
use crate::reports::critical::{Reason, State as Alertness};
use crate::reports::matching::{By, Outcome, Target};
use crate::reports::note::Words;
use crate::reports::report::{Form, FormKind, Status};
use crate::reports::signers::Doubt;
use crate::reports::turnaround::{Moment, Owed};
use crate::reports::versions::Standing;

/// Why the secretary does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// What was asked makes no sense here; the text says why.
    #[error("{0}")]
    Refused(String),
    /// What is asked about is not here.
    #[error("{0}")]
    Unknown(String),
    /// It could not be made durable: nothing has changed.
    #[error("nothing has changed: {0}")]
    NotKept(String),
    /// The secretary has stopped, or is not ready yet.
    #[error("reports are not available: the node is starting or stopping")]
    Stopped,
}

/// Which reports of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Most rows.
    pub limit: usize,
    /// Only those after this id ([`Row::report`]), in the order of ids; empty: from the first.
    pub after: String,
    /// Only of this study or order; empty: of all.
    pub of: String,
}

/// A report in a listing. No patient data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its id: 32 hexadecimal digits.
    pub report: String,
    /// Where it belongs, the first of them.
    pub target: Target,
    /// How far its latest version is.
    pub status: Status,
    /// How many versions there are.
    pub versions: usize,
    /// When the latest version came.
    pub arrived_at: Timestamp,
    /// Whether somebody has signed it.
    pub is_signed: bool,
    /// Where a critical result stands; absent: it is none.
    pub critical: Option<Alertness>,
    /// Where its latest version stands at each destination: its state in one word.
    pub destinations: Vec<(DestinationName, String)>,
}

/// A document that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldRow {
    /// Its id: 32 hexadecimal digits.
    pub document: String,
    /// When it came.
    pub arrived_at: Timestamp,
    /// Who sent it.
    pub source: String,
    /// How far it says that it is.
    pub status: Status,
    /// Why it waits.
    pub why: Why,
    /// The same in words, without patient data, and what to do.
    pub words: String,
    /// Whether it is critical.
    pub is_critical: bool,
}

/// Why a document waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, minicbor::Encode, minicbor::Decode)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It is not known where it belongs.
    #[n(0)]
    Match(#[n(0)] Outcome),
    /// Who signs it is not on the list.
    #[n(1)]
    Signer(#[n(0)] Doubt),
    /// There are more versions than are kept of one report.
    #[n(2)]
    Full,
    /// Its bytes cannot be read any more.
    #[n(3)]
    Unreadable,
    /// The reading node says where it belongs, and nothing of that is known here.
    #[n(4)]
    Unknown(#[n(0)] Vec<Target>),
    /// Some of its characters could not be read: its message names another character set than it
    /// is in.
    #[n(5)]
    Garbled,
    /// Of all that it is about nothing was sent to the node that it comes from.
    #[n(6)]
    NotSent(#[n(0)] Vec<Target>),
}

/// All that is known of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Story {
    /// Its line.
    pub row: Row,
    /// All that it is about.
    pub targets: Vec<Target>,
    /// How that is known.
    pub by: By,
    /// Its versions, the latest last.
    pub versions: Vec<VersionStory>,
    /// What happened, in the order of time.
    pub events: Vec<Event>,
}

/// A version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionStory {
    /// How far.
    pub status: Status,
    /// When it came.
    pub arrived_at: Timestamp,
    /// When it was written, as its sender says, else when it came.
    pub written_at: Timestamp,
    /// Where it stands.
    pub standing: Standing,
    /// Whether somebody has signed it.
    pub is_signed: bool,
    /// Its documents: digest, in hexadecimal, and the forms in which it came.
    pub documents: Vec<(String, Vec<FormKind>)>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What kind: `arrived`, `sent`, `handed`, `critical`, `told`, `held`, `person`.
    pub kind: &'static str,
    /// In words without patient data.
    pub what: String,
    /// Who, where a person or another system did it.
    pub by: String,
}

/// The loop of one study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoopRow {
    /// The hospital.
    pub hospital: NodeName,
    /// Study Instance UID.
    pub study: String,
    /// Number of its order; empty where none is known.
    pub order: String,
    /// How soon it is wanted.
    pub urgency: Urgency,
    /// When each moment was.
    pub moments: Vec<(Moment, Timestamp)>,
    /// What is owed, and by when, the most pressing first.
    pub owed: Vec<(Timestamp, Owed)>,
    /// What of it is overdue.
    pub overdue: Vec<(Timestamp, Owed)>,
}

/// A critical result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CriticalRow {
    /// Id of its report.
    pub report: String,
    /// Where it belongs.
    pub target: Target,
    /// Where it stands.
    pub state: Alertness,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Notices so far.
    pub notices: u32,
    /// What happened.
    pub record: Vec<(Timestamp, crate::reports::critical::Event)>,
}

/// A question or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WordsRow {
    /// The hospital.
    pub hospital: NodeName,
    /// Study Instance UID.
    pub study: String,
    /// When it was written.
    pub at: Timestamp,
    /// At which node.
    pub from: NodeName,
    /// What.
    pub words: Words,
    /// Whether an answer is known.
    pub is_answered: bool,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, DeskError>>;

/// What the secretary is asked. Public only so that [`Desk`] can carry it.
pub(in crate::reports) enum Call {
    Rows { page: Page, reply: Answer<Vec<Row>> },
    Held { limit: usize, reply: Answer<Vec<HeldRow>> },
    Story { of: String, reply: Answer<Vec<Story>> },
    Form { document: String, kind: FormKind, reply: Answer<Form> },
    Match { document: String, to: String, by: String, reply: Answer<String> },
    Release { document: String, by: String, reply: Answer<String> },
    Discard { document: String, reason: String, by: String, reply: Answer<String> },
    Loops { overdue: bool, limit: usize, reply: Answer<Vec<LoopRow>> },
    Dismiss { study: String, by: String, reply: Answer<String> },
    Criticals { all: bool, limit: usize, reply: Answer<Vec<CriticalRow>> },
    Flag { report: String, why: String, by: String, reply: Answer<String> },
    Acknowledge { report: String, by: String, reply: Answer<String> },
    Close { report: String, done: String, by: String, reply: Answer<String> },
    Say { study: String, answers: String, text: String, by: String, reply: Answer<String> },
    Words { study: String, limit: usize, reply: Answer<Vec<WordsRow>> },
    SendAgain { report: String, by: String, reply: Answer<String> },
    Rules { config: Box<super::Config>, reply: Answer<()> },
}

/// Where others ask the secretary. Cheap to clone. `by` is always the person or system that asks.
#[derive(Debug, Clone)]
pub struct Desk {
    pub(super) calls: Calls<Call>,
}

/// # Errors
///
/// Every call: [`DeskError`]; nothing has changed then.
impl Desk {
    async fn ask<T>(&self, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, DeskError> {
        self.calls.ask_within(PATIENCE, call).await.unwrap_or(Err(DeskError::Stopped))
    }

    /// Reports, in the order of their ids.
    pub async fn rows(&self, page: Page) -> Result<Vec<Row>, DeskError> {
        self.ask(|reply| Call::Rows { page, reply }).await
    }

    /// Documents that wait for a person, the oldest first.
    pub async fn held(&self, limit: usize) -> Result<Vec<HeldRow>, DeskError> {
        self.ask(|reply| Call::Held { limit, reply }).await
    }

    /// All reports of a study (its UID), of an order (its number or accession number), or the one
    /// with this id.
    pub async fn story(&self, of: String) -> Result<Vec<Story>, DeskError> {
        self.ask(|reply| Call::Story { of, reply }).await
    }

    /// The bytes of a document (its digest in hexadecimal) in one of its forms.
    pub async fn form(&self, document: String, kind: FormKind) -> Result<Form, DeskError> {
        self.ask(|reply| Call::Form { document, kind, reply }).await
    }

    /// A person says to which study or order (UID or number, where two hospitals have the same
    /// `HOSPITAL/NUMBER`) a document belongs that waits.
    pub async fn match_to(
        &self,
        document: String,
        to: String,
        by: String,
    ) -> Result<String, DeskError> {
        self.ask(|reply| Call::Match { document, to, by, reply }).await
    }

    /// A person answers for a document whose signer is not on the list: it goes on.
    pub async fn release(&self, document: String, by: String) -> Result<String, DeskError> {
        self.ask(|reply| Call::Release { document, by, reply }).await
    }

    /// A person decides that a document that waits goes nowhere. It is kept.
    pub async fn discard(
        &self,
        document: String,
        reason: String,
        by: String,
    ) -> Result<String, DeskError> {
        self.ask(|reply| Call::Discard { document, reason, by, reply }).await
    }

    /// Open loops, or those in which something is overdue, the most pressing first.
    pub async fn loops(&self, overdue: bool, limit: usize) -> Result<Vec<LoopRow>, DeskError> {
        self.ask(|reply| Call::Loops { overdue, limit, reply }).await
    }

    /// A person says that nobody waits for a report of this study any more.
    pub async fn dismiss(&self, study: String, by: String) -> Result<String, DeskError> {
        self.ask(|reply| Call::Dismiss { study, by, reply }).await
    }

    /// Critical results that are not closed, or all, the oldest first.
    pub async fn criticals(&self, all: bool, limit: usize) -> Result<Vec<CriticalRow>, DeskError> {
        self.ask(|reply| Call::Criticals { all, limit, reply }).await
    }

    /// A person or program calls a report (its id) critical.
    pub async fn flag(&self, report: String, why: String, by: String) -> Result<String, DeskError> {
        self.ask(|reply| Call::Flag { report, why, by, reply }).await
    }

    /// A person knows of a critical result. At the hospital only.
    pub async fn acknowledge(&self, report: String, by: String) -> Result<String, DeskError> {
        self.ask(|reply| Call::Acknowledge { report, by, reply }).await
    }

    /// A person has dealt with a critical result. At the hospital only.
    pub async fn close(
        &self,
        report: String,
        done: String,
        by: String,
    ) -> Result<String, DeskError> {
        self.ask(|reply| Call::Close { report, done, by, reply }).await
    }

    /// A person asks the other side about a study, or answers (`answers`: the id of the question).
    /// The id of what was said.
    pub async fn say(
        &self,
        study: String,
        answers: String,
        text: String,
        by: String,
    ) -> Result<String, DeskError> {
        self.ask(|reply| Call::Say { study, answers, text, by, reply }).await
    }

    /// What was asked and answered about a study (empty: all open questions), the oldest first.
    pub async fn words(&self, study: String, limit: usize) -> Result<Vec<WordsRow>, DeskError> {
        self.ask(|reply| Call::Words { study, limit, reply }).await
    }

    /// A person wants the latest version handed on again, to every destination.
    pub async fn send_again(&self, report: String, by: String) -> Result<String, DeskError> {
        self.ask(|reply| Call::SendAgain { report, by, reply }).await
    }

    /// Other rules are in force from now on.
    pub async fn rules(&self, config: super::Config) -> Result<(), DeskError> {
        self.ask(|reply| Call::Rules { config: Box::new(config), reply }).await
    }
}
