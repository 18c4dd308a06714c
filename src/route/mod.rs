//! Which change is applied, which is dropped, and which waits. Pure.
//!
//! Rows are copied chunk by chunk while the stream runs, so for every change there is one question:
//! does the copy of its chunk have it, or will it? The answer is in the snapshot that the chunk was
//! read under (rule C5). A change of transaction X, to a row of chunk c:
//!
//! ```text
//! c is pending                  drop: a snapshot that is still to be taken will see X
//! c is being copied under S     S sees X: drop       it doesn't: wait until c is done
//! c is done, under S            S sees X: drop       it doesn't: apply
//! c is over                     apply: nothing that S sees can come any more
//! ```
//!
//! What makes this true is which snapshots are accepted ([`Router::offer`]): those that see every
//! transaction that was routed, from its Begin on, and in which everything has ended that ran when
//! the stream began or when the table came into it. A commit is in the stream a moment before new
//! snapshots see it, and much longer with a synchronous standby.
//!
//! What ran at a moment is known from a *fence*: a transaction id that was assigned then, to a
//! transaction of our own (`pg_current_xact_id()`). Whatever had an id already has a lower one. The
//! xmax of a snapshot would not do: it is one past the highest id that has *ended*, and those that
//! were assigned since and still run are not below it.
//!
//! Everything here happens in the engine's loop, so accepting a snapshot and changing the chunk's
//! state are one step between two changes.

/// True: the rule holds. The simulator leaves rules out, one at a time, to show that each is needed.
#[cfg(not(test))]
macro_rules! keeps {
    ($rule:ident) => {
        true
    };
}
#[cfg(test)]
macro_rules! keeps {
    ($rule:ident) => {
        $crate::route::simulator::keeps($crate::route::simulator::Rule::$rule)
    };
}

mod key;
#[cfg(test)]
mod simulator;
mod table;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub use table::CopyTable;
use table::{State, Verdict};

use crate::apply::Change;
use crate::catalog::TableName;
use crate::chunk::{ChunkId, Snapshot, Xid};
use crate::fault::Result;
use crate::lsn::Lsn;
use crate::pgoutput::{Relation, Value};

/// What becomes of a change.
#[derive(Debug)]
pub enum Routed {
    /// It is applied, as it is or as what is left of it.
    Apply(Change),
    /// What is left of it are these, in this order.
    Split(Vec<Change>),
    /// The copy has it, or will have it.
    Drop,
    /// It has to be asked again when this chunk is done, or pending again.
    Wait(Change, ChunkId),
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The chunks are being copied under it from now on.
    Accepted,
    /// A newer one is needed, in which this transaction has ended.
    Refused(Xid),
    /// These chunks are not to be copied now.
    Withdrawn,
}

/// A relation in the stream whose chunks aren't known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its oid on the source.
    pub relation: u32,
    /// Its name.
    pub name: TableName,
}

enum Known {
    /// It is in the stream, but its chunks aren't planned: as if all of it were pending.
    Unplanned,
    Copied(CopyTable),
    /// Every chunk is over.
    Over,
}

/// Decides about every change, and about every snapshot that chunks are to be copied under.
pub struct Router {
    tables: HashMap<u32, Known>,
    /// Every transaction before it must have ended in a snapshot: what was committed before the slot
    /// was there is in no stream, and what an earlier life has routed isn't known.
    fence: Xid,
    /// A snapshot that was taken last, of no chunk: what is accepted sees all that it sees.
    seen: Snapshot,
    /// Transactions that were routed, and that `seen` doesn't see.
    unseen: BTreeSet<Xid>,
    /// The transaction that is being routed.
    xid: Xid,
    commit_lsn: Lsn,
    newcomers: Vec<Newcomer>,
    sent_back: Vec<ChunkId>,
}

impl Router {
    /// A router for a stream that has just begun. `fence` is a transaction id that was assigned after
    /// that, and after the slot and the publications were made; `now` is a snapshot taken after it.
    #[must_use]
    pub fn new(fence: Xid, now: Snapshot) -> Self {
        Self {
            tables: HashMap::new(),
            fence,
            xid: fence,
            seen: now,
            unseen: BTreeSet::new(),
            commit_lsn: Lsn::ZERO,
            newcomers: Vec::new(),
            sent_back: Vec::new(),
        }
    }

    /// A table's chunks are known from now on.
    pub fn add(&mut self, relation: u32, table: CopyTable) {
        let known = if table.is_over() { Known::Over } else { Known::Copied(table) };
        self.tables.insert(relation, known);
    }

    /// Parts of a table that was over, which the ledger says are pending, are copied again: these are its
    /// chunks from now on. What was routed until now is applied, and what comes is dropped, as a snapshot that
    /// sees both is still to be taken; until the one is committed, the copy's DELETE and the stream could wait
    /// for each other.
    pub fn copy_again(&mut self, relation: u32, mut table: CopyTable, checkpoint: Lsn) {
        if keeps!(WaitsAfterRepair) {
            table.hold_pending(self.commit_lsn, checkpoint);
        }
        self.add(relation, table);
    }

    /// The relation is in the stream, and its chunks will come.
    pub fn expect(&mut self, relation: u32) {
        self.tables.entry(relation).or_insert(Known::Unplanned);
    }

    /// The table is gone from the source: nothing more will come of it.
    pub fn forget(&mut self, relation: u32) {
        self.tables.remove(&relation);
    }

    /// The tables whose chunks are known.
    #[must_use]
    pub fn planned(&self) -> Vec<u32> {
        let is_planned = |known: &Known| !matches!(known, Known::Unplanned);
        self.tables.iter().filter(|(_, known)| is_planned(known)).map(|(relation, _)| *relation).collect()
    }

    /// The relation is published. Nothing may ever come of it through the stream, but its rows are wanted.
    pub fn meet(&mut self, relation: u32, name: &TableName) {
        if let Entry::Vacant(unknown) = self.tables.entry(relation) {
            self.newcomers.push(Newcomer { relation, name: name.clone() });
            unknown.insert(Known::Unplanned);
        }
    }

    /// Relations that were met and aren't known, once each.
    pub fn take_newcomers(&mut self) -> Vec<Newcomer> {
        std::mem::take(&mut self.newcomers)
    }

    /// Chunks that have to be copied again. One that waits to be copied already can be among them: an
    /// offer of it alone is withdrawn.
    pub fn take_sent_back(&mut self) -> Vec<ChunkId> {
        std::mem::take(&mut self.sent_back)
    }

    /// True if every table that is known is a state that the source once had.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.tables.values().all(|table| matches!(table, Known::Over))
    }

    /// True if a checkpoint at this position is all that the target lacks to be consistent.
    #[must_use]
    pub fn is_consistent_at(&self, position: Lsn) -> bool {
        self.tables.values().all(|table| match table {
            Known::Over => true,
            Known::Copied(table) => table.is_over_at(position),
            Known::Unplanned => false,
        })
    }

    /// A transaction begins in the stream.
    pub fn begin(&mut self, xid: u32, commit_lsn: Lsn) {
        let before = self.xid;
        let xid_alone = Xid::new(u64::from(xid));
        self.xid = if keeps!(Widened) { Xid::widen(xid, self.seen.xmax()) } else { xid_alone };
        self.commit_lsn = commit_lsn;
        let counted = if keeps!(CountedFromBegin) { self.xid } else { before };
        if !self.seen.sees(counted) {
            self.unseen.insert(counted);
        }
    }

    /// A snapshot that was taken just now, for no chunk.
    pub fn see(&mut self, now: Snapshot) {
        self.unseen.retain(|xid| !now.sees(*xid));
        self.seen = now;
    }

    /// A snapshot has been taken to read these chunks under. All or none of them are accepted.
    pub fn offer(&mut self, chunks: &[ChunkId], snapshot: &Arc<Snapshot>) -> Offer {
        for chunk in chunks {
            let Some(Known::Copied(table)) = self.tables.get(&chunk.relation) else {
                return Offer::Withdrawn;
            };
            let is_offered = |ordinal| chunks.contains(&ChunkId { relation: chunk.relation, ordinal });
            let are_complete = table.together_with(chunk.ordinal).into_iter().all(is_offered);
            if !are_complete || !table.can_be_copied(chunk.ordinal) {
                return Offer::Withdrawn;
            }
            if snapshot.xmin() < self.fence.max(table.fence) {
                return Offer::Refused(snapshot.xmin());
            }
        }
        let not_seen = self.unseen.iter().find(|xid| !snapshot.sees(**xid));
        if let Some(xid) = not_seen.filter(|_| keeps!(RoutedAreSeen)) {
            return Offer::Refused(*xid);
        }
        if let Some(xid) = snapshot.lacks(&self.seen).filter(|_| keeps!(NotOlderThanSeen)) {
            return Offer::Refused(xid);
        }
        for chunk in chunks {
            self.set(*chunk, State::Copying(Arc::clone(snapshot)));
        }
        Offer::Accepted
    }

    /// These chunks are committed on the target, with the record that they are. `lsn` is a position
    /// below which everything was committed that their snapshot sees.
    pub fn done(&mut self, chunks: &[ChunkId], snapshot: &Arc<Snapshot>, lsn: Lsn) {
        for chunk in chunks {
            self.set(*chunk, State::Done(Arc::clone(snapshot), lsn));
        }
    }

    /// These chunks could not be copied, whether their snapshot was accepted or not. Nothing of them is
    /// committed.
    pub fn failed(&mut self, chunks: &[ChunkId]) {
        for chunk in chunks {
            if let Some(Known::Copied(table)) = self.tables.get_mut(&chunk.relation) {
                table.failed(chunk.ordinal);
            }
        }
    }

    fn set(&mut self, chunk: ChunkId, state: State) {
        if let Some(Known::Copied(table)) = self.tables.get_mut(&chunk.relation) {
            table.set(chunk.ordinal, state);
        }
    }

    /// Everything below this checkpoint is durable on the target.
    pub fn durable(&mut self, checkpoint: Lsn) {
        for table in self.tables.values_mut() {
            if let Known::Copied(copied) = table {
                copied.durable(checkpoint);
                if copied.is_over() {
                    *table = Known::Over;
                }
            }
        }
    }

    /// True if the relation is in the stream and its chunks aren't known.
    #[must_use]
    pub fn is_unplanned(&self, relation: u32) -> bool {
        matches!(self.tables.get(&relation), Some(Known::Unplanned))
    }

    /// True if the table's chunks are known, and not all of them are over.
    #[must_use]
    pub fn is_copied(&self, relation: u32) -> bool {
        matches!(self.tables.get(&relation), Some(Known::Copied(_)))
    }

    /// The table's chunks that are pending.
    #[must_use]
    pub fn pending(&self, relation: u32) -> Vec<ChunkId> {
        match self.tables.get(&relation) {
            Some(Known::Copied(table)) => {
                table.pending().map(|ordinal| ChunkId { relation, ordinal }).collect()
            }
            Some(Known::Unplanned | Known::Over) | None => Vec::new(),
        }
    }

    /// True if the chunk is pending.
    #[must_use]
    pub fn is_pending(&self, chunk: ChunkId) -> bool {
        matches!(self.tables.get(&chunk.relation), Some(Known::Copied(t)) if t.is_pending(chunk.ordinal))
    }

    /// True if the chunk is pending, and everything that sent it back is committed.
    #[must_use]
    pub fn can_be_copied(&self, chunk: ChunkId) -> bool {
        matches!(self.tables.get(&chunk.relation), Some(Known::Copied(t)) if t.can_be_copied(chunk.ordinal))
    }

    /// The chunks that have to be copied under one snapshot with this one: none but itself, unless rows
    /// that move between them have sent it back again and again.
    #[must_use]
    pub fn together_with(&self, chunk: ChunkId) -> Vec<ChunkId> {
        match self.tables.get(&chunk.relation) {
            Some(Known::Copied(table)) => table
                .together_with(chunk.ordinal)
                .into_iter()
                .map(|ordinal| ChunkId { relation: chunk.relation, ordinal })
                .collect(),
            Some(Known::Unplanned | Known::Over) | None => vec![chunk],
        }
    }

    /// Decides about a change of the transaction that began last.
    ///
    /// # Errors
    /// If the change doesn't tell the key that the table's chunks are ranges of: its replica identity
    /// has changed since the copy was planned.
    pub fn route(&mut self, change: Change) -> Result<Routed> {
        let (Change::Insert { relation, .. }
        | Change::Update { relation, .. }
        | Change::Delete { relation, .. }) = &change
        else {
            return Ok(self.route_truncate(change));
        };
        let xid = self.xid;
        let table = match self.tables.get_mut(&relation.oid) {
            Some(Known::Over) => return Ok(Routed::Apply(change)),
            Some(Known::Copied(table)) => table,
            Some(Known::Unplanned) | None => {
                self.note(&Arc::clone(relation));
                return Ok(Routed::Drop);
            }
        };
        let ordinal = match &change {
            Change::Insert { relation, new } => table.chunk_of(relation, new, false)?,
            Change::Delete { relation, old } => table.chunk_of(relation, old.tuple(), true)?,
            Change::Update { relation, old: None, new } => table.chunk_of(relation, new, true)?,
            Change::Update { relation, old: Some(old), new } => {
                let from = table.chunk_of(relation, old.tuple(), true)?;
                let to = table.chunk_of(relation, new, true)?;
                if from != to {
                    return Ok(self.route_move(change, from, to));
                }
                to
            }
            Change::Truncate { .. } | Change::Clear { .. } | Change::SendBack { .. } => 0,
        };
        Ok(match table.verdict(ordinal, xid) {
            Verdict::Apply => Routed::Apply(change),
            Verdict::Drop => Routed::Drop,
            Verdict::Wait => {
                let chunk = ChunkId { relation: relation.oid, ordinal };
                Routed::Wait(change, chunk)
            }
        })
    }

    /// An UPDATE that moves a row to another chunk is a delete in the one and an insert in the other.
    fn route_move(&mut self, change: Change, from: u32, to: u32) -> Routed {
        let Change::Update { relation, old: Some(old), new } = &change else { return Routed::Apply(change) };
        let Some(Known::Copied(table)) = self.tables.get_mut(&relation.oid) else {
            return Routed::Apply(change);
        };
        let chunk = |ordinal| ChunkId { relation: relation.oid, ordinal };
        match (table.verdict(from, self.xid), table.verdict(to, self.xid)) {
            (Verdict::Wait, _) => {
                let waits_for = chunk(from);
                Routed::Wait(change, waits_for)
            }
            (_, Verdict::Wait) => {
                let waits_for = chunk(to);
                Routed::Wait(change, waits_for)
            }
            (Verdict::Drop, Verdict::Drop) => Routed::Drop,
            (Verdict::Apply, Verdict::Apply) => Routed::Apply(change),
            (Verdict::Apply, Verdict::Drop) => {
                Routed::Apply(Change::Delete { relation: Arc::clone(relation), old: old.clone() })
            }
            (Verdict::Drop, Verdict::Apply)
                if !keeps!(SentBack) || new.values().all(|value| value != Value::Unchanged) =>
            {
                Routed::Apply(Change::Insert { relation: Arc::clone(relation), new: new.clone() })
            }
            // A value that was not sent, of a row that the target has never had.
            (Verdict::Drop, Verdict::Apply) => match table.send_back(to, from, self.commit_lsn) {
                Ok(again) => {
                    self.sent_back.extend(again.iter().copied().map(chunk));
                    let send_back =
                        |ordinal| Change::SendBack { relation: Arc::clone(relation), chunk: chunk(ordinal) };
                    Routed::Split(again.into_iter().map(send_back).collect())
                }
                Err(copying) => {
                    let waits_for = chunk(copying);
                    Routed::Wait(change, waits_for)
                }
            },
        }
    }

    /// Empties the chunks that are done and whose snapshot doesn't see it; the whole table, if that is
    /// all of it. LOCK TABLE keeps a TRUNCATE from coming between a snapshot and its read.
    fn route_truncate(&mut self, change: Change) -> Routed {
        let Change::Truncate { relations, restart_identity } = &change else { return Routed::Apply(change) };
        let mut whole = Vec::new();
        let mut changes = Vec::new();
        for relation in relations {
            let table = match self.tables.get(&relation.oid) {
                Some(Known::Over) => {
                    whole.push(Arc::clone(relation));
                    continue;
                }
                Some(Known::Copied(table)) => table,
                Some(Known::Unplanned) | None => {
                    self.note(relation);
                    continue;
                }
            };
            let verdicts: Vec<(u32, Verdict)> =
                (0..table.chunks()).map(|ordinal| (ordinal, table.verdict(ordinal, self.xid))).collect();
            if let Some((ordinal, _)) = verdicts.iter().find(|(_, verdict)| *verdict == Verdict::Wait) {
                let waits_for = ChunkId { relation: relation.oid, ordinal: *ordinal };
                return Routed::Wait(change, waits_for);
            }
            if !keeps!(TruncatedByChunk) || verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Apply) {
                whole.push(Arc::clone(relation));
                continue;
            }
            let emptied = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Apply);
            changes.extend(emptied.map(|(ordinal, _)| Change::Clear {
                relation: Arc::clone(relation),
                key: table.key_columns(),
                range: table.range(*ordinal).clone(),
            }));
        }
        if !whole.is_empty() {
            changes.push(Change::Truncate { relations: whole, restart_identity: *restart_identity });
        }
        Routed::Split(changes)
    }

    /// Notes a relation whose chunks aren't known, once.
    fn note(&mut self, relation: &Relation) {
        if !self.tables.contains_key(&relation.oid) {
            self.meet(relation.oid, &TableName::new(&relation.schema, &relation.name));
        }
    }
}
