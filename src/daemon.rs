//! The daemon's lifecycle: the lock, starts and restarts, the stop. What it runs is an engine.
//!
//! ```text
//!           ┌───────────────◄── 30 s ── blocked (a person is needed) ◄──┐
//!           ▼                                                          │
//! lock ─► prepare ─► engine ─► asked to stop ─► exit 0                 │
//!           ▲   │        └── fault ─────────────────────────────────────┤
//!           │   └── refused at the first start ─► exit 2               │
//!           └───────────────◄── backoff ── retrying (it passes) ◄───────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::Config;
use crate::connect::Session;
use crate::engine::{self, Ended, Engine, LargeRows};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{DaemonState, Ledger, Severity, lock_key};
use crate::limits;
use crate::lsn::Lsn;
use crate::observe::{Screen, show_copy, tell_service};
use crate::retry::Delays;
use crate::schema::drift::Drift;
use crate::service::Service;
use crate::shutdown::Shutdown;
use crate::verify::verify_by_itself;

/// Replicates until it is asked to stop.
///
/// # Errors
/// With the refusal, if the first start fails for a reason that only a person can mend. Later faults
/// are incidents: the daemon lives on and tries again.
pub async fn run(config: &Config, screen: &Screen, service: &Service, mut shutdown: Shutdown) -> Result<()> {
    let turning = service.pulse().of("the daemon's loop");
    let mut daemon = Daemon {
        config,
        service,
        guard: None,
        earlier_guards: Vec::new(),
        began_at: None,
        delays: Delays::default(),
        last: None,
        unrecorded: None,
        large_rows: LargeRows::default(),
        repairs: Vec::new(),
    };
    while !shutdown.is_requested() {
        let started = tokio::select! {
            biased;
            () = shutdown.requested() => break,
            started = turning.during(daemon.start()) => started,
        };
        match started {
            Ok((mut engine, ledger)) => {
                let since = Instant::now();
                let shown = tokio::spawn(show_copy(ledger.clone(), screen.clone()));
                let (skips, repairs) = (engine.skips().to_vec(), daemon.repairs.clone());
                let told = tell_service(config.clone(), ledger.clone(), engine.source(), service.clone());
                let told = tokio::spawn(told);
                let verified = tokio::spawn(verify_by_itself(config.clone(), ledger.clone()));
                let ended = engine.run(&mut shutdown, &turning).await;
                told.abort();
                verified.abort();
                shown.abort();
                let _ = told.await;
                // Until it has cleared its part of the terminal.
                let _ = shown.await;
                match ended {
                    Ended::Asked => break,
                    Ended::Failed(fault) => {
                        if since.elapsed() > limits::BACKOFF_LONGEST {
                            daemon.delays.reset();
                        }
                        let fault = tokio::select! {
                            () = shutdown.requested() => break,
                            fault = turning.during(daemon.large_rows.explain(config, &ledger, fault)) => fault,
                        };
                        let until = Instant::now() + turning.during(daemon.report(fault)).await;
                        let drift = engine.drift();
                        let pause = async {
                            engine.hold(until).await;
                            drop(engine);
                            tokio::time::sleep_until(until).await;
                        };
                        tokio::select! {
                            () = shutdown.requested() => {}
                            () = turning.during(pause) => {}
                            () = asked_to_skip(&ledger, &skips) => {}
                            () = asked_to_repair(&ledger, &repairs) => {}
                            () = schema_has_changed(&drift) => {}
                        }
                    }
                }
            }
            Err(fault) if daemon.began_at.is_none() && fault.reaction() != Reaction::Retry => {
                daemon.refuse(&fault).await;
                return Err(fault);
            }
            Err(fault) => {
                let pause = turning.during(daemon.report(fault)).await;
                let ledger = daemon.guard.as_ref().map(|guard| guard.ledger.clone());
                let asked = async {
                    match &ledger {
                        Some(ledger) => asked_to_repair(ledger, &daemon.repairs).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = shutdown.requested() => {}
                    () = turning.during(tokio::time::sleep(pause)) => {}
                    () = asked => {}
                }
            }
        }
    }
    tracing::info!("stopping as asked");
    daemon.leave(None).await;
    Ok(())
}

struct Daemon<'a> {
    config: &'a Config,
    service: &'a Service,
    guard: Option<Guard>,
    /// Sessions of ours that held the lock, by pid and start: a connection that was lost half-way
    /// may still hold it on the server.
    earlier_guards: Vec<(i32, std::time::SystemTime)>,
    /// Where the stream began last. Once it has, what fails is an incident, not a refusal.
    began_at: Option<Lsn>,
    delays: Delays,
    last: Option<Last>,
    /// A fault that could not be written into the ledger when it happened.
    unrecorded: Option<(Severity, Fault)>,
    large_rows: LargeRows,
    /// The repairs that were open when it started last: a start takes up what it can.
    repairs: Vec<i64>,
}

/// The session to the target that holds the lock which makes this the only daemon of its migration.
struct Guard {
    session: Arc<Session>,
    ledger: Ledger,
    started_at: std::time::SystemTime,
}

/// The fault seen last, to notice that it comes again.
struct Last {
    text: String,
    times: u32,
    logged_at: Instant,
}

/// A fault that isn't known to pass is a person's after this many times in a row.
const TIMES_UNTIL_BLOCKED: u32 = 5;

impl Daemon<'_> {
    /// Takes the lock if it isn't ours yet, and prepares an engine.
    async fn start(&mut self) -> Result<(Engine, Ledger)> {
        let (session, ledger) = self.lock().await?;
        self.say(DaemonState::Starting, None).await;
        self.repairs = open_repairs(&ledger).await?;
        let prepared = engine::prepare(self.config, &session, &ledger).await?;
        if let Some((severity, fault)) = self.unrecorded.take() {
            ledger.record_incident(severity, &fault).await?;
        }
        let checkpoint = prepared.checkpoint();
        if self.began_at.is_some_and(|before| before < checkpoint) {
            // What failed has passed: if the same fault comes again, it comes anew.
            self.last = None;
        }
        self.began_at = Some(checkpoint);
        self.say(DaemonState::Streaming, None).await;
        tracing::info!("streaming");
        self.service.ready();
        let engine = Engine::new(prepared, session, &ledger, &self.config.slot(), self.service.pulse());
        Ok((engine, ledger))
    }

    /// Waits for the lock. Two daemons of one migration are harmless (the epoch sees to that), but
    /// only one can use the slot.
    async fn lock(&mut self) -> Result<(Arc<Session>, Ledger)> {
        if let Some(guard) = &self.guard {
            if !guard.session.is_closed() && answers(&guard.session).await {
                return Ok((Arc::clone(&guard.session), guard.ledger.clone()));
            }
            self.drop_guard();
        }
        let session =
            Session::open(&self.config.target, Side::Target, &format!("cdc_{} guard", self.config.name))
                .await?;
        let fault = |e| Fault::sql(Side::Target, "taking the daemon's lock", &e);
        let started_at = session
            .query_one(
                "SELECT backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()",
                &[],
            )
            .await
            .map_err(fault)?
            .get(0);
        for (pid, started_at) in &self.earlier_guards {
            session
                .execute(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                      WHERE pid = $1 AND backend_start = $2",
                    &[pid, started_at],
                )
                .await
                .map_err(fault)?;
        }
        self.earlier_guards.clear();
        let mut is_waiting = false;
        while !session
            .query_one(
                "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))",
                &[&lock_key(&self.config.name)],
            )
            .await
            .map_err(fault)?
            .get::<_, bool>(0)
        {
            if !is_waiting {
                tracing::warn!(
                    name = self.config.name,
                    "another daemon of this migration is running; waiting to take over when it ends"
                );
                self.service.status("waiting to take over: another daemon of this migration is running");
                self.service.ready();
                is_waiting = true;
            }
            tokio::time::sleep(limits::CLOCK_INTERVAL).await;
        }
        let session = Arc::new(session);
        let ledger = Ledger::new(Arc::clone(&session), &self.config.name);
        self.guard = Some(Guard { session: Arc::clone(&session), ledger: ledger.clone(), started_at });
        Ok((session, ledger))
    }

    /// Gives the guard's session up; the server may not have noticed that it is lost.
    fn drop_guard(&mut self) {
        if let Some(guard) = self.guard.take() {
            self.earlier_guards.push((guard.session.backend_pid(), guard.started_at));
        }
    }

    /// Tells of a fault, in the log and in the ledger, and returns how long to wait.
    async fn report(&mut self, fault: Fault) -> Duration {
        let text = fault.to_string();
        let (times, logged_at) = match &self.last {
            Some(last) if last.text == text => (last.times + 1, Some(last.logged_at)),
            _ => (1, None),
        };
        let mut severity = Severity::of(&fault);
        if severity == Severity::Retrying && times >= TIMES_UNTIL_BLOCKED && !fault.passes() {
            severity = Severity::Blocked;
        }
        let is_new = logged_at.is_none_or(|at| at.elapsed() >= limits::LOG_INTERVAL);
        match severity {
            Severity::Blocked if is_new => tracing::error!("blocked: {fault}"),
            Severity::Retrying | Severity::Warning if is_new => tracing::warn!("trying again: {fault}"),
            _ => tracing::debug!("again: {fault}"),
        }
        let logged_at = if is_new { Instant::now() } else { logged_at.unwrap_or_else(Instant::now) };
        self.last = Some(Last { text: text.clone(), times, logged_at });
        if fault.side() == Some(Side::Target) && fault.is_unreachable() {
            // Waiting for answers on it would only delay the next attempt.
            self.drop_guard();
        }
        // The incident first: whoever sees that the daemon is blocked finds out why.
        let recorded = match &self.guard {
            Some(guard) => answered(guard.ledger.record_incident(severity, &fault)).await.is_some(),
            None => false,
        };
        if !recorded {
            self.unrecorded = Some((severity, fault));
        }
        let state = match severity {
            Severity::Blocked => DaemonState::Blocked,
            Severity::Retrying | Severity::Warning => DaemonState::Retrying,
        };
        self.say(state, Some(&text)).await;
        // What is tried again doesn't hold up the boot.
        self.service.ready();
        match severity {
            Severity::Blocked => limits::BLOCKED_INTERVAL,
            Severity::Retrying | Severity::Warning => self.delays.next_delay(),
        }
    }

    /// Writes down a refusal, if there is a ledger already, for whoever asks for the status later.
    async fn refuse(&mut self, fault: &Fault) {
        if let Some(guard) = &self.guard {
            answered(async {
                if guard.ledger.exists().await? {
                    guard.ledger.record_incident(Severity::Blocked, fault).await?;
                }
                Ok(())
            })
            .await;
        }
        self.leave(Some(&fault.to_string())).await;
    }

    /// Says that the daemon has stopped, and lets another one take over at once.
    async fn leave(&mut self, why: Option<&str>) {
        let farewell = async {
            self.say(DaemonState::Stopped, why).await;
            if let Some(guard) = &self.guard {
                let unlock = "SELECT pg_catalog.pg_advisory_unlock_all()";
                if let Err(error) = guard.session.batch_execute(unlock).await {
                    tracing::debug!("giving the daemon's lock back: {error}");
                }
            }
        };
        // The server frees the lock anyway when it notices that we are gone.
        if tokio::time::timeout(limits::CLOSE_TIMEOUT, farewell).await.is_err() {
            tracing::debug!("the target doesn't answer");
        }
    }

    /// Tells what the daemon is doing, the ledger too if it is there and can be reached.
    async fn say(&mut self, state: DaemonState, detail: Option<&str>) {
        // While it tries again, why it has to is what an operator wants to see.
        if state != DaemonState::Starting || self.last.is_none() {
            let doing = state.as_str();
            self.service.status(&detail.map_or(doing.to_owned(), |why| format!("{doing}; {why}")));
        }
        if let Some(guard) = &self.guard {
            // Before the first start has made it there is no ledger, and nobody to tell.
            answered(async {
                if guard.ledger.exists().await? {
                    guard.ledger.set_state(state, detail).await?;
                }
                Ok(())
            })
            .await;
        }
    }
}

/// Waits for a small answer of the target for as long as an honest one takes. A failure is only
/// logged: what matters meets the same failure and says so.
async fn answered<T>(question: impl Future<Output = Result<T>>) -> Option<T> {
    match tokio::time::timeout(limits::SILENCE, question).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(fault)) => {
            tracing::debug!("{fault}");
            None
        }
        Err(_) => None,
    }
}

/// Returns when there is another transaction to skip than these.
async fn asked_to_skip(ledger: &Ledger, known: &[Lsn]) {
    let is_known = |skips: Vec<Lsn>| skips.iter().all(|lsn| known.contains(lsn));
    while answered(ledger.skips_to_come()).await.is_none_or(is_known) {
        tokio::time::sleep(limits::CLOCK_INTERVAL).await;
    }
}

/// Returns when something else than this is to be copied again.
async fn asked_to_repair(ledger: &Ledger, known: &[i64]) {
    let is_known = |repairs: Vec<i64>| repairs.iter().all(|id| known.contains(id));
    while answered(open_repairs(ledger)).await.is_none_or(is_known) {
        tokio::time::sleep(limits::CLOCK_INTERVAL).await;
    }
}

/// Returns when a schema isn't as it was when it was looked at last.
async fn schema_has_changed(drift: &Mutex<Drift>) {
    while answered(async { drift.lock().await.has_changed().await }).await != Some(true) {
        tokio::time::sleep(limits::SCHEMA_INTERVAL).await;
    }
}

/// The numbers of the repairs that aren't over. One that has been begun since the last start may have been begun
/// when the stream stood already: only the next start's stream knows of it.
async fn open_repairs(ledger: &Ledger) -> Result<Vec<i64>> {
    Ok(ledger.open_repairs().await?.into_iter().map(|repair| repair.id).collect())
}

async fn answers(session: &Session) -> bool {
    matches!(tokio::time::timeout(limits::SILENCE, session.simple_query("")).await, Ok(Ok(_)))
}
