//! What a node keeps and carries: kinds, names, urgency, identity, and the envelope that goes
//! with every piece of cargo from the first *yes* to the last receipt.
//!
//! These types are stored in the spool and sent over the tunnel as CBOR maps with integer keys
//! (RFC 8949): a reader skips keys that it does not know, so that two releases understand each
//! other. A key number, once used, is never given another meaning.

mod report;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use minicbor::{CborLen, Decode, Encode};

pub use self::report::ReportFacts;
use crate::clock::Timestamp;

/// Longest node or destination name.
pub const NAME_LENGTH_MAX: usize = 63;

/// A name that configuration, certificates and metrics can all carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than [`NAME_LENGTH_MAX`].
    #[error("a name has 1 to {NAME_LENGTH_MAX} characters")]
    Length,
    /// A character outside `a-z 0-9 - .`, or `-`/`.` at an end.
    #[error("a name is made of a-z, 0-9, '-' and '.', and starts and ends with a letter or digit")]
    Character,
}

fn check_name(s: &str) -> Result<(), NameError> {
    if s.is_empty() || s.len() > NAME_LENGTH_MAX {
        return Err(NameError::Length);
    }
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = s.as_bytes();
    if !bytes.iter().all(|&c| plain(c) || c == b'-' || c == b'.')
        || !plain(bytes[0])
        || !plain(bytes[bytes.len() - 1])
    {
        return Err(NameError::Character);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                check_name(s)?;
                Ok(Self(s.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                d.str()?.parse().map_err(minicbor::decode::Error::custom)
            }
        }

        impl<C> CborLen<C> for $name {
            fn cbor_len(&self, ctx: &mut C) -> usize {
                str::cbor_len(&self.0, ctx)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                s.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// The name of a node: the name in its certificate, in `[node] name`, and as origin of cargo.
    NodeName
}

name! {
    /// The name of a destination. For a destination of kind `node` it is that node's name.
    DestinationName
}

impl From<&NodeName> for DestinationName {
    fn from(node: &NodeName) -> Self {
        Self(node.0.clone())
    }
}

impl PartialEq<NodeName> for DestinationName {
    fn eq(&self, other: &NodeName) -> bool {
        self.0 == other.0
    }
}

/// What a piece of cargo is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    CborLen,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum CargoKind {
    /// One SOP instance.
    #[n(0)]
    Image,
    /// One imaging order.
    #[n(1)]
    Order,
    /// One version of a report.
    #[n(2)]
    Report,
    /// What a study holds, from the node that sent it.
    #[n(3)]
    Manifest,
    /// News about other cargo: what became of it beyond the next node.
    #[n(4)]
    Note,
}

impl CargoKind {
    /// Whether it has arrived where a node takes it in by itself: without a destination it is not
    /// waiting for one. A report of another node (`foreign`) has come home; one that this node has
    /// collected waits until it is known where it belongs.
    pub const fn is_for_this_node(self, foreign: bool) -> bool {
        match self {
            Self::Order | Self::Manifest | Self::Note => true,
            Self::Report => foreign,
            Self::Image => false,
        }
    }
}

impl fmt::Display for CargoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Order => "order",
            Self::Report => "report",
            Self::Manifest => "manifest",
            Self::Note => "note",
        })
    }
}

/// How soon cargo must arrive. Ordered: `Stat` is the smallest, because it goes first.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    CborLen,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Urgency {
    /// A life may depend on it; overtakes all else.
    #[n(0)]
    Stat,
    /// Wanted within the hour.
    #[n(1)]
    Urgent,
    /// The day's work.
    #[default]
    #[n(2)]
    Routine,
    /// Priors and back-fill, when the line has nothing better to do.
    #[n(3)]
    Bulk,
}

impl Urgency {
    /// All classes, most urgent first.
    pub const ALL: [Self; 4] = [Self::Stat, Self::Urgent, Self::Routine, Self::Bulk];

    /// 0 for STAT to 3 for bulk.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used in configuration, metrics and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Urgent => "urgent",
            Self::Routine => "routine",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A SHA-256 digest (FIPS 180-4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct Sha256(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl Sha256 {
    /// Digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The first eight bytes as a number, to key small records by.
    pub fn short(&self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("32 bytes hold 8"))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// SHA-256 over bytes as they come.
#[derive(Clone)]
pub struct Hasher(aws_lc_rs::digest::Context);

impl Hasher {
    /// Over nothing yet.
    pub fn new() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Sha256 {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        Sha256(out)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Which piece of cargo: the same identity is the same piece, wherever and however often it
/// arrives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Identity {
    /// The node that first took it into custody.
    #[n(0)]
    pub origin: NodeName,
    /// The SOP Instance UID of an image; for other kinds, a key that is unique at the origin.
    #[n(1)]
    pub key: String,
    /// Digest of the body exactly as received: for an image, the data set without file meta.
    #[n(2)]
    pub sha256: Sha256,
}

impl Identity {
    /// What the key of a report begins with that a node has collected. Other reports are what a node
    /// has made for its own systems.
    pub const COLLECTED: &str = "report-";
    /// What the key of custody's own notes begins with: what became of cargo. Other notes are for
    /// whoever follows what comes.
    pub const NEWS: &str = "note-";

    /// A note of custody's own.
    pub fn is_news(&self) -> bool {
        self.key.starts_with(Self::NEWS)
    }
}

/// Everything that is known of a piece of cargo without reading its body.
///
/// Text fields of an image come from a peer. They are bounded ([`TEXT_LENGTH_MAX`]) and free of
/// control characters when they enter an envelope, and never become part of a path.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Envelope {
    /// What it is.
    #[n(0)]
    pub kind: CargoKind,
    /// Which piece it is.
    #[n(1)]
    pub identity: Identity,
    /// Length of the body in bytes.
    #[n(2)]
    pub length: u64,
    /// How soon it must arrive.
    #[n(3)]
    pub urgency: Urgency,
    /// When its origin took it into custody, by the origin's wall clock.
    #[n(4)]
    pub received_at: Timestamp,
    /// The AE title that sent it to its origin.
    #[n(5)]
    pub calling_ae: String,
    /// The AE title that it was sent to at its origin.
    #[n(6)]
    pub called_ae: String,
    /// SOP Class UID of an image, else empty.
    #[n(7)]
    pub sop_class: String,
    /// Transfer syntax UID in which the body stands, else empty.
    #[n(8)]
    pub transfer_syntax: String,
    /// Study Instance UID (0020,000D); empty when the image names none.
    #[n(9)]
    pub study: String,
    /// Series Instance UID (0020,000E).
    #[n(10)]
    pub series: String,
    /// Modality (0008,0060).
    #[n(11)]
    pub modality: String,
    /// Accession Number (0008,0050).
    #[n(12)]
    pub accession: String,
    /// Patient ID (0010,0020). Never logged, never in metrics.
    #[n(13)]
    pub patient_id: String,
    /// What was odd about the header, in words without patient data; empty when nothing was.
    #[n(14)]
    pub flags: Vec<String>,
}

/// That a piece of cargo is to go to a destination, and how soon: what routing decides and
/// custody turns into a duty.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Assignment {
    /// Where to.
    #[n(0)]
    pub destination: DestinationName,
    /// How soon.
    #[n(1)]
    pub urgency: Urgency,
    /// Why it must wait for a rule or a person first; absent: it may go at once.
    #[n(2)]
    pub hold: Option<String>,
}

/// Longest text that an envelope takes from a peer, in bytes (a UID has 64 characters, LO 64).
pub const TEXT_LENGTH_MAX: usize = 256;

impl Envelope {
    /// Of cargo that a node has made itself: nothing that a peer has sent, routine.
    pub fn of_ours(kind: CargoKind, identity: Identity, length: u64, now: Timestamp) -> Self {
        Self {
            kind,
            identity,
            length,
            urgency: Urgency::Routine,
            received_at: now,
            calling_ae: String::new(),
            called_ae: String::new(),
            sop_class: String::new(),
            transfer_syntax: String::new(),
            study: String::new(),
            series: String::new(),
            modality: String::new(),
            accession: String::new(),
            patient_id: String::new(),
            flags: Vec::new(),
        }
    }

    /// What studies are keyed by: two hospitals never merge.
    pub fn study_key(&self) -> StudyKey {
        StudyKey::of(&self.identity.origin, &self.study)
    }
}

/// A study of one origin, as a number: the first eight bytes of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct StudyKey(#[n(0)] pub u64);

impl StudyKey {
    /// Of the study `uid` that came from `origin`.
    pub fn of(origin: &NodeName, uid: &str) -> Self {
        let mut h = Hasher::new();
        h.update(origin.as_str().as_bytes());
        h.update(&[0]);
        h.update(uid.as_bytes());
        Self(h.finish().short())
    }
}

/// Makes peer text fit for an envelope: bounded, no control characters, no surrounding blanks.
pub fn peer_text(s: &str) -> String {
    let mut out = String::new();
    for c in s.trim_matches([' ', '\0']).chars() {
        if out.len() + c.len_utf8() > TEXT_LENGTH_MAX {
            break;
        }
        out.push(if c.is_control() { '\u{fffd}' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_not_stand_in_a_certificate_are_refused() {
        for good in ["a", "st-elsewhere", "reading.example.jp", "node1"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a b", "a/b", "..", "ä", "a\n"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        assert_eq!("x".repeat(64).parse::<NodeName>(), Err(NameError::Length));
    }

    #[test]
    fn two_hospitals_with_the_same_study_uid_have_different_studies() {
        let a: NodeName = "a".parse().unwrap();
        let b: NodeName = "b".parse().unwrap();
        assert_ne!(StudyKey::of(&a, "1.2.3"), StudyKey::of(&b, "1.2.3"));
    }

    #[test]
    fn peer_text_is_bounded_and_has_no_control_characters() {
        assert_eq!(peer_text(" CT1\0"), "CT1");
        assert_eq!(peer_text("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
        assert!(peer_text(&"像".repeat(1000)).len() <= TEXT_LENGTH_MAX);
    }
}
