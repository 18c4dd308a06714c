//! A quick proof that two databases hold the same rows, and the same indexes.

use tokio_postgres::Client;

const TABLES: &str = "SELECT relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname COLLATE \"C\"";

const INDEXES: &str =
    "SELECT string_agg(pg_get_indexdef(indexrelid), '; ' ORDER BY indexrelid::regclass::text)
    FROM pg_index WHERE indisvalid AND indrelid = $1::text::regclass";

/// Each table with its indexes, its rows, and the sum of their hashes.
async fn sums(client: &Client) -> Vec<(String, Option<String>, i64, Option<String>)> {
    let mut sums = Vec::new();
    for row in client.query(TABLES, &[]).await.unwrap() {
        let table: String = row.get(0);
        let sql = format!("SELECT count(*), sum(hashtextextended(t::text, 0))::text FROM {table} AS t");
        let row = client.query_one(&sql, &[]).await.unwrap();
        let indexes = client.query_one(INDEXES, &[&table]).await.unwrap().get(0);
        sums.push((table, indexes, row.get(0), row.get(1)));
    }
    sums
}

/// Ends the run if a table differs.
pub async fn assert_same(source: &Client, target: &Client) {
    let (source, target) = tokio::join!(sums(source), sums(target));
    assert_eq!(source.len(), target.len(), "the target has other tables than the source");
    for (source, target) in source.iter().zip(&target) {
        assert_eq!(source, target, "the target's table has other rows than the source's, or other indexes");
    }
}
