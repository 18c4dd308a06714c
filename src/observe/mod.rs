//! What an operator sees: read from the ledger and from the source, whether a daemon runs or not.

mod bars;
mod copy;
mod history;
mod lag;
mod old_side;
mod report;
mod show_copy;
mod status;
mod tell_service;

pub use bars::Screen;
pub use history::{History, Point, Since};
pub use lag::{Lag, Limits, Verdict};
pub use old_side::OldSide;
pub use report::changes;
pub use show_copy::show_copy;
pub use status::{Status, Written, look, status};
pub use tell_service::tell_service;
