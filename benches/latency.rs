//! How long it takes from a commit on the source until the row is seen on the target, when nothing waits.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::support::report::{Report, Table};
use crate::support::way::{Follower, PUBLICATION, Way};
use crate::support::{Servers, connect, drop_database, fresh_database, say, scaled, until};

/// 200 transactions a second, for 20 seconds.
const EVERY: Duration = Duration::from_millis(5);
const TRANSACTIONS: i64 = 4_000;

/// Those at the beginning that don't count.
const FIRST: usize = 100;

const DATABASE: &str = "latency";

pub async fn run(servers: &Servers, report: &mut Report) {
    let source = fresh_database(&servers.source, DATABASE).await;
    let setup = format!(
        "CREATE TABLE ticks (id bigint PRIMARY KEY, note text); CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES"
    );
    source.batch_execute(&setup).await.unwrap();
    let mut table = Table::new(&["", "p50", "p99", "most"]);
    for (follower, what) in [
        (Follower::Native, "native, asynchronous commit (its default)"),
        (Follower::Cdc, "cdc, durable commit"),
    ] {
        source.batch_execute("TRUNCATE ticks").await.unwrap();
        let mut way = Way::new(servers, DATABASE, follower, false).await;
        way.start().await;
        let times = measure(servers, &way).await;
        let at = |percent: usize| format!("{:.2}", times[(times.len() - 1) * percent / 100]);
        say(format_args!("latency, {what}: p50 {}, p99 {}", at(50), at(99)));
        table.row(vec![what.to_owned(), at(50), at(99), at(100)]);
        way.stop().await;
        way.end().await;
    }
    drop_database(&servers.source, DATABASE).await;
    let what = "200 transactions of one row a second; milliseconds from the answer to the COMMIT on the source until a \
                session of the target, which asks all the time, sees the row.";
    report.section("Latency", what, &table);
}

/// Milliseconds, sorted.
async fn measure(servers: &Servers, way: &Way<'_>) -> Vec<f64> {
    let transactions = scaled(TRANSACTIONS).max(1_000);
    let writer = connect(&servers.source.url(DATABASE)).await;
    writer.batch_execute("INSERT INTO ticks VALUES (0, 'it follows')").await.unwrap();
    until(&way.target, "EXISTS (SELECT FROM ticks WHERE id = 0)").await;
    let writing = tokio::spawn(async move {
        let insert = writer.prepare("INSERT INTO ticks VALUES ($1, 'a row')").await.unwrap();
        let mut clock = interval(EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut committed = Vec::new();
        for id in 1..=transactions {
            clock.tick().await;
            writer.execute(&insert, &[&id]).await.unwrap();
            committed.push(Instant::now());
        }
        committed
    });
    let look = way.target.prepare("SELECT max(id) FROM ticks").await.unwrap();
    let transactions = usize::try_from(transactions).unwrap();
    let mut seen = Vec::new();
    while seen.len() < transactions {
        let last: i64 = way.target.query_one(&look, &[]).await.unwrap().get(0);
        seen.resize(usize::try_from(last).unwrap(), Instant::now());
    }
    let committed = writing.await.unwrap();
    // A row can be seen before the answer to its COMMIT has arrived.
    let times =
        seen.into_iter().zip(committed).map(|(seen, committed)| seen.saturating_duration_since(committed));
    let mut times: Vec<f64> = times.skip(FIRST).map(|time| time.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    times
}
