//! A bad line between two nodes: a UDP relay on this machine that is as thin, long, lossy or cut as
//! a test wants, and that changes its own address as a NAT does when it forgets a mapping.
//!
//! One node dials [`Line::port`]; its packets go on to the other node. One dialling node per line.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::ports;

/// Longest UDP packet.
const PACKET_MAX: usize = 65_536;
/// How often a reader looks whether the line has ended or moved.
const LOOK: Duration = Duration::from_millis(50);
/// Time that a full queue holds; what comes above it is lost, as at a router.
const QUEUE_TIME: Duration = Duration::from_millis(200);
/// A queue holds at least this, or a thin line would carry nothing.
const QUEUE_MIN: u64 = 64 << 10;
/// By how many packets a late one is overtaken.
const LATE_BY: u32 = 24;

/// How the line is, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quality {
    /// Bytes per second; `None`: as fast as this machine.
    pub(crate) rate: Option<u64>,
    /// Time under way, one direction.
    pub(crate) delay: Duration,
    /// Packets lost of a thousand.
    pub(crate) loss: u32,
    /// Packets of a thousand that come [`LATE_BY`] packets late.
    pub(crate) late: u32,
    /// Longer packets are lost; `None`: none are too long.
    pub(crate) mtu: Option<usize>,
    /// Nothing passes.
    pub(crate) cut: bool,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<(Instant, Vec<u8>)>,
    /// When the last packet in it has left the bottleneck.
    busy_until: Option<Instant>,
    /// Packets that wait until others have overtaken them, and how many still do.
    late: VecDeque<(u32, Vec<u8>)>,
}

impl Queue {
    /// Puts a packet at the end, or loses it when there is no room.
    fn push(&mut self, packet: &[u8], quality: &Quality) {
        let now = Instant::now();
        let size = packet.len() as u64;
        let mut leaves = self.busy_until.map_or(now, |t| t.max(now));
        if let Some(rate) = quality.rate {
            let room = (rate * QUEUE_TIME.as_millis() as u64 / 1000).max(QUEUE_MIN);
            let waiting = leaves.saturating_duration_since(now).as_secs_f64() * rate as f64;
            if waiting as u64 + size > room {
                return;
            }
            leaves += Duration::from_secs_f64(size as f64 / rate as f64);
        }
        self.busy_until = Some(leaves);
        self.packets.push_back((leaves + quality.delay, packet.to_vec()));
    }
}

#[derive(Debug)]
struct Way {
    queue: Mutex<Queue>,
    more: Condvar,
    carried: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    quality: Mutex<Quality>,
    dialler: Mutex<Option<SocketAddr>>,
    near: UdpSocket,
    far: Mutex<Arc<UdpSocket>>,
    target: SocketAddr,
    up: Way,
    down: Way,
    /// What went to the target, when that is to be kept.
    copies: Mutex<Option<Vec<Vec<u8>>>>,
    ended: Mutex<bool>,
}

/// The relay; it ends with its test.
pub(crate) struct Line {
    port: u16,
    shared: Arc<Shared>,
}

fn way() -> Way {
    Way { queue: Mutex::default(), more: Condvar::new(), carried: AtomicU64::new(0) }
}

fn far_socket(target: SocketAddr) -> Arc<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    socket.connect(target).expect("an address of this machine");
    socket.set_read_timeout(Some(LOOK)).expect("a timeout");
    Arc::new(socket)
}

impl Line {
    /// A line to the UDP port `target` of this machine.
    pub(crate) fn to(target: u16, quality: Quality) -> Self {
        let target = SocketAddr::from(([127, 0, 0, 1], target));
        let port = ports::free();
        let near = UdpSocket::bind(("127.0.0.1", port)).expect("a free port");
        near.set_read_timeout(Some(LOOK)).expect("a timeout");
        let shared = Arc::new(Shared {
            quality: Mutex::new(quality),
            dialler: Mutex::new(None),
            near,
            far: Mutex::new(far_socket(target)),
            target,
            up: way(),
            down: way(),
            copies: Mutex::new(None),
            ended: Mutex::new(false),
        });
        let roles: [fn(&Shared); 4] = [read_near, read_far, carry_up, carry_down];
        for role in roles {
            let shared = shared.clone();
            thread::spawn(move || role(&shared));
        }
        Self { port, shared }
    }

    /// Where to dial instead of the target.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Changes the line while it is in use.
    pub(crate) fn set(&self, quality: Quality) {
        *self.shared.quality.lock().expect("no panic") = quality;
    }

    /// Nothing passes from now on, or everything passes again.
    pub(crate) fn cut(&self, cut: bool) {
        self.shared.quality.lock().expect("no panic").cut = cut;
    }

    /// The target sees another source port from now on; packets to the old one are lost.
    pub(crate) fn rebind(&self) {
        *self.shared.far.lock().expect("no panic") = far_socket(self.shared.target);
    }

    /// Keeps copies of the packets to the target from now on, as an eavesdropper does.
    pub(crate) fn listen_in(&self) {
        *self.shared.copies.lock().expect("no panic") = Some(Vec::new());
    }

    /// The copies so far.
    pub(crate) fn overheard(&self) -> Vec<Vec<u8>> {
        self.shared.copies.lock().expect("no panic").clone().unwrap_or_default()
    }

    /// Bytes that were carried to the target and back from it.
    pub(crate) fn carried(&self) -> (u64, u64) {
        let of = |way: &Way| way.carried.load(Ordering::Relaxed);
        (of(&self.shared.up), of(&self.shared.down))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        *self.shared.ended.lock().expect("no panic") = true;
        self.shared.up.more.notify_all();
        self.shared.down.more.notify_all();
    }
}

impl Shared {
    fn has_ended(&self) -> bool {
        *self.ended.lock().expect("no panic")
    }

    fn quality(&self) -> Quality {
        *self.quality.lock().expect("no panic")
    }

    /// Puts a packet into a queue, or loses it.
    fn enter(&self, way: &Way, packet: &[u8], luck: &mut u32) {
        let quality = self.quality();
        *luck = luck.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if quality.cut || (*luck >> 8) % 1000 < quality.loss {
            return;
        }
        if quality.mtu.is_some_and(|mtu| packet.len() > mtu) {
            return;
        }
        let mut queue = way.queue.lock().expect("no panic");
        if (*luck >> 18) % 1000 < quality.late {
            queue.late.push_back((LATE_BY, packet.to_vec()));
            return;
        }
        queue.push(packet, &quality);
        queue.late.iter_mut().for_each(|(others, _)| *others -= 1);
        while queue.late.front().is_some_and(|(others, _)| *others == 0) {
            let (_, packet) = queue.late.pop_front().expect("a late packet");
            queue.push(&packet, &quality);
        }
        way.more.notify_one();
    }

    /// Takes packets out of a queue, each when it is due.
    fn leave(&self, way: &Way, send: impl Fn(&[u8])) {
        while !self.has_ended() {
            let mut queue = way.queue.lock().expect("no panic");
            let Some((due, packet)) = queue.packets.pop_front() else {
                drop(way.more.wait_timeout(queue, LOOK));
                continue;
            };
            drop(queue);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if !self.quality().cut {
                way.carried.fetch_add(packet.len() as u64, Ordering::Relaxed);
                send(&packet);
            }
        }
    }
}

fn read_near(shared: &Shared) {
    let (mut packet, mut luck) = (vec![0; PACKET_MAX], 1);
    while !shared.has_ended() {
        if let Ok((n, from)) = shared.near.recv_from(&mut packet) {
            *shared.dialler.lock().expect("no panic") = Some(from);
            shared.enter(&shared.up, &packet[..n], &mut luck);
        }
    }
}

fn read_far(shared: &Shared) {
    let (mut packet, mut luck) = (vec![0; PACKET_MAX], 2);
    while !shared.has_ended() {
        let far = shared.far.lock().expect("no panic").clone();
        // An error is a timeout, or a target that is down for the moment.
        match far.recv(&mut packet) {
            Ok(n) => shared.enter(&shared.down, &packet[..n], &mut luck),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => thread::sleep(LOOK),
            Err(_) => {}
        }
    }
}

fn carry_up(shared: &Shared) {
    shared.leave(&shared.up, |packet| {
        let far = shared.far.lock().expect("no panic").clone();
        let _ = far.send(packet);
        if let Some(copies) = &mut *shared.copies.lock().expect("no panic") {
            copies.push(packet.to_vec());
        }
    });
}

fn carry_down(shared: &Shared) {
    shared.leave(&shared.down, |packet| {
        if let Some(dialler) = *shared.dialler.lock().expect("no panic") {
            let _ = shared.near.send_to(packet, dialler);
        }
    });
}
