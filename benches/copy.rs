//! How fast rows are copied that are there before: one large table and four small ones, with nothing but their primary
//! keys, and with secondary indexes that every way has to build.
//!
//! Each way gets a fresh database of the target, one after the other. Native replication takes what it is given:
//! it gets the tables first, and their indexes, two at a time, when the rows are there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use cdc::demo::Cluster;

use crate::support::process::{Daemon, copied, cpu_seconds_of_ended, cpu_seconds_of_server, peak_mib};
use crate::support::report::{Report, Table, number};
use crate::support::same::assert_same;
use crate::support::way::PUBLICATION;
use crate::support::{
    EVENTS, NEW_EVENTS, Servers, connect, drop_database, fresh_database, median, say, scaled, turns, until,
};

/// What is copied.
struct Case {
    what: &'static str,
    /// In the large table.
    rows: i64,
    has_indexes: bool,
}

const CASES: [Case; 2] = [
    Case { what: "primary keys", rows: 5_000_000, has_indexes: false },
    Case { what: "two more indexes", rows: 2_000_000, has_indexes: true },
];

/// In each of the small ones.
const SMALL_ROWS: i64 = 100_000;
const SMALL_TABLES: [&str; 4] = ["small_1", "small_2", "small_3", "small_4"];

const INDEXES: [&str; 2] =
    ["CREATE INDEX events_at ON events (at)", "CREATE INDEX events_title ON events (title, ref)"];

/// The database on the source.
const DATABASE: &str = "copy";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Native,
    Cdc,
    Pgcopydb,
    Dump,
}

const WAYS: [(Who, &str); 4] = [
    (Who::Native, "native"),
    (Who::Cdc, "cdc"),
    (Who::Pgcopydb, "pgcopydb clone"),
    (Who::Dump, "pg_dump to psql"),
];

/// What one way took.
struct Took {
    seconds: f64,
    /// Seconds of CPU: of the source's server, the target's, and the programs in between.
    cpu: [f64; 3],
    /// The daemon's memory at its most.
    peak_mib: f64,
}

pub async fn run(servers: &Servers, report: &mut Report) {
    for case in &CASES {
        run_case(servers, report, case).await;
    }
}

async fn run_case(servers: &Servers, report: &mut Report, case: &Case) {
    let rows = fill(servers, case).await;
    let mut took: BTreeMap<Who, Vec<Took>> = BTreeMap::new();
    for turn in 0..turns() {
        for place in 0..WAYS.len() {
            let (who, what) = WAYS[(turn + place) % WAYS.len()];
            if who == Who::Pgcopydb && Command::new("pgcopydb").arg("--version").output().is_err() {
                continue;
            }
            let one = measure(servers, who, case).await;
            say(format_args!("copy, {}, {what}: {:.2} s, CPU {}", case.what, one.seconds, cpu(&one.cpu)));
            took.entry(who).or_default().push(one);
        }
    }
    drop_database(&servers.source, DATABASE).await;
    add(report, case, rows, &took);
}

/// Gives how many rows there are in all tables.
async fn fill(servers: &Servers, case: &Case) -> i64 {
    let client = fresh_database(&servers.source, DATABASE).await;
    let (rows, small) = (scaled(case.rows), scaled(SMALL_ROWS));
    let mut sql =
        format!("{}; {NEW_EVENTS}; INSERT INTO events SELECT * FROM new_events(1, {rows});", tables());
    for table in SMALL_TABLES {
        sql += &format!("INSERT INTO {table} SELECT * FROM new_events(1, {small});");
    }
    client.batch_execute(&format!("{sql} DROP FUNCTION new_events;")).await.unwrap();
    if case.has_indexes {
        client.batch_execute(&INDEXES.join("; ")).await.unwrap();
    }
    client.batch_execute("VACUUM ANALYZE").await.unwrap();
    rows + small * 4
}

/// The tables without their indexes.
fn tables() -> String {
    let small = SMALL_TABLES.map(|table| format!("CREATE TABLE {table} (LIKE events INCLUDING ALL)"));
    format!("{EVENTS}; {}", small.join("; "))
}

async fn measure(servers: &Servers, who: Who, case: &Case) -> Took {
    let name = format!("copy_{who:?}").to_lowercase();
    let target = fresh_database(&servers.target, &name).await;
    let source = connect(&servers.source.url(DATABASE)).await;
    for client in [&source, &target] {
        client.batch_execute("CHECKPOINT").await.unwrap();
    }
    let cpu = || {
        [
            cpu_seconds_of_server(&servers.source),
            cpu_seconds_of_server(&servers.target),
            cpu_seconds_of_ended(),
        ]
    };
    let (before, began) = (cpu(), Instant::now());
    let (source_url, target_url) = (servers.source.url(DATABASE), servers.target.url(&name));
    let mut peak = 0.0;
    match who {
        Who::Native => with_native(&source_url, &target_url, case).await,
        Who::Cdc => {
            let daemon = Daemon::start("copy", &source_url, &target_url);
            copied(&target).await;
            until(&target, "NOT EXISTS (SELECT FROM cdc.held_back WHERE put_back_at IS NULL)").await;
            peak = peak_mib(daemon.pid()).unwrap();
            daemon.stop();
        }
        Who::Pgcopydb => with_pgcopydb(&servers.source, &source_url, &target_url),
        Who::Dump => dump(&servers.source, &source_url, &target_url, &[]),
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut used = cpu();
    used.iter_mut().zip(before).for_each(|(used, before)| *used -= before);
    clean_up(who, &source_url, &target_url).await;
    assert_same(&source, &target).await;
    drop_database(&servers.target, &name).await;
    Took { seconds, cpu: used, peak_mib: peak }
}

/// Takes away what the way has left behind on the source.
async fn clean_up(who: Who, source_url: &str, target_url: &str) {
    let (source, target) = (connect(source_url).await, connect(target_url).await);
    match who {
        Who::Native => {
            target.batch_execute("DROP SUBSCRIPTION native").await.unwrap();
            source.batch_execute(&format!("DROP PUBLICATION {PUBLICATION}")).await.unwrap();
        }
        Who::Cdc => {
            let free = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'cdc_copy'";
            until(&source, "NOT EXISTS (SELECT FROM pg_replication_slots WHERE active)").await;
            source.batch_execute(&format!("{free}; DROP PUBLICATION cdc_copy")).await.unwrap();
        }
        Who::Pgcopydb | Who::Dump => {}
    }
}

async fn with_native(source_url: &str, target_url: &str, case: &Case) {
    let (source, target) = (connect(source_url).await, connect(target_url).await);
    target.batch_execute(&tables()).await.unwrap();
    source.batch_execute(&format!("CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES")).await.unwrap();
    let subscribe = format!("CREATE SUBSCRIPTION native CONNECTION '{source_url}' PUBLICATION {PUBLICATION}");
    target.batch_execute(&subscribe).await.unwrap();
    until(&target, "(SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel)").await;
    if !case.has_indexes {
        return;
    }
    let other = connect(target_url).await;
    tokio::try_join!(target.batch_execute(INDEXES[0]), other.batch_execute(INDEXES[1])).unwrap();
}

fn with_pgcopydb(server: &Cluster, source_url: &str, target_url: &str) {
    let directory = tempfile::tempdir().unwrap();
    // It runs the programs that it finds first.
    let mut path = OsString::from(server.binaries().program("pg_dump").parent().unwrap());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let output = Command::new("pgcopydb")
        .args(["clone", "--source", source_url, "--target", target_url, "--dir"])
        .arg(directory.path().join("work"))
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `pg_dump`, and `psql` that reads it.
pub fn dump(server: &Cluster, source_url: &str, target_url: &str, arguments: &[&str]) {
    let mut dump = Command::new(server.binaries().program("pg_dump"))
        .args(arguments)
        .arg(source_url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let restored = Command::new(server.binaries().program("psql"))
        .args(["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1"])
        .arg(target_url)
        .stdin(dump.stdout.take().unwrap())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(dump.wait().unwrap().success() && restored.success());
}

fn cpu(seconds: &[f64; 3]) -> String {
    seconds.map(|seconds| format!("{seconds:.1}")).join(" + ")
}

fn add(report: &mut Report, case: &Case, rows: i64, took: &BTreeMap<Who, Vec<Took>>) {
    let seconds = |who| took.get(&who).map(|took| median(took.iter().map(|one| one.seconds).collect()));
    let native = seconds(Who::Native).unwrap();
    let mut table = Table::new(&["", "seconds", "rows a second", "times native", "CPU", "memory"]);
    let mut bars = Vec::new();
    for (who, what) in WAYS {
        let Some(seconds) = seconds(who) else {
            table.row([what, "not installed", "", "", "", ""].map(str::to_owned).to_vec());
            continue;
        };
        let rate = rows as f64 / seconds;
        bars.push((what, rate));
        let each = [0, 1, 2].map(|place| median(took[&who].iter().map(|one| one.cpu[place]).collect()));
        let peak = took[&who].iter().map(|one| one.peak_mib).fold(0.0, f64::max);
        table.row(vec![
            what.to_owned(),
            format!("{seconds:.2}"),
            number(rate),
            format!("{:.2}", native / seconds),
            cpu(&each),
            if peak > 0.0 { number(peak) } else { String::new() },
        ]);
    }
    let what = format!(
        "{} rows: {} in one table, the others in four. CPU: seconds of the source's server + the target's + what runs in \
         between.",
        number(rows as f64),
        number(scaled(case.rows) as f64)
    );
    report.bars(&format!("copy, {}", case.what), &bars);
    report.section(&format!("Copy, {}", case.what), &what, &table);
}
