//! Changes become rows of the target.
//!
//! ```text
//! messages ─► Batcher ─► Batch ─► Applier ─► one target transaction: rows + checkpoint
//!              (pure)             │
//!                                 ├─ encoder.rs     a batch as a script, and what it must come to
//!                                 │   ├─ set/          many changes of a table at a time
//!                                 │   ├─ statement.rs  the SQL for one change (pure)
//!                                 │   └─ table.rs      a source relation fitted to a target table
//!                                 └─ explain.rs     why a batch could not be applied
//! ```
//!
//! A [`Batch`] is what goes to the target in one round. Tables with many changes in it are written in
//! sets; what can't be, or fails, is applied in the original order, one statement a change. Either
//! way the rows that a statement touched are counted: a change does exactly what it did on the source,
//! or the stream stops there (rule C4).

mod applier;
mod batch;
mod encoded;
mod encoder;
mod explain;
mod set;
mod statement;
mod statements;
mod table;
mod tables;
mod watchdog;

pub use applier::{Applied, Applier, Failure, Round};
pub use batch::{Batch, Batcher, Change, OutOfOrder, Position, Skipped, Transaction};
pub use watchdog::watch;
