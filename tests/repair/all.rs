//! Everything is copied again, from a new slot on, over the rows that are there.

use std::time::{Duration, Instant};

use crate::support::pair::{PATIENCE, Pair, connect, number};
use crate::{ask_for_all, repaired};

/// Waits until everything is copied again; there are rows at any moment.
async fn copied_over_rows(pair: &Pair) {
    let target = connect(&pair.target_url).await;
    let deadline = Instant::now() + PATIENCE;
    let open = "SELECT count(*) FROM cdc.repair WHERE finished_at IS NULL";
    while number(&target, open).await > 0 {
        assert!(
            number(&target, "SELECT count(*) FROM t").await > 0,
            "the rows were gone before the new ones came"
        );
        assert!(Instant::now() < deadline, "it was never copied again: {:#}", pair.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(repaired(pair).await, [""; 0]);
    pair.copied().await;
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text UNIQUE)";
const ROWS: &str = "INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_has_become_of_the_slot_and_the_source_everything_can_be_copied_again() {
    let mut pair = Pair::new("repair_slots").await;
    // A first copy would refuse the rows.
    pair.config = "[tables]\nexisting_rows = \"refuse\"\n".to_owned();
    pair.both(TABLE).await;
    pair.both(
        "CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); ALTER TABLE p REPLICA IDENTITY FULL;
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); ALTER TABLE p1 REPLICA IDENTITY FULL",
    )
    .await;
    pair.target.batch_execute("CREATE TABLE p_rest PARTITION OF p DEFAULT").await.unwrap();
    pair.write(
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); ALTER TABLE p2 REPLICA IDENTITY FULL",
    )
    .await;
    pair.write(ROWS).await;
    pair.write("INSERT INTO p SELECT i, 'v' FROM generate_series(1, 19) i").await;
    let daemon = pair.streaming().await;
    assert!(daemon.terminate().await.success());
    let slot = "cdc_repair_slots";
    let drop_slot = format!("SELECT pg_drop_replication_slot('{slot}')");
    let other_plugin =
        format!("{drop_slot}; SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')");
    let no_publication = format!("DROP PUBLICATION {slot}");
    for (what, on_source, on_target) in [
        ("is gone: dropped by hand", &*drop_slot, ""),
        ("is another one now", &*other_plugin, ""),
        ("the publication cdc_repair_slots is gone", &*no_publication, ""),
        ("the target was restored from a backup", "", "UPDATE cdc.checkpoint SET lsn = '0/1'"),
        ("belongs to another timeline", "", "UPDATE cdc.migration SET source_timeline = 77"),
    ] {
        pair.write(on_source).await;
        pair.target.batch_execute(on_target).await.unwrap();
        // What happens meanwhile is in no stream.
        pair.write("UPDATE t SET v = v || '!' WHERE id % 7 = 0; DELETE FROM t WHERE id % 100 = 3; DELETE FROM p WHERE id = 3").await;
        pair.target
            .batch_execute("INSERT INTO t VALUES (5000, 'extra') ON CONFLICT DO NOTHING")
            .await
            .unwrap();
        pair.refuses(2, &[what, "cdc repair --all"]).await;
        ask_for_all(&pair).await;
        let daemon = pair.daemon();
        copied_over_rows(&pair).await;
        pair.write("UPDATE t SET v = v || '?' WHERE id % 11 = 0").await;
        pair.ends_equal(daemon).await;
    }

    // While a daemon runs, for no reason at all.
    let daemon = pair.streaming().await;
    pair.target.batch_execute("INSERT INTO t VALUES (5000, 'extra')").await.unwrap();
    ask_for_all(&pair).await;
    copied_over_rows(&pair).await;
    pair.ends_equal(daemon).await;

    // It was another server: the slot there may be anybody's.
    pair.target.batch_execute("UPDATE cdc.migration SET source_system_id = '1'").await.unwrap();
    pair.refuses(2, &["belongs to another server", "cdc repair --all"]).await;
    ask_for_all(&pair).await;
    pair.refuses(2, &["there is a replication slot cdc_repair_slots already"]).await;
    pair.write(&drop_slot).await;
    let daemon = pair.daemon();
    copied_over_rows(&pair).await;
    pair.ends_equal(daemon).await;
}
