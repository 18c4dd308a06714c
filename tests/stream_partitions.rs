//! `cdc run` and partitions, inheritance and TRUNCATE.

mod support;

use support::pair::Pair;

const PARTITIONED: &str = "
    CREATE TABLE m (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE m_1 PARTITION OF m FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
    CREATE TABLE m_2 PARTITION OF m FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
    CREATE TABLE m_rest PARTITION OF m DEFAULT;
    CREATE TABLE f (id int, day date, v json) PARTITION BY RANGE (day);
    CREATE TABLE f_1 PARTITION OF f FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
    CREATE TABLE f_2 PARTITION OF f FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
    ALTER TABLE f_1 REPLICA IDENTITY FULL; ALTER TABLE f_2 REPLICA IDENTITY FULL";

/// Changes of all kinds, also of rows that move to another partition.
const CHANGES: &[&str] = &[
    "INSERT INTO m SELECT i, date '2024-01-01' + i, 'v' FROM generate_series(0, 80) i",
    "INSERT INTO f SELECT i % 7, date '2024-01-01' + i % 7 * 8, '[1]' FROM generate_series(1, 60) i",
    "UPDATE m SET v = 'w' WHERE id % 3 = 0; UPDATE f SET v = '[1, 2]' WHERE id = 1",
    "UPDATE m SET day = day + 31 WHERE id % 4 = 0; UPDATE f SET day = '2024-02-03' WHERE id = 2",
    "UPDATE m SET id = id + 1000 WHERE id % 5 = 0; DELETE FROM m WHERE id % 7 = 0",
    "DELETE FROM f WHERE ctid = (SELECT min(ctid) FROM f_1 WHERE id = 3)",
    "INSERT INTO m_1 VALUES (5000, '2024-01-01', 'directly'); UPDATE m_1 SET v = 'x' WHERE id = 5000",
];

async fn change(pair: &Pair) {
    for change in CHANGES {
        pair.write(change).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_go_to_the_same_partitions() {
    let pair = Pair::new("same_partitions").await;
    pair.both(PARTITIONED).await;
    let daemon = pair.streaming().await;
    change(&pair).await;
    pair.write("TRUNCATE m_2; INSERT INTO m SELECT i, '2024-02-02', 'again' FROM generate_series(1, 9) i")
        .await;
    pair.ends_equal(daemon).await;
    for partition in ["m_1", "m_2", "m_rest", "f_1", "f_2"] {
        let sql = format!("SELECT count(*) FROM ONLY {partition}");
        let rows = |row: tokio_postgres::Row| row.get::<_, i64>(0);
        let there = rows(pair.source.query_one(&sql, &[]).await.unwrap());
        assert_eq!(rows(pair.target.query_one(&sql, &[]).await.unwrap()), there, "{partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_go_into_a_table_without_any() {
    let pair = Pair::new("unpartitioned").await;
    pair.write(PARTITIONED).await;
    pair.target
        .batch_execute("CREATE TABLE m (id int, day date, v text, PRIMARY KEY (id, day)); CREATE TABLE f (id int, v json, day date)")
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    change(&pair).await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("TRUNCATE m; INSERT INTO m VALUES (1, '2024-01-01', 'again')").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_go_through_the_root_where_the_target_has_others() {
    let pair = Pair::new("other_partitions").await;
    pair.write(PARTITIONED).await;
    pair.target
        .batch_execute(
            "CREATE TABLE m (v text, id int, day date, PRIMARY KEY (id, day)) PARTITION BY HASH (id);
             CREATE TABLE m_a PARTITION OF m FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE m_b (day date, v text, gone int, id int NOT NULL); ALTER TABLE m_b DROP gone;
             ALTER TABLE m_b ADD PRIMARY KEY (id, day);
             ALTER TABLE m ATTACH PARTITION m_b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             CREATE TABLE f (id int, day date, v json) PARTITION BY LIST (id);
             CREATE TABLE f_some PARTITION OF f FOR VALUES IN (1, 2, 3);
             CREATE TABLE f_rest PARTITION OF f DEFAULT",
        )
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    change(&pair).await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("TRUNCATE m; INSERT INTO m VALUES (1, '2024-01-01', 'again')").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_table_goes_into_a_partitioned_one() {
    let pair = Pair::new("into_partitions").await;
    pair.write(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
         CREATE TABLE whole (a int, v json); ALTER TABLE whole REPLICA IDENTITY FULL",
    )
    .await;
    pair.target
        .batch_execute(
            "CREATE TABLE t (v text, id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (50) PARTITION BY LIST (id);
             CREATE TABLE t_low_rest PARTITION OF t_low DEFAULT;
             CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (50) TO (MAXVALUE);
             CREATE TABLE whole (a int, v json) PARTITION BY LIST (a);
             CREATE TABLE whole_0 PARTITION OF whole FOR VALUES IN (0);
             CREATE TABLE whole_rest PARTITION OF whole DEFAULT",
        )
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t (v) SELECT 'v' FROM generate_series(1, 80) i").await;
    pair.write("INSERT INTO whole SELECT i % 3, '1' FROM generate_series(1, 30) i").await;
    pair.write("UPDATE t SET v = 'w' WHERE id > 40; UPDATE t SET id = DEFAULT WHERE id < 10; DELETE FROM t WHERE id % 9 = 0")
        .await;
    pair.write("UPDATE whole SET a = 0 WHERE a = 1; DELETE FROM whole WHERE ctid = (SELECT max(ctid) FROM whole WHERE a = 0)")
        .await;
    pair.write("UPDATE whole SET a = 2, v = '2' WHERE ctid = (SELECT max(ctid) FROM whole WHERE a = 0)")
        .await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("TRUNCATE t; INSERT INTO t (v) VALUES ('x')").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go_while_streaming() {
    let pair = Pair::new("attach_detach").await;
    let schema = "CREATE TABLE m (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE m_1 PARTITION OF m FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
         CREATE SCHEMA archive";
    pair.both(schema).await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO m SELECT i, '2024-01-02', 'v' FROM generate_series(1, 9) i").await;
    // A new partition, and below it partitions of its own.
    pair.both(
        "CREATE TABLE m_2 PARTITION OF m FOR VALUES FROM ('2024-02-01') TO ('2024-03-01') PARTITION BY LIST (id);
         CREATE TABLE m_2_1 PARTITION OF m_2 FOR VALUES IN (1);
         CREATE TABLE archive.m_2_rest PARTITION OF m_2 DEFAULT",
    )
    .await;
    pair.write("INSERT INTO m SELECT i, '2024-02-02', 'v' FROM generate_series(1, 9) i; UPDATE m SET v = 'w' WHERE id < 3")
        .await;
    pair.write("UPDATE m SET day = '2024-02-03' WHERE id > 5 AND day < '2024-02-01'; DELETE FROM m_2_1")
        .await;
    pair.caught_up().await;
    // A table that becomes a partition, as on both sides it is empty before.
    pair.both("CREATE TABLE m_3 (v text, day date NOT NULL, id int NOT NULL, PRIMARY KEY (id, day))").await;
    pair.both("ALTER TABLE m ATTACH PARTITION m_3 FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')").await;
    pair.write("INSERT INTO m SELECT i, '2024-03-02', 'v' FROM generate_series(1, 9) i; UPDATE m SET id = id + 100 WHERE id = 3")
        .await;
    pair.write("TRUNCATE m_2; INSERT INTO m VALUES (1, '2024-02-05', 'again')").await;
    pair.caught_up().await;
    pair.both("ALTER TABLE m DETACH PARTITION m_1").await;
    pair.write("UPDATE m SET v = 'after'").await;
    pair.caught_up().await;
    pair.both("DROP TABLE m_1; DROP TABLE m_2_1").await;
    pair.write("DELETE FROM m WHERE id = 7").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_s_changes_leave_the_tables_that_inherit_from_it_alone() {
    let pair = Pair::new("inheritance").await;
    pair.both(
        "CREATE TABLE parent (id int PRIMARY KEY, v text);
         CREATE TABLE child (extra text, PRIMARY KEY (id)) INHERITS (parent);
         CREATE TABLE whole (id int, v text); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE whole_child () INHERITS (whole); ALTER TABLE whole_child REPLICA IDENTITY FULL",
    )
    .await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO parent SELECT i, 'p' FROM generate_series(1, 9) i").await;
    pair.write("INSERT INTO child SELECT i, 'c', 'e' FROM generate_series(1, 9) i").await;
    for table in ["whole", "whole_child"] {
        pair.write(&format!("INSERT INTO {table} SELECT i, 'v' FROM generate_series(1, 9) i")).await;
    }
    pair.write("UPDATE ONLY parent SET v = 'changed' WHERE id < 5; DELETE FROM ONLY parent WHERE id = 9")
        .await;
    pair.write("UPDATE ONLY parent SET id = 100 WHERE id = 1; UPDATE parent SET v = 'both' WHERE id = 7")
        .await;
    pair.write("DELETE FROM ONLY whole WHERE id = 1; UPDATE ONLY whole SET v = 'w' WHERE id = 2; DELETE FROM whole WHERE id = 3")
        .await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("TRUNCATE ONLY parent").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("TRUNCATE whole").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_empties_what_it_emptied_on_the_source_and_nothing_else() {
    let pair = Pair::new("truncate").await;
    pair.both(
        "CREATE TABLE a (id serial PRIMARY KEY, v text);
         CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
         CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON DELETE CASCADE);
         CREATE TABLE d (id int PRIMARY KEY, v text)",
    )
    .await;
    // Only the target knows that d refers to a, and only the target has this table.
    pair.target
        .batch_execute("CREATE TABLE mine (id int PRIMARY KEY); INSERT INTO mine VALUES (1)")
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    let fill = "INSERT INTO a (v) SELECT 'v' FROM generate_series(1, 9); INSERT INTO b SELECT id, id FROM a;
                INSERT INTO c SELECT id, id FROM b; INSERT INTO d SELECT id, 'd' FROM a";
    pair.write(fill).await;
    pair.write("TRUNCATE a RESTART IDENTITY CASCADE; DELETE FROM d").await;
    pair.write(fill).await;
    pair.write("TRUNCATE c, b; TRUNCATE d; INSERT INTO d VALUES (1, 'again')").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write(&format!(
        "BEGIN; INSERT INTO d VALUES (2, 'soon gone'); UPDATE a SET v = 'gone'; TRUNCATE d; INSERT INTO d VALUES (2, 'stays');
         SAVEPOINT s; TRUNCATE a CASCADE; ROLLBACK TO s; UPDATE a SET v = 'stays' WHERE id = 3; TRUNCATE a, b, c, d;
         {fill}; DELETE FROM c WHERE id % 2 = 0; COMMIT"
    ))
    .await;
    let left: i64 = pair.target.query_one("SELECT count(*) FROM mine", &[]).await.unwrap().get(0);
    assert_eq!(left, 1);
    pair.ends_equal(daemon).await;
}
