//! `cdc run` where the two tables are not built alike, or change while it streams.

mod support;

use support::pair::Pair;

#[tokio::test(flavor = "multi_thread")]
async fn a_computed_column_that_the_target_lacks_is_no_lack() {
    let pair = Pair::new("generated").await;
    pair.write("CREATE TABLE t (id int PRIMARY KEY, b int GENERATED ALWAYS AS (id + 1) STORED)").await;
    pair.target.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    pair.write("INSERT INTO t SELECT generate_series(1, 5)").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT generate_series(6, 9)").await;
    pair.write("UPDATE t SET id = -id; DELETE FROM t WHERE id = -9").await;
    pair.caught_up().await;
    let ids = "SELECT array_agg(id ORDER BY id)::text FROM t";
    let ids = pair.target.query_one(ids, &[]).await.unwrap();
    assert_eq!(ids.get::<_, &str>(0), "{-8,-7,-6,-5,-4,-3,-2,-1}");
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_can_come_and_go_while_streaming() {
    let pair = Pair::new("ddl").await;
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE whole (a int, v text);
         ALTER TABLE whole REPLICA IDENTITY FULL",
    )
    .await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 9) i").await;
    pair.write("INSERT INTO whole SELECT i, 'v' FROM generate_series(1, 9) i").await;
    pair.caught_up().await;
    // What is added is added on the target first, what is dropped is dropped there last.
    pair.target.batch_execute("ALTER TABLE t ADD n int; ALTER TABLE whole ADD n int").await.unwrap();
    pair.write(
        "BEGIN; UPDATE t SET v = 'before' WHERE id = 1; UPDATE whole SET v = 'before' WHERE a = 1;
         ALTER TABLE t ADD n int; ALTER TABLE whole ADD n int;
         UPDATE t SET n = id WHERE id < 5; INSERT INTO t VALUES (10, 'w', 10); UPDATE whole SET n = a WHERE a < 5;
         SAVEPOINT s; ALTER TABLE t ADD never int; INSERT INTO t VALUES (11, 'w', 11, 11); ROLLBACK TO s;
         DELETE FROM whole WHERE a = 2; COMMIT",
    )
    .await;
    pair.write(
        "ALTER TABLE t ADD extra text; ALTER TABLE t DROP extra; UPDATE t SET v = 'after' WHERE id > 7",
    )
    .await;
    pair.write("ALTER TABLE t DROP v; UPDATE t SET n = 0 WHERE id = 2; INSERT INTO t VALUES (20, 20)").await;
    pair.write("ALTER TABLE whole RENAME v TO w").await;
    pair.caught_up().await;
    pair.target.batch_execute("ALTER TABLE t DROP v; ALTER TABLE whole RENAME v TO w").await.unwrap();
    pair.write("UPDATE whole SET w = 'renamed' WHERE a = 3; UPDATE t SET n = 1 WHERE id = 3").await;
    pair.caught_up().await;
    // Types, keys and identities.
    pair.target.batch_execute("ALTER TABLE t ALTER n TYPE bigint").await.unwrap();
    pair.write("ALTER TABLE t ALTER n TYPE bigint; UPDATE t SET n = 5000000000 WHERE id = 4").await;
    pair.both("ALTER TABLE whole ADD PRIMARY KEY (a)").await;
    pair.write(
        "ALTER TABLE whole REPLICA IDENTITY DEFAULT; UPDATE whole SET n = -1; DELETE FROM whole WHERE a = 9",
    )
    .await;
    pair.write(
        "ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET n = -1 WHERE id = 5; DELETE FROM t WHERE id = 6",
    )
    .await;
    pair.caught_up().await;
    pair.both("ALTER TABLE t RENAME TO t2").await;
    pair.write("UPDATE t2 SET n = -2 WHERE id = 7; INSERT INTO t2 VALUES (30, 30)").await;
    pair.ends_equal(daemon).await;
}
