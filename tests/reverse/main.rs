//! The other direction: what the target takes after the switch arrives at the source, and after a way back it goes on
//! as before. Nothing is lost, nothing is copied, nothing goes in a circle.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod operate;
mod prepare;
mod round_trip;
mod supabase;
#[path = "../support/mod.rs"]
mod support;
mod turns;

use std::time::{Duration, Instant};

use cdc::config::{Arguments, Config, Direction};
use cdc::connect::{Environment, Session};
use cdc::cutover::reverse::Turn;
use cdc::fault::Side;
use cdc::ledger;
use cdc::schema::{Until, put_back};
use support::pair::{PATIENCE, Pair, connect, number};
use tokio_postgres::Client;

/// The configuration of this pair's migration, as it runs now.
pub(crate) async fn config(pair: &Pair) -> Config {
    let arguments = Arguments {
        name: Some(pair.name.clone()),
        source: Some(pair.daemon_source_url.clone()),
        target: Some(pair.daemon_target_url.clone()),
        ..Arguments::default()
    };
    let config = Config::from_text(&pair.config, None, &arguments, &Environment::empty()).unwrap();
    ledger::as_it_runs(&config).await.unwrap()
}

/// The databases that rows are read from and applied to, in this direction.
pub(crate) fn urls(pair: &Pair, direction: Direction) -> (&str, &str) {
    match direction {
        Direction::Forward => (&pair.source_url, &pair.target_url),
        Direction::Reverse => (&pair.target_url, &pair.source_url),
    }
}

/// Waits until everything that was committed by now on the one side has arrived at the other.
pub(crate) async fn arrived(pair: &Pair, direction: Direction) {
    let (source, target) = urls(pair, direction);
    let row = connect(source).await.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await;
    let wanted: String = row.unwrap().get(0);
    let target = connect(target).await;
    let sql = "SELECT coalesce((SELECT lsn >= $1::text::pg_lsn FROM cdc.checkpoint WHERE name = $2), false)";
    let deadline = Instant::now() + PATIENCE;
    while !target.query_one(sql, &[&wanted, &pair.name]).await.unwrap().get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "it never arrived: {wanted}\n{:#}", pair.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Turns the direction, as a cutover does whose fence is that nobody writes.
pub(crate) async fn turn(pair: &Pair) {
    turn_after(pair, async {}).await;
}

/// The same with these writes between what is made before the fence and the fence.
pub(crate) async fn turn_after(pair: &Pair, writes: impl Future<Output = ()>) {
    let now = config(pair).await;
    let turn = Turn::open(&now).await.unwrap();
    turn.ready(PATIENCE).await.unwrap();
    writes.await;
    arrived(pair, now.direction).await;
    turn.prepare().await.unwrap();
    turn.turn().await.unwrap();
}

/// As a cutover does behind its fence: what is held back on the side that is about to be written to, is put back.
pub(crate) async fn put_back_there(pair: &Pair) {
    let now = config(pair).await;
    let session = Session::open(&now.source, Side::Target, "the cutover").await.unwrap();
    let missing = put_back(&session, &[], &pair.name, Until::Cutover).await.unwrap();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What there is of slots and publications of ours, on both sides.
pub(crate) async fn made(pair: &Pair) -> Vec<String> {
    let mut made = Vec::new();
    for (side, url) in [("source", &pair.source_url), ("target", &pair.target_url)] {
        let sql = "SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
                    UNION ALL SELECT 'publication ' || pubname FROM pg_publication ORDER BY 1";
        let rows = connect(url).await.query(sql, &[]).await.unwrap();
        made.extend(rows.iter().map(|row| format!("{side}: {}", row.get::<_, String>(0))));
    }
    made
}

/// Waits until slots and publications of the direction before are gone.
pub(crate) async fn cleared(pair: &Pair) -> Vec<String> {
    let sql = "SELECT is_cleared FROM cdc.migration WHERE name = $1";
    pair.target_is("cleared", sql, &[&pair.name]).await;
    made(pair).await
}

/// How often a chunk was copied since the ledger was made for this direction.
pub(crate) async fn copies(client: &Client) -> i64 {
    number(client, "SELECT coalesce(sum(copies), 0)::bigint FROM cdc.chunk").await
}
