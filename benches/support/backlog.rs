//! What is written on the source while nobody follows it.

use cdc::lsn::Lsn;
use tokio_postgres::Client;

/// Its row of a turn is the last of a backlog.
pub const MARKER: &str = "CREATE TABLE marker (turn int PRIMARY KEY)";

pub struct Backlog {
    pub turn: i32,
    /// Where all of it is in the log, but for the marker.
    pub end: Lsn,
}

impl Backlog {
    /// Runs `body` (PL/pgSQL that may commit) and marks the end.
    pub async fn write(source: &Client, turn: usize, body: &str) -> Self {
        let turn = turn.try_into().unwrap();
        let run = |sql: String| async move { source.batch_execute(&sql).await.unwrap() };
        run("SET synchronous_commit = off".to_owned()).await;
        run(format!("DO $do$ BEGIN {body}; END $do$")).await;
        run("SET synchronous_commit = on".to_owned()).await;
        let row = source.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
        run(format!("INSERT INTO marker VALUES ({turn})")).await;
        run("CHECKPOINT".to_owned()).await;
        Self { turn, end: row.get::<_, &str>(0).parse().unwrap() }
    }
}
