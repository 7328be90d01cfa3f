//! A RIS as a test plays it: plain MLLP, one message at a time.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::site::{Node, Port};

/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// One connection to a node's HL7 listener.
pub(crate) struct Ris(TcpStream);

impl Ris {
    pub(crate) fn connect(node: &Node) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", node.port(Port::Hl7))).expect("a listener");
        stream.set_read_timeout(Some(ANSWER_TIME)).expect("a timeout");
        stream.set_write_timeout(Some(ANSWER_TIME)).expect("a timeout");
        Self(stream)
    }

    /// Sends one message; the bytes of the answer, without the frame.
    pub(crate) fn send(&mut self, message: &[u8]) -> Vec<u8> {
        let frame = [b"\x0B", message, b"\x1C\r"].concat();
        self.0.write_all(&frame).expect("a listener that reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\x1C\r") {
            let mut byte = [0];
            assert_eq!(self.0.read(&mut byte).expect("an answer"), 1, "no answer");
            answer.push(byte[0]);
        }
        answer[1..answer.len() - 2].to_vec()
    }

    /// Sends one message and gives MSA-1 of the answer: `AA`, `AE`, `AR`.
    pub(crate) fn ask(&mut self, message: &str) -> String {
        code(&self.send(message.as_bytes()))
    }
}

/// MSA-1 of an answer.
pub(crate) fn code(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let msa = text.split('\r').find(|s| s.starts_with("MSA")).expect("an MSA").to_owned();
    msa.split(&text[3..4]).nth(1).expect("MSA-1").to_owned()
}

/// An order message of the test's own: `control` is ORC-1.
pub(crate) struct Order<'a> {
    pub(crate) id: &'a str,
    pub(crate) control: &'a str,
    pub(crate) number: &'a str,
    pub(crate) accession: &'a str,
    pub(crate) study: &'a str,
    pub(crate) patient: &'a str,
    /// `YYYYMMDDHHMM`, local to the site.
    pub(crate) scheduled: &'a str,
}

impl Default for Order<'_> {
    fn default() -> Self {
        Self {
            id: "1",
            control: "NW",
            number: "P1",
            accession: "",
            study: "",
            patient: "ORACLE",
            scheduled: "",
        }
    }
}

impl Order<'_> {
    pub(crate) fn write(&self) -> String {
        let Order { id, control, number, accession, study, patient, scheduled } = self;
        format!(
            "MSH|^~\\&|RIS|EAST|HIKYAKU|X|||ORM^O01|{id}|P|2.3.1\r\
             PID|||{patient}\r\
             ORC|{control}|{number}|F{number}||||^^^{scheduled}^^R\r\
             OBR|1|{number}|F{number}|CT^CT HEAD||||||||||||||{accession}\r\
             ZDS|{study}^RIS^Application^DICOM\r"
        )
    }
}

/// A sample of other people's making.
pub(crate) fn sample(path: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hl7");
    fs::read(folder.join(path)).expect("a sample")
}

/// The paths of all samples.
pub(crate) fn samples() -> Vec<String> {
    let index = String::from_utf8(sample("INDEX.tsv")).expect("text");
    let paths = index.lines().skip(1).filter_map(|line| line.split('\t').next());
    paths.map(str::to_owned).collect()
}
