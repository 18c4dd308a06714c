//! What the applications do on the source: anything that its locks allow.

use super::row::{Identity, Row};
use super::source::{State, Tx, What};
use super::world::World;

/// The most transactions that run at once.
const RUNNING: usize = 4;

impl World {
    /// A transaction begins.
    pub(super) fn begin_transaction(&mut self) {
        if self.source.those(|t| t.state == State::Running).len() < RUNNING {
            let is_asynchronous = self.rng.f32() < self.profile.asynchronous;
            let is_stuck = self.rng.f32() < self.profile.stuck;
            let tx = self.source.begin(is_asynchronous, is_stuck);
            let xid = self.source.transactions[tx].xid;
            self.trace(|| format!("source: {xid} begins"));
        }
    }

    fn running(&mut self) -> Option<Tx> {
        let running = self.source.those(|t| t.state == State::Running);
        self.rng.choice(running)
    }

    /// A transaction changes a row, or truncates.
    pub(super) fn change_something(&mut self) {
        let Some(tx) = self.running() else { return };
        if self.source.transactions[tx].truncates.is_some() {
            self.source.try_truncate(tx);
            return;
        }
        let table = self.rng.usize(..self.tables.len());
        if self.rng.f32() < self.profile.truncates {
            let second = self.rng.usize(..self.tables.len());
            let mut tables = vec![table];
            if second != table && self.rng.bool() {
                tables.push(second);
            }
            self.source.transactions[tx].truncates = Some(tables);
            self.source.try_truncate(tx);
            return;
        }
        if let Some((what, version)) = self.choose(tx, table) {
            let xid = self.source.transactions[tx].xid;
            self.trace(|| format!("source: {xid} {what:?}"));
            self.source.write(tx, what, version);
        }
    }

    fn choose(&mut self, tx: Tx, table: usize) -> Option<(What, Option<usize>)> {
        let is_bare = self.tables[table].identity == Identity::FullBare;
        let rows = self.source.free_rows(tx, table);
        let version = self.rng.choice(rows);
        let kind = self.rng.f32();
        let Some(version) = version.filter(|_| kind > self.profile.inserts) else {
            let new = self.any_row(is_bare);
            let can =
                self.source.can_write(tx, table) && (is_bare || self.source.is_free_key(tx, table, new[0]));
            return can.then_some((What::Insert { table, new }, None));
        };
        let old = self.source.versions[table][version].row;
        if self.rng.f32() < self.profile.deletes {
            return Some((What::Delete { table, old }, Some(version)));
        }
        let mut new = old;
        new[1] = if is_bare { self.any_row(true)[1] } else { Some(self.value()) };
        if self.rng.f32() < self.profile.moves {
            new[0] = self.any_row(is_bare)[0];
            if new[0] != old[0] && !is_bare && !self.source.is_free_key(tx, table, new[0]) {
                return None;
            }
        }
        if self.rng.f32() < self.profile.doc_changes {
            new[2] = if is_bare { self.any_row(true)[2] } else { Some(self.value()) };
        }
        Some((What::Update { table, old, new }, Some(version)))
    }

    fn value(&mut self) -> i32 {
        self.rng.i32(0..1_000)
    }

    /// A row: without a key its values are few, so that rows are there twice.
    pub(super) fn any_row(&mut self, is_bare: bool) -> Row {
        if is_bare {
            let mut any = || [None, Some(1), Some(2)][self.rng.usize(..3)];
            return [any(), any(), any()];
        }
        let id =
            if self.rng.u8(..10) == 0 { self.rng.i32(-500..500) } else { self.rng.i32(0..self.profile.keys) };
        let doc = (self.rng.u8(..4) > 0).then(|| self.value());
        [Some(id), Some(self.value()), doc]
    }

    /// A transaction's commit record is written.
    pub(super) fn write_commit(&mut self) {
        if let Some(tx) = self.running().filter(|tx| self.source.transactions[*tx].truncates.is_none()) {
            self.source.commit(tx);
            let xid = self.source.transactions[tx].xid;
            self.trace(|| format!("source: {xid} commits"));
        }
    }

    /// A transaction is rolled back.
    pub(super) fn roll_back(&mut self) {
        if let Some(tx) = self.running() {
            let xid = self.source.transactions[tx].xid;
            self.trace(|| format!("source: {xid} aborts"));
            self.source.abort(tx);
        }
    }

    /// The log is flushed, up to some record or all of it.
    pub(super) fn flush_source(&mut self) {
        let ends = self.source.unflushed();
        if let Some(end) = if self.rng.bool() { ends.last().copied() } else { self.rng.choice(ends) } {
            self.source.flush_to(end);
        }
    }

    /// New snapshots see a transaction, in whatever order.
    pub(super) fn show_one(&mut self) {
        let flush = self.source.flush;
        let ready = self.source.those(|t| {
            let is_flushed = t.commit.is_some_and(|(_, end)| end <= flush);
            t.state == State::Committed && !t.is_stuck && (is_flushed || t.is_asynchronous)
        });
        if let Some(tx) = self.rng.choice(ready) {
            let xid = self.source.transactions[tx].xid;
            self.trace(|| format!("source: {xid} is visible"));
            self.source.show(tx);
        }
    }

    /// A table is added to the publication, while transactions may have written to it.
    pub(super) fn publish(&mut self) {
        if let Some(table) = self.source.published.iter().position(Option::is_none) {
            let lsn = self.source.log(0);
            self.source.flush_to(self.source.insert);
            self.source.published[table] = Some(lsn);
            self.trace(|| format!("source: t{table} is published at {lsn}"));
        }
    }

    /// The source crashes; the daemon notices later.
    pub(super) fn crash_source(&mut self) {
        self.source.crash();
        if let Some(engine) = &mut self.engine {
            engine.source_is_gone = true;
        }
        self.start = None;
        let (flush, next) = (self.source.flush, self.source.next_xid);
        self.trace(|| format!("source: CRASH, the log goes on at {flush}, the next xid is {next}"));
    }
}
