//! The end of the ledger.

use super::migration::{Ledger, SCHEMA, fault, lock_key};
use crate::fault::{Fault, Reaction, Result, Side};

/// The tables of the ledger, as `cdc.<name>`.
fn tables() -> impl Iterator<Item = &'static str> {
    let created = SCHEMA.lines().filter_map(|line| line.strip_prefix("create table if not exists "));
    created.filter_map(|rest| rest.split(' ').next())
}

impl Ledger {
    /// Takes the daemon's lock, for as long as the session lives; false if a daemon has it, or waits for it.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn lock_out_daemons(&self) -> Result<bool> {
        let row = self
            .session
            .query_one(
                "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity
                                     WHERE application_name = $2 AND datname = pg_catalog.current_database())",
                &[&lock_key(&self.name), &format!("cdc_{} guard", self.name)],
            )
            .await
            .map_err(|e| Fault::sql(Side::Target, "taking the daemon's lock", &e))?;
        Ok(row.get(0))
    }

    /// The migrations that this ledger holds.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn migrations(&self) -> Result<Vec<String>> {
        let rows = self.session.query("SELECT name FROM cdc.migration ORDER BY 1", &[]).await;
        Ok(rows.map_err(|e| fault(&e))?.iter().map(|row| row.get(0)).collect())
    }

    /// Forgets the migration, and removes the ledger itself if it holds no other one.
    ///
    /// # Errors
    /// If the target refuses; nothing is changed then.
    pub async fn remove(&self) -> Result<()> {
        let removed = self.remove_in_transaction().await;
        if removed.is_err() {
            // If that fails, too, the session has ended.
            let _ = self.session.batch_execute("ROLLBACK").await;
        }
        removed
    }

    async fn remove_in_transaction(&self) -> Result<()> {
        let fault = |e| {
            let fault = Fault::sql(Side::Target, "removing the ledger (schema cdc)", &e);
            match fault.code().map(|code| code.code()) {
                Some("2BP01") => {
                    fault.remedy("it isn't ours: drop it or move it elsewhere, then run cdc drop again")
                }
                Some("55P03") => fault
                    .reacting(Reaction::Person)
                    .remedy("end the session that uses the schema cdc (pg_locks), then run cdc drop again"),
                _ => fault,
            }
        };
        // The lock is that of the ledger's making.
        self.session
            .batch_execute(
                "BEGIN; SET LOCAL lock_timeout = '10s';
                 SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('cdc ledger', 0))",
            )
            .await
            .map_err(fault)?;
        self.session
            .execute("DELETE FROM cdc.migration WHERE name = $1", &[&self.name])
            .await
            .map_err(fault)?;
        if self.migrations().await?.is_empty() {
            let tables: Vec<_> = tables().collect();
            let drop = format!("DROP TABLE IF EXISTS {}; DROP SCHEMA cdc", tables.join(", "));
            self.session.batch_execute(&drop).await.map_err(fault)?;
        }
        self.session.batch_execute("COMMIT").await.map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_ledger_is_known() {
        let tables: Vec<_> = tables().collect();
        assert_eq!(tables.len(), SCHEMA.to_lowercase().matches("create table").count());
        assert!(tables.iter().all(|table| table.starts_with("cdc.")), "{tables:?}");
    }
}
