//! Reports: which study they are of, which version counts, who may sign, who must have seen them,
//! and in which forms they go home.
//!
//! ```text
//!  reading node                                          hospital
//!  ORU, SR, PDF, API ─▶ arrive ─▶ collect ─▶ custody ═══ tunnel ═══▶ custody
//!                                               │                       │
//!                  matching, signers ◀─ secretary ─▶ versions    secretary ─▶ home, make ─▶ HIS, PACS, folder
//!                                         │                             ├▶ critical
//!                                         └──────── note ◀═════▶ note ──┴▶ turnaround
//! ```
//!
//! All but `collect` and `secretary` is pure: no I/O, no tasks, no clock; time and events come as
//! arguments, decisions go out as values.
//!
//! What holds throughout, proven by property tests: a report is never matched by guessing; the
//! state of its versions does not depend on the order in which they arrive, nor on how often; a
//! critical result is open until a person has acknowledged it.
//!
//! Wall time is what these rules reckon with, because what they compare outlives the process. A
//! clock that leaps can make a notice early or late; it loses no report.

pub mod arrive;
pub mod collect;
pub mod critical;
pub mod folder;
pub mod home;
pub mod make;
pub mod matching;
pub mod narrative;
pub mod note;
pub mod report;
pub mod said;
pub mod secretary;
pub mod signers;
pub mod turnaround;
pub mod versions;
pub mod words;
