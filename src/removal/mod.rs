//! The end of a migration: what it has made on the two databases is taken away again.
//!
//! ```text
//! look, refuse ─► put back constraints ─► slot ─► publications ─► ledger ─► look again
//! ```
//!
//! The rows stay where they are, on both sides. Each step is one statement or transaction of a server,
//! and does nothing if it is done already; the ledger, which says what is ours, goes last. So whatever
//! ends it half-way, the next one goes on.

mod report;
mod source;

use std::sync::Arc;

use tokio::time::Instant;

use report::State;
pub use report::{OnSource, OnTarget, Outcome, Report};
use source::Source;

use crate::config::Config;
use crate::connect::Session;
use crate::engine::end_leftovers;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{Ledger, Origin, Phase};
use crate::limits;
use crate::schema::{self, Held, NotPutBack, Until};

/// What there is of a migration, and the lock that keeps its daemon from starting.
pub struct Removal<'a> {
    config: &'a Config,
    is_forced: bool,
    target: Arc<Session>,
    ledger: Ledger,
    /// There is a ledger, of this migration or of others.
    has_ledger: bool,
    /// What it knows of this migration.
    known: Option<Known>,
    /// The other migrations in it.
    others: Vec<String>,
    /// `None` if it is not to be touched, with the reason.
    source: Result<Source>,
}

/// What the ledger says of a migration.
struct Known {
    phase: Phase,
    origin: Option<Origin>,
    publications_created: Vec<String>,
    held: Vec<Held>,
}

impl<'a> Removal<'a> {
    /// Takes the daemon's lock and looks at both databases. Changes nothing.
    ///
    /// # Errors
    /// If a database can't be reached or there is something that is not to be removed. With `is_forced`
    /// a source that can't be used is left alone, and a slot and publications that no ledger knows of
    /// count as ours.
    pub async fn begin(config: &'a Config, is_forced: bool) -> Result<Self> {
        let application = format!("cdc_{} drop", config.name);
        let target = Arc::new(Session::open(&config.target, Side::Target, &application).await?);
        let ledger = Ledger::new(Arc::clone(&target), &config.name);
        let has_ledger = ledger.exists().await?;
        lock_out_daemons(&ledger).await?;
        let mut others = if has_ledger { ledger.migrations().await? } else { Vec::new() };
        let known = match others.iter().position(|name| *name == config.name) {
            Some(index) => {
                others.remove(index);
                Some(Known {
                    phase: ledger.phase().await?.unwrap_or(Phase::Prepare),
                    origin: ledger.origin().await?,
                    publications_created: ledger.publications_created().await?,
                    held: schema::held(&**target, &config.name).await?,
                })
            }
            None => None,
        };
        let source = match source::open(config, known.as_ref()).await {
            Ok(session) => Ok(Source::look(session, config, known.as_ref(), is_forced).await?),
            Err(fault) if is_forced => Err(fault),
            Err(fault) => {
                let advice = fault.advice().map_or(String::new(), |advice| format!("{advice}; "));
                let or_force =
                    "if it is gone for good, or others clean it: cdc drop --force cleans the target alone";
                return Err(fault.remedy(format!("{advice}{or_force}")));
            }
        };
        Ok(Self { config, is_forced, target, ledger, has_ledger, known, others, source })
    }

    /// True if neither database has anything of the migration.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.known.is_none()
            && !self.removes_schema()
            && self
                .source
                .as_ref()
                .is_ok_and(|source| source.slot.is_none() && source.publications.is_empty())
    }

    fn removes_schema(&self) -> bool {
        self.has_ledger && self.others.is_empty()
    }

    /// Removes everything, and asks both databases whether it is gone. `tell` hears what takes time.
    ///
    /// # Errors
    /// If a database refuses, or is lost. What is done is done, and the next one goes on from there.
    pub async fn run(&self, tell: impl Fn(&str) -> Result<()>) -> Result<Report> {
        let name = &self.config.name;
        end_leftovers(&self.target, Side::Target, self.config, &["apply", "catalog", "copy", "schema"])
            .await?;
        // A COMMIT of a daemon that was killed can't land behind this any more.
        self.ledger.next_epoch().await?;
        let mut to_run = Vec::new();
        let mut not_put_back = Vec::new();
        if let Some(known) = self.known.as_ref().filter(|known| !known.held.is_empty()) {
            tell(&format!(
                "putting back what was held back: {}; large constraints and indexes take their time",
                known.held.len()
            ))?;
            let session =
                Session::open(&self.config.target, Side::Target, &format!("cdc_{name} schema")).await?;
            let others = schema::builders(&self.config.target, name).await;
            not_put_back = put_back(&session, &others, name).await?;
            to_run = schema::statements(&session, name).await?;
        }
        let is_kept = !to_run.is_empty() && !self.is_forced;
        if !is_kept {
            if let Ok(source) = &self.source {
                source.remove(self.config).await?;
            }
            if self.has_ledger {
                self.ledger.remove().await?;
            }
        }
        let (source, target) = (self.source_now().await?, self.target_now(to_run, &not_put_back).await?);
        let outcome = if is_kept {
            Outcome::Refused
        } else if source.is_done() && target.is_done() {
            Outcome::Dropped
        } else {
            Outcome::Incomplete
        };
        Ok(Report { name: name.clone(), outcome, source, target })
    }

    /// Asks the source what is there.
    async fn source_now(&self) -> Result<OnSource> {
        let database = self.config.source.to_string();
        match &self.source {
            Err(fault) => Ok(OnSource {
                database,
                untouched_because: Some(fault.what().to_owned()),
                to_run: source::statements(self.config, self.known.as_ref()),
                ..OnSource::default()
            }),
            Ok(source) => Ok(OnSource { database, ..source.now(&self.config.slot()).await? }),
        }
    }

    /// Asks the target what is there.
    async fn target_now(&self, to_run: Vec<String>, not_put_back: &[NotPutBack]) -> Result<OnTarget> {
        let has_schema = self.ledger.exists().await?;
        let is_known = has_schema && self.ledger.migrations().await?.contains(&self.config.name);
        Ok(OnTarget {
            database: self.config.target.to_string(),
            migration: State::of(is_known),
            schema: State::of(has_schema),
            other_migrations: self.others.clone(),
            not_put_back: not_put_back.iter().map(Into::into).collect(),
            to_run,
        })
    }
}

/// Keeps daemons from starting. One that is just ending is waited for.
async fn lock_out_daemons(ledger: &Ledger) -> Result<()> {
    let deadline = Instant::now() + limits::CLOSE_TIMEOUT;
    while !ledger.lock_out_daemons().await? {
        if Instant::now() >= deadline {
            return Err(Fault::person(
                "a daemon of this migration is running, or waits for another one to end",
            )
            .on(Side::Target)
            .remedy("stop it first (cdc status says where it runs), and keep it from being started again"));
        }
        tokio::time::sleep(limits::FEEDBACK_DELAY).await;
    }
    Ok(())
}

/// Puts back what it can. A session of a daemon's that was just at it is waited for.
async fn put_back(session: &Session, others: &[Session], name: &str) -> Result<Vec<NotPutBack>> {
    let deadline = Instant::now() + limits::SLOT_FREE;
    loop {
        match schema::put_back(session, others, name, Until::Cutover).await {
            Err(fault) if fault.passes() && !session.is_closed() && Instant::now() < deadline => {
                tokio::time::sleep(limits::FEEDBACK_DELAY).await;
            }
            outcome => return outcome,
        }
    }
}
