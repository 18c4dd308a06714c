//! The daemon's memory doesn't grow with a transaction, a row or a backlog.

#![allow(clippy::print_stdout, reason = "all of it is a test")]

mod support;

use support::pair::{Daemon, Pair};

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
async fn a_value_of_12_mb_costs_its_own_size() {
    let pair = Pair::new("large_value").await;
    pair.both("CREATE TABLE t (id bigint PRIMARY KEY, v text)").await;
    let sql =
        "INSERT INTO t SELECT i, repeat(md5(i::text), 12 * 1024 * 1024 / 32) FROM generate_series(1, 5) i;
               UPDATE t SET v = v || '.' WHERE id = 3";
    assert!(peak_after(&pair, sql).await < MOST_KIB + 12 * 1024);
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
