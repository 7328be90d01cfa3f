//! What the services beside storage need decided: performed procedure steps, storage commitment,
//! availability notices and worklists.
//!
//! The intake speaks the protocol and judges what a data set alone decides; whoever keeps orders
//! and evidence implements [`Services`] and answers the rest. An answer that says *yes* to a step,
//! a commitment or a notice is a promise: it must survive a power cut before it is given. Every
//! call is given at most [`Limits::dimse`](super::Limits::dimse); a call that takes longer is
//! dropped and answered with 0110, so that the peer asks again.

use std::net::IpAddr;
use std::pin::Pin;

use dicom_object::InMemDicomObject;
use tokio::sync::{mpsc, oneshot};

use super::access::Admitted;
use crate::dicom::AeTitle;
use crate::dicom::availability::Notice;
use crate::dicom::commitment::{Asked, Outcome};
use crate::dicom::fault::Fault;
use crate::dicom::performed::StepStatus;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its AE title.
    pub calling: AeTitle,
    /// Which of our AE titles it called.
    pub called: AeTitle,
    /// Its address.
    pub address: IpAddr,
}

impl Caller {
    pub(super) fn new(admitted: &Admitted, address: IpAddr) -> Self {
        Self { calling: admitted.calling.clone(), called: admitted.called.clone(), address }
    }
}

/// A performed procedure step that begins (N-CREATE). All that is mandatory is there.
#[derive(Debug, Clone, PartialEq)]
pub struct NewStep {
    /// Its SOP Instance UID, by the peer or, where it left that to us, made here.
    pub instance: String,
    /// Its attributes; text is Unicode.
    pub attributes: InMemDicomObject,
}

/// A change of a performed procedure step (N-SET).
#[derive(Debug, Clone, PartialEq)]
pub struct StepChange {
    /// Its SOP Instance UID.
    pub instance: String,
    /// The status that it gets, if it gets one.
    pub status: Option<StepStatus>,
    /// The attributes that change.
    pub attributes: InMemDicomObject,
}

/// What becomes of a call.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Who decides and keeps.
pub trait Services: Send + Sync + 'static {
    /// Begins a step. [`Fault::duplicate`] when it is there already.
    fn create_step(&self, caller: Caller, step: NewStep) -> Reply<'_, ()>;

    /// Changes a step. [`Fault::no_such_instance`] when there is none,
    /// [`Fault::step_is_final`] when it has ended. Before it ends a step, the implementation asks
    /// [`judge_end`](crate::dicom::performed::judge_end) about all that was said of it.
    fn set_step(&self, caller: Caller, change: StepChange) -> Reply<'_, ()>;

    /// Takes a request for commitment; the outcome is reported later, by `reporter` while its
    /// association lives, else on an association of our own. A Transaction UID that is in use is
    /// an outcome too (Failure Reason 0131).
    fn commit(&self, caller: Caller, asked: Asked, reporter: Reporter) -> Reply<'_, ()>;

    /// Takes a notice of availability.
    fn announce(&self, caller: Caller, notice: Notice) -> Reply<'_, ()>;

    /// Answers a worklist query with what matches its identifier.
    fn worklist(&self, caller: Caller, query: InMemDicomObject) -> Reply<'_, Matches>;
}

/// One item of an answer.
#[derive(Debug)]
pub(super) enum Found {
    Match(Box<InMemDicomObject>),
    /// There is no more. Whoever only stops has failed.
    End,
}

/// The matches of a query, as they are found. Dropped when the peer cancels or goes.
#[derive(Debug)]
pub struct Matches {
    receiver: mpsc::Receiver<Found>,
    /// Whether the query has optional keys that are not matched here (status FF01).
    pub keys_unsupported: bool,
}

impl Matches {
    /// Matches that somebody else finds, at most `ahead` of them before they are taken.
    pub fn channel(ahead: usize) -> (Finder, Self) {
        let (sender, receiver) = mpsc::channel(ahead.max(1));
        (Finder(sender), Self { receiver, keys_unsupported: false })
    }

    /// Matches that are found already.
    pub fn all(found: Vec<InMemDicomObject>) -> Self {
        let (sender, receiver) = mpsc::channel(found.len() + 1);
        let found = found.into_iter().map(|set| Found::Match(Box::new(set)));
        for item in found.chain([Found::End]) {
            sender.try_send(item).expect("a channel with room for all");
        }
        Self { receiver, keys_unsupported: false }
    }

    /// The next; `None` when the finder is gone without an end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Found> {
        self.receiver.recv().await
    }
}

/// Nobody wants the matches any more: the peer has cancelled, or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody wants the matches any more")]
pub struct Unwanted;

/// Gives matches as they are found.
#[derive(Debug)]
pub struct Finder(mpsc::Sender<Found>);

impl Finder {
    /// Gives one; waits while the peer is slower.
    pub async fn give(&self, found: InMemDicomObject) -> Result<(), Unwanted> {
        self.0.send(Found::Match(Box::new(found))).await.map_err(|_| Unwanted)
    }

    /// There is no more. A finder that is dropped without this makes the query fail.
    pub async fn finish(self) -> Result<(), Unwanted> {
        self.0.send(Found::End).await.map_err(|_| Unwanted)
    }
}

/// Most outcomes that wait for one association.
pub(super) const REPORTS_MAX: usize = 4;

/// An outcome on its way to the peer.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) context: u8,
    pub(super) outcome: Outcome,
    pub(super) told: oneshot::Sender<Result<(), ReportError>>,
}

/// Why an outcome is not known to be with the peer. It must be reported again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The association has ended.
    #[error("the association has ended")]
    Gone,
    /// The peer has not answered in time.
    #[error("no answer to the event report in time")]
    Unanswered,
    /// The peer has answered with a failure.
    #[error("the event report was answered with {0:04X}")]
    Refused(u16),
}

/// Reports outcomes on the association on which commitment was asked for, while it lives.
#[derive(Debug, Clone)]
pub struct Reporter {
    reports: mpsc::Sender<Report>,
    context: u8,
}

impl Reporter {
    pub(super) const fn new(reports: mpsc::Sender<Report>, context: u8) -> Self {
        Self { reports, context }
    }

    /// Whether the association lives, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.reports.is_closed()
    }

    /// Reports an outcome (N-EVENT-REPORT) and waits for the peer's answer. Never overtakes the
    /// answer to the request itself. What is dropped half-way may still be reported.
    pub async fn report(&self, outcome: Outcome) -> Result<(), ReportError> {
        let (told, answer) = oneshot::channel();
        let report = Report { context: self.context, outcome, told };
        self.reports.send(report).await.map_err(|_| ReportError::Gone)?;
        answer.await.unwrap_or(Err(ReportError::Gone))
    }
}
