//! The promise: whoever hands something over gets a *yes* only once it would survive a power cut,
//! and nothing accepted is dropped, overwritten, or deleted before it is delivered.

mod api;
pub mod state;

pub use api::*;
