//! Rows of the target that refer to a row which isn't there.
//!
//! While the target follows, its foreign keys are not enforced: rows arrive as on a replica. So each one is
//! checked as PostgreSQL itself does when it is validated (`RI_Initial_Check` in `ri_triggers.c`), by what the
//! source's catalog says of it: on the target it may be held back.

use std::fmt;

use serde::Serialize;
use tokio_postgres::Row;

use crate::catalog::{TableName, TargetTable, quote_identifier, quote_literal, target_table};
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::Ledger;
use crate::schema;

const KEYS: &str = include_str!("../../sql/catalog/foreign_keys.sql");
const STATE: &str = include_str!("../../sql/catalog/foreign_key_state.sql");

/// How many rows of a key are named.
const EXAMPLES: u32 = 10;

/// What the target has of a foreign key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTarget {
    /// It is there and says that it holds for every row.
    Valid,
    /// It is there as NOT VALID.
    NotValid,
    /// It is there as NOT ENFORCED.
    NotEnforced,
    /// It is off while rows are copied, or until the cutover, and comes back by itself.
    HeldBack,
    /// It isn't there.
    Missing,
}

/// A foreign key of the source, and how the target's rows keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignKey {
    /// Its name on the source.
    pub name: String,
    /// Its table, as `schema.table`.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The table that it refers to.
    pub references: String,
    /// The columns there.
    pub referenced_columns: Vec<String>,
    /// What the target has of it.
    pub on_target: OnTarget,
    /// How many rows of the target refer to a row that isn't there; null if they were not counted.
    pub orphans: Option<i64>,
    /// What some of them refer to, as `column=value, ...`: at most 10.
    pub examples: Vec<String>,
    /// Why they were not counted; null if they were.
    pub not_checked: Option<String>,
}

/// All foreign keys of the source between tables that are in the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForeignKeys {
    /// Sorted by table and name.
    pub keys: Vec<ForeignKey>,
}

impl ForeignKeys {
    /// True if no row was found that refers to nothing. Whether the target has the keys themselves is for
    /// [`crate::schema::diff()`] to say.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.keys.iter().all(|key| key.orphans.unwrap_or(0) == 0)
    }

    /// True if every key was checked.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.keys.iter().all(|key| key.not_checked.is_none())
    }
}

impl fmt::Display for ForeignKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.keys.iter().filter(|key| key.orphans == Some(0)).count();
        writeln!(f, "foreign keys that every row keeps: {kept} of {}", self.keys.len())?;
        self.keys.iter().filter(|key| key.orphans != Some(0)).try_for_each(|key| {
            let ForeignKey { name, table, references, .. } = key;
            if let Some(why) = &key.not_checked {
                return writeln!(f, "  {name} of {table}: not checked: {why}");
            }
            let orphans = key.orphans.unwrap_or(0);
            writeln!(f, "  {name} of {table}: rows that refer to nothing in {references}: {orphans}")?;
            key.examples.iter().try_for_each(|example| writeln!(f, "    {example}"))
        })
    }
}

/// Checks the source's foreign keys on the target, each in one statement. `ledger` is the target's.
///
/// # Errors
/// If a database can't be asked. A key that can't be checked for a reason of its own says so in the report.
pub async fn foreign_keys(source: &Session, ledger: &Ledger, name: &str) -> Result<ForeignKeys> {
    let target = ledger.session();
    let copied: Vec<u32> = ledger.copied_tables().await?.iter().map(|(table, _)| table.relation).collect();
    let rows = source
        .query(KEYS, &[&copied])
        .await
        .map_err(|e| Fault::sql(Side::Source, "listing the foreign keys", &e))?;
    let held = schema::held(&**target, name).await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let key = Key::new(row);
        let table = key.table.to_string();
        let is_held = held
            .iter()
            .any(|held| held.kind == "foreign key" && held.table == table && held.object == key.name);
        let on_target = if is_held { OnTarget::HeldBack } else { key.on_target(target).await? };
        let (found, not_checked) = match key.check(target, name).await {
            Ok(Checked::Found(orphans, examples)) => (Some((orphans, examples)), None),
            Ok(Checked::Not(why)) => (None, Some(why)),
            Err(fault) if fault.reaction() == Reaction::Person => (None, Some(fault.what().to_owned())),
            Err(fault) => return Err(fault),
        };
        let (orphans, examples) = found.unzip();
        keys.push(ForeignKey {
            name: key.name,
            table,
            columns: key.columns,
            references: key.references.to_string(),
            referenced_columns: key.referenced_columns,
            on_target,
            orphans,
            examples: examples.unwrap_or_default(),
            not_checked,
        });
    }
    Ok(ForeignKeys { keys })
}

/// What came of a check.
enum Checked {
    Found(i64, Vec<String>),
    Not(String),
}

/// A foreign key as the source's catalog has it.
struct Key {
    name: String,
    table: TableName,
    references: TableName,
    columns: Vec<String>,
    referenced_columns: Vec<String>,
    is_full: bool,
    has_period: bool,
}

impl Key {
    fn new(row: &Row) -> Self {
        let table = |schema, name| TableName::new(row.get::<_, &str>(schema), row.get::<_, &str>(name));
        Self {
            name: row.get("name"),
            table: table("schema", "table_name"),
            references: table("referenced_schema", "referenced_table"),
            columns: row.get("columns"),
            referenced_columns: row.get("referenced_columns"),
            is_full: row.get("is_full"),
            has_period: row.get("has_period"),
        }
    }

    fn fault(&self, error: &tokio_postgres::Error) -> Fault {
        let doing = format!("checking the foreign key {}", quote_identifier(&self.name));
        Fault::sql(Side::Target, &doing, error).table(self.table.to_string())
    }

    async fn on_target(&self, target: &Session) -> Result<OnTarget> {
        let (table, references) = (&self.table, &self.references);
        let row = target
            .query_opt(
                STATE,
                &[
                    &table.schema,
                    &table.name,
                    &self.columns,
                    &references.schema,
                    &references.name,
                    &self.referenced_columns,
                ],
            )
            .await
            .map_err(|e| self.fault(&e))?;
        Ok(row.map_or(OnTarget::Missing, |row| match (row.get("is_valid"), row.get("is_enforced")) {
            (_, false) => OnTarget::NotEnforced,
            (true, true) => OnTarget::Valid,
            (false, true) => OnTarget::NotValid,
        }))
    }

    async fn check(&self, target: &Session, name: &str) -> Result<Checked> {
        let lacks = |table: &TableName| Ok(Checked::Not(format!("the target has no table {table}")));
        let Some(table) = target_table(target, &self.table).await? else { return lacks(&self.table) };
        let Some(references) = target_table(target, &self.references).await? else {
            return lacks(&self.references);
        };
        let Some(orphans) = self.orphans(&table, &references) else {
            return Ok(Checked::Not(format!("the target has no such column in {}", self.references)));
        };
        // While rows are missing, what refers to them refers to nothing, and that is read in the same snapshot.
        let sql = format!(
            "WITH known AS MATERIALIZED (
               SELECT FROM cdc.migration WHERE name = $1 AND consistent_since IS NOT NULL),
             orphans AS MATERIALIZED ({orphans} AND EXISTS (SELECT FROM known))
             SELECT EXISTS (SELECT FROM known), (SELECT count(*) FROM orphans),
                    ARRAY(SELECT key FROM orphans ORDER BY key LIMIT {EXAMPLES})"
        );
        let row = target.query_one(&sql, &[&name]).await.map_err(|e| self.fault(&e))?;
        Ok(if row.get(0) {
            Checked::Found(row.get(1), row.get(2))
        } else {
            Checked::Not("still being copied".to_owned())
        })
    }

    /// The query for the rows that refer to nothing; `None` if the target lacks a column that it refers to.
    fn orphans(&self, table: &TargetTable, references: &TargetTable) -> Option<String> {
        let column = |alias: &str, name: &str| format!("{alias}.{}", quote_identifier(name));
        let mut equals = Vec::new();
        for (own, referenced) in self.columns.iter().zip(&self.referenced_columns) {
            let there = references.columns.iter().find(|there| there.name == *referenced)?;
            let schema = quote_identifier(&there.equality_schema);
            equals.push(format!("{} OPERATOR({schema}.=) {}", column("pk", referenced), column("fk", own)));
        }
        let given: Vec<String> = self.columns.iter().map(|own| column("fk", own) + " IS NOT NULL").collect();
        let given = given.join(if self.is_full { " OR " } else { " AND " });
        let shown = |own: &String| {
            let label = quote_literal(&format!("{own}="));
            format!("{label} || coalesce({}::text, 'NULL')", column("fk", own))
        };
        let key = self.columns.iter().map(shown).collect::<Vec<_>>().join(" || ', ' || ");
        let only = |table: &TargetTable| table.name.only(table.is_partitioned);
        let (own, there) = (only(table), only(references));
        if !self.has_period {
            let first = column("pk", self.referenced_columns.first()?);
            return Some(format!(
                "SELECT {key} AS key FROM {own} AS fk LEFT JOIN {there} AS pk ON {} WHERE {first} IS NULL AND ({given})",
                equals.join(" AND ")
            ));
        }
        // The times of the rows that are referred to cover that of the row which refers to them.
        let (at, referenced_at) = (self.columns.last()?, self.referenced_columns.last()?);
        equals.pop();
        Some(format!(
            "SELECT {key} AS key FROM {own} AS fk WHERE ({given}) AND NOT {} OPERATOR(pg_catalog.<@) coalesce(
               (SELECT pg_catalog.range_agg({}) FROM {there} AS pk WHERE {}), '{{}}')",
            column("fk", at),
            column("pk", referenced_at),
            equals.join(" AND ")
        ))
    }
}
