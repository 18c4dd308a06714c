//! Rows that move between chunks while these are copied, in both directions, all the time.

#![allow(clippy::print_stdout, reason = "what was measured is told")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::churn::again_and_again;
use support::pair::{Pair, constraints, number};

/// Copies under these writers, and lets them go on for a while.
async fn copied_while(pair: &Pair, pause: Duration, writers: &[&'static str]) {
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = writers.iter().map(|sql| again_and_again(pair, pause, sql, &stop)).collect();
    let began = Instant::now();
    let daemon = pair.streaming().await;
    let seconds = began.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Relaxed);
    let mut times = 0;
    for writer in writers {
        times += writer.await.expect("a writer ends");
    }
    let chunks = number(&pair.target, "SELECT count(*) FROM cdc.chunk").await;
    let copies = number(&pair.target, "SELECT sum(copies) FROM cdc.chunk").await;
    println!("{}: {chunks} chunks, {copies} copies in {seconds:.1} s, {times} transactions", pair.name);
    assert!(chunks > 4);
    pair.ends_equal(daemon).await;
}

/// The number of the row that is moved goes round; the other one is far away from it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_keep_their_large_values_and_move_between_chunks_all_the_time_all_arrive() {
    let mut pair = Pair::new("moved_toast").await;
    pair.config = "[copy]\nmax_rate = \"4MB\"\n".to_owned();
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, label text, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL",
    )
    .await;
    pair.write(
        "INSERT INTO t SELECT i, 'row ' || i, repeat(md5(i::text), 100) FROM generate_series(1, 4000) i;
         ANALYZE t",
    )
    .await;
    copied_while(
        &pair,
        Duration::from_millis(20),
        &[
            // Two rows of the one half and the other change places.
            "BEGIN; UPDATE t SET id = -1 WHERE id = 1 + 37 * $ % 2000; UPDATE t SET id = 1 + 37 * $ % 2000
                      WHERE id = 2001 + 41 * $ % 1000;
             UPDATE t SET id = 2001 + 41 * $ % 1000 WHERE id = -1; COMMIT",
            // A row moves up by a thousand, out of the last chunk, and down again.
            "UPDATE t SET id = id + 1000, label = 'up $' WHERE id = 3001 + 13 * $ % 1000;
             UPDATE t SET id = id - 1000, label = 'down $' WHERE id = 4001 + 13 * $ % 1000",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_by_every_column_of_a_composite_key_all_arrive() {
    let mut pair = Pair::new("moved_composite").await;
    pair.config = "[copy]\nmax_rate = \"1MB\"\n".to_owned();
    pair.both(
        "CREATE TABLE t (tenant smallint, id uuid, n bigint, kind text, v text, PRIMARY KEY (tenant, id, kind));
         CREATE TABLE by_token (id bigint PRIMARY KEY, token uuid NOT NULL, v text);
         CREATE UNIQUE INDEX by_token_token ON by_token (token);
         ALTER TABLE by_token REPLICA IDENTITY USING INDEX by_token_token",
    )
    .await;
    pair.write(
        "INSERT INTO t SELECT i % 5, md5(i::text)::uuid, i, 'a', repeat('x', 200) FROM generate_series(1, 10000) i;
         INSERT INTO by_token SELECT i, md5(i::text)::uuid, repeat('x', 200) FROM generate_series(1, 5000) i;
         CREATE INDEX ON t (n); ANALYZE",
    )
    .await;
    copied_while(
        &pair,
        Duration::from_millis(5),
        &[
            "UPDATE t SET tenant = (tenant + 1) % 5 WHERE n = 1 + 37 * $ % 10000",
            "UPDATE t SET id = md5(id::text)::uuid, v = 'moved $' WHERE n = 1 + 41 * $ % 10000",
            "UPDATE t SET kind = kind || 'b', v = 'other kind' WHERE n = 1 + 43 * $ % 10000",
            // The primary key isn't the identity here: it is held back, and what moves is the token.
            "BEGIN; UPDATE by_token SET id = -1 WHERE id = 1 + 3 * $ % 2500;
             UPDATE by_token SET id = 1 + 3 * $ % 2500 WHERE id = 2501 + 7 * $ % 2500;
             UPDATE by_token SET id = 2501 + 7 * $ % 2500 WHERE id = -1;
             UPDATE by_token SET token = gen_random_uuid() WHERE id = 1 + 11 * $ % 5000; COMMIT",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_values_that_are_exchanged_all_the_time_are_unique_again_afterwards() {
    let mut pair = Pair::new("exchanged").await;
    pair.config = "[copy]\nmax_rate = \"2MB\"\n".to_owned();
    pair.both(
        "CREATE TABLE t (id int PRIMARY KEY, rank int NOT NULL, period int4range, v text,
                         CONSTRAINT one_rank UNIQUE (rank) DEFERRABLE INITIALLY IMMEDIATE,
                         EXCLUDE USING gist (period WITH &&));
         CREATE UNIQUE INDEX early ON t ((rank % 1000000)) WHERE rank < 1000;
         COMMENT ON CONSTRAINT one_rank ON t IS 'each has a place'",
    )
    .await;
    pair.write(
        "INSERT INTO t SELECT i, i, int4range(i * 10, i * 10 + 10), repeat('x', 500) FROM generate_series(1, 12000) i;
         ANALYZE t",
    )
    .await;
    let before = constraints(&pair.target).await;
    copied_while(
        &pair,
        Duration::from_millis(2),
        &["BEGIN; UPDATE t SET rank = -rank, period = NULL WHERE id IN (1 + 31 * $ % 6000, 6001 + 37 * $ % 6000);
           UPDATE t SET rank = -o.rank, period = int4range(-o.rank * 10, 10 - o.rank * 10) FROM t AS o
            WHERE (t.id = 1 + 31 * $ % 6000 AND o.id = 6001 + 37 * $ % 6000)
               OR (o.id = 1 + 31 * $ % 6000 AND t.id = 6001 + 37 * $ % 6000);
           COMMIT"],
    )
    .await;
    assert_eq!(constraints(&pair.target).await, before);
}
