//! Accepts connections within limits, and drains them when the node stops.
//!
//! One task owns the count of connections. Over a limit, a connection is still taken for the few
//! seconds that it takes to answer A-ASSOCIATE-RJ, because senders that are told "temporary" try
//! again and senders that are cut off often do not; at most [`REFUSING_MAX`] of these live at a
//! time, and what comes beyond is closed at once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::access::Refusal;
use super::association::Door;
use super::connection::{self, Arrival};
use super::store::Router;
use super::{Config, Limits};
use crate::custody::Custody;
use crate::metrics::Metrics;

/// Most connections at a time that exist only to be refused.
pub const REFUSING_MAX: usize = 64;

/// Pause after a failed accept: when descriptors or memory are gone, to try again at once helps
/// nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How much longer than `[limits] drain` connections have to say their last word.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// What every association works with.
pub struct Intake {
    /// The configuration as it stands; read at every new connection.
    pub config: Arc<ArcSwap<Config>>,
    /// Where images go.
    pub custody: Custody,
    /// Who decides their destinations.
    pub router: Arc<dyn Router>,
    /// Where it is counted.
    pub metrics: Metrics,
}

/// The sockets, bound.
#[derive(Debug)]
pub struct Listeners {
    /// Plain DICOM.
    pub plain: Option<TcpListener>,
    /// DICOM over TLS 1.2 and 1.3 (PS3.15 B.12), with the configuration as it stands.
    pub tls: Option<(TcpListener, Arc<ArcSwap<rustls::ServerConfig>>)>,
}

/// Serves until `shutdown`, then stops accepting, lets each C-STORE under way finish for at most
/// [`Limits::drain`], and returns when the last connection is gone.
pub async fn serve(listeners: Listeners, intake: Arc<Intake>, shutdown: CancellationToken) {
    let mut open = OpenConnections::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = open.tasks.join_next_with_id() => {
                open.forget(ended.map_or_else(|e| e.id(), |(id, ())| id));
            }
            accepted = accept_plain(&listeners) => {
                open.admit(accepted, None, &intake, &shutdown).await;
            }
            (accepted, config) = accept_tls(&listeners) => {
                open.admit(accepted, Some(config), &intake, &shutdown).await;
            }
        }
    }
    drop(listeners);
    let drain = intake.config.load().limits.drain + DRAIN_GRACE;
    let all_gone = async { while open.tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, all_gone).await.is_err() {
        tracing::warn!(left = open.tasks.len(), "cutting connections that did not end in time");
        open.tasks.shutdown().await;
    }
}

type Accepted = std::io::Result<(TcpStream, SocketAddr)>;

async fn accept_plain(listeners: &Listeners) -> Accepted {
    match &listeners.plain {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn accept_tls(listeners: &Listeners) -> (Accepted, Arc<rustls::ServerConfig>) {
    match &listeners.tls {
        Some((listener, config)) => (listener.accept().await, config.load_full()),
        None => std::future::pending().await,
    }
}

/// A connection that lives.
#[derive(Debug, Clone, Copy)]
struct OpenConnection {
    address: IpAddr,
    refusing: bool,
}

/// All connections that live.
#[derive(Default)]
struct OpenConnections {
    tasks: JoinSet<()>,
    by_task: HashMap<Id, OpenConnection>,
}

impl OpenConnections {
    async fn admit(
        &mut self,
        accepted: Accepted,
        tls: Option<Arc<rustls::ServerConfig>>,
        intake: &Arc<Intake>,
        shutdown: &CancellationToken,
    ) {
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                intake.metrics.associations_refused.with_label_values(&["accept"]).inc();
                tracing::warn!(%error, "cannot accept connections");
                // Connections that end give descriptors back: they are not waited on here, the
                // pause is short.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return;
            }
        };
        let config = intake.config.load_full();
        let address = from.ip().to_canonical();
        let verdict = judge(address, self.by_task.values(), &config.limits);
        let Verdict::Serve { refuse } = verdict else {
            intake.metrics.associations_refused.with_label_values(&["flood"]).inc();
            return;
        };
        let door = Door { config, address, refuse };
        let arrival = Arrival { tcp, from, tls, door };
        let task = connection::serve(arrival, intake.clone(), shutdown.clone());
        let id = self.tasks.spawn(task).id();
        self.by_task.insert(id, OpenConnection { address, refusing: refuse.is_some() });
    }

    fn forget(&mut self, id: Id) {
        self.by_task.remove(&id);
    }
}

/// What to do with a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Serve it, if only to refuse it.
    Serve { refuse: Option<Refusal> },
    /// Close it at once.
    Drop,
}

/// Pure.
fn judge<'a>(
    address: IpAddr,
    open: impl Iterator<Item = &'a OpenConnection>,
    limits: &Limits,
) -> Verdict {
    let (mut served, mut from_here, mut refusing) = (0, 0, 0);
    for connection in open {
        if connection.refusing {
            refusing += 1;
        } else {
            served += 1;
            from_here += usize::from(connection.address == address);
        }
    }
    let refuse = if from_here >= limits.associations_per_address {
        Some(Refusal::AddressFull)
    } else if served >= limits.associations {
        Some(Refusal::Full)
    } else {
        None
    };
    if refuse.is_some() && refusing >= REFUSING_MAX {
        return Verdict::Drop;
    }
    Verdict::Serve { refuse }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(n: usize, last: u8, refusing: bool) -> Vec<OpenConnection> {
        vec![OpenConnection { address: [10, 0, 0, last].into(), refusing }; n]
    }

    #[test]
    fn one_address_cannot_shut_out_another_and_refusing_is_bounded_too() {
        let limits = Limits { associations: 10, associations_per_address: 4, ..Limits::default() };
        let verdict = |last: u8, open: &[OpenConnection]| {
            judge([10, 0, 0, last].into(), open.iter(), &limits)
        };
        let refused = |refusal| Verdict::Serve { refuse: Some(refusal) };
        let welcome = Verdict::Serve { refuse: None };
        let loris = [open(4, 1, false), open(REFUSING_MAX - 1, 1, true)].concat();
        assert_eq!(verdict(1, &loris), refused(Refusal::AddressFull));
        assert_eq!(verdict(2, &loris), welcome);
        let flood = [open(4, 1, false), open(REFUSING_MAX, 1, true)].concat();
        assert_eq!(verdict(1, &flood), Verdict::Drop);
        assert_eq!(verdict(2, &flood), welcome);
        let full = [open(4, 1, false), open(4, 2, false), open(2, 3, false)].concat();
        assert_eq!(verdict(4, &full), refused(Refusal::Full));
    }
}
