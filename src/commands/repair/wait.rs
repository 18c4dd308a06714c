//! The wait for the daemon, which never is for ever.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::fault::{Fault, Result, Side};
use crate::ledger::{DaemonNow, Ledger};
use crate::limits;

const INTERVAL: Duration = Duration::from_millis(250);

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Each request is over, or refused.
    Over,
    /// No daemon is running.
    NoDaemon,
    /// The operator didn't want to wait.
    Interrupted,
}

/// Waits until each of these requests is over.
///
/// # Errors
/// If the daemon is blocked, or nothing moves for [`limits::REPAIR_PATIENCE`].
pub(super) async fn wait(ledger: &Ledger, requests: &[i64]) -> Result<Ended> {
    let line = ProgressBar::new_spinner().with_message("waiting for the daemon");
    line.enable_steady_tick(INTERVAL);
    let ended = tokio::select! {
        ended = over(ledger, requests, &line) => ended,
        _ = tokio::signal::ctrl_c() => Ok(Ended::Interrupted),
    };
    line.finish_and_clear();
    ended
}

async fn over(ledger: &Ledger, requests: &[i64], line: &ProgressBar) -> Result<Ended> {
    let mut moved = (String::new(), None);
    let mut moved_at = Instant::now();
    // A daemon that is asked begins anew within a moment, and a service manager starts one that has ended.
    let mut well_at = Instant::now();
    let mut has_run = false;
    loop {
        if !ledger.open_repairs().await?.iter().any(|repair| requests.contains(&repair.id)) {
            return Ok(Ended::Over);
        }
        let daemon = ledger.daemon_now().await?.unwrap_or_default();
        has_run |= daemon.is_running;
        if daemon.is_running && daemon.state != "blocked" {
            well_at = Instant::now();
        }
        if !has_run || (!daemon.is_running && well_at.elapsed() > limits::REPAIR_GRACE) {
            return Ok(Ended::NoDaemon);
        }
        if well_at.elapsed() > limits::REPAIR_GRACE {
            return Err(stuck("the daemon is blocked"));
        }
        let now = (progress(ledger, &daemon).await?, daemon.checkpoint);
        line.set_message(format!("copying again: {} (Ctrl-C: the daemon goes on without you)", now.0));
        if now != moved {
            (moved, moved_at) = (now, Instant::now());
        } else if moved_at.elapsed() > limits::REPAIR_PATIENCE {
            let seconds = limits::REPAIR_PATIENCE.as_secs();
            return Err(stuck(&format!("nothing has moved for {seconds} s ({})", moved.0)));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn stuck(what: &str) -> Fault {
    Fault::person(format!("{what}; the repair is recorded, and the daemon goes on with it when it can"))
        .on(Side::Target)
        .remedy("see cdc status, and run cdc verify when it streams")
}

/// How far it is, in words that change when something moves.
async fn progress(ledger: &Ledger, daemon: &DaemonNow) -> Result<String> {
    Ok(match ledger.copy_progress().await? {
        Some(copy) if !copy.is_complete() => {
            let left = copy.chunks - copy.chunks_done;
            format!("{left} of {} chunks left, {} rows on the target", copy.chunks, copy.rows)
        }
        Some(_) | None => format!("the daemon is {}", daemon.state),
    })
}
