//! What of the user's own refers to parts of the provider's that are not copied: policies that name its roles,
//! defaults and policies that call its functions, foreign keys to its tables, jobs and webhooks.
//!
//! Whatever is found here works on the target only if the target has that part too, or a stand-in for it
//! ([`super::stand_ins`]).

use std::fmt;

use serde::Serialize;

use crate::catalog::TableName;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::{limits, provider};

const REFERENCES: &str = include_str!("../../sql/catalog/references.sql");
const ON_TARGET: &str = include_str!("../../sql/catalog/references_on_target.sql");

/// An object of the user's, and a part of the provider's that it refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// What it is, in PostgreSQL's words: `policy`, `default`, `foreign key`, `view`, `function`, ..., and
    /// `webhook`, `cron job`, `grants`.
    pub kind: String,
    /// Its name as SQL has it, within a table with the table's name before it.
    pub name: String,
    /// The table or view that it is part of, as `schema.table`.
    pub table: Option<String>,
    /// What it refers to: `role`, `function`, `table`, `type`, `extension`, ..., and `name` for what the body of
    /// a function has.
    pub refers_to_kind: String,
    /// The name of that, as SQL has it.
    pub refers_to: String,
    /// The target has it, or a stand-in.
    pub on_target: bool,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, refers_to_kind, refers_to, .. } = self;
        match refers_to_kind.as_str() {
            "role" if kind == "grants" => write!(f, "grants on {name} to role {refers_to}"),
            "name" => write!(f, "{kind} {name} names {refers_to}"),
            "publication" => write!(f, "{kind} {name} is published to {refers_to}"),
            _ => write!(f, "{kind} {name} refers to {refers_to_kind} {refers_to}"),
        }
    }
}

/// Rows of the provider's that stay behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StaysBehind {
    /// Their table.
    pub table: String,
    /// What they are, for people.
    pub what: String,
    /// How they can be taken along.
    pub remedy: String,
    /// How many; counted up to [`limits::STAYS_BEHIND_ROWS`], null if this role may not see them.
    pub rows: Option<i64>,
}

impl fmt::Display for StaysBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, what, rows, .. } = self;
        match rows {
            Some(rows) if *rows >= limits::STAYS_BEHIND_ROWS => {
                write!(f, "{what} stay behind: {} or more rows of {table}", limits::STAYS_BEHIND_ROWS)
            }
            Some(rows) => write!(f, "{what} stay behind: rows of {table}: {rows}"),
            None => write!(f, "{what} stay behind: {table}, which this role can't read"),
        }
    }
}

/// The references of the source's objects, in the order of their names.
///
/// # Errors
/// If a database can't be asked.
pub async fn references(source: &Session, target: &Session) -> Result<Vec<Reference>> {
    let roles = provider::roles(source).await?;
    let fault = |side| move |e| Fault::sql(side, "looking for references to the provider's parts", &e);
    let rows = source
        .query(REFERENCES, &[&provider::INTERNAL_SCHEMAS, &roles])
        .await
        .map_err(fault(Side::Source))?;
    let mut references: Vec<Reference> = rows
        .iter()
        .map(|row| {
            let table: Option<Vec<String>> = row.get("table_name");
            Reference {
                kind: row.get("kind"),
                name: row.get("name"),
                table: table.and_then(|t| Some(TableName::new(t.first()?, t.get(1)?).to_string())),
                refers_to_kind: row.get("refers_to_kind"),
                refers_to: row.get("refers_to"),
                on_target: false,
            }
        })
        .collect();
    references.extend(cron_jobs(source).await?);
    let kinds: Vec<&str> = references.iter().map(|r| r.refers_to_kind.as_str()).collect();
    let names: Vec<&str> = references.iter().map(|r| r.refers_to.as_str()).collect();
    let rows = target.query(ON_TARGET, &[&kinds, &names]).await.map_err(fault(Side::Target))?;
    let on_target: Vec<bool> = rows.iter().map(|row| row.get(0)).collect();
    for (reference, on_target) in references.iter_mut().zip(on_target) {
        reference.on_target = on_target;
    }
    Ok(references)
}

/// The jobs of pg_cron that this role may see.
async fn cron_jobs(source: &Session) -> Result<Vec<Reference>> {
    if !exists(source, "cron.job").await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT format('%s (%s)', coalesce(to_jsonb(j) ->> 'jobname', j.command), j.schedule)
                 FROM cron.job j WHERE j.database = pg_catalog.current_database() ORDER BY j.jobid";
    let job = |name: String| Reference {
        kind: "cron job".to_owned(),
        name,
        table: None,
        refers_to_kind: "extension".to_owned(),
        refers_to: "pg_cron".to_owned(),
        on_target: false,
    };
    match source.query(sql, &[]).await {
        Ok(rows) => Ok(rows.iter().map(|row| job(row.get(0))).collect()),
        Err(e) if is_denied(&e) => Ok(vec![job("(this role can't read cron.job)".to_owned())]),
        Err(e) => Err(Fault::sql(Side::Source, "reading the jobs of pg_cron", &e)),
    }
}

/// The provider's rows that a team would miss.
///
/// # Errors
/// If the source can't be asked.
pub async fn stays_behind(source: &Session) -> Result<Vec<StaysBehind>> {
    let mut found = Vec::new();
    for (table, what, remedy) in provider::ROWS_OF_USERS {
        if !exists(source, table).await? {
            continue;
        }
        let sql =
            format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT {}) AS r", limits::STAYS_BEHIND_ROWS);
        let rows: Option<i64> = match source.query_one(&sql, &[]).await {
            Ok(row) => Some(row.get(0)),
            Err(e) if is_denied(&e) => None,
            Err(e) => return Err(Fault::sql(Side::Source, "counting what stays behind", &e).table(*table)),
        };
        if rows != Some(0) {
            let [table, what, remedy] = [*table, *what, *remedy].map(str::to_owned);
            found.push(StaysBehind { table, what, remedy, rows });
        }
    }
    Ok(found)
}

/// True if there is such a table; what can't be looked into isn't there for us.
async fn exists(source: &Session, table: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                               WHERE format('%s.%s', n.nspname, c.relname) = $1)";
    let row = source.query_one(sql, &[&table]).await;
    Ok(row.map_err(|e| Fault::sql(Side::Source, "looking for the provider's tables", &e))?.get(0))
}

fn is_denied(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
}
