//! What only adds something is made on the target, at the right place.

use crate::scene::{Scene, assert_same_schema, copied_again, is_quiet, nobody_was_asked};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_is_made_on_the_target_while_rows_come() {
    let mut scene = Scene::new("added", "").await;
    scene.pair.both("CREATE TYPE mood AS ENUM ('bad', 'good')").await;
    scene
        .pair
        .both(
            "CREATE TABLE wide (id int PRIMARY KEY, small smallint, n int, s varchar(3), d numeric(6, 2), m mood,
                               must int NOT NULL, at timestamp(0));
             CREATE TABLE idle (id int PRIMARY KEY, v text); CREATE TABLE sums (id int PRIMARY KEY)",
        )
        .await;
    let pair = &scene.pair;
    pair.write("INSERT INTO idle SELECT i, 'v' FROM generate_series(1, 100) i").await;
    pair.write("INSERT INTO wide VALUES (1, 1, 1, 'abc', 1.50, 'good', 1, '2026-01-01'); INSERT INTO sums VALUES (1)").await;
    let daemon = pair.streaming().await;
    scene.write();
    let pair = &scene.pair;
    // Values that the stream has, and those that it hasn't.
    pair.write("ALTER TABLE t ADD plain int").await;
    pair.write("ALTER TABLE t ADD constant text DEFAULT 'a ''quoted'' one' NOT NULL").await;
    pair.write("ALTER TABLE t ADD changed int DEFAULT 5; ALTER TABLE t ALTER changed SET DEFAULT 7").await;
    pair.write("ALTER TABLE t ADD list int[] DEFAULT '{1,2,NULL}', ADD doc jsonb DEFAULT '{\"a\": [1]}'")
        .await;
    pair.write(
        "ALTER TABLE sums ADD sum int GENERATED ALWAYS AS (id + 1) STORED; INSERT INTO sums VALUES (2)",
    )
    .await;
    pair.write(
        "BEGIN; INSERT INTO t (id, v) VALUES (-1, 'before'); ALTER TABLE t ADD within text DEFAULT 'w';
                INSERT INTO t (id, v) VALUES (-2, 'after'); UPDATE t SET within = 'changed' WHERE id = 5;
                ALTER TABLE t ADD twice int; UPDATE t SET twice = 2 WHERE id = 6; COMMIT",
    )
    .await;
    // Of tables that get no other row, too.
    pair.write("ALTER TABLE idle ADD c text DEFAULT 'idle', ADD n int").await;
    pair.write("ALTER TYPE mood ADD VALUE 'fine' BEFORE 'good'").await;
    pair.write("ALTER TYPE mood ADD VALUE 'best'; ").await;
    pair.write(
        "INSERT INTO wide VALUES (2, 1, 1, 'abc', 1.50, 'fine', 1), (3, 1, 1, 'abc', 1.50, 'best', 1)",
    )
    .await;
    pair.write("CREATE TYPE size AS ENUM ('s', 'l'); ALTER TABLE wide ADD size size DEFAULT 'l'").await;
    pair.write(
        "ALTER TABLE wide ALTER s TYPE varchar(5), ALTER d TYPE numeric(8, 2), ALTER must DROP NOT NULL,
                ALTER at TYPE timestamp(3)",
    )
    .await;
    pair.write(
        "INSERT INTO wide VALUES (4, 1, 1, 'abcde', 123456.50, 'bad', NULL, '2026-01-01 10:00:00.125', 's')",
    )
    .await;
    pair.caught_up().await;
    is_quiet(pair).await;
    assert_eq!(copied_again(pair).await, [""; 0], "{:#}", pair.status());
    let pair = scene.ends_equal(daemon).await;
    nobody_was_asked(&pair).await;
    assert_same_schema(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_without_saying_so_are_copied_again() {
    let mut scene = Scene::new("rewritten", "").await;
    let pair = &scene.pair;
    pair.both(
        "CREATE TABLE uuids (id int PRIMARY KEY); CREATE TABLE times (id int PRIMARY KEY);
         CREATE TABLE serials (id int PRIMARY KEY); CREATE TABLE identities (id int PRIMARY KEY);
         CREATE TABLE texts (id int PRIMARY KEY, v text, n int); CREATE TABLE doubled (id int PRIMARY KEY, n int);
         CREATE TABLE again (id int PRIMARY KEY, a int, b int); CREATE TABLE computed (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a * 2) STORED);
         CREATE TABLE tidy (id int PRIMARY KEY, v text)",
    )
    .await;
    for table in ["uuids", "times", "serials", "identities"] {
        pair.write(&format!("INSERT INTO {table} SELECT generate_series(1, 300)")).await;
    }
    pair.write(
        "INSERT INTO texts SELECT i, i::text, i FROM generate_series(1, 300) i;
         INSERT INTO doubled SELECT i, i FROM generate_series(1, 300) i;
         INSERT INTO again SELECT i, i, i FROM generate_series(1, 300) i;
         INSERT INTO computed SELECT i, i FROM generate_series(1, 300) i;
         INSERT INTO tidy SELECT i, 'v' FROM generate_series(1, 300) i",
    )
    .await;
    let daemon = pair.streaming().await;
    scene.write();
    let pair = &scene.pair;
    pair.write("ALTER TABLE uuids ADD u uuid NOT NULL DEFAULT gen_random_uuid()").await;
    pair.write("ALTER TABLE times ADD at timestamptz DEFAULT clock_timestamp(); ALTER TABLE times ALTER at DROP DEFAULT").await;
    pair.write("ALTER TABLE serials ADD n serial; INSERT INTO serials VALUES (301)").await;
    pair.write(
        "ALTER TABLE identities ADD n int GENERATED ALWAYS AS IDENTITY; INSERT INTO identities VALUES (301)",
    )
    .await;
    pair.write("ALTER TABLE texts ALTER n TYPE bigint USING n * 10").await;
    pair.write("ALTER TABLE doubled ALTER n TYPE int USING n * 2").await;
    pair.write("ALTER TABLE again DROP b, ADD b int; UPDATE again SET b = 7 WHERE id < 10").await;
    pair.write("ALTER TABLE computed ALTER s DROP EXPRESSION; UPDATE computed SET s = 0 WHERE id = 5").await;
    pair.source.batch_execute("VACUUM FULL tidy").await.unwrap();
    pair.write("TRUNCATE tidy; INSERT INTO tidy VALUES (1, 'v')").await;
    pair.caught_up().await;
    is_quiet(pair).await;
    assert_eq!(
        copied_again(pair).await,
        ["again", "computed", "doubled", "identities", "serials", "texts", "times", "uuids"]
    );
    let pair = scene.ends_equal(daemon).await;
    nobody_was_asked(&pair).await;
    assert_same_schema(&pair);
}
