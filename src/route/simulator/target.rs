//! The target: rows, transactions with their row locks, and the ledger.

use std::rc::Rc;

use super::row::{Cell, Identity, Row, Table};
use super::rules::{Rule, keeps};
use super::source::Taken;
use crate::apply::Change;

/// A transaction of the target.
pub(super) type Tid = u32;

/// Why a statement doesn't go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// Another transaction has the row.
    Waits(Tid),
    /// It fails.
    Fails(String),
}

/// A row, and the transactions that have made it or taken it away and are still open.
struct Held {
    row: Row,
    made_by: Option<Tid>,
    gone_by: Option<Tid>,
}

/// An open transaction.
pub(super) struct Open {
    pub(super) tid: Tid,
    writes: Vec<Write>,
    /// Its COMMIT has been sent.
    pub(super) is_committing: bool,
    /// The daemon that began it is gone.
    pub(super) is_orphan: bool,
}

/// What a transaction writes to the ledger.
pub(super) enum Write {
    Checkpoint(u64),
    Done { table: usize, chunk: usize, taken: Rc<Taken>, lsn: u64 },
    SendBack { table: usize, chunk: usize },
}

/// How far the ledger says that a chunk is.
#[derive(Clone)]
pub(super) enum Entry {
    Pending,
    Done(Rc<Taken>, u64),
}

/// The committed ledger.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    pub(super) epoch: u64,
    pub(super) checkpoint: Option<u64>,
    /// By table: its chunks, once it is part of the copy.
    pub(super) tables: Vec<Option<Vec<Entry>>>,
}

/// The target.
pub(super) struct Target {
    /// By table.
    rows: Vec<Vec<Held>>,
    pub(super) ledger: Ledger,
    pub(super) open: Vec<Open>,
    next: Tid,
    /// What a crash leaves.
    flushed: (Vec<Vec<Row>>, Ledger),
}

impl Ledger {
    /// The tables all of whose chunks are done, and whose filters are over.
    pub(super) fn over(&self) -> Vec<usize> {
        let checkpoint = self.checkpoint.unwrap_or(0);
        let is_over = |entry: &Entry| matches!(entry, Entry::Done(_, lsn) if *lsn <= checkpoint);
        let are_over =
            |table: &usize| self.tables[*table].as_ref().is_some_and(|all| all.iter().all(is_over));
        (0..self.tables.len()).filter(are_over).collect()
    }
}

impl Target {
    pub(super) fn new(tables: usize) -> Self {
        let ledger = Ledger { tables: vec![None; tables], ..Ledger::default() };
        Self {
            rows: (0..tables).map(|_| Vec::new()).collect(),
            ledger: ledger.clone(),
            open: Vec::new(),
            next: 1,
            flushed: (vec![Vec::new(); tables], ledger),
        }
    }

    /// Begins a transaction, which holds the epoch's row until it ends; `None` if another life has
    /// begun since.
    pub(super) fn begin(&mut self, epoch: u64) -> Option<Tid> {
        if keeps(Rule::EpochChecked) && self.ledger.epoch != epoch {
            return None;
        }
        self.next += 1;
        self.open.push(Open { tid: self.next, writes: Vec::new(), is_committing: false, is_orphan: false });
        Some(self.next)
    }

    /// A new life: `None` while transactions of earlier ones hold the epoch's row.
    pub(super) fn next_epoch(&mut self) -> Option<u64> {
        if keeps(Rule::EpochChecked) && !self.open.is_empty() {
            return None;
        }
        self.ledger.epoch += 1;
        Some(self.ledger.epoch)
    }

    pub(super) fn committing(&mut self, tid: Tid) {
        self.open.iter_mut().filter(|open| open.tid == tid).for_each(|open| open.is_committing = true);
    }

    /// The daemon is gone: nothing more comes from it.
    pub(super) fn orphan_all(&mut self) {
        self.open.iter_mut().for_each(|open| open.is_orphan = true);
    }

    pub(super) fn commit(&mut self, tid: Tid) {
        let Some(place) = self.open.iter().position(|open| open.tid == tid) else { return };
        for write in self.open.remove(place).writes {
            match write {
                Write::Checkpoint(lsn) => self.ledger.checkpoint = Some(lsn),
                Write::Done { table, chunk, taken, lsn } => self.set(table, chunk, Entry::Done(taken, lsn)),
                Write::SendBack { table, chunk } => self.set(table, chunk, Entry::Pending),
            }
        }
        for rows in &mut self.rows {
            rows.retain(|held| held.gone_by != Some(tid));
            rows.iter_mut().filter(|held| held.made_by == Some(tid)).for_each(|held| held.made_by = None);
        }
    }

    fn set(&mut self, table: usize, chunk: usize, entry: Entry) {
        if let Some(chunks) = &mut self.ledger.tables[table] {
            chunks[chunk] = entry;
        }
    }

    pub(super) fn abort(&mut self, tid: Tid) {
        self.open.retain(|open| open.tid != tid);
        for rows in &mut self.rows {
            rows.retain(|held| held.made_by != Some(tid));
            rows.iter_mut().filter(|held| held.gone_by == Some(tid)).for_each(|held| held.gone_by = None);
        }
    }

    /// Somebody else changes a row, or deletes it.
    pub(super) fn corrupt(&mut self, table: usize, is_in: impl Fn(&Row) -> bool, rng: &mut fastrand::Rng) {
        let rows = &mut self.rows[table];
        let is_free = |held: &Held| held.made_by.is_none() && held.gone_by.is_none() && is_in(&held.row);
        let free: Vec<usize> = (0..rows.len()).filter(|place| is_free(&rows[*place])).collect();
        let Some(place) = rng.choice(free) else { return };
        if rng.bool() {
            rows[place].row[1] = Some(-1);
        } else {
            rows.remove(place);
        }
    }

    /// Everything committed is on disk.
    pub(super) fn flush(&mut self) {
        self.flushed =
            ((0..self.rows.len()).map(|table| self.committed(table)).collect(), self.ledger.clone());
    }

    /// The server stops at once and starts again with what was flushed.
    pub(super) fn crash(&mut self) {
        self.open.clear();
        self.ledger = self.flushed.1.clone();
        let held = |row: &Row| Held { row: *row, made_by: None, gone_by: None };
        self.rows = self.flushed.0.iter().map(|rows| rows.iter().map(held).collect()).collect();
    }

    /// The checkpoint that a crash leaves.
    pub(super) fn flushed_checkpoint(&self) -> u64 {
        self.flushed.1.checkpoint.unwrap_or(0)
    }

    /// A table's committed rows.
    pub(super) fn committed(&self, table: usize) -> Vec<Row> {
        self.rows[table].iter().filter(|held| held.made_by.is_none()).map(|held| held.row).collect()
    }

    /// Writes to the ledger within a transaction.
    pub(super) fn write(&mut self, tid: Tid, write: Write) -> Result<(), Stop> {
        let chunk_of = |write: &Write| match write {
            Write::Checkpoint(_) => None,
            Write::Done { table, chunk, .. } | Write::SendBack { table, chunk } => Some((*table, *chunk)),
        };
        for open in self.open.iter().filter(|open| open.tid != tid) {
            if open.writes.iter().any(|other| chunk_of(other) == chunk_of(&write)) {
                return Err(Stop::Waits(open.tid));
            }
        }
        if let Some(open) = self.open.iter_mut().find(|open| open.tid == tid) {
            open.writes.push(write);
        }
        Ok(())
    }

    /// Deletes a chunk's rows.
    pub(super) fn delete_chunk(
        &mut self,
        tid: Tid,
        tables: &[Table],
        table: usize,
        chunk: usize,
    ) -> Result<(), Stop> {
        self.delete(tid, table, |row| tables[table].chunk_of(row) == chunk)
    }

    /// Deletes the rows that it sees and that are wanted.
    fn delete(&mut self, tid: Tid, table: usize, is_wanted: impl Fn(&Row) -> bool) -> Result<(), Stop> {
        let rows = &mut self.rows[table];
        let is_seen = |held: &Held| held.made_by.is_none_or(|by| by == tid) && held.gone_by != Some(tid);
        let mut wanted =
            rows.iter_mut().filter(|held| is_seen(held) && is_wanted(&held.row)).collect::<Vec<_>>();
        if let Some(other) = wanted.iter().find_map(|held| held.gone_by) {
            return Err(Stop::Waits(other));
        }
        wanted.iter_mut().for_each(|held| held.gone_by = Some(tid));
        Ok(())
    }

    /// Inserts a row, unless its key is there.
    pub(super) fn insert(&mut self, tid: Tid, tables: &[Table], table: usize, row: Row) -> Result<(), Stop> {
        self.check_key(tid, &tables[table], table, row)?;
        self.rows[table].push(Held { row, made_by: Some(tid), gone_by: None });
        Ok(())
    }

    fn check_key(&self, tid: Tid, definition: &Table, table: usize, row: Row) -> Result<(), Stop> {
        if !definition.has_key() {
            return Ok(());
        }
        let is_same = |held: &&Held| held.row[0] == row[0] && held.gone_by != Some(tid);
        let other = |held: &Held| held.made_by.filter(|by| *by != tid).or(held.gone_by);
        match self.rows[table].iter().find(is_same).map(other) {
            None => Ok(()),
            Some(Some(other)) => Err(Stop::Waits(other)),
            Some(None) => Err(Stop::Fails(format!("t{table} has a row {:?} already", row[0]))),
        }
    }

    /// The row that an UPDATE or DELETE names.
    fn find(&self, tid: Tid, definition: &Table, table: usize, named: &[Cell; 3]) -> Result<usize, Stop> {
        let matches = |row: &Row| match definition.identity {
            Identity::Key => Some(row[0]) == named[0],
            Identity::FullWithKey | Identity::FullBare => (0..3).all(|i| Some(row[i]) == named[i]),
        };
        let mut waits_for = None;
        for (i, held) in self.rows[table].iter().enumerate() {
            let is_seen = held.made_by.is_none_or(|by| by == tid) && held.gone_by != Some(tid);
            if is_seen && matches(&held.row) {
                match held.gone_by {
                    None => return Ok(i),
                    other => waits_for = other,
                }
            }
        }
        Err(waits_for.map_or_else(|| Stop::Fails(format!("t{table} has no row {named:?}")), Stop::Waits))
    }

    /// Applies a change as the applier does: it does what it did on the source, or it fails.
    pub(super) fn apply(&mut self, tid: Tid, tables: &[Table], change: &Change) -> Result<(), Stop> {
        let place = |oid: u32| usize::try_from(oid - 100).unwrap();
        match change {
            Change::Insert { relation, new } => {
                let table = place(relation.oid);
                let cells = tables[table].read(new);
                if keeps(Rule::SentBack) && cells.contains(&None) {
                    return Err(Stop::Fails("an INSERT without a value".to_owned()));
                }
                self.insert(tid, tables, table, cells.map(Option::flatten))
            }
            Change::Delete { relation, old } => {
                let table = place(relation.oid);
                let found = self.find(tid, &tables[table], table, &tables[table].read(old.tuple()))?;
                self.rows[table][found].gone_by = Some(tid);
                Ok(())
            }
            Change::Update { relation, old, new } => {
                let table = place(relation.oid);
                let cells = tables[table].read(new);
                let named = old.as_ref().map_or(cells, |old| tables[table].read(old.tuple()));
                let found = self.find(tid, &tables[table], table, &named)?;
                let mut row = self.rows[table][found].row;
                let id = row[0];
                (0..3).for_each(|i| row[i] = cells[i].unwrap_or(row[i]));
                if row[0] != id {
                    self.check_key(tid, &tables[table], table, row)?;
                }
                self.rows[table][found].gone_by = Some(tid);
                self.rows[table].push(Held { row, made_by: Some(tid), gone_by: None });
                Ok(())
            }
            Change::Truncate { relations, .. } => {
                for table in relations.iter().map(|relation| place(relation.oid)) {
                    self.lock(tid, table)?;
                    self.delete(tid, table, |_| true)?;
                }
                Ok(())
            }
            Change::Clear { relation, range, .. } => {
                let table = place(relation.oid);
                let chunk = tables[table].ranges().iter().position(|other| other == range).unwrap();
                self.delete_chunk(tid, tables, table, chunk)
            }
            Change::SendBack { relation, chunk } => {
                let (table, chunk) = (place(relation.oid), usize::try_from(chunk.ordinal).unwrap());
                if keeps(Rule::SendBackWithBatch) {
                    self.write(tid, Write::SendBack { table, chunk })?;
                }
                Ok(())
            }
        }
    }

    /// Takes the table for itself.
    fn lock(&self, tid: Tid, table: usize) -> Result<(), Stop> {
        let other = |by: Option<Tid>| by.filter(|by| *by != tid);
        match self.rows[table].iter().find_map(|held| other(held.made_by).or(other(held.gone_by))) {
            Some(other) => Err(Stop::Waits(other)),
            None => Ok(()),
        }
    }
}
