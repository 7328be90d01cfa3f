//! What is kept of the requests that are passed on, in the book of orders. Pure.
//!
//! | key | entry | written by |
//! |---|---|---|
//! | `xh` number | [`Request`]; term `pass` | the registrar, in the same change as the step itself |
//! | `xb` number, part | a part of its data set | the registrar, before its `xh` |
//! | `xp` receiver, step | [`Progress`]; term `passing` | the passer |
//!
//! A request counts from its `xh` on. Its number is higher than that of every request before it, so
//! that the requests of one step stand in the order in which its modality made them.

use minicbor::{Decode, Encode};

use crate::cargo::Hasher;
use crate::clock::Timestamp;
use crate::custody::register::{Change, Entry};

/// Bytes of one part of a data set: some fit into one change with all else that a step enters.
pub(in crate::orders) const PART_BYTES: usize = 96 << 10;
/// Finds the requests.
pub(super) const PASS: &[u8] = b"pass";
/// Finds how far they have come.
pub(super) const PASSING: &[u8] = b"passing";

/// A request of a modality, without its data set.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(in crate::orders) struct Request {
    /// Which one.
    #[n(0)]
    pub(in crate::orders) number: u64,
    /// SOP Instance UID of the step.
    #[n(1)]
    pub(in crate::orders) instance: String,
    /// N-CREATE; else N-SET.
    #[n(2)]
    pub(in crate::orders) begins: bool,
    /// The step changes no more after it.
    #[n(3)]
    pub(in crate::orders) ends: bool,
    /// Specific Character Set in which the modality wrote it; empty: the default repertoire.
    #[n(4)]
    pub(in crate::orders) charset: String,
    /// Parts of its data set, which is kept as Explicit VR Little Endian, in UTF-8.
    #[n(5)]
    pub(in crate::orders) parts: u32,
    /// The receivers that it is for, by name: decided once.
    #[n(6)]
    pub(in crate::orders) to: Vec<String>,
    /// When the modality made it.
    #[n(7)]
    pub(in crate::orders) at: Timestamp,
}

/// How far the requests of one step have come at one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Progress {
    #[n(0)]
    pub(super) receiver: String,
    /// SOP Instance UID of the step.
    #[n(1)]
    pub(super) instance: String,
    /// Number of the last request that it has; 0: none.
    #[n(2)]
    pub(super) accepted: u64,
    /// The receiver had lost the step, and was sent all of it again.
    #[n(3)]
    pub(super) again: bool,
    /// Since when it refuses the next one.
    #[n(4)]
    pub(super) refused_since: Option<Timestamp>,
    /// Why, in words of ours.
    #[n(5)]
    pub(super) reason: String,
    /// When the step was given up there.
    #[n(6)]
    pub(super) given_up: Option<Timestamp>,
}

impl Progress {
    pub(super) fn new(receiver: &str, instance: &str) -> Self {
        Self {
            receiver: receiver.to_owned(),
            instance: instance.to_owned(),
            accepted: 0,
            again: false,
            refused_since: None,
            reason: String::new(),
            given_up: None,
        }
    }

    pub(super) fn entry(&self) -> Entry {
        entry(progress_key(&self.receiver, &self.instance), self, PASSING)
    }
}

pub(super) fn request_key(number: u64) -> Vec<u8> {
    [b"xh", &number.to_be_bytes()[..]].concat()
}

/// What the keys of all parts of all requests begin with.
pub(super) const PARTS: &[u8] = b"xb";

pub(super) fn part_key(number: u64, part: u32) -> Vec<u8> {
    [PARTS, &number.to_be_bytes()[..], &part.to_be_bytes()].concat()
}

pub(super) fn progress_key(receiver: &str, instance: &str) -> Vec<u8> {
    let mut hasher = Hasher::new();
    for part in [receiver, instance] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    [b"xp", &hasher.finish().0[..16]].concat()
}

fn entry(key: Vec<u8>, body: &impl Encode<()>, term: &[u8]) -> Entry {
    let body = minicbor::to_vec(body).expect("encoding into memory cannot fail");
    Entry { key, body, terms: vec![term.to_vec().into()] }
}

/// The entry of a request; its parts must be durable, or become so in the same change.
pub(in crate::orders) fn request_entry(request: &Request) -> Entry {
    entry(request_key(request.number), request, PASS)
}

/// The entries of a data set's parts.
pub(in crate::orders) fn part_entries(number: u64, set: &[u8]) -> Vec<Entry> {
    let part = |(part, bytes): (u32, &[u8])| Entry {
        key: part_key(number, part),
        body: bytes.to_vec(),
        terms: Vec::new(),
    };
    (0..).zip(set.chunks(PART_BYTES)).map(part).collect()
}

/// Ends a request.
pub(super) fn removal(request: &Request) -> impl Iterator<Item = Change> {
    let number = request.number;
    let parts = (0..request.parts).map(move |part| part_key(number, part));
    let keys = std::iter::once(request_key(number)).chain(parts);
    keys.map(|key| Change::Remove { key })
}
