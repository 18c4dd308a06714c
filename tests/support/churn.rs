//! Writers that never rest, and a table with everything in it for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::NoTls;

use super::pair::{Pair, connect};

/// How many connections write. Each has keys of its own, so that they never wait for each other.
const WRITERS: i64 = 4;

/// The table. `body` is never compressed: beyond 2 kB it is in the TOAST table.
pub const TABLE: &str = "
    CREATE TABLE big (id bigint PRIMARY KEY, token uuid NOT NULL, name text, doc jsonb, at timestamptz,
                      amount numeric(12, 2), body text);
    ALTER TABLE big ALTER body SET STORAGE EXTERNAL";

/// Fills it with this many rows; the keys are even numbers, so that there is room between them. One row in
/// ten has a value in the TOAST table.
pub fn fill(rows: i64) -> String {
    format!(
        "INSERT INTO big
         SELECT 2 * i, md5(i::text)::uuid, 'name ' || i,
                jsonb_build_object('n', i, 'tags', jsonb_build_array('a', i % 7, NULL)),
                '2026-01-01'::timestamptz + i * interval '1 second', i / 3.0,
                CASE WHEN i % 10 = 0 THEN repeat(md5(i::text), 70 + (i % 30)::int) ELSE md5((i * 7)::text) END
           FROM generate_series(1, {rows}) i;
         ANALYZE big"
    )
}

/// Connections that change the table until they are told to stop.
pub struct Churn {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
    began: Instant,
    writers: JoinSet<()>,
}

impl Churn {
    /// Starts to write: about this many rows a second, of keys up to twice `rows`.
    pub fn start(url: &str, rows: i64, changes_per_second: u64) -> Self {
        let (stop, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let began = Instant::now();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (url, stop, changes) = (url.to_owned(), Arc::clone(&stop), Arc::clone(&changes));
            writers.spawn(async move {
                let mut rng = Rng::with_seed(writer.unsigned_abs());
                while !stop.load(Relaxed) {
                    let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    tokio::spawn(connection);
                    while !stop.load(Relaxed) && !client.is_closed() {
                        // A key that is taken refuses the transaction, as it would the application's.
                        let done = match client.simple_query(&transaction(&mut rng, rows, writer)).await {
                            Ok(answers) => affected(&answers),
                            Err(_) => u64::from(client.batch_execute("ROLLBACK").await.is_err()),
                        };
                        let all = changes.fetch_add(done, Relaxed) + done;
                        let due = began + Duration::from_millis(1000 * all / changes_per_second);
                        tokio::time::sleep_until(due.into()).await;
                    }
                }
            });
        }
        Self { stop, changes, began, writers }
    }

    /// Lets every connection end its transaction; gives the changes, and how many those were a second.
    pub async fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, Relaxed);
        while let Some(writer) = self.writers.join_next().await {
            writer.expect("a writer doesn't panic");
        }
        let changes = self.changes.load(Relaxed);
        (changes, changes * 1000 / u64::try_from(self.began.elapsed().as_millis()).expect("not so long"))
    }
}

fn affected(answers: &[tokio_postgres::SimpleQueryMessage]) -> u64 {
    let rows = |answer: &_| match answer {
        tokio_postgres::SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    };
    answers.iter().map(rows).sum()
}

/// One transaction: new rows, changed ones, deleted ones, and keys that change from anywhere to
/// anywhere while the large value stays as it is.
fn transaction(rng: &mut Rng, rows: i64, writer: i64) -> String {
    let mut key = || rng.i64(0..=2 * rows / WRITERS) * WRITERS + writer;
    let (a, b, c, d, e, f) = (key(), key(), key(), key(), key(), key());
    let near = |key: i64| (0..4).map(|i| (key + i * WRITERS).to_string()).collect::<Vec<_>>().join(", ");
    let parking = -1 - writer;
    let text = rng.u64(..);
    let first = format!(
        "UPDATE big SET name = 'changed {text}', at = now() WHERE id IN ({});
         UPDATE big SET doc = doc || '{{\"changed\": {text}}}', amount = amount + 0.01 WHERE id IN ({});
         INSERT INTO big VALUES ({c}, gen_random_uuid(), 'new', '[null, \"\\u00e9\"]', now(), NULL, repeat('{text}', {}))
             ON CONFLICT DO NOTHING;
         DELETE FROM big WHERE id = {d};",
        near(a),
        near(b),
        if rng.u8(..) < 64 { 200 } else { 1 },
    );
    let second = match rng.u8(0..12) {
        // A row moves far away and keeps its large value.
        0 => {
            format!("UPDATE big SET id = {f} WHERE id = {e} AND NOT EXISTS (SELECT FROM big WHERE id = {f})")
        }
        // Two rows change places.
        1 => format!(
            "UPDATE big SET id = {parking} WHERE id = {e}; UPDATE big SET id = {e} WHERE id = {f};
             UPDATE big SET id = {f} WHERE id = {parking}"
        ),
        2..6 => format!("UPDATE big SET body = repeat('{text}', 150) WHERE id IN ({})", near(e)),
        // What a savepoint takes back has never been.
        _ => format!("SAVEPOINT s; DELETE FROM big WHERE id IN ({}); ROLLBACK TO s", near(e)),
    };
    format!("BEGIN; {first} {second}; COMMIT")
}

/// Runs this statement again and again, `$` being a number that grows, until it is told to stop.
pub fn again_and_again(
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
