//! One thin file per command: arguments in, report and exit status out.

mod demo;
mod exit;
mod log;
mod run;
mod status;

pub use exit::Exit;

use std::io::{ErrorKind, Write};

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::connect::Environment;
use crate::fault::{Fault, Result};

/// Runs the command and says how it went.
///
/// # Errors
/// With what kept it from running.
pub async fn run(cli: Cli) -> Result<Exit> {
    let databases = cli.arguments();
    let config = || Config::load(&databases, &Environment::from_process());
    match cli.command {
        Command::Run(arguments) => run::run(&config()?, &arguments).await,
        Command::Status(arguments) => status::run(&config()?, &arguments).await,
        Command::Demo(arguments) => demo::run(&databases, &arguments).await,
    }
}

/// Prints a report. That nobody reads it to its end (`| head`) is no failure.
fn print(report: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(report.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Fault::person(format!("the report can't be written: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
