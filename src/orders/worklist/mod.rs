//! The modality worklist (PS3.4 K), both ways. Pure but for [`poll`].
//!
//! ```text
//!  identifier ─▶ query ─┐                          RIS ─▶ item ─▶ news ─▶ registrar
//!  order ─▶ entry ──────┴─▶ match ─▶ answer              (poll asks)
//! ```
//!
//! **As SCP** a node answers with the scheduled steps of the orders that it knows, its own and those
//! that other nodes have told it of. Shown are orders that are requested or in progress; cancelled,
//! discontinued and performed ones are not. A query that names no date, study, accession number,
//! order, procedure or patient gets what is scheduled from [`SHOWN_DAYS`] days ago on.
//!
//! **As SCU** it asks a RIS at short intervals, and what the items say becomes orders.

mod answer;
mod entry;
mod item;
mod news;
mod pattern;
mod period;
pub mod poll;
mod query;

pub use answer::answer;
pub use entry::{Entry, entries, is_shown};
pub use item::{Item, ItemError, identifier, read, unite};
pub use news::news;
pub use pattern::{NamePattern, Pattern};
pub use period::{Dates, Times};
pub use query::{Found, Query};

/// Days for which an order is shown after its time where the query does not say which it wants.
pub const SHOWN_DAYS: i64 = 30;
/// Longest value of a key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests;
