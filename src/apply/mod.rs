//! Changes become rows of the target.
//!
//! ```text
//! messages ─► Batcher ─► Batch ─► Applier ─► one target transaction: rows + checkpoint
//!              (pure)             │
//!                                 ├─ table.rs       a source relation fitted to a target table
//!                                 ├─ statement.rs   the SQL for one change (pure)
//!                                 ├─ in_flight.rs   pipelining, bounded in bytes
//!                                 └─ explain.rs     why a batch could not be applied
//! ```
//!
//! A [`Batch`] is what goes to the target in one round. The applier applies its changes in their
//! original order, one statement each, and counts the rows that each one touched: a change either
//! does exactly what it did on the source, or the stream stops there (rule C4).

mod applier;
mod batch;
mod explain;
mod in_flight;
mod statement;
mod table;
mod watchdog;

pub use applier::{Applied, Applier, Failure};
pub use batch::{Batch, Batcher, Change, OutOfOrder, Position, Skipped, Transaction};
pub use watchdog::watch;
