//! What fails on the way is undone, and the source takes writes again within a moment.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::command::{ROWS, SCHEMA, begin, ended, is_at, signal, switch, takes_writes};
use crate::support::pair::{Daemon, Pair, connect, number};

/// The report of a switch that was undone; the source takes writes and is followed.
async fn is_undone(pair: &Pair, daemon: &Daemon, (status, report): (i32, Value), why: &str) {
    assert_eq!((status, &report["outcome"]), (1, &"undone".into()), "{report:#}\n{}", daemon.log());
    let error = report["error"].as_str().unwrap();
    assert!(error.contains(why), "{error}");
    let undone_in: u64 = report["undone_in_ms"].as_u64().unwrap();
    eprintln!("{why}: undone in {undone_in} ms");
    assert!(takes_writes(&pair.source_url).await);
    pair.write("UPDATE parent SET name = name || '.' WHERE id = 3").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    let fired = "SELECT count(*) FROM parent AS s WHERE changed < 0";
    assert_eq!(number(&pair.target, fired).await, 0);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(number(&pair.target, slots).await, 0, "a slot of the way back was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_before_the_end_is_undone() {
    let mut pair = Pair::new("failures").await;
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    let daemon = pair.streaming().await;
    let set = |pair: &mut Pair, config: &str| pair.config = format!("[cutover]\n{config}\n");

    set(&mut pair, "before = 'echo no backup; exit 4'");
    is_undone(
        &pair,
        &daemon,
        switch(&pair, &["cutover", "--yes"]),
        "hook before has failed with the exit status 4",
    )
    .await;

    set(&mut pair, "switch = 'exit 5'");
    is_undone(
        &pair,
        &daemon,
        switch(&pair, &["cutover", "--yes"]),
        "hook switch has failed with the exit status 5",
    )
    .await;

    set(&mut pair, "smoke = 'sleep 60'\nhook_timeout = '300ms'");
    is_undone(
        &pair,
        &daemon,
        switch(&pair, &["cutover", "--yes"]),
        "has not ended within 0.3 s, and was killed",
    )
    .await;

    // The daemon hangs, once it has been looked at: the last changes don't come over in time.
    let freeze = format!("before = 'kill -STOP {}'", daemon.pid());
    set(&mut pair, &format!("pause = '1s'\n{freeze}"));
    let child = begin(&pair, &["cutover", "--yes"]);
    is_at(&pair, "drain").await;
    assert!(!takes_writes(&pair.source_url).await);
    let outcome = tokio::task::spawn_blocking(|| ended(child)).await.unwrap();
    daemon.signal("CONT");
    is_undone(&pair, &daemon, outcome, "writes would have rested for longer than 1s").await;

    // Ctrl-C while writes rest.
    set(&mut pair, &format!("pause = '60s'\n{freeze}"));
    let child = begin(&pair, &["cutover", "--yes"]);
    is_at(&pair, "drain").await;
    signal(&child, "INT");
    let began = Instant::now();
    let outcome = tokio::task::spawn_blocking(|| ended(child)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    daemon.signal("CONT");
    is_undone(&pair, &daemon, outcome, "interrupted, as asked").await;

    // Somebody has written and goes on.
    set(&mut pair, "end_sessions = false\npatience = '300ms'");
    let slow = connect(&pair.source_url).await;
    slow.batch_execute("BEGIN; UPDATE parent SET name = 'slow' WHERE id = 7").await.unwrap();
    let outcome = switch(&pair, &["cutover", "--yes"]);
    slow.batch_execute("COMMIT").await.unwrap();
    is_undone(&pair, &daemon, outcome, "has written to public.parent and has not ended").await;

    // The two sides differ, in a way that the verification before didn't see yet.
    set(&mut pair, "verify = 'full'");
    assert_eq!(pair.run(&["verify"]).status.code(), Some(0));
    pair.target
        .batch_execute(
            "SET session_replication_role = replica; UPDATE parent SET name = 'other' WHERE id = 9",
        )
        .await
        .unwrap();
    let (status, report) = switch(&pair, &["cutover", "--yes"]);
    assert_eq!(
        (status, &report["outcome"], &report["failed_step"]),
        (1, &"undone".into(), &"compare".into()),
        "{report:#}"
    );
    pair.write("UPDATE parent SET name = 'mended' WHERE id = 9").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    let again = switch(&pair, &["cutover", "--yes"]);
    assert_eq!(again.0, 0, "{:#}", again.1);
    assert!(daemon.terminate().await.success());
}

/// Applications have written to the target by then.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_the_smoke_test_failed_goes_back() {
    let mut pair = Pair::new("smoke").await;
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    let daemon = pair.streaming().await;
    let write = "INSERT INTO parent VALUES (777, '$CDC_DIRECTION')";
    pair.config = format!(
        "[cutover]\nsmoke = '''[ $CDC_DIRECTION = rollback ] || {{ psql -q \"{}\" -c \"{write}\"; exit 1; }}'''\n",
        pair.target_url
    );
    let (status, report) = switch(&pair, &["cutover", "--yes"]);
    assert_eq!((status, &report["outcome"]), (1, &"undone".into()), "{report:#}\n{}", daemon.log());
    assert!(takes_writes(&pair.source_url).await);
    assert_eq!(
        number(&pair.source, "SELECT count(*) FROM parent WHERE id = 777 AND name = 'cutover'").await,
        1
    );
    pair.write("DELETE FROM parent WHERE id = 777").await;
    pair.ends_equal(daemon).await;
}

/// And nothing may be sent back.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_if_writes_could_not_go_back() {
    let mut pair = Pair::new("no_way_back").await;
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    let daemon = pair.streaming().await;
    let mark = tempfile::NamedTempFile::new().unwrap();
    pair.config = format!(
        "[cutover]\nreverse = false\nsmoke = '''psql -q \"{}\" -c \"UPDATE parent SET name = name WHERE id = 1\"; \
         grep -q mended {}'''\n",
        pair.target_url,
        mark.path().display()
    );
    let (status, report) = switch(&pair, &["cutover", "--yes"]);
    assert_eq!((status, &report["outcome"]), (2, &"stuck".into()), "{report:#}\n{}", daemon.log());
    assert!(report["error"].as_str().unwrap().contains("there is no way back"), "{report:#}");
    assert_eq!((takes_writes(&pair.source_url).await, takes_writes(&pair.target_url).await), (false, true));
    std::fs::write(mark.path(), "mended").unwrap();
    let (status, report) = switch(&pair, &["cutover", "--yes"]);
    assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}\n{}", daemon.log());
    assert_eq!((takes_writes(&pair.source_url).await, takes_writes(&pair.target_url).await), (false, true));
}
