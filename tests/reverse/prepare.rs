//! What a turn makes before the fence and in it, and how it is taken back.

use std::sync::Arc;
use std::time::Duration;

use cdc::config::Direction;
use cdc::connect::Session;
use cdc::cutover::reverse::{self, Turn, check};
use cdc::fault::Side;
use cdc::ledger::{Ledger, Origin};
use cdc::preflight::Severity;

use super::{arrived, cleared, config, made, turn};
use crate::support::pair::{PATIENCE, Pair, as_superuser, connect, number};

const TABLES: &str = "
    CREATE TABLE t (id int PRIMARY KEY, v text);
    CREATE TABLE s (id int PRIMARY KEY, t int REFERENCES t)";

/// The rows of the ledger on the source.
async fn known_to_the_source(pair: &Pair) -> i64 {
    number(&connect(&pair.source_url).await, "SELECT count(*) FROM cdc.migration").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_prepared_again_or_given_up_leaves_nothing_behind_and_loses_nothing() {
    let pair = Pair::new("prepared").await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    let before = made(&pair).await;
    let now = config(&pair).await;
    // Of a turn that has never begun, too.
    reverse::undo(&now).await.unwrap();

    let open = Turn::open(&now).await.unwrap();
    let early = open.turn().await.unwrap_err();
    assert!(early.to_string().contains("has not been prepared"), "{early}");
    open.ready(PATIENCE).await.unwrap();
    let with_both = made(&pair).await;
    assert_eq!(with_both.len(), before.len() + 2, "{with_both:?}");
    pair.write("INSERT INTO t SELECT i, 'forward' FROM generate_series(1, 100) i").await;
    // Killed here, and all of it done again by somebody else.
    drop(open);
    let again = Turn::open(&now).await.unwrap();
    again.ready(PATIENCE).await.unwrap();
    again.prepare().await.unwrap();
    pair.write("INSERT INTO t SELECT i, 'still forward' FROM generate_series(101, 200) i").await;
    arrived(&pair, Direction::Forward).await;
    again.prepare().await.unwrap();
    assert_eq!(made(&pair).await, with_both);

    drop(again);
    reverse::undo(&now).await.unwrap();
    reverse::undo(&now).await.unwrap();
    assert_eq!((made(&pair).await, known_to_the_source(&pair).await), (before, 0));
    pair.write("INSERT INTO s SELECT i, i FROM generate_series(1, 200) i").await;
    pair.caught_up().await;
    pair.assert_equal().await;

    // A daemon that is started in between leaves the slot alone.
    let last = Turn::open(&now).await.unwrap();
    last.ready(PATIENCE).await.unwrap();
    daemon.kill();
    let daemon = pair.streaming().await;
    arrived(&pair, Direction::Forward).await;
    last.prepare().await.unwrap();
    last.turn().await.unwrap();
    for refused in [reverse::undo(&now).await.unwrap_err(), Turn::open(&now).await.map(|_| ()).unwrap_err()] {
        assert!(refused.to_string().contains("it has turned"), "{refused}");
    }
    let target = connect(&pair.target_url).await;
    target.batch_execute("UPDATE t SET v = 'back' WHERE id % 2 = 0").await.unwrap();
    arrived(&pair, Direction::Reverse).await;
    pair.assert_equal().await;
    assert_eq!(
        cleared(&pair).await,
        ["target: publication cdcback_prepared", "target: slot cdcback_prepared"]
    );
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_has_to_wait_is_given_up_in_time_and_says_for_whom() {
    let pair = Pair::new("waits").await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    let now = config(&pair).await;
    let open = Turn::open(&now).await.unwrap();
    // The source is the target of another migration, which somebody has given the same name.
    let session = Session::open(&now.source, Side::Source, "another").await.unwrap();
    let other = Ledger::new(Arc::new(session), "waits");
    other.create().await.unwrap();
    let origin =
        Origin { system_id: 1, timeline: 1, database: "far".to_owned(), slot: "cdc_waits".to_owned() };
    other.record_origin(&origin).await.unwrap();
    let taken = open.ready(PATIENCE).await.unwrap_err().to_string();
    assert!(taken.contains("the target of another migration of the name \"waits\""), "{taken}");
    pair.write("DELETE FROM cdc.migration").await;

    let in_the_way = connect(&pair.target_url).await;
    in_the_way
        .batch_execute("SET application_name = 'nightly'; BEGIN; CREATE TABLE new (id int)")
        .await
        .unwrap();
    let given_up = open.ready(Duration::from_millis(300)).await.unwrap_err().to_string();
    assert!(
        given_up.contains("it waits for the end of transaction") && given_up.contains("nightly"),
        "{given_up}"
    );
    // Half of it is there, and gone again.
    reverse::undo(&now).await.unwrap();
    in_the_way.batch_execute("ROLLBACK").await.unwrap();
    open.ready(PATIENCE).await.unwrap();

    // What changes before the fence is there makes it begin again.
    pair.target.batch_execute("ALTER TABLE t ADD COLUMN more int").await.unwrap();
    let changed = open.prepare().await.unwrap_err().to_string();
    assert!(changed.contains("tables have changed"), "{changed}");
    let slot = "SELECT pg_drop_replication_slot('cdcback_waits')";
    pair.source.batch_execute("ALTER TABLE t ADD COLUMN more int").await.unwrap();
    open.ready(PATIENCE).await.unwrap();
    pair.target.batch_execute(slot).await.unwrap();
    let gone = open.prepare().await.unwrap_err().to_string();
    assert!(gone.contains("the replication slot cdcback_waits is not there"), "{gone}");
    reverse::undo(&now).await.unwrap();
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_known_before_anything_is_touched() {
    if !as_superuser() {
        return;
    }
    let pair = Pair::of_owner("asked").await;
    pair.both(TABLES).await;
    pair.both("CREATE TABLE full_ (v text); ALTER TABLE full_ REPLICA IDENTITY FULL").await;
    let daemon = pair.streaming().await;
    pair.target
        .batch_execute(
            "ALTER TABLE full_ REPLICA IDENTITY DEFAULT; ALTER TABLE t ADD COLUMN theirs int;
             CREATE TABLE only_here (id int)",
        )
        .await
        .unwrap();
    let now = config(&pair).await;
    let before = made(&pair).await;
    let found = check(&now).await.unwrap();
    let blocks = found.iter().filter(|finding| finding.severity == Severity::Blocks);
    let blocks: Vec<_> =
        blocks.map(|f| (f.code, f.object.as_deref().unwrap_or(""), f.mend.clone())).collect();
    let mend = |sql: &str| Some(sql.to_owned());
    assert_eq!(
        blocks,
        [
            ("no-way-back", "", mend("ALTER ROLE \"asked_owner\" REPLICATION;")),
            (
                "no-replica-identity",
                "public.full_",
                mend("ALTER TABLE \"public\".\"full_\" REPLICA IDENTITY FULL;")
            ),
            (
                "only-on-target",
                "",
                mend("make it on the source as it is on the target, or drop it on the target")
            ),
        ]
    );
    assert!(found.iter().any(|finding| finding.code == "no-replica-role"), "{found:?}");
    assert_eq!(made(&pair).await, before);
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_has_ended_sends_nothing_and_leaves_no_slot() {
    let pair = Pair::new("ended").await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1, 'last')").await;
    pair.caught_up().await;
    reverse::end(&config(&pair).await).await.unwrap();
    assert_eq!(made(&pair).await, Vec::<String>::new());
    assert!(daemon.ended().await.success());
    connect(&pair.target_url).await.batch_execute("INSERT INTO t VALUES (2, 'here only')").await.unwrap();
    let (status, log) = pair.daemon().outcome().await;
    assert!(status == Some(0) && log.contains("the migration has ended"), "{log}");
    assert_eq!(number(&pair.source, "SELECT count(*) FROM t").await, 1);
    let (code, text) = pair.status_text(&[]);
    assert!(code == 0 && text.contains("ended: done: nothing is replicated any more"), "{text}");
    let turned = turn_again(&pair).await;
    assert!(turned.contains("ended"), "{turned}");
}

/// Why it can't be turned any more.
async fn turn_again(pair: &Pair) -> String {
    Turn::open(&config(pair).await).await.map(|_| ()).unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_daemon_the_turn_waits_for_one() {
    let pair = Pair::new("later").await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    turn(&pair).await;
    daemon.kill();
    assert_eq!(pair.status()["direction"], "reverse");
    connect(&pair.target_url).await.batch_execute("INSERT INTO t VALUES (1, 'back')").await.unwrap();
    let daemon = pair.daemon();
    arrived(&pair, Direction::Reverse).await;
    pair.assert_equal().await;
    assert!(daemon.terminate().await.success());
}
