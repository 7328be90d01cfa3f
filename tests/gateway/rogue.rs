//! A peer with bad intent at the tunnel's port: keys and handshakes of every kind, raw frames, and
//! datagrams that were never a connection.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hikyaku::cargo::NodeName;
use hikyaku::clock::{self, Timestamp};
use hikyaku::tunnel::frame::{Decoder, Frame, Hello, Purpose};
use hikyaku::tunnel::pki::{self, Pair};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Runtime;

use crate::site::{PATIENCE, READING, Site};

/// How long a lane or a write may wait for the node's permission before it counts as refused.
const SOON: Duration = Duration::from_secs(5);
const DAY_MS: i64 = 86_400_000;
pub(crate) const ALPN: &[u8] = b"hikyaku/1";

/// The authority of a site, for certificates that `hikyaku pki` would not make.
pub(crate) struct Authority(Pair);

impl Authority {
    pub(crate) fn of(site: &Site) -> Self {
        let read = |name| fs::read_to_string(site.pki().join(name)).expect("an authority");
        Self(Pair { certificate: read("ca.crt"), key: read("ca.key") })
    }

    /// One that nobody trusts.
    pub(crate) fn foreign() -> Self {
        Self(pki::ca("Elsewhere", clock::wall()).expect("an authority"))
    }

    /// For `name`, made `age` days ago for `days` days.
    pub(crate) fn issue(&self, name: &str, age: i64, days: u32) -> Pair {
        let node: NodeName = name.parse().expect("a name");
        let then = Timestamp(clock::wall().0 - age * DAY_MS);
        pki::issue(&self.0, &node, days, then).expect("a certificate")
    }

    /// A revocation list with this certificate, as `pki/revoked.crl` of the site.
    pub(crate) fn revoke(&self, site: &Site, pair: &Pair) -> PathBuf {
        let leaf = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM");
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).expect("a certificate");
        let key = KeyPair::from_pem(&self.0.key).expect("a key");
        let issuer = Issuer::from_ca_cert_pem(&self.0.certificate, key).expect("an authority");
        let now = rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_millis(clock::wall().0.unsigned_abs());
        let crl = CertificateRevocationListParams {
            this_update: now - Duration::from_secs(60),
            next_update: now + Duration::from_secs(86_400),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: leaf.raw_serial().to_vec().into(),
                revocation_time: now - Duration::from_secs(60),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = site.pki().join("revoked.crl");
        let pem = crl.signed_by(&issuer).expect("a list").pem().expect("PEM");
        fs::write(&path, pem).expect("a file");
        path
    }
}

/// Puts a certificate and its key where the node of this name has its own.
pub(crate) fn install(site: &Site, name: &str, pair: &Pair) {
    for (kind, pem) in [("crt", &pair.certificate), ("key", &pair.key)] {
        let path = site.pki().join(format!("{name}.{kind}"));
        fs::write(&path, pem).expect("a file");
    }
}

/// The certificate and key of a node of the site.
pub(crate) fn installed(site: &Site, name: &str) -> Pair {
    let read = |kind| fs::read_to_string(site.pki().join(format!("{name}.{kind}")));
    Pair { certificate: read("crt").expect("a file"), key: read("key").expect("a file") }
}

/// A QUIC client that is no node.
pub(crate) struct Rogue {
    runtime: Runtime,
    endpoint: Endpoint,
    roots: RootCertStore,
}

impl Rogue {
    pub(crate) fn new(site: &Site) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoint = {
            let _in = runtime.enter();
            Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket")
        };
        let mut roots = RootCertStore::empty();
        let ca = fs::read(site.pki().join("ca.crt")).expect("an authority");
        roots.add(CertificateDer::from_pem_slice(&ca).expect("PEM")).expect("an authority");
        Self { runtime, endpoint, roots }
    }

    /// How it shakes hands: with this certificate or none, for this protocol.
    pub(crate) fn config(&self, identity: Option<&Pair>, alpn: &[u8]) -> ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(self.roots.clone());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().expect("PEM");
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a key that fits")
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        // Whatever the other side would allow.
        config.enable_early_data = true;
        ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("a suite")))
    }

    /// Begins to dial the reading centre at this port and does not care what becomes of it.
    pub(crate) fn knock(&self, port: u16, config: ClientConfig) {
        let _in = self.runtime.enter();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        drop(self.endpoint.connect_with(config, at, READING));
    }

    /// Dials the reading centre and greets it; the error says why that came to nothing.
    pub(crate) fn dial(&self, port: u16, config: ClientConfig) -> Result<Peer<'_>, String> {
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let dialled = self.wait(async {
            let connecting = self.endpoint.connect_with(config, at, READING);
            connecting.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())
        });
        let mut peer = Peer { rogue: self, connection: dialled?, control: None };
        let mut control = peer.lane(Purpose::Control)?;
        match control.hear() {
            Ok(Frame::Hello(_)) => {}
            other => return Err(peer.ended().unwrap_or_else(|| format!("{other:?}"))),
        }
        peer.control = Some((control.send, control.recv));
        Ok(peer)
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(PATIENCE, future).await };
        self.runtime.block_on(limited).expect("an answer in time")
    }
}

/// A connection whose certificate was accepted.
pub(crate) struct Peer<'a> {
    rogue: &'a Rogue,
    connection: Connection,
    /// Stays open, as the protocol asks.
    control: Option<(SendStream, RecvStream)>,
}

impl Peer<'_> {
    /// Opens a lane and says Hello on it.
    pub(crate) fn lane(&self, purpose: Purpose) -> Result<Lane<'_>, String> {
        let mut lane = self.silent_lane()?;
        lane.say(&Frame::Hello(Hello::of(&"hospital".parse().expect("a name"), purpose)).encode());
        Ok(lane)
    }

    /// Opens a lane; fails when the node allows no more of them.
    pub(crate) fn silent_lane(&self) -> Result<Lane<'_>, String> {
        let soon = async { tokio::time::timeout(SOON, self.connection.open_bi()).await };
        let opened = self.rogue.runtime.block_on(soon).map_err(|_| "no more lanes")?;
        let (send, recv) = opened.map_err(|e| e.to_string())?;
        Ok(Lane { rogue: self.rogue, send, recv, decoder: Decoder::default() })
    }

    /// In which words the node closed the connection, if it has.
    fn ended(&self) -> Option<String> {
        self.connection.close_reason().map(|e| e.to_string())
    }

    /// Waits until the node has closed the connection.
    pub(crate) fn closed(&self) -> String {
        self.rogue.wait(self.connection.closed()).to_string()
    }

    /// Forgets the connection without a word.
    pub(crate) fn leave(self) {
        self.connection.close(0u32.into(), b"");
    }
}

/// One lane of it.
pub(crate) struct Lane<'a> {
    rogue: &'a Rogue,
    send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
}

impl Lane<'_> {
    /// Writes bytes, as far as they are wanted.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let write = async {
            let written = self.send.write_all(bytes);
            tokio::time::timeout(SOON, written).await
        };
        let _ = self.rogue.runtime.block_on(write);
    }

    /// The next frame.
    pub(crate) fn hear(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(|e| e.to_string())? {
                return Ok(frame);
            }
            let chunk = self.rogue.wait(self.recv.read_chunk(65_536, true));
            match chunk.map_err(|e| e.to_string())? {
                Some(chunk) => self.decoder.push(&chunk.bytes),
                None => return Err("the node has ended the lane".into()),
            }
        }
    }
}

/// First datagrams of so many handshakes, as they would reach a node.
pub(crate) fn initials(rogue: &Rogue, n: usize) -> Vec<Vec<u8>> {
    let trap = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    trap.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let port = trap.local_addr().expect("an address").port();
    let mut caught = Vec::new();
    let mut packet = vec![0; 65_536];
    while caught.len() < n {
        rogue.knock(port, rogue.config(None, ALPN));
        let Ok((length, _)) = trap.recv_from(&mut packet) else { break };
        caught.push(packet[..length].to_vec());
    }
    caught
}
