//! Telling a peer how its request came out, and the registrar what it named.

use std::pin::Pin;

use crate::custody::holding::Holding;
use crate::dicom::AeTitle;
use crate::dicom::commitment::{Outcome, Reference};
use crate::inquiry::{self, Target, Timeouts};

/// Reports on the association of a request.
pub trait OnAssociation: Send + 'static {
    /// Whether it lives, as far as is known.
    fn is_open(&self) -> bool;

    /// Reports and waits for the peer's answer; `Err`: in words, why the peer is not known to have
    /// it.
    fn report(
        self: Box<Self>,
        outcome: Outcome,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
}

/// Where an AE title takes reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Peer {
    /// Where to dial, as `calling`.
    pub(super) fn target(&self, calling: AeTitle, called: AeTitle) -> Target {
        Target {
            host: self.host.clone(),
            port: self.port,
            calling,
            called,
            tls: None,
            timeouts: Timeouts::default(),
        }
    }
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The peer has answered 0000.
    Taken,
    /// It is not known to have it; in words, why.
    Failed(String),
}

/// Reports on the association of the request while it lives, else on one of our own.
pub(super) async fn tell(
    outcome: Outcome,
    reporter: Option<Box<dyn OnAssociation>>,
    target: Option<Target>,
) -> Told {
    if let Some(reporter) = reporter
        && reporter.report(outcome.clone()).await.is_ok()
    {
        return Told::Taken;
    }
    let Some(target) = target else {
        return Told::Failed(
            "its association has ended, and [[orders.commitment.report_to]] has no address for it"
                .into(),
        );
    };
    match inquiry::event_report(&target, &outcome).await {
        Ok(answer) if answer.is_done() => Told::Taken,
        Ok(answer) => Told::Failed(format!("it answered {:04X}", answer.status)),
        Err(e) => Told::Failed(e.to_string()),
    }
}

/// What a request names, by study. What custody does not have is taken to belong to the study of
/// all the rest, where that is one; else it is not known whose it is.
pub(super) fn by_study(
    asked: &[Reference],
    held: &[Option<Holding>],
) -> Vec<(String, Vec<Reference>)> {
    let study = |held: &Option<Holding>| {
        held.as_ref().map(|h| h.study.clone()).filter(|study| !study.is_empty())
    };
    let mut lists: Vec<(String, Vec<Reference>)> = Vec::new();
    let mut unknown = Vec::new();
    for (reference, held) in asked.iter().zip(held) {
        let Some(study) = study(held) else {
            unknown.push(reference.clone());
            continue;
        };
        match lists.iter_mut().find(|(s, _)| *s == study) {
            Some((_, list)) => list.push(reference.clone()),
            None => lists.push((study, vec![reference.clone()])),
        }
    }
    if let [(_, list)] = &mut lists[..] {
        list.append(&mut unknown);
    }
    lists
}
