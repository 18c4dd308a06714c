//! `cdc run`.

use std::io::IsTerminal;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Exit;
use crate::cli::{LogFormat, Run};
use crate::config::Config;
use crate::daemon;
use crate::fault::{Fault, Result};
use crate::observe::Screen;
use crate::shutdown::shutdown;

/// Runs the daemon until SIGTERM or SIGINT; a second one stops it at once.
pub(super) async fn run(config: &Config, arguments: &Run) -> Result<Exit> {
    // Bars would tear lines that a program reads.
    let screen = Screen::new(arguments.log == LogFormat::Text && std::io::stderr().is_terminal());
    start_log(arguments.log, &screen)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = config.name,
        source = %config.source,
        target = %config.target,
        "starting"
    );
    let (trigger, stop) = shutdown();
    let handler = |kind| signal(kind).map_err(|e| Fault::bug(format!("signals can't be handled: {e}")));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let signals = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("asked to stop: finishing the current batch (ask again to stop at once)");
        trigger.request();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("asked again: stopping at once; what was not committed will be sent again");
    };
    tokio::select! {
        ended = daemon::run(config, &screen, stop) => Ok(match ended {
            Ok(()) => Exit::Yes,
            // Into the log, whatever its format.
            Err(fault) => {
                tracing::error!("refused to start: {fault}");
                Exit::from(&fault)
            }
        }),
        () = signals => Ok(Exit::Yes),
    }
}

fn start_log(format: LogFormat, screen: &Screen) -> Result<()> {
    let filter = EnvFilter::try_from_env("CDC_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(screen.clone())
        // Whoever has closed the other end must not end the daemon: telling of it would panic.
        .log_internal_errors(false)
        .with_target(false);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| Fault::bug(format!("the log can't be started: {e}")))
}
