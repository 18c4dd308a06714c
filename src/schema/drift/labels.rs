//! The values of enums.

use std::collections::{BTreeMap, BTreeSet};

use super::look::{Drift, Ends};
use super::shape::Table;
use crate::config::Ddl;
use crate::fault::{Fault, Result, Side};
use crate::schema::diff::Kind;
use crate::schema::diff::mend::mend;
use crate::schema::diff::read::Object;
use crate::schema::diff::tokens::literals;

impl Drift {
    /// The labels of enums that the target lacks.
    pub(super) async fn enums(&mut self, ends: &mut Ends) -> Result<Option<String>> {
        let labels = "SELECT enumtypid::pg_catalog.regtype::text, enumlabel::text FROM pg_catalog.pg_enum ORDER BY 1, enumsortorder";
        let (there, here) = tokio::join!(self.source.query(labels, &[]), self.target.query(labels, &[]));
        let there = there.map_err(|e| Fault::sql(Side::Source, "reading the enums", &e))?;
        let here = here.map_err(|e| Fault::sql(Side::Target, "reading the enums", &e))?;
        let here: BTreeSet<(String, String)> = here.iter().map(|row| (row.get(0), row.get(1))).collect();
        let types: BTreeSet<&String> = here.iter().map(|(name, _)| name).collect();
        let lacks = |row: &tokio_postgres::Row| {
            let (name, label): (String, String) = (row.get(0), row.get(1));
            types.contains(&name) && !here.contains(&(name, label))
        };
        if !there.iter().any(lacks) {
            return Ok(None);
        }
        let (there, here) = self.objects(ends, false).await?;
        let mut done = Vec::new();
        for (id, object) in there.iter().filter(|(id, _)| id.0 == Kind::Enum) {
            let Some(target) = here.get(id).filter(|target| target.facets != object.facets) else { continue };
            let statements = match renamed_label(object, target) {
                Some(rename) => Err(rename),
                None => Ok(mend(object, target, &["labels"])),
            };
            match statements {
                Ok(statements) if statements.is_empty() => {}
                Ok(statements) if self.ddl == Ddl::Additive => {
                    for statement in &statements {
                        // In transactions of their own: a value can't be used in the one that adds it.
                        let added = self.target.batch_execute(statement).await;
                        added.map_err(|e| Fault::sql(Side::Target, "adding a value to an enum", &e))?;
                        tracing::info!("made on the target: {statement}");
                    }
                    done.push(format!("the enum {} has got values", object.name));
                }
                Ok(statements) | Err(statements) => {
                    for (relation, table) in users(&ends.there, &object.name) {
                        let open = self.open.entry(relation).or_default();
                        open.table = table;
                        open.statements.extend(statements.iter().cloned());
                    }
                }
            }
        }
        if !done.is_empty() {
            self.objects(ends, true).await?;
        }
        Ok((!done.is_empty()).then(|| done.join(", ")))
    }
}

/// The statement that renames a label: the target has another one where the source has one that it lacks. Rows that
/// have it look different on the source from then on, and no change says so.
fn renamed_label(source: &Object, target: &Object) -> Option<Vec<String>> {
    let labels = |object: &Object| -> Vec<String> {
        let labels = object.facet("labels").map(literals).unwrap_or_default();
        labels.into_iter().map(str::to_owned).collect()
    };
    let (wanted, has) = (labels(source), labels(target));
    let renamed = has.iter().filter(|label| !wanted.contains(label)).map(|label| {
        let place = has.iter().position(|other| other == label)?;
        let new = wanted.get(place).filter(|new| !has.contains(new))?;
        Some(format!("ALTER TYPE {} RENAME VALUE {label} TO {new}", source.name))
    });
    let renamed: Vec<String> = renamed.flatten().collect();
    (!renamed.is_empty()).then_some(renamed)
}

/// The tables with a column of this type.
fn users(tables: &BTreeMap<u32, Table>, type_name: &str) -> Vec<(u32, String)> {
    let uses = |table: &&Table| {
        table.columns.iter().any(|column| column.type_name.trim_end_matches("[]") == type_name)
    };
    tables.values().filter(uses).map(|table| (table.oid, table.name.to_string())).collect()
}
