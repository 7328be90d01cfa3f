//! What nodes tell each other about a report or its study: to which study a report belongs, that a
//! study has arrived whole, that a report has reached people, and what people ask and answer.
//!
//! A note is the body of cargo of kind `Note` whose key begins with [`KEY`]: a CBOR map with
//! integer keys (docs/decisions/0003). It is durable, carried over the tunnel and receipted like all
//! cargo, and taking it in twice changes nothing. Custody's own notes, what became of cargo, have
//! other keys and are not read here.
//!
//! A node is believed about itself only: a reading node about reports that it has collected and
//! studies that were sent to it, a hospital about what it has handed on. Who takes a note in sees to
//! that.
//!
//! Limits: [`NOTE_BYTES_MAX`] bytes, [`WORDS_MAX`] bytes of what a person writes.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::critical::Reason;
use super::matching::{By, Target};
use crate::cargo::{DestinationName, NodeName, Sha256};
use crate::clock::Timestamp;

/// What the key of such cargo begins with.
pub const KEY: &str = "said-";
/// Longest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 256 << 10;
/// Longest text of a person, in bytes.
pub const WORDS_MAX: usize = 8 << 10;

/// A note.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Note {
    /// The hospital whose study it is about.
    #[n(0)]
    pub hospital: NodeName,
    /// Study Instance UID; empty where only the order is known.
    #[n(1)]
    pub study: String,
    /// When it was written, by its writer's clock.
    #[n(2)]
    pub at: Timestamp,
    /// What it says.
    #[n(3)]
    pub says: Says,
}

/// What a note says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Says {
    /// Reading node: a report that it sends, or has sent, belongs here.
    #[n(0)]
    Belongs(#[n(0)] Slip),
    /// Reading node: it holds the study whole.
    #[n(1)]
    #[cbor(map)]
    Received {
        /// How many images that are.
        #[n(0)]
        images: u64,
    },
    /// Either: a person asks or answers.
    #[n(2)]
    Words(#[n(0)] Words),
    /// Hospital: a version has reached one of its systems.
    #[n(3)]
    Handed(#[n(0)] Handed),
    /// Hospital: a person knows of a critical result, or has closed it.
    #[n(4)]
    #[cbor(map)]
    Known {
        /// Key of the report: [`Slip::report`].
        #[n(0)]
        report: String,
        /// Who; a name or role, no patient data.
        #[n(1)]
        by: String,
        /// What was done; empty: he or she knows.
        #[n(2)]
        done: String,
    },
    /// Either: a person or program has called a report critical after it was sent.
    #[n(5)]
    #[cbor(map)]
    Critical {
        /// Key of the report: [`Slip::report`].
        #[n(0)]
        report: String,
        /// Why.
        #[n(1)]
        reasons: Vec<Reason>,
    },
}

/// Where a document belongs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Slip {
    /// Digest of the cargo that holds the document.
    #[n(0)]
    pub cargo: Sha256,
    /// Which report it is a version or form of: the same for all of them, and no other.
    #[n(1)]
    pub report: String,
    /// Studies and orders, never empty, all of the hospital.
    #[n(2)]
    pub targets: Vec<Target>,
    /// How that is known.
    #[n(3)]
    pub by: By,
    /// When the reading node took the document into custody.
    #[n(4)]
    pub arrived_at: Timestamp,
}

/// What a person asks or answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Words {
    /// Its id, 32 hexadecimal digits.
    #[n(0)]
    pub id: String,
    /// Id of what it answers; empty: it asks.
    #[n(1)]
    pub answers: String,
    /// What is said.
    #[n(2)]
    pub text: String,
    /// Who says it.
    #[n(3)]
    pub by: String,
}

/// A version in one of the hospital's systems.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Handed {
    /// Key of the report: [`Slip::report`].
    #[n(0)]
    pub report: String,
    /// Digests of the documents of the version.
    #[n(1)]
    pub documents: Vec<Sha256>,
    /// Which system.
    #[n(2)]
    pub destination: DestinationName,
    /// Its yes, in words without patient data; empty when it said no for good.
    #[n(3)]
    pub yes: String,
    /// Why it said no; empty when it said yes.
    #[n(4)]
    pub no: String,
    /// Whether all systems of the hospital have said yes to the latest version, and people to a
    /// critical result.
    #[n(5)]
    pub all: bool,
}

impl Note {
    /// The bytes that are carried.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory does not fail")
    }

    /// Reads what was carried, within the limits; `None`: it is no note.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > NOTE_BYTES_MAX {
            return None;
        }
        minicbor::decode(bytes).ok()
    }

    /// The key of its cargo: the same note is the same piece.
    pub fn key(&self) -> String {
        format!("{KEY}{}", Sha256::of(&self.encode()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_garbage_is_none() {
        let note = Note {
            hospital: "st-elsewhere".parse().unwrap(),
            study: "1.2.3".into(),
            at: Timestamp(5),
            says: Says::Words(Words {
                id: "a".into(),
                answers: String::new(),
                text: "前回の検査を送ってください".into(),
                by: "reader".into(),
            }),
        };
        let bytes = note.encode();
        assert_eq!(Note::decode(&bytes), Some(note.clone()));
        assert_eq!(Note::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Note::decode(&vec![0; NOTE_BYTES_MAX + 1]), None);
        assert!(note.key().starts_with(KEY) && note.key().len() < 100);
    }
}
