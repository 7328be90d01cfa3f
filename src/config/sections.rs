//! The checked configuration, one type per section. Everything here has a value: defaults are
//! filled in, paths are absolute or relative to the working directory, units are base units.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::cargo::{DestinationName, NodeName};
use crate::delivery::backoff::Backoff;
use crate::delivery::{Reencode, Timeouts};
use crate::dicom::AeTitle;
use crate::intake::{self, Network};
use crate::reports::make::Home;
use crate::tunnel;

use super::hl7_destination::Hl7Destination;
use super::value::{HostPort, Share};

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
    pub ae_titles: Vec<AeTitle>,
    /// Who may send, at least one entry; a sender needs one entry that it meets as a whole.
    pub allow: Vec<Allow>,
    /// SOP classes of which no object is taken (status 0x0124).
    pub refuse_sop_classes: BTreeSet<String>,
    /// `[dicom.limits]`.
    pub limits: intake::Limits,
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
    pub ae_title: Option<AeTitle>,
    /// Address that the connection comes from; `None`: any.
    pub address: Option<Network>,
}

/// `[spool]`: how much is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolSection {
    /// Bytes that the spool may use; `None`: what its file system has.
    pub capacity: Option<u64>,
    /// Percent of the capacity above which routine cargo is refused.
    pub high_watermark: u8,
    /// Percent of the capacity above which STAT cargo is refused too.
    pub stat_watermark: u8,
    /// Bytes kept free for facts and for draining.
    pub reserve: u64,
    /// How long bytes stay after the last receipt.
    pub retention: Duration,
    /// How long tombstones stay after the bytes.
    pub tombstones: Duration,
    /// Bytes of all objects that are being assembled in memory.
    pub memory: u64,
    /// Longest object taken, in bytes.
    pub object: u64,
    /// Bytes of a segment of the cargo log.
    pub segment: u64,
    /// Partial objects that wait to be resumed.
    pub partials: usize,
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
    pub crl: Vec<PathBuf>,
    /// Nodes that may connect, besides the destinations of kind `node`.
    pub peers: Vec<Peer>,
    /// `[tunnel.limits]`.
    pub limits: tunnel::Limits,
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

/// One `[[destination]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its name, unique in the file.
    pub name: DestinationName,
    /// Most that cargo owed to it may occupy in the spool.
    pub quota: Option<Share>,
    /// How it takes reports; `None`: it takes none. Of kind hl7 without what all messages to it
    /// have in common: [`Config::homes`](super::Config::homes) has it.
    pub home: Option<Home>,
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
        /// Waits between tries while it cannot be written to.
        backoff: Backoff,
    },
    /// A RIS that takes orders by HL7.
    Hl7(Box<Hl7Destination>),
}

impl DestinationKind {
    /// The word in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Node { .. } => "node",
            Self::Dicom(_) => "dicom",
            Self::Folder { .. } => "folder",
            Self::Hl7(_) => "hl7",
        }
    }
}

/// A DICOM application entity that gets C-STORE requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DicomDestination {
    /// Where to connect.
    pub address: HostPort,
    /// Called AE title.
    pub ae_title: AeTitle,
    /// Calling AE title: the one given, else the first of `[dicom] ae_titles`, else `HIKYAKU`.
    pub calling_ae: AeTitle,
    /// Associations at a time.
    pub associations: NonZeroUsize,
    /// TLS; `None`: plain.
    pub tls: Option<ClientTls>,
    /// Whether native pixel data may change between native transfer syntaxes.
    pub reencode: Reencode,
    /// Longest data set that is re-encoded, in bytes; it is held in memory.
    pub reencode_length_max: u64,
    /// Waits between tries while it is down.
    pub backoff: Backoff,
    /// `[destination.timeouts]`.
    pub timeouts: Timeouts,
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
