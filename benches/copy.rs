//! The initial copy of one large table, three ways in one run: `cdc run`, `pg_dump | psql`, and
//! PostgreSQL's own logical replication.
//!
//! `make bench`; `CDC_BENCH_ROWS` rows (1,000,000). Each way gets a fresh target database, one after
//! the other, on the same two servers; afterwards every row is compared.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdc::demo::{Cluster, compare::compare};

use support::{EVENTS, FILL_EVENTS, connect, daemon, fresh_database, peak_kib, rows, until};

async fn with_cdc(source: &Cluster, target: &Cluster) -> (Duration, u64) {
    let client = fresh_database(target, "by_cdc").await;
    client.batch_execute(EVENTS).await.unwrap();
    let began = Instant::now();
    let daemon = daemon(&source.url("bench"), &target.url("by_cdc"), &client).await;
    (began.elapsed(), peak_kib(&daemon.0).unwrap())
}

async fn with_dump(source: &Cluster, target: &Cluster) -> Duration {
    drop(fresh_database(target, "by_dump").await);
    let programs = source.binaries();
    let began = Instant::now();
    let mut dump = Command::new(programs.program("pg_dump"))
        .arg(source.url("bench"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let restored = Command::new(programs.program("psql"))
        .args(["--quiet", "--set", "ON_ERROR_STOP=1"])
        .arg(target.url("by_dump"))
        .stdin(dump.stdout.take().unwrap())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(dump.wait().unwrap().success() && restored.success());
    began.elapsed()
}

async fn with_native(source: &Cluster, target: &Cluster) -> Duration {
    let client = fresh_database(target, "by_native").await;
    client.batch_execute(EVENTS).await.unwrap();
    connect(&source.url("bench"))
        .await
        .batch_execute("CREATE PUBLICATION native FOR TABLE events")
        .await
        .unwrap();
    let began = Instant::now();
    let subscribe =
        format!("CREATE SUBSCRIPTION native CONNECTION '{}' PUBLICATION native", source.url("bench"));
    client.batch_execute(&subscribe).await.unwrap();
    until(&client, "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel").await;
    let took = began.elapsed();
    client.batch_execute("DROP SUBSCRIPTION native").await.unwrap();
    took
}

#[tokio::main]
async fn main() {
    let rows = rows(1_000_000);
    let (source, target) = (Cluster::start("source").await.unwrap(), Cluster::start("target").await.unwrap());
    let client = fresh_database(&source, "bench").await;
    client.batch_execute(EVENTS).await.unwrap();
    client.execute(FILL_EVENTS, &[&rows]).await.unwrap();
    for sql in ["VACUUM ANALYZE events", "CHECKPOINT"] {
        client.batch_execute(sql).await.unwrap();
    }
    let bytes: i64 = client.query_one("SELECT pg_table_size('events')", &[]).await.unwrap().get(0);
    println!(
        "copy of {rows} rows, {} MB; both servers, client and daemon on this machine",
        bytes / 1_000_000
    );
    println!("{:<28} {:>9} {:>12}", "", "seconds", "rows/s");
    let print = |what: &str, took: Duration| {
        let seconds = took.as_secs_f64();
        println!("{what:<28} {seconds:>9.1} {:>12.0}", rows as f64 / seconds);
    };
    let (took, peak) = with_cdc(&source, &target).await;
    print(&format!("cdc run (peak {peak} kB)"), took);
    print("pg_dump | psql", with_dump(&source, &target).await);
    print("native subscription", with_native(&source, &target).await);
    for copy in ["by_cdc", "by_dump", "by_native"] {
        connect(&target.url(copy)).await.batch_execute("DROP SCHEMA IF EXISTS cdc CASCADE").await.unwrap();
        let comparison = compare(&source.url("bench"), &target.url(copy)).await.unwrap();
        assert!(comparison.is_equal(), "{copy}: {comparison}");
    }
    println!("every row is the same on both sides, each way");
}
