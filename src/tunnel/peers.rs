//! The peers of this node: who may connect, which connection of each is live, and how it stands.
//!
//! One live connection per peer; a newer one replaces the older, which is how a peer that has
//! restarted, or come back behind another address, gets through at once. Only where two nodes have
//! just dialled each other, so that one connection of each side is young, both keep the one that
//! the node with the smaller name has dialled.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::Connection;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use super::PeerConfig;
use super::reason::{Reason, close};
use super::trust::{Role, Trust, node_names, not_after};
use crate::cargo::NodeName;
use crate::clock::{self, Monotonic, Timestamp};

/// Connections of both sides that are made within this time have crossed on the line.
const CROSSED: Duration = Duration::from_secs(10);

/// How a tunnel to a peer stands, for listings.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PeerStatus {
    /// The peer.
    pub name: NodeName,
    /// True while a connection stands.
    pub up: bool,
    /// Since when it is up, or down for this reason.
    pub since: Timestamp,
    /// Why it is down, in words; empty while it is up.
    pub reason: String,
    /// The address that the live connection goes to or comes from.
    pub address: Option<String>,
    /// Smoothed round-trip time in seconds.
    pub rtt_seconds: Option<f64>,
    /// Packets declared lost on the live connection.
    pub lost_packets: u64,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// When the peer's certificate expires.
    pub certificate_expires: Option<Timestamp>,
}

/// A connection that has greeted.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) connection: Connection,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The peer's part: who was dialled is the server.
    pub(crate) role: Role,
    pub(crate) joined: Monotonic,
    /// Why we have closed it ourselves.
    pub(crate) farewell: Option<String>,
}

#[derive(Debug)]
struct State {
    live: Option<Live>,
    since: Timestamp,
    reason: String,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) config: PeerConfig,
    state: Mutex<State>,
    up: watch::Sender<bool>,
}

impl Peer {
    fn new(config: PeerConfig) -> Self {
        let reason = match &config.address {
            Some(address) => format!("not dialled yet: {address}"),
            None => "has not dialled us yet".into(),
        };
        let state = State { live: None, since: clock::wall(), reason };
        Self { config, state: Mutex::new(state), up: watch::Sender::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this the live connection of `node` with the peer; the older one is closed. False when
    /// the two have dialled each other, and the older one is to stay.
    pub(crate) fn join(&self, live: Live, node: &NodeName) -> bool {
        let older = {
            let mut state = self.state();
            let stays = |older: &Live| {
                let ours = older.role == Role::Server;
                older.role != live.role
                    && older.connection.close_reason().is_none()
                    && clock::now().since(older.joined) < CROSSED
                    && ours == (*node < self.config.name)
            };
            if state.live.as_ref().is_some_and(stays) {
                return false;
            }
            (state.since, state.reason) = (clock::wall(), String::new());
            state.live.replace(live)
        };
        self.up.send_replace(true);
        if let Some(older) = older {
            let words = b"a newer connection of the same peer stands";
            older.connection.close(close::REPLACED.into(), words);
        }
        true
    }

    /// This connection has ended; true when it was the live one.
    pub(crate) fn leave(&self, connection: &Connection, reason: &Reason) -> bool {
        let mut state = self.state();
        let id = connection.stable_id();
        if state.live.as_ref().is_none_or(|l| l.connection.stable_id() != id) {
            return false;
        }
        let farewell = state.live.take().and_then(|l| l.farewell);
        state.since = clock::wall();
        state.reason = farewell.unwrap_or_else(|| reason.to_string());
        drop(state);
        self.up.send_replace(false);
        true
    }

    /// A try to connect has failed. `since` keeps saying how long the peer is down.
    pub(crate) fn failed(&self, reason: &Reason) {
        let mut state = self.state();
        if state.live.is_none() {
            state.reason = reason.to_string();
        }
    }

    /// Waits until no connection stands.
    pub(crate) async fn down(&self) {
        let _ = self.up.subscribe().wait_for(|up| !up).await;
    }

    /// True while a connection stands.
    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    fn live(&self) -> Option<Live> {
        self.state().live.clone()
    }

    fn status(&self) -> PeerStatus {
        let state = self.state();
        let live = state.live.as_ref();
        let path = live.map(|l| l.connection.stats().path);
        PeerStatus {
            name: self.config.name.clone(),
            up: live.is_some(),
            since: state.since,
            reason: state.reason.clone(),
            address: live
                .map(|l| l.connection.remote_address().to_string())
                .or_else(|| self.config.address.clone()),
            rtt_seconds: path.map(|p| Duration::as_secs_f64(&p.rtt)),
            lost_packets: path.map_or(0, |p| p.lost_packets),
            congestion_window: path.map_or(0, |p| p.cwnd),
            certificate_expires: live.and_then(|l| not_after(l.chain.first()?)),
        }
    }
}

/// All configured peers.
#[derive(Debug)]
pub(crate) struct Peers(BTreeMap<NodeName, Peer>);

impl Peers {
    pub(crate) fn new(configs: &[PeerConfig]) -> Self {
        Self(configs.iter().map(|c| (c.name.clone(), Peer::new(c.clone()))).collect())
    }

    pub(crate) fn get(&self, name: &NodeName) -> Option<&Peer> {
        self.0.get(name)
    }

    pub(crate) fn statuses(&self) -> Vec<PeerStatus> {
        self.0.values().map(Peer::status).collect()
    }

    /// The peer that a certificate names. The error says why there is none; names in it are those
    /// of a certificate that we trust.
    pub(crate) fn named(&self, certificate: &CertificateDer<'_>) -> Result<&Peer, String> {
        let names = node_names(certificate);
        let mut known = names.iter().filter_map(|n| self.0.get(n));
        match (known.next(), known.next()) {
            (Some(peer), None) => Ok(peer),
            (Some(_), Some(_)) => Err("the certificate names more than one peer".into()),
            (None, _) => {
                let names: Vec<_> = names.iter().map(NodeName::as_str).collect();
                Err(format!("no destination here has the name {:?}", names.join(" ")))
            }
        }
    }

    /// Closes the connections of peers whose certificate `trust` no longer accepts. Gives their
    /// names and why.
    pub(crate) fn close_distrusted(&self, trust: &Trust) -> Vec<(NodeName, String)> {
        let mut closed = vec![];
        for (name, peer) in &self.0 {
            let Some(live) = peer.live() else { continue };
            if let Err(e) = trust.verify(&live.chain, name, live.role, UnixTime::now()) {
                if let Some(live) = &mut peer.state().live {
                    live.farewell = Some(format!("its certificate is no longer accepted: {e}"));
                }
                let words = "your certificate is no longer accepted here";
                live.connection.close(close::DISTRUSTED.into(), words.as_bytes());
                closed.push((name.clone(), e.to_string()));
            }
        }
        closed
    }
}
