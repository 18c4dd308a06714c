//! Whether the databases are the ones that the ledger speaks of, and the slot holds what the checkpoint needs.

use std::time::Duration;

use crate::catalog::TableName;
use crate::connect::Session;
use crate::fault::{COPY_ALL_AGAIN, Fault, Reaction, Result, Side};
use crate::ledger::{self, Checkpoint, Ledger, Origin};
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
        let remedy =
            format!("{connect_elsewhere}. If it is that source, restored from a backup: {COPY_ALL_AGAIN}");
        return differs("server (system identifier)", &was, &is, &remedy);
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
            &format!(
                "the source was restored from a backup or failed over to a standby: positions of before mean nothing \
                 now, and transactions may be missing there. The rows have to be copied again: {COPY_ALL_AGAIN}"
            ),
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
        Err(Fault::new(Reaction::CopyAgain, what)
            .on(Side::Source)
            .remedy(format!("changes are missing that can't be had any more: {COPY_ALL_AGAIN}")))
    };
    let Some(slot) = Slot::find(source, &origin.slot).await? else {
        return again(format!(
            "the replication slot {} is gone: dropped by hand, by an upgrade, or by the provider",
            origin.slot
        ));
    };
    if slot.is_lost() {
        return Err(slot.lost(&origin.slot));
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

/// Refuses a target that can't be written to, or that is the source.
pub(super) async fn refuse_target(target: &Session, source: &Session) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_database()::text,
                      pg_catalog.pg_postmaster_start_time()";
    let row = target
        .query_one(sql, &[])
        .await
        .map_err(|e| Fault::sql(Side::Target, "looking at the server", &e))?;
    if row.get(0) {
        return Err(Fault::person("the target is a hot standby, which can't be written to")
            .on(Side::Target)
            .remedy("connect to the primary, or promote it"));
    }
    // Of two servers, one may be the other's copy; but no two have started in the same microsecond.
    let identity =
        |row: &tokio_postgres::Row| (row.get::<_, String>(1), row.get::<_, std::time::SystemTime>(2));
    let other = source
        .query_one(sql, &[])
        .await
        .map_err(|e| Fault::sql(Side::Source, "looking at the server", &e))?;
    if identity(&row) == identity(&other) {
        return Err(Fault::person("source and target are the same database")
            .on(Side::Target)
            .remedy("check both connection strings (and CDC_SOURCE_URL, CDC_TARGET_URL)"));
    }
    Ok(())
}

/// Refuses tables of the target that another migration in the same ledger fills.
pub(super) async fn refuse_shared(
    target: &Session,
    targets: &[TableName],
    ledger: &Ledger,
    name: &str,
) -> Result<()> {
    if !ledger.exists().await? {
        return Ok(());
    }
    let tables: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let row = target
        .query_opt(
            "SELECT schema_name || '.' || table_name, name FROM cdc.copy
              WHERE name <> $1 AND schema_name || '.' || table_name = ANY ($2) ORDER BY 1 LIMIT 1",
            &[&name, &tables],
        )
        .await
        .map_err(|e| ledger::fault(&e))?;
    let Some(row) = row else { return Ok(()) };
    let (table, other): (String, String) = (row.get(0), row.get(1));
    Err(Fault::person(format!("the migration {other:?} replicates into this table already")).on(Side::Target).table(table)
        .remedy(format!(
            "run that one (name = {other:?}), or exclude its tables here; if it was given up, remove its slot and: \
             DELETE FROM cdc.migration WHERE name = '{other}'"
        )))
}
