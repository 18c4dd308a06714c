//! The chunks of one table, and how far each is.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::key::KeyOf;
use crate::chunk::{KeyRange, KeyType, Snapshot, Xid};
use crate::fault::Result;
use crate::lsn::Lsn;
use crate::pgoutput::{Relation, Tuple};

/// How far a chunk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be copied: once the checkpoint is beyond `after`, the commit LSN of the last transaction that had
    /// changed it when it was sent back or asked for. Before, its DELETE and the stream could wait for each
    /// other.
    Pending { after: Option<Lsn> },
    /// Being copied under this snapshot.
    Copying(Arc<Snapshot>),
    /// Copied under this snapshot, of which everything was committed below the position.
    Done(Arc<Snapshot>, Lsn),
    /// The checkpoint has passed that position.
    Over,
}

/// What becomes of a change to a chunk's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Apply,
    Drop,
    Wait,
}

struct Chunk {
    range: KeyRange,
    state: State,
    /// Rows that moved here have sent it back already.
    was_sent_back: bool,
    /// Chunks that rows have come from since then, or gone to: they are copied under one snapshot.
    partners: BTreeSet<u32>,
}

/// A table whose rows are copied in chunks.
pub struct CopyTable {
    /// Every transaction before it must have ended in a snapshot of this table.
    pub(super) fence: Xid,
    key: KeyOf,
    /// By ordinal; each range begins where the one before it ends.
    chunks: Vec<Chunk>,
    not_over: usize,
    /// The lowest position that changes something when the checkpoint passes it.
    next: Lsn,
}

impl CopyTable {
    /// A table with these chunks, in the order of their ranges; those that were copied come with
    /// their snapshot and its position.
    ///
    /// `fence` is a transaction id that was assigned after the table had come into the stream.
    #[must_use]
    pub fn new(
        fence: Xid,
        key: Vec<(String, KeyType)>,
        chunks: impl IntoIterator<Item = (KeyRange, Option<(Snapshot, Lsn)>)>,
        checkpoint: Lsn,
    ) -> Self {
        let chunks: Vec<Chunk> = chunks
            .into_iter()
            .map(|(range, done)| Chunk {
                range,
                state: match done {
                    None => State::Pending { after: None },
                    Some((snapshot, lsn)) => State::Done(Arc::new(snapshot), lsn),
                },
                was_sent_back: false,
                partners: BTreeSet::new(),
            })
            .collect();
        let mut table = Self { fence, key: KeyOf::new(key), not_over: chunks.len(), chunks, next: Lsn::ZERO };
        table.durable(checkpoint);
        table
    }

    /// What is pending is to be copied once the checkpoint is beyond `after`.
    pub(super) fn hold_pending(&mut self, after: Lsn, checkpoint: Lsn) {
        for ordinal in self.pending().collect::<Vec<_>>() {
            self.set(ordinal, State::Pending { after: Some(after) });
        }
        self.durable(checkpoint);
    }

    pub(super) fn is_over(&self) -> bool {
        self.not_over == 0
    }

    /// True if a checkpoint at this position makes it over.
    pub(super) fn is_over_at(&self, position: Lsn) -> bool {
        self.chunks.iter().all(|chunk| match &chunk.state {
            State::Over => true,
            State::Done(_, lsn) => *lsn <= position,
            State::Pending { .. } | State::Copying(_) => false,
        })
    }

    pub(super) fn chunks(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn range(&self, ordinal: u32) -> &KeyRange {
        &self.chunk(ordinal).range
    }

    pub(super) fn key_columns(&self) -> Vec<String> {
        self.key.columns()
    }

    /// The chunk that a row belongs to. `names_rows`: the change has to tell the old key, too.
    pub(super) fn chunk_of(
        &mut self,
        relation: &Arc<Relation>,
        row: &Tuple,
        names_rows: bool,
    ) -> Result<u32> {
        if self.chunks.len() == 1 {
            return Ok(0);
        }
        let key = self.key.of(relation, row, names_rows)?;
        // The first range is open below, so there is always one before this point.
        let after = self.chunks.partition_point(|c| c.range.lower.as_ref().is_none_or(|lower| *lower <= key));
        Ok(u32::try_from(after.saturating_sub(1)).unwrap_or(u32::MAX))
    }

    pub(super) fn verdict(&self, ordinal: u32, xid: Xid) -> Verdict {
        match &self.chunk(ordinal).state {
            State::Pending { .. } if keeps!(DroppedWhilePending) => Verdict::Drop,
            State::Copying(snapshot) | State::Done(snapshot, _)
                if keeps!(DroppedIfCopied) && snapshot.sees(xid) =>
            {
                Verdict::Drop
            }
            State::Copying(_) if keeps!(WaitsWhileCopied) => Verdict::Wait,
            State::Copying(_) => Verdict::Drop,
            State::Pending { .. } | State::Done(..) | State::Over => Verdict::Apply,
        }
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = u32> {
        (0..self.chunks()).filter(|ordinal| self.is_pending(*ordinal))
    }

    pub(super) fn is_pending(&self, ordinal: u32) -> bool {
        matches!(self.chunk(ordinal).state, State::Pending { .. })
    }

    pub(super) fn can_be_copied(&self, ordinal: u32) -> bool {
        self.chunk(ordinal).state == State::Pending { after: None }
    }

    /// The chunks that are copied under one snapshot with this one: it alone, unless rows have moved
    /// between them again and again.
    pub(super) fn together_with(&self, ordinal: u32) -> BTreeSet<u32> {
        let mut together = BTreeSet::from([ordinal]);
        let mut look_at = vec![ordinal];
        while let Some(next) = look_at.pop() {
            for partner in &self.chunk(next).partners {
                if together.insert(*partner) {
                    look_at.push(*partner);
                }
            }
        }
        together
    }

    /// What was being copied is pending again. Before a snapshot is accepted, the stream can have sent
    /// the chunk back meanwhile, and then it stays as it is.
    pub(super) fn failed(&mut self, ordinal: u32) {
        if matches!(self.chunk(ordinal).state, State::Copying(_)) {
            self.set(ordinal, State::Pending { after: None });
        }
    }

    /// A row has come from a chunk whose copy has it no more, or will not have it. Which chunks are to
    /// be copied again, or the one that has to be done before that is possible.
    ///
    /// The first time it is this chunk alone. But while it is copied under a later snapshot than the
    /// other one, rows can move back, and that can go on for as long as rows move. So from the second
    /// time on both are copied again, under one snapshot, with all that this has happened to with
    /// either. A row that moves between them afterwards is in the copy of both or of none.
    pub(super) fn send_back(
        &mut self,
        ordinal: u32,
        from: u32,
        commit_lsn: Lsn,
    ) -> Result<BTreeSet<u32>, u32> {
        let is_first = !std::mem::replace(&mut self.chunks[ordinal as usize].was_sent_back, true);
        if !is_first && keeps!(Together) {
            self.chunks[ordinal as usize].partners.insert(from);
            self.chunks[from as usize].partners.insert(ordinal);
        }
        let together = self.together_with(ordinal);
        let is_copying = |ordinal: &&u32| matches!(self.chunk(**ordinal).state, State::Copying(_));
        if let Some(copying) = together.iter().find(is_copying) {
            return Err(*copying);
        }
        let after = keeps!(WaitsAfterSendBack).then_some(commit_lsn);
        for ordinal in &together {
            self.set(*ordinal, State::Pending { after });
        }
        Ok(together)
    }

    pub(super) fn set(&mut self, ordinal: u32, state: State) {
        let chunk = &mut self.chunks[ordinal as usize];
        let was_over = std::mem::replace(&mut chunk.state, state) == State::Over;
        let is_over = chunk.state == State::Over;
        self.not_over = self.not_over + usize::from(was_over) - usize::from(is_over);
        if let State::Done(_, lsn) | State::Pending { after: Some(lsn) } = &chunk.state {
            self.next = self.next.min(*lsn);
        }
    }

    pub(super) fn durable(&mut self, checkpoint: Lsn) {
        if checkpoint < self.next {
            return;
        }
        self.next = Lsn::from(u64::MAX);
        for ordinal in 0..self.chunks() {
            let state = match &self.chunk(ordinal).state {
                State::Done(_, lsn) if *lsn <= checkpoint => State::Over,
                State::Pending { after: Some(commit) } if *commit < checkpoint => {
                    State::Pending { after: None }
                }
                State::Done(_, lsn) | State::Pending { after: Some(lsn) } => {
                    self.next = self.next.min(*lsn);
                    continue;
                }
                State::Pending { after: None } | State::Copying(_) | State::Over => continue,
            };
            self.set(ordinal, state);
        }
    }

    fn chunk(&self, ordinal: u32) -> &Chunk {
        &self.chunks[ordinal as usize]
    }
}
