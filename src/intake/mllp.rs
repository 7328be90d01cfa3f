//! HL7 over MLLP, plain or over TLS: connections in, whole messages to whoever takes them, answers
//! back.
//!
//! - Only addresses on the allow-list are served; others are closed unread.
//! - Connections, their number from one address, the length of a message and the time that it may
//!   take are bounded. Memory per connection is one message and one read.
//! - Messages of one connection are taken one after the other; the next is not read before the last
//!   is answered, which slows a sender down and loses nothing.
//! - A yes is [`Messages::take`]'s to give, after custody has the message.
//! - When the node stops, a message that has come whole is still answered.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::Network;
use crate::hl7::mllp::{Deframer, FrameError, frame};
use crate::metrics::Metrics;

/// Most bytes of one read.
const READ_LENGTH: usize = 64 * 1024;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Time for a TLS handshake, and for the peer to take an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a stopping node waits for messages under way.
const DRAIN: Duration = Duration::from_secs(10);

/// Takes messages into custody.
pub trait Messages: Send + Sync + 'static {
    /// Takes one message, without its frame, and says what to answer, in this order (none, one, or
    /// two acknowledgements). Returns once a yes among them would survive a power cut.
    fn take(&self, message: Bytes, from: SocketAddr) -> impl Future<Output = Vec<Bytes>> + Send;
}

/// What the listener is allowed to do; read at every new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MllpConfig {
    /// Who may connect. Empty: nobody.
    pub allow: Vec<Network>,
    /// Connections in all. Default 32.
    pub connections: usize,
    /// Connections from one address. Default 8.
    pub connections_per_address: usize,
    /// Bytes of one message. Default 1 MiB.
    pub message: usize,
    /// Time from a message's first byte to its last. Default 60 s.
    pub message_time: Duration,
    /// Longest silence between messages; most senders keep their connection for days. Default 24 h.
    pub idle: Duration,
}

impl Default for MllpConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            connections: 32,
            connections_per_address: 8,
            message: 1 << 20,
            message_time: Duration::from_secs(60),
            idle: Duration::from_secs(24 * 3600),
        }
    }
}

/// The sockets, bound.
#[derive(Debug)]
pub struct MllpListeners {
    /// Plain.
    pub plain: Option<TcpListener>,
    /// Over TLS, with the configuration as it stands.
    pub tls: Option<(TcpListener, Arc<ArcSwap<rustls::ServerConfig>>)>,
}

/// What every connection works with.
struct Shared<M> {
    config: Arc<ArcSwap<MllpConfig>>,
    messages: Arc<M>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

/// Serves until `shutdown`, answers what has come whole by then, and returns.
pub async fn serve<M: Messages>(
    listeners: MllpListeners,
    config: Arc<ArcSwap<MllpConfig>>,
    messages: Arc<M>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let shared = Arc::new(Shared { config, messages, metrics, shutdown });
    let mut open = Open::default();
    loop {
        let (accepted, tls) = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            Some(ended) = open.tasks.join_next_with_id() => {
                open.by_task.remove(&ended.map_or_else(|e| e.id(), |(id, ())| id));
                continue;
            }
            accepted = accept(listeners.plain.as_ref()) => (accepted, None),
            accepted = accept(listeners.tls.as_ref().map(|(l, _)| l)) => {
                (accepted, listeners.tls.as_ref().map(|(_, config)| config.load_full()))
            }
        };
        match accepted {
            Ok((tcp, from)) => open.admit(tcp, from, tls, &shared),
            Err(error) => {
                tracing::warn!(%error, "cannot accept HL7 connections");
                shared.refused("accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listeners);
    let all_gone = async { while open.tasks.join_next().await.is_some() {} };
    if timeout(DRAIN, all_gone).await.is_err() {
        tracing::warn!(left = open.tasks.len(), "cutting HL7 connections that did not end in time");
        open.tasks.shutdown().await;
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// The connections that live.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    by_task: HashMap<Id, IpAddr>,
}

impl Open {
    fn admit<M: Messages>(
        &mut self,
        tcp: TcpStream,
        from: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        shared: &Arc<Shared<M>>,
    ) {
        let config = shared.config.load();
        let address = from.ip().to_canonical();
        if let Some(reason) = refusal(address, self.by_task.values(), &config) {
            tracing::warn!(%from, reason, "HL7 connection refused");
            return shared.refused(reason);
        }
        let task = self.tasks.spawn(connection(tcp, from, tls, shared.clone()));
        self.by_task.insert(task.id(), address);
    }
}

/// Why a connection from `address` is not served beside those from `open`; `None`: it is.
fn refusal<'a>(
    address: IpAddr,
    open: impl Iterator<Item = &'a IpAddr>,
    config: &MllpConfig,
) -> Option<&'static str> {
    if !config.allow.iter().any(|network| network.contains(address)) {
        return Some("address");
    }
    let (mut all, mut here) = (0, 0);
    for other in open {
        all += 1;
        here += usize::from(*other == address);
    }
    if here >= config.connections_per_address {
        Some("address-full")
    } else if all >= config.connections {
        Some("full")
    } else {
        None
    }
}

impl<M> Shared<M> {
    fn refused(&self, reason: &str) {
        self.metrics.hl7_refused.with_label_values(&[reason]).inc();
    }
}

async fn connection<M: Messages>(
    tcp: TcpStream,
    from: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: Arc<Shared<M>>,
) {
    let _ = tcp.set_nodelay(true);
    let ended = match tls {
        None => converse(tcp, from, &shared).await,
        Some(config) => match timeout(PATIENCE, TlsAcceptor::from(config).accept(tcp)).await {
            Ok(Ok(stream)) => converse(stream, from, &shared).await,
            Ok(Err(error)) => {
                tracing::warn!(%from, %error, "TLS handshake refused");
                return shared.refused("tls");
            }
            Err(_) => return shared.refused("tls"),
        },
    };
    if let Err(why) = ended {
        shared.refused(why.word());
        tracing::warn!(%from, %why, "HL7 connection closed");
    }
}

/// Why a connection ends before its peer ends it.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("it was lost: {0}")]
    Io(#[from] io::Error),
    #[error("it ended in the middle of a message")]
    CutOff,
    #[error("a message did not end in time")]
    Slow,
    #[error("the peer does not take its answer")]
    Deaf,
    #[error("an answer cannot be framed")]
    Unframeable,
}

impl Broken {
    const fn word(&self) -> &'static str {
        match self {
            Self::Frame(_) => "frame",
            Self::Io(_) | Self::CutOff => "lost",
            Self::Slow => "slow",
            Self::Deaf => "deaf",
            Self::Unframeable => "answer",
        }
    }
}

/// Counts a connection for as long as it lives.
struct Counted(prometheus::IntGauge);

impl Counted {
    fn new(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn converse<M: Messages>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    from: SocketAddr,
    shared: &Shared<M>,
) -> Result<(), Broken> {
    let _counted = Counted::new(&shared.metrics.hl7_connections);
    let config = shared.config.load_full();
    let mut deframer = Deframer::new(config.message);
    let mut buffer = BytesMut::with_capacity(READ_LENGTH);
    let mut due: Option<Instant> = None;
    loop {
        while let Some(message) = deframer.next_message()? {
            due = None;
            for answer in shared.messages.take(message, from).await {
                let answer = frame(&answer).map_err(|_| Broken::Unframeable)?;
                timeout(PATIENCE, say(&mut stream, &answer)).await.map_err(|_| Broken::Deaf)??;
            }
        }
        let inside = deframer.is_inside();
        let until = match inside {
            true => *due.get_or_insert_with(|| Instant::now() + config.message_time),
            false => Instant::now() + config.idle,
        };
        buffer.clear();
        let read = tokio::select! {
            read = timeout_at(until, stream.read_buf(&mut buffer)) => read,
            () = shared.shutdown.cancelled(), if !inside => return Ok(()),
        };
        match read {
            Err(_) if inside => return Err(Broken::Slow),
            Err(_) => return Ok(()),
            Ok(Ok(0)) if inside => return Err(Broken::CutOff),
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(_)) => deframer.push(&buffer),
            Ok(Err(e)) if inside => return Err(e.into()),
            // Many senders end a connection by resetting it.
            Ok(Err(_)) => return Ok(()),
        }
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests;
