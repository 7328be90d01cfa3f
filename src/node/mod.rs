//! Builds, starts and drains a node; the one place that knows all parts.
//!
//! Order of start: custody, tunnel, delivery, listeners; each may take work the moment it stands,
//! because the one before it does. Order of stop: listeners first, custody last. A drain ends
//! within the time that `[drain] timeout` states, whatever the peers do; what is not delivered by
//! then stays in custody.

mod api;
mod collecting;
mod orders;
mod reload;
mod reports;
mod retrieving;
mod router;
mod services;
mod supervisor;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cargo::{DestinationName, Sha256};
use crate::clock;
use crate::config::{ApiError, Config, Problem, TlsError};
use crate::custody::{self, Custody};
use crate::delivery::Destination;
use crate::intake;
use crate::metrics::Metrics;
use crate::ops;
use crate::orders::commitment;
use crate::orders::registrar;
use crate::orders::retriever;
use crate::tunnel::{self, Tunnel};

use reload::{Senders, digest_of};
use router::TableRouter;

/// Reload requests that may wait.
const RELOADS_MAX: usize = 4;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Custody.
    #[error(transparent)]
    Custody(#[from] custody::OpenError),
    /// Tunnel.
    #[error(transparent)]
    Tunnel(#[from] tunnel::StartError),
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The configuration does not fit what is in custody.
    #[error("{}", words(.0))]
    Configuration(Vec<Problem>),
    /// An address is taken or not ours.
    #[error("cannot listen on {what}: {source}")]
    Listen {
        /// For what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

fn words(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// How a node came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was asked to stop, and has drained.
    Stopped,
    /// Custody could not go on: exit at once, and let the supervisor start it again.
    Failed(String),
    /// The ledger failed: begin anew at once, which makes it anew from the logs.
    Begin(String),
}

/// A running node.
pub struct Node {
    /// What it was started with: what needs a restart stays as it stands here.
    started: Config,
    /// What it was given last.
    config: Config,
    custody: Custody,
    metrics: Metrics,
    view: Arc<ops::View>,
    intake_config: Option<Arc<ArcSwap<intake::Config>>>,
    intake_tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    destinations: watch::Sender<Vec<Destination>>,
    receivers: Arc<ArcSwap<registrar::Receivers>>,
    delivery_tls: Sha256,
    /// Ends when the last sender has ended.
    senders: Option<JoinHandle<()>>,
    tunnel: Option<Arc<Tunnel>>,
    /// Ends when every HL7 connection has ended.
    hl7: Option<JoinHandle<()>>,
    /// The API, and what ends when its last connection has ended.
    api: Option<api::Serving>,
    hl7_tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// The ways in for reports.
    collecting: Option<collecting::Collecting>,
    reloads: mpsc::Receiver<ops::ReloadRequest>,
    addresses: Addresses,
    accepting: CancellationToken,
    sending: CancellationToken,
    asking: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.config.node.name)
    }
}

/// Where a node listens, with the ports that the system chose where 0 was configured.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// DICOM.
    pub dicom: Option<SocketAddr>,
    /// DICOM over TLS.
    pub dicom_tls: Option<SocketAddr>,
    /// Tunnel (UDP).
    pub tunnel: Option<SocketAddr>,
    /// HL7.
    pub hl7: Option<SocketAddr>,
    /// HL7 over TLS.
    pub hl7_tls: Option<SocketAddr>,
    /// Reports by HL7.
    pub reports: Option<SocketAddr>,
    /// Reports by HL7 over TLS.
    pub reports_tls: Option<SocketAddr>,
    /// The API for other systems.
    pub api: Option<SocketAddr>,
    /// Ops.
    pub ops: Option<SocketAddr>,
}

impl Node {
    /// Builds and starts everything. Must be called in a multi-threaded tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing is left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        metrics.start_time.set(clock::wall().0 as f64 / 1000.0);
        let custody = Custody::open(config.custody(disk_size(&config)), metrics.clone())?;
        check_owed(&config, &custody).await?;
        let routes = Arc::new(ArcSwap::from_pointee(config.routes.clone()));
        let router = Arc::new(TableRouter::new(routes.clone(), &config));
        let (accepting, sending) = (CancellationToken::new(), CancellationToken::new());
        let tunnel = match config.tunnel() {
            None => None,
            Some(section) => Some(Arc::new(tunnel::start(
                section,
                custody.clone(),
                router.clone(),
                metrics.clone(),
                sending.clone(),
            )?)),
        };
        let token = sending.child_token();
        let (destinations, wanted) = watch::channel(config.delivery()?);
        let delivery = Senders::start(&wanted, &custody, &metrics, &token);
        let asking = CancellationToken::new();
        let mut tasks = Vec::new();
        let ends = (accepting.clone(), asking.clone());
        let (kept, asked) =
            orders::keep(&config, &router, (&custody, &metrics), &ends, &mut tasks)?;
        let reports =
            reports::keep(&config, kept.desk.as_ref(), (&custody, &metrics), &asking, &mut tasks);
        let (reload, reloads) = mpsc::channel(RELOADS_MAX);
        let view = Arc::new(ops::View {
            custody: custody.clone(),
            metrics: metrics.clone(),
            routes,
            tunnel: tunnel.clone(),
            delivery: ArcSwap::new(delivery.clone()),
            orders: kept.desk,
            reports,
            worklists: kept.worklists,
            notifier: kept.notifier,
            steps: kept.steps,
            reload: reload.into(),
            started_at: clock::wall(),
            not_ready: Mutex::new(BTreeSet::new()),
        });
        let senders = Senders {
            wanted,
            custody: custody.clone(),
            metrics: metrics.clone(),
            view: view.clone(),
            sending: sending.clone(),
        };
        let mut node = Self {
            delivery_tls: digest_of(&config.delivery_files()),
            started: config.clone(),
            config,
            custody,
            metrics,
            view,
            intake_config: None,
            intake_tls: None,
            destinations,
            receivers: router.receivers(),
            senders: Some(tokio::spawn(senders.keep(delivery, token))),
            addresses: Addresses {
                tunnel: tunnel.as_ref().and_then(|t| t.local_address()),
                ..Addresses::default()
            },
            tunnel,
            hl7: None,
            api: None,
            hl7_tls: None,
            collecting: None,
            reloads,
            accepting,
            sending,
            asking,
            tasks,
        };
        // Which studies wait for a person is known before their next image comes, unless the ledger
        // is being rebuilt: intake does not wait for that.
        if let Some(desk) = &node.view.orders {
            let _ = tokio::time::timeout(LOAD_TIME, desk.counts()).await;
        }
        node.listen(router, asked).await?;
        node.api = api::listen(&node.config, &node.view, &node.accepting).await?;
        node.addresses.api = node.api.as_ref().and_then(|api| api.address);
        node.tasks.push(tokio::spawn(router::route_unrouted(node.view.clone())));
        Ok(node)
    }

    /// Opens the listeners, last, so that nothing is accepted that could not be kept.
    async fn listen(
        &mut self,
        router: Arc<TableRouter>,
        asked: mpsc::Receiver<retriever::Task>,
    ) -> Result<(), StartError> {
        let ops_listener = bind("ops", self.config.ops.listen).await?;
        self.addresses.ops = ops_listener.local_addr().ok();
        let control = ops::control::listen(&self.config.node.data).map_err(|source| {
            StartError::Listen { what: "the control socket below [node] data".into(), source }
        })?;
        self.serve_ops(ops_listener, control);
        if let Some(desk) = self.view.orders.clone() {
            let (metrics, accepting) = (self.metrics.clone(), self.accepting.clone());
            if let Some(hl7) = orders::listen(&self.config, desk, metrics, accepting).await? {
                (self.addresses.hl7, self.addresses.hl7_tls) = (hl7.plain, hl7.tls);
                self.hl7 = Some(hl7.task);
                self.hl7_tls = hl7.certificate;
            }
        }
        let (custody, metrics) = (self.custody.clone(), self.metrics.clone());
        let end = self.accepting.clone();
        self.collecting =
            collecting::start(&self.config, custody, &router, metrics, end, &mut self.tasks)
                .await?;
        if let Some(hl7) = self.collecting.as_ref().and_then(|c| c.hl7.as_ref()) {
            (self.addresses.reports, self.addresses.reports_tls) = (hl7.plain, hl7.tls);
        }
        let Some(section) = self.config.intake() else { return Ok(()) };
        let plain = match section.listen {
            Some(address) => Some(bind("DICOM", address).await?),
            None => None,
        };
        let tls = match (section.tls_listen, self.config.intake_tls()?) {
            (Some(address), Some(tls)) => {
                let tls = Arc::new(ArcSwap::from(tls));
                self.intake_tls = Some(tls.clone());
                Some((bind("DICOM over TLS", address).await?, tls))
            }
            _ => None,
        };
        self.addresses.dicom = plain.as_ref().and_then(|l| l.local_addr().ok());
        self.addresses.dicom_tls = tls.as_ref().and_then(|(l, _)| l.local_addr().ok());
        let services = self.services();
        let config = Arc::new(ArcSwap::from_pointee(section));
        self.intake_config = Some(config.clone());
        if let Some(desk) = self.view.orders.clone() {
            let (custody, metrics) = (self.custody.clone(), self.metrics.clone());
            let (router, config) = (router.clone(), config.clone());
            let door = retrieving::IntakeDoor { custody, router, config, metrics };
            let (metrics, end) = (self.metrics.clone(), self.accepting.clone());
            let task = retrieving::start(&self.config, asked, (desk, door), metrics, end)?;
            self.tasks.push(task);
        }
        let intake = Arc::new(intake::Intake {
            config,
            custody: self.custody.clone(),
            router,
            services,
            metrics: self.metrics.clone(),
        });
        let listeners = intake::Listeners { plain, tls };
        let accepting = self.accepting.clone();
        self.tasks.push(tokio::spawn(intake::serve(listeners, intake, accepting)));
        Ok(())
    }

    /// Who performs the services beside storage: whoever keeps orders.
    fn services(&mut self) -> Option<Arc<dyn intake::Services>> {
        let desk = self.view.orders.clone()?;
        let (custody, metrics) = (self.custody.clone(), self.metrics.clone());
        let end = self.asking.clone();
        let config = self.config.committer()?;
        let (committer, task) = commitment::start(config, custody, desk.clone(), metrics, end);
        self.tasks.push(task);
        Some(Arc::new(services::Evidence { desk, committer }))
    }

    fn serve_ops(&mut self, pages: TcpListener, control: UnixListener) {
        let (view, end) = (self.view.clone(), self.asking.clone());
        self.tasks.push(tokio::spawn(ops::pages::serve(pages, view.clone(), end.clone())));
        self.tasks.push(tokio::spawn(ops::control::serve(control, view, end)));
    }

    /// Where it listens.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its custody, for whoever runs a node inside a program (the demo).
    pub const fn custody(&self) -> &Custody {
        &self.custody
    }

    /// What it shows to its operators.
    pub const fn view(&self) -> &Arc<ops::View> {
        &self.view
    }

    /// Drains and stops, within `[drain] timeout`.
    pub async fn stop(mut self) -> End {
        let timeout = self.started.drain.timeout;
        tracing::info!(seconds = timeout.as_secs(), "draining");
        if let Ok(mut reasons) = self.view.not_ready.lock() {
            reasons.insert("the node is draining".into());
        }
        self.accepting.cancel();
        let drained = tokio::time::timeout(timeout, self.drain()).await;
        if drained.is_err() {
            tracing::warn!("the drain time is over; what is not delivered stays in custody");
        }
        self.asking.cancel();
        let closed = tokio::time::timeout(CLOSE_TIME, self.custody.close()).await;
        for task in self.tasks.drain(..) {
            task.abort();
        }
        match closed {
            Ok(()) => End::Stopped,
            Err(_) => End::Failed("custody did not close in time; the next start recovers".into()),
        }
    }

    /// Lets associations end, then senders.
    async fn drain(&mut self) {
        while self.metrics.associations.get() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if let Some(hl7) = self.hl7.take() {
            let _ = hl7.await;
        }
        if let Some(collecting) = self.collecting.take() {
            collecting.drained().await;
        }
        if let Some(api) = self.api.take() {
            let _ = api.task.await;
        }
        self.sending.cancel();
        if let Some(senders) = self.senders.take() {
            let _ = senders.await;
        }
        if let Some(tunnel) = &self.tunnel {
            tunnel.drained().await;
        }
    }
}

/// How long listeners wait for the orders that are open.
const LOAD_TIME: Duration = Duration::from_secs(5);
/// How long custody may take for its last turn, its syncs and its seals.
const CLOSE_TIME: Duration = Duration::from_secs(30);

/// Bytes of the file system that holds `[node] data`, of which shares are taken.
pub(super) fn disk_size(config: &Config) -> u64 {
    let data = &config.node.data;
    let known = data.ancestors().find_map(|dir| nix::sys::statvfs::statvfs(dir).ok());
    let usable = |fs: nix::sys::statvfs::Statvfs| {
        let used = fs.blocks().saturating_sub(fs.blocks_free());
        (used + fs.blocks_available()) * fs.fragment_size()
    };
    known.map_or(u64::MAX, usable)
}

async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        what: format!("{address} (TCP) for {what}"),
        source,
    })
}

/// Removing a destination that is owed cargo is an error: nothing would ever say that it waits.
async fn check_owed(config: &Config, custody: &Custody) -> Result<(), StartError> {
    let problems = config.check_against(&owed(custody).await);
    match problems.is_empty() {
        true => Ok(()),
        false => Err(StartError::Configuration(problems)),
    }
}

/// Destinations with duties that are not settled.
async fn owed(custody: &Custody) -> Vec<DestinationName> {
    let summary = custody.summary_now().await.unwrap_or_default();
    let open = summary.destinations.iter().filter(|d| d.has_open());
    open.map(|d| d.destination.clone()).collect()
}
