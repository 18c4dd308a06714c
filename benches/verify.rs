//! `cdc verify` beside what one would do by hand: the sums of every table's hashes, on both sides at once.
//!
//! `make bench`; `CDC_BENCH_ROWS` rows (2,000,000) in a table with a number for its key, and half as many in
//! one with a text. Both are copied by a daemon, which streams on; then both ways take turns. Only rows are
//! compared: with `--table`, keys, sequences and the schema are left out.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use cdc::demo::Cluster;
use tokio_postgres::Client;

use support::{EVENTS, FILL_EVENTS, cdc, connect, daemon, fresh_database, peak_kib, rows};

/// How many turns each way has.
const ROUNDS: usize = 5;

const NAMES: &str = "CREATE TABLE names (name text PRIMARY KEY, email text, note text, at timestamptz)";

const FILL_NAMES: &str = "INSERT INTO names
    SELECT md5(i::text), 'user' || i || '@example.com', repeat('y', (i % 60)::int), now()
      FROM generate_series(1, $1::bigint) i";

const TABLES: [&str; 2] = ["public.events", "public.names"];

/// Each table's rows and the sum of their hashes, one table after the other.
async fn sums(client: &Client) -> Vec<(i64, Option<i64>)> {
    let mut sums = Vec::new();
    for table in TABLES {
        let sql = format!("SELECT count(*), sum(hashtext(t::text)) FROM {table} AS t");
        let row = client.query_one(&sql, &[]).await.unwrap();
        sums.push((row.get(0), row.get(1)));
    }
    sums
}

async fn by_hand(source: &Client, target: &Client) -> Duration {
    let began = Instant::now();
    let (source, target) = tokio::join!(sums(source), sums(target));
    let took = began.elapsed();
    assert_eq!(source, target);
    took
}

/// How long it took, and the most memory that it had, in KiB.
fn with_cdc(source_url: &str, target_url: &str) -> (Duration, u64) {
    let began = Instant::now();
    let mut command = cdc(source_url, target_url);
    command.arg("verify").args(TABLES.iter().flat_map(|table| ["--table", table])).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut peak = 0;
    loop {
        peak = peak.max(peak_kib(&child).unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "cdc verify: {status}");
            return (began.elapsed(), peak);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Prints a way's seconds and its rows a second; gives the median.
fn print(what: &str, mut took: Vec<Duration>, rows: i64) -> f64 {
    took.sort_unstable();
    let seconds = |turn: usize| took[turn].as_secs_f64();
    let median = seconds(ROUNDS / 2);
    println!(
        "{what:<28} {median:>8.2} {:>8.2} {:>8.2} {:>12.0}",
        seconds(0),
        seconds(ROUNDS - 1),
        rows as f64 / median
    );
    median
}

async fn fill(source: &Client, rows: i64) {
    source.batch_execute(&format!("{EVENTS}; {NAMES}")).await.unwrap();
    source.execute(FILL_EVENTS, &[&rows]).await.unwrap();
    source.execute(FILL_NAMES, &[&(rows / 2)]).await.unwrap();
}

async fn settle(clients: [&Client; 2]) {
    for client in clients {
        for sql in ["VACUUM ANALYZE", "CHECKPOINT"] {
            client.batch_execute(sql).await.unwrap();
        }
    }
}

#[tokio::main]
async fn main() {
    let rows = rows(2_000_000);
    let (source, target) = (Cluster::start("source").await.unwrap(), Cluster::start("target").await.unwrap());
    let (on_source, on_target) =
        (fresh_database(&source, "bench").await, fresh_database(&target, "bench").await);
    fill(&on_source, rows).await;
    on_target.batch_execute(&format!("{EVENTS}; {NAMES}")).await.unwrap();
    let (source_url, target_url) = (source.url("bench"), target.url("bench"));
    let _daemon = daemon(&source_url, &target_url, &on_target).await;
    settle([&on_source, &on_target]).await;
    let bytes: i64 = on_source
        .query_one("SELECT pg_table_size('events') + pg_table_size('names')", &[])
        .await
        .unwrap()
        .get(0);
    let rows = rows + rows / 2;
    println!(
        "proof of {rows} rows, {} MB; both servers, client and daemon on this machine; {ROUNDS} turns each",
        bytes / 1_000_000
    );
    println!("{:<28} {:>8} {:>8} {:>8} {:>12}", "", "median s", "min", "max", "rows/s");
    let (mut hands, mut verifies, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        // Sessions of their own each time, as a person and `cdc` have them.
        hands.push(by_hand(&connect(&source_url).await, &connect(&target_url).await).await);
        let (took, used) = with_cdc(&source_url, &target_url);
        verifies.push(took);
        peak = peak.max(used);
    }
    let hand = print("sums by hand", hands, rows);
    let verify = print(&format!("cdc verify (peak {peak} kB)"), verifies, rows);
    println!("cdc verify takes {:.2} times as long, and names what differs", verify / hand);
}
