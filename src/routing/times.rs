//! What a route says of how long its images are waited for. Pure.

use std::time::Duration;

/// How long is waited for what a route takes; what is absent is as for all other studies and orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// After the last image and the last word on it, what lacks is no longer arriving.
    pub settle: Option<Duration>,
    /// After the last image nothing more is expected unless evidence says so.
    pub quiet: Option<Duration>,
    /// After its scheduled time an order without images is overdue.
    pub overdue: Option<Duration>,
    /// Whether images without an order are a finding.
    pub expected: Option<bool>,
}

impl Times {
    /// Of two rules that both apply the longer of each time: a study is not presumed complete earlier
    /// than any of its routes allows. Where one expects an order, one is expected.
    pub fn longest(self, other: Self) -> Self {
        Self {
            settle: self.settle.max(other.settle),
            quiet: self.quiet.max(other.quiet),
            overdue: self.overdue.max(other.overdue),
            expected: self.expected.max(other.expected),
        }
    }
}
