//! What a RIS sends: frames, and messages in any character set.

use std::fs;

use hikyaku::delivery::hl7_exchange::{Exchange, Lost, control_id};
use hikyaku::hl7::ack::{Stage, Stamp};
use hikyaku::hl7::answer::Answer;
use hikyaku::hl7::charset::{Charset, CharsetRule};
use hikyaku::hl7::inbound::{Content, Inbound, Rules};
use hikyaku::hl7::message::Message;
use hikyaku::hl7::mllp::{Deframer, FrameError, frame};
use hikyaku::hl7::order::{OrderFields, OrderMessage, OrderType, Sending};

use super::dicom::project;

/// Longest message that the deframer takes.
const LIMIT: usize = 16 << 10;

/// Character sets that a site may have configured.
const CHARSETS: [&str; 8] = [
    "",
    "~ISO IR87",
    "ISO IR13~ISO IR87~ISO IR159",
    "Shift_JIS",
    "EUC-JP",
    "UTF-8",
    "8859/1",
    "GB 18030-2000",
];

fn deframe(data: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut deframer, mut messages) = (Deframer::new(LIMIT), Vec::new());
    for piece in data.chunks(step) {
        deframer.push(piece);
        loop {
            match deframer.next_message() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// The first byte says how the others are cut.
pub(crate) fn mllp(data: &[u8]) {
    let Some((step, data)) = data.split_first() else { return };
    let (messages, error) = deframe(data, usize::from(*step) + 1);
    assert_eq!((&messages, &error), (&deframe(data, 7).0, &deframe(data, LIMIT * 8).1));
    for message in messages {
        assert!(message.len() <= LIMIT, "a message beyond the limit");
        let framed = frame(&message).expect("what came in a frame fits into one");
        assert_eq!(deframe(&framed, 3).0, [message]);
    }
}

/// The first byte is the configured character set, and whether it always holds.
pub(crate) fn hl7(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let charset: Charset = CHARSETS[usize::from(*which) % 8].parse().expect("a known one");
    let always = (which & 8 != 0).then_some(charset);
    let mut rules = Rules { charset: CharsetRule { default: charset, always }, ..Rules::default() };
    rules.accepts.versions = (0, 99);
    let inbound = Inbound::read(data, &rules);
    let stamp = Stamp { control_id: "1", at: "20261122" };
    let answer = inbound.answer(Stage::Application, &[], stamp);
    // An answer is a message in the sender's delimiters.
    let answer = inbound.charset().decode(&answer).text;
    assert!(Message::parse(&answer).is_ok(), "{answer:?}");
    if let Some(message) = inbound.message() {
        assert_eq!(Message::parse(&message.write()).as_ref(), Ok(message));
    }
    if let Ok(Content::Orders(said)) = inbound.content() {
        for order_type in [OrderType::General, OrderType::Imaging] {
            written(said, order_type);
        }
    }
}

fn written(said: &OrderMessage, order_type: OrderType) {
    let sending = Sending {
        order_type,
        from: ("A", "B"),
        to: ("C", "D"),
        at: "20261122",
        control_id: "1",
        processing_id: "P",
        charset: Charset::UTF_8,
    };
    // What is written has more segments than what was read, and may be too long to be read.
    if let Ok(message) = Message::parse(&said.write(&sending).write()) {
        let again = OrderMessage::read(&message, &OrderFields::default());
        assert_eq!(again.as_ref(), Ok(said));
    }
}

/// What a receiver sends while the answer to message `M1` is awaited; whether it is that, and how it
/// ended.
fn hear(data: &[u8], step: usize, charset: Charset) -> (Vec<Answer>, Option<Lost>) {
    let (mut exchange, mut answers) = (Exchange::new(charset), Vec::new());
    exchange.send("M1".into());
    for piece in data.chunks(step) {
        exchange.push(piece);
        match exchange.answer() {
            Ok(None) => {}
            Ok(Some(answer)) => {
                answers.push(answer);
                exchange.send("M1".into());
            }
            Err(lost) => return (answers, Some(lost)),
        }
    }
    (answers, None)
}

/// The first byte says how the others are cut, and in which set they are by configuration.
pub(crate) fn answer(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let charset: Charset = CHARSETS[usize::from(*which) % 8].parse().expect("a known one");
    let (answers, _) = hear(data, usize::from(*which) + 1, charset);
    for answer in answers {
        assert_eq!(answer.control_id, "M1", "another message's answer");
        // Nothing that could be a name is told: codes, numbers, and names of segments.
        let told = answer.told();
        assert!(told.starts_with(answer.code()) && told.is_ascii() && told.len() < 300, "{told}");
    }
    let _ = control_id(data, charset);
}

pub(crate) fn answers() -> Vec<Vec<u8>> {
    let head = "MSH|^~\\&|RIS|||||||7|P|2.5\r";
    let rests = [
        "MSA|AA|M1\r",
        "MSA|AE|M1|YAMADA is not known||||204^YAMADA\rERR||PID^1^3|204^Unknown^HL70357|E\r",
        "MSA|AR|M1\rERR|PID^1^3^101&Required field missing&HL70357~OBR^2\r",
        "MSA|CA|M1\r\x1c\r\x0bMSH|^~\\&|RIS|||||||8|P|2.5\rMSA|AA|M1\r",
        "MSA|AA|M2\r",
    ];
    let framed = rests.iter().map(|rest| {
        let text = format!("{head}{rest}");
        [&[0x0b][..], text.as_bytes(), &[0x1c, 0x0d]].concat()
    });
    framed.enumerate().map(|(n, bytes)| [&[n as u8 * 31], &bytes[..]].concat()).collect()
}

fn samples() -> Vec<Vec<u8>> {
    let folder = project().join("tests/data/hl7");
    let index = fs::read_to_string(folder.join("INDEX.tsv")).expect("the index of samples");
    let paths = index.lines().skip(1).filter_map(|line| line.split('\t').next());
    paths.map(|path| fs::read(folder.join(path)).expect("a sample")).collect()
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let order = "MSH|^~\\&|A|B|C|D|2026||OMI^O23|1|P|2.5||||||~ISO IR87\rPID|||12^^^H&1.2&ISO^PI||\
        山^本\rPV1||O|03^^^^^C\rAL1||DA|1^X|SV|a~b\rORC|NW|1^A||G|SC||^^^2026^^S|P&A^F|2026||\
        |D1^医師||054\rTQ1|||||||2026||A\rOBR|1|1||X^Y^Z|||||||||I|咳|||||A1|RP|SP||||CT\r\
        NTE|||a\\.br\\b\rOBX|1|CWE|C||A^B~C\rIPC|A1|RP|1.2.3|SP|CT|PR~PS|ST|L|AE1~AE2\r\
        ORC|CH|2\rOBR||2||X\rOBR||3||Y\r";
    let charset: Charset = "~ISO IR87".parse().expect("a known one");
    let order = charset.encode(order).expect("its own characters");
    let merge = b"MSH|^~\\&|A|B|C|D|2026||ADT^A40|1|P|2.3\rPID|||1\rMRG|2~3||||||A^B\r".to_vec();
    let all = samples().into_iter().chain([order, merge]).enumerate();
    all.map(|(n, message)| [&[n as u8 & 15], &message[..]].concat()).collect()
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let framed: Vec<_> = samples().iter().filter_map(|message| frame(message).ok()).collect();
    let pieces = framed.chunks(5).map(|some| some.join(&b"\r\n"[..]));
    pieces.enumerate().map(|(n, bytes)| [&[n as u8 * 9], &bytes[..]].concat()).collect()
}
