//! How long to wait after a failure: exponential, capped, with full jitter. Pure: the random
//! number is an argument.

use std::time::Duration;

/// Back-off that doubles from `first` to `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait after the first failure.
    pub first: Duration,
    /// Longest wait after any failure.
    pub cap: Duration,
}

/// A wait is at least this part of `first`: full jitter may otherwise draw zero, and a hundred
/// nodes that try at once are what jitter is against.
const FLOOR_DIVISOR: u32 = 4;

impl Backoff {
    /// The longest wait after `failures` failures in a row; zero after none.
    pub fn ceiling(&self, failures: u32) -> Duration {
        match failures {
            0 => Duration::ZERO,
            n => self.first.saturating_mul(2u32.saturating_pow(n - 1)).min(self.cap),
        }
    }

    /// The wait after `failures` failures in a row; `random` is uniform in 0..1.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let ceiling = self.ceiling(failures);
        let floor = (self.first / FLOOR_DIVISOR).min(ceiling);
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        ceiling.mul_f64(random).clamp(floor, ceiling)
    }
}

/// A number for [`Backoff::delay`] from the system's generator.
pub(super) fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without entropy there is no jitter, and everything still works.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const B: Backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(60) };

    #[test]
    fn waits_double_up_to_the_cap() {
        let ceilings: Vec<_> = (0..9).map(|n| B.ceiling(n).as_secs()).collect();
        assert_eq!(ceilings, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(B.ceiling(u32::MAX), B.cap);
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_floor_and_ceiling(n in 1u32..100, random in any::<f64>()) {
            let d = B.delay(n, random);
            prop_assert!(d >= B.first / FLOOR_DIVISOR && d <= B.ceiling(n));
        }
    }
}
