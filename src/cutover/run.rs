//! Carrying a plan out: one step after the other, with everything open that the pause needs before it begins.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Config, InPause};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::hook::Hook;
use crate::ledger::{Ledger, Phase, Switch};
use crate::limits;
use crate::schema::{self, AtOnce, Until};
use crate::shutdown::Shutdown;
use crate::verify::{self, Live, Outcome as Verified, Part};

use super::fence::{Fence, Patience};
use super::outside::Outside;
use super::plan::{LEASE, RENEWAL, Step, Way};
use super::pooler::Pooler;
use super::reverse::Turn;
use super::sequences::Sequences;
use super::undo::{self, application, enter, for_a_while, held, settle};
use super::{barrier, compare, taken_over};

/// A switch that is being carried out.
pub(super) struct Run {
    /// As the migration runs: rows are read from the old side, and applied to the new one.
    pub(super) now: Config,
    pub(super) way: Way,
    pub(super) home: Ledger,
    /// The ledger of the direction, on the new side.
    ledger: Ledger,
    old: Arc<Session>,
    new: Arc<Session>,
    /// Others to the same databases, that look while these wait.
    watchers: [Session; 2],
    pub(super) switch: Switch,
    /// False once somebody else may have taken it over.
    is_held: watch::Receiver<bool>,
    prepared: Prepared,
    /// When the pause has to be over.
    deadline: Option<Instant>,
    /// Since when nobody could write.
    rests_since: Option<Instant>,
    /// For how long that was.
    pub(super) pause: Option<Duration>,
}

/// What was made or found before anything rests.
#[derive(Default)]
struct Prepared {
    turn: Option<Turn>,
    outside: Outside,
    at_once: AtOnce,
    tables: Vec<compare::Table>,
    pooler: Option<Pooler>,
}

/// What a step has to say.
type Note = Option<String>;

impl Run {
    /// Opens what is needed, and holds the lease from here on for as long as the task is there that this gives.
    pub(super) async fn begin(
        now: Config,
        home: Ledger,
        switch: Switch,
    ) -> Result<(Self, tokio::task::JoinHandle<()>)> {
        let (held_out, is_held) = watch::channel(true);
        let lease = tokio::spawn(hold(now.clone(), switch.clone(), held_out));
        let application = application(&now);
        let source = || Session::open(&now.source, Side::Source, &application);
        let target = || Session::open(&now.target, Side::Target, &application);
        let opened = tokio::try_join!(source(), source(), target(), target(), target());
        let (old, old_watcher, new, new_watcher, ledger) = match opened {
            Ok(opened) => opened,
            Err(fault) => {
                lease.abort();
                return Err(fault);
            }
        };
        let run = Self {
            way: Way::from(now.direction),
            ledger: Ledger::new(Arc::new(ledger), &now.name),
            home,
            old: Arc::new(old),
            new: Arc::new(new),
            watchers: [old_watcher, new_watcher],
            switch,
            is_held,
            prepared: Prepared::default(),
            deadline: None,
            rests_since: None,
            pause: None,
            now,
        };
        Ok((run, lease))
    }

    fn fence(&self, side: Side) -> Fence<'_> {
        let session = if side == Side::Source { &*self.old } else { &*self.new };
        Fence::new(session, side, &self.now.name)
    }

    /// True if there is nothing to do in this step.
    pub(super) fn has_nothing_in(&self, step: Step) -> bool {
        let config = &self.now.cutover;
        match step {
            Step::Before => config.before.is_none(),
            Step::Switch => config.switch.is_none(),
            Step::Smoke => config.smoke.is_none(),
            Step::Pause | Step::Resume => config.pgbouncer.is_none(),
            Step::Compare => config.verify == InPause::Nothing,
            Step::Reverse => !self.switch.reverse,
            _ => false,
        }
    }

    /// Does a step, unless it takes too long, the operator doesn't want it any more, or somebody else has taken over.
    /// What decides is never left in the middle, and what is left to do then is done.
    pub(super) async fn step(&mut self, step: Step, stop: &mut Shutdown) -> Result<Note> {
        held(self.home.note_step(&self.switch, step.as_str()).await?)?;
        if matches!(step, Step::Decide | Step::Open | Step::Finish) {
            return self.do_step(step).await;
        }
        if step == Step::Pause || step == Step::Fence {
            self.deadline.get_or_insert(Instant::now() + self.now.cutover.pause);
        }
        let deadline = self.deadline.filter(|_| step.writes_rest());
        let (mut is_held, pause) = (self.is_held.clone(), self.now.cutover.pause);
        let too_late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.requested() => Err(Fault::person("interrupted, as asked")),
            _ = is_held.wait_for(|is_held| !is_held) => Err(taken_over()),
            done = self.do_step(step) => done,
            () = too_late => Err(Fault::person(format!(
                "writes would have rested for longer than {}",
                humantime::format_duration(pause)
            ))
            .remedy("look at what the step waited for; [cutover] pause says how long they may")),
        }
    }

    async fn do_step(&mut self, step: Step) -> Result<Note> {
        match step {
            Step::Check => Ok(None),
            Step::Verify => self.verify().await,
            Step::Prepare => self.prepare().await,
            Step::Before | Step::Switch | Step::Smoke => self.hook(step).await,
            Step::Guard => {
                let patience = Patience { wait: self.now.cutover.patience, ends_sessions: false };
                let watcher = &self.watchers[1];
                self.fence(Side::Target)
                    .close(&self.now, self.switch.term, patience, watcher)
                    .await
                    .map(|_| None)
            }
            Step::Pause => match &self.prepared.pooler {
                Some(pooler) => {
                    self.rests_since = Some(Instant::now());
                    pooler.pause(self.now.cutover.patience).await.map(|()| None)
                }
                None => Ok(None),
            },
            Step::Fence => self.close_old().await,
            Step::Drain => {
                let barrier = barrier::raise(&self.old).await?;
                barrier::pass(&self.ledger, &self.old, barrier).await?;
                Ok(Some(format!("up to {barrier}")))
            }
            Step::Turn => {
                enter(&self.now, &self.home, &self.switch, Phase::Cutover).await?;
                let before = &self.prepared.outside;
                Outside::refuse_new(&self.now, &self.old, &self.ledger, before).await.map(|()| None)
            }
            Step::Compare => compare::compare(&self.now, &self.old, &self.prepared.tables).await,
            Step::Sequences => {
                // Those of now: some may have come since the check.
                let sequences = Sequences::find(&self.old, &self.new).await?;
                let set = sequences.set(&self.old, &self.new, self.now.cutover.sequence_margin).await?;
                Ok(Some(format!("{set} of {}", sequences.len())))
            }
            Step::Restore => {
                self.prepared.at_once.run(&self.new, &self.now.name).await?;
                Ok(Some(format!("{} statements", self.prepared.at_once.len())))
            }
            Step::Reverse => match &self.prepared.turn {
                Some(turn) => turn.prepare().await.map(|at| Some(format!("from {at} on"))),
                None => Ok(None),
            },
            Step::Decide => self.decide().await,
            Step::Open => self.open_new().await,
            Step::Resume => {
                resume(&self.now).await?;
                self.pause = self.rests_since.map(|since| since.elapsed());
                Ok(None)
            }
            Step::Finish => self.finish().await,
        }
    }

    async fn verify(&self) -> Result<Note> {
        let fresh = self.ledger.last_of_everything().await?;
        if let Some((outcome, ago)) = &fresh
            && outcome == "same"
            && *ago <= self.now.cutover.verified_within
        {
            let ago = humantime::format_duration(Duration::from_secs(ago.as_secs()));
            return Ok(Some(format!("everything was the same {ago} ago")));
        }
        let report =
            verify::verify(&self.now, &verify::Options::default(), &verify::Progress::default()).await?;
        match report.outcome {
            Verified::Same => Ok(Some(report.headline())),
            Verified::Different | Verified::NotCompared => Err(Fault::person(format!(
                "the two sides could not be proved to be the same: {}",
                report.headline()
            ))
            .remedy("see cdc verify; cdc repair copies again what differs")),
        }
    }

    /// All that takes long. Nobody waits for it.
    async fn prepare(&mut self) -> Result<Note> {
        let Switch { id, term, .. } = self.switch;
        self.fence(Side::Target).make(&self.now, id, term).await?;
        self.fence(Side::Source).make(&self.now, id, term).await?;
        // Sessions that applications open from here on are to be able to write when they get there.
        self.fence(Side::Target).set_read_only(false).await?;
        self.prepared.outside = Outside::look(&self.now, &self.old, &self.ledger).await?;
        self.prepared.at_once = AtOnce::find(&self.new, &self.now.name).await?;
        self.analyze().await?;
        self.prepared.tables = compare::tables(&self.old, &self.ledger).await?;
        if let Some(pgbouncer) = &self.now.cutover.pgbouncer {
            self.prepared.pooler = Some(Pooler::open(pgbouncer, &self.now.name, Side::Source).await?);
        }
        if self.switch.reverse {
            let turn = Turn::open(&self.now).await?;
            turn.ready(limits::VERIFY_PATIENCE).await?;
            self.prepared.turn = Some(turn);
        }
        Ok(None)
    }

    /// Statistics of tables that never had any.
    async fn analyze(&self) -> Result<()> {
        let fault = |e| Fault::sql(Side::Target, "gathering statistics", &e);
        let rows = self
            .new
            .query(
                "SELECT pg_catalog.format('%I.%I', schemaname, relname) FROM pg_catalog.pg_stat_user_tables
                  WHERE last_analyze IS NULL AND last_autoanalyze IS NULL AND n_live_tup > 0 AND schemaname <> 'cdc'",
                &[],
            )
            .await
            .map_err(fault)?;
        for row in rows {
            self.new.batch_execute(&format!("ANALYZE {}", row.get::<_, &str>(0))).await.map_err(fault)?;
        }
        Ok(())
    }

    async fn hook(&self, step: Step) -> Result<Note> {
        let config = &self.now.cutover;
        let command = match step {
            Step::Before => &config.before,
            Step::Switch => &config.switch,
            _ => &config.smoke,
        };
        let Some(command) = command else { return Ok(None) };
        let end = |side| if self.way.new_side() == side { &self.now.target } else { &self.now.source };
        let mut variables = vec![
            ("CDC_STEP", step.as_str().to_owned()),
            ("CDC_NAME", self.now.name.clone()),
            ("CDC_DIRECTION", self.way.as_str().to_owned()),
            ("CDC_SOURCE", end(Side::Source).to_string()),
            ("CDC_TARGET", end(Side::Target).to_string()),
            ("CDC_NEW_SIDE", self.way.new_side().to_string()),
        ];
        variables.extend(self.pause.map(|pause| ("CDC_PAUSE_MS", pause.as_millis().to_string())));
        let key = format!("[cutover] {}", step.as_str());
        let hook = Hook { name: step.as_str(), key: &key, command, deadline: config.hook_timeout };
        hook.run(&variables, &[]).await.map(|()| None)
    }

    async fn close_old(&mut self) -> Result<Note> {
        let config = &self.now.cutover;
        let patience = Patience { wait: config.patience, ends_sessions: config.end_sessions };
        let fence = self.fence(Side::Source);
        let since = fence.close(&self.now, self.switch.term, patience, &self.watchers[0]).await?;
        self.rests_since.get_or_insert(since);
        Ok(None)
    }

    /// The last look, and the decision. If the answer to that is lost, it is asked for, for a moment.
    async fn decide(&mut self) -> Result<Note> {
        if !self.fence(Side::Source).is_closed(&self.now).await? {
            return Err(Fault::person(
                "a table has come that is not fenced, or somebody has opened the fence",
            )
            .on(Side::Source)
            .remedy("run this again; no DDL should run meanwhile"));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Fault::person("writes would have rested for too long").remedy("run this again"));
        }
        let fault = match timeout(limits::CUTOVER_ANSWER, self.home.decide_switch(&self.switch)).await {
            Ok(Ok(is_decided)) => return held(is_decided).map(|()| None),
            Ok(Err(fault)) if !fault.is_unreachable() => return Err(fault),
            Ok(Err(fault)) => fault,
            Err(_) => Fault::unreachable(self.now.home().1, "the decision was not answered"),
        };
        tracing::warn!("whether it is decided is not known: {fault}");
        let asked = timeout(limits::CUTOVER_ANSWER, async {
            loop {
                if let Ok(home) = home(&self.now).await
                    && let Ok(Some(switch)) = home.last_switch().await
                {
                    return (home, switch.is_decided);
                }
                sleep(limits::FEEDBACK_DELAY).await;
            }
        });
        // What isn't known is given up: whoever finds the decision later asks the old side first.
        let Ok((home, is_decided)) = asked.await else { return Err(fault) };
        self.home = home;
        if is_decided { Ok(None) } else { Err(fault) }
    }

    async fn open_new(&mut self) -> Result<Note> {
        let (now, term) = (self.now.clone(), self.switch.term);
        for_a_while(limits::SILENCE, async || {
            if self.new.is_closed() {
                self.new = Arc::new(Session::open(&now.target, Side::Target, &application(&now)).await?);
            }
            self.fence(Side::Target).open(term, true).await
        })
        .await?;
        self.pause = self.rests_since.map(|since| since.elapsed());
        held(self.home.note_opened(&self.switch).await?)?;
        Ok(None)
    }

    /// What the old side needs from now on, and what the new side still lacks.
    async fn finish(&self) -> Result<Note> {
        settle(&self.now, &self.home, &self.switch).await?;
        self.fence(Side::Source).set_read_only(true).await?;
        let missing = schema::put_back(&self.new, &[], &self.now.name, Until::Cutover).await?;
        for missing in &missing {
            tracing::warn!(table = %missing.table, object = missing.object, "not put back: {}", missing.fault);
        }
        self.fence(Side::Target).open(self.switch.term, false).await?;
        let pause = self.pause.and_then(|pause| i64::try_from(pause.as_millis()).ok());
        held(self.home.conclude_switch(&self.switch, "switched", None, pause).await?)?;
        self.fence(Side::Target).switch_off().await;
        let mut notes = Vec::new();
        if !missing.is_empty() {
            notes.push(format!("not put back: {}", missing.len()));
        }
        // DDL that was under way is seen when it is committed.
        if self.fence(Side::Source).is_closed(&self.now).await.is_ok_and(|is_closed| !is_closed) {
            tracing::warn!(
                "a table has come to the old side that is not fenced: what is in it is missing on the new side"
            );
            notes.push("a table has come to the old side that is not fenced".to_owned());
        }
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    /// Fences the new side again. True if nothing was written there since it was opened.
    pub(super) async fn close_new(&self) -> Result<bool> {
        let patience = Patience { wait: self.now.cutover.patience, ends_sessions: true };
        let fence = self.fence(Side::Target);
        fence.close(&self.now, self.switch.term, patience, &self.watchers[1]).await?;
        Ok(fence.state().await?.is_some_and(|state| state.written == 0))
    }
}

/// Has `PgBouncer` go on; what is held back waits for it, so that is tried for a while.
pub(super) async fn resume(now: &Config) -> Result<()> {
    for_a_while(limits::SLOT_FREE, async || undo::resume(now).await).await
}

/// The ledger that knows of switches, on a session of its own.
pub(super) async fn home(config: &Config) -> Result<Ledger> {
    let (info, side) = config.home();
    let session = Session::open(info, side, &application(config)).await?;
    Ok(Ledger::new(Arc::new(session), &config.name))
}

/// Renews the lease until this is aborted; says so when it may be somebody else's.
async fn hold(now: Config, switch: Switch, is_held: watch::Sender<bool>) {
    let mut ledger = None;
    let mut renewed_at = Instant::now();
    while renewed_at.elapsed() < LEASE {
        let renewed = timeout(RENEWAL, async {
            if ledger.is_none() {
                ledger = Some(home(&now).await?);
            }
            match &ledger {
                Some(ledger) => ledger.renew_switch(&switch, LEASE).await,
                None => Ok(true),
            }
        });
        match renewed.await {
            Ok(Ok(true)) => renewed_at = Instant::now(),
            Ok(Ok(false)) => break,
            Ok(Err(_)) | Err(_) => ledger = None,
        }
        sleep(RENEWAL).await;
    }
    is_held.send_replace(false);
    // Whoever waits for the news has to find the sender.
    std::future::pending::<()>().await;
}

/// The parts of a comparison that fits into the pause.
pub(super) fn options(parts: Option<Vec<Part>>, patience: Duration) -> verify::Options {
    verify::Options { only: parts, live: Live::No, patience, ..verify::Options::default() }
}
