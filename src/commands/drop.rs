//! `cdc drop`.

use super::ask::{ask, can_ask};
use super::{Exit, json, print};
use crate::cli::Drop as Arguments;
use crate::config::Config;
use crate::fault::{Fault, Result};
use crate::removal::{Outcome, Removal};

/// Removes what the migration has made, after asking.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    if !arguments.yes && !can_ask() {
        return Err(Fault::usage("dropping a migration can't be undone, and there is no terminal to ask at")
            .remedy("if you are sure: cdc drop --yes"));
    }
    let removal = Removal::begin(config, arguments.force).await?;
    let tell = |text: &str| if arguments.json { Ok(()) } else { print(&format!("{text}\n")) };
    if !removal.is_nothing() {
        tell(&removal.to_string())?;
        if !arguments.yes && !matches!(ask("Go on? (yes/no) ").await?.as_str(), "y" | "yes") {
            tell("nothing is dropped")?;
            return Ok(Exit::No);
        }
    }
    let report = removal.run(tell).await?;
    print(&if arguments.json { json(&report)? } else { report.to_string() })?;
    Ok(match report.outcome {
        Outcome::Dropped => Exit::Yes,
        Outcome::Incomplete | Outcome::Refused => Exit::No,
    })
}
