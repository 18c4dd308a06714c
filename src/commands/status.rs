//! `cdc status`.

use super::{Exit, json, print};
use crate::cli::Status as Arguments;
use crate::config::Config;
use crate::fault::Result;
use crate::observe::{Limits, Verdict, status};

/// Prints the status; the exit status says the same to a script.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    let limits = Limits { bytes: arguments.max_lag_bytes, seconds: arguments.max_lag_seconds };
    let status = status(config, &limits, if arguments.incidents { 100 } else { 1 }).await?;
    if arguments.json {
        print(&json(&status)?)?;
    } else {
        print(&status.to_string())?;
    }
    Ok(match status.verdict {
        Verdict::Stopped | Verdict::Blocked | Verdict::Lost => Exit::Person,
        Verdict::Streaming | Verdict::Behind | Verdict::Copying if status.source_error.is_some() => {
            Exit::Unreachable
        }
        Verdict::Streaming => Exit::Yes,
        Verdict::Behind | Verdict::Copying => Exit::No,
    })
}
