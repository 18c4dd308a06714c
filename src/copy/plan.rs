//! In which chunks a table is copied.
//!
//! The boundaries are keys from a sample of the table's pages, weighed by the bytes of their rows: so a
//! chunk is as large in a part of the table with wide rows as in one with narrow ones, whatever gaps the
//! keys have. The source sorts and weighs the sample, and tells only the boundaries.

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::catalog::{PublishedTable, quote_identifier};
use crate::chunk::{Key, KeyRange, KeyType};
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// What a row takes in a page beside its values: its header and its line pointer.
const ROW_HEADER_BYTES: u32 = 28;

/// Cuts a table into ranges of about `chunk_bytes` each, which together are every possible key.
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
    let answer = source.simple_query(&sample(table, chunks)).await.map_err(|e| {
        let fault = Fault::sql(Side::Source, "sampling the keys", &e).table(table.name.to_string());
        match fault.code().map(|code| code.code()) {
            Some("42501") => fault.remedy(
                "connect as the owner of the table, or GRANT SELECT ON it; with row level security the role needs \
                 BYPASSRLS too",
            ),
            _ => fault,
        }
    })?;
    let keys = answer
        .iter()
        .filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None })
        .map(|row| key(table, row))
        .collect::<Result<Vec<Key>>>()?;
    // The first of them begins the first chunk, which is open.
    Ok(ranges(keys.into_iter().skip(1)))
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
    // Exact enough: both are far below 2^53.
    let percent = (100.0 * pages as f64 / table.pages.max(1) as f64).min(100.0);
    let (keys, named): (Vec<String>, Vec<String>) = table
        .chunk_columns()
        .iter()
        .enumerate()
        .map(|(i, column)| (format!("k{i}"), format!("{} AS k{i}", quote_identifier(column))))
        .unzip();
    let (keys, named) = (keys.join(", "), named.join(", "));
    let sizes: String = table
        .columns
        .iter()
        .map(|column| format!(" + coalesce(pg_column_size({}), 0)", quote_identifier(column)))
        .collect();
    let name = table.name.only(table.is_partitioned);
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
                                   FROM {name} TABLESAMPLE SYSTEM ({percent}){filter}
                                  ORDER BY random()
                                  LIMIT {rows}) AS sample
                          GROUP BY {keys}) AS weighed) AS placed
          ORDER BY chunk, {keys}"
    )
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
