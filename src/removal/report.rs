//! What is about to be removed, and what is left.

use std::fmt;

use serde::Serialize;

use super::Removal;
use super::part::Part;
use crate::ledger::Phase;
use crate::schema::NotPutBack;

/// What was removed, as both databases say afterwards. Field names and meanings are stable.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The migration's name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What the databases have.
    #[serde(flatten)]
    pub ends: Ends,
    /// What they have of the way back, which the target is the source of; null if there was none.
    pub way_back: Option<Ends>,
}

/// What the databases of a direction have.
#[derive(Debug, Serialize)]
pub struct Ends {
    /// What the source has.
    pub source: OnSource,
    /// What the target has.
    pub target: OnTarget,
}

impl Ends {
    pub(super) fn are_done(&self) -> bool {
        self.source.is_done() && self.target.is_done()
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing of the migration is left, and everything that was held back is put back.
    Dropped,
    /// What is ours on the databases that could be used is gone, but there is something left to do by hand.
    Incomplete,
    /// Nothing was removed: there is something to mend first.
    Refused,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there, or nobody knows.
    #[default]
    There,
    /// It isn't.
    Gone,
}

impl State {
    pub(super) fn of(is_there: bool) -> Self {
        if is_there { Self::There } else { Self::Gone }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::There => "still there",
            Self::Gone => "gone",
        })
    }
}

/// Something of ours.
#[derive(Debug, Serialize)]
pub struct Thing {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub state: State,
}

/// What the source has.
#[derive(Debug, Default, Serialize)]
pub struct OnSource {
    /// Which database.
    pub database: String,
    /// Why it was left as it is; null if it could be used.
    pub untouched_because: Option<String>,
    /// Our replication slot; null if the source was left as it is.
    pub slot: Option<Thing>,
    /// Our publications.
    pub publications: Vec<Thing>,
    /// Publications of our name that stay: the ledger doesn't say that we have made them.
    pub publications_kept: Vec<String>,
    /// What is to be run there by hand.
    pub to_run: Vec<String>,
}

impl OnSource {
    fn is_done(&self) -> bool {
        let things = self.slot.iter().chain(&self.publications);
        self.untouched_because.is_none() && things.into_iter().all(|thing| thing.state == State::Gone)
    }
}

/// What the target has.
#[derive(Debug, Default, Serialize)]
pub struct OnTarget {
    /// Which database.
    pub database: String,
    /// Why it was left as it is; null if it could be used.
    pub untouched_because: Option<String>,
    /// The ledger's rows of this migration.
    pub migration: State,
    /// The schema `cdc`: it stays while other migrations are in it.
    pub schema: State,
    /// Those.
    pub other_migrations: Vec<String>,
    /// Constraints and indexes that could not be put back.
    pub not_put_back: Vec<Missing>,
    /// What is to be run there by hand, to put them back.
    pub to_run: Vec<String>,
}

impl OnTarget {
    fn is_done(&self) -> bool {
        let is_schema_done = self.schema == State::Gone || !self.other_migrations.is_empty();
        self.migration == State::Gone && is_schema_done && self.to_run.is_empty()
    }
}

/// A constraint or an index that could not be put back.
#[derive(Debug, Serialize)]
pub struct Missing {
    /// Its table, as `schema.table`.
    pub table: String,
    /// Its name.
    pub object: String,
    /// Why.
    pub message: String,
    /// The row that stands in the way.
    pub key: Option<String>,
}

impl From<&NotPutBack> for Missing {
    fn from(missing: &NotPutBack) -> Self {
        Self {
            table: missing.table.to_string(),
            object: missing.object.clone(),
            message: missing.fault.what().to_owned(),
            key: missing.fault.row_key().map(str::to_owned),
        }
    }
}

impl fmt::Display for Removal {
    /// What will be done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.forward.config.name;
        writeln!(f, "This ends the migration {name} for good. The rows stay as they are, on both sides.\n")?;
        write!(f, "{}", self.forward)?;
        if let Some(back) = &self.back {
            write!(f, "And of the way back:\n{back}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  source  {}", self.config.source)?;
        match &self.source {
            Err(fault) => writeln!(f, "          is left as it is: {}", fault.what())?,
            Ok(source) => {
                if let Some(slot) = &source.slot {
                    let status = slot.wal_status.as_deref().unwrap_or("no status");
                    writeln!(f, "          remove the replication slot {} ({status})", self.config.slot())?;
                }
                for publication in &source.publications {
                    writeln!(f, "          drop the publication {publication}")?;
                }
                for publication in &source.kept {
                    writeln!(
                        f,
                        "          leave the publication {publication}: it was made by hand, as far as the ledger knows"
                    )?;
                }
                if source.slot.is_none() && source.publications.is_empty() {
                    writeln!(f, "          has nothing of ours")?;
                }
            }
        }
        writeln!(f, "  target  {}", self.config.target)?;
        let target = match &self.target {
            Err(fault) => return writeln!(f, "          is left as it is: {}", fault.what()),
            Ok(target) => target,
        };
        if let Some(known) = &target.known {
            if matches!(known.phase, Phase::Prepare | Phase::Copy) {
                writeln!(f, "          the copy is not complete: rows are missing here")?;
            }
            for held in &known.held {
                writeln!(f, "          put back the {} {} of {}", held.kind, held.object, held.table)?;
            }
            writeln!(f, "          forget how far the migration is")?;
        }
        match &target.others[..] {
            [] if target.has_ledger => writeln!(f, "          drop the schema cdc"),
            [] => writeln!(f, "          has nothing of ours"),
            others => {
                writeln!(f, "          leave the schema cdc: other migrations use it ({})", others.join(", "))
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Dropped => "nothing of it is left; both databases were asked",
            Outcome::Incomplete => "dropped, but something is left to do by hand",
            Outcome::Refused => "NOT dropped: not everything that is held back can be put back",
        };
        writeln!(f, "{}: {outcome}", self.name)?;
        self.ends.write(f, self)?;
        if let Some(ends) = &self.way_back {
            writeln!(f, "  The way back:")?;
            ends.write(f, self)?;
        }
        Ok(())
    }
}

impl Ends {
    fn write(&self, f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
        let Self { source, target } = self;
        writeln!(f, "  source  {}", source.database)?;
        if let Some(why) = &source.untouched_because {
            writeln!(f, "          left as it is: {why}")?;
        }
        for (what, thing) in source
            .slot
            .iter()
            .map(|slot| ("slot", slot))
            .chain(source.publications.iter().map(|p| ("publication", p)))
        {
            writeln!(f, "          {what} {}: {}", thing.name, thing.state)?;
        }
        for publication in &source.publications_kept {
            writeln!(
                f,
                "          publication {publication}: stays, made by hand as far as the ledger knows"
            )?;
        }
        if !source.to_run.is_empty() {
            writeln!(
                f,
                "          While the slot is there it holds WAL, until the disk is full. Run there:"
            )?;
        }
        statements(f, &source.to_run)?;
        writeln!(f, "  target  {}", target.database)?;
        if let Some(why) = &target.untouched_because {
            return writeln!(f, "          left as it is: {why}");
        }
        for missing in &target.not_put_back {
            let key = missing.key.as_ref().map_or(String::new(), |key| format!(" [key {key}]"));
            writeln!(f, "          {} of {}: {}{key}", missing.object, missing.table, missing.message)?;
        }
        if report.outcome == Outcome::Refused && !target.to_run.is_empty() {
            writeln!(
                f,
                "          Either mend the rows and run cdc drop again; or, if this copy is given up:"
            )?;
            writeln!(f, "          run cdc drop --force, empty the tables, and then run there:")?;
            return statements(f, &target.to_run);
        }
        writeln!(f, "          the ledger's rows of {}: {}", report.name, target.migration)?;
        match &target.other_migrations[..] {
            [] => writeln!(f, "          schema cdc: {}", target.schema)?,
            others => writeln!(f, "          schema cdc: stays for {}", others.join(", "))?,
        }
        if !target.to_run.is_empty() {
            writeln!(f, "          When the rows comply (or the tables are empty), run there:")?;
        }
        statements(f, &target.to_run)
    }
}

fn statements(f: &mut fmt::Formatter<'_>, statements: &[String]) -> fmt::Result {
    statements.iter().try_for_each(|statement| writeln!(f, "{statement};"))
}
