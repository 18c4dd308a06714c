//! Rows that somebody has deleted: without them a start would take a migration for a new one, or leave
//! rows out of the copy.

use super::migration::{Ledger, fault};
use crate::fault::{Fault, Result, Side};

/// What is missing, if anything: a migration that has begun has a writer and a checkpoint, and the chunks
/// of each table are in a row, from the lowest key to the highest.
const MISSING: &str = "
    SELECT 'cdc.writer' FROM cdc.migration
     WHERE name = $1 AND name NOT IN (SELECT name FROM cdc.writer)
     UNION ALL
    SELECT 'cdc.checkpoint' FROM cdc.migration
     WHERE name = $1 AND phase <> 'prepare' AND name NOT IN (SELECT name FROM cdc.checkpoint)
     UNION ALL
    SELECT 'cdc.chunk (of ' || t.schema_name || '.' || t.table_name || ')'
      FROM cdc.copy AS t
     WHERE t.name = $1 AND NOT coalesce(
           (SELECT bool_and(is_in_a_row)
              FROM (SELECT range -> 'lower' = lag(range -> 'upper', 1, 'null') OVER in_order
                           AND range -> 'upper' = lead(range -> 'lower', 1, 'null') OVER in_order AS is_in_a_row
                      FROM cdc.chunk AS c WHERE (c.name, c.relation) = (t.name, t.relation)
                    WINDOW in_order AS (ORDER BY ordinal)) AS chunks), false)
     LIMIT 1";

impl Ledger {
    /// Refuses a ledger in which rows of this migration are missing.
    ///
    /// # Errors
    /// If some are, with where, or if the target can't be asked.
    pub async fn refuse_missing_rows(&self) -> Result<()> {
        if !self.exists().await? {
            return Ok(());
        }
        let row = self.session.query_opt(MISSING, &[&self.name]).await.map_err(|e| fault(&e))?;
        let Some(row) = row else { return Ok(()) };
        let table: &str = row.get(0);
        Err(Fault::person(format!("rows of this migration are missing in the ledger: {table}")).on(Side::Target).remedy(
            "somebody has deleted them: put them back from a backup of the target, and the stream goes on where it was. \
             Without them, remove the slot and start the migration anew",
        ))
    }
}
