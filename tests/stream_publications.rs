//! `cdc run` follows a publication that was made by hand as it is.

mod support;

use support::pair::{Pair, is_since};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_decides_which_rows_are_on_the_target() {
    let pair = Pair::new("row_filter").await;
    if !is_since(15, &pair.source).await {
        return;
    }
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE whole (id int, n int, big text); ALTER TABLE whole REPLICA IDENTITY FULL;
         ALTER TABLE whole ALTER big SET STORAGE EXTERNAL",
    )
    .await;
    pair.write("CREATE PUBLICATION cdc_row_filter FOR TABLE t WHERE (id < 100), whole WHERE (n > 0)").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'v', repeat('x', 3000) FROM generate_series(81, 120) i").await;
    pair.write("INSERT INTO whole SELECT i, i - 20, repeat('x', 3000) FROM generate_series(1, 40) i").await;
    pair.write("UPDATE t SET v = 'w'; UPDATE whole SET n = -n").await;
    // The update of a filtered key makes rows appear and disappear.
    pair.write("UPDATE t SET id = id + 1000, big = 'b' WHERE id < 90; UPDATE t SET id = id - 70, big = 'c' WHERE id BETWEEN 110 AND 120")
        .await;
    pair.write("UPDATE whole SET n = 5 WHERE id = 40; DELETE FROM whole WHERE id < 10; DELETE FROM t WHERE id % 2 = 0").await;
    pair.caught_up().await;
    pair.write("DELETE FROM t WHERE id >= 100; DELETE FROM whole WHERE n <= 0").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_list_leaves_the_other_columns_to_the_target() {
    let pair = Pair::new("column_list").await;
    if !is_since(15, &pair.source).await {
        return;
    }
    pair.write(
        "CREATE TABLE t (id int PRIMARY KEY, secret text, v text);
         CREATE TABLE hidden (id int PRIMARY KEY, n int, big text, secret text NOT NULL);
         ALTER TABLE hidden ALTER big SET STORAGE EXTERNAL;
         CREATE PUBLICATION cdc_column_list FOR TABLE t (id, v), hidden (big, id)",
    )
    .await;
    // Columns that aren't published need not be there.
    pair.target
        .batch_execute(
            "CREATE TABLE t (v text, id int PRIMARY KEY, secret text DEFAULT 'own');
             CREATE TABLE hidden (id int PRIMARY KEY, big text)",
        )
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 's', 'v' FROM generate_series(1, 9) i").await;
    pair.write("INSERT INTO hidden SELECT i, 0, repeat('x', 3000), 's' FROM generate_series(1, 9) i").await;
    // An UPDATE of a column that isn't published still comes, without anything to write but TOAST.
    pair.write("UPDATE t SET secret = 'other'; UPDATE hidden SET n = 1, secret = 'other'").await;
    pair.write(
        "UPDATE t SET v = 'w', secret = 'x' WHERE id < 5; UPDATE hidden SET id = id + 100 WHERE id < 5",
    )
    .await;
    pair.write("DELETE FROM t WHERE id = 9; DELETE FROM hidden WHERE id = 101").await;
    pair.caught_up().await;
    let row = pair.target.query_one("SELECT string_agg(DISTINCT secret, ',') FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "own");
    pair.write("UPDATE t SET secret = 'own'; ALTER TABLE hidden DROP n, DROP secret").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_publication_does_not_publish_does_not_come() {
    let pair = Pair::new("insert_only_by_hand").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE keyless (v text)").await;
    pair.write("CREATE PUBLICATION cdc_insert_only_by_hand FOR TABLE t, keyless WITH (publish = 'insert')")
        .await;
    let daemon = pair.streaming().await;
    pair.write(
        "INSERT INTO t SELECT i, 'v' FROM generate_series(1, 9) i; INSERT INTO keyless VALUES ('a'), ('a')",
    )
    .await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("UPDATE t SET v = 'w'; DELETE FROM t WHERE id < 5; TRUNCATE keyless; INSERT INTO t VALUES (50, 'new')").await;
    pair.caught_up().await;
    let row = pair
        .target
        .query_one("SELECT string_agg(id || v, ',' ORDER BY id), (SELECT count(*) FROM keyless) FROM t", &[])
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), ("1v,2v,3v,4v,5v,6v,7v,8v,9v,50new", 2_i64));
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_can_send_partitions_as_their_root() {
    let pair = Pair::new("via_root").await;
    pair.write(
        "CREATE TABLE m (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
         CREATE TABLE m_1 PARTITION OF m FOR VALUES IN (1);
         CREATE TABLE m_2 (v text, part int NOT NULL, id int NOT NULL, PRIMARY KEY (id, part));
         ALTER TABLE m ATTACH PARTITION m_2 FOR VALUES IN (2);
         CREATE PUBLICATION cdc_via_root FOR TABLE m WITH (publish_via_partition_root)",
    )
    .await;
    pair.target
        .batch_execute("CREATE TABLE m (id int, part int, v text, PRIMARY KEY (id, part))")
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO m SELECT i, 1 + i % 2, 'v' FROM generate_series(1, 20) i").await;
    pair.write("UPDATE m SET v = 'w' WHERE id < 9; UPDATE m SET part = 3 - part WHERE id > 15; DELETE FROM m WHERE id = 3").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("TRUNCATE m; INSERT INTO m VALUES (1, 2, 'again')").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_outside_the_publication_are_nobody_s_business() {
    let pair = Pair::new("some_tables").await;
    pair.write(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (v text);
         CREATE PUBLICATION cdc_some_tables FOR TABLE t",
    )
    .await;
    pair.target.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text)").await.unwrap();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1, 'v'); INSERT INTO other VALUES ('x'); UPDATE other SET v = 'y'; UPDATE t SET v = 'w'")
        .await;
    pair.caught_up().await;
    pair.write("DROP TABLE other").await;
    pair.ends_equal(daemon).await;
}
