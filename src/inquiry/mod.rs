//! Asks other application entities: worklists and archives what they have, archives to send it,
//! RISes to take performed procedure steps, and modalities to take the outcome of a commitment.
//!
//! Every inquiry has an association of its own, which is released when it is over. Nothing is
//! tried again here, and nothing is promised: an answer is the peer's, an error says that it is
//! not known what the peer has done, and whoever asked decides. Every wait has a limit
//! ([`Timeouts`]), every answer a largest size (4 MiB), every list of matches a length that the
//! caller names.
//!
//! Shared by everything that asks, and therefore below it: `dial`, `wire` and the endings of an
//! association are delivery's as well.

// Drives a requestor over a socket.
mod association;
// TCP, or TLS on it.
pub mod dial;
// C-FIND, match by match.
mod query;
// The requestor's side of an association; pure.
pub mod requestor;
// C-MOVE and C-GET.
mod retrieve;
// The socket of an association.
pub mod wire;

use std::time::Duration;

use dicom_object::InMemDicomObject;

use self::association::{Association, Heard};
pub use self::dial::{OpenError, Tls};
pub use self::query::{Query, QueryEnd, find};
pub use self::requestor::NotTaken;
use self::requestor::Wanted;
pub use self::retrieve::{Receiver, Retrieved, get, move_to};
use crate::dicom::command::{Operation, Response, SubOperations, status};
use crate::dicom::commitment::Outcome;
use crate::dicom::dataset::DataSetError;
use crate::dicom::text::Repertoire;
use crate::dicom::{AeTitle, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE};

/// An application entity to ask.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host name or address; looked up at each connection.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The AE title that we give as ours.
    pub calling: AeTitle,
    /// Its AE title.
    pub called: AeTitle,
    /// DICOM over TLS (PS3.15 B.12); absent: plain TCP.
    pub tls: Option<Tls>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// Limits of every wait on an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP connection, and again for the TLS handshake.
    pub connect: Duration,
    /// For the answer to an association or release request.
    pub associate: Duration,
    /// For each answer: from the request, or from the answer before. Also for the last answer
    /// after a C-CANCEL.
    pub response: Duration,
    /// For a query or a retrieval with all of its answers.
    pub operation: Duration,
    /// For the peer to take a request.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            associate: Duration::from_secs(30),
            response: Duration::from_secs(120),
            operation: Duration::from_hours(6),
            write: Duration::from_secs(60),
        }
    }
}

/// Why an inquiry has no answer.
#[derive(Debug, thiserror::Error)]
pub enum InquiryError {
    /// There was no association.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The peer does not do this.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// Our own data set cannot be written.
    #[error(transparent)]
    DataSet(#[from] DataSetError),
    /// The association broke. Whether the peer has done what was asked is unknown.
    #[error("{0}")]
    Broke(String),
}

/// A final answer. What it says is the peer's: the comment may name a patient.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Status (0000,0900).
    pub status: u16,
    /// Error Comment (0000,0902), bounded and free of control characters.
    pub comment: String,
    /// Error ID (0000,0903).
    pub error_id: Option<u16>,
    /// Attribute Identifier List (0000,1005), or the Offending Elements (0000,0901).
    pub attributes: Vec<(u16, u16)>,
    /// Affected SOP Instance UID: of an N-CREATE, the one that the peer has made up.
    pub sop_instance: String,
    /// The data set, if there is one.
    pub data: Option<InMemDicomObject>,
}

impl Answer {
    fn new(response: Response, data: Option<InMemDicomObject>) -> Self {
        let Response { status, comment, error_id, mut attributes, offending, .. } = response;
        attributes.extend(offending);
        attributes.truncate(requestor::CONTEXTS_MAX);
        let sop_instance = response.sop_instance;
        Self { status, comment, error_id, attributes, sop_instance, data }
    }

    /// Whether the peer has done what was asked, possibly with a warning (PS3.7 C.1): a B000 to
    /// an N-SET, say, has set what it could.
    pub const fn is_done(&self) -> bool {
        matches!(self.status, status::SUCCESS | 0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF)
    }
}

/// Asks one thing on an association of its own.
async fn once(
    target: &Target,
    wanted: Wanted,
    operation: Operation,
    sop_instance: &str,
    set: &InMemDicomObject,
    repertoire: Repertoire,
) -> Result<Answer, InquiryError> {
    let class = wanted.sop_class.clone();
    let mut association = Association::open(target, vec![wanted]).await?;
    if let Err(e) = association.ask(&class, operation, sop_instance, set, repertoire).await {
        // Without a context nothing was said, and the association still stands.
        if matches!(e, InquiryError::NotTaken(_) | InquiryError::DataSet(_)) {
            association.release().await;
        }
        return Err(e);
    }
    match association.hear().await? {
        Heard::Answer(response, data) if !status::is_pending(response.status) => {
            association.release().await;
            Ok(Answer::new(*response, data))
        }
        _ => {
            association.abort().await;
            Err(InquiryError::Broke("a pending answer to an operation that has only one".into()))
        }
    }
}

/// Reports the outcome of a commitment on an association of our own, the roles reversed: we are
/// its SCP although we ask for the association, which role selection says (PS3.4 J.3.3,
/// PS3.7 D.3.3.4). Only an answer of 0000 means that the peer has it.
pub async fn event_report(target: &Target, outcome: &Outcome) -> Result<Answer, InquiryError> {
    let operation = Operation::EventReport(outcome.event_type());
    let wanted = Wanted::scp(STORAGE_COMMITMENT);
    let set = outcome.data_set();
    once(target, wanted, operation, STORAGE_COMMITMENT_INSTANCE, &set, Repertoire::UTF8).await
}

/// Creates a SOP instance at the peer (N-CREATE): a performed procedure step, a notice of
/// availability. With an empty `sop_instance` the peer makes up its UID.
pub async fn n_create(
    target: &Target,
    sop_class: &str,
    sop_instance: &str,
    attributes: &InMemDicomObject,
    repertoire: Repertoire,
) -> Result<Answer, InquiryError> {
    let wanted = Wanted::scu(sop_class);
    once(target, wanted, Operation::Create, sop_instance, attributes, repertoire).await
}

/// Changes attributes of a SOP instance at the peer (N-SET).
pub async fn n_set(
    target: &Target,
    sop_class: &str,
    sop_instance: &str,
    changes: &InMemDicomObject,
    repertoire: Repertoire,
) -> Result<Answer, InquiryError> {
    let wanted = Wanted::scu(sop_class);
    once(target, wanted, Operation::Set, sop_instance, changes, repertoire).await
}
