//! The checked configuration, one type per section. Everything here has a value: defaults are
//! filled in, paths are absolute or relative to the working directory, units are base units.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cargo::{DestinationName, NodeName};

use super::value::{HostPort, Network, Share};

/// `[node]`: who this node is and where it keeps things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSection {
    /// The name in its certificate, and the origin of the cargo that it takes.
    pub name: NodeName,
    /// The folder of spool, ledger and socket; this node is the only one that writes there.
    pub data: PathBuf,
    /// `[node.log]`.
    pub log: LogSection,
}

/// `[node.log]`: what is written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSection {
    /// How a line looks.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON document per line.
    Json,
}

/// From which level on lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what needs a person now.
    Error,
    /// Also what will need one.
    Warn,
    /// Also what was done; no patient data up to here.
    Info,
    /// Also how; may show identifiers.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the configuration, which `tracing` reads too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[dicom]`: the listeners for C-STORE and C-ECHO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DicomSection {
    /// Plain listener. One of the two is there.
    pub listen: Option<SocketAddr>,
    /// TLS listener; only together with `tls`.
    pub tls_listen: Option<SocketAddr>,
    /// Certificate of the TLS listener.
    pub tls: Option<ServerTls>,
    /// Called AE titles that are answered, at least one.
    pub ae_titles: Vec<String>,
    /// Who may send, at least one entry; a sender needs one entry that it meets as a whole.
    pub allow: Vec<Allow>,
    /// SOP classes of which no object is taken (status 0x0124).
    pub refuse_sop_classes: Vec<String>,
    /// `[dicom.limits]`.
    pub limits: DicomLimits,
}

/// Who a TLS listener is, and whom it asks for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities, PEM. Present: senders must show a certificate of one of them.
    pub trust: Option<PathBuf>,
}

/// One entry of the allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Calling AE title; `None`: any.
    pub ae_title: Option<String>,
    /// Address that the connection comes from; `None`: any.
    pub address: Option<Network>,
}

/// `[dicom.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DicomLimits {
    /// Associations at a time.
    pub associations: u32,
    /// Associations at a time from one address.
    pub associations_per_address: u32,
    /// Longest PDU taken, in bytes (PS3.8 D.1).
    pub pdu: u64,
    /// Longest command set taken, in bytes.
    pub command_set: u64,
    /// Longest object taken, in bytes.
    pub object: u64,
    /// Longest wait for the next command on an open association.
    pub idle: Duration,
    /// Longest wait for an association request, and for the peer to close (PS3.8 9.1.5).
    pub artim: Duration,
    /// Longest wait for the next bytes within a message.
    pub stall: Duration,
    /// Longest life of an association.
    pub total: Duration,
}

/// `[spool]`: how much is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolSection {
    /// Bytes that the spool may use; `None`: what its file system has.
    pub capacity: Option<u64>,
    /// Percent of the capacity above which routine cargo is refused.
    pub high_watermark: u8,
    /// Percent of the capacity, above the watermark, that STAT cargo may still use.
    pub stat_share: u8,
    /// Bytes kept free for facts and for draining.
    pub reserve: u64,
    /// How long bytes stay after the last receipt.
    pub retention: Duration,
    /// How long tombstones stay after the bytes.
    pub tombstones: Duration,
    /// Bytes of all objects that are being assembled in memory.
    pub memory: u64,
    /// Objects up to this many bytes are assembled in memory; larger ones stream to disk.
    pub in_memory: u64,
    /// Bytes of a segment of the cargo log.
    pub segment: u64,
    /// Bytes of all partial objects together.
    pub partials: u64,
    /// How long a partial object waits to be resumed.
    pub partial_age: Duration,
    /// Most that cargo of one origin may occupy; `None`: no limit of its own.
    pub quota_per_origin: Option<Share>,
}

/// `[tunnel]`: the line to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSection {
    /// UDP address for nodes that dial us; `None`: we only dial out.
    pub listen: Option<SocketAddr>,
    /// Certificate chain of this node, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities whose nodes are believed, PEM.
    pub trust: PathBuf,
    /// Revocation lists, PEM.
    pub crl: Option<PathBuf>,
    /// Nodes that may connect, besides the destinations of kind `node`.
    pub peers: Vec<Peer>,
    /// `[tunnel.limits]`.
    pub limits: TunnelLimits,
}

/// One of `[[tunnel.peers]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name in its certificate.
    pub name: NodeName,
    /// Origins whose cargo it may bring besides its own.
    pub relay: Vec<NodeName>,
    /// Most that cargo from it may occupy in the spool.
    pub quota: Option<Share>,
}

/// `[tunnel.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelLimits {
    /// Connections that others may have open to us.
    pub connections: u32,
    /// Lanes per connection and direction.
    pub lanes: u32,
    /// Unread bytes that a peer may have under way on one connection.
    pub window: u64,
    /// The same on one lane.
    pub lane_window: u64,
    /// Unacknowledged bytes that we keep for one connection.
    pub send_window: u64,
    /// Longest object taken, in bytes.
    pub object: u64,
    /// Longest handshake.
    pub handshake: Duration,
    /// Silence after which a connection counts as lost.
    pub idle: Duration,
    /// How often an idle connection says that it lives; shorter than `idle`.
    pub keep_alive: Duration,
    /// Longest pause between two attempts to connect.
    pub reconnect: Duration,
}

/// One `[[destination]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its name, unique in the file.
    pub name: DestinationName,
    /// Most that cargo owed to it may occupy in the spool.
    pub quota: Option<Share>,
    /// What it is and how it is reached.
    pub kind: DestinationKind,
}

/// What a destination is and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationKind {
    /// Another node. It has the destination's name.
    Node {
        /// Where to dial; `None`: that node dials us.
        address: Option<HostPort>,
    },
    /// A DICOM application entity.
    Dicom(Box<DicomDestination>),
    /// A folder that gets Part 10 files.
    Folder {
        /// The folder.
        path: PathBuf,
    },
}

impl DestinationKind {
    /// The word in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Node { .. } => "node",
            Self::Dicom(_) => "dicom",
            Self::Folder { .. } => "folder",
        }
    }
}

/// A DICOM application entity that gets C-STORE requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DicomDestination {
    /// Where to connect.
    pub address: HostPort,
    /// Called AE title.
    pub ae_title: String,
    /// Calling AE title: the one given, else the first of `[dicom] ae_titles`, else `HIKYAKU`.
    pub calling_ae: String,
    /// Associations at a time.
    pub associations: u32,
    /// TLS; `None`: plain.
    pub tls: Option<ClientTls>,
    /// Whether native pixel data may change between native transfer syntaxes.
    pub reencode: Reencode,
    /// Tries for an object that is refused in a way that may pass, before it is quarantined.
    pub tries: u32,
    /// Pause before the second attempt; doubles with every further one.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// `[destination.timeouts]`.
    pub timeouts: DicomTimeouts,
}

/// Timeouts towards a DICOM destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DicomTimeouts {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// For the answer to the association request (PS3.8 ARTIM) and to release.
    pub association: Duration,
    /// For the destination to take the next bytes.
    pub send: Duration,
    /// For the answer to a C-STORE request, counted from its last byte.
    pub response: Duration,
    /// How long an association without work stays open.
    pub idle: Duration,
}

/// Who we are towards a TLS listener, and whom we believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities, PEM.
    pub trust: PathBuf,
    /// Our certificate chain and key, PEM, where the listener asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the listener's certificate; `None`: the host of the address.
    pub server_name: Option<String>,
}

/// Whether delivery may rewrite native pixel data in another native transfer syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reencode {
    /// Bytes go as they came, or are quarantined.
    Never,
    /// Between Implicit VR, Explicit VR and Deflated, when the destination takes no other.
    Native,
}

/// `[ops]`: metrics and health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpsSection {
    /// HTTP listener; reads only, no patient data.
    pub listen: SocketAddr,
}

/// `[drain]`: how a node stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainSection {
    /// How long open associations and exchanges may take to end by themselves.
    pub timeout: Duration,
}
