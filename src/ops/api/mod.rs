//! The HTTP API for other systems: orders and reports in, and what became of them and of images.
//!
//! It has its own listener, because it shows patient data and changes something: who calls must be
//! a client of the configuration (`access`), and may do what its rights say. What is answered with
//! 200 or 201 is durable. Every call that shows patient data or changes something is recorded under
//! the log target `audit` with the client's name. The calls and their documents stand in
//! `openapi.json`, which `tests` hold against `calls`; the prose in `docs/api.md`.
//!
//! A resource is one file: it gives its `Call`s, each with the right that it needs, and
//! `calls` lists them. What is the same for all is done once: identity and rights, audit,
//! metrics and headers in `gate`, bodies and queries in `said`, faults in `problem`.
//!
//! Limits: connections in all and from one address are configured; [`listener`] states the times
//! and the length of a request's head, [`said::BODY_MAX`] and
//! [`said::LONG_MAX`] that of its body, [`failures`] how failed
//! logins are slowed down.

pub mod access;
pub mod failures;
mod gate;
pub mod listener;
mod loops;
mod missing;
mod orders;
mod problem;
mod reports;
pub mod said;
mod status;
mod studies;

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::View;
use access::{Access, Right};
use failures::Failures;
use gate::Gate;
use problem::Problem;

use crate::reports::arrive::ArriveRules;

/// How many connections may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all. Default 64.
    pub connections: usize,
    /// From one address. Default 16.
    pub connections_per_address: usize,
}

/// Who is let in, as the configuration and its files stand; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Door {
    /// TLS; `None`: plain HTTP, which the configuration allows on a loopback address only.
    pub tls: Option<Arc<ServerConfig>>,
    /// The clients.
    pub access: Access,
    /// How many connections.
    pub limits: Limits,
    /// Ends the connections that came in by this door.
    closed: CancellationToken,
}

impl Door {
    /// A door that is open.
    pub fn new(tls: Option<Arc<ServerConfig>>, access: Access, limits: Limits) -> Self {
        Self { tls, access, limits, closed: CancellationToken::new() }
    }
}

/// What every call works with.
#[derive(Debug)]
pub struct Api {
    view: Arc<View>,
    door: ArcSwap<Door>,
    failures: Mutex<Failures>,
    /// How a report that is sent here is understood.
    rules: ArcSwap<ArriveRules>,
    /// Room for long bodies, in MiB.
    room: Arc<Semaphore>,
}

impl Api {
    /// The API of a node, where reports are understood by `rules`.
    pub fn new(view: Arc<View>, door: Door, rules: ArriveRules) -> Self {
        Self {
            view,
            door: ArcSwap::from_pointee(door),
            failures: Mutex::default(),
            rules: ArcSwap::from_pointee(rules),
            room: Arc::new(Semaphore::new(said::ROOM_MIB)),
        }
    }

    /// Reports are understood by other rules from now on.
    pub fn understand(&self, rules: ArriveRules) {
        self.rules.store(Arc::new(rules));
    }

    /// Takes over what a reload has read. Connections finish the request in hand and end: who comes
    /// again is judged anew, so a token or certificate that is gone keeps no connection. A listener
    /// with TLS keeps TLS: that cannot come or go while the node runs.
    pub fn replace(&self, mut door: Door) {
        let old = self.door.load_full();
        match (&old.tls, &door.tls) {
            (Some(_), Some(_)) => {}
            (kept, _) => door.tls.clone_from(kept),
        }
        self.door.store(Arc::new(door));
        old.closed.cancel();
    }
}

/// One call: a method of a path, and the right that it needs.
struct Call {
    method: &'static str,
    path: &'static str,
    /// `None`: every client may.
    right: Option<Right>,
    handler: MethodRouter<Arc<Api>>,
}

/// All calls.
fn calls() -> Vec<Call> {
    let orders = [orders::calls(), missing::calls(), studies::calls(), status::calls()];
    orders.into_iter().chain([reports::calls(), loops::calls()]).flatten().collect()
}

/// All calls behind their gates. What is no call is behind one too: who is nobody learns nothing.
fn router(api: &Arc<Api>) -> Router {
    let gate = |name: String, right| Arc::new(Gate { api: api.clone(), name, right });
    let unknown = from_fn_with_state(gate("other".into(), None), gate::pass);
    let mut router =
        Router::new().fallback(async || Problem::unknown("there is no such call")).layer(unknown);
    for Call { method, path, right, handler } in calls() {
        let name = format!("{method} {path}");
        router =
            router.route(path, handler.layer(from_fn_with_state(gate(name, right), gate::pass)));
    }
    router.with_state(api.clone())
}

#[cfg(test)]
mod tests;
