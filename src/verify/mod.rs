//! The proof that the target is identical to the source, while both are live.
//!
//! ```text
//! ledger, catalogs ─► units ─► ranges (copy::plan) ─► workers, each with a session to either end
//!                                                        │ sums of a chunk, the same statement on both sides
//!                                                        ▼
//!                             equal ◄─────────────── chunk: narrowed down to rows ─► decide ─► report
//!                                                        ▲
//!                     daemon's checkpoint ─► stream: the target has passed what was read on the source
//! ```
//!
//! Nothing is locked and nothing has to rest: a chunk is read in one short statement on each side. What looks
//! different is looked at again when the stream has passed the source's position of the first look, and in the
//! end row by row; [`decide`] tells a change in flight from a difference, and says why it can't be mistaken.
//! What could not be compared is told, and is never taken for the same.

mod besides;
mod by_itself;
mod chunk;
mod decide;
mod describe;
mod ends;
mod progress;
mod report;
mod report_text;
mod run;
mod sql;
mod stream;
mod unit;

pub use besides::Besides;
pub use by_itself::verify_by_itself;
pub use progress::{Moment, Progress};
pub use report::{Difference, Kind, Outcome, Report, TableReport, Values};

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::catalog::TableName;
use crate::chunk::KeyRange;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::Ledger;
use crate::limits;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// These tables only; `None` is all of them.
    pub only: Option<Vec<Part>>,
    /// This percentage of each table's chunks, at least one of each.
    pub sample_percent: Option<f64>,
    /// The most bytes a second, as text, that are read on either side.
    pub max_rate_bytes: Option<u64>,
    /// Tells also the values that differ.
    pub show_values: bool,
    /// How rows are written meanwhile.
    pub live: Live,
    /// How long the stream may make no progress, and a row be undecided.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            only: None,
            sample_percent: None,
            max_rate_bytes: None,
            show_values: false,
            live: Live::Yes,
            patience: limits::VERIFY_PATIENCE,
        }
    }
}

impl Options {
    fn is_of_everything(&self) -> bool {
        self.only.is_none() && self.sample_percent.is_none()
    }
}

/// A table, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The table; the topmost parent of partitions stands for all of them.
    pub table: TableName,
    /// Ranges of its key; none are the whole table.
    pub ranges: Vec<KeyRange>,
}

/// Whether rows are written while they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// A daemon streams what is written on the source.
    Yes,
    /// Nothing can write to the source, and the target has everything: one look is final.
    No,
}

/// Compares the target with the source, and records in the ledger what has come out.
///
/// What keeps it from comparing is a part of the report, whose outcome is then `not_compared`: also a server
/// that can't be reached, and a stream that doesn't flow.
///
/// # Errors
/// If something is asked for that there isn't, or because of a bug.
pub async fn verify(config: &Config, options: &Options, progress: &Progress) -> Result<Report> {
    let (started, began) = (SystemTime::now(), Instant::now());
    let mut report = Report {
        name: config.name.clone(),
        outcome: Outcome::NotCompared,
        started_at: humantime::format_rfc3339_millis(started).to_string(),
        finished_at: String::new(),
        seconds: 0.0,
        sample_percent: options.sample_percent,
        error: None,
        tables: Vec::new(),
        besides: None,
    };
    let (ledger, ended) = match ledger(config).await {
        Ok(ledger) => {
            let mut ended = run::run(config, options, progress, &ledger, &mut report.tables).await;
            if ended.is_ok() && options.is_of_everything() {
                progress.begin("foreign keys, sequences and the schema".to_owned());
                let looked = Besides::look(config, &ledger).await;
                ended = looked.map(|besides| report.besides = Some(besides));
            }
            (Some(ledger), ended)
        }
        Err(fault) => (None, Err(fault)),
    };
    match ended {
        Err(fault) if matches!(fault.reaction(), Reaction::Usage | Reaction::Bug) => return Err(fault),
        Err(fault) => report.error = Some(fault.to_string()),
        Ok(()) => {}
    }
    report.tables.sort_by(|a, b| a.table.cmp(&b.table));
    report.seconds = began.elapsed().as_secs_f64();
    report.finished_at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    report.conclude();
    if let Some(ledger) = &ledger {
        record(ledger, &report).await;
    }
    Ok(report)
}

/// The ledger of a migration that has begun.
async fn ledger(config: &Config) -> Result<Ledger> {
    let application = format!("cdc_{} verify", config.name);
    let target = Session::open(&config.target, Side::Target, &application).await?;
    let ledger = Ledger::new(Arc::new(target), &config.name);
    if ledger.exists().await? && ledger.phase().await?.is_some() {
        return Ok(ledger);
    }
    Err(Fault::person(format!("there is no migration {:?} here: no daemon is streaming", config.name))
        .on(Side::Target)
        .remedy("start one (cdc run), or name another one (--name)"))
}

/// The result doesn't depend on whether it can be recorded.
async fn record(ledger: &Ledger, report: &Report) {
    let recorded = tokio::time::timeout(limits::SILENCE, record_all(ledger, report)).await;
    match recorded {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => tracing::warn!("the verification is not recorded: {fault}"),
        Err(_) => tracing::warn!("the verification is not recorded: the target doesn't answer"),
    }
}

async fn record_all(ledger: &Ledger, report: &Report) -> Result<()> {
    let json = serde_json::to_value(report.without_values()).map_err(|e| Fault::bug(e.to_string()))?;
    ledger.record_verification(&report.summary(), &json).await?;
    for table in &report.tables {
        match table.outcome {
            Outcome::Different => ledger.record_difference(&table.table, &table.fault()).await?,
            Outcome::Same if report.sample_percent.is_none() => {
                ledger.resolve_difference(&table.table).await?
            }
            Outcome::Same | Outcome::NotCompared => {}
        }
    }
    Ok(())
}
