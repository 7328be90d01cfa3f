//! Orders, evidence, gaps: which images a study should have, which lack, and what to do.
//!
//! Pure but for [`registrar`], [`commitment`], [`passing`], [`retriever`], [`notifier`] and
//! [`worklist::poll`]: no I/O, no tasks, no clock; time and events come as arguments, decisions go out
//! as values. The registrar owns all of this state, stores it durably in custody,
//! and acts.
//!
//! ```text
//!  messages ──▶ history ──▶ order ──┐ matching ◀── study facts
//!  statements ▶ evidence ──┐        │    │
//!  instances ──────────────┴▶ tally ┴────┴──▶ verdict ──▶ recall, notice, manifest
//! ```
//!
//! What holds throughout, proven by property tests: the outcome does not depend on the order in
//! which messages, statements and images arrive, nor on how often; a statement never makes a gap
//! smaller, but a rejection note and a person's decision do; merging patients and relinking orders
//! lose no image.
//!
//! Wall time is what these rules reckon with, because what they compare outlives the process. A
//! clock that leaps can make a verdict early or late; it moves no image and deletes nothing.

pub mod commitment;
pub mod correction;
pub mod evidence;
pub mod history;
pub mod identifier;
pub mod in_hl7;
pub mod instance;
pub mod judge;
pub mod letter;
pub mod manifest;
pub mod matching;
pub mod merges;
pub mod notice;
pub mod notifier;
pub mod numbering;
pub mod order;
pub mod part;
pub mod passing;
pub mod priors;
pub mod recall;
pub mod registrar;
pub mod retriever;
pub mod stand_in;
pub mod tally;
pub mod verdict;
pub mod words;
pub mod worklist;

pub use judge::judge;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
