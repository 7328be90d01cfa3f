//! The switch that ends acceptance for good: after a failed sync this process never says yes again.

use std::sync::Arc;

use tokio::sync::watch;

/// Shared by all that could say yes. Once thrown it stays thrown.
#[derive(Debug, Clone)]
pub struct StopSwitch(Arc<watch::Sender<Option<String>>>);

impl StopSwitch {
    /// Not thrown.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Throws it; the first reason stays.
    pub fn stop(&self, reason: String) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                tracing::error!(reason, "custody stops: nothing will be acknowledged any more");
                *state = Some(reason);
            }
            first
        });
    }

    /// Throws it at the end of a clean stop, when there is nothing to report.
    pub(super) fn close(&self) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some("the node has stopped".into());
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
        self.0.borrow().clone()
    }

    /// Resolves with the reason when it is thrown.
    pub async fn stopped(&self) -> String {
        let mut seen = self.0.subscribe();
        match seen.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

impl Default for StopSwitch {
    fn default() -> Self {
        Self::new()
    }
}
