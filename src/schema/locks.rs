//! How DDL gets its locks without making the stream wait.
//!
//! A statement that waits for an exclusive lock makes everything wait that comes after it. So it waits
//! for a moment only, shorter than `deadlock_timeout`: if it and the applier wait for each other, it is
//! this side that gives up, and is tried again. But autovacuum makes way only for what waits longer than
//! that. Therefore a lock comes first that vacuum conflicts with and no writer does.

use tokio_postgres::{Error, GenericClient};

use crate::limits;

/// The statements that begin DDL on these tables (quoted) inside a transaction. From then on a lock is
/// waited for only for a moment; what can't be had is 55P03.
pub(crate) async fn begin_ddl(client: &impl GenericClient, tables: &[String]) -> Result<String, Error> {
    let row = client
        .query_one(
            "SELECT (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'),
                    (SELECT pg_catalog.string_agg(DISTINCT t, ', ' ORDER BY t)
                       FROM pg_catalog.unnest($1::text[]) AS t
                      WHERE pg_catalog.has_table_privilege(pg_catalog.to_regclass(t)::oid, 'UPDATE'))",
            &[&tables],
        )
        .await?;
    let (deadlock_timeout_ms, lockable): (i64, Option<String>) = (row.get(0), row.get(1));
    let short_ms = (deadlock_timeout_ms / 2).clamp(1, limits::DDL_LOCK_WAIT_MS);
    let lock = lockable.map_or_else(String::new, |tables| {
        format!(
            "SET LOCAL lock_timeout = {}; LOCK TABLE {tables} IN SHARE UPDATE EXCLUSIVE MODE; ",
            2 * deadlock_timeout_ms
        )
    });
    Ok(format!("{lock}SET LOCAL lock_timeout = {short_ms}; "))
}
