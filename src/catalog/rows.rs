//! The rows that the target's tables have before anything is copied.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::names::TableName;
use crate::fault::{Fault, Result, Side};

/// Which of these tables of the target have a row; of partitioned ones, which have one in a partition.
///
/// # Errors
/// If the target can't be asked, one of the tables isn't there, or its rows can't be read.
pub async fn rows_exist(target: &Client, tables: &[TableName]) -> Result<Vec<TableName>> {
    let fault = |e| {
        let fault = Fault::sql(Side::Target, "looking for rows that are there already", &e);
        match fault.code().map(|code| code.code()) {
            Some("42501") => fault.remedy("connect as the owner of the table, or GRANT SELECT ON it"),
            _ => fault,
        }
    };
    // One flat expression: a UNION of a thousand queries would be nested as deep.
    let exists: Vec<String> =
        only(target, tables).await?.iter().map(|table| format!("EXISTS (SELECT FROM {table})")).collect();
    let query = format!("SELECT ARRAY[{}]::pg_catalog.bool[]", exists.join(", "));
    let row = target.query_one(&query, &[]).await.map_err(fault)?;
    let has_rows: Vec<bool> = row.get(0);
    Ok(tables.iter().zip(has_rows).filter(|(_, has)| *has).map(|(table, _)| table.clone()).collect())
}

/// Those of these tables of the target whose rows their owner can see: row security is not forced upon him.
///
/// # Errors
/// If the target can't be asked.
pub async fn with_rows_in_sight(target: &Client, tables: &[TableName]) -> Result<Vec<TableName>> {
    let names: Vec<String> = tables.iter().map(TableName::to_sql).collect();
    let row = target
        .query_one(
            "SELECT array_agg(c.relrowsecurity AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
                              AND pg_catalog.row_security_active(c.oid) ORDER BY place)
               FROM unnest($1::text[]) WITH ORDINALITY AS t (name, place)
               LEFT JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(t.name)",
            &[&names],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "looking for row security", &e))?;
    let is_hidden: Option<Vec<Option<bool>>> = row.get(0);
    let with_hidden = tables.iter().zip(is_hidden.unwrap_or_default());
    Ok(with_hidden.filter(|(_, hidden)| *hidden != Some(true)).map(|(table, _)| table.clone()).collect())
}

/// Empties these tables of the target, and the partitions of those that are partitioned, all or none.
///
/// # Errors
/// If a foreign key of another table, or a missing right, stands in the way.
pub async fn empty(target: &Client, tables: &[TableName]) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let list = only(target, tables).await?.join(", ");
    target.batch_execute(&format!("TRUNCATE {list}")).await.map_err(|e| {
        let fault = Fault::sql(Side::Target, "emptying the tables", &e);
        match fault.code().map(|code| code.code()) {
            Some("0A000") => fault.remedy(
                "a table that is not replicated has that foreign key, and its rows would refer to nothing: drop the \
                 foreign key and create it again after the copy, or replicate the table too, or empty both by hand",
            ),
            Some("42501") => fault.remedy("connect as the owner of the table, or GRANT TRUNCATE ON it"),
            _ => fault,
        }
    })
}

/// The tables for SQL that must not touch tables which inherit from them.
async fn only(target: &Client, tables: &[TableName]) -> Result<Vec<String>> {
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let rows = target
        .query(
            "SELECT n.nspname::text, c.relname::text
               FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind = 'p' AND c.relname = ANY ($1)",
            &[&names],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "looking for partitioned tables", &e))?;
    let partitioned: BTreeSet<TableName> =
        rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect();
    Ok(tables.iter().map(|table| table.only(partitioned.contains(table))).collect())
}
