//! The report of how it goes, every so often: phase, tables, elapsed, time left, errors, on track or delayed. Pure.

use std::time::{Duration, SystemTime};

use indicatif::HumanDuration;
use tokio::time::Instant;

use super::news::Look;
use crate::ledger::CopyProgress;
use crate::observe::{Status, Verdict};

/// By how much the end of the copy may move from one report to the next, in parts of the time between them.
const MOVED: f64 = 0.25;

/// When reports are due, and what the last one has said.
pub(super) struct Progress {
    every: Duration,
    next: Instant,
    /// When the copy was expected to end.
    end: Option<SystemTime>,
}

impl Progress {
    /// The first is due after that time.
    pub(super) fn new(every: Duration, at: Instant) -> Self {
        Self { every, next: at + every, end: None }
    }

    /// The report, if it is time.
    pub(super) fn due(&mut self, look: Look<'_>) -> Option<String> {
        if look.at < self.next {
            return None;
        }
        self.next = look.at + self.every;
        Some(match look.status {
            Ok(status) => self.report(status, look.time),
            Err(fault) => format!("delayed: a database can't be asked: {fault}"),
        })
    }

    fn report(&mut self, status: &Status, time: SystemTime) -> String {
        let copy = status.copy.as_ref().filter(|copy| !copy.is_complete());
        let left =
            copy.and_then(|copy| copy.eta_seconds).and_then(|left| Duration::try_from_secs_f64(left).ok());
        let end = left.and_then(|left| time.checked_add(left));
        let before = std::mem::replace(&mut self.end, end);
        let moved =
            before.zip(end).and_then(|(before, end)| end.duration_since(before).ok()).unwrap_or_default();
        let track = match status.verdict {
            Verdict::Streaming | Verdict::Done => "on track".to_owned(),
            Verdict::Copying if copy.is_some() && left.is_none() => "delayed: nothing moves".to_owned(),
            Verdict::Copying if moved > self.every.mul_f64(MOVED) => {
                format!("delayed: the end has moved by {}", HumanDuration(moved))
            }
            Verdict::Copying => "on track".to_owned(),
            Verdict::Behind => "delayed: behind".to_owned(),
            Verdict::Blocked | Verdict::Stopped | Verdict::Lost => format!("delayed: {}", status.verdict),
        };
        let phase = status.phase.map_or("not begun", |phase| phase.as_str());
        let mut parts = vec![format!("phase {phase}, {track}")];
        parts.extend(status.copy.as_ref().map(tables));
        parts.extend(elapsed(status, time).map(|elapsed| format!("elapsed {}", HumanDuration(elapsed))));
        parts.extend(left.zip(end).map(|(left, end)| {
            let end = humantime::format_rfc3339_seconds(end).to_string();
            format!(
                "{} left, until about {}",
                HumanDuration(left),
                end.replace('T', " ").replace('Z', " UTC")
            )
        }));
        parts.extend(status.lag.and_then(|lag| lag.seconds).map(|seconds| format!("lag {seconds:.1} s")));
        parts.push(format!("open incidents {}", status.open_incidents));
        parts.join("; ")
    }
}

fn tables(copy: &CopyProgress) -> String {
    let percent = (copy.fraction * 100.0).floor();
    format!("tables {} of {}, {percent:.0} percent", copy.tables_done, copy.tables)
}

/// Since the migration began.
fn elapsed(status: &Status, time: SystemTime) -> Option<Duration> {
    let begun_at = status.begun_at.as_ref()?.replace("+00:00", "Z");
    time.duration_since(humantime::parse_rfc3339(&begun_at).ok()?).ok()
}
