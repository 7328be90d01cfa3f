//! A transport connection to an application entity: TCP, or TLS on it (PS3.15 B.12).

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::requestor::Ending;

/// How to speak TLS to an application entity.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Trust, versions and our own certificate.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that must stand in its certificate.
    pub server_name: ServerName<'static>,
}

/// Why there is no association. All of these are the peer's failure, or the network's.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No TCP connection, or it broke.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// No TLS: certificate, version, or no TLS there at all.
    #[error("TLS handshake failed: {0}")]
    Tls(std::io::Error),
    /// A limit passed.
    #[error("no {what} within {} s", .limit.as_secs())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// Rejected, aborted, or not DICOM.
    #[error(transparent)]
    Ended(#[from] Ending),
    /// The peer hung up.
    #[error("the destination closed the connection instead of answering")]
    Closed,
}

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a host name, which is looked up now, or an address; `limit` counts for TCP, and
/// again for the TLS handshake.
pub async fn connect(
    host: &str,
    port: u16,
    tls: Option<&Tls>,
    limit: Duration,
) -> Result<Box<dyn Stream>, OpenError> {
    let tcp = timeout(limit, TcpStream::connect((host, port)))
        .await
        .map_err(|_| OpenError::Timeout { what: "TCP connection", limit })?
        .map_err(OpenError::Connect)?;
    // Command and data leave as one or several segments; none of them must wait for an
    // acknowledgement that the peer delays.
    tcp.set_nodelay(true).map_err(OpenError::Connect)?;
    let Some(tls) = tls else { return Ok(Box::new(tcp)) };
    let name: ServerName<'static> = tls.server_name.clone();
    let handshake = TlsConnector::from(tls.config.clone()).connect(name, tcp);
    let stream = timeout(limit, handshake)
        .await
        .map_err(|_| OpenError::Timeout { what: "TLS handshake", limit })?
        .map_err(OpenError::Tls)?;
    Ok(Box::new(stream))
}
