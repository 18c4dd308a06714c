//! `cdc run` follows a real source into a real target.

mod support;

use support::pair::Pair;

#[tokio::test(flavor = "multi_thread")]
async fn inserts_updates_and_deletes_arrive_once() {
    let pair = Pair::new("arrive_once").await;
    pair.both("CREATE TABLE t (id bigint PRIMARY KEY, v text)").await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i").await;
    pair.write("UPDATE t SET v = v || '!' WHERE id % 3 = 0; UPDATE t SET id = -id WHERE id % 5 = 0").await;
    pair.write("DELETE FROM t WHERE id % 7 = 0").await;
    pair.ends_equal(daemon).await;
}
