//! The copy: which tables are in the stream, their chunks, and which of those are on the target.
//!
//! What is written here belongs to the rows that it speaks of and goes into their transaction, under
//! the epoch of this life of the daemon: a reader that has outlived it can't commit any more.

use tokio_postgres::types::Json;
use tokio_postgres::{Client, Row};

use super::incident::FAILING;
use super::migration::{Ledger, fault};
use crate::catalog::TableName;
use crate::chunk::{ChunkId, KeyRange, Snapshot};
use crate::connect::IS_WRITING;
use crate::fault::{Fault, Result, Side};
use crate::lsn::Lsn;

/// A table that is in the stream: its rows are copied, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its oid on the source.
    pub relation: u32,
    /// Its name on the source when it was planned.
    pub name: TableName,
    /// What brought it into the stream then, as [`Published`](crate::catalog::Published) has it.
    pub membership: String,
    /// The leading key columns that its chunks are ranges of; none for a table that is one chunk.
    pub key_columns: Vec<String>,
    /// How many rows there were to copy when it was planned: the server's estimate.
    pub rows_planned: i64,
    /// How large its heap was then, in bytes: the server's estimate.
    pub bytes_planned: i64,
}

/// A chunk as the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerChunk {
    /// Which one.
    pub id: ChunkId,
    /// The keys in it.
    pub range: KeyRange,
    /// If its rows are on the target: the snapshot of the source that they were read under, and a
    /// position that everything the snapshot sees was committed below.
    pub done: Option<(Snapshot, Lsn)>,
    /// How often it was copied.
    pub copies: i32,
}

/// A chunk whose rows are in the open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopiedChunk {
    /// Which one.
    pub id: ChunkId,
    /// How many rows.
    pub rows: i64,
    /// How many bytes of COPY data.
    pub bytes: i64,
}

/// The epoch's row, locked until the transaction ends; none if the epoch is not ours any more, or if
/// the session has lost the setting that keeps triggers from firing (as behind a pooler).
pub(super) fn writer() -> String {
    format!(
        "WITH writer AS (
           SELECT FROM cdc.writer WHERE name = $1 AND epoch = $2 AND {IS_WRITING} FOR SHARE)"
    )
}

/// Takes a table into the stream, with the chunks of these ranges, all pending. Belongs into an open
/// transaction of the target, with whatever was done to the table there.
///
/// # Errors
/// If the ledger can't be used, or isn't ours to write any more: nothing may be committed then.
pub async fn record_table(
    client: &Client,
    name: &str,
    epoch: i64,
    table: &CopiedTable,
    ranges: &[KeyRange],
) -> Result<()> {
    let ranges: Vec<_> = ranges.iter().map(Json).collect();
    let sql = format!(
        "{},
         planned AS (
           INSERT INTO cdc.copy
                  (name, relation, schema_name, table_name, membership, key_columns, rows_planned, bytes_planned)
           SELECT $1, $3, $4, $5, $6, $7, $8, $9 FROM writer
           RETURNING name, relation)
         INSERT INTO cdc.chunk (name, relation, ordinal, range)
         SELECT p.name, p.relation, r.number - 1, r.range
           FROM planned AS p, unnest($10::jsonb[]) WITH ORDINALITY AS r (range, number)",
        writer()
    );
    let recorded = client
        .execute(
            &sql,
            &[
                &name,
                &epoch,
                &table.relation,
                &table.name.schema,
                &table.name.name,
                &table.membership,
                &table.key_columns,
                &table.rows_planned,
                &table.bytes_planned,
                &ranges,
            ],
        )
        .await
        .map_err(|e| fault(&e).table(table.name.to_string()))?;
    all_of(recorded, ranges.len(), "the table's chunks are").map_err(|f| f.table(table.name.to_string()))
}

/// Marks pending chunks as done. Belongs at the end of the transaction of the target that holds their
/// rows, which were read under `snapshot`; everything that it sees was committed below `lsn`.
///
/// # Errors
/// If the ledger can't be used, isn't ours to write any more, or a chunk is not pending: nothing may be
/// committed then.
pub async fn record_done(
    client: &Client,
    name: &str,
    epoch: i64,
    snapshot: &Snapshot,
    lsn: Lsn,
    chunks: &[CopiedChunk],
) -> Result<()> {
    let relations: Vec<u32> = chunks.iter().map(|chunk| chunk.id.relation).collect();
    let ordinals: Vec<i64> = chunks.iter().map(|chunk| i64::from(chunk.id.ordinal)).collect();
    let rows: Vec<i64> = chunks.iter().map(|chunk| chunk.rows).collect();
    let bytes: Vec<i64> = chunks.iter().map(|chunk| chunk.bytes).collect();
    let sql = format!(
        "{}
         UPDATE cdc.chunk AS c
            SET state = 'done', snapshot = $3, lsn = $4, rows = d.rows, bytes = d.bytes, copies = copies + 1,
                started_at = pg_catalog.now(), finished_at = pg_catalog.clock_timestamp()
           FROM writer,
                unnest($5::oid[], $6::bigint[], $7::bigint[], $8::bigint[]) AS d (relation, ordinal, rows, bytes)
          WHERE c.name = $1 AND c.relation = d.relation AND c.ordinal = d.ordinal AND c.state = 'pending'",
        writer()
    );
    let recorded = client
        .execute(&sql, &[&name, &epoch, &snapshot.to_string(), &lsn, &relations, &ordinals, &rows, &bytes])
        .await
        .map_err(|e| fault(&e))?;
    all_of(recorded, chunks.len(), "a copied chunk is")
}

/// Everything was written, or nothing may be committed.
pub(super) fn all_of(recorded: u64, wanted: usize, what: &str) -> Result<()> {
    if usize::try_from(recorded) == Ok(wanted) {
        return Ok(());
    }
    Err(Fault::retry(format!(
        "{what} not ours to record: another daemon of this migration has started since, the stream has taken the \
         chunk back, or the session has lost its settings"
    ))
    .on(Side::Target))
}

/// Sends a chunk back to be copied again, if it has been copied at all: touches one row.
///
/// Parameters: name, relation, ordinal. It goes into the transaction of the batch that made it
/// necessary, whose checkpoint stands up for the epoch.
#[must_use]
pub fn send_back_sql() -> &'static str {
    "UPDATE cdc.chunk
        SET state = 'pending', snapshot = NULL, lsn = NULL, rows = NULL, bytes = NULL, started_at = NULL,
            finished_at = NULL
      WHERE name = $1 AND relation = $2 AND ordinal = $3"
}

impl Ledger {
    /// Takes a table out of the copy, and what was failing of that: it is in the stream no more.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn forget_table(&self, relation: u32) -> Result<()> {
        self.session
            .execute(
                "WITH gone AS (
                   DELETE FROM cdc.copy WHERE name = $1 AND relation = $2 RETURNING schema_name, table_name),
                 left_out AS (
                   INSERT INTO cdc.left_out (name, relation) SELECT $1, $2 FROM gone ON CONFLICT DO NOTHING)
                 UPDATE cdc.incident AS i SET resolved_at = pg_catalog.now()
                   FROM gone
                  WHERE i.name = $1 AND i.severity = $3 AND i.part IN ('plan', 'copy') AND i.resolved_at IS NULL
                    AND i.table_name = gone.schema_name || '.' || gone.table_name",
                &[&self.name, &relation, &FAILING],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// The tables that are in the stream, each with its chunks in their order.
    ///
    /// # Errors
    /// If the target can't be asked, or what it holds can't be read.
    pub async fn copied_tables(&self) -> Result<Vec<(CopiedTable, Vec<LedgerChunk>)>> {
        self.copied(None).await
    }

    /// A table with its chunks in their order; `None` if it has not been taken in.
    ///
    /// # Errors
    /// If the target can't be asked, or what it holds can't be read.
    pub async fn copied_table(&self, relation: u32) -> Result<Option<(CopiedTable, Vec<LedgerChunk>)>> {
        Ok(self.copied(Some(relation)).await?.pop())
    }

    async fn copied(&self, relation: Option<u32>) -> Result<Vec<(CopiedTable, Vec<LedgerChunk>)>> {
        let rows = self
            .session
            .query(
                "SELECT t.relation, t.schema_name, t.table_name, t.key_columns, t.rows_planned, t.bytes_planned,
                        c.ordinal, c.range, c.snapshot, c.lsn, c.copies, t.membership
                   FROM cdc.copy AS t JOIN cdc.chunk AS c USING (name, relation)
                  WHERE name = $1 AND ($2::oid IS NULL OR relation = $2)
                  ORDER BY t.relation, c.ordinal",
                &[&self.name, &relation],
            )
            .await
            .map_err(|e| fault(&e))?;
        let mut tables: Vec<(CopiedTable, Vec<LedgerChunk>)> = Vec::new();
        for row in &rows {
            let chunk = chunk(row)?;
            match tables.last_mut() {
                Some((table, chunks)) if table.relation == chunk.id.relation => chunks.push(chunk),
                Some(_) | None => tables.push((table(row), vec![chunk])),
            }
        }
        Ok(tables)
    }
}

fn table(row: &Row) -> CopiedTable {
    CopiedTable {
        relation: row.get(0),
        name: TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2)),
        membership: row.get(11),
        key_columns: row.get(3),
        rows_planned: row.get(4),
        bytes_planned: row.get(5),
    }
}

fn chunk(row: &Row) -> Result<LedgerChunk> {
    let odd = |what| Fault::person(format!("the ledger's {what} can't be read")).on(Side::Target);
    let snapshot: Option<&str> = row.get(8);
    let snapshot = snapshot.map(str::parse).transpose().map_err(|_| odd("snapshot of a chunk"))?;
    let Json(range) = row.try_get(7).map_err(|_| odd("range of a chunk"))?;
    Ok(LedgerChunk {
        id: ChunkId {
            relation: row.get(0),
            ordinal: u32::try_from(row.get::<_, i32>(6)).map_err(|_| odd("number of a chunk"))?,
        },
        range,
        done: snapshot.zip(row.get(9)),
        copies: row.get(10),
    })
}
