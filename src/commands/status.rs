//! `cdc status`.

use tokio::time::timeout;

use super::{Exit, json, print, watch};
use crate::cli::Status as Arguments;
use crate::config::Config;
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::observe::{Limits, Status, Verdict, status};

/// Prints the status; the exit status says the same to a script.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    if arguments.watch {
        return watch::run(config, arguments).await;
    }
    let status = look(config, arguments).await?;
    print(&if arguments.json { json(&status)? } else { status.to_string() })?;
    Ok(exit(&status))
}

async fn look(config: &Config, arguments: &Arguments) -> Result<Status> {
    let limits = Limits { bytes: arguments.max_lag_bytes, seconds: arguments.max_lag_seconds };
    let look = status(config, &limits, if arguments.incidents { 100 } else { 1 });
    match timeout(limits::SILENCE, look).await {
        Ok(status) => status,
        Err(_) => {
            let seconds = limits::SILENCE.as_secs();
            Err(Fault::unreachable(Side::Target, format!("the status could not be had within {seconds} s")))
        }
    }
}

/// What a status means for a script.
pub(super) fn exit(status: &Status) -> Exit {
    match status.verdict {
        Verdict::Stopped | Verdict::Blocked | Verdict::Lost => Exit::Person,
        Verdict::Streaming | Verdict::Behind | Verdict::Copying if status.source_error.is_some() => {
            Exit::Unreachable
        }
        Verdict::Streaming | Verdict::Done => Exit::Yes,
        Verdict::Behind | Verdict::Copying => Exit::No,
    }
}
