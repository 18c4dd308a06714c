//! `cdc cutover` and `cdc rollback`.

use std::time::Duration;

use console::Term;
use tokio::signal::unix::{SignalKind, signal};

use super::ask::{ask, can_ask};
use super::{Exit, json, log, print};
use crate::cli::{LogFormat, Switch as Arguments};
use crate::config::Config;
use crate::cutover::{Done, Event, Options, Outcome, Report, Way, switch};
use crate::fault::{Fault, Result};
use crate::observe::Screen;
use crate::shutdown::shutdown;

/// Moves the applications, after asking.
pub(super) async fn run(config: &Config, arguments: &Arguments, way: Way) -> Result<Exit> {
    let is_asked = !arguments.yes && !arguments.dry_run;
    if is_asked && !can_ask() {
        return Err(Fault::usage("writes rest during a switch, and there is no terminal to ask at")
            .remedy(format!("if you are sure: cdc {} --yes", way.as_str())));
    }
    let terminal = Term::stdout();
    let is_live = terminal.is_term() && !arguments.json;
    log::start_quietly(LogFormat::Text, &Screen::new(false), is_live)?;
    let (trigger, mut stop) = shutdown();
    let handler = |kind| signal(kind).map_err(|e| Fault::bug(format!("signals can't be handled: {e}")));
    let (mut interrupt, mut terminate) =
        (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let signals = tokio::spawn(async move {
        // Asked again or not, it is undone: without that the old side would stay fenced.
        loop {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            tracing::warn!("asked to stop: everything is undone");
            trigger.request();
        }
    });
    let show = |event: &Event<'_>| if is_live { draw(&terminal, event) } else { tell(event) };
    let mut options = Options {
        way,
        dry_run: arguments.dry_run || is_asked,
        force: arguments.force,
        os_user: whoami::username().unwrap_or_else(|_| "unknown".to_owned()),
    };
    let mut report = switch(config, &options, &show, &mut stop).await?;
    if is_asked && report.outcome == Outcome::Possible {
        print(&report.to_string())?;
        if !matches!(ask(&question(config, way)).await?.as_str(), "y" | "yes") {
            print("nothing is changed\n")?;
            return Ok(Exit::No);
        }
        options.dry_run = false;
        report = switch(config, &options, &show, &mut stop).await?;
    }
    signals.abort();
    print(&if arguments.json { json(&report)? } else { text(&report, config) })?;
    Ok(match report.outcome {
        Outcome::Possible | Outcome::Switched => Exit::Yes,
        Outcome::Undone | Outcome::Refused => Exit::No,
        Outcome::Stuck => Exit::Person,
    })
}

fn question(config: &Config, way: Way) -> String {
    let (new, back) = match way {
        Way::Cutover if config.cutover.reverse => (&config.target, ""),
        Way::Cutover => (&config.target, "There will be NO way back. "),
        Way::Rollback => (&config.source, ""),
    };
    format!("{back}Is there a recent backup, and shall writes go to {new} from now on? (yes/no) ")
}

/// The report, and of a look what would be done.
fn text(report: &Report, config: &Config) -> String {
    if report.outcome != Outcome::Possible {
        return report.to_string();
    }
    let longest = humantime::format_duration(config.cutover.pause);
    let patience = humantime::format_duration(config.cutover.patience);
    format!(
        "{report}  and for {longest} at the longest; transactions that have written by then may go on for {patience}\n"
    )
}

fn milliseconds(seconds: f64) -> String {
    let time = Duration::from_secs_f64(seconds);
    if seconds < 10.0 { format!("{} ms", time.as_millis()) } else { format!("{:.0} s", seconds) }
}

fn line(done: &Done) -> String {
    let note = done.note.as_ref().map_or(String::new(), |note| format!("  {note}"));
    format!("{:<42} {:>9}{note}", done.step.what(), milliseconds(done.seconds))
}

/// On a terminal: each step in a line, the present one while it goes on.
fn draw(terminal: &Term, event: &Event<'_>) {
    // A terminal that is gone stops nothing.
    let _ = match event {
        Event::Begun(step) => terminal.write_str(&format!("  … {}", step.what())),
        Event::Done(done) => terminal
            .clear_line()
            .and_then(|()| terminal.write_line(&format!("  {} {}", console::style("✓").green(), line(done)))),
        Event::Failed(step, _) => terminal.clear_line().and_then(|()| {
            terminal.write_line(&format!("  {} {}: turning back", console::style("✗").red(), step.what()))
        }),
    };
}

/// Elsewhere: a line in the log for each.
fn tell(event: &Event<'_>) {
    match event {
        Event::Begun(step) => tracing::info!(step = step.as_str(), "{}", step.what()),
        Event::Done(done) => {
            let note = done.note.as_deref().unwrap_or_default();
            tracing::info!(step = done.step.as_str(), took = milliseconds(done.seconds), "done {note}");
        }
        Event::Failed(step, fault) => tracing::error!(step = step.as_str(), "failed: {fault}"),
    }
}
