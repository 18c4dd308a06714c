//! What has been told to whoever wants messages.

use serde_json::Value;

use super::migration::{Ledger, fault};
use crate::fault::Result;

impl Ledger {
    /// What was told; `None` if nothing was.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn told(&self) -> Result<Option<Value>> {
        // A ledger that an older version made has no such table.
        let exists = "SELECT pg_catalog.to_regclass('cdc.told') IS NOT NULL";
        if !self.session.query_one(exists, &[]).await.map_err(|e| fault(&e))?.get::<_, bool>(0) {
            return Ok(None);
        }
        let sql = "SELECT state FROM cdc.told WHERE name = $1";
        let row = self.session.query_opt(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Writes that down.
    ///
    /// # Errors
    /// If the target can't be asked, or its ledger isn't one of this version yet.
    pub async fn record_told(&self, state: &Value) -> Result<()> {
        let sql = "INSERT INTO cdc.told (name, state) VALUES ($1, $2)
                   ON CONFLICT (name) DO UPDATE SET state = excluded.state";
        self.session.execute(sql, &[&self.name, state]).await.map_err(|e| fault(&e))?;
        Ok(())
    }
}
