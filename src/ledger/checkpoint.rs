//! The checkpoint: up to where the source has been applied.

use super::migration::{Ledger, fault};
use crate::connect::IS_WRITING;
use crate::fault::Result;
use crate::lsn::Lsn;

/// What the ledger holds of the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything committed below this end LSN is applied.
    pub lsn: Lsn,
}

/// Writes the checkpoint if the epoch is still ours: touches one row then, none otherwise.
///
/// Parameters: name, epoch, LSN, commit time, time caught up to, transactions, changes. It goes into
/// the transaction of the rows that it speaks of (rule C1), and the lock on the epoch's row is held
/// until that commits. Behind a pooler in transaction mode the session's settings can be gone; then
/// triggers have fired for the rows, and nothing may be committed.
#[must_use]
pub fn write_checkpoint_sql() -> String {
    format!(
        "WITH writer AS (SELECT FROM cdc.writer WHERE name = $1 AND epoch = $2 FOR SHARE)
     UPDATE cdc.checkpoint
        SET lsn = $3,
            commit_time = coalesce($4, commit_time),
            caught_up_to = coalesce($5, caught_up_to),
            transactions = transactions + $6,
            changes = changes + $7,
            updated_at = pg_catalog.clock_timestamp()
       FROM writer
      WHERE name = $1 AND lsn <= $3 AND {IS_WRITING}"
    )
}

impl Ledger {
    /// Reads the checkpoint; `None` before the slot was made.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let row = self
            .session
            .query_opt("SELECT lsn FROM cdc.checkpoint WHERE name = $1", &[&self.name])
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.map(|row| Checkpoint { lsn: row.get(0) }))
    }
}
