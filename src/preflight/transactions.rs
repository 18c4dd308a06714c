//! Transactions on the source that the making of the slot, and every snapshot of the copy, would wait for.

use std::collections::BTreeSet;

use tokio_postgres::Row;

use super::finding::Finding;
use super::{Asked, Check};
use crate::fault::{Fault, Result, Side};
use crate::limits;

const SIDE: Side = Side::Source;

/// The transactions that have written and are still there, our own left out.
pub(super) async fn open(source: &Asked, name: &str) -> Result<Vec<Row>> {
    source
        .session
        .query(include_str!("../../sql/catalog/check_transactions.sql"), &[&format!("cdc_{name} ")])
        .await
        .map_err(|e| Fault::sql(SIDE, "looking at running transactions", &e))
}

/// Adds those that were there before, too, and are old. Where the role may not see how old one is, it counts
/// as such.
pub(super) fn look(check: &mut Check<'_>, before: &[Row], now: &[Row]) {
    let before: BTreeSet<&str> = before.iter().map(|row| row.get("xid")).collect();
    for row in now.iter().filter(|row| before.contains(row.get::<_, &str>("xid"))) {
        let age: Option<f64> = row.get("age");
        if age.is_none_or(|age| age >= limits::SNAPSHOT_PATIENCE.as_secs_f64()) {
            check.add(finding(row, age));
        }
    }
}

fn finding(row: &Row, age: Option<f64>) -> Finding {
    let old = age.map_or("for a time that this role may not see".to_owned(), |age| format!("for {age:.0} s"));
    let text = |name| row.get::<_, Option<&str>>(name).unwrap_or("?");
    let (role, database) = (text("role"), text("database"));
    if let Some(gid) = row.get::<_, Option<&str>>("gid") {
        let literal = crate::catalog::quote_literal(gid);
        return Finding::warns(
            "prepared-transaction",
            SIDE,
            format!("a prepared transaction of {role} in the database {database} is open {old}"),
        )
        .object(gid)
        .why("the replication slot can't be made before it ends, and no chunk be copied; such a one never ends by itself")
        .mend(format!(
            "in the database {database}: COMMIT PREPARED {literal}; or: ROLLBACK PREPARED {literal};"
        ));
    }
    let pid = row.get::<_, Option<i32>>("pid").unwrap_or_default();
    let since = row.get::<_, Option<&str>>("query_start");
    let query = since.map_or(String::new(), |start| format!(", its last query began at {start} UTC"));
    Finding::warns(
        "long-transaction",
        SIDE,
        format!(
            "a transaction of {role} ({}) in the database {database} has been open {old}{query}",
            text("application")
        ),
    )
    .object(format!("pid {pid}"))
    .why("the replication slot can't be made, and no chunk be copied, before the transactions have ended that write then")
    .mend(format!("wait for its end, or: SELECT pg_terminate_backend({pid});"))
}
