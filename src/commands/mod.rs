//! One thin file per command: arguments in, report and exit status out.

mod demo;
mod exit;
mod run;
mod status;

pub use exit::Exit;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::connect::Environment;
use crate::fault::Result;

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
