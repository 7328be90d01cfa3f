//! A DICOM application entity as a destination: C-STORE SCU (PS3.4 B).
//!
//! Each sender keeps one association and re-uses it across objects. A failure of the destination
//! (no connection, rejected, aborted at once) costs no object a try: its lease goes back, and the
//! destination is tried again after a back-off that never ends. A failure with one object costs
//! that object a try, and the others go on; see [`super::status`] for who is blamed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::association::{Association, DataSet, StoreError};
use super::contexts::{Pair, Proposal, Recent, Way};
use super::reencode::reencode;
use super::requestor::Answer;
use super::sender::Sender;
use super::status::{self, Decision, Experience, Try, Verdict};
use super::{DicomTarget, Reencode, unfit};
use crate::custody::{Leased, Outcome, Receipt};
use crate::inquiry::OpenError;

/// Objects in one lease: a STAT object waits for at most so many others per association.
const BATCH_ITEMS_MAX: usize = 16;

/// How long a sender waits before it goes on after the destination's answer made it pause.
fn pause(experience: &Experience) -> Option<Duration> {
    Some(experience.pause()).filter(|p| !p.is_zero())
}

/// Delivers to `target` until shutdown.
pub(super) async fn run(sender: Sender, target: Arc<DicomTarget>) {
    let mut scu = Scu {
        sender,
        target,
        association: None,
        rested: false,
        recent: Recent::default(),
        experience: Experience::default(),
    };
    while scu.sender.may_try().await {
        let batch = scu.sender.lease(BATCH_ITEMS_MAX).await;
        if batch.is_empty() {
            scu.rest().await;
        } else {
            scu.deliver(batch).await;
        }
    }
    scu.release().await;
}

struct Scu {
    sender: Sender,
    target: Arc<DicomTarget>,
    association: Option<Association>,
    /// Nothing was sent on the association since it lay idle: it may have died unnoticed.
    rested: bool,
    recent: Recent,
    experience: Experience,
}

/// What became of the try with one object.
enum Tried {
    /// Its duty is settled.
    Settled,
    /// It could not be tried on this association for no fault of its own; try it again at once.
    Again(Box<Leased>),
}

impl Scu {
    /// Waits until there may be work, and ends the association when it lies idle too long.
    async fn rest(&mut self) {
        let stopped = self.sender.stopped();
        let Some(association) = &mut self.association else {
            tokio::select! {
                () = self.sender.work() => {}
                () = stopped => {}
            }
            return;
        };
        self.rested = true;
        tokio::select! {
            () = association.until_ended() => {
                self.association = None;
                return;
            }
            () = tokio::time::sleep(self.target.timeouts.idle) => {}
            () = stopped => {}
            worked = self.sender.signal.changed() => {
                if worked.is_ok() {
                    return;
                }
            }
        }
        self.release().await;
    }

    async fn release(&mut self) {
        if let Some(association) = self.association.take() {
            association.release().await;
        }
    }

    /// Sends a batch. What is not sent when the destination fails goes back to the queue.
    async fn deliver(&mut self, batch: Vec<Leased>) {
        let mut queue = VecDeque::new();
        for leased in batch {
            match unfit(&leased.envelope) {
                Some(reason) => {
                    self.sender.settle(leased, Outcome::Quarantine { reason }).await;
                }
                None => queue.push_back(leased),
            }
        }
        while let Some(leased) = queue.pop_front() {
            if self.sender.shutdown.is_cancelled() || !self.associate(&leased, &queue).await {
                return;
            }
            if let Tried::Again(leased) = self.send(leased).await {
                queue.push_front(*leased);
                continue;
            }
            if let Some(pause) = pause(&self.experience) {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.sender.stopped() => return,
                }
            }
        }
    }

    /// Sees to an association that was asked about what `next` needs. False when the destination
    /// fails.
    async fn associate(&mut self, next: &Leased, queue: &VecDeque<Leased>) -> bool {
        let pair = pair(next);
        self.recent.note(&pair);
        if self.association.as_ref().is_some_and(|a| a.terms().covers(&pair)) {
            return true;
        }
        self.release().await;
        let wanted: Vec<Pair> = std::iter::once(pair).chain(queue.iter().map(self::pair)).collect();
        let reencode = self.target.reencode == Reencode::Native;
        let proposal = Proposal::plan(&wanted, &self.recent, reencode);
        match Association::open(&self.target, proposal).await {
            Ok(association) => {
                self.association = Some(association);
                self.rested = false;
                self.experience.associated();
                // While it breaks one association after the other, only an answer clears it.
                if !self.experience.is_ill() {
                    self.sender.answered();
                }
                true
            }
            Err(e) => {
                self.sender.failed(down(&e));
                false
            }
        }
    }

    /// Tries one object on the association that stands.
    async fn send(&mut self, leased: Leased) -> Tried {
        let pair = pair(&leased);
        let Some(association) = &mut self.association else {
            return Tried::Again(Box::new(leased));
        };
        let (context, data) = match association.terms().way(&pair) {
            Way::AsIs(context) => (context, DataSet::Kept(leased.body.clone())),
            Way::Reencoded(context, syntax) => {
                match changed(&leased, &syntax, self.target.reencode_length_max).await {
                    Ok(data) => (context, data),
                    Err(reason) => {
                        self.sender.settle(leased, Outcome::Quarantine { reason }).await;
                        return Tried::Settled;
                    }
                }
            }
            Way::Refused(reason) => {
                self.sender.settle(leased, Outcome::Quarantine { reason }).await;
                return Tried::Settled;
            }
            Way::Declined(cause) => {
                self.judge(leased, Try::Declined, cause).await;
                return Tried::Settled;
            }
            Way::Unasked => {
                self.release().await;
                return Tried::Again(Box::new(leased));
            }
        };
        let envelope = &leased.envelope;
        let key = &envelope.identity.key;
        match association.store(context, &envelope.sop_class, key, data).await {
            Ok(answer) => {
                self.rested = false;
                self.answered(leased, answer).await;
                Tried::Settled
            }
            Err(e) => self.broke(leased, e).await,
        }
    }

    async fn answered(&mut self, leased: Leased, answer: Answer) {
        let Answer { status, offending, comment } = answer;
        let verdict = status::verdict(status);
        if verdict != Verdict::Success {
            debug!(
                destination = %self.sender.destination,
                cargo = leased.cargo.0,
                status = format!("{status:04X}"),
                comment,
                "C-STORE answered"
            );
        }
        self.sender.answered();
        let mut words = format!("C-STORE status {status:04X}: {}", status::words(status));
        // Tags and no comment: that may quote a patient.
        for (group, element) in offending {
            words = format!("{words} ({group:04X},{element:04X})");
        }
        self.judge(leased, Try::Answered(status), words).await;
    }

    /// The association is gone, and nothing is known of the object.
    async fn broke(&mut self, leased: Leased, e: StoreError) -> Tried {
        self.association = None;
        match e {
            StoreError::Body(e) => {
                let reason = e.to_string();
                self.sender.settle(leased, Outcome::Damaged { reason }).await;
            }
            StoreError::Broke(_) if self.rested => return Tried::Again(Box::new(leased)),
            StoreError::Broke(why) => {
                self.judge(leased, Try::Broke, why.clone()).await;
                if self.experience.is_ill() {
                    self.sender.failed(why);
                    self.sender.may_try().await;
                }
            }
        }
        Tried::Settled
    }

    async fn judge(&mut self, leased: Leased, what: Try, words: String) {
        match (self.experience.decide(leased.cargo.0, leased.attempt, what), what) {
            (Decision::Receipted, Try::Answered(status)) => {
                let receipt = Receipt::Dicom { status };
                self.sender.settle(leased, Outcome::Receipted { receipt }).await;
            }
            (Decision::Quarantine, _) => {
                let tries = leased.attempt.saturating_add(1);
                let reason = format!("{words} (try {tries})");
                self.sender.settle(leased, Outcome::Quarantine { reason }).await;
            }
            // Only a status can be a receipt; a broken association never decides for one.
            (Decision::Retry | Decision::Receipted, _) => {
                self.sender.try_later(leased, words).await;
            }
        }
    }
}

fn pair(leased: &Leased) -> Pair {
    Pair {
        sop_class: leased.envelope.sop_class.clone(),
        syntax: leased.envelope.transfer_syntax.clone(),
    }
}

/// What to tell the operator, with what to look at.
fn down(e: &OpenError) -> String {
    use super::requestor::Ending;
    match e {
        OpenError::Ended(Ending::Rejected { permanent: true, .. }) => {
            format!("{e}; compare AE titles and the destination's list of known senders")
        }
        e => e.to_string(),
    }
}

/// The data set of `leased` in `syntax`, or why it never can be had.
async fn changed(leased: &Leased, syntax: &str, length_max: u64) -> Result<DataSet, String> {
    let length = leased.body.len();
    if length > length_max {
        return Err(format!(
            "the destination wants another transfer syntax, and {length} bytes are more than the \
             {length_max} that are re-encoded"
        ));
    }
    let bytes = leased.body.read().await.map_err(|e| e.to_string())?;
    let (from, to) = (leased.envelope.transfer_syntax.clone(), syntax.to_owned());
    let work = tokio::task::spawn_blocking(move || reencode(&bytes, &from, &to));
    match work.await {
        Ok(Ok(bytes)) => Ok(DataSet::Changed(bytes.into())),
        Ok(Err(e)) => Err(format!(
            "the destination takes only transfer syntax {syntax}, and re-encoding failed: {e}"
        )),
        Err(_) => Err("re-encoding ended abnormally".into()),
    }
}
