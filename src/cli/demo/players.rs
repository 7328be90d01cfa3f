//! Who else has a part: a RIS that orders, a reporting system that reports, a HIS that gets the
//! report. They speak MLLP over real sockets and share no code with the nodes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{PATIENCE, failed, too_late};
use crate::cli::Failure;
use crate::clock;

/// Messages that the HIS has and nobody has looked at; more of them wait in their sockets.
const TOLD_MAX: usize = 64;
/// Longest message that a player reads, in bytes.
const MESSAGE_MAX: u64 = 64 << 20;

/// The order: of the patient and with the accession number that the images have.
pub(super) const ORDER: &str = "P4711";
pub(super) const ACCESSION: &str = "2819497684894126";
const PATIENT: &str = "FRUIT";

/// What the reader writes, line by line.
pub(super) const TEXT: [&str; 2] = [
    "所見：断面10枚。種子は均等に分布し、果肉の中心に空洞を認める。",
    "診断：完熟。至急ご連絡を要する。",
];
/// The reader, and the physician whose patient it is.
pub(super) const READER: &str = "読影^一郎";
pub(super) const PHYSICIAN: &str = "主治医 花子";

/// Now, as HL7 writes it.
fn now() -> String {
    let digits: String = clock::wall().to_string().chars().filter(char::is_ascii_digit).collect();
    format!("{}+0000", &digits[..14])
}

/// What the RIS sends.
pub(super) fn order(study: &str) -> String {
    let at = now();
    format!(
        "MSH|^~\\&|RIS|{PATIENT}|HIKYAKU||{at}||ORM^O01|RIS-1|P|2.5||||||UNICODE UTF-8\r\
         PID|1||{PATIENT}^^^DEMO||{PATIENT}\r\
         ORC|NW|{ORDER}\r\
         OBR|1|{ORDER}||MR1^頭部MR^DEMO||||||||||||||{ACCESSION}\r\
         ZDS|{study}^RIS^Application^DICOM\r"
    )
}

/// What the reporting system sends: final, signed, and critical (OBX-8 AA).
pub(super) fn report(study: &str) -> String {
    let at = now();
    let reader = READER.replace('^', "&");
    let [findings, diagnosis] = TEXT;
    let code = "18748-4^Diagnostic imaging study^LN";
    format!(
        "MSH|^~\\&|READER|{PATIENT}|HIKYAKU||{at}||ORU^R01|REPORT-1|P|2.5||||||UNICODE UTF-8\r\
         PID|1||{PATIENT}^^^DEMO||{PATIENT}\r\
         ORC|RE|{ORDER}\r\
         OBR|1|{ORDER}||MR1^頭部MR^DEMO||||||||||||||{ACCESSION}||||{at}|||F|||||||R12&{reader}\r\
         OBX|1|ST|113014^DICOM Study^DCM||{study}||||||F\r\
         OBX|2|TX|{code}||{findings}||||||F\r\
         OBX|3|TX|{code}||{diagnosis}|||AA|||F\r"
    )
}

/// Sends one message; MSA-1 of the answer.
pub(super) async fn tell(address: SocketAddr, message: &str) -> Result<String, Failure> {
    let told = async {
        let mut stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.write_all(&framed(message)).await.map_err(failed)?;
        next(&mut stream).await?.ok_or_else(|| failed("no HL7 answer"))
    };
    let answer = tokio::time::timeout(PATIENCE, told).await;
    let answer = answer.map_err(|_| too_late("an HL7 answer"))??;
    Ok(field(&answer, "MSA", 1).to_owned())
}

fn framed(message: &str) -> Vec<u8> {
    [b"\x0B", message.as_bytes(), b"\x1C\r"].concat()
}

/// The next message; none where the other side has ended.
async fn next(stream: &mut TcpStream) -> Result<Option<String>, Failure> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\x1C\r") {
        let mut piece = stream.take(MESSAGE_MAX.saturating_sub(bytes.len() as u64));
        if piece.read_buf(&mut bytes).await.map_err(failed)? == 0 {
            return Ok(None);
        }
    }
    let message = bytes.strip_prefix(b"\x0B").ok_or_else(|| failed("bytes outside a frame"))?;
    let message = &message[..message.len() - 2];
    Ok(Some(String::from_utf8_lossy(message).into_owned()))
}

/// A field of the first segment of this name, as it stands there; empty when there is none.
pub(super) fn field<'a>(message: &'a str, segment: &str, n: usize) -> &'a str {
    let found = message.split('\r').find(|s| s.split('|').next() == Some(segment));
    // MSH-1 is the delimiter itself.
    let n = if segment == "MSH" { n - 1 } else { n };
    found.and_then(|s| s.split('|').nth(n)).unwrap_or_default()
}

/// OBX-5 of every OBX with text.
pub(super) fn lines(message: &str) -> Vec<&str> {
    let texts = message.split('\r').filter(|s| s.starts_with("OBX|"));
    let texts = texts.filter(|s| matches!(s.split('|').nth(2), Some("TX" | "FT")));
    texts.filter_map(|s| s.split('|').nth(5)).collect()
}

/// The hospital's HIS: answers AA to what it gets.
pub(super) struct His {
    pub(super) address: SocketAddr,
    /// What it got, once it has answered.
    pub(super) told: mpsc::Receiver<String>,
}

impl His {
    /// One that listens until the program ends.
    pub(super) async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (tell, told) = mpsc::channel(TOLD_MAX);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, tell.clone()));
            }
        });
        Ok(Self { address, told })
    }
}

/// One connection to the HIS.
async fn take(mut stream: TcpStream, tell: mpsc::Sender<String>) {
    while let Ok(Some(message)) = next(&mut stream).await {
        let (id, version) = (field(&message, "MSH", 10), field(&message, "MSH", 12));
        let at = now();
        let answer = format!("MSH|^~\\&|HIS||HIKYAKU||{at}||ACK|A{id}|P|{version}\rMSA|AA|{id}\r");
        if stream.write_all(&framed(&answer)).await.is_err() || tell.send(message).await.is_err() {
            return;
        }
    }
}
