//! The replication slot on the source: what the server says about it, and how it is made.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::fault::{COPY_ALL_AGAIN, Fault, Reaction, Result, Side};
use crate::lsn::Lsn;

const FREE_A_SLOT: &str = "drop a slot that nobody uses (SELECT slot_name, active FROM pg_replication_slots; \
     SELECT pg_drop_replication_slot('...')) or raise max_replication_slots, which needs a restart";

/// A replication slot as `pg_replication_slots` shows it.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The database it decodes.
    pub database: Option<String>,
    /// Its output plugin.
    pub plugin: Option<String>,
    /// Up to where it may have been forgotten: the flush LSN confirmed last. `None` while the slot
    /// is still being created.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// The oldest WAL that it holds back.
    pub restart_lsn: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost` (PostgreSQL documentation, 54.19).
    pub wal_status: Option<String>,
    /// Why it is lost (from 17 on), `wal_removed` for example.
    pub invalidation_reason: Option<String>,
    /// Bytes of WAL that can still be written before the slot may be lost; `None` without a limit.
    pub safe_wal_size_bytes: Option<i64>,
    /// Who is using it.
    pub active_pid: Option<i32>,
    /// The application name of who is using it.
    pub active_application: Option<String>,
}

impl Slot {
    /// Looks the slot up; `None` if there is none of that name.
    ///
    /// # Errors
    /// If the source can't be asked.
    pub async fn find(source: &Client, name: &str) -> Result<Option<Self>> {
        let row = source
            .query_opt(
                "SELECT s.database::text, s.plugin::text, s.confirmed_flush_lsn, s.restart_lsn, s.wal_status,
                        s.safe_wal_size, s.active_pid, a.application_name,
                        pg_catalog.to_jsonb(s) ->> 'invalidation_reason'
                   FROM pg_catalog.pg_replication_slots s
                   LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
                  WHERE s.slot_name = $1",
                &[&name],
            )
            .await
            .map_err(|e| Fault::sql(Side::Source, "looking for the replication slot", &e))?;
        Ok(row.map(|row| Self {
            database: row.get(0),
            plugin: row.get(1),
            confirmed_flush_lsn: row.get(2),
            restart_lsn: row.get(3),
            wal_status: row.get(4),
            safe_wal_size_bytes: row.get(5),
            active_pid: row.get(6),
            active_application: row.get(7),
            invalidation_reason: row.get(8),
        }))
    }

    /// True if the server has thrown away WAL that the slot needs. There is no way back from that.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }

    /// Refuses a source that has no slot left, before anything is made there.
    ///
    /// # Errors
    /// With what to do, or if the source can't be asked.
    pub async fn check_room(source: &Client) -> Result<()> {
        let row = source
            .query_one(
                "SELECT count(*), pg_catalog.current_setting('max_replication_slots')::bigint
                   FROM pg_catalog.pg_replication_slots",
                &[],
            )
            .await
            .map_err(|e| Fault::sql(Side::Source, "counting the replication slots", &e))?;
        let (used, most): (i64, i64) = (row.get(0), row.get(1));
        if used < most {
            return Ok(());
        }
        Err(Fault::person(format!("all {most} replication slots of the source are in use"))
            .on(Side::Source)
            .sqlstate(SqlState::CONFIGURATION_LIMIT_EXCEEDED)
            .remedy(FREE_A_SLOT))
    }

    /// Removes the slot.
    ///
    /// # Errors
    /// If the source refuses.
    pub async fn remove(source: &Client, name: &str) -> Result<()> {
        source
            .execute("SELECT pg_catalog.pg_drop_replication_slot($1::text::name)", &[&name])
            .await
            .map_err(|e| Fault::sql(Side::Source, &format!("removing the replication slot {name}"), &e))?;
        Ok(())
    }

    /// Makes the slot, through an ordinary session, and returns where its changes begin.
    ///
    /// It waits for the transactions that are running on the source at that moment.
    ///
    /// # Errors
    /// If the source refuses, with what to do.
    pub async fn create(source: &Client, name: &str) -> Result<Lsn> {
        let row = source
            .query_one(
                "SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot($1::text::name, 'pgoutput')",
                &[&name],
            )
            .await
            .map_err(|e| {
                let fault = Fault::sql(Side::Source, &format!("creating the replication slot {name}"), &e);
                match fault.code().map(|code| code.code()) {
                    Some("53400") => fault.reacting(Reaction::Person).remedy(FREE_A_SLOT),
                    Some("42501") => fault.remedy("give the role the REPLICATION attribute: ALTER ROLE ... REPLICATION"),
                    Some("55000") => fault.remedy(
                        "set wal_level = logical on the source and restart it (ALTER SYSTEM SET wal_level = logical)",
                    ),
                    _ => fault,
                }
            })?;
        Ok(row.get(0))
    }

    /// The fault that says that the slot, which has this name, is lost.
    #[must_use]
    pub fn lost(&self, name: &str) -> Fault {
        let (why, setting) = match self.invalidation_reason.as_deref() {
            Some("idle_timeout") => {
                ("has given up a slot that was not used", "idle_replication_slot_timeout")
            }
            _ => ("has removed WAL that was still needed", "max_slot_wal_keep_size"),
        };
        Fault::new(
            Reaction::CopyAgain,
            format!(
                "the replication slot {name} is lost: the server {why} ({setting}), so changes are missing and can't be \
                 had any more"
            ),
        )
        .on(Side::Source)
        .remedy(format!(
            "the rows have to be copied again: raise {setting} on the source, then {COPY_ALL_AGAIN}"
        ))
    }
}
