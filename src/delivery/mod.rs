//! Hands cargo, images and reports, to its last destination: a DICOM application entity by C-STORE, a receiver of HL7 over
//! MLLP, or a folder.
//!
//! Promise: an object is receipted only by the destination's own *yes* to it (a C-STORE-RSP of
//! the success or warning class, an acknowledgement AA or CA of that very message, or a file that is
//! synced under its final name), a damaged object never goes out whole, and retries never end while
//! a destination is down. One destination never waits for another. At least once: an object whose
//! answer was lost is sent again, unchanged.
//!
//! Limits: associations per destination as configured; per association 16 leased objects of 64
//! MiB together (one may be larger), 128 presentation contexts, about 1 MiB of buffers; re-encoding
//! holds up to three copies of an object of at most `reencode_length_max`. HL7: one connection and
//! one message at a time, of at most [`HL7_LENGTH_MAX`]; an answer of at most
//! [`hl7_exchange::ANSWER_LENGTH_MAX`].

// Connects, associates, stores, releases.
mod association;
// Growing waits with jitter; pure.
pub mod backoff;
// Up or down, and since when; pure.
mod condition;
// Presentation contexts; pure.
pub mod contexts;
// A DICOM application entity as a destination.
mod dicom;
// A folder as a destination.
mod folder;
// A receiver of HL7 as a destination.
mod hl7;
// One message after the other, and whose answer it is; pure.
pub mod hl7_exchange;
// The front of a DICOM file; pure.
pub mod part10;
// From one native transfer syntax to another; pure.
pub mod reencode;
// The requestor's side of an association; pure.
pub mod requestor;
// What all senders do.
mod sender;
// What a C-STORE status means; pure.
pub mod status;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use self::backoff::Backoff;
use self::condition::Condition;
use self::sender::Sender;
use crate::cargo::{CargoKind, DestinationName, Envelope};
use crate::clock;
use crate::custody::Custody;
use crate::dicom::{AeTitle, is_uid};
use crate::hl7::charset::Charset;
use crate::metrics::Metrics;

pub use self::condition::DestinationStatus;
pub use crate::inquiry::Tls;

/// A destination of kind `dicom`, `hl7` or `folder`, checked.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its name.
    pub name: DestinationName,
    /// Where it is and how to get there.
    pub target: Target,
    /// Waits between tries while it is down.
    pub backoff: Backoff,
}

/// Default of [`Destination::backoff`].
pub const DESTINATION_BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// Where a destination is.
#[derive(Debug, Clone)]
pub enum Target {
    /// An application entity that takes C-STORE.
    Dicom(DicomTarget),
    /// A receiver of HL7 messages over MLLP.
    Hl7(Hl7Target),
    /// A folder on this machine; it is made when it is missing.
    Folder(PathBuf),
}

/// An application entity.
#[derive(Debug, Clone)]
pub struct DicomTarget {
    /// Host name or address; looked up at each connection.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Its AE title.
    pub called: AeTitle,
    /// The AE title that we give as ours.
    pub calling: AeTitle,
    /// DICOM over TLS (PS3.15 B.12); absent: plain TCP.
    pub tls: Option<Tls>,
    /// Associations at once.
    pub associations: NonZeroUsize,
    /// What to do when it does not take an object's transfer syntax.
    pub reencode: Reencode,
    /// Longest data set that is re-encoded, in bytes; it is held in memory.
    pub reencode_length_max: u64,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// Default of [`DicomTarget::reencode_length_max`].
pub const REENCODE_LENGTH_MAX: u64 = 512 * 1024 * 1024;

/// What to do when a destination does not take an object's transfer syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reencode {
    /// Quarantine it.
    #[default]
    Never,
    /// Re-encode native objects (implicit, explicit, big endian) to explicit or implicit VR
    /// little endian; quarantine compressed ones.
    Native,
}

/// Limits of every wait on an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP connection, and again for the TLS handshake.
    pub connect: Duration,
    /// For the answer to an association or release request.
    pub associate: Duration,
    /// For the response to a C-STORE, from its last byte.
    pub response: Duration,
    /// For the destination to take about 256 KiB.
    pub write: Duration,
    /// An association without work is released after this.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            associate: Duration::from_secs(30),
            response: Duration::from_secs(120),
            write: Duration::from_secs(60),
            idle: Duration::from_secs(5),
        }
    }
}

/// A receiver of HL7 messages.
#[derive(Debug, Clone)]
pub struct Hl7Target {
    /// Host name or address; looked up at each connection.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// MLLP over TLS; absent: plain TCP.
    pub tls: Option<Tls>,
    /// Of messages and answers whose MSH-18 says nothing.
    pub charset: Charset,
    /// How long to wait for what.
    pub timeouts: Hl7Timeouts,
}

/// Limits of every wait for a receiver of HL7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hl7Timeouts {
    /// For the TCP connection, and again for the TLS handshake.
    pub connect: Duration,
    /// For the receiver to take a message, and again for its answer.
    pub response: Duration,
}

/// Longest HL7 message that is sent, in bytes; it is held in memory.
pub const HL7_LENGTH_MAX: u64 = 64 << 20;

/// Wait before a sender is started again that ended by a panic.
const RESTART_WAIT: Duration = Duration::from_secs(5);

/// All senders of a node, running.
#[derive(Debug)]
pub struct Delivery {
    destinations: Vec<(DestinationName, &'static str, watch::Receiver<Condition>)>,
    tasks: TaskTracker,
}

impl Delivery {
    /// How each destination fares, in the order of the configuration.
    pub fn status(&self) -> Vec<DestinationStatus> {
        self.destinations.iter().map(|(name, kind, c)| c.borrow().status(name, kind)).collect()
    }

    /// Waits until all senders have ended, after shutdown: each finishes the object in hand and
    /// releases its association. May take as long as [`Timeouts`] allow; the caller limits it.
    pub async fn finished(&self) {
        self.tasks.wait().await;
    }
}

/// Starts the senders of all destinations, in the current runtime.
pub fn start(
    destinations: Vec<Destination>,
    custody: &Custody,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Delivery {
    let tasks = TaskTracker::new();
    let mut listed = vec![];
    for Destination { name, target, backoff } in destinations {
        let (condition, watched) = watch::channel(Condition::new(backoff, clock::wall()));
        let sender = |first: bool| Sender {
            destination: name.clone(),
            first,
            custody: custody.clone(),
            condition: condition.clone(),
            signal: custody.signal(&name),
            shutdown: shutdown.clone(),
            up: metrics.destination_up.with_label_values(&[name.as_str()]),
        };
        let kind = match target {
            Target::Folder(root) => {
                let start = {
                    let sender = sender(true);
                    move || tokio::spawn(folder::run(sender.clone(), root.clone()))
                };
                tasks.spawn(supervise(name.clone(), start, shutdown.clone()));
                "folder"
            }
            Target::Hl7(target) => {
                let (sender, target) = (sender(true), Arc::new(target));
                let start = move || tokio::spawn(hl7::run(sender.clone(), target.clone()));
                tasks.spawn(supervise(name.clone(), start, shutdown.clone()));
                "hl7"
            }
            Target::Dicom(target) => {
                let target = Arc::new(target);
                for n in 0..target.associations.get() {
                    let (sender, target) = (sender(n == 0), target.clone());
                    let start = move || tokio::spawn(dicom::run(sender.clone(), target.clone()));
                    tasks.spawn(supervise(name.clone(), start, shutdown.clone()));
                }
                "dicom"
            }
        };
        listed.push((name, kind, watched));
    }
    tasks.close();
    Delivery { destinations: listed, tasks }
}

/// Keeps a sender running. A panic is a bug of ours; its leases are back in the queue, and to
/// stop delivering silently would be worse.
async fn supervise(
    destination: DestinationName,
    start: impl Fn() -> JoinHandle<()>,
    shutdown: CancellationToken,
) {
    loop {
        match start().await {
            Ok(()) => return,
            Err(e) => error!(%destination, error = %e, "sender ended abnormally"),
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_WAIT) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Why cargo cannot be stored as a DICOM instance at all, in words for the operator.
fn unfit(envelope: &Envelope) -> Option<String> {
    let key = &envelope.identity.key;
    // A report with a SOP class is a DICOM document: structured, or one that encapsulates a file.
    let document = envelope.kind == CargoKind::Report && !envelope.sop_class.is_empty();
    if envelope.kind != CargoKind::Image && !document {
        let kind = envelope.kind;
        Some(format!(
            "a {kind} cannot go to a dicom or folder destination: they take images and reports that \
             are DICOM documents; a folder takes files of reports, too"
        ))
    } else if !is_uid(&envelope.sop_class) {
        Some("its SOP Class UID is no UID".into())
    } else if !is_uid(&envelope.transfer_syntax) {
        Some("its transfer syntax is no UID".into())
    } else if key.is_empty() || !key.bytes().all(|c| c.is_ascii_graphic()) {
        Some("its SOP Instance UID has other than printable characters".into())
    } else {
        None
    }
}
