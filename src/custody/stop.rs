//! The switch that ends acceptance for good: after a failed sync this process never says yes again,
//! and after a failure of the ledger not before it has begun anew.

use std::sync::Arc;

use tokio::sync::watch;

/// Shared by all that could say yes. Once thrown it stays thrown.
#[derive(Debug, Clone)]
pub struct StopSwitch(Arc<watch::Sender<Option<Stop>>>);

/// Why custody cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A log or the disk below it cannot be trusted: people and supervisors should know.
    Failed(String),
    /// Only the ledger failed, which the next start makes anew from the logs.
    Ledger(String),
}

impl Stop {
    /// Why, in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Failed(reason) | Self::Ledger(reason) => reason,
        }
    }
}

impl StopSwitch {
    /// Not thrown.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Throws it; the first reason stays.
    pub fn stop(&self, reason: String) {
        self.throw(Stop::Failed(reason));
    }

    /// Throws it because of the ledger alone; the first reason stays.
    pub(super) fn stop_for_ledger(&self, reason: String) {
        self.throw(Stop::Ledger(reason));
    }

    fn throw(&self, stop: Stop) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                let reason = stop.reason();
                tracing::error!(reason, "custody stops: nothing will be acknowledged any more");
                *state = Some(stop);
            }
            first
        });
    }

    /// Throws it at the end of a clean stop, when there is nothing to report.
    pub(super) fn close(&self) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(Stop::Failed("the node has stopped".into()));
            }
            first
        });
    }

    /// True once thrown.
    pub fn is_stopped(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Why it was thrown.
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().as_ref().map(|stop| stop.reason().to_owned())
    }

    /// Resolves with the reason when it is thrown.
    pub async fn stopped(&self) -> Stop {
        let mut seen = self.0.subscribe();
        let thrown = seen.wait_for(Option::is_some).await.ok().and_then(|stop| stop.clone());
        match thrown {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }
}

impl Default for StopSwitch {
    fn default() -> Self {
        Self::new()
    }
}
