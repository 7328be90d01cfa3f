//! How much may be under way on a line: Cubic (RFC 9438) for a connection that stands for several.
//!
//! All lanes to a peer share one QUIC connection, where other senders open an association for each
//! stream of images. Cubic gives up three tenths of its window at each loss, whoever caused it; of
//! four connections only one does. So this window behaves as that of four connections
//! together: it gives up a quarter as much, and grows as they would. A line shared with others is
//! shared as if by so many connections, not more.
//!
//! - Losses within one round trip count once.
//! - The first loss ends slow start and halves the window, which had doubled in the last round
//!   trip.
//! - When all of a long time is lost (RFC 9002 7.6), it begins anew.
//!
//! Pure: time comes with each event.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// Connections that one tunnel stands for: as many as there are lanes for routine cargo.
const FLOWS: f64 = 4.0;
/// What one connection keeps of its window at a loss.
const BETA_ONE: f64 = 0.7;
/// What all of them keep together when one of them has a loss.
const BETA: f64 = (FLOWS - 1.0 + BETA_ONE) / FLOWS;
/// Growth of one connection that loses as much as Reno, in packets per round trip, times FLOWS.
const ALPHA: f64 = 3.0 * FLOWS * FLOWS * (1.0 - BETA) / (1.0 + BETA);
/// Speed of the cubic growth, in packets per second cubed.
const C: f64 = 0.4 * FLOWS;
/// Packets that a new connection may send (RFC 9002 7.2).
const INITIAL_PACKETS: u64 = 10;
/// Packets that it may send at the least.
const MINIMUM_PACKETS: u64 = 2;

/// Makes a window for each connection.
#[derive(Debug, Default)]
pub struct Flows;

impl ControllerFactory for Flows {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Window::new(current_mtu))
    }
}

/// The congestion window of one connection. Bytes are `f64` because growth comes in fractions.
#[derive(Debug, Clone)]
pub struct Window {
    packet: f64,
    bytes: f64,
    /// Slow start ends here.
    threshold: f64,
    /// The window before the last loss: growth is slow near it.
    top: f64,
    /// What connections that grow as Reno does would have by now.
    friendly: f64,
    /// Packets sent before this do not count: the window has been cut for their round trip.
    cut_at: Option<Instant>,
}

impl Window {
    /// Of a connection whose packets have at most `mtu` bytes.
    pub fn new(mtu: u16) -> Self {
        let packet = f64::from(mtu);
        Self {
            packet,
            bytes: packet * INITIAL_PACKETS as f64,
            threshold: f64::INFINITY,
            top: 0.0,
            friendly: 0.0,
            cut_at: None,
        }
    }

    /// Bytes that may be under way.
    pub const fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    fn minimum(&self) -> f64 {
        self.packet * MINIMUM_PACKETS as f64
    }

    /// `acked` bytes that were sent at `sent` have arrived.
    pub fn arrived(&mut self, now: Instant, sent: Instant, acked: u64, rtt: Duration) {
        let acked = acked as f64;
        if self.cut_at.is_some_and(|cut| sent <= cut) {
            return;
        }
        if self.bytes < self.threshold {
            self.bytes += acked;
            return;
        }
        let since = now.saturating_duration_since(self.cut_at.unwrap_or(now)) + rtt;
        self.friendly += ALPHA * self.packet * acked / self.bytes;
        let target = self.cubic(since).clamp(self.bytes, self.bytes * 1.5);
        self.bytes += (target - self.bytes) * acked / self.bytes;
        self.bytes = self.bytes.max(self.friendly);
    }

    /// Where the curve is, `since` after the last loss: at [`BETA`] of `top` first, level at it.
    fn cubic(&self, since: Duration) -> f64 {
        let top = self.top / self.packet;
        let level_at = (top * (1.0 - BETA) / C).cbrt();
        (C * (since.as_secs_f64() - level_at).powi(3) + top) * self.packet
    }

    /// Packets were lost, the latest of them sent at `sent`; with `all` nothing of a long time
    /// arrived.
    pub fn lost(&mut self, now: Instant, sent: Instant, all: bool) {
        if self.cut_at.is_some_and(|cut| sent <= cut) {
            return;
        }
        self.cut_at = Some(now);
        let before = self.bytes;
        self.top = if self.threshold.is_infinite() {
            before * 0.5 / BETA
        } else if before < self.top {
            // The old top was not reached again: somebody else needs room (RFC 9438 4.7).
            before * (1.0 + BETA) / 2.0
        } else {
            before
        };
        let keep = if self.threshold.is_infinite() { 0.5 } else { BETA };
        self.bytes = (before * keep).max(self.minimum());
        self.threshold = self.bytes;
        self.friendly = self.bytes;
        if all {
            self.cut_at = None;
            self.bytes = self.minimum();
        }
    }
}

impl Controller for Window {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        // A window that is not used says nothing about the line.
        if !app_limited {
            self.arrived(now, sent, bytes, rtt.get());
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        _lost_bytes: u64,
    ) {
        self.lost(now, sent, is_persistent_congestion);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet = f64::from(new_mtu);
        self.bytes = self.bytes.max(self.minimum());
    }

    fn window(&self) -> u64 {
        self.bytes()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.packet as u64 * INITIAL_PACKETS
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    /// A window in the middle of its life, and when that is.
    fn settled() -> (Window, Instant) {
        let mut window = Window::new(1200);
        let mut now = Instant::now();
        for _ in 0..6 {
            now = round(&mut window, now);
        }
        let sent = now;
        now += RTT;
        window.lost(now, sent, false);
        (window, now)
    }

    /// A round trip in which all arrives.
    fn round(window: &mut Window, now: Instant) -> Instant {
        let (mut left, then) = (window.bytes(), now + RTT);
        while left > 0 {
            let acked = left.min(2400);
            window.arrived(then, now + Duration::from_nanos(1), acked, RTT);
            left -= acked;
        }
        then
    }

    #[test]
    fn the_window_doubles_each_round_trip_until_the_first_loss_halves_it() {
        let mut window = Window::new(1200);
        let now = Instant::now();
        let then = round(&mut window, now);
        assert_eq!(window.bytes(), 2 * window.initial_window());
        window.lost(then + RTT, then, false);
        assert_eq!(window.bytes(), window.initial_window());
    }

    #[test]
    fn a_loss_costs_a_quarter_of_what_it_costs_one_connection() {
        let (mut window, now) = settled();
        let before = window.bytes();
        window.lost(now + RTT, now + RTT / 2, false);
        let cost = 1.0 - window.bytes() as f64 / before as f64;
        assert!((cost - 0.3 / 4.0).abs() < 0.001, "{cost}");
    }

    #[test]
    fn losses_of_one_round_trip_count_once() {
        let (mut window, now) = settled();
        window.lost(now + RTT, now + RTT / 2, false);
        let after = window.bytes();
        window.lost(now + RTT + RTT / 2, now + RTT, false);
        assert_eq!(window.bytes(), after);
    }

    #[test]
    fn after_a_loss_the_window_comes_back_and_goes_on_growing() {
        let (mut window, mut now) = settled();
        let before = window.bytes();
        window.lost(now + RTT, now + RTT / 2, false);
        now += RTT;
        for _ in 0..200 {
            now = round(&mut window, now);
        }
        assert!(window.bytes() > before, "{} after {before}", window.bytes());
    }

    #[test]
    fn when_all_is_lost_it_begins_anew_with_two_packets() {
        let (mut window, now) = settled();
        window.lost(now + RTT, now + RTT / 2, true);
        assert_eq!(window.bytes(), 2400);
        round(&mut window, now + RTT);
        assert_eq!(window.bytes(), 4800);
    }

    #[test]
    fn no_number_of_losses_makes_it_less_than_two_packets() {
        let (mut window, mut now) = settled();
        for _ in 0..1000 {
            now += RTT;
            window.lost(now, now - RTT / 2, false);
        }
        assert_eq!(window.bytes(), 2400);
    }
}
