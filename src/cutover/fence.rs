//! The fence: nothing but replicated rows is written to the tables of a database.
//!
//! On each table there is a statement trigger, switched off until it is needed. Its function is one for all tables, and
//! what that does is the fence's state: it refuses, or notes that somebody writes, or does nothing. To close the fence
//! takes a lock on the tables that every writer's conflicts with, so whoever has written has ended by then, and whoever
//! comes later meets the trigger. To open it takes no lock that anybody could withhold, a vacuum for example: only the
//! function is replaced. Either is one transaction with the row in `cdc.fence`, whose term keeps out whoever has been
//! taken over. Whether a trigger fires and what its function does is not a question of a transaction's snapshot: one
//! that has slept since before the fence meets it as well. What a fence doesn't cover: DDL, large objects, `nextval()`,
//! and tables that are not selected.
//!
//! Everything that undoes it is in the database that is fenced: [`Fence::open`] asks nothing else.

mod in_the_way;
mod tidy;

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::catalog::{TableName, quote_identifier};
use crate::config::Config;
use crate::connect::{PASSES_FENCE, Session};
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::preflight::Wanted;
use crate::schema::locks::begin_ddl;

const MAKE: &str = include_str!("../../sql/cutover/fence.sql");
const TABLES: &str = include_str!("../../sql/cutover/tables.sql");

/// Who may have to make way, and for how long that is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long transactions may go on that have written.
    pub wait: Duration,
    /// Afterwards their sessions are ended.
    pub ends_sessions: bool,
}

/// A fence around the tables of one database.
pub struct Fence<'a> {
    session: &'a Session,
    side: Side,
    name: &'a str,
}

/// How a fence is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// `open`, `closed` or `watched`.
    pub state: String,
    /// The switch that it was made ready for last.
    pub switch: i64,
    /// It was closed before that.
    pub was_closed: bool,
    /// Statements that wrote since the watch began, at least so many.
    pub written: i64,
    /// The default of the database is read-only, which is our doing.
    pub read_only: bool,
}

/// A table, and how its triggers are switched.
struct Table {
    name: TableName,
    trigger: Option<String>,
    lacks: Option<String>,
}

impl Table {
    fn is_on(&self) -> bool {
        self.trigger.as_ref().is_some_and(|state| state == "A")
    }
}

impl<'a> Fence<'a> {
    /// The fence of a migration in the database of this session; nothing is asked yet.
    #[must_use]
    pub fn new(session: &'a Session, side: Side, name: &'a str) -> Self {
        Self { session, side, name }
    }

    fn trigger(&self) -> String {
        format!("cdc_fence_{}", self.name)
    }

    /// What makes the triggers' function, as it is in this state.
    fn function_sql(&self, state: &str) -> String {
        let does = match state {
            "closed" => REFUSES,
            "watched" => "PERFORM pg_catalog.nextval('cdc.written');",
            _ => "",
        };
        // Whoever writes needn't be allowed to use the sequence.
        format!(
            "CREATE OR REPLACE FUNCTION cdc.{}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
             AS $cdc$ BEGIN {does} RETURN NULL; END $cdc$;",
            quote_identifier(&self.trigger())
        )
    }

    fn fault(&self, doing: &str) -> impl Fn(Error) -> Fault {
        let (side, doing) = (self.side, doing.to_owned());
        move |e| Fault::sql(side, &doing, &e)
    }

    /// The tables that are to be fenced: those that are selected, and those that have a trigger already.
    async fn tables(&self, config: &Config) -> Result<Vec<Table>> {
        let wanted = Wanted::on(self.session, config).await?;
        let names: Vec<TableName> = wanted.tables.into_iter().map(|table| table.name).collect();
        self.around(&names).await.map_err(self.fault("looking for the tables to fence"))
    }

    async fn around(&self, names: &[TableName]) -> Result<Vec<Table>, Error> {
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            names.iter().map(|table| (&*table.schema, &*table.name)).unzip();
        let rows = self.session.query(TABLES, &[&schemas, &names, &self.trigger()]).await?;
        let table = |row: &tokio_postgres::Row| Table {
            name: TableName::new(row.get::<_, &str>("schema_name"), row.get::<_, &str>("table_name")),
            trigger: row.get("trigger"),
            lacks: row.get("lacks"),
        };
        Ok(rows.iter().map(table).collect())
    }

    /// How many tables there are to fence.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn count(&self, config: &Config) -> Result<usize> {
        Ok(self.tables(config).await?.len())
    }

    /// The tables whose triggers are there.
    async fn fenced(&self) -> Result<Vec<Table>, Error> {
        let rows = self
            .session
            .query(
                "SELECT DISTINCT n.nspname::text, c.relname::text
                   FROM pg_catalog.pg_trigger t
                   JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE t.tgname = $1",
                &[&self.trigger()],
            )
            .await?;
        let names: Vec<TableName> =
            rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect();
        let mut tables = self.around(&names).await?;
        tables.retain(|table| table.trigger.is_some());
        Ok(tables)
    }

    /// How it is; `None` if there never was one.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn state(&self) -> Result<Option<State>> {
        let fault = self.fault("looking at the fence");
        let exists = "SELECT pg_catalog.to_regclass('cdc.fence') IS NOT NULL";
        if !self.session.query_one(exists, &[]).await.map_err(&fault)?.get::<_, bool>(0) {
            return Ok(None);
        }
        let row = self
            .session
            .query_opt(
                "SELECT state, last_value + is_called::int - written, read_only, switch, was_closed
                   FROM cdc.fence, cdc.written WHERE name = $1",
                &[&self.name],
            )
            .await
            .map_err(&fault)?;
        Ok(row.map(|row| State {
            state: row.get(0),
            written: row.get(1),
            read_only: row.get(2),
            switch: row.get(3),
            was_closed: row.get(4),
        }))
    }

    /// What keeps this role from fencing the tables.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn lacks(&self, config: &Config) -> Result<Vec<(TableName, String)>> {
        let tables = self.tables(config).await?;
        Ok(tables.into_iter().filter_map(|table| table.lacks.map(|lacks| (table.name, lacks))).collect())
    }

    /// Makes the triggers, switched off. Where somebody has written and goes on, that is left to [`Fence::close`], which
    /// has the patience for it.
    ///
    /// # Errors
    /// If the role may not, or a lock isn't to be had.
    pub async fn make(&self, config: &Config, switch: i64, term: i64) -> Result<()> {
        let fault = self.fault("making the fence (schema cdc)");
        let exists = "SELECT pg_catalog.to_regclass('cdc.fence') IS NOT NULL";
        if !self.session.query_one(exists, &[]).await.map_err(&fault)?.get::<_, bool>(0) {
            self.session.batch_execute(&format!("BEGIN; {MAKE} COMMIT")).await.map_err(|e| {
                fault(e).remedy("give the role CREATE on the database: GRANT CREATE ON DATABASE ... TO ...")
            })?;
        }
        let exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc
                       WHERE pronamespace = 'cdc'::pg_catalog.regnamespace AND proname = $1)";
        if !self.session.query_one(exists, &[&self.trigger()]).await.map_err(&fault)?.get::<_, bool>(0) {
            self.session.batch_execute(&self.function_sql("open")).await.map_err(&fault)?;
        }
        let sql = "INSERT INTO cdc.fence AS f (name, term, switch) VALUES ($1, $2, $3)
                   ON CONFLICT (name) DO UPDATE
                      SET term = excluded.term, switch = excluded.switch,
                          was_closed = CASE WHEN f.switch = excluded.switch THEN f.was_closed ELSE f.state = 'closed' END
                    WHERE f.term <= excluded.term";
        self.ours(self.session.execute(sql, &[&self.name, &term, &switch]).await.map_err(&fault)?)?;
        for table in self.tables(config).await? {
            self.make_on(&table).await?;
        }
        Ok(())
    }

    fn ours(&self, rows: u64) -> Result<()> {
        if rows == 1 { Ok(()) } else { Err(super::taken_over().on(self.side)) }
    }

    /// What makes a table's trigger if it is missing.
    fn make_sql(&self, table: &Table) -> String {
        if table.trigger.is_some() {
            return String::new();
        }
        let (name, trigger) = (table.name.to_sql(), quote_identifier(&self.trigger()));
        format!(
            "CREATE TRIGGER {trigger} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT \
             WHEN (NOT ({PASSES_FENCE})) EXECUTE FUNCTION cdc.{trigger}(); {}",
            self.switch(table, "DISABLE")
        )
    }

    fn switch(&self, table: &Table, how: &str) -> String {
        format!(
            "ALTER TABLE ONLY {} {how} TRIGGER {};",
            table.name.to_sql(),
            quote_identifier(&self.trigger())
        )
    }

    async fn make_on(&self, table: &Table) -> Result<()> {
        let make = self.make_sql(table);
        if make.is_empty() {
            return Ok(());
        }
        let fault = |e| self.fault("making the fence")(e).table(table.name.to_string());
        let begin = begin_ddl(&**self.session, &[table.name.to_sql()]).await.map_err(fault)?;
        let deadline = Instant::now() + limits::FENCE_MAKE;
        loop {
            match self.session.batch_execute(&format!("BEGIN; {begin} {make} COMMIT")).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.roll_back().await;
                    if !is_busy(&error) {
                        return Err(fault(error));
                    }
                    if Instant::now() > deadline {
                        tracing::info!(table = %table.name, "somebody is writing: its fence is made when it is closed");
                        return Ok(());
                    }
                    sleep(limits::FENCE_RETRY).await;
                }
            }
        }
    }

    /// If that fails, the session has ended, and the transaction with it.
    async fn roll_back(&self) {
        let _ = self.session.batch_execute("ROLLBACK").await;
    }

    /// Closes it: when this returns nothing can be committed any more that was not before. Gives the moment from
    /// which on nobody could write. `watcher` is another session to the same database.
    ///
    /// # Errors
    /// If somebody stays in the way, with who it is, or the switch was taken over. Nothing is changed then.
    pub async fn close(
        &self,
        config: &Config,
        term: i64,
        patience: Patience,
        watcher: &Session,
    ) -> Result<Instant> {
        let deadline = Instant::now() + patience.wait;
        let mut order: Vec<String> = Vec::new();
        loop {
            let mut in_the_way = Vec::new();
            let closed = tokio::select! {
                closed = self.try_to_close(config, term, &order) => closed,
                never = self.watch(watcher, &mut in_the_way) => match never {},
            };
            match closed? {
                Some(since) => return Ok(since),
                None => self.roll_back().await,
            }
            // The one that was waited for comes first: whoever holds it can end without waiting for us.
            for blocked in &in_the_way {
                order.retain(|table| *table != blocked.table);
                order.insert(0, blocked.table.clone());
            }
            if Instant::now() >= deadline {
                let is_over = Instant::now() >= deadline + limits::FENCE_END;
                if !patience.ends_sessions || is_over {
                    return Err(self.blocked(&in_the_way, patience));
                }
                self.end(watcher, &in_the_way).await?;
            }
            sleep(limits::FENCE_RETRY).await;
        }
    }

    /// Tries it once; `None` if a lock wasn't to be had in a moment.
    async fn try_to_close(&self, config: &Config, term: i64, order: &[String]) -> Result<Option<Instant>> {
        let fault = self.fault("closing the fence");
        let mut tables = self.tables(config).await?;
        tables.sort_by_key(|table| {
            let name = table.name.to_string();
            order.iter().position(|first| *first == name).unwrap_or(usize::MAX)
        });
        if tables.is_empty() {
            return Err(Fault::person("there is no table to fence").on(self.side));
        }
        let names: Vec<String> = tables.iter().map(|table| table.name.to_sql()).collect();
        let begin = begin_ddl(&**self.session, &names).await.map_err(&fault)?;
        let lock = format!(
            "SET LOCAL statement_timeout = {}; LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE; SET LOCAL statement_timeout = 0",
            2 * limits::DDL_LOCK_WAIT_MS,
            names.iter().map(|name| format!("ONLY {name}")).collect::<Vec<_>>().join(", ")
        );
        let make: String = tables.iter().map(|table| self.make_sql(table)).collect();
        let off = tables.iter().filter(|table| !table.is_on());
        let switch: String = off.map(|table| self.switch(table, "ENABLE ALWAYS")).collect();
        let function = self.function_sql("closed");
        let row = format!(
            "UPDATE cdc.fence SET term = $2, state = 'closed', changed_at = pg_catalog.clock_timestamp() {HELD}"
        );
        let attempt = async {
            self.session.batch_execute(&format!("BEGIN; {ABANDONED} {begin}")).await?;
            let rows = self.session.execute(&row, &[&self.name, &term]).await?;
            if rows == 0 {
                return Ok(None);
            }
            let since = Instant::now();
            self.session.batch_execute(&lock).await?;
            self.session.batch_execute(&format!("{make} {switch} {function} COMMIT")).await?;
            Ok(Some(since))
        };
        match attempt.await {
            Ok(Some(since)) => {
                // Somebody may have made a table in between.
                Ok(self.tables(config).await?.iter().all(Table::is_on).then_some(since))
            }
            Ok(None) => {
                self.roll_back().await;
                Err(super::taken_over().on(self.side))
            }
            Err(error) if is_busy(&error) => Ok(None),
            Err(error) => {
                self.roll_back().await;
                Err(fault(error))
            }
        }
    }

    /// True if every table is fenced now, those included that have come meanwhile.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn is_closed(&self, config: &Config) -> Result<bool> {
        let is_closed = self.state().await?.is_some_and(|state| state.state == "closed");
        Ok(is_closed && self.tables(config).await?.iter().all(Table::is_on))
    }

    /// Opens it, whoever has closed it in this term or an earlier one; with `is_watched` it is noted from now on
    /// whether somebody writes. Does nothing if there is no fence. The triggers stay on: see [`Fence::switch_off`].
    ///
    /// # Errors
    /// If the switch was taken over, or the database can't be asked.
    pub async fn open(&self, term: i64, is_watched: bool) -> Result<()> {
        if self.state().await?.is_none() {
            return Ok(());
        }
        let state = if is_watched { "watched" } else { "open" };
        // Opened again by whoever doesn't know whether it was, it has been watched since the first time.
        let row = format!(
            "UPDATE cdc.fence AS f SET term = $2, state = $3, changed_at = pg_catalog.clock_timestamp(),
                    written = CASE WHEN f.state = 'watched' AND $3 = 'watched' THEN f.written
                                   ELSE (SELECT last_value + is_called::int FROM cdc.written) END {HELD}"
        );
        let attempt = async {
            self.session.batch_execute(&format!("BEGIN; {ABANDONED}")).await?;
            let rows = self.session.execute(&row, &[&self.name, &term, &state]).await?;
            let function = if rows == 1 { self.function_sql(state) } else { String::new() };
            self.session.batch_execute(&format!("{function} COMMIT")).await?;
            Ok(rows)
        };
        match attempt.await {
            Ok(rows) => self.ours(rows),
            Err(error) => {
                self.roll_back().await;
                Err(self.fault("opening the fence")(error))
            }
        }
    }

    /// Keeps it closed for this term: whoever holds an earlier one opens it no more. False if it is open.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn keep_closed(&self, term: i64) -> Result<bool> {
        let keep = format!("UPDATE cdc.fence SET term = $2 {HELD} AND state = 'closed'");
        let rows = self.session.execute(&keep, &[&self.name, &term]).await;
        Ok(rows.map_err(self.fault("keeping the fence closed"))? == 1)
    }

    /// Opens the fence of a new side that the applications don't move to after all; if it was closed before, it stays so.
    ///
    /// # Errors
    /// As of [`Fence::open`].
    pub async fn unguard(&self, switch: i64, term: i64) -> Result<()> {
        match self.state().await? {
            Some(state) if state.switch == switch && !state.was_closed => self.open(term, false).await,
            Some(_) | None => Ok(()),
        }
    }
}

/// What refuses a write.
const REFUSES: &str = "RAISE EXCEPTION USING
    errcode = 'read_only_sql_transaction',
    message = pg_catalog.format('%I.%I takes no writes: this database has moved to another server, or is moving now',
                                tg_table_schema, tg_table_name),
    hint = 'Try again in a moment; if that doesn''t help, connect to the new server.';";

/// Of a transaction that may hold locks on all tables: if nothing is heard of whoever has begun it, it is over soon.
const ABANDONED: &str = "SET LOCAL idle_in_transaction_session_timeout = '1s';";

/// Of a fence that nobody of a later term has changed.
const HELD: &str = "WHERE name = $1 AND term <= $2";

/// A lock that wasn't to be had in a moment.
fn is_busy(error: &Error) -> bool {
    matches!(error.code().map(SqlState::code), Some("55P03" | "57014" | "40P01"))
}
