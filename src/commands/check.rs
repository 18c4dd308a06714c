//! `cdc check`.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Exit, json, print};
use crate::cli::Check as Arguments;
use crate::config::Config;
use crate::fault::Result;
use crate::preflight::{Outcome, check};

/// How often the line on a terminal is drawn anew.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks at both ends; the exit status says the same as the report.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    let line = ProgressBar::hidden();
    if stderr().is_terminal() && !console::is_dumb() {
        line.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        line.set_style(
            ProgressStyle::with_template("check {spinner} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        line.enable_steady_tick(INTERVAL);
    }
    let report = check(config, &|step| line.set_message(step)).await;
    line.finish_and_clear();
    print(&if arguments.json { json(&report)? } else { report.to_string() })?;
    Ok(match report.outcome {
        Outcome::Clear => Exit::Yes,
        Outcome::Blocked => Exit::No,
        Outcome::Unreachable => Exit::Unreachable,
    })
}
