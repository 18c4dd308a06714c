//! There and back.

use cdc::config::Direction;
use tokio_postgres::Client;

use super::{arrived, cleared, copies, put_back_there, turn_after, urls};
use crate::support::pair::{Pair, as_admin, connect};

const SCHEMA: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, name text NOT NULL, changed int NOT NULL DEFAULT 0);
    CREATE TABLE child (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                        parent int NOT NULL REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, v jsonb);
    CREATE TABLE part (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
    CREATE TABLE whole (a int, b text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE large (id int PRIMARY KEY, body text, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
    ALTER TABLE large ALTER body SET STORAGE EXTERNAL;
    CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.changed := OLD.changed + 1; RETURN NEW; END';
    CREATE TRIGGER counts BEFORE UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION count_up();";

const ROWS: &str = "
    INSERT INTO parent SELECT i, 'parent ' || i FROM generate_series(1, 50) i;
    INSERT INTO child (parent, v) SELECT 1 + i % 50, jsonb_build_object('i', i) FROM generate_series(1, 200) i;
    INSERT INTO part SELECT i, date '2026-01-01' + i, 'part ' || i FROM generate_series(0, 299) i;
    INSERT INTO whole SELECT i % 7, 'whole ' || i % 3 FROM generate_series(1, 60) i;
    INSERT INTO large SELECT i, repeat('body ' || i, 2000), 0 FROM generate_series(1, 9) i";

/// Transactions of every kind; `n` tells one call from another.
async fn write(client: &Client, n: i32) {
    for sql in [
        format!("INSERT INTO parent VALUES ({n}00, 'new'), ({n}01, 'new'), ({n}02, 'new')"),
        format!("UPDATE parent SET name = name || ' {n}' WHERE id <= 20"),
        format!(
            "INSERT INTO child (parent, v) SELECT {n}00 + i % 3, to_jsonb(i) FROM generate_series(1, 30) i"
        ),
        format!("UPDATE parent SET id = {n}03 WHERE id = {n}02"),
        format!("DELETE FROM parent WHERE id = {n}01"),
        format!("UPDATE part SET v = 'moved {n}', at = at + 181 WHERE id = {n}"),
        format!("DELETE FROM part WHERE id = {n} + 20"),
        format!("UPDATE whole SET b = b || '{n}' WHERE a = {n} % 7"),
        "DELETE FROM whole WHERE ctid IN (SELECT ctid FROM whole LIMIT 1)".to_owned(),
        format!("UPDATE large SET n = {n}"),
        format!("BEGIN; TRUNCATE part_2; INSERT INTO part VALUES ({n}, '2026-12-01', 'after'); COMMIT"),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
}

/// Copies, streams, turns, and turns back, with the daemon killed after each turn and once in between.
async fn there_and_back(pair: &Pair) {
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    let mut daemon = pair.streaming().await;
    let mut n = 1;
    for direction in [Direction::Reverse, Direction::Forward, Direction::Reverse] {
        // What is in the next slot's log already, and must not come back.
        let before = connect(urls(pair, direction.turned()).0).await;
        turn_after(pair, write(&before, n)).await;
        put_back_there(pair).await;
        let (source, target) = urls(pair, direction);
        let (source, target) = (connect(source).await, connect(target).await);
        let sequences = "SELECT setval('child_id_seq', (SELECT max(id) FROM child))";
        source.query_one(sequences, &[]).await.unwrap();
        // At once, whether the daemon knows already or not.
        write(&source, n + 1).await;
        daemon.kill();
        daemon = pair.daemon();
        write(&source, n + 2).await;
        arrived(pair, direction).await;
        pair.assert_equal().await;
        let other = if direction == Direction::Reverse { "cdcback_" } else { "cdc_" };
        let side = if direction == Direction::Reverse { "target" } else { "source" };
        let ours = format!("{other}{}", pair.name);
        assert_eq!(
            cleared(pair).await,
            [format!("{side}: publication {ours}"), format!("{side}: slot {ours}")]
        );
        assert_eq!(copies(&target).await, 0, "something was copied");

        let status = pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
        let phase = if direction == Direction::Reverse { "reverse" } else { "stream" };
        assert_eq!(
            (&status["direction"], &status["phase"], &status["slot"]["name"]),
            (&direction.as_str().into(), &phase.into(), &ours.into()),
            "{status:#}"
        );
        assert!(
            status["incidents"].as_array().unwrap().iter().all(|i| !i["resolved_at"].is_null()),
            "{status:#}"
        );
        n += 3;
    }
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_takes_after_the_turn_arrives_at_the_source_and_back_again() {
    there_and_back(&Pair::new("back").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_owner_of_both_sides_goes_there_and_back() {
    let pair = Pair::of_owner("back_owned").await;
    as_admin(&pair.target, "ALTER ROLE back_owned_owner REPLICATION").await;
    there_and_back(&pair).await;
}
