//! What the parts share: two servers, and what runs between them.

pub mod backlog;
pub mod ceiling;
pub mod chart;
pub mod line;
pub mod process;
pub mod report;
pub mod same;
pub mod way;

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

use cdc::demo::Cluster;
use tokio_postgres::{Client, NoTls};

/// How long anything may take before the run gives up.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A table like many.
pub const EVENTS: &str = "CREATE TABLE events (
    id bigint PRIMARY KEY, ref uuid NOT NULL, title text NOT NULL, body jsonb NOT NULL,
    at timestamptz NOT NULL, price numeric)";

/// Makes its rows, of these numbers.
pub const NEW_EVENTS: &str = "CREATE FUNCTION new_events(bigint, bigint) RETURNS SETOF events LANGUAGE sql AS $$
    SELECT i, md5(i::text)::uuid, 'event number ' || i,
           jsonb_build_object('kind', i % 7, 'tags', jsonb_build_array('a', i), 'note', repeat('x', (i % 40)::int)),
           timestamptz '2026-01-01' + i * interval '1 second', round((i % 100000)::numeric / 7, 3)
      FROM generate_series($1, $2) i $$";

/// A source and a target, both on this machine.
pub struct Servers {
    pub source: Cluster,
    pub target: Cluster,
}

impl Servers {
    pub async fn start() -> Self {
        let start = |name| async move {
            let settings = [
                ("shared_buffers", "512MB"),
                ("max_wal_size", "8GB"),
                // It comes when it likes, to one and not to the other.
                ("autovacuum", "off"),
                ("max_replication_slots", "20"),
                ("max_wal_senders", "20"),
                ("max_logical_replication_workers", "8"),
                // How soon a subscription that is enabled again has its worker.
                ("wal_retrieve_retry_interval", "100ms"),
            ];
            let builder = Cluster::builder(name);
            settings.iter().fold(builder, |builder, (k, v)| builder.setting(*k, *v)).start().await.unwrap()
        };
        Self { source: start("source").await, target: start("target").await }
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let Ok(value) = text.parse() else { panic!("{name} is {text}") };
    Some(value)
}

/// So many rows, or `CDC_BENCH_PERCENT` of them.
pub fn scaled(rows: i64) -> i64 {
    rows * variable("CDC_BENCH_PERCENT").unwrap_or(100) / 100
}

/// How often everything is measured; medians are told.
pub fn turns() -> usize {
    variable("CDC_BENCH_TURNS").unwrap_or(3)
}

/// What the command line names.
fn named() -> impl Iterator<Item = String> {
    std::env::args().skip(1).filter(|argument| !argument.starts_with("--"))
}

/// True for every part if the command line names none.
pub fn is_wanted(part: &str) -> bool {
    named().next().is_none() || named().any(|name| name == part)
}

/// Ends the run if the command line names what isn't there.
pub fn assert_parts(parts: &[&str]) {
    for name in named() {
        assert!(parts.contains(&name.as_str()), "there is no {name}, only {}", parts.join(" "));
    }
}

/// Tells how it goes.
pub fn say(what: impl Display) {
    eprintln!("{what}");
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

pub async fn drop_database(cluster: &Cluster, name: &str) {
    let sql = format!("DROP DATABASE {name} WITH (FORCE)");
    connect(&cluster.url("postgres")).await.batch_execute(&sql).await.unwrap();
}

/// Asks again and again, until the answer is a value.
pub async fn value<T>(client: &Client, sql: &str) -> T
where
    T: for<'r> tokio_postgres::types::FromSql<'r>,
{
    let began = Instant::now();
    loop {
        let row = client.query_opt(sql, &[]).await.unwrap();
        if let Some(value) = row.and_then(|row| row.get::<_, Option<T>>(0)) {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "in vain: {sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn until(client: &Client, condition: &str) {
    value::<bool>(client, &format!("SELECT true WHERE ({condition})")).await;
}

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
