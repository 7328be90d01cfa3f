//! Accepts connections within limits, and drains them when the node stops.
//!
//! One task owns the count of connections. Over a limit, a connection is still taken for the few
//! seconds that it takes to answer A-ASSOCIATE-RJ, because senders that are told "temporary" try
//! again and senders that are cut off often do not; at most [`REFUSING_MAX`] of these live at a
//! time, and what comes beyond is closed at once.
//!
//! A connection that has not yet asked for an association gives way to a newcomer when there is
//! no other place: whoever opens many and says nothing keeps nobody out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::access::Refusal;
use super::association::Door;
use super::connection::{self, Arrival};
use super::services::Services;
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
    /// Who performs the services beside storage; absent: their SOP classes are not accepted.
    pub services: Option<Arc<dyn Services>>,
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

/// Whether a connection has an association yet. Decided once: by the connection, which
/// establishes it, or by the listener, which needs its place.
#[derive(Debug, Default)]
pub(super) struct Standing(AtomicU8);

impl Standing {
    const HALF_OPEN: u8 = 0;
    const ESTABLISHED: u8 = 1;
    const EVICTED: u8 = 2;

    fn leave_half_open(&self, to: u8) -> bool {
        let order = Ordering::AcqRel;
        self.0.compare_exchange(Self::HALF_OPEN, to, order, Ordering::Acquire).is_ok()
    }

    /// False when the place is gone.
    pub(super) fn establish(&self) -> bool {
        self.leave_half_open(Self::ESTABLISHED)
    }

    fn evict(&self) -> bool {
        self.leave_half_open(Self::EVICTED)
    }

    fn is_half_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::HALF_OPEN
    }
}

/// A connection that lives.
#[derive(Debug)]
struct OpenConnection {
    address: IpAddr,
    refusing: bool,
    /// Ascends with every connection.
    number: u64,
    standing: Arc<Standing>,
    task: AbortHandle,
}

/// All connections that live.
#[derive(Default)]
struct OpenConnections {
    tasks: JoinSet<()>,
    by_task: HashMap<Id, OpenConnection>,
    count: u64,
}

impl OpenConnections {
    async fn admit(
        &mut self,
        accepted: Accepted,
        tls: Option<Arc<rustls::ServerConfig>>,
        intake: &Arc<Intake>,
        shutdown: &CancellationToken,
    ) {
        let refused = |word| intake.metrics.associations_refused.with_label_values(&[word]).inc();
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                refused("accept");
                tracing::warn!(%error, "cannot accept connections");
                // Connections that end give descriptors back meanwhile.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return;
            }
        };
        let config = intake.config.load_full();
        let address = from.ip().to_canonical();
        let open = self.by_task.values().map(|c| Place {
            number: c.number,
            address: c.address,
            refusing: c.refusing,
            half_open: c.standing.is_half_open(),
        });
        let refuse = match judge(address, open, &config.limits) {
            Verdict::Serve => None,
            Verdict::Evict(number, _) if self.evict(number) => {
                refused("half-open");
                None
            }
            Verdict::Evict(_, refusal) | Verdict::Refuse(refusal) => Some(refusal),
            Verdict::Drop => return refused("flood"),
        };
        let standing = Arc::new(Standing::default());
        let services = intake.services.is_some();
        let door = Door { config, address, refuse, services };
        let arrival = Arrival { tcp, from, tls, door, standing: standing.clone() };
        let task = self.tasks.spawn(connection::serve(arrival, intake.clone(), shutdown.clone()));
        self.count += 1;
        let (number, refusing) = (self.count, refuse.is_some());
        let connection = OpenConnection { address, refusing, number, standing, task: task.clone() };
        self.by_task.insert(task.id(), connection);
    }

    /// Takes the place of a connection, unless it has just been given an association.
    fn evict(&mut self, number: u64) -> bool {
        let connection = self.by_task.values().find(|c| c.number == number);
        let Some(connection) = connection.filter(|c| c.standing.evict()) else { return false };
        connection.task.abort();
        let id = connection.task.id();
        self.forget(id);
        true
    }

    fn forget(&mut self, id: Id) {
        self.by_task.remove(&id);
    }
}

/// What [`judge`] sees of a connection.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: u64,
    address: IpAddr,
    refusing: bool,
    half_open: bool,
}

/// What to do with a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Serve it.
    Serve,
    /// Serve it in place of this one, or refuse it when that fails.
    Evict(u64, Refusal),
    /// Take it to refuse it.
    Refuse(Refusal),
    /// Close it at once.
    Drop,
}

/// Pure.
fn judge(address: IpAddr, open: impl Iterator<Item = Place>, limits: &Limits) -> Verdict {
    let (mut served, mut from_here, mut refusing) = (0, 0, 0);
    let (mut oldest, mut oldest_here) = (None::<u64>, None::<u64>);
    let older = |number: u64, oldest: Option<u64>| Some(oldest.map_or(number, |o| o.min(number)));
    for place in open {
        let here = place.address == address;
        if place.refusing {
            refusing += 1;
            continue;
        }
        served += 1;
        from_here += usize::from(here);
        if place.half_open {
            oldest = older(place.number, oldest);
            if here {
                oldest_here = older(place.number, oldest_here);
            }
        }
    }
    let (refusal, victim) = if from_here >= limits.associations_per_address {
        (Refusal::AddressFull, oldest_here)
    } else if served >= limits.associations {
        (Refusal::Full, oldest)
    } else {
        return Verdict::Serve;
    };
    match victim {
        Some(number) => Verdict::Evict(number, refusal),
        None if refusing >= REFUSING_MAX => Verdict::Drop,
        None => Verdict::Refuse(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(n: usize, last: u8, refusing: bool, half_open: bool) -> Vec<Place> {
        let address = [10, 0, 0, last].into();
        (0..n as u64).map(|number| Place { number, address, refusing, half_open }).collect()
    }

    fn verdict(last: u8, open: &[Vec<Place>]) -> Verdict {
        let limits = Limits { associations: 10, associations_per_address: 4, ..Limits::default() };
        judge([10, 0, 0, last].into(), open.concat().into_iter(), &limits)
    }

    #[test]
    fn one_address_cannot_shut_out_another_and_refusing_is_bounded_too() {
        let busy = [places(4, 1, false, false), places(REFUSING_MAX - 1, 1, true, true)];
        assert_eq!(verdict(1, &busy), Verdict::Refuse(Refusal::AddressFull));
        assert_eq!(verdict(2, &busy), Verdict::Serve);
        let flood = [places(4, 1, false, false), places(REFUSING_MAX, 1, true, true)];
        assert_eq!(verdict(1, &flood), Verdict::Drop);
        assert_eq!(verdict(2, &flood), Verdict::Serve);
        let full = [1, 2, 3].map(|last| places(4, last, false, false));
        assert_eq!(verdict(4, &full), Verdict::Refuse(Refusal::Full));
    }

    #[test]
    fn who_has_not_asked_for_an_association_gives_way_to_who_comes() {
        let loris = [places(4, 1, false, true)];
        assert_eq!(verdict(1, &loris), Verdict::Evict(0, Refusal::AddressFull));
        let everywhere = [1, 2, 3].map(|last| places(4, last, false, last == 2));
        assert_eq!(verdict(4, &everywhere), Verdict::Evict(0, Refusal::Full));
        assert_eq!(verdict(1, &everywhere), Verdict::Refuse(Refusal::AddressFull));
    }

    #[test]
    fn a_place_is_either_established_or_evicted_and_never_both() {
        let standing = Standing::default();
        assert!(standing.establish() && !standing.evict());
        let standing = Standing::default();
        assert!(standing.evict() && !standing.establish());
    }
}
