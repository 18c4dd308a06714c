//! What a target has to keep apart from its rows: that they refer to one another, and that its sequences go on
//! behind them.
//!
//! Both are read beside the stream: what it commits are whole transactions of the source, so what one statement
//! sees of the target is a state that the source once had, unless rows are still being copied.

mod foreign_keys;
mod sequences;

pub use foreign_keys::{ForeignKey, ForeignKeys, OnTarget, foreign_keys};
pub use sequences::{ColumnSequence, SequenceState, Sequences, sequences};
