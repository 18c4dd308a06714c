//! Whether the source is the one that the ledger speaks of, and the slot holds what the checkpoint needs.

use std::time::Duration;

use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Checkpoint, Origin};
use crate::limits;
use crate::replication::{Slot, SystemIdentity};

/// Refuses a ledger that belongs to another database.
pub(super) fn compare_origin(recorded: &Origin, found: &Origin) -> Result<()> {
    let differs = |what: &str, recorded: &str, found: &str, remedy: &str| {
        Err(Fault::person(format!(
            "the ledger belongs to another {what}: it was made for {recorded}, this is {found}"
        ))
        .on(Side::Source)
        .remedy(remedy))
    };
    let connect_elsewhere = "connect to the source that this migration began with, or give the new one another name \
                             (name in the configuration)";
    if recorded.system_id != found.system_id {
        let (was, is) = (recorded.system_id.to_string(), found.system_id.to_string());
        return differs("server (system identifier)", &was, &is, connect_elsewhere);
    }
    if recorded.database != found.database {
        return differs("database", &recorded.database, &found.database, connect_elsewhere);
    }
    if recorded.slot != found.slot {
        return differs("slot", &recorded.slot, &found.slot, connect_elsewhere);
    }
    if recorded.timeline != found.timeline {
        let (was, is) = (recorded.timeline.to_string(), found.timeline.to_string());
        return differs(
            "timeline",
            &was,
            &is,
            "the source was restored from a backup or failed over to a standby: positions of before mean nothing now, \
             and transactions may be missing there. The rows have to be copied again: start the migration anew",
        );
    }
    Ok(())
}

pub(super) fn still_creating(slot: &str) -> Fault {
    Fault::retry(format!(
        "the replication slot {slot} is still being created for an earlier start; it waits for transactions that run \
         on the source"
    ))
    .on(Side::Source)
}

/// Refuses a slot that doesn't hold what the checkpoint needs. PostgreSQL itself accepts both a
/// start in the future and one in the past, and skips silently.
pub(super) async fn check_slot(
    source: &Session,
    origin: &Origin,
    checkpoint: Checkpoint,
    identity: &SystemIdentity,
) -> Result<()> {
    let again = |what: String| {
        Err(Fault::new(Reaction::CopyAgain, what).on(Side::Source).remedy(
            "changes are missing that can't be had any more: remove the slot and start the migration anew",
        ))
    };
    let Some(slot) = Slot::find(source, &origin.slot).await? else {
        return again(format!(
            "the replication slot {} is gone: dropped by hand, by an upgrade, or by the provider",
            origin.slot
        ));
    };
    if slot.is_lost() {
        return Err(Slot::lost(&origin.slot));
    }
    if slot.database.as_deref() != Some(&origin.database) || slot.plugin.as_deref() != Some("pgoutput") {
        return again(format!(
            "the replication slot {} is another one now: it decodes {} with {}",
            origin.slot,
            slot.database.as_deref().unwrap_or("no database"),
            slot.plugin.as_deref().unwrap_or("no plugin"),
        ));
    }
    let Some(confirmed) = slot.confirmed_flush_lsn else { return Err(still_creating(&origin.slot)) };
    if confirmed > checkpoint.lsn {
        return again(format!(
            "the replication slot {} has been confirmed up to {confirmed}, but the target holds changes only up to the \
             checkpoint, {}: the target was restored from a backup, or something else has used the slot",
            origin.slot, checkpoint.lsn
        ));
    }
    if checkpoint.lsn > identity.flush_lsn {
        return again(format!(
            "the source's log ends at {}, before the checkpoint, {}: the source was restored from a backup",
            identity.flush_lsn, checkpoint.lsn
        ));
    }
    Ok(())
}

/// Waits until the slot is free, and ends a walsender of ours that has outlived its daemon.
pub(super) async fn free_slot(source: &Session, slot: &str, ours: &str) -> Result<()> {
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
