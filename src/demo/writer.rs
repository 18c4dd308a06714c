//! A live application: several connections that keep changing an example database.
//!
//! ```text
//!   Writer ─┬─ worker ── pace ─► deeds or bank ─► Session ─► source
//!           ├─ worker ...                          counts what was committed
//!           └─ ...
//! ```
//!
//! It outlives restarts and lost connections, and what a transaction met there decides nothing
//! later: it keeps no state but its random numbers. A transaction whose COMMIT got no answer isn't
//! counted, whether it happened or not.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Statement};

use super::data::Example;
use super::deeds::{Blank, Form, Value};
use super::{bank, deeds};

/// How many connections write at the same time, if nothing else is said.
const CONNECTIONS: u32 = 4;

/// How far behind its pace a worker may fall and still make up for it.
const CATCH_UP: Duration = Duration::from_secs(1);

/// How long to wait before connecting again.
const RECONNECT: Duration = Duration::from_millis(50);

/// One transaction in this many empties a table.
const TRUNCATE_ONE_IN: u32 = 2_000;

/// What a writer has done: everything that it knows to be committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Transactions, those that changed no row included.
    pub transactions: u64,
    /// Rows inserted.
    pub inserts: u64,
    /// Rows inserted or updated by INSERT ... ON CONFLICT DO UPDATE.
    pub upserts: u64,
    /// Rows updated, without those that a foreign key's cascade updated.
    pub updates: u64,
    /// Rows deleted, without those that a foreign key's cascade deleted.
    pub deletes: u64,
    /// Tables emptied by TRUNCATE.
    pub truncates: u64,
    /// Transactions that were rolled back on purpose.
    pub rollbacks: u64,
    /// Transactions that were refused, by SQLSTATE: two of them met, or writing is forbidden.
    /// Under `none` are those that this client refused to send.
    pub refused: BTreeMap<String, u64>,
    /// Connections that were lost.
    pub lost_connections: u64,
}

impl Written {
    /// Rows changed.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserts + self.upserts + self.updates + self.deletes
    }

    /// Counts the rows that a statement changed.
    fn count(&mut self, statement: &str, rows: u64) {
        match statement.split_whitespace().next() {
            Some("INSERT") if statement.contains("DO UPDATE") => self.upserts += rows,
            Some("INSERT") => self.inserts += rows,
            Some("UPDATE") => self.updates += rows,
            Some("DELETE") => self.deletes += rows,
            Some("TRUNCATE") => self.truncates += 1,
            _ => {}
        }
    }
}

impl AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.transactions += other.transactions;
        self.inserts += other.inserts;
        self.upserts += other.upserts;
        self.updates += other.updates;
        self.deletes += other.deletes;
        self.truncates += other.truncates;
        self.rollbacks += other.rollbacks;
        self.lost_connections += other.lost_connections;
        for (state, times) in other.refused {
            *self.refused.entry(state).or_default() += times;
        }
    }
}

/// Connections that write until they are told to stop. Dropping it ends them at once.
#[derive(Debug)]
pub struct Writer {
    stop: watch::Sender<bool>,
    workers: JoinSet<Written>,
}

impl Writer {
    /// Starts to write with four connections, all together `changes_per_second` rows.
    ///
    /// The same seed gives the same statements; what they find depends on how they meet.
    #[must_use]
    pub fn start(url: &str, example: Example, changes_per_second: u32, seed: u64) -> Self {
        Self::with_connections(url, example, changes_per_second, seed, CONNECTIONS)
    }

    /// Starts to write with so many connections.
    #[must_use]
    pub fn with_connections(
        url: &str,
        example: Example,
        changes_per_second: u32,
        seed: u64,
        connections: u32,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        let mut seeds = Rng::with_seed(seed);
        for _ in 0..connections {
            let worker = Worker {
                url: url.to_owned(),
                example,
                rng: seeds.fork(),
                pace: Pace::new(f64::from(changes_per_second) / f64::from(connections)),
                stopped: stopped.clone(),
                written: Written::default(),
            };
            workers.spawn(worker.run());
        }
        Self { stop, workers }
    }

    /// Lets every connection finish its transaction, and tells what was written.
    pub async fn stop(mut self) -> Written {
        self.stop.send_replace(true);
        let mut written = Written::default();
        while let Some(worker) = self.workers.join_next().await {
            written += worker.expect("a worker of the writer neither panics nor is cancelled");
        }
        written
    }
}

/// When the next change is due: a fixed rate that is made up for after a short delay, so that it
/// doesn't drift, and forgotten after a long one, so that no flood follows an outage.
struct Pace {
    second_per_change: f64,
    due: Instant,
}

impl Pace {
    fn new(changes_per_second: f64) -> Self {
        Self { second_per_change: 1.0 / changes_per_second.max(0.001), due: Instant::now() }
    }

    /// Takes note of changes done by now; a transaction counts as one at least.
    fn spend(&mut self, changes: u64, now: Instant) {
        let changes = u32::try_from(changes.max(1)).unwrap_or(u32::MAX);
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(self.due);
        let cost = Duration::from_secs_f64(self.second_per_change * f64::from(changes));
        self.due = self.due.max(earliest) + cost;
    }
}

struct Worker {
    url: String,
    example: Example,
    rng: Rng,
    pace: Pace,
    stopped: watch::Receiver<bool>,
    written: Written,
}

impl Worker {
    async fn run(mut self) -> Written {
        let mut stopped = self.stopped.clone();
        while !*self.stopped.borrow() {
            // Nothing is in progress while connecting: that may be cut short.
            let connected = tokio::select! {
                connected = tokio_postgres::connect(&self.url, NoTls) => connected,
                _ = stopped.wait_for(|stop| *stop) => break,
            };
            if let Ok((client, connection)) = connected {
                // What goes wrong with the connection also fails the statement in progress.
                tokio::spawn(connection);
                self.write(&mut Session::new(client)).await;
            }
            sleep(RECONNECT).await;
        }
        self.written
    }

    /// Writes until the connection is lost or the writer is stopped.
    async fn write(&mut self, session: &mut Session) {
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                () = sleep_until(self.pace.due) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            session.pending = Written::default();
            let outcome = self.transaction(session).await;
            let done = std::mem::take(&mut session.pending);
            self.pace.spend(done.rows(), Instant::now());
            match outcome {
                Ok(()) => self.written += done,
                Err(error) => {
                    if error.is_closed() || session.client.is_closed() {
                        self.written.lost_connections += 1;
                        return;
                    }
                    let state = error.code().map_or("none", |state| state.code());
                    *self.written.refused.entry(state.to_owned()).or_default() += 1;
                    if session.client.batch_execute("ROLLBACK").await.is_err() {
                        self.written.lost_connections += 1;
                        return;
                    }
                }
            }
        }
    }

    async fn transaction(&mut self, session: &mut Session) -> Result<(), tokio_postgres::Error> {
        if self.rng.u32(0..TRUNCATE_ONE_IN) == 0 {
            session.run(deeds::truncate(self.example), &[]).await?;
            session.pending.transactions += 1;
            return Ok(());
        }
        match self.example {
            Example::Bank => bank::transaction(session, &mut self.rng).await,
            Example::Salon | Example::Shop | Example::Agent => {
                ordinary_transaction(session, self.example, &mut self.rng).await
            }
        }
    }
}

/// A transaction of deeds, in one of the shapes that transactions have.
async fn ordinary_transaction(
    session: &mut Session,
    example: Example,
    rng: &mut Rng,
) -> Result<(), tokio_postgres::Error> {
    let shape = rng.u32(0..100);
    if shape < 60 {
        session.deed(deeds::any(example, rng), rng).await?;
        session.pending.transactions += 1;
        return Ok(());
    }
    session.begin().await?;
    for _ in 0..rng.u32(2..=8) {
        session.deed(deeds::any(example, rng), rng).await?;
        if shape < 70 {
            let keep = rng.bool();
            let savepoint = session.savepoint().await?;
            session.deed(deeds::any(example, rng), rng).await?;
            if keep {
                session.release().await?;
            } else {
                session.rollback_to(savepoint).await?;
            }
        }
    }
    if shape < 95 { session.commit().await } else { session.rollback().await }
}

/// A connection with its prepared statements and the account of the transaction in progress.
pub(super) struct Session {
    client: Client,
    prepared: HashMap<&'static str, (Statement, Vec<Blank>)>,
    pending: Written,
}

impl Session {
    pub(super) fn new(client: Client) -> Self {
        Self { client, prepared: HashMap::new(), pending: Written::default() }
    }

    /// Does a deed: fills in the blanks of its statement, runs it and counts the rows it changed.
    pub(super) async fn deed(
        &mut self,
        template: &'static str,
        rng: &mut Rng,
    ) -> Result<u64, tokio_postgres::Error> {
        if !self.prepared.contains_key(template) {
            let form = Form::new(template);
            let types: Vec<Type> = form.blanks.iter().map(|blank| blank.kind()).collect();
            let statement = self.client.prepare_typed(&form.sql, &types).await?;
            self.prepared.insert(template, (statement, form.blanks));
        }
        let (statement, blanks) = &self.prepared[template];
        let values: Vec<Value> = blanks.iter().map(|blank| blank.value(rng)).collect();
        let rows = self.client.execute_raw(statement, values).await?;
        self.pending.count(template, rows);
        Ok(rows)
    }

    /// Runs a statement with these parameters and counts the rows it changed.
    pub(super) async fn run(
        &mut self,
        statement: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, tokio_postgres::Error> {
        let prepared = self.prepare(statement).await?;
        let rows = self.client.execute(&prepared, parameters).await?;
        self.pending.count(statement, rows);
        Ok(rows)
    }

    /// Runs a query for numbers.
    pub(super) async fn numbers(
        &mut self,
        query: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<i64>, tokio_postgres::Error> {
        let prepared = self.prepare(query).await?;
        let rows = self.client.query(&prepared, parameters).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    async fn prepare(&mut self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        if let Some((statement, _)) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.insert(sql, (statement.clone(), Vec::new()));
        Ok(statement)
    }

    pub(super) async fn begin(&mut self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("BEGIN").await
    }

    pub(super) async fn commit(&mut self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("COMMIT").await?;
        self.pending.transactions += 1;
        Ok(())
    }

    pub(super) async fn rollback(&mut self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("ROLLBACK").await?;
        self.pending = Written { rollbacks: 1, ..Written::default() };
        Ok(())
    }

    /// Begins a subtransaction and gives what [`Session::rollback_to`] needs to forget it.
    pub(super) async fn savepoint(&mut self) -> Result<Written, tokio_postgres::Error> {
        self.client.batch_execute("SAVEPOINT s").await?;
        Ok(self.pending.clone())
    }

    pub(super) async fn release(&mut self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("RELEASE SAVEPOINT s").await
    }

    pub(super) async fn rollback_to(&mut self, before: Written) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s").await?;
        self.pending = before;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_makes_up_for_a_short_delay_and_forgets_a_long_one() {
        let mut pace = Pace::new(100.0);
        let start = pace.due;
        let after = |seconds| start + Duration::from_secs_f64(seconds);
        pace.spend(50, start);
        assert_eq!(pace.due, after(0.5));
        pace.spend(50, after(0.9));
        assert_eq!(pace.due, after(1.0), "the delay is made up for");
        pace.spend(50, after(100.0));
        assert_eq!(pace.due, after(99.5), "no flood after an outage");
        pace.spend(0, after(100.0));
        assert_eq!(pace.due, after(99.51), "a transaction without changes isn't free");
    }
}
