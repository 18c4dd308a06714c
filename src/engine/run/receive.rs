//! What the source sends, on its way into a batch.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::Engine;
use crate::apply::Change;
use crate::engine::BARRIER;
use crate::engine::copying::Event;
use crate::fault::{Fault, Result, Side};
use crate::pgoutput::{Message, OldTuple, Relation, Relations, Tuple};
use crate::pulse::Turning;
use crate::replication::Frame;
use crate::route::Routed;

impl Engine {
    pub(super) fn is_reading(&self) -> bool {
        self.batcher.has_room() && self.waiting.is_none()
    }

    /// The source was known to be further already. A reader that wakes up for every message makes the walsender
    /// pay for that, too, and has small batches; so more is let gather until none has come in between.
    pub(super) fn is_behind(&self) -> bool {
        self.clock.is_beyond(self.progress.received)
    }

    /// Takes what has arrived; false if nothing has.
    pub(super) async fn receive_what_is_there(&mut self, turning: &Turning) -> Result<bool> {
        let mut has_come = false;
        while self.is_reading() {
            match self.stream.next().now_or_never() {
                Some(Ok(frame)) => self.receive(frame)?,
                Some(Err(fault)) => return Err(self.cut_off(fault, turning).await),
                None => break,
            }
            has_come = true;
        }
        Ok(has_come)
    }

    /// Takes what the source sent.
    pub(super) fn receive(&mut self, frame: Frame) -> Result<()> {
        self.progress.heard_at = Instant::now();
        match frame {
            Frame::Keepalive { wal_end, reply_requested, .. } => {
                self.progress.received = self.progress.received.max(wal_end);
                self.progress.reply_requested |= reply_requested;
                self.batcher.advance(wal_end);
            }
            Frame::XLogData { wal_start, payload, .. } => {
                self.progress.received = self.progress.received.max(wal_start);
                let message = self.decoder.decode(payload)?;
                if !self.skip(&message)? {
                    self.route(message)?;
                }
            }
        }
        Ok(())
    }

    /// Counts a change of a transaction that is to be skipped; true if it was one. The router is not asked
    /// about it: what a chunk that is still to be copied has of it comes with the copy all the same.
    fn skip(&mut self, message: &Message) -> Result<bool> {
        let Some(dropped) = self.batcher.skipped() else { return Ok(false) };
        let relations = match message {
            Message::Insert { relation, .. }
            | Message::Update { relation, .. }
            | Message::Delete { relation, .. } => std::slice::from_ref(relation),
            Message::Truncate(truncate) => &truncate.relations,
            _ => return Ok(false),
        };
        for oid in relations {
            let relation = self.relations.get(*oid)?;
            *dropped.entry(format!("{}.{}", relation.schema, relation.name)).or_default() += 1;
        }
        Ok(true)
    }

    /// Puts a message where it belongs.
    fn route(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Begin(begin) => {
                self.batcher.begin(&begin)?;
                self.copying.begin(begin.xid, begin.commit_lsn);
            }
            Message::Commit(commit) => self.batcher.commit(&commit)?,
            Message::Relation(relation) => {
                self.relations.update(relation);
            }
            Message::Insert { relation, new } => {
                let relation = self.relation(relation, Some(&new), None)?;
                self.change(Change::Insert { relation, new })?;
            }
            Message::Update { relation, old, new } => {
                let relation = self.relation(relation, Some(&new), old.as_ref())?;
                self.change(Change::Update { relation, old, new })?;
            }
            Message::Delete { relation, old } => {
                let relation = self.relation(relation, None, Some(&old))?;
                self.change(Change::Delete { relation, old })?;
            }
            Message::Truncate(truncate) => {
                let relations = truncate
                    .relations
                    .iter()
                    .map(|oid| Ok(Arc::clone(self.relations.get(*oid)?)))
                    .collect::<Result<Vec<_>>>()?;
                self.change(Change::Truncate { relations, restart_identity: truncate.restart_identity })?;
            }
            // Of no consequence for the rows: types are read by the target's own input functions, and
            // where a transaction came from first makes no difference to this direction.
            Message::Type { .. } | Message::Origin { .. } => {}
            Message::Logical(message) => {
                // Somebody waits for the checkpoint to come here.
                self.progress.reply_requested |= message.prefix == "cdc" && message.content == BARRIER;
            }
            Message::StreamStart { .. }
            | Message::StreamStop
            | Message::StreamCommit { .. }
            | Message::StreamAbort(_)
            | Message::Streamed { .. }
            | Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::CommitPrepared(_)
            | Message::RollbackPrepared(_)
            | Message::StreamPrepare(_) => {
                return Err(Fault::bug("the source sent a message that protocol version 1 doesn't have")
                    .on(Side::Source));
            }
        }
        Ok(())
    }

    /// Gives a change to the batch, as far as the copy doesn't have it; or keeps it until its chunk is
    /// copied.
    fn change(&mut self, change: Change) -> Result<()> {
        if self.batcher.has_applied_it() {
            return Ok(());
        }
        let commit_lsn = self.batcher.receiving();
        let routed = self.copying.route(change).map_err(|fault| match commit_lsn {
            Some(lsn) => fault.lsn(lsn),
            None => fault,
        });
        match routed? {
            Routed::Apply(change) => self.batcher.change(change)?,
            Routed::Split(changes) => {
                for change in changes {
                    self.batcher.change(change)?;
                }
            }
            Routed::Drop => {}
            Routed::Wait(change, _) => self.waiting = Some(change),
        }
        Ok(())
    }

    /// Something has happened to the copy, which a waiting change may have waited for.
    pub(super) async fn copied(&mut self, event: Event) -> Result<()> {
        self.copying.take(event, self.batcher.position()).await?;
        match self.waiting.take() {
            Some(change) => self.change(change),
            None => Ok(()),
        }
    }

    /// The relation of a change, with tuples that fit it.
    fn relation(&self, oid: u32, new: Option<&Tuple>, old: Option<&OldTuple>) -> Result<Arc<Relation>> {
        let relation = self.relations.get(oid)?;
        if let Some(new) = new {
            Relations::check(new, relation)?;
        }
        if let Some(old) = old {
            Relations::check(old.tuple(), relation)?;
        }
        Ok(Arc::clone(relation))
    }
}
