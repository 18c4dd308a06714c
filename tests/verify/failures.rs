//! What can't be compared is said, and is never taken for the same.

use std::time::{Duration, Instant};

use cdc::verify::{Live, Options, Outcome, Part, Progress, TableReport};
use serde_json::Value;

use super::support::pair::{Pair, connect, number};
use super::{assert_same, table, verify};

/// The report that an end brings which no table is to blame for.
fn assert_not_compared(pair: &Pair, said: &str) {
    let (status, report) = verify(pair, &[]);
    assert_eq!((status, &report["outcome"]), (3, &Value::from("not_compared")), "{report:#}");
    assert!(report["error"].as_str().unwrap().contains(said), "{report:#}");
}

/// Through the library, with these options.
async fn with(pair: &Pair, options: Options) -> cdc::verify::Report {
    let arguments = cdc::config::Arguments {
        name: Some(pair.name.clone()),
        source: Some(pair.source_url.clone()),
        target: Some(pair.target_url.clone()),
        file: None,
    };
    let config = cdc::config::Config::load(&arguments, &cdc::connect::Environment::empty()).unwrap();
    cdc::verify::verify(&config, &options, &Progress::default()).await.unwrap()
}

fn of<'a>(report: &'a cdc::verify::Report, name: &str) -> &'a TableReport {
    report.tables.iter().find(|table| table.table == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_nothing_is_compared() {
    let pair = Pair::new("streamless").await;
    assert_not_compared(&pair, "there is no migration");
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)").await;
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i").await;
    let daemon = pair.streaming().await;
    let report = assert_same(&pair, &[]);
    let last = &pair.status()["last_verify"];
    assert_eq!(
        (&last["outcome"], &last["rows"], &last["differences"]),
        (&report["outcome"], &Value::from(100), &Value::from(0))
    );
    assert!(pair.status_text(&[]).1.contains("  verified    "), "{}", pair.status_text(&[]).1);
    assert!(daemon.terminate().await.success());
    assert_not_compared(&pair, "no daemon is running");
    // A row that somebody has removed blocks the stream when it is changed.
    pair.target.batch_execute("DELETE FROM t WHERE id = 1").await.unwrap();
    let daemon = pair.streaming().await;
    pair.write("UPDATE t SET v = 'w' WHERE id = 1").await;
    daemon.wait_for_log("ERROR blocked").await;
    pair.status_is("blocked", |status| status["daemon"]["state"] == "blocked").await;
    assert_not_compared(&pair, "the daemon is blocked");
    assert_eq!(pair.status()["last_verify"]["outcome"], "not_compared");
    daemon.kill();
    assert_not_compared(&pair, "no daemon is running");
    // At a barrier none is needed, and one look is enough.
    let report = with(&pair, Options { live: Live::No, ..Options::default() }).await;
    assert_eq!((report.outcome, of(&report, "public.t").missing), (Outcome::Different, 1), "{report:?}");
    assert_eq!(of(&report, "public.u").outcome, Outcome::Same);
    let kept = number(&pair.target, "SELECT count(*) FROM cdc.verification").await;
    assert!(kept >= 5, "{kept}");
    assert_eq!(
        number(
            &pair.target,
            "SELECT count(*) FROM cdc.verification WHERE report::text LIKE '%values\": [{%'"
        )
        .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_dies_or_stops_meanwhile_ends_the_comparison() {
    let pair = Pair::new("dying").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.write("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i; ANALYZE t").await;
    let daemon = pair.streaming().await;
    // Slowly, so that it is in the middle of it.
    let slowly = Options { max_rate_bytes: Some(2_000_000), ..Options::default() };
    let (report, ()) = tokio::join!(with(&pair, slowly), async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc_dying verify' AND datname = 'dying'";
        while number(&pair.target, running).await < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        daemon.kill();
    });
    assert_eq!(report.outcome, Outcome::NotCompared, "{report:?}");
    assert!(report.error.as_ref().unwrap().contains("no daemon is running"), "{report:?}");
    assert!(of(&report, "public.t").not_compared.is_some(), "{report:?}");
    // One that makes no progress: the target holds it up.
    let daemon = pair.streaming().await;
    let lock = connect(&pair.target_url).await;
    lock.batch_execute("BEGIN; LOCK TABLE t IN SHARE MODE").await.unwrap();
    pair.write("UPDATE t SET v = 'w' WHERE id = 1").await;
    let began = Instant::now();
    let patience = Duration::from_secs(2);
    let report = with(&pair, Options { patience, ..Options::default() }).await;
    assert!(report.error.as_ref().unwrap().contains("no progress for 2 s"), "{report:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    lock.batch_execute("ROLLBACK").await.unwrap();
    let report = with(&pair, Options::default()).await;
    assert_eq!(report.outcome, Outcome::Same, "{report:?}");
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fails_keeps_no_other_one_from_being_compared() {
    let pair = Pair::new("failing").await;
    pair.both(
        "CREATE TABLE secret (id int PRIMARY KEY); CREATE TABLE locked (id int PRIMARY KEY); CREATE TABLE fine (id int PRIMARY KEY);
         CREATE TABLE slow (id int PRIMARY KEY, v text)",
    )
    .await;
    pair.write("INSERT INTO fine VALUES (1); INSERT INTO slow SELECT i, repeat('x', 2000) FROM generate_series(1, 30000) i; ANALYZE").await;
    let daemon = pair.streaming().await;
    pair.target
        .batch_execute(
            "CREATE ROLE reader LOGIN SUPERUSER; ALTER ROLE reader NOSUPERUSER; GRANT USAGE ON SCHEMA cdc TO reader;
             GRANT ALL ON ALL TABLES IN SCHEMA cdc, public TO reader; REVOKE ALL ON secret FROM reader",
        )
        .await
        .unwrap();
    let lock = connect(&pair.target_url).await;
    lock.batch_execute("BEGIN; LOCK TABLE locked").await.unwrap();
    let mut reader = Pair::new("failing_other").await;
    reader.name.clone_from(&pair.name);
    reader.source_url.clone_from(&pair.source_url);
    reader.target_url = pair.target_url.replace("postgres@", "reader@");
    let rate = Options { max_rate_bytes: Some(20_000_000), ..Options::default() };
    let cancel = async {
        // An operator cancels its statements.
        let sql = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
                    WHERE application_name = 'cdc_failing verify' AND query LIKE 'SELECT count%\"slow\"%' AND state = 'active'";
        loop {
            number(&pair.source, sql).await;
        }
    };
    let report = tokio::select! {
        report = with(&reader, rate) => report,
        never = cancel => never,
    };
    assert_eq!(report.outcome, Outcome::NotCompared, "{report:?}");
    for (table, said) in
        [("secret", "permission denied"), ("locked", "lock timeout"), ("slow", "canceling statement")]
    {
        let reason = of(&report, &format!("public.{table}")).not_compared.clone();
        assert!(reason.as_ref().is_some_and(|reason| reason.contains(said)), "{table}: {report:?}");
    }
    assert_eq!(of(&report, "public.fine").outcome, Outcome::Same, "{report:?}");
    lock.batch_execute("ROLLBACK").await.unwrap();
    // Chunks that are on their way again.
    pair.target.batch_execute("UPDATE cdc.chunk SET state = 'pending', snapshot = NULL, lsn = NULL WHERE relation = (SELECT relation FROM cdc.copy WHERE table_name = 'fine')").await.unwrap();
    let (status, report) = verify(&pair, &["--table", "public.fine"]);
    assert_eq!(status, 3, "{report:#}");
    assert!(
        table(&report, "public.fine")["not_compared"].as_str().unwrap().contains("still being copied"),
        "{report:#}"
    );
    // A part of a table.
    let range = |lower: i64, upper| cdc::chunk::KeyRange {
        lower: Some(vec![cdc::chunk::KeyValue::Integer(lower)]),
        upper: Some(vec![cdc::chunk::KeyValue::Integer(upper)]),
    };
    pair.target.batch_execute("DELETE FROM slow WHERE id IN (5, 500)").await.unwrap();
    let part = Part {
        table: cdc::catalog::TableName::new("public", "slow"),
        ranges: vec![range(100, 200), range(400, 600)],
    };
    let report = with(&pair, Options { only: Some(vec![part]), ..Options::default() }).await;
    let slow = of(&report, "public.slow");
    assert_eq!(
        (slow.rows_source, slow.missing, &slow.ranges),
        (300, 1, &vec![range(400, 600)]),
        "{report:?}"
    );
    daemon.kill();
}
