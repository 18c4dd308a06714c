//! The copy: a table's chunks are planned, and readers carry them over one by one.
//!
//! ```text
//! plan ─► ranges of the key        reader ─► LOCK, snapshot ─► engine: accepted? ─► COPY to COPY
//!                                        ─► message, position ─► rows + done, one transaction
//! ```
//!
//! A reader knows nothing of the stream. It offers the snapshot that it has taken to the engine, which
//! accepts it or has it take another one; what that is about is said in [`crate::route`].

mod again;
mod format;
mod partitions;
mod pipe;
mod plan;
mod planner;
mod reader;
mod repair;
pub mod statements;
mod table;
mod who;

pub use format::Format;
pub use partitions::takes_others;
pub use pipe::Throttle;
pub use plan::plan;
pub use planner::{
    CopiedAgain, Look, Planned, PlannedTable, Planner, PlannerSettings, current_snapshot, existing_rows,
    fence, snapshot,
};
pub use reader::{Answer, Copied, Job, Offered, Reader, Readers};
pub use table::TableCopy;
pub use who::who;
