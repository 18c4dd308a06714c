//! Tables come and go.

use std::time::{Duration, Instant};

use crate::scene::{Scene, assert_same_schema, is_quiet, nobody_was_asked};
use crate::support::pair::Pair;

async fn has_incident(pair: &Pair, severity: &str, text: &str) {
    let sql = "SELECT EXISTS (SELECT FROM cdc.incident
                               WHERE severity = $1 AND resolved_at IS NULL AND concat(message, remedy) ~ $2)";
    pair.target_is(text, sql, &[&severity, &text]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_tables_are_followed_and_dropped_ones_are_told_of() {
    let mut scene = Scene::new("tables", "").await;
    scene.pair.both("CREATE TABLE old (id int PRIMARY KEY)").await;
    let daemon = scene.pair.streaming().await;
    scene.write();
    let pair = &scene.pair;
    pair.write(
        "CREATE SCHEMA crm; CREATE TYPE crm.stage AS ENUM ('new', 'won');
         CREATE TABLE crm.leads (id serial PRIMARY KEY, stage crm.stage DEFAULT 'new', t int REFERENCES t, UNIQUE (t));
         INSERT INTO crm.leads (t) SELECT generate_series(100, 300)",
    )
    .await;
    pair.write(
        "CREATE TABLE bare (a int, b int); INSERT INTO bare SELECT i, i FROM generate_series(1, 50) i",
    )
    .await;
    pair.write(
        "CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
         INSERT INTO parts SELECT i, 'v' FROM generate_series(1, 200) i",
    )
    .await;
    pair.target_is(
        "with the new tables",
        "SELECT count(*) = 3 FROM cdc.copy WHERE table_name IN ('leads', 'parts_1', 'parts_2')",
        &[],
    )
    .await;
    pair.write("UPDATE crm.leads SET stage = 'won' WHERE id % 3 = 0; UPDATE parts SET v = 'w', id = id + 1000 WHERE id > 60").await;
    // A table without a key takes UPDATEs, as it isn't published.
    has_incident(pair, "warning", "REPLICA IDENTITY FULL").await;
    pair.write("UPDATE bare SET b = 0 WHERE a < 10; DELETE FROM bare WHERE a = 50").await;
    pair.write("ALTER TABLE bare ADD PRIMARY KEY (a)").await;
    pair.target_is(
        "with the table that has a key now",
        "SELECT EXISTS (SELECT FROM cdc.copy WHERE table_name = 'bare')",
        &[],
    )
    .await;
    pair.write("DROP TABLE old").await;
    has_incident(pair, "warning", "DROP TABLE \"public\".\"old\"").await;
    pair.target.batch_execute("DROP TABLE old").await.unwrap();
    is_quiet(pair).await;
    let pair = scene.ends_equal(daemon).await;
    nobody_was_asked(&pair).await;
    assert_same_schema(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_loses_its_key_can_be_written_again_at_once() {
    let mut scene = Scene::new("lost_key", "[tables]\nexisting_rows = \"refuse\"\n").await;
    scene.pair.both("CREATE TABLE k (id int PRIMARY KEY, v int)").await;
    scene.pair.write("INSERT INTO k SELECT i, i FROM generate_series(1, 100) i").await;
    let daemon = scene.pair.streaming().await;
    scene.write();
    let pair = &scene.pair;
    pair.write("ALTER TABLE k DROP CONSTRAINT k_pkey").await;
    let began = Instant::now();
    while pair.source.batch_execute("UPDATE k SET v = v + 1 WHERE id < 50").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:#}", pair.status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    has_incident(pair, "failing", "has no replica identity").await;
    pair.write(
        "DELETE FROM k WHERE id = 7; ALTER TABLE k ADD PRIMARY KEY (id); UPDATE k SET v = -1 WHERE id = 8",
    )
    .await;
    pair.target_is("with the table", "SELECT EXISTS (SELECT FROM cdc.copy WHERE table_name = 'k')", &[])
        .await;
    scene.ends_equal(daemon).await;
}
