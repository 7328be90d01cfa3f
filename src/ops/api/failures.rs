//! Failed logins, by address: each is answered late, and above a number within a minute with "too
//! many". Pure.
//!
//! A right token is always answered, whatever else came from its address: behind one address there
//! may be many systems, and nobody is to be shut out by another's mistake. Tokens are too long to
//! be guessed at any speed; what this bounds is the log and the work.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Monotonic;

/// Failed logins of an address that are answered one by one within a window.
pub const FAILURES_MAX: u32 = 10;
/// For how long they are counted.
pub const WINDOW: Duration = Duration::from_secs(60);
/// How late a failed login is answered.
pub const DELAY: Duration = Duration::from_secs(1);
/// Addresses that are counted apart.
const ADDRESSES_MAX: usize = 1024;

/// How a failed login is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// After [`DELAY`], and it is logged.
    Late,
    /// With "too many": again after so long. The first of them is logged.
    TooMany {
        /// Until the window ends.
        wait: Duration,
        /// It is the first within the window.
        first: bool,
    },
}

/// The failed logins of the last minute.
#[derive(Debug, Default)]
pub struct Failures(HashMap<IpAddr, (Monotonic, u32)>);

impl Failures {
    /// Counts one from `address`. The 64 bits that are a site's in IPv6 count as one address.
    pub fn count(&mut self, address: IpAddr, now: Monotonic) -> Failed {
        let address = match address.to_canonical() {
            IpAddr::V6(a) => IpAddr::V6((a.to_bits() >> 64 << 64).into()),
            v4 => v4,
        };
        let is_over = |begun: Monotonic| now.since(begun) >= WINDOW;
        if !self.0.contains_key(&address) && self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, (begun, _)| !is_over(*begun));
            if self.0.len() >= ADDRESSES_MAX {
                return Failed::TooMany { wait: WINDOW, first: false };
            }
        }
        let (begun, failures) = self.0.entry(address).or_insert((now, 0));
        if is_over(*begun) {
            (*begun, *failures) = (now, 0);
        }
        *failures = failures.saturating_add(1);
        match *failures {
            n if n <= FAILURES_MAX => Failed::Late,
            n => Failed::TooMany {
                wait: WINDOW.saturating_sub(now.since(*begun)),
                first: n == FAILURES_MAX + 1,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn ten_a_minute_are_answered_one_by_one_and_another_address_has_ten_of_its_own() {
        let mut failures = Failures::default();
        let [a, b] = ["10.0.0.1", "::ffff:10.0.0.2"].map(|a| a.parse().unwrap());
        for _ in 0..FAILURES_MAX {
            assert_eq!(failures.count(a, at(5)), Failed::Late);
        }
        let wait = Duration::from_secs(50);
        assert_eq!(failures.count(a, at(15)), Failed::TooMany { wait, first: true });
        assert_eq!(failures.count(a, at(15)), Failed::TooMany { wait, first: false });
        assert_eq!(failures.count(b, at(15)), Failed::Late);
        assert_eq!(failures.count(a, at(65)), Failed::Late, "the minute is over");
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory() {
        let mut failures = Failures::default();
        for n in 0..2000_u32 {
            failures.count(IpAddr::V4(n.into()), at(1));
        }
        assert_eq!(failures.0.len(), ADDRESSES_MAX);
        assert_eq!(failures.count("10.9.9.9".parse().unwrap(), at(100)), Failed::Late);
        assert_eq!(failures.0.len(), 1);
        for n in 0..100_u128 {
            failures.count(IpAddr::V6((1 << 100 | n).into()), at(100));
        }
        assert_eq!(failures.0.len(), 2, "one network of IPv6");
    }
}
