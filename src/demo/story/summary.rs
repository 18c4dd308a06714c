//! What a person wants to know when it is over.

use std::fmt;
use std::time::Duration;

use super::migration::{Finished, Worst};
use super::screen::{Screen, count, per_second, size};
use crate::demo::compare::Comparison;
use crate::demo::writer::Written;
use crate::ledger::CopyProgress;

/// Everything that was seen.
pub(super) struct Summary {
    pub(super) copied: Copied,
    pub(super) written: Written,
    pub(super) while_streaming: Worst,
    pub(super) comparison: Comparison,
}

/// How the copy went.
pub(super) struct Copied {
    pub(super) rows: u64,
    /// From the daemon's first start on.
    pub(super) time: Duration,
    pub(super) killed: Killed,
    /// How many of the chunks that were finished at the kill were not copied again.
    pub(super) kept: usize,
    pub(super) worst: Worst,
}

/// Where the daemon was when it was killed.
pub(super) struct Killed {
    /// How far the copy was; nothing if it was over.
    pub(super) half_way: Option<CopyProgress>,
    /// The chunks that were finished by then.
    pub(super) finished: Vec<Finished>,
}

impl Killed {
    /// How many of the finished chunks are still as they were.
    pub(super) fn kept(&self, now: &[Finished]) -> usize {
        self.finished.iter().filter(|chunk| now.contains(chunk)).count()
    }
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.half_way {
            Some(copy) => {
                let (rows, finished) = (count(copy.rows.unsigned_abs()), self.finished.len());
                write!(f, "after {rows} copied rows; {finished} chunks were finished")
            }
            None => f.write_str("while it only followed: the copy was over already"),
        }
    }
}

impl Summary {
    /// Shows it, and the verdict.
    pub(super) fn show(&self, screen: &mut Screen) {
        let Self { copied, written, while_streaming, comparison } = self;
        screen.gap();
        let seconds = copied.time.as_secs_f64();
        let rate = per_second(copied.rows, copied.time);
        screen.fact(
            "copied",
            &format!("{} rows in {seconds:.1} s, all interruptions included: {rate}", count(copied.rows)),
        );
        screen.fact("killed", &format!("with kill -9 {}", copied.killed));
        if copied.killed.half_way.is_some() {
            screen.fact("", &copied.resumed());
        }
        screen.fact("written", &format!("{} rows by the application, all this time:", count(written.rows())));
        screen.fact(
            "",
            &format!(
                "{} inserted, {} upserted, {} updated, {} deleted",
                count(written.inserts),
                count(written.upserts),
                count(written.updates),
                count(written.deletes)
            ),
        );
        screen.fact(
            "lag",
            &format!(
                "at most {:.1} s while it only followed; at most {:.1} s around the kill",
                while_streaming.lag_seconds, copied.worst.lag_seconds
            ),
        );
        let retained = copied.worst.retained_bytes.max(while_streaming.retained_bytes);
        screen.fact("WAL", &format!("{} at most, kept on the source for cdc", size(retained)));
        let rows = count(comparison.source_rows());
        screen.fact("compared", &format!("every row: {rows} rows in {} tables", comparison.tables.len()));
        screen.gap();
        if comparison.is_equal() {
            screen.good("identical", "No row is missing, none is there twice, and none differs.");
            screen.fact("", "Both servers are gone, with all their files.");
        } else {
            screen.bad(&format!("different: {comparison}"));
        }
    }
}

impl Copied {
    fn resumed(&self) -> String {
        let finished = self.killed.finished.len();
        match finished - self.kept {
            0 => format!("none of those {finished} was copied again"),
            again => {
                format!("{} of those {finished} were kept; the stream had {again} copied again", self.kept)
            }
        }
    }
}
