//! The stream that the comparison goes along with: it must flow, and get to a position.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{DaemonNow, Ledger};
use crate::limits;
use crate::lsn::Lsn;

/// The daemon's stream, seen through the ledger.
pub(super) struct Stream {
    ledger: Ledger,
    /// For what the source is asked meanwhile.
    source: Session,
    /// How long it may make no progress.
    patience: Duration,
    /// Nothing more is to be expected of it.
    is_over: AtomicBool,
}

impl Stream {
    /// The stream of this migration; it must flow.
    pub(super) async fn open(config: &Config, ledger: &Ledger, patience: Duration) -> Result<Self> {
        let application = format!("cdc_{} verify", config.name);
        let (source, target) = tokio::try_join!(
            Session::open(&config.source, Side::Source, &application),
            Session::open(&config.target, Side::Target, &application),
        )?;
        // What it commits is to be flushed here; a synchronous standby needn't have it.
        source
            .batch_execute("SET synchronous_commit = local")
            .await
            .map_err(|e| Fault::sql(Side::Source, "setting up the session", &e))?;
        let stream =
            Self { ledger: ledger.on(Arc::new(target)), source, patience, is_over: AtomicBool::new(false) };
        match stream.look().await? {
            now if now.is_running && now.state == "streaming" => Ok(stream),
            now => Err(not_streaming(&now)),
        }
    }

    /// The migration's name.
    pub(super) fn name(&self) -> &str {
        self.ledger.name()
    }

    /// The ledger, on a session of its own.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    async fn look(&self) -> Result<DaemonNow> {
        match timeout(limits::SILENCE, self.ledger.daemon_now()).await {
            Ok(now) => Ok(now?.unwrap_or_default()),
            Err(_) => Err(silent(Side::Target)),
        }
    }

    /// Waits until the target has everything that was committed below this position.
    ///
    /// # Errors
    /// If the stream has ended, or makes no progress.
    pub(super) async fn passed(&self, wanted: Lsn) -> Result<()> {
        let passed = self.pass(wanted).await;
        self.is_over.fetch_or(passed.is_err(), Relaxed);
        passed
    }

    /// True once it has failed to get to a position: the next one would be waited for in vain, too.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    async fn pass(&self, wanted: Lsn) -> Result<()> {
        let began = Instant::now();
        let (mut reached, mut progress_at, mut is_nudged) = (None, began, false);
        loop {
            let now = self.look().await?;
            if now.checkpoint.is_some_and(|lsn| lsn >= wanted) {
                return Ok(());
            }
            self.must_flow(&now)?;
            if now.checkpoint != reached {
                (reached, progress_at) = (now.checkpoint, Instant::now());
            }
            if progress_at.elapsed() > self.patience {
                return Err(Fault::person(format!(
                    "the stream has made no progress for {} s (it is at {}, and {wanted} is waited for)",
                    self.patience.as_secs(),
                    reached.unwrap_or_default()
                ))
                .remedy("see what it waits for with cdc status, then verify again"));
            }
            if !is_nudged && began.elapsed() > limits::VERIFY_NUDGE {
                is_nudged = true;
                self.nudge().await?;
            }
            sleep(limits::VERIFY_POLL).await;
        }
    }

    /// Has the source flush its log: what a reader leaves there (it cleans pages) is flushed with the next
    /// commit, and on an idle source that can take a quarter of a minute.
    async fn nudge(&self) -> Result<()> {
        let sql = "SELECT pg_catalog.pg_logical_emit_message(true, 'cdc', 'verify')";
        match timeout(limits::SILENCE, self.source.execute(sql, &[])).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Fault::sql(Side::Source, "writing a message into the log", &error)),
            Err(_) => Err(silent(Side::Source)),
        }
    }

    fn must_flow(&self, now: &DaemonNow) -> Result<()> {
        // What passes by itself is waited for; `passed` has an eye on how long that takes.
        match now.state.as_str() {
            "streaming" | "retrying" | "starting" if now.is_running => Ok(()),
            _ => Err(not_streaming(now)),
        }
    }

    /// Returns when the stream has ended, or one of the servers doesn't answer any more.
    pub(super) async fn ended(&self) -> Fault {
        let mut streamed_at = Instant::now();
        loop {
            let looked = self.look().await.and_then(|now| self.must_flow(&now).map(|()| now));
            match looked {
                Err(fault) => return fault,
                Ok(now) if now.state == "streaming" => streamed_at = Instant::now(),
                Ok(now) if streamed_at.elapsed() > self.patience => return not_streaming(&now),
                Ok(_) => {}
            }
            match timeout(limits::SILENCE, self.source.simple_query("")).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Fault::sql(Side::Source, "asking whether it is there", &error),
                Err(_) => return silent(Side::Source),
            }
            sleep(limits::TURN).await;
        }
    }
}

fn silent(side: Side) -> Fault {
    Fault::unreachable(side, format!("the server has not answered for {} s", limits::SILENCE.as_secs()))
}

fn not_streaming(now: &DaemonNow) -> Fault {
    let what = match (now.is_running, now.state.as_str()) {
        (false, _) => "no daemon is running".to_owned(),
        (true, "blocked") => "the daemon is blocked".to_owned(),
        (true, state) => format!("the daemon is not streaming (it says: {state})"),
    };
    Fault::person(format!("{what}: rows can be compared only while the target follows the source"))
        .remedy("see cdc status; verify when it is streaming")
}
