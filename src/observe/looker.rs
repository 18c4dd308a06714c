//! Looks at both ends again and again, on sessions that it keeps.
//!
//! The daemon does so beside everything else that it does, on two sessions of its own, so that how it is can be told
//! also while nothing is streamed. What was seen last is published: whoever shows it asks no database, and nobody who
//! replicates waits for anybody who looks.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::history::History;
use super::lag::Limits;
use super::status::{Status, look};
use crate::config::{Config, Direction};
use crate::connect::{ConnInfo, Session};
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::limits;
use crate::retry::Delays;

/// How many incidents the daemon's own looks have.
const INCIDENTS: i64 = 20;

/// Looks at both ends of a migration, whichever way it runs.
pub struct Looker {
    config: Config,
    limits: Limits,
    incidents: i64,
    source: End,
    target: End,
}

/// A session to one of the two databases that the configuration names.
#[derive(Default)]
struct End(Option<Arc<Session>>);

/// What was seen last, and how it was of late.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last look, and when it was; `None` before the first.
    pub last: Option<(Result<Status>, SystemTime)>,
    /// What was seen until then.
    pub history: History,
}

/// Asks both ends once, as the migration runs now.
///
/// # Errors
/// As of [`Looker::look`].
pub async fn status(config: &Config, limits: &Limits, incidents: i64) -> Result<Status> {
    Looker::new(config.clone(), *limits, incidents).look().await
}

/// Looks every few seconds, for ever, and publishes what it sees.
pub async fn keep_looking(config: Config, seen: watch::Sender<Seen>) {
    let mut looker = Looker::new(config, Limits::default(), INCIDENTS);
    let mut delays = Delays::default();
    loop {
        let began_at = Instant::now();
        let looked = looker.look().await;
        // A server that refuses us isn't asked more often than whoever replicates asks it.
        let pause = match &looked {
            Ok(status) if status.source_error.is_none() => {
                delays.reset();
                limits::STATUS_INTERVAL
            }
            Ok(_) | Err(_) => delays.next_delay().max(limits::STATUS_INTERVAL),
        };
        let now = SystemTime::now();
        seen.send_modify(|seen| {
            match &looked {
                Ok(status) => seen.history.note(status, now),
                // Whoever replicates meets the same fault and tells of it.
                Err(fault) => tracing::debug!("the status is not known: {fault}"),
            }
            seen.last = Some((looked, now));
        });
        sleep_until(began_at + pause).await;
    }
}

impl Looker {
    /// Of this migration. It has so many incidents in its status.
    #[must_use]
    pub fn new(config: Config, limits: Limits, incidents: i64) -> Self {
        let config = config.facing(Direction::Forward);
        Self { config, limits, incidents, source: End::default(), target: End::default() }
    }

    /// Asks both ends, as the migration runs now.
    ///
    /// # Errors
    /// If the database with the ledger can't be asked.
    pub async fn look(&mut self) -> Result<Status> {
        let looked = timeout(limits::SILENCE, self.ask()).await.unwrap_or_else(|_| {
            let seconds = limits::SILENCE.as_secs();
            Err(Fault::unreachable(Side::Target, format!("the status could not be had within {seconds} s")))
        });
        if looked.is_err() {
            (self.source, self.target) = (End::default(), End::default());
        }
        looked
    }

    async fn ask(&mut self) -> Result<Status> {
        let application = format!("cdc_{} status", self.config.name);
        let (source, target) = tokio::join!(
            self.source.session(&self.config.source, Side::Source, &application),
            self.target.session(&self.config.target, Side::Target, &application),
        );
        let ledger = |session: &Arc<Session>| Ledger::new(Arc::clone(session), &self.config.name);
        // The target of the configuration knows which way the rows go. If it can't be reached: the other database's
        // ledger does, if it is the one that is applied to.
        let direction = match (&source, &target) {
            (_, Ok(target)) => ledger(target).course().await?.direction,
            (Ok(source), Err(_)) => {
                let course = ledger(source).course().await.unwrap_or_default();
                if course.is_over { Direction::Forward } else { course.direction }
            }
            (Err(_), Err(_)) => Direction::Forward,
        };
        let (read, applied) = match direction {
            Direction::Forward => (source, target?),
            Direction::Reverse => (target, source?),
        };
        let config = self.config.facing(direction);
        let status = look(&config, &self.limits, self.incidents, &ledger(&applied), read.as_ref()).await?;
        if status.source_error.is_some() {
            // It may answer on a new one.
            match direction {
                Direction::Forward => self.source = End::default(),
                Direction::Reverse => self.target = End::default(),
            }
        }
        Ok(status)
    }
}

impl End {
    /// The session that there is, or a new one.
    async fn session(&mut self, info: &ConnInfo, side: Side, application: &str) -> Result<Arc<Session>> {
        if let Some(session) = self.0.as_ref().filter(|session| !session.is_closed()) {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Session::open(info, side, application).await?);
        self.0 = Some(Arc::clone(&session));
        Ok(session)
    }
}
