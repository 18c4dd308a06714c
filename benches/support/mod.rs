//! What the benches share.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "each bench is a program of its own")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cdc::demo::Cluster;
use tokio_postgres::{Client, NoTls};

/// A table like many.
pub const EVENTS: &str = "CREATE TABLE events (
    id bigint PRIMARY KEY, ref uuid NOT NULL, title text NOT NULL, body jsonb NOT NULL,
    at timestamptz NOT NULL, price numeric)";

/// Fills it with $1 rows.
pub const FILL_EVENTS: &str = "INSERT INTO events
    SELECT i, md5(i::text)::uuid, 'event number ' || i,
           jsonb_build_object('kind', i % 7, 'tags', jsonb_build_array('a', i), 'note', repeat('x', (i % 40)::int)),
           timestamptz '2026-01-01' + i * interval '1 second', round((i % 100000)::numeric / 7, 3)
      FROM generate_series(1, $1::bigint) i";

/// How many rows there shall be: `CDC_BENCH_ROWS`, if that is set.
pub fn rows(otherwise: i64) -> i64 {
    std::env::var("CDC_BENCH_ROWS").map_or(otherwise, |rows| rows.parse().unwrap())
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub async fn fresh_database(cluster: &Cluster, name: &str) -> Client {
    connect(&cluster.url("postgres")).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    connect(&cluster.url(name)).await
}

pub async fn until(client: &Client, sql: &str) {
    while !client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `cdc` between these databases.
pub fn cdc(source_url: &str, target_url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cdc"));
    command.args(["--name", "bench"]).env("CDC_SOURCE_URL", source_url).env("CDC_TARGET_URL", target_url);
    command
}

/// A running daemon; dropping it kills it.
pub struct Daemon(pub Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon, when everything is copied to where the client is connected to.
pub async fn daemon(source_url: &str, target_url: &str, target: &Client) -> Daemon {
    let daemon = Daemon(cdc(source_url, target_url).arg("run").stderr(Stdio::null()).spawn().unwrap());
    until(target, "SELECT to_regclass('cdc.held_back') IS NOT NULL").await;
    until(target, "SELECT coalesce((SELECT consistent_since IS NOT NULL FROM cdc.migration), false)").await;
    daemon
}

/// The most memory that a process has had, in KiB; `None` if it has ended.
pub fn peak_kib(process: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse().unwrap())
}
