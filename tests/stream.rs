//! `cdc run` follows a real source into a real target: transactions of every kind.

mod support;

use support::pair::{Pair, connect};

const T: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";

#[tokio::test(flavor = "multi_thread")]
async fn inserts_updates_and_deletes_arrive_once() {
    let pair = Pair::new("arrive_once").await;
    pair.both(T).await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i").await;
    pair.write("UPDATE t SET v = v || '!' WHERE id % 3 = 0; UPDATE t SET id = -id WHERE id % 5 = 0").await;
    pair.write("DELETE FROM t WHERE id % 7 = 0").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_back_never_arrives() {
    let pair = Pair::new("rolled_back").await;
    pair.both(T).await;
    let daemon = pair.streaming().await;
    pair.write("BEGIN; INSERT INTO t SELECT i, 'never' FROM generate_series(1, 20000) i; ROLLBACK").await;
    pair.write(
        "BEGIN; INSERT INTO t VALUES (1, 'stays');
         SAVEPOINT a; INSERT INTO t SELECT i, 'never' FROM generate_series(2, 20000) i; ROLLBACK TO a;
         SAVEPOINT b; UPDATE t SET v = 'kept'; SAVEPOINT c; UPDATE t SET v = 'never'; DELETE FROM t; ROLLBACK TO c;
         INSERT INTO t VALUES (2, 'inner'); RELEASE b; INSERT INTO t VALUES (3, 'outer'); COMMIT",
    )
    .await;
    // Each block with an exception handler is a subtransaction of its own.
    pair.write(
        "DO $$ BEGIN FOR i IN 100..400 LOOP
           BEGIN INSERT INTO t VALUES (i, 'v'); IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
           EXCEPTION WHEN raise_exception THEN UPDATE t SET v = v || i WHERE id = 1; END;
         END LOOP; END $$",
    )
    .await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_overlap_arrive_in_the_order_of_their_commits() {
    let pair = Pair::new("interleaved").await;
    pair.both(T).await;
    pair.both("CREATE TABLE hot (id int PRIMARY KEY, v text); INSERT INTO hot VALUES (1, '')").await;
    let daemon = pair.streaming().await;
    let (a, b) = (connect(&pair.source_url).await, connect(&pair.source_url).await);
    a.batch_execute("BEGIN; INSERT INTO t SELECT i, 'a' FROM generate_series(1, 15000) i").await.unwrap();
    b.batch_execute("BEGIN; INSERT INTO t SELECT i, 'b' FROM generate_series(20001, 35000) i").await.unwrap();
    pair.write("INSERT INTO t VALUES (50000, 'between'); UPDATE hot SET v = v || 'c'").await;
    b.batch_execute("UPDATE hot SET v = v || 'b'; UPDATE t SET v = 'b2' WHERE id = 50000; COMMIT")
        .await
        .unwrap();
    pair.write("DELETE FROM t WHERE id > 30000; UPDATE hot SET v = v || 'd'").await;
    a.batch_execute("INSERT INTO t VALUES (50000, 'a'); UPDATE hot SET v = v || 'a'; DELETE FROM t WHERE id < 100; COMMIT")
        .await
        .unwrap();
    for i in 0..200 {
        let (one, other) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
        one.batch_execute(&format!("BEGIN; UPDATE t SET v = v || {i} WHERE id % 1000 = 1")).await.unwrap();
        other
            .batch_execute(&format!("UPDATE hot SET v = v || {i}; DELETE FROM t WHERE id = 200 + {i}"))
            .await
            .unwrap();
        one.batch_execute("COMMIT").await.unwrap();
    }
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_transaction_arrives_whole_and_is_not_seen_before() {
    let pair = Pair::new("huge").await;
    pair.both(T).await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (0, 'before')").await;
    pair.write(
        "BEGIN; INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 60000) i;
         UPDATE t SET v = 'w' || v WHERE id % 3 = 0; UPDATE t SET id = -id WHERE id % 1000 = 1;
         DELETE FROM t WHERE id % 5 = 0; COMMIT",
    )
    .await;
    pair.write("INSERT INTO t VALUES (70000, 'after')").await;
    loop {
        let row = pair
            .target
            .query_one("SELECT count(*) FILTER (WHERE id BETWEEN 1 AND 60000), count(*) FILTER (WHERE id = 70000) FROM t", &[])
            .await
            .unwrap();
        let (huge, after): (i64, i64) = (row.get(0), row.get(1));
        assert!(huge == 0 || huge == 48000 - 60 || (huge, after) == (48000 - 60, 1), "{huge} {after}");
        if after == 1 {
            break;
        }
    }
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_the_application_change_nothing_and_stop_nothing() {
    let pair = Pair::new("messages").await;
    pair.both(T).await;
    let daemon = pair.streaming().await;
    pair.write("SELECT pg_logical_emit_message(false, 'app', 'outside'), pg_logical_emit_message(true, 'app', 'inside')").await;
    pair.write(
        r"BEGIN; INSERT INTO t VALUES (1, 'v'); SELECT pg_logical_emit_message(true, 'app', '\x00ff'::bytea);
          SELECT pg_logical_emit_message(false, '', repeat('x', 100000)); UPDATE t SET v = 'w';
          SELECT pg_logical_emit_message(true, 'only this', ''); COMMIT",
    )
    .await;
    pair.write("BEGIN; SELECT pg_logical_emit_message(false, 'app', 'x'); INSERT INTO t VALUES (2, 'never'); ROLLBACK").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_transactions_arrive_when_they_are_committed() {
    let pair = Pair::new("prepared").await;
    pair.both(T).await;
    pair.write("BEGIN; INSERT INTO t VALUES (100, 'before the slot'); PREPARE TRANSACTION 'prepared_0'")
        .await;
    pair.write("ROLLBACK PREPARED 'prepared_0'").await;
    let daemon = pair.streaming().await;
    pair.write("BEGIN; INSERT INTO t VALUES (1, 'one'), (2, 'two'); PREPARE TRANSACTION 'prepared_1'").await;
    pair.write("BEGIN; INSERT INTO t VALUES (3, 'never'); PREPARE TRANSACTION 'prepared_2'").await;
    pair.write("INSERT INTO t VALUES (4, 'meanwhile')").await;
    pair.caught_up().await;
    let count: i64 = pair.target.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
    // It also survives a new start of the daemon.
    assert!(daemon.terminate().await.success());
    let daemon = pair.streaming().await;
    pair.write("COMMIT PREPARED 'prepared_1'").await;
    pair.write("ROLLBACK PREPARED 'prepared_2'").await;
    pair.write("UPDATE t SET v = v || '!'").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_a_published_table_is_left_alone() {
    let mut pair = Pair::new("left_alone").await;
    pair.config = "[tables]\nexclude = [\"public.excluded\"]".to_owned();
    pair.both(T).await;
    pair.write(
        "CREATE TABLE excluded (v text); CREATE UNLOGGED TABLE fast (id int PRIMARY KEY); CREATE SEQUENCE s",
    )
    .await;
    pair.target
        .batch_execute(
            "CREATE SEQUENCE s START 77; SELECT nextval('s'); CREATE TABLE fast (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    pair.write(
        "BEGIN; CREATE TEMP TABLE temporary (id int) ON COMMIT DROP; INSERT INTO temporary VALUES (1);
         INSERT INTO fast VALUES (1); INSERT INTO excluded VALUES ('a'), ('b'); UPDATE excluded SET v = 'c';
         SELECT nextval('s'), setval('s', 500); SELECT lo_from_bytea(4242, 'large object');
         INSERT INTO t VALUES (1, 'v'); CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1);
         CREATE MATERIALIZED VIEW mv AS SELECT * FROM t; REFRESH MATERIALIZED VIEW mv; COMMIT",
    )
    .await;
    pair.write("VACUUM FULL t").await;
    pair.write("CLUSTER t USING t_pkey; REINDEX TABLE t; UPDATE t SET v = 'w'; SELECT lo_unlink(4242)").await;
    pair.caught_up().await;
    let row = pair
        .target
        .query_one("SELECT (SELECT last_value FROM s), (SELECT count(*) FROM fast), (SELECT count(*) FROM pg_largeobject_metadata)", &[])
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (77_i64, 0_i64, 0_i64));
    pair.write("DROP TABLE excluded, later").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_table_goes_on() {
    let pair = Pair::new("rewritten").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, v text)")
        .await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 50) i; INSERT INTO u SELECT * FROM t")
        .await;
    pair.caught_up().await;
    // A rewrite is not a change of rows: whatever it writes is done on the target by itself.
    pair.both("ALTER TABLE t ADD stamp int DEFAULT (7), ALTER id TYPE bigint").await;
    pair.write("UPDATE t SET v = 'w' WHERE id < 10; INSERT INTO t VALUES (100, 'x', 8)").await;
    pair.write("BEGIN; LOCK TABLE u; UPDATE u SET v = 'w'; COMMIT").await;
    pair.write("CREATE TABLE copy AS SELECT * FROM u; DROP TABLE copy").await;
    pair.ends_equal(daemon).await;
}
