//! The daemon's memory doesn't grow with a transaction, a row or a backlog.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is a test")]

mod support;

use std::time::Instant;

use support::churn::{self, Churn};
use support::pair::{Daemon, Pair, number};

/// What the daemon may use at its peak, in KiB; one value's size comes on top.
const MOST_KIB: u64 = 64 * 1024;

/// Its peak, in KiB (`VmHWM`, proc(5)).
fn peak_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

async fn peak_after(pair: &Pair, sql: &str) -> u64 {
    let daemon = pair.streaming().await;
    pair.write(sql).await;
    pair.caught_up().await;
    let peak = peak_kib(&daemon);
    println!("peak memory of {}: {} MiB", pair.name, peak / 1024);
    pair.ends_equal(daemon).await;
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_200_mb_is_applied_as_it_arrives() {
    let pair = Pair::new("huge_transaction").await;
    pair.both("CREATE TABLE t (id bigint PRIMARY KEY, v text)").await;
    // 1 kB rows that don't compress much.
    let sql = "INSERT INTO t SELECT i, repeat(md5(i::text), 31) FROM generate_series(1, 200000) i";
    assert!(peak_after(&pair, sql).await < MOST_KIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_12_mb_costs_twice_its_size_at_most() {
    let pair = Pair::new("large_value").await;
    pair.both("CREATE TABLE t (id bigint PRIMARY KEY, v text)").await;
    let sql =
        "INSERT INTO t SELECT i, repeat(md5(i::text), 12 * 1024 * 1024 / 32) FROM generate_series(1, 5) i;
               UPDATE t SET v = v || '.' WHERE id = 3";
    // One is applied while the next is received.
    assert!(peak_after(&pair, sql).await < MOST_KIB + 2 * 12 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_300_columns_stay_within_the_bound() {
    let pair = Pair::new("wide_table").await;
    let list = |f: fn(i32) -> String| (1..300).map(f).collect::<Vec<_>>().join(", ");
    pair.both(&format!("CREATE TABLE t (id bigint PRIMARY KEY, {})", list(|i| format!("c{i} text")))).await;
    let values = list(|i| format!("repeat('x', (i + {i}) % 50)"));
    let assignments = list(|i| format!("c{i} = c{i} || 'y'"));
    let sql = format!(
        "INSERT INTO t SELECT i, {values} FROM generate_series(1, 20000) i; UPDATE t SET {assignments} WHERE id % 4 = 0"
    );
    assert!(peak_after(&pair, &sql).await < MOST_KIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_read_no_faster_than_it_is_applied() {
    let pair = Pair::new("backlog").await;
    pair.both("CREATE TABLE t (id bigint PRIMARY KEY, v text)").await;
    let daemon = pair.streaming().await;
    assert!(daemon.terminate().await.success());
    let sql = "DO $$ BEGIN FOR n IN 1..200 LOOP
                 INSERT INTO t SELECT n * 1000 + i, repeat('x', 500) FROM generate_series(1, 500) i; COMMIT;
               END LOOP; END $$";
    assert!(peak_after(&pair, sql).await < MOST_KIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_copied_within_the_bound_while_it_is_written() {
    const ROWS: i64 = 200_000;
    let pair = Pair::new("large_table").await;
    pair.both(churn::TABLE).await;
    pair.write(&churn::fill(ROWS)).await;
    let churn = Churn::start(&pair.source_url, ROWS, 1000);
    let daemon = pair.streaming().await;
    churn.stop().await;
    let peak = peak_kib(&daemon);
    println!("peak memory of {}: {} MiB", pair.name, peak / 1024);
    pair.ends_equal(daemon).await;
    assert!(peak < MOST_KIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tables_are_copied_within_the_bound() {
    let pair = Pair::new("thousand").await;
    let tables: Vec<String> =
        (0..1000).map(|i| format!("CREATE TABLE t_{i} (id int PRIMARY KEY, v text)")).collect();
    // Each transaction holds all its locks to the end.
    for some in tables.chunks(100) {
        pair.both(&some.join(";")).await;
    }
    for some in (0..1000_usize).collect::<Vec<_>>().chunks(100) {
        let fill = |i: &usize| {
            format!("INSERT INTO t_{i} SELECT i, 'row ' || i FROM generate_series(1, {}) i", i % 7)
        };
        pair.write(&some.iter().map(fill).collect::<Vec<_>>().join(";")).await;
    }
    let began = Instant::now();
    let daemon = pair.daemon();
    daemon.wait_for_log("streaming").await;
    let began_to_stream = began.elapsed().as_secs_f64();
    pair.write("UPDATE t_6 SET v = 'w'; DELETE FROM t_999 WHERE id = 1; INSERT INTO t_0 VALUES (1, 'new')")
        .await;
    pair.copied().await;
    let peak = peak_kib(&daemon);
    println!(
        "1,000 tables in {:.1} s, of which {began_to_stream:.1} s before the stream; peak memory {} MiB",
        began.elapsed().as_secs_f64(),
        peak / 1024
    );
    assert!(peak < MOST_KIB);
    assert_eq!(number(&pair.target, "SELECT count(*) FROM cdc.copy").await, 1000);
    pair.ends_equal(daemon).await;
}

const MIB: u64 = 1024 * 1024;

/// SQL for a `bytea` and a `text` of so many MiB.
fn bytea(mib: u64) -> String {
    format!("convert_to({}, 'UTF8')", text(mib))
}

fn text(mib: u64) -> String {
    // Copied in large pieces rather than byte by byte.
    format!("repeat(repeat('x', 1024 * 1024), {mib})")
}

/// The first incident names this row, of about so many bytes of text.
fn names(status: &serde_json::Value, severity: &str, key: &str, bytes: u64) -> bool {
    let incident = &status["incidents"][0];
    incident["severity"] == severity
        && incident["table"] == "public.t"
        && incident["key"] == key
        && incident["remedy"].as_str().unwrap_or_default().contains(&format!("about {bytes} bytes"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_can_t_print_is_named_in_the_copy_and_in_the_stream() {
    let pair = Pair::new("too_large").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, b bytea, c bytea)").await;
    // The value is made only once, and compressed as quickly as the server can. Unlogged, it isn't replicated.
    pair.write(&format!(
        "CREATE UNLOGGED TABLE spare (b bytea);
         DO $$ BEGIN ALTER TABLE spare ALTER b SET COMPRESSION lz4; EXCEPTION WHEN OTHERS THEN NULL; END $$;
         INSERT INTO spare VALUES ({})",
        bytea(512)
    ))
    .await;
    // The copy is in binary, for which one of them would not be too large.
    pair.write("INSERT INTO t VALUES (1, 'x'); INSERT INTO t SELECT 2, b, b FROM spare").await;
    let daemon = pair.daemon();
    pair.status_is("failing", |status| names(status, "failing", "id=2", 2048 * MIB)).await;
    assert!(peak_kib(&daemon) < MOST_KIB);
    // One that is started anew doesn't wait for 30 s.
    daemon.kill();
    pair.write("DELETE FROM t WHERE id = 2").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT 3, b FROM spare").await;
    let status = pair.status_is("blocked", |status| names(status, "blocked", "id=3", 1024 * MIB)).await;
    assert!(status["incidents"][0]["lsn"].is_string(), "{status:#}");
    assert_eq!(status["verdict"], "blocked");
    assert!(peak_kib(&daemon) < MOST_KIB);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 6 GB and some minutes"]
async fn rows_of_up_to_a_gigabyte_of_text_arrive() {
    let pair = Pair::new("gigabyte").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, b bytea, t text)").await;
    let large = |id: i32| {
        format!("INSERT INTO t VALUES ({id}, {}, NULL), ({id} + 1, NULL, {})", bytea(300), text(900))
    };
    pair.write(&large(1)).await;
    let daemon = pair.streaming().await;
    println!("peak memory of the copy: {} MiB", peak_kib(&daemon) / 1024);
    pair.write(&large(3)).await;
    pair.write("DELETE FROM t WHERE id < 3").await;
    pair.caught_up().await;
    println!("peak memory of the stream: {} MiB", peak_kib(&daemon) / 1024);
    let sizes = "SELECT string_agg(format('%s %s %s', id, octet_length(b), octet_length(t)), ',') FROM t";
    for client in [&pair.source, &pair.target] {
        let row = client.query_one(sizes, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "3 314572800 ,4  943718400");
    }
    // Both values fit alone, and not together.
    pair.write("INSERT INTO t SELECT 5, (SELECT b FROM t WHERE id = 3), (SELECT t FROM t WHERE id = 4)")
        .await;
    pair.status_is("blocked", |status| names(status, "blocked", "id=5", 1500 * MIB)).await;
}
