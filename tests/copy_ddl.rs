//! Tables change in the middle of their copy.

mod support;

use support::pair::{Daemon, Pair, number};

/// A pair whose table `t` takes eight seconds or more: one reader, chunks of a second.
async fn slow(name: &str) -> Pair {
    let mut pair = Pair::new(name).await;
    pair.config = "[copy]\nreaders = 1\nmax_rate = \"1MB\"\n".to_owned();
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, n int, v text);
         CREATE TABLE other (id int PRIMARY KEY, t int, v text)",
    )
    .await;
    pair.write(
        "INSERT INTO t SELECT i, i, repeat('x', 500) FROM generate_series(1, 16000) i;
         INSERT INTO other SELECT i, i, 'v' FROM generate_series(1, 1000) i; ANALYZE",
    )
    .await;
    pair
}

/// Starts the daemon; some chunks of `t` are done and some are not.
async fn in_the_middle(pair: &Pair) -> Daemon {
    let daemon = pair.daemon();
    pair.target_is("copied in part", "SELECT to_regclass('cdc.chunk') IS NOT NULL", &[]).await;
    pair.target_is(
        "copied in part",
        "SELECT count(*) FILTER (WHERE state = 'done') >= 2 AND count(*) FILTER (WHERE state = 'pending') >= 3
           FROM cdc.chunk JOIN cdc.copy USING (relation) WHERE table_name = 't'",
        &[],
    )
    .await;
    daemon
}

/// Nothing is left that a person would have to look at; what passed by itself is over soon.
async fn no_incident_is_open(pair: &Pair) {
    let sql = "SELECT NOT EXISTS (SELECT FROM cdc.incident WHERE resolved_at IS NULL)";
    pair.target_is("without an open incident", sql, &[]).await;
    let sql = "SELECT count(*) FROM cdc.incident WHERE severity IN ('blocked', 'failing')";
    assert_eq!(number(&pair.target, sql).await, 0, "{:#}", pair.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_table_holds_what_was_written_after() {
    let pair = slow("truncated").await;
    pair.both("ALTER TABLE other ADD FOREIGN KEY (t) REFERENCES t").await;
    let daemon = in_the_middle(&pair).await;
    pair.write("BEGIN; INSERT INTO t VALUES (-1, 0, 'before'); UPDATE t SET v = 'gone' WHERE id % 500 = 1;
                TRUNCATE t, other; INSERT INTO t SELECT i * 3, i, 'after' FROM generate_series(1, 6000) i; COMMIT;
                INSERT INTO other SELECT i * 3, i * 3, 'v' FROM generate_series(1, 6000) i")
        .await;
    pair.write("DELETE FROM other WHERE id % 2 = 0; DELETE FROM t WHERE id % 2 = 0; UPDATE t SET v = 'w' WHERE id > 17000").await;
    pair.copied().await;
    pair.write("TRUNCATE other; INSERT INTO t VALUES (0, 0, 'last')").await;
    pair.caught_up().await;
    no_incident_is_open(&pair).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_is_read_as_it_is_then() {
    let pair = slow("rewritten").await;
    let daemon = in_the_middle(&pair).await;
    // Nobody who looks with an older snapshot sees a row of a rewritten table.
    for client in [&pair.target, &pair.source] {
        client.batch_execute("ALTER TABLE t ALTER n TYPE numeric").await.unwrap();
    }
    pair.write("UPDATE t SET n = n + 0.25 WHERE id % 2 = 0").await;
    pair.write("VACUUM FULL t").await;
    pair.write("CLUSTER t USING t_pkey; UPDATE t SET id = id + 16000 WHERE id > 1000 AND id % 100 = 7").await;
    pair.caught_up().await;
    no_incident_is_open(&pair).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_has_the_values_that_it_was_given_before_its_chunk_was_copied() {
    let pair = slow("new_column").await;
    let daemon = in_the_middle(&pair).await;
    for client in [&pair.target, &pair.source] {
        client.batch_execute("ALTER TABLE t ADD \"New\" text DEFAULT 'default'").await.unwrap();
    }
    pair.write(
        "UPDATE t SET \"New\" = 'n' || n WHERE id % 3 <> 0; UPDATE t SET \"New\" = NULL WHERE id % 30 = 0",
    )
    .await;
    pair.caught_up().await;
    no_incident_is_open(&pair).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_not_asked_for() {
    let pair = slow("dropped_column").await;
    let daemon = in_the_middle(&pair).await;
    for client in [&pair.source, &pair.target] {
        client.batch_execute("ALTER TABLE t DROP n").await.unwrap();
    }
    pair.write("UPDATE t SET v = 'w' WHERE id % 3 = 0").await;
    pair.caught_up().await;
    no_incident_is_open(&pair).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_is_forgotten() {
    let pair = slow("dropped").await;
    let daemon = in_the_middle(&pair).await;
    pair.write("DROP TABLE t").await;
    pair.target.batch_execute("DROP TABLE t").await.unwrap();
    pair.write("INSERT INTO other VALUES (5000, 5000, 'after')").await;
    pair.caught_up().await;
    no_incident_is_open(&pair).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_renamed_goes_on_under_its_new_name() {
    let pair = slow("renamed").await;
    let daemon = in_the_middle(&pair).await;
    for client in [&pair.source, &pair.target] {
        client
            .batch_execute("ALTER TABLE t RENAME TO \"T new\"; ALTER TABLE \"T new\" RENAME v TO w")
            .await
            .unwrap();
    }
    // Another one takes its name.
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.write("UPDATE \"T new\" SET w = 'w' WHERE id % 5 = 0; INSERT INTO t VALUES (1)").await;
    pair.caught_up().await;
    pair.write("DROP TABLE t").await;
    no_incident_is_open(&pair).await;
    pair.ends_equal(daemon).await;
}
