//! Asks source archives: starts the retriever, and lets the images of a C-GET in by the way of a
//! C-STORE.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::router::TableRouter;
use crate::config::Config;
use crate::custody::Custody;
use crate::dicom::AeTitle;
use crate::dicom::command::{StoreRequest, status};
use crate::inquiry::Receiver;
use crate::intake;
use crate::intake::access::Admitted;
use crate::intake::negotiation::Context;
use crate::intake::store::{Answered, Store};
use crate::metrics::Metrics;
use crate::orders::registrar::Desk;
use crate::orders::retriever::{self, Door, Task};

/// Where images of a C-GET go in: what the intake is made of.
pub(super) struct IntakeDoor {
    pub(super) custody: Custody,
    pub(super) router: Arc<TableRouter>,
    pub(super) config: Arc<ArcSwap<intake::Config>>,
    pub(super) metrics: Metrics,
}

/// One image after the other.
pub(super) struct Taking {
    custody: Custody,
    router: Arc<TableRouter>,
    config: Arc<intake::Config>,
    metrics: Metrics,
    peer: Admitted,
    store: Option<Store>,
}

impl Door for IntakeDoor {
    type Taking = Taking;

    fn open(&self, from: &AeTitle, to: &AeTitle) -> Taking {
        Taking {
            custody: self.custody.clone(),
            router: self.router.clone(),
            config: self.config.load_full(),
            metrics: self.metrics.clone(),
            peer: Admitted { calling: from.clone(), called: to.clone() },
            store: None,
        }
    }
}

impl Receiver for Taking {
    async fn begin(&mut self, request: &StoreRequest, syntax: &str) {
        // The number of the context is the association's, which answers in it.
        let context = Context {
            id: 1,
            abstract_syntax: request.sop_class.clone(),
            transfer_syntax: syntax.to_owned(),
        };
        self.store = Some(Store::begin(&self.custody, &self.config, context, request.clone()));
    }

    async fn push(&mut self, bytes: &[u8]) {
        if let Some(store) = &mut self.store
            && store.push(bytes).await.is_err()
        {
            self.store = None;
        }
    }

    async fn finish(&mut self) -> u16 {
        let Some(store) = self.store.take() else { return status::OUT_OF_RESOURCES };
        let Answered { response, length, why } =
            store.finish(&self.custody, &*self.router, &self.peer).await;
        if let Some(length) = length {
            self.metrics.received.with_label_values(&["c-get"]).inc();
            self.metrics.received_bytes.with_label_values(&["c-get"]).inc_by(length);
        }
        if !matches!(response.status, status::SUCCESS | status::COERCED) {
            tracing::warn!(
                source = %self.peer.calling,
                status = format_args!("{:04X}", response.status),
                comment = response.comment,
                why,
                "an image of a C-GET is refused"
            );
        }
        response.status
    }
}

/// Starts the retriever, where the configuration has sources.
pub(super) fn start(
    config: &Config,
    tasks: mpsc::Receiver<Task>,
    (desk, door): (Desk, IntakeDoor),
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    Ok(retriever::start(config.archives()?, tasks, (desk, door), metrics, shutdown))
}
