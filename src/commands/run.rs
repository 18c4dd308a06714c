//! `cdc run`.

use std::io::IsTerminal;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Exit, log};
use crate::cli::{LogFormat, Run};
use crate::config::Config;
use crate::daemon;
use crate::fault::{Fault, Result};
use crate::notify::Notifier;
use crate::observe::{Screen, Seen, keep_looking, record_slowdowns};
use crate::serve::{Shown, serve};
use crate::service::Service;
use crate::shutdown::shutdown;

/// Runs the daemon until SIGTERM or SIGINT; a second one stops it at once.
pub(super) async fn run(config: &Config, arguments: &Run) -> Result<Exit> {
    // Bars would tear lines that a program reads.
    let screen = Screen::new(arguments.log == LogFormat::Text && std::io::stderr().is_terminal());
    log::start(arguments.log, &screen)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = config.name,
        source = %config.source,
        target = %config.target,
        "starting"
    );
    let service = Service::start();
    let (seen_out, seen) = watch::channel(Seen::default());
    tokio::spawn(keep_looking(config.clone(), seen_out));
    tokio::spawn(record_slowdowns(config.clone(), seen.clone()));
    let notifier = Notifier::start(config, seen.clone());
    if let Some(address) = config.http.listen {
        let shown = Shown { name: config.name.clone(), seen: seen.clone(), pulse: service.pulse().clone() };
        tokio::spawn(serve(address, shown));
    }
    let (trigger, stop) = shutdown();
    let handler = |kind| signal(kind).map_err(|e| Fault::bug(format!("signals can't be handled: {e}")));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let signals = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("asked to stop: finishing the current batch (ask again to stop at once)");
        service.stopping();
        trigger.request();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("asked again: stopping at once; what was not committed will be sent again");
    };
    let refused = tokio::select! {
        ended = daemon::run(config, &screen, &service, seen, stop) => ended.err(),
        () = signals => return Ok(Exit::Yes),
    };
    if let Some(fault) = &refused {
        // Into the log, whatever its format.
        tracing::error!("refused to start: {fault}");
    }
    notifier.finish(refused.as_ref()).await;
    Ok(refused.as_ref().map_or(Exit::Yes, Exit::from))
}
