//! Why a tunnel does not stand, in words that an operator can act on.
//!
//! QUIC and TLS report numbers (RFC 9000 20.1: 0x100 + TLS alert; RFC 8446 6.2). One alert often
//! stands for several causes, so the words that come with it decide between them; they only ever
//! decide what is shown.

use std::fmt;

use quinn::ConnectionError;

use crate::cargo::peer_text;

/// Application close codes of a connection.
pub mod close {
    /// The node stops; dial again later.
    pub const STOPPING: u32 = 0;
    /// The certificate is good, and its name is not a configured peer.
    pub const NOT_A_PEER: u32 = 1;
    /// The other side broke the protocol; the reason says how.
    pub const PROTOCOL: u32 = 2;
    /// A newer connection with the same peer stands.
    pub const REPLACED: u32 = 3;
    /// The peer's certificate was revoked, or its authority is no longer trusted.
    pub const DISTRUSTED: u32 = 4;
    /// No Hello in time.
    pub const SILENT: u32 = 5;
}

/// Whose certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Ours; the peer refused it.
    Ours,
    /// The peer's; we refused it.
    Theirs,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has expired.
    Expired,
    /// It is not valid yet: one of the clocks is wrong.
    NotYetValid,
    /// It was issued by an authority that the other side does not trust.
    UnknownAuthority,
    /// It is for another name.
    WrongName,
    /// It is on a revocation list.
    Revoked,
    /// It is not for this use (extended key usage).
    WrongUse,
    /// None was shown.
    Absent,
    /// Anything else.
    Bad,
}

/// Why a connection was not made, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A certificate was refused.
    Certificate(Whose, Fault),
    /// The other side does not speak `hikyaku/1`.
    Alpn,
    /// The other side speaks no QUIC version or TLS parameters of ours.
    Version,
    /// Nothing answered.
    NoAnswer,
    /// Nothing answered by UDP, and something does by TCP.
    UdpBlocked,
    /// Somebody came by TCP.
    PlainTcp,
    /// The line went dead.
    Lost,
    /// The peer restarted and does not know the connection.
    Reset,
    /// The peer closed it on purpose: code and its words.
    ClosedByPeer(u64, String),
    /// We closed it on purpose.
    ClosedByUs(String),
    /// The address cannot be resolved or dialled.
    Address(String),
    /// Anything else, in the library's words.
    Other(String),
}

impl Reason {
    /// One word for metrics and listings.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Certificate(_, fault) => match fault {
                Fault::Expired => "expired",
                Fault::NotYetValid => "not-yet-valid",
                Fault::UnknownAuthority => "unknown-authority",
                Fault::WrongName => "wrong-name",
                Fault::Revoked => "revoked",
                Fault::WrongUse => "wrong-use",
                Fault::Absent => "no-certificate",
                Fault::Bad => "bad-certificate",
            },
            Self::Alpn => "alpn",
            Self::Version => "version",
            Self::NoAnswer => "no-answer",
            Self::UdpBlocked => "udp-blocked",
            Self::PlainTcp => "plain-tcp",
            Self::Lost => "lost",
            Self::Reset => "reset",
            Self::ClosedByPeer(code, _) => match u32::try_from(*code) {
                Ok(close::STOPPING) => "peer-stopping",
                Ok(close::NOT_A_PEER) => "not-a-peer",
                Ok(close::PROTOCOL) => "protocol",
                Ok(close::REPLACED) => "replaced",
                Ok(close::DISTRUSTED) => "distrusted",
                Ok(close::SILENT) => "silent",
                _ => "closed-by-peer",
            },
            Self::ClosedByUs(_) => "closed",
            Self::Address(_) => "address",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Certificate(whose, fault) => return certificate(*whose, *fault, f),
            Self::Alpn => "the other side is not a hikyaku node of this protocol version (ALPN)",
            Self::Version => "the other side speaks no QUIC version or TLS 1.3 parameters of ours",
            Self::NoAnswer => {
                "no answer: nothing speaks QUIC at that address, or UDP is blocked on the way"
            }
            Self::UdpBlocked => {
                "no answer by UDP, though that address answers by TCP: UDP is blocked on the way"
            }
            Self::PlainTcp => "it came by plain TCP; the tunnel speaks QUIC over UDP alone",
            Self::Lost => "the line is dead: nothing came within the idle timeout",
            Self::Reset => "the peer has restarted",
            Self::ClosedByPeer(code, words) => {
                return write!(f, "closed by the peer ({code}): {words}");
            }
            Self::ClosedByUs(words) => return write!(f, "closed here: {words}"),
            Self::Address(words) | Self::Other(words) => words,
        };
        f.write_str(text)
    }
}

fn certificate(whose: Whose, fault: Fault, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (subject, by) = match whose {
        Whose::Ours => ("our certificate", "the peer"),
        Whose::Theirs => ("the peer's certificate", "us"),
    };
    match fault {
        Fault::Expired => write!(f, "{subject} has expired (or a clock is wrong)"),
        Fault::NotYetValid => write!(f, "{subject} is not valid yet: check both clocks"),
        Fault::UnknownAuthority => {
            write!(f, "{subject} is of an authority that is not trusted by {by}")
        }
        Fault::WrongName => write!(f, "{subject} is for another name than the one configured"),
        Fault::Revoked => write!(f, "{subject} is on a revocation list of {by}"),
        Fault::WrongUse => write!(f, "{subject} is not for this use (extended key usage)"),
        Fault::Absent => write!(f, "{subject} is missing: none was shown"),
        Fault::Bad => write!(f, "{subject} was refused by {by}"),
    }
}

/// Explains why a handshake failed, or an established connection ended.
pub fn explain_handshake(error: &ConnectionError) -> Reason {
    match error {
        ConnectionError::VersionMismatch => Reason::Version,
        ConnectionError::TransportError(e) => tls(u64::from(e.code), &e.reason, Whose::Theirs)
            .unwrap_or_else(|| Reason::Other(peer_text(&e.to_string()))),
        ConnectionError::ConnectionClosed(close) => {
            let words = String::from_utf8_lossy(&close.reason);
            tls(u64::from(close.error_code), &words, Whose::Ours)
                .unwrap_or_else(|| Reason::Other(peer_text(&close.to_string())))
        }
        ConnectionError::ApplicationClosed(close) => {
            let words = peer_text(&String::from_utf8_lossy(&close.reason));
            Reason::ClosedByPeer(close.error_code.into_inner(), words)
        }
        ConnectionError::Reset => Reason::Reset,
        ConnectionError::TimedOut => Reason::Lost,
        ConnectionError::LocallyClosed => Reason::ClosedByUs("stopped".into()),
        ConnectionError::CidsExhausted => Reason::Other(error.to_string()),
    }
}

/// Explains why dialling failed: as [`explain_handshake`], but a time-out before any connection
/// means that nothing answers.
pub fn explain_dial(error: &ConnectionError) -> Reason {
    match error {
        ConnectionError::TimedOut => Reason::NoAnswer,
        error => explain_handshake(error),
    }
}

/// TLS alerts that both TLS versions and rustls use (RFC 8446 6.2).
fn tls(code: u64, words: &str, whose: Whose) -> Option<Reason> {
    let says = |text: &str| words.contains(text);
    let fault = match code.checked_sub(0x100)? {
        45 if says("not valid yet") || says("NotValidYet") => Fault::NotYetValid,
        45 => Fault::Expired,
        44 => Fault::Revoked,
        48 => Fault::UnknownAuthority,
        116 => Fault::Absent,
        42 if says("not valid for name") || says("NotValidForName") => Fault::WrongName,
        // RFC 8446 6.2: the receiver of a bad signature chain says decrypt_error.
        51 => Fault::UnknownAuthority,
        43 => Fault::WrongUse,
        42 | 46 => Fault::Bad,
        120 => return Some(Reason::Alpn),
        40 | 70 | 71 => return Some(Reason::Version),
        _ => return None,
    };
    Some(Reason::Certificate(whose, fault))
}

#[cfg(test)]
mod tests;
