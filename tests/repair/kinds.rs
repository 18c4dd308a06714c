//! Every kind of table, and everything that can be wrong with its rows.

use crate::support::churn::{self, Churn};
use crate::support::pair::{Pair, number};
use crate::{ask, repaired};

/// Tables with every kind of key.
const TABLES: &str = "
    CREATE TABLE u (id uuid PRIMARY KEY, v text);
    CREATE TABLE c (a int, b uuid, v text, PRIMARY KEY (a, b));
    CREATE TABLE w (word text PRIMARY KEY, v text);
    CREATE TABLE bare (v text, n int);
    ALTER TABLE bare REPLICA IDENTITY FULL;
    CREATE TABLE f (id int PRIMARY KEY, j json);
    ALTER TABLE f REPLICA IDENTITY FULL;
    CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (5000);
    CREATE TABLE grown (id int PRIMARY KEY, v text)";

const ROWS: &str = "
    INSERT INTO u SELECT md5(i::text)::uuid, 'v' || i FROM generate_series(1, 3000) i;
    INSERT INTO c SELECT i % 50, md5(i::text)::uuid, 'v' || i FROM generate_series(1, 3000) i;
    INSERT INTO w SELECT 'word ' || i, 'v' || i FROM generate_series(1, 1000) i;
    INSERT INTO bare SELECT 'v' || i % 10, i % 7 FROM generate_series(1, 100) i;
    INSERT INTO f SELECT i, json_build_object('i', i) FROM generate_series(1, 1000) i;
    INSERT INTO p SELECT i, 'v' || i FROM generate_series(1, 3000) i;
    ANALYZE";

/// Rows that are missing, others that are there too much, and some that differ.
const CORRUPTIONS: &str = "
    DELETE FROM u WHERE id < '40000000-0000-0000-0000-000000000000';
    INSERT INTO u SELECT md5(i::text)::uuid, 'extra' FROM generate_series(5000, 5100) i;
    UPDATE c SET v = 'different' WHERE a IN (3, 4); INSERT INTO c VALUES (4, md5('x')::uuid, 'extra');
    DELETE FROM w WHERE word LIKE '%7'; UPDATE w SET v = 'different' WHERE word LIKE '%8';
    DELETE FROM bare WHERE n = 3; INSERT INTO bare SELECT 'v1', 1 FROM generate_series(1, 5);
    UPDATE f SET j = '{\"i\":  -1}' WHERE id < 10; DELETE FROM f WHERE id > 990;
    DELETE FROM p WHERE id BETWEEN 900 AND 1100; INSERT INTO p VALUES (4000, 'extra');
    DELETE FROM grown WHERE id % 1000 < 3; UPDATE grown SET v = 'different' WHERE id = 77777;
    DELETE FROM big WHERE id % 31 = 5; UPDATE big SET name = 'different', body = 'x' WHERE id % 37 = 2";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_has_happened_to_rows_they_are_the_sources_again_under_a_writer() {
    let mut pair = Pair::new("repair_all_kinds").await;
    pair.config = "[copy]\nmax_rate = \"40MB\"\n".to_owned();
    pair.both(TABLES).await;
    pair.both(churn::TABLE).await;
    pair.write(ROWS).await;
    pair.write(&churn::fill(20_000)).await;
    let daemon = pair.streaming().await;
    // It was empty when it was planned, and is large now.
    pair.write(
        "INSERT INTO grown SELECT i, repeat('v', 100) FROM generate_series(1, 200000) i; ANALYZE grown",
    )
    .await;
    pair.caught_up().await;
    let churn = Churn::start(&pair.source_url, 20_000, 300);
    pair.target.batch_execute(CORRUPTIONS).await.unwrap();
    ask(&pair, "u", Some(r#"[{"lower": null, "upper": ["40000000-0000-0000-0000-000000000000"]}]"#), &["id"])
        .await;
    ask(&pair, "u", Some(r#"[{"lower": ["40000000-0000-0000-0000-000000000000"], "upper": null}]"#), &["id"])
        .await;
    let uuids = r#"["00000000-0000-0000-0000-000000000000"]"#.trim_matches(['[', ']']);
    ask(&pair, "c", Some(&format!(r#"[{{"lower": [3, {uuids}], "upper": [5, {uuids}]}}]"#)), &["a", "b"])
        .await;
    for table in ["w", "bare", "f", "p1", "p2", "big", "grown"] {
        ask(&pair, table, None, &[]).await;
    }
    assert_eq!(repaired(&pair).await, [""; 0]);
    churn.stop().await;
    let chunks = "SELECT count(*) FROM cdc.chunk WHERE relation = (SELECT relation FROM cdc.copy WHERE table_name = 'grown')";
    assert!(number(&pair.target, chunks).await > 1, "what has grown is copied in one chunk");
    pair.ends_equal(daemon).await;
}
