//! Whole nodes, real networks, foreign programs: what docs/testing.md lists, by experiment.
//!
//! One test binary; each module tells one kind of story. `tests/run` prepares what it needs.

mod answers;
mod attack;
mod both_ends;
mod chance;
mod commitment;
mod control;
mod crash;
mod damage;
mod demo;
mod disk;
mod drain;
mod evidence;
mod foreign;
mod forwarding;
mod guides;
mod hl7;
mod hostile_dicom;
mod hostile_quic;
mod http;
mod judging;
mod leap;
mod limits;
mod line;
mod mount;
mod orders;
mod origins;
mod orthanc;
mod pages;
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
mod steps;
mod trace;
mod tunnel_faults;
mod urgency;
