//! The QUIC transport: every limit stated, none left to a default that could grow.
//!
//! Memory of one connection is at most [`Limits::receive_window`] (bytes that have come and were
//! not read) plus the send window ([`super::share::SEND_WINDOW`], bytes not yet acknowledged).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use super::congestion::Flows;
use super::share::SEND_WINDOW;
use super::trust::Credentials;

/// Limits of the tunnel that configuration may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that one connection may have unread here. A line of 1 Gbit/s at 100 ms needs 12.5 MB.
    pub receive_window: u32,
    /// Bytes that one lane may have unread here; a single large object moves no faster than this
    /// per round trip.
    pub lane_window: u32,
    /// Lanes that a peer may open; a node opens 15 and, when it dials, a control lane.
    pub lanes: u32,
    /// Time without any packet after which the line is dead.
    pub idle: Duration,
    /// Time without traffic after which a packet is sent to keep the path (NAT) open.
    pub keep_alive: Duration,
    /// Time for a handshake including both Hellos.
    pub handshake: Duration,
    /// Handshakes going on at once; more are refused.
    pub handshakes: usize,
    /// Handshakes going on above which a dialler must first prove its address (QUIC Retry).
    pub retry_above: usize,
    /// Time that a stopping node waits for receipts of what is in flight.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_window: 16 << 20,
            lane_window: 8 << 20,
            lanes: 32,
            idle: Duration::from_secs(20),
            keep_alive: Duration::from_secs(4),
            handshake: Duration::from_secs(10),
            handshakes: 64,
            retry_above: 16,
            drain: Duration::from_secs(5),
        }
    }
}

/// Connection attempts that wait to be looked at; beyond it they are dropped unanswered.
const INCOMING_MAX: usize = 256;
/// Bytes buffered for one attempt, and for all, before it is looked at.
const INCOMING_BYTES: u64 = 64 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;
/// Asked of the system for each direction of the UDP socket; it may give less
/// (`net.core.rmem_max`). 4 MiB hold 30 ms of 1 Gbit/s.
const SOCKET_BUFFER: usize = 4 << 20;

fn transport(limits: &Limits) -> Arc<TransportConfig> {
    let mut t = TransportConfig::default();
    let idle = IdleTimeout::try_from(limits.idle).unwrap_or(VarInt::from_u32(20_000).into());
    t.max_concurrent_bidi_streams(VarInt::from_u32(limits.lanes))
        // Lanes are bidirectional; nothing else is spoken.
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(limits.lane_window))
        .receive_window(VarInt::from_u32(limits.receive_window))
        // The start; `share::send_window` follows the line from there.
        .send_window(*SEND_WINDOW.start())
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(limits.keep_alive))
        // What every path carries (RFC 9000 14), then searched upwards.
        .initial_mtu(1200)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        .congestion_controller_factory(Arc::new(Flows));
    Arc::new(t)
}

/// For connections that we dial.
pub(crate) fn client_config(credentials: &Credentials, limits: &Limits) -> ClientConfig {
    let mut config = ClientConfig::new(credentials.client());
    config.transport_config(transport(limits));
    config
}

/// For connections that come in.
pub(crate) fn server_config(credentials: &Credentials, limits: &Limits) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(credentials.server());
    config
        .transport_config(transport(limits))
        .migration(true)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    config
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One socket for both families; where the system forbids it, IPv6 alone.
        let _ = socket.set_only_v6(false);
    }
    // Less than asked costs speed, not correctness.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What lets the peers of this process's former life hear that it has ended, at the first packet
/// that they send: else each would wait for the idle timeout before it dials again.
fn outliving(seed: &[u8; 32]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, seed)));
    let ids = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), b"connection ids");
    let ids = u64::from_be_bytes(ids.as_ref()[..8].try_into().expect("eight bytes"));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

fn endpoint(
    address: SocketAddr,
    server: Option<ServerConfig>,
    mut config: EndpointConfig,
) -> io::Result<Endpoint> {
    // QUIC version 1 (RFC 9000) and no draft.
    config.supported_versions(vec![1]);
    Endpoint::new(config, server, socket(address)?, Arc::new(quinn::TokioRuntime))
}

/// An endpoint that peers dial, with [`Credentials::reset_seed`]. Needs a tokio runtime.
pub(crate) fn listening(
    address: SocketAddr,
    server: ServerConfig,
    reset_seed: &[u8; 32],
) -> io::Result<Endpoint> {
    endpoint(address, Some(server), outliving(reset_seed))
}

/// An endpoint that only dials: whatever comes to it unasked is dropped. Needs a tokio runtime.
pub(crate) fn dialling() -> io::Result<Endpoint> {
    let any = |address| endpoint(address, None, EndpointConfig::default());
    any((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| any((Ipv4Addr::UNSPECIFIED, 0).into()))
}
