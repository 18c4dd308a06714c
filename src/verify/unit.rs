//! What is compared: the tables of the stream, as the ledger and both catalogs have them.

use std::collections::{BTreeMap, BTreeSet};

use super::Part;
use super::sql::{Hash, KeyColumn, Place, select};
use crate::catalog::{
    Bounds, PublishedTable, TableName, TargetTable, destination, published, source_tables, target_table,
};
use crate::chunk::{KeyRange, KeyType};
use crate::config::{Config, Selection};
use crate::connect::Session;
use crate::copy;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;

/// A table, or all partitions together that the target keeps otherwise.
pub(super) struct Unit {
    /// Its name: that of the topmost parent where partitions are compared together.
    pub(super) name: TableName,
    /// The oids on the source of what it is made of.
    pub(super) relations: Vec<u32>,
    /// The columns that its chunks are ranges of.
    pub(super) range_columns: Vec<String>,
    /// When the last of its chunks had been copied when the comparison began.
    pub(super) copied_at: String,
    /// How large it is on the source.
    pub(super) bytes: u64,
    /// The ranges to compare, if not all of it.
    ranges: Vec<KeyRange>,
    table: PublishedTable,
    is_one_chunk: bool,
    source: Place,
    target: Place,
}

/// What is found to be compared, and what can't be, with the reason.
#[derive(Default)]
pub(super) struct Units {
    pub(super) units: Vec<Unit>,
    pub(super) not_compared: Vec<(TableName, u32, String)>,
}

impl Unit {
    /// How one side reads it.
    pub(super) fn place(&self, side: Side) -> &Place {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// The ranges that it is compared in.
    pub(super) async fn plan(&self, source: &Session, chunk_bytes: u64) -> Result<Vec<KeyRange>> {
        if self.ranges.is_empty() {
            return copy::plan(source, &self.table, chunk_bytes, self.is_one_chunk).await;
        }
        let types = Some(self.table.chunk_key.clone());
        if self.ranges.iter().all(|range| *range == KeyRange::ALL || range.key_types() == types) {
            return Ok(self.ranges.clone());
        }
        Err(Fault::person("the ranges are not those of the table's key any more")
            .table(self.name.to_string()))
    }
}

/// The sides' catalogs, and what of them is asked for.
pub(super) struct Search<'a> {
    pub(super) config: &'a Config,
    pub(super) ledger: &'a Ledger,
    pub(super) source: &'a Session,
    pub(super) target: &'a Session,
    pub(super) only: Option<&'a [Part]>,
    pub(super) hash: Hash,
}

impl Search<'_> {
    /// Looks for everything that is to be compared.
    pub(super) async fn units(&self) -> Result<Units> {
        let publications = self.ledger.publications().await?;
        let mut tables = published(self.source, &publications).await?;
        tables.retain(|table| self.is_wanted(&table.name, table.root.as_ref()));
        let mut found = Units::default();
        self.left_out(&tables, &mut found).await?;
        // Those that the target keeps in another way go together.
        let mut by_root: BTreeMap<TableName, Vec<PublishedTable>> = BTreeMap::new();
        let mut alone = Vec::new();
        for table in tables {
            match table.root.clone() {
                Some(root) => by_root.entry(root).or_default().push(table),
                None => alone.push(vec![table]),
            }
        }
        for (root, parts) in by_root {
            match self.together(&root, parts).await {
                Ok(groups) => alone.extend(groups),
                Err((parts, fault)) => found
                    .not_compared
                    .extend(parts.into_iter().map(|part| (part.name, part.oid, fault.to_string()))),
            }
        }
        for parts in alone {
            let (name, oid) = (parts[0].name.clone(), parts[0].oid);
            match self.unit(parts).await {
                Ok(unit) => found.units.push(unit),
                Err(fault) if fault.is_unreachable() => return Err(fault),
                Err(fault) => found.not_compared.push((name, oid, fault.to_string())),
            }
        }
        found.units.sort_by_key(|unit| std::cmp::Reverse(unit.bytes));
        Ok(found)
    }

    fn part(&self, name: &TableName, root: Option<&TableName>) -> Option<&Part> {
        self.only?.iter().find(|part| part.table == *name || Some(&part.table) == root)
    }

    fn is_wanted(&self, name: &TableName, root: Option<&TableName>) -> bool {
        self.only.is_none() || self.part(name, root).is_some()
    }

    /// The source's tables that are to be replicated and aren't.
    async fn left_out(&self, tables: &[PublishedTable], found: &mut Units) -> Result<()> {
        let published: BTreeSet<u32> = tables.iter().map(|table| table.oid).collect();
        let all = source_tables(self.source).await?;
        for part in self.only.unwrap_or_default() {
            let is_it = |name: &TableName| *name == part.table;
            let is_there =
                all.iter().any(|table| is_it(&table.name)) || tables.iter().any(|t| is_it(&t.name));
            if !is_there {
                return Err(Fault::usage(format!("the source has no table {}", part.table))
                    .remedy("write it as schema.table, in the case that the catalog has it in"));
            }
        }
        for table in &all {
            let is_selected = self.config.tables.select(table) != Selection::Out || self.only.is_some();
            let root_is_published =
                table.root.as_ref().is_some_and(|root| tables.iter().any(|table| table.name == *root));
            let is_in = published.contains(&table.oid) || root_is_published || table.is_partitioned;
            if is_selected && self.is_wanted(&table.name, table.root.as_ref()) && !is_in {
                let reason = "it is not in the stream: a daemon that runs takes it in by itself within seconds, unless \
                              cdc status has an incident about it, or the publication was made by hand (ALTER \
                              PUBLICATION ... ADD TABLE)";
                found.not_compared.push((table.name.clone(), table.oid, reason.to_owned()));
            }
        }
        Ok(())
    }

    /// The partitions of one root: each by itself where the target has it, all together where it lacks one.
    async fn together(
        &self,
        root: &TableName,
        parts: Vec<PublishedTable>,
    ) -> std::result::Result<Vec<Vec<PublishedTable>>, (Vec<PublishedTable>, Fault)> {
        let (mut shared, mut alone) = (Vec::new(), Vec::new());
        let mut is_one_missing = false;
        for part in &parts {
            match target_table(self.target, &part.name).await {
                Ok(Some(found)) if found.root.as_ref() != Some(root) => alone.push(vec![part.clone()]),
                Ok(found) => {
                    is_one_missing |= found.is_none();
                    shared.push(part.clone());
                }
                Err(fault) => return Err((parts, fault)),
            }
        }
        if is_one_missing {
            alone.push(shared);
        } else {
            alone.extend(shared.into_iter().map(|part| vec![part]));
        }
        Ok(alone)
    }

    async fn unit(&self, parts: Vec<PublishedTable>) -> Result<Unit> {
        let table = parts.first().cloned().ok_or_else(|| Fault::bug("a table that is none"))?;
        let relations: Vec<u32> = parts.iter().map(|part| part.oid).collect();
        let Some(copied_at) = self.ledger.copied_at(&relations).await? else {
            return Err(Fault::person("it is still being copied").table(table.name.to_string()));
        };
        let (target, through_root) =
            destination(self.target, &table.name, table.root.as_ref(), Bounds::Told).await?;
        let through_root = through_root || parts.len() > 1;
        let target = match (&table.root, through_root) {
            (Some(root), true) => target_table(self.target, root).await?.unwrap_or(target),
            _ => target,
        };
        let lacking: Vec<&str> = table
            .columns
            .iter()
            .filter(|name| !target.columns.iter().any(|column| column.name == **name))
            .map(String::as_str)
            .collect();
        if !lacking.is_empty() {
            let what = format!("the target's table lacks {}", lacking.join(", "));
            return Err(Fault::person(what)
                .on(Side::Target)
                .table(target.name.to_string())
                .remedy("add the columns there as they are on the source"));
        }
        // A row of the target with NULL in its key is in no range, and equal to no key.
        let is_whole = |name: &String| target.columns.iter().any(|c| c.name == *name && c.is_not_null);
        let has_key = table.key.iter().all(is_whole) && parts.iter().all(|part| part.key == table.key);
        let key = if has_key { &table.key[..] } else { &[] };
        let described =
            target_table(self.source, &table.name).await.map_err(|fault| fault.on(Side::Source))?;
        let described = described.ok_or_else(|| Fault::person("the table is gone").on(Side::Source))?;
        let from = |part: &PublishedTable| {
            select(&part.name.only(part.is_partitioned), &table.columns, part.row_filter.as_deref())
        };
        let place = |rows: String, of: &TargetTable| Place {
            rows,
            columns: table.columns.clone(),
            key: key.iter().filter_map(|name| key_column(of, name)).collect(),
            hash: self.hash,
        };
        let target_rows = select(&target.name.only(target.is_partitioned), &table.columns, None);
        let chunk_key: Vec<(String, KeyType)> =
            table.chunk_columns().iter().cloned().zip(table.chunk_key.iter().copied()).collect();
        let part = self.part(&table.name, table.root.as_ref());
        Ok(Unit {
            name: if through_root { target.name.clone() } else { table.name.clone() },
            relations,
            copied_at,
            range_columns: table.chunk_columns().to_vec(),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            ranges: part.map(|part| part.ranges.clone()).unwrap_or_default(),
            is_one_chunk: through_root || !has_key || !target.has_ranges_of(&chunk_key),
            source: place(parts.iter().map(from).collect::<Vec<_>>().join(" UNION ALL "), &described),
            target: place(target_rows, &target),
            table,
        })
    }
}

fn key_column(table: &TargetTable, name: &str) -> Option<KeyColumn> {
    let column = table.columns.iter().find(|column| column.name == name)?;
    Some(KeyColumn {
        name: column.name.clone(),
        type_name: column.type_name.clone(),
        equality_schema: column.equality_schema.clone(),
    })
}
