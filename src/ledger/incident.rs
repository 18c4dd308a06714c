//! Incidents: what stopped or slowed the replication, kept for the person who looks later.

use std::time::Duration;

use serde::Serialize;

use super::migration::{Ledger, fault};
use crate::catalog::TableName;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::limits;

/// What an incident does to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The stream stands until a person acts.
    Blocked,
    /// The stream goes on as soon as the cause has passed.
    Retrying,
    /// The stream goes on, but something is not as it should be.
    Warning,
}

impl Severity {
    /// Its name in the ledger and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Retrying => "retrying",
            Self::Warning => "warning",
        }
    }

    /// What a fault does to a stream that has been running.
    #[must_use]
    pub fn of(fault: &Fault) -> Self {
        match fault.reaction() {
            Reaction::Retry => Self::Retrying,
            Reaction::Person | Reaction::CopyAgain | Reaction::Usage | Reaction::Bug => Self::Blocked,
        }
    }
}

/// The severity of an incident of [`Ledger::record_failing`].
pub(super) const FAILING: &str = "failing";

/// The part of a table that its rows are, where they were found to differ.
const DIFFERENCE: &str = "rows";

/// What of a table it is that the source has dropped it.
const DROPPED: &str = "dropped";

/// How many incidents of a migration are kept that are over.
const KEPT: i64 = 1000;

/// What slows the replication, and isn't about a table. Of each there is one warning at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slowdown {
    /// The copy waits for somebody's transaction.
    Snapshot,
    /// The slot has used much of the log that the source keeps for it.
    Slot,
    /// The target is further behind than it should be.
    Lag,
}

impl Slowdown {
    /// The part that it is in the ledger.
    fn part(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Slot => "slot",
            Self::Lag => "lag",
        }
    }
}

/// How often an incident was seen, and how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How often.
    pub count: i64,
    /// How long ago it was seen first.
    pub first: Duration,
    /// How long ago it was seen last.
    pub last: Duration,
}

impl Times {
    /// Just now, for the first time.
    pub const NOW: Self = Self { count: 1, first: Duration::ZERO, last: Duration::ZERO };
}

/// The part of a table that a constraint or a unique index is.
#[must_use]
pub fn constraint_part(object: &str) -> String {
    format!("constraint {object}")
}

/// An incident as the ledger holds it. The JSON form of it is part of `cdc status --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    /// Its number in the ledger.
    pub id: i64,
    /// What it does to the stream: `blocked`, `retrying`, `warning`; or `failing`: a part of a table stands
    /// until a person acts, while the stream and everything else go on.
    pub severity: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub remedy: Option<String>,
    /// `source` or `target`.
    pub side: Option<String>,
    /// The SQLSTATE that the server gave.
    pub sqlstate: Option<String>,
    /// The table, as `schema.table`.
    pub table: Option<String>,
    /// The row's key.
    pub key: Option<String>,
    /// The commit LSN of the source's transaction.
    pub lsn: Option<String>,
    /// When it was seen first, RFC 3339.
    pub first_at: String,
    /// When it was seen last, RFC 3339.
    pub last_at: String,
    /// How often.
    pub count: i64,
    /// When it was over, RFC 3339; null while it isn't.
    pub resolved_at: Option<String>,
    /// It was over because the operator had the transaction skipped.
    pub was_skipped: bool,
}

impl Ledger {
    /// Records an incident, or counts it if the same one is still open, or was until a moment ago: what comes and goes
    /// is one incident.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_incident(&self, severity: Severity, incident: &Fault) -> Result<()> {
        self.record_seen(severity, incident, Times::NOW).await
    }

    /// The same of one that could not be recorded when it happened.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_seen(&self, severity: Severity, incident: &Fault, times: Times) -> Result<()> {
        self.record(severity.as_str(), incident, incident.table_name(), None, times).await
    }

    /// Warns of what slows the replication, until it doesn't any more. Takes an earlier warning's place.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_slowdown(&self, slowdown: Slowdown, warning: &Fault) -> Result<()> {
        self.record(Severity::Warning.as_str(), warning, None, Some(slowdown.part()), Times::NOW).await
    }

    /// Closes that warning, if there is one.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn resolve_slowdown(&self, slowdown: Slowdown) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.incident SET resolved_at = pg_catalog.now()
                  WHERE name = $1 AND severity = $2 AND part = $3 AND table_name IS NULL AND resolved_at IS NULL",
                &[&self.name, &Severity::Warning.as_str(), &slowdown.part()],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Records that a part of a table stands until a person acts, while the stream and everything else
    /// go on: `part` is its planning (`plan`), its copy (`copy`), or a constraint that can't be put
    /// back ([`constraint_part`]). Counts the incident
    /// if the same one is still open; if the part fails in another way now, takes the old one's place.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_failing(&self, table: &TableName, part: &str, incident: &Fault) -> Result<()> {
        self.record(FAILING, incident, Some(&table.to_string()), Some(part), Times::NOW).await
    }

    /// Closes the incident of a part that doesn't fail any more, if there is one. A table that is planned is
    /// followed, so nothing is left to warn of.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn resolve_failing(&self, table: &TableName, part: &str) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.incident SET resolved_at = pg_catalog.now()
                  WHERE name = $1 AND table_name = $3 AND resolved_at IS NULL
                    AND (severity = $2 AND part = $4 OR severity = $5 AND part IS NULL AND $4 = 'plan')",
                &[&self.name, &FAILING, &table.to_string(), &part, &Severity::Warning.as_str()],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Warns of a table that was found to differ, until it isn't any more. Takes an earlier warning's place.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_difference(&self, table: &str, difference: &Fault) -> Result<()> {
        self.record_warning(table, DIFFERENCE, difference).await
    }

    /// Closes that warning, if there is one.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn resolve_difference(&self, table: &str) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.incident SET resolved_at = pg_catalog.now()
                  WHERE name = $1 AND severity = $2 AND part = $3 AND table_name = $4 AND resolved_at IS NULL",
                &[&self.name, &Severity::Warning.as_str(), &DIFFERENCE, &table],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Warns of a part of a table, until it is as it should be. Takes an earlier warning's place.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_warning(&self, table: &str, part: &str, warning: &Fault) -> Result<()> {
        self.record(Severity::Warning.as_str(), warning, Some(table), Some(part), Times::NOW).await
    }

    /// Closes the warnings of that part, but for these tables.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn resolve_warnings(&self, part: &str, but_for: &[&str]) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.incident SET resolved_at = pg_catalog.now()
                  WHERE name = $1 AND severity = $2 AND part = $3 AND table_name <> ALL ($4) AND resolved_at IS NULL",
                &[&self.name, &Severity::Warning.as_str(), &part, &but_for],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Warns of a table that the source has dropped, for as long as the target has it.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn record_dropped(&self, table: &TableName) -> Result<()> {
        let warning = Fault::person("the source has dropped the table; the target keeps it, with its rows")
            .on(Side::Target)
            .table(table.to_string())
            .remedy(format!("on the target, when nobody needs its rows: DROP TABLE {}", table.to_sql()));
        self.record_warning(&table.to_string(), DROPPED, &warning).await
    }

    /// Closes the warnings of tables that the target has dropped, too.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn resolve_dropped(&self) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.incident SET resolved_at = pg_catalog.now()
                  WHERE name = $1 AND severity = $2 AND part = $3 AND resolved_at IS NULL
                    AND table_name NOT IN (SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class AS c
                                             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                                            WHERE c.relkind IN ('r', 'p'))",
                &[&self.name, &Severity::Warning.as_str(), &DROPPED],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Closes the incidents of constraints that could not be put back, but for these, each with its
    /// table.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn resolve_constraints(&self, but_for: &[(&TableName, &str)]) -> Result<()> {
        let tables: Vec<String> = but_for.iter().map(|(table, _)| table.to_string()).collect();
        let parts: Vec<String> = but_for.iter().map(|(_, object)| constraint_part(object)).collect();
        self.session
            .execute(
                "UPDATE cdc.incident SET resolved_at = pg_catalog.now()
                  WHERE name = $1 AND severity = $2 AND part LIKE 'constraint %' AND resolved_at IS NULL
                    AND (table_name, part) NOT IN (SELECT * FROM unnest($3::text[], $4::text[]))",
                &[&self.name, &FAILING, &tables, &parts],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    async fn record(
        &self,
        severity: &str,
        incident: &Fault,
        table: Option<&str>,
        part: Option<&str>,
        times: Times,
    ) -> Result<()> {
        let side = incident.side().map(|side| side.to_string());
        let sqlstate = incident.code().map(|code| code.code().to_owned());
        let ages = [times.first, times.last, limits::INCIDENT_REST].map(|age| age.as_secs_f64());
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 14] = [
            &self.name,
            &severity,
            &side,
            &sqlstate,
            &incident.what(),
            &incident.advice(),
            &table,
            &incident.row_key(),
            &incident.position(),
            &part,
            &times.count,
            &ages[0],
            &ages[1],
            &ages[2],
        ];
        let is_new = self
            .session
            .execute(
                "WITH known AS (
                   SELECT id, resolved_at IS NULL AS is_open,
                          message = $5 AND (side, sqlstate, remedy, table_name, row_key, lsn)
                                               IS NOT DISTINCT FROM ($3, $4, $6, $7, $8, $9) AS is_same
                     FROM cdc.incident
                    WHERE name = $1 AND severity = $2 AND part IS NOT DISTINCT FROM $10
                      AND (resolved_at IS NULL OR resolved_at > pg_catalog.now() - $14 * interval '1 second')
                 ),
                 again AS (
                   UPDATE cdc.incident AS i
                      SET count = count + $11, resolved_at = NULL,
                          first_at = least(first_at, pg_catalog.now() - $12 * interval '1 second'),
                          last_at = greatest(last_at, pg_catalog.now() - $13 * interval '1 second')
                    WHERE id = (SELECT id FROM known WHERE is_same ORDER BY is_open DESC, id DESC LIMIT 1)
                   RETURNING id
                 ),
                 over AS (
                   UPDATE cdc.incident AS i SET resolved_at = pg_catalog.now()
                     FROM known
                    WHERE i.id = known.id AND is_open AND NOT is_same AND i.table_name IS NOT DISTINCT FROM $7
                      AND part IS NOT NULL
                 )
                 INSERT INTO cdc.incident (name, severity, side, sqlstate, message, remedy, table_name, row_key, lsn, part,
                                           count, first_at, last_at)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, pg_catalog.now() - $12 * interval '1 second',
                        pg_catalog.now() - $13 * interval '1 second'
                  WHERE NOT EXISTS (SELECT FROM again)",
                &parameters,
            )
            .await
            .map_err(|e| fault(&e))?;
        if is_new > 0 {
            self.forget_incidents().await?;
        }
        Ok(())
    }

    /// Forgets the oldest of those that are over.
    async fn forget_incidents(&self) -> Result<()> {
        self.session
            .execute(
                "DELETE FROM cdc.incident
                  WHERE name = $1 AND resolved_at IS NOT NULL
                    AND id <= (SELECT id FROM cdc.incident WHERE name = $1 AND resolved_at IS NOT NULL
                                ORDER BY id DESC OFFSET $2 LIMIT 1)",
                &[&self.name, &KEPT],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Closes the incidents that kept the stream from going on, now that it does.
    ///
    /// An incident at an LSN is over only when the checkpoint has passed that LSN.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn resolve_incidents(&self) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.incident i SET resolved_at = pg_catalog.now()
                   FROM cdc.checkpoint c
                  WHERE i.name = $1 AND c.name = i.name AND i.resolved_at IS NULL
                    AND i.severity IN ('blocked', 'retrying') AND (i.lsn IS NULL OR i.lsn < c.lsn)",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// How many of them are open.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn open_incidents(&self) -> Result<i64> {
        let sql = "SELECT count(*) FROM cdc.incident WHERE name = $1 AND resolved_at IS NULL";
        Ok(self.session.query_one(sql, &[&self.name]).await.map_err(|e| fault(&e))?.get(0))
    }

    /// The incidents: open ones first, before all those that block, then those that need a person too,
    /// then the latest.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn incidents(&self, most: i64) -> Result<Vec<Incident>> {
        let rows = self
            .session
            .query(
                "SELECT id, severity, message, remedy, side, sqlstate, table_name, row_key, lsn::text,
                        pg_catalog.to_json(first_at) #>> '{}', pg_catalog.to_json(last_at) #>> '{}', count,
                        pg_catalog.to_json(resolved_at) #>> '{}',
                        EXISTS (SELECT FROM cdc.skip AS s
                                 WHERE s.name = i.name AND s.lsn = i.lsn AND s.skipped_at IS NOT NULL)
                   FROM cdc.incident AS i WHERE name = $1
                  ORDER BY resolved_at IS NULL DESC,
                           resolved_at IS NULL AND severity = 'blocked' DESC,
                           resolved_at IS NULL AND severity = 'failing' DESC, last_at DESC, id DESC
                  LIMIT $2",
                &[&self.name, &most],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(rows
            .iter()
            .map(|row| Incident {
                id: row.get(0),
                severity: row.get(1),
                message: row.get(2),
                remedy: row.get(3),
                side: row.get(4),
                sqlstate: row.get(5),
                table: row.get(6),
                key: row.get(7),
                lsn: row.get(8),
                first_at: row.get(9),
                last_at: row.get(10),
                count: row.get(11),
                resolved_at: row.get(12),
                was_skipped: row.get(13),
            })
            .collect())
    }

    /// Notes how many updates and deletes the source has counted for an `insert_only` table, and
    /// returns how many came since the last look. The first look, and one after the source's
    /// statistics were reset, only sets the mark.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn note_missed(&self, table: &str, counted: i64) -> Result<i64> {
        let row = self
            .session
            .query_one(
                "WITH before AS (SELECT missed FROM cdc.insert_only WHERE name = $1 AND table_name = $2),
                 now AS (
                   INSERT INTO cdc.insert_only AS o (name, table_name, missed) VALUES ($1, $2, $3)
                   ON CONFLICT (name, table_name) DO UPDATE SET missed = excluded.missed
                    WHERE o.missed <> excluded.missed
                 )
                 SELECT greatest($3 - coalesce((SELECT missed FROM before), $3), 0)",
                &[&self.name, &table, &counted],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.get(0))
    }
}
