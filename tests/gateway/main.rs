//! Whole nodes, real networks, foreign programs: what docs/testing.md lists, by experiment.
//!
//! One test binary; each module tells one kind of story. `tests/run` prepares what it needs.

// Parts of the bench stand ready for experiments that are still being written.
#![allow(dead_code)]

mod attack;
mod chance;
mod crash;
mod damage;
mod disk;
mod foreign;
mod forwarding;
mod guides;
mod hostile_dicom;
mod hostile_quic;
mod http;
mod leap;
mod limits;
mod line;
mod mount;
mod orthanc;
mod part10;
mod ports;
mod power;
mod refusals;
mod reload;
mod rogue;
mod sender;
mod service;
mod site;
mod spool;
mod trace;
mod tunnel_faults;
mod urgency;
