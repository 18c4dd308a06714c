//! A schema that changes while nobody looks, and while rows are being copied.

use crate::scene::{Scene, assert_same_schema, is_quiet};
use crate::support::pair::Pair;

/// Changes of any kind that need no person.
const CHANGES: &[&str] = &[
    "ALTER TABLE t ADD a int DEFAULT 1; ALTER TABLE t ALTER a SET DEFAULT 2; UPDATE t SET a = 3 WHERE id % 7 = 0",
    "BEGIN; UPDATE t SET v = 'x' WHERE id % 11 = 0; ALTER TABLE t ADD b text; UPDATE t SET b = v WHERE id % 5 = 0;
     ALTER TABLE t ADD tmp int; UPDATE t SET tmp = 1 WHERE id % 13 = 0; ALTER TABLE t DROP tmp; COMMIT",
    "ALTER TABLE t ADD u uuid NOT NULL DEFAULT gen_random_uuid()",
    "CREATE TABLE new (id bigint PRIMARY KEY, t int); INSERT INTO new SELECT i, i FROM generate_series(1, 500) i;
     UPDATE new SET t = 0 WHERE id % 3 = 0",
    "ALTER TABLE other ALTER n TYPE bigint; UPDATE other SET n = 5000000000 WHERE id < 5",
    "ALTER TABLE other DROP gone, ADD gone text DEFAULT 'back'; DELETE FROM other WHERE id = 9",
];

async fn change(pair: &Pair) {
    for change in CHANGES {
        pair.write(change).await;
    }
}

async fn with_other(name: &str, config: &str) -> Scene {
    let scene = Scene::new(name, config).await;
    scene.pair.both("CREATE TABLE other (id int PRIMARY KEY, n int, gone text, v text)").await;
    scene
        .pair
        .write("INSERT INTO other SELECT i, i, 'g', repeat('x', 500) FROM generate_series(1, 3000) i")
        .await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_while_the_daemon_was_down_is_found() {
    let mut scene = with_other("down", "").await;
    let daemon = scene.pair.streaming().await;
    scene.write();
    assert!(daemon.terminate().await.success());
    change(&scene.pair).await;
    let daemon = scene.pair.daemon();
    scene.pair.caught_up().await;
    let pair = scene.ends_equal(daemon).await;
    assert_same_schema(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_loses_nothing() {
    let mut scene = with_other("killed", "").await;
    let mut daemon = scene.pair.streaming().await;
    scene.write();
    for (i, change) in CHANGES.iter().enumerate() {
        scene.pair.write(change).await;
        // Some time between the change and the end of what it brings with it.
        daemon.wait_for_log(["made on the target", "starting", "streaming"][i.min(1 + i % 2)]).await;
        daemon.kill();
        daemon = scene.pair.daemon();
    }
    let pair = scene.ends_equal(daemon).await;
    assert_same_schema(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_while_it_is_copied_is_read_as_it_is_then() {
    let mut scene = with_other("copied", "[copy]\nreaders = 1\nmax_rate = \"500kB\"\n").await;
    scene.pair.write("ANALYZE").await;
    let daemon = scene.pair.daemon();
    scene.pair.target_is("planned", "SELECT to_regclass('cdc.chunk') IS NOT NULL", &[]).await;
    scene
        .pair
        .target_is("copied in part", "SELECT count(*) FILTER (WHERE state = 'done') >= 2 FROM cdc.chunk", &[])
        .await;
    scene.write();
    change(&scene.pair).await;
    is_quiet(&scene.pair).await;
    let pair = scene.ends_equal(daemon).await;
    assert_same_schema(&pair);
}
