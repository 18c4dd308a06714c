//! The migration itself: what it belongs to, who may write, and what its daemon is doing.

use std::sync::Arc;

use serde::Serialize;

use crate::config::Direction;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::lsn::Lsn;
use crate::pgoutput::PgTimestamp;

/// The statements that make the ledger's tables.
pub(super) const SCHEMA: &str = include_str!("../../sql/ledger.sql");

/// What the daemon's advisory lock on the target is made from, hashed by the server.
#[must_use]
pub fn lock_key(name: &str) -> String {
    format!("cdc daemon {name}")
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Publication, slot and ledger are being made.
    Prepare,
    /// Rows that were there before are being copied, while changes are applied.
    Copy,
    /// The target follows the source.
    Stream,
    /// The switch is under way.
    Cutover,
    /// The old source follows the target.
    Reverse,
    /// Nothing is replicated any more.
    Done,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::Prepare, Self::Copy, Self::Stream, Self::Cutover, Self::Reverse, Self::Done];

    /// That of a migration whose rows are all there, and followed in this direction.
    #[must_use]
    pub fn following(direction: Direction) -> Self {
        match direction {
            Direction::Forward => Self::Stream,
            Direction::Reverse => Self::Reverse,
        }
    }

    /// Its name in the ledger and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Copy => "copy",
            Self::Stream => "stream",
            Self::Cutover => "cutover",
            Self::Reverse => "reverse",
            Self::Done => "done",
        }
    }
}

/// The database that a ledger's positions belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The system identifier that initdb gave the cluster.
    pub system_id: u64,
    /// The timeline: another one after a failover or a point-in-time recovery.
    pub timeline: u32,
    /// The database's name.
    pub database: String,
    /// The replication slot.
    pub slot: String,
}

/// What the daemon is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonState {
    /// Connecting, comparing both ends with the ledger, making what is missing.
    Starting,
    /// Applying what the source sends.
    Streaming,
    /// Something failed that passes by itself; it tries again.
    Retrying,
    /// Something failed that a person must mend; it tries again every 30 s.
    Blocked,
    /// Stopped as asked.
    Stopped,
}

impl DaemonState {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Starting, Self::Streaming, Self::Retrying, Self::Blocked, Self::Stopped];

    /// Its name in the ledger and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Retrying => "retrying",
            Self::Blocked => "blocked",
            Self::Stopped => "stopped",
        }
    }
}

/// The ledger of one migration, through a session to the database it is in.
#[derive(Clone)]
pub struct Ledger {
    pub(super) session: Arc<Session>,
    pub(super) name: String,
}

/// The name of this host.
#[must_use]
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

/// Turns an error of a ledger statement into a fault.
#[must_use]
pub fn fault(error: &tokio_postgres::Error) -> Fault {
    advise(Fault::sql(Side::Target, USING, error))
}

/// How a fault begins that has to do with the ledger.
pub const USING: &str = "using the ledger (schema cdc)";

/// What to do about a statement of the ledger that was refused.
#[must_use]
pub fn advise(fault: Fault) -> Fault {
    match fault.code().map(|code| code.code()) {
        Some("42501") => fault.remedy(
            "the role must own the schema cdc and its tables: connect as the role that began this migration, or ALTER \
             SCHEMA cdc OWNER TO ..., and each of its tables. If it is somebody else's schema, it has to be renamed",
        ),
        Some("3F000" | "42P01" | "42703" | "42804" | "42883") => fault.remedy(
            "the schema cdc is not as this version of cdc makes it. Run the version of cdc that made it; if something \
             was renamed or removed by hand, put it back. If it is somebody else's schema, it has to be renamed",
        ),
        _ => fault,
    }
}

fn not_made(error: &tokio_postgres::Error) -> Fault {
    let fault = Fault::sql(Side::Target, "creating the ledger (schema cdc)", error);
    match fault.code().map(|code| code.code()) {
        Some("42501") => fault.remedy(
            "give the role CREATE on the target database: GRANT CREATE ON DATABASE ... TO ... If there is a schema cdc \
             already, the role must own it; if it is somebody else's, it has to be renamed",
        ),
        Some(code) if code.starts_with("42") => fault.remedy(
            "there is a schema cdc already that is not as this version of cdc makes it. Run the version of cdc that \
             made it; if it is somebody else's schema, it has to be renamed",
        ),
        _ => fault,
    }
}

impl Ledger {
    /// The ledger of the migration `name`; nothing is asked yet.
    #[must_use]
    pub fn new(session: Arc<Session>, name: &str) -> Self {
        Self { session, name: name.to_owned() }
    }

    /// The session to the database that it is in.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Makes the ledger's tables and this migration's rows where they are missing.
    ///
    /// # Errors
    /// If the target refuses: the role needs CREATE on the database for the first start.
    pub async fn create(&self) -> Result<()> {
        self.complete().await?;
        self.session
            .execute(
                "WITH m AS (INSERT INTO cdc.migration (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING name)
                 INSERT INTO cdc.writer (name) SELECT name FROM m",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Makes the tables that are missing: all of them, or those that came with this version.
    pub(super) async fn complete(&self) -> Result<()> {
        // Only then: CREATE ... IF NOT EXISTS wants CREATE on the database even when the schema
        // exists, and says NOTICE for each table.
        let newest = "SELECT pg_catalog.to_regclass('cdc.told') IS NOT NULL
                         AND EXISTS (SELECT FROM pg_catalog.pg_attribute
                                      WHERE attrelid = pg_catalog.to_regclass('cdc.migration') AND attname = 'seen')";
        if self.session.query_one(newest, &[]).await.map_err(|e| fault(&e))?.get(0) {
            return Ok(());
        }
        // Two migrations that start together would collide in the catalogs.
        let sql = format!(
            "BEGIN; SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('cdc ledger', 0)); \
             {SCHEMA} COMMIT"
        );
        let Err(error) = self.session.batch_execute(&sql).await else { return Ok(()) };
        // What is asked next on this session is not to fail because of this. If that fails, too, the session
        // has ended.
        let _ = self.session.batch_execute("ROLLBACK").await;
        Err(not_made(&error))
    }

    /// True if there is a ledger (for this or any other migration).
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn exists(&self) -> Result<bool> {
        let row = self
            .session
            .query_one("SELECT pg_catalog.to_regclass('cdc.migration') IS NOT NULL", &[])
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.get(0))
    }

    /// When the migration began, RFC 3339; `None` if it hasn't.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn begun_at(&self) -> Result<Option<String>> {
        let sql = "SELECT pg_catalog.to_json(created_at) #>> '{}' FROM cdc.migration WHERE name = $1";
        let row = self.session.query_opt(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Begins a new life: waits for the writing transactions of the life before, and makes those
    /// that are still to come fail. `None` if the migration has no ledger yet.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn next_epoch(&self) -> Result<Option<i64>> {
        if !self.exists().await? {
            return Ok(None);
        }
        self.complete().await?;
        let row = self
            .session
            .query_opt(
                "UPDATE cdc.writer SET epoch = epoch + 1 WHERE name = $1 RETURNING epoch",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.map(|row| row.get(0)))
    }

    /// The phase that the ledger holds.
    ///
    /// # Errors
    /// If the target can't be asked, or a newer version wrote a phase unknown to this one.
    pub async fn phase(&self) -> Result<Option<Phase>> {
        let row = self
            .session
            .query_opt("SELECT phase FROM cdc.migration WHERE name = $1", &[&self.name])
            .await
            .map_err(|e| fault(&e))?;
        row.map(|row| {
            let text: &str = row.get(0);
            Phase::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| {
                Fault::person(format!("the ledger holds the phase {text:?}, which this version doesn't know"))
                    .on(Side::Target)
                    .remedy("run the version of cdc that wrote it, or a newer one")
            })
        })
        .transpose()
    }

    /// The database that the ledger's position belongs to; `None` before the slot is asked for.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn origin(&self) -> Result<Option<Origin>> {
        let row = self
            .session
            .query_opt(
                "SELECT source_system_id, source_timeline, source_database, slot_name
                   FROM cdc.migration WHERE name = $1 AND source_system_id IS NOT NULL",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        row.map(|row| {
            let odd = |what| Fault::person(format!("the ledger's {what} is no number")).on(Side::Target);
            Ok(Origin {
                system_id: row.get::<_, &str>(0).parse().map_err(|_| odd("source_system_id"))?,
                timeline: u32::try_from(row.get::<_, i64>(1)).map_err(|_| odd("source_timeline"))?,
                database: row.get(2),
                slot: row.get(3),
            })
        })
        .transpose()
    }

    /// Records which database and slot the migration belongs to, before the slot is made.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_origin(&self, origin: &Origin) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.migration
                    SET source_system_id = $2, source_timeline = $3, source_database = $4, slot_name = $5
                  WHERE name = $1",
                &[
                    &self.name,
                    &origin.system_id.to_string(),
                    &i64::from(origin.timeline),
                    &origin.database,
                    &origin.slot,
                ],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// The publications that the stream is decoded with; none before the stream has begun.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn publications(&self) -> Result<Vec<String>> {
        let row = self
            .session
            .query_one("SELECT publications FROM cdc.migration WHERE name = $1", &[&self.name])
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.get(0))
    }

    /// The publications that were made by us; none if the migration isn't known yet.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn publications_created(&self) -> Result<Vec<String>> {
        let row = self
            .session
            .query_opt("SELECT publications_created FROM cdc.migration WHERE name = $1", &[&self.name])
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.map(|row| row.get(0)).unwrap_or_default())
    }

    /// Records that a publication is about to be made by us.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_publication(&self, publication: &str) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.migration SET publications_created = publications_created || $2::text
                  WHERE name = $1 AND $2 <> ALL (publications_created)",
                &[&self.name, &publication],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Begins the stream: the first checkpoint, the publications and the phase, together. What was
    /// there before is still to be copied.
    ///
    /// Everything committed before `caught_up_to`, by the source's clock, is below `start`.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn begin_stream(
        &self,
        start: Lsn,
        caught_up_to: Option<PgTimestamp>,
        publications: &[String],
    ) -> Result<()> {
        self.session
            .execute(
                "WITH m AS (UPDATE cdc.migration SET phase = 'copy', publications = $3, consistent_since = NULL
                             WHERE name = $1 RETURNING name)
                 INSERT INTO cdc.checkpoint (name, lsn, caught_up_to) SELECT name, $2, $4 FROM m",
                &[&self.name, &start, &publications, &caught_up_to],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Says that the target is a state that the source once had, from now on.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn set_consistent(&self) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.migration SET consistent_since = pg_catalog.now()
                  WHERE name = $1 AND consistent_since IS NULL",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Says that rows are missing on the target, or may be, until [`Ledger::set_consistent`].
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn set_inconsistent(&self) -> Result<()> {
        self.session
            .execute("UPDATE cdc.migration SET consistent_since = NULL WHERE name = $1", &[&self.name])
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// True if the copy has come to its end: the target is consistent, and what was held back for that is
    /// back.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn copy_is_complete(&self) -> Result<bool> {
        let row = self
            .session
            .query_opt(
                "SELECT phase <> 'copy' AND consistent_since IS NOT NULL
                        AND NOT EXISTS (SELECT FROM cdc.held_back AS h
                                         WHERE h.name = m.name AND h.until = 'copy' AND h.put_back_at IS NULL)
                   FROM cdc.migration AS m WHERE name = $1",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.is_some_and(|row| row.get(0)))
    }

    /// Enters a phase.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn set_phase(&self, phase: Phase) -> Result<()> {
        self.session
            .execute("UPDATE cdc.migration SET phase = $2 WHERE name = $1", &[&self.name, &phase.as_str()])
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// True if a daemon of this migration is running now: it holds its lock. Needs no ledger.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn daemon_is_running(&self) -> Result<bool> {
        let row = self
            .session
            .query_one(
                "SELECT EXISTS (
                   SELECT FROM pg_catalog.pg_locks
                    WHERE locktype = 'advisory' AND granted AND objsubid = 1
                      AND database = (SELECT oid FROM pg_catalog.pg_database
                                       WHERE datname = pg_catalog.current_database())
                      AND (classid::bigint << 32) | objid::bigint = pg_catalog.hashtextextended($1, 0))",
                &[&lock_key(&self.name)],
            )
            .await
            .map_err(|e| Fault::sql(Side::Target, "looking for the daemon", &e))?;
        Ok(row.get(0))
    }

    /// Says what the daemon is doing from now on.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn set_state(&self, state: DaemonState, detail: Option<&str>) -> Result<()> {
        self.session
            .execute(
                "INSERT INTO cdc.daemon AS d (name, state, detail, host, pid, version)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (name) DO UPDATE
                    SET state = excluded.state, detail = excluded.detail, host = excluded.host,
                        pid = excluded.pid, version = excluded.version, since = excluded.since
                  WHERE (d.state, d.detail, d.host, d.pid) IS DISTINCT FROM
                        (excluded.state, excluded.detail, excluded.host, excluded.pid)",
                &[
                    &self.name,
                    &state.as_str(),
                    &detail,
                    &host(),
                    &i64::from(std::process::id()),
                    &env!("CARGO_PKG_VERSION"),
                ],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }
}
