//! What a new column gets when every row of before is here: its default, and NOT NULL.

use super::look::{Drift, Ends};
use super::make::needed;
use super::shape::{Shape, Table};
use crate::catalog::{TableName, quote_identifier};
use crate::config::Ddl;
use crate::fault::Result;
use crate::lsn::Lsn;
use crate::schema::diff::Kind;
use crate::schema::diff::read::{Catalog, Object};

impl Drift {
    /// Gives new columns the default that they have on the source, and NOT NULL, once every row of before is here.
    /// Gives the statements that may not be run.
    pub(super) async fn finish(
        &mut self,
        ends: &mut Ends,
        source: &Table,
        target: &Table,
        next: &mut Shape,
    ) -> Result<Vec<String>> {
        let checkpoint = ends.checkpoint;
        let is_due = |lsn: Option<Lsn>| lsn.is_some_and(|lsn| lsn <= checkpoint);
        if ends.unfinished.contains(&source.oid) || !next.columns.iter().any(|c| is_due(c.unfinished)) {
            return Ok(Vec::new());
        }
        let (there, here) = self.objects(ends, false).await?;
        let object = |catalog: &Catalog, table: &Table, name: &str| {
            let object = table.by_name(name)?.object.clone();
            catalog.get(&(Kind::Column, object)).cloned()
        };
        let mut statements = Vec::new();
        for column in next.columns.iter().filter(|column| is_due(column.unfinished)) {
            let both = object(&there, source, &column.name).zip(object(&here, target, &column.name));
            if let Some((wanted, has)) = both {
                statements.extend(finishing(target.altered_as(), &column.name, &wanted, &has));
            }
        }
        let owners = there.iter().filter(|(id, object)| {
            id.0 == Kind::SequenceOwner
                && object.table.as_ref() == Some(&source.name)
                && !here.contains_key(id)
        });
        let owners: Vec<String> =
            owners.flat_map(|(_, object)| object.make.clone().unwrap_or_default()).collect();
        let all = [needed(&statements, &there, &here), statements, owners].concat();
        if !all.is_empty() && (self.ddl == Ddl::None || self.make(target.altered_as(), &all).await?.is_err())
        {
            return Ok(all);
        }
        next.columns
            .iter_mut()
            .filter(|column| is_due(column.unfinished))
            .for_each(|column| column.unfinished = None);
        ends.objects = None;
        Ok(Vec::new())
    }
}

/// What makes a column's default and NOT NULL the source's.
fn finishing(table: &TableName, column: &str, wanted: &Object, has: &Object) -> Vec<String> {
    let mut actions = Vec::new();
    match (wanted.facet("default"), has.facet("default")) {
        (wanted, has) if wanted == has => {}
        (Some(default), _) => actions.push(format!("SET DEFAULT {default}")),
        (None, _) => actions.push("DROP DEFAULT".to_owned()),
    }
    if wanted.facet("not null").is_some() && has.facet("not null").is_none() {
        actions.push("SET NOT NULL".to_owned());
    }
    let column = quote_identifier(column);
    actions
        .iter()
        .map(|action| format!("ALTER TABLE {} ALTER COLUMN {column} {action}", table.to_sql()))
        .collect()
}
