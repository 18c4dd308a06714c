//! The source's extensions: whether the target has them, or could.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::finding::{Finding, Severity};
use super::{Asked, Check, Wanted};
use crate::catalog::quote_identifier;
use crate::fault::{Fault, Result, Side};
use crate::provider;

const SIDE: Side = Side::Target;

/// An extension of the source.
struct Extension {
    name: String,
    version: String,
    schema: String,
    /// The selected tables that are made with it.
    tables: Vec<String>,
}

/// Looks for each extension of the source on the target.
pub(super) async fn look(
    check: &mut Check<'_>,
    source: &Asked,
    target: &Asked,
    wanted: &Wanted,
) -> Result<()> {
    let oids: Vec<u32> = wanted.tables.iter().map(|table| table.oid).collect();
    let rows = source
        .session
        .query(include_str!("../../sql/catalog/check_extensions.sql"), &[&oids])
        .await
        .map_err(|e| Fault::sql(Side::Source, "looking at the extensions", &e))?;
    let extensions: Vec<Extension> = rows
        .iter()
        .map(|row| Extension {
            name: row.get("name"),
            version: row.get("version"),
            schema: row.get("schema"),
            tables: row.get("tables"),
        })
        // The provider's own, unless a table needs it. Users have theirs in `extensions`, too.
        .filter(|extension| {
            let schema = extension.schema.as_str();
            !extension.tables.is_empty()
                || schema == "extensions"
                || !provider::INTERNAL_SCHEMAS.contains(&schema)
        })
        .collect();
    let names: Vec<&str> = extensions.iter().map(|extension| extension.name.as_str()).collect();
    let rows = target
        .session
        .query(include_str!("../../sql/catalog/check_available.sql"), &[&names])
        .await
        .map_err(|e| Fault::sql(SIDE, "looking at the extensions", &e))?;
    let available: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.get("name"), row)).collect();
    for extension in &extensions {
        let finding = match available.get(extension.name.as_str()) {
            None => Some(unavailable(extension)),
            Some(row) => match row.get::<_, Option<&str>>("installed") {
                Some(installed) => {
                    check.findings.extend(elsewhere(extension, row.get("schema")));
                    older(extension, installed)
                }
                None => Some(missing(check, target, extension, row)),
            },
        };
        check.findings.extend(finding.map(|finding| finding.object(&extension.name)));
    }
    Ok(())
}

impl Extension {
    /// A table that can't be made without it stands in the way; anything else is for a person to judge.
    fn severity(&self) -> Severity {
        if self.tables.is_empty() { Severity::Warns } else { Severity::Blocks }
    }

    fn why(&self) -> String {
        match self.tables.as_slice() {
            [] => "no table needs it, but functions or views may, and applications".to_owned(),
            tables => format!("these tables can't be made without it: {}", tables.join(", ")),
        }
    }
}

fn unavailable(extension: &Extension) -> Finding {
    Finding::blocks("extension-unavailable", SIDE, "the target's server has no such extension to install")
        .severity(extension.severity())
        .why(extension.why())
        .mend(format!(
            "install the extension {} on the target's server (its package, or the provider's list of extensions), or \
             leave these tables out",
            extension.name
        ))
}

fn missing(check: &Check<'_>, target: &Asked, extension: &Extension, row: &Row) -> Finding {
    let may_create = target.server.is_superuser || row.get("is_trusted") && target.server.can_create;
    let version: Option<&str> = row.get("available");
    let what = format!("the extension is not there yet; {} can be had", version.unwrap_or("it"));
    if may_create && check.config.schema.copy {
        return Finding::informs("extension-to-make", SIDE, what)
            .why("it is made at the first start if anything that is made there needs it");
    }
    let schema = quote_identifier(&extension.schema);
    let create = match extension.schema.as_str() {
        "public" => String::new(),
        _ => format!("CREATE SCHEMA IF NOT EXISTS {schema}; "),
    } + &format!("CREATE EXTENSION {} WITH SCHEMA {schema};", quote_identifier(&extension.name));
    if may_create {
        return Finding::warns("extension-missing", SIDE, what).why(extension.why()).mend(create);
    }
    Finding::blocks("extension-missing", SIDE, format!("{what}, but not by the role {}", target.server.role))
        .severity(extension.severity())
        .why(extension.why())
        .mend(format!("as a superuser (or in the provider's console), in this database: {create}"))
}

fn older(extension: &Extension, installed: &str) -> Option<Finding> {
    (parts(installed) < parts(&extension.version)).then(|| {
        Finding::warns(
            "extension-older",
            SIDE,
            format!(
                "the target has the extension in version {installed}, the source in {}",
                extension.version
            ),
        )
        .why("what is new in the source's version is not there")
        .mend(format!(
            "ALTER EXTENSION {} UPDATE; if that is as new as the server has it, a newer package",
            quote_identifier(&extension.name)
        ))
    })
}

fn elsewhere(extension: &Extension, schema: Option<&str>) -> Option<Finding> {
    let schema = schema.filter(|schema| *schema != extension.schema)?;
    Some(
        Finding::informs(
            "extension-schema",
            SIDE,
            format!("the extension is in the schema {schema} there, and in {} on the source", extension.schema),
        )
        .object(&extension.name)
        .why("the schemas are compared as if it was in the same; what names it with its schema has to be changed"),
    )
}

/// The numbers of a version, so that 1.10 is newer than 1.9.
fn parts(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(parts("1.9") < parts("1.10"));
        assert!(parts("0.8.0") < parts("0.8.5"));
        assert!(parts("1.3") == parts("1.3"));
        assert!(parts("1.3") < parts("1.3.1"));
    }
}
