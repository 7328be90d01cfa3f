//! A data set that its caller sends as a report: taken by whoever collects reports, in place of
//! custody's keeping it as an image. Who that is, and what a report is, the rest of the node knows.
//!
//! What cannot be read as a report is kept as an image exactly as it came, with a flag that says so.

use std::pin::Pin;

use super::store::Because;
use crate::cargo::Envelope;
use crate::custody::{AssembleError, Assembled, Custody, Kept, TakeError};
use crate::dicom::AeTitle;

/// What the flag of a data set begins with that is no report although its caller sends reports.
pub const NO_REPORT: &str = "not taken as a report: ";

/// What becomes of a report.
pub type Taking<'a> = Pin<Box<dyn Future<Output = Result<Kept, NotTaken>> + Send + 'a>>;

/// Why a data set is not taken as a report.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It is none that can be read, in words without patient data.
    #[error("{0}")]
    NoReport(String),
    /// There is no room for it, or the disk failed.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Custody did not take it.
    #[error(transparent)]
    Take(#[from] TakeError),
}

/// Collects reports.
pub trait Reports: Send + Sync + 'static {
    /// Whether what this caller sends of this SOP class is a report.
    fn wants(&self, calling: &AeTitle, sop_class: &str) -> bool;

    /// Most bytes of a report.
    fn length_max(&self) -> u64;

    /// Takes a data set in `syntax`. A yes would survive a power cut, and is the same when the same
    /// data set comes again.
    fn take<'a>(&'a self, calling: &'a AeTitle, syntax: &'a str, bytes: Vec<u8>) -> Taking<'a>;
}

/// Has a data set taken as a report. `None`: it is to be kept as an image; if its caller sends
/// reports, the envelope says why.
pub(super) async fn take_report(
    custody: &Custody,
    reports: &dyn Reports,
    calling: &AeTitle,
    envelope: &mut Envelope,
    body: &mut Assembled,
) -> Result<Option<Kept>, Because> {
    if !reports.wants(calling, &envelope.sop_class) {
        return Ok(None);
    }
    let most = reports.length_max();
    let taken = match body.len() > most {
        true => Err(NotTaken::NoReport(format!("it is longer than {most} bytes"))),
        false => match body.bytes(custody).await {
            Ok(bytes) => reports.take(calling, &envelope.transfer_syntax, bytes).await,
            Err(e) => Err(e.into()),
        },
    };
    match taken {
        Ok(kept) => Ok(Some(kept)),
        Err(NotTaken::NoReport(why)) => {
            tracing::warn!(%calling, why, "a document is kept as an image: it is no report");
            envelope.flags.push(format!("{NO_REPORT}{why}"));
            Ok(None)
        }
        Err(NotTaken::Assemble(e)) => Err(((&e).into(), Some(e.to_string()))),
        Err(NotTaken::Take(e)) => Err(((&e).into(), Some(e.to_string()))),
    }
}
