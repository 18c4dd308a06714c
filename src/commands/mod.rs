//! One thin file per command: arguments in, report and exit status out.

mod ask;
mod check;
mod cutover;
mod demo;
mod drop;
mod exit;
mod log;
mod notify;
mod repair;
mod run;
mod schema;
mod skip;
mod status;
mod verify;
mod watch;

pub use exit::Exit;

use std::io::{ErrorKind, Write};

use crate::cli::{Cli, Command, SchemaCommand};
use crate::config::Config;
use crate::connect::Environment;
use crate::cutover::Way;
use crate::fault::{Fault, Result};
use crate::ledger;

/// Runs the command and says how it went.
///
/// # Errors
/// With what kept it from running.
pub async fn run(cli: Cli) -> Result<Exit> {
    let databases = cli.arguments();
    let config = || Config::load(&databases, &Environment::from_process());
    // Source and target as the rows go now. Who only looks says by itself why a database can't be asked.
    let as_it_runs = async || ledger::as_it_runs(&config()?).await;
    let as_far_as_known = async || -> Result<Config> {
        let config = config()?;
        Ok(ledger::as_it_runs(&config).await.unwrap_or(config))
    };
    match cli.command {
        Command::Check(arguments) => check::run(&as_far_as_known().await?, &arguments).await,
        Command::Run(arguments) => run::run(&config()?, &arguments).await,
        Command::Status(arguments) => status::run(&config()?, &arguments).await,
        Command::Schema(schema) => match schema.command {
            SchemaCommand::Diff(arguments) => schema::diff(&as_far_as_known().await?, &arguments).await,
            SchemaCommand::Apply(arguments) => schema::apply(&as_it_runs().await?, &arguments).await,
        },
        Command::Verify(arguments) => verify::run(&as_far_as_known().await?, &arguments).await,
        Command::Repair(arguments) => repair::run(&as_it_runs().await?, &arguments).await,
        Command::Skip(arguments) => or_no(skip::run(&as_it_runs().await?, &arguments).await),
        Command::Cutover(arguments) => cutover::run(&config()?, &arguments, Way::Cutover).await,
        Command::Rollback(arguments) => cutover::run(&config()?, &arguments, Way::Rollback).await,
        Command::Drop(arguments) => or_no(drop::run(&config()?, &arguments).await),
        Command::Notify(arguments) => notify::run(&config()?, &arguments).await,
        Command::Demo(arguments) => demo::run(&databases, &arguments).await,
    }
}

/// Of a command that answers yes or no: what a person has to mend is a no.
#[allow(clippy::print_stderr, reason = "errors of a command go to standard error")]
fn or_no(outcome: Result<Exit>) -> Result<Exit> {
    match outcome {
        Err(fault) if Exit::from(&fault) == Exit::Person => {
            eprintln!("cdc: {fault}");
            Ok(Exit::No)
        }
        outcome => outcome,
    }
}

/// A report as JSON.
fn json(report: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(|e| Fault::bug(e.to_string()))
}

/// Prints a report. That nobody reads it to its end (`| head`) is no failure.
fn print(report: &str) -> Result<()> {
    write(report).map(|_| ())
}

/// Prints a text; false if nobody reads it.
fn write(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Fault::person(format!("the report can't be written: {error}"))),
    }
}
