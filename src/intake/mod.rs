//! DICOM associations into custody: the storage SCP, and the protocol of the services around it.
//!
//! Any storage SOP class, known or private, is accepted in the transfer syntax that it is
//! proposed in, and the bytes of the data set go into custody exactly as they come. C-STORE is
//! answered with success only against a [`Kept`](crate::custody::Kept). C-ECHO is answered.
//! Performed procedure steps, storage commitment, availability notices and worklist queries are
//! read, judged as far as their data sets decide, and handed to whoever implements [`Services`].
//!
//! An object passes through these parts, the first four of which are pure:
//!
//! | part | decides |
//! |---|---|
//! | `access` | who may call, from where, and as whom |
//! | `negotiation` | which presentation contexts are accepted, and in which syntax |
//! | `association` | the acceptor's states of PS3.8 9.2 |
//! | `message` | how fragments make command sets and data sets (PS3.7 6.3) |
//! | `store` | one C-STORE: into custody, and the answer |
//! | `correct` | what an order wants of an image, before custody takes it |
//! | `report` | what of it is a report, for whoever collects those |
//! | `perform` | one request of another service, and the answer |
//! | `services` | what the other services ask of the rest of the node |
//! | `connection` | one socket: reads, writes, timeouts |
//! | `listener` | who gets a connection at all; limits and drain |
//!
//! Memory per association is at most `connection::READ_LENGTH` twice over, one A-ASSOCIATE-RQ
//! or command set, and what custody's assembly holds, whatever the size of the object; or one
//! data set of another service, at most 4 MiB of it.

pub mod access;

pub mod association;

pub mod connection;

pub mod correct;

pub mod listener;

pub mod message;

pub mod mllp;

pub mod negotiation;

pub mod perform;

pub mod report;

pub mod services;

pub mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

pub use access::{Allow, Network, NetworkError};
pub use listener::{Intake, Listeners, serve};
pub use services::Services;
pub use store::Router;

use crate::dicom::AeTitle;

/// What the intake is allowed to do; already checked. Read at every new association, so that a
/// reload takes effect without dropping those that stand.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where plain DICOM is listened for.
    pub listen: Option<SocketAddr>,
    /// Where DICOM over TLS (PS3.15 B.12) is listened for.
    pub tls_listen: Option<SocketAddr>,
    /// The called AE titles that this node answers to.
    pub ae_titles: Vec<AeTitle>,
    /// Who may call. Empty: nobody.
    pub allow: Vec<Allow>,
    /// SOP classes that are refused one by one with 0x0124, by UID.
    pub refuse_sop_classes: BTreeSet<String>,
    /// Bounds on everything that a peer can make grow or last.
    pub limits: Limits,
}

/// Bounds on everything that a peer can make grow or last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all. One more is answered with A-ASSOCIATE-RJ (2,3,1). Default 128.
    pub associations: usize,
    /// Connections from one address. One more is answered with A-ASSOCIATE-RJ (2,3,2).
    /// Default 32.
    pub associations_per_address: usize,
    /// Maximum length of P-DATA-TF that is announced, in bytes. Default 131072.
    pub pdu_length: u32,
    /// ARTIM (PS3.8 9.1.5): from the connection, TLS handshake included, to a whole
    /// A-ASSOCIATE-RQ. Default 30 s.
    pub artim: Duration,
    /// Longest silence between messages of an association. Default 10 min.
    pub idle: Duration,
    /// Longest silence within a message, and longest wait for the peer to take an answer.
    /// Default 60 s.
    pub dimse: Duration,
    /// Longest that one message may take from its first byte to its last. Default 1 h.
    pub message: Duration,
    /// Most matches that one worklist query is answered with; then B001. Default 2000.
    pub matches: usize,
    /// How long a C-STORE under way may take to finish when the node stops. Default 20 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            associations: 128,
            associations_per_address: 32,
            pdu_length: 128 * 1024,
            artim: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            dimse: Duration::from_secs(60),
            message: Duration::from_secs(3600),
            matches: 2000,
            drain: Duration::from_secs(20),
        }
    }
}
