//! `cdc status`.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::live::Live;
use super::{Exit, json, print, write};
use crate::cli::Status as Arguments;
use crate::config::Config;
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::observe::{Limits, Status, Verdict, status};

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Prints the status; the exit status says the same to a script.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    if arguments.watch {
        return watch(config, arguments).await;
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

fn exit(status: &Status) -> Exit {
    match status.verdict {
        Verdict::Stopped | Verdict::Blocked | Verdict::Lost => Exit::Person,
        Verdict::Streaming | Verdict::Behind | Verdict::Copying if status.source_error.is_some() => {
            Exit::Unreachable
        }
        Verdict::Streaming | Verdict::Done => Exit::Yes,
        Verdict::Behind | Verdict::Copying => Exit::No,
    }
}

/// Looks again and again, until it is asked to end or nobody reads it.
async fn watch(config: &Config, arguments: &Arguments) -> Result<Exit> {
    let handler = |kind| signal(kind).map_err(|e| Fault::bug(format!("signals can't be handled: {e}")));
    let (mut interrupt, mut terminate) =
        (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let mut live = Live::on_terminal().filter(|_| !arguments.json);
    // Before the first look nothing is known.
    let mut last = Exit::Unreachable;
    let looks = async {
        loop {
            let next = Instant::now() + INTERVAL;
            let looked = look(config, arguments).await;
            last = looked.as_ref().map_or_else(Exit::from, exit);
            let text = if arguments.json { line(config, &looked)? } else { block(config, &looked) };
            let text = live.as_mut().map_or(format!("{text}\n"), |live| live.draw(&text));
            if !write(&text)? {
                return Ok::<(), Fault>(());
            }
            sleep_until(next).await;
        }
    };
    tokio::select! {
        ended = looks => ended?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(last)
}

/// The JSON object of a look; of one that failed, `{"name": ..., "error": ...}`.
fn line(config: &Config, looked: &Result<Status>) -> Result<String> {
    match looked {
        Ok(status) => serde_json::to_string(status).map_err(|e| Fault::bug(e.to_string())),
        Err(fault) => Ok(json!({"name": config.name, "error": fault.to_string()}).to_string()),
    }
}

/// The text of a look.
fn block(config: &Config, looked: &Result<Status>) -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    match looked {
        Ok(status) => format!("{now}  {status}"),
        Err(fault) => {
            format!("{now}  {}: nothing is known, the target can't be asked\n  {fault}\n", config.name)
        }
    }
}
