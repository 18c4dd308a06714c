//! How a table is built: as the catalogs have it, and as the ledger remembers it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Row};

use crate::catalog::{TableName, with_digest};
use crate::fault::{Fault, Result, Side};
use crate::lsn::Lsn;

/// A table as the catalogs of either side have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub(super) oid: u32,
    pub(super) name: TableName,
    /// The topmost parent of a partition.
    pub(super) root: Option<TableName>,
    /// Another one when the table was rewritten; 0 for one that is partitioned.
    pub(super) filenode: u32,
    /// Another one when anything was done to a column.
    pub(super) digest: Option<String>,
    /// The numbers of the columns of its replica identity, or how else a row is named.
    pub(super) identity: String,
    /// In their order.
    pub(super) columns: Vec<TableColumn>,
}

/// A column as the catalogs have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableColumn {
    /// Its number within the table, which stays the same for as long as it lives.
    pub(super) number: i16,
    pub(super) name: String,
    /// Its name among the objects of the schema.
    pub(super) object: String,
    pub(super) type_name: String,
    pub(super) is_not_null: bool,
    pub(super) is_generated: bool,
    pub(super) is_identity: bool,
    pub(super) has_default: bool,
    /// Another one when anything was done to it.
    pub(super) version: String,
    /// What the rows have that were there before it.
    pub(super) missing: Option<String>,
}

impl TableColumn {
    fn of(row: &Row) -> Self {
        Self {
            number: row.get("number"),
            name: row.get("column_name"),
            object: row.get("object"),
            type_name: row.get("type"),
            is_not_null: row.get("is_not_null"),
            is_generated: row.get("is_generated"),
            is_identity: row.get("is_identity"),
            has_default: row.get("has_default"),
            version: row.get("version"),
            missing: row.get("missing"),
        }
    }
}

impl Table {
    /// What the columns of a partition are changed by: its topmost parent.
    pub(super) fn altered_as(&self) -> &TableName {
        self.root.as_ref().unwrap_or(&self.name)
    }

    /// True if it is that of which this digest was taken.
    #[must_use]
    pub fn has_digest(&self, digest: Option<&str>) -> bool {
        self.digest.as_deref() == digest
    }

    pub(super) fn by_number(&self, number: i16) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.number == number)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Describes these tables of a database; those that aren't there are left out.
///
/// # Errors
/// If the database can't be asked.
pub async fn tables(client: &Client, side: Side, oids: &[u32]) -> Result<BTreeMap<u32, Table>> {
    let rows = client
        .query(&with_digest(include_str!("../../../sql/catalog/shapes.sql")), &[&oids])
        .await
        .map_err(|e| Fault::sql(side, "looking how the tables are built", &e))?;
    let mut tables = BTreeMap::new();
    for row in &rows {
        let table = tables.entry(row.get("oid")).or_insert_with(|| Table {
            oid: row.get("oid"),
            name: TableName::new(row.get::<_, &str>("schema"), row.get::<_, &str>("name")),
            root: row
                .get::<_, Option<String>>("root_schema")
                .zip(row.get::<_, Option<String>>("root_name"))
                .map(|(schema, name)| TableName::new(schema, name)),
            filenode: row.get("filenode"),
            digest: row.get("digest"),
            identity: row.get("identity_key"),
            columns: Vec::new(),
        });
        if row.get::<_, Option<i16>>("number").is_some() {
            table.columns.push(TableColumn::of(row));
        }
    }
    Ok(tables)
}

/// The oids of tables by their names; none of those that aren't there.
///
/// # Errors
/// If the database can't be asked.
pub(super) async fn oids(client: &Client, side: Side, names: &[TableName]) -> Result<Vec<Option<u32>>> {
    let names: Vec<String> = names.iter().map(TableName::to_sql).collect();
    let rows = client
        .query(
            "SELECT pg_catalog.to_regclass(n.name)::oid FROM unnest($1::text[]) WITH ORDINALITY AS n (name, place)
              ORDER BY place",
            &[&names],
        )
        .await
        .map_err(|e| Fault::sql(side, "looking for the tables", &e))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A table of the source as it was when the target was brought to it, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Its name on the source.
    pub(super) name: TableName,
    /// The table of the target that takes its rows, by its oid there.
    pub(super) target: u32,
    /// That is the topmost parent, as the target lacks the partition.
    pub(super) is_through_root: bool,
    pub(super) filenode: u32,
    pub(super) digest: Option<String>,
    pub(super) identity: String,
    /// The key of the target's table isn't yet the source's.
    pub(super) lacks_key: bool,
    pub(super) columns: Vec<Column>,
    /// The numbers of columns of the target that the source has dropped.
    pub(super) dropped: Vec<i16>,
    /// How it was before: changes from then can still come.
    pub(super) earlier: Vec<Earlier>,
}

/// A column of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) number: i16,
    pub(super) name: String,
    pub(super) type_name: String,
    pub(super) is_not_null: bool,
    pub(super) is_generated: bool,
    pub(super) version: String,
    /// Its number in the target's table, if that has it.
    pub(super) target: Option<i16>,
    /// It is not yet NOT NULL on the target as it is on the source.
    pub(super) lacks_not_null: bool,
    /// It has come while we streamed: its default and NOT NULL are made as on the source when the checkpoint has
    /// passed this position.
    #[serde(with = "text")]
    pub(super) unfinished: Option<Lsn>,
}

/// How a table was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Earlier {
    /// Nothing of that time comes when the checkpoint has passed this position.
    #[serde(with = "text")]
    pub(super) until: Option<Lsn>,
    pub(super) name: TableName,
    pub(super) columns: Vec<Column>,
}

impl Shape {
    /// The shape of a table of the source whose rows go to that table of the target, column by column by name.
    #[must_use]
    pub fn new(source: &Table, target: &Table, is_through_root: bool) -> Self {
        let columns = source.columns.iter().map(|column| {
            let there = target.by_name(&column.name).map(|there| there.number);
            Column::new(column, there)
        });
        Self {
            name: source.name.clone(),
            target: target.oid,
            is_through_root,
            filenode: source.filenode,
            digest: source.digest.clone(),
            identity: source.identity.clone(),
            lacks_key: false,
            columns: columns.collect(),
            dropped: Vec::new(),
            earlier: Vec::new(),
        }
    }

    /// True if nothing was done to the source's table since, but for rewriting it.
    #[must_use]
    pub fn is_of(&self, source: &Table) -> bool {
        self.digest == source.digest && self.name == source.name && self.identity == source.identity
    }

    /// True if something is left to be done to the target's table.
    pub(super) fn is_open(&self) -> bool {
        let is_open = |column: &Column| column.lacks_not_null || column.unfinished.is_some();
        self.lacks_key || !self.dropped.is_empty() || self.columns.iter().any(is_open)
    }
}

impl Column {
    pub(super) fn new(column: &TableColumn, target: Option<i16>) -> Self {
        Self {
            number: column.number,
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            is_not_null: column.is_not_null,
            is_generated: column.is_generated,
            version: column.version.clone(),
            target,
            lacks_not_null: false,
            unfinished: None,
        }
    }
}

/// A position as text.
mod text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::lsn::Lsn;

    pub(super) fn serialize<S: Serializer>(lsn: &Option<Lsn>, to: S) -> Result<S::Ok, S::Error> {
        lsn.map(|lsn| lsn.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Lsn>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}
