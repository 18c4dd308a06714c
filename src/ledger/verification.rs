//! Verifications: what a comparison asks while it runs, and what has become of each.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::migration::{Ledger, fault, lock_key};
use crate::connect::Session;
use crate::fault::Result;
use crate::lsn::Lsn;

/// How many verifications of a migration are kept.
const KEPT: i64 = 10;

/// The daemon and its checkpoint at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonNow {
    /// It holds its lock.
    pub is_running: bool,
    /// What it said last; empty if it has never run.
    pub state: String,
    /// Why.
    pub detail: Option<String>,
    /// Everything committed below this end LSN is applied; `None` before the slot was made.
    pub checkpoint: Option<Lsn>,
}

/// A verification that has ended, as `cdc status --json` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub finished_at: String,
    /// `same`, `different` or `not_compared`.
    pub outcome: String,
    /// Tables, those that were not compared included.
    pub tables: i64,
    /// Rows of the source that were compared.
    pub rows: i64,
    /// Differences that were found: at least so many.
    pub differences: i64,
    /// Tables that could not be compared.
    pub not_compared: i64,
}

impl Ledger {
    /// The same ledger on another session.
    #[must_use]
    pub fn on(&self, session: Arc<Session>) -> Self {
        Self { session, name: self.name.clone() }
    }

    /// The migration's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The daemon and its checkpoint now; `None` if the ledger has no such migration.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn daemon_now(&self) -> Result<Option<DaemonNow>> {
        let row = self
            .session
            .query_opt(
                "SELECT coalesce(d.state, ''), c.lsn, d.detail,
                        EXISTS (
                          SELECT FROM pg_catalog.pg_locks
                           WHERE locktype = 'advisory' AND granted AND objsubid = 1
                             AND database = (SELECT oid FROM pg_catalog.pg_database
                                              WHERE datname = pg_catalog.current_database())
                             AND (classid::bigint << 32) | objid::bigint = pg_catalog.hashtextextended($2, 0))
                   FROM cdc.migration AS m
                   LEFT JOIN cdc.daemon AS d USING (name)
                   LEFT JOIN cdc.checkpoint AS c USING (name)
                  WHERE name = $1",
                &[&self.name, &lock_key(&self.name)],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.map(|row| DaemonNow {
            state: row.get(0),
            checkpoint: row.get(1),
            detail: row.get(2),
            is_running: row.get(3),
        }))
    }

    /// When the last chunk of these tables was copied, as the target's clock had it; `None` while one of them is
    /// not on the target, or is no more in the stream.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn copied_at(&self, relations: &[u32]) -> Result<Option<String>> {
        let row = self
            .session
            .query_one(
                "SELECT CASE WHEN bool_and(state = 'done') AND count(DISTINCT relation) = pg_catalog.cardinality($2::oid[])
                             THEN max(finished_at)::text END
                   FROM cdc.chunk WHERE name = $1 AND relation = ANY ($2::oid[])",
                &[&self.name, &relations],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.get(0))
    }

    /// Records a verification, with its report, and forgets old ones.
    ///
    /// # Errors
    /// If the target can't be asked, or its ledger was made by an older version and no daemon of this one has
    /// run yet.
    pub async fn record_verification(&self, verification: &Verification, report: &Value) -> Result<()> {
        let v = verification;
        self.session
            .execute(
                "INSERT INTO cdc.verification
                        (name, started_at, finished_at, outcome, tables, rows, differences, not_compared, report)
                 VALUES ($1, $2::text::timestamptz, $3::text::timestamptz, $4, $5, $6, $7, $8, $9)",
                &[
                    &self.name,
                    &v.started_at,
                    &v.finished_at,
                    &v.outcome,
                    &v.tables,
                    &v.rows,
                    &v.differences,
                    &v.not_compared,
                    report,
                ],
            )
            .await
            .map_err(|e| fault(&e))?;
        self.session
            .execute(
                "DELETE FROM cdc.verification
                  WHERE name = $1
                    AND id <= (SELECT id FROM cdc.verification WHERE name = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)",
                &[&self.name, &KEPT],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// How long ago a verification was recorded last; `None` if there was none.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn since_verification(&self) -> Result<Option<Duration>> {
        let row = self
            .session
            .query_one(
                "SELECT extract(epoch FROM pg_catalog.now() - max(recorded_at))::float8
                   FROM cdc.verification WHERE name = $1",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.get::<_, Option<f64>>(0).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }

    /// What came out of the last verification of everything, and how long ago; `None` if there was none.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn last_of_everything(&self) -> Result<Option<(String, Duration)>> {
        let row = self
            .session
            .query_opt(
                "SELECT outcome, extract(epoch FROM pg_catalog.now() - recorded_at)::float8
                   FROM cdc.verification
                  WHERE name = $1 AND pg_catalog.jsonb_typeof(report -> 'besides') = 'object'
                  ORDER BY id DESC LIMIT 1",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.map(|row| (row.get(0), Duration::try_from_secs_f64(row.get::<_, f64>(1)).unwrap_or_default())))
    }

    /// The verification that has ended last; `None` if there was none.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn last_verification(&self) -> Result<Option<Verification>> {
        // A ledger that an older version made has no such table.
        let exists = "SELECT pg_catalog.to_regclass('cdc.verification') IS NOT NULL";
        if !self.session.query_one(exists, &[]).await.map_err(|e| fault(&e))?.get::<_, bool>(0) {
            return Ok(None);
        }
        let row = self
            .session
            .query_opt(
                "SELECT pg_catalog.to_json(started_at) #>> '{}', pg_catalog.to_json(finished_at) #>> '{}', outcome,
                        tables, rows, differences, not_compared
                   FROM cdc.verification WHERE name = $1 ORDER BY id DESC LIMIT 1",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.map(|row| Verification {
            started_at: row.get(0),
            finished_at: row.get(1),
            outcome: row.get(2),
            tables: row.get(3),
            rows: row.get(4),
            differences: row.get(5),
            not_compared: row.get(6),
        }))
    }
}
