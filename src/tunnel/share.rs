//! Who may write to the line next. Pure.
//!
//! STAT before urgent before routine before bulk. Classes share one connection, whose send window
//! all streams share, so a lane asks before each chunk: it may write when no higher class has
//! anything to send, or when its own class has saved up enough of its 5 %. A class saves while it
//! waits: one byte for every [`SAVE_PER`] bytes that others write, which makes exactly 5 % of the
//! line for each waiting class. STAT therefore waits for at most the chunks that are being
//! written when it comes, whatever the size of the objects behind them.
//!
//! A higher class that has something to send and writes nothing for [`STALL`] (its lane is
//! blocked at the receiver) does not hold up the others any longer.
//!
//! What is handed to the transport and not yet on the line is bounded in line time:
//! [`send_window`] and [`chunk_size`] follow the measured rate.

use std::time::Duration;

use super::frame::CHUNK_MAX;
use crate::cargo::Urgency;
use crate::clock::Monotonic;

/// Bytes that others write for each byte that a waiting class saves: 1 of 20 is 5 %.
pub const SAVE_PER: u64 = 19;
/// Most bytes that a class saves.
pub const SAVED_MAX: u64 = 2 * CHUNK_MAX as u64;
/// After this time without a byte, a higher class does not hold up lower ones.
pub const STALL: Duration = Duration::from_secs(3);

/// Smallest and largest send window of a connection, in bytes.
pub const SEND_WINDOW: std::ops::RangeInclusive<u64> = (256 << 10)..=(32 << 20);
/// Smallest chunk, in bytes.
pub const CHUNK_MIN: usize = 16 * 1024;
/// Line time that one chunk may take.
const CHUNK_TIME: Duration = Duration::from_millis(20);
/// Line time that may wait in the transport behind what is on its way.
pub const WINDOW_TIME: Duration = Duration::from_millis(100);

/// One connection's shares.
#[derive(Debug, Default)]
pub struct Share {
    classes: [Class; 4],
}

#[derive(Debug, Default, Clone, Copy)]
struct Class {
    /// Lanes that have something to send.
    busy: u32,
    /// Saved bytes, in units of 1/[`SAVE_PER`] byte.
    saved: u64,
    /// When it last wrote, or began to have something to send.
    moved: Monotonic,
}

impl Share {
    /// A lane of this class has something to send, until [`leave`](Self::leave).
    pub fn enter(&mut self, class: Urgency, now: Monotonic) {
        let c = &mut self.classes[class.index()];
        if c.busy == 0 {
            (c.saved, c.moved) = (0, now);
        }
        c.busy += 1;
    }

    /// A lane of this class has nothing more to send.
    pub fn leave(&mut self, class: Urgency) {
        let c = &mut self.classes[class.index()];
        c.busy = c.busy.saturating_sub(1);
    }

    /// Asks to write `bytes` now. When true, they count as written.
    pub fn grant(&mut self, class: Urgency, bytes: u64, now: Monotonic) -> bool {
        let index = class.index();
        let held_up =
            self.classes[..index].iter().any(|c| c.busy > 0 && now.since(c.moved) < STALL);
        let price = bytes.min(SAVED_MAX) * SAVE_PER;
        if held_up && self.classes[index].saved < price {
            return false;
        }
        for (i, c) in self.classes.iter_mut().enumerate() {
            if i == index {
                c.moved = now;
                c.saved = if held_up { c.saved - price } else { c.saved };
            } else if c.busy > 0 {
                c.saved = c.saved.saturating_add(bytes).min(SAVED_MAX * SAVE_PER);
            }
        }
        true
    }
}

/// The send window for a line with this congestion window and round-trip time, in bytes: what is
/// on its way, and behind it [`WINDOW_TIME`] of the line, or half as much again where that is more
/// (on long lines, so that the congestion window can grow). STAT waits behind no more than this.
pub fn send_window(cwnd: u64, rtt: Duration) -> u64 {
    let line_time = bytes_in(WINDOW_TIME, cwnd, rtt);
    let ready = line_time.max(cwnd / 2);
    cwnd.saturating_add(ready).clamp(*SEND_WINDOW.start(), *SEND_WINDOW.end())
}

/// The chunk size for a line with this congestion window and round-trip time, in bytes.
pub fn chunk_size(cwnd: u64, rtt: Duration) -> usize {
    let bytes = usize::try_from(bytes_in(CHUNK_TIME, cwnd, rtt)).unwrap_or(CHUNK_MAX);
    bytes.clamp(CHUNK_MIN, CHUNK_MAX)
}

fn bytes_in(time: Duration, cwnd: u64, rtt: Duration) -> u64 {
    let micros = rtt.as_micros().max(1);
    u64::try_from(u128::from(cwnd) * time.as_micros() / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Urgency::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn a_stat_chunk_never_waits_for_a_grant() {
        let mut share = Share::default();
        for class in Urgency::ALL {
            share.enter(class, at(0));
            share.grant(class, CHUNK_MAX as u64, at(0));
        }
        assert!((0..100).all(|_| share.grant(Stat, CHUNK_MAX as u64, at(0))));
    }

    #[test]
    fn a_lower_class_pauses_between_chunks_while_a_higher_one_has_something_to_send() {
        let mut share = Share::default();
        share.enter(Bulk, at(0));
        assert!(share.grant(Bulk, 1000, at(0)));
        share.enter(Stat, at(0));
        assert!(!share.grant(Bulk, 1000, at(1)));
        share.leave(Stat);
        assert!(share.grant(Bulk, 1000, at(1)));
    }

    #[test]
    fn a_higher_class_that_is_stuck_does_not_stop_the_line() {
        let mut share = Share::default();
        share.enter(Stat, at(0));
        share.enter(Routine, at(0));
        assert!(!share.grant(Routine, 1000, at(2)));
        assert!(share.grant(Routine, 1000, at(3)));
        share.grant(Stat, 1000, at(4));
        assert!(!share.grant(Routine, 1000, at(5)));
    }

    proptest! {
        #[test]
        fn every_waiting_class_keeps_about_five_per_cent_of_the_line(
            sizes in prop::collection::vec(CHUNK_MIN as u64..CHUNK_MAX as u64, 4),
            present in prop::sample::subsequence(vec![Urgent, Routine, Bulk], 1..=3),
        ) {
            let mut share = Share::default();
            let mut written = [0_u64; 4];
            share.enter(Stat, at(0));
            present.iter().for_each(|c| share.enter(*c, at(0)));
            for _ in 0..20_000 {
                for class in present.iter().rev().chain(&[Stat]) {
                    let size = sizes[class.index()];
                    if share.grant(*class, size, at(0)) {
                        written[class.index()] += size;
                    }
                }
            }
            let total: u64 = written.iter().sum();
            for class in &present {
                let part = written[class.index()] as f64 / total as f64;
                prop_assert!((0.045..0.055).contains(&part), "{class} had {part}");
            }
        }
    }

    #[test]
    fn the_send_window_holds_the_line_full_and_never_more_than_32_mib() {
        // 100 Mbit/s at 300 ms: 3.75 MB on their way.
        assert_eq!(send_window(3_750_000, Duration::from_millis(300)), 5_625_000);
        // 100 Mbit/s at 20 ms: 250 kB on their way, 100 ms of the line behind them.
        assert_eq!(send_window(250_000, Duration::from_millis(20)), 1_500_000);
        assert_eq!(send_window(12_000, Duration::from_millis(100)), 256 << 10);
        assert_eq!(send_window(600 << 20, Duration::from_micros(80)), 32 << 20);
        assert_eq!(send_window(u64::MAX, Duration::ZERO), 32 << 20);
    }

    #[test]
    fn a_chunk_takes_at_most_twenty_milliseconds_of_a_slow_line() {
        // 20 Mbit/s at 100 ms.
        assert_eq!(chunk_size(250_000, Duration::from_millis(100)), 50_000);
        assert_eq!(chunk_size(12_000, Duration::from_millis(100)), CHUNK_MIN);
        assert_eq!(chunk_size(10 << 20, Duration::from_millis(1)), CHUNK_MAX);
    }
}
