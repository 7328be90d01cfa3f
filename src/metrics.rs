//! Every metric name, once. Any part may count; [`crate::ops`] shows.
//!
//! Labels are words of ours (destination, urgency, reason), never anything that a peer sent.
