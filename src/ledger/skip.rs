//! Transactions that the operator lets the daemon pass without applying them.
//!
//! Somebody asks for one by its commit LSN; the daemon drops it when it comes, and records that in
//! the target transaction of the checkpoint that passes it.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::migration::{Ledger, fault, host};
use crate::fault::Result;
use crate::lsn::Lsn;

/// How many changes of each table, by `schema.table`.
pub type ChangesByTable = BTreeMap<String, u64>;

/// A transaction that somebody has asked to skip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skip {
    /// Its commit LSN on the source.
    pub lsn: String,
    /// Why it was asked for.
    pub reason: String,
    /// By whom: the role on the target.
    pub role: String,
    /// The user of the operating system.
    pub os_user: String,
    /// The host that it was asked on.
    pub host: String,
    /// When it was asked for, RFC 3339.
    pub asked_at: String,
    /// When it was skipped, RFC 3339; null if it hasn't been.
    pub skipped_at: Option<String>,
    /// What was dropped: how many changes of each table; null if it hasn't been skipped, or if the source
    /// could not send them.
    pub dropped: Option<ChangesByTable>,
}

/// Records that a transaction was dropped, and closes its incident: touches one row, or none if nobody
/// asks for it any more.
///
/// Parameters: name, commit LSN, the changes of each table or null. It goes into the transaction of the
/// checkpoint that passes it.
#[must_use]
pub fn record_skip_sql() -> &'static str {
    "WITH incident AS (
       UPDATE cdc.incident SET resolved_at = pg_catalog.clock_timestamp()
        WHERE name = $1 AND lsn = $2 AND resolved_at IS NULL)
     UPDATE cdc.skip SET skipped_at = pg_catalog.clock_timestamp(), dropped = $3
      WHERE name = $1 AND lsn = $2 AND skipped_at IS NULL"
}

const COLUMNS: &str = "lsn::text, reason, role, os_user, host, pg_catalog.to_json(asked_at) #>> '{}',
                       pg_catalog.to_json(skipped_at) #>> '{}', dropped";

fn skip(row: &Row) -> Skip {
    Skip {
        lsn: row.get(0),
        reason: row.get(1),
        role: row.get(2),
        os_user: row.get(3),
        host: row.get(4),
        asked_at: row.get(5),
        skipped_at: row.get(6),
        dropped: row.get::<_, Option<Json<_>>>(7).map(|dropped| dropped.0),
    }
}

impl Ledger {
    /// Asks the daemon to skip the transaction that commits at `lsn`; a request that is there stays.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn ask_to_skip(&self, lsn: Lsn, reason: &str, os_user: &str) -> Result<()> {
        self.session
            .execute(
                "INSERT INTO cdc.skip (name, lsn, reason, os_user, host) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
                &[&self.name, &lsn, &reason, &os_user, &host()],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// What is known of the skipping of this transaction; `None` if nobody has asked for it.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn skip(&self, lsn: Lsn) -> Result<Option<Skip>> {
        let sql = format!("SELECT {COLUMNS} FROM cdc.skip WHERE name = $1 AND lsn = $2");
        let row = self.session.query_opt(&sql, &[&self.name, &lsn]).await.map_err(|e| fault(&e))?;
        Ok(row.as_ref().map(skip))
    }

    /// The transactions that are to be skipped when they come, by their commit LSNs.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn skips_to_come(&self) -> Result<Vec<Lsn>> {
        let rows = self
            .session
            .query(
                "SELECT s.lsn FROM cdc.skip AS s JOIN cdc.checkpoint AS c USING (name)
                  WHERE name = $1 AND s.skipped_at IS NULL AND s.lsn >= c.lsn ORDER BY 1",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// How many transactions have been skipped, and the last of them.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn skipped(&self) -> Result<(i64, Option<Skip>)> {
        let sql = format!(
            "SELECT {COLUMNS}, count(*) OVER () FROM cdc.skip WHERE name = $1 AND skipped_at IS NOT NULL
              ORDER BY cdc.skip.skipped_at DESC, cdc.skip.lsn DESC LIMIT 1"
        );
        let row = self.session.query_opt(&sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(row.as_ref().map_or((0, None), |row| (row.get(8), Some(skip(row)))))
    }
}
