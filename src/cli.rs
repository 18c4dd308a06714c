//! The command line. It is a contract: scripts rely on its names, its JSON and its exit statuses.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::catalog::TableName;
use crate::config::Arguments;
use crate::lsn::Lsn;
use crate::observe::Limits;

/// Replicates one PostgreSQL database into another, and keeps the two in sync until the switch.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_STATUSES)]
pub struct Cli {
    #[command(flatten)]
    config: ConfigArguments,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUSES: &str = "\
Exit status: 0 yes, 1 no, 2 a person is needed, 3 a database can't be reached, 64 wrong usage or \
configuration, 70 a bug in cdc.";

#[derive(Args, Debug)]
struct ConfigArguments {
    /// Configuration file [default: $CDC_CONFIG, ./cdc.toml or /etc/cdc/cdc.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the migration: it names the slot, the publication and the ledger's rows [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    name: Option<String>,
    /// The source, as a connection string without a password [environment: CDC_SOURCE_URL]
    #[arg(long, global = true, value_name = "URL")]
    source: Option<String>,
    /// The target, as a connection string without a password [environment: CDC_TARGET_URL]
    #[arg(long, global = true, value_name = "URL")]
    target: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at both databases for what stands in the way, before anything is touched
    Check(Check),
    /// Run the daemon: prepare what is missing, then stream until asked to stop
    Run(Run),
    /// Show how the migration is doing
    Status(Status),
    /// Compare the schemas of the two databases
    Schema(Schema),
    /// Compare every row of both sides while they are live
    Verify(Verify),
    /// Have what differs copied again by the running daemon, and verify it
    Repair(Repair),
    /// Let a blocked daemon pass one transaction without applying it
    Skip(Skip),
    /// Move the applications to the target: fence the source, bring the last changes over, open the target
    Cutover(Switch),
    /// Move them back to the source, with everything that was written since
    Rollback(Switch),
    /// End the migration: remove slot, publication and ledger, and put back what was held back
    Drop(Drop),
    /// Send a test message to whom the configuration names, and say whether it arrived
    Notify(Notify),
    /// Show a whole migration between two throw-away servers on this machine
    Demo(Demo),
}

/// `cdc check`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 nothing blocks, 1 something does, 3 a database can't be reached, 64 wrong usage or \
    configuration, 70 a bug in cdc."
)]
pub struct Check {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `cdc run`.
#[derive(Args, Debug)]
pub struct Run {
    /// How log lines are written; they go to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// `cdc status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Look again every two seconds, until Ctrl-C; the exit status is that of the last look
    #[arg(long)]
    pub watch: bool,
    /// Print one JSON object; with --watch one a line
    #[arg(long)]
    pub json: bool,
    /// Also print the latest incidents
    #[arg(long)]
    pub incidents: bool,
    /// Exit with 1 if more bytes of the source's log are not applied yet
    #[arg(long, value_name = "BYTES")]
    pub max_lag_bytes: Option<u64>,
    /// Exit with 1 if the target is further behind than this
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().seconds, value_parser = seconds, allow_negative_numbers = true)]
    pub max_lag_seconds: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if seconds.is_finite() && seconds >= 0.0 { Ok(seconds) } else { Err("it must be 0 or more".to_owned()) }
}

/// `cdc schema`.
#[derive(Args, Debug)]
pub struct Schema {
    /// What to do.
    #[command(subcommand)]
    pub command: SchemaCommand,
}

/// What `cdc schema` does.
#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Show what the target lacks or has differently, and the SQL that mends it; changes nothing
    Diff(SchemaDiff),
    /// Make what the target lacks, and touch nothing else; needs pg_dump
    Apply(SchemaApply),
}

/// `cdc schema diff`.
#[derive(Args, Debug)]
pub struct SchemaDiff {
    /// Only this table of the source, with its partitions; can be given several times
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    pub tables: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `cdc schema apply`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 the target has everything now, but for what is left out on purpose; 1 something could not \
    be made; 2 a person is needed, 3 a database can't be reached, 64 wrong usage or configuration, 70 a bug in cdc."
)]
pub struct SchemaApply {
    /// Only this table of the source, with its partitions and what they need; can be given several times
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    pub tables: Vec<String>,
    /// Change nothing: print the SQL, as a script for psql
    #[arg(long, conflicts_with = "json")]
    pub dry_run: bool,
    /// Also name everything that was made
    #[arg(long)]
    pub verbose: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `cdc verify`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 the same, 1 different, 3 something could not be compared, or no daemon is streaming, \
    64 wrong usage or configuration, 70 a bug in cdc."
)]
pub struct Verify {
    /// Compare this table only; can be given several times
    #[arg(long, value_name = "SCHEMA.TABLE", value_parser = table)]
    pub table: Vec<TableName>,
    /// Compare this percentage of each table's chunks, chosen at random
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub sample: Option<f64>,
    /// Read no more than this on either side, in bytes a second: 20MB, for example
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub max_rate: Option<ByteSize>,
    /// Also print the values that differ, shortened
    #[arg(long)]
    pub show_values: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn table(text: &str) -> Result<TableName, String> {
    let parts = text.split_once('.').filter(|(schema, table)| !schema.is_empty() && !table.is_empty());
    parts
        .map(|(schema, table)| TableName::new(schema, table))
        .ok_or_else(|| "write it as schema.table".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if percent > 0.0 && percent <= 100.0 {
        Ok(percent)
    } else {
        Err("it must be above 0, and 100 at most".to_owned())
    }
}

fn rate(text: &str) -> Result<ByteSize, String> {
    match text.parse() {
        Ok(ByteSize(0)) | Err(_) => Err("write 20MB or 20000000, for example".to_owned()),
        Ok(rate) => Ok(rate),
    }
}

/// `cdc repair`.
#[derive(Args, Debug)]
pub struct Repair {
    /// Repair this table only; can be given several times
    #[arg(long, value_name = "SCHEMA.TABLE", value_parser = table)]
    pub table: Vec<TableName>,
    /// Copy everything again, from a new slot on, over the rows that are there
    #[arg(long, conflicts_with = "table")]
    pub all: bool,
    /// Why; it is recorded together with who asked
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON object
    #[arg(long, requires = "yes")]
    pub json: bool,
}

/// `cdc skip`.
#[derive(Args, Debug)]
pub struct Skip {
    /// The commit LSN of the transaction, as the open incident in `cdc status` has it
    #[arg(value_name = "LSN")]
    pub lsn: Lsn,
    /// Why; it is recorded together with who asked
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Don't ask
    #[arg(long, requires = "reason")]
    pub yes: bool,
    /// Print one JSON object
    #[arg(long, requires = "yes")]
    pub json: bool,
}

/// `cdc cutover` and `cdc rollback`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 switched; 1 not switched: nothing was begun, or everything is undone; 2 a person is needed, \
    3 a database can't be reached, 64 wrong usage or configuration, 70 a bug in cdc."
)]
pub struct Switch {
    /// Only look whether something stands in the way
    #[arg(long)]
    pub dry_run: bool,
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
    /// Go on in spite of warnings
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
}

/// `cdc drop`.
#[derive(Args, Debug)]
pub struct Drop {
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
    /// Go on where the source can't be used, constraints can't be put back, or the ledger is gone; what is
    /// left to do is printed
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long, requires = "yes")]
    pub json: bool,
}

/// `cdc notify`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 everybody was told, 1 somebody was not, 64 wrong usage or configuration, 70 a bug in cdc."
)]
pub struct Notify {
    /// Print one JSON object for each of them, in a list
    #[arg(long)]
    pub json: bool,
}

/// `cdc demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// How many beauty salons are in the database; each has 5,452 rows
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub scale: u32,
    /// How many rows the application changes each second
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// For how many seconds the stream is watched after the copy
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub seconds: u32,
}

impl Cli {
    /// What the command line says about the configuration.
    #[must_use]
    pub fn arguments(&self) -> Arguments {
        Arguments {
            file: self.config.config.clone(),
            name: self.config.name.clone(),
            source: self.config.source.clone(),
            target: self.config.target.clone(),
        }
    }
}
