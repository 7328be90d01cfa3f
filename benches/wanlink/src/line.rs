//! One direction of the line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::{BLACKOUT, STOP};

/// Packets read before those that are due are written.
const READ_BURST: usize = 32;
/// Longest sleep, so that signals are heard.
const NAP: Duration = Duration::from_millis(50);

/// What the line is like.
#[derive(Debug)]
pub struct Line {
    /// 0: unlimited.
    pub bytes_per_second: f64,
    /// From one end to the other.
    pub delay: Duration,
    /// Share of packets.
    pub loss: f64,
    /// In bytes.
    pub queue: f64,
    /// Of the loss pattern.
    pub seed: u64,
}

/// What became of the packets.
#[derive(Debug, Default)]
pub struct Counts {
    /// Carried.
    pub sent: u64,
    /// Of those.
    pub bytes: u64,
    /// At random.
    pub lost: u64,
    /// The queue was full.
    pub dropped: u64,
    /// During blackouts.
    pub dark: u64,
}

struct Packet {
    due: Instant,
    length: usize,
    buffer: Vec<u8>,
}

impl Line {
    /// Carries packets until [`STOP`].
    pub fn carry(
        &self,
        mut from: &File,
        mut to: &File,
        mtu: usize,
        start: Instant,
    ) -> io::Result<Counts> {
        // The kernel may otherwise wake us 50 microseconds late.
        let _ = nix::sys::prctl::set_timerslack(1000);
        let mut counts = Counts::default();
        let mut chance = Chance(self.seed);
        let mut free_at = start;
        let mut under_way: VecDeque<Packet> = VecDeque::new();
        let mut spare: Vec<Vec<u8>> = Vec::new();
        while !STOP.load(Ordering::Relaxed) {
            let now = Instant::now();
            while under_way.front().is_some_and(|p| p.due <= now) {
                let Some(packet) = under_way.pop_front() else { break };
                // A full device at the other end drops, as a router would.
                match to.write(&packet.buffer[..packet.length]) {
                    Ok(n) => (counts.sent, counts.bytes) = (counts.sent + 1, counts.bytes + n as u64),
                    Err(_) => counts.dropped += 1,
                }
                spare.push(packet.buffer);
            }
            let mut read = 0;
            while read < READ_BURST {
                let mut buffer = spare.pop().unwrap_or_else(|| vec![0; mtu]);
                let Ok(length @ 1..) = from.read(&mut buffer) else {
                    spare.push(buffer);
                    break;
                };
                read += 1;
                match self.judge(length, &mut free_at, &mut chance, &mut counts) {
                    Some(due) => under_way.push_back(Packet { due, length, buffer }),
                    None => spare.push(buffer),
                }
            }
            if read < READ_BURST {
                let due = under_way.front().map(|p| p.due.saturating_duration_since(Instant::now()));
                nap(from, due.unwrap_or(NAP).min(NAP))?;
            }
        }
        Ok(counts)
    }

    /// When a packet that comes now will be at the other end; `None` when it never will.
    fn judge(
        &self,
        length: usize,
        free_at: &mut Instant,
        chance: &mut Chance,
        counts: &mut Counts,
    ) -> Option<Instant> {
        let now = Instant::now();
        let mut leaves = now;
        if self.bytes_per_second > 0.0 {
            let wait = free_at.saturating_duration_since(now);
            if wait.as_secs_f64() * self.bytes_per_second + length as f64 > self.queue {
                counts.dropped += 1;
                return None;
            }
            leaves += wait + Duration::from_secs_f64(length as f64 / self.bytes_per_second);
            *free_at = leaves;
        }
        if BLACKOUT.load(Ordering::Relaxed) {
            counts.dark += 1;
            return None;
        }
        if self.loss > 0.0 && chance.next() < self.loss {
            counts.lost += 1;
            return None;
        }
        Some(leaves + self.delay)
    }
}

fn nap(device: &File, time: Duration) -> io::Result<()> {
    if time.is_zero() {
        return Ok(());
    }
    let mut devices = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    match ppoll(&mut devices, Some(TimeSpec::from_duration(time)), None) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// splitmix64, as numbers from 0 to 1.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
