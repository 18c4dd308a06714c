//! One direction of replication, end to end.
//!
//! ```text
//! prepare ──► Engine::run: walsender ─► decode ─► Batcher ─► applier task ─► target
//!                              ▲                                  │
//!                              └──── feedback ◄── durable LSN ────┘
//! ```
//!
//! [`prepare()`] compares both ends with the ledger and makes what is missing; a refusal there touches
//! nothing. [`Engine::run`] then owns the stream until it is asked to stop or something fails. There
//! is one way to recover: the engine is dropped, and a new one is prepared from the checkpoint.

/// What the message says in the source's log that a switch waits for (`pg_logical_emit_message`, with the prefix
/// `cdc`): the checkpoint is written at once when the stream has come to it.
pub const BARRIER: &str = "barrier";

mod adopt;
mod copying;
mod jobs;
mod large;
mod leftovers;
mod monitor;
mod prepare;
mod publications;
mod run;
mod task;

pub use large::LargeRows;
pub(crate) use leftovers::{end_leftovers, free_slot};
pub use prepare::{Prepared, prepare};
pub use run::{Ended, Engine};
