//! One C-STORE (PS3.4 B): the data set into custody, and the answer.
//!
//! | status | when |
//! |---|---|
//! | 0000 | custody has given its [`Kept`] |
//! | B000 | the same, for a version that was corrected as its order says (`correct`) |
//! | A700 | no room, object too large, disk trouble, or the node is stopping: send again later |
//! | A900 | the SOP Instance or Class UID of the data set is not the command's |
//! | C000 | the data set is empty, or no first element can be read in its transfer syntax |
//! | 0117 | the command's SOP Instance UID is missing or no identifier at all |
//! | 0122 | the command's SOP class is no storage class |
//! | 0124 | the SOP class is refused by configuration |
//!
//! What a caller sends as a report is taken as one (`report`), with the same answers.
//!
//! Everything else that is odd about an object is kept as it is and flagged in its envelope. A
//! refused data set is read to its end, because a sender listens only then, but not beyond
//! [`DRAIN_LENGTH_MAX`].

use arc_swap::ArcSwap;

use crate::cargo::{Assignment, CargoKind, Envelope, Identity, Urgency, peer_text};
use crate::clock::{self, Timestamp};
use crate::custody::{AssembleError, Assembled, Assembly, Custody, Draft, Kept, TakeError};
use crate::dicom::command::{Response, StoreRequest, field, status};
use crate::dicom::header::{self, Header, Reading, tag_of};
use crate::dicom::{UID_LENGTH_MAX, is_uid};
use crate::routing::{Subject, Table};

use super::Config;
use dicom_core::Tag;

use super::access::Admitted;
use super::correct::{Answer, take_corrected};
use super::negotiation::{Context, is_storage};
use super::report::{Reports, take_report};

/// Most bytes of a refused data set that are read before the association is aborted: a little
/// more than the largest object that a 32-bit pixel data length allows.
pub const DRAIN_LENGTH_MAX: u64 = 5 << 30;

/// Longest identifier that is kept although it is no UID, in characters.
const ODD_UID_LENGTH_MAX: usize = 2 * UID_LENGTH_MAX;

/// Where cargo goes. Asked once per image, when it is whole.
pub trait Router: Send + Sync + 'static {
    /// The destinations of an image. None: it is kept and shown as unrouted. The envelope's
    /// urgency is not yet set: it is what this decides.
    fn assign(&self, envelope: &Envelope, header: &Header) -> Vec<Assignment>;

    /// What the order of an image wants of it, where a route says `correct`. Must not take long.
    fn correct<'a>(&'a self, _: &'a Envelope, _: &'a Header) -> Answer<'a> {
        Box::pin(async { None })
    }

    /// Who collects what some callers send as reports; `None`: nobody does.
    fn reports(&self) -> Option<&dyn Reports> {
        None
    }
}

/// The routing table as it stands.
impl Router for ArcSwap<Table> {
    fn assign(&self, envelope: &Envelope, header: &Header) -> Vec<Assignment> {
        let attribute = |keyword: &str| header.attribute(tag_of(keyword)?).map(str::to_owned);
        self.load().assign(&Subject { envelope, attribute: &attribute })
    }
}

/// Why a C-STORE is answered with a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Status.
    pub status: u16,
    /// What the person at the sender should know, at most 64 characters of ASCII (VR LO).
    pub comment: &'static str,
    /// The element that the failure is about.
    pub offending: Option<(u16, u16)>,
}

const fn failure(status: u16, comment: &'static str) -> Failure {
    Failure { status, comment, offending: None }
}

/// The failures that this service class provider answers with.
mod failures {
    use super::{Failure, failure, status};

    pub(super) const FULL: Failure =
        failure(status::OUT_OF_RESOURCES, "no room at this node now; send again later");
    pub(super) const TOO_LARGE: Failure =
        failure(status::OUT_OF_RESOURCES, "object is larger than this node's limit allows");
    pub(super) const IO: Failure =
        failure(status::OUT_OF_RESOURCES, "this node cannot write to its disk; send again later");
    pub(super) const STOPPED: Failure =
        failure(status::OUT_OF_RESOURCES, "this node is stopping; send again later");
    pub(super) const EMPTY: Failure = failure(status::CANNOT_UNDERSTAND, "the data set is empty");
    pub(super) const UNREADABLE: Failure =
        failure(status::CANNOT_UNDERSTAND, "no element can be read in the negotiated syntax");
    pub(super) const CLASS_REFUSED: Failure =
        failure(status::NOT_AUTHORIZED, "this SOP class is refused by configuration");
    pub(super) const NOT_STORAGE: Failure =
        failure(status::SOP_CLASS_NOT_SUPPORTED, "not a storage SOP class");
    pub(super) const NO_INSTANCE: Failure =
        failure(status::INVALID_SOP_INSTANCE, "the command's SOP Instance UID is no UID");
    pub(super) const CLASS_DIFFERS: Failure = Failure {
        offending: Some((0x0008, 0x0016)),
        ..failure(status::DATA_SET_MISMATCH, "SOP Class UID differs from the command's")
    };
    pub(super) const INSTANCE_DIFFERS: Failure = Failure {
        offending: Some((0x0008, 0x0018)),
        ..failure(status::DATA_SET_MISMATCH, "SOP Instance UID differs from the command's")
    };
}

impl From<&AssembleError> for Failure {
    fn from(e: &AssembleError) -> Self {
        match e {
            AssembleError::Full(_) => failures::FULL,
            AssembleError::TooLarge(_) => failures::TOO_LARGE,
            AssembleError::Io(_) => failures::IO,
            AssembleError::Stopped => failures::STOPPED,
        }
    }
}

impl From<&TakeError> for Failure {
    fn from(e: &TakeError) -> Self {
        match e {
            TakeError::Full(_) => failures::FULL,
            TakeError::Io(_) => failures::IO,
            TakeError::Stopped => failures::STOPPED,
        }
    }
}

/// A refused data set did not end within [`DRAIN_LENGTH_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a refused data set did not end within {DRAIN_LENGTH_MAX} bytes")]
pub struct Endless;

#[derive(Debug)]
enum Progress {
    /// Bytes go into custody's assembly.
    Taking(Box<Assembly>),
    /// The answer is decided; bytes are passed over.
    Refused { because: Because, passed_over: u64 },
}

/// A C-STORE under way.
#[derive(Debug)]
pub struct Store {
    request: StoreRequest,
    context: Context,
    progress: Progress,
}

/// How a C-STORE ended.
#[derive(Debug)]
pub struct Answered {
    /// What to send.
    pub response: Response,
    /// Bytes of the data set, when it came whole.
    pub length: Option<u64>,
    /// What this node's people should know beyond the response's comment.
    pub why: Option<String>,
}

/// A failure, and what custody says about it.
pub(super) type Because = (Failure, Option<String>);

impl Store {
    /// Begins with a request.
    pub fn begin(
        custody: &Custody,
        config: &Config,
        context: Context,
        request: StoreRequest,
    ) -> Self {
        let progress = match judge_request(&request, config) {
            Ok(()) => Progress::Taking(Box::new(custody.assemble())),
            Err(failure) => Progress::Refused { because: (failure, None), passed_over: 0 },
        };
        Self { request, context, progress }
    }

    /// The presentation context to answer in.
    pub fn context(&self) -> u8 {
        self.context.id
    }

    /// Takes the next bytes of the data set.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Endless> {
        match &mut self.progress {
            Progress::Taking(assembly) => {
                if let Err(e) = assembly.push(bytes).await {
                    let because = ((&e).into(), Some(e.to_string()));
                    self.progress = Progress::Refused { because, passed_over: 0 };
                }
                Ok(())
            }
            Progress::Refused { passed_over, .. } => {
                *passed_over = passed_over.saturating_add(bytes.len() as u64);
                if *passed_over > DRAIN_LENGTH_MAX { Err(Endless) } else { Ok(()) }
            }
        }
    }

    /// The data set has ended: into custody, and the answer.
    pub async fn finish(self, custody: &Custody, router: &dyn Router, peer: &Admitted) -> Answered {
        let Self { request, context, progress } = self;
        let assembly = match progress {
            Progress::Taking(assembly) => assembly,
            Progress::Refused { because: (failure, why), .. } => {
                return Answered { response: refusal(&request, failure), length: None, why };
            }
        };
        let body = assembly.finish();
        let length = Some(body.len());
        let (response, why) = match take(custody, router, peer, &request, &context, body).await {
            Ok((kept, changed)) => (success(&request, &kept, changed), None),
            Err((failure, why)) => (refusal(&request, failure), why),
        };
        Answered { response, length, why }
    }
}

async fn take(
    custody: &Custody,
    router: &dyn Router,
    peer: &Admitted,
    request: &StoreRequest,
    context: &Context,
    mut body: Assembled,
) -> Result<(Kept, Vec<Tag>), Because> {
    let complete = body.head().len() as u64 == body.len();
    let (header, flags) =
        examine(request, context, body.head(), complete).map_err(|failure| (failure, None))?;
    let identity = Identity {
        origin: custody.node().clone(),
        key: request.sop_instance.clone(),
        sha256: body.sha256(),
    };
    let parts = Parts { identity, length: body.len(), received_at: clock::wall() };
    let mut envelope = envelope(parts, peer, request, context, &header, flags);
    if let Some(reports) = router.reports() {
        let taken = take_report(custody, reports, &peer.calling, &mut envelope, &mut body).await?;
        if let Some(kept) = taken {
            return Ok((kept, Vec::new()));
        }
    }
    let assignments = router.assign(&envelope, &header);
    if let Some(most_urgent) = assignments.iter().map(|a| a.urgency).min() {
        envelope.urgency = most_urgent;
    }
    // While the ledger is being rebuilt nobody knows, and nobody is waited for.
    let correction = match custody.summary().ready {
        true => router.correct(&envelope, &header).await,
        false => None,
    };
    let draft = Draft { envelope, body, assignments };
    let taken = match correction {
        Some(correction) => take_corrected(custody, draft, &correction).await?,
        None => (custody.take(draft).await, Vec::new()),
    };
    let kept = taken.0.map_err(|e| ((&e).into(), Some(e.to_string())))?;
    Ok((kept, taken.1))
}

/// Whether the command can be served at all.
fn judge_request(request: &StoreRequest, config: &Config) -> Result<(), Failure> {
    if config.refuse_sop_classes.contains(&request.sop_class) {
        return Err(failures::CLASS_REFUSED);
    }
    if !is_storage(&request.sop_class) {
        return Err(failures::NOT_STORAGE);
    }
    // Not every device in the field keeps to digits and dots; what could be an identifier is one.
    // What could be a folder to somebody else (`..`) is none.
    let plain = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    let uid = request.sop_instance.as_bytes();
    let says = uid.iter().all(plain) && uid.iter().any(u8::is_ascii_alphanumeric);
    if uid.len() > ODD_UID_LENGTH_MAX || !says {
        return Err(failures::NO_INSTANCE);
    }
    Ok(())
}

/// Reads the header and compares it with the command: what is kept, and what is odd about it.
/// Pure.
pub fn examine(
    request: &StoreRequest,
    context: &Context,
    head: &[u8],
    complete: bool,
) -> Result<(Header, Vec<String>), Failure> {
    let header = match header::read(head, &context.transfer_syntax, complete) {
        Reading::Empty => return Err(failures::EMPTY),
        Reading::Unreadable => return Err(failures::UNREADABLE),
        Reading::Header(header) => header,
    };
    // An absent UID contradicts nothing: the command names the object.
    let differs = |here: &str, command: &str| !here.is_empty() && here != command;
    if differs(header.sop_instance(), &request.sop_instance) {
        return Err(failures::INSTANCE_DIFFERS);
    }
    if differs(header.sop_class(), &request.sop_class) {
        return Err(failures::CLASS_DIFFERS);
    }
    let mut flags: Vec<String> = header.fault.iter().cloned().collect();
    let mut flag = |odd: bool, text: &str| flags.extend(odd.then(|| text.to_owned()));
    flag(header.whole && header.sop_instance().is_empty(), "data set has no SOP Instance UID");
    flag(header.whole && header.sop_class().is_empty(), "data set has no SOP Class UID");
    flag(header.whole && header.study().is_empty(), "data set has no Study Instance UID");
    flag(!is_uid(&request.sop_instance), "SOP Instance UID breaks the rules for UIDs");
    flag(
        request.sop_class != context.abstract_syntax,
        "SOP class is not that of its presentation context",
    );
    Ok((header, flags))
}

/// What an envelope needs besides command and header.
struct Parts {
    identity: Identity,
    length: u64,
    received_at: Timestamp,
}

fn envelope(
    parts: Parts,
    peer: &Admitted,
    request: &StoreRequest,
    context: &Context,
    header: &Header,
    flags: Vec<String>,
) -> Envelope {
    Envelope {
        kind: CargoKind::Image,
        identity: parts.identity,
        length: parts.length,
        urgency: Urgency::default(),
        received_at: parts.received_at,
        calling_ae: peer.calling.to_string(),
        called_ae: peer.called.to_string(),
        sop_class: peer_text(&request.sop_class),
        transfer_syntax: peer_text(&context.transfer_syntax),
        study: peer_text(header.study()),
        series: peer_text(header.series()),
        modality: peer_text(header.modality()),
        accession: peer_text(header.accession()),
        patient_id: peer_text(header.patient_id()),
        flags,
    }
}

/// The one answer that says yes, 0000 or B000: it takes custody's token.
fn success(request: &StoreRequest, kept: &Kept, changed: Vec<Tag>) -> Response {
    tracing::debug!(
        cargo = kept.cargo().0,
        new = kept.is_new(),
        conflict = kept.is_conflict(),
        "image kept"
    );
    if kept.is_corrected() {
        return Response {
            status: status::COERCED,
            offending: changed.iter().map(|tag| (tag.group(), tag.element())).collect(),
            comment: "kept as its order says; see Original Attributes".into(),
            ..response(request)
        };
    }
    Response { status: status::SUCCESS, ..response(request) }
}

fn refusal(request: &StoreRequest, failure: Failure) -> Response {
    Response {
        status: failure.status,
        offending: failure.offending.into_iter().collect(),
        comment: failure.comment.to_owned(),
        ..response(request)
    }
}

fn response(request: &StoreRequest) -> Response {
    Response {
        field: field::C_STORE_RSP,
        responded_to: request.message_id,
        sop_class: request.sop_class.clone(),
        sop_instance: request.sop_instance.clone(),
        // Overwritten by both callers; a forgotten one must not say success.
        status: status::PROCESSING_FAILURE,
        ..Response::default()
    }
}

#[cfg(test)]
mod tests;
