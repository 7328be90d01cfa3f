//! hikyaku: a DICOM store-and-forward teleradiology gateway.
//!
//! The map of the crate, in the order in which an image walks through it. A module imports only
//! from ranks below its own, never a sibling of its rank (`tests/house.rs` holds this), with three
//! exceptions: [`cargo`] is stamped by [`clock`], [`reports`] are matched to [`orders`], and [`node`]
//! is built from [`config`].
//!
//! | rank | modules |
//! |---|---|
//! | 0 | [`calls`], [`cargo`], [`clock`], [`dicom`], [`hl7`], [`metrics`] |
//! | 1 | [`routing`], [`custody`], [`inquiry`] |
//! | 2 | [`intake`], [`tunnel`], [`delivery`], [`orders`], [`reports`] |
//! | 3 | [`ops`] |
//! | 4 | [`config`], [`node`] |
//! | 5 | [`cli`] and the binary |

// How whoever owns some state is asked: a call, its answer, what a turn owes.
pub mod calls;

// What a node keeps and carries: names, identities, urgency, the envelope.
pub mod cargo;

// Monotonic time that decides, wall time that only labels.
pub mod clock;

// DICOM: identifiers, header reading, command sets, upper-layer framing.
pub mod dicom;

// HL7 version 2: framing, character sets, messages, orders, acknowledgements.
pub mod hl7;

// Every metric name, once.
pub mod metrics;

// Which destinations a piece of cargo has; pure.
pub mod routing;

// The promise: spool, ledger, schedule, recovery.
pub mod custody;

// Asks other application entities: query, retrieve, steps, events of commitment.
pub mod inquiry;

// DICOM associations into custody.
pub mod intake;

// Custody to custody over QUIC: offer, resume, receipt.
pub mod tunnel;

// C-STORE, HL7 and folder senders.
pub mod delivery;

// Orders, evidence, gaps: which images lack, and what to do.
pub mod orders;

// Reports: whose they are, which version counts, who must see them, how they come home.
pub mod reports;

// Metrics page, health, the operator's socket, the API, audit.
pub mod ops;

// The configuration file: raw, then checked.
pub mod config;

// Builds, starts and drains a node; the one place that knows all parts.
pub mod node;

// Commands and exit codes.
pub mod cli;
