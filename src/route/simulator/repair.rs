//! Chunks of a table that is over are copied again.

use super::row::Row;
use super::rules::{Rule, keeps};
use super::target::Entry;
use super::world::World;
use crate::chunk::{ChunkId, Xid};
use crate::lsn::Lsn;
use crate::route::CopyTable;

impl World {
    /// Some chunks of a table that is over are to be copied again: the ledger says so, then the router hears of it.
    /// Now and then something has happened to the rows that they have on the target.
    pub(super) fn repair(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        if self.target.ledger.epoch != engine.epoch {
            return;
        }
        let step = if keeps(Rule::RepairRecordedFirst) {
            [Self::record, Self::tell]
        } else {
            [Self::tell, Self::record]
        };
        if let Some((table, chunks)) = engine.repair.take() {
            return step[1](self, table, &chunks);
        }
        let router = &engine.router;
        engine.repaired.retain(|chunk| router.is_pending(*chunk));
        let corrupted = engine.repaired.iter().position(|chunk| router.can_be_copied(*chunk));
        if let Some(place) = corrupted.filter(|_| self.rng.bool()) {
            let ChunkId { relation, ordinal } = engine.repaired.swap_remove(place);
            let (table, chunk) =
                (usize::try_from(relation - 100).unwrap(), usize::try_from(ordinal).unwrap());
            let is_in = |row: &Row| self.tables[table].chunk_of(row) == chunk;
            return self.target.corrupt(table, is_in, &mut self.rng);
        }
        let over = self.target.ledger.over();
        let Some(table) = self.rng.choice(over) else { return };
        let chunks: Vec<usize> = (0..self.tables[table].chunks()).filter(|_| self.rng.bool()).collect();
        if engine.known[table] && !chunks.is_empty() {
            engine.repair = Some((table, chunks.clone()));
            step[0](self, table, &chunks);
        }
    }

    /// The ledger says that these chunks are to be copied again.
    fn record(&mut self, table: usize, chunks: &[usize]) {
        self.trace(|| format!("target: {chunks:?} of t{table} are to be copied again"));
        for (chunk, entry) in self.target.ledger.tables[table].iter_mut().flatten().enumerate() {
            if chunks.contains(&chunk) {
                *entry = Entry::Pending;
            }
        }
    }

    /// The router hears that these chunks are to be copied again.
    fn tell(&mut self, table: usize, chunks: &[usize]) {
        let Some(engine) = &mut self.engine else { return };
        let definition = &self.tables[table];
        let entries = self.target.ledger.tables[table].iter().flatten().enumerate();
        let done = entries.map(|(chunk, entry)| match entry {
            Entry::Done(taken, lsn) if !chunks.contains(&chunk) => {
                Some((taken.snapshot.clone(), Lsn::from(*lsn)))
            }
            Entry::Done(..) | Entry::Pending => None,
        });
        let durable = Lsn::from(engine.durable);
        let ranges = definition.ranges().into_iter().zip(done);
        let copy = CopyTable::new(Xid::new(0), definition.key_columns(), ranges, durable);
        engine.router.copy_again(definition.oid, copy, durable);
        let relation = definition.oid;
        let id = |chunk: &usize| ChunkId { relation, ordinal: u32::try_from(*chunk).unwrap() };
        engine.queue.extend(chunks.iter().map(id));
        engine.repaired.extend(chunks.iter().map(id));
        self.trace(|| format!("daemon: {chunks:?} of t{table} are copied again"));
    }
}
