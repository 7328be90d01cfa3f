//! Collecting: a report that has come in by any way is taken into custody, and only then its sender
//! hears yes. To which study it belongs is found out afterwards (`secretary`).
//!
//! The cargo is the report with all forms as they were received ([`Report::encode`]). Its key is
//! made of what it says, so that the same report sent again is the same piece. It has no
//! destination until it is matched: until then custody shows it as unrouted, and never reclaims it.

use crate::cargo::{CargoKind, Envelope, Identity, Sha256};
use crate::clock;
use crate::custody::{AssembleError, Custody, Draft, Kept, TakeError};
use crate::reports::report::Report;

/// What the key of a collected report begins with. What a node makes out of reports for its own
/// systems has other keys.
pub const KEY: &str = Identity::COLLECTED;

/// Why a report was not taken. Its sender keeps it and tries again.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// No room for its bytes, or the disk failed.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Custody did not take it.
    #[error(transparent)]
    Take(#[from] TakeError),
}

/// A report that is in custody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Custody's yes.
    pub kept: Kept,
    /// Id of the document, for people: 32 hexadecimal digits.
    pub document: String,
}

/// Takes a report into custody. Returns once it would survive a power cut; the same report again
/// gives the same yes.
///
/// # Errors
///
/// [`CollectError`]: nothing was kept.
pub async fn take(custody: &Custody, report: &Report) -> Result<Collected, CollectError> {
    let bytes = report.encode();
    let sha256 = Sha256::of(&bytes);
    let key = format!("{KEY}{sha256}");
    let identity = Identity { origin: custody.node().clone(), key, sha256 };
    let now = clock::wall();
    let mut envelope = Envelope::of_ours(CargoKind::Report, identity, bytes.len() as u64, now);
    envelope.calling_ae.clone_from(&report.source);
    envelope.study = report.ids.studies.first().cloned().unwrap_or_default();
    envelope.accession = report.ids.accessions.first().map(|a| a.id.clone()).unwrap_or_default();
    let mut assembly = custody.assemble();
    assembly.push(&bytes).await?;
    let draft = Draft { envelope, body: assembly.finish(), assignments: Vec::new() };
    let kept = custody.take(draft).await?;
    Ok(Collected { kept, document: sha256.to_string()[..32].to_owned() })
}
