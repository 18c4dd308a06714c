//! In which chunks a table is copied.
//!
//! The boundaries are keys from a sample of the table's pages, weighed by the bytes of their rows: so a
//! chunk is as large in a part of the table with wide rows as in one with narrow ones, whatever gaps the
//! keys have. The source sorts and weighs the sample, and tells only the boundaries.
//!
//! Where the key says nothing of where a row lies (a random uuid, tenants that write in turns), a chunk's
//! rows are on nearly every page, and each chunk reads nearly the whole table. Such a table gets fewer and
//! larger chunks, so that its copy reads it about [`limits::TABLE_READS`] times at most.

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::catalog::{PublishedTable, quote_identifier};
use crate::chunk::{Key, KeyRange, KeyType};
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// What a row takes in a page beside its values: its header and its line pointer.
const ROW_HEADER_BYTES: u32 = 28;

/// How large a page is, unless the server was built otherwise.
const PAGE_BYTES: u64 = 8192;

/// Cuts a table into ranges of about `chunk_bytes` each, or more, which together are every possible key.
///
/// A table without a key for it is one range, and so is a small one, or any if `one_chunk` says so; the
/// source isn't asked then. The session must not be in a transaction.
///
/// # Errors
/// If the source can't be asked, or may not be.
pub async fn plan(
    source: &Client,
    table: &PublishedTable,
    chunk_bytes: u64,
    one_chunk: bool,
) -> Result<Vec<KeyRange>> {
    let chunks = table
        .bytes
        .div_ceil(chunk_bytes.max(1))
        .min(limits::SAMPLE_PAGES / limits::SAMPLE_PAGES_PER_CHUNK_LEAST);
    if one_chunk || chunks <= 1 || table.chunk_key.is_empty() {
        return Ok(vec![KeyRange::ALL]);
    }
    let chunks = affordable(source, table, chunks).await?;
    let rows = ask(source, table, &sample(table, chunks)).await?;
    let keys = rows.iter().map(|row| key(table, row)).collect::<Result<Vec<Key>>>()?;
    // The first of them begins the first chunk, which is open.
    Ok(ranges(keys.into_iter().skip(1)))
}

/// This many chunks, or fewer if so many would read the table too often.
async fn affordable(source: &Client, table: &PublishedTable, chunks: u64) -> Result<u64> {
    let most = limits::TABLE_READS * table.bytes / (table.pages * PAGE_BYTES).max(1);
    if chunks <= most {
        return Ok(chunks);
    }
    let rows = ask(source, table, &visits(table, chunks, most)).await?;
    // No answer if no rows were found: there is little to read then.
    let fewer = rows.first().and_then(|row| row.get(0)?.parse().ok()).unwrap_or(chunks);
    if fewer < chunks {
        tracing::info!(
            table = %table.name,
            "the order of the key is not that of the rows on disk: {fewer} large chunks instead of {chunks}"
        );
    }
    Ok(fewer)
}

async fn ask(source: &Client, table: &PublishedTable, sql: &str) -> Result<Vec<SimpleQueryRow>> {
    let answer = source.simple_query(sql).await.map_err(|e| {
        let fault = Fault::sql(Side::Source, "sampling the keys", &e).table(table.name.to_string());
        match fault.code().map(|code| code.code()) {
            Some("42501") => fault.remedy(
                "connect as the owner of the table, or GRANT SELECT ON it; with row level security the role needs \
                 BYPASSRLS too, or its owner ALTER TABLE ... NO FORCE ROW LEVEL SECURITY",
            ),
            _ => fault,
        }
    })?;
    let row = |message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None };
    Ok(answer.into_iter().filter_map(row).collect())
}

/// The ranges between these keys, which are in their order.
fn ranges(boundaries: impl Iterator<Item = Key>) -> Vec<KeyRange> {
    let mut ranges = Vec::new();
    let mut lower = None;
    for key in boundaries {
        let range = KeyRange { lower, upper: Some(key.clone()) };
        ranges.push(range);
        lower = Some(key);
    }
    ranges.push(KeyRange { lower, upper: None });
    ranges
}

fn key(table: &PublishedTable, row: &SimpleQueryRow) -> Result<Key> {
    let value =
        |(i, key_type): (usize, &KeyType)| row.get(i).and_then(|text| key_type.parse(text.as_bytes()));
    let key: Option<Key> = table.chunk_key.iter().enumerate().map(value).collect();
    key.ok_or_else(|| {
        Fault::bug("a sampled key is not of its column's type").on(Side::Source).table(table.name.to_string())
    })
}

/// The query for the first sampled key of each chunk, in one short transaction that can't write.
///
/// Some pages are read at random (`TABLESAMPLE SYSTEM`, also of a partitioned table) and some of their rows
/// are kept. Equal keys stay together. A key belongs to the chunk that the middle of its weight falls in:
/// one that weighs more than a chunk is alone in its own. A row's weight is its header and its values,
/// those in the TOAST table too: `pg_column_size` knows their size without reading them.
fn sample(table: &PublishedTable, chunks: u64) -> String {
    let pages = limits::SAMPLE_PAGES.min(chunks * limits::SAMPLE_PAGES_PER_CHUNK);
    let (keys, named) = key_columns(table);
    let sizes: String = table
        .columns
        .iter()
        .map(|column| format!(" + coalesce(pg_column_size({}), 0)", quote_identifier(column)))
        .collect();
    let sampled = sampled(table, pages);
    let filter = table.row_filter.as_ref().map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
    let rows = limits::SAMPLE_ROWS;
    format!(
        "SET TRANSACTION READ ONLY;
         SET LOCAL work_mem = '64MB';
         SELECT DISTINCT ON (chunk) {keys}
           FROM (SELECT {keys}, floor((sum(weight) OVER (ORDER BY {keys}) - weight / 2)
                                      / sum(weight) OVER () * {chunks}) AS chunk
                   FROM (SELECT {keys}, sum(weight) AS weight
                           FROM (SELECT {named}, {ROW_HEADER_BYTES}::float8{sizes} AS weight
                                   FROM {sampled}{filter}
                                  ORDER BY random()
                                  LIMIT {rows}) AS sample
                          GROUP BY {keys}) AS weighed) AS placed
          ORDER BY chunk, {keys}"
    )
}

/// The query for the number of chunks, `chunks` halved as often as is needed, with which a page is read
/// at most `most` times on average.
///
/// A page is read by as many chunks as have rows on it: by one, and by one more for each gap between two of
/// its rows, in the order of the key, that has a boundary in it. The more rows of other pages lie in a gap,
/// the more likely it has one. A row filter is no help: what it keeps out of a chunk is read all the same.
fn visits(table: &PublishedTable, chunks: u64, most: u64) -> String {
    let (keys, named) = key_columns(table);
    let sampled = sampled(table, limits::SAMPLE_PAGES_READS);
    let halved = std::iter::successors(Some(chunks), |n| (*n > 1).then_some(n / 2));
    let numbers = halved.map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    format!(
        "SET TRANSACTION READ ONLY;
         SET LOCAL work_mem = '64MB';
         SELECT chunks
           FROM (SELECT greatest(place - lag(place, 1, '-Infinity') OVER (PARTITION BY tableoid, page ORDER BY place)
                                 - 1, 0) / count(*) OVER () AS gap
                   FROM (SELECT tableoid, page, rank() OVER (ORDER BY {keys})::float8 AS place
                           FROM (SELECT tableoid, (ctid::text::point)[0] AS page, {named} FROM {sampled}) AS sample
                        ) AS placed) AS gaps, unnest(ARRAY[{numbers}]) AS chunks
          GROUP BY chunks
         HAVING sum(least(1, gap * chunks)) <= {most} * count(*) FILTER (WHERE gap = 'Infinity')
          ORDER BY chunks DESC
          LIMIT 1"
    )
}

/// The columns of the chunks' key by a short name: as they are used, and as they are named.
fn key_columns(table: &PublishedTable) -> (String, String) {
    let (keys, named): (Vec<String>, Vec<String>) = table
        .chunk_columns()
        .iter()
        .enumerate()
        .map(|(i, column)| (format!("k{i}"), format!("{} AS k{i}", quote_identifier(column))))
        .unzip();
    (keys.join(", "), named.join(", "))
}

/// What to select from for the rows of about so many pages.
fn sampled(table: &PublishedTable, pages: u64) -> String {
    let name = table.name.only(table.is_partitioned);
    // Exact enough: both are far below 2^53.
    let percent = (100.0 * pages as f64 / table.pages.max(1) as f64).min(100.0);
    format!("{name} TABLESAMPLE SYSTEM ({percent})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::KeyValue;

    #[test]
    fn ranges_are_adjacent_and_open_at_both_ends() {
        let key = |value| vec![KeyValue::Integer(value)];
        assert_eq!(ranges(std::iter::empty()), [KeyRange::ALL]);
        assert_eq!(
            ranges([key(-3), key(8)].into_iter()),
            [
                KeyRange { lower: None, upper: Some(key(-3)) },
                KeyRange { lower: Some(key(-3)), upper: Some(key(8)) },
                KeyRange { lower: Some(key(8)), upper: None },
            ]
        );
    }
}
