//! How fast a backlog is applied: `cdc run` beside PostgreSQL's own logical replication.
//!
//! `make bench`; `CDC_BENCH_ROWS` changes in each backlog (300,000), `CDC_BENCH_TURNS` backlogs of each kind (3).
//! Both follow the same source, each into a database of its own. They are stopped while a backlog is written,
//! and take it in turns, one alone at a time; the clock runs from the start of its walsender until the last row
//! is there. The native one commits asynchronously, as is its default; `cdc` durably. At the end every row is
//! compared.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdc::demo::{Cluster, compare::compare};
use tokio_postgres::Client;

use support::{Daemon, EVENTS, FILL_EVENTS, cdc, connect, daemon, fresh_database, peak_kib, rows, until};

/// A kind of backlog.
struct Workload {
    name: &'static str,
    what: &'static str,
    /// `events` has as many rows before as the backlogs of all turns have changes.
    is_filled: bool,
    /// What is there besides.
    prepare: &'static [&'static str],
    /// Does the changes numbered from `FIRST` up to `LAST`.
    write: &'static str,
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "w1",
        what: "inserts, 10 a transaction",
        is_filled: false,
        prepare: &[],
        write: "FOR i IN 0 .. (LAST - FIRST) / 10 LOOP
                    INSERT INTO events SELECT * FROM new_events(FIRST + i * 10, least(FIRST + i * 10 + 9, LAST));
                    COMMIT;
                END LOOP",
    },
    Workload {
        name: "w2",
        what: "inserts, 10 transactions",
        is_filled: false,
        prepare: &[],
        write: "FOR i IN 0 .. 9 LOOP
                    INSERT INTO events SELECT * FROM new_events(FIRST + (LAST + 1 - FIRST) * i / 10,
                                                                FIRST + (LAST + 1 - FIRST) * (i + 1) / 10 - 1);
                    COMMIT;
                END LOOP",
    },
    Workload {
        name: "w3",
        what: "TPC-B-like, 4 changes a transaction",
        is_filled: false,
        prepare: &[
            "CREATE TABLE branches (id int PRIMARY KEY, balance int, filler char(88))",
            "CREATE TABLE tellers (id int PRIMARY KEY, branch int, balance int, filler char(84))",
            "CREATE TABLE accounts (id int PRIMARY KEY, branch int, balance int, filler char(84))",
            "CREATE TABLE history (id bigserial PRIMARY KEY, teller int, branch int, account int, delta int, at timestamp, filler char(22))",
            "INSERT INTO branches SELECT i, 0, '' FROM generate_series(1, 10) i",
            "INSERT INTO tellers SELECT i, i / 10, 0, '' FROM generate_series(1, 100) i",
            "INSERT INTO accounts SELECT i, i / 20000, 0, '' FROM generate_series(1, 200000) i",
        ],
        write: "FOR i IN 1 .. (LAST - FIRST) / 4 LOOP
                    UPDATE accounts SET balance = balance + i WHERE id = 1 + (random() * 199999)::int;
                    UPDATE tellers SET balance = balance + i WHERE id = 1 + i % 100;
                    UPDATE branches SET balance = balance + i WHERE id = 1 + i % 10;
                    INSERT INTO history (teller, branch, account, delta, at) VALUES (1 + i % 100, 1 + i % 10, i, i, clock_timestamp());
                    COMMIT;
                END LOOP",
    },
    Workload {
        name: "w4u",
        what: "updates, one a transaction",
        is_filled: true,
        prepare: &[],
        write: "FOR i IN FIRST .. LAST LOOP
                    UPDATE events SET price = i, title = 'changed ' || i WHERE id = 1 + (i * 7919) % ALL_ROWS;
                    COMMIT;
                END LOOP",
    },
    Workload {
        name: "w4d",
        what: "deletes, 10 a transaction",
        is_filled: true,
        prepare: &[],
        write: "FOR i IN 0 .. (LAST - FIRST) / 10 LOOP
                    DELETE FROM events WHERE id BETWEEN FIRST + i * 10 AND least(FIRST + i * 10 + 9, LAST);
                    COMMIT;
                END LOOP",
    },
];

/// The rows that FILL_EVENTS makes, of these numbers.
const NEW_EVENTS: &str = "CREATE FUNCTION new_events(bigint, bigint) RETURNS SETOF events LANGUAGE sql AS $$
    SELECT i, md5(i::text)::uuid, 'event number ' || i,
           jsonb_build_object('kind', i % 7, 'tags', jsonb_build_array('a', i), 'note', repeat('x', (i % 40)::int)),
           timestamptz '2026-01-01' + i * interval '1 second', round((i % 100000)::numeric / 7, 3)
      FROM generate_series($1, $2) i $$";

/// What one way took for one backlog.
#[derive(Clone, Copy, Default)]
struct Drain {
    seconds: f64,
    /// Seconds of CPU: of the walsender, the backend that applies, and the daemon.
    walsender: f64,
    backend: f64,
    daemon: f64,
    peak_kib: u64,
}

struct Bench<'a> {
    source: &'a Cluster,
    target: &'a Cluster,
    /// The database on the source; on the target there are `{database}_native` and `{database}_cdc`.
    database: &'static str,
    client: Client,
    native: Client,
    cdc: Client,
    /// A session to either server, to look at it.
    on_source: Client,
}

/// The seconds of CPU that a process has used.
fn cpu_seconds(pid: i32) -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() / TICKS_A_SECOND
}

async fn pid(client: &Client, sql: &str) -> i32 {
    client.query_opt(sql, &[]).await.unwrap().map_or(0, |row| row.get(0))
}

impl<'a> Bench<'a> {
    /// Both ways have copied what is there, and are stopped.
    async fn new(source: &'a Cluster, target: &'a Cluster, workload: &Workload, rows: i64) -> Self {
        let database = workload.name;
        let client = fresh_database(source, database).await;
        client.batch_execute(EVENTS).await.unwrap();
        if workload.is_filled {
            client.execute(FILL_EVENTS, &[&rows]).await.unwrap();
        }
        client.batch_execute("CREATE TABLE marker (turn int PRIMARY KEY)").await.unwrap();
        for sql in workload.prepare {
            client.batch_execute(sql).await.unwrap();
        }
        let native = fresh_database(target, &format!("{database}_native")).await;
        let cdc = fresh_database(target, &format!("{database}_cdc")).await;
        for copy in [&native, &cdc] {
            copy.batch_execute(&format!("{EVENTS}; CREATE TABLE marker (turn int PRIMARY KEY)"))
                .await
                .unwrap();
            for sql in workload.prepare.iter().filter(|sql| sql.starts_with("CREATE")) {
                copy.batch_execute(sql).await.unwrap();
            }
        }
        client
            .batch_execute(&format!("{NEW_EVENTS}; CREATE PUBLICATION native FOR ALL TABLES"))
            .await
            .unwrap();
        let subscribe = format!(
            "CREATE SUBSCRIPTION native CONNECTION '{}' PUBLICATION native WITH (slot_name = native_{database})",
            source.url(database)
        );
        native.batch_execute(&subscribe).await.unwrap();
        until(&native, "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel").await;
        native.batch_execute("ALTER SUBSCRIPTION native DISABLE").await.unwrap();
        let on_source = connect(&source.url("postgres")).await;
        let bench = Self { source, target, database, client, native, cdc, on_source };
        let (from, to) = bench.urls();
        bench.stop(daemon(&from, &to, &bench.cdc).await).await;
        bench.nobody_streams().await;
        for client in [&bench.client, &bench.native, &bench.cdc] {
            client.batch_execute("VACUUM ANALYZE").await.unwrap();
        }
        bench
    }

    fn urls(&self) -> (String, String) {
        (self.source.url(self.database), self.target.url(&format!("{}_cdc", self.database)))
    }

    async fn nobody_streams(&self) {
        until(&self.on_source, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'walsender'")
            .await;
    }

    async fn stop(&self, mut daemon: Daemon) {
        let pid = daemon.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(daemon.0.wait().unwrap().success());
    }

    async fn write(&self, workload: &Workload, turn: i64, changes: i64, all: i64) {
        let sql = workload
            .write
            .replace("FIRST", &(turn * changes + 1).to_string())
            .replace("LAST", &((turn + 1) * changes).to_string())
            .replace("ALL_ROWS", &all.to_string());
        self.client.batch_execute("SET synchronous_commit = off").await.unwrap();
        self.client.batch_execute(&format!("DO $do$ BEGIN {sql}; END $do$")).await.unwrap();
        self.client.batch_execute("SET synchronous_commit = on").await.unwrap();
        self.client.batch_execute(&format!("INSERT INTO marker VALUES ({turn}); CHECKPOINT")).await.unwrap();
        self.native.batch_execute("CHECKPOINT").await.unwrap();
    }

    /// Waits until the backlog is there, and gives the time since the walsender began and its CPU.
    async fn drained(&self, target: &Client, turn: i64) -> Drain {
        let walsender =
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender' ORDER BY backend_start";
        let mut began = None;
        let mut sender = 0;
        let marker = format!("SELECT count(*) = 1 FROM marker WHERE turn = {turn}");
        while !target.query_one(&marker, &[]).await.unwrap().get::<_, bool>(0) {
            if began.is_none() {
                sender = pid(&self.on_source, walsender).await;
                began = (sender != 0).then(Instant::now);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let seconds = began.expect("the walsender was seen").elapsed().as_secs_f64();
        Drain { seconds, walsender: cpu_seconds(sender), ..Drain::default() }
    }

    async fn by_native(&self, turn: i64) -> Drain {
        self.native.batch_execute("ALTER SUBSCRIPTION native ENABLE").await.unwrap();
        let mut drain = self.drained(&self.native, turn).await;
        let worker = "SELECT pid FROM pg_stat_subscription WHERE relid IS NULL AND pid IS NOT NULL";
        drain.backend = cpu_seconds(pid(&self.native, worker).await);
        self.native.batch_execute("ALTER SUBSCRIPTION native DISABLE").await.unwrap();
        self.nobody_streams().await;
        drain
    }

    async fn by_cdc(&self, turn: i64) -> Drain {
        let (from, to) = self.urls();
        let daemon = Daemon(cdc(&from, &to).arg("run").stderr(Stdio::null()).spawn().unwrap());
        let mut drain = self.drained(&self.cdc, turn).await;
        let apply = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%apply'";
        drain.backend = cpu_seconds(pid(&self.cdc, apply).await);
        drain.daemon = cpu_seconds(i32::try_from(daemon.0.id()).unwrap());
        drain.peak_kib = peak_kib(&daemon.0).unwrap();
        self.stop(daemon).await;
        self.nobody_streams().await;
        drain
    }

    /// Compares every row and frees the slots.
    async fn end(self) {
        let url = self.source.url(self.database);
        self.cdc.batch_execute("DROP SCHEMA cdc CASCADE").await.unwrap();
        for way in ["native", "cdc"] {
            let comparison =
                compare(&url, &self.target.url(&format!("{}_{way}", self.database))).await.unwrap();
            assert!(comparison.is_equal(), "{way}: {comparison}");
        }
        self.native.batch_execute("DROP SUBSCRIPTION native").await.unwrap();
        self.client.batch_execute("SELECT pg_drop_replication_slot('cdc_bench')").await.unwrap();
    }
}

/// The drain with the median time.
fn median(mut drains: Vec<Drain>) -> Drain {
    drains.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    drains[drains.len() / 2]
}

#[tokio::main]
async fn main() {
    let changes = rows(300_000);
    let turns = std::env::var("CDC_BENCH_TURNS").map_or(3, |turns| turns.parse().unwrap());
    let only = std::env::var("CDC_BENCH_ONLY").ok();
    let start = |name| async move {
        Cluster::builder(name)
            .setting("max_wal_size", "8GB")
            .setting("shared_buffers", "512MB")
            .start()
            .await
            .unwrap()
    };
    let (source, target) = (start("source").await, start("target").await);
    println!(
        "backlogs of {changes} changes; both servers, client and daemon on this machine; median of {turns} turns"
    );
    println!(
        "{:<40} {:>9} {:>9} {:>6}   CPU s: walsender, backend, daemon; peak",
        "", "native/s", "cdc/s", "ratio"
    );
    for workload in WORKLOADS.iter().filter(|w| only.as_ref().is_none_or(|only| only == w.name)) {
        let all = changes * turns;
        let bench = Bench::new(&source, &target, workload, all).await;
        let (mut native, mut cdc) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            bench.write(workload, turn, changes, all).await;
            native.push(bench.by_native(turn).await);
            cdc.push(bench.by_cdc(turn).await);
        }
        bench.end().await;
        let (native, cdc) = (median(native), median(cdc));
        let rate = |drain: Drain| changes as f64 / drain.seconds;
        println!(
            "{:<40} {:>9.0} {:>9.0} {:>6.2}   native {:.2} {:.2}; cdc {:.2} {:.2} {:.2}; {} kB",
            format!("{} {}", workload.name, workload.what),
            rate(native),
            rate(cdc),
            rate(cdc) / rate(native),
            native.walsender,
            native.backend,
            cdc.walsender,
            cdc.backend,
            cdc.daemon,
            cdc.peak_kib
        );
    }
    println!("every row is the same on both sides, each way");
}
