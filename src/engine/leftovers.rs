//! What an earlier life has left behind on the servers: sessions at work, and a slot in use.

use std::time::Duration;

use super::prepare::application;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::replication::Slot;

/// Waits until the slot is free, and ends a walsender of ours that has outlived its daemon.
pub(crate) async fn free_slot(source: &Session, slot: &str, ours: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + limits::SLOT_FREE;
    loop {
        let Some(Slot { active_pid: Some(pid), active_application, .. }) = Slot::find(source, slot).await?
        else {
            return Ok(());
        };
        if active_application.as_deref() == Some(ours) {
            tracing::info!(pid, "ending a walsender that an earlier start has left on the source");
            source
                .execute("SELECT pg_catalog.pg_terminate_backend($1)", &[&pid])
                .await
                .map_err(|e| Fault::sql(Side::Source, "ending a walsender of an earlier start", &e))?;
        }
        if tokio::time::Instant::now() >= deadline {
            let who = active_application.unwrap_or_default();
            return Err(Fault::retry(format!(
                "the replication slot {slot} is in use by pid {pid} ({who:?})"
            ))
            .on(Side::Source)
            .remedy(format!("stop what uses it, or: SELECT pg_terminate_backend({pid})")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ends sessions of an earlier life that are still at work. The epoch makes them harmless; ending them
/// frees their locks at once. We hold the daemon's lock, so they can't be of a living daemon.
pub(crate) async fn end_leftovers(
    session: &Session,
    side: Side,
    config: &Config,
    parts: &[&str],
) -> Result<()> {
    let applications: Vec<String> = parts.iter().map(|part| application(config, part)).collect();
    let rows = session
        .query(
            "SELECT pid, pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
              WHERE application_name = ANY ($1) AND datname = pg_catalog.current_database()
                AND usename = current_user",
            &[&applications],
        )
        .await
        .map_err(|e| Fault::sql(side, "ending sessions of an earlier start", &e))?;
    for row in rows {
        let pid = row.get::<_, i32>(0);
        tracing::info!(pid, "ended a session that an earlier start had left on the {side}");
    }
    Ok(())
}
