//! The servers crash in the middle of a copy, again and again, under load.

mod support;

use std::time::{Duration, Instant};

use cdc::demo::Cluster;
use support::churn::{self, Churn};
use support::pair::{Daemon, PATIENCE, Pair, connect};

const ROWS: i64 = 40_000;

struct Arena {
    source: Cluster,
    target: Cluster,
    pair: Pair,
    churn: Churn,
}

impl Arena {
    async fn start(name: &str) -> Self {
        let target = Cluster::start("target").await.expect("a server starts");
        // What the application commits can be seen long before a crash doesn't take it back any more.
        let source = Cluster::builder("source")
            .setting("synchronous_commit", "off")
            .setting("wal_writer_delay", "2s")
            .setting("wal_writer_flush_after", "0");
        let source = source.start().await.expect("a server starts");
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
        // The connections of the test were cut.
        let row = connect(&self.pair.source_url).await.query_one("SELECT count(*) FROM big", &[]).await;
        assert!(row.expect("it answers").get::<_, i64>(0) > ROWS / 2);
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
