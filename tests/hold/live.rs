//! Rows are written all the time while constraints are put back.

use std::time::{Duration, Instant};

use cdc::connect::Mode;
use cdc::schema::{Until, hold_back, put_back};
use tokio_util::sync::CancellationToken;

use super::{NAME, Target, hold, key, table, until};
use crate::support::pair::{connect, number};

const SCHEMA: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, code text UNIQUE, u int);
    CREATE UNIQUE INDEX pair ON parent (u, id);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, code text UNIQUE REFERENCES parent (code));
    INSERT INTO parent SELECT i, i, i FROM generate_series(1, 30000) i;
    INSERT INTO child SELECT i, i, i FROM generate_series(1, 30000) i;";

/// Waits for a lock of the DDL that puts something back.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'BEGIN;%ALTER TABLE%'";

/// Writes as the applier does, children before their parents, until it is stopped; gives the number of
/// transactions, and how long the longest took.
async fn write(url: String, stop: CancellationToken) -> (usize, Duration) {
    let client = connect(&url).await;
    client.batch_execute("SET search_path = public; SET session_replication_role = replica").await.unwrap();
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !stop.is_cancelled() {
        let id = 40_000 + count;
        let begun = Instant::now();
        client
            .batch_execute(&format!(
                "BEGIN; INSERT INTO child VALUES ({id}, {id}, {id}); UPDATE child SET code = NULL WHERE id = {id} - 30000;
                 INSERT INTO parent VALUES ({id}, {id}, {id}); COMMIT"
            ))
            .await
            .unwrap();
        longest = longest.max(begun.elapsed());
        count += 1;
    }
    (count, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_never_waits_for_long_and_is_never_cancelled() {
    let target = Target::new("writer", SCHEMA).await;
    let before = target.schema().await;
    for name in ["parent", "child"] {
        target.hold_back(&table(name), &key(&["id"])).await.unwrap();
    }
    let stop = CancellationToken::new();
    let writer = tokio::spawn(write(target.url.clone(), stop.clone()));
    until(&target.admin, "SELECT count(*) FROM public.child WHERE id >= 40000").await;
    let session = target.session().await;
    let putting = tokio::spawn(async move { put_back(&session, &[], NAME, Until::Cutover).await });
    // Somebody reads for long, beginning when the first index is there: an exclusive lock can't be had.
    until(&target.admin, "SELECT count(*) FROM cdc.held_back WHERE put_back_at IS NOT NULL").await;
    let reader = connect(&target.url).await;
    reader.batch_execute("BEGIN; LOCK TABLE public.child, public.parent IN ACCESS SHARE MODE").await.unwrap();
    let latest = "SELECT max(id)::int8 FROM public.child";
    for _ in 0..3 {
        until(&target.admin, WAITING).await;
        let seen = number(&target.admin, latest).await;
        until(&target.admin, &format!("SELECT count(*) FROM public.child WHERE id > {seen} + 20")).await;
    }
    reader.batch_execute("COMMIT").await.unwrap();
    let faults = putting.await.unwrap().unwrap();
    stop.cancel();
    let (count, longest) = writer.await.unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    assert!(count > 60, "{count} transactions");
    assert!(longest < Duration::from_millis(900), "a transaction took {longest:?}");
    target.assert_schema(&before).await;
    let sql =
        "SELECT count(*) FROM public.child c JOIN public.parent p ON p.id = c.parent WHERE c.id >= 40000";
    assert_eq!(number(&target.admin, sql).await, i64::try_from(count).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn autovacuum_makes_way() {
    let target = Target::new(
        "vacuumed",
        "CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE REFERENCES parent)",
    )
    .await;
    let before = target.schema().await;
    target.hold_back(&table("t"), &key(&["id"])).await.unwrap();
    // Vacuuming these takes hours.
    for name in ["t", "parent"] {
        let sql = format!(
            "INSERT INTO public.{name} SELECT i FROM generate_series(1, 100000) i; DELETE FROM public.{name} WHERE id % 2 = 0;
             ALTER TABLE public.{name} SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1,
               autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0, autovacuum_analyze_threshold = 2000000000)"
        );
        target.admin.batch_execute(&sql).await.unwrap();
    }
    for name in ["t", "parent"] {
        let sql =
            format!("SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'public.{name}'::regclass");
        until(&target.admin, &sql).await;
    }
    let begun = Instant::now();
    assert_eq!(put_back(&target.session().await, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    for name in ["t", "parent"] {
        target
            .admin
            .batch_execute(&format!(
                "ALTER TABLE public.{name} RESET (autovacuum_vacuum_cost_delay, autovacuum_vacuum_cost_limit,
                   autovacuum_vacuum_threshold, autovacuum_vacuum_scale_factor, autovacuum_analyze_threshold)"
            ))
            .await
            .unwrap();
    }
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_in_use_is_not_waited_for() {
    let target = Target::new("in_use", SCHEMA).await;
    let before = target.schema().await;
    let reader = connect(&target.url).await;
    reader.batch_execute("BEGIN; SELECT FROM public.parent LIMIT 1").await.unwrap();
    let begun = Instant::now();
    let mut session = target.session().await;
    let transaction = session.transaction().await.unwrap();
    let fault =
        hold_back(&transaction, NAME, &table("child"), hold(&key(&["id"]), Mode::Replica)).await.unwrap_err();
    assert_eq!(fault.code().unwrap().code(), "55P03", "{fault}");
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    transaction.rollback().await.unwrap();
    target.assert_schema(&before).await;
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(target.hold_back(&table("child"), &key(&["id"])).await.unwrap().len(), 3);
}
