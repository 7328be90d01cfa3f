//! A sender that stands outside every fault and remembers what it was promised: the oracle.
//!
//! It makes small CT images that nobody else has, sends them over as many associations as a test
//! wants, and writes down (SOP Instance UID, SHA-256 of the data set) of each that was answered
//! with 0000. A connection that is refused or lost is made again, and the object that was under
//! way is sent again until it is answered, as a scanner does.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dicom_ul::ClientAssociation;
use dicom_ul::association::client::ClientAssociationOptions;
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};
use hikyaku::cargo::Sha256;

use crate::site::{Node, Port};

/// CT Image Storage.
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
/// Explicit VR Little Endian.
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// Longest wait for an answer; a node that is stopped in the middle of one ends it sooner.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Pause before a lost connection is made again, or a refused object is sent again.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a data set in one PDU.
const FRAGMENT: usize = 60_000;

/// One image.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) sop: String,
    pub(crate) data_set: Vec<u8>,
}

impl Object {
    /// With pixels of about `length` bytes that follow from its UID and compress to nothing less.
    pub(crate) fn new(study: &str, number: u64, length: usize) -> Self {
        let sop = format!("{study}.1.{number}");
        let pixels = length.next_multiple_of(8);
        let mut data_set = front(study, &sop, u32::try_from(pixels).expect("a small image"));
        data_set.reserve(pixels);
        let mut state = u64::from_be_bytes(Sha256::of(sop.as_bytes()).0[..8].try_into().unwrap());
        for _ in 0..pixels / 8 {
            state = step(state);
            data_set.extend_from_slice(&state.to_le_bytes());
        }
        Self { sop, data_set }
    }

    pub(crate) fn sha256(&self) -> String {
        Sha256::of(&self.data_set).to_string()
    }

    /// A piece of its pixels that stands nowhere else.
    pub(crate) fn middle(&self) -> &[u8] {
        let at = self.data_set.len() / 2;
        &self.data_set[at..at + 64]
    }
}

/// A data set up to its pixels, of which there are `pixels` bytes.
pub(crate) fn front(study: &str, sop: &str, pixels: u32) -> Vec<u8> {
    let mut data_set = Vec::new();
    element(&mut data_set, 0x0008_0016, *b"UI", CT);
    element(&mut data_set, 0x0008_0018, *b"UI", sop);
    element(&mut data_set, 0x0008_0060, *b"CS", "CT");
    element(&mut data_set, 0x0010_0020, *b"LO", "ORACLE");
    element(&mut data_set, 0x0020_000D, *b"UI", study);
    element(&mut data_set, 0x0020_000E, *b"UI", &format!("{study}.1"));
    data_set.extend_from_slice(b"\xe0\x7f\x10\x00OW\0\0");
    data_set.extend_from_slice(&pixels.to_le_bytes());
    data_set
}

/// xorshift64: the next number after one that is not zero.
pub(crate) const fn step(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

pub(crate) fn element(out: &mut Vec<u8>, tag: u32, vr: [u8; 2], value: &str) {
    let mut value = value.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(if vr == *b"UI" { 0 } else { b' ' });
    }
    out.extend_from_slice(&((tag >> 16) as u16).to_le_bytes());
    out.extend_from_slice(&(tag as u16).to_le_bytes());
    out.extend_from_slice(&vr);
    out.extend_from_slice(&u16::try_from(value.len()).expect("a short value").to_le_bytes());
    out.extend_from_slice(&value);
}

/// A UID below a root that is new at each call.
pub(crate) fn new_study() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("1.2.826.0.1.3680043.10.999.{}.{}.{n}", now.as_micros(), std::process::id())
}

/// One association to a node.
pub(crate) struct Association {
    inner: ClientAssociation<TcpStream>,
    context: u8,
    message: u16,
}

impl Association {
    /// Calls HIKYAKU at this port of this machine; says why it could not.
    pub(crate) fn open(port: u16) -> Result<Self, String> {
        let options = ClientAssociationOptions::new()
            .calling_ae_title("ORACLE")
            .called_ae_title("HIKYAKU")
            .with_presentation_context(CT, vec![EXPLICIT])
            .connection_timeout(ANSWER_TIME)
            .read_timeout(ANSWER_TIME)
            .write_timeout(ANSWER_TIME);
        let mut inner = options.establish(("127.0.0.1", port)).map_err(|e| e.to_string())?;
        inner.inner_stream().set_nodelay(true).map_err(|e| e.to_string())?;
        let context = inner.presentation_contexts().first().map(|c| c.id);
        Ok(Self { inner, context: context.ok_or("no context")?, message: 0 })
    }

    /// C-STORE of one object; its status.
    pub(crate) fn store(&mut self, object: &Object) -> Result<u16, String> {
        let fragments = object.data_set.chunks(FRAGMENT).map(<[u8]>::to_vec);
        self.store_fragments(&object.sop, fragments)
    }

    /// C-STORE of one object that comes in pieces, each of which fits into a PDU.
    pub(crate) fn store_fragments(
        &mut self,
        sop: &str,
        fragments: impl Iterator<Item = Vec<u8>>,
    ) -> Result<u16, String> {
        self.message = self.message.wrapping_add(1);
        let command = store_request(self.message, sop);
        self.send(PDataValueType::Command, command, true)?;
        let mut fragments = fragments.peekable();
        while let Some(fragment) = fragments.next() {
            let last = fragments.peek().is_none();
            self.send(PDataValueType::Data, fragment, last)?;
        }
        let answer = self.answer()?;
        status(&answer).ok_or_else(|| "an answer without a status".into())
    }

    fn send(&mut self, kind: PDataValueType, data: Vec<u8>, is_last: bool) -> Result<(), String> {
        let presentation_context_id = self.context;
        let value = PDataValue { presentation_context_id, value_type: kind, is_last, data };
        self.inner.send(&Pdu::PData { data: vec![value] }).map_err(|e| e.to_string())
    }

    fn answer(&mut self) -> Result<Vec<u8>, String> {
        let mut command = Vec::new();
        loop {
            match self.inner.receive().map_err(|e| e.to_string())? {
                Pdu::PData { data } => {
                    for value in data {
                        command.extend_from_slice(&value.data);
                        if value.is_last {
                            return Ok(command);
                        }
                    }
                }
                other => return Err(format!("{} instead of an answer", other.short_description())),
            }
        }
    }

    pub(crate) fn release(self) {
        let _ = self.inner.release();
    }
}

fn store_request(message: u16, sop: &str) -> Vec<u8> {
    let mut elements = Vec::new();
    let mut put = |element: u16, value: &[u8]| {
        elements.extend_from_slice(&[0, 0]);
        elements.extend_from_slice(&element.to_le_bytes());
        let padded = value.len().next_multiple_of(2);
        elements.extend_from_slice(&u32::try_from(padded).expect("short").to_le_bytes());
        elements.extend_from_slice(value);
        elements.resize(elements.len() + padded - value.len(), 0);
    };
    put(0x0002, CT.as_bytes());
    put(0x0100, &[1, 0]);
    put(0x0110, &message.to_le_bytes());
    put(0x0700, &[0, 0]);
    put(0x0800, &[0, 0]);
    put(0x1000, sop.as_bytes());
    let mut command = vec![0, 0, 0, 0, 4, 0, 0, 0];
    command.extend_from_slice(&u32::try_from(elements.len()).expect("short").to_le_bytes());
    command.extend_from_slice(&elements);
    command
}

/// (0000,0900) of a command set. Element by element: a message number can look like its tag.
fn status(mut command: &[u8]) -> Option<u16> {
    loop {
        let (head, rest) = command.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let (value, rest) = rest.split_at_checked(length as usize)?;
        if head[..4] == [0, 0, 0, 9] {
            return Some(u16::from_le_bytes(value.try_into().ok()?));
        }
        command = rest;
    }
}

/// What was answered with success.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acked {
    pub(crate) sop: String,
    pub(crate) sha256: String,
}

/// How a load is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Associations at a time.
    pub(crate) associations: usize,
    /// Bytes of an object's pixels.
    pub(crate) length: usize,
    /// Pause after each object.
    pub(crate) pause: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Self { associations: 2, length: 40_000, pause: Duration::from_millis(10) }
    }
}

#[derive(Debug, Default)]
struct Shared {
    acked: Mutex<Vec<Acked>>,
    /// Refusals by status.
    refused: Mutex<BTreeMap<u16, u64>>,
    /// Connections that were refused or lost.
    lost: AtomicU64,
    stop: AtomicBool,
}

/// A sender at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Sends new objects until it is told to finish.
    pub(crate) fn start(port: u16, shape: Shape) -> Self {
        let shared = Arc::<Shared>::default();
        let one = |_| {
            let (shared, study) = (shared.clone(), new_study());
            thread::spawn(move || shared.run(port, &study, shape))
        };
        let threads = (0..shape.associations).map(one).collect();
        Self { shared, threads }
    }

    /// What was answered with success until now.
    pub(crate) fn acked(&self) -> Vec<Acked> {
        self.shared.acked.lock().expect("no panic").clone()
    }

    pub(crate) fn acked_count(&self) -> usize {
        self.shared.acked.lock().expect("no panic").len()
    }

    /// How often this status was given.
    pub(crate) fn refused(&self, status: u16) -> u64 {
        self.shared.refused.lock().expect("no panic").get(&status).copied().unwrap_or(0)
    }

    /// Every status but success, and how often it was given.
    pub(crate) fn refusals(&self) -> BTreeMap<u16, u64> {
        self.shared.refused.lock().expect("no panic").clone()
    }

    /// Connections that were refused or lost until now.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// No object is begun after this. One that was sent but not answered is given up only when
    /// nobody listens any more.
    pub(crate) fn finish(mut self) -> Vec<Acked> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("the sender does not panic");
        }
        self.acked()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn run(&self, port: u16, study: &str, shape: Shape) {
        let mut association = None;
        for number in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let object = Object::new(study, number, shape.length);
            if !self.settle(&mut association, port, &object) {
                break;
            }
            thread::sleep(shape.pause);
        }
        if let Some(association) = association {
            association.release();
        }
    }

    /// Sends one object until it is answered with success; false when the load was told to finish
    /// first.
    fn settle(&self, held: &mut Option<Association>, port: u16, object: &Object) -> bool {
        loop {
            let answer = match held.take().map_or_else(|| Association::open(port), Ok) {
                Ok(mut association) => {
                    let answer = association.store(object);
                    if answer.is_ok() {
                        *held = Some(association);
                    }
                    answer
                }
                Err(e) => Err(e),
            };
            match answer {
                Ok(0) => {
                    let acked = Acked { sop: object.sop.clone(), sha256: object.sha256() };
                    self.acked.lock().expect("no panic").push(acked);
                    return true;
                }
                Ok(status) => {
                    *self.refused.lock().expect("no panic").entry(status).or_default() += 1;
                }
                Err(_) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Sends these one after another; each must be answered with success.
pub(crate) fn send_ok(port: u16, objects: &[Object]) {
    let mut association = Association::open(port).expect("an association");
    for object in objects {
        assert_eq!(association.store(object), Ok(0), "{}", object.sop);
    }
    association.release();
}

/// Sends these images of a study over one association; each must be answered with success.
pub(crate) fn send_study(node: &Node, study: &str, images: std::ops::Range<u64>) {
    let objects: Vec<Object> = images.map(|n| Object::new(study, n, 600)).collect();
    send_ok(node.port(Port::Dicom), &objects);
}

/// `n` new objects of one study.
pub(crate) fn objects(n: u64, length: usize) -> Vec<Object> {
    let study = new_study();
    (1..=n).map(|number| Object::new(&study, number, length)).collect()
}
