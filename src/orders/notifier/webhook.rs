//! Notices by HTTPS POST. One connection for one notice; no redirect is followed, and nothing of
//! the answer counts but its status: 2xx is a yes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::Failure;
use crate::inquiry::dial::{Tls, connect};

/// Longest wait for TCP, and again for TLS.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Longest time of one try.
const TRY_TIME: Duration = Duration::from_secs(30);
/// Longest token, in bytes.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// Where notices are posted.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Host name or address, the latter without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The address as configured.
    pub uri: Uri,
    /// Trust; absent for plain HTTP on this machine.
    pub tls: Option<Tls>,
    /// File with the bearer token, read at every try.
    pub token: Option<PathBuf>,
}

/// What stands in a file of one secret, without its line end.
pub(super) async fn secret(file: &Path) -> Result<String, Failure> {
    let words = |e: &dyn std::fmt::Display| format!("{} cannot be read: {e}", file.display());
    let found = tokio::fs::metadata(file).await.map_err(|e| Failure::of_all(words(&e)))?;
    if found.len() > TOKEN_BYTES_MAX {
        return Err(Failure::of_all(words(&"it is too long for a secret")));
    }
    let text = tokio::fs::read_to_string(file).await.map_err(|e| Failure::of_all(words(&e)))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Posts one document; the receiver tells by `id` that it had it before.
pub(super) async fn post(to: &Webhook, id: &str, document: &Value) -> Result<(), Failure> {
    let tried = tokio::time::timeout(TRY_TIME, try_once(to, id, document)).await;
    tried.unwrap_or_else(|_| {
        Err(Failure::of_all(format!("no answer within {} s", TRY_TIME.as_secs())))
    })
}

async fn try_once(to: &Webhook, id: &str, document: &Value) -> Result<(), Failure> {
    let request = request(to, id, document).await?;
    let stream = connect(&to.host, to.port, to.tls.as_ref(), CONNECT_TIME).await;
    let stream = stream.map_err(|e| Failure::of_all(e.to_string()))?;
    let broken = |e: hyper::Error| Failure::of_all(format!("the exchange broke: {e}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with this try: what is left of the answer is not read.
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(broken)?,
        ended = connection => {
            let words = ended.err().map_or("closed".to_owned(), |e| e.to_string());
            return Err(Failure::of_all(format!("the connection ended: {words}")));
        }
    };
    judge(answer.status())
}

async fn request(
    to: &Webhook,
    id: &str,
    document: &Value,
) -> Result<Request<Full<Bytes>>, Failure> {
    let path = to.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = to.uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder()
        .method("POST")
        .uri(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("hikyaku/", env!("CARGO_PKG_VERSION")))
        .header("idempotency-key", id);
    if let Some(file) = &to.token {
        let value = HeaderValue::from_str(&format!("Bearer {}", secret(file).await?));
        let no_header = || Failure::of_all(format!("{} holds no token", file.display()));
        let mut value = value.map_err(|_| no_header())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let body = Full::new(Bytes::from(document.to_string()));
    request.body(body).map_err(|e| Failure::of_all(e.to_string()))
}

/// A status that means that the receiver cannot just now stands for all notices; another refusal
/// for this one.
fn judge(status: StatusCode) -> Result<(), Failure> {
    let words = format!("the receiver answers {status}");
    match status.as_u16() {
        200..=299 => Ok(()),
        401 | 403 | 404 | 408 | 429 | 500.. | 300..=399 => Err(Failure::of_all(words)),
        _ => Err(Failure::of_one(words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_is_a_yes_and_a_receiver_that_is_ill_stops_its_lane() {
        let of = |code: u16| judge(StatusCode::from_u16(code).unwrap());
        assert!(of(200).is_ok() && of(204).is_ok());
        for (code, all) in [(302, true), (401, true), (500, true), (503, true), (429, true)] {
            assert_eq!(of(code).unwrap_err().all, all, "{code}");
        }
        assert!(!of(400).unwrap_err().all && !of(422).unwrap_err().all);
    }
}
