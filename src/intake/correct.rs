//! An image that is to be as its order says, before custody takes it.
//!
//! What custody keeps then is not what came, and the answer says so: B000. The digest of the bytes as
//! received stays with it, so that a sender that sends them again gets the same answer, and no second
//! copy. What cannot be corrected exactly stays as it came, flagged; held for a person, where it would
//! go out as another patient's.

use std::pin::Pin;

use dicom_core::Tag;

use super::store::Because;
use crate::cargo::Assignment;
use crate::custody::correction::corrected;
use crate::custody::{AssembleError, Custody, Draft, Kept, TakeError};
use crate::dicom::correct::{CannotCorrect, Correction, NOT_CORRECTED, Patch};

/// What becomes of the question what an order wants.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Option<Correction>> + Send + 'a>>;

/// Takes an image into custody as its order says; with what was changed.
pub(super) async fn take_corrected(
    custody: &Custody,
    draft: Draft,
    correction: &Correction,
) -> Result<(Result<Kept, TakeError>, Vec<Tag>), Because> {
    let Draft { mut envelope, mut body, mut assignments } = draft;
    let complete = body.head().len() as u64 == body.len();
    let patch = correction.patch(body.head(), &envelope.transfer_syntax, complete);
    let changed = patch.as_ref().ok().and_then(Option::as_ref).map(Patch::changed);
    let changed = changed.unwrap_or_default().to_vec();
    // Sent again: what was kept the first time stays the only copy.
    let known = custody.find(&envelope.identity).await.is_some();
    match patch {
        Ok(Some(patch)) if !known => {
            let failed = |e: AssembleError| ((&e).into(), Some(e.to_string()));
            let new = body.spliced(custody, patch.splices()).await.map_err(failed)?;
            let received = envelope.identity.sha256;
            let draft =
                Draft { envelope: corrected(&envelope, &new, &patch), body: new, assignments };
            let kept = custody.take_corrected(draft, received).await;
            if let Ok(kept) = &kept {
                let (cargo, changed) = (kept.cargo(), patch.keywords().join(", "));
                tracing::info!(target: "audit", by = "orders", %cargo, changed, "image corrected");
            }
            return Ok((kept, changed));
        }
        Err(why) if !known => refuse(&mut envelope.flags, &mut assignments, correction.moves, &why),
        _ => {}
    }
    Ok((custody.take(Draft { envelope, body, assignments }).await, changed))
}

/// Says of an image that it cannot be corrected.
fn refuse(
    flags: &mut Vec<String>,
    assignments: &mut [Assignment],
    moves: bool,
    why: &CannotCorrect,
) {
    let words = format!("{NOT_CORRECTED}{why}");
    if moves {
        assignments.iter_mut().for_each(|a| a.hold = Some(words.clone()));
    }
    tracing::warn!(%why, "an image cannot be corrected as its order says");
    flags.push(words);
}
