//! Ports that stay the same when a node or a receiver is started again.
//!
//! They lie below the range from which the system takes ports by itself, so that no passing
//! connection sits on one while its owner is down.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 18_000;
const LAST: u16 = 32_000;

static TAKEN: AtomicU16 = AtomicU16::new(0);

/// A port of 127.0.0.1 that is free for TCP and UDP, given out once.
pub(crate) fn free() -> u16 {
    let own = u16::try_from(std::process::id() % 140).expect("below 140") * 100;
    loop {
        let n = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (own + n) % (LAST - FIRST);
        let tcp = TcpListener::bind(("127.0.0.1", port));
        let udp = UdpSocket::bind(("127.0.0.1", port));
        if tcp.is_ok() && udp.is_ok() {
            return port;
        }
    }
}
