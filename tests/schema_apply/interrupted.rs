//! Killed at any moment, the next run completes it; and what changes tables in use is done beside their users.

use std::process::Stdio;
use std::time::Duration;

use super::{apply, assert_same, connect, dump, owned, similar};

#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_is_killed_the_next_run_completes_it() {
    let pair = owned("killed").await;
    pair.write(include_str!("nasty.sql")).await;
    let admin = connect(&pair.target_url).await;
    for delay_ms in [60, 120, 180, 240, 300, 400, 500] {
        let mut child = pair
            .command()
            .args(["schema", "apply"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        if delay_ms % 120 == 0 {
            // Its sessions die, and it has to say so.
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'owner' AND datname = current_database()";
            admin.batch_execute(end).await.unwrap();
        } else {
            child.kill().unwrap();
        }
        child.wait().unwrap();
    }
    let (code, report) = apply(&pair, &[]);
    assert_eq!(code, 0, "{report:#}");
    assert_same(&pair);
    similar(&dump(&pair.source_url), &dump(&pair.target_url));
    assert_eq!(orphans(), Vec::<String>::new());
}

/// Programs that a killed `cdc` has left behind.
fn orphans() -> Vec<String> {
    let mut orphans = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if stat.contains("(pg_dump)") && String::from_utf8_lossy(&environment).contains("PGDATABASE=killed\0")
        {
            orphans.push(stat);
        }
    }
    orphans
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_in_use_get_what_they_lack_while_they_are_written_to() {
    let pair = owned("in_use").await;
    pair.write(
        "CREATE TYPE state AS ENUM ('new', 'done');
         CREATE TABLE owners (id int PRIMARY KEY, name text NOT NULL);
         CREATE TABLE things (id int PRIMARY KEY, code text, owner int, state state);
         CREATE TABLE parts (id int, at int, PRIMARY KEY (id, at)) PARTITION BY LIST (at);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
         INSERT INTO owners SELECT i, i FROM generate_series(1, 100) i;
         INSERT INTO things SELECT i, i, i % 100 + 1, 'new' FROM generate_series(1, 5000) i",
    )
    .await;
    let daemon = pair.streaming().await;
    // Somebody reads the whole time, so that an ACCESS EXCLUSIVE lock is never had for long without waiting.
    pair.write(
        "ALTER TYPE state ADD VALUE 'doing' BEFORE 'done';
         CREATE UNIQUE INDEX by_code ON things (code) WHERE code <> ''; CREATE INDEX by_owner ON things (owner);
         ALTER TABLE owners ADD UNIQUE (name) DEFERRABLE; ALTER TABLE things ADD CHECK (id > 0);
         ALTER TABLE things ADD FOREIGN KEY (owner) REFERENCES owners;
         CREATE INDEX parts_at ON parts (at);
         CREATE VIEW open AS SELECT * FROM things WHERE state = 'new'; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         ALTER TABLE things ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON things USING (id > 0);
         CREATE STATISTICS s ON id, code FROM things",
    )
    .await;
    let (code, report) = apply(&pair, &[]);
    assert_eq!(code, 0, "{report:#}");
    let valid =
        "SELECT bool_and(convalidated) FROM pg_constraint WHERE connamespace = 'public'::regnamespace";
    assert!(pair.target.query_one(valid, &[]).await.unwrap().get::<_, bool>(0));
    pair.write(
        "INSERT INTO things VALUES (6000, 'x', 1, 'doing'); UPDATE things SET owner = 2 WHERE id < 100",
    )
    .await;
    pair.ends_equal(daemon).await;
    // It is in nobody's report that row security was switched on for a table that was there.
    let different = pair.run(&["schema", "diff"]);
    let text = String::from_utf8_lossy(&different.stdout);
    assert!(
        text.contains("missing on the target: 0, different: 1") && text.contains("ENABLE ROW LEVEL SECURITY"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_not_forced_into_another_layout_and_a_taken_name_is_told() {
    let pair = owned("layout").await;
    pair.write(
        "CREATE TABLE logs (id int, at int, PRIMARY KEY (id, at)) PARTITION BY LIST (at);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);
         CREATE TABLE logs_2 PARTITION OF logs FOR VALUES IN (2); CREATE INDEX ON logs (at);
         CREATE TABLE flat (id int, at int, PRIMARY KEY (id, at)) PARTITION BY LIST (at);
         CREATE TABLE flat_1 PARTITION OF flat FOR VALUES IN (1);
         CREATE TABLE taken (id int PRIMARY KEY); CREATE TABLE more (id int PRIMARY KEY)",
    )
    .await;
    let target = connect(&pair.daemon_target_url).await;
    target
        .batch_execute(
            "CREATE TABLE logs (id int, at int, PRIMARY KEY (id, at)) PARTITION BY LIST (at);
             CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);
             CREATE TABLE flat (id int, at int, PRIMARY KEY (id, at)); CREATE VIEW taken AS SELECT 1 AS id",
        )
        .await
        .unwrap();
    let (code, report) = apply(&pair, &[]);
    assert_eq!(code, 1, "{report:#}");
    let failed: Vec<&str> =
        report["failed"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert!(failed.contains(&"public.taken") && failed.contains(&"public.flat_1"), "{report:#}");
    let there = "SELECT string_agg(relname || ' ' || relispartition, ', ' ORDER BY relname) FROM pg_class
                  WHERE relkind IN ('r', 'p', 'v') AND relnamespace = 'public'::regnamespace";
    let there: String = pair.target.query_one(there, &[]).await.unwrap().get(0);
    assert_eq!(there, "flat false, logs false, logs_1 true, logs_2 true, more false, taken false");
    // Without one of its tables no copy begins.
    pair.refuses(
        2,
        &["the schema can't be copied: ", "table public.taken", "already exists", "cdc schema apply"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_hold_while_rows_are_copied_is_left_for_later() {
    let mut pair = owned("too_early").await;
    pair.config = "[copy]\nmax_rate = \"1MB\"\n[schema]\n".to_owned();
    pair.write(
        "CREATE TABLE owners (id int PRIMARY KEY);
         CREATE TABLE things (id int PRIMARY KEY, owner int, code int UNIQUE, v text);
         INSERT INTO owners SELECT i FROM generate_series(1, 100) i;
         INSERT INTO things SELECT i, i % 100 + 1, i, repeat('v', 300) FROM generate_series(1, 10000) i; ANALYZE",
    )
    .await;
    let daemon = pair.daemon();
    pair.target_is(
        "copying",
        "SELECT to_regclass('cdc.held_back') IS NOT NULL AND to_regclass('things_code_key') IS NULL",
        &[],
    )
    .await;
    pair.write("ALTER TABLE things ADD FOREIGN KEY (owner) REFERENCES owners; CREATE INDEX by_owner ON things (owner)").await;
    let (code, report) = apply(&pair, &[]);
    assert_eq!(code, 1, "{report:#}");
    // What is held back is there, as far as this is concerned.
    assert_eq!(report["made"], serde_json::json!([{"kind": "index", "name": "public.by_owner"}]));
    assert_eq!(report["failed"][0]["name"], "public.things things_owner_fkey", "{report:#}");
    assert!(
        report["failed"][0]["why"].as_str().unwrap().contains("while rows are being copied"),
        "{report:#}"
    );
    pair.copied().await;
    let (code, report) = apply(&pair, &[]);
    assert_eq!(
        (code, &report["made"][0]["name"]),
        (0, &"public.things things_owner_fkey".into()),
        "{report:#}"
    );
    assert_same(&pair);
    pair.ends_equal(daemon).await;
}
