//! Rows that move between chunks while these are copied, in both directions, all the time.

#![allow(clippy::print_stdout, reason = "what was measured is told")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::pair::{Pair, connect, number};
use tokio::task::JoinHandle;

/// Runs this statement again and again, `$` being a number that grows, until it is told to stop.
fn again_and_again(
    pair: &Pair,
    pause: Duration,
    sql: &'static str,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<u64> {
    let (url, stop) = (pair.source_url.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let client = connect(&url).await;
        let mut times = 0;
        while !stop.load(Relaxed) {
            client.batch_execute(&sql.replace('$', &times.to_string())).await.expect("the source takes it");
            times += 1;
            tokio::time::sleep(pause).await;
        }
        times
    })
}

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
        times += writer.await.unwrap();
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
