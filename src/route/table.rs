//! The chunks of one table, and how far each is.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::key::KeyOf;
use crate::chunk::{KeyRange, KeyType, Snapshot, Xid};
use crate::fault::Result;
use crate::lsn::Lsn;
use crate::pgoutput::{Relation, Tuple};

/// From how many times on a chunk that is sent back is copied together with the others.
const TOGETHER_FROM: u32 = 2;

/// How far a chunk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be copied: once the checkpoint is beyond `after`, the commit LSN of a transaction that has
    /// sent it back. Before, its DELETE and the stream could wait for each other.
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
    /// How often rows that moved here from a pending chunk have sent it back, and from which.
    times_sent_back: u32,
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
                times_sent_back: 0,
                partners: BTreeSet::new(),
            })
            .collect();
        let mut table = Self { fence, key: KeyOf::new(key), not_over: chunks.len(), chunks, next: Lsn::ZERO };
        table.durable(checkpoint);
        table
    }

    pub(super) fn is_over(&self) -> bool {
        self.not_over == 0
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
            State::Pending { .. } => Verdict::Drop,
            State::Copying(snapshot) | State::Done(snapshot, _) if snapshot.sees(xid) => Verdict::Drop,
            State::Copying(_) => Verdict::Wait,
            State::Done(..) | State::Over => Verdict::Apply,
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

    pub(super) fn together_with(&self, ordinal: u32) -> Vec<u32> {
        let mut together = BTreeSet::from([ordinal]);
        let mut look_at = vec![ordinal];
        while let Some(next) = look_at.pop() {
            let chunk = self.chunk(next);
            if chunk.times_sent_back < TOGETHER_FROM {
                continue;
            }
            for partner in &chunk.partners {
                if self.can_be_copied(*partner) && together.insert(*partner) {
                    look_at.push(*partner);
                }
            }
        }
        together.into_iter().collect()
    }

    /// A row has come from a chunk whose copy has it no more, or will not have it.
    pub(super) fn send_back(&mut self, ordinal: u32, from: u32, commit_lsn: Lsn) {
        self.set(ordinal, State::Pending { after: Some(commit_lsn) });
        let chunk = &mut self.chunks[ordinal as usize];
        chunk.times_sent_back += 1;
        chunk.partners.insert(from);
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
