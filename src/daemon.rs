//! The daemon's lifecycle: the lock, starts and restarts, the stop. What it runs is an engine.
//!
//! ```text
//!           ┌───────────────◄── 30 s ── blocked (a person is needed) ◄──┐
//!           ▼                                                          │
//! lock ─► prepare ─► engine ─► asked to stop ─► exit 0                 │
//!           ▲   │     │  └── fault ─────────────────────────────────────┤
//!           │   │     └── the direction has turned ─► prepare           │
//!           │   └── refused at the first start ─► exit 2               │
//!           └───────────────◄── backoff ── retrying (it passes) ◄───────┘
//! ```
//!
//! Which way the rows go is asked at each start where it is known ([`Config::home`]), and watched from then on. In
//! reverse the ledger is the other database's, and there is a lock there, too: whoever asks that ledger finds the daemon.

mod guard;
mod unrecorded;

use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::config::{Config, Direction};
use crate::cutover::{reverse, undo};
use crate::engine::{self, Ended, Engine, LargeRows};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Course, DaemonState, Ledger, Severity};
use crate::limits;
use crate::lsn::Lsn;
use crate::observe::{Screen, Seen, show_copy, tell_service};
use crate::pulse::Turning;
use crate::retry::Delays;
use crate::schema::drift::Drift;
use crate::service::Service;
use crate::shutdown::Shutdown;
use crate::verify::verify_by_itself;
use guard::Guard;
use unrecorded::Unrecorded;

/// Replicates until it is asked to stop.
///
/// # Errors
/// With the refusal, if the first start fails for a reason that only a person can mend. Later faults
/// are incidents: the daemon lives on and tries again.
pub async fn run(
    config: &Config,
    screen: &Screen,
    service: &Service,
    seen: watch::Receiver<Seen>,
    mut shutdown: Shutdown,
) -> Result<()> {
    let turning = service.pulse().of("the daemon's loop");
    let mut daemon = Daemon {
        now: config.clone(),
        service,
        seen,
        home: Guard::default(),
        away: Guard::default(),
        began_at: None,
        delays: Delays::default(),
        last: None,
        unrecorded: Unrecorded::default(),
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
            Ok(Some((engine, ledger))) => {
                daemon.stream(engine, &ledger, screen, &turning, &mut shutdown).await
            }
            Ok(None) => {
                tracing::info!("the migration has ended: nothing is replicated any more");
                daemon.leave(None).await;
                return Ok(());
            }
            Err(fault) if daemon.began_at.is_none() && fault.reaction() != Reaction::Retry => {
                daemon.refuse(&fault).await;
                return Err(fault);
            }
            Err(fault) => {
                let pause = turning.during(daemon.report(fault)).await;
                let ledger = daemon.ledger().cloned();
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
                    () = daemon.turned() => {}
                }
            }
        }
    }
    tracing::info!("stopping as asked");
    daemon.leave(None).await;
    Ok(())
}

struct Daemon<'a> {
    /// As the migration runs, as far as is known.
    now: Config,
    service: &'a Service,
    /// What whoever looks at both ends has seen.
    seen: watch::Receiver<Seen>,
    /// The lock on the database that knows the direction.
    home: Guard,
    /// The lock on the other one, in reverse.
    away: Guard,
    /// Where the stream began last. Once it has, what fails is an incident, not a refusal.
    began_at: Option<Lsn>,
    delays: Delays,
    last: Option<Last>,
    unrecorded: Unrecorded,
    large_rows: LargeRows,
    /// The repairs that were open when it started last: a start takes up what it can.
    repairs: Vec<i64>,
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
    /// Takes the lock if it isn't ours yet, and prepares an engine; `None` if the migration has ended.
    async fn start(&mut self) -> Result<Option<(Engine, Ledger)>> {
        let (session, home) = self.home.lock(&self.now.name, self.now.home(), self.service).await?;
        while undo::rests(&self.now, &home).await? {
            tokio::time::sleep(limits::CUTOVER_WATCH).await;
        }
        let course = home.course().await?;
        self.face(course.direction);
        let (session, ledger) = match course.direction {
            Direction::Forward => (session, home.clone()),
            Direction::Reverse => {
                self.away.lock(&self.now.name, (&self.now.target, Side::Target), self.service).await?
            }
        };
        self.now.tables.left_alone = ledger.left_alone().await?;
        self.say(DaemonState::Starting, None).await;
        reverse::clear(&self.now, &home).await?;
        if course.is_over {
            return Ok(None);
        }
        self.repairs = open_repairs(&ledger).await?;
        let prepared = engine::prepare(&self.now, &session, &ledger).await?;
        self.unrecorded.record(&ledger).await?;
        let checkpoint = prepared.checkpoint();
        if self.began_at.is_some_and(|before| before < checkpoint) {
            // What failed has passed: if the same fault comes again, it comes anew.
            self.last = None;
        }
        self.began_at = Some(checkpoint);
        self.say(DaemonState::Streaming, None).await;
        tracing::info!(direction = self.now.direction.as_str(), "streaming");
        self.service.ready();
        let engine = Engine::new(prepared, session, &ledger, &self.now.slot(), self.service.pulse());
        Ok(Some((engine, ledger)))
    }

    /// Goes over to this direction.
    fn face(&mut self, direction: Direction) {
        if direction == self.now.direction {
            return;
        }
        self.now = self.now.facing(direction);
        tracing::info!(source = %self.now.source, target = %self.now.target, "the direction is {}", direction.as_str());
        self.away = Guard::default();
        // What was seen in the other one says nothing of this one.
        (self.last, self.unrecorded, self.large_rows) = (None, Unrecorded::default(), LargeRows::default());
        self.began_at = self.began_at.map(|_| Lsn::ZERO);
    }

    /// The ledger of the direction, if it can be used.
    fn ledger(&self) -> Option<&Ledger> {
        match self.now.direction {
            Direction::Forward => self.home.ledger(),
            Direction::Reverse => self.away.ledger(),
        }
    }

    /// Returns when the direction is another one, or can't be known any more, and when a switch has to be looked after.
    async fn turned(&self) {
        let Some(home) = self.home.ledger() else { return std::future::pending().await };
        let is_as_known = |course: Course| course.direction == self.now.direction && !course.is_over;
        let goes_on = async || Ok(is_as_known(home.course().await?) && !undo::needs_attention(home).await?);
        while answered(goes_on()).await.unwrap_or(true) {
            let is_lost = home.session().is_closed();
            // If that is the end of what runs, too, it says why.
            tokio::time::sleep(if is_lost { limits::HEALTH_INTERVAL } else { limits::CLOCK_INTERVAL }).await;
            if is_lost {
                return;
            }
        }
    }

    /// Streams until it is asked to stop, the direction turns, or something fails; then waits until it is time to start
    /// again.
    async fn stream(
        &mut self,
        mut engine: Engine,
        ledger: &Ledger,
        screen: &Screen,
        turning: &Turning,
        shutdown: &mut Shutdown,
    ) {
        let since = Instant::now();
        let shown = tokio::spawn(show_copy(ledger.clone(), screen.clone()));
        let (skips, repairs) = (engine.skips().to_vec(), self.repairs.clone());
        let told = tokio::spawn(tell_service(self.seen.clone(), self.service.clone()));
        let verified = tokio::spawn(verify_by_itself(self.now.clone(), ledger.clone()));
        let ended = tokio::select! {
            ended = engine.run(shutdown, turning) => Some(ended),
            () = self.turned() => None,
        };
        told.abort();
        verified.abort();
        shown.abort();
        let _ = told.await;
        // Until it has cleared its part of the terminal.
        let _ = shown.await;
        let Some(Ended::Failed(fault)) = ended else { return };
        if since.elapsed() > limits::BACKOFF_LONGEST {
            self.delays.reset();
        }
        let fault = tokio::select! {
            () = shutdown.requested() => return,
            fault = turning.during(self.large_rows.explain(&self.now, ledger, fault)) => fault,
        };
        let until = Instant::now() + turning.during(self.report(fault)).await;
        let drift = engine.drift();
        let pause = async {
            engine.hold(until).await;
            drop(engine);
            tokio::time::sleep_until(until).await;
        };
        tokio::select! {
            () = shutdown.requested() => {}
            () = turning.during(pause) => {}
            () = asked_to_skip(ledger, &skips) => {}
            () = asked_to_repair(ledger, &repairs) => {}
            () = schema_has_changed(&drift) => {}
            () = self.turned() => {}
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
        if fault.is_unreachable() {
            // Waiting for answers on it would only delay the next attempt.
            let home = self.now.home().1;
            match fault.side() {
                Some(side) if side == home => self.home.let_go(),
                Some(Side::Target) => self.away.let_go(),
                Some(Side::Source) | None => {}
            }
        }
        // The incident first: whoever sees that the daemon is blocked finds out why.
        let recorded = match self.ledger() {
            Some(ledger) => answered(ledger.record_incident(severity, &fault)).await.is_some(),
            None => false,
        };
        if !recorded {
            self.unrecorded.note(severity, fault);
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
        if let Some(ledger) = self.ledger() {
            answered(async {
                if ledger.exists().await? {
                    ledger.record_incident(Severity::Blocked, fault).await?;
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
            self.away.unlock().await;
            self.home.unlock().await;
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
        if let Some(ledger) = self.ledger() {
            // Before the first start has made it there is no ledger, and nobody to tell.
            answered(async {
                if ledger.exists().await? {
                    ledger.set_state(state, detail).await?;
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
