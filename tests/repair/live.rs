//! What can happen meanwhile, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::support::churn::again_and_again;
use crate::support::pair::{Pair, constraints, number};
use crate::{ask, repaired};

/// Two rows far apart change their codes. On the target one row can be newer than the other for a while.
const SWAP: &str = "
    DO ' DECLARE a int := 1 + ($ * 37) % 1000; b int := 1001 + ($ * 53) % 1000; ca int; cb int;
    BEGIN
      SELECT code INTO ca FROM swaps WHERE id = a; SELECT code INTO cb FROM swaps WHERE id = b;
      UPDATE swaps SET code = NULL WHERE id = a; UPDATE swaps SET code = ca WHERE id = b;
      UPDATE swaps SET code = cb WHERE id = a;
    END '";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_swap_unique_values_and_truncates_don_t_keep_a_repair_from_its_end() {
    let mut pair = Pair::new("repair_swap").await;
    pair.config = "[copy]\nmax_rate = \"16MB\"\nreaders = 32\n".to_owned();
    pair.both(
        "CREATE TABLE swaps (id int PRIMARY KEY, code int UNIQUE, body text);
         ALTER TABLE swaps ALTER body SET STORAGE EXTERNAL;
         CREATE TABLE often (id int PRIMARY KEY, body text); ALTER TABLE often ALTER body SET STORAGE EXTERNAL",
    )
    .await;
    pair.write(
        "INSERT INTO swaps SELECT i, i, repeat(md5(i::text), 60) FROM generate_series(1, 2000) i;
         INSERT INTO often SELECT i, repeat(md5(i::text), 60) FROM generate_series(1, 2000) i; ANALYZE",
    )
    .await;
    let daemon = pair.streaming().await;
    let chunks = "SELECT count(*) FROM cdc.chunk GROUP BY relation ORDER BY 1 LIMIT 1";
    assert!(number(&pair.target, chunks).await > 3, "too few chunks");
    let before = constraints(&pair.target).await;
    let stop = Arc::new(AtomicBool::new(false));
    let swaps = again_and_again(&pair, Duration::from_millis(3), SWAP, &stop);
    let truncate = "BEGIN; TRUNCATE often; INSERT INTO often SELECT i, repeat(md5(i::text), 60)
                    FROM generate_series(1, 1000 + $) i; COMMIT";
    let truncates = again_and_again(&pair, Duration::from_millis(300), truncate, &stop);
    for _ in 0..2 {
        // No row has its code any more.
        let corrupt = "UPDATE swaps SET code = -code WHERE id % 5 = 0; DELETE FROM often WHERE id % 7 = 0";
        while let Err(error) = pair.target.batch_execute(corrupt).await {
            // The stream goes on meanwhile.
            assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{error:?}");
        }
        ask(&pair, "swaps", None, &[]).await;
        ask(&pair, "often", None, &[]).await;
        assert_eq!(repaired(&pair).await, [""; 0]);
    }
    stop.store(true, Relaxed);
    let (swaps, truncates) = (swaps.await.unwrap(), truncates.await.unwrap());
    assert!(swaps > 10 && truncates > 0, "{swaps} swaps, {truncates} truncates");
    pair.caught_up().await;
    let none_is_off = "SELECT NOT EXISTS (SELECT FROM cdc.held_back WHERE put_back_at IS NULL)";
    pair.target_is("with its constraints", none_is_off, &[]).await;
    assert_eq!(constraints(&pair.target).await, before);
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_blocked_by_a_missing_row_goes_on_when_its_table_is_copied_again() {
    let pair = Pair::new("repair_blocked").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE gone (id int PRIMARY KEY)").await;
    pair.both(
        "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000)",
    )
    .await;
    pair.write("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (2000)").await;
    pair.target.batch_execute("CREATE TABLE rest PARTITION OF p DEFAULT").await.unwrap();
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 1000) i; INSERT INTO p SELECT i, 'v' FROM generate_series(1, 1999) i").await;
    let daemon = pair.streaming().await;
    pair.target.batch_execute("DELETE FROM t WHERE id > 500").await.unwrap();
    pair.write("UPDATE t SET v = 'changed' WHERE id % 10 = 0; UPDATE t SET id = -id WHERE id = 700").await;
    let blocked = pair.status_is("blocked", |status| status["daemon"]["state"] == "blocked").await;
    let remedy = blocked["incidents"][0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("cdc repair --table public.t"), "{remedy}");
    let began = Instant::now();
    // Two at once, one of them of a part of the other.
    ask(&pair, "t", Some(r#"[{"lower": [600], "upper": null}]"#), &["id"]).await;
    ask(&pair, "t", None, &[]).await;
    // Neither can be.
    ask(&pair, "p2", None, &[]).await;
    ask(&pair, "gone", None, &[]).await;
    pair.write("DROP TABLE gone").await;
    let refused = repaired(&pair).await;
    assert!(began.elapsed() < Duration::from_secs(28), "it was not woken: {:?}", began.elapsed());
    assert!(refused.len() == 2 && refused[0].contains("the target has no such partition"), "{refused:?}");
    assert!(refused[0].contains("table public.p2") && refused[0].contains("cdc repair --all"), "{refused:?}");
    assert!(refused[1].contains("not in the stream"), "{refused:?}");
    pair.caught_up().await;
    let status = pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
    assert!(status["incidents"][0]["resolved_at"].is_string(), "{status:#}");
    pair.ends_equal(daemon).await;
}
