//! Putting back what was held back, beside the stream.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;

use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_postgres::{Error, Row};

use super::{Until, locks, take_lock};
use crate::catalog::{TableName, quote_identifier, quote_literal};
use crate::connect::{ConnInfo, Session};
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::retry::Delays;

const STATE: &str = include_str!("../../sql/catalog/held_state.sql");

/// What could not be put back.
#[derive(Debug)]
pub struct NotPutBack {
    /// The table that it belongs to.
    pub table: TableName,
    /// The constraint's or the index's name.
    pub object: String,
    /// Why.
    pub fault: Fault,
}

/// Puts back what is held back until then, one after the other, exactly as it was; rows can be written to
/// the tables meanwhile. At the cutover that is everything. The session is to be used for nothing else; with
/// `others` ([`builders`]) indexes of several tables are built at a time, before the rest.
///
/// Returns what could not be put back, and why; the others are put back all the same. It can be called
/// again at any time, after any failure or kill, and tries again what is still missing.
///
/// # Errors
/// If the session or the ledger fails, or another session is at it.
pub async fn put_back(
    session: &Session,
    others: &[Session],
    name: &str,
    until: Until,
) -> Result<Vec<NotPutBack>> {
    let outcome = match lock(session, name, until).await {
        Ok(()) => put_back_all(session, others, name, until).await,
        Err(fault) => Err(fault),
    };
    // If that fails, the session has ended, and the locks with it.
    let _ = session.batch_execute("SELECT pg_catalog.pg_advisory_unlock_all()").await;
    outcome
}

async fn lock(session: &Session, name: &str, until: Until) -> Result<()> {
    take_lock(&**session, "pg_try_advisory_lock", name, Until::Copy).await?;
    if until == Until::Cutover {
        take_lock(&**session, "pg_try_advisory_lock", name, Until::Cutover).await?;
    }
    Ok(())
}

/// The statements that put back what is still held back, for somebody who does it by hand, in their order.
///
/// # Errors
/// If the target can't be asked.
pub async fn statements(session: &Session, name: &str) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for row in &held_rows(session, name, Until::Cutover).await? {
        let object = Object::new(session, row);
        statements.extend(object.statements().await.map_err(|e| object.explain(&e))?);
    }
    Ok(statements)
}

/// What is put back in one short transaction, because writes rest meanwhile: all but what takes long. Foreign keys hold
/// for new rows from then on; [`put_back()`] has the others looked at.
#[derive(Debug, Default)]
pub struct AtOnce {
    tables: Vec<String>,
    statements: Vec<String>,
    /// Those of which nothing is left to do then.
    whole: Vec<i64>,
}

impl AtOnce {
    /// Looks what there is to put back.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn find(session: &Session, name: &str) -> Result<Self> {
        let mut found = Self::default();
        for row in &held_rows(session, name, Until::Cutover).await? {
            let object = Object::new(session, row);
            let state = object.state().await.map_err(|e| object.explain(&e))?;
            let is_gone = !state.table_exists || object.is_switch() && state.is_on.is_none();
            if is_gone || row.get::<_, Option<&str>>("build").is_some() {
                continue;
            }
            found.tables.push(object.table.to_sql());
            found.tables.extend(row.get::<_, Option<String>>("refers_to"));
            if !object.is_there(&state) {
                found.statements.extend(row.get::<_, Vec<String>>("put_back"));
            }
            if row.get::<_, Option<&str>>("validate").is_none() {
                found.whole.push(object.id);
            }
        }
        Ok(found)
    }

    /// How many statements that takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// True if there is nothing to put back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Puts it back. From here on nothing is held back again, until the session ends or [`put_back()`] has run on it.
    ///
    /// # Errors
    /// If something can't be put back, or a lock isn't to be had; nothing is then.
    pub async fn run(&self, session: &Session, name: &str) -> Result<()> {
        let mut delays = Delays::default();
        for attempt in 1.. {
            let failed = match self.try_once(session, name).await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            // If that fails, the session has ended.
            let _ = session.batch_execute("ROLLBACK").await;
            if attempt >= limits::DDL_ATTEMPTS || !failed.passes() || failed.is_unreachable() {
                return Err(failed);
            }
            sleep(delays.next_delay()).await;
        }
        Ok(())
    }

    async fn try_once(&self, session: &Session, name: &str) -> Result<()> {
        lock(session, name, Until::Cutover).await?;
        if self.is_empty() && self.whole.is_empty() {
            return Ok(());
        }
        let fault = |e| Fault::sql(Side::Target, "putting triggers and foreign keys back", &e);
        let begin = locks::begin_ddl(&**session, &self.tables).await.map_err(fault)?;
        let done = format!(
            "UPDATE cdc.held_back SET put_back_at = pg_catalog.clock_timestamp() WHERE id = ANY ('{{{}}}')",
            self.whole.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        );
        let statements = self.statements.iter().map(|statement| format!("{statement};")).collect::<String>();
        session.batch_execute(&format!("BEGIN; {begin} {statements} {done}; COMMIT")).await.map_err(fault)
    }
}

/// A part comes before its whole, and what is referred to before what refers to it. What is only switched on
/// again comes last: a row that is mended because a foreign key has named it fires nothing yet, and row
/// security is none of the foreign keys' business.
async fn held_rows(session: &Session, name: &str, until: Until) -> Result<Vec<Row>> {
    session
        .query(
            "SELECT id, part_of, schema_name, table_name, kind, object_name, refers_to, tablespace, build,
                    put_back, validate
               FROM cdc.held_back WHERE name = $1 AND put_back_at IS NULL AND until IN ('copy', $2)
              ORDER BY CASE WHEN kind IN ('index', 'constraint') THEN 1 WHEN kind = 'foreign key' THEN 2 ELSE 3 END,
                       id DESC",
            &[&name, &until.as_str()],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "reading what is held back (cdc.held_back)", &e))
}

async fn put_back_all(
    session: &Session,
    others: &[Session],
    name: &str,
    until: Until,
) -> Result<Vec<NotPutBack>> {
    let mut missing = Vec::new();
    let rows = held_rows(session, name, until).await?;
    let mut failed = build_together(session, others, &rows).await;
    for row in &rows {
        let object = Object::new(session, row);
        let outcome = match failed.remove(&object.id) {
            Some(error) => Err(error),
            None => object.put_back().await,
        };
        match outcome {
            Ok(()) => {}
            Err(error) => {
                let fault = object.explain(&error);
                if session.is_closed() || fault.is_unreachable() {
                    return Err(fault);
                }
                missing.push(NotPutBack { table: object.table, object: object.name.to_owned(), fault });
            }
        }
    }
    Ok(missing)
}

/// More sessions that build indexes, as many as there can be.
pub async fn builders(target: &ConnInfo, name: &str) -> Vec<Session> {
    let mut sessions = Vec::new();
    for _ in 1..limits::INDEX_BUILDERS {
        match Session::open(target, Side::Target, &format!("cdc_{name} schema")).await {
            Ok(session) => sessions.push(session),
            Err(fault) => tracing::debug!("one index less is built at a time: {fault}"),
        }
    }
    sessions
}

/// Builds the indexes of several tables at a time; those of one table would wait for each other. Gives what
/// failed; what was not come to is built with the rest of its object.
async fn build_together(session: &Session, others: &[Session], rows: &[Row]) -> HashMap<i64, Error> {
    let mut tables: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    if !others.is_empty() {
        for row in rows.iter().filter(|row| row.get::<_, Option<&str>>("build").is_some()) {
            tables.entry((row.get("schema_name"), row.get("table_name"))).or_default().push(row);
        }
    }
    let queue = Mutex::new(tables.into_values().collect::<VecDeque<_>>());
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
    let build = async |session: &Session| {
        let mut failed = Vec::new();
        while let Some(rows) = next() {
            for object in rows.into_iter().map(|row| Object::new(session, row)) {
                match object.build_if_missing().await {
                    Err(_) if session.is_closed() => return failed,
                    Err(error) => failed.push((object.id, error)),
                    Ok(()) => {}
                }
            }
        }
        failed
    };
    let sessions = std::iter::once(session).chain(others);
    join_all(sessions.map(build)).await.into_iter().flatten().collect()
}

/// What is there of an object.
struct State {
    table_exists: bool,
    index_is_valid: Option<bool>,
    constraint_is_valid: Option<bool>,
    /// Of what can be switched off.
    is_on: Option<bool>,
}

/// One row of `cdc.held_back`.
struct Object<'a> {
    session: &'a Session,
    row: &'a Row,
    id: i64,
    table: TableName,
    kind: &'a str,
    name: &'a str,
}

impl<'a> Object<'a> {
    fn new(session: &'a Session, row: &'a Row) -> Self {
        let table = TableName::new(row.get::<_, &str>("schema_name"), row.get::<_, &str>("table_name"));
        Self { session, row, id: row.get("id"), table, kind: row.get("kind"), name: row.get("object_name") }
    }

    async fn put_back(&self) -> Result<(), Error> {
        // A whole is made of its parts: without one of them it would be built with everybody waiting.
        if self.lacks_a_part().await? {
            return Ok(());
        }
        let state = self.state().await?;
        if !state.table_exists {
            tracing::warn!(table = %self.table, "the table is gone, and its {} with it", self.describe());
            return self.done().await;
        }
        if self.is_switch() && state.is_on.is_none() {
            tracing::warn!(table = %self.table, "the {} is gone, or has another name", self.describe());
            return self.done().await;
        }
        let build: Option<&str> = self.row.get("build");
        if let Some(build) = build {
            self.build(build, state.index_is_valid).await?;
        }
        let is_there = self.is_there(&state);
        let validate: Option<&str> = self.row.get("validate");
        if !is_there {
            self.finish(validate.is_none()).await?;
        }
        match validate {
            Some(validate) => self.validate(validate).await,
            None if is_there => self.done().await,
            None => Ok(()),
        }
    }

    /// True if at most its validation is missing.
    fn is_there(&self, state: &State) -> bool {
        match self.kind {
            // An index that was built here still lacks its comments and marks.
            "index" => self.row.get::<_, Option<&str>>("build").is_none() && state.index_is_valid.is_some(),
            _ if self.is_switch() => state.is_on == Some(true),
            _ => state.constraint_is_valid.is_some(),
        }
    }

    /// It was switched off, and is still there.
    fn is_switch(&self) -> bool {
        matches!(self.kind, "trigger" | "rule" | "setting")
    }

    /// What is missing of it, in SQL.
    async fn statements(&self) -> Result<Vec<String>, Error> {
        let state = self.state().await?;
        let mut statements = Vec::new();
        if state.table_exists && !(self.is_switch() && state.is_on.is_none()) {
            let build: Option<String> = self.row.get("build");
            statements.extend(build.filter(|_| state.index_is_valid != Some(true)));
            if !self.is_there(&state) {
                statements.extend(self.row.get::<_, Vec<String>>("put_back"));
            }
            statements.extend(self.row.get::<_, Option<String>>("validate"));
        }
        Ok(statements)
    }

    async fn lacks_a_part(&self) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT FROM cdc.held_back WHERE part_of = $1 AND put_back_at IS NULL)";
        Ok(self.session.query_one(sql, &[&self.id]).await?.get(0))
    }

    async fn state(&self) -> Result<State, Error> {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&self.table.schema, &self.table.name, &self.kind, &self.name];
        let row = self.session.query_one(STATE, &parameters).await?;
        Ok(State {
            table_exists: row.get("table_exists"),
            index_is_valid: row.get("index_is_valid"),
            constraint_is_valid: row.get("constraint_is_valid"),
            is_on: row.get("is_on"),
        })
    }

    async fn build_if_missing(&self) -> Result<(), Error> {
        let state = self.state().await?;
        match self.row.get("build") {
            Some(build) if state.table_exists => self.build(build, state.index_is_valid).await,
            _ => Ok(()),
        }
    }

    /// Builds the index while rows are being written.
    async fn build(&self, statement: &str, index_is_valid: Option<bool>) -> Result<(), Error> {
        match index_is_valid {
            Some(true) => return Ok(()),
            // A killed attempt has left it behind.
            Some(false) => self.drop_index().await?,
            None => {}
        }
        self.session.batch_execute(&format!("SET {}", self.tablespace())).await?;
        let built = self.session.batch_execute(statement).await;
        // What is left of it would go on refusing rows.
        if built.is_err() && self.state().await?.index_is_valid == Some(false) {
            self.drop_index().await?;
        }
        built
    }

    async fn drop_index(&self) -> Result<(), Error> {
        let index = TableName::new(&self.table.schema, self.name).to_sql();
        self.session.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}")).await
    }

    /// Makes the constraint, or what else is short, in one transaction; the object is put back then, if
    /// nothing is left to do.
    async fn finish(&self, is_all: bool) -> Result<(), Error> {
        let mut statements = vec![format!("SET LOCAL {}", self.tablespace())];
        statements.extend(self.row.get::<_, Vec<String>>("put_back"));
        if is_all {
            statements.push(self.mark());
        }
        let mut tables = vec![self.table.to_sql()];
        tables.extend(self.row.get::<_, Option<String>>("refers_to"));
        let mut delays = Delays::default();
        for _ in 1..limits::DDL_ATTEMPTS {
            match self.transaction(&tables, &statements).await {
                Err(error) if matches!(error.code().map(|c| c.code()), Some("55P03" | "40P01")) => {
                    sleep(delays.next_delay()).await;
                }
                outcome => return outcome,
            }
        }
        self.transaction(&tables, &statements).await
    }

    async fn transaction(&self, tables: &[String], statements: &[String]) -> Result<(), Error> {
        let begin = locks::begin_ddl(&**self.session, tables).await?;
        self.run(&format!("{begin}{}", statements.join("; "))).await
    }

    /// Reads the table to see whether all rows comply; writers needn't wait.
    async fn validate(&self, statement: &str) -> Result<(), Error> {
        self.run(&format!("{statement}; {}", self.mark())).await
    }

    async fn done(&self) -> Result<(), Error> {
        self.session.batch_execute(&self.mark()).await
    }

    async fn run(&self, statements: &str) -> Result<(), Error> {
        let outcome = self.session.batch_execute(&format!("BEGIN; {statements}; COMMIT")).await;
        if outcome.is_err() && !self.session.is_closed() {
            self.session.batch_execute("ROLLBACK").await?;
        }
        outcome
    }

    fn mark(&self) -> String {
        format!("UPDATE cdc.held_back SET put_back_at = pg_catalog.clock_timestamp() WHERE id = {}", self.id)
    }

    /// The database's own default may be another one.
    fn tablespace(&self) -> String {
        format!("default_tablespace = {}", quote_literal(self.row.get("tablespace")))
    }

    fn describe(&self) -> String {
        format!("{} {}", self.kind, quote_identifier(self.name))
    }

    fn explain(&self, error: &Error) -> Fault {
        let mut fault = Fault::sql(Side::Target, &format!("putting back the {}", self.describe()), error)
            .table(self.table.to_string());
        if let Some(key) = error.as_db_error().and_then(|db| db.detail()).and_then(key_in) {
            fault = fault.key(key);
        }
        let whole: i64 = self.row.get::<_, Option<i64>>("part_of").unwrap_or(self.id);
        let or_give_up = format!("or give it up: DELETE FROM cdc.held_back WHERE id = {whole}");
        let remedy = match fault.code().map(|code| code.code()) {
            Some("23505" | "23P01") => {
                "change or delete one of the two rows on the source, which allows both"
            }
            Some("23503") => {
                "add the row that is missing, or delete the one that refers to it, on the source"
            }
            Some("42P07" | "42710") => "rename what has taken its name on the target",
            Some("42501") => "give the role that right on the target",
            Some("42830") => "see why what it refers to isn't put back",
            Some("55P03") => {
                return fault
                    .remedy("end the session that has held a lock on the table for so long (pg_locks)");
            }
            _ => "mend what the message says",
        };
        fault.remedy(format!("{remedy}, {or_give_up}"))
    }
}

/// `column=value` from the server's `Key (column)=(value) is duplicated.`, in whatever language.
fn key_in(detail: &str) -> Option<String> {
    let (before, after) = detail.split_once(")=(")?;
    let columns = &before[before.find('(')? + 1..];
    let value = &after[..after.find(") ")?];
    Some(format!("{columns}={value}"))
}
