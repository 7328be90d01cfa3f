//! What comes to the tunnel's port by TCP: a probe, a load balancer's check, a wrong setting.
//!
//! The tunnel speaks QUIC over UDP alone. A connection by TCP is closed at once, unread and
//! unanswered, counted, and said in the log at most once a minute. It tells a dialler something,
//! too: where TCP gets through and UDP does not, a firewall on the way blocks UDP
//! ([`answers`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Shared;
use super::reason::Reason;
use crate::clock::{self, Monotonic};

/// Pause between two lines of the log.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// Pause after the system could not give us a connection.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a dialler waits for an answer by TCP.
const PROBE: Duration = Duration::from_secs(3);

/// Listens where the tunnel does. `None` when somebody else has that port, which does no harm.
pub(crate) fn listen(address: SocketAddr) -> Option<TcpListener> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    listener.inspect_err(|e| tracing::info!(%address, error = %e, "not listening for TCP")).ok()
}

/// Closes what comes in, until the node stops.
pub(crate) async fn keep_refusing(shared: Arc<Shared>, listener: TcpListener) {
    let reason = Reason::PlainTcp;
    let (mut said, mut unsaid): (Option<Monotonic>, u64) = (None, 0);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.shutdown.cancelled() => return,
        };
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        drop(stream);
        shared.metrics.tunnel_refused.with_label_values(&[reason.word()]).inc();
        let now = clock::now();
        if said.is_none_or(|at| now.since(at) >= SAID_EVERY) {
            tracing::warn!(%address, %reason, unsaid, "incoming tunnel refused");
            (said, unsaid) = (Some(now), 0);
        } else {
            unsaid += 1;
        }
    }
}

/// True when something takes TCP connections at `address`.
pub(crate) async fn answers(address: SocketAddr) -> bool {
    matches!(timeout(PROBE, TcpStream::connect(address)).await, Ok(Ok(_)))
}
