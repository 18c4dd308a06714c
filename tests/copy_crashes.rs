//! The servers crash in the middle of a copy, again and again, under load.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use cdc::demo::Cluster;
use support::churn::{self, Churn};
use support::pair::{self, Daemon, PATIENCE, Pair, connect};

const ROWS: i64 = 40_000;

struct Arena {
    source: Cluster,
    target: Cluster,
    pair: Pair,
    churn: Churn,
}

impl Arena {
    async fn start(name: &str) -> Self {
        let target = pair::target().start().await.expect("it answers");
        let source = pair::source().setting("synchronous_commit", "off").start().await.expect("it answers");
        let mut pair = Pair::on(&source, &target, name).await;
        pair.config = "[copy]\nreaders = 2\nmax_rate = \"4MB\"\n".to_owned();
        pair.both(churn::TABLE).await;
        pair.write(&churn::fill(ROWS)).await;
        let churn = Churn::start(&pair.source_url, ROWS, 500);
        Self { source, target, pair, churn }
    }

    /// Waits until so many chunks more are done.
    async fn progress(&self, daemon: &Daemon, more: i64) {
        let mut before = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing is copied any more\n{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
            let client = connect(&self.pair.target_url).await;
            let sql =
                "SELECT coalesce(sum(copies), 0), count(*) FILTER (WHERE state <> 'done') FROM cdc.chunk";
            // There is no ledger yet.
            let Ok(row) = client.query_one(sql, &[]).await else { continue };
            let copies: i64 = row.get(0);
            if copies >= *before.get_or_insert(copies) + more {
                assert!(row.get::<_, i64>(1) > 0, "everything is copied already");
                return;
            }
        }
    }

    async fn ends_equal(self, daemon: Daemon) {
        self.churn.stop().await;
        self.pair.copied().await;
        self.pair.ends_equal(daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_crashes_takes_nothing_back_that_was_copied() {
    let mut arena = Arena::start("crashing_source").await;
    let daemon = arena.pair.daemon();
    for _ in 0..2 {
        arena.progress(&daemon, 2).await;
        arena.source.crash().await.unwrap();
        arena.source.start_again().await.unwrap();
    }
    arena.progress(&daemon, 1).await;
    arena.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_crashes_has_either_a_chunk_or_not() {
    let mut arena = Arena::start("crashing_target").await;
    let daemon = arena.pair.daemon();
    for _ in 0..2 {
        arena.progress(&daemon, 2).await;
        arena.target.crash().await.unwrap();
        arena.target.start_again().await.unwrap();
    }
    arena.progress(&daemon, 1).await;
    arena.ends_equal(daemon).await;
}

/// Stops the server's processes of this kind where they are.
async fn freeze(pair: &Pair, backend_type: &str) {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1";
    let rows = pair.source.query(sql, &[&backend_type]).await.expect("it answers");
    assert_eq!(rows.len(), 1, "{backend_type}");
    let pid: i32 = rows[0].get(0);
    assert!(Command::new("kill").args(["-STOP", &pid.to_string()]).status().expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_seen_before_it_is_flushed_is_flushed_before_its_chunk_is_done() {
    // Nobody writes the log but whoever waits for it.
    let source = pair::source()
        .setting("synchronous_commit", "off")
        .setting("bgwriter_lru_maxpages", "0")
        .setting("autovacuum", "off");
    let mut source = source.start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&source, &target, "unflushed").await;
    pair.config = "[copy]\nreaders = 1\nmax_rate = \"1MB\"\n".to_owned();
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.write("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 12000) i; ANALYZE t").await;
    let daemon = pair.daemon();
    daemon.wait_for_log("streaming").await;
    pair.target_is("copied in part", "SELECT EXISTS (SELECT FROM cdc.chunk WHERE state = 'done')", &[]).await;
    freeze(&pair, "walwriter").await;
    freeze(&pair, "walsender").await;
    pair.write("UPDATE t SET v = 'seen' WHERE id % 50 = 0").await;
    // It can have come with a chunk only.
    pair.target_is("further", "SELECT EXISTS (SELECT FROM t WHERE v = 'seen')", &[]).await;
    source.crash().await.unwrap();
    source.start_again().await.unwrap();
    pair.copied().await;
    pair.ends_equal(daemon).await;
}
