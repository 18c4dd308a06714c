//! What the publications carry: the tables of the copy.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::names::TableName;
use super::source::Identity;
use crate::chunk::KeyType;
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// A relation that is in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its oid on the source.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// The topmost partitioned table that it is a part of, if it is a partition.
    pub root: Option<TableName>,
    /// What brings it there: the oids of the publications' entries (`pg_publication_rel`). Others than before
    /// mean that it was out of the stream in between, however short that was.
    pub membership: String,
}

impl Published {
    fn of(row: &Row) -> Self {
        Self {
            oid: row.get("oid"),
            name: TableName::new(row.get::<_, String>("schema"), row.get::<_, String>("name")),
            root: root(row),
            membership: row.get("membership"),
        }
    }
}

impl From<&PublishedTable> for Published {
    fn from(table: &PublishedTable) -> Self {
        Self {
            oid: table.oid,
            name: table.name.clone(),
            root: table.root.clone(),
            membership: table.membership.clone(),
        }
    }
}

/// A relation that is in the stream under its own name, and what the copy has to know of it.
#[derive(Clone, Debug)]
pub struct PublishedTable {
    /// Its oid on the source.
    pub oid: u32,
    /// Its name.
    pub name: TableName,
    /// What brings it into the stream, as [`Published`] has it.
    pub membership: String,
    /// It is the root of partitions, and the stream has their changes under its name.
    pub is_partitioned: bool,
    /// The topmost partitioned table that it is a part of, if it is a partition.
    pub root: Option<TableName>,
    /// Which of its parent's rows are its own, as `FOR VALUES ...` or `DEFAULT`, if it is a partition.
    pub bounds: Option<String>,
    /// Its replica identity.
    pub identity: Identity,
    /// What changes with anything that is done to its columns; none if it has never had any.
    pub digest: Option<String>,
    /// The columns that the stream carries, in the table's order.
    pub columns: Vec<String>,
    /// The condition that a row must meet to be in the stream, as SQL.
    pub row_filter: Option<String>,
    /// The columns that tell its rows apart, in the order of their index: those of the replica identity,
    /// or else of the primary key. Empty if there are none, or the stream doesn't carry all of them.
    pub key: Vec<String>,
    /// The types of the leading columns of `key` that its chunks can be ranges of.
    pub chunk_key: Vec<KeyType>,
    /// How many rows it has, by the statistics; `None` if nothing has looked at them yet.
    pub rows: Option<i64>,
    /// Its size in bytes, with TOAST and without indexes.
    pub bytes: u64,
    /// The size of its heap in pages.
    pub pages: u64,
}

impl PublishedTable {
    /// The columns that its chunks are ranges of: as many as `chunk_key` has types.
    #[must_use]
    pub fn chunk_columns(&self) -> &[String] {
        &self.key[..self.chunk_key.len()]
    }

    /// Whether it can have a row of more than [`limits::LARGE_ROW_BYTES`]: however well that is compressed,
    /// some of it is outside the heap.
    #[must_use]
    pub fn has_large_values(&self) -> bool {
        self.bytes.saturating_sub(self.pages * 8192) > limits::LARGE_ROW_BYTES / 512
    }

    fn of(row: &Row) -> Result<Self> {
        let columns: Vec<String> = row.get("columns");
        let mut key: Vec<String> = row.get("key_columns");
        if !key.iter().all(|column| columns.contains(column)) {
            key.clear();
        }
        let types: Vec<u32> = row.get("key_types");
        let size = |name| u64::try_from(row.get::<_, i64>(name)).unwrap_or(0);
        Ok(Self {
            oid: row.get("oid"),
            name: TableName::new(row.get::<_, String>("schema"), row.get::<_, String>("name")),
            membership: row.get("membership"),
            is_partitioned: row.get("is_partitioned"),
            root: root(row),
            bounds: row.get("bounds"),
            identity: Identity::of(row)?,
            digest: row.get("digest"),
            row_filter: row.get("row_filter"),
            chunk_key: key.iter().zip(types).map_while(|(_, oid)| key_type(oid)).collect(),
            key,
            columns,
            rows: row.get("rows"),
            bytes: size("bytes"),
            pages: size("pages"),
        })
    }
}

fn root(row: &Row) -> Option<TableName> {
    row.get::<_, Option<String>>("root_schema")
        .zip(row.get::<_, Option<String>>("root_name"))
        .map(|(schema, name)| TableName::new(schema, name))
}

/// The query, with what makes a table's digest of the columns of `c` in the place of `{digest}`.
#[must_use]
pub fn with_digest(query: &str) -> String {
    query.replace("{digest}", include_str!("../../sql/catalog/digest.sql"))
}

/// The kind of range that a column of this type makes, if any. A domain has an oid of its own.
pub(super) fn key_type(oid: u32) -> Option<KeyType> {
    let is = |types: &[Type]| types.iter().any(|t| t.oid() == oid);
    if is(&[Type::INT2, Type::INT4, Type::INT8]) {
        Some(KeyType::Integer)
    } else {
        is(&[Type::UUID]).then_some(KeyType::Uuid)
    }
}

/// The relations that these publications carry in the stream, and nothing else of them.
///
/// # Errors
/// If the source can't be asked.
pub async fn published_names(source: &Client, publications: &[String]) -> Result<Vec<Published>> {
    let rows = source
        .query(include_str!("../../sql/catalog/published_names.sql"), &[&publications])
        .await
        .map_err(|e| Fault::sql(Side::Source, "looking for new tables", &e))?;
    Ok(rows.iter().map(Published::of).collect())
}

/// Lists the relations that these publications carry in the stream, sorted by name.
///
/// # Errors
/// If the source can't be asked.
pub async fn published(source: &Client, publications: &[String]) -> Result<Vec<PublishedTable>> {
    let rows = source
        .query(&with_digest(include_str!("../../sql/catalog/published.sql")), &[&publications])
        .await
        .map_err(|e| Fault::sql(Side::Source, "listing what is published", &e))?;
    rows.iter().map(PublishedTable::of).collect()
}
