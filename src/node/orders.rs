//! Starts the registrar and those around it, and gives it its ways in: HL7 messages from the
//! listener, items of polled worklists.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::router::TableRouter;
use super::{StartError, bind};
use crate::config::{Config, Hl7Section};
use crate::custody::Custody;
use crate::intake::mllp::{self, Messages, MllpListeners};
use crate::metrics::Metrics;
use crate::orders::notifier::{self, Notifier};
use crate::orders::registrar::{self, Desk};
use crate::orders::worklist::poll::{self, Conditions};
use crate::orders::{passing, retriever};

/// Who keeps orders and what belongs to them; nobody, where the configuration has no `[orders]`.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) desk: Option<Desk>,
    pub(super) worklists: Conditions,
    pub(super) notifier: Option<Notifier>,
    pub(super) steps: Option<passing::Watch>,
}

/// Starts who keeps orders: first whoever passes steps on, which the registrar has to know of; then
/// those who ask it. What is to be asked of archives comes out at the other end.
pub(super) fn keep(
    config: &Config,
    router: &Arc<TableRouter>,
    (custody, metrics): (&Custody, &Metrics),
    (accepting, asking): &(CancellationToken, CancellationToken),
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<(Kept, mpsc::Receiver<retriever::Task>), StartError> {
    let own = || (custody.clone(), metrics.clone());
    let (ask, asked) = mpsc::channel(retriever::TASKS_MAX);
    let Some(mut registrar) = config.registrar() else { return Ok((Kept::default(), asked)) };
    let mut kept = Kept::default();
    if let Some(passing) = config.passing()? {
        let (door, (custody, metrics)) = (passing.door(), own());
        registrar.pass_on = door.clone();
        let (steps, task) = passing::start(passing, door, custody, metrics, asking.clone());
        tasks.push(task);
        kept.steps = Some(steps);
    }
    let ways = (router.clone() as Arc<dyn registrar::Ways>, router.held());
    let (asks, (custody, metrics)) = ((ask, router.priors()), own());
    let (desk, task) =
        registrar::start(registrar, custody, ways, asks, metrics.clone(), asking.clone());
    tasks.push(task);
    router.ask(&desk);
    let (sources, end) = (config.worklists()?, accepting.child_token());
    let (worklists, polling) = poll::start(sources, &desk, &metrics, &end);
    kept.worklists = worklists;
    tasks.extend(polling);
    if let Some(notices) = config.notifier()? {
        let (custody, metrics) = own();
        let (letters, end) = (desk.letters(), asking.clone());
        let (notifier, task) = notifier::start(notices, custody, letters, metrics, end);
        tasks.push(task);
        kept.notifier = Some(notifier);
    }
    kept.desk = Some(desk);
    Ok((kept, asked))
}

/// Hands messages to the registrar.
struct Counter(Desk);

impl Messages for Counter {
    async fn take(&self, message: Bytes, _from: SocketAddr) -> Vec<Bytes> {
        self.0.message(message).await
    }
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
    let messages = Arc::new(Counter(desk));
    let hl7 = serve("HL7", (section, config.hl7_tls()?), messages, metrics, accepting).await?;
    Ok(Some(hl7))
}

/// Opens the listeners of a section: what comes goes to `messages`.
pub(super) async fn serve<M: Messages>(
    what: &str,
    (section, certificate): (&Hl7Section, Option<Arc<rustls::ServerConfig>>),
    messages: Arc<M>,
    metrics: Metrics,
    accepting: CancellationToken,
) -> Result<Hl7, StartError> {
    let plain = match section.listen {
        Some(address) => Some(bind(what, address).await?),
        None => None,
    };
    let tls = match (section.tls_listen, certificate) {
        (Some(address), Some(tls)) => {
            let what = format!("{what} over TLS");
            Some((bind(&what, address).await?, Arc::new(ArcSwap::from(tls))))
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
    let task = tokio::spawn(mllp::serve(listeners, limits, messages, metrics, accepting));
    Ok(Hl7 { plain: addresses.0, tls: addresses.1, task, certificate })
}
