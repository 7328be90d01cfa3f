//! The transport connection of an association: TCP, or TLS on it. Reads and writes have no limits
//! of their own; whoever calls sets them.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The transport connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(s) => s,
            Self::Tls(s) => s.get_ref().0,
        }
    }

    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(s) => s.read_buf(buffer).await,
            Self::Tls(s) => s.read_buf(buffer).await,
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(s) => s.write_all(bytes).await,
            Self::Tls(s) => {
                s.write_all(bytes).await?;
                s.flush().await
            }
        }
    }

    pub(super) async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(s) => s.shutdown().await,
            Self::Tls(s) => s.shutdown().await,
        }
    }

    pub(super) fn acknowledge_at_once(&self) {
        // A hint to the kernel: where it fails, the connection is slower or already gone.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(self.tcp()).set_tcp_quickack(true);
    }
}
