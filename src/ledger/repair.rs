//! Rows that are to be copied again because somebody asks for it.
//!
//! A command asks; the daemon, which alone has the epoch, makes chunks of it that are pending. From there
//! on it is the copy.

use serde::Serialize;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Row};

use super::copy::{CopiedTable, all_of, writer};
use super::migration::{Ledger, Origin, fault, host};
use crate::chunk::KeyRange;
use crate::fault::{Fault, Result, Side};

/// What somebody asks to have copied again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// A table, by its oid on the source; `None` for everything, from a new slot on.
    pub relation: Option<u32>,
    /// Ranges of its key; `None` for all of its rows.
    pub ranges: Option<Vec<KeyRange>>,
    /// The columns that the ranges are of.
    pub key_columns: Vec<String>,
}

/// A request, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Its number.
    pub id: i64,
    /// What is copied again.
    #[serde(skip)]
    pub again: Again,
    /// The table, as `schema.table`; null for everything, or if it isn't in the stream any more.
    pub table: Option<String>,
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
    /// When its chunks were made pending, RFC 3339; null if they haven't been.
    pub begun_at: Option<String>,
    /// When it was over, RFC 3339; null if it isn't.
    pub finished_at: Option<String>,
    /// Why it was refused; null if it wasn't.
    pub error: Option<String>,
}

/// A chunk of a table of which something is copied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairedChunk<'a> {
    /// The keys in it.
    pub range: &'a KeyRange,
    /// The place of the chunk of before that its first key was in.
    pub was: usize,
    /// It is pending from now on; if not, it is as that one was.
    pub is_pending: bool,
}

/// A chunk of the table isn't over: to be copied, or the checkpoint hasn't come to where it was read.
const NOT_OVER: &str = "EXISTS (
    SELECT FROM cdc.chunk AS c JOIN cdc.checkpoint AS k USING (name)
     WHERE c.name = r.name AND c.relation = r.relation AND (c.state = 'pending' OR c.lsn > k.lsn))";

/// Gives a table other chunks, some of which are pending, as the request asks. Belongs into an open
/// transaction of the target.
///
/// # Errors
/// If the ledger can't be used, isn't ours to write any more, or the request isn't open any more: nothing may
/// be committed then.
pub async fn record_repair(
    client: &Client,
    name: &str,
    epoch: i64,
    request: i64,
    table: &CopiedTable,
    chunks: &[RepairedChunk<'_>],
) -> Result<()> {
    let fault = |e| fault(&e).table(table.name.to_string());
    let sql = format!(
        "{}
         UPDATE cdc.repair AS r SET begun_at = pg_catalog.clock_timestamp()
           FROM writer WHERE r.name = $1 AND id = $3 AND begun_at IS NULL AND finished_at IS NULL",
        writer()
    );
    let begun = client.execute(&sql, &[&name, &epoch, &request]).await.map_err(fault)?;
    all_of(begun, 1, "the repair is")?;
    client
        .execute(
            "UPDATE cdc.copy SET key_columns = $3, rows_planned = $4, bytes_planned = $5
              WHERE name = $1 AND relation = $2",
            &[&name, &table.relation, &table.key_columns, &table.rows_planned, &table.bytes_planned],
        )
        .await
        .map_err(fault)?;
    // Out of the way of the new numbers.
    client
        .execute(
            "UPDATE cdc.chunk SET ordinal = -1 - ordinal WHERE name = $1 AND relation = $2",
            &[&name, &table.relation],
        )
        .await
        .map_err(fault)?;
    let ranges: Vec<_> = chunks.iter().map(|chunk| Json(chunk.range)).collect();
    let was: Vec<i64> = chunks.iter().map(|chunk| i64::try_from(chunk.was).unwrap_or(i64::MAX)).collect();
    let is_pending: Vec<bool> = chunks.iter().map(|chunk| chunk.is_pending).collect();
    let recorded = client
        .execute(
            "WITH piece AS (
               SELECT c.*, n.range AS keys, n.number, n.is_pending OR c.state = 'pending' AS is_pending,
                      n.is_pending OR n.number > min(n.number) OVER (PARTITION BY n.was, n.is_pending) AS is_elsewhere
                 FROM unnest($3::jsonb[], $4::bigint[], $5::bool[]) WITH ORDINALITY AS n (range, was, is_pending, number)
                 JOIN cdc.chunk AS c ON c.name = $1 AND c.relation = $2 AND c.ordinal = -1 - n.was)
             INSERT INTO cdc.chunk (name, relation, ordinal, range, state, snapshot, lsn, rows, bytes, started_at,
                                    finished_at, copies)
             SELECT name, relation, number - 1, keys, CASE WHEN is_pending THEN 'pending' ELSE state END,
                    CASE WHEN NOT is_pending THEN snapshot END, CASE WHEN NOT is_pending THEN lsn END,
                    CASE WHEN NOT is_elsewhere THEN rows END, CASE WHEN NOT is_elsewhere THEN bytes END,
                    CASE WHEN NOT is_pending THEN started_at END, CASE WHEN NOT is_pending THEN finished_at END, copies
               FROM piece",
            &[&name, &table.relation, &ranges, &was, &is_pending],
        )
        .await
        .map_err(fault)?;
    all_of(recorded, chunks.len(), "the table's chunks are")?;
    client
        .execute(
            "DELETE FROM cdc.chunk WHERE name = $1 AND relation = $2 AND ordinal < 0",
            &[&name, &table.relation],
        )
        .await
        .map_err(fault)?;
    Ok(())
}

const COLUMNS: &str = "r.id, r.relation, r.ranges, r.key_columns, t.schema_name || '.' || t.table_name, r.reason,
                       r.role, r.os_user, r.host, pg_catalog.to_json(r.asked_at) #>> '{}',
                       pg_catalog.to_json(r.begun_at) #>> '{}', pg_catalog.to_json(r.finished_at) #>> '{}', r.error";

fn repair(row: &Row) -> Result<Repair> {
    let odd = |_| Fault::person("the ranges of a repair can't be read (cdc.repair)").on(Side::Target);
    let ranges: Option<Json<Vec<KeyRange>>> = row.try_get(2).map_err(odd)?;
    Ok(Repair {
        id: row.get(0),
        again: Again { relation: row.get(1), ranges: ranges.map(|ranges| ranges.0), key_columns: row.get(3) },
        table: row.get(4),
        reason: row.get(5),
        role: row.get(6),
        os_user: row.get(7),
        host: row.get(8),
        asked_at: row.get(9),
        begun_at: row.get(10),
        finished_at: row.get(11),
        error: row.get(12),
    })
}

impl Ledger {
    /// Asks the daemon to copy something again; gives the number of the request.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn ask_repair(&self, again: &Again, reason: &str, os_user: &str) -> Result<i64> {
        self.complete().await?;
        let row = self
            .session
            .query_one(
                "INSERT INTO cdc.repair (name, relation, ranges, key_columns, reason, os_user, host)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
                &[
                    &self.name,
                    &again.relation,
                    &again.ranges.as_ref().map(Json),
                    &again.key_columns,
                    &reason,
                    &os_user,
                    &host(),
                ],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.get(0))
    }

    async fn select_repairs(&self, wanted: &str) -> Result<Vec<Repair>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM cdc.repair AS r LEFT JOIN cdc.copy AS t USING (name, relation)
              WHERE r.name = $1 AND {wanted} ORDER BY r.id"
        );
        let rows = self.session.query(&sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        rows.iter().map(repair).collect()
    }

    /// All that was ever asked for, in its order.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn repairs(&self) -> Result<Vec<Repair>> {
        self.select_repairs("true").await
    }

    /// What is asked for and not yet over. None in a ledger of a version that knew nothing of it.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn open_repairs(&self) -> Result<Vec<Repair>> {
        let known = "SELECT pg_catalog.to_regclass('cdc.repair') IS NOT NULL";
        if !self.session.query_one(known, &[]).await.map_err(|e| fault(&e))?.get::<_, bool>(0) {
            return Ok(Vec::new());
        }
        self.select_repairs("r.finished_at IS NULL").await
    }

    /// What the daemon is to begin while it streams: everything, or a part of a table all of whose chunks are
    /// over.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn repairs_to_begin(&self) -> Result<Vec<Repair>> {
        self.select_repairs(&format!("r.finished_at IS NULL AND r.begun_at IS NULL AND NOT {NOT_OVER}")).await
    }

    /// Closes the requests whose rows are there: everything that was read is applied, too.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn finish_repairs(&self) -> Result<()> {
        let sql = format!(
            "UPDATE cdc.repair AS r SET finished_at = pg_catalog.clock_timestamp()
               FROM cdc.migration AS m
              WHERE r.name = $1 AND m.name = r.name AND r.begun_at IS NOT NULL AND r.finished_at IS NULL
                AND CASE WHEN r.relation IS NULL THEN m.consistent_since IS NOT NULL ELSE NOT {NOT_OVER} END"
        );
        self.session.execute(&sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Refuses a request for good.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn refuse_repair(&self, request: i64, why: &Fault) -> Result<()> {
        self.session
            .execute(
                "UPDATE cdc.repair SET finished_at = pg_catalog.clock_timestamp(), error = $3
                  WHERE name = $1 AND id = $2 AND begun_at IS NULL AND finished_at IS NULL",
                &[&self.name, &request, &why.to_string()],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Everything is copied again, whatever was asked for: what the ledger knows of the copy and of the
    /// position is forgotten, together with the record that this was done. The slot must be gone by now.
    ///
    /// # Errors
    /// If the target can't be asked; nothing is changed then.
    pub async fn start_over(&self, origin: &Origin) -> Result<()> {
        self.session
            .execute(
                "WITH repair AS (
                   UPDATE cdc.repair SET begun_at = pg_catalog.clock_timestamp()
                    WHERE name = $1 AND finished_at IS NULL),
                 copy AS (DELETE FROM cdc.copy WHERE name = $1),
                 checkpoint AS (DELETE FROM cdc.checkpoint WHERE name = $1),
                 skip AS (DELETE FROM cdc.skip WHERE name = $1 AND skipped_at IS NULL),
                 incident AS (
                   UPDATE cdc.incident SET resolved_at = pg_catalog.now() WHERE name = $1 AND resolved_at IS NULL)
                 UPDATE cdc.migration
                    SET phase = 'prepare', consistent_since = NULL, publications = '{}', source_system_id = $2,
                        source_timeline = $3, source_database = $4, slot_name = $5
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

    /// True while everything is being copied again, over the rows that are there.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn is_starting_over(&self) -> Result<bool> {
        let begun = self.open_repairs().await?;
        Ok(begun.iter().any(|repair| repair.again.relation.is_none() && repair.begun_at.is_some()))
    }
}
