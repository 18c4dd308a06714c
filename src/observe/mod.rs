//! What an operator sees: read from the ledger and from the source, whether a daemon runs or not.

mod copy;
mod lag;
mod report;
mod status;

pub use lag::{Lag, Limits, Verdict};
pub use status::{Status, status};
