//! What a snapshot doesn't hold and the stream doesn't bring: each of these loses a row to a copy that
//! takes the first snapshot it gets. Each test shows that first, on the same transaction.

mod support;

use std::time::Duration;

use cdc::demo::Cluster;
use serde_json::Value;
use support::pair::{self, Daemon, Pair, connect, number};
use tokio_postgres::Client;

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/// Rows of `t` for eight seconds or more.
const ROWS: &str = "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 16000) i; ANALYZE t";

async fn slow(source: &Cluster, target: &Cluster, name: &str) -> Pair {
    let mut pair = Pair::on(source, target, name).await;
    pair.config = "[copy]\nreaders = 1\nmax_rate = \"1MB\"\n".to_owned();
    pair.both(T).await;
    pair.write(ROWS).await;
    pair
}

async fn in_the_middle(pair: &Pair) -> Daemon {
    let daemon = pair.daemon();
    daemon.wait_for_log("streaming").await;
    pair.target_is(
        "copied in part",
        "SELECT count(*) FILTER (WHERE state = 'done') BETWEEN 2 AND count(*) - 3 FROM cdc.chunk",
        &[],
    )
    .await;
    daemon
}

async fn pid(client: &Client) -> i64 {
    number(client, "SELECT pg_backend_pid()::bigint").await
}

/// The id of the transaction that is open on this connection.
async fn xid(client: &Client) -> i64 {
    number(client, "SELECT pg_current_xact_id()::text::bigint").await
}

/// True if a snapshot that is taken now has what this transaction has written.
async fn is_in_a_snapshot(client: &Client, xid: i64) -> bool {
    let sql = "SELECT pg_visible_in_snapshot($1::text::xid8, pg_current_snapshot())";
    client.query_one(sql, &[&xid.to_string()]).await.expect("it answers").get(0)
}

/// A second slot, to see what is in the stream from here on.
async fn begin_to_peek(pair: &Pair) {
    let sql = "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
    pair.source.execute(sql, &[&format!("peek_{}", pair.name)]).await.expect("it answers");
}

/// How many changes of this transaction are in the stream; `None` if it isn't there at all.
async fn changes_in_the_stream(pair: &Pair, xid: i64) -> Option<i64> {
    let row = pair
        .source
        .query_one(
            "SELECT bool_or(get_byte(data, 0) = ascii('B')),
                    count(*) FILTER (WHERE chr(get_byte(data, 0)) IN ('I', 'U', 'D'))
               FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, NULL, 'proto_version', '1',
                                                        'publication_names', $2)
              WHERE xid = $3::text::xid",
            &[&format!("peek_{}", pair.name), &format!("cdc_{}", pair.name), &xid.to_string()],
        )
        .await
        .expect("it answers");
    row.get::<_, Option<bool>>(0).map(|_| row.get(1))
}

/// The status says whom the copy waits for.
async fn names(pair: &Pair, who: &str) {
    let has = |status: &Value| {
        let detail = status["daemon"]["detail"].as_str().unwrap_or("");
        detail.contains("the copy waits for the end of") && detail.contains(who)
    };
    pair.status_is(&format!("waiting for {who}"), has).await;
}

/// Nobody is waited for any more.
async fn names_nobody(pair: &Pair) {
    pair.status_is("waiting for nobody", |status| status["daemon"]["detail"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_is_in_the_stream_and_in_no_snapshot() {
    let (source, target) = (pair::source().start().await.unwrap(), pair::target().start().await.unwrap());
    let pair = slow(&source, &target, "standby").await;
    begin_to_peek(&pair).await;
    let daemon = in_the_middle(&pair).await;
    pair.source.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    pair.source.batch_execute("SELECT pg_reload_conf()").await.unwrap();

    let writer = connect(&pair.source_url).await;
    let writer_pid = pid(&writer).await;
    writer.batch_execute("BEGIN; SET LOCAL synchronous_commit = on").await.unwrap();
    let xid = xid(&writer).await;
    writer
        .batch_execute(
            "UPDATE t SET v = 'held' WHERE id % 10 = 0; INSERT INTO t VALUES (-1, 'held'), (20001, 'held')",
        )
        .await
        .unwrap();
    let commit = tokio::spawn(async move { writer.batch_execute("COMMIT").await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while number(&pair.source, waits).await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // In the stream, and in no snapshot: a copy that begins now has none of its rows.
    assert_eq!(changes_in_the_stream(&pair, xid).await, Some(1602));
    assert!(!is_in_a_snapshot(&pair.source, xid).await);
    assert_eq!(number(&pair.source, "SELECT count(*) FROM t WHERE v = 'held'").await, 0);

    names(&pair, &format!("pid {writer_pid}")).await;
    // The stream goes on meanwhile.
    pair.write("SET synchronous_commit = local; INSERT INTO t VALUES (0, 'meanwhile')").await;
    pair.target_is("further", "SELECT EXISTS (SELECT FROM t WHERE id = 0)", &[]).await;
    assert!(!is_in_a_snapshot(&pair.source, xid).await);
    pair.write("ALTER SYSTEM RESET synchronous_standby_names").await;
    pair.write("SELECT pg_reload_conf()").await;
    commit.await.unwrap().unwrap();
    names_nobody(&pair).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_a_table_came_into_the_publication_is_not_in_the_stream() {
    let pair = Pair::new("added").await;
    pair.both("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, v text)").await;
    pair.write("CREATE PUBLICATION cdc_added FOR TABLE a; INSERT INTO b VALUES (1, 'long ago')").await;
    begin_to_peek(&pair).await;
    let daemon = pair.streaming().await;
    let writer = connect(&pair.source_url).await;
    writer.batch_execute("BEGIN; INSERT INTO b VALUES (2, 'before')").await.unwrap();
    let (writer_pid, xid) = (pid(&writer).await, xid(&writer).await);
    pair.write("ALTER PUBLICATION cdc_added ADD TABLE b").await;

    assert_eq!(number(&pair.source, "SELECT sum(id) FROM b").await, 1);
    names(&pair, &format!("pid {writer_pid}")).await;
    writer.batch_execute("INSERT INTO b VALUES (4, 'last'); COMMIT").await.unwrap();
    // The snapshot of before has neither row, and the stream has not both.
    let streamed = changes_in_the_stream(&pair, xid).await.unwrap_or(0);
    assert!(streamed < 2, "{streamed}");
    pair.write("INSERT INTO b VALUES (5, 'after')").await;
    names_nobody(&pair).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_comes_into_the_publication_is_copied_if_nobody_ever_writes_to_it() {
    let pair = Pair::new("quiet").await;
    pair.both(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
         CREATE UNLOGGED TABLE u (id int PRIMARY KEY)",
    )
    .await;
    pair.write(
        "INSERT INTO b VALUES (1); INSERT INTO u VALUES (1); CREATE PUBLICATION cdc_quiet FOR ALL TABLES",
    )
    .await;
    let daemon = pair.streaming().await;
    pair.both(
        "ALTER TABLE u SET LOGGED; CREATE TABLE m (id int PRIMARY KEY) PARTITION BY LIST (id);
               CREATE TABLE m_1 (id int PRIMARY KEY); CREATE TABLE m_2 (id int PRIMARY KEY)",
    )
    .await;
    pair.write("BEGIN; INSERT INTO m_1 VALUES (1); INSERT INTO m_2 VALUES (2); COMMIT").await;
    pair.both("ALTER TABLE m ATTACH PARTITION m_1 FOR VALUES IN (1)").await;
    pair.target_is("there", "SELECT EXISTS (SELECT FROM u) AND EXISTS (SELECT FROM m)", &[]).await;
    pair.both("ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES IN (2)").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_attached_with_rows_in_it_is_copied_once_older_transactions_are_over() {
    let (source, target) = (pair::source().start().await.unwrap(), pair::target().start().await.unwrap());
    let pair = Pair::on(&source, &target, "attached").await;
    pair.both(
        "CREATE TABLE m (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE m_1 PARTITION OF m FOR VALUES FROM (0) TO (1000);
         CREATE TABLE m_2 (id int PRIMARY KEY, v text); CREATE TABLE m_3 (id int PRIMARY KEY, v text)",
    )
    .await;
    pair.target
        .batch_execute(
            "DROP TABLE m_3; ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES FROM (1000) TO (2000);
             CREATE TABLE m_rest PARTITION OF m DEFAULT",
        )
        .await
        .unwrap();
    pair.write(
        "INSERT INTO m VALUES (1, 'v'); INSERT INTO m_2 VALUES (1001, 'v'); INSERT INTO m_3 VALUES (2001, 'v');
         CREATE PUBLICATION cdc_attached FOR TABLE m",
    )
    .await;
    let daemon = pair.streaming().await;
    // Another database's, and so of no concern; but a snapshot doesn't tell.
    let elsewhere = connect(&source.url("postgres")).await;
    elsewhere.batch_execute("BEGIN; CREATE TABLE unrelated ()").await.unwrap();
    pair.write("ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES FROM (1000) TO (2000)").await;
    pair.write("ALTER TABLE m ATTACH PARTITION m_3 FOR VALUES FROM (2000) TO (3000); UPDATE m SET v = 'w'")
        .await;
    names(&pair, &format!("pid {}", pid(&elsewhere).await)).await;
    pair.write("INSERT INTO m VALUES (2, 'v'), (1002, 'v'), (2002, 'v'); DELETE FROM m WHERE id = 1001")
        .await;
    elsewhere.batch_execute("ROLLBACK").await.unwrap();
    pair.caught_up().await;
    let failed = "SELECT count(*) FROM cdc.incident WHERE severity <> 'warning'";
    assert_eq!(number(&pair.target, failed).await, 0, "{}", daemon.log());
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_whose_rows_would_meet_on_the_target_are_refused_until_each_has_its_own() {
    let pair = Pair::new("meeting").await;
    pair.write(
        "CREATE TABLE m (id int PRIMARY KEY) PARTITION BY LIST (id);
         CREATE TABLE m_0 PARTITION OF m FOR VALUES IN (0); CREATE TABLE \"M 1\" (id int PRIMARY KEY);
         CREATE TABLE m_2 (id int PRIMARY KEY); INSERT INTO m VALUES (0); INSERT INTO m_2 VALUES (2);
         CREATE PUBLICATION cdc_meeting FOR TABLE m",
    )
    .await;
    pair.target
        .batch_execute(
            "CREATE TABLE m (id int PRIMARY KEY) PARTITION BY LIST (id);
             CREATE TABLE m_0 PARTITION OF m FOR VALUES IN (0); CREATE TABLE m_2 PARTITION OF m DEFAULT",
        )
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    // Goes through the root, into the default partition.
    pair.write("ALTER TABLE m ATTACH PARTITION \"M 1\" FOR VALUES IN (1); INSERT INTO m VALUES (1)").await;
    pair.target_is("there", "SELECT EXISTS (SELECT FROM m_2 WHERE id = 1)", &[]).await;
    // Whoever copied this one would take it away again.
    pair.write("ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES IN (2)").await;
    let failing = |status: &Value| {
        status["incidents"].as_array().unwrap().iter().any(|incident| {
            let has = |field: &str, text: &str| incident[field].as_str().unwrap().contains(text);
            incident["severity"] == "failing"
                && incident["table"] == "public.m_2"
                && has(
                    "message",
                    "the target lacks the partition public.M 1, and its public.m_2 also takes rows",
                )
                && has("remedy", "create \"public\".\"M 1\" on the target")
                && has("remedy", "FOR VALUES IN (1)")
        })
    };
    pair.status_is("refused", failing).await;
    assert_eq!(number(&pair.target, "SELECT sum(id) FROM m").await, 1);
    assert_eq!(pair.status_text(&[]).0, 2);
    pair.target
        .batch_execute(
            "BEGIN; CREATE TABLE \"M 1\" (id int PRIMARY KEY); DELETE FROM m_2 WHERE id = 1;
             INSERT INTO \"M 1\" VALUES (1); ALTER TABLE m ATTACH PARTITION \"M 1\" FOR VALUES IN (1); COMMIT",
        )
        .await
        .unwrap();
    pair.write("UPDATE m SET id = id").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_finds_out_that_a_table_had_come_whose_copy_was_not_said_to_be_over() {
    let pair = Pair::new("late").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.write("INSERT INTO t VALUES (1)").await;
    let daemon = pair.streaming().await;
    assert!(daemon.terminate().await.success());
    // As a daemon leaves it that is killed when the last chunk of a newcomer is done.
    pair.target.batch_execute("UPDATE cdc.migration SET consistent_since = NULL").await.unwrap();
    assert!(pair.status()["copy"]["consistent_since"].is_null());
    let daemon = pair.daemon();
    pair.status_is("consistent", |status| {
        status["verdict"] == "streaming" && status["copy"]["consistent_since"].is_string()
    })
    .await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_run_when_the_daemon_starts_are_waited_for() {
    let source = pair::source().setting("max_prepared_transactions", "5").start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let pair = slow(&source, &target, "running").await;
    // The slot can't be made before they are over.
    let first = connect(&pair.source_url).await;
    first.batch_execute("BEGIN; UPDATE t SET v = 'first' WHERE id % 10 = 1").await.unwrap();
    let first_pid = pid(&first).await;
    let daemon = pair.daemon();
    daemon.wait_for_log("it waits for running transactions").await;
    pair.status_is("waiting for it", |status| {
        status["daemon"]["detail"].as_str().is_some_and(|detail| detail.contains(&format!("pid {first_pid}")))
    })
    .await;
    first.batch_execute("COMMIT").await.unwrap();
    daemon.wait_for_log("streaming").await;
    daemon.kill();

    let writer = connect(&pair.source_url).await;
    writer.batch_execute("BEGIN; UPDATE t SET v = 'long' WHERE id % 10 = 2").await.unwrap();
    let writer_pid = pid(&writer).await;
    pair.write("BEGIN; UPDATE t SET v = 'prepared' WHERE id % 10 = 3; PREPARE TRANSACTION 'one'").await;
    let daemon = pair.daemon();
    names(&pair, &format!("pid {writer_pid}")).await;
    pair.write("UPDATE t SET v = 'meanwhile' WHERE id % 10 = 4").await;
    writer.batch_execute("UPDATE t SET id = -id WHERE id % 10 = 2; COMMIT").await.unwrap();
    names(&pair, "prepared transaction 'one'").await;
    pair.write("COMMIT PREPARED 'one'").await;
    names_nobody(&pair).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_stay_until_their_chunk_is_copied_and_then_none_is_left() {
    let mut pair = Pair::new("stale").await;
    pair.config = "[copy]\nreaders = 1\nmax_rate = \"100kB\"\n".to_owned();
    pair.both("CREATE TABLE a (id int PRIMARY KEY)").await;
    pair.write(T).await;
    pair.write("CREATE PUBLICATION cdc_stale FOR TABLE a").await;
    pair.write("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 800) i; ANALYZE t").await;
    pair.target
        .batch_execute(
            "CREATE TABLE t (id int, v text);
             INSERT INTO t SELECT i, 'stale' FROM generate_series(-50, 900) i; INSERT INTO t VALUES (NULL, 'stale')",
        )
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    pair.write("ALTER PUBLICATION cdc_stale ADD TABLE t").await;
    let both =
        "SELECT count(*) FILTER (WHERE v = 'stale') > 0 AND count(*) FILTER (WHERE v <> 'stale') > 0 FROM t";
    pair.target_is("copied in part", both, &[]).await;
    pair.ends_equal(daemon).await;
}
