//! The retriever: asks source archives what the registrar wants to know, and for what it wants.
//!
//! ```text
//!  registrar -- Task --> retriever -- C-FIND, C-MOVE, C-GET --> source
//!      ^  Answer            |  C-GET: images -- Door --> custody, like any C-STORE
//!      +--------------------+  C-MOVE: the source sends them to the intake
//! ```
//!
//! It decides nothing and keeps nothing: what is asked, when, and again, the registrar says, and a
//! task that is lost with the process is given anew. How many are asked at once of one source is the
//! registrar's to keep; here at most [`TASKS_MAX`] are under way.

mod fetch;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::dicom::AeTitle;
use crate::inquiry::{InquiryError, OpenError, Receiver, Target};
use crate::metrics::Metrics;
use crate::orders::order::OrderKey;
use crate::orders::priors::Search;
use crate::orders::recall::{Answer, Retrieve};
use crate::orders::registrar::{Desk, StudyRef};

/// Tasks under way at once, of all sources.
pub const TASKS_MAX: usize = 64;

/// A source archive.
#[derive(Debug, Clone)]
pub struct Archive {
    /// How to reach it.
    pub target: Target,
    /// The AE title by which it knows this node: where a C-MOVE goes.
    pub move_to: AeTitle,
}

/// What is to be asked of one source.
#[derive(Debug, Clone)]
pub enum Task {
    /// About a study.
    Study {
        /// Name of the source.
        source: String,
        /// Which study.
        study: StudyRef,
        /// What.
        ask: Ask,
    },
    /// Which earlier studies a patient has.
    Priors {
        /// Name of the source.
        source: String,
        /// For which order.
        order: OrderKey,
        /// Which.
        search: Search,
    },
}

/// What is to be asked about a study.
#[derive(Debug, Clone)]
pub enum Ask {
    /// What the source has of it; reports are left out where they are not wanted.
    Find {
        /// Whether reports are wanted too.
        reports: bool,
    },
    /// To send these.
    Retrieve {
        /// How.
        by: Retrieve,
        /// Series Instance UID.
        series: String,
        /// SOP Instance UIDs.
        sops: Vec<String>,
        /// Their SOP classes, as far as they are known.
        classes: BTreeSet<String>,
    },
}

impl Task {
    fn source(&self) -> &str {
        match self {
            Self::Study { source, .. } | Self::Priors { source, .. } => source,
        }
    }
}

/// Where images of a C-GET go in: the way of a C-STORE.
pub trait Door: Send + Sync + 'static {
    /// Takes one image after the other.
    type Taking: Receiver;

    /// Opens for what `from` sends; `to` is our AE title that it is taken under.
    fn open(&self, from: &AeTitle, to: &AeTitle) -> Self::Taking;
}

struct Retriever<D> {
    archives: BTreeMap<String, Archive>,
    desk: Desk,
    door: D,
    metrics: Metrics,
    /// Cancels what is under way.
    shutdown: CancellationToken,
}

/// Starts the retriever of a node. It works until `shutdown`: then what is under way is cancelled,
/// and asked for again by the next life.
pub fn start<D: Door>(
    archives: BTreeMap<String, Archive>,
    mut tasks: mpsc::Receiver<Task>,
    (desk, door): (Desk, D),
    metrics: Metrics,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    let retriever = Retriever { archives, desk, door, metrics, shutdown: shutdown.clone() };
    let retriever = std::sync::Arc::new(retriever);
    tokio::spawn(async move {
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = under_way.join_next() => {}
                task = tasks.recv(), if under_way.len() < TASKS_MAX => match task {
                    Some(task) => {
                        let retriever = retriever.clone();
                        under_way.spawn(async move { retriever.perform(task).await });
                    }
                    None => break,
                },
            }
        }
        // Each says C-CANCEL and waits for the last answer, in its own time.
        while under_way.join_next().await.is_some() {}
    })
}

impl<D: Door> Retriever<D> {
    async fn perform(&self, task: Task) {
        let Some(archive) = self.archives.get(task.source()) else { return };
        let source = task.source().to_owned();
        match task {
            Task::Study { study, ask, .. } => {
                let answer = match &ask {
                    Ask::Find { reports } => {
                        search::instances(archive, &study.study, *reports).await
                    }
                    Ask::Retrieve { by, series, sops, classes } => {
                        let wanted = fetch::Wanted { study: &study.study, series, sops, classes };
                        fetch::retrieve(self, archive, &source, *by, &wanted).await
                    }
                };
                self.count(&source, &answer);
                if self.shutdown.is_cancelled() {
                    return;
                }
                if let Err(error) = self.desk.recalled(study, answer).await {
                    tracing::warn!(source, %error, "what a source answered could not be kept");
                }
            }
            Task::Priors { order, search, .. } => {
                let found = search::candidates(archive, &search).await;
                if let Err(answer) = &found {
                    self.count(&source, answer);
                }
                if self.shutdown.is_cancelled() {
                    return;
                }
                if let Err(error) = self.desk.priors_found(order, found).await {
                    tracing::warn!(source, %error, "what a source answered could not be kept");
                }
            }
        }
    }

    fn count(&self, source: &str, answer: &Answer) {
        let word = match answer {
            Answer::Found(_) => "found",
            Answer::Done { failed: 0 } => "sent",
            Answer::Done { .. } => "sent-some",
            Answer::Status(_) => "failed",
            Answer::Unreachable => "unreachable",
            Answer::Refused => "refused",
        };
        self.metrics.source_answers.with_label_values(&[source, word]).inc();
        tracing::info!(source, answer = word, "a source has answered");
    }
}

/// What an inquiry without an answer means.
fn unanswered(source: &AeTitle, error: &InquiryError) -> Answer {
    tracing::warn!(%source, %error, "a source does not answer");
    match error {
        InquiryError::Open(OpenError::Ended(ending)) => match ending {
            crate::inquiry::requestor::Ending::Rejected { .. } => Answer::Refused,
            _ => Answer::Unreachable,
        },
        InquiryError::Open(_) | InquiryError::Broke(_) => Answer::Unreachable,
        InquiryError::NotTaken(_) => Answer::Refused,
        // Ours cannot be written: nothing will change that.
        InquiryError::DataSet(_) => Answer::Status(0xA900),
    }
}
