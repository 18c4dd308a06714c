//! The source: transactions, row versions, the log, and what a snapshot sees.
//!
//! Three events make a commit, and each can be late: its record is in the log ([`Source::commit`]), the
//! record is flushed and so can be in the stream ([`Source::flush_to`]), and new snapshots see it
//! ([`Source::show`]). The last waits for the second, but for transactions with `synchronous_commit =
//! off`; with a synchronous standby it comes much later.

use std::rc::Rc;

use super::row::Row;
use crate::chunk::{Snapshot, Xid};

/// A transaction's place in [`Source::transactions`]: unlike its xid it is never used again.
pub(super) type Tx = usize;

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has a transaction id.
    Running,
    /// Its commit record is in the log; it still holds its locks.
    Committed,
    /// New snapshots see it.
    Visible,
    /// It was rolled back, or lost with the unflushed end of the log.
    Gone,
}

pub(super) struct Transaction {
    pub(super) xid: u64,
    pub(super) state: State,
    /// Where its commit record begins and ends.
    pub(super) commit: Option<(u64, u64)>,
    pub(super) changes: Vec<Logged>,
    /// `synchronous_commit = off`: seen before it is flushed.
    pub(super) is_asynchronous: bool,
    /// The synchronous standby doesn't answer: seen when the run ends.
    pub(super) is_stuck: bool,
    /// The tables that it waits to truncate.
    pub(super) truncates: Option<Vec<usize>>,
}

/// A change in the log.
pub(super) struct Logged {
    pub(super) lsn: u64,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Insert { table: usize, new: Row },
    Update { table: usize, old: Row, new: Row },
    Delete { table: usize, old: Row },
    Truncate { tables: Vec<usize> },
}

/// A version of a row.
pub(super) struct Version {
    pub(super) row: Row,
    pub(super) made_by: Tx,
    pub(super) gone_by: Option<Tx>,
    /// The table's file that it is in: a TRUNCATE begins another.
    file: Tx,
}

/// A snapshot, and which transactions it really sees: xids can be used again.
pub(super) struct Taken {
    pub(super) snapshot: Snapshot,
    pub(super) sees: Vec<bool>,
}

/// The slot's position, and the one that a crash takes it back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) confirmed: u64,
    pub(super) saved: u64,
}

/// The source.
pub(super) struct Source {
    pub(super) transactions: Vec<Transaction>,
    /// By table.
    pub(super) versions: Vec<Vec<Version>>,
    /// By table: the file it is in, named by the transaction that began it.
    files: Vec<Tx>,
    /// Those with a commit record, in its order.
    pub(super) commits: Vec<Tx>,
    /// Where each record of the log ends, and the xid in it.
    records: Vec<(u64, u64)>,
    pub(super) insert: u64,
    pub(super) flush: u64,
    pub(super) next_xid: u64,
    latest_completed: u64,
    /// By table: since when it is in the publication.
    pub(super) published: Vec<Option<u64>>,
    pub(super) slot: Option<Slot>,
    /// Readers and the tables that they have locked in ACCESS SHARE mode.
    pub(super) shared: Vec<(u32, usize)>,
}

impl Source {
    pub(super) fn new(tables: usize, first_xid: u64) -> Self {
        Self {
            transactions: Vec::new(),
            versions: (0..tables).map(|_| Vec::new()).collect(),
            files: vec![Tx::MAX; tables],
            commits: Vec::new(),
            records: Vec::new(),
            insert: 1_000,
            flush: 1_000,
            next_xid: first_xid,
            latest_completed: first_xid - 1,
            published: vec![None; tables],
            slot: None,
            shared: Vec::new(),
        }
    }

    /// A record of the log.
    pub(super) fn log(&mut self, xid: u64) -> u64 {
        let start = self.insert;
        self.insert += 8;
        self.records.push((self.insert, xid));
        start
    }

    pub(super) fn begin(&mut self, is_asynchronous: bool, is_stuck: bool) -> Tx {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.transactions.push(Transaction {
            xid,
            state: State::Running,
            commit: None,
            changes: Vec::new(),
            is_asynchronous,
            is_stuck,
            truncates: None,
        });
        self.transactions.len() - 1
    }

    pub(super) fn those(&self, wanted: impl Fn(&Transaction) -> bool) -> Vec<Tx> {
        (0..self.transactions.len()).filter(|tx| wanted(&self.transactions[*tx])).collect()
    }

    fn is_over(&self, tx: Tx) -> bool {
        matches!(self.transactions[tx].state, State::Visible | State::Gone)
    }

    /// The rows that a statement of the transaction can change: it sees them, and nobody holds them.
    pub(super) fn free_rows(&self, tx: Tx, table: usize) -> Vec<usize> {
        if !self.can_write(tx, table) {
            return Vec::new();
        }
        let is_free = |version: &Version| {
            let is_seen = version.made_by == tx || self.transactions[version.made_by].state == State::Visible;
            is_seen && version.gone_by.is_none()
        };
        let versions = &self.versions[table];
        (0..versions.len()).filter(|i| is_free(&versions[*i])).collect()
    }

    /// True if no row has this key, and none could have it when a transaction is rolled back.
    pub(super) fn is_free_key(&self, tx: Tx, table: usize, id: Option<i32>) -> bool {
        self.versions[table].iter().filter(|version| version.row[0] == id).all(|version| {
            version.gone_by.is_some_and(|by| by == tx || self.transactions[by].state == State::Visible)
        })
    }

    /// True unless somebody has locked the table against it, or waits to.
    pub(super) fn can_write(&self, tx: Tx, table: usize) -> bool {
        self.transactions.iter().enumerate().all(|(other, transaction)| {
            other == tx
                || self.is_over(other)
                || !(transaction.truncates.as_ref().is_some_and(|tables| tables.contains(&table))
                    || self.has_truncated(other, table))
        })
    }

    fn has_truncated(&self, tx: Tx, table: usize) -> bool {
        self.transactions[tx]
            .changes
            .iter()
            .any(|change| matches!(&change.what, What::Truncate { tables } if tables.contains(&table)))
    }

    /// Does a change and logs it.
    pub(super) fn write(&mut self, tx: Tx, what: What, version: Option<usize>) {
        let file = |source: &Self, table| {
            if source.has_truncated(tx, table) { tx } else { source.files[table] }
        };
        match &what {
            What::Insert { table, new } => {
                let file = file(self, *table);
                self.versions[*table].push(Version { row: *new, made_by: tx, gone_by: None, file });
            }
            What::Update { table, new, .. } => {
                let file = file(self, *table);
                self.versions[*table][version.unwrap()].gone_by = Some(tx);
                self.versions[*table].push(Version { row: *new, made_by: tx, gone_by: None, file });
            }
            What::Delete { table, .. } => self.versions[*table][version.unwrap()].gone_by = Some(tx),
            What::Truncate { tables } => {
                for table in tables {
                    let live = self.versions[*table].iter_mut().filter(|v| v.gone_by.is_none());
                    live.for_each(|version| version.gone_by = Some(tx));
                }
            }
        }
        let lsn = self.log(self.transactions[tx].xid);
        self.transactions[tx].changes.push(Logged { lsn, what });
    }

    /// True if the transaction gets ACCESS EXCLUSIVE on the table now.
    fn can_lock(&self, tx: Tx, table: usize) -> bool {
        let touched_by_other = |other: Tx| other != tx && !self.is_over(other);
        self.shared.iter().all(|(_, locked)| *locked != table)
            && !self.versions[table]
                .iter()
                .any(|v| touched_by_other(v.made_by) || v.gone_by.is_some_and(touched_by_other))
            && (0..self.transactions.len())
                .all(|other| !touched_by_other(other) || !self.has_truncated(other, table))
    }

    /// Truncates what the transaction waits for, if it gets the locks.
    pub(super) fn try_truncate(&mut self, tx: Tx) {
        let Some(tables) = self.transactions[tx].truncates.clone() else { return };
        if tables.iter().all(|table| self.can_lock(tx, *table)) {
            self.transactions[tx].truncates = None;
            self.write(tx, What::Truncate { tables }, None);
        }
    }

    /// Locks the table in ACCESS SHARE mode, if nobody has it exclusively or waits for that.
    pub(super) fn try_share(&mut self, reader: u32, table: usize) -> bool {
        let can_share = self.can_write(Tx::MAX, table);
        if can_share {
            self.shared.push((reader, table));
        }
        can_share
    }

    pub(super) fn unlock(&mut self, reader: u32) {
        self.shared.retain(|(holder, _)| *holder != reader);
    }

    /// Writes the commit record.
    pub(super) fn commit(&mut self, tx: Tx) {
        let start = self.log(self.transactions[tx].xid);
        let transaction = &mut self.transactions[tx];
        transaction.commit = Some((start, self.insert));
        transaction.state = State::Committed;
        self.commits.push(tx);
    }

    /// New snapshots see it from now on, and its locks are free.
    pub(super) fn show(&mut self, tx: Tx) {
        for table in 0..self.files.len() {
            if self.has_truncated(tx, table) {
                self.files[table] = tx;
            }
        }
        self.transactions[tx].state = State::Visible;
        self.latest_completed = self.latest_completed.max(self.transactions[tx].xid);
    }

    pub(super) fn abort(&mut self, tx: Tx) {
        self.log(self.transactions[tx].xid);
        self.latest_completed = self.latest_completed.max(self.transactions[tx].xid);
        self.undo(tx);
    }

    fn undo(&mut self, tx: Tx) {
        self.transactions[tx].state = State::Gone;
        self.transactions[tx].commit = None;
        for versions in &mut self.versions {
            versions.retain(|version| version.made_by != tx);
            for version in versions.iter_mut().filter(|version| version.gone_by == Some(tx)) {
                version.gone_by = None;
            }
        }
    }

    pub(super) fn flush_to(&mut self, lsn: u64) {
        self.flush = self.flush.max(lsn);
    }

    /// Where the records end that are not flushed.
    pub(super) fn unflushed(&self) -> Vec<u64> {
        self.records.iter().map(|(end, _)| *end).filter(|end| *end > self.flush).collect()
    }

    /// The server stops at once and starts again: the unflushed end of the log is lost, and its xids
    /// are used again. What was flushed but not yet visible is visible.
    pub(super) fn crash(&mut self) {
        let flush = self.flush;
        self.records.retain(|(end, _)| *end <= flush);
        self.insert = flush;
        for tx in 0..self.transactions.len() {
            let transaction = &self.transactions[tx];
            let is_kept = transaction.commit.is_some_and(|(_, end)| end <= flush);
            match transaction.state {
                State::Committed if is_kept => self.show(tx),
                State::Visible if is_kept => {}
                State::Running | State::Committed | State::Visible => self.undo(tx),
                State::Gone => {}
            }
        }
        let transactions = &self.transactions;
        self.commits.retain(|tx| transactions[*tx].commit.is_some());
        for table in 0..self.files.len() {
            let last = self.commits.iter().rev().find(|tx| self.has_truncated(**tx, table));
            self.files[table] = last.copied().unwrap_or(Tx::MAX);
        }
        if let Some(highest) = self.records.iter().map(|(_, xid)| *xid).max() {
            self.next_xid = highest + 1;
        }
        self.latest_completed = self.next_xid - 1;
        for at in &mut self.published {
            *at = at.map(|at| at.min(flush));
        }
        if let Some(slot) = &mut self.slot {
            slot.confirmed = slot.saved;
        }
        self.shared.clear();
    }

    /// A transaction id of our own: everything that has one already has a lower one.
    pub(super) fn assign_xid(&mut self) -> Xid {
        let own = self.begin(false, false);
        let xid = self.transactions[own].xid;
        self.abort(own);
        Xid::new(xid)
    }

    /// `pg_current_snapshot()`: its xmax is one past the highest xid that has *ended*, so it says
    /// nothing of those that were assigned since and still run.
    pub(super) fn snapshot(&self) -> Rc<Taken> {
        let xmax = self.latest_completed + 1;
        let mut in_progress: Vec<u64> = self
            .transactions
            .iter()
            .filter(|t| matches!(t.state, State::Running | State::Committed) && t.xid < xmax)
            .map(|t| t.xid)
            .collect();
        in_progress.sort_unstable();
        let xmin = in_progress.first().copied().unwrap_or(xmax);
        let list: Vec<String> = in_progress.iter().map(u64::to_string).collect();
        let snapshot = format!("{xmin}:{xmax}:{}", list.join(",")).parse().unwrap();
        let sees = self.transactions.iter().map(|t| t.state == State::Visible).collect();
        Rc::new(Taken { snapshot, sees })
    }

    /// Where the first change is of the transaction with this commit record.
    pub(super) fn began_at(&self, commit: u64) -> u64 {
        let is_it = |t: &&Transaction| t.commit.is_some_and(|(start, _)| start == commit);
        let transaction = self.transactions.iter().find(is_it);
        transaction.and_then(|t| t.changes.first()).map_or(commit, |change| change.lsn)
    }

    /// What a reader of the table gets under the snapshot, now.
    pub(super) fn read(&self, table: usize, taken: &Taken) -> Vec<Row> {
        let versions = self.versions[table].iter();
        let is_there = |v: &&Version| v.file == self.files[table] && is_visible(v, &taken.sees);
        versions.filter(is_there).map(|v| v.row).collect()
    }
}

/// True if the version is there once these transactions have been committed, and no others.
pub(super) fn is_visible(version: &Version, committed: &[bool]) -> bool {
    let is_in = |tx: Tx| committed.get(tx).copied().unwrap_or(false);
    is_in(version.made_by) && !version.gone_by.is_some_and(is_in)
}
