//! HL7 version 2 as this node needs it: framing, character sets, messages, acknowledgements, and
//! what a message says about imaging orders, reports and patients. Pure: bytes in, values out; no sockets,
//! no files, no clock.
//!
//! A message passes through the modules in this order:
//!
//! ```text
//! bytes of a connection -> mllp -> charset (Unicode) -> message (split) -> header (answerable?)
//!     -> order, report, patient (what it says) -> ack (what the sender is told)
//! ```
//!
//! [`inbound`] goes all of that way.
//!
//! Decoding comes before splitting: the bytes of a kanji in ISO-2022-JP and Shift_JIS contain
//! `|`, `\`, `~`, `^`, `&`.
//!
//! Everything here reads bytes of strangers. No function panics on any input, recurses, or
//! allocates more than a small multiple of the bytes that are really there; the limits are
//! constants of the modules. Section numbers are of HL7 2.5 unless another version is named.
//!
//! The parser is ours, since an order must go on as it came: it keeps each field's text as
//! written, so that what nobody understood is written back unchanged.

pub mod mllp;

pub mod charset;

pub mod message;

pub mod path;

pub mod datatype;

pub mod time;

pub mod header;

pub mod patient;

pub mod order;

pub mod report;

pub mod ack;

pub mod answer;

pub mod inbound;

mod escape;

mod jis;
