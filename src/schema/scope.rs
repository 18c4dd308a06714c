//! Which of the source's objects the migration is about, and why the others are not. The schema that is compared
//! is the one that is copied.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::tokens;
use super::references;
use crate::catalog::{SourceTable, TableName, source_tables};
use crate::config::{Config, SchemaConfig, Selection};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::provider;

/// What is copied and compared.
#[derive(Debug)]
pub struct Scope {
    /// The selected tables, partitions and their parents included.
    pub tables: Vec<SourceTable>,
    /// The schemas that anything is in: those of the selected tables, and those without tables.
    pub schemas: Vec<String>,
    /// The source's other schemas, quoted, each with the reason why it is left out.
    pub other_schemas: BTreeMap<String, String>,
    /// Objects that can't be on the target, quoted as in [`super::Reference`], each with the reason: they refer
    /// to a part of the provider's that the target lacks.
    pub left_out: BTreeMap<String, String>,
    /// The target's roles, quoted.
    pub roles: BTreeSet<String>,
    /// The names of the selected tables.
    selected: BTreeSet<TableName>,
    /// The tables that are not selected.
    pub(super) others: BTreeSet<TableName>,
    config: SchemaConfig,
}

impl Scope {
    /// Asks both databases.
    ///
    /// # Errors
    /// If one can't be asked.
    pub async fn new(source: &Session, target: &Session, config: &Config) -> Result<Self> {
        let all = source_tables(source).await?;
        let has_tables: BTreeSet<String> = all.iter().map(|table| table.name.schema.clone()).collect();
        let (tables, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|table| config.tables.select(table) != Selection::Out);
        let with_selected: BTreeSet<&str> = tables.iter().map(|table| table.name.schema.as_str()).collect();
        let (mut schemas, mut other_schemas) = (Vec::new(), BTreeMap::new());
        let rows = source
            .query(include_str!("../../sql/catalog/schemas.sql"), &[&provider::INTERNAL_SCHEMAS])
            .await
            .map_err(|e| Fault::sql(Side::Source, "listing the schemas", &e))?;
        for row in rows {
            let (name, quoted): (String, String) = (row.get("name"), row.get("quoted"));
            if row.get("is_providers") {
                // Extensions are copied, wherever they are.
                if name != provider::EXTENSIONS_SCHEMA {
                    other_schemas.insert(quoted, "it is the provider's own".to_owned());
                }
            } else if has_tables.contains(&name) && !with_selected.contains(name.as_str()) {
                other_schemas.insert(quoted, "[tables] selects no table of it".to_owned());
            } else if !with_selected.contains(name.as_str()) && !config.schema.selects_schema(&name) {
                other_schemas.insert(quoted, "[schema] leaves it out".to_owned());
            } else {
                schemas.push(name);
            }
        }
        let rows = target.query("SELECT quote_ident(rolname) FROM pg_catalog.pg_roles", &[]).await;
        let rows = rows.map_err(|e| Fault::sql(Side::Target, "listing the roles", &e))?;
        Ok(Self {
            selected: tables.iter().map(|table| table.name.clone()).collect(),
            others: others.into_iter().map(|table| table.name).collect(),
            tables,
            schemas,
            other_schemas,
            left_out: left_out(source, target).await?,
            roles: rows.iter().map(|row| row.get(0)).collect(),
            config: config.schema.clone(),
        })
    }

    /// These tables, and whatever else there is.
    #[cfg(test)]
    pub(super) fn of_tables(tables: impl IntoIterator<Item = TableName>) -> Self {
        let config =
            crate::config::tests::load(crate::config::tests::BOTH, &crate::connect::Environment::empty());
        Self {
            tables: Vec::new(),
            schemas: Vec::new(),
            other_schemas: BTreeMap::new(),
            left_out: BTreeMap::new(),
            roles: BTreeSet::new(),
            selected: tables.into_iter().collect(),
            others: BTreeSet::new(),
            config: config.expect("it is valid").schema,
        }
    }

    /// Why the configuration leaves this out, if it does: a table, view, function, type or the like.
    #[must_use]
    pub fn why_not(&self, name: &TableName) -> Option<&'static str> {
        if self.others.contains(name) {
            Some("[tables] leaves it out")
        } else if !self.selected.contains(name) && !self.config.selects(name) {
            Some("[schema] leaves it out")
        } else {
            None
        }
    }
}

impl Scope {
    /// Why something that is made by this SQL can't be on the target: it refers to a table that is not selected.
    pub(super) fn on_other(&self, sql: &str) -> Option<String> {
        let names =
            tokens::qualified_names(sql).into_iter().map(|(schema, name)| TableName::new(schema, name));
        let other = names.into_iter().find(|name| self.others.contains(name))?;
        Some(format!("it refers to {other}, which [tables] leaves out"))
    }
}

/// What can't be made on the target for want of what it refers to.
async fn left_out(source: &Session, target: &Session) -> Result<BTreeMap<String, String>> {
    let references = references(source, target).await?;
    // The body of a function isn't looked at when it is made; a column without its type is no table.
    let can_be_made = |kind: &str| matches!(kind, "name" | "extension" | "publication");
    let missing = references.into_iter().filter(|reference| {
        !reference.on_target
            && !can_be_made(&reference.refers_to_kind)
            && !matches!(reference.kind.as_str(), "grants" | "cron job" | "column" | "table")
    });
    Ok(missing
        .map(|reference| {
            let reason = format!(
                "it refers to {} {} of the provider's, which the target lacks",
                reference.refers_to_kind, reference.refers_to
            );
            (reference.name, reason)
        })
        .collect())
}
