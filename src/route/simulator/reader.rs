//! A reader of the copy, step by step (rule C5).

use std::rc::Rc;
use std::sync::Arc;

use super::engine::Engine;
use super::row::Row;
use super::rules::{Rule, keeps};
use super::source::Taken;
use super::target::{Entry, Stop, Tid, Write};
use super::world::{Kind, Outcome, World};
use crate::chunk::{ChunkId, Snapshot};
use crate::lsn::Lsn;
use crate::route::Offer;

/// What a reader does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Lock,
    TakeSnapshot,
    Offer,
    Read,
    /// Records the chunk as done before its rows are there: only without the rule.
    DoneAlone,
    Delete,
    Insert,
    /// Ends the read transaction and emits a message in one of its own.
    Emit,
    ReadPosition,
    Done,
    /// COMMIT has been sent.
    Sent,
    /// It is committed, which the daemon doesn't know yet.
    Landed,
    /// The answer is lost.
    Lost,
}

/// A reader with chunks to copy under one snapshot.
pub(super) struct Reader {
    pub(super) token: u32,
    pub(super) chunks: Vec<ChunkId>,
    steps: Vec<Step>,
    taken: Option<(Rc<Taken>, Arc<Snapshot>)>,
    pub(super) is_accepted: bool,
    rows: Vec<(usize, Row)>,
    pub(super) tid: Option<Tid>,
    pub(super) waits_for: Option<Tid>,
    lsn: u64,
}

/// The steps, the next one last.
fn steps() -> Vec<Step> {
    use Step::{Delete, Done, DoneAlone, Emit, Insert, Landed, Lock, Read, ReadPosition, Sent, TakeSnapshot};
    let offer = if keeps(Rule::LockedFirst) {
        [Lock, TakeSnapshot, Step::Offer]
    } else {
        [TakeSnapshot, Step::Offer, Lock]
    };
    let rest = if keeps(Rule::DoneWithRows) {
        [Read, Delete, Insert, Emit, ReadPosition, Done, Sent, Landed]
    } else {
        [Read, Emit, ReadPosition, DoneAlone, Delete, Insert, Sent, Landed]
    };
    offer.into_iter().chain(rest).rev().collect()
}

fn place(chunk: ChunkId) -> (usize, usize) {
    (usize::try_from(chunk.relation - 100).unwrap(), usize::try_from(chunk.ordinal).unwrap())
}

impl World {
    /// A reader takes a chunk, and those that have to be copied with it.
    pub(super) fn new_reader(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        if engine.readers.len() >= self.profile.readers || engine.source_is_gone {
            return;
        }
        let together = |chunk: ChunkId| {
            if keeps(Rule::Together) { engine.router.together_with(chunk) } else { vec![chunk] }
        };
        let is_ready = |chunk: &ChunkId| engine.queue.contains(chunk) && engine.router.can_be_copied(*chunk);
        let jobs = engine.queue.iter().map(|chunk| together(*chunk));
        let ready: Vec<Vec<ChunkId>> = jobs.filter(|chunks| chunks.iter().all(is_ready)).collect();
        let Some(chunks) = self.rng.choice(ready) else { return };
        engine.queue.retain(|queued| !chunks.contains(queued));
        self.next_token += 1;
        engine.readers.push(Reader {
            token: self.next_token,
            chunks,
            steps: steps(),
            taken: None,
            is_accepted: false,
            rows: Vec::new(),
            tid: None,
            waits_for: None,
            lsn: 0,
        });
    }

    /// A reader goes on.
    pub(super) fn reader_step(&mut self) -> Outcome {
        let Some(count) = self.engine.as_ref().map(|engine| engine.readers.len()) else { return Ok(()) };
        if count == 0 {
            return Ok(());
        }
        let which = self.rng.usize(..count);
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let reader = &mut engine.readers[which];
        let Some(step) = reader.steps.last().copied() else { return Ok(()) };
        // The rows come from there until they are all inserted.
        let needs_source =
            !matches!(step, Step::Delete | Step::Done | Step::Sent | Step::Landed | Step::Lost);
        if engine.source_is_gone && needs_source {
            return self.reader_fails(which);
        }
        match step {
            Step::Lock | Step::TakeSnapshot | Step::Offer | Step::Read | Step::Emit | Step::ReadPosition => {
                self.source_step(which, step)
            }
            Step::DoneAlone | Step::Delete | Step::Insert | Step::Done => {
                if reader.tid.is_none() {
                    reader.tid = self.target.begin(engine.epoch);
                }
                if reader.tid.is_none() {
                    self.kill();
                    return Ok(());
                }
                self.target_step(which, step)
            }
            Step::Sent => {
                let tid = reader.tid.unwrap();
                reader.steps.pop();
                self.trace(|| format!("target: the copy {tid} is committed"));
                self.commit(tid)
            }
            Step::Landed => self.chunk_is_done(which),
            Step::Lost => self.read_again(which),
        }
    }

    /// The reader ends its transaction and tries again with a newer snapshot.
    fn refused(&mut self, which: usize) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let reader = &mut engine.readers[which];
        self.source.unlock(reader.token);
        reader.taken = None;
        reader.steps = steps();
        Ok(())
    }

    /// The reader leaves the chunks alone: what has sent them back has queued them again.
    fn withdrawn(&mut self, which: usize) -> Outcome {
        if let Some(engine) = &mut self.engine {
            let reader = engine.readers.swap_remove(which);
            self.source.unlock(reader.token);
        }
        Ok(())
    }

    /// What a reader does on the source.
    fn source_step(&mut self, which: usize, step: Step) -> Outcome {
        let Some(Engine { readers, router, .. }) = &mut self.engine else { return Ok(()) };
        let reader = &mut readers[which];
        match step {
            Step::Lock => {
                if !self.source.try_share(reader.token, place(reader.chunks[0]).0) {
                    return Ok(());
                }
                if !keeps(Rule::PositionAfterSnapshot) {
                    reader.lsn = self.source.insert;
                }
            }
            Step::TakeSnapshot => {
                let taken = self.source.snapshot();
                let snapshot = Arc::new(taken.snapshot.clone());
                reader.taken = Some((taken, snapshot));
            }
            Step::Offer => {
                let (_, snapshot) = reader.taken.as_ref().unwrap();
                let offer = router.offer(&reader.chunks, snapshot);
                let line = format!("reader: {:?} under {snapshot}: {offer:?}", reader.chunks);
                reader.is_accepted = offer == Offer::Accepted;
                self.trace(|| line);
                match offer {
                    Offer::Accepted => {}
                    Offer::Refused(_) => return self.refused(which),
                    Offer::Withdrawn => {
                        return self.withdrawn(which);
                    }
                }
            }
            Step::Read => {
                let (taken, _) = reader.taken.as_ref().unwrap();
                for (table, chunk) in reader.chunks.iter().map(|chunk| place(*chunk)) {
                    let rows = self.source.read(table, taken);
                    let is_in = |row: &Row| self.tables[table].chunk_of(row) == chunk;
                    reader.rows.extend(rows.into_iter().filter(is_in).map(|row| (table, row)));
                }
            }
            Step::Emit => {
                self.source.unlock(reader.token);
                let message = self.source.begin(false, false);
                self.source.commit(message);
                if keeps(Rule::MessageFlushed) {
                    self.source.flush_to(self.source.insert);
                }
                self.source.show(message);
            }
            _ => {
                if keeps(Rule::PositionAfterSnapshot) {
                    let is_insert = keeps(Rule::PositionIsInsert);
                    reader.lsn = if is_insert { self.source.insert } else { self.source.flush };
                }
                if !keeps(Rule::FilterUntilPosition) {
                    reader.lsn = 0;
                }
            }
        }
        if let Some(engine) = &mut self.engine {
            engine.readers[which].steps.pop();
        }
        Ok(())
    }

    /// What a reader does on the target.
    fn target_step(&mut self, which: usize, step: Step) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let reader = &mut engine.readers[which];
        let (tid, chunks) = (reader.tid.unwrap(), reader.chunks.clone());
        reader.waits_for = None;
        let mut result = Ok(());
        match step {
            Step::Delete if keeps(Rule::RangeEmptied) => {
                for (table, chunk) in chunks.iter().map(|chunk| place(*chunk)) {
                    result = result.and_then(|()| self.target.delete_chunk(tid, &self.tables, table, chunk));
                }
            }
            Step::Insert => {
                while let (Ok(()), Some((table, row))) = (&result, reader.rows.last().copied()) {
                    result = self.target.insert(tid, &self.tables, table, row);
                    if result.is_ok() {
                        reader.rows.pop();
                    }
                }
            }
            Step::Done | Step::DoneAlone => {
                for (table, chunk) in chunks.iter().map(|chunk| place(*chunk)) {
                    let taken = Rc::clone(&reader.taken.as_ref().unwrap().0);
                    let write = Write::Done { table, chunk, taken, lsn: reader.lsn };
                    result = result.and_then(|()| self.target.write(tid, write));
                }
            }
            _ => {}
        }
        match result {
            Err(Stop::Fails(why)) => return Err(Kind::NotCopied.because(format!("{chunks:?}: {why}"))),
            Err(Stop::Waits(other)) => {
                reader.waits_for = Some(other);
                return self.check_deadlock(tid);
            }
            Ok(()) => {}
        }
        reader.steps.pop();
        if reader.steps.last() == Some(&Step::Sent) {
            self.target.committing(tid);
        } else if step == Step::DoneAlone {
            reader.tid = None;
            return self.commit(tid);
        }
        Ok(())
    }

    /// The daemon learns that the chunks are done.
    fn chunk_is_done(&mut self, which: usize) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let reader = engine.readers.swap_remove(which);
        let (_, snapshot) = reader.taken.as_ref().unwrap();
        engine.router.done(&reader.chunks, snapshot, Lsn::from(reader.lsn));
        self.ask_again()
    }

    /// A reader fails, or loses its connection; when COMMIT has been sent, it can't know.
    pub(super) fn reader_fails(&mut self, which: usize) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let Some(reader) = engine.readers.get_mut(which) else { return Ok(()) };
        let is_lost = matches!(reader.steps.last(), Some(Step::Sent | Step::Landed | Step::Lost));
        if is_lost {
            let tid = reader.tid.unwrap();
            self.target.open.iter_mut().filter(|open| open.tid == tid).for_each(|open| open.is_orphan = true);
            reader.steps = vec![Step::Lost];
            if keeps(Rule::LostAnswerReadAgain) {
                return Ok(());
            }
        } else if let Some(tid) = reader.tid {
            self.target.abort(tid);
        }
        self.chunk_has_failed(which)
    }

    fn chunk_has_failed(&mut self, which: usize) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let reader = engine.readers.swap_remove(which);
        self.source.unlock(reader.token);
        engine.router.failed(&reader.chunks);
        engine.queue.extend(&reader.chunks);
        self.trace(|| format!("reader: {:?} not copied", reader.chunks));
        self.ask_again()
    }

    /// The answer was lost: the ledger knows, once the transaction has ended.
    fn read_again(&mut self, which: usize) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let reader = &engine.readers[which];
        if self.target.open.iter().any(|open| Some(open.tid) == reader.tid) {
            return Ok(());
        }
        let (table, chunk) = place(reader.chunks[0]);
        let is_ours = |entry: &Entry| matches!((entry, &reader.taken), (Entry::Done(taken, _), Some((ours, _))) if Rc::ptr_eq(taken, ours));
        let entries = &self.target.ledger.tables[table];
        if entries.as_ref().is_some_and(|entries| is_ours(&entries[chunk])) {
            self.chunk_is_done(which)
        } else {
            self.chunk_has_failed(which)
        }
    }
}
