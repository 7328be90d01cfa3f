//! The Minimal Lower Layer Protocol (HL7 2.5 C.4.3): `0x0B` message `0x1C 0x0D`.
//!
//! The deframer takes bytes as they come and gives whole messages back; how a peer cuts its bytes
//! does not matter. It holds at most one message of the stated limit plus what was pushed last.
//!
//! Lenient where it is safe: CR and LF between frames are skipped (senders end their files with
//! them), and a `0x1C` that no `0x0D` follows is content. Anything else between frames means that
//! both sides have lost each other. Time limits are the driver's.

use bytes::{Buf, Bytes, BytesMut};

/// Begins a frame: `<SB>`.
pub const START_BLOCK: u8 = 0x0B;

/// Ends a frame together with [`CARRIAGE_RETURN`]: `<EB>`.
pub const END_BLOCK: u8 = 0x1C;

/// Ends a frame after [`END_BLOCK`], and a segment: `<CR>`.
pub const CARRIAGE_RETURN: u8 = 0x0D;

/// Why the bytes are no frames. Either ends the connection: nobody can say where the next frame
/// begins, and there is no message to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The content is longer than the limit, or will be.
    #[error("message longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A byte between frames that belongs to none.
    #[error("byte {0:#04x} outside a frame; HL7 over MLLP begins with 0x0b")]
    OutsideFrame(u8),
}

/// Takes frames apart.
#[derive(Debug)]
pub struct Deframer {
    limit: usize,
    buffer: BytesMut,
    /// Bytes of `buffer` that were looked at and do not end the frame.
    seen: usize,
    inside: bool,
    failed: Option<FrameError>,
}

impl Deframer {
    /// A deframer that takes messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, buffer: BytesMut::new(), seen: 0, inside: false, failed: None }
    }

    /// Takes bytes from the peer. Call [`next_message`](Self::next_message) until it has no more
    /// before pushing again: what is pushed is held.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Whether a message has begun and not ended: a connection that ends now cuts it off.
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// The next whole message, without its frame. An error stays.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.take().inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        while !self.inside {
            match self.buffer.first() {
                None => return Ok(None),
                Some(&START_BLOCK) => self.inside = true,
                Some(b'\r' | b'\n') => {}
                Some(&byte) => return Err(FrameError::OutsideFrame(byte)),
            }
            self.buffer.advance(1);
        }
        let rest = &self.buffer[self.seen..];
        if let Some(end) = rest.windows(2).position(|w| w == [END_BLOCK, CARRIAGE_RETURN]) {
            let length = self.seen + end;
            if length > self.limit {
                return Err(FrameError::TooLong { limit: self.limit });
            }
            let message = self.buffer.split_to(length).freeze();
            self.buffer.advance(2);
            (self.seen, self.inside) = (0, false);
            return Ok(Some(message));
        }
        // The last byte may be the first half of the end.
        self.seen = self.buffer.len() - usize::from(self.buffer.last() == Some(&END_BLOCK));
        if self.seen > self.limit {
            return Err(FrameError::TooLong { limit: self.limit });
        }
        Ok(None)
    }
}

/// A message that cannot be sent: it contains the two bytes that end a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message that contains 0x1c 0x0d cannot be framed")]
pub struct NotFrameable;

/// `message` in its frame.
pub fn frame(message: &[u8]) -> Result<Bytes, NotFrameable> {
    let end = [END_BLOCK, CARRIAGE_RETURN];
    if message.windows(2).any(|w| w == end) {
        return Err(NotFrameable);
    }
    let mut framed = BytesMut::with_capacity(message.len() + 3);
    framed.extend_from_slice(&[START_BLOCK]);
    framed.extend_from_slice(message);
    framed.extend_from_slice(&end);
    Ok(framed.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All messages in these bytes, which come in pieces of `step`, and how it ended.
    fn deframe(bytes: &[u8], step: usize, limit: usize) -> (Vec<Bytes>, Option<FrameError>) {
        let (mut deframer, mut messages) = (Deframer::new(limit), Vec::new());
        for piece in bytes.chunks(step) {
            deframer.push(piece);
            loop {
                match deframer.next_message() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error)),
                }
            }
        }
        (messages, None)
    }

    #[test]
    fn stray_line_ends_between_frames_are_skipped_and_other_bytes_end_the_connection() {
        let bytes = b"\r\n\x0bMSH|1\x1c\r\r\n\n\x0bMSH|2\x1c\rX\x0bMSH|3\x1c\r";
        let (messages, error) = deframe(bytes, 1, 100);
        assert_eq!(messages, ["MSH|1", "MSH|2"]);
        assert_eq!(error, Some(FrameError::OutsideFrame(b'X')));
    }

    #[test]
    fn an_end_block_that_no_carriage_return_follows_is_content() {
        let (messages, error) = deframe(b"\x0ba\x1cb\x1c\x1c\x0b\x1c\r", 2, 100);
        assert_eq!((messages, error), (vec![Bytes::from_static(b"a\x1cb\x1c\x1c\x0b")], None));
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_before_it_ends_and_the_error_stays() {
        let mut deframer = Deframer::new(4);
        deframer.push(b"\x0b1234\x1c");
        assert_eq!(deframer.next_message(), Ok(None));
        assert!(deframer.is_inside());
        deframer.push(b"5");
        let error = FrameError::TooLong { limit: 4 };
        assert_eq!(deframer.next_message(), Err(error));
        deframer.push(b"\x1c\r\x0b1\x1c\r");
        assert_eq!(deframer.next_message(), Err(error));
        let (messages, error) = deframe(b"\x0b1234\x1c\r\x0b12345\x1c\r", 100, 4);
        assert_eq!((messages.len(), error), (1, Some(FrameError::TooLong { limit: 4 })));
    }

    #[test]
    fn a_message_that_contains_the_end_of_a_frame_is_not_framed() {
        assert_eq!(frame(b"a\x1c\rb"), Err(NotFrameable));
        assert_eq!(frame(b"ab").as_deref(), Ok(&b"\x0bab\x1c\r"[..]));
    }

    proptest! {
        #[test]
        fn deframing_does_not_depend_on_how_bytes_are_chunked(
            bytes in proptest::collection::vec(
                prop_oneof![Just(0x0B), Just(0x1C), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
            step in 1usize..50,
            limit in 0usize..100,
        ) {
            prop_assert_eq!(deframe(&bytes, step, limit), deframe(&bytes, 1, limit));
        }

        #[test]
        fn what_is_framed_comes_back(
            messages in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..60), 0..5),
            step in 1usize..20,
        ) {
            let framed: Vec<Bytes> = messages.iter().filter_map(|m| frame(m).ok()).collect();
            let sent: Vec<&[u8]> =
                messages.iter().filter(|m| frame(m).is_ok()).map(Vec::as_slice).collect();
            let (got, error) = deframe(&framed.concat(), step, 60);
            prop_assert_eq!((got.iter().map(|m| &m[..]).collect(), error), (sent, None));
        }
    }
}
