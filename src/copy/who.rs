//! Whom the copy waits for.

use tokio_postgres::Client;

use crate::chunk::Xid;
use crate::fault::{Fault, Result, Side};

/// Whose transaction it is that has not ended.
///
/// # Errors
/// If the source can't be asked.
pub async fn who(source: &Client, xid: Xid) -> Result<String> {
    let row = source
        .query_opt(
            "SELECT pg_catalog.format('transaction %s of pid %s (%s)', $1::text, pid,
                                      -- Since when, the server tells about others only to some.
                                      concat_ws(', ', usename, nullif(application_name, ''),
                                                'since ' || xact_start::timestamptz(0)))
               FROM pg_catalog.pg_stat_activity
              WHERE backend_xid = ($1::text::xid8)::xid
              UNION ALL
             SELECT pg_catalog.format('the prepared transaction %L (%s) of %s since %s: COMMIT PREPARED or ROLLBACK \
                                       PREPARED it', gid, $1::text, owner, prepared::timestamptz(0))
               FROM pg_catalog.pg_prepared_xacts
              WHERE transaction = ($1::text::xid8)::xid
              LIMIT 1",
            &[&xid.to_string()],
        )
        .await
        .map_err(|e| Fault::sql(Side::Source, "looking for a transaction", &e))?;
    Ok(row.map_or_else(|| format!("transaction {xid}"), |row| row.get(0)))
}
