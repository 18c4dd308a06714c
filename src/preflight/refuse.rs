//! What a start refuses of the two servers, and of a ledger and a slot that don't belong to them.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use crate::catalog::TableName;
use crate::connect::Session;
use crate::fault::{COPY_ALL_AGAIN, Fault, Reaction, Result, Side};
use crate::ledger::{self, Checkpoint, Ledger, Origin};
use crate::replication::{Slot, SystemIdentity};

/// Refuses a ledger that belongs to another database.
pub(crate) fn compare_origin(recorded: &Origin, found: &Origin) -> Result<()> {
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

/// The fault that says that an earlier start is still waiting for its slot.
pub(crate) fn still_creating(slot: &str) -> Fault {
    Fault::retry(format!(
        "the replication slot {slot} is still being created for an earlier start; it waits for transactions that run \
         on the source"
    ))
    .on(Side::Source)
}

/// Refuses a slot that doesn't hold what the checkpoint needs. PostgreSQL itself accepts both a
/// start in the future and one in the past, and skips silently.
pub(crate) async fn check_slot(
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

/// Refuses a target that can't be written to, or that is the source.
pub(crate) async fn refuse_target(target: &Session, source: &Session) -> Result<()> {
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
pub(crate) async fn refuse_shared(
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

/// Refuses a pooler that gives a session another backend from one transaction to the next: what we
/// set would be gone for us and hold for others, the switched-off triggers before all.
pub(crate) async fn refuse_pooler(guard: &Session, apply: &Session) -> Result<()> {
    let fault = |e| Fault::sql(Side::Target, "looking for a pooler", &e);
    let mut is_pooled = guard.backend_pid() == apply.backend_pid();
    // Asked in turn: a pooler that hands out the backend used last gives one the other's, and one that
    // hands out the backend used longest ago gives each another.
    for session in [apply, guard, guard, apply] {
        // One message each: a prepared statement's Close would still keep its backend busy.
        let messages = session.simple_query("SELECT pg_catalog.pg_backend_pid()").await.map_err(fault)?;
        let pid = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        is_pooled |= pid != Some(&session.backend_pid().to_string());
    }
    if !is_pooled {
        return Ok(());
    }
    // Settings and lock stay with the backends, which are somebody else's next. One of the two is
    // held by a transaction while the other is cleaned.
    let clean = "RESET ALL; SELECT pg_catalog.pg_advisory_unlock_all()";
    apply.batch_execute(&format!("BEGIN; {clean}")).await.map_err(fault)?;
    guard.batch_execute(clean).await.map_err(fault)?;
    apply.batch_execute("COMMIT").await.map_err(fault)?;
    Err(Fault::person("a pooler in transaction mode is in between: sessions don't keep their backend")
        .on(Side::Target)
        .remedy("use the direct connection to the server (its own port), or a pool in session mode"))
}

/// What has to be known of the source's configuration.
pub(crate) struct SourceSettings {
    /// After how long it gives up a silent walsender; `None` if it is switched off.
    pub(crate) wal_sender_timeout: Option<Duration>,
}

impl SourceSettings {
    /// Reads them, and refuses a source that can't replicate with them.
    pub(crate) async fn read(source: &Session) -> Result<Self> {
        let row = source
            .query_one(
                "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('wal_level'),
                        (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout')",
                &[],
            )
            .await
            .map_err(|e| Fault::sql(Side::Source, "reading the settings", &e))?;
        if row.get(0) {
            return Err(Fault::person(
                "the source is a hot standby, whose snapshots can't be relied on here",
            )
            .on(Side::Source)
            .remedy("connect to the primary"));
        }
        let wal_level: &str = row.get(1);
        if wal_level != "logical" {
            return Err(Fault::person(format!(
                "wal_level is {wal_level}; logical replication needs logical"
            ))
            .on(Side::Source)
            .remedy("ALTER SYSTEM SET wal_level = logical, then restart the source"));
        }
        let millis: i64 = row.get(2);
        Ok(Self {
            wal_sender_timeout: u64::try_from(millis).ok().filter(|ms| *ms > 0).map(Duration::from_millis),
        })
    }
}

/// The fault that says that there is a slot of our name which isn't known to be ours.
pub(crate) fn unknown_slot(slot: &str) -> Fault {
    Fault::person(format!(
        "there is a replication slot {slot} already, which this migration's ledger knows nothing of"
    ))
    .on(Side::Source)
    .remedy(format!(
        "if the ledger (schema cdc on the target) was lost, put it back: the slot holds what it needs. If nothing else \
         uses the slot: SELECT pg_drop_replication_slot('{slot}'); otherwise give this migration another name"
    ))
}
