//! Copying the rows that were there before the stream, chunk by chunk.
//!
//! [`plan`] cuts a table into chunks, and [`statements`] says how one is read, removed and written.

mod plan;
pub mod statements;

pub use plan::plan;
