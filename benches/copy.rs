//! The initial copy of one large table, three ways in one run: `cdc run`, `pg_dump | psql`, and
//! PostgreSQL's own logical replication.
//!
//! `make bench`; `CDC_BENCH_ROWS` rows (1,000,000). Each way gets a fresh target database, one after
//! the other, on the same two servers; afterwards every row is compared.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cdc::demo::{Cluster, compare::compare};
use tokio_postgres::{Client, NoTls};

const TABLE: &str = "CREATE TABLE events (
    id bigint PRIMARY KEY, ref uuid NOT NULL, title text NOT NULL, body jsonb NOT NULL,
    at timestamptz NOT NULL, price numeric)";

const FILL: &str = "INSERT INTO events
    SELECT i, md5(i::text)::uuid, 'event number ' || i,
           jsonb_build_object('kind', i % 7, 'tags', jsonb_build_array('a', i), 'note', repeat('x', (i % 40)::int)),
           timestamptz '2026-01-01' + i * interval '1 second', round((i % 100000)::numeric / 7, 3)
      FROM generate_series(1, $1::bigint) i";

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn fresh_database(cluster: &Cluster, name: &str) -> Client {
    connect(&cluster.url("postgres")).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    connect(&cluster.url(name)).await
}

async fn until(client: &Client, sql: &str) {
    while !client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The most memory that a process has had, in KiB.
fn peak_kib(child: &Child) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned()
}

async fn with_cdc(source: &Cluster, target: &Cluster) -> (Duration, String) {
    let client = fresh_database(target, "by_cdc").await;
    client.batch_execute(TABLE).await.unwrap();
    let began = Instant::now();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_cdc"))
        .args(["--name", "bench", "run"])
        .env("CDC_SOURCE_URL", source.url("bench"))
        .env("CDC_TARGET_URL", target.url("by_cdc"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(&client, "SELECT to_regclass('cdc.held_back') IS NOT NULL").await;
    until(&client, "SELECT coalesce((SELECT consistent_since IS NOT NULL FROM cdc.migration), false)").await;
    let took = began.elapsed();
    let peak = peak_kib(&daemon);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    (took, peak)
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
    client.batch_execute(TABLE).await.unwrap();
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
    let rows: i64 = std::env::var("CDC_BENCH_ROWS").map_or(1_000_000, |rows| rows.parse().unwrap());
    let (source, target) = (Cluster::start("source").await.unwrap(), Cluster::start("target").await.unwrap());
    let client = fresh_database(&source, "bench").await;
    client.batch_execute(TABLE).await.unwrap();
    client.execute(FILL, &[&rows]).await.unwrap();
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
    print(&format!("cdc run (peak {peak})"), took);
    print("pg_dump | psql", with_dump(&source, &target).await);
    print("native subscription", with_native(&source, &target).await);
    for copy in ["by_cdc", "by_dump", "by_native"] {
        connect(&target.url(copy)).await.batch_execute("DROP SCHEMA IF EXISTS cdc CASCADE").await.unwrap();
        let comparison = compare(&source.url("bench"), &target.url(copy)).await.unwrap();
        assert!(comparison.is_equal(), "{copy}: {comparison}");
    }
    println!("every row is the same on both sides, each way");
}
