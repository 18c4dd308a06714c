//! What is written on the source while nobody follows it.

use cdc::lsn::Lsn;
use tokio_postgres::Client;

/// Two rows of it stand in each backlog: one before what is measured, one at the end.
pub const MARKER: &str = "CREATE TABLE marker (id int PRIMARY KEY)";

/// A backlog that begins with some changes that are not measured: whoever follows has to get going first.
pub struct Backlog {
    /// The markers' numbers.
    pub markers: [i32; 2],
    /// Where the log is just before them.
    pub positions: [Lsn; 2],
}

impl Backlog {
    /// Runs both parts, PL/pgSQL that may commit.
    pub async fn write(source: &Client, number: usize, parts: [&str; 2]) -> Self {
        let first = i32::try_from(number * 2).unwrap();
        let markers = [first, first + 1];
        let mut positions = [Lsn::ZERO; 2];
        let run = |sql: String| async move { source.batch_execute(&sql).await.unwrap() };
        for (part, body) in parts.into_iter().enumerate() {
            run("SET synchronous_commit = off".to_owned()).await;
            run(format!("DO $do$ BEGIN {body}; END $do$")).await;
            run("SET synchronous_commit = on".to_owned()).await;
            let row = source.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
            positions[part] = row.get::<_, &str>(0).parse().unwrap();
            run(format!("INSERT INTO marker VALUES ({})", markers[part])).await;
        }
        run("CHECKPOINT".to_owned()).await;
        Self { markers, positions }
    }
}
