//! The source's tables, as far as replication has to know them.

use tokio_postgres::{Client, Row};

use super::names::TableName;
use crate::fault::{Fault, Result, Side};
use crate::provider;

/// How an UPDATE or DELETE of a table names its row in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By the columns of a unique index.
    Key,
    /// By the whole old row.
    Full,
    /// Not at all: the source refuses the UPDATE or DELETE once the table is published.
    None,
}

impl Identity {
    /// Reads the column `identity` of a catalog query.
    pub(super) fn of(row: &Row) -> Result<Self> {
        match row.get("identity") {
            "key" => Ok(Self::Key),
            "full" => Ok(Self::Full),
            "none" => Ok(Self::None),
            other => Err(Fault::bug(format!("unknown identity {other:?} in the catalog query"))),
        }
    }
}

/// A table of the source that can be replicated.
#[derive(Clone, Debug)]
pub struct SourceTable {
    /// Its name.
    pub name: TableName,
    /// Its oid on the source.
    pub oid: u32,
    /// It is the parent of partitions and has no rows of its own.
    pub is_partitioned: bool,
    /// The topmost partitioned table that it is a part of, if it is a partition.
    pub root: Option<TableName>,
    /// Its replica identity.
    pub identity: Identity,
    /// The replica identity that it could be given, `FULL` or `DEFAULT`; `None` if only another primary
    /// key would do.
    pub mend: Option<String>,
    /// The columns that the stream carries: all but the generated ones.
    pub columns: Vec<String>,
}

impl SourceTable {
    /// What a publication and the configuration's patterns name: the topmost parent of a partition,
    /// the table itself otherwise.
    #[must_use]
    pub fn published_as(&self) -> &TableName {
        self.root.as_ref().unwrap_or(&self.name)
    }
}

/// Lists the user's own permanent tables on the source, partitions included, sorted by name.
///
/// # Errors
/// If the source can't be asked.
pub async fn source_tables(source: &Client) -> Result<Vec<SourceTable>> {
    let rows = source
        .query(include_str!("../../sql/catalog/source_tables.sql"), &[&provider::INTERNAL_SCHEMAS])
        .await
        .map_err(|e| Fault::sql(Side::Source, "listing the tables", &e))?;
    rows.iter()
        .map(|row| {
            let root: Option<(String, String)> =
                row.get::<_, Option<String>>("root_schema").zip(row.get::<_, Option<String>>("root_name"));
            Ok(SourceTable {
                name: TableName::new(row.get::<_, String>("schema"), row.get::<_, String>("name")),
                oid: row.get("oid"),
                is_partitioned: row.get("is_partitioned"),
                root: root.map(|(schema, name)| TableName::new(schema, name)),
                identity: Identity::of(row)?,
                mend: row.get("mend"),
                columns: row.get("columns"),
            })
        })
        .collect()
}
