//! What runs out, and what jumps: disks, the log that a slot may keep, the clock.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use std::path::PathBuf;
use std::process::Command;

use cdc::demo::{Cluster, Stop};
use support::disk::{Disk, say_loudly};
use support::pair::{Pair, number};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_on_either_side_is_told_and_waited_for() {
    let mut source =
        Cluster::builder("source").setting("logical_decoding_work_mem", "64kB").start().await.unwrap();
    let target = Cluster::start("target").await.unwrap();
    let (data, spill) = (target.data_dir(), source.data_dir().join("pg_replslot"));
    let tables = data.parent().unwrap().join("tables");
    source.stop(Stop::Fast).await.unwrap();
    // Dropped before the servers, whose files they hold.
    let disks = (Disk::mount(&tables, "4m", &data), Disk::mount(&spill, "1m", &data));
    source.start_again().await.unwrap();
    let (Some(target_disk), Some(source_disk)) = &disks else { return };

    let pair = Pair::on(&source, &target, "disks").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.target
        .batch_execute(&format!("CREATE TABLESPACE small LOCATION '{}'", tables.display()))
        .await
        .unwrap();
    pair.target.batch_execute("ALTER TABLE t SET TABLESPACE small").await.unwrap();
    let daemon = pair.streaming().await;
    let full = async |side: &str, ids: &str| {
        pair.write(&format!("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series({ids}) i")).await;
        let status = pair
            .status_is("told of a full disk", |status| {
                let incident = &status["incidents"][0];
                incident["sqlstate"] == "53100"
                    && incident["side"] == side
                    && incident["resolved_at"].is_null()
                    // For a moment each time it tries again, it streams.
                    && status["verdict"] == "behind"
            })
            .await;
        assert_eq!(status["incidents"][0]["severity"], "retrying", "{status:#}");
        let text = status["incidents"][0].to_string();
        assert!(text.contains("No space left on device"), "{text}");
        assert!(text.contains("make room on the disk of this server"), "{text}");
        pair.exits_with(1).await;
    };
    full("source", "1, 3000").await;
    assert_eq!(number(&pair.target, "SELECT count(*) FROM t").await, 0);
    source_disk.resize("256m");
    full("target", "3001, 9000").await;
    assert!(number(&pair.target, "SELECT count(*) FROM t").await <= 3000);
    target_disk.resize("256m");
    pair.caught_up().await;
    pair.status_is("over it", |status| {
        status["incidents"].as_array().unwrap().iter().all(|incident| incident["resolved_at"].is_string())
    })
    .await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_in_the_middle_of_the_copy_is_told_and_the_migration_can_start_anew() {
    let source = Cluster::builder("source")
        .initdb_arg("--wal-segsize=1")
        .setting("max_slot_wal_keep_size", "2MB")
        .setting("min_wal_size", "2MB")
        .setting("max_wal_size", "4MB")
        .start()
        .await
        .unwrap();
    let target = Cluster::start("target").await.unwrap();
    let mut pair = Pair::on(&source, &target, "lost_copy").await;
    pair.config = "[copy]\nreaders = 1\nmax_rate = \"1MB\"\n".to_owned();
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.write("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 8000) i; ANALYZE").await;
    let daemon = pair.daemon();
    pair.target_is("begun", "SELECT to_regclass('cdc.chunk') IS NOT NULL", &[]).await;
    let in_part = "SELECT bool_or(state = 'done') AND bool_or(state = 'pending') FROM cdc.chunk HAVING count(*) > 0 UNION ALL SELECT false LIMIT 1";
    pair.target_is("copied in part", in_part, &[]).await;
    daemon.signal("STOP");
    for _ in 0..10 {
        pair.write("UPDATE t SET v = v || 'y' WHERE id % 4 = 0").await;
        pair.write("SELECT pg_switch_wal(); CHECKPOINT").await;
    }
    daemon.signal("CONT");
    let lost = pair
        .status_is("lost, with an incident", |status| {
            status["verdict"] == "lost"
                && status["incidents"][0]["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("cdc_lost_copy is lost"))
        })
        .await;
    let remedy = lost["incidents"][0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("max_slot_wal_keep_size"), "{remedy}");
    assert_eq!(pair.status_text(&[]).0, 2);
    assert!(daemon.terminate().await.success());
    pair.refuses(2, &["the replication slot cdc_lost_copy is lost", "copied again"]).await;

    // What the remedy says.
    pair.write("ALTER SYSTEM SET max_slot_wal_keep_size = -1").await;
    pair.write("SELECT pg_reload_conf()").await;
    pair.write("SELECT pg_drop_replication_slot('cdc_lost_copy'); DROP PUBLICATION cdc_lost_copy").await;
    pair.target.batch_execute("DROP SCHEMA cdc CASCADE").await.unwrap();
    pair.config = String::new();
    let daemon = pair.streaming().await;
    pair.ends_equal(daemon).await;
}

/// The library that makes a program believe in another time, if it is here.
fn faketime() -> Option<PathBuf> {
    let of = |machine| PathBuf::from(format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"));
    let found = ["x86_64", "aarch64"].map(of).into_iter().find(|path| path.exists());
    if found.is_none() {
        say_loudly("a clock that jumps, as libfaketime is not installed");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_by_a_year_changes_nothing() {
    let Some(library) = faketime() else { return };
    let mut pair = Pair::new("clock").await;
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock");
    let jump = |offset: &str| {
        let new = directory.path().join("new");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(&new, &clock).unwrap();
    };
    for (name, value) in [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        // As it is with a real clock that is set: the other one goes on.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ] {
        pair.environment.push((name.to_owned(), value.to_owned()));
    }
    pair.config = "[copy]\nreaders = 1\nmax_rate = \"1MB\"\n".to_owned();
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.write("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i; ANALYZE").await;
    jump("+0");
    let daemon = pair.daemon();
    pair.target_is("begun", "SELECT to_regclass('cdc.chunk') IS NOT NULL", &[]).await;
    for (n, offset) in ["+1y", "-1y"].iter().enumerate() {
        let done = format!("SELECT count(*) > {n} FROM cdc.chunk WHERE state = 'done'");
        pair.target_is("copied in part", &done, &[]).await;
        jump(offset);
        pair.write(&format!("UPDATE t SET v = v || 'y' WHERE id % 7 = {n}")).await;
    }
    pair.copied().await;
    let walsender = "SELECT active_pid::bigint FROM pg_replication_slots WHERE slot_name = 'cdc_clock'";
    let before = number(&pair.source, walsender).await;
    for (n, offset) in ["+1y", "-1y", "+0", "-1y", "+1y"].iter().enumerate() {
        jump(offset);
        pair.write(&format!("UPDATE t SET v = v || 'z' WHERE id % 7 = {n}")).await;
        pair.caught_up().await;
        let status = pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
        assert!(status["lag"]["seconds"].as_f64().unwrap() < 30.0, "{status:#}");
        assert!(status["incidents"].as_array().unwrap().is_empty(), "{status:#}");
    }
    assert_eq!(
        number(&pair.source, walsender).await,
        before,
        "the stream was interrupted:\n{}",
        daemon.log()
    );
    pair.assert_equal().await;
    daemon.signal("TERM");
    let (code, log) = daemon.outcome().await;
    assert_eq!(code, Some(0), "{log}");
    // It did believe it.
    let date = Command::new("date").args(["--utc", "--date", "1 year", "+%Y-%m-"]).output().unwrap();
    let date = String::from_utf8(date.stdout).unwrap();
    let last = log.lines().last().unwrap();
    assert!(last.starts_with(date.trim_end()) && last.contains("stopping as asked"), "{date}:\n{log}");
}
