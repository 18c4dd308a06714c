//! kill -9 at every step of a repair.

use std::time::{Duration, Instant};

use crate::support::pair::{PATIENCE, Pair, connect, number};
use crate::{ask, repaired};

const RANGE: &str = r#"[{"lower": [1401], "upper": [2001]}]"#;

/// Changes within the range, out of it, into it, and across it, also of rows whose large value isn't told.
const CHANGES: &str = "
    UPDATE t SET v = v || '+' WHERE id % 500 < 100;
    UPDATE t SET id = id + 1001 WHERE id IN (SELECT min(id) FROM t WHERE id % 2 = 0 AND id > 500 UNION
                                             SELECT min(id) FROM t WHERE id % 2 = 0 AND id > 1450);
    UPDATE t SET id = id - 1001 WHERE id IN (SELECT min(id) FROM t WHERE id % 2 = 0 AND id > 2450);
    DELETE FROM t WHERE id = (SELECT min(id) FROM t WHERE id > 1800);
    INSERT INTO t SELECT coalesce(max(id), 1849) + 2, 'new', 'x' FROM t WHERE id % 2 = 1 AND id BETWEEN 1850 AND 1990";

/// What a corrupted range lacks and has otherwise.
const CORRUPTION: &str = "
    DELETE FROM t WHERE id BETWEEN 1500 AND 1600; UPDATE t SET v = 'different' WHERE id = 1700";

/// Waits until a session of the copy waits for a lock.
async fn waits(pair: &Pair, statement: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = $1 AND query LIKE $2
                  AND wait_event_type = 'Lock'";
    let application = format!("cdc_{} copy", pair.name);
    let deadline = Instant::now() + PATIENCE;
    while pair.target.query_one(sql, &[&application, &statement]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < deadline, "it never waited: {statement}\n{:#}", pair.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_killed_anywhere_goes_on_where_it_was() {
    let mut pair = Pair::new("repair_kill").await;
    pair.config = "[copy]\nmax_rate = \"16MB\"\nreaders = 32\n".to_owned();
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL")
        .await;
    pair.write(
        "INSERT INTO t SELECT 2 * i, 'v', repeat(md5(i::text), 80) FROM generate_series(1, 2500) i; ANALYZE",
    )
    .await;
    let mut daemon = pair.streaming().await;
    let chunks = "SELECT count(*) FROM cdc.chunk";
    assert!(number(&pair.target, chunks).await > 5, "too few chunks");
    let pending = "SELECT count(*) FROM cdc.chunk WHERE state = 'pending'";
    let other = connect(&pair.target_url).await;

    // The request is written, and nothing else.
    pair.target.batch_execute(CORRUPTION).await.unwrap();
    daemon.signal("STOP");
    ask(&pair, "t", Some(RANGE), &["id"]).await;
    other.batch_execute("BEGIN; SELECT FROM cdc.repair FOR UPDATE").await.unwrap();
    daemon.signal("CONT");
    waits(&pair, "%UPDATE cdc.repair%").await;
    pair.write(CHANGES).await;
    daemon.kill();
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(number(&pair.target, pending).await, 0);

    // The ledger has it, and the copy can't begin.
    other.batch_execute("BEGIN; SELECT FROM t WHERE id = 1900 FOR UPDATE").await.unwrap();
    daemon = pair.daemon();
    waits(&pair, "%DELETE FROM%").await;
    pair.write(CHANGES).await;
    daemon.kill();
    other.batch_execute("ROLLBACK").await.unwrap();
    assert!(number(&pair.target, pending).await > 0);

    // It is copied, and can't be recorded.
    other.batch_execute("BEGIN; SELECT FROM cdc.chunk WHERE state = 'pending' FOR UPDATE").await.unwrap();
    daemon = pair.daemon();
    waits(&pair, "%UPDATE cdc.chunk%").await;
    pair.write(CHANGES).await;
    daemon.kill();
    other.batch_execute("ROLLBACK").await.unwrap();
    assert!(number(&pair.target, pending).await > 0);

    // It is recorded, and the stream has not come to where it was read.
    other.batch_execute("BEGIN; SELECT FROM cdc.checkpoint FOR UPDATE").await.unwrap();
    daemon = pair.daemon();
    pair.target_is("copied", "SELECT NOT EXISTS (SELECT FROM cdc.chunk WHERE state = 'pending')", &[]).await;
    pair.write(CHANGES).await;
    daemon.kill();
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(number(&pair.target, "SELECT count(*) FROM cdc.repair WHERE finished_at IS NULL").await, 1);

    daemon = pair.daemon();
    assert_eq!(repaired(&pair).await, [""; 0]);
    pair.write(CHANGES).await;
    pair.ends_equal(daemon).await;
}
