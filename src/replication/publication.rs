//! The publications on the source: which tables are in the stream.
//!
//! Two at most: `cdc_<name>` for tables whose rows have a replica identity, and
//! `cdc_<name>_insert` for those that are declared `insert_only`. Partitions are published as
//! themselves, through their topmost parent's entry; so a TRUNCATE of one partition is in the
//! stream, which `publish_via_partition_root` would leave out.

use tokio_postgres::{Client, Row};

use crate::catalog::{TableName, quote_identifier};
use crate::fault::{COPY_ALL_AGAIN, Fault, Reaction, Result, Side};
use crate::limits;

/// What a publication should hold.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Its name.
    pub name: String,
    /// Only INSERT and TRUNCATE are published.
    pub insert_only: bool,
    /// Its tables, sorted; partitioned ones by their topmost parent.
    pub tables: Vec<TableName>,
}

impl Publication {
    /// The tables that the publication of this name holds on the source, as they were listed;
    /// `None` if there is no such publication.
    ///
    /// # Errors
    /// If the source can't be asked.
    pub async fn find(source: &Client, name: &str) -> Result<Option<Vec<TableName>>> {
        let fault = |e| Fault::sql(Side::Source, "looking for the publication", &e);
        let exists = source
            .query_opt("SELECT FROM pg_catalog.pg_publication WHERE pubname = $1", &[&name])
            .await
            .map_err(fault)?;
        if exists.is_none() {
            return Ok(None);
        }
        // Partitions appear as themselves or as their topmost parent, as the publication has it.
        let rows = source
            .query(
                "SELECT DISTINCT coalesce(rn.nspname, t.schemaname)::text, coalesce(r.relname, t.tablename)::text
                   FROM pg_catalog.pg_publication_tables t
                   JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
                   JOIN pg_catalog.pg_class c ON c.relname = t.tablename AND c.relnamespace = n.oid
                   LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
                   LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
                  WHERE t.pubname = $1
                  ORDER BY 1, 2",
                &[&name],
            )
            .await
            .map_err(fault)?;
        Ok(Some(
            rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect(),
        ))
    }

    /// The fault that says that a publication is not there any more.
    #[must_use]
    pub fn gone(name: &str) -> Fault {
        Fault::new(Reaction::CopyAgain, format!("the publication {name} is gone"))
            .on(Side::Source)
            .remedy(format!(
                "changes made while it is missing can't be decoded any more, also if it is made again: {COPY_ALL_AGAIN}"
            ))
    }

    /// The fault that says that a table is not in the stream (any more).
    #[must_use]
    pub fn lacks(table: &TableName) -> Fault {
        Fault::person("the table is not followed: it is not in the migration's publication")
            .on(Side::Source)
            .table(table.to_string())
            .remedy(
                "ALTER PUBLICATION ... ADD TABLE ... on the source, and its rows are copied (again); or exclude it in \
                 the configuration",
            )
    }

    /// Finds out whether it is still what [`Publication::create`] made of it, but for the list of its
    /// tables, which may grow and shrink. If not: what was changed, and the relations of which something
    /// is left out of the stream.
    ///
    /// # Errors
    /// If the source can't be asked.
    pub async fn change(&self, source: &Client) -> Result<Option<(Fault, Vec<u32>)>> {
        // PostgreSQL 14 has neither row filters nor column lists.
        let rows = source
            .query(
                "SELECT t.relid, r.prrelid::regclass::text, p.pubviaroot,
                        concat(pg_catalog.to_jsonb(r) ->> 'prqual', pg_catalog.to_jsonb(r) ->> 'prattrs') <> '',
                        concat_ws(', ', CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
                                  CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END)
                   FROM pg_catalog.pg_publication AS p
                   JOIN pg_catalog.pg_publication_rel AS r ON r.prpubid = p.oid
                  CROSS JOIN LATERAL (SELECT r.prrelid AS relid
                                       UNION SELECT relid FROM pg_catalog.pg_partition_tree(r.prrelid)) AS t
                  WHERE p.pubname = $1",
                &[&self.name],
            )
            .await
            .map_err(|e| Fault::sql(Side::Source, "looking at the publication", &e))?;
        let relations =
            |of: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| of(row)).map(|row| row.get(0)).collect();
        let Some(first) = rows.first() else { return Ok(None) };
        let (name, publish) = (&self.name, first.get::<_, &str>(4));
        let (what, remedy, left_out) = if publish != self.publish() {
            (
                format!("publishes {publish:?}"),
                format!("SET (publish = '{}')", self.publish()),
                relations(&|_| true),
            )
        } else if first.get(2) {
            (
                "publishes partitions as their root".to_owned(),
                "SET (publish_via_partition_root = false)".to_owned(),
                relations(&|_| true),
            )
        } else if let Some(row) = rows.iter().find(|row| row.get(3)) {
            let table: &str = row.get(1);
            (
                format!("has a row filter or a column list for {table}"),
                format!("DROP TABLE {table}; ALTER PUBLICATION {name} ADD TABLE {table}"),
                relations(&|row| row.get(3)),
            )
        } else {
            return Ok(None);
        };
        let fault = Fault::person(format!("the publication {name} was changed: it {what}"))
            .on(Side::Source)
            .remedy(format!(
                "on the source: ALTER PUBLICATION {name} {remedy}. What it has left out meanwhile is in no stream, so \
                 those tables are copied again then"
            ));
        Ok(Some((fault, left_out)))
    }

    /// What is published, as `publish` has it.
    fn publish(&self) -> &'static str {
        if self.insert_only { "insert, truncate" } else { "insert, update, delete, truncate" }
    }

    /// Makes it.
    ///
    /// # Errors
    /// If the source refuses, with what to do.
    pub async fn create(&self, source: &Client, partitioned: &[TableName]) -> Result<()> {
        self.execute(source, &self.to_sql(partitioned)).await
    }

    /// Finds out whether the source would let us make it, and leaves nothing behind.
    ///
    /// # Errors
    /// Those of [`Publication::create`]. The session's transaction is left failed then.
    pub async fn rehearse(&self, source: &Client, partitioned: &[TableName]) -> Result<()> {
        self.execute(source, &format!("BEGIN; {}; ROLLBACK", self.to_sql(partitioned))).await
    }

    /// Adds a table to it.
    ///
    /// # Errors
    /// If the source refuses, with what to do.
    pub async fn add(&self, source: &Client, table: &TableName, is_partitioned: bool) -> Result<()> {
        self.alter(source, table, &format!("ADD TABLE {}", table.only(is_partitioned))).await
    }

    /// Takes a table out of it.
    ///
    /// # Errors
    /// If the source refuses, with what to do.
    pub async fn remove(&self, source: &Client, table: &TableName) -> Result<()> {
        self.alter(source, table, &format!("DROP TABLE {}", table.to_sql())).await
    }

    /// Nobody who uses the table is to wait for us.
    async fn alter(&self, source: &Client, table: &TableName, action: &str) -> Result<()> {
        let name = quote_identifier(&self.name);
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; ALTER PUBLICATION {name} {action}; COMMIT",
            limits::DDL_LOCK_WAIT_MS
        );
        let Err(error) = source.batch_execute(&sql).await else { return Ok(()) };
        // Whatever is asked next on this session is not to fail because of this.
        let _ = source.batch_execute("ROLLBACK").await;
        let fault = Fault::sql(Side::Source, &format!("changing the publication {name}"), &error);
        let fault = fault.table(table.to_string());
        Err(match fault.code().map(|code| code.code()) {
            Some("42501") => fault.remedy(
                "the role must own the table: connect as the owner, or leave the table out ([tables] exclude)",
            ),
            _ => fault,
        })
    }

    fn to_sql(&self, partitioned: &[TableName]) -> String {
        let tables: Vec<String> = self
            .tables
            .iter()
            // ONLY keeps tables that inherit from it out; a partitioned table has none but its partitions.
            .map(|t| if partitioned.contains(t) { t.to_sql() } else { format!("ONLY {}", t.to_sql()) })
            .collect();
        let list =
            if tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", tables.join(", ")) };
        let (name, publish) = (quote_identifier(&self.name), self.publish());
        format!("CREATE PUBLICATION {name}{list} WITH (publish = '{publish}')")
    }

    async fn execute(&self, source: &Client, sql: &str) -> Result<()> {
        source.batch_execute(sql).await.map_err(|e| {
            let fault = Fault::sql(Side::Source, &format!("creating the publication {}", self.name), &e);
            match fault.code().map(|code| code.code()) {
                Some("42501") => fault.remedy(
                    "the role must own the tables and have CREATE on the database: connect as the owner, or \
                     GRANT CREATE ON DATABASE ... TO ..., or leave the table out ([tables] exclude)",
                ),
                _ => fault,
            }
        })
    }
}
