//! The daemon's memory doesn't grow with a transaction, a row or a backlog.

#![allow(clippy::print_stdout, reason = "all of it is a test")]

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
