//! Whole nodes, real networks, foreign programs: what docs/testing.md lists, by experiment.
//!
//! One test binary; each module tells one kind of story. `tests/run` prepares what it needs.

mod chance;
mod crash;
mod damage;
mod disk;
mod foreign;
mod forwarding;
mod http;
mod leap;
mod limits;
mod line;
mod mount;
mod orthanc;
mod part10;
mod ports;
mod power;
mod reload;
mod sender;
mod service;
mod site;
mod spool;
mod trace;
