//! What an operator sees: read from the ledger and from the source, whether a daemon runs or not.

mod bars;
mod copy;
mod history;
mod lag;
mod looker;
mod old_side;
mod report;
mod show_copy;
mod slow;
mod status;
mod tell_service;
mod watch;

pub use bars::Screen;
#[cfg(test)]
pub(crate) use copy::tests::test_copy;
pub use history::{History, Point, Since};
pub use lag::{Lag, Limits, Verdict};
pub use looker::{Looker, Seen, keep_looking, status};
pub use old_side::OldSide;
pub use report::changes;
pub use show_copy::show_copy;
pub use slow::record_slowdowns;
pub use status::{SlotStatus, Status, Written, look};
pub use tell_service::tell_service;
pub use watch::View;
