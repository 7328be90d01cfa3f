//! Custody to custody over QUIC.

pub mod exchange;
pub mod frame;
pub mod pki;
pub mod receipt;
pub mod share;
pub mod trust;
