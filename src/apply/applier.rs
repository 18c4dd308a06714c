//! Applies batches to the target: in sets where it pays, otherwise change by change in the original order.
//!
//! One target transaction holds the rows and the checkpoint. A batch is sent as a whole, and each of its statements
//! must touch exactly the rows that it is for. COMMIT is sent only after the answers to everything before it have
//! been seen, so a change that did not do what it did on the source can't be committed.
//!
//! ```text
//! encode 1 ─► send 1 ───── server works ─────► answers 1 ─► COMMIT ──► durable
//!                └► encode 2 ─► send 2 ┄┄ in the same transaction, or behind the COMMIT
//! ```
//!
//! So that the server doesn't wait for us, nor we for it, the next batch is encoded while it works. A batch that finds
//! another one under way joins its transaction, at a savepoint, for as long as that is young; one that comes later
//! begins a new one behind the COMMIT, which isn't committed before that one is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::batch::{Batch, Position, Skipped};
use super::encoded::{Encoded, Expected, Trouble, What, Wrong};
use super::encoder::{Encoder, Opening, Way};
use super::explain::{RoundFailure, explain};
use super::set::relation_of;
use super::statements::DEALLOCATE;
use super::tables::Tables;
use crate::catalog::TableName;
use crate::connect::pipeline::{Answer, Script};
use crate::connect::{Mode, Pipeline, Session};
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::lsn::Lsn;
use crate::pgoutput::PgTimestamp;
use crate::schema::drift::Known;

/// A batch on its way to the applier.
#[derive(Debug)]
pub struct Round {
    /// What is to be applied.
    pub batch: Batch,
    /// Goes into the checkpoint: everything that was committed on the source before that time is in this batch or
    /// an earlier one.
    pub caught_up_to: Option<PgTimestamp>,
    /// Partitions that the applier doesn't know yet, with their topmost parents.
    pub roots: Vec<(TableName, TableName)>,
    /// Tables that it doesn't know yet.
    pub known: Vec<(u32, Known)>,
}

/// What has become of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The durable checkpoint; `None` if the batch is in a transaction that isn't committed yet, and the checkpoint of
    /// a later one tells of it.
    pub position: Option<Position>,
    /// How many changes it applied.
    pub changes: usize,
    /// How many of these it applied together with others of their table.
    pub in_sets: usize,
}

/// A batch that could not be applied.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub fault: Fault,
    /// What was committed all the same: the transactions before the one that failed.
    pub committed: Option<Position>,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, committed: None }
    }
}

/// A batch, and what the checkpoint has to say of it.
pub(super) struct Work {
    pub(super) batch: Batch,
    pub(super) caught_up_to: Option<PgTimestamp>,
    /// Changes in the earlier pieces of a huge transaction that this batch goes on with.
    pub(super) carried: usize,
}

/// A batch whose answers aren't all there.
struct Sent {
    work: Work,
    opening: Opening,
    way: Way,
    expected: VecDeque<Expected>,
    in_sets: usize,
    /// The first thing that went wrong.
    trouble: Option<Trouble>,
}

/// The target transaction that the last batch is in, while it isn't committed.
#[derive(Default)]
struct Open {
    since: Option<Instant>,
    /// What a COMMIT now would make durable; `None` within a huge transaction.
    end: Option<Position>,
    /// The source transactions in it: how many, and the last one's commit LSN.
    transactions: usize,
    last: Option<Lsn>,
    skipped: Vec<(Lsn, Skipped)>,
    /// The number of the last savepoint in it.
    savepoint: u32,
}

/// A COMMIT that isn't answered yet.
struct Committing {
    open: Open,
    /// The last batch in it.
    applied: Applied,
    fault: Option<Fault>,
}

/// Applies batches through one connection to the target.
pub struct Applier {
    pipeline: Pipeline,
    encoder: Encoder,
    /// Batches that are still to be sent: the one that has come, and those that were undone with one before them.
    queue: VecDeque<Work>,
    /// Batches under way, oldest first.
    sent: VecDeque<Sent>,
    open: Open,
    committing: Option<Committing>,
    /// Batches that nothing is awaited for any more.
    done: VecDeque<Applied>,
    /// Changes of a huge transaction in the pieces so far.
    carried: usize,
    /// How often something has been undone.
    undone: usize,
    /// How long batches join a transaction.
    young: Duration,
}

/// How a fault of a COMMIT begins.
const COMMITTING: &str = "committing a batch";

impl Applier {
    /// An applier for one life of the daemon, writing under `epoch`.
    ///
    /// The pipeline must be one that writes already ([`Pipeline::write_as`]), in this `mode`; `session` is where the
    /// target's catalogs are asked. `roots` names the topmost parent of each leaf partition that the source has now:
    /// changes of one that the target doesn't have go there. `known` says how the tables of the copy are built.
    #[must_use]
    pub fn new(
        (pipeline, session): (Pipeline, Arc<Session>),
        name: &str,
        epoch: i64,
        mode: Mode,
        roots: HashMap<TableName, TableName>,
        known: HashMap<u32, Known>,
    ) -> Self {
        let young = limits::JOIN.max(pipeline.round_trip() * limits::JOIN_ROUND_TRIPS);
        Self {
            pipeline,
            encoder: Encoder::new(session, name, epoch, mode, Tables::new(roots, known)),
            queue: VecDeque::new(),
            undone: 0,
            sent: VecDeque::new(),
            open: Open::default(),
            committing: None,
            done: VecDeque::new(),
            carried: 0,
            young,
        }
    }

    /// The backend that applies.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.pipeline.backend_pid()
    }

    /// Applies what comes, and answers each round in its order, until nothing comes any more or a batch fails.
    ///
    /// If a transaction can't be applied for a reason that doesn't pass, those before it are committed, so that the
    /// stream stops exactly there; the answer to the batch that it is in says why.
    pub async fn serve(
        mut self,
        mut rounds: mpsc::Receiver<Round>,
        answers: mpsc::Sender<Result<Applied, Failure>>,
    ) {
        loop {
            let step = tokio::select! {
                biased;
                round = rounds.recv() => match round {
                    Some(round) => self.take(round).await,
                    None => return,
                },
                answered = self.answered(), if self.awaits() => match answered {
                    Ok(()) => self.go_on_and_send().await,
                    Err(fault) => Err(fault.into()),
                },
            };
            for applied in self.done.drain(..) {
                if answers.send(Ok(applied)).await.is_err() {
                    return;
                }
            }
            if let Err(failure) = step {
                // Nobody listens only if the engine is gone, too.
                let _ = answers.send(Err(failure)).await;
                return;
            }
        }
    }

    fn awaits(&self) -> bool {
        self.committing.is_some() || !self.sent.is_empty()
    }

    async fn take(&mut self, round: Round) -> Result<(), Failure> {
        self.encoder.tables.learn(round.roots, round.known);
        let carried = if round.batch.continues { self.carried } else { 0 };
        self.carried = if round.batch.end.is_some() { 0 } else { carried + round.batch.changes() };
        self.queue.push_back(Work { batch: round.batch, caught_up_to: round.caught_up_to, carried });
        self.send_all().await
    }

    async fn go_on_and_send(&mut self) -> Result<(), Failure> {
        self.go_on().await?;
        self.send_all().await
    }

    async fn send_all(&mut self) -> Result<(), Failure> {
        while let Some(work) = self.queue.pop_front() {
            self.send(work).await?;
        }
        Ok(())
    }

    /// Sends a batch as soon as it may be.
    async fn send(&mut self, work: Work) -> Result<(), Failure> {
        let opening = self.opening(&work.batch);
        let encoding = self.encoder.encode(&work, opening, Way::InSets);
        let encoded = self.pipeline.sending_while(encoding).await;
        let joins = opening != Opening::Begin && !work.batch.continues;
        if !joins || encoded.is_err() {
            let (queued, undone) = (self.queue.len(), self.undone);
            while !self.sent.is_empty() {
                self.answered().await?;
                self.go_on().await?;
            }
            if self.undone != undone {
                // The script refers to what is not there any more. What was undone comes first.
                self.queue.insert(self.queue.len() - queued, work);
                return Ok(());
            }
        }
        match encoded {
            Ok(encoded) => {
                self.put(work, opening, encoded);
                Ok(())
            }
            Err(failure) => {
                while self.awaits() {
                    self.answered().await?;
                    self.go_on().await?;
                }
                Err(self.stop_at(&work.batch, failure).await)
            }
        }
    }

    /// How a batch that comes now begins.
    fn opening(&self, batch: &Batch) -> Opening {
        let number = self.open.savepoint + 1;
        let is_young =
            self.open.since.is_some_and(|since| since.elapsed() < self.young) && number <= limits::JOINED;
        let is_whole = |batch: &Batch| batch.end.is_some();
        if batch.continues {
            // The piece before it is fine by then. Left in place, their savepoints would be inside each other.
            Opening::Savepoint { number, released: Some(number - 1).filter(|before| *before > 0) }
        } else if is_young && is_whole(batch) && self.sent.back().is_some_and(|s| is_whole(&s.work.batch)) {
            Opening::Savepoint { number, released: None }
        } else {
            Opening::Begin
        }
    }

    fn put(&mut self, work: Work, opening: Opening, (encoded, way): (Encoded, Way)) {
        match opening {
            Opening::Begin => self.open = Open { since: Some(Instant::now()), ..Open::default() },
            Opening::Savepoint { number, .. } => self.open.savepoint = number,
        }
        let Encoded { script, expected, in_sets } = encoded;
        self.pipeline.send(script);
        self.sent.push_back(Sent { work, opening, way, expected, in_sets, trouble: None });
    }

    /// Waits until the oldest of what is under way has been answered. May be cancelled.
    async fn answered(&mut self) -> Result<()> {
        loop {
            let answer = self.pipeline.answer().await?;
            if let Some(committing) = &mut self.committing {
                match answer {
                    Answer::Done { is_rollback: false, .. } => {}
                    Answer::Done { is_rollback: true, .. } => {
                        committing.fault = Some(Fault::bug("COMMIT has rolled back").on(Side::Target));
                    }
                    Answer::Refused(report) => {
                        committing.fault = Some(report.bare_fault(Side::Target, COMMITTING));
                    }
                    Answer::Ready => return Ok(()),
                }
                continue;
            }
            let sent = self.sent.front_mut().ok_or_else(|| unasked(&answer))?;
            let trouble = match answer {
                Answer::Ready if sent.trouble.is_some() || sent.expected.is_empty() => return Ok(()),
                Answer::Ready => return Err(unasked(&answer)),
                Answer::Done { rows, .. } => {
                    sent.expected.pop_front().ok_or_else(|| unasked(&answer))?.check(rows)
                }
                Answer::Refused(report) => {
                    let expected = sent.expected.pop_front();
                    Some((expected.map_or(What::Frame, |e| e.what), Wrong::Refused(report)))
                }
            };
            sent.trouble = sent.trouble.take().or(trouble);
        }
    }

    /// Does what follows from that.
    async fn go_on(&mut self) -> Result<(), Failure> {
        if let Some(committing) = self.committing.take() {
            self.done.push_back(committed(committing)?);
            return Ok(());
        }
        let Some(mut sent) = self.sent.pop_front() else { return Ok(()) };
        match sent.trouble.take() {
            None => self.finish(&sent),
            Some(trouble) => self.undo(sent, trouble).await,
        }
    }

    /// A batch has done what it had to; if nothing is behind it, its transaction is committed.
    fn finish(&mut self, sent: &Sent) -> Result<(), Failure> {
        let batch = &sent.work.batch;
        self.open.end = batch.end;
        self.open.transactions += batch.transactions.len();
        self.open.last = batch.transactions.last().map(|t| t.commit_lsn);
        let skipped = batch.transactions.iter().filter_map(|t| Some((t.commit_lsn, t.skipped.clone()?)));
        self.open.skipped.extend(skipped);
        let applied = Applied { position: None, changes: batch.changes(), in_sets: sent.in_sets };
        if batch.end.is_some() && self.sent.is_empty() {
            self.commit(applied)?;
        } else {
            self.done.push_back(applied);
        }
        Ok(())
    }

    fn commit(&mut self, applied: Applied) -> Result<()> {
        let mut script = Script::default();
        script.run("COMMIT")?;
        script.sync();
        self.pipeline.send(script);
        let open = std::mem::take(&mut self.open);
        let applied = Applied { position: open.end, ..applied };
        self.committing = Some(Committing { open, applied, fault: None });
        Ok(())
    }

    /// Undoes a batch that has failed, and those behind it in its transaction. What has failed in sets is applied one
    /// by one, which finds the change that is wrong, or succeeds; the others come again after it.
    async fn undo(&mut self, sent: Sent, trouble: Trouble) -> Result<(), Failure> {
        let relation = match trouble.0 {
            What::Change(place) => relation_of(place.of(&sent.work.batch)).cloned(),
            What::Frame | What::Checkpoint | What::Skip(_) => None,
        };
        let failure = explain(&sent.work.batch, trouble);
        let mut behind = Vec::new();
        while !self.sent.is_empty() {
            self.answered().await?;
            behind.extend(self.sent.pop_front().map(|sent| sent.work));
        }
        if failure.passes() {
            return Err(failure.fault.into());
        }
        let Sent { work, opening, way, .. } = sent;
        self.roll_back(opening).await?;
        if way == Way::OneByOne {
            return Err(self.stop_at(&work.batch, failure).await);
        }
        if let Some(relation) = relation {
            tracing::info!(
                table = format!("{}.{}", relation.schema, relation.name),
                "for {} s its changes are applied one by one, as many at a time failed: {}",
                limits::SET_REST.as_secs(),
                failure.fault.what()
            );
            self.encoder.sets.rest(relation.oid);
        }
        for work in behind.into_iter().rev() {
            self.queue.push_front(work);
        }
        let again = match opening {
            Opening::Begin => Opening::Begin,
            Opening::Savepoint { number, .. } => Opening::Savepoint { number, released: None },
        };
        match self.one_by_one(work, again).await? {
            (sent, None) => self.finish(&sent),
            (sent, Some(failure)) => Err(self.stop_at(&sent.work.batch, failure).await),
        }
    }

    /// Back to where a batch began.
    async fn roll_back(&mut self, opening: Opening) -> Result<()> {
        let sql = format!("{}; {DEALLOCATE}", opening.undo());
        self.pipeline.run(&sql, "undoing a part of a batch").await?;
        self.encoder.statements.forget_all();
        self.undone += 1;
        if opening == Opening::Begin {
            self.open = Open::default();
        }
        Ok(())
    }

    /// Applies a batch one by one while nothing else is under way. If that fails it is undone.
    async fn one_by_one(
        &mut self,
        work: Work,
        opening: Opening,
    ) -> Result<(Sent, Option<RoundFailure>), Failure> {
        let encoded = match self.encoder.encode(&work, opening, Way::OneByOne).await {
            Ok(encoded) => encoded,
            Err(failure) => return Err(self.stop_at(&work.batch, failure).await),
        };
        self.put(work, opening, encoded);
        self.answered().await?;
        let mut sent = self.sent.pop_front().ok_or_else(|| Fault::bug("a batch has vanished"))?;
        let failure = sent.trouble.take().map(|trouble| explain(&sent.work.batch, trouble));
        if failure.is_some() {
            self.roll_back(opening).await?;
        }
        Ok((sent, failure))
    }

    /// Commits what comes before a transaction that can't be applied, while nothing is under way and nothing of its
    /// batch is applied.
    async fn stop_at(&mut self, batch: &Batch, failure: RoundFailure) -> Failure {
        let mut failed = Failure::from(failure.fault.clone());
        if failure.passes() {
            return failed;
        }
        if self.open.since.is_some() {
            if self.open.end.is_none() {
                // Earlier pieces of the same huge transaction.
                return failed;
            }
            match self.commit_now().await {
                Ok(position) => failed.committed = position,
                Err(fault) => return fault.into(),
            }
        }
        let Some(before) = failure.transaction.and_then(|index| batch.before(index)) else { return failed };
        match self.apply_alone(before).await {
            Ok(position) => failed.committed = position,
            // It comes before the other one.
            Err(fault) => failed.fault = fault,
        }
        failed
    }

    async fn apply_alone(&mut self, batch: Batch) -> Result<Option<Position>> {
        let work = Work { batch, caught_up_to: None, carried: 0 };
        let encoded = self.encoder.encode(&work, Opening::Begin, Way::OneByOne).await.map_err(|f| f.fault)?;
        self.put(work, Opening::Begin, encoded);
        self.answered().await?;
        let Some(mut sent) = self.sent.pop_front() else { return Ok(None) };
        if let Some(trouble) = sent.trouble.take() {
            return Err(explain(&sent.work.batch, trouble).fault);
        }
        self.finish(&sent).map_err(|failure| failure.fault)?;
        self.committed().await
    }

    async fn commit_now(&mut self) -> Result<Option<Position>> {
        self.commit(Applied { position: None, changes: 0, in_sets: 0 })?;
        self.committed().await
    }

    async fn committed(&mut self) -> Result<Option<Position>> {
        self.answered().await?;
        let Some(committing) = self.committing.take() else { return Ok(None) };
        committed(committing).map(|applied| applied.position)
    }
}

/// What a COMMIT has come to.
fn committed(Committing { open, applied, fault }: Committing) -> Result<Applied> {
    if let Some(fault) = fault {
        return Err(match open.last {
            Some(lsn) if open.transactions == 1 => fault.lsn(lsn),
            // Nobody knows which one it was, and one that is named can be skipped.
            _ => fault,
        });
    }
    for (lsn, skipped) in &open.skipped {
        tracing::warn!(%lsn, ?skipped, "skipped a transaction, as asked");
    }
    Ok(applied)
}

fn unasked(answer: &Answer) -> Fault {
    Fault::bug(format!("the target answered what it wasn't asked: {answer:?}")).on(Side::Target)
}
