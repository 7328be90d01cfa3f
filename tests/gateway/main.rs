//! Whole nodes, real networks, foreign programs: what docs/testing.md lists, by experiment.
//!
//! One test binary; each module tells one kind of story. `tests/run` prepares what it needs.

// Parts of the bench stand ready for experiments that are still being written.
#![allow(dead_code)]

mod answers;
mod attack;
mod chance;
mod control;
mod crash;
mod drain;
mod foreign;
mod forwarding;
mod guides;
mod hostile_dicom;
mod http;
mod line;
mod orthanc;
mod pages;
mod part10;
mod ports;
mod power;
mod refusals;
mod reload;
mod sender;
mod service;
mod site;
mod spool;
mod trace;
mod urgency;
