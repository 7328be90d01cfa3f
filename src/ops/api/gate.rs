//! What stands before every call: who calls, whether it may, how long it may take; and what stands
//! behind it: the audit, the metrics, the headers of every answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::access::{Client, Denial, Right, Shown};
use super::failures::{DELAY, Failed};
use super::problem::Problem;
use super::said::Concerns;
use crate::clock;

/// Longest time that a call takes; above that of the registrar's own patience.
const CALL_TIME: Duration = Duration::from_secs(75);

/// Where a request comes from; the listener puts it beside every request.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// Names in the certificate that TLS has verified.
    pub(super) certificate: Arc<[String]>,
    /// The door by which it came in has closed: what it was let in for may have been withdrawn.
    pub(super) closed: CancellationToken,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Arc<Client>);

impl Caller {
    /// The name in audits and in the story of an order.
    pub(super) fn by(&self) -> String {
        format!("api/{}", self.0.name)
    }

    pub(super) fn may(&self, right: Right) -> bool {
        self.0.may.contains(&right)
    }
}

/// The gate of one call.
pub(super) struct Gate {
    pub(super) api: Arc<Api>,
    /// Method and path.
    pub(super) name: String,
    pub(super) right: Option<Right>,
}

/// Lets a request pass, or answers why not.
pub(super) async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut client = String::new();
    let mut response = gate.answer(request, next, &mut client).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers().get(header::ALLOW).cloned();
        response = Problem::method().into_response();
        response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    }
    let requests = &gate.api.view.metrics.api_requests;
    requests.with_label_values(&[&client, &gate.name, response.status().as_str()]).inc();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Gate {
    async fn answer(&self, mut request: Request, next: Next, name: &mut String) -> Response {
        if request.version() != Version::HTTP_11 {
            let next = "speak HTTP/1.1";
            let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return Problem::new(status, "version", "Only HTTP/1.1", "", next).into_response();
        }
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Problem::unavailable("the listener did not say who calls").into_response();
        };
        // The request in hand at a reload: a token is looked up anew, a certificate cannot be.
        let certificate = match peer.closed.is_cancelled() {
            true => &[],
            false => &peer.certificate[..],
        };
        let mut tokens = request.headers().get_all(header::AUTHORIZATION).iter();
        // Two of them are none: which one counts must not depend on who reads them.
        let authorization = match (tokens.next(), tokens.next()) {
            (Some(one), None) => Some(one.as_bytes()),
            (None, _) => None,
            _ => Some(&b""[..]),
        };
        let shown = Shown { authorization, certificate, address: peer.address };
        let caller = match self.api.door.load().access.identify(&shown) {
            Ok(client) => Caller(client),
            Err(denial) => return self.deny(denial, peer.address).await,
        };
        name.push_str(&caller.0.name);
        let by = caller.by();
        if let Some(right) = self.right.filter(|right| !caller.may(*right)) {
            let (from, call) = (peer.address, &self.name);
            tracing::warn!(target: "audit", by, %from, call, %right, "call without the right to it");
            return forbidden(right).into_response();
        }
        request.extensions_mut().insert(caller);
        let response = tokio::time::timeout(CALL_TIME, next.run(request)).await;
        let response =
            response.unwrap_or_else(|_| Problem::unavailable("it took too long").into_response());
        if self.right.is_some() {
            let concerns = response.extensions().get::<Concerns>();
            let concerns = concerns.map_or("", |Concerns(what)| what.as_str());
            let (call, status) = (&self.name, response.status().as_u16());
            let from = peer.address;
            tracing::info!(target: "audit", by, %from, call, concerns, status, "call");
        }
        response
    }

    /// Answers who is nobody: late, and not more often than is good.
    async fn deny(&self, denial: Denial, from: IpAddr) -> Response {
        let metrics = &self.api.view.metrics;
        metrics.api_logins_failed.with_label_values(&[denial.word()]).inc();
        let failed = match self.api.failures.lock() {
            Ok(mut failures) => failures.count(from, clock::now()),
            Err(_) => Failed::Late,
        };
        let reason = denial.word();
        match failed {
            Failed::Late => {
                tracing::warn!(target: "audit", %from, reason, "login failed");
                tokio::time::sleep(DELAY).await;
                unauthorized(denial)
            }
            Failed::TooMany { wait, first } => {
                if first {
                    tracing::warn!(target: "audit", %from, "logins fail too often to be logged");
                }
                let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1);
                let problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too-many-failures",
                    "Too many failed logins",
                    "too many logins from this address have failed",
                    "correct the token or certificate; one that is right is answered at once",
                );
                let mut response = problem.again_after(seconds).into_response();
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
                response
            }
        }
    }
}

fn forbidden(right: Right) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "missing-right",
        "The right is missing",
        format!("this client may not do this: it lacks the right {right}"),
        format!("have \"{right}\" added to `may` of this client in [[api.client]], and reload"),
    )
}

fn unauthorized(denial: Denial) -> Response {
    let (detail, next) = match denial {
        Denial::Nothing => (
            "the call shows neither a token nor a certificate",
            "send Authorization: Bearer TOKEN, or call with a client certificate",
        ),
        Denial::Token => (
            "no client has this token",
            "compare it with the file that [[api.client]] names; after a change, reload the node",
        ),
        Denial::Certificate => (
            "no client, or more than one, has a name of this certificate",
            "compare its DNS names with `certificate` of [[api.client]]",
        ),
        Denial::Address => {
            let problem = Problem::new(
                StatusCode::FORBIDDEN,
                "address",
                "Not from this address",
                "this client may not call from this address",
                "have the network added to `address` of this client in [[api.client]], and reload",
            );
            return problem.into_response();
        }
    };
    let status = StatusCode::UNAUTHORIZED;
    let mut response =
        Problem::new(status, "unauthorized", "Who calls?", detail, next).into_response();
    let challenge = match denial {
        Denial::Token => "Bearer realm=\"hikyaku\", error=\"invalid_token\"",
        _ => "Bearer realm=\"hikyaku\"",
    };
    let challenge = HeaderValue::from_static(challenge);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}
