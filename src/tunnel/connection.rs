//! One connection with a peer, from its first Hello to its end. Both sides do the same here:
//! whoever dialled, cargo goes both ways.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{Connection, ConnectionError, ConnectionStats, RecvStream, SendStream};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::frame::{Frame, Hello, Purpose};
use super::gate::Gate;
use super::lane::{FrameReader, LaneError, greet};
use super::peers::{Live, Peer};
use super::reason::{Reason, close, explain_handshake};
use super::receipt::Verifier;
use super::receiver::Receiver;
use super::sender::{LANES, Sender};
use super::share::{chunk_size, send_window};
use super::trust::{Credentials, Role};
use crate::cargo::DestinationName;
use crate::clock;

/// What peers and listings are told when this node stops.
const STOPS: &str = "the node stops";
/// How often the line is measured.
const MEASURE: Duration = Duration::from_millis(250);

/// The certificate chain of the other side, leaf first; empty when there is none.
pub(crate) fn peer_chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map_or_else(Vec::new, |chain| *chain)
}

/// Serves a connection whose handshake is done, until it ends: `Ok` says why it ended, `Err` why
/// it was never up. `role` is the peer's; `place` is given back once the peer has greeted.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    connection: Connection,
    peer: &Peer,
    role: Role,
    credentials: Arc<Credentials>,
    place: Option<OwnedSemaphorePermit>,
) -> Result<Reason, Reason> {
    let greeting = timeout(shared.config.limits.handshake, control(shared, &connection, role));
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        () = shared.shutdown.cancelled() => {
            connection.close(close::STOPPING.into(), STOPS.as_bytes());
            return Err(Reason::ClosedByUs(STOPS.into()));
        }
    };
    // Held for as long as the connection stands: the control lane stays open.
    let _control = match greeted {
        Ok(Ok(control)) => control,
        Ok(Err(e)) => return Err(end(&connection, &e)),
        Err(_) => {
            let words = "no Hello in time";
            connection.close(close::SILENT.into(), words.as_bytes());
            return Err(Reason::ClosedByUs(words.into()));
        }
    };
    drop(place);
    let name = &peer.config.name;
    let chain = peer_chain(&connection);
    let trust = credentials.trust();
    let verifier = match Verifier::new(name, chain.clone(), role, trust, UnixTime::now()) {
        Ok(verifier) => verifier,
        Err(e) => {
            connection.close(close::DISTRUSTED.into(), b"your certificate is not accepted here");
            return Err(Reason::ClosedByUs(e.to_string()));
        }
    };
    let joined = clock::now();
    let live = Live { connection: connection.clone(), chain, role, joined, farewell: None };
    if !peer.join(live, shared.custody.node()) {
        let words = "we have dialled you at the same time, and that connection stands";
        connection.close(close::REPLACED.into(), words.as_bytes());
        return Ok(Reason::ClosedByUs("the peer's connection crossed ours, which stands".into()));
    }
    tracing::info!(peer = %name, address = %connection.remote_address(), "tunnel up");
    let reason = serve(shared, &connection, peer, verifier, credentials).await;
    if peer.leave(&connection, &reason) {
        shared.metrics.tunnel_up.with_label_values(&[name.as_str()]).set(0);
    }
    tracing::info!(peer = %name, %reason, "tunnel down");
    Ok(reason)
}

/// Hello in both directions on the connection's first lane, which the dialler opens. A client
/// learns that the server has refused its certificate only here (TLS 1.3 ends the handshake on
/// its side before the server has looked).
async fn control(
    shared: &Shared,
    connection: &Connection,
    role: Role,
) -> Result<(SendStream, FrameReader), LaneError> {
    let node = shared.custody.node();
    let lost = |e: ConnectionError| LaneError::Read(e.into());
    let (mut send, recv) = match role {
        Role::Server => connection.open_bi().await.map_err(lost)?,
        Role::Client => connection.accept_bi().await.map_err(lost)?,
    };
    let mut reader = FrameReader::new(recv);
    greet(&mut send, node, Purpose::Control).await?;
    match reader.next().await? {
        Some(Frame::Hello(hello)) => check_control(&hello)?,
        _ => return Err(super::exchange::Breach::Hello.into()),
    }
    Ok((send, reader))
}

fn check_control(hello: &Hello) -> Result<(), LaneError> {
    use super::exchange::Breach;
    if hello.purpose != Purpose::Control {
        return Err(Breach::Hello.into());
    }
    hello.agree().map(|_| ()).ok_or(Breach::Version(hello.oldest, hello.newest).into())
}

/// Ends a connection after a lane has failed, and says why.
fn end(connection: &Connection, error: &LaneError) -> Reason {
    if let Some(reason) = connection.close_reason() {
        return explain_handshake(&reason);
    }
    let words = error.to_string();
    if error.is_breach() {
        connection.close(close::PROTOCOL.into(), words.as_bytes());
    } else {
        connection.close(close::STOPPING.into(), words.as_bytes());
    }
    Reason::ClosedByUs(words)
}

async fn serve(
    shared: &Arc<Shared>,
    connection: &Connection,
    peer: &Peer,
    verifier: Verifier,
    credentials: Arc<Credentials>,
) -> Reason {
    let gate = Arc::new(Gate::new());
    let stop = CancellationToken::new();
    let sender = Arc::new(Sender {
        custody: shared.custody.clone(),
        connection: connection.clone(),
        destination: DestinationName::from(&peer.config.name),
        gate: gate.clone(),
        verifier,
        stop: stop.clone(),
        strikes: Mutex::new(HashMap::new()),
    });
    let mut outgoing = JoinSet::new();
    for (class, lanes, large) in LANES {
        for _ in 0..lanes {
            outgoing.spawn(sender.clone().lane(class, large));
        }
    }
    drop(sender);
    let receiver = Arc::new(Receiver {
        custody: shared.custody.clone(),
        router: shared.router.clone(),
        credentials,
        peer: peer.config.clone(),
        received: shared.metrics.received.with_label_values(&["tunnel"]),
        received_bytes: shared.metrics.received_bytes.with_label_values(&["tunnel"]),
    });
    tokio::select! {
        reason = run_outgoing(connection, &mut outgoing) => reason,
        reason = accept_lanes(shared, connection, receiver) => reason,
        never = measure(shared, connection, &gate, peer) => match never {},
        reason = drain(shared, connection, &stop) => reason,
    }
}

/// Ends when a lane fails, or when all have drained.
async fn run_outgoing(
    connection: &Connection,
    lanes: &mut JoinSet<Result<(), LaneError>>,
) -> Reason {
    while let Some(ended) = lanes.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return end(connection, &e),
            Err(e) => return broken(connection, &e),
        }
    }
    connection.close(close::STOPPING.into(), STOPS.as_bytes());
    Reason::ClosedByUs(STOPS.into())
}

/// A bug of ours in one lane ends this connection, not the node: leases go back to the queue.
fn broken(connection: &Connection, error: &JoinError) -> Reason {
    tracing::error!(%error, "a lane has failed by a bug");
    connection.close(close::STOPPING.into(), b"internal error");
    Reason::ClosedByUs("a lane has failed by a bug; see the log".into())
}

/// Takes the lanes that the peer opens; ends with the connection.
async fn accept_lanes(shared: &Shared, connection: &Connection, receiver: Arc<Receiver>) -> Reason {
    let mut lanes = JoinSet::new();
    let hello_within = shared.config.limits.handshake;
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => match accepted {
                Ok((send, recv)) => {
                    lanes.spawn(incoming(receiver.clone(), send, recv, hello_within));
                }
                Err(e) => return explain_handshake(&e),
            },
            Some(ended) = lanes.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return end(connection, &e),
                Err(e) => return broken(connection, &e),
            },
        }
    }
}

async fn incoming(
    receiver: Arc<Receiver>,
    send: SendStream,
    recv: RecvStream,
    hello_within: Duration,
) -> Result<(), LaneError> {
    let mut reader = FrameReader::new(recv);
    match timeout(hello_within, reader.next()).await {
        Ok(Ok(Some(first))) => receiver.lane(first, send, reader).await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(super::exchange::Breach::Hello.into()),
    }
}

/// Waits for the node to stop; then lets the lanes finish what is in flight, for a while.
async fn drain(shared: &Shared, connection: &Connection, stop: &CancellationToken) -> Reason {
    shared.shutdown.cancelled().await;
    stop.cancel();
    tokio::time::sleep(shared.config.limits.drain).await;
    connection.close(close::STOPPING.into(), STOPS.as_bytes());
    Reason::ClosedByUs(STOPS.into())
}

/// Follows the line with send window and chunk size, and counts.
async fn measure(shared: &Shared, connection: &Connection, gate: &Gate, peer: &Peer) -> Infallible {
    let label = &[peer.config.name.as_str()];
    let m = &shared.metrics;
    let up = m.tunnel_up.with_label_values(label);
    let rtt = m.tunnel_rtt.with_label_values(label);
    let lost = m.tunnel_lost_packets.with_label_values(label);
    let count = |direction| m.tunnel_bytes.with_label_values(&[label[0], direction]);
    let (sent, received) = (count("out"), count("in"));
    let mut before = ConnectionStats::default();
    let mut ticks = tokio::time::interval_at(Instant::now(), MEASURE);
    loop {
        ticks.tick().await;
        let now = connection.stats();
        connection.set_send_window(send_window(now.path.cwnd, now.path.rtt));
        gate.set_chunk(chunk_size(now.path.cwnd, now.path.rtt));
        up.set(1);
        rtt.set(now.path.rtt.as_secs_f64());
        lost.inc_by(now.path.lost_packets.saturating_sub(before.path.lost_packets));
        sent.inc_by(now.udp_tx.bytes.saturating_sub(before.udp_tx.bytes));
        received.inc_by(now.udp_rx.bytes.saturating_sub(before.udp_rx.bytes));
        before = now;
    }
}
