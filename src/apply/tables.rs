//! What is known of the target's tables.

use std::collections::HashMap;
use std::sync::Arc;

use super::table::Fitted;
use crate::catalog::TableName;
use crate::connect::{Mode, Session};
use crate::fault::{Fault, Result, Side};
use crate::pgoutput::Relation;
use crate::schema;
use crate::schema::drift::Known;

/// What is known of the target's tables.
pub(super) struct Tables {
    /// The topmost parent of each partition on the source that has no partitions itself.
    roots: HashMap<TableName, TableName>,
    /// Which columns of the target those of the stream are, by the source's oid.
    known: HashMap<u32, Known>,
    /// Tables by the source's oid.
    fitted: HashMap<u32, Arc<Fitted>>,
}

impl Tables {
    pub(super) fn new(roots: HashMap<TableName, TableName>, known: HashMap<u32, Known>) -> Self {
        Self { roots, known, fitted: HashMap::new() }
    }

    /// More tables have come: partitions with their topmost parents, and how the tables are built.
    pub(super) fn learn(&mut self, roots: Vec<(TableName, TableName)>, known: Vec<(u32, Known)>) {
        self.roots.extend(roots);
        for (relation, known) in known {
            self.fitted.remove(&relation);
            self.known.insert(relation, known);
        }
    }

    /// The target's table for a relation, if it has been looked up and the relation hasn't changed since.
    pub(super) fn get(&self, relation: &Arc<Relation>) -> Option<Arc<Fitted>> {
        self.fitted.get(&relation.oid).filter(|fitted| Arc::ptr_eq(&fitted.relation, relation)).cloned()
    }

    /// Looks the target's table for a relation up.
    pub(super) async fn look(
        &mut self,
        session: &Session,
        relation: &Arc<Relation>,
        mode: Mode,
    ) -> Result<Arc<Fitted>> {
        let root = self.roots.get(&TableName::new(&relation.schema, &relation.name));
        let known = self.known.get(&relation.oid);
        let fitted = Arc::new(Fitted::new(session, Arc::clone(relation), root, known).await?);
        // The next start holds it back.
        schema::refuse_stirring(&**session, &fitted.target, mode).await?;
        self.fitted.insert(relation.oid, Arc::clone(&fitted));
        Ok(fitted)
    }

    /// One statement for all tables: foreign keys between them don't stand in its way then.
    ///
    /// Never CASCADE: what the source's CASCADE has reached is in the list, and nothing else on the
    /// target may lose rows.
    pub(super) fn truncate(&self, tables: &[Arc<Fitted>], restart_identity: bool) -> Result<String> {
        let mut names: Vec<String> = Vec::new();
        let listed: Vec<&TableName> = tables.iter().map(|table| &table.source).collect();
        for table in tables {
            if table.through_root && self.partitions_of(&table.target).any(|p| !listed.contains(&p)) {
                return Err(Fault::person(format!(
                    "the source truncated the partition {}, which the target doesn't have: its rows are among others \
                     there",
                    table.source
                ))
                .on(Side::Target)
                .table(table.target.to_string())
                .remedy(
                    "create the same partition on the target and move its rows there; the stream goes on by itself \
                     within 30 s",
                ));
            }
            if !names.contains(&table.only()) {
                names.push(table.only());
            }
        }
        let restart = if restart_identity { " RESTART IDENTITY" } else { "" };
        Ok(format!("TRUNCATE {}{restart}", names.join(", ")))
    }

    /// The source's partitions whose rows are in this table of the target: those that there were at
    /// the start, and those that have been in the stream since.
    fn partitions_of<'a>(&'a self, root: &'a TableName) -> impl Iterator<Item = &'a TableName> {
        let at_start = self.roots.iter().filter(move |(_, r)| *r == root).map(|(partition, _)| partition);
        let since = self.fitted.values().filter(move |t| t.root.as_ref() == Some(root)).map(|t| &t.source);
        at_start.chain(since)
    }
}
