//! The migration as it is watched: a daemon, what `cdc status` says of it, and what that was at worst.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::screen::Screen;
use super::servers::Servers;
use crate::chunk::{ChunkId, Snapshot};
use crate::config::{Arguments, Config};
use crate::connect::{Environment, Session};
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::observe::{Limits, Status, Verdict, status};

/// How often the status is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How many incidents are shown when something fails.
const INCIDENTS: i64 = 10;

/// How long nothing may move before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The worst that was seen since this was set to nothing.
#[derive(Clone, Copy, Default)]
pub(super) struct Worst {
    pub(super) lag_seconds: f64,
    pub(super) retained_bytes: u64,
}

/// A finished chunk, and the snapshot that its rows were read under: a chunk that is copied again
/// has another one.
pub(super) type Finished = (ChunkId, Snapshot);

/// A daemon between the two servers.
pub(super) struct Migration {
    arguments: Arguments,
    config: Config,
    daemon: Daemon,
    pub(super) worst: Worst,
}

impl Migration {
    /// Starts the daemon.
    pub(super) fn start(servers: &Servers) -> Result<Self> {
        let arguments = servers.arguments();
        let config = Config::load(&arguments, &Environment::empty())?;
        let daemon = Daemon::start(&arguments)?;
        Ok(Self { arguments, config, daemon, worst: Worst::default() })
    }

    /// The daemon's process id.
    pub(super) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Watches until the status is as wanted.
    pub(super) async fn until(
        &mut self,
        screen: &mut Screen,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let mut before = (None, None);
        let mut moved = Instant::now();
        loop {
            let status = self.look(screen).await?;
            if wanted(&status) {
                return Ok(status);
            }
            self.refuse_trouble(&status)?;
            let now = (status.checkpoint.as_ref().map(|c| c.lsn), status.copy.as_ref().map(|c| c.rows));
            if now != before {
                (before, moved) = (now, Instant::now());
            }
            if moved.elapsed() > PATIENCE {
                return Err(self.failed(&format!("nothing has moved for {} s\n{status}", PATIENCE.as_secs())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Watches for this long, whether the daemon lives or not.
    pub(super) async fn pause(&mut self, screen: &mut Screen, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            self.look(screen).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts the daemon again.
    pub(super) fn start_again(&mut self) -> Result<()> {
        self.daemon = Daemon::start(&self.arguments)?;
        Ok(())
    }

    /// Asks the daemon to stop, which it should do with exit status 0.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let status = self.daemon.stop().await?;
        if status.success() { Ok(()) } else { Err(self.failed(&format!("the daemon ended with {status}"))) }
    }

    /// The chunks whose rows are on the target.
    pub(super) async fn finished_chunks(&self) -> Result<Vec<Finished>> {
        let session = Session::open(&self.config.target, Side::Target, "cdc demo").await?;
        let ledger = Ledger::new(Arc::new(session), &self.config.name);
        let tables = ledger.copied_tables().await?;
        let chunks = tables.into_iter().flat_map(|(_, chunks)| chunks);
        Ok(chunks.filter_map(|chunk| Some((chunk.id, chunk.done?.0))).collect())
    }

    async fn look(&mut self, screen: &mut Screen) -> Result<Status> {
        let limits = Limits { bytes: None, seconds: f64::INFINITY };
        let status = status(&self.config, &limits, INCIDENTS).await?;
        if let Some(seconds) = status.lag.and_then(|lag| lag.seconds) {
            self.worst.lag_seconds = self.worst.lag_seconds.max(seconds);
        }
        if let Some(slot) = &status.slot {
            self.worst.retained_bytes = self.worst.retained_bytes.max(slot.retained_bytes);
        }
        screen.show(&status);
        Ok(status)
    }

    /// Fails if the daemon has ended, or waits for a person.
    fn refuse_trouble(&mut self, status: &Status) -> Result<()> {
        if let Some(ended) = self.daemon.exit_status()? {
            return Err(self.failed(&format!("the daemon ended with {ended}")));
        }
        if matches!(status.verdict, Verdict::Blocked | Verdict::Lost) {
            return Err(self.failed(&status.to_string()));
        }
        Ok(())
    }

    /// A fault that holds what the daemon has said last.
    fn failed(&mut self, why: &str) -> Fault {
        let log = self.daemon.log();
        Fault::person(format!("{why}\nthe end of the daemon's log:\n  {}", log.join("\n  ")))
    }
}
