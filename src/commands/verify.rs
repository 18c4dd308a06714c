//! `cdc verify`.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::{Exit, json, print};
use crate::cli::Verify as Arguments;
use crate::config::Config;
use crate::fault::Result;
use crate::verify::{Options, Outcome, Part, Progress, Report, verify};

/// How often the bar is drawn anew.
const INTERVAL: Duration = Duration::from_millis(200);

/// Compares both sides; the exit status says the same as the report.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    let parts = |table: &crate::catalog::TableName| Part { table: table.clone(), ranges: Vec::new() };
    let options = Options {
        only: (!arguments.table.is_empty()).then(|| arguments.table.iter().map(parts).collect()),
        sample_percent: arguments.sample,
        max_rate_bytes: arguments.max_rate.map(|rate| rate.as_u64()),
        show_values: arguments.show_values,
        ..Options::default()
    };
    let report = verify_with_bar(config, &options).await?;
    print(&if arguments.json { json(&report)? } else { report.to_string() })?;
    Ok(match report.outcome {
        Outcome::Same => Exit::Yes,
        Outcome::Different => Exit::No,
        Outcome::NotCompared => Exit::Unreachable,
    })
}

/// Compares, and shows how far that is.
pub(super) async fn verify_with_bar(config: &Config, options: &Options) -> Result<Report> {
    let progress = Progress::default();
    let work = verify(config, options, &progress);
    tokio::select! {
        report = work => report,
        never = show(&progress) => match never {},
    }
}

/// Draws a bar on a terminal, until this is dropped.
async fn show(progress: &Progress) -> std::convert::Infallible {
    if !stderr().is_terminal() || console::is_dumb() {
        return std::future::pending().await;
    }
    let style = ProgressStyle::with_template("verify {bar:24.green} {percent} %, {eta} left, {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = Cleared(ProgressBar::new(1).with_style(style));
    loop {
        let now = progress.now();
        bar.0.set_length(now.total_bytes.max(1));
        bar.0.set_position(now.done_bytes);
        let (rows, differences) = (HumanCount(now.rows), HumanCount(now.differences));
        bar.0.set_message(format!("{rows} rows, {differences} differences, {}", now.table));
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A bar that is gone when the report is printed.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
