//! What the spool says, as CBOR: the head of a cargo record and the facts.
//!
//! Maps with integer keys (RFC 8949); unknown keys are skipped, unknown facts are kept and
//! ignored. A key number, once used, is never given another meaning.

use minicbor::{Decode, Encode};

use super::register::{Book, Change};
use super::state::DutyState;
use crate::cargo::{
    Assignment, DestinationName, Envelope, Identity, NodeName, Sha256, StudyKey, Urgency,
};
use crate::clock::Timestamp;

/// The head of a cargo record: the envelope and what was decided at acceptance, so that one record
/// and one sync make a piece of cargo and its duties durable together.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct CargoHead {
    /// The envelope.
    #[n(0)]
    pub envelope: Envelope,
    /// When this node took it into custody.
    #[n(1)]
    pub kept_at: Timestamp,
    /// Where it goes; empty: unrouted.
    #[n(2)]
    pub assignments: Vec<Assignment>,
    /// Present when the key was in custody with other bytes: in words, what differs.
    #[n(3)]
    pub conflict: Option<String>,
    /// True when it was accepted while the ledger was being rebuilt, so that whether the same
    /// identity is in custody already is decided when the record is applied.
    #[n(4)]
    pub unchecked: bool,
    /// Present when it was corrected by its order: the digest of the bytes as received.
    #[n(5)]
    pub received: Option<Sha256>,
}

/// Number of [`Fact::Entered`], and of its changes.
const ENTERED: u32 = 8;
const CHANGES: u32 = 1;

/// A durable statement.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Fact {
    /// A duty's state from now on; a duty that is not known yet begins with it.
    #[n(0)]
    #[cbor(map)]
    Duty {
        /// Whose.
        #[n(0)]
        cargo: u64,
        /// To whom.
        #[n(1)]
        destination: DestinationName,
        /// How soon.
        #[n(2)]
        urgency: Urgency,
        /// In which state.
        #[n(3)]
        state: DutyState,
        /// The receipt, when the state rests on one.
        #[n(4)]
        receipt: Option<StoredReceipt>,
    },
    /// The bytes are given back; this is the tombstone.
    #[n(1)]
    #[cbor(map)]
    Reclaimed {
        /// Whose.
        #[n(0)]
        cargo: u64,
        /// Which piece it was.
        #[n(1)]
        identity: Identity,
        /// Its study.
        #[n(2)]
        study: StudyKey,
        /// How each duty ended, with its receipt.
        #[n(3)]
        ends: Vec<End>,
        /// When it was taken into custody.
        #[n(4)]
        kept_at: Timestamp,
        /// When the bytes were given back.
        #[n(5)]
        at: Timestamp,
        /// As in the head of its record.
        #[n(6)]
        received: Option<Sha256>,
    },
    /// The tombstone's time is over.
    #[n(2)]
    #[cbor(map)]
    Forgotten {
        /// Whose.
        #[n(0)]
        cargo: u64,
    },
    /// A certificate chain that signed receipts; receipts name its leaf by digest.
    #[n(3)]
    #[cbor(map)]
    Chain {
        /// SHA-256 of the leaf.
        #[cbor(n(0), with = "minicbor::bytes")]
        leaf: [u8; 32],
        /// DER, leaf first.
        #[n(1)]
        certificates: Vec<minicbor::bytes::ByteVec>,
    },
    /// The same identity was accepted twice; this record's bytes are not needed.
    #[n(4)]
    #[cbor(map)]
    Duplicate {
        /// The later record.
        #[n(0)]
        cargo: u64,
        /// The one that stays.
        #[n(1)]
        of: u64,
    },
    /// What became of cargo beyond the next node, told by a note.
    #[n(5)]
    #[cbor(map)]
    Beyond {
        /// Whose.
        #[n(0)]
        cargo: u64,
        /// Which node tells.
        #[n(1)]
        node: NodeName,
        /// That node's destination.
        #[n(2)]
        destination: DestinationName,
        /// In which state the duty is there.
        #[n(3)]
        state: DutyState,
    },
    /// News about these duties stand in a note that is in custody.
    #[n(6)]
    #[cbor(map)]
    Noted {
        /// The duties, by cargo and destination.
        #[n(0)]
        duties: Vec<(u64, DestinationName)>,
    },
    /// The wall clock, so that a leap is seen across a restart.
    #[n(7)]
    #[cbor(map)]
    Clock {
        /// What it said.
        #[n(0)]
        wall: Timestamp,
        /// A person has confirmed a leap.
        #[n(1)]
        confirmed_by: Option<String>,
        /// The leap that nobody has explained yet, in words: a restart does not explain it.
        #[n(2)]
        leap: Option<String>,
    },
    /// Changes to the register, made together.
    #[n(8)]
    #[cbor(map)]
    Entered {
        /// Where.
        #[n(0)]
        book: Book,
        /// What changes, in this order.
        #[n(1)]
        changes: Vec<Change>,
    },
}

/// How a duty ended, in a tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct End {
    /// To whom.
    #[n(0)]
    pub destination: DestinationName,
    /// How soon it was to be there.
    #[n(1)]
    pub urgency: Urgency,
    /// Receipted or dismissed.
    #[n(2)]
    pub state: DutyState,
    /// The receipt, when there is one.
    #[n(3)]
    pub receipt: Option<StoredReceipt>,
}

/// The destination's yes, as kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum StoredReceipt {
    /// A C-STORE status in the success or warning class.
    #[n(0)]
    #[cbor(map)]
    Dicom {
        /// (0000,0900).
        #[n(0)]
        status: u16,
    },
    /// A file, synced.
    #[n(1)]
    #[cbor(map)]
    File {
        /// Its name below the destination's folder.
        #[n(0)]
        name: String,
    },
    /// A node's signature.
    #[n(2)]
    #[cbor(map)]
    Node {
        /// The statement that was signed (docs/wire-protocol.md).
        #[cbor(n(0), with = "minicbor::bytes")]
        statement: Vec<u8>,
        /// The signature over it.
        #[cbor(n(1), with = "minicbor::bytes")]
        signature: Vec<u8>,
        /// SHA-256 of the signer's certificate; its chain is a fact of its own.
        #[cbor(n(2), with = "minicbor::bytes")]
        leaf: [u8; 32],
    },
    /// An HL7 acknowledgement.
    #[n(3)]
    #[cbor(map)]
    Hl7 {
        /// MSA-1.
        #[n(0)]
        code: String,
        /// MSA-2.
        #[n(1)]
        control_id: String,
    },
}

/// The CBOR of `value`.
pub(super) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding into memory cannot fail")
}

/// A cargo head, perhaps followed by zeros.
pub(super) fn decode_head(bytes: &[u8]) -> Option<CargoHead> {
    minicbor::decode(bytes).ok()
}

/// A fact; `None` when a later release wrote a kind that this one does not know.
pub(super) fn decode_fact(bytes: &[u8]) -> Option<Fact> {
    minicbor::decode(bytes).ok()
}

/// One change of a fact that enters changes, without reading the others; `None` when it is no such
/// fact, or has no such change.
pub(super) fn decode_change(bytes: &[u8], index: u32) -> Option<Change> {
    let mut decoder = minicbor::Decoder::new(bytes);
    // As `Fact` is written: its variant's number, then a map of its fields.
    if decoder.array().ok()? != Some(2) || decoder.u32().ok()? != ENTERED {
        return None;
    }
    for _ in 0..decoder.map().ok()?? {
        if decoder.u32().ok()? != CHANGES {
            decoder.skip().ok()?;
            continue;
        }
        if u64::from(index) >= decoder.array().ok()?? {
            return None;
        }
        for _ in 0..index {
            decoder.skip().ok()?;
        }
        return decoder.decode().ok();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::register::Entry;

    #[test]
    fn one_change_is_read_as_it_is_read_with_all_others() {
        let put = |n: u8| {
            let terms = vec![vec![n; 3].into()];
            Change::Put(Entry { key: vec![n], body: vec![n; 300], terms })
        };
        let changes = vec![put(1), Change::Remove { key: vec![2] }, put(3)];
        let fact = Fact::Entered { book: Book::Orders, changes: changes.clone() };
        let bytes = minicbor::to_vec(&fact).unwrap();
        for (n, change) in (0..).zip(changes) {
            assert_eq!(decode_change(&bytes, n), Some(change));
        }
        assert_eq!(decode_change(&bytes, 3), None);
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!((decode_change(cut, 0), decode_change(cut, 2)), (Some(put(1)), None));
        assert_eq!(decode_change(&[0x82, 0x08], 0), None);
    }
}
