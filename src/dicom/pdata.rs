//! Upper-layer framing (PS3.8 9.3): a decoder that turns a byte stream into PDU events, and the
//! writer's side of P-DATA.
//!
//! P-DATA-TF values are given out as they arrive, never gathered: memory does not depend on what
//! lengths the peer names. Every other PDU is gathered whole, within a limit that is checked
//! before the first byte of it is waited for, and decoded by `dicom-ul`.

use bytes::{Buf, Bytes, BytesMut};
use dicom_ul::pdu::{MAXIMUM_PDU_SIZE, Pdu, read_pdu, write_pdu};

/// PDU header: type, reserved, length (PS3.8 9.3.1).
pub const PDU_HEADER_LENGTH: usize = 6;

/// PDV header: item length, context ID, message control header (PS3.8 9.3.5.1, E.2).
pub const PDV_HEADER_LENGTH: usize = 6;

/// Longest A-ASSOCIATE-RQ or -AC that is read, in bytes: 128 contexts of 40 transfer syntaxes of
/// 64 characters are 350 kB.
pub const ASSOCIATE_LENGTH_MAX: u32 = 1024 * 1024;

/// Longest A-ASSOCIATE-RJ, A-RELEASE or A-ABORT that is read, in bytes; the standard says 4.
pub const SHORT_PDU_LENGTH_MAX: u32 = 1024;

/// Longest P-DATA-TF that is read, in bytes. Far above what we announce, because devices exceed
/// that and streaming makes it harmless; a PDU beyond this is a lie.
pub const PDATA_LENGTH_MAX: u32 = 16 * 1024 * 1024;

/// Longest P-DATA-TF that is written, in bytes, whatever the peer allows.
pub const PDATA_WRITE_LENGTH_MAX: u32 = 256 * 1024;

/// P-DATA-TF length assumed for a peer that names no maximum although it must (PS3.8 D.1).
const PDATA_LENGTH_UNNAMED: u32 = 16 * 1024;

/// What the decoder finds in the byte stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A piece of a message.
    Fragment(Fragment),
    /// Any PDU but P-DATA-TF.
    Pdu(Pdu),
}

/// A piece of a command set or data set, as much of it as has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Presentation context ID.
    pub context: u8,
    /// True for a command set, false for a data set (message control header, bit 0).
    pub command: bool,
    /// Whether the command set or data set ends with these bytes (bit 1 of the PDV's header, and
    /// the PDV is complete).
    pub last: bool,
    /// The bytes; empty only when `last`.
    pub data: Bytes,
}

/// Why a byte stream is not the upper-layer protocol. All of them call for A-ABORT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A PDU type that does not exist (PS3.8 AA-8, unrecognized-PDU).
    #[error("unknown PDU type {0:02X}H{hint}", hint = tls_hint(*.0))]
    UnknownPdu(u8),
    /// A PDU longer than its type may be here.
    #[error("PDU type {pdu:02X}H names a length of {length} bytes, more than {max}")]
    PduTooLong {
        /// PDU type.
        pdu: u8,
        /// Length that it names.
        length: u32,
        /// Longest that is read.
        max: u32,
    },
    /// A P-DATA-TF without a presentation data value.
    #[error("P-DATA-TF without a value")]
    EmptyPData,
    /// A presentation data value shorter than its own header, or reaching beyond its PDU.
    #[error("presentation data value of {length} bytes where {left} bytes of the PDU are left")]
    PdvLength {
        /// Item length that the PDV names.
        length: u32,
        /// Bytes of the PDU from the item length field on.
        left: u32,
    },
    /// `dicom-ul` could not read a PDU.
    #[error("malformed PDU type {pdu:02X}H: {reason}")]
    Malformed {
        /// PDU type.
        pdu: u8,
        /// What was wrong with it.
        reason: String,
    },
}

/// A TLS record of type handshake (RFC 8446 5.1) is a common mistake of set-up.
fn tls_hint(pdu: u8) -> &'static str {
    if pdu == 0x16 { " (TLS on a port without it?)" } else { "" }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a PDU header.
    Header,
    /// Within a P-DATA-TF of which `left` bytes follow, before a PDV header.
    Pdv { left: u32 },
    /// Within a PDV of which `value` bytes follow, in a PDU of which `left` bytes follow after it.
    Value { context: u8, control: u8, value: u32, left: u32 },
    /// Gathering a whole PDU of this many bytes, header included.
    Whole { length: usize },
}

/// Turns bytes into events. Feed it a buffer; it takes what it can use.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the start of a byte stream.
    pub fn new() -> Self {
        Self { state: State::Header }
    }

    /// The next event in `buffer`, or `None` when more bytes are needed. After an error the
    /// stream has no meaning any more and the decoder must not be used again.
    pub fn poll(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, FramingError> {
        loop {
            match self.state {
                State::Header => {
                    let Some(header) = buffer.first_chunk::<PDU_HEADER_LENGTH>() else {
                        return Ok(None);
                    };
                    self.state = begin_pdu(*header)?;
                    if matches!(self.state, State::Pdv { .. }) {
                        buffer.advance(PDU_HEADER_LENGTH);
                    }
                }
                State::Whole { length } => {
                    if buffer.len() < length {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    return whole_pdu(buffer.split_to(length).freeze()).map(Some);
                }
                State::Pdv { left: 0 } => self.state = State::Header,
                State::Pdv { left } => {
                    if left < PDV_HEADER_LENGTH as u32 {
                        return Err(FramingError::PdvLength { length: 0, left });
                    }
                    let Some(header) = buffer.first_chunk::<PDV_HEADER_LENGTH>() else {
                        return Ok(None);
                    };
                    self.state = begin_value(*header, left)?;
                    buffer.advance(PDV_HEADER_LENGTH);
                    // An empty last value ends its message; an empty other value is legal (E.2)
                    // and says nothing.
                    if let State::Value { context, control, value: 0, left } = self.state {
                        self.state = State::Pdv { left };
                        if control & 2 != 0 {
                            return Ok(Some(fragment(context, control, true, Bytes::new())));
                        }
                    }
                }
                State::Value { context, control, value, left } => {
                    if buffer.is_empty() {
                        return Ok(None);
                    }
                    let taken = buffer.len().min(value as usize);
                    let value = value - taken as u32;
                    self.state = match value {
                        0 => State::Pdv { left },
                        value => State::Value { context, control, value, left },
                    };
                    let last = value == 0 && control & 2 != 0;
                    let data = buffer.split_to(taken).freeze();
                    return Ok(Some(fragment(context, control, last, data)));
                }
            }
        }
    }
}

fn fragment(context: u8, control: u8, last: bool, data: Bytes) -> Event {
    Event::Fragment(Fragment { context, command: control & 1 != 0, last, data })
}

fn begin_pdu(header: [u8; PDU_HEADER_LENGTH]) -> Result<State, FramingError> {
    let [pdu, _, a, b, c, d] = header;
    let length = u32::from_be_bytes([a, b, c, d]);
    let max = match pdu {
        0x01 | 0x02 => ASSOCIATE_LENGTH_MAX,
        0x03 | 0x05..=0x07 => SHORT_PDU_LENGTH_MAX,
        0x04 => PDATA_LENGTH_MAX,
        other => return Err(FramingError::UnknownPdu(other)),
    };
    if length > max {
        return Err(FramingError::PduTooLong { pdu, length, max });
    }
    match (pdu, length) {
        (0x04, 0) => Err(FramingError::EmptyPData),
        (0x04, left) => Ok(State::Pdv { left }),
        (_, length) => Ok(State::Whole { length: PDU_HEADER_LENGTH + length as usize }),
    }
}

fn begin_value(header: [u8; PDV_HEADER_LENGTH], left: u32) -> Result<State, FramingError> {
    let [a, b, c, d, context, control] = header;
    let length = u32::from_be_bytes([a, b, c, d]);
    // The item length counts the context ID and the control header (two bytes), not itself.
    if length < 2 || length > left - 4 {
        return Err(FramingError::PdvLength { length, left });
    }
    Ok(State::Value { context, control, value: length - 2, left: left - 4 - length })
}

fn whole_pdu(bytes: Bytes) -> Result<Event, FramingError> {
    let pdu = bytes.first().copied().unwrap_or_default();
    let malformed = |reason: String| FramingError::Malformed { pdu, reason };
    match read_pdu(bytes, MAXIMUM_PDU_SIZE, true) {
        Ok(Some(pdu)) => Ok(Event::Pdu(pdu)),
        Ok(None) => Err(malformed("an item reaches beyond the PDU".into())),
        Err(e) => Err(malformed(e.to_string())),
    }
}

/// The longest P-DATA-TF to write to a peer that named `named` as its Maximum Length (PS3.8 D.1;
/// 0 means no limit), at most [`PDATA_WRITE_LENGTH_MAX`].
pub fn write_length(named: Option<u32>) -> u32 {
    // Below one header and two bytes nothing can be said at all.
    const MIN: u32 = PDV_HEADER_LENGTH as u32 + 2;
    match named {
        None => PDATA_LENGTH_UNNAMED,
        Some(0) => PDATA_WRITE_LENGTH_MAX,
        Some(length) => length.clamp(MIN, PDATA_WRITE_LENGTH_MAX),
    }
}

/// How many bytes of a message fit into one P-DATA-TF of `pdata_length` bytes. Even, so that
/// every fragment but the last is.
pub fn value_length(pdata_length: u32) -> usize {
    (pdata_length.saturating_sub(PDV_HEADER_LENGTH as u32) as usize & !1).max(2)
}

/// Appends the PDU and PDV headers of one P-DATA-TF that holds one value of `length` bytes,
/// which the caller writes after them. `length` is at most [`value_length`] of the peer's limit.
pub fn put_header(out: &mut Vec<u8>, context: u8, command: bool, last: bool, length: usize) {
    let length = u32::try_from(length).expect("a value fits into a P-DATA-TF");
    out.extend_from_slice(&[0x04, 0]);
    out.extend_from_slice(&(length + PDV_HEADER_LENGTH as u32).to_be_bytes());
    out.extend_from_slice(&(length + 2).to_be_bytes());
    out.extend_from_slice(&[context, u8::from(command) | u8::from(last) << 1]);
}

/// Appends a whole command set as P-DATA-TF PDUs of at most `pdata_length` bytes.
pub fn put_command(out: &mut Vec<u8>, context: u8, command: &[u8], pdata_length: u32) {
    put_message(out, context, true, command, true, pdata_length);
}

/// Appends a piece of a data set as P-DATA-TF PDUs of at most `pdata_length` bytes; with `last`
/// the data set ends here, even when `data` is empty. Pieces but the last should be multiples of
/// [`value_length`], so that no short PDU is written in between.
pub fn put_data(out: &mut Vec<u8>, context: u8, data: &[u8], last: bool, pdata_length: u32) {
    put_message(out, context, false, data, last, pdata_length);
}

fn put_message(
    out: &mut Vec<u8>,
    context: u8,
    command: bool,
    bytes: &[u8],
    last: bool,
    pdata_length: u32,
) {
    let room = value_length(pdata_length);
    if bytes.is_empty() && last {
        put_header(out, context, command, true, 0);
    }
    let pieces = bytes.len().div_ceil(room);
    out.reserve(bytes.len() + pieces * (PDU_HEADER_LENGTH + PDV_HEADER_LENGTH));
    for (n, piece) in bytes.chunks(room).enumerate() {
        put_header(out, context, command, last && n + 1 == pieces, piece.len());
        out.extend_from_slice(piece);
    }
}

/// Appends any other PDU.
///
/// # Panics
///
/// When a PDU of ours cannot be written: its texts are bounded, so that is a bug.
pub fn put_pdu(out: &mut Vec<u8>, pdu: &Pdu) {
    write_pdu(out, pdu).expect("a PDU of ours can be written to memory");
}

#[cfg(test)]
mod tests {
    use dicom_ul::pdu::AbortRQSource;
    use proptest::prelude::*;

    use super::*;

    /// All events of `bytes`, fed in pieces of the sizes that `cuts` gives in turn, values of one
    /// message part joined until it ends.
    fn events(bytes: &[u8], cuts: &[usize]) -> (Vec<Event>, Option<FramingError>) {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::new();
        let mut out: Vec<Event> = vec![];
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        loop {
            match decoder.poll(&mut buffer) {
                Err(e) => return (out, Some(e)),
                Ok(Some(Event::Fragment(f))) => join(&mut out, f),
                Ok(Some(pdu)) => out.push(pdu),
                Ok(None) if rest.is_empty() => return (out, None),
                Ok(None) => {
                    let n = (*cuts.next().unwrap_or(&usize::MAX)).clamp(1, rest.len());
                    buffer.extend_from_slice(&rest[..n]);
                    rest = &rest[n..];
                }
            }
        }
    }

    fn join(out: &mut Vec<Event>, f: Fragment) {
        if let Some(Event::Fragment(before)) = out.last_mut()
            && !before.last
            && (before.context, before.command) == (f.context, f.command)
        {
            before.data = [&before.data[..], &f.data[..]].concat().into();
            before.last = f.last;
        } else {
            out.push(Event::Fragment(f));
        }
    }

    fn data(context: u8, command: bool, bytes: &[u8]) -> Event {
        Event::Fragment(Fragment {
            context,
            command,
            last: true,
            data: Bytes::copy_from_slice(bytes),
        })
    }

    #[test]
    fn an_empty_fragment_in_the_middle_does_not_end_a_data_set() {
        let mut bytes = vec![];
        put_header(&mut bytes, 1, false, false, 4);
        bytes.extend_from_slice(b"AAAA");
        put_header(&mut bytes, 1, false, false, 0);
        put_header(&mut bytes, 1, false, true, 4);
        bytes.extend_from_slice(b"BBBB");
        assert_eq!(events(&bytes, &[3]), (vec![data(1, false, b"AAAABBBB")], None));
    }

    #[test]
    fn several_values_in_one_pdu_are_several_events() {
        let mut bytes = vec![4, 0, 0, 0, 0, 15, 0, 0, 0, 3, 5, 3, b'x', 0, 0, 0, 4, 5, 2];
        bytes.extend_from_slice(b"yz");
        assert_eq!(events(&bytes, &[]), (vec![data(5, true, b"x"), data(5, false, b"yz")], None));
    }

    #[test]
    fn lengths_that_lie_are_errors_before_anything_is_waited_for() {
        let pdu = |bytes: &[u8]| events(bytes, &[]).1;
        assert_eq!(
            pdu(&[4, 0, 0xff, 0xff, 0xff, 0xff]),
            Some(FramingError::PduTooLong { pdu: 4, length: u32::MAX, max: PDATA_LENGTH_MAX })
        );
        assert_eq!(pdu(&[4, 0, 0, 0, 0, 0]), Some(FramingError::EmptyPData));
        assert_eq!(pdu(&[9, 0, 0, 0, 0, 0]), Some(FramingError::UnknownPdu(9)));
        for length in [0u8, 1, 5, 255] {
            assert_eq!(
                pdu(&[4, 0, 0, 0, 0, 8, 0, 0, 0, length, 1, 2, 0, 0]),
                Some(FramingError::PdvLength { length: length.into(), left: 8 })
            );
        }
        assert_eq!(pdu(&[4, 0, 0, 0, 0, 5]), Some(FramingError::PdvLength { length: 0, left: 5 }));
        assert!(matches!(pdu(&[5, 0, 0, 0, 0, 0]), Some(FramingError::Malformed { .. })));
        assert!(matches!(pdu(&[7, 0, 0, 0, 4, 1]), Some(FramingError::PduTooLong { pdu: 7, .. })));
    }

    #[test]
    fn a_peers_maximum_of_any_value_leads_to_pdus_that_can_be_written() {
        assert_eq!(write_length(None), 16 * 1024);
        assert_eq!(write_length(Some(0)), PDATA_WRITE_LENGTH_MAX);
        assert_eq!(write_length(Some(u32::MAX)), PDATA_WRITE_LENGTH_MAX);
        assert_eq!(write_length(Some(1)), 8);
        assert_eq!(value_length(8), 2);
        assert_eq!(value_length(16 * 1024 + 1), 16 * 1024 - 6);
    }

    proptest! {
        #[test]
        fn what_is_fragmented_is_read_back_however_the_stream_is_cut(
            command in proptest::collection::vec(any::<u8>(), 0..300),
            body in proptest::collection::vec(any::<u8>(), 0..3000),
            named in 0u32..600,
            cuts in proptest::collection::vec(1usize..700, 1..8),
        ) {
            let max = write_length(Some(named));
            let mut bytes = vec![];
            put_command(&mut bytes, 3, &command, max);
            let middle = body.len() / 2;
            put_data(&mut bytes, 3, &body[..middle], false, max);
            put_data(&mut bytes, 3, &body[middle..], true, max);
            put_pdu(&mut bytes, &Pdu::ReleaseRQ);
            let expected = vec![
                data(3, true, &command),
                data(3, false, &body),
                Event::Pdu(Pdu::ReleaseRQ),
            ];
            prop_assert_eq!(events(&bytes, &cuts), (expected, None));
        }

        #[test]
        fn no_bytes_panic_and_cutting_them_changes_nothing(
            kind in 1u8..9,
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cuts in proptest::collection::vec(1usize..9, 1..8),
        ) {
            let length = (bytes.len() as u32).to_be_bytes();
            let stream = [&[kind, 0], &length[..], &bytes[..], &[7, 0, 0, 0, 0, 4, 0, 0, 0, 0]];
            let stream = stream.concat();
            let whole = events(&stream, &[]);
            let cut = events(&stream, &cuts);
            prop_assert_eq!(cut.1, whole.1.clone());
            prop_assert_eq!(cut.0, whole.0.clone());
            if whole.1.is_none() && kind != 4 {
                let abort = Pdu::AbortRQ { source: AbortRQSource::ServiceUser };
                prop_assert_eq!(whole.0.last(), Some(&Event::Pdu(abort)));
            }
        }
    }
}
