//! From a stream of messages to batches: whole source transactions, or pieces of a huge one.
//!
//! Pure: no socket, no clock. What goes in is the decoded stream in its order; what comes out can
//! be applied as it is.
//!
//! A batch is taken when the applier is free. While it works, transactions gather here, so a batch
//! is a single transaction when the stream is caught up and grows up to its limits in a backlog.

use std::sync::Arc;

use crate::chunk::{ChunkId, KeyRange};
use crate::ledger::ChangesByTable;
use crate::limits;
use crate::lsn::Lsn;
use crate::pgoutput::{Begin, Commit, OldTuple, PgTimestamp, Relation, Tuple};

/// One change of one row, or a TRUNCATE, as the source made it.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new row.
    Insert {
        /// The table it went to.
        relation: Arc<Relation>,
        /// The row.
        new: Tuple,
    },
    /// A changed row.
    Update {
        /// The table it is in.
        relation: Arc<Relation>,
        /// The old key if it changed, the whole old row under REPLICA IDENTITY FULL.
        old: Option<OldTuple>,
        /// The row afterwards.
        new: Tuple,
    },
    /// A row that is gone.
    Delete {
        /// The table it was in.
        relation: Arc<Relation>,
        /// Its key, or the whole row.
        old: OldTuple,
    },
    /// All rows of these tables are gone.
    Truncate {
        /// The tables that one statement emptied.
        relations: Vec<Arc<Relation>>,
        /// Their sequences started again.
        restart_identity: bool,
    },
    /// All rows of a key range are gone: what a TRUNCATE means for a table that is partly copied.
    Clear {
        /// The table that was emptied.
        relation: Arc<Relation>,
        /// The columns that the range is of.
        key: Vec<String>,
        /// The range.
        range: KeyRange,
    },
    /// A chunk has to be copied again: a row has moved into it that can't be put together here.
    SendBack {
        /// The table.
        relation: Arc<Relation>,
        /// The chunk.
        chunk: ChunkId,
    },
}

impl Change {
    /// What it keeps in memory, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let tuple = |old: &OldTuple| old.tuple().heap_bytes();
        size_of::<Self>()
            + match self {
                Self::Insert { new, .. } => new.heap_bytes(),
                Self::Update { old, new, .. } => new.heap_bytes() + old.as_ref().map_or(0, tuple),
                Self::Delete { old, .. } => tuple(old),
                Self::Truncate { relations, .. } => relations.len() * size_of::<Arc<Relation>>(),
                Self::Clear { .. } | Self::SendBack { .. } => 0,
            }
    }
}

/// The part of a source transaction that is in a batch.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// When it was committed, by the source's clock.
    pub commit_time: PgTimestamp,
    /// Its 32-bit transaction id on the source.
    pub xid: u32,
    /// Its position once it is applied; `None` while more pieces of it are to come.
    pub end: Option<Position>,
    /// Its changes, in their order.
    pub changes: Vec<Change>,
    /// The operator has asked to skip it: nothing of it is applied.
    pub skipped: Option<Skipped>,
}

/// What is known of a transaction that is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// How many changes of each table were dropped.
    Counted(ChangesByTable),
    /// The source can't send it.
    Unsent,
}

/// Up to where the source has been applied: what a checkpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The end LSN: everything committed below it is applied.
    pub lsn: Lsn,
    /// The commit time of the last transaction below it that had changes, by the source's clock.
    pub commit_time: Option<PgTimestamp>,
}

/// What goes to the target in one round.
///
/// Invariants: `transactions` are in commit order; only the last can be without its end; the first
/// can be the rest of one whose earlier pieces are already in the open target transaction
/// (`continues`).
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first transaction goes on in the target transaction that its earlier pieces opened.
    pub continues: bool,
    /// Source transactions in commit order; none at all if only the position moves.
    pub transactions: Vec<Transaction>,
    /// The checkpoint to commit with the rows; `None` for a piece, which leaves the target
    /// transaction open.
    pub end: Option<Position>,
}

impl Batch {
    /// How many changes it holds.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.transactions.iter().map(|t| t.changes.len()).sum()
    }

    /// The transactions before the one with this index, with a checkpoint of their own.
    ///
    /// `None` if there is nothing before it that could be committed without it.
    #[must_use]
    pub fn before(&self, transaction: usize) -> Option<Self> {
        let transactions = self.transactions.get(..transaction)?;
        let end = transactions.last()?.end?;
        if self.continues {
            // Its earlier pieces went away with the transaction that has just failed.
            return None;
        }
        Some(Self { continues: false, transactions: transactions.to_vec(), end: Some(end) })
    }
}

/// Gathers the stream into batches.
///
/// Drops what the checkpoint already holds: a transaction whose commit LSN is strictly *below* it.
/// The next commit record can begin exactly at the end LSN that a keepalive reported (seen on
/// PostgreSQL 15 and 17), so "at or below" would lose a transaction.
#[derive(Debug)]
pub struct Batcher {
    /// The checkpoint that streaming began at.
    start: Lsn,
    /// The commit LSNs of the transactions that are to be skipped.
    skips: Vec<Lsn>,
    /// Whole transactions that wait to be taken.
    whole: Vec<Transaction>,
    /// The transaction that is being received.
    open: Option<Open>,
    /// The first of the waiting transactions goes on in an open target transaction.
    continues: bool,
    /// The position has moved since the last batch.
    has_moved: bool,
    /// The position after everything received so far.
    position: Position,
    /// The commit LSN of the last transaction: they come in this order (rule C3).
    last_commit: Lsn,
    /// Changes and bytes that wait, the open transaction's included.
    changes: usize,
    bytes: usize,
    /// The most changes that it takes in.
    room: usize,
}

/// A transaction whose commit has not been received yet.
#[derive(Debug)]
struct Open {
    transaction: Transaction,
    /// It is below the checkpoint: its changes are dropped.
    applied_already: bool,
    /// Pieces of it have been taken.
    in_pieces: bool,
}

/// The stream was not what the protocol promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    /// A change or a commit outside a transaction.
    #[error("the source sent a {0} outside a transaction")]
    OutsideTransaction(&'static str),
    /// A transaction began inside another one.
    #[error("the source sent a BEGIN inside the transaction that commits at {0}")]
    BeginInside(Lsn),
    /// A transaction came after one that was committed later.
    #[error("the source sent the transaction that commits at {commit} after the one that commits at {last}")]
    CommitOrder {
        /// The commit LSN of the transaction that came late.
        commit: Lsn,
        /// The commit LSN of the one before it in the stream.
        last: Lsn,
    },
    /// BEGIN and COMMIT of a transaction disagree about its commit LSN.
    #[error("the source's COMMIT at {commit} ends a transaction whose BEGIN said {begin}")]
    CommitMismatch {
        /// What BEGIN said.
        begin: Lsn,
        /// What COMMIT said.
        commit: Lsn,
    },
}

impl From<OutOfOrder> for crate::fault::Fault {
    fn from(error: OutOfOrder) -> Self {
        Self::bug(error.to_string()).on(crate::fault::Side::Source)
    }
}

impl Batcher {
    /// Starts at a checkpoint, and drops the transactions with the commit LSNs `skips` when they come.
    #[must_use]
    pub fn new(start: Lsn, skips: Vec<Lsn>) -> Self {
        Self {
            start,
            skips,
            whole: Vec::new(),
            open: None,
            continues: false,
            has_moved: false,
            position: Position { lsn: start, commit_time: None },
            last_commit: Lsn::ZERO,
            changes: 0,
            bytes: 0,
            room: limits::BATCH_CHANGES,
        }
    }

    /// Starts at a checkpoint, and is full with this many changes.
    #[cfg(test)]
    pub(crate) fn with_room(start: Lsn, room: usize) -> Self {
        Self { room, ..Self::new(start, Vec::new()) }
    }

    /// The commit LSNs of the transactions that are to be skipped.
    #[must_use]
    pub fn skips(&self) -> &[Lsn] {
        &self.skips
    }

    /// A transaction begins.
    ///
    /// # Errors
    /// If it is inside another one, or out of commit order.
    pub fn begin(&mut self, begin: &Begin) -> Result<(), OutOfOrder> {
        if let Some(open) = &self.open {
            return Err(OutOfOrder::BeginInside(open.transaction.commit_lsn));
        }
        if begin.commit_lsn <= self.last_commit {
            return Err(OutOfOrder::CommitOrder { commit: begin.commit_lsn, last: self.last_commit });
        }
        self.last_commit = begin.commit_lsn;
        let applied_already = begin.commit_lsn < self.start;
        let is_skipped = !applied_already && self.skips.contains(&begin.commit_lsn);
        self.open = Some(Open {
            transaction: Transaction {
                commit_lsn: begin.commit_lsn,
                commit_time: begin.commit_time,
                xid: begin.xid,
                end: None,
                changes: Vec::new(),
                skipped: is_skipped.then(|| Skipped::Counted(ChangesByTable::new())),
            },
            applied_already,
            in_pieces: false,
        });
        Ok(())
    }

    /// A change of the transaction that is being received.
    ///
    /// # Errors
    /// If there is none.
    pub fn change(&mut self, change: Change) -> Result<(), OutOfOrder> {
        let open = self.open.as_mut().ok_or(OutOfOrder::OutsideTransaction("change"))?;
        if !open.applied_already {
            self.bytes += change.heap_bytes();
            self.changes += 1;
            let changes = &mut open.transaction.changes;
            if changes.is_empty() {
                // Most transactions of a backlog can be of one change, and a vector's first growth is by four.
                changes.reserve_exact(1);
            }
            changes.push(change);
        }
        Ok(())
    }

    /// What has been dropped of the transaction that is being received, if that is to be skipped: its
    /// changes are to be counted here instead of being given to [`Batcher::change`].
    pub fn skipped(&mut self) -> Option<&mut ChangesByTable> {
        match self.open.as_mut()?.transaction.skipped.as_mut()? {
            Skipped::Counted(dropped) => Some(dropped),
            Skipped::Unsent => None,
        }
    }

    /// True if the transaction that is being received is below the checkpoint: the target has it.
    #[must_use]
    pub fn has_applied_it(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.applied_already)
    }

    /// The commit LSN of the transaction that is being received.
    #[must_use]
    pub fn receiving(&self) -> Option<Lsn> {
        self.open.as_ref().map(|open| open.transaction.commit_lsn)
    }

    /// The position after everything that has been received completely.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position.lsn
    }

    /// The transaction that is being received is complete.
    ///
    /// # Errors
    /// If there is none, or it is another one.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), OutOfOrder> {
        let open = self.open.take().ok_or(OutOfOrder::OutsideTransaction("COMMIT"))?;
        let mut transaction = open.transaction;
        if transaction.commit_lsn != commit.commit_lsn {
            return Err(OutOfOrder::CommitMismatch {
                begin: transaction.commit_lsn,
                commit: commit.commit_lsn,
            });
        }
        let is_skipped = transaction.skipped.is_some();
        let has_changes = open.in_pieces || is_skipped || !transaction.changes.is_empty();
        if has_changes {
            self.position.commit_time = Some(transaction.commit_time);
        }
        self.advance(commit.end_lsn);
        if has_changes {
            transaction.end = Some(self.position);
            self.whole.push(transaction);
        }
        Ok(())
    }

    /// The source can't send the rest of the transaction that is being received, and never will: what has
    /// come of it is forgotten. True if it is to be skipped: then it ends here, and streaming can begin
    /// behind it.
    pub fn give_up(&mut self) -> bool {
        let Some(Open { mut transaction, .. }) = self.open.take() else { return false };
        let is_skipped = transaction.skipped.is_some();
        if is_skipped {
            // Where its commit record ends is not known. A server asked to begin anywhere behind that
            // record's first byte leaves it out (SnapBuildXactNeedsSkip() in snapbuild.c).
            self.advance(Lsn::from(transaction.commit_lsn.as_u64() + 1));
            self.position.commit_time = Some(transaction.commit_time);
            transaction.skipped = Some(Skipped::Unsent);
            transaction.end = Some(self.position);
            self.whole.push(transaction);
        }
        is_skipped
    }

    /// The source has nothing below this position that we have not received (a keepalive).
    ///
    /// Inside a transaction it says nothing that could be used.
    pub fn advance(&mut self, lsn: Lsn) {
        if self.open.is_none() && lsn > self.position.lsn {
            self.position.lsn = lsn;
            self.has_moved = true;
        }
    }

    /// False when a limit is reached and nothing more should be read before a batch is taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.changes < self.room && self.bytes < limits::BATCH_BYTES
    }

    /// True when nothing waits to be applied and no transaction is being received.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.whole.is_empty() && self.open.is_none()
    }

    /// True when the position has moved since the last batch although there is nothing to apply.
    #[must_use]
    pub fn only_moved(&self) -> bool {
        self.is_idle() && self.has_moved
    }

    /// Takes what can be applied now: whole transactions, or a piece of one that has filled the
    /// batch alone. `None` when there is neither.
    pub fn take(&mut self) -> Option<Batch> {
        if !self.whole.is_empty() {
            return Some(self.take_whole());
        }
        if self.has_room() {
            return None;
        }
        let open = self.open.as_mut()?;
        let changes = std::mem::take(&mut open.transaction.changes);
        let piece = Transaction { changes, ..open.transaction.clone() };
        let batch = Batch { continues: open.in_pieces, transactions: vec![piece], end: None };
        open.in_pieces = true;
        self.continues = true;
        self.changes = 0;
        self.bytes = 0;
        Some(batch)
    }

    /// Takes the position alone, to write it down. `None` when something has to be applied first.
    pub fn take_position(&mut self) -> Option<Batch> {
        if !self.is_idle() {
            return None;
        }
        self.has_moved = false;
        Some(Batch { continues: false, transactions: Vec::new(), end: Some(self.position) })
    }

    fn take_whole(&mut self) -> Batch {
        let transactions = std::mem::take(&mut self.whole);
        let rest = self.open.as_ref().map_or(&[][..], |open| &open.transaction.changes);
        self.changes = rest.len();
        self.bytes = rest.iter().map(Change::heap_bytes).sum();
        self.has_moved = false;
        // With a transaction open, `position` is still the one before it.
        Batch { continues: std::mem::take(&mut self.continues), transactions, end: Some(self.position) }
    }
}

#[cfg(test)]
mod tests;
