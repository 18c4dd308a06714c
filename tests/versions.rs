//! What one version of PostgreSQL has and an older one hasn't, wherever it meets the migration. Each test
//! runs on the versions that have it; `make test-matrix` brings them.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use support::pair::{self, Pair, connect, constraints, is_since, number};

/// So that a table of a few megabytes has several, and what its rows exclude is held back.
const SMALL_CHUNKS: &str = "[copy]\nmax_rate = \"1MB\"\n";

/// Every row of a query as text.
async fn lines(client: &tokio_postgres::Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_while_its_publication_was_missing_blocks_and_nothing_is_skipped() {
    let pair = Pair::new("unpublished").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.caught_up().await;
    // Too quick to be seen in the catalog; the stream has to say it. 18 only warns, and goes on without.
    pair.write("DROP PUBLICATION cdc_unpublished").await;
    pair.write("INSERT INTO t VALUES (2)").await;
    pair.write("CREATE PUBLICATION cdc_unpublished FOR TABLE t").await;
    let made = lines(&pair.source, "SELECT pg_current_wal_lsn()::text").await.remove(0);
    pair.write("INSERT INTO t VALUES (3)").await;
    let told = if is_since(18, &pair.source).await {
        "skipped loading publication \"cdc_unpublished\""
    } else {
        "publication \"cdc_unpublished\" does not exist"
    };
    let blocked = |status: &serde_json::Value| {
        status["verdict"] == "blocked"
            && status["incidents"].as_array().unwrap().iter().any(|i| {
                i["resolved_at"].is_null()
                    && i["message"].as_str().unwrap().contains(told)
                    && i["remedy"].as_str().unwrap().contains("cdc repair --all")
            })
    };
    pair.status_is("blocked by the stream", blocked).await;
    assert!(daemon.terminate().await.success());
    // A new walsender says it again; and what wasn't applied is not forgotten.
    let daemon = pair.daemon();
    daemon.wait_for_log(told).await;
    pair.status_is("blocked again", blocked).await;
    // The table was out of the publication, so it is to be copied again; its rows stay until then.
    let rows = lines(&pair.target, "SELECT id::text FROM t ORDER BY id").await;
    assert!(rows == ["1"] || rows == ["1", "2", "3"], "{rows:?}");
    let behind = format!(
        "SELECT count(*) FROM pg_replication_slots
          WHERE slot_name = 'cdc_unpublished' AND confirmed_flush_lsn < '{made}'"
    );
    assert_eq!(number(&pair.source, &behind).await, 1);
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn temporal_keys_and_keys_that_are_not_enforced_are_held_back_and_come_back_as_they_were() {
    let mut pair = Pair::new("temporal").await;
    pair.config = SMALL_CHUNKS.to_owned();
    let temporal = "CREATE EXTENSION btree_gist;
         CREATE TABLE rooms (id int, at daterange, v text,
           CONSTRAINT rooms_key PRIMARY KEY (id, at WITHOUT OVERLAPS) WITH (fillfactor = 70));
         COMMENT ON CONSTRAINT rooms_key ON rooms IS 'one at a time';
         CREATE TABLE bookings (id int PRIMARY KEY, room int NOT NULL, at daterange NOT NULL, other int, v text,
           CONSTRAINT in_room FOREIGN KEY (room, PERIOD at) REFERENCES rooms (id, PERIOD at),
           CONSTRAINT apart UNIQUE (room, at WITHOUT OVERLAPS),
           CONSTRAINT unchecked FOREIGN KEY (other) REFERENCES bookings NOT ENFORCED,
           CONSTRAINT positive CHECK (other > 0) NOT ENFORCED,
           CONSTRAINT given NOT NULL other NOT VALID);
         CREATE TABLE halls (id int, at daterange, v text, CONSTRAINT halls_key PRIMARY KEY (id, at WITHOUT OVERLAPS))
           PARTITION BY RANGE (id);
         CREATE TABLE halls_1 PARTITION OF halls FOR VALUES FROM (0) TO (1000);
         CREATE TABLE halls_2 PARTITION OF halls FOR VALUES FROM (1000) TO (2000);
         ALTER TABLE halls_2 RENAME CONSTRAINT halls_2_pkey TO \"it's %s\"; COMMENT ON INDEX \"it's %s\" IS 'one at most'";
    // What an older server can have in their place tells rows apart as well.
    let older = "CREATE TABLE rooms (id int, at daterange, v text, PRIMARY KEY (id, at));
         CREATE TABLE bookings (id int PRIMARY KEY, room int NOT NULL, at daterange NOT NULL, other int, v text);
         CREATE TABLE halls (id int, at daterange, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (id);
         CREATE TABLE halls_1 PARTITION OF halls FOR VALUES FROM (0) TO (1000);
         CREATE TABLE halls_2 PARTITION OF halls FOR VALUES FROM (1000) TO (2000);";
    let mut has_any = false;
    for side in [&pair.source, &pair.target] {
        let is_new = is_since(18, side).await;
        side.batch_execute(if is_new { temporal } else { older }).await.unwrap();
        has_any |= is_new;
    }
    if !has_any {
        return;
    }
    let before = constraints(&pair.target).await;
    let options = "SELECT relname || reloptions::text FROM pg_class WHERE reloptions IS NOT NULL AND relkind = 'i'
                    UNION ALL SELECT description FROM pg_description WHERE description LIKE 'one at%' ORDER BY 1";
    let marks = lines(&pair.target, options).await;
    pair.write(
        "INSERT INTO rooms SELECT i % 50, daterange('2026-01-01'::date + i, '2026-01-01'::date + i + 1), repeat('v', 300)
           FROM generate_series(1, 5000) i;
         INSERT INTO bookings SELECT i, i % 50, daterange('2026-01-01'::date + i, '2026-01-01'::date + i + 1), -i,
                repeat('v', 300) FROM generate_series(1, 3000) i;
         INSERT INTO halls SELECT i % 2000, daterange('2026-01-01'::date + i, '2026-01-01'::date + i + 1),
                repeat('v', 300) FROM generate_series(1, 8000) i;
         ANALYZE",
    )
    .await;
    let daemon = pair.streaming().await;
    assert_eq!(constraints(&pair.target).await, before);
    assert_eq!(lines(&pair.target, options).await, marks);
    if is_since(18, &pair.target).await {
        let held = "SELECT DISTINCT object_name FROM cdc.held_back WHERE part_of IS NULL ORDER BY 1";
        assert_eq!(
            lines(&pair.target, held).await,
            ["apart", "halls_key", "in_room", "rooms_key", "unchecked"]
        );
    }
    // With the keys in place, and two rows that take one another's place.
    pair.write(
        "DELETE FROM bookings WHERE id > 1000;
         BEGIN; UPDATE rooms SET id = id + 100 WHERE upper(at) > '2039-01-01'; UPDATE rooms SET v = NULL WHERE id = 7;
         UPDATE halls SET id = 1999 - id WHERE lower(at) < '2026-02-01'; COMMIT;
         DELETE FROM rooms WHERE id = 149; INSERT INTO rooms VALUES (7, '[1999-01-01,2000-01-01)', 'old')",
    )
    .await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_identity_with_a_generated_column_is_refused_where_its_updates_would_fail() {
    let mut pair = Pair::new("full_generated").await;
    if !is_since(18, &pair.source).await {
        return;
    }
    pair.write(
        "CREATE TABLE stored (id int, twice int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE TABLE \"Virtual\" (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2));
         CREATE TABLE parent (id int PRIMARY KEY, v text);
         ALTER TABLE stored REPLICA IDENTITY FULL; ALTER TABLE \"Virtual\" REPLICA IDENTITY FULL;
         ALTER TABLE parent REPLICA IDENTITY FULL; INSERT INTO \"Virtual\" VALUES (1)",
    )
    .await;
    let generated = if is_since(18, &pair.target).await { "" } else { "STORED" };
    pair.target
        .batch_execute(&format!(
            "CREATE TABLE stored (id int, twice int GENERATED ALWAYS AS (id * 2) STORED);
             CREATE TABLE \"Virtual\" (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) {generated});
             CREATE TABLE parent (id int PRIMARY KEY, v text)"
        ))
        .await
        .unwrap();
    let log = pair
        .refuses(
            2,
            &[
                "no replica identity: public.Virtual, public.stored. ",
                "without generated columns",
                "run on the source: ALTER TABLE \"public\".\"Virtual\" REPLICA IDENTITY DEFAULT; Or",
            ],
        )
        .await;
    assert!(!log.contains("REPLICA IDENTITY FULL;"), "{log}");
    pair.write("ALTER TABLE \"Virtual\" REPLICA IDENTITY DEFAULT").await;
    pair.config = "[tables]\ninsert_only = [\"public.stored\"]\n".into();
    let daemon = pair.streaming().await;
    pair.write(
        "INSERT INTO stored VALUES (1), (1); INSERT INTO \"Virtual\" SELECT generate_series(2, 9);
         UPDATE \"Virtual\" SET id = -id WHERE id > 4; DELETE FROM \"Virtual\" WHERE id = 1",
    )
    .await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_that_a_publication_sends_are_refused() {
    let pair = Pair::new("sent").await;
    if !is_since(18, &pair.source).await {
        return;
    }
    pair.both("CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)").await;
    for publication in ["t WITH (publish_generated_columns = stored)", "t (id, twice)"] {
        pair.write(&format!("CREATE PUBLICATION cdc_sent FOR TABLE {publication}")).await;
        pair.refuses(
            2,
            &["twice of public.t", "ALTER PUBLICATION \"cdc_sent\" SET (publish_generated_columns = none)"],
        )
        .await;
        pair.write("DROP PUBLICATION cdc_sent").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_idle_for_too_long_is_lost_and_its_reason_is_told() {
    let source = pair::source().setting("autovacuum", "off").start().await.unwrap();
    if !is_since(18, &connect(&source.url("postgres")).await).await {
        return;
    }
    let target = pair::target().start().await.unwrap();
    let pair = Pair::on(&source, &target, "idle").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = pair.streaming().await;
    pair.ends_equal(daemon).await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.write("ALTER SYSTEM SET idle_replication_slot_timeout = '1s'").await;
    pair.write("SELECT pg_reload_conf()").await;
    let lost = "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'";
    while number(&pair.source, lost).await == 0 {
        pair.write("CHECKPOINT").await;
    }
    pair.refuses(2, &["the replication slot cdc_idle is lost", "idle_replication_slot_timeout"]).await;
    assert_eq!(pair.status()["verdict"], "lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_exclusion_reach_into_partitions() {
    let mut pair = Pair::new("partitions").await;
    pair.config = SMALL_CHUNKS.to_owned();
    if !is_since(17, &pair.target).await {
        return;
    }
    let identity = if is_since(17, &pair.source).await { "GENERATED ALWAYS AS IDENTITY" } else { "NOT NULL" };
    let tables = |identity: &str, exclusion: &str| {
        format!(
            "CREATE EXTENSION IF NOT EXISTS btree_gist;
             CREATE TABLE parted (id int {identity}, part int, during int4range, v text, {exclusion} PRIMARY KEY (id, part))
               PARTITION BY LIST (part);
             CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
             CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2)"
        )
    };
    pair.write(&tables(identity, "")).await;
    let exclusion =
        "CONSTRAINT apart EXCLUDE USING gist (part WITH =, during WITH &&) WITH (fillfactor = 50),";
    pair.target.batch_execute(&tables("GENERATED ALWAYS AS IDENTITY", exclusion)).await.unwrap();
    let before = constraints(&pair.target).await;
    let given = if identity == "NOT NULL" { "" } else { "OVERRIDING SYSTEM VALUE" };
    pair.write(&format!(
        "INSERT INTO parted {given} SELECT i, 1 + i % 2, int4range(i * 10, i * 10 + 9), repeat('v', 300)
           FROM generate_series(1, 6000) i; ANALYZE parted"
    ))
    .await;
    let daemon = pair.streaming().await;
    assert_eq!(constraints(&pair.target).await, before);
    let held = "SELECT count(*) FROM cdc.held_back WHERE object_name = 'apart'";
    assert_eq!(number(&pair.target, held).await, 1);
    // Into the other partition, and to a value that only the source's owner may give.
    pair.write(
        "UPDATE parted SET part = 3 - part, during = int4range(id * 10 + 100000, id * 10 + 100009) WHERE id < 99;
         DELETE FROM parted WHERE id = 7",
    )
    .await;
    pair.write(&format!("INSERT INTO parted (id, part, during) {given} VALUES (-5, 1, '[1,2)')")).await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_that_changes_rows_arrives_as_what_it_did() {
    let pair = Pair::new("merged").await;
    if !is_since(15, &pair.source).await {
        return;
    }
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20) i").await;
    let daemon = pair.streaming().await;
    let by_source =
        if is_since(17, &pair.source).await { "WHEN NOT MATCHED BY SOURCE THEN DELETE" } else { "" };
    pair.write(&format!(
        "MERGE INTO t USING (SELECT i AS id FROM generate_series(10, 30) i) s ON s.id = t.id
          WHEN MATCHED AND t.id % 2 = 0 THEN UPDATE SET v = 'even' WHEN MATCHED THEN DELETE
          WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'new') {by_source}"
    ))
    .await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_target_s_version_does_not_know_blocks_and_is_named() {
    let pair = Pair::new("unknown_value").await;
    if !is_since(17, &pair.source).await || is_since(17, &pair.target).await {
        return;
    }
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v interval)").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1, '1 day'), (2, 'infinity')").await;
    let blocked = pair.status_is("blocked", |status| status["verdict"] == "blocked").await;
    let incident = &blocked["incidents"][0];
    assert_eq!((incident["table"].as_str(), incident["side"].as_str()), (Some("public.t"), Some("target")));
    assert!(incident["message"].as_str().unwrap().contains("infinity"), "{blocked:#}");
    assert_eq!(number(&pair.target, "SELECT count(*) FROM t").await, 0);
    assert!(daemon.terminate().await.success());
}
