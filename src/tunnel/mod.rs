//! Custody to custody: lanes over QUIC; offer, resume, receipt; peers.
//!
//! A tunnel is one mutually authenticated QUIC connection (TLS 1.3 only) between two nodes, and
//! cargo goes both ways on it, whoever dialled. The name in the peer's certificate is the name of
//! the destination. What a node owes to the peer is offered on lanes ([`exchange`]); the peer
//! answers with a signed receipt ([`receipt`]) once the cargo is durable there, and only then is
//! the duty settled. A lost connection loses nothing: leases go back to the queue, the peer
//! answers *Have* for what it got, and large bodies go on at the byte where they stopped.
//!
//! A peer can bring its own cargo (and that of origins it may relay) and give receipts for what it
//! was offered; it learns nothing and can do nothing beyond that. Limits are in [`Limits`], and
//! with each part. The line format is in `docs/wire-protocol.md`.

pub mod congestion;
mod connection;
mod dialer;
pub mod exchange;
pub mod frame;
mod gate;
mod lane;
mod peers;
pub mod pki;
mod plain_tcp;
pub mod reason;
pub mod receipt;
mod receiver;
mod sender;
pub mod share;
mod transport;
pub mod trust;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::Endpoint;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cargo::{Assignment, Envelope, NodeName};
use crate::clock;
use crate::custody::Custody;
use crate::metrics::Metrics;
use trust::{Credentials, TrustError, days_left};

pub use peers::PeerStatus;
pub use transport::Limits;
pub use trust::Files;

/// How often the age of our certificate is counted.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);

/// What the tunnel needs to know, already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where peers dial us; absent: no inbound port is opened.
    pub listen: Option<SocketAddr>,
    /// Our identity, and whom we trust.
    pub files: Files,
    /// The nodes that may connect, or that we dial.
    pub peers: Vec<PeerConfig>,
    /// Limits.
    pub limits: Limits,
}

/// A destination of kind `node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name: in its certificate, and as destination.
    pub name: NodeName,
    /// `host:port` where it listens; absent: it dials us.
    pub address: Option<String>,
    /// Origins, other than itself, whose cargo it may bring.
    pub relay: Vec<NodeName>,
}

/// Decides where cargo that a peer has brought goes on to.
pub trait Router: Send + Sync {
    /// The assignments of a piece of cargo. `head` is the beginning of its body; `complete` says
    /// that it is the whole body. Must not block.
    fn assign(&self, envelope: &Envelope, head: &[u8], complete: bool) -> Vec<Assignment>;
}

/// Why the tunnel cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificate, key, trust or revocation list.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The address cannot be listened on.
    #[error("cannot listen for tunnels on {address} (UDP): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No socket to dial from.
    #[error("cannot open a UDP socket to dial from: {0}")]
    Dial(io::Error),
}

/// Everything that is replaced as a whole by a reload.
struct Snapshot {
    credentials: Arc<Credentials>,
    client: quinn::ClientConfig,
    server: Arc<quinn::ServerConfig>,
}

impl Snapshot {
    fn load(files: &Files, limits: &Limits, node: &NodeName) -> Result<Self, TrustError> {
        let credentials = Arc::new(Credentials::load(files, node)?);
        let client = transport::client_config(&credentials, limits);
        let server = Arc::new(transport::server_config(&credentials, limits));
        Ok(Self { credentials, client, server })
    }
}

struct Shared {
    config: Config,
    custody: Custody,
    router: Arc<dyn Router>,
    metrics: Metrics,
    snapshot: ArcSwap<Snapshot>,
    peers: peers::Peers,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    fn count_certificate_days(&self) {
        let days = days_left(self.snapshot.load().credentials.not_after(), clock::wall());
        let node = self.custody.node().as_str();
        self.metrics.certificate_days.with_label_values(&[node]).set(days);
        for peer in self.peers.statuses() {
            if let Some(expires) = peer.certificate_expires {
                let days = days_left(expires, clock::wall());
                self.metrics.certificate_days.with_label_values(&[peer.name.as_str()]).set(days);
            }
        }
    }
}

/// A running tunnel.
pub struct Tunnel {
    shared: Arc<Shared>,
    listening: Option<Endpoint>,
    dialling: Endpoint,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tunnel {{ listen: {:?} }}", self.shared.config.listen)
    }
}

/// Starts listening and dialling. Must be called inside a tokio runtime. Cancelling `shutdown`
/// stops it: nothing more is leased, what is in flight may finish for [`Limits::drain`], then
/// connections are closed ([`Tunnel::drained`]).
pub fn start(
    config: Config,
    custody: Custody,
    router: Arc<dyn Router>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<Tunnel, StartError> {
    let snapshot = Snapshot::load(&config.files, &config.limits, custody.node())?;
    let listening = match config.listen {
        None => None,
        Some(address) => Some(
            transport::listening(
                address,
                (*snapshot.server).clone(),
                snapshot.credentials.reset_seed(),
            )
            .map_err(|source| StartError::Listen { address, source })?,
        ),
    };
    let dialling = transport::dialling().map_err(StartError::Dial)?;
    let peers = peers::Peers::new(&config.peers);
    let snapshot = ArcSwap::from_pointee(snapshot);
    let tasks = TaskTracker::new();
    let shared =
        Arc::new(Shared { config, custody, router, metrics, snapshot, peers, shutdown, tasks });
    for peer in &shared.config.peers {
        shared.metrics.tunnel_up.with_label_values(&[peer.name.as_str()]).set(0);
        if peer.address.is_some() {
            let dial = dialer::keep_dialling(shared.clone(), dialling.clone(), peer.name.clone());
            shared.tasks.spawn(dial);
        }
    }
    if let Some(endpoint) = &listening {
        shared.tasks.spawn(dialer::keep_listening(shared.clone(), endpoint.clone()));
        if let Some(tcp) = endpoint.local_addr().ok().and_then(plain_tcp::listen) {
            shared.tasks.spawn(plain_tcp::keep_refusing(shared.clone(), tcp));
        }
    }
    shared.tasks.spawn(watch_certificates(shared.clone()));
    Ok(Tunnel { shared, listening, dialling })
}

async fn watch_certificates(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(CERTIFICATE_LOOK);
    loop {
        tokio::select! {
            _ = ticks.tick() => shared.count_certificate_days(),
            () = shared.shutdown.cancelled() => return,
        }
    }
}

impl Tunnel {
    /// Reads certificate, key, trust and revocation lists from `files`. Handshakes from now on use
    /// them; standing connections go on, except those of peers that are no longer trusted, which
    /// are closed. On an error everything stays as it was.
    pub fn reload(&self, files: &Files) -> Result<(), TrustError> {
        let shared = &self.shared;
        let snapshot = Snapshot::load(files, &shared.config.limits, shared.custody.node())?;
        if let Some(endpoint) = &self.listening {
            endpoint.set_server_config(Some((*snapshot.server).clone()));
        }
        let credentials = snapshot.credentials.clone();
        shared.snapshot.store(Arc::new(snapshot));
        for (peer, why) in shared.peers.close_distrusted(credentials.trust()) {
            tracing::warn!(%peer, %why, "tunnel closed: the certificate is no longer accepted");
        }
        shared.count_certificate_days();
        Ok(())
    }

    /// How the tunnel to each configured peer stands.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.shared.peers.statuses()
    }

    /// Where it listens (with the port that the system chose, if it was 0).
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.listening.as_ref().and_then(|e| e.local_addr().ok())
    }

    /// Waits until all has ended after a shutdown, and the peers have been told.
    pub async fn drained(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let told = async {
            self.dialling.wait_idle().await;
            if let Some(endpoint) = &self.listening {
                endpoint.wait_idle().await;
            }
        };
        // Longer than the three probe timeouts that QUIC waits for late packets (RFC 9000 10.2).
        let _ = tokio::time::timeout(Duration::from_secs(2), told).await;
    }
}

#[cfg(test)]
mod tests;
