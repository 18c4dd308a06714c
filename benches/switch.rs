//! `cdc cutover` and `cdc rollback` in turn, while clients write through a `PgBouncer`: for how long nothing could be
//! written, and how long the slowest transaction took. None may fail, and none may be lost.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::pooler::Pooler;
use crate::support::process::{Daemon, cdc_with, copied};
use crate::support::report::{Report, Table};
use crate::support::{Servers, connect, drop_database, fresh_database, median, say, value};

/// The database, and the migration.
const NAME: &str = "switch";

/// How often.
const RUNS: usize = 20;

const CLIENTS: i64 = 8;

const SCHEMA: &str = "
    CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
    CREATE TABLE history (id bigserial PRIMARY KEY, account int NOT NULL REFERENCES account, at timestamptz DEFAULT now());
    INSERT INTO account SELECT i, 0 FROM generate_series(0, 99999) i";

/// What a client was told: how many transactions, and how long each slow one took, with its end.
type Written = (i64, Vec<(Instant, Duration)>);

async fn write(url: String, client: i64, stop: Arc<AtomicBool>) -> Written {
    let connection = connect(&url).await;
    let (mut transactions, mut slow, mut rng) =
        (0, Vec::new(), fastrand::Rng::with_seed(client.unsigned_abs()));
    while !stop.load(Relaxed) {
        let account = rng.i64(0..100_000 / CLIENTS) * CLIENTS + client;
        let sql = format!(
            "BEGIN; UPDATE account SET balance = balance + 1 WHERE id = {account};
             INSERT INTO history (account) VALUES ({account}); COMMIT"
        );
        let began = Instant::now();
        connection.batch_execute(&sql).await.expect("no transaction fails");
        transactions += 1;
        if began.elapsed() > Duration::from_millis(20) {
            slow.push((Instant::now(), began.elapsed()));
        }
    }
    (transactions, slow)
}

pub async fn run(servers: &Servers, report: &mut Report) {
    let (source_url, target_url) = (servers.source.url(NAME), servers.target.url(NAME));
    let source = fresh_database(&servers.source, NAME).await;
    let target = fresh_database(&servers.target, NAME).await;
    source.batch_execute(SCHEMA).await.unwrap();
    let pooler = Pooler::start(servers.source.port(), "transaction").await;
    let (old, new) = (servers.source.port(), servers.target.port());
    let port = format!("$([ $CDC_NEW_SIDE = target ] && echo {new} || echo {old})");
    let config = format!(
        "[cutover]\npgbouncer = {:?}\npgbouncer_databases = [{NAME:?}]\nswitch = '''{}'''\n",
        pooler.url("pgbouncer"),
        pooler.switch_to(&port)
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    let daemon = Daemon::start(NAME, &source_url, &target_url);
    copied(&target).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(write(pooler.url(NAME), client, Arc::clone(&stop)));
    }
    let (mut pauses, mut spans) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let way = if run % 2 == 0 { "cutover" } else { "rollback" };
        let began = Instant::now();
        let mut command = cdc_with(file.path(), NAME, &source_url, &target_url);
        let command = command.args([way, "--yes", "--json"]).stderr(Stdio::null());
        let output = command.output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{said:#}");
        let pause = said["pause_ms"].as_f64().unwrap();
        say(format_args!("{way}: writes rested {pause} ms"));
        pauses.push(pause);
        spans.push((began, Instant::now()));
    }
    stop.store(true, Relaxed);
    let (mut transactions, mut slow) = (0, Vec::new());
    while let Some(client) = clients.join_next().await {
        let (written, slowest) = client.unwrap();
        transactions += written;
        slow.extend(slowest);
    }
    // The last one was a rollback.
    assert_eq!(value::<i64>(&source, "SELECT count(*) FROM history").await, transactions);
    assert_eq!(value::<i64>(&source, "SELECT sum(balance)::bigint FROM account").await, transactions);
    let longest = |(began, ended): &(Instant, Instant)| {
        let during = slow.iter().filter(|(at, _)| at >= began && *at <= *ended + Duration::from_secs(1));
        during.map(|(_, took)| took.as_secs_f64() * 1000.0).fold(0.0, f64::max)
    };
    let waits: Vec<f64> = spans.iter().map(longest).collect();
    daemon.stop();
    let drop = cdc_with(file.path(), NAME, &source_url, &target_url)
        .args(["drop", "--yes", "--force"])
        .output()
        .unwrap();
    assert!(drop.status.success(), "{}", String::from_utf8_lossy(&drop.stdout));
    for server in [&servers.source, &servers.target] {
        drop_database(server, NAME).await;
    }
    add(report, pauses, waits, transactions);
}

fn add(report: &mut Report, pauses: Vec<f64>, waits: Vec<f64>, transactions: i64) {
    let mut table = Table::new(&["milliseconds", "median", "most"]);
    for (what, values) in [("nothing could be written", pauses), ("the slowest transaction", waits)] {
        let most = values.iter().copied().fold(0.0, f64::max);
        table.row(vec![what.to_owned(), format!("{:.0}", median(values)), format!("{most:.0}")]);
    }
    let what = format!(
        "{RUNS} switches there and back, while {CLIENTS} clients write through PgBouncer: {transactions} transactions, none \
         failed, none lost."
    );
    report.section("The switch", &what, &table);
}
