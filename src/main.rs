//! The `cdc` command: parse, run, map the outcome to an exit status.
#![allow(clippy::print_stderr, reason = "errors of a command go to standard error")]

use std::process::ExitCode;

use cdc::cli::Cli;
use cdc::commands::{self, Exit};
use clap::Parser;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_error = error.use_stderr();
            // Help that nobody reads to its end is no failure.
            let _ = error.print();
            return if is_error { ExitCode::from(Exit::Usage.code()) } else { ExitCode::SUCCESS };
        }
    };
    // The panic's message is on standard error already.
    match std::panic::catch_unwind(|| run(cli)) {
        Err(_) => ExitCode::from(Exit::Bug.code()),
        Ok(Ok(exit)) => ExitCode::from(exit.code()),
        Ok(Err(error)) => {
            let exit = error.downcast_ref().map_or(Exit::Bug, Exit::from);
            eprintln!("cdc: {error}");
            ExitCode::from(exit.code())
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let exit = runtime.block_on(commands::run(cli));
    // Not waiting: a look-up of a name that hangs in the resolver would hold up the exit.
    runtime.shutdown_background();
    Ok(exit?)
}
