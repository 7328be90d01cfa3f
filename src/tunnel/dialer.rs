//! Dials peers that have an address, again and again, and takes connections that come in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Shared;
use super::connection::{peer_chain, run};
use super::peers::Peer;
use super::plain_tcp;
use super::reason::{Reason, close, explain_dial, explain_handshake};
use super::trust::Role;
use crate::cargo::NodeName;
use crate::clock;

/// First wait between two tries.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that stood this long starts the back-off again from the beginning.
const STOOD: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried in a row.
const ADDRESSES_MAX: usize = 4;

/// The wait before try number `attempt` (0: the first). `random` spreads it over half to all of
/// its length, so that fifty sites that return together do not dial together.
pub(crate) fn backoff(attempt: u32, random: u32) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << attempt.min(10)).min(BACKOFF_MAX);
    let half = whole / 2;
    let spread = f64::from(random) / f64::from(u32::MAX);
    let wait = half + half.mul_f64(spread);
    if attempt == 0 { wait.mul_f64(spread) } else { wait }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the wait is the shortest of its range.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_be_bytes(bytes)
}

/// Keeps a connection to one peer, until the node stops.
pub(crate) async fn keep_dialling(shared: Arc<Shared>, endpoint: Endpoint, name: NodeName) {
    let Some(peer) = shared.peers.get(&name) else { return };
    let Some(address) = peer.config.address.clone() else { return };
    let mut attempt = 0;
    loop {
        let dialled = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            dialled = dial_when_due(&shared, &endpoint, peer, &address, attempt) => dialled,
        };
        let started = clock::now();
        let ended = match dialled {
            Ok((connection, credentials)) => {
                run(&shared, connection, peer, Role::Server, credentials, None).await
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = &ended {
            peer.failed(reason);
        }
        if shared.shutdown.is_cancelled() {
            return;
        }
        if clock::now().since(started) >= STOOD {
            attempt = 0;
            continue;
        }
        let (Ok(reason) | Err(reason)) = ended;
        attempt = attempt.saturating_add(1);
        shared.metrics.tunnel_refused.with_label_values(&[reason.word()]).inc();
        tracing::warn!(peer = %name, %address, %reason, attempt, "tunnel not made");
    }
}

/// Waits until no connection stands and the back-off has passed, then dials.
async fn dial_when_due(
    shared: &Shared,
    endpoint: &Endpoint,
    peer: &Peer,
    address: &str,
    attempt: u32,
) -> Result<Dialled, Reason> {
    loop {
        peer.down().await;
        tokio::time::sleep(backoff(attempt, random())).await;
        // The peer may have dialled us meanwhile.
        if !peer.is_up() {
            return dial(shared, endpoint, peer, address).await;
        }
    }
}

type Dialled = (Connection, Arc<super::trust::Credentials>);

async fn dial(
    shared: &Shared,
    endpoint: &Endpoint,
    peer: &Peer,
    address: &str,
) -> Result<Dialled, Reason> {
    let found = tokio::net::lookup_host(address)
        .await
        .map_err(|e| Reason::Address(format!("cannot resolve {address}: {e}")))?;
    let mut last = Reason::Address(format!("{address} has no address"));
    for address in found.take(ADDRESSES_MAX) {
        match dial_one(shared, endpoint, peer, address).await {
            Ok(dialled) => return Ok(dialled),
            Err(reason) => last = reason,
        }
    }
    Err(last)
}

async fn dial_one(
    shared: &Shared,
    endpoint: &Endpoint,
    peer: &Peer,
    address: SocketAddr,
) -> Result<Dialled, Reason> {
    let snapshot = shared.snapshot.load_full();
    let name = peer.config.name.as_str();
    let connecting = endpoint
        .connect_with(snapshot.client.clone(), address, name)
        .map_err(|e| Reason::Address(format!("cannot dial {address} as {name}: {e}")))?;
    let reason = match timeout(shared.config.limits.handshake, connecting).await {
        Ok(Ok(connection)) => return Ok((connection, snapshot.credentials.clone())),
        Err(_) => Reason::NoAnswer,
        Ok(Err(e)) => explain_dial(&e),
    };
    Err(match reason {
        Reason::NoAnswer if plain_tcp::answers(address).await => Reason::UdpBlocked,
        reason => reason,
    })
}

/// Takes connections until the node stops.
pub(crate) async fn keep_listening(shared: Arc<Shared>, endpoint: Endpoint) {
    let limits = &shared.config.limits;
    let places = Arc::new(Semaphore::new(limits.handshakes));
    let work = async {
        while let Some(incoming) = endpoint.accept().await {
            let busy = limits.handshakes - places.available_permits();
            if busy >= limits.retry_above && !incoming.remote_address_validated() {
                // Costs the dialler a round trip, and us nothing: the address is proven first.
                let _ = incoming.retry();
                continue;
            }
            let Ok(place) = places.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            shared.tasks.spawn(welcome(shared.clone(), incoming, place));
        }
    };
    tokio::select! {
        () = work => {}
        () = shared.shutdown.cancelled() => {}
    }
}

async fn welcome(shared: Arc<Shared>, incoming: Incoming, place: OwnedSemaphorePermit) {
    let address = incoming.remote_address();
    let snapshot = shared.snapshot.load_full();
    let refused = |reason: &Reason| {
        shared.metrics.tunnel_refused.with_label_values(&[reason.word()]).inc();
        tracing::warn!(%address, %reason, "incoming tunnel refused");
    };
    let handshake = async { incoming.accept_with(snapshot.server.clone())?.await };
    let handshake = timeout(shared.config.limits.handshake, handshake);
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = shared.shutdown.cancelled() => return,
    };
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(e)) => return refused(&explain_handshake(&e)),
        Err(_) => return refused(&Reason::Lost),
    };
    let chain = peer_chain(&connection);
    let named =
        chain.first().map_or_else(|| Err("no certificate".into()), |c| shared.peers.named(c));
    match named {
        Ok(peer) => {
            let credentials = snapshot.credentials.clone();
            let role = Role::Client;
            if let Err(reason) =
                run(&shared, connection, peer, role, credentials, Some(place)).await
            {
                peer.failed(&reason);
                refused(&reason);
            }
        }
        Err(words) => {
            connection.close(close::NOT_A_PEER.into(), words.as_bytes());
            refused(&Reason::ClosedByUs(words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_between_tries_grow_to_thirty_seconds_and_are_spread(random: u32, attempt in 1_u32..40) {
            let wait = backoff(attempt, random);
            let whole = BACKOFF_MIN.saturating_mul(1 << attempt.min(10)).min(BACKOFF_MAX);
            prop_assert!(wait >= whole / 2 && wait <= whole);
        }
    }

    #[test]
    fn the_first_try_comes_within_half_a_second_and_not_at_once_for_all() {
        assert_eq!(backoff(0, 0), Duration::ZERO);
        assert_eq!(backoff(0, u32::MAX), BACKOFF_MIN);
    }
}
