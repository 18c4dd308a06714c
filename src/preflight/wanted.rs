//! Which tables the migration replicates, and what a publication made by hand leaves of them.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use crate::catalog::{Identity, SourceTable, TableName, missing_on_target, source_tables};
use crate::config::{Config, Selection};
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::replication::Publication;

/// What the configuration selects on the source.
pub(crate) struct Wanted {
    /// Every selected table, partitions and their parents included.
    pub(crate) tables: Vec<SourceTable>,
    /// The publications that carry them; the second only if something is `insert_only`.
    pub(crate) publications: Vec<Publication>,
    /// Selected tables without a usable replica identity, with the one that each could be given.
    pub(super) unusable: BTreeMap<TableName, Option<String>>,
    /// Patterns of the configuration that match no table.
    pub(super) unmatched: Vec<String>,
}

impl Wanted {
    /// Asks the source for its tables and selects.
    pub(crate) async fn on(source: &Client, config: &Config) -> Result<Self> {
        let all = source_tables(source).await?;
        let unmatched = config.tables.unmatched(&all);
        let mut tables = Vec::new();
        let mut unusable = BTreeMap::new();
        let mut by_selection = [BTreeSet::new(), BTreeSet::new()];
        for table in all {
            let names = match config.tables.select(&table) {
                Selection::Out => continue,
                Selection::All => {
                    // A partitioned parent has no rows of its own; its partitions are what counts.
                    if table.identity == Identity::None && !table.is_partitioned {
                        unusable.insert(table.name.clone(), table.mend.clone());
                    }
                    &mut by_selection[0]
                }
                Selection::InsertOnly => &mut by_selection[1],
            };
            names.insert(table.published_as().clone());
            tables.push(table);
        }
        let [complete, insert_only] = by_selection.map(|names| names.into_iter().collect::<Vec<_>>());
        let mut publications =
            vec![Publication { name: config.slot(), insert_only: false, tables: complete }];
        if !insert_only.is_empty() {
            let name = config.insert_only_publication();
            publications.push(Publication { name, insert_only: true, tables: insert_only });
        }
        Ok(Self { tables, publications, unusable, unmatched })
    }

    /// The names of the tables that are published for INSERT and TRUNCATE only.
    pub(crate) fn insert_only(&self) -> &[TableName] {
        self.publications.iter().find(|p| p.insert_only).map_or(&[], |p| &p.tables)
    }

    /// Leaves out what publications that were made by hand leave out: tables, columns, and the
    /// UPDATEs and DELETEs that need a replica identity.
    pub(crate) async fn narrow(&mut self, source: &Client, ledger: &Ledger) -> Result<()> {
        let ours =
            if ledger.exists().await? { ledger.publications_created().await? } else { Default::default() };
        for publication in &self.publications {
            if ours.contains(&publication.name) {
                continue;
            }
            let Some(content) = Content::of(source, &publication.name).await? else { continue };
            content.refuse_generated(&publication.name)?;
            self.tables.retain_mut(|table| {
                !publication.tables.contains(table.published_as()) || content.narrow(table)
            });
            let tables = &self.tables;
            self.unusable.retain(|name, _| content.needs_identity && tables.iter().any(|t| t.name == *name));
        }
        Ok(())
    }

    /// Leaves out all but these, partitions by their topmost parents; gives what is left out.
    pub(crate) fn keep(&mut self, names: &BTreeSet<TableName>) -> BTreeSet<TableName> {
        let others = self.tables.extract_if(.., |table| !names.contains(table.published_as()));
        let left_out = others.map(|table| table.published_as().clone()).collect();
        for publication in &mut self.publications {
            publication.tables.retain(|name| names.contains(name));
        }
        self.unusable.retain(|name, _| self.tables.iter().any(|table| table.name == *name));
        left_out
    }

    /// Refuses what can't work, before anything is touched.
    pub(crate) fn check(&self) -> Result<()> {
        for pattern in &self.unmatched {
            tracing::warn!(pattern, "a pattern of the configuration matches no table of the source");
        }
        if self.tables.is_empty() {
            return Err(Fault::person("no table of the source is selected")
                .on(Side::Source)
                .remedy("check [tables] include and exclude, and that the role sees the right database"));
        }
        if !self.unusable.is_empty() {
            return Err(self.no_identity());
        }
        Ok(())
    }

    /// Refuses a target that lacks something.
    pub(crate) async fn check_target(&self, target: &Client) -> Result<()> {
        let tables: Vec<&SourceTable> = self.tables.iter().collect();
        let missing = missing_on_target(target, &tables).await?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Fault::person(format!("the target lacks {}", missing.join(", "))).on(Side::Target).remedy(
            "cdc schema apply makes what is missing, as the first start does unless the configuration has [schema] copy = \
             false; or exclude the tables",
        ))
    }

    /// The oids of what is published under this name: a table, or a partitioned one and its partitions.
    pub(crate) fn relations(&self, name: &TableName) -> Vec<u32> {
        let of = |table: &&SourceTable| table.published_as() == name;
        self.tables.iter().filter(of).map(|table| table.oid).collect()
    }

    /// True if its UPDATEs would fail once it is published.
    pub(crate) fn is_unusable(&self, table: &SourceTable) -> bool {
        self.unusable.contains_key(&table.name)
    }

    /// The fault that says why a table, or one of its partitions, is not published.
    pub(crate) fn without_identity(&self, name: &TableName) -> Fault {
        let of = |table: &&SourceTable| table.published_as() == name && self.is_unusable(table);
        let mends = self.tables.iter().filter(of).filter_map(|table| {
            let mend = self.unusable.get(&table.name)?.as_ref()?;
            Some(format!("ALTER TABLE {} REPLICA IDENTITY {mend}", table.name.to_sql()))
        });
        let mends: Vec<String> = mends.collect();
        let or_run = match mends.is_empty() {
            true => String::new(),
            false => format!(", or run there: {}", mends.join("; ")),
        };
        Fault::person(
            "the table has no replica identity: it is not published, as every UPDATE and DELETE of it would fail on the \
             source",
        )
        .on(Side::Source)
        .table(name.to_string())
        .remedy(format!(
            "give it a primary key on the source{or_run}; it is copied by itself then. Or name it in [tables] \
             insert_only if its rows never change, or in exclude"
        ))
    }

    /// The fault that names the tables without a replica identity.
    fn no_identity(&self) -> Fault {
        let names: Vec<String> = self.unusable.keys().map(TableName::to_string).collect();
        let statements: Vec<String> = self
            .unusable
            .iter()
            .filter_map(|(table, mend)| {
                Some(format!("ALTER TABLE {} REPLICA IDENTITY {};", table.to_sql(), mend.as_ref()?))
            })
            .collect();
        let or_run = match statements.is_empty() {
            true => ".".to_owned(),
            false => format!(", or run on the source: {}", statements.join(" ")),
        };
        // Where they have one, it is no remedy: PostgreSQL 18 and generated columns.
        let must = match self.unusable.values().any(Option::is_none) {
            true => {
                " without generated columns (a server of version 18 or newer refuses REPLICA IDENTITY FULL where \
                     there are any)"
            }
            false => "",
        };
        Fault::person(format!(
            "no replica identity: {}. Published like this, every UPDATE and DELETE of them would fail on the source",
            names.join(", ")
        ))
        .on(Side::Source)
        .remedy(format!(
            "give each a primary key{must}{or_run} Or name it in [tables] insert_only if its rows never change, or in \
             exclude"
        ))
    }

    /// The tables of the target that will take rows, partitions by their topmost parent there.
    pub(crate) async fn targets(&self, target: &Client) -> Result<Vec<TableName>> {
        let leaves: Vec<&SourceTable> = self.tables.iter().filter(|table| !table.is_partitioned).collect();
        let names: Vec<String> = leaves.iter().map(|table| table.name.to_sql()).collect();
        let roots: Vec<String> = leaves.iter().map(|table| table.published_as().to_sql()).collect();
        let rows = target
            .query(
                "SELECT DISTINCT n.nspname::text, c.relname::text
                   FROM unnest($1::text[], $2::text[]) AS t (name, root)
                  CROSS JOIN LATERAL coalesce(pg_catalog.to_regclass(t.name), pg_catalog.to_regclass(t.root)) AS f (oid)
                   JOIN pg_catalog.pg_class c ON c.oid = coalesce(pg_catalog.pg_partition_root(f.oid), f.oid)
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  ORDER BY 1, 2",
                &[&names, &roots],
            )
            .await
            .map_err(|e| Fault::sql(Side::Target, "looking for the tables", &e))?;
        Ok(rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
    }
}

/// What a publication holds.
struct Content {
    /// UPDATEs or DELETEs are published.
    needs_identity: bool,
    /// Tables, or the topmost parents of partitions, with their published columns.
    tables: Vec<(TableName, Vec<String>)>,
    /// Generated columns that are published, as a person would name them.
    generated: Vec<String>,
}

impl Content {
    /// `None` if there is no such publication.
    async fn of(source: &Client, name: &str) -> Result<Option<Self>> {
        let fault = |e| Fault::sql(Side::Source, "reading the publication", &e);
        let publication = source
            .query_opt(
                "SELECT pubupdate OR pubdelete FROM pg_catalog.pg_publication WHERE pubname = $1",
                &[&name],
            )
            .await
            .map_err(fault)?;
        let Some(publication) = publication else { return Ok(None) };
        // PostgreSQL 14 has no column lists, and its view no attnames.
        let rows = source
            .query(
                "SELECT t.schemaname::text, t.tablename::text,
                        array(SELECT a.attname::text
                                FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = pg_catalog.format('%I.%I', t.schemaname, t.tablename)::pg_catalog.regclass
                                 AND coalesce(pg_catalog.to_jsonb(t) -> 'attnames' ? a.attname::text, true)),
                        array(SELECT pg_catalog.format('%s of %s.%s', a.attname, t.schemaname, t.tablename)
                                FROM pg_catalog.pg_attribute a
                               WHERE a.attrelid = pg_catalog.format('%I.%I', t.schemaname, t.tablename)::pg_catalog.regclass
                                 AND a.attgenerated <> ''
                                 AND pg_catalog.to_jsonb(t) -> 'attnames' ? a.attname::text)
                   FROM pg_catalog.pg_publication_tables t
                  WHERE t.pubname = $1",
                &[&name],
            )
            .await
            .map_err(fault)?;
        let tables = rows
            .iter()
            .map(|row| (TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)), row.get(2)))
            .collect();
        let generated = rows.iter().flat_map(|row| row.get::<_, Vec<String>>(3)).collect();
        Ok(Some(Self { needs_identity: publication.get(0), tables, generated }))
    }

    /// Refuses generated columns, which a publication can have from 18 on: the target computes its own.
    fn refuse_generated(&self, name: &str) -> Result<()> {
        if self.generated.is_empty() {
            return Ok(());
        }
        Err(Fault::person(format!(
            "the publication {name} publishes generated columns, which the target computes by itself: {}",
            self.generated.join(", ")
        ))
        .on(Side::Source)
        .remedy(format!(
            "on the source: ALTER PUBLICATION {} SET (publish_generated_columns = none), and leave them out of its \
             column lists",
            crate::catalog::quote_identifier(name)
        )))
    }

    /// Leaves out the table's unpublished columns; false if it isn't published at all.
    fn narrow(&self, table: &mut SourceTable) -> bool {
        let held = self.tables.iter().find(|(name, _)| *name == table.name || name == table.published_as());
        let Some((_, columns)) = held else { return false };
        table.columns.retain(|column| columns.contains(column));
        true
    }
}
