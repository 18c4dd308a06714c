//! What is left out of the copy of the schema on purpose, and why: one answer for whoever makes the schema and
//! whoever compares it.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::tokens;
use crate::catalog::TableName;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::provider;

/// What objects may need and will not get.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Schemas of the provider that the target lacks.
    schemas: BTreeSet<String>,
    /// Roles of the provider that the target lacks.
    roles: BTreeSet<String>,
    /// Objects that are left out themselves, and why.
    objects: BTreeMap<(String, String), String>,
}

impl LeftOut {
    /// Asks the target what it has of the provider's parts; `tables` are those of the source that the configuration
    /// leaves out.
    pub(super) async fn on(target: &Session, tables: impl Iterator<Item = TableName>) -> Result<Self> {
        let lacks = "SELECT name FROM unnest($1::text[]) AS name WHERE NOT EXISTS ";
        let fault = |e| Fault::sql(Side::Target, "looking for the provider's parts", &e);
        let schemas = format!("{lacks} (SELECT FROM pg_catalog.pg_namespace WHERE nspname = name)");
        let schemas = target.query(&schemas, &[&provider::INTERNAL_SCHEMAS]).await.map_err(fault)?;
        let roles = format!("{lacks} (SELECT FROM pg_catalog.pg_roles WHERE rolname = name)");
        let roles = target.query(&roles, &[&provider::INTERNAL_ROLES]).await.map_err(fault)?;
        let why = "the configuration leaves it out".to_owned();
        Ok(Self {
            // Its extensions may be in another schema.
            schemas: schemas.iter().map(|row| row.get(0)).filter(|schema| schema != "extensions").collect(),
            roles: roles.iter().map(|row| row.get(0)).collect(),
            objects: tables.map(|table| ((table.schema, table.name), why.clone())).collect(),
        })
    }

    /// Why an object that can't be made by this SQL is left out on purpose, if it is.
    pub(super) fn why(&self, sql: &str) -> Option<String> {
        for (schema, name) in tokens::qualified_names(sql) {
            if self.schemas.contains(&schema) {
                return Some(format!(
                    "it refers to {schema}.{name}, which is the provider's own, and the target has no schema {schema}"
                ));
            }
            if let Some(why) = self.objects.get(&(schema.clone(), name.clone())) {
                return Some(format!("it needs {schema}.{name}, which is left out: {why}"));
            }
        }
        let role = tokens::roles(sql).into_iter().find(|role| self.roles.contains(role))?;
        Some(format!("it names the provider's role {role}, which the target has not"))
    }

    /// Why an object of this name is left out by the configuration, if it is.
    pub(super) fn configured(config: &Config, name: &TableName) -> Option<String> {
        (!config.schema.selects(name)).then(|| "the configuration leaves it out".to_owned())
    }

    /// This object is left out, and what needs it will be.
    pub(super) fn add(&mut self, schema: &str, name: &str, why: &str) {
        self.objects.insert((schema.to_owned(), name.to_owned()), why.to_owned());
    }
}
