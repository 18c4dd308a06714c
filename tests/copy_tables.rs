//! Tables of every kind are copied while they are written.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use support::churn::again_and_again;
use support::pair::{Pair, as_owner, constraints, is_since, number};

/// Copies under this writer, and compares everything.
async fn copied_while(pair: &Pair, writer: &'static str) {
    let before = constraints(&pair.target).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = again_and_again(pair, Duration::from_millis(10), writer, &stop);
    let daemon = pair.streaming().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Relaxed);
    writer.await.expect("the writer ends");
    if !as_owner() {
        assert_eq!(constraints(&pair.target).await, before);
    }
    let open = "SELECT count(*) FROM cdc.incident WHERE resolved_at IS NULL";
    assert_eq!(number(&pair.target, open).await, 0, "{:#}", pair.status());
    pair.ends_equal(daemon).await;
    if as_owner() {
        assert_eq!(pair.run(&["drop", "--yes"]).status.code(), Some(0));
        assert_eq!(constraints(&pair.target).await, before);
    }
}

/// Small chunks, all at once.
const SMALL_CHUNKS: &str = "[copy]\nreaders = 8\nmax_rate = \"2MB\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_tells_its_rows_apart() {
    let mut pair = Pair::new("keys").await;
    pair.config = format!("[tables]\ninsert_only = [\"public.events\"]\n{SMALL_CHUNKS}");
    pair.both(
        "CREATE DOMAIN number AS int;
         CREATE TABLE by_text (code text PRIMARY KEY, v text);
         CREATE TABLE by_uuid (id uuid PRIMARY KEY, v text);
         CREATE TABLE by_domain (id number PRIMARY KEY, v text);
         CREATE TABLE composite (a bigint, b smallint, c text, v text, PRIMARY KEY (b, a, c));
         CREATE TABLE whole (n int, v text, j json); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE whole_with_key (id int PRIMARY KEY, p point, v text);
         ALTER TABLE whole_with_key REPLICA IDENTITY FULL;
         CREATE TABLE other_identity (id int PRIMARY KEY, code bigint NOT NULL UNIQUE, v text);
         ALTER TABLE other_identity REPLICA IDENTITY USING INDEX other_identity_code_key;
         CREATE TABLE events (v text)",
    )
    .await;
    pair.write(
        "INSERT INTO by_text SELECT 'code ' || i, repeat('t', i % 300) FROM generate_series(1, 3000) i;
         INSERT INTO by_uuid SELECT md5(i::text)::uuid, repeat('u', 300) FROM generate_series(1, 3000) i;
         INSERT INTO by_domain SELECT i, 'd' FROM generate_series(1, 3000) i;
         INSERT INTO composite SELECT i % 40, i % 7, 'c' || i, repeat('c', 300) FROM generate_series(1, 3000) i;
         INSERT INTO whole SELECT nullif(i % 5, 0), CASE WHEN i % 3 > 0 THEN 'v' END, '{\"a\": [1, null]}'
           FROM generate_series(1, 500) i;
         INSERT INTO whole_with_key SELECT i, point(i, -i), repeat('w', 300) FROM generate_series(1, 3000) i;
         INSERT INTO other_identity SELECT i, 10000 - i, repeat('o', 300) FROM generate_series(1, 3000) i;
         INSERT INTO events SELECT 'event ' || i % 9 FROM generate_series(1, 500) i; ANALYZE",
    )
    .await;
    copied_while(
        &pair,
        "INSERT INTO by_text VALUES ('new $', 'v'); DELETE FROM by_text WHERE code = 'code ' || $ * 3;
         UPDATE by_text SET code = 'moved $' WHERE code = 'code ' || $ * 7 + 1;
         UPDATE by_uuid SET id = md5('new $')::uuid WHERE id = md5(($ * 5)::text)::uuid;
         UPDATE by_uuid SET v = v || '$' WHERE id < '10000000-0000-0000-0000-000000000000' AND random() < 0.01;
         UPDATE by_domain SET v = 'e' WHERE id = 1 + $ % 3000; DELETE FROM by_domain WHERE id = 3000 - $;
         UPDATE composite SET b = (b + 1) % 7, c = c || 'm' WHERE a = $ % 40 AND b = $ % 7;
         DELETE FROM composite WHERE c = 'c' || $ * 11;
         DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole WHERE n IS NULL);
         UPDATE whole SET v = 'w' WHERE ctid = (SELECT max(ctid) FROM whole WHERE n = 2);
         INSERT INTO whole VALUES (2, 'v', NULL), (2, 'v', NULL), (NULL, NULL, NULL);
         UPDATE whole_with_key SET id = id + 5000, p = point(0, $) WHERE id = 1 + $ * 3;
         UPDATE other_identity SET code = -code WHERE id = 1 + $ * 2 % 3000;
         UPDATE other_identity SET id = -id WHERE id = 2 + $ * 2 % 3000;
         INSERT INTO events VALUES ('new $'), (NULL)",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_its_shape_and_name_is() {
    let mut pair = Pair::new("shapes").await;
    pair.config = SMALL_CHUNKS.to_owned();
    if is_since(18, &pair.source).await {
        // Nothing else tells its rows apart, and a full identity can't have a generated column any more.
        pair.config += "[tables]\ninsert_only = [\"public.only_generated\"]\n";
    }
    pair.both(
        r#"CREATE TABLE empty (id int PRIMARY KEY); CREATE TABLE single (id int PRIMARY KEY, v text);
           CREATE TABLE columnless (); ALTER TABLE columnless REPLICA IDENTITY FULL;
           CREATE TABLE only_generated (a int GENERATED ALWAYS AS (1) STORED);
           ALTER TABLE only_generated REPLICA IDENTITY FULL;
           CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice int GENERATED ALWAYS AS (a * 2) STORED,
                              a int, other int GENERATED BY DEFAULT AS IDENTITY);
           CREATE SCHEMA "Other, Schema";
           CREATE TABLE "Other, Schema"."Odd ""name"" x" ("Key Col" int, "select" uuid, "a ""b"" c" text,
                                                          PRIMARY KEY ("select", "Key Col"));
           CREATE TABLE parent (id int PRIMARY KEY, v text);
           CREATE TABLE child (extra text, PRIMARY KEY (id)) INHERITS (parent);
           CREATE TABLE grandchild (PRIMARY KEY (id)) INHERITS (child)"#,
    )
    .await;
    // What is there already is replaced, wherever it is in a family.
    pair.target
        .batch_execute("INSERT INTO child VALUES (77, 'old', 'x'); INSERT INTO parent VALUES (78, 'old')")
        .await
        .unwrap();
    pair.write(
        r#"INSERT INTO single VALUES (1, NULL); INSERT INTO columnless DEFAULT VALUES; INSERT INTO columnless DEFAULT VALUES;
           INSERT INTO only_generated SELECT FROM generate_series(1, 5);
           INSERT INTO made (a) SELECT i FROM generate_series(1, 3000) i;
           INSERT INTO "Other, Schema"."Odd ""name"" x"
           SELECT i, md5(i::text)::uuid, E'tab\t\\ and\nline \\. \\N' || repeat('x', 200) FROM generate_series(1, 3000) i;
           INSERT INTO parent SELECT i, repeat('p', 200) FROM generate_series(1, 2000) i;
           INSERT INTO child SELECT i, repeat('c', 200), 'extra' FROM generate_series(1, 2000) i;
           INSERT INTO grandchild SELECT i, 'g', NULL FROM generate_series(1, 2000) i; ANALYZE"#,
    )
    .await;
    copied_while(
        &pair,
        r#"UPDATE single SET v = '$'; INSERT INTO columnless DEFAULT VALUES; INSERT INTO made (a) VALUES ($);
           DELETE FROM columnless WHERE ctid = (SELECT min(ctid) FROM columnless) AND $ % 3 = 0;
           INSERT INTO only_generated DEFAULT VALUES;
           UPDATE made SET a = -a WHERE id = 1 + 3 * $; UPDATE made SET id = DEFAULT WHERE id = 2 + 3 * $;
           UPDATE "Other, Schema"."Odd ""name"" x" SET "Key Col" = -"Key Col", "a ""b"" c" = E'\\N$' WHERE "Key Col" = 1 + 7 * $;
           UPDATE parent SET v = 'all $' WHERE id = 1 + 3 * $ % 2000; DELETE FROM ONLY parent WHERE id = 2 + 5 * $;
           UPDATE child SET id = -id WHERE id = 3 + 11 * $"#,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_refers_to_what() {
    let mut pair = Pair::new("references_").await;
    pair.config = SMALL_CHUNKS.to_owned();
    pair.both(
        "CREATE TABLE staff (id int PRIMARY KEY, boss int, v text,
                             CONSTRAINT has_boss FOREIGN KEY (boss) REFERENCES staff ON DELETE SET NULL);
         CREATE TABLE a (id int PRIMARY KEY, b int NOT NULL, v text);
         CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a DEFERRABLE INITIALLY DEFERRED, v text);
         ALTER TABLE a ADD CONSTRAINT circle FOREIGN KEY (b) REFERENCES b ON DELETE CASCADE ON UPDATE CASCADE
                           DEFERRABLE INITIALLY DEFERRED;
         CREATE TABLE leaf (id uuid PRIMARY KEY, staff int REFERENCES staff ON DELETE CASCADE,
                            pair int, FOREIGN KEY (pair) REFERENCES b (id) NOT VALID);
         COMMENT ON CONSTRAINT circle ON a IS 'round and round'",
    )
    .await;
    pair.write(
        "INSERT INTO staff SELECT i, nullif(i / 10, 0), repeat('s', 300) FROM generate_series(1, 3000) i;
         BEGIN; INSERT INTO a SELECT i, 3001 - i, repeat('a', 300) FROM generate_series(1, 3000) i;
         INSERT INTO b SELECT i, 3001 - i, repeat('b', 300) FROM generate_series(1, 3000) i; COMMIT;
         INSERT INTO leaf SELECT md5(i::text)::uuid, i, i FROM generate_series(1, 3000) i; ANALYZE",
    )
    .await;
    copied_while(
        &pair,
        "DELETE FROM staff WHERE id = 300 + 7 * $; UPDATE staff SET boss = 1 WHERE id = 1 + 13 * $ % 290;
         INSERT INTO staff VALUES (10000 + $, 1, 'new'); INSERT INTO leaf VALUES (gen_random_uuid(), 10000 + $, NULL);
         BEGIN; INSERT INTO a VALUES (10000 + $, 10000 + $, 'new'); INSERT INTO b VALUES (10000 + $, 10000 + $, 'new'); COMMIT;
         UPDATE b SET id = -id WHERE id = 2500 + $ AND NOT EXISTS (SELECT FROM leaf WHERE pair = b.id);
         DELETE FROM leaf WHERE pair = 1 + 5 * $",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_its_partitions_are() {
    let mut pair = Pair::new("partitions").await;
    pair.config = SMALL_CHUNKS.to_owned();
    let partitions = |table: &str| {
        format!(
            "CREATE TABLE {table} (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
             CREATE TABLE {table}_2 PARTITION OF {table} FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
             CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT;"
        )
    };
    let all: String = ["same", "other", "plain"].map(partitions).concat();
    pair.write(&all).await;
    pair.target
        .batch_execute(&format!(
            "{}; CREATE TABLE other (v text, id int, day date, PRIMARY KEY (id, day)) PARTITION BY HASH (id);
             CREATE TABLE other_a PARTITION OF other FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE other_b PARTITION OF other FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             CREATE TABLE plain (id int, day date, v text, PRIMARY KEY (id, day), UNIQUE (id));
             INSERT INTO plain VALUES (7, '2026-01-01', 'old'); INSERT INTO other VALUES ('old', 7, '2026-01-01')",
            partitions("same")
        ))
        .await
        .unwrap();
    for table in ["same", "other", "plain"] {
        pair.write(&format!(
            "INSERT INTO {table} SELECT i, date '2026-01-01' + i % 80, repeat('x', 400) FROM generate_series(1, 4000) i"
        ))
        .await;
    }
    pair.write("ANALYZE").await;
    copied_while(
        &pair,
        "UPDATE same SET day = date '2026-01-01' + $ % 80 WHERE id = 1 + 3 * $ % 4000;
         UPDATE same SET v = 'same $' WHERE id % 97 = $ % 97; DELETE FROM same WHERE id = 2 + 3 * $;
         UPDATE other SET day = date '2026-01-01' + (7 * $) % 80 WHERE id = 1 + 3 * $ % 4000;
         UPDATE other SET id = -id WHERE id = 3 + 3 * $; INSERT INTO other VALUES (10000 + $, '2026-02-07', 'new');
         UPDATE plain SET day = date '2026-01-01' + (11 * $) % 80 WHERE id = 1 + 5 * $ % 4000;
         UPDATE plain SET v = 'plain $' WHERE id % 97 = $ % 97; DELETE FROM plain WHERE id = 2 + 5 * $;
         INSERT INTO plain VALUES (10000 + $, '2026-01-07', 'new')",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_publication_leaves_out() {
    let mut pair = Pair::new("left_out").await;
    if !is_since(15, &pair.source).await {
        return;
    }
    pair.config = SMALL_CHUNKS.to_owned();
    let table = "CREATE TABLE t (id int PRIMARY KEY, v text, secret text);
                 CREATE TABLE filtered (id int PRIMARY KEY, n int, v text);
                 CREATE TABLE whole (id int PRIMARY KEY, n int); ALTER TABLE whole REPLICA IDENTITY FULL";
    pair.both(table).await;
    pair.write(
        "INSERT INTO t SELECT i, repeat('v', 300), 's' FROM generate_series(1, 3000) i;
         INSERT INTO filtered SELECT i, i, repeat('v', 300) FROM generate_series(1, 3000) i;
         INSERT INTO whole SELECT i, i - 1500 FROM generate_series(1, 3000) i;
         CREATE PUBLICATION cdc_left_out FOR TABLE t (v, id), filtered WHERE (id % 2 = 0 OR id > 2900), whole WHERE (n > 0);
         ANALYZE",
    )
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = again_and_again(
        &pair,
        Duration::from_millis(10),
        "UPDATE t SET secret = 'other $', v = 'w' WHERE id = 1 + 3 * $ % 3000; INSERT INTO t VALUES (10000 + $, 'v', 's');
         UPDATE filtered SET id = -id WHERE id = 1 + 7 * $; UPDATE filtered SET id = id + 10001 WHERE id = 2 + 7 * $;
         UPDATE filtered SET n = $ WHERE id % 31 = $ % 31; DELETE FROM filtered WHERE id = 3 + 7 * $;
         UPDATE whole SET n = -n WHERE id % 53 = $ % 53",
        &stop,
    );
    let daemon = pair.streaming().await;
    stop.store(true, Relaxed);
    writer.await.unwrap();
    pair.caught_up().await;
    let secrets = "SELECT count(*) FROM t WHERE secret IS NOT NULL";
    assert_eq!(number(&pair.target, secrets).await, 0);
    // What isn't published is made alike by hand, so that everything can be compared.
    pair.write(
        "ALTER PUBLICATION cdc_left_out SET (publish = 'insert');
         DELETE FROM filtered WHERE NOT (id % 2 = 0 OR id > 2900); DELETE FROM whole WHERE NOT n > 0; UPDATE t SET secret = NULL",
    )
    .await;
    pair.ends_equal(daemon).await;
}
