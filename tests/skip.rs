//! `cdc skip`: exactly one transaction is dropped, whole, and everything around it is applied.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::pair::{PATIENCE, Pair, as_admin, connect, is_since, number};

/// `t` is where it goes wrong, `log` says which transactions have been applied.
const TABLES: &str = "
    CREATE TABLE log (id int PRIMARY KEY);
    CREATE TABLE t (id int PRIMARY KEY, v text);
    INSERT INTO t SELECT i, 'v' FROM generate_series(1, 9) i";

/// The fields of `cdc status --json`: scripts rely on them.
const STATUS: &str = "
    .begun_at .checkpoint.caught_up_to .checkpoint.changes .checkpoint.commit_time .checkpoint.lsn
    .checkpoint.transactions .checkpoint.updated_at .copy.bytes .copy.bytes_per_second
    .copy.bytes_planned .copy.chunks .copy.chunks_done .copy.consistent_since .copy.details[].bytes
    .copy.details[].bytes_planned .copy.details[].chunks .copy.details[].chunks_done
    .copy.details[].eta_seconds .copy.details[].fraction .copy.details[].rows
    .copy.details[].rows_per_second .copy.details[].rows_planned .copy.details[].state
    .copy.details[].table .copy.eta_seconds .copy.fraction .copy.held_back .copy.rows
    .copy.rows_per_second .copy.rows_planned .copy.tables .copy.tables_done .daemon.detail .daemon.host
    .daemon.is_running .daemon.pid .daemon.since .daemon.state .daemon.version .direction
    .incidents[].count .incidents[].first_at .incidents[].id .incidents[].key .incidents[].last_at .incidents[].lsn
    .incidents[].message .incidents[].remedy .incidents[].resolved_at .incidents[].severity
    .incidents[].side .incidents[].sqlstate .incidents[].table .incidents[].was_skipped .lag.bytes
    .lag.seconds .last_verify .looked_at .name .old_side .open_incidents .phase .skipped.last.asked_at
    .skipped.last.dropped .skipped.last.host .skipped.last.lsn .skipped.last.os_user .skipped.last.reason
    .skipped.last.role .skipped.last.skipped_at .skipped.transactions .slot.confirmed_flush_lsn
    .slot.is_active .slot.name .slot.retained_bytes .slot.safe_wal_size_bytes .slot.used_fraction
    .slot.wal_status .source .source_error .switch .target .verdict .written.lsn .written.rows";

fn shape(path: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(fields) if path != ".skipped.last.dropped" => {
            fields.iter().for_each(|(key, value)| shape(&format!("{path}.{key}"), value, keys));
        }
        Value::Array(values) => {
            values.iter().take(1).for_each(|value| shape(&format!("{path}[]"), value, keys))
        }
        _ => keys.push(path.to_owned()),
    }
}

/// The commit LSN at which the daemon is blocked.
async fn blocked(pair: &Pair) -> String {
    let status = pair
        .status_is("blocked at a transaction", |status| {
            status["daemon"]["state"] == "blocked" && status["incidents"][0]["lsn"].is_string()
        })
        .await;
    status["incidents"][0]["lsn"].as_str().unwrap().to_owned()
}

/// `cdc skip` with these arguments: its exit status and what it says.
fn skip(pair: &Pair, arguments: &[&str]) -> (i32, String) {
    let output = pair.run(&[&["skip"], arguments].concat());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

async fn applied(pair: &Pair) -> String {
    let sql = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM log";
    pair.target.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits until the target has this many rows of `query`.
async fn until(pair: &Pair, query: &str) {
    let deadline = Instant::now() + PATIENCE;
    while number(&pair.target, query).await == 0 {
        assert!(Instant::now() < deadline, "never: {query}\n{:#}", pair.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_is_dropped_whole_and_those_around_it_in_the_batch_are_not() {
    let pair = Pair::new("skip_one").await;
    pair.both(TABLES).await;
    pair.both("CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1); CREATE TABLE first (id int PRIMARY KEY)")
        .await;
    let daemon = pair.streaming().await;
    assert_eq!(skip(&pair, &["0/1", "--yes", "--reason", "r"]).0, 1, "nothing is blocked");
    pair.target.batch_execute("DELETE FROM t WHERE id = 5").await.unwrap();
    // While it stands still, everything gathers in one batch. The relation `first` is told in the bad one.
    daemon.signal("STOP");
    pair.write("INSERT INTO log VALUES (1)").await;
    pair.write(
        "BEGIN; INSERT INTO first VALUES (1); INSERT INTO log VALUES (2), (3); TRUNCATE u;
         UPDATE t SET v = 'bad' WHERE id IN (4, 5, 6); COMMIT",
    )
    .await;
    pair.write("INSERT INTO first VALUES (2)").await;
    pair.write("INSERT INTO log VALUES (4)").await;
    daemon.signal("CONT");
    let lsn = blocked(&pair).await;
    assert_eq!(applied(&pair).await, "1");

    let (code, text) = skip(&pair, &["0/1", "--yes", "--reason", "r"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(&format!("not blocked at 0/1 but at {lsn}")) && text.contains("key id=5"),
        "{text}"
    );
    let (code, text) = skip(&pair, &[&lsn]);
    assert!(code == 64 && text.contains("--yes --reason"), "{text}");
    for wrong in [&["--yes"][..], &["--json", "--reason", "r"], &["--yes", "--reason"]] {
        let (code, text) = skip(&pair, &[&[lsn.as_str()], wrong].concat());
        assert_eq!(code, 64, "{text}");
    }
    assert_eq!(skip(&pair, &["5", "--yes", "--reason", "r"]).0, 64);
    assert_eq!(number(&pair.target, "SELECT count(*) FROM cdc.skip").await, 0);

    let began = Instant::now();
    let (code, text) = skip(&pair, &[&lsn, "--yes", "--json", "--reason", "row 5 was lost by hand"]);
    assert_eq!(code, 0, "{text}");
    assert!(began.elapsed() < Duration::from_secs(20), "it was not woken: {:?}", began.elapsed());
    let said: Value = serde_json::from_str(&text).unwrap();
    let dropped = json!({"public.first": 1, "public.log": 2, "public.t": 3, "public.u": 1});
    assert_eq!(
        (&said["outcome"], &said["lsn"], &said["reason"], &said["dropped"]),
        (&json!("skipped"), &json!(lsn), &json!("row 5 was lost by hand"), &dropped)
    );
    assert!(
        said["skipped_at"].is_string() && said["os_user"].is_string() && said["role"].is_string(),
        "{said}"
    );
    pair.caught_up().await;
    assert_eq!(applied(&pair).await, "1,4");
    let rest = "SELECT (SELECT count(*) FROM u) = 1 AND (SELECT sum(id) FROM first) = 2
                   AND (SELECT count(*) FROM t WHERE v = 'v') = 8";
    assert!(pair.target.query_one(rest, &[]).await.unwrap().get::<_, bool>(0));
    assert!(daemon.log().contains("skipped a transaction, as asked"), "{}", daemon.log());

    // It stays visible and is no reason for an alarm.
    let status = pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
    assert_eq!(status["skipped"]["transactions"], 1, "{status:#}");
    assert_eq!(status["skipped"]["last"]["lsn"], json!(lsn), "{status:#}");
    let incident = &status["incidents"][0];
    assert!(incident["resolved_at"].is_string() && incident["was_skipped"] == true, "{incident:#}");
    let (code, text) = pair.status_text(&["--incidents"]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "skipped     transactions 1",
        "row 5 was lost by hand",
        "blocked (skipped 2",
        "7 changes (public.first 1,",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    let mut keys = Vec::new();
    shape("", &status, &mut keys);
    assert_eq!(keys, STATUS.split_whitespace().collect::<Vec<_>>());
    let (code, text) = skip(&pair, &[&lsn, "--yes", "--reason", "again"]);
    assert!(code == 0 && text.starts_with(&format!("skipped {lsn}: dropped 7 changes")), "{text}");

    // Brought there by hand, both are the same again.
    pair.target
        .batch_execute(
            "INSERT INTO t VALUES (5, 'bad'); UPDATE t SET v = 'bad' WHERE id IN (4, 6); TRUNCATE u;
                        INSERT INTO first VALUES (1); INSERT INTO log VALUES (2), (3)",
        )
        .await
        .unwrap();
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_drops_a_huge_transaction_once_and_no_other() {
    let pair = Pair::new("skip_kill").await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    pair.target.batch_execute("ALTER TABLE t ADD CONSTRAINT mine CHECK (id <> 30000)").await.unwrap();
    daemon.signal("STOP");
    pair.write("INSERT INTO log VALUES (1)").await;
    pair.write("INSERT INTO t SELECT i, repeat('v', 300) FROM generate_series(10, 30000) i").await;
    pair.write("INSERT INTO log VALUES (2)").await;
    daemon.signal("CONT");
    let lsn = blocked(&pair).await;
    assert!(daemon.terminate().await.success());
    let (code, text) = skip(&pair, &[&lsn, "--yes", "--reason", "it is not wanted"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("no daemon is running") && text.contains("DELETE FROM cdc.skip"), "{text}");

    // It waits before it records the skip, and after that before the checkpoint; there it is killed.
    let other = connect(&pair.target_url).await;
    for row in ["cdc.skip", "cdc.checkpoint"] {
        other.batch_execute(&format!("BEGIN; SELECT FROM {row} FOR UPDATE")).await.unwrap();
        let daemon = pair.daemon();
        let waits = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = 'cdc_skip_kill apply' AND query LIKE $1
                        AND wait_event_type = 'Lock'";
        let what = format!("%UPDATE {row}%");
        let deadline = Instant::now() + PATIENCE;
        while pair.target.query_one(waits, &[&what]).await.unwrap().get::<_, i64>(0) == 0 {
            assert!(Instant::now() < deadline, "it never waited for {row}: {}", daemon.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        daemon.kill();
        other.batch_execute("ROLLBACK").await.unwrap();
        let open = "SELECT count(*) FROM cdc.skip WHERE skipped_at IS NULL AND dropped IS NULL";
        assert_eq!(number(&pair.target, open).await, 1, "killed before the commit");
        assert_eq!(applied(&pair).await, "1");
    }
    let daemon = pair.daemon();
    until(&pair, "SELECT count(*) FROM cdc.skip WHERE skipped_at IS NOT NULL").await;
    daemon.kill();
    let sql = "SELECT to_json(s)::text FROM cdc.skip s";
    let recorded: String = pair.target.query_one(sql, &[]).await.unwrap().get(0);
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO log VALUES (3)").await;
    pair.caught_up().await;
    assert_eq!(applied(&pair).await, "1,2,3");
    assert_eq!(number(&pair.target, "SELECT count(*) FROM t").await, 9);
    assert_eq!(pair.target.query_one(sql, &[]).await.unwrap().get::<_, String>(0), recorded);
    assert!(recorded.contains(r#""public.t": 29991"#), "{recorded}");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_being_copied_comes_out_right() {
    let mut pair = Pair::new("skip_copy").await;
    pair.config = "[copy]\nmax_rate = \"1MB\"\nreaders = 2\n".to_owned();
    pair.both("CREATE TABLE big (id int PRIMARY KEY, v text, body text); ALTER TABLE big ALTER body SET STORAGE EXTERNAL").await;
    pair.write(
        "INSERT INTO big SELECT i, 'v', repeat(md5(i::text), 80) FROM generate_series(1, 2500) i; ANALYZE",
    )
    .await;
    pair.target.batch_execute("ALTER TABLE big ADD CONSTRAINT mine CHECK (v <> 'bad')").await.unwrap();
    let daemon = pair.daemon();
    daemon.wait_for_log("streaming").await;
    until(&pair, "SELECT count(*) FROM cdc.chunk WHERE state = 'done'").await;
    // Rows of every chunk change, and some move to another one without their large value being told.
    pair.write(
        "BEGIN; UPDATE big SET v = 'skipped' WHERE id % 10 = 0; UPDATE big SET id = 10000 - id WHERE id % 100 = 7;
         UPDATE big SET v = 'bad' WHERE id = 1; COMMIT",
    )
    .await;
    let lsn = blocked(&pair).await;
    let pending = number(&pair.target, "SELECT count(*) FROM cdc.chunk WHERE state = 'pending'").await;
    assert!(pending > 0, "the copy was over before");
    let (code, text) = skip(&pair, &[&lsn, "--yes", "--reason", "r"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("dropped 276 changes (public.big 276)"), "{text}");
    pair.write("UPDATE big SET v = 'later' WHERE id % 10 = 0").await;
    pair.caught_up().await;
    let bad = "SELECT count(*) FROM big WHERE v IN ('bad', 'skipped')";
    assert_eq!(number(&pair.target, bad).await, 0, "a part of it was applied");
    // What of it is missing, by hand. Nothing else is.
    pair.target
        .batch_execute(
            "ALTER TABLE big DROP CONSTRAINT mine; UPDATE big SET v = 'bad' WHERE id = 1;
             DELETE FROM big WHERE id % 100 = 7 OR id > 4000;
             INSERT INTO big SELECT 10000 - i, 'v', repeat(md5(i::text), 80) FROM generate_series(7, 2500, 100) i",
        )
        .await
        .unwrap();
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_source_can_t_send_is_passed_and_those_before_it_are_applied() {
    let mut pair = Pair::new("skip_unsent").await;
    pair.config = "[tables]\nexclude = [\"public.seed\"]\n".to_owned();
    pair.both(TABLES).await;
    pair.both("CREATE TYPE e AS ENUM ('good', 'gone'); CREATE TABLE v (id int PRIMARY KEY, e e)").await;
    pair.write("CREATE TABLE seed (e e); INSERT INTO seed VALUES ('gone')").await;
    let daemon = pair.streaming().await;
    daemon.signal("STOP");
    pair.write("INSERT INTO log VALUES (1)").await;
    // A value without a text: whoever decodes the transaction fails there.
    as_admin(&pair.source, "DELETE FROM pg_enum WHERE enumlabel = 'gone'").await;
    pair.write("BEGIN; INSERT INTO log VALUES (2); INSERT INTO v SELECT 1, e FROM seed; COMMIT").await;
    pair.write("INSERT INTO log VALUES (3); INSERT INTO v VALUES (2, 'good')").await;
    daemon.signal("CONT");
    let lsn = blocked(&pair).await;
    until(&pair, "SELECT count(*) FROM log").await;
    assert_eq!(applied(&pair).await, "1", "the stream stands exactly at the culprit");
    let (code, text) = skip(&pair, &[&lsn, "--yes", "--reason", "it can't be decoded"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains(&format!("skipped {lsn}: dropped changes that the source could not send")),
        "{text}"
    );
    pair.caught_up().await;
    assert_eq!(applied(&pair).await, "1,3");
    let (code, text) = pair.status_text(&["--incidents"]);
    assert!(code == 0 && text.contains("could not send, of unknown number"), "{text}");
    daemon.kill();
    let daemon = pair.streaming().await;
    // Brought there by hand, both are the same again.
    pair.target.batch_execute("INSERT INTO log VALUES (2); INSERT INTO v VALUES (1, 'good')").await.unwrap();
    pair.write("DELETE FROM v WHERE id = 1; DROP TABLE seed").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_transaction_cannot_be_skipped() {
    let pair = Pair::new("skip_none").await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    // Every change fails in the source's walsender from now on.
    pair.write("DROP PUBLICATION cdc_skip_none; INSERT INTO log VALUES (1)").await;
    pair.status_is("blocked", |status| status["daemon"]["state"] == "blocked").await;
    let (code, text) = skip(&pair, &["0/1", "--yes", "--reason", "r"]);
    assert_eq!(code, 1, "{text}");
    // Before 15, the source has begun to send the transaction by then.
    let known =
        if is_since(15, &pair.source).await { "belongs to no transaction" } else { "only that transaction" };
    assert!(text.contains(known) && text.contains("cdc_skip_none"), "{text}");
    assert_eq!(number(&pair.target, "SELECT count(*) FROM cdc.skip").await, 0);
    drop(daemon);
}
