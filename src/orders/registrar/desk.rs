//! Where others ask the registrar: one call each, answered once it is durable.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::answers::{CaseStory, OrderStory};
use super::candidates::{self, Wanted};
use super::decide::Decision;
use super::evidence_in::{CommitmentList, Step};
use super::listed::Listed;
use super::new_order::{Entered, Flaw, NewOrder};
use super::record::StudyRef;
use super::roll::{Counts, Page, Row};
use super::wholes::{Hints, Whole, Wholes};
use super::worklist::Shelf;
use crate::calls::{Calls, PATIENCE};
use crate::cargo::{Envelope, NodeName};
use crate::custody::CargoId;
use crate::dicom::availability::Notice;
use crate::dicom::correct::Correction;
use crate::dicom::fault::Fault;
use crate::dicom::header::Header;
use crate::orders::judge::Rules;
use crate::orders::order::OrderKey;
use crate::orders::priors::Candidate;
use crate::orders::recall;
use crate::orders::worklist::Item;

/// Why the registrar does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// What was asked makes no sense here; the text says why.
    #[error("{0}")]
    Refused(String),
    /// What is to be changed is not here.
    #[error("{0}")]
    Unknown(String),
    /// The order was ended, and nobody has said that it is wanted again.
    #[error("order {0} was cancelled or discontinued, and is not ordered again by chance")]
    Ended(String),
    /// These fields cannot be taken.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Flaws(Vec<Flaw>),
    /// It could not be made durable: nothing has changed.
    #[error("nothing has changed: {0}")]
    NotKept(String),
    /// The registrar has stopped, or is not ready yet.
    #[error("orders are not available: the node is starting or stopping")]
    Stopped,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, DeskError>>;

/// What the registrar is asked. Public only so that [`Desk`] can carry it.
pub(in crate::orders) enum Call {
    Message { message: Bytes, reply: oneshot::Sender<Vec<Bytes>> },
    Add { order: Box<NewOrder>, by: String, reply: Answer<Entered> },
    Cancel { number: String, reason: String, by: String, reply: Answer<String> },
    Link { study: String, order: Option<String>, by: String, reply: Answer<String> },
    Acknowledge { study: String, by: String, reply: Answer<u32> },
    Rows { with_order: bool, page: Page, reply: Answer<Vec<Row>> },
    Missing { page: Page, reply: Answer<Vec<Row>> },
    Decide { decision: Decision, reply: Answer<String> },
    Rules { rules: Box<Rules>, routes: bool, reply: Answer<()> },
    Order { number: String, reply: Answer<Vec<OrderStory>> },
    Study { study: String, reply: Answer<Vec<CaseStory>> },
    Candidates { wanted: Box<Wanted>, reply: Answer<Vec<candidates::Candidate>> },
    Whole { study: StudyRef, reply: Answer<Option<Whole>> },
    IsWanted { study: StudyRef, reply: Answer<bool> },
    Routed { images: Vec<CargoId>, reply: Answer<()> },
    Counts { reply: Answer<Counts> },
    Correction { image: Box<(Envelope, Header)>, reply: oneshot::Sender<Option<Correction>> },
    Step { step: Box<Step>, reply: oneshot::Sender<Result<(), Fault>> },
    Announce { notice: Notice, caller: String, reply: oneshot::Sender<Result<(), Fault>> },
    Commitment { list: CommitmentList, reply: oneshot::Sender<Result<(), Fault>> },
    Recall { study: String, reply: Answer<String> },
    Recalled { study: StudyRef, answer: recall::Answer, reply: Answer<()> },
    Priors { order: OrderKey, found: Result<Vec<Candidate>, recall::Answer>, reply: Answer<()> },
    Listed { worklist: String, items: Vec<Item>, reply: Answer<Listed> },
}

/// Where others ask the registrar. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk {
    pub(super) calls: Calls<Call>,
    pub(super) shelf: Shelf,
    pub(super) letters: Arc<Notify>,
    pub(super) hints: Hints,
}

impl Desk {
    async fn ask<T>(&self, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, DeskError> {
        self.calls.ask_within(PATIENCE, call).await.unwrap_or(Err(DeskError::Stopped))
    }

    /// Takes one HL7 message and says what to answer. A yes among the answers is durable; no
    /// answer at all means that the node stops, and the sender keeps the message.
    pub async fn message(&self, message: Bytes) -> Vec<Bytes> {
        self.calls.ask(|reply| Call::Message { message, reply }).await.unwrap_or_default()
    }

    /// Takes an order from a person or another system. What says nothing new changes nothing.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed.
    pub async fn add(&self, order: NewOrder, by: String) -> Result<Entered, DeskError> {
        self.ask(|reply| Call::Add { order: Box::new(order), by, reply }).await
    }

    /// Cancels an order of this node; its number.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed.
    pub async fn cancel(
        &self,
        number: String,
        reason: String,
        by: String,
    ) -> Result<String, DeskError> {
        self.ask(|reply| Call::Cancel { number, reason, by, reply }).await
    }

    /// A person says to which order a study belongs (`None`: to none); how it stands then, in
    /// words.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed.
    pub async fn link(
        &self,
        study: String,
        order: Option<String>,
        by: String,
    ) -> Result<String, DeskError> {
        self.ask(|reply| Call::Link { study, order, by, reply }).await
    }

    /// A person decides about images that lack, or that are withdrawn; how the study stands then,
    /// in words.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed.
    pub async fn decide(&self, decision: Decision) -> Result<String, DeskError> {
        self.ask(|reply| Call::Decide { decision, reply }).await
    }

    /// Other times and choices may be in force from now on, those of `routes` too; then open cases are
    /// judged anew by them.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn rules(&self, rules: Rules, routes: bool) -> Result<(), DeskError> {
        self.ask(|reply| Call::Rules { rules: Box::new(rules), routes, reply }).await
    }

    /// A person knows that images of a study were withdrawn; how many images that are.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed.
    pub async fn acknowledge(&self, study: String, by: String) -> Result<u32, DeskError> {
        self.ask(|reply| Call::Acknowledge { study, by, reply }).await
    }

    /// Rings when there are new letters.
    pub fn letters(&self) -> Arc<Notify> {
        self.letters.clone()
    }

    /// Open cases that have an order.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn orders(&self, page: Page) -> Result<Vec<Row>, DeskError> {
        self.ask(|reply| Call::Rows { with_order: true, page, reply }).await
    }

    /// Cases that need attention, gravest first.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn missing(&self, page: Page) -> Result<Vec<Row>, DeskError> {
        self.ask(|reply| Call::Missing { page, reply }).await
    }

    /// All that is known of the orders with this number: one for each origin that has one.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn order(&self, number: String) -> Result<Vec<OrderStory>, DeskError> {
        self.ask(|reply| Call::Order { number, reply }).await
    }

    /// All that is known of the studies with this UID: one for each origin that has one.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn study(&self, study: String) -> Result<Vec<CaseStory>, DeskError> {
        self.ask(|reply| Call::Study { study, reply }).await
    }

    async fn tell(
        &self,
        call: impl FnOnce(oneshot::Sender<Result<(), Fault>>) -> Call,
    ) -> Result<(), Fault> {
        let gone = || Err(Fault::failed("the node is starting or stopping"));
        self.calls.ask(call).await.unwrap_or_else(gone)
    }

    /// A modality begins or changes a performed procedure step.
    ///
    /// # Errors
    ///
    /// The response to give; nothing has changed.
    pub async fn step(&self, step: Step) -> Result<(), Fault> {
        self.tell(|reply| Call::Step { step: Box::new(step), reply }).await
    }

    /// An archive says what it has.
    ///
    /// # Errors
    ///
    /// The response to give; nothing has changed.
    pub async fn announce(&self, notice: Notice, caller: String) -> Result<(), Fault> {
        self.tell(|reply| Call::Announce { notice, caller, reply }).await
    }

    /// A modality has asked for these images of a study to be committed.
    ///
    /// # Errors
    ///
    /// Nothing has changed.
    pub async fn commitment(&self, list: CommitmentList) -> Result<(), Fault> {
        self.tell(|reply| Call::Commitment { list, reply }).await
    }

    /// A person has the source of a study of this node asked, at once and with all patience; who is
    /// asked, in words.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nobody is asked.
    pub async fn recall(&self, study: String) -> Result<String, DeskError> {
        self.ask(|reply| Call::Recall { study, reply }).await
    }

    /// A source has answered about a study.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed, and it will be asked again.
    pub async fn recalled(&self, study: StudyRef, answer: recall::Answer) -> Result<(), DeskError> {
        self.ask(|reply| Call::Recalled { study, answer, reply }).await
    }

    /// A source has said which studies the patient of an order has.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: nothing has changed, and it will be asked again.
    pub async fn priors_found(
        &self,
        order: OrderKey,
        found: Result<Vec<Candidate>, recall::Answer>,
    ) -> Result<(), DeskError> {
        self.ask(|reply| Call::Priors { order, found, reply }).await
    }

    /// Takes orders as a worklist shows them; durable when this returns.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: ask the worklist again; what was kept is not taken twice.
    pub async fn listed(&self, worklist: String, items: Vec<Item>) -> Result<Listed, DeskError> {
        self.ask(|reply| Call::Listed { worklist, items, reply }).await
    }

    /// The studies and orders, of every origin, that have any of these numbers or instances: those
    /// found by the surest first, at most one more than [`CANDIDATES_MAX`](super::CANDIDATES_MAX).
    ///
    /// # Errors
    ///
    /// [`DeskError`]: ask again.
    pub async fn candidates(
        &self,
        wanted: Wanted,
    ) -> Result<Vec<candidates::Candidate>, DeskError> {
        self.ask(|reply| Call::Candidates { wanted: Box::new(wanted), reply }).await
    }

    /// Whether this node holds a study of `hospital` whole by its verdict: complete, or presumed to
    /// be; since when, and how many images.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: ask again.
    pub async fn whole(
        &self,
        hospital: &NodeName,
        study: &str,
    ) -> Result<Option<Whole>, DeskError> {
        let study = StudyRef { origin: hospital.clone(), study: study.to_owned() };
        self.ask(|reply| Call::Whole { study, reply }).await
    }

    /// Hints of studies of other nodes that have become whole, for one taker; `None`: they are
    /// taken. At first they say that some are lost.
    pub fn wholes(&self) -> Option<Wholes> {
        self.hints.take()
    }

    /// Whether a report of this study is still wanted: not, when its order was cancelled or
    /// discontinued. One that is not known, or has no order, is.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: ask again.
    pub async fn is_wanted(&self, study: StudyRef) -> Result<bool, DeskError> {
        self.ask(|reply| Call::IsWanted { study, reply }).await
    }

    /// Images that no rule had matched go to nodes by the rules in force; durable when this returns.
    /// To be said before they get their duties.
    ///
    /// # Errors
    ///
    /// [`DeskError`]: say it again.
    pub async fn routed(&self, images: Vec<CargoId>) -> Result<(), DeskError> {
        self.ask(|reply| Call::Routed { images, reply }).await
    }

    /// How many cases are how; without patient data.
    ///
    /// # Errors
    ///
    /// [`DeskError::Stopped`].
    pub async fn counts(&self) -> Result<Counts, DeskError> {
        self.ask(|reply| Call::Counts { reply }).await
    }
}
