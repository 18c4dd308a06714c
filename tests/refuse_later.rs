//! What stops a migration that has begun: positions that no longer hold, lost slots, changes that
//! don't fit; and that it goes on by itself where that can be mended.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use futures_util::future::join_all;
use support::pair::{self, Pair, connect, is_since, number};

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_no_longer_holds_is_refused_at_a_restart() {
    let mut pair = Pair::new("position").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.ends_equal(daemon).await;
    let source = pair.source_url.clone();

    // Another database of the same server, another server.
    pair.write("CREATE DATABASE position_other TEMPLATE template0").await;
    pair.daemon_source_url = source.replace("/position", "/position_other");
    connect(&pair.daemon_source_url)
        .await
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY)")
        .await
        .unwrap();
    pair.refuses(2, &["another database", "position_other", "another name"]).await;
    let other = connect(&pair.target_url.replace("/position", "/postgres")).await;
    other.batch_execute("CREATE DATABASE position_elsewhere").await.unwrap();
    pair.daemon_source_url = pair.target_url.replace("/position", "/position_elsewhere");
    pair.refuses(2, &["another server", "what to do: "]).await;
    pair.daemon_source_url = source;

    // The source was restored from a backup: its log ends before the checkpoint.
    pair.target.batch_execute("CREATE TABLE cdc.kept AS SELECT lsn FROM cdc.checkpoint; UPDATE cdc.checkpoint SET lsn = '7FFFFFFF/0'").await.unwrap();
    pair.refuses(2, &["before the checkpoint, 7FFFFFFF/0"]).await;
    pair.target
        .batch_execute("UPDATE cdc.checkpoint c SET lsn = k.lsn FROM cdc.kept k; DROP TABLE cdc.kept")
        .await
        .unwrap();

    // A publication that is gone.
    pair.write("DROP PUBLICATION cdc_position").await;
    pair.refuses(2, &["the publication cdc_position is gone", "what to do: "]).await;
    let (code, text) = pair.status_text(&["--incidents"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("stopped") && text.contains("the publication cdc_position is gone"), "{text}");
    pair.write("CREATE PUBLICATION cdc_position FOR TABLE t").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (2)").await;
    pair.caught_up().await;
    pair.status_is("over the incidents", |status| {
        status["incidents"].as_array().unwrap().iter().all(|i| !i["resolved_at"].is_null())
    })
    .await;
    pair.ends_equal(daemon).await;

    // Rows of the ledger that somebody has deleted.
    for table in ["cdc.chunk", "cdc.checkpoint", "cdc.writer"] {
        let target = &pair.target;
        target
            .batch_execute(&format!("CREATE TABLE kept AS SELECT * FROM {table}; DELETE FROM {table}"))
            .await
            .unwrap();
        pair.refuses(2, &["rows of this migration are missing in the ledger: ", table, "put them back"])
            .await;
        target
            .batch_execute(&format!("INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"))
            .await
            .unwrap();
    }
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (4)").await;
    pair.ends_equal(daemon).await;

    // The slot has moved on without us: what is in between can't be had any more.
    pair.write("INSERT INTO t VALUES (3)").await;
    pair.write("SELECT pg_replication_slot_advance('cdc_position', pg_current_wal_lsn())").await;
    pair.refuses(2, &["has been confirmed up to", "what to do: "]).await;
    pair.write("SELECT pg_drop_replication_slot('cdc_position'), pg_create_logical_replication_slot('cdc_position', 'pgoutput')").await;
    pair.refuses(2, &["has been confirmed up to"]).await;
    pair.write("SELECT pg_drop_replication_slot('cdc_position'), pg_create_logical_replication_slot('cdc_position', 'test_decoding')").await;
    pair.refuses(2, &["another one now", "test_decoding"]).await;
    pair.target.batch_execute("ALTER SCHEMA cdc RENAME TO away").await.unwrap();
    pair.refuses(2, &["which this migration's ledger knows nothing of", "put it back"]).await;
    pair.target.batch_execute("ALTER SCHEMA away RENAME TO cdc").await.unwrap();
    pair.write("SELECT pg_drop_replication_slot('cdc_position')").await;
    pair.refuses(2, &["the replication slot cdc_position is gone"]).await;
    let (code, text) = pair.status_text(&["--incidents"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("lost"), "{text}");
    assert_eq!(
        number(&pair.source, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc_position'")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_dropped_while_streaming_blocks_until_it_is_back() {
    let pair = Pair::new("unpublished").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = pair.streaming().await;
    pair.write("DROP PUBLICATION cdc_unpublished").await;
    let blocked = pair.status_is("blocked", |status| status["verdict"] == "blocked").await;
    assert_eq!(pair.status_text(&["--incidents"]).0, 2);
    assert_eq!(blocked["incidents"][0]["severity"], "blocked", "{blocked:#}");
    assert_eq!(blocked["incidents"][0]["message"], "the publication cdc_unpublished is gone");
    assert!(blocked["incidents"][0]["remedy"].is_string());
    assert!(blocked["slot"]["is_active"].as_bool().unwrap(), "the slot is held while blocked");
    pair.write("CREATE PUBLICATION cdc_unpublished FOR TABLE t; INSERT INTO t VALUES (1)").await;
    pair.caught_up().await;
    pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_in_the_way_blocks_and_the_stream_goes_on_by_itself_once_it_is_gone() {
    let pair = Pair::new("in_the_way").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let daemon = pair.streaming().await;
    pair.target.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.write("INSERT INTO t VALUES (2)").await;
    pair.write("INSERT INTO t VALUES (3)").await;
    let blocked = pair.status_is("blocked", |status| status["verdict"] == "blocked").await;
    let incident = &blocked["incidents"][0];
    assert_eq!(incident["severity"], "blocked", "{blocked:#}");
    assert_eq!(incident["side"], "target", "{blocked:#}");
    assert_eq!(incident["sqlstate"], "23505", "{blocked:#}");
    assert_eq!(incident["table"], "public.t", "{blocked:#}");
    assert_eq!(incident["key"], "id=2", "{blocked:#}");
    assert!(incident["lsn"].is_string() && incident["remedy"].is_string(), "{blocked:#}");
    let (code, text) = pair.status_text(&["--incidents"]);
    assert_eq!(code, 2, "{text}");
    for part in ["blocked: a person is needed", "key id=2", "SQLSTATE 23505", "what to do: "] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    // It stops exactly there.
    pair.status_is("applied up to there", |status| status["checkpoint"]["changes"] == 1).await;
    pair.target.batch_execute("DELETE FROM t WHERE id = 2").await.unwrap();
    pair.caught_up().await;
    let over = pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
    assert!(over["incidents"][0]["resolved_at"].is_string(), "{over:#}");
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_server_gave_up_is_lost_and_never_made_again() {
    let source = pair::source()
        .initdb_arg("--wal-segsize=1")
        .setting("max_slot_wal_keep_size", "2MB")
        .setting("min_wal_size", "2MB")
        .setting("max_wal_size", "4MB")
        .start()
        .await
        .unwrap();
    let target = pair::target().start().await.unwrap();
    let pair = Pair::on(&source, &target, "lost").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let daemon = pair.streaming().await;
    daemon.signal("STOP");
    for i in 0..10 {
        pair.write(&format!(
            "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series({}, {}) i",
            i * 2000,
            i * 2000 + 1999
        ))
        .await;
        pair.write("SELECT pg_switch_wal(); CHECKPOINT").await;
    }
    assert_eq!(pair.status()["verdict"], "lost");
    daemon.signal("CONT");
    let lost = pair
        .status_is("lost with an incident", |status| {
            !status["incidents"].as_array().unwrap().is_empty() && status["daemon"]["state"] == "blocked"
        })
        .await;
    assert_eq!(lost["verdict"], "lost", "{lost:#}");
    assert_eq!(lost["slot"]["wal_status"], "lost", "{lost:#}");
    assert!(
        lost["incidents"][0]["message"].as_str().unwrap().contains("the replication slot cdc_lost is lost"),
        "{lost:#}"
    );
    assert!(lost["incidents"][0]["remedy"].as_str().unwrap().contains("cdc repair --all"), "{lost:#}");
    assert_eq!(pair.status_text(&["--incidents"]).0, 2);
    assert!(daemon.terminate().await.success());
    pair.refuses(2, &["the replication slot cdc_lost is lost", "max_slot_wal_keep_size"]).await;

    // Asked for while no daemon runs, and again while one is blocked by the loss of the next slot.
    let ask = "INSERT INTO cdc.repair (name, reason, os_user, host) VALUES ('lost', 'r', 'me', 'here')";
    pair.target.batch_execute(ask).await.unwrap();
    pair.write("ALTER SYSTEM SET max_slot_wal_keep_size = -1").await;
    pair.write("SELECT pg_reload_conf()").await;
    let daemon = pair.daemon();
    pair.target_is(
        "copied again",
        "SELECT NOT EXISTS (SELECT FROM cdc.repair WHERE finished_at IS NULL)",
        &[],
    )
    .await;
    pair.write("UPDATE t SET v = 'y' WHERE id < 100").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots").await;
    pair.write(
        "DO 'BEGIN LOOP
               BEGIN PERFORM pg_drop_replication_slot(''cdc_lost''); RETURN;
               EXCEPTION WHEN object_in_use THEN
                 PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots; PERFORM pg_sleep(0.01);
               END;
             END LOOP; END'",
    )
    .await;
    pair.status_is("lost", |status| status["verdict"] == "lost" && status["daemon"]["state"] == "blocked")
        .await;
    pair.write("UPDATE t SET v = 'z' WHERE id > 19900").await;
    pair.target.batch_execute(ask).await.unwrap();
    let over = "SELECT count(*) = 2 FROM cdc.repair WHERE finished_at IS NOT NULL AND error IS NULL";
    pair.target_is("copied again", over, &[]).await;
    pair.ends_equal(daemon).await;
}

/// Somebody changes the publication that the daemon has made.
struct Changed {
    name: &'static str,
    /// The daemon runs meanwhile.
    is_running: bool,
    /// On the source, after `ALTER PUBLICATION ...`.
    change: &'static str,
    /// What is said of it, and with what severity.
    message: &'static str,
    severity: &'static str,
    /// What a person does, after `ALTER PUBLICATION ...`.
    mend: &'static [&'static str],
}

const NOT_FOLLOWED: &str = "the table is not followed: it is not in the migration's publication";

const CHANGED: &[Changed] = &[
    Changed {
        name: "taken_out",
        is_running: true,
        change: "DROP TABLE t",
        message: NOT_FOLLOWED,
        severity: "warning",
        mend: &["ADD TABLE t"],
    },
    Changed {
        name: "taken_out_stopped",
        is_running: false,
        change: "DROP TABLE t",
        message: NOT_FOLLOWED,
        severity: "warning",
        mend: &["ADD TABLE t"],
    },
    Changed {
        name: "inserts_only",
        is_running: true,
        change: "SET (publish = 'insert')",
        message: "was changed: it publishes \"insert\"",
        severity: "blocked",
        mend: &["SET (publish = 'insert, update, delete, truncate')"],
    },
    Changed {
        name: "inserts_only_stopped",
        is_running: false,
        change: "SET (publish = 'insert')",
        message: "was changed: it publishes \"insert\"",
        severity: "blocked",
        mend: &["SET (publish = 'insert, update, delete, truncate')"],
    },
    Changed {
        name: "via_root",
        is_running: true,
        change: "SET (publish_via_partition_root = true)",
        message: "was changed: it publishes partitions as their root",
        severity: "blocked",
        mend: &["SET (publish_via_partition_root = false)"],
    },
    Changed {
        name: "some_columns",
        is_running: true,
        change: "SET TABLE p, t (id)",
        message: "was changed: it has a row filter or a column list for public.t",
        severity: "blocked",
        mend: &["DROP TABLE t", "ADD TABLE t"],
    },
    Changed {
        name: "some_rows",
        is_running: true,
        change: "SET TABLE p, t WHERE (id > 3)",
        message: "was changed: it has a row filter or a column list for public.t",
        severity: "blocked",
        mend: &["DROP TABLE t", "ADD TABLE t"],
    },
];

async fn nothing_is_skipped_when_it_is_changed_back(case: &'static Changed) {
    let pair = Pair::new(case.name).await;
    if case.name.starts_with("some_") && !is_since(15, &pair.source).await {
        return;
    }
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p DEFAULT",
    )
    .await;
    let write = async |v: &str, ids: &str| {
        for table in ["t", "p"] {
            let rows = format!("SELECT i, '{v}' FROM generate_series({ids}) i");
            let sql = format!(
                "UPDATE {table} SET v = '{v}'; INSERT INTO {table} {rows}; DELETE FROM {table} WHERE id % 5 = 0"
            );
            pair.write(&sql).await;
        }
    };
    let alter = async |what: &str| pair.write(&format!("ALTER PUBLICATION cdc_{} {what}", case.name)).await;
    write("before", "1, 10").await;
    let mut daemon = pair.streaming().await;
    write("streamed", "11, 20").await;
    pair.caught_up().await;
    let is_refused = !case.is_running && case.severity == "blocked";
    if case.is_running {
        alter(case.change).await;
        write("missed", "21, 30").await;
    } else {
        assert!(daemon.terminate().await.success());
        alter(case.change).await;
        write("missed", "21, 30").await;
        daemon = pair.daemon();
    }
    let told = pair
        .status_is(case.message, |status| {
            let incident = &status["incidents"][0];
            incident["resolved_at"].is_null()
                && incident["severity"] == case.severity
                && incident["message"].as_str().is_some_and(|message| message.contains(case.message))
        })
        .await;
    assert_eq!(told["incidents"][0]["side"], "source", "{told:#}");
    assert!(told["incidents"][0]["remedy"].as_str().unwrap().contains("ALTER PUBLICATION "), "{told:#}");
    write("missed too", "31, 40").await;
    for mend in case.mend {
        alter(mend).await;
    }
    if is_refused {
        assert_eq!(daemon.outcome().await.0, Some(2), "{}", case.name);
        daemon = pair.daemon();
    }
    write("after", "41, 50").await;
    pair.status_is("over it", |status| {
        status["incidents"].as_array().unwrap().iter().all(|incident| incident["resolved_at"].is_string())
    })
    .await;
    pair.ends_equal(daemon).await;
}

/// Side by side, as most of them wait for the daemon's next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_changed_is_told_and_its_tables_are_copied_again_when_it_is_changed_back() {
    let cases = CHANGED.iter().map(|case| tokio::spawn(nothing_is_skipped_when_it_is_changed_back(case)));
    let names = CHANGED.iter().map(|case| case.name);
    let failed: Vec<_> =
        join_all(cases).await.into_iter().zip(names).filter(|(end, _)| end.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_identity_may_change_while_it_streams() {
    let pair = Pair::new("identity").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, u int NOT NULL UNIQUE, v text)").await;
    let daemon = pair.streaming().await;
    for (n, identity) in ["FULL", "USING INDEX t_u_key", "DEFAULT"].iter().enumerate() {
        let n = n + 1;
        pair.write(&format!("INSERT INTO t SELECT i, i, 'v' FROM generate_series({n}1, {n}9) i")).await;
        pair.write(&format!("ALTER TABLE t REPLICA IDENTITY {identity}; UPDATE t SET v = v || {n}")).await;
        pair.write("UPDATE t SET u = -u WHERE id % 3 = 0; UPDATE t SET id = id + 100 WHERE id % 4 = 0; DELETE FROM t WHERE id % 7 = 0").await;
    }
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_out_of_the_publication_for_a_moment_is_copied_again() {
    let pair = Pair::new("for_a_moment").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)").await;
    let mut daemon = Some(pair.streaming().await);
    let alter =
        async |what: &str| pair.write(&format!("ALTER PUBLICATION cdc_for_a_moment {what} TABLE t")).await;
    for (n, is_running) in [true, false].into_iter().enumerate() {
        pair.write(&format!("INSERT INTO t VALUES ({n}, 'streamed')")).await;
        pair.caught_up().await;
        if !is_running {
            assert!(daemon.take().unwrap().terminate().await.success());
        }
        alter("DROP").await;
        // No later change will stumble over what is missing.
        let unseen = format!("SELECT 10 * {n} + i, 'unseen' FROM generate_series(10, 19) i");
        pair.write(&format!("INSERT INTO t {unseen}")).await;
        alter("ADD").await;
        if !is_running {
            daemon = Some(pair.daemon());
        }
        let wanted = format!("SELECT count(*) = {} FROM t WHERE v = 'unseen'", 10 * (n + 1));
        pair.target_is("copied again", &wanted, &[]).await;
        pair.write(&format!("INSERT INTO u VALUES ({n}); UPDATE t SET v = v || '!' WHERE id = {n}")).await;
        pair.caught_up().await;
        pair.assert_equal().await;
    }
    pair.ends_equal(daemon.unwrap()).await;
}
