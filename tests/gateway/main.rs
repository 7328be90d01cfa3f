//! Whole nodes, real networks, foreign programs: what docs/testing.md lists, by experiment.
//!
//! One test binary; each module tells one kind of story. `tests/run` prepares what it needs.

mod attack;
mod chance;
mod crash;
mod foreign;
mod forwarding;
mod hostile_dicom;
mod hostile_quic;
mod http;
mod line;
mod orthanc;
mod part10;
mod ports;
mod power;
mod reload;
mod rogue;
mod sender;
mod service;
mod site;
mod spool;
mod trace;
mod tunnel_faults;
