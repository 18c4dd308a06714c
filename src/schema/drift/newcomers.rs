//! Tables that the target lacks.

use std::collections::BTreeSet;

use super::look::Drift;
use super::make::needed;
use crate::catalog::TableName;
use crate::config::Ddl;
use crate::fault::{Fault, Result, Side};
use crate::schema::diff::Kind;
use crate::schema::diff::read::{Catalog, Id, Object};

impl Drift {
    /// Makes tables that the target lacks, with what belongs to them: a new table, or a partitioned one with its
    /// partitions. Says what is in the way, or what a person has to run.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn make_tables(&mut self, name: &TableName, tables: &[TableName]) -> Result<Option<Fault>> {
        if self.is_there("to_regclass", &name.to_sql()).await? {
            return Ok(None);
        }
        let schemas: BTreeSet<&String> = tables.iter().map(|table| &table.schema).collect();
        let schemas: Vec<String> = schemas.into_iter().cloned().collect();
        let (there, here) = self.catalogs(&schemas).await?;
        let is_theirs = |(id, object): &(&Id, &Object)| {
            object.table.as_ref().is_some_and(|table| tables.contains(table)) && !here.contains_key(id)
        };
        let mut objects: Vec<&Object> = there.iter().filter(is_theirs).map(|(_, object)| object).collect();
        // Sequences are made with what needs them.
        objects
            .retain(|object| !matches!(object.kind, Kind::Column | Kind::Sequence) && object.make.is_some());
        // Parents before those that have them.
        objects.sort_by_key(|object| {
            (
                object.kind,
                object.facet("partition of").is_some() || object.facet("inherits").is_some(),
                object.oid,
            )
        });
        let has_rows = |object: &&Object| matches!(object.kind, Kind::Table | Kind::PrimaryKey);
        let (first, then): (Vec<&Object>, Vec<&Object>) = objects.into_iter().partition(has_rows);
        let statements = |objects: &[&Object], here: &Catalog| -> Vec<String> {
            let statements: Vec<String> =
                objects.iter().flat_map(|object| object.make.clone().unwrap_or_default()).collect();
            [needed(&statements, &there, here), statements].concat()
        };
        let first = statements(&first, &here);
        let fault = |what: String| {
            let remedy = format!("on the target: {}; it is followed by itself then", first.join("; "));
            Fault::person(what).on(Side::Target).table(name.to_string()).remedy(remedy)
        };
        if self.ddl == Ddl::None {
            return Ok(Some(fault("the source has a new table, which the target lacks".to_owned())));
        }
        if let Err(refusal) = self.make(name, &first).await? {
            return Ok(Some(fault(format!(
                "the source has a new table, which the target refuses: {refusal}"
            ))));
        }
        let (_, here) = self.catalogs(&schemas).await?;
        for object in then {
            // What can't be made now is missing in `cdc schema diff`.
            if let Err(refusal) = self.make(name, &statements(&[object], &here)).await? {
                tracing::warn!(table = %name, "{} {} is not made: {refusal}", object.kind.as_str(), object.name);
            }
        }
        Ok(None)
    }
}
