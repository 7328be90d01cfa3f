//! The listener: connections in within limits, TLS, HTTP/1.1.
//!
//! | what | limit |
//! |---|---|
//! | connections in all; from one address | [`Limits`](super::Limits): 64; 16 |
//! | TLS handshake | [`HANDSHAKE_TIME`] |
//! | head of a request, and silence before it | [`HEAD_TIME`], [`HEAD_MAX`], [`HEADERS_MAX`] |
//! | body of a request | [`BODY_MAX`](super::said::BODY_MAX), [`BODY_TIME`](super::said::BODY_TIME) |
//! | a caller that does not take its answer | [`WRITE_TIME`] |
//! | a request in hand when the node stops or the door closes | [`LAST_TIME`] |
//!
//! An address from which no client may call is closed unread. Requests of one connection are
//! answered one after the other, also when they come at once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::gate::Peer;
use super::{Api, Door};

/// Longest TLS handshake.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Longest wait for the head of a request, from the end of the last one.
pub const HEAD_TIME: Duration = Duration::from_secs(20);
/// Most bytes of a head.
pub const HEAD_MAX: usize = 16 << 10;
/// Most headers of a request.
pub const HEADERS_MAX: usize = 64;
/// Longest time in which a caller takes nothing of its answer.
pub const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long a request in hand may take when its connection is to end.
pub const LAST_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown`, finishes the requests in hand, and returns.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: CancellationToken) {
    let router = super::router(&api);
    let mut open = Open::default();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = open.tasks.join_next_with_id() => {
                open.by_task.remove(&ended.map_or_else(|e| e.id(), |(id, ())| id));
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, from)) => open.admit(tcp, from, &api, &router, &shutdown),
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of the API");
                refused(&api, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all_gone = async { while open.tasks.join_next().await.is_some() {} };
    if timeout(LAST_TIME, all_gone).await.is_err() {
        tracing::warn!(left = open.tasks.len(), "cutting API connections that did not end in time");
        open.tasks.shutdown().await;
    }
}

fn refused(api: &Api, reason: &str) {
    api.view.metrics.api_refused.with_label_values(&[reason]).inc();
}

/// The connections that live.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    by_task: HashMap<Id, IpAddr>,
}

impl Open {
    fn admit(
        &mut self,
        tcp: TcpStream,
        from: SocketAddr,
        api: &Arc<Api>,
        router: &Router,
        shutdown: &CancellationToken,
    ) {
        let (door, address) = (api.door.load_full(), from.ip().to_canonical());
        if let Some(reason) = refusal(address, self.by_task.values(), &door) {
            tracing::warn!(%from, reason, "API connection refused");
            return refused(api, reason);
        }
        let (api, router, shutdown) = (api.clone(), router.clone(), shutdown.clone());
        let task = self.tasks.spawn(async move {
            let gauge = &api.view.metrics.api_connections;
            gauge.inc();
            let served = connection(tcp, address, &door, router, &shutdown).await;
            gauge.dec();
            if let Err(reason) = served {
                tracing::debug!(%from, reason, "API connection closed");
                refused(&api, reason);
            }
        });
        self.by_task.insert(task.id(), address);
    }
}

/// Why a connection from `address` is not served beside those from `open`; `None`: it is.
fn refusal<'a>(
    address: IpAddr,
    open: impl Iterator<Item = &'a IpAddr>,
    door: &Door,
) -> Option<&'static str> {
    if !door.access.is_anybody_from(address) {
        return Some("address");
    }
    let (mut all, mut here) = (0, 0);
    for other in open {
        all += 1;
        here += usize::from(*other == address);
    }
    if here >= door.limits.connections_per_address {
        Some("address-full")
    } else if all >= door.limits.connections {
        Some("full")
    } else {
        None
    }
}

/// Serves one connection; the word for what it did wrong.
async fn connection(
    tcp: TcpStream,
    address: IpAddr,
    door: &Door,
    router: Router,
    shutdown: &CancellationToken,
) -> Result<(), &'static str> {
    let _ = tcp.set_nodelay(true);
    let Some(tls) = &door.tls else {
        let closed = door.closed.clone();
        let peer = Peer { address, certificate: Arc::default(), closed };
        return converse(tcp, peer, door, router, shutdown).await;
    };
    let handshake = TlsAcceptor::from(tls.clone()).accept(tcp);
    let stream = match timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(from = %address, %error, "TLS handshake of the API refused");
            return Err("tls");
        }
        Err(_) => return Err("tls"),
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = leaf.map(|leaf| names(leaf)).unwrap_or_default().into();
    let peer = Peer { address, certificate, closed: door.closed.clone() };
    converse(stream, peer, door, router, shutdown).await
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    peer: Peer,
    door: &Door,
    router: Router,
    shutdown: &CancellationToken,
) -> Result<(), &'static str> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME));
    let calls = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        calls.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    http.max_buf_size(HEAD_MAX).max_headers(HEADERS_MAX).half_close(false);
    let mut served = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = async { tokio::select! {
            () = shutdown.cancelled() => {}
            () = door.closed.cancelled() => {}
        } } => {
            served.as_mut().graceful_shutdown();
            timeout(LAST_TIME, served).await.unwrap_or(Ok(()))
        }
    };
    match ended {
        Err(e) if e.is_timeout() => Err("slow"),
        Err(e) if e.is_parse() => Err("malformed"),
        // Callers end connections as they like.
        _ => Ok(()),
    }
}

/// The names by which a certificate is known: its DNS names, or, when it has none, its common name.
fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let general = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let dns: Vec<String> = general
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            _ => None,
        })
        .collect();
    if !dns.is_empty() {
        return dns;
    }
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.map(str::to_owned).collect()
}
