//! Random moments that can be had again: each test prints its seed, and `HIKYAKU_SEED` sets it.

use std::time::Duration;

use crate::sender::step;

/// A source of random numbers.
pub(crate) struct Chance(u64);

impl Chance {
    /// For the story of this name.
    pub(crate) fn new(name: &str) -> Self {
        let given = std::env::var("HIKYAKU_SEED").ok().and_then(|s| s.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
            now.as_nanos() as u64
        });
        eprintln!("{name}: HIKYAKU_SEED={seed}");
        Self(step(seed | 1))
    }

    fn next(&mut self) -> u64 {
        self.0 = step(self.0);
        self.0 >> 16
    }

    /// Less than `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// A time of so many milliseconds.
    pub(crate) fn time(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// How often a storm strikes: the variable's value, or what the short version takes.
pub(crate) fn scale(variable: &str, short: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(short)
}
