//! A C-STORE sender and a C-STORE sink that cost next to nothing, for a million small objects.
//! Associations by dicom-ul; a request is one write, as a good sender's is.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dicom_ul::association::client::ClientAssociationOptions;
use dicom_ul::association::server::ServerAssociationOptions;
use dicom_ul::pdu::Pdu;
use hikyaku::dicom::command::{Command, Priority, Response, StoreRequest, field};
use hikyaku::dicom::pdata::{put_command, put_data};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const PDU: u32 = 16 * 1024;

fn element(out: &mut Vec<u8>, group: u16, number: u16, vr: &[u8; 2], value: &[u8]) {
    out.extend_from_slice(&group.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(vr);
    let odd = value.len() % 2;
    let length = value.len() + odd;
    if vr == b"OW" {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(length as u32).to_le_bytes());
    } else {
        out.extend_from_slice(&(length as u16).to_le_bytes());
    }
    out.extend_from_slice(value);
    let pad = if vr == b"UI" || vr == b"OW" { 0 } else { b' ' };
    out.extend(std::iter::repeat_n(pad, odd));
}

/// The SOP Instance UID of small object `n`.
pub fn instance(n: u64) -> String {
    format!("2.25.9{n:012}")
}

/// A small CT object: about 1.3 kB, its bytes unlike any other's, a thousand in each study.
pub fn small_object(n: u64) -> Vec<u8> {
    let mut b = Vec::with_capacity(1400);
    element(&mut b, 0x0008, 0x0016, b"UI", CT.as_bytes());
    element(&mut b, 0x0008, 0x0018, b"UI", instance(n).as_bytes());
    element(&mut b, 0x0008, 0x0050, b"SH", format!("A{:07}", n / 1000).as_bytes());
    element(&mut b, 0x0008, 0x0060, b"CS", b"CT");
    element(&mut b, 0x0010, 0x0010, b"PN", b"BENCH^MARK");
    element(&mut b, 0x0010, 0x0020, b"LO", format!("P{:07}", n / 1000).as_bytes());
    element(&mut b, 0x0020, 0x000d, b"UI", format!("2.25.8{:09}", n / 1000).as_bytes());
    element(&mut b, 0x0020, 0x000e, b"UI", format!("2.25.7{:09}", n / 1000).as_bytes());
    element(&mut b, 0x0020, 0x0013, b"IS", (n % 1000).to_string().as_bytes());
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut pixels = Vec::with_capacity(1024);
    while pixels.len() < 1024 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pixels.extend_from_slice(&state.to_le_bytes());
    }
    element(&mut b, 0x7fe0, 0x0010, b"OW", &pixels);
    b
}

/// Sends the small objects that `next` counts out, below `end`, over one association. Returns how
/// many were answered with success.
pub fn send(to: SocketAddr, next: &AtomicU64, end: u64) -> Result<u64, String> {
    let mut association = ClientAssociationOptions::new()
        .calling_ae_title("BENCH")
        .called_ae_title("HIKYAKU")
        .with_presentation_context(CT, vec![EXPLICIT])
        .establish(to)
        .map_err(|e| e.to_string())?;
    let _ = association.inner_stream().set_nodelay(true);
    let context = association.presentation_contexts()[0].id;
    let mut stored = 0;
    let mut out = Vec::new();
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= end {
            break;
        }
        let command = Command::StoreRequest(StoreRequest {
            message_id: (n % 60_000) as u16 + 1,
            sop_class: CT.into(),
            sop_instance: instance(n),
            priority: Priority::Medium,
            move_originator: None,
            has_data_set: true,
        });
        out.clear();
        put_command(&mut out, context, &command.encode(), PDU);
        put_data(&mut out, context, &small_object(n), true, PDU);
        association.inner_stream().write_all(&out).map_err(|e| e.to_string())?;
        let answer = association.receive().map_err(|e| e.to_string())?;
        let Pdu::PData { data } = answer else { return Err("no answer".into()) };
        match Command::decode(&data[0].data) {
            Ok(Command::Response(response)) if response.status == 0 => stored += 1,
            other => return Err(format!("refused: {other:?}")),
        }
    }
    let _ = association.release();
    Ok(stored)
}

/// How long it takes until a C-STORE of small object `n` is answered with success.
pub fn until_answered(to: SocketAddr, n: u64, since: Instant) -> f64 {
    while send(to, &AtomicU64::new(n), n + 1) != Ok(1) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    since.elapsed().as_secs_f64()
}

/// Takes whatever comes to the listener and answers each C-STORE with success, in threads of
/// its own, for as long as the process lives; counts.
pub fn sink(listener: TcpListener) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = counted.clone();
            std::thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let options = ServerAssociationOptions::new()
                    .accept_any()
                    .ae_title("SINK")
                    .with_abstract_syntax(CT);
                let Ok(mut association) = options.establish(stream) else { return };
                let mut request = None;
                while let Ok(pdu) = association.receive() {
                    match pdu {
                        Pdu::PData { data } => {
                            for value in data {
                                let context = value.presentation_context_id;
                                if value.value_type == dicom_ul::pdu::PDataValueType::Command {
                                    request = Command::decode(&value.data).ok();
                                } else if value.is_last
                                    && let Some(Command::StoreRequest(r)) = request.take()
                                {
                                    let mut out = Vec::new();
                                    let response = Command::Response(Response {
                                        field: field::C_STORE_RSP,
                                        responded_to: r.message_id,
                                        sop_class: r.sop_class,
                                        sop_instance: r.sop_instance,
                                        ..Response::default()
                                    });
                                    put_command(&mut out, context, &response.encode(), PDU);
                                    if association.inner_stream().write_all(&out).is_err() {
                                        return;
                                    }
                                    count.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                        Pdu::ReleaseRQ => {
                            let _ = association.send(&Pdu::ReleaseRP);
                            return;
                        }
                        _ => return,
                    }
                }
            });
        }
    });
    count
}
