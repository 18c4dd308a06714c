//! Rows are copied while the application writes them: nothing is lost, nothing doubled, and neither the
//! stream nor the source's log has to wait for the copy.

#![allow(clippy::print_stdout, reason = "what was measured is told")]

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use support::churn::{self, Churn};
use support::pair::{self, Daemon, PATIENCE, Pair, connect, number};

/// What the slot has held at its highest, in bytes.
#[derive(Clone, Copy, Default)]
struct Held {
    /// Log that was not confirmed yet.
    unconfirmed: i64,
    /// Log that the server kept for it.
    kept: i64,
}

/// Looks at the slot until it is aborted.
async fn watch_slot(url: String, out: tokio::sync::watch::Sender<Held>) {
    let client = connect(&url).await;
    let sql = "SELECT coalesce(max(pg_current_wal_lsn() - confirmed_flush_lsn), 0)::bigint,
                      coalesce(max(pg_current_wal_lsn() - restart_lsn), 0)::bigint
                 FROM pg_replication_slots";
    loop {
        let row = client.query_one(sql, &[]).await.expect("the source answers");
        out.send_modify(|held| {
            held.unconfirmed = held.unconfirmed.max(row.get(0));
            held.kept = held.kept.max(row.get(1));
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn log_position(pair: &Pair) -> i64 {
    number(&pair.source, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").await
}

async fn chunks_done(pair: &Pair) -> i64 {
    let there = "SELECT (to_regclass('cdc.chunk') IS NOT NULL)::int::bigint";
    match number(&pair.target, there).await {
        0 => 0,
        _ => number(&pair.target, "SELECT count(*) FROM cdc.chunk WHERE state = 'done'").await,
    }
}

/// Kills the daemon so many times, each time after some more chunks are done. Gives the last daemon,
/// and the logs of those before.
async fn kill_in_the_middle(pair: &Pair, kills: i64) -> (Daemon, String) {
    let mut logs = String::new();
    let mut daemon = pair.daemon();
    for kill in 0..kills {
        let before = chunks_done(pair).await;
        let deadline = Instant::now() + PATIENCE;
        while chunks_done(pair).await < before + 2 {
            assert!(Instant::now() < deadline, "nothing is copied any more\n{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(10 + 7 * kill.unsigned_abs())).await;
        }
        logs += &daemon.kill();
        daemon = pair.daemon();
    }
    (daemon, logs)
}

/// How often the log says of each chunk that it has to be copied again.
fn sent_back(log: &str) -> HashMap<i32, i32> {
    let mut times = HashMap::new();
    for line in log.lines().filter(|line| line.contains("the chunk has to be copied again")) {
        let (_, after) = line.split_once("chunk=").expect("it names the chunk");
        let ordinal = after.split_whitespace().next().and_then(|number| number.parse().ok());
        *times.entry(ordinal.expect("a number")).or_default() += 1;
    }
    times
}

/// The longest that a change has waited for a chunk, in milliseconds.
fn longest_pause(log: &str) -> u64 {
    let pauses = log.lines().filter(|line| line.contains("the stream has waited for a chunk"));
    let ms = |line: &str| line.split_once("ms=")?.1.split_whitespace().next()?.parse().ok();
    pauses.map(|line| ms(line).expect("it says how long")).max().unwrap_or(0)
}

async fn copied_under_load(name: &str, rows: i64, max_rate: &str, kills: i64) {
    let (source, target) =
        (pair::source().start().await.expect("it starts"), pair::target().start().await.expect("it starts"));
    let mut pair = Pair::on(&source, &target, name).await;
    pair.config = format!("[copy]\nmax_rate = \"{max_rate}\"\n");
    pair.both(churn::TABLE).await;
    pair.write(&churn::fill(rows)).await;
    let (held_out, held) = tokio::sync::watch::channel(Held::default());
    let watching = tokio::spawn(watch_slot(pair.source_url.clone(), held_out));
    let churn = Churn::start(&pair.source_url, rows, 2000);
    let (began, position) = (Instant::now(), log_position(&pair).await);

    let (daemon, mut logs) = kill_in_the_middle(&pair, kills).await;
    pair.copied().await;
    let (seconds, written) = (began.elapsed().as_secs_f64(), log_position(&pair).await - position);
    let (changes, rate) = churn.stop().await;
    pair.caught_up().await;
    watching.abort();
    let held = *held.borrow();
    logs += &daemon.log();
    pair.ends_equal(daemon).await;

    let sent_back = sent_back(&logs);
    let chunks = pair.target.query("SELECT ordinal, copies FROM cdc.chunk", &[]).await.expect("it answers");
    let mut again = 0;
    for row in &chunks {
        let (ordinal, copies): (i32, i32) = (row.get(0), row.get(1));
        assert!(copies >= 1);
        assert!(
            copies <= 1 + sent_back.get(&ordinal).unwrap_or(&0),
            "chunk {ordinal} was copied {copies} times"
        );
        again += copies - 1;
    }
    let mib = |bytes: i64| bytes >> 20;
    println!(
        "{name}: {rows} rows in {} chunks in {seconds:.1} s with {kills} kills, {changes} changes meanwhile ({rate} a \
         second); the stream sent {} back, {again} were copied again; longest pause of the stream {} ms; the slot held \
         {} MiB unconfirmed, {} MiB kept; under a single snapshot it would have held {} MiB",
        chunks.len(),
        sent_back.values().sum::<i32>(),
        longest_pause(&logs),
        mib(held.unconfirmed),
        mib(held.kept),
        mib(written),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_under_2000_changes_a_second_arrives_whole_through_three_kills() {
    copied_under_load("large_short", 300_000, "16MB", 3).await;
}

/// Part of `make torture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: make torture"]
async fn three_million_rows_under_2000_changes_a_second_arrive_whole_through_ten_kills() {
    copied_under_load("large_long", 3_000_000, "1GB", 10).await;
}
