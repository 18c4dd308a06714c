//! The loop that owns a stream.
//!
//! It never waits for the target: batches go to a task of their own, and while that works the loop
//! reads on, up to the limits of one batch, and keeps telling the source what is durable. So the
//! source hears from us in time however slow an apply is (rule C2).

mod receive;

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::copying::Copying;
use super::monitor::{self, Tick, Watched};
use super::prepare::Prepared;
use super::task::Task;
use crate::apply::{self, Applied, Batch, Batcher, Change, Failure, Position, Round};
use crate::catalog::Published;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::limits;
use crate::lsn::Lsn;
use crate::pgoutput::{Decoder, ProtoVersion, Relations};
use crate::pulse::{Pulse, Turning};
use crate::replication::{Feedback, ReplicationStream};
use crate::schema::drift::Drift;
use crate::shutdown::Shutdown;

/// Why an engine has ended.
#[derive(Debug)]
pub enum Ended {
    /// It was asked to: everything that was being applied is committed.
    Asked,
    /// Something failed. Everything durable is in the checkpoint.
    Failed(Fault),
}

/// Owns a stream until it ends.
pub struct Engine {
    stream: ReplicationStream,
    decoder: Decoder,
    relations: Relations,
    batcher: Batcher,
    copying: Copying,
    /// A change that waits for its chunk to be copied. Nothing is read meanwhile.
    waiting: Option<Change>,
    /// More is on its way, and is let gather before it is looked at.
    gathers: bool,
    clock: monitor::Clock,
    ticks: watch::Receiver<Option<Tick>>,
    published: watch::Receiver<Vec<Published>>,
    rounds: mpsc::Sender<Round>,
    answers: mpsc::Receiver<Result<Applied, Failure>>,
    /// How many batches are with the applier.
    rounds_out: usize,
    /// Since when the next answer of the applier is awaited.
    busy: watch::Sender<Option<Clock>>,
    /// What is done when a schema changes.
    drift: Arc<Mutex<Drift>>,
    /// The tasks that end with the engine: applier, watchdog, monitor.
    applier: Task<()>,
    watchdog: Task<Fault>,
    monitor: Task<Fault>,
    progress: Progress,
    /// How often the source must hear from us.
    feedback_interval: Duration,
    /// How long the walsender may say nothing. While it decodes a large transaction of which nothing
    /// is published, it looks up only every half `wal_sender_timeout`.
    silence_limit: Duration,
}

/// Positions, and when they were last spoken of.
struct Progress {
    /// Durable on the target as a checkpoint.
    durable: Lsn,
    /// Received from the source.
    received: Lsn,
    /// The durable position that the source was told of.
    told: Lsn,
    told_at: Instant,
    heard_at: Instant,
    checkpoint_at: Instant,
    /// The source wants an answer that says how far we are (it does so before it stops).
    reply_requested: bool,
    /// Changes applied since the log was told last, and when that was.
    changes: usize,
    logged_at: Instant,
}

impl Engine {
    /// Takes over what has been prepared. `guard` is another session to the target.
    #[must_use]
    pub fn new(prepared: Prepared, guard: Arc<Session>, ledger: &Ledger, slot: &str, pulse: &Pulse) -> Self {
        let (rounds, rounds_in) = mpsc::channel(limits::ROUNDS);
        let (answers_out, answers) = mpsc::channel(limits::ROUNDS);
        let (ticks_out, ticks) = watch::channel(None);
        let (busy, busy_in) = watch::channel(None);
        let (in_the_way, in_the_way_in) = watch::channel(None);
        let (published_out, published) = watch::channel(prepared.copy.published.clone());
        let pid = prepared.applier.backend_pid();
        let applier = Task::spawn(prepared.applier.serve(rounds_in, answers_out));
        let turning = pulse.of("the watch over the applier");
        let watchdog = Task::spawn(async move { apply::watch(&guard, pid, busy_in, turning).await });
        let watched = Watched {
            source: prepared.source,
            ledger: ledger.clone(),
            slot: slot.to_owned(),
            publications: prepared.publications,
            ours: prepared.ours,
            insert_only: prepared.insert_only,
            published: published_out,
            target: prepared.copy.target.clone(),
            mode: prepared.copy.mode,
            drift: Arc::clone(&prepared.drift),
            config: prepared.config,
            in_the_way: in_the_way_in,
        };
        let turning = pulse.of("the monitor of the source");
        let monitor = Task::spawn(monitor::watch(watched, ticks_out, turning));
        let now = Instant::now();
        let timeout = prepared.wal_sender_timeout.unwrap_or(limits::WAL_SENDER_TIMEOUT);
        Self {
            stream: prepared.stream,
            decoder: Decoder::new(ProtoVersion::V1),
            relations: Relations::new(),
            batcher: Batcher::new(prepared.checkpoint, prepared.skips),
            copying: Copying::new(prepared.copy, prepared.checkpoint, in_the_way),
            waiting: None,
            gathers: false,
            clock: monitor::Clock::default(),
            ticks,
            published,
            rounds,
            answers,
            rounds_out: 0,
            busy,
            drift: prepared.drift,
            applier,
            watchdog,
            monitor,
            progress: Progress {
                durable: prepared.checkpoint,
                received: prepared.checkpoint,
                told: Lsn::ZERO,
                told_at: now,
                heard_at: now,
                checkpoint_at: now,
                reply_requested: true,
                changes: 0,
                logged_at: now,
            },
            feedback_interval: limits::FEEDBACK_INTERVAL.min(timeout / 3),
            silence_limit: timeout * 2,
        }
    }

    /// The commit LSNs of the transactions that are dropped when they come.
    #[must_use]
    pub fn skips(&self) -> &[Lsn] {
        self.batcher.skips()
    }

    /// Streams until it is asked to stop or something fails.
    pub async fn run(&mut self, shutdown: &mut Shutdown, turning: &Turning) -> Ended {
        let streamed = self.stream_until_asked(shutdown, turning).await;
        self.copying.stop();
        match streamed {
            Ok(()) => match self.finish(turning).await {
                Ok(()) => Ended::Asked,
                Err(fault) => Ended::Failed(fault),
            },
            Err(fault) => Ended::Failed(turning.during(self.explained(fault)).await),
        }
    }

    /// What a change of the schema, or rows that never existed together, have to do with the fault.
    async fn explained(&mut self, fault: Fault) -> Fault {
        let explain = async {
            let fault = self.copying.without_conflict(fault.clone()).await?;
            self.drift.lock().await.explain(fault).await
        };
        // A server that is lost gives no answer; the next start looks, too.
        match tokio::time::timeout(2 * limits::SILENCE, explain).await {
            Ok(Ok(explained) | Err(explained)) => explained,
            Err(_) => fault,
        }
    }

    /// The catalogs of both sides, which tell whether a schema has changed.
    #[must_use]
    pub fn drift(&self) -> Arc<Mutex<Drift>> {
        Arc::clone(&self.drift)
    }

    async fn stream_until_asked(&mut self, shutdown: &mut Shutdown, turning: &Turning) -> Result<()> {
        let mut timer = tokio::time::interval(limits::FEEDBACK_DELAY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turning.turned();
            let is_reading = self.is_reading();
            let rests = self.gathers && is_reading;
            if !rests || self.progress.checkpoint_at.elapsed() >= limits::GATHER_MOST {
                self.hand_over().await?;
            }
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                answer = self.answers.recv() => self.applied(answer).await?,
                fault = self.watchdog.fault() => return Err(fault),
                fault = self.monitor.fault() => return Err(fault),
                event = self.copying.next() => self.copied(event).await?,
                _ = timer.tick() => self.keep_in_touch(is_reading).await?,
                () = tokio::time::sleep(limits::GATHER), if rests => {
                    self.gathers = self.receive_what_is_there(turning).await? && self.is_behind();
                }
                frame = self.stream.next(), if is_reading && !self.gathers => match frame {
                    Ok(frame) => {
                        self.receive(frame)?;
                        self.receive_what_is_there(turning).await?;
                        self.gathers = self.is_behind();
                    }
                    Err(fault) => return Err(self.cut_off(fault, turning).await),
                },
            }
        }
    }

    /// The source reports this instead of the rest of a transaction. What came before that is applied, so
    /// that the stream stands exactly there; or behind it, if the operator has asked to skip it.
    async fn cut_off(&mut self, fault: Fault, turning: &Turning) -> Fault {
        let Some(commit_lsn) = self.batcher.receiving().filter(|_| !fault.is_unreachable()) else {
            return fault;
        };
        let is_passed = self.batcher.give_up();
        match self.settle(turning).await {
            Err(other) => other,
            Ok(()) if is_passed => {
                Fault::retry("the stream begins anew behind the transaction that was skipped")
                    .on(Side::Source)
                    .lsn(commit_lsn)
            }
            Ok(()) => fault.lsn(commit_lsn),
        }
    }

    /// Waits until everything that was received is applied.
    async fn settle(&mut self, turning: &Turning) -> Result<()> {
        while self.rounds_out > 0 || !self.batcher.is_idle() {
            turning.turned();
            self.hand_over().await?;
            tokio::select! {
                answer = self.answers.recv() => self.applied(answer).await?,
                fault = self.watchdog.fault() => return Err(fault),
                () = tokio::time::sleep(limits::TURN) => {}
            }
        }
        Ok(())
    }

    /// Gives the applier what is ready, if it is free; or, in a backlog, is about to be.
    async fn hand_over(&mut self) -> Result<()> {
        let is_free = self.rounds_out == 0 || self.rounds_out < limits::ROUNDS && !self.batcher.has_room();
        if !is_free {
            return Ok(());
        }
        let Some(batch) = self.batcher.take().or_else(|| self.idle_batch()) else { return Ok(()) };
        // What has come while this batch was full is waited for no longer.
        self.gathers = false;
        self.copying.tell().await?;
        let caught_up_to = batch.end.and_then(|end: Position| self.clock.caught_up_to(end.lsn));
        if self.rounds_out == 0 {
            self.busy.send_replace(Some(Clock::now()));
        }
        self.rounds_out += 1;
        self.progress.checkpoint_at = Instant::now();
        let (roots, known) = (self.copying.take_roots(), self.copying.take_known());
        // An applier that has ended takes nothing more: why, it says with the answer that is on its way.
        let _ = self.rounds.send(Round { batch, caught_up_to, roots, known }).await;
        Ok(())
    }

    /// The position alone, when it is time to write it down: soon after it has moved, at once if the
    /// source asks (it does before it stops) or the copy ends with it, and now and then for the clock's
    /// sake.
    fn idle_batch(&mut self) -> Option<Batch> {
        let since = self.progress.checkpoint_at.elapsed();
        let is_due = if self.batcher.only_moved() {
            self.progress.reply_requested
                || since >= limits::IDLE_CHECKPOINT_INTERVAL
                || self.copying.awaits(self.batcher.position())
        } else {
            since >= limits::CLOCK_CHECKPOINT_INTERVAL && self.clock.has_passed(self.progress.durable)
        };
        if is_due { self.batcher.take_position() } else { None }
    }

    /// Takes the applier's answer.
    async fn applied(&mut self, answer: Option<Result<Applied, Failure>>) -> Result<()> {
        self.rounds_out = self.rounds_out.saturating_sub(1);
        self.busy.send_replace((self.rounds_out > 0).then(Clock::now));
        match answer {
            None => Err(match self.applier.result().await {
                Ok(()) => Fault::bug("the applier's task has ended"),
                Err(fault) => fault,
            }),
            Some(Ok(applied)) => {
                if let Some(position) = applied.position {
                    self.progress.durable = position.lsn;
                    self.copying.durable(position.lsn);
                }
                self.progress.changes += applied.changes;
                Ok(())
            }
            Some(Err(failure)) => {
                if let Some(position) = failure.committed {
                    self.progress.durable = position.lsn;
                }
                Err(failure.fault)
            }
        }
    }

    /// Tells the source how far we are, when that is due, and finds out whether it is still there.
    async fn keep_in_touch(&mut self, is_reading: bool) -> Result<()> {
        if self.ticks.has_changed().unwrap_or(false)
            && let Some(tick) = self.ticks.borrow_and_update().clone()
        {
            self.copying.note(&tick);
            self.clock.note(tick);
        }
        if self.published.has_changed().unwrap_or(false) {
            self.copying.meet(&self.published.borrow_and_update())?;
        }
        self.copying.work(self.batcher.position()).await?;
        self.log_progress();
        if !is_reading {
            // What the source has sent meanwhile waits in the socket; it isn't silent.
            self.progress.heard_at = Instant::now();
        }
        let silence = self.progress.heard_at.elapsed();
        if silence >= self.silence_limit {
            return Err(Fault::unreachable(
                Side::Source,
                format!("nothing came through the replication connection for {} s", silence.as_secs()),
            ));
        }
        let has_news = self.progress.durable > self.progress.told;
        let answer_is_due = self.progress.reply_requested && !self.batcher.only_moved();
        if has_news || answer_is_due || self.progress.told_at.elapsed() >= self.feedback_interval {
            // An idle connection is asked for an answer, so that its loss is noticed.
            let is_quiet = silence >= self.feedback_interval;
            self.tell(is_quiet).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, reply_requested: bool) -> Result<()> {
        let durable = self.progress.durable;
        let feedback = Feedback {
            written: self.progress.received.max(durable),
            flushed: durable,
            applied: durable,
            reply_requested,
        };
        self.stream.send_feedback(&feedback).await?;
        self.progress.told = durable;
        self.progress.told_at = Instant::now();
        self.progress.reply_requested = false;
        Ok(())
    }

    /// Lets the current batch end, tells the source how far we are, and frees the slot.
    async fn finish(&mut self, turning: &Turning) -> Result<()> {
        while self.rounds_out > 0 {
            turning.turned();
            tokio::select! {
                answer = self.answers.recv() => self.applied(answer).await?,
                fault = self.watchdog.fault() => return Err(fault),
                () = tokio::time::sleep(self.feedback_interval) => self.tell(false).await?,
            }
        }
        self.tell(false).await?;
        if let Err(fault) = self.stream.finish().await {
            // The slot is free all the same as soon as the server notices; nothing depends on it.
            tracing::debug!("{fault}");
        }
        Ok(())
    }

    /// Keeps the slot in use, and the source told so, until then. Returns early when that can't be
    /// done any more, or when the source ends the monitor's session: a source that wants to stop
    /// waits for its walsenders.
    pub async fn hold(&mut self, until: Instant) {
        // If what failed is the monitor, it has ended already.
        let is_watched = !self.monitor.is_finished();
        while Instant::now() < until {
            if let Err(fault) = self.tell(false).await {
                // The next start meets the same fault and tells of it.
                tracing::debug!("{fault}");
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(Instant::now() + self.feedback_interval)) => {}
                fault = self.monitor.fault(), if is_watched => {
                    tracing::debug!("{fault}");
                    return;
                }
            }
        }
    }

    /// One line a minute for the log.
    fn log_progress(&mut self) {
        let since = self.progress.logged_at.elapsed();
        if since < limits::LOG_INTERVAL {
            return;
        }
        let behind = self.progress.received.bytes_since(self.progress.durable);
        tracing::info!(
            changes = self.progress.changes,
            seconds = since.as_secs(),
            applied_to = %self.progress.durable,
            received_but_not_applied_bytes = behind,
            "streaming"
        );
        self.progress.changes = 0;
        self.progress.logged_at = Instant::now();
    }
}
