//! Which row is too large to travel: asked only when a server has failed at one, as it doesn't say which.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::names::quote_identifier;
use super::published::PublishedTable;
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// A row by its size.
#[derive(Clone, Debug)]
pub struct LargeRow {
    /// Its table, as `schema.table`.
    pub table: String,
    /// Its key, as `column=value, ...`.
    pub key: String,
    /// About how many bytes its text takes.
    pub bytes: u64,
}

/// The largest row of a table, or of a part of it by a condition, if it is large enough to be the one that
/// a server has failed at.
///
/// Reads the table, but not what is stored outside its rows.
///
/// # Errors
/// If the source can't be asked.
pub async fn largest_row(
    source: &Client,
    table: &PublishedTable,
    condition: Option<&str>,
) -> Result<Option<LargeRow>> {
    let fault = |e| Fault::sql(Side::Source, "looking for the largest row", &e).table(table.name.to_string());
    let row = source
        .query_one(include_str!("../../sql/catalog/row_text_bytes.sql"), &[&table.oid, &table.columns])
        .await
        .map_err(fault)?;
    let key = if table.key.is_empty() { table.columns.get(..1).unwrap_or_default() } else { &table.key };
    let key: Vec<String> = key
        .iter()
        .map(|column| {
            let (name, shown) = (quote_identifier(column), limits::SHOWN_CHARS);
            format!(
                "pg_catalog.format('%s=%s', {}, left({name}::text, {shown}))",
                super::quote_literal(column)
            )
        })
        .collect();
    let sql = format!(
        "SELECT \"cdc bytes\", pg_catalog.concat_ws(', ', {}) FROM (SELECT *, {} AS \"cdc bytes\" FROM {}{}) AS sized
          WHERE \"cdc bytes\" >= {} ORDER BY \"cdc bytes\" DESC LIMIT 1",
        key.join(", "),
        row.get::<_, &str>(0),
        table.name.only(table.is_partitioned),
        condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default(),
        limits::LARGE_ROW_BYTES,
    );
    let answer = source.simple_query(&sql).await.map_err(fault)?;
    let row = answer.iter().find_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None });
    Ok(row.and_then(|row| {
        let bytes = row.get(0)?.parse().ok()?;
        Some(LargeRow { table: table.name.to_string(), key: row.get(1)?.to_owned(), bytes })
    }))
}
