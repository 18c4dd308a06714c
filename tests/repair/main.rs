//! Rows that are copied again while the stream runs, and everything from a new slot on.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod all;
mod command;
mod kill;
mod kinds;
mod live;
#[path = "../support/mod.rs"]
mod support;

use support::pair::{Pair, connect};

/// Asks the daemon to copy a table again: these ranges of its key, as JSON, or all of it.
pub(crate) async fn ask(pair: &Pair, table: &str, ranges: Option<&str>, key_columns: &[&str]) {
    let sql = "SELECT oid FROM pg_class WHERE oid = $1::text::regclass";
    let relation: u32 = pair.source.query_one(sql, &[&table]).await.unwrap().get(0);
    let columns: Vec<String> = key_columns.iter().map(|column| (*column).to_owned()).collect();
    connect(&pair.target_url)
        .await
        .execute(
            "INSERT INTO cdc.repair (name, relation, ranges, key_columns, reason, os_user, host)
             VALUES ($1, $2, $3::text::jsonb, $4, 'a test', 'me', 'here')",
            &[&pair.name, &relation, &ranges, &columns],
        )
        .await
        .unwrap();
}

/// Waits until everything that was asked for is over; gives what was refused.
pub(crate) async fn repaired(pair: &Pair) -> Vec<String> {
    let none_is_open = "SELECT NOT EXISTS (SELECT FROM cdc.repair WHERE finished_at IS NULL)";
    pair.target_is("repaired", none_is_open, &[]).await;
    let sql = "SELECT error FROM cdc.repair WHERE error IS NOT NULL ORDER BY id";
    let rows = connect(&pair.target_url).await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Asks the daemon to copy everything again, from a new slot on.
async fn ask_for_all(pair: &Pair) {
    let target = connect(&pair.target_url).await;
    let sql = "INSERT INTO cdc.repair (name, reason, os_user, host) VALUES ($1, 'a test', 'me', 'here')";
    target.execute(sql, &[&pair.name]).await.unwrap();
}
