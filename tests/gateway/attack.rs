//! A DICOM peer with bad intent: it writes bytes, not messages, and says what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for an answer; it ends earlier whenever one comes.
const ANSWER: Duration = Duration::from_secs(60);
const VERIFICATION: &str = "1.2.840.10008.1.1";
pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Accept,
    /// Result, source, reason.
    Reject(u8, u8, u8),
    /// Status of a response.
    Status(u16),
    /// A piece of a response without its status.
    Piece,
    Release,
    Abort,
    Closed,
    Silence,
}

/// A PDU with the length that it has.
pub(crate) fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    claiming(kind, u32::try_from(body.len()).expect("a short PDU"), body)
}

/// A PDU that claims another length.
pub(crate) fn claiming(kind: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[kind, 0], &length.to_be_bytes()[..], body].concat()
}

pub(crate) fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    lying_item(kind, u16::try_from(body.len()).expect("a short item"), body)
}

pub(crate) fn lying_item(kind: u8, length: u16, body: &[u8]) -> Vec<u8> {
    [&[kind, 0], &length.to_be_bytes()[..], body].concat()
}

/// A proposed presentation context.
pub(crate) fn context(id: u8, sop_class: &str, syntaxes: &[&str]) -> Vec<u8> {
    let mut body = vec![id, 0, 0, 0];
    body.extend(item(0x30, sop_class.as_bytes()));
    for syntax in syntaxes {
        body.extend(item(0x40, syntax.as_bytes()));
    }
    item(0x20, &body)
}

/// An A-ASSOCIATE-RQ before it is written.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) called: Vec<u8>,
    pub(crate) calling: Vec<u8>,
    /// Application context and presentation contexts.
    pub(crate) items: Vec<Vec<u8>>,
    /// Sub-items of the user information.
    pub(crate) user: Vec<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(contexts: &[Vec<u8>]) -> Self {
        let application = item(0x10, b"1.2.840.10008.3.1.1.1");
        Self {
            called: b"HIKYAKU".to_vec(),
            calling: b"ATTACKER".to_vec(),
            items: [&[application], contexts].concat(),
            user: vec![item(0x51, &16_384u32.to_be_bytes()), item(0x52, b"1.2.3.4")],
        }
    }

    pub(crate) fn echo() -> Self {
        Self::new(&[context(1, VERIFICATION, &[IMPLICIT])])
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let title = |text: &[u8]| {
            let mut text = text.to_vec();
            text.resize(16, b' ');
            text
        };
        let body = [
            vec![0, 1, 0, 0],
            title(&self.called),
            title(&self.calling),
            vec![0; 32],
            self.items.concat(),
            item(0x50, &self.user.concat()),
        ];
        pdu(1, &body.concat())
    }
}

/// A presentation data value; control 1 is a command set, 2 is the last.
pub(crate) fn pdv(context: u8, control: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() + 2).expect("a short value").to_be_bytes();
    [&length[..], &[context, control], bytes].concat()
}

pub(crate) fn data(context: u8, control: u8, bytes: &[u8]) -> Vec<u8> {
    pdu(4, &pdv(context, control, bytes))
}

/// An element in Implicit VR Little Endian.
pub(crate) fn element(group: u16, number: u16, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).expect("a short value");
    [&group.to_le_bytes()[..], &number.to_le_bytes(), &length.to_le_bytes(), value].concat()
}

fn even(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    text.resize(text.len().next_multiple_of(2), 0);
    text
}

pub(crate) fn uid(group: u16, number: u16, value: &[u8]) -> Vec<u8> {
    element(group, number, &even(value))
}

/// A C-STORE-RQ command set.
pub(crate) fn store_command(sop_class: &[u8], sop_instance: &[u8]) -> Vec<u8> {
    let rest = [
        uid(0, 2, sop_class),
        element(0, 0x100, &[1, 0]),
        element(0, 0x110, &[1, 0]),
        element(0, 0x700, &[0, 0]),
        element(0, 0x800, &[0, 0]),
        uid(0, 0x1000, sop_instance),
    ]
    .concat();
    let length = u32::try_from(rest.len()).expect("a short command").to_le_bytes();
    [element(0, 0, &length), rest].concat()
}

/// SOP class and instance at the start of a data set in Implicit VR Little Endian.
pub(crate) fn identifiers(sop_class: &[u8], sop_instance: &[u8]) -> Vec<u8> {
    [uid(8, 0x16, sop_class), uid(8, 0x18, sop_instance)].concat()
}

/// A connection to a node's DICOM port.
pub(crate) struct Attacker {
    tcp: TcpStream,
}

impl Attacker {
    pub(crate) fn connect(port: u16) -> Self {
        Self::try_connect(port).expect("a listening node")
    }

    pub(crate) fn try_connect(port: u16) -> std::io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let tcp = TcpStream::connect_timeout(&address, ANSWER)?;
        tcp.set_read_timeout(Some(ANSWER))?;
        tcp.set_write_timeout(Some(ANSWER))?;
        Ok(Self { tcp })
    }

    /// An association with context 1 for this SOP class and syntax.
    pub(crate) fn associated(port: u16, sop_class: &str, syntax: &str) -> Self {
        let mut attacker = Self::connect(port);
        attacker.say(&Request::new(&[context(1, sop_class, &[syntax])]).encode());
        assert_eq!(attacker.hear(), Heard::Accept);
        attacker
    }

    /// Writes; whether all of it was taken. A node that has had enough resets the connection.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        self.tcp.write_all(bytes).is_ok()
    }

    /// One C-STORE in context 1; the answer.
    pub(crate) fn store(&mut self, command: &[u8], data_set: &[u8]) -> Heard {
        let mut sent = self.say(&data(1, 3, command));
        let mut pieces = data_set.chunks(16_000).peekable();
        while let (true, Some(piece)) = (sent, pieces.next()) {
            let last = if pieces.peek().is_none() { 2 } else { 0 };
            sent = self.say(&data(1, last, piece));
        }
        self.hear()
    }

    /// The next thing that the node says.
    pub(crate) fn hear(&mut self) -> Heard {
        let mut head = [0; 6];
        match self.tcp.read_exact(&mut head) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Heard::Silence;
            }
            Err(_) => return Heard::Closed,
        }
        let length = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
        assert!(length < 1 << 20, "the node says a PDU of {length} bytes");
        let mut body = vec![0; length as usize];
        if self.tcp.read_exact(&mut body).is_err() {
            return Heard::Closed;
        }
        match head[0] {
            2 => Heard::Accept,
            3 => Heard::Reject(body[1], body[2], body[3]),
            4 => status(&body),
            6 => Heard::Release,
            7 => Heard::Abort,
            other => panic!("the node says a PDU of type {other}"),
        }
    }

    /// Waits for the node to end the association, with which word; `Closed` is without any.
    pub(crate) fn hear_out(&mut self) -> Heard {
        loop {
            let heard = self.hear();
            let ends = [Heard::Closed, Heard::Silence, Heard::Abort, Heard::Release];
            if ends.contains(&heard) || matches!(heard, Heard::Reject(..)) {
                return heard;
            }
        }
    }
}

/// (0000,0900) of a response.
fn status(body: &[u8]) -> Heard {
    let tag = [0, 0, 0, 9, 2, 0, 0, 0];
    match body.windows(10).find(|w| w.starts_with(&tag)) {
        Some(status) => Heard::Status(u16::from_le_bytes([status[8], status[9]])),
        None => Heard::Piece,
    }
}

/// Whether a peer with good intent is served.
pub(crate) fn echo(port: u16) -> bool {
    let Ok(mut peer) = Attacker::try_connect(port) else { return false };
    peer.say(&Request::echo().encode());
    if peer.hear() != Heard::Accept {
        return false;
    }
    let rest = [
        uid(0, 2, VERIFICATION.as_bytes()),
        element(0, 0x100, &[0x30, 0]),
        element(0, 0x110, &[1, 0]),
        element(0, 0x800, &[1, 1]),
    ]
    .concat();
    let length = u32::try_from(rest.len()).expect("a short command").to_le_bytes();
    peer.say(&data(1, 3, &[element(0, 0, &length), rest].concat()));
    let answered = peer.hear() == Heard::Status(0);
    peer.say(&pdu(5, &[0; 4]));
    answered && peer.hear() == Heard::Release
}
