//! The life of a node as a process: signals, the watchdog, what the service manager is told.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{End, Node};
use crate::custody::Stop;

impl Node {
    /// Runs until SIGTERM or SIGINT, or until custody fails. SIGHUP reloads.
    ///
    /// # Errors
    ///
    /// Signals cannot be listened for.
    pub async fn run(mut self) -> io::Result<End> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let stop = self.custody.stop_switch();
        let period = sd_notify::watchdog_enabled().map(|limit| limit / 3);
        let mut watchdog = tokio::time::interval(period.unwrap_or(Duration::from_secs(3600)));
        notify(&[NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                stop = stop.stopped() => return Ok(match stop {
                    Stop::Failed(reason) => End::Failed(reason),
                    Stop::Ledger(reason) => End::Begin(reason),
                }),
                _ = hang_up.recv() => self.reload_and_say().await,
                Some(reply) = self.reloads.recv() => {
                    let result = self.reload().await;
                    let _ = reply.send(result);
                }
                _ = watchdog.tick() => self.feed_watchdog(period).await,
            }
        }
        notify(&[NotifyState::Stopping]);
        Ok(self.stop().await)
    }

    async fn reload_and_say(&mut self) {
        // systemd takes the two only together, in one message (sd_notify(3)).
        if let Ok(begun) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, begun]);
        }
        match self.reload().await {
            Ok(said) => said.iter().for_each(|what| tracing::info!("reload: {what}")),
            Err(wrong) => {
                for what in wrong {
                    tracing::error!("reload refused, everything stays as it was: {what}");
                }
            }
        }
        notify(&[NotifyState::Ready]);
    }

    /// Only a custodian that takes its turns keeps the process alive: a hung disk must not look
    /// healthy for ever.
    async fn feed_watchdog(&self, period: Option<Duration>) {
        let Some(period) = period else { return };
        let turn = tokio::time::timeout(period, self.custody.turn()).await;
        match turn {
            Ok(true) => notify(&[NotifyState::Watchdog]),
            _ => tracing::error!("the custodian takes no turns; the watchdog is not fed"),
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!(error = %e, "the service manager cannot be told");
    }
}
