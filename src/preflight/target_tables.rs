//! Where on the target the rows go: what is missing, what is in the way, and what the role may do there.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use super::finding::{Finding, Severity};
use super::migration::Known;
use super::refuse::refuse_shared;
use super::source_tables::Sized;
use super::{Asked, Check, Wanted};
use crate::catalog::{SourceTable, TableName, missing_on_target, quote_identifier, rows_exist};
use crate::config::ExistingRows;
use crate::connect::Mode;
use crate::copy::takes_others;
use crate::fault::{Fault, Result, Side};
use crate::schema::diff::What;
use crate::schema::{self, apply};

const SIDE: Side = Side::Target;

/// Looks at the tables of the target that are to take the rows of those that are wanted.
pub(super) async fn look(
    check: &mut Check<'_>,
    (source, target): (&Asked, &Asked),
    wanted: &Wanted,
    tables: &[Sized],
    known: &Known,
) -> Result<()> {
    let mode = target.session.mode().await?;
    let rows = places(target, &wanted.tables).await?;
    let (mut lacking, mut owned) = (Vec::new(), Vec::new());
    // Where something is made: tables, and unique indexes that were off while rows were copied.
    let mut schemas = BTreeSet::new();
    for row in &rows {
        let name = name_of(row);
        match (row.get("is_there"), row.get::<_, Option<&str>>("other_kind")) {
            (false, Some(kind)) => check.add(not_a_table(&name, kind)),
            (false, None) if row.get("root_is_there") => check.add(missing_partition(check, &name)),
            (false, None) => lacking.push(name),
            (true, _) => {
                check.findings.extend(rights(&name, row, &target.server.role, mode));
                check.findings.extend(in_the_way(&name, row));
                if row.get("has_unique") {
                    schemas.insert(name.schema.clone());
                }
                if row.get("is_owner") {
                    owned.push(name);
                }
            }
        }
    }
    missing(check, &lacking);
    if check.config.schema.copy {
        schemas.extend(lacking.iter().map(|name| name.schema.clone()));
    } else {
        check.findings.extend(meeting(wanted, tables, &rows));
    }
    no_create_in(check, target, schemas).await?;
    for fault in schema::not_to_be_put_back(&**target.session, &owned, mode).await? {
        check.add(
            Finding::of_fault("not-put-back", &fault)
                .why("what is off while rows are replicated has to be put back exactly as it was"),
        );
    }
    columns(check, target, wanted, &lacking).await?;
    let Some(ledger) = &known.ledger else { return Ok(()) };
    let targets = wanted.targets(&target.session).await?;
    match refuse_shared(&target.session, &targets, ledger, &check.config.name).await {
        Err(fault) if fault.code().is_none() && !fault.is_unreachable() => {
            check.add(Finding::of_fault("shared-table", &fault));
        }
        shared => shared?,
    }
    if !known.is_under_way() {
        existing_rows(check, target, &targets, &rows).await;
    }
    // What is held back is no difference, and only the ledger knows it.
    schema_differs(check, source, target).await
}

fn name_of(row: &Row) -> TableName {
    TableName::new(row.get::<_, &str>("schema"), row.get::<_, &str>("name"))
}

async fn places(target: &Asked, tables: &[SourceTable]) -> Result<Vec<Row>> {
    let names = |of: fn(&SourceTable) -> &TableName| -> (Vec<String>, Vec<String>) {
        tables.iter().map(|t| (of(t).schema.clone(), of(t).name.clone())).unzip()
    };
    let (schemas, tables_) = names(|t| &t.name);
    let (root_schemas, root_names) = names(SourceTable::published_as);
    let columns: Vec<String> =
        tables.iter().map(|t| serde_json::Value::from(t.columns.clone()).to_string()).collect();
    target
        .session
        .query(
            include_str!("../../sql/catalog/check_target_tables.sql"),
            &[&schemas, &tables_, &root_schemas, &root_names, &columns],
        )
        .await
        .map_err(|e| Fault::sql(SIDE, "looking at the tables", &e))
}

fn not_a_table(name: &TableName, kind: &str) -> Finding {
    let kind = match kind {
        "v" => "a view",
        "m" => "a materialized view",
        "f" => "a foreign table",
        "S" => "a sequence",
        "i" | "I" => "an index",
        _ => "something else",
    };
    Finding::blocks(
        "not-a-table",
        SIDE,
        format!("there is {kind} where rows of the source's table should go"),
    )
    .table(name)
    .why("rows can't be copied into it")
    .mend("drop it or rename it, and create the table as it is on the source")
}

fn missing_partition(check: &Check<'_>, name: &TableName) -> Finding {
    let finding = Finding::informs("partition-missing", SIDE, "the target lacks this partition").table(name);
    match check.config.schema.copy {
        true => finding.why("it is made at the first start"),
        false => finding.why(
            "its rows go through the parent into whatever partition takes them there, and can't be copied again alone",
        ),
    }
}

/// Partitions of the source whose rows would be together in one of the target's, where nobody could tell them
/// apart: one that is missing, beside one that takes others' rows, too.
fn meeting(wanted: &Wanted, tables: &[Sized], rows: &[Row]) -> Vec<Finding> {
    let there: BTreeMap<&TableName, Option<&str>> =
        tables.iter().map(|table| (&table.name, table.bounds.as_deref())).collect();
    let here: BTreeMap<TableName, &Row> = rows.iter().map(|row| (name_of(row), row)).collect();
    let mut found = Vec::new();
    for missing in &wanted.tables {
        let is_missing = |row: &&Row| !row.get::<_, bool>("is_there") && row.get("root_is_there");
        if missing.root.is_none() || here.get(&missing.name).is_none_or(|row| !is_missing(row)) {
            continue;
        }
        let taking = wanted.tables.iter().filter(|table| table.root == missing.root).find(|table| {
            let bounds = here.get(&table.name).filter(|row| row.get("is_there")).map(|row| row.get("bounds"));
            let source = there.get(&table.name).copied().flatten();
            bounds.flatten().is_some_and(|target: &str| takes_others(source, Some(target)))
        });
        if let Some(taking) = taking {
            found.push(
                Finding::blocks(
                    "partitions-meet",
                    SIDE,
                    format!(
                        "the target lacks the partition, and its {} takes rows that aren't the source's",
                        taking.name
                    ),
                )
                .table(&missing.name)
                .why("the rows of the two could not be told apart there")
                .mend(format!(
                    "create {} on the target as it is on the source: {}",
                    missing.name.to_sql(),
                    there.get(&missing.name).copied().flatten().unwrap_or_default()
                )),
            );
        }
    }
    found
}

/// Schemas in which we would have to make something, and may not.
async fn no_create_in(check: &mut Check<'_>, target: &Asked, schemas: BTreeSet<String>) -> Result<()> {
    let schemas: Vec<String> = schemas.into_iter().collect();
    let rows = target
        .session
        .query(
            "SELECT nspname::text FROM pg_catalog.pg_namespace
              WHERE nspname = ANY ($1) AND NOT pg_catalog.has_schema_privilege(oid, 'CREATE') ORDER BY 1",
            &[&schemas],
        )
        .await
        .map_err(|e| Fault::sql(SIDE, "looking at the schemas", &e))?;
    let role = &target.server.role;
    for row in rows {
        let schema: &str = row.get(0);
        check.add(
            Finding::blocks("no-create-right", SIDE, format!("the role {role} has no CREATE on the schema"))
                .object(schema)
                .why("tables that are missing are made there, and unique indexes that are off while rows are copied")
                .mend(format!(
                    "GRANT CREATE ON SCHEMA {} TO {};",
                    quote_identifier(schema),
                    quote_identifier(role)
                )),
        );
    }
    Ok(())
}

/// Tables that the target lacks: one finding if they will be made, however many there are.
fn missing(check: &mut Check<'_>, lacking: &[TableName]) {
    if !check.config.schema.copy {
        for name in lacking {
            check.add(
                Finding::blocks("table-missing", SIDE, "the target lacks the table")
                    .table(name)
                    .why("[schema] copy is false, so that nothing is made there")
                    .mend("create it on the target, or set [schema] copy = true, or name it in [tables] exclude"),
            );
        }
    } else if !lacking.is_empty() {
        check.add(
            Finding::informs(
                "tables-to-make",
                SIDE,
                format!("the target lacks {} of the source's tables", lacking.len()),
            )
            .why("they are made at the first start"),
        );
    }
}

/// Columns that tables of the target lack.
async fn columns(
    check: &mut Check<'_>,
    target: &Asked,
    wanted: &Wanted,
    lacking: &[TableName],
) -> Result<()> {
    let there: Vec<&SourceTable> =
        wanted.tables.iter().filter(|table| !lacking.contains(&table.name)).collect();
    for missing in missing_on_target(&target.session, &there).await? {
        let Some(column) = missing.strip_prefix("column ") else { continue };
        let what = "the target lacks the column";
        let finding = match check.config.schema.copy {
            true => Finding::informs("columns-to-make", SIDE, what).why("it is added at the first start"),
            false => Finding::blocks("column-missing", SIDE, what)
                .why("its values have no place there, and [schema] copy is false")
                .mend("cdc schema diff has the statement"),
        };
        check.add(finding.object(column));
    }
    Ok(())
}

/// What the role may do with the table.
fn rights(name: &TableName, row: &Row, role: &str, mode: Mode) -> Vec<Finding> {
    let mut found = Vec::new();
    let (sql, role_sql, owner) = (name.to_sql(), quote_identifier(role), row.get::<_, &str>("owner"));
    let lacking: Vec<&str> = row.get("lacking");
    if !row.get::<_, bool>("has_usage") {
        found.push(
            Finding::blocks(
                "no-usage-right",
                SIDE,
                format!("the role {role} has no USAGE on the table's schema"),
            )
            .table(name)
            .why("nothing in it can be written")
            .mend(format!("GRANT USAGE ON SCHEMA {} TO {role_sql};", quote_identifier(&name.schema))),
        );
    }
    if !lacking.is_empty() {
        let lacking = lacking.join(", ");
        found.push(
            Finding::blocks("no-write-right", SIDE, format!("the role {role} has no {lacking} on the table"))
                .table(name)
                .why("every change of the source's rows is made there")
                .mend(format!(
                    "ALTER TABLE {sql} OWNER TO {role_sql}; or: GRANT {lacking} ON {sql} TO {role_sql};"
                )),
        );
    }
    let is_owner: bool = row.get("is_owner");
    if !is_owner {
        let is_acting = !row.get::<_, Vec<String>>("firing").is_empty()
            || mode == Mode::Owner && row.get("has_triggers")
            || row.get("has_unique")
            || row.get("has_foreign_keys");
        let severity = if is_acting { Severity::Blocks } else { Severity::Warns };
        found.push(
            Finding::blocks("not-owner", SIDE, format!("the role {role} doesn't own the table, {owner} does"))
                .severity(severity)
                .table(name)
                .why(
                    "only its owner can take constraints, indexes and triggers off the table while rows are copied or \
                     streamed, and put them back",
                )
                .mend(format!(
                    "ALTER TABLE {sql} OWNER TO {role_sql}; or connect as {owner}, or: GRANT {owner} TO {role_sql};"
                )),
        );
    }
    if row.get("is_hidden_by_policies") {
        found.push(match is_owner {
            true => Finding::informs("row-level-security", SIDE, "row-level security holds for its owner, too (FORCE)")
                .why("that is switched off until the cutover"),
            false => Finding::blocks("row-level-security", SIDE, "row-level security would hide rows of the table from us")
                .why("reading and writing it fails then (row_security = off), so that no row is left out silently")
                .mend(format!("as a superuser: ALTER ROLE {role_sql} BYPASSRLS; or connect as the owner, {owner}")),
        }.table(name));
    }
    found
}

/// What the table has that would refuse rows, change them or lose them.
fn in_the_way(name: &TableName, row: &Row) -> Vec<Finding> {
    let mut found = Vec::new();
    let firing: Vec<String> = row.get("firing");
    if !firing.is_empty() {
        found.push(
            Finding::informs(
                "firing-trigger",
                SIDE,
                format!(
                    "these fire also for replicated changes (ENABLE ALWAYS or REPLICA): {}",
                    firing.join(", ")
                ),
            )
            .table(name)
            .why("the target's rows would differ from the source's, so they are off until the cutover"),
        );
    }
    for column in row.get::<_, Vec<String>>("generated") {
        found.push(
            Finding::blocks(
                "column-generated",
                SIDE,
                "the column is generated there but an ordinary one on the source",
            )
            .object(format!("{column} of {name}"))
            .why("the source's values can't be written into it")
            .mend(format!(
                "ALTER TABLE {} ALTER COLUMN {} DROP EXPRESSION;",
                name.to_sql(),
                quote_identifier(&column)
            )),
        );
    }
    if row.get("is_unlogged") {
        found.push(
            Finding::warns("unlogged-table", SIDE, "the table is unlogged on the target")
                .table(name)
                .why("a crash of the target empties it, and the stream would go on where it was")
                .mend(format!("ALTER TABLE {} SET LOGGED;", name.to_sql())),
        );
    }
    for subscription in row.get::<_, Vec<String>>("subscriptions") {
        found.push(
            Finding::warns(
                "subscription",
                SIDE,
                format!("the subscription {subscription} writes into the table"),
            )
            .table(name)
            .why("rows would come twice, and changes meet rows that aren't there")
            .mend(format!(
                "ALTER SUBSCRIPTION {s} DISABLE; or: DROP SUBSCRIPTION {s};",
                s = quote_identifier(&subscription)
            )),
        );
    }
    found
}

/// Rows that are there before anything is copied.
async fn existing_rows(check: &mut Check<'_>, target: &Asked, targets: &[TableName], rows: &[Row]) {
    let found = rows_exist(&target.session, targets).await;
    let replace = check.config.tables.existing_rows == ExistingRows::Replace;
    for name in check.looked(SIDE, found).unwrap_or_default() {
        let finding = match replace {
            true => Finding::informs("existing-rows", SIDE, "there are rows already, which will be replaced")
                .why("existing_rows = \"replace\" says so: they are deleted before the copy"),
            false => Finding::blocks("existing-rows", SIDE, "there are rows already")
                .why("the source's rows would be mixed with them")
                .mend(format!(
                    "TRUNCATE {}; or existing_rows = \"replace\" under [tables], which deletes them",
                    name.to_sql()
                )),
        };
        check.add(finding.table(&name));
        let of = |row: &&Row| {
            row.get::<_, &str>("schema") == name.schema && row.get::<_, &str>("name") == name.name
        };
        let referenced_by: Vec<String> =
            rows.iter().find(of).map(|row| row.get("referenced_by")).unwrap_or_default();
        if replace && !referenced_by.is_empty() {
            check.add(
                Finding::blocks(
                    "referenced-table",
                    SIDE,
                    format!("a foreign key of {} keeps its rows from being replaced", referenced_by.join(", ")),
                )
                .table(&name)
                .why("that table is not replicated, and its rows would refer to nothing")
                .mend("drop the foreign key until the copy is over, or replicate that table, too, or empty both by hand"),
            );
        }
    }
}

/// How else the schemas differ, as far as it isn't made at the first start.
async fn schema_differs(check: &mut Check<'_>, source: &Asked, target: &Asked) -> Result<()> {
    let diff = schema::diff(&source.session, &target.session, check.config).await?;
    let count = |what: What| diff.differences.iter().filter(|difference| difference.what == what).count();
    let (missing, different) = (count(What::Missing), count(What::Different));
    let mut said = Vec::new();
    if missing > 0 && !check.config.schema.copy {
        said.push(format!("missing there: {missing}"));
    }
    if different > 0 {
        said.push(format!("different there: {different}"));
    }
    if check.config.schema.copy && apply::is_needed(&diff) {
        // It runs that program on this host.
        if let Err(fault) = apply::programs(source.server.major().unsigned_abs()) {
            check.add(Finding::of_fault("pg-dump", &fault));
        }
    }
    if !said.is_empty() {
        check.add(
            Finding::warns("schema-differs", SIDE, format!("the target's schema differs: {}", said.join(", ")))
                .why("what is missing or different can refuse rows, or make the target behave otherwise after the cutover")
                .mend("cdc schema diff names each, with the SQL that mends it"),
        );
    }
    Ok(())
}
