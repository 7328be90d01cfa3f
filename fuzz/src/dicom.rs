//! What a DICOM peer sends: to the acceptor, and in answer to the requestor.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use hikyaku::delivery::contexts::{Pair, Proposal, Recent};
use hikyaku::delivery::reencode;
use hikyaku::delivery::requestor::{Meaning, Requestor};
use hikyaku::dicom::command::{
    Command, Operation, Priority, Request, Response, StoreRequest, SubOperations, field,
};
use hikyaku::dicom::pdata::{Decoder, Event as Received};
use hikyaku::dicom::text::Repertoire;
use hikyaku::dicom::{
    MODALITY_WORKLIST as WORKLIST, PERFORMED_STEP, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE,
    STUDY_ROOT_GET, STUDY_ROOT_MOVE, availability, commitment, dataset, header, performed,
};
use hikyaku::inquiry;
use hikyaku::intake::association::{Action, Association, Door, Event};
use hikyaku::intake::{Allow, Config, Limits};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const VERIFICATION: &str = "1.2.840.10008.1.1";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// Longest beginning of a data set that is a seed, in bytes.
const SEED_LENGTH_MAX: usize = 12 * 1024;

/// The syntaxes that are read in their own ways, and two that are not known.
const SYNTAXES: [&str; 8] = [
    "1.2.840.10008.1.2",
    EXPLICIT,
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.113619.5.2",
    "1.2.840.10008.1.2.4.90",
    "1.2.3.4",
];

/// Gives the bytes to a decoder in the pieces that the first byte asks for.
fn decode(data: &[u8], mut each: impl FnMut(Result<Received, ()>) -> bool) {
    let Some((step, data)) = data.split_first() else { return };
    let mut decoder = Decoder::new();
    let mut buffer = BytesMut::new();
    for piece in data.chunks(usize::from(*step).max(1) * 7) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.poll(&mut buffer) {
                Ok(Some(event)) => {
                    if !each(Ok(event)) {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    each(Err(()));
                    return;
                }
            }
        }
    }
}

pub(crate) fn pdata_decoder(data: &[u8]) {
    let mut given = 0;
    decode(data, |event| {
        if let Ok(Received::Fragment(f)) = event {
            assert!(f.last || !f.data.is_empty(), "an empty fragment that ends nothing");
            given += f.data.len();
        }
        true
    });
    assert!(given <= data.len(), "more bytes than came");
}

pub(crate) fn command_set(data: &[u8]) {
    let Ok(command) = Command::decode(data) else { return };
    // An odd UID is padded and text is made whole: what we write must be a fixed point.
    let again = Command::decode(&command.encode()).expect("our own command set");
    assert_eq!(again.encode(), command.encode());
}

fn door() -> Door {
    let any = Allow { ae_title: None, network: "127.0.0.0/8".parse().expect("a network") };
    let config = Config {
        listen: None,
        tls_listen: None,
        ae_titles: vec!["ANY-SCP".parse().expect("an AE title")],
        allow: vec![any],
        refuse_sop_classes: [].into(),
        limits: Limits::default(),
    };
    let address = [127, 0, 0, 1].into();
    Door { config: Arc::new(config), address, refuse: None, services: true }
}

pub(crate) fn association(data: &[u8]) {
    let mut association = Association::new(door());
    let mut ended = false;
    decode(data, |event| {
        let Ok(event) = event else { return false };
        let action = association.on_event(Event::Received(event));
        assert!(!ended || matches!(action, Action::Nothing | Action::Close(_)));
        ended |= !matches!(action, Action::Nothing | Action::Accept(_) | Action::Message(_));
        true
    });
    let _ = association.on_event(Event::Closed);
}

pub(crate) fn requestor(data: &[u8]) {
    let pair = Pair { sop_class: CT.into(), syntax: EXPLICIT.into() };
    let title = |t: &str| t.parse().expect("an AE title");
    let plan = Proposal::plan([&pair], &Recent::default(), true);
    let (mut requestor, _) = Requestor::new(&title("US"), &title("PEER"), plan);
    decode(data, |event| {
        let Ok(event) = event else { return false };
        match requestor.on_event(event) {
            Err(_) => return false,
            Ok(Meaning::Accepted | Meaning::Answer(_)) => {
                requestor.begin_store(CT, "1.2.3");
                if requestor.data_sent().is_err() {
                    return false;
                }
            }
            Ok(_) => {}
        }
        true
    });
}

pub(crate) fn inquiry(data: &[u8]) {
    use inquiry::requestor::{Meaning, Requestor, Wanted};
    let title = |t: &str| t.parse().expect("an AE title");
    let wanted = [WORKLIST, CT, STUDY_ROOT_GET].map(Wanted::scu).to_vec();
    let (mut requestor, _) = Requestor::new(&title("US"), &title("PEER"), wanted);
    decode(data, |event| {
        let Ok(event) = event else { return false };
        match requestor.on_event(event) {
            Err(_) => return false,
            Ok(Meaning::Answer(rsp, _)) if rsp.status >> 8 == 0xFF => {}
            Ok(Meaning::Accepted | Meaning::Answer(..)) => {
                let Ok(context) = requestor.context(WORKLIST) else { return false };
                requestor.begin(context.id, Operation::Find(Priority::Medium), WORKLIST, "");
            }
            Ok(_) => {}
        }
        true
    });
}

pub(crate) fn data_set(data: &[u8]) {
    let [how, data @ ..] = data else { return };
    let syntax = SYNTAXES[usize::from(*how) % 2];
    let Ok(set) = dataset::read(data, syntax) else { return };
    let _ = (performed::judge_create(&set), performed::judge_set(&set));
    let _ = (performed::performed_series(&set), commitment::asked(&set));
    let _ = availability::notice(&set);
    for wanted in [Repertoire::JAPANESE, Repertoire::UTF8] {
        let written = dataset::write(&set, syntax, wanted).expect("what was read can be written");
        dataset::read(&written, syntax).expect("what was written can be read");
    }
}

pub(crate) fn header(data: &[u8]) {
    let [how, data @ ..] = data else { return };
    let syntax = SYNTAXES[usize::from(how >> 1) % SYNTAXES.len()];
    let _ = header::read(data, syntax, how & 1 == 0);
}

pub(crate) fn reencode(data: &[u8]) {
    let [how, data @ ..] = data else { return };
    let native = &SYNTAXES[..3];
    let from = native[usize::from(how >> 1) % native.len()];
    let to = native[usize::from(*how) % 2];
    if let Ok(changed) = reencode::reencode(data, from, to) {
        // What was re-encoded once can be again, and then says the same.
        reencode::reencode(&changed, to, to).expect("our own data set");
    }
}

/// The project's folder, wherever this is compiled.
pub(crate) fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.ends_with("fuzz") { here.join("..") } else { here.into() }
}

/// Every file of `tests/data` that is one.
fn samples() -> Vec<Vec<u8>> {
    let folders = ["samples", "odd", "study"].map(|f| project().join("tests/data").join(f));
    let mut files = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
        paths.sort();
        files.extend(paths.iter().map(|p| fs::read(p).expect("a sample")));
    }
    files
}

/// Transfer syntax and data set of a Part 10 file; of another, the file as it is.
pub(crate) fn part10(file: &[u8]) -> (String, &[u8]) {
    let implicit = (SYNTAXES[0].to_owned(), file);
    if file.get(128..132) != Some(b"DICM") || file.get(132..136) != Some(&[2, 0, 0, 0]) {
        return implicit;
    }
    let length = file[140..144].try_into().map(u32::from_le_bytes).expect("four bytes");
    let Some((meta, data_set)) = file[144..].split_at_checked(length as usize) else {
        return implicit;
    };
    let tag = [2, 0, 0x10, 0, b'U', b'I'];
    let Some(at) = meta.windows(6).position(|w| w == tag) else { return implicit };
    let length = usize::from(u16::from_le_bytes([meta[at + 6], meta[at + 7]]));
    let syntax = String::from_utf8_lossy(&meta[at + 8..at + 8 + length]);
    (syntax.trim_end_matches('\0').to_owned(), data_set)
}

pub(crate) fn data_sets() -> Vec<Vec<u8>> {
    let seed = |file: &Vec<u8>| {
        let (syntax, data_set) = part10(file);
        let known = SYNTAXES.iter().position(|s| *s == syntax).unwrap_or(SYNTAXES.len() - 1);
        let cut = data_set.len() > SEED_LENGTH_MAX;
        let data_set = &data_set[..data_set.len().min(SEED_LENGTH_MAX)];
        [&[(known as u8) << 1 | u8::from(cut)], data_set].concat()
    };
    samples().iter().map(seed).collect()
}

fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short item").to_be_bytes();
    [&[kind, 0], &length[..], body].concat()
}

fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short PDU").to_be_bytes();
    [&[kind, 0], &length[..], body].concat()
}

/// A-ASSOCIATE-RQ or -AC; its contexts are items already.
fn associate(kind: u8, contexts: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend_from_slice(b"ANY-SCP         FUZZ            ");
    body.extend_from_slice(&[0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    contexts.iter().for_each(|c| body.extend(c));
    let roles = [&[0, 25], CT.as_bytes(), &[1, 1]].concat();
    let user = [
        item(0x51, &16384u32.to_be_bytes()),
        item(0x52, b"1.2.3.4"),
        item(0x53, &[0, 1, 0, 1]),
        item(0x54, &roles),
        item(0x55, b"FUZZ"),
        item(0x56, &[&[0, 25], CT.as_bytes(), b"extended"].concat()),
        item(0x58, &[2, 1, 0, 1, b'u', 0, 1, b'p']),
    ];
    body.extend(item(0x50, &user.concat()));
    pdu(kind, &body)
}

fn proposed(id: u8, sop_class: &str, syntaxes: &[&str]) -> Vec<u8> {
    let mut body = [&[id, 0, 0, 0], &item(0x30, sop_class.as_bytes())[..]].concat();
    syntaxes.iter().for_each(|s| body.extend(item(0x40, s.as_bytes())));
    item(0x20, &body)
}

fn pdv(context: u8, control: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() + 2).expect("a short PDV").to_be_bytes();
    [&length[..], &[context, control], bytes].concat()
}

fn store() -> StoreRequest {
    StoreRequest {
        message_id: 7,
        sop_class: CT.into(),
        sop_instance: "1.2.3.4".into(),
        has_data_set: true,
        move_originator: Some(("MOVER".into(), 3)),
        ..StoreRequest::default()
    }
}

pub(crate) fn command_sets() -> Vec<Vec<u8>> {
    let echo = Command::EchoRequest { message_id: 1, sop_class: VERIFICATION.into() };
    let answer = |status, comment: &str| {
        Command::Response(Response {
            field: field::C_STORE_RSP,
            responded_to: 1,
            sop_class: CT.into(),
            sop_instance: "1.2.3".into(),
            status,
            offending: vec![(8, 0x18)],
            comment: comment.into(),
            ..Response::default()
        })
    };
    let get = Command::Other {
        field: 0x0110,
        message_id: Some(2),
        sop_class: "1.2.840.10008.5.1.4.31".into(),
        sop_instance: String::new(),
        has_data_set: true,
    };
    let all = [echo, Command::StoreRequest(store()), answer(0, ""), answer(0xC000, "no"), get];
    let medium = Priority::Medium;
    let operations = [
        (Operation::Find(medium), WORKLIST, ""),
        (Operation::Get(medium), STUDY_ROOT_GET, ""),
        (Operation::Move(medium, "US".into()), STUDY_ROOT_MOVE, ""),
        (Operation::Action(1), STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE),
        (Operation::EventReport(2), STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE),
        (Operation::Create, PERFORMED_STEP, "1.2.3"),
        (Operation::Set, PERFORMED_STEP, "1.2.3"),
    ];
    let services = operations.map(|(operation, class, instance)| Request {
        operation,
        message_id: 1,
        sop_class: class.into(),
        sop_instance: instance.into(),
        has_data_set: true,
    });
    let counts = SubOperations { remaining: Some(1), completed: 2, failed: 3, warning: 4 };
    let pending = Response {
        status: 0xFF00,
        sub_operations: Some(counts),
        attributes: vec![(0x40, 0x252)],
        error_id: Some(0xA710),
        has_data_set: true,
        ..services[0].response()
    };
    let requests = services.into_iter().map(Command::Request);
    let rest = [Command::Response(pending), Command::Cancel { responded_to: 1 }];
    all.into_iter().chain(requests).chain(rest).map(|c| c.encode()).collect()
}

/// What an association says, by an acceptor's peer.
pub(crate) fn pdus() -> Vec<Vec<u8>> {
    let rq = associate(
        1,
        &[
            proposed(1, VERIFICATION, &[SYNTAXES[0]]),
            proposed(3, CT, &[EXPLICIT, SYNTAXES[0], SYNTAXES[6]]),
            proposed(5, "1.2.3.4.5", &SYNTAXES),
            proposed(7, PERFORMED_STEP, &SYNTAXES),
            proposed(9, STORAGE_COMMITMENT, &SYNTAXES),
            proposed(11, WORKLIST, &SYNTAXES),
        ],
    );
    let commands = command_sets();
    let mut seeds = vec![[&[255][..], &rq].concat()];
    let release = pdu(5, &[0; 4]);
    let abort = pdu(7, &[0, 0, 2, 0]);
    for (i, command) in commands.iter().enumerate() {
        let context = match i {
            0 => 1,
            5 => 11,
            8 => 9,
            10.. => 7,
            _ => 3,
        };
        let data = pdu(4, &[pdv(context, 0, b"\x08\0\x16\0"), pdv(context, 2, b"UI\0\0")].concat());
        let (head, tail) = command.split_at(command.len() / 2);
        let halves = [pdv(context, 1, head), pdv(context, 3, tail)].concat();
        let whole = [&rq[..], &pdu(4, &halves), &data, &release, &abort].concat();
        seeds.push([&[i as u8 * 3 + 1][..], &whole].concat());
    }
    seeds
}

/// What an acceptor answers to our request.
pub(crate) fn answers() -> Vec<Vec<u8>> {
    let accepted = |id: u8, reason: u8, syntax: &str| {
        item(0x21, &[&[id, 0, reason, 0], &item(0x40, syntax.as_bytes())[..]].concat())
    };
    let ac = associate(2, &[accepted(1, 0, EXPLICIT), accepted(3, 3, SYNTAXES[0])]);
    let mut seeds = vec![
        [&[9][..], &pdu(3, &[0, 1, 1, 7])].concat(),
        [&[9][..], &ac, &pdu(5, &[0; 4])].concat(),
        [&[9][..], &ac, &pdu(7, &[0, 0, 2, 0])].concat(),
        [&[9][..], &ac, &pdu(6, &[0; 4])].concat(),
    ];
    for command in command_sets() {
        seeds.push([&[200][..], &ac, &pdu(4, &pdv(1, 3, &command))].concat());
    }
    seeds
}
