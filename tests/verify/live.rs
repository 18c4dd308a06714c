//! What is in flight is never a difference.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::support::churn::{self, Churn, again_and_again};
use super::support::pair::{Pair, connect};
use super::{assert_same, differences, verify};

/// Rows of the large table.
const ROWS: i64 = 20_000;

/// How often it is verified, in each way of being slow.
const RUNS: usize = 4;

/// Rows that never rest: one that counts, one that flips between two values, one that comes and goes within a
/// transaction and across two, one whose key wanders, and a table without a key that is never the same.
const RESTLESS: [&str; 4] = [
    "UPDATE hot SET n = n + 1 WHERE id = 1; UPDATE hot SET n = 1 - n WHERE id = 2",
    "BEGIN; INSERT INTO hot VALUES (3, $); DELETE FROM hot WHERE id = 3; INSERT INTO hot VALUES (4, 0); COMMIT;
     DELETE FROM hot WHERE id = 4; INSERT INTO hot VALUES (5, 7); DELETE FROM hot WHERE id = 5",
    "UPDATE hot SET id = 1007 - id WHERE id IN (7, 1000)",
    "INSERT INTO bag VALUES ($ % 5); DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag)",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_a_second_are_never_a_difference_and_hide_none() {
    let pair = Pair::new("live").await;
    pair.both(churn::TABLE).await;
    pair.both("CREATE TABLE hot (id int PRIMARY KEY, n bigint); CREATE TABLE bag (n int); ALTER TABLE bag REPLICA IDENTITY FULL;
               CREATE TABLE calm (id int PRIMARY KEY, v text)").await;
    pair.write(&churn::fill(ROWS)).await;
    pair.write("INSERT INTO hot SELECT i, 0 FROM generate_series(1, 2) i; INSERT INTO hot VALUES (7, 0);
                INSERT INTO bag SELECT i % 5 FROM generate_series(1, 50) i; INSERT INTO calm SELECT i, 'v' FROM generate_series(1, 100) i").await;
    let daemon = pair.streaming().await;
    let churn = Churn::start(&pair.source_url, ROWS, 1000);
    let stop = Arc::new(AtomicBool::new(false));
    let restless: Vec<_> =
        RESTLESS.iter().map(|sql| again_and_again(&pair, Duration::from_millis(5), sql, &stop)).collect();
    for run in 0..RUNS {
        let began = Instant::now();
        let report = assert_same(&pair, &[]);
        println!("quick apply, run {run}: {:.1} s {}", began.elapsed().as_secs_f64(), seconds(&report));
    }
    // The target falls behind again and again.
    let pause = tokio::spawn(hold_up(pair.target_url.clone(), Arc::clone(&stop)));
    for run in 0..RUNS {
        let began = Instant::now();
        let report = assert_same(&pair, &[]);
        println!("slow apply, run {run}: {:.1} s {}", began.elapsed().as_secs_f64(), seconds(&report));
    }
    pair.target
        .batch_execute("UPDATE calm SET v = '' WHERE id = 5; DELETE FROM calm WHERE id = 6")
        .await
        .unwrap();
    let (_, report) = verify(&pair, &[]);
    assert_eq!(
        differences(&report),
        ["different public.calm id=5: v", "missing public.calm id=6: "],
        "{report:#}"
    );
    stop.store(true, Relaxed);
    let mut times = Vec::new();
    for task in restless {
        times.push(task.await.unwrap());
    }
    pause.await.unwrap();
    println!("changes a second: {:?}, and {times:?} restless", churn.stop().await);
    pair.target
        .batch_execute("UPDATE calm SET v = 'v' WHERE id = 5; INSERT INTO calm VALUES (6, 'v')")
        .await
        .unwrap();
    pair.ends_equal(daemon).await;
}

/// Keeps the stream from writing for a moment, again and again.
async fn hold_up(url: String, stop: Arc<AtomicBool>) {
    let client = connect(&url).await;
    while !stop.load(Relaxed) {
        client.batch_execute("BEGIN; LOCK TABLE hot IN SHARE MODE").await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        client.batch_execute("COMMIT").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How long each table took.
fn seconds(report: &serde_json::Value) -> String {
    let tables = report["tables"].as_array().unwrap().iter();
    tables
        .map(|table| format!("{} {:.1}", table["table"], table["seconds"].as_f64().unwrap()))
        .collect::<Vec<_>>()
        .join(", ")
}
