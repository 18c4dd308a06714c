//! The progress of the copy in words: the lines of the status, of the log, and beside the bars.

use std::fmt;
use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, HumanFloatCount};

use crate::ledger::{CopyProgress, TableProgress, TableState};

/// The most tables that the status shows.
const TABLES_SHOWN: usize = 10;

impl fmt::Display for CopyProgress {
    /// The lines of the status.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  copy        {}", summary(self))?;
        let shown: Vec<_> = self
            .details
            .iter()
            .filter(|table| matches!(table.state, TableState::Failed | TableState::Copying))
            .take(TABLES_SHOWN)
            .collect();
        for table in &shown {
            write!(f, "              {}: ", table.table)?;
            match table.state {
                TableState::Failed => writeln!(f, "failed at {}, see --incidents", percent(table.fraction))?,
                TableState::Copying | TableState::Pending | TableState::Done => {
                    writeln!(f, "{}", of_table(table))?
                }
            }
        }
        let unfinished = self.details.iter().filter(|table| table.state != TableState::Done).count();
        if unfinished > shown.len() {
            writeln!(f, "              and {} more", HumanCount((unfinished - shown.len()) as u64))?;
        }
        if self.held_back > 0 {
            let what = "constraints and indexes of the target, until their tables are copied";
            writeln!(f, "  held back   {what}: {}", self.held_back)?;
        }
        if !self.held_until_cutover.is_empty() {
            let kinds: Vec<String> =
                self.held_until_cutover.iter().map(|(kind, n)| of_kind(kind, *n)).collect();
            writeln!(f, "  held back   until the cutover: {}", kinds.join(", "))?;
        }
        if let Some(since) = &self.consistent_since {
            writeln!(f, "  consistent  since {since}")?;
        }
        Ok(())
    }
}

/// So many of a kind of `cdc.held_back`.
fn of_kind(kind: &str, number: i64) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {kind}{plural}", count(number))
}

/// The whole in one line.
pub(super) fn summary(progress: &CopyProgress) -> String {
    if progress.is_complete() {
        return format!("complete, rows {}, tables {}", count(progress.rows), count(progress.tables));
    }
    let mut parts = vec![percent(progress.fraction)];
    parts.extend(progress.eta_seconds.and_then(left));
    parts.push(rows(progress.rows, progress.rows_planned));
    parts.push(format!("tables {} of {}", count(progress.tables_done), count(progress.tables)));
    if progress.rows_per_second > 0.0 {
        parts.push(per_second(progress.rows_per_second));
        parts.push(format!("{:.1} MB/s", progress.bytes_per_second / 1e6));
    }
    parts.join(", ")
}

/// A table in one line.
pub(super) fn of_table(table: &TableProgress) -> String {
    let mut parts = vec![percent(table.fraction)];
    parts.extend(table.eta_seconds.and_then(left));
    parts.push(rows(table.rows, table.rows_planned));
    parts.extend(table.rows_per_second.map(per_second));
    parts.join(", ")
}

/// Never 100 before it is done.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.0} %", (fraction * 100.0).floor())
}

fn rows(rows: i64, planned: i64) -> String {
    match planned {
        // The source had no estimate.
        ..=0 => format!("{} rows", count(rows)),
        _ => format!("{} of about {} rows", count(rows), count(planned)),
    }
}

fn per_second(rows: f64) -> String {
    format!("{:.0} rows/s", HumanFloatCount(rows))
}

fn left(seconds: f64) -> Option<String> {
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    Some(format!("about {} left", HumanDuration(duration)))
}

pub(super) fn count(number: i64) -> HumanCount {
    HumanCount(u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(in crate::observe) fn table(name: &str, state: TableState, fraction: f64) -> TableProgress {
        let is_done = state == TableState::Done;
        let is_moving = state == TableState::Copying;
        TableProgress {
            table: format!("public.{name}"),
            state,
            rows: if is_moving { 1234 } else { 0 },
            rows_planned: 5678,
            bytes: 0,
            bytes_planned: 0,
            chunks: 1,
            chunks_done: i64::from(is_done),
            fraction,
            rows_per_second: is_moving.then_some(75.4),
            eta_seconds: is_moving.then_some(60.0),
        }
    }

    pub(in crate::observe) fn progress(details: Vec<TableProgress>) -> CopyProgress {
        let sum = |of: fn(&TableProgress) -> i64| details.iter().map(of).sum();
        CopyProgress {
            tables: sum(|_| 1),
            tables_done: sum(|t| t.chunks_done),
            chunks: sum(|t| t.chunks),
            chunks_done: sum(|t| t.chunks_done),
            rows: sum(|t| t.rows),
            rows_planned: sum(|t| t.rows_planned),
            bytes: 0,
            bytes_planned: 0,
            fraction: 0.4299,
            rows_per_second: 1234.5,
            bytes_per_second: 12_345_678.0,
            eta_seconds: Some(300.0),
            consistent_since: None,
            held_back: 3,
            held_until_cutover: [("foreign key".to_owned(), 4), ("trigger".to_owned(), 1)].into(),
            details,
        }
    }

    /// Of tables in these states, with so many seconds to go.
    pub(crate) fn test_copy(states: impl Iterator<Item = TableState>, eta_seconds: f64) -> CopyProgress {
        let all = progress(states.map(|state| table("t", state, 0.0)).collect());
        let fraction = all.chunks_done as f64 / all.chunks as f64;
        CopyProgress { fraction, eta_seconds: Some(eta_seconds), ..all }
    }

    #[test]
    fn the_status_shows_what_moves_and_what_failed_and_counts_the_rest() {
        let mut tables = vec![table("failed", TableState::Failed, 0.0)];
        tables.extend((0..12).map(|_| table("large", TableState::Copying, 0.9999)));
        tables.extend((0..1000).map(|_| table("waits", TableState::Pending, 0.0)));
        tables.push(table("done", TableState::Done, 1.0));
        let large =
            "              public.large: 99 %, about 60 seconds left, 1,234 of about 5,678 rows, 75 rows/s\n";
        let expected = [
            "  copy        42 %, about 5 minutes left, 14,808 of about 5,757,492 rows, tables 1 of 1,014, \
             1,234 rows/s, 12.3 MB/s\n",
            "              public.failed: failed at 0 %, see --incidents\n",
            &large.repeat(9),
            "              and 1,003 more\n",
            "  held back   constraints and indexes of the target, until their tables are copied: 3\n",
            "  held back   until the cutover: 4 foreign keys, 1 trigger\n",
        ];
        assert_eq!(progress(tables).to_string(), expected.concat());
    }

    #[test]
    fn a_copy_that_is_complete_says_since_when_the_target_is_consistent() {
        let mut done = progress(vec![table("done", TableState::Done, 1.0)]);
        done.rows = 5678;
        done.held_back = 0;
        done.held_until_cutover.clear();
        done.consistent_since = Some("2026-11-21T12:00:00+00:00".to_owned());
        assert_eq!(
            done.to_string(),
            "  copy        complete, rows 5,678, tables 1\n  consistent  since 2026-11-21T12:00:00+00:00\n"
        );
    }
}
