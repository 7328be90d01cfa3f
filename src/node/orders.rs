//! Gives the registrar its ways in: HL7 messages from the listener, items of polled worklists.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{StartError, bind};
use crate::config::Config;
use crate::custody::Custody;
use crate::intake::mllp::{self, Messages, MllpListeners};
use crate::metrics::Metrics;
use crate::orders::notifier::{self, Notifier};
use crate::orders::registrar::Desk;

/// Hands messages to the registrar.
struct Counter(Desk);

impl Messages for Counter {
    async fn take(&self, message: Bytes, _from: SocketAddr) -> Vec<Bytes> {
        self.0.message(message).await
    }
}

/// Starts what brings notices to their receivers, where there are some.
pub(super) fn notify(
    config: notifier::Config,
    desk: &Desk,
    (custody, metrics): (Custody, Metrics),
    shutdown: CancellationToken,
) -> (Notifier, JoinHandle<()>) {
    notifier::start(config, custody, desk.letters(), metrics, shutdown)
}

/// Where HL7 is listened for, and what listens.
pub(super) struct Hl7 {
    pub(super) plain: Option<SocketAddr>,
    pub(super) tls: Option<SocketAddr>,
    pub(super) task: JoinHandle<()>,
    /// What the TLS listener shows, replaced by a reload.
    pub(super) certificate: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
}

/// Opens the HL7 listeners, where the configuration has some.
pub(super) async fn listen(
    config: &Config,
    desk: Desk,
    metrics: Metrics,
    accepting: CancellationToken,
) -> Result<Option<Hl7>, StartError> {
    let Some(section) = config.orders.as_ref().and_then(|orders| orders.hl7.as_ref()) else {
        return Ok(None);
    };
    let plain = match section.listen {
        Some(address) => Some(bind("HL7", address).await?),
        None => None,
    };
    let tls = match (section.tls_listen, config.hl7_tls()?) {
        (Some(address), Some(tls)) => {
            Some((bind("HL7 over TLS", address).await?, Arc::new(ArcSwap::from(tls))))
        }
        _ => None,
    };
    let addresses = (
        plain.as_ref().and_then(|l| l.local_addr().ok()),
        tls.as_ref().and_then(|(l, _)| l.local_addr().ok()),
    );
    let certificate = tls.as_ref().map(|(_, tls)| tls.clone());
    let listeners = MllpListeners { plain, tls };
    let limits = Arc::new(ArcSwap::from_pointee(section.mllp.clone()));
    let messages = Arc::new(Counter(desk));
    let task = tokio::spawn(mllp::serve(listeners, limits, messages, metrics, accepting));
    Ok(Some(Hl7 { plain: addresses.0, tls: addresses.1, task, certificate }))
}
