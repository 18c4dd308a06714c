//! The copy, as the engine's loop sees it.
//!
//! ```text
//!   newcomer ─► planner ─► Planned ──► queue ─► reader ─► Offered ──► router: accepted?
//!                                       ▲          └────► Finished ─► router: done
//!                                       └── sent back ◄────────────── router
//! ```
//!
//! Planner and readers are tasks. What they have to say comes to the loop as an [`Event`], between two
//! changes: so accepting a snapshot and changing a chunk's state are one step.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::jobs::{Finished, Jobs};
use super::monitor::{Tick, answered};
use super::task::Task;
use crate::apply::Change;
use crate::catalog::{Published, PublishedTable, TableName};
use crate::chunk::{KeyRange, Xid};
use crate::connect::{ConnInfo, Mode, Session};
use crate::copy::{Answer, CopiedAgain, Look, Offered, Planned, PlannedTable, Planner, TableCopy};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Ledger, Phase, Severity, constraint_part};
use crate::limits;
use crate::lsn::Lsn;
use crate::route::{CopyTable, Offer, Routed, Router};
use crate::schema::drift::Known;
use crate::schema::{self, Hold, NotPutBack, Until};

/// Something has happened to the copy.
pub(super) enum Event {
    /// A reader has taken a snapshot and waits for what becomes of it.
    Offered(Offered),
    /// A job has ended.
    Finished(Result<Box<Finished>>),
    /// The planner has come to an end with a table.
    Planned(Result<Planned>),
    /// What was held back has been put back, but for this.
    PutBack(Result<Vec<NotPutBack>>),
}

/// A fault that isn't known to pass is a person's after a table has failed this often in a row.
const TIMES_UNTIL_FAILING: u32 = 5;

/// Constraints that refuse rows of a chunk this often in a row are held back.
const TIMES_UNTIL_HELD_BACK: u32 = 3;

/// What the copy begins with.
pub(super) struct Begin {
    pub(super) router: Router,
    pub(super) jobs: Jobs,
    pub(super) offers: mpsc::Receiver<Offered>,
    pub(super) planner: Planner,
    /// What the stream carries.
    pub(super) published: Vec<Published>,
    /// Tables to be taken in or described.
    pub(super) tables: Vec<PublishedTable>,
    pub(super) ledger: Ledger,
    pub(super) name: String,
    pub(super) source: ConnInfo,
    pub(super) target: ConnInfo,
    pub(super) mode: Mode,
    /// The phase that begins with the end of the copy.
    pub(super) next_phase: Phase,
    /// The ledger says that the copy has come to its end.
    pub(super) is_complete: bool,
}

/// The copy: router, planner and readers, and the end of it.
pub(super) struct Copying {
    router: Router,
    jobs: Jobs,
    offers: mpsc::Receiver<Offered>,
    planned: mpsc::Receiver<Result<Planned>>,
    looks: mpsc::UnboundedSender<Look>,
    _planner: Task<()>,
    ledger: Ledger,
    name: String,
    source: ConnInfo,
    target: ConnInfo,
    mode: Mode,
    next_phase: Phase,
    /// Partitions that can be copied since the applier was told of any, with their topmost parents.
    roots: Vec<(TableName, TableName)>,
    /// How the tables are built that have come since then.
    known: Vec<(u32, Known)>,
    /// Tables of which a chunk was copied since anything of them failed.
    well: HashSet<u32>,
    /// The tables that are copied in more than one chunk. With one, all rows of a table have existed together.
    in_chunks: HashMap<u32, TableCopy>,
    /// How often a table has failed since then.
    failures: HashMap<u32, u32>,
    /// What is in the way of every snapshot, for the status.
    in_the_way: watch::Sender<Option<String>>,
    /// Where the source's log ended and when that was; those that the stream has not come to yet.
    ahead: VecDeque<(Lsn, Instant)>,
    /// Since when a change has been waiting for its chunk, and the longest that one has.
    paused_at: Option<Instant>,
    longest_pause: Duration,
    end: End,
    /// The ledger says that the target isn't consistent, if it isn't.
    is_told: bool,
    checkpoint: Lsn,
}

/// How far the end of the copy is.
enum End {
    /// Chunks are still to be copied.
    NotYet,
    /// Everything is there; what was held back is put back from then on.
    PutBackAt(Instant),
    PuttingBack(Task<Result<Vec<NotPutBack>>>),
    Reached,
}

impl Copying {
    pub(super) fn new(begin: Begin, checkpoint: Lsn, in_the_way: watch::Sender<Option<String>>) -> Self {
        let (planned_out, planned) = mpsc::channel(1);
        let (looks, looks_in) = mpsc::unbounded_channel();
        let planner = begin.planner.run(begin.tables, looks_in, planned_out);
        let is_complete = begin.is_complete && begin.router.is_consistent();
        let end = if is_complete { End::Reached } else { End::NotYet };
        Self {
            router: begin.router,
            jobs: begin.jobs,
            offers: begin.offers,
            planned,
            looks,
            _planner: Task::spawn(planner),
            ledger: begin.ledger,
            name: begin.name,
            source: begin.source,
            target: begin.target,
            mode: begin.mode,
            next_phase: begin.next_phase,
            roots: Vec::new(),
            known: Vec::new(),
            well: HashSet::new(),
            in_chunks: HashMap::new(),
            failures: HashMap::new(),
            in_the_way,
            ahead: VecDeque::new(),
            paused_at: None,
            longest_pause: Duration::ZERO,
            is_told: is_complete,
            end,
            checkpoint,
        }
    }

    /// A transaction begins in the stream.
    pub(super) fn begin(&mut self, xid: u32, commit_lsn: Lsn) {
        self.router.begin(xid, commit_lsn);
    }

    /// Decides about a change.
    pub(super) fn route(&mut self, change: Change) -> Result<Routed> {
        let routed = self.router.route(change)?;
        if matches!(routed, Routed::Wait(..)) {
            self.paused_at.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.paused_at.take() {
            let pause = since.elapsed();
            tracing::debug!(ms = whole_ms(pause), "the stream has waited for a chunk");
            self.longest_pause = self.longest_pause.max(pause);
        }
        self.take_newcomers()?;
        for chunk in self.router.take_sent_back() {
            tracing::debug!(
                relation = chunk.relation,
                chunk = chunk.ordinal,
                "the chunk has to be copied again"
            );
            self.jobs.enqueue(chunk);
        }
        Ok(routed)
    }

    /// These are the tables that are published now. The planner looks at those that aren't any more, and
    /// they are forgotten: should one come back, nobody knows what it has missed.
    pub(super) fn meet(&mut self, published: &[Published]) -> Result<()> {
        for relation in self.router.planned() {
            if !published.iter().any(|table| table.oid == relation) {
                self.plan(relation)?;
            }
        }
        for table in published {
            self.router.meet(table.oid, &table.name);
        }
        self.take_newcomers()
    }

    fn take_newcomers(&mut self) -> Result<()> {
        for newcomer in self.router.take_newcomers() {
            tracing::info!(table = %newcomer.name, "a table has come into the stream; its rows will be copied");
            self.plan(newcomer.relation)?;
            self.end = End::NotYet;
            self.is_told = false;
        }
        Ok(())
    }

    /// Before a batch is committed that lacks a newcomer's changes, everybody can see that the target
    /// isn't complete.
    pub(super) async fn tell(&mut self) -> Result<()> {
        if !self.is_told {
            answered(Side::Target, self.ledger.set_inconsistent()).await?;
            self.is_told = true;
        }
        Ok(())
    }

    fn plan(&self, relation: u32) -> Result<()> {
        self.look(Look { relation, holds_back: false })
    }

    fn look(&self, look: Look) -> Result<()> {
        self.looks.send(look).map_err(|_| Fault::bug("the planner's task has ended"))
    }

    /// Everything below this is durable on the target.
    pub(super) fn durable(&mut self, checkpoint: Lsn) {
        self.checkpoint = checkpoint;
        self.router.durable(checkpoint);
    }

    /// The source's log ended there just now, and this is what a new snapshot saw.
    pub(super) fn note(&mut self, tick: &Tick) {
        self.ahead.push_back((tick.lsn, Instant::now()));
        self.router.see(tick.snapshot.clone());
    }

    /// Partitions of which changes can come to the applier, with their topmost parents, once each.
    pub(super) fn take_roots(&mut self) -> Vec<(TableName, TableName)> {
        std::mem::take(&mut self.roots)
    }

    /// How the tables are built that have come into the stream, once each.
    pub(super) fn take_known(&mut self) -> Vec<(u32, Known)> {
        std::mem::take(&mut self.known)
    }

    /// True if the end of the copy waits for a checkpoint at this position, and for nothing else.
    pub(super) fn awaits(&self, position: Lsn) -> bool {
        matches!(self.end, End::NotYet)
            && position > self.checkpoint
            && self.router.is_consistent_at(position)
    }

    /// Waits for the next event; for ever if there is nothing to copy. Nothing is lost if it is not
    /// waited for to the end.
    pub(super) async fn next(&mut self) -> Event {
        let put_back = async {
            match &mut self.end {
                End::PuttingBack(task) => task.result().await,
                End::NotYet | End::PutBackAt(_) | End::Reached => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(offered) = self.offers.recv() => Event::Offered(offered),
            finished = self.jobs.finished() => Event::Finished(finished.map(Box::new)),
            Some(planned) = self.planned.recv() => Event::Planned(planned),
            put_back = put_back => Event::PutBack(put_back.and_then(|failed| failed)),
        }
    }

    /// Takes an event in, and starts what can be started then. `routed_to` is how far the stream has come.
    pub(super) async fn take(&mut self, event: Event, routed_to: Lsn) -> Result<()> {
        match event {
            Event::Offered(offered) => self.answer(offered, routed_to),
            Event::Finished(finished) => self.finished(*finished?).await?,
            Event::Planned(planned) => self.planned(planned?).await?,
            Event::PutBack(failed) => self.put_back(failed?).await?,
        }
        self.start(routed_to);
        Ok(())
    }

    async fn planned(&mut self, planned: Planned) -> Result<()> {
        match planned {
            Planned::Ready(table) => self.ready(*table),
            Planned::Again(table) => return self.again(*table).await,
            Planned::Gone(relation) => {
                tracing::warn!(relation, "a table is not in the stream any more: nothing is copied of it");
                self.router.forget(relation);
                self.jobs.forget(relation);
            }
        }
        Ok(())
    }

    /// Gives free readers something to do, unless the stream is behind.
    fn start(&mut self, routed_to: Lsn) {
        if self.lag(routed_to) <= limits::COPY_LAG {
            self.jobs.start(&self.router);
        }
    }

    /// Decides about a reader's snapshot.
    fn answer(&mut self, offered: Offered, routed_to: Lsn) {
        let answer = if self.lag(routed_to) > limits::COPY_LAG {
            Answer::Later
        } else {
            match self.router.offer(&offered.chunks, &offered.snapshot) {
                Offer::Accepted => Answer::Accepted,
                Offer::Refused(xid) => Answer::Refused(xid),
                Offer::Withdrawn => Answer::Withdrawn,
            }
        };
        // What was in the way of the snapshot before may be none for this one.
        let in_the_way = match answer {
            Answer::Accepted | Answer::Withdrawn => Some(None),
            Answer::Refused(_) | Answer::Later => offered.in_the_way.map(Some),
        };
        if let Some(now) = in_the_way {
            self.in_the_way.send_if_modified(|what| {
                let is_new = *what != now;
                *what = now;
                is_new
            });
        }
        if offered.answer.send(answer).is_err() && answer == Answer::Accepted {
            // The reader is gone; its job ends without the chunks.
            self.router.failed(&offered.chunks);
        }
    }

    /// For how long the source has been further than the stream has come.
    fn lag(&mut self, routed_to: Lsn) -> Duration {
        while self.ahead.front().is_some_and(|(lsn, _)| *lsn <= routed_to) {
            self.ahead.pop_front();
        }
        self.ahead.front().map_or(Duration::ZERO, |(_, at)| at.elapsed())
    }

    fn ready(&mut self, table: PlannedTable) {
        let source = &table.copy.source;
        let relation = source.oid;
        self.roots.extend(source.root.iter().map(|root| (source.name.clone(), root.clone())));
        self.known.push((relation, table.known));
        if self.router.is_unplanned(relation) {
            let chunks = table.ranges.iter().map(|range| (range.clone(), None));
            let key = table.copy.chunk_key();
            self.router.add(relation, CopyTable::new(table.fence, key, chunks, self.checkpoint));
        }
        self.add(table.copy, table.ranges);
    }

    /// The table's pending chunks are copied from now on.
    fn add(&mut self, table: TableCopy, ranges: Vec<KeyRange>) {
        let relation = table.source.oid;
        if ranges.len() > 1 {
            self.in_chunks.insert(relation, table.clone());
        } else {
            self.in_chunks.remove(&relation);
        }
        let pending = self.router.pending(relation);
        self.jobs.add(table, ranges, pending);
    }

    /// Some chunks of a table that was over are copied again.
    async fn again(&mut self, table: CopiedAgain) -> Result<()> {
        let relation = table.copy.source.oid;
        let ranges = table.chunks.iter().map(|(range, _)| range.clone()).collect();
        // What is routed is known, and what an earlier life had routed ended before the router's own fence.
        let chunks = CopyTable::new(Xid::new(0), table.copy.chunk_key(), table.chunks, self.checkpoint);
        self.router.copy_again(relation, chunks, self.checkpoint);
        self.add(table.copy, ranges);
        self.end = End::NotYet;
        self.is_told = false;
        self.tell().await
    }

    async fn finished(&mut self, finished: Finished) -> Result<()> {
        let Finished { job, outcome, .. } = finished;
        let table = &job.table.source;
        match outcome {
            Ok(Some(copied)) => {
                self.router.done(&job.ids(), &copied.snapshot, copied.lsn);
                self.failures.remove(&table.oid);
                if self.well.insert(table.oid) {
                    answered(Side::Target, self.ledger.resolve_failing(&table.name, "copy")).await?;
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            // The chunks may be committed all the same; only the ledger knows.
            Err(fault) if fault.is_unreachable() => Err(fault),
            Err(fault) => {
                self.router.failed(&job.ids());
                // What was copied at the same time may fail for the same reason.
                let is_first = !self.jobs.is_resting(table.oid);
                let failures = self.failures.entry(table.oid).or_default();
                *failures += u32::from(is_first);
                let times = *failures;
                let is_conflict = fault.is_conflict() && self.in_chunks.contains_key(&table.oid);
                let fault = if is_conflict { conflict(fault, times) } else { fault };
                self.jobs.rest(&job, &fault, times);
                if is_first || !is_conflict {
                    self.report(table, times, &fault).await?;
                }
                // The table may look otherwise by now.
                self.jobs.forget(table.oid);
                let holds_back = is_conflict && is_first && times >= TIMES_UNTIL_HELD_BACK;
                self.look(Look { relation: table.oid, holds_back })
            }
        }
    }

    /// Tells that a table could not be copied, for so many times in a row. The others go on.
    async fn report(&mut self, table: &PublishedTable, times: u32, fault: &Fault) -> Result<()> {
        let ledger = &self.ledger;
        if fault.reaction() == Reaction::Retry && (fault.passes() || times < TIMES_UNTIL_FAILING) {
            match times {
                1 => tracing::warn!("copying again: {fault}"),
                _ => tracing::debug!("copying again: {fault}"),
            }
            return answered(Side::Target, ledger.record_incident(Severity::Retrying, fault)).await;
        }
        tracing::error!("the table is not copied: {fault}");
        self.well.remove(&table.oid);
        answered(Side::Target, ledger.record_failing(&table.name, "copy", fault)).await
    }

    /// The stream has met a constraint. While chunks of the table are copied again, that can be one that two
    /// rows violate which never existed together: it is held back then, and the stream begins anew.
    pub(super) async fn without_conflict(&mut self, fault: Fault) -> Result<Fault> {
        if !fault.is_conflict() {
            return Ok(fault);
        }
        let session = Session::open(&self.target, Side::Target, &format!("cdc_{} schema", self.name)).await?;
        for table in self
            .in_chunks
            .iter()
            .filter(|(relation, _)| self.router.is_copied(**relation))
            .map(|(_, table)| table)
        {
            let hold = Hold { key: &table.source.key, others_than: None, mode: self.mode };
            let held = schema::hold_back_now(&session, &self.name, &table.target, hold).await?;
            if !held.is_empty() {
                let names: Vec<&str> = held.iter().map(|held| held.object.as_str()).collect();
                return Ok(Fault::retry(format!(
                    "rows of the table are copied again, and meanwhile two may be there that never existed together: \
                     held back until they are copied: {}",
                    names.join(", ")
                ))
                .on(Side::Target)
                .table(table.target.to_string()));
            }
        }
        Ok(fault)
    }

    /// Ends all readers where they are. Without the stream no chunk can come to its end.
    pub(super) fn stop(&mut self) {
        self.jobs.stop();
    }

    /// Starts what can be started. Called a few times a second.
    pub(super) async fn work(&mut self, routed_to: Lsn) -> Result<()> {
        self.start(routed_to);
        match &self.end {
            End::NotYet if self.router.is_consistent() => {
                answered(Side::Target, self.ledger.set_consistent()).await?;
                // A start that finds everything copied has nothing to take back.
                self.is_told = true;
                tracing::info!(
                    longest_pause_ms = whole_ms(self.longest_pause),
                    "every row is copied: the target is a state that the source once had"
                );
                self.end = End::PutBackAt(Instant::now());
            }
            End::PutBackAt(at) if *at <= Instant::now() => {
                let (source, target) = (self.source.clone(), self.target.clone());
                let (name, ledger) = (self.name.clone(), self.ledger.clone());
                self.end = End::PuttingBack(Task::spawn(async move {
                    let application = format!("cdc_{name} schema");
                    let session = Session::open(&target, Side::Target, &application).await?;
                    let others = schema::builders(&target, &name).await;
                    let missing = schema::put_back(&session, &others, &name, Until::Copy).await?;
                    if missing.is_empty() {
                        let source = Session::open(&source, Side::Source, &application).await?;
                        schema::refresh_views(&source, &session, &ledger).await?;
                    }
                    Ok(missing)
                }));
            }
            End::NotYet | End::PutBackAt(_) | End::PuttingBack(_) | End::Reached => {}
        }
        Ok(())
    }

    async fn put_back(&mut self, missing: Vec<NotPutBack>) -> Result<()> {
        let still: Vec<(&TableName, &str)> = missing.iter().map(|m| (&m.table, m.object.as_str())).collect();
        answered(Side::Target, self.ledger.resolve_constraints(&still)).await?;
        for NotPutBack { table, object, fault } in &missing {
            tracing::error!("{object} is not put back: {fault}");
            answered(Side::Target, self.ledger.record_failing(table, &constraint_part(object), fault))
                .await?;
        }
        if missing.is_empty() {
            answered(Side::Target, self.ledger.set_phase(self.next_phase)).await?;
            tracing::info!("the copy is complete; from here on the target follows");
            self.end = End::Reached;
        } else {
            self.end = End::PutBackAt(Instant::now() + limits::BLOCKED_INTERVAL);
        }
        Ok(())
    }
}

/// What is done about a row that another one stands in the way of, for so many times in a row.
fn conflict(fault: Fault, times: u32) -> Fault {
    if times < TIMES_UNTIL_FAILING {
        return fault.reacting(Reaction::Retry).remedy(
            "nothing: it is copied again with a newer snapshot, and if that doesn't help, without the constraint, which \
             is put back when the rows are there",
        );
    }
    fault.remedy(
        "the target has a row that stands in the way: delete that row there, or drop the constraint if only the target \
         has it; it is copied again by itself",
    )
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
