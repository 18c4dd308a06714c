//! `cdc demo`.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use crate::cli::Demo;
use crate::config::Arguments;
use crate::demo::story::{self, Ending, Plan, Screen};
use crate::fault::{Fault, Result};
use crate::shutdown::shutdown;

/// Shows a whole migration between two servers of its own.
pub(super) async fn run(databases: &Arguments, demo: &Demo) -> Result<Exit> {
    let Arguments { file, name, source, target } = databases;
    if file.is_some() || name.is_some() || source.is_some() || target.is_some() {
        return Err(Fault::usage("the demo uses two servers of its own and no configuration")
            .remedy("leave --config, --name, --source and --target out"));
    }
    let (trigger, stop) = shutdown();
    let handler = |kind| signal(kind).map_err(|e| Fault::bug(format!("signals can't be handled: {e}")));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut hang_up = handler(SignalKind::hangup())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
        trigger.request();
    });
    let plan = Plan {
        scale: demo.scale,
        changes_per_second: demo.rate,
        stream: Duration::from_secs(demo.seconds.into()),
    };
    Ok(match story::tell(&plan, &mut Screen::stdout(), stop).await? {
        Ending::Identical => Exit::Yes,
        Ending::Different | Ending::Interrupted => Exit::No,
    })
}
