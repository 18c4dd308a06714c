//! A table that is written to all the time, a schema that changes, and what has to be the same at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::support::churn::again_and_again;
use crate::support::pair::{Daemon, Pair, number};

/// A pair, with writers beside.
pub(crate) struct Scene {
    pub pair: Pair,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<u64>>,
}

/// What is done to a row of such a table all the time, whatever else it has.
const WRITE: &str =
    "INSERT INTO t (id, v) VALUES (1000000 + $, 'w$'); UPDATE t SET v = 'u$' WHERE id = 1 + $ % 1000;
                     DELETE FROM t WHERE id = 1000000 + $ / 2 * 2 - 100";

impl Scene {
    /// A table of a thousand rows, which is on both sides.
    pub(crate) async fn new(name: &str, config: &str) -> Self {
        let mut pair = Pair::new(name).await;
        pair.config = config.to_owned();
        pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
        pair.write("INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i").await;
        Self { pair, stop: Arc::default(), writers: Vec::new() }
    }

    /// Begins to write.
    pub(crate) fn write(&mut self) {
        let pause = Duration::from_millis(10);
        self.writers.push(again_and_again(&self.pair, pause, WRITE, &self.stop));
    }

    /// Nobody writes any more; what has been written is on the target, and every row is the same.
    pub(crate) async fn ends_equal(self, daemon: Daemon) -> Pair {
        self.stop.store(true, Relaxed);
        for writer in self.writers {
            assert!(writer.await.expect("a writer doesn't panic") > 0);
        }
        self.pair.caught_up().await;
        is_quiet(&self.pair).await;
        self.pair.assert_equal().await;
        assert!(daemon.terminate().await.success());
        self.pair
    }
}

/// Nothing is left to be copied, made or looked at by a person.
pub(crate) async fn is_quiet(pair: &Pair) {
    let sql = "SELECT NOT EXISTS (SELECT FROM cdc.incident WHERE resolved_at IS NULL)
                  AND NOT EXISTS (SELECT FROM cdc.repair WHERE finished_at IS NULL)
                  AND NOT EXISTS (SELECT FROM cdc.shape WHERE shape::text ~ '\"unfinished\": \"|\"until\"')";
    pair.target_is("quiet", sql, &[]).await;
    pair.caught_up().await;
}

/// No person was needed.
pub(crate) async fn nobody_was_asked(pair: &Pair) {
    let sql = "SELECT count(*) FROM cdc.incident WHERE severity IN ('blocked', 'failing')";
    assert_eq!(number(&pair.target, sql).await, 0, "{:#}", pair.status());
}

/// `cdc schema diff` has nothing to say.
pub(crate) fn assert_same_schema(pair: &Pair) {
    let output = pair.run(&["schema", "diff"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The tables of which everything was copied again.
pub(crate) async fn copied_again(pair: &Pair) -> Vec<String> {
    let sql =
        "SELECT DISTINCT table_name::text FROM cdc.repair JOIN cdc.copy USING (name, relation) ORDER BY 1";
    let rows = pair.target.query(sql, &[]).await.expect("it answers");
    rows.iter().map(|row| row.get(0)).collect()
}
