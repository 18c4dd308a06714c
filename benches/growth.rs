//! What a change costs `cdc` when there is more of everything.

use tokio_postgres::Client;

use crate::support::backlog::{Backlog, MARKER};
use crate::support::report::{Report, Table, number};
use crate::support::way::{Drain, Follower, Way};
use crate::support::{EVENTS, NEW_EVENTS, Servers, drop_database, fresh_database, say, scaled, turns};

const DATABASE: &str = "growth";

/// So many tables are replicated, whether they are written to or not.
const TABLES: i64 = 1_000;

/// A backlog of inserts.
struct Case {
    what: &'static str,
    changes: i64,
    in_transaction: i64,
    /// The changes go to so many tables, to one after the other.
    tables: i64,
}

const CASES: [Case; 5] = [
    Case { what: "to compare with", changes: 100_000, in_transaction: 10, tables: 1 },
    Case { what: "10 times the backlog", changes: 1_000_000, in_transaction: 10, tables: 1 },
    Case { what: "transactions of 100,000", changes: 300_000, in_transaction: 100_000, tables: 1 },
    Case { what: "10 tables", changes: 100_000, in_transaction: 10, tables: 10 },
    Case { what: "1,000 tables", changes: 100_000, in_transaction: 10, tables: 1_000 },
];

impl Case {
    fn changes(&self) -> i64 {
        scaled(self.changes).max(self.in_transaction)
    }

    /// What precedes them.
    fn warm_up(&self) -> i64 {
        (self.changes() / 10).max(self.in_transaction)
    }

    /// Inserts so many rows, with numbers from `first` on.
    fn body(&self, first: i64, changes: i64) -> String {
        let Self { in_transaction, tables, .. } = self;
        // A statement inserts a whole transaction, or one row of it.
        let rows = if *tables == 1 { *in_transaction } else { 1 };
        let statements = changes / rows;
        let commit_every = in_transaction / rows;
        format!(
            "FOR i IN 1 .. {statements} LOOP
                EXECUTE format('INSERT INTO t%s SELECT * FROM new_events($1, $2)', 1 + i % {tables})
                    USING {first} + (i - 1) * {rows}, {first} + i * {rows} - 1;
                IF i % {commit_every} = 0 THEN COMMIT; END IF;
             END LOOP"
        )
    }
}

pub async fn run(servers: &Servers, report: &mut Report) {
    let source = fresh_database(&servers.source, DATABASE).await;
    let tables = format!(
        "DO $$ BEGIN
            FOR i IN 1 .. {TABLES} LOOP
                EXECUTE format('CREATE TABLE t%s (LIKE events INCLUDING ALL)', i);
                IF i % 100 = 0 THEN COMMIT; END IF;
            END LOOP;
         END $$"
    );
    // A statement of its own: it commits.
    for sql in [format!("{EVENTS}; {NEW_EVENTS}; {MARKER}"), tables] {
        source.batch_execute(&sql).await.unwrap();
    }
    let native = with_native(servers, &source).await;
    let mut way = Way::new(servers, DATABASE, Follower::Cdc, false).await;
    let mut drains: [Vec<Drain>; CASES.len()] = Default::default();
    let [.., case] = &CASES;
    let (mut number, mut first) = (1, 1 + case.warm_up() + case.changes());
    for _ in 0..turns() {
        for (case, drains) in CASES.iter().zip(&mut drains) {
            let (warm_up, changes) = (case.warm_up(), case.changes());
            let parts = [case.body(first, warm_up), case.body(first + warm_up, changes)];
            let backlog = Backlog::write(&source, number, parts.each_ref().map(String::as_str)).await;
            let drain = way.drain(&backlog).await;
            say(format_args!("growth, {}: {:.2} s of CPU", case.what, drain.cpu.iter().sum::<f64>()));
            drains.push(drain);
            number += 1;
            first += warm_up + changes;
        }
    }
    way.end().await;
    drop(source);
    drop_database(&servers.source, DATABASE).await;
    add(report, drains, native);
}

/// What the last case costs native replication.
async fn with_native(servers: &Servers, source: &Client) -> Drain {
    let mut way = Way::new(servers, DATABASE, Follower::Native, false).await;
    let [.., case] = &CASES;
    let parts = [case.body(1, case.warm_up()), case.body(1 + case.warm_up(), case.changes())];
    let backlog = Backlog::write(source, 0, parts.each_ref().map(String::as_str)).await;
    let drain = way.drain(&backlog).await;
    say(format_args!("growth, {}, native: {:.2} s of CPU", case.what, drain.cpu.iter().sum::<f64>()));
    way.end().await;
    drain
}

fn add(report: &mut Report, drains: [Vec<Drain>; CASES.len()], native: Drain) {
    let mut table = Table::new(&[
        "",
        "changes",
        "in a transaction",
        "changes a second",
        "walsender",
        "backend",
        "daemon",
        "CPU",
        "memory",
    ]);
    let [.., last] = &CASES;
    let drains = CASES.iter().zip(drains).map(|(case, drains)| (case, case.what, Drain::median(drains)));
    for (case, what, drain) in drains.chain([(last, "1,000 tables, native", native)]) {
        let changes = case.changes() as f64;
        let cpu = drain.cpu.map(|seconds| seconds * 100_000.0 / changes);
        let mut row = vec![
            what.to_owned(),
            number(changes),
            number(case.in_transaction as f64),
            number(changes / drain.seconds),
        ];
        row.extend(cpu.iter().chain([&cpu.iter().sum()]).map(|seconds| format!("{seconds:.2}")));
        row.push(number(drain.peak_mib));
        table.row(row);
    }
    let what = format!(
        "Inserts into one or more of {} tables. CPU: seconds for 100,000 changes of the walsender, the backend \
         that applies and the daemon, and of all together.",
        number(TABLES as f64)
    );
    report.section("As the work grows", &what, &table);
}
