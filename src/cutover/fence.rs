//! The fence: nothing but replicated rows is written to the tables of a database.
//!
//! On each table there are two statement triggers, switched off until they are needed: one that refuses, and one that
//! notes that somebody writes. Switching them takes a lock that every writer's conflicts with, so whoever has written
//! has ended by then, and whoever comes later meets the trigger. One transaction switches all tables and changes the
//! row in `cdc.fence`, whose term keeps out whoever has been taken over. What a fence doesn't cover: DDL, large objects,
//! `nextval()`, and tables that are not selected.
//!
//! Everything that undoes it is in the database that is fenced: [`Fence::open`] asks nothing else.

mod in_the_way;

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
    fence: Option<String>,
    watch: Option<String>,
    lacks: Option<String>,
}

impl Table {
    fn is_on(trigger: Option<&String>) -> bool {
        trigger.is_some_and(|state| state == "A")
    }
}

impl<'a> Fence<'a> {
    /// The fence of a migration in the database of this session; nothing is asked yet.
    #[must_use]
    pub fn new(session: &'a Session, side: Side, name: &'a str) -> Self {
        Self { session, side, name }
    }

    fn trigger(&self, what: &str) -> String {
        format!("cdc_{what}_{}", self.name)
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
        let rows = self
            .session
            .query(TABLES, &[&schemas, &names, &self.trigger("fence"), &self.trigger("watch")])
            .await?;
        let table = |row: &tokio_postgres::Row| Table {
            name: TableName::new(row.get::<_, &str>("schema_name"), row.get::<_, &str>("table_name")),
            fence: row.get("fence"),
            watch: row.get("watch"),
            lacks: row.get("lacks"),
        };
        Ok(rows.iter().map(table).collect())
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
                  WHERE t.tgname IN ($1, $2)",
                &[&self.trigger("fence"), &self.trigger("watch")],
            )
            .await?;
        let names: Vec<TableName> =
            rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect();
        let mut tables = self.around(&names).await?;
        tables.retain(|table| table.fence.is_some() || table.watch.is_some());
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

    /// Makes the triggers, switched off.
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

    /// What makes a table's triggers where they are missing.
    fn make_sql(&self, table: &Table) -> String {
        let name = table.name.to_sql();
        let make = |what: &str, function: &str| {
            let trigger = quote_identifier(&self.trigger(what));
            format!(
                "CREATE TRIGGER {trigger} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT \
                 WHEN (NOT ({PASSES_FENCE})) EXECUTE FUNCTION cdc.{function}(); \
                 ALTER TABLE ONLY {name} DISABLE TRIGGER {trigger};"
            )
        };
        let fence = table.fence.is_none().then(|| make("fence", "refuse_write"));
        let watch = table.watch.is_none().then(|| make("watch", "note_write"));
        [fence, watch].into_iter().flatten().collect()
    }

    async fn make_on(&self, table: &Table) -> Result<()> {
        let make = self.make_sql(table);
        if make.is_empty() {
            return Ok(());
        }
        let fault = |e| self.fault("making the fence")(e).table(table.name.to_string());
        let begin = begin_ddl(&**self.session, &[table.name.to_sql()]).await.map_err(fault)?;
        let deadline = Instant::now() + limits::FENCE_DDL;
        loop {
            match self.session.batch_execute(&format!("BEGIN; {begin} {make} COMMIT")).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.roll_back().await;
                    if !is_busy(&error) || Instant::now() > deadline {
                        return Err(fault(error));
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
                let is_over = Instant::now() >= deadline + limits::FENCE_RETRY * 10;
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
        let switch = self.switch(&tables, "ENABLE ALWAYS", "DISABLE");
        let row = format!(
            "UPDATE cdc.fence SET term = $2, state = 'closed', changed_at = pg_catalog.clock_timestamp() {HELD}"
        );
        let attempt = async {
            self.session.batch_execute(&format!("BEGIN; {begin}")).await?;
            let rows = self.session.execute(&row, &[&self.name, &term]).await?;
            if rows == 0 {
                return Ok(None);
            }
            let since = Instant::now();
            self.session.batch_execute(&lock).await?;
            self.session.batch_execute(&format!("{make} {switch} COMMIT")).await?;
            Ok(Some(since))
        };
        match attempt.await {
            Ok(Some(since)) => {
                // Somebody may have made a table in between.
                let is_closed = |table: &Table| Table::is_on(table.fence.as_ref());
                let is_whole = self.tables(config).await?.iter().all(is_closed);
                Ok(is_whole.then_some(since))
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

    /// What switches the triggers of these tables.
    fn switch(&self, tables: &[Table], fence: &str, watch: &str) -> String {
        let (fence_name, watch_name) =
            (quote_identifier(&self.trigger("fence")), quote_identifier(&self.trigger("watch")));
        let switch = |table: &Table| {
            let name = table.name.to_sql();
            format!("ALTER TABLE ONLY {name} {fence} TRIGGER {fence_name}, {watch} TRIGGER {watch_name};")
        };
        tables.iter().map(switch).collect()
    }

    /// True if every table is fenced now, those included that have come meanwhile.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn is_closed(&self, config: &Config) -> Result<bool> {
        Ok(self.tables(config).await?.iter().all(|table| Table::is_on(table.fence.as_ref())))
    }

    /// Opens it, whoever has closed it in this term or an earlier one; with `is_watched` it is noted from now on
    /// whether somebody writes. Does nothing if there is no fence.
    ///
    /// # Errors
    /// If the switch was taken over, or the database can't be asked.
    pub async fn open(&self, term: i64, is_watched: bool) -> Result<()> {
        if self.state().await?.is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + limits::FENCE_DDL;
        loop {
            match self.try_to_open(term, is_watched).await {
                Ok(0) => {
                    self.roll_back().await;
                    return self.ours(0);
                }
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.roll_back().await;
                    if !is_busy(&error) || Instant::now() > deadline {
                        return Err(self.fault("opening the fence")(error));
                    }
                }
            }
            sleep(limits::FENCE_RETRY).await;
        }
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

    async fn try_to_open(&self, term: i64, is_watched: bool) -> Result<u64, Error> {
        let (watch, state) = if is_watched { ("ENABLE ALWAYS", "watched") } else { ("DISABLE", "open") };
        let row = format!(
            "UPDATE cdc.fence AS f SET term = $2, state = $3, changed_at = pg_catalog.clock_timestamp(),
                    written = (SELECT last_value + is_called::int FROM cdc.written) {HELD}"
        );
        self.session.batch_execute("BEGIN").await?;
        let rows = self.session.execute(&row, &[&self.name, &term, &state]).await?;
        if rows == 0 {
            return Ok(0);
        }
        // Behind the row: whoever closes it has ended by now. What is open already needs no lock, which somebody who
        // writes may not give.
        let mut tables = self.fenced().await?;
        tables.retain(|table| {
            Table::is_on(table.fence.as_ref()) || Table::is_on(table.watch.as_ref()) != is_watched
        });
        let names: Vec<String> = tables.iter().map(|table| table.name.to_sql()).collect();
        let begin = begin_ddl(&**self.session, &names).await?;
        let switch = self.switch(&tables, "DISABLE", watch);
        self.session.batch_execute(&format!("{begin} {switch} COMMIT")).await?;
        Ok(rows)
    }

    /// Makes read-only the default of the database, if we own it; or what it was before.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn set_read_only(&self, is_read_only: bool) -> Result<()> {
        let fault = self.fault("setting default_transaction_read_only");
        let owns = "SELECT pg_catalog.pg_has_role(datdba, 'USAGE') AND f.read_only <> $2,
                           pg_catalog.format('%I', datname)
                      FROM pg_catalog.pg_database, cdc.fence AS f
                     WHERE datname = pg_catalog.current_database() AND f.name = $1";
        let row = self.session.query_opt(owns, &[&self.name, &is_read_only]).await.map_err(&fault)?;
        let Some(row) = row.filter(|row| row.get(0)) else { return Ok(()) };
        let change = if is_read_only {
            "SET default_transaction_read_only = on"
        } else {
            "RESET default_transaction_read_only"
        };
        let sql = format!(
            "BEGIN; UPDATE cdc.fence SET read_only = {is_read_only} WHERE name = '{}'; ALTER DATABASE {} {change}; COMMIT",
            self.name,
            row.get::<_, &str>(1)
        );
        let changed = self.session.batch_execute(&sql).await;
        if changed.is_err() {
            self.roll_back().await;
        }
        changed.map_err(&fault)
    }

    /// Takes everything away that the fence has made here, and the schema with it if nothing else is in it.
    ///
    /// # Errors
    /// If a lock isn't to be had, or the database can't be asked.
    pub async fn remove(&self) -> Result<()> {
        if self.state().await?.is_none() {
            return Ok(());
        }
        self.set_read_only(false).await?;
        let fault = self.fault("removing the fence");
        for table in self.fenced().await.map_err(&fault)? {
            let name = table.name.to_sql();
            let drop: String = ["fence", "watch"]
                .map(|what| {
                    let trigger = quote_identifier(&self.trigger(what));
                    format!("DROP TRIGGER IF EXISTS {trigger} ON {name};")
                })
                .concat();
            let begin = begin_ddl(&**self.session, std::slice::from_ref(&name)).await.map_err(&fault)?;
            let deadline = Instant::now() + limits::FENCE_DDL;
            while let Err(error) = self.session.batch_execute(&format!("BEGIN; {begin} {drop} COMMIT")).await
            {
                self.roll_back().await;
                if !is_busy(&error) || Instant::now() > deadline {
                    return Err(fault(error).table(table.name.to_string()));
                }
                sleep(limits::FENCE_RETRY).await;
            }
        }
        self.session.execute("DELETE FROM cdc.fence WHERE name = $1", &[&self.name]).await.map_err(&fault)?;
        self.session
            .batch_execute(
                "DO $$ BEGIN
                   IF NOT EXISTS (SELECT FROM cdc.fence) THEN
                     DROP TABLE cdc.fence;
                     DROP SEQUENCE cdc.written;
                     DROP FUNCTION cdc.refuse_write(), cdc.note_write();
                     IF NOT EXISTS (SELECT FROM pg_catalog.pg_class
                                     WHERE relnamespace = 'cdc'::pg_catalog.regnamespace) THEN
                       DROP SCHEMA cdc;
                     END IF;
                   END IF;
                 END $$",
            )
            .await
            .map_err(&fault)
    }
}

/// Of a fence that nobody of a later term has changed.
const HELD: &str = "WHERE name = $1 AND term <= $2";

/// A lock that wasn't to be had in a moment.
fn is_busy(error: &Error) -> bool {
    matches!(error.code().map(SqlState::code), Some("55P03" | "57014" | "40P01"))
}
