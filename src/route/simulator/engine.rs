//! The daemon: its start, its loop and its applier, step by step. It can die between any two steps.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::reader::Reader;
use super::rules::{Rule, keeps};
use super::source::{Slot, Taken};
use super::stream::{Message, Stream};
use super::target::{Entry, Ledger, Stop, Tid, Write};
use super::world::{Kind, Outcome, World};
use crate::apply::{Batch, Batcher, Change, OutOfOrder};
use crate::chunk::{ChunkId, Xid};
use crate::lsn::Lsn;
use crate::route::{CopyTable, Routed, Router};

/// A start that isn't finished.
#[derive(Default)]
pub(super) struct Start {
    epoch: Option<u64>,
    read: Option<Ledger>,
    stream: Option<Stream>,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Executing,
    /// COMMIT has been sent.
    Sent,
    /// It is committed, which the daemon doesn't know yet.
    Landed,
}

/// A batch with the applier.
struct Applying {
    batch: Batch,
    tid: Tid,
    /// The place of the next change.
    at: (usize, usize),
    stage: Stage,
    waits_for: Option<Tid>,
}

/// A daemon whose stream has begun.
pub(super) struct Engine {
    pub(super) epoch: u64,
    /// The checkpoint that it began at.
    start: u64,
    stream: Stream,
    batcher: Batcher,
    pub(super) router: Router,
    /// The transaction that is being received isn't below the checkpoint.
    routes: bool,
    /// It has begun before the checkpoint: only without the rule is that asked.
    ignores: bool,
    /// What the stream has stopped at.
    waiting: Option<(Change, ChunkId)>,
    applying: Option<Applying>,
    /// The target transaction that holds the pieces of a huge one.
    piece: Option<Tid>,
    pub(super) durable: u64,
    received: u64,
    /// A bare snapshot on its way to the router.
    seen: Option<Rc<Taken>>,
    /// The tables whose chunks the router knows.
    pub(super) known: Vec<bool>,
    /// A fence that was read for a table.
    fence: Option<(usize, Xid)>,
    /// A table of which chunks are to be copied again, and which: half of it is done.
    pub(super) repair: Option<(usize, Vec<usize>)>,
    /// Chunks that the router was told to copy again, and that nothing has happened to on the target.
    pub(super) repaired: Vec<ChunkId>,
    /// Chunks that are to be copied.
    pub(super) queue: BTreeSet<ChunkId>,
    pub(super) readers: Vec<Reader>,
    /// The source has crashed, which the daemon hasn't noticed.
    pub(super) source_is_gone: bool,
}

/// Everything that the source had assigned a transaction id for when it was read.
fn read_fence(world: &mut World) -> Xid {
    if keeps(Rule::FenceIsAssigned) {
        world.source.assign_xid()
    } else {
        world.source.snapshot().snapshot.xmax()
    }
}

impl World {
    /// The daemon dies: what it had in memory is gone, its backends are not.
    pub(super) fn kill(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.trace(|| "daemon: DIES".to_owned());
            for reader in &engine.readers {
                self.source.unlock(reader.token);
            }
        }
        self.start = None;
        self.target.orphan_all();
    }

    /// A backend of a dead daemon finishes, one way or the other.
    pub(super) fn settle_orphan(&mut self) -> Outcome {
        let orphans = self.target.open.iter().filter(|open| open.is_orphan).map(|o| (o.tid, o.is_committing));
        let Some((tid, is_committing)) = self.rng.choice(orphans.collect::<Vec<_>>()) else { return Ok(()) };
        if is_committing && self.rng.bool() {
            self.trace(|| format!("target: COMMIT of {tid} lands late"));
            self.commit(tid)
        } else {
            self.target.abort(tid);
            Ok(())
        }
    }

    /// A step of a start.
    pub(super) fn start_step(&mut self) -> Outcome {
        if self.engine.is_some() {
            return Ok(());
        }
        let mut start = self.start.take().unwrap_or_default();
        let reads_first = !keeps(Rule::EpochFirst) && start.read.is_none();
        if start.epoch.is_none() && !reads_first {
            start.epoch = self.target.next_epoch();
        } else if let Some(read) = &mut start.read {
            match (read.checkpoint, self.source.slot, &start.stream) {
                (None, None, _) => {
                    self.source.log(0);
                    self.source.flush_to(self.source.insert);
                    let at = self.source.insert;
                    self.source.slot = Some(Slot { confirmed: at, saved: at });
                    self.trace(|| format!("daemon: the slot begins at {at}"));
                }
                (None, Some(slot), _) => {
                    read.checkpoint = Some(slot.confirmed);
                    self.target.ledger.checkpoint = read.checkpoint;
                }
                (Some(checkpoint), Some(slot), _) if slot.confirmed > checkpoint => {
                    return Err(
                        Kind::Refused.because(format!("{} is confirmed, not {checkpoint}", slot.confirmed))
                    );
                }
                (Some(checkpoint), _, None) => {
                    let (again, empty) = (self.rng.bool(), self.rng.bool());
                    start.stream = Some(Stream::begin(&self.source, checkpoint, again, empty));
                }
                (Some(checkpoint), _, Some(_)) => {
                    self.begin_engine(start, checkpoint);
                    return Ok(());
                }
            }
        } else {
            start.read = Some(self.target.ledger.clone());
        }
        self.start = Some(start);
        Ok(())
    }

    /// The stream has begun: the router is made from what the ledger says.
    fn begin_engine(&mut self, start: Start, checkpoint: u64) {
        let fence = if keeps(Rule::FenceAtStart) { read_fence(self) } else { Xid::new(0) };
        let now = self.source.snapshot();
        self.trace(|| format!("daemon: starts at {checkpoint}, fence {fence}, snapshot {}", now.snapshot));
        let mut router = Router::new(fence, now.snapshot.clone());
        let (mut queue, mut known) = (BTreeSet::new(), vec![false; self.tables.len()]);
        for (table, entries) in start.read.into_iter().flat_map(|ledger| ledger.tables).enumerate() {
            let Some(entries) = entries else { continue };
            let definition = &self.tables[table];
            let done = entries.iter().map(|entry| match entry {
                Entry::Pending => None,
                Entry::Done(taken, lsn) => Some((taken.snapshot.clone(), Lsn::from(*lsn))),
            });
            let chunks = definition.ranges().into_iter().zip(done);
            let copy = CopyTable::new(Xid::new(0), definition.key_columns(), chunks, Lsn::from(checkpoint));
            router.add(definition.oid, copy);
            known[table] = true;
            let pending = |(_, entry): &(u32, &Entry)| matches!(entry, Entry::Pending);
            queue.extend(
                (0..)
                    .zip(&entries)
                    .filter(pending)
                    .map(|(ordinal, _)| ChunkId { relation: definition.oid, ordinal }),
            );
        }
        let first = match (keeps(Rule::StrictlyBelow), keeps(Rule::BelowIsDropped)) {
            (false, _) => checkpoint + 1,
            (_, false) => 0,
            (true, true) => checkpoint,
        };
        let mut batcher = Batcher::with_room(Lsn::from(first), self.profile.room);
        batcher.advance(Lsn::from(checkpoint));
        self.engine = Some(Engine {
            epoch: start.epoch.unwrap_or_default(),
            start: first,
            stream: start.stream.unwrap(),
            batcher,
            router,
            routes: false,
            ignores: false,
            waiting: None,
            applying: None,
            piece: None,
            durable: checkpoint,
            received: checkpoint,
            seen: None,
            known,
            fence: None,
            repair: None,
            repaired: Vec::new(),
            queue,
            readers: Vec::new(),
            source_is_gone: false,
        });
    }

    /// The next message of the stream.
    pub(super) fn receive(&mut self) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        if engine.source_is_gone {
            if self.rng.u8(..8) == 0 {
                self.kill();
            }
            return Ok(());
        }
        if engine.waiting.is_some() || !engine.batcher.has_room() {
            return Ok(());
        }
        let fault = |e: OutOfOrder| Kind::Bug.because(e.to_string());
        match engine.stream.next(&self.source, &self.tables) {
            None => Ok(()),
            Some(Message::Begin(begin)) => {
                engine.batcher.begin(&begin).map_err(fault)?;
                engine.routes = begin.commit_lsn.as_u64() >= engine.start;
                engine.ignores = !keeps(Rule::CommitOrder)
                    && self.source.began_at(begin.commit_lsn.as_u64()) < engine.start;
                if engine.routes {
                    engine.router.begin(begin.xid, begin.commit_lsn);
                }
                self.trace(|| {
                    format!("stream: BEGIN {} commits at {}", begin.xid, begin.commit_lsn.as_u64())
                });
                Ok(())
            }
            Some(Message::Change(_)) if engine.ignores => Ok(()),
            Some(Message::Change(change)) => self.route(change),
            Some(Message::Commit(commit)) => {
                engine.received = engine.received.max(commit.end_lsn.as_u64());
                engine.batcher.commit(&commit).map_err(fault)
            }
        }
    }

    fn route(&mut self, change: Change) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let shown = if self.is_traced { format!("{change:?}") } else { String::new() };
        let routed = if engine.routes {
            engine.router.route(change).map_err(|e| Kind::Bug.because(e.to_string()))?
        } else {
            Routed::Apply(change)
        };
        engine.queue.extend(engine.router.take_sent_back());
        let verdict = format!("{routed:?}").split('(').next().map(str::to_owned);
        let changes = match routed {
            Routed::Apply(change) => vec![change],
            Routed::Split(changes) => changes,
            Routed::Drop => Vec::new(),
            Routed::Wait(change, chunk) => {
                engine.waiting = Some((change, chunk));
                Vec::new()
            }
        };
        for change in changes {
            engine.batcher.change(change).map_err(|e| Kind::Bug.because(e.to_string()))?;
        }
        self.trace(|| format!("route: {verdict:?} {shown}"));
        Ok(())
    }

    /// Asks again for the change that waits.
    pub(super) fn ask_again(&mut self) -> Outcome {
        let waiting = self.engine.as_mut().and_then(|engine| engine.waiting.take());
        waiting.map_or(Ok(()), |(change, _)| self.route(change))
    }

    /// The source tells how far it has decoded.
    pub(super) fn keepalive(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        if engine.waiting.is_none() && !engine.source_is_gone {
            let position = engine.stream.position(&self.source);
            engine.batcher.advance(Lsn::from(position));
            engine.received = engine.received.max(position);
        }
    }

    /// The applier gets a batch, if it is free; `is_idle`: or the position alone.
    pub(super) fn take(&mut self, is_idle: bool) {
        let Some(engine) = &mut self.engine else { return };
        if engine.applying.is_some() {
            return;
        }
        let position = |batcher: &mut Batcher| if is_idle { batcher.take_position() } else { None };
        let Some(batch) = engine.batcher.take().or_else(|| position(&mut engine.batcher)) else { return };
        let open = if batch.continues { engine.piece } else { self.target.begin(engine.epoch) };
        let Some(tid) = open else { return self.kill() };
        engine.applying = Some(Applying { batch, tid, at: (0, 0), stage: Stage::Executing, waits_for: None });
    }

    /// The applier goes on.
    pub(super) fn apply_step(&mut self) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let Some(applying) = &mut engine.applying else { return Ok(()) };
        let tid = applying.tid;
        match applying.stage {
            Stage::Executing => {}
            Stage::Sent => {
                applying.stage = Stage::Landed;
                self.trace(|| format!("target: the batch {tid} is committed"));
                return self.commit(tid);
            }
            Stage::Landed => return self.batch_is_committed(),
        }
        applying.waits_for = None;
        while let Some(transaction) = applying.batch.transactions.get(applying.at.0) {
            let Some(change) = transaction.changes.get(applying.at.1) else {
                applying.at = (applying.at.0 + 1, 0);
                continue;
            };
            return match self.target.apply(tid, &self.tables, change) {
                Ok(()) => {
                    applying.at.1 += 1;
                    Ok(())
                }
                Err(Stop::Fails(why)) => Err(Kind::Stopped.because(why)),
                Err(Stop::Waits(other)) => {
                    applying.waits_for = Some(other);
                    self.check_deadlock(tid)
                }
            };
        }
        let Some(end) = applying.batch.end else {
            engine.piece = Some(tid);
            engine.applying = None;
            return Ok(());
        };
        if keeps(Rule::CheckpointWithRows)
            && let Err(Stop::Waits(_)) = self.target.write(tid, Write::Checkpoint(end.lsn.as_u64()))
        {
            return Ok(());
        }
        applying.stage = Stage::Sent;
        self.target.committing(tid);
        Ok(())
    }

    /// The daemon learns that the batch is committed.
    fn batch_is_committed(&mut self) -> Outcome {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let Some(Applying { batch, .. }) = engine.applying.take() else { return Ok(()) };
        engine.piece = None;
        let end = batch.end.unwrap().lsn;
        engine.durable = end.as_u64();
        engine.router.durable(end);
        if keeps(Rule::SendBackWithBatch) && keeps(Rule::CheckpointWithRows) {
            return Ok(());
        }
        let Some(tid) = self.target.begin(engine.epoch) else { return Ok(()) };
        if !keeps(Rule::CheckpointWithRows) {
            let _ = self.target.write(tid, Write::Checkpoint(end.as_u64()));
        }
        for change in batch.transactions.iter().flat_map(|transaction| &transaction.changes) {
            if let Change::SendBack { relation, chunk } = change
                && !keeps(Rule::SendBackWithBatch)
            {
                let table = usize::try_from(relation.oid - 100).unwrap();
                let chunk = usize::try_from(chunk.ordinal).unwrap();
                let _ = self.target.write(tid, Write::SendBack { table, chunk });
            }
        }
        self.commit(tid)
    }

    /// Takes a bare snapshot, or gives the router the one that was taken.
    pub(super) fn see(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        match engine.seen.take() {
            Some(taken) => engine.router.see(taken.snapshot.clone()),
            None if engine.source_is_gone => {}
            None => engine.seen = Some(self.source.snapshot()),
        }
    }

    /// Tells the source what is durable.
    pub(super) fn confirm(&mut self) {
        let Some(engine) = &self.engine else { return };
        let position = match (keeps(Rule::ConfirmedIsCheckpoint), keeps(Rule::ConfirmedIsFlushed)) {
            (false, _) => engine.received,
            (true, false) => engine.durable,
            (true, true) => engine.durable.min(self.target.flushed_checkpoint()),
        };
        if let Some(slot) = self.source.slot.as_mut().filter(|_| !engine.source_is_gone) {
            slot.confirmed = slot.confirmed.max(position);
        }
    }

    /// A published table becomes part of the copy: in the ledger, its fence, in the router.
    pub(super) fn adopt(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        engine.router.take_newcomers();
        if engine.source_is_gone || self.target.ledger.epoch != engine.epoch {
            return;
        }
        let is_new = |table: &usize| self.source.published[*table].is_some() && !engine.known[*table];
        let Some(table) = (0..self.tables.len()).find(is_new) else { return };
        let entries = &mut self.target.ledger.tables[table];
        let fence = engine.fence.take_if(|(other, _)| *other == table);
        match (entries, fence) {
            (entries @ None, _) => *entries = Some(vec![Entry::Pending; self.tables[table].chunks()]),
            (Some(_), None) => {
                let fence = if keeps(Rule::FenceAtAdoption) { read_fence(self) } else { Xid::new(0) };
                if let Some(engine) = &mut self.engine {
                    engine.fence = Some((table, fence));
                }
            }
            (Some(_), Some((_, fence))) => {
                let definition = &self.tables[table];
                let chunks = definition.ranges().into_iter().map(|range| (range, None));
                let durable = Lsn::from(engine.durable);
                let copy = CopyTable::new(fence, definition.key_columns(), chunks, durable);
                engine.router.add(definition.oid, copy);
                engine.known[table] = true;
                let relation = definition.oid;
                let count = u32::try_from(definition.chunks()).unwrap();
                engine.queue.extend((0..count).map(|ordinal| ChunkId { relation, ordinal }));
                self.trace(|| format!("daemon: t{table} is copied from now on, fence {fence}"));
            }
        }
    }

    /// Everything that was published is copied, streamed and durable.
    pub(super) fn is_finished(&mut self) -> bool {
        let Some(engine) = &mut self.engine else { return false };
        let last = self.source.commits.last().and_then(|tx| self.source.transactions[*tx].commit);
        let is_known = |table: usize| engine.known[table] || self.source.published[table].is_none();
        engine.router.is_consistent()
            && (0..self.tables.len()).all(is_known)
            && engine.applying.is_none()
            && engine.readers.is_empty()
            && engine.repair.is_none()
            && last.is_none_or(|(_, end)| end <= engine.durable)
    }

    /// True if the daemon says that the target is a state that the source once had.
    pub(super) fn says_consistent(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| {
            let is_known = |table: usize| engine.known[table] || self.source.published[table].is_none();
            engine.router.is_consistent() && (0..self.tables.len()).all(is_known)
        })
    }

    /// Who waits for whom, from this transaction on: a row's holder, or, for a huge transaction whose
    /// next piece has not come, the reader that the stream has stopped for.
    pub(super) fn check_deadlock(&self, first: Tid) -> Outcome {
        let Some(engine) = &self.engine else { return Ok(()) };
        let waits_for = |tid: Tid| {
            if let Some(reader) = engine.readers.iter().find(|reader| reader.tid == Some(tid)) {
                return reader.waits_for;
            }
            match (&engine.applying, &engine.waiting) {
                (Some(applying), _) if applying.tid == tid => applying.waits_for,
                (None, Some((_, chunk))) if engine.piece == Some(tid) => {
                    let copies = |reader: &&Reader| reader.is_accepted && reader.chunks.contains(chunk);
                    engine.readers.iter().find(copies).and_then(|reader| reader.tid)
                }
                _ => None,
            }
        };
        let is_open = |tid: &Tid| self.target.open.iter().any(|open| open.tid == *tid);
        let mut tid = first;
        for _ in 0..8 {
            match waits_for(tid).filter(is_open) {
                None => return Ok(()),
                Some(next) if next == first => {
                    return Err(Kind::Deadlock.because(format!("{first} waits for {tid} and is waited for")));
                }
                Some(next) => tid = next,
            }
        }
        Ok(())
    }
}
