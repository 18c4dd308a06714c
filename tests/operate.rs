//! The daemon's life: stops, kills, take-overs, restarts of either server, idle nights.

mod support;

use std::time::{Duration, Instant};

use cdc::demo::Stop;
use support::pair::{self, PATIENCE, Pair, connect, number};
use tokio_postgres::Client;

const TABLE: &str = "CREATE TABLE t (id bigserial PRIMARY KEY, v text)";

/// Waits until the query's one boolean is true.
async fn wait_until(client: &Client, sql: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !client.query_one(sql, &[]).await.expect("it answers").get::<_, bool>(0) {
        assert!(Instant::now() < deadline, "it never was: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the daemon's apply session waits for a lock.
async fn wait_for_blocked_apply(pair: &Pair) {
    let waits = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'cdc_{} apply' AND wait_event_type = 'Lock')",
        pair.name
    );
    wait_until(&pair.target, &waits).await;
}

async fn slot_is_free(pair: &Pair) -> bool {
    let sql = format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'cdc_{}'", pair.name);
    pair.source.query_one(&sql, &[]).await.expect("it answers").get(0)
}

/// Writes on a connection of its own until it is told to stop.
struct Writer {
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    async fn start(pair: &Pair) -> Self {
        let client = connect(&pair.source_url).await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            while !*stopped.borrow() {
                let sql = "INSERT INTO t (v) SELECT repeat('x', 100) FROM generate_series(1, 20);
                           UPDATE t SET v = 'y' WHERE id % 7 = 0 AND v <> 'y'";
                client.batch_execute(sql).await.expect("the source takes it");
            }
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("the writer was well");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing_and_frees_slot_and_lock_at_once() {
    let pair = Pair::new("stops").await;
    pair.both(TABLE).await;
    assert!(pair.streaming().await.terminate().await.success());
    let writer = Writer::start(&pair).await;
    for signal in ["TERM", "INT", "TERM", "INT"] {
        let daemon = pair.streaming().await;
        let applied = number(&pair.target, "SELECT count(*) FROM t").await;
        wait_until(&pair.target, &format!("SELECT count(*) > {applied} FROM t")).await;
        daemon.signal(signal);
        assert_eq!(daemon.ended().await.code(), Some(0));
        assert!(slot_is_free(&pair).await, "the slot is still in use");
        let status = pair.status();
        assert_eq!(status["daemon"]["is_running"], false, "{status:#}");
        assert_eq!(status["daemon"]["state"], "stopped", "{status:#}");
        assert_eq!(status["verdict"], "stopped", "{status:#}");
    }
    // Killed, it loses nothing either.
    for _ in 0..3 {
        let daemon = pair.streaming().await;
        let applied = number(&pair.target, "SELECT count(*) FROM t").await;
        wait_until(&pair.target, &format!("SELECT count(*) > {applied} FROM t")).await;
        daemon.kill();
    }
    let daemon = pair.streaming().await;
    writer.stop().await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_finishes_the_batch_and_the_second_stops_at_once() {
    let pair = Pair::new("twice").await;
    pair.both(TABLE).await;
    let holder = connect(&pair.target_url).await;
    let lock = "BEGIN; LOCK TABLE t IN SHARE MODE";

    let daemon = pair.streaming().await;
    holder.batch_execute(lock).await.unwrap();
    pair.write("INSERT INTO t VALUES (1)").await;
    wait_for_blocked_apply(&pair).await;
    daemon.signal("TERM");
    daemon.wait_for_log("asked to stop").await;
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert_eq!(number(&pair.target, "SELECT count(*) FROM t").await, 1, "the batch was not finished");

    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let daemon = pair.streaming().await;
        holder.batch_execute(lock).await.unwrap();
        pair.write("INSERT INTO t (id) SELECT max(id) + 1 FROM t").await;
        wait_for_blocked_apply(&pair).await;
        daemon.signal(first);
        daemon.wait_for_log("asked to stop").await;
        let asked = Instant::now();
        daemon.signal(second);
        assert_eq!(daemon.ended().await.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        holder.batch_execute("COMMIT").await.unwrap();
    }
    let daemon = pair.streaming().await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_waits_says_so_and_takes_over() {
    let pair = Pair::new("second").await;
    pair.both(TABLE).await;
    let first = pair.streaming().await;
    let second = pair.daemon();
    second.wait_for_log("another daemon of this migration is running").await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.caught_up().await;
    assert!(!second.log().contains("streaming"), "{}", second.log());
    assert_eq!(pair.status()["daemon"]["pid"], first.pid());
    first.kill();
    second.wait_for_log("streaming").await;
    assert_eq!(pair.status()["daemon"]["pid"], second.pid());
    // One that waits stops when asked, and the other doesn't notice.
    let third = pair.daemon();
    third.wait_for_log("another daemon of this migration is running").await;
    assert_eq!(third.terminate().await.code(), Some(0));
    assert_eq!(pair.status()["daemon"]["state"], "streaming");
    // After a clean stop the next one goes on at once.
    let fourth = pair.daemon();
    fourth.wait_for_log("another daemon of this migration is running").await;
    assert_eq!(second.terminate().await.code(), Some(0));
    fourth.wait_for_log("streaming").await;
    pair.write("INSERT INTO t VALUES (2)").await;
    pair.ends_equal(fourth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_the_lag_is_zero_and_an_idle_slot_advances_without_losing_the_next_commit() {
    let source = pair::source().start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&source, &target, "rest").await;
    pair.both(TABLE).await;
    pair.write("CREATE TABLE unpublished (id int)").await;
    pair.config = "[tables]\nexclude = [\"public.unpublished\"]\n".into();
    let daemon = pair.streaming().await;
    let writer = Writer::start(&pair).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    writer.stop().await;
    let at_rest = |status: &serde_json::Value| status["lag"]["bytes"] == 0 && status["lag"]["seconds"] == 0.0;
    let stopped = Instant::now();
    pair.status_is("0 bytes behind", at_rest).await;
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let status = pair.status();
        // The server itself writes a few bytes now and then; they are confirmed soon.
        if !at_rest(&status) {
            pair.status_is("0 bytes behind again", at_rest).await;
        }
        assert_eq!(status["verdict"], "streaming", "{status:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // An idle night: the log grows, and nothing of it is ours.
    let other = connect(&source.url("postgres")).await;
    other.batch_execute("CREATE TABLE elsewhere (v text)").await.unwrap();
    for night in 0..6 {
        let (client, sql) = match night % 2 {
            0 => (&other, "INSERT INTO elsewhere SELECT repeat('x', 1000) FROM generate_series(1, 5000)"),
            _ => (&pair.source, "INSERT INTO unpublished SELECT generate_series(1, 20000)"),
        };
        client.batch_execute(sql).await.unwrap();
        let end: String =
            client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
        let advanced = format!(
            "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = 'cdc_rest'"
        );
        wait_until(&pair.source, &advanced).await;
    }
    pair.status_is("0 bytes behind after the night", at_rest).await;
    pair.write("DROP TABLE unpublished").await;
    pair.status_is("0 bytes behind after the DROP", at_rest).await;
    assert!(daemon.terminate().await.success());

    // The next commit begins exactly where the checkpoint ends, again and again.
    for id in 1..=5 {
        pair.write(&format!("INSERT INTO t VALUES (-{id})")).await;
        let daemon = pair.streaming().await;
        pair.caught_up().await;
        pair.assert_equal().await;
        pair.status_is("0 bytes behind at the boundary", at_rest).await;
        assert!(daemon.terminate().await.success());
    }
    let refused = number(&pair.target, "SELECT count(*) FROM cdc.incident").await;
    assert_eq!(refused, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_can_stop_while_the_daemon_is_blocked() {
    let mut source = pair::source().start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let pair = Pair::on(&source, &target, "blocked_stop").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = pair.streaming().await;
    pair.target.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.status_is("blocked", |s| s["verdict"] == "blocked").await;
    // A server waits for its walsenders to be told that everything is flushed, which it isn't here.
    let began = Instant::now();
    source.restart(Stop::Fast).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    pair.target.batch_execute("DELETE FROM t").await.unwrap();
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_either_server_need_nobody() {
    let mut source = pair::source().start().await.unwrap();
    let mut target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&source, &target, "restarts").await;
    pair.both(TABLE).await;
    let daemon = pair.streaming().await;
    let mut last = 0;
    for (is_source, how) in [
        (true, Some(Stop::Fast)),
        (true, Some(Stop::Immediate)),
        (true, None),
        (false, Some(Stop::Fast)),
        (false, Some(Stop::Immediate)),
        (false, None),
    ] {
        // Something is under way when it stops.
        pair.write(&format!(
            "INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series({}, {}) i",
            last + 1,
            last + 5000
        ))
        .await;
        last += 5000;
        let server = if is_source { &mut source } else { &mut target };
        let asked = Instant::now();
        match how {
            Some(how) => server.stop(how).await.unwrap(),
            None => server.crash().await.unwrap(),
        }
        assert!(asked.elapsed() < Duration::from_secs(20), "its stop took {:?}", asked.elapsed());
        if is_source {
            let (code, text) = pair.status_text(&[]);
            assert_eq!(code, 3, "{text}");
            assert!(text.contains("can't be asked"), "{text}");
        } else {
            assert_eq!(pair.status_text(&[]).0, 3);
        }
        server.start_again().await.unwrap();
        pair.source = connect(&pair.source_url).await;
        pair.target = connect(&pair.target_url).await;
        pair.caught_up().await;
        pair.assert_equal().await;
    }
    pair.status_is("well", |status| {
        status["verdict"] == "streaming" && !status["incidents"][0]["resolved_at"].is_null()
    })
    .await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_at_the_first_start_is_waited_for() {
    let mut source = pair::source().start().await.unwrap();
    let mut target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&source, &target, "waits").await;
    pair.both(TABLE).await;
    for is_source in [true, false] {
        let server = if is_source { &mut source } else { &mut target };
        server.stop(Stop::Fast).await.unwrap();
        let daemon = pair.daemon();
        daemon.wait_for_log("trying again").await;
        assert!(daemon.log().contains("nothing listens there"), "{}", daemon.log());
        server.start_again().await.unwrap();
        pair.source = connect(&pair.source_url).await;
        pair.target = connect(&pair.target_url).await;
        daemon.wait_for_log(" streaming").await;
        pair.write("INSERT INTO t (v) VALUES ('a')").await;
        pair.ends_equal(daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_lock_or_a_long_freeze_outlasts_wal_sender_timeout() {
    let source = pair::source().setting("wal_sender_timeout", "3s").start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let pair = Pair::on(&source, &target, "timeout").await;
    pair.both(TABLE).await;
    let daemon = pair.streaming().await;
    let walsender = "SELECT active_pid::bigint FROM pg_replication_slots";
    let before = number(&pair.source, walsender).await;

    let holder = connect(&pair.target_url).await;
    holder.batch_execute("BEGIN; LOCK TABLE t IN SHARE MODE").await.unwrap();
    pair.write("INSERT INTO t VALUES (1)").await;
    wait_for_blocked_apply(&pair).await;
    // Much more than can be read ahead.
    pair.write("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(2, 20000) i").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(number(&pair.source, walsender).await, before, "the connection was lost:\n{}", daemon.log());
    let status = pair.status();
    assert_eq!(status["daemon"]["state"], "streaming", "{status:#}");
    assert!(status["incidents"].as_array().unwrap().is_empty(), "{status:#}");
    assert!(status["lag"]["bytes"].as_u64().unwrap() > 10_000_000, "{status:#}");
    holder.batch_execute("COMMIT").await.unwrap();
    pair.caught_up().await;
    pair.assert_equal().await;
    assert_eq!(number(&pair.source, walsender).await, before);

    daemon.signal("STOP");
    pair.write("INSERT INTO t VALUES (-1)").await;
    wait_until(&pair.source, "SELECT NOT active FROM pg_replication_slots").await;
    daemon.signal("CONT");
    pair.caught_up().await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_daemon_left_on_the_target_is_ended() {
    let pair = Pair::new("leftover").await;
    pair.both(&format!("{TABLE}; CREATE TABLE locked (id int PRIMARY KEY)")).await;
    let daemon = pair.streaming().await;
    let holder = connect(&pair.target_url).await;
    holder.batch_execute("BEGIN; LOCK TABLE locked IN SHARE MODE").await.unwrap();
    // Applied as it arrives, and then it waits, with locks on all rows before.
    pair.write("BEGIN; INSERT INTO t SELECT i, 'v' FROM generate_series(1, 50000) i; INSERT INTO locked VALUES (1); COMMIT").await;
    wait_for_blocked_apply(&pair).await;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc_leftover apply' AND wait_event_type = 'Lock'";
    let pid = number(
        &pair.target,
        "SELECT pid::bigint FROM pg_stat_activity WHERE application_name = 'cdc_leftover apply'",
    )
    .await;
    daemon.kill();
    assert_eq!(number(&pair.target, left).await, 1, "nothing was left behind, so there is nothing to test");
    let daemon = pair.streaming().await;
    assert!(daemon.log().contains("ended a session that an earlier start had left"), "{}", daemon.log());
    assert_eq!(
        number(&pair.target, &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await,
        0
    );
    holder.batch_execute("COMMIT").await.unwrap();
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_daemon_that_wakes_up_after_its_successor_has_begun_writes_nothing() {
    let pair = Pair::new("epoch").await;
    pair.both(TABLE).await;
    let first = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i FROM generate_series(1, 100) i").await;
    pair.caught_up().await;
    first.signal("STOP");
    // It has received this, or will when it wakes up.
    pair.write("INSERT INTO t SELECT i FROM generate_series(101, 200) i").await;
    let second = pair.daemon();
    second.wait_for_log("another daemon of this migration is running").await;
    pair.target
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc_epoch guard' AND query NOT LIKE '%pg_try%'", &[])
        .await
        .unwrap();
    second.wait_for_log(" streaming").await;
    assert!(second.log().contains("ending a walsender that an earlier start has left"), "{}", second.log());
    pair.caught_up().await;
    first.signal("CONT");
    first.wait_for_log("another daemon of this migration is running").await;
    pair.write("INSERT INTO t SELECT i FROM generate_series(201, 300) i").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    assert_eq!(pair.status()["daemon"]["pid"], second.pid());
    assert_eq!(pair.status()["checkpoint"]["changes"], 300);
    second.kill();
    pair.write("INSERT INTO t VALUES (301)").await;
    pair.ends_equal(first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_an_earlier_epoch_commits_nothing() {
    let pair = Pair::new("outdated").await;
    pair.both(TABLE).await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.caught_up().await;
    // As if a successor had started behind its back, its sessions all alive.
    let holder = connect(&pair.target_url).await;
    holder.batch_execute("BEGIN; LOCK TABLE t IN SHARE MODE").await.unwrap();
    pair.write("INSERT INTO t VALUES (2)").await;
    wait_for_blocked_apply(&pair).await;
    pair.target.batch_execute("UPDATE cdc.writer SET epoch = epoch + 1").await.unwrap();
    holder.batch_execute("COMMIT").await.unwrap();
    daemon.wait_for_log("another daemon of this migration has started since").await;
    pair.write("INSERT INTO t VALUES (3)").await;
    pair.caught_up().await;
    assert_eq!(pair.status()["checkpoint"]["changes"], 3);
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_killed_anywhere_is_resumed_by_the_next() {
    let pair = Pair::new("interrupted").await;
    pair.both(TABLE).await;
    // While the slot waits for a transaction that runs on the source.
    let running = connect(&pair.source_url).await;
    running.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    for _ in 0..2 {
        let daemon = pair.daemon();
        daemon.wait_for_log("making the replication slot").await;
        wait_until(
            &pair.source,
            "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'cdc_interrupted')",
        )
        .await;
        assert_eq!(number(&pair.source, "SELECT count(*) FROM pg_publication").await, 1);
        daemon.kill();
    }
    // Once the slot is there, before the first checkpoint is written.
    let holder = connect(&pair.target_url).await;
    let daemon = pair.daemon();
    daemon.wait_for_log("making the replication slot").await;
    holder.batch_execute("BEGIN; LOCK TABLE cdc.checkpoint IN SHARE MODE").await.unwrap();
    running.batch_execute("ROLLBACK").await.unwrap();
    wait_until(
        &pair.target,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'cdc_interrupted guard' AND wait_event_type = 'Lock')",
    )
    .await;
    daemon.kill();
    assert!(slot_is_free(&pair).await);
    pair.write("INSERT INTO t SELECT i, 'early' FROM generate_series(1, 100) i").await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (101)").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_resumed_after_the_tables_have_changed_begins_its_stream_anew() {
    let pair = Pair::new("changed").await;
    pair.both(TABLE).await;
    let running = connect(&pair.source_url).await;
    running.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let holder = connect(&pair.target_url).await;
    let daemon = pair.daemon();
    daemon.wait_for_log("making the replication slot").await;
    holder.batch_execute("BEGIN; LOCK TABLE cdc.checkpoint IN ACCESS EXCLUSIVE MODE").await.unwrap();
    running.batch_execute("ROLLBACK").await.unwrap();
    wait_until(
        &pair.target,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'cdc_changed guard' AND wait_event_type = 'Lock')",
    )
    .await;
    let guard =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc_changed guard'";
    pair.target.execute(guard, &[]).await.unwrap();
    daemon.kill();
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(number(&pair.target, "SELECT count(*) FROM cdc.checkpoint").await, 0);
    // A change of before can't be decoded with a publication that is made after it.
    pair.both("INSERT INTO t VALUES (1); CREATE TABLE added (id int PRIMARY KEY)").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO added VALUES (1); INSERT INTO t VALUES (2)").await;
    pair.ends_equal(daemon).await;
}
