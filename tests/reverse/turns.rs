//! Turns that are interrupted, and daemons that are.

use std::time::Duration;

use cdc::config::Direction;
use cdc::cutover::reverse::Turn;
use tokio::time::timeout;

use super::{arrived, cleared, config, copies, turn, urls};
use crate::support::pair::{PATIENCE, Pair, connect, number};

const TABLES: &str = "
    CREATE TABLE t (id bigint PRIMARY KEY, v text, n int NOT NULL DEFAULT 0);
    CREATE TABLE log (id bigint PRIMARY KEY, what text);
    INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i";

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_has_not_heard_of_the_turn_writes_nothing_any_more() {
    let pair = Pair::new("unheard").await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    let now = config(&pair).await;
    let open = Turn::open(&now).await.unwrap();
    open.ready(PATIENCE).await.unwrap();
    pair.caught_up().await;
    open.prepare().await.unwrap();
    daemon.signal("STOP");
    open.turn().await.unwrap();
    // No fence keeps this from the source; the epoch keeps it from the target.
    pair.write("INSERT INTO log VALUES (1, 'too late')").await;
    let target = connect(&pair.target_url).await;
    target.batch_execute("INSERT INTO log VALUES (2, 'back')").await.unwrap();
    daemon.signal("CONT");
    arrived(&pair, Direction::Reverse).await;
    assert_eq!(number(&target, "SELECT sum(id)::bigint FROM log").await, 2);
    assert_eq!(number(&pair.source, "SELECT sum(id)::bigint FROM log").await, 3);

    // Killed half-way back: the reverse life has ended at the source, and home hasn't turned.
    pair.source
        .batch_execute("DELETE FROM log WHERE id = 1; UPDATE cdc.writer SET epoch = epoch + 1")
        .await
        .unwrap();
    target.batch_execute("INSERT INTO log VALUES (3, 'still back')").await.unwrap();
    arrived(&pair, Direction::Reverse).await;
    turn(&pair).await;
    pair.write("INSERT INTO log VALUES (4, 'forward')").await;
    arrived(&pair, Direction::Forward).await;
    pair.assert_equal().await;
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_of_one_server_have_names_for_both_directions() {
    let mut pair = Pair::new("one_server").await;
    pair.source.batch_execute("CREATE DATABASE one_server_b").await.unwrap();
    let other = |url: &str| url.replace("/one_server", "/one_server_b");
    (pair.target_url, pair.daemon_target_url) = (other(&pair.source_url), other(&pair.daemon_source_url));
    pair.target = connect(&pair.target_url).await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    for (id, direction) in
        [Direction::Reverse, Direction::Forward, Direction::Reverse].into_iter().enumerate()
    {
        turn(&pair).await;
        let source = connect(urls(&pair, direction).0).await;
        source
            .batch_execute(&format!("INSERT INTO log VALUES ({id}, 'here'); UPDATE t SET n = {id}"))
            .await
            .unwrap();
        arrived(&pair, direction).await;
        pair.assert_equal().await;
        cleared(&pair).await;
    }
    assert!(daemon.terminate().await.success());
}

/// A turn whose steps are cut off after so long, again and again with more time, until it is through.
async fn turn_in_pieces(pair: &Pair) {
    let now = config(pair).await;
    let mut patience = Duration::from_millis(2);
    loop {
        patience = patience * 3 / 2;
        let Ok(Ok(open)) = timeout(patience, Turn::open(&now)).await else {
            if config(pair).await.direction != now.direction {
                return;
            }
            continue;
        };
        if !matches!(timeout(patience, open.ready(PATIENCE)).await, Ok(Ok(()))) {
            continue;
        }
        arrived(pair, now.direction).await;
        if matches!(timeout(patience, open.prepare()).await, Ok(Ok(_))) {
            let _ = timeout(patience, open.turn()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_and_turns_that_are_killed_at_any_moment_lose_nothing() {
    let pair = Pair::new("killed").await;
    pair.both(TABLES).await;
    let mut daemon = pair.streaming().await;
    let mut id = 0;
    for round in 0..6 {
        let direction = config(&pair).await.direction;
        let source = connect(urls(&pair, direction).0).await;
        for _ in 0..10 {
            id += 1;
            let sql = format!(
                "INSERT INTO log VALUES ({id}, '{direction:?}'); UPDATE t SET n = {id} WHERE id % 10 = {id} % 10"
            );
            source.batch_execute(&sql).await.unwrap();
        }
        let dies_after = Duration::from_millis(fastrand::u64(0..600));
        let (next, ()) = tokio::join!(
            async {
                tokio::time::sleep(dies_after).await;
                daemon.kill();
                pair.daemon()
            },
            turn_in_pieces(&pair)
        );
        daemon = next;
        // At once, whatever the daemon is at.
        let (source, target) = urls(&pair, direction.turned());
        let (source, target) = (connect(source).await, connect(target).await);
        source
            .batch_execute(&format!(
                "INSERT INTO log VALUES (-{round} - 1, 'turned'); DELETE FROM t WHERE id = {round} + 1"
            ))
            .await
            .unwrap();
        arrived(&pair, direction.turned()).await;
        pair.assert_equal().await;
        assert_eq!(copies(&target).await, 0, "something was copied, killed after {dies_after:?}");
    }
    assert_eq!(number(&pair.source, "SELECT count(*) FROM log").await, 66);
    assert_eq!(cleared(&pair).await, ["source: publication cdc_killed", "source: slot cdc_killed"]);
    assert!(daemon.terminate().await.success());
}
