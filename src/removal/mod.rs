//! The end of a migration: what it has made on the two databases is taken away again.
//!
//! ```text
//! look, refuse ─► put back constraints ─► slot ─► publications ─► ledger ─► look again
//! ```
//!
//! The rows stay where they are, on both sides. Each step is one statement or transaction of a server,
//! and does nothing if it is done already; the ledger, which says what is ours, goes last. So whatever
//! ends it half-way, the next one goes on. If there was ever a way back, its direction is taken away first, in the same
//! way.

mod part;
mod report;
mod source;

use part::{Missing, Part};
pub use report::{Ends, OnSource, OnTarget, Outcome, Report};

use crate::config::Config;
use crate::fault::{Fault, Result};

/// What there is of a migration, and the lock that keeps its daemon from starting.
pub struct Removal {
    is_forced: bool,
    forward: Part,
    back: Option<Part>,
}

impl Removal {
    /// Takes the daemon's lock and looks at both databases. Changes nothing.
    ///
    /// # Errors
    /// If a database can't be reached or there is something that is not to be removed. With `is_forced`
    /// a source that can't be used is left alone, and a slot and publications that no ledger knows of
    /// count as ours.
    pub async fn begin(config: &Config, is_forced: bool) -> Result<Self> {
        let forward = Part::look(config.clone(), is_forced).await?;
        if !is_forced {
            forward.refuse_in_use().await?;
        }
        let back = forward.look_back().await?;
        Ok(Self { is_forced, forward, back })
    }

    /// True if neither database has anything of the migration.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.back.is_none() && self.forward.is_nothing()
    }

    /// Removes everything, and asks both databases whether it is gone. `tell` hears what takes time.
    ///
    /// # Errors
    /// If a database refuses, or is lost. What is done is done, and the next one goes on from there.
    pub async fn run(&self, tell: impl Fn(&str) -> Result<()>) -> Result<Report> {
        let back_missing = match &self.back {
            Some(back) => back.put_back(&tell).await.map_err(Fault::swapped)?,
            None => Missing::default(),
        };
        let missing = self.forward.put_back(&tell).await?;
        let is_all_back = missing.to_run.is_empty() && back_missing.to_run.is_empty();
        let is_kept = !is_all_back && !self.is_forced;
        if !is_kept {
            if let Some(back) = &self.back {
                back.remove().await.map_err(Fault::swapped)?;
            }
            self.forward.remove().await?;
        }
        let ends = self.forward.now(missing).await?;
        let way_back = match &self.back {
            Some(back) => Some(back.now(back_missing).await.map_err(Fault::swapped)?),
            None => None,
        };
        let outcome = if is_kept {
            Outcome::Refused
        } else if ends.are_done() && way_back.as_ref().is_none_or(Ends::are_done) {
            Outcome::Dropped
        } else {
            Outcome::Incomplete
        };
        Ok(Report { name: self.forward.config.name.clone(), outcome, ends, way_back })
    }
}
