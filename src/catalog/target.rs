//! The target's tables: what a change has to fit into.

use tokio_postgres::Client;

use super::names::TableName;
use super::published::key_type;
use super::source::SourceTable;
use crate::chunk::KeyType;
use crate::fault::{Fault, Result, Side};

/// A column of a table of the target.
#[derive(Clone, Debug)]
pub struct TargetColumn {
    /// Its name.
    pub name: String,
    /// Its type for SQL, without a length; a domain's base type.
    pub type_name: String,
    /// That type's oid on the target.
    pub type_oid: u32,
    /// NOT NULL is declared for the column itself.
    pub is_not_null: bool,
    /// GENERATED ALWAYS AS (...) STORED or VIRTUAL: it can't be written.
    pub is_generated: bool,
    /// An identity column of either kind.
    pub is_identity: bool,
    /// GENERATED ALWAYS AS IDENTITY: an UPDATE can't write it (SQLSTATE 428C9).
    pub is_identity_always: bool,
    /// Its collation calls only equal strings equal.
    pub is_deterministic: bool,
    /// The schema of its type's equality operator.
    pub equality_schema: String,
}

/// A table of the target.
#[derive(Clone, Debug)]
pub struct TargetTable {
    /// Its name.
    pub name: TableName,
    /// Rows go to its partitions.
    pub is_partitioned: bool,
    /// The topmost partitioned table that it is a part of, if it is a partition.
    pub root: Option<TableName>,
    /// Which of its parent's rows are its own, as `FOR VALUES ...` or `DEFAULT`, if it is a partition.
    pub bounds: Option<String>,
    /// Its columns in their order.
    pub columns: Vec<TargetColumn>,
}

impl TargetTable {
    /// True if these columns are here what they are on the source, so that ranges of them mean the same.
    #[must_use]
    pub fn has_ranges_of(&self, columns: &[(String, KeyType)]) -> bool {
        columns.iter().all(|(name, kind)| {
            self.columns.iter().any(|column| column.name == *name && key_type(column.type_oid) == Some(*kind))
        })
    }
}

/// Describes a table of the target; `None` if there is none of that name.
///
/// # Errors
/// If the target can't be asked, or the name is that of a view or a foreign table.
pub async fn target_table(target: &Client, name: &TableName) -> Result<Option<TargetTable>> {
    describe(target, name, Bounds::Told).await
}

/// Whether a partition's bounds are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// They are, which waits for the table's lock (`pg_get_expr()` takes it from PostgreSQL 17 on).
    Told,
    /// They are not: the lock may be our own, held by another session that waits for the answer.
    LeftOut,
}

async fn describe(target: &Client, name: &TableName, bounds: Bounds) -> Result<Option<TargetTable>> {
    let fault = |e| Fault::sql(Side::Target, "describing a table", &e).table(name.to_string());
    let Some(table) = target
        .query_opt(
            include_str!("../../sql/catalog/target_table.sql"),
            &[&name.schema, &name.name, &(bounds == Bounds::Told)],
        )
        .await
        .map_err(fault)?
    else {
        return Ok(None);
    };
    let kind: &str = table.get("kind");
    if !matches!(kind, "r" | "p") {
        return Err(Fault::person(
            "there is a view or foreign table where rows of the source's table should go",
        )
        .on(Side::Target)
        .table(name.to_string())
        .remedy("drop it or rename it and create the table as it is on the source"));
    }
    let columns = target
        .query(include_str!("../../sql/catalog/target_columns.sql"), &[&table.get::<_, u32>("oid")])
        .await
        .map_err(fault)?;
    Ok(Some(TargetTable {
        name: name.clone(),
        is_partitioned: kind == "p",
        root: table
            .get::<_, Option<String>>("root_schema")
            .zip(table.get::<_, Option<String>>("root_name"))
            .map(|(schema, name)| TableName::new(schema, name)),
        bounds: table.get("bounds"),
        columns: columns
            .iter()
            .map(|row| TargetColumn {
                name: row.get("name"),
                type_name: row.get("type"),
                type_oid: row.get("type_oid"),
                is_not_null: row.get("is_not_null"),
                is_generated: row.get("is_generated"),
                is_identity: row.get("is_identity"),
                is_identity_always: row.get("is_identity_always"),
                is_deterministic: row.get("is_deterministic"),
                equality_schema: row.get("equality_schema"),
            })
            .collect(),
    }))
}

/// The table of the target that takes the rows of the source's table `name`, and whether that is the
/// topmost parent, `root`, of a partition that the target doesn't have.
///
/// # Errors
/// If there is none, or if the target can't be asked.
pub async fn destination(
    target: &Client,
    name: &TableName,
    root: Option<&TableName>,
    bounds: Bounds,
) -> Result<(TargetTable, bool)> {
    match (describe(target, name, bounds).await?, root) {
        (Some(table), _) => Ok((table, false)),
        (None, Some(root)) => match describe(target, root, bounds).await? {
            Some(table) => Ok((table, true)),
            None => Err(missing_table(root)),
        },
        (None, None) => Err(missing_table(name)),
    }
}

fn missing_table(name: &TableName) -> Fault {
    Fault::person("the table is missing").on(Side::Target).table(name.to_string()).remedy(
        "create it there as it is on the source, or if it was renamed, rename it there; the stream goes on by itself \
         and nothing is lost meanwhile",
    )
}

/// What the target lacks of these tables, one line each: `table public.t`, `column c of public.t`.
///
/// A partition that the target doesn't have is no lack if its topmost parent is there.
///
/// # Errors
/// If the target can't be asked.
pub async fn missing_on_target(target: &Client, tables: &[&SourceTable]) -> Result<Vec<String>> {
    let names = |of: fn(&SourceTable) -> &TableName| -> (Vec<String>, Vec<String>) {
        tables.iter().map(|t| (of(t).schema.clone(), of(t).name.clone())).unzip()
    };
    let (schemas, tables_) = names(|t| &t.name);
    let (root_schemas, root_names) = names(SourceTable::published_as);
    let columns: Vec<String> =
        tables.iter().map(|t| serde_json::Value::from(t.columns.clone()).to_string()).collect();
    let rows = target
        .query(
            include_str!("../../sql/catalog/missing_on_target.sql"),
            &[&schemas, &tables_, &root_schemas, &root_names, &columns],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "looking for the source's tables", &e))?;
    Ok(rows
        .iter()
        .map(|row| {
            let table = TableName::new(row.get::<_, String>("schema"), row.get::<_, String>("name"));
            match row.get::<_, Option<String>>("column_name") {
                Some(column) => format!("column {column} of {table}"),
                None => format!("table {table}"),
            }
        })
        .collect())
}
