//! Applications without a pooler that reconnect: what they see of a switch, and what becomes of what they wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::SinkExt;
use tokio_postgres::{Client, Error};

use super::command::{ROWS, SCHEMA, begin, ended, is_at, switch};
use crate::support::pair::{Pair, connect};

/// Writes to the source, and connects again when that fails, until it is told to stop. Gives the keys that were accepted.
async fn write(url: String, keys: Arc<AtomicI64>, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut accepted = Vec::new();
    let mut client = connect(&url).await;
    while !stop.load(Relaxed) {
        let key = keys.fetch_add(1, Relaxed);
        let sql = match key % 3 {
            0 => format!(
                "BEGIN READ WRITE; INSERT INTO ticket (id) VALUES ({key}); UPDATE parent SET name = 'w' WHERE id = 5; COMMIT"
            ),
            1 => format!("INSERT INTO ticket (id) VALUES ({key})"),
            _ => format!(
                "BEGIN; UPDATE parent SET name = 'x' WHERE id = 6; INSERT INTO ticket (id) VALUES ({key}); COMMIT"
            ),
        };
        match client.batch_execute(&sql).await {
            Ok(()) => accepted.push(key),
            Err(error) => {
                assert_says_move(&error);
                client = connect(&url).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    accepted
}

/// Read-only, or disconnected: nothing else is seen.
fn assert_says_move(error: &Error) {
    let code = error.code().map(|code| code.code().to_owned());
    assert!(error.is_closed() || matches!(code.as_deref(), Some("25006" | "57P01")), "{error:?}");
}

/// A COPY that has begun and goes on: it gives the end of it.
async fn copying(url: &str) -> tokio::task::JoinHandle<Result<(), Error>> {
    let client = connect(url).await;
    let sink = client.copy_in::<_, &[u8]>("COPY ticket (id) FROM STDIN").await.unwrap();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let mut sink = Box::pin(sink);
        sink.send(b"1\n").await?;
        begun.send(()).unwrap();
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sink.send(b"900000001\n").await?;
            if client.is_closed() {
                return Err(sink.close().await.unwrap_err());
            }
        }
    });
    has_begun.await.unwrap();
    task
}

async fn has_ended(child: &mut std::process::Child) {
    while child.try_wait().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sessions that have read before the switch, and write after it, as they were prepared to.
async fn asleep(pair: &Pair, level: &str) -> Client {
    let client = connect(&pair.source_url).await;
    client.batch_execute("PREPARE w AS UPDATE parent SET name = 'late' WHERE id = 1").await.unwrap();
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level} READ WRITE")).await.unwrap();
    client.query_one("SELECT count(*) FROM parent", &[]).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_reconnect_see_only_that_the_database_moves_and_lose_nothing() {
    let mut pair = Pair::new("writers").await;
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    pair.config = "[cutover]\npatience = '500ms'\nsmoke = 'sleep 0.5'\n".to_owned();
    let daemon = pair.streaming().await;
    let (keys, stop) = (Arc::new(AtomicI64::new(1_000_000)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..6)
        .map(|_| tokio::spawn(write(pair.source_url.clone(), Arc::clone(&keys), Arc::clone(&stop))))
        .collect();
    // Whoever goes on is ended.
    let slow = connect(&pair.source_url).await;
    slow.batch_execute("BEGIN; INSERT INTO ticket (id) VALUES (900000000)").await.unwrap();
    let copy = copying(&pair.source_url).await;
    let sleepers = [asleep(&pair, "REPEATABLE READ").await, asleep(&pair, "SERIALIZABLE").await];
    let committed = asleep(&pair, "READ COMMITTED").await;
    // No fence stops what nobody can see; it is told.
    let unseen = connect(&pair.source_url).await;
    unseen
        .batch_execute("BEGIN; CREATE TABLE unseen (id int PRIMARY KEY); INSERT INTO unseen VALUES (1)")
        .await
        .unwrap();
    let mut child = begin(&pair, &["cutover", "--yes"]);
    tokio::select! {
        () = is_at(&pair, "smoke") => {}
        () = has_ended(&mut child) => {}
    }
    unseen.batch_execute("COMMIT").await.unwrap();
    let (status, report) = tokio::task::spawn_blocking(|| ended(child)).await.unwrap();
    assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}\n{}", daemon.log());
    assert!(report.to_string().contains("a table has come to the old side that is not fenced"), "{report:#}");
    unseen.batch_execute("DROP TABLE unseen").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Relaxed);
    let mut accepted = Vec::new();
    for writer in writers {
        accepted.extend(writer.await.unwrap());
    }
    assert!(accepted.len() > 20, "{}", accepted.len());
    for sleeper in sleepers.iter().chain([&committed]) {
        let error = sleeper.batch_execute("EXECUTE w").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "25006", "{error:?}");
    }
    assert!(slow.batch_execute("COMMIT").await.is_err());
    let ended = tokio::time::timeout(Duration::from_secs(5), copy).await.unwrap().unwrap();
    assert_says_move(&ended.unwrap_err());
    let target = connect(&pair.target_url).await;
    let sql = "SELECT k FROM unnest($1::bigint[]) k WHERE NOT EXISTS (SELECT FROM ticket WHERE id = k)";
    let lost = target.query(sql, &[&accepted]).await.unwrap();
    assert!(lost.is_empty(), "{} of {} are missing", lost.len(), accepted.len());
    let others = "SELECT count(*) FROM ticket WHERE id >= 1000000 AND NOT (id = ANY ($1::bigint[]))";
    assert_eq!(target.query_one(others, &[&accepted]).await.unwrap().get::<_, i64>(0), 0);

    // On the way back a session that has slept since before the fence was closed meets it when it is open again.
    let sleeper = asleep(&pair, "REPEATABLE READ").await;
    let (status, report) = switch(&pair, &["rollback", "--yes"]);
    assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}\n{}", daemon.log());
    sleeper.batch_execute("EXECUTE w; COMMIT").await.unwrap();
    pair.ends_equal(daemon).await;
}
