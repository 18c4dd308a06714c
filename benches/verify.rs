//! `cdc verify` beside what one would do by hand: the sums of every table's hashes, on both sides at once.
//!
//! A daemon has copied the tables, and streams on; then both ways take turns. Only rows are compared: with
//! `--table`, keys, sequences and the schema are left out.

use std::process::Stdio;
use std::time::Instant;

use tokio_postgres::Client;

use crate::support::process::{Daemon, cdc, copied, peak_mib};
use crate::support::report::{Report, Table, number};
use crate::support::{
    EVENTS, NEW_EVENTS, Servers, connect, drop_database, fresh_database, median, say, scaled, turns,
};

/// In a table with a number for its key; half as many are in one with a text.
const ROWS: i64 = 1_000_000;

const NAMES: &str = "CREATE TABLE names (name text PRIMARY KEY, email text, note text, at timestamptz)";

const TABLES: [&str; 2] = ["public.events", "public.names"];

/// The database, and the migration.
const NAME: &str = "verify";

pub async fn run(servers: &Servers, report: &mut Report) {
    let rows = scaled(ROWS);
    let urls = (servers.source.url(NAME), servers.target.url(NAME));
    let source = fresh_database(&servers.source, NAME).await;
    let target = fresh_database(&servers.target, NAME).await;
    let fill = format!(
        "{EVENTS}; {NEW_EVENTS}; {NAMES};
         INSERT INTO events SELECT * FROM new_events(1, {rows});
         INSERT INTO names SELECT md5(i::text), 'user' || i || '@example.com', repeat('y', i % 60), now()
           FROM generate_series(1, {rows} / 2) i"
    );
    source.batch_execute(&fill).await.unwrap();
    let daemon = Daemon::start(NAME, &urls.0, &urls.1);
    copied(&target).await;
    for client in [&source, &target] {
        client.batch_execute("VACUUM ANALYZE").await.unwrap();
        client.batch_execute("CHECKPOINT").await.unwrap();
    }
    let (mut hands, mut verifies, mut peak) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..turns() {
        hands.push(by_hand(&urls).await);
        let (seconds, used) = with_cdc(&urls);
        say(format_args!("verify: {seconds:.2} s, by hand {:.2} s", hands[hands.len() - 1]));
        verifies.push(seconds);
        peak = f64::max(peak, used);
    }
    daemon.stop();
    source.batch_execute(&format!("SELECT pg_drop_replication_slot('cdc_{NAME}')")).await.unwrap();
    for server in [&servers.source, &servers.target] {
        drop_database(server, NAME).await;
    }
    add(report, rows + rows / 2, median(hands), median(verifies), peak);
}

fn add(report: &mut Report, rows: i64, hand: f64, verify: f64, peak_mib: f64) {
    let mut table = Table::new(&["", "seconds", "rows a second", "times as long", "memory"]);
    for (what, seconds, memory) in [
        ("sums by hand", hand, String::new()),
        ("cdc verify, which names what differs", verify, number(peak_mib)),
    ] {
        let rate = number(rows as f64 / seconds);
        table.row(vec![
            what.to_owned(),
            format!("{seconds:.2}"),
            rate,
            format!("{:.2}", seconds / hand),
            memory,
        ]);
    }
    let what = format!("{} rows in two tables, while a daemon streams.", number(rows as f64));
    report.section("Proof", &what, &table);
}

/// Each table's rows and the sum of their hashes, one table after the other.
async fn sums(client: &Client) -> Vec<(i64, Option<i64>)> {
    let mut sums = Vec::new();
    for table in TABLES {
        let sql = format!("SELECT count(*), sum(hashtext(t::text)) FROM {table} AS t");
        let row = client.query_one(&sql, &[]).await.unwrap();
        sums.push((row.get(0), row.get(1)));
    }
    sums
}

/// With sessions of its own each time, as a person and `cdc` have them.
async fn by_hand((source_url, target_url): &(String, String)) -> f64 {
    let (source, target) = (connect(source_url).await, connect(target_url).await);
    let began = Instant::now();
    let (source, target) = tokio::join!(sums(&source), sums(&target));
    assert_eq!(source, target);
    began.elapsed().as_secs_f64()
}

/// How many seconds it took, and the most memory that it had.
fn with_cdc((source_url, target_url): &(String, String)) -> (f64, f64) {
    let began = Instant::now();
    let mut command = cdc(NAME, source_url, target_url);
    command.arg("verify").args(TABLES.iter().flat_map(|table| ["--table", table])).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let pid = child.id().try_into().unwrap();
    let mut peak = 0.0;
    loop {
        peak = f64::max(peak, peak_mib(pid).unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "cdc verify: {status}");
            return (began.elapsed().as_secs_f64(), peak);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
