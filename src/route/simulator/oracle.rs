//! What must be true of the target after each of its commits.
//!
//! The rows of a chunk that is done are those that the source had once these transactions were
//! committed, and no others: those below the checkpoint, and those that the chunk's snapshot sees.
//! When the daemon says that the target is consistent, it is all of the source at the checkpoint.

use super::row::Row;
use super::source::is_visible;
use super::target::{Entry, Tid};
use super::world::{Kind, Outcome, World};

impl World {
    /// A transaction of the target commits.
    pub(super) fn commit(&mut self, tid: Tid) -> Outcome {
        self.target.commit(tid);
        if self.is_flushed_at_once {
            self.target.flush();
        }
        self.check()
    }

    /// The transactions of the source below the checkpoint.
    fn applied(&self) -> Vec<bool> {
        let checkpoint = self.target.ledger.checkpoint.unwrap_or(0);
        let is_below = |commit: Option<(u64, u64)>| commit.is_some_and(|(start, _)| start < checkpoint);
        self.source.transactions.iter().map(|t| is_below(t.commit)).collect()
    }

    fn check(&self) -> Outcome {
        let applied = self.applied();
        for (table, entries) in self.target.ledger.tables.iter().enumerate() {
            let actual = self.target.committed(table);
            for (chunk, entry) in entries.iter().flatten().enumerate() {
                if let Entry::Done(taken, _) = entry {
                    let seen = |tx: usize| taken.sees.get(tx).copied().unwrap_or(false);
                    let both: Vec<bool> =
                        applied.iter().enumerate().map(|(tx, is)| *is || seen(tx)).collect();
                    self.compare(table, Some(chunk), &both, &actual)?;
                }
            }
            if entries.is_none() && !actual.is_empty() {
                return Err(
                    Kind::TooMany.because(format!("t{table} isn't part of the copy and has {actual:?}"))
                );
            }
        }
        if self.says_consistent() { self.check_all(&applied) } else { Ok(()) }
    }

    fn check_all(&self, applied: &[bool]) -> Outcome {
        (0..self.tables.len())
            .filter(|table| self.source.published[*table].is_some())
            .try_for_each(|table| self.compare(table, None, applied, &self.target.committed(table)))
    }

    /// At the end the target is the source.
    pub(super) fn check_end(&self) -> Outcome {
        let committed: Vec<bool> = self.source.transactions.iter().map(|t| t.commit.is_some()).collect();
        self.check_all(&committed)
    }

    fn compare(&self, table: usize, chunk: Option<usize>, committed: &[bool], actual: &[Row]) -> Outcome {
        let definition = &self.tables[table];
        let is_in = |row: &Row| chunk.is_none_or(|chunk| definition.chunk_of(row) == chunk);
        let versions = self.source.versions[table].iter().filter(|v| is_visible(v, committed));
        let mut expected: Vec<Row> = versions.map(|v| v.row).filter(|row| is_in(row)).collect();
        let mut actual: Vec<Row> = actual.iter().copied().filter(|row| is_in(row)).collect();
        expected.sort_unstable();
        actual.sort_unstable();
        if expected == actual {
            return Ok(());
        }
        let kind = match (lacks(&actual, &expected), lacks(&expected, &actual)) {
            (true, false) => Kind::Lost,
            (false, true) => Kind::TooMany,
            _ => Kind::Wrong,
        };
        let checkpoint = self.target.ledger.checkpoint.unwrap_or(0);
        let place = chunk.map_or_else(String::new, |chunk| format!(" in chunk {chunk}"));
        Err(kind.because(format!(
            "at checkpoint {checkpoint} t{table} has{place}\n  {actual:?}\ninstead of\n  {expected:?}"
        )))
    }
}

/// True if something of the second is not in the first; both are sorted.
fn lacks(these: &[Row], those: &[Row]) -> bool {
    let count = |rows: &[Row], row: &Row| rows.iter().filter(|other| *other == row).count();
    those.iter().any(|row| count(these, row) < count(those, row))
}
