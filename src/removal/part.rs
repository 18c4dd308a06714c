//! The end of one direction: what it has made on the two databases.

use std::sync::Arc;

use tokio::time::Instant;

use super::report::{Ends, OnSource, OnTarget, State};
use super::source::{self, Source};
use crate::config::{Config, Direction};
use crate::connect::Session;
use crate::cutover::fence::Fence;
use crate::engine::end_leftovers;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{Ledger, Origin, Phase};
use crate::limits;
use crate::observe::OldSide;
use crate::replication::Slot;
use crate::schema::{self, Held, NotPutBack, Until};

/// What there is of a direction. What is called source and target here is that of the direction.
pub(super) struct Part {
    pub(super) config: Config,
    is_forced: bool,
    /// `None` if it is not to be touched, with the reason.
    pub(super) target: Result<Target>,
    pub(super) source: Result<Source>,
}

/// What there is on the target, and the lock that keeps a daemon from starting.
pub(super) struct Target {
    session: Arc<Session>,
    ledger: Ledger,
    /// There is a ledger, of this migration or of others.
    pub(super) has_ledger: bool,
    /// What it knows of this migration.
    pub(super) known: Option<Known>,
    /// The other migrations in it.
    pub(super) others: Vec<String>,
}

/// What the ledger says of a migration.
pub(super) struct Known {
    pub(super) phase: Phase,
    pub(super) origin: Option<Origin>,
    pub(super) publications_created: Vec<String>,
    pub(super) held: Vec<Held>,
}

/// What could not be put back, and how that is done by hand.
#[derive(Default)]
pub(super) struct Missing {
    not_put_back: Vec<NotPutBack>,
    pub(super) to_run: Vec<String>,
}

impl Target {
    async fn look(config: &Config) -> Result<Self> {
        let application = format!("cdc_{} drop", config.name);
        let session = Arc::new(Session::open(&config.target, Side::Target, &application).await?);
        let ledger = Ledger::new(Arc::clone(&session), &config.name);
        let has_ledger = ledger.exists().await?;
        lock_out_daemons(&ledger).await?;
        if has_ledger && let Some(switch) = ledger.open_switch().await?.filter(|s| s.is_held || s.is_decided)
        {
            let way = switch.way;
            return Err(Fault::person(format!(
                "a {way} is under way ({}, at the step {})",
                switch.holder, switch.step
            ))
            .on(Side::Target)
            .remedy(format!(
                "wait for its end, or run cdc {way} again if it was left; then run this again"
            )));
        }
        let mut others = if has_ledger { ledger.migrations().await? } else { Vec::new() };
        let known = match others.iter().position(|name| *name == config.name) {
            Some(index) => {
                others.remove(index);
                Some(Known {
                    phase: ledger.phase().await?.unwrap_or(Phase::Prepare),
                    origin: ledger.origin().await?,
                    publications_created: ledger.publications_created().await?,
                    held: schema::held(&**session, &config.name).await?,
                })
            }
            None => None,
        };
        Ok(Self { session, ledger, has_ledger, known, others })
    }

    pub(super) fn removes_schema(&self) -> bool {
        self.has_ledger && self.others.is_empty()
    }
}

impl Part {
    /// Takes the daemon's lock and looks at both databases. Changes nothing.
    ///
    /// # Errors
    /// If a database can't be reached or there is something that is not to be removed. With `is_forced`
    /// a source that can't be used is left alone, and a slot and publications that no ledger knows of
    /// count as ours.
    pub(super) async fn look(config: Config, is_forced: bool) -> Result<Self> {
        let target = match Target::look(&config).await {
            // The source that was left may be gone for good.
            Err(fault) if is_forced && fault.is_unreachable() && config.direction == Direction::Reverse => {
                Err(fault)
            }
            target => Ok(target?),
        };
        let known = target.as_ref().ok().and_then(|target| target.known.as_ref());
        let source = match source::open(&config, known).await {
            Ok(session) => Ok(Source::look(session, &config, known, is_forced).await?),
            Err(fault) if is_forced => Err(fault),
            Err(fault) => {
                let advice = fault.advice().map_or(String::new(), |advice| format!("{advice}; "));
                let or_force =
                    "if it is gone for good, or others clean it: cdc drop --force cleans the target alone";
                return Err(fault.remedy(format!("{advice}{or_force}")));
            }
        };
        Ok(Self { config, is_forced, target, source })
    }

    /// Refuses as long as somebody still uses the source that the applications have left.
    pub(super) async fn refuse_in_use(&self) -> Result<()> {
        let (Ok(target), Ok(source)) = (&self.target, &self.source) else { return Ok(()) };
        if target.known.is_none() {
            return Ok(());
        }
        let database = self.config.source.to_string();
        let old = OldSide::look(source.session(), database, &target.ledger).await?;
        match old.and_then(|old| old.in_use()) {
            None => Ok(()),
            Some(why) => Err(Fault::person(format!("the old database is not to be given up yet: {why}"))
                .on(Side::Source)
                .remedy("cdc status names who is there; if you are sure all the same: cdc drop --force")),
        }
    }

    /// The same for the way back, if there was ever one, on either database.
    pub(super) async fn look_back(&self) -> Result<Option<Self>> {
        let back = self.config.facing(Direction::Reverse);
        let Ok(home) = &self.target else { return Ok(None) };
        let has_slot = Slot::find(&home.session, &back.slot()).await?.is_some();
        let has_ledger = match &self.source {
            Ok(source) => source.has_ledger_of(&self.config.name).await?,
            Err(_) => false,
        };
        if !has_slot && !has_ledger {
            return Ok(None);
        }
        Self::look(back, self.is_forced).await.map(Some).map_err(Fault::swapped)
    }

    /// True if neither database has anything of it.
    pub(super) fn is_nothing(&self) -> bool {
        self.target.as_ref().is_ok_and(|target| target.known.is_none() && !target.removes_schema())
            && self
                .source
                .as_ref()
                .is_ok_and(|source| source.slot.is_none() && source.publications.is_empty())
    }

    /// Puts back what was held back on the target, and keeps what is left of a daemon from writing there.
    pub(super) async fn put_back(&self, tell: impl Fn(&str) -> Result<()>) -> Result<Missing> {
        let Ok(target) = &self.target else { return Ok(Missing::default()) };
        let name = &self.config.name;
        end_leftovers(&target.session, Side::Target, &self.config, &["apply", "catalog", "copy", "schema"])
            .await?;
        // A COMMIT of a daemon that was killed can't land behind this any more.
        target.ledger.next_epoch().await?;
        let Some(known) = target.known.as_ref().filter(|known| !known.held.is_empty()) else {
            return Ok(Missing::default());
        };
        tell(&format!(
            "putting back what was held back: {}; large constraints and indexes take their time",
            known.held.len()
        ))?;
        let session = Session::open(&self.config.target, Side::Target, &format!("cdc_{name} schema")).await?;
        let others = schema::builders(&self.config.target, name).await;
        let not_put_back = put_back(&session, &others, name).await?;
        Ok(Missing { not_put_back, to_run: schema::statements(&session, name).await? })
    }

    /// Removes slot and publications, and then the ledger.
    pub(super) async fn remove(&self) -> Result<()> {
        let name = &self.config.name;
        if let Ok(source) = &self.source {
            source.remove(&self.config).await?;
            Fence::new(source.session(), Side::Source, name).remove().await?;
        }
        if let Ok(target) = &self.target {
            Fence::new(&target.session, Side::Target, name).remove().await?;
        }
        match &self.target {
            Ok(target) if target.has_ledger && target.ledger.exists().await? => target.ledger.remove().await,
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Asks both databases what is there.
    pub(super) async fn now(&self, missing: Missing) -> Result<Ends> {
        Ok(Ends { source: self.source_now().await?, target: self.target_now(missing).await? })
    }

    async fn source_now(&self) -> Result<OnSource> {
        let database = self.config.source.to_string();
        match &self.source {
            Err(fault) => Ok(OnSource {
                database,
                untouched_because: Some(fault.what().to_owned()),
                to_run: source::statements(
                    &self.config,
                    self.target.as_ref().ok().and_then(|target| target.known.as_ref()),
                ),
                ..OnSource::default()
            }),
            Ok(source) => Ok(OnSource { database, ..source.now(&self.config.slot()).await? }),
        }
    }

    async fn target_now(&self, missing: Missing) -> Result<OnTarget> {
        let database = self.config.target.to_string();
        let target = match &self.target {
            Err(fault) => {
                let untouched_because = Some(fault.what().to_owned());
                return Ok(OnTarget { database, untouched_because, ..OnTarget::default() });
            }
            Ok(target) => target,
        };
        let has_schema = target.ledger.exists().await?;
        let is_known = has_schema && target.ledger.migrations().await?.contains(&self.config.name);
        Ok(OnTarget {
            database,
            untouched_because: None,
            migration: State::of(is_known),
            schema: State::of(has_schema),
            other_migrations: target.others.clone(),
            not_put_back: missing.not_put_back.iter().map(Into::into).collect(),
            to_run: missing.to_run,
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
