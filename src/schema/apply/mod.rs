//! The copy of the schema: what the source has and the target lacks is made on the target.
//!
//! ```text
//! source ─► pg_dump ─► archive ─► plan ─► steps ─► make ─► target: all that is new, one transaction
//!                                  ▲ ▲        └──► beside ─► target: what changes tables that were there
//!                 configuration ───┘ └─── what the target has
//! ```
//!
//! `pg_dump` knows best what makes a schema: its archive has each object's SQL, with comments, grants and settings, in
//! an order in which it works. What the target has is left as it is, whatever it looks like there; `cdc schema
//! diff` says how it differs. So this can be run again at any time, and after a kill at any moment.
//!
//! A table that is there but lacks columns gets them, and an enum its labels, by what mends such a difference
//! ([`mod@super::diff`]).

mod archive;
mod beside;
mod dump;
mod make;
mod objects;
mod plan;
mod programs;
mod report;

pub use programs::{Programs, programs};
pub use report::{Applied, Object, Omission};

use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::diff::{self, Difference, Kind, SchemaDiff, What};
use super::{Scope, make_stand_ins, references, stays_behind};
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::provider;
use crate::retry::Delays;
use make::Outcome;
use objects::There;
use plan::{Known, Plan, Step};

/// How often the lock is tried: about six seconds.
const ATTEMPTS: usize = 5;

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Nothing: the SQL is only shown.
    pub dry_run: bool,
    /// Only these tables of the source, as `schema.table`, and what they need; all if empty.
    pub tables: Vec<String>,
}

/// Makes what the target lacks. `application` names the sessions.
///
/// # Errors
/// If a database can't be asked, there is no fitting `pg_dump`, or another session is at it. What an object needs and
/// isn't there is no error: it is in the report.
pub async fn apply(config: &Config, options: &Options, application: &str) -> Result<Applied> {
    let (source, target) = tokio::try_join!(
        Session::open(&config.source, Side::Source, application),
        Session::open(&config.target, Side::Target, application)
    )?;
    if !options.dry_run {
        take_lock(&target, &config.name).await?;
    }
    let stays_behind = stays_behind(&source).await?;
    let mut applied = Applied { name: config.name.clone(), stays_behind, ..Applied::default() };
    if config.schema.stand_ins && !options.dry_run {
        let stand_ins = make_stand_ins(&target, &references(&source, &target).await?).await?;
        applied.failed.extend(stand_ins.iter().map(|fault| Omission::failed(Object::stand_ins(), fault)));
    }
    let mut differences = diff::diff(&source, &target, config).await?;
    if !options.tables.is_empty() {
        differences = differences.of_tables(&options.tables)?;
    }
    let scope = Scope::new(&source, &target, config).await?;
    let sides = Sides { config, source: &source, target: &target, scope: &scope };
    let plan = sides.plan(options, application, &differences).await?;
    if options.dry_run {
        return Ok(Applied { script: Some(script(&plan)), complete: true, ..applied });
    }
    let outcome = make::make((&source, &target), &config.name, &plan).await?;
    report(&mut applied, plan, outcome);
    Ok(applied)
}

/// True if the target lacks something that is to be made.
#[must_use]
pub fn is_needed(diff: &SchemaDiff) -> bool {
    diff.differences.iter().any(|difference| difference.what == What::Missing || is_added_to(difference))
}

/// True if it is added to what is there by what mends the difference.
fn is_added_to(difference: &Difference) -> bool {
    let is_label = |sql: &String| sql.contains(" ADD VALUE ");
    match (difference.what, difference.kind) {
        (What::Missing, Kind::Column | Kind::CheckConstraint | Kind::SequenceOwner | Kind::Grant) => true,
        // It was left out when the table was made, or the source has it since.
        (What::Different, Kind::Column) => difference.target.as_deref() == Some("default: none"),
        (What::Different, Kind::Enum) => !difference.mend.is_empty() && difference.mend.iter().all(is_label),
        _ => false,
    }
}

/// Only one session makes the schema at a time. That of a process that was killed ends in a moment.
async fn take_lock(target: &Session, name: &str) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))";
    let key = format!("cdc schema {name}");
    let mut delays = Delays::default();
    for _ in 0..ATTEMPTS {
        let row = target.query_one(sql, &[&key]).await;
        if row.map_err(|e| Fault::sql(Side::Target, "looking whether the schema is being made", &e))?.get(0) {
            return Ok(());
        }
        sleep(delays.next_delay()).await;
    }
    Err(Fault::retry("another session is making the schema")
        .on(Side::Target)
        .sqlstate(SqlState::LOCK_NOT_AVAILABLE)
        .remedy("wait for the other cdc schema apply, or for the daemon's start"))
}

/// Both databases, and what of them it is about.
struct Sides<'a> {
    config: &'a Config,
    source: &'a Session,
    target: &'a Session,
    scope: &'a Scope,
}

impl Sides<'_> {
    async fn plan(&self, options: &Options, application: &str, differences: &SchemaDiff) -> Result<Plan> {
        let (config, source, target) = (self.config, self.source, self.target);
        let programs = programs(source.server_version_num() / 10_000)?;
        let mut entries = dump::dump(config, source, application, &programs, self.scope).await?;
        if !options.tables.is_empty() {
            entries = plan::of_tables(entries, &differences.tables);
        }
        let moved = objects::moved(source, target).await?;
        let differences = &differences.differences;
        let is_unused =
            |d: &&Difference| d.kind == Kind::Extension && d.what == What::Harmless && d.target.is_none();
        let known = Known {
            config,
            scope: self.scope,
            providers: &provider::roles(source).await?,
            source: &objects::of_source(source, config, &moved).await?,
            moved: &moved,
            there: &There::on(target, &config.name).await?,
            target_version: target.server_version_num(),
            unused: &differences.iter().filter(is_unused).map(|d| d.name.clone()).collect(),
            added: &differences.iter().filter(|d| is_added_to(d)).collect::<Vec<_>>(),
        };
        Ok(plan::plan(&entries, &known))
    }
}

/// The plan as a script for psql.
fn script(plan: &Plan) -> String {
    let mut script = format!("{}{}\n", make::SETTINGS.replace("; ", ";\n"), plan.settings);
    for step in &plan.steps {
        script.push_str(&format!(
            "\n-- {} {}\n{}\n",
            step.object.kind,
            step.object.name.replace('\n', " "),
            step.sql.trim()
        ));
    }
    script
}

fn report(applied: &mut Applied, plan: Plan, outcome: Outcome) {
    applied.made = outcome.made;
    applied.left_out = plan.omissions;
    for (at, fault) in outcome.failed {
        let Step { object, sql, .. } = &plan.steps[at];
        // Those of a role that we may not act for concern nothing of ours.
        if object.kind == "default privileges" {
            applied.left_out.push(Omission::new(object.clone(), fault.what().to_owned()));
            continue;
        }
        let is_key = sql.contains(" PRIMARY KEY ") || sql.contains(" REPLICA IDENTITY ");
        let omission = Omission::failed(object.clone(), &fault);
        if is_key || matches!(object.kind.as_str(), "table" | "partition") {
            applied.without_tables.push(omission.clone());
        }
        applied.failed.push(omission);
    }
    applied.complete = applied.failed.is_empty();
}
