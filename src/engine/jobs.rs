//! Which chunk is copied next, and by whom.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::chunk::{ChunkId, KeyRange};
use crate::copy::{Copied, Job, Reader, Readers, TableCopy};
use crate::fault::{Fault, Reaction, Result};
use crate::limits;
use crate::route::Router;

/// A job has ended, with its reader if that can go on.
pub(super) struct Finished {
    pub(super) job: Job,
    pub(super) outcome: Result<Option<Copied>>,
    reader: Option<Reader>,
}

struct Table {
    copy: Arc<TableCopy>,
    ranges: Vec<KeyRange>,
}

/// Readers, and what waits for them.
pub(super) struct Jobs {
    readers: Arc<Readers>,
    most_readers: usize,
    running: JoinSet<Finished>,
    idle: Vec<Reader>,
    /// When the last one became free.
    idle_since: Instant,
    tables: HashMap<u32, Table>,
    queue: VecDeque<ChunkId>,
    /// Tables that have failed, and until when they rest.
    rests: HashMap<u32, Instant>,
    /// Until when no job is begun, after not even a session could be had.
    all_rest: Option<Instant>,
}

impl Jobs {
    pub(super) fn new(readers: Readers, most_readers: usize) -> Self {
        Self {
            readers: Arc::new(readers),
            most_readers,
            running: JoinSet::new(),
            idle: Vec::new(),
            idle_since: Instant::now(),
            tables: HashMap::new(),
            queue: VecDeque::new(),
            rests: HashMap::new(),
            all_rest: None,
        }
    }

    /// Waits for a job to end; for ever if none is running. Nothing is lost if it is not waited for to
    /// the end.
    pub(super) async fn finished(&mut self) -> Result<Finished> {
        match self.running.join_next().await {
            Some(Ok(mut finished)) => {
                self.idle.extend(finished.reader.take());
                self.idle_since = Instant::now();
                Ok(finished)
            }
            Some(Err(error)) => Err(Fault::bug(format!("a reader's task has ended: {error}"))),
            None => std::future::pending().await,
        }
    }

    /// A table can be copied from now on: these of its chunks.
    pub(super) fn add(&mut self, copy: TableCopy, ranges: Vec<KeyRange>, pending: Vec<ChunkId>) {
        self.queue.extend(pending);
        self.tables.insert(copy.source.oid, Table { copy: Arc::new(copy), ranges });
    }

    /// How the table is read and written isn't known any more.
    pub(super) fn forget(&mut self, relation: u32) {
        self.queue.retain(|chunk| chunk.relation != relation);
        self.tables.remove(&relation);
    }

    /// A chunk has to be copied, after all that waits already: by then the chunks that rows move from
    /// may be done, too. If its table isn't known, it comes with that.
    pub(super) fn enqueue(&mut self, chunk: ChunkId) {
        if self.tables.contains_key(&chunk.relation) {
            self.queue.push_back(chunk);
        }
    }

    /// The job could not be done, for so many times in a row; its table rests.
    pub(super) fn rest(&mut self, job: &Job, fault: &Fault, times: u32) {
        let rest = match fault.reaction() {
            Reaction::Retry => limits::COPY_PAUSE.saturating_mul(times).min(limits::BACKOFF_LONGEST),
            Reaction::Person | Reaction::CopyAgain | Reaction::Usage | Reaction::Bug => {
                limits::BLOCKED_INTERVAL
            }
        };
        let until = Instant::now() + rest;
        match fault.table_name() {
            Some(_) => {
                self.rests.insert(job.table.source.oid, until);
            }
            None => self.all_rest = Some(until),
        }
    }

    /// True if something of the table has failed a moment ago.
    pub(super) fn is_resting(&self, relation: u32) -> bool {
        self.rests.get(&relation).is_some_and(|until| *until > Instant::now())
    }

    /// Ends all jobs where they are, so that no snapshot stays open.
    pub(super) fn stop(&mut self) {
        self.running.abort_all();
        self.idle.clear();
    }

    /// Gives the readers that are free something to do.
    pub(super) fn start(&mut self, router: &Router) {
        if self.queue.is_empty() {
            // Until the next table is planned. After that nothing is left for them but to hold connections.
            if self.idle_since.elapsed() > limits::COPY_IDLE {
                self.idle.clear();
            }
            return;
        }
        self.queue.retain(|chunk| router.is_pending(*chunk));
        while self.running.len() < self.most_readers {
            let Some(job) = self.next(router) else { return };
            let (readers, idle) = (Arc::clone(&self.readers), self.idle.pop());
            self.running.spawn(async move {
                let reader = match idle {
                    Some(reader) => Ok(reader),
                    None => Reader::open(&readers).await,
                };
                match reader {
                    Err(fault) => Finished { job, outcome: Err(fault), reader: None },
                    Ok(reader) => {
                        let outcome = reader.copy(&readers, &job).await;
                        // After a failure a new one costs less than finding out what is left of it.
                        let reader = outcome.is_ok().then_some(reader);
                        Finished { job, outcome, reader }
                    }
                }
            });
        }
    }

    fn next(&mut self, router: &Router) -> Option<Job> {
        let now = Instant::now();
        if self.all_rest.is_some_and(|until| until > now) {
            return None;
        }
        let rests = &self.rests;
        let is_ready = |chunk: &&ChunkId| {
            router.can_be_copied(**chunk) && rests.get(&chunk.relation).is_none_or(|until| *until <= now)
        };
        // All of those that belong together, or none.
        let together = |chunk: &ChunkId| {
            let mut ids = router.together_with(*chunk);
            ids.retain(|id| router.is_pending(*id));
            let are_ready = ids.len() == 1 || ids.iter().all(|id| is_ready(&id) && self.queue.contains(id));
            are_ready.then_some(ids)
        };
        let ids = self.queue.iter().filter(is_ready).find_map(together)?;
        self.queue.retain(|id| !ids.contains(id));
        let relation = ids.first()?.relation;
        let table = self.tables.get(&relation)?;
        let chunks = ids
            .into_iter()
            .map(|id| Some((id, table.ranges.get(usize::try_from(id.ordinal).ok()?)?.clone())))
            .collect::<Option<Vec<_>>>()?;
        Some(Job { table: Arc::clone(&table.copy), chunks })
    }
}
