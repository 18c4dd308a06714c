//! How the tables are built that the target follows, as [`crate::schema::drift`] has it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Row};

use super::migration::{Ledger, fault};
use crate::fault::{Fault, Result, Side};

/// Records how a table of the copy is built. Belongs into the transaction that has brought the target's table to
/// it.
///
/// # Errors
/// If the ledger can't be used: nothing may be committed then.
pub async fn record_shape<S: Serialize + Sync + std::fmt::Debug>(
    client: &Client,
    name: &str,
    relation: u32,
    shape: &S,
) -> Result<()> {
    client
        .execute(
            "WITH back AS (DELETE FROM cdc.left_out WHERE name = $1 AND relation = $2)
             INSERT INTO cdc.shape (name, relation, shape) SELECT name, relation, $3 FROM cdc.copy
              WHERE name = $1 AND relation = $2
             ON CONFLICT (name, relation) DO UPDATE SET shape = excluded.shape",
            &[&name, &relation, &Json(shape)],
        )
        .await
        .map_err(|e| fault(&e))?;
    Ok(())
}

/// Asks to have a table's rows copied again, unless somebody has asked already. Belongs into an open transaction of
/// the target.
///
/// # Errors
/// If the ledger can't be used: nothing may be committed then.
pub async fn ask_again(client: &Client, name: &str, relation: u32, reason: &str) -> Result<()> {
    client
        .execute(
            "INSERT INTO cdc.repair (name, relation, reason, os_user, host)
             SELECT $1, $2, $3, 'cdc', $4
              WHERE NOT EXISTS (SELECT FROM cdc.repair
                                 WHERE name = $1 AND coalesce(relation, $2) = $2 AND ranges IS NULL
                                   AND begun_at IS NULL AND finished_at IS NULL)",
            &[&name, &relation, &reason, &super::migration::host()],
        )
        .await
        .map_err(|e| fault(&e))?;
    Ok(())
}

fn shape<S: DeserializeOwned>(row: &Row, column: usize) -> Result<Option<S>> {
    let odd = |_| Fault::person("the ledger's shape of a table can't be read (cdc.shape)").on(Side::Target);
    let shape: Option<Json<S>> = row.try_get(column).map_err(odd)?;
    Ok(shape.map(|shape| shape.0))
}

impl Ledger {
    /// The tables of the copy by their oids, with how they are built; none of a table that a version has taken in
    /// which didn't look.
    ///
    /// # Errors
    /// If the target can't be asked, or what it holds can't be read.
    pub async fn shapes<S: DeserializeOwned>(&self) -> Result<Vec<(u32, Option<S>)>> {
        let rows = self
            .session
            .query(
                "SELECT relation, shape FROM cdc.copy LEFT JOIN cdc.shape USING (name, relation) WHERE name = $1",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        rows.iter().map(|row| Ok((row.get(0), shape(row, 1)?))).collect()
    }

    /// How a table of the copy is built; `None` if the ledger doesn't have it.
    ///
    /// # Errors
    /// If the target can't be asked, or what it holds can't be read.
    pub async fn shape<S: DeserializeOwned>(&self, relation: u32) -> Result<Option<S>> {
        let sql = "SELECT shape FROM cdc.shape WHERE name = $1 AND relation = $2";
        let row = self.session.query_opt(sql, &[&self.name, &relation]).await.map_err(|e| fault(&e))?;
        row.map_or(Ok(None), |row| shape(&row, 0))
    }

    /// The tables of which a chunk isn't over, or that are to be copied again.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn unfinished_tables(&self) -> Result<Vec<u32>> {
        let rows = self
            .session
            .query(
                "SELECT relation FROM cdc.chunk AS c JOIN cdc.checkpoint AS k USING (name)
                  WHERE name = $1 AND (state = 'pending' OR c.lsn > k.lsn)
                  UNION SELECT relation FROM cdc.repair WHERE name = $1 AND finished_at IS NULL AND relation IS NOT NULL",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// True if the table was taken out of the stream before, and its rows on the target are ours.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn was_left_out(&self, relation: u32) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM cdc.left_out WHERE name = $1 AND relation = $2)";
        let row = self.session.query_one(sql, &[&self.name, &relation]).await.map_err(|e| fault(&e))?;
        Ok(row.get(0))
    }

    /// Notes that tables are taken out of the stream because they have lost their replica identity.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn note_lost_identity(&self, relations: &[u32]) -> Result<()> {
        self.session
            .execute(
                "INSERT INTO cdc.left_out (name, relation, lost_identity) SELECT $1, unnest($2::oid[]), true
                 ON CONFLICT (name, relation) DO UPDATE SET lost_identity = true",
                &[&self.name, &relations],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// True if one of these tables was taken out of the stream because it has lost its replica identity.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn has_lost_identity(&self, relations: &[u32]) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM cdc.left_out WHERE name = $1 AND relation = ANY ($2) AND lost_identity)";
        let row = self.session.query_one(sql, &[&self.name, &relations]).await.map_err(|e| fault(&e))?;
        Ok(row.get(0))
    }

    /// True if somebody has taken one of these tables out of the publication.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn was_taken_out(&self, relations: &[u32]) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM cdc.left_out
                                   WHERE name = $1 AND relation = ANY ($2) AND NOT lost_identity)
                       OR EXISTS (SELECT FROM cdc.copy AS c LEFT JOIN cdc.left_out AS l USING (name, relation)
                                   WHERE name = $1 AND relation = ANY ($2) AND l.lost_identity IS NOT TRUE)";
        let row = self.session.query_one(sql, &[&self.name, &relations]).await.map_err(|e| fault(&e))?;
        Ok(row.get(0))
    }
}
